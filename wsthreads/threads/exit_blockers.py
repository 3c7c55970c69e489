"""Logs which threads keep the process from ending. At exit, Python waits for all threads that are not daemons."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Collection
from contextlib import suppress
from threading import Thread
from time import sleep
from types import FrameType

from wsthreads.loggers import get_logger

__all__ = ["report_exit_blockers"]

log = get_logger(__name__)

#: Threads that still run this long after the beginning of the exit are logged.
LINGER_S = 1.0

_LIBRARY = os.path.dirname(os.__file__) + os.sep
_POOLS = os.path.join(_LIBRARY, "concurrent", "futures", "thread.py")


def report_exit_blockers(but: Collection[Thread] = ()) -> None:
    """After a second, log which threads keep the process from ending, except those in `but`.

    Call this when the process is about to end. It does not wait, because a daemon thread does the work.
    """
    with suppress(RuntimeError):  # the interpreter is ending and starts no more threads
        Thread(target=_watch, args=(but,), name="wsthreads-exit-blockers", daemon=True).start()


def _watch(but: Collection[Thread]) -> None:
    sleep(LINGER_S)
    frames = sys._current_frames()
    held_by = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        is_ours = thread.name.startswith("wsthreads-")  # the threads of wsthreads end by their own time limits
        if frame is None or thread.daemon or thread is threading.main_thread() or thread in but or is_ours:
            continue
        if frame.f_code.co_filename != _POOLS:  # Python ends the idle threads of a pool at exit
            held_by.append(f"{thread.name} ({_place_of(frame)})")
    if held_by:
        log.warning(
            "the process waits for threads that are not daemons: %s; "
            "end them in on_close, or create them with Thread(…, daemon=True)",
            ", ".join(held_by),
        )


def _place_of(frame: FrameType) -> str:
    """Returns the file and the line of the innermost code outside the standard library."""
    inner: FrameType | None = frame
    while inner is not None and _is_library(inner):
        inner = inner.f_back
    shown = inner or frame
    return f"{shown.f_code.co_filename}:{shown.f_lineno}"


def _is_library(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith((_LIBRARY, "<")) and "site-packages" not in file
