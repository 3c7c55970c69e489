"""Tells which threads may wait: for space in a queue, or until a room's owner has handled a post (a value for a room).

The thread of a script in JavaScript must not wait, because it serves all sessions of the script. A thread that calls a
handler's functions for rooms must not wait for a post, because the post may be one that this thread itself must handle.
A finalizer (``__del__``) must not wait if its thread holds a lock that other threads need to send.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType

__all__ = ["has_interrupted", "may_wait", "may_wait_for_posts", "never_wait", "serve_rooms", "serves_rooms"]

#: Modules with locks that other threads need to send. These modules do not call any handler. So if one of their
#: functions is among the callers of `send`, a finalizer that sends has interrupted this function.
LOCKING = (
    "wsthreads.rooms.rooms",
    "wsthreads.rooms.sending",
    "wsthreads.rooms.histories",
    "wsthreads.protocol.outbox",
    "wsthreads.protocol.writer",
    "wsthreads.protocol.fanout",
    "wsthreads.protocol.writer_threads",
    "wsthreads.brokers.pending",
    "wsthreads.brokers.held_frames",
    "wsthreads.brokers.link",
    "wsthreads.brokers.publisher",
    "wsthreads.brokers.subscriptions",
    "wsthreads.brokers.writer",
)


class _Thread(threading.local):
    may_wait = True
    serves_rooms = False


_thread = _Thread()


def never_wait() -> None:
    """From now on, the current thread must not wait."""
    _thread.may_wait = False


def may_wait() -> bool:
    """Whether the current thread may wait."""
    return _thread.may_wait


def serve_rooms() -> None:
    """From now on, the current thread calls a handler's functions for rooms."""
    _thread.serves_rooms = True


def serves_rooms() -> bool:
    """Whether the current thread calls a handler's functions for rooms."""
    return _thread.serves_rooms


def may_wait_for_posts() -> bool:
    """Whether the current thread may wait until a post has been handled."""
    return _thread.may_wait and not _thread.serves_rooms


def has_interrupted() -> bool:
    """Whether the current thread runs a finalizer that has interrupted a function of one of the modules `LOCKING`.

    This takes some microseconds, so call it only before a wait.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") not in LOCKING:
        frame = frame.f_back
    return frame is not None
