"""Queues the messages that this process publishes: broadcasts, messages to single sessions, closes.

To add a kind of message between processes, add a method to `Publisher`. `messages` encodes the message, and
`arrivals.HANDLERS` has the handler of the receiver.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from wsthreads.brokers import messages
from wsthreads.brokers.queue import QueuedBan
from wsthreads.errors import BrokerError
from wsthreads.rooms.names import SESSIONS_ROOM
from wsthreads.threads.blocking import may_wait
from wsthreads.threads.lookups import look_up

if TYPE_CHECKING:
    from wsthreads.brokers.availability import Availability
    from wsthreads.brokers.keys import Keys
    from wsthreads.brokers.process import Process
    from wsthreads.brokers.queue import SendQueue
    from wsthreads.brokers.subscriptions import Subscriptions
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.sessions.session import Session

__all__ = ["Publisher"]

#: How long a process that was forked from a server's process waits until Redis has its broadcast. Such a process may
#: end right after the broadcast.
FORK_WAIT_S = 3.0


class Publisher:
    """Queues the messages of one link. Any thread."""

    def __init__(
        self,
        keys: Keys,
        process: Process,
        *,
        queue: SendQueue,
        subscriptions: Subscriptions,
        availability: Availability,
        metrics: Metrics,
        place: str,
    ) -> None:
        self._keys = keys
        self._process = process
        self._lock = process.lock
        self._queue = queue
        self._rooms = subscriptions.rooms
        self._availability = availability
        self._metrics = metrics
        self._place = place

    def publish(
        self, path: str, name: str, frame: bytes, exclude: Session | None, kept: tuple[str, int] | None
    ) -> None:
        exclude_id = None if exclude is None else exclude.id
        process, availability = self._process, self._availability
        with self._lock:
            ticket = self._take_ticket_locked(len(frame))
            room = look_up(self._rooms, (path, name))
            if room is not None:
                room.tickets.add(ticket)
                if availability.patience_s() > 0 and availability.heard_at >= availability.missed_at:
                    process.pending.begin(ticket, (path, name), exclude_id)
            message = messages.encode_broadcast(process.name, ticket, exclude_id, frame)
            self._add_locked(path, name, message, kept=kept)

    def send_to_session(self, path: str, session_id: str, frame: bytes) -> None:
        with self._lock:
            ticket = self._take_ticket_locked(len(frame))
            message = messages.encode_direct(self._process.name, ticket, session_id, frame)
            self._add_locked(path, SESSIONS_ROOM, message)

    def close(self, path: str, name: str, code: int, reason: str, ban_s: float, session_id: str | None) -> None:
        with self._lock:
            ticket = self._take_ticket_locked(0)
            message = messages.encode_close(self._process.name, ticket, session_id, code, reason, ban_s)
            ban = QueuedBan(monotonic() + ban_s, code, reason) if ban_s else None
            self._add_locked(path, name, message, ban)

    def wait_published(self) -> None:
        """Wait until Redis has all queued messages, if the current thread may wait."""
        with self._lock:
            queue, ticket = self._queue, self._queue.next_ticket - 1
            if self._availability.answers:
                queue.not_full.wait_for(lambda: queue.has_sent(ticket), self._availability.patience_s())

    def _take_ticket_locked(self, size: int) -> int:
        """Take the ticket of the next message.

        Waits until the queue has space for the message, if the current thread may wait.

        Raises `BrokerError`.
        """
        queue, process = self._queue, self._process
        if queue.has_ended:
            raise BrokerError(f"the app was shut down: it sends no more broadcasts to {self._place}")
        if not queue.fits(size):
            self._wait_for_room_locked(size)
        ticket = queue.next_ticket = process.next_ticket
        process.next_ticket += 1
        return ticket

    def _wait_for_room_locked(self, size: int) -> None:
        queue = self._queue
        if self._availability.answers and may_wait():
            queue.not_full.wait_for(lambda: queue.fits(size), self._availability.patience_s())
        if not queue.fits(size):
            self._metrics.add("broker_refused")
            raise BrokerError(
                f"{queue.waiting_bytes} bytes of broadcasts wait for {self._place}; "
                f"the limit is {queue.max_bytes}, so this broadcast is not sent"
            )

    def _add_locked(
        self,
        path: str,
        name: str,
        message: bytes,
        ban: QueuedBan | None = None,
        kept: tuple[str, int] | None = None,
    ) -> None:
        """Queue a message with the ticket that was taken before. Raises `BrokerError`."""
        room, queue, ticket = look_up(self._rooms, (path, name)), self._queue, self._queue.next_ticket
        queue.add(self._keys.address(path, name) if room is None else room.address, message, ban, kept)
        if self._process.is_forked and not queue.not_full.wait_for(lambda: queue.has_sent(ticket), FORK_WAIT_S):
            raise BrokerError(
                f"{self._place} has not confirmed a broadcast of this forked process within {FORK_WAIT_S:g} s; "
                "it is lost if the process ends now"
            )
