"""Waits for a socket, or until another thread ends the wait."""

from __future__ import annotations

import selectors
import socket
from contextlib import suppress

__all__ = ["READ", "WRITE", "Waiter"]

#: The longest wait of one call. Operating systems take no timeouts of months, which a server may ask for.
LONGEST_S = 3600.0

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Waiter:
    """`wake` may be called in any thread, everything else in one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        self._selector.register(self._ours, READ)
        self._watched: tuple[socket.socket | None, int] = (None, 0)

    def wait(self, sock: socket.socket | None, events: int, timeout_s: float | None) -> int:
        """Wait. Returns the events that the socket is ready for; 0 after `timeout_s` (or an hour), or after `wake`."""
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
        """End the current wait, or else the next one."""
        with suppress(OSError):  # many wake-ups are pending, or the waiter is closed
            self._theirs.send(b"\0")

    def forget(self) -> None:
        """Call this before the socket is closed."""
        self._watch(None, 0)

    def close(self) -> None:
        self.forget()
        self.give_up()

    def give_up(self) -> None:
        """`close` for a forked process: the sockets that the selector watches are the parent's."""
        self._selector.close()
        self._ours.close()
        self._theirs.close()

    def _watch(self, sock: socket.socket | None, events: int) -> None:
        before, events_before = self._watched
        after = sock if events else None  # a selector cannot wait for nothing
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
