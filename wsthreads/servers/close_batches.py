"""Spreads the closing of many sessions over time, so that their clients do not all reconnect at the same moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import SystemRandom
from typing import TypeVar

__all__ = ["in_batches"]

T = TypeVar("T")

#: At most this many sessions are closed at once. If there are more, they are closed in batches.
AT_ONCE = 500

#: The rate of closing in batches, in random order. It is higher if closing would take more than half of the timeout.
CLOSES_PER_S = 1000

#: Seconds between two batches.
BATCH_INTERVAL_S = 0.05


def in_batches(things: Iterable[T], timeout_s: float) -> Iterator[tuple[float, list[T]]]:
    """Each batch with its delay in seconds. The first delay is 0; the last is at most half of `timeout_s`."""
    waiting = list(things)
    if len(waiting) <= AT_ONCE:
        yield 0.0, waiting
        return
    SystemRandom().shuffle(waiting)
    spread_s = min(len(waiting) / CLOSES_PER_S, timeout_s / 2)
    batches = min(len(waiting), int(spread_s / BATCH_INTERVAL_S) + 1)
    for nth in range(batches):
        begin, end = (len(waiting) * n // batches for n in (nth, nth + 1))
        yield spread_s * nth / batches, waiting[begin:end]
