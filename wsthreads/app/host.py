"""Learns from the WSGI server how many threads the server has, and when it ends.

Each process does this at its first request, because an app may be made before gunicorn forks its worker processes.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

from wsthreads.app.shutdown import CLOSE_TIMEOUT_S, Shutdown
from wsthreads.errors import CloseCode
from wsthreads.loggers import get_logger
from wsthreads.monitoring.gunicorn_logs import log_to_gunicorn
from wsthreads.protocol.server_support import green_threads
from wsthreads.protocol.wsgi_servers import call_at_exit, gunicorn_worker, is_ending, is_replaced
from wsthreads.sessions.admission import Admission
from wsthreads.threads.exit_blockers import report_exit_blockers
from wsthreads.threads.flusher import Flusher, weakly

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from wsthreads.dashboard import Dashboard
    from wsthreads.monitoring.prometheus import MetricsPage

__all__ = ["RESERVED_THREADS", "Host", "HostedApp", "drain_timeout_s", "farewell"]

log = get_logger(__name__)

#: With gunicorn, sessions leave this many threads free, so that the worker still answers HTTP requests.
RESERVED_THREADS = 2

#: How often to check whether the gunicorn worker is ending, in seconds.
WORKER_WATCH_S = 0.5


class HostedApp(Protocol):
    """The part of `WebSocketApp` that `Host` needs."""

    @property
    def shares_rooms(self) -> bool:
        """Whether this process shares its rooms with other processes."""

    def look_for_overdue(self) -> None: ...

    def shutdown(self, timeout_s: float | None = ..., code: int = ..., reason: str = ...) -> int:
        """Close all sessions, and end all threads."""


class Host:
    """What a process knows about the server that serves its app. Any thread."""

    def __init__(
        self,
        app: HostedApp,
        *,
        admission: Admission,
        flusher: Flusher,
        shutdown: Shutdown,
        dashboard: Dashboard | None,
        metrics_page: MetricsPage | None,
    ) -> None:
        self._app = app
        self._admission = admission
        self._flusher = flusher
        self._shutdown = shutdown
        self._dashboard = dashboard
        self._metrics_page = metrics_page
        self._logs_in = 0  # the id of the process in which `look_at_logs` ran
        self._met_in = 0  # the id of the process in which `meet` ran

    def look_at_logs(self) -> None:
        """Once in each process, begin to log to gunicorn's log, which may not have existed when the app was made."""
        if self._logs_in != os.getpid():
            self._logs_in = os.getpid()
            log_to_gunicorn()

    def meet(self, environ: WSGIEnvironment) -> None:
        """Once in each process, learn about the server, and start the timers that watch it.

        If no thread can be started, the next request tries again. Does nothing after a shutdown has begun.
        """
        if self._met_in == os.getpid() or self._shutdown.has_begun:
            return
        self._met_in = os.getpid()
        adopt = environ.get("wsthreads.adopt")
        if adopt is not None:
            # wsthreads' own class of gunicorn workers announces its end, except after the signals INT and QUIT
            adopt(self._app)
        worker = gunicorn_worker() if "gunicorn.socket" in environ else None
        if worker is not None:
            self.fit_to_threads(worker.cfg.threads)
        try:
            self._flusher.start()
        except (OSError, RuntimeError):  # no file descriptor or no thread is left; the next handshake logs the error
            self._met_in = 0
            return
        self._app.look_for_overdue()
        if worker is not None:
            call_at_exit(worker, weakly(self._end, worker))
            self._warn_of_workers(worker.cfg.workers)
            self._flusher.call_later(WORKER_WATCH_S, weakly(self._watch_worker, worker))
        parts: Iterable[Dashboard | MetricsPage | None] = (self._metrics_page, self._dashboard)
        for part in parts:
            if part is not None:
                part.start(self._flusher)

    def fit_to_threads(self, threads: int) -> None:
        """Limit the sessions: see `WebSocketApp.fit_to_threads`."""
        reserved, spare = RESERVED_THREADS, threads - 1
        if self._dashboard is not None:
            viewers = self._dashboard.admission
            viewers.places = min(viewers.places, max(0, min(1, spare - 1), (threads - reserved) // 4))
            reserved += viewers.places
        admission = self._admission
        admission.places = min(admission.places, max(min(1, spare), threads - reserved))
        left = threads - (reserved - RESERVED_THREADS) - admission.places  # the threads that remain for HTTP requests
        admission.beyond = min(admission.beyond, max(0, left - 1))

    def _warn_of_workers(self, workers: int) -> None:
        if workers > 1 and not self._app.shares_rooms:
            log.warning(
                "%d workers have separate rooms, each in its own memory; "
                "to share the rooms, set WSTHREADS_REDIS=redis://…",
                workers,
            )
        if workers > 1 and self._metrics_page and not self._metrics_page.adds_up:
            log.warning(
                "each of %d workers reports only its own metrics; "
                "to combine them, set PROMETHEUS_MULTIPROC_DIR to an empty directory",
                workers,
            )

    def _watch_worker(self, worker: Any) -> None:
        """Shut the app down when the worker ends, because gunicorn's gthread does not announce its end.

        Called by the flusher, again and again.
        """
        if not is_ending(worker):
            self._flusher.call_later(WORKER_WATCH_S, weakly(self._watch_worker, worker))
        elif not self._shutdown.has_begun:
            timeout_s, goodbye = drain_timeout_s(worker.cfg.graceful_timeout), farewell(worker)
            self._shutdown.begin(timeout_s, *goodbye)
            with suppress(RuntimeError):  # after INT and QUIT, Python 3.12 is ending, and starts no more threads
                # The calling thread is a daemon thread. Python must wait for the new thread, which calls on_close and
                # on_room_end, so it is not a daemon. With green threads, the new thread is a daemon, too: there are no
                # sessions, and a wait for it would never end.
                arguments, is_green = (worker, timeout_s, *goodbye), bool(green_threads())
                Thread(target=self._drain, args=arguments, name="wsthreads-drain", daemon=is_green).start()

    def _end(self, worker: Any) -> None:
        """Shut the app down at the end of the worker, unless `_watch_worker` has begun this.

        A worker without connections ends at once, perhaps before `_watch_worker` notices. Sessions without a connection
        then move to other processes, or end.
        """
        # our own class of workers reports this itself
        reports = not self._shutdown.has_begun and not hasattr(worker, "adopt")
        self._app.shutdown(drain_timeout_s(worker.cfg.graceful_timeout), *farewell(worker))
        if reports:
            report_exit_blockers(but=_pool_threads(worker))

    def _drain(self, worker: Any, timeout_s: float, code: int, reason: str) -> None:
        self._app.shutdown(timeout_s, code, reason)
        report_exit_blockers(but=_pool_threads(worker))


def _pool_threads(worker: Any) -> Collection[Thread]:
    """Returns the threads for which gthread itself waits. Other classes of workers have no such threads."""
    pool = getattr(worker, "tpool", None)
    return () if pool is None else pool._threads


def farewell(worker: Any) -> tuple[CloseCode, str]:
    """Returns the close code and the reason for the clients of a gunicorn worker that is ending."""
    if is_replaced(worker):
        return CloseCode.SERVICE_RESTART, "server restarting"
    return CloseCode.GOING_AWAY, "server shutting down"


def drain_timeout_s(graceful_timeout_s: float) -> float:
    """Returns how long sessions may take to end, in seconds.

    The rest of gunicorn's timeout is for cutting sessions off.
    """
    return max(graceful_timeout_s / 2, graceful_timeout_s - 2 * CLOSE_TIMEOUT_S)
