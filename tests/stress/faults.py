"""Faults inside the server process: handlers that fail on command, and killed threads of wsthreads.

Injected errors have `INJECTED` in their text or stack, so that the log shows which errors are real.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from threading import Lock, current_thread
from typing import Any

import wsthreads.protocol.writer_threads
from wsthreads import WebSocketApp
from wsthreads.sessions.endpoint import Endpoint

INJECTED = "injected"


class Injected(Exception):
    """Raised by a handler on command."""


class Killed(BaseException):
    """Kills a thread: no `except Exception` catches it."""


def fail(kind: str) -> None:
    """Fail in the ways of a handler. `handler.js` has the same, and an endless loop."""
    if kind == "raise":
        raise Injected(INJECTED)
    if kind == "recurse":
        _injected_recursion(0)
    elif kind == "heap":
        _injected_want_of_memory()
    else:
        raise ValueError(f"no such fault: {kind}")


def _injected_recursion(depth: int) -> int:
    return _injected_recursion(depth + 1) + 1


def _injected_want_of_memory() -> None:
    bytearray(2**62)


class Reaper:
    """Kills threads of wsthreads, each in several ways. `deaths` counts the kills by thread."""

    def __init__(self, app: WebSocketApp, endpoint: Endpoint) -> None:
        self._app, self._endpoint = app, endpoint
        self._lock = Lock()  # guards `deaths`
        self.deaths: Counter[str] = Counter()
        self._ways: dict[str, Callable[[], None]] = {
            "flusher": self._kill_flusher,
            "flusher in select": self._kill_flusher_in_select,
            "drainer": self._kill_drainer,
            "drainer in a step": partial(self._kill_in_a_step, "drainer"),
            "writer in a step": partial(self._kill_in_a_step, "writer-1"),
            "isolate": self._kill_isolate,
        }

    def kill(self, what: str) -> None:
        self._ways[what]()

    def _once(self, name: str, error: BaseException) -> Callable[[], bool]:
        """A function that raises `error` at its first call, and later returns false."""
        left = [error]

        def die() -> bool:
            with self._lock:
                fatal = left.pop() if left else None
                if fatal is not None:
                    self.deaths[name] += 1
            if fatal is None:
                return False
            try:
                raise fatal
            finally:
                # The frame would keep the error until the next garbage collection. CPython 3.13 has only 16 memory
                # errors: while these are in use, it raises one that keeps the frames of all its earlier tracebacks.
                del fatal

        return die

    def _kill_flusher(self) -> None:
        self._app._flusher.call_later(0, self._once("flusher", Killed(INJECTED)))

    def _kill_flusher_in_select(self) -> None:
        die = self._once("flusher", MemoryError(INJECTED))
        selector = self._app._flusher._selector
        real = selector.select

        def select(timeout: float | None = None) -> Any:
            die()
            return real(timeout)

        selector.select = select
        self._app._flusher.call_later(0, lambda: None)  # wakes it up

    def _kill_drainer(self) -> None:
        self._app._drainer.go_on(self._once("drainer", Killed(INJECTED)))

    def _kill_in_a_step(self, name: str) -> None:
        """Kill a thread after a part of the step's sends. The next call of the step completes them."""
        die = self._once(name, MemoryError(INJECTED))
        real = wsthreads.protocol.writer_threads.flush_all

        def flush_all(outboxes: Any) -> Any:
            if outboxes and current_thread().name.startswith(f"wsthreads-{name}"):
                wsthreads.protocol.writer_threads.flush_all = real
                real(outboxes[: len(outboxes) // 2])
                die()
            return real(outboxes)

        # Or a step is already running.
        if real.__name__ == "flush_all" and real.__module__ == "wsthreads.protocol.fanout":
            wsthreads.protocol.writer_threads.flush_all = flush_all

    def _kill_isolate(self) -> None:
        isolate: Any = self._endpoint.handler._isolate  # type: ignore[attr-defined]
        die = self._once("isolate", Killed(INJECTED))

        def take(*arguments: Any) -> Any:
            raise MemoryError(INJECTED)

        isolate._loop.stumbled = lambda text: die()
        isolate._schedule.take = take
