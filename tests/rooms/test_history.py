"""Histories in one process: how long they live; and in servers: compression, slow clients, forks, reloads."""

import gc
import os
import traceback
import weakref

import pytest

from tests.programs import connect, receive, wait_until
from tests.room_worlds import World, be_patient
from tests.wire import RawClient, endpoint
from wsthreads import BrokerError
from wsthreads.rooms.histories import Histories
from wsthreads.rooms.history import Limits
from wsthreads.rooms.rooms import Rooms
from wsthreads.testing import play
from wsthreads.testing.timers import ManualTimers
from wsthreads.threads.drainer import Drainer

LIMITS = Limits(messages=50, seconds=300.0, bytes=2**20)


class Clocked:
    """A world whose clock is moved by the test."""

    def __init__(self, limits=LIMITS):
        self.world = World(limits)
        self.timers = self.world.rooms.history.timers = ManualTimers()
        self.rooms = self.world.rooms

    def move(self, seconds):
        self.timers.advance(seconds)
        self.rooms._check()

    def logs(self):
        return sorted(self.rooms.history._logs.snapshot())


@pytest.fixture
def clocked():
    clocked = Clocked()
    yield clocked
    clocked.world.end()


def test_a_message_lives_for_its_time_and_no_longer(clocked):
    room = clocked.rooms.room("lobby")
    room.broadcast("1")
    clocked.move(200)
    room.broadcast("2")
    clocked.move(99.9)
    assert room.history(50) == ["1", "2"]
    clocked.move(0.1)
    assert room.history(50) == ["2"]
    clocked.move(200)
    assert room.history(50) == []


def test_a_log_without_members_is_dropped_after_its_time_without_use(clocked):
    member = clocked.world.member("occupied")
    for name in ("idle", "used", "occupied"):
        clocked.rooms.room(name).broadcast("x")
    positions = {name: clocked.rooms.room(name).position() for name in ("idle", "used", "occupied")}
    for _ in range(20):
        clocked.move(50)
        clocked.rooms.room("used").position()
    assert clocked.logs() == ["occupied", "used"]
    assert clocked.rooms.room("idle").position() != positions["idle"]
    assert clocked.rooms.room("used").position() == positions["used"]
    assert clocked.rooms.room("occupied").position() == positions["occupied"]
    member.session.room("occupied").leave()
    clocked.move(1000)
    assert clocked.logs() == []
    assert not clocked.timers._timers, "nothing is looked for any more"


def test_an_old_message_takes_no_memory_in_a_room_that_is_never_asked(clocked):
    clocked.world.member("lobby")
    clocked.rooms.room("lobby").broadcast("x")
    clocked.move(400)
    assert len(clocked.rooms.history._logs.get("lobby")._entries) == 0
    assert clocked.rooms.history.sizes() == {}


def test_sizes_are_those_of_the_rooms_with_messages(clocked):
    clocked.rooms.room("empty").position()
    clocked.rooms.room("lobby").broadcast("x" * 10)
    clocked.move(2)
    clocked.rooms.room("lobby").broadcast("ü")
    clocked.move(3)
    assert clocked.rooms.history.sizes() == {"lobby": (2, 12, 3.0)}


def test_without_history_nothing_is_made_for_a_broadcast():
    rooms = Rooms(Drainer(), max_name_chars=9, max_per_session=9)
    rooms.use_history(ManualTimers(), LIMITS._replace(messages=0))
    assert rooms.history is None


def test_rooms_with_a_history_are_freed_with_their_app():
    world = World(LIMITS)
    world.member("lobby")
    world.rooms.room("lobby").broadcast("x")
    history = weakref.ref(world.rooms.history)
    world.end()
    del world
    gc.collect()
    assert history() is None


def test_play_moves_the_clock_of_the_history():
    class Handler:
        def on_open(self, session):
            session.room("lobby").join(history=5)

        def on_message(self, session, message):
            session.room("lobby").broadcast(message)

    with play(Handler(), history_messages=5) as room:
        a = room.connect()
        a.send("1")
        assert a.take() == ["1"]
        room.advance(299)
        assert room.connect().take() == ["1"]
        room.advance(1)
        assert room.connect().take() == []


# In servers


