"""Rooms over Redis when it is away, forgets, or is full; and what becomes of a process that is away."""

import logging
import random
import threading
import time

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.wire import run_all
from wsthreads import BrokerError
from wsthreads.brokers import messages, scripts, writer
from wsthreads.brokers.keys import HEAD_S, SHARDS, TOUCH_S, Keys
from wsthreads.brokers.process import Endpoints, Process
from wsthreads.brokers.reader import Reader
from wsthreads.brokers.replay import Replay
from wsthreads.brokers.subscription import Subscription
from wsthreads.brokers.subscriptions import Subscriptions
from wsthreads.protocol.frames import message_frame
from wsthreads.rooms.names import SESSIONS_ROOM


@pytest.fixture
def divided(proxy, redis_server, worlds):
    """Two processes, of which the first has its Redis behind the proxy."""
    prefix = f"outage-{random.randrange(2**32)}"
    return worlds(proxy.url, prefix=prefix), worlds(redis_server.url, prefix=prefix)


def is_away(world):
    return not world.links[0]._availability.answers


def test_what_others_broadcast_during_a_break_arrives_after_it_in_order(proxy, divided):
    a, b = divided[0].member("lobby"), divided[1].member("lobby")
    b.session.room("lobby").broadcast("before")
    assert a.receive(1) == b.receive(1) == ["before"]
    proxy.cut()
    for n in range(3000):  # more than is fetched at once
        b.session.room("lobby").broadcast(f"{n}")
    assert b.receive(3000) == [f"{n}" for n in range(3000)]
    proxy.heal()
    assert a.receive(3000) == [f"{n}" for n in range(3000)]
    b.session.room("lobby").broadcast("after")
    assert a.receive(1) == ["after"]
    assert "broker_gaps" not in divided[0].metrics[0].snapshot()


def test_what_this_process_broadcasts_during_a_break_follows_in_order(proxy, divided, redis_server, impatient):
    a, b = divided[0].member("lobby"), divided[1].member("lobby")
    assert a.session.room("lobby").members() == 2
    impatient()
    proxy.cut()
    a.session.room("lobby").broadcast("0")
    wait_until(lambda: is_away(divided[0]), "the loss of the connection")
    for n in range(1, 500):
        a.session.room("lobby").broadcast(f"{n}")
    a.session.send("direct")
    assert a.receive(1) == ["direct"], "a message of its own does not wait for Redis"
    assert a.session.room("lobby").members() == 2, "the last count that was known"
    late = divided[0].member("lobby", "new")
    assert late.session.room("lobby").members() == 3
    assert late.session.room("new").members() == 1
    proxy.heal()
    for member in (a, b):
        assert member.receive(500) == [f"{n}" for n in range(500)]
    wait_until(lambda: b.session.room("lobby").members() == 3, "the member that joined during the break")
    processes, members = processes_of(redis_server, divided[0])
    assert len(redis_server.client.hkeys(members)) == 2, "what was announced before the break is gone"
    assert redis_server.client.zcard(processes) == 4, "two processes, each under two names"


def test_a_short_break_keeps_the_order_of_what_a_thread_sends_and_broadcasts(proxy, divided):
    a, b = divided[0].member("lobby"), divided[1].member("lobby")
    proxy.cut()
    expected = []
    for n in range(100):
        if n == 50:
            wait_until(lambda: is_away(divided[0]), "the loss of the connection")
        a.session.room("lobby").broadcast(f"b{n}")
        a.session.send(f"s{n}")
        expected += [f"b{n}", f"s{n}"]
    proxy.heal()
    assert a.receive(200) == expected
    assert b.receive(100) == expected[::2]


def test_the_log_counts_an_outage_from_what_redis_first_did_not_answer(redis, worlds, caplog, impatient):
    caplog.set_level(logging.WARNING)
    world = worlds(f"{redis.url}?socket_timeout=1")
    member = world.member("lobby")
    impatient()
    redis.freeze()
    member.session.room("lobby").broadcast("late")
    wait_until(lambda: world.links[0]._availability.asked_at is not None, "the question")
    asked_at = world.links[0]._availability.asked_at
    wait_until(lambda: "broker_outages" in world.metrics[0].snapshot(), "the end of Redis's time to answer")
    redis.thaw()
    least_s = time.monotonic() - asked_at
    assert member.receive(1) == ["late"]
    wait_until(lambda: "is back after" in caplog.text, "the line")
    assert float(caplog.text.rpartition("is back after ")[2].partition(" s")[0]) >= least_s - 0.05  # as it is rounded


