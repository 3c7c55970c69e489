"""What is counted: events, how long things took, and what went through each connection and endpoint.

Nothing that is counted gets lost, whatever threads do at once. What is counted for every message takes no lock of its
own: a connection's thread counts what comes in, whoever holds its outbox's lock counts what goes out. `_speedups` has
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
from typing import TYPE_CHECKING, Any, NamedTuple

from wsthreads._native import speedups

__all__ = ["BOUNDS_S", "Distribution", "Histogram", "Ledger", "Metrics", "Tally", "Totals", "Traffic"]

#: Upper bounds of a histogram's buckets, in seconds; the last bucket has none.
BOUNDS_S = (
    *(1e-5, 2.5e-5, 5e-5),
    *(1e-4, 2.5e-4, 5e-4),
    *(1e-3, 2.5e-3, 5e-3),
    *(0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0),
    10.0,
)  # fmt: skip


#: What is added to counters is summed up when this much has come together, and when somebody looks.
MAX_ADDED = 100


class Traffic(NamedTuple):
    """What has gone through one connection, as `Connection.traffic` found it.

    Messages are text and binary ones. Bytes are those of WebSocket frames, as on the wire: with their headers, deflated
    where that was agreed on, pings, pongs and close frames included; without the HTTP handshake and TLS.
    """

    messages_in: int
    bytes_in: int
    #: Handed over to be written. Where a slow client is closed, it does not get the last of them.
    messages_out: int
    #: Taken by the kernel.
    bytes_out: int
    #: Not taken by the kernel yet.
    bytes_waiting: int
    #: From the last ping of ours to its pong; None until there was one. What the server was busy with is in it.
    round_trip_s: float | None


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a `Histogram` held at one moment."""

    #: How many took at most `BOUNDS_S[i]`, and more than the bound before; and one more for all that took longer.
    counts: tuple[int, ...]
    total_s: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    def since(self, earlier: Distribution) -> Distribution:
        """What has come in since `earlier`, of the same histogram."""
        counts = (*map(sub, self.counts, earlier.counts),)
        return Distribution(counts, self.total_s - earlier.total_s)

    def quantile(self, q: float) -> float | None:
        """About how many seconds a share `q` (0 to 1) took at most; None where there is nothing.

        It lies within the right bucket; of what took longer than the last bound, that bound is told.

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
    """What has gone out of an outbox, which begins with it; guarded by the outbox's lock."""

    __slots__ = ("bytes_out", "messages_out")

    messages_out: int
    bytes_out: int


