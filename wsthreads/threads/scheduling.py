"""Events that other modules report about their threads, such as "a session begins".

The classes here do nothing. Their subclasses in `wsthreads.threads.gil` decide at each event what to do about the GIL,
the cores, and the classes of the system's scheduler. So the modules that report events need to know nothing about
these.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing_extensions import Self

    from wsthreads.threads.flusher import Flusher

__all__ = ["NO_SCHEDULING", "Occupancy", "ScheduledThread", "Scheduling"]


class Occupancy(Protocol):
    """Counts the sessions in this process."""

    @property
    def taken(self) -> int:
        """The number of sessions. Other threads may change it."""


class ScheduledThread:
    """A context in which a thread serves clients. Only this thread may use it.

    Before each message, call ``if thread.is_displaced: thread.runs_handler()``. No method raises an exception.
    """

    __slots__ = ()

    #: Whether `runs_handler` has something to do. Callers check this attribute first, because it is usually False.
    is_displaced = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Called when the thread serves no more clients."""

    def runs_handler(self) -> None:
        """Called when the thread is about to call a handler."""

    def only_reads(self) -> None:
        """Called when the thread begins to only read its socket, and will seldom run Python code."""

    def starts_thread(self) -> ScheduledThread:
        """Called when the thread is about to start a thread for another client. Returns the context for that thread."""
        return self


class Scheduling:
    """Gets the events of one app's threads. This class does nothing. Any thread."""

    def owns_process(self, nth: int) -> None:
        """Called if the process belongs to the app alone, as worker number `nth` of its server."""

    def session_begins(self, flusher: Flusher, occupancy: Occupancy) -> None:
        """Called when a session was admitted. `flusher` is running. `occupancy` counts the app's sessions."""

    def session_thread(self) -> ScheduledThread:
        """Returns a context in which the calling thread serves a session."""
        return _NO_THREAD

    def opening(self) -> AbstractContextManager[object]:
        """Returns a context in which the calling thread opens a connection.

        In this context, the thread must not wait for the client, or for code of the application.
        """
        return _NO_TURN

    def accepting_thread(self) -> ScheduledThread:
        """Returns a context in which the calling thread accepts connections and starts their threads."""
        return _NO_THREAD

    def most_unread(self) -> int | None:
        """Returns how many new connections may have requests that their threads have not read yet.

        If there are more, the accepting thread waits. None: it never waits.
        """
        return None

    def other_request(self) -> None:
        """Called when the calling thread is about to answer a request other than a WebSocket handshake."""

    def joins_room(self) -> None:
        """Called when the calling thread is about to add a session to a room."""

    def stopped(self) -> None:
        """Called when the app is shut down and its flusher has ended."""


_NO_THREAD = ScheduledThread()
_NO_TURN = nullcontext()

#: For tests, for Python without a GIL, and for objects that are used without an app.
NO_SCHEDULING = Scheduling()
