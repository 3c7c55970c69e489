"""Finds HTTP clients that delay the end of a server because they neither send nor read.

A client that is still sending its request or receiving its response may continue, even if it is slow. An application
that is working on the response may continue, too. The kernel counts the bytes that were received and acknowledged. Only
Linux offers these counts, and only for TCP. On other systems, no client counts as stalled, and only the server's own
time limit applies.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import FIONREAD, TIOCOUTQ

__all__ = ["STALL_S", "StalledClients", "wake"]

#: While the server is ending, a client that has neither sent nor read for this long is dropped.
STALL_S = 2.0

#: Where tcpi_bytes_acked and tcpi_bytes_received are in the struct tcp_info of linux/tcp.h, since Linux 4.1.
_TCP_INFO = struct.Struct("=120xQQ")
_SIZE = struct.Struct("i")


class _Traffic(NamedTuple):
    moved: int  # bytes received and acknowledged so far
    unread: int  # bytes that were received, but that the application has not read
    untaken: int  # bytes that were sent, but that the client has not acknowledged


class StalledClients:
    """Watches the connections of a server while the server ends. One thread at a time."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        # for each socket: the bytes moved so far, and when the number changed last
        self._seen: dict[socket.socket, tuple[int, float]] = {}

    def end(self, socks: Iterable[socket.socket]) -> int:
        """Drop the clients that have stalled, so that their threads continue. Returns how many were dropped.

        Call this often. Each of `socks` serves one HTTP request, from its beginning to the end of its response.
        """
        now, ended = self._clock(), 0
        before, self._seen = self._seen, {}
        for sock in socks:
            traffic = _traffic(sock)
            if traffic is None:
                continue
            moved, since = before.get(sock, (-1, now))
            if moved != traffic.moved:
                since = now
            self._seen[sock] = (traffic.moved, since)
            if now - since < STALL_S or (traffic.unread and not traffic.untaken):
                continue
            # SHUT_RD does not disturb an application that has read its request and is working on the response.
            wake(sock, socket.SHUT_RDWR if traffic.untaken else socket.SHUT_RD)
            ended += 1
        return ended


def wake(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Wake the thread that reads from `sock` or writes to it. That thread closes the socket.

    With SHUT_RD, bytes that were received can still be read, and a response can be written. `SSLSocket.shutdown` is not
    called, because only the connection's own thread may call it.
    """
    with suppress(OSError):  # the connection has ended by itself
        socket.socket.shutdown(sock, how)


def _traffic(sock: socket.socket) -> _Traffic | None:
    """Returns the traffic of a socket, or None if it is not known."""
    if sys.platform != "linux":
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        queues = [_SIZE.unpack(ioctl(sock, request, bytes(_SIZE.size)))[0] for request in (FIONREAD, TIOCOUTQ)]
    except (OSError, ValueError):  # not TCP, or closed
        return None
    if len(info) < _TCP_INFO.size:
        return None
    return _Traffic(sum(_TCP_INFO.unpack(info)), *queues)
