"""The compression of messages, permessage-deflate (RFC 7692): negotiation, deflating, inflating up to a limit.

Each message is deflated by itself ("no context takeover" in both directions). So a broadcast is deflated once for all
members, and an idle connection needs no memory for compression.

A client's frame that is certainly valid is inflated here. The library wsproto checks all other frames. `Inflation` lets
wsproto accept deflated messages. (The extension in wsproto 1.3 has no size limit, and fails if a ping comes between the
frames of a deflated message.) No I/O. `Inflater` and `Inflation` belong to one connection, and are not thread-safe.
"""

from __future__ import annotations

import re
import zlib
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Iterator
from typing import Any, NamedTuple

from wsproto.extensions import Extension
from wsproto.frame_protocol import Opcode, RsvBits

from wsthreads.errors import HandshakeRefused, InvalidPayloadError, MessageTooBigError, PeerError, ProtocolError
from wsthreads.protocol.frames import RSV1, TEXT, decode_message, encode_frame, parse_header, unmask

__all__ = ["Agreement", "Inflater", "Inflation", "agree", "decode_any", "deflate_frame", "most_deflated_bytes"]

#: The server's window is 4 kB. A compressor for this window needs 32 kB, and is created in 2 µs. With the largest
#: window, a compressor needs 256 kB and up to 35 µs. The largest window would make messages over 16 kB at most a tenth
#: smaller, and messages up to 4 kB no smaller.
WINDOW_BITS = 12
MEMORY_LEVEL = 5
SMALLEST_WINDOW_BITS = 9  # 8 is valid in RFC 7692, but zlib does not support it here

#: Smaller messages are not deflated. At 64 bytes, deflating saves nothing. At 128 bytes, it saves a quarter.
MIN_DEFLATED_BYTES = 128

#: How many bytes are inflated at a time. A message can exceed its limit by this much before the server notices.
STEP_BYTES = 65536

#: At most this many deflate streams are allowed in one message. Most messages have one. RFC 7692 (7.2.3.4) allows more.
MAX_STREAMS = 64

_TAIL = b"\x00\x00\xff\xff"  # each deflated message ends with these bytes, which are not sent (RFC 7692, 7.2.1)

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({_TOKEN})[ \t]*(?:=[ \t]*(?:({_TOKEN})|"({_TOKEN})"))?')
_NAME = re.compile(rf"[ \t]*({_TOKEN})")
_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t]*)+|[ \t]*\Z")
_BITS = re.compile(r"[89]|1[0-5]")


class Agreement(NamedTuple):
    """The negotiated compression.

    `window_bits` says how large the server's window is: 2 to this power. `answer` is the header for the response 101.
    """

    window_bits: int
    answer: str


def agree(offers: str | None) -> Agreement | None:
    """Accept the first suitable offer of a ``Sec-WebSocket-Extensions`` header. Returns None for no compression.

    Declines an offer with an unknown, repeated or invalid parameter (RFC 7692, 7.1), or with a window of 256 bytes for
    the server. Raises `HandshakeRefused` for a malformed header (RFC 6455, 9.1).
    """
    # parse all offers before the first is accepted, because a later one may be malformed
    for name, parameters in list(_parse_offers(offers or "")):
        if name != "permessage-deflate":
            continue
        agreement = _accept(parameters)
        if agreement is not None:
            return agreement
    return None


def _accept(parameters: list[tuple[str, str | None]]) -> Agreement | None:
    # The answer to each offer is "no context takeover", because the server may decide this (RFC 7692, 7.1.1).
    answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    bits = WINDOW_BITS
    if len({name for name, _ in parameters}) < len(parameters):
        return None
    for name, value in parameters:
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                return None
        elif name == "client_max_window_bits":  # the server can inflate messages with every window size
            if value is not None and not _BITS.fullmatch(value):
                return None
        elif name == "server_max_window_bits":
            if value is None or not _BITS.fullmatch(value) or int(value) < SMALLEST_WINDOW_BITS:
                return None
            bits = min(bits, int(value))
            answer += f"; {name}={bits}"
        else:
            return None
    return Agreement(bits, answer)


