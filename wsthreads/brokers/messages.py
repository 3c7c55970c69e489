"""What a broadcast looks like on its way between processes.

::

    2 <sender> <ticket> <excluded> <kind>\n<payload>

The version; the process that sent it; a number that grows from one broadcast of that process to the next; the id of
the session that is left out, or a dot; ``t`` for text or ``b`` for binary; and behind the line the message itself.
Nothing in it is ever evaluated, and what does not parse is refused.

The version covers how broadcasts are kept and published (`scripts`), too. Processes with different versions do not hear
each other: each drops what the other sends, and counts it as ``broker_malformed``. Version 1 had no numbers.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from wsthreads.errors import BrokerError
from wsthreads.protocol.frames import BINARY, TEXT, encode_frame

__all__ = ["MAX_HEAD_BYTES", "VERSION", "Broadcast", "decode", "encode"]

VERSION = 2

#: The first line of a message is shorter than this.
MAX_HEAD_BYTES = 160

_HEAD = re.compile(rb"%d ([A-Za-z0-9_-]{1,40}) ([0-9]{1,18}) (\.|[A-Za-z0-9_-]{1,40}) ([tb])" % VERSION)
_KINDS = {TEXT: b"t", BINARY: b"b"}


class Broadcast(NamedTuple):
    """A broadcast that has come back."""

    sender: bytes
    ticket: int
    exclude_id: str | None
    frame: bytes


def encode(sender: str, ticket: int, exclude_id: str | None, frame: bytes) -> bytes:
    """A message for other processes, from the frame that a client would get."""
    head = f"{VERSION} {sender} {ticket} {exclude_id or '.'} ".encode()
    start = {126: 4, 127: 10}.get(frame[1], 2)
    return b"".join((head, _KINDS[frame[0] & 0x0F], b"\n", memoryview(frame)[start:]))


def decode(message: bytes) -> Broadcast:
    """The reverse. Raises `BrokerError` for what `encode` has not made; the text of it has nothing of the payload."""
    end = message.find(b"\n", 0, MAX_HEAD_BYTES)
    head = _HEAD.fullmatch(message, 0, max(end, 0))
    if head is None:
        raise BrokerError(f"{len(message)} bytes that are no broadcast in version {VERSION} of the format")
    sender, ticket, excluded, kind = head.groups()
    payload = message[end + 1 :]
    if kind == b"t":
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise BrokerError(f"a text of {len(payload)} bytes that is no UTF-8") from None
    return Broadcast(
        sender,
        int(ticket),
        None if excluded == b"." else excluded.decode(),
        encode_frame(TEXT if kind == b"t" else BINARY, payload),
    )
