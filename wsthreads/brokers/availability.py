"""Tracks whether Redis answers. This decides how long a handler's call waits for Redis."""

from __future__ import annotations

from time import monotonic

__all__ = ["WAIT_S", "Availability"]

#: The longest time that a handler's call waits for Redis. After an answer has been missing for this long, calls do not
#: wait at all.
WAIT_S = 1.0


class Availability:
    """Shared by the link, whose calls wait, and the threads that talk to Redis. Any thread; takes no lock."""

    __slots__ = ("answers", "asked_at", "heard_at", "lost_at", "missed_at")

    def __init__(self) -> None:
        #: Whether Redis answered the last call. If not, no call waits for an answer. May be out of date.
        self.answers = True
        #: When the writer sent the calls that Redis has not answered. None if all are answered.
        self.asked_at: float | None = None
        #: Since when Redis has not answered, counted over several connections. None while it answers.
        self.lost_at: float | None = None
        #: When the reader's connection last received something.
        self.heard_at = float("-inf")
        #: When the reader last took too long to subscribe to a room, or to receive a broadcast back. After that, no
        #: call waits for the reader until something arrives.
        self.missed_at = float("-inf")

    def patience_s(self) -> float:
        """How long a call waits for Redis: `WAIT_S`, minus the time for which an answer has been missing."""
        since = [at for at in (self.lost_at, self.asked_at) if at is not None]
        return max(0.0, min(WAIT_S, min(since) + WAIT_S - monotonic())) if since else WAIT_S
