"""Writes to many outboxes, such as the outboxes of all members of a room.

`append_all` queues a frame for each outbox. `flush_all` sends the queued frames of many outboxes at once. They follow
the rules of `Outbox.append` and `Outbox.flush`, and use the same locks and attributes. Both functions have a version in
C, in `_native._speedups`, which writes to many sockets in one call, without the GIL.
"""

from __future__ import annotations

from collections.abc import Sequence

from wsthreads._native import speedups
from wsthreads.protocol.outbox import Outbox, send_queues

__all__ = ["append_all", "flush_all"]

#: At most this many outboxes are locked and written to at once. Writing to this many takes some milliseconds. Then the
#: C version needs the GIL again. If many threads want the GIL, waiting for it can take as long as the writing.
BATCH = 1024


def flush_all(outboxes: Sequence[Outbox]) -> list[Outbox]:
    """Like `Outbox.flush`, for many outboxes at once.

    Returns the outboxes to which other threads added frames in the meantime. The caller must flush these again.
    """
    left: list[Outbox] = []
    failure: BaseException | None = None
    for start in range(0, len(outboxes), BATCH):
        locked, blocked = lock_queued(outboxes, start, BATCH)
        try:
            for outbox, data, sent in send_queues(locked):
                try:
                    outbox._after_send_locked(data, sent)
                except BaseException as error:  # the error concerns only this outbox
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
    """Lock each outbox with queued frames, among `count` outboxes from `start` on.

    Returns the locked and the blocked ones.

    A blocked outbox is not locked: the kernel has no space, or the client must acknowledge messages first.

    Skips an outbox that another thread has locked, or that a caller of this function is flushing already. That thread
    or that caller sends the frames.
    """
    waiting = [outbox for outbox in outboxes[start : start + count] if outbox._queue and not outbox._draining]
    blocked = [outbox for outbox in waiting if outbox.is_blocked]
    return [outbox for outbox in waiting if not outbox.is_blocked and outbox._lock.acquire(False)], blocked


def _unlock(locked: list[Outbox]) -> list[Outbox]:
    """Unlock the outboxes. Returns those that have queued frames again."""
    for outbox in locked:
        outbox._lock.release()
    return [outbox for outbox in locked if outbox._queue]


def _append_all(outboxes: tuple[Outbox, ...], frame: bytes, skip: Outbox | None) -> int:
    """Append a frame to each outbox except `skip`. Returns how many outboxes have accepted it."""
    return sum(outbox is not skip and outbox.append(frame) for outbox in outboxes)


append_all = _append_all if speedups is None else speedups.append_all
lock_queued = _lock_queued if speedups is None else speedups.lock_queued
unlock = _unlock if speedups is None else speedups.unlock
