"""Calls a script's functions for rooms: onRoomStart, onPost, onTick and onRoomEnd.

Also passes the outcomes of ``room.post()`` to the script.

One event has a *batch* of calls, for many rooms, because an event for each call would cost more than a short onTick.
The runtime ends a batch after some milliseconds. The rest of the batch is queued again, after the other events. If the
promise of a call is pending, no other room has to wait for it. Only the later calls for the same room wait here until
the promise has settled.

Each call is `done` exactly once, even after errors (see `wsthreads.rooms.ownership.RoomCall`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from wsthreads.javascript.calls import Answer, Function
from wsthreads.javascript.exports import ROOM_CALLS
from wsthreads.javascript.session_state import Event
from wsthreads.javascript.stacks import Failure

if TYPE_CHECKING:
    from wsthreads.javascript.call_times import CallTimes
    from wsthreads.javascript.loader import ModuleLoader
    from wsthreads.javascript.reports import Reports
    from wsthreads.javascript.schedule import Schedule
    from wsthreads.rooms.mailboxes import RoomCall

__all__ = ["Posts", "RoomCalls"]

#: The numbers that the runtime uses for the kinds of calls.
_NUMBERS = {kind: number for number, kind in enumerate(ROOM_CALLS)}


class Posts:
    """The outcomes of posts, for the script. One event passes many of them."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._settled: deque[tuple[int, str | None, bool]] = deque()
        self._is_told = False  # whether an event for these outcomes was posted, which the script has not received
        #: Has an element for each event whose outcomes the script has not received.
        self.waiting: deque[None] = deque()

    def settle(self, number: int, error: Exception | None) -> None:
        """Note that the post with this number was handled, or has failed. Any thread."""
        self._settled.append((number, None if error is None else str(error), getattr(error, "is_unknown", False)))
        if not self._is_told:
            self._is_told = True
            self.waiting.append(None)
            self._schedule.post(Event("posted"))

    def take(self) -> tuple[Any, ...]:
        """Make the event for the runtime. Called in the isolate's thread."""
        self._is_told = False  # before the outcomes are taken, so that a new outcome posts another event
        event: list[Any] = ["posted", None]
        while self._settled:
            event += self._settled.popleft()
        return tuple(event)


