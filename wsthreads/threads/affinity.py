"""Keeps the threads of sessions on one core.

The GIL lets only one thread run Python code at a time, and passing the GIL to a thread on another core takes longer
than handling most messages. A thread or a process that a session thread starts inherits the core. `threads.inheritance`
gives all cores back to it within a second. `use_all_cores` does this at once.

A *session thread* serves one client. A thread is *pinned* while it may run only on the sessions' core. A *place* is a
core, and the scheduler's class for session threads there.

Pinned session threads also use the scheduler's batch class (sched(7), SCHED_BATCH). When a message wakes a thread of
this class, the scheduler does not stop the running thread for it. Stopping would have no use, because the running
thread holds the GIL. Session threads do not use this class in two cases:

- The session is in a room. While one thread sends to the members without the GIL, the threads of other members can
  queue more broadcasts. The sooner the other threads do this, the more the sending thread sends in one call.
- Other programs use the core a lot. In the batch class, session threads would have to wait for those programs, too.

The other threads of the process are not pinned, not even the thread of a script in JavaScript. That thread does nearly
all of the work, but on the sessions' core it would get no more time than a single session. An echo in JavaScript would
be a third slower.

This module does nothing if the system cannot pin single threads (Linux can), or if the process may use only one core.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Set
from contextlib import suppress
from functools import partial
from random import SystemRandom
from time import process_time, thread_time
from typing import TYPE_CHECKING, NamedTuple

from wsthreads.loggers import get_logger
from wsthreads.threads.cpu_load import Loads, is_ours, read_loads, roomier_core, usable_cores
from wsthreads.threads.inheritance import Inheritance
from wsthreads.threads.scheduling import Occupancy, ScheduledThread

if TYPE_CHECKING:
    from typing_extensions import Self

    from wsthreads.threads.flusher import Flusher

__all__ = ["Affinity", "PinnedThread", "Place", "leave_core", "preempt_others", "use_all_cores"]

log = get_logger(__name__)

#: Seconds between two checks of the cores' load. Random within this range. Otherwise, two servers on the same core
#: could leave it at the same moment.
LOOK_S = (1.5, 3.0)

#: The first value is the number of seconds between two checks for threads and processes that inherited the core. It
#: takes two checks to find one. The second value is the share of one core's CPU time that these checks may take. (On a
#: busy machine, a check takes longer, but mostly waits.)
INHERITED_LOOK_S = 0.4
INHERITED_LOOK_SHARE = 0.01

# has the attribute `thread`, the PinnedThread of the calling thread, while there is one
_thread_state = threading.local()
# all pinned threads, by their native id; single operations are atomic under the GIL
_pinned: dict[int, PinnedThread] = {}


class Place(NamedTuple):
    """A core, and whether session threads may use the batch class there."""

    core: int
    batch: bool


class Affinity:
    """The core that one app's sessions are pinned to in this process. Any thread.

    `wanted` is the setting `Config.cpu_affinity`. If it is None, sessions are not pinned until `claim` is called.
    `read` reads the loads of all cores.
    """

    def __init__(self, wanted: bool | None = False, read: Callable[[], Loads] = read_loads) -> None:
        #: The cores that the process may use. `place` has one of them.
        self.cores: Set[int] = frozenset()
        self._place: Place | None = None
        self._wanted = wanted
        # whether the process has the scheduler's default class, which the batch class may replace
        self._may_batch = False
        self._read = read
        self._nth: int | None = None
        self._lock = threading.Lock()  # guards the next two and the choice of a core; nothing blocks while it is held
        self._chosen_in = 0  # the id of the process that has chosen a core
        self._watched_in = 0
        # the loads and the CPU time at the last check; only the flusher uses this and the next
        self._last: tuple[Loads, float] | None = None
        self._was_crowded = False
        # the id of the process that checks for inheritance; the lock guards this and the next
        self._inherited_watched_in = 0
        self._inherited_looks = 0  # how many checks follow after the end of the last session
        self._used: set[int] = set()  # all cores that sessions were pinned to; only the flusher uses this and the next
        self._inheritance = Inheritance()

    @property
    def place(self) -> Place | None:
        """The core and class of the session threads.

        None if they are not pinned. Any thread may change this at any time.
        """
        return self._place

    @place.setter
    def place(self, place: Place | None) -> None:
        self._place = place
        # A thread that pins itself adds itself to _pinned first. So it is either found here, or it sees the new place.
        for thread in _pinned.copy().values():
            thread.place_changed(self)

    def claim(self, nth: int) -> None:
        """Pin sessions to the `nth` of the usable cores (modulo their number), unless `wanted` is false.

        Called if the process belongs to the server alone.
        """
        self._wanted = self._wanted is not False
        self._nth = nth
        self._chosen_in = 0

    def start(self, flusher: Flusher, occupancy: Occupancy) -> None:
        """Choose a core in this process, unless one is chosen already.

        Called for each session that is admitted. While there are sessions, the `flusher` checks the load of the core.
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
            self._inherited_looks = 2
            begins_with_inherited, self._inherited_watched_in = self._inherited_watched_in != process, process
        if begins:
            self._look_later(flusher, occupancy)
        if begins_with_inherited:
            flusher.call_later(INHERITED_LOOK_S, partial(self._look_for_inherited, flusher, occupancy))

    def _choose_locked(self, process: int) -> None:
        self.cores = usable_cores()
        if len(self.cores) < 2:
            self.place = None
            return
        self._may_batch = False
        with suppress(OSError):  # the C library musl has no such call, and a container may forbid it
            self._may_batch = os.sched_getscheduler(0) == os.SCHED_OTHER
        # The choice begins at random, because the hash of a text differs from run to run. (Process ids can be equal in
        # different containers.) All apps of one process get the same core.
        nth = hash((__name__, process)) if self._nth is None else self._nth
        self.place = Place(sorted(self.cores)[nth % len(self.cores)], self._may_batch)
        log.debug("sessions are kept on core %d", self.place.core)

    def give_up(self, error: OSError) -> None:
        """Pin no more threads, because the system does not allow this."""
        if self.place is not None:
            self.place = None
            log.warning("sessions are not kept on one core: %s", error)

    def _look_later(self, flusher: Flusher, occupancy: Occupancy) -> None:
        flusher.call_later(SystemRandom().uniform(*LOOK_S), partial(self._look, flusher, occupancy))

    def _look(self, flusher: Flusher, occupancy: Occupancy) -> None:
        """Leave a core that is crowded in two checks in a row.

        Decide whether to use the batch class. Called by the flusher.
        """
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
            batch = self._may_batch and (core != place.core or is_ours(core, last[0], loads, own_s))
            if place != (core, batch):
                self.place = Place(core, batch)
        self._look_later(flusher, occupancy)

    def _look_for_inherited(self, flusher: Flusher, occupancy: Occupancy) -> None:
        """Check for threads and processes that inherited the core, for as long as there are sessions.

        After the end of the last session, two more checks find what that session has started.

        Called by the flusher.
        """
        began_s = thread_time()
        self._look_at_inherited()
        with self._lock:
            self._inherited_looks = 2 if self.place is not None and occupancy.taken else self._inherited_looks - 1
            if self._inherited_looks < 0:
                self._inherited_watched_in = 0
                return
        delay_s = max(INHERITED_LOOK_S, (thread_time() - began_s) / INHERITED_LOOK_SHARE)
        flusher.call_later(delay_s, partial(self._look_for_inherited, flusher, occupancy))

    def _look_at_inherited(self) -> None:
        if self.place is not None:
            self._used.add(self.place.core)
        self._inheritance.look(_pinned, self._used, self.cores, may_be_batch=self._may_batch)

    def stop(self) -> None:
        """Make the last two checks. Called when the flusher has ended, and no more sessions begin."""
        if self._inherited_watched_in == os.getpid():
            self._look_at_inherited()
            self._look_at_inherited()

    def pin(self, *, may_batch: bool = False) -> PinnedThread:
        """Returns a context in which the calling thread is pinned to the core.

        If the thread is in such a context already, returns that context. With `may_batch`, the thread may use the batch
        class.
        """
        thread: PinnedThread | None = getattr(_thread_state, "thread", None)
        if thread is None or thread.affinity is not self:
            thread = PinnedThread(self, None)
        thread.begin(may_batch=may_batch)
        return thread


