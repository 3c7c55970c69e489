"""The time at which a session ends, such as the expiry of a token.

The time is by the wall clock, which may be set during the session. Timers use the monotonic clock. So a timer reads the
wall clock when the session should expire, and at least every `LOOK_S`. If the wall clock is set back, the session lasts
longer. If it is set forward, or if the machine has slept, the session ends up to `LOOK_S` late.

A session without a connection does not expire, because its client may come back with a new token. Then the handshake of
the new connection decides.
"""

from __future__ import annotations

from time import time
from typing import Protocol
from weakref import ref

from wsthreads.threads.flusher import Timer, Timers, weakly

__all__ = ["Expiry"]

#: The longest time until a timer reads the wall clock again.
LOOK_S = 60.0

#: How often a timer checks whether an expired session has a connection again.
AWAY_LOOK_S = 1.0

#: The shortest timer. Without this limit, a wall clock that is slower than the monotonic clock would cause a busy loop.
LEAST_S = 0.001


class Expiring(Protocol):
    """The part of a session that `Expiry` uses."""

    _expiry: Expiry | None

    def is_open(self) -> bool: ...

    def is_connected(self) -> bool: ...

    def _expire(self) -> None: ...


class Expiry:
    """Closes a session at the time `at`, in seconds since the epoch, unless the session has another expiry by then.

    Any thread. The session may be garbage-collected before `at`.
    """

    __slots__ = ("__weakref__", "_due", "_session", "_timer", "_timers", "at")

    def __init__(self, session: Expiring, at: float, timers: Timers) -> None:
        self.at = at
        self._session = ref(session)
        self._timers = timers
        self._due = at + (timers.time() - time())  # other than `at` only if a test has moved the clock of `timers`
        self._timer: Timer | None = None

    def look(self) -> None:
        """Close the session if it has expired and is connected. Otherwise check again later."""
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
        """Whether the session has expired, by the wall clock."""
        return self._timers.time() >= self._due

    def cancel(self) -> None:
        """Cancel this expiry, because the session has another one."""
        if self._timer is not None:
            self._timer.cancel()
