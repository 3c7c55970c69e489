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

        def _handle_request(self, data: str | bytes, number: int) -> None:
            self._handler.request(data, number)

        def _handle_waiting(self, carrier: Any) -> None:
            assert carrier is self._carrier
            assert self._events
            assert not self._is_taken
            self._handler.handled.append(self._events.popleft())

    return Turn


class Line:
    """One turn, its session and its connection."""

    def __init__(self, kind: Any) -> None:
        self.handled: list[str | bytes | tuple[int, str | bytes]] = []
        self.states: list[tuple[bool, int]] = []
        self.carrier, self.session = SimpleNamespace(thread=threading.get_ident()), SimpleNamespace(_thread=0)
        it = self.turn = kind()
        it._lock, it._events, it._carrier = RLock(), deque(), self.carrier
        it._handler, it.session = self, self.session
        it.received, it._ack_at, it._bytes_queued, it._ack_bytes_at = 0, 100, 0, 1000
        it.heard, it._unanswered, it._most_unanswered = 0, {}, 100
        it._is_taken = it._is_awaited = it._drops = False
        it._runner = it._thread = 0
        it.closed = it.given_up = None

    def message(self, session: Any, message: str | bytes) -> None:
        assert session is self.session
        self.handled.append(message)
        self.states.append((self.turn._is_taken, self.turn._runner))

    def request(self, data: str | bytes, number: int) -> None:
        self.handled.append((number, data))
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


def test_it_counts_a_request_and_has_it_handled_with_the_turn(line: Line) -> None:
    for request in (
        "\x10q1:one",
        b"\x10q2:two",
        "\x10q3:",
        b"\x10q4:",
        "\x10q5:\N{DOOR}",
        "\x10q6:\x10q7:",
        "\x10q7::",
    ):
        assert line.passes(request)
    data = ["one", b"two", "", b"", "\N{DOOR}", "\x10q7:", ":"]
    assert line.handled == list(enumerate(data, 1))
    me = threading.get_ident()
    assert line.states == [(True, me)] * 7
    assert (line.turn.received, line.turn.heard) == (7, 7)
    assert line.turn._ack_bytes_at == 1000 - sum(map(len, data))
    assert list(line.turn._unanswered) == [1, 2, 3, 4, 5, 6, 7]
    assert line.session._thread == me
    assert not line.turn._is_taken
    assert line.turn._runner == 0


def test_a_request_may_have_an_id_of_fifteen_digits(line: Line) -> None:
    line.turn.heard = 123456789012344
    assert line.passes("\x10q123456789012345:x")
    assert line.handled == [(123456789012345, "x")]


MARKED = [
    *("\x10", "\x10a1", "\x10\x10", b"\x10", "\x10q", b"\x10q", "\x10q1", b"\x10q1", "\x10q:", "\x10q:x", b"\x10q:x"),
    *(
        "\x10q0:x",
        "\x10q01:x",
        b"\x10q01:x",
        "\x10q-1:x",
        "\x10q+1:x",
        "\x10q 1:x",
        "\x10q1 :x",
        "\x10qx1:x",
        "\x10Q1:x",
    ),
    *(
        "\x10r1:x",
        b"\x10r1:x",
        "\x10n1",
        "\x10e1:x",
        "\x10q\u0661:x",
        "\x10q1\u0661:x",
        "\x10q1\uff1ax",
        "\u0110q1:x"[1:],
    ),
    *("\x10q1000000000000000:x", b"\x10q1000000000000000:x", "\x10q" + 60 * "1" + ":x"),
]


@pytest.mark.parametrize("message", MARKED, ids=repr)
def test_it_leaves_other_marked_messages_to_others(line: Line, message: str | bytes) -> None:
    line.turn.heard = 0 if len(message) < 20 else 10**15 - 1
    heard = line.turn.heard
    assert line.passes(message) == (message[:1] not in turn.MARKS)
    assert not [done for done in line.handled if isinstance(done, tuple)]
    assert (line.turn.heard, line.turn._unanswered) == (heard, {})
    assert not line.turn._is_taken


@pytest.mark.parametrize("message", ["abc", "\x10q1:abc", b"\x10q1:abc"], ids=repr)
@pytest.mark.parametrize(
    ("name", "value"),
    [("_is_taken", True), ("_carrier", None), ("_ack_at", 1), ("_ack_bytes_at", 3), ("_bytes_queued", 997)],
)
def test_it_does_nothing_if_somebody_else_is_to_look(
    line: Line, name: str, value: object, message: str | bytes
) -> None:
    setattr(line.turn, name, value)
    before = line.turn._ack_bytes_at
    assert not line.passes(message)
    assert not line.handled
    assert (line.turn.received, line.turn._ack_bytes_at, getattr(line.turn, name)) == (0, before, value)
    assert (line.turn.heard, line.turn._unanswered) == (0, {})


