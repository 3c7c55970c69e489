"""So many events a second: a token bucket."""

from __future__ import annotations

from time import monotonic

__all__ = ["SPAN_S", "Allowance"]

#: What is not used can be made up for within so long: a client whose network, or whose handler, has stalled sends, or
#: is read, all at once afterwards.
SPAN_S = 10.0


class Allowance:
    """`per_s` events a second, on average over `SPAN_S`; at first, all of that at once. For one thread."""

    __slots__ = ("_at", "_left", "_most", "_per_s")

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._most = self._left = per_s * SPAN_S
        self._at = monotonic()

    def take(self) -> bool:
        """Use up one event; False if there is none left."""
        now = monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
