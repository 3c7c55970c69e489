"""Handles on rooms, users and single sessions.

Handles only call `Rooms` and `Directory`. They keep no room and no session in memory.

Handlers, scripts and applications use handles, so the docstrings of handles are their reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from wsthreads.errors import CloseCode, PresenceError, UsageError
from wsthreads.protocol.frames import check_close, message_frame
from wsthreads.protocol.handshake import check_user
from wsthreads.rooms.attribute_methods import AttributeMethods
from wsthreads.rooms.bans import check_ban
from wsthreads.rooms.joined import Joined, check_max_members
from wsthreads.rooms.posts import Sender

if TYPE_CHECKING:
    from wsthreads.rooms.attributes import Attributes
    from wsthreads.rooms.directory import Directory, UserSession
    from wsthreads.rooms.presence import Person

__all__ = ["MAX_ID_CHARS", "Peer", "Room", "SessionRoom", "User"]

#: The default of `presence`, which means that no value is set. Any other value can be set, even None.
_UNSET: Any = object()

#: Longer than any session id.
MAX_ID_CHARS = 256


class Owners(Protocol):
    """The part of `Ownership` that handles use."""

    def post_value(
        self, name: str, value: Any, sender: Sender | None, *, wait: bool, timeout_s: float | None = None
    ) -> None:
        """Let the room's owner handle a value. Raises `PostError`."""

    def is_owner(self, name: str, fence: int) -> bool:
        """Whether this process owns a room, with this fencing number."""


class AllRooms(Protocol):
    """The part of `Rooms` that handles use. Here, a member is a session."""

    @property
    def attributes(self) -> Attributes:
        """The attributes of the rooms."""

    @property
    def directory(self) -> Directory:
        """The directory, which closes rooms."""

    @property
    def ownership(self) -> Owners:
        """The ownership, which passes posts to the rooms' owners."""

    @property
    def owner(self) -> Callable[[], Any]:
        """A function that returns the endpoint, or None if the endpoint no longer exists."""

    def broadcast(self, name: str, frame: bytes, exclude: Any = None, *, hand_over: bool = False) -> None:
        """Send a frame to all members but `exclude`."""

    def count(self, name: str) -> int:
        """The number of members."""

    def join(
        self,
        name: str,
        session: Any,
        *,
        history: int | None = None,
        since: str | None = None,
        max_members: int | None = None,
    ) -> Joined:
        """Make a session a member of a room."""

    def leave(self, name: str, session: Any) -> None:
        """End the membership of a session in a room."""

    def newest(self, name: str, count: int) -> list[str | bytes]:
        """The last messages of a room, oldest first."""

    def position(self, name: str) -> str:
        """The position at the end of the history of a room."""

    def presence_text(self, value: Any) -> str:
        """Encode a presence value as JSON text. Raises `PresenceError`."""

    def set_presence(self, name: str, session: Any, value: str) -> bool:
        """Set the presence of a member, as JSON text. Returns False if the session is not a member."""

    def persons(self, name: str, reader: str | None = None) -> list[Person]:
        """The persons in the room, in order of arrival. `reader` is the id of the session that asks."""


