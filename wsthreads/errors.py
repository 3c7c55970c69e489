"""All errors of wsthreads, by who caused them.

::

    WSThreadsError
    ├── UsageError                 the caller's mistake
    │   ├── ConfigError            (ValueError)  a setting out of range
    │   ├── MessageTypeError       (TypeError)   a message that is neither text nor bytes
    │   ├── CloseCodeError         (ValueError)  a close code or reason that may not be sent
    │   ├── RoomNameError          (ValueError)  a room name that is not 1 to 256 characters of text
    │   ├── RoomLimitError         (ValueError)  one room more than a session may be in
    │   ├── HandlerError           (TypeError)   a handler without functions, or with a function of a wrong form
    │   └── ScriptError            a script that does not load: file, line, column
    ├── PeerError                  the client's fault; it is closed with `close_code`
    │   ├── ProtocolError          1002
    │   ├── UnsupportedDataError   1003
    │   ├── InvalidPayloadError    1007
    │   ├── PolicyError            1008
    │   └── MessageTooBigError     1009
    │       └── TooManyFragmentsError
    ├── HandshakeRefused           no upgrade; `status` is the HTTP status of the answer
    └── BackendError               a part of wsthreads or of the machine failed
        ├── IsolateError           the interpreter of a script has ended or cannot start
        └── BrokerError            the broker (Redis) does not take a broadcast

No class here does I/O or holds more than its own text and numbers.
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
    "HandlerError",
    "HandshakeRefused",
    "InvalidPayloadError",
    "IsolateError",
    "MessageTooBigError",
    "MessageTypeError",
    "PeerError",
    "PolicyError",
    "ProtocolError",
    "RoomLimitError",
    "RoomNameError",
    "ScriptError",
    "TooManyFragmentsError",
    "UnsupportedDataError",
    "UsageError",
    "WSThreadsError",
]


class CloseCode(IntEnum):
    """The close codes that this server sends or reports (RFC 6455, 7.4.1, and the IANA registry)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005  # reported only: the peer's close frame had no code
    ABNORMAL = 1006  # reported only: the connection was lost
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013


class WSThreadsError(Exception):
    """The root of every error that wsthreads raises on purpose."""


class UsageError(WSThreadsError):
    """The caller's mistake."""


class ConfigError(UsageError, ValueError):
    """A setting out of range or of the wrong type."""


class MessageTypeError(UsageError, TypeError):
    """A message that is neither text nor bytes."""


class CloseCodeError(UsageError, ValueError):
    """A close code or reason that may not be sent."""


class RoomNameError(UsageError, ValueError):
    """A room name that is not text of a permitted length."""


class RoomLimitError(UsageError, ValueError):
    """A session tried to join one room more than it may."""


class HandlerError(UsageError, TypeError):
    """A handler that has none of the handler functions, or one that cannot be called.

    `about` is the name that is wrong, if it is a single one. If the handler is a file, `path` names it. `line` and
    `column` count from 1, if they are known. The text contains them, too.
    """

    path: str | None = None
    line: int | None = None
    column: int | None = None

    def __init__(self, message: str, about: str | None = None) -> None:
        self.about = about
        super().__init__(message)


class ScriptError(UsageError):
    """A script that cannot be loaded.

    `path` is the file. `line` and `column` count from 1, and are None if they are not known.
    `str()` gives ``path:line:column: message``.
    """

    def __init__(self, message: str, path: str, line: int | None = None, column: int | None = None) -> None:
        self.message, self.path, self.line, self.column = message, path, line, column
        place = ":".join(str(part) for part in (path, line, column) if part is not None)
        super().__init__(f"{place}: {message}")


class PeerError(WSThreadsError):
    """The peer's fault; the connection is closed with `close_code`."""

    close_code = CloseCode.PROTOCOL_ERROR
    #: The setting of `Config` whose bound the peer went past; empty if it was none.
    setting = ""


class ProtocolError(PeerError):
    """Bytes that are not legal WebSocket frames."""


class UnsupportedDataError(PeerError):
    """A kind of message that the endpoint does not accept."""

    close_code = CloseCode.UNSUPPORTED_DATA


class InvalidPayloadError(PeerError):
    """Text that is not UTF-8."""

    close_code = CloseCode.INVALID_PAYLOAD


class PolicyError(PeerError):
    """More of something than the peer may use."""

    close_code = CloseCode.POLICY_VIOLATION

    def __init__(self, message: str, *, setting: str = "") -> None:
        super().__init__(message)
        self.setting = setting


class MessageTooBigError(PeerError):
    """A message over `Config.max_message_bytes`."""

    close_code = CloseCode.MESSAGE_TOO_BIG
    setting = "max_message_bytes"


class TooManyFragmentsError(MessageTooBigError):
    """A message in more frames than `Config.max_fragments`."""

    setting = "max_fragments"


class HandshakeRefused(WSThreadsError):
    """Raise it in `on_handshake` to refuse a client with an HTTP status of your own.

    `status` is from 400 to 599, `reason` becomes the body of the answer, `headers` are pairs of text. Refusals are
    counted by `cause`, one of a few words.
    """

    def __init__(
        self, status: int, reason: str = "", headers: Iterable[tuple[str, str]] = (), *, cause: str = "handler"
    ) -> None:
        if not isinstance(status, int) or not 400 <= status <= 599:
            raise ConfigError(f"a refusal needs an HTTP status from 400 to 599, not {status!r}")
        self.status, self.reason, self.headers, self.cause = status, reason, tuple(headers), cause
        for header in self.headers:
            _check_header(header)
        #: A WSGI application that answers in place of the reason.
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
    """The broker (Redis) does not take a broadcast, or sends something that is not a broadcast."""
