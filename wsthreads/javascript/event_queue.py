"""The part of an isolate that other threads call: they post events to its queue, and wait for answers."""

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

#: The measured size of the heap may be this many seconds old.
HEAP_AGE_S = 10.0

#: How long `attributes` waits for the script.
LOOK_TIMEOUT_S = 0.2

#: How long `export_attributes` waits for the script, which may still have to handle messages of the session.
EXPORT_TIMEOUT_S = 5.0


class EventQueue:
    """Posts the events of an isolate, for the threads of sessions and rooms. Any thread.

    `states` has the data of the isolate's sessions. `loop` takes the events from `schedule`.
    """

    def __init__(
        self, name: str, config: Config, schedule: Schedule, states: SessionStates, loop: Loop
    ) -> None:
        self.name = name
        self._config = config
        self._schedule = schedule
        self._states = states
        self._loop = loop
        # Guards _is_closed. Once _is_closed is set, no session is added, and no thread begins to wait.
        self._gate = Lock()
        self._is_closed = False
        self._heap_due = 0.0  # monotonic: when the heap may be measured again

    def open(self, session: Session) -> None:
        state = SessionState(session.id, session)
        event = Event("open", state, (_told(session),))
        with self._gate:
            self._check_alive()
            state.reserve(event.size)
            self._states[state.id] = state
            self._schedule.post(event)

    def message(self, session: Session, message: str | bytes) -> None:
        """Post a message.

        Blocks while too many messages of the session wait (see `SessionState.reserve`). Replies of the client are
        accepted meanwhile.
        """
        state = self._states.find(session.id)
        if state is None or not state.reserve(len(message)):
            return
        if isinstance(message, str):
            self._schedule.post(Event("message", state, (message,), len(message)))
        else:
            self._schedule.post(Event("binary", state, (message,), len(message)))

    def request(self, session: Session, message: str | bytes, answer: Answer) -> None:
        """Post a request of the client. May block like `message`."""
        state = self._states.find(session.id)
        if state is None or not state.reserve(len(message)):
            answer.failed(FAILED)
            return
        number = self._loop.requests.take(answer)
        self._schedule.post(Event("request", state, (number, message), len(message)))
        if self._is_closed:  # the isolate may have closed just now, and dropped the event
            self._loop.requests.finish(number)

    def suspend(self, session: Session) -> None:
        """Tell the script that a session has lost its connection.

        Does not wait, because an earlier call may wait for the client.
        """
        state = self._states.find(session.id)
        if state is not None:
            self._schedule.post(Event("suspend", state))

    def resume(self, session: Session) -> None:
        """Tell the script that a session has a new connection. Does not wait."""
        state = self._states.find(session.id)
        if state is not None:
            self._schedule.post(Event("resume", state, (_told(session),)))

    def adopt(self, session: Session, attributes: dict[str, Any]) -> None:
        """Add a session that has come from another process. Raises `IsolateError` if the isolate has ended."""
        state = SessionState(session.id, session)
        with self._gate:
            self._check_alive()
            self._states[state.id] = state
            self._schedule.post(Event("adopt", state, (_told(session), attributes)))

    def export_attributes(self, session: Session) -> str:
        """The attributes that a session takes to another process, in JSON. Waits for all calls for the session.

        If onSuspend last returned a value, these are the attributes in that value. Otherwise they are all attributes of
        the session.

        Raises `UsageError` if an attribute is not JSON, and `IsolateError` if the script does not answer in time.
        """
        state = self._states.find(session.id)
        if state is None:
            raise IsolateError("the session has ended")
        try:
            text: str = self._ask(Event("export", state, (), reply=Future())).result(EXPORT_TIMEOUT_S)
        except TimeoutError:
            raise IsolateError(f"a function of {self.name} still runs") from None
        except JavaScriptError:
            raise IsolateError(f"the session's attributes, set by {self.name}, cannot be read") from None
        return text

    def reader(
        self, session: Session, descriptor: int, due: Callable[[], tuple[int, int] | None] | None
    ) -> Reader | None:
        """Returns a reader of the session's messages that runs no Python code. None without the C module."""
        state = self._states.find(session.id)
        if state is None or not hasattr(state, "pump"):
            return None
        return self._schedule.reader(state, descriptor, self._config.max_message_bytes, due)

    def catch_up(self, session: Session, timeout_s: float | None) -> bool:
        """Block until the session's onOpen has run and its messages have been handled.

        Returns false if this takes too long.
        """
        state = self._states.find(session.id)
        return state is None or state.wait_handled(timeout_s)

    def settle(self, timeout_s: float) -> bool:
        """Block until all events so far are done, with their effects and their promise jobs. Waits at most `timeout_s`.

        Returns false if they are not done by then.
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
        """The attributes of a session. Each has a name, whether its value is a text, and the value as text.

        Raises `IsolateError` if the script does not answer within `LOOK_TIMEOUT_S`, or has ended.
        """
        try:
            entries: list[tuple[str, bool, str]] = self._ask(Event("look", None, (session_id,), reply=Future())).result(
                LOOK_TIMEOUT_S
            )
        except TimeoutError:
            raise IsolateError(f"{self.name} is busy") from None
        except JavaScriptError:  # for example, a getter of the script has failed
            raise IsolateError(f"the attributes that {self.name} has set cannot be read") from None
        return entries

    def close(self, session: Session, code: int, reason: str) -> None:
        """Block until the script's onClose for the session has ended, or the isolate has ended."""
        state = self._states.find(session.id)
        if state is not None:
            self._schedule.post(Event("close", state, (code, reason)))
            state.wait_for_end()

    def handshake(self, request: Request, session_id: str) -> Any:
        """The return value of onHandshake, as a JSON value.

        Raises `HandshakeRefused` if onHandshake fails or takes too long.
        """
        told = {**handshake_data(request), "subprotocols": request.subprotocols}
        event = Event("handshake", SessionState(session_id, None, request), (told,), reply=Future())
        try:
            return self._ask(event).result(self._config.handshake_timeout_s)
        except TimeoutError:
            raise HandshakeRefused(503, "the handler timed out", cause="handler_timeout") from None
        except IsolateError as error:
            raise HandshakeRefused(503, "the handler is not running", cause="handler_down") from error

    def presence(self, name: str, changes: dict[str, Any]) -> str | bytes | None:
        """Call onPresence for a room, and return the result.

        Raises `IsolateError`. Raises `JavaScriptError` if the call has failed; that failure was already logged.

        Blocks until the earlier events and the call itself have ended. Each of them has a deadline.
        """
        message: str | bytes | None = self._ask(Event("presence", None, (name, changes), reply=Future())).result()
        return message

    def call_rooms(self, calls: Sequence[RoomCall]) -> None:
        """Let the script handle some calls for rooms (see `RoomCalls`). Does not wait."""
        with self._gate:
            if not self._is_closed:
                self._loop.rooms.post(calls)
                return
        for call in calls:
            call.done("down")

    def heap_bytes(self) -> int | None:
        """The size of the script's heap some seconds ago, in bytes. Its limit is 128 MiB. None without an engine.

        Does not wait. Also asks the isolate to measure the heap again, but at most every `HEAP_AGE_S`. This takes the
        isolate about a millisecond for 50,000 objects.
        """
        now = monotonic()
        if now >= self._heap_due:
            self._heap_due = now + HEAP_AGE_S
            self._schedule.post(Event("measure"))
        return self._loop.heap_bytes

    def probe(self) -> None:
        """Post an event whose wait is measured. Does not wait."""
        self._loop.probes.post()

    def recent_waits(self) -> tuple[float, float] | None:
        """The median and the longest wait of the last minute, in seconds. None if no wait was measured."""
        return self._loop.probes.recent()

    def has_session(self, session_id: str) -> bool:
        """Whether the script knows an open session with this id."""
        return session_id in self._states

    def forget(self, session_id: str) -> None:
        """Drop the script's data of a handshake, or of a session that has moved to another process."""
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
    """The data of a session's handshake that the script gets."""
    return {**handshake_data(session.request), "user": session.user}