def test_a_broadcast_that_redis_took_without_saying_so_is_not_doubled(proxy, divided):
    a, b = divided[0].member("lobby"), divided[1].member("lobby")
    a.session.room("lobby").broadcast("before")  # Redis knows the script from now on
    assert a.receive(1) == b.receive(1) == ["before"]
    proxy.swallow_answers_from(b"once")
    a.session.room("lobby").broadcast("once")
    assert b.receive(1) == ["once"], "Redis has it"
    proxy.await_swallowed()
    proxy.heal()  # the connection is lost before the answer has come
    a.session.room("lobby").broadcast("end")
    assert a.receive_until("end") == ["once", "end"]
    assert b.receive(1) == ["end"]


def test_a_network_that_swallows_everything_is_noticed(proxy, divided, monkeypatch, impatient):
    a, b = divided[0].member("lobby"), divided[1].member("lobby")
    impatient()
    proxy.swallow()
    a.session.room("lobby").broadcast("1")
    a.session.send("direct")
    assert a.receive(1) == ["direct"], "held for a while, not for ever"
    b.session.room("lobby").broadcast("2")
    assert b.receive(1) == ["2"]
    wait_until(lambda: "broker_outages" in divided[0].metrics[0].snapshot(), "the end of Redis's time to answer")
    proxy.heal()
    assert a.receive(2) == ["2", "1"]
    assert b.receive(1) == ["1"]


def test_a_redis_that_comes_back_empty_gets_all_that_waits_and_counts_right(redis, worlds, caplog):
    caplog.set_level(logging.WARNING)
    worlds = [worlds(redis.url) for _ in range(2)]
    members = [world.member("lobby") for world in worlds]
    members[0].session.room("lobby").broadcast("before")
    assert [member.receive(1) for member in members] == [["before"]] * 2
    redis.kill()
    for world in worlds:
        world.rooms.room("lobby").members()
    wait_until(lambda: all(map(is_away, worlds)), "the loss of Redis")
    for n in range(100):
        members[0].session.room("lobby").broadcast(f"{n}")
    redis.start()
    for member in members:
        assert member.receive(100) == [f"{n}" for n in range(100)]
    for world in worlds:
        wait_until(lambda world=world: world.rooms.room("lobby").members() == 2, "both are counted again")
    # Each writer logs this after it has sent what waited, so a count may be there first.
    wait_until(lambda: caplog.text.count("is back after") == 2, "both are back")
    logged = [record.getMessage() for record in caplog.records if record.name == writer.__name__]
    assert sum("is unavailable" in line for line in logged) == 2, logged


def test_nothing_is_held_for_a_broadcast_that_comes_back_to_nobody_here(redis, worlds, impatient):
    world = worlds(redis.url)
    a = world.member("lobby")
    impatient()
    redis.freeze()
    try:
        a.session.room("lobby").broadcast("to nobody")
        assert len(world.links[0].pending._out) == 1
        leaver = threading.Thread(target=a.session.room("lobby").leave)  # as a script's session is left by its own
        leaver.start()
        leaver.join(DEADLINE_S)
        assert not world.links[0].pending._out
    finally:
        redis.thaw()


def test_a_broadcast_is_back_when_the_room_that_it_was_for_has_it(redis, worlds, impatient):
    """Not by the subscription of a former room of its name; and not before the reader is done with it."""
    world = worlds(redis.url)
    a, link = world.member("lobby"), world.links[0]
    room = link._subscriptions.rooms["/ws/test", "lobby"]
    former = Subscription(room.listener, room.name, room.address)
    impatient()
    redis.freeze()
    try:
        a.session.room("lobby").broadcast("to nobody")
        (ticket,) = link.pending._out
        link._subscriptions.back(former, ticket)
        assert ticket in link.pending._out
        room.delivering = ticket
        run_all(a.session.room("lobby").leave)
        assert ticket in link.pending._out
        link._subscriptions.back(room, ticket)
        assert not link.pending._out
    finally:
        redis.thaw()