class Room(AttributeMethods):
    """A handle on a room. You may keep a handle: it does not keep the room in existence. Any thread.

    Do not use handles in finalizers: a ``__del__`` may run during a broadcast, and would wait for its own thread.
    """

    __slots__ = ("_name", "_rooms")

    def __init__(self, name: str, rooms: AllRooms) -> None:
        self._name = name
        self._rooms = rooms

    @property
    def name(self) -> str:
        """The name of the room."""
        return self._name

    @property
    def endpoint(self) -> Any:
        """The `Endpoint` of the room. For example, ``room.endpoint.session(sender.id).send(…)`` answers a post.

        Raises `UsageError` if the app does not exist any more.
        """
        endpoint = self._rooms.owner()
        if endpoint is None:
            raise UsageError("the app of this room does not exist any more: keep a reference to it")
        return endpoint

    def broadcast(
        self, message: str | bytes, *, hand_over: bool = False, keep: bool = True, latest: str | None = None
    ) -> None:
        """Send to all members, including the sender if it is a member.

        Raises `MessageTypeError`. Over Redis, also raises `BrokerError`.

        With `hand_over`, another thread sends. Use this if the caller has more to do, such as more broadcasts. With
        ``keep=False``, the room's history does not store the message.

        With `latest`, a key of 1 to 256 characters, the message replaces a message with the same key that still waits
        for a slow client. The new message is sent last, after all other messages that wait. A client that keeps up
        receives every message. Each room has its own keys.
        """
        self._rooms.broadcast(self._name, message_frame(message, latest=latest, keep=keep), hand_over=hand_over)

    def members(self) -> int:
        """The number of members. Over Redis, the number in all processes."""
        return self._rooms.count(self._name)

    def history(self, count: int) -> list[str | bytes]:
        """The last messages of the room, oldest first: text as str, bytes as bytes. At most `count`.

        Includes only messages that the settings keep: `history_messages`, `history_s`, `max_history_bytes`. Messages
        that were sent with ``keep=False`` are not among them. Over Redis, a process without members in the room waits
        at most a second for Redis.

        Raises `HistoryError` if history is off, or for anything but a whole number from 0 to `history_messages`. Over
        Redis, raises `BrokerError` if Redis does not answer.
        """
        return self._rooms.newest(self._name, count)

    def position(self) -> str:
        """The current end of the room's history, for ``join(since=…)``.

        The position is a text without white space, which clients can keep.

        All messages up to the position are already queued for the members in this process. So a client that receives
        the position, and later joins with it, misses nothing. But it receives a message twice if the message was queued
        between this call and the sending of the position. Over Redis, the call waits at most a second, until all
        broadcasts of this process to the room are in the history. Raises `HistoryError` if history is off. Over Redis,
        also raises `BrokerError`.
        """
        return self._rooms.position(self._name)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close all members of the room; over Redis, in all processes. Does not block.

        Code and reason are as in `Session.close`. A session that joins meanwhile may stay. Raises `CloseCodeError`.
        Over Redis, also raises `BrokerError`.
        """
        check_close(code, reason)
        self._rooms.directory.close_room(self._name, int(code), reason)

    def presence(self) -> list[Person]:
        """The persons in the room, in order of arrival; over Redis, in all processes.

        Over Redis, a process without members in the room waits at most a second for Redis.

        A person is a user with all of the user's sessions in the room, or one session without a user. Sessions that
        have not set a presence value are left out.
        """
        return self._rooms.persons(self._name)

    def post(self, value: Any, *, wait: bool = True) -> None:
        """Call `on_post` with a JSON value, in the process that owns the room.

        Waits at most `post_timeout_s` until `on_post` has returned or raised. With ``wait=False``, returns as soon as
        the value is queued for `on_post`. Calls in `on_tick`, `on_post`, `on_room_start` and `on_room_end` never wait
        longer than this. The posts of one thread are handled in the order of its calls, each once.

        Raises `PostError` if the value was not handled: the room has no members, `on_post` is missing, too many posts
        wait, or the value is not JSON or has more than `max_post_bytes`. If the error's `is_unknown` is true, the value
        may have been handled, or may be handled later. Over Redis, also raises `BrokerError`.
        """
        self._rooms.ownership.post_value(self._name, value, self._sender(), wait=wait)

    def _sender(self) -> Sender | None:
        return None

    @property
    def _attributes(self) -> Attributes:
        return self._rooms.attributes

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}>"


class SessionRoom(Room):
    """A session's handle on a room."""

    __slots__ = ("_session",)

    def __init__(self, name: str, rooms: AllRooms, session: Any) -> None:
        super().__init__(name, rooms)
        self._session = session

    def join(
        self,
        *,
        presence: Any = _UNSET,
        history: int | None = None,
        since: str | None = None,
        max_members: int | None = None,
    ) -> Joined:
        """Join the room. Does nothing if the session is a member already, or has ended. Raises `RoomLimitError`.

        With `presence`, also calls `set_presence`. If the value is not valid, the session does not join.

        With `history`, a number, the session first gets the last messages of the room, at most that number. With
        `since`, a text from `position`, the session first gets all messages after that position. After these, it gets
        all later broadcasts. No message is missing in between, and none is sent twice. A session that was already a
        member gets no old messages. The old messages do not include those that the session itself has sent by
        `broadcast_except`.

        `complete` of the result tells whether the history reaches back to `since`. If it does not, messages are
        missing, and the session gets the last `history` messages. An invalid position counts as one that the history
        does not reach.

        Raises `HistoryError` if history is off, or for anything but a whole number from 0 to `history_messages`. Over
        Redis, raises `BrokerError` if the history is not available within a second. In this case, the session has not
        joined.

        With `max_members`, the session joins only if the room has fewer members, over Redis in all processes.
        Otherwise, `joined` of the result is False. Use `max_members` in all joins of the room, because a join without
        it is not limited. Over Redis, a join with `max_members` waits at most a second for Redis. It raises
        `BrokerError` while Redis is unavailable, and for 4 seconds after Redis has lost its data. The members of a
        killed process count for at most 7 more seconds. Raises `RoomStateError` for anything but a whole number from 1
        to 1,000,000.
        """
        if max_members is not None:
            check_max_members(max_members)
        rooms, name, session = self._rooms, self._name, self._session
        value = None if presence is _UNSET else rooms.presence_text(presence)
        joined = rooms.join(name, session, history=history, since=since, max_members=max_members)
        if value is not None and joined.joined:
            rooms.set_presence(name, session, value)
        return joined

    def set_presence(self, value: Any) -> None:
        """Set the presence value of this session, which the room's members see. Any JSON value is allowed, even None.

        Does nothing if the session has ended. Raises `PresenceError` if the session is not a member of the room, or if
        the value is not JSON or has more than `max_presence_bytes` as JSON.
        """
        rooms, name = self._rooms, self._name
        if not rooms.set_presence(name, self._session, rooms.presence_text(value)):
            raise PresenceError(f"only a member can set its presence in a room: join {name!r:.80} first")

    def presence(self) -> list[Person]:
        """The persons in the room, as for `Room.presence`."""
        return self._rooms.persons(self._name, self._session.id)

    def _sender(self) -> Sender | None:
        return Sender(self._session.id, self._session.user)

    def leave(self) -> None:
        """Leave the room. Does nothing if the session is not a member."""
        self._rooms.leave(self._name, self._session)

    def broadcast_except(
        self, message: str | bytes, *, hand_over: bool = False, keep: bool = True, latest: str | None = None
    ) -> None:
        """Send to all members but this session. The options are those of `broadcast`. Raises `MessageTypeError`."""
        frame = message_frame(message, latest=latest, keep=keep)
        self._rooms.broadcast(self._name, frame, self._session, hand_over=hand_over)


