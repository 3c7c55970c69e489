"""The members of one room: their outboxes, sorted by encoding, and what of them has not been sent yet."""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from threading import Lock
from typing import Any, Protocol

from wsthreads.protocol.encoding import Encoding
from wsthreads.protocol.outbox import Outbox
from wsthreads.rooms.history import Log

__all__ = ["ENCODING_NAME", "Member", "Members", "by_encoding", "without"]

#: Outboxes are sorted by it.
ENCODING_NAME = attrgetter("encoding.name")


class Member(Protocol):
    """What rooms need of a session."""

    #: Where broadcasts are appended: always the same one, over all connections of a session.
    _outbox: Outbox
    #: Guards writes of the next two. Only stripe locks are taken under it, including a `Roster`'s.
    _membership: Lock
    _joined: frozenset[str]
    _ended: bool

    @property
    def id(self) -> str: ...

    @property
    def user(self) -> str | None: ...


class Members:
    """The members of one room. Exists while there are any."""

    __slots__ = (
        "broadcasts",
        "crowd",
        "deliveries",
        "left",
        "log",
        "order",
        "outboxes",
        "queued",
        "sending",
        "sessions",
    )

    def __init__(self, log: Log | None = None) -> None:
        # The history of the room. None if it has none.
        self.log = log
        # Held while a broadcast is appended to all members' outboxes. This gives the room one order. With a history, it
        # is the log's, which outlives the members: a broadcast is added to both, and a join looks at both, in one step.
        self.order = Lock() if log is None else log.order
        # Outboxes that were not sent completely, also of former members. Only the sending thread uses this.
        self.left: list[Outbox] = []
        self.broadcasts = self.deliveries = 0  # guarded by order; not changed after the room is gone
        self.sending = False  # whether a thread is sending to the members; guarded by order
        self.queued = 0  # broadcasts queued since that thread began; guarded by order
        # How many broadcasts were queued during the last sending; falls by one if none was. Only the sending thread
        # uses it.
        self.crowd = 0
        # Guarded by the stripe lock of the room's name. A broadcast looks one up under `order` alone.
        self.sessions: dict[Any, Outbox] = {}
        # The sessions' outboxes sorted by encoding, until a session joins or leaves. Guarded by the same lock.
        self.outboxes: tuple[Outbox, ...] | None = None


def by_encoding(outboxes: tuple[Outbox, ...]) -> list[tuple[Encoding, tuple[Outbox, ...]]]:
    """The parts of sorted outboxes that get the same frame."""
    parts = []
    while outboxes:
        encoding, end = outboxes[0].encoding, len(outboxes)
        if outboxes[-1].encoding is not encoding:
            end = bisect_right(outboxes, encoding.name, key=ENCODING_NAME)
        parts.append((encoding, outboxes[:end]))
        outboxes = outboxes[end:]
    return parts


def without(members: Members, session: Member) -> Members | None:
    del members.sessions[session]
    members.outboxes = None
    return members if members.sessions else None
