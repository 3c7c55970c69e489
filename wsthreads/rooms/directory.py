"""Sends to sessions of an endpoint and closes them: those of a user, the members of a room, or one by its id.

The sessions of a user are members of the user's hidden room (see `names`). The membership lasts from before `on_open`
until `on_close` has returned. So a message to a user is a broadcast, in one order with all other messages of the same
thread.

A ban takes effect before the user's sessions are closed. A session first joins the hidden room, and then checks whether
its user is banned. So if a client connects during a kick, the kick closes its session, or the session finds the ban.

Over a broker, a subclass also reaches the sessions of other processes. It overrides

- `_share_close`, which is called when this process has closed its own sessions,
- `_ask_ban` and `_ask_ban_again`, which look for a ban that this process may not know of,
- the methods that end in `_elsewhere`;

and it passes requests of other processes to `ban_here` and `close_here`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol

from wsthreads.loggers import get_logger
from wsthreads.monitoring.logs import printable
from wsthreads.protocol.frames import message_frame
from wsthreads.rooms.bans import Ban, Bans
from wsthreads.rooms.joined import Joined
from wsthreads.rooms.names import user_of, user_room

__all__ = ["KICKS_LOGGER", "Directory", "Reachable", "UserSession"]

#: The logger of kicks and bans. Under gunicorn, its lines from level INFO up are in the log. They are also on the
#: dashboard.
KICKS_LOGGER = f"{__name__}.kicks"
log = get_logger(KICKS_LOGGER)


@dataclass(frozen=True, slots=True)
class UserSession:
    """One of a user's sessions."""

    #: The id of the session.
    id: str
    #: When the session began, in seconds since the epoch.
    since: float


class Reachable(Protocol):
    """The part of a session that a directory uses, in addition to `Member`."""

    opened_at: float

    @property
    def id(self) -> str: ...

    def send(self, message: str | bytes, *, latest: str | None = None) -> bool: ...

    def is_open(self) -> bool: ...

    def _kick(self, code: int, reason: str) -> bool: ...


class Membership(Protocol):
    """The part of `Rooms` that a directory uses."""

    def join(self, name: str, session: Any) -> Joined: ...

    def broadcast(self, name: str, frame: bytes, *, hand_over: bool = False) -> None: ...

    def sessions(self, name: str) -> list[Any]: ...

    def forget_lost(self, user: str) -> None: ...

    def check_reach(self) -> None: ...


def _nothing_found(session_id: str) -> None:
    """The default of `find`: there is no session."""


