"""Sessions that go on in another process: each has one owner at any moment, whatever fails on the way."""

import itertools
import threading
import time
from contextlib import contextmanager
from functools import partial

import pytest

from tests.brokers.handover_world import SECRET, Client, HandoverWorld
from tests.programs import DEADLINE_S, wait_until
from tests.redis_server import RedisServer
from tests.wire import run_all
from wsthreads.brokers import scripts, session_scripts
from wsthreads.brokers.handover import Handover
from wsthreads.brokers.keys import LOG_S
from wsthreads.brokers.redis import RedisBroker
from wsthreads.brokers.session_scripts import away_name
from wsthreads.errors import BrokerError
from wsthreads.protocol.frames import message_frame
from wsthreads.rooms.handles import Peer, User
from wsthreads.sessions.moves import BUSY, UNKNOWN, Ended

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def redis():
    with RedisServer() as server:
        yield server


@pytest.fixture
def new_world(redis, monkeypatch):
    monkeypatch.setattr("wsthreads.brokers.exports.CUT_S", DEADLINE_S)  # a thread may get no core for 2 s
    worlds = []

    def make(processes=2):
        worlds.append(HandoverWorld(redis.url, processes=processes, prefix=f"test-{next(NUMBERS)}"))
        return worlds[-1]

    yield make
    for world in worlds:
        for rooms in world.all_rooms:
            rooms._check()
            assert not rooms._seats
        world.end()


@pytest.fixture
def world(new_world):
    return new_world()


def everybody_has(world, room, text, places=None):
    """Broadcast, and wait until all processes have delivered it."""
    observers = [world.member(room, of=world.all_rooms[n]) for n in places or range(len(world.all_rooms))]
    observers[0].session.room(room).broadcast(text)
    for observer in observers:
        observer.receive_until(text)


def export_all(place, clients):
    place.handover.put([partial(place.handover.export, client.id) for client in clients])
    assert place.handover._pool.wait_idle(DEADLINE_S)


def members(world, room):
    return [rooms.count(room) for rooms in world.all_rooms]


def test_a_session_goes_on_where_its_client_comes_back_with_all_messages_in_order(world):
    old, new = world.places
    ann = Client(world, "lobby", user="ann")
    ann.kept.frames = [message_frame("kept")]
    everybody_has(world, "lobby", "before")
    arrival = world.come_back(ann, 1)
    everybody_has(world, "lobby", "behind")
    assert arrival.settled == (0, [message_frame("kept")])
    assert ann.rest() == ["before", "kept", "behind"]
    assert (old.left, old.here, new.here) == ([ann.id], {}, {ann.id: ann})
    assert (old.closed, new.closed) == ([], [])
    assert (old.counts, new.counts) == (["sessions_handed_over"], ["sessions_taken_over"])


def test_all_of_a_session_but_its_connection_arrives(world):
    ann = Client(world, "lobby", user="ann")
    ann.attributes, ann.messages = {"ä": [1, None, "\x00"]}, ["text \ud800", b"\xff\x00", ""]
    state = world.come_back(ann, 1).state
    assert state.attributes == '{"\\u00e4": [1, null, "\\u0000"]}'
    assert state.messages == ["text \ud800", b"\xff\x00", ""]
    assert (state.user, state.received, state.asked, state.heard, state.unanswered) == ("ann", 5, 1, 2, [2])


def test_a_session_may_move_many_times_and_back(world):
    ann = Client(world, "lobby")
    for number in range(6):
        everybody_has(world, "lobby", f"{number}")
        assert not isinstance(world.come_back(ann, 1 - number % 2), str)
    assert ann.rest() == [f"{number}" for number in range(6)]


def test_of_several_processes_to_which_a_client_comes_back_at_once_one_has_the_session(new_world):
    world = new_world(processes=4)
    for _ in range(5):
        ann = Client(world, "lobby")
        found, claim = [], ann.claim()

        def come_back(place, claim=claim, found=found):
            found.append(place.handover.fetch(claim, None))

        run_all(*[partial(come_back, place) for place in world.places[1:]])
        arrived = [each for each in found if not isinstance(each, str)]
        having = [place for place in world.places if ann.id in place.here]
        assert len(having) == 1
        assert len(arrived) == 1 + sum(len(place.left) for place in world.places[1:])
        for place in world.places:
            place.left.clear()
        assert set(found) - set(arrived) <= {BUSY}
        assert not any(place.closed for place in world.places)


def test_a_session_that_a_process_has_got_after_it_was_asked_is_not_unknown(new_world, monkeypatch):
    world = new_world(processes=3)
    claim = Client(world, "lobby").claim()
    first, second = (place.handover for place in world.places[1:])
    ask, earlier = Handover._ask, []

    def ask_too_early(self, *arguments):
        if self is second and not earlier:
            earlier.append(first.fetch(claim, None))
            return UNKNOWN
        return ask(self, *arguments)

    monkeypatch.setattr(Handover, "_ask", ask_too_early)
    found = second.fetch(claim, None)
    assert not isinstance(earlier[0], str)
    assert found != UNKNOWN


