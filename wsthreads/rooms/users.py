"""Handles on a user and on one session, which need no session of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsthreads.errors import CloseCode, UsageError
from wsthreads.protocol.frames import check_close, message_frame
from wsthreads.protocol.handshake import check_user
from wsthreads.rooms.bans import check_ban

if TYPE_CHECKING:
    from wsthreads.rooms.directory import Directory, UserSession

__all__ = ["Peer", "User"]

#: More than any id has.
MAX_ID_CHARS = 256


class User:
    """A handle on a user: all sessions of an endpoint whose handshake has set this user, on all devices.

    You may keep it: it keeps nothing alive, and works whether the user is there or not. Any thread. Do not use it in
    finalizers, as no `Room`.
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

    def send(self, message: str | bytes, *, hand_over: bool = False) -> None:
        """Send to all sessions of the user. Does nothing if the user has none.

        Messages and broadcasts of one thread arrive in the order of its calls. With `hand_over`, another thread does
        the sending. Raises `MessageTypeError`; over Redis, `BrokerError`.
        """
        self._directory.send_to_user(self._name, message_frame(message), hand_over=hand_over)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "", *, ban_s: float = 0) -> None:
        """Close all sessions of the user. Does not block. Code and reason are as in `Session.close`.

        With `ban_s`, at most a year, new handshakes of the user are refused with 403 for so many seconds. A client that
        connects at the same time is closed, too, and no function of the handler is called for it. A later ban replaces
        an earlier one; without `ban_s`, an earlier one stays.

        Raises `CloseCodeError`, and `UserError` for an invalid time; then nothing has happened. Over Redis, it raises
        `BrokerError` if the other processes cannot be told.
        """
        check_close(code, reason)
        check_ban(ban_s)
        self._directory.close_user(self._name, int(code), reason, ban_s)

    def is_online(self) -> bool:
        """Whether the user has an open session. One whose `on_close` runs does not count."""
        return self._directory.is_online(self._name)

    def sessions(self) -> list[UserSession]:
        """The user's open sessions, the oldest first. A snapshot."""
        return self._directory.sessions_of(self._name)

    def __repr__(self) -> str:
        return f"<User {self._name!r}>"


class Peer:
    """A handle on one session by its id, from anywhere.

    You may keep it: it keeps nothing alive, and does nothing once the session has ended. Any thread. Do not use it in
    finalizers, as no `Room`.
    """

    __slots__ = ("_directory", "_id")

    def __init__(self, session_id: str, directory: Directory) -> None:
        if not isinstance(session_id, str):
            raise UsageError(f"a session id is text, not {type(session_id).__name__}")
        if not 1 <= len(session_id) <= MAX_ID_CHARS:
            raise UsageError(f"a session id has 1 to {MAX_ID_CHARS} characters, this one has {len(session_id)}")
        self._id = session_id
        self._directory = directory

    @property
    def id(self) -> str:
        """The id of the session."""
        return self._id

    def send(self, message: str | bytes) -> bool:
        """Send to the session, as `Session.send`. Returns False if it is known that the session gets nothing.

        Over Redis, True can also mean that the message is on its way to another process. Raises `MessageTypeError`;
        over Redis, `BrokerError`.
        """
        return self._directory.send_to_session(self._id, message)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the session, as `Session.close`. Does nothing if it has ended. Over Redis, raises `BrokerError`."""
        check_close(code, reason)
        self._directory.close_session(self._id, int(code), reason)

    def is_open(self) -> bool:
        """Whether there is such a session, and it is open. Over Redis, this waits for a second at most."""
        return self._directory.is_session_open(self._id)

    def __repr__(self) -> str:
        return f"<Peer {self._id!r}>"
