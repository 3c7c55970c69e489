"""Breaks the server on purpose, in one way at a time, to test the checker.

Each is an error that a change of wsthreads could cause. They need the pure Python modules (WSTHREADS_PURE_PYTHON=1).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from random import Random
from threading import Timer
from typing import Any

import wsthreads.rooms.members
import wsthreads.rooms.sending
import wsthreads.sessions.session
from wsthreads.protocol.outbox import Outbox
from wsthreads.rooms.joined import JOINED, Joined
from wsthreads.rooms.rooms import Rooms
from wsthreads.sessions.endpoint import Endpoint
from wsthreads.sessions.life import Life
from wsthreads.sessions.session import Session

__all__ = ["MUTATIONS", "apply"]

#: One in this many messages or calls meets a partial mutation.
SELDOM = 30
#: One in this many sessions meets one.
SESSIONS = 4

_dice = Random(0)


def _seldom(times: int = SELDOM) -> bool:
    return _dice.randrange(times) == 0


def apply(name: str) -> None:
    """Break what `name` says; nothing for an empty name."""
    if name:
        MUTATIONS[name]()


def a_broadcast_is_dropped() -> None:
    """For one member, like a queue that loses a frame."""
    _append_all(lambda outbox, frame: _seldom() or outbox.append(frame))


def a_message_is_dropped() -> None:
    real = wsthreads.sessions.session.post
    wsthreads.sessions.session.post = lambda outbox, frame: _seldom() or real(outbox, frame)


def two_frames_are_swapped() -> None:
    def append(outbox: Outbox, frame: bytes) -> bool:
        if outbox._close_frame is not None or outbox._detached:
            return False
        if _seldom() and (last := outbox._queue[-1:]):
            outbox._queue[-1:] = [frame, *last]
        else:
            outbox._queue.append(frame)
            time.sleep(0.0005)  # so that there are two
        return True

    Outbox.append = append


def a_broadcast_comes_twice() -> None:
    _append_all(lambda outbox, frame: outbox.append(frame) and (not _seldom() or outbox.append(frame)))


def a_room_has_no_order() -> None:
    real = wsthreads.rooms.members.Members.__init__

    def init(members: Any, log: Any = None) -> None:
        real(members, log)
        members.order = nullcontext()

    wsthreads.rooms.members.Members.__init__ = init
    _append_all(lambda outbox, frame: (time.sleep(0.0002), outbox.append(frame))[1])


def nobody_is_left_out() -> None:
    wsthreads.rooms.sending.append_all = lambda outboxes, frame, skip: sum(outbox.append(frame) for outbox in outboxes)


def what_waits_is_lost_at_a_close() -> None:
    """Sometimes messages wait for a moment, as for a slow client."""
    real = Outbox.close

    def close(outbox: Outbox, frame: bytes, *, discard: bool = False) -> bool:
        outbox._queue.clear()
        return real(outbox, frame, discard=True)

    def post(outbox: Outbox, frame: bytes) -> bool:
        Timer(0.005, outbox.flush).start()
        return outbox.append(frame)

    Outbox.close = close
    wsthreads.sessions.session.post = post


def a_leave_comes_late() -> None:
    """Affects only a session that leaves during broadcasts."""
    real = Rooms.leave

    def leave(rooms: Rooms, name: str, session: Session) -> None:
        Timer(0.05, real, (rooms, name, session)).start()

    Rooms.leave = leave


def a_join_comes_late() -> None:
    real = Rooms.join

    def join(rooms: Rooms, name: str, session: Session, **options: Any) -> Joined:
        Timer(0.05, real, (rooms, name, session), options).start()
        return JOINED

    Rooms.join = join


def somebody_stays_a_member() -> None:
    Rooms.leave_all = lambda rooms, session, **options: None


def a_send_is_denied() -> None:
    real = wsthreads.sessions.session.post
    wsthreads.sessions.session.post = lambda outbox, frame: real(outbox, frame) and not _seldom()


def on_close_comes_twice() -> None:
    real = Life.close

    def close(life: Life, code: int, reason: str, **options: bool) -> bool:
        closed = real(life, code, reason, **options)
        if _seldom(SESSIONS):
            life._handler.close(life.session, 1000, "")
        return closed

    Life.close = close


def on_close_is_forgotten() -> None:
    real = Endpoint.__init__

    def init(endpoint: Endpoint, path: str, handler: Any, **options: Any) -> None:
        close = handler.close
        handler.close = lambda *arguments: None if _seldom(SESSIONS) else close(*arguments)
        real(endpoint, path, handler, **options)

    Endpoint.__init__ = init


def a_send_overtakes_a_broadcast() -> None:
    """Possible only over Redis."""
    from wsthreads.brokers.rooms import SharedSession

    SharedSession.send = Session.send


def a_send_stays_behind() -> None:
    """A thread's send is delayed."""
    real = Session.send

    def send(session: Session, message: str | bytes, **options: Any) -> bool:
        if not _seldom():
            return real(session, message, **options)
        Timer(0.005, real, (session, message)).start()
        return True

    Session.send = send


def _append_all(append: Callable[[Outbox, bytes], bool]) -> None:
    def append_all(outboxes: tuple[Outbox, ...], frame: bytes, skip: Outbox | None) -> int:
        return sum(outbox is not skip and append(outbox, frame) for outbox in outboxes)

    wsthreads.rooms.sending.append_all = append_all


#: By name. All but the last have an effect without Redis.
MUTATIONS: dict[str, Callable[[], None]] = {
    mutation.__name__.replace("_", " "): mutation
    for mutation in (
        a_broadcast_is_dropped,
        a_message_is_dropped,
        two_frames_are_swapped,
        a_broadcast_comes_twice,
        a_room_has_no_order,
        nobody_is_left_out,
        what_waits_is_lost_at_a_close,
        a_leave_comes_late,
        a_join_comes_late,
        somebody_stays_a_member,
        a_send_is_denied,
        a_send_stays_behind,
        on_close_comes_twice,
        on_close_is_forgotten,
        a_send_overtakes_a_broadcast,
    )
}
