"""Sends to Redis, in one thread per app and process.

The thread sends everything in the queue, many messages in one round trip.

The thread publishes broadcasts, announces the rooms that have members in this process, and asks for the number of
members in other processes. Every `BEAT_S` seconds, it reports that this process is alive. After a break of the
connection, the broadcasts that Redis has not confirmed are sent again, in order. Redis recognises by their tickets
those that it already has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from functools import partial
from itertools import groupby
from random import SystemRandom
from threading import Lock, Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, NamedTuple

from redis.exceptions import RedisError

from wsthreads.brokers import scripts
from wsthreads.brokers.announcements import Announcements
from wsthreads.brokers.availability import WAIT_S
from wsthreads.brokers.keys import BEAT_S, KEYS_S, SHARDS, TOUCH_S
from wsthreads.brokers.messages import encode_close
from wsthreads.brokers.positions import new_epoch
from wsthreads.brokers.presence_writer import PresenceWriter
from wsthreads.brokers.redis_errors import explain
from wsthreads.brokers.registration import Registration
from wsthreads.brokers.seats import Seat, Seats
from wsthreads.brokers.stored_history import limits_text
from wsthreads.errors import counted
from wsthreads.loggers import get_logger

if TYPE_CHECKING:
    from wsthreads.brokers.availability import Availability
    from wsthreads.brokers.keys import Address, Keys
    from wsthreads.brokers.leases import Leases
    from wsthreads.brokers.pipeline import Pipeline, Scripts
    from wsthreads.brokers.posts import PostBox
    from wsthreads.brokers.process import Process
    from wsthreads.brokers.queue import PresenceChanges, PresenceKey, Question, Queued, SendQueue
    from wsthreads.brokers.reader import Reader
    from wsthreads.brokers.subscription import Subscription
    from wsthreads.brokers.subscriptions import Subscriptions
    from wsthreads.monitoring.metrics import Metrics

__all__ = ["Writer"]

log = get_logger(__name__)

#: A thread that has to end gives up if Redis has not answered for this long.
GIVE_UP_S = 2.0

#: Seconds between two attempts to connect, times a random factor of 0.5 to 2, so that the processes do not all
#: reconnect at the same time.
RETRY_S = 0.2


class Batch(NamedTuple):
    """The calls of one round trip."""

    wakes: bool
    questions: list[Question]
    seats: list[Seat]
    rooms: list[Subscription]
    presences: list[tuple[PresenceKey, PresenceChanges]]
    reaps: list[tuple[PresenceKey, set[str]]]
    messages: list[Queued]
    #: After the round trip, Redis has the broadcasts with lower tickets than this one.
    gate: float
    #: Whether all rooms are announced under the current name, so that the former names can end.
    ends_formers: bool

    def let_go(self) -> None:
        """Wake all threads that wait for an answer."""
        for question in self.questions:
            question.answered.set()
        for seat in self.seats:
            seat.answered.set()


class Writer:
    """The writer of a link.

    The link's lock guards the queue, the subscriptions and the end. Nothing blocks under this lock.

    `wake` has a key, and the channel that wakes the reader. In a cluster, the key's node publishes on this channel.
    `owned` has the shards of this writer's rooms. `leases` and `posts` add calls of their own.
    """

    def __init__(
        self,
        scripts: Scripts,
        keys: Keys,
        process: Process,
        wake: tuple[bytes, bytes],
        *,
        queue: SendQueue,
        subscriptions: Subscriptions,
        reader: Reader,
        leases: Leases,
        posts: PostBox,
        availability: Availability,
        metrics: Metrics,
        place: str,
        disconnect: Callable[[], None],
        owned: Container[int],
    ) -> None:
        self._scripts = scripts
        self._keys = keys
        self._process = process.name
        self._wake_key, self._wake_channel = wake
        self._lock = lock = process.lock
        self._queue = queue
        self._rooms = subscriptions.rooms
        self._reader = reader
        self._leases = leases
        self._posts = posts
        self._availability = availability
        self._metrics = metrics
        self._place = place
        self._disconnect = disconnect
        self._listeners = listeners = process.endpoints.listeners
        self._owned = owned
        self._stop_at: float | None = None
        self._answered_at = 0.0  # when Redis last answered, or when the end began
        self._reporting = Lock()  # guards _has_reported_rest, and is held during the log call
        self._has_reported_rest = False
        # These fields are used only by the writer's thread.
        self._beat_at = 0.0  # when to report again that this process is alive
        self._registration = Registration(scripts, keys, process.name)
        self._announcements = Announcements(
            keys,
            self._registration,
            self._wake_channel,
            lock=lock,
            queue=queue,
            subscriptions=subscriptions,
            reader=reader,
            listeners=listeners,
        )
        self._presences = PresenceWriter(keys, process.name, lock=lock, queue=queue, listeners=listeners, owned=owned)
        self._seats = Seats(keys, lock, queue.ask_seat, self._registration, self._wake_channel)
        self._thread = Thread(target=self._run, name="wsthreads-redis", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_stopping(self) -> bool:
        return self._stop_at is not None

    def stop(self, timeout_s: float) -> None:
        """Send queued messages for at most `timeout_s`, and end the thread. Also stops the reader."""
        with self._lock:
            if self._stop_at is None:
                self._stop_at = monotonic() + timeout_s
                self._answered_at = monotonic()
            self._queue.not_empty.notify()
        self._reader.stop(0)  # the reader ends soon; then this process delivers no more broadcasts to its members
        while self._thread.is_alive() and (left_s := self._left_s()) > 0:
            self._thread.join(left_s)
        self._queue.has_ended = True
        if self._thread.is_alive():  # a call to Redis has not returned
            self._report_rest()

    def stop_soon(self) -> None:
        """End the thread within a second, without sending queued messages.

        Takes no lock, so finalizers may call this.
        """
        self._stop_at = monotonic()

    def _left_s(self) -> float:
        """How many more seconds a thread that has to end may try to send."""
        assert self._stop_at is not None
        return min(self._stop_at, self._answered_at + GIVE_UP_S) - monotonic()

    def _run(self) -> None:
        while not self._queue.has_ended:
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
            self._queue.has_ended = not self._pause()
        self._forget_questions()
        self._posts.lose_sent("the app was shut down")
        self._posts.refuse_unsent("the app was shut down")
        self._report_rest()
        self._disconnect()

    def _report_rest(self) -> None:
        """Log how many broadcasts are lost at the end of the thread. Does so only once."""
        with self._reporting:  # the lock makes `stop` wait for the log call; when `stop` returns, the process may end
            waiting = 0 if self._has_reported_rest else len(self._queue)
            self._has_reported_rest = True
            if waiting:
                log.error("%s did not receive %s that waited at shutdown", self._place, counted(waiting, "broadcast"))
        self._reader.stop(0)

    def _pause(self) -> bool:
        """Wait until the next attempt to connect. Returns false if the thread has to give up."""
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
        """Prepare for a new connection: announce all rooms, under a new name."""
        registration = self._registration
        is_first = not registration.name
        if not is_first:
            if not registration.is_known():  # Redis has lost its data, or was unavailable for long
                self._seats.unsettle()
            self._reader.renew()
        registration.renew()
        self._beat_at = 0.0
        self._presences.greeted_at = monotonic()
        self._leases.begin(registration.name)
        self._announcements.announce_all()
        if not is_first:
            self._announcements.share_again(self._owned)

    def _lose(self, error: Exception) -> None:
        self._forget_questions()
        self._leases.fail()
        self._posts.lose_sent(f"the connection to {self._place} broke")
        self._posts.refuse_unsent(f"{self._place} is unavailable")
        availability = self._availability
        asked_at, availability.asked_at = availability.asked_at, None
        if availability.lost_at is None:
            availability.lost_at = monotonic() if asked_at is None else asked_at
            self._metrics.add("broker_outages")
            log.warning("%s is unavailable, so broadcasts wait: %s", self._place, explain(error))

    def _forget_questions(self) -> None:
        """Wake all calls that wait for Redis."""
        with self._lock:
            self._availability.answers = False
            waiting: list[Question | Seat] = [*self._queue.take_questions(), *self._queue.take_seats()]
        for each in waiting:
            each.answered.set()

    def _step(self) -> bool:
        """Wait for something to send, and send it. Returns false if the thread has to end. Raises `RedisError`."""
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
                bool(self._registration.formers) and queue.has_announced_all(),
            )
        if is_last:
            self._registration.say_farewell()
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
        """Make one round trip. Redis runs the calls in the order of this method."""
        pipeline, registration = self._scripts.pipeline(), self._registration
        now, epoch = monotonic(), new_epoch()
        is_beat = now >= self._beat_at
        given_up: set[int] = set()  # shards that no longer count this process as alive

        def give_up(shard: int) -> None:
            given_up.add(shard)
            self._presences.greeted_at = monotonic()  # the connections of other processes may have broken, too

        if batch.wakes or is_beat:
            pipeline.call(scripts.WAKE, [self._wake_key], self._wake_channel, b"")
        if is_beat:
            registration.beat(pipeline, give_up)
            self._share_limits(pipeline)
            self._presences.look_for_dead(pipeline, now)
        self._leases.send_first(pipeline)
        for room in batch.rooms:
            self._announcements.send(pipeline, room, epoch, now, given_up)
        if batch.ends_formers:
            registration.end_formers(pipeline)
        for key, changed in batch.presences:
            self._presences.send(pipeline, key, changed, epoch)
        for address, same in groupby(batch.messages, lambda queued: queued.address):
            self._publish(pipeline, address, list(same), epoch, now)
        for key, dead in batch.reaps:
            self._presences.reap(pipeline, key, dead, epoch)
        self._seats.ask(pipeline, batch.seats, given_up)
        for question in batch.questions:
            names = (registration.name, *registration.formers) if question.with_name else ()
            pipeline.call(
                question.script, question.keys, *question.arguments, *names, then=partial(setattr, question, "answer")
            )
            question.is_sent = True
        self._leases.send_last(pipeline, batch.gate)
        self._posts.send(pipeline, batch.gate)
        pipeline.execute()
        if batch.ends_formers:
            registration.forget_formers()
        with self._lock:
            self._queue.done(len(batch.messages))
        self._leases.finish()
        if given_up:
            self._seats.unsettle()
            self._announcements.share_again(given_up)
        if is_beat:
            self._beat_at = now + BEAT_S
            self._announcements.announce_again(given_up, now - TOUCH_S)
        elif given_up:
            self._announcements.announce_again(given_up, float("-inf"))

    def _publish(self, pipeline: Pipeline, address: Address, same: list[Queued], epoch: str, now: float) -> None:
        """Publish messages to one room. The same script stores those messages that the room's history keeps."""
        published: list[object] = []
        limits: str | None = None
        for queued in same:
            ticket: object = queued.ticket
            if queued.kept is not None:
                limits, size = queued.kept
                ticket = b"%d+%d" % (queued.ticket, size)
            published += (ticket, self._message(pipeline, queued, now))
        keys, arguments = [address.log, address.head], (address.channel, epoch, self._process)
        if limits is None:
            pipeline.call(scripts.PUBLISH, keys, *arguments, *published)
        else:
            keys += (address.history, address.settings)
            pipeline.call(scripts.PUBLISH_KEPT, keys, *arguments, limits, *published)

    def _share_limits(self, pipeline: Pipeline) -> None:
        """Store the limits of the endpoints' histories, for programs without a server."""
        for path, listener in self._listeners():
            limits = listener.history_limits
            if limits is not None:
                text = limits_text(limits)
                kept_ms = int((limits.seconds + KEYS_S) * 1000)
                for shard in range(SHARDS):
                    if shard in self._owned:
                        pipeline.call(scripts.SHARE_LIMITS, [self._keys.settings(path, shard)], text, kept_ms)

    def _message(self, pipeline: Pipeline, queued: Queued, now: float) -> bytes:
        """The bytes of a message. If the message has a ban, also stores the ban for the remaining time."""
        if queued.ban is None:
            return queued.message
        until, code, reason = queued.ban
        left_s = max(until - now, 0.0)
        if left_s >= 0.001:
            value = json.dumps([code, reason])
            pipeline.call(scripts.BAN, [queued.address.ban], value, int(left_s * 1000))
        return encode_close(self._process, queued.ticket, None, code, reason, left_s)
