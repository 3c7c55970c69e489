"""Answers the threads that wait for an event, such as a handshake, a load of the script, or a look at attributes.

All functions here run in the isolate's thread. An event for which a thread waits has a `reply`, which is a future. Each
future gets exactly one result: an answer of the script, a failure, or the end of the isolate.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from wsthreads.errors import HandlerError, HandshakeRefused, IsolateError, UsageError
from wsthreads.javascript.calls import Function
from wsthreads.javascript.engine import JavaScriptError
from wsthreads.javascript.exports import Exports
from wsthreads.javascript.session_state import Event
from wsthreads.javascript.stacks import Failure
from wsthreads.javascript.values import message_from
from wsthreads.threads.lookups import look_up

if TYPE_CHECKING:
    from wsthreads.javascript.engine import Engine
    from wsthreads.javascript.schedule import Schedule
    from wsthreads.javascript.session_state import SessionState
    from wsthreads.protocol.handshake import Request

__all__ = ["Replies"]


class Replies:
    """Answers threads that wait. `on_load(exports)` is called before the thread that loads the script gets its answer.

    A top level may run for `load_s`. `current` returns the event that the runtime has now.
    """

    def __init__(
        self,
        name: str,
        schedule: Schedule,
        load_s: float,
        on_load: Callable[[Exports], None],
        current: Callable[[], Event | None],
    ) -> None:
        self._name = name
        self._schedule = schedule
        self._load_s = load_s
        self._on_load = on_load
        self._current = current
        self.engine: Engine | None = None
        self._handshakes: dict[str, Event] = {}  # handshakes without an answer, by session id
        self._loading: Event | None = None  # the last load of the script
        self._load_error: Failure | None = None

    def functions(self) -> dict[str, Function]:
        return {
            "answer": self._answer,
            "set_user": self._set_user,
            "set_request_expiry": self._set_request_expiry,
            "looked": self._looked,
            "presented": self._presented,
            "exported": self._exported,
        }

    def expect_answer(self, event: Event) -> None:
        """Note that a handshake was passed to the script."""
        if event.state is not None:
            self._handshakes[event.state.id] = event

    def forget(self, session_id: str) -> None:
        self._handshakes.pop(session_id, None)

    def handshake(self, session_id: str | None) -> SessionState | None:
        """The data of the handshake with this id. None if the handshake already has its answer."""
        event = look_up(self._handshakes, session_id or "")
        return None if event is None else event.state

    def _set_user(self, session_id: str, name: str | None) -> None:
        self._request(session_id, "setUser").user = name

    def _set_request_expiry(self, session_id: str, unix_s: float) -> None:
        self._request(session_id, "setExpiry").set_expiry(unix_s)

    def _request(self, session_id: str, method: str) -> Request:
        """The request of a handshake without an answer."""
        state = self.handshake(session_id)
        if state is None or state.request is None:
            raise UsageError(f"request.{method}() must be called before onHandshake has returned")
        return state.request

    def _answer(self, session_id: str, allowed: bool, value: Any, other: str | None = None) -> None:
        """Answer a handshake. Called by the runtime.

        If `allowed`, onHandshake has returned `value`, or if that cannot be passed, `other` in JSON. `verdict_of` gets
        this value. Otherwise onHandshake has failed.
        """
        event = self._handshakes.pop(session_id, None)
        if event is not None and event.reply is not None:
            if allowed:
                event.reply.set_result(value if other is None else json.loads(other))
            else:
                event.reply.set_exception(HandshakeRefused(500, "the handler failed", cause="handler_failed"))

    def _looked(self, entries: str) -> None:
        """Return a session's attributes.

        `entries` is a JSON list with three texts for each attribute: name, kind ("text" or "other"), and value.
        """
        event = self._current()
        if event is not None and event.reply is not None and not event.reply.done():
            texts = json.loads(entries)
            triples = zip(texts[::3], texts[1::3], texts[2::3], strict=True)
            event.reply.set_result([(name, kind == "text", text) for name, kind, text in triples])

    def _exported(self, attributes: str | None, why: str | None) -> None:
        """Return a session's attributes in JSON, or `why` they cannot be converted to JSON."""
        event = self._current()
        if event is not None and event.reply is not None and not event.reply.done():
            if attributes is not None:
                try:
                    if isinstance(json.loads(attributes), dict):
                        event.reply.set_result(attributes)
                        return
                except ValueError:  # the script has changed how its objects become JSON
                    why = "the attributes are not JSON"
            event.reply.set_exception(UsageError(why or "the attributes are not JSON"))

    def _presented(self, message: str | None, is_binary: bool, ticket: int) -> None:
        """Return the result of onPresence.

        The result is that of the current call, or of the call whose promise has this ticket.
        """
        event = self._schedule.pending(ticket) if ticket else self._current()
        if event is not None and event.reply is not None:
            event.reply.set_result(message_from(self.engine, message, is_binary))

    # These methods are for loads of the script. A load is suspended in the schedule, under its ticket, until its top
    # level has run.

    def expect_load(self, event: Event) -> None:
        """Note that the runtime has begun to load the script."""
        self._loading = event

    def loaded(
        self, ticket: int, exports: str | None, error: str | None, tick_rate: tuple[float | None, str] = (None, "")
    ) -> bool:
        """End a load: the module has run or failed. Returns whether its functions are to be called from now on.

        `exports` is a JSON list of names. Each name is followed by its `typeof`. `tick_rate` is as in `Exports.read`.
        """
        event = self._schedule.settle(ticket)
        if event is None or event.reply is None:
            return False
        if exports is None:
            failure = self._load_error = Failure.read(error or '["",""]')
            self.fail(event, 500, failure)
            return False
        try:
            texts = json.loads(exports)
            found = Exports.read(self._name, zip(texts[::2], texts[1::2], strict=True), tick_rate)
        except HandlerError as problem:
            event.reply.set_exception(problem)
            return False
        self._on_load(found)
        event.reply.set_result(found)
        return True

    @property
    def is_loading(self) -> bool:
        """Whether a top level has begun and has not ended."""
        return self._loading is not None and self._schedule.pending(self._loading.arguments[0]) is not None

    def is_load_error(self, failure: Failure) -> bool:
        """Whether this failure was already the answer to the last load. The engine reports such a failure twice."""
        is_it = failure == self._load_error
        if is_it:
            self._load_error = None
        return is_it

    def fail_load(self, failure: Failure) -> bool:
        """Fail the pending load, because a promise job was stopped.

        If a load is pending, the job was the load's top level. Returns whether a load was pending.
        """
        loading = self._loading
        if loading is None or not self._schedule.settle(loading.arguments[0]):
            return False
        self.fail(loading, 503, failure)
        return True

    # These methods handle failures.

    def fail(self, event: Event, status: int, failure: Failure) -> None:
        """Tell the waiting thread that the event has failed. Does nothing if the thread has its answer already."""
        if event.reply is None or event.reply.done():
            return
        if event.kind == "handshake" and event.state is not None:
            self.forget(event.state.id)
            reason, cause = "the handler failed", "handler_failed"
            if status == 503:
                reason, cause = "the handler timed out", "handler_timeout"
            event.reply.set_exception(HandshakeRefused(status, reason, cause=cause))
        else:
            if failure.was_interrupted:
                failure = failure.saying(f"its top level was stopped after {self._load_s:g} s")
            if event.kind == "load":
                self._schedule.post(Event("refuse", None, (event.arguments[0],)))
            event.reply.set_exception(JavaScriptError(failure))

    def abandon(self, events: Iterable[Event | None]) -> None:
        """Answer `events` and all handshakes with an error, because the isolate has ended."""
        for event in [*events, *self._handshakes.values()]:
            if event is not None and event.reply is not None and not event.reply.done():
                event.reply.set_exception(IsolateError(f"the interpreter of {self._name} has ended"))
