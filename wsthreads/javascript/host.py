"""The functions by which a script acts on sessions and users, and writes to the console.

This module has the Python half of these functions. The other half is in JavaScript, in the runtime.

An engine's *host* is the program around the engine. The functions here are the host functions of wsthreads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wsthreads.errors import UsageError
from wsthreads.javascript.calls import Function
from wsthreads.javascript.host_rooms import HostRooms
from wsthreads.javascript.session_state import SessionState, SessionStates
from wsthreads.javascript.stacks import Failure
from wsthreads.javascript.values import message_from, sessions_in_json
from wsthreads.rooms.handles import Peer, User

if TYPE_CHECKING:
    from wsthreads.javascript.engine import Engine
    from wsthreads.javascript.loader import ModuleLoader
    from wsthreads.javascript.requests import ScriptRequests
    from wsthreads.javascript.room_calls import Posts
    from wsthreads.loggers import ContainedLogger
    from wsthreads.rooms.rooms import Rooms
    from wsthreads.sessions.session import Session

__all__ = ["HostFunctions"]


class HostFunctions:
    """Functions for JavaScript. They are called in the isolate's thread, and take effect at once.

    Over Redis, functions that ask other processes (is_online, sessions_of, is_peer_open) wait at most about a second
    for Redis. The other functions do not wait.

    `states` has the sessions of the isolate. A session that is not in `states` has ended: it receives nothing and joins
    no room. `rooms` are those of the endpoint. `is_busy` tells whether events wait for the isolate. `current` returns
    the session whose call runs. `loader` knows the script's files. `posts` collects the outcomes of posts for the
    script. `requests` has the requests of the script and of its clients.
    """

    def __init__(
        self,
        states: SessionStates,
        is_busy: Callable[[], bool],
        current: Callable[[], SessionState | None],
        log: ContainedLogger,
        loader: ModuleLoader,
        posts: Posts,
        requests: ScriptRequests,
        rooms: Rooms[Any] | None = None,
        mask: Callable[[str], str] = str,
    ) -> None:
        self._mask = mask
        self._states = states
        self.is_busy = is_busy
        self._current = current
        self._log = log
        self._loader = loader
        self._rooms_of_all = rooms
        self._host_rooms = HostRooms(self, posts, rooms)
        self._requests = requests
        self.engine: Engine | None = None

    def functions(self) -> dict[str, Function]:
        return {
            "send": self._send,
            "close": self._close,
            "set_expiry": self._set_expiry,
            "is_open": self._is_open,
            "is_connected": self._is_connected,
            "rooms": self._rooms,
            "send_to_user": self._send_to_user,
            "close_user": self._close_user,
            "is_online": self._is_online,
            "sessions_of": self._sessions_of,
            "send_to_peer": self._send_to_peer,
            "close_peer": self._close_peer,
            "is_peer_open": self._is_peer_open,
            "console": self._console,
            **self._host_rooms.functions(),
            **self._requests.functions(self),
        }

    # These methods are also used by the functions of rooms

    def message(self, text: str | None, is_binary: bool) -> str | bytes:
        return message_from(self.engine, text, is_binary)

    def state(self, session_id: str) -> SessionState | None:
        """The isolate's data of a session. None if the session has ended."""
        return self._states.find(session_id)

    def session(self, session_id: str) -> Session | None:
        """A session of the isolate that has not ended, or None."""
        state = self._states.find(session_id)
        return None if state is None else state.session

    def _send(self, message: str | None, is_binary: bool, session_id: str, latest: str | None = None) -> bool:
        state = self._states.find(session_id)
        if state is None or (session := state.session) is None:
            return False
        text = self.message(message, is_binary) if is_binary or message is None else message
        return session.send(text) if latest is None else session.send(text, latest=latest)

    def _close(self, session_id: str, code: int, reason: str) -> None:
        state = self._states.find(session_id)
        if state is not None:
            state.close(code, reason)

    def _set_expiry(self, session_id: str, unix_s: float) -> None:
        session = self.session(session_id)
        if session is not None:
            session.set_expiry(unix_s)

    def _is_open(self, session_id: str) -> bool:
        session = self.session(session_id)
        return session is not None and session.is_open()

    def _is_connected(self, session_id: str) -> bool:
        session = self.session(session_id)
        return session is not None and session.is_connected()

    def _rooms(self, session_id: str) -> tuple[str, ...]:
        session = self.session(session_id)
        return () if session is None else tuple(session.rooms())

    def handle(self, kind: str, *parts: Any) -> Any:
        """Returns the Python object for a session, a room or a user that a script passes to a Python function.

        Raises `UsageError`.
        """
        makers: dict[str, Callable[..., Any]] = {
            "session": self.session,
            "room": self._host_rooms.any_room,
            "user": self._user,
            "peer": self._peer,
        }
        found = makers[kind](*parts)
        if found is None:
            raise UsageError(f"the {kind} {parts[-1]!r:.80} cannot be passed to Python: the session has ended")
        return found

    # Users, and sessions of any process. Without an endpoint, there are none.

    def _user(self, name: str) -> User | None:
        return None if self._rooms_of_all is None else User(name, self._rooms_of_all.directory)

    def _peer(self, session_id: str) -> Peer | None:
        return None if self._rooms_of_all is None else Peer(session_id, self._rooms_of_all.directory)

    def _send_to_user(self, message: str | None, is_binary: bool, name: str, latest: str | None = None) -> None:
        user = self._user(name)
        if user is not None:
            user.send(self.message(message, is_binary), hand_over=self.is_busy(), latest=latest)

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

    def _send_to_peer(self, message: str | None, is_binary: bool, session_id: str, latest: str | None = None) -> bool:
        peer = self._peer(session_id)
        return peer is not None and peer.send(self.message(message, is_binary), latest=latest)

    def _close_peer(self, session_id: str, code: int, reason: str) -> None:
        peer = self._peer(session_id)
        if peer is not None:
            peer.close(code, reason)

    def _is_peer_open(self, session_id: str) -> bool:
        peer = self._peer(session_id)
        return peer is not None and peer.is_open()

    def _console(
        self, level: int, described: str, stack: str, indentation: str = "", before: str | None = None
    ) -> None:
        """Log a line of the console.

        `stack` is the stack of the call. `before` is the text of the line before its first error. `indentation` is
        added to each line, but only after the masking, because the mask looks for texts of several lines.

        After an `await`, it is not known to which session the code belongs.
        """
        if not self._log.is_enabled_for(level):
            return
        state = self._current()
        context = {} if state is None else state.log_context
        tidy, modules = self._loader.tidy, self._loader.modules
        context.update(tidy(Failure((("", stack),))).fields(modules))
        line, below = tidy(Failure.read(described), before).shown()
        if indentation:
            line = indentation + self._mask(line).replace("\n  | ", f"\n  | {indentation}")
        self._log.log(level, "%s", f"{line}\n{below}" if below else line, extra=context)
