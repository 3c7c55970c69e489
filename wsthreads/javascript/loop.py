"""The Python half of the runtime's loop. It passes events to the JavaScript half. `endings` then ends each event.

All functions here run in the isolate's thread, nearly always during a call from JavaScript. The runtime *pulls* its
events. `_current` is the event that the runtime has. It stays until the runtime's next pull reports the event's
outcome, or until an error ends the JavaScript half (`stumbled`). So no event is lost, and none is handled twice. If the
runtime had not enough memory to read an event, the event is passed once more.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from wsthreads.errors import IsolateError
from wsthreads.javascript.call_times import CallTimes
from wsthreads.javascript.calls import Answer, Function
from wsthreads.javascript.endings import Endings
from wsthreads.javascript.message_loop import MessageLoop
from wsthreads.javascript.probes import Probes
from wsthreads.javascript.replies import Replies
from wsthreads.javascript.room_calls import Posts, RoomCalls
from wsthreads.javascript.schedule import NEVER
from wsthreads.javascript.session_state import Event, SessionState, SessionStates
from wsthreads.javascript.stacks import Failure

if TYPE_CHECKING:
    from wsthreads.config import Config
    from wsthreads.javascript.engine import Engine
    from wsthreads.javascript.exports import Exports
    from wsthreads.javascript.fetches import Waits
    from wsthreads.javascript.loader import ModuleLoader
    from wsthreads.javascript.reports import Reports
    from wsthreads.javascript.requests import ScriptRequests
    from wsthreads.javascript.schedule import Schedule
    from wsthreads.monitoring.metrics import Metrics

__all__ = ["FIRST_LOAD", "STOP", "Loop"]

STOP = Event("stop")

#: The ticket of an isolate's first load. Each further load has the next lower number.
FIRST_LOAD = -1
_AGAIN, _TIMER = Event("again"), Event("timer")

_MESSAGES = frozenset(("message", "binary", "request"))

#: The outcome of an event, as the runtime reports it. 0: done. Above 0: the ticket of a pending promise.
_FAILED, _DONE = -1, 0

#: Timers that the promise jobs of these events set belong to these events. Without an engine, the jobs of these events
#: must not run together with other jobs.
_OWNERS = ("load", "timer")

#: How many times in a row the runtime may end before it has pulled an event.
MAX_STUMBLES = 3

#: The top level may run this many times longer than a call. This includes the parsing of all files.
LOAD_FACTOR = 5

#: If less heap than this is free, the isolate ends, because every call would fail.
MIN_FREE_BYTES = 64 * 1024

#: Without an engine, promise jobs may wait this long while events arrive.
JOB_DELAY_S = 0.02


class Loop(MessageLoop):
    """Passes the events of `schedule` to the runtime. `states` has the data of the isolate's sessions."""

    def __init__(
        self,
        name: str,
        schedule: Schedule,
        states: SessionStates,
        config: Config,
        reports: Reports,
        loader: ModuleLoader,
        metrics: Metrics,
        waits: Waits,
        requests: ScriptRequests,
    ) -> None:
        self._schedule = schedule
        self._states = states
        self._timeout_s = config.script_timeout_s
        self._load_s = LOAD_FACTOR * config.script_timeout_s
        #: How long the promise of a call may be pending. This is longer than the time limit of a wait, because the
        #: script may continue after a wait.
        self._wait_s = config.script_wait_s + config.script_timeout_s
        self._waits = waits
        self._loader = loader
        self._reports = reports
        self._times = CallTimes(metrics)
        self._replies = Replies(name, schedule, self._load_s, self._use, lambda: self._current)
        #: The calls for rooms.
        self.rooms = RoomCalls(schedule, reports, loader, self._times, self._wait_s, self._make_room)
        #: The outcomes of posts.
        self.posts = Posts(schedule)
        #: The requests of the script and of its clients.
        self.requests = requests
        self._endings = Endings(
            schedule, states, reports, self._replies, self.rooms, self.posts, requests, waits, self._times, self._wait_s
        )
        #: Measures how long events wait.
        self.probes = Probes(schedule, metrics)
        self._current: Event | None = None
        self._began = 0.0  # when the runtime received the current event
        #: Events that come before all others: the call of onReload, and an event that is passed once more.
        self._first: deque[Event] = deque()
        self._dispatched = 0
        self._stumbles = 0
        self._timer_was_last = False
        self._is_stopping = False
        self._jobs_due: float | None = None  # without an engine: when to leave the interpreter so that promise jobs run
        self.engine: Engine | None = None  # None: there are no deadlines, and promise jobs run only outside of the loop
        #: The last measured size of the script's heap, in bytes. Any thread may read it.
        self.heap_bytes: int | None = None
        self.has_ended = False
        #: Whether the heap is full, and a garbage collection has freed nothing. After that, no event is handled.
        self.is_full = False
        self._must_end = False
        self._inbox, self._event_type, self._message_times = schedule.inbox, Event, None

    def functions(self) -> dict[str, Function]:
        return {
            "pull": self.pull,
            "failed": self._failed,
            "settled": self._settled,
            "loaded": self._loaded,
            **self._replies.functions(),
            **self.rooms.functions(),
        }

    @property
    def is_idle(self) -> bool:
        """Whether no call for a room and no outcome of a post waits for the script. Any thread."""
        return not (self.rooms.waiting or self.posts.waiting)

    def use_engine(self, engine: Engine | None) -> None:
        self.engine = self._replies.engine = engine
        if engine is not None and engine.is_connected:
            self._has_jobs, self._arm = engine.has_jobs, engine.arm
            self._hindrances = (*self._schedule.hindrances, *self._waits.tables, engine.rejected, self._first)

    def _use(self, exports: Exports) -> None:
        """From now on, call the functions that these exports have."""
        self._times.use(exports)
        if self.engine is not None and self.engine.is_connected:
            self._message_times = self._times.of("message")

    def current_state(self) -> SessionState | None:
        """The session whose handler function runs. None in a timer's callback, and after an `await`."""
        return None if self._current is None else self._current.state

    def end_now(self) -> None:
        """Stop the running call, and end the loop. Any thread. The caller must wake the schedule afterwards."""
        self._must_end = True
        engine = self.engine
        if engine is not None:
            engine.interrupt()

    # These methods pass events.

    def _pull(self, dispatched: int, outcome: int, delay_ms: float) -> Answer:
        """The next event for the runtime. None if the runtime must leave the interpreter. Waits at most `delay_ms`.

        A negative `delay_ms` is no limit.

        `dispatched` is how many events the runtime has begun. `outcome` is the outcome of the last one.
        """
        engine = self.engine
        self._stumbles = 0
        self.rooms.flush()
        self._account(outcome, arrived=dispatched != self._dispatched)
        self._dispatched = dispatched
        event = self._next(NEVER if delay_ms < 0 else monotonic() + delay_ms / 1000)
        if event is None:
            if engine is not None:
                engine.disarm()
            return None
        self._current = event
        if event.kind == "handshake":
            self._replies.expect_answer(event)
        if engine is None:
            self._began = monotonic()
            if self._jobs_due is None:
                self._jobs_due = self._began + JOB_DELAY_S
        else:
            self._began = engine.arm(self._load_s if event.kind == "load" else self._timeout_s)
            if engine.is_connected and event.kind == "message" and event.state is not None:
                return (event.kind, event.state.id, event.arguments[0])
            if engine.is_connected and event.kind in ("request", "replied") and type(event.arguments[-1]) is str:
                return (event.kind, event.state and event.state.id, *event.arguments, False)
        if event.kind == "rooms":
            return self.rooms.encoded()
        return self.posts.take() if event.kind == "posted" else event.encoded(engine)

    def _next(self, timer_due: float) -> Event | None:
        """Wait for an event or a timer. If both are due again and again, they alternate."""
        schedule = self._schedule
        calls, fetches = self._waits.tables
        engine = self.engine
        while not self._must_end and not self.is_full:
            jobs_ran = engine is not None and bool(engine.has_jobs() or engine.rejected) and self._run_jobs(engine)
            now = monotonic()
            if schedule.pending_events and schedule.next_expiry <= now:
                self._endings.expire(now)
            if (calls or fetches) and self._waits.next_expiry <= now:
                self._waits.expire(now)
            if self._jobs_due is not None and now >= self._jobs_due:
                break
            if self._first:
                return self._first.popleft()
            if timer_due <= now and not self._timer_was_last:
                if self._jobs_due is not None:
                    break
                self._timer_was_last = True
                return _TIMER
            self._timer_was_last = False
            event = schedule.take()
            if event is None:
                may_end = self._is_stopping and not jobs_ran and self._jobs_due is None
                if may_end and schedule.is_idle and self._waits.is_idle:
                    self.has_ended = True
                    break
                if timer_due <= now:
                    continue
                if jobs_ran:
                    return _AGAIN  # the jobs may have set timers that are due earlier
                if self._jobs_due is not None:
                    break
                wake_up = min(timer_due, schedule.next_expiry, self._waits.next_expiry)
                event = schedule.take(None if wake_up == NEVER else max(0.0, wake_up - now))
            if event is STOP:
                self._is_stopping = True
            elif event is not None and self._is_wanted(event):
                if event.kind in _OWNERS and self._jobs_due is not None:
                    self._first.append(event)
                    break
                return event
        self.has_ended |= self._must_end
        self._jobs_due = None
        return None

    def _run_jobs(self, engine: Engine) -> bool:
        """Run promise jobs and report rejections. Returns false if there were no jobs."""
        ran = engine.has_jobs() and engine.run_jobs(self._load_s if self._replies.is_loading else self._timeout_s)
        if engine.rejected:
            engine.report_rejections(self._timeout_s)
        return ran

    def _is_wanted(self, event: Event) -> bool:
        """Whether an event needs JavaScript.

        If not, this method handles the event.

        The following events need no JavaScript: a probe, a measurement of the heap, a message of a session that is
        over, the result of a call that was given up, and calls for rooms that this process no longer owns.

        A session is over once the application has closed it. Its messages are then dropped. But if the client has
        closed the session, the messages that it sent before are handled.
        """
        state, kind = event.state, event.kind
        if state is not None:
            if kind in _MESSAGES and (state.over or state.was_kicked):
                self._endings.finish(event)
                return False
            if kind == "forget":
                self._replies.forget(state.id)
        elif kind == "measure":
            if event.arguments:
                self.probes.take(event)
            else:
                self.heap_bytes = None if self.engine is None else self.engine.heap_bytes()
            return False
        elif kind == "result":
            return self._waits.settle(event.arguments[0])
        elif kind == "rooms":
            return self.rooms.begin(event)
        return True

    # These methods handle outcomes of events.

    def _account(self, outcome: int, arrived: bool) -> None:
        """Handle the outcome of the current event. `arrived` tells whether the runtime could read the event."""
        event, self._current = self._current, None
        if event is None:
            return
        if event.kind == "message" and outcome == _DONE and arrived:  # the usual case
            self._times.observe("message", monotonic() - self._began)
            self._endings.handled(event)
            return
        if self.engine is None and event.kind in _OWNERS:
            self._jobs_due = 0.0
        if not arrived:
            self._hand_over_again(event)
        elif outcome > 0:
            event = event._replace(began=self._began)
            self._schedule.suspend(event, outcome, monotonic() + self._wait_s)
        elif event.kind == "load":
            self._replies.expect_load(event)
            self._schedule.suspend(event, event.arguments[0], monotonic() + self._wait_s)
        else:
            self._endings.completed(event, failed=outcome == _FAILED, began=self._began)

    def _hand_over_again(self, event: Event) -> None:
        """Pass an event once more. The runtime had no memory to read it, so it had no effect."""
        if event.retried:
            self._endings.give_up(event, Failure.of("there was no memory for it"), self._began)
            return
        if self.engine is not None:
            self.engine.collect_garbage()
        self._first.append(event._replace(retried=True))

    def stumbled(self, failure: Failure) -> None:
        """Handle the end of the JavaScript half of the loop by an error: a call was stopped, or memory ran out.

        Raises `IsolateError` if this happens several times before the runtime has pulled an event.
        """
        self._stumbles += 1
        if self.engine is not None:
            self.engine.disarm()
            self._make_room(failure)
        if failure.was_interrupted and self.engine is not None:
            self._schedule.postpone(self.engine.stopped_after_s)
        event, self._current = self._current, None
        if event is not None and not (event.kind == "rooms" and self.rooms.stop(failure, to_end=self._must_end)):
            if failure.was_interrupted:
                self._endings.stopped(event, failure, self._began, to_end=self._must_end)
            else:
                self._endings.give_up(event, failure, self._began)
        elif self.engine is None and self._jobs_due is None:
            self.uncaught("a promise", failure)  # dukpy reports such a failure when the interpreter returns
        self.has_ended |= self._must_end
        if self._stumbles > MAX_STUMBLES and not self.has_ended:
            raise IsolateError(f"the runtime cannot go on, most likely for lack of memory: {failure.message}")

    def abandon(self) -> None:
        """Give an error to every thread that waits for an event, because the isolate has ended."""
        events = [self._current, *self._first, *self._schedule.drain()]
        self.rooms.abandon(events)
        self.requests.abandon()
        self._replies.abandon(events)

    def uncaught(self, what: str, failure: Failure) -> None:
        """Report an error of a promise job, or of a rejected promise without a handler.

        Such an error belongs to no call of a handler function.
        """
        if self._replies.is_load_error(failure):
            return
        failure = self._loader.tidy(failure)
        if failure.was_interrupted and self.engine is not None:
            self._schedule.postpone(self.engine.stopped_after_s)
            # a top level runs in a promise job; if this job was stopped, the load has failed
            if self._replies.fail_load(failure):
                return
        self._reports.uncaught(what, failure)

    def _make_room(self, failure: Failure) -> None:
        if self.engine is not None and failure.was_out_of_memory:
            self.is_full |= self.engine.collect_garbage() < MIN_FREE_BYTES

    # The runtime calls these methods.

    def _failed(self, what: str, session_id: str | None, described: str, is_known: bool = False) -> None:
        """Report an error that a function of the script has thrown, or with which its promise was rejected.

        With `is_known`, equal failures are logged only once.
        """
        failure = self._loader.tidy(Failure.read(described))
        state = self._states.find(session_id or "") or self._replies.handshake(session_id)
        self._reports.failed(what, state, failure, once=is_known)
        self._make_room(failure)

    def _settled(self, ticket: int, failed: bool) -> None:
        event = self._schedule.settle(ticket)
        if event is not None:
            self._endings.completed(event, failed, self._began)

    def _loaded(
        self, ticket: int, exports: str | None, error: str | None, tick_rate: float | None = None, shown: str = ""
    ) -> bool:
        """End a load of the script.

        `tick_rate` is the exported tickRate if it is a finite number. `shown` is its value as text.
        """
        self._loader.suspended.clear()
        is_loaded = self._replies.loaded(ticket, exports, error, (tick_rate, shown))
        if is_loaded and ticket < FIRST_LOAD:
            self._first.appendleft(Event("reload"))
        return is_loaded
