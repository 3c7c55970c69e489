"""What monitoring looks at: an app and its endpoints, by what it asks of them. Any thread may ask."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from wsthreads.monitoring.metrics import Metrics, Totals

__all__ = ["WatchedApp", "WatchedEndpoint", "WatchedHandler"]


class WatchedHandler(Protocol):
    """A handler."""

    @property
    def hooks(self) -> Set[str]:
        """The names of its functions."""

    def heap_bytes(self) -> int | None:
        """What its interpreter has in memory; None for one without."""

    def start(self) -> None:
        """Start it if it does not run. Raises `WSThreadsError` if it cannot be started."""


class WatchedEndpoint(Protocol):
    """One path of an app."""

    @property
    def path(self) -> str:
        """Where it is served."""

    @property
    def handler(self) -> WatchedHandler:
        """What it is served with."""

    def totals(self) -> Totals:
        """What is going on there, and has been since the process began."""


class WatchedApp(Protocol):
    """An app."""

    @property
    def endpoints(self) -> tuple[WatchedEndpoint, ...]:
        """All endpoints."""

    @property
    def metrics(self) -> Metrics:
        """What is counted for no endpoint."""

    @property
    def places(self) -> int:
        """How many sessions there may be at once."""

    @property
    def shares_rooms(self) -> bool:
        """Whether its rooms are those of other processes, too."""

    @property
    def broadcasts_waiting(self) -> int:
        """Broadcasts that the broker has not taken."""
