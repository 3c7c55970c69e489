"""A WebSocket client on a raw socket, strict about every byte that it reads. It shares no code with wsthreads.

`WebSocket` is for one thread. It raises `Wrong` for anything that RFC 6455 or the server's own promises rule out:
reserved bits, masked or fragmented frames, lengths that are not minimal, text that is not UTF-8, pongs without a ping,
invalid close codes, anything after a close frame, and an end of TCP without a close frame.
"""

from __future__ import annotations

import base64
import hashlib
import select
import socket
import struct
from collections import deque
from contextlib import suppress
from random import Random
from time import monotonic

from tests.stress.history import SCALE, Wrong

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NO_CODE = 1005

SEND_TIMEOUT_S = 30.0 * SCALE
RECEIVE_BYTES = 65536
MAX_FRAME_BYTES = 256 * 1024 * 1024  # a length above it is a damaged frame

FRAMING = "framing"


class Lost(Exception):
    """TCP has ended or was reset, which by itself violates no guarantee."""


class WebSocket:
    """A connection; the constructor upgrades it.

    `rng` chooses masks, and how messages are split into frames and writes.
    """

    def __init__(
        self,
        address: tuple[str, int],
        target: str,
        rng: Random,
        *,
        receive_buffer: int | None = None,
        subprotocol: str | None = None,
        timeout_s: float = 20.0 * SCALE,
    ) -> None:
        self._rng = rng
        self._subprotocol = subprotocol
        self._input = bytearray()  # less than a frame, except after the handshake
        self._came_early = False
        self._pings: deque[bytes] = deque()  # sent and not yet answered
        self.pings_received = 0
        self.close_code: int | None = None  # of the server's close frame
        self.close_sent = False
        self.ended = False  # the server's stream, in order
        self._sock = sock = socket.socket()
        try:
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
                # The loopback's segments of 64 KiB would not fit, and the kernel would wait before each.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
            sock.settimeout(timeout_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(address)
            self._poller = select.poll()
            self._poller.register(sock, select.POLLIN)
            self._key = base64.b64encode(rng.randbytes(16)).decode()
            self._request = (
                f"GET {target} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {self._key}\r\n"
                + (f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else "")
                + "\r\n"
            ).encode()
        except BaseException:
            sock.close()
            raise

    # The handshake.

    def send_request(self, share: float = 1.0) -> None:
        """Send the handshake, or only its beginning."""
        self._send(self._request[: int(len(self._request) * share)])

    def read_response(self) -> None:
        """Raises `Wrong` for anything but a flawless 101."""
        while b"\r\n\r\n" not in self._input:
            try:
                data = self._sock.recv(RECEIVE_BYTES)
            except OSError as error:
                raise Wrong("handshake", f"no answer to it: {error!r}") from None
            if not data:
                raise Wrong("handshake", f"the server ended it after {bytes(self._input[:200])!r}")
            self._input += data
        head, _, rest = bytes(self._input).partition(b"\r\n\r\n")
        self._input, self._came_early = bytearray(rest), True
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        digest = hashlib.sha1((self._key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        right = (
            status.startswith("HTTP/1.1 101 ")
            and headers.get("upgrade", "").lower() == "websocket"
            and headers.get("connection", "").lower() == "upgrade"
            and headers.get("sec-websocket-accept") == base64.b64encode(digest).decode()
            and headers.get("sec-websocket-protocol") == self._subprotocol
            and not headers.keys() & {"sec-websocket-extensions", "content-length"}
        )
        if not right:
            raise Wrong("handshake", f"not a 101 as RFC 6455, 4.2.2 wants it: {head!r}")

    # Sending.

    def send(self, payload: bytes, binary: bool) -> None:
        """Send a message, sometimes in fragments with a ping between them. Blocks. Raises `Lost`."""
        opcode = BINARY if binary else TEXT
        if self._rng.random() > 0.08 or len(payload) < 2:
            self._write(self._frame(opcode, payload))
            return
        cuts = sorted(self._rng.sample(range(1, len(payload)), min(len(payload) - 1, self._rng.randint(1, 3))))
        for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(payload)], strict=True)):
            fin = 0x80 if stop == len(payload) else 0
            self._write(self._frame(opcode if number == 0 else CONTINUATION, payload[start:stop], fin))
            if not fin and self._rng.random() < 0.5:
                self.ping()

    def ping(self) -> None:
        payload = self._rng.randbytes(self._rng.choice((0, 1, 8, 125)))
        self._pings.append(payload)
        self._write(self._frame(PING, payload))

    def send_close(self, code: int, reason: bytes = b"") -> None:
        """Send a close frame, first or in answer; without a code for `NO_CODE`."""
        self.close_sent = True
        self._write(self._frame(CLOSE, b"" if code == NO_CODE else struct.pack("!H", code) + reason))

    def send_part_of_frame(self) -> None:
        """Send an incomplete frame."""
        frame = self._frame(TEXT, b"x" * self._rng.choice((1, 100, 300, 70_000)))
        self._write(frame[: self._rng.randrange(1, len(frame))])

    def send_part_of_message(self) -> None:
        """Send fragments without the last one."""
        self._write(self._frame(TEXT, b"x" * self._rng.choice((0, 1, 300)), 0))
        self._write(self._frame(CONTINUATION, b"x" * self._rng.choice((0, 70_000)), 0))

    def _frame(self, opcode: int, payload: bytes, fin: int = 0x80) -> bytes:
        size = len(payload)
        if size <= 125:
            head = bytes((fin | opcode, 0x80 | size))
        elif size <= 0xFFFF:
            head = struct.pack("!BBH", fin | opcode, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", fin | opcode, 0x80 | 127, size)
        key = self._rng.randbytes(4)
        mask = (key * (size // 4 + 1))[:size]
        return head + key + (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")

    def _write(self, frame: bytes) -> None:
        if self._rng.random() < 0.03:  # the header may be cut as well
            cut = self._rng.randrange(min(len(frame), 20))
            self._send(frame[:cut])
            frame = frame[cut:]
        self._send(frame)

    def _send(self, data: bytes) -> None:
        self._sock.settimeout(SEND_TIMEOUT_S)
        try:
            self._sock.sendall(data)
        except TimeoutError:
            raise Wrong("progress", f"the server read nothing for {SEND_TIMEOUT_S:g} s") from None
        except OSError as error:
            raise Lost(f"sending: {error}") from error

    # Receiving.

    def receive(self, timeout_s: float, size: int = RECEIVE_BYTES) -> list[tuple[bytes, bool]]:
        """Read once, and return the complete messages, each with whether it is binary.

        Raises `Wrong`, `Lost`. Answers pings. The caller must answer a close frame: see `close_code`.
        """
        if self._came_early:
            self._came_early = False
            if messages := self._parse():
                return messages
        if self.ended or not self._poller.poll(max(0.0, timeout_s * 1000)):
            return []
        try:
            data = self._sock.recv(size)
        except OSError as error:
            raise Lost(f"receiving: {error}") from error
        if not data:
            self._end()
            return []
        self._input += data
        return self._parse()

    def _end(self) -> None:
        self.ended = True
        if self.close_code is None:
            raise Lost(f"the stream ended without a close frame, {len(self._input)} bytes into another one")

    def _parse(self) -> list[tuple[bytes, bool]]:
        messages: list[tuple[bytes, bool]] = []
        data, start = self._input, 0
        while True:
            if self.close_code is not None and len(data) > start:
                raise Wrong("nothing after close", f"{bytes(data[start : start + 60])!r} came behind the close frame")
            header = _header(data, start)
            if header is None or len(data) < header[2]:
                break
            opcode, body, stop = header
            payload, start = bytes(data[body:stop]), stop
            if opcode == TEXT:
                try:
                    payload.decode()
                except UnicodeDecodeError as error:
                    raise Wrong("damaged", f"text that is not UTF-8: {error}") from None
            if opcode in (TEXT, BINARY):
                messages.append((payload, opcode == BINARY))
            else:
                self._control(opcode, payload)
        del data[:start]
        return messages

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self.close_code = _close_code(payload)
        elif opcode == PONG:
            if not self._pings or self._pings.popleft() != payload:
                raise Wrong(FRAMING, f"a pong that answers no ping, or not the first: {payload!r}")
        else:
            self.pings_received += 1
            if not self.close_sent:
                self._write(self._frame(PONG, payload))

    # Ending.

    @property
    def pings_open(self) -> int:
        return len(self._pings)

    def finish(self, timeout_s: float) -> None:
        """After both close frames: the server must end TCP first, by FIN, and send nothing before that."""
        deadline = monotonic() + timeout_s
        while not self.ended:
            if monotonic() > deadline:
                raise Wrong("close handshake", f"TCP was not ended within {timeout_s:g} s after it")
            try:
                for payload, _ in self.receive(deadline - monotonic()):
                    raise Wrong("nothing after close", f"{payload[:60]!r}")
            except Lost as error:
                raise Wrong("close handshake", f"TCP ended out of order after it: {error}") from None
        self.drop()

    def half_close(self) -> None:
        """Send FIN. Raises `Lost`."""
        self.close_sent = True  # pings can no longer be answered
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise Lost(str(error)) from error

    def reset(self) -> None:
        """Send RST."""
        with suppress(OSError):  # it has been reset already
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def drop(self) -> None:
        """Close the descriptor. Idempotent."""
        self._sock.close()


def _header(data: bytearray, start: int) -> tuple[int, int, int] | None:
    """The opcode and the bounds of the payload of a valid server frame, if the frame is complete."""
    available = len(data) - start
    if available < 2:
        return None
    first, size = data[start], data[start + 1]
    opcode = first & 0x0F
    if first & 0xF0 != 0x80 or opcode not in (TEXT, BINARY, CLOSE, PING, PONG) or size > 127:
        raise Wrong(FRAMING, f"a frame that begins with {bytes(data[start : start + 20])!r}")
    if opcode >= CLOSE and size > 125:
        raise Wrong(FRAMING, f"a control frame with the length {size}")
    body = start + 2
    if size == 126:
        if available < 4:
            return None
        (size,) = struct.unpack_from("!H", data, body)
        body, least = body + 2, 126
    elif size == 127:
        if available < 10:
            return None
        (size,) = struct.unpack_from("!Q", data, body)
        body, least = body + 8, 0x10000
    else:
        least = 0
    if not least <= size <= MAX_FRAME_BYTES:
        raise Wrong(FRAMING, f"a length of {size} in {body - start} bytes of header")
    return opcode, body, body + size


def _close_code(payload: bytes) -> int:
    if not payload:
        return NO_CODE
    if len(payload) == 1:
        raise Wrong(FRAMING, "a close frame with 1 byte")
    (code,) = struct.unpack_from("!H", payload)
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise Wrong(FRAMING, f"a close frame with the code {code}")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise Wrong(FRAMING, f"a close reason that is not UTF-8: {payload[2:]!r}") from None
    return code
