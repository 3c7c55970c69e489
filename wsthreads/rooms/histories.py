"""The histories of all rooms of one endpoint, their limits and their lifetimes.

A room has a log of its last messages (`history.Log`). The log begins with the room's first message, first member or
first `position`. The log is dropped once the room has no members and the log was not used for `history_s`. While a
thread holds the lock `order` of a log, neither `has_members` of its room nor `is_gone` changes.

Over a broker, a subclass fills the logs from the broker. The subclass overrides `_make`, `before_join`, `_newest` and
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

#: Expired logs are looked for this many times in `history_s`, but at most once in a second.
LOOKS = 10

#: When there are this many logs, expired logs are dropped. After that, they are dropped when there are twice as many as
#: were left.
MIN_SWEEP = 100

#: The frames of a replay are encoded without the lock of the room. If new messages arrive during each of this many
#: attempts, the frames are encoded with the lock held.
ENCODING_ATTEMPTS = 10

#: A replay may exceed the limit of a client's outbox. But for a client that reads nothing, at most this many bytes are
#: queued.
MAX_EXCUSED_BYTES = 64 * 1024 * 1024

L = TypeVar("L", bound=Log)


class Histories(Generic[L]):
    """The logs of all rooms of one endpoint. Any thread.

    `has_members` tells whether a room has members in this process. The lock that it takes is a leaf: no other is taken
    under it.
    """

    def __init__(self, timers: Timers, limits: Limits, *, has_members: Callable[[str], bool]) -> None:
        #: The clock. Tests replace it by one that they can move.
        self.timers = timers
        self.limits = limits
        self._has_members = has_members
        self._logs: StripedDict[str, L] = StripedDict()
        self._looking = Lock()  # guards _looks; no other lock is taken while it is held
        self._sweep_at = MIN_SWEEP  # at this number of logs, expired logs are dropped
        self._looks = False  # whether a timer is set that will look for expired logs

    def give_up(self) -> None:
        """Forget all logs in a forked process, because the members are those of the parent."""
        self._logs.renew()
        self._looking, self._looks = Lock(), False

    def _make(self) -> L:
        return Log(self.limits, self.timers.now())  # type: ignore[return-value]

    def log(self, name: str) -> L:
        """The log of a room.

        Another thread may drop the log until the caller holds its lock `order` (see `is_gone`).
        """
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
        """A context with the log of a room. Its lock `order` is held."""
        while True:
            log = self.log(name)
            with log.order:
                if not log.is_gone:
                    now = log.used_at = self.timers.now()
                    log.trim(now)
                    yield log
                    return

    def record_of(self, name: str, frame: bytes, exclude_id: str | None) -> Record | None:
        """Make a record of a broadcast for the log of its room.

        Returns None if the log does not store the broadcast.
        """
        if type(frame) is not bytes:
            if not is_kept(frame):
                return None
            frame = bytes(frame)  # without the key of `latest`, because no message of a replay replaces another
        return None if name[0] == "\0" else ((*START, self.timers.now(), frame, exclude_id), 0)

    def record_alone(self, name: str, record: Record) -> bool:
        """Add a broadcast to the log of a room without members.

        Returns False, and adds nothing, if the room has members.
        """
        with self.open(name) as log:
            return not self._has_members(name) and (log.record(record) or True)

    def check(self, history: int | None, since: str | None) -> None:
        """Check the options of `join`. Raises `HistoryError`."""
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
        """Make a session a member, and queue its replay of the history. Both are one step for other threads.

        `enter` makes the session a member. It returns the outbox that receives later broadcasts, or None if the session
        was already a member.
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
        """Called with `order` held, before a session joins that wants a replay.

        May raise an error. May wait, and release `order` during the wait.
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
        """The last messages of a room, oldest first. Each has its number, its age in seconds, and its plain frame.

        Over a broker, this may wait.
        """
        entries = self._newest(name, count)
        now = self.timers.now()
        return [(entry[0], now - entry[2], entry[3]) for entry in entries]

    def position(self, name: str) -> str:
        """The position at the end of a room's log. Makes a log if the room has none."""
        with self.open(name) as log:
            return log.position()

    def sizes(self) -> dict[str, tuple[int, int, float]]:
        """For each room with messages: how many, how many bytes, and the age of the last message in seconds."""
        found = {}
        now = self.timers.now()
        for name, log in self._logs.snapshot().items():
            with log.order:
                log.trim(now)
                if len(log):
                    found[name] = (len(log), log.bytes, now - log.newest(1)[0][2])
        return found

    def size_of(self, name: str) -> tuple[int, int]:
        """How many messages this process's log of a room has, and their bytes. Takes no lock."""
        log = self._logs.get(name)
        return (0, 0) if log is None else (len(log), log.bytes)

    def totals(self) -> tuple[int, int]:
        """How many messages the logs of all rooms have, and their bytes.

        Takes no lock, so a few expired messages may be counted.
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
        """Drop expired logs and expired messages. Called by the flusher, which must not wait."""
        with self._looking:
            self._looks = False
        self._drop_expired()
        if len(self._logs):
            self._look_later()

    def _drop_expired(self) -> None:
        now = self.timers.now()
        for name, log in self._logs.snapshot().items():
            if log.order.acquire(blocking=False):  # otherwise another thread uses the log
                try:
                    log.trim(now)
                    if now - log.used_at >= self.limits.seconds:
                        self._drop_locked(name, log)
                finally:
                    log.order.release()

    def _is_used(self, name: str) -> bool:
        """Whether the log of a room has to be kept."""
        return self._has_members(name)

    def _drop_locked(self, name: str, log: L) -> None:
        """Drop a log, unless its room has members. The caller holds `order`."""
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
