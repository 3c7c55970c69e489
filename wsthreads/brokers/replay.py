"""Reads the messages that rooms have missed. The messages are in the rooms' logs in Redis.

A room is *behind* while messages may be missing between the last delivered one and the next one on its channel. This
process then reads the room's log until no message is missing: the room is *live*. Messages that the log no longer has
are counted and logged as lost. Messages may also be lost if the room has another log than before.
"""

from __future__ import annotations

import re
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsthreads.brokers import messages
from wsthreads.brokers.arrivals import aged
from wsthreads.brokers.positions import Position, new_epoch
from wsthreads.brokers.scripts import FETCH
from wsthreads.brokers.stored_history import parse_kept
from wsthreads.errors import counted
from wsthreads.loggers import get_logger
from wsthreads.rooms.names import SESSIONS_ROOM, user_of

if TYPE_CHECKING:
    from wsthreads.brokers.arrivals import Arrivals
    from wsthreads.brokers.malformed import Malformed
    from wsthreads.brokers.pipeline import Scripts
    from wsthreads.brokers.subscription import Subscription
    from wsthreads.monitoring.metrics import Metrics

__all__ = ["Replay"]

log = get_logger(__name__)

_NUMBER = re.compile(rb"[0-9]{1,16}")

#: How many entries of each log, and how many rooms, are fetched in one round trip.
FETCH_ENTRIES = 1000
FETCH_ROOMS = 500

#: How long to wait for Redis's answer on the wake channel to a room's announcement. After that, the room's log is read.
BEGIN_S = 1.0


