"""A thread that goes on with sending where broadcasts come in faster than one thread sends.

As long as nothing else is going on, whoever broadcasts also sends: to wake a thread costs more, and on a machine that
is busy with other things it may be long before it runs. So a broadcaster that has finished, and finds that others have
broadcast meanwhile, sends that, too; but if it finds that again, it hands what is left to this thread and goes back to
reading. The others only queue, and for as long as broadcasts go on to meet, all is left to this thread. So the more
there is to do, the more frames go into one write.

One per app and process, started when it is first needed. Should a step fail, it is called again later: what it sends
is queued, and must not wait for somebody who broadcasts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Lock, Thread

from wsthreads.threads.restarts import keep_running

__all__ = ["Drainer"]


class Drainer:
    """Runs steps, each again and again until it says that it is done, in turns. Any thread."""

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

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is left to do, at most `timeout_s`. False if something is."""
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
        idle.set()  # it need not look any more
        return was_idle

    def stop(self, timeout_s: float) -> None:
        """End the thread when it has done what it was given, after at most `timeout_s`."""
        with self._lock:
            thread = self._thread if self._pid == os.getpid() else None
            self._thread, self._pid = None, 0
            if thread is not None:
                self._steps.put(None)
        if thread is not None:
            thread.join(timeout_s)

    def release(self) -> None:
        """End the thread when it has done what it was given. Takes no lock and does not wait: for a finalizer."""
        if self._pid == os.getpid():
            self._steps.put(None)

    def _start_locked(self) -> None:
        self._steps = SimpleQueue()  # after a fork: the parent's steps are not ours
        self._thread = Thread(target=self._run, args=(self._steps,), name=self._thread_name, daemon=True)
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

        keep_running(work)