def test_of_two_connections_of_one_client_in_one_process_one_has_the_session(world, monkeypatch):
    ann = Client(world, "lobby")
    assert world.places[0].handover.export(ann.id)
    new, claim, found = world.places[1], ann.claim(), []
    arrive = new.arrive

    def arrive_slowly(*arguments):
        monkeypatch.setattr(new, "arrive", arrive)
        found.append(new.handover.fetch(claim, None))
        return arrive(*arguments)

    monkeypatch.setattr(new, "arrive", arrive_slowly)
    found.append(new.handover.fetch(claim, None))
    assert found[0] == BUSY
    assert not isinstance(found[1], str)
    assert world._find(new.rooms, ann.id) is found[1].session


def test_a_process_that_ends_stores_its_sessions_and_another_one_finds_them(world):
    old = world.places[0]
    clients = [Client(world, "lobby", user=f"user-{n}") for n in range(20)]
    export_all(old, clients)
    assert old.here == {}
    world.links[0].stop(DEADLINE_S)
    everybody_has(world, "lobby", "while away", places=[1])
    for client in clients:
        assert not isinstance(world.come_back(client, 1), str)
        assert client.rest() == ["while away"]
    assert not old.closed


def test_a_session_that_is_away_is_a_member_of_its_rooms(world):
    ann, bob = Client(world, "lobby"), Client(world, "lobby", place=1)
    assert world.places[0].handover.export(ann.id)
    assert members(world, "lobby") == [2, 2]
    eve = world.member(of=world.all_rooms[1])
    assert not eve.session.room("lobby").join(max_members=2).joined
    world.come_back(ann, 1)
    assert members(world, "lobby") == [2, 2]
    assert bob.member.session.room("lobby").join(max_members=2).joined


def test_a_session_that_is_away_counts_until_its_window_ends_whatever_the_processes_report_meanwhile(redis, world):
    """They report that they are alive, use the room, and ask for seats in it."""
    ann = Client(world, "lobby")
    ann.left_s = 600.0
    bob = world.member("lobby", of=world.all_rooms[1])
    assert world.places[0].handover.export(ann.id)
    keys, address = world.links[0]._keys, world.links[0]._keys.address("/ws/test", "lobby")

    def life_s():
        until_s = (redis.client.zscore(keys.processes(address.shard), away_name(ann.id)) or 0) / 1000
        lives_ms = [redis.client.pttl(key) for key in (address.members, keys.processes(address.shard))]
        return min(until_s - redis.client.time()[0], *(each / 1000 for each in lives_ms))

    assert life_s() > 500
    for rooms, link in zip(world.all_rooms, world.links, strict=True):
        beaten = link._writer._beat_at
        link._writer._beat_at = 0.0
        world.member("lobby", of=rooms).session.room("lobby").leave()
        assert not world.member(of=rooms).session.room("lobby").join(max_members=2).joined
        wait_until(lambda link=link, beaten=beaten: link._writer._beat_at > beaten, "a report that it is alive")
    bob.session.room("lobby").leave()
    wait_until(lambda: members(world, "lobby") == [1, 1], "only ann")
    assert life_s() > 500


def test_a_session_that_is_away_is_open_and_its_user_online(redis, world):
    ann, bob = Client(world, "lobby", user="ann"), Client(world, "lobby", user="bob", place=1)
    broker = RedisBroker(redis.url, prefix=world.links[0]._keys._prefix)
    users, peers = [broker.user("/ws/test", "ann")], [broker.session("/ws/test", ann.id)]
    for rooms in world.all_rooms:
        users.append(User("ann", rooms.directory))
        peers.append(Peer(ann.id, rooms.directory))

    def seen():
        ids = [[each.id for each in user.sessions()] for user in users]
        return ids, [each.is_online() for each in users], [each.is_open() for each in peers]

    try:
        assert seen() == ([[ann.id]] * 3, [True] * 3, [True] * 3)
        assert world.places[0].handover.export(ann.id)
        assert seen() == ([[ann.id]] * 3, [True] * 3, [True] * 3)
        assert {session.since for user in users for session in user.sessions()} == {1.0}
        assert [each.id for each in User("bob", world.rooms.directory).sessions()] == [bob.id]
        world.come_back(ann, 1)
        assert seen() == ([[ann.id]] * 3, [True] * 3, [True] * 3)
        ann.left_s = 0.001
        assert world.places[1].handover.export(ann.id)
        wait_until(lambda: seen() == ([[]] * 3, [False] * 3, [False] * 3), "the end of its window")
    finally:
        broker.close()


