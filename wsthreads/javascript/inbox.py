"""The *inbox* is the queue from the threads of sessions to the isolate's thread.

The *intake* of a session has its limits.

`_speedups` has the same classes in C. There, an intake can also read messages without the GIL. So a session's thread
does not disturb the threads that run Python or JavaScript. An intake in C also has:

- ``pump(inbox, descriptor, max_bytes, turn)`` moves text messages from a socket to the inbox. Blocks until it receives
  something that is not a text message, and returns these bytes. At the end of the stream, it returns no bytes. If the
  rest of a message does not arrive soon, it returns the part that has arrived. Raises OSError if the connection is
  lost.
- ``pump(…, turn, due_texts, due_bytes)`` is for a client that speaks wsthreads.1. It also returns messages that begin
  with DLE. It returns None when it has taken `due_texts` messages or `due_bytes` bytes (with headers), because an
  acknowledgement has to be sent then.
- ``turn`` is the number of a connection of the session. `pump` takes messages only while ``turn`` is the session's
  current number. The session's next connection has another number.
- ``shut(inbox, turn)`` ends a turn, from any thread. After that, `pump` takes no more messages in this turn. Returns
  the final ``(texts, text_bytes)``, or None if the turn was over already.
- ``heard_at`` is the time when `pump` last took a message, on the monotonic clock. It is 0 before the first message.
- ``texts`` is how many messages `pump` has taken, and ``text_bytes`` is their size on the wire.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import Any

from wsthreads._native import speedups

__all__ = ["Inbox", "Intake"]


class _Inbox:
    """A queue without a limit. Any thread may call `put`. Only one thread at a time may call `get`."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._is_closed = False
        self.empty = self._queue.empty

    def put(self, thing: Any) -> None:
        self._queue.put(thing)
        if self._is_closed:  # another thread may have closed the inbox just now, and emptied it before this `put`
            self.get(0)

    def close(self) -> None:
        """Drop later things, and stop the reading of intakes. Things that are in the inbox can still be taken out."""
        self._is_closed = True

    def get(self, timeout_s: float | None = None) -> Any:
        """The oldest thing in the inbox.

        None if nothing arrives within `timeout_s`. If `timeout_s` is None, there is no limit.

        The C version may also return ``(intake, text, size)`` for a message that an intake has read.
        """
        try:
            return self._queue.get_nowait() if timeout_s == 0 else self._queue.get(timeout=timeout_s)
        except Empty:
            return None


class _Intake:
    """Limits a session's unhandled messages: at most `max_count` messages, and `max_size` characters or bytes.

    Only the session's thread calls `enter`. Any thread may call `leave`, but only one at a time. In this Python
    version, `enter` and `leave` must not run at the same time, so their callers hold a lock.
    """

    __slots__ = ("_count", "_max_count", "_max_size", "_size")

    def __init__(self, max_count: int, max_size: int) -> None:
        self._max_count = max_count
        self._max_size = max_size
        self._count = self._size = 0

    @property
    def count(self) -> int:
        """How many messages have entered and have not left."""
        return self._count

    def enter(self, size: int) -> bool:
        """Count one more message.

        Returns false, and counts nothing, if this exceeds a limit. The first message may always enter.
        """
        if self._count and (self._count >= self._max_count or self._size + size > self._max_size):
            return False
        self._count += 1
        self._size += size
        return True

    def leave(self, size: int) -> None:
        self._count -= 1
        self._size -= size


Inbox: Any = _Inbox if speedups is None else speedups.Inbox
Intake: Any = _Intake if speedups is None else speedups.Intake
