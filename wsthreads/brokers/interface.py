"""The interface between rooms and a broker: the methods that each side may call on the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from wsthreads.brokers.messages import Close, Direct, PresenceChange
    from wsthreads.brokers.pending import PendingBroadcasts
    from wsthreads.brokers.positions import Position
    from wsthreads.brokers.stored_history import Stored
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.rooms.history import Limits
    from wsthreads.rooms.posts import Post, Settled
    from wsthreads.sessions.session import Session

__all__ = ["Broker", "Keeper", "Link", "Listener", "Look", "RoomKey"]

#: A room: the path of its endpoint, and its name.
RoomKey: TypeAlias = "tuple[str, str]"

#: A function that gets the position in each room, and returns whether it has done its work. If not, the function is
#: called again after the next message. It must not block, nor take a lock that a thread may hold while it waits for
#: messages.
Look: TypeAlias = "Callable[[Mapping[RoomKey, Position]], bool]"


class Listener(Protocol):
    """The part of the rooms of one endpoint that a link uses."""

    @property
    def keep_s(self) -> float:
        """How long the attributes of a room outlive its last member."""

    def count_here(self, name: str) -> int:
        """The number of members in this process, and of sessions that have a seat and are about to join.

        Takes only a leaf lock.
        """

    @property
    def history_limits(self) -> Limits | None:
        """The limits of the rooms' histories; None if the history is off."""

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
        """Send a frame that has come back from the broker, to the members in this process.

        `ticket` is the ticket of a broadcast of this process, or -1 for a broadcast of another process. `serial` is the
        number of the subscription, and `position` the message's place in the log of the room.
        """

    def take_history(self, name: str, serial: int, stored: Stored) -> None:
        """Take the history of a room, up to the last delivered message."""

    def lose_history(self, name: str, serial: int) -> None:
        """Messages are missing: the history is incomplete until `take_history` is called again."""

    def deliver_to_session(self, message: Direct) -> None:
        """Send a message of another process to one session, if it is in this process."""

    def close(self, name: str, order: Close) -> None:
        """Close the members of a room, or one session, by order of another process."""

    def found_ban(self, name: str, code: int, reason: str, ban_s: float) -> None:
        """Take a ban of the user of this hidden room from the broker."""

    def bans(self) -> Iterable[tuple[str, int, str, float]]:
        """The bans that this process knows: the hidden room, code, reason, and remaining seconds."""

    def change_presence(self, name: str, change: PresenceChange) -> None:
        """Take a change of a session's presence, as it comes back from the broker."""

    def take_presences(self, name: str, present: Iterable[PresenceChange], *, is_first: bool, is_surely: bool) -> None:
        """Take all presences in a room. `is_first`: this process has received none of this room before.

        Unless `is_surely` is true, the broker may have lost its data, and other presences may be confirmed soon.
        """

    def forget_presences(self, name: str) -> None:
        """Forget the presences of a room that this process no longer follows. Takes only a lock that is a leaf."""

    def own_presences(self, name: str, session_ids: Iterable[str] | None) -> list[tuple[str, PresenceChange | None]]:
        """The current presence of some sessions of this process in a room; None for a session without one."""

    def presence_names(self) -> list[str]:
        """The rooms in which sessions of this process have a presence."""

    def watched_processes(self) -> dict[tuple[int, str], list[str]]:
        """The rooms with presences of other processes, by the shard of the room and the process."""


class Keeper(Protocol):
    """The ownership of the rooms of one endpoint in this process. No method blocks."""

    def is_wanted(self, name: str) -> bool: ...

    def begin(self, name: str, fence: int) -> None: ...

    def lose(self, name: str, fence: int) -> None: ...

    def deliver(self, name: str, fence: int, posts: Iterable[Post]) -> bool: ...

    def has_members(self, name: str) -> bool: ...

    def go_on(self, name: str) -> None: ...


