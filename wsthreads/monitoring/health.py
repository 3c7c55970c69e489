"""``/healthz`` and ``/readyz``, for load balancers and process managers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from werkzeug.wrappers import Response

from wsthreads.errors import WSThreadsError
from wsthreads.loggers import get_logger

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from wsthreads.monitoring.interfaces import MonitoredEndpoint

__all__ = ["HEALTH_PATH", "READY_PATH", "Health"]

log = get_logger(__name__)

#: This path answers 200 as long as the process can respond.
HEALTH_PATH = "/healthz"

#: This path answers 200 while the app accepts new sessions. It answers 503 while the app shuts down, or if a script is
#: not running and cannot be started. A full server still answers 200, because a load balancer would otherwise send it
#: no HTTP requests either.
READY_PATH = "/readyz"


class Health:
    """A WSGI application for both paths. It calls `is_closing` and `endpoints` for each request. Any thread."""

    def __init__(self, is_closing: Callable[[], bool], endpoints: Callable[[], Iterable[MonitoredEndpoint]]) -> None:
        self._is_closing = is_closing
        self._endpoints = endpoints

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            response = Response("use GET\n", 405, {"Allow": "GET, HEAD"})
        elif environ.get("PATH_INFO") == HEALTH_PATH:
            response = Response("ok\n")
        else:
            lack = self._lack()
            response = Response(f"not ready: {lack}\n", 503) if lack else Response("ready\n")
        response.headers["Cache-Control"] = "no-store"
        return response(environ, start_response)

    def _lack(self) -> str:
        """Returns the reason why the app accepts no sessions. Empty if it accepts sessions."""
        if self._is_closing():
            return "shutting down"
        for endpoint in self._endpoints():
            try:
                endpoint.handler.start()  # does nothing if the handler is running; the next handshake would do the same
            except WSThreadsError as error:
                log.warning("not ready: the handler of %s cannot be started: %s", endpoint.path, error)
                return f"the handler of {endpoint.path} is not running"
        return ""
