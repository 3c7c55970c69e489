"""Handles for programs without a server: a room, a user or one session of an endpoint, over Redis.

Each call runs in the thread of its caller, and returns when Redis has answered. `RedisBroker` makes the handles.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from wsthreads.brokers import messages, scripts
from wsthreads.brokers.attributes import StoredAttributes
from wsthreads.brokers.directory import is_session_id, sessions_in
from wsthreads.brokers.history import StoredHistory
from wsthreads.brokers.moving_sessions import away_sessions, ids_away, is_away
from wsthreads.brokers.outside import MAX_POST_S, Outside
from wsthreads.brokers.posts import post_payload
from wsthreads.brokers.presence import entry_of
from wsthreads.brokers.questions import note_for_all
from wsthreads.brokers.stored_history import UNKNOWN_LIMITS, limits_text
from wsthreads.config import Config
from wsthreads.errors import BrokerError, CloseCode, ConfigError, PostError, RoomNameError, UsageError
from wsthreads.protocol.frames import check_close, message_frame
from wsthreads.protocol.handshake import check_user
from wsthreads.rooms.attribute_methods import AttributeMethods
from wsthreads.rooms.bans import check_ban
from wsthreads.rooms.directory import UserSession
from wsthreads.rooms.history import Limits, is_kept, payload_bytes
from wsthreads.rooms.json_text import json_text
from wsthreads.rooms.names import SESSIONS_ROOM, is_hidden, user_room
from wsthreads.rooms.presence import Person, persons_of

if TYPE_CHECKING:
    pass

__all__ = ["RemotePeer", "RemoteRoom", "RemoteUser"]


class _Remote:
    """The base class of the handles. Any thread."""

    __slots__ = ("_endpoint", "_outside")

    def __init__(self, outside: Callable[[], Outside], endpoint: str) -> None:
        if not isinstance(endpoint, str) or not endpoint.startswith("/"):
            raise ConfigError(f"the path of an endpoint begins with a slash, as in /ws/chat; not {endpoint!r:.80}")
        self._outside = outside
        self._endpoint = endpoint

    def _close(self, name: str, code: int, reason: str, *, ban_s: float = 0.0, session_id: str | None = None) -> None:
        check_close(code, reason)
        outside = self._outside()
        address = outside.keys.address(self._endpoint, name)
        if ban_s >= 0.001:  # set the ban before the sessions are closed, so that no new session can open in between
            outside.call(scripts.BAN, [address.ban], json.dumps([int(code), reason]), int(ban_s * 1000))
        try:
            outside.publish(
                address,
                lambda sender, ticket: messages.encode_close(sender, ticket, session_id, int(code), reason, ban_s),
            )
        except BrokerError as error:
            error.is_unknown = error.is_unknown or ban_s >= 0.001  # the ban may be set although the sessions stay open
            raise


class RemoteRoom(_Remote, AttributeMethods):
    """A handle on a room, for a program without a server. Any thread."""

    __slots__ = ("_history_limits", "_limits", "_name", "_stored")

    def __init__(
        self,
        outside: Callable[[], Outside],
        endpoint: str,
        name: str,
        limits: Config,
        *,
        knows_history: bool = False,
    ) -> None:
        super().__init__(outside, endpoint)
        kept = Limits(limits.history_messages, limits.history_s, limits.max_history_bytes)
        self._history_limits = (limits_text(kept) if kept.messages else "") if knows_history else UNKNOWN_LIMITS
        self._limits = {"max_bytes": limits.max_room_bytes, "keep_s": limits.room_keep_s}
        self._stored = (os.getpid(), StoredAttributes(self._call, **self._limits))
        if not isinstance(name, str) or not name or is_hidden(name):
            raise RoomNameError(f"a room name must be text, not empty, and not begin with NUL; not {name!r:.80}")
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def broadcast(self, message: str | bytes, *, keep: bool = True, latest: str | None = None) -> None:
        """Send to all members.

        When this returns, Redis has the message. `keep` and `latest` are as in `Room.broadcast`.

        Threads take turns to broadcast. Raises `MessageTypeError`. Raises `BrokerError` if Redis did not confirm within
        the URL's ``socket_timeout``. Redis may have the message nevertheless.
        """
        frame, outside = message_frame(message, latest=latest, keep=keep), self._outside()
        address = outside.keys.address(self._endpoint, self._name)
        kept = (self._history_limits, payload_bytes(frame)) if self._history_limits and is_kept(frame) else None
        outside.publish(address, lambda sender, ticket: messages.encode_broadcast(sender, ticket, None, frame), kept)

    def history(self, count: int) -> list[str | bytes]:
        """The last messages of the room, like `Room.history`. Raises `HistoryError` and `BrokerError`."""
        return self._history.newest(count)

    def position(self) -> str:
        """The end of the history, like `Room.position`. Raises `HistoryError` and `BrokerError`."""
        return self._history.position()

    @property
    def _history(self) -> StoredHistory:
        keys = ["log", "head", "history", "settings"]
        return StoredHistory(
            lambda script, *arguments: self._call(self._name, script, keys, *arguments), self._history_limits
        )

    def post(self, value: Any, *, timeout_s: float = 10.0) -> None:
        """Call ``on_post`` with a JSON value, in the process that owns the room, like `Room.post`.

        Waits until ``on_post`` has returned, at most `timeout_s`. Raises `PostError`. Raises `BrokerError` if Redis is
        unavailable. If the error's `is_unknown` is true, the value may have been handled, or may be handled later.
        """
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or not 0 < timeout_s <= MAX_POST_S:
            raise UsageError(f"timeout_s must be above 0 and at most {MAX_POST_S} s, not {timeout_s!r:.80}")
        limit = Config().max_post_bytes
        text = json_text(value, what="a posted value", max_bytes=limit, setting="max_post_bytes", error=PostError)
        outside = self._outside()
        address = outside.keys.address(self._endpoint, self._name)
        outside.post(address, self._name, post_payload(None, text), timeout_s)

    def members(self) -> int:
        """The number of members, in all processes. Raises `BrokerError`."""
        outside = self._outside()
        return outside.members(outside.keys.address(self._endpoint, self._name))

    @property
    def _attributes(self) -> StoredAttributes:
        made_in, stored = self._stored
        if made_in != os.getpid():  # after a fork, a thread of the parent may hold the locks of the parent's object
            stored = StoredAttributes(self._call, **self._limits)
            self._stored = (os.getpid(), stored)
        return stored

    def _call(self, name: str, script: str, keys: Sequence[str], *arguments: object) -> Any:
        outside = self._outside()
        address = outside.keys.address(self._endpoint, name)
        return outside.call(script, [getattr(address, key) for key in keys], *arguments)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close all members, like `Room.close`. Raises `CloseCodeError` and `BrokerError`."""
        self._close(self._name, code, reason)

    def presence(self) -> list[Person]:
        """The persons in the room, like `Room.presence`. Raises `BrokerError`."""
        outside = self._outside()
        address = outside.keys.address(self._endpoint, self._name)
        keys = [address.presence, outside.keys.processes(address.shard)]
        now_ms, stored = outside.call(scripts.PERSONS, keys)
        present, _ = messages.parse_presences(int(now_ms), stored)
        return persons_of(entry_of(change, change.value, 0.0) for change in present if change.value is not None)

    def __repr__(self) -> str:
        return f"<RemoteRoom {self._name!r} of {self._endpoint}>"


