"""The server's end of a connection in memory: a transport without a socket."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition

from wsthreads.protocol.transport import PlainTransport

__all__ = ["Pipe"]


class Pipe(PlainTransport):
    """A transport in memory. The server receives the bytes that the client passes to `put`.

    `deliver` is called with the bytes that the server sends, and with b"" at the end. The server's writes never block,
    and their bytes arrive at once. The condition `changed` guards everything here, and is notified when the server's
    thread begins to wait. `deliver` is called while the session's lock is held, so it must not call the session.
    """

    __slots__ = ("_changed", "_deliver", "_ended", "_incoming", "_is_reading", "moved")

    def __init__(self, changed: Condition, deliver: Callable[[bytes], None]) -> None:
        self._changed = changed
        self._deliver = deliver
        self._incoming = bytearray()
        self._is_reading = False
        self._ended = False
        #: The number of calls of `put` and `send`. While it does not grow, nothing happens on the connection.
        self.moved = 0

    # For the client

    def limit_unsent(self, size: int) -> None:
        """Does nothing, because no kernel holds data."""

    def put(self, data: bytes) -> None:
        with self._changed:
            self._incoming += data
            self.moved += 1
            self._changed.notify_all()

    def end(self) -> None:
        """End the client's stream. The server can still receive data that was sent before."""
        with self._changed:
            self._ended = True
            self.moved += 1
            self._changed.notify_all()

    @property
    def is_idle(self) -> bool:
        """Whether the server's thread has read everything, and waits for more."""
        with self._changed:
            return self._is_reading and not self._incoming and not self._ended

    # For the server

    @property
    def plain_fd(self) -> int:
        return -1

    def fileno(self) -> int:
        return -1

    def receive(self, size: int) -> bytes:
        with self._changed:
            self._is_reading = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._incoming or self._ended)
            self._is_reading = False
            data = bytes(self._incoming[:size])
            del self._incoming[:size]
            return data

    def wait_readable(self, timeout_s: float) -> bool:
        with self._changed:
            self._is_reading = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._incoming or self._ended, timeout_s)
            self._is_reading = False
            return bool(self._incoming or self._ended)

    def send(self, data: bytes | memoryview) -> int:
        self.moved += 1
        self._deliver(bytes(data))
        return len(data)

    def end_writing(self) -> None:
        self._deliver(b"")

    def linger(self, timeout_s: float) -> None:
        """Does nothing, because all data that was sent has arrived already."""

    def abort(self) -> None:
        self.end()
        self._deliver(b"")
