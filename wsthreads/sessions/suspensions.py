"""The sessions of one endpoint that are suspended: they have lost their connections, and wait for their clients.

A session waits for `resume_s`. Then it ends, in a thread of a small pool, because `on_close` may take long. If the
session is closed while it waits, it ends in the same way. If the application or the server has closed a session, its
client gets the close code and the reason when it returns. For that, a *record* keeps the code and the reason for as
long as the session would have waited.

Locks: the callers of `suspended` and `connected` may hold the lock of a dialogue. `_lock` is a leaf lock: a thread that
holds it takes no other lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple
from weakref import finalize

from wsthreads.errors import CloseCode, is_final
from wsthreads.loggers import get_logger
from wsthreads.monitoring.failures import exc_info_of
from wsthreads.monitoring.logs import in_context, log_context
from wsthreads.threads.flusher import Timer, weakly
from wsthreads.threads.lookups import look_up
from wsthreads.threads.pool import Pool

if TYPE_CHECKING:
    from wsthreads.protocol.handshake import Request
    from wsthreads.rooms.striped import StripedDict
    from wsthreads.sessions.admission import Admission
    from wsthreads.sessions.carrier import Carrier
    from wsthreads.sessions.dialogue import Dialogue
    from wsthreads.sessions.secrets import Secrets
    from wsthreads.sessions.served import Served
    from wsthreads.threads.flusher import Timers

__all__ = ["Record", "Suspensions"]

log = get_logger(__name__)

#: How many threads call `on_close` for sessions without a connection.
THREADS = 4

#: If no thread could be started, wait this long before the next attempt.
RETRY_S = 1.0


class Record(NamedTuple):
    """How a session was closed. Kept for the session's client, which may come back to this process."""

    code: int
    reason: str
    #: A client with one of these secrets gets the code and the reason.
    secrets: Secrets
    #: The user and the handshake of the session.
    user: str | None
    request: Request
    #: Until when the record is kept, by the clock of the timers.
    until: float


class _Wait(NamedTuple):
    """The wait of one session for its client."""

    timer: Timer
    #: When the wait ends, by the clock of the timers.
    until: float
    #: The network for which `Admission.suspend` has counted the session.
    network: str


