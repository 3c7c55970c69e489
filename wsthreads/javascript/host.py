"""What a script can do outside of its interpreter: the Python half of the session and room objects, and the console.

An engine's *host* is the program around it; these are the host functions that wsthreads gives to a script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from wsthreads.javascript.calls import Function
from wsthreads.javascript.session_state import SessionState
from wsthreads.javascript.stacks import Failure
from wsthreads.javascript.values import message_from, persons_in_json, sessions_in_json
from wsthreads.rooms.handles import Peer, User
from wsthreads.rooms.json_text import JSONText

if TYPE_CHECKING:
    from wsthreads.javascript.engine import Engine
    from wsthreads.javascript.loader import ModuleLoader
    from wsthreads.loggers import ContainedLogger
    from wsthreads.rooms.handles import Room, SessionRoom
    from wsthreads.rooms.rooms import Rooms
    from wsthreads.sessions.session import Session

__all__ = ["HostFunctions"]


class HostFunctions:
    """Functions for JavaScript, called in the isolate's thread. They act at once.

    Over Redis, those that ask other processes (members, presence, is_online, sessions_of, is_peer_open) and a first
    join wait for Redis, for about a second at most; nothing else waits.

    `states` has the sessions of the isolate. A session that is not in it has ended: it receives nothing and joins no
    room. Its room handles still reach the members, through `rooms`, those of the endpoint. The same is true of handles
    without a session, whose id is None. `is_busy` tells whether events wait for the isolate, `current` whose call runs;
    `loader` knows the script's files.
    """

    def __init__(
        self,
        states: Mapping[str, SessionState],
        is_busy: Callable[[], bool],
        current: Callable[[], SessionState | None],
        log: ContainedLogger,
        loader: ModuleLoader,
        rooms: Rooms[Any] | None = None,
    ) -> None:
        self._states = states
        self._is_busy = is_busy
        self._current = current
        self._log = log
        self._loader = loader
        self._rooms_of_all = rooms
        self.engine: Engine | None = None

    def functions(self) -> dict[str, Function]:
        return {
            "send": self._send,
            "close": self._close,
            "set_expiry": self._set_expiry,
            "is_open": self._is_open,
            "rooms": self._rooms,
            "join": self._join,
            "leave": self._leave,
            "set_presence": self._set_presence,
            "presence": self._presence,
            "broadcast": self._broadcast,
            "broadcast_except": self._broadcast_except,
            "members": self._members,
            "close_room": self._close_room,
            "send_to_user": self._send_to_user,
            "close_user": self._close_user,
            "is_online": self._is_online,
            "sessions_of": self._sessions_of,
            "send_to_peer": self._send_to_peer,
            "close_peer": self._close_peer,
            "is_peer_open": self._is_peer_open,
            "console": self._console,
        }

    def _message(self, text: str | None, is_binary: bool) -> str | bytes:
        return message_from(self.engine, text, is_binary)

    def _session(self, session_id: str | None) -> Session | None:
        state = self._states.get(session_id or "")
        return None if state is None else state.session

    def _room(self, session_id: str | None, name: str) -> SessionRoom | None:
        """The session's handle of a room; None if the session has ended."""
        session = self._session(session_id)
        return None if session is None else session.room(name)

    def _any_room(self, session_id: str | None, name: str) -> Room | None:
        """A handle of a room, also without a session. None if there is no endpoint."""
        room = self._room(session_id, name)
        return self._rooms_of_all.room(name) if room is None and self._rooms_of_all is not None else room

    def _send(self, message: str | None, is_binary: bool, session_id: str) -> bool:
        session = self._session(session_id)
        return session is not None and session.send(self._message(message, is_binary))

    def _close(self, session_id: str, code: int, reason: str) -> None:
        state = self._states.get(session_id)
        if state is not None:
            state.close(code, reason)

    def _set_expiry(self, session_id: str, unix_s: float) -> None:
        session = self._session(session_id)
        if session is not None:
            session.set_expiry(unix_s)

    def _is_open(self, session_id: str) -> bool:
        session = self._session(session_id)
        return session is not None and session.is_open()

    def _rooms(self, session_id: str) -> tuple[str, ...]:
        session = self._session(session_id)
        return () if session is None else tuple(session.rooms())

    # These three return False, and nothing happens, if the session has ended.

    def _join(self, session_id: str, name: str, presence: str | None = None) -> bool:
        """`presence` is JSON text."""
        room = self._room(session_id, name)
        if room is None:
            return False
        if presence is None:
            room.join()
        else:
            room.join(presence=JSONText(presence))
        return True

    def _set_presence(self, session_id: str, name: str, presence: str) -> bool:
        room = self._room(session_id, name)
        if room is None:
            return False
        room.set_presence(JSONText(presence))
        return True

    def _leave(self, session_id: str, name: str) -> bool:
        room = self._room(session_id, name)
        if room is None:
            return False
        room.leave()
        return True

    def _broadcast(self, message: str | None, is_binary: bool, session_id: str | None, name: str) -> None:
        room = self._any_room(session_id, name)
        if room is not None:
            room.broadcast(self._message(message, is_binary), hand_over=self._is_busy())

    def _broadcast_except(self, message: str | None, is_binary: bool, session_id: str, name: str) -> None:
        room = self._room(session_id, name)
        if room is None:  # the session has ended, so it is no member
            self._broadcast(message, is_binary, session_id, name)
        else:
            room.broadcast_except(self._message(message, is_binary), hand_over=self._is_busy())

    def _members(self, session_id: str | None, name: str) -> int:
        room = self._any_room(session_id, name)
        return 0 if room is None else room.members()

    def _presence(self, session_id: str | None, name: str) -> bytes:
        room = self._any_room(session_id, name)
        return persons_in_json([] if room is None else room.presence())

    def _close_room(self, session_id: str | None, name: str, code: int, reason: str) -> None:
        room = self._any_room(session_id, name)
        if room is not None:
            room.close(code, reason)

    # Users, and sessions of any process. Without an endpoint, there are none.

    def _user(self, name: str) -> User | None:
        return None if self._rooms_of_all is None else User(name, self._rooms_of_all.directory)

    def _peer(self, session_id: str) -> Peer | None:
        return None if self._rooms_of_all is None else Peer(session_id, self._rooms_of_all.directory)

    def _send_to_user(self, message: str | None, is_binary: bool, name: str) -> None:
        user = self._user(name)
        if user is not None:
            user.send(self._message(message, is_binary), hand_over=self._is_busy())

    def _close_user(self, name: str, code: int, reason: str, ban_s: float) -> None:
        user = self._user(name)
        if user is not None:
            user.close(code, reason, ban_s=ban_s)

    def _is_online(self, name: str) -> bool:
        user = self._user(name)
        return user is not None and user.is_online()

    def _sessions_of(self, name: str) -> bytes:
        user = self._user(name)
        return sessions_in_json([] if user is None else user.sessions())

    def _send_to_peer(self, message: str | None, is_binary: bool, session_id: str) -> bool:
        peer = self._peer(session_id)
        return peer is not None and peer.send(self._message(message, is_binary))

    def _close_peer(self, session_id: str, code: int, reason: str) -> None:
        peer = self._peer(session_id)
        if peer is not None:
            peer.close(code, reason)

    def _is_peer_open(self, session_id: str) -> bool:
        peer = self._peer(session_id)
        return peer is not None and peer.is_open()

    def _console(self, level: int, described: str, stack: str) -> None:
        """`stack` is the stack of the call. After an `await`, the session that the code belongs to is unknown."""
        if not self._log.is_enabled_for(level):
            return
        state = self._current()
        context = {} if state is None else state.log_context
        tidy, modules = self._loader.tidy, self._loader.modules
        context.update(tidy(Failure((("", stack),))).fields(modules))
        line, below = tidy(Failure.read(described)).shown()
        self._log.log(level, "%s", f"{line}\n{below}" if below else line, extra=context)
