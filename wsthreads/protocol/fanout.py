"""Writing to many outboxes: the members of a room.

`append_all` queues a frame for each, `flush_all` sends what is queued, many in one go. They follow the rules of
`Outbox.append` and `Outbox.flush`, whose locks and marks they share. For both there is C in `_native._speedups`: it
writes to many sockets in one go, without the GIL.
"""

from __future__ import annotations

from collections.abc import Sequence

from wsthreads._native import speedups
from wsthreads.protocol.outbox import Outbox, send_queues

__all__ = ["append_all", "flush_all"]

#: So many outboxes are locked at a time to write to them in one go: some milliseconds. In C each go takes the GIL once,
#: and where many want it, that takes as long.
BATCH = 1024


def flush_all(outboxes: Sequence[Outbox]) -> list[Outbox]:
    """`flush` each, many in one go. Returns those to which others left frames meanwhile: call again with them."""
    left: list[Outbox] = []
    failure: BaseException | None = None
    for start in range(0, len(outboxes), BATCH):
        locked, blocked = lock_queued(outboxes, start, BATCH)
        try:
            for outbox, data, sent in send_queues(locked):
                try:
                    outbox._after_send_locked(data, sent)
                except BaseException as error:  # it has ended that outbox; the others go on
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
    """Of `count` outboxes from `start` on, those that have something queued: the locked ones, and the blocked ones.

    Those whose lock another thread has, or which this thread drains further up its stack, are left to them.
    """
    waiting = [outbox for outbox in outboxes[start : start + count] if outbox._queue and not outbox._draining]
    blocked = [outbox for outbox in waiting if outbox.is_blocked]
    return [outbox for outbox in waiting if not outbox.is_blocked and outbox._lock.acquire(False)], blocked


def _unlock(locked: list[Outbox]) -> list[Outbox]:
    """Let go of their locks. Returns those that have something queued again."""
    for outbox in locked:
        outbox._lock.release()
    return [outbox for outbox in locked if outbox._queue]


def _append_all(outboxes: tuple[Outbox, ...], frame: bytes, skip: Outbox | None) -> int:
    """`append` a frame to each but `skip`. Returns how many took it."""
    return sum(outbox is not skip and outbox.append(frame) for outbox in outboxes)


append_all = _append_all if speedups is None else speedups.append_all
lock_queued = _lock_queued if speedups is None else speedups.lock_queued
unlock = _unlock if speedups is None else speedups.unlock
