"""The functions by which a script acts on rooms. This module is the Python half of ``rooms.js``."""

from __future__ import annotations

from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Protocol

from wsthreads.errors import PostError, WSThreadsError
from wsthreads.javascript.calls import Answer, Function
from wsthreads.javascript.session_state import quote
from wsthreads.javascript.values import messages_for_script, persons_in_json
from wsthreads.rooms.attributes import CLAIM_AFTER
from wsthreads.rooms.json_text import JSONText
from wsthreads.rooms.posts import Sender

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsthreads.javascript.engine import Engine
    from wsthreads.javascript.room_calls import Posts
    from wsthreads.rooms.handles import Room, SessionRoom
    from wsthreads.rooms.rooms import Rooms
    from wsthreads.sessions.session import Session

__all__ = ["HostRooms"]


class Host(Protocol):
    """The part of `HostFunctions` that `HostRooms` uses."""

    engine: Engine | None
    is_busy: Callable[[], bool]

    def message(self, text: str | None, is_binary: bool) -> str | bytes: ...

    def session(self, session_id: str) -> Session | None: ...


class HostRooms:
    """Functions for JavaScript. They are called in the isolate's thread, like those of `HostFunctions`.

    The first argument of most functions, `whose`, tells to whom a handle on a room belongs. It is the id of a session,
    or None for a handle without a session. For a handle that a function such as onPost has received, it is the fencing
    number of the room's ownership. Without an endpoint (`rooms` is None), all rooms are empty.

    Over Redis, functions that ask other processes wait at most about a second for Redis: members, presence, the first
    join to a room, and all functions for attributes and the history. `post` never waits.
    """

    def __init__(self, host: Host, posts: Posts, rooms: Rooms[Any] | None) -> None:
        self._host = host
        self._posts = posts
        self._rooms = rooms
        self._claim = token_hex(8)  # one claim is enough for all updates, because only one is made at a time

    def functions(self) -> dict[str, Function]:
        return {
            "join": self._join,
            "leave": self._leave,
            "set_presence": self._set_presence,
            "presence": self._presence,
            "broadcast": self._broadcast,
            "broadcast_except": self._broadcast_except,
            "members": self._members,
            "close_room": self._close_room,
            "history": self._history,
            "position": self._position,
            "set_attribute": self._set_attribute,
            "get_attribute": self._get_attribute,
            "attributes": self._attributes,
            "attribute_text": self._attribute_text,
            "swap_attribute": self._swap_attribute,
            "delete_attribute": self._delete_attribute,
            "post": self._post,
            "is_owner": self._is_owner,
        }

    def _room(self, session_id: str, name: str) -> SessionRoom | None:
        """The session's handle on a room. None if the session has ended."""
        session = self._host.session(session_id)
        return None if session is None else session.room(name)

    def any_room(self, whose: str | int | None, name: str) -> Room | None:
        """A handle on a room. None if there is no endpoint."""
        if isinstance(whose, str):
            room = self._room(whose, name)
            if room is not None:
                return room
        if self._rooms is None:
            return None
        return self._rooms.owned_room(name, whose) if isinstance(whose, int) else self._rooms.room(name)

    # If the session has ended, these three methods return False and have no other effect.

    def _join(
        self,
        session_id: str,
        name: str,
        presence: str | None = None,
        history: int | None = None,
        since: str | None = None,
        max_members: int | None = None,
    ) -> Answer:
        """Join a room.

        `presence` is JSON text. Returns whether the session has joined, and whether its history is complete.
        """
        room = self._room(session_id, name)
        if room is None:
            return False
        options: dict[str, Any] = {} if presence is None else {"presence": JSONText(presence)}
        joined = room.join(history=history, since=since, max_members=max_members, **options)
        return (joined.joined, joined.complete)

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

    def _broadcast(
        self,
        message: str | None,
        is_binary: bool,
        whose: str | int | None,
        name: str,
        keep: bool | None = None,
        latest: str | None = None,
    ) -> None:
        room = self.any_room(whose, name)
        if room is not None:
            text = self._host.message(message, is_binary)
            room.broadcast(text, hand_over=self._host.is_busy(), keep=keep is not False, latest=latest)

    def _broadcast_except(
        self,
        message: str | None,
        is_binary: bool,
        session_id: str,
        name: str,
        keep: bool | None = None,
        latest: str | None = None,
    ) -> None:
        room = self._room(session_id, name)
        if room is None:  # the session has ended, so the room does not have it
            self._broadcast(message, is_binary, session_id, name, keep, latest)
        else:
            text = self._host.message(message, is_binary)
            room.broadcast_except(text, hand_over=self._host.is_busy(), keep=keep is not False, latest=latest)

    def _members(self, whose: str | int | None, name: str) -> int:
        room = self.any_room(whose, name)
        return 0 if room is None else room.members()

    def _presence(self, whose: str | int | None, name: str) -> bytes:
        room = self.any_room(whose, name)
        return persons_in_json([] if room is None else room.presence())

    def _close_room(self, whose: str | int | None, name: str, code: int, reason: str) -> None:
        room = self.any_room(whose, name)
        if room is not None:
            room.close(code, reason)

    def _history(self, whose: str | int | None, name: str, count: int) -> bytes:
        room = self.any_room(whose, name)
        return messages_for_script(self._host.engine, [] if room is None else room.history(count))

    def _position(self, whose: str | int | None, name: str) -> str:
        room = self.any_room(whose, name)
        return "" if room is None else room.position()

    # Attributes are passed as JSON text.

    def _set_attribute(self, whose: str | int | None, name: str, key: str, text: str) -> None:
        room = self.any_room(whose, name)
        if room is not None:
            room.set_attribute(key, JSONText(text))

    def _get_attribute(self, whose: str | int | None, name: str, key: str) -> str | None:
        return None if self._rooms is None else self._rooms.attributes.get(name, key)

    def _attributes(self, whose: str | int | None, name: str) -> str:
        texts = {} if self._rooms is None else self._rooms.attributes.all(name)
        return f"{{{','.join(f'{quote(key)}:{text}' for key, text in texts.items())}}}"

    def _attribute_text(self, whose: str | int | None, name: str, key: str) -> str | None:
        room = self.any_room(whose, name)
        return None if room is None else room._attribute_text(key)

    def _swap_attribute(
        self, whose: str | int | None, name: str, key: str, before: str | None, after: str, attempt: int
    ) -> tuple[bool, str | None]:
        """Make one attempt of an update. Attempts are numbered from 1."""
        room = self.any_room(whose, name)
        claim = self._claim if attempt > CLAIM_AFTER else ""
        return (True, after) if room is None else room._swap_attribute(key, before, JSONText(after), claim)

    def _delete_attribute(self, whose: str | int | None, name: str, key: str) -> bool:
        room = self.any_room(whose, name)
        return room is not None and room.delete_attribute(key)

    # Posts and ownership.

    def _post(self, whose: str | int | None, name: str, text: str, number: int) -> None:
        """Post a value, which is JSON text. The script gets the outcome under `number`.

        With a handle that a function for rooms (such as onPost) has received, the script learns only whether the value
        is queued. It cannot wait for more, because a post to the same room is handled after that function has ended.
        """
        settled = partial(self._posts.settle, number)
        if self._rooms is None:
            settled(PostError("nobody is in the room: there is no endpoint"))
            return
        if isinstance(whose, int):
            refusal = None
            try:
                self._rooms.ownership.post_value(name, JSONText(text), None, wait=False)
            except WSThreadsError as error:
                refusal = error
            settled(refusal)
            return
        session = self._host.session(whose) if isinstance(whose, str) else None
        sender = None if session is None else Sender(session.id, session.user)
        ownership = self._rooms.ownership
        ownership.post(name, ownership.post_text(JSONText(text)), sender, settled)

    def _is_owner(self, fencing_number: int, name: str) -> bool:
        return self._rooms is not None and self._rooms.owned_room(name, fencing_number).is_owner()
