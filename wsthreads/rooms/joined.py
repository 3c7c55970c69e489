"""What a session gets from joining a room."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["JOINED", "NOT_JOINED", "Joined"]


class Joined(NamedTuple):
    """What `SessionRoom.join` returns."""

    #: Whether the session is a member now. False if the room has `max_members`, or if the session has ended.
    joined: bool
    #: Whether nothing is missing between `since` and now. True without `since`; False if the session did not join.
    complete: bool


JOINED = Joined(True, True)
NOT_JOINED = Joined(False, False)
