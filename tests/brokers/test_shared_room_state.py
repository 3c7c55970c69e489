"""Attributes of rooms and `max_members` over Redis, when Redis is away, hangs or forgets; and over real processes."""

import json
import logging
import os
import random
import signal
import threading
import time
from contextlib import ExitStack
from functools import partial

import pytest

from tests.programs import DEADLINE_S, PROGRAM_S, connect, receive, run_server, wait_until
from tests.redis_proxy import Proxy
from tests.wire import run_all
from wsthreads import BrokerError
from wsthreads.brokers import attributes, queue, seats, writer
from wsthreads.brokers.keys import KEYS_S
from wsthreads.brokers.redis import RedisBroker


@pytest.fixture
def divided(proxy, redis_server, worlds):
    """Two processes, of which the first has its Redis behind the proxy."""
    prefix = f"state-{random.randrange(2**32)}"
    return worlds(proxy.url, prefix=prefix), worlds(redis_server.url, prefix=prefix)


def is_away(world):
    return not world.links[0]._availability.answers


def await_back(world):
    wait_until(lambda: not is_away(world), "the connection")


def lose(world, proxy):
    proxy.cut()
    world.rooms.room("other").broadcast("notice the break")
    wait_until(lambda: is_away(world), "the loss of the connection")


def join(member, max_members=2):
    return member.session.room("lobby").join(max_members=max_members).joined


def join_or_none(member, max_members=2):
    """None while Redis cannot be asked."""
    try:
        return join(member, max_members)
    except BrokerError:
        return None


# Attributes


def test_while_redis_is_away_changes_raise_and_reading_has_what_was_known(proxy, divided, caplog):
    here, there = (world.member("lobby").session.room("lobby") for world in divided)
    here.set_attribute("mine", 1)
    there.set_attribute("theirs", 2)
    assert here.get_attribute("theirs") == 2
    lose(divided[0], proxy)
    there.set_attribute("theirs", 20)
    for act in (
        partial(here.set_attribute, "mine", 5),
        partial(here.update_attribute, "mine", lambda value: 5),
        partial(here.delete_attribute, "mine"),
    ):
        with pytest.raises(BrokerError, match="nothing was changed") as error:
            act()
        assert not error.value.is_unknown
    with caplog.at_level(logging.WARNING, "wsthreads.brokers.attributes"):
        assert (here.get_attribute("mine"), here.get_attribute("theirs")) == (1, 2)
        for read in (partial(here.get_attribute, "never read"), here.attributes):
            with pytest.raises(BrokerError):
                read()
        with pytest.raises(BrokerError):
            divided[0].rooms.room("other").get_attribute("mine")
    said = [record.getMessage() for record in caplog.records if record.name == "wsthreads.brokers.attributes"]
    assert len(said) == 1, "once"
    assert said[0].startswith("attributes of rooms are read from this process's copies, which may be old: redis")
    proxy.heal()
    await_back(divided[0])
    assert here.attributes() == {"mine": 1, "theirs": 20}
    lose(divided[0], proxy)
    assert here.attributes() == {"mine": 1, "theirs": 20}
    assert here.get_attribute("never read", "missing") == "missing", "all are known"
    assert there.update_attribute("mine", lambda value: value + 1) == 2
    proxy.heal()


def test_what_is_known_of_a_room_goes_with_the_last_member(divided):
    world = divided[0]
    room = world.member("lobby").session.room("lobby")
    room.set_attribute("n", 1)
    world.rooms.room("other").get_attribute("n")
    assert list(world.rooms.attributes._known) == ["lobby"]
    room.leave()
    assert not world.rooms.attributes._known


def test_a_change_whose_answer_is_lost_says_that_it_is_not_known(proxy, divided, impatient):
    here, there = (world.member("lobby").session.room("lobby") for world in divided)
    here.set_attribute("before", 1)  # Redis knows the script from now on
    impatient()
    proxy.swallow_answers_from(b"visitors")
    with pytest.raises(BrokerError, match="not known") as error:
        here.set_attribute("visitors", 1)
    assert error.value.is_unknown
    assert there.get_attribute("visitors") == 1
    proxy.heal()
    await_back(divided[0])
    assert here.update_attribute("visitors", lambda value: value + 1) == 2


