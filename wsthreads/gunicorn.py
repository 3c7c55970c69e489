"""A gunicorn worker class with an orderly shutdown.

    gunicorn -k wsthreads.gunicorn.ThreadWorker --threads 1000 'wsthreads:create_app("chat.js")'

A worker learns of the app, wherever it is inside the WSGI application, by the app finding the worker in its environ.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from mmap import mmap
from random import SystemRandom
from threading import Lock, RLock, Thread, get_ident
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
from wsthreads.errors import WSThreadsError
from wsthreads.monitoring.logs import SESSION_KEY, JSONFormatter, access_context, log_to_gunicorn
from wsthreads.protocol.fitness import green_threads
from wsthreads.protocol.hosts import is_ending
from wsthreads.servers.contained import Contained
from wsthreads.servers.stalled_clients import StalledClients, wake
from wsthreads.threads.exit_blockers import report_exit_blockers

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["JSONLogger", "ThreadWorker"]

log = get_logger(__name__)

#: How long the worker's loop pauses when a connection cannot be accepted: it has other things to do as well.
EXHAUSTED_PAUSE_S = 0.05


#: A worker that is full leaves a client to the others for so long, at most. If none takes it, they are full too, or
#: busy: the worker accepts it, for it may want something other than a session, and waits for nobody for a while.
LEAVE_S = 0.05
LEAVE_STEP_S = 0.002
LEAVE_AGAIN_S = 1.0

#: A worker that is to go looks at its connections this often.
END_STEP_S = 0.1

#: The head of a request that is on its way then has so long to come in, from when it began.
END_HEAD_S = 0.5

#: A connection that is kept alive stays so long then, for a request that may be on its way; gunicorn from 26 on has it.
END_KEEPALIVE_S = 2.0


class _Pool(ThreadPoolExecutor):
    """gthread's pool, which lives on where no thread can be started: `submit` has queued the work by then.

    Whichever of its threads is free first will do it, or one that `catch_up` starts. The worker's loop calls all.
    At INT and QUIT gunicorn calls `shutdown` in a signal's handler, and so perhaps in the midst of `submit`.
    """

    _is_short = False

    def __init__(self, max_workers: int) -> None:
        super().__init__(max_workers)
        # A Lock there, and the worker would wait for itself.
        self._shutdown_lock = RLock()  # type: ignore[assignment]

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()  # not public, and as it is since Python 3.2
        except RuntimeError as error:
            if not self._is_short:
                log.warning("a client has to wait: %s (see ulimit -u, TasksMax, pids-limit)", error)
            self._is_short = True

    def catch_up(self) -> None:
        """Start the threads that could not be started, as far as there is work for them."""
        while self._is_short and not self._work_queue.empty():
            before = len(self._threads)
            self._adjust_thread_count()
            if len(self._threads) == before:
                return  # none is to be had, or one is idle: see at the next call
        self._is_short = False


class ThreadWorker(_ThreadWorker):  # type: ignore[misc]  # gunicorn has no annotations
    """gthread for apps with WebSockets. It differs from gthread as follows.

    - At its end, the worker closes its sessions, runs each `on_close`, and exits as soon as they are done. Clients get
      1012 if another worker takes over (HUP, `max_requests`, `--reload`), else 1001. Plain ``-k gthread`` notices the
      end half a second later, and closes with 1001 at a HUP, too.
    - Sessions are limited to `--threads` less two, so that threads are left for HTTP.
    - A full worker leaves new clients to other workers, as long as one of them has room.
    - A client must send the head of its request within `handshake_timeout_s` (10 s before the first request to an app).
      gthread waits without a limit, so a few clients could take all threads.
    - HTTP clients with unfinished requests or answers do not delay the worker's end.
    - Without file descriptors or threads, new clients wait. The worker of gthread would end, with all of its sessions.
    - Each worker keeps its sessions on a core of its own, as far as there are enough cores. A worker that replaces
      another one takes over its core.
    - A script that does not load, or a setting out of range, is one line of the log, and gunicorn ends. Lines of
      wsthreads and of scripts go to gunicorn's error log.
    """

    #: In the master: the workers that live. gunicorn makes a worker there, and lets go of it when its process is gone.
    _living: ClassVar[WeakSet[ThreadWorker]] = WeakSet()
    #: The slot of the first one. At random, so that the masters on a machine do not all begin with the same core.
    _first_slot: ClassVar[int] = SystemRandom().randrange(2**16)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        taken = {worker._slot for worker in self._living}
        self._slot: int = next(nth for nth in count(self._first_slot) if nth not in taken)
        self._living.add(self)
        self._apps: set[WebSocketApp] = set()
        self._draining = False
        self._warned_at = float("-inf")
        self._alone_at = float("-inf")  # when no other worker took a client that was left to them
        self._told = False  # to go, by a signal
        #: One byte that the master shares with the worker: not 0 once there are workers of a later configuration.
        self._outdated = mmap(-1, 1)
        for worker in self._living:
            if worker.cfg is not self.cfg:
                worker._outdated[0] = 1
        #: Threads that read the head of a request: since when, and from where.
        self._reading: dict[int, tuple[float, Any]] = {}
        #: Threads that answer a request, those of sessions included, and the connection of each.
        self._answering: dict[int, Any] = {}
        self._lock = Lock()  # guards these two; a leaf. Under it, a socket that is in there is its thread's own still
        self._stalls = StalledClients()
        self._ends_at = float("inf")
        self._drains: list[Thread] = []

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Called by gunicorn's master before it starts workers: warn of what will not do."""
        super().check_config(cfg, log)
        if cfg.threads <= RESERVED_THREADS:
            log.warning(
                "each WebSocket session holds a thread, and there are %d: use --threads, such as 500", cfg.threads
            )

    def load_wsgi(self) -> None:
        log_to_gunicorn()
        try:
            super().load_wsgi()
        except WSThreadsError as error:
            raise AppImportError(str(error)) from error
        if unfit := green_threads():  # by now, as by a module that the application imports
            raise AppImportError(unfit)
        log_to_gunicorn()  # the application may have configured logging
        application: WSGIApplication = Contained(self.wsgi)  # type: ignore[has-type]  # what is around an app, too

        def introduce(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            with self._lock:
                _, conn = self._reading.pop(get_ident(), (0.0, None))
                if conn is not None:
                    self._answering[get_ident()] = conn
            environ["wsthreads.adopt"] = self.adopt
            return application(environ, start_response)

        self.wsgi = introduce

    def get_thread_pool(self) -> ThreadPoolExecutor:
        return _Pool(max_workers=self.cfg.threads)

    def accept(self, listener: Any, *arguments: Any) -> None:
        """Called by the worker's loop when a client waits."""
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
        """Wait until another worker has accepted; False if none does."""
        waiting = select.poll()
        waiting.register(listener, select.POLLIN)
        deadline = monotonic() + LEAVE_S
        while monotonic() < deadline:
            sleep(LEAVE_STEP_S)
            if not waiting.poll(0):
                return True
        return False

    def _is_full(self) -> bool:
        """Whether a session more would find no place here, but perhaps in another worker."""
        apps = list(self._apps)
        if self.cfg.workers == 1 or not apps or not any(app.places for app in apps):
            return False  # nobody could do better
        return max(app.free_places for app in apps) <= len(self._reading)

    def handle(self, conn: Any) -> Any:
        """Called by gthread in one of its threads: read a request from a connection, and answer it."""
        with self._lock:
            self._reading[get_ident()] = (monotonic(), conn)
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
        """Called by gthread with the request, whose headers it then makes the environ of."""
        cookies = [value for name, value in req.headers if name == "COOKIE"]
        if len(cookies) > 1:  # HTTP/2's, by a proxy that does not join them (RFC 9113, 8.2.3); gunicorn takes commas
            others = [field for field in req.headers if field[0] != "COOKIE"]
            req.headers = [*others, ("COOKIE", "; ".join(filter(None, cookies)))]
        return super().handle_request(req, conn)

    def run(self) -> None:
        """The worker's loop. Python does not end before the threads do, and whoever waits for a client does not."""
        try:
            super().run()
        finally:  # of INT and QUIT, or of `--graceful-timeout`
            if self._reading or self._answering:
                self._wind_up()
                Thread(target=self._cut_off, name="wsthreads-end").start()
            report_exit_blockers(but=self.tpool._threads)  # which are told of where they are waited for

    def _cut_off(self) -> None:
        for thread in self._drains:
            thread.join()  # `app.shutdown` has a time limit
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
        """Called by an app, in any thread, at the first request for one of its endpoints in this process."""
        self._apps.add(app)
        app.fit_to_threads(self.cfg.threads)
        app.keep_on_core(self._slot)
        if self._draining:  # its first request came in while the worker was told to go
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
        """Whether a worker that ends has a successor: after a HUP, or where it ends by itself."""
        return bool(self._outdated[0]) or not (self._told or self.alive)

    def notify(self) -> None:
        """Called by the worker's loop every second, and as soon as it stops accepting."""
        super().notify()
        self.tpool.catch_up()
        self._end_slow_requests()
        if is_ending(self):
            self._wind_up()

    def _wind_up(self) -> None:
        """Wait for nobody who keeps the worker without need. The loop's, again and again until it ends."""
        if not self._draining:
            self._draining = True
            self._ends_at = monotonic() + END_KEEPALIVE_S  # the time of connections that are kept alive
            for app in list(self._apps):
                self._drain(app)
        for conn in self.keepalived_conns:
            conn.timeout = min(conn.timeout, self._ends_at)
        for conn in getattr(self, "pending_conns", ()):  # gunicorn's from 26 on: those that have not sent a byte
            conn.timeout = 0.0
        now = monotonic()
        with self._lock:
            for since, conn in self._reading.values():
                if now - since > END_HEAD_S:  # what has come of it can still be read
                    wake(conn.sock, socket.SHUT_RD)
            # While there may be sessions, whose ends are not HTTP's, nobody is given up.
            if not any(thread.is_alive() for thread in self._drains):
                self._stalls.end(conn.sock for conn in self._answering.values())

    def _end_slow_requests(self) -> None:
        """End the connections whose requests take too long to come in; their threads see the end of input."""
        default = Config().handshake_timeout_s
        timeout_s = max((app.config.handshake_timeout_s for app in list(self._apps)), default=default)
        now = monotonic()
        with self._lock:
            slow = [thread for thread, (since, _) in self._reading.items() if now - since > timeout_s]
            for thread in slow:
                _, conn = self._reading.pop(thread)
                wake(conn.sock, socket.SHUT_RDWR)
        if slow:
            log.debug("%d requests were not complete after %g s", len(slow), timeout_s)
            for app in list(self._apps):
                app.metrics.add("past_handshake_timeout_s", len(slow))

    def _drain(self, app: WebSocketApp) -> None:
        # Not in this thread: the loop has to go on, it counts the connections that end.
        timeout_s = drain_timeout_s(self.cfg.graceful_timeout)
        thread = Thread(target=app.shutdown, args=(timeout_s, *farewell(self)), name="wsthreads-drain")
        self._drains.append(thread)
        thread.start()


def _linger(sock: socket.socket) -> None:
    """Wait until the client has closed, as long as gunicorn does from 26 on. It would do so in the worker's loop, where
    each client that does not close would keep everybody else out for two seconds.
    """
    close_graceful = getattr(util, "close_graceful", None)
    if close_graceful is not None:
        with suppress(OSError, ValueError):  # it has been closed
            close_graceful(socket.fromfd(sock.fileno(), sock.family, sock.type))
        wake(sock, socket.SHUT_RD)  # so that the loop finds its end


class JSONLogger(_Logger):  # type: ignore[misc]
    """gunicorn's logs as JSON, one object for each line, as `wsthreads.logs.JSONFormatter` writes them.

    This covers the lines of the master and the workers, of wsthreads and scripts, and of the access log::

        gunicorn --logger-class wsthreads.gunicorn.JSONLogger -k wsthreads.gunicorn.ThreadWorker …

    A line of the access log has `method`, `path`, `status`, `address` and `duration_s`. The line of a session comes
    at its end, and has its `session`. Handlers that gunicorn's ``logconfig`` sets up stay as they are.
    """

    def setup(self, cfg: Any) -> None:
        """Called by gunicorn at its start, and when its configuration is read again."""
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            for handler in log.handlers:
                if getattr(handler, "_gunicorn", False):  # gunicorn's mark for its own
                    handler.setFormatter(JSONFormatter())
        self.access_log.addFilter(_tell_access)  # once, however often


def _tell_access(record: logging.LogRecord) -> bool:
    """A filter: what a line of the access log is made of becomes attributes of its record."""
    atoms: Any = record.args
    if isinstance(atoms, dict) and "s" in atoms:
        query = atoms.get("q")
        path = f"{atoms['U']}?{query}" if query else atoms["U"]
        record.__dict__.update(access_context(atoms["h"], atoms["m"], path, atoms["s"]), duration_s=float(atoms["L"]))
        session = atoms.get(f"{{{SESSION_KEY}}}e", "-")
        if session != "-":
            record.__dict__["session"] = session
    return True
