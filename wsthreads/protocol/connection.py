"""One upgraded connection: a `simple_websocket.Server` that runs in the calling thread.

It differs from its base class in two ways: it has no thread of its own, because the WSGI server's thread reads, and
only the outbox writes. A connection has three parts. The `Assembler` makes messages from bytes and checks their limits.
The `Channel` sends, and decides how the connection ends. The `Clocks` send pings and watch the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from time import monotonic
from typing import Any, TypeVar

import simple_websocket

from wsthreads.config import Config
from wsthreads.errors import CloseCode, PeerError, PolicyError, counted
from wsthreads.loggers import get_logger
from wsthreads.monitoring.logs import log_context
from wsthreads.monitoring.metrics import Histogram, Traffic
from wsthreads.protocol.assembler import Assembler, Close, Ping, Pong
from wsthreads.protocol.channel import Channel
from wsthreads.protocol.clocks import Clocks
from wsthreads.protocol.deflate import Agreement
from wsthreads.protocol.encoding import encoding_for
from wsthreads.protocol.envelope import SUBPROTOCOL, is_control
from wsthreads.protocol.frames import PONG, encode_frame
from wsthreads.protocol.handshake import acceptance
from wsthreads.protocol.rate_limit import Held, RateLimit
from wsthreads.protocol.readers import Reader
from wsthreads.protocol.transport import RECEIVE_BYTES, Late, message_receiver, next_size, transport_for
from wsthreads.protocol.wsgi_servers import SOCKET_KEY, take_early_input
from wsthreads.threads.flusher import Flusher

__all__ = ["NO_MESSAGE", "Connection"]

log = get_logger(__name__)

R = TypeVar("R")


#: What `Connection.read` returns if no message has come in time. Compare it by `is`, because a message may be equal.
NO_MESSAGE = bytes(bytearray(b"no message"))


def _nothing(*_: object) -> None:
    """The default of the callbacks."""


#: With slots, each connection takes about a kilobyte less: the base class has a dict, and with these attributes in it,
#: the instances could no longer share the keys of their dicts. The tuple has a name, because mypy would take a tuple
#: without a name for the list of all attributes.
_OWN_ATTRIBUTES = (
    "_accepted_subprotocol",
    "_agreement",
    "_assembler",
    "_bytes_in",
    "_clocks",
    "_config",
    "_count",
    "_flusher",
    "_held",
    "_is_late",
    "_messages_in",
    "_read_until",
    "_reader",
    "_round_trips",
    "before_end",
    "channel",
    "is_resumed",
)


class Connection(simple_websocket.Server):  # type: ignore[misc]  # the base class has no annotations
    """One upgraded connection. The constructor sends the response 101.

    The connection's thread then iterates over `messages`, and calls `finish` and `hang_up` at the end. Any thread may
    use `channel` to send and to close. When the client exceeds a limit, `count` gets the name of a counter:
    `slow_sessions_closed`, or `past_` and the name of the setting. No lock is held during this call. `round_trips` gets
    the time from each ping to its pong.
    """

    __slots__ = _OWN_ATTRIBUTES

    channel: Channel

    def __init__(
        self,
        environ: dict[str, Any],
        *,
        config: Config,
        flusher: Flusher,
        subprotocol: str | None = None,
        agreement: Agreement | None = None,
        count: Callable[[str], None] = _nothing,
        round_trips: Histogram | None = None,
    ) -> None:
        self._config = config
        self._flusher = flusher
        self._count = count
        self._round_trips = round_trips
        # The constructor of the base class is not called, because it makes a thread, an event, and parsers of HTTP and
        # WebSocket.
        self.environ = environ
        self.sock = environ.get(SOCKET_KEY) or environ["gunicorn.socket"]
        self.connected = False
        self._accepted_subprotocol = subprotocol
        self._agreement = agreement  # the negotiated parameters of compression, for both directions
        #: Called in the connection's thread, with the close code, when the client ends the connection or breaks a rule.
        #: The end takes effect afterwards, so the handler can still answer earlier messages of the client.
        self.before_end: Callable[[int], None] = _nothing
        self.is_resumed = False  # whether the session of this connection has had another connection before
        self._reader: Reader | None = None
        self._held: Held | None = None  # messages that wait for the rate limit; see `_slowed`
        self._read_until: float | None = None  # when `read` will return `NO_MESSAGE`; None outside of `read`
        self._is_late = False  # whether no input has arrived until `_read_until`
        # These counts do not include messages that the reader has passed on itself. Only the connection's thread writes
        # these counts.
        self._messages_in = self._bytes_in = 0
        self.handshake()

    def handshake(self) -> None:
        """Answer the client's request with the 101. The request was checked before."""
        config, agreement = self._config, self._agreement
        self.subprotocol = self._accepted_subprotocol
        early = take_early_input(self.environ)
        self._bytes_in = len(early)
        self._assembler = Assembler(config, agreement, early=early)
        self.channel = Channel(
            transport_for(self.sock),
            environ=self.environ,
            config=config,
            flusher=self._flusher,
            subprotocol=self.subprotocol,
            encoding=encoding_for(agreement, enveloped=self.subprotocol == SUBPROTOCOL),
            count=self._count,
        )
        outbox = self.channel.outbox
        # Not the method of the base class, which would parse the request once more, with h11 and wsproto.
        extensions = None if agreement is None else agreement.answer
        outbox.append(acceptance(self.environ["HTTP_SEC_WEBSOCKET_KEY"], self.subprotocol, extensions))
        outbox.flush()
        outbox.bytes_out = 0  # only the 101 was sent so far, and the 101 does not count
        self.connected = True
        self._clocks = Clocks(self.channel, self._assembler, config, self._flusher, self._round_trips)

    # Reading: only in the connection's own thread

    def read_by(self, reader: Reader) -> None:
        """From now on, `reader` takes messages from the socket. `messages` does not yield these.

        Call this once, in the connection's thread.
        """
        self._reader = self._clocks.reader = reader
        self.channel.on_ending = reader.stop

    def messages(self) -> Iterator[str | bytes]:
        """Yields each message of the client. Drops messages that come while the connection is closing."""
        return self._counted() if self._needs_each_message else self._messages()

    def _counted(self) -> Iterator[str | bytes]:
        """Like `_messages`, but with the limits `max_messages_per_s` and `idle_timeout_s`."""
        config, incoming = self._config, self._messages()
        allowance = RateLimit(config.max_messages_per_s)
        if config.idle_timeout_s:
            self._clocks.watch_idleness()
        speaks = self.subprotocol == SUBPROTOCOL
        for message in incoming:
            if message is NO_MESSAGE or (speaks and is_control(message)):
                yield message
            elif not config.max_messages_per_s or allowance.take():
                yield message
                self._clocks.message_ended_at = monotonic()  # the time that the handler needs does not count as idle
            elif self.is_resumed:
                yield from self._slowed(incoming, Held(allowance, message, config.max_message_bytes))
            else:
                limit = f"more than {counted(config.max_messages_per_s, 'message')} a second"
                self._refuse(PolicyError(limit, setting="max_messages_per_s"))
                return

    def _slowed(self, incoming: Iterator[str | bytes], held: Held) -> Iterator[str | bytes]:
        """Yields the `incoming` messages.

        Delays messages beyond the rate limit. Ends when no message is delayed any more. If the client
        ends the connection, delayed messages are handled before the end. If the server ends it, they are
        dropped.
        """
        self._held = held
        while held and self.channel.ending is None:
            message = held.take()
            if message is not None:
                yield message
                self._clocks.message_ended_at = monotonic()
            elif held.may_read():
                until = self._read_until  # see `read`
                self._read_until = min(until or inf, monotonic() + held.wait_s)
                try:
                    message = next(incoming, None)
                finally:
                    self._read_until = until
                if message is NO_MESSAGE:
                    if monotonic() >= (until or inf):
                        yield message
                elif message is not None and is_control(message):
                    yield message
                elif message is not None:
                    held.add(message)
            elif monotonic() >= (self._read_until or inf):
                yield NO_MESSAGE
        self._held = None
        if held.end is not None:
            held.end()

    def _messages(self) -> Iterator[str | bytes]:
        data, messages, received = b"", self._messages_in, self._bytes_in  # only this thread writes these two counts
        assembler, channel, clocks = self._assembler, self.channel, self._clocks
        receive = message_receiver(channel.transport, self._config.max_message_bytes, self._config.accept_binary)
        may_be_bound = self.subprotocol == SUBPROTOCOL  # whether `read` may limit the time of a read
        try:
            while True:
                before = messages
                for message in assembler.feed(data, self._take_control):
                    if channel.ending is None:
                        self._messages_in = messages = messages + 1
                        yield message
                if assembler.is_over:
                    return
                if assembler.incomplete_since:
                    clocks.watch_message()
                size = next_size(len(data), messages - before)
                # The fast path: nearly always, a read from the socket returns exactly one message.
                takes_whole = size == RECEIVE_BYTES and self._reader is None and assembler.is_between
                while takes_whole:
                    clocks.is_waiting = True
                    try:
                        is_bound = may_be_bound and self._read_until is not None
                        found = self._in_time(receive) if is_bound else receive()
                    except OSError as error:
                        found = self._lost(error)
                    clocks.heard_at = monotonic()
                    clocks.is_waiting = False
                    if isinstance(found, bytes):
                        data = found
                        break
                    message, count = found
                    self._bytes_in = received = received + count
                    if channel.ending is None:
                        self._messages_in = messages = messages + 1
                        yield message
                else:
                    data = self._receive(size)
                if not data:
                    if not self._is_late:
                        break
                    self._is_late = False
                    yield NO_MESSAGE
                self._bytes_in = received = received + len(data)
        except PeerError as error:
            self._refuse(error)
            return
        self._end(CloseCode.ABNORMAL, partial(channel.end_lost, "connection lost"))

    def _refuse(self, error: PeerError) -> None:
        self._end(error.close_code, partial(self.channel.refuse, error))

    def _end(self, code: int, end: Callable[[], object]) -> None:
        """End the connection because of the client: its close frame, its error, or its loss.

        Called after all earlier messages were passed on. While messages are delayed, the end waits for them.
        """
        if self._held is not None:
            self._held.end = partial(self._end, code, end)
            return
        self.before_end(code)
        end()

    def _receive(self, size: int) -> bytes:
        """Returns up to `size` received bytes: none at the end of the stream, and if the connection is lost."""
        clocks, reader = self._clocks, self._reader
        clocks.is_waiting = True
        try:
            is_bound = self._read_until is not None or self.channel.ending is not None
            if reader is None or is_bound or not self._assembler.is_between:
                data = self._in_time(self.channel.transport.receive, size)
            else:
                data = reader.read()
        except OSError as error:
            data = self._lost(error)
        clocks.heard_at = monotonic()
        clocks.is_waiting = False
        return data

    def read(self, messages: Iterator[str | bytes], timeout_s: float) -> str | bytes:
        """Returns the next of the `messages`, or `NO_MESSAGE` after `timeout_s`.

        For clients that speak ``wsthreads.1``. Raises StopIteration when the connection is over.
        """
        self._read_until = monotonic() + timeout_s
        try:
            return next(messages)
        finally:
            self._read_until = None

    def admit_control(self) -> None:
        """Count a message that costs as much as a ping. Raises `PolicyError` if there are too many per second."""
        self._assembler.admit_control()

    def _in_time(self, receive: Callable[..., R], *arguments: Any) -> R:
        """Call `receive`, but wait for input only until `_read_until`. Raises `Late` if none has arrived by then."""
        until = self._read_until
        if until is not None and not self.channel.transport.wait_readable(max(0.0, until - monotonic())):
            raise Late
        return receive(*arguments)

    def _lost(self, error: OSError) -> bytes:
        """Note that no input came in time, or log the loss of the connection.

        Returns no bytes, as at the end of the stream.
        """
        if isinstance(error, Late):
            self._is_late = True
            return b""
        log.debug("connection lost: %s", error, extra=log_context(self.environ))
        return b""

    def _take_control(self, frame: Ping | Pong | Close) -> None:
        """Handle a ping, a pong or a close frame of the client."""
        if isinstance(frame, Ping):
            if self.channel.ending is None:  # otherwise, the outbox may belong to another connection already
                self.channel.outbox.append(encode_frame(PONG, frame.payload))
                self.channel.outbox.flush()
        elif isinstance(frame, Pong):
            self._clocks.on_pong()
        else:
            self._end(frame.code, partial(self.channel.answer_close, frame.code, frame.reason))

    @property
    def readable_fd(self) -> int:
        """The socket's file descriptor for a `Reader`. -1 with TLS, or if each message must pass `_counted`."""
        return -1 if self._needs_each_message else self.channel.transport.plain_fd

    @property
    def _needs_each_message(self) -> bool:
        """Whether each message must pass `_counted`, because of a setting. Otherwise, a `Reader` may take messages."""
        return bool(self._config.max_messages_per_s or self._config.idle_timeout_s)

    def finish(self) -> tuple[int, str]:
        """Returns the code and reason of the end. The connection's thread calls this after `messages`. Never blocks."""
        self._clocks.stop()
        return self.channel.finish()

    def hang_up(self) -> None:
        """Send the remaining frames and end TCP: see `Channel.hang_up`.

        This is the last call of the connection's thread. Afterwards, the WSGI server closes the socket.
        """
        self.channel.hang_up()
        reader = self._reader
        self._reader = self._clocks.reader = None
        if reader is not None:
            self._messages_in += reader.messages_in
            self._bytes_in += reader.bytes_in
        self.before_end = _nothing  # without this, a cycle of references would keep the session in memory
        self.connected = False

    # Any thread

    def traffic(self) -> Traffic:
        """The counts of messages and bytes so far."""
        outbox = self.channel.outbox
        messages_in, bytes_in = self._messages_in, self._bytes_in
        reader = self._reader  # read last, because `hang_up` adds the reader's counts before it removes the reader
        if reader is not None:
            messages_in += reader.messages_in
            bytes_in += reader.bytes_in
        replaced, bytes_out, waiting = outbox.latest_replaced, outbox.bytes_out, outbox.bytes_waiting
        messages_out, round_trip_s = outbox.messages_out - replaced, self._clocks.round_trip_s
        return Traffic(messages_in, bytes_in, messages_out, bytes_out, waiting, round_trip_s, replaced)

    def measure(self, least_age_s: float) -> None:
        """Ping the client if the round trip in `traffic` is older than `least_age_s`. See `Clocks.measure`."""
        self._clocks.measure(least_age_s)

    # Methods of the base class. Code that uses wsthreads uses sessions instead.

    def send(self, data: str | bytes) -> None:
        raise TypeError("use session.send: a connection itself sends nothing")

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        raise TypeError("iterate messages()")

    def close(self, reason: int | None = None, message: str | None = None) -> None:
        self.channel.begin_close(reason or CloseCode.NORMAL, message or "")
