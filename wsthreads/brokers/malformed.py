"""Counts malformed data from Redis, which is dropped, and logs it from time to time."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from wsthreads.errors import counted
from wsthreads.loggers import get_logger

if TYPE_CHECKING:
    from wsthreads.monitoring.metrics import Metrics

__all__ = ["Malformed"]

log = get_logger(__name__)

#: The shortest time between two log lines, in seconds.
COMPLAIN_S = 10.0


class Malformed:
    """The count of malformed data of one link. Any thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._count = 0
        self._complained_at = float("-inf")

    def drop(self, what: str) -> None:
        """Count malformed data. `what` describes the data, but has nothing of its contents."""
        self._metrics.add("broker_malformed")
        self._count += 1
        if monotonic() - self._complained_at >= COMPLAIN_S:
            log.warning("dropped malformed data from Redis (%s so far), such as %s", counted(self._count, "time"), what)
            self._complained_at = monotonic()
