"""What must not overtake a broadcast that is on its way.

A broadcast reaches the members in this process when it comes back from the broker, which gives it its place in the
room's order; its thread does not wait for that. What the same thread does next to a session that the broadcast may be
for has to come behind it, as it would without a broker: a `send` is held until then, and whoever joins, leaves or
closes waits.

Neither lasts longer than `LONGEST_S`, and with the broker away there is nothing to wait for: order between a broadcast
and what is sent directly is promised only where broadcasts come back within that time.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsthreads.outbox import Outbox
    from wsthreads.session import Session

__all__ = ["LONGEST_S", "Turns"]

#: A broadcast that is not back after this long is overtaken.
LONGEST_S = 1.0


class _Here(threading.local):
    """What the current thread broadcast last."""

    def __init__(self) -> None:
        self.ticket = -1
        self.exclude_id: str | None = None  # whom all of its broadcasts that are on their way leave out


class Turns:
    """Tickets of broadcasts, which grow, and what waits for them. Any thread."""

    def __init__(self) -> None:
        # Guards the rest. Under it frames are only appended to an outbox; it is taken under a link's lock.
        self._changed = threading.Condition(threading.Lock())
        self._out: dict[int, float] = {}  # ticket → when it is overtaken; in the order of the tickets
        self._held: deque[tuple[int, Outbox, bytes]] = deque()
        self._oldest: float = float("inf")  # of those that are out; what was held for older ones is in the outboxes
        self._here = _Here()

    def begin(self, ticket: int, exclude_id: str | None) -> None:
        """The current thread has broadcast. To be called in the order of the tickets."""
        here = self._here
        with self._changed:
            if here.ticket < self._oldest:  # the former is back
                here.exclude_id = exclude_id
            elif exclude_id != here.exclude_id:
                here.exclude_id = None
            here.ticket = ticket
            self._out[ticket] = monotonic() + LONGEST_S
            if len(self._out) == 1:
                self._oldest = ticket

    def end(self, ticket: int) -> None:
        """It is back and with the members, or never will be."""
        if ticket < self._oldest:
            return
        with self._changed:
            self._out.pop(ticket, None)
            freed = self._free_locked()
        _flush(freed)

    def end_all(self) -> None:
        """The broker is away: nothing comes back for now."""
        with self._changed:
            self._out.clear()
            freed = self._free_locked()
        _flush(freed)

    def end_overdue(self) -> bool:
        """To be called again and again. Whether there was one."""
        now = monotonic()
        with self._changed:
            overdue = [ticket for ticket, end in self._out.items() if end <= now]
            for ticket in overdue:
                del self._out[ticket]
            freed = self._free_locked() if overdue else []
        _flush(freed)
        return bool(overdue)

    def behind(self, session: Session) -> int:
        """The ticket that the current thread's next message to `session` has to come behind; -1 for none."""
        here = self._here
        return -1 if here.ticket < self._oldest or here.exclude_id == session.id else here.ticket

    def hold(self, ticket: int, outbox: Outbox, frame: bytes) -> None:
        """Append a frame to the outbox and send it, as soon as the ticket and all before it are back."""
        with self._changed:
            if ticket >= self._oldest:
                self._held.append((ticket, outbox, frame))
                return
            outbox.append(frame)
        outbox.flush()

    def wait(self, session: Session) -> None:
        """Wait until what the current thread broadcast is with `session`, if it may be for it."""
        ticket = self.behind(session)
        if ticket >= 0:
            with self._changed:
                self._changed.wait_for(lambda: ticket < self._oldest, LONGEST_S)

    def _free_locked(self) -> list[Outbox]:
        """Append what is not held any more; the outboxes to be flushed."""
        oldest = next(iter(self._out), float("inf"))
        freed = []
        while self._held and self._held[0][0] < oldest:
            _, outbox, frame = self._held.popleft()
            outbox.append(frame)
            freed.append(outbox)
        self._oldest = oldest  # only now: from here on its thread appends directly
        self._changed.notify_all()
        return freed


def _flush(outboxes: list[Outbox]) -> None:
    for outbox in outboxes:
        outbox.flush()