def test_a_room_is_joined_while_another_one_is_never_quiet(redis, worlds):
    world, over = worlds(redis.url), threading.Event()
    world.member("loud")
    channel = world.links[0]._keys.address("/ws/test", "loud").channel
    client = redis.client
    client.config_set("client-output-buffer-limit", "pubsub 0 0 0")  # else Redis ends the connection some time

    def heard():
        return world.metrics[0].snapshot().get("broker_malformed", 0)

    def shout():
        shouted = 0
        while not over.is_set():
            if shouted - heard() < 5000:  # there is always more, but not more and more: the confirmation is behind it
                client.eval("for i = 1, 1000 do redis.call('PUBLISH', KEYS[1], 'x') end", 1, channel)
                shouted += 1000
            else:
                over.wait(0.001)

    shouting = threading.Thread(target=shout)
    shouting.start()
    try:
        wait_until(lambda: heard() > 1000, "the noise")
        joining = threading.Thread(target=world.member().session.room("other").join)
        joining.start()
        joining.join(DEADLINE_S)
        assert not joining.is_alive()
    finally:
        over.set()
        shouting.join(DEADLINE_S)
    joining.join(DEADLINE_S)


def test_a_connection_that_fails_while_it_subscribes_forgets_nothing(divided, redis_server):
    """What was asked for in the same moment is subscribed to with the next connection."""

    class Failing:
        def subscribe(self, *channels):
            raise ConnectionError("while subscribing")

        unsubscribe = subscribe

    rooms = {name: Subscription(divided[0].rooms, name, Keys("x", 0).address("/x", name)) for name in "abc"}
    nothing = dict.fromkeys(["ask_channel", "arrivals", "checkpoints", "malformed", "questions", "leases", "posts"])
    nothing |= {"availability": None, "on_poll": None}
    subscriptions = Subscriptions(None, Process(Endpoints()), queue=None, availability=None)
    reader = Reader(None, b"wake", **nothing, subscriptions=subscriptions, replay=Replay(None, None, None, None))
    for wanted, name in [(True, "a"), (True, "b"), (False, "a"), (True, "c")]:
        subscriptions.changes.append((wanted, rooms[name]))
    with pytest.raises(ConnectionError):
        reader._obey(Failing())
    assert list(reader._rooms.values()) == [rooms["b"], rooms["c"]]


def test_a_message_that_comes_in_pieces_is_waited_for(proxy, divided, caplog):
    caplog.set_level(logging.INFO)
    a, b = divided[0].member("lobby"), divided[1].member("lobby")
    proxy.pause_s = 0.4  # longer than the reader waits for the next message
    for n in range(2):
        b.session.room("lobby").broadcast(f"{n}" * 1000)
        assert a.receive(1) == b.receive(1) == [f"{n}" * 1000]
    assert "are lost" not in caplog.text, "the connection was given up"


def test_past_the_bound_broadcast_says_so_and_what_was_taken_still_follows(redis, worlds):
    world = worlds(redis.url, max_queued_bytes=10_000)
    member = world.member("lobby")
    redis.kill()
    world.rooms.room("lobby").members()
    wait_until(lambda: is_away(world), "the loss of Redis")
    taken = 0
    with pytest.raises(BrokerError, match="the limit is 10000, so this broadcast is not sent"):
        for _ in range(1000):
            member.session.room("lobby").broadcast("x" * 100)
            taken += 1
    assert 20 < taken < 100
    assert world.links[0].waiting() == taken
    assert world.metrics[0].snapshot()["broker_refused"] == 1
    redis.start()
    assert member.receive(taken) == ["x" * 100] * taken
    member.session.room("lobby").broadcast("end")
    assert member.receive(1) == ["end"]


def test_a_server_starts_without_redis_and_has_it_when_it_is_there(redis, worlds, caplog, impatient):
    impatient()
    redis.kill()
    world = worlds(redis.url)
    member = world.member("lobby")
    assert member.session.room("lobby").members() == 1
    member.session.room("lobby").broadcast("early")
    wait_until(lambda: "is unavailable, so broadcasts wait" in caplog.text, "a line in the log")
    redis.start()
    assert member.receive(1) == ["early"]


def test_what_redis_no_longer_has_is_counted_as_a_gap(proxy, divided, redis_server, caplog):
    a, b = divided[0].member("lobby"), divided[1].member("lobby")
    b.session.room("lobby").broadcast("before")
    assert a.receive(1) == ["before"]
    proxy.cut()
    for n in range(5):
        b.session.room("lobby").broadcast(f"{n}")
    assert b.receive(6)[-1] == "4"
    address = divided[1].links[0]._keys.address("/ws/test", "lobby")
    redis_server.client.xtrim(address.log, maxlen=2, approximate=False)
    proxy.heal()
    assert a.receive(2) == ["3", "4"]
    wait_until(lambda: divided[0].metrics[0].snapshot().get("broker_gaps") == 1, "the gap in the metrics")
    assert "3 broadcasts are lost" in caplog.text


