"""Closes many sessions in batches, over some time, so that their clients do not all reconnect at the same moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import SystemRandom
from typing import TypeVar

__all__ = ["in_batches"]

T = TypeVar("T")

#: Up to this many sessions are closed at once. If there are more, they are closed in batches.
AT_ONCE = 500

#: How many sessions are closed per second, in random order. The rate is higher if closing would otherwise take more
#: than half of the timeout.
CLOSES_PER_S = 1000

#: Seconds between two batches.
BATCH_INTERVAL_S = 0.05


def in_batches(things: Iterable[T], timeout_s: float) -> Iterator[tuple[float, list[T]]]:
    """Yields each batch with its delay from the start in seconds.

    The delays go from 0 to at most half of `timeout_s`.
    """
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
