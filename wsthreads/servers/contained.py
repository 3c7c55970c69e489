"""Errors of the application's that are no `Exception`, such as SystemExit, made one before they reach the WSGI server.

A server answers an `Exception` with a 500. Anything else ends the thread, and with gunicorn's gthread the whole worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from wsthreads.threads import forks

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ApplicationFailed", "Contained", "contained"]


class ApplicationFailed(RuntimeError):
    """The application raised something that is no `Exception`; it is the cause of this."""


class contained:
    """A block in which what is no `Exception` becomes one. A process that is forked in it ends with it."""

    __slots__ = ("_fork",)

    def __enter__(self) -> None:
        self._fork = forks.number

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fork != forks.number:
            forks.leave(error)
        if kind is not None and not issubclass(kind, Exception):
            what = f"the application raised {kind.__name__}, which ends this request only"
            raise ApplicationFailed(what) from error


class Contained:
    """A WSGI application for which that holds, and for its responses as well."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with contained():
            response = self._application(environ, start_response)
        if isinstance(response, (list, tuple)):
            return response
        file_wrapper = environ.get("wsgi.file_wrapper")  # the server's own, for which it may use sendfile(2)
        if isinstance(file_wrapper, type) and isinstance(response, file_wrapper):
            return response
        return _Response(response)


class _Response:
    """A response whose iteration and end are contained."""

    def __init__(self, response: Iterable[bytes]) -> None:
        self._response = response
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with contained():
            if self._chunks is None:
                self._chunks = iter(self._response)
            return next(self._chunks)

    def close(self) -> None:
        """PEP 3333: called by the server in any case."""
        close = getattr(self._response, "close", None)
        if close is not None:
            with contained():
                close()
