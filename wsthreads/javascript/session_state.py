"""What the isolate keeps of a session: its turn in the queue, its share of the queue, and its end."""

from __future__ import annotations

import json
from collections import deque
from threading import Condition, Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from wsthreads.javascript.inbox import Intake
from wsthreads.monitoring.logs import log_context

if TYPE_CHECKING:
    from concurrent.futures import Future

    from wsthreads.javascript.engine import Engine
    from wsthreads.protocol.handshake import Request
    from wsthreads.sessions.session import Session

__all__ = ["Event", "SessionState"]

#: Messages of one session that may wait for the script, and their characters or bytes. One may always wait.
MAX_WAITING = 32
MAX_WAITING_SIZE = 1024 * 1024

#: Characters from which on the way by the parcel, of some microseconds, is shorter than that by JSON.
LONG_TEXT = 1024

#: How often a waiting thread looks whether the state has ended, should it ever have missed being told.
RECHECK_S = 1.0


class Event(NamedTuple):
    """Something for the runtime's loop to do. `kind` is the name of a function in its `dispatch`."""

    kind: str
    state: SessionState | None = None
    arguments: tuple[Any, ...] = ()
    size: int = 0
    reply: Future[Any] | None = None
    retried: bool = False
    #: When the runtime got it, on the monotonic clock, where a promise of its is pending.
    began: float = 0.0

    def encoded(self, engine: Engine | None) -> bytes:
        """What the loop pulls: the kind, the session's id, the arguments. Bytes and long texts go by the engine's
        parcel, if it has room for them: then they are null.
        """
        session_id = "null" if self.state is None else self.state.quoted_id
        if self.kind == "message":
            message = self.arguments[0]
            is_put = engine is not None and len(message) >= LONG_TEXT and engine.put_text(message)
            return f'["message",{session_id},{"null" if is_put else quote(message)}]'.encode()
        if self.kind == "binary":
            data = self.arguments[0]
            is_put = engine is not None and engine.put_bytes(data)
            return f'["binary",{session_id},{"null" if is_put else quote(data.decode("latin-1"))}]'.encode()
        arguments = "".join(f",{json.dumps(argument)}" for argument in self.arguments)
        return f'["{self.kind}",{session_id}{arguments}]'.encode()


class SessionState(Intake):  # type: ignore[misc]  # in C it is untyped
    """A session, from its `open` to the end of its `close`; or a handshake, which has only its `request` yet.

    The isolate's thread owns `backlog`, `busy` and `over`: while `busy`, a promise of the session's has not settled and
    its further events wait in `backlog`; once `over`, the script has closed the session or failed it, and its further
    messages are dropped. Everything below `_lock` is shared with the session's thread.
    """

    __slots__ = (
        "_changed",
        "_ended",
        "_lock",
        "backlog",
        "busy",
        "id",
        "over",
        "quoted_id",
        "request",
        "session",
    )

    def __init__(self, session_id: str, session: Session | None, request: Request | None = None) -> None:
        super().__init__(MAX_WAITING, MAX_WAITING_SIZE)
        self.id = session_id
        self.quoted_id = quote(session_id)
        self.session = session
        self.request = request
        self.backlog: deque[Event] | None = None  # made for the first event that has to wait; a deque takes a kilobyte
        self.busy = False
        self.over = False
        self._lock = Lock()  # guards the rest; nothing is called under it
        self._changed: Condition | None = None  # those wait on it who wait for a change
        self._ended = False

    @property
    def log_context(self) -> dict[str, Any]:
        """The `extra` of a line about it."""
        request = self.request if self.session is None else self.session.request
        return {} if request is None else log_context(request.environ)

    def close(self, code: int, reason: str) -> None:
        """Close the session on behalf of the script. What the client sends, or has sent, is not handled any more."""
        if self.session is not None:
            self.session.close(code, reason)
            self.over = True

    def reserve(self, size: int) -> bool:
        """Take a place in the queue for onOpen or a message, as soon as there is one; False if the state has ended."""
        with self._lock:
            while not self._ended:
                if self.enter(size):
                    return True
                self._wait_locked()
            return False

    def release(self, size: int) -> None:
        """Give the place of a handled message back."""
        with self._lock:
            self.leave(size)
            self._tell_locked()

    def wait_handled(self) -> None:
        """Wait until onOpen has run and no message waits any more; what takes long meets its deadline."""
        with self._lock:
            while not self._ended and self.count:
                self._wait_locked()

    def end(self) -> None:
        """Nothing more will be handled: let go of everybody who waits. Idempotent, any thread."""
        with self._lock:
            self._ended = True
            self._tell_locked()

    def wait_for_end(self) -> None:
        with self._lock:
            while not self._ended:
                self._wait_locked()

    def _wait_locked(self) -> None:
        if self._changed is None:
            self._changed = Condition(self._lock)
        self._changed.wait(RECHECK_S)

    def _tell_locked(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.notify_all()


def quote(text: str) -> str:
    """`text` in JSON; what json.dumps does for a str, without its look at the options."""
    return json.encoder.encode_basestring_ascii(text)
