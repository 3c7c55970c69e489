"""Finds sessions that are moving between two processes. Such sessions count as open.

While a session moves, no process has it: it is *away*. Redis has its state, and counts it as a member of its user's
hidden room, under the name `away_name`. The session may become away, or arrive in a process, during a search. So a
search looks here, then asks all processes, and then looks here again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from wsthreads.brokers.keys import AWAY
from wsthreads.brokers.session_scripts import AWAY_IN, LOOK, WAITS
from wsthreads.brokers.session_state import StateError, decode_state
from wsthreads.rooms.directory import UserSession

__all__ = ["away_sessions", "ids_away", "is_away"]

#: A function that runs a script on the keys of a room or of a session. Raises `BrokerError`.
Call = Callable[..., Any]


def ids_away(call: Call) -> set[str]:
    """The ids of a user's sessions that are away.

    `call` uses the members and the processes of the user's hidden room.
    """
    return {bytes(name).decode("ascii", "replace").removesuffix(AWAY) for name in call(AWAY_IN)}


def is_away(call: Call, session_id: str) -> bool:
    """Whether a session is away, and its client may still come back. `call` uses the keys of the session."""
    return bool(call(WAITS, session_id))


def away_sessions(call_for: Callable[[str], Call], ids: Iterable[str], user: str) -> list[UserSession]:
    """Describe those of the sessions `ids` that are away. `call_for` returns a `Call` for the keys of a session."""
    found = []
    for session_id in ids:
        try:
            state, _ = decode_state(call_for(session_id)(LOOK) or b"")
        except StateError:  # a process has the session by now
            continue
        if state.user == user:
            found.append(UserSession(session_id, state.opened_at))
    return found