def _parse_offers(header: str) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Yields the name and the parameters of each extension (RFC 6455, 9.1).

    Skips empty list elements (RFC 9110, 5.6.1).
    """
    header, at = header.lstrip(" \t,"), 0
    while at < len(header):
        name = _NAME.match(header, at)
        if name is None:
            raise _malformed(header)
        at, parameters = name.end(), []
        while parameter := _PARAMETER.match(header, at):
            at = parameter.end()
            parameters.append((parameter[1].lower(), parameter[2] or parameter[3]))
        separator = _SEPARATOR.match(header, at)
        if separator is None:
            raise _malformed(header)
        at = separator.end()
        yield name[1].lower(), parameters


def _malformed(header: str) -> HandshakeRefused:
    reason = f"Sec-WebSocket-Extensions must be a list of extensions, not {header!r:.200}"
    return HandshakeRefused(400, reason, cause="bad_request")


def deflate_frame(frame: bytes, window_bits: int) -> bytes:
    """Deflate a complete text or binary frame of the server.

    Returns `frame` itself if deflating does not make it smaller.

    Takes about 8 µs for 1 kB of JSON, mostly without the GIL.
    """
    header = parse_header(frame)
    assert header is not None
    if header.payload_bytes < MIN_DEFLATED_BYTES:
        return frame
    compressor = zlib.compressobj(wbits=-window_bits, memLevel=MEMORY_LEVEL)
    deflated = compressor.compress(memoryview(frame)[header.header_bytes :])
    deflated += compressor.flush(zlib.Z_SYNC_FLUSH)
    payload = deflated[: -len(_TAIL)]
    return encode_frame(RSV1 | header.opcode, payload) if len(payload) < header.payload_bytes else frame


def most_deflated_bytes(message_bytes: int) -> int:
    """The largest size that a deflated message can have. It is larger than the message, because random data grows.

    The formula is zlib's `deflateBound` for its worst settings.
    """
    return message_bytes + message_bytes // 8 + message_bytes // 128 + 64


class Inflater:
    """Inflates one message, part by part, up to `max_bytes`."""

    __slots__ = ("_left", "_max_bytes", "_stream", "_streams")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._left = max_bytes
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._streams = 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Inflate more `data` of the message. Yields the inflated data in pieces.

        Raises `MessageTooBigError` if the message exceeds the limit, and `InvalidPayloadError` for invalid data.
        """
        while True:
            step = min(STEP_BYTES, self._left + 1)
            try:
                piece = self._stream.decompress(data, step)
            except zlib.error as error:
                raise InvalidPayloadError(f"the compressed data is not valid: {error}") from error
            if len(piece) > self._left:
                raise MessageTooBigError(f"message inflates to more than {self._max_bytes} bytes")
            self._left -= len(piece)
            if piece:
                yield piece
            ended = self._stream.eof
            data = self._next_stream() if ended else self._stream.unconsumed_tail
            if not data and (ended or len(piece) < step):
                return

    def end(self) -> Iterator[bytes]:
        """Inflate the rest at the end of the message. Yields and raises like `feed`."""
        return self.feed(_TAIL)

    def _next_stream(self) -> bytes:
        """Begin a new deflate stream, because a block was marked as the last one. Returns the data after that block."""
        rest: bytes = self._stream.unused_data
        self._streams += 1
        if self._streams > MAX_STREAMS:
            raise InvalidPayloadError(f"a message has more than {MAX_STREAMS} deflate streams")
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        return rest


def decode_any(buffer: bytes, start: int, max_bytes: int) -> tuple[str | bytes, int] | None:
    """Like `frames.decode_message`, but also for deflated messages. Returns None for input that wsproto must check."""
    return decode_message(buffer, start, max_bytes) or _decode_deflated(buffer, start, max_bytes)


def _decode_deflated(buffer: bytes, start: int, max_bytes: int) -> tuple[str | bytes, int] | None:
    first = buffer[start]
    if first != 0xC1 and first != 0xC2:  # neither a text nor a binary frame that is final and has RSV1
        return None
    header = parse_header(buffer, start)
    if header is None or not buffer[start + 1] & 0x80:
        return None
    size, body = header.payload_bytes, start + header.header_bytes
    stop = body + size
    minimal = 6 if size <= 125 else 8 if size <= 0xFFFF else 14
    if stop > len(buffer) or header.header_bytes != minimal or size > most_deflated_bytes(max_bytes):
        return None
    inflater = Inflater(max_bytes)
    try:
        payload = b"".join([*inflater.feed(unmask(buffer[body:stop], buffer[body - 4 : body])), *inflater.end()])
        return (payload.decode() if header.opcode == TEXT else payload), stop
    except (PeerError, UnicodeDecodeError):
        return None  # wsproto will report the same error


class Inflation(Extension):
    """The extension permessage-deflate for wsproto, for the messages that a server reads.

    Appends the inflated pieces to `parts`: str for text, bytes for binary. The pieces do not pass through wsproto,
    which would copy them several times. wsproto sees an empty message, and makes all other checks. A `PeerError` that
    is raised here passes through wsproto.
    """

    name = "permessage-deflate"

    def __init__(self, parts: list[str | bytes], max_bytes: int) -> None:
        self._parts = parts
        self._max_bytes = max_bytes
        self._in_message = False
        self._in_control = False
        self._inflater: Inflater | None = None  # None unless the current message is deflated
        self._decoder: IncrementalDecoder | None = None  # None unless the current message is deflated text

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False

    def frame_inbound_header(self, proto: Any, opcode: Opcode, rsv: RsvBits, payload_length: int) -> RsvBits:
        self._in_control = opcode.iscontrol()
        begins = opcode in (Opcode.TEXT, Opcode.BINARY)
        if begins:
            if self._in_message:
                raise ProtocolError("a message begins within another message")
            self._in_message = True
            self._inflater = Inflater(self._max_bytes) if rsv.rsv1 else None
            self._decoder = getincrementaldecoder("utf-8")() if rsv.rsv1 and opcode is Opcode.TEXT else None
        # which reserved bits may be set: only RSV1, and only in the first frame of a message (RFC 7692, 6.1)
        return RsvBits(begins, False, False)

    def frame_inbound_payload_data(self, proto: Any, data: bytes) -> bytes:
        if self._inflater is None or self._in_control:
            return data
        for piece in self._inflater.feed(data):
            self._take(piece)
        return b""

    def frame_inbound_complete(self, proto: Any, fin: bool) -> None:
        if self._in_control or not fin:
            return
        self._in_message = False
        if self._inflater is not None:
            for piece in self._inflater.end():
                self._take(piece)
            self._take(b"", final=True)
            self._inflater = self._decoder = None

    def _take(self, piece: bytes, final: bool = False) -> None:
        try:
            part = piece if self._decoder is None else self._decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            raise InvalidPayloadError(str(error)) from error
        if part:
            self._parts.append(part)
