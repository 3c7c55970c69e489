"""The turn of a session that speaks ``wsthreads.1``: only the thread that has the turn handles the session's events.

Events wait in `_events`, in order: open, message, request, suspend, resume, close. So the calls of a session never
overlap, and a new connection can be served while a call for the old one still runs. A message or a request that finds
the turn free, and no events, is handled at once, without becoming an event.
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

#: The number of bytes that each message that waits for the turn counts for, in addition to its length.
MESSAGE_BYTES = 64

#: A thread that waits for the turn, or for its client, checks again at least this often.
LOOK_S = 0.5

#: The first character of control messages, and of ordinary messages that were escaped.
MARKS = frozenset({envelope.DLE, envelope.DLE.encode()})


class FastPath:
    """The state that each message and each request of a client reads or writes. `_speedups` has a version in C."""

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
        """See `Dialogue`."""
        raise NotImplementedError

    def _give_up_turn(self) -> None:
        """See `Turn`."""
        raise NotImplementedError

    def _handle_request(self, data: str | bytes, number: int) -> None:
        """See `Turn`."""
        raise NotImplementedError

    def _handle_waiting(self, carrier: Carrier) -> None:
        """See `Intake`."""
        raise NotImplementedError

    def pass_by(self, carrier: Carrier, message: str | bytes) -> bool:
        """Count an ordinary message or a request, and call the handler, if the turn is free and no events wait.

        Also handles events that come meanwhile. Called in the connection's thread. If the handler raises an exception,
        the session is closed, and the exception is raised here.

        Returns False, without any effect, for a message that needs more work: the turn is taken, events wait, an
        acknowledgement is due, the connection was replaced, a request's id is not the next one, or too many requests
        are unanswered.
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
            # Not an error in the user's code, because the handler logs such errors itself.
            self.begin_close(CloseCode.INTERNAL_ERROR, "server error")
            raise
        finally:
            self._runner = 0
            self._give_up_turn()
        if self._events:
            self._handle_waiting(carrier)
        return True


_PYTHON = FastPath  # for tests
if speedups is not None and not TYPE_CHECKING:
    FastPath = speedups.FastPath


class Turn(FastPath):
    """The events of a session. At first, the thread that creates this object has the turn."""

    __slots__ = ("_bytes_handled", "_is_full", "_room", "requests")

    requests: Requests

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._drops = False  # whether waiting messages are dropped, because the server has closed the session
        self._lock = RLock()  # never taken twice; an RLock, because `pump` checks whether its thread has the lock
        self._room = Condition(self._lock)  # for threads that wait for fewer events, or for the turn
        self._is_full = self._is_awaited = False  # whether such a thread waits
        # Messages, requests, and functions for all other events.
        self._events: deque[str | bytes | envelope.Request | Callable[[Any], None]] = deque()
        self._is_taken = True  # whether a thread has the turn. Guarded by the lock
        self._runner = 0  # the thread that handles an event; 0 for none
        self._thread = 0  # the same as `session._thread`; written by the thread that has the turn
        self._bytes_queued = 0  # bytes of all messages that became events
        self._bytes_handled = 0  # bytes of such messages that were handled; written by the thread that has the turn

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
        """Give up the turn. Afterwards, the caller must look for events, because one may have come before."""
        with self._lock:
            self._is_taken = False
            if self._is_awaited:
                self._is_awaited = False
                self._room.notify_all()

    def _run_later(self) -> None:
        """See `Dialogue`."""
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
                # Not an error in the user's code, because the handler logs such errors itself.
                has_failed = True
                self.begin_close(CloseCode.INTERNAL_ERROR, "server error")
                raise
            finally:
                self._runner = 0
                self._give_up_turn()
                if has_failed and events:  # the threads that queued these events have found the turn taken
                    self._run_later()

    @property
    def is_idle(self) -> bool:
        """Whether no event waits and no thread has the turn. A snapshot."""
        return not self._events and not self._is_taken

    def _bytes_waiting(self) -> int:
        return self._bytes_queued - self._bytes_handled + MESSAGE_BYTES * len(self._events)
