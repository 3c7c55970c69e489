"""How threads are scheduled under a GIL: session threads on one core, handshakes one at a time.

Each decision is an argument, so that ``python -m tests.bench.tricks`` can measure it by itself.
"""

from __future__ import annotations

import sys

from wsthreads._native import speedups
from wsthreads.threads.affinity import Affinity, PinnedThread, leave_core, preempt_others
from wsthreads.threads.flusher import Flusher
from wsthreads.threads.scheduling import NO_SCHEDULING, Occupancy, Scheduling

__all__ = ["GILScheduling", "scheduling_for"]


class GILScheduling(Scheduling):
    """Decides for a Python with a GIL. Any thread.

    - `cpu_affinity` is `Config.cpu_affinity`: keep session threads on one core. With None, `owns_process` turns it on.
    - `batch`: session threads outside rooms do not preempt each other, see `wsthreads.threads.affinity`.
    - `queues_handshakes`: of the threads that begin a handshake, one at a time waits for the GIL. So a thread with a
      message does not wait behind all of them. This needs the C module.
    """

    def __init__(
        self, cpu_affinity: bool | None = False, *, batch: bool = True, queues_handshakes: bool = True
    ) -> None:
        self.affinity = Affinity(cpu_affinity, batch=batch)
        self._queues_handshakes = queues_handshakes

    def owns_process(self, nth: int) -> None:
        self.affinity.claim(nth)

    def handshake_begins(self) -> None:
        if self._queues_handshakes and speedups is not None:
            speedups.give_way()

    def session_begins(self, flusher: Flusher, occupancy: Occupancy) -> None:
        self.affinity.start(flusher, occupancy)

    def session_thread(self) -> PinnedThread:
        return self.affinity.pin(may_batch=True)

    def accepting_thread(self) -> PinnedThread:
        return self.affinity.pin()

    def other_request(self) -> None:
        leave_core()

    def joins_room(self) -> None:
        preempt_others()

    def stopped(self) -> None:
        self.affinity.stop()


def scheduling_for(cpu_affinity: bool | None) -> Scheduling:
    """The scheduling of an app with this setting of `Config.cpu_affinity`."""
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return GILScheduling(cpu_affinity) if has_gil else NO_SCHEDULING
