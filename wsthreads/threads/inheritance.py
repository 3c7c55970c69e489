"""Gives all cores back to threads and processes that inherited the sessions' core.

A thread or process that a pinned thread starts inherits the core (sched(7)). Without a patch of the standard library,
wsthreads cannot know when one starts. So the flusher looks from time to time at the threads of this process and its
child processes. It gives the cores back when it sees a thread on the core for the second time. When it sees the thread
first, the thread may be a session thread that has just begun and is not known yet. Each thread gets its cores back only
once.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Set
from contextlib import suppress

__all__ = ["Inheritance"]


class Inheritance:
    """Finds threads and processes that inherited a core. Only the flusher's thread uses this class.

    Without ``/proc``, it finds nothing.
    """

    def __init__(self) -> None:
        self._known: set[int] = set()  # native ids of the threads that need no more checks
        self._suspects: set[int] = set()  # threads that were on one of the cores at the last look

    def look(self, ours: Container[int], used: Set[int], cores: Set[int], *, may_be_batch: bool) -> None:
        """Give `cores` to each thread that is on one of the cores `used` for the second time, unless it is in `ours`.

        With `may_be_batch`, also end the scheduler's batch class that the thread inherited.
        """
        threads = {*_numbers("/proc/self/task"), *(thread for pid in _descendants() for thread in _threads(pid))}
        suspects: set[int] = set()
        for thread in threads:
            if thread in ours or thread in self._known:
                continue
            with suppress(OSError):  # the thread has ended, or belongs to another user
                if not _is_on_one_of(thread, used):
                    self._known.add(thread)
                elif thread not in self._suspects:
                    suspects.add(thread)
                else:
                    self._known.add(thread)
                    os.sched_setaffinity(thread, cores)
                    if may_be_batch and os.sched_getscheduler(thread) == os.SCHED_BATCH:
                        os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
        self._suspects = suspects
        self._known &= threads  # the system may give the id of an ended thread to a new one


def _is_on_one_of(thread: int, used: Set[int]) -> bool:
    cores = os.sched_getaffinity(thread)
    return len(cores) == 1 and cores <= used


def _threads(process: int) -> Iterable[int]:
    return _numbers(f"/proc/{process}/task")


def _descendants() -> Iterator[int]:
    """Yields the processes that this process has started, the processes that those have started, and so on."""
    try:  # this fails at once if there are no child processes
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        return
    parents = [os.getpid()]
    while parents:
        parent = parents.pop()
        for thread in _threads(parent):
            with suppress(OSError), open(f"/proc/{parent}/task/{thread}/children", encoding="ascii") as file:
                children = [int(child) for child in file.read().split()]
                parents += children
                yield from children


def _numbers(folder: str) -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir(folder)]
    return []
