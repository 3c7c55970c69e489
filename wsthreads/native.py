"""The optional C module: `speedups` is `wsthreads._speedups`, or None where everything is pure Python.

It is None if it was not built, or if WSTHREADS_PURE_PYTHON is set to anything but nothing or 0.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from typing import Any

__all__ = ["speedups"]

speedups: Any = None

if os.environ.get("WSTHREADS_PURE_PYTHON", "0") in ("", "0"):
    with suppress(ImportError):  # not built: the Python functions do the same
        speedups = import_module("wsthreads._speedups")
