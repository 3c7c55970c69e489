"""Who must not wait for a queue to become shorter.

The thread of a script must not: it serves all its sessions. Nor must a finalizer that runs while its thread has a lock
which others need to send.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType

__all__ = ["has_interrupted", "may_wait", "never_wait"]

#: Modules with locks that others need to send. They call no handler: one that is among the callers of `send` was
#: interrupted by a finalizer.
LOCKING = (
    "wsthreads.rooms.rooms",
    "wsthreads.protocol.outbox",
    "wsthreads.brokers.turns",
    "wsthreads.brokers.link",
    "wsthreads.brokers.writer",
)


class _Thread(threading.local):
    may_wait = True


_thread = _Thread()


def never_wait() -> None:
    """From now on, the current thread must not wait."""
    _thread.may_wait = False


def may_wait() -> bool:
    """Whether the current thread may wait."""
    return _thread.may_wait


def has_interrupted() -> bool:
    """Whether the current thread is in a finalizer that has interrupted one of `LOCKING`.

    Takes some microseconds: for who is about to wait.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") not in LOCKING:
        frame = frame.f_back
    return frame is not None
