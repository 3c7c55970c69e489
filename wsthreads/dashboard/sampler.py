"""Samples for the plots: rates and numbers of each endpoint in the last minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from wsthreads.monitoring.metrics import Distribution

if TYPE_CHECKING:
    from wsthreads.monitoring.metrics import Totals
    from wsthreads.sessions.endpoint import Endpoint

__all__ = ["Sampler", "Snapshot", "sample_of"]

#: Snapshots are kept for HISTORY_S: all snapshots of the last FINE_S, and for the time before, one for each COARSE_S.
HISTORY_S = 600.0
FINE_S = 120.0
COARSE_S = 5.0

#: At most this many `Totals` are kept for all endpoints together. Each needs about 2 kB.
MAX_TOTALS = 3_000

QUANTILES = {"handler_p50_s": 0.5, "handler_p99_s": 0.99}
COUNTED = ("presence_changes", "kicks", "bans", "sessions_suspended", "sessions_resumed")
NOW = ("sessions", "suspended", "rooms", "users", "bytes_waiting", "unacknowledged_bytes")
REFUSED_RESUMES = "resumes_refused_"
WAITS = ("script_wait_p50_s", "script_wait_max_s")
RATES = ("messages_in", "bytes_in", "messages_out", "bytes_out", "errors")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The totals of all endpoints at one time: `at` in seconds since the epoch, `clock` by the monotonic clock."""

    at: float
    clock: float
    totals: Mapping[str, Totals]


class Sampler:
    """Takes snapshots of `endpoints`, and keeps the recent ones. Any thread.

    A snapshot contains totals, which only grow. A sample is the difference between two snapshots. So the sample is
    complete even if snapshots between these two were dropped.
    """

    def __init__(self, endpoints: Callable[[], Iterable[Endpoint]]) -> None:
        self._endpoints = endpoints
        self._lock = Lock()  # guards writes to _snapshots; held while a snapshot is taken, so that they stay in order
        self._snapshots: list[Snapshot] = []

    def take(self, least_age_s: float) -> dict[str, Any] | None:
        """Take a snapshot, unless the last one is younger than `least_age_s`.

        Returns the sample since the last snapshot, or None.


        With thousands of sessions, this takes some milliseconds. Waits for no other thread.
        """
        if not self._lock.acquire(blocking=False):
            return None  # another thread is taking a snapshot
        try:
            at, now, last = time(), monotonic(), self._snapshots[-1] if self._snapshots else None
            if last is not None and now - last.clock < least_age_s:
                return None
            totals = {endpoint.path: endpoint.totals() for endpoint in self._endpoints()}
            snapshot = Snapshot(at, now, totals)
            self._snapshots = _thinned([*self._snapshots, snapshot], now)
        finally:
            self._lock.release()
        return None if last is None else sample_of(last, snapshot)

    def history(self) -> list[dict[str, Any]]:
        """Returns the samples of the last minutes, the oldest first."""
        snapshots = self._snapshots  # `take` replaces this list, and never changes it
        return [sample_of(before, after) for before, after in pairwise(snapshots)]

    def forget(self) -> None:
        """Drop all snapshots. A forked process needs this."""
        self._lock = Lock()
        self._snapshots = []


def _thinned(snapshots: list[Snapshot], now: float) -> list[Snapshot]:
    kept: list[Snapshot] = []
    for snapshot in snapshots:
        age = now - snapshot.clock
        if age <= HISTORY_S and (age <= FINE_S or not kept or snapshot.clock - kept[-1].clock >= COARSE_S):
            kept.append(snapshot)
    most = max(2, MAX_TOTALS // max(1, len(kept[-1].totals)))
    return kept[-most:]


def sample_of(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """Returns the message with the rates and numbers between two snapshots."""
    span_s = max(after.clock - before.clock, 1e-6)
    return {
        "type": "sample",
        "at": after.at,
        "endpoints": {
            path: _of_endpoint(before.totals.get(path), totals, span_s) for path, totals in after.totals.items()
        },
    }


def _of_endpoint(before: Totals | None, after: Totals, span_s: float) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(after, name) for name in NOW}
    fields["errors_total"] = after.errors
    fields |= {name: getattr(after, name) for name in WAITS}
    for name in COUNTED:
        fields[f"{name}_total"] = after.counters.get(name, 0)
    fields |= {f"{name}_total": n for name, n in after.counters.items() if name.startswith(REFUSED_RESUMES)}
    for name in RATES:
        grown = getattr(after, name) - (0 if before is None else getattr(before, name))
        fields[name] = round(max(0, grown) / span_s, 2)
    times = _handler_times(before, after)
    for name, q in QUANTILES.items():
        fields[name] = None if times is None else times.quantile(q)
    return fields


def _handler_times(before: Totals | None, after: Totals) -> Distribution | None:
    """Returns the durations of all handler calls that have ended between two snapshots."""
    earlier = {} if before is None else before.handler_seconds
    grown = [
        times.since(earlier[function]) if function in earlier else times
        for function, times in after.handler_seconds.items()
    ]
    if not grown:
        return None
    counts = (*map(sum, zip(*(times.counts for times in grown), strict=True)),)
    return Distribution(counts, sum(times.total_s for times in grown))
