"""Converts the values that cross between a script and Python functions: JSON, bytes, and handles.

Values cross as JSON text. In arguments, ``{"\\u0000": number}`` stands for a *special* value in a separate list. A
special value is either bytes or a handle. Bytes are written as characters up to U+00FF. A handle is a list of its kind
and its names. Results have another form (see `Encoded`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from secrets import token_hex
from typing import Any, NamedTuple

from wsthreads.javascript.values import MAX_SAFE_INTEGER

__all__ = ["MAX_RESULT_BYTES", "Encoded", "Handles", "arguments_from", "encoded"]

#: The key of an object that stands for a special argument. The runtime refuses objects of a script with this key.
KEY = "\0"

#: The largest result, in bytes of JSON.
MAX_RESULT_BYTES = 16 * 1024 * 1024

#: How many levels `_check_size` visits. The encoder itself refuses values with about as many levels.
MAX_LEVELS = 1000

_ITERATED = "return a list, or use yield in the function that the script imports"

#: Types of values that contain no other values and have a short text.
_SHORT = frozenset((int, float, bool, type(None)))

#: Matches digits that may be a whole number beyond `MAX_SAFE_INTEGER`. They may also be a part of a text.
_LONG = re.compile(r"\d{16}")

#: A function that returns the Python object for a handle. It gets the kind and the names of the handle.
Handles = Callable[..., Any]


def arguments_from(text: str, specials: str | None, handle: Handles) -> list[Any]:
    """Decode the arguments of a call. Raises the errors that `handle` raises."""
    if specials is None:
        arguments: list[Any] = json.loads(text)
        return arguments
    values = [_special(*parts, handle=handle) for parts in json.loads(specials)]

    def restore(found: dict[str, Any]) -> Any:
        return values[found[KEY]] if KEY in found else found

    return list(json.loads(text, object_hook=restore))


def _special(kind: str, *parts: Any, handle: Handles) -> Any:
    return parts[0].encode("latin-1") if kind == "bytes" else handle(kind, *parts)


class Encoded(NamedTuple):
    """A result for the runtime: JSON text in which ``{key: number}`` stands for bytes, and these bytes.

    The key is random. A result may contain a client's text, and this text must not be able to refer to the bytes.
    """

    text: str
    key: str = ""
    sizes: tuple[int, ...] = ()
    #: All bytes, one after the other.
    data: bytes = b""


def encoded(value: Any) -> Encoded:
    """Encode a result for the runtime.

    Raises TypeError or ValueError for a value that JavaScript cannot have. The text tells what to return instead.
    """
    if value is None or value is True or value is False:  # the results of most functions
        return Encoded("null" if value is None else "true" if value else "false")
    _check_size(value)
    parts: list[bytes] = []
    key = ""

    def special(other: Any) -> dict[str, int]:
        nonlocal key
        if not isinstance(other, (bytes, bytearray, memoryview)):
            hint = f": {_ITERATED}" if isinstance(other, Iterator) else ""
            raise TypeError(f"{type(other).__name__} is not a JSON value{hint}")
        key = key or token_hex(8)
        parts.append(bytes(other))
        return {key: len(parts) - 1}

    text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=special)
    sizes = tuple(map(len, parts))
    if (size := len(text) + sum(sizes)) > MAX_RESULT_BYTES:
        raise ValueError(f"the result has {size} bytes, more than {MAX_RESULT_BYTES}: return it in parts")
    if _LONG.search(text):
        _check_integers(value)
    return Encoded(text, key, sizes, b"".join(parts))


def _check_size(value: Any) -> None:
    """Raise ValueError for a value that is surely too large: other threads cannot run while it is encoded."""
    size = 0
    level = [value]
    for _ in range(MAX_LEVELS):
        inner: list[Any] = []
        for each in level:
            if type(each) in _SHORT:
                continue
            if isinstance(each, (str, bytes, bytearray)):
                size += len(each)
            elif isinstance(each, (list, tuple)):
                size += 2 * len(each)
                inner += each if size <= MAX_RESULT_BYTES else ()
            elif isinstance(each, dict):
                size += 5 * len(each)
                inner += each.values() if size <= MAX_RESULT_BYTES else ()
            elif isinstance(each, memoryview):
                size += each.nbytes
            if size > MAX_RESULT_BYTES:
                raise ValueError(f"the result has more than {MAX_RESULT_BYTES} bytes: return it in parts")
        if not inner:
            return
        level = inner


def _check_integers(value: Any) -> None:
    """Raise ValueError for a whole number that would change when it becomes a JavaScript number."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, int) and not -MAX_SAFE_INTEGER <= each <= MAX_SAFE_INTEGER:
            raise ValueError(f"{each} is beyond JavaScript's safe integers, ±{MAX_SAFE_INTEGER}: return it as text")
        if isinstance(each, Mapping):
            waiting.extend(each.values())
        elif isinstance(each, (list, tuple)):
            waiting.extend(each)