@pytest.mark.parametrize("is_away", [False, True])
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"secret": "0" * 64}, UNKNOWN),
        ({"user": "eve"}, "user"),
        ({"origin": "https://evil.example"}, "origin"),
        ({"received": 0}, "counts"),
        ({"received": 2}, (1002, "2 messages received, 1 to 1 are possible")),
        ({"session_id": "another"}, UNKNOWN),
    ],
)
def test_a_claim_that_is_not_right_gains_nothing_and_changes_nothing(world, is_away, changes, why):
    old, new = world.places
    ann = Client(world, "lobby", user="ann")
    ann.kept.acknowledged = 1
    if is_away:
        assert old.handover.export(ann.id)
    elif "user" in changes or "origin" in changes:
        old.why = why
    assert world.come_back(ann, 1, **changes) == why
    assert (old.closed, new.closed, new.here) == ([], [], {})
    old.why = ""
    assert not isinstance(world.come_back(ann, 1), str)


def test_a_session_that_cannot_move_ends_in_its_process_and_its_client_is_told(world):
    old, new = world.places
    ann = Client(world, "lobby")
    old.is_json = False
    assert world.come_back(ann, 1) == "elsewhere"
    assert old.closed == [(ann.id, 1006, "cannot move")]
    assert world.come_back(ann, 1, secret="0" * 64) == UNKNOWN
    assert not new.here


@pytest.mark.parametrize("what", ["is not JSON", "is too large"])
def test_a_client_is_told_that_its_session_could_not_move_after_its_process_has_ended(world, monkeypatch, what):
    ann, old = Client(world, "lobby"), world.places[0]
    if what == "is not JSON":
        old.is_json = False
    else:
        monkeypatch.setattr("wsthreads.brokers.session_state.MAX_STATE_BYTES", 5000)
        ann.kept.frames = [message_frame("x" * 5000)]
    assert not old.handover.export(ann.id)
    world.links[0].stop(DEADLINE_S)
    assert world.come_back(ann, 1, secret="0" * 64) == UNKNOWN
    assert world.come_back(ann, 1) == "elsewhere"
    assert world.places[1].handover.end_overdue() == 0
    assert not world.places[1].closed


def test_a_client_is_told_how_its_session_was_closed_after_its_process_has_ended(redis, world):
    (old, new), ann = world.places, Client(world, "lobby", user="ann")
    ann.origin = "https://chat.example"
    old.close_for_good(ann, 4001, "gö")
    old.handover.stop(DEADLINE_S)
    world.links[0].stop(DEADLINE_S)
    for changes in ({"secret": "0" * 64}, {"user": "eve"}, {"user": None}, {"origin": None}, {"origin": "https://e.x"}):
        assert world.come_back(ann, 1, **changes) == UNKNOWN
    assert [world.come_back(ann, 1) for _ in range(2)] == [(4001, "gö")] * 2
    assert 0 < redis.client.pttl(world.links[1]._keys.session("/ws/test", ann.id)[0]) <= 60_000
    assert new.handover.end_overdue() == 0
    assert (new.here, new.closed, new.counts) == ({}, [], [])


def test_a_session_that_could_not_move_and_was_closed_is_told_as_closed(world):
    old, ann = world.places[0], Client(world, "lobby")
    old.is_json = False
    assert not old.handover.export(ann.id)
    old.records.append((ann.id, Ended(4001, "go", [SECRET], None, None), 60.0))
    old.handover.stop(DEADLINE_S)
    world.links[0].stop(DEADLINE_S)
    assert world.come_back(ann, 1) == (4001, "go")


def test_how_many_sessions_have_ended_is_stored_by_few_calls(world, monkeypatch):
    monkeypatch.setattr("wsthreads.brokers.exports.TELL_BATCH", 10)
    old, clients = world.places[0], [Client(world, "lobby") for _ in range(25)]
    for number, client in enumerate(clients):
        old.close_for_good(client, 4000 + number, "go")
    call, sizes = old.link.call_for_sessions, []
    monkeypatch.setattr(
        old.link, "call_for_sessions", lambda path, ids, *rest: sizes.append(len(ids)) or call(path, ids, *rest)
    )
    old.handover.stop(DEADLINE_S)
    world.links[0].stop(DEADLINE_S)
    assert sizes == [10, 10, 5]
    assert [world.come_back(client, 1) for client in clients] == [(4000 + number, "go") for number in range(25)]


@pytest.mark.parametrize("is_done", [False, True])
def test_a_redis_that_fails_once_has_it_by_the_next_call(world, is_done):
    old, ann = world.places[0], Client(world, "lobby")
    old.close_for_good(ann, 4001, "go")
    failing = Failing(old, "call_for_sessions", is_done=is_done)
    old.handover.stop(DEADLINE_S)
    assert not failing.times
    world.links[0].stop(DEADLINE_S)
    assert world.come_back(ann, 1) == (4001, "go")


def test_a_session_that_is_too_large_cannot_move(world, monkeypatch):
    monkeypatch.setattr("wsthreads.brokers.session_state.MAX_STATE_BYTES", 5000)
    ann = Client(world, "lobby")
    ann.kept.frames = [message_frame("x" * 5000)]
    assert world.come_back(ann, 1) == "elsewhere"
    assert world.places[0].closed == [(ann.id, 1006, "cannot move")]


