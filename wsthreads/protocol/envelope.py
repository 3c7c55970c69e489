"""The grammar of the subprotocol ``wsthreads.1``: parses messages and writes each kind.

Ordinary messages are sent unchanged. All other messages begin with the byte DLE (0x10, U+0010): ``DLE DLE`` begins an
ordinary message whose first byte is DLE, and ``DLE`` with a letter begins a message of another kind. See
``docs/reference/protocol``.

Each side counts the *counted* messages that it receives, and acknowledges them: all messages except hello, welcome,
acknowledgements and heartbeats. The sender keeps counted messages until then, in case the connection is lost.

Pure functions, no state, no I/O. `parse` accepts the messages of both sides. The caller checks which side may send a
message, and when. Functions that write a message return it for `frames.message_frame`. Ordinary messages must be
`escaped` before, other messages must not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from wsthreads._native import speedups
from wsthreads.errors import ProtocolError, brief
from wsthreads.protocol.envelope_messages import (
    Ack,
    Failure,
    Heartbeat,
    Hello,
    NullReply,
    Parsed,
    Reply,
    Request,
    Welcome,
)
from wsthreads.protocol.frames import MarkedFrame, encode_frame

__all__ = [
    "ACK_BYTES",
    "ACK_MESSAGES",
    "AWAY_CODE",
    "CLIENT_ACK_MESSAGES",
    "DLE",
    "MAX_HELLO_CHARS",
    "MAX_NUMBER",
    "SUBPROTOCOL",
    "Ack",
    "Failure",
    "Heartbeat",
    "Hello",
    "NullReply",
    "Parsed",
    "Reply",
    "Request",
    "Welcome",
    "ack",
    "escaped",
    "escaped_frame",
    "failure",
    "heartbeat",
    "hello",
    "is_control",
    "is_counted",
    "null_reply",
    "parse",
    "reply",
    "request",
    "usual_request",
    "welcome",
]

SUBPROTOCOL = "wsthreads.1"

DLE = "\x10"
_DLE = b"\x10"

#: A page that will come back closes its connection with this code, because pages cannot send 1001 (going away).
AWAY_CODE = 4901

#: The largest number in a message. JavaScript's numbers represent all whole numbers up to this one exactly.
MAX_NUMBER = 2**53 - 1

#: A server sends an acknowledgement when it has received this many messages, or bytes, since its last one. A client
#: acknowledges less often, because it receives more messages, and each acknowledgement wakes a thread of the server.
ACK_MESSAGES = 64
CLIENT_ACK_MESSAGES = 1024
ACK_BYTES = 65536

#: While its unacknowledged messages have this many bytes, a client sends no further message. (Each message counts for
#: WINDOW_MESSAGE_BYTES more than it has.) If messages come faster than `max_messages_per_s`, the server holds them for
#: a while. The server has space for this many bytes, so it can read on. So it also receives the acknowledgements that
#: come after these messages: see `rate_limit`.
CLIENT_WINDOW_BYTES = 786_432
WINDOW_MESSAGE_BYTES = 100

#: The longest JSON text of a hello or a welcome.
MAX_HELLO_CHARS = 4096

_NUMBER = re.compile("0|[1-9][0-9]{0,15}")
_USUAL_ID = re.compile("([1-9][0-9]{0,14}):")  # ids that are certainly below MAX_NUMBER; `_id_at` reads all others
_USUAL_REQUEST = re.compile("\x10q([1-9][0-9]{0,14}):")
_USUAL_BYTES_REQUEST = re.compile(b"\x10q([1-9][0-9]{0,14}):")
_TOKEN = re.compile("[!-~]{1,256}")

#: The letters of the client's control messages (hello, acknowledgement, heartbeat), which no handler gets.
_CONTROLS = frozenset("hap")

#: The letters of the messages that are not counted.
_UNCOUNTED = b"hwap"


# Reading


def parse(message: str | bytes) -> Parsed:
    """Parse a message. Raises `ProtocolError` (1002) for a message that this subprotocol does not allow."""
    if isinstance(message, str):
        return message if message[:1] != DLE else _parse_text(message)
    return message if message[:1] != _DLE else _parse_bytes(message)


def usual_request(message: str | bytes) -> tuple[int, str | bytes] | None:
    """Returns the id and the data of a request. Returns None for other messages.

    Also returns None for a request whose id is long or malformed. `parse` reads these.

    C version: `request_id` in `_native/_fast_path.c`.
    """
    found = _USUAL_REQUEST.match(message) if isinstance(message, str) else _USUAL_BYTES_REQUEST.match(message)
    return None if found is None else (int(found[1]), message[found.end() :])


def is_control(message: str | bytes) -> bool:
    """Whether a client's message is a hello, an acknowledgement or a heartbeat.

    Limits for messages do not apply to these.
    """
    return isinstance(message, str) and message[:1] == DLE and message[1:2] in _CONTROLS


def _parse_text(message: str) -> Parsed:
    letter = message[1:2]
    if letter == DLE:
        return message[1:]
    parser = _PARSERS.get(letter)
    if parser is None:
        raise ProtocolError(f"a message begins with DLE and {brief(letter)}, which wsthreads.1 does not have")
    return parser(message)


def _parse_bytes(message: bytes) -> Parsed:
    mark = message[1:2]
    if mark == _DLE:
        return message[1:]
    if mark not in (b"q", b"r"):
        raise ProtocolError(f"a binary message begins with DLE and {brief(mark)}, which wsthreads.1 does not have")
    number, at = _id_at(message[2:19].decode("latin-1"))  # latin-1 leaves digits unchanged, and decodes any byte
    data = message[2 + at :]
    return Request(number, data) if mark == b"q" else Reply(number, data)


def _shown(digits: str) -> str:
    """Returns the form of an invalid number in an error's text: the number itself, but only if it has only digits.

    Any other text may be the secret token of a client with an error, and is not shown.
    """
    return brief(digits) if digits.isascii() and digits.isdigit() else f"a text of {len(digits)} characters"


def _number(digits: str) -> int:
    if _NUMBER.fullmatch(digits) is None or (number := int(digits)) > MAX_NUMBER:
        raise ProtocolError(f"{_shown(digits)} is not a number from 0 to {MAX_NUMBER}")
    return number


def _id(digits: str) -> int:
    number = _number(digits)
    if not number:
        raise ProtocolError("the id of a request must be at least 1")
    return number


def _id_at(head: str) -> tuple[int, int]:
    """Returns the id at the beginning of `head`, and the place after the colon, where the data begins."""
    digits, colon, _ = head.partition(":")
    if not colon:
        raise ProtocolError("a request, a reply or a failure does not begin with an id and a colon")
    return _id(digits), len(digits) + 1


def _split(message: str) -> tuple[int, str]:
    found = _USUAL_ID.match(message, 2)
    if found is not None:
        return int(found[1]), message[found.end() :]
    number, at = _id_at(message[2:19])
    return number, message[2 + at :]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object(text: str, kind: str) -> dict[str, Any]:
    if len(text) > MAX_HELLO_CHARS:
        raise ProtocolError(f"a {kind} has {len(text)} characters, at most {MAX_HELLO_CHARS} are allowed")
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):  # without the text of the JSON error, which may contain the token
        raise ProtocolError(f"a {kind} is not JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"a {kind} is not a JSON object")
    return value


def _field(value: dict[str, Any], key: str, kind: type[Any]) -> Any:
    """Returns a field of a hello or welcome. No error shows the field's value, because it may be the token."""
    found: Any = value.get(key)
    if type(found) is not kind or (isinstance(found, int) and not 0 <= found <= MAX_NUMBER):
        raise ProtocolError(f"{key!r} is missing or wrong in a hello or welcome")
    return found


