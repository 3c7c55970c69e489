"""Reads chunked request bodies (RFC 9112, 7.1), and refuses all malformed ones."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import BadRequest

from wsthreads.protocol.heads import MAX_FIELDS, BadHead, check_trailer, chunk_size

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["BadBody", "ChunkedBody", "refusing_bad_bodies"]

#: The longest line with the size of a chunk (extensions included), and the longest trailer field, in bytes.
MAX_LINE_BYTES = 4096


class BadBody(BadRequest, ConnectionError):
    """Raised when a body is read that is malformed or ends too early.

    Werkzeug and Flask respond with 400. For other frameworks, and for the server, this is the end of the connection.
    """


class ChunkedBody(io.RawIOBase):
    """The content of a chunked body, which is read from `source`. Drops trailer fields. Raises `BadBody`."""

    def __init__(self, source: io.BufferedIOBase) -> None:
        self._source = source
        self._left = 0  # how many bytes of the current chunk are not read yet
        self._is_over = False
        self._flaw: BadBody | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._flaw is not None:  # after an error, it is unknown where the body ends
            raise self._flaw
        try:
            return self._read_into(memoryview(buffer))
        except BadHead as flaw:
            self._flaw = BadBody(str(flaw))
            raise self._flaw from None

    def _read_into(self, buffer: memoryview) -> int:
        if not self._left and not self._is_over:
            self._left = chunk_size(self._line())
            if not self._left:
                self._pass_trailers()
                self._is_over = True
        if self._is_over or not buffer:
            return 0
        received = self._source.readinto1(buffer[: self._left])
        if not received:
            raise BadHead("Malformed chunk: the body ends inside it")
        self._left -= received
        if not self._left and self._source.read(2) != b"\r\n":
            raise BadHead("Malformed chunk: longer than its size")
        return received

    def _pass_trailers(self) -> None:
        for _ in range(MAX_FIELDS + 1):
            if not check_trailer(self._line()):
                return
        raise BadHead("Malformed chunk: too many trailer fields")

    def _line(self) -> bytes:
        return self._source.readline(MAX_LINE_BYTES)


def refusing_bad_bodies(app: WSGIApplication) -> WSGIApplication:
    """Wrap `app`. If `app` does not catch a `BadBody`, the response is a 400."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return app(environ, start_response)
        except BadBody as error:
            # The error is passed on, too. If the response has begun already, the server raises the error.
            headers = [("Content-Type", "text/plain; charset=utf-8")]
            start_response("400 Bad Request", headers, sys.exc_info())
            return [f"{error.description}\n".encode()]

    return application
