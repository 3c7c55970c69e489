"""What may read from a connection's socket in place of the connection: the seam for readers that need no Python."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Reader"]


class Reader(Protocol):
    """Reads messages from a socket to where they are handled, without Python. For the session's thread, but `stop`."""

    def read(self) -> bytes:
        """Whatever comes in that it does not keep to itself; nothing at the end of the stream.

        Blocks for as long as the client is silent, or sends what is kept. Raises OSError if the connection is lost.
        """

    def stop(self) -> None:
        """From now on keep nothing. Any thread."""

    @property
    def heard_at(self) -> float:
        """When a message came last, on the monotonic clock; 0 if none has."""

    @property
    def messages_in(self) -> int:
        """How many messages it has kept."""

    @property
    def bytes_in(self) -> int:
        """And of how many bytes, with their frames' headers."""
