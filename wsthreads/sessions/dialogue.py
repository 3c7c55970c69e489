"""What a session that speaks ``wsthreads.1`` has, whatever connection carries it: its counts, its turn, its ending.

For the session, a `Dialogue` stands in for a connection's `Channel`. It has one outbox for all connections.

Invariants:

- `_lock` guards `_carrier`, the counts, `secrets` and `_is_closing`. Only the outbox's lock, stripes and lock-free
  queues are used under it. No code of the application runs under it, and no finalizer needs it.
- What was taken will be handled in this process, or in the one that the session moves to.
- Open comes first. Suspend and resume alternate. Close comes once, last.
- A thread whose connection was replaced may finish the call that it is in, and handle the events that wait. It then
  ends without any effect on the session.
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
    """The channel of a session that speaks ``wsthreads.1``. Any thread, where nothing else is said.

    The thread that makes it has the turn until `start`. `begin` comes before everything else, and `attach` next.
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
    )

    def __init__(
        self, outbox: Outbox, *, subprotocol: str | None, handler: Handler, keeper: Keeper, most_bytes: int
    ) -> None:
        super().__init__(outbox, handler, keeper, most_bytes)
        #: The application's own subprotocol.
        self.subprotocol = subprotocol
        self._has_peer_closed = False  # as in `Channel`
        #: Grows with each connection that comes or goes. Guarded by the lock.
        self.epoch = 0
        #: What `on_suspend` has returned last. Written by whoever holds the turn.
        self.returned: object = None
        #: It is about to go on in another process, or in this one: no client can come back just now.
        self.is_moving = False
        self._has_lapsed_meanwhile = False
        #: It goes on in another process.
        self.is_gone = False

    def begin(self, session: Session, life: Life, *, most_requests: int) -> None:
        """The session was made. Called once, before any other thread knows of the dialogue."""
        self.session, self._life = session, life
        outbox = self.outbox
        self.requests = Requests(
            session, outbox.encoding.inner, most=most_requests, read=self.pump, timers=outbox.flusher
        )
        self._unanswered, self._most_unanswered = self.requests.unanswered, most_requests
        self.outbox.pump = self.pump

    # As a session's channel

    def give_up(self) -> None:
        """In a forked process: the session is the parent's."""
        self._claim((int(CloseCode.ABNORMAL), ""))
        self.outbox.give_up()

    def may_resume(self, shown: str) -> bool:
        """Whether a secret with this digest is valid."""
        with self._lock:
            return self.secrets.has(shown)

    def judge_received(self, received: int) -> str:
        """Why a client with this count cannot go on: "counts" if it has acknowledged more, so that its hello is late.

        Raises `ProtocolError` for more than was written. A session that is closing or moving has nothing to compare.
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
        """Whether it has a connection, as far as that is known."""
        carrier = self._carrier
        return carrier is not None and carrier.channel.ending is None and not self.outbox.is_suspended

    @property
    def is_known_to_have_ended(self) -> bool:
        """Whether the client knows that the session has ended: it has closed it, has answered the server's close frame,
        or has left a session that could not wait.
        """
        return self._has_peer_closed or isinstance(self.ending, Leaving)

    # A connection comes and goes

    def attach(
        self,
        carrier: Carrier,
        welcome: Callable[[int, str | None], bytes],
        *,
        received: int = 0,
        shown: str = "",
        request: Request | None = None,
    ) -> str:
        """Go on over a connection, in whose thread this is called. Returns why it does not, or nothing.

        That is "unknown" if the session or the connection is closing, and "busy" if it is about to go on in another
        process. `welcome` gets how many messages were taken and the next secret, and returns the frame of the welcome.
        With the `request` of its handshake, the session is resumed, by the secret with the digest `shown`, for a client
        that has `received` so many messages; "counts" if it has acknowledged more, so that its hello is late. Raises
        `ProtocolError`, and nothing happens, for more than was written.
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
                    if not self._keeper.suspended(self, surely=True):  # while nobody has it
                        self._claim((int(CloseCode.ABNORMAL), "replaced by a new connection"))
                        self._close_locked(detaches=True)
                        return "unknown"
                self.secrets.show(shown)
            try:
                is_attached = self._attach_locked(carrier, welcome, received, request)
            except BaseException:  # of another thread; or a bug
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
        """False, and nothing happens, if the connection is closing."""
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
        self._ack_at = self.received + 1  # so that the next message is looked at
        self._carrier = carrier
        self.epoch += 1
        self._keeper.connected(self, carrier)
        self._events.append(Dialogue._open if request is None else lambda it: it._resume(request))
        return True

    def _catch_up(self, carrier: Carrier) -> None:
        """The connection or the session may have begun to close when neither knew of the other."""
        channel = carrier.channel
        self._on_channel_ending(carrier)
        if self.ending is not None:
            channel.begin_close(*self.ending, is_kick=self.was_kicked, is_expiry=self.has_expired)

    def start(self, *, is_refused: bool = False) -> None:
        """Give up the turn that the dialogue was made with. If the session `is_refused`, it is never opened."""
        self._is_refused = is_refused
        self._give_up_turn()

    def break_off(self, code: int) -> None:
        """End a session that has not started: nothing has been handled, and nobody waits for the turn."""
        self._claim((int(code), ""))
        self.is_over = True
        with ExitStack() as steps:  # in reverse order; if one fails, the others still run
            steps.callback(self._keeper.over, self)
            steps.callback(self.outbox.detach)
            steps.callback(self._life.close, code, "")

    def _on_channel_ending(self, carrier: Carrier) -> None:
        """A connection begins to close, in the thread that closes it. Takes no lock."""
        channel = carrier.channel
        if carrier.reader is not None:
            carrier.reader.stop()
        if channel.ending is not None and not channel.suspends:
            self._claim(channel.ending)
        elif self._keeper.is_leaving:  # a handler that waits for a reply would wait for nothing
            self.requests.hold()

    def _lose_locked(self) -> None:
        """The connection is gone."""
        if self._carrier is not None:
            if self._carrier.reader is not None:
                self._carrier.reader.stop()
            self._count_passed_locked(self._carrier)
        self._carrier = None
        self._to_confirm = False
        self.epoch += 1
        self._room.notify_all()

    def hear_out(self, carrier: Carrier, code: int) -> None:
        """The client ends a connection, with this code: wait until all that it has sent was handled.

        A handler that waits for the client's reply is told that none will come. If the session lives on, it goes on
        waiting, and this does not: the reply may come by the next connection.
        """
        if carrier.channel.would_suspend(code):
            return
        if self._carrier is carrier:
            self.requests.end_asking()
        self.catch_up(carrier)

    def part(self, carrier: Carrier) -> None:
        """A connection is over, in whose thread this is called: the session waits for its client, or is closed.

        Does nothing if the connection was replaced. Idempotent. Call `run` afterwards.
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
        """`part` has failed, or another thread has raised an exception in it: end the session."""
        self._claim((int(CloseCode.INTERNAL_ERROR), "server error"))
        if self._carrier is carrier:
            self._carrier = None
        self._keeper.end_soon(self)

    def lapse(self, epoch: int) -> None:
        """The client did not come back in time. Called by a timer that was set at this `epoch`."""
        with self._lock:
            if self.epoch != epoch or self._carrier is not None:
                return
            if self.is_moving:
                self._has_lapsed_meanwhile = True
                return
            reason = f"not back within {self._keeper.resume_s:g} s"
            self.has_lapsed = self._claim((int(CloseCode.ABNORMAL), reason))
        self._keeper.end_soon(self)

    # From one process to another: see `moves`

    def hold(self, timeout_s: float) -> bool:
        """Keep the session as it is until `let_go` or `vanish`: without a connection, and with its turn.

        Waits at most `timeout_s` for calls of the handler. False if it cannot be, or is closing.
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
                self._events.append(lambda it: it._suspend("goes on in another process"))
            self.is_moving = True
        self.requests.hold()
        while monotonic() < deadline:
            self.run()
            if not self._await_turn(deadline - monotonic()):
                break
            if not self._claims and not self._events:
                return True
            self._give_up_turn()
            if self._claims:  # it was closed meanwhile
                break
        self._end_move()
        return False

    def let_go(self) -> None:
        """Go on in this process, after `hold`."""
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
        """After `hold`: go on in another process, and be none of this one. Returns how it was closed meanwhile."""
        with self._lock:
            ending = self.ending
            self._claim((int(CloseCode.ABNORMAL), "goes on in another process"))
            self.discard()
            self.is_gone = True
        self.requests.end()
        self._keeper.gone(self)
        return ending

    def discard(self) -> None:
        """Make no more calls of the handler. The turn is this thread's, or nobody has had it yet."""
        self._is_closing = self.is_over = True
        self._claim((int(CloseCode.ABNORMAL), ""))
        self._events.clear()
        self.outbox.pump = None
        self.outbox.detach()

    def settle(self, received: int, heard: int) -> None:
        """It has come from another process: it waits for its client, after `let_go`."""
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
    """How a connection has ended that leaves its session alive, for the log."""
    code, reason = ending
    if code == CloseCode.ABNORMAL:
        return reason or "connection lost"
    who = "the client" if isinstance(ending, Leaving) else "the server"
    return f"{who} has closed the connection with {code} {reason}".rstrip()
