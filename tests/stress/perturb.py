"""Threads that pause between any two lines of wsthreads: windows of a microsecond, held open for others to get in.

A pause lets go of the GIL, and of no lock. It does nothing that a scheduler could not do; it does it often enough.
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

#: Of so many lines, one is followed by a pause.
LINES = 50
PAUSES_S = (0.0, 0.00005, 0.0005)

_setting = Lock()

_FOLDER = str(Path(wsthreads.__file__).parent)


def perturb(seed: str | None) -> None:
    """Have the calling thread pause from now on, where and how long `seed` says; None: no more."""
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
    """sys.settrace, which fails in a thread that gets in where another is told of it by an audit hook."""
    with _setting:
        sys.settrace(function)
