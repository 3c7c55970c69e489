"""Serves an app's metrics for Prometheus at ``/metrics``, through prometheus-client.

A *scrape* is a request of Prometheus for the metrics. If there is a single process, a scrape reads the app's counters.
For several processes (gunicorn's workers), PROMETHEUS_MULTIPROC_DIR must be set to a directory. In this multi-process
mode of prometheus-client, each process writes its new counts to the directory every few seconds, and when it is
scraped. So a scrape of any process returns the sums of all processes.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Iterator
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from wsthreads.errors import ConfigError
from wsthreads.monitoring.families import Family, families
from wsthreads.monitoring.metrics import BOUNDS_S
from wsthreads.threads.flusher import Flusher, weakly

try:
    import prometheus_client
    from prometheus_client import exposition, metrics_core
    from prometheus_client.multiprocess import MultiProcessCollector
    from prometheus_client.utils import floatToGoString

    from wsthreads.monitoring.multiprocess import DIRECTORY_VARIABLE, SharedCounts
except ImportError as error:
    raise ConfigError("serve_metrics needs prometheus-client: pip install 'wsthreads[prometheus]'") from error

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from wsthreads.monitoring.interfaces import MonitoredApp

__all__ = ["METRICS_PATH", "MetricsPage", "WebSocketCollector"]

#: The path of the metrics.
METRICS_PATH = "/metrics"


class WebSocketCollector:
    """Collects the metrics of an app for your own registry: ``REGISTRY.register(WebSocketCollector(app))``.

    Does not work in the multi-process mode of prometheus-client. Use `serve_metrics` in this mode.
    """

    def __init__(self, app: MonitoredApp) -> None:
        self._app = app

    def describe(self) -> Iterable[Any]:
        """Called when the collector is registered. Returns nothing, so that the registration reads no metrics."""
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
    """A WSGI application that serves the metrics. Requests need the bearer `token`, unless it is empty. Any thread."""

    def __init__(self, app: MonitoredApp, token: str = "") -> None:
        self._app = app
        self._token = token.encode()
        self._shared = SharedCounts(app) if os.environ.get(DIRECTORY_VARIABLE) else None

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
        """Returns the metrics of wsthreads, and those of the default registry of prometheus-client."""
        registry = prometheus_client.CollectorRegistry()
        if self._shared is not None:
            self._shared.push()
            self._shared.bury_dead()
            MultiProcessCollector(registry, self._shared.directory)
            return registry
        return _Together([WebSocketCollector(self._app), prometheus_client.REGISTRY])

    @property
    def adds_up(self) -> bool:
        """Whether a scrape shows the sums of all processes. Otherwise, it shows the numbers of this process."""
        return self._shared is not None

    def start(self, flusher: Flusher) -> None:
        """In multi-process mode, begin to write the numbers of this process, with a timer of the running `flusher`.

        Call this once in each process.
        """
        shared = self._shared
        if shared is None:
            return

        shared.push_later(flusher)
        atexit.register(weakly(shared.end, os.getpid()))


class _Together:
    """Combines several collectors into one registry. If two metrics have the same name, only the first is kept."""

    def __init__(self, collectors: Iterable[Any]) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Any]:
        seen = set()
        for collector in self._collectors:
            for family in collector.collect():
                if family.name not in seen:
                    seen.add(family.name)
                    yield family
