"""The optional C modules. Each is None if it was not built, or if WSTHREADS_PURE_PYTHON is set (and not 0).

Each function and each type in these modules also has a Python version, which passes the same tests. The C files are:

- ``_speedups.c``: the module. ``_outboxes.c``, ``_sending.c``: sending. ``_reading.c``, ``_frames.h``: receiving.
  ``_fast_path.c``: messages of sessions that survive. ``_inbox.c``, ``_intake.c``, ``_loop.c``: messages for scripts.
  ``_metrics.c``, ``_rlock.c``: types that the others use.
- ``_bridge.c``: calls of scripts to Python. ``_alarm.c``: the deadline of a call of a script.
- ``_compat.h``: the differences between Pythons with and without a GIL. The modules do not need the GIL: each type is a
  C struct with its own lock or with atomic fields, and no borrowed reference is read from an object that another thread
  may change.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

__all__ = ["bridge", "speedups"]


def _optional(name: str) -> Any:
    if os.environ.get("WSTHREADS_PURE_PYTHON", "0") not in ("", "0"):
        return None
    try:
        return import_module(name)
    except ImportError:  # the module was not built; the Python versions do the same
        return None


#: `wsthreads._native._speedups`: functions and types that are used for each message or each delivery.
speedups: Any = _optional("wsthreads._native._speedups")


def bridge() -> Any:
    """Returns `wsthreads._native._bridge`, by which scripts call Python. The module is loaded with the first script."""
    return _optional("wsthreads._native._bridge")
