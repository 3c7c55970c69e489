"""How a message of a session passes the events by: one contract for the version in Python and for the one in C."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from tests.wire import run_all
from wsthreads._native import speedups
from wsthreads.protocol.writer import RLock
from wsthreads.sessions import turn

KINDS = [
    pytest.param(turn._PYTHON, id="python"),
    pytest.param(
        speedups and speedups.FastPath, id="c", marks=pytest.mark.skipif(speedups is None, reason="pure Python")
    ),
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    class Turn(request.param):  # type: ignore[misc, name-defined]
        def begin_close(self, code: int, reason: str = "") -> bool:
            assert self._is_taken
            self.closed = (code, reason)
            return True

        def _give_up_turn(self) -> None:
            with self._lock:
                self._is_taken = self._is_awaited = False
            self.given_up = True

    return Turn


class Line:
    """One turn, its session and its connection."""

    def __init__(self, kind: Any) -> None:
        self.handled: list[str | bytes] = []
        self.states: list[tuple[bool, int]] = []
        self.carrier, self.session = SimpleNamespace(thread=threading.get_ident()), SimpleNamespace(_thread=0)
        it = self.turn = kind()
        it._lock, it._events, it._carrier = RLock(), deque(), self.carrier
        it._handler, it.session = self, self.session
        it.received, it._ack_at, it._bytes_queued, it._ack_bytes_at = 0, 100, 0, 1000
        it._is_taken = it._is_awaited = it._drops = False
        it._runner = 0
        it.closed = it.given_up = None

    def message(self, session: Any, message: str | bytes) -> None:
        assert session is self.session
        self.handled.append(message)
        self.states.append((self.turn._is_taken, self.turn._runner))

    def passes(self, message: str | bytes) -> bool:
        result: bool = self.turn.pass_by(self.carrier, message)
        return result


@pytest.fixture
def line(kind: Any) -> Line:
    return Line(kind)


def test_it_counts_a_message_and_has_it_handled_with_the_turn(line: Line) -> None:
    for message in ("one", b"two", "", b"", "\N{DOOR}"):
        assert line.passes(message)
    assert line.handled == ["one", b"two", "", b"", "\N{DOOR}"]
    me = threading.get_ident()
    assert line.states == [(True, me)] * 5
    assert (line.turn.received, line.turn._ack_bytes_at) == (5, 1000 - 7)
    assert line.session._thread == me
    assert not line.turn._is_taken
    assert line.turn._runner == 0


@pytest.mark.parametrize("message", ["\x10", "\x10a1", b"\x10q1:x", "\x10\x10", b"\x10"])
def test_it_leaves_marked_messages_to_others(line: Line, message: str | bytes) -> None:
    assert not line.passes(message)
    assert not line.handled
    assert line.turn.received == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("_is_taken", True), ("_carrier", None), ("_ack_at", 1), ("_ack_bytes_at", 3), ("_bytes_queued", 997)],
)
def test_it_does_nothing_if_somebody_else_is_to_look(line: Line, name: str, value: object) -> None:
    setattr(line.turn, name, value)
    before = line.turn._ack_bytes_at
    assert not line.passes("abc")
    assert not line.handled
    assert (line.turn.received, line.turn._ack_bytes_at, getattr(line.turn, name)) == (0, before, value)


def test_messages_do_not_overtake_events(line: Line) -> None:
    line.turn._events.append("earlier")
    assert not line.passes("later")
    assert list(line.turn._events) == ["earlier"]
    assert not line.handled


def test_a_session_that_the_server_has_closed_hears_nothing_more(line: Line) -> None:
    line.turn._drops = True
    assert line.passes("late")
    assert not line.handled
    assert line.turn.received == 1


def test_a_message_within_the_call_for_another_one_waits(line: Line) -> None:
    inner = []
    line.message = lambda session, message: inner.append(line.passes("inner"))  # type: ignore[method-assign]
    assert line.passes("outer")
    assert inner == [False]
    assert line.turn.received == 1


def test_who_waits_for_the_turn_is_told(line: Line) -> None:
    def message(session: Any, message: str | bytes) -> None:
        line.turn._is_awaited = True

    line.message = message  # type: ignore[method-assign]
    assert line.passes("one")
    assert line.turn.given_up
    assert not line.turn._is_taken


@pytest.mark.parametrize("kind_of_error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_failure_closes_the_session_while_it_has_the_turn(line: Line, kind_of_error: type[BaseException]) -> None:
    def fail(session: Any, message: str | bytes) -> None:
        raise kind_of_error("mine")

    line.message = fail  # type: ignore[method-assign]
    with pytest.raises(kind_of_error, match="mine"):
        line.passes("one")
    assert line.turn.closed == (1011, "server error")
    assert not line.turn._is_taken
    assert line.turn._runner == 0


def test_a_connection_that_knows_no_thread_gives_the_turn_up(line: Line) -> None:
    del line.carrier.thread
    with pytest.raises(AttributeError, match="thread"):
        line.passes("one")
    assert not line.turn._is_taken


def test_threads_that_take_turns_lose_no_count(kind: Any) -> None:
    line = Line(kind)
    line.turn._ack_at = line.turn._ack_bytes_at = 10**9
    line.message = lambda session, message: None  # type: ignore[method-assign]

    def pass_many() -> None:
        passed.extend(line.passes("x") for _ in range(5000))

    passed: list[bool] = []
    run_all(*[pass_many] * 4)
    assert line.turn.received == sum(passed) > 0
    assert line.turn._ack_bytes_at == 10**9 - sum(passed)
    assert not line.turn._is_taken


def test_it_keeps_nothing_in_memory(kind: Any) -> None:
    line = Line(kind)
    line.passes("one")
    seen = weakref.ref(line)
    del line
    gc.collect()
    assert seen() is None
