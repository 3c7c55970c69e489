"""The client's side of ``wsthreads.1``: counts, messages to acknowledge, requests.

This module uses no socket, no thread and no clock.

The engine calls `connected` when a connection is open, passes each received message to `receive`, writes the messages
from `take`, and calls `disconnected` at the end of the connection. The same class serves a connection without
``wsthreads.1``: then messages pass unchanged, and nothing is sent twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from wsthreads.client.events import Asked, Event, Opened, Pending
from wsthreads.client.unsent import Outgoing, Unsent, size_of
from wsthreads.errors import ProtocolError, RequestError, SessionClosed
from wsthreads.protocol import envelope
from wsthreads.threads.lookups import look_up

__all__ = ["NO_REQUESTS", "Dialogue"]

Message = str | bytes

#: The error of a request to a server without ``wsthreads.1``.
NO_REQUESTS = "the server does not speak wsthreads.1, so it answers no requests"


class _Kept(NamedTuple):
    """A counted message in the form in which it was sent. `is_ordinary`: neither a request nor a reply."""

    message: Message
    size: int
    is_ordinary: bool


class Dialogue:
    """One client's sessions, one after another. Not thread-safe."""

    def __init__(self, *, max_queued: int = 1000, max_queued_bytes: int = 1024 * 1024) -> None:
        self._max_queued, self._max_queued_bytes = max_queued, max_queued_bytes
        #: The session's token, a secret. None if there is no session, or if it cannot be resumed.
        self.token: str | None = None
        #: Whether the current connection speaks ``wsthreads.1``, and whether its welcome has come.
        self.speaks = False
        self.is_open = False
        #: Whether the server's first message on this connection was a welcome, even a wrong one.
        self.was_welcomed = False
        #: Whether the current or last connection resumed a session.
        self.resumed = False
        self.protocol: str | None = None
        self.heartbeat_s = self.timeout_s = 0.0
        #: How many counted messages were received in this session.
        self.received = 0
        self._told = 0  # how many of these messages this side has acknowledged on this connection
        self._untold_bytes = 0  # the bytes of the messages that this side has not acknowledged
        self._holds_back = False
        self._last_asked = 0  # the id of the server's last request
        #: The number of the session: grows by 1 with each new session.
        self.session = 0
        #: How many sent messages the server has acknowledged in this session.
        self.acknowledged = 0
        self._kept: deque[_Kept] = deque()  # sent messages that the server has not acknowledged
        self._again: deque[Message] = deque()  # those of `_kept` that must be sent again on this connection
        self._keeps = True
        self._kept_bytes = 0
        self._unsent = Unsent()
        self._under_way = 0  # the bytes of `_kept`, as `CLIENT_WINDOW_BYTES` counts them
        self._is_finishing = False
        self._control: deque[str] = deque()  # control messages, sent first on this connection; not counted
        self._last_id = 0
        self._pending: dict[int, Pending] = {}  # requests that were sent and have no answer

    # The connection.

    def connected(self, speaks: bool) -> list[Event]:
        """A connection is open. `speaks`: whether the server has chosen ``wsthreads.1``."""
        self._reset_connection()
        self.speaks = speaks
        if speaks:
            self._control.append(envelope.hello(self.token, self.received))
            return []
        self.token, self._keeps = None, False
        self.heartbeat_s = self.timeout_s = 0.0
        return self._begin(None)

    def disconnected(self) -> None:
        """The connection has ended."""
        self._reset_connection()

    def forget(self) -> None:
        """The session is over: do not try to resume it."""
        self.token = None

    def finish(self) -> None:
        """The client will close: write messages without waiting for acknowledgements."""
        self._is_finishing = True

    def end(self) -> list[Event]:
        """No further connection will follow."""
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

    # Sending.

    @property
    def waiting(self) -> int:
        """The number of messages that have not been sent, or that the server has not acknowledged."""
        return len(self._kept) + len(self._unsent)

    def has_room(self, message: Message) -> bool:
        """Whether the limits permit another message. A single message may have any size."""
        waiting, size = self.waiting, self._kept_bytes + self._unsent.bytes
        return waiting == 0 or (waiting < self._max_queued and size + size_of(message) <= self._max_queued_bytes)

    def send(self, message: Message, *, session: int | None = None) -> bool:
        """Accept an ordinary message. Returns false if the limits permit no further message.

        With the number of a `session`, the message is sent only in that session, and before messages that are held (see
        `hold`). Returns false if that session is over.
        """
        if not self.has_room(message) or self.is_past(session):
            return False
        self._unsent.put(Outgoing(message, session=session))
        return True

    def request(self, message: Message, *, session: int | None = None) -> Pending | None:
        """Accept a request, as `send` accepts a message. Returns None where `send` returns false.

        `receive` returns `Answered` when the request has ended.
        """
        if not self.has_room(message) or self.is_past(session):
            return None
        pending = Pending()
        self._unsent.put(Outgoing(message, pending, session))
        return pending

    def is_past(self, session: int | None) -> bool:
        """Whether this is the number of a previous session."""
        return session is not None and session != self.session

    def give_up(self, pending: Pending) -> None:
        """Drop a request for which no thread waits any longer. If it was already sent, its reply is ignored."""
        if pending.id is not None:
            if look_up(self._pending, pending.id) is pending:
                del self._pending[pending.id]
        else:
            self._unsent.remove(lambda outgoing: outgoing.pending is pending)

    def reply(self, asked: Asked, answer: Message | None) -> None:
        """Answer a request of the server. Does nothing if its session is over."""
        message = envelope.null_reply(asked.id) if answer is None else envelope.reply(asked.id, answer)
        self._reply(asked, message)

    def fail(self, asked: Asked, text: str) -> None:
        """Answer a request of the server with an error. Does nothing if its session is over."""
        self._reply(asked, envelope.failure(asked.id, text))

    def _reply(self, asked: Asked, message: Message) -> None:
        if not self.is_past(asked.session):
            self._unsent.put(Outgoing(message, session=asked.session, is_reply=True))

    def hold(self) -> None:
        """Until `release`, send only messages that belong to this session: those of `on_open`, and replies."""
        self._unsent.hold()

    def release(self, session: int) -> None:
        """End `hold`. Does nothing if this session is over, because the next one has its own `on_open`."""
        if not self.is_past(session):
            self._unsent.release()

    def heartbeat(self) -> None:
        """Send a heartbeat, which the server answers with an acknowledgement."""
        if not self._holds_back:
            self._tell()
        self._control.append(envelope.heartbeat(self._told))

    @property
    def can_take(self) -> bool:
        """Whether `take` returns a message."""
        if self._control:
            return True
        if not self.is_open:
            return False
        return bool(self._again) or (self._may_write and self._unsent.can_take)

    @property
    def has_unsent(self) -> bool:
        """Whether a message waits to be written on this connection, now or after `release`."""
        return self.can_take or (self.is_open and len(self._unsent) > 0)

    @property
    def _may_write(self) -> bool:
        """Whether a new message may be written before the server acknowledges more."""
        return self._is_finishing or self._under_way < envelope.CLIENT_WINDOW_BYTES

    def take(self) -> Message | None:
        """The next message to write on this connection, or None."""
        if self._control:
            return self._control.popleft()
        if not self.is_open:
            return None
        if self._again:
            return self._again.popleft()
        return self._sent(self._unsent.take()) if self.can_take else None

    def _sent(self, outgoing: Outgoing) -> Message:
        """The form in which a message is sent. Keeps it until it is acknowledged."""
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
        """Whether the session is open, and has sent messages that are not acknowledged."""
        return self.is_open and bool(self._kept)

    # Receiving.

    def hold_back(self, is_wanted: bool) -> None:
        """Set whether to stop acknowledging. The server then stops sending at its limit."""
        self._holds_back = is_wanted
        self._acknowledge_if_due()

    def receive(self, message: Message) -> list[Event]:
        """The events of a message from the server.

        After a `ProtocolError`, close with 1002, and `forget` the session.
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
            self._tell()  # the hello contained `received`, so the server knows this count already
            self.is_open = self.resumed = True
            events: list[Event] = [Opened(True)]
        else:
            if welcome.received:
                raise ProtocolError(f"the server says that a new session has received {welcome.received} messages")
            self._keeps = welcome.token is not None
            events = self._begin(welcome.why)
        self.token = welcome.token
        self.protocol = welcome.protocol
        self.heartbeat_s, self.timeout_s = welcome.heartbeat_ms / 1000, welcome.timeout_ms / 1000
        return events

    def _begin(self, why: str | None) -> list[Event]:
        """Begin a new session. Drops messages that were sent in the previous one: the server may have handled them."""
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
        """Drop all messages that wait. Requests among them end with `SessionClosed`."""
        return self._drop(lambda _: True, _closed)

    def _forget_sent(self) -> None:
        self._kept.clear()
        self._pending.clear()
        self._kept_bytes = self._under_way = 0

    def _drop(self, is_useless: Callable[[Outgoing], bool], error: Callable[[], Exception]) -> list[Event]:
        """Drop unsent messages that are useless in the new session. Requests among them end with an error."""
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
