"""`live_server` serves a handler on a port, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wsthreads.servers.serving import Server
from wsthreads.testing.play import app_for, entry_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from wsthreads.app import WebSocketApp

__all__ = ["live_server"]


@contextmanager
def live_server(
    target: object, path: str | None = None, *, through: WSGIApplication | None = None, **settings: Any
) -> Iterator[Server]:
    """Serve a target of `play` on a free port of 127.0.0.1. The server has the attributes ``ws_url`` and ``url``.

    `through` is a WSGI application around the `WebSocketApp`, which gets all requests. At the end, all sessions are
    closed with the code 1001. If `target` is an app, it cannot be served again. A class or an object has the path
    ``/ws/test`` unless you give another path.
    """
    app, _ = app_for(target, path, settings)
    with Server(_Entrance(app, through), port=0) as server:
        yield server


class _Entrance:
    """An app for `Server` that passes its requests to an application around it."""

    def __init__(self, app: WebSocketApp, through: WSGIApplication | None) -> None:
        self._entry = entry_of(app, through)
        self.config, self.metrics, self.scheduling = app.config, app.metrics, app.scheduling
        self.shutdown, self.cut_off = app.shutdown, app.cut_off
        self._app = app

    @property
    def session_count(self) -> int:
        return self._app.session_count

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._entry(environ, start_response)
