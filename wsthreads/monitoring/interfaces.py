"""The parts of an app, an endpoint and a handler that monitoring uses, as protocol classes. Any thread."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from wsthreads.monitoring.metrics import Metrics, Totals

__all__ = ["MonitoredApp", "MonitoredEndpoint", "MonitoredHandler"]


class MonitoredHandler(Protocol):
    """A handler."""

    @property
    def hooks(self) -> Set[str]:
        """The names of the handler's functions."""

    @property
    def has_queue(self) -> bool:
        """Whether calls of the handler wait for each other in a queue, as calls of a script do."""

    def heap_bytes(self) -> int | None:
        """The size of the heap of a script's interpreter. None for a Python handler."""

    def start(self) -> None:
        """Start the handler, unless it is running. Raises `WSThreadsError` if it cannot be started."""


class MonitoredEndpoint(Protocol):
    """One path of an app."""

    @property
    def path(self) -> str:
        """The path of the endpoint."""

    @property
    def handler(self) -> MonitoredHandler:
        """The handler of the endpoint."""

    def totals(self) -> Totals:
        """Returns the endpoint's current numbers, and its sums since the process began."""


class MonitoredApp(Protocol):
    """An app."""

    @property
    def endpoints(self) -> tuple[MonitoredEndpoint, ...]:
        """All endpoints of the app."""

    @property
    def metrics(self) -> Metrics:
        """The counters that belong to no endpoint."""

    @property
    def places(self) -> int:
        """At most this many sessions are possible."""

    @property
    def shares_rooms(self) -> bool:
        """Whether the app shares its rooms with other processes."""

    @property
    def broadcasts_waiting(self) -> int:
        """How many broadcasts the broker has not accepted yet."""
