"""A gunicorn worker class with an orderly shutdown.

    gunicorn -k wsthreads.gunicorn.ThreadWorker --threads 1000 'wsthreads:create_app("chat.js")'

A `WebSocketApp` finds the worker in the WSGI environ, and registers with the worker. So gunicorn may also load another
WSGI application that contains the `WebSocketApp`.
"""

from __future__ import annotations

import errno
import logging
import select
import signal
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from itertools import count
from mmap import mmap
from random import SystemRandom
from threading import Lock, Thread, get_ident
from time import monotonic, sleep
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

from wsthreads.loggers import get_logger

try:
    from gunicorn import util
    from gunicorn.errors import AppImportError
    from gunicorn.glogging import Logger as _Logger
    from gunicorn.workers.gthread import ThreadWorker as _ThreadWorker
except ImportError as error:
    raise ImportError("wsthreads.gunicorn needs gunicorn: pip install 'wsthreads[gunicorn]'") from error

from wsthreads.app import WebSocketApp
from wsthreads.app.host import RESERVED_THREADS, drain_timeout_s, farewell
from wsthreads.config import Config
from wsthreads.errors import WSThreadsError, counted
from wsthreads.monitoring.gunicorn_logs import log_to_gunicorn
from wsthreads.monitoring.logs import SESSION_KEY, JSONFormatter, access_context
from wsthreads.protocol.server_support import green_threads
from wsthreads.protocol.wsgi_servers import is_ending
from wsthreads.servers.containment import Contained
from wsthreads.servers.patient_pool import PatientPool
from wsthreads.servers.stalled_clients import StalledClients, wake
from wsthreads.threads.exit_blockers import report_exit_blockers

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["JSONLogger", "ThreadWorker"]

log = get_logger(__name__)

#: How long the worker's loop pauses if it cannot accept a connection, in seconds.
EXHAUSTED_PAUSE_S = 0.05

#: A full worker leaves a new client to other workers for at most LEAVE_S. If no other worker accepts the client in this
#: time, all workers are full or busy. The full worker then accepts the client itself, because the request may need no
#: session. For LEAVE_AGAIN_S after that, it leaves no client to others.
LEAVE_S = 0.05
LEAVE_STEP_S = 0.002
LEAVE_AGAIN_S = 1.0

#: How often an ending worker checks its connections, in seconds.
END_STEP_S = 0.1

#: At the worker's end, a client has this long to send the head of a request, from its first byte.
END_HEAD_S = 0.5

#: At the worker's end, an idle keep-alive connection stays open for this long, because a request may be on its way.
#: gunicorn 26 has the same rule.
END_KEEPALIVE_S = 2.0


