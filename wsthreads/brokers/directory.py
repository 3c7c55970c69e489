"""Reaches the sessions of an endpoint in all processes.

A close is sent to the other processes as a message in the room's log, after all earlier messages to the room. Messages
for one session go to a hidden room, `SESSIONS_ROOM`. Every process that has had sessions of the endpoint is subscribed
to this hidden room.

Each user has a hidden room, too. Redis keeps the user's ban, and returns it to a process that announces this room. A
process announces the room in two cases: the user's first session in this process opens, or the connection to Redis was
broken. The process learns of later bans, because a ban closes the hidden room. So it has to ask for a ban only at a
handshake of a user who has no sessions in this process.

To find a user's sessions, a process asks all other processes. It also asks Redis for sessions that are moving between
processes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from wsthreads.brokers.moving_sessions import away_sessions, ids_away, is_away
from wsthreads.errors import BrokerError
from wsthreads.rooms.bans import Ban
from wsthreads.rooms.directory import Directory, UserSession
from wsthreads.rooms.names import SESSIONS_ROOM, user_of, user_room

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Link
    from wsthreads.brokers.messages import Close, Direct

__all__ = ["SharedDirectory", "is_session_id", "sessions_in"]

_ID = re.compile("[A-Za-z0-9_-]{1,40}")


def is_session_id(text: str) -> bool:
    """Whether a session can have this id."""
    return _ID.fullmatch(text) is not None


class SharedDirectory(Directory):
    """A `Directory` whose sessions are in several processes, which `link` connects. Any thread, but not a finalizer."""

    def __init__(self, rooms: Any, *, link: Link, **parts: Any) -> None:
        super().__init__(rooms, **parts)
        self._link = link
        self._kinds = {kind: f"{kind} {self._path}" for kind in ("session", "user", "sessions", "forget")}
        link.answer(self._kinds["session"], self._answer_session)
        link.answer(self._kinds["user"], self._answer_user)
        link.answer(self._kinds["sessions"], self._answer_sessions)
        link.answer(self._kinds["forget"], self._forget_lost)

        self._entering: set[str] = set()  # sessions whose ban is about to be looked up

    def enter(self, session: Any) -> Ban | None:
        self._entering.add(session.id)
        try:
            ban = super().enter(session)
        finally:
            self._entering.discard(session.id)
        return ban or self.bans.get(session.user)  # if the ban arrives after this, `found_ban` closes the session

    # Requests to other processes

    def _share_close(self, name: str, code: int, reason: str, ban_s: float) -> None:
        self._link.close(self._path, name, code, reason, ban_s)
        user = user_of(name)
        # the user's sessions in another process may all have lost their connections; the hidden room does not reach
        # these
        if user is not None:
            self._link.tell(self._kinds["forget"], user)

    def _ask_ban(self, user: str) -> Ban | None:
        name = user_room(user)
        if self._link.has_room(self._path, name):
            return None  # this process knows every ban of the user
        found = self._link.ban_of(self._path, name)
        if found is None:
            return None
        code, reason, ban_s = found
        return Ban(self.bans.clock() + ban_s, code, reason)

    def _send_elsewhere(self, session_id: str, frame: bytes) -> bool:
        if not is_session_id(session_id):
            return False
        self._link.send_to_session(self._path, session_id, frame)
        return True

    def _close_elsewhere(self, session_id: str, code: int, reason: str) -> None:
        if is_session_id(session_id):
            self._link.close(self._path, SESSIONS_ROOM, code, reason, 0.0, session_id)

    def _is_open_elsewhere(self, session_id: str) -> bool:
        if not is_session_id(session_id):
            return False
        if self._is_away(session_id):
            return True
        answers = self._link.ask(self._kinds["session"], session_id, enough=bool)
        return any(each["value"] is True for each in answers) or self._is_away(session_id)

    def _is_online_elsewhere(self, user: str) -> bool:
        if not self._link.members_elsewhere(self._path, user_room(user)):
            return False
        if self._ids_away(user):
            return True
        answers = self._link.ask(self._kinds["user"], user, enough=bool)
        return any(sessions_in(each) for each in answers) or bool(self._ids_away(user))

    def _sessions_elsewhere(self, user: str) -> Iterable[UserSession]:
        if not self._link.members_elsewhere(self._path, user_room(user)):
            return []
        away = self._ids_away(user)
        found = [session for each in self._link.ask(self._kinds["user"], user) for session in sessions_in(each)]
        away = (away | self._ids_away(user)) - {session.id for session in found}
        with suppress(BrokerError):  # Redis is unavailable
            found += away_sessions(lambda id: partial(self._link.call_for_session, self._path, id), away, user)
        return found

    # Sessions that are moving. While Redis is unavailable, this process finds none.

    def _is_away(self, session_id: str) -> bool:
        with suppress(BrokerError):
            return is_away(partial(self._link.call_for_session, self._path, session_id), session_id)
        return False

    def _ids_away(self, user: str) -> set[str]:
        def call(script: str) -> Any:
            return self._link.call(self._path, user_room(user), script, ("members", "processes"))

        with suppress(BrokerError):
            return ids_away(call)
        return set()

    def _described_elsewhere(self, timeout_s: float) -> list[dict[str, Any]]:
        answers = self._link.ask(self._kinds["sessions"], None, timeout_s)
        return [
            {**row, "pid": each["pid"], "host": each["host"]}
            for each in answers
            if isinstance(each["value"], list)
            for row in each["value"]
            if isinstance(row, dict)
        ]

    # Requests of other processes

    def send_here(self, message: Direct) -> None:
        """Send to one session if the session is in this process. Only the reader's thread calls this."""
        session: Any = self._find(message.session_id)
        if session is not None:
            session._send_here(message.message, latest=message.latest)

    def obey(self, name: str, order: Close) -> None:
        """Close the members of a room in this process, or one session. Only the reader's thread calls this."""
        if order.session_id is not None:
            if self._find(order.session_id) is not None:
                self.close_session(order.session_id, order.code, order.reason)
            return
        user = user_of(name)
        if user is not None and order.ban_s:
            self.ban_here(user, order.ban_s, order.code, order.reason)
        self.close_here(name, order.code, order.reason)

    def found_ban(self, name: str, code: int, reason: str, ban_s: float) -> None:
        """Apply a ban from Redis. `name` is the hidden room of the banned user."""
        user = user_of(name)
        if user is not None:
            self.ban_here(user, ban_s, code, reason)
            sessions = [session for session in self._sessions(name) if session.id not in self._entering]
            closed = sum(bool(session._kick(code, reason)) for session in sessions)
            self._rooms.forget_lost(user)
            if closed:
                self._count("kicks", closed)
                self._log_kick(name, code, reason, closed)

    def known_bans(self) -> list[tuple[str, int, str, float]]:
        """The bans that this process knows.

        Each has the hidden room, the code, the reason, and the remaining seconds.
        """
        now = self.bans.clock()
        return [(user_room(user), ban.code, ban.reason, ban.until - now) for user, ban in self.bans.items()]

    def _answer_session(self, session_id: Any) -> bool:
        session = self._find(session_id) if isinstance(session_id, str) else None
        return session is not None and session.is_open()

    def _answer_user(self, user: Any) -> list[tuple[str, float]]:
        sessions = self._sessions(user_room(user)) if isinstance(user, str) else []
        return [(session.id, session.opened_at) for session in sessions if session.is_open()]

    def _forget_lost(self, user: Any) -> None:
        if isinstance(user, str):
            self._rooms.forget_lost(user)

    def _answer_sessions(self, _: Any) -> list[dict[str, Any]]:
        return self._describe()


def sessions_in(answer: dict[str, Any]) -> list[UserSession]:
    """The sessions of a user in another process, from that process's answer. Empty if the answer is malformed."""
    try:
        return [UserSession(str(session_id), float(since)) for session_id, since in answer["value"] or ()]
    except (TypeError, ValueError, OverflowError):
        return []
