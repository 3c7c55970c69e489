"""The result of joining a room."""

from __future__ import annotations

from typing import NamedTuple

from wsthreads.errors import RoomStateError, brief

__all__ = ["JOINED", "MAX_MEMBERS", "NOT_JOINED", "Joined", "check_max_members"]

#: The largest `max_members`.
MAX_MEMBERS = 1_000_000


class Joined(NamedTuple):
    """The result of `SessionRoom.join`. In a condition, it counts as true if the session is a member now."""

    #: Whether the session is a member now. False if the room is full (`max_members`), or if the session has ended.
    joined: bool
    #: Whether no message is missing between `since` and now. True if `since` was not given. False if the session did
    #: not join.
    complete: bool

    def __bool__(self) -> bool:
        return self.joined


JOINED = Joined(True, True)
NOT_JOINED = Joined(False, False)


def check_max_members(number: object) -> None:
    """Raise `RoomStateError` for an invalid `max_members`."""
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_MEMBERS:
        raise RoomStateError(f"max_members must be a whole number from 1 to {MAX_MEMBERS}, not {brief(number)}")
