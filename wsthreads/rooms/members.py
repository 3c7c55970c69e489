"""The members of one room, and their outboxes, which are sorted by encoding."""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from threading import Lock
from typing import Any, Protocol

from wsthreads.protocol.encoding import Encoding
from wsthreads.protocol.outbox import Outbox
from wsthreads.rooms.history import Log

__all__ = ["ENCODING_NAME", "Member", "Members", "by_encoding", "without"]

#: The key by which outboxes are sorted.
ENCODING_NAME = attrgetter("encoding.name")


class Member(Protocol):
    """The part of a session that rooms use."""

    #: Broadcasts are appended to this outbox. A session has the same outbox for all its connections.
    _outbox: Outbox
    #: Guards writes of `_joined` and `_ended`. A thread that holds it takes only stripe locks, including those of a
    #: `Roster`.
    _membership: Lock
    _joined: frozenset[str]
    _ended: bool

    @property
    def id(self) -> str: ...

    @property
    def user(self) -> str | None: ...


class Members:
    """The members of one room. The object exists while the room has members."""

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
        "written",
    )

    def __init__(self, log: Log | None = None) -> None:
        # The history of the room. None if the room has no history.
        self.log = log
        # Held while a broadcast is appended to all members' outboxes, so that the room has one order of messages. With
        # a history, it is the lock `order` of the log, which stays after the last member has left. So a broadcast is
        # added to the log and to the outboxes in one step, and a session that joins finds it in both or in none.
        self.order = Lock() if log is None else log.order
        # Outboxes that still have unsent messages, including those of former members. Only the sending thread uses
        # this.
        self.left: list[Outbox] = []
        # If this is not None, it has all outboxes of `left`. Only the sending thread uses this.
        self.written: tuple[Outbox, ...] | None = None
        self.broadcasts = self.deliveries = 0  # guarded by order; not changed after the room was deleted
        self.sending = False  # whether a thread is sending to the members; guarded by order
        self.queued = 0  # broadcasts queued since the sending thread began; guarded by order
        # The largest number of broadcasts that were queued during a recent sending, minus one. Falls by
        # one with each sending that had fewer. Only the sending thread uses this.
        self.crowd = 0
        # Guarded by the stripe lock of the room's name. But a broadcast looks up the session that it excludes with only
        # `order` held.
        self.sessions: dict[Any, Outbox] = {}
        # The outboxes of `sessions`, sorted by encoding. A join or a leave sets this to None, and the next broadcast
        # makes the tuple again. Guarded by the same lock.
        self.outboxes: tuple[Outbox, ...] | None = None


def by_encoding(outboxes: tuple[Outbox, ...]) -> list[tuple[Encoding, tuple[Outbox, ...]]]:
    """Split sorted outboxes into groups. All outboxes of a group get the same frame."""
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
