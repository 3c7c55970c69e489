"""The functions of a Python handler for rooms that have an owner."""

from __future__ import annotations

import gc
import logging
import math
import os
import threading
import types
import weakref
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.programs import DEADLINE_S, connect, own_threads, receive, wait_until
from wsthreads import HandlerError, Sender, WebSocketApp
from wsthreads.monitoring.metrics import Metrics
from wsthreads.rooms.mailboxes import Mailbox, RoomCall
from wsthreads.rooms.posts import Post
from wsthreads.sessions.handlers import PythonHandler
from wsthreads.sessions.hooks import ROOM_HOOKS
from wsthreads.testing import play

ROOM: Any = types.SimpleNamespace(name="lobby", fencing_number=7)


def handler(**functions: Any) -> PythonHandler:
    return PythonHandler(types.SimpleNamespace(**functions), Metrics())


class Owner:
    """In place of an `Ownership`."""

    def __init__(self, *, may_run: bool = True) -> None:
        self.may_run = may_run
        self.log: list[Any] = []

    def check_call(self, call: RoomCall) -> bool:
        self.log.append("begin")
        return self.may_run

    def begin_call(self, call: RoomCall) -> None:
        assert self.may_run

    def end_call(self, call: RoomCall, failure: str | None) -> None:
        self.log.append(("end", failure))


def call(kind: Any, owner: Owner, **values: Any) -> RoomCall:
    mailbox = Mailbox("lobby", owner)
    mailbox.begin(ROOM, 7)
    made = RoomCall(owner, mailbox, kind, Post(values.pop("value"), values.pop("sender"), list) if values else None)
    made.dt = 0.05
    return made


@pytest.mark.parametrize("rate", [0, 61, -1, math.nan, math.inf, "fast", True, [20], 10**300])
def test_a_tick_rate_that_is_none_is_an_error_that_names_it(rate: Any) -> None:
    with pytest.raises(
        HandlerError, match=r"tick_rate must be a number of ticks a second from 1 to 60, not "
    ) as caught:
        handler(tick_rate=rate, on_tick=lambda room, dt: None)
    assert caught.value.about == "tick_rate"
    assert len(str(caught.value)) < 200


def test_a_tick_rate_is_kept_as_a_number() -> None:
    assert handler(tick_rate=20, on_tick=lambda room, dt: None).tick_rate == 20.0
    assert handler(on_open=lambda session: None).tick_rate is None


def test_each_function_gets_its_arguments() -> None:
    seen: list[Any] = []
    functions = {hook: lambda *values, hook=hook: seen.append((hook, *values)) for hook in ROOM_HOOKS}
    it, owner = handler(tick_rate=20, **functions), Owner()
    it.call_rooms([call("room_start", owner)])
    sender = Sender("id", "ann")
    it.call_rooms([call("post", owner, value='{"a":[1]}', sender=sender), call("post", owner, value="2", sender=None)])
    it.call_rooms([call("tick", owner), call("room_end", owner)])
    assert seen == [
        ("on_room_start", ROOM),
        ("on_post", ROOM, {"a": [1]}, sender),
        ("on_post", ROOM, 2, None),
        ("on_tick", ROOM, 0.05),
        ("on_room_end", ROOM),
    ]
    assert owner.log == ["begin", ("end", None)] * 5


def test_a_missing_function_is_done_at_once() -> None:
    owner = Owner()
    handler(on_open=lambda session: None).call_rooms(
        [call("room_start", owner), call("post", owner, value="1", sender=None)]
    )
    assert owner.log == [("end", None)] * 2


def test_what_may_not_run_does_not() -> None:
    owner, seen = Owner(may_run=False), []
    handler(tick_rate=20, on_tick=lambda room, dt: seen.append(dt)).call_rooms([call("tick", owner)])
    assert seen == []
    assert owner.log == ["begin", ("end", None)]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_exception_is_logged_counted_and_ends_its_call(error: Any, caplog: Any) -> None:
    failures: list[Any] = []

    def on_tick(room: Any, dt: float) -> None:
        raise error("on purpose")

    it, owner = handler(tick_rate=20, on_tick=on_tick), Owner()
    it.on_failure = failures.append
    it.endpoint_path = "/ws/game"
    it.call_rooms([call("tick", owner), call("tick", owner)])
    assert owner.log == ["begin", ("end", "failed")] * 2
    assert it._metrics.snapshot() == {"handler_errors": 2}
    assert [type(failure) for failure in failures] == [error] * 2
    assert "SimpleNamespace.on_tick failed in room 'lobby'" in caplog.text
    assert caplog.records[0].endpoint == "/ws/game"


def test_what_returns_a_coroutine_has_not_run(caplog: Any) -> None:
    async def hidden(room: Any, dt: float) -> None:
        """Never runs."""

    it, owner = handler(tick_rate=20, on_tick=lambda room, dt: hidden(room, dt)), Owner()
    it.call_rooms([call("tick", owner), call("tick", owner)])
    assert owner.log == ["begin", ("end", "failed")] * 2
    assert len([record for record in caplog.records if "whose body never runs" in record.getMessage()]) == 1


