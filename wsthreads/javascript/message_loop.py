"""What a script's loop reads and writes for the usual event: a text message that follows one.

`_speedups` has the class in C. There, `pull` hands out such a message by itself, as `Loop._pull` would: if the last
message was handled, no timer runs, `_hindrances` are empty, and the next message may be handled now. Everything else is
left to `_pull`. Only the isolate's thread uses it, but any thread may set `_must_end`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsthreads._native import speedups

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from wsthreads.javascript.calls import Answer
    from wsthreads.javascript.session_state import Event
    from wsthreads.monitoring.metrics import Histogram

__all__ = ["MessageLoop"]


class MessageLoop:
    _inbox: Any
    _event_type: type[Event]
    _hindrances: tuple[Sized, ...]
    _has_jobs: Callable[[], bool]
    _arm: Callable[[float], float]
    _message_times: Histogram | None  # None: `_pull` does all
    _current: Event | None  # what the runtime has
    _dispatched: int
    _began: float  # when the runtime received it
    _timeout_s: float
    _must_end: bool
    is_full: bool

    def _pull(self, dispatched: int, outcome: int, delay_ms: float) -> Answer:
        """See `Loop`."""
        raise NotImplementedError

    def pull(self, dispatched: int, outcome: int, delay_ms: float) -> Answer:
        return self._pull(dispatched, outcome, delay_ms)


if speedups is not None and not TYPE_CHECKING:
    MessageLoop = speedups.MessageLoop
