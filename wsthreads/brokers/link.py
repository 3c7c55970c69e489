"""What goes to Redis: one thread per app and process, which sends many orders at once.

Handlers only queue. The thread has Redis publish what is queued, announces the rooms that have members here, asks for
members elsewhere, and says now and then that this process is alive. Where the connection breaks, what Redis has not
acknowledged stays in the queue and follows, in its order, when Redis is back. Redis notices by the ticket what it has
taken already.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from random import SystemRandom
from threading import Condition, Event, Lock, Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from wsthreads.brokers import messages, scripts
from wsthreads.brokers.complaints import counted, explain
from wsthreads.brokers.orders import Order, Orders
from wsthreads.brokers.positions import Position, new_epoch
from wsthreads.brokers.reader import Reader, SharedRoom
from wsthreads.brokers.scripts import Address, Keys, Scripts
from wsthreads.brokers.turns import Turns
from wsthreads.errors import BrokerError
from wsthreads.loggers import get_logger
from wsthreads.threads.patience import may_wait

if TYPE_CHECKING:
    from wsthreads.brokers.links import Listener
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.sessions.session import Session

__all__ = ["RedisLink"]

log = get_logger(__name__)

#: Longest that a call of a handler waits for Redis. When Redis has owed an answer for so long, nobody waits for it.
WAIT_S = 1.0

#: At the end, Redis is given up when it has said nothing for so long.
GIVE_UP_S = 2.0

#: Seconds between attempts to connect; at random half or twice of it, so that processes do not come all at once.
RETRY_S = 0.2


class _Question:
    """How many members a room has elsewhere."""

    __slots__ = ("address", "answer", "answered")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.answer: int | None = None  # None: Redis did not say
        self.answered = Event()


class Shared:
    """What links to the nodes of one cluster have in common; another link has it for itself."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.process = secrets.token_urlsafe(12)
        self.lock = Lock()
        self.next_ticket = 0  # guarded by the lock


