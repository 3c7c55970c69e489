"""Waits for a socket. Another thread can end the wait."""

from __future__ import annotations

import selectors
import socket
from contextlib import suppress

__all__ = ["READ", "WRITE", "Waiter"]

#: At most this long in one wait. Operating systems accept no timeouts of months, and a server may ask for such a time.
LONGEST_S = 3600.0

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Waiter:
    """Waits for a socket in one thread. Any thread may call `wake`. All other methods are for one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        self._selector.register(self._ours, READ)
        self._watched: tuple[socket.socket | None, int] = (None, 0)

    def wait(self, sock: socket.socket | None, events: int, timeout_s: float | None) -> int:
        """Wait, and return the events that the socket is ready for.

        Returns 0 after `timeout_s`, after an hour, or if woken.
        """
        self._watch(sock, events)
        ready = 0
        timeout_s = LONGEST_S if timeout_s is None else min(max(timeout_s, 0.0), LONGEST_S)
        for key, found in self._selector.select(timeout_s):
            if key.fileobj is self._ours:
                with suppress(BlockingIOError):
                    self._ours.recv(4096)
            else:
                ready = found
        return ready

    def wake(self) -> None:
        """End the current wait. If no thread is waiting, end the next wait."""
        with suppress(OSError):  # many wake-ups wait already, or the waiter is closed
            self._theirs.send(b"\0")

    def forget(self) -> None:
        """Forget the socket. Call this before the socket is closed."""
        self._watch(None, 0)

    def close(self) -> None:
        self.forget()
        self.give_up()

    def give_up(self) -> None:
        """Close the waiter in a forked process, because the sockets that the selector watches are the parent's."""
        self._selector.close()
        self._ours.close()
        self._theirs.close()

    def _watch(self, sock: socket.socket | None, events: int) -> None:
        before, events_before = self._watched
        after = sock if events else None  # a selector cannot wait for no event at all
        if (after, events if after else 0) == (before, events_before):
            return
        if after is not None and after is before:
            self._selector.modify(after, events)
        else:
            if before is not None:
                self._selector.unregister(before)
            if after is not None:
                self._selector.register(after, events)
        self._watched = (after, events if after is not None else 0)
