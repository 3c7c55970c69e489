"""What waits for Redis: broadcasts, in their order and within a bound, and rooms to be announced in their places.

A room is announced behind what was broadcast before its first member joined, and before what is broadcast after it: so
the member gets the one and not the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice, takewhile
from typing import NamedTuple

from wsthreads.brokers.reader import SharedRoom
from wsthreads.brokers.scripts import Address

__all__ = ["Order", "Orders"]

#: At most so much is sent at once.
BATCH_MESSAGES = 256
BATCH_BYTES = 1024 * 1024
BATCH_ROOMS = 512

#: What a broadcast that waits takes beside itself, roughly.
OVERHEAD_BYTES = 200


class Order(NamedTuple):
    """A broadcast that Redis has not acknowledged."""

    address: Address
    ticket: int
    message: bytes


class Orders:
    """Not thread-safe: its owner's lock is held for every call."""

    def __init__(self, max_bytes: int) -> None:
        #: The ticket of the next broadcast.
        self.next_ticket = 0
        #: What those that wait take.
        self.waiting_bytes = 0
        self._max_bytes = max_bytes
        self._broadcasts: deque[Order] = deque()
        # By key: a room, and the ticket that was next when it changed; in the order of these.
        self._changed: dict[bytes, tuple[SharedRoom, int]] = {}

    def has_space(self, size: int) -> bool:
        """Whether a broadcast is within the bound. One is, whatever its size, where nothing else waits."""
        return not self._broadcasts or self.waiting_bytes + size + OVERHEAD_BYTES <= self._max_bytes

    def add(self, address: Address, message: bytes) -> None:
        """A broadcast, which has the next ticket."""
        self._broadcasts.append(Order(address, self.next_ticket, message))
        self.next_ticket += 1
        self.waiting_bytes += len(message) + OVERHEAD_BYTES

    def announce(self, room: SharedRoom) -> None:
        """A room whose members have changed. How many there are is looked up when it is announced."""
        key = room.address.members
        if key not in self._changed or self._changed[key][0] is not room:
            self._changed.pop(key, None)
            self._changed[key] = (room, self.next_ticket)

    def announce_all(self, rooms: Iterable[SharedRoom]) -> None:
        """These first of all, but for those that Redis never heard of: they keep their places."""
        new = {key: change for key, change in self._changed.items() if not change[0].known}
        known = {room.address.members: (room, 0) for room in rooms}
        self._changed = {key: change for key, change in known.items() if key not in new} | new

    def take_rooms(self) -> list[SharedRoom]:
        """The rooms to be announced now, before any other broadcast; many at once."""
        first = self._broadcasts[0].ticket if self._broadcasts else self.next_ticket
        due = (key for key, _ in takewhile(lambda item: item[1][1] <= first, self._changed.items()))
        return [self._changed.pop(key)[0] for key in list(islice(due, BATCH_ROOMS))]

    def batch(self) -> list[Order]:
        """The broadcasts to be sent now, up to the next room to be announced. They stay until they are `done`."""
        end = next((ticket for _, ticket in self._changed.values()), self.next_ticket)
        batch: list[Order] = []
        size = 0
        for order in self._broadcasts:
            if order.ticket >= end or len(batch) == BATCH_MESSAGES or size >= BATCH_BYTES:
                break
            batch.append(order)
            size += len(order.message)
        return batch

    def done(self, count: int) -> None:
        """Redis has the first `count` broadcasts."""
        for _ in range(count):
            self.waiting_bytes -= len(self._broadcasts.popleft().message) + OVERHEAD_BYTES

    def __len__(self) -> int:
        """How many broadcasts wait."""
        return len(self._broadcasts)

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._broadcasts or self._changed)
