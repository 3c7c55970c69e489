"""A clock that only a test moves, with timers that are called when the clock reaches their times."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from threading import Lock
from time import time

from wsthreads.threads.flusher import Timer

__all__ = ["ManualTimers"]

#: A timer may be called too early by at most this time. So twenty steps of 0.05 seconds are one second, although floats
#: are rounded.
_EARLY_S = 1e-6


class ManualTimers:
    """The timers of a test, in place of the timers of the `Flusher` (the thread for timers).

    Any thread. The callbacks are called in the thread that calls `advance`.
    """

    def __init__(self) -> None:
        self._lock = Lock()  # guards the rest; no callback is called while it is held
        self._now = 0.0
        self._timers: list[tuple[float, int, Timer]] = []  # a heap of (time, serial number, timer)
        self._serial = count()  # for timers with the same time, because timers themselves cannot be compared

    def now(self) -> float:
        """Returns the seconds since the clock was made."""
        return self._now

    def time(self) -> float:
        """Returns the seconds since the epoch. `advance` moves this time, too."""
        return time() + self._now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` when the clock has moved by `delay_s`."""
        with self._lock:
            timer = Timer(self._now + delay_s, callback)
            heapq.heappush(self._timers, (timer.due, next(self._serial), timer))
        return timer

    def advance(self, seconds: float, *, between: Callable[[], object] = lambda: None) -> None:
        """Move the clock, and call each timer's callback at its time. `between` is called after each callback."""
        end = self._now + seconds
        while (timer := self._next(end)) is not None:
            callback = timer.callback
            if callback is not None:
                callback()
                between()
        self._now = max(self._now, end)

    def _next(self, end: float) -> Timer | None:
        """Returns the next timer that is due at or before `end`. Moves the clock to its time."""
        with self._lock:
            if not self._timers or self._timers[0][0] > end + _EARLY_S:
                return None
            due, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, due)
            return timer