class PinnedThread(ScheduledThread):
    """A context in which one thread runs on the sessions' core. No method raises an exception.

    Only that thread may use the context, but any thread may call `place_changed`.
    """

    __slots__ = ("_cores", "_is_batch", "_may_batch", "_place", "_roams", "affinity", "is_displaced")

    def __init__(self, affinity: Affinity, place: Place | None) -> None:
        """`place` is where the thread was started, or None if the thread is not pinned."""
        self.affinity = affinity
        self.is_displaced = False
        self._place = place  # where the thread is pinned; None if it is not pinned
        # the cores that the thread gets back when it leaves the core
        self._cores: Set[int] = frozenset() if place is None else affinity.cores
        self._is_batch = self._may_batch = self._roams = False

    def begin(self, *, may_batch: bool) -> None:
        """Call this before entering the context."""
        self._may_batch = may_batch
        self._roams = False

    def __enter__(self) -> Self:
        _thread_state.thread = self
        _pinned[threading.get_native_id()] = self
        if self._place is not self.affinity.place:
            self.runs_handler()
        else:
            self._choose_class()
        return self

    def __exit__(self, *_: object) -> None:
        _thread_state.thread = None
        self._leave()
        _pinned.pop(threading.get_native_id(), None)

    def place_changed(self, affinity: Affinity) -> None:
        """Note that `affinity.place` has changed. The thread moves before its next message. Any thread."""
        if self.affinity is affinity:
            self.is_displaced = True

    def runs_handler(self) -> None:
        self.is_displaced = False
        place, cores = self.affinity.place, self.affinity.cores
        if self._roams:
            return
        if place is None:
            self._leave()
            return
        try:
            if not self._cores:
                former = os.sched_getaffinity(0)
                # one set object for all threads, because a set can take kilobytes
                self._cores = cores if former == cores else former
            os.sched_setaffinity(0, {place.core})
        except OSError as error:
            self.affinity.give_up(error)
        else:
            self._place = place
            self._choose_class()

    def only_reads(self) -> None:
        self._roams = True
        self._leave()

    def starts_thread(self) -> PinnedThread:
        """Let the new thread begin on this core. A later move to the core would take longer than a handshake.
        """
        if self.is_displaced:
            self.runs_handler()
        return PinnedThread(self.affinity, self._place)

    def use_all_cores(self) -> None:
        """Leave the core. The next `runs_handler` returns to it."""
        self._leave()
        self.is_displaced = True

    def preempt_others(self) -> None:
        """Leave the batch class permanently."""
        self._may_batch = False
        self._choose_class()

    def _leave(self) -> None:
        if self._place is not None:
            self._place = None
            with suppress(OSError):  # the system does not allow these cores any more, and has assigned others
                os.sched_setaffinity(0, self._cores)
            self._choose_class()

    def _choose_class(self) -> None:
        is_batch = self._may_batch and self._place is not None and self._place.batch
        if is_batch != self._is_batch:
            with suppress(OSError):  # the thread stays in its class
                os.sched_setscheduler(0, os.SCHED_BATCH if is_batch else os.SCHED_OTHER, os.sched_param(0))
                self._is_batch = is_batch


def use_all_cores() -> None:
    """Let the calling thread use all cores until its session's next message.

    Programs and threads that this thread starts may use all cores, too.

    Call this in a handler before you start a thread or a program that counts its cores, or that needs all cores at
    once. Without this call, the new thread or program gets all cores within a second. Does nothing in a thread that is
    not kept on one core.
    """
    thread: PinnedThread | None = getattr(_thread_state, "thread", None)
    if thread is not None:
        thread.use_all_cores()


def leave_core() -> None:
    """If the calling thread is pinned, let it leave its core permanently."""
    thread: PinnedThread | None = getattr(_thread_state, "thread", None)
    if thread is not None:
        thread.only_reads()


def preempt_others() -> None:
    """If the calling thread is pinned, let it leave the batch class permanently, because other threads wait for it."""
    thread: PinnedThread | None = getattr(_thread_state, "thread", None)
    if thread is not None:
        thread.preempt_others()
