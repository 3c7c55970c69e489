"""Broadcasts that are pending: sent to the broker, and not yet back. Later messages must not overtake them.

A broadcast reaches the members in this process when it comes back from the broker, which gives it its place in the
room's order. The thread that broadcasts does not wait for that. Meanwhile, frames for a session that come after the
broadcast are held, in the session's `HeldFrames` (see `held`).

What holds, for each session:

- What any threads pass to its `send` and `close` arrives in the order of the calls.
- What one thread sends to the session and broadcasts to its rooms arrives in the order of the calls.

The exception is a late broadcast: later frames overtake it. A broadcast is late in four cases: it is not back after
`LONGEST_S`; the broker has owed an answer for that long; more than `held.MAX_HELD_BYTES` are held for one session; or
the session receives a later broadcast of the same thread first (the nodes of a cluster answer in any order, and after a
break the rooms' logs are read one after the other). While something waits, the flusher looks for late broadcasts: it
never waits for the broker itself.

A finalizer may send, close and ask at any point of this module, in the thread that it interrupts. So these calls only
try to take locks, and wait for nothing. Each single operation on a list or dict is atomic, with and without the GIL;
the module relies on that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from wsthreads.threads.lookups import look_up

if TYPE_CHECKING:
    from wsthreads.threads.flusher import Flusher

__all__ = ["LONGEST_S", "Bell", "PendingBroadcast", "PendingBroadcasts"]

#: A broadcast that is not back after this long is late.
LONGEST_S = 1.0

#: How often the flusher looks for late broadcasts.
LOOK_S = 0.1

#: A room: the path of its endpoint, and its name.
RoomKey = tuple[str, str]


class Bell(SimpleQueue[None]):
    """Wakes the thread that waits for an item. `SimpleQueue.put` is re-entrant, the methods of a Condition are not."""

    def wait(self, timeout_s: float) -> None:
        """Wait for an item, at most `timeout_s`."""
        with suppress(Empty):
            self.get(timeout=timeout_s)


class EndpointRooms(Protocol):
    """The rooms of one endpoint."""

    path: str


class Holder(Protocol):
    """What `HeldFrames` is to this module."""

    @property
    def flusher(self) -> Flusher: ...

    def put(self, next_ticket: int, broadcasts: list[PendingBroadcast], frame: bytes, closes: bool) -> None: ...

    def let_go(self, coming: PendingBroadcast | None = None, *, surely: bool = False) -> None: ...


class Addressee(Protocol):
    """A session, as this module uses it."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def _rooms(self) -> EndpointRooms:
        """The rooms of its endpoint."""

    @property
    def _joined(self) -> frozenset[str]:
        """The names of the rooms that it is in."""

    @property
    def _held_frames(self) -> Holder:
        """The frames that are held for it."""


class PendingBroadcast:
    """A broadcast of this process, from its call until it is back and the members have it, or until it is late."""

    __slots__ = ("bells", "due", "exclude_id", "is_back", "sessions", "thread", "ticket")

    def __init__(self, ticket: int, exclude_id: str | None) -> None:
        self.ticket = ticket
        self.exclude_id = exclude_id
        self.thread = threading.get_ident()
        self.due = monotonic() + LONGEST_S
        self.is_back = False
        # Whoever waits for it. A thread that adds to these looks at is_back afterwards.
        self.sessions: dict[Addressee, None] = {}  # sessions with a held frame that waits for it
        self.bells: list[Bell] = []


class _Last(NamedTuple):
    """The last broadcast of a thread to a room."""

    broadcast: PendingBroadcast
    other: PendingBroadcast | None  # the last one before it that the session excluded from it does receive

    def of(self, session: Addressee) -> PendingBroadcast | None:
        """The last broadcast that the session may receive, if it is pending. Earlier ones come back earlier."""
        broadcast = self.broadcast if self.broadcast.exclude_id != session.id else self.other
        return None if broadcast is None or broadcast.is_back else broadcast


class _Here(threading.local):
    """What the current thread has broadcast. Has no `__init__`: a finalizer could find the object half made."""

    rooms: Mapping[RoomKey, _Last] = MappingProxyType({})  # never changed, only replaced
    newest: PendingBroadcast | None = None  # None: rooms is empty


