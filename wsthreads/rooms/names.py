"""The names of hidden rooms: they carry what is for the sessions of one user, or for one session.

A hidden room is a room like any other to `Rooms` and to a broker. Handlers cannot name it, and it is left out of
every list, count and limit. Its name begins with NUL, which the name of no other room does.
"""

from __future__ import annotations

__all__ = ["SESSIONS_ROOM", "is_hidden", "user_of", "user_room"]

_MARK = "\0"
_USER = "\0u"

#: The room of what is for one session, by its id. Sessions do not join it.
SESSIONS_ROOM = "\0s"


def user_room(user: str) -> str:
    """The hidden room of a user's sessions."""
    return _USER + user


def user_of(name: str) -> str | None:
    """The user whose hidden room has this name; None for any other room."""
    return name[len(_USER) :] if name.startswith(_USER) else None


def is_hidden(name: str) -> bool:
    """Whether this is the name of a hidden room."""
    return name.startswith(_MARK)
