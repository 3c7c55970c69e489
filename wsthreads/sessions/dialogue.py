"""The channel of a session that speaks ``wsthreads.1``: it has one connection after another.

For the session, a `Dialogue` takes the place of a connection's `Channel`. It has one outbox for all connections. `turn`
explains the turn and the events of a session.

Invariants:

- `_lock` guards `_carrier`, the counts, `secrets` and `_is_closing`. A thread that holds it uses only the outbox's
  lock, stripe locks, and queues without locks. It runs no code of the application. No finalizer needs this lock.
- Each message that was taken from the client is handled: in this process, or in the process to which the session moves.
- The handler's `open` is called first. `suspend` and `resume` alternate. `close` is called once, last.
- When a connection is replaced, its thread may finish its call of the handler, and handle the events that wait. Then
  the thread ends, and has no further effect on the session.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic
from typing import TYPE_CHECKING

from wsthreads.errors import CloseCode
from wsthreads.protocol.channel import Leaving
from wsthreads.sessions.endings import Ending, Keeper
from wsthreads.sessions.requests import Requests

if TYPE_CHECKING:
    from wsthreads.protocol.handshake import Request
    from wsthreads.protocol.outbox import Outbox
    from wsthreads.sessions.carrier import Carrier
    from wsthreads.sessions.interface import Handler
    from wsthreads.sessions.life import Life
    from wsthreads.sessions.session import Session

__all__ = ["Dialogue"]


def _nothing() -> None:
    """A callback that does nothing."""


class Dialogue(Ending):
    """The channel of a session that speaks ``wsthreads.1``. Any thread, unless a method says otherwise.

    The thread that makes a dialogue has the turn until it calls `start`. Before, it calls `begin` and then `attach`.
    """

    __slots__ = (
        "__weakref__",
        "_has_lapsed_meanwhile",
        "_has_peer_closed",
        "epoch",
        "is_gone",
        "is_moving",
        "returned",
        "subprotocol",
        "why_here",
    )

    def __init__(
        self, outbox: Outbox, *, subprotocol: str | None, handler: Handler, keeper: Keeper, most_bytes: int
    ) -> None:
        super().__init__(outbox, handler, keeper, most_bytes)
        #: The subprotocol of the application.
        self.subprotocol = subprotocol
        self._has_peer_closed = False  # whether the client has closed the session, as in `Channel`
        #: Grows by 1 whenever the session gets or loses a connection. Guarded by the lock.
        self.epoch = 0
        #: The last return value of `on_suspend`. Written by the thread that has the turn.
        self.returned: object = None
        #: Whether the session is moving to another process, or to this one. Its client cannot come back before the move
        #: ends.
        self.is_moving = False
        #: Why the session has not moved to another process. Empty if no move was tried.
        self.why_here = ""
        self._has_lapsed_meanwhile = False
        #: Whether the session has moved to another process.
        self.is_gone = False

    def begin(self, session: Session, life: Life, *, most_requests: int) -> None:
        """Set the session that uses this dialogue. Called once, before any other thread knows the dialogue."""
        self.session, self._life = session, life
        outbox = self.outbox
        self.requests = Requests(
            session, outbox.encoding.inner, most=most_requests, read=self.pump, timers=outbox.flusher
        )
        self._unanswered, self._most_unanswered = self.requests.unanswered, most_requests
        self.outbox.pump = self.pump

    # The methods of a session's channel

    def give_up(self) -> None:
        """End the session in a forked process, without any call of the handler, because it is the parent's."""
        self._claim((int(CloseCode.ABNORMAL), ""))
        self.outbox.give_up()

    def may_resume(self, shown: str) -> bool:
        """Whether the secret with this digest is valid."""
        with self._lock:
            return self.secrets.has(shown)

    def judge_received(self, received: int) -> str:
        """Check the number of messages that the client says it has received.

        Returns "counts" if the client has acknowledged more: its hello is outdated. Otherwise, or if the session is
        closing or moving, returns "". Raises `ProtocolError` if `received` is more than the server has sent.
        """
        with self._lock:
            if self.ending is not None or self.is_moving or self.is_gone:
                return ""
            return self._judge_received_locked(received)

    def _judge_received_locked(self, received: int) -> str:
        if received < self.outbox.acknowledged:
            return "counts"
        self.outbox.check_received(received)
        return ""

    @property
    def is_connected(self) -> bool:
        """Whether the session has a connection, as far as the server knows."""
        carrier = self._carrier
        return carrier is not None and carrier.channel.ending is None and not self.outbox.is_suspended

    @property
    def is_known_to_have_ended(self) -> bool:
        """Whether the client knows that the session has ended.

        The client knows if it has closed the session, or has answered the server's close frame. Also true if the
        client's connection has ended, and the session could not wait.
        """
        return self._has_peer_closed or isinstance(self.ending, Leaving)

    # The session gets or loses a connection

    def attach(
        self,
        carrier: Carrier,
        welcome: Callable[[int, str | None], bytes],
        *,
        received: int = 0,
        shown: str = "",
        request: Request | None = None,
    ) -> str:
        """Use a connection from now on. Called in the connection's thread. Returns "", or why this is not possible.

        "unknown": the session or the connection is closing. "busy": the session is moving between processes. "counts":
        the client has acknowledged more than `received`, so its hello is outdated.

        `welcome` makes the frame of the welcome. It gets the number of messages taken, and the next secret. To resume a
        session, pass the `request` of the new handshake, the digest `shown` of the client's secret, and how many
        messages the client has `received`. Raises `ProtocolError`, and changes nothing, if this is more than was sent.
        """
        with self._lock:
            if self.is_moving or self.is_gone:
                return "busy"
            if self.ending is not None:
                return "unknown"
            if request is not None:
                why = self._judge_received_locked(received)
                if why:
                    return why
                if self._carrier is not None:
                    old = self._carrier.channel
                    if not old.supersede():
                        self._claim(old.ending or (int(CloseCode.ABNORMAL), ""))
                        return "unknown"
                    self._lose_locked()
                    self._events.append(lambda it: it._suspend("replaced by a new connection"))
                    if not self._keeper.suspended(self, surely=True):  # at a shutdown
                        self._claim((int(CloseCode.ABNORMAL), "replaced by a new connection"))
                        self._close_locked(detaches=True)
                        return "unknown"
                self.secrets.show(shown)
            try:
                is_attached = self._attach_locked(carrier, welcome, received, request)
            except BaseException:  # an exception that another thread has raised in this one, or a bug
                self._carrier = None
                self._claim((int(CloseCode.INTERNAL_ERROR), "server error"))
                self._keeper.end_soon(self)
                raise
        if not is_attached:
            return "unknown"
        self._catch_up(carrier)
        return ""

    def _attach_locked(
        self, carrier: Carrier, welcome: Callable[[int, str | None], bytes], received: int, request: Request | None
    ) -> bool:
        """Attach a connection. Returns False, and changes nothing, if the connection is closing."""
        channel, keeps = carrier.channel, self.outbox.is_keeping
        channel.on_ending = lambda: self._on_channel_ending(carrier)
        first = welcome(self.received, self.secrets.make() if keeps else None)
        if not keeps:
            self.uncounted_out += 1
            self.outbox.append(first)
            self.outbox.flush()
        elif not channel.welcome(first, received, None if self.outbox is channel.outbox else self.outbox):
            channel.on_ending = _nothing
            return False
        self._to_confirm = keeps
        self._ack_at = self.received + 1  # so that the next message calls `_look_locked`
        self._carrier = carrier
        self.epoch += 1
        self._keeper.connected(self, carrier)
        self._events.append(Dialogue._open if request is None else lambda it: it._resume(request))
        return True

    def _catch_up(self, carrier: Carrier) -> None:
        """Handle a close of the connection, or of the session, that began before the connection was attached."""
        channel = carrier.channel
        self._on_channel_ending(carrier)
        if self.ending is not None:
            channel.begin_close(*self.ending, is_kick=self.was_kicked, is_expiry=self.has_expired)

    def start(self, *, is_refused: bool = False) -> None:
        """Give up the first turn, which the calling thread has. With `is_refused`, the session is never opened."""
        self._is_refused = is_refused
        self._give_up_turn()

    def break_off(self, code: int) -> None:
        """End a session that was not started. No event was handled, and no thread waits for the turn."""
        self._claim((int(code), ""))
        self.is_over = True
        with ExitStack() as steps:  # the steps run in reverse order; if one fails, the others still run
            steps.callback(self._keeper.over, self)
            steps.callback(self.outbox.detach)
            steps.callback(self._life.close, code, "")

    def _on_channel_ending(self, carrier: Carrier) -> None:
        """Called when a connection begins to close, in the thread that closes it. Takes no lock."""
        channel = carrier.channel
        if carrier.reader is not None:
            carrier.reader.stop()
        if channel.ending is not None and not channel.suspends:
            self._claim(channel.ending)
        elif self._keeper.is_leaving:  # no reply will arrive in this process
            self.requests.hold()

    def _lose_locked(self) -> None:
        """Note that the session no longer has a connection."""
        if self._carrier is not None:
            if self._carrier.reader is not None:
                self._carrier.reader.stop()
            self._count_passed_locked(self._carrier)
        self._carrier = None
        self._to_confirm = False
        self.epoch += 1
        self._room.notify_all()

    def hear_out(self, carrier: Carrier, code: int) -> None:
        """Wait until all messages of a connection have been handled. Called when the client ends it with this code.

        If this also ends the session, requests to the client fail now. If the session stays, this method returns at
        once, because replies may arrive over the next connection.
        """
        if carrier.channel.would_suspend(code):
            return
        if self._carrier is carrier:
            self.requests.end_asking()
        self.catch_up(carrier)

    def part(self, carrier: Carrier) -> None:
        """End a connection: let the session wait for its client, or close the session.

        Called in the connection's thread, before `run`. Does nothing if the connection was replaced. Idempotent.
        """
        ending = carrier.finish()
        channel = carrier.channel
        with self._lock:
            if self._carrier is not carrier:
                return
            self._lose_locked()
            if self.ending is None and channel.suspends and self._keeper.suspended(self):
                why = _lost_by(ending)
                self._events.append(lambda it: it._suspend(why))
            else:
                self.was_too_slow = self.was_too_slow or channel.was_too_slow
                self._has_peer_closed = channel.has_peer_closed
                self._claim(ending)
                self._close_locked(detaches=channel.suspends)

    def drop(self, carrier: Carrier) -> None:
        """End the session, because `part` has failed, or because another thread has raised an exception in this one."""
        self._claim((int(CloseCode.INTERNAL_ERROR), "server error"))
        if self._carrier is carrier:
            self._carrier = None
        self._keeper.end_soon(self)

    def lapse(self, epoch: int) -> None:
        """End the session, because its client did not come back in time.

        Called by a timer that was set when `epoch` had this value. Does nothing if `epoch` has changed.
        """
        with self._lock:
            if self.epoch != epoch or self._carrier is not None:
                return
            if self.is_moving:
                self._has_lapsed_meanwhile = True
                return
            reason = f"not back within {self._keeper.resume_s:g} s"
            self.has_lapsed = self._claim((int(CloseCode.ABNORMAL), reason))
        self._keeper.end_soon(self)

    # These methods move the session from one process to another (see `moves`)

    def hold(self, timeout_s: float) -> bool:
        """Drop the connection and take the turn. After that, nothing changes until `let_go` or `vanish`.

        Waits at most `timeout_s` for running calls of the handler. Returns False if they take longer, or the session is
        closing.
        """
        deadline = monotonic() + timeout_s
        with self._lock:
            if self.ending is not None or self.is_moving:
                return False
            if self._carrier is not None:
                if not self._carrier.channel.supersede():
                    return False
                self._lose_locked()
                self._keeper.suspended(self, surely=True)
                self._events.append(lambda it: it._suspend("moves to another process"))
            self.is_moving = True
        self.requests.hold()
        while monotonic() < deadline:
            self.run()
            if not self._await_turn(deadline - monotonic()):
                break
            if not self._claims and not self._events:
                return True
            self._give_up_turn()
            if self._claims:  # the session was closed in the meantime
                break
        self._end_move()
        return False

    def let_go(self) -> None:
        """Continue the session after `hold`, because it stays in this process."""
        self._give_up_turn()
        self._end_move()

    def _end_move(self) -> None:
        with self._lock:
            self.is_moving = False
        self.requests.let_go()
        if self._has_lapsed_meanwhile:
            self._has_lapsed_meanwhile = False
            self.lapse(self.epoch)
        self.run()

    def vanish(self) -> tuple[int, str] | None:
        """Forget the session after `hold`, because it has moved to another process.

        If the session was closed during the move, returns the close code and the reason.
        """
        with self._lock:
            ending = self.ending
            self._claim((int(CloseCode.ABNORMAL), "moved to another process"))
            self.discard()
            self.is_gone = True
        self.requests.end()
        self._keeper.gone(self)
        return ending

    def discard(self) -> None:
        """Make no more calls of the handler. The calling thread has the turn, or no thread has had it yet."""
        self._is_closing = self.is_over = True
        self._claim((int(CloseCode.ABNORMAL), ""))
        self._events.clear()
        self.outbox.pump = None
        self.outbox.detach()

    def settle(self, received: int, heard: int) -> None:
        """Set the counts of a session from another process. After `let_go`, the session waits for its client."""
        with self._lock:
            self.received, self.heard = received, heard
            self._keeper.suspended(self, surely=True)

    def _open(self) -> None:
        if not self._is_refused:
            self._life.open()

    def _suspend(self, why: str) -> None:
        if self.ending is None:
            self.returned = self._life.suspend(why)

    def _resume(self, request: Request) -> None:
        if self.ending is None:
            self.session._use(request)
            self._life.resume()


def _lost_by(ending: tuple[int, str]) -> str:
    """How the connection of a suspended session has ended. For the log."""
    code, reason = ending
    if code == CloseCode.ABNORMAL:
        return reason or "connection lost"
    who = "the client" if isinstance(ending, Leaving) else "the server"
    return f"{who} has closed the connection with {code} {reason}".rstrip()
