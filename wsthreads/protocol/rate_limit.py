"""A rate limit (a token bucket), and the messages that must wait because of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from sys import getsizeof
from time import monotonic, sleep

__all__ = ["SPAN_S", "Held", "RateLimit"]

#: Events that a client did not use can still be used for this time. So a client may send many messages at once after
#: the network or the handler has stalled.
SPAN_S = 10.0

#: If the held messages take this much memory, and the memory for one message of the largest size in addition, no more
#: messages are read. A client stops earlier, to wait for an acknowledgement: see `envelope.CLIENT_WINDOW_BYTES`. In
#: memory, a text takes at most `BYTES_OF_BYTE` times its bytes on the wire, and less than 100 bytes more.
MAX_HELD_BYTES = 4 * 1024 * 1024

#: If a text has one character above U+FFFF, Python stores each of its characters in four bytes.
BYTES_OF_BYTE = 4

#: A thread that must not read checks this often whether the connection is ending.
LOOK_S = 0.1


class RateLimit:
    """Allows `per_s` events per second, averaged over `SPAN_S`. Not thread-safe.

    At the start, all events of `SPAN_S` are available.
    """

    __slots__ = ("_at", "_left", "_most", "_per_s")

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._most = self._left = per_s * SPAN_S
        self._at = monotonic()

    def take(self) -> bool:
        """Use one event. Returns False if none is available."""
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
    """Delays messages of a client that has come back, until the rate limit allows them. Not thread-safe.

    A client that comes back sends at once all messages that it could not send without a connection. Acknowledgements
    are not delayed, because the client would otherwise seem to read too slowly. No message is longer than `longest`
    bytes.
    """

    def __init__(self, allowance: RateLimit, first: str | bytes, longest: int) -> None:
        self._allowance = allowance
        self._messages = deque([first])
        self._bytes = getsizeof(first)
        self._most = MAX_HELD_BYTES + BYTES_OF_BYTE * longest
        #: A function to call when no message is held any more, if the client has ended the connection. Otherwise None.
        self.end: Callable[[], object] | None = None

    def __bool__(self) -> bool:
        return bool(self._messages)

    @property
    def wait_s(self) -> float:
        """The seconds until the rate limit allows the next message."""
        return self._allowance.wait_s

    def add(self, message: str | bytes) -> None:
        """Hold another message."""
        self._messages.append(message)
        self._bytes += getsizeof(message)

    def take(self) -> str | bytes | None:
        """Remove and return the oldest message, if the rate limit allows it by now. Otherwise returns None."""
        if not self._allowance.take():
            return None
        message = self._messages.popleft()
        self._bytes -= getsizeof(message)
        return message

    def may_read(self) -> bool:
        """Whether more messages may be read. If not, sleeps for a moment before it returns False."""
        if self.end is None and self._bytes < self._most:
            return True
        sleep(min(self.wait_s, LOOK_S))
        return False
