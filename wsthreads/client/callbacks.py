"""A thread in which a client calls a function of the application. There is one call at a time."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import RLock, Thread, current_thread

from wsthreads.loggers import get_logger

__all__ = ["Callbacks"]

logger = get_logger(__name__)


class Callbacks:
    """Makes calls in one thread, which starts with the first call. Any thread may `put` calls."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # guards the start of the thread; an RLock, because a signal handler may interrupt the thread that holds it
        self._lock = RLock()
        self._thread: Thread | None = None

    def put(self, call: Callable[[], None]) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        self._queue.put(call)

    @property
    def is_current(self) -> bool:
        """Whether the caller is in the thread of the callbacks."""
        return current_thread() is self._thread

    def end(self, timeout_s: float) -> None:
        """End the thread after the calls in its queue. Waits for its end, unless the caller is in this thread."""
        with self._lock:
            thread = self._thread
        if thread is None:
            return
        self._queue.put(None)
        if not self.is_current:
            thread.join(timeout_s)

    def _run(self) -> None:
        while (call := self._queue.get()) is not None:
            try:
                call()
            except BaseException:  # the thread makes its other calls even after SystemExit
                logger.exception("a function of the application failed")
