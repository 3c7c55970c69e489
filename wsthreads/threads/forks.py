"""A process that the application's code forks is no server, whatever it has inherited of one.

Where the code comes back in such a process, by ``sys.exit()`` or otherwise, the process ends: it would go on as a
second server, on the same sockets. So whoever calls the application's code compares `number` before and after, and
calls `leave` where it has changed.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn

from wsthreads.loggers import get_logger

__all__ = ["leave"]

log = get_logger(__name__)

#: Another one in a process than in the one that has forked it.
number = 0


def _count() -> None:
    global number
    number += 1


os.register_at_fork(after_in_child=_count)


def leave(error: BaseException | None) -> NoReturn:
    """End this process, which was forked, as Python does where `error` gets out of a program."""
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
            log.error("process %d, which the application has forked, failed", os.getpid(), exc_info=error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(status & 0xFF)
