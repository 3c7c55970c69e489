"""The queue for Redis: messages in order, rooms to announce, changes of presence, and questions.

A new member must receive only broadcasts that come after its join. So a room is announced between the broadcasts from
before its first member's join and the later ones.

The room of a new subscription is held until the reader has subscribed. All later broadcasts, to any room, wait with
this room.

For presence, the queue has only the ids of changed sessions. The writer reads the state of a session when it sends the
change. So the queue stays small while Redis is unavailable. A session that joins and leaves in this time is never sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice, takewhile
from threading import Condition, Event, Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Listener
    from wsthreads.brokers.keys import Address
    from wsthreads.brokers.seats import Seat
    from wsthreads.brokers.subscription import Subscription

__all__ = ["PresenceChanges", "PresenceKey", "Question", "Queued", "QueuedBan", "SendQueue"]

#: At most this many broadcasts, bytes and rooms are sent in one batch.
BATCH_MESSAGES = 256
BATCH_BYTES = 1024 * 1024
BATCH_ROOMS = 512

#: At most this many rooms with changes of presence are sent in one batch, and this many sessions of each room. If all
#: sessions of a room have to be sent, they are in one batch.
BATCH_PRESENCES = 100
BATCH_SESSIONS = 500

#: If more sessions of a room than this have changed, all its sessions are compared.
MAX_CHANGED = 10_000

#: The approximate memory of a waiting broadcast in addition to its bytes.
OVERHEAD_BYTES = 200


class QueuedBan(NamedTuple):
    """The ban of a close that is queued."""

    until: float  # on the monotonic clock
    code: int
    reason: str


class Queued(NamedTuple):
    """A message in the queue, which Redis has not confirmed."""

    address: Address
    ticket: int
    message: bytes
    ban: QueuedBan | None = None
    #: If the history stores the message: the limits of the history, and the number of bytes of the payload. Otherwise
    #: None.
    kept: tuple[str, int] | None = None


class PresenceKey(NamedTuple):
    """A room of an endpoint, with its presences in `listener`."""

    listener: Listener
    path: str
    name: str


#: The sessions whose presence has changed. None stands for all sessions of this process.
PresenceChanges: TypeAlias = "dict[str, None] | None"


class Question:
    """One call of a script whose answer a thread waits for, or that must be made at most once."""

    __slots__ = ("answer", "answered", "arguments", "is_sent", "keys", "script", "with_name")

    def __init__(self, script: str, keys: Sequence[bytes], *arguments: object, with_name: bool = False) -> None:
        self.script = script
        self.keys = keys
        self.arguments = arguments
        self.with_name = with_name  # whether the writer adds this process's name to the arguments
        self.answer: Any = None  # None if Redis gave no answer
        self.answered = Event()
        #: Whether Redis may have got the call. Written by the writer's thread.
        self.is_sent = False


class SendQueue:
    """The queue for the writer. Any thread adds, and the writer's thread takes.

    The caller of each method holds `lock`. Several queues may share a lock.
    """

    def __init__(self, lock: Lock, max_bytes: int) -> None:
        self.not_empty = Condition(lock)
        self.not_full = Condition(lock)
        #: The ticket of the next broadcast.
        self.next_ticket = 0
        #: The memory of the waiting broadcasts, in bytes.
        self.waiting_bytes = 0
        self.max_bytes = max_bytes
        #: Whether nothing is sent any more. The writer may set this without the lock.
        self.has_ended = False
        self._broadcasts: deque[Queued] = deque()
        # Changed rooms by key, in the order of their changes. Each has the ticket that was the next one at its change.
        self._changed: dict[bytes, tuple[Subscription, int]] = {}
        self._questions: list[Question] = []
        self._seats: list[Seat] = []
        self._presences: dict[PresenceKey, PresenceChanges] = {}
        self._reaps: dict[PresenceKey, set[str]] = {}
        self._wakes = False  # whether to wake the reader

    def fits(self, size: int) -> bool:
        """Whether the queue has space for a broadcast. An empty queue has space for a broadcast of any size."""
        return not self._broadcasts or self.waiting_bytes + size + OVERHEAD_BYTES <= self.max_bytes

    def add(
        self, address: Address, message: bytes, ban: QueuedBan | None = None, kept: tuple[str, int] | None = None
    ) -> None:
        """Queue a message, with the next ticket."""
        self._broadcasts.append(Queued(address, self.next_ticket, message, ban, kept))
        self.next_ticket += 1
        self.waiting_bytes += len(message) + OVERHEAD_BYTES
        self.not_empty.notify()

    def announce(self, room: Subscription) -> None:
        """Queue a room whose number of members has changed.

        The writer counts the members when it announces the room.
        """
        key = room.address.members
        if key not in self._changed or self._changed[key][0] is not room:
            self._changed.pop(key, None)
            self._changed[key] = (room, self.next_ticket)
        self.not_empty.notify()

    def announce_all(self, rooms: Iterable[Subscription]) -> None:
        """Queue these rooms before all others. Rooms that were never announced keep their places in the queue."""
        new = {key: change for key, change in self._changed.items() if not change[0].known}
        known = {room.address.members: (room, 0) for room in rooms}  # 0: before rooms that were queued one by one
        self._changed = {key: change for key, change in known.items() if key not in new} | new

    def has_announced_all(self) -> bool:
        """Whether the writer has taken all rooms of `announce_all`."""
        return all(ticket for _, ticket in self._changed.values())

    def wake(self) -> None:
        """Let the writer wake the reader."""
        self._wakes = True
        self.not_empty.notify()

    def take_wake(self) -> bool:
        wakes, self._wakes = self._wakes, False
        return wakes

    def ask(self, question: Question) -> None:
        self._questions.append(question)
        self.not_empty.notify()

    def take_questions(self) -> list[Question]:
        questions, self._questions = self._questions, []
        return questions

    def ask_seat(self, seat: Seat) -> None:
        self._seats.append(seat)
        self.not_empty.notify()

    def take_seats(self) -> list[Seat]:
        seats, self._seats = self._seats, []
        return seats

    def withdraw(self, question: Question) -> bool:
        """Drop a call that was not sent. Returns false if the writer has taken it already."""
        if question not in self._questions:
            return False
        self._questions.remove(question)
        return True

    def change_presence(self, key: PresenceKey, session_id: str | None) -> None:
        """Queue a change of a session's presence.

        With None, queue a comparison of all presences of the room with Redis.
        """
        if session_id is None:
            self._presences[key] = None
        else:
            changed = self._presences.setdefault(key, {})
            if changed is not None:
                changed[session_id] = None
                if len(changed) > MAX_CHANGED:  # while Redis is unavailable
                    self._presences[key] = None
        self.not_empty.notify()

    def take_presences(self) -> list[tuple[PresenceKey, PresenceChanges]]:
        """Take the changes of presence that the writer sends now. If this fails, the writer calls `give_back`."""
        taken: list[tuple[PresenceKey, PresenceChanges]] = []
        for key in list(islice(self._presences, BATCH_PRESENCES)):
            changed = self._presences.pop(key)
            if changed is not None and len(changed) > BATCH_SESSIONS:
                some = list(islice(changed, BATCH_SESSIONS))
                self._presences[key] = {each: None for each in changed if each not in set(some)}
                changed = dict.fromkeys(some)
            taken.append((key, changed))
        return taken

    def give_back(self, presences: Iterable[tuple[PresenceKey, PresenceChanges]]) -> None:
        """Queue again the changes that `take_presences` has returned."""
        for key, changed in presences:
            for session_id in [None] if changed is None else changed:
                self.change_presence(key, session_id)

    def reap(self, key: PresenceKey, dead: Iterable[str] = ()) -> None:
        """Queue the removal of presences from a room: those whose time is over, and those of dead processes."""
        self._reaps.setdefault(key, set()).update(dead)
        self.not_empty.notify()

    def take_reaps(self) -> list[tuple[PresenceKey, set[str]]]:
        keys = list(islice(self._reaps, BATCH_PRESENCES))
        return [(key, self._reaps.pop(key)) for key in keys]

    def release(self, room: Subscription) -> None:
        """Let a held room be announced."""
        room.held = False
        self.not_empty.notify()

    def take_rooms(self) -> list[Subscription]:
        """The rooms that have to be announced now, before the next broadcast. At most `BATCH_ROOMS`."""
        due = (key for key, (room, _) in self._due() if not room.held)
        return [self._changed.pop(key)[0] for key in list(islice(due, BATCH_ROOMS))]

    def batch(self) -> list[Queued]:
        """The broadcasts to send now: those before the next room to announce.

        These broadcasts stay in the queue until `done` is called.
        """
        end = next((ticket for _, ticket in self._changed.values()), self.next_ticket)
        batch: list[Queued] = []
        size = 0
        for queued in self._broadcasts:
            if queued.ticket >= end or len(batch) == BATCH_MESSAGES or size >= BATCH_BYTES:
                break
            batch.append(queued)
            size += len(queued.message)
        return batch

    def gate(self, count: int) -> float:
        """The ticket of the broadcast after the first `count` broadcasts. Infinity if there is none."""
        return self._broadcasts[count].ticket if len(self._broadcasts) > count else float("inf")

    def done(self, count: int) -> None:
        """Remove the first `count` broadcasts, because Redis has them."""
        for _ in range(count):
            self.waiting_bytes -= len(self._broadcasts.popleft().message) + OVERHEAD_BYTES
        self.not_full.notify_all()

    def has_sent(self, ticket: int) -> bool:
        """Whether Redis has the broadcast with this ticket."""
        return not self._broadcasts or self._broadcasts[0].ticket > ticket

    def __len__(self) -> int:
        """How many broadcasts wait."""
        return len(self._broadcasts)

    def __bool__(self) -> bool:
        """Whether there is anything to send, now or later."""
        return bool(self._broadcasts or self._changed or self._questions or self._seats or self._presences)

    def has_work(self) -> bool:
        """Whether the writer has anything to send now."""
        if self._questions or self._seats or self._wakes or self._presences or self._reaps:
            return True
        due = [room for _, (room, _) in self._due()]
        return not all(room.held for room in due) if due else bool(self._broadcasts)

    def _due(self) -> Iterable[tuple[bytes, tuple[Subscription, int]]]:
        """The rooms that the writer has to announce before the next broadcast."""
        first = self._broadcasts[0].ticket if self._broadcasts else self.next_ticket
        return takewhile(lambda item: item[1][1] <= first, self._changed.items())
