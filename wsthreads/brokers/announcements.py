"""Announces to Redis each room with members in this process, and the number of these members.

Redis answers with the number of members in other processes, and the end of the room's log. After a break of the
connection, this process announces all its rooms again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wsthreads.brokers import scripts
from wsthreads.brokers.keys import TOUCH_S
from wsthreads.brokers.messages import parse_ban
from wsthreads.brokers.positions import Position
from wsthreads.brokers.queue import PresenceKey, Question

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from threading import Lock

    from wsthreads.brokers.interface import Listener
    from wsthreads.brokers.keys import Keys
    from wsthreads.brokers.pipeline import Pipeline
    from wsthreads.brokers.queue import SendQueue
    from wsthreads.brokers.reader import Reader
    from wsthreads.brokers.registration import Registration
    from wsthreads.brokers.subscription import Subscription
    from wsthreads.brokers.subscriptions import Subscriptions

__all__ = ["Announcements"]


class Announcements:
    """Sends the announcements of rooms. Only the writer's thread uses this class.

    The arguments are parts of the `Writer`.
    """

    def __init__(
        self,
        keys: Keys,
        registration: Registration,
        wake_channel: bytes,
        *,
        lock: Lock,
        queue: SendQueue,
        subscriptions: Subscriptions,
        reader: Reader,
        listeners: Callable[[], list[tuple[str, Listener]]],
    ) -> None:
        self._keys = keys
        self._registration = registration
        self._wake_channel = wake_channel
        self._lock = lock
        self._queue = queue
        self._rooms = subscriptions.rooms
        self._reader = reader
        self._listeners = listeners

    def send(self, pipeline: Pipeline, room: Subscription, epoch: str, now: float, given_up: set[int]) -> None:
        """Announce a room. If Redis has lost the data of this process, add the room's shard to `given_up`."""
        where, registration = room.address, self._registration
        keys = [where.log, where.head, where.members, self._keys.processes(where.shard), where.presence, where.ban]
        keys.append(where.attributes)
        keep_ms = int(room.listener.keep_s * 1000)
        members = room.listener.count_here(room.name)
        name = b"" if room.known else b"%d %b" % (room.serial, where.channel)
        room.expected_on = room.subscribed_on

        def note(answer: list[Any]) -> None:
            elsewhere, *head, is_new, ban, ban_ms = answer
            if is_new and where.shard in registration.shards:
                # Redis has lost its data; the next call of the script `BEAT` will not show that
                given_up.add(where.shard)
            if ban:
                _tell_of_ban(room, ban, ban_ms)
            registration.shards.add(where.shard)
            self._announced(room, elsewhere, Position(head[0], int(head[1]), head[2]), now)

        arguments = (registration.name, members, epoch, name, self._wake_channel, keep_ms, *registration.formers)
        pipeline.call(scripts.ANNOUNCE, keys, *arguments, then=note)

    def _announced(self, room: Subscription, elsewhere: int, head: Position, now: float) -> None:
        room.elsewhere = elsewhere
        room.touched_at = now
        if not room.known:
            room.start, room.announced, room.announced_at = head, head, now
            room.known = True
        elif now - room.announced_at < TOUCH_S / 2:
            return
        elif room.position.epoch != room.announced.epoch or room.position.number < room.announced.number:
            # these messages were already in Redis at the last announcement, but this process has not received them
            self._reader.check(room)
        room.announced, room.announced_at = head, now

    def announce_all(self) -> None:
        """Announce all rooms, before everything else in the queue."""
        with self._lock:
            self._queue.announce_all(self._rooms.values())

    def announce_again(self, shards: Container[int], before: float) -> None:
        """Announce the rooms of some shards again, and all rooms that were last announced before `before`.
        """
        with self._lock:
            for room in self._rooms.values():
                if room.address.shard in shards or room.touched_at < before:
                    self._queue.announce(room)

    def share_again(self, shards: Container[int]) -> None:
        """Compare all presences of this process in some shards with those in Redis, and store its bans in Redis.

        Called after Redis was unavailable, or has lost its data, or has taken this process for dead.
        """
        presences: list[PresenceKey] = []
        bans: list[Question] = []
        for path, listener in self._listeners():
            names = listener.presence_names()
            presences += (
                PresenceKey(listener, path, name) for name in names if self._keys.address(path, name).shard in shards
            )
            for name, code, reason, ban_s in listener.bans():
                address = self._keys.address(path, name)
                if address.shard in shards and ban_s >= 0.001:
                    value = json.dumps([code, reason])
                    bans.append(Question(scripts.BAN, [address.ban], value, int(ban_s * 1000)))
        with self._lock:
            for key in presences:
                self._queue.change_presence(key, None)
            for ban in bans:
                self._queue.ask(ban)


def _tell_of_ban(room: Subscription, ban: bytes, ban_ms: int) -> None:
    found = parse_ban(ban, ban_ms)
    if found is not None and not room.dropped:
        room.listener.found_ban(room.name, *found)
