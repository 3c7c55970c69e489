"""The histories of rooms that several processes share.

Redis stores the messages of each history. A process with members in a room has a copy of its own (a `SharedLog`). When
the reader subscribes to the room, it fills the copy up to the last delivered message. After that, it adds each message
to the copy when it delivers the message. So a session joins as in a single process, without a call to Redis. A process
without members in the room asks Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Condition
from typing import TYPE_CHECKING, Any, TypeVar

from wsthreads.brokers.positions import Position, new_epoch
from wsthreads.brokers.scripts import HISTORY
from wsthreads.brokers.stored_history import Stored, limits_text, parse_kept, parse_limits
from wsthreads.errors import BrokerError, HistoryError
from wsthreads.rooms.histories import OFF, Histories, check_count, messages_of
from wsthreads.rooms.history import Entry, Limits, Log, Record, is_kept, payload_bytes
from wsthreads.rooms.joined import Joined
from wsthreads.rooms.striped import StripedDict

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Link, Listener
    from wsthreads.protocol.outbox import Outbox
    from wsthreads.threads.flusher import Timers

__all__ = ["SharedHistories", "StoredHistory"]

R = TypeVar("R")


class SharedLog(Log):
    """A process's copy of a room's history. The process has it while it has members in the room."""

    __slots__ = ("awaiting", "filled", "is_filled", "serial", "was_filled")

    def __init__(self, limits: Limits, now: float) -> None:
        super().__init__(limits, now)
        #: The serial number of the subscription that received these messages.
        self.serial = 0
        #: Whether the copy has all entries up to the last delivered message.
        self.is_filled = False
        #: Whether the copy had all entries once, but may have missed some since then. The reader fills it again as soon
        #: as Redis is available.
        self.was_filled = False
        #: Wakes threads that wait until the copy is filled, or has an entry. Uses the lock `order`.
        self.filled = Condition(self.order)
        #: How many threads wait for an entry.
        self.awaiting = 0

    def follow(self, serial: int) -> bool:
        """Accept messages of this subscription from now on.

        Returns false if the current subscription is a later one.
        """
        if serial > self.serial:
            self.serial, self.is_filled, self.was_filled = serial, False, False
        return serial == self.serial

    def record(self, record: Record) -> bool:
        entry, serial = record
        if serial != self.serial and not self.follow(serial):
            return False  # from an earlier subscription: the log already has the record, or does not need it
        if self.is_filled:
            self._append(entry)
            if self.awaiting:
                self.filled.notify_all()
        return True

    def await_entry(self, number: int, timeout_s: float) -> None:
        """Wait until the log has the entry with this number, or is incomplete."""
        self.awaiting += 1
        self.filled.wait_for(lambda: self._last[0] >= number or not self.is_filled, timeout_s)
        self.awaiting -= 1

    def fill(self, stored: Stored, now: float) -> None:
        self.replace(stored.epoch, stored.last, stored.floor, stored.at(now), now)
        self.is_filled = self.was_filled = True
        self.filled.notify_all()


class SharedHistories(Histories[SharedLog]):
    """The copies of the histories of one endpoint's rooms, in this process. Any thread."""

    def __init__(
        self,
        timers: Timers,
        limits: Limits,
        *,
        has_members: Callable[[str], bool],
        path: str,
        link: Link,
        listener: Listener,
    ) -> None:
        super().__init__(timers, limits, has_members=has_members)
        self._limits_text = limits_text(limits)
        self._path = path
        self._link = link
        self._listener = listener
        # How many sessions are about to join each room. Meanwhile, this process receives the room's messages and keeps
        # its log.
        self._joining: StripedDict[str, int] = StripedDict()

    def give_up(self) -> None:
        super().give_up()
        self._joining.renew()

    def _make(self) -> SharedLog:
        return SharedLog(self.limits, self.timers.now())

    # Outgoing messages

    def kept(self, name: str, frame: bytes) -> tuple[str, int] | None:
        """What Redis needs to store a broadcast in the history: the limits, and the size.

        None if the history does not store it.
        """
        if name[0] == "\0" or (type(frame) is not bytes and not is_kept(frame)):
            return None
        return self._limits_text, payload_bytes(frame)

    # Incoming messages, in the reader's thread

    def received(
        self, name: str, frame: bytes, exclude_id: str | None, serial: int, position: Position
    ) -> Record | None:
        """A record of a broadcast that has come back; None if the log does not store it. Must be fast."""
        if type(frame) is not bytes:
            if not is_kept(frame):
                return None
            frame = bytes(frame)
        if name[0] == "\0":
            return None
        return (position.number, position.id.decode(), self.timers.now(), frame, exclude_id), serial

    def record_alone(self, name: str, record: Record) -> bool:
        return self._logs.get(name) is None or super().record_alone(name, record)

    def take(self, name: str, serial: int, stored: Stored) -> None:
        with self.open(name) as log:
            if log.follow(serial):
                log.fill(stored, self.timers.now())
            self._drop_locked(name, log)

    def lose(self, name: str, serial: int) -> None:
        with self.open(name) as log:
            if log.follow(serial):
                log.is_filled = False
            self._drop_locked(name, log)

    # Sessions that join and leave

    def is_joining(self, name: str) -> bool:
        """Whether a session is about to join a room. Under the lock that this takes, no other lock is taken."""
        return name in self._joining

    def _is_used(self, name: str) -> bool:
        """Whether the log of a room is still used, because this process is subscribed to the room.

        The subscription may continue after the last member has left, for a session that is about to join. The log must
        then stay, too, because the reader fills it only once for each subscription.
        """
        return self._has_members(name) or self._link.is_subscribed(self._path, name)

    def join(
        self,
        name: str,
        session: Any,
        enter: Callable[[Log], tuple[Joined, Outbox | None]],
        history: int | None,
        since: str | None,
    ) -> Joined:
        if not (history or since is not None) or session._ended or name in session._joined:
            return super().join(name, session, enter, history, since)
        with self._receiving(name):
            if since is not None:
                self._catch_up(name, since)
            return super().join(name, session, enter, history, since)

    def _catch_up(self, name: str, since: str) -> None:
        """Wait until this process has received the message at a position.

        Another process may have received it a little earlier, and given the position to a client.

        A position comes from a client. So this first asks Redis whether there is a message at this position.
        """
        patience_s = self._link.patience_s(self._path, name)
        with self.open(name) as log:
            log.filled.wait_for(lambda: log.is_filled, patience_s)
            number = log.number_of(since)
            if number is None or number <= log.last.number:
                return
        with suppress(BrokerError):  # without an answer, the position is treated like one in another log
            if number <= self._stored(name, 0).last.number:
                with self.open(name) as log:
                    log.await_entry(number, patience_s)

    @contextmanager
    def _receiving(self, name: str) -> Iterator[None]:
        """In this context, the process receives the messages of a room, even if the room has no members yet."""
        self._joining.compute(name, lambda count: (count or 0) + 1)
        try:
            serial = self._link.update(self._path, name, self._listener)
            with self.open(name) as log:
                log.follow(serial)
            yield
        finally:
            self._joining.compute(name, lambda count: count - 1 if count and count > 1 else None)

    def before_join(self, name: str, log: SharedLog) -> None:
        if not log.filled.wait_for(lambda: log.is_filled, self._link.patience_s(self._path, name)):
            raise BrokerError(
                f"the session has not joined the room {name!r:.80}: the room's history is not available now"
            )

    def unsubscribed(self, name: str) -> None:
        """Called when the subscription to a room has ended. Drops the log, unless the room has a new subscription."""
        log = self._logs.get(name)
        if log is not None:
            with log.order:
                self._drop_locked(name, log)

    # Queries

    def _newest(self, name: str, count: int) -> list[Entry]:
        return self._ask(name, count, lambda log: log.newest(count))

    def position(self, name: str) -> str:
        return self._ask(name, 0, lambda log: log.position())

    def _ask(self, name: str, count: int, read: Callable[[Log], R]) -> R:
        """Call `read` with this process's log.

        If this process has no complete log, call it with the history from Redis.

        Returns the result of `read`. Raises `BrokerError`.
        """
        with self._own(name) as log:
            if log is not None and log.is_filled:
                return read(log)
        try:
            return read(self._stored(name, count))
        except BrokerError:
            with self._own(name) as log:
                if log is not None and log.was_filled:
                    return read(log)
            raise

    @contextmanager
    def _own(self, name: str) -> Iterator[SharedLog | None]:
        """A context with this process's log.

        The room's lock `order` is held in this context. Gives None if this process is not subscribed to the room.

        First waits until the log has all earlier broadcasts of this process.
        """
        self._link.pending.wait_room((self._path, name))
        serial, log = self._link.serial(self._path, name), self._logs.get(name)
        if log is None or not serial:
            yield None
            return
        with log.order:
            if log.is_gone or log.serial != serial:
                yield None
                return
            log.trim(self.timers.now())
            yield log

    def _stored(self, name: str, count: int) -> Log:
        """Returns the history from Redis. It has all earlier broadcasts of this process.

        Waits at most a second. Raises `BrokerError`.
        """
        self._link.wait_published(self._path, name)
        keys = ["log", "head", "history", "settings"]
        answer = self._link.call(self._path, name, HISTORY, keys, new_epoch(), self._limits_text, count)
        return _log_of(answer, self.timers.now())


class StoredHistory:
    """The history of one room, for a program without a server. `call` runs a script for the room."""

    def __init__(self, call: Callable[..., Any], limits: str) -> None:
        self._call = call
        self._limits = limits

    def newest(self, count: int) -> list[str | bytes]:
        check_count(count, 10_000)
        limits, log = self._log(count)
        check_count(count, limits.messages)
        return messages_of(log.newest(count))

    def position(self) -> str:
        return self._log(0)[1].position()

    def _log(self, count: int) -> tuple[Limits, Log]:
        answer = self._call(HISTORY, new_epoch(), self._limits, count)
        if not answer[0]:
            raise HistoryError(f"{OFF} for the endpoint, and start its server")
        return parse_limits(answer[0]), _log_of(answer, 0.0)


def _log_of(answer: list[Any], now: float) -> Log:
    """A log from the answer of the script `HISTORY`."""
    limits, epoch, kept, now_ms, entries = answer
    stored = parse_kept(epoch, kept, entries, int(now_ms), lambda what: None)
    log = Log(parse_limits(limits), now)
    log.replace(stored.epoch, stored.last, stored.floor, stored.at(now), now)
    return log