class Link(Protocol):
    """An app's connection to the other processes. Any thread.

    It starts at its first use in a process, including a forked one. Unless a method says so, it does not raise while
    the broker is unavailable.
    """

    #: The broadcasts of this process that have not come back.
    pending: PendingBroadcasts
    #: The name of this process. A forked process has another name.
    process: str

    def start(self) -> None:
        """Connect now instead of at the first use. Does not wait for the connection."""

    def publish(
        self, path: str, name: str, frame: bytes, exclude: Session | None, kept: tuple[str, int] | None = None
    ) -> None:
        """Queue a broadcast; `kept` is as in `Queued`. Raises `BrokerError` if the queue is full or the link has ended.

        In a process that was forked from a serving one, waits until the broker has the broadcast, or raises
        `BrokerError`.
        """

    def patience_s(self, path: str, name: str) -> float:
        """How many seconds a call may wait for the broker's data of a room: at most 1; 0 while it is unavailable."""

    def wait_published(self, path: str, name: str) -> None:
        """Wait until the broker has all earlier broadcasts of this process to a room, at most a second."""

    def update(self, path: str, name: str, listener: Listener) -> int:
        """A session of this process has joined or left a room: count the room's members again.

        Returns the serial number of the subscription, or 0 if the room has no members here.

        When this returns for the first member, later broadcasts reach it, unless the broker is unavailable.
        """

    def members_elsewhere(self, path: str, name: str) -> int:
        """The number of members in other processes. Waits at most a second, then returns the last known number."""

    def call(self, path: str, name: str, script: str, keys: Sequence[str], *arguments: object) -> Any:
        """Run a script once. `keys` names keys of the room, for the script: fields of `Address`, or "processes".

        The script must return a value. If many broadcasts are queued, it may run before them. Waits at most a second,
        and not while the broker is unavailable. Raises `BrokerError`; its `is_unknown` tells whether the script may
        have run.
        """

    def call_all(self, path: str, calls: Sequence[tuple[str, str, Sequence[str], Sequence[object]]]) -> list[Any]:
        """Several calls like `call`: for each, the room, the script, its keys and arguments."""

    def call_for_session(self, path: str, session_id: str, script: str, *arguments: object) -> Any:
        """Like `call`, with the keys for a moving session, and for all moving sessions of the endpoint."""

    def call_for_sessions(self, path: str, session_ids: Sequence[str], script: str, *arguments: object) -> Any:
        """Like `call`, with the keys of several sessions of an endpoint."""

    def refresh(self, rooms: Sequence[RoomKey]) -> None:
        """Before the next checkpoint, compare this process's positions in these rooms with those in Redis.

        Redis may have lost its data. A process notices this in a room only at the room's next message. Raises
        `BrokerError`.
        """

    def checkpoint(self, rooms: Sequence[RoomKey], look: Look, timeout_s: float) -> bool:
        """Call `look` at a moment when no message is being delivered to these rooms. See `checkpoints`.

        The reader's thread calls `look`. False if it was not called, or has not done its work, within `timeout_s`.
        """

    def register(self, path: str, listener: Listener) -> None:
        """Register the rooms of an endpoint. Keeps only a weak reference."""

    def close(self, path: str, name: str, code: int, reason: str, ban_s: float, session_id: str | None = None) -> None:
        """Queue an order to other processes to close the members of a room, or one session. Raises like `publish`."""

    def send_to_session(self, path: str, session_id: str, frame: bytes) -> None:
        """Queue a message for a session of another process. Raises like `publish`."""

    def ban_of(self, path: str, name: str) -> tuple[int, str, float] | None:
        """The ban of the user of this hidden room: code, reason, and remaining seconds. Waits at most a second."""

    def take_seat(self, path: str, name: str, listener: Listener, max_members: int, take: Callable[[], None]) -> bool:
        """Ask for a seat in a room for one more member. False if the room is full.

        If there is a seat, `take` is called before members are counted again. It must take only locks that are leaves.
        Waits at most a second, and not while the broker is unavailable; then raises `BrokerError`.
        """

    def give_seat_back(self, path: str, name: str, listener: Listener) -> None:
        """Give back a seat that `take_seat` has granted, and that no session uses: count the members again."""

    def serial(self, path: str, name: str) -> int:
        """The serial number of this process's subscription to a room; 0 without one."""

    def has_room(self, path: str, name: str) -> bool:
        """Whether this process receives the messages of a room."""

    def is_subscribed(self, path: str, name: str) -> bool:
        """Whether there is a subscription to a room, even if it does not receive yet. Takes no lock."""

    def change_presence(self, path: str, name: str, listener: Listener, session_id: str) -> None:
        """The presence of a session of this process has changed."""

    def reap(self, path: str, name: str, listener: Listener) -> None:
        """Let the broker remove the lost sessions whose time is over from a room, unless their processes do so."""

    def presences(self, path: str, name: str) -> list[PresenceChange] | None:
        """All presences in a room, for a process that does not receive them. None if the broker is unavailable."""

    def shard(self, path: str, name: str) -> int:
        """The number of the shard where a room is kept."""

    def own(self, path: str, name: str, keeper: Keeper) -> None:
        """Begin to try to own a room, or stop trying, depending on `keeper.is_wanted`.

        When this process owns the room, calls `keeper.begin`.
        """

    def disown(self, path: str, name: str, fence: int) -> None:
        """Give up the ownership of a room that this process has had with this fencing number."""

    def is_closed(self, path: str, name: str) -> bool:
        """Whether the ownership of a room can end: its keeper has no members, and has received all posts.

        Must also be called when members leave and join. If it returns false, the keeper's `go_on` is called later.
        """

    def owns(self, path: str, name: str, fence: int) -> bool:
        """Whether this process certainly owns a room with this fencing number. Takes no lock."""

    def post(self, path: str, name: str, payload: bytes, timeout_s: float, settled: Settled) -> None:
        """Send a post to the owner of a room. Does not wait. `settled` is called once, in any thread.

        `settled` gets None or a `PostError`, after `timeout_s` at the latest.
        """

    def answer(self, kind: str, function: Callable[[Any], Any]) -> None:
        """Answer questions of this kind from other processes: the function gets and returns JSON values."""

    def ask(
        self, kind: str, argument: Any, timeout_s: float = 1.0, enough: Callable[[Any], bool] | None = None
    ) -> list[dict[str, Any]]:
        """Ask all other processes, and return their answers: dicts with ``pid``, ``host``, ``process``, ``value``.

        Waits until all have answered, until one has answered with a value that is `enough`, or for `timeout_s`.
        """

    def ask_all(
        self, kind: str, argument: Any, timeout_s: float, enough: Callable[[Any], bool]
    ) -> tuple[list[dict[str, Any]], bool]:
        """Like `ask`, but also returns whether all have answered. Raises `BrokerError` if the broker is unavailable."""

    def tell(self, kind: str, argument: Any) -> None:
        """Send a question that needs no answer. Does not wait. While the broker is unavailable, no process gets it."""

    def waiting(self) -> int:
        """How many broadcasts the broker has not acknowledged. A snapshot."""

    def stop(self, timeout_s: float) -> None:
        """Send queued messages, for at most `timeout_s`, sign off at the broker, and end all threads."""

    def release(self) -> None:
        """Stop soon. Takes no lock and does not wait, so a finalizer may call this."""


class Broker(Protocol):
    """Describes how rooms are shared between processes. Has no connections of its own."""

    def link(self, metrics: Metrics) -> Link:
        """A new link for an app. It is not started."""
