"""What the log and the counters learn of a script's errors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from wsthreads.javascript import stacks
from wsthreads.javascript.visits import Event
from wsthreads.logs import block

if TYPE_CHECKING:
    from wsthreads.metrics import Metrics

__all__ = ["Reports"]

#: The script's function that an event calls.
_HOOKS = {
    "handshake": "onHandshake",
    "open": "onOpen",
    "message": "onMessage",
    "binary": "onMessage",
    "close": "onClose",
    "timer": "a timer's callback",
}


class Reports:
    """Writes to `log`, the script's, and counts: each error once, as one of three counters."""

    def __init__(self, log: logging.Logger, metrics: Metrics, timeout_s: float) -> None:
        self._log = log
        self._metrics = metrics
        self._timeout_s = timeout_s

    def failed(self, what: str, session_id: str | None, text: str) -> None:
        """A function of the script's threw, or its promise was rejected."""
        self._metrics.add("script_timeouts" if stacks.was_interrupted(text) else "handler_errors")
        self._error("%s failed%s: %s", what, f" in session {session_id}" if session_id else "", text)

    def not_handled(self, event: Event, text: str) -> None:
        """The runtime itself failed at the event."""
        self._metrics.add("handler_errors")
        self._error("%s could not be handled: %s", _name_of(event), text)

    def stopped(self, event: Event, text: str) -> None:
        """The event's call was stopped at its deadline."""
        self._metrics.add("script_timeouts")
        self._error("%s was stopped after %g s%s", _name_of(event), self._timeout_s, stacks.below(text))

    def stopped_to_end(self, event: Event, text: str) -> None:
        """The event's call was stopped because the isolate must end."""
        self._metrics.add("script_timeouts")
        self._error("%s was stopped, as the isolate is to end%s", _name_of(event), stacks.below(text))

    def unsettled(self, event: Event) -> None:
        """The event's promise is pending past its deadline."""
        self._metrics.add("script_timeouts")
        self._error("%s returned a promise that has not settled in %g s", _name_of(event), self._timeout_s)

    def uncaught(self, what: str, text: str) -> None:
        """An error that no handler call is to blame for: of a promise nobody waits for, or of a promise job."""
        if stacks.was_interrupted(text):
            self._metrics.add("script_timeouts")
            self._error("%s was stopped after %g s%s", what, self._timeout_s, stacks.below(text))
        else:
            self._metrics.add("unhandled_rejections")
            self._error("error in %s that nobody handles: %s", what, text)

    def _error(self, text: str, *arguments: object) -> None:
        """Log an error whose text may hold anything that a client has sent."""
        self._log.error("%s", block(text % arguments))


def _name_of(event: Event) -> str:
    what = _HOOKS.get(event.kind, event.kind)
    return what if event.visit is None else f"{what} in session {event.visit.id}"
