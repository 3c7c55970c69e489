"""A directory's files over HTTP, as a WSGI application."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.utils import append_slash_redirect, send_from_directory

from wsthreads.errors import UsageError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from werkzeug.wrappers import Response

__all__ = ["StaticFiles"]


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
            response = send_from_directory(self.directory, path, environ)
        except HTTPException:  # not there, or not inside
            return None
        response.headers.pop("Date", None)  # the server adds its own
        return response

    def _is_inside(self, path: str) -> bool:
        """Whether `path` is in the directory when all symbolic links are followed."""
        root = os.path.realpath(self.directory)
        return os.path.commonpath((root, os.path.realpath(os.path.join(root, path)))) == root


def _is_hidden(path: str) -> bool:
    """Whether a part of it begins with a dot, `..` included. A NUL cannot be looked up."""
    return "\0" in path or any(part.startswith(".") and part != ".well-known" for part in path.split("/"))
