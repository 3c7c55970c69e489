"""Makes calls of scripts, and waits for their answers. The calls are queued for the writer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsthreads.brokers.seats import Seat
from wsthreads.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Lock

    from wsthreads.brokers.availability import Availability
    from wsthreads.brokers.queue import Question, SendQueue

__all__ = ["Calls"]


class Calls:
    """Calls scripts in Redis, for one link. Any thread.

    `availability` decides how long a call waits: at most a second, and not at all while Redis is unavailable.
    """

    def __init__(self, lock: Lock, queue: SendQueue, availability: Availability, place: str) -> None:
        self._lock = lock
        self._queue = queue
        self._availability = availability
        self._place = place

    def ask(self, question: Question) -> Any:
        """Returns the answer of Redis, or None if Redis is unavailable."""
        availability = self._availability
        with self._lock:
            if availability.answers:
                self._queue.ask(question)
            else:
                question.answered.set()
        if not question.answered.wait(availability.patience_s()):
            availability.answers = False
        return question.answer

    def call(self, question: Question) -> Any:
        """Returns the answer of Redis to a call that changes something.

        Raises `BrokerError`. Its `is_unknown` tells whether Redis may have made the change.
        """
        return self.call_all([question])[0]

    def call_all(self, questions: Sequence[Question]) -> list[Any]:
        """Returns the answers to several calls. Like `call`, but all calls are sent together."""
        availability = self._availability
        with self._lock:
            if self._queue.has_ended or not availability.answers:
                raise BrokerError(f"{self._place} is unavailable, so nothing was changed")
            for question in questions:
                self._queue.ask(question)
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Any:
        availability = self._availability
        is_sent = question.answered.wait(availability.patience_s()) and question.is_sent
        if question.answer is None:
            if not question.answered.is_set():
                availability.answers = False
                with self._lock:
                    is_sent = not self._queue.withdraw(question)
            raise self._not_answered(is_sent)
        return question.answer

    def _not_answered(self, is_sent: bool) -> BrokerError:
        what = "so it is not known whether anything was changed" if is_sent else "so nothing was changed"
        error = BrokerError(f"{self._place} has not answered, {what}")
        error.is_unknown = is_sent
        return error

    def take_seat(self, seat: Seat) -> bool:
        """Ask Redis for a seat. Returns whether Redis has given it. Raises `BrokerError`."""
        availability = self._availability
        with self._lock:
            if self._queue.has_ended or not availability.answers:
                raise BrokerError(f"{self._place} is unavailable, so no session can join a room with max_members now")
            self._queue.ask_seat(seat)
        try:
            is_answered = seat.answered.wait(availability.patience_s())
        finally:  # this must be done even after KeyboardInterrupt
            with self._lock:
                seat.is_given_up = True
        if seat.is_given is not None:
            return seat.is_given
        if not is_answered:
            availability.answers = False
        raise BrokerError(f"the session has not joined the room: {self._place} {seat.problem}")
