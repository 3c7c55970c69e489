"""The interface between rooms and a broker: what each side may call of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from wsthreads.brokers.pending import PendingBroadcasts
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.sessions.session import Session

__all__ = ["Broker", "Link", "Listener"]


class Listener(Protocol):
    """The rooms of one endpoint in this process, as a link sees them."""

    def count_here(self, name: str) -> int:
        """The number of members in this process. Takes only a lock that is a leaf."""

    def deliver(self, name: str, frame: bytes, exclude_id: str | None, *, ticket: int, hand_over: bool) -> None:
        """Send a frame that has come back from the broker to the members in this process.

        `ticket` is the ticket of a broadcast of this process, or -1 for a broadcast of another process.
        """


class Link(Protocol):
    """An app's connection to the other processes. Any thread.

    It starts at its first use in a process, also in a forked one. It never raises because the broker is away.
    """

    #: The broadcasts of this process that are not back yet.
    pending: PendingBroadcasts

    def start(self) -> None:
        """Connect now instead of at the first use. Does not wait for the connection."""

    def publish(self, path: str, name: str, frame: bytes, exclude: Session | None) -> None:
        """Queue a broadcast. Raises `BrokerError` if the queue is full or the link has ended.

        In a process that was forked from one that served, waits until the broker has it, or raises `BrokerError`.
        """

    def update(self, path: str, name: str, listener: Listener) -> None:
        """A session of this process has joined or left: count the room's members again.

        When this returns for the first member, later broadcasts reach it, unless the broker is away.
        """

    def members_elsewhere(self, path: str, name: str) -> int:
        """The number of members in other processes. Waits at most a second, then returns the last known number."""

    def waiting(self) -> int:
        """How many broadcasts the broker has not acknowledged. A snapshot."""

    def stop(self, timeout_s: float) -> None:
        """Send what waits, for at most `timeout_s`, sign off at the broker, and end all threads."""

    def release(self) -> None:
        """Stop soon. Takes no lock and does not wait, so a finalizer may call it."""


class Broker(Protocol):
    """Describes how rooms are shared between processes. Has no connections of its own."""

    def link(self, metrics: Metrics) -> Link:
        """A new link for an app. It is not started."""
