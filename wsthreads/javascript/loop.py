"""The Python half of the runtime's loop: passes events to the JavaScript half. `endings` then ends each event.

Everything here runs in the isolate's thread, nearly all of it inside a call from JavaScript. The runtime *pulls* its
events. `_current` is the event that the runtime has, until the runtime's next pull reports the event's outcome, or
until an error ends the JavaScript half (`stumbled`). So no event is lost, and none is handled twice. If the runtime
could not read an event, for lack of memory, the event is tried once more.
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

#: The ticket of an isolate's first load; each further load has the next lower number.
FIRST_LOAD = -1
_AGAIN, _TIMER = Event("again"), Event("timer")

_MESSAGES = frozenset(("message", "binary", "request"))

#: The outcome of an event, as the runtime reports it: 0 for done, above 0 for the ticket of a pending promise.
_FAILED, _DONE = -1, 0

#: Timers that are set in the promise jobs of these events belong to these events. Without an engine, their jobs must
#: not run together with other jobs.
_OWNERS = ("load", "timer")

#: How many times in a row the runtime may end without having pulled an event.
MAX_STUMBLES = 3

#: How many times longer than a call the top level may run, including the parsing of all files.
LOAD_FACTOR = 5

#: With less free heap than this, the isolate ends, because every call would fail.
MIN_FREE_BYTES = 64 * 1024

#: Without an engine, how long promise jobs may wait while events keep coming.
JOB_DELAY_S = 0.02


class Loop(MessageLoop):
    """Passes the events of `schedule` to the runtime. `states` has the sessions of the isolate."""

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
        #: How long a promise of a call may be pending: longer than the limit of a wait, because the script may continue
        #: after a wait.
        self._wait_s = config.script_wait_s + config.script_timeout_s
        self._waits = waits
        self._loader = loader
        self._reports = reports
        self._times = CallTimes(metrics)
        self._replies = Replies(name, schedule, self._load_s, self._use, lambda: self._current)
        #: The functions of rooms.
        self.rooms = RoomCalls(schedule, reports, loader, self._times, self._wait_s, self._make_room)
        #: The outcomes of posts.
        self.posts = Posts(schedule)
        #: The requests of the script and of its clients.
        self.requests = requests
        self._endings = Endings(
            schedule, states, reports, self._replies, self.rooms, self.posts, requests, waits, self._times, self._wait_s
        )
        #: How long events wait.
        self.probes = Probes(schedule, metrics)
        self._current: Event | None = None
        self._began = 0.0  # when the runtime received the current event
        #: Events that come before all others: the call of onReload, and an event to try again.
        self._first: deque[Event] = deque()
        self._dispatched = 0
        self._stumbles = 0
        self._timer_was_last = False
        self._is_stopping = False
        self._jobs_due: float | None = None  # without an engine: when to leave the interpreter so that promise jobs run
        self.engine: Engine | None = None  # None: no deadlines, and promise jobs run only outside of the loop
        #: The last measured size of the script's heap, in bytes. Any thread.
        self.heap_bytes: int | None = None
        self.has_ended = False
        #: Whether the heap is full, and a garbage collection did not help. Then no more events are handled.
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
        """Whether no calls for rooms and no outcomes of posts wait. Any thread."""
        return not (self.rooms.waiting or self.posts.waiting)

    def use_engine(self, engine: Engine | None) -> None:
        self.engine = self._replies.engine = engine
        if engine is not None and engine.is_connected:
            self._has_jobs, self._arm = engine.has_jobs, engine.arm
            self._hindrances = (*self._schedule.hindrances, *self._waits.tables, engine.rejected, self._first)

    def _use(self, exports: Exports) -> None:
        """Call these functions from now on."""
        self._times.use(exports)
        if self.engine is not None and self.engine.is_connected:
            self._message_times = self._times.of("message")

    def current_state(self) -> SessionState | None:
        """The session whose handler function runs. None in a timer's callback, and after an `await`."""
        return None if self._current is None else self._current.state

    def end_now(self) -> None:
        """Stop the running call, and end. Any thread. The caller must wake the schedule afterwards."""
        self._must_end = True
        engine = self.engine
        if engine is not None:
            engine.interrupt()

    # Passing events.

    def _pull(self, dispatched: int, outcome: int, delay_ms: float) -> Answer:
        """The next event. Waits at most `delay_ms` (negative: no limit). None: the runtime must leave the interpreter.

        `dispatched` counts the events that the runtime has begun, `outcome` is the outcome of the last one.
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
        """Wait for an event or a timer. If both are due, they take turns."""
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
        """Run promise jobs and report rejections. False if there were no jobs."""
        ran = engine.has_jobs() and engine.run_jobs(self._load_s if self._replies.is_loading else self._timeout_s)
        if engine.rejected:
            engine.report_rejections(self._timeout_s)
        return ran

    def _is_wanted(self, event: Event) -> bool:
        """Whether an event needs JavaScript.

        The following do not: a probe, a measurement of the heap, a message of a session that is over, the result of a
        call that was given up, calls for rooms that this process no longer owns.

        A session is over once the application has closed it; its messages are dropped. Messages that a client sent
        before it closed the session itself are handled.
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

    # Outcomes of events.

    def _account(self, outcome: int, arrived: bool) -> None:
        """Record the outcome of the current event. `arrived`: whether the runtime could read the event."""
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
        """The runtime had no memory to read the event, so the event had no effect: try it once more."""
        if event.retried:
            self._endings.give_up(event, Failure.of("there was no memory for it"), self._began)
            return
        if self.engine is not None:
            self.engine.collect_garbage()
        self._first.append(event._replace(retried=True))

    def stumbled(self, failure: Failure) -> None:
        """The JavaScript half of the loop has ended with this error: at a deadline, or out of memory.

        Raises `IsolateError` if this happens several times without an event in between.
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
            self.uncaught("a promise", failure)  # dukpy's report on leaving the interpreter
        self.has_ended |= self._must_end
        if self._stumbles > MAX_STUMBLES and not self.has_ended:
            raise IsolateError(f"the runtime cannot go on, most likely for lack of memory: {failure.message}")

    def abandon(self) -> None:
        """The isolate has ended: give an error to every thread that waits for an event."""
        events = [self._current, *self._first, *self._schedule.drain()]
        self.rooms.abandon(events)
        self.requests.abandon()
        self._replies.abandon(events)

    def uncaught(self, what: str, failure: Failure) -> None:
        """Report an error that belongs to no handler call: of a promise without a handler, or of a promise job."""
        if self._replies.is_load_error(failure):
            return
        failure = self._loader.tidy(failure)
        if failure.was_interrupted and self.engine is not None:
            self._schedule.postpone(self.engine.stopped_after_s)
            if self._replies.fail_load(failure):  # a top level runs in a job: if that was stopped, the load has failed
                return
        self._reports.uncaught(what, failure)

    def _make_room(self, failure: Failure) -> None:
        if self.engine is not None and failure.was_out_of_memory:
            self.is_full |= self.engine.collect_garbage() < MIN_FREE_BYTES

    # Called by the runtime.

    def _failed(self, what: str, session_id: str | None, described: str, is_known: bool = False) -> None:
        """A function of the script threw, or its promise was rejected. `is_known`: log equal failures only once."""
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
        """A load has ended.

        `tick_rate` is the exported tickRate if it is a finite number, `shown` its value as text.
        """
        self._loader.suspended.clear()
        is_loaded = self._replies.loaded(ticket, exports, error, (tick_rate, shown))
        if is_loaded and ticket < FIRST_LOAD:
            self._first.appendleft(Event("reload"))
        return is_loaded
