"""Calls the two functions of an application that a client has: `on_open` and `on_request`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import RLock

from wsthreads.client.callbacks import Callbacks
from wsthreads.client.dialogue import Dialogue
from wsthreads.client.events import Asked, Event
from wsthreads.client.options import Options, checked
from wsthreads.errors import RequestError
from wsthreads.loggers import get_logger
from wsthreads.threads import forks

__all__ = ["Application"]

logger = get_logger(__name__)

Message = str | bytes

#: At most this many requests from the server may wait for the application's answer. Further requests fail.
MAX_ASKED = 100


class Application:
    """Calls each of the two functions in a thread of its own.

    So requests of the server are answered while `on_open` waits for the server.
    """

    def __init__(self, options: Options, lock: RLock, dialogue: Dialogue, pump: Callable[[], None]) -> None:
        self._options, self._lock, self._dialogue, self._pump = options, lock, dialogue, pump
        self._openings = Callbacks("wsthreads-client-openings")
        self._answers = Callbacks("wsthreads-client-answers")
        self._opening = 0  # the number of the session for which `on_open` is running
        self._has_closed = False  # whether the running `on_open` has closed the client
        #: Whether the client has written its close frame. After that, `on_open` could send nothing.
        self.is_over = False
        #: How many requests of the server are not answered yet.
        self.asked = 0

    @property
    def session(self) -> int | None:
        """The number of the session that the caller's messages belong to, if the caller is an `on_open`.

        Otherwise None.

        Called with the lock held.
        """
        return self._opening if self._openings.is_current else None

    @property
    def is_opening(self) -> bool:
        """Whether the caller is an `on_open` that has not closed the client.

        Messages of other callers wait until `on_open` has ended.
        """
        return self._openings.is_current and not self._has_closed

    def close(self) -> list[Event]:
        """Note that the client closes.

        If the caller is an `on_open`, it can send nothing more. Called with the lock held.

        If the session of this `on_open` is over already, the client calls no `on_open` for the next session. So the
        messages that wait for this call are dropped.
        """
        if (session := self.session) is None:
            return []
        self._has_closed = True
        self._dialogue.release(session)
        return self._dialogue.drop_unsent() if self._dialogue.is_past(session) else []

    def end(self, timeout_s: float) -> None:
        """End both threads. Waits for running functions, for at most `timeout_s` each."""
        self._openings.end(timeout_s)
        self._answers.end(timeout_s)

    def open(self) -> None:
        """Call `on_open`, because a new session has begun. Called with the lock held."""
        if self._options.on_open is not None:
            self._dialogue.hold()
            self._openings.put(partial(self._call_on_open, self._options.on_open, self._dialogue.session))

    def _call_on_open(self, on_open: Callable[[], object], session: int) -> None:
        with self._lock:
            if self._dialogue.is_past(session) or self._has_closed or self.is_over:
                return
            self._opening = session
        try:
            with forks.ending():
                on_open()
        finally:
            with self._lock:
                self._dialogue.release(session)
                self._pump()

    def answer(self, asked: Asked) -> None:
        """Call `on_request` for a request of the server. Called with the lock held."""
        on_request = self._options.on_request
        if on_request is None:
            self._dialogue.fail(asked, "no handler: the client has no on_request")
        elif self.asked >= MAX_ASKED:
            self._dialogue.fail(asked, "too many requests")
        else:
            self.asked += 1
            self._answers.put(partial(self._call_on_request, on_request, asked))

    def _call_on_request(self, on_request: Callable[[Message], Message | None], asked: Asked) -> None:
        answer: Message | None = None
        failure: str | None = None
        try:
            with forks.ending():
                answer = on_request(asked.data)
            if answer is not None:
                answer = checked(answer)
        except RequestError as error:
            failure = str(error)
        except BaseException:  # the client continues even after SystemExit
            logger.exception("on_request failed")
            failure = "failed"
        with self._lock:
            self.asked -= 1
            if failure is None:
                self._dialogue.reply(asked, answer)
            else:
                self._dialogue.fail(asked, failure)
            self._pump()
