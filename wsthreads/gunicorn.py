"""A gunicorn worker class: gthread, with a graceful drain and a session limit that leaves threads for HTTP.

    gunicorn -k wsthreads.gunicorn.ThreadWorker --threads 1000 'wsthreads:create_app("chat.js")'

A worker learns of the app, wherever it is inside the WSGI application, by the app finding the worker in its environ.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from random import randrange
from threading import Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

try:
    from gunicorn.workers.gthread import ThreadWorker as _ThreadWorker
except ImportError as error:
    raise ImportError("wsthreads.gunicorn needs gunicorn: pip install 'wsthreads[gunicorn]'") from error

from wsthreads.app import RESERVED_THREADS, WebSocketApp, drain_timeout_s

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ThreadWorker"]

log = logging.getLogger(__name__)

#: How long the worker's loop pauses when a connection cannot be accepted: it has other things to do as well.
EXHAUSTED_PAUSE_S = 0.05


class _Pool(ThreadPoolExecutor):
    """gthread's pool, which lives on where no thread can be started: `submit` has queued the work by then.

    Whichever of its threads is free first will do it, or one that `catch_up` starts. The worker's loop calls all.
    """

    _is_short = False

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()  # not public, and as it is since Python 3.2
        except RuntimeError as error:
            if not self._is_short:
                log.warning("a client has to wait: %s", error)
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
    """gthread for apps with WebSockets.

    When the worker is told to go (TERM, HUP, `max_requests`), its sessions are closed with 1001, each `on_close`
    runs, and the worker is gone as soon as they are. By itself gthread would wait for `--graceful-timeout` and then
    drop them. Sessions are limited to `--threads` less two. With plain ``-k gthread`` the app finds its worker by
    itself, and notices the end half a second later.

    Each worker keeps its sessions on a core of its own, as far as there are enough of them; a worker that replaces
    one takes over its core.

    Where the process has no file descriptors left, or may start no thread, gthread's worker would end, and all of its
    sessions with it; here clients wait until there are some again.
    """

    #: In the master: the workers that live. gunicorn makes a worker there, and lets go of it when its process is gone.
    _living: ClassVar[WeakSet[ThreadWorker]] = WeakSet()
    #: The slot of the first one. At random, so that the masters on a machine do not all begin with the same core.
    _first_slot: ClassVar[int] = randrange(2**16)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        taken = {worker._slot for worker in self._living}
        self._slot: int = next(nth for nth in count(self._first_slot) if nth not in taken)
        self._living.add(self)
        self._apps: set[WebSocketApp] = set()
        self._draining = False
        self._warned_at = float("-inf")

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Called by gunicorn's master before it starts workers: warn of what will not do."""
        super().check_config(cfg, log)
        if cfg.threads <= RESERVED_THREADS:
            log.warning(
                "each WebSocket session holds a thread, and there are %d: use --threads, such as 500", cfg.threads
            )
        if cfg.workers > 1:
            log.warning("rooms live in the memory of one process, so those of %d workers are apart", cfg.workers)

    def load_wsgi(self) -> None:
        super().load_wsgi()
        application: WSGIApplication = self.wsgi  # type: ignore[has-type]

        def introduce(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            environ["wsthreads.adopt"] = self.adopt
            return application(environ, start_response)

        self.wsgi = introduce

    def get_thread_pool(self) -> ThreadPoolExecutor:
        return _Pool(max_workers=self.cfg.threads)

    def accept(self, *arguments: Any) -> None:
        """Called by the worker's loop when a client waits."""
        try:
            super().accept(*arguments)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            if monotonic() - self._warned_at >= 1:
                self._warned_at = monotonic()
                log.warning("cannot accept connections: %s", error.strerror)
            sleep(EXHAUSTED_PAUSE_S)

    def adopt(self, app: WebSocketApp) -> None:
        """Called by an app, in any thread, at the first request for one of its endpoints in this process."""
        self._apps.add(app)
        app.fit_to_threads(self.cfg.threads)
        app.keep_on_core(self._slot)
        if self._draining:  # its first request came in while the worker was told to go
            self._drain(app)

    def notify(self) -> None:
        """Called by the worker's loop every second, and as soon as it stops accepting."""
        super().notify()
        self.tpool.catch_up()
        if not self.alive and not self._draining:
            self._draining = True
            for app in list(self._apps):
                self._drain(app)

    def _drain(self, app: WebSocketApp) -> None:
        # Not in this thread: the loop has to go on, it counts the connections that end.
        timeout_s = drain_timeout_s(self.cfg.graceful_timeout)
        Thread(target=app.shutdown, args=(timeout_s,), name="wsthreads-drain").start()
