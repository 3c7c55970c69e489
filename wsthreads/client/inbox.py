"""The inbox: the server's messages that wait until the application calls `Client.receive`."""

from __future__ import annotations

from collections import deque
from sys import getsizeof

__all__ = ["READ_AHEAD_BYTES", "Inbox"]

#: The client stops reading when the messages beyond `max_received` have this many bytes. A server with ``wsthreads.1``
#: stops sending earlier: when `max_resume_bytes` are not acknowledged.
READ_AHEAD_BYTES = 16 * 1024 * 1024


class Inbox:
    """A queue of messages. Guarded by the engine's lock."""

    def __init__(self, max_received: int) -> None:
        self._max_received = max_received
        self._messages: deque[str | bytes] = deque()
        self._ahead_bytes = 0  # the bytes of messages beyond `max_received`

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def is_crowded(self) -> bool:
        """Whether so many messages wait that the client must not acknowledge more."""
        return len(self._messages) >= self._max_received

    @property
    def is_full(self) -> bool:
        """Whether so many messages wait that the client must not read more."""
        return self._ahead_bytes >= READ_AHEAD_BYTES

    def put(self, message: str | bytes) -> None:
        """Add a message. The caller must check `is_full` before it reads."""
        self._messages.append(message)
        if self.is_crowded:
            self._ahead_bytes += getsizeof(message)

    def take(self) -> str | bytes:
        """Remove and return the oldest message. Raises `IndexError` if there is none."""
        message = self._messages.popleft()
        if not self.is_crowded:
            self._ahead_bytes = 0
        return message

    def clear(self) -> None:
        """Drop all messages."""
        self._messages.clear()
        self._ahead_bytes = 0
