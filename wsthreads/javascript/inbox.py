"""What the threads of sessions leave for the isolate's: the inbox, and each session's line in it.

`_speedups` has the same classes in C, and there a line can also read, without the GIL, so that a session's thread
disturbs nobody who runs Python, or JavaScript, meanwhile:

- ``pump(inbox, descriptor, max_bytes)`` takes text messages from a socket to the inbox until something else comes in,
  which it returns: nothing at the end of the stream. It returns a message, too, whose rest does not come soon. Blocks;
  raises OSError if the connection is lost.
- ``shut()``, from any thread, has it keep nothing from then on.
- ``heard_at`` is when it last kept something, on the monotonic clock; 0 if it never has.
- ``texts`` is how many messages it has kept, ``text_bytes`` how many bytes these took on the wire.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import Any

from wsthreads._native import speedups

__all__ = ["Inbox", "Line"]


class _Inbox:
    """A queue without a bound. Any thread may `put`; one at a time may `get`."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._is_closed = False
        self.empty = self._queue.empty

    def put(self, thing: Any) -> None:
        self._queue.put(thing)
        if self._is_closed:  # perhaps only since a moment, and who closed it has emptied it before this
            self.get(0)

    def close(self) -> None:
        """What is put in from now on is dropped, and nothing is read any more. What is in there can still be got."""
        self._is_closed = True

    def get(self, timeout_s: float | None = None) -> Any:
        """What was put in first, or None if nothing comes within `timeout_s` (None: however long).

        In C also ``(line, text, size)`` of a message that a line has read.
        """
        try:
            return self._queue.get_nowait() if timeout_s == 0 else self._queue.get(timeout=timeout_s)
        except Empty:
            return None


class _Line:
    """How much of a session's waits, or is in hand: `max_count` messages and `max_size` characters or bytes at most.

    Only the session's thread calls `enter`; `leave` is for any, one at a time.
    """

    __slots__ = ("_count", "_max_count", "_max_size", "_size")

    def __init__(self, max_count: int, max_size: int) -> None:
        self._max_count = max_count
        self._max_size = max_size
        self._count = self._size = 0

    @property
    def count(self) -> int:
        """How many have entered, and not left."""
        return self._count

    def enter(self, size: int) -> bool:
        """Count one in; False, and nothing happens, if there is no place for it. One may always enter."""
        if self._count and (self._count >= self._max_count or self._size + size > self._max_size):
            return False
        self._count += 1
        self._size += size
        return True

    def leave(self, size: int) -> None:
        self._count -= 1
        self._size -= size


Inbox: Any = _Inbox if speedups is None else speedups.Inbox
Line: Any = _Line if speedups is None else speedups.Line
