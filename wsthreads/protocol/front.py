"""What may hold a session's frames back before they come to its outbox: the seam for brokers."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Front"]


class Front(Protocol):
    """Holds frames of a session back before they come to its outbox: over a broker, what is behind a broadcast."""

    @property
    def _held_bytes(self) -> int:
        """A snapshot."""

    def _hold_close(self, frame: bytes) -> bool:
        """Keep the close frame, to append it behind all that comes before it.

        False, and nothing happens, if that is here already. Does not wait.
        """

    def _wait_released(self, timeout_s: float) -> bool:
        """Wait until nothing is held, at most `timeout_s`. False if something is."""