def test_a_missing_message_is_fetched_from_the_log(divided, redis_server):
    a, b = divided[0].member("lobby"), divided[1].member("lobby")
    b.session.room("lobby").broadcast("1")
    assert a.receive(1) == b.receive(1) == ["1"]
    address = divided[1].links[0]._keys.address("/ws/test", "lobby")
    # As a cluster's bus may do: a message is in the log, and not on the channel.
    message = messages.encode_broadcast("other", 1, None, message_frame("unheard"))
    publish = [scripts.PUBLISH, 2, address.log, address.head, "nobody hears this", ""]
    redis_server.client.eval(*publish, "other", 1, message)
    b.session.room("lobby").broadcast("2")
    assert a.receive(2) == b.receive(2) == ["unheard", "2"]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"no id",
        b"epoch 9 9999999999999-9 0-0\n",
        b"epoch 9 9999999999999-9 0-0\n5 future 1 . t\nx",
        b"epoch 9 9999999999999-9 0-0\n2 past 1 . t\nx",
        b"epoch 9 9999999999999-9 0-0\n4 me 1 . t\n\xff",
        b"epoch 9 9999999999999-9 0-0\n4 me 1 . z\nx",
        b"epoch 9 9999999999999-9 0-0\n4 me 1 . c\n[4000, 7, 0]",
        b"epoch 9 9999999999999-9 0-0\n4 me 1 . T\nnobody",
        b"epoch 9 9999999999999-9 0-0\n4 - 0 me p\n[]",
        b"\x80" * 999,
    ],
)
def test_what_is_not_ours_is_dropped_and_counted_and_harms_nobody(divided, redis_server, message):
    a = divided[0].member("lobby")
    a.session.room("lobby").broadcast("1")
    assert a.receive(1) == ["1"]
    address = divided[0].links[0]._keys.address("/ws/test", "lobby")
    assert redis_server.client.publish(address.channel, message) == 1
    a.session.room("lobby").broadcast("2")
    assert a.receive(1) == ["2"]
    assert divided[0].metrics[0].snapshot()["broker_malformed"] == 1


def test_malformed_messages_are_one_line_in_the_log(divided, redis_server, caplog):
    caplog.set_level(logging.WARNING)
    a = divided[0].member("lobby")
    address = divided[0].links[0]._keys.address("/ws/test", "lobby")
    a.session.room("lobby").broadcast("0")
    assert a.receive(1) == ["0"]
    for _ in range(20):
        redis_server.client.xadd(address.log, {"p": "", "m": b"\x80secret"})
        redis_server.client.xadd(address.log, {"q": "1"})
        redis_server.client.publish(address.channel, b"garbage")
    message = messages.encode_broadcast("other", 1, None, message_frame("unheard"))  # so that the log is looked at
    publish = [scripts.PUBLISH, 2, address.log, address.head, "nobody hears this", ""]
    redis_server.client.eval(*publish, "other", 1, message)
    a.session.room("lobby").broadcast("1")
    assert a.receive(2) == ["unheard", "1"]
    wait_until(lambda: divided[0].metrics[0].snapshot().get("broker_malformed") == 60, "all are counted")
    lines = [record.getMessage() for record in caplog.records if "malformed data from Redis" in record.getMessage()]
    assert len(lines) == 1
    assert "secret" not in lines[0]


def processes_of(server, world):
    keys = world.links[0]._keys
    address = keys.address("/ws/test", "lobby")
    return keys.processes(address.shard), address.members


def test_a_process_that_is_no_longer_heard_does_not_count_and_counts_again_when_it_is(divided, redis_server):
    a, b = divided[0].member("lobby"), divided[1].member("lobby")
    assert b.session.room("lobby").members() == 2
    processes, members = processes_of(redis_server, divided[0])
    names = redis_server.client.hkeys(members)
    (lost,) = [name for name in names if name.startswith(divided[0].links[0].process.encode())]
    redis_server.client.zadd(processes, {lost: 1})  # as if it had said nothing for a long time
    assert b.session.room("lobby").members() == 1
    b.session.room("lobby").leave()
    b.session.room("lobby").join()
    wait_until(lambda: b.session.room("lobby").members() == 2, "the next sign of life")
    a.session.room("lobby").leave()
    wait_until(lambda: b.session.room("lobby").members() == 1, "its leaving")


