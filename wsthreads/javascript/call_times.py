"""Measures how long a script's functions take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsthreads.javascript.exports import CALLS, HOOKS, ROOM_CALLS, Exports

if TYPE_CHECKING:
    from wsthreads.monitoring.metrics import Histogram, Metrics

__all__ = ["CallTimes"]


class CallTimes:
    """Has a histogram for each function that the script exports. Only the isolate's thread uses this class."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._histograms: dict[str, Histogram] = {}  # by the kind of event or room call

    def use(self, exports: Exports) -> None:
        """From now on, measure the functions that these exports have."""
        hooks = {kind: HOOKS[function] for kind, function in {**CALLS, **ROOM_CALLS}.items()}
        self._histograms = {
            kind: self._metrics.histogram(hook) for kind, hook in hooks.items() if hook in exports.hooks
        }

    def of(self, kind: str) -> Histogram | None:
        """The histogram for a kind of event. None if the script has no function for this kind."""
        return self._histograms.get(kind)

    def observe(self, kind: str, seconds: float) -> None:
        histogram = self._histograms.get(kind)
        if histogram is not None:
            histogram.observe(seconds)
