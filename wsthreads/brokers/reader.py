"""What comes from Redis: one thread per app and process, with a connection of its own.

It is subscribed to the rooms that have members in this process. A subscription, a first one or one after a break,
begins with what the room's log has behind the last broadcast that the room has seen; each broadcast has a number and
names the one before it, so that one which is missing is fetched from there, too. What is not there any more is counted
and logged, and so is a log that is another one than before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count, groupby
from random import SystemRandom
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from wsthreads.brokers import messages
from wsthreads.brokers.complaints import counted, explain
from wsthreads.brokers.positions import START, Position, parse_published
from wsthreads.brokers.scripts import BEAT_S, FETCH, Address, Scripts
from wsthreads.errors import BrokerError
from wsthreads.loggers import get_logger

if TYPE_CHECKING:
    from wsthreads.brokers.links import Listener
    from wsthreads.monitoring.metrics import Metrics

__all__ = ["Reader", "SharedRoom"]

log = get_logger(__name__)

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


class SharedRoom:
    """A room that has members in this process."""

    __slots__ = (
        "address",
        "announced",
        "announced_at",
        "delivering",
        "dropped",
        "elsewhere",
        "known",
        "listener",
        "live",
        "name",
        "position",
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
        self.known = False  # Redis knows of the members, and `position` is set
        self.touched_at = 0.0
        self.announced = START  # where the log ended at `announced_at`, which is some time ago
        self.announced_at = 0.0
        self.elsewhere = 0  # members in other processes, when Redis last said
        self.tickets: set[int] = set()  # broadcasts of this process that have not come back; guarded by its lock
        # Its last member here has left. Who joins the room now has another object, and gets by that what is for it; but
        # until the reader obeys `drop`, this one is still subscribed.
        self.dropped = False
        # These are the reader's.
        self.position = START  # of the last broadcast that was seen; at first, of that before the join
        self.live = False  # nothing is missing between `position` and what comes next
        self.delivering = -1  # the ticket of a broadcast of this process; set before it looks at `dropped`
        self.ready = Event()  # it has been live
        # Sender → its last ticket: a broadcast that was sent again is not doubled. Whoever was heard last is last.
        self.seen: dict[bytes, int] = {}

    def has_seen(self, broadcast: messages.Broadcast) -> bool:
        """Whether the broadcast, or a later one of its sender, was delivered. The reader's."""
        return broadcast.ticket <= self.seen.get(broadcast.sender, -1)

    def see(self, broadcast: messages.Broadcast) -> None:
        """Remember the broadcast. The reader's."""
        self.seen.pop(broadcast.sender, None)
        self.seen[broadcast.sender] = broadcast.ticket
        if len(self.seen) > MAX_SENDERS:
            del self.seen[next(iter(self.seen))]