def test_a_change_that_a_hanging_redis_has_not_got_is_never_made(redis, worlds, impatient):
    world, other = worlds(redis.url), worlds(redis.url)
    rooms = [world.member("lobby").session.room("lobby") for world in (world, other)]
    impatient()
    redis.freeze()
    errors = []

    def change(key):
        try:
            rooms[0].set_attribute(key, 1)
        except BrokerError as error:
            errors.append((key, error.is_unknown))

    before = time.monotonic()
    run_all(*(partial(change, f"{n}") for n in range(20)))
    for n in range(20, 40):
        change(f"{n}")
    assert time.monotonic() - before < DEADLINE_S, "a call waits for a second at most"
    assert len(errors) == 40
    redis.thaw()
    wait_until(lambda: not is_away(world) and not is_away(other))
    found = rooms[1].attributes()
    assert not [key for key, is_unknown in errors if key in found and not is_unknown], "said to be not done"


def test_no_update_is_doubled_or_lost_by_breaks_of_the_connection(proxy, divided):
    here, there = (world.member("lobby").session.room("lobby") for world in divided)
    done, unknown = [], []

    def work(room):
        while len(done) < 300:
            try:
                done.append(room.update_attribute("sum", lambda value: (value or 0) + 1))
            except BrokerError as error:
                if error.is_unknown:
                    unknown.append(error)
                wait_until(lambda: not is_away(divided[0]))

    def disturb():
        for n in (50, 100, 150, 200, 250):
            wait_until(lambda n=n: len(done) >= n)
            proxy.cut()
            proxy.heal()

    run_all(*[partial(work, here)] * 4, *[partial(work, there)] * 2, disturb)
    assert len(done) <= there.get_attribute("sum") <= len(done) + len(unknown)
    assert len(set(done)) == len(done), "no two of them got the same number"


def test_a_slow_update_is_not_overtaken_for_ever(redis_server, worlds):
    world = worlds(redis_server.url, processes=3, prefix="state-slow")
    slow, *quick = [rooms.room("lobby") for rooms in world.all_rooms]
    calls, done, is_over = [], [], threading.Event()

    def hammer(room):
        while not is_over.is_set():
            done.append(room.update_attribute("n", lambda value: (value or 0) + 1))

    def change(value):
        calls.append(value)
        time.sleep(0.02)
        return (value or 0) + 1

    def work():
        wait_until(lambda: done)
        try:
            for n in range(1, 9):
                done.append(slow.update_attribute("n", change))
                assert len(calls) < 30 * n
        finally:
            is_over.set()

    run_all(work, *(partial(hammer, room) for room in quick for _ in range(2)))
    assert slow.attributes() == {"n": len(done)}
    assert sorted(done) == list(range(1, len(done) + 1))


def test_a_claim_of_a_process_that_has_died_ends_by_itself(redis_server, worlds, monkeypatch):
    world = worlds(redis_server.url, processes=2, prefix="state-claim")
    one, other = (rooms.attributes for rooms in world.all_rooms)
    until, long = f"now + {attributes.CLAIM_S * 1000:.0f}", "now + 1000000"
    assert attributes.WRITE.count(until) == 2
    with monkeypatch.context() as patched:  # it ends by an update
        patched.setattr(attributes, "WRITE", attributes.WRITE.replace(until, long))
        assert one._swap("lobby", "n", "7", "1", None, "claim") == (False, None)
        assert one.all("lobby") == {}
        assert other.swap("lobby", "n", None, "2") == (False, None), "it is claimed"
        other.put("lobby", "n", "3")
        assert one._swap("lobby", "n", "3", "4", None, "claim") == (True, "4")
    assert other.swap("lobby", "n", "4", "5") == (True, "5"), "the claim is over with the update"
    assert one._swap("lobby", "n", "7", "1", None, "claim") == (False, "5")
    assert other.update("lobby", "n", lambda text: f"{text}5") == "55"
    assert one.delete("lobby", "n")
    assert not redis_server.client.exists(world.broker._keys.address(world.path, "lobby").attributes)


def test_what_ends_by_the_clock_of_redis_ends_also_if_the_clock_goes_back(redis_server, worlds, monkeypatch):
    """The members of a process that was killed, and what it claims."""
    monkeypatch.setattr(writer, "BEAT_S", 0.2)
    world = worlds(redis_server.url, prefix="state-clock")
    assert join(world.member("lobby"), 4)
    address = world.broker._keys.address(world.path, "lobby")
    processes = world.broker._keys.processes(address.shard)
    now = redis_server.client.time()[0] * 1000
    redis_server.client.zadd(processes, {"killed.0": now + 60_000})
    wait_until(lambda: redis_server.client.zscore(processes, "killed.0") < now + 20_000, "the next report")
    redis_server.client.hset(address.attributes, '@"n"', f"killed {now + 60_000}")
    assert world.rooms.room("lobby").update_attribute("n", lambda value: 1) == 1


