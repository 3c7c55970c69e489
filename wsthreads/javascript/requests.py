"""The requests of a script to its clients, and the script's answers to requests of its clients.

Invariants:

- The runtime has a ticket for each request to a client. Each request gets one outcome, as an event without a session.
  The event has no session, because a running call of the session may wait for the outcome.
- Each request of a client is answered once. Its event has a number, and `_answers` has the `Answer` under this number.
  Only the code that removes the `Answer` from `_answers` may answer the request. This is the script's answer, or the
  end of the event.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Protocol

from wsthreads.errors import RequestError, WSThreadsError
from wsthreads.javascript.calls import Answer, Function
from wsthreads.javascript.session_state import Event
from wsthreads.sessions.interface import FAILED

if TYPE_CHECKING:
    from wsthreads.javascript.schedule import Schedule
    from wsthreads.javascript.session_state import SessionState
    from wsthreads.sessions.interface import Answer as ClientsAnswer
    from wsthreads.sessions.requests import Outcome

__all__ = ["ScriptRequests"]

_CLOSED = ("SessionClosed", "the session is closed")


class Host(Protocol):
    """The part of `HostFunctions` that `ScriptRequests` uses."""

    def message(self, text: str | None, is_binary: bool) -> str | bytes: ...

    def state(self, session_id: str) -> SessionState | None: ...


class ScriptRequests:
    """The requests in both directions.

    Any thread may call `take`. Only the isolate's thread calls the other methods.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._numbers = count(1)
        # the answers of requests of clients, by number; each single operation is atomic
        self._answers: dict[int, ClientsAnswer] = {}

    def functions(self, host: Host) -> dict[str, Function]:
        """The functions that the runtime calls. Messages have the same form as for the functions of `host`."""
        return {
            "request": partial(self._request, host),
            "answer_request": partial(self._answer, host),
            "answer_null": self._answer_null,
            "refuse_request": self._refuse,
        }

    # These methods are for requests of clients.

    def take(self, answer: ClientsAnswer) -> int:
        """Add a request of a client. Returns the number for its event."""
        number = next(self._numbers)
        self._answers[number] = answer
        return number

    def finish(self, number: int) -> None:
        """Fail a request if the script has not answered it. Called at the end of its event."""
        self._refuse(number)

    def abandon(self) -> None:
        """Fail all requests, because the isolate has ended."""
        for number in list(self._answers):
            self._refuse(number)

    def _answer(self, host: Host, text: str | None, is_binary: bool, number: int) -> None:
        message = host.message(text, is_binary)
        answer = self._answers.pop(number, None)
        if answer is not None:
            answer.done(message)

    def _answer_null(self, number: int) -> None:
        answer = self._answers.pop(number, None)
        if answer is not None:
            answer.done(None)

    def _refuse(self, number: int, text: str | None = None) -> None:
        answer = self._answers.pop(number, None)
        if answer is not None:
            answer.failed(FAILED if text is None else text)

    # These methods are for requests to clients.

    def _request(
        self,
        host: Host,
        text: str | None,
        is_binary: bool,
        session_id: str,
        ticket: int,
        timeout_ms: float | None = None,
        _: None = None,
    ) -> Answer:
        """Send a request. Returns None, or the class and the text of an error."""
        message = host.message(text, is_binary)
        state = host.state(session_id)
        if state is None or state.session is None:
            return _CLOSED
        timeout_s = None if timeout_ms is None else timeout_ms / 1000
        try:
            state.session._ask(message, timeout_s, partial(self._replied, ticket))
        except RequestError as error:
            return (type(error).__name__, str(error))
        state.stir()
        return None

    def _replied(self, ticket: int, outcome: Outcome) -> None:
        """Pass the outcome of a request to the script. Any thread."""
        if isinstance(outcome, WSThreadsError):
            self._schedule.post(Event("replied", None, (ticket, type(outcome).__name__, str(outcome))))
        else:
            self._schedule.post(Event("replied", None, (ticket, None, outcome)))
