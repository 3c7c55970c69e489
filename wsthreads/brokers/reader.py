"""Receives from Redis, in one thread per app and process. The thread has its own connection.

The thread subscribes to the channels of the rooms that have members in this process. Then the writer announces each
room to Redis. Redis answers on the wake channel with the end of the room's log. All later messages arrive in the order
in which Redis got them, even across rooms.

After a break of the connection, a subscription begins with those messages in the room's log that come after the last
received one. Each message has a number and names the message before it. So the thread notices a missing message, and
reads it from the log, too. `replay` reads the logs.

`arrivals.HANDLERS` has the handler for each kind of message.
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
from wsthreads.brokers.arrivals import parse_stock
from wsthreads.brokers.keys import BEAT_S
from wsthreads.brokers.positions import Position, parse_published
from wsthreads.brokers.redis_errors import explain
from wsthreads.loggers import get_logger
from wsthreads.threads.lookups import look_up

if TYPE_CHECKING:
    from wsthreads.brokers.arrivals import Arrivals
    from wsthreads.brokers.availability import Availability
    from wsthreads.brokers.checkpoints import Checkpoints
    from wsthreads.brokers.leases import Leases
    from wsthreads.brokers.malformed import Malformed
    from wsthreads.brokers.posts import PostBox
    from wsthreads.brokers.questions import Questions
    from wsthreads.brokers.replay import Replay
    from wsthreads.brokers.subscription import Subscription
    from wsthreads.brokers.subscriptions import Subscriptions

__all__ = ["Reader"]

log = get_logger(__name__)

#: Matches the answer to an announcement: a position, the serial number of the subscription, the room's channel.
_ANNOUNCED = re.compile(rb"([A-Za-z0-9_-]{1,40}) ([0-9]{1,16}) ([0-9]{1,20}-[0-9]{1,20}) ([0-9]{1,18}) (.+)", re.DOTALL)

#: After this long without any data, the connection counts as lost. Without a fault, some data arrives every `BEAT_S`.
SILENCE_S = 3 * BEAT_S + 1

#: How often the thread interrupts its wait for messages to do other work.
POLL_S = 0.25

#: The longest wait for a message while a subscription waits for its first position.
UNKNOWN_POLL_S = 0.001

#: How long the next piece of a message may take to arrive.
READ_S = 3.0

#: While messages arrive without a pause, the thread does other work after this many messages.
BUSY_MESSAGES = 100

#: Seconds between two attempts to connect, times a random factor of 0.5 to 2, so that the processes do not all
#: reconnect at the same time.
RETRY_S = 0.2


class Reader:
    """Delivers messages from Redis to the rooms of this process.

    `ask_channel` is the channel for questions to all processes. It is None if another reader of this process listens to
    that channel. `on_poll()` is called several times a second.
    """

    def __init__(
        self,
        open_pubsub: Callable[[], Any],
        wake_channel: bytes,
        *,
        ask_channel: bytes | None,
        subscriptions: Subscriptions,
        arrivals: Arrivals,
        checkpoints: Checkpoints,
        replay: Replay,
        malformed: Malformed,
        questions: Questions,
        leases: Leases,
        posts: PostBox,
        availability: Availability,
        on_poll: Callable[[], None],
    ) -> None:
        self._open_pubsub = open_pubsub
        self._wake_channel = wake_channel
        self._ask_channel = ask_channel
        self._own_channels = [wake_channel] if ask_channel is None else [wake_channel, ask_channel]
        self._subscriptions = subscriptions
        self._arrivals = arrivals
        self._checkpoints = checkpoints
        self._replay = replay
        self._malformed = malformed
        self._questions = questions
        self._leases = leases
        self._posts = posts
        self._availability = availability
        self._on_poll = on_poll
        self._checks: deque[Subscription] = deque()  # rooms whose logs have to be checked; any thread appends
        # by channel; used only by the reader's thread, as is `_unconfirmed`
        self._rooms: dict[bytes, Subscription] = {}
        # how often this connection has to confirm the subscription to each channel
        self._unconfirmed: Counter[bytes] = Counter()
        self._connection = 0  # the number of the current connection
        self._renew = False
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="wsthreads-redis-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        self._stopping.set()
        self._thread.join(timeout_s)

    def check(self, room: Subscription) -> None:
        """Check the log of a room for missed messages, when the next message arrives on the wake channel."""
        self._checks.append(room)

    def renew(self) -> None:
        """Make a new connection, because the current one may be dead."""
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
        """Receive messages until a new connection is needed, or until the reader stops."""
        self._renew = False
        self._posts.deafen()
        self._questions.deafen()
        self._replay.clear()
        self._connection += 1
        self._unconfirmed = Counter([*self._own_channels, *self._rooms])
        pubsub.subscribe(*self._own_channels, *self._rooms)
        # redis-py's own handler for RESP3 pushes would log each message. pubsub() accepts another handler, but redis-py
        # before 6 also uses it for RESP2, where it fails.
        if hasattr(pubsub.connection._parser, "set_pubsub_push_handler"):
            pubsub.connection._parser.set_pubsub_push_handler(_keep)
        availability, replay = self._availability, self._replay
        availability.heard_at = monotonic()
        for number in count():
            if self._stopping.is_set() or self._renew:
                return
            is_busy = pubsub.connection.can_read(timeout=0)
            if not is_busy or number % BUSY_MESSAGES == 0:
                self._on_poll()
                replay.catch_up(self._connection)
                self._obey(pubsub)
                self._checkpoints.run()
            if is_busy or pubsub.connection.can_read(timeout=UNKNOWN_POLL_S if replay else POLL_S):
                availability.heard_at = monotonic()
                message = pubsub.get_message(timeout=READ_S)
                if message is not None:
                    self._take(message, is_busy)
            elif monotonic() - availability.heard_at > SILENCE_S:
                raise TimeoutError(f"nothing received for {SILENCE_S:g} s")

    def _obey(self, pubsub: Any) -> None:
        """Subscribe to rooms and end subscriptions, as `Subscriptions` requests. One command is for many rooms."""
        waiting = self._subscriptions.changes
        changes = [waiting.popleft() for _ in range(len(waiting))]
        for wanted, room in changes:  # done first, because a new connection subscribes to all of `_rooms`
            if wanted:
                self._rooms[room.address.channel] = room
            else:
                self._rooms.pop(room.address.channel, None)
                self._replay.drop(room.address.channel)
        for room in [self._checks.popleft() for _ in range(len(self._checks))]:
            if look_up(self._rooms, room.address.channel) is room and room.live:
                self._replay.add(room)
        for wanted, same in groupby(changes, lambda change: change[0]):
            channels = [room.address.channel for _, room in same]
            if wanted:
                self._unconfirmed.update(channels)
            (pubsub.subscribe if wanted else pubsub.unsubscribe)(*channels)

    def _take(self, message: dict[str, Any], is_busy: bool) -> None:
        room = look_up(self._rooms, message["channel"])
        if message["type"] == "subscribe":
            self._confirmed(message["channel"], room)
        elif message["type"] == "message" and message["channel"] == self._wake_channel:
            self._woken(message["data"])
        elif message["type"] == "message" and message["channel"] == self._ask_channel:
            self._questions.take_question(message["data"])
        elif room is None:
            return  # the room no longer has members in this process
        # if the room is not live, the message will be read from the log
        elif message["type"] == "message" and room.live:
            self._take_published(room, message["data"], is_busy)

    def _confirmed(self, channel: bytes, room: Subscription | None) -> None:
        """Redis has confirmed a subscription. From now on, messages that are published on the channel arrive."""
        if not self._unconfirmed[channel]:
            self._connection += 1  # redis-py has reconnected by itself
        elif self._unconfirmed[channel] > 1:
            self._unconfirmed[channel] -= 1  # the room was left and joined again, so another confirmation follows
            return
        del self._unconfirmed[channel]
        if channel == self._wake_channel:
            self._posts.hear()
            self._leases.look_again()
        if channel in self._own_channels and not any(self._unconfirmed[each] for each in self._own_channels):
            self._questions.hear()
        if room is not None:
            room.subscribed_on = self._connection
            self._replay.add(room)
            self._subscriptions.subscribed(room)

    def _woken(self, data: bytes) -> None:
        """Handle a message on the wake channel.

        The first byte of the message tells its kind. Without one of these bytes, the message is the answer to an
        announcement, or is empty and only wakes the thread.
        """
        if data.startswith(b"{"):
            self._questions.take_answer(data)
        elif data.startswith(b"!"):
            self._leases.woken(data[1:])
        elif data.startswith(b"="):
            try:
                self._posts.take_outcomes(data[1:])
            except ValueError:
                self._malformed.drop(f"{len(data)} bytes that are not outcomes of posts")
        elif data.startswith(b"+"):
            self._take_stock(data)
        else:
            self._begin(data)

    def _take_stock(self, data: bytes) -> None:
        """Store the presences of a room, and a ban if there is one.

        Redis publishes them right before it answers the announcement.
        """
        try:
            serial_and_channel, now_ms, (*presences, value, left_ms) = parse_stock(data)
            ban = messages.parse_ban(value, messages.whole(left_ms)) if value else None
        except ValueError:
            self._malformed.drop(f"{len(data)} malformed bytes with the presences of a room")
            return
        serial, _, channel = serial_and_channel.partition(b" ")
        room = look_up(self._rooms, channel)
        if room is None or serial != b"%d" % room.serial or room.begun or room.subscribed_on != self._connection:
            return
        if ban is not None and not room.dropped:
            room.listener.found_ban(room.name, *ban)
        self._arrivals.take_presences(room, now_ms, presences, is_surely=True)

    def _begin(self, data: bytes) -> None:
        """Handle the answer to an announcement.

        The room's members must get all messages after this position, and no earlier one.
        """
        announced = _ANNOUNCED.fullmatch(data)
        if announced is None:
            return  # an empty message, which only wakes the thread
        epoch, number, entry, serial, channel = announced.groups()
        room = look_up(self._rooms, channel)
        if room is None or room.serial != int(serial) or room.begun or room.subscribed_on != self._connection:
            return  # if the channel is not subscribed, the log will be read
        room.position, room.begun, room.has_presences = Position(epoch, int(number), entry), True, True
        if room.keeps_history:
            self._replay.add(room)  # reads the room's history before later messages
        else:
            self._replay.go_live(room)

    def _take_published(self, room: Subscription, data: bytes, is_busy: bool) -> None:
        published = parse_published(data)
        if published is None:
            self._malformed.drop(
                f"{len(data)} bytes that were not published in version {messages.VERSION} of the format"
            )
            return
        position, former, message = published
        decoded = self._arrivals.decode(message)
        if room.position.is_followed_by(position, former):
            room.position = position
            if decoded is not None:
                self._arrivals.handle(room, decoded, is_busy)
        # if the message was seen, it was delivered from the log
        elif decoded is not None and not room.has_seen(decoded, position):
            self._replay.add(room)


def _keep(response: Any) -> Any:
    """Handle a push of RESP3. Returns it to the reader."""
    return response
