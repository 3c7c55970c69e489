"""Makes messages from a client's bytes: joins the frames of each message, and checks limits.

Uses no socket and no thread.

`protocol.frames` decodes a complete data frame directly. The library wsproto decodes everything else, and decides which
frames are legal. Limits are checked when the header of a frame has arrived,, before its payload is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import NamedTuple

from wsproto import events as judged
from wsproto.connection import Connection as Protocol
from wsproto.connection import ConnectionState, ConnectionType

from wsthreads.config import Config
from wsthreads.errors import (
    CloseCode,
    InvalidPayloadError,
    MessageTooBigError,
    PolicyError,
    ProtocolError,
    TooManyFragmentsError,
    UnsupportedDataError,
)
from wsthreads.protocol.deflate import Agreement, Inflation, decode_any, most_deflated_bytes
from wsthreads.protocol.frames import BINARY, CONTINUATION, PING, PONG, TEXT, Header, decode_message, parse_header
from wsthreads.protocol.rate_limit import RateLimit

__all__ = ["Assembler", "Close", "Control", "Ping", "Pong"]


class Ping(NamedTuple):
    """A ping of the client, which must be answered by a pong with the same payload."""

    payload: bytes


class Pong(NamedTuple):
    """A pong of the client: the answer to a ping, or sent without a ping."""

    payload: bytes


class Close(NamedTuple):
    """The client's close frame, after which the client sends no other frame."""

    code: int
    reason: str


Control = Ping | Pong | Close


