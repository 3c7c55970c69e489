"""Presence over Redis: two or three processes, as far as Redis can tell, each with what its `on_presence` was told."""

import json
import os
import random
import signal
import threading
import time
from contextlib import ExitStack

import pytest

from tests.programs import DEADLINE_S, connect, receive, run_server, wait_until
from tests.room_worlds import RedisWorld
from wsthreads import WebSocketApp
from wsthreads.brokers import presence as shared_presence
from wsthreads.brokers import presence_writer, writer
from wsthreads.brokers.redis import RedisBroker
from wsthreads.rooms.presence import persons_of
from wsthreads.testing import live_server

INTERVAL_S = 0.02
#: It is over only when a test says so: see `Worker.end_grace`.
GRACE_S = 600.0


class Clock:
    """The flusher, whose time a test puts ahead."""

    def __init__(self, flusher):
        self.call_later, self.ahead_s, self._flusher = flusher.call_later, 0.0, flusher

    def now(self):
        return self._flusher.now() + self.ahead_s


class Worker:
    """The rooms of one process, and what its members are told."""

    def __init__(self, world, rooms, **options):
        self.world, self.rooms, self.clock = world, rooms, Clock(world.flusher)
        self.told = []
        rooms.use_roster(
            timers=self.clock,
            report=self._report,
            wants_reports=lambda: True,
            count=lambda name: None,
            **{"interval_s": INTERVAL_S, "grace_s": GRACE_S, "max_value_bytes": 1024, **options},
        )

    def _report(self, name, changes):
        for what in ("joined", "left", "changed"):
            self.told += [(what, person.key, person.presence) for person in getattr(changes, what)]

    def session(self, user=None, room="lobby"):
        return self.world.member(room, of=self.rooms, user=user).session

    def person(self, user, value=None, room="lobby"):
        session = self.session(user, room)
        session.room(room).set_presence(value)
        return session

    def end(self, session, *, is_lost=False):
        """The session's connection has ended."""
        self.rooms.leave_all(session, is_lost=is_lost)

    def end_grace(self):
        """The time of all sessions that are lost so far is over."""
        self.clock.ahead_s += GRACE_S
        self.rooms.roster._look_at_lost("lobby")

    def there(self, room="lobby"):
        return {person.key: person.presence for person in self.rooms.room(room).presence()}

    def known(self, room="lobby"):
        """As `there`, without being somebody who reads the list: what is told takes no account of it."""
        return {person.key: person.presence for person in persons_of(self.rooms.roster.entries(room))}

    def sessions(self, room="lobby"):
        return {person.key: person.sessions for person in self.rooms.room(room).presence()}


class Workers(RedisWorld):
    def __init__(self, url, prefix, processes=2, **options):
        super().__init__(url, prefix=prefix, processes=processes)
        self.workers = [Worker(self, rooms, **options) for rooms in self.all_rooms]

    def end(self):
        for rooms in self.all_rooms:
            rooms.roster.stop(1.0)
        super().end()

    def kill(self, worker):
        """End a process without a farewell; its members are gone for everybody else."""
        link = self.links[self.workers.index(worker)]
        link._writer._registration.say_farewell = lambda *names: None
        worker.rooms._link.change_presence = lambda *arguments: None
        link._writer.stop_soon()
        wait_until(lambda: link._queue.has_ended)
        link._reader.stop(5)


@pytest.fixture
def make(request):
    made = []

    def make(url, **options):
        made.append(Workers(url, f"presence-{random.randrange(2**32)}", **options))
        return made[-1]

    yield make
    for world in made:
        world.end()


@pytest.fixture
def workers(make, redis_server):
    return make(redis_server.url).workers


@pytest.fixture
def quick(monkeypatch):
    """Processes are dead after a second."""
    monkeypatch.setattr(presence_writer, "HOLD_OFF_S", 0.5)


def settle(*workers, there, room="lobby"):
    for worker in workers:
        wait_until(lambda worker=worker: worker.there(room) == there, f"{there}, and not {worker.there(room)}")


def told(worker, *expected):
    """What a worker's members are told, in any number of calls; nothing else."""
    wait_until(lambda: len(worker.told) >= len(expected), f"{expected}, and not {worker.told}")
    assert worker.told == list(expected)
    worker.told.clear()


