"""Rooms whose members are in several processes. A handler uses them like local rooms. Only the latency differs.

A broadcast goes to the broker. From there it comes back to every process with members, including this one. All
processes receive the broadcasts in the order in which the broker got them. The base class `Rooms` has the members in
this process, and sends to them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from wsthreads.brokers.attributes import SharedAttributes
from wsthreads.brokers.directory import SharedDirectory
from wsthreads.brokers.held_frames import HeldFrames
from wsthreads.brokers.history import SharedHistories
from wsthreads.brokers.ownership import SharedOwnership
from wsthreads.brokers.pending import LONGEST_S
from wsthreads.brokers.presence import SharedRoster
from wsthreads.errors import BrokerError
from wsthreads.protocol.encoding import PLAIN
from wsthreads.protocol.frames import message_frame
from wsthreads.rooms.joined import NOT_JOINED, Joined
from wsthreads.rooms.members import Members
from wsthreads.rooms.names import SESSIONS_ROOM
from wsthreads.rooms.rooms import Rooms
from wsthreads.sessions.session import Session
from wsthreads.threads.blocking import has_interrupted
from wsthreads.threads.lookups import look_up

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Link
    from wsthreads.brokers.messages import Close, Direct, PresenceChange
    from wsthreads.brokers.pending import PendingBroadcast
    from wsthreads.brokers.positions import Position
    from wsthreads.brokers.stored_history import Stored
    from wsthreads.rooms.history import Limits
    from wsthreads.threads.drainer import Drainer
    from wsthreads.threads.flusher import Timers

__all__ = ["SharedRooms", "SharedSession"]


class SharedRooms(Rooms[Session]):
    """All rooms of one endpoint, which `link` shares with other processes. Any thread."""

    def __init__(self, path: str, link: Link, drainer: Drainer, **options: Any) -> None:
        super().__init__(drainer, **options)
        self.path = path
        self._link = link
        self._by_id: WeakValueDictionary[str, SharedSession] = WeakValueDictionary()
        self._seating = Lock()  # guards writes of _seats; no other lock is taken while it is held
        # For each room: the sessions that have a seat and are about to join.
        self._seats: dict[str, tuple[Session, ...]] = {}
        self._listens_in = 0  # the pid of the process in which this object receives messages for single sessions
        link.register(path, self)

    def use_roster(self, **parts: Any) -> SharedRoster:
        """Like `use_roster` of `Rooms`."""
        self.roster: SharedRoster | None = SharedRoster(
            path=self.path,
            link=self._link,
            listener=self,
            broadcast_here=self._broadcast_here,
            has_members=self._members.__contains__,
            **parts,
        )
        return self.roster

    def use_ownership(self, **parts: Any) -> SharedOwnership:
        """Like `use_ownership` of `Rooms`."""
        ownership = SharedOwnership(path=self.path, link=self._link, **self._for_ownership(), **parts)
        self._ownership: SharedOwnership | None = ownership
        return ownership

    def _broadcast_here(self, name: str, frame: bytes) -> None:
        """Send the result of `on_presence`. First waits for the broadcasts that `on_presence` has made."""
        self._link.pending.wait_room((self.path, name))
        self._spread(name, frame)

    def use_history(self, timers: Timers, limits: Limits) -> None:
        """Like `use_history` of `Rooms`."""
        if limits.messages:
            self.history: SharedHistories | None = SharedHistories(
                timers,
                limits,
                has_members=self._members.__contains__,
                path=self.path,
                link=self._link,
                listener=self,
            )

    @property
    def history_limits(self) -> Limits | None:
        """Like `history_limits` of `Listener`."""
        return None if self.history is None else self.history.limits

    def use_attributes(self, **parts: Any) -> SharedAttributes:
        """Like `use_attributes` of `Rooms`."""
        call = partial(self._link.call, self.path)
        self._attributes: SharedAttributes | None = SharedAttributes(
            call, has_members=self._members.__contains__, **parts
        )
        return self._attributes

    def use_directory(self, **parts: Any) -> SharedDirectory:
        """Like `use_directory` of `Rooms`."""
        self._directory: SharedDirectory | None = SharedDirectory(self, link=self._link, **parts)
        return self._directory

    def listen(self) -> None:
        """Begin to receive messages for single sessions.

        The first session of a process waits until this process receives such messages, for at most a second.
        """
        if self._listens_in != os.getpid():
            self._listens_in = os.getpid()
            self._link.update(self.path, SESSIONS_ROOM, self)

    def count(self, name: str) -> int:
        """The number of a room's members in all processes. Waits at most a second for the broker."""
        elsewhere = self._link.members_elsewhere(self.path, name)
        return elsewhere + super().count(name)

    def count_here(self, name: str) -> int:
        """The number of a room's members in this process, plus the sessions that have a seat and are about to join.

        The number is at least one while a session that joins waits for the room's history.
        """
        if name == SESSIONS_ROOM:
            return int(self._listens_in == os.getpid())
        if name not in self._seats:
            return super().count(name) or int(self.history is not None and self.history.is_joining(name))
        number = 0

        def count(members: Members | None) -> Members | None:
            nonlocal number
            sessions = () if members is None else members.sessions
            seats = {session for session in look_up(self._seats, name, ()) if session not in sessions}
            number = len(sessions) + len(seats)
            return members

        self._members.compute(name, count)
        return number

    def join(
        self,
        name: str,
        session: Session,
        *,
        history: int | None = None,
        since: str | None = None,
        max_members: int | None = None,
    ) -> Joined:
        """Like `join` of `Rooms`. The first member in this process waits at most a second until broadcasts reach it."""
        shared = _shared(session)
        self._link.pending.wait(shared, name)  # this thread's earlier broadcasts must not reach the new member
        if history or since is not None:
            shared._held_frames.wait_empty(LONGEST_S)  # this thread's earlier messages come before the replay
        try:
            if max_members is None:
                joined = super().join(name, session, history=history, since=since)
            else:
                with shared._seating, self._seat(name, session, max_members) as has_seat:
                    return super().join(name, session, history=history, since=since) if has_seat else NOT_JOINED
        except BaseException:
            if self.history is not None:  # this process may be subscribed to the room only for this session
                self._update(name)
            raise
        self._update(name)
        return joined

    def _update(self, name: str) -> None:
        """Count the members in this process again, after a session has joined, has left, or could not join."""
        if not self._link.update(self.path, name, self) and self.history is not None:
            self.history.unsubscribed(name)

    @contextmanager
    def _seat(self, name: str, session: Session, max_members: int) -> Iterator[bool]:
        """Count a session as a member while it joins. Gives false if the room is full. Raises `BrokerError`."""
        if session._ended or name in session._joined:
            yield True
            self._update(name)
            return
        try:
            yield super().count(name) < max_members and self._link.take_seat(
                self.path, name, self, max_members, partial(self._change_seats, name, session, 1)
            )
        finally:
            if session in look_up(self._seats, name, ()):
                try:
                    self._update(name)  # before the seat is removed, so that a later leave finds a subscription to end
                finally:
                    self._change_seats(name, session, -1)
                    if name not in session._joined:
                        self._link.give_seat_back(self.path, name, self)
                        self._update(name)

    def _change_seats(self, name: str, session: Session, change: int) -> None:
        with self._seating:
            seats = list(look_up(self._seats, name, ()))
            if change > 0:
                seats.append(session)
            else:
                seats.remove(session)
            if seats:
                self._seats[name] = tuple(seats)
            else:
                del self._seats[name]

    def leave(self, name: str, session: Session) -> None:
        """Like `leave` of `Rooms`. First waits until the session has the current thread's broadcasts to the room."""
        if not session._ended:
            self._link.pending.wait(_shared(session), name)
        super().leave(name, session)
        self._update(name)

    def leave_all(self, session: Session, *, is_lost: bool = False) -> None:
        """Like `leave_all` of `Rooms`. First waits until all earlier frames are sent, about a second at most."""
        session._outbox.wait_released(2 * LONGEST_S)
        super().leave_all(session, is_lost=is_lost)

    def broadcast(self, name: str, frame: bytes, exclude: Session | None = None, *, hand_over: bool = False) -> None:
        """Send a frame to all members but `exclude`, in the room's order. Raises `BrokerError`.

        Another thread sends the frame when it has come back from the broker.
        """
        kept = None if self.history is None else self.history.kept(name, frame)
        self._link.publish(self.path, name, frame, exclude, kept)

    @property
    def keep_s(self) -> float:
        """Like `keep_s` of `Listener`."""
        return 0.0 if self._attributes is None else self._attributes.keep_s

    def check_reach(self) -> None:
        """Like `check_reach` of `Rooms`, but never raises an error.

        Through the broker, a forked process reaches the members, too. `Link.close` waits for the broker in this case.
        """

    def deliver(
        self,
        name: str,
        frame: bytes,
        exclude_id: str | None,
        *,
        ticket: int,
        hand_over: bool,
        serial: int,
        position: Position,
    ) -> None:
        """Send a frame that has come back from the broker to the members in this process."""
        if ticket >= 0:
            self._link.pending.coming(ticket, self, name, exclude_id)
        exclude = None if exclude_id is None else self._by_id.get(exclude_id)
        history = self.history
        record = None if history is None else history.received(name, frame, exclude_id, serial, position)
        self._spread(name, frame, exclude, hand_over=hand_over, record=record)

    def take_history(self, name: str, serial: int, stored: Stored) -> None:
        if self.history is not None:
            self.history.take(name, serial, stored)

    def lose_history(self, name: str, serial: int) -> None:
        if self.history is not None:
            self.history.lose(name, serial)

    def deliver_to_session(self, message: Direct) -> None:
        """Like `deliver_to_session` of `Listener`. The following methods are also those of `Listener`."""
        if self._directory is not None:
            self._directory.send_here(message)

    def close(self, name: str, order: Close) -> None:
        if self._directory is not None:
            self._directory.obey(name, order)

    def found_ban(self, name: str, code: int, reason: str, ban_s: float) -> None:
        if self._directory is not None:
            self._directory.found_ban(name, code, reason, ban_s)

    def bans(self) -> list[tuple[str, int, str, float]]:
        return [] if self._directory is None else self._directory.known_bans()

    def change_presence(self, name: str, change: PresenceChange) -> None:
        if self.roster is not None:
            self.roster.take(name, change)

    def take_presences(self, name: str, present: Iterable[PresenceChange], *, is_first: bool, is_surely: bool) -> None:
        if self.roster is not None:
            self.roster.take_all(name, present, is_first=is_first, is_surely=is_surely)

    def forget_presences(self, name: str) -> None:
        if self.roster is not None:
            self.roster.forget_others(name)
        if self._attributes is not None:
            self._attributes.forget(name)

    def own_presences(self, name: str, session_ids: Iterable[str] | None) -> list[tuple[str, PresenceChange | None]]:
        return [] if self.roster is None else self.roster.own_presences(name, session_ids)

    def presence_names(self) -> list[str]:
        return [] if self.roster is None else self.roster.own_names()

    def watched_processes(self) -> dict[tuple[int, str], list[str]]:
        return {} if self.roster is None else self.roster.watched()


