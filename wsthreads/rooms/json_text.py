"""JSON texts of the values that handlers give to rooms: presence values, attributes, posts.

A value is checked once, when a handler passes it. After that, the value is kept and sent as text, so each reader gets a
copy of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import accumulate
from typing import Any

__all__ = ["MAX_DEPTH", "JSONText", "is_json_text", "json_text", "value_of"]

#: How deep arrays and objects may be nested in a value. JSON parsers fail if they are nested very deeply.
MAX_DEPTH = 64

_OUTSIDE_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[^][{}"]+')

_DECODER = json.JSONDecoder()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_STRICT = json.JSONDecoder(parse_constant=_refuse)


class JSONText(str):
    """A value that is already JSON text. Scripts pass values in this form."""

    __slots__ = ()


def json_text(value: Any, *, what: str, max_bytes: int, setting: str, error: Callable[[str], Exception]) -> str:
    """Encode a value as JSON text. Raises `error` if it is not JSON, or has more than `max_bytes` in UTF-8.

    `what` and `setting` are for the error's message, for example "a presence value" and "max_presence_bytes". The text
    is valid UTF-8. At most `MAX_DEPTH` arrays and objects are nested in it.
    """
    if isinstance(value, JSONText):
        text = str(value)
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as failure:
            raise error(f"{what} must be JSON, not {_shown(value)}: {failure}") from None
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:  # JSON can only have a lone surrogate as an escape
                text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    size = len(text) if text.isascii() else len(text.encode())
    if size > max_bytes:
        raise error(f"{what} has {size} bytes as JSON; {setting} allows at most {max_bytes}")
    if text.count("[") + text.count("{") > MAX_DEPTH and (depth := _depth(text)) > MAX_DEPTH:
        raise error(f"{what} may have at most {MAX_DEPTH} arrays and objects inside each other, not {depth}")
    return text


def is_json_text(text: str) -> bool:
    """Whether a text from another process may be a result of `json_text`. Does not check the size."""
    try:
        _, end = _STRICT.raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return end == len(text) and (text.count("[") + text.count("{") <= MAX_DEPTH or _depth(text) <= MAX_DEPTH)


def value_of(text: str) -> Any:
    """Decode a text from `json_text`. Each call returns a new copy of the value."""
    # twice as fast as json.loads, which also looks for white space around the value
    return _DECODER.raw_decode(text)[0]


def _depth(text: str) -> int:
    """How deep arrays and objects are nested in a JSON text."""
    steps = (1 if character in "[{" else -1 for character in _OUTSIDE_BRACKETS.sub("", text))
    return max(accumulate(steps), default=0)


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except Exception:  # raised by the value's class, which is code of the application
        return type(value).__name__
