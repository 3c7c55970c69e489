"""The dashboard: a page about the running server.

The page shows endpoints, sessions, rooms, load and errors, and has a client for trying an endpoint. A *viewer* is an
open page.

The path of the page is ``/_wsthreads/``. With ``wsthreads run``, ``/`` redirects to this path unless ``/`` is in use.
The page loads nothing from other servers, and its Content-Security-Policy allows connections only to its own server.
Its data comes over a WebSocket: see `wsthreads.dashboard.live`. `wsthreads.dashboard.access` decides who may use the
page.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path
from time import thread_time
from typing import TYPE_CHECKING, Any, Protocol
from weakref import finalize

from werkzeug.exceptions import NotFound
from werkzeug.utils import redirect
from werkzeug.wrappers import Response

from wsthreads.client import find_client
from wsthreads.dashboard.access import Access, bearer_token
from wsthreads.dashboard.events import Events
from wsthreads.dashboard.live import Live
from wsthreads.dashboard.sampler import Sampler
from wsthreads.dashboard.workers import OtherProcesses, Workers
from wsthreads.monitoring.metrics import Metrics
from wsthreads.protocol.wsgi_servers import gunicorn_worker
from wsthreads.servers.static import StaticFiles
from wsthreads.sessions.admission import Admission
from wsthreads.sessions.endpoint import Endpoint
from wsthreads.sessions.handlers import PythonHandler
from wsthreads.sessions.hooks import SCRIPT_HOOKS
from wsthreads.threads.flusher import Flusher, weakly

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from wsthreads.config import Config

__all__ = ["MAX_VIEWERS", "PREFIX", "Dashboard", "function_names", "spelled"]

#: The paths of the page, of its WebSocket, and of the check whether a token is needed and whether it is correct.
PREFIX = "/_wsthreads/"
LIVE_PATH = PREFIX + "live"
STATUS_PATH = PREFIX + "status.json"
CLIENT_PATH = PREFIX + "wsthreads.js"

#: At most this many pages may be open at once. Each page uses a thread, like every session.
MAX_VIEWERS = 8

#: The largest message of a viewer, which can contain a broadcast, and the limit for the queue of a slow viewer.
MAX_MESSAGE_BYTES = 1024 * 1024
MAX_MESSAGES_PER_S = 20
MAX_OUTBOX_BYTES = 4 * 1024 * 1024

#: The seconds between two samples while no page is open. A page shows these samples when it opens.
IDLE_INTERVAL_S = 5.0

#: At the shutdown, the server waits for a page's close frame for at most this long.
CLOSE_TIMEOUT_S = 1.0

_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]+")


class ShownApp(Protocol):
    """The part of an app, such as `wsthreads.WebSocketApp`, that the dashboard needs."""

    @property
    def config(self) -> Config:
        """The settings of the app."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All endpoints of the app."""


