"""The cores that we may use, what they do, and which of them has room. On Linux; elsewhere there are none."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from wsthreads.loggers import get_logger

__all__ = ["Loads", "is_ours", "read_loads", "roomier_core", "usable_cores"]

log = get_logger(__name__)

#: By core, the seconds since boot that it has spent on programs, and on nothing.
Loads = dict[int, tuple[float, float]]

#: A core is crowded where others have more than this much of it, and less than that is left of it.
CROWDED, SCARCE = 0.25, 0.2

#: There is room on one of which more than this is left.
ROOMY = 0.5


def usable_cores() -> set[int]:
    """Those that the calling thread may use, if it can choose among them."""
    if not hasattr(os, "sched_setaffinity"):
        return set()
    try:
        return os.sched_getaffinity(0)
    except OSError as error:
        log.debug("the system does not tell which cores there are: %s", error)
        return set()


def read_loads() -> Loads:
    """What /proc/stat says; nothing where there is none, or one of another kind. Interrupts are left out."""
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
    """Which of `cores` to go to if `core` was crowded between `before` and `now`; None if it was not, or none has room.

    `own_s` is the CPU time of this process meanwhile, on whatever core. All of it is taken for use of `core`, so part
    of what others used may go unseen: the error is to stay.
    """
    spent = {n: (now[n][0] - before[n][0], now[n][1] - before[n][1]) for n in cores if n in before and n in now}
    left = {n: idle / (busy + idle) for n, (busy, idle) in spent.items() if busy + idle > 0}
    if core not in left or left[core] > SCARCE or is_ours(core, before, now, own_s):
        return None
    roomiest = max(left, key=lambda n: left[n])
    return roomiest if left[roomiest] > ROOMY else None


def is_ours(core: int, before: Loads, now: Loads, own_s: float) -> bool:
    """Whether others had less of `core` than CROWDED, as far as can be told; `own_s` as for `roomier_core`."""
    if core not in before or core not in now:
        return True
    busy, idle = (now[core][i] - before[core][i] for i in (0, 1))
    return busy - own_s < CROWDED * (busy + idle) or busy + idle <= 0
