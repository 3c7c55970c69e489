"""Gives all cores to threads and processes that were started on the core of the sessions by somebody else.

Whatever a thread starts inherits its core (sched(7)). Nothing but a patch of the standard library would tell us of it.
So the flusher looks now and then, at the threads of this process and at the processes that descend from it.
Each is judged once, when it has been there for two looks: until then a thread may be one of ours that has just begun.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Set
from contextlib import suppress

__all__ = ["Strays"]


class Strays:
    """The flusher's. Where there is no ``/proc`` it finds nobody."""

    def __init__(self) -> None:
        self._known: set[int] = set()  # threads that have been judged, by their native id
        self._suspects: set[int] = set()  # threads that were on one of our cores at the last look

    def look(self, ours: Container[int], used: Set[int], cores: Set[int], *, may_be_batch: bool) -> None:
        """Give `cores` to whom the second look finds on a single one of those that we `used`, unless it is `ours`.

        `may_be_batch`: and have it interrupt others, as most processes do.
        """
        threads = {*_numbers("/proc/self/task"), *(thread for pid in _descendants() for thread in _threads(pid))}
        suspects: set[int] = set()
        for thread in threads:
            if thread in ours or thread in self._known:
                continue
            with suppress(OSError):  # it has ended, or belongs to another user
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
        self._known &= threads  # a number may be given out again


def _is_on_one_of(thread: int, used: Set[int]) -> bool:
    cores = os.sched_getaffinity(thread)
    return len(cores) == 1 and cores <= used


def _threads(process: int) -> Iterable[int]:
    return _numbers(f"/proc/{process}/task")


def _descendants() -> Iterator[int]:
    """The processes that this one has started, those that they have started, and so on."""
    try:  # which tells at once, where there are none
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
