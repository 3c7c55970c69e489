"""Rooms with an owner, for tests: a handler that records its calls, and what it does beside that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from tests.programs import DEADLINE_S, wait_until
from wsthreads.monitoring.metrics import Histogram, Metrics
from wsthreads.sessions.handlers import PythonHandler
from wsthreads.sessions.hooks import ROOM_HOOKS

HOOKS = ("on_room_start", "on_post", "on_tick", "on_room_end")


class Game:
    """A handler in Python for one process. `calls` has all calls in their order: (hook, room, what else)."""

    def __init__(self, *, hooks: tuple[str, ...] = HOOKS, tick_rate: float = 20, process: int = 0) -> None:
        self.process = process
        self.calls: list[tuple[Any, ...]] = []
        #: What a function does beside recording its call, by its name.
        self.does: dict[str, Callable[..., None]] = {}
        self.fences: list[tuple[str, int]] = []  # of each start
        self.running: set[str] = set()  # rooms
        self.faults: list[str] = []
        self._lock = threading.Lock()
        for hook in hooks:
            setattr(self, hook, self._recorder(hook))
        if "on_tick" in hooks:
            self.tick_rate = tick_rate

    def _recorder(self, hook: str) -> Callable[..., None]:
        def start(room: Any) -> None:
            self._called("on_room_start", room)

        def post(room: Any, value: Any, sender: Any) -> None:
            self._called("on_post", room, value, sender)

        def tick(room: Any, dt: float) -> None:
            self._called("on_tick", room, dt)

        def end(room: Any) -> None:
            self._called("on_room_end", room)

        return {"on_room_start": start, "on_post": post, "on_tick": tick, "on_room_end": end}[hook]

    def _called(self, hook: str, room: Any, *values: Any) -> None:
        with self._lock:
            if room.name in self.running:
                self.faults.append(f"two calls at once for {room.name}")
            self.running.add(room.name)
            if hook == "on_room_start":
                self.fences.append((room.name, room.fencing_number))
            self.calls.append((hook, room.name, *values))
        try:
            action = self.does.get(hook)
            if action is not None:
                action(room, *values)
        finally:
            with self._lock:
                self.running.discard(room.name)

    def hooks_of(self, name: str) -> list[str]:
        """The calls for one room, in order."""
        return [hook for hook, room, *_ in self.calls if room == name]

    def values_of(self, name: str) -> list[Any]:
        """What `on_post` has got for one room, in order."""
        return [values[0] for hook, room, *values in self.calls if hook == "on_post" and room == name]

    def posted(self) -> list[Any]:
        """What `on_post` has got, in order."""
        return [values[0] for hook, _, *values in self.calls if hook == "on_post"]


class Owned:
    """The rooms of a world, each process with a `Game`. `world.timers`, if there are any, stand for the flusher."""

    def __init__(self, world: Any, *, timers: Any = None, threads: int = 4, **options: Any) -> None:
        self.world = world
        self.timers = timers
        self.games = [Game(process=nth, **options) for nth in range(len(world.all_rooms))]
        self.metrics = [Metrics() for _ in world.all_rooms]
        self.lags = [Histogram() for _ in world.all_rooms]
        self.handlers = []
        self.ownerships = []
        for rooms, game, metrics, lag in zip(world.all_rooms, self.games, self.metrics, self.lags, strict=True):
            handler = PythonHandler(game, metrics)
            self.handlers.append(handler)
            self.ownerships.append(
                rooms.use_ownership(
                    timers=timers or world.flusher,
                    run=handler.call_rooms,
                    hooks=lambda handler=handler: handler.hooks & ROOM_HOOKS,
                    tick_rate=lambda handler=handler: handler.tick_rate,
                    count=metrics.add,
                    tick_lag=lag,
                    threads=threads,
                    batch=1,
                    max_post_bytes=65536,
                    post_timeout_s=DEADLINE_S,
                )
            )
        for ownership in self.ownerships:
            ownership.refresh()

    def owner(self, name: str) -> Game:
        """The game of the process that owns a room, once one does."""
        return wait_until(lambda: next(iter(self._owners(name)), None), f"an owner of {name}")

    def _owners(self, name: str) -> list[Game]:
        pairs = zip(self.games, self.ownerships, strict=True)
        return [game for game, ownership in pairs if ownership.owns(name) is not None]

    def settle(self) -> None:
        for ownership in self.ownerships:
            assert ownership.settle(DEADLINE_S)

    def counted(self, name: str) -> int:
        return sum(metrics.snapshot().get(name, 0) for metrics in self.metrics)

    def calls(self) -> list[tuple[Any, ...]]:
        """The calls of all processes."""
        return [call for game in self.games for call in game.calls]

    def wait_call(self, *call: Any) -> None:
        """Wait for a call in any process."""
        wait_until(lambda: call in [some[: len(call)] for some in self.calls()], f"a call of {call}")

    def wait_free(self, name: str) -> None:
        """Wait until nobody owns a room, and nobody is about to."""
        wait_until(lambda: not any(name in ownership._mailboxes for ownership in self.ownerships), f"the end of {name}")

    def end(self) -> None:
        for ownership in self.ownerships:
            ownership.stop(DEADLINE_S)
        assert [game.faults for game in self.games] == [[]] * len(self.games)
