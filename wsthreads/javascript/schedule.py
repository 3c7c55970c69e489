"""Which event is next: one at a time for each session, in order, and no session before its promise has settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from wsthreads.javascript.inbox import Inbox
from wsthreads.javascript.session_state import Event, SessionState

__all__ = ["NEVER", "Schedule"]

NEVER = float("inf")


class MessageReader:
    """`wsthreads.protocol.readers.Reader` for a script's messages."""

    __slots__ = ("_visit", "read")

    def __init__(self, state: SessionState, read: Callable[[], bytes]) -> None:
        self._visit = state
        self.read = read

    def stop(self) -> None:
        self._visit.shut()

    @property
    def heard_at(self) -> float:
        heard_at: float = self._visit.heard_at
        return heard_at

    @property
    def messages_in(self) -> int:
        count: int = self._visit.texts
        return count

    @property
    def bytes_in(self) -> int:
        count: int = self._visit.text_bytes
        return count


class Schedule:
    """The events that wait for the isolate. `post` is for any thread, all else for the isolate's.

    An event that `take` gives out comes back by `finish`, or by `suspend` and later, once, `settle` or `expire`.
    """

    def __init__(self) -> None:
        self._inbox = Inbox()
        self._ready: deque[SessionState] = deque()  # not busy, with something in their backlog; each once
        self._pending: dict[int, tuple[float, Event]] = {}  # by ticket, the first to expire first

    def post(self, event: Event) -> None:
        self._inbox.put(event)

    def reader(self, state: SessionState, descriptor: int, max_bytes: int) -> MessageReader:
        """What reads the state's messages, of up to `max_bytes`, from a socket to the inbox. Needs the C module."""
        return MessageReader(state, partial(state.pump, self._inbox, descriptor, max_bytes))

    def has_more(self) -> bool:
        """Whether events wait. Any thread."""
        return not self._inbox.empty() or bool(self._ready)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is pending or ready; the inbox may hold something yet."""
        return not self._ready and not self._pending

    @property
    def next_expiry(self) -> float:
        """When the oldest pending event expires, on the monotonic clock."""
        for expires, _ in self._pending.values():
            return expires
        return NEVER

    def take(self, timeout_s: float | None = 0) -> Event | None:
        """The next event whose session is free, or None if none comes within `timeout_s` (None: however long)."""
        if self._ready:
            backlog = self._ready.popleft().backlog
            assert backlog
            return backlog.popleft()
        while True:
            event = self._received(timeout_s)
            if event is None:
                return None
            state = event.state
            if state is None or not (state.busy or state.backlog):
                return event
            if state.backlog is None:
                state.backlog = deque()
            state.backlog.append(event)
            timeout_s = 0

    def finish(self, event: Event) -> None:
        """The event is done with: its session's next one may be taken."""
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
        """Let all that is pending expire so much later: nothing of it could go on meanwhile."""
        self._pending = {ticket: (expires + seconds, event) for ticket, (expires, event) in self._pending.items()}

    def settle(self, ticket: int) -> Event | None:
        """The pending event of that ticket, to be finished; None if it has expired."""
        return self._pending.pop(ticket, (0.0, None))[1]

    def expire(self, now: float) -> Event | None:
        """A pending event that has taken too long, to be finished."""
        for ticket, (expires, event) in self._pending.items():
            if expires > now:
                break
            del self._pending[ticket]
            return event
        return None

    def drain(self) -> list[Event]:
        """All events that there are. Nothing is left, and what is posted from now on is dropped."""
        self._inbox.close()
        events = [event for _, event in self._pending.values()]
        self._pending.clear()
        for state in self._ready:
            events.extend(state.backlog or ())
        self._ready.clear()
        while (event := self._received(0)) is not None:
            events.append(event)
        return events

    def _received(self, timeout_s: float | None) -> Event | None:
        """What has come in first."""
        entry = self._inbox.get(timeout_s)
        if type(entry) is tuple:  # a message that a line has read
            state, text, size = entry
            return Event("message", state, (text,), size)
        event: Event | None = entry
        return event
