"""A connected socket with several writing threads and one reading thread.

All bytes enter and leave here, except in `_speedups.send_queues`, which writes directly to `plain_fd`.

`PlainTransport` is TCP. `TLSTransport` is an `ssl.SSLSocket`, whose OpenSSL object must not be read and written at the
same time. So it holds a lock during each OpenSSL call, but not while it waits.

Writing never blocks. Reading blocks until data arrives, the peer ends the stream, or another thread calls `abort`. The
socket is never closed here: it belongs to the WSGI server.
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
    "NOWHERE",
    "RECEIVE_BYTES",
    "Late",
    "PlainTransport",
    "TLSTransport",
    "Transport",
    "message_receiver",
    "next_size",
    "transport_for",
]

#: The size of one read. Small, because an idle connection keeps the buffer while it waits.
RECEIVE_BYTES = 2048

#: The size of a read for a client that sends a lot. It becomes smaller if one read has more than MANY_MESSAGES, because
#: these mean milliseconds of work, while other threads wait for the GIL.
RECEIVE_MANY_BYTES = 8192
MANY_MESSAGES = 16
RECEIVE_LARGE_BYTES = 65536

#: The flags against SIGPIPE and waiting. (0 on platforms without these flags. Python ignores SIGPIPE anyway.)
_SEND_FLAGS = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)

_RECORD_BYTES = 16384  # RFC 8446, 5.1

#: While `linger` discards input, it pauses after each read. The pauses double up to the last one. The first reads are
#: small, so a client that floods the server causes little work. A client that still sends after the first pauses may be
#: sending a large message. From then on, its input is read at 6 MiB per second, so that the client can finish and read
#: the close frame.
_DISCARD_LITTLE_BYTES = 65536
_DISCARD_MUCH_BYTES = 1 << 20
_DISCARD_PAUSES_S = (0.01, 0.16)

#: Events after which no more data will arrive: the peer has ended its stream, or the connection is lost.
_HALF_ENDED = getattr(select, "POLLRDHUP", 0)
_LOST = select.POLLHUP | select.POLLERR
_ENDED = _HALF_ENDED | _LOST

#: The needed parts of Linux's `struct tcp_info`: unacknowledged packets (32 bits), acknowledged bytes (64 bits).
_TCP_INFO = struct.Struct("=24xI92xQ")


class Late(OSError):
    """No input has arrived in time."""


class PlainTransport:
    """TCP (or a Unix socket)."""

    __slots__ = ("_sock",)

    #: How many of the bytes that were not sent must be the same at the next `send`. Always 0 without TLS.
    tried_bytes = 0

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        # Blocking mode: with a timeout, send() would wait for space, even with MSG_DONTWAIT.
        if sock.gettimeout() is not None:
            sock.setblocking(True)
        with suppress(OSError):  # not TCP
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def limit_unsent(self, size: int) -> None:
        """Let the kernel take no more bytes while this many are unsent. Does nothing on systems without this limit."""
        option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        if option is not None:
            with suppress(OSError):  # closed, or not TCP
                self._sock.setsockopt(socket.IPPROTO_TCP, option, size)

    @property
    def plain_fd(self) -> int:
        """The file descriptor if bytes can be written to it directly, which means without TLS. Otherwise -1."""
        return self._sock.fileno()

    def fileno(self) -> int:
        """The file descriptor to wait on, or -1 once the server has closed it."""
        return self._sock.fileno()

    def receive(self, size: int) -> bytes:
        """Read at most `size` bytes.

        Empty at the end of the stream. Blocks. Raises OSError if the connection is lost.
        """
        return self._sock.recv(size) if speedups is None else speedups.receive(self._sock.fileno(), size)

    def wait_readable(self, timeout_s: float) -> bool:
        """Wait until `receive` would return at once, perhaps with the end of the stream or a part of a message.

        Waits at most `timeout_s`.
        """
        if speedups is not None:
            speedups.rest()
        return self.fileno() < 0 or bool(_wait(self.fileno(), select.POLLIN, timeout_s))

    def send(self, data: bytes | memoryview) -> int:
        """Send without waiting.

        Returns how many bytes the kernel accepted, 0 if its buffer is full. Raises OSError if the connection is lost.
        """
        try:
            return self._sock.send(data, _SEND_FLAGS)
        except (BlockingIOError, InterruptedError):
            return 0

    def end_writing(self) -> None:
        """Send FIN: the peer sees the end of the stream. Data from the peer can still be read."""
        with suppress(OSError):  # already lost
            self._sock.shutdown(socket.SHUT_WR)

    def linger(self, timeout_s: float) -> None:
        """Read and discard until the peer ends its stream, or for `timeout_s`.

        Closing a socket with unread input makes the kernel send a reset, which can overtake the last bytes sent. Reads
        are small, so that a client that floods the server causes little work. The C version needs no GIL and does not
        copy the input.
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
                # The plain socket is read under TLS, too, because the content does not matter.
                if not events or not socket.socket.recv(self._sock, size, getattr(socket, "MSG_DONTWAIT", 0)):
                    return
                if not events & _ENDED:
                    sleep(min(pause, left))
                    pause = min(2 * pause, last_pause)

    def abort(self) -> None:
        """End both directions at once. A waiting `receive` returns. Any thread."""
        with suppress(OSError):  # already lost
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def end_seen(self) -> tuple[bool, bool]:
        """Whether the connection is lost, and whether the peer has ended its stream. Does not read, never blocks."""
        descriptor = self.fileno()
        if descriptor < 0:  # the server has closed the socket, or there is none
            return False, False
        events = _wait(descriptor, _HALF_ENDED, 0)
        return bool(events & _LOST), bool(events & _HALF_ENDED)

    def acknowledged(self) -> tuple[bool, int]:
        """Whether the peer's TCP has acknowledged all sent bytes, and how many bytes it has acknowledged.

        (True, 0) if the operating system does not report this.
        """
        if not hasattr(socket, "TCP_INFO"):
            return True, 0
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            unacknowledged, acknowledged_bytes = _TCP_INFO.unpack(info)
        except (OSError, struct.error):  # not TCP, or another operating system
            return True, 0
        return not unacknowledged, acknowledged_bytes


