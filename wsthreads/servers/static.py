"""A WSGI application that serves the files of a directory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from werkzeug.exceptions import NotFound, RequestedRangeNotSatisfiable
from werkzeug.utils import append_slash_redirect, send_from_directory
from werkzeug.wrappers import Response

from wsthreads.errors import UsageError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["StaticFiles", "send_part"]


class StaticFiles:
    """Serves the files of `directory`, and ``index.html`` for a folder. Passes all other requests on to `wsgi_app`.

    Paths and symbolic links cannot lead out of the directory; the directory itself may be a symbolic link. Names that
    begin with a dot (``.git``, ``.env``) are not served, except ``.well-known``. Browsers revalidate each time, and get
    a 304 for an unchanged file. Raises `UsageError` if `directory` is not a directory. Any thread.
    """

    def __init__(self, directory: str | os.PathLike[str], wsgi_app: WSGIApplication | None = None) -> None:
        if not os.fspath(directory) or not os.path.isdir(directory):
            raise UsageError(f"{os.fspath(directory) or repr('')}: not a directory")
        self.directory = Path(directory).absolute()
        self._wsgi_app = wsgi_app or NotFound()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return (self.find(environ) or self._wsgi_app)(environ, start_response)

    def find(self, environ: WSGIEnvironment) -> Response | None:
        """The response to a request for a file; None if there is no such file."""
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace").lstrip("/")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD") or _is_hidden(path):
            return None
        if not path or path.endswith("/"):
            path += "index.html"
        if not self._is_inside(path):
            return None
        if os.path.isfile(self.directory / path / "index.html"):
            return append_slash_redirect(environ)
        try:
            return send_part(partial(send_from_directory, self.directory, path), environ)
        except NotFound:  # not found, or outside the directory
            return None

    def _is_inside(self, path: str) -> bool:
        """Whether `path` is inside the directory after resolving all symbolic links."""
        root = os.path.realpath(self.directory)
        return os.path.commonpath((root, os.path.realpath(os.path.join(root, path)))) == root


def send_part(send: Callable[[WSGIEnvironment], Response], environ: WSGIEnvironment) -> Response:
    """The response of `send`, cut to the requested byte range (RFC 9110, 14).

    If the range begins after the end of the file, the response is a 416. The response is the whole file if the header
    Range is malformed, has a unit but bytes, has several ranges or comes with HEAD. It is also the whole file if the
    file is empty or has changed (If-Range). Werkzeug would refuse most of these, and would check a range before
    If-None-Match.
    """
    plain = {name: value for name, value in environ.items() if name not in ("HTTP_RANGE", "HTTP_IF_RANGE")}
    whole = send(plain)
    whole.headers.pop("Date", None)  # the server adds its own
    part = _part_of(whole.content_length or 0, environ.get("HTTP_RANGE", ""))
    if part is None or whole.status_code != 200 or environ["REQUEST_METHOD"] != "GET":
        return whole
    validator = environ.get("HTTP_IF_RANGE")
    if validator is not None and validator.strip(" \t") not in map(whole.headers.get, ("ETag", "Last-Modified")):
        return whole
    whole.close()
    try:
        response = send({**plain, "HTTP_RANGE": part})
    except RequestedRangeNotSatisfiable as error:
        headers = {"Content-Range": f"bytes */{error.length}", "Accept-Ranges": "bytes"}
        return Response(f"the file has {error.length} bytes\n", 416, headers, mimetype="text/plain")
    response.headers.pop("Date", None)
    return response


#: A single range, with optional empty list elements around it (RFC 9110, 5.6.1).
_RANGE = re.compile(r"bytes=[ \t,]*([0-9]{0,1000})-([0-9]{0,1000})[ \t,]*", re.ASCII | re.IGNORECASE)


def _part_of(size: int, wanted: str) -> str | None:
    """The range of a Range header in werkzeug's form.

    Returns None if there is no range, or if the header is ignored.
    """
    match = _RANGE.fullmatch(wanted.strip(" \t"))
    if match is None or not size:
        return None
    first, last = match.groups()
    if not first:  # the last bytes of the file
        return f"bytes={max(0, size - int(last)):d}-" if last else None
    if last and int(last) < int(first):
        return None
    return f"bytes={first}-{last}"


def _is_hidden(path: str) -> bool:
    """Whether a part of the path begins with a dot, as `..` does. Also True for a path with NUL, which is no file."""
    return "\0" in path or any(part.startswith(".") and part != ".well-known" for part in path.split("/"))
