"""Finds HTTP clients that delay the end of a server because they neither send nor read.

A client that still sends its request or receives its answer may continue, even if it is slow. An application that works
on the answer may continue, too. The kernel counts the bytes that were received and acknowledged. Only Linux offers
these counts, and only for TCP. Elsewhere, no client counts as stalled, and only the server's own time limit applies.
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

#: While the server is ending, a client that sends and reads nothing for this long is dropped.
STALL_S = 2.0

#: The place of tcpi_bytes_acked and tcpi_bytes_received in struct tcp_info of linux/tcp.h, since Linux 4.1.
_TCP_INFO = struct.Struct("=120xQQ")
_SIZE = struct.Struct("i")


class _Traffic(NamedTuple):
    moved: int  # bytes so far, in both directions
    unread: int  # bytes received that the application has not read
    untaken: int  # bytes sent that the client has not acknowledged


class StalledClients:
    """Watches the connections of a server while it ends. One thread at a time."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: dict[socket.socket, tuple[int, float]] = {}  # bytes moved, and the time of the last change

    def end(self, socks: Iterable[socket.socket]) -> int:
        """Drop the clients that have stalled, so that their threads continue. Returns their number. Call this often.

        Each of `socks` serves one HTTP request, from its beginning to the end of its answer.
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
            # SHUT_RD does not disturb an application that has read its request and is working on the answer.
            wake(sock, socket.SHUT_RDWR if traffic.untaken else socket.SHUT_RD)
            ended += 1
        return ended


def wake(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Wake the thread that reads or writes `sock`. That thread closes it.

    After SHUT_RD, received bytes can still be read, and an answer can be written. Only the connection's thread may call
    `SSLSocket.shutdown`, so this does not.
    """
    with suppress(OSError):  # the connection has ended by itself
        socket.socket.shutdown(sock, how)


def _traffic(sock: socket.socket) -> _Traffic | None:
    """The traffic of a socket; None if it is not known."""
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
