"""Histories over Redis: what becomes of them when Redis is away, or has lost its data; programs without a server."""

import contextlib
import threading

import pytest

from tests.brokers.test_redis_cluster import nodes  # noqa: F401, a fixture
from tests.programs import DEADLINE_S, wait_until
from tests.redis_proxy import Proxy
from tests.room_worlds import RedisWorld
from wsthreads import BrokerError, HistoryError
from wsthreads.brokers import messages, scripts
from wsthreads.brokers.history import SharedLog
from wsthreads.brokers.positions import Position
from wsthreads.brokers.redis import RedisBroker
from wsthreads.protocol.frames import message_frame
from wsthreads.rooms.history import Limits

LIMITS = Limits(messages=50, seconds=300.0, bytes=2**20)


@pytest.fixture
def proxy(redis):
    with Proxy(redis.port) as proxy:
        yield proxy


class Pair:
    """Two processes: the first one has its Redis behind a proxy."""

    def __init__(self, redis, proxy, limits=LIMITS):
        self.redis, self.proxy = redis, proxy
        self.worlds = [RedisWorld(url, processes=1, history=limits) for url in (proxy.url, redis.url)]
        self.address = self.worlds[0].links[0]._keys.address("/ws/test", "lobby")

    def member(self, which, **options):
        """A new session in a process that joins with these options, if there are any, and what that returned."""
        member = self.worlds[which].member()
        return member, member.session.room("lobby").join(**options)

    def room(self, which):
        return self.worlds[which].rooms.room("lobby")

    def known(self, which):
        """The history, or None while Redis is away."""
        with contextlib.suppress(BrokerError):
            return self.room(which).history(50)

    def cut(self):
        self.proxy.cut()
        wait_until(lambda: not self.worlds[0].links[0]._availability.answers, "the loss of the connection")

    def log(self, which):
        return self.worlds[which].rooms.history._logs.get("lobby")


@pytest.fixture
def pair(redis, proxy):
    pair = Pair(redis, proxy)
    yield pair
    for world in pair.worlds:
        world.rooms._check()
        world.end()


def ended(member):
    member.session.send("end")
    return member.receive_until("end")[:-1]


# Redis loses its data


@pytest.mark.parametrize("is_cut", [False, True], ids=["connected", "cut off"])
def test_a_redis_that_was_emptied_does_not_pass_for_the_same(pair, is_cut):
    a, _ = pair.member(0)
    b, _ = pair.member(1)
    pair.room(1).broadcast("before")
    assert a.receive(1) == b.receive(1) == ["before"]
    position = pair.room(1).position()
    assert pair.room(0).position() == position
    if is_cut:
        pair.cut()
    pair.redis.client.flushall()
    pair.room(1).broadcast("after")
    pair.proxy.heal()
    assert b.receive(1) == ["after"]
    assert a.receive(1) == ["after"]
    for which in (0, 1):
        wait_until(lambda which=which: pair.known(which) == ["after"], "the history of the new log")
        late, joined = pair.member(which, since=position, history=50)
        assert joined == (True, False)
        assert ended(late) == ["after"]
    assert pair.room(0).position() == pair.room(1).position() != position


def test_an_emptied_redis_is_another_log_for_a_process_without_members(pair):
    pair.room(0).broadcast("before")
    position = pair.room(0).position()
    pair.redis.client.flushall()
    assert pair.room(0).history(50) == []
    late, joined = pair.member(1, since=position, history=50)
    assert joined == (True, False)
    assert ended(late) == []


@pytest.mark.parametrize("again", [1, 2, 3])
@pytest.mark.parametrize("has_members", [False, True])
def test_a_replica_that_lagged_does_not_pass_for_the_same(pair, again, has_members):
    """It gives the numbers of the messages that it does not have to others."""
    members = [pair.member(which)[0] for which in (0, 1)] if has_members else []
    address = pair.address
    pair.room(1).broadcast("kept")
    kept_position = pair.room(1).position()
    keys = (address.log, address.head, address.history)
    kept = [pair.redis.client.dump(key) for key in keys]
    pair.room(1).broadcast("lost 1")
    pair.room(1).broadcast("lost 2")
    wait_until(lambda: pair.known(1) == ["kept", "lost 1", "lost 2"])
    lost_position = pair.room(1).position()
    for member in members:
        assert member.receive(3) == ["kept", "lost 1", "lost 2"]
    for key, value in zip(keys, kept, strict=True):
        pair.redis.client.restore(key, 60_000, value, replace=True)
    texts = [f"{n}" for n in range(again)]
    for text in texts:
        pair.room(1).broadcast(text)
    for member in members:
        assert member.receive(again) == texts
    for which in (0, 1):
        wait_until(lambda which=which: pair.known(which) == ["kept", *texts], "the replica's history")
        late, joined = pair.member(which, since=lost_position, history=50)
        assert joined == (True, False)
        assert ended(late) == ["kept", *texts]
        late, joined = pair.member(which, since=kept_position)
        assert joined == (True, True)
        assert ended(late) == texts