class Dashboard:
    """The dashboard of one app: a WSGI application for the paths that it `owns`, and an endpoint. Any thread.

    Viewers need `token`, unless it is empty. `reloads` says whether the server reloads handlers that change, which the
    page shows. From the constructor to `stop`, the dashboard reads what `logger` and its child loggers log. The app
    calls `serve`.
    """

    def __init__(self, token: str = "", *, logger: str = "wsthreads", reloads: bool = False) -> None:
        self._reloads = reloads
        self.access = Access(token)
        #: Counts and limits the viewers, which are not counted as sessions of the app.
        self.admission = Admission(MAX_VIEWERS)
        self._files = StaticFiles(Path(__file__).parent / "page")
        self._events = Events(but=LIVE_PATH)
        self._events.attach(logging.getLogger(logger))
        finalize(self, self._events.detach).atexit = False
        self._sampled_in = 0  # the id of the process that takes samples

    def serve(
        self, app: ShownApp, make_endpoint: Callable[..., Endpoint], others: OtherProcesses | None = None
    ) -> Endpoint:
        """Create the endpoint that sends the page the data about `app`.

        The endpoint also asks the `others`, which are other processes, for their data.
        """
        self._app = app
        self._sampler = Sampler(lambda: app.endpoints)
        self._workers = Workers(lambda: app.endpoints, others)
        live = Live(lambda: app.endpoints, self._workers, self._specification, self._events, self._sampler, self.access)
        metrics = Metrics()
        self.endpoint = make_endpoint(
            LIVE_PATH,
            PythonHandler(live, metrics),
            metrics,
            config=_config_for_viewers(app.config, with_token=self.access.needs_token),
            admission=self.admission,
            log_level=logging.DEBUG,  # viewers need no log lines at the level info
        )
        return self.endpoint

    def start(self, flusher: Flusher) -> None:
        """Begin to take samples in this process, with a timer of `flusher`, which is running. Idempotent."""
        if self._sampled_in != os.getpid():
            self._sampled_in = os.getpid()
            self._sampler.forget()
            self._tick(flusher)

    def _tick(self, flusher: Flusher) -> None:
        """Take a sample.

        If samples take long, they are taken less often, so that they use at most a thousandth of a core.

        Called by the flusher.
        """
        began_s = thread_time()
        self._events.attach_again()
        self._sampler.take(IDLE_INTERVAL_S * 0.9)
        flusher.call_later(max(IDLE_INTERVAL_S, 1000 * (thread_time() - began_s)), weakly(self._tick, flusher))

    def close_viewers(self, code: int, reason: str) -> None:
        """Refuse new viewers, and begin to close the open pages. Does not block."""
        if self.admission.close(code, reason):
            for connection in self.endpoint.connections():
                connection.channel.begin_close(code, reason)
                connection.channel.hasten_close(CLOSE_TIMEOUT_S)

    def stop(self, timeout_s: float) -> None:
        """Wait for at most `timeout_s` until the pages are closed, then cut off the rest. Stops reading the log."""
        if not self.admission.wait_empty(timeout_s):
            self.endpoint.cut_off()
            self.admission.wait_empty(CLOSE_TIMEOUT_S)
        self._events.detach()

    def owns(self, path: str) -> bool:
        """Whether the dashboard serves this path."""
        return path.startswith(PREFIX) or path == PREFIX.rstrip("/")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        response = self._answer(environ) if environ["REQUEST_METHOD"] in ("GET", "HEAD") else None
        return (response or NotFound())(environ, start_response)

    def lead_here(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """A WSGI application that redirects ``/`` to the page, and answers all other paths with a 404."""
        is_root = environ.get("PATH_INFO", "") in ("", "/") and environ["REQUEST_METHOD"] in ("GET", "HEAD")
        response = redirect(environ.get("SCRIPT_NAME", "") + PREFIX) if is_root else NotFound()
        return response(environ, start_response)

    def _answer(self, environ: WSGIEnvironment) -> Response | None:
        path = environ.get("PATH_INFO", "")
        if not path.startswith(PREFIX):
            return redirect(environ.get("SCRIPT_NAME", "") + PREFIX)
        response: Response | None
        if path == STATUS_PATH:
            response = self._status(environ)
        elif path == CLIENT_PATH:
            response = find_client(environ)
        else:
            response = self._files.find({**environ, "PATH_INFO": path[len(PREFIX) - 1 :]})
        if response is not None:
            response.headers.update(_security_headers(environ.get("HTTP_HOST", "")))
        return response

    def _status(self, environ: WSGIEnvironment) -> Response:
        """Returns a response that says whether a token is needed, and whether the given one is correct.

        The page asks for this, because browsers do not tell a page why the server has refused a WebSocket.
        """
        complaint = self.access.complaint(environ, bearer_token(environ))
        status: dict[str, Any] = {"token": self.access.needs_token}
        if complaint:
            status["error"] = complaint
        response = Response(json.dumps(status), 403 if complaint else 200, mimetype="application/json")
        response.headers["Cache-Control"] = "no-store"
        return response

    def _specification(self) -> dict[str, Any]:
        """Returns what the page needs to know about the app."""
        return {
            "version": sys.modules["wsthreads"].__version__,  # an import of the package would be circular
            "reload": self._reloads,
            "process": "development" if gunicorn_worker() is None else f"gunicorn worker {os.getpid()}",
            "subprotocols": list(self._app.config.subprotocols),
            "endpoints": [
                {
                    "path": endpoint.path,
                    "handler": endpoint.handler.name,
                    "functions": function_names(endpoint),
                    "language": _language_of(endpoint),
                }
                for endpoint in self._app.endpoints
            ],
        }


def _config_for_viewers(config: Config, *, with_token: bool) -> Config:
    """Returns the settings for the page's endpoint.

    Pages of `allowed_origins` are not pages of the operator. So they may connect only if the dashboard needs a token.
    """
    return replace(
        config,
        allowed_origins=config.allowed_origins if with_token else (),
        subprotocols=(),
        compression=False,  # the size of compressed messages could reveal what TLS hides
        max_message_bytes=MAX_MESSAGE_BYTES,
        max_messages_per_s=MAX_MESSAGES_PER_S,
        max_outbox_bytes=MAX_OUTBOX_BYTES,
        idle_timeout_s=0.0,
    )


def _language_of(endpoint: Endpoint) -> str:
    if isinstance(endpoint.handler, PythonHandler):
        return "python"
    return "typescript" if endpoint.handler.name.endswith(".ts") else "javascript"


def _security_headers(host: str) -> dict[str, str]:
    # Some browsers do not allow WebSockets to the same host because of 'self' alone.
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'{sockets}; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def function_names(endpoint: Endpoint) -> list[str]:
    """Returns the names of an endpoint's handler functions, as the language of the handler spells them."""
    return spelled(endpoint.handler.hooks, in_script=not isinstance(endpoint.handler, PythonHandler))


def spelled(hooks: Collection[str], *, in_script: bool) -> list[str]:
    """Returns names of handler functions as the handler's language spells them, in the order of a session's life.

    >>> spelled({"on_message", "on_open"}, in_script=True)
    ['onOpen', 'onMessage']
    """
    names = [hook for hook in SCRIPT_HOOKS if hook in hooks]
    return [_camel_case(name) for name in names] if in_script else names


def _camel_case(name: str) -> str:
    """Returns the name of a handler function as scripts spell it.

    >>> _camel_case("on_room_start")
    'onRoomStart'
    """
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
