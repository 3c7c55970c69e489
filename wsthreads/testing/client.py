"""A client for tests: it speaks ``wsthreads.1``, like `wsthreads.js`, and stores all messages that it receives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from threading import Condition
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsthreads.client.callbacks import Callbacks
from wsthreads.client.dialogue import Dialogue
from wsthreads.client.events import Asked, Opened
from wsthreads.client.retries import UNDECIDED_CODES
from wsthreads.errors import (
    CloseCode,
    HandshakeRefused,
    MessageTypeError,
    PeerError,
    RequestError,
    RequestTimeout,
    SessionClosed,
    UsageError,
    is_final,
)
from wsthreads.protocol.envelope import SUBPROTOCOL
from wsthreads.testing.line import LINE, Call, Line

if TYPE_CHECKING:
    from wsthreads.sessions.session import Session

__all__ = ["Client"]

#: The client of a test has no limits of its own, because tests are about the limits of the server.
_UNLIMITED = 2**53


class Client:
    """One client, which `Play.connect` returns. When a method returns, all its effects have happened.

    If the handler raises an exception in the meantime, the method raises this exception in the test. Every wait raises
    `TimeoutError` after the deadline of `play`.
    """

    def __init__(
        self,
        settle: Callable[[], None],
        deadline_s: float,
        *,
        sessions: Callable[[], Iterable[Session]] = tuple,
        failed: Callable[[BaseException], None] = lambda error: None,
        on_request: Callable[[str | bytes], str | bytes | None] | None = None,
    ) -> None:
        self._settle, self._sessions, self._failed = settle, sessions, failed
        self._deadline_s = deadline_s
        self._callbacks = Callbacks("wsthreads-client-calls")
        self._changed = Condition()  # guards everything below; no code of the test is called while it is held
        self._dialogue = Dialogue(max_queued=_UNLIMITED, max_queued_bytes=_UNLIMITED)
        # the connections of this client; the last one is the current one, and threads of earlier ones may still run
        self._lines: list[Line] = []
        self._answering = 0  # how many calls of `on_request` have not returned yet
        self._taken = 0
        self._session: Session | None = None
        #: All messages received so far: text as str, binary as bytes.
        self.received: list[str | bytes] = []
        #: The negotiated subprotocol, or None.
        self.subprotocol: str | None = None
        #: The function that answers requests of the server. It gets the message, and returns the answer or None. It is
        #: called in a separate thread.
        self.on_request = on_request

    # For tests

    def send(self, message: str | bytes) -> None:
        """Send text (a str) or binary data (bytes). Raises `ConnectionError` if the connection is closed.

        After `lose`, messages wait for `come_back`, if the session can be resumed.
        """
        if not isinstance(message, (str, bytes)):
            raise MessageTypeError(f"a message must be text or bytes, not {type(message).__name__}; try json.dumps")
        with self._changed:
            self._check_open()
            self._dialogue.send(message)
            self._pump()
        self._settle()

    def request(self, message: str | bytes, timeout_s: float | None = None) -> str | bytes | None:
        """Send a request, and return the answer of the handler's `on_request`. Waits for at most `timeout_s`.

        Raises `RequestError` with the handler's text, `RequestTimeout`, or `SessionClosed` if the session ends.
        """
        if not isinstance(message, (str, bytes)):
            raise MessageTypeError(f"a message must be text or bytes, not {type(message).__name__}; try json.dumps")
        timeout_s = self._deadline_s if timeout_s is None else timeout_s
        with self._changed:
            self._check_open()
            if not self._dialogue.speaks:
                raise UsageError("a plain client cannot send requests: connect without plain=True")
            pending = self._dialogue.request(message)
            assert pending is not None
            self._pump()
        self._settle()
        with self._changed:
            self._changed.wait_for(lambda: pending.is_done or self._has_ended, timeout_s)
            is_done, has_ended = pending.is_done, self._has_ended
            if not is_done:
                self._dialogue.give_up(pending)
        self._settle()  # raises the exception of the handler, if there is one
        if pending.error is not None:
            raise pending.error
        if not is_done and has_ended:
            raise SessionClosed(f"no answer will come, because the connection is closed: {self.closed}")
        if not is_done:
            raise RequestTimeout(f"no answer came in {timeout_s:g} s")
        return pending.answer

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the connection by a close handshake. Does nothing if it is closed already."""
        with self._changed:
            self._line.close(code, reason)
        self._settle()

    def lose(self) -> None:
        """Lose the connection without a close handshake.

        With `resume_s`, the session is suspended, and `come_back` resumes it. Otherwise, the session is closed with the
        code 1006.
        """
        self.vanish()
        self._settle()

    def come_back(self, *, headers: Mapping[str, str] | None = None, **parameters: str) -> None:
        """Connect again and resume the session, like `wsthreads.js` after the loss of a connection.

        Afterwards, `resumed` says whether the session was resumed. If it was not, `session` is a new session. If the
        old connection is still open, the new connection replaces it. `headers` and `parameters`, such as a token,
        replace those of the first handshake. Raises `HandshakeRefused` if the client is refused with a status. The
        client may then come back later. Raises `ConnectionError` if no session waits for the client, which is always so
        without ``resume_s``.
        """
        call = self._call
        if headers is not None:
            call = replace(call, headers=headers)
        if parameters:
            query = dict(call.query) if isinstance(call.query, Mapping) else {}
            if call.query and not query:
                raise UsageError("the parameters cannot be replaced: this client was connected with a query as text")
            call = replace(call, query={**query, **parameters})
        with self._changed:
            if not self.may_come_back:
                raise ConnectionError(
                    f"this client has no session to come back to: {self.closed}; a session waits only with resume_s"
                )
        try:
            self.begin(call)
            self.finish_handshake()
        except BaseException:
            self._settle()
            raise
        self._settle()
        self.meet()

    def receive(self, timeout_s: float | None = None) -> str | bytes:
        """Returns the next message that neither this method nor `take` has returned.

        Waits for it, for at most `timeout_s`.

        Use this for messages that timers of a script or threads of a handler send later.
        """
        timeout_s = self._deadline_s if timeout_s is None else timeout_s
        self._settle()
        with self._changed:
            has_come = self._changed.wait_for(lambda: self._taken < len(self.received) or self.closed, timeout_s)
        if not has_come:
            self._settle()  # raises the exception of the handler instead, if there is one
            raise TimeoutError(f"no message was received in {timeout_s:g} s")
        with self._changed:
            if self._taken == len(self.received):
                raise ConnectionError(f"no message will come, because the connection is closed: {self.closed}")
            self._taken += 1
            return self.received[self._taken - 1]

    def take(self) -> list[str | bytes]:
        """Returns all messages that neither this method nor `receive` has returned yet."""
        self._settle()
        with self._changed:
            taken, self._taken = self._taken, len(self.received)
            return self.received[taken:]

    def take_json(self) -> list[Any]:
        """Like `take`, but parses each message as JSON."""
        return [json.loads(message) for message in self.take()]

    def wait_closed(self, timeout_s: float | None = None) -> tuple[int, str]:
        """Wait for the end of the connection, for at most `timeout_s`. Returns the close code and the reason."""
        timeout_s = self._deadline_s if timeout_s is None else timeout_s
        with self._changed:
            if not self._changed.wait_for(lambda: self.closed is not None, timeout_s):
                raise TimeoutError(f"the connection was not closed in {timeout_s:g} s")
        self._settle()
        assert self.closed is not None
        return self.closed

    @property
    def closed(self) -> tuple[int, str] | None:
        """The close code and the reason, as a browser reports them. None while the connection is open.

        The code is 1006 after the loss of a connection, and 1005 after a close without a code.
        """
        return self._line.closed

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self.closed is None

    @property
    def resumed(self) -> bool:
        """Whether the last `come_back` has resumed the session."""
        return self._dialogue.resumed

    @property
    def session(self) -> Session:
        """The session of this client: its id, its rooms, and the attributes that a Python handler has set."""
        if self._session is None:
            raise ConnectionError(f"this client has no session: it was closed at once, {self.closed}")
        return self._session

    def __repr__(self) -> str:
        return f"<Client {self.closed or 'open'}, {len(self.received)} messages>"

    # For `Play`

    def begin(self, call: Call) -> None:
        """Send the handshake. `finish_handshake` waits for the response."""
        with self._changed:
            self._call = call
            if self._lines:
                self._dialogue.disconnected()  # from the hello on, messages of the old connection are ignored
            number = len(self._lines)
            line = Line(call, self._changed, self._upgraded, lambda message: self._receive(message, number))
            self._lines.append(line)

    def vanish(self) -> None:
        """Like `lose`, but does not wait."""
        self._line.vanish()
        with self._changed:
            self._dialogue.disconnected()

    def end(self) -> None:
        """End the thread for `on_request`."""
        self._callbacks.end(self._deadline_s)

    def finish_handshake(self) -> None:
        """Wait for the response. Unless it is a 101, raises `HandshakeRefused` with its status and text."""
        line = self._line
        with self._changed:

            def is_done() -> bool:
                return line.is_over or (line.is_upgraded and (self._dialogue.is_open or line.closed is not None))

            if not self._changed.wait_for(is_done, self._deadline_s):
                raise TimeoutError(f"the handshake was not answered in {self._deadline_s:g} s")
            if line.crash is not None:
                raise line.crash
            if not line.is_upgraded:
                raise HandshakeRefused(*line.answer, line.headers)
            if not self._dialogue.is_open and line.closed and line.closed[0] not in UNDECIDED_CODES:
                self._dialogue.forget()  # the session has ended in the meantime

    def meet(self) -> None:
        """Find this client's session."""
        line = self._line
        self._session = next(
            (session for session in self._sessions() if session.request.environ.get(LINE) is line), self._session
        )

    @property
    def is_idle(self) -> bool:
        """Whether nothing will happen until the client or the server sends again."""
        return not self._answering and all(line.is_idle for line in self._lines)

    @property
    def is_over(self) -> bool:
        """Whether the thread of the connection has ended."""
        return not self._answering and all(line.is_over for line in self._lines)

    @property
    def may_come_back(self) -> bool:
        """Whether the client has lost its connection, and its session may be waiting."""
        with self._changed:
            return self._dialogue.token is not None and (self.closed is None or not is_final(self.closed[0]))

    @property
    def moved(self) -> int:
        """A number that grows while something happens on this connection."""
        return sum(line.moved for line in self._lines)

    def wait_idle(self, deadline: float) -> None:
        """Wait until the server's thread for this connection waits for input, or has ended."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.is_idle, max(0.0, deadline - monotonic())):
                raise TimeoutError(f"a call of the handler for {self!r} has not returned in {self._deadline_s:g} s")

    # Called with the lock held

    @property
    def _line(self) -> Line:
        return self._lines[-1]

    @property
    def _has_ended(self) -> bool:
        """Whether the session has ended, so that no answer will come."""
        return self.closed is not None and not self.may_come_back

    def _check_open(self) -> None:
        """Raise `ConnectionError` unless messages can be sent, now or after `come_back`."""
        if self._line.is_open:
            return
        closed = self._line.closed
        if closed is None or not self.may_come_back:
            raise ConnectionError(f"this client cannot send, it is closed: {closed or 'it has closed itself'}")

    def _pump(self) -> None:
        while self._line.is_open and (message := self._dialogue.take()) is not None:
            self._line.write(message)

    def _upgraded(self, subprotocol: str | None) -> None:
        speaks = subprotocol == SUBPROTOCOL
        self.subprotocol = None if speaks else subprotocol
        self._dialogue.connected(speaks)
        self._pump()

    def _receive(self, message: str | bytes, number: int) -> None:
        if number != len(self._lines) - 1:
            return  # the message came over a connection that was replaced
        try:
            events = self._dialogue.receive(message)
        except PeerError as error:  # an error of the server, which the test should see
            self._failed(error)
            return
        for event in events:
            if isinstance(event, (str, bytes)):
                self.received.append(event)
            elif isinstance(event, Opened):
                self.subprotocol = self._dialogue.protocol
            elif isinstance(event, Asked):
                self._answer(event)
        self._pump()

    def _answer(self, asked: Asked) -> None:
        on_request = self.on_request
        if on_request is None:
            self._dialogue.fail(asked, "no handler: the client has no on_request")
            return
        self._answering += 1
        self._callbacks.put(lambda: self._call_on_request(on_request, asked))

    def _call_on_request(self, on_request: Callable[[str | bytes], str | bytes | None], asked: Asked) -> None:
        answer: str | bytes | None = None
        failure: str | None = None
        try:
            answer = on_request(asked.data)
            if answer is not None and not isinstance(answer, (str, bytes)):
                raise MessageTypeError(f"an answer must be text, bytes or None, not {type(answer).__name__}")
        except RequestError as error:
            failure = str(error)
        except BaseException as error:  # the test's next call raises this exception
            self._failed(error)
            failure = "failed"
        with self._changed:
            if failure is None:
                self._dialogue.reply(asked, answer)
            else:
                self._dialogue.fail(asked, failure)
            self._pump()
            self._answering -= 1
            self._changed.notify_all()
