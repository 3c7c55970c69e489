"""Calls ``on_presence`` with the changes in a room.

Timers only mark rooms and queue them. A separate thread calls the handler, without locks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from weakref import finalize

from wsthreads.loggers import get_logger
from wsthreads.protocol.frames import message_frame
from wsthreads.rooms.presence import Presence, PresenceChanges
from wsthreads.rooms.striped import StripedDict
from wsthreads.threads.drainer import RETRY_S, Drainer
from wsthreads.threads.flusher import Timers, weakly

__all__ = ["PresenceReports", "Report", "State", "unless_empty"]

log = get_logger(__name__)

#: A function that calls `on_presence` for a room. It gets the room's name, and returns the message for the members, or
#: None. It never raises.
Report = Callable[[str, PresenceChanges], "str | bytes | None"]


class State:
    """The presence state of one room. Guarded by the stripe lock of the room."""

    __slots__ = ("has_lapse_timer", "is_due", "presence")

    def __init__(self) -> None:
        self.presence = Presence()
        self.is_due = False  # whether a timer, or the thread of the reports, will report the changes
        self.has_lapse_timer = False


def unless_empty(state: State) -> State | None:
    """The state of a room. None if it is empty, and need not be kept."""
    return None if state.presence.is_empty else state


class PresenceReports:
    """Reports the changes in the `states` of all rooms of one endpoint.

    Any thread. The arguments are those of `Roster`.
    """

    def __init__(
        self,
        states: StripedDict[str, State],
        timers: Timers,
        *,
        report: Report,
        broadcast_here: Callable[[str, bytes], None],
        has_members: Callable[[str], bool],
        interval_s: float,
    ) -> None:
        self.timers = timers
        self._states = states
        self._report_to = report
        self._broadcast_here = broadcast_here
        self._has_members = has_members
        self._interval_s = interval_s
        self._thread = Drainer("wsthreads-presence")
        self._has_ended = False
        finalize(self, self._thread.release).atexit = False

    def schedule(self, name: str) -> None:
        """Report the changes of a room after `interval_s`, unless a report is already due."""
        is_first = False

        def mark(state: State) -> State:
            nonlocal is_first
            is_first = not state.is_due and state.presence.has_changes
            state.is_due = state.is_due or is_first
            return state

        self._states.compute_if_present(name, mark)
        if is_first:
            self.timers.call_later(self._interval_s, weakly(self._hand_over, name))

    def _hand_over(self, name: str) -> None:
        if self._has_ended:  # other processes still change the presence in rooms
            return
        try:
            self._thread.go_on(partial(self._report, name))
        except RuntimeError as error:  # no thread can be started now
            log.error("cannot start the thread for on_presence; the call waits for the next attempt: %s", error)
            self.timers.call_later(RETRY_S, weakly(self._hand_over, name))

    def _report(self, name: str) -> bool:
        """Call `on_presence` with the changes of a room, if the room has members in this process."""
        has_members = self._has_members(name)
        changes: PresenceChanges | None = None

        def take(state: State) -> State | None:
            nonlocal changes
            state.is_due = False
            if has_members:
                changes = state.presence.take_changes()
            elif not state.presence.has_persons and not state.presence.is_shown:
                return None  # the room has neither persons nor members
            return unless_empty(state)

        self._states.compute_if_present(name, take)
        if not has_members and self._has_members(name):  # the first member has joined since the check
            self.schedule(name)
        elif not has_members:  # there is no member who needs the changes
            self._states.compute_if_present(name, lambda state: state if state.presence.has_persons else None)
        if changes is not None:
            message = copy_context().run(self._report_to, name, changes)  # context variables end with the call
            if message is not None:
                self._broadcast_here(name, message_frame(message))
        return False  # this room needs no further call

    def settle(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` until the thread has nothing to do.

        Returns False if it still has something to do.
        """
        return self._thread.wait_idle(timeout_s)

    def stop(self, timeout_s: float) -> None:
        """End the thread. Waits at most `timeout_s`. The thread does not start again."""
        self._has_ended = True
        self._thread.stop(timeout_s)
