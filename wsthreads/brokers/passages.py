"""Takes a session out of its rooms in this process, or makes a session that has moved here a member of its rooms.

A *passage* is the step of a session out of the rooms of one process and into those of another.

The new process continues exactly after the last message that the session has received in each room. `cut` returns these
positions, and `enter` reads all later messages from the logs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING

from wsthreads.brokers.missed_messages import Gap, Replay, read_missed, replay_for
from wsthreads.brokers.session_state import PresenceState
from wsthreads.errors import BrokerError
from wsthreads.rooms.names import SESSIONS_ROOM, is_hidden
from wsthreads.rooms.presence import Entry
from wsthreads.rooms.rooms import Rooms

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Link, RoomKey
    from wsthreads.brokers.positions import Position
    from wsthreads.brokers.rooms import SharedRooms, SharedSession

__all__ = ["Passages"]

#: The pause in seconds before a call to Redis is repeated.
RETRY_S = 0.05


class Passages:
    """Passages for the rooms of one endpoint. Any thread except the reader's."""

    def __init__(self, rooms: SharedRooms, link: Link) -> None:
        self._rooms = rooms
        self._link = link

    def cut(self, session: SharedSession, copy: Callable[[], None], timeout_s: float) -> dict[str, Position]:
        """The positions of a session in the logs of its rooms, and in the log for single sessions.

        Calls `copy` at the moment of these positions, to copy the frames that the client has yet to get. Changes
        nothing. Raises `BrokerError` if this takes longer than `timeout_s`, because Redis is unavailable or frames are
        held.

        From this call until `stay` or `forget`, messages to this session go through Redis. So each message is either in
        the copy or in the log.
        """
        session._is_leaving = True
        while True:
            joined = session._joined
            names = [*joined, SESSIONS_ROOM]
            found: dict[str, Position] = {}

            def look(
                positions: Mapping[RoomKey, Position],
                joined: frozenset[str] = joined,
                found: dict[str, Position] = found,
            ) -> bool:
                if session._joined == joined:
                    if not session._held_frames.is_empty:
                        return False  # held frames wait for a broadcast that will soon come back
                    copy()
                    found.update({name: position for (_, name), position in positions.items()})
                return True

            keys = [(self._rooms.path, name) for name in names]
            self._refresh(keys, timeout_s)  # makes sure that the positions are of the current logs
            if not self._link.checkpoint(keys, look, timeout_s):
                raise BrokerError("Redis does not answer")
            if found:
                return found

    def _refresh(self, keys: list[RoomKey], timeout_s: float) -> None:
        """Compare this process's positions in rooms with those in Redis.

        While Redis is unavailable, waits up to `timeout_s`, and then raises `BrokerError`.
        """
        deadline = monotonic() + timeout_s
        while True:
            try:
                self._link.refresh(keys)
                return
            except BrokerError:
                if monotonic() >= deadline:
                    raise
            sleep(RETRY_S)

    def stay(self, session: SharedSession) -> None:
        """Keep the session in this process after all. Undoes `cut`."""
        session._is_leaving = False

    def enter(
        self,
        session: SharedSession,
        positions: Mapping[str, Position],
        *,
        on_entered: Callable[[], None],
        max_bytes: int,
        timeout_s: float,
    ) -> Replay:
        """Make a session a member of rooms. Returns the messages that it has missed since these positions.

        All later messages go to the session's outbox. `on_entered` is called at the same moment, because later messages
        for this session alone must reach it, too.

        Raises `Gap` if the logs do not have all missed messages, or if these are larger than `max_bytes` together.
        Raises `BrokerError` if Redis does not answer. After an error, the session is in no room.
        """
        rooms, path = self._rooms, self._rooms.path
        names = [name for name in positions if name != SESSIONS_ROOM]
        until: dict[str, Position] = {}

        def look(here: Mapping[RoomKey, Position]) -> bool:
            for name, position in positions.items():
                if position.missed_until(here[path, name]) is None:
                    if position.epoch == here[path, name].epoch and here[path, name].number < position.number:
                        return False  # the other process has received more messages than this process
                    raise Gap(f"the log of room {name!r:.80} was replaced, or lost messages, since the session left")
            for name in names:
                Rooms.join(rooms, name, session)
            on_entered()
            until.update({name: position for (_, name), position in here.items()})
            return True

        with ExitStack() as stack:
            for name in names:  # from here on, the room counts the session as a member
                rooms._change_seats(name, session, 1)
                stack.callback(rooms._update, name)
                stack.callback(rooms._change_seats, name, session, -1)
                rooms._link.update(path, name, rooms)
            with ExitStack() as undo:
                undo.callback(self.forget, session)
                keys = [(path, name) for name in positions]
                self._refresh(keys, timeout_s)
                if not self._link.checkpoint(keys, look, timeout_s):
                    raise BrokerError("Redis does not answer, so the session stays in its process")
                spans = {name: (position, until[name]) for name, position in positions.items()}
                missed = read_missed(partial(self._link.call, path), session.id, spans, max_bytes)
                undo.pop_all()
        return replay_for(session.id, missed)

    def forget(self, session: SharedSession, keep_s: float = 0.0) -> None:
        """Take a session out of all rooms of this process, because it has moved away, or did not get here.

        The session's presences stay for `keep_s`, or until the other process has them.
        """
        rooms = self._rooms
        with session._membership:
            session._ended = True
            names = session._joined
        with ExitStack() as stack:
            for name in names:
                stack.callback(rooms._update, name)
                stack.callback(Rooms.leave, rooms, name, session)
                roster = rooms.roster
                if roster is not None and roster.is_used and roster.own_entry(name, session.id) is not None:
                    stack.callback(roster.keep, name, session.id, keep_s)

    def presences(self, session: SharedSession) -> dict[str, PresenceState]:
        """The presences of a session, by the name of the room."""
        roster = self._rooms.roster
        if roster is None or not roster.is_used:
            return {}
        found = {name: roster.own_entry(name, session.id) for name in session._joined if not is_hidden(name)}
        return {
            name: PresenceState(entry.value, entry.since, entry.set_at, entry.version)
            for name, entry in found.items()
            if entry is not None
        }

    def take_presences(self, session: SharedSession, presences: Mapping[str, PresenceState]) -> dict[str, str]:
        """Take over the presences of a session from another process.

        Returns, for each room, the process that had the presence, if this process knows it.
        """
        roster = self._rooms.roster
        found: dict[str, str] = {}
        for name, each in presences.items():
            if roster is not None and name in session._joined:
                found[name] = roster.take_over(
                    name, Entry(session.id, session.user, each.since, each.value, each.set_at, each.version)
                )
        return {name: process for name, process in found.items() if process}
