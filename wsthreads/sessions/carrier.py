"""A carrier is one connection of a session that speaks ``wsthreads.1``, with the thread that reads this connection."""

from __future__ import annotations

from threading import get_ident
from types import GeneratorType
from typing import TYPE_CHECKING

from wsthreads.protocol.connection import NO_MESSAGE

if TYPE_CHECKING:
    from wsthreads.protocol.channel import Channel
    from wsthreads.protocol.connection import Connection
    from wsthreads.protocol.readers import Reader

__all__ = ["Carrier"]


class Carrier:
    """One connection, and the thread that reads it. This thread makes the carrier.

    Only this thread may call `read` and `finish`.
    """

    __slots__ = ("channel", "connection", "counted", "is_over", "messages", "reader", "thread")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        #: Sends frames and closes the connection. Any thread may use it.
        self.channel: Channel = connection.channel
        self.messages = connection.messages()
        #: The id of the thread that reads.
        self.thread = get_ident()
        #: If this is not None, it passes messages to the handler without Python (see `Dialogue.read_by`).
        self.reader: Reader | None = None
        #: How many of the reader's messages the dialogue has counted, and their bytes. Guarded by the dialogue's lock.
        self.counted = (0, 0)
        #: Whether the connection has no further messages.
        self.is_over = False

    def passed(self) -> tuple[int, int]:
        """The messages that the reader has passed on and the dialogue has not counted yet: how many, and their bytes.

        Any thread.
        """
        reader, (texts, size) = self.reader, self.counted
        return (0, 0) if reader is None else (reader.messages_in - texts, reader.bytes_in - size)

    def may_read(self) -> bool:
        """Whether the calling thread may call `read`.

        Only the thread that made this object may call it, and only while the thread does not run `read`. A finalizer
        can run inside `read`.
        """
        if self.thread != get_ident() or self.is_over:
            return False
        return not (isinstance(self.messages, GeneratorType) and self.messages.gi_running)

    def read(self, timeout_s: float) -> str | bytes | None:
        """Read the next message.

        Returns None after `timeout_s`, or if no more messages will come. In the second case, `is_over` is true.
        """
        try:
            message = self.connection.read(self.messages, timeout_s)
        except StopIteration:
            self.is_over = True
            return None
        return None if message is NO_MESSAGE else message

    def finish(self) -> tuple[int, str]:
        """The close code and the reason of the connection. Called when nothing more is read."""
        return self.connection.finish()
