"""Rooms: membership, and broadcasts in one order.

The first member creates a room, and the last member deletes it. Creating a room and deleting it are atomic steps of the
`StripedDict` that has all rooms. So a session that joins while the last member leaves is never in a room that
broadcasts do not reach.

Locks are taken in this order: a room's `order`, a session's `_membership`, a stripe of a `StripedDict`. While a thread
holds `order`, it only appends messages to outboxes. The broadcasting thread or the drainer sends the messages after
that. A message is encoded before it is appended, once for all members with the same `Encoding`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from threading import Lock
from typing import Any, Generic, TypeVar

from wsthreads.errors import BrokerError, HistoryError, RoomLimitError, RoomNameError, counted
from wsthreads.protocol.outbox import Outbox
from wsthreads.protocol.writer_threads import WriterThreads
from wsthreads.rooms.attributes import Attributes
from wsthreads.rooms.directory import Directory
from wsthreads.rooms.handles import Room, SessionRoom
from wsthreads.rooms.histories import OFF, Histories
from wsthreads.rooms.history import Limits, Log
from wsthreads.rooms.joined import JOINED, NOT_JOINED, Joined
from wsthreads.rooms.listing import Listing
from wsthreads.rooms.local_attributes import LocalAttributes
from wsthreads.rooms.members import ENCODING_NAME, Member, Members, without
from wsthreads.rooms.names import is_hidden
from wsthreads.rooms.owned_room import OwnedRoom
from wsthreads.rooms.ownership import Ownership
from wsthreads.rooms.presence import Person
from wsthreads.rooms.roster import Roster
from wsthreads.threads.drainer import Drainer
from wsthreads.threads.flusher import Timers
from wsthreads.threads.scheduling import NO_SCHEDULING, Scheduling

__all__ = ["Member", "Rooms"]

#: The error for a broadcast or a kick in a process that was forked from a server, without Redis.
FORKED = (
    "this process was forked from a server, and has none of its connections. Do this in the server's process, or over "
    "Redis by RedisBroker(url).room(endpoint, name), .user(endpoint, name) or .session(endpoint, id)"
)

M = TypeVar("M", bound=Member)


def _count_nothing(counter: str) -> None:
    """The default of `count`. Does nothing."""


def _nobody() -> None:
    """The default of `owner`: there is no endpoint."""


class Rooms(Listing, Generic[M]):
    """All rooms of one endpoint. Any thread.

    `count` is called with the name of a counter when a session exceeds its limit of rooms.
    """

    def __init__(
        self,
        drainer: Drainer,
        *,
        writers: WriterThreads | None = None,
        max_name_chars: int,
        max_per_session: int,
        count: Callable[[str], None] = _count_nothing,
        scheduling: Scheduling = NO_SCHEDULING,
    ) -> None:
        super().__init__(drainer, writers)
        self._scheduling = scheduling
        self._max_name_chars = max_name_chars
        self._max_per_session = max_per_session
        self._count = count
        # Whether this process was forked from a process with members, and has had no member of its own.
        self._is_forked = False
        #: The presence of the rooms. None until `use_roster` was called.
        self.roster: Roster | None = None
        self._ownership: Ownership | None = None  # None until `use_ownership` was called
        self._directory: Directory | None = None  # None until `use_directory` was called
        self._attributes: Attributes | None = None  # None until `use_attributes` was called
        #: Returns the endpoint, or None. The rooms themselves have no reference to the endpoint.
        self.owner: Callable[[], Any] = _nobody

    def give_up(self, *, has_members: bool) -> None:
        """Forget all members in a forked process, because the members are those of the parent."""
        self._members.renew()
        self._ending = Lock()
        self._is_forked = self._is_forked or has_members
        if self.roster is not None:
            self.roster.give_up()
        if self._ownership is not None:
            self._ownership.give_up()
        if self.history is not None:
            self.history.give_up()
        if self._directory is not None:
            self._directory.bans.give_up()
        if self._attributes is not None:
            self._attributes.give_up()

    def check_reach(self) -> None:
        """Raise `BrokerError` in a process that was forked from the process with the members."""
        if self._is_forked:
            raise BrokerError(FORKED)

    def use_roster(self, **parts: Any) -> Roster:
        """Make the roster of these rooms. `parts` are the arguments of `Roster` that the endpoint knows."""
        roster = Roster(broadcast_here=self._spread, has_members=self._members.__contains__, **parts)
        self.roster = roster
        return roster

    def use_ownership(self, **parts: Any) -> Ownership:
        """Make the ownership of these rooms. `parts` are the arguments of `Ownership` that the endpoint knows."""
        self._ownership = Ownership(**self._for_ownership(), **parts)
        return self._ownership

    @property
    def ownership(self) -> Ownership:
        """Decides which rooms this process owns, and accepts the posts to rooms."""
        assert self._ownership is not None, "rooms without an ownership"
        return self._ownership

    def _for_ownership(self) -> dict[str, Any]:
        """The arguments of `Ownership` that the rooms know."""
        return {
            "make_room": self.owned_room,
            "has_members": self._members.__contains__,
            "names": self.names,
            "check_reach": self.check_reach,
        }

    def use_history(self, timers: Timers, limits: Limits) -> None:
        """Turn the history on, if the limits allow any messages."""
        if limits.messages:
            self.history = Histories(timers, limits, has_members=self._members.__contains__)

    def use_directory(self, **parts: Any) -> Directory:
        """Make the directory of these rooms. `parts` are the arguments of `Directory` that the endpoint knows."""
        self._directory = Directory(self, **parts)
        return self._directory

    def use_attributes(self, **parts: Any) -> Attributes:
        """Make the attributes of these rooms.

        `parts` are the arguments of `LocalAttributes` that the endpoint knows.
        """
        has_members, ownership = self._members.__contains__, self._ownership
        attributes = LocalAttributes(has_members=has_members, check_reach=self.check_reach, **parts)
        if ownership is not None:
            attributes.is_owner = ownership.is_owner
        self._attributes = attributes
        return attributes

    @property
    def attributes(self) -> Attributes:
        """The attributes of the rooms."""
        assert self._attributes is not None, "rooms without attributes"
        return self._attributes

    @property
    def directory(self) -> Directory:
        """Reaches users and single sessions, and closes rooms."""
        assert self._directory is not None, "rooms without a directory"
        return self._directory

    def room(self, name: str) -> Room:
        """A handle on a room, without a session. Raises `RoomNameError`."""
        return Room(self._checked(name), self)

    def owned_room(self, name: str, fence: int) -> OwnedRoom:
        """The handle that the handler of an owned room gets."""
        return OwnedRoom(name, self, fence)

    def for_session(self, name: str, session: M) -> SessionRoom:
        """A session's handle on a room. Raises `RoomNameError`."""
        return SessionRoom(self._checked(name), self, session)

    def join(
        self,
        name: str,
        session: M,
        *,
        history: int | None = None,
        since: str | None = None,
        max_members: int | None = None,
    ) -> Joined:
        """Make a session a member. Does nothing if it is already a member, or has ended. Raises `RoomLimitError`.

        The options are those of `SessionRoom.join`.
        """
        histories = self.history
        if histories is None:
            if history or since is not None:
                raise HistoryError(OFF)
        else:
            histories.check(history, since)
        if is_hidden(name):
            self._has_hidden = True
        else:
            self._scheduling.joins_room()
        try:
            if histories is None or is_hidden(name):
                joined, _ = self._enter(name, session, max_members)
            else:
                joined = histories.join(name, session, partial(self._enter, name, session, max_members), history, since)
        finally:
            self._moved(name)  # a room with a member needs an owner, even if the history could not be replayed
        return joined

    def _enter(
        self, name: str, session: M, max_members: int | None, log: Log | None = None
    ) -> tuple[Joined, Outbox | None]:
        """Make a session a member, unless the room is full.

        If the room has a history, `log` is its log, whose lock `order` is held. Returns the outbox that receives later
        broadcasts. Returns None if the session has not joined in this call.
        """
        is_full = False

        def add(members: Members | None) -> Members:
            nonlocal is_full
            members = members or Members(log)
            if max_members is not None and len(members.sessions) >= max_members:
                is_full = True
                return members
            members.sessions[session] = session._outbox
            members.outboxes = None
            return members

        with session._membership:
            joined, limit = session._joined, self._max_per_session
            if session._ended:
                return NOT_JOINED, None
            if name in joined:
                return JOINED, None
            if len(joined) >= limit and not is_hidden(name) and sum(not is_hidden(other) for other in joined) >= limit:
                self._count("past_max_rooms_per_session")
                raise RoomLimitError(f"a session may be in at most {counted(limit, 'room')}; {name!r:.80} is one more")
            if self._attributes is not None and self._attributes.is_told:
                self._attributes.before_join(name)
            self._members.compute(name, add)
            if is_full:
                return NOT_JOINED, None
            self._is_forked = False
            session._joined |= {name}
            return JOINED, session._outbox

    def _moved(self, name: str) -> None:
        """Called without locks after a session has joined or left a room."""
        ownership = self._ownership
        if ownership is not None and ownership.is_on and not is_hidden(name):
            ownership.look(name)

    def set_presence(self, name: str, session: M, value: str) -> bool:
        """Set the presence of a member, as JSON text.

        Returns False, and changes nothing, if the session is not a member. Does nothing for a session that has ended.
        """
        roster = self._roster
        with session._membership:
            if session._ended:
                return True
            if name not in session._joined:
                return False
            roster.set(name, session.id, session.user, value)
        roster.tell(name)
        return True

    def presence_text(self, value: Any) -> str:
        """Encode a presence value as JSON text. Raises `PresenceError`."""
        return self._roster.text_of(value)

    def persons(self, name: str, reader: str | None = None) -> list[Person]:
        """The persons in a room, in order of arrival. `reader` is the id of the session that asks."""
        return self._roster.persons(name, reader)

    def forget_lost(self, user: str) -> None:
        """Remove the user from the rooms in which only lost sessions keep the user present."""
        if self.roster is not None:
            self.roster.kick(user)

    @property
    def _roster(self) -> Roster:
        roster = self.roster
        assert roster is not None, "rooms without a roster"
        return roster

    def leave(self, name: str, session: M) -> None:
        """End a session's membership. Does nothing if the session is not a member.

        Waits for a broadcast that is being queued. After the return, no broadcast of the room reaches the session.
        """
        while (members := self._members.get(name)) is not None:
            with members.order, session._membership:
                if name not in session._joined:
                    return
                # The room object may be another one by now. While _membership is held, the session's room cannot be
                # deleted.
                if self._members.get(name) is members:
                    session._joined -= {name}
                    if self._attributes is not None and self._attributes.is_told:
                        self._attributes.before_leave(name)
                    if self.roster is not None and self.roster.is_used and not session._ended:
                        self.roster.leave(name, session.id)
                    left = self._members.compute_if_present(name, lambda members: without(members, session))
                    if left is None and not is_hidden(name):
                        with self._ending:
                            broadcasts, deliveries = self._ended
                            self._ended = (broadcasts + members.broadcasts, deliveries + members.deliveries)
                    break
        if self.roster is not None and self.roster.is_used:
            self.roster.tell(name)
        self._moved(name)
        session._outbox.flush_surely()  # later broadcasts do not send the messages of this outbox

    def leave_all(self, session: M, *, is_lost: bool = False) -> None:
        """End all memberships of a session that has ended.

        With `is_lost`, the session's connection was lost, and its presence stays for `presence_grace_s`.
        """
        with session._membership:
            session._ended = True
            names = session._joined
        with ExitStack() as stack:  # the session leaves all rooms, even if leaving one raises an exception
            for name in names:
                stack.callback(self._end, name, session, is_lost)

    def _end(self, name: str, session: M, is_lost: bool) -> None:
        """End one membership of a session that has ended."""
        roster = self.roster
        if roster is not None and roster.is_used:
            (roster.lose if is_lost else roster.leave)(name, session.id)
        self.leave(name, session)

    def broadcast(self, name: str, frame: bytes, exclude: M | None = None, *, hand_over: bool = False) -> None:
        """Send a frame to all members but `exclude`, in the room's order. Does not wait for slow clients.

        With `hand_over`, the drainer's thread sends the frame, so that the caller can continue.
        """
        record = None
        if self.history is not None:
            record = self.history.record_of(name, frame, None if exclude is None else exclude.id)
        self._spread(name, frame, exclude, hand_over=hand_over, record=record)

    def newest(self, name: str, count: int) -> list[str | bytes]:
        """The last messages of a room, oldest first. Raises `HistoryError`. Over Redis, also raises `BrokerError`."""
        history = self._history
        self.check_reach()
        return history.newest(name, count)

    def position(self, name: str) -> str:
        """The position at the end of a room's history. Raises `HistoryError`. Over Redis, also raises `BrokerError`."""
        history = self._history
        self.check_reach()
        return history.position(name)

    @property
    def _history(self) -> Histories[Any]:
        if self.history is None:
            raise HistoryError(OFF)
        return self.history

    def _checked(self, name: str) -> str:
        limit = self._max_name_chars
        if not isinstance(name, str):
            raise RoomNameError(f"a room name must be text of 1 to {limit} characters, not {type(name).__name__}")
        if not 1 <= len(name) <= limit:
            raise RoomNameError(f"a room name must have 1 to {limit} characters, this one has {len(name)}")
        if is_hidden(name):
            raise RoomNameError(f"a room name must not begin with a NUL character, as {name!r:.80} does")
        return name

    def __len__(self) -> int:
        return len(self._visible())

    def _check(self) -> None:
        """Check the invariants, for tests at a quiet point."""
        if self.history is not None:
            self.history._check()
        for name, members in self._members.snapshot().items():
            assert members.sessions, f"room {name!r} is empty"
            for session, outbox in members.sessions.items():
                assert name in session._joined, f"{session} does not know that it is in {name!r}"
                assert not session._ended, f"{session} is over, and still in {name!r}"
                assert outbox is session._outbox
            log = None if self.history is None or is_hidden(name) else self.history.log(name)
            assert members.log is log, f"room {name!r} has the log of another room, or an old one"
            assert members.outboxes in (None, tuple(sorted(members.sessions.values(), key=ENCODING_NAME)))
