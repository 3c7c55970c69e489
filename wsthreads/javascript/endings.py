"""Ends events, and tells the threads that wait for them.

An event ends when its call has returned or failed, was stopped, or is given up.

All functions here run in the isolate's thread, and are called by `loop`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from wsthreads.errors import CloseCode
from wsthreads.javascript.session_state import Event, SessionState, SessionStates
from wsthreads.javascript.stacks import Failure

if TYPE_CHECKING:
    from wsthreads.javascript.call_times import CallTimes
    from wsthreads.javascript.fetches import Waits
    from wsthreads.javascript.replies import Replies
    from wsthreads.javascript.reports import Reports
    from wsthreads.javascript.requests import ScriptRequests
    from wsthreads.javascript.room_calls import Posts, RoomCalls
    from wsthreads.javascript.schedule import Schedule

__all__ = ["Endings"]


class Endings:
    """Ends the events of `schedule`. `states` has the data of the isolate's sessions.

    The promise of a call may be pending for at most `wait_s`. The argument `began` of the methods is the time when the
    runtime received the event.
    """

    def __init__(
        self,
        schedule: Schedule,
        states: SessionStates,
        reports: Reports,
        replies: Replies,
        rooms: RoomCalls,
        posts: Posts,
        requests: ScriptRequests,
        waits: Waits,
        times: CallTimes,
        wait_s: float,
    ) -> None:
        self._schedule = schedule
        self._states = states
        self._reports = reports
        self._replies = replies
        self._rooms = rooms
        self._posts = posts
        self._requests = requests
        self._waits = waits
        self._times = times
        self._wait_s = wait_s

    def completed(self, event: Event, failed: bool, began: float) -> None:
        """End an event whose call has ended.

        If onOpen has failed, close the session. After onClose, forget the session.
        """
        state = event.state
        self._times.observe(event.kind, time.monotonic() - (event.began or began))
        if state is None:
            if event.kind == "room":
                self._rooms.completed(event, "failed" if failed else None)
            elif event.kind == "result" and failed:
                self._waits.refuse(event)
        else:
            if event.kind == "open" and failed:
                _close_session(state, "onOpen failed")
            elif event.kind == "close":
                self._states.pop(state.id, None)
                state.end()
                if failed:  # the runtime may not have forgotten the session yet
                    self._schedule.post(Event("forget", state))
        self.finish(event)

    def stopped(self, event: Event, failure: Failure, began: float, *, to_end: bool) -> None:
        """End an event whose call was stopped.

        With `to_end`, the isolate has to end. Otherwise the call has reached its deadline.
        """
        self._reports.stopped(event, failure, to_end=to_end)
        self._overran(event, failure, began)

    def expire(self, now: float) -> None:
        """Give up the promises that have not settled in time, and end their events."""
        while (event := self._schedule.expire(now)) is not None:
            if event.kind == "load":
                message = f"its top level has not ended after {self._wait_s:g} s"
                self._replies.fail(event, 503, Failure.of(message))
            else:
                self._reports.unsettled(event)
                self._overran(event, Failure.of("its promise has not settled in time"), event.began)

    def _overran(self, event: Event, failure: Failure, began: float) -> None:
        _close_session(event.state, "handler timed out")
        self._replies.fail(event, 503, failure)
        if event.kind == "room":
            self._rooms.completed(event, "timeout")
            self.finish(event)
        else:
            self.completed(event, failed=True, began=began)

    def give_up(self, event: Event, failure: Failure, began: float) -> None:
        """End an event that the runtime itself has failed to handle."""
        self._reports.not_handled(event, failure)
        if event.kind == "rooms":
            self._rooms.give_up()
        _close_session(event.state, "handler failed")
        self._replies.fail(event, 500, failure)
        self.completed(event, failed=True, began=began)

    def handled(self, event: Event) -> None:
        """End a text message that was handled without an error or a promise.

        This case of `completed` is the most frequent one.
        """
        state = event.state
        assert state is not None
        state.release(event.size)
        self._schedule.finish(event)

    def finish(self, event: Event) -> None:
        """Finish an event. After that, the next event of the same session may be taken."""
        if event.kind in ("open", "message", "binary") and event.state is not None:
            event.state.release(event.size)
        elif event.kind == "request" and event.state is not None:
            event.state.release(event.size)
            self._requests.finish(event.arguments[0])
        elif event.kind in ("again", "presence") and event.reply is not None and not event.reply.done():
            event.reply.set_result(None)
        elif event.kind == "posted":
            self._posts.waiting.pop()
        self._schedule.finish(event)


def _close_session(state: SessionState | None, reason: str) -> None:
    if state is not None:
        state.close(CloseCode.INTERNAL_ERROR, reason)
