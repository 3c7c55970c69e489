"""An app's link to Redis, as rooms call it: broadcasts, joins and leaves, the number of members elsewhere.

Calls only put work into a queue; the writer's thread sends it, and the reader's thread receives what other processes
sent. A call may wait for Redis, as `Availability` says: at most a second, and not at all while Redis is away.

A new kind of message between processes is queued by a method beside `RedisLink.publish`. Its bytes are described in
`messages`; what a receiver does with it is in `reader.HANDLERS`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsthreads.brokers import messages
from wsthreads.brokers.availability import WAIT_S, Availability
from wsthreads.brokers.pending import PendingBroadcasts
from wsthreads.brokers.queue import Question, SendQueue
from wsthreads.brokers.reader import Reader
from wsthreads.brokers.scripts import Keys, Scripts
from wsthreads.brokers.subscriptions import Subscription
from wsthreads.brokers.writer import Writer
from wsthreads.errors import BrokerError
from wsthreads.threads.blocking import may_wait

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Listener
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.sessions.session import Session

__all__ = ["RedisLink", "Shared"]

#: A process that was forked from a server waits so long for Redis to have its broadcast. It may end right after it.
FORK_WAIT_S = 3.0


class Shared:
    """What the links to the nodes of one cluster share. A link to a single Redis has its own."""

    def __init__(self) -> None:
        self.pending = PendingBroadcasts()
        self.process = secrets.token_urlsafe(12)
        self.lock = Lock()
        self.next_ticket = 0  # guarded by the lock


class RedisLink:
    """A `Link` over Redis. `place` is the name of Redis in logs; `client_of_fork` makes the client of a forked process.

    In a cluster, one link serves one node: the node of `shard`, and the rooms on it. Its owner then handles forks.
    """

    def __init__(
        self,
        client: Any,
        client_of_fork: Callable[[], Any],
        keys: Keys,
        metrics: Metrics,
        *,
        place: str,
        max_queued_bytes: int,
        cluster: Shared | None = None,
        shard: int = 0,
    ) -> None:
        self._client = client
        self._client_of_fork = client_of_fork
        self._keys = keys
        self._metrics = metrics
        self._place = place
        self._cluster = cluster
        self._shard = shard
        self._max_queued_bytes = max_queued_bytes
        self._starting = Lock()  # guards starting and stopping
        self._pid = 0  # the process in which the threads run
        #: This process was forked from one that served, and serves nobody itself. Its broadcasts wait until Redis has
        #: them: it may end at once, by os._exit() as multiprocessing does.
        self.is_forked = False
        self._reset()

    def _reset(self) -> None:
        self._made_in = os.getpid()
        self._shared = self._cluster or Shared()
        self.pending = self._shared.pending
        self.pending.checks.append(self._end_late)
        self._process = self._shared.process
        # Guards the queue, the rooms and their tickets, and the writer's end. Under it, only locks that are leaves are
        # taken, and nothing blocks but a wait for the lock's own conditions.
        self._lock = self._shared.lock
        self._queue = SendQueue(self._lock, self._max_queued_bytes)
        self._rooms: dict[tuple[str, str], Subscription] = {}  # by path and name
        self._serials = count(1)
        self._availability = Availability()
        # When the reader last failed to make a room ready, or to bring a broadcast back, in time.
        self._missed_at = float("-inf")
        scripts = Scripts(self._client, is_cluster=self._cluster is not None)
        self._wake_key, channel = wake = self._keys.wake(self._process, self._shard)
        self._reader = Reader(
            self._open_pubsub,
            scripts,
            self._process,
            channel,
            on_subscribed=self._on_subscribed,
            on_own=self._on_own,
            on_poll=self._end_late,
            metrics=self._metrics,
        )
        self._writer = Writer(
            scripts,
            self._keys,
            self._process,
            wake,
            lock=self._lock,
            queue=self._queue,
            rooms=self._rooms,
            reader=self._reader,
            availability=self._availability,
            metrics=self._metrics,
            place=self._place,
            disconnect=self._disconnect,
        )

    def _open_pubsub(self) -> Any:
        if self._cluster is None:
            return self._client.pubsub()
        # By itself redis-py asks the node of the first channel, and stays with that node when the channel has moved.
        return self._client.pubsub(node=self._client.get_node_from_key(self._wake_key))

    def _disconnect(self) -> None:
        with suppress(AttributeError):  # a cluster has several pools
            self._client.connection_pool.disconnect(inuse_connections=False)

    def start(self) -> None:
        if self._pid == os.getpid():
            return
        with self._starting:
            if self._pid == os.getpid():
                return
            if self._made_in != os.getpid():
                self._client = self._client_of_fork()
                self.is_forked = self.is_forked or self._pid != 0
                self._reset()  # a fork uses nothing of its parent's, least of all its name
            self._writer.start()
            self._reader.start()
            self._pid = os.getpid()

    def publish(self, path: str, name: str, frame: bytes, exclude: Session | None) -> None:
        self.start()
        exclude_id = None if exclude is None else exclude.id
        with self._lock:
            if self._writer.has_ended:
                raise BrokerError(f"the app was shut down: it sends no more broadcasts to {self._place}")
            queue = self._queue
            if not queue.fits(len(frame)) and self._availability.answers and may_wait():
                queue.not_full.wait_for(lambda: queue.fits(len(frame)), self._availability.patience_s())
            if not queue.fits(len(frame)):
                self._metrics.add("broker_refused")
                raise BrokerError(
                    f"{queue.waiting_bytes} bytes of broadcasts wait for {self._place}; "
                    f"the limit is {queue.max_bytes}, so this broadcast is not sent"
                )
            ticket = queue.next_ticket = self._shared.next_ticket
            self._shared.next_ticket += 1
            room = self._rooms.get((path, name))
            if room is None:
                address = self._keys.address(path, name)
            else:
                address = room.address
                room.tickets.add(ticket)
                if self._availability.patience_s() > 0 and self._reader.heard_at >= self._missed_at:
                    self.pending.begin(ticket, (path, name), exclude_id)
            queue.add(address, messages.encode_broadcast(self._process, ticket, exclude_id, frame))
            if self.is_forked and not queue.not_full.wait_for(lambda: queue.has_sent(ticket), FORK_WAIT_S):
                raise BrokerError(
                    f"{self._place} has not confirmed a broadcast of this forked process within {FORK_WAIT_S:g} s; "
                    "it is lost if the process ends now"
                )

    def update(self, path: str, name: str, listener: Listener) -> None:
        self.start()
        key = (path, name)
        forgotten: set[int] = set()
        with self._lock:
            room = self._rooms.get(key)
            is_member = listener.count_here(name) > 0
            waits = is_member and self._availability.answers and self._reader.heard_at >= self._missed_at
            if is_member:
                self.is_forked = False
            if is_member and room is None:
                address = self._keys.address(path, name)
                room = self._rooms[key] = Subscription(listener, name, address, next(self._serials))
                room.held = waits
                self._reader.want(room)
                self._queue.wake()
            elif room is None:
                return
            elif not is_member:
                del self._rooms[key]
                room.dropped, room.held = True, False
                self._reader.drop(room)
                self._queue.wake()
                self.pending.forget(key)
                room.ready.set()  # a thread that waits for its join waits for nothing now
                forgotten = room.tickets - {room.delivering}  # the reader ends that one, with the members or without
                room.tickets -= forgotten
            self._queue.announce(room)
        for ticket in forgotten:
            self.pending.end(ticket)  # it does not come back to this process
        if waits and not room.ready.wait(self._availability.patience_s()):
            self._missed_at = monotonic()
            self._availability.answers = False
            with self._lock:
                self._queue.release(room)

    def members_elsewhere(self, path: str, name: str) -> int:
        self.start()
        availability = self._availability
        with self._lock:
            room = self._rooms.get((path, name))
            question = Question(self._keys.address(path, name) if room is None else room.address)
            if availability.answers:
                self._queue.ask(question)
            else:
                question.answered.set()
        if not question.answered.wait(availability.patience_s()):
            availability.answers = False
        if question.answer is None:
            return 0 if room is None else room.elsewhere
        if room is not None:
            room.elsewhere = question.answer
        return question.answer

    def waiting(self) -> int:
        return len(self._queue)

    def stop(self, timeout_s: float) -> None:
        with self._starting:
            if self._pid == os.getpid():
                self._writer.stop(timeout_s)
                self._reader.stop(WAIT_S)

    def release(self) -> None:
        if self._pid == os.getpid() and not self._writer.is_stopping:
            self._writer.stop_soon()

    def _on_subscribed(self, room: Subscription) -> None:
        """The reader has subscribed to a room. The reader's thread."""
        with self._lock:
            self._queue.release(room)

    def _on_own(self, room: Subscription, ticket: int) -> None:
        """A broadcast of this process is back, and the members have it. The reader's thread."""
        with self._lock:
            if ticket not in room.tickets:
                return  # it was forgotten; or it belongs to a later room of the same name, and is not back yet
            room.tickets.remove(ticket)
        self.pending.end(ticket)

    def _end_late(self) -> None:
        """Called several times a second: by the reader's thread, and by the flusher's while the reader's may wait."""
        if self.pending.end_overdue() and self._cluster is None:
            self._missed_at = monotonic()
        if self._availability.patience_s() <= 0:
            self._availability.answers = False
            self._end_pending()  # whatever waits for a broadcast has waited long enough

    def _end_pending(self) -> None:
        """Redis is away: no broadcast comes back for now."""
        if self._cluster is None:
            self.pending.end_all()
            return
        with self._lock:
            tickets = [ticket for room in self._rooms.values() for ticket in room.tickets]
        for ticket in tickets:
            self.pending.end(ticket)
