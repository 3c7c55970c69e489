"""A rate limit: a token bucket."""

from __future__ import annotations

from time import monotonic

__all__ = ["SPAN_S", "RateLimit"]

#: Unused events can be caught up within this time. After a stall of the network or of its handler, a client's messages
#: arrive all at once.
SPAN_S = 10.0


class RateLimit:
    """Allows `per_s` events per second, averaged over `SPAN_S`.

    At the start, all events of `SPAN_S` are available. For one thread.
    """

    __slots__ = ("_at", "_left", "_most", "_per_s")

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._most = self._left = per_s * SPAN_S
        self._at = monotonic()

    def take(self) -> bool:
        """Use one event; False if none is left."""
        now = monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    @property
    def wait_s(self) -> float:
        """How long until an event is left, as of the last `take`."""
        return max(0.0, (1 - self._left) / self._per_s)
