"""An interface for readers in C, which read from a socket in place of its connection."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Reader"]


class Reader(Protocol):
    """Reads messages from a socket and passes them on, without Python code.

    Only the session's thread uses a reader, except for `stop`.
    """

    def read(self) -> bytes:
        """Read until there are bytes that the reader cannot pass on itself, and return these bytes.

        Returns no bytes at the end of the stream. Blocks while the client sends nothing, and as long as the reader can
        pass on all messages. Raises OSError if the connection is lost.
        """

    def stop(self) -> None:
        """From now on, pass on no messages. Any thread."""

    @property
    def heard_at(self) -> float:
        """When the last message arrived, by the monotonic clock. 0 if none has arrived."""

    @property
    def messages_in(self) -> int:
        """How many messages the reader has passed on."""

    @property
    def bytes_in(self) -> int:
        """The bytes of the messages that the reader has passed on, with the headers of their frames."""
