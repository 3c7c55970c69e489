"""A room with members in this process, and how far this process has received its messages."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

from wsthreads.brokers.messages import PresenceChange
from wsthreads.brokers.positions import START, Position

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Listener
    from wsthreads.brokers.keys import Address
    from wsthreads.brokers.messages import Broadcast, Close, Direct, Message

__all__ = ["Subscription"]

#: How many senders a subscription remembers. A sender is a process.
MAX_SENDERS = 1000


class Subscription:
    """This process's subscription to a room. If all members leave, a session that joins later gets a new subscription.

    The link, the writer's thread and the reader's thread each have their own fields.
    """

    __slots__ = (
        "address",
        "announced",
        "announced_at",
        "begun",
        "delivering",
        "dropped",
        "elsewhere",
        "expected_on",
        "has_history",
        "has_presences",
        "held",
        "keeps_history",
        "known",
        "listener",
        "live",
        "name",
        "position",
        "ready",
        "seen",
        "serial",
        "start",
        "subscribed_on",
        "tickets",
        "touched_at",
    )

    def __init__(
        self, listener: Listener, name: str, address: Address, serial: int = 0, *, keeps_history: bool = False
    ) -> None:
        #: Distinguishes the subscriptions of one link.
        self.serial = serial
        self.listener = listener
        self.name = name
        self.address = address
        #: Whether the listener keeps a history of this room.
        self.keeps_history = keeps_history
        # The link's fields. The tickets of this process's broadcasts that have not come back. Guarded by the link's
        # lock.
        self.tickets: set[int] = set()
        # Whether the last member in this process has left. The next member gets another subscription, which receives
        # the messages for that member. The old subscription stays until the reader handles its end.
        self.dropped = False
        # Whether the announcement must wait until the reader has subscribed. So all messages after the announcement
        # arrive on the channel, in order with those of all rooms. Guarded by the link's lock.
        self.held = False
        # The writer's fields.
        self.known = False  # whether Redis knows the members, and `start` is set
        self.start = START  # the end of the log when Redis learned of the members
        # The number of the reader's connection on which `start` also arrives: it had subscribed before the
        # announcement.
        self.expected_on = 0
        self.touched_at = 0.0  # when Redis last extended the life of the room's keys
        self.announced = START  # the end of the log at `announced_at`
        self.announced_at = 0.0
        self.elsewhere = 0  # members in other processes, as Redis last reported
        # The reader's fields.
        self.subscribed_on = 0  # the number of the connection that has confirmed the subscription
        self.begun = False  # whether `position` has a value
        self.has_history = False  # whether the listener has the complete history
        self.has_presences = False  # whether the listener has got all presences once
        self.position = START  # the last broadcast received; at first, the last one before the join
        self.live = False  # whether no message is missing between `position` and the next one on the channel
        self.delivering = -1  # the ticket of a broadcast of this process; set before the reader checks `dropped`
        self.ready = Event()  # set once it has been live
        # Sender → its last ticket, so that a broadcast that was sent twice is delivered once. The last entry is the
        # sender of the last message.
        self.seen: dict[bytes, int] = {}

    def has_seen(self, message: Message, position: Position | None = None) -> bool:
        """Whether this message, or a later one of its sender, was delivered. For the reader's thread."""
        if isinstance(message, PresenceChange):  # it may be applied twice, so a check of the position is enough
            own = self.position
            return position is not None and position.epoch == own.epoch and position.number <= own.number
        return message.ticket <= self.seen.get(message.sender, -1)

    def see(self, message: Broadcast | Direct | Close) -> None:
        """Remember a delivered message. For the reader's thread."""
        self.seen.pop(message.sender, None)
        self.seen[message.sender] = message.ticket
        if len(self.seen) > MAX_SENDERS:
            del self.seen[next(iter(self.seen))]