class RemoteUser(_Remote):
    """A handle on a user, for a program without a server. Any thread."""

    __slots__ = ("_name",)

    def __init__(self, outside: Callable[[], Outside], endpoint: str, name: str) -> None:
        super().__init__(outside, endpoint)
        check_user(name)
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def send(self, message: str | bytes, *, latest: str | None = None) -> None:
        """Send to all sessions of the user. `latest` is as in `User.send`. Raises like `RemoteRoom.broadcast`."""
        frame, outside = message_frame(message, latest=latest), self._outside()
        address = outside.keys.address(self._endpoint, user_room(self._name))
        outside.publish(address, lambda sender, ticket: messages.encode_broadcast(sender, ticket, None, frame))

    def close(self, code: int = CloseCode.NORMAL, reason: str = "", *, ban_s: float = 0) -> None:
        """Close all sessions of the user, like `User.close`. Raises `CloseCodeError`, `UserError` and `BrokerError`."""
        check_close(code, reason)
        check_ban(ban_s)
        self._close(user_room(self._name), code, reason, ban_s=ban_s)
        outside = self._outside()
        key, channel = outside.keys.ask()
        outside.call(scripts.WAKE, [key], channel, note_for_all(outside.sender, f"forget {self._endpoint}", self._name))

    def is_online(self) -> bool:
        """Whether the user has an open session.

        Waits up to a second for the processes' answers. Raises `BrokerError`.
        """
        return bool(self._ask(is_one_enough=True))

    def sessions(self) -> list[UserSession]:
        """The open sessions of the user, the oldest first.

        Waits a second for the processes' answers. Raises `BrokerError`.
        """
        return sorted(self._ask(is_one_enough=False), key=lambda session: (session.since, session.id))

    def _ask(self, *, is_one_enough: bool) -> list[UserSession]:
        outside, user = self._outside(), self._name
        address = outside.keys.address(self._endpoint, user_room(user))
        if not outside.members(address):
            return []

        def call(script: str) -> Any:
            return outside.call(script, [address.members, outside.keys.processes(address.shard)])

        def call_for(session_id: str) -> Callable[..., Any]:
            return lambda script: outside.call(script, [*outside.keys.session(self._endpoint, session_id)])

        away = ids_away(call)
        answers = outside.ask(f"user {self._endpoint}", user, is_one_enough=is_one_enough)
        found = [session for answer in answers for session in sessions_in(answer)]
        return found + away_sessions(call_for, (away | ids_away(call)) - {session.id for session in found}, user)

    def __repr__(self) -> str:
        return f"<RemoteUser {self._name!r} of {self._endpoint}>"


