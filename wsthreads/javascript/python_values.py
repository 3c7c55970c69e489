"""Values that cross between a script and Python functions: JSON, bytes, and handles.

Both directions use the same form: a JSON text, in which ``{"\\u0000": number}`` stands for a *special* value, and the
specials in a list. Bytes are characters up to U+00FF. A handle is a list of its kind and what names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from wsthreads.javascript.values import MAX_SAFE_INTEGER

__all__ = ["MAX_RESULT_BYTES", "Handles", "arguments_from", "encoded"]

#: The key of an object that stands for a special value.
KEY = "\0"

#: The largest result, in bytes of JSON.
MAX_RESULT_BYTES = 16 * 1024 * 1024

#: Digits that may be a whole number beyond `MAX_SAFE_INTEGER`, or a part of a text.
_LONG = re.compile(r"\d{16}")

#: Returns the Python object for a handle: its kind, and what names it.
Handles = Callable[..., Any]


def arguments_from(text: str, specials: str | None, handle: Handles) -> list[Any]:
    """The arguments of a call. Raises what `handle` raises."""
    if specials is None:
        arguments: list[Any] = json.loads(text)
        return arguments
    values = [_special(*parts, handle=handle) for parts in json.loads(specials)]

    def restore(found: dict[str, Any]) -> Any:
        return values[found[KEY]] if KEY in found else found

    return list(json.loads(text, object_hook=restore))


def _special(kind: str, *parts: Any, handle: Handles) -> Any:
    return parts[0].encode("latin-1") if kind == "bytes" else handle(kind, *parts)


def encoded(value: Any) -> tuple[str, str | None]:
    """A result as JSON text, and its specials in JSON if there are any.

    Raises TypeError and ValueError for what JavaScript cannot have, with a text that says what to return instead.
    """
    specials: list[tuple[str, str]] = []

    def special(other: Any) -> dict[str, int]:
        if not isinstance(other, (bytes, bytearray, memoryview)):
            raise TypeError(f"a {type(other).__name__} is no JSON value")
        specials.append(("bytes", bytes(other).decode("latin-1")))
        return {KEY: len(specials) - 1}

    if value is None or value is True or value is False:  # as most functions return
        return ("null" if value is None else "true" if value else "false"), None
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=special)
    if len(text) > MAX_RESULT_BYTES or sum(len(data) for _, data in specials) > MAX_RESULT_BYTES:
        size = len(text) + sum(len(data) for _, data in specials)
        raise ValueError(f"the result has {size} bytes, more than {MAX_RESULT_BYTES}: return it in parts")
    if _LONG.search(text):
        _check_integers(value)
    return text, json.dumps(specials) if specials else None


def _check_integers(value: Any) -> None:
    """Raises ValueError for a whole number that a JavaScript number would change."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, int) and not -MAX_SAFE_INTEGER <= each <= MAX_SAFE_INTEGER:
            raise ValueError(f"{each} is beyond JavaScript's safe integers, ±{MAX_SAFE_INTEGER}: return it as text")
        if isinstance(each, Mapping):
            waiting.extend(each.values())
        elif isinstance(each, (list, tuple)):
            waiting.extend(each)
