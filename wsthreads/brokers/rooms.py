"""Rooms whose members are in several processes: the same to a handler, but for the latency.

What is broadcast goes to the broker, and comes back to every process that has members, this one included, in the
order in which the broker took it. Members in this process are kept, and sent to, by `Rooms`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from wsthreads.errors import CloseCode
from wsthreads.frames import message_frame
from wsthreads.rooms import Rooms
from wsthreads.session import Session

if TYPE_CHECKING:
    from wsthreads.brokers import Link
    from wsthreads.drainer import Drainer

__all__ = ["SharedRooms", "SharedSession"]


class SharedRooms(Rooms):
    """All rooms of one endpoint, over `link`. Any thread."""

    def __init__(self, path: str, link: Link, drainer: Drainer, **options: Any) -> None:
        super().__init__(drainer, **options)
        self._path = path
        self._link = link
        self._by_id: WeakValueDictionary[str, SharedSession] = WeakValueDictionary()

    def count(self, name: str) -> int:
        """How many members a room has, in all processes. Waits for the broker, for a second at most."""
        elsewhere = self._link.members_elsewhere(self._path, name)
        return elsewhere + self.count_here(name)

    def count_here(self, name: str) -> int:
        """How many of them are in this process."""
        return super().count(name)

    def join(self, name: str, session: Session) -> None:
        """As in `Rooms`. The first member in this process waits until broadcasts reach it, for a second at most."""
        self._link.turns.wait(session)  # what this thread has broadcast is not for who joins now
        super().join(name, session)
        self._link.update(self._path, name, self)

    def leave(self, name: str, session: Session) -> None:
        """As in `Rooms`."""
        self._link.turns.wait(session)
        super().leave(name, session)
        self._link.update(self._path, name, self)

    def broadcast(self, name: str, frame: bytes, exclude: Session | None = None, *, hand_over: bool = False) -> None:
        """Have a frame sent to all members but `exclude`, in the one order of the room. Raises `BrokerError`.

        It is always another thread that sends.
        """
        self._link.publish(self._path, name, frame, exclude)

    def deliver(self, name: str, frame: bytes, exclude_id: str | None, *, hand_over: bool) -> None:
        """Send a frame that has come back to the members in this process."""
        exclude = None if exclude_id is None else self._by_id.get(exclude_id)
        super().broadcast(name, frame, exclude, hand_over=hand_over)


class SharedSession(Session):
    """A session in `SharedRooms`: what is sent to it does not overtake what the same thread has broadcast."""

    __slots__ = ()

    _rooms: SharedRooms

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._rooms._by_id[self.id] = self

    def send(self, message: str | bytes, *, timeout: float | None = None) -> bool:
        """As in `Session`; behind a broadcast that is on its way, it is true before the message is sent."""
        turns = self._rooms._link.turns
        ticket = turns.behind(self)
        if ticket < 0:
            return super().send(message, timeout=timeout)
        frame = message_frame(message)
        if not self.is_open():
            return False
        turns.hold(ticket, self._outbox, frame)
        return True

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """As in `Session`, behind what the current thread has broadcast."""
        self._rooms._link.turns.wait(self)
        super().close(code, reason)
