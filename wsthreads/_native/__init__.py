"""The optional C modules; None where everything runs in pure Python.

They are None if they were not built, or if WSTHREADS_PURE_PYTHON is set to anything but nothing or 0.
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
    except ImportError:  # not built: the Python functions do the same
        return None


#: `wsthreads._native._speedups`: what is done for each message and each delivery.
speedups: Any = _optional("wsthreads._native._speedups")


def bridge() -> Any:
    """`wsthreads._native._bridge`: how scripts call Python. Only where there is a script it is loaded."""
    return _optional("wsthreads._native._bridge")
