"""Which HTTP clients keep a server that is to end waiting for nothing: they neither send nor take anything.

A client that still sends its request, or takes its answer, may go on, however slowly; so may an application that
works. The kernel knows: it counts what came and what the client has acknowledged. Only Linux tells, and only for TCP;
elsewhere nobody counts as stalled, and the server's own time limit holds.
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

__all__ = ["STALL_S", "Stalls", "wake"]

#: A client that has moved no byte for so long is given up while the server ends.
STALL_S = 2.0

#: Of struct tcp_info in linux/tcp.h, since Linux 4.1: tcpi_bytes_acked and tcpi_bytes_received.
_TCP_INFO = struct.Struct("=120xQQ")
_SIZE = struct.Struct("i")


class _Traffic(NamedTuple):
    moved: int  # bytes so far, both ways
    unread: int  # bytes that came, and that the application has not read
    untaken: int  # bytes that were written, and that the client has not acknowledged


class Stalls:
    """Watches the connections of a server that ends. One thread at a time."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: dict[socket.socket, tuple[int, float]] = {}  # bytes moved, and since when no more have

    def end(self, socks: Iterable[socket.socket]) -> int:
        """Wake the threads that wait for clients that have stalled; how many. Call it some times a second.

        Each of `socks` is that of one HTTP request, from its beginning to the end of its answer.
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
            # The end of what is read disturbs no application that has read its request and works on the answer.
            wake(sock, socket.SHUT_RDWR if traffic.untaken else socket.SHUT_RD)
            ended += 1
        return ended


def wake(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Wake who reads `sock`, or writes; that thread closes it. Not by SSLSocket's method, which no other may call.

    With SHUT_RD what has come can still be read, and an answer written.
    """
    with suppress(OSError):  # it has ended by itself
        socket.socket.shutdown(sock, how)


def _traffic(sock: socket.socket) -> _Traffic | None:
    """None where that is not known."""
    if sys.platform != "linux":
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        queues = [_SIZE.unpack(ioctl(sock, request, bytes(_SIZE.size)))[0] for request in (FIONREAD, TIOCOUTQ)]
    except (OSError, ValueError):  # not TCP, or closed by now
        return None
    if len(info) < _TCP_INFO.size:
        return None
    return _Traffic(sum(_TCP_INFO.unpack(info)), *queues)
