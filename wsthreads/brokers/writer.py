"""What goes to Redis: one thread per app and process. It sends what is queued, many messages in one round trip.

The thread publishes broadcasts, announces the rooms that have members in this process, asks for the number of members
elsewhere, and reports every `BEAT_S` seconds that this process is alive. After a break of the connection, broadcasts
that Redis has not acknowledged are sent again, in their order. Redis recognises by the ticket what it already has.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from random import SystemRandom
from threading import Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from wsthreads.brokers import scripts
from wsthreads.brokers.availability import WAIT_S
from wsthreads.brokers.positions import Position, new_epoch
from wsthreads.brokers.redis_errors import counted, explain
from wsthreads.loggers import get_logger

if TYPE_CHECKING:
    from threading import Lock

    from wsthreads.brokers.availability import Availability
    from wsthreads.brokers.queue import Question, Queued, SendQueue
    from wsthreads.brokers.reader import Reader
    from wsthreads.brokers.scripts import Keys, Scripts
    from wsthreads.brokers.subscriptions import Subscription
    from wsthreads.monitoring.metrics import Metrics

__all__ = ["Writer"]

log = get_logger(__name__)

#: While it ends, the thread gives up once Redis has said nothing for this long.
GIVE_UP_S = 2.0

#: Seconds between attempts to connect, times a random factor of 0.5 to 2: not all processes come back at once.
RETRY_S = 0.2


class Writer:
    """Owned by a link. `lock` guards `queue`, `rooms` and the end; nothing blocks under it.

    `wake` is the channel that wakes the reader, and the key whose node of a cluster publishes there.
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
        availability: Availability,
        metrics: Metrics,
        place: str,
        disconnect: Callable[[], None],
    ) -> None:
        self._scripts = scripts
        self._keys = keys
        self._process = process
        self._wake_key, self._wake_channel = wake
        self._lock = lock
        self._queue = queue
        self._rooms = rooms
        self._reader = reader
        self._availability = availability
        self._metrics = metrics
        self._place = place
        self._disconnect = disconnect
        self._stop_at: float | None = None
        self._answered_at = 0.0  # when Redis last answered, or when the end began
        #: Nothing is sent any more. Any thread.
        self.has_ended = False
        self._has_reported_rest = False
        # The thread's own.
        self._greetings = 0
        # This process's name at Redis: a new one after each break, so that the counts under the old name expire.
        self._name = ""
        self._beat_at = 0.0  # when to report again that this process is alive
        self._shards: set[int] = set()  # of the rooms that were announced under this name
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
            self._say_farewell()
            self._reader.renew()
        self._name = f"{self._process}.{self._greetings}"
        self._greetings += 1
        self._shards.clear()
        self._beat_at = 0.0
        with self._lock:
            self._queue.announce_all(self._rooms.values())

    def _lose(self, error: Exception) -> None:
        self._forget_questions()
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
            questions = self._queue.take_questions()
        for question in questions:
            question.answered.set()

    def _step(self) -> bool:
        """Wait for something to send, and send it. False when it is time to end. Raises `RedisError`."""
        queue, availability = self._queue, self._availability
        with self._lock:
            queue.not_empty.wait_for(self._has_work_locked, max(0.0, min(self._beat_at - monotonic(), WAIT_S)))
            if self._stop_at is not None:
                for room in self._rooms.values():
                    room.held = False  # the reader has been stopped
            is_last = self._stop_at is not None and not queue
            waiting = len(queue)
            wakes, questions = queue.take_wake(), queue.take_questions()
            rooms, broadcasts = queue.take_rooms(), queue.batch()
        if is_last:
            self._say_farewell()
            return False
        availability.asked_at = monotonic()
        try:
            self._exchange(wakes, rooms, questions, broadcasts)
        finally:
            for question in questions:
                question.answered.set()
        self._answered_at = monotonic()
        lost_at, availability.lost_at, availability.asked_at = availability.lost_at, None, None
        availability.answers = True
        if lost_at is not None:
            away_s = self._answered_at - lost_at
            what = counted(waiting, "broadcast")
            log.warning("%s is back after %.1f s, and receives %s that waited", self._place, away_s, what)
        return True

    def _has_work_locked(self) -> bool:
        return self._queue.has_work() or self._stop_at is not None

    def _exchange(
        self, wakes: bool, rooms: list[Subscription], questions: list[Question], broadcasts: list[Queued]
    ) -> None:
        """One round trip. Redis runs the calls in this order."""
        keys, pipeline = self._keys, self._scripts.pipeline()
        now, epoch = monotonic(), new_epoch()
        if wakes or now >= self._beat_at:
            pipeline.call(scripts.WAKE, [self._wake_key], self._wake_channel)
        shards = sorted(self._shards) if now >= self._beat_at else []
        for shard in shards:
            pipeline.call(scripts.BEAT, [keys.processes(shard)], self._name)
        for room in rooms:
            where = room.address
            touched = [where.log, where.head, where.members, keys.processes(where.shard)]
            members = room.listener.count_here(room.name)
            name = b"" if room.known else b"%d %b" % (room.serial, where.channel)
            room.expected_on = room.subscribed_on
            pipeline.call(scripts.ANNOUNCE, touched, self._name, members, epoch, name, self._wake_channel)
        calls = 0
        for address, same in groupby(broadcasts, lambda queued: queued.address):
            published = [part for queued in same for part in (queued.ticket, queued.message)]
            keys_of_log = [address.log, address.head]
            pipeline.call(scripts.PUBLISH, keys_of_log, address.channel, epoch, self._process, *published)
            calls += 1
        for question in questions:
            where = question.address
            pipeline.call(scripts.COUNT, [where.members, keys.processes(where.shard)], self._name)
        answers = iter(pipeline.execute())
        if wakes or now >= self._beat_at:
            next(answers)
        given_up = {shard for shard, known in zip(shards, answers, strict=False) if not known}
        for room, (elsewhere, *head, is_new) in zip(rooms, answers, strict=False):
            if is_new and room.address.shard in self._shards:
                given_up.add(room.address.shard)  # Redis has lost its data; the next BEAT will not show that
            self._announced(room, elsewhere, head, now)
        with self._lock:
            self._queue.done(len(broadcasts))
        for _ in range(calls):
            next(answers)
        for question, answer in zip(questions, answers, strict=False):
            question.answer = answer
        if now >= self._beat_at:
            self._beat_at = now + scripts.BEAT_S
            self._announce_again(given_up, now - scripts.TOUCH_S)
        elif given_up:
            self._announce_again(given_up, float("-inf"))

    def _announced(self, room: Subscription, elsewhere: int, head: list[bytes], now: float) -> None:
        room.elsewhere = elsewhere
        room.touched_at = now
        self._shards.add(room.address.shard)
        position = Position(head[0], int(head[1]), head[2])
        if not room.known:
            room.start, room.announced, room.announced_at = position, position, now
            room.known = True
        elif now - room.announced_at < scripts.TOUCH_S / 2:
            return
        elif room.position.epoch != room.announced.epoch or room.position.number < room.announced.number:
            self._reader.check(room)  # Redis had this some time ago, and it has not arrived
        room.announced, room.announced_at = position, now

    def _announce_again(self, shards: set[int], before: float) -> None:
        """Announce the rooms of shards that have given up this process, and the rooms that would expire soon."""
        with self._lock:
            for room in self._rooms.values():
                if room.address.shard in shards or room.touched_at < before:
                    self._queue.announce(room)

    def _say_farewell(self) -> None:
        pipeline = self._scripts.pipeline()
        for shard in self._shards:
            pipeline.call(scripts.FAREWELL, [self._keys.processes(shard)], self._name)
        pipeline.execute()