def test_all_processes_see_everybody_and_are_told_once(workers):
    a, b = workers
    ann = a.person("ann", 1)
    settle(a, there={"ann": 1})
    told(a, ("joined", "ann", 1))
    bob = b.person("bob", {"x": "ä"})
    settle(a, b, there={"ann": 1, "bob": {"x": "ä"}})
    told(b, ("joined", "bob", {"x": "ä"}))  # and not that ann joined: she was there
    told(a, ("joined", "bob", {"x": "ä"}))
    bob.room("lobby").set_presence(None)
    settle(a, b, there={"ann": 1, "bob": None})
    told(a, ("changed", "bob", None))
    told(b, ("changed", "bob", None))
    ann.room("lobby").leave()
    settle(b, there={"bob": None})
    told(b, ("left", "ann", 1))


def test_who_only_holds_a_seat_keeps_the_presences(workers, monkeypatch):
    """The last member leaves, while another session has a seat. Then this process looks for the dead."""
    a, b = workers
    a.person("ann", 1)
    link = b.rooms._link
    real = link.take_seat

    def take_seat(*arguments):
        is_given = real(*arguments)
        monkeypatch.undo()
        other = b.session()
        settle(b, there={"ann": 1})
        other.room("lobby").leave()
        b.rooms.watched_processes()
        return is_given

    monkeypatch.setattr(link, "take_seat", take_seat)
    session = b.world.member(of=b.rooms).session
    assert session.room("lobby").join(max_members=5).joined
    assert b.there() == {"ann": 1}
    assert b.rooms.watched_processes()
    session.room("lobby").leave()
    b.rooms.watched_processes()
    assert not b.rooms.roster._states.get("lobby")


def test_a_second_tab_in_another_process_is_no_join_and_its_end_no_leave(workers):
    a, b = workers
    here = b.person("bob")
    first = a.person("ann", 1)
    settle(b, there={"bob": None, "ann": 1})
    since = {person.key: person.since for person in a.rooms.room("lobby").presence()}
    told(b, ("joined", "bob", None), ("joined", "ann", 1))
    second = b.person("ann", 2)
    settle(a, b, there={"bob": None, "ann": 2})
    assert a.sessions() == b.sessions() == {"bob": 1, "ann": 2}
    assert {person.key: person.since for person in b.rooms.room("lobby").presence()} == since
    told(b, ("changed", "ann", 2))
    a.end(first)
    wait_until(lambda: b.sessions() == {"bob": 1, "ann": 1})
    b.end(second)
    settle(b, there={"bob": None})
    told(b, ("left", "ann", 2))
    b.end(here)


def test_a_reload_onto_another_process_is_no_leave(workers):
    a, b = workers
    b.person("bob")
    ann = a.person("ann", 1)
    settle(b, there={"bob": None, "ann": 1})
    told(b, ("joined", "bob", None), ("joined", "ann", 1))
    a.end(ann, is_lost=True)
    wait_until(lambda: b.sessions() == {"bob": 1, "ann": 0}, "the loss")
    b.person("ann", 1)
    wait_until(lambda: b.sessions() == {"bob": 1, "ann": 1}, "the return")
    a.end_grace()
    wait_until(lambda: not a.rooms.roster.names(), "the end of the grace")
    threading.Event().wait(3 * INTERVAL_S)
    assert b.there() == {"bob": None, "ann": 1}
    assert b.told == []


def test_a_lost_connection_is_a_leave_after_the_grace(workers):
    a, b = workers
    b.person("bob")
    ann = a.person("ann", 1)
    settle(b, there={"bob": None, "ann": 1})
    a.end(ann, is_lost=True)
    wait_until(lambda: b.sessions() == {"bob": 1, "ann": 0}, "the loss")
    told(b, ("joined", "bob", None), ("joined", "ann", 1))
    a.end_grace()
    settle(b, there={"bob": None})
    told(b, ("left", "ann", 1))


def test_joined_and_left_at_once_is_nothing(workers):
    a, b = workers
    b.person("bob")
    told(b, ("joined", "bob", None))
    a.session("cecil")
    for _ in range(20):
        ann = a.person("ann", 1)
        a.end(ann)
    dora = a.person("dora")
    settle(b, there={"bob": None, "dora": None})
    assert dora.is_open()
    wait_until(lambda: ("joined", "dora", None) in b.told)
    mine = [what for what, key, _ in b.told if key == "ann"]
    assert mine.count("joined") == mine.count("left")


