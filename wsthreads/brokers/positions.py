"""How far a process has got in the log of a room, and the line in front of each broadcast that says where it belongs.

What an epoch, a number and an id are is told in `scripts`.
"""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

__all__ = ["START", "Position", "new_epoch", "parse_published"]

_PUBLISHED = re.compile(rb"([A-Za-z0-9_-]{1,40}) ([0-9]{1,16}) ([0-9]{1,20}-[0-9]{1,20}) ([0-9]{1,20}-[0-9]{1,20})\n")


class Position(NamedTuple):
    """The last broadcast of a room that a process has seen."""

    epoch: bytes
    number: int
    id: bytes

    def is_followed_by(self, other: Position, former: bytes) -> bool:
        """Whether nothing is between the two. `former` is the id of the broadcast before `other`."""
        return (
            other.number == self.number + 1 and former == self.id and (other.epoch == self.epoch or not self.epoch)
        )  # fmt: skip

    def missed_until(self, last: Position) -> int | None:
        """How many broadcasts came after this one, up to `last`. None if nobody knows: the log is another one."""
        if self.epoch not in (b"", last.epoch) or last.number < self.number:
            return None
        return None if last.number == self.number and last.id != self.id else last.number - self.number


#: Before the first broadcast of whatever log comes next.
START = Position(b"", 0, b"0-0")


def new_epoch() -> str:
    """A name for a log, should one have to be made."""
    return secrets.token_urlsafe(6)


def parse_published(data: bytes) -> tuple[Position, bytes, bytes] | None:
    """The position of what came on a channel, the id before it, and the message; None if it is not ours."""
    head = _PUBLISHED.match(data)
    if head is None:
        return None
    epoch, number, entry, former = head.groups()
    return Position(epoch, int(number), entry), former, data[head.end() :]
