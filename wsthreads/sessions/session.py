"""A session, as a handler sees it: one client, from its handshake to the end of the session."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from threading import Lock, get_ident
from time import time
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

from wsthreads.errors import CloseCode, RequestError, UsageError
from wsthreads.protocol.encoding import PLAIN
from wsthreads.protocol.frames import check_close, message_frame
from wsthreads.protocol.handshake import check_expiry
from wsthreads.protocol.outbox import post
from wsthreads.rooms.names import is_hidden
from wsthreads.sessions.expiry import Expiry
from wsthreads.threads.blocking import has_interrupted

if TYPE_CHECKING:
    from wsthreads.protocol.handshake import Request
    from wsthreads.protocol.outbox import Outbox
    from wsthreads.rooms.handles import Peer, Room, SessionRoom, User
    from wsthreads.rooms.rooms import Rooms

__all__ = ["Session", "new_session_id"]


def new_session_id() -> str:
    """Make a session id: 22 characters of URL-safe base64, with 128 random bits.

    Nobody can guess an id. All ids are different.
    """
    return secrets.token_urlsafe(16)


class SessionRequests(Protocol):
    """The part of `Requests` that a session uses."""

    @property
    def is_asking(self) -> bool: ...

    def read(self, timeout_s: float) -> bool: ...

    def ask(self, message: str | bytes, timeout_s: float) -> str | bytes | None: ...

    def ask_later(self, message: str | bytes, timeout_s: float, done: Callable[[Any], None]) -> None: ...


class Channel(Protocol):
    """Sends and closes for a session. It is the `protocol.channel.Channel` of its connection, or a `Dialogue`."""

    outbox: Outbox
    #: The close code and the reason. Set when the session begins to close; nothing is sent after that. None before.
    ending: tuple[int, str] | None
    #: The subprotocol that was agreed on. None if there is none.
    subprotocol: str | None

    @property
    def is_connected(self) -> bool:
        """Whether the session has a connection that is not closing, as far as the server knows."""

    @property
    def requests(self) -> SessionRequests | None:
        """Sends requests to the client. None if the client's protocol has no requests."""

    @property
    def was_kicked(self) -> bool:
        """Whether the application has closed the session."""

    def begin_close(self, code: int, reason: str = "", *, is_kick: bool = False, is_expiry: bool = False) -> bool:
        """Begin to close. Returns False if the session is closing already. Does not block. Any thread.

        With `is_kick`, the application closes the session. With `is_expiry`, the session has expired.
        """


class SessionEndpoint(Protocol):
    """The part of `Endpoint` that its sessions use."""

    path: str

    def room(self, name: str) -> Room: ...

    def user(self, name: str) -> User: ...

    def session(self, session_id: str) -> Peer: ...

    def sessions(self) -> list[Session]: ...

    def session_count(self) -> int: ...

    def user_count(self) -> int: ...


