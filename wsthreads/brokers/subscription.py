"""A room that has members in this process, and how much of it this process has received."""

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

#: Senders that a subscription remembers; a sender is a process.
MAX_SENDERS = 1000


class Subscription:
    """One for each room with members in this process. A new one when the room is left and joined again.

    The link, the writer's thread and the reader's thread each have fields of their own.
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
        #: The listener remembers the messages of this room.
        self.keeps_history = keeps_history
        # The link's fields.
        # Broadcasts of this process that have not come back. Guarded by the link's lock.
        self.tickets: set[int] = set()
        # The last member in this process has left. The next member gets another subscription, which receives what is
        # for that member. This one stays subscribed until the reader handles `drop`.
        self.dropped = False
        # Not to be announced yet: the thread that joins waits until the reader has subscribed. So everything after the
        # announcement arrives on the channel, in its order among all rooms. Guarded by the link's lock.
        self.held = False
        # The writer's fields.
        self.known = False  # Redis knows the members, and `start` is set
        self.start = START  # where the log ended when Redis learned of the members
        # The reader's connection on which `start` arrives, too: the one that had subscribed before the announcement.
        self.expected_on = 0
        self.touched_at = 0.0  # when Redis last extended the life of the room's keys
        self.announced = START  # where the log ended at `announced_at`
        self.announced_at = 0.0
        self.elsewhere = 0  # members in other processes, as Redis last reported
        # The reader's fields.
        self.subscribed_on = 0  # the number of the connection that has confirmed the subscription
        self.begun = False  # `position` has a value
        self.has_history = False  # the listener has what Redis has of the room's history, and all since then
        self.has_presences = False  # the listener has got all presences once
        self.position = START  # the last broadcast received; at first, the last one before the join
        self.live = False  # nothing is missing between `position` and the next message on the channel
        self.delivering = -1  # the ticket of a broadcast of this process; set before the reader looks at `dropped`
        self.ready = Event()  # set once it has been live
        # Sender → its last ticket, so that a broadcast that was sent twice is delivered once. The last entry is the
        # sender heard last.
        self.seen: dict[bytes, int] = {}

    def has_seen(self, message: Message, position: Position | None = None) -> bool:
        """Whether this message, or a later one of its sender, was delivered. The reader's thread."""
        if isinstance(message, PresenceChange):  # it may be applied twice, so a look at the position is enough
            own = self.position
            return position is not None and position.epoch == own.epoch and position.number <= own.number
        return message.ticket <= self.seen.get(message.sender, -1)

    def see(self, message: Broadcast | Direct | Close) -> None:
        """Remember the message. The reader's thread."""
        self.seen.pop(message.sender, None)
        self.seen[message.sender] = message.ticket
        if len(self.seen) > MAX_SENDERS:
            del self.seen[next(iter(self.seen))]
