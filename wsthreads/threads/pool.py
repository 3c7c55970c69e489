"""A few threads for calls that may take long, such as calls of a handler's functions for rooms.

A thread starts when items wait and no other thread is free, up to the limit. A thread works on one batch of items at a
time. If more items wait, it first wakes another thread, because its own batch may take long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from queue import SimpleQueue
from threading import Condition, Lock, Thread, current_thread
from time import monotonic
from typing import Generic, TypeVar

from wsthreads.threads.restarts import keep_running

__all__ = ["Pool"]

T = TypeVar("T")


class Pool(Generic[T]):
    """Calls ``work(items)`` for all items that `put` gets, in their order, with at most `batch` items in one call.

    Any thread.

    If `threads` is more than 1, several calls of `work` may run at the same time. Context variables that `work` sets
    are unset in the next call. The threads refer to `work`, so `work` must not refer to the pool's owner. `begin` is
    called once in each thread, before its work.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], None],
        *,
        name: str,
        threads: int,
        batch: int = 1,
        begin: Callable[[], None] | None = None,
    ) -> None:
        self._thread_name = name
        self._work = work
        self._most = threads
        self._batch = batch
        self._begin = begin
        self.give_up()

    def give_up(self) -> None:
        """Forget all threads and items in a forked process, because they are the parent's."""
        self._lock = Lock()  # guards the rest; nothing blocks while it is held
        self._calm = Condition(self._lock)  # notified when no item waits and no call of `work` runs
        self._items: deque[T] = deque()
        self._threads: list[Thread] = []
        self._idle = 0  # how many threads wait for a token, which is how a free thread is woken
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._running = 0  # how many calls of `work` are running
        #: How many calls of `work` have ended. Tests wait for this.
        self.moved = 0
        self._is_ending = False

    def put(self, items: Iterable[T]) -> None:
        """Let threads work on `items`.

        Raises RuntimeError if no thread is running and none can be started. The items then wait for the next call.
        """
        with self._lock:
            self._items.extend(items)
            self._wake_locked()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until all items are done, for at most `timeout_s`. Returns False if one is not."""
        deadline = monotonic() + timeout_s
        with self._calm:
            while self._items or self._running:
                left = deadline - monotonic()
                if left <= 0:
                    return False
                self._calm.wait(left)
        return True

    def stop(self, timeout_s: float) -> None:
        """End the threads when no item waits. Waits for at most `timeout_s`."""
        deadline = monotonic() + timeout_s
        with self._lock:
            threads, self._threads = self._threads, []
        self.release(len(threads))
        for thread in threads:
            if thread is not current_thread():
                thread.join(max(0.0, deadline - monotonic()))

    def release(self, threads: int | None = None) -> None:
        """End the threads when no item waits. Takes no lock and does not wait, so finalizers may call this method."""
        self._is_ending = True
        for _ in range(self._most if threads is None else threads):
            self._tokens.put(None)

    def _wake_locked(self) -> None:
        """If items wait, wake a free thread or start one."""
        if not self._items:
            return
        if self._idle:
            self._idle -= 1
            self._tokens.put(None)
        elif len(self._threads) < self._most and not self._is_ending:
            name = f"{self._thread_name}-{len(self._threads) + 1}" if self._most > 1 else self._thread_name
            thread = Thread(target=self._run, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system allows no more threads, but a running thread will do the work
                if not self._threads:
                    raise
            else:
                self._threads.append(thread)

    def _run(self) -> None:
        if self._begin is not None:
            self._begin()
        keep_running(self._go)

    def _go(self) -> None:
        lock, tokens, work = self._lock, self._tokens, self._work
        while True:
            with lock:
                batch = [self._items.popleft() for _ in range(min(self._batch, len(self._items)))]
                if batch:
                    self._running += 1
                    self._wake_locked()
                elif self._is_ending:
                    return
                else:
                    self._idle += 1
            if not batch:
                tokens.get()
                continue
            try:
                copy_context().run(work, batch)
            finally:
                batch = []
                with lock:
                    self._running -= 1
                    self.moved += 1
                    if not self._running and not self._items:
                        self._calm.notify_all()
