"""Keeps processes that the application forks from acting as a second server on the same connections.

A handler can call ``os.fork()``, and then return in the child process, or call ``sys.exit()`` there. The child would
become a second server. So each caller of the application's code compares `number` before and after the call. If the
number has changed, the process was forked in between, and the caller calls `leave`.

A forked process has copies of the sockets of its parent's clients, and of their TLS states. If both processes wrote, a
client would get mixed data. So all objects with connections are in `owners`, and a forked process makes them give up
their connections. Code that sends need not check in which process it runs.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, Protocol
from weakref import WeakSet

from wsthreads.loggers import get_logger

__all__ = ["Owner", "ending", "leave", "owners"]

log = get_logger(__name__)

#: This number changes with each fork, in the child. So it differs in a process and its parent.
number = 0


class Owner(Protocol):
    """An object with connections to clients."""

    def give_up_connections(self, dead_fd: int) -> None:
        """Give up all connections. Called in a forked process, which has no other thread yet.

        Threads of the parent may have held locks at the fork. These locks are never released in this process.

        `dead_fd` is a socket whose other end is closed. A copy of it replaces the socket of each connection.
        """


#: All owners in this process.
owners: WeakSet[Owner] = WeakSet()


def _begin() -> None:
    global number
    number += 1
    if not owners:
        return
    dead, peer = socket.socketpair()
    peer.close()
    with dead:
        for owner in list(owners):
            try:
                owner.give_up_connections(dead.fileno())
            except Exception:
                log.exception("a forked process did not give up all of its parent's connections")


os.register_at_fork(after_in_child=_begin)


@contextmanager
def ending() -> Iterator[None]:
    """A context manager: a process that is forked inside the block ends at the end of the block."""
    before = number
    try:
        yield
    except BaseException as error:
        if before != number:
            leave(error)
        raise
    if before != number:
        leave(None)


def leave(error: BaseException | None) -> NoReturn:
    """End this forked process, with the exit status of a Python program that raised `error`."""
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
