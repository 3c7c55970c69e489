"""The requests of one session that speaks ``wsthreads.1``: those to the client, and those of the client.

Invariants:

- The outcome of a request to the client is passed on exactly once. This is done, without locks, by the thread that
  removes the request from `_pending`.
- Requests are sent in the order of their ids, without a gap: a thread holds `_asking` while it takes an id and appends
  the frame.
- Each request of the client is answered once, by the thread that removes its id from `unanswered`.
- After `end`, no request is pending, and none becomes pending.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, RLock
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsthreads.errors import (
    MessageTypeError,
    ProtocolError,
    RequestError,
    RequestTimeout,
    SessionClosed,
    SessionMoved,
    WSThreadsError,
    counted,
)
from wsthreads.protocol import envelope
from wsthreads.protocol.encoding import PLAIN
from wsthreads.protocol.frames import message_frame
from wsthreads.sessions.interface import FAILED
from wsthreads.threads.flusher import Timer, weakly

if TYPE_CHECKING:
    from wsthreads.protocol.encoding import Encoding
    from wsthreads.sessions.session import Session
    from wsthreads.threads.flusher import Timers

__all__ = ["Done", "IncomingRequest", "Outcome", "PendingReply", "Requests"]

#: How a request has ended: the reply, or an error.
Outcome = str | bytes | None | RequestTimeout | SessionClosed | SessionMoved | RequestError
Done = Callable[[Outcome], None]

#: The longest wait for an outcome that another thread is just passing on.
TOLD_S = 5.0

#: The answer to a request that exceeds `max_pending_requests`.
TOO_MANY = "too many requests"


class PendingReply:
    """The outcome of a request, for one thread that waits for it."""

    __slots__ = ("_arrived", "is_done", "outcome")

    def __init__(self) -> None:
        self.outcome: Outcome = None
        self.is_done = False
        self._arrived = Lock()  # held until `done` is called
        self._arrived.acquire()

    def done(self, outcome: Outcome) -> None:
        """Set the outcome. Called once."""
        self.outcome = outcome
        self.is_done = True
        self._arrived.release()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the outcome, at most `timeout_s`. Only one thread may wait."""
        return self.is_done or self._arrived.acquire(timeout=max(0.0, timeout_s))


