"""Serves an app's metrics for Prometheus at ``/metrics``, through prometheus-client.

In a single process, a scrape reads the app's counters. With several processes (gunicorn's workers),
PROMETHEUS_MULTIPROC_DIR names a directory: this is prometheus-client's multi-process mode. Each process writes its new
counts to that directory every `PUSH_S` seconds, and when it is scraped. A scrape of any process adds up the counts of
all.
"""

from __future__ import annotations

import atexit
import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from hmac import compare_digest
from operator import attrgetter
from threading import Lock
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from wsthreads.errors import CloseCode, ConfigError
from wsthreads.monitoring.metrics import BOUNDS_S, Distribution, Totals
from wsthreads.threads.flusher import Flusher, weakly

try:
    import prometheus_client
    from prometheus_client import exposition, metrics_core
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
    from prometheus_client.utils import floatToGoString
except ImportError as error:
    raise ConfigError("serve_metrics needs prometheus-client: pip install 'wsthreads[prometheus]'") from error

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from wsthreads.monitoring.interfaces import MonitoredApp

__all__ = ["METRICS_PATH", "MetricsPage", "WebSocketCollector", "families"]

#: The path of the metrics.
METRICS_PATH = "/metrics"

#: In multi-process mode, how often each process writes its numbers for the others, in seconds.
PUSH_S = 5.0

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

#: Counter of handler errors -> value of the label `kind`.
_ERRORS = {"handler_errors": "exception", "script_timeouts": "deadline", "unhandled_rejections": "rejection"}

_SIMPLE = (
    ("wsthreads_sessions", "gauge", "Open WebSocket sessions", "sessions"),
    ("wsthreads_sessions_opened_total", "counter", "Sessions opened", "opened"),
    ("wsthreads_rooms", "gauge", "Rooms with members; each process counts the rooms of its own members", "rooms"),
    ("wsthreads_room_members", "gauge", "Memberships: a session in three rooms counts three times", "members"),
    ("wsthreads_users", "gauge", "Users with sessions; each process counts the users of its own sessions", "users"),
    ("wsthreads_messages_received_total", "counter", "Text and binary messages from clients", "messages_in"),
    ("wsthreads_received_bytes_total", "counter", "Bytes of WebSocket frames from clients, as on the wire", "bytes_in"),
    ("wsthreads_messages_sent_total", "counter", "Text and binary messages to clients", "messages_out"),
    (
        "wsthreads_latest_replaced_total",
        "counter",
        "Messages that a later one with the same key replaced",
        "latest_replaced",
    ),
    ("wsthreads_sent_bytes_total", "counter", "Bytes of WebSocket frames that the kernel accepted", "bytes_out"),
    ("wsthreads_outbox_bytes", "gauge", "Bytes queued for slow clients", "bytes_waiting"),
    ("wsthreads_owned_rooms", "gauge", "Rooms whose on_tick and on_post are called in this process", "owned_rooms"),
    ("wsthreads_posts_waiting", "gauge", "Posts that wait for on_post in this process", "posts_waiting"),
    (
        "wsthreads_history_messages",
        "gauge",
        "Messages in the histories of rooms; each process counts its copies",
        "history_messages",
    ),
    ("wsthreads_history_bytes", "gauge", "Bytes of the messages in histories", "history_bytes"),
    ("wsthreads_broadcasts_total", "counter", "Broadcasts that reached a member in this process", "broadcasts"),
    ("wsthreads_deliveries_total", "counter", "Messages queued for members by broadcasts", "deliveries"),
)

#: Counters of an endpoint.
_COUNTED = (
    ("presence_changes", "Presence values set in this process, and sessions with one that left or were lost"),
    ("kicks", "Sessions in this process that the application or an operator closed through a handle"),
    ("bans", "Bans of users that were called for in this process"),
    ("posts", "Posts that on_post was called for in this process"),
    ("owner_changes", "Times that this process became the owner of a room"),
    ("ticks_skipped", "Ticks of rooms that were left out because they were late"),
)

