"""How a message between processes is written: `encode_*` and `decode`.

::

    2 <sender> <ticket> <excluded> <kind>\n<payload>

========  ==============================================================================
field     meaning
========  ==============================================================================
2         `VERSION` of the format
sender    the process that sent the message
ticket    a number that this sender gives to each of its messages; it only grows
excluded  the id of the session that does not receive the message, or a dot
kind      ``t``: a broadcast of text; ``b``: a broadcast of bytes
payload   what the client receives
========  ==============================================================================

The ticket serves two purposes. Redis and the receivers recognise a message that is sent twice. And the sender
recognises its own message when it comes back.

A new kind of message goes here: a class with its fields, an encoder, and a line in `_DECODERS` for its letter. What a
process does with a message that it receives is in one table, too: `reader.HANDLERS`. Everything between the two (the
queue, the log in Redis, resending, duplicates) treats all kinds alike.

The payload is never evaluated. A message that does not match the format is refused. The version also covers how Redis
keeps and publishes messages (see `scripts`). Processes with different versions do not understand each other: each drops
what the other sends, and counts it as ``broker_malformed``. Version 1 had no tickets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from wsthreads.errors import BrokerError
from wsthreads.protocol.frames import BINARY, TEXT, encode_frame

__all__ = ["MAX_HEAD_BYTES", "VERSION", "Broadcast", "Message", "decode", "encode_broadcast"]

VERSION = 2

#: The first line of a message is shorter than this.
MAX_HEAD_BYTES = 160

_KINDS = {TEXT: b"t", BINARY: b"b"}


class Broadcast(NamedTuple):
    """A broadcast to the members of a room."""

    sender: bytes
    ticket: int
    exclude_id: str | None
    frame: bytes


#: Any of the kinds. Each has a `sender` and a `ticket`.
Message: TypeAlias = Broadcast


def encode_broadcast(sender: str, ticket: int, exclude_id: str | None, frame: bytes) -> bytes:
    """A broadcast for other processes. `frame` is the WebSocket frame that a client would receive."""
    head = f"{VERSION} {sender} {ticket} {exclude_id or '.'} ".encode()
    start = {126: 4, 127: 10}.get(frame[1], 2)
    return b"".join((head, _KINDS[frame[0] & 0x0F], b"\n", memoryview(frame)[start:]))


def decode(message: bytes) -> Message:
    """A message from its bytes. Raises `BrokerError` for malformed bytes; its text has nothing of the payload."""
    end = message.find(b"\n", 0, MAX_HEAD_BYTES)
    head = _HEAD.fullmatch(message, 0, max(end, 0))
    if head is None:
        raise BrokerError(f"{len(message)} bytes that are no message in version {VERSION} of the format")
    sender, ticket, excluded, kind = head.groups()
    exclude_id = None if excluded == b"." else excluded.decode()
    return _DECODERS[kind](sender, int(ticket), exclude_id, message[end + 1 :])


def _decode_text(sender: bytes, ticket: int, exclude_id: str | None, payload: bytes) -> Broadcast:
    try:
        payload.decode()
    except UnicodeDecodeError:
        raise BrokerError(f"a text of {len(payload)} bytes that is not valid UTF-8") from None
    return Broadcast(sender, ticket, exclude_id, encode_frame(TEXT, payload))


def _decode_bytes(sender: bytes, ticket: int, exclude_id: str | None, payload: bytes) -> Broadcast:
    return Broadcast(sender, ticket, exclude_id, encode_frame(BINARY, payload))


#: The decoder of each kind. It receives the sender, the ticket, the id of the excluded session, and the payload.
_DECODERS: dict[bytes, Callable[[bytes, int, str | None, bytes], Message]] = {b"t": _decode_text, b"b": _decode_bytes}

_HEAD = re.compile(
    rb"%d ([A-Za-z0-9_-]{1,40}) ([0-9]{1,18}) (\.|[A-Za-z0-9_-]{1,40}) ([%s])" % (VERSION, b"".join(_DECODERS))
)