class Replay:
    """Delivers the missed messages of rooms that are behind. Only the reader's thread uses this class."""

    def __init__(self, scripts: Scripts, arrivals: Arrivals, malformed: Malformed, metrics: Metrics) -> None:
        self._scripts = scripts
        self._arrivals = arrivals
        self._malformed = malformed
        self._metrics = metrics
        self._behind: dict[bytes, Subscription] = {}  # by channel

    def __bool__(self) -> bool:
        """Whether a room is behind."""
        return bool(self._behind)

    def add(self, room: Subscription) -> None:
        """Mark a room as behind. Messages on its channel are then not delivered, because the log has them."""
        room.live = False
        self._behind[room.address.channel] = room

    def drop(self, channel: bytes) -> None:
        self._behind.pop(channel, None)

    def clear(self) -> None:
        self._behind.clear()

    def go_live(self, room: Subscription) -> None:
        """Mark a room as live: no message is missing before the next one on its channel."""
        room.live = True
        room.ready.set()
        self._behind.pop(room.address.channel, None)

    def catch_up(self, connection: int) -> None:
        """Deliver the missed messages of the rooms that are behind.

        `connection` is the number of the reader's connection. Raises `RedisError`.
        """
        rooms = [room for room in self._behind.values() if _is_to_be_fetched(room, connection)][:FETCH_ROOMS]
        for room in rooms:
            if not room.begun:
                room.position, room.begun = room.start, True
        gaps: list[tuple[Subscription, int | None]] = []
        while rooms:
            pipeline = self._scripts.pipeline(transaction=False)
            for room in rooms:
                address = room.address
                keys = [address.log, address.head, address.presence, address.history]
                wants_history = room.keeps_history and not room.has_history
                pipeline.call(FETCH, keys, *room.position, FETCH_ENTRIES, new_epoch() if wants_history else "")
            unfinished = []
            for room, found in zip(rooms, pipeline.execute(), strict=True):
                if self._take_fetched(room, found, gaps):
                    self.go_live(room)
                else:
                    unfinished.append(room)
            rooms = unfinished
        if gaps:
            self._tell_of(gaps)

    def _take_fetched(self, room: Subscription, found: list[Any], gaps: list[tuple[Subscription, int | None]]) -> bool:
        """Deliver the entries that were fetched from a log.

        Returns true if there are no more. Adds the room to `gaps` if messages are lost.
        """
        epoch, number, last, entries, now_ms, presences, *history = found
        missed: list[int | None] = []
        for entry, fields in entries:
            if len(fields) != 6 or not _NUMBER.fullmatch(fields[1]):
                self._malformed.drop(f"a log entry that is not in version {messages.VERSION} of the format")
                continue
            position, former, message = Position(epoch, int(fields[1]), entry), fields[3], fields[5]
            if not room.position.is_followed_by(position, former):
                until = room.position.missed_until(position)
                missed.append(None if until is None else until - 1)
                self._lose_history(room)
            room.position = position
            decoded = self._arrivals.decode(message)
            if decoded is not None:
                self._arrivals.handle(room, aged(decoded, entry, int(now_ms)), is_busy=True)
        is_all = len(entries) < FETCH_ENTRIES
        head = Position(epoch, int(number), last)
        if is_all:
            missed.append(room.position.missed_until(head))
            room.position = head
            if missed[-1] != 0:
                self._lose_history(room)
            is_all = not room.keeps_history or room.has_history or bool(history)  # otherwise the log is read once more
            if history:
                self._take_history(room, epoch, int(now_ms), *history)
            self._arrivals.take_presences(room, int(now_ms), presences, is_surely=None not in missed)
        if None in missed:
            gaps.append((room, None))
        elif any(missed):
            gaps.append((room, sum(filter(None, missed))))
        return is_all

    def _take_history(self, room: Subscription, epoch: bytes, now_ms: int, kept: bytes, entries: list[bytes]) -> None:
        """Store the history of a room, which has come from Redis. The last message in it was already delivered."""
        room.has_history = True
        stored = parse_kept(epoch, kept, entries, now_ms, self._malformed.drop)
        if not room.dropped:
            try:
                room.listener.take_history(room.name, room.serial, stored)
            except Exception:
                log.exception("the history of room %r in Redis was not used", room.name)

    def _lose_history(self, room: Subscription) -> None:
        """Mark this process's copy of a room's history as incomplete."""
        if room.has_history:
            room.has_history = False
            if not room.dropped:
                room.listener.lose_history(room.name, room.serial)

    def _tell_of(self, gaps: list[tuple[Subscription, int | None]]) -> None:
        """Count and log lost messages. One log line is for all rooms."""
        gaps = [(room, missed) for room, missed in gaps if missed is not None or room.name != SESSIONS_ROOM]
        if not gaps:
            return  # only the room for single sessions is left; it seldom has messages
        known = sum(missed or 0 for _, missed in gaps)
        what = "are lost" if known != 1 else "is lost"
        what = f"{counted(known, 'broadcast')} {what}" if known else "broadcasts may be lost"
        why = "Redis no longer had everything when this process read again"
        if any(missed is None for _, missed in gaps):
            what += ", and others may be," if known else ""
            why = "Redis has lost its data, has failed over, or has dropped the log of a room that was idle for long"
        log.warning("%s %s: %s", what, _where([room.name for room, _ in gaps]), why)
        self._metrics.add("broker_gaps", len(gaps))


def _is_to_be_fetched(room: Subscription, connection: int) -> bool:
    if room.begun or not room.known:
        return room.begun
    # The answer to the announcement may arrive soon.
    return room.expected_on != connection or monotonic() - room.announced_at > BEGIN_S


def _where(names: list[str]) -> str:
    """Describe rooms for a log line. Some of them may be hidden rooms of users."""
    users = [user for name in names if (user := user_of(name)) is not None]
    rooms = [name for name in names if user_of(name) is None]
    parts = []
    if rooms:
        parts.append(("in the room" if len(rooms) == 1 else f"in {len(rooms)} rooms, such as") + f" {rooms[0]!r}")
    if users:
        parts.append(("for the user" if len(users) == 1 else f"for {len(users)} users, such as") + f" {users[0]!r}")
    return " and ".join(parts)
