"""The isolate's data of a session: its events, how many of its messages wait, and whether it has ended."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from threading import Condition, Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from wsthreads.javascript.inbox import Intake
from wsthreads.monitoring.logs import log_context

if TYPE_CHECKING:
    from concurrent.futures import Future

    from wsthreads.javascript.engine import Engine
    from wsthreads.protocol.handshake import Request
    from wsthreads.sessions.session import Session

__all__ = ["Event", "SessionState", "SessionStates"]

#: At most this many messages of one session wait for the script, with this many characters or bytes. But a first
#: message may always wait.
MAX_WAITING = 32
MAX_WAITING_SIZE = 1024 * 1024

#: Texts with this many characters or more go through the engine's parcel. The parcel takes some microseconds; for long
#: texts it is faster than JSON.
LONG_TEXT = 1024

#: How often a waiting thread checks whether the session has ended, in case nobody has woken it.
RECHECK_S = 1.0

#: How long a waiting thread reads before it checks again whether a message may wait.
READ_S = 0.05


class Event(NamedTuple):
    """An event for the runtime's loop. `kind` is the name of a function in the runtime's `dispatch`."""

    kind: str
    state: SessionState | None = None
    arguments: tuple[Any, ...] = ()
    size: int = 0
    reply: Future[Any] | None = None
    retried: bool = False
    #: While the promise of the call is pending: when the runtime received the event, on the monotonic clock. Otherwise
    #: 0.
    began: float = 0.0

    def encoded(self, engine: Engine | None) -> bytes:
        """Encode the event for the runtime: the kind, the session's id, the arguments.

        Bytes and long texts go into the engine's parcel, if the script's heap has space for them. The arguments then
        have null in their places.
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
        if self.kind in ("request", "replied"):
            *others, data = self.arguments
            text, is_binary = data, isinstance(data, bytes)
            if is_binary:
                text = None if engine is not None and engine.put_bytes(data) else data.decode("latin-1")
            shown = "".join(f",{json.dumps(each)}" for each in (*others, text, is_binary))
            return f'["{self.kind}",{session_id}{shown}]'.encode()
        if self.kind == "result":
            _, begun, data, _ = self.arguments
            is_put = not data or (engine is not None and engine.put_bytes(data))
            return bytes(begun) + (b"null]" if is_put else quote(data.decode("latin-1")).encode() + b"]")
        arguments = "".join(f",{json.dumps(argument)}" for argument in self.arguments)
        return f'["{self.kind}",{session_id}{arguments}]'.encode()


def message_event(state: SessionState, text: str, size: int) -> Event:
    """Make ``Event("message", state, (text,), size)``, in half the time."""
    return _new_event(("message", state, (text,), size, None, False, 0.0))


_new_event: Callable[[Iterable[Any]], Event] = partial(tuple.__new__, Event)


class SessionState(Intake):  # type: ignore[misc]  # in C it is untyped
    """The isolate's data of a session, from its `open` to the end of its `close`.

    Or of a handshake, which has only a `request`.

    Only the isolate's thread uses `backlog`, `busy` and `over`. While `busy` is true, a promise of the session is
    pending, and the session's later events wait in `backlog`. `over` is true when the script has closed the session or
    has failed. Later messages of the session are then dropped. All attributes below `_lock` are shared with the
    session's thread.
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
        # made for the first event that has to wait, because a deque needs a kilobyte
        self.backlog: deque[Event] | None = None
        self.busy = False
        self.over = False
        self._lock = Lock()  # guards the attributes below; nothing is called while it is held
        self._changed: Condition | None = None  # made for the first thread that waits for a change
        self._ended = False

    @property
    def log_context(self) -> dict[str, Any]:
        """The `extra` of a log line about the session."""
        request = self.request if self.session is None else self.session.request
        return {} if request is None else log_context(request.environ)

    @property
    def was_kicked(self) -> bool:
        """Whether the application has closed the session, for example by a handle on its user."""
        if self.session is None:
            return False
        channel = self.session._channel
        # `ending` comes first for speed: it is nearly always None
        return channel.ending is not None and channel.was_kicked

    def close(self, code: int, reason: str) -> None:
        """Close the session for the script. After that, no message of the client is handled."""
        if self.session is not None:
            self.session.close(code, reason)
            self.over = True

    def reserve(self, size: int) -> bool:
        """Wait until onOpen, a message or a request may wait in the queue. Returns false if the session has ended.

        The script may wait for a reply of this client, which only the calling thread can read. So this thread reads
        while it waits.
        """
        while True:
            with self._lock:
                if self._ended:
                    return False
                if self.enter(size):
                    return True
                requests = None if self.session is None else self.session._channel.requests
                if requests is None or not requests.is_asking:
                    self._wait_locked()
                    continue
            if not requests.read(READ_S):
                with self._lock:
                    if not self._ended:
                        self._wait_locked(READ_S)

    def stir(self) -> None:
        """Wake a thread that waits in `reserve`, because the script has sent a request. Any thread."""
        with self._lock:
            self._tell_locked()

    def release(self, size: int) -> None:
        """Let another message wait, because a message was handled."""
        with self._lock:
            self.leave(size)
            if self._changed is not None:
                self._tell_locked()

    def wait_handled(self, timeout_s: float | None = None) -> bool:
        """Wait until onOpen has run and all messages are handled. Each call of the script has a deadline.

        Returns false if this takes longer than `timeout_s`.
        """
        deadline = None if timeout_s is None else monotonic() + timeout_s
        with self._lock:
            while not self._ended and self.count:
                left_s = RECHECK_S if deadline is None else deadline - monotonic()
                if left_s <= 0:
                    return False
                self._wait_locked(min(RECHECK_S, left_s))
        return True

    def end(self) -> None:
        """Handle no more events, and wake every waiting thread. Idempotent, any thread."""
        with self._lock:
            self._ended = True
            self._tell_locked()

    def wait_for_end(self) -> None:
        with self._lock:
            while not self._ended:
                self._wait_locked()

    def _wait_locked(self, seconds: float = RECHECK_S) -> None:
        if self._changed is None:
            self._changed = Condition(self._lock)
        self._changed.wait(seconds)

    def _tell_locked(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.notify_all()


def quote(text: str) -> str:
    """Encode a text in JSON. This is faster than `json.dumps`, which checks its options at each call."""
    return json.encoder.encode_basestring_ascii(text)


class SessionStates(dict[str, SessionState]):
    """The data of an isolate's sessions, by id. Each operation is atomic, with and without the GIL."""

    def find(self, session_id: str) -> SessionState | None:
        """The data of the session with this id, or None. Like `look_up`, but without another call."""
        try:
            return self[session_id]
        except KeyError:
            return None
