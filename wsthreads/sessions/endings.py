"""Ends a session that speaks ``wsthreads.1``. A session ends only once, with a connection or without one.

`ending` is set once, and without a lock, because finalizers may close a session. A thread that closes the session sets
`ending`, and then reads `_carrier`. A thread that adds or removes a connection writes `_carrier`, and then reads
`ending`. So at least one of these threads queues the close event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from wsthreads.errors import CloseCode
from wsthreads.protocol.channel import Expired, Kick
from wsthreads.rooms.roster import LOST_CODES
from wsthreads.sessions.intake import Intake

if TYPE_CHECKING:
    from wsthreads.protocol.outbox import Outbox
    from wsthreads.sessions.carrier import Carrier
    from wsthreads.sessions.interface import Handler
    from wsthreads.sessions.life import Life

__all__ = ["Ending", "Keeper"]


class Keeper(Protocol):
    """Keeps the sessions that wait for their clients. `suspensions.Suspensions` is the only one."""

    #: How many seconds a session waits for its client at most. With 0, no session waits.
    resume_s: float

    @property
    def is_leaving(self) -> bool:
        """Whether this process is ending, and its sessions move to other processes."""

    def suspended(self, dialogue: Any, *, surely: bool = False) -> bool:
        """Let a session wait for its client, because it has lost its connection. Called with the dialogue's lock held.

        Returns False if the session may not wait. With `surely`, no limit applies, because the session moves or already
        has a new connection.
        """

    def connected(self, dialogue: Any, carrier: Carrier) -> None:
        """Called with the dialogue's lock held, when a session has got its first connection or a new one."""

    def closing(self, dialogue: Any) -> None:
        """Called when the session's `ending` was set. Lets another thread end the session's requests. Takes no lock."""

    def end_soon(self, dialogue: Any) -> None:
        """Let another thread call `Dialogue.end`. Takes no lock."""

    def over(self, dialogue: Any) -> None:
        """Called when the session has ended, and `on_close` has returned."""

    def gone(self, dialogue: Any) -> None:
        """Called when the session has moved to another process."""


class Ending(Intake):
    """The base of `Dialogue` that ends the session."""

    __slots__ = (
        "_claims",
        "_detaches",
        "_is_closing",
        "_is_refused",
        "_keeper",
        "_life",
        "has_lapsed",
        "is_over",
        "was_too_slow",
    )

    _life: Life

    def __init__(self, outbox: Outbox, handler: Handler, keeper: Keeper, most_bytes: int) -> None:
        super().__init__(outbox, handler, most_bytes)
        self._keeper = keeper
        # code and reason of each attempt to close; only the first has an effect
        self._claims: list[tuple[int, str]] = []
        self._is_refused = False  # whether `on_open` must not be called
        #: Whether the session was closed because its client was too slow.
        self.was_too_slow = False
        #: Whether the session has ended because its client did not come back in time.
        self.has_lapsed = False
        self._is_closing = False  # whether the close event was queued
        self._detaches = False  # whether `_close` must detach the outbox, because no connection's thread will do it
        #: Whether `on_close` has returned, or the session has moved to another process.
        self.is_over = False

    @property
    def was_kicked(self) -> bool:
        """Whether the application has closed the session."""
        return isinstance(self.ending, Kick)

    @property
    def has_expired(self) -> bool:
        """Whether the session was closed because it has expired."""
        return isinstance(self.ending, Expired)

    def begin_close(self, code: int, reason: str = "", *, is_kick: bool = False, is_expiry: bool = False) -> bool:
        """Close the session, with a connection or without one. Otherwise like `Channel.begin_close`. Takes no lock."""
        kind = Expired if is_expiry else Kick if is_kick else None
        if not self._claim((int(code), reason) if kind is None else kind(int(code), reason)):
            return False
        self._drops = True
        carrier = self._carrier
        if carrier is not None:
            carrier.channel.begin_close(code, reason, is_kick=is_kick, is_expiry=is_expiry)
        if self._carrier is None:
            self._keeper.end_soon(self)
        return True

    def _claim(self, claim: tuple[int, str]) -> bool:
        """Set `ending`. Returns False if it was already set. Needs no lock, because list.append is atomic."""
        self._claims.append(claim)
        self.ending = self._claims[0]
        if self.ending is not claim:
            return False
        self._keeper.closing(self)
        return True

    def on_stuck(self, reason: str) -> None:
        """Close the session, because too many messages wait for a client that has no connection."""
        if self.ending is None:
            # set before `ending`, because a thread that reads `ending` may read this attribute next
            self.was_too_slow = True
            self.was_too_slow = self.begin_close(CloseCode.TRY_AGAIN_LATER, f"too slow: {reason}")

    def _run_later(self) -> None:
        """Let another thread handle the events that wait.

        The other thread is the connection's thread at its end, or a thread of the keeper.
        """
        self._keeper.end_soon(self)

    def end(self) -> None:
        """Queue the close event of a session that is closing, and handle its events.

        Called by a thread of the keeper.
        """
        with self._lock:
            if self._carrier is not None:  # the connection's thread will do the rest
                return
            self._close_locked(detaches=True)
        self.run()

    def _close_locked(self, *, detaches: bool) -> None:
        if not self._is_closing:
            self._is_closing, self._detaches = True, detaches
            self._events.append(Ending._close)

    def _close(self) -> None:
        code, reason = self.ending or (int(CloseCode.ABNORMAL), "")
        may_return = self.has_expired or (code in LOST_CODES and not self.was_kicked and not self.has_lapsed)
        try:
            self._life.close(code, reason, is_lost=may_return)
        finally:
            self.is_over = True
            self.requests.end()
            self.outbox.pump = None
            if self._detaches:
                self.outbox.detach()
            try:
                if not self._is_refused:
                    self._life.record_end(was_too_slow=self.was_too_slow)
            finally:
                self._keeper.over(self)
