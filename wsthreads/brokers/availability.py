"""Tracks whether Redis answers. This decides how long a handler's call waits for Redis."""

from __future__ import annotations

from time import monotonic

__all__ = ["WAIT_S", "Availability"]

#: The longest time that a handler's call waits for Redis. If an answer is missing for this long, no call waits.
WAIT_S = 1.0


class Availability:
    """Shared by the link, which waits, and the threads that talk to Redis. Any thread; takes no lock."""

    __slots__ = ("answers", "asked_at", "heard_at", "lost_at", "missed_at")

    def __init__(self) -> None:
        #: Whether Redis answered the last question. If not, no call waits for an answer. A hint.
        self.answers = True
        #: When the writer sent the calls that Redis has not answered.
        self.asked_at: float | None = None
        #: Since when Redis has answered nothing, over several connections.
        self.lost_at: float | None = None
        #: When something last arrived on the reader's connection.
        self.heard_at = float("-inf")
        #: When the reader last failed to make a room ready, or to return a broadcast, in time. No call waits for these
        #: until something has arrived.
        self.missed_at = float("-inf")

    def patience_s(self) -> float:
        """How long a call waits for Redis: `WAIT_S`, minus the time for which an answer has been missing."""
        since = [at for at in (self.lost_at, self.asked_at) if at is not None]
        return max(0.0, min(WAIT_S, min(since) + WAIT_S - monotonic())) if since else WAIT_S
