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

    Paths and symbolic links cannot lead out of the directory. The directory itself may be a symbolic link. Names that
    begin with a dot (``.git``, ``.env``) are not served, except ``.well-known``. Browsers ask each time whether a file
    has changed, and get a 304 if it has not. Raises `UsageError` if `directory` is not a directory. Any thread.
    """

    def __init__(self, directory: str | os.PathLike[str], wsgi_app: WSGIApplication | None = None) -> None:
        if not os.fspath(directory) or not os.path.isdir(directory):
            raise UsageError(f"{os.fspath(directory) or repr('')}: not a directory")
        self.directory = Path(directory).absolute()
        self._wsgi_app = wsgi_app or NotFound()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return (self.find(environ) or self._wsgi_app)(environ, start_response)

    def find(self, environ: WSGIEnvironment) -> Response | None:
        """Returns the response to a request for a file, or None if there is no such file."""
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
        except NotFound:  # there is no such file, or it is outside the directory
            return None

    def _is_inside(self, path: str) -> bool:
        """Whether `path` leads into the directory when all symbolic links are followed."""
        root = os.path.realpath(self.directory)
        return os.path.commonpath((root, os.path.realpath(os.path.join(root, path)))) == root


def send_part(send: Callable[[WSGIEnvironment], Response], environ: WSGIEnvironment) -> Response:
    """Returns the response of `send`, cut to the byte range that the client asks for (RFC 9110, 14).

    If the range begins after the end of the file, the response is a 416. The response is the whole file if the header
    Range is malformed, has several ranges, has another unit than bytes, or does not come with GET. It is also the whole
    file if the file is empty or has changed (If-Range). Werkzeug would refuse most of these requests, and would check
    the range before If-None-Match.
    """
    plain = {name: value for name, value in environ.items() if name not in ("HTTP_RANGE", "HTTP_IF_RANGE")}
    whole = send(plain)
    whole.headers.pop("Date", None)  # the server adds a Date itself
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


#: Matches a header with one range, even with empty list elements around it (RFC 9110, 5.6.1).
_RANGE = re.compile(r"bytes=[ \t,]*([0-9]{0,1000})-([0-9]{0,1000})[ \t,]*", re.ASCII | re.IGNORECASE)


def _part_of(size: int, wanted: str) -> str | None:
    """Returns the range of the header Range in the form that werkzeug accepts.

    Returns None if there is no range, or if the header must be ignored.
    """
    match = _RANGE.fullmatch(wanted.strip(" \t"))
    if match is None or not size:
        return None
    first, last = match.groups()
    if not first:  # a range without a first byte means the last bytes of the file
        return f"bytes={max(0, size - int(last)):d}-" if last else None
    if last and int(last) < int(first):
        return None
    return f"bytes={first}-{last}"


def _is_hidden(path: str) -> bool:
    """Whether a part of the path begins with a dot, as `..` does.

    Also True if the path has a NUL: no file can have it.
    """
    return "\0" in path or any(part.startswith(".") and part != ".well-known" for part in path.split("/"))
