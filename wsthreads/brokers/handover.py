"""Moves sessions of one endpoint between processes. A session moves when its client reconnects to another process.

A session moves in three steps. After each step, it has exactly one owner:

1. The old process stores the session's state in Redis. The state is from a single moment. It has the session's position
   in the log of each room, and all frames that the client has not acknowledged.
2. Once Redis has the state, the old process forgets the session. If Redis does not answer, the process retracts the
   state before it continues the session.
3. The new process prepares everything, and only then takes the state. If several processes try, Redis gives the state
  to one of them. The other processes have changed nothing until then. A process that fails before it takes the state
  has changed nothing, either.

So a process may die at any point. A process that ends normally stores its sessions before, and their clients find them.
If a client does not come back in time, any process takes its session and calls ``on_close``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Lock
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any
from weakref import finalize, ref

from wsthreads.brokers.directory import is_session_id
from wsthreads.brokers.exports import Exports
from wsthreads.brokers.imports import Imports
from wsthreads.brokers.keys import ALIVE_S
from wsthreads.brokers.passages import Passages
from wsthreads.brokers.session_scripts import LISTENERS, OVERDUE
from wsthreads.errors import BrokerError, CloseCodeError
from wsthreads.loggers import get_logger
from wsthreads.protocol.frames import check_close
from wsthreads.rooms.names import SESSIONS_ROOM
from wsthreads.sessions.moves import BUSY, UNKNOWN
from wsthreads.threads.pool import Pool

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Link
    from wsthreads.brokers.rooms import SharedRooms
    from wsthreads.sessions.moves import Arriving, Claim, Moves
    from wsthreads.threads.flusher import Timers

__all__ = ["BUSY", "UNKNOWN", "Handover"]

log = get_logger(__name__)

#: How long a client that has reconnected here waits for its session from another process.
FETCH_S = 3.0

#: The interval between two searches for the session. The interval grows from the first to the last value.
FIRST_LOOK_S = 0.02
LAST_LOOK_S = 0.2

#: How long a process may take to answer the question for a session. The question is repeated after half of this time.
ASK_S = 1.0

#: After this time without an answer, a process counts as dead, and no client waits for it.
SILENT_S = ALIVE_S + 3.0

#: A process that counts as alive, but did not receive the question, may be about to reconnect to Redis. Such a process
#: is asked again for this long.
UNREACHED_S = 2.0

#: How often to look in Redis for sessions whose clients have not come back, and how many to request in one call.
OVERDUE_LOOK_S = 5.0
OVERDUE_BATCH = 100

#: How much of the time for a shutdown is kept for what has to end after the sessions have moved.
REST_S = 1.0

#: How many threads store or end sessions.
THREADS = 8

#: The reasons that another process may give for not handing over a session.
WHYS = {BUSY, "user", "origin", "compression", "counts", "elsewhere"}


class Handover:
    """Moves sessions of one endpoint, in both directions. Any thread except the reader's.

    After `start`, `timers` regularly look for sessions whose clients have not come back. `count` gets the name of a
    counter. A session that has missed more than `max_missed_bytes` in its rooms ends.
    """

    def __init__(
        self,
        rooms: SharedRooms,
        link: Link,
        sessions: Moves,
        *,
        timers: Timers,
        count: Callable[[str], None],
        max_missed_bytes: int,
    ) -> None:
        self._path = path = rooms.path
        self._link = link
        self._sessions = sessions
        self._timers = timers
        self._pool: Pool[Callable[[], object]] = Pool(_call_all, name="wsthreads-handover", threads=THREADS)
        passages = Passages(rooms, link)
        self._exports = Exports(path, link, passages, sessions, count, self._pool)
        self._imports = Imports(path, link, passages, sessions, count, max_missed_bytes)
        self._kind = f"resume {path}"
        self._starting = Lock()
        self._is_started = False
        self._is_stopped = False
        self._fetching_lock = Lock()  # guards _fetching
        self._fetching: set[str] = set()  # the ids of sessions that a thread is fetching
        # When a process first gave no answer, and when one last gave none. None while all processes answer.
        self._silent: tuple[float, float] | None = None
        link.answer(self._kind, self._answer)
        finalize(self, self._pool.release).atexit = False

    # Calls for a client that has come back to this process

    def fetch(self, claim: Claim, request: Any, timeout_s: float = FETCH_S) -> Arriving | str | tuple[int, str]:
        """Take the session of a client that has reconnected to this process, or return why it cannot be resumed.

        Blocks.

        Returns `BUSY` if the client has to try again. In this case the session exists, or may exist, and was not
        changed. Returns a close code and a reason for the client in two cases: the session was closed, or the client
        says that it has received an impossible number of messages.
        """
        if not is_session_id(claim.session_id):
            return UNKNOWN
        with self._fetching_lock:
            if claim.session_id in self._fetching:  # another connection of the same client fetches the session
                return BUSY
            self._fetching.add(claim.session_id)
        try:
            self.start()
            return self._fetch(claim, request, timeout_s)
        finally:
            with self._fetching_lock:
                self._fetching.discard(claim.session_id)

    def _fetch(self, claim: Claim, request: Any, timeout_s: float) -> Arriving | str | tuple[int, str]:
        deadline, pause_s, ask_at = monotonic() + timeout_s, FIRST_LOOK_S, 0.0
        unreached_until = monotonic() + UNREACHED_S
        try:
            while not self._imports.is_over:
                found = self._imports.take(claim, request)
                if found is not None and found != BUSY:
                    return found
                if found is None and monotonic() >= ask_at:
                    trace = self._imports.trace(claim.session_id)
                    why = self._ask(claim, unreached_until)
                    if why == UNKNOWN:  # the session may have been stored meanwhile
                        found = self._imports.take(claim, request)
                        if found is None:  # and no other connection of this client has got the session
                            if self._sessions.judge(*_question(claim)) != UNKNOWN:
                                return BUSY
                            if self._imports.trace(claim.session_id) == trace:
                                return UNKNOWN
                            # The session has just moved. Each process was asked at a moment when the session was not
                            # there.
                            why = BUSY
                    if why != BUSY:
                        return why if found is None else found
                    ask_at = monotonic() + ASK_S / 2
                if monotonic() + pause_s >= deadline:
                    return BUSY
                sleep(pause_s)
                pause_s = min(LAST_LOOK_S, 1.5 * pause_s)
            return BUSY
        except BrokerError as error:
            log.debug("the search for session %s on %s has ended: %s", claim.session_id, self._path, error)
            return BUSY

    def _ask(self, claim: Claim, unreached_until: float) -> str | tuple[int, str]:
        """Ask the other processes for a session.

        The process that has the session begins to store it. Raises `BrokerError`.
        """
        answers, is_complete = self._link.ask_all(self._kind, _question(claim), ASK_S, enough=_knows)
        found = next((each["value"] for each in answers if _knows(each["value"])), None)
        if isinstance(found, str):
            return found if found in WHYS else BUSY
        if found is not None:
            code, reason = found
            try:
                check_close(code, reason)
            except CloseCodeError:
                return BUSY
            return code, reason
        if not is_complete:
            return UNKNOWN if self._is_silence_old() else BUSY
        self._silent = None
        if monotonic() < unreached_until and self._is_one_unreached({each["process"] for each in answers}):
            return BUSY
        return UNKNOWN

    def _is_one_unreached(self, answered: set[str]) -> bool:
        """Whether a process with sessions did not get the question, because that process is not subscribed now.

        `answered` has the names of the processes that have answered. Raises `BrokerError`.
        """
        listeners = self._link.call(self._path, SESSIONS_ROOM, LISTENERS, ("members", "processes"))
        names = {bytes(each).decode("ascii", "replace").partition(".")[0] for each in listeners}
        return bool(names - answered - {self._link.process})

    def _is_silence_old(self) -> bool:
        """Whether a process that got the question has not answered for so long that it counts as dead."""
        now = monotonic()
        first, last = self._silent or (now, now)
        if now - last > SILENT_S:
            first = now
        self._silent = (first, now)
        return now - first > SILENT_S

    # Answers to other processes

    def _answer(self, asked: Any) -> str | tuple[int, str]:
        if not _is_question(asked):
            return UNKNOWN
        session_id, secret, user, origin, encoding, received = asked
        why = self._sessions.judge(session_id, secret, user, origin, encoding, received)
        if why == UNKNOWN:
            return self._exports.why_not(session_id, secret) or UNKNOWN
        if not why:
            self._exports.begin(session_id)
            return BUSY
        return why

    # A process ends

    def export(self, session_id: str) -> bool:
        """Store a session for another process, and forget it.

        Returns false if the session stays, or is no longer here. Blocks.

        If several threads call this for the same session at the same time, the session is stored once.
        """
        return self._exports.export(session_id)

    def take_no_more(self) -> None:
        """From now on, take no session from Redis.

        Called when this process is about to end, because it might end before it has stored a taken session again.
        """
        self._imports.is_over = True

    def put(self, calls: Iterable[Callable[[], object]]) -> None:
        """Let other threads make these calls."""
        self._pool.put(calls)

    # Sessions whose clients have not come back

    def start(self) -> None:
        """From now on, look for sessions whose clients have not come back. Idempotent."""
        if self._is_started:
            return
        with self._starting:
            if self._is_started or self._is_stopped:
                return
            self._is_started = True
        _look_later(ref(self), self._timers)

    def end_overdue(self) -> int:
        """End the stored sessions whose clients have not come back in time.

        The threads of the pool do this. Returns how many sessions they will try to end.
        """
        count = 0
        while not self._is_stopped:
            try:
                found = self._link.call_for_session(self._path, "", OVERDUE, OVERDUE_BATCH)
            except BrokerError:
                break
            self._pool.put(partial(self._imports.end, bytes(each)) for each in found)
            count += len(found)
            if len(found) < OVERDUE_BATCH:
                break
        return count

    def stop(self, timeout_s: float) -> None:
        """Like `stop` of `sessions.moves.Handover`. If Redis hangs, this may take a second longer than `timeout_s`."""
        deadline = monotonic() + timeout_s
        has_stopped, self._is_stopped = self._is_stopped, True
        self._pool.stop(timeout_s)
        if not has_stopped:
            self._exports.log_left_behind()
            self._exports.tell_ended(deadline - monotonic() - REST_S)

    def give_up(self) -> None:
        """Start with nothing, in a forked process."""
        self._starting, self._fetching_lock, self._fetching = Lock(), Lock(), set()
        self._is_started = False
        self._pool.give_up()
        self._exports.give_up()


def _question(claim: Claim) -> tuple[str, str, str | None, str | None, str, int]:
    return claim.session_id, claim.secret, claim.user, claim.origin, claim.encoding.name, claim.received


def _knows(value: Any) -> bool:
    """Whether an answer says that the process has the session, or knows how it has ended."""
    if isinstance(value, str):
        return value != UNKNOWN
    return isinstance(value, list) and len(value) == 2


def _is_question(asked: Any) -> bool:
    if not isinstance(asked, list) or len(asked) != 6:
        return False
    session_id, secret, user, origin, encoding, received = asked
    is_text = all(isinstance(each, str) and each.isascii() for each in (session_id, secret, encoding))
    return is_text and type(received) is int and all(each is None or isinstance(each, str) for each in (user, origin))


def _look_later(handover: ref[Handover], timers: Timers) -> None:
    timers.call_later(OVERDUE_LOOK_S, partial(_look, handover, timers))


def _look(handover: ref[Handover], timers: Timers) -> None:
    """Let another thread end sessions whose clients have not come back, and set the next timer.

    Called by the timers.
    """
    found = handover()
    if found is not None and not found._is_stopped:
        found._pool.put([found.end_overdue])
        _look_later(handover, timers)


def _call_all(calls: Sequence[Callable[[], object]]) -> None:
    for call in calls:
        try:
            call()
        except Exception:
            log.exception("a session was not handed over")