def test_a_list_that_redis_has_evicted_is_no_complete_history(pair):
    for n in range(3):
        pair.room(0).broadcast(f"{n}")
    position = pair.room(0).position()
    pair.room(0).broadcast("3")
    assert pair.room(0).history(1) == ["3"]
    pair.redis.client.delete(pair.address.history)
    assert pair.room(0).history(50) == []
    late, joined = pair.member(0, since=position)
    assert joined == (True, False)
    pair.room(0).broadcast("4")
    assert late.receive(1) == ["4"]
    other, joined = pair.member(1, since=position, history=50)
    assert joined == (True, False)
    assert ended(other) == ["4"]
    position = pair.room(1).position()
    assert pair.redis.client.hget(pair.address.head, "kept_bytes") == b"1"
    pair.room(0).broadcast("5")
    other, joined = pair.member(1, since=position)
    assert joined == (True, True)
    assert other.receive(1) == ["5"]


# A process is cut off from Redis


def test_who_is_cut_off_has_no_gap_and_no_double_afterwards(pair):
    a, _ = pair.member(0)
    pair.room(1).broadcast("0")
    assert a.receive(1) == ["0"]
    position = pair.room(1).position()
    pair.cut()
    pair.room(1).broadcast("1")
    late, joined = pair.member(0, history=50)
    assert joined == (True, True)
    assert late.receive(1) == ["0"], "what this process knows"
    assert pair.room(0).history(50) == ["0"]
    again, joined = pair.member(0, since=position)
    assert joined == (True, True)
    assert pair.room(0).position() == position
    pair.proxy.heal()
    pair.room(1).broadcast("2")
    assert a.receive(2) == late.receive(2) == again.receive(2) == ["1", "2"]
    assert pair.room(0).history(50) == pair.room(1).history(50) == ["0", "1", "2"]


def test_what_the_members_have_missed_is_in_the_history(pair):
    """The room's log in Redis has expired meanwhile, the history has not."""
    a, _ = pair.member(0)
    pair.room(1).broadcast("0")
    assert a.receive(1) == ["0"]
    position = pair.room(1).position()
    pair.cut()
    for n in range(1, 4):
        pair.room(1).broadcast(f"{n}")
    assert pair.room(1).history(1) == ["3"]
    pair.redis.client.delete(pair.address.log)
    pair.proxy.heal()
    wait_until(lambda: pair.worlds[0].metrics[0].snapshot().get("broker_gaps") == 1, "the gap")
    assert pair.room(0).history(50) == ["0", "1", "2", "3"]
    late, joined = pair.member(0, since=position)
    assert joined == (True, True)
    assert ended(late) == ["1", "2", "3"]
    assert ended(a) == [], "it has missed them, and is told nothing: its client comes back with its position"


def test_while_redis_is_away_members_have_what_they_had_before_they_missed_something(pair):
    member, _ = pair.member(0)
    wait_until(lambda: pair.log(0).is_filled, "the log of this process")
    pair.room(0).broadcast("a")
    assert member.receive(1) == ["a"]
    position = pair.room(0).position()
    pair.cut()
    # So does the reader where it finds a gap. The connection breaks before it has read the history again.
    pair.worlds[0].rooms.history.lose("lobby", pair.log(0).serial)
    assert pair.room(0).position() == position
    assert pair.room(0).history(50) == ["a"]
    pair.worlds[0].rooms.history.lose("lobby", pair.log(0).serial + 1)
    with pytest.raises(BrokerError):
        pair.room(0).position()


def test_nobody_joins_with_a_history_that_is_not_there(pair):
    pair.room(1).broadcast("old")
    position = pair.room(1).position()
    pair.room(0).history(0)
    pair.cut()
    for options in ({"history": 50}, {"since": position}, {"since": "x", "history": 1}):
        member = pair.worlds[0].member()
        with pytest.raises(BrokerError, match="the room's history is not available now"):
            member.session.room("lobby").join(**options)
        assert member.session.rooms() == []
    with pytest.raises(BrokerError):
        pair.room(0).history(1)
    with pytest.raises(BrokerError):
        pair.room(0).position()
    assert pair.log(0) is None
    plain, joined = pair.member(0)
    assert joined == (True, True)
    pair.proxy.heal()
    wait_until(lambda: pair.worlds[0].links[0].serial("/ws/test", "lobby"), "the subscription")
    member.session.room("lobby").join(history=50)
    assert member.receive(1) == ["old"]
    pair.room(1).broadcast("new")
    assert member.receive(1) == ["new"]
    assert plain.receive(1) == ["new"]


