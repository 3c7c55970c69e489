"""Keeps the threads of sessions on one core.

The GIL lets only one of these threads run at a time, and passing the GIL to another core takes longer than most
messages do. A thread or a process that a session thread starts inherits the core. `threads.inheritance` gives all cores
back to it within a second. `use_all_cores` does this at once.

Pinned session threads also use the scheduler's batch class (sched(7), SCHED_BATCH). When a message wakes a thread of
this class, the thread does not preempt the running thread. Preempting would have no use, because the running thread
holds the GIL. Session threads do not use this class in two cases:

- The session is in a room. While one thread sends to the members without the GIL, the threads of other members can
  queue more broadcasts. The sooner they do, the more the sending thread sends at once.
- Other programs use the core a lot. In the batch class, the session threads would wait for those programs, too.

The other threads of the process are not pinned, not even the thread of a script. That thread does nearly all of the
work, but on the sessions' core it would get no more time than a single session. An echo in JavaScript would be a third
slower.

This module does nothing if the system cannot pin single threads (Linux can), or if there is only one core.
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

#: Seconds between checks of the cores' load. Random within this range, so that two servers on one core do not both
#: leave it.
LOOK_S = (1.5, 3.0)

#: The first value is the number of seconds between checks for threads and processes that inherited the core. Two checks
#: find them. The second value is the share of one core's CPU time that these checks may take. (On a busy machine, a
#: check takes longer, but mostly waits.)
INHERITED_LOOK_S = 0.4
INHERITED_LOOK_SHARE = 0.01

_thread_state = threading.local()  # `thread`: the PinnedThread of the calling thread, while it has one
_pinned: dict[int, PinnedThread] = {}  # by native id; single operations are atomic under the GIL


class Place(NamedTuple):
    """A core, and whether session threads may use the batch class there."""

    core: int
    batch: bool


class Affinity:
    """The core that one app's sessions are pinned to, in this process. Any thread.

    `wanted` is `Config.cpu_affinity`. With None, sessions are not pinned until `claim` is called.
    """

    def __init__(self, wanted: bool | None = False, read: Callable[[], Loads] = read_loads) -> None:
        #: The cores that `place` is chosen from.
        self.cores: Set[int] = frozenset()
        self._place: Place | None = None
        self._wanted = wanted
        self._may_batch = False  # whether the process has the scheduler's default class
        self._read = read
        self._nth: int | None = None
        self._lock = threading.Lock()  # guards the next two and the choice of a core; nothing blocks under it
        self._chosen_in = 0  # the id of the process that has chosen
        self._watched_in = 0
        self._last: tuple[Loads, float] | None = None  # at the last check; only the flusher uses this and the next
        self._was_crowded = False
        self._inherited_watched_in = 0  # the id of the process; the lock guards this and the next
        self._inherited_looks = 0  # how many checks are left after the end of the last session
        self._used: set[int] = set()  # all cores that sessions were pinned to; only the flusher uses this and the next
        self._inheritance = Inheritance()

    @property
    def place(self) -> Place | None:
        """The place of the session threads, or None if they are not pinned. It may change at any time."""
        return self._place

    @place.setter
    def place(self, place: Place | None) -> None:
        self._place = place
        # A thread that pins itself registers first. So it is registered here, or it sees the new place.
        for thread in _pinned.copy().values():
            thread.place_changed(self)

    def claim(self, nth: int) -> None:
        """Pin sessions to the `nth` core (modulo), unless `wanted` is false.

        Called if the process is only for the server.
        """
        self._wanted = self._wanted is not False
        self._nth = nth
        self._chosen_in = 0

    def start(self, flusher: Flusher, occupancy: Occupancy) -> None:
        """Choose a core in this process, unless one was chosen before.

        Call this for each session that was admitted. While there are sessions, `flusher` checks the core's load.
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
        with suppress(OSError):  # musl has no such call, and a container may forbid it
            self._may_batch = os.sched_getscheduler(0) == os.SCHED_OTHER
        # A random start: the hash of a text differs from run to run. Process ids can be equal in different containers.
        # All apps of a process get the same core.
        nth = hash((__name__, process)) if self._nth is None else self._nth
        self.place = Place(sorted(self.cores)[nth % len(self.cores)], self._may_batch)
        log.debug("sessions are kept on core %d", self.place.core)

    def give_up(self, error: OSError) -> None:
        """Pin no more threads, because the system does not allow it."""
        if self.place is not None:
            self.place = None
            log.warning("sessions are not kept on one core: %s", error)

    def _look_later(self, flusher: Flusher, occupancy: Occupancy) -> None:
        flusher.call_later(SystemRandom().uniform(*LOOK_S), partial(self._look, flusher, occupancy))

    def _look(self, flusher: Flusher, occupancy: Occupancy) -> None:
        """Leave a core that is crowded at two checks in a row. Decide on the batch class. Runs in the flusher."""
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
        """Check while there are sessions, and twice more for threads that the last session has started.

        Runs in the flusher.
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
        """Make the last checks. Called when the flusher has ended and no more sessions begin."""
        if self._inherited_watched_in == os.getpid():
            self._look_at_inherited()
            self._look_at_inherited()

    def pin(self, *, may_batch: bool = False) -> PinnedThread:
        """A context in which the calling thread is pinned to the core.

        If the thread is in such a context already, returns that one. With `may_batch`, the thread does not preempt
        others, if `place` allows this.
        """
        thread: PinnedThread | None = getattr(_thread_state, "thread", None)
        if thread is None or thread.affinity is not self:
            thread = PinnedThread(self, None)
        thread.begin(may_batch=may_batch)
        return thread


class PinnedThread(ScheduledThread):
    """A context in which one thread runs on the core. Raises nothing.

    Only this thread may use it, but any thread may call `place_changed`.
    """

    __slots__ = ("_cores", "_is_batch", "_may_batch", "_place", "_roams", "affinity", "is_displaced")

    def __init__(self, affinity: Affinity, place: Place | None) -> None:
        """`place` is the core where the thread was started, or None if the thread is not pinned."""
        self.affinity = affinity
        self.is_displaced = False
        self._place = place  # None if the thread is not pinned
        self._cores: Set[int] = frozenset() if place is None else affinity.cores  # to use when not pinned
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
        """Adapt to a change of `affinity.place`. Any thread."""
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
                self._cores = cores if former == cores else former  # one set for all threads: a set can have kilobytes
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
        """Let the new thread begin on this core, because a later move to the core would take longer than a
        handshake.
        """
        if self.is_displaced:
            self.runs_handler()
        return PinnedThread(self.affinity, self._place)

    def use_all_cores(self) -> None:
        """Leave the core until the next `runs_handler`."""
        self._leave()
        self.is_displaced = True

    def preempt_others(self) -> None:
        """Leave the batch class. The thread does not return to it."""
        self._may_batch = False
        self._choose_class()

    def _leave(self) -> None:
        if self._place is not None:
            self._place = None
            with suppress(OSError):  # the system no longer allows these cores, and has assigned others
                os.sched_setaffinity(0, self._cores)
            self._choose_class()

    def _choose_class(self) -> None:
        is_batch = self._may_batch and self._place is not None and self._place.batch
        if is_batch != self._is_batch:
            with suppress(OSError):  # the thread stays in its class
                os.sched_setscheduler(0, os.SCHED_BATCH if is_batch else os.SCHED_OTHER, os.sched_param(0))
                self._is_batch = is_batch


def use_all_cores() -> None:
    """Let the calling thread, and threads and programs that it starts, use all cores until its session's next message.

    Call this in a handler before you start a thread or a program that counts its cores, or needs all cores at once.
    Without this call, the new thread or program gets all cores within a second. Does nothing in threads that are not
    kept on a core.
    """
    thread: PinnedThread | None = getattr(_thread_state, "thread", None)
    if thread is not None:
        thread.use_all_cores()


def leave_core() -> None:
    """If the calling thread is pinned, let it leave its core and not return."""
    thread: PinnedThread | None = getattr(_thread_state, "thread", None)
    if thread is not None:
        thread.only_reads()


def preempt_others() -> None:
    """If the calling thread is pinned, let it leave the batch class for good, because others wait for this thread."""
    thread: PinnedThread | None = getattr(_thread_state, "thread", None)
    if thread is not None:
        thread.preempt_others()
