"""What QuickJS says of an error, made fit to be read: the script's own files and lines, nothing of the runtime's.

What an error says may be a client's text, so no place is ever looked for in it: the runtime sends text and stacks
apart. The names of functions are in the stack, too. One that a script makes of a client's text can name another line of
the script's own files, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from wsthreads.monitoring.logs import block, quoted

__all__ = ["Failure", "Place"]

#: A frame of the engine's. A function's name may be anything, so what counts is the end of the line.
_FRAME = re.compile(
    r"    at (?P<before>.* \(|)(?P<id>[^()\n]+?|<[a-z]+>):(?P<line>\d+)(?::(?P<column>\d+))?(?P<end>\)?)"
)
_OF_RUNTIME = ("<dukpy>", "<wsthreads>")
_NATIVE = " (native)"
_VERSION = re.compile(r"\?\d+\Z")


class Place(NamedTuple):
    """Where in the script's files: the id of a module, without its version."""

    file: str
    line: int
    column: int | None


class Failure(NamedTuple):
    """An error, its causes and the errors in it: what each says, and its stack, which may be empty.

    Or, of the console, what a line says, and the stacks of the errors in it.
    """

    parts: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, described: str) -> Failure:
        """What the runtime's `describe` has made of an error: text, stack, text, stack, and so on, in JSON."""
        texts = json.loads(described)
        return cls(tuple(zip(texts[::2], texts[1::2], strict=True)))

    @classmethod
    def of(cls, message: str) -> Failure:
        """One without a stack. Whatever is in its message, it is a message."""
        return cls(((message, ""),))

    @property
    def message(self) -> str:
        return self.parts[0][0]

    @property
    def was_interrupted(self) -> bool:
        """Whether this is the error by which the engine stops a call at its deadline."""
        return self.message == "InternalError: interrupted"

    @property
    def was_out_of_memory(self) -> bool:
        """Whether this is the engine's error for a full heap, or what it throws where there is no room for that."""
        return self.message.startswith(("InternalError: out of memory", "null was thrown"))

    @property
    def was_parsed(self) -> bool:
        """Whether the engine's parser found it in a file: no function is on its stack."""
        (message, stack) = self.parts[0]
        return message.startswith("SyntaxError: ") and "\n" not in stack and not stack.endswith(")") and bool(stack)

    def saying(self, message: str) -> Failure:
        """The same with another message."""
        return Failure(((message, self.parts[0][1]), *self.parts[1:]))

    def tidy(self, original: Callable[[str, int, int], tuple[int, int]]) -> Failure:
        """The same without frames of the runtime, and without versions of files.

        `original` gives the line and column to show for those in the stack, from a module's id, line and column.
        """
        return Failure(tuple((message, _tidy(stack, original)) for message, stack in self.parts))

    def place(self, files: Collection[str]) -> Place | None:
        """The innermost place in one of these files, ids of modules, that the first stack with such a place names."""
        for _, stack in self.parts:
            for line in stack.split("\n"):
                frame = _FRAME.fullmatch(line)
                if frame is not None and frame["id"] in files:
                    return Place(frame["id"], int(frame["line"]), int(frame["column"]) if frame["column"] else None)
        return None

    def fields(self, files: Collection[str]) -> dict[str, Any]:
        """That place as `file`, `line` and `column` of a log record, each if it is known."""
        place = self.place(files)
        return {} if place is None else {name: value for name, value in place._asdict().items() if value is not None}

    def shown(self, before: str = "") -> tuple[str, str]:
        """For a log: the message, behind what comes `before` it, and all that is below it, in lines of their own.

        A line of a message begins with a bar there, so that it cannot pass for a frame.
        """
        below = []
        for index, (message, stack) in enumerate(self.parts):
            if index > 0:
                below.append(quoted(message))
            if stack:
                below.append(block(stack))
        return quoted(before + self.message), "\n".join(below)


def _tidy(stack: str, original: Callable[[str, int, int], tuple[int, int]]) -> str:
    kept: list[str] = []
    for line in stack.split("\n"):
        frame = _FRAME.fullmatch(line)
        if frame is None:
            if line.strip():
                kept.append(line)
        elif frame["id"] in _OF_RUNTIME:
            while kept and kept[-1].endswith(_NATIVE):  # a native that the runtime called, not the script
                kept.pop()
        else:
            identity = _VERSION.sub("", frame["id"])
            row, column = original(frame["id"], int(frame["line"]), int(frame["column"] or 1))
            place = f"{identity}:{row}" + (f":{column}" if frame["column"] else "")
            kept.append(f"    at {frame['before']}{place}{frame['end']}")
    return "\n".join(kept)
