"""The time at which a session ends: that of a token, for example.

The time is by the wall clock, which may be set while the session lasts; timers go by the monotonic clock. So the wall
clock decides, and it is looked at when it should be time, and at least every `LOOK_S`. If it is set back, the session
lasts longer. If it is set forward, or the machine has slept, the session ends up to `LOOK_S` late.

A session without a connection does not end by this: its client may come back with a fresh token. Then the handshake of
that connection counts.
"""

from __future__ import annotations

from time import time
from typing import Protocol
from weakref import ref

from wsthreads.threads.flusher import Timer, Timers, weakly

__all__ = ["Expiry"]

#: How often the wall clock is looked at.
LOOK_S = 60.0

#: How often whether a session that should end has a connection again.
AWAY_LOOK_S = 1.0

#: Never sooner, so that a wall clock that goes more slowly than the monotonic one causes no busy loop.
LEAST_S = 0.001


class Expiring(Protocol):
    """What is needed of a session."""

    _expiry: Expiry | None

    def is_open(self) -> bool: ...

    def is_connected(self) -> bool: ...

    def _expire(self) -> None: ...


class Expiry:
    """Closes a session at `at`, in seconds since the epoch, unless the session has another expiry by then.

    Any thread. It does not keep the session in memory.
    """

    __slots__ = ("__weakref__", "_due", "_session", "_timer", "_timers", "at")

    def __init__(self, session: Expiring, at: float, timers: Timers) -> None:
        self.at = at
        self._session = ref(session)
        self._timers = timers
        self._due = at + (timers.time() - time())  # differs from `at` only if a test has moved the clock of `timers`
        self._timer: Timer | None = None

    def look(self) -> None:
        """Close the session if it is time; look again later otherwise."""
        session = self._session()
        if session is None or session._expiry is not self or not session.is_open():
            return
        left_s = self._due - self._timers.time()
        if left_s <= 0 and session.is_connected():
            session._expire()
        else:
            delay_s = max(LEAST_S, min(left_s, LOOK_S)) if left_s > 0 else AWAY_LOOK_S
            self._timer = self._timers.call_later(delay_s, weakly(self.look))

    @property
    def is_due(self) -> bool:
        """Whether it is time."""
        return self._timers.time() >= self._due

    def cancel(self) -> None:
        """The session has another one."""
        if self._timer is not None:
            self._timer.cancel()
