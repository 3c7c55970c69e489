"""Sends the queued messages of links when a process ends without shutting down its apps.

A process of `multiprocessing` does not call the functions of `atexit` when it ends. There, this module uses the
finalizers of `multiprocessing`.
"""

from __future__ import annotations

import atexit
import os
import sys
from time import monotonic
from typing import Protocol
from weakref import WeakSet

__all__ = ["EXIT_S", "flush_at_exit"]

#: The longest time that the end of a process waits for all its links together.
EXIT_S = 2.0


class Flushed(Protocol):
    def flush_at_exit(self, timeout_s: float) -> None:
        """Send queued messages, if the link's threads run in this process. Waits at most `timeout_s`."""


class _Exit:
    def __init__(self) -> None:
        self.links: WeakSet[Flushed] = WeakSet()
        self.pid = 0  # the process that will call `_flush`


_exit = _Exit()


def flush_at_exit(link: Flushed) -> None:
    """Let a link send its queued messages when this process ends."""
    _exit.links.add(link)
    if _exit.pid != os.getpid():
        _exit.pid = os.getpid()
        multiprocessing = sys.modules.get("multiprocessing.process")
        if multiprocessing is None or multiprocessing.parent_process() is None:
            atexit.register(_flush)
        else:
            sys.modules["multiprocessing.util"].Finalize(None, _flush, exitpriority=0)


def _flush() -> None:
    deadline = monotonic() + EXIT_S
    for link in list(_exit.links):
        link.flush_at_exit(max(0.0, deadline - monotonic()))
