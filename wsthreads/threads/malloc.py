"""Limits the arenas of glibc's malloc, so that the memory does not grow while connections come and go.

An arena is a part of the memory from which malloc takes. glibc makes up to eight arenas for each core, and spreads the
threads over them. An arena keeps nearly all the memory that it has ever used. With one thread for each connection,
every arena reaches its own peak at some time. So the memory of the process grows for a long time, by tens of KiB or a
MiB at a time, although nothing leaks. Python threads do not need so many arenas, because they hold the GIL when they
allocate.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

__all__ = ["ARENAS", "limit_arenas"]

#: One arena for the thread that holds the GIL, and one for threads that send or decode without the GIL.
ARENAS = 2

#: A parameter of `mallopt`, from glibc's malloc.h. It has not changed since 2010.
M_ARENA_MAX = -8


def limit_arenas() -> None:
    """Let all threads of the process share `ARENAS` arenas, if the C library is glibc. Raises nothing.

    Call this before the first thread starts, because it may have no effect later. Does nothing if the environment sets
    the number (MALLOC_ARENA_MAX, or glibc.malloc.arena_max in GLIBC_TUNABLES).
    """
    if not sys.platform.startswith("linux"):
        return
    if "MALLOC_ARENA_MAX" in os.environ or "glibc.malloc.arena_max" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    # this Python has no ctypes, or the C library is another one, as in Alpine Linux
    with suppress(ImportError, OSError, AttributeError):
        from ctypes import CDLL

        libc = CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):  # in another library, the number may have another meaning
            libc.mallopt(M_ARENA_MAX, ARENAS)
