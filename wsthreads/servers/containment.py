"""Converts exceptions of the application that do not derive from `Exception`, such as SystemExit.

When the application raises an `Exception`, a WSGI server responds with 500. Any other exception ends the thread. In
gunicorn's gthread, it ends the whole worker.
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
    """The application raised an exception that does not derive from `Exception`. That exception is the `__cause__`."""


class contained:
    """A context manager that converts exceptions of the application into `ApplicationFailed`.

    Exceptions that derive from `Exception` are not converted.

    A process that is forked inside the block ends at the end of the block.
    """

    __slots__ = ("_fork",)

    def __enter__(self) -> None:
        self._fork = forks.number

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fork != forks.number:
            forks.leave(error)
        if kind is not None and not issubclass(kind, Exception):
            what = f"the application raised {kind.__name__}, which ends only this request"
            raise ApplicationFailed(what) from error


class Contained:
    """Wraps a WSGI application and its responses in `contained`."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with contained():
            response = self._application(environ, start_response)
        if isinstance(response, (list, tuple)):
            return response
        file_wrapper = environ.get("wsgi.file_wrapper")  # the server may use sendfile(2) for an object of its own type
        if isinstance(file_wrapper, type) and isinstance(response, file_wrapper):
            return response
        return _Response(response)


class _Response:
    """Wraps the iteration and the `close` of a response in `contained`."""

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
        """Called by the server at the end in any case (PEP 3333)."""
        close = getattr(self._response, "close", None)
        if close is not None:
            with contained():
                close()