def test_a_join_that_fails_leaves_nothing_behind(pair):
    world = pair.worlds[0]
    world.rooms._max_per_session = 1
    member = world.member("only")
    pair.room(1).broadcast("old")
    with pytest.raises(ValueError, match="in at most 1 room"):
        member.session.room("lobby").join(history=1)
    assert pair.log(0) is None
    assert not world.links[0].serial("/ws/test", "lobby")
    wait_until(lambda: pair.room(1).members() == 0)
    assert ended(member) == []


def test_a_process_without_members_has_no_log(pair):
    members = [pair.member(which, history=5)[0] for which in (0, 1, 0, 1)]
    assert pair.log(0) is not None
    assert pair.log(1) is not None
    for member in members:
        member.session.room("lobby").leave()
    assert [len(world.rooms.history._logs) for world in pair.worlds] == [0, 0]
    assert [len(world.rooms.history._joining) for world in pair.worlds] == [0, 0]


# A process that is behind the others


@contextlib.contextmanager
def delayed(world):
    """Messages wait in the reader's thread, before the members get them."""
    going_on, real = threading.Event(), world.rooms.deliver

    def deliver(*arguments, **options):
        assert going_on.wait(DEADLINE_S)
        real(*arguments, **options)

    world.rooms.deliver = deliver
    try:
        yield going_on
    finally:
        going_on.set()
        world.rooms.deliver = real


def test_a_position_that_this_process_has_not_reached_is_waited_for(pair, monkeypatch):
    pair.member(0)
    pair.room(1).broadcast("0")
    wait_until(lambda: pair.room(0).history(1) == ["0"])
    waits = threading.Event()
    real = SharedLog.await_entry

    def await_entry(log, number, timeout_s):
        waits.set()
        real(log, number, DEADLINE_S)

    monkeypatch.setattr(SharedLog, "await_entry", await_entry)
    with delayed(pair.worlds[0]) as going_on:
        pair.room(1).broadcast("1")
        position = pair.room(1).position()
        results = []
        joiner = threading.Thread(target=lambda: results.append(pair.member(0, since=position)))
        joiner.start()
        assert waits.wait(DEADLINE_S)
        assert not results
        pair.room(1).broadcast("2")
        going_on.set()
        joiner.join(DEADLINE_S)
    ((member, joined),) = results
    assert joined == (True, True)
    assert member.receive(1) == ["2"]
    assert ended(member) == []


def test_nobody_waits_for_a_position_that_a_client_has_invented(pair, monkeypatch):
    pair.member(0)
    pair.room(1).broadcast("0")
    wait_until(lambda: pair.room(0).history(1) == ["0"])
    monkeypatch.setattr(SharedLog, "await_entry", lambda *_: pytest.fail("it waits"))
    epoch, number, entry = pair.room(0).position().split(".")
    for invented in (f"{epoch}.{int(number) + 1}.{entry}", f"{epoch}.{'9' * 16}.{entry}", f"{epoch}.7"):
        _, joined = pair.member(0, since=invented)
        assert joined == (True, False)


# A room that is left and joined again


def test_what_an_ended_subscription_delivers_is_for_nobody(pair):
    """The reader may be about to deliver when the last member leaves. Whoever joins then has the message from Redis."""
    first, _ = pair.member(0, history=50)
    serial = pair.log(0).serial
    pair.room(1).broadcast("old")
    assert first.receive(1) == ["old"]
    first.session.room("lobby").leave()
    late, joined = pair.member(0, history=50)
    assert joined == (True, True)
    assert pair.log(0).serial > serial
    position = Position(b"epoch", 1, b"1-1")
    pair.worlds[0].rooms.deliver(
        "lobby", message_frame("old"), None, ticket=-1, hand_over=False, serial=serial, position=position
    )
    assert ended(late) == ["old"]
    assert pair.room(0).history(50) == ["old"]


