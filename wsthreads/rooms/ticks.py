"""The schedule of ticks. It only calculates, and has no clock and no thread.

All rooms of an endpoint share one schedule. Its times are absolute. So a late tick does not delay later ticks.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["MAX_DT_S", "MAX_TICK_RATE", "MIN_TICK_RATE", "TICK_RATES", "Schedule", "is_tick_rate"]

#: The largest `dt` that `on_tick` gets, unless one period is longer.
MAX_DT_S = 0.25

MIN_TICK_RATE = 1
MAX_TICK_RATE = 60

#: Describes a valid `tick_rate` in error messages.
TICK_RATES = f"a number of ticks a second from {MIN_TICK_RATE} to {MAX_TICK_RATE}"

#: A clock may be early by this part of a period, because of rounding.
_EARLY = 1e-6


def is_tick_rate(value: Any) -> bool:
    """Whether a handler's `tick_rate` is a number in its range."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and MIN_TICK_RATE <= value <= MAX_TICK_RATE  # NaN is refused, too


class Schedule:
    """Tick number n is due at ``origin_s + n / rate``. Immutable.

    >>> schedule = Schedule(100.0, 20)
    >>> schedule.number(100.2), schedule.due_s(4), schedule.dt_s(3, 4), schedule.dt_s(3, 40)
    (4, 100.2, 0.05, 0.25)
    """

    __slots__ = ("origin_s", "rate")

    def __init__(self, origin_s: float, rate: float) -> None:
        self.origin_s = origin_s
        self.rate = rate

    def number(self, now_s: float) -> int:
        """The number of the last tick that was due at this time."""
        return math.floor((now_s - self.origin_s) * self.rate + _EARLY)

    def due_s(self, number: int) -> float:
        """The time at which a tick is due."""
        return self.origin_s + number / self.rate

    @property
    def _max_dt_s(self) -> float:
        return max(MAX_DT_S, 1 / self.rate)

    def dt_s(self, last: int, number: int) -> float:
        """The time between two ticks, which `on_tick` gets."""
        return min(self._max_dt_s, (number - last) / self.rate)

    def first_dt_s(self, started_s: float, number: int) -> float:
        """The time from the start of a room until its first tick, which `on_tick` gets."""
        return min(self._max_dt_s, max(0.0, round(self.due_s(number) - started_s, 9)))