class RoomCalls:
    """The calls for rooms. Any thread may call `post`. Only the isolate's thread calls the other methods.

    `make_room` is called with each error of the script. `make_room` frees memory if the heap is full.
    """

    def __init__(
        self,
        schedule: Schedule,
        reports: Reports,
        loader: ModuleLoader,
        times: CallTimes,
        wait_s: float,
        make_room: Callable[[Failure], None],
    ) -> None:
        self._schedule = schedule
        self._reports = reports
        self._loader = loader
        self._times = times
        self._wait_s = wait_s
        self._make_room = make_room
        #: Has an element for each event with calls that have not begun, or have just begun.
        self.waiting: deque[None] = deque()
        # the calls that the runtime has, until it reports how many of them it began
        self._batch: Sequence[RoomCall] = ()
        self._handed_over = 0.0
        self._failed: dict[int, str] = {}  # the calls of the batch that have thrown: their errors, by index
        self._pending: dict[int, int] = {}  # the calls of the batch whose promise is pending: their tickets, by index
        # the calls of the batch that were not short: their durations in seconds, by index
        self._slow: dict[int, float] = {}
        # the later calls for a room, by the ticket of the room's pending call
        self._held: dict[int, list[RoomCall]] = {}
        self._cut: tuple[Failure, bool] | None = None  # the arguments of `stop`, if it was called for this batch

    def functions(self) -> dict[str, Function]:
        return {
            "rooms_ran": self._ran,
            "room_failed": self._room_failed,
            "room_pending": self._room_pending,
            "room_took": self._room_took,
        }

    def post(self, calls: Sequence[RoomCall]) -> None:
        self.waiting.append(None)
        self._schedule.post(Event("rooms", None, tuple(calls)))

    # For a batch, these are called in turn: `begin`, `encoded`, the methods that the runtime calls, and `_ran`. If the
    # runtime is stopped, `stop` is called before `_ran`.

    def begin(self, event: Event) -> bool:
        """Prepare the calls of an event. Returns false if none of them may run any longer."""
        batch = []
        for call in event.arguments:
            if call.check():
                batch.append(call)
            else:
                call.done()
        self._batch = batch
        if not batch:
            self.waiting.pop()
        return bool(batch)

    def encoded(self) -> Answer:
        """The batch in the form for the runtime."""
        event: list[Any] = ["rooms", None]
        for call in self._batch:
            room, kind = call.room, call.kind
            value: Any = call.dt
            if kind == "post":
                sender = call.sender
                value = (call.value,) if sender is None else (call.value, sender.id, sender.user)
            event += (_NUMBERS[kind], room.name, room.fencing_number, value)
        self._handed_over = time.monotonic()
        return tuple(event)

    def _room_failed(self, index: int, name: str, hook: str, described: str, is_known: bool) -> None:
        """Report that a call has failed.

        `index` is the call's index in the batch, or -1 if its promise was rejected later.
        """
        failure = self._loader.tidy(Failure.read(described))
        self._reports.failed(hook, None, failure, room=name, once=is_known)
        self._make_room(failure)
        if index >= 0:
            self._failed[index] = "failed"

    def _room_pending(self, index: int, ticket: int, ms: float) -> None:
        """Suspend a call that has returned a promise, after `ms` milliseconds."""
        self._pending[index] = ticket
        now = time.monotonic()
        event = Event("room", None, (self._batch[index], ticket), began=now - ms / 1000)
        self._schedule.suspend(event, ticket, now + self._wait_s)

    def _room_took(self, index: int, ms: float) -> None:
        self._slow[index] = ms / 1000

    def stop(self, failure: Failure, *, to_end: bool) -> bool:
        """Note that the runtime was stopped with this error.

        Returns false if the runtime has no batch, so no call was stopped.

        If the runtime has a batch, the error is reported later, when it is known which call was stopped.
        """
        if self._batch:
            self._cut = (failure, to_end)
        return bool(self._batch)

    def flush(self) -> None:
        """End the batch if the runtime was stopped and has not reported `_ran`. Called when the runtime pulls.

        In this case the runtime was stopped before it had begun a call of the batch, and it will begin none.
        """
        if self._cut is not None:
            self._ran(1)

    def give_up(self) -> None:
        """Give up the batch, because the runtime cannot read it."""
        batch, self._batch = self._batch, ()
        for call in batch:
            call.done("failed")
        self.waiting.pop()

    def _ran(self, count: int) -> None:
        """End the batch: the runtime has begun this many of its calls."""
        batch, self._batch = self._batch, ()
        failed, self._failed = self._failed, {}
        pending, self._pending = self._pending, {}
        slow, self._slow = self._slow, {}
        cut, self._cut = self._cut, None
        over: Sequence[RoomCall | None] = batch[:count]
        again = batch[count:]
        if cut is not None and (count - 1) not in pending:
            failed[count - 1] = "timeout"
            self._reports.stopped(Event("room", None, (batch[count - 1],)), cut[0], to_end=cut[1])
        if pending:
            over, again = self._hold(batch, over, pending)
        # The short calls share the time that is left of the batch's time.
        left = time.monotonic() - self._handed_over - sum(slow.values())
        short = max(0.0, left / max(1, count - len(slow)))
        for index, call in enumerate(over):
            if call is None:
                continue
            call.begun()
            if index not in pending:
                self._times.observe(call.kind, slow.get(index, short))
                call.done(failed.get(index))
        for call in again:
            call.put_off()
        if again:
            self.post(again)
        self.waiting.pop()

    def _hold(
        self, batch: Sequence[RoomCall], begun: Sequence[RoomCall | None], pending: dict[int, int]
    ) -> tuple[list[RoomCall | None], list[RoomCall]]:
        """Put aside the later calls for those rooms that have a pending call in the batch.

        Returns the calls that were begun, and the calls to queue again. In the first list, None stands for a call that
        was put aside.
        """
        over = list(begun)
        again = []
        held: dict[str, int] = {}
        for index, call in enumerate(batch):
            ticket = held.get(call.room.name)
            if ticket is not None:
                call.put_off()
                self._held.setdefault(ticket, []).append(call)
                if index < len(over):
                    over[index] = None
            elif index in pending:
                held[call.room.name] = pending[index]
            elif index >= len(over):
                again.append(call)
        return over, again

    def completed(self, event: Event, failure: str | None) -> None:
        """Continue with a room, because the promise of its call has settled or expired."""
        call, ticket = event.arguments
        self._times.observe(call.kind, time.monotonic() - event.began)
        call.done(failure)
        held = self._held.pop(ticket, None)
        if held is not None:
            self.post(held)

    def abandon(self, events: Iterable[Event | None]) -> None:
        """End all calls without running them, because the isolate has ended. `events` are those of the schedule."""
        if self._cut is not None:
            self._reports.stopped(Event("rooms", None, tuple(self._batch)), self._cut[0], to_end=self._cut[1])
        calls = [*self._batch, *chain.from_iterable(self._held.values())]
        for event in events:
            if event is not None and event.kind == "rooms":
                calls += event.arguments
            elif event is not None and event.kind == "room":
                calls.append(event.arguments[0])
        for call in calls:
            call.done("down")