def test_a_log_of_an_ended_subscription_is_asked_nothing(pair):
    pair.member(0, history=50)
    pair.room(1).broadcast("old")
    wait_until(lambda: pair.known(0) == ["old"])
    log = pair.log(0)
    with log.order:
        log.serial -= 1
        log.replace(log.epoch, log.last, log.last, [], 0.0)
    assert pair.room(0).history(50) == ["old"]
    assert pair.room(0).position() == pair.room(1).position()


@pytest.fixture
def full(pair):
    """A pair whose room has a message. Nothing goes on only because it waited enough."""
    pair.member(1)
    pair.room(1).broadcast("old")
    pair.room(1).history(0)
    return pair


@pytest.mark.parametrize("options", [{"history": 50}, {}], ids=["history", "plain"])
def test_who_only_holds_a_seat_keeps_the_log(full, monkeypatch, options):
    """The last member leaves, while another session has a seat, and is about to join."""
    link = full.worlds[0].links[0]
    real = link.take_seat

    def take_seat(*arguments):
        is_given = real(*arguments)
        monkeypatch.undo()
        other, _ = full.member(0, history=50)
        assert ended(other) == ["old"]
        other.session.room("lobby").leave()
        return is_given

    monkeypatch.setattr(link, "take_seat", take_seat)
    first, joined = full.member(0, max_members=5, **options)
    assert joined == (True, True)
    assert ended(first) == (["old"] if options else [])
    second, _ = full.member(0, history=50)
    assert ended(second) == ["old"]
    for member in (first, second):
        member.session.room("lobby").leave()
    assert full.log(0) is None


def test_who_joins_while_the_last_two_members_leave_has_the_log(full, monkeypatch):
    first, second = (full.member(0)[0] for _ in range(2))
    link = full.worlds[0].links[0]
    leaver = threading.Thread(target=first.session.room("lobby").leave)
    has_updated, may_go_on = threading.Event(), threading.Event()
    real = link.update
    late = []

    def update(*arguments):
        if threading.current_thread() is leaver:
            serial = real(*arguments)  # the second one is still a member
            has_updated.set()
            assert may_go_on.wait(DEADLINE_S)
            return serial
        monkeypatch.undo()  # the second one is a member no more
        may_go_on.set()
        leaver.join(DEADLINE_S)
        late.append(full.member(0, history=50)[0])
        return real(*arguments)

    monkeypatch.setattr(link, "update", update)
    leaver.start()
    assert has_updated.wait(DEADLINE_S)
    second.session.room("lobby").leave()
    assert ended(late[0]) == ["old"]
    late[0].session.room("lobby").leave()
    assert full.log(0) is None


# What is stored


def test_a_message_that_redis_has_twice_is_in_the_history_once(pair):
    """Redis forgets senders, and then does not know that it has the message already."""
    address, broker = pair.address, RedisBroker(pair.redis.url, prefix="test")
    room = broker.room("/ws/test", "lobby", history_messages=9)
    room.broadcast("first")
    message = messages.encode_broadcast("sender", 7, None, message_frame("twice"))
    keys = (address.log, address.head, address.history, address.settings)
    arguments = (address.channel, "fresh", "sender", "50 300000 1000", "7+5", message)
    pair.redis.client.eval(scripts.PUBLISH_KEPT, 4, *keys, *arguments)
    pair.redis.client.eval(scripts.PUBLISH_KEPT, 4, *keys, *arguments)
    assert pair.redis.client.llen(address.history) == 2, "the sender is known"
    pair.redis.client.hdel(address.head, "@sender")
    pair.redis.client.eval(scripts.PUBLISH_KEPT, 4, *keys, *arguments)
    assert pair.redis.client.llen(address.history) == 3
    room.broadcast("last")
    for which in (0, 1):
        late, joined = pair.member(which, history=50)
        assert joined == (True, True)
        assert late.receive(3) == ["first", "twice", "last"]
        assert ended(late) == []


def test_what_is_not_ours_in_a_history_is_dropped_and_counted(pair):
    pair.room(1).broadcast("ours")
    pair.room(1).history(0)
    entry = pair.redis.client.lindex(pair.address.history, 0)
    number, place, *_ = entry.split(b" ", 5)
    direct = b" ".join((b"9 9-9", number, place, b"7", messages.encode_direct("x", 1, "someone", message_frame("no"))))
    for garbage in (b"", b"x", b"1 2 3 4 5", entry.partition(b"\n")[0], direct):
        pair.redis.client.rpush(pair.address.history, garbage)
    late, joined = pair.member(0, history=50)
    assert joined == (True, True)
    assert ended(late) == ["ours"]
    assert pair.worlds[0].metrics[0].snapshot()["broker_malformed"] == 5