def _token(value: dict[str, Any]) -> str:
    token: str = _field(value, "token", str)
    if _TOKEN.fullmatch(token) is None:
        raise ProtocolError("'token' must be 1 to 256 visible ASCII characters in a hello or welcome")
    return token


def _text_or_none(value: dict[str, Any], key: str) -> str | None:
    return None if value.get(key) is None else _field(value, key, str)


def _parse_hello(text: str) -> Hello:
    value = _object(text, "hello")
    if "resume" not in value:
        return Hello()
    resume = _field(value, "resume", dict)
    return Hello(_token(resume), _field(resume, "received", int))


def _parse_welcome(text: str) -> Welcome:
    value = _object(text, "welcome")
    return Welcome(
        resumed=_field(value, "resumed", bool),
        token=None if value.get("token") is None else _token(value),
        received=_field(value, "received", int),
        resume_ms=_field(value, "resumeMs", int),
        heartbeat_ms=_field(value, "heartbeatMs", int),
        timeout_ms=_field(value, "timeoutMs", int),
        protocol=_text_or_none(value, "protocol"),
        why=_text_or_none(value, "why"),
    )


_PARSERS: dict[str, Callable[[str], Parsed]] = {
    "h": lambda message: _parse_hello(message[2:]),
    "w": lambda message: _parse_welcome(message[2:]),
    "a": lambda message: Ack(_number(message[2:])),
    "p": lambda message: Heartbeat(_number(message[2:])),
    "q": lambda message: Request(*_split(message)),
    "r": lambda message: Reply(*_split(message)),
    "n": lambda message: NullReply(_id(message[2:])),
    "e": lambda message: Failure(*_split(message)),
}


