"""The network between a process and its Redis, as a test wants it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from tests.programs import DEADLINE_S

__all__ = ["Proxy"]


class Proxy:
    """Passes connections on to `port`; it can cut them off, swallow what they carry or only the answers, be slow."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()  # guards _sockets
        self._sockets: set[socket.socket] = set()
        self._state = threading.Condition()  # guards the next four
        self._is_cut = False
        self._swallows = frozenset[str]()
        self._answered_until: bytes | None = None  # answers vanish from the request on that has this
        self.swallowed_bytes = 0
        #: Seconds between the two halves of whatever Redis says.
        self.pause_s = 0.0
        self._thread = threading.Thread(target=self._accept, name="proxy-accept", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End all connections, and each new one."""
        with self._state:
            self._is_cut = True
        self._end_all()

    def swallow(self, *directions: str) -> None:
        """Have "requests", "answers", or by default both, vanish."""
        with self._state:
            self._swallows = frozenset(directions or ("requests", "answers"))

    def swallow_answers_from(self, request: bytes) -> None:
        """Have "answers" vanish as soon as a request has these bytes. Those before it are answered."""
        with self._state:
            self._answered_until = request

    def await_swallowed(self) -> None:
        """Wait until something has vanished."""
        with self._state:
            assert self._state.wait_for(lambda: self.swallowed_bytes, DEADLINE_S)

    def heal(self) -> None:
        """From now on all works; connections of which something was swallowed are ended, as they would be in time."""
        with self._state:
            broken, self._swallows, self._is_cut = self._swallows, frozenset(), False
            self._answered_until = None
            self.swallowed_bytes = 0
        if broken:
            self._end_all()

    def _end_all(self) -> None:
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._state:
                is_cut = self._is_cut
            if is_cut:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), DEADLINE_S)
            except OSError:
                near.close()
                continue
            for sock in (near, far):
                sock.settimeout(None)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {near, far}
            for direction, source, sink in (("requests", near, far), ("answers", far, near)):
                threading.Thread(
                    target=self._pump, args=(direction, source, sink), name="proxy-pump", daemon=True
                ).start()

    def _pump(self, direction: str, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._state:
                    if direction == "requests" and self._answered_until is not None and self._answered_until in data:
                        self._swallows |= {"answers"}
                    if direction in self._swallows:
                        self.swallowed_bytes += len(data)
                        self._state.notify_all()
                        continue
                if direction == "answers" and self.pause_s:
                    sink.sendall(data[: len(data) // 2])
                    time.sleep(self.pause_s)
                    data = data[len(data) // 2 :]
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        with self._lock:
            known = source in self._sockets
            self._sockets.discard(source)
        if known:
            source.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which a mere close does not
        self._thread.join(DEADLINE_S)
        self._listener.close()
        self._end_all()
