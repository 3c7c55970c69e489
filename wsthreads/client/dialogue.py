"""The client's side of ``wsthreads.1``: it counts and acknowledges messages, and matches requests with replies.

This module uses no socket, no thread and no clock.

The engine, which is the client's thread, calls `connected` when a connection is open, passes each received message to
`receive`, writes the messages from `take`, and calls `disconnected` at the end of the connection. The same class serves
a connection without ``wsthreads.1``. Messages then pass unchanged, and nothing is sent twice.

A *counted* message is one that its receiver acknowledges: an ordinary message, a request or a reply.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import NamedTuple

from wsthreads.client.events import Asked, Event, Opened, Pending
from wsthreads.client.unsent import Outgoing, Unsent, size_of
from wsthreads.errors import ProtocolError, RequestError, SessionClosed
from wsthreads.protocol import envelope
from wsthreads.threads.lookups import look_up

__all__ = ["NO_REQUESTS", "Dialogue"]

Message = str | bytes

#: The text of the error for a request to a server without ``wsthreads.1``.
NO_REQUESTS = "the server does not speak wsthreads.1, so it answers no requests"


class _Kept(NamedTuple):
    """A counted message, as it was sent. `is_ordinary` is True unless it is a request or a reply."""

    message: Message
    size: int
    is_ordinary: bool


class Dialogue:
    """The sessions of one client, one after another. Not thread-safe."""

    def __init__(self, *, max_queued: int = 1000, max_queued_bytes: int = 1024 * 1024) -> None:
        self._max_queued, self._max_queued_bytes = max_queued, max_queued_bytes
        #: The secret token of the session. None if there is no session, or if it cannot be resumed.
        self.token: str | None = None
        #: Whether the current connection speaks ``wsthreads.1``, and whether the server's welcome has come over it.
        self.speaks = False
        self.is_open = False
        #: Whether the server's first message over this connection was a welcome, even an invalid one.
        self.was_welcomed = False
        #: Whether the current or last connection resumed a session.
        self.resumed = False
        self.protocol: str | None = None
        self.heartbeat_s = self.timeout_s = 0.0
        self._resume_s = self._lost_at = 0.0  # how long the server keeps the session, and since when it has to
        #: How many counted messages were received in this session.
        self.received = 0
        self._told = 0  # how many of the received messages this side has acknowledged over this connection
        self._untold_bytes = 0  # the bytes of the received messages that this side has not acknowledged
        self._holds_back = False
        self._last_asked = 0  # the id of the server's last request
        #: The number of the session. It grows by 1 with each new session.
        self.session = 0
        #: How many of the sent messages the server has acknowledged in this session.
        self.acknowledged = 0
        self._kept: deque[_Kept] = deque()  # sent messages that the server has not acknowledged
        self._again: deque[Message] = deque()  # the messages of `_kept` that must be sent again over this connection
        self._keeps = True
        self._kept_bytes = 0
        self._unsent = Unsent()
        self._under_way = 0  # the bytes of `_kept`, as `CLIENT_WINDOW_BYTES` counts them
        self._is_finishing = False
        self._control: deque[str] = deque()  # control messages, which are sent before others and are not counted
        self._last_id = 0
        self._pending: dict[int, Pending] = {}  # requests that were sent and are not answered, by their ids

    # The connection

    def connected(self, speaks: bool) -> list[Event]:
        """Note that a connection is open. `speaks` says whether the server has chosen ``wsthreads.1``."""
        self._reset_connection()
        self.speaks = speaks
        if speaks:
            self._control.append(envelope.hello(self.token, self.received))
            return []
        self.token, self._keeps = None, False
        self.heartbeat_s = self.timeout_s = 0.0
        return self._begin(None)

    def disconnected(self) -> None:
        """Note that the connection has ended."""
        if self.is_open:
            self._lost_at = monotonic()
        self._reset_connection()

    @property
    def left_s(self) -> float:
        """How much longer the server keeps the session without a connection. Infinite if there is no session."""
        return inf if self.token is None else max(0.0, self._lost_at + self._resume_s - monotonic())

    def forget(self) -> None:
        """Note that the session is over, so that it is not resumed."""
        self.token = None

    def finish(self) -> None:
        """Note that the client will close, so that messages are written without waiting for acknowledgements."""
        self._is_finishing = True

    def end(self) -> list[Event]:
        """Note that no further connection will follow. Returns the events for requests that get no answer."""
        self._reset_connection()
        events: list[Event] = [pending.end(None, _closed()) for pending in self._pending.values()]
        events += self._drop(lambda _: True, _closed)
        self._forget_sent()
        self.token = None
        return events

    def _reset_connection(self) -> None:
        self.is_open = self.was_welcomed = False
        self._control.clear()
        self._again.clear()

    # Sending

    @property
    def waiting(self) -> int:
        """How many messages are not sent yet, or not acknowledged by the server."""
        return len(self._kept) + len(self._unsent)

    def has_room(self, message: Message) -> bool:
        """Whether the limits allow another message. If no other message waits, a message may have any size."""
        waiting, size = self.waiting, self._kept_bytes + self._unsent.bytes
        return waiting == 0 or (waiting < self._max_queued and size + size_of(message) <= self._max_queued_bytes)

    def send(self, message: Message, *, session: int | None = None) -> bool:
        """Accept an ordinary message. Returns False if the limits do not allow another message.

        With the number of a `session`, the message is sent only in this session, and overtakes messages that are held
        (see `hold`). Returns False if this session is over.
        """
        if not self.has_room(message) or self.is_past(session):
            return False
        self._unsent.put(Outgoing(message, session=session))
        return True

    def request(self, message: Message, *, session: int | None = None) -> Pending | None:
        """Accept a request, like `send`. Returns None where `send` returns False.

        When the request has ended, `receive` returns an `Answered` for it.
        """
        if not self.has_room(message) or self.is_past(session):
            return None
        pending = Pending()
        self._unsent.put(Outgoing(message, pending, session))
        return pending

    def is_past(self, session: int | None) -> bool:
        """Whether `session` is the number of a session that is over."""
        return session is not None and session != self.session

    def give_up(self, pending: Pending) -> None:
        """Drop a request that no thread waits for any longer. If it was sent already, its reply will be ignored."""
        if pending.id is not None:
            if look_up(self._pending, pending.id) is pending:
                del self._pending[pending.id]
        else:
            self._unsent.remove(lambda outgoing: outgoing.pending is pending)

    def reply(self, asked: Asked, answer: Message | None) -> None:
        """Answer a request of the server. Does nothing if the session of the request is over."""
        message = envelope.null_reply(asked.id) if answer is None else envelope.reply(asked.id, answer)
        self._reply(asked, message)

    def fail(self, asked: Asked, text: str) -> None:
        """Answer a request of the server with an error. Does nothing if the session of the request is over."""
        self._reply(asked, envelope.failure(asked.id, text))

    def _reply(self, asked: Asked, message: Message) -> None:
        if not self.is_past(asked.session):
            self._unsent.put(Outgoing(message, session=asked.session, is_reply=True))

    def hold(self) -> None:
        """Until `release`, send only messages that belong to the current session: those of `on_open`, and replies."""
        self._unsent.hold()

    def release(self, session: int) -> None:
        """End `hold`. Does nothing if `session` is over, because the next session has its own `on_open`."""
        if not self.is_past(session):
            self._unsent.release()

    def heartbeat(self) -> None:
        """Send a heartbeat, which the server answers with an acknowledgement."""
        if not self._holds_back:
            self._tell()
        self._control.append(envelope.heartbeat(self._told))

    @property
    def can_take(self) -> bool:
        """Whether `take` returns a message now."""
        if self._control:
            return True
        if not self.is_open:
            return False
        return bool(self._again) or (self._may_write and self._unsent.can_take)

    @property
    def has_unsent(self) -> bool:
        """Whether a message waits to be written over this connection, now or after `release`."""
        return self.can_take or (self.is_open and len(self._unsent) > 0)

    @property
    def _may_write(self) -> bool:
        """Whether a new message may be written although the server has not acknowledged the messages before it."""
        return self._is_finishing or self._under_way < envelope.CLIENT_WINDOW_BYTES

    def take(self) -> Message | None:
        """Returns the next message to write over this connection, or None."""
        if self._control:
            return self._control.popleft()
        if not self.is_open:
            return None
        if self._again:
            return self._again.popleft()
        return self._sent(self._unsent.take()) if self.can_take else None

    def _sent(self, outgoing: Outgoing) -> Message:
        """Returns the message as it is sent, and keeps it until the server acknowledges it."""
        message, pending = outgoing.message, outgoing.pending
        if self.speaks and pending is not None:
            self._last_id += 1
            pending.id = self._last_id
            self._pending[pending.id] = pending
            message = envelope.request(pending.id, message)
        elif self.speaks and not outgoing.is_reply:
            message = envelope.escaped(message)
        if self._keeps:
            self._kept.append(_Kept(message, outgoing.size, pending is None and not outgoing.is_reply))
            self._kept_bytes += outgoing.size
            self._under_way += outgoing.size + envelope.WINDOW_MESSAGE_BYTES
        return message

    @property
    def awaits_acknowledgement(self) -> bool:
        """Whether the session is open, and the server has not acknowledged all messages that were sent."""
        return self.is_open and bool(self._kept)

    # Receiving

    def hold_back(self, is_wanted: bool) -> None:
        """Set whether to stop acknowledging. If the client stops, the server stops sending at its limit."""
        self._holds_back = is_wanted
        self._acknowledge_if_due()

    def receive(self, message: Message) -> list[Event]:
        """Returns the events that a message from the server causes.

        After a `ProtocolError`, the caller must close with the code 1002, and call `forget`.
        """
        if not self.speaks:
            return [message]
        parsed = envelope.parse(message)
        if not self.is_open:
            if not isinstance(parsed, envelope.Welcome):
                raise ProtocolError("the server's first message is not the welcome")
            self.was_welcomed = True
            return self._welcomed(parsed)
        if isinstance(parsed, (str, bytes)):
            self._count(message)
            return [parsed]
        if isinstance(parsed, envelope.Ack):
            self._acknowledge(parsed.received)
            return []
        if isinstance(parsed, envelope.Request):
            return self._asked(parsed, message)
        if isinstance(parsed, envelope.Reply):
            return self._answered(parsed.id, message, parsed.data)
        if isinstance(parsed, envelope.NullReply):
            return self._answered(parsed.id, message, None)
        if isinstance(parsed, envelope.Failure):
            return self._answered(parsed.id, message, None, RequestError(parsed.reason))
        raise ProtocolError(f"the server sent a {type(parsed).__name__}, which only clients send")

    def _welcomed(self, welcome: envelope.Welcome) -> list[Event]:
        if welcome.resumed:
            if self.token is None:
                raise ProtocolError("the server resumes a session although the client did not ask for this")
            self._acknowledge(welcome.received)
            self._again.extend(kept.message for kept in self._kept)
            self._tell()  # the hello contained `received`, so the server knows this number already
            self.is_open = self.resumed = True
            events: list[Event] = [Opened(True)]
        else:
            if welcome.received:
                raise ProtocolError(f"the server says that a new session has received {welcome.received} messages")
            self._keeps = welcome.token is not None
            events = self._begin(welcome.why)
        self.token, self._resume_s = welcome.token, welcome.resume_ms / 1000
        self.protocol = welcome.protocol
        self.heartbeat_s, self.timeout_s = welcome.heartbeat_ms / 1000, welcome.timeout_ms / 1000
        return events

    def _begin(self, why: str | None) -> list[Event]:
        """Begin a new session.

        Drops messages that were sent in the previous one, because the server may have handled them.
        """
        lost = sum(kept.is_ordinary for kept in self._kept)
        events: list[Event] = [Opened(False, lost, why)]
        events += [pending.end(None, _closed()) for pending in self._pending.values()]
        self._forget_sent()
        events += self._drop(lambda outgoing: outgoing.session is not None, _closed)
        if not self.speaks:
            events += self._drop(lambda outgoing: outgoing.pending is not None, _refused)
        self.session += 1
        self.acknowledged = self.received = self._last_id = self._last_asked = 0
        self._tell()
        self._unsent.release()
        self.is_open, self.resumed = True, False
        return events

    def drop_unsent(self) -> list[Event]:
        """Drop all messages that are not sent. Requests among them end with `SessionClosed`."""
        return self._drop(lambda _: True, _closed)

    def _forget_sent(self) -> None:
        self._kept.clear()
        self._pending.clear()
        self._kept_bytes = self._under_way = 0

    def _drop(self, is_useless: Callable[[Outgoing], bool], error: Callable[[], Exception]) -> list[Event]:
        """Drop unsent messages that have no use in the new session. Requests among them end with an error."""
        useless = self._unsent.remove(is_useless)
        return [outgoing.pending.end(None, error()) for outgoing in useless if outgoing.pending is not None]

    def _acknowledge(self, count: int) -> None:
        done = count - self.acknowledged
        if not self._keeps:
            return
        if not 0 <= done <= len(self._kept):
            sent = self.acknowledged + len(self._kept)
            raise ProtocolError(f"the server acknowledges {count} messages, not {self.acknowledged} to {sent}")
        self.acknowledged = count
        for _ in range(done):
            size = self._kept.popleft().size
            self._kept_bytes -= size
            self._under_way -= size + envelope.WINDOW_MESSAGE_BYTES

    def _count(self, message: Message) -> None:
        self.received += 1
        self._untold_bytes += size_of(message)
        self._acknowledge_if_due()

    def _acknowledge_if_due(self) -> None:
        if not self._keeps or not self.is_open or self._holds_back:
            return
        if self.received - self._told >= envelope.CLIENT_ACK_MESSAGES or self._untold_bytes >= envelope.ACK_BYTES:
            self._tell()
            self._control.append(envelope.ack(self.received))

    def _tell(self) -> None:
        self._told, self._untold_bytes = self.received, 0

    def _asked(self, request: envelope.Request, message: Message) -> list[Event]:
        if request.id != self._last_asked + 1:
            raise ProtocolError(f"the server's request has the id {request.id}, not {self._last_asked + 1}")
        self._last_asked = request.id
        self._count(message)
        return [Asked(request.id, request.data, self.session)]

    def _answered(
        self, id: int, message: Message, answer: Message | None, error: Exception | None = None
    ) -> list[Event]:
        if not 1 <= id <= self._last_id:
            raise ProtocolError(f"the server answers the request {id}, but the last request was {self._last_id}")
        self._count(message)
        pending = self._pending.pop(id, None)
        return [] if pending is None else [pending.end(answer, error)]


def _closed() -> SessionClosed:
    return SessionClosed("the session ended before the answer came")


def _refused() -> RequestError:
    return RequestError(NO_REQUESTS)
