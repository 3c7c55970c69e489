"""What must not overtake a broadcast that is on its way.

A broadcast reaches the members in this process when it comes back from the broker, which gives it its place in the
room's order. The thread that broadcast does not wait for that. What is then sent to a session is held in the session's
`Line` until the broadcast is back.

What holds, for each session: what its `send` and `close` are called with, by any thread, arrives in the order of the
calls. What one thread sends to the session and broadcasts to its rooms arrives in the order of the calls. The exception
is a broadcast that comes back late; it is overtaken. It is late after `LONGEST_S`, when the broker has owed an answer
for so long, when more than `MAX_HELD_BYTES` are held behind it, or when the session gets a later broadcast of the same
thread first: nodes of a cluster answer in any order, and after a break the rooms' logs are read one after the other.
While somebody waits, the flusher looks for what is late, as it never waits for the broker itself.

A finalizer may send, close and ask at any point of this, in the thread that it interrupts. So these calls take no lock
but by trying, and wait for nothing: a thread that finds a line's lock taken leaves its frame to the holder, who looks
again after letting go. It relies on each operation of a list or dict being atomic, as it is with and without the GIL.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from wsthreads.protocol.outbox import Outbox
    from wsthreads.threads.flusher import Flusher

__all__ = ["LONGEST_S", "MAX_HELD_BYTES", "Flight", "Line", "Turns"]

#: A broadcast that is not back after this long is overtaken.
LONGEST_S = 1.0

#: How often the flusher looks for those.
LOOK_S = 0.1

#: So is one behind which more than this is held for one session. Only threads that must not wait can get here: a
#: session's own thread waits in `send` while `max_outbox_bytes` are held.
MAX_HELD_BYTES = 64 * 1024 * 1024

#: A room: the path of its endpoint, and its name.
RoomKey = tuple[str, str]

#: What is put in to wake a thread. `SimpleQueue.put` may interrupt itself, which the methods of a Condition may not.
Bell = SimpleQueue[None]


class EndpointRooms(Protocol):
    """The rooms of one endpoint."""

    path: str


class Addressee(Protocol):
    """A session, as what is held for it sees it."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def _rooms(self) -> EndpointRooms:
        """The rooms of its endpoint."""

    @property
    def _joined(self) -> frozenset[str]:
        """The names of those that it is in."""

    @property
    def _line(self) -> Line:
        """What is held for it."""


class Flight:
    """A broadcast of this process, from its call until it is back and with the members, or late."""

    __slots__ = ("bells", "due", "exclude_id", "is_back", "sessions", "thread", "ticket")

    def __init__(self, ticket: int, exclude_id: str | None) -> None:
        self.ticket = ticket
        self.exclude_id = exclude_id
        self.thread = threading.get_ident()
        self.due = monotonic() + LONGEST_S
        self.is_back = False
        # To be told when it is back. Who adds something looks at is_back afterwards.
        self.sessions: dict[Addressee, None] = {}  # a frame in the line of each waits for it
        self.bells: list[Bell] = []


class _Last(NamedTuple):
    """What a thread broadcast last to a room."""

    flight: Flight
    other: Flight | None  # and before it, to be received by the session which that one leaves out

    def of(self, session: Addressee) -> Flight | None:
        """The last one that may be for a session, if it is not back. Those before it come back before it."""
        flight = self.flight if self.flight.exclude_id != session.id else self.other
        return None if flight is None or flight.is_back else flight


class _Here(threading.local):
    """What the current thread has broadcast. Without an `__init__`, in which a finalizer would meet half of it."""

    rooms: Mapping[RoomKey, _Last] = MappingProxyType({})  # never changed, only replaced
    newest: Flight | None = None  # None: rooms is empty


