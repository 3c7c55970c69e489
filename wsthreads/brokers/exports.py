"""Moves sessions of this process to another process. `handover` explains how a session moves."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from threading import Event, Lock
from time import monotonic, sleep
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from wsthreads.brokers.keys import OVERDUE_S
from wsthreads.brokers.passages import Passages
from wsthreads.brokers.session_scripts import FREE, HOLD, HOLD_SENT, RETRACT, STORE, TELL, away_name, retracted, stuck
from wsthreads.brokers.session_state import SessionState, StateError, encode_end, encode_state
from wsthreads.errors import BrokerError, counted
from wsthreads.loggers import get_logger
from wsthreads.rooms.names import SESSIONS_ROOM
from wsthreads.sessions.moves import CannotMove
from wsthreads.threads.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsthreads.brokers.interface import Link
    from wsthreads.sessions.moves import Departing, Moves

__all__ = ["Exports", "free"]

#: The default of `before`, an argument of `free`: no process has kept the session's presence.
NOTHING_BEFORE: Mapping[str, str] = MappingProxyType({})

log = get_logger(__name__)

#: For how many sessions that cannot move this process remembers it.
MAX_FIXED = 1000

#: How long to wait until the handler's running call for the session ends. If it takes longer, the other process has to
#: ask again.
DEPART_S = 1.0

#: How long a broadcast of this process may take until it comes back from Redis.
CUT_S = 2.0

#: How long to wait for another thread that stores the same session.
EXPORT_S = 15.0

#: The presence of a session stays this much longer than its client may be away. In this time, a process can end the
#: session and call its on_close.
END_S = 10.0

#: How long Redis may take to answer whether it has stored a session.
RETRACT_S = 10.0

#: At most this many endings of sessions are stored by one call. Other processes read the endings, and tell the clients.
TELL_BATCH = 500

#: How long a process that ends tries to store the endings of its sessions, and how long it pauses between two attempts.
TELL_S = 5.0
TELL_PAUSE_S = 0.2


class Exports:
    """Stores sessions of one endpoint in Redis.

    After that, this process forgets them. Any thread except the reader's.
    """

    def __init__(
        self,
        path: str,
        link: Link,
        passages: Passages,
        sessions: Moves,
        count: Callable[[str], None],
        pool: Pool[Callable[[], object]],
    ) -> None:
        self._path = path
        self._link = link
        self._passages = passages
        self._sessions = sessions
        self._count = count
        self._pool = pool
        self.give_up()

    def give_up(self) -> None:
        """Start with nothing, in a forked process."""
        self._lock = Lock()  # guards the attributes below
        self._under_way: dict[str, Event] = {}
        self._fixed: dict[str, list[str]] = {}  # the digests of the secrets of sessions that could not move

    def begin(self, session_id: str) -> None:
        """Let another thread call `export`, unless a thread is storing this session now."""
        with self._lock:
            if session_id in self._under_way:
                return
        with suppress(RuntimeError):  # no thread can be started now: the other process will ask again
            self._pool.put([partial(self.export, session_id)])

    def why_not(self, session_id: str, secret: str) -> str:
        """Why a session cannot move away from this process.

        The reason is empty if nothing prevents it, or if the client's secret is wrong.
        """
        found = self._fixed.get(session_id, [])
        return "elsewhere" if any(hmac.compare_digest(each, secret) for each in found) else ""

    def export(self, session_id: str, timeout_s: float = DEPART_S) -> bool:
        """Store a session in Redis, and forget it. Returns false if the session stays here, has ended, or is not here.

        The session stays here if Redis is unavailable, or if a call of the handler takes longer than `timeout_s`. The
        session ends if it cannot move. If another thread is storing the session, this method waits for that thread, and
        returns false.
        """
        if self._link.patience_s(self._path, SESSIONS_ROOM) <= 0:
            self._sessions.stays(session_id, "Redis does not answer")
            return False
        with self._lock:
            done = self._under_way.get(session_id)
            if done is None:
                self._under_way[session_id] = Event()
        if done is not None:  # another thread is storing the session
            done.wait(EXPORT_S)
            return False
        try:
            departure = self._sessions.depart(session_id, timeout_s)
            return departure is not None and self._export(departure)
        except CannotMove as error:
            self._cannot_move(session_id, error, error.secrets, error.left_s)
            return False
        finally:
            with self._lock:
                self._under_way.pop(session_id).set()

    def _cannot_move(self, session_id: str, error: Exception, secrets: list[str], left_s: float) -> None:
        log.warning("session %s on %s cannot move to another process: %s", session_id, self._path, error)
        with self._lock:
            self._fixed[session_id] = secrets
            if len(self._fixed) > MAX_FIXED:
                del self._fixed[next(iter(self._fixed))]
        with suppress(BrokerError):  # so that the client learns the reason even after this process has ended
            window_ms = max(1, int(left_s * 1000))
            self._link.call_for_session(self._path, session_id, TELL, stuck(secrets), window_ms)

    def log_left_behind(self) -> None:
        """Log how many sessions are lost because they could not move. Called at the end of the process."""
        for why, number in Counter(self._sessions.left_behind()).items():
            what = "%s of %s could not move to another process: %s"
            log.warning(what, counted(number, "session"), self._path, why)

    def tell_ended(self, timeout_s: float) -> None:
        """Store in Redis how this process has closed its sessions, so that other processes can tell the clients.

        Called before this process ends. Blocks.
        """
        ended, deadline = self._sessions.ended(), monotonic() + min(TELL_S, timeout_s)
        while ended:
            batch, arguments = ended[:TELL_BATCH], []
            for _, how, left_s in batch:
                arguments += [encode_end(how), max(1, int(left_s * 1000))]
            try:
                self._link.call_for_sessions(self._path, [name for name, *_ in batch], TELL, *arguments)
                del ended[:TELL_BATCH]
            except BrokerError as error:
                if monotonic() + TELL_PAUSE_S >= deadline:
                    what = "%s of %s will not be told that the server has closed the session: %s"
                    log.warning(what, counted(len(ended), "client"), self._path, error)
                    break
                sleep(TELL_PAUSE_S)

    def _export(self, departure: Departing) -> bool:
        session, is_stored, why = departure.session, False, "Redis has not taken it"
        try:
            is_stored = self._store(departure)
        except StateError as error:
            departure.fail()
            self._passages.stay(session)
            self._cannot_move(session.id, error, departure.secrets, departure.left_s)
            return False
        except BrokerError as error:
            why = str(error)
        except BaseException:  # a bug of wsthreads
            self._passages.stay(session)
            departure.stay("an error")
            raise
        if is_stored:
            try:  # before a client can bring the session back to this process
                self._passages.forget(session, departure.left_s + END_S)
            finally:
                ending = departure.leave()
            # the session was closed here before Redis had it: the process that gets it must close it
            if ending is not None:
                self._close_elsewhere(session.id, *ending)
            self._count("sessions_handed_over")
        else:
            self._passages.stay(session)
            departure.stay(why)
        return is_stored

    def _close_elsewhere(self, session_id: str, code: int, reason: str) -> None:
        try:
            self._link.close(self._path, SESSIONS_ROOM, code, reason, 0.0, session_id)
        except BrokerError as error:
            what = "session %s on %s was closed in this process, but may continue in another process: %s"
            log.warning(what, session_id, self._path, error)

    def _store(self, departure: Departing) -> bool:
        """Store a session.

        Returns true if this process must forget the session, because Redis has it. Raises `BrokerError`.
        """
        session = departure.session
        fields: dict[str, Any] = {}

        def copy() -> None:
            fields.update(departure.state())
            fields["acknowledged"], fields["frames"] = departure.outbox.export(ends=False)

        positions = self._passages.cut(session, copy, CUT_S)
        presences = self._passages.presences(session)
        data, head = encode_state(SessionState(**fields, positions=positions, presences=presences))
        window_ms = max(1, int(departure.left_s * 1000))
        rooms = [name for name in positions if name != SESSIONS_ROOM]
        holding = (away_name(session.id), window_ms)
        is_stored = False
        try:
            holds = [(name, HOLD, ("log", "head", "members", "processes"), holding) for name in rooms]
            self._link.call_all(self._path, [*holds, (SESSIONS_ROOM, HOLD_SENT, ("log", "head"), holding)])
            is_stored = self._is_stored(session.id, data, head, window_ms)
        finally:
            if not is_stored:
                with suppress(BrokerError):
                    free(self._link, self._path, session.id, rooms)
        return is_stored

    def _is_stored(self, session_id: str, data: bytes, head: bytes, window_ms: int) -> bool:
        call = partial(self._link.call_for_session, self._path, session_id)
        fence = retracted(head)
        try:
            return bool(call(STORE, data, window_ms, OVERDUE_S * 1000, session_id, fence))
        except BrokerError as error:
            if not error.is_unknown:
                return False
        deadline = monotonic() + RETRACT_S
        while monotonic() < deadline:
            with suppress(BrokerError):
                return not call(RETRACT, head, fence, session_id)
            sleep(0.2)
        log.error("session %s on %s is lost: Redis does not answer whether it has stored it", session_id, self._path)
        return True


def free(
    link: Link, path: str, session_id: str, rooms: Iterable[str], before: Mapping[str, str] = NOTHING_BEFORE
) -> None:
    """Stop counting a session as away, because a process has taken it, or because it has not left.

    Raises `BrokerError`.

    `before` maps each room to the process that has kept the session's presence until now.
    """
    away, keys = away_name(session_id), ("members", "processes", "presence")
    kept = {name: f"{process} {session_id}" for name, process in before.items()}
    link.call_all(path, [(name, FREE, keys, (away, kept.get(name, ""))) for name in rooms])
