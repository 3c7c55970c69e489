"""What a process does with the messages that come from Redis: one function for each kind, in `HANDLERS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wsthreads.brokers import messages

if TYPE_CHECKING:
    from wsthreads.brokers.subscriptions import Subscription

__all__ = ["HANDLERS", "aged", "parse_stock"]


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
    if ticket < 0:  # this process has closed its own sessions before it told others
        room.listener.close(room.name, message)


def _presence(room: Subscription, message: messages.PresenceChange, ticket: int, is_busy: bool) -> None:
    room.listener.change_presence(room.name, message)


#: What the process does with each kind of message. A handler receives the subscription, the message, its ticket (-1
#: for a message of another process), and whether more messages are waiting. It runs in the reader's thread and must not
#: block; an exception is logged.
HANDLERS: dict[type[messages.Message], Callable[[Subscription, Any, int, bool], None]] = {
    messages.Broadcast: _broadcast,
    messages.Direct: _direct,
    messages.Close: _close,
    messages.PresenceChange: _presence,
}


def aged(message: messages.Message, entry: bytes, now_ms: int) -> messages.Message:
    """A message of a log as it is now, where it says how long something lasts from when it was published."""
    age_s = max(0.0, (now_ms - int(entry.partition(b"-")[0])) / 1000)
    if isinstance(message, messages.Close) and message.ban_s:
        return message._replace(ban_s=max(0.0, message.ban_s - age_s))
    if isinstance(message, messages.PresenceChange) and message.lost_s is not None:
        return message._replace(lost_s=max(0.0, message.lost_s - age_s))
    return message


def parse_stock(data: bytes) -> tuple[bytes, int, list[bytes]]:
    """A serial number and a channel, the time, and the parts that follow. Raises ValueError."""
    name, at = _part(data, 1)
    end = data.index(b":", at)
    now_ms = messages.whole(data[at:end])
    parts: list[bytes] = []
    at = end + 1
    while at < len(data):
        part, at = _part(data, at)
        parts.append(part)
    if not parts or len(parts) % 2:
        raise ValueError("the parts are no pairs")
    return name, now_ms, parts


def _part(data: bytes, at: int) -> tuple[bytes, int]:
    colon = data.index(b":", at)
    size = messages.whole(data[at:colon])
    end = colon + 1 + size
    if size < 0 or end > len(data):
        raise ValueError("a part is too short")
    return data[colon + 1 : end], end