class Turns:
    """The broadcasts of this process that are on their way, by ticket; tickets grow. Any thread."""

    def __init__(self) -> None:
        self._out: dict[int, Flight] = {}
        self._awaited: dict[int, Flight] = {}  # those of them that hold something back
        self._rooms: dict[RoomKey, Flight] = {}  # the last to each room, of any thread
        self._next = 0  # the first ticket that is not given out
        self._low = 0  # all tickets below are back; the reader's
        self._here = _Here()
        #: Each ends what is late. The flusher calls them while a thread or a frame may have to wait.
        self.checks: list[Callable[[], object]] = []
        self._looking = threading.Lock()  # held while the flusher has a timer; only tried

    def begin(self, ticket: int, room: RoomKey, exclude_id: str | None) -> None:
        """The current thread has broadcast. To be called under one lock, in the order of the tickets."""
        flight = Flight(ticket, exclude_id)
        self._out[ticket] = self._rooms[room] = flight
        self._next = ticket + 1
        here = self._current()
        last = here.rooms.get(room)
        other = None if last is None else last.other if last.flight.exclude_id == exclude_id else last.flight
        here.rooms = {**here.rooms, room: _Last(flight, other)}
        here.newest = flight

    def forget(self, room: RoomKey) -> None:
        """A room has no members in this process any more. Under the lock of `begin`."""
        self._rooms.pop(room, None)

    def end(self, ticket: int) -> None:
        """It is back and with the members, or never will be."""
        self._end([ticket])

    def end_all(self) -> None:
        """The broker is away: nothing comes back for now."""
        self._end(self._out.copy())

    def end_overdue(self) -> bool:
        """To be called again and again. Whether there was one."""
        if not self._out:
            return False
        now = monotonic()
        overdue = [ticket for ticket, flight in self._out.copy().items() if flight.due <= now]
        self._end(overdue)
        return bool(overdue)

    def coming(self, ticket: int, rooms: EndpointRooms, name: str, exclude_id: str | None) -> None:
        """The reader's: this one is about to be given to the members of a room.

        If there are earlier ones that are not back, they are overtaken where it matters: see the head of the module.
        """
        while self._low < ticket and self._low not in self._out:
            self._low += 1
        flight = self._out.get(ticket)
        if self._low == ticket or flight is None:
            return
        for late in self._awaited.copy().values():
            if late.ticket < ticket:
                for session in late.sessions.copy():
                    if session._rooms is rooms and name in session._joined and session.id != exclude_id:
                        session._line.let_go(flight, surely=True)

    def before_message(self, session: Addressee) -> list[Flight]:
        """What the current thread's next message to a session comes behind."""
        rooms = self._current().rooms
        if not rooms:
            return []
        path, joined = session._rooms.path, session._joined
        if len(joined) <= len(rooms):
            found = [last.of(session) for name in joined if (last := rooms.get((path, name))) is not None]
        else:
            found = [last.of(session) for (of, name), last in rooms.items() if of == path and name in joined]
        return [flight for flight in found if flight is not None]

    def before_close(self, session: Addressee) -> list[Flight]:
        """What the close frame of a session comes behind: whatever has been broadcast to its rooms, by any thread."""
        path = session._rooms.path
        found = [self._rooms.get((path, name)) for name in session._joined]
        return [flight for flight in found if flight is not None and not flight.is_back]

    def hold(self, session: Addressee, frame: bytes, flights: list[Flight], *, closes: bool = False) -> None:
        """Have a frame follow when `flights` are back, and all that is held for its session has gone."""
        for flight in flights:
            flight.sessions[session] = None
            self._awaited[flight.ticket] = flight
            if flight.is_back:
                self._awaited.pop(flight.ticket, None)
                flight.sessions.pop(session, None)
        session._line.put(_Held(threading.get_ident(), self._next, flights, frame, closes))
        self._have_looked_after(session)

    def wait(self, session: Addressee, name: str) -> None:
        """Wait until what the current thread broadcast to a room is with `session`, if it may be for it."""
        last = self._current().rooms.get((session._rooms.path, name))
        flight = None if last is None else last.of(session)
        if flight is not None:
            bell = Bell()
            flight.bells.append(bell)
            self._have_looked_after(session)
            if not flight.is_back:
                _await(bell, max(0.0, flight.due - monotonic()))

    def _have_looked_after(self, session: Addressee) -> None:
        flusher = session._line.flusher
        if self._out and self._looking.acquire(blocking=False):
            flusher.call_later(LOOK_S, partial(self._look, flusher))

    def _look(self, flusher: Flusher) -> None:
        """The flusher's."""
        self._looking.release()
        for check in self.checks:
            check()
        if self._out and self._looking.acquire(blocking=False):
            flusher.call_later(LOOK_S, partial(self._look, flusher))

    def _current(self) -> _Here:
        """The current thread's, without what is back."""
        here = self._here
        if here.newest is not None and here.newest.is_back:
            here.rooms = {room: last for room, last in here.rooms.items() if not last.flight.is_back}
            here.newest = next((last.flight for last in here.rooms.values()), None)
        return here

    def _end(self, tickets: Iterable[int]) -> None:
        with ExitStack() as stack:  # each of them, even if one fails
            for ticket in tickets:
                flight = self._out.pop(ticket, None)
                if flight is None:
                    continue
                flight.is_back = True
                self._awaited.pop(ticket, None)
                for session in flight.sessions.copy():
                    stack.callback(session._line.let_go, surely=True)
                for bell in flight.bells.copy():
                    bell.put(None)
                flight.sessions.clear()  # its thread may remember it for long
                flight.bells.clear()