class SharedSession(Session):
    """A session in `SharedRooms`. Messages to the session do not overtake earlier broadcasts of the same thread.

    The session is the `FrameHolder` of its `Outbox`, so it may hold frames back.
    """

    __slots__ = ("_held_frames", "_is_leaving", "_seating")

    _rooms: SharedRooms

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._seating = Lock()  # held while the session waits for a seat, so that it takes only one
        self._is_leaving = False  # whether the session is about to move to another process; `Passages.cut` sets this
        self._rooms._by_id[self.id] = self
        self._rooms.listen()
        self._held_frames = HeldFrames(self._outbox)
        self._outbox.frame_holder = self

    def send(self, message: str | bytes, *, timeout: float | None = None, latest: str | None = None) -> bool:
        """Like `send` of `Session`. If an earlier broadcast is pending, this returns true before the message is sent.

        Messages that are held back count toward `max_outbox_bytes`.
        """
        if self._is_leaving and self._channel.ending is None:
            with suppress(BrokerError):  # after this error, the session stays in this process
                frame = message_frame(message, latest=latest)
                self._rooms._link.send_to_session(self._rooms.path, self.id, frame)
                return self.is_open()
        return self._send_here(message, timeout=timeout, latest=latest)

    def _send_here(self, message: str | bytes, *, timeout: float | None = None, latest: str | None = None) -> bool:
        """Send from this process. Also used for messages of other processes to this session."""
        pending, held, outbox = self._rooms._link.pending, self._held_frames, self._channel.outbox
        broadcasts = pending.before_message(self)
        if not broadcasts and held.is_empty and not outbox.is_queued:
            return super().send(message, timeout=timeout, latest=latest)
        frame = message_frame(message, latest=latest)
        if latest is not None:
            outbox.keep_short()
        if outbox.encoding is not PLAIN:
            frame = outbox.encoding.frame(frame)
        return self._hold(frame, broadcasts, timeout)

    def _post(self, frame: bytes, *, timeout: float | None = None) -> bool:
        """Like `_post` of `Session`. A request or a reply does not overtake frames that are held back."""
        broadcasts = self._rooms._link.pending.before_message(self)
        if not broadcasts and self._held_frames.is_empty and not self._channel.outbox.is_queued:
            return super()._post(frame, timeout=timeout)
        return self._hold(frame, broadcasts, timeout)

    def _hold(self, frame: bytes, broadcasts: list[PendingBroadcast], timeout: float | None) -> bool:
        """Send a frame after the frames that are held back, and after these broadcasts."""
        held = self._held_frames
        if self._thread == get_ident() and not has_interrupted():
            held.wait_for_room(len(frame), self._wait_s if timeout is None else timeout)
        if not self.is_open():
            return False
        self._rooms._link.pending.hold(self, frame, broadcasts)
        return True

    @property
    def _held_bytes(self) -> int:
        return self._held_frames.held_bytes

    def _hold_close(self, frame: bytes) -> bool:
        pending = self._rooms._link.pending
        broadcasts = pending.before_close(self)
        if not broadcasts and self._held_frames.is_empty:
            return False
        pending.hold(self, frame, broadcasts, closes=True)
        return True

    def _wait_released(self, timeout_s: float) -> bool:
        return self._held_frames.wait_empty(timeout_s)


def _shared(session: Session) -> SharedSession:
    """Returns the same object, for type checkers. Every session in `SharedRooms` is a `SharedSession`."""
    assert isinstance(session, SharedSession)
    return session