def test_a_redis_that_has_lost_its_data_has_no_attributes_and_takes_new_ones(redis, worlds):
    rooms = [worlds(redis.url).member("lobby").session.room("lobby") for _ in range(2)]
    rooms[0].set_attribute("n", "x" * 60_000)
    redis.client.flushall()
    assert rooms[1].attributes() == {}
    rooms[1].set_attribute("m", "x" * 60_000)
    assert rooms[0].update_attribute("n", lambda value: value) is None
    assert rooms[1].attributes().keys() == {"m", "n"}


def test_redis_forgets_attributes_when_nobody_is_there_to_say_that_they_are_used(redis_server, worlds):
    world = worlds(redis_server.url, prefix="state-expiry")
    keys = world.broker._keys
    for rooms in world.all_rooms:
        rooms.use_attributes(timers=world.flusher, max_bytes=1000, keep_s=40.0)

    def left_s(name):
        return redis_server.client.pttl(keys.address(world.path, name).attributes) / 1000

    world.rooms.room("empty").set_attribute("n", 1)
    assert 35 < left_s("empty") <= 40
    member = world.member("empty", "lobby")
    wait_until(lambda: KEYS_S + 35 < left_s("empty") <= KEYS_S + 40, "the first member keeps them")
    world.rooms.room("lobby").set_attribute("n", 1)
    assert KEYS_S + 35 < left_s("lobby") <= KEYS_S + 40
    for name in ("empty", "lobby"):
        member.session.room(name).leave()
        wait_until(lambda name=name: 35 < left_s(name) <= 40, "the last member has left")
    remote = world.broker.room(world.path, "remote", room_keep_s=7)
    remote.set_attribute("n", 1)
    assert 5 < left_s("remote") <= 7
    remote.delete_attribute("n")
    assert left_s("remote") < 0


def test_a_program_without_a_server_shares_the_attributes(redis_server, worlds):
    world = worlds(redis_server.url, prefix="state-remote")
    room = world.member("lobby").session.room("lobby")
    broker = RedisBroker(redis_server.url, prefix="state-remote")
    remote = broker.room(world.path, "lobby", max_room_bytes=50)
    remote.set_attribute("ü", [1])
    assert room.update_attribute("ü", lambda value: [*value, 2]) == [1, 2]
    assert remote.update_attribute("ü", lambda value: [*value, 3]) == [1, 2, 3]
    assert (remote.get_attribute("ü"), remote.attributes(), remote.delete_attribute("x")) == (
        [1, 2, 3],
        {"ü": [1, 2, 3]},
        False,
    )
    with pytest.raises(ValueError, match="max_room_bytes allows at most 50"):
        remote.set_attribute("x", "y" * 40)
    for options in ({"max_room_bytes": 0}, {"room_keep_s": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(options))):
            broker.room(world.path, "lobby", **options)
    broker.close()
    away = RedisBroker("redis://127.0.0.1:1").room(world.path, "lobby")
    for act in (away.attributes, partial(away.set_attribute, "n", 1)):
        with pytest.raises(BrokerError):
            act()


# Seats


@pytest.fixture
def settled(monkeypatch):
    """Until it is called, nobody gets a seat who has to wait for `SETTLE_S`. Each call ends such a wait.

    No test needs a thread to have its turn within some time.
    """
    ahead_s = 0.0

    def settle():
        nonlocal ahead_s
        ahead_s += seats.SETTLE_S

    monkeypatch.setattr(seats, "SETTLE_S", 1e6)
    monkeypatch.setattr(seats, "monotonic", lambda: time.monotonic() + ahead_s)
    return settle


def await_counted(redis, world, members, processes):
    """Wait until Redis counts so many members, of so many processes that count as alive."""
    address = world.broker._keys.address(world.path, "lobby")
    alive = world.broker._keys.processes(address.shard)

    def counted():
        counts = redis.client.hgetall(address.members)
        now_ms = redis.client.time()[0] * 1000
        living = [name for name in counts if (redis.client.zscore(alive, name) or 0) > now_ms]
        return len(living) == processes and sum(int(counts[name]) for name in living) == members

    wait_until(counted, "all members to be counted again")


def test_while_redis_is_away_nobody_joins_with_max_members_and_others_do(proxy, divided):
    world = divided[0]
    a, b, c, d = (world.member() for _ in range(4))
    assert join(a)
    lose(world, proxy)
    with pytest.raises(BrokerError, match="no session can join a room with max_members now"):
        join(b)
    assert b.session.rooms() == []
    assert join(a), "a member joins again"
    assert c.session.room("lobby").join().joined
    assert not join(d), "it is full as far as this process can tell"
    proxy.heal()
    await_back(world)
    assert join(b, 3), "Redis still knows who is where"
    assert not join(d, 3)
    assert not world.rooms._seats


