"""Finds sessions that are moving between two processes. They count as open.

While a session is away, no process has it. It is in Redis, and counts as a member of its user's hidden room, under the
name `away_name`. A session may arrive or leave during a search. So a search asks here, then all processes, and then
here again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from wsthreads.brokers.keys import AWAY
from wsthreads.brokers.session_scripts import AWAY_IN, LOOK, WAITS
from wsthreads.brokers.session_state import StateError, decode_state
from wsthreads.rooms.directory import UserSession

__all__ = ["away_sessions", "ids_away", "is_away"]

#: A function that runs a script on the keys of a room or a session. Raises `BrokerError`.
Call = Callable[..., Any]


def ids_away(call: Call) -> set[str]:
    """The ids of a user's sessions that are away. `call` has the members and processes of the user's hidden room."""
    return {bytes(name).decode("ascii", "replace").removesuffix(AWAY) for name in call(AWAY_IN)}


def is_away(call: Call, session_id: str) -> bool:
    """Whether a session is away, and its client may still come back. `call` has the keys of the session."""
    return bool(call(WAITS, session_id))


def away_sessions(call_for: Callable[[str], Call], ids: Iterable[str], user: str) -> list[UserSession]:
    """The entries of these sessions that are away. `call_for` returns a `Call` with the keys of a session."""
    found = []
    for session_id in ids:
        try:
            state, _ = decode_state(call_for(session_id)(LOOK) or b"")
        except StateError:  # a process has it by now
            continue
        if state.user == user:
            found.append(UserSession(session_id, state.opened_at))
    return found
