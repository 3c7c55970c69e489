"""A rate limit (a token bucket), and the messages that wait for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from sys import getsizeof
from time import monotonic, sleep

__all__ = ["SPAN_S", "Held", "RateLimit"]

#: An event that was not used can still be used for this time. So a client may send many messages at once after the
#: network or the handler has stalled.
SPAN_S = 10.0

#: No more messages are read when held messages take this much memory, in addition to one message of the largest size. A
#: client waits for an acknowledgement before that: see `envelope.CLIENT_WINDOW_BYTES`. Text takes at most
#: `BYTES_OF_BYTE` times its bytes, and less than 100 more for each message.
MAX_HELD_BYTES = 4 * 1024 * 1024

#: One character beyond U+FFFF makes Python store each character of the text in four bytes.
BYTES_OF_BYTE = 4

#: How often a thread that reads nothing checks whether the connection is ending.
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
        """The seconds until the next event is available, as of the last `take`."""
        return max(0.0, (1 - self._left) / self._per_s)


class Held:
    """Holds messages of a client that has come back, until the rate limit allows them. For one thread.

    Such a client sends all messages at once that it could not send without a connection. Acknowledgements are not held,
    because a client whose acknowledgements are not read would seem too slow. No message is longer than `longest` bytes.
    """

    def __init__(self, allowance: RateLimit, first: str | bytes, longest: int) -> None:
        self._allowance = allowance
        self._messages = deque([first])
        self._bytes = getsizeof(first)
        self._most = MAX_HELD_BYTES + BYTES_OF_BYTE * longest
        #: If the client has ended the connection: a function to call when no message is held any more. Otherwise None.
        self.end: Callable[[], object] | None = None

    def __bool__(self) -> bool:
        return bool(self._messages)

    @property
    def wait_s(self) -> float:
        """The seconds until the next message is within the limit."""
        return self._allowance.wait_s

    def add(self, message: str | bytes) -> None:
        """Hold another message."""
        self._messages.append(message)
        self._bytes += getsizeof(message)

    def take(self) -> str | bytes | None:
        """Remove and return the oldest message, if it is within the limit by now."""
        if not self._allowance.take():
            return None
        message = self._messages.popleft()
        self._bytes -= getsizeof(message)
        return message

    def may_read(self) -> bool:
        """Whether more messages may be read. If they may not, sleeps for a moment."""
        if self.end is None and self._bytes < self._most:
            return True
        sleep(min(self.wait_s, LOOK_S))
        return False
