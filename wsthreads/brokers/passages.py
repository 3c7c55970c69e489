"""How a session leaves the rooms of this process for another process, and enters those of this one.

The other process goes on exactly behind the last message that the session has in each room: `cut` tells these
positions, and `enter` reads from the logs what has been sent since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING

from wsthreads.brokers.missed import Gap, Replay, read_missed, replay_for
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

#: How soon Redis is asked again.
RETRY_S = 0.05


class Passages:
    """For the rooms of one endpoint. Any thread but that of the reader."""

    def __init__(self, rooms: SharedRooms, link: Link) -> None:
        self._rooms = rooms
        self._link = link

    def cut(self, session: SharedSession, copy: Callable[[], None], timeout_s: float) -> dict[str, Position]:
        """Where a session stands in the log of each of its rooms, and in that of single sessions.

        Call `copy` at that moment, to copy the frames that the client is still to get. Nothing is changed. Raises
        `BrokerError` if this cannot be told within `timeout_s`: Redis is away, or frames are held for so long.

        From the call on, Redis gives what is sent to this session its place, until `stay` or `forget`. So whatever is
        not in the copy is in the log.
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
                        return False  # they come behind a broadcast that is about to come back
                    copy()
                    found.update({name: position for (_, name), position in positions.items()})
                return True

            keys = [(self._rooms.path, name) for name in names]
            self._refresh(keys, timeout_s)  # so no other process takes this position for one in another log
            if not self._link.checkpoint(keys, look, timeout_s):
                raise BrokerError("Redis does not answer")
            if found:
                return found

    def _refresh(self, keys: list[RoomKey], timeout_s: float) -> None:
        """Compare the rooms' logs with Redis. Waits while the connection is away. Raises `BrokerError` after that."""
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
        """A session does not go after `cut`."""
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
        """Make a session a member of rooms, and return what it has missed in them since these positions.

        Later messages go to its outbox from then on. `on_entered` is called at that moment: later messages for this
        session alone have to reach it, too. Raises `Gap` if not all is known that it has missed, or it is more than
        `max_bytes`, and `BrokerError` if Redis does not answer; then it is in no room.
        """
        rooms, path = self._rooms, self._rooms.path
        names = [name for name in positions if name != SESSIONS_ROOM]
        until: dict[str, Position] = {}

        def look(here: Mapping[RoomKey, Position]) -> bool:
            for name, position in positions.items():
                if position.missed_until(here[path, name]) is None:
                    if position.epoch == here[path, name].epoch and here[path, name].number < position.number:
                        return False  # the other process is a little ahead of this one
                    raise Gap(f"the log of room {name!r:.80} is not the one that the session has left")
            for name in names:
                Rooms.join(rooms, name, session)
            on_entered()
            until.update({name: position for (_, name), position in here.items()})
            return True

        with ExitStack() as stack:
            for name in names:  # it counts as a member from here on
                rooms._change_seats(name, session, 1)
                stack.callback(rooms._update, name)
                stack.callback(rooms._change_seats, name, session, -1)
                rooms._link.update(path, name, rooms)
            with ExitStack() as undo:
                undo.callback(self.forget, session)
                keys = [(path, name) for name in positions]
                self._refresh(keys, timeout_s)
                if not self._link.checkpoint(keys, look, timeout_s):
                    raise BrokerError("Redis does not answer: the session stays where it is")
                spans = {name: (position, until[name]) for name, position in positions.items()}
                missed = read_missed(partial(self._link.call, path), session.id, spans, max_bytes)
                undo.pop_all()
        return replay_for(session.id, missed)

    def forget(self, session: SharedSession, keep_s: float = 0.0) -> None:
        """Take a session out of all rooms of this process: it goes on in another one, or has not come from there.

        Its presences stay for `keep_s`, if it has any, until the other process has them.
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
        """The presences of a session, by room."""
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
        """Go on with the presences that a session had in another process. Returns that process by room, if known."""
        roster = self._rooms.roster
        found: dict[str, str] = {}
        for name, each in presences.items():
            if roster is not None and name in session._joined:
                found[name] = roster.take_over(
                    name, Entry(session.id, session.user, each.since, each.value, each.set_at, each.version)
                )
        return {name: process for name, process in found.items() if process}
