"""The limit `max_messages_per_s`: who exceeds it is refused, but a client that has come back is slowed down.

It sends at once what it could not send while it was away. What is more than the limit is held. Acknowledgements and
heartbeats go ahead of what is held: they stand behind it in the stream, and a client whose acknowledgements are not
read looks too slow.
"""

from __future__ import annotations

from collections import deque
from time import sleep

from wsthreads.protocol.rate_limit import RateLimit

__all__ = ["LOOK_S", "MAX_HELD", "MAX_HELD_BYTES", "Pace"]

#: With so many messages held, or so many bytes (of text, characters), no more are read.
MAX_HELD = 1000
MAX_HELD_BYTES = 1024 * 1024

#: How often a thread that reads no more looks whether the connection is ending.
LOOK_S = 0.1


class Pace:
    """The messages of one client that are more than `per_s` a second. For one thread."""

    def __init__(self, per_s: float) -> None:
        self._allowance = RateLimit(per_s)
        self._held: deque[str | bytes] = deque()
        self._held_bytes = 0

    @property
    def is_holding(self) -> bool:
        """Whether messages are held."""
        return bool(self._held)

    @property
    def wait_s(self) -> float:
        """How long until the next message is within the limit."""
        return self._allowance.wait_s

    def admit(self) -> bool:
        """Use one event for a message that has come. False if none is left, and if others are held."""
        return not self._held and self._allowance.take()

    def hold(self, message: str | bytes) -> None:
        """Keep a message until it is within the limit."""
        self._held.append(message)
        self._held_bytes += len(message)

    def next(self) -> str | bytes | None:
        """The oldest that is held, if it is within the limit by now."""
        if not self._held or not self._allowance.take():
            return None
        message = self._held.popleft()
        self._held_bytes -= len(message)
        return message

    def clear(self) -> None:
        """Drop what is held. The client has it still: nobody has acknowledged it."""
        self._held.clear()
        self._held_bytes = 0

    def pause(self) -> bool:
        """If too much is held to read on, sleep for a moment. Whether that was so."""
        is_full = len(self._held) >= MAX_HELD or self._held_bytes >= MAX_HELD_BYTES
        if is_full:
            sleep(min(self.wait_s, LOOK_S))
        return is_full
