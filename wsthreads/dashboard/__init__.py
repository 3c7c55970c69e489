"""The page about a running server: its endpoints with their functions and sessions, and a client to try them with.

It lives at ``/_wsthreads/``, and ``/`` leads there unless something else is at ``/``. Nothing on it is loaded from
elsewhere, and its Content-Security-Policy lets it talk to its own server only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import NotFound
from werkzeug.utils import redirect
from werkzeug.wrappers import Response

from wsthreads.handlers import HOOKS, PythonHandler
from wsthreads.static import StaticFiles

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from wsthreads.endpoint import Endpoint

__all__ = ["PREFIX", "STATUS_PATH", "Dashboard", "function_names", "spelled", "status_of"]

#: Where the page is.
PREFIX = "/_wsthreads/"

#: What it asks for every two seconds: `status_of`, as JSON.
STATUS_PATH = PREFIX + "status.json"

_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]+")


class Dashboard:
    """The page as a WSGI application; what is not its own goes to `wsgi_app`. Any thread.

    `endpoints` gives those that there are, for each request anew.
    """

    def __init__(self, endpoints: Callable[[], Iterable[Endpoint]], wsgi_app: WSGIApplication | None = None) -> None:
        self._endpoints = endpoints
        self._files = StaticFiles(Path(__file__).parent / "page")
        self._wsgi_app = wsgi_app or NotFound()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        response = self._answer(environ) if environ["REQUEST_METHOD"] in ("GET", "HEAD") else None
        return (response or self._wsgi_app)(environ, start_response)

    def _answer(self, environ: WSGIEnvironment) -> Response | None:
        path = environ.get("PATH_INFO", "")
        if path in ("", "/", PREFIX.rstrip("/")):
            return redirect(environ.get("SCRIPT_NAME", "") + PREFIX)
        response: Response | None = None
        if path == STATUS_PATH:
            response = Response(json.dumps(status_of(self._endpoints())), mimetype="application/json")
            response.headers["Cache-Control"] = "no-store"
        elif path.startswith(PREFIX):
            response = self._files.find({**environ, "PATH_INFO": path[len(PREFIX) - 1 :]})
        if response is not None:
            response.headers.update(_security_headers(environ.get("HTTP_HOST", "")))
        return response


def _security_headers(host: str) -> dict[str, str]:
    # Not every browser takes 'self' to mean the WebSockets of the same host too.
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


def status_of(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """What the page shows, as plain data."""
    return {
        "endpoints": [
            {
                "path": endpoint.path,
                "handler": endpoint.handler.name,
                "functions": function_names(endpoint),
                "sessions": endpoint.session_count(),
            }
            for endpoint in endpoints
        ]
    }


def function_names(endpoint: Endpoint) -> list[str]:
    """The functions of an endpoint's handler, as `spelled`."""
    return spelled(endpoint.handler.hooks, in_script=not isinstance(endpoint.handler, PythonHandler))


def spelled(hooks: Collection[str], *, in_script: bool) -> list[str]:
    """Handler functions in the order of a session's life, and as their author spells them.

    >>> spelled({"on_message", "on_open"}, in_script=True)
    ['onOpen', 'onMessage']
    """
    names = [hook for hook in HOOKS if hook in hooks]
    return ["on" + name[len("on_") :].capitalize() for name in names] if in_script else names
