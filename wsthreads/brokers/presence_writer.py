"""The writer's calls to Redis for presence.

These calls send changes of this process's sessions, and remove the presences of processes that have died.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from functools import partial
from time import time_ns
from typing import TYPE_CHECKING

from wsthreads.brokers import scripts
from wsthreads.brokers.messages import presence_payload
from wsthreads.brokers.queue import PresenceKey

if TYPE_CHECKING:
    from threading import Lock

    from wsthreads.brokers.interface import Listener
    from wsthreads.brokers.keys import Address, Keys
    from wsthreads.brokers.pipeline import Pipeline
    from wsthreads.brokers.queue import PresenceChanges, SendQueue

__all__ = ["PresenceWriter"]

#: After a break, other processes count as dead only after this time, because they may reconnect a little later.
HOLD_OFF_S = 6.0


class PresenceWriter:
    """Makes the calls for presence. Only the writer's thread uses this class.

    The arguments are parts of the `Writer`.
    """

    def __init__(
        self,
        keys: Keys,
        process: str,
        *,
        lock: Lock,
        queue: SendQueue,
        listeners: Callable[[], list[tuple[str, Listener]]],
        owned: Container[int],
    ) -> None:
        self._keys = keys
        self._process = process
        self._lock = lock
        self._queue = queue
        self._listeners = listeners
        self._owned = owned
        self._calls = 0  # the number of the last call; it is at least the time, so that it also grows over a restart
        #: When this process last made a connection, or Redis counted it as dead.
        self.greeted_at = 0.0

    def look_for_dead(self, pipeline: Pipeline, now: float) -> None:
        """Request the removal of presences that processes left when they ended."""
        if now - self.greeted_at < HOLD_OFF_S:  # other processes may soon reconnect, too
            return
        by_shard: dict[int, dict[str, list[PresenceKey]]] = {}
        for path, listener in self._listeners():
            for (shard, process), names in listener.watched_processes().items():
                if shard in self._owned:
                    where = by_shard.setdefault(shard, {}).setdefault(process, [])
                    where += (PresenceKey(listener, path, name) for name in names)

        def reap(rooms: dict[str, list[PresenceKey]], dead: list[bytes]) -> None:
            if self.greeted_at > now:
                return
            with self._lock:
                for process in (each.decode() for each in dead):
                    for key in rooms[process]:
                        self._queue.reap(key, [process])

        for shard, rooms in by_shard.items():
            pipeline.call(scripts.ALIVE, [self._keys.processes(shard)], *rooms, then=partial(reap, rooms))

    def keys_of(self, address: Address) -> list[bytes]:
        return [address.log, address.head, address.presence, self._keys.processes(address.shard)]

    def send(self, pipeline: Pipeline, key: PresenceKey, changed: PresenceChanges, epoch: str) -> None:
        """Store and publish the current state of some sessions."""
        sessions: list[object] = []
        for session_id, state in key.listener.own_presences(key.name, changed):
            if state is None:
                sessions += (session_id, b"", b"")
            else:
                kept_ms = b"" if state.lost_s is None else round(state.lost_s * 1000) + 1
                payload = presence_payload(state._replace(process=self._process))
                sessions += (session_id, payload, kept_ms)
        address = self._keys.address(key.path, key.name)
        self._calls = max(self._calls + 1, time_ns() // 1000)
        everything = int(changed is None)
        arguments = (address.channel, epoch, self._process, self._calls, everything, *sessions)
        pipeline.call(scripts.PRESENCE, self.keys_of(address), *arguments)

    def reap(self, pipeline: Pipeline, key: PresenceKey, dead: Iterable[str], epoch: str) -> None:
        """Remove presences from a room: those whose time is over, and those of dead processes."""
        address = self._keys.address(key.path, key.name)
        pipeline.call(scripts.REAP, self.keys_of(address), address.channel, epoch, *dead)
