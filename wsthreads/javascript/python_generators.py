"""Python generators that a script iterates. Each step may run in another thread of the pool."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextvars import Context, copy_context
from threading import Lock, Thread
from time import monotonic
from typing import Any

from wsthreads.javascript.python_functions import PythonFunction
from wsthreads.javascript.schedule import NEVER
from wsthreads.loggers import get_logger
from wsthreads.monitoring.failures import exc_info_of

__all__ = ["LAST_ENDS_S", "GeneratorEnds", "OpenGenerator"]

log = get_logger(__name__)

#: How long the end of a script waits for the `finally` blocks of open generators.
LAST_ENDS_S = 1.0


class OpenGenerator:
    """A generator with its own context variables, which it keeps from step to step. Any thread."""

    __slots__ = ("_context", "_iterator", "_running", "end_job", "idle_since", "what")

    def __init__(self, what: PythonFunction) -> None:
        self.what = what
        self._iterator: Generator[Any, Any, Any] = (each for each in "")  # a placeholder until the function was called
        self._running = Lock()  # held by the thread that runs the generator
        self._context = Context()  # entered while `_running` is held
        #: When the last step ended; `NEVER` during a step, and until the function has returned.
        self.idle_since = NEVER
        #: The number of the pool's job that ends the generator; 0 if there is none.
        self.end_job = 0

    def open(self, *arguments: Any) -> None:
        """Call the generator function."""
        with self._running:
            self._context = copy_context()
            self._iterator = self._context.run(self.what.function, *arguments)
        self.idle_since = monotonic()

    def step(self) -> Any:
        """Run to the next `yield`, and return its value. Raises `StopIteration` at the end."""
        try:
            with self._running:
                return self._context.run(next, self._iterator)
        finally:
            self.idle_since = monotonic()

    def end(self) -> None:
        """Run the `finally` blocks. Waits for a step that another thread runs."""
        with self._running:
            self._context.run(self._iterator.close)

    def drop(self, log_error: Callable[..., None]) -> None:
        """End the generator, unless a thread that was given up still runs it. Never raises."""
        if self._running.acquire(blocking=False):
            try:
                self._context.run(self._iterator.close)
            except BaseException as error:  # raised by the user's `finally`
                what = "the generator of %s raised an error when it was ended"
                log_error(what, self.what, exc_info=exc_info_of(error))
            finally:
                self._running.release()


class GeneratorEnds:
    """Ends the generators of a script that ends. Uses separate threads, because a `finally` may block forever."""

    def __init__(
        self, generators: Iterable[OpenGenerator], threads: int, name: str, log_error: Callable[..., None]
    ) -> None:
        self._left = deque(generators)
        self._log_error = log_error
        self._threads = [
            Thread(target=self._run, name=f"{name}-python-end", daemon=True)
            for _ in range(min(threads, len(self._left)))
        ]
        for thread in self._threads:
            try:
                thread.start()
            except RuntimeError as error:  # no thread can be started now
                what = "no more threads can be started, so some generators of %s possibly do not end: %s"
                log.error(what, name, error)
                break

    def _run(self) -> None:
        while self._left:
            try:
                generator = self._left.popleft()
            except IndexError:  # another thread has taken the last generator
                return
            generator.drop(self._log_error)

    def join(self, timeout_s: float) -> None:
        """Wait until all generators have ended, at most `timeout_s`."""
        until = monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - monotonic()))
