"""The presence state of one room. It has no clock, no lock and no I/O. A lock of the caller guards it.

A *person* is a user with all of the user's sessions in the room, or one session without a user. Each session has one
`Entry`. Only the process that has the session changes the entry, each time with a higher version. So a process may
apply the same change twice, and changes by different processes in any order. All processes get the same list.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from wsthreads.errors import PresenceError
from wsthreads.rooms.json_text import JSONText, json_text, value_of
from wsthreads.threads.lookups import look_up

__all__ = ["Entry", "JSONText", "Person", "Presence", "PresenceChanges", "person_key", "persons_of", "presence_json"]


@dataclass(frozen=True, slots=True)
class Person:
    """A person in a room: a user with all of the user's sessions there, or one session without a user."""

    #: The user, or the id of a session without a user. A user may have the same name as a session's id. The field
    #: `user` tells which of the two this is.
    key: str
    #: None for a session without a user.
    user: str | None
    #: The value that one of the sessions has set last. Each call returns a copy.
    presence: Any
    #: When the person came, in seconds since the epoch.
    since: float
    #: The number of sessions. It includes sessions that wait for their client to return. It is 0 while the person stays
    #: only because of `presence_grace_s`.
    sessions: int

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON. This is much faster than `dataclasses.asdict`, which copies the value."""
        return {
            "key": self.key,
            "user": self.user,
            "presence": self.presence,
            "since": self.since,
            "sessions": self.sessions,
        }


@dataclass(frozen=True, slots=True)
class PresenceChanges:
    """The changes in a room since the last call of `on_presence`. Each list is in order of arrival."""

    #: Persons who have joined.
    joined: list[Person]
    #: Persons who have left, with their last value.
    left: list[Person]
    #: Persons whose value has changed.
    changed: list[Person]

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """The lists by name, with each person as a dict, for JSON."""
        kinds = {"joined": self.joined, "left": self.left, "changed": self.changed}
        return {kind: [person.as_dict() for person in persons] for kind, persons in kinds.items()}


class Entry(NamedTuple):
    """The presence of one session in one room. Immutable."""

    session_id: str
    user: str | None
    #: When the person came, in seconds since the epoch. The session's process has recorded this time.
    since: float
    #: The presence value, as JSON text.
    value: str
    #: The version that the entry had when the value was set.
    set_at: int
    #: The version of the entry. It grows with each change.
    version: int
    #: For a session whose connection was lost: when the session is no longer counted, by the clock of the caller of
    #: `lapsed`. None for other sessions.
    lost_until: float | None = None
    #: The process that has the session. Empty for this process.
    process: str = ""
    #: Whether the session is moving to another process, and so has not ended.
    waits: bool = False

    @property
    def key(self) -> str:
        """The key of the person to whom the session belongs."""
        return person_key(self.session_id, self.user)


def person_key(session_id: str, user: str | None) -> str:
    """The key of a person in a `Presence`.

    Unlike `Person.key`, the key of a user is never equal to that of a session.
    """
    return session_id if user is None else f"\0{user}"


_ARRIVAL = attrgetter("since", "key")
_SET_LAST = attrgetter("set_at", "session_id")


class Presence:
    """The persons of one room.

    From `begin_reports` on, `take_changes` returns the changes. Before that, no changes are kept.
    """

    __slots__ = ("_changed", "_departed", "_entries", "_gone", "_lost", "_persons", "_reported", "_shown")

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}  # by session id
        self._persons: dict[str, list[Entry]] = {}  # by key; no list is empty
        self._lost: set[str] = set()  # sessions whose connection was lost
        # versions of removed sessions, by session id: the version, and until when to remember it
        self._gone: dict[str, tuple[int, float]] = {}
        # The values of the persons in the last report, by key. None before `begin_reports`.
        self._reported: dict[str, str] | None = None
        self._changed: set[str] = set()  # keys of persons that may be different from the last report
        # Values of these persons that `show` has returned since the last report. None stands for a person who was not
        # there.
        self._shown: dict[str, set[str | None]] = {}
        self._departed: dict[str, Entry] = {}  # the last entry of each person who has left since the last report

    def begin_reports(self) -> None:
        """Begin to keep changes for `take_changes`. The current persons count as reported. Idempotent."""
        if self._reported is None:
            self._reported = {key: max(own, key=_SET_LAST).value for key, own in self._persons.items()}

    def apply_set(self, entry: Entry) -> bool:
        """Add or change a session.

        Returns False, and changes nothing, if an equal or higher version is already known.
        """
        old = look_up(self._entries, entry.session_id)
        known = look_up(self._gone, entry.session_id, (0, 0.0))[0] if old is None else old.version
        if entry.version <= known or (old is not None and old.key != entry.key):  # a session's user never changes
            return False
        self._gone.pop(entry.session_id, None)
        self._entries[entry.session_id] = entry
        if entry.lost_until is None:
            self._lost.discard(entry.session_id)
        else:
            self._lost.add(entry.session_id)
        of_person = self._persons.setdefault(entry.key, [])
        if old is not None:
            of_person.remove(old)
        of_person.append(entry)
        self._note(entry.key)
        self._departed.pop(entry.key, None)
        return True

    def apply_gone(self, session_id: str, version: int, *, remember_until: float | None = None) -> bool:
        """Remove a session. Returns False, and changes nothing, if a higher version of it is known.

        If the messages of one process can arrive out of order, pass `remember_until`. The version is then kept, and an
        older `apply_set` is ignored, until `forget` is called with a later time.
        """
        old = look_up(self._entries, session_id)
        if old is not None and version < old.version:
            return False
        if remember_until is not None:
            known, _ = look_up(self._gone, session_id, (0, 0.0))
            self._gone[session_id] = (max(known, version), remember_until)
        if old is None:
            return False
        del self._entries[session_id]
        self._lost.discard(session_id)
        of_person = self._persons[old.key]
        last = max(of_person, key=_SET_LAST)
        since = min(entry.since for entry in of_person)
        of_person.remove(old)
        if not of_person:
            del self._persons[old.key]
            if self._was_told(old.key):
                self._departed[old.key] = last._replace(since=since)
        self._note(old.key)
        return True

    def _was_told(self, key: str) -> bool:
        """Whether a reader of the reports or of `show` may have this person in a list."""
        return self._reported is not None and (key in self._reported or look_up(self._shown, key, {None}) != {None})

    def _note(self, key: str) -> None:
        if self._reported is not None:
            self._changed.add(key)

    def entry(self, session_id: str) -> Entry | None:
        """The entry of a session. None if the session has none."""
        return look_up(self._entries, session_id)

    def entries(self, process: str | None = None) -> list[Entry]:
        """All entries, or those of one process. ``""`` stands for this process."""
        found: Iterable[Entry] = self._entries.values()
        return [entry for entry in found if process is None or entry.process == process]

    def lost(self, key: str, process: str = "", *, with_waiting: bool = False) -> list[Entry]:
        """Those of a person's sessions in one process that have ended because the connection was lost.

        With `with_waiting`, sessions that are moving to another process are included.
        """
        entries = [entry for entry in look_up(self._persons, key, ()) if entry.process == process]
        return [entry for entry in entries if not _is_there(entry) or (with_waiting and entry.waits)]

    def is_alive(self, key: str) -> bool:
        """Whether a person has a session that has not ended because of a lost connection."""
        return any(_is_there(entry) for entry in look_up(self._persons, key, ()))

    def since(self, key: str, now: float) -> float:
        """`Entry.since` for a new session of a person: when the person came, or `now` for a new person.

        A person who has left still counts as present until the leave was reported.
        """
        entries = look_up(self._persons, key)
        if entries:
            return min(entry.since for entry in entries)
        departed = look_up(self._departed, key)
        return now if departed is None else departed.since

    def lapsed(self, now: float) -> list[Entry]:
        """The sessions whose connection was lost and whose `lost_until` has passed.

        The entries of these sessions stay until `apply_gone` is called.
        """
        lost = (self._entries[session_id] for session_id in self._lost)
        return [entry for entry in lost if entry.lost_until is not None and entry.lost_until <= now]

    def next_lapse(self) -> float | None:
        """The earliest `lost_until`. None if no connection was lost."""
        times = (self._entries[session_id].lost_until for session_id in self._lost)
        return min((time for time in times if time is not None), default=None)

    def forget(self, now: float) -> None:
        """Forget the versions of removed sessions whose `remember_until` has passed."""
        self._gone = {session_id: gone for session_id, gone in self._gone.items() if gone[1] > now}

    @property
    def has_persons(self) -> bool:
        """Whether there are persons in the room."""
        return bool(self._entries)

    def persons(self) -> list[Person]:
        """All persons, in order of arrival."""
        return sorted(map(_person, self._persons.values()), key=_ARRIVAL)

    def show(self, reader: str | None = None) -> list[Entry]:
        """All entries, for a reader that makes a list of them (`persons_of`) and then applies `take_changes` to it.

        A value may change, and then change back before the next report. Compared with the last report, nothing has
        changed. But a reader that called `show` between the two changes has the other value. So `take_changes` also
        reports a person who is different from any list of `show`. There is one exception. If `reader`, a session, has
        left, its list is ignored where it has only the reader's own person.
        """
        for key in self._changed:
            entries = look_up(self._persons, key)
            if entries is not None and all(entry.session_id == reader for entry in entries):
                continue
            value = None if entries is None else max(entries, key=_SET_LAST).value
            shown = self._shown.setdefault(key, set())
            # with two values, any later value is different from at least one of them
            if value is None or len(shown - {None}) < 2:
                shown.add(value)
        return list(self._entries.values())

    @property
    def is_shown(self) -> bool:
        """Whether `show` has returned changes since the last report."""
        return bool(self._shown)

    @property
    def has_changes(self) -> bool:
        """Whether `take_changes` may return changes."""
        return bool(self._changed)

    @property
    def is_empty(self) -> bool:
        """Whether the room has no persons, no remembered versions, and no unreported changes."""
        return not (self._entries or self._gone or self._changed)

    def count_as_reported(self, keys: Iterable[str]) -> None:
        """Do not report the changes of these persons."""
        if self._reported is None:
            return
        for key in keys:
            entries = look_up(self._persons, key)
            if entries:
                self._reported[key] = max(entries, key=_SET_LAST).value
            else:
                self._reported.pop(key, None)
            self._changed.discard(key)
            self._shown.pop(key, None)
            self._departed.pop(key, None)

    def keep_until(self, session_id: str, lost_until: float) -> None:
        """Keep a session whose connection was lost until a later time."""
        entry = look_up(self._entries, session_id)
        if entry is not None and entry.lost_until is not None:
            later = self._entries[session_id] = entry._replace(lost_until=lost_until)
            of_person = self._persons[entry.key]
            of_person[of_person.index(entry)] = later

    def take_changes(self) -> PresenceChanges | None:
        """The changes since the last results of this method and of `show`. None if there are none."""
        reported = self._reported
        if reported is None:
            return None
        joined, left, changed = [], [], []
        for key in self._changed:
            before, entries = reported.pop(key, None), look_up(self._persons, key)
            if entries is None:
                if key in self._departed:
                    left.append(_person([self._departed[key]], sessions=0))
                continue
            value = reported[key] = max(entries, key=_SET_LAST).value
            seen = look_up(self._shown, key, set()) | {before}
            if None in seen:
                joined.append(_person(entries))
            elif seen != {value}:
                changed.append(_person(entries))
        self._changed, self._shown, self._departed = set(), {}, {}
        if not (joined or left or changed):
            return None
        for some in (joined, left, changed):
            some.sort(key=_ARRIVAL)
        return PresenceChanges(joined, left, changed)

    def _check(self) -> None:
        """Check the invariants, for tests."""
        assert all(self._persons.values())
        everybody = {id(entry) for entries in self._persons.values() for entry in entries}
        assert everybody == {id(entry) for entry in self._entries.values()}
        assert all(entry.key == key for key, entries in self._persons.items() for entry in entries)
        assert self._lost == {entry.session_id for entry in self._entries.values() if entry.lost_until is not None}
        assert not self._gone.keys() & self._entries.keys()
        if self._reported is None:
            assert not self._changed
            assert not self._departed
        else:
            assert self._departed.keys() <= self._changed - self._persons.keys()
            assert self._shown.keys() <= self._changed
            assert self._changed & self._reported.keys() - self._persons.keys() <= self._departed.keys()
            assert self._reported.keys() ^ self._persons.keys() <= self._changed


def persons_of(entries: Iterable[Entry]) -> list[Person]:
    """The persons to whom these entries belong, in order of arrival."""
    by_key: dict[str, list[Entry]] = {}
    for entry in entries:
        by_key.setdefault(entry.key, []).append(entry)
    return sorted(map(_person, by_key.values()), key=_ARRIVAL)


def _is_there(entry: Entry) -> bool:
    """Whether a session is open. It may have no connection at present."""
    return entry.lost_until is None or entry.waits


def _person(entries: list[Entry], sessions: int | None = None) -> Person:
    last, since = entries[0], entries[0].since
    if len(entries) > 1:
        last, since = max(entries, key=_SET_LAST), min(entry.since for entry in entries)
    if sessions is None:
        sessions = sum(map(_is_there, entries))
    key = last.session_id if last.user is None else last.user
    return Person(key, last.user, value_of(last.value), since, sessions)


def presence_json(value: Any, max_bytes: int) -> str:
    """Encode a presence value as JSON text.

    Raises `PresenceError` if it is not JSON, or has more than `max_bytes` in UTF-8.
    """
    return json_text(
        value, what="a presence value", max_bytes=max_bytes, setting="max_presence_bytes", error=PresenceError
    )
