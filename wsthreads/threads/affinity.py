"""Keeps the threads of sessions on one core.

The GIL lets one of them run at a time anyway, and to hand it to another core takes longer than most messages do. What
such a thread starts inherits the core, and is given all cores back within a second, by `threads.strays`; or at once,
where the thread leaves the core before: `use_all_cores`.

There they are also, once connected, of the scheduler's batch class (sched(7), SCHED_BATCH): one that is woken, since
its client has sent something, does not interrupt the one that runs. It would only find that that one holds the GIL, and
go back to sleep. Not so those whose sessions are in rooms: they run beside the thread that sends to the members, and
the sooner they have added to what it sends, the more is sent at once. Nor where other programs crowd the core, which
they would wait for, too.

The process's other threads are free. So is a script's: it has nearly all of the work, and on the sessions' core it
would get no more of it than each of them does (an echo in JavaScript then answers a third less).

Nothing is done where the system cannot do it for a single thread (it can on Linux), with one core, or without a GIL.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Set
from contextlib import suppress
from functools import partial
from random import SystemRandom
from time import monotonic, process_time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from wsthreads.loggers import get_logger
from wsthreads.threads.cores import Loads, is_ours, read_loads, roomier_core, usable_cores
from wsthreads.threads.strays import Strays

if TYPE_CHECKING:
    from typing_extensions import Self

    from wsthreads.threads.flusher import Flusher

__all__ = ["Affinity", "Place", "Stay", "be_prompt", "use_all_cores"]

log = get_logger(__name__)

#: Seconds between looks at the cores, at random, so that two servers on one core do not leave it at the same moment.
LOOK_S = (1.5, 3.0)

#: Seconds between looks for what was started on the core, which two of them find; and their share of the time, at most.
STRAY_LOOK_S = 0.4
STRAY_LOOK_SHARE = 0.01

_here = threading.local()  # `stay`: the thread's own, if it is kept
_kept: set[int] = set()  # the native ids of threads that have one; each single operation on it is atomic


class Place(NamedTuple):
    """A core, and whether the threads that are kept there take turns, of the batch class."""

    core: int
    turns: bool


class Occupancy(Protocol):
    """How many sessions there are in this process."""

    @property
    def taken(self) -> int:
        """A snapshot."""


class Affinity:
    """The core that an app's sessions are kept on, in this process. Any thread.

    `wanted` is `Config.cpu_affinity`: with None, nothing is done until `claim` is called.
    """

    def __init__(self, wanted: bool | None = False, read: Callable[[], Loads] = read_loads) -> None:
        #: Where the threads are to be; None for anywhere. It may change at any time.
        self.place: Place | None = None
        #: Those that it is chosen from.
        self.cores: Set[int] = frozenset()
        self._wanted = wanted
        self._may_turn = False  # not if the process is of another class than most
        self._read = read
        self._nth: int | None = None
        self._lock = threading.Lock()  # guards the next two, and choosing; nothing blocks under it
        self._chosen_in = 0  # the process
        self._watched_in = 0
        self._last: tuple[Loads, float] | None = None  # what the last look saw; this and the next are the flusher's
        self._was_crowded = False
        self._strays_watched_in = 0  # the process; this and the next are guarded by the lock
        self._stray_looks = 0  # so many are left, once the last session has ended
        self._used: set[int] = set()  # all cores that were ours so far; this and the next are the flusher's
        self._strays = Strays()

    def claim(self, nth: int) -> None:
        """This process is our own: keep its sessions, unless that is not wanted, on the `nth` core (modulo)."""
        self._wanted = self._wanted is not False
        self._nth = nth
        self._chosen_in = 0

    def start(self, flusher: Flusher, occupancy: Occupancy) -> None:
        """Choose a core in this process, and have `flusher` look at it for as long as there are sessions.

        Called for each session when it has been admitted.
        """
        if not self._wanted:
            return
        process = os.getpid()
        with self._lock:
            if self._chosen_in != process:
                self._chosen_in = process
                self._choose_locked(process)
            if self.place is None:
                return
            begins, self._watched_in = self._watched_in != process, process
            if begins:
                self._last, self._was_crowded = None, False
            self._stray_looks = 2
            begins_with_strays, self._strays_watched_in = self._strays_watched_in != process, process
        if begins:
            self._look_later(flusher, occupancy)
        if begins_with_strays:
            flusher.call_later(STRAY_LOOK_S, partial(self._look_for_strays, flusher, occupancy))

    def _choose_locked(self, process: int) -> None:
        has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
        self.cores = usable_cores() if has_gil else frozenset()
        if len(self.cores) < 2:
            self.place = None
            return
        self._may_turn = False
        with suppress(OSError):  # musl has no such call, and a container may forbid it: then it goes without
            self._may_turn = os.sched_getscheduler(0) == os.SCHED_OTHER
        # The hash of a text differs from run to run: process ids alone are the same in many a container. Another app
        # in this process comes to the same core.
        nth = hash((__name__, process)) if self._nth is None else self._nth
        self.place = Place(sorted(self.cores)[nth % len(self.cores)], self._may_turn)
        log.debug("sessions are kept on core %d", self.place.core)

    def give_up(self, error: OSError) -> None:
        """The system does not let us."""
        if self.place is not None:
            self.place = None
            log.warning("sessions are not kept on one core: %s", error)

    def _look_later(self, flusher: Flusher, occupancy: Occupancy) -> None:
        flusher.call_later(SystemRandom().uniform(*LOOK_S), partial(self._look, flusher, occupancy))

    def _look(self, flusher: Flusher, occupancy: Occupancy) -> None:
        """The flusher's: go to another core if ours was crowded in two looks on end; take turns if it was not."""
        with self._lock:
            place = self.place
            if place is None or not occupancy.taken:
                self._watched_in = 0
                return
        last, self._last = self._last, (self._read(), process_time())
        if last is not None:
            core, loads, own_s = place.core, self._last[0], self._last[1] - last[1]
            roomier = roomier_core(core, self.cores, last[0], loads, own_s)
            if roomier is not None and self._was_crowded:
                log.debug("sessions move from core %d, which is crowded, to core %d", core, roomier)
                core, roomier = roomier, None
            self._was_crowded = roomier is not None
            turns = self._may_turn and (core != place.core or is_ours(core, last[0], loads, own_s))
            if place != (core, turns):
                self.place = Place(core, turns)
        self._look_later(flusher, occupancy)

    def _look_for_strays(self, flusher: Flusher, occupancy: Occupancy) -> None:
        """The flusher's: look, until two looks after the last session; what that one has started was seen then."""
        began = monotonic()
        self._look_at_strays()
        with self._lock:
            self._stray_looks = 2 if self.place is not None and occupancy.taken else self._stray_looks - 1
            if self._stray_looks < 0:
                self._strays_watched_in = 0
                return
        delay_s = max(STRAY_LOOK_S, (monotonic() - began) / STRAY_LOOK_SHARE)
        flusher.call_later(delay_s, partial(self._look_for_strays, flusher, occupancy))

    def _look_at_strays(self) -> None:
        if self.place is not None:
            self._used.add(self.place.core)
        self._strays.look(_kept, self._used, self.cores, may_be_batch=self._may_turn)

    def stop(self) -> None:
        """Called when the flusher has ended: no session begins any more, and what was started on the core stays."""
        if self._strays_watched_in == os.getpid():
            self._look_at_strays()
            self._look_at_strays()

    def kept(self) -> Stay:
        """A context, in which the calling thread is kept on the core. Within another one of its own: that one."""
        stay: Stay | None = getattr(_here, "stay", None)
        return stay if stay is not None and stay.affinity is self else Stay(self)

    def born(self, place: Place | None) -> Stay:
        """The same for a thread that was started there already, by one that hands it on."""
        return Stay(self, place)


