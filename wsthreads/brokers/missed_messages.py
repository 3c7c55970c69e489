"""Reads the messages that a session has missed in its rooms while it moved to this process.

The logs of the rooms have these messages. The messages of several rooms are put into one order, by their times in
Redis. Within one millisecond, the messages of each sender are in the order of their tickets. A close comes after the
messages of other senders, because the session may have been meant to get these first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from wsthreads.brokers import messages
from wsthreads.brokers.positions import Position
from wsthreads.errors import BrokerError
from wsthreads.protocol.frames import message_frame
from wsthreads.rooms.names import SESSIONS_ROOM

__all__ = ["MISSED", "Gap", "Missed", "Replay", "in_order", "read_missed", "replay_for"]

#: Reads a part of a log. KEYS: log. ARGV: the id of an entry; the id of a later entry; the largest number of entries;
#: the id of a session, or an empty text. Returns the entries after the first one, up to the second one. If a session is
#: given, the messages for other sessions are replaced by empty texts.
MISSED = """
local entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], ARGV[2], 'COUNT', ARGV[3])
for i = 1, ARGV[4] ~= '' and #entries or 0 do
  local message = entries[i][2][6]
  if message and string.match(message, '^%S+ %S+ %S+ (%S+) ') ~= ARGV[4] then
    entries[i][2][6] = ''
  end
end
return entries
"""

#: How many entries one call reads.
READ_ENTRIES = 500


class Gap(BrokerError):
    """A log no longer has all messages, or a session has missed too many."""


class Missed(NamedTuple):
    """A message in the log of a room."""

    name: str
    position: Position
    message: messages.Message

    @property
    def milliseconds(self) -> int:
        return int(self.position.id.partition(b"-")[0])


def read_missed(
    call: Callable[..., Any], session_id: str, spans: Mapping[str, tuple[Position, Position]], max_bytes: int
) -> list[Missed]:
    """Read the messages that a session has missed in some rooms, in order. `spans` has two positions for each room.

    `call` runs a script for a room. It gets the room's name, the script, the names of the keys, and the arguments.

    Raises `Gap`. Raises `BrokerError` if Redis is unavailable.
    """
    left, streams = max_bytes, []
    for name, (after, until) in spans.items():
        only_for = session_id if name == SESSIONS_ROOM else ""
        stream: list[Missed] = []
        while count := _missed(name, after, until):
            entries = call(name, MISSED, ["log"], after.id, until.id, min(count, READ_ENTRIES), only_for)
            if not entries:
                raise Gap(f"the log of room {name!r:.80} no longer has what the session missed")
            for entry, fields in entries:
                position, former, data = _parse(name, until.epoch, entry, fields)
                if not after.is_followed_by(position, former):
                    raise Gap(f"the log of room {name!r:.80} no longer has all that the session missed")
                after = position
                if data:
                    stream.append(Missed(name, position, _decoded(name, data)))
                left -= len(data)
                if left < 0:
                    raise Gap(f"the session has missed more than {max_bytes} bytes")
        if stream:
            streams.append(stream)
    return streams[0] if len(streams) == 1 else in_order(streams)


def _missed(name: str, after: Position, until: Position) -> int:
    count = after.missed_until(until)
    if count is None:
        raise Gap(f"the log of room {name!r:.80} was replaced, or lost messages, since the session left")
    return count


def _parse(name: str, epoch: bytes, entry: bytes, fields: list[bytes]) -> tuple[Position, bytes, bytes]:
    """Parse an entry of a log: its position, the id of the entry before it, and the message."""
    try:
        _, number, _, former, _, data = fields
        return Position(epoch, messages.whole(number), entry), former, data
    except ValueError:
        raise _malformed(name) from None


def _decoded(name: str, data: bytes) -> messages.Message:
    try:
        return messages.decode(data)
    except BrokerError:
        raise _malformed(name) from None


def _malformed(name: str) -> Gap:
    return Gap(f"the log of room {name!r:.80} has a malformed entry")


class Replay(NamedTuple):
    """Those of the missed messages that the session has to get."""

    #: Plain frames, in order. No frame replaces an earlier one with the same key.
    frames: list[bytes]
    #: The code and the reason with which the session was closed while it moved. None if it was not closed.
    ending: tuple[int, str] | None


def replay_for(session_id: str, missed: Iterable[Missed]) -> Replay:
    """What a session gets of the messages in its rooms: all frames before the first close, and that close."""
    frames: list[bytes] = []
    tickets: dict[tuple[str, bytes], int] = {}
    for name, _, message in missed:
        if isinstance(message, messages.PresenceChange):
            continue
        if message.ticket <= tickets.get((name, message.sender), -1):  # published twice
            continue
        tickets[name, message.sender] = message.ticket
        if isinstance(message, messages.Broadcast):
            if message.exclude_id != session_id:
                frames.append(bytes(message.frame))
        elif message.session_id == session_id or (message.session_id is None and name != SESSIONS_ROOM):
            if isinstance(message, messages.Close):
                return Replay(frames, (message.code, message.reason))
            frames.append(message_frame(message.message))
    return Replay(frames, None)


def in_order(streams: Iterable[list[Missed]]) -> list[Missed]:
    """Put the messages of several rooms into one order. The order within each room stays."""
    waiting = [list(reversed(stream)) for stream in streams]
    merged: list[Missed] = []
    while waiting := [stream for stream in waiting if stream]:
        earliest = min(stream[-1].milliseconds for stream in waiting)
        heads = [stream for stream in waiting if stream[-1].milliseconds == earliest]
        first = heads[0]
        if len(heads) > 1:
            lowest = _lowest_tickets(heads, earliest)
            heads = [stream for stream in heads if _is_next(stream[-1].message, lowest)] or heads
            first = next((stream for stream in heads if not isinstance(stream[-1].message, messages.Close)), heads[0])
        merged.append(first.pop())
    return merged


def _lowest_tickets(streams: list[list[Missed]], milliseconds: int) -> dict[bytes, int]:
    """The lowest ticket of each sender among the messages of one millisecond."""
    lowest: dict[bytes, int] = {}
    for stream in streams:
        for missed in reversed(stream):
            if missed.milliseconds != milliseconds:
                break
            message = missed.message
            if not isinstance(message, messages.PresenceChange):
                lowest[message.sender] = min(lowest.get(message.sender, message.ticket), message.ticket)
    return lowest


def _is_next(message: messages.Message, lowest: Mapping[bytes, int]) -> bool:
    return isinstance(message, messages.PresenceChange) or message.ticket == lowest[message.sender]
