"""How many sessions there may be at once in this process, and whether there may be any more."""

from __future__ import annotations

from threading import Condition
from time import monotonic

from wsthreads.errors import HandshakeRefused

__all__ = ["RETRY_AFTER_S", "Admission"]

#: What a client that finds no place is told to wait before it tries again, in seconds.
RETRY_AFTER_S = 5


class Admission:
    """Places for sessions. Any thread."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._taken = 0
        #: Close code and reason for sessions that come in late, once `close` has been called.
        self.goodbye: tuple[int, str] | None = None
        self._changed = Condition()  # guards _taken and goodbye

    def enter(self) -> None:
        """Take a place, to be given back with `leave`. Raises `HandshakeRefused` with 503 if there is none."""
        with self._changed:
            if self.goodbye is not None:
                raise HandshakeRefused(503, "shutting down", [("Retry-After", str(RETRY_AFTER_S))])
            if self._taken >= self.places:
                reason = f"all {self.places} places for sessions are taken"
                raise HandshakeRefused(503, reason, [("Retry-After", str(RETRY_AFTER_S))])
            self._taken += 1

    def leave(self) -> None:
        """Give a place back."""
        with self._changed:
            self._taken -= 1
            self._changed.notify_all()

    def close(self, code: int, reason: str) -> bool:
        """Let nobody in any more. False, and nothing happens, if that has been done."""
        with self._changed:
            first = self.goodbye is None
            if first:
                self.goodbye = (code, reason)
            return first

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until the last session has left, at most `timeout_s`. False if some are still there."""
        deadline = monotonic() + timeout_s
        with self._changed:
            while self._taken:
                left = deadline - monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self.goodbye is not None

    @property
    def taken(self) -> int:
        """Sessions now, those in their handshake or their `on_close` included."""
        return self._taken
