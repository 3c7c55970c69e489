"""Decides how threads are scheduled under a GIL: for example, session threads run on one core.

``python -m tests.bench.tricks`` measures the effect of each decision, with a subclass without this decision.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from platform import python_version
from threading import Lock

from wsthreads.threads.affinity import Affinity, leave_core, preempt_others
from wsthreads.threads.flusher import Flusher
from wsthreads.threads.scheduling import NO_SCHEDULING, Occupancy, ScheduledThread, Scheduling

__all__ = ["GILScheduling", "has_gil", "python_text", "scheduling_for"]


#: A thread waits for at most this long until it may open a connection (`GILScheduling.opening`). Opening should include
#: nothing slow, such as a log line. If it does, the waiting threads continue after this time. With 1 s instead, the p99
#: latency of other clients was five times as long while thousands of clients reconnected at once.
TURN_TIMEOUT_S = 5.0

#: While more new connections than this have requests that are not read yet, no further connection is accepted. Clients
#: that send nothing do not count.
MOST_UNREAD = 4


class _Turn:
    """A context for one thread at a time.

    Not a lock, because a thread that has waited for too long enters nevertheless.
    """

    __slots__ = ("_has_lock", "_lock")

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._has_lock = self._lock.acquire(timeout=TURN_TIMEOUT_S)

    def __exit__(self, *_: object) -> None:
        if self._has_lock:
            self._lock.release()


class GILScheduling(Scheduling):
    """The scheduling for a Python with a GIL. Any thread.

    `cpu_affinity` is the setting `Config.cpu_affinity`: whether session threads stay on one core. If it is None,
    they do so after `owns_process` was called.
    """

    def __init__(self, cpu_affinity: bool | None = False) -> None:
        self.affinity = Affinity(cpu_affinity)
        self._opening = Lock()

    def owns_process(self, nth: int) -> None:
        self.affinity.claim(nth)

    def session_begins(self, flusher: Flusher, occupancy: Occupancy) -> None:
        self.affinity.start(flusher, occupancy)

    def session_thread(self) -> ScheduledThread:
        """The calling thread runs on the sessions' core, in the batch class of the system's scheduler.

        So a new message does not interrupt the thread of another session.
        """
        return self.affinity.pin(may_batch=True)

    def opening(self) -> AbstractContextManager[object]:
        """Lets one thread open a connection at a time.

        Otherwise, a message would have to wait until the thread of each new connection has had the GIL.
        """
        return _Turn(self._opening)

    def accepting_thread(self) -> ScheduledThread:
        """The calling thread runs on the sessions' core, and so do the threads that it starts."""
        return self.affinity.pin()

    def most_unread(self) -> int | None:
        """A small number.

        Otherwise, a message would have to wait until the threads of thousands of new connections have begun.
        """
        return MOST_UNREAD

    def other_request(self) -> None:
        """From now on, the thread may run on all cores, because the application may do anything in its answer."""
        leave_core()

    def joins_room(self) -> None:
        """The thread leaves the batch class.

        The sooner it queues its broadcasts, the more broadcasts are sent together.
        """
        preempt_others()

    def stopped(self) -> None:
        self.affinity.stop()


def has_gil() -> bool:
    """Whether only one thread at a time runs Python code."""
    enabled: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
    return enabled


def python_text() -> str:
    """This Python in words, such as "3.13.5 without a GIL". Changes when a C module turns the GIL on."""
    return python_version() + ("" if has_gil() else " without a GIL")


class FreeThreadedScheduling(GILScheduling):
    """The scheduling for a Python without a GIL. Does nothing unless a C module turns the GIL on, as dukpy does."""

    def session_begins(self, flusher: Flusher, occupancy: Occupancy) -> None:
        if has_gil():
            super().session_begins(flusher, occupancy)

    def session_thread(self) -> ScheduledThread:
        return super().session_thread() if has_gil() else NO_SCHEDULING.session_thread()

    def opening(self) -> AbstractContextManager[object]:
        return super().opening() if has_gil() else NO_SCHEDULING.opening()

    def accepting_thread(self) -> ScheduledThread:
        return super().accepting_thread() if has_gil() else NO_SCHEDULING.accepting_thread()

    def most_unread(self) -> int | None:
        return super().most_unread() if has_gil() else None


def scheduling_for(cpu_affinity: bool | None) -> Scheduling:
    """Returns the scheduling for an app with this value of `Config.cpu_affinity`."""
    return GILScheduling(cpu_affinity) if has_gil() else FreeThreadedScheduling(cpu_affinity)