def test_a_call_that_takes_long_keeps_the_session_and_the_client_is_to_come_again(world):
    old = world.places[0]
    ann = Client(world, "lobby")
    old.is_busy = True
    assert old.handover.fetch(ann.claim(), None, timeout_s=0) == BUSY  # it is here
    assert world.places[1].handover.fetch(ann.claim(), None, timeout_s=0.3) == BUSY
    assert old.here == {ann.id: ann}
    old.is_busy = False
    assert not isinstance(world.come_back(ann, 1), str)


@pytest.mark.parametrize("whom", ["session", "user", "room"])
def test_a_close_on_the_way_ends_the_session_where_its_client_comes_back(world, whom):
    ann = Client(world, "lobby", user="ann")
    assert world.places[0].handover.export(ann.id)
    directory = world.all_rooms[1].directory
    if whom == "session":
        directory.close_session(ann.id, 4001, "go")
    elif whom == "user":
        directory.close_user("ann", 4001, "go", 60.0)
    else:
        directory.close_room("lobby", 4001, "go")
    wait_until(lambda: world.links[1].waiting() == 0, "the close at Redis")
    assert not isinstance(world.come_back(ann, 1), str)
    assert world.places[1].closed == [(ann.id, 4001, "go")]
    assert not world.places[0].closed


def test_after_redis_has_lost_its_data_sessions_move_again_at_once(redis, world):
    """Though nothing was sent in their rooms since, and though sessions have moved just before."""
    ann, bob = Client(world, "lobby", user="ann"), Client(world, "lobby", place=1)
    for number in range(4):
        assert not isinstance(world.come_back(ann, 1 - number % 2), str)
        assert not isinstance(world.come_back(bob, number % 2), str)
        everybody_has(world, "lobby", f"{number}")
        redis.client.flushall()
    assert not isinstance(world.come_back(ann, 1), str)
    assert not isinstance(world.come_back(bob, 0), str)
    assert ann.rest() == bob.rest() == [f"{number}" for number in range(4)]


def test_a_new_log_that_only_one_process_knows_of_keeps_no_session_from_moving(redis, world):
    ann, bob = Client(world, "lobby"), Client(world, "lobby", place=1)
    everybody_has(world, "lobby", "one")
    redis.client.flushall()
    for room in list(world.links[1]._subscriptions.rooms.values()):
        redis.client.hset(room.address.head, mapping={"epoch": "new", "number": 0, "id": "0-0"})
        world.links[1]._reader.check(room)
    assert not isinstance(world.come_back(bob, 0), str)
    assert not isinstance(world.come_back(ann, 1), str)
    assert ann.rest() == bob.rest() == ["one"]


def test_a_session_that_misses_what_no_log_has_ends_once_and_is_not_resumed(redis, world):
    ann = Client(world, "lobby")
    assert world.places[0].handover.export(ann.id)
    for text in ("one", "two"):
        everybody_has(world, "lobby", text)
    log = world.links[0]._keys.address("/ws/test", "lobby").log
    redis.client.xtrim(log, maxlen=1, approximate=False)
    assert world.come_back(ann, 1) == UNKNOWN
    assert world.places[1].closed == [(ann.id, 1006, "missed too much")]
    assert world.come_back(ann, 1) == UNKNOWN
    assert world.come_back(ann, 0) == UNKNOWN


@pytest.fixture
def forgetful(redis, monkeypatch):
    """Logs keep what they need not hold for 50 ms, in place of a minute."""
    monkeypatch.setattr(scripts, "PUBLISH", scripts.PUBLISH.replace(str(LOG_S * 1000), "50"))
    monkeypatch.setattr(scripts, "PUBLISH_KEPT", scripts.PUBLISH_KEPT.replace(str(LOG_S * 1000), "50"))
    redis.client.config_set("stream-node-max-entries", 1)  # else whole nodes are dropped, of a hundred entries
    yield
    redis.client.config_set("stream-node-max-entries", 100)


def test_a_log_keeps_what_a_session_on_its_way_needs_for_as_long_as_its_client_may_be_away(redis, world, forgetful):
    address = world.links[0]._keys.address("/ws/test", "lobby")
    ann, observer = Client(world, "lobby"), world.member("lobby", of=world.all_rooms[1])
    ann.left_s = 300.0

    def say(*texts):
        for text in texts:
            observer.session.room("lobby").broadcast(text)
            observer.receive_until(text)
            time.sleep(0.06)

    say("before")
    assert world.places[0].handover.export(ann.id)
    say("one", "two", "three")
    assert redis.client.pttl(address.log) > 60_000
    world.links[1].send_to_session(world.path, ann.id, message_frame("for ann"))
    time.sleep(0.06)
    world.links[1].send_to_session(world.path, "somebody", message_frame("for somebody"))
    say("four")
    assert not isinstance(world.come_back(ann, 1), str)
    assert ann.rest() == ["before", "one", "two", "three", "for ann", "four"]
    assert world.places[1].closed == []


