"""A connected socket that several threads write to and one reads from; the only place where bytes enter or leave,
with `_speedups.send_queues`, which writes to what `plain_fd` says.

`PlainTransport` is TCP. `TLSTransport` is an `ssl.SSLSocket`, whose OpenSSL object must never be read and written at
the same time: it has a lock of its own around each call into the object, and waits without it.

Writing never blocks. Reading blocks until there is something, the peer has ended, or another thread called `abort`.
The socket is never closed here: it belongs to the WSGI server, which counts its connections by closing them.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import RLock
from time import monotonic, sleep

from wsthreads._native import speedups
from wsthreads.protocol.frames import decode_message

__all__ = [
    "RECEIVE_BYTES",
    "PlainTransport",
    "TLSTransport",
    "Transport",
    "message_receiver",
    "transport_for",
]

#: Read at a time: little where little comes in, since the buffer is there for as long as nothing does.
RECEIVE_BYTES = 2048

#: Never raise SIGPIPE, never wait. (0 where the platform has no such flag: Python ignores SIGPIPE anyway.)
_SEND_FLAGS = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)

_RECORD_BYTES = 16384  # RFC 8446, 5.1

#: Read at once of what is only discarded, and the pauses after it, each twice as long as the one before up to the last:
#: who floods us is to notice that it is closed, and not to be made room for. Who still sends after that may be in the
#: midst of a large message, and is read 6 MiB a second, so that it can end it, and learn why it was closed.
_DISCARD_LITTLE_BYTES = 65536
_DISCARD_MUCH_BYTES = 1 << 20
_DISCARD_PAUSES_S = (0.01, 0.16)

#: The peer has ended its stream, or the connection: no more will come than is there already.
_HALF_ENDED = getattr(select, "POLLRDHUP", 0)
_LOST = select.POLLHUP | select.POLLERR
_ENDED = _HALF_ENDED | _LOST

#: Linux's `struct tcp_info`, as far as it is needed: unacknowledged packets (32 bits), acknowledged bytes (64 bits).
_TCP_INFO = struct.Struct("=24xI92xQ")


class PlainTransport:
    """TCP (or a Unix socket)."""

    __slots__ = ("_sock",)

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        # Blocking: a socket with a timeout would have send() wait for room, even with MSG_DONTWAIT.
        sock.setblocking(True)
        with suppress(OSError):  # not TCP
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def plain_fd(self) -> int:
        """The file descriptor, if what is written to it is what the peer reads; else -1."""
        return self._sock.fileno()

    def fileno(self) -> int:
        """The file descriptor to wait on, or -1 once the server has closed it."""
        return self._sock.fileno()

    def receive(self, size: int) -> bytes:
        """Up to `size` bytes; empty at the end of the stream. Blocks. Raises OSError if the connection is lost."""
        return self._sock.recv(size) if speedups is None else speedups.receive(self._sock.fileno(), size)

    def send(self, data: bytes | memoryview) -> int:
        """How many bytes the kernel took, 0 if it has no room now. Raises OSError if the connection is lost."""
        try:
            return self._sock.send(data, _SEND_FLAGS)
        except (BlockingIOError, InterruptedError):
            return 0

    def end_writing(self) -> None:
        """Send FIN: the peer sees the end of our stream, and can still be read."""
        with suppress(OSError):  # already lost
            self._sock.shutdown(socket.SHUT_WR)

    def linger(self, timeout_s: float) -> None:
        """Read and discard until the peer ends its stream, or for `timeout_s`.

        Closing a socket with unread input makes the kernel send a reset, which can overtake what we sent last. What is
        read is little at a time: a client that floods us and was closed for it gets no more work out of us. In C it
        takes no GIL, and does not even copy what comes in.
        """
        if speedups is not None:
            speedups.linger(self._sock.fileno(), timeout_s, *_DISCARD_PAUSES_S)
            return
        deadline = monotonic() + timeout_s
        pause, last_pause = _DISCARD_PAUSES_S
        with suppress(OSError):
            while (left := deadline - monotonic()) > 0:
                events = _wait(self._sock, select.POLLIN | getattr(select, "POLLRDHUP", 0), left)
                size = _DISCARD_LITTLE_BYTES if pause < last_pause else _DISCARD_MUCH_BYTES
                # Under TLS, too: nobody wants to know any more what it was.
                if not events or not socket.socket.recv(self._sock, size, getattr(socket, "MSG_DONTWAIT", 0)):
                    return
                if not events & _ENDED:
                    sleep(min(pause, left))
                    pause = min(2 * pause, last_pause)

    def abort(self) -> None:
        """End both directions at once, from any thread; a `receive` that waits returns."""
        with suppress(OSError):  # already lost
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def end_seen(self) -> tuple[bool, bool]:
        """Whether the connection is lost, and whether the peer has ended its stream, without reading. Never blocks."""
        descriptor = self.fileno()
        if descriptor < 0:  # the server has closed it, or there is none
            return False, False
        events = _wait(descriptor, _HALF_ENDED, 0)
        return bool(events & _LOST), bool(events & _HALF_ENDED)

    def acknowledged(self) -> tuple[bool, int]:
        """Whether the peer's TCP has acknowledged all that was sent to it, and how many bytes it has acknowledged.

        (True, 0) where the system does not tell.
        """
        if not hasattr(socket, "TCP_INFO"):
            return True, 0
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            unacknowledged, acknowledged_bytes = _TCP_INFO.unpack(info)
        except (OSError, struct.error):  # not TCP, or another system's
            return True, 0
        return not unacknowledged, acknowledged_bytes


class TLSTransport(PlainTransport):
    """TLS. The same promises. `_lock` guards the OpenSSL object; a leaf, and nobody waits for the network under it.

    Its own thread gets in, for a finalizer that sends amid a `receive`: between two calls of OpenSSL, not within one.
    """

    __slots__ = ("_lock",)

    _sock: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        sock.setblocking(False)
        self._lock = RLock()

    @property
    def plain_fd(self) -> int:
        return -1

    def receive(self, size: int) -> bytes:
        while True:
            try:
                with self._lock:
                    return self._sock.recv(size)
            except ssl.SSLWantReadError:
                _wait(self._sock, select.POLLIN, None)
            except ssl.SSLWantWriteError:  # a renegotiation or key update wants to send
                _wait(self._sock, select.POLLOUT, None)
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return b""

    def send(self, data: bytes | memoryview) -> int:
        view, sent = memoryview(data), 0
        # A write is all or nothing to OpenSSL, however large: only record by record is there progress to be seen.
        with suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
            while sent < len(view):
                with self._lock:
                    sent += self._sock.send(view[sent : sent + _RECORD_BYTES])
        return sent  # OpenSSL wants the same bytes again; the outbox keeps them at its front.

    def end_writing(self) -> None:
        # SSLSocket.shutdown() would drop the TLS layer under a reader; the end of TCP's stream is enough here.
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_WR)


Transport = PlainTransport


def transport_for(sock: socket.socket | Transport) -> Transport:
    """The transport for a socket that a WSGI server handed over; one that stands in for a socket as it is."""
    if isinstance(sock, Transport):
        return sock
    if isinstance(sock, ssl.SSLSocket):
        return TLSTransport(sock)
    return PlainTransport(sock)


def message_receiver(
    transport: Transport, max_bytes: int, takes_binary: bool
) -> Callable[[], tuple[str | bytes, int] | bytes]:
    """What waits for input as `receive` does, and returns a message that came in alone, and its bytes on the wire.

    What came in is returned as it is where it is not one message, whole, that `decode_message` takes, of at most
    `max_bytes`, nor binary unless that is taken. In C the rest of a message that is longer than RECEIVE_BYTES is waited
    for, if it comes at once.
    """
    if speedups is None or transport.plain_fd < 0:
        return partial(_receive_message, transport, max_bytes, takes_binary)
    return partial(speedups.receive_message, transport.plain_fd, max_bytes, takes_binary)


def _receive_message(transport: Transport, max_bytes: int, takes_binary: bool) -> tuple[str | bytes, int] | bytes:
    data = transport.receive(RECEIVE_BYTES)
    decoded = decode_message(data, 0, max_bytes)
    if decoded is None or decoded[1] < len(data) or not (takes_binary or isinstance(decoded[0], str)):
        return data
    return decoded


def _wait(sock: socket.socket | int, events: int, timeout_s: float | None) -> int:
    """Which `events`, or end or failure, `sock` is ready for; 0 if none came within the time. poll(2), since select(2)
    stops at fd 1023."""
    poller = select.poll()
    poller.register(sock, events)
    ready = poller.poll(None if timeout_s is None else timeout_s * 1000)
    return ready[0][1] if ready else 0