def test_a_room_that_begins_to_be_followed_has_everybody_who_is_there(workers):
    a, b = workers
    for n in range(300):
        a.person(f"user {n}", n)
    late = b.session("late")
    assert len(b.there()) == 300, "when join returns"
    late.room("lobby").set_presence(0)
    told(b, ("joined", "late", 0))
    late.room("lobby").leave()
    wait_until(lambda: b.rooms.roster.names() == [], "nothing is kept of a room without members")


def test_a_process_without_members_and_a_program_ask_redis(workers, redis_server):
    a, b = workers
    ann = a.person("ann", {"x": 1})
    broker = RedisBroker(redis_server.url, prefix=a.rooms._link._keys._prefix)
    settle(b, there={"ann": {"x": 1}})
    (person,) = broker.room("/ws/test", "lobby").presence()
    assert (person.key, person.user, person.presence, person.sessions) == ("ann", "ann", {"x": 1}, 1)
    assert person.since == a.rooms.room("lobby").presence()[0].since
    a.end(ann, is_lost=True)
    wait_until(lambda: b.sessions() == {"ann": 0}, "the loss")
    a.end_grace()
    settle(b, there={})
    assert broker.room("/ws/test", "lobby").presence() == []
    broker.close()


def test_a_presence_precedes_what_the_session_broadcasts_then(workers):
    a, b = workers
    listener = b.world.member("lobby", of=b.rooms)
    ann = a.session("ann")
    for n in range(50):
        ann.room("lobby").set_presence(n)
        ann.room("lobby").broadcast(f"{n}")
        assert listener.receive(1) == [f"{n}"]
        assert b.there()["ann"] >= n


@pytest.mark.parametrize("dies", ["killed", "cut off"])
def test_the_members_of_a_process_that_dies_leave_once(make, redis_server, quick, dies):
    world = make(redis_server.url, processes=3)
    a, b, c = world.workers
    for worker, name in ((a, "ann"), (b, "bob"), (c, "cecil")):
        worker.person(name)
    settle(a, b, c, there=dict.fromkeys(["ann", "bob", "cecil"]))
    for worker in (b, c):
        wait_until(lambda worker=worker: len(worker.told) == (2 if worker is b else 1))
        worker.told.clear()
    address = world.links[0]._keys.address("/ws/test", "lobby")
    before = redis_server.client.xlen(address.log)
    world.kill(a)
    redis_server.client.zrem(world.links[0]._keys.processes(address.shard), world.links[0].process)  # as after 7 s
    settle(b, c, there=dict.fromkeys(["bob", "cecil"]))
    told(b, ("left", "ann", None))
    told(c, ("left", "ann", None))
    threading.Event().wait(2.5)
    assert redis_server.client.xlen(address.log) == before + 1, "it was published once"
    assert len(redis_server.client.hgetall(address.presence)) <= 5


def test_a_process_that_was_taken_for_dead_comes_back(workers, redis_server, quick):
    a, b = workers
    a.person("ann", 1)
    b.person("bob")
    settle(a, b, there={"ann": 1, "bob": None})
    link = a.rooms._link
    address = link._keys.address("/ws/test", "lobby")
    script = writer.scripts.REAP
    keys = link._writer._presences.keys_of(address)
    redis_server.client.zrem(keys[3], link.process)
    redis_server.client.eval(script, 4, *keys, address.channel, "epoch", link.process)
    wait_until(lambda: ("left", "ann", 1) in b.told or b.there() == {"bob": None, "ann": 1})
    settle(a, b, there={"ann": 1, "bob": None})
    assert a.rooms.room("lobby").presence()[0].key == "ann"


def test_a_process_that_ends_well_leaves_those_whose_connection_it_has_lost_for_their_grace(make, redis_server, quick):
    world = make(redis_server.url, grace_s=2.0)
    a, b = world.workers
    b.person("bob")
    ann, dora = a.person("ann", 1), a.person("dora", 2)
    wait_until(lambda: len(b.told) == 3, "they have joined")
    b.told.clear()
    a.end(ann, is_lost=True)
    a.end(dora)
    world.links[0].stop(5)
    wait_until(lambda: b.sessions() == {"bob": 1, "ann": 0}, "the loss, and the leave")
    told(b, ("left", "dora", 2))
    settle(b, there={"bob": None})
    told(b, ("left", "ann", 1))


