"""Clients that have just connected are served one after the other, so that a crowd of them delays nobody else.

Each takes a thread, which needs the GIL for its handshake, for `on_open` and for what its client has sent already. A
hundred of those at once, say after a restart, or where floods are turned away and come back, are a hundred that wait
for the GIL beside one that has a message to pass on, and whoever lets go of the GIL for a moment gets it back before
one that sleeps. Let in one by one, they are done as soon, and in between the others get their turn. Those who are not
in yet cost nothing: they wait in the kernel. `wsthreads.httpserver` lets them in so; under other servers nobody is a
newcomer, and all of this does nothing.

Who waits for something holds nobody up: a `Newcomer` is let go when its client has sent nothing that waits to be read,
when its first messages are handled, before the application's own code for handshakes and for HTTP, and in any case
after `TURN_S`, as when `on_open` waits for a database.
"""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TURN_S", "Newcomer", "let_go", "let_go_to_wait"]

#: The longest that one newcomer holds up the next, in seconds. One takes a millisecond or a few as a rule.
TURN_S = 0.02

_here = threading.local()  # `newcomer`: whose thread this is, until it is let go


class Newcomer:
    """One connection's time as a newcomer: a context, for its thread. Another thread may wait until it is over."""

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._turn.acquire()

    def __enter__(self) -> Self:
        _here.newcomer = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        let_go()

    def wait(self) -> None:
        """Wait until it has been let go, `TURN_S` at most."""
        if self._turn.acquire(timeout=TURN_S):
            self._turn.release()

    def let_go(self) -> None:
        """Whoever waits is next. Once, by the newcomer's thread, or for one that could not be started."""
        self._turn.release()


def let_go() -> None:
    """The calling thread's newcomer is none any more. Nothing happens if it is none. Raises nothing."""
    newcomer: Newcomer | None = getattr(_here, "newcomer", None)
    if newcomer is not None:
        _here.newcomer = None
        newcomer.let_go()


def let_go_to_wait(sock: socket.socket, most_s: float = 0.0) -> bool:
    """Called before `sock` is read: `let_go`, if that will have to wait, for longer than `most_s`.

    Returns whether the thread is no newcomer by then.
    """
    if getattr(_here, "newcomer", None) is not None:
        poller = select.poll()  # select(2) stops at descriptor 1023
        with suppress(OSError, ValueError):  # it has been closed
            poller.register(sock, select.POLLIN)
            if poller.poll(most_s * 1000):
                return False
        let_go()
    return True
