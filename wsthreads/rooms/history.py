"""The history of one room: its last messages, and positions among them.

A `Log` has no clock and no I/O. The lock `order` of a log is held while a broadcast is appended to the outboxes of the
room's members. The broadcast is added to the log under the same lock. So for other threads, both are one step. A
session that joins gets a replay of the log and all later messages, without a gap and without duplicates.

Each entry of a log has a number. A broker that has lost its last messages uses their numbers again. So an entry may
also have a *tag*, which is different for two messages with the same number. A *mark* is a number with a tag. A
*position* is the name of the log (`epoch`) and the mark of the last entry that a client has. A position is valid in
every log with these entries, in any process.
"""

from __future__ import annotations

import re
import secrets
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from threading import Lock
from typing import NamedTuple, TypeAlias

from wsthreads.protocol.encoding import PLAIN, Encoding
from wsthreads.protocol.frames import TEXT
from wsthreads.threads.lookups import look_up

__all__ = ["START", "Entry", "Limits", "Log", "Mark", "Record", "is_kept", "message_of", "payload_bytes"]

#: An entry: its number, its tag, the time of the broadcast, the plain frame, and the id of the session that did not get
#: the broadcast. An entry is a plain tuple, because there may be millions, and the garbage collector does not track
#: plain tuples.
Entry: TypeAlias = "tuple[int, str, float, bytes, str | None]"

#: A broadcast on its way to the log of its room: the entry, and the number of the subscription that has received it.
#: Only a broker sets the two numbers and the tag.
Record: TypeAlias = "tuple[Entry, int]"

_NUMBER = re.compile("[0-9]{1,16}", re.ASCII)


class Limits(NamedTuple):
    """The limits of a log: how many messages, how old in seconds, and how many bytes of contents."""

    messages: int
    seconds: float
    bytes: int


class Mark(NamedTuple):
    """A number and a tag, which identify an entry of a log."""

    number: int
    tag: str = ""


#: The mark before the first entry.
START = Mark(0)