class TLSTransport(PlainTransport):
    """TLS, with the same guarantees.

    `_lock` guards the OpenSSL object. It is a leaf lock, and is not held while a thread waits for the network. It is an
    RLock, because a finalizer may send during a `receive` of the same thread, between two OpenSSL calls.
    """

    __slots__ = ("_lock",)

    tried_bytes = _RECORD_BYTES

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
            except ssl.SSLWantWriteError:  # a renegotiation or key update must send
                _wait(self._sock, select.POLLOUT, None)
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return b""

    def wait_readable(self, timeout_s: float) -> bool:
        with self._lock:
            is_there = self._sock.pending() > 0
        return is_there or super().wait_readable(timeout_s)

    def send(self, data: bytes | memoryview) -> int:
        view, sent = memoryview(data), 0
        # OpenSSL reports a write only when it is complete. Writing record by record shows partial progress.
        try:
            while sent < len(view):
                with self._lock:
                    sent += self._sock.send(view[sent : sent + _RECORD_BYTES])
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
            pass  # the kernel is full
        except OSError:
            if not sent:
                raise
            # The peer may have got these records. The next call raises the error.
        return sent  # OpenSSL needs the same bytes at the next call; the outbox keeps them at its front

    def end_writing(self) -> None:
        # SSLSocket.shutdown() would drop the TLS layer while another thread reads. Ending the TCP stream is enough.
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_WR)


class NoTransport(PlainTransport):
    """Takes the place of the transport while a session has no connection. Accepts no bytes."""

    __slots__ = ()

    def __init__(self) -> None:
        """Does not call the base class, because there is no socket."""

    def limit_unsent(self, size: int) -> None:
        pass

    @property
    def plain_fd(self) -> int:
        return -1

    def fileno(self) -> int:
        return -1

    def send(self, data: bytes | memoryview) -> int:
        return 0

    def abort(self) -> None:
        pass


NOWHERE = NoTransport()

Transport = PlainTransport


def transport_for(sock: socket.socket | Transport) -> Transport:
    """The transport for a WSGI server's socket. Returns a transport unchanged."""
    if isinstance(sock, Transport):
        return sock
    if isinstance(sock, ssl.SSLSocket):
        return TLSTransport(sock)
    return PlainTransport(sock)


def message_receiver(
    transport: Transport, max_bytes: int, takes_binary: bool
) -> Callable[[], tuple[str | bytes, int] | bytes]:
    """Returns a function that waits like `receive`, and returns a single message with its size on the wire.

    The bytes must be exactly one complete message that `decode_message` accepts, of at most `max_bytes`. A binary
    message needs `takes_binary`. In all other cases, the function returns the raw bytes instead. For a message longer
    than RECEIVE_BYTES, the C version also reads the rest if it arrives at once.
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


def next_size(received: int, messages: int) -> int:
    """The size of the next read. The last read got `received` bytes, with `messages` messages in them."""
    if received < RECEIVE_BYTES:
        return RECEIVE_BYTES
    return RECEIVE_MANY_BYTES if messages > MANY_MESSAGES else RECEIVE_LARGE_BYTES


def _wait(sock: socket.socket | int, events: int, timeout_s: float | None) -> int:
    """Wait for `events` of `sock`.

    Returns the events that have come, or an end or a failure. Returns 0 after the timeout.

    Uses poll(2), because select(2) stops at file descriptor 1023."""
    poller = select.poll()
    poller.register(sock, events)
    ready = poller.poll(None if timeout_s is None else timeout_s * 1000)
    return ready[0][1] if ready else 0
