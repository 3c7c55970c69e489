"""WebSocket frames as bytes (RFC 6455, section 5): encoding frames, parsing headers, and the fast decoder.

Pure functions, no state, no I/O. The fast decoder, `decode_message`, decodes only frames that are certainly valid:
complete, final, masked text or binary frames without extension bits. It never rejects a frame. All other input goes to
the library wsproto, which alone decides what is valid.
"""

from __future__ import annotations

import re
import struct
from typing import Any, NamedTuple

from wsthreads._native import speedups
from wsthreads.errors import CloseCodeError, MessageTypeError, UsageError, brief

__all__ = [
    "BINARY",
    "CLOSE",
    "MAX_LATEST_CHARS",
    "PING",
    "PONG",
    "TEXT",
    "Header",
    "MarkedFrame",
    "check_close",
    "close_frame",
    "decode_message",
    "encode_frame",
    "message_frame",
    "parse_header",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

RSV1 = 0x40  # a bit of a frame's first byte: the message is deflated (RFC 7692, 6)

MAX_CONTROL_BYTES = 125  # RFC 6455, 5.5
MAX_REASON_BYTES = MAX_CONTROL_BYTES - 2  # minus the two bytes of the close code

#: The longest key (`latest`) of a message that replaces an earlier one.
MAX_LATEST_CHARS = 256

_SURROGATE = re.compile("[\ud800-\udfff]")
_UINT16 = struct.Struct("!H")
_UINT64 = struct.Struct("!Q")
_LONG_HEADER = struct.Struct("!BBH")
_HUGE_HEADER = struct.Struct("!BBQ")


class Header(NamedTuple):
    """The header of a frame: its fields, and its size in bytes, including the masking key."""

    fin: bool
    rsv1: bool
    opcode: int
    payload_bytes: int
    header_bytes: int


class MarkedFrame(bytes):
    """A frame with the options of its message as marks. Code that does not know marks can use it as plain bytes.

    Code that makes another frame for the same message must call `like`, which keeps the marks.
    """

    #: The key of the message, or None. A message with a key replaces an earlier message with the same key that still
    #: waits for a slow client.
    latest: str | None
    #: Whether the room's history stores the message.
    is_kept: bool
    #: The room of the message, set by `Rooms.broadcast`. Empty for a message to a single session. Messages in
    #: different rooms do not replace each other, even if their keys are equal.
    room: str

    def __new__(cls, frame: bytes, latest: str | None = None, is_kept: bool = True, room: str = "") -> MarkedFrame:
        marked = super().__new__(cls, frame)
        marked.latest = latest
        marked.is_kept = is_kept
        marked.room = room
        return marked

    def like(self, frame: bytes) -> MarkedFrame:
        """Returns another frame of the same message, with the same marks."""
        return MarkedFrame(frame, self.latest, self.is_kept, self.room)


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """Encode a final frame without a mask, as a server sends it."""
    size = len(payload)
    if size <= 125:
        return bytes((0x80 | opcode, size)) + payload
    if size <= 0xFFFF:
        return _LONG_HEADER.pack(0x80 | opcode, 126, size) + payload
    return _HUGE_HEADER.pack(0x80 | opcode, 127, size) + payload


def message_frame(
    message: str | bytes | bytearray | memoryview, *, latest: str | None = None, keep: bool = True
) -> bytes:
    """Returns the frame of a whole message: text for a str, binary for bytes. With options, it is a `MarkedFrame`.

    A lone surrogate, which has no form in UTF-8, becomes U+FFFD. Raises `MessageTypeError` for anything but str and
    bytes, and `UsageError` for an invalid option.
    """
    if latest is not None or keep is not True:
        _check_marks(latest, keep)
        return MarkedFrame(message_frame(message), latest, keep)
    if isinstance(message, str):
        return encode_text(message) or encode_frame(TEXT, _SURROGATE.sub("\ufffd", message).encode())
    if isinstance(message, (bytes, bytearray, memoryview)):
        return encode_frame(BINARY, bytes(message))
    raise MessageTypeError(f"a message must be str or bytes, not {type(message).__name__}; try json.dumps")


def _check_marks(latest: Any, keep: Any) -> None:
    if not isinstance(keep, bool):
        raise UsageError(f"keep must be True or False, not {brief(keep)}")
    if latest is None:
        return
    if not isinstance(latest, str):
        raise UsageError(f"latest must be text of 1 to {MAX_LATEST_CHARS} characters, not {brief(latest)}")
    if not 1 <= len(latest) <= MAX_LATEST_CHARS:
        raise UsageError(f"latest must have 1 to {MAX_LATEST_CHARS} characters, this key has {len(latest)}")


def _encode_text(text: str) -> bytes | None:
    """Returns the frame of a text message, or None if the text has a lone surrogate, which has no form in UTF-8."""
    try:
        return encode_frame(TEXT, text.encode())
    except UnicodeEncodeError:
        return None


def close_frame(code: int | None, reason: str = "") -> bytes:
    """Encode a close frame. If `code` is None, the frame has no code and no reason. The reason is cut to 123 bytes."""
    if code is None:
        return encode_frame(CLOSE, b"")
    text = _SURROGATE.sub("\ufffd", reason).encode()
    if len(text) > MAX_REASON_BYTES:
        # a character that was cut in the middle is left out
        text = text[:MAX_REASON_BYTES].decode(errors="ignore").encode()
    return encode_frame(CLOSE, _UINT16.pack(code) + text)


def parse_header(buffer: bytes, start: int = 0) -> Header | None:
    """Parse the header that begins at `start`. Returns None if it is incomplete. Does not check whether it is valid."""
    available = len(buffer) - start
    if available < 2:
        return None
    first, second = buffer[start], buffer[start + 1]
    size, header_bytes = second & 0x7F, 2
    if size == 126:
        header_bytes = 4
        if available < 4:
            return None
        (size,) = _UINT16.unpack_from(buffer, start + 2)
    elif size == 127:
        header_bytes = 10
        if available < 10:
            return None
        (size,) = _UINT64.unpack_from(buffer, start + 2)
    if second & 0x80:
        header_bytes += 4
        if available < header_bytes:
            return None
    return Header(first & 0x80 != 0, first & RSV1 != 0, first & 0x0F, size, header_bytes)


def _decode_message(buffer: bytes, start: int, max_bytes: int) -> tuple[str | bytes, int] | None:
    """Decode the frame that begins at `start`. Returns its message, and the place where the next frame begins.

    The frame must be complete, final, masked, text or binary, without extension bits, and at most `max_bytes` long. Its
    length field must have the minimal size. Text must be valid UTF-8. In all other cases, returns None, and wsproto
    decides.
    """
    end = len(buffer)
    if end - start < 6:
        return None
    first = buffer[start]
    if first != 0x81 and first != 0x82:
        return None
    size = buffer[start + 1] - 0x80
    if size < 0:
        return None  # not masked
    key_at = start + 2
    if size >= 126:
        if size == 126:
            key_at = start + 4
            size = buffer[start + 2] << 8 | buffer[start + 3]
            if size < 126:
                return None
        else:
            key_at = start + 10
            if end < key_at:
                return None
            (size,) = _UINT64.unpack_from(buffer, start + 2)
            if size <= 0xFFFF:
                return None
    body = key_at + 4
    stop = body + size
    if stop > end or size > max_bytes:
        return None
    payload = unmask(buffer[body:stop], buffer[key_at:body])
    if first == 0x82:
        return payload, stop
    try:
        return payload.decode(), stop
    except UnicodeDecodeError:
        return None


def unmask(payload: bytes, key: bytes) -> bytes:
    """Returns `payload` XOR the repeated 4 bytes of `key` (RFC 6455, 5.3), calculated with one big integer."""
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(mask, "little")).to_bytes(size, "little")


encode_text = _encode_text if speedups is None else speedups.encode_text
decode_message = _decode_message if speedups is None else speedups.decode_message


def check_close(code: int, reason: str) -> None:
    """Raise `CloseCodeError` for a code or a reason that must not be in a close frame."""
    if isinstance(code, bool) or not isinstance(code, int):
        raise CloseCodeError(f"a close code must be a whole number, not {brief(code)}")
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        use = "1000 to 1003, 1007 to 1014 or 3000 to 4999"
        raise CloseCodeError(f"close code {brief(code)} must not be sent: use {use}")
    if not isinstance(reason, str):
        raise CloseCodeError(f"a close reason must be text, not {type(reason).__name__}")
    size = len(reason.encode("utf-8", "replace"))
    if size > MAX_REASON_BYTES:
        raise CloseCodeError(f"a close reason may have at most {MAX_REASON_BYTES} bytes in UTF-8, this one has {size}")
