"""Held frames: frames of a session that wait for broadcasts, because they must not overtake them.

A broadcast goes to Redis and comes back before it reaches the members. A frame that the same thread sends after the
broadcast is held until then. `pending` has the guarantees, and tells when a broadcast is late: then held frames
overtake it.

A finalizer may run in any thread, at any line of this module. It may call `put` and read the state. So `put` only tries
to take the lock. If another thread holds the lock, that thread sends the frame, because it checks for frames again
after it has released the lock.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from wsthreads.brokers.pending import Bell, PendingBroadcast

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsthreads.protocol.outbox import Outbox
    from wsthreads.threads.flusher import Flusher

__all__ = ["MAX_HELD_BYTES", "HeldFrames"]

#: When more bytes than this are held for one session, the frames no longer wait for their broadcasts. Only threads that
#: must not wait can reach this limit. A session's own thread waits in `send` while `max_outbox_bytes` are held.
MAX_HELD_BYTES = 64 * 1024 * 1024


class _HeldFrame(NamedTuple):
    """A frame that waits for broadcasts."""

    thread: int
    next_ticket: int  # the thread made broadcasts with this ticket or a higher one after the frame
    broadcasts: list[PendingBroadcast]
    frame: bytes
    closes: bool

    def is_free(self) -> bool:
        return all(broadcast.is_back for broadcast in self.broadcasts)

    def precedes(self, broadcast: PendingBroadcast | None) -> bool:
        """Whether the same thread made the broadcast after this frame."""
        return broadcast is not None and self.thread == broadcast.thread and self.next_ticket <= broadcast.ticket


class HeldFrames:
    """The held frames of one session, in the order in which they go to its outbox. Any thread."""

    __slots__ = ("_bells", "_counted", "_items", "_lock", "_outbox", "held_bytes")

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._items: list[_HeldFrame] = []  # any thread appends; a frame is removed once it is in the outbox
        # This lock guards removals from _items, writes of _counted and held_bytes, and the order of frames in the
        # outbox.
        self._lock = threading.Lock()
        self._counted = 0  # how many of _items are included in held_bytes
        self.held_bytes = 0
        self._bells: list[Bell] = []  # for threads that wait until a frame is removed

    @property
    def flusher(self) -> Flusher:
        """The session's flusher, whose timers `pending` uses."""
        return self._outbox.flusher

    @property
    def is_empty(self) -> bool:
        return not self._items

    def put(self, next_ticket: int, broadcasts: list[PendingBroadcast], frame: bytes, closes: bool) -> None:
        """Hold a frame of the current thread until `broadcasts` have come back from Redis. Does not wait."""
        self._items.append(_HeldFrame(threading.get_ident(), next_ticket, broadcasts, frame, closes))
        self.let_go()

    def let_go(self, coming: PendingBroadcast | None = None, *, surely: bool = False) -> None:
        """Send the frames whose broadcasts have come back from Redis.

        If `coming` is given, sends the frames that the thread of this broadcast has put here before the broadcast.

        With `surely`, the frames are in the outbox when this method returns. Otherwise another thread may still be
        moving them to the outbox.
        """
        sends = False
        while self._has_work(coming) and self._lock.acquire(surely):
            try:
                sends = self._take_locked(coming) or sends
            finally:
                self._lock.release()
        if sends:
            self._outbox.flush()

    def wait_for_room(self, size: int, timeout_s: float) -> None:
        """Wait until the limit of the outbox admits `size` more bytes, at most `timeout_s`.

        A thread that has to write to the client waits, too. If it did not, any number of bytes could be queued
        meanwhile.
        """
        if timeout_s <= 0:
            return
        outbox, deadline = self._outbox, monotonic() + timeout_s
        self._wait(lambda: self.held_bytes + size <= outbox.max_bytes or not self.held_bytes, timeout_s)
        if outbox.is_blocked or outbox.is_queued:
            outbox.wait_for_room(self.held_bytes + size, max(0.0, deadline - monotonic()))

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until no frame is held, at most `timeout_s`. Returns false if a frame is still held."""
        return self._wait(lambda: not self._items, timeout_s)

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        if done() or timeout_s <= 0:
            return done()
        deadline, bell = monotonic() + timeout_s, Bell()
        self._bells.append(bell)
        try:
            while not done() and (left_s := deadline - monotonic()) > 0:
                bell.wait(left_s)
        finally:
            self._bells.remove(bell)
        return done()

    def _has_work(self, coming: PendingBroadcast | None) -> bool:
        if coming is not None:
            return any(item.precedes(coming) for item in self._items.copy())
        first = self._items[:1]
        return bool(first) and (self._counted < len(self._items) or first[0].is_free())

    def _take_locked(self, coming: PendingBroadcast | None) -> bool:
        """Move the frames that need not wait to the outbox. Returns whether there were such frames."""
        items, outbox = self._items, self._outbox
        fresh = items[self._counted :]
        self._counted += len(fresh)
        self.held_bytes += sum(len(item.frame) for item in fresh)
        if coming is not None:
            going = [item for item in items[: self._counted] if item.precedes(coming)]
        else:
            count = self._counted if self.held_bytes > MAX_HELD_BYTES else 0
            while count < self._counted and items[count].is_free():
                count += 1
            going = items[:count]
        if not going:
            return False
        size = sum(len(item.frame) for item in going)
        # Many frames at the same time may exceed the limit: allow more bytes until the client has caught up.
        outbox.excuse(size if size <= outbox.max_bytes else 4 * size)
        for item in going:
            if item.closes:
                outbox.append_close(item.frame)
            else:
                outbox.append(item.frame)
        if coming is None:
            del items[: len(going)]
        else:
            items[: self._counted] = [item for item in items[: self._counted] if not item.precedes(coming)]
        self._counted -= len(going)
        self.held_bytes -= size
        for bell in self._bells.copy():
            bell.put(None)
        return True
