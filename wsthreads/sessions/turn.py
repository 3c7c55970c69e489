"""The turn of a session that speaks ``wsthreads.1``: whoever has it handles what happens to the session.

All that happens is an event in `_events`, in order: open, message, request, suspend, resume, close. Whoever holds
`_turn` handles them, as an outbox's writer does. So the calls of a session never overlap, and a new connection is
served although a call for the old one still runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition, Lock, RLock, get_ident
from typing import TYPE_CHECKING, Any

from wsthreads.errors import CloseCode
from wsthreads.protocol import envelope
from wsthreads.sessions.requests import IncomingRequest, Requests

if TYPE_CHECKING:
    from wsthreads.sessions.interface import Handler
    from wsthreads.sessions.session import Session

__all__ = ["LOOK_S", "Turn"]

#: What a message that waits for the turn counts beside its own length.
MESSAGE_BYTES = 64

#: A thread that waits for the turn's holder, or for its own client, looks again after this at the latest.
LOOK_S = 0.5


class Turn:
    """The events of a session. The thread that makes it has the turn."""

    __slots__ = (
        "_bytes_handled",
        "_bytes_queued",
        "_drops",
        "_events",
        "_handler",
        "_is_full",
        "_lock",
        "_room",
        "_runner",
        "_turn",
        "requests",
        "session",
    )

    session: Session
    requests: Requests

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._drops = False  # the server has closed it: what the client has sent before is not handled any more
        self._lock = RLock()  # nobody takes it twice; `pump` asks whether its thread has it
        self._room = Condition(self._lock)  # for a thread that waits until fewer events wait
        self._is_full = False  # such a thread waits
        self._events: deque[str | bytes | envelope.Request | Callable[[Any], None]] = deque()
        self._turn = Lock()
        self._turn.acquire()
        self._runner = 0  # the thread that has the turn, in `run`
        self._bytes_queued = 0  # of messages that ever were events
        self._bytes_handled = 0  # of those that are none any more; written by whoever holds the turn

    def _has_lock(self) -> bool:
        """Whether the calling thread holds the lock."""
        try:
            self._room.notify(0)
        except RuntimeError:
            return False
        return True

    def begin_close(self, code: int, reason: str = "") -> bool:
        """See `Dialogue`."""
        raise NotImplementedError

    def _handle(self, message: str | bytes, *, is_due: bool) -> None:
        """Handle a message that is no event, with the turn, which this gives up. An acknowledgement may be due."""
        try:
            if is_due:
                self.session._channel.outbox.flush()
            self._runner = self.session._thread = get_ident()
            self._bytes_handled += len(message)
            if not self._drops:
                self._handler.message(self.session, message)
        except BaseException:
            self.begin_close(CloseCode.INTERNAL_ERROR, "server error")
            raise
        finally:
            self._runner = 0
            self._turn.release()

    def run(self) -> None:
        """Handle what waits, unless another thread does so. The events of a session are handled one at a time."""
        events, turn = self._events, self._turn
        while events and turn.acquire(False):
            try:
                self._runner = self.session._thread = get_ident()
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
                            self._handler.request(self.session, event.data, IncomingRequest(self.requests, event.id))
                    else:
                        event(self)  # type: ignore[operator]
                    if self._is_full:
                        with self._lock:
                            self._is_full = False
                            self._room.notify_all()
            except BaseException:
                # Not an error in the user's code: the handler has logged those.
                self.begin_close(CloseCode.INTERNAL_ERROR, "server error")
                raise
            finally:
                self._runner = 0
                turn.release()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, and nobody handles anything. A snapshot."""
        return not self._events and not self._turn.locked()

    def _bytes_waiting(self) -> int:
        return self._bytes_queued - self._bytes_handled + MESSAGE_BYTES * len(self._events)
