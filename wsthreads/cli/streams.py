"""The standard streams of the command, which can be closed or full, or have an encoding that lacks a character."""

from __future__ import annotations

import errno
import gc
import io
import os
import select
import sys
from contextlib import suppress
from typing import TextIO

from wsthreads.monitoring.logs import escaped

__all__ = [
    *("complain", "discard_output", "fill_closed_streams", "flush_files", "flush_output"),
    *("output_failure", "output_is_stuck"),
]

#: How long to wait until somebody reads from a full pipe.
STUCK_MS = 1000

#: The numbers of errors (errno) after a failed write to a file.
_WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EPIPE})


def fill_closed_streams() -> None:
    """Open /dev/null for each standard stream that is closed (``<&-``, ``>&-``). Call this at the start of a program.

    Otherwise, the next socket or file would get the number of the closed stream, and a library that prints would write
    into this socket. If standard input was closed, `sys.stdin` stays None, because reading from it is a mistake, and
    not an empty input. `sys.stdout` and `sys.stderr` are always streams afterwards. Both streams escape a character
    that their encoding lacks.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # gets the lowest free number, which is the number of the closed stream
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            opened_stream = io.FileIO(number, "w", closefd=False)
            setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(opened_stream), "utf-8", "backslashreplace"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def output_failure(error: OSError) -> str:
    """Returns one line for an `OSError`: the name of the file or "the output", and the reason."""
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {reason}"
    return f"the output cannot be written: {reason}" if error.errno in _WRITE_ERRORS else reason


def complain(complaint: object, status: int = 1) -> int:
    """Print one line on standard error that begins with ``wsthreads:``. Returns `status`."""
    with suppress(OSError):  # nobody reads the output, or the disk is full; the exit status says enough
        print(f"wsthreads: {escaped(' '.join(str(complaint).split()))}", file=sys.stderr, flush=True)
    return status


def discard_output(number: int = 1) -> None:
    """From now on, discard all output to a standard stream, including the output in its buffer.

    Otherwise, Python would complain at its end that it cannot write the buffer.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def flush_output() -> None:
    """Write the buffers of the standard streams.

    If this fails, discard the buffers, because Python would otherwise change the exit status.
    """
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            discard_output(number)


def flush_files() -> None:
    """Write the buffers of the standard streams, and of all open files that the garbage collector knows."""
    flush_output()
    for kind in (io.TextIOWrapper, io.BufferedWriter):  # a text file writes into the buffer of a binary file
        for each in gc.get_objects():
            if type(each) is kind:
                with suppress(OSError, ValueError):  # the file is closed, or cannot be written
                    each.flush()


def output_is_stuck() -> bool:
    """Whether a standard stream is a full pipe from which nobody reads. A process that ends would wait for a reader."""
    for number in (1, 2):
        waiting = select.poll()
        waiting.register(number, select.POLLOUT)
        if not waiting.poll(STUCK_MS):
            return True
    return False
