"""Users, single sessions and whole rooms, reached over Redis: in two processes, as far as Redis can tell."""

import random
import threading
import time

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.room_worlds import RedisWorld
from tests.wire import run_all
from wsthreads import BrokerError, ConfigError, Peer, RoomNameError, UsageError, User, UserError
from wsthreads.brokers.redis import RedisBroker
from wsthreads.protocol.frames import message_frame
from wsthreads.rooms.names import user_room


@pytest.fixture
def world(redis_server):
    world = RedisWorld(redis_server.url, prefix=f"users-{random.randrange(2**32)}")
    yield world
    world.end()


@pytest.fixture
def outside(world, redis_server):
    """A program without a server."""
    broker = RedisBroker(redis_server.url, prefix=world.links[0]._keys._prefix)
    yield broker
    broker.close()


def user(world, name, of=0):
    return User(name, world.all_rooms[of].directory)


def peer(world, member, of=0):
    return Peer(member.session.id, world.all_rooms[of].directory)


def ending(member):
    return wait_until(lambda: member.channel.ending, "the end of a session")


def elsewhere(world, **options):
    """A member in each process."""
    return [world.member(of=rooms, **options) for rooms in world.all_rooms]


def test_a_message_to_a_user_reaches_all_processes_in_the_order_of_the_sender(world):
    ann, again = elsewhere(world, user="ann")
    for member in (ann, again):
        member.session.room("lobby").join()
    for n in range(50):
        world.rooms.room("lobby").broadcast(f"b{n}")
        user(world, "ann").send(f"u{n}")
    expected = [text for n in range(50) for text in (f"b{n}", f"u{n}")]
    assert ann.receive(100) == again.receive(100) == expected


def test_a_kick_closes_the_user_s_sessions_everywhere_behind_what_was_sent_before(world):
    anns = elsewhere(world, user="ann")
    bob = world.member(user="bob")
    user(world, "ann").send("last")
    user(world, "ann").close(4001, "out")
    for ann in anns:
        assert ann.receive(1) == ["last"]
        assert ending(ann) == (4001, "out")
    user(world, "bob").send("still here")
    assert bob.receive(1) == ["still here"]
    assert bob.channel.ending is None
    wait_until(lambda: sum(each.snapshot().get("kicks", 0) for each in world.counts) == 2, "both are counted")


@pytest.mark.parametrize("by", ["a process", "a program"])
def test_a_banned_user_gets_no_session_in_any_process_until_the_ban_is_over(world, outside, by):
    anns = elsewhere(world, user="ann")
    handle = user(world, "ann") if by == "a process" else outside.user("/ws/test", "ann")
    handle.close(4001, "out", ban_s=60)
    for ann in anns:
        assert ending(ann) == (4001, "out")
        ann.session._rooms.leave_all(ann.session)
    for rooms in world.all_rooms:
        ban = wait_until(lambda rooms=rooms: rooms.directory.ban_of("ann"), "the ban")
        assert (ban.code, ban.reason) == (4001, "out")
        assert 50 < ban.until - rooms.directory.bans.clock() <= 60
        assert rooms.directory.ban_of("bob") is None
    short = user(world, "cecil") if by == "a process" else outside.user("/ws/test", "cecil")
    short.close(4001, "out", ban_s=0.2)
    wait_until(lambda: not any(rooms.directory.ban_of("cecil") for rooms in world.all_rooms), "the end of the ban")


def test_who_connects_while_the_ban_is_set_is_told_so_before_it_is_opened(world, redis_server):
    """The handshake has found no ban; then the user is banned by another process; then the session joins."""
    first, second = world.all_rooms
    assert second.directory.ban_of("ann") is None
    User("ann", first.directory).close(4001, "out", ban_s=60)
    ban = world.links[0]._keys.address(world.path, user_room("ann")).ban
    wait_until(lambda: redis_server.client.exists(ban), "the ban")
    late = world.member(of=second, user="ann")
    assert (late.ban.code, late.ban.reason) == (4001, "out")


def test_none_of_many_who_connect_during_a_kick_is_left_over(world):
    stop, got_in, banned = threading.Event(), [], threading.Event()

    def come_back(rooms):
        while not stop.is_set():
            was_banned = banned.is_set()
            if rooms.directory.ban_of("ann") is None:
                member = world.member(of=rooms, user="ann")
                if member.ban is None:
                    got_in.append((member, was_banned))
            time.sleep(0.002)

    threads = [threading.Thread(target=come_back, args=(rooms,)) for rooms in world.all_rooms * 3]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(got_in) > 30, "some sessions")
    User("ann", world.rooms.directory).close(4001, "out", ban_s=60)
    assert wait_until(lambda: world.rooms.directory.ban_of("ann"))
    world.links[1].members_elsewhere("/ws/test", "x")  # all that was sent before is at Redis
    wait_until(lambda: world.all_rooms[1].directory.ban_of("ann"), "the ban in the other process")
    banned.set()
    count = len(got_in)
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(got_in) >= count
    assert not [member for member, was_banned in got_in if was_banned], "it got in while banned"
    for member, _ in got_in:
        assert ending(member) == (4001, "out")


