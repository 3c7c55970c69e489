"""How a script's loop goes from one text message to the next in C, and when it leaves that to `Loop._pull`."""

from __future__ import annotations

import gc
import socket
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.wire import TEXT, frame
from wsthreads._native import speedups
from wsthreads.javascript.inbox import Inbox
from wsthreads.javascript.message_loop import MessageLoop
from wsthreads.javascript.session_state import Event, SessionState

pytestmark = pytest.mark.skipif(speedups is None, reason="pure Python: Loop._pull does all")

#: What the runtime reports of a message that was handled: two events begun, nothing pending, no timer.
HANDLED = (2, 0, -1)


class Line(MessageLoop):
    """A loop that has handed out one message. The next one is in the inbox."""

    def __init__(self) -> None:
        self.ours, self.client = socket.socketpair()
        self.left: list[tuple[Any, ...]] = []
        self.observed: list[float] = []
        self.released: list[int] = []
        self.jobs, self.armed = False, 0.0
        self.channel = SimpleNamespace(ending=None, requests=None)
        self.state = state("one", self.channel)
        self.former = state("former", SimpleNamespace(ending=None, requests=None))
        self.ready: deque[Any] = deque()
        self._inbox, self._event_type, self._hindrances = Inbox(), Event, ({}, self.ready)
        self._has_jobs, self._arm = lambda: self.jobs, self.arm
        self._message_times = SimpleNamespace(observe=self.observed.append)  # type: ignore[assignment]
        self._current = Event("message", self.former, ("before",), 6)
        self._dispatched, self._began, self._timeout_s = 1, 0.0, 2.5
        self._must_end = self.is_full = False
        self.former.reserve(6)

    def arm(self, timeout_s: float) -> float:
        self.armed = timeout_s
        return 77.0

    def _pull(self, dispatched: int, outcome: int, delay_ms: float) -> str:
        self.left.append((dispatched, outcome, delay_ms))
        return "left"

    def receive(self, *texts: str) -> None:
        """These texts come from the client; a ping behind them ends the reading."""
        self.client.sendall(b"".join(frame(TEXT, text) for text in texts) + frame(9, b""))
        self.state.pump(self._inbox, self.ours.fileno(), 1000, self.state.turn)


def state(session_id: str, channel: Any) -> SessionState:
    session: Any = SimpleNamespace(id=session_id, _channel=channel)
    return SessionState(session_id, session)


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    with line.ours, line.client:
        yield line


def test_a_message_that_follows_one_is_handed_out(line: Line) -> None:
    line.receive("grüße", "more")
    assert line.pull(*HANDLED) == ("message", "one", "grüße")
    assert line._current == Event("message", line.state, ("grüße",), 7)
    assert type(line._current) is Event
    assert (line._dispatched, line._began, line.armed) == (2, 77.0, 2.5)
    assert (line.left, len(line.observed), line.former.count, line.state.count) == ([], 1, 0, 2)
    assert line.pull(3, 0, -1) == ("message", "one", "more")
    assert (line.left, len(line.observed), line.state.count) == ([], 2, 1)


HINDRANCES: dict[str, Callable[[Line], object]] = {
    "a job of a promise": lambda line: setattr(line, "jobs", True),
    "a session that is ready": lambda line: line.ready.append(line.former),
    "the end": lambda line: setattr(line, "_must_end", True),
    "a full heap": lambda line: setattr(line, "is_full", True),
    "no onMessage": lambda line: setattr(line, "_message_times", None),
    "no event before": lambda line: setattr(line, "_current", None),
    "another event before": lambda line: setattr(line, "_current", Event("binary", line.former, (b"before",), 6)),
    "a backlog of the session before": lambda line: setattr(line.former, "backlog", deque([Event("close")])),
    "a promise of the session": lambda line: setattr(line.state, "busy", True),
    "a backlog of the session": lambda line: setattr(line.state, "backlog", deque([Event("close")])),
    "a session that the script has closed": lambda line: setattr(line.state, "over", True),
    "a session that is closing": lambda line: setattr(line.channel, "ending", (1000, "")),
}


@pytest.mark.parametrize("name", HINDRANCES)
def test_what_is_not_usual_is_left_to_python(line: Line, name: str) -> None:
    line.receive("text")
    HINDRANCES[name](line)
    before = line._current
    assert line.pull(*HANDLED) == "left"
    assert line.left == [HANDLED]
    assert (line._current, line._dispatched, line._began, line.armed) == (before, 1, 0.0, 0.0)
    assert (line.observed, line.former.count, line.state.count) == ([], 1, 1)
    assert line._inbox.get(0) == (line.state, "text", 4)


@pytest.mark.parametrize(
    "reported",
    [
        pytest.param((2, -1, -1), id="failed"),
        pytest.param((2, 5, -1), id="a promise"),
        pytest.param((1, 0, -1), id="not read"),
        pytest.param((2, 0, 0), id="a timer that is due"),
        pytest.param((2, 0, 10.5), id="a timer"),
    ],
)
def test_what_has_become_of_a_message_may_be_left_to_python(line: Line, reported: tuple[Any, ...]) -> None:
    line.receive("text")
    assert line.pull(*reported) == "left"
    assert (line.left, line.observed, line._dispatched) == ([reported], [], 1)


@pytest.mark.parametrize("event", [None, Event("again"), Event("message", None, ("from Python",), 11)])
def test_an_inbox_without_a_text_is_left_to_python(line: Line, event: Event | None) -> None:
    if event is not None:
        line._inbox.put(event)
    assert line.pull(*HANDLED) == "left"
    assert (line._inbox.get(0), line.former.count) == (event, 1)


def test_an_error_is_raised_and_the_message_is_the_current_event(line: Line) -> None:
    def fail(timeout_s: float) -> float:
        raise MemoryError

    line.receive("text")
    line._arm = fail
    with pytest.raises(MemoryError):
        line.pull(*HANDLED)
    assert line._current == Event("message", line.state, ("text",), 4)


def test_an_error_before_anything_was_done_changes_nothing(line: Line) -> None:
    line.receive("text")
    line._has_jobs = lambda: 1 // 0 > 0
    with pytest.raises(ZeroDivisionError):
        line.pull(*HANDLED)
    assert (line._current, line.observed, line.state.count) == (Event("message", line.former, ("before",), 6), [], 1)


@pytest.mark.parametrize("reported", [(), (2, 0), (2, 0, -1, 0), ("2", 0, -1), (2, None, -1), (2, 0, "never")])
def test_it_takes_only_what_the_runtime_reports(line: Line, reported: tuple[Any, ...]) -> None:
    line.receive("text")
    with pytest.raises(TypeError):
        line.pull(*reported)
    assert line.state.count == 1


def test_a_new_loop_leaves_all_to_python() -> None:
    class Bare(MessageLoop):
        def _pull(self, dispatched: int, outcome: int, delay_ms: float) -> str:
            return "left"

    assert Bare().pull(*HANDLED) == "left"


def test_a_loop_that_refers_to_itself_is_freed() -> None:
    line = Line()
    line.ours.close()
    line.client.close()
    reference = weakref.ref(line)
    del line
    gc.collect()
    assert reference() is None
