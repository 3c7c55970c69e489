"""Keeps processes that the application forks from acting as a second server on the same connections.

A handler can call ``os.fork()`` and then return in the child, or call ``sys.exit()`` there. The child would be a second
server. So each caller of the application's code compares `number` before and after the call. If the number has changed,
the caller calls `leave`.

A forked process has copies of the sockets of its parent's clients, and of their TLS states. If both processes wrote, a
client would get mixed data. So all objects with connections are in `owners`, and give up their connections in a forked
process. So no call that sends needs to check in which process it runs.
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

#: A number that is different in a process and in its parent.
number = 0


class Owner(Protocol):
    """An object with connections."""

    def give_up_connections(self, dead_fd: int) -> None:
        """Give up all connections. Called in a forked process that has no other thread yet. Locks may be held by the
        parent's threads.

        `dead_fd` is a socket whose peer is gone. A duplicate of it takes the place of each connection's socket.
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
    """A context manager. A process that is forked inside its block ends at the end of the block."""
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
            log.error("process %d, which the application has forked, failed", os.getpid(), exc_info=error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(status & 0xFF)
