"""``/healthz`` and ``/readyz``, for load balancers and whoever restarts what is stuck."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from werkzeug.wrappers import Response

from wsthreads.errors import WSThreadsError
from wsthreads.loggers import get_logger

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from wsthreads.monitoring.watched import WatchedEndpoint

__all__ = ["HEALTH_PATH", "READY_PATH", "Health"]

log = get_logger(__name__)

#: 200 while the process answers at all.
HEALTH_PATH = "/healthz"

#: 200 while new sessions are taken: 503 while the app shuts down, or where a script does not run and cannot be started.
#: A server that is full is ready, or else its other requests would go nowhere, too.
READY_PATH = "/readyz"


class Health:
    """Both as a WSGI application. `is_closing` and `endpoints` are asked at each request. Any thread."""

    def __init__(self, is_closing: Callable[[], bool], endpoints: Callable[[], Iterable[WatchedEndpoint]]) -> None:
        self._is_closing = is_closing
        self._endpoints = endpoints

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            response = Response("ask by GET\n", 405, {"Allow": "GET, HEAD"})
        elif environ.get("PATH_INFO") == HEALTH_PATH:
            response = Response("ok\n")
        else:
            lack = self._lack()
            response = Response(f"not ready: {lack}\n", 503) if lack else Response("ready\n")
        response.headers["Cache-Control"] = "no-store"
        return response(environ, start_response)

    def _lack(self) -> str:
        """Why no session can be had; empty if one can."""
        if self._is_closing():
            return "shutting down"
        for endpoint in self._endpoints():
            try:
                endpoint.handler.start()  # does nothing where it runs; else the next handshake would do it
            except WSThreadsError as error:
                log.warning("not ready: the handler of %s cannot be started: %s", endpoint.path, error)
                return f"the handler of {endpoint.path} is not running"
        return ""
