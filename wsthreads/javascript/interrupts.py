"""How often QuickJS looks whether it shall stop, which it lets nobody choose.

The engine counts loop iterations and calls, and asks its interrupt handler at every 10,000th. Ten thousand iterations
of an empty loop take a tenth of a millisecond, ten thousand of one that parses a JSON document take a minute: with the
GIL held, and whatever the deadline. So the counter itself is set, to as few operations as take about a millisecond.

The counter is a private 32-bit field of the JSContext. It is found by experiment: it is the one that falls by as many
as a loop has iterations or jumps, and the one that makes the engine ask at once when it is set to 1. Where none passes,
the engine's own pace remains.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from ctypes import c_int32

__all__ = ["InterruptCounter", "find_counter"]

#: Operations before the first question of a call, and by how many they grow from one question to the next. Few, as
#: nobody knows how long they will take: a question costs about a microsecond, an operation up to many milliseconds.
STEP = 10
#: And at most: operations that were fast so far may become slow.
MAX_OPERATIONS = 250
#: What the time between two questions should be.
INTERVAL_S = 0.001

_ENGINES_OWN = 10_000
_PROBES = 4
_PROBE_ITERATIONS = 1000


class InterruptCounter:
    """Sets the engine's counter so that the interrupt handler is asked about every `INTERVAL_S`."""

    def __init__(self, counter: c_int32) -> None:
        self._counter = counter
        self._operations = STEP

    def begin(self) -> None:
        """A call of JavaScript begins."""
        self._counter.value = self._operations = STEP

    def go_on(self, elapsed_s: float) -> None:
        """The operations since the last question have taken that long. Called by the interrupt handler."""
        operations = self._operations
        if elapsed_s < INTERVAL_S:
            operations = min(operations + STEP, MAX_OPERATIONS)
        else:
            operations = max(1, int(operations * INTERVAL_S / elapsed_s))
        self._counter.value = self._operations = operations

    def stop(self) -> None:
        """The call is being stopped: ask again soon, but let the engine reject the promises that this is about."""
        self._counter.value = self._operations = MAX_OPERATIONS


def find_counter(
    context: int, size: int, evaluate: Callable[[str], None], ask: Callable[[Callable[[int, int], int]], None]
) -> c_int32 | None:
    """The engine's counter of operations, in the `size` bytes at `context`; None if it cannot be found.

    `evaluate` runs a script, `ask` installs a function as the interrupt handler.
    """
    asked = 0

    def count(_runtime: int, _opaque: int) -> int:
        nonlocal asked
        asked += 1
        return 0

    ask(count)
    loop = f"for (let i = 0; i < {_PROBE_ITERATIONS}; i++);"
    candidates = set(range(0, size - 3, 4))
    for _ in range(_PROBES):
        before = ctypes.string_at(context, size)
        evaluate(loop)
        after = ctypes.string_at(context, size)
        falling = {offset for offset in candidates if _fell(before, after, offset)}
        candidates = falling or candidates  # none has fallen if the counter began anew
    if len(candidates) != 1:
        return None
    counter = c_int32.from_address(context + candidates.pop())
    counter.value = _ENGINES_OWN
    asked = 0
    evaluate("0")
    too_early = asked
    counter.value = 1
    evaluate("for (let i = 0; i < 3; i++);")
    return counter if (too_early, asked) == (0, 1) else None


def _fell(before: bytes, after: bytes, offset: int) -> bool:
    first: int = struct.unpack_from("=i", before, offset)[0]
    second: int = struct.unpack_from("=i", after, offset)[0]
    return 0 < second < first <= _ENGINES_OWN and _PROBE_ITERATIONS <= first - second < 3 * _PROBE_ITERATIONS
