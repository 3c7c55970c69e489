"""The presence of an endpoint's rooms, in all processes.

A process is subscribed to the rooms in which it has members. When it subscribes, it gets all presences of a room from
Redis. After that, it gets each change from the room's log, in one order with the room's broadcasts. A process changes
only the presences of its own sessions. It applies its changes at once, and the writer updates the copy in Redis.

- A session without a connection is *lost*. A process that ends normally leaves the presences of its lost sessions in
  Redis, until their time is over. A killed process leaves all its presences. Other processes request their removal.
  Redis removes each presence once, and publishes the removal.
- When Redis has lost its data, the other processes will soon send their presences again. Until then, this process keeps
  their presences, but for at most `CONFIRM_S`.
- A process without members in a room asks Redis for its presences.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from threading import Lock
from typing import TYPE_CHECKING, Any

from wsthreads.brokers.messages import PresenceChange
from wsthreads.rooms.presence import Entry, Person, persons_of
from wsthreads.rooms.presence_reports import State, unless_empty
from wsthreads.rooms.roster import Roster
from wsthreads.threads.flusher import weakly
from wsthreads.threads.lookups import look_up

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Link, Listener

__all__ = ["SharedRoster", "entry_of"]

#: How long a process keeps presences that Redis no longer has.
CONFIRM_S = 8.0

#: How long another process may take to remove a session whose time is over. After that, its removal is requested again.
REAP_S = 1.0


class SharedRoster(Roster):
    """A `Roster` that `link` shares with other processes. `listener` has the rooms. Any thread.

    Only the reader's thread applies changes from Redis, in the order of each room.
    """

    def __init__(
        self, *, path: str, link: Link, listener: Listener, has_members: Callable[[str], bool], **parts: Any
    ) -> None:
        super().__init__(has_members=has_members, **parts)
        self._has_members = has_members
        self._path = path
        self._link = link
        self._listener = listener
        # pairs: a room, and a session of this process whose presence in it has changed
        self._changed: deque[tuple[str, str]] = deque()
        # For each room and session: until when Redis may confirm the presence, and the presence's version.
        self._unconfirmed: dict[str, dict[str, tuple[float, int]]] = {}
        # guards the attributes below; may be taken while a stripe is held; no other lock is taken while it is held
        self._watching = Lock()
        # The number of presences of a process in each room. The key is the room's shard and the process.
        self._watched: dict[tuple[int, str], Counter[str]] = {}

    def give_up(self) -> None:
        super().give_up()
        self._watching = Lock()
        for known in (self._changed, self._unconfirmed, self._watched):
            known.clear()

    # Changes by this process

    def _own_change(self, name: str, change: Entry | tuple[str, int]) -> None:
        self._changed.append((name, change[0]))

    def _share(self) -> None:
        while self._changed:
            try:
                name, session_id = self._changed.popleft()
            except IndexError:  # another thread has taken the change
                return
            self._send_again(name, session_id)

    def _send_again(self, name: str, session_id: str) -> None:
        """Send this process's state of a presence to Redis."""
        self._link.change_presence(self._path, name, self._listener, session_id)

    def own_presences(self, name: str, session_ids: Iterable[str] | None) -> list[tuple[str, PresenceChange | None]]:
        """The presence of some sessions of this process, or of all its sessions.

        None for a session without a presence.
        """
        found: list[tuple[str, PresenceChange | None]] = []
        now = self.timers.now()

        def look(state: State) -> State:
            presence = state.presence
            if session_ids is None:
                found.extend((entry.session_id, _change(entry, now)) for entry in presence.entries(""))
            else:
                for session_id in session_ids:
                    entry = presence.entry(session_id)
                    own = entry is not None and not entry.process
                    found.append((session_id, _change(entry, now) if entry is not None and own else None))
            return state

        self._states.compute_if_present(name, look)
        if not found and session_ids is not None:
            found = [(session_id, None) for session_id in session_ids]
        return found

    def own_names(self) -> list[str]:
        """The rooms in which sessions of this process have a presence."""
        return [name for name in self.names() if self.entries(name, "")]

    # Sessions that move to another process, or to this one

    def own_entry(self, name: str, session_id: str) -> Entry | None:
        """The presence of a session of this process in a room. None if it has none."""
        state = self._states.get(name)
        entry = None if state is None else state.presence.entry(session_id)
        return None if entry is None or entry.process else entry

    def keep(self, name: str, session_id: str, keep_s: float) -> None:
        """Keep the presence of a session that moves to another process.

        If the session does not arrive there, the presence ends after `keep_s`.
        """
        self._end(name, session_id, self.timers.now() + keep_s, waits=True)
        self.tell(name)

    def take_over(self, name: str, entry: Entry) -> str:
        """Take over the presence of a session that has moved to this process.

        Returns its former process, if this is known.
        """
        self.is_used = True
        wants_reports = self._wants_reports()
        before = ""

        def change(state: State | None) -> State:
            nonlocal before
            state = state or State()
            if wants_reports:
                state.presence.begin_reports()
            old = state.presence.entry(entry.session_id)
            before = "" if old is None else old.process
            version = max(self._next_version(), entry.version + 1, 0 if old is None else old.version + 1)
            own = entry._replace(version=version)
            if state.presence.apply_set(own):
                if old is not None and old.process:
                    self._count_presence(name, old.process, -1)
                self._own_change(name, own)
            return state

        self._states.compute(name, change)
        self.tell(name)
        return before

    # Changes by other processes

    def take(self, name: str, change: PresenceChange) -> None:
        """Apply a change of presence, by any process, that has come from Redis."""
        session_id = change.session_id
        if self._has_moved(name, change):
            self.apply_set(name, self._entry(change, change.value or ""))
            self._send_again(name, session_id)  # Redis still has this process's presence
            return
        if change.process == self._link.process or self._is_own(name, session_id):
            if (change.value is None) == self._is_own(name, session_id):
                self._send_again(name, session_id)  # Redis has another value than this process
            return
        look_up(self._unconfirmed, name, {}).pop(session_id, None)
        if change.value is None:
            self.apply_gone(name, session_id, change.version)
        else:
            self.apply_set(name, self._entry(change, change.value))

    def take_all(self, name: str, present: Iterable[PresenceChange], *, is_first: bool, is_surely: bool) -> None:
        """Store all presences of a room, which have come from Redis.

        `is_first`: this process has just subscribed to the room, so the current persons are not reported to its
        members. If `is_surely` is false, Redis may have lost other presences, and these may come again.
        """
        theirs: list[Entry] = []
        mine: set[str] = set()
        for change in present:
            if change.process == self._link.process:
                mine.add(change.session_id)
            elif change.value is not None:
                theirs.append(self._entry(change, change.value))
        for session_id in mine ^ {entry.session_id for entry in self.entries(name, "")}:
            self._send_again(name, session_id)
        if not theirs and not self._states.get(name):
            return
        self.is_used = True
        ids = {entry.session_id for entry in theirs}
        unconfirmed = self._unconfirmed.setdefault(name, {})
        for session_id in ids:
            unconfirmed.pop(session_id, None)
        deadline = self.timers.now() + CONFIRM_S
        has_new = False
        wants_reports = self._wants_reports()

        def change_all(state: State | None) -> State | None:
            nonlocal has_new
            state = state or State()
            presence = state.presence
            others = [entry for entry in presence.entries() if entry.process]
            keys = {entry.key for entry in others} | {entry.key for entry in theirs}
            for entry in theirs:
                self._put(name, state, entry)
            for entry in others:
                if entry.session_id in ids or entry.session_id in unconfirmed:
                    continue
                if is_surely:
                    self._remove(name, state, entry.session_id, entry.version)
                else:
                    unconfirmed[entry.session_id] = (deadline, entry.version)
                    has_new = True
            if is_first:
                presence.count_as_reported(keys)
            if wants_reports:
                presence.begin_reports()
            return unless_empty(state)

        self._states.compute(name, change_all)
        if has_new:
            self.timers.call_later(CONFIRM_S, weakly(self._give_up_unconfirmed, name))
        if not unconfirmed:
            self._unconfirmed.pop(name, None)
        self.tell(name)

    def _give_up_unconfirmed(self, name: str) -> None:
        now = self.timers.now()
        for session_id, (until, version) in look_up(self._unconfirmed, name, {}).copy().items():
            if until <= now and look_up(self._unconfirmed, name, {}).pop(session_id, None) is not None:
                self.apply_gone(name, session_id, version)

    def forget_others(self, name: str) -> None:
        """Forget the presences of other processes in a room without members in this process.

        Does nothing while this process is subscribed to the room.
        """

        def forget(state: State) -> State | None:
            if self._is_followed(name):
                return state
            others = [entry for entry in state.presence.entries() if entry.process]
            for entry in others:
                self._remove(name, state, entry.session_id, entry.version)
            state.presence.count_as_reported({entry.key for entry in others})
            return unless_empty(state)

        self._states.compute_if_present(name, forget)
        if not self._is_followed(name):
            self._unconfirmed.pop(name, None)

    def _is_followed(self, name: str) -> bool:
        return self._link.is_subscribed(self._path, name)

    def _lapse(self, name: str, entry: Entry) -> None:
        if not entry.process:
            super()._lapse(name, entry)
        elif not self._is_followed(name):
            self.forget_others(name)
        else:  # the session's own process removes the presence, if that process still runs
            until = self.timers.now() + REAP_S

            def wait(state: State) -> State:
                state.presence.keep_until(entry.session_id, until)
                return state

            self._states.compute_if_present(name, wait)
            self._link.reap(self._path, name, self._listener)

    def watched(self) -> dict[tuple[int, str], list[str]]:
        """The rooms with presences of other processes. The key is the shard of the rooms, and the process."""
        with self._watching:
            watched = {key: list(rooms) for key, rooms in self._watched.items()}
        for rooms in watched.values():
            for name in rooms:
                if not self._is_followed(name):
                    self.forget_others(name)  # changes that came while the last member left
        return watched

    # Queries

    def persons(self, name: str, reader: str | None = None) -> list[Person]:
        """All persons in a room, in order of arrival.

        If the room has no members in this process, asks Redis, and waits at most a second.
        """
        if not self._has_members(name):
            present = self._link.presences(self._path, name)
            if present is not None:
                return persons_of(self._entry(each, each.value) for each in present if each.value is not None)
        return super().persons(name, reader)

    # Internal

    def _put(self, name: str, state: State, entry: Entry) -> None:
        old = state.presence.entry(entry.session_id)
        super()._put(name, state, entry)
        if state.presence.entry(entry.session_id) is entry and entry is not old:
            if old is not None and old.process:
                self._count_presence(name, old.process, -1)
            self._count_presence(name, entry.process, 1)

    def _remove(self, name: str, state: State, session_id: str, version: int) -> None:
        old = state.presence.entry(session_id)
        if state.presence.apply_gone(session_id, version) and old is not None and old.process:
            self._count_presence(name, old.process, -1)

    def _count_presence(self, name: str, process: str, change: int) -> None:
        """Count one presence of a process in a room more, or one less. `change` is 1 or -1."""
        key = (self._link.shard(self._path, name), process)
        with self._watching:
            rooms = self._watched.setdefault(key, Counter())
            rooms[name] += change
            if rooms[name] <= 0:
                del rooms[name]
            if not rooms:
                del self._watched[key]

    def _is_own(self, name: str, session_id: str) -> bool:
        return self.own_entry(name, session_id) is not None

    def _has_moved(self, name: str, change: PresenceChange) -> bool:
        """Whether a session whose presence this process has kept has moved to another process."""
        if change.value is None or change.process == self._link.process:
            return False
        own = self.own_entry(name, change.session_id)
        return own is not None and own.lost_until is not None and change.version > own.version

    def _entry(self, change: PresenceChange, value: str) -> Entry:
        return entry_of(change, value, self.timers.now())


def entry_of(change: PresenceChange, value: str, now: float) -> Entry:
    """The entry for a change by another process. `now` is the current time, on the clock of `Entry.lost_until`."""
    lost_until = None if change.lost_s is None else now + change.lost_s
    return Entry(
        change.session_id,
        change.user,
        change.since,
        value,
        change.set_at,
        change.version,
        lost_until,
        change.process,
        change.waits,
    )


def _change(entry: Entry, now: float) -> PresenceChange:
    """The change that tells other processes of an entry of this process."""
    lost_s = None if entry.lost_until is None else max(0.0, entry.lost_until - now)
    return PresenceChange(
        entry.session_id, entry.version, entry.value, "", entry.user, entry.since, entry.set_at, lost_s, entry.waits
    )