@pytest.mark.parametrize("how", ["freeze", "kill", "flush", "disconnect", "script flush"])
def test_after_an_outage_everybody_is_there_and_nobody_was_told_otherwise(make, redis, how, impatient):
    a, b = make(redis.url).workers
    a.person("ann", 1)
    bob = b.person("bob", 1)
    settle(a, b, there={"ann": 1, "bob": 1})
    wait_until(lambda: len(a.told) == 2)
    a.told.clear()
    b.told.clear()
    impatient()
    if how == "freeze":
        redis.freeze()
    elif how == "kill":
        redis.kill()
    elif how == "flush":
        redis.client.flushall()
    elif how == "script flush":
        redis.client.script_flush()
    else:
        for kind in ("pubsub", "normal"):
            redis.client.client_kill_filter(_type=kind, skipme=True)
    cecil = a.person("cecil", 2)
    bob.room("lobby").set_presence(2)
    assert a.there()["cecil"] == 2
    assert b.there()["bob"] == 2
    if how == "freeze":
        threading.Event().wait(4)
        redis.thaw()
    elif how == "kill":
        threading.Event().wait(1)
        redis.start()
    settle(a, b, there={"ann": 1, "bob": 2, "cecil": 2})
    threading.Event().wait(2.5)
    assert not [each for each in a.told + b.told if each[0] == "left"]
    a.end(cecil)
    settle(a, b, there={"ann": 1, "bob": 2})


def test_who_left_while_redis_lost_its_data_leaves_in_the_end(make, redis, monkeypatch):
    monkeypatch.setattr(shared_presence, "CONFIRM_S", 3.0)
    world = make(redis.url)
    a, b = world.workers
    ann = a.person("ann", 1)
    b.person("bob", 1)
    settle(a, b, there={"ann": 1, "bob": 1})
    redis.kill()
    a.end(ann)
    redis.start()
    wait_until(lambda: not world.links[1]._writer._queue and world.links[1]._availability.answers, "the return")
    settle(b, there={"bob": 1})
    wait_until(lambda: [each for each in b.told if each[0] == "left"] == [("left", "ann", 1)])


def test_a_stale_call_that_redis_gets_late_changes_nothing(workers, redis_server):
    a, _ = workers
    ann = a.person("ann", 1)
    link = a.rooms._link
    address = link._keys.address("/ws/test", "lobby")
    wait_until(lambda: redis_server.client.hlen(address.presence) == 2)
    keys = link._writer._presences.keys_of(address)
    ticket = link._writer._presences._calls
    late = [address.channel, "epoch", link.process, ticket, 0, ann.id, b"[99999999999999999]", ""]
    ann.room("lobby").leave()
    wait_until(lambda: redis_server.client.hlen(address.presence) == 1)
    redis_server.client.eval(writer.scripts.PRESENCE, 4, *keys, *late)
    assert redis_server.client.hlen(address.presence) == 1


def test_a_storm_of_joins_and_leaves_ends_the_same_everywhere(workers):
    a, b = workers
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    b.session("listener")
    a.session("listener")
    sessions = []
    for n in range(400):
        worker = dice.choice(workers)
        if sessions and dice.random() < 0.4:
            of, session = sessions.pop(dice.randrange(len(sessions)))
            of.end(session, is_lost=dice.random() < 0.3)
        elif sessions and dice.random() < 0.3:
            _, session = dice.choice(sessions)
            session.room("lobby").set_presence(n)
        else:
            sessions.append((worker, worker.person(f"user {dice.randrange(50)}", n)))
    expected = {session.user for _, session in sessions}
    for worker in workers:
        worker.end_grace()
    for worker in workers:
        wait_until(lambda worker=worker: worker.known().keys() == expected, "the same everywhere")
    wait_until(lambda: a.known() == b.known())
    for worker in workers:
        state = {}
        for what, key, value in worker.told:
            assert (what == "joined") == (key not in state), (what, key)
            if what == "left":
                assert state.pop(key) is not None
            else:
                state[key] = value if value is not None else 0
        wait_until(lambda worker=worker: worker.rooms.roster.settle(5))
        worker.rooms.roster._check()


def test_a_roster_that_has_ended_starts_no_thread_for_what_others_do(make, redis_server):
    world = make(redis_server.url)
    a, b = world.workers
    b.person("bob")
    told(b, ("joined", "bob", None))
    b.rooms.roster.stop(DEADLINE_S)
    a.person("ann")
    settle(b, there={"bob": None, "ann": None})
    threading.Event().wait(3 * INTERVAL_S)
    assert b.told == []
    assert b.rooms.roster._reports._thread._thread is None


