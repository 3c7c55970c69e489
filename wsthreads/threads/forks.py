"""Ends processes that the application has forked, before they act as a second server.

A handler can call ``os.fork()`` and then return in the child, or call ``sys.exit()`` there. The child would go on as a
second server on the same sockets. So each caller of the application's code compares `number` before and after the
call, and calls `leave` if it has changed.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn

from wsthreads.loggers import get_logger

__all__ = ["leave"]

log = get_logger(__name__)

#: Differs between a process and its parent.
number = 0


def _count() -> None:
    global number
    number += 1


os.register_at_fork(after_in_child=_count)


def leave(error: BaseException | None) -> NoReturn:
    """End this forked process, with the status that Python gives a program that raised `error`."""
    status = 1
    with suppress(BaseException):
        code = error.code if isinstance(error, SystemExit) else None
        if isinstance(code, int):
            status = code
        elif code is not None:
            print(code, file=sys.stderr)
        elif error is None or isinstance(error, SystemExit):
            status = 0
        else:
            log.error("process %d, forked by the application, failed", os.getpid(), exc_info=error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(status & 0xFF)