def test_what_holds_a_log_stays_if_the_log_has_to_begin_anew_and_ends(redis, world, forgetful):
    address = world.links[0]._keys.address("/ws/test", "lobby")
    ann, observer = Client(world, "lobby"), world.member("lobby", of=world.all_rooms[1])
    ann.left_s = 300.0

    def said(text):
        observer.session.room("lobby").broadcast(text)
        observer.receive_until(text)
        time.sleep(0.06)
        return redis.client.xlen(address.log)

    assert [said("a"), said("b")] == [0, 0], "without that, the log forgets"
    assert world.places[0].handover.export(ann.id)
    redis.client.hdel(address.head, "epoch")
    assert [said("c"), said("d")] == [1, 2]
    assert redis.client.pttl(address.head) > 60_000
    assert redis.client.hget(address.head, "hold") is not None
    redis.client.hset(address.head, "hold", "1 2 3")
    assert said("e") == 0
    redis.client.hset(address.head, "hold", "nonsense")
    assert said("f") == 0


# The time is over


def test_a_client_that_does_not_come_back_has_its_session_ended_once(new_world):
    world = new_world(processes=3)
    first = world.places[0]
    clients = [Client(world, "lobby", user=f"user-{n}") for n in range(5)]
    for client in clients:
        client.left_s = 0.001
    export_all(first, clients)
    wait_until(lambda: any(place.handover.end_overdue() for place in world.places), "they are overdue")
    run_all(*[place.handover.end_overdue for place in world.places])

    def closed():
        return [each for place in world.places for each in place.closed]

    wait_until(lambda: len(closed()) >= 5, "on_close of all")
    for place in world.places:
        assert place.handover._pool.wait_idle(DEADLINE_S)
    assert sorted(closed()) == sorted((client.id, 1006, "not back in time") for client in clients)
    assert members(world, "lobby") == [0, 0, 0]
    assert [world.come_back(client, 1) for client in clients] == [UNKNOWN] * 5


def test_more_overdue_sessions_than_are_asked_for_at_once_end_at_once(world, monkeypatch):
    monkeypatch.setattr("wsthreads.brokers.handover.OVERDUE_BATCH", 3)
    clients = [Client(world, "lobby") for _ in range(10)]
    for client in clients:
        client.left_s = 0.001
    export_all(world.places[0], clients)
    new = world.places[1].handover
    assert wait_until(new.end_overdue, "they are overdue") == len(clients)
    assert new._pool.wait_idle(DEADLINE_S)
    assert len(world.places[1].closed) == len(clients)


def test_what_is_not_overdue_is_left_alone(world):
    ann = Client(world, "lobby")
    assert world.places[0].handover.export(ann.id)
    assert world.places[1].handover.end_overdue() == 0
    assert not isinstance(world.come_back(ann, 1), str)


def test_timers_look_for_what_is_overdue(world, monkeypatch):
    monkeypatch.setattr("wsthreads.brokers.handover.OVERDUE_LOOK_S", 0.02)
    ann = Client(world, "lobby")
    ann.left_s = 0.001
    assert world.places[0].handover.export(ann.id)
    for place in world.places:
        place.handover.start()
        place.handover.start()
    wait_until(lambda: any(place.closed for place in world.places), "on_close")
    assert [each for place in world.places for each in place.closed] == [(ann.id, 1006, "not back in time")]


# Redis fails


class Failing:
    """The link of a process whose next call of one kind, or of one script, fails: before Redis has it, or after."""

    def __init__(self, place, what, *, is_done, is_unknown=True):
        self.what, self.is_done, self.is_unknown = what, is_done, is_unknown
        self.times = 1
        self.late = None
        for name in ("call_for_session", "call_for_sessions", "call_all", "checkpoint"):
            self.wrap(place.link, name)

    def wrap(self, link, name):
        call = getattr(link, name)

        def fail(*arguments, **options):
            if self.times and (name == self.what or self.what in arguments):
                self.times -= 1
                self.late = lambda: call(*arguments, **options)
                if self.is_done:
                    call(*arguments, **options)
                if name == "checkpoint":
                    return False
                error = BrokerError("Redis has not answered")
                error.is_unknown = self.is_unknown
                raise error
            return call(*arguments, **options)

        setattr(link, name, fail)


OLD_STEPS = [
    pytest.param("checkpoint", False, id="the cut"),
    pytest.param("call_all", False, id="hold, not done"),
    pytest.param("call_all", True, id="hold, done"),
    pytest.param(session_scripts.STORE, False, id="store, not done"),
    pytest.param(session_scripts.STORE, True, id="store, done"),
]


