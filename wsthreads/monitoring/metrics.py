"""Counters and histograms: events, durations, and the traffic of each connection and each endpoint.

No count is lost if threads count at the same time. Counting a message needs no extra lock: the thread of a connection
counts incoming messages, and the thread that holds the lock of the outbox counts outgoing messages. `_speedups` has
`Tally` and `Histogram` in C.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import sub
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from wsthreads._native import speedups

__all__ = ["BOUNDS_S", "Counted", "Distribution", "Histogram", "Ledger", "Metrics", "Tally", "Totals", "Traffic"]

#: The upper bounds of a histogram's buckets, in seconds. After the last bound, there is one more bucket without a
#: bound.
BOUNDS_S = (
    *(1e-5, 2.5e-5, 5e-5),
    *(1e-4, 2.5e-4, 5e-4),
    *(1e-3, 2.5e-3, 5e-3),
    *(0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0),
    10.0,
)  # fmt: skip


#: The additions to counters are summed up when there are this many, and when a counter is read.
MAX_ADDED = 100


class Traffic(NamedTuple):
    """The traffic of one connection at one time.

    Messages are text and binary messages. Bytes are the bytes of all WebSocket frames on the wire, including their
    headers, pings, pongs and close frames. Compressed messages count with their compressed size. The HTTP handshake and
    TLS do not count.
    """

    messages_in: int
    bytes_in: int
    #: Messages that were queued to be written, without those that a later message with the same key (`latest`) has
    #: replaced. If a slow client is closed, it does not receive the last of the queued messages.
    messages_out: int
    #: Bytes that the kernel has accepted.
    bytes_out: int
    #: Bytes that the kernel has not accepted yet.
    bytes_waiting: int
    #: The time from the server's last ping to its pong. None before the first pong. Includes the delays of a busy
    #: server.
    round_trip_s: float | None
    #: Messages that were replaced by a later message with the same key before they were written.
    latest_replaced: int = 0
    #: The bytes of messages that are kept because the client has not acknowledged them, and of messages that wait.
    unacknowledged_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Distribution:
    """The state of a `Histogram` at one time."""

    #: `counts[i]` is the number of durations up to `BOUNDS_S[i]` and above the bound before. The last number is for
    #: durations above all bounds.
    counts: tuple[int, ...]
    total_s: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    def since(self, earlier: Distribution) -> Distribution:
        """Returns the difference to `earlier`, a snapshot of the same histogram."""
        counts = (*map(sub, self.counts, earlier.counts),)
        return Distribution(counts, self.total_s - earlier.total_s)

    def quantile(self, q: float) -> float | None:
        """Returns an estimate of the quantile `q` (0 to 1) in seconds. None if the histogram is empty.

        The estimate is as exact as the buckets are. If the quantile is above the last bound, the result is this bound.

        >>> Distribution((0,) * 6 + (100,) + (0,) * 13, 0.08).quantile(0.5)
        0.00075
        """
        left = q * self.count
        if not self.count:
            return None
        low = 0.0
        for count, high in zip(self.counts, BOUNDS_S, strict=False):
            if count and left <= count:
                return low + (high - low) * left / count
            left -= count
            low = high
        return BOUNDS_S[-1]


class Tally:
    """The counts of an outbox (the queue of frames for a client): how many messages and bytes were sent.

    The base class of `Outbox`. Guarded by the outbox's lock.
    """

    __slots__ = ("bytes_out", "kept_bytes", "messages_out", "window")

    messages_out: int
    bytes_out: int
    #: For an outbox that keeps messages until they are acknowledged: how many bytes are written and not acknowledged,
    #: and the limit for these.
    kept_bytes: int
    window: int


class Histogram:
    """Counts durations in buckets with the bounds `BOUNDS_S`. Any thread."""

    __slots__ = ("_counts", "_lock", "_total_s")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._total_s = 0.0
        self._lock = Lock()  # guards the counts and the sum; a leaf lock: no other lock is taken while it is held

    def observe(self, seconds: float) -> None:
        """Count one duration. Raises ValueError for 1e9 seconds or more."""
        if not seconds < 1e9:
            raise ValueError("observe(seconds: fewer than 1e9)")
        seconds = max(0.0, seconds)
        bucket = bisect_left(BOUNDS_S, seconds)
        with self._lock:
            self._counts[bucket] += 1
            self._total_s += seconds

    def call(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        """Call ``function(*arguments)``, and count the duration of the call, even if it raises an exception."""
        began = monotonic()
        try:
            return function(*arguments)
        finally:
            self.observe(monotonic() - began)

    def snapshot(self) -> tuple[tuple[int, ...], float]:
        """Returns the arguments for a `Distribution`."""
        with self._lock:
            return tuple(self._counts), self._total_s


_PYTHON = (Tally, Histogram)  # the Python versions, for tests
if not TYPE_CHECKING and speedups is not None:
    Tally, Histogram = speedups.Tally, speedups.Histogram


class Metrics:
    """Named counters that only grow, and histograms. Any thread.

    Counters are for events, not for every message. `add` also adds to the `parent`, if there is one. A finalizer may
    call `add` at any time, even inside another `add`, because `add` only tries to take the lock, and never waits.
    """

    __slots__ = ("_added", "_counts", "_histograms", "_lock", "_parent")

    def __init__(self, parent: Metrics | None = None) -> None:
        self._parent = parent
        self._added: deque[tuple[str, int]] = deque()  # additions that are not summed up yet; every thread appends
        self._counts: Counter[str] = Counter()  # the sums, without the additions in _added
        self._histograms: dict[str, Histogram] = {}
        self._lock = Lock()  # guards both, and the removal from _added; a leaf lock: nothing is called while it is held

    def add(self, name: str, amount: int = 1) -> None:
        self._added.append((name, amount))
        if len(self._added) > MAX_ADDED and self._lock.acquire(False):
            try:
                self._sum_up_locked()
            finally:
                self._lock.release()
        if self._parent is not None:
            self._parent.add(name, amount)

    def snapshot(self) -> dict[str, int]:
        """Returns a copy of all counters that are not 0."""
        with self._lock:
            self._sum_up_locked()
            return dict(self._counts)

    def _sum_up_locked(self) -> None:
        for _ in range(len(self._added)):
            name, amount = self._added.popleft()
            self._counts[name] += amount

    def histogram(self, name: str) -> Histogram:
        """Returns the histogram with this name. Creates it if it does not exist yet."""
        with self._lock:
            return self._histograms.setdefault(name, Histogram())

    def distributions(self) -> dict[str, Distribution]:
        """Returns the state of all histograms that are not empty."""
        with self._lock:
            histograms = dict(self._histograms)
        found = {name: Distribution(*histogram.snapshot()) for name, histogram in histograms.items()}
        return {name: distribution for name, distribution in found.items() if distribution.count}


@dataclass(frozen=True, slots=True)
class Totals:
    """The numbers of one endpoint: current values, and sums since the process began. The sums never decrease."""

    sessions: int = 0
    opened: int = 0
    #: For each close code: how many sessions have ended with it.
    closed: dict[int, int] = field(default_factory=dict)
    #: The sums of the fields of `Traffic` for all sessions, including ended ones.
    messages_in: int = 0
    bytes_in: int = 0
    messages_out: int = 0
    bytes_out: int = 0
    latest_replaced: int = 0
    #: The current value.
    bytes_waiting: int = 0
    unacknowledged_bytes: int = 0
    #: How many sessions have lost their connections and wait for their clients. They are also counted in `sessions`.
    suspended: int = 0
    #: How many rooms have members in this process.
    rooms: int = 0
    #: How many memberships there are in this process. A session in three rooms counts three times.
    members: int = 0
    #: How many users have sessions in this process. A user with sessions in two processes counts in each of them.
    users: int = 0
    #: How many broadcasts have reached a member in this process. Over Redis, each process counts the broadcasts that it
    #: receives.
    broadcasts: int = 0
    #: How many messages the broadcasts have put into outboxes.
    deliveries: int = 0
    #: How many errors the handler has had: exceptions, exceeded deadlines, unhandled promise rejections.
    errors: int = 0
    #: The durations of calls, by the name of the function in Python's spelling, such as ``on_message``. A call of an
    #: async function ends when its promise settles.
    handler_seconds: dict[str, Distribution] = field(default_factory=dict)
    #: For each pair of an HTTP status and a cause: how many handshakes were refused.
    refused: dict[tuple[int, str], int] = field(default_factory=dict)
    #: The endpoint's `Metrics`.
    counters: dict[str, int] = field(default_factory=dict)
    #: The times from pings to their pongs.
    round_trips: Distribution | None = None
    #: How many rooms this process owns now.
    owned_rooms: int = 0
    #: How many posts (values for a room) wait for the handler in the rooms that this process owns.
    posts_waiting: int = 0
    #: How many messages are in the histories of rooms in this process, and how many bytes. None if the history is off.
    history_messages: int | None = None
    history_bytes: int | None = None
    #: How late the ticks of rooms (regular calls of `on_tick`) were.
    tick_lags: Distribution | None = None
    #: How long test calls, called probes, had to wait for other calls of the script. While there are sessions, there is
    #: one probe per second. None for a handler in Python.
    script_waits: Distribution | None = None
    #: The median and the longest wait of a probe in the last minute.
    script_wait_p50_s: float | None = None
    script_wait_max_s: float | None = None


class Counted(Protocol):
    """The part of a session that a `Ledger` uses."""

    #: The number that `Ledger.end` has given to the session: 1 for the first session that has ended. 0 before the end.
    end_number: int

    def traffic(self) -> Traffic:
        """Returns the session's traffic since it began."""


