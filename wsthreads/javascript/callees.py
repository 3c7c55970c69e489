"""Adds the name of the called value to the error "not a function". QuickJS itself tells only the place of the call."""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["NOT_A_FUNCTION", "name_callee"]

#: The complete text of the engine's error.
NOT_A_FUNCTION = "TypeError: not a function"

# These patterns are texts. They are compiled at the first such error, not at each start.
_MESSAGE = r"(?:caused by |error \d+ of \d+: )?TypeError: not a function"
_FIRST_FRAME = r"    at .*? ?\(?(?P<id>[^()\n]+?):(?P<line>\d+):(?P<column>\d+)\)?(?:\n|\Z)"
_NATIVE_FRAME = r"    at (?P<name>\w+) \(native\)\n"

_NAME = r"[\w$#]+"
_INDEX = rf"""\[\s*(?:"[^"\n]*"|'[^'\n]*'|\d+|{_NAME}(?:\.{_NAME})*)\s*\]"""
#: Matches the called expression from its last name on. After `new`, matches from the first name on.
_ONWARD = rf"{_NAME}(?:\s*\??\.\s*{_NAME}|\s*(?:\?\.)?{_INDEX})*(?=\s*(?:\?\.\s*)?[(`])"
#: Matches the names before the last name.
_BEFORE = rf"(?P<open>[)\]]\s*\??\.\s*)?(?P<names>(?:{_NAME}\s*\??\.\s*)*)\Z"
#: Matches the whole called expression before a parenthesis.
_UP_TO = rf"(?P<open>[)\]]\s*\??\.\s*)?(?P<names>{_NAME}(?:\s*\??\.\s*{_NAME})*)\s*\Z"

#: Built-in functions that call another function.
_INDIRECT = {"apply", "bind", "call", "construct"}

#: The longest name in a message.
MAX_CHARS = 80


def name_callee(message: str, stack: str, source_of: Callable[[str], str | None]) -> str:
    """Add to `message` the name of the value that is not a function, if the place in `stack` tells it.

    `source_of` returns the source of a module by the module's id, as the engine got the source.
    """
    if re.fullmatch(_MESSAGE, message) is None:
        return message
    before = message.removesuffix("not a function")
    native = re.match(_NATIVE_FRAME, stack)
    if native is not None:
        name = native["name"]
        return message if name in _INDIRECT else f"{before}an argument of {name} is not a function"
    frame = re.match(_FIRST_FRAME, stack)
    source = None if frame is None else source_of(frame["id"])
    if frame is None or source is None:
        return message
    line, column = int(frame["line"]), int(frame["column"])
    name = _callee(source, line, column)
    if name is None and line == 1:  # QuickJS counts the columns of line 1 from 0
        name = _callee(source, line, column + 1)
    return message if name is None else f"{before}{name} is not a function"


def _callee(source: str, line: int, column: int) -> str | None:
    lines = source.split("\n")
    if not 1 <= line <= len(lines):
        return None
    at = sum(len(text) + 1 for text in lines[: line - 1]) + column - 1
    around = max(0, at - 500)
    before = source[around:at]
    if source[at : at + 1] in ("(", "`"):
        found = re.search(_UP_TO, before)
        text = None if found is None else found["names"]
    else:
        found = re.search(_BEFORE, before)
        rest = re.match(_ONWARD, source[at : at + 500])
        text = None if found is None or rest is None else found["names"] + rest[0]
    if found is None or text is None:
        return None
    name = re.sub(r"\s+", "", text)
    return None if len(name) > MAX_CHARS else f"(…).{name}" if found["open"] else name
