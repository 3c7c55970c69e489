"""All errors of wsthreads, grouped by their cause.

::

    WSThreadsError
    ├── UsageError                 the caller's mistake
    │   ├── ConfigError            (ValueError)  a setting out of range
    │   ├── MessageTypeError       (TypeError)   a message that is neither text nor bytes
    │   ├── CloseCodeError         (ValueError)  an invalid close code or reason
    │   ├── RoomNameError          (ValueError)  a room name that is not text, too short or too long
    │   ├── RoomLimitError         (ValueError)  a session is in too many rooms
    │   ├── HistoryError           (ValueError)  an invalid number of messages, or no history
    │   ├── PresenceError          (ValueError)  a presence value that is not JSON or too long; not a member
    │   ├── RoomStateError         (ValueError)  an attribute that is not JSON or too large; an invalid change
    │   ├── UserError              (ValueError)  a user name that is not text, too short or too long; an invalid ban
    │   ├── ExpiryError            (ValueError)  a time that is not a number of seconds since the epoch
    │   ├── HandlerError           (TypeError)   a handler without functions, or with a wrong signature
    │   └── ScriptError            a script that does not load; has file, line, column
    ├── PeerError                  the client's error; the server closes with `close_code`
    │   ├── ProtocolError          1002
    │   ├── UnsupportedDataError   1003
    │   ├── InvalidPayloadError    1007
    │   ├── PolicyError            1008
    │   └── MessageTooBigError     1009
    │       └── TooManyFragmentsError
    ├── PostError                  a post to a room was not handled, or this is not known
    ├── RequestError               the other side refused a request; raise it to refuse one
    ├── RequestTimeout             (TimeoutError) a request was not answered in time
    ├── SessionClosed              the session of a request has ended
    ├── SessionMoved               the session of a request has moved to another process
    ├── HandshakeRefused           the server refuses the upgrade with the HTTP status `status`
    └── BackendError               a part of wsthreads or of the machine failed
        ├── IsolateError           a script's interpreter has ended or cannot start
        └── BrokerError            the broker (Redis) does not accept a broadcast

These classes do no I/O and hold only text and numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = [
    "BackendError",
    "BrokerError",
    "CloseCode",
    "CloseCodeError",
    "ConfigError",
    "ExpiryError",
    "HandlerError",
    "HandshakeRefused",
    "HistoryError",
    "InvalidPayloadError",
    "IsolateError",
    "MessageTooBigError",
    "MessageTypeError",
    "PeerError",
    "PolicyError",
    "PostError",
    "PresenceError",
    "ProtocolError",
    "RequestError",
    "RequestTimeout",
    "RoomLimitError",
    "RoomNameError",
    "RoomStateError",
    "ScriptError",
    "SessionClosed",
    "SessionMoved",
    "TooManyFragmentsError",
    "UnsupportedDataError",
    "UsageError",
    "UserError",
    "WSThreadsError",
]


class CloseCode(IntEnum):
    """The close codes that this server sends or reports (RFC 6455, 7.4.1, and the IANA registry)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005  # never sent: the close frame of the other side had no code
    ABNORMAL = 1006  # never sent: the connection was lost
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    EXPIRED = 3000  # registered as "Unauthorized"; here, it means that the session has expired


#: After these codes, a client should not connect again, because it has made a mistake, or the server does not want it.
#: After other codes, it may try. `wsthreads.js` has the same list.
FINAL_CODES = frozenset({1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 3003})


def is_final(code: int) -> bool:
    """Whether a client should not connect again after this close code.

    Also returns True for the codes that applications define, 4000 to 4999.
    """
    return code in FINAL_CODES or 4000 <= code <= 4999


class WSThreadsError(Exception):
    """The base class of all errors that wsthreads raises on purpose."""


class UsageError(WSThreadsError):
    """A mistake of the code that calls wsthreads."""


class ConfigError(UsageError, ValueError):
    """A setting out of range or of the wrong type."""


class MessageTypeError(UsageError, TypeError):
    """A message that is neither text nor bytes."""


class CloseCodeError(UsageError, ValueError):
    """An invalid close code or reason."""


class RoomNameError(UsageError, ValueError):
    """A room name that is not text, or is too short or too long."""


class RoomLimitError(UsageError, ValueError):
    """A session has tried to join more rooms than `Config.max_rooms_per_session`."""


class HistoryError(UsageError, ValueError):
    """The number of messages is not a whole number or is more than the history keeps, or the history is off."""


class PresenceError(UsageError, ValueError):
    """A presence value that is not JSON or too long, or a value set by a session that is not a member of the room."""


class RoomStateError(UsageError, ValueError):
    """A room's attribute that is not JSON or is too large, or an invalid change of an attribute."""


class ExpiryError(UsageError, ValueError):
    """An expiry that is not a number of seconds since the epoch."""


class UserError(UsageError, ValueError):
    """A user name that is not text, too short or too long, or an invalid duration of a ban."""


class HandlerError(UsageError, TypeError):
    """A handler that cannot be used. It has no handler function, or a function or its `tick_rate` is not valid.

    `about` is the name of the wrong function, if there is one. `path` is the handler's file, if it has one. `line` and
    `column` count from 1, and are None if they are not known. The text of the error contains all of them.
    """

    path: str | None = None
    line: int | None = None
    column: int | None = None

    def __init__(self, message: str, about: str | None = None) -> None:
        self.about = about
        super().__init__(message)