class _Held(NamedTuple):
    """A frame in a line."""

    thread: int
    stamp: int  # broadcasts from this ticket on began after it
    flights: list[Flight]
    frame: bytes
    closes: bool

    def is_free(self) -> bool:
        return all(flight.is_back for flight in self.flights)

    def precedes(self, flight: Flight | None) -> bool:
        """Whether the same thread broadcast that behind it."""
        return flight is not None and self.thread == flight.thread and self.stamp <= flight.ticket


class Line:
    """The frames of one session that are held, in the order in which they will be in its outbox."""

    __slots__ = ("_bells", "_counted", "_items", "_lock", "_outbox", "held_bytes")

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._items: list[_Held] = []  # appended to by anybody; one is taken off when it is in the outbox
        # Held to take from _items, and to write the next two. Frames are only appended to the outbox under it.
        self._lock = threading.Lock()
        self._counted = 0  # so many of _items are in held_bytes
        self.held_bytes = 0
        self._bells: list[Bell] = []  # of threads that wait for something to be taken off

    @property
    def flusher(self) -> Flusher:
        """What keeps time for the session."""
        return self._outbox.flusher

    @property
    def is_empty(self) -> bool:
        return not self._items

    def move_to(self, outbox: Outbox) -> None:
        """From now on append to another outbox, whose encoding is the same, since held frames are encoded."""
        with self._lock:
            self._outbox = outbox

    def put(self, item: _Held) -> None:
        """Does not wait."""
        self._items.append(item)
        self.let_go()

    def let_go(self, coming: Flight | None = None, *, surely: bool = False) -> None:
        """Send what need not be held any more; of the thread that is `coming`, all that precedes that.

        With `surely`, it is in the outbox when this returns; without, another thread may be at it.
        """
        sends = False
        while self._has_work(coming) and self._lock.acquire(surely):
            try:
                sends = self._take_locked(coming) or sends
            finally:
                self._lock.release()
        if sends:
            self._outbox.flush()

    def wait_for_room(self, size: int, timeout_s: float) -> None:
        """Wait until `size` more bytes would be within the outbox's bound, at most `timeout_s`.

        Also for a thread that writes to the client: it might let any number be queued meanwhile.
        """
        if timeout_s <= 0:
            return
        outbox, deadline = self._outbox, monotonic() + timeout_s
        self._wait(lambda: self.held_bytes + size <= outbox.max_bytes or not self.held_bytes, timeout_s)
        if outbox.is_blocked or outbox.is_queued:
            outbox.wait_for_room(self.held_bytes + size, max(0.0, deadline - monotonic()))

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until nothing is held, at most `timeout_s`. False if something is."""
        return self._wait(lambda: not self._items, timeout_s)

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        if done() or timeout_s <= 0:
            return done()
        deadline, bell = monotonic() + timeout_s, Bell()
        self._bells.append(bell)
        try:
            while not done() and (left_s := deadline - monotonic()) > 0:
                _await(bell, left_s)
        finally:
            self._bells.remove(bell)
        return done()

    def _has_work(self, coming: Flight | None) -> bool:
        if coming is not None:
            return any(item.precedes(coming) for item in self._items.copy())
        first = self._items[:1]
        return bool(first) and (self._counted < len(self._items) or first[0].is_free())

    def _take_locked(self, coming: Flight | None) -> bool:
        """Append to the outbox what may go. Whether there was something."""
        items, outbox = self._items, self._outbox
        fresh = items[self._counted :]
        self._counted += len(fresh)
        self.held_bytes += sum(len(item.frame) for item in fresh)
        if coming is not None:
            going = [item for item in items[: self._counted] if item.precedes(coming)]
        else:
            count = self._counted if self.held_bytes > MAX_HELD_BYTES else 0
            while count < self._counted and items[count].is_free():
                count += 1
            going = items[:count]
        if not going:
            return False
        size = sum(len(item.frame) for item in going)
        # If that alone is past the bound, more will wait behind it than did before it, until the client is even.
        outbox.excuse(size if size <= outbox.max_bytes else 4 * size)
        for item in going:
            if item.closes:
                outbox.append_close(item.frame)
            else:
                outbox.append(item.frame)
        if coming is None:
            del items[: len(going)]
        else:
            items[: self._counted] = [item for item in items[: self._counted] if not item.precedes(coming)]
        self._counted -= len(going)
        self.held_bytes -= size
        for bell in self._bells.copy():
            bell.put(None)
        return True


def _await(bell: Bell, timeout_s: float) -> None:
    with suppress(Empty):
        bell.get(timeout=timeout_s)
