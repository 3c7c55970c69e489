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
from contextlib import suppress
from threading import Lock
from time import monotonic, sleep

from wsthreads.native import speedups

__all__ = ["PlainTransport", "TLSTransport", "Transport", "transport_for"]

#: Never raise SIGPIPE, never wait. (0 where the platform has no such flag: Python ignores SIGPIPE anyway.)
_SEND_FLAGS = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)

_RECORD_BYTES = 16384  # RFC 8446, 5.1

#: Between two reads of what is only discarded: some 6 MiB a second for each client.
_DISCARD_PAUSE_S = 0.01


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
        read is little at a time: a client that floods us and was closed for it gets no more work out of us.
        """
        deadline = monotonic() + timeout_s
        with suppress(OSError):
            while (left := deadline - monotonic()) > 0 and _wait(self._sock, select.POLLIN, left):
                if not self._discard():
                    return
                sleep(min(_DISCARD_PAUSE_S, left))

    def abort(self) -> None:
        """End both directions at once, from any thread; a `receive` that waits returns."""
        with suppress(OSError):  # already lost
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def _discard(self) -> bool:
        return bool(self._sock.recv(65536, getattr(socket, "MSG_DONTWAIT", 0)))


class TLSTransport(PlainTransport):
    """TLS. The same promises. `_lock` guards the OpenSSL object; a leaf, and nobody waits for the network under it."""

    __slots__ = ("_lock",)

    _sock: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        sock.setblocking(False)
        self._lock = Lock()

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

    def _discard(self) -> bool:
        try:
            with self._lock:
                return bool(self._sock.recv(65536))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True


Transport = PlainTransport


def transport_for(sock: socket.socket | Transport) -> Transport:
    """The transport for a socket that a WSGI server handed over; one that stands in for a socket as it is."""
    if isinstance(sock, Transport):
        return sock
    if isinstance(sock, ssl.SSLSocket):
        return TLSTransport(sock)
    return PlainTransport(sock)


def _wait(sock: socket.socket, events: int, timeout_s: float | None) -> bool:
    """Whether `sock` became ready, was ended or failed within the time. poll(2), since select(2) stops at fd 1023."""
    poller = select.poll()
    poller.register(sock, events)
    return bool(poller.poll(None if timeout_s is None else timeout_s * 1000))
