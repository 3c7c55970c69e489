"""What a session that speaks ``wsthreads.1`` has, whatever connection carries it: its counts, its turn, its ending.

For the session, a `Dialogue` stands in for a connection's `Channel`. It has one outbox for all connections.

Invariants:

- `_lock` guards `_carrier`, the counts, `secrets` and `_is_closing`. Only the outbox's lock, stripes and lock-free
  queues are used under it. No code of the application runs under it, and no finalizer needs it.
- Messages are taken from `_carrier` alone, and counted in the same step. So once a connection was replaced or given up,
  the count that the client is told is final, and nothing more of that connection is handled.
- What was taken will be handled in this process. All that happens to the session is an event in `_events`, in order:
  open, message, request, suspend, resume, close. Whoever holds `_turn` handles them, as an outbox's writer does. So the
  calls of a session never overlap, and a new connection is served although a call for the old one still runs.
- Open comes first. Suspend and resume alternate. Close comes once, last.
- `ending` is decided once, without a lock: finalizers may close. Who closes sets `ending` and then reads `_carrier`; a
  connection that comes or goes writes `_carrier` and then reads `ending`. So one of both has the close event queued.
- A thread whose connection was replaced may finish the call that it is in, and handle the events that wait. It then
  ends without any effect on the session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from threading import Condition, Lock, get_ident
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from wsthreads.errors import CloseCode, PeerError, ProtocolError, RequestError
from wsthreads.protocol import envelope
from wsthreads.protocol.channel import Expired, Kick
from wsthreads.protocol.frames import message_frame
from wsthreads.rooms.roster import LOST_CODES
from wsthreads.sessions.requests import IncomingRequest, Requests
from wsthreads.sessions.secrets import Secrets

if TYPE_CHECKING:
    from wsthreads.protocol.handshake import Request
    from wsthreads.protocol.outbox import Outbox
    from wsthreads.sessions.carrier import Carrier
    from wsthreads.sessions.interface import Handler
    from wsthreads.sessions.life import Life
    from wsthreads.sessions.session import Session
    from wsthreads.threads.flusher import Timers

__all__ = ["Dialogue", "Keeper"]

#: How a message begins that is no ordinary one, or that was escaped.
MARKS = frozenset({envelope.DLE, envelope.DLE.encode()})

#: What a message that waits for the turn counts beside its own length.
MESSAGE_BYTES = 64

#: A thread that waits for the turn's holder, or for its own client, looks again after this at the latest.
LOOK_S = 0.5


def _nothing() -> None:
    """A callback that does nothing."""


class Keeper(Protocol):
    """What keeps the sessions that wait for their clients."""

    #: The longest wait, in seconds; 0: no session waits.
    resume_s: float

    def suspended(self, dialogue: Dialogue, *, surely: bool = False) -> bool:
        """A session has lost its connection. False if it may not wait, which it may `surely` if it goes on in another
        process. Called under the dialogue's lock.
        """

    def connected(self, dialogue: Dialogue, carrier: Carrier) -> None:
        """It has a connection, perhaps another one. Called under the dialogue's lock."""

    def closing(self, dialogue: Dialogue) -> None:
        """Its `ending` is decided: have its requests ended by another thread. Takes no lock."""

    def end_soon(self, dialogue: Dialogue) -> None:
        """Have `Dialogue.end` called by another thread. Takes no lock."""

    def over(self, dialogue: Dialogue) -> None:
        """The session has ended: `on_close` has returned."""

    def gone(self, dialogue: Dialogue) -> None:
        """The session goes on in another process."""