def test_a_presence_costs_what_the_page_says(workers, redis_server):
    """docs/explanation/redis.rst: bytes in Redis for each presence."""
    a, _ = workers
    for n in range(1000):
        a.person(f"user-{n:05}", {"status": "here", "n": n})
    address = a.rooms._link._keys.address("/ws/test", "lobby")
    wait_until(lambda: redis_server.client.hlen(address.presence) == 1001)
    assert redis_server.client.memory_usage(address.presence, samples=0) / 1000 < 400
    print(redis_server.client.memory_usage(address.presence, samples=0) / 1000)


def test_who_is_not_confirmed_yet_stays_when_the_room_is_read_again(workers):
    """A reader that makes two connections after Redis has lost its data reads the new log twice."""
    a, b = workers
    a.session("listener")
    b.person("bob", 1)
    settle(a, there={"bob": 1})
    bob = b.rooms.roster.own_presences("lobby", None)[0][1]
    a.rooms.roster.take_all("lobby", [], is_first=False, is_surely=False)
    a.rooms.roster.take_all("lobby", [], is_first=False, is_surely=True)
    assert a.there() == {"bob": 1}
    a.rooms.roster.take("lobby", bob._replace(process=b.rooms._link.process))
    a.rooms.roster.take_all("lobby", [], is_first=False, is_surely=True)
    assert a.there() == {}, "once it was confirmed, a list without it counts"


HANDLER = """
import json

def on_handshake(request):
    request.user = request.get_parameter("name")

def on_open(session):
    session.room("lobby").join(presence=session.user)

def on_presence(room, changes):
    return json.dumps([[person.key for person in some] for some in (changes.joined, changes.left)])
"""

#: A worker that was killed is gone after this time, which is the promise.
GONE_S = 10.0


def told_in(client, seconds):
    """Who joined and who left, as a client is told it in this time."""
    joined, left, deadline = [], [], time.monotonic() + seconds
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            changes = json.loads(client.recv(timeout=left_s))
        except TimeoutError:
            break
        joined += changes[0]
        left += changes[1]
    return joined, left


def await_joined(client, name):
    """Wait until a client is told that somebody has joined."""
    while name not in json.loads(receive(client))[0]:
        pass


@pytest.mark.quiet  # it is noticed after 7 to 9 s of the 10 s
def test_the_members_of_a_worker_that_is_killed_leave_once_in_time(redis, tmp_path):
    (tmp_path / "chat.py").write_text(HANDLER)
    options = ("chat.py", "--redis", redis.url)
    with (
        ExitStack() as stack,
        run_server(*options, cwd=tmp_path) as first,
        run_server(*options, cwd=tmp_path) as second,
        connect(first.ws_url + "/ws/chat?name=ann") as ann,
        connect(second.ws_url + "/ws/chat?name=bob") as bob,
    ):
        await_joined(ann, "ann")
        await_joined(bob, "bob")  # whoever joins from now on is news for bob
        cecil = stack.enter_context(connect(second.ws_url + "/ws/chat?name=cecil"))
        await_joined(bob, "cecil")
        os.kill(first.process.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        left = []
        while "ann" not in left:
            left += json.loads(receive(bob))[1]
        assert time.monotonic() - killed_at < GONE_S
        assert told_in(bob, 3.0) == ([], []), "once"
        assert told_in(cecil, 0.1)[1] == ["ann"]


class Announcer:
    def on_open(self, session):
        session.room("lobby").join(presence=0)

    def on_message(self, session, message):
        session.room("lobby").set_presence(message)

    def on_presence(self, room, changes):
        room.broadcast("first")
        return "second"


def test_what_on_presence_returns_comes_after_what_it_has_broadcast(redis_server):
    app = WebSocketApp(redis=redis_server.url, presence_interval_s=INTERVAL_S)
    app.add_handler("/ws/test", Announcer)
    with live_server(app) as server, connect(f"{server.ws_url}/ws/test") as client:
        assert [client.recv(DEADLINE_S), client.recv(DEADLINE_S)] == ["first", "second"]
        for value in range(10):
            client.send(str(value))
            assert [client.recv(DEADLINE_S), client.recv(DEADLINE_S)] == ["first", "second"]
