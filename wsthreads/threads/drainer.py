"""The drainer: a thread that sends for busy rooms, where broadcasts come faster than one thread can send them.

In a quiet room, the thread that broadcasts also sends. Waking another thread would cost more, and on a busy machine,
that thread might run late. After its own message, the broadcasting thread also sends the messages that others have
broadcast in the meantime. If there are still more messages afterwards, it leaves these to the drainer, and goes back to
reading.

From then on, broadcasting threads only queue their messages, as long as their broadcasts overlap, and the drainer sends
all messages. So the more there is to send, the more frames go into one write.

Each app has one drainer in each process. The drainer starts when it is needed first. It calls *steps*: functions that
do a part of the work, and say whether more is left. If a step fails, the drainer calls it again later, because queued
messages must not wait for the next broadcast.
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

#: If no thread can be started, `go_on` raises RuntimeError. Callers try again after this time.
RETRY_S = 1.0


class Drainer:
    """Calls several steps in turn. Each step is called again and again until it has nothing left to do. Any thread."""

    def __init__(self, thread_name: str = "wsthreads-drainer") -> None:
        self._thread_name = thread_name
        self._lock = Lock()  # guards the rest; nothing blocks while it is held
        self._pid = 0
        self._thread: Thread | None = None
        self._steps: SimpleQueue[Callable[[], bool] | None] = SimpleQueue()

    def go_on(self, step: Callable[[], bool]) -> None:
        """Call `step` until it returns False. It must not block."""
        with self._lock:
            if self._pid != os.getpid():
                self._start_locked()
            self._steps.put(step)

    def pause(self, seconds: float) -> None:
        """Sleep, unless other steps wait. Steps may call this. The system may sleep for about 50 µs longer."""
        if self._steps.empty():
            sleep(seconds)

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no step is left, for at most `timeout_s`. Returns False if a step is left."""
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
        idle.set()  # from now on, `look` returns False, so the drainer does not call it again
        return was_idle

    def stop(self, timeout_s: float) -> None:
        """End the thread when its steps are done. Waits for at most `timeout_s`."""
        with self._lock:
            thread = self._thread if self._pid == os.getpid() else None
            self._thread, self._pid = None, 0
            if thread is not None:
                self._steps.put(None)
        if thread is not None:
            thread.join(timeout_s)

    def release(self) -> None:
        """End the thread when its steps are done.

        Takes no lock and does not wait, so finalizers may call this method.
        """
        if self._pid == os.getpid():
            self._steps.put(None)

    def _start_locked(self) -> None:
        self._steps = SimpleQueue()  # if this process was forked, the old queue has steps of the parent
        self._thread = Thread(target=self._run, args=(self._steps,), name=self._thread_name, daemon=True)
        use_all_cores()  # the new thread inherits the cores of this thread, which may be pinned to one core
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
                del step  # otherwise, the step would stay in memory until the next one comes

        keep_running(work)