class Game:
    """Counts on the server, and ends in the last room."""

    tick_rate = 60

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.pids: set[int] = set()
        self.children: list[int] = []
        self.threads: set[str] = set()
        self.counts: dict[str, int] = {}

    def on_open(self, session: Any) -> None:
        session.room("lobby").join()

    def on_message(self, session: Any, message: Any) -> None:
        session.room("lobby").post(message)
        session.send(f"posted {message}")

    def on_room_start(self, room: Any) -> None:
        self.threads.add(threading.current_thread().name)
        self.counts[room.name] = 0

    def on_post(self, room: Any, value: Any, sender: Any) -> None:
        if value == "fork":
            self.pids.add(os.getpid())
            child = os.fork()
            if child == 0:
                return  # the process that was forked ends here
            self.children.append(child)
        room.broadcast(f"{sender.id[:0]}got {value}")

    def on_tick(self, room: Any, dt: float) -> None:
        self.counts[room.name] += 1
        if self.counts[room.name] == 3:
            room.broadcast("three ticks")

    def on_room_end(self, room: Any) -> None:
        self.ended.set()


def test_a_game_on_a_real_server(serve: Any) -> None:
    app, game = WebSocketApp(redis=False), Game()
    app.add_handler("/ws/game", game)
    server = serve(app)
    with connect(f"{server.ws_url}/ws/game") as ann:
        assert receive(ann) == "three ticks"
        ann.send("hello")
        assert [receive(ann), receive(ann)] == ["got hello", "posted hello"]
        assert not game.ended.is_set()
    assert game.ended.wait(DEADLINE_S)
    assert game.threads <= {f"wsthreads-rooms-{nth}" for nth in range(1, 5)}
    assert app.metrics.snapshot()["posts"] == 1
    assert app.endpoints[0].totals().handler_seconds["on_tick"].count >= 3


def test_a_function_may_close_its_room_and_its_members(serve: Any) -> None:
    class Closing(Game):
        def on_tick(self, room: Any, dt: float) -> None:
            """Says nothing: one of the two might come too late for it."""

        def on_post(self, room: Any, value: Any, sender: Any) -> None:
            if value == "all":
                room.broadcast("goodbye")
                room.close(4000, "all")
            else:
                app.endpoint("/ws/game").session(sender.id).close(4001, "you")

        def on_message(self, session: Any, message: Any) -> None:
            session.room("lobby").post(message)

    app, game = WebSocketApp(redis=False), Closing()
    app.add_handler("/ws/game", game)
    server = serve(app)
    with connect(f"{server.ws_url}/ws/game") as ann, connect(f"{server.ws_url}/ws/game") as bob:
        ann.send("me")
        with pytest.raises(ConnectionClosed) as closed:
            receive(ann)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "you")
        bob.send("all")
        assert receive(bob) == "goodbye"
        with pytest.raises(ConnectionClosed) as closed:
            receive(bob)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "all")
    assert game.ended.wait(DEADLINE_S)


def test_a_member_that_is_cut_off_ends_its_room(serve: Any) -> None:
    app, game = WebSocketApp(redis=False), Game()
    app.add_handler("/ws/game", game)
    server = serve(app)
    with connect(f"{server.ws_url}/ws/game") as ann:
        assert receive(ann) == "three ticks"
        assert app.cut_off() == 1
        assert game.ended.wait(DEADLINE_S)


def test_an_app_that_is_dropped_leaves_no_thread_of_its_rooms() -> None:
    before = set(threading.enumerate())

    def left() -> list[str]:
        return [thread.name for thread in set(threading.enumerate()) - before]

    app = WebSocketApp(redis=False)
    app.add_handler("/ws/game", Game())
    with play(app) as it:
        it.connect()
        it.advance(1)
        assert any(name.startswith("wsthreads-rooms") for name in left())
    reference = weakref.ref(app)
    del app, it
    wait_until(lambda: gc.collect() >= 0 and reference() is None, "only threads that end keep it")
    wait_until(lambda: not left(), "no thread is left")


def test_a_function_that_forks_leaves_the_other_process(serve: Any, monkeypatch: Any) -> None:
    app, game = WebSocketApp(redis=False), Game()
    app.add_handler("/ws/game", game)
    server = serve(app)
    with connect(f"{server.ws_url}/ws/game") as ann:
        assert receive(ann) == "three ticks"
        ann.send("fork")
        assert [receive(ann), receive(ann)] == ["got fork", "posted fork"]
        ann.send("again")
        assert [receive(ann), receive(ann)] == ["got again", "posted again"]
    (child,) = game.children
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert game.pids == {os.getpid()}


def test_a_shutdown_calls_on_room_end_while_its_broadcasts_still_work(serve: Any) -> None:
    game = Game()
    app = WebSocketApp(redis=False)
    app.add_handler("/ws/game", game)
    server = serve(app)
    with connect(f"{server.ws_url}/ws/game") as ann:
        assert receive(ann) == "three ticks"
        assert app.shutdown() == 0
        assert game.ended.is_set()
    assert not own_threads("wsthreads-rooms")


def test_a_shutdown_within_a_function_for_a_room_ends_everything(serve: Any, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    app, returned = WebSocketApp(redis=False), threading.Event()

    class Ending(Game):
        def on_post(self, room: Any, value: Any, sender: Any) -> None:
            assert app.shutdown(DEADLINE_S) == 0
            returned.set()

        def on_message(self, session: Any, message: Any) -> None:
            session.room("lobby").post(message, wait=False)

    game = Ending()
    app.add_handler("/ws/game", game)
    server = serve(app)
    with connect(f"{server.ws_url}/ws/game") as ann:
        ann.send("the end")
        assert returned.wait(DEADLINE_S)
        assert game.ended.wait(DEADLINE_S)
    wait_until(lambda: not own_threads("wsthreads-rooms"), "no thread of a room is left")