class Assembler:
    """Makes messages and control frames (pings, pongs, the close frame) from the bytes of one client.

    Only one thread may use an object. Other threads may only read `incomplete_since`.
    """

    __slots__ = (
        "_agreement",
        "_config",
        "_control_frames",
        "_fragmented",
        "_fragments",
        "_message_bytes",
        "_message_limit",
        "_owed",
        "_parts",
        "_protocol",
        "_tail",
        "incomplete_since",
        "is_over",
    )

    def __init__(self, config: Config, agreement: Agreement | None = None, *, early: bytes = b"") -> None:
        self._config = config
        self._agreement = agreement  # if None, the client must not deflate its messages
        self._tail = early  # received bytes to decode next: a part of a header, or bytes that came with the handshake
        # wsproto's parser; made for the first frame that `protocol.frames` does not decode
        self._protocol: Protocol | None = None
        # the parts of the incomplete message; made together with `_protocol`
        self._parts: list[str | bytes] | None = None
        self._owed = 0  # bytes of the current frame that wsproto has not received yet
        self._fragmented = False  # whether a message is incomplete, and the next frame continues it
        self._fragments = 0  # how many frames of the incomplete message have begun so far
        self._message_bytes = 0  # the size of the incomplete message, according to the headers of its frames
        # the largest allowed size of the current message; deflated messages may be larger than the configured limit
        self._message_limit = config.max_message_bytes
        self._control_frames: RateLimit | None = None
        #: When the first header of the incomplete message arrived. 0 if no message is incomplete. Any thread may read
        #: this.
        self.incomplete_since = 0.0
        #: Whether the client's close frame has arrived.
        self.is_over = False

    @property
    def is_between(self) -> bool:
        """Whether the next byte begins a new frame, and no message is incomplete."""
        return not (self._tail or self._owed or self._fragmented)

    def feed(self, data: bytes, take_control: Callable[[Control], None]) -> Iterator[str | bytes]:
        """Yields the messages that `data` completes: str for text, bytes for binary.

        Exhaust the iterator before the next call. `take_control` is called with each control frame, after the messages
        that came before the frame. Bytes after a close frame are ignored.

        Raises `PeerError` for an illegal frame, and if a limit is exceeded. After an error, do not call this method
        again.
        """
        if self._tail:
            data, self._tail = self._tail + data, b""
        takes_binary, limit = self._config.accept_binary, self._config.max_message_bytes
        decode = decode_message if self._agreement is None else decode_any
        start, end, may_be_whole = 0, len(data), not (self._owed or self._fragmented)
        while start < end:
            decoded = decode(data, start, limit) if may_be_whole else None
            if decoded is not None:
                message, start = decoded
                if not takes_binary and not isinstance(message, str):
                    raise _not_text()
                yield message
                continue
            if not self._owed:
                header = parse_header(data, start)
                if header is None:
                    self._tail = data[start:]
                    return
                self._admit(header)
                self._owed = header.header_bytes + header.payload_bytes
            chunk = data[start : start + self._owed]
            self._owed -= len(chunk)
            start += len(chunk)
            if not self._owed and not self._fragmented:
                self.incomplete_since = 0.0
            elif not self.incomplete_since:
                self.incomplete_since = monotonic()
            yield from self._judge(chunk, take_control)
            if self.is_over:
                return
            may_be_whole = not (self._owed or self._fragmented)

    def _admit(self, header: Header) -> None:
        """Check the limits for a frame before its payload is read. Counts the frames of a message."""
        if header.opcode in (PING, PONG):
            self.admit_control()
        if header.opcode not in (CONTINUATION, TEXT, BINARY):
            return
        if header.opcode != CONTINUATION:
            limit = self._config.max_message_bytes
            self._message_limit = most_deflated_bytes(limit) if header.rsv1 else limit
            self._message_bytes = self._fragments = 0
        self._message_bytes += header.payload_bytes
        self._fragments += 1
        self._fragmented = not header.fin
        if self._message_bytes > self._message_limit:
            limit = self._config.max_message_bytes
            raise MessageTooBigError(f"message of {self._message_bytes} bytes or more; the limit is {limit}")
        if self._fragments > self._config.max_fragments:
            limit = self._config.max_fragments
            raise TooManyFragmentsError(f"message in {self._fragments} frames or more; the limit is {limit}")

    def admit_control(self) -> None:
        """Count a control frame, or a message that counts as one.

        Raises `PolicyError` if there are too many per second.
        """
        limit = self._config.max_control_frames_per_s
        if limit and self._control_frames is None:
            self._control_frames = RateLimit(limit)
        if self._control_frames is not None and not self._control_frames.take():
            raise PolicyError(f"more than {limit} pings and pongs a second", setting="max_control_frames_per_s")

    def _judge(self, chunk: bytes, take_control: Callable[[Control], None]) -> Iterator[str | bytes]:
        """Pass a part of one frame to wsproto. Yields the message, if this part completes one."""
        if self._protocol is None or self._parts is None:
            self._parts = []
            limit = self._config.max_message_bytes
            inflation = [] if self._agreement is None else [Inflation(self._parts, limit)]
            self._protocol = Protocol(ConnectionType.SERVER, [*inflation])
        parts = self._parts
        self._protocol.receive_data(chunk)
        for event in self._protocol.events():
            if isinstance(event, (judged.TextMessage, judged.BytesMessage)):
                if event.data:  # an empty part is not stored, because a message may have any number of empty frames
                    parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
                if event.message_finished:
                    empty = "" if isinstance(event, judged.TextMessage) else b""
                    message = parts[0] if len(parts) == 1 else empty.join(parts)  # type: ignore[arg-type]
                    parts.clear()
                    if not self._config.accept_binary and not isinstance(message, str):
                        raise _not_text()
                    yield message
            elif isinstance(event, judged.Ping):
                take_control(Ping(bytes(event.payload)))
            elif isinstance(event, judged.Pong):
                take_control(Pong(bytes(event.payload)))
            elif isinstance(event, judged.CloseConnection):
                close = _close_of(event, self._protocol.state)
                self.is_over = True
                take_control(close)
                return


def _not_text() -> UnsupportedDataError:
    return UnsupportedDataError("this endpoint does not accept binary messages")


def _close_of(event: judged.CloseConnection, state: ConnectionState) -> Close:
    if state is ConnectionState.OPEN:  # there was no close frame: wsproto reports an illegal frame in this way
        kind = InvalidPayloadError if event.code == CloseCode.INVALID_PAYLOAD else ProtocolError
        raise kind(event.reason or "illegal frame")
    return Close(int(event.code), event.reason or "")