def forget(redis, world):
    redis.client.flushall()


def let_die(redis, world):
    """Redis has not heard of the process for so long that it does not count as alive."""
    address = world.broker._keys.address(world.path, "lobby")
    processes = world.broker._keys.processes(address.shard)
    redis.client.zadd(processes, dict.fromkeys(redis.client.zrange(processes, 0, -1), 1))


@pytest.mark.parametrize("happens", [forget, let_die])
def test_when_redis_is_back_without_its_members_nobody_joins_until_they_are_counted(
    redis, worlds, settled, happens
):
    with Proxy(redis.port) as proxy:
        here, there = worlds(proxy.url), worlds(redis.url)
        a, b, c = here.member(), there.member(), here.member()
        assert join(a)
        assert join(b)
        lose(here, proxy)
        happens(redis, here)
        proxy.heal()
        await_back(here)
        with pytest.raises(BrokerError, match="possibly does not know all members yet"):
            join(c, 3)
        await_counted(redis, here, members=2, processes=2)
        assert join_or_none(c, 3) is None
        settled()
        assert join(c, 3)


@pytest.mark.parametrize("is_known", [False, True], ids=["a process without rooms", "a process of the room"])
def test_when_the_clock_of_redis_is_set_forward_no_room_is_overfilled(redis, worlds, monkeypatch, settled, is_known):
    """No process counts as alive then, although all are."""
    monkeypatch.setattr(writer, "BEAT_S", 0.3)
    world = worlds(redis.url, processes=3)
    first, second, third = world.all_rooms
    inside = [world.member(of=rooms) for rooms in (first, second) for _ in range(2)]
    assert all(join(member, 4) for member in inside)
    let_die(redis, world)
    if is_known:
        world.member("lobby", of=third)
    late = world.member(of=third)
    for _ in range(20):
        assert not join_or_none(late, 4)
    await_counted(redis, world, members=4 + is_known, processes=2 + is_known)
    settled()
    assert join(late, 4) is False
    for member in inside:
        member.session.room("lobby").leave()
    wait_until(lambda: join_or_none(late, 4))


def test_a_process_that_is_cut_off_keeps_nobody_waiting_for_long(redis, worlds, settled):
    """Redis has not noticed the end of its connection."""
    world = worlds(redis.url)
    address = world.broker._keys.address(world.path, "lobby")
    _, channel = world.broker._keys.wake("cut-off", world.links[0]._shards[0])
    redis.client.hset(address.members, "cut-off.0", 1)
    pubsub = redis.client.pubsub()
    pubsub.subscribe(channel)
    assert pubsub.get_message(timeout=DEADLINE_S)["type"] == "subscribe"
    member = world.member()
    with pytest.raises(BrokerError, match="its clock was set"):
        join(member, 1)
    assert join_or_none(member, 1) is None
    settled()
    assert join(member, 1)
    member.session.room("lobby").leave()
    assert join(member, 1)
    pubsub.close()


def test_a_seat_that_a_hanging_redis_gives_too_late_is_given_back(redis, worlds, monkeypatch, impatient):
    world, other = worlds(redis.url), worlds(redis.url)
    a, b = world.member("room of a"), other.member("room of b")
    impatient()
    redis.freeze()
    with pytest.raises(BrokerError, match="the session has not joined the room"):
        join(a, 1)
    redis.thaw()
    assert wait_until(lambda: join_or_none(b, 1))
    assert a.session.rooms() == ["room of a"]
    assert not world.rooms._seats
    assert other.rooms.room("lobby").members() == 1


def test_when_redis_has_lost_its_data_nobody_gets_a_seat_that_another_has(redis, worlds, monkeypatch, settled):
    monkeypatch.setattr(writer, "BEAT_S", 0.2)
    all_worlds = [worlds(redis.url) for _ in range(3)]
    members = [world.member() for world in all_worlds for _ in range(3)]
    assert sum(join(member, 4) for member in members) == 4
    outside = [member for member in members if not member.session.rooms()]

    def answers():
        return {join_or_none(member, 4) for member in outside}

    for _ in range(2):
        redis.client.flushall()
        for _ in range(10):
            assert answers() == {None}
        await_counted(redis, all_worlds[0], members=4, processes=2)
        assert answers() == {None}
        settled()
        assert answers() == {False}
        assert sum("lobby" in member.session.rooms() for member in members) == 4
    next(member for member in members if member.session.rooms()).session.room("lobby").leave()
    wait_until(lambda: True in answers(), "the place that is free")
    assert sum("lobby" in member.session.rooms() for member in members) == 4


