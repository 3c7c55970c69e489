"""Compiles TypeScript to JavaScript, with the compiler that comes with dukpy.

Also maps places in the result to the source.

Types are dropped and not checked. Editors and ``tsc`` check them. The compiler (TypeScript 5.7 in dukpy 0.6) takes
almost a second and 100 MB to load, and would hold the GIL during this time. So it runs in a process of its own, which
ends when its work is done. Results are cached.
"""

from __future__ import annotations

import importlib.util
import json
import os
import string
import subprocess
import sys
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Any

from wsthreads.errors import IsolateError

__all__ = ["SUFFIX", "Compiled", "Compiler"]

SUFFIX = ".ts"

#: The longest time that the compiler may take for one file, including its start.
COMPILE_TIMEOUT_S = 60.0

#: At most this many results are cached.
MAX_REMEMBERED = 256

#: Cached results, by name and source. Cached results never become wrong, so all threads share them. The cache may drop
#: results at any time.
_remembered: dict[tuple[str, str], Compiled] = {}

_BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
_DIGITS = {digit: value for value, digit in enumerate(_BASE64)}


@dataclass(frozen=True)
class Compiled:
    """The result for one file: its code, or its first syntax error as line, column and message."""

    code: str
    #: The relative paths that the file imports, such as ``./lib.ts``.
    imports: tuple[str, ...]
    error: tuple[int, int, str] | None
    #: The field `mappings` of the source map (ECMA-426).
    mappings: str

    def original(self, line: int, column: int) -> tuple[int, int]:
        """The place in the source for a place in the code. Lines and columns are counted from 1."""
        places = self._places[line - 1] if line <= len(self._places) else []
        at = bisect_right(places, (column - 1, sys.maxsize, 0)) - 1
        if at < 0:
            return line, column
        return places[at][1] + 1, places[at][2] + 1

    @cached_property
    def _places(self) -> list[list[tuple[int, int, int]]]:
        """For each line of the code: columns, and the place in the source of each. All are counted from 0."""
        lines = []
        source_line = source_column = 0
        for line in self.mappings.split(";"):
            column, places = 0, []
            for segment in line.split(","):
                numbers = _numbers(segment)
                if len(numbers) >= 4:
                    column += numbers[0]
                    source_line += numbers[2]
                    source_column += numbers[3]
                    places.append((column, source_line, source_column))
                elif numbers:
                    column += numbers[0]
            lines.append(places)
        return lines


def _numbers(segment: str) -> list[int]:
    """Decode the signed numbers of a base64 VLQ (variable-length quantity)."""
    numbers = []
    value = shift = 0
    for digit in segment:
        bits = _DIGITS[digit]
        value |= (bits & 31) << shift
        shift += 5
        if bits < 32:
            numbers.append(-(value >> 1) if value & 1 else value >> 1)
            value = shift = 0
    return numbers


class Compiler:
    """Compiles files, one after the other.

    Use a Compiler as a context manager, in one thread. Its process starts with the first file.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def compile(self, name: str, source: str) -> Compiled:
        """Compile a file. Blocks for some milliseconds, and for the first file almost a second.

        Raises `IsolateError` if the compiler cannot be started, or takes longer than `COMPILE_TIMEOUT_S`.
        """
        found = _remembered.get((name, source))
        if found is not None:
            return found
        answer = self._ask({"name": name, "source": source})
        error = tuple(answer["error"]) if answer["error"] else None
        compiled = Compiled(answer["code"], tuple(answer["imports"]), error, answer["mappings"])
        if len(_remembered) >= MAX_REMEMBERED:
            _remembered.clear()
        _remembered[name, source] = compiled
        return compiled

    def _ask(self, question: dict[str, str]) -> Any:
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        watch = Timer(COMPILE_TIMEOUT_S, process.kill)
        watch.daemon = True
        watch.start()
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline() or "null")
        except OSError as error:
            raise IsolateError(f"the TypeScript compiler has ended: {error}") from error
        finally:
            watch.cancel()
        if answer is None:
            raise IsolateError(f"the TypeScript compiler ended before it had compiled {question['name']}")
        if "failed" in answer:
            raise IsolateError(f"the TypeScript compiler failed: {answer['failed']}")
        return answer

    def __enter__(self) -> Compiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _start() -> subprocess.Popen[str]:
    dukpy = importlib.util.find_spec("dukpy")
    if dukpy is None or dukpy.origin is None or not sys.executable:
        raise IsolateError("TypeScript handlers need dukpy, and a Python executable for its compiler")
    folder = os.path.dirname(os.path.dirname(dukpy.origin))
    return subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("compiler_process.py")), folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
