"""Parses the history of a room, as Redis has it (see `keys`), and makes entries of a `Log` from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from wsthreads.brokers import messages
from wsthreads.errors import BrokerError
from wsthreads.rooms.history import Entry, Limits, Mark

__all__ = ["UNKNOWN_LIMITS", "Stored", "limits_text", "parse_kept", "parse_limits"]

#: Used in place of limits. A script then uses the limits that the endpoint's servers have stored in Redis.
UNKNOWN_LIMITS = "?"


class Stored(NamedTuple):
    """A history from Redis."""

    epoch: str
    #: The mark of the last entry, and the mark of the last entry that was dropped.
    last: Mark
    floor: Mark
    #: Entries as in `Log`, but each has its age instead of its time.
    entries: list[Entry]

    def at(self, now: float) -> list[Entry]:
        """The entries, for a log whose clock shows `now`."""
        return [(number, tag, now - age_s, frame, exclude) for number, tag, age_s, frame, exclude in self.entries]


def limits_text(limits: Limits) -> str:
    """Encode the limits of a history for Redis."""
    return f"{limits.messages} {max(int(limits.seconds * 1000), 1)} {limits.bytes}"


def parse_limits(text: bytes) -> Limits:
    """Parse the limits that `limits_text` has encoded. Raises `BrokerError`."""
    try:
        most, kept_ms, most_bytes = map(messages.whole, text.split())
    except ValueError:
        raise BrokerError(f"Redis has {len(text)} bytes that are not limits of a history") from None
    return Limits(most, kept_ms / 1000, most_bytes)


def _mark(number: bytes, entry: bytes) -> Mark:
    """The mark of an entry, from its number and its id in the log of the room. Raises ValueError."""
    return Mark(messages.whole(number), entry.decode("ascii"))


def parse_kept(
    epoch: bytes, kept: bytes, stored: Sequence[bytes], now_ms: int, on_malformed: Callable[[str], None]
) -> Stored:
    """Parse a history: the epoch and the last mark, both from the head, and the entries.

    Leaves out malformed entries.
    """
    last = Mark(0, "0-0")
    if kept:
        try:
            number, entry = kept.split(b" ")
            last = _mark(number, entry)
        except ValueError:
            on_malformed(f"{len(kept)} bytes that are not a mark of a history")
            stored = ()
    floor = last
    former = Mark(-1)
    entries: list[Entry] = []
    tickets: dict[bytes, int] = {}
    for data in stored:
        try:
            number, entry, former_number, former_entry, _, message = data.split(b" ", 5)
            mark, before = _mark(number, entry), _mark(former_number, former_entry)
            age_s = (now_ms - messages.whole(entry.partition(b"-")[0])) / 1000
            decoded = messages.decode(message)
            if not isinstance(decoded, messages.Broadcast):
                raise BrokerError("a message in a history that is not a broadcast")
        except (ValueError, BrokerError):
            on_malformed(f"{len(data)} bytes in a history that are not a message in version {messages.VERSION}")
            continue
        if before != former:  # this is the first entry, or entries before it were lost
            entries, floor = [], before
        former = mark
        if decoded.ticket > tickets.get(decoded.sender, -1):  # otherwise the message was published twice
            tickets[decoded.sender] = decoded.ticket
            entries.append((*mark, age_s, bytes(decoded.frame), decoded.exclude_id))
    if former != last:  # the list has expired, or was lost
        entries, floor = [], last
    return Stored(epoch.decode("ascii", "replace"), last, floor, entries)
