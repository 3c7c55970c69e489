"""Tracks pending broadcasts: those that were sent to the broker and have not come back.

Later messages must not overtake pending broadcasts.


A broadcast gets its place in the room's order from the broker. It reaches the members in this process when it comes
back from the broker. The thread that broadcasts does not wait for that. Until then, later frames for a session are held
in the session's `HeldFrames` (see `held_frames`).

Guarantees for each session:

- Messages of `send`, and a `close`, arrive in the order of the calls, whichever threads make them.
- Messages that one thread sends to the session, and broadcasts of the same thread to the session's rooms, arrive in the
  order of the calls.

The exception is a late broadcast, which later frames overtake. A broadcast is late in four cases:

- It has not come back after `LONGEST_S`.

- The broker has not answered a call for that long.

- More than `held_frames.MAX_HELD_BYTES` are held for one session.

- The session receives a later broadcast of the same thread first. The nodes of a cluster answer in any order, and after
  a break the rooms' logs are read one after the other.

While a thread or a frame waits, the flusher looks for late broadcasts, because the flusher never waits for the broker.

A finalizer may run in any thread, at any line of this module, and may call `send` and `close`. So these calls only try
to take locks, and do not wait. The module relies on each single operation on a list or dict being atomic, with and
without the GIL.
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

#: A broadcast that has not come back after this long is late.
LONGEST_S = 1.0

#: How often the flusher looks for late broadcasts.
LOOK_S = 0.1

#: A room: the path of its endpoint, and its name.
RoomKey = tuple[str, str]


class Bell(SimpleQueue[None]):
    """Wakes a thread that waits. Uses `SimpleQueue.put`, which is re-entrant; the methods of a Condition are not."""

    def wait(self, timeout_s: float) -> None:
        """Wait for an item, at most `timeout_s`."""
        with suppress(Empty):
            self.get(timeout=timeout_s)


class EndpointRooms(Protocol):
    """The part of the rooms of one endpoint that this module uses."""

    path: str


class Holder(Protocol):
    """The part of `HeldFrames` that this module uses."""

    @property
    def flusher(self) -> Flusher: ...

    def put(self, next_ticket: int, broadcasts: list[PendingBroadcast], frame: bytes, closes: bool) -> None: ...

    def let_go(self, coming: PendingBroadcast | None = None, *, surely: bool = False) -> None: ...


class Addressee(Protocol):
    """The part of a session that this module uses."""

    @property
    def id(self) -> str:
        """The session's id."""

    @property
    def _rooms(self) -> EndpointRooms:
        """The rooms of the session's endpoint."""

    @property
    def _joined(self) -> frozenset[str]:
        """The names of the session's rooms."""

    @property
    def _held_frames(self) -> Holder:
        """The frames that are held for the session."""


class PendingBroadcast:
    """A broadcast of this process that the members do not have yet, and that is not late."""

    __slots__ = ("bells", "due", "exclude_id", "is_back", "sessions", "thread", "ticket")

    def __init__(self, ticket: int, exclude_id: str | None) -> None:
        self.ticket = ticket
        self.exclude_id = exclude_id
        self.thread = threading.get_ident()
        self.due = monotonic() + LONGEST_S
        self.is_back = False
        # The sessions and threads that wait. A thread that adds an item to these must check is_back after that.
        self.sessions: dict[Addressee, None] = {}  # sessions with a held frame that waits for this broadcast
        self.bells: list[Bell] = []


class _Last(NamedTuple):
    """The last broadcast of a thread to a room."""

    broadcast: PendingBroadcast
    # the last earlier broadcast that the session `exclude_id` of `broadcast` does receive
    other: PendingBroadcast | None

    def of(self, session: Addressee) -> PendingBroadcast | None:
        """The thread's last broadcast that the session may receive.

        None if that broadcast has come back. All earlier ones have come back then too.
        """
        broadcast = self.broadcast if self.broadcast.exclude_id != session.id else self.other
        return None if broadcast is None or broadcast.is_back else broadcast


class _ThreadState(threading.local):
    """The broadcasts of the current thread. It has no `__init__`, because a finalizer could find a half-made object."""

    rooms: Mapping[RoomKey, _Last] = MappingProxyType({})  # never changed, only replaced by a new mapping
    newest: PendingBroadcast | None = None  # None if rooms is empty


