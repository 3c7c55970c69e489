"""`WebSocketApp`: the class that users make, with everything that they call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import finalize

from wsthreads.app.arguments import check_parts, config_of, make_broker, make_dashboard
from wsthreads.app.dispatcher import Dispatcher
from wsthreads.app.factory import EndpointFactory
from wsthreads.app.host import Host
from wsthreads.app.routing import Routing
from wsthreads.app.shutdown import Shutdown, release
from wsthreads.config import METRICS_TOKEN_VARIABLE, Config
from wsthreads.errors import CloseCode, ConfigError, HandlerError
from wsthreads.monitoring.gunicorn_logs import log_to_gunicorn
from wsthreads.monitoring.health import HEALTH_PATH, READY_PATH, Health
from wsthreads.monitoring.metrics import Metrics
from wsthreads.protocol.proxies import ProxyHeaders
from wsthreads.protocol.server_support import USE, green_threads, is_to_serve
from wsthreads.protocol.writer_threads import WriterThreads, writers_here
from wsthreads.servers.containment import Contained, contained
from wsthreads.sessions.admission import Admission
from wsthreads.sessions.endpoint import Endpoint
from wsthreads.sessions.handlers import Handler, PythonHandler
from wsthreads.sessions.hooks import warn_of_idle
from wsthreads.threads.drainer import Drainer
from wsthreads.threads.flusher import Flusher
from wsthreads.threads.gil import GILScheduling, scheduling_for

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from wsthreads.brokers import Broker
    from wsthreads.dashboard import Dashboard
    from wsthreads.monitoring.prometheus import MetricsPage

__all__ = ["WebSocketApp"]

T = TypeVar("T")


class WebSocketApp:
    """A WSGI application that serves WebSocket endpoints, and passes every other request on to `wsgi_app`.

    - The settings of `Config` are keyword arguments, or are all in one `config`.
    - With `redis` (a URL) or `broker` (a `RedisBroker`), all processes share their rooms through this Redis. The
      default is the URL in the environment variable WSTHREADS_REDIS. ``redis=False`` means no Redis, even if the
      variable is set.
    - `dashboard` is a `Dashboard`, served at ``/_wsthreads/``. By default, there is a dashboard if `dashboard_token` or
      WSTHREADS_DASHBOARD_TOKEN is set.

    Endpoints are added before the first request. All methods may be called from any thread. The app starts no thread
    before its first script or request. The process may fork, and each process starts its own threads. A process that is
    forked while the app serves requests has none of its parent's sessions. To broadcast from such a process, use
    ``RedisBroker(url).room(…)``.
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
        log_to_gunicorn()  # scripts may log while they are loaded
        if config is not None and settings:
            raise ConfigError(f"give either config or single settings, not both: {', '.join(settings)}")
        if is_to_serve() and (unfit := green_threads()):  # with green threads, the server's own threads could hang
            raise ConfigError(unfit)
        check_parts(wsgi_app, config, redis, broker, dashboard)
        self.config = config or config_of(settings)
        self.metrics = Metrics()
        if broker is None:
            broker = make_broker(redis)
        self._link = None if broker is None else broker.link(self.metrics)
        self._routing = Routing()
        self._admission = Admission(
            self.config.max_sessions,
            self.config.max_sessions_per_address,
            max_suspended=self.config.max_suspended_sessions,
            beyond=1,
        )
        self._flusher = Flusher()
        self._drainer = Drainer()
        self._writers = WriterThreads(writers_here())
        #: Decides on which core and with which priority threads run. The app and its server tell it what their threads
        #: do.
        self.scheduling = scheduling_for(self.config.cpu_affinity)
        self._factory = EndpointFactory(
            self.config,
            admission=self._admission,
            flusher=self._flusher,
            drainer=self._drainer,
            writers=self._writers,
            scheduling=self.scheduling,
            link=self._link,
        )
        self._dashboard = dashboard or make_dashboard(self.config)
        if self._dashboard is not None:
            unpinned = GILScheduling(cpu_affinity=False)
            make_endpoint = partial(self._factory.make, scheduling=unpinned, shares_rooms=False)
            self._dashboard.serve(self, make_endpoint, self._link)
        self._shutdown = Shutdown(
            self._routing,
            admission=self._admission,
            dashboard=self._dashboard,
            link=self._link,
            drainer=self._drainer,
            writers=self._writers,
            flusher=self._flusher,
            scheduling=self.scheduling,
        )
        services, metrics_page = self._make_services()
        self._host = Host(
            self,
            admission=self._admission,
            flusher=self._flusher,
            shutdown=self._shutdown,
            dashboard=self._dashboard,
            metrics_page=metrics_page,
        )
        self._dispatcher = Dispatcher(
            self._routing,
            config=self.config,
            host=self._host,
            services=services,
            dashboard=self._dashboard,
            scheduling=self.scheduling,
            wsgi_app=None if wsgi_app is None else Contained(wsgi_app),
        )
        self._entry: WSGIApplication = self._dispatcher
        if self.config.trusted_proxies:
            self._entry = ProxyHeaders(self._dispatcher, self.config.trusted_proxies)
        finalize(self, release, self._flusher, self._drainer, self._writers, self._link).atexit = False

    def _make_services(self) -> tuple[dict[str, WSGIApplication], MetricsPage | None]:
        """Returns the services besides the endpoints, by path, and the metrics page, which is one of them."""
        services: dict[str, WSGIApplication] = {}
        metrics_page = None
        if self.config.serve_metrics:
            from wsthreads.monitoring.prometheus import (  # only an app with metrics needs prometheus-client
                METRICS_PATH,
                MetricsPage,
            )

            token = self.config.metrics_token or os.environ.get(METRICS_TOKEN_VARIABLE, "")
            metrics_page = services[METRICS_PATH] = MetricsPage(self, token)
        if self.config.serve_health:
            health = Health(lambda: self._admission.closed, lambda: self.endpoints)
            services.update({HEALTH_PATH: health, READY_PATH: health})
        return services, metrics_page

    def route(self, path: str) -> Callable[[T], T]:
        """A decorator that serves `path` with a handler: an instance of the decorated class, or any other object.

        Raises `HandlerError` if the handler has no handler function, and `ConfigError` if the path is not valid.
        """

        def register(target: T) -> T:
            self.add_handler(path, target)
            return target

        return register

    def add_handler(self, path: str, target: object) -> Endpoint:
        """Serve `path` with an object, a class or a module that has handler functions. Raises what `route` raises.

        For a script, use `add_script`.
        """
        metrics = Metrics(self.metrics)
        handler = PythonHandler(target, metrics)
        # for a module, `wsthreads run` warns instead
        if not self.config.resume_s and not isinstance(target, ModuleType):
            warn_of_idle(handler.name, handler.hooks)
        return self._add(path, handler, metrics)

    def add_script(
        self,
        path: str,
        file: str | os.PathLike[str],
        *,
        modules: Mapping[str, ModuleType] | None = None,
        env: Mapping[str, str] | None = None,
        env_file: str | os.PathLike[str] | None = None,
    ) -> Endpoint:
        """Load a JavaScript module, and serve `path` with it.

        `modules` are Python modules whose functions the script may import. With ``modules={"store": store}``, a script
        can use ``import { load } from "store"``.

        `env` maps names to texts, such as the keys of other services. A script imports them by ``import { env } from
        "wsthreads"``. No log shows the texts. `env_file` is a file of lines NAME=value with more such names. If a name
        is in both, the value in `env` is used.

        Raises `ScriptError` (with file, line and column) if the module does not load, `HandlerError` if it exports no
        handler function, `IsolateError` if JavaScript cannot run here, `FileNotFoundError` if there is no such file,
        and `UsageError` for a line of `env_file` that is not valid.
        """
        from wsthreads.javascript import ScriptHandler  # only an app with scripts needs dukpy
        from wsthreads.javascript.environment import read_env_file

        if not isinstance(file, (str, os.PathLike)):
            raise HandlerError(
                f"add_script takes the name of a file, not a {type(file).__name__}; for other handlers, use add_handler"
            )
        if Path(file).suffix == ".py":
            raise HandlerError(f"{os.fspath(file)} is a Python file: import it and use add_handler, or use create_app")
        if not Path(file).is_file():
            raise FileNotFoundError(f"no such file: {os.fspath(file)}")
        if env_file is not None:
            env = {**read_env_file(env_file), **(env or {})}
        metrics = Metrics(self.metrics)
        endpoint = self._add(path, ScriptHandler(Path(file), self.config, metrics, modules, env=env), metrics)
        try:
            endpoint.handler.start()
        except BaseException:
            self._routing.remove(endpoint)
            raise
        return endpoint

    def _add(self, path: str, handler: Handler, metrics: Metrics) -> Endpoint:
        self._routing.check(path)
        if self._dashboard is not None and self._dashboard.owns(path):
            raise ConfigError(f"{path} belongs to the dashboard")
        endpoint = self._factory.make(path, handler, metrics)
        self._routing.add(endpoint)
        return endpoint

    def endpoint(self, path: str) -> Endpoint:
        """Returns the endpoint of a path. Raises `KeyError` for an unknown path. The error lists all paths."""
        return self._routing.find(path)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All endpoints, in the order in which they were added."""
        return self._routing.endpoints

    @property
    def session_count(self) -> int:
        """The number of sessions in this process, from the handshake to the end of `on_close`.

        Sessions without a connection that wait for their clients are counted, too.
        """
        return self._admission.taken + self._admission.suspended

    @property
    def places(self) -> int:
        """At most this many sessions are possible in this process."""
        return self._admission.places

    @property
    def free_places(self) -> int:
        """How many more sessions are possible in this process."""
        return self._admission.free

    @property
    def shares_rooms(self) -> bool:
        """Whether this process shares its rooms with other processes."""
        return self._link is not None

    @property
    def broadcasts_waiting(self) -> int:
        """How many broadcasts wait for the broker, for example while Redis is unavailable.

        This may change at any time.
        """
        return 0 if self._link is None else self._link.waiting()

    def connect_broker(self) -> None:
        """Begin to connect to the broker now, not when the first session begins. So a failure is logged at once."""
        if self._link is not None:
            self._link.start()

    def look_for_overdue(self) -> None:
        """From now on, end the sessions of processes that have ended, if the clients do not come back. Idempotent."""
        for endpoint in self.endpoints:
            endpoint.look_for_overdue()

    def fit_to_threads(self, threads: int) -> None:
        """Limit the sessions so that a server with this number of threads still answers HTTP.

        At least one thread is reserved for HTTP. With a dashboard, up to a quarter of the threads are reserved for its
        pages. A client that resumes its session may take a reserved thread, but not the last one.
        """
        self._host.fit_to_threads(threads)

    def keep_on_core(self, nth: int) -> None:
        """Keep the threads of sessions on the `nth` core (modulo their number), unless `cpu_affinity` is False."""
        self.scheduling.owns_process(nth)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse | None = None) -> Iterable[bytes]:
        if start_response is None:
            raise TypeError(f"this is a WSGI application, but the server is for ASGI: {USE}")
        with contained():
            return self._entry(environ, start_response)

    def shutdown(
        self,
        timeout_s: float | None = None,
        code: int = CloseCode.GOING_AWAY,
        reason: str = "server shutting down",
    ) -> int:
        """Close all sessions, refuse new ones, and end all threads. Returns how many sessions were cut off.

        Waits for handlers that are running, for at most `timeout_s` (default: `shutdown_timeout_s`). Then cuts off the
        remaining sessions. Up to 500 sessions are closed at once. If there are more, 1,000 are closed each second, or
        so many that all are closed within half of `timeout_s`. After the shutdown, an app cannot start again. A second
        call only waits for the first, for at most `timeout_s` and half a second.

        A handler may call this method in its session's own thread. The method then waits only for the other sessions,
        and returns how many of them are left. The session of the caller ends when the handler returns. A handler
        function for rooms, such as `on_tick`, may call this method, too. The method then waits for all sessions, and
        returns how many of them are left. In both cases, another thread ends the app's threads after that.
        """
        timeout_s = self.config.shutdown_timeout_s if timeout_s is None else timeout_s
        return self._shutdown.run(timeout_s, code, reason)

    def cut_off(self) -> int:
        """End all connections at once, without a close handshake. Returns how many there were."""
        return self._shutdown.cut_off()
