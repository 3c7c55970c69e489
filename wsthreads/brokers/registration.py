"""Registers this process at Redis, and reports that it is alive.

A process has a new name after each break, so that a late call of the old connection has no effect. The announcement of
a room removes the members that Redis counts under former names.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from wsthreads.brokers import scripts

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsthreads.brokers.keys import Keys
    from wsthreads.brokers.pipeline import Pipeline, Scripts

__all__ = ["Registration"]


class Registration:
    """Keeps the names of this process.

    Only the writer's thread uses this class. `process` is the permanent name, and `name` the current one.
    """

    def __init__(self, scripts: Scripts, keys: Keys, process: str) -> None:
        self._scripts = scripts
        self._keys = keys
        self.process = process
        self.name = ""
        #: The number of the next name.
        self.count = 0
        #: The shards of the rooms that were announced under the current name.
        self.shards: set[int] = set()
        #: The former names under which Redis may still count members, because some rooms are not announced under the
        #: current name.
        self.formers: list[str] = []
        self._former_shards: set[int] = set()

    def renew(self) -> None:
        """Use a new name from now on."""
        if self.name:
            self.formers.append(self.name)
            self._former_shards |= self.shards
        self.name = f"{self.process}.{self.count}"
        self.count += 1
        self.shards.clear()

    def is_known(self) -> bool:
        """Whether Redis still counts this process as alive, under its current name. Raises `RedisError`."""
        pipeline = self._scripts.pipeline()
        for shard in self.shards:
            pipeline.call(scripts.ALIVE, [self._keys.processes(shard)], self.name)
        dead = pipeline.execute()
        return bool(dead) and not any(dead)

    def beat(self, pipeline: Pipeline, on_given_up: Callable[[int], object]) -> None:
        """Report that this process is alive. `on_given_up` gets each shard that did not count this process as alive."""

        def note(shard: int, is_known: int) -> None:
            if not is_known:
                on_given_up(shard)

        for shard in sorted(self.shards):
            pipeline.call(scripts.BEAT, [self._keys.processes(shard)], self.name, then=partial(note, shard))

    def end_formers(self, pipeline: Pipeline) -> None:
        """Tell Redis that the former names no longer count as alive. Call `forget_formers` once this is done."""
        for shard in self._former_shards:
            pipeline.call(scripts.FAREWELL, [self._keys.processes(shard)], *self.formers)

    def forget_formers(self) -> None:
        self.formers.clear()
        self._former_shards.clear()

    def say_farewell(self) -> None:
        """Tell Redis that this process is no longer alive. Raises `RedisError`."""
        pipeline = self._scripts.pipeline()
        for shard in self.shards | self._former_shards:
            names = (self.name, self.process, *self.formers)
            pipeline.call(scripts.FAREWELL, [self._keys.processes(shard)], *names)
        pipeline.execute()
