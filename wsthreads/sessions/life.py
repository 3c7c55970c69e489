"""The life of one session. It is opened once and closed once, even if it has several connections one after the other.

`Service` serves the connections. `Service` decides what a new or a lost connection means for the session. For clients
that speak ``wsthreads.1``, `Dialogue` decides this.
"""

from __future__ import annotations

from threading import Lock
from time import monotonic
from typing import Any

from wsthreads.loggers import get_logger
from wsthreads.monitoring.logs import printable
from wsthreads.monitoring.metrics import Metrics
from wsthreads.rooms.rooms import Rooms
from wsthreads.sessions.handlers import Handler
from wsthreads.sessions.session import Session

__all__ = ["Life"]

log = get_logger(__name__)

#: Logs the end of a session whose client was too slow. This is a logger of its own, so that the log under gunicorn can
#: have its lines from level INFO up.
slow_log = get_logger(f"{__name__}.slow")


class Life:
    """Tells the handler, the rooms, the counters and the log of each step in a session's life.

    Each step is made even if the handler has failed in an earlier step. The start and the end are logged at
    `log_level`.
    """

    __slots__ = (
        "_began",
        "_closing",
        "_ending",
        "_handler",
        "_is_opened",
        "_log_context",
        "_log_level",
        "_metrics",
        "_path",
        "_rooms",
        "session",
    )

    def __init__(
        self,
        session: Session,
        *,
        handler: Handler,
        rooms: Rooms[Any],
        metrics: Metrics,
        path: str,
        log_level: int,
        log_context: dict[str, str],
    ) -> None:
        self.session = session
        self._handler = handler
        self._rooms = rooms
        self._metrics = metrics
        self._path = path
        self._log_level = log_level
        self._log_context = log_context
        self._began = monotonic()
        self._is_opened = False
        self._closing = Lock()  # taken by the first `close`, and never released
        self._ending = ""

    def open(self) -> None:
        """Call `on_open`. Must be called only once."""
        session = self.session
        self._metrics.add("sessions_opened")
        text = "session %s opened on %s from %s"
        log.log(self._log_level, text, session.id, self._path, session.remote_addr, extra=self._log_context)
        self._is_opened = True
        self._handler.open(session)

    def take_over(self) -> None:
        """Note that the session has come from another process. Called instead of `open`."""
        self._is_opened = True
        session, text = self.session, "session %s on %s has moved to this process"
        log.log(self._log_level, text, session.id, self._path, extra=self._log_context)

    def suspend(self, why: str) -> Any:
        """Call `on_suspend`, and return its result. Comes after `open` or `resume`.

        The session has lost its connection, and waits for its client. `why` is for the log.
        """
        self._metrics.add("sessions_suspended")
        session, text = self.session, "session %s suspended on %s: %s"
        log.log(self._log_level, text, session.id, self._path, printable(why), extra=self._log_context)
        return self._handler.suspend(session)

    def resume(self) -> None:
        """Call `on_resume`, because the session has a connection again. Comes after `suspend`."""
        self._metrics.add("sessions_resumed")
        session, text = self.session, "session %s resumed on %s from %s"
        log.log(self._log_level, text, session.id, self._path, session.remote_addr, extra=self._log_context)
        self._handler.resume(session)

    def close(self, code: int, reason: str, *, is_lost: bool = False) -> bool:
        """Call `on_close` if `on_open` was called. Then leave all rooms.

        With `is_lost`, the connection was lost, and the session's presence stays for `presence_grace_s`. A second call
        does nothing, and returns False.

        Called when the session's connection has ended or is closing. Any thread, but not at the same time as `open`.
        """
        if not self._closing.acquire(blocking=False):
            return False
        self._ending = f"{code} {printable(reason)}".strip()
        try:
            if self._is_opened:
                self._handler.close(self.session, code, reason)
        finally:
            self._rooms.leave_all(self.session, is_lost=is_lost)
        return True

    def record_end(self, *, was_too_slow: bool) -> None:
        """Count and log the end of the session. Must be called only once, after `close`."""
        self._metrics.add("sessions_closed")
        text, lasted_s = "session %s closed on %s after %.1f s: %s", monotonic() - self._began
        (slow_log if was_too_slow else log).log(
            self._log_level, text, self.session.id, self._path, lasted_s, self._ending, extra=self._log_context
        )
