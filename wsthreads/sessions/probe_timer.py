"""Lets a handler measure every second how long calls wait in its queue, while its endpoint has sessions."""

from __future__ import annotations

from collections.abc import Sized
from threading import Lock
from typing import TYPE_CHECKING

from wsthreads.threads.flusher import weakly

if TYPE_CHECKING:
    from wsthreads.sessions.handlers import Handler
    from wsthreads.threads.flusher import Flusher

__all__ = ["ProbeTimer"]

INTERVAL_S = 1.0


class ProbeTimer:
    """A timer that runs while the endpoint has `sessions`, if the handler has a queue. Any thread."""

    def __init__(self, handler: Handler, sessions: Sized, flusher: Flusher) -> None:
        self._handler = handler
        self._sessions = sessions
        self._flusher = flusher
        self._running = Lock()  # held while there is a timer; taken without waiting

    def session_begins(self) -> None:
        """Called when a session was added to `sessions`."""
        if self._handler.has_queue and self._running.acquire(blocking=False):
            self._set()

    def renew(self) -> None:
        """Allow a new timer in a forked process, because the old timer is that of the parent."""
        self._running = Lock()

    def _set(self) -> None:
        self._flusher.call_later(INTERVAL_S, weakly(self._probe))

    def _probe(self) -> None:
        """Let the handler measure, and set the timer again. Called by the flusher."""
        if self._sessions:
            self._set()
            self._handler.probe()
        else:
            self._running.release()
            if self._sessions:  # a session may have begun while the lock was held
                self.session_begins()
