"""`live_server` serves a handler on a port, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wsthreads.servers.serving import Server
from wsthreads.testing.play import app_for

__all__ = ["live_server"]


@contextmanager
def live_server(target: object, path: str | None = None, **settings: Any) -> Iterator[Server]:
    """Serve a target of `play` on a free port of 127.0.0.1. The server has ``ws_url`` and ``url``.

    At the end, all sessions are closed with 1001. If `target` is an app, it cannot be served again.
    """
    app, _ = app_for(target, path, settings)
    with Server(app, port=0) as server:
        yield server
