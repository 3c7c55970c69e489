"""A subscription: a room with members in this process, and which messages to the room this process has received."""

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
    """This process's subscription to a room.

    A subscription ends when all members in this process have left. A session that joins later gets a new subscription.

    Some fields belong to the link, others to the writer's thread or to the reader's thread.
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
        #: The number of this subscription. Each subscription of a link has another number.
        self.serial = serial
        self.listener = listener
        self.name = name
        self.address = address
        #: Whether the listener keeps a history of this room.
        self.keeps_history = keeps_history
        # These fields belong to the link. `tickets`: the broadcasts of this process to this room that have not come
        # back. Guarded by the link's lock.
        self.tickets: set[int] = set()
        # Whether the last member in this process has left. If a session joins later, it gets another subscription,
        # which receives the messages for it. This subscription stays until the reader has handled its end.
        self.dropped = False
        # Whether the announcement must wait until the reader has subscribed. Then all messages after the announcement
        # arrive on the channel, in one order with those of all other rooms. Guarded by the link's lock.
        self.held = False
        # These fields belong to the writer.
        self.known = False  # whether Redis knows that this process has members, and `start` is set
        self.start = START  # the end of the log at the time of the first announcement
        # The number of the reader's connection that was subscribed before the last announcement. Redis's answer to the
        # announcement arrives on it, too.
        self.expected_on = 0
        self.touched_at = 0.0  # when Redis last extended the life of the room's keys
        self.announced = START  # the end of the log at `announced_at`
        self.announced_at = 0.0
        self.elsewhere = 0  # the number of members in other processes, as Redis last reported it
        # These fields belong to the reader.
        self.subscribed_on = 0  # the number of the connection that has confirmed the subscription
        self.begun = False  # whether `position` has a value
        self.has_history = False  # whether the listener has the complete history
        self.has_presences = False  # whether the listener has received all presences once
        self.position = START  # the position of the last received broadcast; at first, of the last one before the join
        self.live = False  # whether no message is missing between `position` and the next one on the channel
        # the ticket of this process's broadcast that the reader delivers now, otherwise -1; set before the reader
        # checks `dropped`
        self.delivering = -1
        self.ready = Event()  # set when the room is live for the first time
        # The last ticket of each sender. So a broadcast that was published twice is delivered once. The last entry is
        # the sender of the last message.
        self.seen: dict[bytes, int] = {}

    def has_seen(self, message: Message, position: Position | None = None) -> bool:
        """Whether this message, or a later one of its sender, was delivered. Only the reader's thread calls this."""
        # a change of presence may be applied twice, so a check of the position is enough
        if isinstance(message, PresenceChange):
            own = self.position
            return position is not None and position.epoch == own.epoch and position.number <= own.number
        return message.ticket <= self.seen.get(message.sender, -1)

    def see(self, message: Broadcast | Direct | Close) -> None:
        """Remember a delivered message. Only the reader's thread calls this."""
        self.seen.pop(message.sender, None)
        self.seen[message.sender] = message.ticket
        if len(self.seen) > MAX_SENDERS:
            del self.seen[next(iter(self.seen))]
