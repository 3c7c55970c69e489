"""The multi-process mode of prometheus-client: each process writes its counts to files that all processes read."""

from __future__ import annotations

import glob
import os
import re
from contextlib import suppress
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import prometheus_client
from prometheus_client.multiprocess import mark_process_dead

from wsthreads.errors import ConfigError
from wsthreads.monitoring.families import Family, families
from wsthreads.monitoring.metrics import BOUNDS_S
from wsthreads.threads.flusher import Flusher, weakly

if TYPE_CHECKING:
    from wsthreads.monitoring.interfaces import MonitoredApp

__all__ = ["DIRECTORY_VARIABLE", "SharedCounts"]

#: How often each process writes its numbers, in seconds.
PUSH_S = 5.0

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


class SharedCounts:
    """Adds the new counts of this process to the metrics of prometheus-client, whose files all processes read.

    Any thread.

    A forked process has files of its own, and adds only its own counts.

    Raises `ConfigError` if the directory for the files does not exist.
    """

    def __init__(self, app: MonitoredApp) -> None:
        self.directory = os.environ[DIRECTORY_VARIABLE]
        if not os.path.isdir(self.directory):
            raise ConfigError(f"{DIRECTORY_VARIABLE} must name a directory, empty at the start, not {self.directory!r}")
        self._app = app
        self._lock = Lock()  # guards the rest; while it is held, only leaf locks are taken
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
        """Write the last counts, and remove the gauges of this process, because the process is about to end."""
        if process == os.getpid():  # not in a forked child
            self.push()
            with suppress(OSError):  # the directory may not exist any more
                mark_process_dead(process, self.directory)

    def _push(self, family: Family) -> None:
        metric = _metric(family.name, family.kind, family.about, family.labels)
        for labels, value in family.samples.items():
            key = (family.name, labels)
            before = self._pushed.get(key)
            child = metric.labels(*labels) if labels else metric
            if family.kind == "histogram":
                news = value if before is None else value.since(before)
                # prometheus-client has no public method to add more than one observation. The private attributes here
                # have not changed since version 0.2.
                for bucket, count in zip(child._buckets, news.counts, strict=True):
                    if count:
                        bucket.inc(count)
                child._sum.inc(news.total_s)
            elif value != before:
                child.inc(value - (before or 0))
            self._pushed[key] = value

    def bury_dead(self) -> None:
        """Remove the gauges of processes that have ended, for example by SIGKILL. Their counters stay."""
        for file in glob.glob(os.path.join(glob.escape(self.directory), "gauge_live*_*.db")):
            pid = int(match[1]) if (match := re.search(r"_(\d+)\.db$", file)) else os.getpid()
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                with suppress(OSError):  # another process has removed the file before
                    mark_process_dead(pid, self.directory)
            except OSError:  # the process still runs, and belongs to another user
                pass


@cache
def _metric(name: str, kind: str, about: str, labels: tuple[str, ...]) -> Any:
    """Returns the metric with this name in this process. Several apps share it."""
    if kind == "histogram":
        return prometheus_client.Histogram(name, about, labels, buckets=BOUNDS_S, registry=None)
    if kind == "counter":
        return prometheus_client.Counter(name, about, labels, registry=None)
    return prometheus_client.Gauge(name, about, labels, multiprocess_mode="livesum", registry=None)