@pytest.mark.parametrize(("what", "is_done"), OLD_STEPS)
def test_where_redis_fails_while_a_session_leaves_it_stays_and_leaves_later(world, what, is_done):
    old, new = world.places
    ann = Client(world, "lobby", user="ann")
    everybody_has(world, "lobby", "one")
    failing = Failing(old, what, is_done=is_done)
    assert not old.handover.export(ann.id)
    assert (old.here, old.stayed, old.closed) == ({ann.id: ann}, [ann.id], [])
    assert members(world, "lobby") == [3, 3]
    everybody_has(world, "lobby", "two")
    assert ann.member.session.send("three")
    if what == session_scripts.STORE and not is_done:
        failing.late()  # Redis gets it after it was taken back: nobody may have it
    assert not failing.times
    new.handover._link.ask_all = lambda *_, **__: ([], True)  # as if the old process did not answer
    assert world.come_back(ann, 1) == UNKNOWN
    del new.handover._link.ask_all
    assert not isinstance(world.come_back(ann, 1), str)
    assert ann.rest() == ["one", "two", "three"]
    assert old.closed == new.closed == []


NEW_STEPS = [
    pytest.param(session_scripts.LOOK, False, id="look"),
    pytest.param("checkpoint", False, id="the entry"),
    pytest.param(session_scripts.CLAIM, False, id="claim, not done"),
    pytest.param(session_scripts.CLAIM, True, id="claim, done"),
    pytest.param("call_all", False, id="free"),
]


@pytest.mark.parametrize(("what", "is_done"), NEW_STEPS)
def test_where_redis_fails_while_a_session_comes_it_is_not_lost(world, what, is_done):
    old, new = world.places
    ann = Client(world, "lobby", user="ann")
    everybody_has(world, "lobby", "one")
    assert old.handover.export(ann.id)
    failing = Failing(new, what, is_done=is_done)
    everybody_has(world, "lobby", "two")
    found = world.come_back(ann, 1)
    assert not failing.times
    if isinstance(found, str):
        assert found == BUSY
        assert not isinstance(world.come_back(ann, 1), str)
    assert ann.rest() == ["one", "two"]
    assert (old.closed, new.closed, new.here) == ([], [], {ann.id: ann})
    assert sorted(new.counts) == ["sessions_taken_over"]


def test_a_claim_without_an_answer_is_repeated_although_redis_is_away_for_a_while_then(world):
    ann = Client(world, "lobby")
    assert world.places[0].handover.export(ann.id)
    Failing(world.places[1], session_scripts.CLAIM, is_done=False, is_unknown=False)  # this is the second one
    Failing(world.places[1], session_scripts.CLAIM, is_done=True)
    assert not isinstance(world.come_back(ann, 1), str)
    assert world.places[1].here == {ann.id: ann}


def test_a_process_that_ends_meanwhile_takes_no_session_from_redis(new_world, monkeypatch):
    world = new_world(processes=3)
    ann, ending = Client(world, "lobby"), world.places[1]
    assert world.places[0].handover.export(ann.id)
    arrive = ending.arrive

    def arrive_at_the_end(*arguments):
        ending.handover.take_no_more()
        return arrive(*arguments)

    monkeypatch.setattr(ending, "arrive", arrive_at_the_end)
    assert world.come_back(ann, 1) == BUSY
    assert not ending.here
    assert world.come_back(ann, 1) == BUSY
    assert not isinstance(world.come_back(ann, 2), str)
    assert members(world, "lobby") == [1, 1, 1]


def test_a_process_that_fails_to_take_a_session_leaves_it_to_another_one(new_world):
    world = new_world(processes=3)
    ann = Client(world, "lobby", user="ann")
    assert world.places[0].handover.export(ann.id)
    Failing(world.places[1], session_scripts.CLAIM, is_done=False, is_unknown=False)
    assert world.places[1].handover.fetch(ann.claim(), None, timeout_s=0) == BUSY
    assert world.all_rooms[1].count_here("lobby") == 0
    everybody_has(world, "lobby", "one")
    assert not isinstance(world.come_back(ann, 2), str)
    assert ann.rest() == ["one"]


def test_without_redis_nothing_hangs_and_each_session_stays_where_it_is(request):
    with RedisServer() as redis:
        world = HandoverWorld(redis.url)
        try:
            ann = Client(world, "lobby", user="ann")
            redis.kill()
            assert not world.places[0].handover.export(ann.id)
            assert world.places[1].handover.fetch(ann.claim(), None) == BUSY
            assert world.places[1].handover.end_overdue() == 0
            assert world.places[0].here == {ann.id: ann}
            assert not world.places[0].closed
        finally:
            world.end()


def test_a_process_that_ends_without_redis_says_once_that_clients_are_not_told(caplog):
    with RedisServer() as redis:
        world = HandoverWorld(redis.url)
        try:
            old = world.places[0]
            for client in [Client(world, "lobby") for _ in range(3)]:
                old.close_for_good(client, 4001, "go")
            redis.kill()
            begun = time.monotonic()
            old.handover.stop(2.0)
            old.handover.stop(2.0)
            assert time.monotonic() - begun < DEADLINE_S
            said = [each.getMessage() for each in caplog.records if "will not be told" in each.getMessage()]
            assert len(said) == 1
            assert said[0].startswith("3 clients of /ws/test will not be told that the server has closed the session: ")
        finally:
            world.end()


