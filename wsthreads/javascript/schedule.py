"""Which event is next: one at a time for each session, in order, and no session before its promise has settled."""

from __future__ import annotations

from collections import deque
from queue import Empty, SimpleQueue

from wsthreads.javascript.visits import Event, Visit

__all__ = ["NEVER", "Schedule"]

NEVER = float("inf")


class Schedule:
    """The events that wait for the isolate. `post` is for any thread, all else for the isolate's.

    An event that `take` gives out comes back by `finish`, or by `suspend` and later, once, `settle` or `expire`.
    """

    def __init__(self) -> None:
        self._inbox: SimpleQueue[Event] = SimpleQueue()
        self._ready: deque[Visit] = deque()  # not busy, with something in their backlog; each once
        self._pending: dict[int, tuple[float, Event]] = {}  # by ticket, the first to expire first

    def post(self, event: Event) -> None:
        self._inbox.put(event)

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
            try:
                event = self._inbox.get(timeout=timeout_s) if timeout_s != 0 else self._inbox.get_nowait()
            except Empty:
                return None
            visit = event.visit
            if visit is None or not (visit.busy or visit.backlog):
                return event
            if visit.backlog is None:
                visit.backlog = deque()
            visit.backlog.append(event)
            timeout_s = 0

    def finish(self, event: Event) -> None:
        """The event is done with: its session's next one may be taken."""
        visit = event.visit
        if visit is not None:
            visit.busy = False
            if visit.backlog:
                self._ready.append(visit)

    def suspend(self, event: Event, ticket: int, expires: float) -> None:
        """The event's promise is pending, at most until `expires`."""
        if event.visit is not None:
            event.visit.busy = True
        self._pending[ticket] = (expires, event)

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
        """All events that there are. Nothing is left."""
        events = [event for _, event in self._pending.values()]
        self._pending.clear()
        for visit in self._ready:
            events.extend(visit.backlog or ())
        self._ready.clear()
        while not self._inbox.empty():
            events.append(self._inbox.get_nowait())
        return events
