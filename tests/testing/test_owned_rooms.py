"""`play` with a handler whose rooms have an owner: ticks without waiting, posts, starts and ends."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.pages import blocks
from tests.programs import DEADLINE_S, connect, wait_until
from wsthreads import PostError, UsageError, WebSocketApp
from wsthreads.testing import live_server, play


class Game:
    """Four seats would do; this one counts."""

    tick_rate = 20

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.calls: list[Any] = []

    def on_open(self, session: Any) -> None:
        session.room(session.get_parameter("room") or "lobby").join()

    def on_message(self, session: Any, message: Any) -> None:
        session.room("lobby").post(message)

    def on_room_start(self, room: Any) -> None:
        self.calls.append(("start", room.name))
        self.sums[room.name] = 0.0

    def on_post(self, room: Any, value: Any, sender: Any) -> None:
        self.calls.append((value, sender and sender.user))
        if value == "fail":
            raise ValueError("on purpose")

    def on_tick(self, room: Any, dt: float) -> None:
        self.sums[room.name] += dt
        room.broadcast(f"{self.sums[room.name]:.2f}")

    def on_room_end(self, room: Any) -> None:
        self.calls.append(("end", room.name))


def test_a_minute_of_ticks_needs_no_minute() -> None:
    game = Game()
    with play(game) as it:
        ann = it.connect()
        it.advance(60)
        assert len(ann.received) == 1200
        assert ann.received[:2] == ["0.05", "0.10"]
        assert ann.received[-1] == "60.00"
        bob = it.connect(room="other")
        it.advance(1)
        assert (len(ann.received), len(bob.received)) == (1220, 20)


def test_without_advance_nothing_ticks() -> None:
    with play(Game()) as it:
        ann = it.connect()
        assert not threading.Event().wait(0.15)
        assert ann.received == []
        it.advance(0.049)
        assert ann.received == []
        it.advance(0.001)
        assert ann.received == ["0.05"]


def test_starts_posts_and_ends_have_happened_when_a_call_returns() -> None:
    game = Game()
    with play(game) as it:
        ann = it.connect()
        assert game.calls == [("start", "lobby")]
        ann.send("hello")
        it.room("lobby").post({"a": 1})
        it.room("lobby").post("soon", wait=False)
        it.settle()
        ann.close()
        assert game.calls[1:] == [("hello", None), ({"a": 1}, None), ("soon", None), ("end", "lobby")]
        with pytest.raises(PostError, match="the room has no members"):
            it.room("lobby").post(1)
    with play(game) as it:
        it.connect()
    assert game.calls[-1] == ("end", "lobby"), "the end of a play is the end of its rooms"


def test_an_exception_of_a_room_is_raised_in_the_test() -> None:
    with play(Game()) as it:
        ann = it.connect()
        with pytest.raises(ValueError, match="on purpose"):
            ann.send("fail")
        it.advance(0.05)
        assert ann.received == ["0.05"]


def test_an_exception_of_a_post_without_a_session_is_raised_by_the_post() -> None:
    class Refuses:
        def on_open(self, session: Any) -> None:
            session.room("r").join()

        def on_post(self, room: Any, value: Any, sender: Any) -> None:
            raise ValueError(value)

    with play(Refuses) as game:
        game.connect()
        with pytest.raises(ValueError, match="not this"):
            game.room("r").post("not this")


def test_an_owner_answers_who_has_posted() -> None:
    class Echo:
        def on_open(self, session: Any) -> None:
            session.room("r").join()

        def on_message(self, session: Any, message: str) -> None:
            session.room("r").post(message)

        def on_post(self, room: Any, value: Any, sender: Any) -> None:
            room.endpoint.session(sender.id).send(f"got {value}")

    with play(Echo) as game:
        ann, bob = game.connect(), game.connect()
        ann.send("it")
        assert (ann.take(), bob.take()) == (["got it"], [])


def test_a_call_that_a_script_gets_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "script.js"
    source.write_text("""
      export function onMessage() {}
      export function onRoomStart(room) {
        for (const end = Date.now() + 50; Date.now() < end;);
        room.setAttribute("started", true);
      }""")
    with play(source) as it:
        ann = it.connect()
        handler = it.app.endpoints[0].handler
        settle, call_rooms = handler.settle, handler.call_rooms
        was_taken, has_settled = threading.Event(), threading.Event()

        def hand_over_late(calls: Any) -> None:
            was_taken.set()
            has_settled.wait(DEADLINE_S)
            call_rooms(calls)

        def settle_first(timeout_s: float) -> bool:
            is_done = settle(timeout_s)
            has_settled.set()
            return is_done

        monkeypatch.setattr(handler, "call_rooms", hand_over_late)
        monkeypatch.setattr(handler, "settle", settle_first)
        ann.session.room("r").join()
        assert was_taken.wait(DEADLINE_S)
        it.settle()
        assert it.room("r").get_attribute("started") is True


def test_posts_behind_a_tick_that_waits_are_handled_before_the_end() -> None:
    calls: list[Any] = []

    class Game:
        tick_rate = 20

        def on_open(self, session: Any) -> None:
            session.room("r").join()

        def on_tick(self, room: Any, dt: float) -> None:
            calls.append("tick")

        def on_post(self, room: Any, value: Any, sender: Any) -> None:
            if value == "first":
                game._timers.advance(0.06, between=lambda: None)  # a tick is due, and waits
                room.post("second")
                (session,) = room.endpoint.sessions()
                session.room("r").leave()
            calls.append(value)

        def on_room_end(self, room: Any) -> None:
            calls.append("end")

    with play(Game) as game:
        game.connect()
        game.room("r").post("first")
        game.settle()
    assert calls == ["first", "second", "end"]


def test_an_exception_in_a_tick_is_raised_by_advance() -> None:
    class Bad(Game):
        def on_tick(self, room: Any, dt: float) -> None:
            raise KeyError(dt)

    with play(Bad()) as it:
        it.connect()
        with pytest.raises(KeyError):
            it.advance(0.05)
    with play(Bad(), raise_errors=False) as it:
        it.connect()
        it.advance(0.1)
        assert [type(error) for error in it.errors] == [KeyError] * 2


def test_an_app_of_ones_own_ticks_by_its_own_clock_again_afterwards() -> None:
    app, game = WebSocketApp(redis=False), Game()
    app.add_handler("/ws/game", game)
    with play(app) as it:
        ann = it.connect()
        it.advance(1)
        assert len(ann.received) == 20
    assert game.calls == [("start", "lobby"), ("end", "lobby")]
    assert app.endpoints[0].ownership.timers is app._flusher
    with play(app) as it:
        ann = it.connect()
        it.advance(1)
        assert len(ann.received) == 20
    app.shutdown()


def test_the_example_of_the_reference_counts() -> None:
    example = next(block for block in blocks("docs/reference/rooms", "python") if "class Counter" in block)
    names: dict[str, Any] = {}
    exec(example, names)
    with play(names["Counter"]) as it:
        ann, bob = it.connect(), it.connect()
        ann.send("3")
        bob.send("4")
        it.advance(0.05)
        assert ann.take() == bob.take() == ["7"]
        ann.close()
        bob.close()
        ann = it.connect()
        it.advance(0.05)
        assert ann.take() == ["0"], "a new life of the room"


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1, "1", None, True])
def test_the_clock_is_moved_by_a_number_of_seconds(seconds: Any) -> None:
    with play(Game) as game, pytest.raises(UsageError, match="advance takes a number of seconds from 0 on, not "):
        game.advance(seconds)


def test_rooms_that_an_app_owns_already_tick_by_the_clock_of_the_play_and_by_their_own_again() -> None:
    app = WebSocketApp()
    ticks: list[float] = []

    class Ticking:
        tick_rate = 20

        def on_open(self, session: Any) -> None:
            session.room("r").join()

        def on_tick(self, room: Any, dt: float) -> None:
            ticks.append(dt)

    app.add_handler("/ws/game", Ticking())
    with live_server(app) as server, connect(f"{server.url}/ws/game".replace("http", "ws")):
        wait_until(lambda: ticks, "the first tick")
        with play(app) as game:
            game.settle()
            before = len(ticks)
            game.advance(1)
            assert len(ticks) == before + 20
        before = len(ticks)
        wait_until(lambda: len(ticks) >= before + 2, "ticks by the app's own clock")
