"""`WebSocketApp`: passes requests to endpoints, and shuts down.

It is long because everything meets here. What there is to know of each part is in that part's module.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import finalize

from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from wsthreads.client import is_client, send_client
from wsthreads.config import METRICS_TOKEN_VARIABLE, REDIS_VARIABLE, Config, dashboard_token_of
from wsthreads.errors import CloseCode, ConfigError, HandlerError, HandshakeRefused
from wsthreads.loggers import get_logger
from wsthreads.monitoring.health import HEALTH_PATH, READY_PATH, Health
from wsthreads.monitoring.logs import hide_secrets, log_context, log_to_gunicorn, printable
from wsthreads.monitoring.metrics import Metrics
from wsthreads.protocol.fitness import USE, green_threads, is_to_serve
from wsthreads.protocol.handshake import is_upgrade
from wsthreads.protocol.hints import answer_with_hint, foreign_protocol, near_path
from wsthreads.protocol.hosts import gunicorn_worker, is_ending, is_replaced
from wsthreads.protocol.proxies import ProxyHeaders, address_of
from wsthreads.rooms.rooms import Rooms
from wsthreads.servers.contained import Contained, contained
from wsthreads.servers.stagger import in_batches
from wsthreads.sessions.admission import Admission
from wsthreads.sessions.endpoint import Endpoint
from wsthreads.sessions.handlers import Handler, PythonHandler
from wsthreads.sessions.session import Session
from wsthreads.threads.affinity import Affinity, use_all_cores
from wsthreads.threads.drainer import Drainer
from wsthreads.threads.flusher import Flusher, weakly
from wsthreads.threads.lingering import watch_lingering

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from wsthreads.brokers import Broker, Link
    from wsthreads.dashboard import Dashboard
    from wsthreads.monitoring.prometheus import MetricsPage
    from wsthreads.protocol.connection import Connection

__all__ = ["WebSocketApp"]

log = get_logger(__name__)

T = TypeVar("T")

#: Threads that sessions may not take under gunicorn, so that HTTP requests are still answered.
RESERVED_THREADS = 2

#: The gunicorn worker is asked this often whether it has been told to go.
WORKER_WATCH_S = 0.5

#: Sessions that were cut off have this long to run their on_close.
CUT_OFF_WAIT_S = 0.5

#: At shutdown, a client has this long to answer the close frame.
SHUTDOWN_CLOSE_TIMEOUT_S = 2.0


class WebSocketApp:
    """A WSGI application that serves WebSocket endpoints, and passes every other request on to `wsgi_app`.

    - Give the settings of `Config` as keyword arguments, or as one `config`.
    - With `redis`, a URL, or a `broker`, a `RedisBroker`, rooms span all processes. The default is the Redis that
      WSTHREADS_REDIS names.
    - With a `dashboard`, the page about the server is at ``/_wsthreads/``. By default there is one if
      `dashboard_token` or WSTHREADS_DASHBOARD_TOKEN is set.

    Add endpoints before serving. All methods may be called from any thread. The app starts no thread before its first
    script or request. It may be forked: each process starts its own threads.
    """

    def __init__(
        self,
        wsgi_app: WSGIApplication | None = None,
        *,
        config: Config | None = None,
        redis: Any = None,
        broker: Broker | None = None,
        dashboard: Dashboard | None = None,
        **settings: Any,
    ) -> None:
        log_to_gunicorn()  # for what scripts log as they load
        if config is not None and settings:
            raise ConfigError(f"give either config or single settings, not both: {', '.join(settings)}")
        if is_to_serve() and (unfit := green_threads()):  # the threads of the server itself may hang
            raise ConfigError(unfit)
        _check_parts(wsgi_app, config, redis, broker, dashboard)
        self.config = config or _config(settings)
        self.metrics = Metrics()
        if broker is None:
            broker = _broker_for(redis)
        self._link = None if broker is None else broker.link(self.metrics)
        self._wsgi_app = None if wsgi_app is None else Contained(wsgi_app)
        self._endpoints: dict[str, Endpoint] = {}
        self._admission = Admission(self.config.max_sessions, self.config.max_sessions_per_address)
        self._flusher = Flusher()
        self._drainer = Drainer()
        #: Where the threads of sessions are kept; for a server of our own.
        self.affinity = Affinity(self.config.cpu_affinity)
        self._shutting_down = Lock()  # held by the thread that shuts down; guards _cut_off
        self._cut_off: int | None = None  # how many sessions were cut off at shutdown, once it is over
        self._warned = False  # of a server that can have no sessions
        self._logs_in = 0  # the process in which gunicorn's logs were looked at
        self._met_in = 0  # the process in which _meet_server ran
        self._services: dict[str, WSGIApplication] = {}  # what is served beside the endpoints, by its path
        self._metrics_page: MetricsPage | None = None
        if self.config.serve_metrics:
            from wsthreads.monitoring.prometheus import (  # prometheus-client is for those who want it
                METRICS_PATH,
                MetricsPage,
            )

            token = self.config.metrics_token or os.environ.get(METRICS_TOKEN_VARIABLE, "")
            self._metrics_page = self._services[METRICS_PATH] = MetricsPage(self, token)
        if self.config.serve_health:
            health = Health(lambda: self._admission.closed, lambda: self.endpoints)
            self._services.update({HEALTH_PATH: health, READY_PATH: health})
        self._dashboard = dashboard or _dashboard_by_token(self.config)
        if self._dashboard is not None:
            self._dashboard.serve(self, partial(self._make_endpoint, affinity=Affinity(False), shares_rooms=False))
        finalize(self, _release, self._flusher, self._drainer, self._link).atexit = False
        self._entry: WSGIApplication = self._dispatch
        if self.config.trusted_proxies:
            self._entry = ProxyHeaders(self._dispatch, self.config.trusted_proxies)

    def route(self, path: str) -> Callable[[T], T]:
        """A decorator: serve `path` with a class, of which one instance is made, or with any handler object.

        Raises `HandlerError` if it has none of the handler functions, `ConfigError` if the path is not valid.
        """

        def register(target: T) -> T:
            self.add_handler(path, target)
            return target

        return register

    def add_handler(self, path: str, target: object) -> Endpoint:
        """Serve `path` with an object, a class or a module that has handler functions. Errors as in `route`.

        A script is served by `add_script`.
        """
        metrics = Metrics(self.metrics)
        return self._add(path, PythonHandler(target, metrics), metrics)

    def add_script(self, path: str, file: str | os.PathLike[str]) -> Endpoint:
        """Serve `path` with a JavaScript module, which is loaded now.

        Raises `ScriptError` (with file, line and column) if it does not load, `HandlerError` if it exports no handler
        function, `IsolateError` if JavaScript cannot run here, `FileNotFoundError` if there is no such file.
        """
        from wsthreads.javascript import ScriptHandler  # dukpy is for those who have scripts

        if not isinstance(file, (str, os.PathLike)):
            raise HandlerError(f"a script is the name of a file, not a {type(file).__name__}; see add_handler")
        if Path(file).suffix == ".py":
            raise HandlerError(f"{os.fspath(file)} is Python: import it, for add_handler, or take create_app")
        if not Path(file).is_file():
            raise FileNotFoundError(f"no such file: {os.fspath(file)}")
        metrics = Metrics(self.metrics)
        endpoint = self._add(path, ScriptHandler(Path(file), self.config, metrics), metrics)
        try:
            endpoint.handler.start()
        except BaseException:
            del self._endpoints[path]
            raise
        return endpoint

    def _add(self, path: str, handler: Handler, metrics: Metrics) -> Endpoint:
        if not isinstance(path, str) or not path.startswith("/"):
            raise ConfigError(f"the path of an endpoint must begin with a slash, not {path!r}")
        if "?" in path or "#" in path:
            raise ConfigError(f"the path of an endpoint has no query and no fragment, not {path!r}")
        if self._dashboard is not None and self._dashboard.owns(path):
            raise ConfigError(f"{path} is the dashboard's")
        if path in self._endpoints:
            raise ConfigError(f"{path} is served by {self._endpoints[path].handler.name} already")
        endpoint = self._endpoints[path] = self._make_endpoint(path, handler, metrics)
        return endpoint

    def _make_endpoint(
        self, path: str, handler: Handler, metrics: Metrics, *, shares_rooms: bool = True, **options: Any
    ) -> Endpoint:
        parts = {
            "config": self.config,
            "admission": self._admission,
            "flusher": self._flusher,
            "affinity": self.affinity,
        }
        rooms, session_class = self._make_rooms(path, metrics, shared=shares_rooms)
        return Endpoint(
            path, handler, metrics=metrics, rooms=rooms, session_class=session_class, **{**parts, **options}
        )

    def _make_rooms(self, path: str, metrics: Metrics, *, shared: bool) -> tuple[Rooms[Any], type[Session]]:
        """The rooms of an endpoint, and the sessions that may be in them."""
        limits: dict[str, Any] = {
            "max_name_chars": self.config.max_room_name_chars,
            "max_per_session": self.config.max_rooms_per_session,
            "count": metrics.add,
        }
        if self._link is None or not shared:
            return Rooms(self._drainer, **limits), Session
        from wsthreads.brokers.rooms import SharedRooms, SharedSession  # for those who have a broker

        return SharedRooms(path, self._link, self._drainer, **limits), SharedSession

    def endpoint(self, path: str) -> Endpoint:
        """The endpoint of a path. Raises `KeyError`, which names all paths."""
        try:
            return self._endpoints[path]
        except KeyError:
            known = ", ".join(self._endpoints) or "none"
            raise KeyError(f"no endpoint {path!r}; there are: {known}") from None

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All endpoints, in the order in which they were added."""
        return tuple(self._endpoints.values())

    @property
    def session_count(self) -> int:
        """The number of sessions in this process, from the handshake to the end of `on_close`."""
        return self._admission.taken

    @property
    def places(self) -> int:
        """The most sessions that this process takes."""
        return self._admission.places

    @property
    def free_places(self) -> int:
        """How many more sessions this process takes."""
        return self._admission.free

    @property
    def shares_rooms(self) -> bool:
        """Whether its rooms are those of other processes, too."""
        return self._link is not None

    @property
    def broadcasts_waiting(self) -> int:
        """Broadcasts that the broker has not taken, as while it is away. A snapshot."""
        return 0 if self._link is None else self._link.waiting()

    def connect_broker(self) -> None:
        """Connect to the broker now, not at the first session. If that fails, the log says so at once."""
        if self._link is not None:
            self._link.start()

    def fit_to_threads(self, threads: int) -> None:
        """Allow no more sessions than a server with so many threads can carry and still answer HTTP.

        With a dashboard, up to a quarter of them is for those who look at it. One thread is for HTTP in any case.
        """
        reserved, spare = RESERVED_THREADS, threads - 1
        if self._dashboard is not None:
            viewers = self._dashboard.admission
            viewers.places = min(viewers.places, max(0, min(1, spare - 1), (threads - reserved) // 4))
            reserved += viewers.places
        self._admission.places = min(self._admission.places, max(min(1, spare), threads - reserved))

    def keep_on_core(self, nth: int) -> None:
        """Keep the threads of sessions on the `nth` core (modulo), unless `cpu_affinity` is false."""
        self.affinity.claim(nth)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse | None = None) -> Iterable[bytes]:
        if start_response is None:
            raise TypeError(f"this is a WSGI application, and the server one for ASGI: {USE}")
        with contained():
            return self._entry(environ, start_response)

    def _dispatch(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._logs_in != os.getpid():
            # The application was made before gunicorn's log was, perhaps, or has configured logging since.
            self._logs_in = os.getpid()
            log_to_gunicorn()
        # A proxy vouches for it, and not every one looks at what it passes on; it goes into logs, the server's too.
        environ["REMOTE_ADDR"] = printable(address_of(environ.get("REMOTE_ADDR") or ""))
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        endpoint = self._endpoints.get(path)
        dashboard = self._dashboard
        if endpoint is None and dashboard is not None and dashboard.owns(path):
            use_all_cores()  # and not the sessions' only
            if path != dashboard.endpoint.path:
                return dashboard(environ, start_response)
            endpoint = dashboard.endpoint
        if endpoint is None:
            use_all_cores()  # and not the sessions' only
            service = self._services.get(path)
            if service is not None:
                self._meet_server(environ)
                return service(environ, start_response)
            if self.config.serve_client and is_client(environ):
                return send_client(environ, start_response, self.config.allowed_origins)
            application = self._wsgi_app or NotFound()
            if self._wsgi_app is not None:
                self._pass_on_once(environ, path)
            if is_upgrade(environ) or foreign_protocol(environ):
                return answer_with_hint(application, self._hint(environ, path), environ, start_response)
            return application(environ, start_response)
        self._meet_server(environ)
        try:
            return endpoint.accept(environ, start_response)
        except HandshakeRefused as refusal:
            endpoint.count_refusal(refusal)
            peer = environ["REMOTE_ADDR"]
            why, context = printable(hide_secrets(str(refusal))), log_context(environ)
            level = logging.INFO
            if refusal.cause == "server" and not self._warned:  # once: the operator's mistake, and not the client's
                self._warned, level = True, logging.WARNING
            log.log(level, "handshake on %s from %s refused: %s", endpoint.path, peer, why, extra=context)
            answer = refusal.response
            if answer is None:
                answer = Response(f"{refusal.reason}\n", refusal.status, list(refusal.headers), mimetype="text/plain")
            return answer(environ, start_response)

    def _pass_on_once(self, environ: WSGIEnvironment, path: str) -> None:
        """Raise `ConfigError` for a request that the application behind this one has passed back to it."""
        passed_on: tuple[object, ...] = environ.get("wsthreads.passed_on", ())
        if (self, path) in passed_on:
            raise ConfigError(
                "this WebSocketApp is its own wsgi_app: write app.wsgi_app = WebSocketApp(app.wsgi_app), "
                "or have the server serve WebSocketApp(app), and leave app.wsgi_app as it is"
            )
        environ["wsthreads.passed_on"] = (*passed_on, (self, path))

    def _hint(self, environ: WSGIEnvironment, path: str) -> str:
        """For a client that looks for an endpoint where there is none. The log has it, too."""
        known = ", ".join(self._endpoints)
        near, foreign = near_path(path, self._endpoints), foreign_protocol(environ)
        hint = f"; did you mean {environ.get('SCRIPT_NAME', '')}{near}?" if near else ""
        hint += f"; {foreign}" if foreign else ""
        shown, peer = printable(hide_secrets(path)), environ["REMOTE_ADDR"]
        log.info("no endpoint %.500s for %s; there are: %.500s%s", shown, peer, known, printable(hint))
        return f"no WebSocket endpoint is at {shown:.500}{hint}"

    def _meet_server(self, environ: WSGIEnvironment) -> None:
        """Once in each process: learn from gunicorn how many threads there are and when to end, begin what is done from
        time to time. Where the thread for that cannot be started, the next request tries again; once shutdown has begun
        there is nothing to be done any more.
        """
        if self._met_in == os.getpid() or self._admission.closed:
            return
        self._met_in = os.getpid()
        adopt = environ.get("wsthreads.adopt")
        if adopt is not None:
            adopt(self)  # wsthreads.gunicorn.ThreadWorker tells us at once, unless it is INT or QUIT
        worker = gunicorn_worker() if "gunicorn.socket" in environ else None
        if worker is not None:
            self.fit_to_threads(worker.cfg.threads)
        try:
            self._flusher.start()
        except (OSError, RuntimeError):  # no descriptor, or no thread; where a session is wanted, that is logged
            self._met_in = 0
            return
        if worker is not None:
            if worker.cfg.workers > 1 and not self.shares_rooms:
                log.warning(
                    "the rooms of %d workers are apart, each in the memory of its own; "
                    "with a Redis they are one: WSTHREADS_REDIS=redis://…",
                    worker.cfg.workers,
                )
            if worker.cfg.workers > 1 and self._metrics_page and not self._metrics_page.adds_up:
                log.warning(
                    "each of %d workers tells its own metrics only; "
                    "to have them added up, name an empty directory: PROMETHEUS_MULTIPROC_DIR=…",
                    worker.cfg.workers,
                )
            self._flusher.call_later(WORKER_WATCH_S, weakly(self._watch_worker, worker))
        for served in (self._metrics_page, self._dashboard):
            if served is not None:
                served.start(self._flusher)

    def _watch_worker(self, worker: Any) -> None:
        """The flusher's: shut down when gthread does, which tells nobody."""
        if not is_ending(worker):
            self._flusher.call_later(WORKER_WATCH_S, weakly(self._watch_worker, worker))
        elif not self._admission.closed:
            timeout_s, goodbye = drain_timeout_s(worker.cfg.graceful_timeout), farewell(worker)
            self._close_all(timeout_s, *goodbye)
            with suppress(RuntimeError):  # after INT or QUIT, Python 3.12 is ending and starts no thread any more
                Thread(target=self._drain, args=(worker, timeout_s, *goodbye), name="wsthreads-drain").start()

    def _drain(self, worker: Any, timeout_s: float, code: int, reason: str) -> None:
        self.shutdown(timeout_s, code, reason)
        watch_lingering(but=worker.tpool._threads)  # gthread itself waits for these

    def shutdown(
        self,
        timeout_s: float | None = None,
        code: int = CloseCode.GOING_AWAY,
        reason: str = "server shutting down",
    ) -> int:
        """Close every session, refuse new ones, and end all threads. Returns how many sessions had to be cut off.

        Handlers that run may finish. Waits at most `timeout_s`, by default `shutdown_timeout_s`, and then cuts off the
        sessions that are left. More than 500 sessions are not closed at once: 1,000 a second, or faster, so that all
        are closed after half of the time. An app that was shut down cannot start again. A second call does nothing.

        A handler may call it, in its session's own thread. It then waits for the other sessions only, and returns how
        many of them are left. The caller's session ends when the handler returns, and the threads end after that.
        """
        timeout_s = self.config.shutdown_timeout_s if timeout_s is None else timeout_s
        if self._admission.has_place:
            self._close_all(timeout_s, code, reason)
            arguments = (timeout_s, code, reason)
            Thread(target=self.shutdown, args=arguments, name="wsthreads-shutdown", daemon=True).start()
            return self._admission.wait_others(timeout_s)
        with self._shutting_down:  # a second call finds nothing left to do
            if self._cut_off is None:
                self._cut_off = self._shut_down(timeout_s, code, reason)
            return self._cut_off

    def _shut_down(self, timeout_s: float, code: int, reason: str) -> int:
        deadline = monotonic() + timeout_s
        self._close_all(timeout_s, code, reason)
        left = 0
        if not self._admission.wait_empty(timeout_s):
            left = self.cut_off()
            self._admission.wait_empty(CUT_OFF_WAIT_S)
        for endpoint in self.endpoints:
            endpoint.handler.stop(max(0.1, deadline - monotonic()))
        if self._dashboard is not None:
            self._dashboard.stop(max(0.1, deadline - monotonic()))
        if self._link is not None:
            self._link.stop(max(0.1, deadline - monotonic()))
        self._drainer.stop(max(0.1, deadline - monotonic()))
        self._flusher.stop(max(0.1, deadline - monotonic()))
        self.affinity.stop()
        if left:
            log.warning("shutdown: %d sessions did not end within %g s and were cut off", left, timeout_s)
        return left

    def _close_all(self, timeout_s: float, code: int, reason: str) -> None:
        """Let nobody in any more, and have every session closed, at once or soon. Does not block."""
        if not self._admission.close(code, reason):
            return
        if self._dashboard is not None:
            self._dashboard.close_viewers(code, reason)
        connections = chain.from_iterable(endpoint.connections() for endpoint in self.endpoints)
        for delay_s, batch in in_batches(connections, timeout_s):
            close = partial(_close, batch, code, reason, min(SHUTDOWN_CLOSE_TIMEOUT_S, timeout_s - delay_s))
            if delay_s:
                self._flusher.call_later(delay_s, close)
            else:
                close()

    def cut_off(self) -> int:
        """End every connection at once, without a close handshake. Returns how many there were."""
        return sum(endpoint.cut_off() for endpoint in self.endpoints)


def _release(flusher: Flusher, drainer: Drainer, link: Link | None) -> None:
    """An app's finalizer: end its threads. Any thread may run this at any point, so it takes no lock."""
    flusher.release()
    drainer.release()
    if link is not None:
        link.release()


def _close(connections: Iterable[Connection], code: int, reason: str, timeout_s: float) -> None:
    for connection in connections:
        connection.begin_close(code, reason)
        connection.hasten_close(timeout_s)


def farewell(worker: Any) -> tuple[CloseCode, str]:
    """What clients of a gunicorn worker that ends are told."""
    if is_replaced(worker):
        return CloseCode.SERVICE_RESTART, "server restarting"
    return CloseCode.GOING_AWAY, "server shutting down"


def drain_timeout_s(graceful_timeout_s: float) -> float:
    """How long sessions may take to end, so that those cut off then have some of gunicorn's patience left."""
    return max(graceful_timeout_s / 2, graceful_timeout_s - 2 * SHUTDOWN_CLOSE_TIMEOUT_S)


def _dashboard_by_token(config: Config) -> Dashboard | None:
    token = dashboard_token_of(config)
    if not token:
        return None
    from wsthreads.dashboard import Dashboard  # for those who have it

    return Dashboard(token)


def _broker_for(redis: Any) -> Broker | None:
    redis = (os.environ.get(REDIS_VARIABLE) or None) if redis is None else redis
    if redis is None:
        return None
    from wsthreads.brokers.redis import RedisBroker

    return RedisBroker(redis)


def _check_parts(wsgi_app: object, config: object, redis: object, broker: object, dashboard: object) -> None:
    """Raise `ConfigError` for what is not of its kind: else that would show much later, and far away."""
    if wsgi_app is not None and not callable(wsgi_app):
        raise ConfigError(f"wsgi_app is a WSGI application, such as Flask(__name__), not {wsgi_app!r:.100}")
    if config is not None and not isinstance(config, Config):
        raise ConfigError(f"config is a Config, not a {type(config).__name__}; single settings are keyword arguments")
    if redis is not None and broker is not None:
        raise ConfigError('give either redis="redis://…" or broker=RedisBroker(…), not both')
    if broker is not None and not hasattr(broker, "link"):  # not what it is: URLs have passwords
        raise ConfigError(f'broker is a RedisBroker("redis://…"), not a {type(broker).__name__}; a URL is for redis=')
    if dashboard is not None and not hasattr(dashboard, "serve"):
        kind = type(dashboard).__name__
        raise ConfigError(f"dashboard is a Dashboard(token), not a {kind}; a token is for dashboard_token=")


def _config(settings: dict[str, Any]) -> Config:
    try:
        return Config(**settings)
    except TypeError:
        known = Config.__dataclass_fields__
        unknown = ", ".join(name for name in settings if name not in known)
        raise ConfigError(f"no such setting: {unknown}; there are: {', '.join(known)}") from None
