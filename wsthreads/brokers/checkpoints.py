"""Calls functions at a moment when no message is being delivered to rooms.

Only the reader's thread delivers messages from Redis. So a function that this thread calls between two messages sees
all rooms of the reader in one consistent state. The position of each room is exactly that of the last message that the
members have. If the function removes a session from its rooms, the session has every message up to these positions, and
no later one. If it adds a session, the session gets exactly the later messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Event, Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Look, RoomKey
    from wsthreads.brokers.positions import Position
    from wsthreads.brokers.subscription import Subscription

__all__ = ["Checkpoints"]


class _Checkpoint:
    """One call that the reader's thread has to make, and for which another thread waits."""

    def __init__(self, rooms: Sequence[RoomKey], look: Look) -> None:
        self.rooms = rooms
        self.look = look
        self.is_over = Event()
        self.error: BaseException | None = None
        self.using = Lock()  # held during the call of `look`, and while the waiting thread gives up
        self.is_given_up = False


class Checkpoints:
    """The queue of calls that the reader's thread makes for other threads.

    `find` returns the subscription to a room, or None. `wake` wakes the reader's thread.
    """

    def __init__(self, find: Callable[[RoomKey], Subscription | None], wake: Callable[[], None]) -> None:
        self._find = find
        self._wake = wake
        self._waiting: deque[_Checkpoint] = deque()

    def call(self, rooms: Sequence[RoomKey], look: Look, timeout_s: float) -> bool:
        """Call `look` when this process has received all messages of `rooms`.

        Repeat the call until `look` returns true.

        Waits at most `timeout_s`. Returns false if `look` has not returned true by then. `look` is not called after
        this method has returned. Any thread.
        """
        checkpoint = _Checkpoint(rooms, look)
        self._waiting.append(checkpoint)
        self._wake()
        checkpoint.is_over.wait(timeout_s)
        with checkpoint.using:
            checkpoint.is_given_up = True
        if checkpoint.error is not None:
            raise checkpoint.error
        return checkpoint.is_over.is_set()

    def run(self) -> None:
        """Make the calls in the queue. Called by the reader's thread between two messages."""
        for _ in range(len(self._waiting)):
            checkpoint = self._waiting.popleft()
            if not self._is_done(checkpoint):
                self._waiting.append(checkpoint)

    def _is_done(self, checkpoint: _Checkpoint) -> bool:
        positions: dict[RoomKey, Position] = {}
        for key in checkpoint.rooms:
            room = self._find(key)
            if room is None or not room.live or room.dropped:
                return checkpoint.is_given_up
            positions[key] = room.position
        with checkpoint.using:
            if checkpoint.is_given_up:
                return True
            try:
                if not checkpoint.look(positions):
                    return False
            except BaseException as error:  # raised in the thread that waits
                checkpoint.error = error
            checkpoint.is_over.set()
            return True
