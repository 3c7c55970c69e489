"""What QuickJS says of an error, made fit to be read: the script's own files and lines, nothing of the runtime's."""

from __future__ import annotations

import os
import re

from wsthreads.errors import ScriptError

__all__ = ["below", "script_error", "tidy", "was_interrupted", "was_out_of_memory"]

_RUNTIME_FRAME = re.compile(r"^\s+at .*<(?:dukpy|wsthreads)>")
_NATIVE_FRAME = re.compile(r"^\s+at .*\(native\)$")
_FRAME = re.compile(r"^\s+at ")
_VERSION = re.compile(r"\?\d+(?=[:)]|$)", re.MULTILINE)
_PLACE = re.compile(r"^\s+at (?:.*\()?([^()\n]+?):(\d+)(?::(\d+))?\)?$", re.MULTILINE)


def tidy(text: str) -> str:
    """The text of an error without the runtime's frames, without blank lines, and without versions of files."""
    kept: list[str] = []
    for line in text.splitlines():
        if _RUNTIME_FRAME.match(line):
            while kept and _NATIVE_FRAME.match(kept[-1]):  # a native that the runtime called, not the script
                kept.pop()
        elif line.strip():
            kept.append(line.rstrip())
    return _VERSION.sub("", "\n".join(kept))


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


def script_error(text: str, path: str, import_problem: str | None = None) -> ScriptError:
    """The `ScriptError` for a script at `path` that did not load, perhaps for want of a module.

    Its place is the innermost one that the stack names. Files are given beside `path`, as the user wrote it.
    """
    text = tidy(text)
    if import_problem is not None and "cannot find module" in text:
        return ScriptError(import_problem, path)
    message = "\n".join(line for line in text.splitlines() if not _FRAME.match(line))
    place = _PLACE.search(text)
    if place is None:
        return ScriptError(message, path)
    name, line, column = place.groups()
    file = path if name == os.path.basename(os.path.realpath(path)) else os.path.join(os.path.dirname(path), name)
    return ScriptError(message, file, int(line), int(column) if column else None)