class PendingBroadcasts:
    """The broadcasts of this process that are on their way, by ticket; tickets grow. Any thread."""

    def __init__(self) -> None:
        self._out: dict[int, PendingBroadcast] = {}
        self._awaited: dict[int, PendingBroadcast] = {}  # those of them that hold something back
        self._rooms: dict[RoomKey, PendingBroadcast] = {}  # the last broadcast to each room, by any thread
        self._next = 0  # the next ticket
        self._low = 0  # all tickets below are back; only for the reader's thread
        self._here = _Here()
        #: Each ends late broadcasts. The flusher calls them while a thread or a frame may have to wait.
        self.checks: list[Callable[[], object]] = []
        self._looking = threading.Lock()  # held while the flusher has a timer; taken without waiting

    def begin(self, ticket: int, room: RoomKey, exclude_id: str | None) -> None:
        """The current thread has broadcast. All calls are made under one lock, in the order of the tickets."""
        broadcast = PendingBroadcast(ticket, exclude_id)
        self._out[ticket] = self._rooms[room] = broadcast
        self._next = ticket + 1
        here = self._current()
        last = here.rooms.get(room)
        other = None if last is None else last.other if last.broadcast.exclude_id == exclude_id else last.broadcast
        here.rooms = {**here.rooms, room: _Last(broadcast, other)}
        here.newest = broadcast

    def forget(self, room: RoomKey) -> None:
        """A room has no members in this process any more. Under the lock of `begin`."""
        self._rooms.pop(room, None)

    def end(self, ticket: int) -> None:
        """The broadcast is back and the members have it, or it does not come back."""
        self._end([ticket])

    def end_all(self) -> None:
        """The broker is away: no broadcast comes back for now."""
        self._end(self._out.copy())

    def end_overdue(self) -> bool:
        """End what is not back after `LONGEST_S`. Whether there was any. Called several times a second."""
        if not self._out:
            return False
        now = monotonic()
        overdue = [ticket for ticket, broadcast in self._out.copy().items() if broadcast.due <= now]
        self._end(overdue)
        return bool(overdue)

    def coming(self, ticket: int, rooms: EndpointRooms, name: str, exclude_id: str | None) -> None:
        """A broadcast is about to reach the members of a room. Called by the reader's thread.

        It overtakes earlier broadcasts that are still pending, for each session that receives it.
        """
        while self._low < ticket and self._low not in self._out:
            self._low += 1
        broadcast = look_up(self._out, ticket)
        if self._low == ticket or broadcast is None:
            return
        for late in self._awaited.copy().values():
            if late.ticket < ticket:
                for session in late.sessions.copy():
                    if session._rooms is rooms and name in session._joined and session.id != exclude_id:
                        session._held_frames.let_go(broadcast, surely=True)

    def before_message(self, session: Addressee) -> list[PendingBroadcast]:
        """The broadcasts that the current thread's next message to a session must not overtake."""
        rooms = self._current().rooms
        if not rooms:
            return []
        path, joined = session._rooms.path, session._joined
        if len(joined) <= len(rooms):
            found = [last.of(session) for name in joined if (last := rooms.get((path, name))) is not None]
        else:
            found = [last.of(session) for (of, name), last in rooms.items() if of == path and name in joined]
        return [broadcast for broadcast in found if broadcast is not None]

    def before_close(self, session: Addressee) -> list[PendingBroadcast]:
        """The broadcasts that the close frame of a session must not overtake: of any thread, to its rooms."""
        path = session._rooms.path
        found = [look_up(self._rooms, (path, name)) for name in session._joined]
        return [broadcast for broadcast in found if broadcast is not None and not broadcast.is_back]

    def hold(
        self, session: Addressee, frame: bytes, broadcasts: list[PendingBroadcast], *, closes: bool = False
    ) -> None:
        """Send a frame once `broadcasts` are back and all earlier held frames of the session are sent."""
        for broadcast in broadcasts:
            broadcast.sessions[session] = None
            self._awaited[broadcast.ticket] = broadcast
            if broadcast.is_back:
                self._awaited.pop(broadcast.ticket, None)
                broadcast.sessions.pop(session, None)
        session._held_frames.put(self._next, broadcasts, frame, closes)
        self._have_looked_after(session)

    def wait(self, session: Addressee, name: str) -> None:
        """Wait until the session has what the current thread broadcast to a room, if it may receive that."""
        last = self._current().rooms.get((session._rooms.path, name))
        broadcast = None if last is None else last.of(session)
        if broadcast is not None:
            bell = Bell()
            broadcast.bells.append(bell)
            self._have_looked_after(session)
            if not broadcast.is_back:
                bell.wait(max(0.0, broadcast.due - monotonic()))

    def wait_room(self, room: RoomKey) -> None:
        """Wait until the members have what any thread has broadcast to a room so far. Not for a late one."""
        _wait_back(look_up(self._rooms, room))

    def wait_all(self, timeout_s: float) -> None:
        """Wait until the members have what any thread has broadcast so far, at most `timeout_s`. Not for late ones."""
        deadline = monotonic() + timeout_s
        for broadcast in self._out.copy().values():
            _wait_back(broadcast, deadline)

    def _have_looked_after(self, session: Addressee) -> None:
        flusher = session._held_frames.flusher
        if self._out and self._looking.acquire(blocking=False):
            flusher.call_later(LOOK_S, partial(self._look, flusher))

    def _look(self, flusher: Flusher) -> None:
        """Called by the flusher."""
        self._looking.release()
        for check in self.checks:
            check()
        if self._out and self._looking.acquire(blocking=False):
            flusher.call_later(LOOK_S, partial(self._look, flusher))

    def _current(self) -> _Here:
        """The current thread's broadcasts, without those that are back."""
        here = self._here
        if here.newest is not None and here.newest.is_back:
            here.rooms = {room: last for room, last in here.rooms.items() if not last.broadcast.is_back}
            here.newest = next((last.broadcast for last in here.rooms.values()), None)
        return here

    def _end(self, tickets: Iterable[int]) -> None:
        with ExitStack() as stack:  # end all of them, even if one fails
            for ticket in tickets:
                broadcast = self._out.pop(ticket, None)
                if broadcast is None:
                    continue
                broadcast.is_back = True
                self._awaited.pop(ticket, None)
                for session in broadcast.sessions.copy():
                    stack.callback(session._held_frames.let_go, surely=True)
                for bell in broadcast.bells.copy():
                    bell.put(None)
                broadcast.sessions.clear()  # its thread may keep the broadcast for a long time
                broadcast.bells.clear()


def _wait_back(broadcast: PendingBroadcast | None, deadline: float = inf) -> None:
    if broadcast is not None and not broadcast.is_back:
        bell = Bell()
        broadcast.bells.append(bell)
        if not broadcast.is_back:
            bell.wait(max(0.0, min(deadline, broadcast.due) - monotonic()))
