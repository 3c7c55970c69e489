"""A connected socket, to which several threads write, and from which one thread reads.

All bytes of a connection pass through here, except in `_speedups.send_queues`, which writes directly to `plain_fd`.

`PlainTransport` is TCP. `TLSTransport` is an `ssl.SSLSocket`. OpenSSL does not allow that one thread reads and another
thread writes at the same time. So `TLSTransport` holds a lock during each call of OpenSSL, but not while it waits.

Writing never blocks. Reading blocks until data arrives, the peer ends the stream, or another thread calls `abort`.
Nothing here closes the socket, because it belongs to the WSGI server.
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

#: The size of one read. It is small, because a connection holds the buffer while it waits.
RECEIVE_BYTES = 2048

#: The sizes of a read for a client that sends a lot. The larger size is used unless the last read had more than
#: MANY_MESSAGES, because so many messages mean milliseconds of work, while other threads wait for the GIL.
RECEIVE_MANY_BYTES = 8192
MANY_MESSAGES = 16
RECEIVE_LARGE_BYTES = 65536

#: The flags for sending without waiting and without the signal SIGPIPE. (0 on platforms without these flags. Python
#: ignores SIGPIPE anyway.)
_SEND_FLAGS = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)

_RECORD_BYTES = 16384  # the largest record of TLS: RFC 8446, 5.1

#: While `linger` discards input, it pauses after each read. Each pause is twice as long as the one before, up to the
#: last value. The first reads are small, so a client that floods the server causes little work. A client that still
#: sends after the first pauses may be sending a large message. From then on, its input is read at 6 MiB per second, so
#: that the client can finish and read the close frame.
_DISCARD_LITTLE_BYTES = 65536
_DISCARD_MUCH_BYTES = 1 << 20
_DISCARD_PAUSES_S = (0.01, 0.16)

#: Events of poll(2) after which no more data will arrive: the peer has ended its stream, or the connection is lost.
_HALF_ENDED = getattr(select, "POLLRDHUP", 0)
_LOST = select.POLLHUP | select.POLLERR
_ENDED = _HALF_ENDED | _LOST

#: The two parts of Linux's `struct tcp_info` that are needed: unacknowledged packets (32 bits), acknowledged bytes (64
#: bits).
_TCP_INFO = struct.Struct("=24xI92xQ")


class Late(OSError):
    """No input has arrived in time."""


class PlainTransport:
    """TCP, or a Unix socket."""

    __slots__ = ("_sock",)

    #: If `send` did not send all bytes, the next call must repeat this many of the others unchanged. Always 0 without
    #: TLS.
    tried_bytes = 0

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        # Blocking mode, because with a timeout, send() would wait for space, even with MSG_DONTWAIT.
        if sock.gettimeout() is not None:
            sock.setblocking(True)
        with suppress(OSError):  # not TCP
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def limit_unsent(self, size: int) -> None:
        """Let the kernel take no more bytes while it has this many unsent bytes.

        Does nothing on systems without such a limit.
        """
        option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        if option is not None:
            with suppress(OSError):  # closed, or not TCP
                self._sock.setsockopt(socket.IPPROTO_TCP, option, size)

    @property
    def plain_fd(self) -> int:
        """The file descriptor if code may write to it directly, which means without TLS. Otherwise -1."""
        return self._sock.fileno()

    def fileno(self) -> int:
        """The file descriptor to wait for, or -1 once the server has closed the socket."""
        return self._sock.fileno()

    def receive(self, size: int) -> bytes:
        """Read at most `size` bytes. Blocks until there is at least one.

        Returns no bytes at the end of the stream. Raises OSError if the connection is lost.
        """
        return self._sock.recv(size) if speedups is None else speedups.receive(self._sock.fileno(), size)

    def wait_readable(self, timeout_s: float) -> bool:
        """Wait until `receive` would return without blocking, for at most `timeout_s`. Returns whether it would.

        `receive` may then return a part of a message, or the end of the stream.
        """
        if speedups is not None:
            speedups.rest()
        return self.fileno() < 0 or bool(_wait(self.fileno(), select.POLLIN, timeout_s))

    def send(self, data: bytes | memoryview) -> int:
        """Send without waiting. Returns how many bytes the kernel has taken: 0 if its buffer is full.

        Raises OSError if the connection is lost.
        """
        try:
            return self._sock.send(data, _SEND_FLAGS)
        except (BlockingIOError, InterruptedError):
            return 0

    def end_writing(self) -> None:
        """End this direction of TCP: the peer sees the end of the stream. Data from the peer can still be read."""
        with suppress(OSError):  # the connection is lost already
            self._sock.shutdown(socket.SHUT_WR)

    def linger(self, timeout_s: float) -> None:
        """Read and discard input until the peer ends its stream, for at most `timeout_s`.

        If a socket is closed while it has unread input, the kernel sends a reset, and the peer may then miss the last
        bytes that were sent. Reads are small, so that a client that floods the server causes little work. The C version
        needs no GIL, and does not copy the input.
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
                # With TLS, too, the encrypted bytes are read, because their content does not matter.
                if not events or not socket.socket.recv(self._sock, size, getattr(socket, "MSG_DONTWAIT", 0)):
                    return
                if not events & _ENDED:
                    sleep(min(pause, left))
                    pause = min(2 * pause, last_pause)

    def abort(self) -> None:
        """End both directions at once. A thread that waits in `receive` returns. Any thread."""
        with suppress(OSError):  # the connection is lost already
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def end_seen(self) -> tuple[bool, bool]:
        """Returns whether the connection is lost, and whether the peer has ended its stream.

        Does not read, never blocks.
        """
        descriptor = self.fileno()
        if descriptor < 0:  # the server has closed the socket, or there is none
            return False, False
        events = _wait(descriptor, _HALF_ENDED, 0)
        return bool(events & _LOST), bool(events & _HALF_ENDED)

    def acknowledged(self) -> tuple[bool, int]:
        """Returns whether the peer's TCP has acknowledged all sent bytes, and how many bytes it has acknowledged.

        Returns (True, 0) if the operating system does not report this.
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
    """TLS, with the guarantees of `PlainTransport`.

    `_lock` guards the OpenSSL object. It is a leaf lock: no other lock is taken while it is held. No thread holds it
    while it waits for the network. It is an RLock, because a finalizer may send during a `receive` of the same thread,
    between two calls of OpenSSL.
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
            except ssl.SSLWantWriteError:  # for a renegotiation or a key update, OpenSSL must send
                _wait(self._sock, select.POLLOUT, None)
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return b""

    def wait_readable(self, timeout_s: float) -> bool:
        with self._lock:
            is_there = self._sock.pending() > 0
        return is_there or super().wait_readable(timeout_s)

    def send(self, data: bytes | memoryview) -> int:
        view, sent = memoryview(data), 0
        # OpenSSL reports only complete writes. So the data is written in records, to learn of partial progress.
        try:
            while sent < len(view):
                with self._lock:
                    sent += self._sock.send(view[sent : sent + _RECORD_BYTES])
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
            pass  # the kernel has no more space
        except OSError:
            if not sent:
                raise
            # The peer may have got the records before. The next call will raise the error.
        return sent  # OpenSSL needs the same bytes at the next call, and the outbox keeps them first

    def end_writing(self) -> None:
        # SSLSocket.shutdown() would remove the TLS layer while another thread reads. Ending the TCP stream is enough.
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_WR)


