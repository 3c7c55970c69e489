"""The turn of a session that speaks ``wsthreads.1``. Only the thread that has the turn handles the session's events.

*Events* wait in `_events`, in order: open, message, request, suspend, resume, close. So the calls of a session never
overlap, and a new connection can be served while a call for the old connection still runs. If the turn is free and no
event waits, a message or a request is handled at once, and does not become an event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition, get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsthreads._native import speedups
from wsthreads.errors import CloseCode
from wsthreads.protocol import envelope
from wsthreads.protocol.writer import RLock
from wsthreads.sessions.requests import IncomingRequest, Requests

if TYPE_CHECKING:
    from wsthreads.sessions.carrier import Carrier
    from wsthreads.sessions.interface import Handler
    from wsthreads.sessions.session import Session

__all__ = ["LOOK_S", "MARKS", "Turn"]

#: A message that waits for the turn counts as this many bytes more than its length.
MESSAGE_BYTES = 64

#: A thread that waits for the turn, or for its client, checks at least this often.
LOOK_S = 0.5

#: The first character of control messages, and of ordinary messages that were escaped.
MARKS = frozenset({envelope.DLE, envelope.DLE.encode()})


class FastPath:
    """The attributes that each message and each request of a client reads or writes.

    `_speedups` has this class in C.
    """

    __slots__ = (
        "_ack_at",
        "_ack_bytes_at",
        "_bytes_queued",
        "_carrier",
        "_drops",
        "_events",
        "_handler",
        "_is_awaited",
        "_is_taken",
        "_lock",
        "_most_unanswered",
        "_runner",
        "_thread",
        "_unanswered",
        "heard",
        "received",
        "session",
    )

    _ack_at: int
    _ack_bytes_at: int
    _bytes_queued: int
    _carrier: Carrier | None
    _drops: bool
    _events: deque[Any]
    _handler: Handler
    _is_awaited: bool
    _is_taken: bool
    _lock: Any
    _most_unanswered: int
    _runner: int
    _thread: int
    _unanswered: dict[int, None]
    heard: int
    received: int
    session: Session

    def begin_close(self, code: int, reason: str = "") -> bool:
        """Like `begin_close` of `Ending`, which overrides this."""
        raise NotImplementedError

    def _give_up_turn(self) -> None:
        """Like `Turn._give_up_turn`, which overrides this."""
        raise NotImplementedError

    def _handle_request(self, data: str | bytes, number: int) -> None:
        """Like `Turn._handle_request`, which overrides this."""
        raise NotImplementedError

    def _handle_waiting(self, carrier: Carrier) -> None:
        """Like `Intake._handle_waiting`, which overrides this."""
        raise NotImplementedError

    def pass_by(self, carrier: Carrier, message: str | bytes) -> bool:
        """Count an ordinary message or a request, and call the handler, if the turn is free and no events wait.

        Also handles events that are added during the call. Called in the connection's thread. If the handler raises an
        exception, the session is closed, and this method raises the exception.

        Returns False, and does nothing, for a message that needs more work: another thread has the turn, events wait,
        an acknowledgement has to be sent, the connection was replaced, the id of a request is not the next one, or too
        many requests have no answer.
        """
        number = 0
        if message[:1] in MARKS:
            found = envelope.usual_request(message)
            if found is None:
                return False
            number, message = found
        with self._lock:
            received, left = self.received + 1, self._ack_bytes_at - len(message)
            if self._carrier is not carrier or self._is_taken or self._events:
                return False
            if received >= self._ack_at or self._bytes_queued >= left:
                return False
            if number:
                if number != self.heard + 1 or len(self._unanswered) >= self._most_unanswered:
                    return False
                self._unanswered[number] = None
                self.heard = number
            self.received, self._ack_bytes_at, self._is_taken = received, left, True
        try:
            self._runner = self._thread = self.session._thread = carrier.thread
            if self._drops:
                pass
            elif number:
                self._handle_request(message, number)
            else:
                self._handler.message(self.session, message)
        except BaseException:
            # An exception here is not an error in the user's code, because the handler logs such errors itself.
            self.begin_close(CloseCode.INTERNAL_ERROR, "server error")
            raise
        finally:
            self._runner = 0
            self._give_up_turn()
        if self._events:
            self._handle_waiting(carrier)
        return True


_PYTHON = FastPath  # the version in Python, for tests
if speedups is not None and not TYPE_CHECKING:
    FastPath = speedups.FastPath


class Turn(FastPath):
    """The events of a session, and its turn. The thread that creates this object has the first turn."""

    __slots__ = ("_bytes_handled", "_is_full", "_room", "requests")

    requests: Requests

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._drops = False  # whether messages that wait are dropped, because the server has closed the session
        self._lock = RLock()  # no thread takes it twice; an RLock, because `pump` checks whether its thread has it
        self._room = Condition(self._lock)  # for threads that wait for the turn, or until fewer events wait
        self._is_full = self._is_awaited = False  # whether a thread waits for fewer bytes, or for the turn
        # Messages, requests, and a function for each other event.
        self._events: deque[str | bytes | envelope.Request | Callable[[Any], None]] = deque()
        self._is_taken = True  # whether a thread has the turn; guarded by the lock
        self._runner = 0  # the id of the thread that handles an event; 0 if none does
        self._thread = 0  # the same as `session._thread`; written by the thread that has the turn
        self._bytes_queued = 0  # the bytes of all messages that have become events
        self._bytes_handled = 0  # the bytes of those that were handled; written by the thread that has the turn

    def _has_lock(self) -> bool:
        """Whether the calling thread holds the lock."""
        try:
            self._room.notify(0)
        except RuntimeError:
            return False
        return True

    def _take_turn(self) -> bool:
        with self._lock:
            if self._is_taken:
                return False
            self._is_taken = True
            return True

    def _await_turn(self, timeout_s: float) -> bool:
        """Wait for the turn, and take it. Returns False after `timeout_s`."""
        deadline = monotonic() + timeout_s
        with self._lock:
            while self._is_taken:
                left_s = deadline - monotonic()
                if left_s <= 0:
                    return False
                self._is_awaited = True
                self._room.wait(left_s)
            self._is_taken = True
            return True

    def _handle_request(self, data: str | bytes, number: int) -> None:
        """Call the handler. The calling thread has the turn."""
        self._handler.request(self.session, data, IncomingRequest(self.requests, number))

    def _give_up_turn(self) -> None:
        """Give up the turn. After that, the caller must check for events, because one may have been added before."""
        with self._lock:
            self._is_taken = False
            if self._is_awaited:
                self._is_awaited = False
                self._room.notify_all()

    def _run_later(self) -> None:
        """Like `Ending._run_later`, which overrides this."""
        raise NotImplementedError

    def run(self) -> None:
        """Handle the events that wait, unless another thread has the turn."""
        events, has_failed = self._events, False
        while events and self._take_turn():
            try:
                self._runner = self._thread = self.session._thread = get_ident()
                while events:
                    event = events.popleft()
                    kind = type(event)
                    if kind is str or kind is bytes:
                        self._bytes_handled += len(event)  # type: ignore[arg-type]
                        if not self._drops:
                            self._handler.message(self.session, event)  # type: ignore[arg-type]
                    elif isinstance(event, envelope.Request):
                        self._bytes_handled += len(event.data)
                        if not self._drops:
                            self._handle_request(event.data, event.id)
                    else:
                        event(self)  # type: ignore[operator]
                    if self._is_full:
                        with self._lock:
                            self._is_full = False
                            self._room.notify_all()
            except BaseException:
                # An exception here is not an error in the user's code, because the handler logs such errors itself.
                has_failed = True
                self.begin_close(CloseCode.INTERNAL_ERROR, "server error")
                raise
            finally:
                self._runner = 0
                self._give_up_turn()
                if has_failed and events:  # the threads that have queued these events could not take the turn
                    self._run_later()

    @property
    def is_idle(self) -> bool:
        """Whether no event waits and no thread has the turn. A snapshot."""
        return not self._events and not self._is_taken

    def _bytes_waiting(self) -> int:
        return self._bytes_queued - self._bytes_handled + MESSAGE_BYTES * len(self._events)