_BROKER = (
    ("broker_outages", "Broker outages"),
    ("broker_gaps", "Times that broadcasts to a room were lost, or could have been"),
    ("broker_refused", "Broadcasts refused because too many waited for the broker"),
    ("broker_malformed", "Messages from the broker that were not valid"),
)


@dataclass(slots=True)
class Family:
    """One metric. `samples` maps label values to a number, or to a `Distribution` for a histogram."""

    name: str
    kind: str
    about: str
    labels: tuple[str, ...] = ()
    samples: dict[tuple[str, ...], Any] = field(default_factory=dict)


def families(app: MonitoredApp) -> list[Family]:
    """The current metrics of an app. Clients cannot choose label values, so the number of series is bounded.

    Any thread.
    """
    endpoints = [(endpoint, endpoint.totals()) for endpoint in app.endpoints]
    by_path = [(endpoint.path, totals) for endpoint, totals in endpoints]
    counters = app.metrics.snapshot()

    def each(samples: Callable[[Totals], dict[tuple[str, ...], Any]]) -> dict[tuple[str, ...], Any]:
        return {(path, *labels): value for path, totals in by_path for labels, value in samples(totals).items()}

    found = []
    for name, kind, about, attribute in _SIMPLE:
        numbers = [(path, attrgetter(attribute)(totals)) for path, totals in by_path]
        values: dict[tuple[str, ...], Any] = {(path,): number for path, number in numbers if number is not None}
        found.append(Family(name, kind, about, ("endpoint",), values))
    for name, about in _COUNTED:
        values = {(path,): totals.counters.get(name, 0) for path, totals in by_path}
        found.append(Family(f"wsthreads_{name}_total", "counter", about, ("endpoint",), values))
    found += [
        Family(
            "wsthreads_sessions_closed_total", "counter", "Sessions ended, by close code",
            ("endpoint", "code"), each(lambda totals: _by_code(totals.closed)),
        ),
        Family(
            "wsthreads_slow_sessions_closed_total", "counter", "Sessions closed with 1013, for reading too slowly",
            ("endpoint",), each(lambda totals: {(): totals.counters.get("slow_sessions_closed", 0)}),
        ),
        Family(
            "wsthreads_handshakes_refused_total", "counter", "Handshakes refused, by HTTP status and cause",
            ("endpoint", "status", "cause"),
            each(lambda totals: {(str(status), cause): n for (status, cause), n in totals.refused.items()}),
        ),
        Family(
            "wsthreads_handler_errors_total", "counter", "Handler errors: exceptions, deadlines, rejected promises",
            ("endpoint", "kind"),
            each(lambda totals: {(kind,): totals.counters.get(name, 0) for name, kind in _ERRORS.items()}),
        ),
        Family(
            "wsthreads_handler_seconds", "histogram", "Duration of handler functions",
            ("endpoint", "function"),
            {
                (endpoint.path, hook): totals.handler_seconds.get(hook, _NOTHING)
                for endpoint, totals in endpoints
                for hook in sorted(endpoint.handler.hooks)
            },
        ),
        Family(
            "wsthreads_ping_round_trip_seconds", "histogram", "Time from pings to their pongs",
            ("endpoint",), each(lambda totals: {(): totals.round_trips or _NOTHING}),
        ),
        Family(
            "wsthreads_tick_lag_seconds", "histogram", "How late the ticks of rooms were",
            ("endpoint",), each(lambda totals: {(): totals.tick_lags or _NOTHING}),
        ),
        Family(
            "wsthreads_script_heap_bytes", "gauge", "Heap of the script's interpreter, measured every few seconds",
            ("endpoint",),
            {(e.path,): heap for e, _ in endpoints if (heap := e.handler.heap_bytes()) is not None},
        ),
        Family(
            "wsthreads_script_wait_seconds", "histogram", "How long calls of a script wait for others",
            ("endpoint",),
            {(e.path,): totals.script_waits or _NOTHING for e, totals in endpoints if e.handler.has_queue},
        ),
        Family(
            "wsthreads_limit_exceeded_total", "counter", "Times that a client exceeded a limit, by the limit's setting",
            ("setting",),
            {(name[len("past_") :],): count for name, count in counters.items() if name.startswith("past_")},
        ),
        Family(
            "wsthreads_session_places", "gauge", "Most sessions that all endpoints together accept",
            (), {(): app.places},
        ),
    ]  # fmt: skip
    if app.shares_rooms:
        for name, about in _BROKER:
            found.append(Family(f"wsthreads_{name}_total", "counter", about, (), {(): counters.get(name, 0)}))
        about = "Broadcasts that wait for the broker"
        waiting: dict[tuple[str, ...], Any] = {(): app.broadcasts_waiting}
        found.append(Family("wsthreads_broker_broadcasts_waiting", "gauge", about, (), waiting))
    return found


