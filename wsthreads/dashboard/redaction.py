"""Hides secrets in the data that the page shows about a session.

If the name of a value suggests a secret, only the length of the value is shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

from wsthreads.monitoring.logs import hide_secrets, is_secret
from wsthreads.rooms.handles import Room, SessionRoom

__all__ = ["public_attribute", "public_headers", "public_json", "public_values", "shown_values"]

#: Headers that always contain secrets. Sec-WebSocket-Protocol can contain a token, because browsers can set no other
#: header for a WebSocket.
SECRET_HEADERS = frozenset(
    {"authorization", "cookie", "proxy-authorization", "sec-websocket-key", "sec-websocket-protocol"}
)

MAX_CHARS = 1_000
MAX_ITEMS = 100
MAX_DEPTH = 4

#: At most this many nested values of one attribute are shown. Without this limit, MAX_ITEMS at each depth would allow a
#: hundred million.
MAX_PARTS = 1_000

#: Values of these types are shown by their `repr`. Of all other values, only the name of the type is shown, because
#: their `repr` is code of the application.
PLAIN_TYPES = (int, float, complex, bool, type(None))
PLAIN_MODULES = ("datetime", "decimal", "fractions", "uuid")


def public_values(values: Mapping[str, str]) -> dict[str, str]:
    """Returns parameters in which secrets are hidden and long values are cut."""
    return {name: _public(name, value) for name, value in islice(values.items(), MAX_ITEMS)}


def public_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Returns headers in which secrets are hidden and long values are cut.

    Secrets in the queries of URLs, for example in Referer, are hidden, too.
    """
    return {
        name: _hidden(value) if name in SECRET_HEADERS else _public(name, hide_secrets(value))
        for name, value in islice(headers.items(), MAX_ITEMS)
    }


def shown_values(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns attributes as text, in which secrets are hidden and long values are cut.

    The attributes may be of any type, and another thread may change them at the same time.
    """
    shown = {}
    for key, value in islice(list(values.items()), MAX_ITEMS):
        name, text = (str.__str__(part) if isinstance(part, str) else _written(part) for part in (key, value))
        shown[name[:MAX_CHARS]] = _public(name, text)
    return shown


def public_json(value: Any) -> str:
    """Returns a JSON value as text, in which secrets are hidden. Long text is cut."""
    text = json.dumps(_open_parts(value), ensure_ascii=False)
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}… ({len(text)} characters)"


def public_attribute(key: str, value: Any) -> str:
    """Returns an attribute's JSON value as text.

    Long text is cut. Hidden if the key looks like the name of a secret.
    """
    return _hidden(json.dumps(value, ensure_ascii=False)) if is_secret(key) else public_json(value)


def _open_parts(value: Any, depth: int = 0) -> Any:
    """Returns a JSON value in which nested secrets are hidden. `max_presence_bytes` limits its size already."""
    if depth > MAX_DEPTH and isinstance(value, (dict, list)):
        return "…"
    if isinstance(value, dict):
        return {
            name: _hidden(part if isinstance(part, str) else json.dumps(part, ensure_ascii=False))
            if is_secret(name)
            else _open_parts(part, depth + 1)
            for name, part in value.items()
        }
    if isinstance(value, list):
        return [_open_parts(part, depth + 1) for part in value]
    return value


def _public(name: str, value: str) -> str:
    if is_secret(name):
        return _hidden(value)
    return value if len(value) <= MAX_CHARS else f"{value[:MAX_CHARS]}… ({len(value)} characters)"


def _hidden(value: str) -> str:
    return f"hidden ({len(value)} characters)"


def _written(value: Any, depth: int = 0, left: list[int] | None = None) -> str:
    """Returns a value as text, similar to `repr`, with nested secrets hidden. `left` counts down from MAX_PARTS."""
    kind: Any = type(value)
    left = [MAX_PARTS] if left is None else left
    left[0] -= 1
    if depth > MAX_DEPTH or left[0] < 0:
        return "…"
    if kind is dict:
        items = list(islice(list(value.items()), MAX_ITEMS + 1))
        parts = [f"{_written(key, depth + 1, left)}: {_item(key, item, depth + 1, left)}" for key, item in items]
        return "{" + ", ".join(_cut(parts)) + "}"
    if kind in (list, tuple, set, frozenset):
        items = list(islice(list(value), MAX_ITEMS + 1))
        opening, closing = "[]" if kind is list else "()" if kind is tuple else "{}"
        return opening + ", ".join(_cut([_written(item, depth + 1, left) for item in items])) + closing
    if kind in (str, bytes, bytearray):
        return repr(value if len(value) <= MAX_CHARS else value[:MAX_CHARS]) + "…" * (len(value) > MAX_CHARS)
    if kind in (Room, SessionRoom):
        return f"Room {value.name!r}"
    if kind is int and value.bit_length() > 4 * MAX_CHARS:
        return f"<int of {value.bit_length()} bits>"
    return repr(value) if kind in PLAIN_TYPES or kind.__module__ in PLAIN_MODULES else f"<{kind.__name__}>"


def _cut(parts: list[str]) -> list[str]:
    return parts if len(parts) <= MAX_ITEMS else [*parts[:MAX_ITEMS], "…"]


def _item(key: Any, value: Any, depth: int, left: list[int]) -> str:
    if isinstance(key, str) and is_secret(key):
        return _hidden(value if isinstance(value, str) else _written(value, depth, left))
    return _written(value, depth, left)
