"""The page's requests: parses and checks their JSON. An error names the value that is wrong, and the limit.

Processes that share their rooms send `Watch` requests to each other in the same form.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = [
    "MAX_LIMIT",
    "Broadcast",
    "Close",
    "CloseRoom",
    "KickUser",
    "Mistake",
    "PageRequest",
    "ReadMessage",
    "Send",
    "Unwatch",
    "Watch",
    "fields_of",
    "parse",
    "watch_of",
]

#: The lists that a page can ask for: `session` is one session, `user` the sessions of one user, `room` the persons in
#: one room, and `room_state` the attributes, the history and the owner of one room.
LISTS = ("sessions", "rooms", "session", "user", "room", "room_state")
SORTS = ("since", "messages_in", "messages_out", "bytes_waiting", "round_trip_s")
MAX_LIMIT = 500
MAX_FILTER_CHARS = 200
MAX_NAME_CHARS = 4096

KICKED = (1008, "kicked by the operator")


class Mistake(Exception):
    """The reason why a request cannot be done. `request` is the number of the request, or None if it has none."""

    def __init__(self, text: str, request: int | None = None) -> None:
        super().__init__(text)
        self.request = request


class Watch(NamedTuple):
    """Asks for a list, now and after each change. The list `session` has all details of one session.

    The list `user` needs an `endpoint` and a `user`. The lists `room` and `room_state` need an `endpoint` and a `room`.
    """

    request: int | None
    list: str
    filter: str = ""
    endpoint: str | None = None
    room: str | None = None
    sort: str = "since"
    descending: bool = False
    limit: int = 50
    session_id: str = ""
    user: str | None = None


class Unwatch(NamedTuple):
    request: int | None
    list: str


class Close(NamedTuple):
    """Asks to close a session of any process.

    `endpoint` is the path of its endpoint, or None if the page does not know it.
    """

    request: int | None
    session_id: str
    endpoint: str | None
    code: int
    reason: str


class KickUser(NamedTuple):
    """Asks to close all sessions of a user, and to refuse new ones for `ban_s` seconds, which may be 0."""

    request: int | None
    endpoint: str
    user: str
    code: int
    reason: str
    ban_s: float


class CloseRoom(NamedTuple):
    """Asks to close all members of a room."""

    request: int | None
    endpoint: str
    room: str
    code: int
    reason: str


class Send(NamedTuple):
    """Asks to send a message to a session, or to all sessions of a user. Either `session_id` or `user` is None."""

    request: int | None
    endpoint: str
    session_id: str | None
    user: str | None
    message: str


class Broadcast(NamedTuple):
    request: int | None
    endpoint: str
    room: str
    message: str


class ReadMessage(NamedTuple):
    """Asks for the content of a message in the history of a room."""

    request: int | None
    endpoint: str
    room: str
    number: int


PageRequest = Watch | Unwatch | Close | KickUser | CloseRoom | Send | Broadcast | ReadMessage


def parse(message: str | bytes) -> PageRequest:
    """Parse a request. Raises `Mistake`."""
    if isinstance(message, bytes):
        raise Mistake("a request must be JSON text, not binary")
    try:
        fields = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise Mistake(f"a request must be JSON text: {error}") from None
    if not isinstance(fields, dict):
        raise Mistake(f"a request must be a JSON object, not {_shown(fields)}")
    request = fields.get("request")
    if request is not None and (isinstance(request, bool) or not isinstance(request, int)):
        raise Mistake(f"request must be a whole number, not {_shown(request)}")
    kind = fields.get("type")
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise Mistake(f"type must be one of {', '.join(_READERS)}, not {_shown(kind)}", request)
    try:
        return read(request, fields)
    except Mistake as mistake:
        raise Mistake(str(mistake), request) from None


def watch_of(fields: Any) -> Watch:
    """Returns the `Watch` request that another process has sent as `fields_of`. Raises `Mistake`."""
    if not isinstance(fields, dict):
        raise Mistake(f"a request must be a JSON object, not {_shown(fields)}")
    return _watch(None, fields)


def fields_of(watch: Watch) -> dict[str, Any]:
    """Returns a `Watch` request as JSON, for another process."""
    return {**watch._asdict(), "id": watch.session_id}


def _watch(request: int | None, fields: dict[str, Any]) -> Watch:
    name = _one_of(fields, "list", LISTS)
    if name == "session":
        return Watch(request, name, session_id=_text(fields, "id"))
    if name in ("room", "room_state"):
        _text(fields, "room")
    if name == "user":
        _text(fields, "user")
    if name in ("room", "room_state", "user"):
        _text(fields, "endpoint")
    return Watch(
        request,
        name,
        filter=_text(fields, "filter", "", MAX_FILTER_CHARS).strip(),
        endpoint=_text_or_null(fields, "endpoint"),
        room=_text_or_null(fields, "room"),
        sort=_one_of(fields, "sort", SORTS, SORTS[0]),
        descending=_boolean(fields, "descending"),
        limit=_whole(fields, "limit", 50, 1, MAX_LIMIT),
        user=_text_or_null(fields, "user"),
    )


def _unwatch(request: int | None, fields: dict[str, Any]) -> Unwatch:
    return Unwatch(request, _one_of(fields, "list", LISTS))


def _close(request: int | None, fields: dict[str, Any]) -> Close:
    return Close(request, _text(fields, "session"), _text_or_null(fields, "endpoint"), *_ending(fields))


def _kick(request: int | None, fields: dict[str, Any]) -> Close:
    return Close(request, _text(fields, "session"), _text_or_null(fields, "endpoint"), *KICKED)


def _kick_user(request: int | None, fields: dict[str, Any]) -> KickUser:
    ban_s = _number(fields, "ban_s", 0)
    return KickUser(request, _text(fields, "endpoint"), _text(fields, "user"), *_ending(fields), ban_s)


def _close_room(request: int | None, fields: dict[str, Any]) -> CloseRoom:
    return CloseRoom(request, _text(fields, "endpoint"), _text(fields, "room"), *_ending(fields))


def _send(request: int | None, fields: dict[str, Any]) -> Send:
    session_id, user = _text_or_null(fields, "session"), _text_or_null(fields, "user")
    if (session_id is None) == (user is None):
        raise Mistake("a message is for a session or for a user, so one of the two must be a text")
    return Send(request, _text(fields, "endpoint"), session_id, user, _text(fields, "message", most_chars=None))


def _broadcast(request: int | None, fields: dict[str, Any]) -> Broadcast:
    message = _text(fields, "message", most_chars=None)
    return Broadcast(request, _text(fields, "endpoint"), _text(fields, "room"), message)


def _read_message(request: int | None, fields: dict[str, Any]) -> ReadMessage:
    number = _whole(fields, "number", 0, 1, 10**16)
    return ReadMessage(request, _text(fields, "endpoint"), _text(fields, "room"), number)


_READERS: dict[str, Callable[[int | None, dict[str, Any]], PageRequest]] = {
    "watch": _watch,
    "unwatch": _unwatch,
    "close": _close,
    "kick": _kick,
    "kick_user": _kick_user,
    "close_room": _close_room,
    "send": _send,
    "broadcast": _broadcast,
    "read_message": _read_message,
}


def _ending(fields: dict[str, Any]) -> tuple[int, str]:
    """Returns a close code and a reason."""
    return _whole(fields, "code", 1000, 1000, 4999), _text(fields, "reason", "")


def _text(
    fields: dict[str, Any], name: str, default: str | None = None, most_chars: int | None = MAX_NAME_CHARS
) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise Mistake(f"{name} must be a text, not {_shown(value)}")
    if most_chars is not None and len(value) > most_chars:
        raise Mistake(f"{name} may have at most {most_chars} characters, this one has {len(value)}")
    return value


def _text_or_null(fields: dict[str, Any], name: str) -> str | None:
    return None if fields.get(name) is None else _text(fields, name)


def _one_of(fields: dict[str, Any], name: str, known: tuple[str, ...], default: str | None = None) -> str:
    value = fields.get(name, default)
    if value not in known:
        raise Mistake(f"{name} must be one of {', '.join(known)}, not {_shown(value)}")
    return str(value)


def _boolean(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise Mistake(f"{name} must be true or false, not {_shown(value)}")
    return value


def _whole(fields: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Mistake(f"{name} must be a whole number from {low} to {high}, not {_shown(value)}")
    return value


def _number(fields: dict[str, Any], name: str, default: float) -> float:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Mistake(f"{name} must be a number, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """Returns a value of a request as JSON. Long text is cut."""
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:60] + "…"
