"""Takes, counts and acknowledges the messages that a client sends in the protocol ``wsthreads.1``.

A message is taken only from `_carrier`, the current connection, and is counted in the same step. So once a connection
was replaced or given up, the number of its messages is final, and no later message of it is handled.
"""

from __future__ import annotations

from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING

from wsthreads.errors import PeerError, ProtocolError, RequestError
from wsthreads.protocol import envelope
from wsthreads.protocol.frames import message_frame
from wsthreads.sessions.secrets import Secrets
from wsthreads.sessions.turn import LOOK_S, MARKS, Turn

if TYPE_CHECKING:
    from wsthreads.protocol.outbox import Outbox
    from wsthreads.sessions.carrier import Carrier
    from wsthreads.sessions.interface import Handler

__all__ = ["Intake"]


class Intake(Turn):
    """The base of `Dialogue` that takes messages from the client. At most `most_bytes` of them wait for the turn."""

    __slots__ = ("_most_bytes", "_to_confirm", "ending", "outbox", "secrets", "uncounted_out")

    def __init__(self, outbox: Outbox, handler: Handler, most_bytes: int) -> None:
        super().__init__(handler)
        #: The outbox of the session.
        self.outbox = outbox
        self._most_bytes = most_bytes
        #: The close code and the reason. Set once, when the session itself begins to close. None before.
        self.ending: tuple[int, str] | None = None
        self._carrier: Carrier | None = None
        #: How many of the client's counted messages were taken. `messages_in` also has those of the reader. Guarded by
        #: the lock.
        self.received = 0
        #: The id of the last request from the client. Guarded by the lock.
        self.heard = 0
        # when the next acknowledgement has to be sent
        self._ack_at, self._ack_bytes_at = envelope.ACK_MESSAGES, envelope.ACK_BYTES
        #: The secrets with which the client may come back. Guarded by the lock.
        self.secrets = Secrets()
        self._to_confirm = False  # whether the client has not yet shown that it has received the last welcome
        #: How many control messages were sent to the client. Only used if the outbox does not keep messages, because it
        #: then counts control messages, too. Guarded by the lock.
        self.uncounted_out = 0

    def part(self, carrier: Carrier) -> None:
        """Like `Dialogue.part`, which overrides this."""
        raise NotImplementedError

    def _on_channel_ending(self, carrier: Carrier) -> None:
        """Like `Dialogue._on_channel_ending`, which overrides this."""
        raise NotImplementedError

    def take(self, carrier: Carrier, message: str | bytes) -> bool:
        """Take a message for which `pass_by` has returned False.

        Handle the events that wait, unless another thread has the turn.

        Returns False if the connection was replaced. Called in the connection's thread. Raises `ProtocolError`.
        """
        if not self.accept(carrier, message):
            return False
        self._handle_waiting(carrier)
        return True

    def _handle_waiting(self, carrier: Carrier) -> None:
        """Handle the events that wait, unless another thread has the turn.

        If too many bytes wait, blocks until fewer wait.
        """
        self.run()
        if self._events and self._bytes_waiting() > self._most_bytes:
            self._wait_for_turn(carrier)

    def accept(self, carrier: Carrier, message: str | bytes) -> bool:
        """Take a message without a call of the handler.

        Returns False if the connection was replaced. Raises `ProtocolError`.
        """
        if message[:1] in MARKS:
            return self._accept_marked(carrier, message)
        with self._lock:
            if self._carrier is not carrier:
                return False
            is_due = self._count_locked(len(message))
            self._events.append(message)
        if is_due:
            self.outbox.flush()
        return True

    def _accept_marked(self, carrier: Carrier, message: str | bytes) -> bool:
        """Like `accept`, for a message that begins with DLE."""
        parsed = envelope.parse(message)
        if isinstance(parsed, envelope.Request):
            return self._accept_request(carrier, parsed)
        if isinstance(parsed, (envelope.Ack, envelope.Heartbeat)) and not self._is_progress(parsed):
            carrier.connection.admit_control()
        with self._lock:
            if self._carrier is not carrier:
                return False
            if isinstance(parsed, (envelope.Ack, envelope.Heartbeat)):
                self._confirm_locked()
                self.outbox.acknowledge(parsed.received)
                if isinstance(parsed, envelope.Heartbeat):
                    self._acknowledge_locked()
            elif isinstance(parsed, (envelope.Hello, envelope.Welcome)):
                raise ProtocolError(f"a {type(parsed).__name__.lower()} is only allowed as the first message")
            elif isinstance(parsed, (str, bytes)):
                self._count_locked(len(parsed))
                self._events.append(parsed)
            else:
                self.requests.check_asked(parsed.id)
                self._ack_bytes_at -= len(message)
                self._count_locked(0)
        self.outbox.flush()
        if isinstance(parsed, envelope.Reply):
            self.requests.settle(parsed.id, parsed.data)
        elif isinstance(parsed, envelope.NullReply):
            self.requests.settle(parsed.id, None)
        elif isinstance(parsed, envelope.Failure):
            self.requests.settle(parsed.id, RequestError(parsed.reason))
        return True

    def _accept_request(self, carrier: Carrier, request: envelope.Request) -> bool:
        with self._lock:
            if self._carrier is not carrier:
                return False
            is_heard = self._hear_locked(request.id)
            is_due = self._count_locked(len(request.data) if is_heard else 0)
            if is_heard:
                self._events.append(request)
        if is_due:
            self.outbox.flush()
        if not is_heard:
            self.requests.refuse(request.id)
        return True

    def _hear_locked(self, number: int) -> bool:
        """Note a request of the client.

        Returns False if the request must be refused, because too many have no answer yet.

        Raises `ProtocolError` for an id that is not the next one.
        """
        if number != self.heard + 1:
            raise ProtocolError(f"the next request must be {self.heard + 1}, not {number}")
        self.heard = number
        if len(self._unanswered) >= self._most_unanswered:
            return False
        self._unanswered[number] = None
        return True

    def _is_progress(self, message: envelope.Ack | envelope.Heartbeat) -> bool:
        """Whether a message acknowledges something new.

        Acknowledgements of something new have no rate limit, because a client that receives more also sends more of
        them.
        """
        outbox = self.outbox
        return isinstance(message, envelope.Ack) and outbox.is_keeping and message.received > outbox.acknowledged

    def _count_locked(self, queued: int) -> bool:
        """Count a message.

        Returns True if this has queued an acknowledgement. The caller must then flush the outbox.
        """
        self.received += 1
        self._bytes_queued += queued
        is_due = self.received >= self._ack_at or self._bytes_queued >= self._ack_bytes_at
        if is_due:
            self._look_locked()
        return is_due

    def _look_locked(self) -> None:
        """Acknowledge the messages that were taken. But the first message of a connection only confirms the welcome."""
        if self._to_confirm:
            self._confirm_locked()
        else:
            self._acknowledge_locked()
        self._ack_at = self.received + envelope.ACK_MESSAGES

    def _acknowledge_locked(self) -> None:
        """Queue an acknowledgement. The caller must flush the outbox."""
        self._ack_at = self.received + envelope.ACK_MESSAGES
        self._ack_bytes_at = self._bytes_queued + envelope.ACK_BYTES
        self.uncounted_out += not self.outbox.is_keeping
        self.outbox.append(message_frame(envelope.ack(self.received)))

    def _confirm_locked(self) -> None:
        """Make earlier secrets invalid, because the client has shown that it has received the last welcome."""
        if self._to_confirm:
            self._to_confirm = False
            self.secrets.confirm()

    def _wait_for_turn(self, carrier: Carrier) -> None:
        """Block while another thread has the turn and too many bytes wait. That thread handles the events.
        """
        with self._lock:
            while self._carrier is carrier and self.ending is None and self._bytes_waiting() > self._most_bytes:
                self._is_full = True
                self._room.wait(LOOK_S)
        self.run()

    # Reading messages without Python

    def read_by(self, carrier: Carrier) -> bool:
        """Let the handler read messages from a connection itself. Returns False if the handler has no reader.

        Called once for each connection, in its thread. The messages that the reader takes do not become events. The
        reader takes messages only while no event waits, so the order stays. Once the reader has stopped, the number of
        its messages is final.
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
        if channel.ending is not None:  # the connection began to close before `on_ending` was set
            self._on_channel_ending(carrier)
        return True

    @property
    def messages_in(self) -> int:
        """How many of the client's counted messages were taken, including those of the reader."""
        carrier = self._carrier
        return self.received + (0 if carrier is None else carrier.passed()[0])

    def _due(self, carrier: Carrier) -> tuple[int, int] | None:
        """Count the messages that the reader has taken, and acknowledge them if it is time for that.

        Returns after how many more messages, or bytes, the next acknowledgement has to be sent. Returns None if the
        reader may take no message now, because events wait, or because the client has not shown that it has the
        welcome.
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

    def catch_up(self, carrier: Carrier) -> None:
        """Wait until all messages that were taken have been handled.

        Called before the server answers the client's close frame.
        """
        self.run()
        while not self.is_idle and self._runner != get_ident() and self._carrier is carrier and self.ending is None:
            if self._await_turn(LOOK_S):  # the thread of another connection had the turn
                self._give_up_turn()
                self.run()
        self._handler.catch_up(self.session)

    # Reading messages while a handler waits for a reply

    def pump(self, left_s: float) -> bool:
        """Take the next message, if the calling thread is the one that reads the connection. Waits at most `left_s`.

        Returns False if the calling thread cannot read now. Another thread must then take the reply that a handler
        waits for. Replies and acknowledgements take effect at once. Other messages wait for the turn.
        """
        carrier = self._carrier
        if carrier is None or self.ending is not None or not carrier.may_read():
            return False
        if self._has_lock():  # this is a finalizer that runs inside of a method of this object
            return False
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
