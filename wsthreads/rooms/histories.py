"""The histories of all rooms of one endpoint, their limits and their lifetimes.

A room has a log from its first message, first member or first `position` on. The log is dropped once the room has no
members and the log was not used for `history_s`. While a log's `order` is held, neither `has_members` of its room nor
`is_gone` changes.

Over a broker, a subclass fills the logs from the broker. It overrides `_make`, `before_join`, `_newest` and
`position`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from wsthreads.errors import HistoryError, brief
from wsthreads.rooms.history import START, Entry, Limits, Log, Record, is_kept, message_of
from wsthreads.rooms.joined import Joined
from wsthreads.rooms.striped import StripedDict
from wsthreads.threads.flusher import Timers, weakly

if TYPE_CHECKING:
    from wsthreads.protocol.outbox import Outbox

__all__ = ["MAX_EXCUSED_BYTES", "OFF", "Histories", "check_count", "check_since"]

OFF = "history is off: set history_messages"

#: Look for expired logs this many times in `history_s`, but at most once a second.
LOOKS = 10

#: Once there are this many logs, expired logs are dropped. The next time is when there are twice as many as were left.
MIN_SWEEP = 100

#: A replay is encoded without the room's lock. If new messages came during this many attempts, it is encoded under the
#: lock.
ENCODING_ATTEMPTS = 10

#: A replay may exceed the limit of a client's outbox. For a client that reads nothing, at most this many bytes are
#: queued.
MAX_EXCUSED_BYTES = 64 * 1024 * 1024

L = TypeVar("L", bound=Log)


class Histories(Generic[L]):
    """The logs of all rooms of one endpoint. Any thread.

    `has_members` says whether a room has members in this process. It takes only a leaf lock.
    """

    def __init__(self, timers: Timers, limits: Limits, *, has_members: Callable[[str], bool]) -> None:
        #: Tests that move the clock replace this.
        self.timers = timers
        self.limits = limits
        self._has_members = has_members
        self._logs: StripedDict[str, L] = StripedDict()
        self._looking = Lock()  # guards _looks; a leaf lock
        self._sweep_at = MIN_SWEEP  # at this number of logs, expired ones are dropped
        self._looks = False  # whether a timer will look for logs that have expired

    def give_up(self) -> None:
        """Forget the members' logs in a forked process, because the members are the parent's."""
        self._logs.renew()
        self._looking, self._looks = Lock(), False

    def _make(self) -> L:
        return Log(self.limits, self.timers.now())  # type: ignore[return-value]

    def log(self, name: str) -> L:
        """The log of a room. Until the caller holds its `order`, another thread may drop the log: see `is_gone`."""
        found = self._logs.get(name)
        if found is None:
            if len(self._logs) >= self._sweep_at:  # in a process without sessions, no timers run
                self._drop_expired()
                self._sweep_at = max(MIN_SWEEP, 2 * len(self._logs))
            found = self._logs.compute(name, lambda log: log or self._make())
            assert found is not None
            self._look_later()
        return found

    @contextmanager
    def open(self, name: str) -> Iterator[L]:
        """The log of a room, with its `order` held."""
        while True:
            log = self.log(name)
            with log.order:
                if not log.is_gone:
                    now = log.used_at = self.timers.now()
                    log.trim(now)
                    yield log
                    return

    def record_of(self, name: str, frame: bytes, exclude_id: str | None) -> Record | None:
        """A record of a broadcast for the log of its room; None if the log does not store it."""
        if type(frame) is not bytes:
            if not is_kept(frame):
                return None
            frame = bytes(frame)  # without the key of `latest`: in a replay, no message replaces another
        return None if name[0] == "\0" else ((*START, self.timers.now(), frame, exclude_id), 0)

    def record_alone(self, name: str, record: Record) -> bool:
        """Add a broadcast to the log of a room without members.

        Returns False, without any effect, if the room has members.
        """
        with self.open(name) as log:
            return not self._has_members(name) and (log.record(record) or True)

    def check(self, history: int | None, since: str | None) -> None:
        """Raise `HistoryError` for invalid options of `join`."""
        if history is not None:
            check_count(history, self.limits.messages)
        check_since(since)

    def join(
        self,
        name: str,
        session: Any,
        enter: Callable[[Log], tuple[Joined, Outbox | None]],
        history: int | None,
        since: str | None,
    ) -> Joined:
        """Make a session a member, and queue its replay of the history, in one step.

        `enter` makes the session a member. It returns the outbox that later broadcasts reach, or None if the session
        was a member already.
        """
        is_asked = bool(history) or since is not None
        attempts = ENCODING_ATTEMPTS if is_asked else 0
        encoding = session._outbox.encoding
        while True:
            with self.open(name) as log:
                entries: list[Entry] = []
                complete = True
                if is_asked and name not in session._joined and not session._ended:
                    self.before_join(name, log)
                    entries, complete = log.replay(history or 0, since, session.id)
                missing = log.unencoded(encoding, entries) if attempts > 0 else []
                if not missing:
                    joined, outbox = enter(log)
                    if outbox is None or not joined.joined:
                        return joined
                    frames = log.frames(encoding, entries)
                    _append(outbox, frames)
                    break
            encoded = {entry[0]: encoding.frame(entry[3]) for entry in missing}
            attempts -= 1
            with log.order:
                log.learn(encoding, encoded)
        if frames:
            outbox.flush()
        return Joined(joined.joined, complete)

    def before_join(self, name: str, log: L) -> None:
        """Called before a session with a replay joins, with `order` held.

        May raise. May wait, and release `order` meanwhile.
        """

    def newest(self, name: str, count: int) -> list[str | bytes]:
        """The last messages of a room, oldest first. Raises `HistoryError`."""
        check_count(count, self.limits.messages)
        return messages_of(self._newest(name, count))

    def _newest(self, name: str, count: int) -> list[Entry]:
        if self._logs.get(name) is None:
            return []
        with self.open(name) as log:
            return log.newest(count)

    def recent(self, name: str, count: int) -> list[tuple[int, float, bytes]]:
        """The last messages of a room, oldest first: number, age in seconds, plain frame. Over a broker, may wait."""
        entries = self._newest(name, count)
        now = self.timers.now()
        return [(entry[0], now - entry[2], entry[3]) for entry in entries]

    def position(self, name: str) -> str:
        """The position at the end of a room's log. Makes the log if there is none."""
        with self.open(name) as log:
            return log.position()

    def sizes(self) -> dict[str, tuple[int, int, float]]:
        """For each room with messages: the number of messages, their bytes, and the age of the last message."""
        found = {}
        now = self.timers.now()
        for name, log in self._logs.snapshot().items():
            with log.order:
                log.trim(now)
                if len(log):
                    found[name] = (len(log), log.bytes, now - log.newest(1)[0][2])
        return found

    def size_of(self, name: str) -> tuple[int, int]:
        """The number of messages in this process's log of a room, and their bytes. Takes no lock."""
        log = self._logs.get(name)
        return (0, 0) if log is None else (len(log), log.bytes)

    def totals(self) -> tuple[int, int]:
        """The number of messages of all rooms, and their bytes.

        Takes no lock, so expired messages may count for a moment.
        """
        logs = self._logs.snapshot().values()
        return sum(map(len, logs)), sum(log.bytes for log in logs)

    def _look_later(self) -> None:
        with self._looking:
            if self._looks:
                return
            self._looks = True
        self.timers.call_later(max(self.limits.seconds / LOOKS, 1.0), weakly(self._look))

    def _look(self) -> None:
        """Drop the logs that have expired, and old messages. Called by the flusher, which must not wait."""
        with self._looking:
            self._looks = False
        self._drop_expired()
        if len(self._logs):
            self._look_later()

    def _drop_expired(self) -> None:
        now = self.timers.now()
        for name, log in self._logs.snapshot().items():
            if log.order.acquire(blocking=False):  # else another thread uses the log
                try:
                    log.trim(now)
                    if now - log.used_at >= self.limits.seconds:
                        self._drop_locked(name, log)
                finally:
                    log.order.release()

    def _is_used(self, name: str) -> bool:
        """Whether the log of a room has to stay."""
        return self._has_members(name)

    def _drop_locked(self, name: str, log: L) -> None:
        """Drop a log unless the room has members. Its `order` is held."""
        if not log.is_gone and not self._is_used(name):
            log.is_gone = True
            self._logs.compute_if_present(name, lambda other: None if other is log else other)

    def _check(self) -> None:
        """Check the invariants, for tests."""
        for log in self._logs.snapshot().values():
            with log.order:
                assert not log.is_gone
                log._check()


def _append(outbox: Outbox, frames: list[bytes]) -> None:
    """Queue a replay, which may be larger than the outbox's limit."""
    if frames:
        outbox.excuse_more(sum(map(len, frames)), MAX_EXCUSED_BYTES)
        for frame in frames:
            outbox.append(frame)


def messages_of(entries: list[Entry]) -> list[str | bytes]:
    return [message_of(entry[3]) for entry in entries]


def check_count(count: object, most: int) -> None:
    """Raise `HistoryError` for anything but a whole number from 0 to `most`."""
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= most:
        raise HistoryError(f"history must be a whole number from 0 to {most} (history_messages), not {brief(count)}")


def check_since(since: object) -> None:
    """Raise `HistoryError` for anything but text."""
    if since is not None and not isinstance(since, str):
        raise HistoryError(f"since must be a position, which is text, not {type(since).__name__}")
