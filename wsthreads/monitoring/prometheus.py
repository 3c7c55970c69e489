"""Metrics for Prometheus: what an app counts, at ``/metrics``, through prometheus-client.

In one process each scrape reads the app's own counters. Where there are several (gunicorn's workers), and
PROMETHEUS_MULTIPROC_DIR names a directory, each one leaves there what has come in since the last time, every `PUSH_S`
and at each scrape of its own; a scrape of any of them adds up all. That is prometheus-client's multi-process mode.
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

from wsthreads.errors import ConfigError
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

    from wsthreads.monitoring.watched import WatchedApp

__all__ = ["METRICS_PATH", "MetricsPage", "WebSocketCollector", "families"]

#: Where metrics are served.
METRICS_PATH = "/metrics"

#: In multi-process mode, how often each process leaves its numbers for the others, in seconds.
PUSH_S = 5.0

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

#: What each counter of a handler's errors is called as a label.
_ERRORS = {"handler_errors": "exception", "script_timeouts": "deadline", "unhandled_rejections": "rejection"}

_SIMPLE = (
    ("wsthreads_sessions", "gauge", "WebSocket sessions", "sessions"),
    ("wsthreads_sessions_opened_total", "counter", "Sessions that were opened", "opened"),
    ("wsthreads_rooms", "gauge", "Rooms with a member; one with members in several processes counts in each", "rooms"),
    ("wsthreads_room_members", "gauge", "Memberships: a session in three rooms counts three times", "members"),
    ("wsthreads_messages_received_total", "counter", "Text and binary messages from clients", "messages_in"),
    ("wsthreads_received_bytes_total", "counter", "Bytes of WebSocket frames from clients, on the wire", "bytes_in"),
    ("wsthreads_messages_sent_total", "counter", "Text and binary messages to clients", "messages_out"),
    ("wsthreads_sent_bytes_total", "counter", "Bytes of WebSocket frames that the kernel took", "bytes_out"),
    ("wsthreads_outbox_bytes", "gauge", "Bytes that wait for clients that read too slowly", "bytes_waiting"),
    ("wsthreads_broadcasts_total", "counter", "Broadcasts that met a member in this process", "broadcasts"),
    ("wsthreads_deliveries_total", "counter", "Messages that broadcasts left for members", "deliveries"),
)

_BROKER = (
    ("broker_outages", "Times that the broker was away"),
    ("broker_gaps", "Times that broadcasts to a room were, or may have been, lost"),
    ("broker_refused", "Broadcasts that were refused, since too many waited for it"),
    ("broker_malformed", "Messages of the broker's that were none of ours"),
)


@dataclass(slots=True)
class Family:
    """One metric: the values of its labels -> a number, or, for a histogram, a `Distribution`."""

    name: str
    kind: str
    about: str
    labels: tuple[str, ...] = ()
    samples: dict[tuple[str, ...], Any] = field(default_factory=dict)


def families(app: WatchedApp) -> list[Family]:
    """All metrics of an app, as they are now. No client chooses a label: their number has a bound. Any thread."""
    endpoints = [(endpoint, endpoint.totals()) for endpoint in app.endpoints]
    by_path = [(endpoint.path, totals) for endpoint, totals in endpoints]
    counters = app.metrics.snapshot()

    def each(samples: Callable[[Totals], dict[tuple[str, ...], Any]]) -> dict[tuple[str, ...], Any]:
        return {(path, *labels): value for path, totals in by_path for labels, value in samples(totals).items()}

    found = []
    for name, kind, about, attribute in _SIMPLE:
        values: dict[tuple[str, ...], Any] = {(path,): attrgetter(attribute)(totals) for path, totals in by_path}
        found.append(Family(name, kind, about, ("endpoint",), values))
    found += [
        Family(
            "wsthreads_sessions_closed_total", "counter", "Sessions that have ended, by close code",
            ("endpoint", "code"), each(lambda totals: _by_code(totals.closed)),
        ),
        Family(
            "wsthreads_slow_sessions_closed_total", "counter", "Sessions closed with 1013, as too much waited for them",
            ("endpoint",), each(lambda totals: {(): totals.counters.get("slow_sessions_closed", 0)}),
        ),
        Family(
            "wsthreads_handshakes_refused_total", "counter", "Handshakes refused, by HTTP status and cause",
            ("endpoint", "status", "cause"),
            each(lambda totals: {(str(status), cause): n for (status, cause), n in totals.refused.items()}),
        ),
        Family(
            "wsthreads_handler_errors_total", "counter", "Errors of handlers: exceptions, deadlines, rejected promises",
            ("endpoint", "kind"),
            each(lambda totals: {(kind,): totals.counters.get(name, 0) for name, kind in _ERRORS.items()}),
        ),
        Family(
            "wsthreads_handler_seconds", "histogram", "Time that the functions of handlers took",
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
            "wsthreads_script_heap_bytes", "gauge", "Memory of scripts' objects, some seconds ago",
            ("endpoint",),
            {(e.path,): heap for e, _ in endpoints if (heap := e.handler.heap_bytes()) is not None},
        ),
        Family(
            "wsthreads_limit_exceeded_total", "counter", "Times that a client went past a limit, by its setting",
            ("setting",),
            {(name[len("past_") :],): count for name, count in counters.items() if name.startswith("past_")},
        ),
        Family(
            "wsthreads_session_places", "gauge", "Sessions that there may be at once, in all endpoints",
            (), {(): app.places},
        ),
    ]  # fmt: skip
    if app.shares_rooms:
        for name, about in _BROKER:
            found.append(Family(f"wsthreads_{name}_total", "counter", about, (), {(): counters.get(name, 0)}))
        waiting: dict[tuple[str, ...], Any] = {(): app.broadcasts_waiting}
        found.append(Family("wsthreads_broker_broadcasts_waiting", "gauge", "Broadcasts it has not taken", (), waiting))
    return found


_NOTHING = Distribution((0,) * (len(BOUNDS_S) + 1), 0.0)

#: RFC 6455, 7.4.1, and the IANA registry.
_KNOWN_CODES = frozenset(range(1000, 1016)) - {1004}


def _by_code(closed: dict[int, int]) -> dict[tuple[str, ...], int]:
    """By close code; of those that clients choose freely, 3000 to 3999 are one, and 4000 to 4999."""
    counts: dict[tuple[str, ...], int] = {}
    for code, count in closed.items():
        known = code in _KNOWN_CODES
        name = str(code) if known else f"{code // 1000}xxx" if 3000 <= code <= 4999 else "other"
        counts[(name,)] = counts.get((name,), 0) + count
    return counts


class WebSocketCollector:
    """The metrics of an app for a registry of your own: ``REGISTRY.register(WebSocketCollector(app))``.

    It does not work in prometheus-client's multi-process mode. Use `serve_metrics` there.
    """

    def __init__(self, app: WatchedApp) -> None:
        self._app = app

    def describe(self) -> Iterable[Any]:
        """Called at registration; nothing need be read for it."""
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
    """The metrics as a WSGI application, for who has the bearer `token`, if that is not empty. Any thread."""

    def __init__(self, app: WatchedApp, token: str = "") -> None:
        self._app = app
        self._token = token.encode()
        self._shared = _Shared(app) if os.environ.get(DIRECTORY_VARIABLE) else None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._answer(environ)(environ, start_response)

    def _answer(self, environ: WSGIEnvironment) -> Response:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return Response("metrics are read by GET\n", 405, {"Allow": "GET, HEAD"})
        kind, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        is_known = kind.lower() == "bearer" and compare_digest(token.strip().encode("latin-1"), self._token)
        if self._token and not is_known:
            return Response("the metrics are for those who have the token\n", 401, {"WWW-Authenticate": "Bearer"})
        encode, content_type = exposition.choose_encoder(environ.get("HTTP_ACCEPT", ""))
        return Response(encode(self._registry()), content_type=content_type, headers={"Cache-Control": "no-store"})

    def _registry(self) -> Any:
        """What is to be told: our metrics, and those that the process has beside them."""
        registry = prometheus_client.CollectorRegistry()
        if self._shared is not None:
            self._shared.push()
            _bury_dead(self._shared.directory)
            MultiProcessCollector(registry, self._shared.directory)
            return registry
        return _Together([WebSocketCollector(self._app), prometheus_client.REGISTRY])

    @property
    def adds_up(self) -> bool:
        """Whether it has the numbers of all processes, and not of its own only."""
        return self._shared is not None

    def start(self, flusher: Flusher) -> None:
        """A process serves: where there may be others, have it leave its numbers for them from now on.

        By a timer of `flusher`, which runs. Once in each process.
        """
        shared = self._shared
        if shared is None:
            return

        shared.push_later(flusher)
        atexit.register(weakly(shared.end, os.getpid()))


class _Together:
    """Several collectors as a registry. Of two metrics with one name it has the first."""

    def __init__(self, collectors: Iterable[Any]) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Any]:
        seen = set()
        for collector in self._collectors:
            for family in collector.collect():
                if family.name not in seen:
                    seen.add(family.name)
                    yield family


# Several processes.


class _Shared:
    """Adds what has come in to prometheus-client's metrics, whose files all processes read. Any thread.

    A forked process has files of its own, and adds only what has come in since it began.

    Raises `ConfigError` if the directory is none.
    """

    def __init__(self, app: WatchedApp) -> None:
        self.directory = os.environ[DIRECTORY_VARIABLE]
        if not os.path.isdir(self.directory):
            raise ConfigError(f"{DIRECTORY_VARIABLE} must name a directory, empty at the start, not {self.directory!r}")
        self._app = app
        self._lock = Lock()  # guards the rest; nothing of ours is locked under it but leaves
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
        """The process is about to end: leave everything, and take back what was true of now."""
        if process == os.getpid():  # and not one that it has forked
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
                # There is no public way to add more than one at a time; as it is since 0.2.
                for bucket, count in zip(child._buckets, news.counts, strict=True):
                    if count:
                        bucket.inc(count)
                child._sum.inc(news.total_s)
            elif value != before:
                child.inc(value - (before or 0))
            self._pushed[key] = value


@cache
def _metric(name: str, kind: str, about: str, labels: tuple[str, ...]) -> Any:
    """The one of that name in this process: several apps add to the same."""
    if kind == "histogram":
        return prometheus_client.Histogram(name, about, labels, buckets=BOUNDS_S, registry=None)
    if kind == "counter":
        return prometheus_client.Counter(name, about, labels, registry=None)
    return prometheus_client.Gauge(name, about, labels, multiprocess_mode="livesum", registry=None)


def _bury_dead(directory: str) -> None:
    """Forget what processes have now that are gone, as after a SIGKILL. What they have counted stays."""
    for file in glob.glob(os.path.join(glob.escape(directory), "gauge_live*_*.db")):
        pid = int(match[1]) if (match := re.search(r"_(\d+)\.db$", file)) else os.getpid()
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            with suppress(OSError):  # another process was quicker
                mark_process_dead(pid, directory)
        except OSError:  # it lives, and is somebody else's
            pass
