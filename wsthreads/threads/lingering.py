"""Names the threads that a process waits for at its end: Python joins all that are no daemons, without a time limit."""

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

__all__ = ["watch_lingering"]

log = get_logger(__name__)

#: Threads have this long to end without a word.
LINGER_S = 1.0

_LIBRARY = os.path.dirname(os.__file__) + os.sep
_POOLS = os.path.join(_LIBRARY, "concurrent", "futures", "thread.py")


def watch_lingering(but: Collection[Thread] = ()) -> None:
    """Called where the process is about to end: after a second, log which threads hold it up, except for `but`.

    Does not wait: a daemon does it, which ends with the process.
    """
    with suppress(RuntimeError):  # there is no thread to be had any more
        Thread(target=_watch, args=(but,), name="wsthreads-lingering", daemon=True).start()


def _watch(but: Collection[Thread]) -> None:
    sleep(LINGER_S)
    frames = sys._current_frames()
    held_by = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        is_ours = thread.name.startswith("wsthreads-")  # these have time limits of their own
        if frame is None or thread.daemon or thread is threading.main_thread() or thread in but or is_ours:
            continue
        if frame.f_code.co_filename != _POOLS:  # one of a pool that has nothing to do ends with the process
            held_by.append(f"{thread.name} ({_place_of(frame)})")
    if held_by:
        log.warning(
            "the process waits for threads that are no daemons: %s; "
            "end them in on_close, or make them with Thread(…, daemon=True)",
            ", ".join(held_by),
        )


def _place_of(frame: FrameType) -> str:
    """File and line of the innermost code that is not the standard library's."""
    inner: FrameType | None = frame
    while inner is not None and _is_library(inner):
        inner = inner.f_back
    shown = inner or frame
    return f"{shown.f_code.co_filename}:{shown.f_lineno}"


def _is_library(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith((_LIBRARY, "<")) and "site-packages" not in file
