"""Whether Redis answers, and so for how long a handler's call waits for it."""

from __future__ import annotations

from time import monotonic

__all__ = ["WAIT_S", "Availability"]

#: Longest time that a handler's call waits for Redis. Once Redis has owed an answer for this long, no call waits.
WAIT_S = 1.0


class Availability:
    """Shared by the link, which waits, and the threads that talk to Redis. Any thread; takes no lock."""

    __slots__ = ("answers", "asked_at", "heard_at", "lost_at", "missed_at")

    def __init__(self) -> None:
        #: Redis answered the last question, so it is worthwhile to wait for the next answer. A hint.
        self.answers = True
        #: When the writer sent what Redis has not answered yet.
        self.asked_at: float | None = None
        #: Since when Redis has answered nothing, over several connections.
        self.lost_at: float | None = None
        #: When something last arrived on the reader's connection.
        self.heard_at = float("-inf")
        #: When the reader last failed to make a room ready, or to bring a broadcast back, in time. Nobody waits for
        #: that until something has arrived.
        self.missed_at = float("-inf")

    def patience_s(self) -> float:
        """How long a call waits for Redis: `WAIT_S`, less the time for which Redis has owed an answer."""
        since = [at for at in (self.lost_at, self.asked_at) if at is not None]
        return max(0.0, min(WAIT_S, min(since) + WAIT_S - monotonic())) if since else WAIT_S
