"""What other threads have an isolate do: events for its queue, and the answers to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, TimeoutError
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsthreads.errors import HandshakeRefused, IsolateError
from wsthreads.javascript.engine import JavaScriptError
from wsthreads.javascript.session_state import Event, SessionState, SessionStates
from wsthreads.javascript.values import handshake_data
from wsthreads.sessions.interface import FAILED

if TYPE_CHECKING:
    from wsthreads.config import Config
    from wsthreads.javascript.loop import Loop
    from wsthreads.javascript.schedule import Schedule
    from wsthreads.protocol.handshake import Request
    from wsthreads.protocol.readers import Reader
    from wsthreads.rooms.mailboxes import RoomCall
    from wsthreads.sessions.interface import Answer
    from wsthreads.sessions.session import Session

__all__ = ["EventQueue"]

#: How old the measured size of the heap may be.
HEAP_AGE_S = 10.0

#: How long `attributes` waits for the script.
LOOK_TIMEOUT_S = 0.2

#: How long `export_attributes` waits for the script, which may still handle the session's messages.
EXPORT_TIMEOUT_S = 5.0


class EventQueue:
    """The events of an isolate, as the threads of sessions and of rooms post them. Any thread.

    `states` has the sessions of the isolate; `loop` hands out the events of `schedule`.
    """

    def __init__(
        self, name: str, config: Config, schedule: Schedule, states: SessionStates, loop: Loop
    ) -> None:
        self.name = name
        self._config = config
        self._schedule = schedule
        self._states = states
        self._loop = loop
        # Guards _is_closed: once it is set, no session is added, and no thread begins to wait.
        self._gate = Lock()
        self._is_closed = False
        self._heap_due = 0.0  # monotonic: when it may be measured again

    def open(self, session: Session) -> None:
        state = SessionState(session.id, session)
        event = Event("open", state, (_told(session),))
        with self._gate:
            self._check_alive()
            state.reserve(event.size)
            self._states[state.id] = state
            self._schedule.post(event)

    def message(self, session: Session, message: str | bytes) -> None:
        """Blocks while too many messages of the session wait (`SessionState.reserve`), but takes replies meanwhile."""
        state = self._states.find(session.id)
        if state is None or not state.reserve(len(message)):
            return
        if isinstance(message, str):
            self._schedule.post(Event("message", state, (message,), len(message)))
        else:
            self._schedule.post(Event("binary", state, (message,), len(message)))

    def request(self, session: Session, message: str | bytes, answer: Answer) -> None:
        """A request of the client. Blocks as `message` does."""
        state = self._states.find(session.id)
        if state is None or not state.reserve(len(message)):
            answer.failed(FAILED)
            return
        number = self._loop.requests.take(answer)
        self._schedule.post(Event("request", state, (number, message), len(message)))
        if self._is_closed:  # perhaps only now, and the event is dropped
            self._loop.requests.finish(number)

    def suspend(self, session: Session) -> None:
        """The session has lost its connection. Does not wait: a call before it may wait for what the client sends."""
        state = self._states.find(session.id)
        if state is not None:
            self._schedule.post(Event("suspend", state))

    def resume(self, session: Session) -> None:
        """The session has another connection. Does not wait, as `suspend`."""
        state = self._states.find(session.id)
        if state is not None:
            self._schedule.post(Event("resume", state, (_told(session),)))

    def adopt(self, session: Session, attributes: dict[str, Any]) -> None:
        """Another process has handed the session over. Raises `IsolateError` if the isolate has ended."""
        state = SessionState(session.id, session)
        with self._gate:
            self._check_alive()
            self._states[state.id] = state
            self._schedule.post(Event("adopt", state, (_told(session), attributes)))

    def export_attributes(self, session: Session) -> str:
        """The session's attributes in JSON, after all calls so far, or what onSuspend has returned last.

        Raises `UsageError` if one is not JSON, and `IsolateError` if the script does not answer in time.
        """
        state = self._states.find(session.id)
        if state is None:
            raise IsolateError("the session has ended")
        try:
            text: str = self._ask(Event("export", state, (), reply=Future())).result(EXPORT_TIMEOUT_S)
        except TimeoutError:
            raise IsolateError(f"{self.name} is busy") from None
        except JavaScriptError:
            raise IsolateError(f"the attributes that {self.name} has set cannot be read") from None
        return text

    def reader(
        self, session: Session, descriptor: int, due: Callable[[], tuple[int, int] | None] | None
    ) -> Reader | None:
        """A reader of the session's messages that needs no Python; None without the C module."""
        state = self._states.find(session.id)
        if state is None or not hasattr(state, "pump"):
            return None
        return self._schedule.reader(state, descriptor, self._config.max_message_bytes, due)

    def catch_up(self, session: Session, timeout_s: float | None) -> bool:
        """Blocks until the session's onOpen has run, and its messages have been handled. False if it takes longer."""
        state = self._states.find(session.id)
        return state is None or state.wait_handled(timeout_s)

    def settle(self, timeout_s: float) -> bool:
        """Blocks until all events so far, what they cause, and their promise jobs are handled; at most `timeout_s`.

        False if they are not.
        """
        deadline, was_idle = monotonic() + timeout_s, False
        with suppress(IsolateError, JavaScriptError):
            while not (was_idle and self._loop.is_idle):
                was_idle = self._loop.is_idle
                try:
                    self._ask(Event("again", reply=Future())).result(deadline - monotonic())
                except TimeoutError:
                    return False
        return True

    def attributes(self, session_id: str) -> list[tuple[str, bool, str]]:
        """A session's attributes: for each its name, whether its value is a text, and the value as text.

        Raises `IsolateError` if the script is busy for longer than `LOOK_TIMEOUT_S`, or has ended.
        """
        try:
            entries: list[tuple[str, bool, str]] = self._ask(Event("look", None, (session_id,), reply=Future())).result(
                LOOK_TIMEOUT_S
            )
        except TimeoutError:
            raise IsolateError(f"{self.name} is busy") from None
        except JavaScriptError:  # such as a getter of the script
            raise IsolateError(f"the attributes that {self.name} has set cannot be read") from None
        return entries

    def close(self, session: Session, code: int, reason: str) -> None:
        """Blocks until the script's onClose has ended, or the isolate has."""
        state = self._states.find(session.id)
        if state is not None:
            self._schedule.post(Event("close", state, (code, reason)))
            state.wait_for_end()

    def handshake(self, request: Request, session_id: str) -> Any:
        """What onHandshake returned, as a JSON value. Raises `HandshakeRefused` if it threw or took too long."""
        told = {**handshake_data(request), "subprotocols": request.subprotocols}
        event = Event("handshake", SessionState(session_id, None, request), (told,), reply=Future())
        try:
            return self._ask(event).result(self._config.handshake_timeout_s)
        except TimeoutError:
            raise HandshakeRefused(503, "the handler timed out", cause="handler_timeout") from None
        except IsolateError as error:
            raise HandshakeRefused(503, "the handler is not running", cause="handler_down") from error

    def presence(self, name: str, changes: dict[str, Any]) -> str | bytes | None:
        """What onPresence returned for a room. Raises `IsolateError`, and `JavaScriptError` for a failure in the log.

        Blocks until the events before this one and the call itself have ended: each has a deadline.
        """
        message: str | bytes | None = self._ask(Event("presence", None, (name, changes), reply=Future())).result()
        return message

    def call_rooms(self, calls: Sequence[RoomCall]) -> None:
        """Call functions of rooms: see `RoomCalls`. Does not wait."""
        with self._gate:
            if not self._is_closed:
                self._loop.rooms.post(calls)
                return
        for call in calls:
            call.done("down")

    def heap_bytes(self) -> int | None:
        """The memory that the script's objects took some seconds ago; the limit is 128 MiB. None without an engine.

        Does not wait. It asks the isolate to measure again, at most every `HEAP_AGE_S`: that takes about a millisecond
        for 50,000 objects.
        """
        now = monotonic()
        if now >= self._heap_due:
            self._heap_due = now + HEAP_AGE_S
            self._schedule.post(Event("measure"))
        return self._loop.heap_bytes

    def probe(self) -> None:
        """Measure how long an event that comes now waits for others. Does not wait."""
        self._loop.probes.post()

    def recent_waits(self) -> tuple[float, float] | None:
        """The median and the longest wait of the last minute, in seconds; None if none was measured."""
        return self._loop.probes.recent()

    def has_session(self, session_id: str) -> bool:
        """Whether the script knows an open session with this id."""
        return session_id in self._states

    def forget(self, session_id: str) -> None:
        """Drop what the script has of a handshake, or of a session that goes on in another process."""
        state = self._states.pop(session_id, None)
        if state is not None:
            state.end()
        self._schedule.post(Event("forget", SessionState(session_id, None)))

    def _ask(self, event: Event) -> Future[Any]:
        assert event.reply is not None
        with self._gate:
            self._check_alive()
            self._schedule.post(event)
        return event.reply

    def _check_alive(self) -> None:
        if self._is_closed:
            raise IsolateError(f"the interpreter of {self.name} has ended")


def _told(session: Session) -> dict[str, Any]:
    """What the script knows of a session from its handshake."""
    return {**handshake_data(session.request), "user": session.user}
