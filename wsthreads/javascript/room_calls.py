"""Calls a script's functions for rooms: onRoomStart, onPost, onTick and onRoomEnd.

Passes on the outcomes of ``room.post()``.

One event carries a batch of calls for many rooms, because an event for each call would cost more than a short onTick.
The runtime ends a batch after some milliseconds, and the rest of it is queued again, after the other events. A call
whose promise is pending delays no other room: the further calls for its room wait here until the promise has settled.

Each call is `done` exactly once, even after errors: see `wsthreads.rooms.ownership.RoomCall`.
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

#: The runtime's numbers of the kinds of calls.
_NUMBERS = {kind: number for number, kind in enumerate(ROOM_CALLS)}


class Posts:
    """The outcomes of posts for the script. One event carries many of them."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._settled: deque[tuple[int, str | None, bool]] = deque()
        self._is_told = False  # whether an event was posted
        #: Has an element for each event whose outcomes the script has not received.
        self.waiting: deque[None] = deque()

    def settle(self, number: int, error: Exception | None) -> None:
        """The post of this number was handled, or has failed. Any thread."""
        self._settled.append((number, None if error is None else str(error), getattr(error, "is_unknown", False)))
        if not self._is_told:
            self._is_told = True
            self.waiting.append(None)
            self._schedule.post(Event("posted"))

    def take(self) -> tuple[Any, ...]:
        """The event for the runtime. In the isolate's thread."""
        self._is_told = False  # before the outcomes are taken, so that a new outcome posts another event
        event: list[Any] = ["posted", None]
        while self._settled:
            event += self._settled.popleft()
        return tuple(event)


class RoomCalls:
    """The calls for rooms. Any thread may call `post`; all other methods belong to the isolate's thread.

    `make_room` is called with each error of the script, because the heap may be full.
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
        self._batch: Sequence[RoomCall] = ()  # the runtime has it, and has not told how many calls it began
        self._handed_over = 0.0
        self._failed: dict[int, str] = {}  # the errors of calls in the batch that threw, by index
        self._pending: dict[int, int] = {}  # the tickets of calls in the batch whose promise is pending, by index
        self._slow: dict[int, float] = {}  # the duration of calls that were not short, by index, in seconds
        self._held: dict[int, list[RoomCall]] = {}  # the further calls for a room, by the ticket of its pending call
        self._cut: tuple[Failure, bool] | None = None  # the arguments of `stop`

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

    # A batch: `begin`, `encoded`, what the runtime reports, `_ran`. If the runtime is stopped, `stop` is before `_ran`.

    def begin(self, event: Event) -> bool:
        """Prepare the calls of the event. False if none of them may run any longer."""
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
        """The batch for the runtime."""
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
        """A call threw. `index` is the call's place in the batch, or -1 for a promise that was rejected."""
        failure = self._loader.tidy(Failure.read(described))
        self._reports.failed(hook, None, failure, room=name, once=is_known)
        self._make_room(failure)
        if index >= 0:
            self._failed[index] = "failed"

    def _room_pending(self, index: int, ticket: int, ms: float) -> None:
        """The call of this index returned a promise, after `ms`."""
        self._pending[index] = ticket
        now = time.monotonic()
        event = Event("room", None, (self._batch[index], ticket), began=now - ms / 1000)
        self._schedule.suspend(event, ticket, now + self._wait_s)

    def _room_took(self, index: int, ms: float) -> None:
        self._slow[index] = ms / 1000

    def stop(self, failure: Failure, *, to_end: bool) -> bool:
        """The runtime was stopped with this error. Returns false if it has no batch, so no call of a room ran.

        Otherwise the error is reported later, when it is known which call ran.
        """
        if self._batch:
            self._cut = (failure, to_end)
        return bool(self._batch)

    def flush(self) -> None:
        """Called when the runtime pulls. Ends the batch if the runtime was stopped and has not reported `_ran`.

        The runtime was then stopped before it had begun a call of the batch, and it will begin none.
        """
        if self._cut is not None:
            self._ran(1)

    def give_up(self) -> None:
        """Give up the batch: the runtime cannot read it."""
        batch, self._batch = self._batch, ()
        for call in batch:
            call.done("failed")
        self.waiting.pop()

    def _ran(self, count: int) -> None:
        """The runtime has begun this many calls of the batch, and is done with the batch."""
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
        # The short calls share the rest of the batch's time.
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
        """Some calls of the batch are pending: put aside the further calls for their rooms.

        Returns the begun calls, with None for those that were put aside, and the calls to queue again.
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
        """The promise of a call has settled or expired: continue with its room."""
        call, ticket = event.arguments
        self._times.observe(call.kind, time.monotonic() - event.began)
        call.done(failure)
        held = self._held.pop(ticket, None)
        if held is not None:
            self.post(held)

    def abandon(self, events: Iterable[Event | None]) -> None:
        """The isolate has ended: end the calls of the batch, of `events` and those that wait, without running them."""
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
