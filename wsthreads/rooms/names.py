"""The names of hidden rooms. These are for messages to all sessions of one user, or to one session.

For `Rooms` and a broker, a hidden room is an ordinary room. But handlers cannot use it, and every list, count and limit
leaves it out. The name of a hidden room begins with NUL. The names of other rooms must not begin with NUL.
"""

from __future__ import annotations

__all__ = ["SESSIONS_ROOM", "is_hidden", "user_of", "user_room"]

_MARK = "\0"
_USER = "\0u"

#: The hidden room for messages to one session. The message has the session's id. Sessions do not join this room.
SESSIONS_ROOM = "\0s"


def user_room(user: str) -> str:
    """The hidden room of a user's sessions."""
    return _USER + user


def user_of(name: str) -> str | None:
    """The user whose hidden room has this name. None for the name of any other room."""
    return name[len(_USER) :] if name.startswith(_USER) else None


def is_hidden(name: str) -> bool:
    """Whether this is the name of a hidden room."""
    return name.startswith(_MARK)