class ThreadWorker(_ThreadWorker):  # type: ignore[misc]  # gunicorn has no annotations
    """A gthread worker for apps with WebSockets. It differs from gunicorn's gthread in these points:

    - At its end, the worker closes its sessions, calls each `on_close`, and exits as soon as all of them have returned.
      Clients get the close code 1012 if another worker takes over (HUP, `max_requests`, `--reload`), otherwise 1001.
      With plain ``-k gthread``, the sessions close half a second later, and always with 1001.
    - The worker accepts at most `--threads` minus two sessions, so that two threads remain for HTTP.
    - A full worker leaves new clients to other workers with a free place, except with `--reuse-port`.
    - A client must send the head of its request (first line and headers) within `handshake_timeout_s`, or within 10 s
      before the first request to an app. gthread waits without a limit, so a few clients could occupy all threads.
    - Context variables that a handler or a view sets are unset again before the thread serves another client.
    - Slow HTTP clients, with unfinished requests or responses, do not delay the worker's end.
    - Without free file descriptors or threads, new clients wait. A gthread worker would end, with all its sessions.
    - Each worker keeps its sessions on a core of its own, if there are enough cores. A replacement uses the same core.
    - If a script does not load, or a setting is out of its range, gunicorn logs one line and ends. The log lines of
      wsthreads and of scripts go to gunicorn's error log.
    """

    #: The live workers, known only in the master process. gunicorn creates a worker object there, and drops it when the
    #: worker's process ends.
    _living: ClassVar[WeakSet[ThreadWorker]] = WeakSet()
    #: The slot of the first worker. A worker's slot decides which core it uses. The first slot is random, so that
    #: several masters on one machine do not begin with the same core.
    _first_slot: ClassVar[int] = SystemRandom().randrange(2**16)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # gunicorn then does the TLS handshake later, where `handshake_timeout_s` limits its time
        self.cfg.set("do_handshake_on_connect", False)
        taken = {worker._slot for worker in self._living}
        self._slot: int = next(nth for nth in count(self._first_slot) if nth not in taken)
        self._living.add(self)
        self._apps: set[WebSocketApp] = set()
        self._draining = False
        self._warned_at = float("-inf")
        self._alone_at = float("-inf")  # when this worker last left a client to others in vain
        self._told = False  # whether a signal has told this worker to end
        #: One byte that master and worker share. It becomes 1 when there are workers with a newer configuration.
        self._outdated = mmap(-1, 1)
        for worker in self._living:
            if worker.cfg is not self.cfg:
                worker._outdated[0] = 1
        #: For each thread that reads the head of a request: when it began, and the connection.
        self._reading: dict[int, tuple[float, Any]] = {}
        #: For each thread that responds to a request, including session threads: the connection.
        self._answering: dict[int, Any] = {}
        # Guards both dicts. No lock is taken under it. While it is held, no listed thread closes its socket.
        self._lock = Lock()
        self._stalls = StalledClients()
        self._ends_at = float("inf")
        self._drains: list[Thread] = []

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Warn about unsuitable settings. Called by gunicorn's master before it starts workers."""
        super().check_config(cfg, log)
        if cfg.threads <= RESERVED_THREADS:
            log.warning(
                "each WebSocket session needs a thread, and --threads is %d: use more, such as 500", cfg.threads
            )
        if cfg.reuse_port:
            log.warning("with --reuse-port, a full worker refuses clients although other workers have room")

    def init_signals(self) -> None:
        super().init_signals()
        # At a HUP, the master ends its workers by TERM. A terminal that closes, and pkill, send HUP to workers, too.
        # Programs that the application starts would inherit SIG_IGN, but they do not inherit a function.
        signal.signal(signal.SIGHUP, lambda number, frame: None)
        signal.siginterrupt(signal.SIGHUP, False)

    def load_wsgi(self) -> None:
        log_to_gunicorn()
        try:
            super().load_wsgi()
        except WSThreadsError as error:
            raise AppImportError(str(error)) from error
        if unfit := green_threads():  # checked here, because modules that the application imports may replace threads
            raise AppImportError(unfit)
        log_to_gunicorn()  # the application may have configured the logging while it was loaded
        application: WSGIApplication = Contained(self.wsgi)  # type: ignore[has-type]  # with its middleware

        def introduce(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            with self._lock:
                _, conn = self._reading.pop(get_ident(), (0.0, None))
                if conn is not None:
                    self._answering[get_ident()] = conn
            environ["wsthreads.adopt"] = self.adopt
            return application(environ, start_response)

        self.wsgi = introduce

    def get_thread_pool(self) -> ThreadPoolExecutor:
        return PatientPool(max_workers=self.cfg.threads)

    def accept(self, listener: Any, *arguments: Any) -> None:
        """Called by the worker's loop when a client waits to be accepted."""
        if self._is_full() and monotonic() - self._alone_at >= LEAVE_AGAIN_S:
            if self._leave(listener):
                return
            self._alone_at = monotonic()
        try:
            super().accept(listener, *arguments)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            if monotonic() - self._warned_at >= 1:
                self._warned_at = monotonic()
                log.warning("cannot accept connections: %s (see ulimit -n, LimitNOFILE)", error.strerror)
            sleep(EXHAUSTED_PAUSE_S)

    def _leave(self, listener: Any) -> bool:
        """Wait until another worker has accepted the client. Returns False if none does in time."""
        waiting = select.poll()
        waiting.register(listener, select.POLLIN)
        deadline = monotonic() + LEAVE_S
        while monotonic() < deadline:
            sleep(LEAVE_STEP_S)
            if not waiting.poll(0):
                return True
        return False

    def _is_full(self) -> bool:
        """Whether this worker has no place for another session, but another worker may have one."""
        apps = list(self._apps)
        if self.cfg.workers == 1 or self.cfg.reuse_port or not apps or not any(app.places for app in apps):
            return False  # no other worker has a place for the client, or could get the client
        return max(app.free_places for app in apps) <= len(self._reading)

    def handle(self, conn: Any) -> Any:
        """Read a request from a connection, and respond. Called by gthread in one of its threads."""
        with self._lock:
            self._reading[get_ident()] = (monotonic(), conn)
        # since gunicorn 25; this method would need a file descriptor, and there may be none left
        if hasattr(conn, "wait_for_data"):
            conn.wait_for_data = partial(_has_data, conn.sock)
        try:
            keeps = super().handle(conn)
            if not keeps:
                _linger(conn.sock)
            return keeps
        finally:
            with self._lock:
                self._reading.pop(get_ident(), None)
                self._answering.pop(get_ident(), None)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Called by gthread with the request, before gthread makes the environ from the headers."""
        cookies = [value for name, value in req.headers if name == "COOKIE"]
        if len(cookies) > 1:  # from an HTTP/2 proxy (RFC 9113, 8.2.3); gunicorn would join the cookies by commas
            others = [field for field in req.headers if field[0] != "COOKIE"]
            req.headers = [*others, ("COOKIE", "; ".join(filter(None, cookies)))]
        # The call has its own context, because otherwise context variables would stay set for the thread's next client.
        return copy_context().run(super().handle_request, req, conn)

    def handle_http2_request(self, *arguments: Any) -> None:
        """Called by gthread with a request of an HTTP/2 connection, from gunicorn 25."""
        copy_context().run(super().handle_http2_request, *arguments)

    def run(self) -> None:
        """The loop of the worker.

        When the loop has ended, this method ends all connections, because Python waits for their threads before it
        exits.
        """
        try:
            super().run()
        finally:  # also after INT, QUIT or `--graceful-timeout`
            if self._reading or self._answering:
                self._wind_up()
                Thread(target=self._cut_off, name="wsthreads-end").start()
            report_exit_blockers(but=self.tpool._threads)  # other code reports the threads of the pool

    def _cut_off(self) -> None:
        for thread in self._drains:
            thread.join()  # `app.shutdown` has a deadline, so this does not wait for long
        with self._lock:
            for conn in [conn for _, conn in self._reading.values()] + list(self._answering.values()):
                wake(conn.sock, socket.SHUT_RDWR)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Called by the worker's loop in each of its rounds."""
        if is_ending(self):
            self._wind_up()
            timeout = min(timeout, END_STEP_S)
        super().wait_for_and_dispatch_events(timeout)

    def adopt(self, app: WebSocketApp) -> None:
        """Register an app. The app calls this at its first request in this process, in any thread."""
        self._apps.add(app)
        app.fit_to_threads(self.cfg.threads)
        app.keep_on_core(self._slot)
        if self._draining:  # the first request for the app came while the worker was ending
            self._drain(app)

    def handle_exit(self, number: int, frame: FrameType | None) -> None:
        """Called by gunicorn at TERM."""
        self._told = True
        super().handle_exit(number, frame)

    def handle_quit(self, number: int, frame: FrameType | None) -> None:
        """Called by gunicorn at INT and QUIT."""
        self._told = True
        super().handle_quit(number, frame)

    @property
    def is_replaced(self) -> bool:
        """Whether another worker takes over, which is so after a HUP, and when this worker ends by itself."""
        return bool(self._outdated[0]) or not (self._told or self.alive)

    def notify(self) -> None:
        """Called by the worker's loop every second, and once more when it stops accepting connections."""
        super().notify()
        self.tpool.catch_up()
        self._end_slow_requests()
        if is_ending(self):
            self._wind_up()

    def _wind_up(self) -> None:
        """End the connections that would delay the worker's end. Called again and again until the loop ends."""
        if not self._draining:
            self._draining = True
            self._ends_at = monotonic() + END_KEEPALIVE_S  # when keep-alive connections must end
            for app in list(self._apps):
                self._drain(app)
        for conn in self.keepalived_conns:
            conn.timeout = min(conn.timeout, self._ends_at)
        for conn in getattr(self, "pending_conns", ()):  # since gunicorn 26: connections that have not sent a byte
            conn.timeout = 0.0
        now = monotonic()
        with self._lock:
            for since, conn in self._reading.values():
                if now - since > END_HEAD_S:  # the connection's thread can still read what has arrived
                    wake(conn.sock, socket.SHUT_RD)
            # HTTP requests are ended only after all sessions, because sessions have a shutdown of their own.
            if not any(thread.is_alive() for thread in self._drains):
                self._stalls.end(conn.sock for conn in self._answering.values())

    def _end_slow_requests(self) -> None:
        """End connections whose requests arrive too slowly. Their threads see the end of the input."""
        default = Config().handshake_timeout_s
        timeout_s = max((app.config.handshake_timeout_s for app in list(self._apps)), default=default)
        now = monotonic()
        with self._lock:
            slow = [thread for thread, (since, _) in self._reading.items() if now - since > timeout_s]
            for thread in slow:
                _, conn = self._reading.pop(thread)
                wake(conn.sock, socket.SHUT_RDWR)
        if slow:
            log.debug("%s not complete after %g s", counted(len(slow), "request"), timeout_s)
            for app in list(self._apps):
                app.metrics.add("past_handshake_timeout_s", len(slow))

    def _drain(self, app: WebSocketApp) -> None:
        # This runs in a thread of its own, because the loop must continue, and notice connections that have ended.
        timeout_s = drain_timeout_s(self.cfg.graceful_timeout)
        thread = Thread(target=app.shutdown, args=(timeout_s, *farewell(self)), name="wsthreads-drain")
        self._drains.append(thread)
        thread.start()


def _has_data(sock: socket.socket, timeout_s: float) -> bool:
    """Wait until a socket is readable, for at most `timeout_s`. Returns False if it is not, or if it is closed."""
    waiting = select.poll()
    with suppress(OSError, ValueError):
        waiting.register(sock, select.POLLIN)
        return bool(waiting.poll(1000 * timeout_s))
    return False


def _linger(sock: socket.socket) -> None:
    """Wait until the client has closed its connection, as gunicorn 26 does, but in the thread of the connection.

    In the worker's loop, a client that does not close its connection would delay all other clients for two seconds.
    """
    close_graceful = getattr(util, "close_graceful", None)
    if close_graceful is not None:
        with suppress(OSError, ValueError):  # the socket is closed already
            close_graceful(socket.fromfd(sock.fileno(), sock.family, sock.type))
        wake(sock, socket.SHUT_RD)  # the loop then sees the end of the connection


class JSONLogger(_Logger):  # type: ignore[misc]
    """Writes gunicorn's logs as JSON, one object per line, in the format of `wsthreads.logs.JSONFormatter`.

    All lines are written in this way: those of the master and the workers, of wsthreads and scripts, and of the access
    log::

        gunicorn --logger-class wsthreads.gunicorn.JSONLogger -k wsthreads.gunicorn.ThreadWorker …

    A line of the access log has the keys `method`, `path`, `status`, `address` and `duration_s`. The line for a
    WebSocket session is written when the session ends. It also has the key `session`, the id of the session. The
    handlers of gunicorn's ``logconfig`` are not changed.
    """

    def setup(self, cfg: Any) -> None:
        """Called by gunicorn at its start, and when it reloads its configuration."""
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            for handler in log.handlers:
                if getattr(handler, "_gunicorn", False):  # gunicorn's mark for its own handlers
                    handler.setFormatter(JSONFormatter())
        self.access_log.addFilter(_tell_access)  # if this filter was added before, this has no effect


def _tell_access(record: logging.LogRecord) -> bool:
    """A filter that adds the parts of an access log line to its log record, as attributes."""
    atoms: Any = record.args
    # the application has replaced gunicorn's atoms, the parts of a line
    with suppress(AttributeError, LookupError, TypeError, ValueError):
        query = atoms.get("q")
        path = f"{atoms['U']}?{query}" if query else atoms["U"]
        context = access_context(atoms["h"], atoms["m"], path, atoms["s"])
        session = atoms.get(f"{{{SESSION_KEY}}}e", "-")
        if session != "-":
            context["session"] = session
        record.__dict__.update({**context, "duration_s": float(atoms["L"]), **record.__dict__})
    return True
