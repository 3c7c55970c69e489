"""Lists the rooms, their members and their traffic. All results are snapshots."""

from __future__ import annotations

from threading import Lock
from typing import Any

from wsthreads.protocol.writer_threads import WriterThreads
from wsthreads.rooms.members import Members
from wsthreads.rooms.names import is_hidden, user_of
from wsthreads.rooms.sending import Sending
from wsthreads.threads.drainer import Drainer

__all__ = ["Listing"]


class Listing(Sending):
    """The part of `Rooms` that lists rooms and counts members. Leaves out hidden rooms."""

    def __init__(self, drainer: Drainer, writers: WriterThreads | None = None) -> None:
        super().__init__(drainer, writers)
        self._has_hidden = False  # whether there was ever a hidden room
        self._ended = (0, 0)  # the numbers of broadcasts and deliveries of deleted rooms
        self._ending = Lock()  # guards _ended; no other lock is taken while it is held

    def names(self) -> list[str]:
        """The names of all rooms, sorted."""
        return sorted(self._visible())

    def sizes(self) -> dict[str, int]:
        """All rooms, each with its number of members in this process."""
        return {name: len(members.sessions) for name, members in self._visible().items()}

    def users(self) -> dict[str, int]:
        """All users with sessions in this process, each with the number of these sessions."""
        if not self._has_hidden:
            return {}
        rooms = self._members.snapshot().items()
        return {user: len(members.sessions) for name, members in rooms if (user := user_of(name)) is not None}

    def _visible(self) -> dict[str, Members]:
        """All rooms that are not hidden."""
        rooms = self._members.snapshot()
        if not self._has_hidden:
            return rooms
        return {name: members for name, members in rooms.items() if not is_hidden(name)}

    def sessions(self, name: str) -> list[Any]:
        """The members of a room."""
        found: list[Any] = []

        def copy(members: Members) -> Members:
            found.extend(members.sessions)
            return members

        self._members.compute_if_present(name, copy)
        return found

    def count(self, name: str) -> int:
        """The number of members of a room. 0 if the room does not exist."""
        members = self._members.get(name)
        return len(members.sessions) if members is not None else 0

    def totals(self) -> tuple[int, int, int, int]:
        """The number of rooms, the number of members, and the total numbers of broadcasts and deliveries.

        A broadcast is counted if it has reached a member. A delivery is a message that a broadcast has put into an
        outbox. If a room is deleted during this call, it may be missing. It is never counted twice.
        """
        with self._ending:
            broadcasts, deliveries = self._ended
        rooms = self._visible().values()
        for members in rooms:
            broadcasts += members.broadcasts
            deliveries += members.deliveries
        return len(rooms), sum(len(members.sessions) for members in rooms), broadcasts, deliveries