class Ledger:
    """The sums of one endpoint's traffic, including ended sessions, and of its refused handshakes. Any thread.

    At any moment, each session is counted exactly once. A session that ends is first added here by `end`, and then
    removed from the list of sessions. `sum` first reads that list, and then the sums of the ended sessions. So no
    session is missing. A session that is in both already has an `end_number`, and `sum` skips it in the list.
    """

    def __init__(self) -> None:
        self._lock = Lock()  # guards the rest; a leaf lock: no other lock is taken while it is held
        self._opened = 0
        self._closed: Counter[int] = Counter()
        self._refused: Counter[tuple[int, str]] = Counter()
        # These are lists, not tuples, because CPython fails to build a tuple from an iterator while another thread
        # calls gc.get_objects().
        self._ended = [0, 0, 0, 0, 0]  # the sums of the first four fields of `Traffic`, and of the last field
        self._ends = 0
        self._highest = [0] * 7

    def begin(self) -> None:
        with self._lock:
            self._opened += 1

    def refuse(self, status: int, cause: str) -> None:
        with self._lock:
            self._refused[status, cause] += 1

    def end(self, code: int | None, session: Counted) -> None:
        """Count a session that has ended with a close code. `code` is None if it has moved to another process.

        Does nothing if the end of this session was counted before.
        """
        traffic = session.traffic()
        with self._lock:
            if session.end_number:
                return
            self._ends += 1
            session.end_number = self._ends
            if code is not None:
                self._closed[code] += 1
            ended = (*traffic[:4], traffic.latest_replaced)
            self._ended = [before + more for before, more in zip(self._ended, ended, strict=True)]

    def sum(self, living: Iterable[Counted], rooms: Callable[[], tuple[int, int, int, int]], **more: Any) -> Totals:
        """Returns the `Totals` of ended sessions and of `living` sessions, which is a copy of the list of sessions.

        `rooms` returns the numbers of rooms, members, broadcasts and deliveries.
        """
        with self._lock:
            opened, closed, refused, ends = self._opened, dict(self._closed), dict(self._refused), self._ends
            messages_in, bytes_in, messages_out, bytes_out, replaced = self._ended
        sessions = bytes_waiting = unacknowledged_bytes = 0
        for session in living:
            if 0 < session.end_number <= ends:
                continue
            traffic = session.traffic()
            more_in, more_bytes_in, more_out, more_bytes_out, waiting, _, more_replaced, unacknowledged = traffic
            messages_in += more_in
            bytes_in += more_bytes_in
            messages_out += more_out
            bytes_out += more_bytes_out
            replaced += more_replaced
            bytes_waiting += waiting
            unacknowledged_bytes += unacknowledged
            sessions += 1
        room_count, members, broadcasts, deliveries = rooms()
        sums = (messages_in, bytes_in, messages_out, bytes_out, replaced, broadcasts, deliveries)
        with self._lock:
            self._highest = list(map(max, self._highest, sums))
            messages_in, bytes_in, messages_out, bytes_out, replaced, broadcasts, deliveries = self._highest
        return Totals(
            sessions=sessions, opened=opened, closed=closed, refused=refused, bytes_waiting=bytes_waiting,
            messages_in=messages_in, bytes_in=bytes_in, messages_out=messages_out, bytes_out=bytes_out,
            latest_replaced=replaced, unacknowledged_bytes=unacknowledged_bytes,
            rooms=room_count, members=members, broadcasts=broadcasts, deliveries=deliveries, **more,
        )  # fmt: skip