class NoTransport(PlainTransport):
    """Takes the place of the transport while a session has no connection. Takes no bytes."""

    __slots__ = ()

    def __init__(self) -> None:
        """The base class's constructor is not called, because there is no socket."""

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
    """Returns the transport for the socket of a WSGI server. Returns a transport unchanged."""
    if isinstance(sock, Transport):
        return sock
    if isinstance(sock, ssl.SSLSocket):
        return TLSTransport(sock)
    return PlainTransport(sock)


def message_receiver(
    transport: Transport, max_bytes: int, takes_binary: bool
) -> Callable[[], tuple[str | bytes, int] | bytes]:
    """Returns a function that waits like `receive`, and returns one message with its size on the wire.

    The received bytes must be exactly one complete message that `decode_message` accepts, of at most `max_bytes`.
    Binary messages are accepted only with `takes_binary`. In all other cases, the function returns the bytes instead.
    For a message longer than RECEIVE_BYTES, the C version also reads the rest if it arrives at once.
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
    """Returns the size of the next read. The last read returned `received` bytes with this many `messages`."""
    if received < RECEIVE_BYTES:
        return RECEIVE_BYTES
    return RECEIVE_MANY_BYTES if messages > MANY_MESSAGES else RECEIVE_LARGE_BYTES


def _wait(sock: socket.socket | int, events: int, timeout_s: float | None) -> int:
    """Wait for `events` of `sock`. Uses poll(2), because select(2) does not support file descriptors above 1023.

    Returns the events that have come, including an end or a failure. Returns 0 after the timeout.
    """
    poller = select.poll()
    poller.register(sock, events)
    ready = poller.poll(None if timeout_s is None else timeout_s * 1000)
    return ready[0][1] if ready else 0