def test_is_online_and_sessions_ask_all_processes(world, outside):
    assert not user(world, "ann").is_online()
    there = world.member(of=world.all_rooms[1], user="ann")
    for handle in (user(world, "ann"), user(world, "ann", of=1), outside.user("/ws/test", "ann")):
        assert handle.is_online()
        assert [(each.id, each.since) for each in handle.sessions()] == [(there.session.id, there.session.opened_at)]
        assert not type(handle)("bob", world.rooms.directory).is_online() if isinstance(handle, User) else True
    here = world.member(of=world.rooms, user="ann")
    assert [each.id for each in user(world, "ann").sessions()] == [there.session.id, here.session.id]
    assert len(outside.user("/ws/test", "ann").sessions()) == 2
    there.session.close()
    assert [each.id for each in user(world, "ann", of=1).sessions()] == [here.session.id]
    here.session.close()
    assert not user(world, "ann").is_online(), "sessions that are closing do not count"
    assert not outside.user("/ws/test", "ann").is_online()


def test_one_session_is_reached_from_another_process_and_from_a_program(world, outside):
    here, there = elsewhere(world)
    remote = outside.session("/ws/test", there.session.id)
    assert peer(world, there).is_open()
    assert remote.is_open()
    assert peer(world, there).send("a")
    assert peer(world, there).send(b"b")
    assert there.receive(2) == ["a", "b"]
    remote.send("c")
    assert there.receive(1) == ["c"]
    remote.close(4002, "bye")
    assert ending(there) == (4002, "bye")
    assert not peer(world, there).is_open()
    assert not remote.is_open()
    assert here.channel.ending is None
    peer(world, here, of=1).close(4003)
    assert ending(here) == (4003, "")


def test_what_can_be_no_session_costs_no_question(world):
    world.member()
    handle = Peer("no id", world.rooms.directory)
    assert not handle.send("x")
    assert not handle.is_open()
    handle.close()
    assert world.links[0].waiting() == 0


def test_a_room_is_closed_in_all_processes_and_other_rooms_are_not(world, outside):
    first = [world.member("lobby", of=rooms) for rooms in world.all_rooms]
    other = world.member("other")
    world.rooms.room("lobby").close(4004, "over")
    assert [ending(member) for member in first] == [(4004, "over")] * 2
    outside.room("/ws/test", "other").close()
    assert ending(other) == (1000, "")


def test_a_message_from_a_program_reaches_the_user(world, outside):
    anns = elsewhere(world, user="ann")
    outside.user("/ws/test", "ann").send("hi")
    outside.user("/ws/test", "ann").send(b"bytes")
    for ann in anns:
        assert ann.receive(2) == ["hi", "bytes"]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda broker: broker.user("/x", ""), UserError, "1 to 256"),
        (lambda broker: broker.user("/x", "a" * 257), UserError, "257"),
        (lambda broker: broker.user("x", "ann"), ConfigError, "begins with a slash"),
        (lambda broker: broker.user("/x", "ann").close(ban_s=-1), UserError, "-1"),
        (lambda broker: broker.user("/x", "ann").close(ban_s=float("nan")), UserError, "nan"),
        (lambda broker: broker.user("/x", "ann").close(1005), ValueError, "1005"),
        (lambda broker: broker.room("/x", "\0u"), RoomNameError, "NUL"),
        (lambda broker: broker.session("/x", "no id"), UsageError, "no id"),
        (lambda broker: broker.session("/x", 7), UsageError, "7"),
    ],
)
def test_bad_input_from_a_program_is_one_error(redis_server, call, error, text):
    broker = RedisBroker(redis_server.url)
    with pytest.raises(error, match=text):
        call(broker)


def test_a_program_whose_redis_is_away_gets_an_error():
    broker = RedisBroker("redis://127.0.0.1:1")
    for call in (
        broker.user("/x", "ann").is_online,
        broker.user("/x", "ann").close,
        broker.session("/x", "id").is_open,
        broker.room("/x", "y").presence,
        broker.room("/x", "y").close,
    ):
        with pytest.raises(BrokerError):
            call()


def test_all_processes_tell_of_their_sessions(world):
    for rooms in world.all_rooms:
        rooms.directory._describe = lambda rooms=rooms: [{"id": f"{id(rooms)}"}]
    world.member(of=world.all_rooms[0])
    world.member(of=world.all_rooms[1])
    rows = world.rooms.directory.sessions_everywhere(DEADLINE_S)
    assert {row["id"] for row in rows} == {f"{id(rooms)}" for rooms in world.all_rooms}
    assert all(isinstance(row["pid"], int) and row["host"] for row in rows)


