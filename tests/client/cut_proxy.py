"""A proxy that cuts connections after given numbers of bytes."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass, field

READ = selectors.EVENT_READ


@dataclass(frozen=True)
class Cut:
    """Cut after `at` bytes of a direction, "up" to the server or "down" to the client.

    `leaves_half`: the client's side is cut, and the server's side stays open and silent. Otherwise both are, by RST if
    `resets`, else by FIN.
    """

    direction: str
    at: int
    leaves_half: bool = False
    resets: bool = False


@dataclass
class Lane:
    """One connection through the proxy, in its two directions."""

    client: socket.socket
    server: socket.socket
    cut: Cut | None
    passed: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})

    @property
    def is_due(self) -> bool:
        return self.cut is not None and self.passed[self.cut.direction] >= self.cut.at

    def left(self, direction: str, size: int) -> int:
        """How many of so many bytes may pass."""
        if self.cut is None or self.cut.direction != direction:
            return size
        return min(size, self.cut.at - self.passed[direction])


class CutProxy:
    """Passes on all connections, and cuts the next ones after each `arm`. It has one thread."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, READ)
        self._ours, self._theirs = socket.socketpair()
        self._selector.register(self._ours, READ)
        self._lock = threading.Lock()  # guards the rest
        self._cuts: deque[Cut] = deque()  # of the next connections
        self._lanes: dict[socket.socket, Lane] = {}
        self._half: list[socket.socket] = []
        #: For each connection since `arm`, how many bytes have passed, by direction.
        self.passed: list[dict[str, int]] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="cut-proxy", daemon=True)
        self._thread.start()

    def arm(self, *cuts: Cut) -> None:
        """Cut the next connections so. What is left of earlier ones is ended."""
        with self._lock:
            self._end_all()
            self._cuts, self.passed = deque(cuts), []

    @property
    def cuts_left(self) -> int:
        """How many connections have not been cut yet."""
        with self._lock:
            return len(self._cuts) + len({id(lane) for lane in self._lanes.values() if lane.cut is not None})

    def close(self) -> None:
        self._is_over = True
        self._theirs.send(b"\0")
        self._thread.join(5)
        with self._lock:
            self._end_all()
        for thing in (self._listener, self._selector, self._ours, self._theirs):
            thing.close()

    def _run(self) -> None:
        while not self._is_over:
            for key, _ in self._selector.select():
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj in self._lanes:
                        self._pass_on(key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._target))
        lane = Lane(client, server, self._cuts.popleft() if self._cuts else None)
        self.passed.append(lane.passed)
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._lanes[sock] = lane
            self._selector.register(sock, READ)

    def _pass_on(self, source: socket.socket) -> None:
        lane = self._lanes[source]
        direction, target = ("up", lane.server) if source is lane.client else ("down", lane.client)
        try:
            data = source.recv(65536)
        except OSError:
            data = b""
        data = data[: lane.left(direction, len(data))]
        with contextlib.suppress(OSError):
            target.sendall(data)
        lane.passed[direction] += len(data)
        if lane.cut is not None and lane.is_due:
            self._end(lane.client, lane.cut.resets)
            if lane.cut.leaves_half:
                self._forget(lane.server)
                self._half.append(lane.server)
            else:
                self._end(lane.server, lane.cut.resets)
        elif not data:
            self._end(lane.client, resets=False)
            self._end(lane.server, resets=False)

    def _forget(self, sock: socket.socket) -> None:
        if self._lanes.pop(sock, None) is not None:
            self._selector.unregister(sock)

    def _end(self, sock: socket.socket, resets: bool) -> None:
        self._forget(sock)
        if resets:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    def _end_all(self) -> None:
        for sock in [*self._lanes, *self._half]:
            self._end(sock, resets=False)
        self._half.clear()