class ScriptError(UsageError):
    """A script that cannot be loaded.

    `path` is the file. `line` and `column` count from 1, and are None if they are not known. The text of the error is
    ``path:line:column: message``.
    """

    def __init__(self, message: str, path: str, line: int | None = None, column: int | None = None) -> None:
        self.message, self.path, self.line, self.column = message, path, line, column
        place = ":".join(str(part) for part in (path, line, column) if part is not None)
        super().__init__(f"{place}: {message}")


class PeerError(WSThreadsError):
    """An error of the other side of the connection. The server closes the connection with `close_code`."""

    close_code = CloseCode.PROTOCOL_ERROR
    #: The setting of `Config` whose limit the other side has exceeded. Empty if no limit was exceeded.
    setting = ""


class ProtocolError(PeerError):
    """Bytes that are not valid WebSocket frames."""


class UnsupportedDataError(PeerError):
    """A kind of message that the endpoint does not accept, such as a binary message."""

    close_code = CloseCode.UNSUPPORTED_DATA


class InvalidPayloadError(PeerError):
    """Text that is not UTF-8."""

    close_code = CloseCode.INVALID_PAYLOAD


class PolicyError(PeerError):
    """The other side has exceeded a limit, such as the number of messages per second."""

    close_code = CloseCode.POLICY_VIOLATION

    def __init__(self, message: str, *, setting: str = "") -> None:
        super().__init__(message)
        self.setting = setting


class MessageTooBigError(PeerError):
    """A message larger than `Config.max_message_bytes`."""

    close_code = CloseCode.MESSAGE_TOO_BIG
    setting = "max_message_bytes"


class TooManyFragmentsError(MessageTooBigError):
    """A message in more frames than `Config.max_fragments`."""

    setting = "max_fragments"


class PostError(WSThreadsError):
    """A post to a room was not handled: the room has no members, too many posts wait, or the value is not valid.

    If `is_unknown` is True, the post may have been handled, or may be handled later. The room's owner has died, or was
    too slow.
    """

    def __init__(self, message: str, *, is_unknown: bool = False) -> None:
        self.is_unknown = is_unknown
        super().__init__(message)


class RequestError(WSThreadsError):
    """A request got no answer, because the other side has refused it, or because it could not be sent.

    Raise this error in `on_request` to refuse a request. The other side receives the error's text. After any other
    exception, the other side learns only that the request has failed.
    """


class RequestTimeout(WSThreadsError, TimeoutError):
    """A request was not answered in time. The other side may have handled it, or may handle it later."""


class SessionClosed(WSThreadsError):
    """The session of a request has ended. The other side may have handled the request.

    A `Client` also raises this error when it is closed and all messages have been received.
    """


class SessionMoved(WSThreadsError):
    """The session of a request has moved to another process, so this process gets no reply.

    Send the request again in `on_resume`.

    The session is still open. The client may have handled the request, or may handle it later.
    """


class HandshakeRefused(WSThreadsError):
    """An error to raise in `on_handshake`, which refuses a client with an HTTP status.

    `status` is from 400 to 599. `reason` becomes the body of the response. `headers` are pairs of text. Metrics count
    the refusals for each `cause`, so use only a few different values.
    """

    def __init__(
        self, status: int, reason: str = "", headers: Iterable[tuple[str, str]] = (), *, cause: str = "handler"
    ) -> None:
        if not isinstance(status, int) or not 400 <= status <= 599:
            raise ConfigError(f"a refusal needs an HTTP status from 400 to 599, not {status!r}")
        self.status, self.reason, self.headers, self.cause = status, reason, tuple(headers), cause
        for header in self.headers:
            _check_header(header)
        #: A WSGI application that makes the response, in place of `reason`.
        self.response: WSGIApplication | None = None
        super().__init__(f"{status} {reason}".strip())


def _check_header(header: tuple[str, str]) -> None:
    try:
        name, value = header
        if not (name + value).encode("latin-1").translate(None, b"\r\n\0") == (name + value).encode("latin-1"):
            raise ValueError
    except (TypeError, ValueError):
        raise ConfigError(f"a header of a refusal must be two texts of one line each, not {header!r:.200}") from None


class BackendError(WSThreadsError):
    """A part of wsthreads or of the machine failed."""


class IsolateError(BackendError):
    """The interpreter of a script has ended, or cannot run on this machine."""


class BrokerError(BackendError):
    """The broker (Redis) did not accept a broadcast or a call, or sent malformed data."""

    #: Whether the broadcast or the call may have taken effect in spite of this error.
    is_unknown = False


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun: ``1 room``, ``2 rooms``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def brief(value: object, chars: int = 40) -> str:
    """Returns the start of the repr of a wrong value, for the text of an error.

    Never raises an exception, even if the repr of a handler's class does. Python does not print whole numbers of more
    than 4,300 digits. For these, the text shows the number of bits.
    """
    try:
        return repr(value)[:chars]
    except Exception:
        kind = type(value).__name__
        return f"a number of {value.bit_length()} bits" if isinstance(value, int) else kind