def test_a_process_that_does_not_answer_may_have_the_session_until_it_counts_as_dead(world, monkeypatch):
    monkeypatch.setattr("wsthreads.brokers.handover.ASK_S", 0.01)
    ann = Client(world, "lobby")
    everybody_has(world, "lobby", "both listen")
    answering = threading.Event()
    judge = world.places[0].judge
    monkeypatch.setattr(world.places[0], "judge", lambda *claim: answering.wait(DEADLINE_S) and judge(*claim))
    assert world.places[1].handover.fetch(ann.claim(), None, timeout_s=0.05) == BUSY
    monkeypatch.setattr("wsthreads.brokers.handover.SILENT_S", 0.5)  # it is asked more often than that
    assert world.places[1].handover.fetch(ann.claim(), None, timeout_s=DEADLINE_S) == UNKNOWN
    answering.set()


def test_a_silence_that_was_broken_meanwhile_counts_from_its_new_beginning(world, monkeypatch):
    """Two answers that come too late, some seconds apart, do not make a dead process."""
    now = [0.0]
    monkeypatch.setattr("wsthreads.brokers.handover.monotonic", lambda: now[0])
    ann, new = Client(world, "lobby"), world.places[1].handover
    ask_all, is_heard = world.links[1].ask_all, [False]
    monkeypatch.setattr(
        world.links[1], "ask_all", lambda *asked, **options: ask_all(*asked, **options) if is_heard[0] else ([], False)
    )
    for _ in range(4):
        is_heard[0] = False
        assert new.fetch(ann.claim(), None, timeout_s=0) == BUSY
        now[0] += 6.0
        is_heard[0] = True
        assert new.fetch(ann.claim(session_id="another"), None, timeout_s=0) == UNKNOWN
    assert world.places[0].here == {ann.id: ann}


@contextmanager
def subscriptions_lost(redis, link, hold):
    """The connection on which a process listens is cut. It connects again when `hold` is set."""
    reader = link._reader
    open_pubsub = reader._open_pubsub

    def open_later():
        assert hold.wait(DEADLINE_S)
        return open_pubsub()

    reader._open_pubsub = open_later
    wake = link._keys.wake(link.process)[1]
    reader.renew()
    wait_until(lambda: not redis.client.pubsub_numsub(wake)[0][1], "nobody listens")
    try:
        yield
    finally:
        hold.set()
        reader._open_pubsub = open_pubsub


def test_a_process_that_does_not_listen_for_a_moment_may_have_the_session(redis, world):
    """Redis does not count it among those that were asked."""
    ann, listening = Client(world, "lobby"), threading.Event()
    everybody_has(world, "lobby", "both listen")
    for place in world.places:
        place.rooms.listen()
    with subscriptions_lost(redis, world.links[0], listening):
        assert world.places[1].handover.fetch(ann.claim(), None, timeout_s=0) == BUSY
        later = threading.Timer(0.2, listening.set)
        later.start()
        assert not isinstance(world.come_back(ann, 1), str)
        later.join()
    assert not world.places[0].closed


def test_a_process_that_listens_to_nothing_for_long_is_not_waited_for(redis, world, monkeypatch):
    monkeypatch.setattr("wsthreads.brokers.handover.UNREACHED_S", 0.2)
    ann, listening = Client(world, "lobby"), threading.Event()
    everybody_has(world, "lobby", "both listen")
    for place in world.places:
        place.rooms.listen()
    with subscriptions_lost(redis, world.links[0], listening):
        assert world.places[1].handover.fetch(ann.claim(), None, timeout_s=DEADLINE_S) == UNKNOWN


# What is in Redis


def test_there_is_no_secret_in_redis_and_nothing_is_left_there(redis, world):
    ann = Client(world, "lobby", user="ann")
    assert world.places[0].handover.export(ann.id)
    keys = world.links[0]._keys.session("/ws/test", ann.id)
    stored = redis.client.get(keys[0])
    assert ann.id.encode() in stored
    assert 0 < redis.client.pttl(keys[0]) <= 90_000
    assert 0 < redis.client.pttl(keys[1]) <= 90_000
    world.come_back(ann, 1)
    assert redis.client.get(keys[0]).startswith(b"taken ")
    assert 0 < redis.client.pttl(keys[0]) <= 60_000
    assert not redis.client.exists(keys[1])


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"nonsense",
        b"wsthreads session 1 ",
        b"wsthreads session 2 abcdefghijklmnop\n2\n{}",
        b"ended \xff",
        b"ended {}",
        b'ended [4001,"go",[],null,null]',
        b'ended [4001,"go",["%s"],1,null]' % SECRET.encode(),
        b'ended [5000,"go",["%s"],null,null]' % SECRET.encode(),
    ],
)
def test_what_is_malformed_in_redis_is_counted_and_nobodys_session(redis, world, odd):
    ann = Client(world, "lobby")
    key, _ = world.links[0]._keys.session("/ws/test", ann.id)
    del world.places[0].here[ann.id]
    redis.client.set(key, odd, px=60_000)
    assert world.come_back(ann, 1) == UNKNOWN
    assert world.places[1].counts == (["broker_malformed"] if odd else [])


