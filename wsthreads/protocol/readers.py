"""An interface for readers in C, which read from the socket in place of the connection."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Reader"]


class Reader(Protocol):
    """Reads messages from a socket and hands them on itself, without Python.

    Only the session's thread uses it, except for `stop`.
    """

    def read(self) -> bytes:
        """The received bytes that the reader does not hand on itself. Empty at the end of the stream.

        Blocks while the client sends nothing, and while the reader hands on all messages. Raises OSError if the
        connection is lost.
        """

    def stop(self) -> None:
        """From now on, hand on nothing. Any thread."""

    @property
    def heard_at(self) -> float:
        """When the last message came, on the monotonic clock. 0 without any."""

    @property
    def messages_in(self) -> int:
        """The number of messages that it has handed on."""

    @property
    def bytes_in(self) -> int:
        """The bytes of these messages, with the headers of their frames."""
