"""Writes to many outboxes, such as the outboxes of all members of a room.

`append_all` queues a frame for each outbox. `flush_all` sends the queued frames of many outboxes at once. Both follow
the rules of `Outbox.append` and `Outbox.flush`, and use the same locks and attributes. Both have a C version in
`_native._speedups`. It writes to many sockets in one call, without the GIL.
"""

from __future__ import annotations

from collections.abc import Sequence

from wsthreads._native import speedups
from wsthreads.protocol.outbox import Outbox, send_queues

__all__ = ["append_all", "flush_all"]

#: How many outboxes are locked and written to at once. Writing to this many takes some milliseconds. After that, the C
#: version waits for the GIL, which can take as long if many threads want the GIL.
BATCH = 1024


def flush_all(outboxes: Sequence[Outbox]) -> list[Outbox]:
    """Like `Outbox.flush`, for many outboxes at once.

    Returns the outboxes that got frames from other threads meanwhile. The caller must flush them again.
    """
    left: list[Outbox] = []
    failure: BaseException | None = None
    for start in range(0, len(outboxes), BATCH):
        locked, blocked = lock_queued(outboxes, start, BATCH)
        try:
            for outbox, data, sent in send_queues(locked):
                try:
                    outbox._after_send_locked(data, sent)
                except BaseException as error:  # only this outbox has failed
                    failure = error
        finally:
            queued = unlock(locked)
        for outbox in blocked + queued:
            if outbox.is_blocked:
                outbox.flush()
            else:
                left.append(outbox)
    if failure is not None:
        raise failure
    return left


def _lock_queued(outboxes: Sequence[Outbox], start: int, count: int) -> tuple[list[Outbox], list[Outbox]]:
    """Look at `count` outboxes from `start` on, and lock each one with queued frames. Returns the locked and the
    blocked ones.

    Skips an outbox that another thread has locked, or that a caller further up the stack is flushing. That thread or
    caller sends the frames.
    """
    waiting = [outbox for outbox in outboxes[start : start + count] if outbox._queue and not outbox._draining]
    blocked = [outbox for outbox in waiting if outbox.is_blocked]
    return [outbox for outbox in waiting if not outbox.is_blocked and outbox._lock.acquire(False)], blocked


def _unlock(locked: list[Outbox]) -> list[Outbox]:
    """Unlock the outboxes. Returns the outboxes that have frames queued again."""
    for outbox in locked:
        outbox._lock.release()
    return [outbox for outbox in locked if outbox._queue]


def _append_all(outboxes: tuple[Outbox, ...], frame: bytes, skip: Outbox | None) -> int:
    """Append a frame to each outbox except `skip`. Returns how many outboxes have accepted it."""
    return sum(outbox is not skip and outbox.append(frame) for outbox in outboxes)


append_all = _append_all if speedups is None else speedups.append_all
lock_queued = _lock_queued if speedups is None else speedups.lock_queued
unlock = _unlock if speedups is None else speedups.unlock
