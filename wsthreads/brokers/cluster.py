"""A link to a Redis Cluster: one link for each node, so that a node that hangs does not delay the rooms of others."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from wsthreads.brokers.link import RedisLink, Shared
from wsthreads.brokers.scripts import SHARDS, Keys

if TYPE_CHECKING:
    from wsthreads.brokers import Listener
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.sessions.session import Session

__all__ = ["ClusterLink"]


class ClusterLink:
    """A `Link` over a Redis Cluster. Its options are those of `RedisLink`.

    It looks up at the start which shards are on which node. If a shard moves to another node later, redis-py finds it
    there. From then on, each of the two nodes may delay its rooms when it hangs.
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
        self._starting = Lock()  # guards starting and stopping
        self._pid = 0  # the process in which the links run
        self._reset()

    def _reset(self) -> None:
        self._made_in = os.getpid()
        shared = Shared()
        self._by_node: dict[str, RedisLink] = {}
        self._by_shard: list[RedisLink] = []
        for shard in range(SHARDS):
            node = self._node_of(shard)
            if node not in self._by_node:
                self._by_node[node] = RedisLink(
                    self._client,
                    lambda: self._client,
                    self._keys,
                    self._metrics,
                    place=f"{self._place} ({node})",
                    cluster=shared,
                    shard=shard,
                    max_queued_bytes=self._max_queued_bytes,
                )
            self._by_shard.append(self._by_node[node])
        self.pending = shared.pending

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
                for link in self._by_node.values():
                    link.is_forked = self._pid != 0
            for link in self._by_node.values():
                link.start()
            self._pid = os.getpid()

    def publish(self, path: str, name: str, frame: bytes, exclude: Session | None) -> None:
        self.start()
        self._link_of(path, name).publish(path, name, frame, exclude)

    def update(self, path: str, name: str, listener: Listener) -> None:
        self.start()
        self._link_of(path, name).update(path, name, listener)

    def members_elsewhere(self, path: str, name: str) -> int:
        self.start()
        return self._link_of(path, name).members_elsewhere(path, name)

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
