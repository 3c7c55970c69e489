"""Finds the counter in QuickJS that decides when the engine asks whether it should stop. `alarm` uses it.

The counter is a private 32-bit field of the JSContext, and is found by an experiment. While a loop runs, the counter
falls by the number of iterations or jumps. If it is set to 1, the engine asks at once. If no field behaves like this,
the engine keeps its own interval.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from ctypes import c_int32

__all__ = ["find_counter"]

_ENGINES_OWN = 10_000
_PROBES = 4
_PROBE_ITERATIONS = 1000


def find_counter(
    context: int, size: int, evaluate: Callable[[str], None], ask: Callable[[Callable[[int, int], int]], None]
) -> c_int32 | None:
    """Find the engine's counter of operations, in the `size` bytes at `context`. Returns None if it cannot be found.

    `evaluate` runs a script. `ask` installs a function as the interrupt handler.
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
        candidates = falling or candidates  # if the counter was set again during the loop, no candidate has fallen
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
