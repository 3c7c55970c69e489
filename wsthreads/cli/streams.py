"""The standard streams of the command: they may be closed, full, or in an encoding that lacks a character."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TextIO

__all__ = ["discard_output", "fill_closed_streams", "flush_output", "output_failure", "output_is_stuck"]

#: A pipe that is full has so long to be read from.
STUCK_MS = 1000

#: What a write to a file can fail with.
_WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EPIPE})


def fill_closed_streams() -> None:
    """Have each standard stream that is closed (``<&-``, ``>&-``) lead to nowhere. For the start of a program.

    Otherwise the next socket or file gets the number of the closed stream, and a library that writes there writes into
    it. `sys.stdin` stays None if it is closed: to read from it is a mistake, not an empty input. The other two are
    streams in any case, and write a character that their encoding lacks as an escape.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it has the lowest number that is free, this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            opened_stream = io.FileIO(number, "w", closefd=False)
            setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(opened_stream), "utf-8", "backslashreplace"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def output_failure(error: OSError) -> str:
    """An error of the system in one line: which file, or that it was the standard output, and what is wrong."""
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {reason}"
    return f"the output cannot be written: {reason}" if error.errno in _WRITE_ERRORS else reason


def discard_output(number: int = 1) -> None:
    """Have nothing more written to a standard stream, not even what waits there, of which Python would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def flush_output() -> None:
    """Write what waits in the standard streams; where that fails, drop it, so that it is not the status of the end."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            discard_output(number)


def output_is_stuck() -> bool:
    """Whether a standard stream takes nothing more, since nobody reads the pipe: Python waits for that at its end."""
    for number in (1, 2):
        waiting = select.poll()
        waiting.register(number, select.POLLOUT)
        if not waiting.poll(STUCK_MS):
            return True
    return False
