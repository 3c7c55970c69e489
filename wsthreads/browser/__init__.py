"""The browser's client, wsthreads.js, over HTTP.

`wsthreads.js` is an ES module without dependencies, `wsthreads.d.ts` its types. The setting `serve_client` has an app
serve it at `CLIENT_PATH`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from werkzeug.utils import send_file

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["CLIENT_FILE", "CLIENT_PATH", "is_client", "send_client"]

#: Where it is served.
CLIENT_PATH = "/wsthreads.js"

#: The module itself.
CLIENT_FILE = Path(__file__).with_name("wsthreads.js")


def is_client(environ: WSGIEnvironment) -> bool:
    """Whether the request is for the client."""
    return environ.get("PATH_INFO") == CLIENT_PATH and environ.get("REQUEST_METHOD") in ("GET", "HEAD")


def send_client(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The client, as a WSGI application. Browsers ask again each time, and get a 304 while it is the same."""
    response = send_file(CLIENT_FILE, environ, mimetype="text/javascript", conditional=True)
    response.headers.pop("Date", None)  # the server adds its own
    return response(environ, start_response)
