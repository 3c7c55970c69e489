"""What a viewer can do: close one session, or all of a user or a room; broadcast, send and read messages.

If there is a broker, actions reach the sessions of all processes. Each action is logged with the viewer's address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wsthreads.dashboard.lists import find_session
from wsthreads.dashboard.requests import Broadcast, Close, CloseRoom, KickUser, Mistake, ReadMessage, Send
from wsthreads.dashboard.room_state import message_text
from wsthreads.errors import BrokerError, UsageError
from wsthreads.loggers import get_logger
from wsthreads.monitoring.logs import in_context, printable

if TYPE_CHECKING:
    from wsthreads.rooms.handles import Peer
    from wsthreads.sessions.endpoint import Endpoint

__all__ = ["Action", "Actions"]

log = get_logger(__name__)

Action = Close | KickUser | CloseRoom | Send | Broadcast | ReadMessage


class Actions:
    """Does the actions of viewers on the `endpoints`. May wait for the broker. Any thread."""

    def __init__(self, endpoints: Callable[[], tuple[Endpoint, ...]]) -> None:
        self._endpoints = endpoints

    def do(self, action: Action, viewer: str) -> str:
        """Do an action of the viewer whose address is `viewer`. Returns the text of the answer. Raises `Mistake`."""
        try:
            # Not with the log context of the viewer's own session, because log records of this session do not become
            # events.
            with in_context({"address": viewer}):
                return self._do(action, viewer)
        except (UsageError, BrokerError) as error:
            raise Mistake(str(error), action.request) from error
        except Mistake as mistake:
            raise Mistake(str(mistake), action.request) from None

    def _do(self, action: Action, viewer: str) -> str:
        if isinstance(action, Close):
            return self._close(action, viewer)
        if isinstance(action, KickUser):
            return self._kick_user(action, viewer)
        if isinstance(action, CloseRoom):
            return self._close_room(action, viewer)
        if isinstance(action, Send):
            return self._send(action, viewer)
        if isinstance(action, ReadMessage):
            return self._read_message(action, viewer)
        return self._broadcast(action, viewer)

    def _close(self, action: Close, viewer: str) -> str:
        self._peer(action.session_id, action.endpoint).close(action.code, action.reason)
        session_id = printable(action.session_id)
        log.info("session %s was closed with %d on the page by a viewer at %s", session_id, action.code, viewer)
        return f"closing with {action.code}"

    def _peer(self, session_id: str, path: str | None) -> Peer:
        """Returns a handle, by which to reach an open session of any process. Raises `Mistake`."""
        found = find_session(self._endpoints(), session_id)
        if found is not None:
            if not found[1].is_open():
                raise Mistake("the session is closing already")
            return found[0].session(session_id)
        for endpoint in self._endpoints() if path is None else (self._endpoint(path),):
            peer = endpoint.session(session_id)
            if peer.is_open():
                return peer
        raise Mistake(f"the session {session_id!r:.60} has ended")

    def _kick_user(self, action: KickUser, viewer: str) -> str:
        endpoint = self._endpoint(action.endpoint)
        user = endpoint.user(action.user)
        sessions = len(user.sessions())
        user.close(action.code, action.reason, ban_s=action.ban_s)
        ban = f", banned for {action.ban_s:g} s" if action.ban_s else ""
        name = printable(action.user)
        log.info(
            "user %s of %s was kicked with %d%s on the page by a viewer at %s",
            name, endpoint.path, action.code, ban, viewer,
        )
        return f"closing {_sessions(sessions)} with {action.code}{ban}"

    def _close_room(self, action: CloseRoom, viewer: str) -> str:
        endpoint = self._endpoint(action.endpoint)
        room = endpoint.room(action.room)
        members = room.members()
        room.close(action.code, action.reason)
        name = printable(room.name)
        what = "room %s of %s was closed with %d on the page by a viewer at %s"
        log.info(what, name, endpoint.path, action.code, viewer)
        return f"closing {_sessions(members)} with {action.code}"

    def _send(self, action: Send, viewer: str) -> str:
        endpoint = self._endpoint(action.endpoint)
        if action.user is not None:
            user = endpoint.user(action.user)
            sessions = len(user.sessions())
            user.send(action.message)
            name = printable(user.name)
            log.info("a message to user %s of %s was sent on the page by a viewer at %s", name, endpoint.path, viewer)
            return f"sent to {_sessions(sessions)}"
        assert action.session_id is not None
        if not self._peer(action.session_id, endpoint.path).send(action.message):
            raise Mistake("the session did not accept the message: it is closing")
        session_id = printable(action.session_id)
        log.info("a message to session %s was sent on the page by a viewer at %s", session_id, viewer)
        return "sent"

    def _broadcast(self, action: Broadcast, viewer: str) -> str:
        endpoint = self._endpoint(action.endpoint)
        room = endpoint.room(action.room)
        members = room.members()
        room.broadcast(action.message)
        log.info("a broadcast to %r of %s was sent on the page by a viewer at %s", room.name, endpoint.path, viewer)
        return f"sent to {members} member{'' if members == 1 else 's'}"

    def _read_message(self, action: ReadMessage, viewer: str) -> str:
        endpoint = self._endpoint(action.endpoint)
        text = message_text(endpoint, action.room, action.number)
        name = printable(action.room)
        log.info(
            "message %d of room %s of %s was read on the page by a viewer at %s",
            action.number, name, endpoint.path, viewer,
        )
        return text

    def _endpoint(self, path: str) -> Endpoint:
        """Returns the endpoint of a path. Raises `Mistake` if there is none."""
        endpoints = self._endpoints()
        endpoint = next((endpoint for endpoint in endpoints if endpoint.path == path), None)
        if endpoint is None:
            known = ", ".join(endpoint.path for endpoint in endpoints) or "none"
            raise Mistake(f"no endpoint {path!r:.60}; there are: {known}")
        return endpoint


def _sessions(number: int) -> str:
    return f"{number} session{'' if number == 1 else 's'}"