# Writing


def escaped(message: str | bytes) -> str | bytes:
    """Returns an ordinary message in the form in which it is sent."""
    if isinstance(message, str):
        return message if message[:1] != DLE else DLE + message
    return message if message[:1] != _DLE else _DLE + message


def escaped_frame(frame: bytes) -> bytes:
    """Like `escaped`, but takes and returns the plain frame of an ordinary message.

    Returns the same object if nothing needs an escape. Keeps the marks of a `MarkedFrame`.
    """
    if 0x10 not in frame[2:11]:  # the payload, and so its first byte, begins at one of these bytes
        return frame
    at = _payload_at(frame)
    if frame[at : at + 1] != _DLE:
        return frame
    longer = encode_frame(frame[0] & 0x0F, _DLE + frame[at:])
    return frame.like(longer) if isinstance(frame, MarkedFrame) else longer


_PYTHON = escaped_frame  # the Python version, for tests
if speedups is not None and not TYPE_CHECKING:
    escaped_frame = speedups.escaped_frame


def hello(token: str | None = None, received: int = 0) -> str:
    """Writes the client's first message."""
    return f"{DLE}h" + _json({} if token is None else {"resume": {"token": token, "received": received}})


def welcome(message: Welcome) -> str:
    """Writes the server's first message."""
    value = {
        "resumed": message.resumed,
        "token": message.token,
        "received": message.received,
        "resumeMs": message.resume_ms,
        "heartbeatMs": message.heartbeat_ms,
        "timeoutMs": message.timeout_ms,
        "protocol": message.protocol,
    }
    if message.why is not None:
        value["why"] = message.why
    return f"{DLE}w" + _json(value)


def ack(received: int) -> str:
    """Writes an acknowledgement: this many counted messages have arrived since the session began."""
    return f"{DLE}a{received}"


def heartbeat(received: int) -> str:
    """Writes a heartbeat: an acknowledgement that the server answers at once."""
    return f"{DLE}p{received}"


def request(number: int, data: str | bytes) -> str | bytes:
    """Writes a request. Its reply will have the same number."""
    head = f"\x10q{number}:"
    return head + data if isinstance(data, str) else head.encode() + data


def reply(number: int, data: str | bytes) -> str | bytes:
    """Writes the reply to a request."""
    head = f"\x10r{number}:"
    return head + data if isinstance(data, str) else head.encode() + data


def null_reply(number: int) -> str:
    """Writes the reply to a request, for a reply without data."""
    return f"{DLE}n{number}"


def failure(number: int, reason: str) -> str:
    """Writes the message that a request has failed."""
    return f"{DLE}e{number}:{reason}"


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


# Frames of the server


def is_counted(frame: bytes) -> bool:
    """Whether a frame for the client is a counted message. C version: `keep` in `_native/_sending.c`."""
    first = frame[0]
    # not an uncompressed text frame: binary and deflated messages are counted, control frames are not
    if first != 0x81:
        return first in (0x82, 0xC1, 0xC2)
    at = _payload_at(frame)
    return not (frame[at : at + 1] == _DLE and len(frame) > at + 1 and frame[at + 1] in _UNCOUNTED)


def _payload_at(frame: bytes) -> int:
    size = frame[1]
    return 2 if size < 126 else 4 if size == 126 else 10
