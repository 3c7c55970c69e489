"""When to close each of many sessions, so that their clients do not all come back in the same instant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import SystemRandom
from typing import TypeVar

__all__ = ["in_batches"]

T = TypeVar("T")

#: So many at most are closed at once. More are closed one after another...
AT_ONCE = 500

#: ...at this rate, in random order, and faster where that would take more than half of the time there is.
CLOSES_PER_S = 1000

#: How often there is a batch meanwhile.
BATCH_INTERVAL_S = 0.05


def in_batches(things: Iterable[T], timeout_s: float) -> Iterator[tuple[float, list[T]]]:
    """Each batch with its delay in seconds; the first has none, the last is due within half of `timeout_s`."""
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
