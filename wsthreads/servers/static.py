"""A directory's files over HTTP, as a WSGI application."""

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
    """Serves the files of `directory`, a folder by its ``index.html``; passes everything else on to `wsgi_app`.

    Neither paths nor symbolic links lead out of the directory, which may be such a link itself, and nothing whose name
    begins with a dot is served (``.git``, ``.env``), but for ``.well-known``. Browsers are told to ask again each
    time, and get a 304 for what has not changed.
    Raises `UsageError` if `directory` is none. Any thread.
    """

    def __init__(self, directory: str | os.PathLike[str], wsgi_app: WSGIApplication | None = None) -> None:
        if not os.fspath(directory) or not os.path.isdir(directory):
            raise UsageError(f"{os.fspath(directory) or repr('')}: not a directory")
        self.directory = Path(directory).absolute()
        self._wsgi_app = wsgi_app or NotFound()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return (self.find(environ) or self._wsgi_app)(environ, start_response)

    def find(self, environ: WSGIEnvironment) -> Response | None:
        """The answer to a request for a file; None if there is no such file."""
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
        except NotFound:  # or not inside
            return None

    def _is_inside(self, path: str) -> bool:
        """Whether `path` is in the directory when all symbolic links are followed."""
        root = os.path.realpath(self.directory)
        return os.path.commonpath((root, os.path.realpath(os.path.join(root, path)))) == root


def send_part(send: Callable[[WSGIEnvironment], Response], environ: WSGIEnvironment) -> Response:
    """What `send` answers, a whole file, or the range of its bytes that is asked for (RFC 9110, 14).

    A range that does not begin inside the file is a 416. The answer is the whole file where the Range is malformed or
    of another unit than bytes, has several ranges, or comes with a HEAD, where the file is empty, and where it has
    changed (If-Range). Werkzeug refuses most of these, and puts a range before If-None-Match.
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


#: One range, with what a list may have around it (RFC 9110, 5.6.1).
_RANGE = re.compile(r"bytes=[ \t,]*([0-9]{0,1000})-([0-9]{0,1000})[ \t,]*", re.ASCII | re.IGNORECASE)


def _part_of(size: int, wanted: str) -> str | None:
    """The range in a Range header as werkzeug takes it; None for none, or for what may be ignored."""
    match = _RANGE.fullmatch(wanted.strip(" \t"))
    if match is None or not size:
        return None
    first, last = match.groups()
    if not first:  # so many bytes from the end
        return f"bytes={max(0, size - int(last)):d}-" if last else None
    if last and int(last) < int(first):
        return None
    return f"bytes={first}-{last}"


def _is_hidden(path: str) -> bool:
    """Whether a part of it begins with a dot, `..` included. A NUL cannot be looked up."""
    return "\0" in path or any(part.startswith(".") and part != ".well-known" for part in path.split("/"))
