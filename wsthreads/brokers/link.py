"""An app's link to Redis, as rooms call it: broadcasts, joins and leaves, the number of members elsewhere.

Calls only put work into a queue; the writer's thread sends it, and the reader's thread receives what other processes
sent. A call may wait for Redis, as `Availability` says: at most a second, and not at all while Redis is away.

A new kind of message between processes is queued by a method beside `RedisLink.publish`. Its bytes are described in
`messages`; what a receiver does with it is in `arrivals.HANDLERS`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from wsthreads.brokers import messages, scripts
from wsthreads.brokers.availability import WAIT_S, Availability
from wsthreads.brokers.claims import lease_time
from wsthreads.brokers.keys import ASK_SHARD, SHARDS, Keys
from wsthreads.brokers.leases import Leases
from wsthreads.brokers.pending import PendingBroadcasts
from wsthreads.brokers.pipeline import Scripts
from wsthreads.brokers.posts import PostBox, SentPost
from wsthreads.brokers.questions import Questions, weak
from wsthreads.brokers.queue import PresenceKey, Question, QueuedBan, SendQueue
from wsthreads.brokers.reader import Reader
from wsthreads.brokers.seats import Seat
from wsthreads.brokers.subscriptions import Subscription
from wsthreads.brokers.writer import Writer
from wsthreads.errors import BrokerError
from wsthreads.rooms.names import SESSIONS_ROOM, is_hidden
from wsthreads.threads.blocking import may_wait

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Keeper, Listener
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.rooms.posts import Settled
    from wsthreads.sessions.session import Session

__all__ = ["Endpoints", "RedisLink", "Shared"]


def not_answered(place: str, *, is_sent: bool) -> BrokerError:
    """The error for a call that Redis has not answered."""
    what = "it is not known whether this was done" if is_sent else "nothing was done"
    error = BrokerError(f"{place} has not answered: {what}")
    error.is_unknown = is_sent
    return error


#: A process that was forked from a server waits so long for Redis to have its broadcast. It may end right after it.
FORK_WAIT_S = 3.0


class Endpoints:
    """What is asked of an app by its link. It outlives a fork."""

    def __init__(self) -> None:
        self._listeners: WeakValueDictionary[str, Listener] = WeakValueDictionary()  # by path
        #: By the kind of question: finds the function that answers.
        self.answers: dict[str, Callable[[], Callable[[Any], Any] | None]] = {}

    def register(self, path: str, listener: Listener) -> None:
        self._listeners[path] = listener

    def listeners(self) -> list[tuple[str, Listener]]:
        return list(self._listeners.items())


class Shared:
    """What the links to the nodes of one cluster share. A link to a single Redis has its own."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self.pending = PendingBroadcasts()
        self.process = secrets.token_urlsafe(12)
        self.lock = Lock()
        self.next_ticket = 0  # guarded by the lock