class Log:
    """The last messages of one room. The caller of each method holds the lock `order`."""

    __slots__ = (
        "_bytes",
        "_encoded",
        "_entries",
        "_floor",
        "_last",
        "_limits",
        "epoch",
        "is_gone",
        "order",
        "used_at",
    )

    def __init__(self, limits: Limits, now: float) -> None:
        # Held while a message is appended to the outboxes of all members and to this log, and while a session joins. A
        # thread that holds it may only take a session's `_membership` and stripe locks. Only `SharedLog` may wait while
        # it is held.
        self.order = Lock()
        #: The name of the log. Each log of a room has another name.
        self.epoch = secrets.token_urlsafe(9)
        #: The time of the last message, or of the last use by a session.
        self.used_at = now
        #: Whether the log was dropped. A thread that still has it must use the room's new log.
        self.is_gone = False
        self._limits = limits
        # The marks of the last entry, and of the last entry that was dropped. The log has all entries between these.
        self._last: Entry | Mark = START
        self._floor: Entry | Mark = START
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        # frames in other encodings, by the name of the encoding and the number of the entry
        self._encoded: dict[str, dict[int, bytes]] = {}

    def record(self, record: Record) -> bool:
        """Append a broadcast.

        Returns False if the record is outdated. Called for every broadcast, so it must be fast.
        """
        (_, _, now, frame, exclude_id), _ = record
        self._append((self._last[0] + 1, "", now, frame, exclude_id))
        return True

    def _append(self, entry: Entry) -> None:
        entries, limits = self._entries, self._limits
        entries.append(entry)
        self._last = entry
        now = self.used_at = entry[2]
        size = len(entry[3])
        self._bytes += size - (2 if size < 128 else 4 if size < 65540 else 10)
        if len(entries) > limits[0]:
            self._drop_first()
        if self._bytes > limits[2] or entries[0][2] <= now - limits[1]:
            self.trim(now)

    def trim(self, now: float) -> None:
        """Drop the oldest entries until the log is within its limits."""
        entries, (messages, seconds, most_bytes) = self._entries, self._limits
        oldest = now - seconds
        while entries and (len(entries) > messages or self._bytes > most_bytes or entries[0][2] <= oldest):
            self._drop_first()

    def _drop_first(self) -> None:
        dropped = self._floor = self._entries.popleft()
        size = len(dropped[3])
        self._bytes -= size - (2 if size < 128 else 4 if size < 65540 else 10)
        if self._encoded:
            for encoded in self._encoded.values():
                encoded.pop(dropped[0], None)

    @property
    def last(self) -> Mark:
        """The mark of the last entry."""
        return Mark(*self._last[:2])

    def replace(self, epoch: str, last: Mark, floor: Mark, entries: Iterable[Entry], now: float) -> None:
        """Replace all entries by those of another log, or by a complete list because some entries were missing."""
        self.epoch, self._floor, self._last = epoch, floor, last
        self._entries = deque(entries)
        self._bytes = sum(payload_bytes(entry[3]) for entry in self._entries)
        self._encoded = {}
        self.trim(now)

    def position(self) -> str:
        """The position at the end of the log. A client can pass it to `replay`."""
        return self._position_of(self.last)

    def number_of(self, position: str) -> int | None:
        """The number of the entry at a position. None if the position is not of this log."""
        mark = self._mark_of(position)
        return None if mark is None else mark.number

    def _mark_of(self, position: str) -> Mark | None:
        epoch, _, place = position.partition(".")
        number_text, _, tag = place.partition(".")
        if epoch != self.epoch or not _NUMBER.fullmatch(number_text):
            return None
        mark = Mark(int(number_text), tag)
        return mark if self._position_of(mark) == position else None

    def _position_of(self, mark: Mark) -> str:
        return f"{self.epoch}.{mark.number}.{mark.tag}" if mark.tag else f"{self.epoch}.{mark.number}"

    def newest(self, count: int, reader_id: str | None = None) -> list[Entry]:
        """The last `count` entries, oldest first. Leaves out entries that the session `reader_id` must not get."""
        found = (entry for entry in reversed(self._entries) if reader_id is None or entry[4] != reader_id)
        return list(islice(found, count))[::-1]

    def replay(self, count: int, since: str | None, reader_id: str) -> tuple[list[Entry], bool]:
        """The entries for a session that joins, and whether all entries after the position `since` are among them.

        With `since`, these are all entries after that position. Without `since`, or if the log does not reach back so
        far, these are the last `count` entries.
        """
        if since is not None:
            found = self._after(since)
            if found is not None:
                return [entry for entry in found if entry[4] != reader_id], True
        return self.newest(count, reader_id) if count else [], since is None

    def _after(self, position: str) -> list[Entry] | None:
        """The entries after a position.

        Returns None if the log does not have all of them, or if the position is of another log.
        """
        mark = self._mark_of(position)
        if mark is None:
            return None
        found: list[Entry] = []
        for entry in reversed(self._entries):
            if entry[0] <= mark.number:
                return found[::-1] if entry[:2] == mark else None
            found.append(entry)
        return found[::-1] if mark == self._floor[:2] else None

    def unencoded(self, encoding: Encoding, entries: Iterable[Entry]) -> list[Entry]:
        """Those of the entries that have no frame in this encoding yet."""
        if encoding is PLAIN:
            return []
        known = self._encoded.get(encoding.name, {})
        return [entry for entry in entries if entry[0] not in known]

    def learn(self, encoding: Encoding, frames: dict[int, bytes]) -> None:
        """Keep frames in this encoding. The keys are the numbers of their entries."""
        known = self._encoded.setdefault(encoding.name, {})
        if self._entries:
            oldest = self._entries[0][0]
            known.update({number: frame for number, frame in frames.items() if number >= oldest})

    def frames(self, encoding: Encoding, entries: Sequence[Entry]) -> list[bytes]:
        """The frames of these entries in this encoding. Encodes those that were not kept."""
        if encoding is PLAIN:
            return [entry[3] for entry in entries]
        known = self._encoded.get(encoding.name, {})
        return [look_up(known, entry[0]) or encoding.frame(entry[3]) for entry in entries]

    @property
    def bytes(self) -> int:
        """The bytes of the messages' contents."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def _check(self) -> None:
        """Check the invariants, for tests."""
        numbers = [entry[0] for entry in self._entries]
        assert numbers == sorted(set(numbers)), numbers
        assert not numbers or (numbers[0] > self._floor[0] and numbers[-1] == self._last[0])
        assert self._bytes == sum(payload_bytes(entry[3]) for entry in self._entries) <= self._limits.bytes
        assert len(numbers) <= self._limits.messages
        assert all(number in numbers for encoded in self._encoded.values() for number in encoded)


def is_kept(frame: bytes) -> bool:
    """Whether a history stores this message."""
    return type(frame) is bytes or getattr(frame, "is_kept", True)


def payload_bytes(frame: bytes) -> int:
    """The size of the message in a plain frame, in bytes."""
    size = len(frame)
    return size - (2 if size < 128 else 4 if size < 65540 else 10)


def message_of(frame: bytes) -> str | bytes:
    """The message of a plain frame."""
    payload = frame[len(frame) - payload_bytes(frame) :]
    return payload.decode() if frame[0] & 0x0F == TEXT else bytes(payload)
