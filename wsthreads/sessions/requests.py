"""The requests of one session that speaks ``wsthreads.1``: those that it sends, and the answers to those that come in.

Invariants:

- The outcome of a request that was sent is told exactly once: whoever removes it from `_pending` tells it. It is told
  without locks.
- Requests leave in the order of their ids, without a gap: an id is taken and its frame appended under `_asking`.
- Each request that comes in is answered once: whoever removes its id from `unanswered` sends the answer.
- After `end`, nothing is pending, and nothing becomes pending.
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

#: How a request has ended: with the reply, or with an error.
Outcome = str | bytes | None | RequestTimeout | SessionClosed | SessionMoved | RequestError
Done = Callable[[Outcome], None]

#: An outcome that is being told is there after this.
TOLD_S = 5.0

#: The other side is told this if it has more requests than `max_pending_requests`.
TOO_MANY = "too many requests"


class PendingReply:
    """An outcome that a thread waits for."""

    __slots__ = ("_arrived", "is_done", "outcome")

    def __init__(self) -> None:
        self.outcome: Outcome = None
        self.is_done = False
        self._arrived = Lock()  # held until the outcome is there
        self._arrived.acquire()

    def done(self, outcome: Outcome) -> None:
        """The outcome is there. Called once."""
        self.outcome = outcome
        self.is_done = True
        self._arrived.release()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the outcome, at most `timeout_s`. Only one thread waits."""
        return self.is_done or self._arrived.acquire(timeout=max(0.0, timeout_s))


class Requests:
    """Both directions. Any thread, where nothing else is said. At most `most` that were sent may be unanswered.

    `read` takes what the client sends, for at most so many seconds. It returns False if the calling thread cannot.
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
        self._asking = RLock()  # guards _asked; held while a frame is appended, so that ids leave in order
        self._asked = 0  # the last id that was used
        self._pending: dict[int, Done] = {}
        self._clocks: dict[int, Timer] = {}  # of those for which no thread waits
        #: The ids of requests that have come in. `Intake` adds them, under its lock.
        self.unanswered: dict[int, None] = {}
        self._answering: dict[int, None] = {}  # removed from there; the answer may not be in the outbox yet
        self._has_ended = False
        self._is_held = False  # see `hold`

    # What this side asks.

    @property
    def is_asking(self) -> bool:
        """Whether a request has no outcome yet. A snapshot."""
        return bool(self._pending)

    def read(self, timeout_s: float) -> bool:
        """Take what the client sends, for at most so long, where a thread waits that may have to read the replies.

        False if the calling thread cannot.
        """
        return self._read(timeout_s)

    def frame(self, message: str | bytes) -> bytes:
        """The frame of a request, a reply or a failure: it is not escaped, but may be deflated."""
        return self._encoding.frame(message_frame(message))

    def ask(self, message: str | bytes, timeout_s: float) -> str | bytes | None:
        """Send a request, and wait for the reply. The session's own thread reads meanwhile.

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
            if number not in self._pending:  # the outcome was quicker
                self._stop_clock(number)

    def _time_out(self, number: int, timeout_s: float) -> None:
        if number in self._pending:
            self.settle(number, too_late(timeout_s))

    def _stop_clock(self, number: int) -> None:
        timer = self._clocks.pop(number, None)
        if timer is not None:
            timer.cancel()

    def send(self, message: str | bytes, done: Done) -> int:
        """Send a request. `done` is called once with the outcome, unless `forget` comes before it.

        Returns the id. Raises `SessionClosed` if the session is closed, `SessionMoved` if it goes on elsewhere, and
        `RequestError` if too many requests are unanswered. Does not block.
        """
        if not isinstance(message, (str, bytes)):
            raise MessageTypeError(f"a request is text or bytes, not {type(message).__name__}; try json.dumps")
        if self._is_held or self._has_ended:
            raise self._no_reply()
        with self._asking:
            if len(self._pending) >= self._most:
                raise RequestError(f"no more than {counted(self._most, 'request')} may be unanswered "
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
        """Wait for a reply no more. False if the outcome was told, or is being told."""
        return self._pending.pop(number, None) is not None

    def settle(self, number: int, outcome: Outcome) -> None:
        """A reply has come, or a failure. Ignored unless the request is pending."""
        done = self._pending.pop(number, None)
        if done is not None:
            self._stop_clock(number)
            done(outcome)

    def check_asked(self, number: int) -> None:
        """Raise `ProtocolError` for the id of a reply to what was never asked."""
        if number > self._asked:
            raise ProtocolError(f"a reply to request {number}, the last one was {self._asked}")

    # What the other side asks.

    def refuse(self, number: int) -> None:
        """Answer a request that was one too many."""
        self._session._post(self.frame(envelope.failure(number, TOO_MANY)), timeout=0.0)

    def answer(self, number: int, message: str | bytes) -> None:
        """Send the answer to a request, unless there was one."""
        self._answering[number] = None
        try:
            if self.unanswered.pop(number, number) is None:
                frame = message_frame(message)  # inlined `frame`, because this runs for each request
                self._session._post(frame if self._encoding is PLAIN else self._encoding.frame(frame))
        finally:
            self._answering.pop(number, None)

    # The end, and another process.

    def end_asking(self) -> None:
        """The client replies no more: what is asked fails, now and later. Its own requests may still be answered."""
        self._has_ended = True
        self._break_off()

    def end(self) -> None:
        """The session has ended: nothing is waited for any more."""
        self.unanswered.clear()
        self.end_asking()

    def hold(self) -> None:
        """The session is about to go on in another process: wait for no reply, and ask nothing, until `let_go`.

        Otherwise a handler that waits for a reply would keep the session from going there.
        """
        self._is_held = True
        self._break_off()

    def let_go(self) -> None:
        """The session stays."""
        self._is_held = False

    def _break_off(self) -> None:
        while self._pending:
            try:
                number, done = self._pending.popitem()
            except KeyError:  # another thread has taken the last one
                return
            self._stop_clock(number)
            done(self._no_reply())

    def _no_reply(self) -> SessionClosed | SessionMoved:
        """Why no reply will come."""
        return moved() if self._is_held else closed()

    def export(self) -> dict[str, Any]:
        """What another process needs to go on: JSON values."""
        unanswered = sorted({*self._answering.copy(), *self.unanswered.copy()})
        return {"asked": self._asked, "unanswered": unanswered}

    def import_(self, asked: int, unanswered: list[int]) -> None:
        """Go on from what another process has exported. Nobody here waits for its replies, or answers its requests."""
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
        """The request was handled."""
        number = self._number
        reply = envelope.null_reply(number) if value is None else envelope.reply(number, value)
        self._requests.answer(number, reply)

    def failed(self, text: str) -> None:
        """The request was not handled. The text reaches the client."""
        self._requests.answer(self._number, envelope.failure(self._number, text))


def too_late(timeout_s: float) -> RequestTimeout:
    return RequestTimeout(f"no reply to a request within {timeout_s:g} s")


def closed() -> SessionClosed:
    return SessionClosed("the session is closed")


def moved() -> SessionMoved:
    return SessionMoved("the session goes on in another process, where nobody waits for the reply: "
                        "ask again in on_resume (in a script, onResume)")  # fmt: skip