class PendingBroadcasts:
    """The pending broadcasts of this process, by ticket. Any thread."""

    def __init__(self) -> None:
        self._out: dict[int, PendingBroadcast] = {}
        self._awaited: dict[int, PendingBroadcast] = {}  # the pending broadcasts for which a thread or a frame waits
        self._rooms: dict[RoomKey, PendingBroadcast] = {}  # the last broadcast to each room, by any thread
        self._next = 0  # the next ticket
        self._low = 0  # all lower tickets have come back; only the reader's thread uses this
        self._thread_state = _ThreadState()
        #: Functions that end late broadcasts. The flusher calls them regularly while a thread or a frame may have to
        #: wait.
        self.checks: list[Callable[[], object]] = []
        self._looking = threading.Lock()  # held while the flusher has a timer for `_look`; taken without waiting

    def begin(self, ticket: int, room: RoomKey, exclude_id: str | None) -> None:
        """Add a broadcast of the current thread. The calls are made under one lock, in the order of the tickets."""
        broadcast = PendingBroadcast(ticket, exclude_id)
        self._out[ticket] = self._rooms[room] = broadcast
        self._next = ticket + 1
        state = self._current()
        last = state.rooms.get(room)
        other = None if last is None else last.other if last.broadcast.exclude_id == exclude_id else last.broadcast
        state.rooms = {**state.rooms, room: _Last(broadcast, other)}
        state.newest = broadcast

    def forget(self, room: RoomKey) -> None:
        """Forget a room because its last member in this process has left. Called under the same lock as `begin`."""
        self._rooms.pop(room, None)

    def end(self, ticket: int) -> None:
        """End a broadcast: it has come back and the members have it, or it will not come back."""
        self._end([ticket])

    def end_all(self) -> None:
        """End all broadcasts, because the broker is unavailable."""
        self._end(self._out.copy())

    def end_overdue(self) -> bool:
        """End broadcasts that have not come back after `LONGEST_S`.

        Returns whether there were such broadcasts. Called several times a second.
        """
        if not self._out:
            return False
        now = monotonic()
        overdue = [ticket for ticket, broadcast in self._out.copy().items() if broadcast.due <= now]
        self._end(overdue)
        return bool(overdue)

    def coming(self, ticket: int, rooms: EndpointRooms, name: str, exclude_id: str | None) -> None:
        """Called by the reader's thread when a broadcast is about to reach the members of a room.

        In each session that receives this broadcast, it overtakes earlier broadcasts that are still pending. Their held
        frames go first.
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
        """The broadcasts that the next message of the current thread to a session must not overtake."""
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
        """The broadcasts that a session's close frame must not overtake: those of any thread to its rooms."""
        path = session._rooms.path
        found = [look_up(self._rooms, (path, name)) for name in session._joined]
        return [broadcast for broadcast in found if broadcast is not None and not broadcast.is_back]

    def hold(
        self, session: Addressee, frame: bytes, broadcasts: list[PendingBroadcast], *, closes: bool = False
    ) -> None:
        """Hold a frame until `broadcasts` have come back and all earlier held frames of the session were sent."""
        for broadcast in broadcasts:
            broadcast.sessions[session] = None
            self._awaited[broadcast.ticket] = broadcast
            if broadcast.is_back:
                self._awaited.pop(broadcast.ticket, None)
                broadcast.sessions.pop(session, None)
        session._held_frames.put(self._next, broadcasts, frame, closes)
        self._have_looked_after(session)

    def wait(self, session: Addressee, name: str) -> None:
        """Wait until a session has all those broadcasts of the current thread to a room that it may receive."""
        last = self._current().rooms.get((session._rooms.path, name))
        broadcast = None if last is None else last.of(session)
        if broadcast is not None:
            bell = Bell()
            broadcast.bells.append(bell)
            self._have_looked_after(session)
            if not broadcast.is_back:
                bell.wait(max(0.0, broadcast.due - monotonic()))

    def wait_room(self, room: RoomKey) -> None:
        """Wait until the members have all earlier broadcasts to a room, of any thread. Does not wait for late ones."""
        _wait_back(look_up(self._rooms, room))

    def wait_all(self, timeout_s: float) -> None:
        """Wait until the members have all earlier broadcasts, of any thread.

        Waits at most `timeout_s`, and not for late broadcasts.
        """
        deadline = monotonic() + timeout_s
        for broadcast in self._out.copy().values():
            _wait_back(broadcast, deadline)

    def _have_looked_after(self, session: Addressee) -> None:
        flusher = session._held_frames.flusher
        if self._out and self._looking.acquire(blocking=False):
            flusher.call_later(LOOK_S, partial(self._look, flusher))

    def _look(self, flusher: Flusher) -> None:
        """Called by the flusher's timer."""
        self._looking.release()
        for check in self.checks:
            check()
        if self._out and self._looking.acquire(blocking=False):
            flusher.call_later(LOOK_S, partial(self._look, flusher))

    def _current(self) -> _ThreadState:
        """The broadcasts of the current thread, after those that have come back were removed."""
        state = self._thread_state
        if state.newest is not None and state.newest.is_back:
            state.rooms = {room: last for room, last in state.rooms.items() if not last.broadcast.is_back}
            state.newest = next((last.broadcast for last in state.rooms.values()), None)
        return state

    def _end(self, tickets: Iterable[int]) -> None:
        with ExitStack() as stack:  # end all broadcasts, even if one fails
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
                broadcast.sessions.clear()  # the broadcast's thread may keep the broadcast object for a long time
                broadcast.bells.clear()


def _wait_back(broadcast: PendingBroadcast | None, deadline: float = inf) -> None:
    if broadcast is not None and not broadcast.is_back:
        bell = Bell()
        broadcast.bells.append(bell)
        if not broadcast.is_back:
            bell.wait(max(0.0, min(deadline, broadcast.due) - monotonic()))
