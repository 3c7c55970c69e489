"""Looks at rooms at a moment when nothing is being delivered to their members.

What comes from Redis is delivered by the reader's thread alone. So a call that this thread makes between two messages
sees all rooms of the reader at one moment: each position is exactly that of the last message that the members have.
A session that leaves or joins rooms in such a call has, or gets, every message up to the position, and no later one.
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
    """One call that somebody waits for."""

    def __init__(self, rooms: Sequence[RoomKey], look: Look) -> None:
        self.rooms = rooms
        self.look = look
        self.is_over = Event()
        self.error: BaseException | None = None
        self.using = Lock()  # held during the call, and to give it up
        self.is_given_up = False


class Checkpoints:
    """The calls that wait for the reader's thread. `find` finds the subscription to a room; `wake` wakes the thread."""

    def __init__(self, find: Callable[[RoomKey], Subscription | None], wake: Callable[[], None]) -> None:
        self._find = find
        self._wake = wake
        self._waiting: deque[_Checkpoint] = deque()

    def call(self, rooms: Sequence[RoomKey], look: Look, timeout_s: float) -> bool:
        """Call `look` once all `rooms` are up to date in this process, again until it has done its work.

        Waits for at most `timeout_s`. False if it has not done it; then it is not called any more. Any thread.
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
        """Between two messages. The reader's thread."""
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
            except BaseException as error:  # it is raised where somebody waits for it
                checkpoint.error = error
            checkpoint.is_over.set()
            return True
