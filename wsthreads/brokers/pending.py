"""Broadcasts that are pending: sent to the broker, and not yet back. Later messages must not overtake them.

A broadcast reaches the members in this process when it comes back from the broker, which gives it its place in the
room's order. The thread that broadcasts does not wait for that. Meanwhile, frames for a session that come after the
broadcast are held, in the session's `HeldFrames`.

What holds, for each session:

- What any threads pass to its `send` and `close` arrives in the order of the calls.
- What one thread sends to the session and broadcasts to its rooms arrives in the order of the calls.

The exception is a late broadcast: later frames overtake it. A broadcast is late in four cases: it is not back after
`LONGEST_S`; the broker has owed an answer for that long; more than `MAX_HELD_BYTES` are held for one session; or the
session receives a later broadcast of the same thread first (the nodes of a cluster answer in any order, and after a
break the rooms' logs are read one after the other). While something waits, the flusher looks for late broadcasts: it
never waits for the broker itself.

A finalizer may send, close and ask at any point of this module, in the thread that it interrupts. So these calls only
try to take locks, and wait for nothing. A thread that finds the lock of `HeldFrames` taken leaves its frame to the
holder, which looks again after it has released the lock. Each single operation on a list or dict is atomic, with and
without the GIL; the module relies on that.
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

if TYPE_CHECKING:
    from wsthreads.protocol.outbox import Outbox
    from wsthreads.threads.flusher import Flusher

__all__ = ["LONGEST_S", "MAX_HELD_BYTES", "HeldFrames", "PendingBroadcast", "PendingBroadcasts"]

#: A broadcast that is not back after this long is late.
LONGEST_S = 1.0

#: How often the flusher looks for late broadcasts.
LOOK_S = 0.1

#: When more than this is held for one session, the broadcasts before it are late. Only threads that must not wait reach
#: this limit: a session's own thread waits in `send` while `max_outbox_bytes` are held.
MAX_HELD_BYTES = 64 * 1024 * 1024

#: A room: the path of its endpoint, and its name.
RoomKey = tuple[str, str]

#: Wakes the thread that waits for an item. `SimpleQueue.put` is re-entrant, the methods of a Condition are not.
Bell = SimpleQueue[None]


class EndpointRooms(Protocol):
    """The rooms of one endpoint."""

    path: str


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
    def _held_frames(self) -> HeldFrames:
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
        broadcast = self._out.get(ticket)
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
        found = [self._rooms.get((path, name)) for name in session._joined]
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
        session._held_frames.put(_HeldFrame(threading.get_ident(), self._next, broadcasts, frame, closes))
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
                _await(bell, max(0.0, broadcast.due - monotonic()))

    def wait_room(self, room: RoomKey) -> None:
        """Wait until the members have what any thread has broadcast to a room so far. Not for a late one."""
        _wait_back(self._rooms.get(room))

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


class _HeldFrame(NamedTuple):
    """A frame that waits for broadcasts."""

    thread: int
    next_ticket: int  # broadcasts with this ticket or a later one began after the frame
    broadcasts: list[PendingBroadcast]
    frame: bytes
    closes: bool

    def is_free(self) -> bool:
        return all(broadcast.is_back for broadcast in self.broadcasts)

    def precedes(self, broadcast: PendingBroadcast | None) -> bool:
        """Whether the same thread made the broadcast after this frame."""
        return broadcast is not None and self.thread == broadcast.thread and self.next_ticket <= broadcast.ticket


class HeldFrames:
    """The held frames of one session, in the order in which they go to its outbox. Any thread."""

    __slots__ = ("_bells", "_counted", "_items", "_lock", "_outbox", "held_bytes")

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._items: list[_HeldFrame] = []  # any thread appends; a frame is removed once it is in the outbox
        # Guards removing from _items, writing the next two, and the order in which frames go to the outbox.
        self._lock = threading.Lock()
        self._counted = 0  # how many of _items are included in held_bytes
        self.held_bytes = 0
        self._bells: list[Bell] = []  # of threads that wait until a frame is removed

    @property
    def flusher(self) -> Flusher:
        """The session's flusher, which has timers."""
        return self._outbox.flusher

    @property
    def is_empty(self) -> bool:
        return not self._items

    def move_to(self, outbox: Outbox) -> None:
        """From now on append to another outbox, whose encoding is the same, since held frames are encoded."""
        with self._lock:
            self._outbox = outbox

    def put(self, item: _HeldFrame) -> None:
        """Does not wait."""
        self._items.append(item)
        self.let_go()

    def let_go(self, coming: PendingBroadcast | None = None, *, surely: bool = False) -> None:
        """Send the frames whose broadcasts are back. With `coming`, a broadcast: those that its thread sent before it.

        With `surely`, the frames are in the outbox when this returns. Otherwise another thread may still move them.
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
        """Wait until the outbox's limit admits `size` more bytes, at most `timeout_s`.

        A thread that writes to the client waits, too: otherwise any number of bytes could be queued meanwhile.
        """
        if timeout_s <= 0:
            return
        outbox, deadline = self._outbox, monotonic() + timeout_s
        self._wait(lambda: self.held_bytes + size <= outbox.max_bytes or not self.held_bytes, timeout_s)
        if outbox.is_blocked or outbox.is_queued:
            outbox.wait_for_room(self.held_bytes + size, max(0.0, deadline - monotonic()))

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until nothing is held, at most `timeout_s`. False if something still is."""
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

    def _has_work(self, coming: PendingBroadcast | None) -> bool:
        if coming is not None:
            return any(item.precedes(coming) for item in self._items.copy())
        first = self._items[:1]
        return bool(first) and (self._counted < len(self._items) or first[0].is_free())

    def _take_locked(self, coming: PendingBroadcast | None) -> bool:
        """Move to the outbox the frames that may go. Whether there were any."""
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
        # Frames beyond the limit at once delay what follows, until the client has caught up: allow more for a while.
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


def _wait_back(broadcast: PendingBroadcast | None, deadline: float = inf) -> None:
    if broadcast is not None and not broadcast.is_back:
        bell = Bell()
        broadcast.bells.append(bell)
        if not broadcast.is_back:
            _await(bell, max(0.0, min(deadline, broadcast.due) - monotonic()))


def _await(bell: Bell, timeout_s: float) -> None:
    with suppress(Empty):
        bell.get(timeout=timeout_s)