_NOTHING = Distribution((0,) * (len(BOUNDS_S) + 1), 0.0)

#: RFC 6455, 7.4.1, and the IANA registry.
_KNOWN_CODES = frozenset(range(1000, 1016)) - {1004} | frozenset(map(int, CloseCode))


def _by_code(closed: dict[int, int]) -> dict[tuple[str, ...], int]:
    """Counts by close code. Codes that the server never sends share a label: "3xxx", "4xxx" or "other"."""
    counts: dict[tuple[str, ...], int] = {}
    for code, count in closed.items():
        known = code in _KNOWN_CODES
        name = str(code) if known else f"{code // 1000}xxx" if 3000 <= code <= 4999 else "other"
        counts[(name,)] = counts.get((name,), 0) + count
    return counts


class WebSocketCollector:
    """The metrics of an app, for a registry of your own: ``REGISTRY.register(WebSocketCollector(app))``.

    Does not work in prometheus-client's multi-process mode. Use `serve_metrics` there.
    """

    def __init__(self, app: MonitoredApp) -> None:
        self._app = app

    def describe(self) -> Iterable[Any]:
        """Called at registration. Returns nothing, so that registration reads no metrics."""
        return ()

    def collect(self) -> Iterator[Any]:
        for family in families(self._app):
            yield _FORMS[family.kind](family)


def _histogram(family: Family) -> Any:
    form = metrics_core.HistogramMetricFamily(family.name, family.about, labels=family.labels)
    for labels, distribution in family.samples.items():
        count, buckets = 0, []
        for bound, n in zip((*BOUNDS_S, float("inf")), distribution.counts, strict=True):
            count += n
            buckets.append((floatToGoString(bound), count))
        form.add_metric(labels, buckets, distribution.total_s)
    return form


def _plain(make: Callable[..., Any]) -> Callable[[Family], Any]:
    def convert(family: Family) -> Any:
        form = make(family.name, family.about, labels=family.labels)
        for labels, value in family.samples.items():
            form.add_metric(labels, value)
        return form

    return convert


_FORMS = {
    "gauge": _plain(metrics_core.GaugeMetricFamily),
    "counter": _plain(metrics_core.CounterMetricFamily),
    "histogram": _histogram,
}


class MetricsPage:
    """A WSGI application that serves the metrics. Requires the bearer `token`, unless it is empty. Any thread."""

    def __init__(self, app: MonitoredApp, token: str = "") -> None:
        self._app = app
        self._token = token.encode()
        self._shared = _Shared(app) if os.environ.get(DIRECTORY_VARIABLE) else None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._answer(environ)(environ, start_response)

    def _answer(self, environ: WSGIEnvironment) -> Response:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return Response("use GET\n", 405, {"Allow": "GET, HEAD"})
        kind, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        is_known = kind.lower() == "bearer" and compare_digest(token.strip().encode("latin-1"), self._token)
        if self._token and not is_known:
            return Response("the bearer token is missing or wrong\n", 401, {"WWW-Authenticate": "Bearer"})
        encode, content_type = exposition.choose_encoder(environ.get("HTTP_ACCEPT", ""))
        return Response(encode(self._registry()), content_type=content_type, headers={"Cache-Control": "no-store"})

    def _registry(self) -> Any:
        """wsthreads's metrics, and those of the default registry of prometheus-client."""
        registry = prometheus_client.CollectorRegistry()
        if self._shared is not None:
            self._shared.push()
            _bury_dead(self._shared.directory)
            MultiProcessCollector(registry, self._shared.directory)
            return registry
        return _Together([WebSocketCollector(self._app), prometheus_client.REGISTRY])

    @property
    def adds_up(self) -> bool:
        """Whether a scrape shows the sum over all processes, not only this one."""
        return self._shared is not None

    def start(self, flusher: Flusher) -> None:
        """In multi-process mode, begin to write this process's numbers, by a timer of the running `flusher`.

        Call it once in each process.
        """
        shared = self._shared
        if shared is None:
            return

        shared.push_later(flusher)
        atexit.register(weakly(shared.end, os.getpid()))