class Suspensions:
    """Keeps the suspended sessions of an endpoint. It is the `Keeper` of their dialogues.

    Any thread, unless a method says otherwise.
    """

    def __init__(
        self,
        *,
        resume_s: float,
        timers: Timers,
        flusher: Timers,
        admission: Admission,
        served: StripedDict[str, Served],
        over: Callable[[Dialogue], None],
    ) -> None:
        #: How many seconds a session waits for its client. With 0, no session waits.
        self.resume_s = resume_s
        #: Whether sessions move to other processes at a shutdown.
        self.hands_over = False
        #: The clock for the waits. Tests replace it by one that they can move.
        self.timers = timers
        self._flusher = flusher
        self._admission = admission
        self._served = served
        self._over = over
        self._lock = Lock()  # guards _waiting and _records
        self._waiting: dict[str, _Wait] = {}  # by session id
        self._records: dict[str, Record] = {}  # by session id
        self._ending: deque[Dialogue] = deque()  # sessions that have to be ended; finalizers append to this, too
        self._pool: Pool[Dialogue] = Pool(_end, name="wsthreads-ends", threads=THREADS)
        finalize(self, self._pool.release).atexit = False

    def __len__(self) -> int:
        return len(self._waiting)

    # Dialogues call these methods

    def suspended(self, dialogue: Dialogue, *, surely: bool = False) -> bool:
        """Like `suspended` of `Keeper`. Called with the dialogue's lock held.
        """
        if not self.resume_s:
            return False
        address = dialogue.session.remote_addr
        network = self._admission.suspend(address, surely=surely, leaves=self.hands_over)
        if network is None:
            return False
        session_id = dialogue.session.id
        served = self._served.get(session_id)
        if served is None:  # the session was never opened
            self._admission.end_suspension(network)
            return False
        served.disconnect(served.connection)
        timer = self.timers.call_later(self.resume_s, weakly(dialogue.lapse, dialogue.epoch))
        with self._lock:
            self._waiting[session_id] = _Wait(timer, self.timers.now() + self.resume_s, network)
        return True

    @property
    def is_leaving(self) -> bool:
        """Whether this process is ending, and its sessions move to other processes."""
        return self.hands_over and self._admission.goodbye is not None

    def left_s(self, dialogue: Dialogue) -> float:
        """How many more seconds a session waits for its client."""
        wait = look_up(self._waiting, dialogue.session.id)
        return self.resume_s if wait is None else max(0.0, wait.until - self.timers.now())

    def waiting(self) -> list[Dialogue]:
        """The sessions that wait for their clients. A snapshot."""
        with self._lock:
            names = list(self._waiting)
        found = (self._served.get(name) for name in names)
        return [served.dialogue for served in found if served is not None and served.dialogue is not None]

    def gone(self, dialogue: Dialogue) -> None:
        """Called when a session has moved to another process."""
        self._forget(dialogue.session.id)
        self._over(dialogue)

    def connected(self, dialogue: Dialogue, carrier: Carrier) -> None:
        """Called under the dialogue's lock when a session has got its first connection or a new one."""
        session_id = dialogue.session.id
        self._forget(session_id)
        served = self._served.get(session_id)
        if served is not None:  # a new session is not in the list yet
            served.connect(carrier.connection)

    def _forget(self, session_id: str) -> None:
        with self._lock:
            wait = self._waiting.pop(session_id, None)
        if wait is not None:
            wait.timer.cancel()
            self._admission.end_suspension(wait.network)

    def closing(self, dialogue: Dialogue) -> None:
        """Let another thread end the requests of a session, because its ending was set.

        Takes no lock, so finalizers may call this.
        """
        self._flusher.call_later(0.0, dialogue.requests.end)

    def end_soon(self, dialogue: Dialogue) -> None:
        """Let another thread call `Dialogue.end`. Takes no lock, so finalizers may call this."""
        self._ending.append(dialogue)
        self._flusher.call_later(0.0, self._end_them)

    def over(self, dialogue: Dialogue) -> None:
        """Called when a session has ended, and `on_close` has returned."""
        session = dialogue.session
        code, reason = dialogue.ending or (int(CloseCode.ABNORMAL), "")
        # After any other code, the client comes back and gets a new session.
        if self.resume_s and is_final(code) and not dialogue.is_known_to_have_ended:
            until = self.timers.now() + self.resume_s
            record = Record(int(code), reason, dialogue.secrets, session.user, session.request, until)
            with self._lock:
                while len(self._records) >= self._admission.max_suspended:
                    del self._records[next(iter(self._records))]
                self._records[session.id] = record
            self.timers.call_later(self.resume_s, weakly(self._forget_record, session.id, record))
        self._over(dialogue)
        self._forget(session.id)

    def _forget_record(self, session_id: str, record: Record) -> None:
        with self._lock:
            if look_up(self._records, session_id) is record:
                del self._records[session_id]

    def record(self, session_id: str, wanted: str) -> Record | None:
        """The record of a session that the server has closed, for a client whose secret has the digest `wanted`.

        Returns None if there is no such record.
        """
        with self._lock:
            found = look_up(self._records, session_id)
        return found if found is not None and found.secrets.has(wanted) else None

    def records(self) -> list[tuple[str, Record, float]]:
        """All records. For each, the id of the session, the record, and for how many more seconds it is kept."""
        now = self.timers.now()
        with self._lock:
            return [(session_id, record, record.until - now) for session_id, record in self._records.items()]

    # These methods end sessions

    def _end_them(self) -> None:
        """Let threads of the pool end the sessions in `_ending`. Called by the flusher."""
        batch = []
        while self._ending:
            batch.append(self._ending.popleft())
        try:
            self._pool.put(batch)
        except RuntimeError:  # no thread can be started; the sessions wait in the pool
            self._flusher.call_later(RETRY_S, self._retry)

    def _retry(self) -> None:
        try:
            self._pool.put(())
        except RuntimeError:
            self._flusher.call_later(RETRY_S, self._retry)

    def close_all(self, code: int, reason: str) -> None:
        """End all sessions that wait. Does not block."""
        for dialogue in self.waiting():
            dialogue.begin_close(code, reason)

    @property
    def moved(self) -> int:
        """A number that grows when sessions have ended. Tests wait for it."""
        return self._pool.moved

    def settle(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` until no session has to be ended. Returns False if some still have to. For tests."""
        self._end_them()
        return self._pool.wait_idle(timeout_s)

    def stop(self, timeout_s: float) -> None:
        """End the threads. Waits at most `timeout_s`."""
        self._pool.stop(timeout_s)

    def give_up(self) -> None:
        """Forget all sessions in a forked process, because they are those of the parent."""
        self._lock = Lock()
        self._waiting, self._records, self._ending = {}, {}, deque()
        self._pool.give_up()


def _end(dialogues: Sequence[Dialogue]) -> None:
    """End sessions. Called in a thread of the pool."""
    for dialogue in dialogues:
        context = log_context(dialogue.session.request.environ)
        try:
            with in_context(context):
                dialogue.end()
        except BaseException as error:  # any exception here is a bug of wsthreads
            log.error("the end of session %s failed", dialogue.session.id, exc_info=exc_info_of(error), extra=context)
