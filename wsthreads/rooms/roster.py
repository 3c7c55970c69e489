"""The presence of all rooms of one endpoint.

A room has a `State` here while it has persons, or has changes that were not reported. So a room without presence needs
no memory. A room can have a `State` even without members, because a person whose connection was lost stays for
`presence_grace_s`.

Locks: the stripe lock of the room in `_states` guards its state. A stripe lock may be taken while a session's
`_membership` is held. While a thread holds a stripe lock, it takes no other lock, and the state is only read and
changed in memory. `presence_reports` calls the handler without this lock.

Over a broker, a subclass shares the entries with other processes. It overrides

- `_own_change`, which gets each change that this process makes, in the order of the room,
- `_share`, which is called afterwards, without locks,
- `_lapse`, which removes or keeps a session whose connection was lost and whose time is over,
- `_put` and `_remove`, if it counts the entries of other processes,
- `persons`, if this process does not follow a room;

and it passes the changes of other processes to `apply_set` and `apply_gone`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock
from time import time

from wsthreads.errors import CloseCode
from wsthreads.rooms.presence import Entry, Person, person_key, persons_of, presence_json
from wsthreads.rooms.presence_reports import PresenceReports, Report, State, unless_empty
from wsthreads.rooms.striped import StripedDict
from wsthreads.threads.flusher import Timers, weakly

__all__ = ["LOST_CODES", "Roster"]

#: After these close codes, the connection counts as lost, and the client may come back. For example, a page that is
#: reloaded sends 1001.
LOST_CODES = frozenset(
    {
        CloseCode.GOING_AWAY,
        CloseCode.ABNORMAL,
        CloseCode.INTERNAL_ERROR,
        CloseCode.SERVICE_RESTART,
        CloseCode.TRY_AGAIN_LATER,
    }
)

#: The shortest time between two checks of lost sessions. So one check is for many sessions.
LAPSE_STEP_S = 0.05


class Roster:
    """The presence of all rooms of one endpoint, in this process. Any thread.

    `report` is called if `wants_reports()` is true. `broadcast_here` sends a frame to the members of a room in this
    process. `has_members` tells whether the room has members here. `count` gets the name of a counter.
    """

    def __init__(
        self,
        timers: Timers,
        *,
        report: Report,
        wants_reports: Callable[[], bool],
        broadcast_here: Callable[[str, bytes], None],
        has_members: Callable[[str], bool],
        count: Callable[[str], None],
        interval_s: float,
        grace_s: float,
        max_value_bytes: int,
    ) -> None:
        self._wants_reports = wants_reports
        self._has_members = has_members
        self._count = count
        self._grace_s = grace_s
        self._max_value_bytes = max_value_bytes
        self._states: StripedDict[str, State] = StripedDict()
        self._reports = PresenceReports(
            self._states,
            timers,
            report=report,
            broadcast_here=broadcast_here,
            has_members=has_members,
            interval_s=interval_s,
        )
        self._version = 0  # guarded by _versioning
        self._versioning = Lock()  # no other lock is taken while it is held; may be taken while a stripe is held
        #: Whether a presence was ever set. While this is False, the roster need not know of sessions that end.
        self.is_used = False

    @property
    def timers(self) -> Timers:
        """The clock. Tests that move it replace this."""
        return self._reports.timers

    @timers.setter
    def timers(self, timers: Timers) -> None:
        self._reports.timers = timers

    def text_of(self, value: object) -> str:
        """Encode a presence value as JSON text. Raises `PresenceError`."""
        return presence_json(value, self._max_value_bytes)

    # These methods are for changes by the sessions of this process. The caller holds the session's `_membership`, or
    # the session has ended. So the changes of one session have an order. After the change, the caller calls `tell`
    # without locks.

    def set(self, name: str, session_id: str, user: str | None, value: str) -> None:
        """Set the presence value of a member of a room. The value is JSON text."""
        self.is_used = True
        wants_reports = self._wants_reports()

        def change(state: State | None) -> State:
            state = state or State()
            if wants_reports:
                state.presence.begin_reports()
            version = self._next_version()
            old = state.presence.entry(session_id)
            if old is None:
                since = state.presence.since(person_key(session_id, user), version / 1e6)
                entry = Entry(session_id, user, since, value, version, version)
            else:
                entry = old._replace(value=value, set_at=version, version=version, lost_until=None, waits=False)
            state.presence.apply_set(entry)
            self._own_change(name, entry)
            self._drop_lost(name, state, entry.key)
            return state

        self._states.compute(name, change)
        self._count("presence_changes")

    def leave(self, name: str, session_id: str) -> None:
        """Remove a session that has left a room. Does nothing if the session had no presence in the room.

        If the person now has only lost sessions, these are removed, too, because the person has left on purpose.
        """
        self._end(name, session_id, None, with_lost=True)

    def lose(self, name: str, session_id: str) -> None:
        """Mark a session whose connection was lost. Its person stays in the room for `presence_grace_s`."""
        self._end(name, session_id, self.timers.now() + self._grace_s if self._grace_s else None)

    def kick(self, user: str) -> None:
        """Remove the lost sessions of a user, in all rooms. Called without locks."""
        if not self.is_used:
            return
        key = person_key("", user)

        def change(name: str, state: State) -> State | None:
            self._drop_lost(name, state, key, with_waiting=True)
            return unless_empty(state)

        for name, state in self._states.snapshot().items():
            if state.presence.lost(key, with_waiting=True):
                self._states.compute_if_present(name, partial(change, name))
                self.tell(name)

    def _drop_lost(self, name: str, state: State, key: str, *, with_waiting: bool = False) -> None:
        """Remove a person's lost sessions of this process. Called with the room's stripe held."""
        for entry in state.presence.lost(key, with_waiting=with_waiting):
            version = self._next_version()
            state.presence.apply_gone(entry.session_id, version)
            self._own_change(name, (entry.session_id, version))

    def _end(
        self,
        name: str,
        session_id: str,
        lost_until: float | None,
        *,
        with_lost: bool = False,
        waits: bool = False,
    ) -> None:
        was_there = False

        def change(state: State) -> State | None:
            nonlocal was_there
            old = state.presence.entry(session_id)
            if old is None:
                return state
            was_there = True
            version = self._next_version()
            if lost_until is None:
                state.presence.apply_gone(session_id, version)
                self._own_change(name, (session_id, version))
                if with_lost and not state.presence.is_alive(old.key):
                    self._drop_lost(name, state, old.key)
            else:
                entry = old._replace(version=version, lost_until=lost_until, waits=waits)
                state.presence.apply_set(entry)
                self._own_change(name, entry)
            return unless_empty(state)

        self._states.compute_if_present(name, change)
        if was_there:
            self._count("presence_changes")

    def tell(self, name: str) -> None:
        """Tell other processes of the changes, and later the handler.

        Takes no lock that another thread may hold for long.
        """
        self._share()
        self._reports.schedule(name)
        self._watch_lost(name)

    def _next_version(self) -> int:
        """Make a new version: the microseconds since the epoch, but more than the last version."""
        with self._versioning:
            self._version = max(self._version + 1, int(time() * 1e6))
            return self._version

    # These methods are for changes by other processes, or for a subclass to override.

    def apply_set(self, name: str, entry: Entry) -> None:
        """Apply an entry that another process has added or changed.

        The entry's `lost_until` is by the clock of `timers`.
        """
        self.is_used = True
        wants_reports = self._wants_reports()

        def change(state: State | None) -> State | None:
            state = state or State()
            if wants_reports:
                state.presence.begin_reports()
            self._put(name, state, entry)
            return unless_empty(state)

        self._states.compute(name, change)
        self.tell(name)

    def apply_gone(self, name: str, session_id: str, version: int) -> None:
        """Apply a removal by another process.

        The other process has removed one of its sessions, or a session of a process that has died.
        """

        def change(state: State) -> State | None:
            self._remove(name, state, session_id, version)
            return unless_empty(state)

        self._states.compute_if_present(name, change)
        self.tell(name)

    def _put(self, name: str, state: State, entry: Entry) -> None:
        """Apply an entry of another process. Called with the room's stripe held.

        A session that is open replaces the lost sessions of the same user.
        """
        state.presence.apply_set(entry)
        if entry.lost_until is None:
            self._drop_lost(name, state, entry.key)

    def _remove(self, name: str, state: State, session_id: str, version: int) -> None:
        """Remove a session of another process. Called with the room's stripe held."""
        state.presence.apply_gone(session_id, version)

    def entries(self, name: str, process: str | None = None) -> list[Entry]:
        """The entries of a room. Those of one process if `process` is given; ``""`` stands for this process."""
        found: list[Entry] = []

        def copy(state: State) -> State:
            found.extend(state.presence.entries(process))
            return state

        self._states.compute_if_present(name, copy)
        return found

    def names(self) -> list[str]:
        """The rooms that have a state. A snapshot."""
        return sorted(self._states.snapshot())

    def _own_change(self, name: str, change: Entry | tuple[str, int]) -> None:
        """Called when this process has set an entry, or has removed one.

        For a removal, `change` is the session id and the version.

        Called with the room's stripe held, so in the order of the room. An override may only append the change to a
        list.
        """

    def _share(self) -> None:
        """Send the changes that were passed to `_own_change`. Called without locks. Must not block."""

    def _lapse(self, name: str, entry: Entry) -> None:
        """Called by the flusher, without locks, when `lost_until` of a session has passed.

        The callee must remove the session, or set a later `lost_until`. Until then, it is called again and again.
        """
        self._end(name, entry.session_id, None)
        self.tell(name)

    # Queries

    def persons(self, name: str, reader: str | None = None) -> list[Person]:
        """All persons in a room, in order of arrival. `reader` is the id of the session that asks."""
        found: list[Entry] = []

        def show(state: State) -> State:
            found.extend(state.presence.show(reader))
            return state

        self._states.compute_if_present(name, show)
        return persons_of(found)

    def _watch_lost(self, name: str) -> None:
        """Set a timer for the earliest `lost_until` in a room."""
        due: float | None = None

        def mark(state: State) -> State:
            nonlocal due
            if not state.has_lapse_timer:
                due = state.presence.next_lapse()
                state.has_lapse_timer = due is not None
            return state

        self._states.compute_if_present(name, mark)
        if due is not None:
            delay_s = max(due - self.timers.now(), LAPSE_STEP_S)
            self.timers.call_later(delay_s, weakly(self._look_at_lost, name))

    def _look_at_lost(self, name: str) -> None:
        lapsed: list[Entry] = []
        now = self.timers.now()

        def look(state: State) -> State:
            state.has_lapse_timer = False
            lapsed.extend(state.presence.lapsed(now))
            return state

        self._states.compute_if_present(name, look)
        for entry in lapsed:
            self._lapse(name, entry)
        self._watch_lost(name)

    def give_up(self) -> None:
        """Forget all persons in a forked process, because they are those of the parent."""
        self._states.renew()
        self._versioning = Lock()

    def settle(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` until the thread of the reports has nothing to do.

        Returns False if the thread still has something to do.
        """
        return self._reports.settle(timeout_s)

    def stop(self, timeout_s: float) -> None:
        """End the thread of the reports. Waits at most `timeout_s`. The thread does not start again."""
        self._reports.stop(timeout_s)

    def _check(self) -> None:
        """Check the invariants, for tests at a quiet point."""
        for name, state in self._states.snapshot().items():
            state.presence._check()
            assert not state.presence.is_empty, f"{name!r} is kept for nothing"
