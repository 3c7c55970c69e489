"""Reports a script's errors: in the log, in the counters, and to the handler."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from wsthreads.javascript.exports import CALLS, ROOM_CALLS
from wsthreads.javascript.session_state import Event, SessionState
from wsthreads.javascript.stacks import Failure

if TYPE_CHECKING:
    from wsthreads.loggers import ContainedLogger
    from wsthreads.monitoring.metrics import Metrics

__all__ = ["Reports", "ignore"]


def ignore(text: str) -> None:
    """The default of `on_failure`. Does nothing."""


class Reports:
    """Writes each error to `log`, the script's logger, and counts it in one of three counters.

    A call may run for `timeout_s`, and its promise may be pending for `wait_s`. `modules` has the ids of the script's
    files. `on_failure` is called with each text that was logged.
    """

    def __init__(
        self,
        log: ContainedLogger,
        metrics: Metrics,
        timeout_s: float,
        wait_s: float,
        modules: Collection[str],
        on_failure: Callable[[str], None] = ignore,
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._wait_s = wait_s
        self._modules = modules
        self._on_failure = on_failure
        self._logged_once: set[Failure] = set()

    def failed(
        self, what: str, state: SessionState | None, failure: Failure, *, room: str | None = None, once: bool = False
    ) -> None:
        """Report an error that a function of the script has thrown, or with which its promise was rejected.

        With `once`, equal failures are logged only once.
        """
        if once:
            if failure in self._logged_once:
                self._metrics.add("handler_errors")
                self._on_failure(f"{what} failed: {failure.message}")
                return
            self._logged_once.add(failure)
        counter = "script_timeouts" if failure.was_interrupted else "handler_errors"
        where = f" in session {state.id}" if state is not None and state.session is not None else ""
        if room is not None:
            where = f" in room {room!r:.80}"
        self._report(counter, state, f"{what} failed{where}: ", failure)

    def not_handled(self, event: Event, failure: Failure) -> None:
        """Report that the runtime itself failed to handle an event."""
        self._report("handler_errors", event.state, f"{_name_of(event)} could not be handled: ", failure)

    def stopped(self, event: Event, failure: Failure, *, to_end: bool) -> None:
        """Report that the call of an event was stopped, at its deadline or because memory ran out.

        With `to_end`, it was stopped because the isolate must end.
        """
        if not failure.was_interrupted:
            self.not_handled(event, failure)
        elif to_end:
            if event.kind not in _SCRIPT_EVENTS:
                return  # this is an event of the runtime itself, such as the end of a load that was given up
            message = f"{_name_of(event)} was stopped, because the script is shut down"
            self._report("script_timeouts", event.state, "", failure.saying(message))
        else:
            self._stopped(event.state, _name_of(event), failure)

    def unsettled(self, event: Event) -> None:
        """Report that the promise of an event was still pending at its deadline."""
        message = f"{_name_of(event)} returned a promise that has not settled in {self._wait_s:g} s (script_wait_s)"
        self._report("script_timeouts", event.state, "", Failure.of(message))

    def uncaught(self, what: str, failure: Failure) -> None:
        """Report an error of a promise job, or of a rejected promise without a handler.

        Such an error belongs to no call of a handler function.
        """
        if failure.was_interrupted:
            self._stopped(None, what, failure)
        else:
            self._report("unhandled_rejections", None, f"unhandled error in {what}: ", failure)

    def _stopped(self, state: SessionState | None, what: str, failure: Failure) -> None:
        message = f"{what} was stopped after {self._timeout_s:g} s (script_timeout_s)"
        self._report("script_timeouts", state, "", failure.saying(message))

    def _report(self, counter: str, state: SessionState | None, before: str, failure: Failure) -> None:
        """Log and count an error. Its message may contain anything that a client has sent."""
        self._metrics.add(counter)
        message, stack = failure.shown(before)
        text = f"{message}\n{stack}" if stack else message
        context = {} if state is None else state.log_context
        context.update(failure.fields(self._modules), stack=stack)
        self._log.error("%s", text, extra=context)
        self._on_failure(text)


#: The kinds of events that run code of the script.
_SCRIPT_EVENTS = frozenset((*CALLS, "room", "rooms", "timer", "load", "result", "replied", "posted"))


def _name_of(event: Event) -> str:
    if event.kind == "rooms" and len(event.arguments) != 1:
        return f"one of {len(event.arguments)} calls for rooms"
    if event.kind in ("room", "rooms"):
        call = event.arguments[0]
        return f"{ROOM_CALLS[call.kind]} in room {call.room.name!r:.80}"
    what = "a timer's callback" if event.kind == "timer" else CALLS.get(event.kind, event.kind)
    return what if event.state is None else f"{what} in session {event.state.id}"