def test_members_that_redis_has_forgotten_are_announced_again(divided, redis_server):
    a, b = divided[0].member("lobby"), divided[1].member("lobby")
    assert b.session.room("lobby").members() == 2
    redis_server.client.delete(processes_of(redis_server, divided[0])[1])
    for world in divided:
        for room in world.links[0]._subscriptions.rooms.values():
            room.touched_at -= TOUCH_S  # so that it is due
    wait_until(lambda: b.session.room("lobby").members() == 2, "the next sign of life")
    wait_until(lambda: a.session.room("lobby").members() == 2, "that of the other")


class One:
    """A listener with one presence."""

    def __init__(self, session_id):
        self._change = messages.PresenceChange(session_id, 1, "0", since=1.0, set_at=1)

    def own_presences(self, name, session_ids):
        return [(self._change.session_id, self._change)]


def test_everything_in_redis_expires(divided, redis_server):
    a = divided[0].member("lobby")
    a.session.room("lobby").broadcast("1")
    assert a.receive(1) == ["1"]
    prefix = divided[0].links[0]._keys._prefix
    keys = redis_server.keys(f"{{{prefix}:*")
    assert len(keys) == 6, "the log, the head and the members; head and members of single sessions; the processes"
    a.session._rooms._link.change_presence("/ws/test", "lobby", One(a.session.id), a.session.id)
    divided[0].rooms._link.close("/ws/test", "lobby", 4000, "", 50.0)
    wait_until(lambda: len(redis_server.keys(f"{{{prefix}:*")) == 8, "the presences and the ban")
    for key in redis_server.keys(f"{{{prefix}:*"):
        longest_s = HEAD_S if b":head:" in key or b":presence:" in key else 60
        assert 0 < redis_server.client.pttl(key) <= longest_s * 1000, key


def test_a_process_that_ends_takes_its_members_with_it(divided, redis_server):
    a, b = divided[0].member("lobby"), divided[1].member("lobby")
    assert b.session.room("lobby").members() == 2
    a.session._rooms.leave_all(a.session)
    a.session._rooms.broadcast("lobby", b"\x81\x04last")
    divided[0].links[0].stop(DEADLINE_S)
    assert b.receive(1) == ["last"], "what waits is handed over first"
    assert b.session.room("lobby").members() == 1
    processes, members = processes_of(redis_server, divided[1])
    assert len(redis_server.client.hkeys(members)) == 1
    assert redis_server.client.zcard(processes) == 2, "the other one, under two names"
    with pytest.raises(BrokerError, match="was shut down"):
        divided[0].rooms.room("lobby").broadcast("too late")
    assert divided[0].rooms.room("lobby").members() == 0


def test_only_rooms_with_members_are_subscribed_to(divided, redis_server):
    prefix = divided[0].links[0]._keys._prefix

    def channels():
        found = redis_server.client.pubsub_channels(f"{{{prefix}:*}}:log:*")
        return sorted(name for channel in found if (name := channel.rpartition(b":")[2]) != SESSIONS_ROOM.encode())

    a = divided[0].member("one", "two")
    assert channels() == [b"one", b"two"]
    a.session.room("one").leave()
    divided[0].rooms.room("three").broadcast("nobody hears it")
    wait_until(lambda: channels() == [b"two"], "the unsubscription")


def test_the_layout_is_what_its_description_says():
    keys = Keys("app", 0)
    address = keys.address("/ws/a:b", "c:d")
    assert address.log == b"{app:%d}:log:/ws/a%%3Ab:c:d" % address.shard
    assert address.members == b"{app:%d}:members:/ws/a%%3Ab:c:d" % address.shard
    assert address.head == b"{app:%d}:head:/ws/a%%3Ab:c:d" % address.shard
    assert address.channel == address.log
    assert keys.wake("me") == (b"{app:0}:wake:me", b"{app:0}:wake:me")
    assert address.presence == b"{app:%d}:presence:/ws/a%%3Ab:c:d" % address.shard
    assert address.ban == b"{app:%d}:ban:/ws/a%%3Ab:c:d" % address.shard
    assert Keys("app", 5).ask() == (b"{app:0}:ask", b"5:{app:0}:ask")
    assert Keys("app", 5).wake("me", 3) == (b"{app:3}:wake:me", b"5:{app:3}:wake:me")
    assert keys.processes(3) == b"{app:3}:processes"
    assert keys.address("/ws/a", "b:c:d") != address
    assert Keys("app", 5).address("/x", "y").channel.startswith(b"5:{app:")
    shards = {keys.address("/ws/chat", f"room {n}").shard for n in range(1000)}
    assert shards == set(range(SHARDS))


