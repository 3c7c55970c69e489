"""A pool of threads for a system that sometimes allows no more threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import RLock

from wsthreads.loggers import get_logger

__all__ = ["PatientPool"]

log = get_logger("wsthreads.gunicorn")


class PatientPool(ThreadPoolExecutor):
    """The thread pool of gunicorn's gthread, but `submit` does not fail if no thread can be started.

    The work then stays queued, until a thread is free, or until `catch_up` starts a thread. The worker's loop calls all
    methods. On the signals INT and QUIT, gunicorn calls `shutdown` in a signal handler, which can interrupt `submit`.
    """

    _is_short = False

    def __init__(self, max_workers: int) -> None:
        super().__init__(max_workers)
        # With a Lock, `shutdown` would wait forever for a `submit` that it has interrupted.
        self._shutdown_lock = RLock()  # type: ignore[assignment]

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()  # a private method, but unchanged since Python 3.2
        except RuntimeError as error:
            if not self._is_short:
                log.warning("a client has to wait for a thread: %s (see ulimit -u, TasksMax, pids-limit)", error)
            self._is_short = True

    def catch_up(self) -> None:
        """Start missing threads for work that is queued."""
        while self._is_short and not self._work_queue.empty():
            before = len(self._threads)
            self._adjust_thread_count()
            if len(self._threads) == before:
                return  # no thread could be started, or one is idle; the next call tries again
        self._is_short = False
