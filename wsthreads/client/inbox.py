"""The messages of the server that wait until the application of a `Client` receives them."""

from __future__ import annotations

from collections import deque
from sys import getsizeof

__all__ = ["READ_AHEAD_BYTES", "Inbox"]

#: So much memory is filled by messages past `max_received`; then the client reads no more. Servers stop before that:
#: at `max_resume_bytes` without an acknowledgement.
READ_AHEAD_BYTES = 16 * 1024 * 1024


class Inbox:
    """Has no lock: that of the engine guards it."""

    def __init__(self, max_received: int) -> None:
        self._max_received = max_received
        self._messages: deque[str | bytes] = deque()
        self._ahead_bytes = 0  # of messages that have come since `max_received` was reached

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def is_crowded(self) -> bool:
        """Whether no more than these are to be acknowledged."""
        return len(self._messages) >= self._max_received

    @property
    def is_full(self) -> bool:
        """Whether no more are to be read."""
        return self._ahead_bytes >= READ_AHEAD_BYTES

    def put(self, message: str | bytes) -> None:
        """Add what has come. Whether there is room is the caller's to look at before it reads."""
        self._messages.append(message)
        if self.is_crowded:
            self._ahead_bytes += getsizeof(message)

    def take(self) -> str | bytes:
        """The oldest. `IndexError` if there is none."""
        message = self._messages.popleft()
        if not self.is_crowded:
            self._ahead_bytes = 0
        return message

    def clear(self) -> None:
        """Drop all."""
        self._messages.clear()
        self._ahead_bytes = 0