class Directory:
    """The sessions of one endpoint, for `User`, `Peer` and `Room.close`. Any thread, but not a finalizer.

    `find` returns a session of this process by its id. `describe` returns an entry for each session of this process.
    `count` adds a number to a counter. The caller of a method has checked names, codes and times.
    """

    def __init__(
        self,
        rooms: Membership,
        *,
        path: str,
        count: Callable[[str, int], None],
        find: Callable[[str], Reachable | None] = _nothing_found,
        describe: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        self._rooms = rooms
        self._path = path
        self._count = count
        self._find = find
        self._describe = describe
        #: The users whose handshakes are refused.
        self.bans = Bans()

    # Handshakes

    def ban_of(self, user: str) -> Ban | None:
        """The ban because of which a handshake of this user must be refused. None if there is no ban.

        Over a broker, this may wait for a second.
        """
        return self.bans.get(user) or self._ask_ban(user)

    def enter(self, session: Any) -> Ban | None:
        """Add a session to its user's sessions. Returns a ban if the session must be closed instead.

        Called once, before the session is opened. `Rooms.leave_all` removes the session again.
        """
        ban = self.bans.get(session.user)
        if ban is not None:  # the session must not get later messages to the user
            return ban
        self._rooms.join(user_room(session.user), session)
        return self.bans.get(session.user) or self._ask_ban_again(session)

    # One user

    def send_to_user(self, user: str, frame: bytes, *, hand_over: bool = False) -> None:
        """Send a frame to all sessions of a user. Raises `BrokerError`."""
        self._rooms.broadcast(user_room(user), frame, hand_over=hand_over)

    def close_user(self, user: str, code: int, reason: str, ban_s: float) -> None:
        """Close all sessions of a user. With `ban_s`, refuse new sessions for that time. Raises `BrokerError`."""
        self._rooms.check_reach()
        if ban_s:
            self.ban_here(user, ban_s, code, reason)
            self._count("bans", 1)
            log.info("user %s banned on %s for %g s: %s", shown(user), self._path, ban_s, _ending(code, reason))
        name = user_room(user)
        self._log_kick(name, code, reason, self._close_all(name, code, reason))
        self._share_close(name, code, reason, ban_s)

    def is_online(self, user: str) -> bool:
        """Whether a user has an open session."""
        return any(session.is_open() for session in self._sessions(user_room(user))) or self._is_online_elsewhere(user)

    def sessions_of(self, user: str) -> list[UserSession]:
        """The open sessions of a user, the oldest first."""
        here = (UserSession(s.id, s.opened_at) for s in self._sessions(user_room(user)) if s.is_open())
        return sorted([*here, *self._sessions_elsewhere(user)], key=attrgetter("since", "id"))

    # One room

    def close_room(self, name: str, code: int, reason: str) -> None:
        """Close all members of a room. Raises `BrokerError`."""
        self._rooms.check_reach()
        self._log_kick(name, code, reason, self._close_all(name, code, reason))
        self._share_close(name, code, reason, 0.0)

    # One session

    def send_to_session(self, session_id: str, message: str | bytes, latest: str | None = None) -> bool:
        """Send to one session.

        Returns False if the session surely does not get the message. Raises `MessageTypeError` and `BrokerError`.
        """
        session = self._find(session_id)
        if session is not None:
            return session.send(message, latest=latest)
        frame = message_frame(message, latest=latest)  # raises an error for anything but str and bytes
        self._rooms.check_reach()
        return self._send_elsewhere(session_id, frame)

    def close_session(self, session_id: str, code: int, reason: str) -> None:
        """Close one session. Does nothing if there is no such session. Raises `BrokerError`."""
        session = self._find(session_id)
        if session is None:
            self._rooms.check_reach()
            self._close_elsewhere(session_id, code, reason)
        elif session._kick(code, reason):
            self._count("kicks", 1)
            log.info("session %s kicked on %s: %s", session_id, self._path, _ending(code, reason))

    def is_session_open(self, session_id: str) -> bool:
        """Whether a session with this id exists and is open."""
        session = self._find(session_id)
        return self._is_open_elsewhere(session_id) if session is None else session.is_open()

    def sessions_everywhere(self, timeout_s: float) -> list[dict[str, Any]]:
        """The entries of `describe` from all processes.

        Each entry also has the ``pid`` and the ``host`` of its process.
        """
        here = {"pid": os.getpid(), "host": socket.gethostname()}
        return [{**row, **here} for row in self._describe()] + self._described_elsewhere(timeout_s)

    # Requests of other processes

    def ban_here(self, user: str, ban_s: float, code: int, reason: str) -> None:
        """Refuse the handshakes of a user in this process, for some time."""
        self.bans.put(user, ban_s, code, reason)

    def close_here(self, name: str, code: int, reason: str) -> int:
        """Close the members of a room in this process. The room may be hidden. Returns how many members were open."""
        closed = self._close_all(name, code, reason)
        if closed:
            self._log_kick(name, code, reason, closed)
        return closed

    def _close_all(self, name: str, code: int, reason: str) -> int:
        closed = sum(bool(session._kick(code, reason)) for session in self._sessions(name))
        if closed:
            self._count("kicks", closed)
        user = user_of(name)
        if user is not None:
            self._rooms.forget_lost(user)
        return closed

    def _log_kick(self, name: str, code: int, reason: str, closed: int) -> None:
        user = user_of(name)
        whom = f"room {shown(name)} closed" if user is None else f"user {shown(user)} kicked"
        text = "%s on %s: %s (sessions closed in this process: %d)"
        log.info(text, whom, self._path, _ending(code, reason), closed)

    def _sessions(self, name: str) -> list[Any]:
        return self._rooms.sessions(name)

    # A subclass overrides these methods

    def _ask_ban(self, user: str) -> Ban | None:
        """Ask for a ban that this process does not know. Called before the response 101. May wait for a second."""
        return None

    def _ask_ban_again(self, session: Any) -> Ban | None:
        """Like `_ask_ban`, but called after the session has joined its user's hidden room."""
        return None

    def _share_close(self, name: str, code: int, reason: str, ban_s: float) -> None:
        """Close a room in other processes. If it is the hidden room of a user, a `ban_s` above 0 also bans the user."""

    def _send_elsewhere(self, session_id: str, frame: bytes) -> bool:
        return False

    def _close_elsewhere(self, session_id: str, code: int, reason: str) -> None:
        """Close a session of another process."""

    def _is_open_elsewhere(self, session_id: str) -> bool:
        return False

    def _is_online_elsewhere(self, user: str) -> bool:
        return False

    def _sessions_elsewhere(self, user: str) -> Iterable[UserSession]:
        return ()

    def _described_elsewhere(self, timeout_s: float) -> list[dict[str, Any]]:
        return []


def shown(name: str) -> str:
    """Make the name of a user or a room printable, for a log line."""
    return printable(name if len(name) <= 80 else f"{name[:80]}…")


def _ending(code: int, reason: str) -> str:
    return f"{code} {printable(reason)}".strip()