@pytest.mark.parametrize(("heard", "most", "request_id"), [(0, 100, 2), (3, 100, 3), (3, 100, 1), (3, 2, 4), (0, 0, 1)])
def test_a_request_that_may_not_come_is_left_to_others(line: Line, heard: int, most: int, request_id: int) -> None:
    line.turn.heard, line.turn._most_unanswered = heard, most
    unanswered = dict.fromkeys(range(2, heard + 1))
    line.turn._unanswered = unanswered.copy()
    assert not line.passes(f"\x10q{request_id}:x")
    assert not line.handled
    assert (line.turn.received, line.turn.heard, line.turn._unanswered) == (0, heard, unanswered)
    assert not line.turn._is_taken


def test_a_request_comes_as_soon_as_another_one_is_answered(line: Line) -> None:
    line.turn._most_unanswered = 1
    assert line.passes("\x10q1:a")
    assert not line.passes("\x10q2:b")
    del line.turn._unanswered[1]
    assert line.passes("\x10q2:b")
    assert line.handled == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("message", ["later", "\x10q1:later"], ids=repr)
def test_messages_do_not_overtake_events(line: Line, message: str) -> None:
    line.turn._events.append("earlier")
    assert not line.passes(message)
    assert list(line.turn._events) == ["earlier"]
    assert not line.handled


@pytest.mark.parametrize("message", ["late", "\x10q1:late"], ids=repr)
def test_a_session_that_the_server_has_closed_hears_nothing_more(line: Line, message: str) -> None:
    line.turn._drops = True
    assert line.passes(message)
    assert not line.handled
    assert line.turn.received == 1


def test_a_message_within_the_call_for_another_one_waits(line: Line) -> None:
    inner = []
    line.message = lambda session, message: inner.append(line.passes("inner"))  # type: ignore[method-assign]
    line.request = lambda data, number: inner.append(line.passes("inner"))  # type: ignore[method-assign]
    assert line.passes("outer")
    assert line.passes("\x10q1:outer")
    assert inner == [False, False]
    assert line.turn.received == 2


def test_who_waits_for_the_turn_is_told(line: Line) -> None:
    def message(session: Any, message: str | bytes) -> None:
        line.turn._is_awaited = True

    line.message = message  # type: ignore[method-assign]
    assert line.passes("one")
    assert line.turn.given_up
    assert not line.turn._is_taken


@pytest.mark.parametrize("message", ["one", "\x10q1:one"], ids=repr)
@pytest.mark.parametrize("kind_of_error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_failure_closes_the_session_while_it_has_the_turn(
    line: Line, kind_of_error: type[BaseException], message: str
) -> None:
    def fail(*arguments: Any) -> None:
        raise kind_of_error("mine")

    line.message = line.request = fail  # type: ignore[method-assign]
    with pytest.raises(kind_of_error, match="mine"):
        line.passes(message)
    assert line.turn.closed == (1011, "server error")
    assert not line.turn._is_taken
    assert line.turn._runner == 0


def test_a_session_that_takes_no_thread_gives_the_turn_up(line: Line) -> None:
    line.turn.session = object()
    with pytest.raises(AttributeError, match="_thread"):
        line.passes("one")
    assert not line.turn._is_taken


def test_the_session_knows_the_thread_that_calls_the_handler(line: Line) -> None:
    me, other = threading.get_ident(), SimpleNamespace(thread=0)

    def pass_one() -> None:
        other.thread = line.carrier.thread = threading.get_ident()
        assert line.passes("from another thread")

    threads = []
    line.message = lambda session, message: threads.append(session._thread)  # type: ignore[method-assign]
    assert line.passes("one")
    run_all(pass_one)
    line.carrier.thread = me
    assert line.passes("two")
    assert threads == [me, other.thread, me]
    line.turn._thread = line.session._thread = other.thread  # as `Turn.run` does in another thread
    assert line.passes("three")
    assert line.session._thread == line.turn._thread == me


@pytest.mark.parametrize("message", ["one", "\x10q1:one"], ids=repr)
def test_events_that_come_meanwhile_are_handled(line: Line, message: str) -> None:
    line.message = lambda session, message: line.turn._events.append("later")  # type: ignore[method-assign]
    line.request = lambda data, number: line.turn._events.append("later")  # type: ignore[method-assign]
    assert line.passes(message)
    assert line.handled == ["later"]
    assert not line.turn._is_taken
    line.message = line.request = lambda *arguments: None  # type: ignore[method-assign]
    assert line.passes("two")
    assert line.handled == ["later"]


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
    line.passes("\x10q1:two")
    seen = weakref.ref(line)
    del line
    gc.collect()
    assert seen() is None
