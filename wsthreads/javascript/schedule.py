"""Decides which event is next.

Each session has its events in order and one at a time, and none while its promise is pending.

A *ticket* is the number of a promise. The runtime reports the ticket twice: when the promise is pending, and when the
promise has settled. A session's *backlog* has its events that must wait.
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

#: A number that no turn of an intake has. (A turn is the time of one connection of the session.)
_NO_TURN = -1


class MessageReader:
    """A `Reader` (see `wsthreads.protocol.readers`) for a script's messages. It reads from one connection of a session.

    `due` is given if the client speaks wsthreads.1 (see `Handler.reader`).
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
        self._lock = RLock()  # guards writes of _at_end; an RLock, because a finalizer may call `stop`
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

    Any thread may call `post`. Only the isolate's thread calls the other methods.

    For each event that `take` has returned, the caller later calls `finish`. Or it calls `suspend`, and later `settle`
    or `expire` once.
    """

    def __init__(self) -> None:
        self.inbox = Inbox()
        self._get = self.inbox.get
        # sessions with a backlog that may have an event taken from it; each session is here only once
        self._ready: deque[SessionState] = deque()
        # the events whose promise is pending, by ticket, in the order in which they expire
        self._pending: dict[int, tuple[float, Event]] = {}
        #: Not empty while a pending event can expire. To check this is cheaper than to call `next_expiry`.
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
        """Returns a reader that moves the session's messages from a socket to the inbox.

        A message may have `max_bytes`.

        Needs the C module.
        """
        return MessageReader(state, self.inbox, descriptor, max_bytes, due)

    def has_more(self) -> bool:
        """Whether events wait. Any thread."""
        return not self.inbox.empty() or bool(self._ready)

    @property
    def is_idle(self) -> bool:
        """Whether no event is pending or ready. The inbox may still have events."""
        return not self._ready and not self._pending

    @property
    def next_expiry(self) -> float:
        """When the oldest pending event expires, on the monotonic clock."""
        for expires, _ in self._pending.values():
            return expires
        return NEVER

    def take(self, timeout_s: float | None = 0) -> Event | None:
        """The next event whose session is not busy.

        None if there is none within `timeout_s`. If that is None, there is no limit.
        """
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
        """Finish an event. After that, the session's next event may be taken."""
        state = event.state
        if state is not None:
            state.busy = False
            if state.backlog:
                self._ready.append(state)

    def suspend(self, event: Event, ticket: int, expires: float) -> None:
        """Suspend an event whose promise is pending, at most until `expires`."""
        if event.state is not None:
            event.state.busy = True
        self._pending[ticket] = (expires, event)

    def postpone(self, seconds: float) -> None:
        """Let all pending events expire `seconds` later, because their promises could not settle in that time."""
        for ticket, (expires, event) in self._pending.items():
            self._pending[ticket] = (expires + seconds, event)

    def pending(self, ticket: int) -> Event | None:
        """The pending event with this ticket. None if it has expired."""
        return self._pending.get(ticket, (0.0, None))[1]

    def settle(self, ticket: int) -> Event | None:
        """Remove and return the pending event with this ticket. The caller must finish it. None if it has expired."""
        return self._pending.pop(ticket, (0.0, None))[1]

    def expire(self, now: float) -> Event | None:
        """Remove and return a pending event that has expired.

        The caller must finish the event. Returns None if no event has expired.
        """
        for ticket, (expires, event) in self._pending.items():
            if expires > now:
                break
            del self._pending[ticket]
            return event
        return None

    def drain(self) -> list[Event]:
        """Remove and return all events. Events that are posted later are dropped."""
        self.inbox.close()
        events = [event for _, event in self._pending.values()]
        self._pending.clear()
        for state in self._ready:
            events.extend(state.backlog or ())
        self._ready.clear()
        while (entry := self._get(0)) is not None:
            events.append(message_event(*entry) if type(entry) is tuple else entry)
        return events