class Reader:
    """Gives what comes to the rooms.

    `on_own(room, ticket)` is called when a broadcast of `process` is back, `on_poll()` several times a second.
    """

    def __init__(
        self,
        open_pubsub: Callable[[], Any],
        scripts: Scripts,
        process: str,
        wake_channel: bytes,
        on_own: Callable[[SharedRoom, int], None],
        on_poll: Callable[[], None],
        metrics: Metrics,
    ) -> None:
        self._open_pubsub = open_pubsub
        self._scripts = scripts
        self._process = process.encode()
        self._wake_channel = wake_channel
        self._on_own = on_own
        self._on_poll = on_poll
        self._metrics = metrics
        self._changes: deque[tuple[bool, SharedRoom]] = deque()  # appended to by anybody
        self._checks: deque[SharedRoom] = deque()  # likewise
        self._rooms: dict[bytes, SharedRoom] = {}  # by channel; this and the next are the thread's own
        self._behind: dict[bytes, SharedRoom] = {}  # subscribed to, and to be caught up with
        self._malformed = 0
        self._complained_at = float("-inf")
        self._renew = False
        #: When something came, on the monotonic clock. Any thread.
        self.heard_at = float("-inf")
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

    def check(self, room: SharedRoom) -> None:
        """Look whether a room has missed anything, likewise."""
        self._checks.append(room)

    def renew(self) -> None:
        """The connection may be dead: make another one."""
        self._renew = True

    def _run(self) -> None:
        was_lost = False
        while not self._stopping.is_set():
            try:
                with self._open_pubsub() as pubsub:
                    self._listen(pubsub)
            except (RedisError, OSError) as error:
                if not was_lost:
                    log.info("the subscriptions at Redis are lost: %s", explain(error))
                was_lost = True
                self._on_poll()
                self._stopping.wait(SystemRandom().uniform(0.5, 2) * RETRY_S)
            except Exception:
                if not was_lost:
                    log.exception("reading from Redis failed")
                was_lost = True
                self._on_poll()
                self._stopping.wait(SystemRandom().uniform(0.5, 2) * RETRY_S)
            else:
                was_lost = False

    def _listen(self, pubsub: Any) -> None:
        """Returns when a fresh connection is wanted, or none any more."""
        self._renew = False
        self._behind.clear()
        pubsub.subscribe(self._wake_channel, *self._rooms)
        # redis-py's own handler of what comes by RESP3 logs each broadcast. pubsub() takes another one, but redis-py
        # before 6 sets it for RESP2, too, where it fails.
        if hasattr(pubsub.connection._parser, "set_pubsub_push_handler"):
            pubsub.connection._parser.set_pubsub_push_handler(_keep)
        self.heard_at = monotonic()
        for number in count():
            if self._stopping.is_set() or self._renew:
                return
            is_busy = pubsub.connection.can_read(timeout=0)
            if not is_busy or number % BUSY_MESSAGES == 0:
                self._on_poll()
                self._catch_up()
                self._obey(pubsub)
            if is_busy or pubsub.connection.can_read(timeout=POLL_S if not self._behind else UNKNOWN_POLL_S):
                self.heard_at = monotonic()
                message = pubsub.get_message(timeout=READ_S)
                if message is not None:
                    self._take(message, is_busy)
            elif monotonic() - self.heard_at > SILENCE_S:
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
        for room in [self._checks.popleft() for _ in range(len(self._checks))]:
            channel = room.address.channel
            if self._rooms.get(channel) is room and room.live:
                room.live = False
                self._behind[channel] = room
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
        published = parse_published(data)
        if published is None:
            self._drop(f"{len(data)} bytes that are not published in version {messages.VERSION} of the format")
            return
        position, former, message = published
        broadcast = self._decode(message)
        if room.position.is_followed_by(position, former):
            room.position = position
            if broadcast is not None:
                self._deliver(room, broadcast, is_busy)
        elif broadcast is not None and not room.has_seen(broadcast):  # else the log had it
            room.live = False
            self._behind[room.address.channel] = room

    def _catch_up(self) -> None:
        """Deliver what the logs have of rooms that have just been subscribed to. Raises `RedisError`."""
        rooms = [room for room in self._behind.values() if room.known][:FETCH_ROOMS]
        gaps: list[tuple[SharedRoom, int | None]] = []
        while rooms:
            pipeline = self._scripts.pipeline(transaction=False)
            for room in rooms:
                address = room.address
                pipeline.call(FETCH, [address.log, address.head], *room.position, FETCH_ENTRIES)
            unfinished = []
            for room, found in zip(rooms, pipeline.execute(), strict=True):
                if self._take_fetched(room, found, gaps):
                    room.live = True
                    room.ready.set()
                    self._behind.pop(room.address.channel, None)
                else:
                    unfinished.append(room)
            rooms = unfinished
        if gaps:
            self._tell_of(gaps)

    def _take_fetched(self, room: SharedRoom, found: list[Any], gaps: list[tuple[SharedRoom, int | None]]) -> bool:
        """The head and the entries of a log. Whether that was all. Adds to `gaps` what is missing."""
        epoch, number, last, entries = found or (*START, [])
        missed: list[int | None] = []
        for entry, fields in entries:
            if len(fields) != 6 or not fields[1].isdigit():
                self._drop(f"an entry of a log that is none in version {messages.VERSION} of the format")
                continue
            position, former, message = Position(epoch, int(fields[1]), entry), fields[3], fields[5]
            if not room.position.is_followed_by(position, former):
                until = room.position.missed_until(position)
                missed.append(None if until is None else until - 1)
            room.position = position
            broadcast = self._decode(message)
            if broadcast is not None:
                self._deliver(room, broadcast, is_busy=True)
        is_all = len(entries) < FETCH_ENTRIES
        head = Position(epoch, int(number), last)
        if is_all:
            missed.append(room.position.missed_until(head))
            room.position = head
        if None in missed:
            gaps.append((room, None))
        elif any(missed):
            gaps.append((room, sum(filter(None, missed))))
        return is_all

    def _tell_of(self, gaps: list[tuple[SharedRoom, int | None]]) -> None:
        """Count and log what is lost, in one line for all rooms."""
        known = sum(missed or 0 for _, missed in gaps)
        what = "are lost" if known != 1 else "is lost"
        what = f"{counted(known, 'broadcast')} {what}" if known else "broadcasts may be lost"
        why = "Redis no longer had everything when this process read again"
        if any(missed is None for _, missed in gaps):
            what += ", and others may be," if known else ""
            why = "Redis has lost its data, has failed over, or did not hear of the room for too long"
        where = "the room" if len(gaps) == 1 else f"{len(gaps)} rooms, such as"
        log.warning("%s in %s %r: %s", what, where, gaps[0][0].name, why)
        self._metrics.add("broker_gaps", len(gaps))

    def _decode(self, message: bytes) -> messages.Broadcast | None:
        """None, and it is counted, if it is malformed."""
        try:
            return messages.decode(message)
        except BrokerError as error:
            self._drop(str(error))
            return None

    def _deliver(self, room: SharedRoom, broadcast: messages.Broadcast, is_busy: bool) -> None:
        """Give a broadcast to the members, unless they have had it."""
        if room.dropped:
            return  # another object has what is for the members of now, and tells when that is back
        own = broadcast.sender == self._process
        ticket = room.delivering = broadcast.ticket if own else -1
        if not room.has_seen(broadcast):
            room.see(broadcast)
            try:
                room.listener.deliver(
                    room.name, broadcast.frame, broadcast.exclude_id, ticket=ticket, hand_over=is_busy
                )
            except Exception:
                log.exception("a broadcast to room %r was not delivered", room.name)
        if own:
            self._on_own(room, broadcast.ticket)

    def _drop(self, what: str) -> None:
        """Count a malformed message, and say so now and then."""
        self._metrics.add("broker_malformed")
        self._malformed += 1
        if monotonic() - self._complained_at >= COMPLAIN_S:
            log.warning("dropped what came from Redis and is not ours (%d so far), such as %s", self._malformed, what)
            self._complained_at = monotonic()


def _keep(response: Any) -> Any:
    """What is done with a push of RESP3, before it is read."""
    return response
