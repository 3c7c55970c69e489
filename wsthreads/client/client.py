"""`Client`: a WebSocket client for programs with threads. It reconnects and resumes its session."""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from types import TracebackType

from wsthreads.client.dialogue import NO_REQUESTS
from wsthreads.client.engine import Engine
from wsthreads.client.failures import describe_end
from wsthreads.client.handshake import shown
from wsthreads.client.options import Options, checked
from wsthreads.errors import CloseCode, ConfigError, RequestError, RequestTimeout, SessionClosed, brief
from wsthreads.protocol.frames import check_close

__all__ = ["Client"]

Message = str | bytes


class Client:
    """A WebSocket client that reconnects by itself. Any thread may call any method.

    Signal handlers and finalizers may call `send` and `close`. If they interrupt a call of this client in their own
    thread, `send` and `close` return at once, and take effect when the interrupted call is over. `receive` and
    `request` then raise `RuntimeError`.

    ::

        with Client("ws://127.0.0.1:5000/ws/chat?user=ann") as client:
            client.send("hello")
            print(client.receive(timeout=5))

    In a process that is forked later, the client is closed. This has no effect on the parent's session.

    The constructor does not wait. The client connects in its own thread, and messages wait until then. `url` may be a
    function that returns an address. The client calls this function in its thread for each connection. So the function
    can, for example, get a fresh token.

    If the server speaks ``wsthreads.1`` and its `resume_s` is not 0, the session survives the loss of a connection: in
    both directions, each message is received once and in order. If the session cannot be resumed, a new one begins.
    Then `resumed` is False, and `lost` is the number of messages that were sent and not acknowledged. With other
    servers, the client only reconnects, and a message can be lost with its connection.

    `on_request` answers requests of the server: it takes a message, and returns the answer or None. `on_open` is called
    with the client when a new session begins. Messages that `on_open` sends belong to this session. They are sent
    before all other messages, except for the answers of `on_request`. Each of the two functions has its own thread,
    which makes one call at a time. So requests of the server are answered while `on_open` runs. Other messages that
    `on_request` sends wait until `on_open` has returned.

    `headers` are pairs or a mapping. `protocols` are the application's subprotocols. `compress` offers
    permessage-deflate. Delays between attempts to connect are random, and double from `min_delay_s` to `max_delay_s`.
    If a server refuses with the header Retry-After, its seconds are added, but at most `max_delay_s`. The client gives
    up after `max_attempts` attempts in a row without a connection that lasted for 5 seconds. At most `max_queued`
    messages, and at most `max_queued_bytes`, may wait to be sent or acknowledged.

    While `max_received` messages wait for `receive`, the client acknowledges nothing, unless it waits for the answer to
    a request. The server then stops sending at its `max_resume_bytes`, and the connection stays. If the server does not
    stop, the client takes 16 MiB more, and then stops reading.
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        protocols: Sequence[str] = (),
        on_request: Callable[[Message], Message | None] | None = None,
        on_open: Callable[[Client], object] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        compress: bool = False,
        min_delay_s: float = 1.0,
        max_delay_s: float = 30.0,
        max_attempts: int | None = None,
        connect_timeout_s: float = 10.0,
        send_timeout_s: float = 10.0,
        max_queued: int = 1000,
        max_queued_bytes: int = 1024 * 1024,
        max_received: int = 1000,
        max_message_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        _check(min_delay_s=min_delay_s, max_delay_s=max_delay_s, connect_timeout_s=connect_timeout_s)
        _check(send_timeout_s=send_timeout_s, max_queued=max_queued, max_queued_bytes=max_queued_bytes)
        _check(max_received=max_received, max_message_bytes=max_message_bytes)
        options = Options(
            url=url,
            headers=list(headers.items() if isinstance(headers, Mapping) else headers),
            protocols=[protocols] if isinstance(protocols, str) else list(protocols),
            on_request=on_request,
            on_open=None if on_open is None else lambda: on_open(self),
            ssl_context=ssl_context,
            compress=compress,
            min_delay_s=min_delay_s,
            max_delay_s=max_delay_s,
            max_attempts=max_attempts,
            connect_timeout_s=connect_timeout_s,
            max_queued=max_queued,
            max_queued_bytes=max_queued_bytes,
            max_received=max_received,
            max_message_bytes=max_message_bytes,
        )
        if isinstance(url, str):
            options.handshake(url, True)  # raises an error for a wrong address, header or subprotocol
        self._url, self._send_timeout_s, self._max_received = url, send_timeout_s, max_received
        self._engine = Engine(options)
        self._engine.start()

    def send(self, message: Message) -> bool:
        """Send text (a str) or binary data (bytes), now or when there is a connection.

        Returns whether the message was accepted.

        If too much waits already, the message is refused: at once if there is no connection, and after `send_timeout_s`
        if there is one. It is also refused if the client is closed. Raises `MessageTypeError` for anything but str and
        bytes.
        """
        data, engine, deadline = checked(message), self._engine, monotonic() + self._send_timeout_s
        if engine.is_interrupted:
            return engine.send_late(data)
        with engine.lock:
            engine.take_late()
            session = engine.application.session
            while engine.accepts and not engine.dialogue.is_past(session):
                if engine.dialogue.send(data, session=session):
                    engine.pump()
                    return True
                if not engine.is_connected or not engine.wait_for_room(deadline):
                    break
            return False

    def receive(self, timeout: float | None = None) -> Message:
        """Returns the next message. Raises `TimeoutError` if none comes within `timeout` seconds.

        After the last message, raises `SessionClosed`, if the client is closed, the server has closed the session for
        good, or the client has given up.
        """
        engine = self._engine
        self._check_may_wait("receive")
        with engine.lock:

            def is_there() -> bool:
                return len(engine.inbox) > 0 or engine.closed is not None

            if not engine.arrived.wait_for(is_there, timeout) and not engine.look(is_there):
                raise TimeoutError(f"nothing was received in {timeout:g} s{engine.describe_trouble()}")
            if not engine.inbox:
                raise self._end_error()
            return engine.take()

    def request(self, message: Message, timeout: float = 10.0) -> Message | None:
        """Send a request, and return its answer, which is the return value of the handler's `on_request`.

        Raises `RequestTimeout` (a `TimeoutError`) after `timeout` seconds, `RequestError` if the handler has failed,
        and `SessionClosed` if the session ends before the answer comes. A request survives a lost connection.
        """
        data, engine, deadline = checked(message), self._engine, monotonic() + timeout
        self._check_may_wait("request")
        with engine.lock:
            session = engine.application.session
            while True:
                if not engine.accepts:
                    raise self._end_error()
                if engine.dialogue.is_past(session):
                    raise SessionClosed("the session for which this on_open was called is over")
                if engine.dialogue.is_open and not engine.dialogue.speaks:
                    raise RequestError(NO_REQUESTS)
                pending = engine.dialogue.request(data, session=session)
                if pending is not None:
                    break
                if not engine.wait_for_room(deadline):
                    raise RequestTimeout(f"the request was not sent in {timeout:g} s: too many messages wait")
            was_crowded, engine.requesting = engine.is_crowded, engine.requesting + 1
            try:
                engine.pump()
                if was_crowded:
                    engine.wake()  # the client's thread acknowledges and reads again, for the answer
                has_come = engine.moved.wait_for(lambda: pending.is_done, max(0.0, deadline - monotonic()))
                if not has_come and not engine.look(lambda: pending.is_done):
                    raise RequestTimeout(f"no answer came in {timeout:g} s{engine.describe_trouble()}")
            finally:
                engine.requesting -= 1
                if not pending.is_done:
                    engine.dialogue.give_up(pending)
            if pending.error is not None:
                raise pending.error
            return pending.answer

    def _end_error(self) -> SessionClosed:
        """Returns the error for a call of a client that is over. Called with the lock held."""
        code, reason = self._engine.closed or self._engine.closing or (CloseCode.ABNORMAL, "")
        return SessionClosed(f"the client is closed: {describe_end(code, reason)}")

    def _check_may_wait(self, method: str) -> None:
        if self._engine.is_interrupted:
            raise RuntimeError(f"{method} cannot wait in a signal handler or finalizer that interrupts this client")

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the connection, do not reconnect, and end the client's threads.

        Waits for the server's close frame for at most 5 seconds, for the address function for at most 10 seconds, and
        for `on_open` and `on_request` for at most 5 seconds each, if these functions are running.

        Messages that still wait for a connection are dropped. If there is a connection, waiting messages are written
        first, for at most half of the 5 seconds. `receive` still returns messages that have arrived. A second call does
        nothing.
        """
        check_close(code, reason)
        self._engine.close(code, reason)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now.

        A connection may be lost already without the client's notice. `on_open` may still be running.
        """
        with self._engine.lock:
            return self._engine.is_connected

    @property
    def resumed(self) -> bool:
        """Whether the current or last connection resumed the session of the connection before."""
        with self._engine.lock:
            return self._engine.dialogue.resumed

    @property
    def lost(self) -> int:
        """How many messages of the previous session were sent and not acknowledged.

        The server may have handled some of them.
        """
        with self._engine.lock:
            return self._engine.lost

    @property
    def session_id(self) -> str | None:
        """The id of the session, as it is in the server's logs. None if the session cannot be resumed."""
        with self._engine.lock:
            token = self._engine.dialogue.token
        return None if token is None else token.rpartition(".")[0]

    @property
    def protocol(self) -> str | None:
        """The one of `protocols` that the server has chosen, or None."""
        with self._engine.lock:
            return self._engine.dialogue.protocol if self._engine.dialogue.speaks else self._engine.subprotocol

    @property
    def closed(self) -> tuple[int, str] | None:
        """The close code and the reason, if the client will not reconnect. Otherwise None."""
        with self._engine.lock:
            return self._engine.closed

    def __iter__(self) -> Iterator[Message]:
        """Yields all messages, until the client is closed, or the server closes the session with the code 1000.

        Raises `SessionClosed` after any other end.
        """
        while True:
            try:
                message = self.receive()
            except SessionClosed:
                if self._engine.closing is None and self.closed is not None and self.closed[0] != CloseCode.NORMAL:
                    raise
                return
            yield message

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = shown(self._url) if isinstance(self._url, str) else "an address from a function"
        state = "closed" if self.closed else "connected" if self.is_connected else "not connected"
        return f"<Client of {where}, {state}>"


def _check(**settings: float) -> None:
    """Raise `ConfigError` for a number that is not greater than 0."""
    for name, value in settings.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 < value < math.inf:
            raise ConfigError(f"{name} must be a number above 0, not {brief(value)}")
