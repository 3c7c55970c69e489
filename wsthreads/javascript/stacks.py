"""Prepares the errors of QuickJS for logs. The stacks show files and lines of the script, but not those of the runtime.

The message of an error may contain a client's text. So the runtime sends messages and stacks separately, and this
module does not look for places in messages. A stack also has names of functions. If a script makes such a name from a
client's text, the log may show a wrong line of the script's own files, but nothing worse can happen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from wsthreads.javascript.callees import NOT_A_FUNCTION, name_callee
from wsthreads.monitoring.logs import block, quoted

__all__ = ["Failure", "Place"]

#: Matches a frame of the engine. The name of a function may be any text, so the pattern parses only the end of the
#: line.
_FRAME = re.compile(
    r"    at (?P<before>.* \(|)(?P<id>[^()\n]+?|<[a-z]+>):(?P<line>\d+)(?::(?P<column>\d+))?(?P<end>\)?)"
)
_OF_RUNTIME = ("<dukpy>", "<wsthreads>")
_NATIVE = " (native)"
_VERSION = re.compile(r"\?\d+\Z")


class Place(NamedTuple):
    """A place in the script's files. `file` is the id of a module, without its version."""

    file: str
    line: int
    column: int | None


class Failure(NamedTuple):
    """An error, with its causes and nested errors. Each part has a message and a stack, which may be empty.

    Also used for a line of the console, with the stacks of the errors in this line.
    """

    parts: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, described: str) -> Failure:
        """Make a failure from the JSON that the runtime's `describe` returns: text, stack, text, stack, and so on."""
        texts = json.loads(described)
        return cls(tuple(zip(texts[::2], texts[1::2], strict=True)))

    @classmethod
    def of(cls, message: str) -> Failure:
        """A failure without a stack."""
        return cls(((message, ""),))

    @property
    def message(self) -> str:
        return self.parts[0][0]

    @property
    def was_interrupted(self) -> bool:
        """Whether the engine has stopped a call at its deadline, and this is its error."""
        return self.message == "InternalError: interrupted"

    @property
    def was_out_of_memory(self) -> bool:
        """Whether this is the engine's error for a full heap.

        If the engine has no memory for this error, it throws null.
        """
        return self.message.startswith(("InternalError: out of memory", "null was thrown"))

    @property
    def was_parsed(self) -> bool:
        """Whether the engine's parser has found the error in a file. In this case the stack has no function."""
        (message, stack) = self.parts[0]
        return message.startswith("SyntaxError: ") and "\n" not in stack and not stack.endswith(")") and bool(stack)

    def saying(self, message: str) -> Failure:
        """The same failure, with another message."""
        return Failure(((message, self.parts[0][1]), *self.parts[1:]))

    def tidy(
        self,
        original: Callable[[str, int, int], tuple[int, int]],
        source_of: Callable[[str], str | None],
        before: str | None = None,
    ) -> Failure:
        """A copy for logs: without frames of the runtime, and without the versions that reloads add to file names.

        If the error is "not a function", the copy names the value that is not a function.

        `original` returns the line and column to show; it gets a module's id, and the line and column in the stack.
        `source_of` returns the code that the engine got for a module. `before` is the text in a line of the console
        before the error.
        """
        parts = [(name_callee(message, stack, source_of), _tidy(stack, original)) for message, stack in self.parts]
        line, stack = self.parts[0]
        if before is not None and line.startswith(before + NOT_A_FUNCTION):
            named = name_callee(NOT_A_FUNCTION, stack, source_of)
            parts[0] = (before + named + line[len(before + NOT_A_FUNCTION) :], parts[0][1])
        return Failure(tuple(parts))

    def place(self, files: Collection[str]) -> Place | None:
        """The innermost place in `files`, which are ids of modules. It is in the first stack that has such a place."""
        for _, stack in self.parts:
            for line in stack.split("\n"):
                frame = _FRAME.fullmatch(line)
                if frame is not None and frame["id"] in files:
                    return Place(frame["id"], int(frame["line"]), int(frame["column"]) if frame["column"] else None)
        return None

    def fields(self, files: Collection[str]) -> dict[str, Any]:
        """`place` as the fields `file`, `line` and `column` of a log record. A field that is not known is left out."""
        place = self.place(files)
        return {} if place is None else {name: value for name, value in place._asdict().items() if value is not None}

    def shown(self, before: str = "") -> tuple[str, str]:
        """Two texts for a log: `before` and the message; and the lines below them, with stacks and causes.

        In the lines below, each line of a message begins with a bar. So it cannot look like a frame of a stack.
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
            while kept and kept[-1].endswith(_NATIVE):  # a native function that the runtime has called
                kept.pop()
        else:
            identity = _VERSION.sub("", frame["id"])
            row, column = original(frame["id"], int(frame["line"]), int(frame["column"] or 1))
            place = f"{identity}:{row}" + (f":{column}" if frame["column"] else "")
            kept.append(f"    at {frame['before']}{place}{frame['end']}")
    return "\n".join(kept)