class Dialogue:
    """The channel of a session that speaks ``wsthreads.1``. Any thread, where nothing else is said.

    The thread that makes it has the turn until `start`. `begin` comes before everything else, and `attach` next.
    """

    __slots__ = (
        "__weakref__",
        "_ack_at",
        "_ack_bytes_at",
        "_bytes_handled",
        "_bytes_queued",
        "_carrier",
        "_claims",
        "_detaches",
        "_drops",
        "_events",
        "_handler",
        "_has_lapsed",
        "_has_lapsed_meanwhile",
        "_is_closing",
        "_is_full",
        "_is_refused",
        "_keeper",
        "_life",
        "_lock",
        "_most_bytes",
        "_room",
        "_runner",
        "_to_confirm",
        "_turn",
        "ending",
        "epoch",
        "has_peer_closed",
        "is_gone",
        "is_moving",
        "is_over",
        "outbox",
        "received",
        "requests",
        "returned",
        "secrets",
        "session",
        "subprotocol",
        "was_too_slow",
    )

    session: Session
    requests: Requests
    _life: Life

    def __init__(
        self, outbox: Outbox, *, subprotocol: str | None, handler: Handler, keeper: Keeper, most_bytes: int
    ) -> None:
        #: The outbox of the session.
        self.outbox = outbox
        #: The application's own subprotocol.
        self.subprotocol = subprotocol
        self._handler = handler
        self._keeper = keeper
        self._most_bytes = most_bytes  # how much may wait for the turn
        #: Code and reason once the session is closing for good. Set once.
        self.ending: tuple[int, str] | None = None
        self._claims: list[tuple[int, str]] = []  # of each attempt to close it; the first counts
        self._drops = False  # the server has closed it: what the client has sent before is not handled any more
        self._is_refused = False  # `on_open` is not to be called
        #: The session was closed because its client was too slow.
        self.was_too_slow = False
        #: The client has sent a close frame that has ended the session, or has answered one.
        self.has_peer_closed = False
        self._has_lapsed = False  # its client did not come back in time
        self._lock = Lock()
        self._room = Condition(self._lock)  # for a thread that waits until fewer events wait
        self._is_full = False  # such a thread waits
        self._carrier: Carrier | None = None
        #: Grows with each connection that comes or goes. Guarded by the lock.
        self.epoch = 0
        self._events: deque[str | bytes | envelope.Request | Callable[[Dialogue], None]] = deque()
        self._turn = Lock()
        self._turn.acquire()
        self._runner = 0  # the thread that has the turn, in `run`
        #: How many of the client's counted messages were taken; see `messages_in`. Guarded by the lock.
        self.received = 0
        self._bytes_queued = 0  # of messages that ever were events
        self._bytes_handled = 0  # of those that are none any more; written by whoever holds the turn
        self._ack_at, self._ack_bytes_at = envelope.ACK_MESSAGES, envelope.ACK_BYTES  # then an acknowledgement is due
        #: What the client may come back with. Guarded by the lock.
        self.secrets = Secrets()
        self._to_confirm = False  # the client has not shown yet that it has the last welcome
        self._is_closing = False  # the close event was queued
        self._detaches = False  # no connection's thread will let go of the outbox
        #: What `on_suspend` has returned last. Written by whoever holds the turn.
        self.returned: object = None
        #: `on_close` has returned, or the session goes on in another process.
        self.is_over = False
        #: It is about to go on in another process, or in this one: no client can come back just now.
        self.is_moving = False
        self._has_lapsed_meanwhile = False
        #: It goes on in another process.
        self.is_gone = False

    def begin(self, session: Session, life: Life, *, most_requests: int, timers: Timers) -> None:
        """The session was made. Called once, before any other thread knows of the dialogue."""
        self.session, self._life = session, life
        self.requests = Requests(session, self.outbox.encoding.inner, most=most_requests, read=self.pump, timers=timers)
        self.outbox.pump = self.pump

    # As a session's channel

    @property
    def was_kicked(self) -> bool:
        """Whether the application has closed it."""
        return isinstance(self.ending, Kick)

    @property
    def has_expired(self) -> bool:
        """Whether the application has closed it, at a time that was known before."""
        return isinstance(self.ending, Expired)

    def give_up(self) -> None:
        """In a forked process: the session is the parent's."""
        self._claim((int(CloseCode.ABNORMAL), ""))
        self.outbox.give_up()

    def may_resume(self, shown: str) -> bool:
        """Whether a secret with this digest is valid."""
        with self._lock:
            return self.secrets.has(shown)

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection, as far as that is known."""
        carrier = self._carrier
        return carrier is not None and carrier.channel.ending is None and not self.outbox.is_suspended

    def begin_close(self, code: int, reason: str = "", *, is_kick: bool = False, is_expiry: bool = False) -> bool:
        """As in `Channel`: close the session for good, whether it has a connection or not. Takes no lock."""
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
        """Set `ending`. False if it is already set. list.append is atomic."""
        self._claims.append(claim)
        self.ending = self._claims[0]
        if self.ending is not claim:
            return False
        self._keeper.closing(self)
        return True

    def on_stuck(self, reason: str) -> None:
        """Too much waits for a client that has no connection."""
        if self.begin_close(CloseCode.TRY_AGAIN_LATER, f"too slow: {reason}"):
            self.was_too_slow = True

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
                if received < self.outbox.acknowledged:
                    return "counts"
                self.outbox.check_received(received)
                if self._carrier is not None:
                    old = self._carrier.channel
                    if not old.supersede():
                        self._claim(old.ending or (int(CloseCode.ABNORMAL), ""))
                        return "unknown"
                    self._lose_locked()
                    self._events.append(Dialogue._suspend)
                    if not self._keeper.suspended(self):  # while nobody has it
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
        self._turn.release()

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

    def part(self, carrier: Carrier) -> None:
        """A connection is over, in whose thread this is called: the session waits for its client, or is closed.

        Does nothing if the connection was replaced. Idempotent. Call `run` afterwards.
        """
        code, reason = carrier.finish()
        channel = carrier.channel
        with self._lock:
            if self._carrier is not carrier:
                return
            self._lose_locked()
            if self.ending is None and channel.suspends and self._keeper.suspended(self):
                self._events.append(Dialogue._suspend)
            else:
                self.was_too_slow = self.was_too_slow or channel.was_too_slow
                self.has_peer_closed = channel.has_peer_closed
                self._claim((code, reason))
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
            self._has_lapsed = self._claim((int(CloseCode.ABNORMAL), reason))
        self._keeper.end_soon(self)

    def end(self) -> None:
        """The session is closing: have `on_close` called. Called by a thread of the keeper."""
        with self._lock:
            if self._carrier is not None:  # its thread will do it
                return
            self._close_locked(detaches=True)
        self.run()

    def _close_locked(self, *, detaches: bool) -> None:
        if not self._is_closing:
            self._is_closing, self._detaches = True, detaches
            self._events.append(Dialogue._close)

    # From one process to another: see `moves`

    def hold(self, timeout_s: float) -> bool:
        """Have nothing happen to the session until `let_go` or `vanish`: without a connection, and with its turn.

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
                self._events.append(Dialogue._suspend)
            self.is_moving = True
        while monotonic() < deadline:
            self.run()
            if not self._turn.acquire(timeout=max(0.0, deadline - monotonic())):
                break
            if not self._claims and not self._events:
                return True
            self._turn.release()
            if self._claims:  # it was closed meanwhile
                break
        self._end_move()
        return False

    def let_go(self) -> None:
        """Go on in this process, after `hold`."""
        self._turn.release()
        self._end_move()

    def _end_move(self) -> None:
        with self._lock:
            self.is_moving = False
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
        """Have no more calls of the handler. The turn is this thread's, or nobody has had it yet."""
        self._is_closing = self.is_over = True
        self._claim((int(CloseCode.ABNORMAL), ""))
        self._events.clear()
        self.outbox.pump = None
        self.outbox.detach()

    def settle(self, secrets: Secrets, received: int) -> None:
        """It has come from another process: it waits for its client, after `let_go`."""
        with self._lock:
            self.secrets, self.received = secrets, received
            self._keeper.suspended(self, surely=True)

    # What the client sends

    def take(self, carrier: Carrier, message: str | bytes) -> bool:
        """Take a message, and handle what waits if it is this thread's turn. False if the connection was replaced.

        Called in the connection's thread. Raises `ProtocolError`.
        """
        if not self.accept(carrier, message):
            return False
        self.run()
        if self._events and self._bytes_waiting() > self._most_bytes:
            self._wait_for_turn(carrier)
        return True

    def accept(self, carrier: Carrier, message: str | bytes) -> bool:
        """Take a message, and call no handler. False if the connection was replaced. Raises `ProtocolError`."""
        if message[:1] in MARKS:
            return self._accept_marked(carrier, message)
        with self._lock:
            if self._carrier is not carrier:
                return False
            self.received = received = self.received + 1
            self._bytes_queued = queued = self._bytes_queued + len(message)
            self._events.append(message)
            is_due = received >= self._ack_at or queued >= self._ack_bytes_at
            if is_due:
                self._look_locked()
        if is_due:
            self.outbox.flush()
        return True

    def _accept_marked(self, carrier: Carrier, message: str | bytes) -> bool:
        """`accept` for a message that begins with DLE."""
        parsed = envelope.parse(message)
        if isinstance(parsed, (envelope.Ack, envelope.Heartbeat)):
            carrier.connection.admit_control()
        refused = 0
        with self._lock:
            if self._carrier is not carrier:
                return False
            if isinstance(parsed, (envelope.Ack, envelope.Heartbeat)):
                self._confirm_locked()
                self.outbox.acknowledge(parsed.received)
                if isinstance(parsed, envelope.Heartbeat):
                    self._acknowledge_locked()
            elif isinstance(parsed, (envelope.Hello, envelope.Welcome)):
                raise ProtocolError(f"a {type(parsed).__name__.lower()} after the first message")
            elif isinstance(parsed, (str, bytes)):
                self._count_locked(len(parsed))
                self._events.append(parsed)
            elif isinstance(parsed, envelope.Request):
                if self.requests.hear(parsed.id):
                    self._count_locked(len(parsed.data))
                    self._events.append(parsed)
                else:
                    self._count_locked(0)
                    refused = parsed.id
            else:
                self.requests.check_asked(parsed.id)
                self._ack_bytes_at -= len(message)
                self._count_locked(0)
        self.outbox.flush()
        if refused:
            self.requests.refuse(refused)
        elif isinstance(parsed, envelope.Reply):
            self.requests.settle(parsed.id, parsed.data)
        elif isinstance(parsed, envelope.NullReply):
            self.requests.settle(parsed.id, None)
        elif isinstance(parsed, envelope.Failure):
            self.requests.settle(parsed.id, RequestError(parsed.reason))
        return True

    def _count_locked(self, queued: int) -> None:
        self.received += 1
        self._bytes_queued += queued
        if self.received >= self._ack_at or self._bytes_queued >= self._ack_bytes_at:
            self._look_locked()

    def _look_locked(self) -> None:
        """Acknowledge what was taken. The first message of a connection only confirms the welcome."""
        if self._to_confirm:
            self._confirm_locked()
        else:
            self._acknowledge_locked()
        self._ack_at = self.received + envelope.ACK_MESSAGES

    def _acknowledge_locked(self) -> None:
        """Queue an acknowledgement; the caller flushes."""
        self._ack_at = self.received + envelope.ACK_MESSAGES
        self._ack_bytes_at = self._bytes_queued + envelope.ACK_BYTES
        self.outbox.append(message_frame(envelope.ack(self.received)))

    def _confirm_locked(self) -> None:
        """The client has shown that it has the last welcome: no earlier secret is valid any more."""
        if self._to_confirm:
            self._to_confirm = False
            self.secrets.confirm()

    def _bytes_waiting(self) -> int:
        return self._bytes_queued - self._bytes_handled + MESSAGE_BYTES * len(self._events)

    def _wait_for_turn(self, carrier: Carrier) -> None:
        """Another thread has the turn, and too much waits for it: take nothing more until it has handled some of it."""
        with self._lock:
            while self._carrier is carrier and self.ending is None and self._bytes_waiting() > self._most_bytes:
                self._is_full = True
                self._room.wait(LOOK_S)
        self.run()

    # Without Python

    def read_by(self, carrier: Carrier) -> bool:
        """Let the handler itself read what comes by a connection, as far as it can. False if it cannot.

        Called once, in the connection's thread. Such messages pass the events by: the handler takes them only while
        none waits there, and keeps the order. Their number is final once the reader has stopped.
        """
        connection, channel = carrier.connection, carrier.channel
        reader = self._handler.reader(
            self.session,
            connection.readable_fd,
            due=partial(self._due, carrier),
        )
        if reader is None:
            return False
        with self._lock:
            if self._carrier is not carrier:
                return False
            carrier.reader = reader
        connection.read_by(reader)
        channel.on_ending = partial(self._on_channel_ending, carrier)
        if channel.ending is not None:  # before the hook was set again
            self._on_channel_ending(carrier)
        return True

    @property
    def messages_in(self) -> int:
        """How many of the client's counted messages were taken."""
        carrier = self._carrier
        return self.received + (0 if carrier is None else carrier.passed()[0])

    def _due(self, carrier: Carrier) -> tuple[int, int] | None:
        """Count what has passed the events by, and acknowledge if it is time.

        Returns after how many more messages, or bytes, it will be time. None if no message may pass the events by now:
        some wait there, or the client is not known to have its welcome.
        """
        with self._lock:
            if self._carrier is not carrier:
                return None
            self._count_passed_locked(carrier)
            is_due = self.received >= self._ack_at or self._bytes_queued >= self._ack_bytes_at
            if is_due:
                self._look_locked()
            due = self._ack_at - self.received, self._ack_bytes_at - self._bytes_queued
            may_pass = not self._to_confirm
        if is_due:
            self.outbox.flush()
        return due if may_pass and self.is_idle else None

    def _count_passed_locked(self, carrier: Carrier) -> None:
        texts, size = carrier.passed()
        carrier.counted = (carrier.counted[0] + texts, carrier.counted[1] + size)
        self.received += texts
        self._ack_bytes_at -= size

    # The turn

    def run(self) -> None:
        """Handle what waits, unless another thread does so. The events of a session are handled one at a time."""
        events, turn = self._events, self._turn
        while events and turn.acquire(False):
            try:
                self._runner = self.session._thread = get_ident()
                while events:
                    event = events.popleft()
                    kind = type(event)
                    if kind is str or kind is bytes:
                        self._bytes_handled += len(event)  # type: ignore[arg-type]
                        if not self._drops:
                            self._handler.message(self.session, event)  # type: ignore[arg-type]
                    elif isinstance(event, envelope.Request):
                        self._bytes_handled += len(event.data)
                        if not self._drops:
                            self._handler.request(self.session, event.data, IncomingRequest(self.requests, event.id))
                    else:
                        event(self)  # type: ignore[operator]
                    if self._is_full:
                        with self._lock:
                            self._is_full = False
                            self._room.notify_all()
            except BaseException:
                # Not an error in the user's code: the handler has logged those.
                self.begin_close(CloseCode.INTERNAL_ERROR, "server error")
                raise
            finally:
                self._runner = 0
                turn.release()

    def catch_up(self, carrier: Carrier) -> None:
        """Wait until all that was taken has been handled. Called before the client's close frame is answered."""
        self.run()
        while not self.is_idle and self._runner != get_ident() and self._carrier is carrier and self.ending is None:
            if self._turn.acquire(timeout=LOOK_S):  # another connection's thread had it
                self._turn.release()
                self.run()
        self._handler.catch_up(self.session)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, and nobody handles anything. A snapshot."""
        return not self._events and not self._turn.locked()

    def _open(self) -> None:
        if not self._is_refused:
            self._life.open()

    def _suspend(self) -> None:
        if self.ending is None:
            self.returned = self._life.suspend()

    def _resume(self, request: Request) -> None:
        if self.ending is None:
            self.session._use(request)
            if request.expires_at is not None:
                self.session.set_expiry(request.expires_at)
            self._life.resume()

    def _close(self) -> None:
        code, reason = self.ending or (int(CloseCode.ABNORMAL), "")
        may_return = self.has_expired or (code in LOST_CODES and not self.was_kicked and not self._has_lapsed)
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

    # Reading while a handler waits

    def pump(self, left_s: float) -> bool:
        """Take what comes, for at most `left_s`, if the calling thread is the one that reads the connection.

        False if it is not, or may not now: a handler that waits has to wait for another thread then. What comes waits
        for the turn, replies and acknowledgements aside.
        """
        carrier = self._carrier
        if carrier is None or self.ending is not None or not carrier.may_read() or self._lock.locked():
            return False  # the lock: a finalizer has interrupted a thread that has it
        if self._bytes_waiting() > self._most_bytes:
            return False
        message = carrier.read(min(left_s, LOOK_S))
        if carrier.is_over:
            self.part(carrier)
            return False
        if message is not None:
            try:
                return self.accept(carrier, message)
            except PeerError as error:
                carrier.channel.refuse(error)
        return True