class Chat:
    def on_open(self, session):
        joined = session.room("lobby").join(history=50, since=session.get_parameter("since"))
        session.send(f"joined {joined.complete}")

    def on_message(self, session, message):
        session.room("lobby").broadcast(message)


def test_a_client_with_compression_gets_the_same_as_one_without():
    text = "compress me " * 40
    with endpoint(Chat(), history_messages=50, compression=True) as (app, port):
        room = app.endpoint("/ws/test").room("lobby")
        for n in range(20):
            room.broadcast(f"{n} {text}")
        wanted = [f"{n} {text}" for n in range(20)] + ["joined True"]
        for compression in ("deflate", None, "deflate"):
            with connect(f"ws://127.0.0.1:{port}/ws/test", compression=compression) as client:
                assert [receive(client) for _ in wanted] == wanted
                room.broadcast(f"live {text}", keep=False)
                assert receive(client) == f"live {text}"


def test_a_slow_client_may_join_with_more_than_its_outbox_holds():
    """It reads nothing while it joins, and while others speak; then everything is there."""
    with endpoint(Chat(), history_messages=50, max_history_bytes=8 * 2**20, max_outbox_bytes=100_000) as (app, port):
        room = app.endpoint("/ws/test").room("lobby")
        for n in range(40):
            room.broadcast(f"{n}" + "x" * 200_000)
        with RawClient(port, receive_buffer=4096) as client:
            wait_until(lambda: room.members() == 1)
            for n in range(10):
                room.broadcast(f"live {n}")
            for n in range(40):
                assert client.receive_text() == f"{n}" + "x" * 200_000
            wanted = {"joined True", *(f"live {n}" for n in range(10))}
            assert {client.receive_text() for _ in wanted} == wanted


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_forked_process_says_that_it_has_no_history_or_asks_redis(is_shared, request, monkeypatch):
    be_patient(monkeypatch)

    def work(room):
        if is_shared:
            assert room.history(5) == ["from the parent"]
            assert room.position() == position
            room.broadcast("from the child")
            assert room.history(5) == ["from the parent", "from the child"]
            return
        for call in (lambda: room.history(5), room.position, lambda: room.broadcast("x")):
            with pytest.raises(BrokerError, match="forked from a server"):
                call()

    settings = {"redis": request.getfixturevalue("redis_server").url} if is_shared else {}
    with endpoint(Chat(), history_messages=50, **settings) as (app, port), RawClient(port) as client:
        assert client.receive_text() == "joined True"
        room = app.endpoint("/ws/test").room("lobby")
        room.broadcast("from the parent")
        assert client.receive_text() == "from the parent"
        position = room.position()
        child = os.fork()
        if child == 0:
            try:
                work(room)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        if is_shared:
            assert client.receive_text() == "from the child"
        room.broadcast("on")
        assert client.receive_text() == "on"
        assert room.history(1) == ["on"]


def test_a_reload_of_a_script_keeps_the_history(tmp_path):
    script = tmp_path / "chat.js"
    source = """
    export function onOpen(session) {
      const { complete } = session.room("lobby").join({ history: 5, since: session.getParameter("since") });
      session.send(`VERSION ${complete} ${session.room("lobby").position()}`);
    }
    export function onMessage(session, message) { session.room("lobby").broadcast(message); }
    """
    script.write_text(source.replace("VERSION", "old"))
    with play(script, history_messages=5) as chat:
        a = chat.connect()
        ((version, _, position),) = [text.split() for text in a.take()]
        assert version == "old"
        a.send("1")
        assert a.take() == ["1"]
        script.write_text(source.replace("VERSION", "new"))
        chat.reload()
        a.send("2")
        assert a.take() == ["2"]
        *texts, told = chat.connect({"since": position}).take()
        assert texts == ["1", "2"]
        assert told.startswith("new true ")


def test_logs_of_a_process_without_sessions_are_dropped_too():
    """There, no timer runs."""

    class NoTimers:
        seconds = 0.0

        def now(self):
            return self.seconds

        def call_later(self, delay_s, callback):
            pass

    timers = NoTimers()
    histories = Histories(timers, Limits(10, 60.0, 1000), has_members=lambda name: False)
    for number in range(1000):
        timers.seconds += 1
        histories.log(f"room {number}")
    assert len(histories._logs) < 300