class User:
    """A handle on a user: all sessions of an endpoint whose handshake has set this user, on all the user's devices.

    You may keep a handle, whether the user is online or not. Any thread, but not in finalizers, for the same reason as
    `Room`.
    """

    __slots__ = ("_directory", "_name")

    def __init__(self, name: str, directory: Directory) -> None:
        check_user(name)
        self._name = name
        self._directory = directory

    @property
    def name(self) -> str:
        """The name of the user."""
        return self._name

    def send(self, message: str | bytes, *, hand_over: bool = False, latest: str | None = None) -> None:
        """Send to all sessions of the user. Does nothing if the user has no session.

        Messages and broadcasts of one thread arrive in the order of its calls. With `hand_over`, another thread sends.
        `latest` is as in `Room.broadcast`, but each user has separate keys. Raises `MessageTypeError`. Over Redis, also
        raises `BrokerError`.
        """
        self._directory.send_to_user(self._name, message_frame(message, latest=latest), hand_over=hand_over)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "", *, ban_s: float = 0) -> None:
        """Close all sessions of the user. Does not block. Code and reason are as in `Session.close`.

        With `ban_s`, new handshakes of the user are refused with 403 for that many seconds, at most a year. A client
        that connects at the same time is closed, too, and no function of the handler is called for its session. An
        earlier ban that lasts longer stays.

        Raises `CloseCodeError`, and `UserError` for an invalid `ban_s`. In both cases, nothing is closed or banned.
        Over Redis, raises `BrokerError` if Redis does not reach the other processes.
        """
        check_close(code, reason)
        check_ban(ban_s)
        self._directory.close_user(self._name, int(code), reason, ban_s)

    def is_online(self) -> bool:
        """Whether the user has an open session. A session whose `on_close` runs does not count."""
        return self._directory.is_online(self._name)

    def sessions(self) -> list[UserSession]:
        """The user's open sessions, the oldest first. A snapshot."""
        return self._directory.sessions_of(self._name)

    def __repr__(self) -> str:
        return f"<User {self._name!r}>"


class Peer:
    """A handle on one session, by its id. Over Redis, another process may hold the session.

    You may keep a handle. The handle does nothing once the session has ended. Any thread, but not in finalizers, for
    the same reason as `Room`.
    """

    __slots__ = ("_directory", "_id")

    def __init__(self, session_id: str, directory: Directory) -> None:
        if not isinstance(session_id, str):
            raise UsageError(f"a session id must be text, not {type(session_id).__name__}")
        if not 1 <= len(session_id) <= MAX_ID_CHARS:
            raise UsageError(f"a session id has 1 to {MAX_ID_CHARS} characters, this one has {len(session_id)}")
        self._id = session_id
        self._directory = directory

    @property
    def id(self) -> str:
        """The id of the session."""
        return self._id

    def send(self, message: str | bytes, *, latest: str | None = None) -> bool:
        """Send to the session, like `Session.send`. Returns False if the session surely does not get the message.

        Over Redis, True can also mean that the message is on its way to another process. Raises `MessageTypeError`.
        Over Redis, also raises `BrokerError`.
        """
        return self._directory.send_to_session(self._id, message, latest)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the session, like `Session.close`.

        Does nothing if the session has ended. Over Redis, may raise `BrokerError`.
        """
        check_close(code, reason)
        self._directory.close_session(self._id, int(code), reason)

    def is_open(self) -> bool:
        """Whether a session with this id exists and is open. Over Redis, this may wait for a second."""
        return self._directory.is_session_open(self._id)

    def __repr__(self) -> str:
        return f"<Peer {self._id!r}>"
