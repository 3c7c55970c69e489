"""The standard streams of the command. They can be closed or full, or their encoding can lack a character."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import TextIO

from wsthreads.monitoring.logs import escaped

__all__ = ["complain", "discard_output", "fill_closed_streams", "flush_output", "output_failure", "output_is_stuck"]

#: How long to wait for a reader of a full pipe.
STUCK_MS = 1000

#: The errors of a failed write to a file.
_WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EPIPE})


def fill_closed_streams() -> None:
    """Open /dev/null for each standard stream that is closed (``<&-``, ``>&-``). Call it at the start of a program.

    Otherwise the next socket or file gets the number of the closed stream, and a library that prints would write into
    that socket. A closed `sys.stdin` stays None: reading from it is a mistake, not an empty input. `sys.stdout` and
    `sys.stderr` are always streams, and escape a character that their encoding lacks.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number, which is this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            opened_stream = io.FileIO(number, "w", closefd=False)
            setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(opened_stream), "utf-8", "backslashreplace"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def output_failure(error: OSError) -> str:
    """An `OSError` in one line: the file, or the output, and the reason."""
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {reason}"
    return f"the output cannot be written: {reason}" if error.errno in _WRITE_ERRORS else reason


def complain(complaint: object, status: int = 1) -> int:
    """Print one line on standard error that begins with ``wsthreads:``. Returns `status`."""
    with suppress(OSError):  # nobody reads it, or the disk is full: the status says enough
        print(f"wsthreads: {escaped(' '.join(str(complaint).split()))}", file=sys.stderr, flush=True)
    return status


def discard_output(number: int = 1) -> None:
    """Discard all output to a standard stream from now on, including its buffer.

    Otherwise Python would complain at exit that it cannot write the buffer.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def flush_output() -> None:
    """Write the buffers of the standard streams.

    If that fails, discard them, because Python would change the exit status.
    """
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            discard_output(number)


def output_is_stuck() -> bool:
    """Whether a standard stream is a full pipe that nobody reads. At exit, Python would wait for a reader."""
    for number in (1, 2):
        waiting = select.poll()
        waiting.register(number, select.POLLOUT)
        if not waiting.poll(STUCK_MS):
            return True
    return False
