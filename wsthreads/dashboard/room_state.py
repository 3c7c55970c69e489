"""The state of one room for the page: its attributes, its history, and which process owns it.

Of the messages in the history, the page gets only times and sizes. It gets the content of a message when a viewer asks
for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import time
from typing import TYPE_CHECKING, Any

from wsthreads.dashboard.redaction import MAX_ITEMS, public_attribute
from wsthreads.dashboard.requests import Mistake
from wsthreads.errors import BrokerError
from wsthreads.protocol.frames import TEXT
from wsthreads.rooms.history import message_of, payload_bytes
from wsthreads.rooms.json_text import value_of

if TYPE_CHECKING:
    from wsthreads.dashboard.requests import Watch
    from wsthreads.rooms.mailboxes import OwnedState
    from wsthreads.sessions.endpoint import Endpoint

__all__ = ["merge_states", "message_text", "owner_of", "room_owner", "room_state"]

#: A message that is longer is cut.
MAX_CHARS = 20_000


def room_state(endpoints: Iterable[Endpoint], watch: Watch) -> dict[str, Any]:
    """Returns the message with the state of the room that `watch` asks for.

    If there is a broker, this may wait for the broker for a second.
    """
    found = room_owner(endpoints, watch)
    endpoint, name = _endpoint(endpoints, watch), watch.room
    if endpoint is None or name is None:
        return found
    return {
        **found,
        "attributes": _or_error(lambda: _attributes(endpoint, name)),
        "history": _or_error(lambda: _history(endpoint, name, watch.limit)),
        "posts_elsewhere": _or_error(lambda: endpoint.ownership.posts_elsewhere(name)),
    }


def room_owner(endpoints: Iterable[Endpoint], watch: Watch) -> dict[str, Any]:
    """Returns the part of the state that only the process of the room's owner knows."""
    endpoint, name = _endpoint(endpoints, watch), watch.room
    state = None if endpoint is None or name is None else endpoint.ownership.states().get(name)
    return {
        "type": "room_state",
        "request": watch.request,
        "endpoint": watch.endpoint,
        "name": name,
        "is_owned": endpoint is not None and endpoint.ownership.is_on,  # whether rooms of this endpoint have owners
        "owner": owner_of(state),
        "attributes": None,
        "history": None,
    }


def owner_of(state: OwnedState | None) -> dict[str, Any] | None:
    """Returns what this process knows about a room as its owner. None if it does not own the room."""
    if state is None:
        return None
    lag_s = state.tick_lag_s
    return {
        "fencing_number": state.fencing_number,
        "posts_waiting": state.posts_waiting,
        "tick_lag_s": None if lag_s is None else round(lag_s, 5),
    }


def merge_states(parts: list[dict[str, Any]], watch: Watch) -> dict[str, Any]:
    """Returns the state from this process, with the owner's part from any process."""
    own = parts[0]
    owners = [part["owner"] for part in parts if part.get("owner")]
    # While the ownership moves to another process, the process before may not know this yet.
    owner = max(owners, key=lambda owner: owner["fencing_number"], default=None)
    waiting = own.pop("posts_elsewhere", 0)
    if owner is not None and isinstance(waiting, int):
        owner = {**owner, "posts_waiting": owner["posts_waiting"] + waiting}
    return {**own, "owner": owner}


def message_text(endpoint: Endpoint, name: str, number: int) -> str:
    """Returns the content of a message in the history of a room. Raises `Mistake` and `BrokerError`."""
    history = endpoint.rooms.history
    found = [] if history is None else history.recent(name, history.limits.messages)
    frame = next((frame for its_number, _, frame in found if its_number == number), None)
    if frame is None:
        raise Mistake(f"message {number} is no longer in the history of the room")
    message = message_of(frame)
    text = message if isinstance(message, str) else message[: MAX_CHARS // 3].hex(" ")
    size = len(message)
    unit = "characters" if isinstance(message, str) else "bytes"
    is_cut = len(text) > MAX_CHARS or (isinstance(message, bytes) and size > MAX_CHARS // 3)
    return f"{text[:MAX_CHARS]}… ({size} {unit})" if is_cut else text


def _endpoint(endpoints: Iterable[Endpoint], watch: Watch) -> Endpoint | None:
    return next((endpoint for endpoint in endpoints if endpoint.path == watch.endpoint), None)


def _or_error(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except BrokerError as error:
        return {"error": str(error)}


def _attributes(endpoint: Endpoint, name: str) -> dict[str, Any]:
    texts, shown = endpoint.attributes.all(name), endpoint.handler.shown
    return {
        "count": len(texts),
        "bytes": sum(len(key.encode("utf-8", "replace")) + len(text) for key, text in texts.items()),
        "rows": [
            {"key": shown(key), "value": shown(public_attribute(key, value_of(text)))}
            for key, text in sorted(texts.items())[:MAX_ITEMS]
        ],
    }


def _history(endpoint: Endpoint, name: str, limit: int) -> dict[str, Any] | None:
    history = endpoint.rooms.history
    if history is None:
        return None
    found, now = history.recent(name, limit), time()
    sizes = [payload_bytes(frame) for _, _, frame in found]
    messages, size = history.size_of(name)  # in this process; empty if the room has no members in it
    return {
        "messages": max(messages, len(found)),
        "bytes": max(size, sum(sizes)),
        "is_all": messages >= len(found) or len(found) < limit,
        "rows": [
            {"number": number, "at": round(now - age_s, 1), "bytes": size, "is_text": frame[0] & 0x0F == TEXT}
            for (number, age_s, frame), size in zip(reversed(found), reversed(sizes), strict=True)
        ],
    }
