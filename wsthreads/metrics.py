"""Counters that any thread may add to."""

from __future__ import annotations

from collections import Counter
from threading import Lock

__all__ = ["Metrics"]


class Metrics:
    """Named counters that only grow.

    For events, not for every message: each `add` takes one lock. Any thread.
    """

    __slots__ = ("_counts", "_lock")

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = Lock()  # guards _counts; a leaf, nothing is called under it

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counts[name] += amount

    def snapshot(self) -> dict[str, int]:
        """A copy of all counters; one that was never added to is missing."""
        with self._lock:
            return dict(self._counts)
