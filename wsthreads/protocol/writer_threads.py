"""Threads that help to write to the members of a large room.

A write to a socket needs no GIL, so several threads can write at once, each to different members. The thread that sends
a broadcast divides the members into parts, wakes the helpers, and writes part after part until none is left. The
helpers do the same. A helper that wakes late finds less to do, or nothing.

The sending thread does not wait for parts that helpers still write. The next broadcast may come meanwhile. Each member
still gets its frames in order, because they are in its outbox, and only one thread at a time writes from an outbox.

The helpers start when they are first needed. If a helper fails, it writes its part again.
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

#: In a room with fewer members, one thread writes to all.
LEAST_MEMBERS = 2000

#: The smallest part. Writing it takes several times as long as waking a thread.
LEAST_PART = 128

#: How many threads write at most. More threads would wait for the GIL, which each write needs for a tenth of its time.
MOST_WRITERS = 4


def writers_here() -> int:
    """How many threads should write at once: the number of cores that the calling thread may use, up to a limit."""
    return min(MOST_WRITERS, len(usable_cores()) or os.cpu_count() or 1)


def are_parallel(outboxes: Sequence[Outbox]) -> bool:
    """Whether several threads are faster than one. They are slower if each write must take the GIL."""
    return not has_gil() or outboxes[0].needs_no_gil or outboxes[-1].needs_no_gil


class WriterThreads:
    """Flushes outboxes with up to `writers` threads: the calling thread and its helpers. Any thread."""

    def __init__(self, writers: int) -> None:
        self._helpers = [Drainer(f"wsthreads-writer-{number}") for number in range(1, writers)]

    def flush(self, outboxes: Sequence[Outbox]) -> list[Outbox]:
        """Like `flush_all`, but with helpers. These also send frames that are appended while they write.

        A helper may still be writing when this returns.
        """
        if len(outboxes) < LEAST_MEMBERS or not self._helpers or not are_parallel(outboxes):
            return flush_all(outboxes)
        parts = deque(_parts(outboxes, len(self._helpers) + 1))
        for helper in self._helpers:
            try:
                helper.go_on(_Share(parts).go_on)
            except RuntimeError:  # no thread can be started, so the other threads write more
                break
        left: list[Outbox] = []
        while (part := _next(parts)) is not None:
            left += flush_all(part)
        return left

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no helper writes, at most `timeout_s`. Returns False if one still does."""
        deadline = monotonic() + timeout_s
        return all(helper.wait_idle(max(0.0, deadline - monotonic())) for helper in self._helpers)

    def stop(self, timeout_s: float) -> None:
        """End the helpers once they have nothing to write. Waits at most `timeout_s`."""
        deadline = monotonic() + timeout_s
        for helper in self._helpers:
            helper.stop(max(0.0, deadline - monotonic()))

    def release(self) -> None:
        """End the helpers soon. Takes no lock and does not wait, so finalizers may call it."""
        for helper in self._helpers:
            helper.release()


class _Share:
    """The work of one helper for one flush."""

    def __init__(self, parts: deque[Sequence[Outbox]]) -> None:
        self._parts = parts
        self._part: Sequence[Outbox] = ()

    def go_on(self) -> bool:
        """Write one part. Returns whether to call this method again. It is also called again after an exception."""
        self._part = self._part or _next(self._parts) or ()
        if self._part:
            self._part = flush_all(self._part)
        return bool(self._part or self._parts)


def _next(parts: deque[Sequence[Outbox]]) -> Sequence[Outbox] | None:
    """Take a part that no other thread has taken; None if there is none."""
    try:
        return parts.popleft()
    except IndexError:
        return None


def _parts(outboxes: Sequence[Outbox], writers: int) -> Iterator[Sequence[Outbox]]:
    """Divide outboxes into parts that become smaller, so that all writers finish at about the same time."""
    start, count = 0, len(outboxes)
    while start < count:
        size = min(BATCH, max(LEAST_PART, (count - start) // (2 * writers)))
        yield outboxes[start : start + size]
        start += size
