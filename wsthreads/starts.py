"""Tells a thread that it is about to start a thread or a process, which inherits something from it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

__all__ = ["call_before_starts"]

#: The audit events of it. Threads have one from Python 3.12, and another from 3.13 on.
STARTS = frozenset({
    "_thread.start_new_thread", "_thread.start_joinable_thread",
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen",
})  # fmt: skip


@cache
def call_before_starts(function: Callable[[], None]) -> None:
    """From now on, and for good, `function` is called by each thread of Python's before it starts anything.

    It must be quick, and raise nothing. It may be called twice for one start. A second call for it changes nothing.
    """

    def hook(event: str, _: object, starts: frozenset[str] = STARTS) -> None:  # it is there when the globals have gone
        if event in starts:
            function()

    def told(start: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(start)
        def call_and_start(*args: Any, **options: Any) -> Any:
            function()
            return start(*args, **options)

        return call_and_start

    sys.addaudithook(hook)
    # What has no event: threads before Python 3.12, and processes that multiprocessing spawns (still so in 3.13).
    if sys.version_info < (3, 12):
        threading.Thread.start = told(threading.Thread.start)  # type: ignore[method-assign]
    import _posixsubprocess

    _posixsubprocess.fork_exec = told(_posixsubprocess.fork_exec)
