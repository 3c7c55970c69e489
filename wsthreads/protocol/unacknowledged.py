"""The messages that a session keeps until its client acknowledges them, in case the connection is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from wsthreads.errors import ProtocolError, counted
from wsthreads.protocol.envelope import is_counted

__all__ = ["MIN_WINDOW_BYTES", "Kept", "nobody_cares"]

#: The smallest window: at most this many bytes may be written and not acknowledged. A client acknowledges at least
#: every 64 KiB, which it may count in characters. A smaller window could be full before the client acknowledges, and
#: then nothing more would be sent.
MIN_WINDOW_BYTES = 256 * 1024


class Kept(list[bytes]):
    """The frames of counted messages that were written and are not acknowledged, the oldest first.

    Guarded by the outbox's lock. The C module appends to it. The outbox counts the bytes.
    """

    __slots__ = ("_max_bytes", "_on_stuck", "acknowledged")

    def __init__(
        self, frames: Iterable[bytes], *, acknowledged: int, max_bytes: int, on_stuck: Callable[[str], None]
    ) -> None:
        super().__init__(frames)
        #: How many messages the client has acknowledged since the session began.
        self.acknowledged = acknowledged
        self._max_bytes = max_bytes
        self._on_stuck = on_stuck

    @property
    def written(self) -> int:
        """How many messages were written since the session began. The client cannot acknowledge more."""
        return self.acknowledged + len(self)

    def acknowledge(self, count: int) -> int:
        """Drop the messages that the client has acknowledged: `count` since the session began. Returns their bytes.

        Raises `ProtocolError`, without any effect, for an impossible count.
        """
        fresh = count - self.acknowledged
        if not 0 <= fresh <= len(self):
            possible = f"{self.acknowledged} to {self.written}"
            raise ProtocolError(f"{counted(count, 'message')} acknowledged, {possible} are possible")
        size = sum(map(len, self[:fresh]))
        del self[:fresh]
        self.acknowledged = count
        return size

    def add(self, frames: list[bytes]) -> int:
        """Add frames of counted messages. Returns their bytes."""
        self.extend(frames)
        return sum(map(len, frames))

    def take_back(self, frames: list[bytes]) -> int:
        """Remove the frames that were added last, because they were not written completely. Returns their bytes.

        Some of `frames` may not be counted messages. These were not added.
        """
        counted = [frame for frame in frames if is_counted(frame)]
        del self[len(self) - len(counted) :]
        return sum(map(len, counted))

    def end(self) -> None:
        """Drop the frames and the callback, because the session is over.

        The callback would be part of a cycle of references.
        """
        self.clear()
        self._on_stuck = nobody_cares

    def swap(self, max_bytes: int, on_stuck: Callable[[str], None]) -> tuple[int, Callable[[str], None]]:
        """Exchange the limit of waiting bytes and the callback. Returns those that were stored here.

        An outbox has one limit and callback with a connection, and another one without. The unused pair is stored here.
        """
        before = self._max_bytes, self._on_stuck
        self._max_bytes, self._on_stuck = max_bytes, on_stuck
        return before


def nobody_cares(reason: str) -> None:
    """An `on_stuck` that does nothing, for an outbox that is over or has no connection."""
