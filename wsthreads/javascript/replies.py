"""Answers for the threads that wait for an event: a handshake, a load of the script, a look at a session.

Everything here runs in the isolate's thread. An event that somebody waits for has a `reply`, a future. Each future gets
exactly one result, whatever happens to the event: an answer of the script, a failure, or the end of the isolate.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from wsthreads.errors import HandlerError, HandshakeRefused, IsolateError
from wsthreads.javascript.engine import JavaScriptError
from wsthreads.javascript.exports import Exports
from wsthreads.javascript.session_state import Event
from wsthreads.javascript.stacks import Failure

if TYPE_CHECKING:
    from wsthreads.javascript.schedule import Schedule
    from wsthreads.javascript.session_state import SessionState

__all__ = ["Replies"]


class Replies:
    """`on_load(exports)` is called before the thread that loads the script gets its answer."""

    def __init__(self, name: str, schedule: Schedule, timeout_s: float, on_load: Callable[[Exports], None]) -> None:
        self._name = name
        self._schedule = schedule
        self._timeout_s = timeout_s
        self._on_load = on_load
        self._handshakes: dict[str, Event] = {}  # by session id: handshakes without an answer yet
        self._loading: Event | None = None  # the last load of the script
        self._load_error: Failure | None = None

    def expect_answer(self, event: Event) -> None:
        """A handshake was handed to the script."""
        if event.state is not None:
            self._handshakes[event.state.id] = event

    def forget(self, session_id: str) -> None:
        self._handshakes.pop(session_id, None)

    def handshake(self, session_id: str | None) -> SessionState | None:
        """The handshake of this id, if it has no answer yet."""
        event = self._handshakes.get(session_id or "")
        return None if event is None else event.state

    def answer(self, session_id: str, allowed: bool, value: Any, other: str | None = None) -> None:
        """onHandshake returned `value`, or, in JSON, `other`, for `verdict_of`; or it threw. Called by the runtime."""
        event = self._handshakes.pop(session_id, None)
        if event is not None and event.reply is not None:
            if allowed:
                event.reply.set_result(value if other is None else json.loads(other))
            else:
                event.reply.set_exception(HandshakeRefused(500, "the handler failed", cause="handler_failed"))

    def looked(self, event: Event, entries: str) -> None:
        """A session's attributes, in JSON: name, kind ("text" or "other"), value as text."""
        if event.reply is not None and not event.reply.done():
            texts = json.loads(entries)
            triples = zip(texts[::3], texts[1::3], texts[2::3], strict=True)
            event.reply.set_result([(name, kind == "text", text) for name, kind, text in triples])

    # Loading the script. A load stays suspended in the schedule, under its ticket, until its top level has run.

    def expect_load(self, event: Event) -> None:
        """The runtime has begun to load the script."""
        self._loading = event

    def loaded(self, ticket: int, exports: str | None, error: str | None) -> bool:
        """The script's module has run, or failed. True: its functions are called from now on.

        `exports` alternates names and the `typeof` of each, in JSON.
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
            found = Exports.read(self._name, zip(texts[::2], texts[1::2], strict=True))
        except HandlerError as problem:
            event.reply.set_exception(problem)
            return False
        self._on_load(found)
        event.reply.set_result(found)
        return True

    def is_load_error(self, failure: Failure) -> bool:
        """Whether this failure was the answer to the last load. The engine reports it a second time."""
        is_it = failure == self._load_error
        if is_it:
            self._load_error = None
        return is_it

    def fail_load(self, failure: Failure) -> bool:
        """A promise job was stopped: if a load is pending, it was its top level. True if the load has failed so."""
        loading = self._loading
        if loading is None or not self._schedule.settle(loading.arguments[0]):
            return False
        self.fail(loading, 503, failure)
        return True

    # Failures.

    def fail(self, event: Event, status: int, failure: Failure) -> None:
        """The event failed: tell the waiting thread, unless it has its answer (an event may fail after that)."""
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
                failure = failure.saying(f"its top level was stopped after {self._timeout_s:g} s")
            if event.kind == "load":
                self._schedule.post(Event("refuse", None, (event.arguments[0],)))
            event.reply.set_exception(JavaScriptError(failure))

    def abandon(self, events: Iterable[Event | None]) -> None:
        """The isolate has ended: give `events`, and all handshakes, an error as their answer."""
        for event in [*events, *self._handshakes.values()]:
            if event is not None and event.reply is not None and not event.reply.done():
                event.reply.set_exception(IsolateError(f"the interpreter of {self._name} has ended"))
