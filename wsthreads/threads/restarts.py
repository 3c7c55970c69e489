"""Calls the work of a thread again after an error, with growing pauses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from threading import current_thread
from time import monotonic, sleep

from wsthreads.loggers import get_logger

__all__ = ["Restarts", "keep_running"]

log = get_logger(__name__)

#: The pause before the second restart in a row, in seconds. The first restart has no pause before it. Each further
#: pause is twice as long as the one before, up to MAX_PAUSE_S.
FIRST_PAUSE_S = 0.05
MAX_PAUSE_S = 1.0

#: After this many seconds without an error, the next restart counts as the first.
CALM_S = 5.0


class Restarts:
    """Counts restarts and computes the pause before the next one. One thread at a time."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._last = float("-inf")
        self._pause_s = 0.0

    def next_pause_s(self) -> float:
        """Returns the seconds to wait before a restart that is due now."""
        now = self._clock()
        if now - self._last > CALM_S:
            self._pause_s = 0.0
        else:
            self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), MAX_PAUSE_S)
        self._last = now
        return self._pause_s


def keep_running(work: Callable[[], None], pause: Callable[[float], object] = sleep) -> None:
    """Call `work` until it returns. If it raises, log the error, pause, and call it again.

    For threads that all sessions need. `work` must keep its state between two calls.
    """
    restarts = Restarts()
    while True:
        try:
            work()
        except BaseException:
            if sys.is_finalizing():
                return
            with suppress(BaseException):  # for example a MemoryError: the restart is more important than the log line
                log.critical("the thread %s has failed and is started again", current_thread().name, exc_info=True)
            pause(restarts.next_pause_s())
        else:
            return
