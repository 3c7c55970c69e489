"""What the server of ``wsthreads run`` needs from an app, as a protocol class."""

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
    """A WSGI application with sessions, such as `wsthreads.WebSocketApp`. Any thread."""

    config: Config
    metrics: Metrics
    scheduling: Scheduling

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to a request."""

    @property
    def session_count(self) -> int:
        """The number of sessions in this process."""

    def shutdown(self, timeout_s: float | None = ..., code: int = ..., reason: str = ...) -> int:
        """Close all sessions. Returns how many sessions had to be cut off."""

    def cut_off(self) -> int:
        """End all connections at once. Returns how many there were."""