class Requests:
    """The requests of a session, in both directions.

    At most `most` requests to the client may be without a reply. Any thread.

    `read` takes messages from the client for at most the given number of seconds. It returns False if the calling
    thread is not the one that reads the connection.
    """

    __slots__ = (
        "__weakref__",
        "_answering",
        "_asked",
        "_asking",
        "_clocks",
        "_encoding",
        "_has_ended",
        "_is_held",
        "_most",
        "_pending",
        "_read",
        "_session",
        "_timers",
        "unanswered",
    )

    def __init__(
        self, session: Session, encoding: Encoding, *, most: int, read: Callable[[float], bool], timers: Timers
    ) -> None:
        self._session = session
        self._encoding = encoding
        self._most = most
        self._read = read
        self._timers = timers
        self._asking = RLock()  # guards _asked; held while a frame is appended, so that ids are sent in order
        self._asked = 0  # the last id that was used
        self._pending: dict[int, Done] = {}
        self._clocks: dict[int, Timer] = {}  # timers for requests for which no thread waits
        #: The ids of the client's requests without an answer. `Intake` adds them, with its lock held.
        self.unanswered: dict[int, None] = {}
        # ids that were removed from `unanswered`, but whose answer may not be in the outbox yet
        self._answering: dict[int, None] = {}
        self._has_ended = False
        self._is_held = False  # whether `hold` was called, and `let_go` was not

    # Requests to the client

    @property
    def is_asking(self) -> bool:
        """Whether a request has no outcome yet. A snapshot."""
        return bool(self._pending)

    def read(self, timeout_s: float) -> bool:
        """Take messages from the client for at most `timeout_s`, because a thread waits for a reply.

        Returns False if the calling thread is not the one that reads the connection.
        """
        return self._read(timeout_s)

    def frame(self, message: str | bytes) -> bytes:
        """The frame of a request, a reply or a failure. Such frames are not escaped, but may be deflated."""
        return self._encoding.frame(message_frame(message))

    def ask(self, message: str | bytes, timeout_s: float) -> str | bytes | None:
        """Send a request, and wait for the reply. The session's own thread reads the connection while it waits.

        Raises `RequestTimeout`, `SessionClosed`, `SessionMoved` and `RequestError`.
        """
        reply, deadline = PendingReply(), monotonic() + timeout_s
        number = self.send(message, reply.done)
        while not reply.is_done and (left_s := deadline - monotonic()) > 0 and self._read(left_s):
            pass
        if not reply.wait(deadline - monotonic()) and (self.forget(number) or not reply.wait(TOLD_S)):
            raise too_late(timeout_s)
        outcome = reply.outcome
        if isinstance(outcome, WSThreadsError):
            raise outcome
        return outcome

    def ask_later(self, message: str | bytes, timeout_s: float, done: Done) -> None:
        """Send a request. `done` is called once with the outcome, in any thread, without locks. Does not block."""
        try:
            number = self.send(message, done)
        except (SessionClosed, SessionMoved, RequestError) as error:
            done(error)
        else:
            self._clocks[number] = self._timers.call_later(timeout_s, weakly(self._time_out, number, timeout_s))
            if number not in self._pending:  # the outcome has already arrived
                self._stop_clock(number)

    def _time_out(self, number: int, timeout_s: float) -> None:
        if number in self._pending:
            self.settle(number, too_late(timeout_s))

    def _stop_clock(self, number: int) -> None:
        timer = self._clocks.pop(number, None)
        if timer is not None:
            timer.cancel()

    def send(self, message: str | bytes, done: Done) -> int:
        """Send a request. `done` is called once with the outcome, unless `forget` is called before.

        Returns the id. Raises `SessionClosed` if the session is closed, `SessionMoved` if it has moved to another
        process, and `RequestError` if too many requests have no reply. Does not block.
        """
        if not isinstance(message, (str, bytes)):
            raise MessageTypeError(f"a request must be text or bytes, not {type(message).__name__}; try json.dumps")
        if self._is_held or self._has_ended:
            raise self._no_reply()
        with self._asking:
            if len(self._pending) >= self._most:
                raise RequestError(f"at most {counted(self._most, 'request')} to a client may be unanswered "
                                   "(max_pending_requests)")  # fmt: skip
            number = self._asked + 1
            frame = self.frame(envelope.request(number, message))
            self._asked = number
            self._pending[number] = done
            is_sent = self._session._post(frame, timeout=0.0)
        if (self._has_ended or self._is_held or not is_sent) and self.forget(number):
            raise self._no_reply()
        return number

    def forget(self, number: int) -> bool:
        """Stop waiting for a reply. Returns False if the outcome was already passed on, or is just being passed on."""
        return self._pending.pop(number, None) is not None

    def settle(self, number: int, outcome: Outcome) -> None:
        """Pass on a reply or a failure. Does nothing unless the request is pending."""
        done = self._pending.pop(number, None)
        if done is not None:
            self._stop_clock(number)
            done(outcome)

    def check_asked(self, number: int) -> None:
        """Raise `ProtocolError` if no request has had the id of this reply."""
        if number > self._asked:
            raise ProtocolError(f"a reply to request {number}, but the last request was {self._asked}")

    # Requests of the client

    def refuse(self, number: int) -> None:
        """Refuse a request that exceeds the limit."""
        self._session._post(self.frame(envelope.failure(number, TOO_MANY)), timeout=0.0)

    def answer(self, number: int, message: str | bytes) -> None:
        """Send the answer to a request, unless it was already answered."""
        self._answering[number] = None
        try:
            if self.unanswered.pop(number, number) is None:
                frame = message_frame(message)  # `frame` is inlined, because this runs for each request
                self._session._post(frame if self._encoding is PLAIN else self._encoding.frame(frame))
        finally:
            self._answering.pop(number, None)

    # The end of the session, and moves to another process

    def end_asking(self) -> None:
        """Let requests to the client fail, now and later, because the client sends no more replies.

        The client's own requests may still be answered.
        """
        self._has_ended = True
        self._break_off()

    def end(self) -> None:
        """Let all pending requests fail, because the session has ended."""
        self.unanswered.clear()
        self.end_asking()

    def hold(self) -> None:
        """Let all requests to the client fail until `let_go`, because the session is about to move to another process.

        Otherwise a handler that waits for a reply would delay the move.
        """
        self._is_held = True
        self._break_off()

    def let_go(self) -> None:
        """Allow requests again, because the session stays in this process."""
        self._is_held = False

    def _break_off(self) -> None:
        while self._pending:
            try:
                number, done = self._pending.popitem()
            except KeyError:  # another thread has removed the last request
                return
            self._stop_clock(number)
            done(self._no_reply())

    def _no_reply(self) -> SessionClosed | SessionMoved:
        """The error that tells why no reply will come."""
        return moved() if self._is_held else closed()

    def export(self) -> dict[str, Any]:
        """The state that another process needs, as JSON values."""
        unanswered = sorted({*self._answering.copy(), *self.unanswered.copy()})
        return {"asked": self._asked, "unanswered": unanswered}

    def import_(self, asked: int, unanswered: list[int]) -> None:
        """Take over the state from another process.

        Fails the client's earlier requests, because no thread of this process answers them.
        """
        self._asked = asked
        for number in unanswered:
            self._session._post(self.frame(envelope.failure(number, FAILED)), timeout=0.0)


class IncomingRequest:
    """The `Answer` to one request of the client."""

    __slots__ = ("_number", "_requests")

    def __init__(self, requests: Requests, number: int) -> None:
        self._requests = requests
        self._number = number

    def done(self, value: str | bytes | None) -> None:
        """Send the result of a request that was handled."""
        number = self._number
        reply = envelope.null_reply(number) if value is None else envelope.reply(number, value)
        self._requests.answer(number, reply)

    def failed(self, text: str) -> None:
        """Send an error for a request that was not handled. The client gets the text."""
        self._requests.answer(self._number, envelope.failure(self._number, text))


def too_late(timeout_s: float) -> RequestTimeout:
    return RequestTimeout(f"no reply to a request within {timeout_s:g} s")


def closed() -> SessionClosed:
    return SessionClosed("the session is closed")


def moved() -> SessionMoved:
    return SessionMoved("the session has moved to another process, so no reply will come: "
                        "ask again in on_resume (in a script, onResume)")  # fmt: skip
