"""What QuickJS says of an error, made fit to be read: the script's own files and lines, nothing of the runtime's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ["below", "message_and_place", "place_fields", "stack_in", "tidy", "was_interrupted", "was_out_of_memory"]

_RUNTIME_FRAME = re.compile(r"^\s+at .*<(?:dukpy|wsthreads)>")
_NATIVE_FRAME = re.compile(r"^\s+at .*\(native\)$")
_FRAME = re.compile(r"^\s+at ")
_FIRST_FRAME = re.compile(r"^    at .*:\d+(?::\d+)?\)?$", re.MULTILINE)
_VERSION = re.compile(r"\?\d+$")
_NO_FILE = "<input>"  #: what the engine calls the text that `JSON.parse` or `eval` is given
_PLACE = re.compile(
    r"^(?P<before>\s+at (?:.*\()?)(?P<id>[^()\n]+?):(?P<line>\d+)(?::(?P<column>\d+))?(?=\)?$)", re.MULTILINE
)


def tidy(text: str, original: Callable[[str, int, int], tuple[int, int]] | None = None) -> str:
    """The text of an error without the runtime's frames, without blank lines, and without versions of files.

    `original` gives the line and column to show in place of those in the stack, from a module's id, line and column.
    """

    def shown(frame: re.Match[str]) -> str:
        identity, line, column = frame["id"], int(frame["line"]), int(frame["column"] or 1)
        if original is not None:
            line, column = original(identity, line, column)
        return f"{frame['before']}{_VERSION.sub('', identity)}:{line}" + (f":{column}" if frame["column"] else "")

    kept: list[str] = []
    for line in text.splitlines():
        if _RUNTIME_FRAME.match(line):
            while kept and _NATIVE_FRAME.match(kept[-1]):  # a native that the runtime called, not the script
                kept.pop()
        elif line.strip():
            kept.append(_PLACE.sub(shown, line.rstrip()))
    return "\n".join(kept)


def below(text: str) -> str:
    """The text of an error without its first line, to go below another one."""
    _, newline, stack = text.partition("\n")
    return newline + stack


def was_interrupted(text: str) -> bool:
    """Whether this is the error by which the engine stops a call at its deadline."""
    return text.startswith("InternalError: interrupted")


def was_out_of_memory(text: str) -> bool:
    """Whether this is the engine's error for a full heap, or what it throws where there is no room for that either."""
    return text.startswith(("InternalError: out of memory", "null was thrown"))


def message_and_place(text: str) -> tuple[str, tuple[str, int, int | None] | None]:
    """The message of a tidy text, and the innermost place in a file that its stack names: id, line, column."""
    message = "\n".join(line for line in text.splitlines() if not _FRAME.match(line))
    place = next((found for found in _PLACE.finditer(text) if found["id"] != _NO_FILE), None)
    if place is None:
        return message, None
    return message, (place["id"], int(place["line"]), int(place["column"]) if place["column"] else None)


def stack_in(text: str) -> str:
    """The frames at the end of a text, with the causes among them; empty if there are none."""
    found = _FIRST_FRAME.search(text)
    return "" if found is None else text[found.start() :]


def place_fields(text: str) -> dict[str, Any]:
    """The innermost place in a file that a tidy text names, as `file`, `line` and `column`, each if it is known."""
    _, place = message_and_place(text)
    fields = zip(("file", "line", "column"), place or (), strict=False)
    return {name: value for name, value in fields if value is not None}
