"""The queue from sessions' threads to the isolate's thread (the inbox), and each session's limits (its intake).

`_speedups` has the same classes in C. There, an intake can also read, without the GIL, so that a session's thread does
not disturb the threads that run Python or JavaScript:

- ``pump(inbox, descriptor, max_bytes, turn)`` moves text messages from a socket to the inbox. It returns the first
  bytes that are not a text message, or no bytes at the end of the stream. It also returns a partial message whose rest
  does not arrive soon. Blocks; raises OSError if the connection is lost.
- ``pump(…, turn, due_texts, due_bytes)`` is for a client that speaks wsthreads.1. It also returns messages that begin
  with DLE. It returns None when it has taken `due_texts` messages or `due_bytes` bytes with headers, because an
  acknowledgement is due then.
- ``turn`` is the number of a connection. `pump` takes messages only while this is the session's current number. The
  next connection of a session has another number.
- ``shut(inbox, turn)`` ends the turn, from any thread: after its return, `pump` takes nothing more in this turn.
  Returns the final ``(texts, text_bytes)``, or None if the turn was over already.
- ``heard_at`` is the time when `pump` last took a message, on the monotonic clock; 0 before the first one.
- ``texts`` is how many messages `pump` has taken, ``text_bytes`` their bytes on the wire.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import Any

from wsthreads._native import speedups

__all__ = ["Inbox", "Intake"]


class _Inbox:
    """A queue without a limit. Any thread may `put`; one thread at a time may `get`."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._is_closed = False
        self.empty = self._queue.empty

    def put(self, thing: Any) -> None:
        self._queue.put(thing)
        if self._is_closed:  # perhaps closed just now, and already emptied by the closing thread
            self.get(0)

    def close(self) -> None:
        """Drop later things, and stop the reading of intakes. Things that are in the inbox can still be taken out."""
        self._is_closed = True

    def get(self, timeout_s: float | None = None) -> Any:
        """The oldest thing in the inbox, or None if nothing comes within `timeout_s` (None: no limit).

        The C version also returns ``(intake, text, size)``: a message that an intake has read.
        """
        try:
            return self._queue.get_nowait() if timeout_s == 0 else self._queue.get(timeout=timeout_s)
        except Empty:
            return None


class _Intake:
    """Limits the unhandled messages of a session: at most `max_count` messages, and `max_size` characters or bytes.

    Only the session's thread calls `enter`. Any thread may call `leave`, one at a time. In this Python version, `enter`
    and `leave` must not run at the same time, so their callers hold a lock.
    """

    __slots__ = ("_count", "_max_count", "_max_size", "_size")

    def __init__(self, max_count: int, max_size: int) -> None:
        self._max_count = max_count
        self._max_size = max_size
        self._count = self._size = 0

    @property
    def count(self) -> int:
        """How many messages have entered and not left."""
        return self._count

    def enter(self, size: int) -> bool:
        """Count a message in. False, without any effect, if it exceeds a limit. A single message may always enter."""
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
