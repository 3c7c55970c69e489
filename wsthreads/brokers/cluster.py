"""A link to a Redis Cluster.

This link has one further link for each node, so that a node that hangs delays only its own rooms.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from wsthreads.brokers.keys import ASK_SHARD, SHARDS, Keys
from wsthreads.brokers.link import RedisLink
from wsthreads.brokers.process import Endpoints, Process
from wsthreads.rooms.names import SESSIONS_ROOM

if TYPE_CHECKING:
    from wsthreads.brokers import Listener
    from wsthreads.brokers.interface import Keeper, Look, RoomKey
    from wsthreads.brokers.messages import PresenceChange
    from wsthreads.brokers.positions import Position
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.rooms.posts import Settled
    from wsthreads.sessions.session import Session

__all__ = ["ClusterLink"]

#: How long the reader of one node waits for the reader of another node. A reader that waits delivers nothing.
MEET_S = 0.3


class ClusterLink:
    """A `Link` over a Redis Cluster. Its options are those of `RedisLink`.

    At the start, this link looks up which shards are on which node. If a shard moves to another node later, redis-py
    finds the shard there. From then on, the shard's rooms may be delayed if the old node hangs, or the new one.
    """

    def __init__(
        self,
        client: Any,
        client_of_fork: Callable[[], Any],
        keys: Keys,
        metrics: Metrics,
        *,
        place: str,
        max_queued_bytes: int,
    ) -> None:
        self._client = client
        self._client_of_fork = client_of_fork
        self._keys = keys
        self._metrics = metrics
        self._place = place
        self._max_queued_bytes = max_queued_bytes
        self._endpoints = Endpoints()
        self._starting = Lock()  # guards starting and stopping
        self._pid = 0  # the process in which the links run
        self._reset()

    def _reset(self) -> None:
        self._made_in = os.getpid()
        self._process = Process(self._endpoints)
        nodes = [self._node_of(shard) for shard in range(SHARDS)]
        self._by_node: dict[str, RedisLink] = {
            node: RedisLink(
                self._client,
                lambda: self._client,
                self._keys,
                self._metrics,
                place=f"{self._place} ({node})",
                cluster=self._process,
                shards=[shard for shard in range(SHARDS) if nodes[shard] == node],
                max_queued_bytes=self._max_queued_bytes,
            )
            for node in dict.fromkeys(nodes)
        }
        self._by_shard = [self._by_node[node] for node in nodes]
        self.pending = self._process.pending
        self.process = self._process.name

    def _node_of(self, shard: int) -> str:
        try:
            return str(self._client.get_node_from_key(self._keys.processes(shard)).name)
        except RedisError:  # no node serves the shard at present
            return "no node"

    def start(self) -> None:
        if self._pid == os.getpid():
            return
        with self._starting:
            if self._pid == os.getpid():
                return
            if self._made_in != os.getpid():
                self._client = self._client_of_fork()
                self._reset()
                self._process.is_forked = self._pid != 0
            for link in self._by_node.values():
                link.start()
            self._pid = os.getpid()

    def publish(
        self, path: str, name: str, frame: bytes, exclude: Session | None, kept: tuple[str, int] | None = None
    ) -> None:
        self.start()
        self._link_of(path, name).publish(path, name, frame, exclude, kept)

    def patience_s(self, path: str, name: str) -> float:
        return self._link_of(path, name).patience_s(path, name)

    def wait_published(self, path: str, name: str) -> None:
        self._link_of(path, name).wait_published(path, name)

    def update(self, path: str, name: str, listener: Listener) -> int:
        self.start()
        return self._link_of(path, name).update(path, name, listener)

    def members_elsewhere(self, path: str, name: str) -> int:
        self.start()
        return self._link_of(path, name).members_elsewhere(path, name)

    def call(self, path: str, name: str, script: str, keys: Sequence[str], *arguments: object) -> Any:
        self.start()
        return self._link_of(path, name).call(path, name, script, keys, *arguments)

    def call_all(self, path: str, calls: Sequence[tuple[str, str, Sequence[str], Sequence[object]]]) -> list[Any]:
        self.start()
        return [self._link_of(path, name).call(path, name, script, keys, *rest) for name, script, keys, rest in calls]

    def call_for_session(self, path: str, session_id: str, script: str, *arguments: object) -> Any:
        self.start()
        return self._link_of(path, SESSIONS_ROOM).call_for_session(path, session_id, script, *arguments)

    def call_for_sessions(self, path: str, session_ids: Sequence[str], script: str, *arguments: object) -> Any:
        self.start()
        return self._link_of(path, SESSIONS_ROOM).call_for_sessions(path, session_ids, script, *arguments)

    def refresh(self, rooms: Sequence[RoomKey]) -> None:
        self.start()
        for link, keys in self._by_link(rooms).items():
            link.refresh(keys)

    def checkpoint(self, rooms: Sequence[RoomKey], look: Look, timeout_s: float) -> bool:
        """Like `checkpoint` of `Link`. The reader of each node waits for the reader of the next node, at most `MEET_S`.

        While they wait, no reader delivers messages, so `look` sees the rooms of all nodes at the same moment.
        """
        self.start()
        first, *others = self._by_link(rooms).items()
        for link, keys in reversed(others):
            look = partial(_look_too, link, keys, look)
        return first[0].checkpoint(first[1], look, timeout_s)

    def _by_link(self, rooms: Sequence[RoomKey]) -> dict[RedisLink, list[RoomKey]]:
        """The rooms of each link that has some of them. The links are always in the same order."""
        by_link: dict[RedisLink, list[RoomKey]] = {link: [] for link in self._by_node.values()}
        for key in rooms:
            by_link[self._link_of(*key)].append(key)
        return {link: keys for link, keys in by_link.items() if keys}

    def register(self, path: str, listener: Listener) -> None:
        self._endpoints.register(path, listener)

    def close(self, path: str, name: str, code: int, reason: str, ban_s: float, session_id: str | None = None) -> None:
        self.start()
        self._link_of(path, name).close(path, name, code, reason, ban_s, session_id)

    def send_to_session(self, path: str, session_id: str, frame: bytes) -> None:
        self.start()
        self._link_of(path, SESSIONS_ROOM).send_to_session(path, session_id, frame)

    def ban_of(self, path: str, name: str) -> tuple[int, str, float] | None:
        self.start()
        return self._link_of(path, name).ban_of(path, name)

    def take_seat(self, path: str, name: str, listener: Listener, max_members: int, take: Callable[[], None]) -> bool:
        self.start()
        return self._link_of(path, name).take_seat(path, name, listener, max_members, take)

    def give_seat_back(self, path: str, name: str, listener: Listener) -> None:
        self._link_of(path, name).give_seat_back(path, name, listener)

    def serial(self, path: str, name: str) -> int:
        return self._link_of(path, name).serial(path, name)

    def has_room(self, path: str, name: str) -> bool:
        return self._link_of(path, name).has_room(path, name)

    def is_subscribed(self, path: str, name: str) -> bool:
        return self._link_of(path, name).is_subscribed(path, name)

    def change_presence(self, path: str, name: str, listener: Listener, session_id: str) -> None:
        self.start()
        self._link_of(path, name).change_presence(path, name, listener, session_id)

    def reap(self, path: str, name: str, listener: Listener) -> None:
        self._link_of(path, name).reap(path, name, listener)

    def presences(self, path: str, name: str) -> list[PresenceChange] | None:
        self.start()
        return self._link_of(path, name).presences(path, name)

    def shard(self, path: str, name: str) -> int:
        return self._keys.address(path, name).shard

    def own(self, path: str, name: str, keeper: Keeper) -> None:
        self.start()
        self._link_of(path, name).own(path, name, keeper)

    def disown(self, path: str, name: str, fence: int) -> None:
        self._link_of(path, name).disown(path, name, fence)

    def is_closed(self, path: str, name: str) -> bool:
        return self._link_of(path, name).is_closed(path, name)

    def owns(self, path: str, name: str, fence: int) -> bool:
        return self._link_of(path, name).owns(path, name, fence)

    def post(self, path: str, name: str, payload: bytes, timeout_s: float, settled: Settled) -> None:
        self.start()
        self._link_of(path, name).post(path, name, payload, timeout_s, settled)

    def answer(self, kind: str, function: Callable[[Any], Any]) -> None:
        self._endpoints.answer(kind, function)

    def ask(
        self, kind: str, argument: Any, timeout_s: float = 1.0, enough: Callable[[Any], bool] | None = None
    ) -> list[dict[str, Any]]:
        self.start()
        return self._by_shard[ASK_SHARD].ask(kind, argument, timeout_s, enough)

    def ask_all(
        self, kind: str, argument: Any, timeout_s: float, enough: Callable[[Any], bool]
    ) -> tuple[list[dict[str, Any]], bool]:
        self.start()
        return self._by_shard[ASK_SHARD].ask_all(kind, argument, timeout_s, enough)

    def tell(self, kind: str, argument: Any) -> None:
        self.start()
        self._by_shard[ASK_SHARD].tell(kind, argument)

    def _link_of(self, path: str, name: str) -> RedisLink:
        return self._by_shard[self._keys.address(path, name).shard]

    def waiting(self) -> int:
        return sum(link.waiting() for link in self._by_node.values())

    def stop(self, timeout_s: float) -> None:
        deadline = monotonic() + timeout_s
        with self._starting:
            for link in self._by_node.values():
                link.stop(max(0.1, deadline - monotonic()))

    def release(self) -> None:
        for link in self._by_node.values():
            link.release()


def _look_too(link: RedisLink, keys: Sequence[RoomKey], look: Look, positions: Mapping[RoomKey, Position]) -> bool:
    """Let the reader's thread of another node call `look`. Called in a reader's thread."""
    found = False

    def look_once(more: Mapping[RoomKey, Position]) -> bool:
        nonlocal found
        found = look({**positions, **more})
        return True  # let the thread that waits for this call continue

    return link.checkpoint(keys, look_once, MEET_S) and found
