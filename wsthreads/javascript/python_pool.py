"""The threads that run Python functions for a script.

A thread cannot be stopped from outside. If the job of a thread takes too long, the thread is *given up*: another thread
replaces it, and it ends when its job returns. (CPython could raise an exception in the thread. But this could happen
between any two lines of a library, for example while a lock is held that is then never released.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue

from wsthreads.loggers import get_logger

__all__ = ["PythonPool"]

log = get_logger(__name__)

#: At most this many jobs may wait for a thread.
MAX_WAITING = 10_000

#: If this many threads that were given up still run, no new job is accepted.
MAX_ABANDONED = 32

#: Put into the queue in place of a job's number, ends a thread.
_END = 0


class PythonPool:
    """Runs jobs in at most `size` threads, which start when they are needed. Any thread.

    A job is a function that never raises. Each job has a number of its own, which is not 0, and its own context
    variables.
    """

    def __init__(self, name: str, size: int, what: str = "calls of Python functions") -> None:
        self._name = name
        self._what = what  # for messages
        self._size = size
        self._lock = threading.Lock()  # guards the attributes below; a thread that holds it does not block
        self._order: SimpleQueue[int] = SimpleQueue()  # the numbers of the waiting jobs
        self._waiting: dict[int, Callable[[], None]] = {}
        self._running: dict[int, int] = {}  # the id of the thread that runs a job, by the job's number
        self._threads = 0  # how many threads there are, without those that were given up
        self._abandoned: set[int] = set()  # the ids of threads that were given up
        self._has_ended = False

    def submit(self, number: int, job: Callable[[], None]) -> str | None:
        """Let a thread run a job. Returns None, or why this is not possible."""
        with self._lock:
            if self._has_ended:
                return "the script has ended"
            if len(self._waiting) >= MAX_WAITING:
                return f"{MAX_WAITING} {self._what} wait for a thread"
            if len(self._abandoned) >= MAX_ABANDONED:
                return f"{MAX_ABANDONED} {self._what} have taken too long, and still run"
            if len(self._waiting) + len(self._running) >= self._threads < self._size:
                try:
                    self._start_locked()
                except RuntimeError as error:
                    return str(error)
            self._waiting[number] = job
        self._order.put(number)
        return None

    @property
    def has_room(self) -> bool:
        """Whether a job that is submitted now would begin at once."""
        return len(self._waiting) + len(self._running) < self._size

    def give_up(self, number: int) -> bool | None:
        """Stop waiting for a job.

        Returns true if the job was running, false if it had not begun, and None if it has ended.
        """
        with self._lock:
            if self._waiting.pop(number, None) is not None:
                return False
            thread = self._running.pop(number, None)
            if thread is None:
                return None
            self._abandoned.add(thread)
            self._threads -= 1
            if self._waiting and self._threads < self._size:
                try:
                    self._start_locked()
                except RuntimeError as error:
                    log.error("%s wait, because no thread can be started: %s", self._what, error)
        return True

    def stop(self) -> None:
        """Begin no more jobs. Each thread ends when it has no job."""
        with self._lock:
            self._has_ended = True
            self._waiting.clear()
            threads = self._threads
        for _ in range(threads):
            self._order.put(_END)

    @property
    def abandoned(self) -> int:
        """The number of threads that were given up and have not ended."""
        return len(self._abandoned)

    def _start_locked(self) -> None:
        thread = threading.Thread(target=self._run, name=f"wsthreads-{self._name}-python", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread can be started now
            if not self._threads:
                raise
            log.warning("%s has only %d threads for %s: %s", self._name, self._threads, self._what, error)
        else:
            self._threads += 1

    def _run(self) -> None:
        thread = threading.get_ident()
        while self._take_and_run(thread):
            pass
        with self._lock:
            self._abandoned.discard(thread)

    def _take_and_run(self, thread: int) -> bool:
        """Run the next job. Returns false if the thread must end."""
        number = self._order.get()
        if number == _END:
            with self._lock:
                self._threads -= 1
            return False
        with self._lock:
            job = self._waiting.pop(number, None)
            if job is None:
                return True
            self._running[number] = thread
        try:
            copy_context().run(job)
        except BaseException:  # a bug of wsthreads; the thread must continue
            log.exception("a job of %s has failed", threading.current_thread().name)
        with self._lock:
            return self._running.pop(number, None) is not None
