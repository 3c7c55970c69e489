"""Finds the cores that the process may use, the load of each core, and a core with more free time.

Works on Linux. On other systems, finds no cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from wsthreads.loggers import get_logger

__all__ = ["Loads", "is_ours", "read_loads", "roomier_core", "usable_cores"]

log = get_logger(__name__)

#: For each core, two times since the machine's start, in seconds: how long it was busy with programs, and how long it
#: was idle.
Loads = dict[int, tuple[float, float]]

#: A core is crowded if other processes use more than the first share of its time, and less than the second share of its
#: time is idle.
CROWDED, SCARCE = 0.25, 0.2

#: A core counts as roomy if more than this share of it is idle.
ROOMY = 0.5


def usable_cores() -> set[int]:
    """Returns the cores that the calling thread may use. Empty if the system cannot pin a thread to a core."""
    if not hasattr(os, "sched_setaffinity"):
        return set()
    try:
        return os.sched_getaffinity(0)
    except OSError as error:
        log.debug("cannot read which cores may be used: %s", error)
        return set()


def read_loads() -> Loads:
    """Returns the loads of all cores, from /proc/stat.

    Empty without this file, or if the file has another format. The time for interrupts does not count.
    """
    loads: Loads = {}
    with suppress(OSError, ValueError):
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        with open("/proc/stat", encoding="ascii") as stat:
            for line in stat:
                name, *counts = line.split()
                if name.startswith("cpu") and name != "cpu":
                    user, nice, system, idle, waiting, *_ = map(int, counts)
                    loads[int(name[3:])] = ((user + nice + system) * tick_s, (idle + waiting) * tick_s)
    return loads


def roomier_core(core: int, cores: Iterable[int], before: Loads, now: Loads, own_s: float) -> int | None:
    """Returns the core with the most idle time, if `core` was crowded between `before` and `now`.

    Returns None if `core` was not crowded, or if no core is roomy.

    `own_s` is the CPU time that this process used in that time on all cores. All of it counts as use of `core`. So the
    use by other processes can seem smaller than it is, and sessions may stay on a crowded core.
    """
    spent = {n: (now[n][0] - before[n][0], now[n][1] - before[n][1]) for n in cores if n in before and n in now}
    left = {n: idle / (busy + idle) for n, (busy, idle) in spent.items() if busy + idle > 0}
    if core not in left or left[core] > SCARCE or is_ours(core, before, now, own_s):
        return None
    roomiest = max(left, key=lambda n: left[n])
    return roomiest if left[roomiest] > ROOMY else None


def is_ours(core: int, before: Loads, now: Loads, own_s: float) -> bool:
    """Whether other processes used less than the share CROWDED of `core`. For `own_s`, see `roomier_core`."""
    if core not in before or core not in now:
        return True
    busy, idle = (now[core][i] - before[core][i] for i in (0, 1))
    return busy - own_s < CROWDED * (busy + idle) or busy + idle <= 0
