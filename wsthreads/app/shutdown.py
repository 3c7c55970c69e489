"""Closes all sessions of an app and ends its threads."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from threading import TIMEOUT_MAX, Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING

from wsthreads.app.routing import Routing
from wsthreads.errors import counted
from wsthreads.loggers import get_logger
from wsthreads.protocol.writer_threads import WriterThreads
from wsthreads.servers.close_batches import in_batches
from wsthreads.sessions.admission import Admission
from wsthreads.threads.blocking import serves_rooms
from wsthreads.threads.drainer import Drainer
from wsthreads.threads.flusher import Flusher
from wsthreads.threads.scheduling import Scheduling

if TYPE_CHECKING:
    from wsthreads.brokers import Link
    from wsthreads.dashboard import Dashboard
    from wsthreads.protocol.connection import Connection

__all__ = ["CLOSE_TIMEOUT_S", "Shutdown", "release"]

log = get_logger(__name__)

#: After sessions are cut off, their on_close functions may run for this many seconds.
CUT_OFF_WAIT_S = 0.5

#: A client must answer the close frame within this many seconds.
CLOSE_TIMEOUT_S = 2.0

#: Each part of the app has at least this many seconds to end its threads, even after the deadline.
LEAST_WAIT_S = 0.1

#: Locks and threads do not accept a longer timeout, such as infinity.
LONGEST_S = TIMEOUT_MAX / 2


class Shutdown:
    """The shutdown of one app.

    `begin` closes the app's sessions. `run` also waits for them, and ends the app's threads. Any thread.
    """

    def __init__(
        self,
        routing: Routing,
        *,
        admission: Admission,
        dashboard: Dashboard | None,
        link: Link | None,
        drainer: Drainer,
        writers: WriterThreads,
        flusher: Flusher,
        scheduling: Scheduling,
    ) -> None:
        self._routing = routing
        self._admission = admission
        self._dashboard = dashboard
        self._link = link
        self._drainer = drainer
        self._writers = writers
        self._flusher = flusher
        self._scheduling = scheduling
        self._running = Lock()  # held by the thread that shuts the app down; guards _cut_off
        self._cut_off: int | None = None  # how many sessions were cut off; None until the shutdown is over

    @property
    def has_begun(self) -> bool:
        """Whether the shutdown has begun, so that the app refuses new sessions."""
        return self._admission.closed

    def begin(self, timeout_s: float, code: int, reason: str) -> None:
        """Refuse new sessions, and begin to close all sessions. Does not block. A second call does nothing."""
        if not self._admission.close(code, reason, timeout_s):
            return
        if self._dashboard is not None:
            self._dashboard.close_viewers(code, reason)
        for endpoint in self._routing.endpoints:
            endpoint.say_goodbye(code, reason)
        for delay_s, batch in in_batches(self._connections(), timeout_s):
            close = partial(_close, batch, code, reason, min(CLOSE_TIMEOUT_S, timeout_s - delay_s))
            if delay_s:
                self._flusher.call_later(delay_s, close)
            else:
                close()

    def _connections(self) -> Iterable[tuple[Connection, bool]]:
        """Yields all connections, each with whether its session is about to move to another process."""
        for endpoint in self._routing.endpoints:
            leaves = endpoint.handover is not None
            for connection in endpoint.connections():
                yield connection, leaves

    def run(self, timeout_s: float, code: int, reason: str) -> int:
        """Shut the app down: see `WebSocketApp.shutdown`."""
        timeout_s = min(max(0.0, timeout_s), LONGEST_S)
        if self._admission.has_place or serves_rooms():
            self.begin(timeout_s, code, reason)
            arguments = (timeout_s, code, reason)
            Thread(target=self.run, args=arguments, name="wsthreads-shutdown", daemon=True).start()
            if self._admission.has_place:
                return self._admission.wait_others(timeout_s)
            self._admission.wait_empty(timeout_s)
            return self._admission.taken
        if not self._running.acquire(timeout=timeout_s + CUT_OFF_WAIT_S):  # another call waits for handlers
            return self._admission.taken
        try:
            if self._cut_off is None:
                self._cut_off = self._end(timeout_s, code, reason)
            return self._cut_off
        finally:
            self._running.release()

    def _end(self, timeout_s: float, code: int, reason: str) -> int:
        deadline = monotonic() + timeout_s
        self.begin(timeout_s, code, reason)
        left = 0
        if not self._admission.wait_empty(timeout_s):
            left = self.cut_off()
            self._admission.wait_empty(CUT_OFF_WAIT_S)
        stops = []
        for endpoint in self._routing.endpoints:
            if endpoint.handover is not None:
                stops.append(endpoint.handover.stop)
            stops += [endpoint.suspensions.stop, endpoint.roster.stop, endpoint.ownership.stop, endpoint.handler.stop]
        stops += [part.stop for part in (self._dashboard, self._link) if part is not None]
        for stop in (*stops, self._drainer.stop, self._writers.stop, self._flusher.stop):
            stop(max(LEAST_WAIT_S, deadline - monotonic()))
        self._scheduling.stopped()
        if left:
            log.warning("shutdown: %s cut off, because the time of %g s is over", counted(left, "session"), timeout_s)
        return left

    def cut_off(self) -> int:
        """End all connections at once, without a close handshake. Returns how many there were."""
        return sum(endpoint.cut_off() for endpoint in self._routing.endpoints)


def release(flusher: Flusher, drainer: Drainer, writers: WriterThreads, link: Link | None) -> None:
    """End the threads of an app that was not shut down. This is the finalizer of the app.

    The garbage collector may run it in any thread, at any moment. So it takes no lock.
    """
    flusher.release()
    drainer.release()
    writers.release()
    if link is not None:
        link.release()


def _close(connections: Iterable[tuple[Connection, bool]], code: int, reason: str, timeout_s: float) -> None:
    for connection, leaves in connections:
        if leaves:
            connection.channel.part(code, reason)
        else:
            connection.channel.begin_close(code, reason)
        connection.channel.hasten_close(timeout_s)
