"""What the server of ``wsthreads run`` needs of an app."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from wsthreads.config import Config
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.threads.scheduling import Scheduling

__all__ = ["ServedApp"]


class ServedApp(Protocol):
    """A WSGI application with sessions, as `wsthreads.WebSocketApp` is. Any thread."""

    config: Config
    metrics: Metrics
    scheduling: Scheduling

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""

    @property
    def session_count(self) -> int:
        """Sessions in this process."""

    def shutdown(self, timeout_s: float | None = ..., code: int = ..., reason: str = ...) -> int:
        """Close every session. Returns how many were cut off."""

    def cut_off(self) -> int:
        """End every connection at once. Returns how many there were."""
