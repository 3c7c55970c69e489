"""An app's link to Redis. Rooms call it for broadcasts, joins and leaves, and members in other processes.

Calls only put work into a queue. The writer's thread sends it, and the reader's thread receives messages. A call may
wait for Redis for at most a second, and not at all while Redis is unavailable (see `Availability`).

The link makes its parts, starts them and ends them. In a forked process, it makes new parts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsthreads.brokers import messages, scripts
from wsthreads.brokers.arrivals import Arrivals
from wsthreads.brokers.at_exit import flush_at_exit
from wsthreads.brokers.availability import WAIT_S, Availability
from wsthreads.brokers.calls import Calls
from wsthreads.brokers.checkpoints import Checkpoints
from wsthreads.brokers.claims import lease_time
from wsthreads.brokers.keys import ASK_SHARD, SHARDS, Keys
from wsthreads.brokers.leases import Leases
from wsthreads.brokers.log_scripts import EPOCH
from wsthreads.brokers.malformed import Malformed
from wsthreads.brokers.pipeline import Scripts
from wsthreads.brokers.posts import PostBox, SentPost
from wsthreads.brokers.process import Endpoints, Process
from wsthreads.brokers.publisher import Publisher
from wsthreads.brokers.questions import Questions
from wsthreads.brokers.queue import PresenceKey, Question, SendQueue
from wsthreads.brokers.reader import Reader
from wsthreads.brokers.replay import Replay
from wsthreads.brokers.seats import Seat
from wsthreads.brokers.subscriptions import Subscriptions
from wsthreads.brokers.writer import Writer
from wsthreads.errors import BrokerError

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Keeper, Listener, Look, RoomKey
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.rooms.posts import Settled
    from wsthreads.sessions.session import Session

__all__ = ["RedisLink"]


class RedisLink:
    """A `Link` over Redis. `place` is the name of Redis in logs. `client_of_fork` makes a client for a forked process.

    In a cluster, each link serves one node, with the rooms of `shards`. All links share `cluster`. `ClusterLink`
    handles forks.
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
        cluster: Process | None = None,
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
        self._reset()

    def _reset(self) -> None:
        self._made_in = os.getpid()
        process = self._process = self._cluster or Process(self._endpoints)
        self.process, self.pending, self._lock = process.name, process.pending, process.lock
        process.pending.checks.append(self._end_late)
        self._queue = queue = SendQueue(self._lock, self._max_queued_bytes)
        self._availability = availability = Availability()
        pipelines = Scripts(self._client, is_cluster=self._cluster is not None)
        self._wake_key, channel = wake = self._keys.wake(process.name, self._shards[0])
        malformed = Malformed(self._metrics)
        self._subscriptions = Subscriptions(self._keys, process, queue=queue, availability=availability)
        self._publisher = Publisher(
            self._keys,
            process,
            queue=queue,
            subscriptions=self._subscriptions,
            availability=availability,
            metrics=self._metrics,
            place=self._place,
        )
        self._calls = Calls(self._lock, queue, availability, self._place)
        self._questions = Questions(
            process.name,
            self._endpoints.answers,
            publish=self._publish_question,
            reply=self._reply,
            patience_s=lambda: availability.patience_s() if availability.answers else 0.0,
            on_malformed=malformed.drop,
        )
        self._posts = PostBox(self._keys, channel, lock=self._lock, queue=queue, clock=lease_time)
        self._leases = Leases(
            self._keys,
            channel,
            lock=self._lock,
            queue=queue,
            next_ticket=lambda: process.next_ticket,
            posts=self._posts,
            place=self._place,
        )
        self._checkpoints = Checkpoints(self._subscriptions.rooms.get, self._wake_reader)
        self._arrivals = arrivals = Arrivals(process.name, malformed, self._subscriptions.back)
        self._reader = Reader(
            self._open_pubsub,
            channel,
            ask_channel=self._keys.ask()[1] if ASK_SHARD in self._shards else None,
            subscriptions=self._subscriptions,
            arrivals=arrivals,
            checkpoints=self._checkpoints,
            replay=Replay(pipelines, arrivals, malformed, self._metrics),
            malformed=malformed,
            questions=self._questions,
            leases=self._leases,
            posts=self._posts,
            availability=availability,
            on_poll=self._end_late,
        )
        self._writer = Writer(
            pipelines,
            self._keys,
            process,
            wake,
            queue=queue,
            subscriptions=self._subscriptions,
            reader=self._reader,
            leases=self._leases,
            posts=self._posts,
            availability=availability,
            metrics=self._metrics,
            place=self._place,
            disconnect=self._disconnect,
            owned=self._shards,
        )

    def _open_pubsub(self) -> Any:
        if self._cluster is None:
            return self._client.pubsub()
        # redis-py would take the node of the first channel, and stay with it even after the channel has moved.
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
                self._reset()  # a forked process must not use its parent's parts, and needs a name of its own
                self._process.is_forked = self._pid != 0
            "".encode("idna")  # imports the codec now: a fork during a later import leaves the child half of it
            self._writer.start()
            self._reader.start()
            self._pid = os.getpid()
            flush_at_exit(self)

    def publish(
        self, path: str, name: str, frame: bytes, exclude: Session | None, kept: tuple[str, int] | None = None
    ) -> None:
        self.start()
        self._publisher.publish(path, name, frame, exclude, kept)

    def patience_s(self, path: str, name: str) -> float:
        return self._availability.patience_s() if self._availability.answers else 0.0

    def wait_published(self, path: str, name: str) -> None:
        self._publisher.wait_published()

    def send_to_session(self, path: str, session_id: str, frame: bytes) -> None:
        self.start()
        self._publisher.send_to_session(path, session_id, frame)

    def close(self, path: str, name: str, code: int, reason: str, ban_s: float, session_id: str | None = None) -> None:
        self.start()
        self._publisher.close(path, name, code, reason, ban_s, session_id)

    def update(self, path: str, name: str, listener: Listener) -> int:
        self.start()
        return self._subscriptions.update(path, name, listener)

    def serial(self, path: str, name: str) -> int:
        return self._subscriptions.serial(path, name)

    def has_room(self, path: str, name: str) -> bool:
        return self._subscriptions.serial(path, name) > 0

    def is_subscribed(self, path: str, name: str) -> bool:
        return (path, name) in self._subscriptions.rooms

    def members_elsewhere(self, path: str, name: str) -> int:
        self.start()
        with self._lock:
            room = self._subscriptions.rooms.get((path, name))
        address = self._keys.address(path, name) if room is None else room.address
        keys = [address.members, self._keys.processes(address.shard)]
        answer = self._calls.ask(Question(scripts.COUNT, keys, with_name=True))
        if answer is None:
            return 0 if room is None else room.elsewhere
        if room is not None:
            room.elsewhere = answer
        return int(answer)

    def register(self, path: str, listener: Listener) -> None:
        self._endpoints.register(path, listener)

    def call(self, path: str, name: str, script: str, keys: Sequence[str], *arguments: object) -> Any:
        self.start()
        address = self._keys.address(path, name)
        return self._calls.call(Question(script, self._keys.of_room(address, keys), *arguments))

    def call_all(self, path: str, calls: Sequence[tuple[str, str, Sequence[str], Sequence[object]]]) -> list[Any]:
        self.start()
        keys = self._keys
        return self._calls.call_all(
            [
                Question(script, keys.of_room(keys.address(path, name), names), *arguments)
                for name, script, names, arguments in calls
            ]
        )

    def call_for_session(self, path: str, session_id: str, script: str, *arguments: object) -> Any:
        self.start()
        return self._calls.call(Question(script, self._keys.session(path, session_id), *arguments))

    def call_for_sessions(self, path: str, session_ids: Sequence[str], script: str, *arguments: object) -> Any:
        self.start()
        return self._calls.call(Question(script, [self._keys.session(path, id)[0] for id in session_ids], *arguments))

    def refresh(self, rooms: Sequence[RoomKey]) -> None:
        self.start()
        found = [room for key in rooms if (room := self._subscriptions.rooms.get(key)) is not None]
        epochs = self._calls.call_all([Question(EPOCH, [room.address.head]) for room in found])
        for room, epoch in zip(found, epochs, strict=True):
            if epoch != room.position.epoch:
                self._reader.check(room)

    def checkpoint(self, rooms: Sequence[RoomKey], look: Look, timeout_s: float) -> bool:
        self.start()
        return self._checkpoints.call(rooms, look, timeout_s)

    def _wake_reader(self) -> None:
        with self._lock:
            self._queue.wake()

    def take_seat(self, path: str, name: str, listener: Listener, max_members: int, take: Callable[[], None]) -> bool:
        self.start()
        return self._calls.take_seat(Seat(listener, name, self._keys.address(path, name), max_members, take))

    def give_seat_back(self, path: str, name: str, listener: Listener) -> None:
        with self._lock:
            self._queue.ask_seat(Seat(listener, name, self._keys.address(path, name), 0))

    def ban_of(self, path: str, name: str) -> tuple[int, str, float] | None:
        self.start()
        answer = self._calls.ask(Question(scripts.BANNED, [self._keys.address(path, name).ban]))
        return None if answer is None else messages.parse_ban(*answer)

    def change_presence(self, path: str, name: str, listener: Listener, session_id: str) -> None:
        self.start()
        with self._lock:
            if not self._queue.has_ended:
                self._queue.change_presence(PresenceKey(listener, path, name), session_id)

    def reap(self, path: str, name: str, listener: Listener) -> None:
        with self._lock:
            self._queue.reap(PresenceKey(listener, path, name))

    def presences(self, path: str, name: str) -> list[messages.PresenceChange] | None:
        self.start()
        address = self._keys.address(path, name)
        keys = [address.presence, self._keys.processes(address.shard)]
        answer = self._calls.ask(Question(scripts.PERSONS, keys))
        return None if answer is None else self._arrivals.parse_presences(int(answer[0]), answer[1])

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
            if self._queue.has_ended or self._writer.is_stopping:
                why = "the app was shut down"
            elif not self._availability.answers:
                why = f"{self._place} is unavailable"
            elif self._posts.add(post, self._process.next_ticket):
                return
            else:
                why = f"too many posts wait to be sent to {self._place}"
        settled(post.error(why))

    def answer(self, kind: str, function: Callable[[Any], Any]) -> None:
        self._endpoints.answer(kind, function)

    def ask(
        self, kind: str, argument: Any, timeout_s: float = 1.0, enough: Callable[[Any], bool] | None = None
    ) -> list[dict[str, Any]]:
        self.start()
        return self._questions.ask(kind, argument, timeout_s, enough)

    def ask_all(
        self, kind: str, argument: Any, timeout_s: float, enough: Callable[[Any], bool]
    ) -> tuple[list[dict[str, Any]], bool]:
        self.start()
        answers, missing = self._questions.ask_all(kind, argument, timeout_s, enough)
        if missing is None:
            raise BrokerError(f"{self._place} is unavailable, so the question was not sent to the other processes")
        return answers, missing <= 0

    def tell(self, kind: str, argument: Any) -> None:
        self.start()
        key, channel = self._keys.ask()
        with self._lock:
            self._queue.ask(Question(scripts.WAKE, [key], channel, self._questions.note_for_all(kind, argument)))

    def _publish_question(self, data: bytes) -> int | None:
        key, channel = self._keys.ask()
        answer = self._calls.ask(Question(scripts.WAKE, [key], channel, data))
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

    def flush_at_exit(self, timeout_s: float) -> None:
        """Send queued messages at the end of a process that has not called `stop`."""
        if self._pid == os.getpid():
            self._writer.stop(timeout_s)

    def release(self) -> None:
        if self._pid == os.getpid() and not self._writer.is_stopping:
            self._writer.stop_soon()
            self._questions.release()

    def _end_late(self) -> None:
        """Called several times a second by the reader's thread. While that may wait, the flusher calls this, too."""
        self._leases.end_late()
        self._posts.end_late()
        if self.pending.end_overdue() and self._cluster is None:
            self._availability.missed_at = monotonic()
        if self._availability.patience_s() <= 0:
            self._availability.answers = False
            self._end_pending()  # nothing waits for Redis any longer

    def _end_pending(self) -> None:
        """Let no thread wait for broadcasts any longer. Called while Redis is unavailable."""
        if self._cluster is None:
            self.pending.end_all()
            return
        for ticket in self._subscriptions.tickets():
            self.pending.end(ticket)
