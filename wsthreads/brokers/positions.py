"""Positions in the log of a room, and the first line of each published message.

`keys` explains epochs, numbers and ids.
"""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

__all__ = ["START", "Position", "new_epoch", "parse_published"]

_PUBLISHED = re.compile(rb"([A-Za-z0-9_-]{1,40}) ([0-9]{1,16}) ([0-9]{1,20}-[0-9]{1,20}) ([0-9]{1,20}-[0-9]{1,20})\n")


class Position(NamedTuple):
    """A position in a room's log: that of the last message that a process has received."""

    epoch: bytes
    number: int
    id: bytes

    def is_followed_by(self, other: Position, former: bytes) -> bool:
        """Whether `other` is the position of the next message. `former` is the id of the message before `other`."""
        return (
            other.number == self.number + 1 and former == self.id and (other.epoch == self.epoch or not self.epoch)
        )  # fmt: skip

    def missed_until(self, last: Position) -> int | None:
        """How many messages come after this position, up to `last`. None if `last` is in another log."""
        if self.epoch not in (b"", last.epoch) or last.number < self.number:
            return None
        return None if last.number == self.number and last.id != self.id else last.number - self.number


#: The position before the first message of any log.
START = Position(b"", 0, b"0-0")


def new_epoch() -> str:
    """Returns a random name for a new log. Redis uses it if a script has to make a log."""
    return secrets.token_urlsafe(6)


def parse_published(data: bytes) -> tuple[Position, bytes, bytes] | None:
    """Parse data from a channel: the position, the id before it, and the message.

    Returns None if the data is malformed.
    """
    head = _PUBLISHED.match(data)
    if head is None:
        return None
    epoch, number, entry, former = head.groups()
    return Position(epoch, int(number), entry), former, data[head.end() :]