def test_threads_that_wait_for_a_full_queue_go_on_when_there_is_room(redis_server, worlds):
    world = worlds(redis_server.url, prefix="full", max_queued_bytes=2000)
    member = world.member("lobby")
    senders = [
        threading.Thread(target=lambda n=n: [world.rooms.room("lobby").broadcast(f"{n}") for _ in range(300)])
        for n in range(3)
    ]
    for sender in senders:
        sender.start()
    assert len(member.receive(900)) == 900
    for sender in senders:
        sender.join(DEADLINE_S)
        assert not sender.is_alive()


def test_a_redis_that_forgets_its_scripts_is_told_them_again_without_an_outage(redis, worlds, caplog):
    caplog.set_level(logging.WARNING)
    world = worlds(redis.url)
    member, outside = world.member("lobby"), world.broker.room("/ws/test", "lobby")
    for n in range(5):
        redis.client.script_flush()
        if n % 2:
            outside.broadcast("known to Redis")  # only one of the scripts is
            assert member.receive(1) == ["known to Redis"]
        for k in range(50):
            member.session.room("lobby").broadcast(f"{n} {k}")
            if not k % 10:
                redis.client.script_flush()
        assert member.receive(50) == [f"{n} {k}" for k in range(50)]
        other = world.member("lobby", f"room {n}")
        assert other.session.room("lobby").members() == n + 2
    assert "broker_outages" not in world.metrics[0].snapshot()
    assert [record.getMessage() for record in caplog.records] == []


def test_an_error_of_redis_is_logged_without_the_message(redis, worlds, caplog):
    caplog.set_level(logging.WARNING)
    world = worlds(redis.url)
    world.member("lobby")
    redis.client.config_set("maxmemory", "1mb")
    world.rooms.room("lobby").broadcast("s3cret")
    wait_until(lambda: "is unavailable, so broadcasts wait" in caplog.text, "a line in the log")
    assert "s3cret" not in caplog.text
    assert "command not allowed when used memory" in caplog.text
    assert "EVAL" not in caplog.text


@pytest.mark.parametrize("how", ["away", "hanging"])
def test_the_end_does_not_wait_for_a_redis_that_says_nothing(redis, worlds, caplog, how, impatient):
    world = worlds(f"{redis.url}?socket_timeout=1000")
    member = world.member("lobby")
    impatient()
    redis.kill() if how == "away" else redis.freeze()
    for n in range(3):
        member.session.room("lobby").broadcast(f"{n}")
    begun = time.monotonic()
    world.links[0].stop(DEADLINE_S)
    assert time.monotonic() - begun < 0.6 * DEADLINE_S
    assert f"{redis.url} did not receive 3 broadcasts that waited at shutdown" in caplog.text
    with pytest.raises(BrokerError, match="was shut down"):
        member.session.room("lobby").broadcast("too late")


def test_the_end_waits_until_what_is_lost_is_logged(redis, worlds, monkeypatch):
    """The thread that ends may be about to log it. The process may end once `stop` has returned."""
    world = worlds(redis.url)
    member = world.member("lobby")
    redis.kill()
    member.session.room("lobby").broadcast("lost")
    begun, has_returned = threading.Event(), threading.Event()
    too_late = []

    def slowly(count, what):
        begun.set()
        too_late.append(has_returned.wait(0.3))

    monkeypatch.setattr(writer, "counted", slowly)
    report = world.links[0]._writer._report_rest
    thread = threading.Thread(target=report)
    thread.start()
    assert begun.wait(DEADLINE_S)
    report()
    has_returned.set()
    thread.join(DEADLINE_S)
    assert too_late == [False]


def test_the_end_waits_for_a_redis_that_comes_back_at_once(redis, worlds, monkeypatch):
    monkeypatch.setattr(writer, "GIVE_UP_S", DEADLINE_S)
    world = worlds(redis.url)
    member = world.member("lobby")
    redis.kill()
    member.session.room("lobby").broadcast("last")
    stopping = threading.Thread(target=world.links[0].stop, args=(DEADLINE_S,))
    stopping.start()
    redis.start()
    stopping.join(DEADLINE_S)
    assert world.links[0].waiting() == 0
