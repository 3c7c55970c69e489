"""A gunicorn worker class: gthread, with a graceful drain and a session limit that leaves threads for HTTP.

    gunicorn -k wsthreads.gunicorn.ThreadWorker --threads 1000 'wsthreads:create_app("chat.js")'

A worker learns of the app, wherever it is inside the WSGI application, by the app finding the worker in its environ.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from random import randrange
from threading import Thread
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


class ThreadWorker(_ThreadWorker):  # type: ignore[misc]  # gunicorn has no annotations
    """gthread for apps with WebSockets.

    When the worker is told to go (TERM, HUP, `max_requests`), its sessions are closed with 1001, each `on_close`
    runs, and the worker is gone as soon as they are. By itself gthread would wait for `--graceful-timeout` and then
    drop them. Sessions are limited to `--threads` less two. With plain ``-k gthread`` the app finds its worker by
    itself, and notices the end half a second later.

    Each worker keeps its sessions on a core of its own, as far as there are enough of them; a worker that replaces
    one takes over its core.
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
        if not self.alive and not self._draining:
            self._draining = True
            for app in list(self._apps):
                self._drain(app)

    def _drain(self, app: WebSocketApp) -> None:
        # Not in this thread: the loop has to go on, it counts the connections that end.
        timeout_s = drain_timeout_s(self.cfg.graceful_timeout)
        Thread(target=app.shutdown, args=(timeout_s,), name="wsthreads-drain").start()
