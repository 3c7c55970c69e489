"""Encodes and decodes the messages between processes: `encode_*` and `decode`.

::

    4 <sender> <ticket> <session> <kind><marks>\n<key><payload>

======== ============================================================================== field meaning ========
============================================================================== 4 `VERSION` of the format sender the
process that sent the message; a dash for kind ``p`` ticket a number that this sender gives to each of its messages;
each is higher session the id of a session, or a dot kind see below marks of a message: ``-`` if no history stores it;
``=`` and the number of bytes of
          the key, if it replaces an earlier one with the same key (`MarkedFrame`)
key       in UTF-8, perhaps with lone surrogates
payload   what the client receives, or JSON
========  ==============================================================================

=====  =============================================  =====================================================
kind   what it is                                     session and payload
=====  =============================================  =====================================================
t, b   a broadcast of text, of bytes                  the session that does not receive it; the message
T, B   text, or bytes, for one session                the session; the message
c      close one session, or all members of a room    the session; ``[code, reason, ban_s]``. ``ban_s`` is 0
                                                      unless the room is the hidden room of a user
p      the presence of a session has changed          the session; see `presence_payload`
=====  =============================================  =====================================================

The ticket serves two purposes. Redis and the receivers recognise a message that was sent twice, and the sender
recognises its own message when it comes back from Redis. A change of presence needs no ticket: its version tells
whether it is newer than the stored one.

To add a kind of message, add a class with its fields, an encoder, and a line in `_DECODERS` here, and a handler in
`arrivals.HANDLERS`. Everything between encoder and handler treats all kinds alike: the queue, the log in Redis,
resending, duplicates.

A message that does not match the format is refused. The version also stands for how Redis keeps and publishes messages
(see `keys`). Processes with different versions do not understand each other: each drops what the other sends, and
counts it as ``broker_malformed``. Version 1 had no tickets, version 2 had only broadcasts, and version 3 had no marks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

from wsthreads.errors import BrokerError, CloseCodeError
from wsthreads.protocol.frames import BINARY, MAX_LATEST_CHARS, TEXT, MarkedFrame, check_close, encode_frame
from wsthreads.rooms.json_text import is_json_text

__all__ = [
    "MAX_HEAD_BYTES",
    "VERSION",
    "Broadcast",
    "Close",
    "Direct",
    "Message",
    "PresenceChange",
    "decode",
    "decode_presence",
    "encode_broadcast",
    "encode_close",
    "encode_direct",
    "parse_ban",
    "parse_presences",
    "parse_stored",
    "presence_payload",
    "whole",
]

VERSION = 4

#: The first line of a message is shorter than this.
MAX_HEAD_BYTES = 160

#: The largest times in a message, in seconds: the time of a clock, and a duration.
MAX_TIME = 1e11
MAX_S = 366 * 86400

#: The largest version. Lua compares versions as doubles, which are exact up to this number.
MAX_VERSION = 2**53

_KINDS = {TEXT: b"t", BINARY: b"b"}
_DIRECT_KINDS = {TEXT: b"T", BINARY: b"B"}


class Broadcast(NamedTuple):
    """A broadcast to the members of a room."""

    sender: bytes
    ticket: int
    exclude_id: str | None
    frame: bytes


class Direct(NamedTuple):
    """A message for one session. All processes with sessions of the endpoint receive it, in a hidden room."""

    sender: bytes
    ticket: int
    session_id: str
    message: str | bytes
    latest: str | None = None


class Close(NamedTuple):
    """An order to close all members of a room, or one session."""

    sender: bytes
    ticket: int
    session_id: str | None
    code: int
    reason: str
    #: How long the user of this hidden room is banned, in seconds from the publication on.
    ban_s: float


class PresenceChange(NamedTuple):
    """The new presence of one session in a room, or the end of the presence. Has no sender and no ticket."""

    session_id: str
    version: int
    #: None if the session has left. The other fields then have no meaning.
    value: str | None
    process: str = ""
    user: str | None = None
    since: float = 0.0
    set_at: int = 0
    #: None if the session has a connection. Otherwise, for how many seconds the session is kept, from the publication
    #: on.
    lost_s: float | None = None
    #: Whether the session is moving to another process, and so has not ended.
    waits: bool = False


#: A message of any kind.
Message: TypeAlias = Broadcast | Direct | Close | PresenceChange


def encode_broadcast(sender: str, ticket: int, exclude_id: str | None, frame: bytes) -> bytes:
    """Encode a broadcast for other processes. `frame` is the plain frame, and may be a `MarkedFrame`."""
    return _encode(sender, ticket, exclude_id, _KINDS[frame[0] & 0x0F], _payload(frame), frame)


def encode_direct(sender: str, ticket: int, session_id: str, frame: bytes) -> bytes:
    """Encode a message for one session. `frame` is as for `encode_broadcast`."""
    return _encode(sender, ticket, session_id, _DIRECT_KINDS[frame[0] & 0x0F], _payload(frame), frame)


def encode_close(sender: str, ticket: int, session_id: str | None, code: int, reason: str, ban_s: float = 0.0) -> bytes:
    """Encode an order to close all members of a room, or one session."""
    return _encode(sender, ticket, session_id, b"c", json.dumps([code, reason, round(ban_s, 3)]).encode())


def presence_payload(change: PresenceChange) -> bytes:
    """Encode the payload of a `PresenceChange`.

    The first line of the payload is a JSON list of all fields except the session and the value. The value is in the
    next line. The last field is only there if the session is moving (`waits`). For a session that has left, the payload
    is only ``[version]``.
    """
    if change.value is None:
        return b"[%d]" % change.version
    lost_s = None if change.lost_s is None else round(change.lost_s, 3)
    fields = [change.version, change.set_at, change.since, change.process, change.user, lost_s]
    if change.waits:
        fields.append(True)
    return f"{json.dumps(fields, separators=(',', ':'))}\n{change.value}".encode()


def parse_stored(process: bytes, session_id: bytes, stored: bytes, now_ms: int) -> PresenceChange:
    """Parse a presence from Redis (see `keys`). Raises `BrokerError`."""
    kept, _, payload = stored.partition(b" ")
    with suppress(ValueError):
        kept_ms = whole(kept)
        lost_s = max(0.0, (kept_ms - now_ms) / 1000) if kept_ms else None
        if (lost_s is None or lost_s <= MAX_S) and _ID.fullmatch(process) and _ID.fullmatch(session_id):
            found = decode_presence(session_id.decode(), payload)
            return found._replace(lost_s=lost_s, process=process.decode())
    raise BrokerError(f"a stored presence of {len(stored)} bytes that is not in version {VERSION} of the format")


def parse_presences(now_ms: int, stored: Sequence[bytes]) -> tuple[list[PresenceChange], list[str]]:
    """Parse the presences of a room from Redis. `stored` has fields and values in turn.

    Also returns a description of each malformed presence.
    """
    present: list[PresenceChange] = []
    malformed: list[str] = []
    for field, value in zip(stored[::2], stored[1::2], strict=False):
        process, space, session_id = field.partition(b" ")
        if space:  # otherwise the field is not a presence
            try:
                present.append(parse_stored(process, session_id, value, now_ms))
            except BrokerError as error:
                malformed.append(str(error))
    return present, malformed


def parse_ban(value: bytes, left_ms: int) -> tuple[int, str, float] | None:
    """Parse a ban from Redis: code, reason, and remaining seconds.

    Returns None if there is no ban, or if it is malformed.
    """
    try:
        fields = json.loads(value)
        code, reason = fields
        check_close(code, reason)
    except (ValueError, TypeError, RecursionError):  # a CloseCodeError is a ValueError
        return None
    return (code, reason, left_ms / 1000) if 0 < left_ms <= MAX_S * 1000 else None


def whole(text: bytes) -> int:
    """Parse a whole number of at most 16 digits. Raises ValueError."""
    if not _WHOLE.fullmatch(text):
        raise ValueError("no whole number")
    return int(text)


def _encode(
    sender: str, ticket: int, session_id: str | None, kind: bytes, payload: bytes | memoryview, frame: bytes = b""
) -> bytes:
    head = f"{VERSION} {sender} {ticket} {session_id or '.'} ".encode()
    if not isinstance(frame, MarkedFrame):
        return b"".join((head, kind, b"\n", payload))
    key = b"" if frame.latest is None else frame.latest.encode("utf-8", "surrogatepass")
    marks = (b"" if frame.is_kept else b"-") + (b"=%d" % len(key) if key else b"")
    return b"".join((head, kind, marks, b"\n", key, payload))


def _payload(frame: bytes) -> memoryview:
    return memoryview(frame)[{126: 4, 127: 10}.get(frame[1], 2) :]


def decode(message: bytes) -> Message:
    """Parse a message.

    Raises `BrokerError` if the message is malformed. The error's text has nothing of the payload.
    """
    end = message.find(b"\n", 0, MAX_HEAD_BYTES)
    head = _HEAD.fullmatch(message, 0, max(end, 0))
    if head is None:
        raise BrokerError(f"{len(message)} bytes that are not a message in version {VERSION} of the format")
    sender, ticket, session, kind, dropped, key_bytes = head.groups()
    session_id = None if session == b"." else session.decode()
    payload = message[end + 1 :]
    if not dropped and not key_bytes:
        return _DECODERS[kind](sender, int(ticket), session_id, payload)
    size = int(key_bytes or 0)
    latest = _key(payload[:size], size) if key_bytes else None
    decoded = _DECODERS[kind](sender, int(ticket), session_id, payload[size:])
    if isinstance(decoded, Broadcast):
        return decoded._replace(frame=MarkedFrame(decoded.frame, latest, not dropped))
    if isinstance(decoded, Direct) and not dropped:
        return decoded._replace(latest=latest)
    raise BrokerError(f"a message of kind {kind.decode()} with marks, which this kind never has")


def decode_presence(session_id: str, payload: bytes) -> PresenceChange:
    """Parse the payload of a presence, as `presence_payload` makes it. Raises `BrokerError`."""
    line, newline, value = payload.partition(b"\n")
    fields = _list(line, "presence")
    if not newline and len(fields) == 1 and _is_version(fields[0]):
        return PresenceChange(session_id, fields[0], None)
    if len(fields) == 6 or (len(fields) == 7 and fields[6] is True):
        version, set_at, since, process, user, lost_s = fields[:6]
        if (
            newline
            and _is_version(version)
            and _is_version(set_at)
            and _is_time(since)
            and isinstance(process, str)
            and _ID.fullmatch(process.encode("utf-8", "replace"))
            and (user is None or isinstance(user, str))
            and (lost_s is None or _is_time(lost_s, MAX_S))
        ):
            text, waits = _json_text(value), len(fields) == 7
            return PresenceChange(session_id, version, text, process, user, since, set_at, lost_s, waits)
    raise BrokerError(f"a presence of {len(payload)} bytes that does not have the fields of version {VERSION}")


def _decode_text(sender: bytes, ticket: int, session_id: str | None, payload: bytes) -> Broadcast:
    _text(payload)
    return Broadcast(sender, ticket, session_id, encode_frame(TEXT, payload))


def _decode_bytes(sender: bytes, ticket: int, session_id: str | None, payload: bytes) -> Broadcast:
    return Broadcast(sender, ticket, session_id, encode_frame(BINARY, payload))


def _decode_direct_text(sender: bytes, ticket: int, session_id: str | None, payload: bytes) -> Direct:
    return Direct(sender, ticket, _named(session_id), _text(payload))


def _decode_direct_bytes(sender: bytes, ticket: int, session_id: str | None, payload: bytes) -> Direct:
    return Direct(sender, ticket, _named(session_id), payload)


def _decode_close(sender: bytes, ticket: int, session_id: str | None, payload: bytes) -> Close:
    fields = _list(payload, "close")
    if len(fields) == 3:
        code, reason, ban_s = fields
        if isinstance(code, int) and not isinstance(code, bool) and isinstance(reason, str) and _is_time(ban_s, MAX_S):
            try:
                check_close(code, reason)
            except CloseCodeError:
                pass
            else:
                return Close(sender, ticket, session_id, code, reason, ban_s)
    raise BrokerError(f"a close of {len(payload)} bytes without a valid code, reason and ban")


def _decode_presence(sender: bytes, ticket: int, session_id: str | None, payload: bytes) -> PresenceChange:
    return decode_presence(_named(session_id), payload)


def _key(key: bytes, size: int) -> str:
    with suppress(UnicodeDecodeError):
        text = key.decode("utf-8", "surrogatepass")
        if len(key) == size and 1 <= len(text) <= MAX_LATEST_CHARS:
            return text
    raise BrokerError(f"a key of {len(key)} bytes that is not a text of 1 to {MAX_LATEST_CHARS} characters")


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise BrokerError(f"a text of {len(payload)} bytes that is not valid UTF-8") from None


def _named(session_id: str | None) -> str:
    if session_id is None:
        raise BrokerError("a message for one session that does not name the session")
    return session_id


def _list(payload: bytes, what: str) -> list[Any]:
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, list):
        raise BrokerError(f"a {what} message of {len(payload)} bytes that is not a JSON list")
    return fields


def _json_text(value: bytes) -> str:
    with suppress(UnicodeDecodeError):
        text = value.decode()
        if is_json_text(text):
            return text
    raise BrokerError(f"a presence value of {len(value)} bytes that is not JSON")


def _is_version(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_VERSION


def _is_time(value: object, most: float = MAX_TIME) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most  # nor NaN


#: The decoder of each kind. A decoder gets the sender, the ticket, the id of the session, and the payload.
_DECODERS: dict[bytes, Callable[[bytes, int, str | None, bytes], Message]] = {
    b"t": _decode_text,
    b"b": _decode_bytes,
    b"T": _decode_direct_text,
    b"B": _decode_direct_bytes,
    b"c": _decode_close,
    b"p": _decode_presence,
}

_ID = re.compile(rb"[A-Za-z0-9_-]{1,40}")

_WHOLE = re.compile(rb"-?[0-9]{1,16}")

_HEAD = re.compile(
    rb"%d ([A-Za-z0-9_-]{1,40}) ([0-9]{1,18}) (\.|[A-Za-z0-9_-]{1,40}) ([%s])(-)?(?:=([0-9]{1,4}))?"
    % (VERSION, b"".join(_DECODERS))
)