class Stay:
    """One thread's time on the core, which alone may use this. Nothing here raises.

    Before each message: ``if stay.place is not affinity.place: stay.follow()``.
    """

    __slots__ = ("_former", "_is_batch", "_takes_turns", "affinity", "place")

    def __init__(self, affinity: Affinity, place: Place | None = None) -> None:
        #: Where the thread is kept; None: nowhere.
        self.place = place
        self.affinity = affinity
        # The cores that the thread may use by rights.
        self._former: Set[int] = frozenset() if place is None else affinity.cores
        self._is_batch = self._takes_turns = False

    def __enter__(self) -> Self:
        _here.stay = self
        _kept.add(threading.get_native_id())
        if self.place is not self.affinity.place:
            self.follow()
        return self

    def __exit__(self, *_: object) -> None:
        _here.stay = None
        self.leave()
        _kept.discard(threading.get_native_id())

    def follow(self) -> None:
        """Go to the core, wherever that is by now."""
        place, cores = self.affinity.place, self.affinity.cores
        if place is None:
            self.leave()
            return
        try:
            if not self._former:
                former = os.sched_getaffinity(0)
                self._former = cores if former == cores else former  # on a big machine, such a set has some kilobytes
            os.sched_setaffinity(0, {place.core})
        except OSError as error:
            self.affinity.give_up(error)
        else:
            self.place = place
            self._choose_class()

    def leave(self) -> None:
        """Go back to where the thread came from, until the next `follow`."""
        if self.place is not None:
            self.place = None
            with suppress(OSError):  # it may use none of them any more, so the system has given it others
                os.sched_setaffinity(0, self._former)
            self._choose_class()

    def take_turns(self, wanted: bool = True) -> None:
        """Whether from now on the thread is not to interrupt others on the core when it is woken."""
        self._takes_turns = wanted
        self._choose_class()

    def _choose_class(self) -> None:
        is_batch = self._takes_turns and self.place is not None and self.place.turns
        if is_batch != self._is_batch:
            with suppress(OSError):  # it goes without
                os.sched_setscheduler(0, os.SCHED_BATCH if is_batch else os.SCHED_OTHER, os.sched_param(0))
                self._is_batch = is_batch


def use_all_cores() -> None:
    """Let the calling thread, and what it starts, use all cores until the next message of its session.

    Call it in a handler before you start a thread or a program that counts its cores or needs all of them at once.
    Without this call, it gets all cores within a second. Does nothing in threads that are not kept on a core.
    """
    stay: Stay | None = getattr(_here, "stay", None)
    if stay is not None:
        stay.leave()


def be_prompt() -> None:
    """Have the calling thread, if it is kept on a core, take no turns from now on: others wait for what it does."""
    stay: Stay | None = getattr(_here, "stay", None)
    if stay is not None:
        stay.take_turns(False)