def test_a_question_is_answered_by_all_or_until_the_time_is_over(world):
    elsewhere(world)
    for number, link in enumerate(world.links):
        link.answer("number", lambda argument, number=number: [argument, number])
    (answer,) = world.links[0].ask("number", {"a": 1}, DEADLINE_S)
    assert answer["value"] == [{"a": 1}, 1]
    world.links[1].answer("number", lambda argument: 1 / 0)
    (answer,) = world.links[0].ask("number", None, DEADLINE_S)
    assert answer["value"] is None
    hangs = threading.Event()
    world.links[1].answer("number", lambda argument: hangs.wait(DEADLINE_S))
    try:
        assert world.links[0].ask("number", None, 0.1) == []
    finally:
        hangs.set()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"question":"a","process":"b c","kind":"x"}'])
def test_a_malformed_question_is_counted(world, redis_server, data):
    world.member(of=world.rooms)
    redis_server.client.publish(world.links[0]._keys.ask()[1], data)
    wait_until(lambda: world.metrics[0].snapshot().get("broker_malformed") == 1, "it is counted")


@pytest.mark.parametrize("data", [b"{", b'{"question": "a"}', b"+", b"+1:x5:", b"+9:x", b"+1:x5:1:a"])
def test_a_malformed_message_on_the_wake_channel_is_counted(world, redis_server, data):
    world.member(of=world.rooms)
    redis_server.client.publish(world.links[0]._reader._wake_channel, data)
    wait_until(lambda: world.metrics[0].snapshot().get("broker_malformed") == 1, "it is counted")


@pytest.mark.parametrize("loses", [False, True], ids=["kept", "lost its data"])
def test_bans_hold_over_an_outage(worlds_of, redis, loses, impatient):
    """Who is kicked while Redis is away is kicked when it is back; who is banned stays so even if Redis forgets it."""
    world = worlds_of(redis.url)
    ann, again = elsewhere(world, user="ann")
    bobs = elsewhere(world, user="bob")
    user(world, "bob").close(4001, "out", ban_s=60)
    assert [ending(bob) for bob in bobs] == [(4001, "out")] * 2
    impatient()
    if loses:
        redis.kill()
    else:
        redis.freeze()
    try:
        user(world, "ann").close(4002, "gone", ban_s=60)
        assert ending(ann) == (4002, "gone")
        assert again.channel.ending is None
        assert not world.member(of=world.all_rooms[1], user="cecil").ban, "while Redis is away, handshakes pass"
    finally:
        redis.start() if loses else redis.thaw()
    assert ending(again) == (4002, "gone")
    for member in (ann, again, *bobs):
        member.session._rooms.leave_all(member.session)
    for name in ("ann", "bob"):
        for rooms in world.all_rooms:
            wait_until(lambda rooms=rooms, name=name: rooms.directory.ban_of(name), f"the ban of {name}")
    third = RedisWorld(redis.url, prefix=world.links[0]._keys._prefix, processes=1)
    try:
        for name in ("ann", "bob"):
            wait_until(lambda name=name: third.rooms.directory.ban_of(name), "Redis has them, too")
            assert third.member(user=name).ban
    finally:
        third.end()


@pytest.fixture
def worlds_of():
    made, prefix = [], f"users-{random.randrange(2**32)}"

    def make(url, **options):
        made.append(RedisWorld(url, prefix=prefix, **options))
        return made[-1]

    yield make
    for world in made:
        world.end()


def test_after_a_break_sessions_of_those_who_were_banned_meanwhile_are_closed(worlds_of, redis_server):
    """The close itself is not in the log any more."""
    world = worlds_of(redis_server.url)
    ann = world.member(of=world.rooms, user="ann")
    address = world.links[0]._keys.address("/ws/test", user_room("ann"))
    redis_server.client.set(address.ban, b'[4001, "out"]', px=60_000)
    redis_server.client.delete(world.links[0]._keys.processes(address.shard))  # as after it was away for long
    assert ending(ann) == (4001, "out")
    assert world.rooms.directory.ban_of("ann")


def test_sessions_of_a_process_without_users_are_reached_after_its_first_session(world):
    """Which waits until the process listens."""
    there = world.member(of=world.all_rooms[1])
    world.links[0].send_to_session("/ws/test", there.session.id, message_frame("at once"))
    assert there.receive(1) == ["at once"]


def test_many_threads_ask_at_once(world):
    there = world.member(of=world.all_rooms[1], user="ann")
    results = []
    run_all(*[lambda: results.append(user(world, "ann").sessions()) for _ in range(20)])
    assert [[each.id for each in found] for found in results] == [[there.session.id]] * 20