class RemotePeer(_Remote):
    """A handle on one session, for a program without a server. Any thread."""

    __slots__ = ("_id",)

    def __init__(self, outside: Callable[[], Outside], endpoint: str, session_id: str) -> None:
        super().__init__(outside, endpoint)
        if not isinstance(session_id, str) or not is_session_id(session_id):
            raise UsageError(f"a session id is 1 to 40 letters, digits, _ and -; not {session_id!r:.80}")
        self._id = session_id

    @property
    def id(self) -> str:
        return self._id

    def send(self, message: str | bytes, *, latest: str | None = None) -> None:
        """Send to the session, if it exists. `latest` is as in `Session.send`. Raises like `RemoteRoom.broadcast`."""
        frame, outside = message_frame(message, latest=latest), self._outside()
        address = outside.keys.address(self._endpoint, SESSIONS_ROOM)
        outside.publish(address, lambda sender, ticket: messages.encode_direct(sender, ticket, self._id, frame))

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the session, if it exists. Raises `CloseCodeError` and `BrokerError`."""
        self._close(SESSIONS_ROOM, code, reason, session_id=self._id)

    def is_open(self) -> bool:
        """Whether the session exists and is open.

        Waits up to a second for the processes' answers. Raises `BrokerError`.
        """
        outside, keys = self._outside(), [*self._outside().keys.session(self._endpoint, self._id)]

        def call(script: str, *arguments: object) -> Any:
            return outside.call(script, keys, *arguments)

        if is_away(call, self._id):
            return True
        answers = outside.ask(f"session {self._endpoint}", self._id, is_one_enough=True)
        return any(answer["value"] is True for answer in answers) or is_away(call, self._id)

    def __repr__(self) -> str:
        return f"<RemotePeer {self._id!r} of {self._endpoint}>"