class Session:
    """One client.

    All methods may be called from any thread and at any time: in finalizers (``__del__``), and after the end of the
    session, too. `attributes` is a plain dict: use a lock of your own if several threads change it together.
    """

    __slots__ = (
        "__weakref__",
        "_channel",
        "_ended",
        "_expiry",
        "_id",
        "_joined",
        "_membership",
        "_outbox",
        "_request_timeout_s",
        "_rooms",
        "_thread",
        "_user",
        "_wait_s",
        "attributes",
        "opened_at",
        "request",
    )

    def __init__(
        self,
        session_id: str,
        request: Request,
        channel: Channel,
        rooms: Rooms[Any],
        *,
        wait_s: float = 0.0,
        request_timeout_s: float = 10.0,
    ) -> None:
        self._id = session_id
        self._user = request.user
        #: The handshake: path, headers, parameters, address. Call this object to send a request (`Request.__call__`).
        self.request = request
        request._session = ref(self)
        #: Values that the handler keeps with this session.
        self.attributes: dict[str, Any] = request.attributes
        #: When the session began, in seconds since the epoch.
        self.opened_at = time()
        self._channel = channel
        self._outbox = channel.outbox
        self._rooms = rooms
        self._thread = get_ident()  # the id of the connection's thread; only this thread may wait in send()
        self._wait_s = wait_s
        self._request_timeout_s = request_timeout_s
        # Guards writes of _outbox, _joined and _ended. A thread that holds it takes only stripe locks.
        self._membership = Lock()
        self._joined: frozenset[str] = frozenset()
        self._ended = False
        self._expiry: Expiry | None = None

    @property
    def id(self) -> str:
        """The id of the session. Unique, impossible to guess, read-only."""
        return self._id

    @property
    def user(self) -> str | None:
        """The user that `on_handshake` has set. None if it has set none. Read-only."""
        return self._user

    def send(self, message: str | bytes, *, timeout: float | None = None, latest: str | None = None) -> bool:
        """Send text (a str) or binary (bytes) to this client. Returns False if the session is closed.

        Frames of concurrent calls are never mixed. Messages of one thread arrive in order. A lone surrogate in a str is
        sent as U+FFFD. Raises `MessageTypeError` for anything but str and bytes.

        `send` does not block. If more than `max_outbox_bytes` wait for the client, the session is closed with 1013.
        There is one exception: in a Python handler, in the session's own thread, `send` waits until there is space in
        the outbox. This wait takes at most `timeout` seconds. The default is `send_timeout_s`. So a handler may stream
        more than the outbox holds.

        With `latest`, a key of 1 to 256 characters, the message replaces a message with the same key that still waits
        for a slow client. See `Room.broadcast`. A session and each room have keys of their own.
        """
        frame = message_frame(message) if latest is None else message_frame(message, latest=latest)
        channel = self._channel
        outbox = channel.outbox
        if latest is not None:
            outbox.keep_short()
        if outbox.encoding is not PLAIN:
            frame = outbox.encoding.frame(frame)
        if outbox.is_blocked and self._thread == get_ident():
            wait_s = self._wait_s if timeout is None else timeout
            if wait_s > 0 and not has_interrupted():
                outbox.wait_for_room(len(frame), wait_s)
        return channel.ending is None and post(outbox, frame)

    def _post(self, frame: bytes, *, timeout: float | None = None) -> bool:
        """Send a frame, like `send`."""
        channel = self._channel
        outbox = channel.outbox
        if outbox.is_blocked and self._thread == get_ident():
            wait_s = self._wait_s if timeout is None else timeout
            if wait_s > 0 and not has_interrupted():
                outbox.wait_for_room(len(frame), wait_s)
        return channel.ending is None and post(outbox, frame)

    def _request(self, message: str | bytes, timeout_s: float | None) -> str | bytes | None:
        """Send a request to the client, and wait for the reply (see `Request.__call__`)."""
        return self._requests.ask(message, self._request_timeout_s if timeout_s is None else timeout_s)

    def _use(self, request: Request) -> None:
        """Replace the handshake by that with which the client has come back."""
        self.request = request
        request._session = ref(self)

    def _ask(self, message: str | bytes, timeout_s: float | None, done: Callable[[Any], None]) -> None:
        """Send a request to the client, without waiting for the reply.

        `done` is called once with the outcome, in any thread, without locks. Raises `MessageTypeError` for anything but
        str and bytes, and `RequestError` if the client does not speak ``wsthreads.1``.
        """
        self._requests.ask_later(message, self._request_timeout_s if timeout_s is None else timeout_s, done)

    @property
    def _requests(self) -> SessionRequests:
        requests = self._channel.requests
        if requests is None:
            raise RequestError("this client cannot take requests: it does not speak wsthreads.1")
        return requests

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Start the close handshake. Does nothing if the session is closing already. Does not block.

        `code` is 1000 to 1003, 1007 to 1014, or 3000 to 4999; `reason` is at most 123 bytes in UTF-8. Raises
        `CloseCodeError` for anything else (RFC 6455, 7.4 and 5.5).
        """
        check_close(code, reason)
        self._kick(code, reason)

    def _kick(self, code: int, reason: str) -> bool:
        """Close the session with a valid code and reason. Returns False if the session was closing already."""
        return self._channel.begin_close(code, reason, is_kick=True)

    @property
    def expires_at(self) -> float | None:
        """The time at which the session expires, in seconds since the epoch. None if it does not expire."""
        expiry = self._expiry
        return None if expiry is None else expiry.at

    def set_expiry(self, unix_s: float) -> None:
        """Close the session at this time, such as the expiry of a token, with 3000 and the reason "expired".

        A session that waits for its client at that time is not closed. The handshake with which the client returns
        decides.

        `unix_s` is in seconds since the epoch. A time in the past closes the session now. A later call replaces the
        time. Raises `ExpiryError` for anything but a finite number. Does nothing if the session is closed.
        """
        check_expiry(unix_s)
        self._expire_at(unix_s)
        self._check_expiry()

    def _expire_at(self, unix_s: float) -> None:
        """Like `set_expiry`, but a session without a connection stays open, even if the time has passed."""
        old = self._expiry
        self._expiry = expiry = Expiry(self, unix_s, self._rooms._roster.timers)
        if old is not None:
            old.cancel()
        expiry.look()

    def _check_expiry(self) -> None:
        """Close the session if it has expired, even if it has no connection."""
        if self._expiry is not None and self._expiry.is_due:
            self._expire()

    def _expire(self) -> None:
        self._channel.begin_close(CloseCode.EXPIRED, "expired", is_expiry=True)

    def is_open(self) -> bool:
        """Whether messages can be sent. False after `close`, after the client's close, and in `on_close`.

        True while the session waits for its client (`resume_s`), because messages are kept for the client.
        `is_connected` tells more.

        If the client vanishes while a handler runs, this becomes False when a `send` fails, or after at most
        `ping_interval_s` plus `ping_timeout_s`.
        """
        channel = self._channel
        return channel.ending is None and not channel.outbox.is_over

    def is_connected(self) -> bool:
        """Whether the session has a connection.

        False while the session waits for its client (`resume_s`), and when it is closed.

        Stays True until the server notices that the connection is lost.
        """
        return self._channel.is_connected

    def _give_up(self) -> None:
        """Forget the rooms in a forked process, because the session is that of the parent."""
        self._membership = Lock()  # another thread of the parent may have held the old lock
        self._joined, self._ended = frozenset(), True

    @property
    def request_path(self) -> str:
        """The path of the handshake's URI, without the query."""
        return self.request.request_path

    @property
    def remote_addr(self) -> str:
        """The client's IP address. Behind trusted proxies, this is the address in their headers."""
        return self.request.remote_addr

    @property
    def path_parameters(self) -> Mapping[str, Any]:
        """The parameters of a path such as ``/ws/rooms/<name>``, decoded and converted.

        Read-only. Empty if the path has no parameters.
        """
        return self.request.path_parameters

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was agreed on. None if there is none."""
        return self._channel.subprotocol

    def get_parameter(self, name: str) -> str | None:
        """The first value of a query parameter in the URI of the handshake, URL-decoded. None if there is none."""
        return self.request.get_parameter(name)

    def get_header(self, name: str) -> str | None:
        """A header of the handshake. None if there is none. The case of `name` does not matter."""
        return self.request.get_header(name)

    @property
    def endpoint(self) -> SessionEndpoint:
        """The `Endpoint` of this session. It gives access to users, other sessions and rooms.

        Raises `UsageError` if the app does not exist any more.
        """
        endpoint: SessionEndpoint | None = self._rooms.owner()
        if endpoint is None:
            raise UsageError("the session has ended, and its app does not exist any more")
        return endpoint

    def room(self, name: str) -> SessionRoom:
        """A handle on a room of this endpoint. The session does not join the room. Raises `RoomNameError`."""
        return self._rooms.for_session(name, self)

    def rooms(self) -> list[str]:
        """The names of the rooms that this session is in, sorted."""
        return sorted(name for name in self._joined if not is_hidden(name))

    def __repr__(self) -> str:
        return f"<Session {self._id} {'open' if self.is_open() else 'closed'}>"