@pytest.mark.parametrize("odd", ["another type", b"nonsense", b"wsthreads session 0 ", "shorter", "gone", "no id"])
def test_a_session_that_cannot_be_read_is_forgotten_and_disturbs_no_other(redis, world, caplog, odd):
    new = world.places[1]
    bad, good = Client(world, "lobby"), Client(world, "lobby")
    export_all(world.places[0], [bad, good])
    key, away = world.links[0]._keys.session("/ws/test", bad.id)
    whole = redis.client.getdel(key)
    if odd == "another type":
        redis.client.rpush(key, "x")
    elif odd == "no id":
        redis.client.zadd(away, {b"\xff": 0.0, b"x" * 1000: 0.0})
    elif odd != "gone":
        redis.client.set(key, whole[:-1] if odd == "shorter" else odd)
    for _ in range(2):
        redis.client.zadd(away, dict.fromkeys(redis.client.zrange(away, 0, -1), 0.0) or {bad.id: 0.0})
        assert new.handover.end_overdue()
        assert new.handover._pool.wait_idle(DEADLINE_S)
        assert not redis.client.exists(away)
    assert new.closed == [(good.id, 1006, "not back in time")]
    assert all(link._availability.answers for link in world.links)
    told = [record for record in caplog.records if record.levelname != "DEBUG"]
    assert len(told) == new.counts.count("broker_malformed") == (0 if odd in ("gone", "no id") else 2)


@pytest.mark.parametrize("which", ["session", "away"])
def test_a_key_of_another_type_keeps_no_session_from_moving(redis, world, which):
    ann = Client(world, "lobby")
    key = world.links[0]._keys.session("/ws/test", ann.id)[which == "away"]
    redis.client.rpush(key, "x")
    assert world.places[1].handover.end_overdue() == 0
    assert world.places[0].handover.export(ann.id)
    if which == "away":
        redis.client.delete(key)
        redis.client.rpush(key, "x")
    assert not isinstance(world.come_back(ann, 1), str)
    assert all(link._availability.answers for link in world.links)


def test_what_is_stored_meanwhile_is_not_forgotten_with_what_could_not_be_read(redis, world, monkeypatch):
    new = world.places[1]
    ann = Client(world, "lobby")
    key, away = world.links[0]._keys.session("/ws/test", ann.id)
    redis.client.set(key, "nonsense")
    redis.client.zadd(away, {ann.id: 0.0})
    read = new.handover._imports._read

    def read_late(*arguments):
        monkeypatch.undo()
        assert world.places[0].handover.export(ann.id)
        return read(*arguments)

    monkeypatch.setattr(new.handover._imports, "_read", read_late)
    assert new.handover.end_overdue() == 1
    assert new.handover._pool.wait_idle(DEADLINE_S)
    assert redis.client.zscore(away, ann.id)
    assert not isinstance(world.come_back(ann, 1), str)


def test_the_state_of_another_session_is_not_taken(redis, world):
    ann, bob = Client(world, "lobby"), Client(world, "lobby")
    assert world.places[0].handover.export(ann.id)
    keys = world.links[0]._keys
    redis.client.copy(keys.session("/ws/test", ann.id)[0], keys.session("/ws/test", bob.id)[0])
    del world.places[0].here[bob.id]
    assert world.come_back(bob, 1) == UNKNOWN
    assert world.places[1].here == {}


ODD_QUESTIONS = [
    None,
    "text",
    [],
    {"id": 1},
    ["id", "secret", None, None, ""],
    [1, "secret", None, None, "", 0],
    ["id", "\u00e4", None, None, "", 0],
    ["id", "secret", [], None, "", 0],
    ["id", "secret", None, 1, "", 0],
    ["id", "secret", None, None, None, 0],
    ["id", "secret", None, None, "", "0"],
    ["id", "secret", None, None, "", True],
    ["id", "secret", None, None, "", 0, 1],
]


@pytest.mark.parametrize("asked", ODD_QUESTIONS)
def test_an_odd_question_of_another_process_is_answered_by_unknown(world, asked, caplog):
    Client(world, "lobby")

    def ask():
        return world.links[1].ask(f"resume {world.path}", asked, 0.2, enough=lambda value: True)

    answers = wait_until(ask, "an answer, once both processes listen")
    assert [each["value"] for each in answers] == [UNKNOWN]
    assert not caplog.records


@pytest.mark.parametrize("answer", [1, ["x", 1], [1000, "x" * 200], [5000, ""], "nonsense", [True, ""]])
def test_an_odd_answer_of_another_process_resumes_nothing(world, answer):
    ann = Client(world, "lobby")
    world.places[0].why = answer
    assert world.places[1].handover.fetch(ann.claim(), None, timeout_s=0) in (BUSY, UNKNOWN)
    assert world.places[1].here == {}


def test_how_a_session_has_ended_is_told_by_its_process(world):
    ann = Client(world, "lobby")
    world.places[0].why = (4001, "go")
    assert world.come_back(ann, 1) == (4001, "go")
