"""Converts handshakes, messages, persons and times for a script."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsthreads.javascript.engine import Engine
    from wsthreads.protocol.handshake import Request
    from wsthreads.rooms.directory import UserSession
    from wsthreads.rooms.presence import Person, PresenceChanges

__all__ = [
    "changes_for_script",
    "handshake_data",
    "message_from",
    "messages_for_script",
    "persons_in_json",
    "sessions_in_json",
]

#: JavaScript's ``Number.MAX_SAFE_INTEGER``. Beyond it, JavaScript cannot tell some whole numbers apart.
MAX_SAFE_INTEGER = 2**53 - 1


def handshake_data(request: Request) -> dict[str, Any]:
    """The data of a handshake for a script. The runtime keeps it until the session ends."""
    told = {
        "parameters": request.parameters,
        "headers": request.headers,
        "path": request.request_path,
        "address": request.remote_addr,
    }
    if request.path_parameters:
        told["pathParameters"] = {
            name: value if _is_exact(value) else str(value)  # for example a UUID
            for name, value in request.path_parameters.items()
        }
    return told


def _is_exact(value: object) -> bool:
    """Whether a value is a number that JavaScript can represent exactly."""
    return isinstance(value, (int, float)) and -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER


def message_from(engine: Engine | None, text: str | None, is_binary: bool) -> str | bytes:
    """Decode a message from the runtime.

    `text` is the message. Bytes are written as characters up to U+00FF. If `text` is None, the message is in the
    parcel.
    """
    if text is None and engine is not None:
        return engine.take_bytes() if is_binary else engine.take_text()
    assert text is not None
    return text.encode("latin-1") if is_binary else text


def _milliseconds(seconds: float) -> int:
    """Convert seconds to milliseconds, as ``Date.now()`` has them."""
    return round(seconds * 1000)


def messages_for_script(engine: Engine | None, messages: list[str | bytes]) -> bytes:
    """Encode the answer to ``room.history()`` (see ``messagesOf`` in rooms.js)."""
    data = b"".join(message for message in messages if isinstance(message, bytes))
    is_put = bool(data) and engine is not None and engine.put_bytes(data)
    entries: list[Any] = []
    for message in messages:
        if isinstance(message, str):
            entries.append(message)
        else:
            entries.append(len(message) if is_put else [message.decode("latin-1")])
    return json.dumps(entries).encode()


def persons_in_json(persons: Iterable[Person]) -> bytes:
    """Encode the answer to ``room.presence()``."""
    return json.dumps([_for_script(person) for person in persons]).encode()


def sessions_in_json(sessions: Iterable[UserSession]) -> bytes:
    """Encode the answer to ``user().sessions()``."""
    return json.dumps([{"id": session.id, "since": _milliseconds(session.since)} for session in sessions]).encode()


def changes_for_script(changes: PresenceChanges) -> dict[str, Any]:
    """The second argument of onPresence."""
    kinds = {"joined": changes.joined, "left": changes.left, "changed": changes.changed}
    return {kind: [_for_script(person) for person in persons] for kind, persons in kinds.items()}


def _for_script(person: Person) -> dict[str, Any]:
    return {**person.as_dict(), "since": _milliseconds(person.since)}
