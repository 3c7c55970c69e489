"""The drainer: the thread that sends for busy rooms, where broadcasts come faster than one thread can send them.

In a quiet room, the thread that broadcasts also sends. Waking another thread would cost more, and on a busy machine
that thread might run late. When the broadcasting thread has sent its message, it also sends the messages that others
have broadcast meanwhile. If there are more after that, it leaves them to the drainer and goes back to reading.

From then on, broadcasting threads only queue, as long as their broadcasts overlap, and the drainer sends everything. So
the more there is to send, the more frames go into one write.

Each app has one drainer in each process. It starts when it is first needed. If a step fails, the drainer calls the step
again later, because queued messages must not wait for the next broadcast.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Lock, Thread
from time import sleep

from wsthreads.threads.affinity import use_all_cores
from wsthreads.threads.restarts import keep_running

__all__ = ["RETRY_S", "Drainer"]

#: If no thread can be started, `go_on` raises RuntimeError. Try again after this time.
RETRY_S = 1.0


class Drainer:
    """Calls steps in turns, each until it has nothing left to do. Any thread."""

    def __init__(self, thread_name: str = "wsthreads-drainer") -> None:
        self._thread_name = thread_name
        self._lock = Lock()  # guards the rest; nothing blocks under it
        self._pid = 0
        self._thread: Thread | None = None
        self._steps: SimpleQueue[Callable[[], bool] | None] = SimpleQueue()

    def go_on(self, step: Callable[[], bool]) -> None:
        """Call `step`, which must not block, until it returns false."""
        with self._lock:
            if self._pid != os.getpid():
                self._start_locked()
            self._steps.put(step)

    def pause(self, seconds: float) -> None:
        """Wait this long, or not at all if other steps wait. A step may call this. The system may add about 50 µs."""
        if self._steps.empty():
            sleep(seconds)

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no step is left, at most `timeout_s`. Returns False if a step is left."""
        with self._lock:
            if self._pid != os.getpid():
                return True
            idle, steps = Event(), self._steps

            def look() -> bool:
                if steps.empty():
                    idle.set()
                return not idle.is_set()

            steps.put(look)
        was_idle = idle.wait(timeout_s)
        idle.set()  # from now on, `look` returns False, so its step ends
        return was_idle

    def stop(self, timeout_s: float) -> None:
        """End the thread when its steps are done. Waits at most `timeout_s`."""
        with self._lock:
            thread = self._thread if self._pid == os.getpid() else None
            self._thread, self._pid = None, 0
            if thread is not None:
                self._steps.put(None)
        if thread is not None:
            thread.join(timeout_s)

    def release(self) -> None:
        """End the thread when its steps are done. Takes no lock and does not wait, so finalizers may call it."""
        if self._pid == os.getpid():
            self._steps.put(None)

    def _start_locked(self) -> None:
        self._steps = SimpleQueue()  # this process was forked, and the old queue has the parent's steps
        self._thread = Thread(target=self._run, args=(self._steps,), name=self._thread_name, daemon=True)
        use_all_cores()  # the new thread inherits the cores of this thread, which may be a session thread
        self._thread.start()
        self._pid = os.getpid()

    def _run(self, steps: SimpleQueue[Callable[[], bool] | None]) -> None:
        stopping = False

        def work() -> None:
            nonlocal stopping
            while not stopping or not steps.empty():
                step = steps.get()
                if step is None:
                    stopping = True
                    continue
                try:
                    more = step()
                except BaseException:
                    if not stopping:
                        steps.put(step)
                    raise
                if more:
                    steps.put(step)
                del step  # otherwise, the step would stay in memory until the next step comes

        keep_running(work)
