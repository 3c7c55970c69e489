"""Presence and the end of a session: which ends are a lost connection, and what a handler is told over real sockets."""

import json
import threading
from contextvars import ContextVar
from dataclasses import asdict

import pytest

from tests.programs import DEADLINE_S, connect, own_threads, receive, wait_until
from tests.wire import CLOSE, RawClient, close_payload, endpoint
from wsthreads.testing.timers import ManualTimers

KEYS = ("joined", "left", "changed")


class Lobby:
    """Everybody is there with a name; `on_presence` tells the members who has come and gone."""

    def __init__(self):
        self.changes = []
        self.rooms = []
        self.closed = threading.Event()
        self.threads = set()

    def on_open(self, session):
        session.room("lobby").join(presence=session.get_parameter("name"))
        session.send("welcome")

    def on_message(self, session, message):
        if message == "fail":
            raise SystemExit
        if message.startswith("close "):
            session.close(int(message.removeprefix("close ")))
        elif message.startswith("set "):
            session.room("lobby").set_presence(message.removeprefix("set "))

    def on_close(self, session):
        self.closed.set()

    def on_presence(self, room, changes):
        self.threads.add(threading.current_thread().name)
        self.rooms.append(room)
        self.changes.append(changes)
        return json.dumps({key: [person["presence"] for person in asdict(changes)[key]] for key in KEYS})


class World:
    def __init__(self, app, port, handler):
        self.app, self.port, self.handler = app, port, handler
        self.endpoint = app.endpoint("/ws/test")
        self.timers = self.endpoint.roster.timers = ManualTimers()
        self.room = self.endpoint.room("lobby")

    def join(self, name):
        client = RawClient(self.port, f"/ws/test?name={name}")
        assert client.receive_text() == "welcome"
        return client

    def names(self):
        return [person.presence for person in self.room.presence()]

    def advance(self, seconds=0.2):
        self.timers.advance(seconds, between=lambda: self.endpoint.roster.settle(DEADLINE_S))

    def wait_gone(self):
        """Until one of two sessions has ended."""
        wait_until(lambda: self.endpoint.session_count() == 1 and self.room.members() == 1)


@pytest.fixture
def world():
    handler = Lobby()
    with endpoint(handler, close_timeout_s=0.3) as (app, port):
        yield World(app, port, handler)


def leave(world, client, how):
    if how == "tcp":
        client.sock.close()
    elif how == "kick 1012":
        client.text("close 1012")
        while client.receive()[0] != CLOSE:
            pass
        client.send(CLOSE, close_payload(1012))
    elif how == "cut off":
        session = next(s for s in world.endpoint.sessions() if s.get_parameter("name") == "ann")
        world.endpoint.live()[session].channel.begin_close(1011, "server error")
        client.sock.close()
    else:
        client.send(CLOSE, close_payload(how) if how else b"")


@pytest.mark.parametrize("how", ["tcp", 1001, 1011, 1012, 1013, "cut off"])
def test_a_lost_connection_is_a_leave_only_after_the_grace(world, how):
    with world.join("bob"), world.join("ann") as ann:
        world.advance()
        assert sorted(person.presence for person in world.handler.changes[0].joined) == ["ann", "bob"]
        leave(world, ann, how)
        world.wait_gone()
        assert world.names() == ["bob", "ann"]
        world.advance(9.9)
        assert len(world.handler.changes) == 1
        world.advance(1)
        (person,) = world.handler.changes[1].left
        assert (person.presence, person.sessions) == ("ann", 0)
        assert world.names() == ["bob"]


@pytest.mark.parametrize("how", [None, 1000, 1008, 3000, 4999, "kick 1012"])
def test_a_clean_end_is_a_leave_at_once(world, how):
    with world.join("bob"), world.join("ann") as ann:
        world.advance()
        leave(world, ann, how)
        world.wait_gone()
        assert world.names() == ["bob"]
        world.advance()
        assert [person.presence for person in world.handler.changes[1].left] == ["ann"]


def test_the_members_get_what_on_presence_returns_and_its_room_is_a_handle(world):
    with world.join("ann") as ann, world.join("bob") as bob:
        world.advance()
        expected = {"joined": ["ann", "bob"], "left": [], "changed": []}
        for client in (ann, bob):
            assert json.loads(client.receive_text()) == expected
        bob.text("set busy")
        wait_until(lambda: "busy" in world.names())
        world.advance()
        assert json.loads(ann.receive_text()) == {"joined": [], "left": [], "changed": ["busy"]}
        room = world.handler.rooms[0]
        assert (room.name, room.members()) == ("lobby", 2)
        assert world.handler.threads == {"wsthreads-presence"}


def test_while_on_close_runs_the_person_is_still_there():
    seen = []

    class Handler(Lobby):
        def on_close(self, session):
            seen.append([person.presence for person in session.room("lobby").presence()])
            session.room("lobby").set_presence("late")
            super().on_close(session)

    handler = Handler()
    with endpoint(handler) as (app, port):
        world = World(app, port, handler)
        with world.join("ann") as ann:
            ann.send(CLOSE, close_payload(1000))
            assert handler.closed.wait(DEADLINE_S)
        wait_until(lambda: not world.endpoint.session_count())
        assert seen == [["ann"]]
        assert world.names() == []


def test_in_real_time_with_a_client_of_another_library():
    handler = Lobby()
    with endpoint(handler, presence_interval_s=0.01, presence_grace_s=0.01) as (_, port):
        url = f"ws://127.0.0.1:{port}/ws/test?name="
        with connect(f"{url}ann") as ann:
            told = [receive(ann), receive(ann)]
            told.remove("welcome")  # it may come second: the interval may end between the join and this message
            assert json.loads(told[0]) == {"joined": ["ann"], "left": [], "changed": []}
            bob = connect(f"{url}bob")
            assert json.loads(receive(ann)) == {"joined": ["bob"], "left": [], "changed": []}
            bob.socket.close()
            assert json.loads(receive(ann)) == {"joined": [], "left": ["bob"], "changed": []}
        assert own_threads("wsthreads-presence")
    wait_until(lambda: not own_threads("wsthreads-presence"))


def test_context_variables_end_with_the_call():
    user, seen = ContextVar("user", default="nobody"), []

    class Handler:
        def on_open(self, session):
            session.room(session.get_parameter("room")).join(presence=1)

        def on_presence(self, room, changes):
            seen.append(user.get())
            user.set(room.name)

    with endpoint(Handler()) as (_, port):
        for number in (1, 2):
            with RawClient(port, f"/ws/test?room={number}"):
                wait_until(lambda number=number: len(seen) >= number)
    assert set(seen) == {"nobody"}


def test_without_presence_nothing_is_kept_and_no_thread_runs():
    class Handler:
        def on_open(self, session):
            session.room("lobby").join()
            session.send("welcome")

        def on_presence(self, room, changes):
            raise AssertionError

    with endpoint(Handler()) as (app, port):
        roster = app.endpoint("/ws/test").roster
        for _ in range(3):
            with RawClient(port) as client:
                client.receive_text()
        wait_until(lambda: not app.session_count)
        assert not roster.is_used
        assert roster.names() == []
        assert not own_threads("wsthreads-presence")