class Histogram:
    """How many things took how long, by `BOUNDS_S`. Any thread."""

    __slots__ = ("_counts", "_lock", "_total_s")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._total_s = 0.0
        self._lock = Lock()  # guards both; a leaf

    def observe(self, seconds: float) -> None:
        """Count something that took so long. Raises ValueError past 1e9."""
        if not seconds < 1e9:
            raise ValueError("observe(seconds: fewer than 1e9)")
        seconds = max(0.0, seconds)
        bucket = bisect_left(BOUNDS_S, seconds)
        with self._lock:
            self._counts[bucket] += 1
            self._total_s += seconds

    def call(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        """``function(*arguments)``; how long it took is counted, also if it raises."""
        began = monotonic()
        try:
            return function(*arguments)
        finally:
            self.observe(monotonic() - began)

    def snapshot(self) -> tuple[tuple[int, ...], float]:
        """What makes a `Distribution`."""
        with self._lock:
            return tuple(self._counts), self._total_s


_PYTHON = (Tally, Histogram)  # for tests
if not TYPE_CHECKING and speedups is not None:
    Tally, Histogram = speedups.Tally, speedups.Histogram


class Metrics:
    """Named counters that only grow, and histograms. Any thread.

    Counters are for events, not for every message. What is added to one with a `parent` is added there, too.
    A finalizer may call `add` at any point, even of another `add`: it takes no lock but by trying.
    """

    __slots__ = ("_added", "_counts", "_histograms", "_lock", "_parent")

    def __init__(self, parent: Metrics | None = None) -> None:
        self._parent = parent
        self._added: deque[tuple[str, int]] = deque()  # appended to by anybody
        self._counts: Counter[str] = Counter()  # without _added
        self._histograms: dict[str, Histogram] = {}
        self._lock = Lock()  # guards the last two, and taking from _added; a leaf, nothing is called under it

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
        """A copy of all counters; one that was never added to is missing."""
        with self._lock:
            self._sum_up_locked()
            return dict(self._counts)

    def _sum_up_locked(self) -> None:
        for _ in range(len(self._added)):
            name, amount = self._added.popleft()
            self._counts[name] += amount

    def histogram(self, name: str) -> Histogram:
        """The histogram of that name, which is made if there is none."""
        with self._lock:
            return self._histograms.setdefault(name, Histogram())

    def distributions(self) -> dict[str, Distribution]:
        """What is in the histograms; one with nothing in it is missing."""
        with self._lock:
            histograms = dict(self._histograms)
        found = {name: Distribution(*histogram.snapshot()) for name, histogram in histograms.items()}
        return {name: distribution for name, distribution in found.items() if distribution.count}


@dataclass(frozen=True, slots=True)
class Totals:
    """What one endpoint has now, and has had since the process began. Those that only grow never fall back."""

    sessions: int = 0
    opened: int = 0
    #: Close code -> sessions.
    closed: dict[int, int] = field(default_factory=dict)
    #: As in `Traffic`, those of ended sessions included.
    messages_in: int = 0
    bytes_in: int = 0
    messages_out: int = 0
    bytes_out: int = 0
    #: Now.
    bytes_waiting: int = 0
    #: Now, with members in this process.
    rooms: int = 0
    #: Now, in this process: who is in three rooms counts three times.
    members: int = 0
    #: That met a member in this process. Over Redis each process counts those that come to it.
    broadcasts: int = 0
    #: Messages that these have left in outboxes.
    deliveries: int = 0
    #: Of the handler: exceptions, deadlines, promises rejected with nobody to handle it.
    errors: int = 0
    #: By function, in Python's spelling, such as ``on_message``. An async function's time ends with its promise.
    handler_seconds: dict[str, Distribution] = field(default_factory=dict)
    #: Handshakes: (HTTP status, cause) -> how many.
    refused: dict[tuple[int, str], int] = field(default_factory=dict)
    #: The endpoint's `Metrics`.
    counters: dict[str, int] = field(default_factory=dict)
    #: From pings to their pongs.
    round_trips: Distribution | None = None


class Ledger:
    """What the sessions of one endpoint have sent and received, those that have ended included, and who was refused.
    Any thread.

    Who ends is taken from the living ones first, and then put in here with `end`; `sum` reads in the other order. So
    somebody may be missing for a moment, in which the sums stay as they were, and nobody is counted twice.
    """

    def __init__(self) -> None:
        self._lock = Lock()  # guards the rest; a leaf
        self._opened = 0
        self._closed: Counter[int] = Counter()
        self._refused: Counter[tuple[int, str]] = Counter()
        # Lists, since CPython fails to make a tuple of an iterator while another thread's gc.get_objects() sees it.
        self._ended = [0, 0, 0, 0]  # the first four of `Traffic`
        self._highest = [0] * 6

    def begin(self) -> None:
        with self._lock:
            self._opened += 1

    def refuse(self, status: int, cause: str) -> None:
        with self._lock:
            self._refused[status, cause] += 1

    def end(self, code: int, traffic: Traffic) -> None:
        with self._lock:
            self._closed[code] += 1
            self._ended = [before + more for before, more in zip(self._ended, traffic[:4], strict=True)]

    def sum(
        self, living: Callable[[], Iterable[Traffic]], rooms: Callable[[], tuple[int, int, int, int]], **more: Any
    ) -> Totals:
        """`Totals` of those that have ended and the `living`; `rooms` are rooms, members, broadcasts, deliveries."""
        with self._lock:
            opened, closed, refused = self._opened, dict(self._closed), dict(self._refused)
            messages_in, bytes_in, messages_out, bytes_out = self._ended
        sessions = bytes_waiting = 0
        for more_in, more_bytes_in, more_out, more_bytes_out, waiting, _ in living():  # one at a time, for the GC
            messages_in += more_in
            bytes_in += more_bytes_in
            messages_out += more_out
            bytes_out += more_bytes_out
            bytes_waiting += waiting
            sessions += 1
        room_count, members, broadcasts, deliveries = rooms()
        sums = (messages_in, bytes_in, messages_out, bytes_out, broadcasts, deliveries)
        with self._lock:
            self._highest = list(map(max, self._highest, sums))
            messages_in, bytes_in, messages_out, bytes_out, broadcasts, deliveries = self._highest
        return Totals(
            sessions=sessions, opened=opened, closed=closed, refused=refused, bytes_waiting=bytes_waiting,
            messages_in=messages_in, bytes_in=bytes_in, messages_out=messages_out, bytes_out=bytes_out,
            rooms=room_count, members=members, broadcasts=broadcasts, deliveries=deliveries, **more,
        )  # fmt: skip
