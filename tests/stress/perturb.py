"""Makes threads pause between any two lines of wsthreads, so that other threads can interleave there.

A pause releases the GIL but no lock. A scheduler could do the same, but seldom does. Without a GIL, threads interleave
there anyway.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from threading import Lock
from time import sleep
from types import FrameType
from typing import Any

import wsthreads
from wsthreads.threads.gil import has_gil

#: One in this many lines is followed by a pause.
LINES = 50
PAUSES_S = (0.0, 0.00005, 0.0005)

_setting = Lock()

_FOLDER = str(Path(wsthreads.__file__).parent)


def perturb(seed: str | None) -> None:
    """Make the calling thread pause from now on; `seed` decides where and how long. None turns the pauses off.

    Does nothing without a GIL: there, each call of sys.settrace stops all threads until none of them spins for a lock,
    which takes seconds on a busy machine.
    """
    if not has_gil():
        return
    if seed is None:
        _trace(None)
        return
    rng = Random(seed)

    def on_call(frame: FrameType, event: str, argument: Any) -> Any:
        return on_line if frame.f_code.co_filename.startswith(_FOLDER) else None

    def on_line(frame: FrameType, event: str, argument: Any) -> Any:
        if rng.randrange(LINES) == 0:
            sleep(rng.choice(PAUSES_S))
        return on_line

    _trace(on_call)


def _trace(function: Callable[[FrameType, str, Any], Any] | None) -> None:
    """sys.settrace, which fails if another thread is inside its audit hook."""
    with _setting:
        sys.settrace(function)
