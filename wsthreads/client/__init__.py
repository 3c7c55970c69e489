"""The clients: `Client` for Python, and wsthreads.js for browsers, which this package serves over HTTP.

`wsthreads.js` is an ES module without dependencies. `wsthreads.min.js` is the same module, minified by esbuild.
`wsthreads.d.ts` has its types. With the setting `serve_client`, an app serves the minified module as `/wsthreads.js`,
and also the types. The responses have CORS headers, so pages of `allowed_origins` may import the module from this
server. Such a request needs no preflight request.

In this package, the *engine* is the thread of a `Client`. The *dialogue* is the state of a session in ``wsthreads.1``,
the subprotocol that resumes sessions (see `protocol.envelope`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from werkzeug.utils import send_file

from wsthreads.origins import is_among
from wsthreads.servers.static import send_part

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from werkzeug.wrappers import Response

__all__ = ["CLIENT_FILE", "find_client", "is_client", "send_client"]

#: The file that is served as wsthreads.js.
CLIENT_FILE = Path(__file__).with_name("wsthreads.min.js")

#: For each path: the file and its media type.
_SERVED = {
    "/wsthreads.js": (CLIENT_FILE, "text/javascript"),
    "/wsthreads.d.ts": (CLIENT_FILE.with_name("wsthreads.d.ts"), "application/typescript"),
}


def is_client(environ: WSGIEnvironment) -> bool:
    """Whether the request is for wsthreads.js or its types."""
    return environ.get("PATH_INFO") in _SERVED and environ.get("REQUEST_METHOD") in ("GET", "HEAD")


def send_client(
    environ: WSGIEnvironment, start_response: StartResponse, allowed_origins: tuple[str, ...] = ()
) -> Iterable[bytes]:
    """A WSGI application that serves wsthreads.js and its types.

    Browsers ask for changes each time, and get a 304 if there are none.
    """
    response = find_client(environ, *_SERVED[environ["PATH_INFO"]])
    if "*" in allowed_origins:
        response.headers["Access-Control-Allow-Origin"] = "*"
    elif allowed_origins:
        response.headers["Vary"] = "Origin"
        origin = environ.get("HTTP_ORIGIN", "").strip(" \t")
        if is_among(origin, allowed_origins):
            response.headers["Access-Control-Allow-Origin"] = origin
    return response(environ, start_response)


def find_client(environ: WSGIEnvironment, file: Path = CLIENT_FILE, kind: str = "text/javascript") -> Response:
    """Returns the response to a request for wsthreads.js or its types."""
    return send_part(partial(send_file, file, mimetype=kind, conditional=True), environ)
