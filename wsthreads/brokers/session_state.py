"""Encodes the state of a session that moves between two processes.

::

    wsthreads session 1 <mark>\\n
    <number of bytes of the JSON>\\n
    <JSON><messages><frames>

The JSON is an object with the fields of `SessionState`. In place of the last two fields, it has the kinds and sizes of
the messages, and the sizes of the frames. The bytes of the messages and frames follow the JSON, without separators. The
mark is random, so any two states of one session have different first lines. `session_scripts` compares only these.

Bytes that do not match the format are refused with a `StateError`. The text of the error has nothing of the content. A
state does not have the secrets of a session, only their SHA-256.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import Any

from wsthreads.brokers.positions import Position
from wsthreads.errors import BrokerError
from wsthreads.protocol.frames import check_close
from wsthreads.rooms.json_text import is_json_text
from wsthreads.sessions.moves import Ended

__all__ = [
    "ENDED",
    "MAX_STATE_BYTES",
    "VERSION",
    "PresenceState",
    "SessionState",
    "StateError",
    "decode_end",
    "decode_state",
    "encode_end",
    "encode_state",
]

#: The version of the format. A process resumes no session of another version.
VERSION = 1

#: The first bytes of the value for a session that the server has closed. A JSON list follows these bytes.
ENDED = b"ended "

#: The largest state, in bytes. A session with a larger state cannot move.
MAX_STATE_BYTES = 16 * 1024 * 1024

#: The largest number of messages or requests.
MAX_COUNT = 2**53 - 1

#: The latest time, in seconds since the epoch.
MAX_TIME = 1e11

MAX_SECRETS = 16
MAX_TEXT = 4096

_HEAD = re.compile(rb"wsthreads session %d ([A-Za-z0-9_-]{16})\n([1-9][0-9]{0,8})\n" % VERSION)
_ID = re.compile("[A-Za-z0-9_-]{1,40}", re.ASCII)
_HASH = re.compile("[0-9a-f]{64}", re.ASCII)
_EPOCH = re.compile("[A-Za-z0-9_-]{0,40}", re.ASCII)
_ENTRY = re.compile("[0-9]{1,18}-[0-9]{1,18}", re.ASCII)


class StateError(BrokerError):
    """The bytes are not a session in this version of the format."""


@dataclass(frozen=True, slots=True)
class PresenceState:
    """The presence of a session in a room. The fields are as in `rooms.presence.Entry`."""

    value: str
    since: float
    set_at: int
    version: int


@dataclass(frozen=True, slots=True)
class SessionState:
    """The complete state of a session, without what belongs to its connection."""

    id: str
    #: The SHA-256 of each valid secret, in hexadecimal digits. The first one is of the secret that the client showed
    #: last.
    secrets: list[str]
    user: str | None
    origin: str | None
    #: The name of the session's `Encoding`, and the subprotocol that the application uses.
    encoding: str
    subprotocol: str | None
    #: The attributes, as the JSON text of an object.
    attributes: str
    opened_at: float
    expires_at: float | None
    #: How many messages of the client this server has received, and how many messages the client has acknowledged.
    received: int
    acknowledged: int
    #: The id of the last request to the client, and of the last request of the client. `unanswered` has the client's
    #: requests without a reply.
    asked: int
    heard: int
    unanswered: list[int]
    #: The session's positions in the logs of its rooms, and in the log of messages for single sessions.
    positions: dict[str, Position]
    #: The session's presence, by room.
    presences: dict[str, PresenceState]
    #: Messages of the client that the handler has not received yet. The messages have the form in which they arrived,
    #: so that requests can be told apart.
    messages: list[str | bytes] = field(repr=False)
    #: The encoded frames that the client has not acknowledged.
    frames: list[bytes] = field(repr=False)


def encode_state(state: SessionState) -> tuple[bytes, bytes]:
    """Encode a session. Returns the bytes and their first line, which is unique.

    Raises `StateError` if the bytes are too many.
    """
    own = {each.name: getattr(state, each.name) for each in fields(state)}
    own["positions"] = {
        name: [position.epoch.decode(), position.number, position.id.decode()]
        for name, position in state.positions.items()
    }
    own["presences"] = {
        name: [each.value, each.since, each.set_at, each.version] for name, each in state.presences.items()
    }
    parts = [
        message.encode("utf-8", "surrogatepass") if isinstance(message, str) else message for message in state.messages
    ]
    kinds = ["t" if isinstance(message, str) else "b" for message in state.messages]
    own["messages"] = [[kind, len(part)] for kind, part in zip(kinds, parts, strict=True)]
    own["frames"] = [len(frame) for frame in state.frames]
    head = f"wsthreads session {VERSION} {secrets.token_urlsafe(12)}\n".encode()
    text = json.dumps(own, allow_nan=False, separators=(",", ":")).encode()
    data = b"".join((head, b"%d\n" % len(text), text, *parts, *state.frames))
    if len(data) > MAX_STATE_BYTES:
        raise StateError(f"a session of {len(data)} bytes; at most {MAX_STATE_BYTES} can move to another process")
    return data, head


def decode_state(data: bytes) -> tuple[SessionState, bytes]:
    """Decode a session from the bytes of `encode_state`. Also returns their first line. Raises `StateError`."""
    head = _HEAD.match(data)
    if head is None or len(data) > MAX_STATE_BYTES:
        raise StateError(f"{len(data)} bytes that are not a session in version {VERSION} of the format")
    at = head.end() + int(head[2])
    try:
        own = json.loads(data[head.end() : at].decode("ascii"))
        if not isinstance(own, dict) or own.keys() != _CHECKS.keys():
            raise ValueError
        for name, check in _CHECKS.items():
            own[name] = check(own[name])
        messages, frames = [], []
        for kind, size in own["messages"]:
            part, at = _part(data, at, size)
            messages.append(part.decode("utf-8", "surrogatepass") if kind == "t" else part)
        for size in own["frames"]:
            part, at = _part(data, at, size)
            frames.append(_frame(part))
        if at != len(data):
            raise ValueError
    except (ValueError, TypeError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise StateError(f"a session of {len(data)} bytes that is malformed") from None
    return SessionState(**{**own, "messages": messages, "frames": frames}), data[: head.start(2)]


def encode_end(ended: Ended) -> bytes:
    """Encode the ending of a session."""
    return ENDED + json.dumps(astuple(ended), separators=(",", ":")).encode()


def decode_end(data: bytes) -> Ended:
    """Decode the ending of a session from the bytes of `encode_end`. Raises `StateError`."""
    try:
        code, reason, digests, user, origin = json.loads(data.removeprefix(ENDED).decode("ascii"))
        check_close(code, reason)
        return Ended(code, reason, _CHECKS["secrets"](digests), _CHECKS["user"](user), _CHECKS["origin"](origin))
    except (ValueError, TypeError, RecursionError):  # UnicodeDecodeError and CloseCodeError are ValueErrors
        raise StateError(f"no valid record of how a session has ended ({len(data)} bytes)") from None


def _part(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    part = data[at : at + size]
    if len(part) != size:
        raise ValueError("too short")
    return part, at + size


def _frame(data: bytes) -> bytes:
    """Check that the data is exactly one complete, unmasked frame of a text or binary message, perhaps deflated."""
    if len(data) < 2 or data[0] not in (0x81, 0x82, 0xC1, 0xC2):
        raise ValueError("no message")
    start = {126: 4, 127: 10}.get(data[1], 2)
    size = int.from_bytes(data[2:start], "big") if start > 2 else data[1]
    if size != len(data) - start or data[1] > 127:
        raise ValueError("a frame of another length")
    return data


# The checks of the fields. Each check returns the value, or raises ValueError or TypeError.


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError("no text")
    return value


def _json_object(value: Any) -> str:
    if not isinstance(value, str) or not isinstance(json.loads(value), dict):
        raise ValueError("no JSON object")
    return value


def _matching(pattern: re.Pattern[str]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError("another text")
        return value

    return check


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise ValueError("no count")
    return value


def _time(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_TIME:
        raise ValueError("no time")
    return float(value)


def _optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


def _list(check: Callable[[Any], Any], least: int = 0, most: int = 10**7) -> Callable[[Any], list[Any]]:
    def check_all(value: Any) -> list[Any]:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise ValueError("no list")
        return [check(each) for each in value]

    return check_all


def _by_room(check: Callable[[Sequence[Any]], Any], size: int) -> Callable[[Any], dict[str, Any]]:
    def check_all(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(
            isinstance(each, list) and len(each) == size for each in value.values()
        ):
            raise ValueError("no rooms")
        return {name: check(each) for name, each in value.items()}

    return check_all


def _position(value: Sequence[Any]) -> Position:
    return Position(_matching(_EPOCH)(value[0]).encode(), _count(value[1]), _matching(_ENTRY)(value[2]).encode())


def _presence(value: Sequence[Any]) -> PresenceState:
    text, since, set_at, version = value
    if not isinstance(text, str) or not is_json_text(text):
        raise ValueError("no JSON")
    return PresenceState(text, _time(since), _count(set_at), _count(version))


def _message(value: Any) -> tuple[str, int]:
    kind, size = value
    if kind not in ("t", "b"):
        raise ValueError("no kind of message")
    return kind, _count(size)


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "id": _matching(_ID),
    "secrets": _list(_matching(_HASH), 1, MAX_SECRETS),
    "user": _optional(_text),
    "origin": _optional(_text),
    "encoding": _text,
    "subprotocol": _optional(_text),
    "attributes": _json_object,
    "opened_at": _time,
    "expires_at": _optional(_time),
    "received": _count,
    "acknowledged": _count,
    "asked": _count,
    "heard": _count,
    "unanswered": _list(_count),
    "positions": _by_room(_position, 3),
    "presences": _by_room(_presence, 4),
    "messages": _list(_message),
    "frames": _list(_count),
}