class RedisLink:
    """A `Link` over Redis. `place` is what Redis is called in logs; `client_of_fork` makes the client of a fork.

    Of a cluster it has the node that `shard` is on, and the rooms there; then its owner takes care of forks.
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
        self._reset()

    def _reset(self) -> None:
        self._made_in = os.getpid()
        self._scripts = Scripts(self._client, is_cluster=self._cluster is not None)
        self._shared = self._cluster or Shared()
        self.turns = self._shared.turns
        self.turns.checks.append(self._end_late)
        self._process = self._shared.process
        # Guards the rest. Under it, only leaves are locked, and nothing blocks but a wait for itself.
        self._lock = self._shared.lock
        self._work = Condition(self._lock)  # there is something to do
        self._space = Condition(self._lock)  # there is room in the queue
        self._orders = Orders(self._max_queued_bytes)
        self._questions: list[_Question] = []
        self._rooms: dict[tuple[str, str], SharedRoom] = {}  # by path and name
        # Redis did, when it was last asked: so it is worth while to wait for it. A hint, set without the lock.
        self._answers = True
        # Set by the thread, read by all: when Redis was asked what it has not answered, and that since which it has
        # answered nothing, over several connections.
        self._asked_at: float | None = None
        self._lost_at: float | None = None
        self._missed_at = float("-inf")  # when a room was not ready or a broadcast back in time, for want of a reader
        self._stop_at: float | None = None
        self._answered_at = 0.0  # when Redis did, or the end began
        self._has_ended = False
        self._has_told = False  # what is lost at the end
        # These are the thread's own.
        self._greetings = 0
        self._name = ""  # of this process at Redis: a new one after each break, so that the old one's counts are dead
        self._beat_at = 0.0
        self._shards: set[int] = set()
        self._wake_key, channel = self._keys.wake(self._process, self._shard)
        self._wake_channel = channel
        self._reader = Reader(
            self._open_pubsub, self._scripts, self._process, channel, self._on_own, self._end_late, self._metrics
        )

    def _open_pubsub(self) -> Any:
        if self._cluster is None:
            return self._client.pubsub()
        # By itself redis-py asks the node of the first channel, and goes on with that one where it has moved.
        return self._client.pubsub(node=self._client.get_node_from_key(self._wake_key))

    # For rooms.

    def start(self) -> None:
        if self._pid == os.getpid():
            return
        with self._starting:
            if self._pid == os.getpid():
                return
            if self._made_in != os.getpid():
                self._client = self._client_of_fork()
                self._reset()  # in a fork, nothing of its parent's is ours, and least of all its name
            self._thread = Thread(target=self._run, name="wsthreads-redis", daemon=True)
            self._thread.start()
            self._reader.start()
            self._pid = os.getpid()

    def publish(self, path: str, name: str, frame: bytes, exclude: Session | None) -> None:
        self.start()
        exclude_id = None if exclude is None else exclude.id
        with self._lock:
            if self._has_ended:
                raise BrokerError(f"the app was shut down, and {self._place} gets no more broadcasts from it")
            orders = self._orders
            if not orders.has_space(len(frame)) and self._answers and may_wait():
                self._space.wait_for(lambda: orders.has_space(len(frame)), self._patience_s())
            if not orders.has_space(len(frame)):
                self._metrics.add("broker_refused")
                raise BrokerError(
                    f"{orders.waiting_bytes} bytes of broadcasts wait for {self._place}, "
                    f"and at most {self._max_queued_bytes} may: this one is not sent"
                )
            ticket = orders.next_ticket = self._shared.next_ticket
            self._shared.next_ticket += 1
            room = self._rooms.get((path, name))
            if room is None:
                address = self._keys.address(path, name)
            else:
                address = room.address
                room.tickets.add(ticket)
                if self._patience_s() > 0 and self._reader.heard_at >= self._missed_at:
                    self.turns.begin(ticket, (path, name), exclude_id)
            orders.add(address, messages.encode(self._process, ticket, exclude_id, frame))
            self._work.notify()

    def update(self, path: str, name: str, listener: Listener) -> None:
        self.start()
        key = (path, name)
        forgotten: set[int] = set()
        with self._lock:
            room = self._rooms.get(key)
            is_member = listener.count_here(name) > 0
            if is_member and room is None:
                room = self._rooms[key] = SharedRoom(listener, name, self._keys.address(path, name))
                self._reader.want(room)
            elif room is None:
                return
            elif not is_member:
                del self._rooms[key]
                room.dropped = True
                self._reader.drop(room)
                self.turns.forget(key)
                room.ready.set()  # who joined it meanwhile waits for nothing
                forgotten = room.tickets - {room.delivering}  # which the reader ends, with the members or not
                room.tickets -= forgotten
            self._orders.announce(room)
            self._work.notify()
            waits = is_member and self._answers and self._reader.heard_at >= self._missed_at
        for ticket in forgotten:
            self.turns.end(ticket)  # it will not come back here
        if waits and not room.ready.wait(self._patience_s()):
            self._missed_at = monotonic()
            self._answers = False

    def members_elsewhere(self, path: str, name: str) -> int:
        self.start()
        with self._lock:
            room = self._rooms.get((path, name))
            question = _Question(self._keys.address(path, name) if room is None else room.address)
            if self._answers:
                self._questions.append(question)
                self._work.notify()
            else:
                question.answered.set()
        if not question.answered.wait(self._patience_s()):
            self._answers = False
        if question.answer is None:
            return 0 if room is None else room.elsewhere
        if room is not None:
            room.elsewhere = question.answer
        return question.answer

    def _patience_s(self) -> float:
        """How long to wait for Redis: `WAIT_S`, less the time for which it has owed an answer."""
        since = [at for at in (self._lost_at, self._asked_at) if at is not None]
        return max(0.0, min(WAIT_S, min(since) + WAIT_S - monotonic())) if since else WAIT_S

    def waiting(self) -> int:
        return len(self._orders)

    def stop(self, timeout_s: float) -> None:
        with self._starting:
            if self._pid != os.getpid():
                return
            with self._lock:
                if self._stop_at is None:
                    self._stop_at = monotonic() + timeout_s
                    self._answered_at = monotonic()
                self._work.notify()
            self._reader.stop(0)  # nobody is left to hear
            while self._thread.is_alive() and (left_s := self._left_s()) > 0:
                self._thread.join(left_s)
            self._has_ended = True
            if self._thread.is_alive():  # Redis does not let go of it
                self._tell_of_rest()
            self._reader.stop(WAIT_S)

    def _left_s(self) -> float:
        """How long it is worth while to go on, once it is to end."""
        assert self._stop_at is not None
        return min(self._stop_at, self._answered_at + GIVE_UP_S) - monotonic()

    def release(self) -> None:
        if self._pid == os.getpid() and self._stop_at is None:
            self._stop_at = monotonic()  # the thread looks every second

    def _on_own(self, room: SharedRoom, ticket: int) -> None:
        """The reader's: a broadcast is back, and with the members."""
        with self._lock:
            if ticket not in room.tickets:
                return  # it was forgotten; or it is not back yet, but is a later room's of the same name
            room.tickets.remove(ticket)
        self.turns.end(ticket)

    def _end_late(self) -> None:
        """Several times a second: by the reader; and by the flusher (see `Turns`), as the reader may wait for Redis."""
        if self.turns.end_overdue() and self._cluster is None:
            self._missed_at = monotonic()
        if self._patience_s() <= 0:
            self._answers = False
            self._end_turns()  # who waits for one of them has waited enough

    def _end_turns(self) -> None:
        """Nothing comes back for now."""
        if self._cluster is None:
            self.turns.end_all()
            return
        with self._lock:
            tickets = [ticket for room in self._rooms.values() for ticket in room.tickets]
        for ticket in tickets:
            self.turns.end(ticket)

    # The thread.

    def _run(self) -> None:
        while not self._has_ended:
            try:
                self._greet()
                while self._step():
                    pass
            except (RedisError, OSError) as error:
                self._lose(error)
            except Exception as error:
                if self._lost_at is None:
                    log.exception("the link to %s failed", self._place)
                self._lose(error)
            self._has_ended = not self._pause()
        self._forget_questions()
        self._tell_of_rest()
        with suppress(AttributeError):  # a cluster has several
            self._client.connection_pool.disconnect(inuse_connections=False)

    def _tell_of_rest(self) -> None:
        """Say, once, how many broadcasts are lost at the end."""
        waiting = 0 if self._has_told else len(self._orders)
        self._has_told = True
        if waiting:
            log.error("%s never took %s that waited", self._place, counted(waiting, "broadcast"))
        self._reader.stop(0)

    def _pause(self) -> bool:
        """Wait until it is time to try again; False if it is time to give up."""
        with self._lock:
            if self._stop_at is None:
                self._work.wait_for(lambda: self._stop_at is not None, SystemRandom().uniform(0.5, 2) * RETRY_S)
                return True
            left_s = self._left_s() if self._orders else 0.0
        if left_s > 0:
            sleep(min(RETRY_S, left_s))
        return left_s > 0

    def _greet(self) -> None:
        """Begin with a connection that knows nothing of us: all rooms are announced, under a new name."""
        if self._name:
            self._say_farewell()
            self._reader.renew()
        self._name = f"{self._process}.{self._greetings}"
        self._greetings += 1
        self._shards.clear()
        self._beat_at = 0.0
        with self._lock:
            self._orders.announce_all(self._rooms.values())

    def _lose(self, error: Exception) -> None:
        self._forget_questions()
        asked_at, self._asked_at = self._asked_at, None
        if self._lost_at is None:
            self._lost_at = monotonic() if asked_at is None else asked_at
            self._metrics.add("broker_outages")
            log.warning("%s cannot be used, broadcasts wait: %s", self._place, explain(error))

    def _forget_questions(self) -> None:
        """Nobody is to wait for Redis."""
        with self._lock:
            self._answers = False
            questions, self._questions = self._questions, []
        for question in questions:
            question.answered.set()

    def _step(self) -> bool:
        """Wait for something to do, and do it. False when it is time to end. Raises `RedisError`."""
        with self._lock:
            self._work.wait_for(self._has_work_locked, max(0.0, min(self._beat_at - monotonic(), WAIT_S)))
            ending = self._stop_at is not None and not self._orders
            questions, self._questions = self._questions, []
            waiting = len(self._orders)
            rooms, orders = self._orders.take_rooms(), self._orders.batch()
        if ending:
            self._say_farewell()
            return False
        self._asked_at = monotonic()
        try:
            self._exchange(rooms, questions, orders)
        finally:
            for question in questions:
                question.answered.set()
        self._answered_at = monotonic()
        lost_at, self._lost_at, self._asked_at = self._lost_at, None, None
        self._answers = True
        if lost_at is not None:
            away_s = self._answered_at - lost_at
            what = counted(waiting, "broadcast")
            log.warning("%s is back after %.1f s, and gets %s that waited", self._place, away_s, what)
        return True

    def _has_work_locked(self) -> bool:
        return bool(self._orders or self._questions or self._stop_at is not None)

    def _exchange(self, rooms: list[SharedRoom], questions: list[_Question], orders: list[Order]) -> None:
        """One round trip. What comes first in it has happened for what comes behind."""
        keys, pipeline = self._keys, self._scripts.pipeline()
        now, epoch = monotonic(), new_epoch()
        shards = sorted(self._shards) if now >= self._beat_at else []
        for shard in shards:
            pipeline.call(scripts.BEAT, [keys.processes(shard)], self._name)
        for room in rooms:
            where = room.address
            touched = [where.log, where.head, where.members, keys.processes(where.shard)]
            pipeline.call(scripts.ANNOUNCE, touched, self._name, room.listener.count_here(room.name), epoch)
        calls = 0
        for address, same in groupby(orders, lambda order: order.address):
            published = [part for order in same for part in (order.ticket, order.message)]
            keys_of_log = [address.log, address.head]
            pipeline.call(scripts.PUBLISH, keys_of_log, address.channel, epoch, self._process, *published)
            calls += 1
        for question in questions:
            where = question.address
            pipeline.call(scripts.COUNT, [where.members, keys.processes(where.shard)], self._name)
        if rooms or now >= self._beat_at:
            pipeline.call(scripts.WAKE, [self._wake_key], self._wake_channel)
        answers = iter(pipeline.execute())

        given_up = {shard for shard, known in zip(shards, answers, strict=False) if not known}
        for room, (elsewhere, *head, is_new) in zip(rooms, answers, strict=False):
            if is_new and room.address.shard in self._shards:
                given_up.add(room.address.shard)  # Redis has lost its data, and BEAT will not tell any more
            self._announced(room, elsewhere, head, now)
        with self._lock:
            self._orders.done(len(orders))
            self._space.notify_all()
        for _ in range(calls):
            next(answers)
        for question, answer in zip(questions, answers, strict=False):
            question.answer = answer
        if now >= self._beat_at:
            self._beat_at = now + scripts.BEAT_S
            self._announce_again(given_up, now - scripts.TOUCH_S)
        elif given_up:
            self._announce_again(given_up, float("-inf"))

    def _announced(self, room: SharedRoom, elsewhere: int, head: list[bytes], now: float) -> None:
        room.elsewhere = elsewhere
        room.touched_at = now
        self._shards.add(room.address.shard)
        position = Position(head[0], int(head[1]), head[2])
        if not room.known:
            room.position = position
            room.known = True
        elif now - room.announced_at < scripts.TOUCH_S / 2:
            return
        elif room.position.epoch != room.announced.epoch or room.position.number < room.announced.number:
            self._reader.check(room)  # what Redis had so long ago has not come
        room.announced, room.announced_at = position, now

    def _announce_again(self, shards: set[int], before: float) -> None:
        """Announce rooms of shards that have given us up, and those that may else expire."""
        with self._lock:
            for room in self._rooms.values():
                if room.address.shard in shards or room.touched_at < before:
                    self._orders.announce(room)

    def _say_farewell(self) -> None:
        pipeline = self._scripts.pipeline()
        for shard in self._shards:
            pipeline.call(scripts.FAREWELL, [self._keys.processes(shard)], self._name)
        pipeline.execute()
