"""Misbehaving clients, as a process: ``python -m tests.bench.badpeers PORT PATH NEVER SLOW FLOOD``.

NEVER clients never read, SLOW clients read a kilobyte a second, FLOOD clients send small messages as fast as possible
and read everything. A closed client reconnects after PAUSE_S. The process prints an empty line when all clients are
connected, and runs until its standard input ends. Then it prints its counts as one line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import sys
from collections import Counter
from time import monotonic

PAUSE_S = 1.0

#: Small, so that unread data stays in the server.
RECEIVE_BUFFER_BYTES = 4096

#: A client that never reads does not notice a close. It reconnects after this time.
NEVER_READS_FOR_S = 15.0

SLOW_BYTES_PER_S = 1024
TICK_S = 0.05

_KEY = b"keyk"
_TEXT = b"flood 0123456789"
_MASKED = bytes(byte ^ _KEY[n % 4] for n, byte in enumerate(_TEXT))
#: A thousand masked text messages.
_FLOOD = (bytes([0x81, 0x80 | len(_TEXT)]) + _KEY + _MASKED) * 1000

_REQUEST = (
    "GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Peer:
    """One misbehaving client; `kind` is never, slow or flood."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.sock: socket.socket | None = None
        self.due = 0.0  # when it connects; while connected, when its next timed action is due
        self.at = 0  # for flood: how many bytes of _FLOOD have been sent


class Crowd:
    """All clients, on one thread."""

    def __init__(self, port: int, path: str, kinds: Counter[str]) -> None:
        self._address = ("127.0.0.1", port)
        self._request = _REQUEST.format(path).encode()
        self._kinds = kinds
        self._peers = [Peer(kind) for kind in kinds for _ in range(kinds[kind])]
        self._poller = select.epoll()
        self._by_fd: dict[int, Peer] = {}
        self.done: Counter[str] = Counter()

    def run(self) -> None:
        """Misbehave until the standard input ends."""
        stdin = sys.stdin.fileno()
        self._poller.register(stdin, select.EPOLLIN)
        complete = False
        while True:
            now = monotonic()
            for peer in self._peers:
                if peer.due <= now:
                    self._tick(peer, now)
            if not complete and all(self.done[f"{kind}_connections"] >= self._kinds[kind] for kind in self._kinds):
                complete = True
                print(flush=True)
            for fd, events in self._poller.poll(TICK_S):
                if fd == stdin:
                    if not os.read(stdin, 1):
                        return
                elif fd in self._by_fd:
                    self._serve(self._by_fd[fd], events)

    def _tick(self, peer: Peer, now: float) -> None:
        if peer.sock is None:
            self._connect(peer, now)
        elif peer.kind == "never":
            self._lose(peer)
        else:
            self._read(peer, SLOW_BYTES_PER_S)
            if peer.sock is not None:
                peer.due = now + 1

    def _connect(self, peer: Peer, now: float) -> None:
        sock = socket.socket()
        if peer.kind != "flood":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        try:
            sock.connect(self._address)
            sock.sendall(self._request)
        except OSError:
            sock.close()
            peer.due = now + PAUSE_S
            return
        sock.setblocking(False)
        peer.sock, peer.at = sock, 0
        peer.due = now + {"never": NEVER_READS_FOR_S, "slow": 1.0, "flood": float("inf")}[peer.kind]
        self._by_fd[sock.fileno()] = peer
        events = select.EPOLLIN | select.EPOLLOUT if peer.kind == "flood" else 0
        self._poller.register(sock.fileno(), events | select.EPOLLRDHUP)
        self.done[f"{peer.kind}_connections"] += 1

    def _serve(self, peer: Peer, events: int) -> None:
        if events & select.EPOLLIN:
            self._read(peer, 1 << 18)
        if peer.sock is not None and events & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
            self._lose(peer)
        if peer.sock is not None and events & select.EPOLLOUT:
            try:
                sent = peer.sock.send(_FLOOD[peer.at :])
            except BlockingIOError:
                return
            except OSError:
                self._lose(peer)
                return
            peer.at = (peer.at + sent) % len(_FLOOD)
            self.done["flood_bytes"] += sent

    def _read(self, peer: Peer, size: int) -> None:
        assert peer.sock is not None
        try:
            if peer.sock.recv(size):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._lose(peer)

    def _lose(self, peer: Peer) -> None:
        assert peer.sock is not None
        del self._by_fd[peer.sock.fileno()]
        peer.sock.close()
        peer.sock = None
        peer.due = monotonic() + PAUSE_S
        self.done[f"{peer.kind}_closed"] += 1


def main() -> None:
    port, path, *numbers = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    crowd = Crowd(int(port), path, Counter(dict(zip(("never", "slow", "flood"), map(int, numbers), strict=True))))
    crowd.run()
    crowd.done["flood_messages"] = crowd.done.pop("flood_bytes", 0) * 1000 // len(_FLOOD)
    print(json.dumps(dict(crowd.done)))


if __name__ == "__main__":
    main()
