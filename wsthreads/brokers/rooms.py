"""Rooms whose members are in several processes: the same to a handler, but for the latency.

What is broadcast goes to the broker, and comes back to every process that has members, this one included, in the
order in which the broker took it. Members in this process are kept, and sent to, by `Rooms`.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from wsthreads.brokers.turns import LONGEST_S, Line
from wsthreads.protocol.encoding import PLAIN
from wsthreads.protocol.frames import message_frame
from wsthreads.rooms.rooms import Rooms
from wsthreads.sessions.session import Channel, Session
from wsthreads.threads.blocking import has_interrupted

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Link
    from wsthreads.threads.drainer import Drainer

__all__ = ["SharedRooms", "SharedSession"]


class SharedRooms(Rooms[Session]):
    """All rooms of one endpoint, over `link`. Any thread."""

    def __init__(self, path: str, link: Link, drainer: Drainer, **options: Any) -> None:
        super().__init__(drainer, **options)
        self.path = path
        self._link = link
        self._by_id: WeakValueDictionary[str, SharedSession] = WeakValueDictionary()

    def count(self, name: str) -> int:
        """How many members a room has, in all processes. Waits for the broker, for a second at most."""
        elsewhere = self._link.members_elsewhere(self.path, name)
        return elsewhere + self.count_here(name)

    def count_here(self, name: str) -> int:
        """How many of them are in this process."""
        return super().count(name)

    def join(self, name: str, session: Session) -> None:
        """As in `Rooms`. The first member in this process waits until broadcasts reach it, for a second at most."""
        self._link.turns.wait(_shared(session), name)  # what this thread has broadcast is not for who joins now
        super().join(name, session)
        self._link.update(self.path, name, self)

    def leave(self, name: str, session: Session) -> None:
        """As in `Rooms`, behind what the current thread has broadcast to the room."""
        if not session._ended:
            self._link.turns.wait(_shared(session), name)
        super().leave(name, session)
        self._link.update(self.path, name, self)

    def leave_all(self, session: Session, *, is_lost: bool = False) -> None:
        """As in `Rooms`. What comes before the session's close frame is waited for, for a second or so."""
        session._outbox.wait_released(2 * LONGEST_S)
        super().leave_all(session, is_lost=is_lost)

    def broadcast(self, name: str, frame: bytes, exclude: Session | None = None, *, hand_over: bool = False) -> None:
        """Have a frame sent to all members but `exclude`, in the one order of the room. Raises `BrokerError`.

        It is always another thread that sends.
        """
        self._link.publish(self.path, name, frame, exclude)

    def deliver(self, name: str, frame: bytes, exclude_id: str | None, *, ticket: int, hand_over: bool) -> None:
        """Send a frame that has come back to the members in this process."""
        if ticket >= 0:
            self._link.turns.coming(ticket, self, name, exclude_id)
        exclude = None if exclude_id is None else self._by_id.get(exclude_id)
        super().broadcast(name, frame, exclude, hand_over=hand_over)


class SharedSession(Session):
    """A session in `SharedRooms`: what is sent to it does not overtake what the same thread has broadcast.

    `Outbox` knows it as its `Front`.
    """

    __slots__ = ("_line",)

    _rooms: SharedRooms

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._rooms._by_id[self.id] = self
        self._line = Line(self._outbox)
        self._outbox.front = self

    def send(self, message: str | bytes, *, timeout: float | None = None) -> bool:
        """As in `Session`; behind a broadcast that is on its way, it is true before the message is sent.

        What is held until then counts as piled up.
        """
        turns, line, outbox = self._rooms._link.turns, self._line, self._channel.outbox
        flights = turns.before_message(self)
        if not flights and line.is_empty and not outbox.is_queued:
            return super().send(message, timeout=timeout)
        frame = message_frame(message)
        if outbox.encoding is not PLAIN:
            frame = outbox.encoding.frame(frame)
        if self._thread == get_ident() and not has_interrupted():
            line.wait_for_room(len(frame), self._wait_s if timeout is None else timeout)
        if not self.is_open():
            return False
        turns.hold(self, frame, flights)
        return True

    def _move_to(self, channel: Channel) -> None:
        self._outbox.front, channel.outbox.front = None, self
        self._line.move_to(channel.outbox)
        super()._move_to(channel)

    @property
    def _held_bytes(self) -> int:
        return self._line.held_bytes

    def _hold_close(self, frame: bytes) -> bool:
        turns = self._rooms._link.turns
        flights = turns.before_close(self)
        if not flights and self._line.is_empty:
            return False
        turns.hold(self, frame, flights, closes=True)
        return True

    def _wait_released(self, timeout_s: float) -> bool:
        return self._line.wait_empty(timeout_s)


def _shared(session: Session) -> SharedSession:
    """All sessions of `SharedRooms` are."""
    assert isinstance(session, SharedSession)
    return session
