"""An interface for readers in C, which read from the socket instead of the connection."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Reader"]


class Reader(Protocol):
    """Reads messages from a socket and passes them on, without Python code.

    Only the session's thread uses it, except for `stop`.
    """

    def read(self) -> bytes:
        """Read until there are bytes that the reader cannot pass on itself, and return these bytes.

        Returns empty bytes at the end of the stream. Blocks while the client sends nothing, and while the reader can
        pass on all messages. Raises OSError if the connection is lost.
        """

    def stop(self) -> None:
        """From now on, pass on nothing. Any thread."""

    @property
    def heard_at(self) -> float:
        """When the last message arrived, by the monotonic clock. 0 if none has arrived."""

    @property
    def messages_in(self) -> int:
        """How many messages the reader has passed on."""

    @property
    def bytes_in(self) -> int:
        """The bytes of these messages, with the headers of their frames."""
