"""What comes from Redis: one thread per app and process, with a connection of its own.

It is subscribed to the rooms that have members in this process. A subscription, a first one or one after a break,
begins with what the room's log has behind the last broadcast that the room has seen; each broadcast names the one
before it, so that one which is missing is fetched from there, too.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count, groupby
from random import uniform
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from wsthreads.brokers import messages
from wsthreads.brokers.scripts import BEAT_S, Address
from wsthreads.errors import BrokerError

if TYPE_CHECKING:
    from wsthreads.brokers import Listener
    from wsthreads.metrics import Metrics

__all__ = ["Reader", "SharedRoom"]

log = logging.getLogger(__name__)

#: Something comes at every beat. After a longer silence the connection is thought dead.
SILENCE_S = 3 * BEAT_S + 1

#: The thread looks this often whether there is something other than messages.
POLL_S = 0.25

#: And this often where a room is subscribed to whose first position the link is about to learn.
UNKNOWN_POLL_S = 0.001

#: A message that has begun has so long for each of its next pieces.
READ_S = 3.0

#: While messages come without a pause, it looks after so many of them.
BUSY_MESSAGES = 100

#: Seconds between attempts to connect; at random half or twice of it, so that processes do not come all at once.
RETRY_S = 0.2

#: Entries of a log, and rooms, that are fetched at once.
FETCH_ENTRIES = 1000
FETCH_ROOMS = 500

#: Senders that a room remembers; a sender is a process.
MAX_SENDERS = 1000

#: One log line for all malformed messages of this time.
COMPLAIN_S = 10.0

_PUBLISHED = re.compile(rb"([0-9]{1,20}-[0-9]{1,20}) ((?:[0-9]{1,20}-[0-9]{1,20})?)\n")


class SharedRoom:
    """A room that has members in this process."""

    __slots__ = (
        "address",
        "elsewhere",
        "known",
        "last",
        "listener",
        "live",
        "name",
        "ready",
        "seen",
        "tickets",
        "touched_at",
    )

    def __init__(self, listener: Listener, name: str, address: Address) -> None:
        self.listener = listener
        self.name = name
        self.address = address
        # These are the link's.
        self.known = False  # Redis knows of the members, and `last` is set
        self.touched_at = 0.0
        self.elsewhere = 0  # members in other processes, when Redis last said
        self.tickets: set[int] = set()  # broadcasts of this process that have not come back; guarded by its lock
        # These are the reader's.
        self.last = b""  # the id of the last broadcast that was seen, empty for none; at first, that before the join
        self.live = False  # nothing is missing between `last` and what comes next
        self.ready = Event()  # it has been live
        self.seen: dict[bytes, int] = {}  # sender → its last ticket: a broadcast that was sent again is not doubled


class Reader:
    """Gives what comes to the rooms.

    `on_own(room, ticket)` is called when a broadcast of `process` is back, `on_poll()` several times a second.
    """

    def __init__(
        self,
        client: Any,
        process: str,
        wake_channel: bytes,
        on_own: Callable[[SharedRoom, int], None],
        on_poll: Callable[[], None],
        metrics: Metrics,
    ) -> None:
        self._client = client
        self._process = process.encode()
        self._wake_channel = wake_channel
        self._on_own = on_own
        self._on_poll = on_poll
        self._metrics = metrics
        self._changes: deque[tuple[bool, SharedRoom]] = deque()  # appended to by anybody
        self._rooms: dict[bytes, SharedRoom] = {}  # by channel; this and the next are the thread's own
        self._behind: dict[bytes, SharedRoom] = {}  # subscribed to, and to be caught up with
        self._malformed = 0
        self._complained_at = float("-inf")
        self._renew = False
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="wsthreads-redis-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        self._stopping.set()
        self._thread.join(timeout_s)

    def want(self, room: SharedRoom) -> None:
        """Subscribe to a room, at the next message on the wake channel."""
        self._changes.append((True, room))

    def drop(self, room: SharedRoom) -> None:
        """End that, likewise."""
        self._changes.append((False, room))

    def renew(self) -> None:
        """The connection may be dead: make another one."""
        self._renew = True

    def _run(self) -> None:
        was_lost = False
        while not self._stopping.is_set():
            try:
                with self._client.pubsub() as pubsub:
                    self._listen(pubsub)
            except (RedisError, OSError) as error:
                if not was_lost:
                    log.info("the subscriptions at Redis are lost: %s", error)
                was_lost = True
                self._on_poll()
                self._stopping.wait(uniform(0.5, 2) * RETRY_S)
            except Exception:
                log.exception("reading from Redis failed")
                self._stopping.wait(uniform(0.5, 2) * RETRY_S)
            else:
                was_lost = False

    def _listen(self, pubsub: Any) -> None:
        """Returns when a fresh connection is wanted, or none any more."""
        self._renew = False
        self._behind.clear()
        pubsub.subscribe(self._wake_channel, *self._rooms)
        heard_at = monotonic()
        for number in count():
            if self._stopping.is_set() or self._renew:
                return
            is_busy = pubsub.connection.can_read(timeout=0)
            if not is_busy or number % BUSY_MESSAGES == 0:
                self._on_poll()
                self._catch_up()
                self._obey(pubsub)
            if is_busy or pubsub.connection.can_read(timeout=POLL_S if not self._behind else UNKNOWN_POLL_S):
                heard_at = monotonic()
                message = pubsub.get_message(timeout=READ_S)
                if message is not None:
                    self._take(message, is_busy)
            elif monotonic() - heard_at > SILENCE_S:
                raise TimeoutError(f"no sign of life for {SILENCE_S:g} s")

    def _obey(self, pubsub: Any) -> None:
        """Subscribe and unsubscribe as it was asked for, many at once."""
        changes = [self._changes.popleft() for _ in range(len(self._changes))]
        for wanted, room in changes:  # before anything can fail: the next connection begins with what is here
            if wanted:
                self._rooms[room.address.channel] = room
            else:
                self._rooms.pop(room.address.channel, None)
                self._behind.pop(room.address.channel, None)
        for wanted, same in groupby(changes, lambda change: change[0]):
            (pubsub.subscribe if wanted else pubsub.unsubscribe)(*[room.address.channel for _, room in same])

    def _take(self, message: dict[str, Any], is_busy: bool) -> None:
        room = self._rooms.get(message["channel"])
        if room is None:
            return  # the wake channel, or a room that nobody is in any more
        if message["type"] == "subscribe":
            room.live = False
            self._behind[message["channel"]] = room
        elif message["type"] == "message" and room.live:  # if it is not, the log has it
            self._take_published(room, message["data"], is_busy)

    def _take_published(self, room: SharedRoom, data: bytes, is_busy: bool) -> None:
        head = _PUBLISHED.match(data)
        if head is None:
            self._drop(f"{len(data)} bytes without an id")
            return
        entry, former = head.groups()
        if _order(entry) <= _order(room.last):
            return
        if former and former != room.last:
            room.live = False
            self._behind[room.address.channel] = room
        elif self._deliver(room, data[head.end() :], is_busy):  # else it was not published by us, nor is its id true
            room.last = entry

    def _catch_up(self) -> None:
        """Deliver what the logs have of rooms that have just been subscribed to. Raises `RedisError`."""
        rooms = [room for room in self._behind.values() if room.known][:FETCH_ROOMS]
        while rooms:
            pipeline = self._client.pipeline(transaction=False)
            for room in rooms:
                first = b"(" + room.last if room.last else b"-"
                pipeline.xrange(room.address.log, min=first, count=FETCH_ENTRIES)
            unfinished = []
            for room, entries in zip(rooms, pipeline.execute(), strict=True):
                self._take_logged(room, entries)
                if len(entries) == FETCH_ENTRIES:
                    unfinished.append(room)
                else:
                    room.live = True
                    room.ready.set()
                    self._behind.pop(room.address.channel, None)
            rooms = unfinished

    def _take_logged(self, room: SharedRoom, entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> None:
        for entry, fields in entries:
            former, message = fields.get(b"p", b""), fields.get(b"m")
            if room.last and former and _order(former) > _order(room.last):
                self._metrics.add("broker_gaps")
                log.warning("broadcasts are lost: more than Redis keeps came while this process was cut off from it")
            room.last = entry
            if message is None:
                self._drop("an entry of a log without a message")
            else:
                self._deliver(room, message, is_busy=True)

    def _deliver(self, room: SharedRoom, message: bytes, is_busy: bool) -> bool:
        """Give a message to the members. False, and they are spared, if it is malformed."""
        try:
            broadcast = messages.decode(message)
        except BrokerError as error:
            self._drop(str(error))
            return False
        own = broadcast.sender == self._process
        if broadcast.ticket > room.seen.get(broadcast.sender, -1):
            room.seen[broadcast.sender] = broadcast.ticket
            if len(room.seen) > MAX_SENDERS:
                del room.seen[next(iter(room.seen))]
            try:
                ticket = broadcast.ticket if own else -1
                room.listener.deliver(
                    room.name, broadcast.frame, broadcast.exclude_id, ticket=ticket, hand_over=is_busy
                )
            except Exception:
                log.exception("a broadcast to room %r was not delivered", room.name)
        if own:
            self._on_own(room, broadcast.ticket)
        return True

    def _drop(self, what: str) -> None:
        """Count a malformed message, and say so now and then."""
        self._metrics.add("broker_malformed")
        self._malformed += 1
        if monotonic() - self._complained_at >= COMPLAIN_S:
            log.warning("dropped what came from Redis and is not ours (%d so far), such as %s", self._malformed, what)
            self._complained_at = monotonic()


def _order(entry: bytes) -> tuple[int, int]:
    """What ids of a stream are compared by; an empty one is before all others."""
    if not entry:
        return (0, 0)
    milliseconds, _, number = entry.partition(b"-")
    return (int(milliseconds), int(number))
