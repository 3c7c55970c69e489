"""The interrupt handler of a script's engine: QuickJS calls it about every millisecond of a running call.

`wsthreads._native._bridge` has the same class in C, because the engine calls the handler once or twice per message. In
C, a call takes 0.1 µs, in Python 1 µs.

QuickJS has no setting for the time between two calls of the handler. It counts loop iterations and function calls, and
calls its interrupt handler at every 10,000th. For an empty loop, that is every tenth of a millisecond. For a loop that
parses a JSON document, it can be a minute, with the GIL held, past any deadline. So the alarm sets the counter
itself (`interrupts.find_counter`), to the number of operations that take about a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_int32
from time import monotonic

__all__ = ["FIRST_TURN_S", "NEVER", "Alarm"]

NEVER = float("inf")

#: After this time, a call lets other threads run. (Python's own switch interval also works here, but it makes a thread
#: wait 5 ms each time it needs the GIL, which is several times per message.)
FIRST_TURN_S = 0.02

#: The number of operations before the handler's first call, and its growth from one call to the next. The first number
#: is small, because an operation may take many milliseconds.
STEP = 10
#: The most operations between two calls of the handler: fast operations may become slow.
MAX_OPERATIONS = 250
#: The desired time between two calls of the handler.
INTERVAL_S = 0.001


class Alarm:
    """Checks from time to time whether a call of JavaScript may continue.

    When a check is due, it calls ``look(now)``, which returns whether to stop the call.

    `counter` is the engine's counter of operations, or None. Only the isolate's thread uses this, except for
    `is_interrupted`, which any thread may set.
    """

    def __init__(self, counter: c_int32 | None, look: Callable[[float], bool]) -> None:
        self._counter = counter
        self._look = look
        self._operations = STEP
        self._asked_at = 0.0
        #: Whether JavaScript must stop at once and for good.
        self.is_interrupted = False
        #: When the last call began, and its time limit in seconds.
        self.armed_at = self.timeout_s = 0.0
        #: When to check whether the call's time is over, and when to let other threads run.
        self.deadline = self.turn_ends = NEVER
        #: When the call's time is over, on the clock of the thread's CPU time. `NEVER` until the first check.
        self.cpu_ends = NEVER
        #: Whether a call was stopped since `arm`.
        self.has_stopped = False

    def arm(self, timeout_s: float) -> float:
        """A call of JavaScript begins, with the limit `timeout_s`. Returns the present time."""
        now = self._asked_at = self.armed_at = monotonic()
        self.timeout_s = timeout_s
        self.deadline = now + timeout_s
        self.turn_ends = now + FIRST_TURN_S
        self.cpu_ends = NEVER
        self.has_stopped = False
        if self._counter is not None:
            self._counter.value = self._operations = STEP
        return now

    def disarm(self) -> None:
        """The call has no deadline."""
        self.deadline = NEVER

    def ask(self, _runtime: int, _opaque: int) -> int:
        """The interrupt handler. Returns 1 to end the call. Then no `catch` or `finally` of the script runs."""
        now = monotonic()
        if now < self.deadline and now < self.turn_ends and not self.is_interrupted:
            self._go_on(now)
            self._asked_at = now
            return 0
        if self._look(now):
            self.has_stopped = True
            if self._counter is not None:  # ask again soon, but first let the engine reject the call's promises
                self._counter.value = self._operations = MAX_OPERATIONS
            return 1
        self._go_on(now)
        self._asked_at = monotonic()
        return 0

    def _go_on(self, now: float) -> None:
        if self._counter is None:
            return
        operations, elapsed_s = self._operations, now - self._asked_at
        if elapsed_s < INTERVAL_S:
            operations = min(operations + STEP, MAX_OPERATIONS)
        else:
            operations = max(1, int(operations * INTERVAL_S / elapsed_s))
        self._counter.value = self._operations = operations
