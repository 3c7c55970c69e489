"""`simple_websocket.Server` made to run in the calling thread: bytes in, messages out, all writes through an outbox.

What differs from the base class: no thread and no event of its own (it is read in the WSGI server's thread), nothing
is ever written but by the outbox, limits are judged by a frame's header, before its payload is read, and the close
handshake follows RFC 6455, section 7: whoever closed, the server shuts its side of TCP first, and then lingers.

A complete data frame is decoded by `protocol.frames`; everything else goes to wsproto, the judge of what is legal.

Over 400 lines, since it is one state: what is read decides how the connection ends, how it ends what is still read, and
the clocks (pings, the time of a message, idleness) look at both. Parts in modules of their own would need each other's
insides; what needs none of them is elsewhere: `outbox`, `transport`, `allowance`, `deflate`, `frames`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import simple_websocket
from wsproto.connection import Connection as Protocol
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.utilities import generate_accept_token

from wsthreads.config import Config
from wsthreads.errors import (
    CloseCode,
    InvalidPayloadError,
    MessageTooBigError,
    PeerError,
    PolicyError,
    ProtocolError,
    TooManyFragmentsError,
    UnsupportedDataError,
)
from wsthreads.loggers import get_logger
from wsthreads.monitoring.logs import log_context
from wsthreads.monitoring.metrics import Histogram, Traffic
from wsthreads.protocol.allowance import Allowance
from wsthreads.protocol.deflate import Agreement, Inflation, decode_any, most_deflated_bytes
from wsthreads.protocol.frames import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Header,
    close_frame,
    decode_message,
    encode_frame,
    parse_header,
)
from wsthreads.protocol.hosts import take_early_input
from wsthreads.protocol.outbox import Outbox
from wsthreads.protocol.readers import Reader
from wsthreads.protocol.transport import RECEIVE_BYTES, message_receiver, transport_for
from wsthreads.threads.flusher import Flusher, Timer

__all__ = ["Connection"]

log = get_logger(__name__)

#: Where there is more, but more than MANY_MESSAGES at a time: milliseconds of work, for which others wait for the GIL.
RECEIVE_MANY_BYTES = 8192
MANY_MESSAGES = 16
RECEIVE_LARGE_BYTES = 65536

#: Where pings are switched off, a client whose handler runs is looked at this often.
LOOK_S = 25.0


def _nothing() -> None:
    """What is called where nobody wants to be."""


def _count_nothing(counter: str) -> None:
    """The `count` of a connection that nobody counts."""


def _next_size(received: int, messages: int) -> int:
    """How much to receive, after so many bytes with so many messages in them."""
    if received < RECEIVE_BYTES:
        return RECEIVE_BYTES
    return RECEIVE_MANY_BYTES if messages > MANY_MESSAGES else RECEIVE_LARGE_BYTES


class _NoThread:
    """What the base class is given in place of the thread that it would start for each connection."""

    name = ""

    def __init__(self, target: Callable[[], None]) -> None:
        pass

    def start(self) -> None:
        pass


class _NoEvent:
    """What the base class is given in place of the event that its thread would set."""


#: With those of the base class they would be too many for the dicts of instances to share their keys: a kilobyte each.
#: (They have a name since mypy takes `__slots__` for all that there is; the base class has a dict.)
_OWN_ATTRIBUTES = (
    "_accepted_subprotocol",
    "_agreement",
    "_answered",
    "_answered_at",
    "_asked_at",
    "_bytes_in",
    "_close_timer",
    "_config",
    "_control_frames",
    "_count",
    "_end_seen_at",
    "_endings",
    "_flusher",
    "_fragmented",
    "_fragments",
    "_heartbeat_timer",
    "_idle_timer",
    "_incomplete_since",
    "_is_finished",
    "_last_message_at",
    "_message_bytes",
    "_message_limit",
    "_message_timer",
    "_messages_in",
    "_owed",
    "_parts",
    "_pinged_at",
    "_protocol",
    "_round_trip_s",
    "_round_trips",
    "_tail",
    "_transport",
    "_waiting",
    "before_end",
    "closing",
    "last_received",
    "outbox",
    "reader",
    "was_too_slow",
)


class Connection(simple_websocket.Server):  # type: ignore[misc]  # the base class has no annotations
    """One upgraded connection. Making it sends the 101; its thread then iterates `messages`, and calls
    `finish` and `hang_up`.

    `begin_close` and `lose` may be called from any thread, `outbox` says what it allows itself.
    `count` is called, without a lock, with the name of a counter when the client has gone past a bound:
    `slow_sessions_closed`, or `past_` and the name of the setting. `round_trips` gets the times from pings to pongs.
    """

    __slots__ = _OWN_ATTRIBUTES

    outbox: Outbox

    def __init__(
        self,
        environ: dict[str, Any],
        *,
        config: Config,
        flusher: Flusher,
        subprotocol: str | None = None,
        agreement: Agreement | None = None,
        count: Callable[[str], None] = _count_nothing,
        round_trips: Histogram | None = None,
    ) -> None:
        self._config = config
        self._flusher = flusher
        self._count = count
        self._round_trips = round_trips
        #: Called, in the connection's thread, before the connection counts as ended by the client: what it has sent
        #: before can still be answered.
        self.before_end: Callable[[], None] = _nothing
        #: Takes what messages it can past `messages`. Set once, by the connection's thread.
        self.reader: Reader | None = None
        self._accepted_subprotocol = subprotocol
        self._agreement = agreement  # to deflate messages, in both directions
        self._endings: list[tuple[int, str]] = []  # the first counts
        #: Code and reason once the connection is closing, whoever began. Set once.
        self.closing: tuple[int, str] | None = None
        #: It was closed since the client did not read what was sent.
        self.was_too_slow = False
        self._answered = False  # the peer's close frame has come
        self._tail = b""  # input that is not decoded yet: less than a header
        self._protocol: Protocol | None = None  # made for the first frame that the fast decoder does not take
        self._owed = 0  # bytes of the current frame that wsproto still has to get
        self._fragmented = False  # between the frames of one message
        self._fragments = 0  # of the message that is coming in
        self._message_bytes = 0  # of the message that is coming in, by its frames' headers
        self._message_limit = config.max_message_bytes  # for it
        self._parts: list[str | bytes] = []
        self._incomplete_since = 0.0  # when its first header had come; 0 between messages
        self._message_timer: Timer | None = None  # runs, at the latest, when it has taken too long
        self._control_frames: Allowance | None = None
        # Without those that `reader` has kept. The connection's thread counts.
        self._messages_in = self._bytes_in = 0
        self.last_received = monotonic()
        self._waiting = False  # in receive(), and not in a handler (the first is on_open)
        self._last_message_at = 0.0
        self._idle_timer: Timer | None = None
        self._pinged_at = 0.0
        self._asked_at = 0.0  # when the ping was sent that has not been answered yet; 0 for none
        self._answered_at = float("-inf")  # when the last one was
        self._round_trip_s: float | None = None
        self._end_seen_at = 0.0  # when the peer was found to have ended its stream, while a handler ran
        self._heartbeat_timer: Timer | None = None
        self._close_timer: Timer | None = None
        self._is_finished = False  # `finish` has cancelled the timers; who sets one looks at this afterwards
        super().__init__(environ, thread_class=_NoThread, event_class=_NoEvent)

    def handshake(self) -> None:
        """Called by the base class: answer the request, which has been judged, with the 101."""
        config = self._config
        self.subprotocol = self._accepted_subprotocol
        self.ws = None  # the base class made one for a handshake that is judged already; it holds 10 kB
        self._tail = take_early_input(self.environ)
        self._bytes_in = len(self._tail)
        self._transport = transport_for(self.sock)
        self.outbox = Outbox(
            self._transport,
            self._flusher,
            max_bytes=config.max_outbox_bytes,
            timeout_s=config.send_timeout_s,
            on_stuck=self._on_stuck,
            window_bits=0 if self._agreement is None else self._agreement.window_bits,
        )
        self.outbox.append(self._accept())
        self.outbox.flush()
        self.outbox.bytes_out = 0  # that was HTTP, and nobody else has anything to send yet
        self.connected = True
        self._heartbeat_timer = self._flusher.call_later(config.ping_interval_s or LOOK_S, self._heartbeat)

    def _accept(self) -> bytes:
        """The 101 (RFC 6455, 4.2.2). The base class would have h11 and wsproto parse the request once more."""
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        key: str = self.environ["HTTP_SEC_WEBSOCKET_KEY"]
        lines.append(f"Sec-WebSocket-Accept: {generate_accept_token(key.encode()).decode()}")
        if self.subprotocol is not None:
            lines.append(f"Sec-WebSocket-Protocol: {self.subprotocol}")
        if self._agreement is not None:
            lines.append(f"Sec-WebSocket-Extensions: {self._agreement.answer}")
        return "\r\n".join([*lines, "", ""]).encode()

    # Reading: in the connection's own thread.

    def messages(self) -> Iterator[str | bytes]:
        """Each message of the client, until the connection is over. What comes once it is closing is dropped."""
        config = self._config
        return self._counted() if config.max_messages_per_s or config.idle_timeout_s else self._messages()

    def _counted(self) -> Iterator[str | bytes]:
        """`_messages`, held to `max_messages_per_s` and `idle_timeout_s`."""
        config = self._config
        allowance = Allowance(config.max_messages_per_s)
        self._last_message_at = monotonic()
        if config.idle_timeout_s:
            self._idle_timer = self._flusher.call_later(config.idle_timeout_s, self._on_idle_timer)
        for message in self._messages():
            if config.max_messages_per_s and not allowance.take():
                limit = f"more than {config.max_messages_per_s} messages a second"
                self.before_end()
                self._refuse(PolicyError(limit, setting="max_messages_per_s"))
                return
            yield message
            self._last_message_at = monotonic()  # the time that the handler took is not the client's

    def _messages(self) -> Iterator[str | bytes]:
        data, limit = self._tail, self._config.max_message_bytes
        messages, received = self._messages_in, self._bytes_in  # which only this thread writes
        decode = decode_message if self._agreement is None else decode_any
        receive = message_receiver(self._transport, limit, self._config.accept_binary)
        try:
            while True:
                self._tail, start, end = b"", 0, len(data)
                before = messages
                while start < end and not self._answered:
                    decoded = None if self._owed or self._fragmented else decode(data, start, limit)
                    if decoded is not None:
                        message, start = decoded
                        self._check_kind(message)
                        if self.closing is None:
                            self._messages_in = messages = messages + 1
                            yield message
                        continue
                    if not self._owed:
                        header = parse_header(data, start)
                        if header is None:
                            self._tail = data[start:]
                            break
                        self._admit(header)
                        self._owed = header.header_bytes + header.payload_bytes
                    chunk = data[start : start + self._owed]
                    self._owed -= len(chunk)
                    start += len(chunk)
                    if not self._owed and not self._fragmented:
                        self._incomplete_since = 0.0
                    elif not self._incomplete_since:
                        self._watch_message()
                    for message in self._judge(chunk):
                        self._messages_in = messages = messages + 1
                        yield message
                if self._answered:
                    return
                size = _next_size(end, messages - before)
                # Nearly all messages come in alone, and take this way.
                is_between = not (self._tail or self._owed or self._fragmented) and self.reader is None
                while is_between and size == RECEIVE_BYTES:
                    self._waiting = True
                    try:
                        found = receive()
                    except OSError as error:
                        found = self._lost(error)
                    self.last_received = monotonic()
                    self._waiting = False
                    if isinstance(found, bytes):
                        data = found
                        break
                    message, count = found
                    self._bytes_in = received = received + count
                    if self.closing is None:
                        self._messages_in = messages = messages + 1
                        yield message
                else:
                    data = self._receive(size)
                if not data:
                    break
                self._bytes_in = received = received + len(data)
                if self._tail:
                    data = self._tail + data
        except PeerError as error:
            self.before_end()
            self._refuse(error)
            return
        self.before_end()
        self._settle(CloseCode.ABNORMAL, "connection lost")

    def _receive(self, size: int) -> bytes:
        """Up to `size` bytes that have come in; empty at the end, however it came about."""
        self._waiting = True
        try:
            reader = self.reader
            if reader is None or self._tail or self._owed or self._fragmented or self.closing is not None:
                data = self._transport.receive(size)
            else:
                data = reader.read()
        except OSError as error:
            data = self._lost(error)
        self.last_received = monotonic()
        self._waiting = False
        return data

    def _lost(self, error: OSError) -> bytes:
        """What has been received then: the end."""
        log.debug("connection lost: %s", error, extra=log_context(self.environ))
        return b""

    def _admit(self, header: Header) -> None:
        """Hold a frame to the limits, before its payload comes in, and keep track of fragments."""
        if header.opcode in (PING, PONG):
            self._admit_control_frame()
        if header.opcode not in (CONTINUATION, TEXT, BINARY):
            return
        if header.opcode != CONTINUATION:
            limit = self._config.max_message_bytes
            self._message_limit = most_deflated_bytes(limit) if header.rsv1 else limit
            self._message_bytes = self._fragments = 0
        self._message_bytes += header.payload_bytes
        self._fragments += 1
        self._fragmented = not header.fin
        if self._message_bytes > self._message_limit:
            limit = self._config.max_message_bytes
            raise MessageTooBigError(f"message of {self._message_bytes} bytes or more, at most {limit} are taken")
        if self._fragments > self._config.max_fragments:
            limit = self._config.max_fragments
            raise TooManyFragmentsError(f"message in {self._fragments} frames or more, at most {limit} are taken")

    def _admit_control_frame(self) -> None:
        limit = self._config.max_control_frames_per_s
        if limit and self._control_frames is None:
            self._control_frames = Allowance(limit)
        if self._control_frames is not None and not self._control_frames.take():
            raise PolicyError(f"more than {limit} pings and pongs a second", setting="max_control_frames_per_s")

    def _watch_message(self) -> None:
        """A message has begun whose end has not come yet: see to it that it does.

        One timer serves as many messages as begin before it runs. Whichever comes first, this or `_on_message_timer`,
        the other one sees what it has done.
        """
        self._incomplete_since = monotonic()
        if self._message_timer is None:
            self._message_timer = self._flusher.call_later(self._config.message_timeout_s, self._on_message_timer)

    def _judge(self, chunk: bytes) -> Iterator[str | bytes]:
        """Give wsproto a part of one frame, and do what it makes of it."""
        if self._protocol is None:
            limit = self._config.max_message_bytes
            inflation = [] if self._agreement is None else [Inflation(self._parts, limit)]
            self._protocol = Protocol(ConnectionType.SERVER, [*inflation])
        self._protocol.receive_data(chunk)
        for event in self._protocol.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                if event.data:  # there may be any number of empty fragments
                    self._parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
                if event.message_finished:
                    parts = self._parts.copy()
                    self._parts.clear()
                    empty = "" if isinstance(event, TextMessage) else b""
                    message = parts[0] if len(parts) == 1 else empty.join(parts)  # type: ignore[arg-type]
                    self._check_kind(message)
                    if self.closing is None:
                        yield message
            elif isinstance(event, Ping):
                self.outbox.append(encode_frame(PONG, bytes(event.payload)))
                self.outbox.flush()
            elif isinstance(event, Pong):
                self._on_pong()
            elif isinstance(event, CloseConnection):
                self._on_close_event(event, self._protocol.state)
                return

    def _check_kind(self, message: str | bytes) -> None:
        if not self._config.accept_binary and not isinstance(message, str):
            raise UnsupportedDataError("binary messages are not taken here")

    def _on_close_event(self, event: CloseConnection, state: ConnectionState) -> None:
        if state is ConnectionState.OPEN:  # not a close frame: wsproto's word for an illegal frame
            kind = InvalidPayloadError if event.code == CloseCode.INVALID_PAYLOAD else ProtocolError
            raise kind(event.reason or "illegal frame")
        self._answered = True
        self.before_end()
        code = int(event.code)
        if self._settle(code, event.reason or ""):  # ours to answer: RFC 6455, 5.5.1, with the same code
            self.outbox.close(close_frame(None if code == CloseCode.NO_STATUS else code))

    def _on_pong(self) -> None:
        """The answer to our ping, unless there is none that waits for one: then it is one that nobody asked for."""
        asked_at, self._asked_at = self._asked_at, 0.0
        if asked_at:
            self._answered_at = monotonic()
            self._round_trip_s = self._answered_at - asked_at
            if self._round_trips is not None:
                self._round_trips.observe(self._round_trip_s)

    def traffic(self) -> Traffic:
        """What has gone through until now. Any thread."""
        outbox = self.outbox
        messages_in, bytes_in = self._messages_in, self._bytes_in
        reader = self.reader  # after those, which get what it has counted when it is let go of
        if reader is not None:
            messages_in += reader.messages_in
            bytes_in += reader.bytes_in
        return Traffic(
            messages_in, bytes_in, outbox.messages_out, outbox.bytes_out, outbox.bytes_waiting, self._round_trip_s
        )

    def measure(self, least_age_s: float) -> None:
        """Ping the client if its round trip is not known, or older than that; `traffic` has it when it has answered.

        A client that sends is not pinged otherwise. Any thread. Does nothing where pings are switched off.
        """
        now = monotonic()
        if self.closing is not None or not self._config.ping_interval_s or self.outbox.is_blocked:
            return
        if not self._asked_at and now - self._answered_at >= least_age_s:
            self._asked_at = now
            self.outbox.append(encode_frame(PING, b""))
            self.outbox.flush()

    # Closing: any thread.

    @property
    def readable_fd(self) -> int:
        """The socket, for a `Reader`; -1 where what comes in must be decrypted (TLS), or its messages be counted."""
        config = self._config
        return -1 if config.max_messages_per_s or config.idle_timeout_s else self._transport.plain_fd

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent. Where it is lost, those that have come in before may still be handed over."""
        return self.closing is None and not self.outbox.is_over

    def begin_close(self, code: int, reason: str = "", *, discard: bool = False) -> bool:
        """Start the close handshake; False if the connection is closing already. Does not block.

        The client has `close_timeout_s` to answer. With `discard`, messages that wait to be sent are dropped.
        """
        if not self._settle(code, reason):
            return False
        self.outbox.close(close_frame(code, reason), discard=discard)
        self._close_timer = self._flusher.call_later(self._config.close_timeout_s, self._on_close_timer)
        if self._is_finished:  # meanwhile
            self._close_timer.cancel()
        return True

    def _refuse(self, error: PeerError) -> None:
        """Close for what the client has done; count it if it went past a bound."""
        log.debug("closing: %s", error, extra=log_context(self.environ))
        if self.begin_close(error.close_code, str(error)) and error.setting:
            self._count(f"past_{error.setting}")

    def hasten_close(self, timeout_s: float) -> None:
        """Give a client that is being closed no more than `timeout_s` from now, nor than `close_timeout_s`."""
        self._flusher.call_later(min(timeout_s, self._config.close_timeout_s), self._transport.abort)

    def lose(self, reason: str) -> None:
        """End the connection without a close handshake."""
        self._settle(CloseCode.ABNORMAL, reason)
        self._transport.abort()

    def _settle(self, code: int, reason: str) -> bool:
        """Decide how the connection ended; False if that has been decided. The first to come is right."""
        if self.closing is not None:
            return False
        # Without a lock, since a finalizer may close in the midst of it. To append to a list is atomic.
        ending = (int(code), reason)  # not a CloseCode, which Python 3.10 writes by its name
        self._endings.append(ending)
        self.closing = self._endings[0]
        if self.closing is not ending:
            return False
        reader = self.reader
        if reader is not None:
            reader.stop()
        return True

    def finish(self) -> tuple[int, str]:
        """How it ended: close code and reason. The connection's thread calls it when `messages` is over.

        It does not block, but where all has been sent, as a rule, TCP's sending side is ended here already, so that
        a client which waits for that does not wait for `on_close`.
        """
        self._is_finished = True
        for timer in (self._heartbeat_timer, self._close_timer, self._message_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        closing = self.closing or (int(CloseCode.ABNORMAL), "")
        if closing[0] == CloseCode.ABNORMAL:
            self.outbox.detach()
            self._transport.abort()
        elif self.outbox.wait_sent(0):
            self.outbox.detach()
            self._transport.end_writing()
        return closing

    def hang_up(self) -> None:
        """Send what is left, end TCP before the client does, let go of the socket. Blocks `close_timeout_s` at most.

        The last thing that the connection's thread does. The socket is then the WSGI server's to close.
        """
        deadline = monotonic() + self._config.close_timeout_s
        self.outbox.wait_sent(self._config.close_timeout_s)
        self.outbox.detach()
        self._transport.end_writing()
        if self.closing is not None and self.closing[0] != CloseCode.ABNORMAL:
            self._transport.linger(max(0.0, deadline - monotonic()))
        self._transport.abort()
        reader, self.reader = self.reader, None
        if reader is not None:
            self._messages_in += reader.messages_in
            self._bytes_in += reader.bytes_in
        self.before_end = _nothing  # and no cycle of references keeps the session in memory
        self.connected = False

    def _on_stuck(self, reason: str) -> None:
        if self.begin_close(CloseCode.TRY_AGAIN_LATER, f"too slow: {reason}", discard=True):
            self.was_too_slow = True
            self._count("slow_sessions_closed")

    def _on_close_timer(self) -> None:
        """The flusher's: the client has not answered the close frame."""
        self._count("past_close_timeout_s")
        self._transport.abort()

    def _on_message_timer(self) -> None:
        """The flusher's: look whether a message has taken too long."""
        self._message_timer = None
        since, timeout = self._incomplete_since, self._config.message_timeout_s
        if self.closing is not None or not since:
            return
        left = since + timeout - monotonic()
        if left > 0:
            self._message_timer = self._flusher.call_later(left, self._on_message_timer)
        else:
            self._refuse(PolicyError(f"a message not complete after {timeout:g} s", setting="message_timeout_s"))

    def _on_idle_timer(self) -> None:
        """The flusher's: look whether the client has sent a message lately."""
        if self.closing is not None:
            return
        timeout = self._config.idle_timeout_s
        left = self._last_message_at + timeout - monotonic()
        if left <= 0 and self._waiting:
            if self.begin_close(CloseCode.GOING_AWAY, f"idle: no message for {timeout:g} s"):
                self._count("past_idle_timeout_s")
            return
        # While a handler runs nothing can be read: that is not the client's idleness.
        self._idle_timer = self._flusher.call_later(left if left > 0 else timeout, self._on_idle_timer)

    def _heartbeat(self) -> None:
        """The flusher's: `_check_pulse`, again and again, even where it fails once for want of memory."""
        if self.closing is not None:
            return
        delay = self._config.ping_interval_s or LOOK_S
        try:
            delay = self._check_pulse()
        finally:
            if self.closing is None:
                self._heartbeat_timer = self._flusher.call_later(delay, self._heartbeat)
                if self._is_finished:  # meanwhile
                    self._heartbeat_timer.cancel()

    def _check_pulse(self) -> float:
        """Ping a client that has been silent, and end the connection if it stays so; seconds until the next look."""
        pings, timeout, now = self._config.ping_interval_s, self._config.ping_timeout_s, monotonic()
        interval = pings or LOOK_S
        reader = self.reader
        heard_at = self.last_received if reader is None else max(self.last_received, reader.heard_at)
        if not self._waiting:  # a handler runs, so nothing can be read: that is not the client's silence
            self._pinged_at, left = 0.0, timeout
            self._look_for_end(now)
        elif not pings:
            left = interval
        elif self._pinged_at > heard_at:
            left = self._pinged_at + timeout - now
            if left <= 0:
                self._count("past_ping_timeout_s")
                self.lose(f"no answer to a ping for {timeout:g} s")
        else:
            left = heard_at + interval - now
            if left <= 0:
                self._asked_at = now
                self.outbox.append(encode_frame(PING, b""))
                self.outbox.flush()
                self._pinged_at, left = now, timeout
        return min(interval, left)  # the answer may come at once, and the next ping be due

    def _look_for_end(self, now: float) -> None:
        """A handler runs: see to it that it can learn that its client is gone, by `is_open` and `send`.

        How it ended is for the reading to say, which has still to come: there may be messages, and a close frame. So
        one that has ended its stream only is given `ping_timeout_s`, since it may wait for answers to these.
        """
        config = self._config
        if not self.is_open:
            return
        is_lost, has_ended = self._transport.end_seen(config.ping_timeout_s)
        if has_ended and not self._end_seen_at:
            self._end_seen_at = now
        if is_lost or (has_ended and now - self._end_seen_at >= config.ping_timeout_s):
            log.debug("the client is gone, while a handler runs", extra=log_context(self.environ))
            self.outbox.detach()
            self._transport.abort()
        elif config.ping_interval_s:
            self._transport.probe(config.ping_interval_s, config.ping_timeout_s)

    # The base class's way in; wsthreads itself uses sessions.

    def send(self, data: str | bytes) -> None:
        raise TypeError("send through the session")

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        raise TypeError("iterate messages()")

    def close(self, reason: int | None = None, message: str | None = None) -> None:
        self.begin_close(reason or CloseCode.NORMAL, message or "")
