"""What the plots show: rates and counts of each endpoint, over the last minutes."""

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

#: Snapshots are kept for so long, those of the last FINE_S all of them, older ones at this distance.
HISTORY_S = 600.0
FINE_S = 120.0
COARSE_S = 5.0

#: So many totals of an endpoint are kept at most, all endpoints together; each takes some 2 kB.
MAX_TOTALS = 3_000

QUANTILES = {"handler_p50_s": 0.5, "handler_p99_s": 0.99}
RATES = ("messages_in", "bytes_in", "messages_out", "bytes_out", "errors")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The totals of all endpoints at a time: `at` in seconds since the epoch, `clock` on the monotonic clock."""

    at: float
    clock: float
    totals: Mapping[str, Totals]


class Sampler:
    """Takes snapshots of `endpoints`, and keeps them for a while. Any thread.

    What is kept are totals, which only grow: a sample is the difference of any two, so that nothing gets lost where
    some are left out.
    """

    def __init__(self, endpoints: Callable[[], Iterable[Endpoint]]) -> None:
        self._endpoints = endpoints
        self._lock = Lock()  # guards the writing of _snapshots; held while one is taken, so that they are in order
        self._snapshots: list[Snapshot] = []

    def take(self, least_age_s: float) -> dict[str, Any] | None:
        """Take a snapshot, unless the last one is younger than that; the sample since then, if there was one.

        Some milliseconds of work where there are thousands of sessions. Waits for nobody.
        """
        if not self._lock.acquire(blocking=False):
            return None  # another thread takes one just now
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
        """The samples of the last minutes, the oldest first."""
        snapshots = self._snapshots  # always another list
        return [sample_of(before, after) for before, after in pairwise(snapshots)]

    def forget(self) -> None:
        """Begin anew, as in a forked process."""
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
    """What happened between two snapshots, as the page gets it."""
    span_s = max(after.clock - before.clock, 1e-6)
    return {
        "type": "sample",
        "at": after.at,
        "endpoints": {
            path: _of_endpoint(before.totals.get(path), totals, span_s) for path, totals in after.totals.items()
        },
    }


def _of_endpoint(before: Totals | None, after: Totals, span_s: float) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(after, name) for name in ("sessions", "rooms", "bytes_waiting")}
    fields["errors_total"] = after.errors
    for name in RATES:
        grown = getattr(after, name) - (0 if before is None else getattr(before, name))
        fields[name] = round(max(0, grown) / span_s, 2)
    times = _handler_times(before, after)
    for name, q in QUANTILES.items():
        fields[name] = None if times is None else times.quantile(q)
    return fields


def _handler_times(before: Totals | None, after: Totals) -> Distribution | None:
    """How long the calls of all of a handler's functions took that ended in between."""
    earlier = {} if before is None else before.handler_seconds
    grown = [
        times.since(earlier[function]) if function in earlier else times
        for function, times in after.handler_seconds.items()
    ]
    if not grown:
        return None
    counts = (*map(sum, zip(*(times.counts for times in grown), strict=True)),)
    return Distribution(counts, sum(times.total_s for times in grown))
