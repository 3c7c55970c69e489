"""The fast path of a script's loop. It passes a text message on that follows another text message.

`_speedups` has this class in C. There, `pull` itself passes such a message on, as `Loop._pull` would, under four
conditions: the last message was handled, no timer runs, `_hindrances` are empty, and the next message may be handled
now. In all other cases, `pull` calls `_pull`. Only the isolate's thread uses this class. But any thread may set
`_must_end`.
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
    _message_times: Histogram | None  # None if `pull` must always call `_pull`
    _current: Event | None  # the event that the runtime has
    _dispatched: int
    _began: float  # when the runtime received the current event
    _timeout_s: float
    _must_end: bool
    is_full: bool

    def _pull(self, dispatched: int, outcome: int, delay_ms: float) -> Answer:
        """Like `Loop._pull`, which overrides this method."""
        raise NotImplementedError

    def pull(self, dispatched: int, outcome: int, delay_ms: float) -> Answer:
        return self._pull(dispatched, outcome, delay_ms)


if speedups is not None and not TYPE_CHECKING:
    MessageLoop = speedups.MessageLoop
