"""The interrupt handler of a script's engine. QuickJS calls it about every millisecond while JavaScript runs.

`wsthreads._native._bridge` has the same class in C, because the engine calls the handler once or twice for each
message. A call takes 0.1 µs in C, and 1 µs in Python.

QuickJS has no setting for the time between two calls of the handler. QuickJS counts loop iterations and function calls,
and calls the handler after each 10,000 of them. For an empty loop, 10,000 iterations take a tenth of a millisecond. For
a loop that parses a JSON document, 10,000 iterations can take a minute. During this time the thread holds the GIL, and
no deadline has an effect. So the alarm itself sets the engine's counter (`interrupts.find_counter`), to the number of
operations that take about a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_int32
from time import monotonic

__all__ = ["FIRST_TURN_S", "NEVER", "Alarm"]

NEVER = float("inf")

#: After this time, a call lets other threads run. Python's own switch interval would also have this effect. But with
#: it, a thread waits 5 ms each time it needs the GIL, and this is several times for each message.
FIRST_TURN_S = 0.02

#: The number of operations before the handler's first call. This number also grows by `STEP` from one call to the next.
#: It is small, because a single operation may take many milliseconds.
STEP = 10
#: At most this many operations are between two calls of the handler, because fast operations may be followed by slow
#: ones.
MAX_OPERATIONS = 250
#: The desired time between two calls of the handler.
INTERVAL_S = 0.001


class Alarm:
    """Checks at intervals whether a call of JavaScript may continue.

    When a check is due, the alarm calls ``look(now)``. If this returns true, the call of JavaScript is stopped.

    `counter` is the engine's counter of operations, or None. Only the isolate's thread uses an alarm. But any thread
    may set `is_interrupted`.
    """

    def __init__(self, counter: c_int32 | None, look: Callable[[float], bool]) -> None:
        self._counter = counter
        self._look = look
        self._operations = STEP
        self._asked_at = 0.0
        #: Whether JavaScript must stop at once, and must never run again.
        self.is_interrupted = False
        #: When the last call began, and its time limit in seconds.
        self.armed_at = self.timeout_s = 0.0
        #: When to check whether the call's time is over, and when to let other threads run.
        self.deadline = self.turn_ends = NEVER
        #: When the call's time is over, measured in CPU time of the thread. `NEVER` until the first check.
        self.cpu_ends = NEVER
        #: Whether a call was stopped since the last `arm`.
        self.has_stopped = False

    def arm(self, timeout_s: float) -> float:
        """Start the time limit of a call of JavaScript. Returns the present time."""
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
        """From now on, the call has no time limit."""
        self.deadline = NEVER

    def ask(self, _runtime: int, _opaque: int) -> int:
        """The engine's interrupt handler.

        Returns 1 to stop the call. No `catch` or `finally` of the script runs after that.
        """
        now = monotonic()
        if now < self.deadline and now < self.turn_ends and not self.is_interrupted:
            self._go_on(now)
            self._asked_at = now
            return 0
        if self._look(now):
            self.has_stopped = True
            if self._counter is not None:  # check again soon, but first let the engine reject the promises of the call
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
