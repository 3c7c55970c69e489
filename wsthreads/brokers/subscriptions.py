"""The subscriptions of this process: one for each room with members here."""

from __future__ import annotations

from collections import deque
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING

from wsthreads.brokers.subscription import Subscription
from wsthreads.rooms.names import is_hidden
from wsthreads.threads.lookups import look_up

if TYPE_CHECKING:
    from wsthreads.brokers.availability import Availability
    from wsthreads.brokers.interface import Listener
    from wsthreads.brokers.keys import Keys
    from wsthreads.brokers.process import Process
    from wsthreads.brokers.queue import SendQueue

__all__ = ["Subscriptions"]


class Subscriptions:
    """The subscriptions of one link. Any thread.

    The reader handles `changes`. The reader calls `subscribed` when Redis has confirmed a subscription, and `back` when
    a broadcast of this process has come back.
    """

    def __init__(self, keys: Keys, process: Process, *, queue: SendQueue, availability: Availability) -> None:
        self._keys = keys
        self._process = process
        self._lock = process.lock
        self._queue = queue
        self._availability = availability
        self._serials = count(1)
        #: The subscriptions, by the endpoint's path and the room's name. Guarded by the link's lock.
        self.rooms: dict[tuple[str, str], Subscription] = {}
        #: Changes for the reader, in order: true to subscribe to a room, false to end the subscription. The reader
        #: handles them when the next message arrives on the wake channel.
        self.changes: deque[tuple[bool, Subscription]] = deque()

    def update(self, path: str, name: str, listener: Listener) -> int:
        """Subscribe to a room if it has members in this process. Otherwise end the subscription. See `Link.update`."""
        key = (path, name)
        availability = self._availability
        forgotten: set[int] = set()
        with self._lock:
            room = look_up(self.rooms, key)
            is_member = listener.count_here(name) > 0
            waits = is_member and availability.answers and availability.heard_at >= availability.missed_at
            if is_member:
                self._process.is_forked = False
            if is_member and room is None:
                address = self._keys.address(path, name)
                keeps_history = listener.history_limits is not None and not is_hidden(name)
                room = self.rooms[key] = Subscription(
                    listener, name, address, next(self._serials), keeps_history=keeps_history
                )
                room.held = waits
                self.changes.append((True, room))
                self._queue.wake()
            elif room is None:
                return 0
            elif not is_member:
                del self.rooms[key]
                room.dropped, room.held = True, False
                self.changes.append((False, room))
                self._queue.wake()
                self._process.pending.forget(key)
                listener.forget_presences(name)
                room.ready.set()  # a thread that waits for the join must not wait any longer
                forgotten = room.tickets - {room.delivering}  # the reader ends the broadcast that it delivers now
                room.tickets -= forgotten
            self._queue.announce(room)
        for ticket in forgotten:
            self._process.pending.end(ticket)  # the broadcast will not come back to this process
        if waits and not room.ready.wait(availability.patience_s()):
            availability.missed_at = monotonic()
            availability.answers = False
            with self._lock:
                self._queue.release(room)
        return 0 if room.dropped else room.serial

    def serial(self, path: str, name: str) -> int:
        room = look_up(self.rooms, (path, name))
        return room.serial if room is not None and room.ready.is_set() else 0

    def tickets(self) -> list[int]:
        """The tickets of the broadcasts to these rooms that have not come back."""
        with self._lock:
            return [ticket for room in self.rooms.values() for ticket in room.tickets]

    def subscribed(self, room: Subscription) -> None:
        """Let the writer announce a room, because the reader has subscribed to it. Called in the reader's thread."""
        with self._lock:
            self._queue.release(room)

    def back(self, room: Subscription, ticket: int) -> None:
        """End a broadcast of this process: it has come back, and the members have it. Called in the reader's thread."""
        with self._lock:
            if ticket not in room.tickets:
                return  # the broadcast was forgotten, or it belongs to a later subscription and has not come back
            room.tickets.remove(ticket)
        self._process.pending.end(ticket)
