"""A *mailbox* has the posts and ticks that wait for the handler in one owned room.

A *room call* is one call of the handler.

A mailbox has the phases of an ownership, in this order: WANTED (the room has members here, but this process does not
own it yet), NEW, STARTING, RUNNING, ENDING. The lock of the `Ownership` guards everything in this module.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from wsthreads.rooms.json_text import value_of
from wsthreads.rooms.posts import Post, Sender

if TYPE_CHECKING:
    from wsthreads.rooms.owned_room import OwnedRoom

__all__ = ["CALLS", "CallKind", "Mailbox", "OwnedState", "Phase", "RoomCall"]

CallKind = Literal["room_start", "post", "tick", "room_end"]

#: The handler's function for each kind of call.
CALLS: dict[CallKind, str] = {
    "room_start": "on_room_start",
    "post": "on_post",
    "tick": "on_tick",
    "room_end": "on_room_end",
}


class Phase(Enum):
    WANTED = auto()
    NEW = auto()
    STARTING = auto()
    RUNNING = auto()
    ENDING = auto()


class OwnedState(NamedTuple):
    """The state of an owned room, for the dashboard and for metrics."""

    fencing_number: int
    #: How many posts wait. The post that is being handled is not counted.
    posts_waiting: int
    #: How late the last tick was, in seconds. None before the first tick.
    tick_lag_s: float | None


class Owner(Protocol):
    """The part of `Ownership` that a `RoomCall` uses."""

    def check_call(self, call: RoomCall) -> bool: ...

    def begin_call(self, call: RoomCall) -> None: ...

    def end_call(self, call: RoomCall, failure: str | None) -> None: ...


class RoomCall:
    """One call of a handler's function for a room. `Handler.call_rooms` gets these."""

    __slots__ = ("_is_over", "_owner", "dt", "due_s", "kind", "lag_s", "mailbox", "may_run", "post", "room", "skipped")

    def __init__(self, owner: Owner, mailbox: Mailbox, kind: CallKind, post: Post | None = None) -> None:
        self._owner = owner
        self._is_over = False
        self.mailbox = mailbox
        self.kind: CallKind = kind
        assert mailbox.room is not None, "a call for a room that is not owned"
        #: The `OwnedRoom` of this ownership, which the function gets.
        self.room: OwnedRoom = mailbox.room
        self.post = post
        #: For a tick: the seconds since the last tick.
        self.dt = 0.0
        #: For a tick: when it was due, how late it is, and how many ticks were skipped before it.
        self.due_s = 0.0
        self.lag_s = 0.0
        self.skipped = 0
        #: The result of `begin` or `check`. None before these were called.
        self.may_run: bool | None = None

    @property
    def hook(self) -> str:
        """The name of the handler's function, in Python's spelling."""
        return CALLS[self.kind]

    @property
    def value(self) -> str:
        """For a post: the value as JSON text."""
        return "null" if self.post is None else self.post.value

    @property
    def sender(self) -> Sender | None:
        """For a post: the session that has posted. None if the post came from a handle without a session."""
        return None if self.post is None else self.post.sender

    def arguments(self) -> tuple[Any, ...]:
        """The arguments that a function in Python gets."""
        if self.kind == "tick":
            return self.room, self.dt
        if self.kind == "post":
            return self.room, value_of(self.value), self.sender
        return (self.room,)

    def begin(self) -> bool:
        """Whether the function may run. Called right before the function, in the same thread."""
        may_run = self.check()
        if may_run:
            self.begun()
        return may_run

    # A handler that may delay the call after the check uses `check` and `begun` instead of `begin`.

    def check(self) -> bool:
        """Whether the function may run now."""
        self.may_run = may_run = self._owner.check_call(self)
        return may_run

    def begun(self) -> None:
        """Report that the function begins. Called after `check` has returned true."""
        self._owner.begin_call(self)

    def put_off(self) -> None:
        """Report that the function did not begin after `check`. `check` will be called again."""
        self.may_run = None

    def done(self, failure: str | None = None) -> None:
        """Report how the function has ended. Any thread; never blocks. Only the first call has an effect.

        `failure` is None if the function has returned, and "failed" if it has thrown. It is "timeout" or "down" if it
        is not known whether the function has run.
        """
        if not self._is_over:
            self._is_over = True
            self._owner.end_call(self, failure)

    def __repr__(self) -> str:
        return f"<RoomCall {self.kind} of {self.room.name!r:.80}>"


class Mailbox:
    """The mailbox of one room. It exists while this process owns the room or wants to own it."""

    __slots__ = (
        "_ahead",
        "_posts",
        "_tick",
        "calls",
        "fence",
        "is_lost",
        "is_scheduled",
        "is_ticking",
        "lag_s",
        "last_tick",
        "name",
        "owner",
        "phase",
        "room",
        "skips_end",
        "started_s",
    )

    def __init__(self, name: str, owner: Owner) -> None:
        self.name = name
        self.owner = owner
        self._posts: deque[Post] | None = None  # None if no post waits, because an empty deque needs 0.7 kB
        self._tick: int | None = None  # the number of the tick that waits, if one does
        self._ahead = 0  # how many of the posts came before this tick
        self.is_scheduled = False  # whether the room is in the pool's queue, or calls for it are being made
        self.forget()

    def forget(self) -> None:
        """Reset the mailbox after an ownership. Posts that wait stay, because the room may be wanted again."""
        self.phase = Phase.WANTED
        self.fence = 0
        self.room: OwnedRoom | None = None  # the handle that the handler gets
        self.is_lost = False  # whether another process may own the room now
        self.skips_end = False  # whether on_room_end is not called, because the handler has lost its variables
        self.calls = 0  # how many calls are being made now
        self.is_ticking = False  # whether the call that is being made is a tick
        self.started_s = 0.0  # when on_room_start has returned
        self.last_tick: int | None = None
        self.lag_s: float | None = None

    def begin(self, room: OwnedRoom, fence: int) -> None:
        """Begin an ownership: from now on, this process owns the room."""
        self.phase, self.room, self.fence = Phase.NEW, room, fence

    @property
    def posts(self) -> int:
        """How many posts wait."""
        return 0 if self._posts is None else len(self._posts)

    @property
    def is_empty(self) -> bool:
        return self._posts is None and self._tick is None

    def add(self, post: Post) -> None:
        if self._posts is None:
            self._posts = deque()
        self._posts.append(post)

    def add_tick(self, number: int) -> None:
        """Add a tick that is due. It replaces a tick that still waits. If a tick is running, the new tick is skipped.

        The next tick that runs is told how many ticks were skipped.
        """
        if self.is_ticking or number == self.last_tick:
            return
        if self._tick is None:
            self._ahead = self.posts
        self._tick = number

    def drop_tick(self) -> None:
        """Drop the tick that waits, because the schedule has changed or the room ends."""
        self._tick = None

    def drop_posts(self) -> list[Post]:
        """Remove all posts that wait, and return them."""
        self.drop_tick()
        posts, self._posts = list(self._posts or ()), None
        return posts

    def take(self, most: int) -> tuple[list[Post], int | None]:
        """Take the next posts, at most `most`. If a tick is next, returns its number instead."""
        if self._tick is not None:
            if not self._ahead:
                number, self._tick = self._tick, None
                return [], number
            most = min(most, self._ahead)
        waiting = self._posts
        if waiting is None:
            return [], None
        posts = [waiting.popleft() for _ in range(min(most, len(waiting)))]
        self._ahead -= len(posts)
        if not waiting:
            self._posts = None
        return posts, None
