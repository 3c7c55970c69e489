"""Decides which event is next: for each session one at a time, in order, and none while its promise is pending.

A *ticket* is the number of a promise. The runtime reports the ticket when the promise is pending, and again when the
promise has settled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from threading import RLock
from typing import Any

from wsthreads.javascript.inbox import Inbox
from wsthreads.javascript.session_state import Event, SessionState, message_event

__all__ = ["NEVER", "Schedule"]

NEVER = float("inf")

#: A number that no turn of an intake has.
_NO_TURN = -1


class MessageReader:
    """`wsthreads.protocol.readers.Reader` for a script's messages, from one connection of a session.

    `due` is given if the client speaks wsthreads.1: see `Handler.reader`.
    """

    __slots__ = ("_at_end", "_at_start", "_due", "_inbox", "_lock", "_pump", "_state", "_turn")

    def __init__(
        self,
        state: SessionState,
        inbox: Any,
        descriptor: int,
        max_bytes: int,
        due: Callable[[], tuple[int, int] | None] | None,
    ) -> None:
        self._state = state
        self._inbox = inbox
        self._turn: int = state.turn
        self._at_start: tuple[int, int] = (state.texts, state.text_bytes)
        self._at_end: tuple[int, int] | None = None
        self._lock = RLock()  # guards writes of _at_end; reentrant, because a finalizer may call `stop`
        self._pump = partial(state.pump, inbox, descriptor, max_bytes)
        self._due = due

    def read(self) -> bytes:
        found: bytes | None
        if self._due is None:
            found = self._pump(self._turn)
            assert found is not None
            return found
        while True:
            due = self._due()
            found = self._pump(_NO_TURN, 1, 1) if due is None else self._pump(self._turn, *due)
            if found is not None:
                self._due()
                return found

    def stop(self) -> None:
        with self._lock:
            if self._at_end is None:
                counts = self._state.shut(self._inbox, self._turn)
                self._at_end = self._at_end or counts or (self._state.texts, self._state.text_bytes)

    @property
    def heard_at(self) -> float:
        heard_at: float = self._state.heard_at
        return heard_at

    @property
    def messages_in(self) -> int:
        return (self._at_end or (self._state.texts,))[0] - self._at_start[0]

    @property
    def bytes_in(self) -> int:
        return (self._at_end or (0, self._state.text_bytes))[1] - self._at_start[1]


class Schedule:
    """The events that wait for the isolate.

    Any thread may call `post`; all other methods belong to the isolate's thread.

    For each event that `take` returns, the caller later calls `finish`; or `suspend`, and then `settle` or `expire`
    once.
    """

    def __init__(self) -> None:
        self.inbox = Inbox()
        self._get = self.inbox.get
        self._ready: deque[SessionState] = deque()  # sessions with a backlog that are not busy; each once
        self._pending: dict[int, tuple[float, Event]] = {}  # by ticket, the first to expire first
        #: True while a pending event can expire. Checking this is cheaper than calling `next_expiry`.
        self.pending_events: Mapping[int, object] = self._pending
        #: While these are empty, the next event comes from the inbox.
        self.hindrances = (self._pending, self._ready)

    def post(self, event: Event) -> None:
        self.inbox.put(event)

    def reader(
        self,
        state: SessionState,
        descriptor: int,
        max_bytes: int,
        due: Callable[[], tuple[int, int] | None] | None,
    ) -> MessageReader:
        """A reader that moves the session's messages, of up to `max_bytes`, from a socket to the inbox.

        Needs the C module.
        """
        return MessageReader(state, self.inbox, descriptor, max_bytes, due)

    def has_more(self) -> bool:
        """Whether events wait. Any thread."""
        return not self.inbox.empty() or bool(self._ready)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is pending or ready. The inbox may still hold events."""
        return not self._ready and not self._pending

    @property
    def next_expiry(self) -> float:
        """When the oldest pending event expires, on the monotonic clock."""
        for expires, _ in self._pending.values():
            return expires
        return NEVER

    def take(self, timeout_s: float | None = 0) -> Event | None:
        """The next event whose session is not busy, or None if none comes within `timeout_s` (None: no limit)."""
        if self._ready:
            backlog = self._ready.popleft().backlog
            assert backlog
            return backlog.popleft()
        while True:
            entry = self._get(timeout_s)
            if entry is None:
                return None
            event: Event = message_event(*entry) if type(entry) is tuple else entry
            state = event.state
            if state is None or not (state.busy or state.backlog):
                return event
            if state.backlog is None:
                state.backlog = deque()
            state.backlog.append(event)
            timeout_s = 0

    def finish(self, event: Event) -> None:
        """The event is over: the session's next event may be taken."""
        state = event.state
        if state is not None:
            state.busy = False
            if state.backlog:
                self._ready.append(state)

    def suspend(self, event: Event, ticket: int, expires: float) -> None:
        """The event's promise is pending, at most until `expires`."""
        if event.state is not None:
            event.state.busy = True
        self._pending[ticket] = (expires, event)

    def postpone(self, seconds: float) -> None:
        """Let all pending events expire `seconds` later, because none of them could make progress in that time."""
        for ticket, (expires, event) in self._pending.items():
            self._pending[ticket] = (expires + seconds, event)

    def pending(self, ticket: int) -> Event | None:
        """The pending event of this ticket. None if it has expired."""
        return self._pending.get(ticket, (0.0, None))[1]

    def settle(self, ticket: int) -> Event | None:
        """Remove and return the pending event of this ticket. The caller must finish it. None if it has expired."""
        return self._pending.pop(ticket, (0.0, None))[1]

    def expire(self, now: float) -> Event | None:
        """Remove and return a pending event that has expired. The caller must finish it. None if there is none."""
        for ticket, (expires, event) in self._pending.items():
            if expires > now:
                break
            del self._pending[ticket]
            return event
        return None

    def drain(self) -> list[Event]:
        """Remove and return all events. Events that are posted from now on are dropped."""
        self.inbox.close()
        events = [event for _, event in self._pending.values()]
        self._pending.clear()
        for state in self._ready:
            events.extend(state.backlog or ())
        self._ready.clear()
        while (entry := self._get(0)) is not None:
            events.append(message_event(*entry) if type(entry) is tuple else entry)
        return events
