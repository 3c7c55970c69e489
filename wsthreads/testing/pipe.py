"""The server's end of a connection in memory: a transport without a socket."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition

from wsthreads.protocol.transport import PlainTransport

__all__ = ["Pipe"]


class Pipe(PlainTransport):
    """The server receives what the client `put`s; what it sends is given to `deliver`, and nothing, b"", at its end.

    The server's writes never block: what it sends has arrived. `changed` guards everything here, and is notified when
    the server's thread begins to wait. `deliver` is called with the session's lock held, so it must not call back.
    """

    __slots__ = ("_changed", "_deliver", "_ended", "_incoming", "_is_reading", "moved")

    def __init__(self, changed: Condition, deliver: Callable[[bytes], None]) -> None:
        self._changed = changed
        self._deliver = deliver
        self._incoming = bytearray()
        self._is_reading = False
        self._ended = False
        #: Calls of `put` and `send` so far: while it stays the same, nothing happens on this connection.
        self.moved = 0

    # The client's.

    def put(self, data: bytes) -> None:
        with self._changed:
            self._incoming += data
            self.moved += 1
            self._changed.notify_all()

    def end(self) -> None:
        """The client has gone: what it has put can still be received, then the stream is over."""
        with self._changed:
            self._ended = True
            self.moved += 1
            self._changed.notify_all()

    @property
    def is_idle(self) -> bool:
        """Whether the server's thread waits for more than it was sent."""
        with self._changed:
            return self._is_reading and not self._incoming and not self._ended

    # The server's.

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

    def send(self, data: bytes | memoryview) -> int:
        self.moved += 1
        self._deliver(bytes(data))
        return len(data)

    def end_writing(self) -> None:
        self._deliver(b"")

    def linger(self, timeout_s: float) -> None:
        """Nothing can overtake what was sent."""

    def abort(self) -> None:
        self.end()
        self._deliver(b"")
