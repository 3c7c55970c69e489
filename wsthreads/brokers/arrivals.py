"""Handles the messages from Redis: one function for each kind, in `HANDLERS`.

`Arrivals` acts on each message once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wsthreads.brokers import messages
from wsthreads.errors import BrokerError
from wsthreads.loggers import get_logger

if TYPE_CHECKING:
    from wsthreads.brokers.malformed import Malformed
    from wsthreads.brokers.subscription import Subscription

__all__ = ["HANDLERS", "Arrivals", "aged", "parse_stock"]

log = get_logger(__name__)


def _broadcast(room: Subscription, message: messages.Broadcast, ticket: int, is_busy: bool) -> None:
    room.listener.deliver(
        room.name,
        message.frame,
        message.exclude_id,
        ticket=ticket,
        hand_over=is_busy,
        serial=room.serial,
        position=room.position,
    )


def _direct(room: Subscription, message: messages.Direct, ticket: int, is_busy: bool) -> None:
    room.listener.deliver_to_session(message)


def _close(room: Subscription, message: messages.Close, ticket: int, is_busy: bool) -> None:
    if ticket < 0:  # otherwise this process has sent the message, and has already closed its own sessions
        room.listener.close(room.name, message)


def _presence(room: Subscription, message: messages.PresenceChange, ticket: int, is_busy: bool) -> None:
    room.listener.change_presence(room.name, message)


#: The handler for each kind of message. A handler gets the subscription, the message, its ticket, and whether more
#: messages wait. The ticket is -1 for a message of another process. The handler runs in the reader's thread and must
#: not block. An exception is logged.
HANDLERS: dict[type[messages.Message], Callable[[Subscription, Any, int, bool], None]] = {
    messages.Broadcast: _broadcast,
    messages.Direct: _direct,
    messages.Close: _close,
    messages.PresenceChange: _presence,
}


class Arrivals:
    """Handles messages for the rooms of this process.

    Only the reader's thread uses this class, except for `parse_presences`, which any thread may call. `on_own(room,
    ticket)` is called when a broadcast of `process` has come back from Redis and was delivered to the members.
    """

    def __init__(self, process: str, malformed: Malformed, on_own: Callable[[Subscription, int], None]) -> None:
        self._process = process.encode()
        self._malformed = malformed
        self._on_own = on_own

    def decode(self, message: bytes) -> messages.Message | None:
        """The decoded message. None for a malformed message, which is counted."""
        try:
            return messages.decode(message)
        except BrokerError as error:
            self._malformed.drop(str(error))
            return None

    def handle(self, room: Subscription, message: messages.Message, is_busy: bool) -> None:
        """Handle a message, unless it was handled before."""
        if room.dropped:
            return  # the room's next subscription will receive the message, and report that it has come back
        if isinstance(message, messages.PresenceChange):
            self._act(room, message, -1, is_busy)
            return
        own = message.sender == self._process
        ticket = room.delivering = message.ticket if own else -1
        if not room.has_seen(message):
            room.see(message)
            self._act(room, message, ticket, is_busy)
        if own:
            self._on_own(room, message.ticket)

    def _act(self, room: Subscription, message: messages.Message, ticket: int, is_busy: bool) -> None:
        try:
            HANDLERS[type(message)](room, message, ticket, is_busy)
        except Exception:
            log.exception("a %s to room %r was not delivered", type(message).__name__.lower(), room.name)

    def take_presences(self, room: Subscription, now_ms: int, stored: list[bytes], is_surely: bool) -> None:
        """Take all presences of a room from Redis."""
        if room.dropped:
            return
        present = self.parse_presences(now_ms, stored)
        try:
            room.listener.take_presences(room.name, present, is_first=not room.has_presences, is_surely=is_surely)
        except Exception:
            log.exception("the presences of room %r in Redis were not used", room.name)
        room.has_presences = True

    def parse_presences(self, now_ms: int, stored: list[bytes]) -> list[messages.PresenceChange]:
        """The entries of a presence hash from Redis, without malformed ones. Any thread."""
        present, malformed = messages.parse_presences(now_ms, stored)
        for what in malformed:
            self._malformed.drop(what)
        return present


def aged(message: messages.Message, entry: bytes, now_ms: int) -> messages.Message:
    """A copy of a message from a log. The durations in the copy are shorter by the time since its publication."""
    age_s = max(0.0, (now_ms - int(entry.partition(b"-")[0])) / 1000)
    if isinstance(message, messages.Close) and message.ban_s:
        return message._replace(ban_s=max(0.0, message.ban_s - age_s))
    if isinstance(message, messages.PresenceChange) and message.lost_s is not None:
        return message._replace(lost_s=max(0.0, message.lost_s - age_s))
    return message


def parse_stock(data: bytes) -> tuple[bytes, int, list[bytes]]:
    """Parse the presences of a room, as the script `ANNOUNCE` publishes them.

    Returns the name (the serial number and the channel), the time in milliseconds, and the other parts. Raises
    ValueError.
    """
    name, at = _part(data, 1)
    end = data.index(b":", at)
    now_ms = messages.whole(data[at:end])
    parts: list[bytes] = []
    at = end + 1
    while at < len(data):
        part, at = _part(data, at)
        parts.append(part)
    if not parts or len(parts) % 2:
        raise ValueError("the number of parts is 0 or odd")
    return name, now_ms, parts


def _part(data: bytes, at: int) -> tuple[bytes, int]:
    colon = data.index(b":", at)
    size = messages.whole(data[at:colon])
    end = colon + 1 + size
    if size < 0 or end > len(data):
        raise ValueError("a part is too short")
    return data[colon + 1 : end], end
