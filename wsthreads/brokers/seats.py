"""Seats in rooms with `max_members`. Redis gives them, because it counts the members of all processes.

A seat that was given counts as a member of this process (see `Listener.count_here`), so that an announcement of the
room does not remove it. One call asks for all seats of a room that threads wait for.

After Redis has lost its data, its count is incomplete until all processes have announced their members again. So this
process gives no seat for `SETTLE_S` in two cases:

- Redis has lost its data, or has counted this process as dead. Then other processes may be missing in the count, too.

- Another process with members in the room does not count as alive, but is still subscribed to its wake channel. This
  case happens once for each such process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsthreads.brokers.keys import ALIVE_S, BEAT_S, KEYS_S
from wsthreads.brokers.log_scripts import LIVE_ON, NOW
from wsthreads.brokers.scripts import MAY_LIVE

if TYPE_CHECKING:
    from threading import Lock

    from wsthreads.brokers.interface import Listener
    from wsthreads.brokers.keys import Address, Keys
    from wsthreads.brokers.pipeline import Pipeline
    from wsthreads.brokers.registration import Registration

__all__ = ["SETTLE_S", "Seat", "Seats"]

#: How long other processes may take to announce their members again: until their next beat, plus a new connection.
SETTLE_S = BEAT_S + 2.0

#: How many names of processes without a further wait are remembered.
MAX_DOUBTED = 100

#: Gives seats. KEYS: members, processes. ARGV: the process; how many members it has; 1 if it should count as alive,
#: otherwise 0; its former names, separated by spaces; its wake channel; names of dead processes, each between spaces;
#: then the largest number of members, for each seat.
#:
#: Returns whether each seat is given. Returns an empty list if the process should count as alive but does not. If some
#: process may not be dead, no seat is given, and the script returns that process's name.
SEAT = f"""
{NOW} {LIVE_ON} {MAY_LIVE}
local alive = redis.call('ZSCORE', KEYS[2], ARGV[1])
if ARGV[3] == '1' and not (alive and tonumber(alive) >= now) then
  return {{}}
end
local alive_until = string.format('%.0f', now + {ALIVE_S * 1000})
redis.call('ZADD', KEYS[2], alive_until, ARGV[1], alive_until, string.match(ARGV[1], '^[^.]+'))
live_on(KEYS[2], {KEYS_S * 1000})
for former in string.gmatch(ARGV[4], '%S+') do
  redis.call('HDEL', KEYS[1], former)
end
local own, others, given, doubted = tonumber(ARGV[2]), 0, {{}}, nil
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  alive = all[i] ~= ARGV[1] and redis.call('ZSCORE', KEYS[2], all[i])
  if alive and tonumber(alive) >= now then
    others = others + whole(all[i + 1])
  elseif all[i] ~= ARGV[1] and not string.find(ARGV[6], ' ' .. all[i] .. ' ', 1, true)
      and may_live(all[i], KEYS[2], ARGV[5]) then
    doubted = all[i]
  end
end
for i = 7, doubted and 0 or #ARGV do
  given[#given + 1] = others + own < tonumber(ARGV[i]) and 1 or 0
  own = own + given[#given]
end
if own > 0 then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', own))
  live_on(KEYS[1], {KEYS_S * 1000})
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return doubted and {{doubted}} or given
"""


def _nothing() -> None:
    """The default for `take`. Does nothing."""


UNSETTLED = (
    "possibly does not know all members yet, because it was unavailable for long, has lost its data, or its clock was "
    f"set; try again in {SETTLE_S:g} s"
)


class Seat:
    """A seat in a room. A thread waits until Redis has given it or refused it.

    If `max_members` is 0, no seat is asked for. The call then only updates the count of this process's members.
    """

    __slots__ = ("address", "answered", "is_given", "is_given_up", "listener", "max_members", "name", "problem", "take")

    def __init__(
        self, listener: Listener, name: str, address: Address, max_members: int, take: Callable[[], None] = _nothing
    ) -> None:
        self.listener = listener
        self.name = name
        self.address = address
        self.max_members = max_members
        #: Called by the writer's thread when the seat is given, before the members are counted again.
        self.take = take
        self.answered = Event()
        #: Whether the seat was given. None if this is not known.
        self.is_given: bool | None = None
        #: Why it is not known whether the seat was given.
        self.problem = "has not answered whether the room is full"
        #: Whether no thread waits for the seat any longer. Guarded by the link's lock.
        self.is_given_up = False


class Seats:
    """Asks Redis for seats. Only the writer's thread uses this class.

    `queue` gets a seat to ask for, and is called with `lock` held. `registration` has the names of this process, and
    the shards that know this process. `channel` is this process's wake channel.
    """

    def __init__(
        self,
        keys: Keys,
        lock: Lock,
        queue: Callable[[Seat], None],
        registration: Registration,
        channel: bytes,
    ) -> None:
        self._keys = keys
        self._lock = lock
        self._queue = queue
        self._registration = registration
        self._channel = channel
        self._doubted: deque[bytes] = deque(maxlen=MAX_DOUBTED)
        self._settled_at = 0.0

    def unsettle(self) -> None:
        """Give no seats for a while, because the count in Redis may be incomplete."""
        self._settled_at = monotonic() + SETTLE_S

    def ask(self, pipeline: Pipeline, seats: Iterable[Seat], given_up: set[int]) -> None:
        """Add calls to the pipeline that ask for seats. `given_up` gets the shards that no longer know this process."""
        registration = self._registration
        by_room: dict[bytes, list[Seat]] = {}
        is_settled = monotonic() >= self._settled_at
        for seat in seats:
            if is_settled or not seat.max_members:
                by_room.setdefault(seat.address.members, []).append(seat)
            else:
                seat.problem = UNSETTLED
        for same in by_room.values():
            first = same[0]
            keys = [first.address.members, self._keys.processes(first.address.shard)]
            count, is_known = first.listener.count_here(first.name), int(first.address.shard in registration.shards)
            arguments = [registration.name, count, is_known, " ".join(registration.formers), self._channel]
            arguments += (b" %b " % b" ".join(self._doubted), *(seat.max_members for seat in same))
            pipeline.call(SEAT, keys, *arguments, then=partial(self._take, same, given_up))

    def _take(self, seats: list[Seat], given_up: set[int], answer: Sequence[Any]) -> None:
        """Handle the answer of Redis."""
        shard = seats[0].address.shard
        if answer and isinstance(answer[0], bytes):  # the other process may be alive, so it gets time for announcements
            self._doubted.append(answer[0])
            self.unsettle()
            for seat in seats:
                seat.problem = UNSETTLED
            return
        if not answer:
            given_up.add(shard)
        self._registration.shards.add(shard)
        if shard in given_up:
            self.unsettle()
            for seat in seats:
                seat.problem = UNSETTLED
        is_counted = True
        for seat, is_given in zip(seats, answer, strict=False):
            with self._lock:
                if shard in given_up or seat.is_given_up:
                    is_counted = is_counted and not is_given
                else:
                    seat.is_given = bool(is_given)
                    if is_given:
                        seat.take()
        if not is_counted:  # Redis has counted a member that does not exist
            with self._lock:
                self._queue(Seat(seats[0].listener, seats[0].name, seats[0].address, 0))