class RedisLink:
    """A `Link` over Redis. `place` is the name of Redis in logs; `client_of_fork` makes the client of a forked process.

    In a cluster, one link serves one node: the rooms of `shards`, which are on it. Its owner then handles forks.
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
        shards: Sequence[int] = range(SHARDS),
    ) -> None:
        self._client = client
        self._client_of_fork = client_of_fork
        self._keys = keys
        self._metrics = metrics
        self._place = place
        self._cluster = cluster
        self._shards = shards
        self._endpoints = Endpoints() if cluster is None else cluster.endpoints
        self._max_queued_bytes = max_queued_bytes
        self._starting = Lock()  # guards starting and stopping
        self._pid = 0  # the process in which the threads run
        #: This process was forked from one that served, and serves nobody itself. Its broadcasts wait until Redis has
        #: them: it may end at once, by os._exit() as multiprocessing does.
        self.is_forked = False
        self._reset()

    def _reset(self) -> None:
        self._made_in = os.getpid()
        self._shared = self._cluster or Shared(self._endpoints)
        self.pending = self._shared.pending
        self.pending.checks.append(self._end_late)
        self._process = self.process = self._shared.process
        # Guards the queue, the rooms and their tickets, and the writer's end. Under it, only locks that are leaves are
        # taken, and nothing blocks but a wait for the lock's own conditions.
        self._lock = self._shared.lock
        self._queue = SendQueue(self._lock, self._max_queued_bytes)
        self._rooms: dict[tuple[str, str], Subscription] = {}  # by path and name
        self._serials = count(1)
        self._availability = Availability()
        # When the reader last failed to make a room ready, or to bring a broadcast back, in time.
        self._missed_at = float("-inf")
        pipelines = Scripts(self._client, is_cluster=self._cluster is not None)
        self._wake_key, channel = wake = self._keys.wake(self._process, self._shards[0])
        is_asker = ASK_SHARD in self._shards
        self._questions = Questions(
            self._process,
            self._endpoints.answers,
            publish=self._publish_question,
            reply=self._reply,
            on_malformed=lambda what: self._reader.drop_malformed(what),
        )
        self._posts = PostBox(self._keys, channel, lock=self._lock, queue=self._queue, clock=lease_time)
        self._leases = Leases(
            self._keys,
            channel,
            lock=self._lock,
            queue=self._queue,
            next_ticket=lambda: self._shared.next_ticket,
            posts=self._posts,
            place=self._place,
        )
        self._reader = Reader(
            self._open_pubsub,
            pipelines,
            self._process,
            channel,
            ask_channel=self._keys.ask()[1] if is_asker else None,
            questions=self._questions,
            on_subscribed=self._on_subscribed,
            on_own=self._on_own,
            on_poll=self._end_late,
            on_awake=self._on_awake,
            leases=self._leases,
            posts=self._posts,
            metrics=self._metrics,
        )
        self._writer = Writer(
            pipelines,
            self._keys,
            self._process,
            wake,
            lock=self._lock,
            queue=self._queue,
            rooms=self._rooms,
            reader=self._reader,
            leases=self._leases,
            posts=self._posts,
            availability=self._availability,
            metrics=self._metrics,
            place=self._place,
            disconnect=self._disconnect,
            listeners=self._endpoints.listeners,
            owned=self._shards,
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

    def publish(
        self, path: str, name: str, frame: bytes, exclude: Session | None, kept: tuple[str, int] | None = None
    ) -> None:
        self.start()
        exclude_id = None if exclude is None else exclude.id
        with self._lock:
            self._make_room_locked(len(frame))
            ticket = self._next_ticket_locked()
            room = self._rooms.get((path, name))
            if room is not None:
                room.tickets.add(ticket)
                if self._availability.patience_s() > 0 and self._reader.heard_at >= self._missed_at:
                    self.pending.begin(ticket, (path, name), exclude_id)
            message = messages.encode_broadcast(self._process, ticket, exclude_id, frame)
            self._add_locked(path, name, message, kept=kept)

    def patience_s(self, path: str, name: str) -> float:
        return self._availability.patience_s() if self._availability.answers else 0.0

    def wait_published(self, path: str, name: str) -> None:
        with self._lock:
            queue, ticket = self._queue, self._queue.next_ticket - 1
            if self._availability.answers:
                queue.not_full.wait_for(lambda: queue.has_sent(ticket), self._availability.patience_s())

    def send_to_session(self, path: str, session_id: str, frame: bytes) -> None:
        self.start()
        with self._lock:
            self._make_room_locked(len(frame))
            ticket = self._next_ticket_locked()
            message = messages.encode_direct(self._process, ticket, session_id, frame)
            self._add_locked(path, SESSIONS_ROOM, message)

    def close(self, path: str, name: str, code: int, reason: str, ban_s: float, session_id: str | None = None) -> None:
        self.start()
        with self._lock:
            self._make_room_locked(0)
            ticket = self._next_ticket_locked()
            message = messages.encode_close(self._process, ticket, session_id, code, reason, ban_s)
            ban = QueuedBan(monotonic() + ban_s, code, reason) if ban_s else None
            self._add_locked(path, name, message, ban)

    def _make_room_locked(self, size: int) -> None:
        """Wait until the queue has room for a message, if that may be waited for. Raises `BrokerError`."""
        if self._writer.has_ended:
            raise BrokerError(f"the app was shut down: it sends no more broadcasts to {self._place}")
        queue = self._queue
        if not queue.fits(size) and self._availability.answers and may_wait():
            queue.not_full.wait_for(lambda: queue.fits(size), self._availability.patience_s())
        if not queue.fits(size):
            self._metrics.add("broker_refused")
            raise BrokerError(
                f"{queue.waiting_bytes} bytes of broadcasts wait for {self._place}; "
                f"the limit is {queue.max_bytes}, so this broadcast is not sent"
            )

    def _next_ticket_locked(self) -> int:
        ticket = self._queue.next_ticket = self._shared.next_ticket
        self._shared.next_ticket += 1
        return ticket

    def _add_locked(
        self,
        path: str,
        name: str,
        message: bytes,
        ban: QueuedBan | None = None,
        kept: tuple[str, int] | None = None,
    ) -> None:
        """Queue a message with the ticket that was just taken. Raises `BrokerError`."""
        room, queue, ticket = self._rooms.get((path, name)), self._queue, self._queue.next_ticket
        queue.add(self._keys.address(path, name) if room is None else room.address, message, ban, kept)
        if self.is_forked and not queue.not_full.wait_for(lambda: queue.has_sent(ticket), FORK_WAIT_S):
            raise BrokerError(
                f"{self._place} has not confirmed a broadcast of this forked process within {FORK_WAIT_S:g} s; "
                "it is lost if the process ends now"
            )

    def update(self, path: str, name: str, listener: Listener) -> int:
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
                keeps_history = listener.history_limits is not None and not is_hidden(name)
                room = self._rooms[key] = Subscription(
                    listener, name, address, next(self._serials), keeps_history=keeps_history
                )
                room.held = waits
                self._reader.want(room)
                self._queue.wake()
            elif room is None:
                return 0
            elif not is_member:
                del self._rooms[key]
                room.dropped, room.held = True, False
                self._reader.drop(room)
                self._queue.wake()
                self.pending.forget(key)
                listener.forget_presences(name)
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
        return 0 if room.dropped else room.serial

    def members_elsewhere(self, path: str, name: str) -> int:
        self.start()
        with self._lock:
            room = self._rooms.get((path, name))
        address = self._keys.address(path, name) if room is None else room.address
        keys = [address.members, self._keys.processes(address.shard)]
        answer = self._wait_for(Question(scripts.COUNT, keys, with_name=True))
        if answer is None:
            return 0 if room is None else room.elsewhere
        if room is not None:
            room.elsewhere = answer
        return int(answer)

    def _wait_for(self, question: Question) -> Any:
        """The answer of Redis. Waits at most a second, and not while Redis is away; then it is None."""
        availability = self._availability
        with self._lock:
            if availability.answers:
                self._queue.ask(question)
            else:
                question.answered.set()
        if not question.answered.wait(availability.patience_s()):
            availability.answers = False
        return question.answer

    def register(self, path: str, listener: Listener) -> None:
        self._endpoints.register(path, listener)

    def call(self, path: str, name: str, script: str, keys: Sequence[str], *arguments: object) -> Any:
        self.start()
        address = self._keys.address(path, name)
        every = {**address._asdict(), "processes": self._keys.processes(address.shard)}
        question = Question(script, [every[key] for key in keys], *arguments)
        availability = self._availability
        with self._lock:
            if self._writer.has_ended or not availability.answers:
                raise BrokerError(f"{self._place} cannot be asked at present: nothing was done")
            self._queue.ask(question)
        is_sent = question.answered.wait(availability.patience_s()) and question.is_sent
        if question.answer is None:
            if not question.answered.is_set():
                availability.answers = False
                with self._lock:
                    is_sent = not self._queue.withdraw(question)
            raise not_answered(self._place, is_sent=is_sent)
        return question.answer

    def take_seat(self, path: str, name: str, listener: Listener, max_members: int, take: Callable[[], None]) -> bool:
        self.start()
        availability = self._availability
        seat = Seat(listener, name, self._keys.address(path, name), max_members, take)
        with self._lock:
            if self._writer.has_ended or not availability.answers:
                raise BrokerError(f"{self._place} cannot be asked at present: nobody joins a room with max_members")
            self._queue.ask_seat(seat)
        try:
            is_answered = seat.answered.wait(availability.patience_s())
        finally:  # also after KeyboardInterrupt
            with self._lock:
                seat.is_given_up = True
        if seat.is_given is not None:
            return seat.is_given
        if not is_answered:
            availability.answers = False
        raise BrokerError(f"{self._place} {seat.problem}: nobody joined")

    def give_seat_back(self, path: str, name: str, listener: Listener) -> None:
        with self._lock:
            self._queue.ask_seat(Seat(listener, name, self._keys.address(path, name), 0))

    def serial(self, path: str, name: str) -> int:
        room = self._rooms.get((path, name))
        return room.serial if room is not None and room.ready.is_set() else 0

    def has_room(self, path: str, name: str) -> bool:
        room = self._rooms.get((path, name))
        return room is not None and room.ready.is_set()

    def is_subscribed(self, path: str, name: str) -> bool:
        return (path, name) in self._rooms

    def ban_of(self, path: str, name: str) -> tuple[int, str, float] | None:
        self.start()
        answer = self._wait_for(Question(scripts.BANNED, [self._keys.address(path, name).ban]))
        return None if answer is None else messages.parse_ban(*answer)

    def change_presence(self, path: str, name: str, listener: Listener, session_id: str) -> None:
        self.start()
        with self._lock:
            if not self._writer.has_ended:
                self._queue.change_presence(PresenceKey(listener, path, name), session_id)

    def reap(self, path: str, name: str, listener: Listener) -> None:
        with self._lock:
            self._queue.reap(PresenceKey(listener, path, name))

    def presences(self, path: str, name: str) -> list[messages.PresenceChange] | None:
        self.start()
        address = self._keys.address(path, name)
        keys = [address.presence, self._keys.processes(address.shard)]
        answer = self._wait_for(Question(scripts.PERSONS, keys))
        return None if answer is None else self._reader.parse_presences(int(answer[0]), answer[1])

    def shard(self, path: str, name: str) -> int:
        return self._keys.address(path, name).shard

    def own(self, path: str, name: str, keeper: Keeper) -> None:
        self.start()
        self._leases.look((path, name), self._keys.address(path, name), keeper)

    def disown(self, path: str, name: str, fence: int) -> None:
        self._leases.give_back((path, name), fence)

    def is_closed(self, path: str, name: str) -> bool:
        return self._leases.is_closed((path, name))

    def owns(self, path: str, name: str, fence: int) -> bool:
        return self._leases.holds((path, name), fence)

    def post(self, path: str, name: str, payload: bytes, timeout_s: float, settled: Settled) -> None:
        self.start()
        post = SentPost(name, self._keys.address(path, name), payload, settled, timeout_s)
        with self._lock:
            if self._writer.has_ended or self._writer.is_stopping:
                why = "the app was shut down"
            elif not self._availability.answers:
                why = f"{self._place} cannot be used"
            elif self._posts.add(post, self._shared.next_ticket):
                return
            else:
                why = f"too many posts wait to be sent to {self._place}"
        settled(post.error(why))

    def answer(self, kind: str, function: Callable[[Any], Any]) -> None:
        self._endpoints.answers[kind] = weak(function)

    def ask(
        self, kind: str, argument: Any, timeout_s: float = 1.0, enough: Callable[[Any], bool] | None = None
    ) -> list[dict[str, Any]]:
        self.start()
        return self._questions.ask(kind, argument, timeout_s, enough)

    def tell(self, kind: str, argument: Any) -> None:
        self.start()
        key, channel = self._keys.ask()
        with self._lock:
            self._queue.ask(Question(scripts.WAKE, [key], channel, self._questions.note_for_all(kind, argument)))

    def _publish_question(self, data: bytes) -> int | None:
        key, channel = self._keys.ask()
        answer = self._wait_for(Question(scripts.WAKE, [key], channel, data))
        return None if answer is None else int(answer)

    def _reply(self, process: str, data: bytes) -> None:
        key, channel = self._keys.wake(process, ASK_SHARD)
        with self._lock:
            self._queue.ask(Question(scripts.WAKE, [key], channel, data))

    def waiting(self) -> int:
        return len(self._queue)

    def stop(self, timeout_s: float) -> None:
        with self._starting:
            if self._pid == os.getpid():
                self._writer.stop(timeout_s)
                self._reader.stop(WAIT_S)
                self._questions.stop(WAIT_S)

    def release(self) -> None:
        if self._pid == os.getpid() and not self._writer.is_stopping:
            self._writer.stop_soon()
            self._questions.release()

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

    def _on_awake(self) -> None:
        """The wake channel has been subscribed, perhaps not for the first time. The reader's thread."""
        self._posts.hear()
        self._leases.look_again()

    def _end_late(self) -> None:
        """Called several times a second: by the reader's thread, and by the flusher's while the reader's may wait."""
        self._leases.end_late()
        self._posts.end_late()
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
