"""A rate limit: a token bucket, and what waits for it."""

from __future__ import annotations

from collections import deque
from time import monotonic, sleep

__all__ = ["SPAN_S", "Held", "RateLimit"]

#: Unused events can be caught up within this time. After a stall of the network or of its handler, a client's messages
#: arrive all at once.
SPAN_S = 10.0

#: With so many messages held, or so many bytes (of text, characters), no more are read.
MAX_HELD = 1000
MAX_HELD_BYTES = 1024 * 1024

#: How often a thread that reads no more looks whether the connection is ending.
LOOK_S = 0.1


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


class Held:
    """Messages of a client that has come back, more than its limit allows. They wait until they are within it. (Such a
    client sends at once what it could not send while it was away.) For one thread.

    Acknowledgements do not wait. They stand behind these messages in the stream, and a client whose acknowledgements
    are not read looks too slow.
    """

    def __init__(self, allowance: RateLimit, first: str | bytes) -> None:
        self._allowance = allowance
        self._messages = deque([first])
        self._bytes = len(first)

    def __bool__(self) -> bool:
        return bool(self._messages)

    @property
    def wait_s(self) -> float:
        """How long until the next one is within the limit."""
        return self._allowance.wait_s

    def add(self, message: str | bytes) -> None:
        """Hold one more."""
        self._messages.append(message)
        self._bytes += len(message)

    def take(self) -> str | bytes | None:
        """The oldest, if it is within the limit by now."""
        if not self._allowance.take():
            return None
        message = self._messages.popleft()
        self._bytes -= len(message)
        return message

    def has_room(self) -> bool:
        """Whether more may be read. If not, sleeps for a moment."""
        if len(self._messages) < MAX_HELD and self._bytes < MAX_HELD_BYTES:
            return True
        sleep(min(self.wait_s, LOOK_S))
        return False
