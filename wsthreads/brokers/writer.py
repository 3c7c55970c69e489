"""What goes to Redis: one thread per app and process. It sends what is queued, many messages in one round trip.

The thread publishes broadcasts, announces the rooms that have members in this process, asks for the number of members
elsewhere, and reports every `BEAT_S` seconds that this process is alive. After a break of the connection, broadcasts
that Redis has not acknowledged are sent again, in their order. Redis recognises by the ticket what it already has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from functools import partial
from itertools import groupby
from random import SystemRandom
from threading import Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import RedisError

from wsthreads.brokers import scripts
from wsthreads.brokers.availability import WAIT_S
from wsthreads.brokers.kept import limits_text
from wsthreads.brokers.keys import BEAT_S, KEYS_S, SHARDS, TOUCH_S
from wsthreads.brokers.messages import encode_close, parse_ban
from wsthreads.brokers.positions import Position, new_epoch
from wsthreads.brokers.presence_writer import PresenceWriter
from wsthreads.brokers.queue import PresenceKey, Question
from wsthreads.brokers.redis_errors import counted, explain
from wsthreads.brokers.seats import Seats
from wsthreads.loggers import get_logger

if TYPE_CHECKING:
    from threading import Lock

    from wsthreads.brokers.availability import Availability
    from wsthreads.brokers.interface import Listener
    from wsthreads.brokers.keys import Address, Keys
    from wsthreads.brokers.leases import Leases
    from wsthreads.brokers.pipeline import Pipeline, Scripts
    from wsthreads.brokers.posts import PostBox
    from wsthreads.brokers.queue import PresenceChanges, Queued, SendQueue
    from wsthreads.brokers.reader import Reader
    from wsthreads.brokers.seats import Seat
    from wsthreads.brokers.subscriptions import Subscription
    from wsthreads.monitoring.metrics import Metrics

__all__ = ["Writer"]

log = get_logger(__name__)

#: While it ends, the thread gives up once Redis has said nothing for this long.
GIVE_UP_S = 2.0

#: Seconds between attempts to connect, times a random factor of 0.5 to 2: not all processes come back at once.
RETRY_S = 0.2


class Batch(NamedTuple):
    """What is sent in one round trip."""

    wakes: bool
    questions: list[Question]
    seats: list[Seat]
    rooms: list[Subscription]
    presences: list[tuple[PresenceKey, PresenceChanges]]
    reaps: list[tuple[PresenceKey, set[str]]]
    messages: list[Queued]
    #: Redis has the broadcasts with lower tickets then.
    gate: float
    #: Former names that are needed no more: all rooms are announced under the present one.
    formers: list[str]

    def let_go(self) -> None:
        """Let nobody wait for an answer any more."""
        for question in self.questions:
            question.answered.set()
        for seat in self.seats:
            seat.answered.set()


class Writer:
    """Owned by a link. `lock` guards `queue`, `rooms` and the end; nothing blocks under it.

    `wake` is the channel that wakes the reader, and the key whose node of a cluster publishes there. `owned` has the
    shards whose rooms are this writer's, and `listeners` returns the rooms of all endpoints, by their paths. `leases`
    and `posts` have what they want to send, too.
    """

    def __init__(
        self,
        scripts: Scripts,
        keys: Keys,
        process: str,
        wake: tuple[bytes, bytes],
        *,
        lock: Lock,
        queue: SendQueue,
        rooms: dict[tuple[str, str], Subscription],
        reader: Reader,
        leases: Leases,
        posts: PostBox,
        availability: Availability,
        metrics: Metrics,
        place: str,
        disconnect: Callable[[], None],
        listeners: Callable[[], list[tuple[str, Listener]]],
        owned: Container[int],
    ) -> None:
        self._scripts = scripts
        self._keys = keys
        self._process = process
        self._wake_key, self._wake_channel = wake
        self._lock = lock
        self._queue = queue
        self._rooms = rooms
        self._reader = reader
        self._leases = leases
        self._posts = posts
        self._availability = availability
        self._metrics = metrics
        self._place = place
        self._disconnect = disconnect
        self._listeners = listeners
        self._owned = owned
        self._stop_at: float | None = None
        self._answered_at = 0.0  # when Redis last answered, or when the end began
        #: Nothing is sent any more. Any thread.
        self.has_ended = False
        self._has_reported_rest = False
        # The thread's own.
        self._greetings = 0
        self._presences = PresenceWriter(keys, process, lock=lock, queue=queue, listeners=listeners, owned=owned)
        # This process's name at Redis: a new one after each break, so that what the old connection has sent, and Redis
        # gets late, does not count for long. An announcement removes the room's counts under the former names.
        self._name = ""
        self._beat_at = 0.0  # when to report again that this process is alive
        self._shards: set[int] = set()  # of the rooms that were announced under this name
        self._formers: list[str] = []  # its names before, while rooms are not announced under this name
        self._former_shards: set[int] = set()
        self._seats = Seats(keys, lock, queue.ask_seat, self._shards, self._formers, self._wake_channel)
        self._thread = Thread(target=self._run, name="wsthreads-redis", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_stopping(self) -> bool:
        return self._stop_at is not None

    def stop(self, timeout_s: float) -> None:
        """Send what waits, for at most `timeout_s`, and end the thread. The reader is stopped, too."""
        with self._lock:
            if self._stop_at is None:
                self._stop_at = monotonic() + timeout_s
                self._answered_at = monotonic()
            self._queue.not_empty.notify()
        self._reader.stop(0)  # there is nobody left to deliver to
        while self._thread.is_alive() and (left_s := self._left_s()) > 0:
            self._thread.join(left_s)
        self.has_ended = True
        if self._thread.is_alive():  # a call to Redis does not return
            self._report_rest()

    def stop_soon(self) -> None:
        """Have the thread end within a second, without what waits. Takes no lock: for a finalizer."""
        self._stop_at = monotonic()

    def _left_s(self) -> float:
        """While the thread ends: how much longer to try."""
        assert self._stop_at is not None
        return min(self._stop_at, self._answered_at + GIVE_UP_S) - monotonic()

    def _run(self) -> None:
        while not self.has_ended:
            try:
                self._greet()
                while self._step():
                    pass
            except (RedisError, OSError) as error:
                self._lose(error)
            except Exception as error:
                if self._availability.lost_at is None:
                    log.exception("sending to %s failed", self._place)
                self._lose(error)
            self.has_ended = not self._pause()
        self._forget_questions()
        self._posts.lose_sent("the app was shut down")
        self._posts.refuse_unsent("the app was shut down")
        self._report_rest()
        self._disconnect()

    def _report_rest(self) -> None:
        """Log, once, how many broadcasts are lost at the end."""
        waiting = 0 if self._has_reported_rest else len(self._queue)
        self._has_reported_rest = True
        if waiting:
            log.error("%s did not receive %s that waited at shutdown", self._place, counted(waiting, "broadcast"))
        self._reader.stop(0)

    def _pause(self) -> bool:
        """Wait until the next attempt. False if it is time to give up."""
        with self._lock:
            if self._stop_at is None:
                retry_s = SystemRandom().uniform(0.5, 2) * RETRY_S
                self._queue.not_empty.wait_for(lambda: self._stop_at is not None, retry_s)
                return True
            left_s = self._left_s() if self._queue else 0.0
        if left_s > 0:
            sleep(min(RETRY_S, left_s))
        return left_s > 0

    def _greet(self) -> None:
        """Begin with a new connection: announce all rooms, under a new name."""
        if self._name:
            if not self._is_known():  # Redis has lost its data, or was away for long
                self._seats.unsettle()
            self._formers.append(self._name)
            self._former_shards |= self._shards
            self._reader.renew()
        self._name = f"{self._process}.{self._greetings}"
        self._greetings += 1
        self._shards.clear()
        self._beat_at = 0.0
        self._presences.greeted_at = monotonic()
        self._leases.begin(self._name)
        with self._lock:
            self._queue.announce_all(self._rooms.values())
        if self._greetings > 1:
            self._share_again(self._owned)

    def _lose(self, error: Exception) -> None:
        self._forget_questions()
        self._leases.fail()
        self._posts.lose_sent(f"the connection to {self._place} broke")
        self._posts.refuse_unsent(f"{self._place} cannot be used")
        availability = self._availability
        asked_at, availability.asked_at = availability.asked_at, None
        if availability.lost_at is None:
            availability.lost_at = monotonic() if asked_at is None else asked_at
            self._metrics.add("broker_outages")
            log.warning("%s cannot be used, broadcasts wait: %s", self._place, explain(error))

    def _forget_questions(self) -> None:
        """Let no call wait for Redis."""
        with self._lock:
            self._availability.answers = False
            waiting: list[Question | Seat] = [*self._queue.take_questions(), *self._queue.take_seats()]
        for each in waiting:
            each.answered.set()

    def _step(self) -> bool:
        """Wait for something to send, and send it. False when it is time to end. Raises `RedisError`."""
        queue, availability = self._queue, self._availability
        with self._lock:
            wait_s = min(self._beat_at - monotonic(), self._leases.wait_s(), WAIT_S)
            queue.not_empty.wait_for(self._has_work_locked, max(0.0, wait_s))
            if self._stop_at is not None:
                for room in self._rooms.values():
                    room.held = False  # the reader has been stopped
            is_last = self._stop_at is not None and not queue and self._leases.is_done
            waiting = len(queue)
            batch = Batch(
                queue.take_wake(),
                queue.take_questions(),
                queue.take_seats(),
                queue.take_rooms(),
                queue.take_presences(),
                queue.take_reaps(),
                messages := queue.batch(),
                queue.gate(len(messages)),
                list(self._formers) if queue.has_announced_all() else [],
            )
        if is_last:
            self._say_farewell()
            return False
        availability.asked_at = monotonic()
        try:
            self._exchange(batch)
        except BaseException:
            with self._lock:
                queue.give_back(batch.presences)
            raise
        finally:
            batch.let_go()
        self._answered_at = monotonic()
        lost_at, availability.lost_at, availability.asked_at = availability.lost_at, None, None
        availability.answers = True
        if lost_at is not None:
            away_s = self._answered_at - lost_at
            what = counted(waiting, "broadcast")
            log.warning("%s is back after %.1f s, and receives %s that waited", self._place, away_s, what)
        return True

    def _has_work_locked(self) -> bool:
        gate = self._queue.gate(0)
        if self._queue.has_work() or self._stop_at is not None:
            return True
        return self._leases.has_work(gate) or self._posts.has_work(gate)

    def _exchange(self, batch: Batch) -> None:
        """One round trip. Redis runs the calls in this order."""
        pipeline = self._scripts.pipeline()
        now, epoch = monotonic(), new_epoch()
        is_beat = now >= self._beat_at
        given_up: set[int] = set()  # shards that no longer count this process as alive
        if batch.wakes or is_beat:
            pipeline.call(scripts.WAKE, [self._wake_key], self._wake_channel, b"")
        if is_beat:
            self._beat(pipeline, given_up)
            self._share_limits(pipeline)
            self._presences.look_for_dead(pipeline, now)
        self._leases.send_first(pipeline)
        for room in batch.rooms:
            self._announce(pipeline, room, epoch, now, given_up)
        if batch.formers:
            for shard in self._former_shards:
                pipeline.call(scripts.FAREWELL, [self._keys.processes(shard)], *batch.formers)
        for key, changed in batch.presences:
            self._presences.send(pipeline, key, changed, epoch)
        for address, same in groupby(batch.messages, lambda queued: queued.address):
            self._publish(pipeline, address, list(same), epoch, now)
        for key, dead in batch.reaps:
            self._presences.reap(pipeline, key, dead, epoch)
        self._seats.ask(pipeline, self._name, batch.seats, given_up)
        for question in batch.questions:
            names = (self._name, *self._formers) if question.with_name else ()
            pipeline.call(
                question.script, question.keys, *question.arguments, *names, then=partial(setattr, question, "answer")
            )
            question.is_sent = True
        self._leases.send_last(pipeline, batch.gate)
        self._posts.send(pipeline, batch.gate)
        pipeline.execute()
        if batch.formers:
            self._formers.clear()
            self._former_shards.clear()
        with self._lock:
            self._queue.done(len(batch.messages))
        self._leases.finish()
        if is_beat:
            self._beat_at = now + BEAT_S
            self._announce_again(given_up, now - TOUCH_S)
        elif given_up:
            self._announce_again(given_up, float("-inf"))

    def _publish(self, pipeline: Pipeline, address: Address, same: list[Queued], epoch: str, now: float) -> None:
        """Publish messages to one room. Those that its history keeps are stored by the same script."""
        published: list[object] = []
        limits: str | None = None
        for queued in same:
            ticket: object = queued.ticket
            if queued.kept is not None:
                limits, size = queued.kept
                ticket = f"{ticket}+{size}"
            published += (ticket, self._message(pipeline, queued, now))
        keys, arguments = [address.log, address.head], (address.channel, epoch, self._process)
        if limits is None:
            pipeline.call(scripts.PUBLISH, keys, *arguments, *published)
        else:
            keys += (address.history, address.settings)
            pipeline.call(scripts.PUBLISH_KEPT, keys, *arguments, limits, *published)

    def _share_limits(self, pipeline: Pipeline) -> None:
        """Have programs without a server know what the histories of the endpoints keep."""
        for path, listener in self._listeners():
            limits = listener.history_limits
            if limits is not None:
                text = limits_text(limits)
                kept_ms = int((limits.seconds + KEYS_S) * 1000)
                for shard in range(SHARDS):
                    if shard in self._owned:
                        pipeline.call(scripts.SHARE_LIMITS, [self._keys.settings(path, shard)], text, kept_ms)

    def _beat(self, pipeline: Pipeline, given_up: set[int]) -> None:
        def note(shard: int, is_known: int) -> None:
            if not is_known:
                given_up.add(shard)
                self._presences.greeted_at = monotonic()  # the others may have had the same break

        for shard in sorted(self._shards):
            pipeline.call(scripts.BEAT, [self._keys.processes(shard)], self._name, then=partial(note, shard))

    def _announce(self, pipeline: Pipeline, room: Subscription, epoch: str, now: float, given_up: set[int]) -> None:
        where = room.address
        keys = [where.log, where.head, where.members, self._keys.processes(where.shard), where.presence, where.ban]
        keys.append(where.attributes)
        keep_ms = int(room.listener.keep_s * 1000)
        members = room.listener.count_here(room.name)
        name = b"" if room.known else b"%d %b" % (room.serial, where.channel)
        room.expected_on = room.subscribed_on

        def note(answer: list[Any]) -> None:
            elsewhere, *head, is_new, ban, ban_ms = answer
            if is_new and where.shard in self._shards:
                given_up.add(where.shard)  # Redis has lost its data; the next BEAT will not show that
            if ban:
                self._tell_of_ban(room, ban, ban_ms)
            self._announced(room, elsewhere, head, now)

        arguments = (self._name, members, epoch, name, self._wake_channel, keep_ms, *self._formers)
        pipeline.call(scripts.ANNOUNCE, keys, *arguments, then=note)

    def _tell_of_ban(self, room: Subscription, ban: bytes, ban_ms: int) -> None:
        found = parse_ban(ban, ban_ms)
        if found is not None and not room.dropped:
            room.listener.found_ban(room.name, *found)

    def _message(self, pipeline: Pipeline, queued: Queued, now: float) -> bytes:
        """The bytes of a message. Stores a ban that goes with it, for the time that is left of it."""
        if queued.ban is None:
            return queued.message
        until, code, reason = queued.ban
        left_s = max(until - now, 0.0)
        if left_s >= 0.001:
            value = json.dumps([code, reason])
            pipeline.call(scripts.BAN, [queued.address.ban], value, int(left_s * 1000))
        return encode_close(self._process, queued.ticket, None, code, reason, left_s)

    def _announced(self, room: Subscription, elsewhere: int, head: list[bytes], now: float) -> None:
        room.elsewhere = elsewhere
        room.touched_at = now
        self._shards.add(room.address.shard)
        position = Position(head[0], int(head[1]), head[2])
        if not room.known:
            room.start, room.announced, room.announced_at = position, position, now
            room.known = True
        elif now - room.announced_at < TOUCH_S / 2:
            return
        elif room.position.epoch != room.announced.epoch or room.position.number < room.announced.number:
            self._reader.check(room)  # Redis had this some time ago, and it has not arrived
        room.announced, room.announced_at = position, now

    def _announce_again(self, shards: set[int], before: float) -> None:
        """Announce the rooms of shards that have given up this process, and the rooms that would expire soon."""
        if shards:
            self._seats.unsettle()
            self._share_again(shards)
        with self._lock:
            for room in self._rooms.values():
                if room.address.shard in shards or room.touched_at < before:
                    self._queue.announce(room)

    def _share_again(self, shards: Container[int]) -> None:
        """Compare all presences of this process in some shards with what Redis has, and store the bans that it knows.

        Redis was away, or has lost its data, or has taken this process for dead.
        """
        presences: list[PresenceKey] = []
        bans: list[Question] = []
        for path, listener in self._listeners():
            names = listener.presence_names()
            presences += (
                PresenceKey(listener, path, name) for name in names if self._keys.address(path, name).shard in shards
            )
            for name, code, reason, ban_s in listener.bans():
                address = self._keys.address(path, name)
                if address.shard in shards and ban_s >= 0.001:
                    value = json.dumps([code, reason])
                    bans.append(Question(scripts.BAN, [address.ban], value, int(ban_s * 1000)))
        with self._lock:
            for key in presences:
                self._queue.change_presence(key, None)
            for ban in bans:
                self._queue.ask(ban)

    def _is_known(self) -> bool:
        """Whether this process still counts as alive at Redis, under the name before the break."""
        pipeline = self._scripts.pipeline()
        for shard in self._shards:
            pipeline.call(scripts.ALIVE, [self._keys.processes(shard)], self._name)
        dead = pipeline.execute()
        return bool(dead) and not any(dead)

    def _say_farewell(self) -> None:
        """Count as alive no longer."""
        pipeline = self._scripts.pipeline()
        for shard in self._shards | self._former_shards:
            names = (self._name, self._process, *self._formers)
            pipeline.call(scripts.FAREWELL, [self._keys.processes(shard)], *names)
        pipeline.execute()
