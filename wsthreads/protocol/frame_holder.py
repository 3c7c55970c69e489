"""An interface for brokers: an object that delays a session's frames before they come to its outbox."""

from __future__ import annotations

from typing import Protocol

__all__ = ["FrameHolder"]


class FrameHolder(Protocol):
    """Holds frames of one session back before they come to its outbox.

    With a broker, a message to one session must not come before broadcasts that were sent earlier.
    """

    @property
    def _held_bytes(self) -> int:
        """The bytes of the frames that are held back. Another thread may change them at any time."""

    def _hold_close(self, frame: bytes) -> bool:
        """Hold the close frame back until all earlier frames are in the outbox.

        Returns False, without any effect, if all earlier frames are there. Does not wait.
        """

    def _wait_released(self, timeout_s: float) -> bool:
        """Wait until no frame is held back, for at most `timeout_s`. Returns False if there still is one."""
