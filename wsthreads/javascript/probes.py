"""Measures how long events wait in the queue of an isolate, by samples.

A *probe* is an event that calls nothing. It is a ``measure`` with the time when it was posted. When the isolate takes
the probe, the probe's age is a waiting time: a call that was posted at the same time would have waited as long.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from wsthreads.javascript.session_state import Event

if TYPE_CHECKING:
    from wsthreads.javascript.schedule import Schedule
    from wsthreads.monitoring.metrics import Metrics

__all__ = ["Probes"]

#: The time that `recent` covers, in seconds.
RECENT_S = 60.0

#: At most this many probes wait, because a call that never ends must not fill the memory with probes. One probe is
#: posted in a second.
MAX_WAITING = 60


class Probes:
    """The probes of one isolate.

    One thread calls `post`, the isolate's thread calls `take`, and any thread may call `recent`.
    """

    def __init__(self, schedule: Schedule, metrics: Metrics) -> None:
        self._schedule = schedule
        self._histogram = metrics.histogram("script_wait")
        self._posted = 0
        self._taken = 0
        # For each of the last probes: when it was taken, and how long it had waited. The tuple is never changed, only
        # replaced, because other threads read it.
        self._recent: tuple[tuple[float, float], ...] = ()

    def post(self) -> None:
        """Put a probe into the queue, unless too many wait. Does not block."""
        if self._posted - self._taken < MAX_WAITING:
            self._posted += 1
            self._schedule.post(Event("measure", None, (monotonic(),)))

    def take(self, event: Event) -> None:
        self._taken += 1
        now = monotonic()
        waited_s = now - event.arguments[0]
        self._histogram.observe(waited_s)
        self._recent = (*self._recent[1 - MAX_WAITING :], (now, waited_s))

    def recent(self) -> tuple[float, float] | None:
        """The median and the longest wait of the last minute, in seconds. None if there was no probe."""
        since = monotonic() - RECENT_S
        waits = [waited_s for taken_at, waited_s in self._recent if taken_at >= since]
        return (_median(waits), max(waits)) if waits else None


def _median(values: list[float]) -> float:
    """Like `statistics.median`. The module `statistics` would take three milliseconds to import."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
