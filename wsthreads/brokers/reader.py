"""What comes from Redis: one thread per app and process, with a connection of its own.

The thread subscribes to the channels of the rooms that have members in this process. Then the writer announces the room
to Redis, which publishes on the wake channel where the room's log ends. From there on, messages arrive on the channels
in the order in which Redis got them, also across rooms.

After a break, a subscription begins with the messages that the room's log has after the last message received. Each
message has a number and names the message before it, so the thread notices a missing message and reads it from the log,
too. Messages that the log no longer has are counted and logged as lost, and so is a log that is not the same as before.

`arrivals.HANDLERS` says what the process does with each kind of message.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable
from itertools import count, groupby
from random import SystemRandom
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from wsthreads.brokers import messages
from wsthreads.brokers.arrivals import HANDLERS, aged, parse_stock
from wsthreads.brokers.kept import parse_kept
from wsthreads.brokers.keys import BEAT_S
from wsthreads.brokers.pipeline import Scripts
from wsthreads.brokers.positions import Position, new_epoch, parse_published
from wsthreads.brokers.redis_errors import counted, explain
from wsthreads.brokers.scripts import FETCH
from wsthreads.errors import BrokerError
from wsthreads.loggers import get_logger
from wsthreads.rooms.names import SESSIONS_ROOM, user_of

if TYPE_CHECKING:
    from wsthreads.brokers.leases import Leases
    from wsthreads.brokers.posts import PostBox
    from wsthreads.brokers.questions import Questions
    from wsthreads.brokers.subscriptions import Subscription
    from wsthreads.monitoring.metrics import Metrics

__all__ = ["Reader"]

log = get_logger(__name__)

#: An announcement: a position, the serial number of the subscription, the room's channel.
_ANNOUNCED = re.compile(rb"([A-Za-z0-9_-]{1,40}) ([0-9]{1,16}) ([0-9]{1,20}-[0-9]{1,20}) ([0-9]{1,18}) (.+)", re.DOTALL)

_NUMBER = re.compile(rb"[0-9]{1,16}")

#: Something arrives at every beat. After a longer silence, the connection counts as lost.
SILENCE_S = 3 * BEAT_S + 1

#: How often the thread looks for work other than messages.
POLL_S = 0.25

#: The same while a subscription waits for its first position, which the writer is about to learn.
UNKNOWN_POLL_S = 0.001

#: How long each further piece of a message may take to arrive.
READ_S = 3.0

#: While messages arrive without a pause, the thread looks for other work after this many.
BUSY_MESSAGES = 100

#: Seconds between attempts to connect, times a random factor of 0.5 to 2: not all processes come back at once.
RETRY_S = 0.2

#: How many entries of a log, and how many rooms, are fetched at once.
FETCH_ENTRIES = 1000
FETCH_ROOMS = 500

#: A room that Redis has announced is read from the log if the announcement does not arrive in this time.
BEGIN_S = 1.0

#: At most one log line about malformed messages in this time.
COMPLAIN_S = 10.0


class Reader:
    """Delivers messages from Redis to the rooms of this process.

    `ask_channel` is that of questions to all processes, unless another reader of this process has it.
    `on_own(room, ticket)` is called when a broadcast of `process` is back, `on_poll()` several times a second, and
    `on_awake()` when the wake channel has been subscribed: what was published there before may not have arrived.
    """

    def __init__(
        self,
        open_pubsub: Callable[[], Any],
        scripts: Scripts,
        process: str,
        wake_channel: bytes,
        *,
        ask_channel: bytes | None,
        questions: Questions,
        on_subscribed: Callable[[Subscription], None],
        on_own: Callable[[Subscription, int], None],
        on_poll: Callable[[], None],
        on_awake: Callable[[], None],
        leases: Leases,
        posts: PostBox,
        metrics: Metrics,
    ) -> None:
        self._open_pubsub = open_pubsub
        self._scripts = scripts
        self._process = process.encode()
        self._wake_channel = wake_channel
        self._ask_channel = ask_channel
        self._own_channels = [wake_channel] if ask_channel is None else [wake_channel, ask_channel]
        self._take_answer = questions.take_answer
        self._take_question = questions.take_question
        self._on_subscribed = on_subscribed
        self._on_own = on_own
        self._on_poll = on_poll
        self._on_awake = on_awake
        self._leases = leases
        self._posts = posts
        self._metrics = metrics
        self._changes: deque[tuple[bool, Subscription]] = deque()  # any thread appends
        self._checks: deque[Subscription] = deque()  # any thread appends
        self._rooms: dict[bytes, Subscription] = {}  # by channel; this and the next belong to the thread
        self._behind: dict[bytes, Subscription] = {}  # subscribed, with messages to fetch from the log
        self._unconfirmed: Counter[bytes] = Counter()  # channels to which this connection is subscribing
        self._connection = 0  # its number
        self._malformed = 0
        self._complained_at = float("-inf")
        self._renew = False
        #: When something last arrived, on the monotonic clock. Any thread.
        self.heard_at = float("-inf")
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="wsthreads-redis-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        self._stopping.set()
        self._thread.join(timeout_s)

    def want(self, room: Subscription) -> None:
        """Subscribe to a room. It happens at the next message on the wake channel."""
        self._changes.append((True, room))

    def drop(self, room: Subscription) -> None:
        """Unsubscribe from a room. It happens at the next message on the wake channel."""
        self._changes.append((False, room))

    def check(self, room: Subscription) -> None:
        """Check the log for missed messages. It happens at the next message on the wake channel."""
        self._checks.append(room)

    def renew(self) -> None:
        """Make a new connection: the present one may be dead."""
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
        """Receive until a new connection is needed, or the end."""
        self._renew = False
        self._posts.deafen()
        self._behind.clear()
        self._connection += 1
        self._unconfirmed = Counter([*self._own_channels, *self._rooms])
        pubsub.subscribe(*self._own_channels, *self._rooms)
        # redis-py's own handler for RESP3 pushes logs each message. pubsub() accepts another handler, but redis-py
        # before 6 also sets that one for RESP2, where it fails.
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
                raise TimeoutError(f"nothing received for {SILENCE_S:g} s")

    def _obey(self, pubsub: Any) -> None:
        """Subscribe and unsubscribe as requested, many rooms in one command."""
        changes = [self._changes.popleft() for _ in range(len(self._changes))]
        for wanted, room in changes:  # before anything can fail: the next connection subscribes to all of `_rooms`
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
            channels = [room.address.channel for _, room in same]
            if wanted:
                self._unconfirmed.update(channels)
            (pubsub.subscribe if wanted else pubsub.unsubscribe)(*channels)

    def _take(self, message: dict[str, Any], is_busy: bool) -> None:
        room = self._rooms.get(message["channel"])
        if message["type"] == "subscribe":
            self._confirmed(message["channel"], room)
        elif message["type"] == "message" and message["channel"] == self._wake_channel:
            self._woken(message["data"])
        elif message["type"] == "message" and message["channel"] == self._ask_channel:
            self._take_question(message["data"])
        elif room is None:
            return  # it has no members in this process any more
        elif message["type"] == "message" and room.live:  # if it is not live, the log has the message
            self._take_published(room, message["data"], is_busy)

    def _confirmed(self, channel: bytes, room: Subscription | None) -> None:
        """From here on, what is published on a channel arrives."""
        if not self._unconfirmed[channel]:
            self._connection += 1  # redis-py has made another connection by itself
        elif self._unconfirmed[channel] > 1:
            self._unconfirmed[channel] -= 1  # it was left and joined again meanwhile
            return
        del self._unconfirmed[channel]
        if channel == self._wake_channel:
            self._on_awake()
        if room is not None:
            room.live = False
            room.subscribed_on = self._connection
            self._behind[channel] = room
            self._on_subscribed(room)

    def _woken(self, data: bytes) -> None:
        """A message on the wake channel, by its first byte; an announcement, or nothing, if that is none of these."""
        if data.startswith(b"{"):
            self._take_answer(data)
        elif data.startswith(b"!"):
            self._leases.woken(data[1:])
        elif data.startswith(b"="):
            try:
                self._posts.take_outcomes(data[1:])
            except ValueError:
                self.drop_malformed(f"{len(data)} bytes that are no outcomes of posts")
        elif data.startswith(b"+"):
            self._take_stock(data)
        else:
            self._begin(data)

    def _take_stock(self, data: bytes) -> None:
        """What a room has at its announcement, which follows: presences, and perhaps a ban."""
        try:
            serial_and_channel, now_ms, (*presences, value, left_ms) = parse_stock(data)
            ban = messages.parse_ban(value, messages.whole(left_ms)) if value else None
        except ValueError:
            self.drop_malformed(f"{len(data)} bytes that say in no known way what a room has")
            return
        serial, _, channel = serial_and_channel.partition(b" ")
        room = self._rooms.get(channel)
        if room is None or serial != b"%d" % room.serial or room.begun or room.subscribed_on != self._connection:
            return
        if ban is not None and not room.dropped:
            room.listener.found_ban(room.name, *ban)
        self._take_presences(room, now_ms, presences, is_surely=True)

    def _take_presences(self, room: Subscription, now_ms: int, stored: list[bytes], is_surely: bool) -> None:
        """All presences that Redis has of a room."""
        if room.dropped:
            return
        present = self.parse_presences(now_ms, stored)
        try:
            room.listener.take_presences(room.name, present, is_first=not room.has_presences, is_surely=is_surely)
        except Exception:
            log.exception("the presences in room %r were not taken", room.name)
        room.has_presences = True

    def parse_presences(self, now_ms: int, stored: list[bytes]) -> list[messages.PresenceChange]:
        """A presence hash of Redis's, without what is malformed. Any thread."""
        present, malformed = messages.parse_presences(now_ms, stored)
        for what in malformed:
            self.drop_malformed(what)
        return present

    def _begin(self, data: bytes) -> None:
        """What was published to a room before is for none of its members, and whatever follows is."""
        announced = _ANNOUNCED.fullmatch(data)
        if announced is None:
            return  # it only wakes
        epoch, number, entry, serial, channel = announced.groups()
        room = self._rooms.get(channel)
        if room is None or room.serial != int(serial) or room.begun or room.subscribed_on != self._connection:
            return  # if it is not subscribed to, the log is read
        room.position, room.begun, room.has_presences = Position(epoch, int(number), entry), True, True
        if room.keeps_history:
            self._behind[channel] = room  # its history is read first
        else:
            self._go_live(room)

    def _go_live(self, room: Subscription) -> None:
        room.live = True
        room.ready.set()
        self._behind.pop(room.address.channel, None)

    def _take_published(self, room: Subscription, data: bytes, is_busy: bool) -> None:
        published = parse_published(data)
        if published is None:
            self.drop_malformed(
                f"{len(data)} bytes that were not published in version {messages.VERSION} of the format"
            )
            return
        position, former, message = published
        decoded = self._decode(message)
        if room.position.is_followed_by(position, former):
            room.position = position
            if decoded is not None:
                self._handle(room, decoded, is_busy)
        elif decoded is not None and not room.has_seen(decoded, position):  # else it came from the log before
            room.live = False
            self._behind[room.address.channel] = room

    def _catch_up(self) -> None:
        """Deliver what the logs have for rooms that have just been subscribed. Raises `RedisError`."""
        rooms = [room for room in self._behind.values() if self._is_to_be_fetched(room)][:FETCH_ROOMS]
        for room in rooms:
            if not room.begun:
                room.position, room.begun = room.start, True
        gaps: list[tuple[Subscription, int | None]] = []
        while rooms:
            pipeline = self._scripts.pipeline(transaction=False)
            for room in rooms:
                address = room.address
                keys = [address.log, address.head, address.presence, address.history]
                wants_history = room.keeps_history and not room.has_history
                pipeline.call(FETCH, keys, *room.position, FETCH_ENTRIES, new_epoch() if wants_history else "")
            unfinished = []
            for room, found in zip(rooms, pipeline.execute(), strict=True):
                if self._take_fetched(room, found, gaps):
                    self._go_live(room)
                else:
                    unfinished.append(room)
            rooms = unfinished
        if gaps:
            self._tell_of(gaps)

    def _is_to_be_fetched(self, room: Subscription) -> bool:
        if room.begun or not room.known:
            return room.begun
        # It may be that the announcement is about to arrive.
        return room.expected_on != self._connection or monotonic() - room.announced_at > BEGIN_S

    def _take_fetched(self, room: Subscription, found: list[Any], gaps: list[tuple[Subscription, int | None]]) -> bool:
        """Deliver entries of a log. True if these were all. Adds to `gaps` the rooms that miss messages."""
        epoch, number, last, entries, now_ms, presences, *history = found
        missed: list[int | None] = []
        for entry, fields in entries:
            if len(fields) != 6 or not _NUMBER.fullmatch(fields[1]):
                self.drop_malformed(f"a log entry that is not in version {messages.VERSION} of the format")
                continue
            position, former, message = Position(epoch, int(fields[1]), entry), fields[3], fields[5]
            if not room.position.is_followed_by(position, former):
                until = room.position.missed_until(position)
                missed.append(None if until is None else until - 1)
                self._lose_history(room)
            room.position = position
            decoded = self._decode(message)
            if decoded is not None:
                self._handle(room, aged(decoded, entry, int(now_ms)), is_busy=True)
        is_all = len(entries) < FETCH_ENTRIES
        head = Position(epoch, int(number), last)
        if is_all:
            missed.append(room.position.missed_until(head))
            room.position = head
            if missed[-1] != 0:
                self._lose_history(room)
            is_all = not room.keeps_history or room.has_history or bool(history)  # else it is read once more
            if history:
                self._take_history(room, epoch, int(now_ms), *history)
            self._take_presences(room, int(now_ms), presences, is_surely=None not in missed)
        if None in missed:
            gaps.append((room, None))
        elif any(missed):
            gaps.append((room, sum(filter(None, missed))))
        return is_all

    def _take_history(self, room: Subscription, epoch: bytes, now_ms: int, kept: bytes, entries: list[bytes]) -> None:
        """All messages that Redis has kept of a room. The last of them has been delivered."""
        room.has_history = True
        stored = parse_kept(epoch, kept, entries, now_ms, self.drop_malformed)
        if not room.dropped:
            try:
                room.listener.take_history(room.name, room.serial, stored)
            except Exception:
                log.exception("the history of room %r was not taken", room.name)

    def _lose_history(self, room: Subscription) -> None:
        """Messages are missing in what this process knows of a room's history."""
        if room.has_history:
            room.has_history = False
            if not room.dropped:
                room.listener.lose_history(room.name, room.serial)

    def _tell_of(self, gaps: list[tuple[Subscription, int | None]]) -> None:
        """Count and log lost messages, in one line for all rooms."""
        gaps = [(room, missed) for room, missed in gaps if missed is not None or room.name != SESSIONS_ROOM]
        if not gaps:
            return  # hardly ever is anything in that room
        known = sum(missed or 0 for _, missed in gaps)
        what = "are lost" if known != 1 else "is lost"
        what = f"{counted(known, 'broadcast')} {what}" if known else "broadcasts may be lost"
        why = "Redis no longer had everything when this process read again"
        if any(missed is None for _, missed in gaps):
            what += ", and others may be," if known else ""
            why = "Redis has lost its data, has failed over, or has dropped the log of a room idle for too long"
        log.warning("%s %s: %s", what, _where([room.name for room, _ in gaps]), why)
        self._metrics.add("broker_gaps", len(gaps))

    def _decode(self, message: bytes) -> messages.Message | None:
        """The decoded message. None if it is malformed; that is counted."""
        try:
            return messages.decode(message)
        except BrokerError as error:
            self.drop_malformed(str(error))
            return None

    def _handle(self, room: Subscription, message: messages.Message, is_busy: bool) -> None:
        """Act on a message, unless that was done before."""
        if room.dropped:
            return  # the room's next subscription receives the message, and ends its ticket
        if isinstance(message, messages.PresenceChange):
            self._act(room, message, -1, is_busy)
            return
        own = message.sender == self._process
        ticket = room.delivering = message.ticket if own else -1
        if not room.has_seen(message):
            room.see(message)
            self._act(room, message, ticket, is_busy)
        if own:
            self._on_own(room, message.ticket)

    def _act(self, room: Subscription, message: messages.Message, ticket: int, is_busy: bool) -> None:
        try:
            HANDLERS[type(message)](room, message, ticket, is_busy)
        except Exception:
            log.exception("a %s to room %r was not delivered", type(message).__name__.lower(), room.name)

    def drop_malformed(self, what: str) -> None:
        """Count a malformed message, and log that from time to time. Any thread."""
        self._metrics.add("broker_malformed")
        self._malformed += 1
        if monotonic() - self._complained_at >= COMPLAIN_S:
            log.warning("dropped malformed data from Redis (%d times so far), such as %s", self._malformed, what)
            self._complained_at = monotonic()


def _where(names: list[str]) -> str:
    """Rooms, some of them hidden, for a line of the log."""
    users = [user for name in names if (user := user_of(name)) is not None]
    rooms = [name for name in names if user_of(name) is None]
    parts = []
    if rooms:
        parts.append(("in the room" if len(rooms) == 1 else f"in {len(rooms)} rooms, such as") + f" {rooms[0]!r}")
    if users:
        parts.append(("for the user" if len(users) == 1 else f"for {len(users)} users, such as") + f" {users[0]!r}")
    return " and ".join(parts)


def _keep(response: Any) -> Any:
    """Handle a push of RESP3: leave it to the reader."""
    return response
