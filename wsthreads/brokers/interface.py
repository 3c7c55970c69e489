"""The seam between rooms and what carries them between processes: what either side may call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from wsthreads.brokers.turns import Turns
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.sessions.session import Session

__all__ = ["Broker", "Link", "Listener"]


class Listener(Protocol):
    """The rooms of one endpoint in this process, as a link sees them."""

    def count_here(self, name: str) -> int:
        """Members in this process. Takes no lock but a leaf."""

    def deliver(self, name: str, frame: bytes, exclude_id: str | None, *, ticket: int, hand_over: bool) -> None:
        """Send a frame that has come back from the broker to the members in this process.

        `ticket` is that of a broadcast of this process, -1 for others.
        """


class Link(Protocol):
    """An app's connection to the other processes. Any thread.

    It starts with its first use in a process, so also in a forked one, and never raises because the broker is away.
    """

    #: What of this process is on its way.
    turns: Turns

    def start(self) -> None:
        """Connect now, and not at first use. Does not wait for the connection."""

    def publish(self, path: str, name: str, frame: bytes, exclude: Session | None) -> None:
        """Hand over a broadcast. Raises `BrokerError` where it is not taken."""

    def update(self, path: str, name: str, listener: Listener) -> None:
        """Somebody has joined or left in this process: look how many there are now.

        When it returns for the first member, what is broadcast from now on will come; unless the broker is away.
        """

    def members_elsewhere(self, path: str, name: str) -> int:
        """Members of a room in the other processes. Waits a second at most, and answers from memory otherwise."""

    def waiting(self) -> int:
        """How many broadcasts the broker has not taken. A snapshot."""

    def stop(self, timeout_s: float) -> None:
        """Hand over what waits, for so long at most, say goodbye, and end all threads."""

    def release(self) -> None:
        """`stop` soon. Takes no lock and does not wait: for a finalizer."""


class Broker(Protocol):
    """What carries rooms between processes: a description, without connections of its own."""

    def link(self, metrics: Metrics) -> Link:
        """A link for an app, not started."""
