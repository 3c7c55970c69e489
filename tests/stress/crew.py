"""All client threads. Each has a queue of tasks; a barrier marks the end of a common task."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from time import monotonic

from tests.stress.history import Violations, Wrong
from tests.stress.roamer import Roamer
from tests.stress.world import Over

STACK_BYTES = 512 * 1024


class _Task:
    """A task of several threads; one thread waits for its end."""

    def __init__(self, parties: int) -> None:
        self._left = parties
        self._changed = threading.Condition()

    def finished(self) -> None:
        with self._changed:
            self._left -= 1
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """False if a thread does not finish in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._left, timeout_s)


class Crew:
    """A thread for each roamer. Only the creating thread calls the methods."""

    def __init__(self, roamers: Iterable[Roamer], violations: Violations) -> None:
        self._violations = violations
        self._queues: dict[Roamer, SimpleQueue[tuple[Callable[[], None], _Task] | None]] = {}
        self._threads = []
        before = threading.stack_size(STACK_BYTES)
        for roamer in roamers:
            self._queues[roamer] = SimpleQueue()
            thread = threading.Thread(target=self._live, args=(roamer,), name=f"client-{roamer.number}", daemon=True)
            self._threads.append(thread)
            thread.start()
        threading.stack_size(before)

    @property
    def all(self) -> list[Roamer]:
        return list(self._queues)

    @property
    def connected(self) -> list[Roamer]:
        return [roamer for roamer in self._queues if roamer.visit is not None]

    def counts(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for roamer in self._queues:
            total.update(dict(roamer.counts))
        return total

    def do(
        self,
        what: str,
        tasks: dict[Roamer, Callable[[], None]],
        timeout_s: float,
        every_second: Callable[[], None] = lambda: None,
    ) -> None:
        """Run a function for each roamer at the same time, and wait for all. Raises `Wrong` if that takes too long."""
        task = _Task(len(tasks))
        for roamer, function in tasks.items():
            self._queues[roamer].put((function, task))
        deadline = monotonic() + timeout_s
        while not task.wait(1.0):
            every_second()
            if monotonic() > deadline:
                raise Wrong("progress", f"{what} was not over within {timeout_s:g} s")

    def end(self) -> None:
        """End all threads that are not stuck, and close all sockets."""
        for roamer, queue in self._queues.items():
            queue.put(None)
            roamer.abandon()
        for thread in self._threads:
            thread.join(1.0)

    def _live(self, roamer: Roamer) -> None:
        queue = self._queues[roamer]
        while (order := queue.get()) is not None:
            function, task = order
            try:
                function()
            except Wrong as wrong:
                self._violations.add(wrong.check, f"client {roamer.number}: {wrong.text}")
            except Over:
                pass  # the cause has been reported
            except Exception as error:
                self._violations.add("stress test", f"client {roamer.number}: {error!r}")
                raise
            finally:
                task.finished()
