"""Keeps small what the C library's allocator holds of memory that nothing uses, in a process of our own.

glibc gives each thread one of up to eight arenas a core, and an arena keeps nearly all that it ever took. With a thread
for each connection, and connections that come and go, each arena comes to its own peak sooner or later, as the crowd
happens to fall: memory grows, by tens of KiB or by a MiB at once, for as long as one looks, though nothing is leaked.
Python's threads need no such number: they hold the GIL where they allocate.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

__all__ = ["ARENAS", "keep_few_arenas"]

#: One for most, and one for who finds that taken: a thread that sends, or sorts what has come in, without the GIL.
ARENAS = 2

#: From glibc's malloc.h, where it has been the same since 2010.
M_ARENA_MAX = -8


def keep_few_arenas() -> None:
    """Have all threads of the process share `ARENAS` arenas, if the C library is glibc.

    To be called before threads are started; later it may do nothing. Nor does it where the environment says how many
    there are to be (MALLOC_ARENA_MAX, or glibc.malloc.arena_max in GLIBC_TUNABLES). Raises nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    if "MALLOC_ARENA_MAX" in os.environ or "glibc.malloc.arena_max" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    with suppress(ImportError, OSError, AttributeError):  # no ctypes in this Python; another C library, as in Alpine
        from ctypes import CDLL

        libc = CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):  # elsewhere the number may mean something else
            libc.mallopt(M_ARENA_MAX, ARENAS)
