"""An interface for brokers: holds a session's frames back before they come to its outbox."""

from __future__ import annotations

from typing import Protocol

__all__ = ["FrameHolder"]


class FrameHolder(Protocol):
    """Holds frames of a session back before they come to its outbox.

    Over a broker, a message to one session must wait for broadcasts that were sent before it.
    """

    @property
    def _held_bytes(self) -> int:
        """The bytes of the held frames. A snapshot."""

    def _hold_close(self, frame: bytes) -> bool:
        """Hold the close frame until all earlier frames were appended.

        Returns False, without any effect, if no earlier frame is missing. Does not wait.
        """

    def _wait_released(self, timeout_s: float) -> bool:
        """Wait until no frame is held, at most `timeout_s`. Returns False if frames are still held."""