def test_a_head_lives_as_long_as_its_history(redis, proxy):
    pair = Pair(redis, proxy, LIMITS._replace(seconds=5000.0))
    try:
        pair.room(0).position()
        assert 4_900_000 < redis.client.pttl(pair.address.head) <= 5_000_000
        pair.room(0).broadcast("old")
        _, joined = pair.member(1, history=1)
        assert joined
        pair.room(0).broadcast("not kept", keep=False)
        assert pair.room(0).history(1) == ["old"]
        for key in (pair.address.head, pair.address.history):
            assert 4_900_000 < redis.client.pttl(key) <= 5_000_000
    finally:
        for world in pair.worlds:
            world.end()


def test_all_that_10_000_messages_are_reaches_a_process_that_joins(redis, proxy):
    pair = Pair(redis, proxy, LIMITS._replace(messages=10_000, bytes=2**21))
    try:
        for n in range(10_500):
            pair.room(1).broadcast(f"{n}", hand_over=True)

        wait_until(lambda: pair.room(1).history(1) == ["10499"], "all of them in Redis")
        late, joined = pair.member(0, history=10_000)
        assert joined == (True, True)
        assert late.receive(10_000) == [f"{n}" for n in range(500, 10_500)]
    finally:
        for world in pair.worlds:
            world.end()


def test_in_a_cluster_all_is_the_same(nodes):  # noqa: F811
    import redis as redis_py

    client = redis_py.RedisCluster("127.0.0.1", nodes[0].port, socket_timeout=3)
    world = RedisWorld(client, processes=2, history=LIMITS)
    try:
        for n in range(6):
            room = world.rooms.room(f"room {n}")
            room.broadcast("0")
            position = room.position()
            room.broadcast("1")
            for rooms in world.all_rooms:
                a, b = world.member(of=rooms), world.member(of=rooms)
                assert a.session.room(f"room {n}").join(history=50) == (True, True)
                assert a.receive(2) == ["0", "1"]
                assert b.session.room(f"room {n}").join(since=position) == (True, True)
                assert b.receive(1) == ["1"]
            outside = world.broker.room(world.path, f"room {n}")
            assert outside.history(50) == ["0", "1"]
    finally:
        world.end()


# Programs without a server


def test_a_program_without_a_server_reads_and_writes_the_history(pair):
    room = RedisBroker(pair.redis.url, prefix="test").room("/ws/test", "lobby")
    with pytest.raises(HistoryError, match="history is off: set history_messages for the endpoint, and start"):
        room.history(1)
    pair.member(0)
    room.broadcast("from outside")
    room.broadcast(b"not kept", keep=False)
    room.broadcast(b"\1\2", latest="x")
    assert room.history(50) == ["from outside", b"\1\2"]
    assert room.history(1) == [b"\1\2"]
    position = room.position()
    assert position == pair.room(1).position()
    wait_until(lambda: pair.room(0).position() == position)
    room.broadcast("later")
    late, joined = pair.member(1, since=position)
    assert joined == (True, True)
    assert late.receive(1) == ["later"]
    with pytest.raises(HistoryError, match=r"from 0 to 50 \(history_messages\), not 51"):
        room.history(51)
    with pytest.raises(HistoryError, match=r"from 0 to 10000 \(history_messages\), not -1"):
        room.history(-1)


def test_a_program_may_know_the_limits_by_itself(redis):
    """No server has been there yet."""
    broker = RedisBroker(redis.url, prefix="test")
    broker.room("/ws/test", "lobby").broadcast("not stored")
    known = broker.room("/ws/test", "lobby", history_messages=2)
    for n in range(3):
        known.broadcast(f"{n}")
    assert known.history(2) == ["1", "2"]
    off = broker.room("/ws/test", "lobby", history_messages=0)
    off.broadcast("not stored")
    with pytest.raises(HistoryError, match="history is off"):
        off.position()
    world = RedisWorld(redis.url, history=LIMITS)
    try:
        member = world.member()
        member.session.room("lobby").join(history=50)
        assert ended(member) == ["1", "2"]
    finally:
        world.end()
        broker.close()


def test_what_servers_keep_is_known_in_every_shard(pair):
    pair.member(0)
    broker = RedisBroker(pair.redis.url, prefix="test")
    for n in range(40):
        broker.room("/ws/test", f"room {n}").broadcast("x")
        assert broker.room("/ws/test", f"room {n}").history(50) == ["x"]
    with pytest.raises(HistoryError):
        broker.room("/ws/other", "lobby").history(1)
    broker.close()
