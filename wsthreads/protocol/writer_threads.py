"""Threads that help to write to the members of a large room.

A write to a socket needs no GIL, so several threads can write at the same time, each to different members. The thread
that sends a broadcast divides the members into parts, wakes the helper threads, and writes to one part after another.
The helpers do the same, until no part is left. A helper that wakes late finds fewer parts, or none.

The sending thread does not wait for parts that helpers are still writing. So the next broadcast may begin in the
meantime. Each member still gets its frames in order, because they are in its outbox, and only one thread at a time
writes from an outbox.

The helpers start when they are needed first. If a helper fails, it writes its part once more.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from time import monotonic

from wsthreads.protocol.fanout import BATCH, flush_all
from wsthreads.protocol.outbox import Outbox
from wsthreads.threads.cpu_load import usable_cores
from wsthreads.threads.drainer import Drainer
from wsthreads.threads.gil import has_gil

__all__ = ["WriterThreads", "writers_here"]

#: In a room with fewer members, one thread writes to all members.
LEAST_MEMBERS = 2000

#: The smallest part. Writing to this many members takes several times as long as waking a thread.
LEAST_PART = 128

#: At most this many threads write at the same time. More threads would wait for the GIL, which each write needs for a
#: tenth of its time.
MOST_WRITERS = 4


def writers_here() -> int:
    """How many threads should write at once: one for each usable core, but at most `MOST_WRITERS`."""
    return min(MOST_WRITERS, len(usable_cores()) or os.cpu_count() or 1)


def are_parallel(outboxes: Sequence[Outbox]) -> bool:
    """Whether several threads are faster than one. They are slower if each write needs the GIL."""
    return not has_gil() or outboxes[0].needs_no_gil or outboxes[-1].needs_no_gil


class WriterThreads:
    """Flushes outboxes with up to `writers` threads: the calling thread and its helpers. Any thread."""

    def __init__(self, writers: int) -> None:
        self._helpers = [Drainer(f"wsthreads-writer-{number}") for number in range(1, writers)]

    def flush(self, outboxes: Sequence[Outbox]) -> list[Outbox]:
        """Like `flush_all`, but with helpers. A helper may still be writing when this method returns.

        The helpers also send frames that are appended while they write.
        """
        if len(outboxes) < LEAST_MEMBERS or not self._helpers or not are_parallel(outboxes):
            return flush_all(outboxes)
        parts = deque(_parts(outboxes, len(self._helpers) + 1))
        for helper in self._helpers:
            try:
                helper.go_on(_Share(parts).go_on)
            except RuntimeError:  # no thread could be started, so the other threads write more parts
                break
        left: list[Outbox] = []
        while (part := _next(parts)) is not None:
            left += flush_all(part)
        return left

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no helper is writing, for at most `timeout_s`. Returns False if one still is."""
        deadline = monotonic() + timeout_s
        return all(helper.wait_idle(max(0.0, deadline - monotonic())) for helper in self._helpers)

    def stop(self, timeout_s: float) -> None:
        """End the helpers when they have nothing to write. Waits for at most `timeout_s`."""
        deadline = monotonic() + timeout_s
        for helper in self._helpers:
            helper.stop(max(0.0, deadline - monotonic()))

    def release(self) -> None:
        """End the helpers soon. Takes no lock and does not wait, so finalizers may call this method."""
        for helper in self._helpers:
            helper.release()


class _Share:
    """The parts that one helper writes during one `WriterThreads.flush`."""

    def __init__(self, parts: deque[Sequence[Outbox]]) -> None:
        self._parts = parts
        self._part: Sequence[Outbox] = ()

    def go_on(self) -> bool:
        """Write to one part. Returns whether to call this method again. It is also called again after an exception."""
        self._part = self._part or _next(self._parts) or ()
        if self._part:
            self._part = flush_all(self._part)
        return bool(self._part or self._parts)


def _next(parts: deque[Sequence[Outbox]]) -> Sequence[Outbox] | None:
    """Take a part that no other thread has taken. Returns None if no part is left."""
    try:
        return parts.popleft()
    except IndexError:
        return None


def _parts(outboxes: Sequence[Outbox], writers: int) -> Iterator[Sequence[Outbox]]:
    """Divide outboxes into parts. Later parts are smaller, so that all threads finish at about the same time."""
    start, count = 0, len(outboxes)
    while start < count:
        size = min(BATCH, max(LEAST_PART, (count - start) // (2 * writers)))
        yield outboxes[start : start + size]
        start += size