class _Together:
    """Combines several collectors into a registry. Of two metrics with the same name, it keeps the first."""

    def __init__(self, collectors: Iterable[Any]) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Any]:
        seen = set()
        for collector in self._collectors:
            for family in collector.collect():
                if family.name not in seen:
                    seen.add(family.name)
                    yield family


# Multi-process mode.


class _Shared:
    """Adds new counts to prometheus-client's metrics, whose files all processes read. Any thread.

    A forked process has its own files, and adds only what it has counted itself.

    Raises `ConfigError` if the directory does not exist.
    """

    def __init__(self, app: MonitoredApp) -> None:
        self.directory = os.environ[DIRECTORY_VARIABLE]
        if not os.path.isdir(self.directory):
            raise ConfigError(f"{DIRECTORY_VARIABLE} must name a directory, empty at the start, not {self.directory!r}")
        self._app = app
        self._lock = Lock()  # guards the rest; under it, only leaf locks are taken
        self._pushed: dict[tuple[str, tuple[str, ...]], Any] = {}

    def push_later(self, flusher: Flusher) -> None:
        flusher.call_later(PUSH_S, weakly(self._go_on, flusher))

    def _go_on(self, flusher: Flusher) -> None:
        self.push_later(flusher)
        self.push()

    def push(self) -> None:
        with self._lock:
            for family in families(self._app):
                self._push(family)

    def end(self, process: int) -> None:
        """The process is about to end: write the last counts, and remove its gauges."""
        if process == os.getpid():  # not a forked child
            self.push()
            with suppress(OSError):  # the directory may be gone by now
                mark_process_dead(process, self.directory)

    def _push(self, family: Family) -> None:
        metric = _metric(family.name, family.kind, family.about, family.labels)
        for labels, value in family.samples.items():
            key = (family.name, labels)
            before = self._pushed.get(key)
            child = metric.labels(*labels) if labels else metric
            if family.kind == "histogram":
                news = value if before is None else value.since(before)
                # prometheus-client has no public way to add more than one; these attributes are the same since 0.2.
                for bucket, count in zip(child._buckets, news.counts, strict=True):
                    if count:
                        bucket.inc(count)
                child._sum.inc(news.total_s)
            elif value != before:
                child.inc(value - (before or 0))
            self._pushed[key] = value


@cache
def _metric(name: str, kind: str, about: str, labels: tuple[str, ...]) -> Any:
    """The metric of that name in this process. Several apps share it."""
    if kind == "histogram":
        return prometheus_client.Histogram(name, about, labels, buckets=BOUNDS_S, registry=None)
    if kind == "counter":
        return prometheus_client.Counter(name, about, labels, registry=None)
    return prometheus_client.Gauge(name, about, labels, multiprocess_mode="livesum", registry=None)


def _bury_dead(directory: str) -> None:
    """Remove the gauges of processes that have ended, for example by SIGKILL. Their counters stay."""
    for file in glob.glob(os.path.join(glob.escape(directory), "gauge_live*_*.db")):
        pid = int(match[1]) if (match := re.search(r"_(\d+)\.db$", file)) else os.getpid()
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            with suppress(OSError):  # another process was quicker
                mark_process_dead(pid, directory)
        except OSError:  # the process is alive and belongs to another user
            pass