def test_there_are_never_too_many_while_the_connection_breaks(proxy, divided, monkeypatch):
    monkeypatch.setattr(seats, "SETTLE_S", 0.1)
    members = [world.member() for world in divided for _ in range(4)]
    end = time.monotonic() + 1.5
    inside = []

    def work(member):
        while time.monotonic() < end:
            if join_or_none(member):
                inside.append(member)
                assert len(inside) <= 2, f"{len(inside)} are inside"
                inside.remove(member)
                member.session.room("lobby").leave()

    def disturb():
        while time.monotonic() < end:
            time.sleep(0.3)
            proxy.cut()
            proxy.heal()

    run_all(*(partial(work, member) for member in members), disturb)
    assert not any(world.rooms.names() for world in divided)
    assert not any(world.rooms._seats for world in divided)


def test_members_stay_counted_while_their_process_comes_back(proxy, divided, monkeypatch):
    """Between the greeting of a new connection and the announcement of each room, for two breaks, and after them."""
    a, b = divided
    monkeypatch.setattr(queue, "BATCH_ROOMS", 1)
    for room in ("first", "lobby", "last"):
        a.member(room)
    inside = [a.member() for _ in range(2)]
    assert [member.session.room("lobby").join(max_members=3).joined for member in inside] == [True] * 2
    late = [b.member() for _ in range(4)]
    sender = a.links[0]._writer
    greet, exchange, known, seen = sender._greet, sender._exchange, sender._registration, []

    def look(when):
        counts = [b.rooms.room(room).members() for room in ("first", "lobby", "last")]
        seen.append((when, counts, [join(member, 3) for member in late]))

    def greeted():
        greet()
        look("greeting")

    def exchanged(batch):
        exchange(batch)
        if len(seen) < 12:
            look("exchange")

    monkeypatch.setattr(sender, "_greet", greeted)
    monkeypatch.setattr(sender, "_exchange", exchanged)
    for greetings in (2, 3):
        lose(a, proxy)
        proxy.heal()
        wait_until(lambda greetings=greetings: known.count >= greetings and not known.formers, "all to be told")
        await_back(a)
    assert {when for when, *_ in seen} == {"greeting", "exchange"}
    assert [(counts, joined) for _, counts, joined in seen] == [([1, 3, 1], [False] * 4)] * len(seen)
    assert [a.rooms.room(room).members() for room in ("first", "lobby", "last")] == [1, 3, 1]
    inside[0].session.room("lobby").leave()
    wait_until(lambda: join(late[0], 3), "the place that is free")
    assert not join(late[1], 3)


# Real processes

HANDLER = """
import json

def on_message(session, message):
    do, name, number = json.loads(message)
    room = session.room(name)
    if do == "join":
        answer = room.join(max_members=number).joined
    elif do == "leave":
        answer = room.leave()
    elif do == "update":
        for _ in range(number):
            answer = room.update_attribute("sum", lambda value: (value or 0) + 1)
    else:
        answer = room.members()
    session.send(json.dumps(answer))
"""


def tell(client, do, name, number=0):
    client.send(json.dumps([do, name, number]))


def ask(client, do, name, number=0):
    tell(client, do, name, number)
    return json.loads(receive(client))


@pytest.mark.long
def test_over_three_processes_no_update_is_lost_and_seats_are_as_many_as_they_are(tmp_path, redis):
    (tmp_path / "game.py").write_text(HANDLER)
    options = ("game.py", "--redis", redis.url)
    with ExitStack() as stack:
        servers = [stack.enter_context(run_server(*options, cwd=tmp_path)) for _ in range(3)]
        clients = [stack.enter_context(connect(f"{servers[n % 3].ws_url}/ws/game")) for n in range(100)]
        for client in clients[:30]:
            tell(client, "update", "sums", 100)
        assert max(json.loads(client.recv(PROGRAM_S)) for client in clients[:30]) == 3000
        for n in range(50):
            for client in clients:
                tell(client, "join", f"game {n}", 4)
            assert sum(json.loads(receive(client)) for client in clients) == 4
        for client in clients[:3]:
            wait_until(lambda client=client: ask(client, "members", "game 49") == 4)
        assert [ask(client, "join", "killed", 3) for client in clients[:4]] == [True, True, True, False]
        os.kill(servers[0].process.pid, signal.SIGKILL)
        wait_until(lambda: ask(clients[4], "join", "killed", 3), "the place of the one who was killed")
        assert not ask(clients[5], "join", "killed", 3)
        assert ask(clients[5], "update", "sums", 1) == 3001
