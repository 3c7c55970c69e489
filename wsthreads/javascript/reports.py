"""What the log and the counters learn of a script's errors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from wsthreads.javascript import stacks
from wsthreads.javascript.visits import Event, Visit
from wsthreads.logs import block

if TYPE_CHECKING:
    from wsthreads.metrics import Metrics

__all__ = ["Reports", "ignore"]

#: The script's function that an event calls.
_HOOKS = {
    "handshake": "onHandshake",
    "open": "onOpen",
    "message": "onMessage",
    "binary": "onMessage",
    "close": "onClose",
    "timer": "a timer's callback",
}


def ignore(text: str) -> None:
    """What is told of errors where nobody wants to know."""


class Reports:
    """Writes to `log`, the script's, and counts: each error once, as one of three counters.

    `on_failure` is told of each, too: the text that was logged.
    """

    def __init__(
        self, log: logging.Logger, metrics: Metrics, timeout_s: float, on_failure: Callable[[str], None] = ignore
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._on_failure = on_failure
        self._logged_once: set[str] = set()

    def failed(self, what: str, visit: Visit | None, text: str, *, once: bool = False) -> None:
        """A function of the script's threw, or its promise was rejected. `once`: log the same text only once."""
        if once:
            if text in self._logged_once:
                self._metrics.add("handler_errors")
                self._on_failure(f"{what} failed: {text}")
                return
            self._logged_once.add(text)
        counter = "script_timeouts" if stacks.was_interrupted(text) else "handler_errors"
        where = f" in session {visit.id}" if visit is not None and visit.session is not None else ""
        self._report(counter, visit, "%s failed%s: %s", what, where, text)

    def not_handled(self, event: Event, text: str) -> None:
        """The runtime itself failed at the event."""
        self._report("handler_errors", event.visit, "%s could not be handled: %s", _name_of(event), text)

    def stopped(self, event: Event, text: str) -> None:
        """The event's call was stopped at its deadline."""
        self._report(
            "script_timeouts",
            event.visit,
            "%s was stopped after %g s%s",
            _name_of(event),
            self._timeout_s,
            stacks.below(text),
        )

    def stopped_to_end(self, event: Event, text: str) -> None:
        """The event's call was stopped because the isolate must end."""
        self._report(
            "script_timeouts",
            event.visit,
            "%s was stopped, as the isolate is to end%s",
            _name_of(event),
            stacks.below(text),
        )

    def unsettled(self, event: Event) -> None:
        """The event's promise is pending past its deadline."""
        self._report(
            "script_timeouts",
            event.visit,
            "%s returned a promise that has not settled in %g s",
            _name_of(event),
            self._timeout_s,
        )

    def uncaught(self, what: str, text: str) -> None:
        """An error that no handler call is to blame for: of a promise nobody waits for, or of a promise job."""
        if stacks.was_interrupted(text):
            below = stacks.below(text)
            self._report("script_timeouts", None, "%s was stopped after %g s%s", what, self._timeout_s, below)
        else:
            self._report("unhandled_rejections", None, "error in %s that nobody handles: %s", what, text)

    def _report(self, counter: str, visit: Visit | None, form: str, *values: object) -> None:
        """Log an error whose text may hold anything that a client has sent."""
        text = form % values
        self._metrics.add(counter)
        context = {} if visit is None else visit.log_context
        shown = block(text)
        context.update(stacks.place_fields(text), stack=stacks.stack_in(shown))
        self._log.error("%s", shown, extra=context)
        self._on_failure(text)


def _name_of(event: Event) -> str:
    what = _HOOKS.get(event.kind, event.kind)
    return what if event.visit is None else f"{what} in session {event.visit.id}"
