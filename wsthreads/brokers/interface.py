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

#: A function that gets the position of each room, and returns whether it has finished. If not, the function is called
#: again after the next message. It must not block. It must not take a lock that a thread may hold while it waits for
#: messages.
Look: TypeAlias = "Callable[[Mapping[RoomKey, Position]], bool]"


class Listener(Protocol):
    """The part of the rooms of one endpoint that a link uses."""

    @property
    def keep_s(self) -> float:
        """How many seconds the attributes of a room are kept after its last member has left."""

    def count_here(self, name: str) -> int:
        """The number of members in this process, plus the sessions that have a seat and are about to join.

        The lock that this takes is a leaf: no other lock is taken while it is held.
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
        """Send a frame that has come back from the broker to the members in this process.

        `ticket` is the ticket of a broadcast of this process, or -1 for a broadcast of another process. `serial` is the
        serial number of the subscription. `position` is the message's position in the log of the room.
        """

    def take_history(self, name: str, serial: int, stored: Stored) -> None:
        """Store the history of a room, which the broker has returned.

        The history has all messages up to the last delivered one.
        """

    def lose_history(self, name: str, serial: int) -> None:
        """Mark the history as incomplete, because messages are missing.

        The history stays incomplete until `take_history` is called.
        """

    def deliver_to_session(self, message: Direct) -> None:
        """Send a message of another process to one session, if this session is in this process."""

    def close(self, name: str, order: Close) -> None:
        """Close the members of a room, or one session. Another process has ordered this."""

    def found_ban(self, name: str, code: int, reason: str, ban_s: float) -> None:
        """Apply a ban that the broker has returned. `name` is the hidden room of the banned user."""

    def bans(self) -> Iterable[tuple[str, int, str, float]]:
        """The bans that this process knows.

        Each has the hidden room, the code, the reason, and the remaining seconds.
        """

    def change_presence(self, name: str, change: PresenceChange) -> None:
        """Apply a change of a session's presence, which the broker has published."""

    def take_presences(self, name: str, present: Iterable[PresenceChange], *, is_first: bool, is_surely: bool) -> None:
        """Store all presences in a room. `is_first`: this process has received none for this room before.

        If `is_surely` is false, the broker may have lost its data. Then presences that are not in `present` are kept
        for a while, because their processes may store them again.
        """

    def forget_presences(self, name: str) -> None:
        """Forget the presences of a room to which this process is no longer subscribed.

        Takes only leaf locks: locks under which no other lock is taken.
        """

    def own_presences(self, name: str, session_ids: Iterable[str] | None) -> list[tuple[str, PresenceChange | None]]:
        """The current presence of some sessions of this process in a room. None for a session without a presence."""

    def presence_names(self) -> list[str]:
        """The rooms in which sessions of this process have a presence."""

    def watched_processes(self) -> dict[tuple[int, str], list[str]]:
        """The rooms with presences of other processes. The key is the shard of the rooms, and the process."""


class Keeper(Protocol):
    """The part of an endpoint that owns rooms, as leases see it. No method blocks.

    `begin` says that this process owns the room now, and `lose` that it no longer does. `deliver` passes posts to the
    handler.
    """

    def is_wanted(self, name: str) -> bool: ...

    def begin(self, name: str, fence: int) -> None: ...

    def lose(self, name: str, fence: int) -> None: ...

    def deliver(self, name: str, fence: int, posts: Iterable[Post]) -> bool: ...

    def has_members(self, name: str) -> bool: ...

    def go_on(self, name: str) -> None: ...


class Link(Protocol):
    """An app's connection to the other processes, through the broker. Any thread.

    A link starts at its first use in a process, also in a forked process. While the broker is unavailable, a method
    raises an error only if its docstring says so.
    """

    #: The broadcasts of this process that have not come back from the broker.
    pending: PendingBroadcasts
    #: The name of this process. A forked process has another name.
    process: str

    def start(self) -> None:
        """Connect now instead of at the first use. Does not wait for the connection."""

    def publish(
        self, path: str, name: str, frame: bytes, exclude: Session | None, kept: tuple[str, int] | None = None
    ) -> None:
        """Queue a broadcast.

        `kept` is as in `Queued`. Raises `BrokerError` if the queue is full, or after the link has ended.

        In a process that was forked from a serving process, this waits until the broker has the broadcast. If the
        broker does not get it, raises `BrokerError`.
        """

    def patience_s(self, path: str, name: str) -> float:
        """How many seconds a call may wait for the broker's data of a room.

        At most 1, and 0 while the broker is unavailable.
        """

    def wait_published(self, path: str, name: str) -> None:
        """Wait until the broker has all earlier broadcasts of this process to a room. Waits at most a second."""

    def update(self, path: str, name: str, listener: Listener) -> int:
        """Count the room's members again, because a session of this process has joined or left.

        Returns the serial number of the subscription, or 0 if the room has no members in this process.

        When this returns for the first member, the member will receive all later broadcasts, unless the broker is
        unavailable.
        """

    def members_elsewhere(self, path: str, name: str) -> int:
        """The number of members in other processes.

        Waits at most a second. Without an answer, returns the last known number.
        """

    def call(self, path: str, name: str, script: str, keys: Sequence[str], *arguments: object) -> Any:
        """Run a script once.

        `keys` names the keys of the room that the script gets: fields of `Address`, or "processes".

        Like `call`, but with two keys: that of a moving session, and that of all moving sessions of the endpoint.
        """

    def call_all(self, path: str, calls: Sequence[tuple[str, str, Sequence[str], Sequence[object]]]) -> list[Any]:
        """Make several calls like `call`. Each has the room, the script, the script's keys, and its arguments."""

    def call_for_session(self, path: str, session_id: str, script: str, *arguments: object) -> Any:
        """Like `call`, but with two keys: that of a moving session, and that of all moving sessions of the endpoint.
        """

    def call_for_sessions(self, path: str, session_ids: Sequence[str], script: str, *arguments: object) -> Any:
        """Like `call`, but the script gets the keys of several moving sessions of an endpoint."""

    def refresh(self, rooms: Sequence[RoomKey]) -> None:
        """Prepare a checkpoint: compare this process's positions in these rooms with those in Redis.

        Redis may have lost its data. Without this call, a process notices that only at a room's next message. Raises
        `BrokerError`.
        """

    def checkpoint(self, rooms: Sequence[RoomKey], look: Look, timeout_s: float) -> bool:
        """Call `look` at a moment when no message is being delivered to these rooms. See `checkpoints`.

        The reader's thread calls `look`. Returns false if `look` has not finished within `timeout_s`.
        """

    def register(self, path: str, listener: Listener) -> None:
        """Register the rooms of an endpoint, which are its `listener`. Keeps only a weak reference."""

    def close(self, path: str, name: str, code: int, reason: str, ban_s: float, session_id: str | None = None) -> None:
        """Queue an order to other processes: close the members of a room, or one session. Raises like `publish`."""

    def send_to_session(self, path: str, session_id: str, frame: bytes) -> None:
        """Queue a message for a session of another process. Raises like `publish`."""

    def ban_of(self, path: str, name: str) -> tuple[int, str, float] | None:
        """Returns the ban of the user of this hidden room: code, reason, and remaining seconds.

        Waits at most a second.
        """

    def take_seat(self, path: str, name: str, listener: Listener, max_members: int, take: Callable[[], None]) -> bool:
        """Ask for a seat in a room, for one more member. Returns false if the room is full.

        If there is a seat, `take` is called before the members are counted again. `take` must take only locks that are
        leaves. This method waits at most a second. Raises `BrokerError` if there is no answer, or if the broker is
        unavailable.
        """

    def give_seat_back(self, path: str, name: str, listener: Listener) -> None:
        """Give back a seat that `take_seat` has granted, but no session uses. The members are then counted again."""

    def serial(self, path: str, name: str) -> int:
        """The serial number of this process's subscription to a room. 0 if there is no subscription."""

    def has_room(self, path: str, name: str) -> bool:
        """Whether this process receives the messages of a room."""

    def is_subscribed(self, path: str, name: str) -> bool:
        """Whether there is a subscription to a room, even if it receives no messages yet. Takes no lock."""

    def change_presence(self, path: str, name: str, listener: Listener, session_id: str) -> None:
        """Tell other processes the new presence of a session of this process."""

    def reap(self, path: str, name: str, listener: Listener) -> None:
        """Remove from a room the sessions that were without a connection for too long, unless their processes do so."""

    def presences(self, path: str, name: str) -> list[PresenceChange] | None:
        """All presences in a room, for a process that is not subscribed to it. None if the broker is unavailable."""

    def shard(self, path: str, name: str) -> int:
        """The number of the shard that has a room."""

    def own(self, path: str, name: str, keeper: Keeper) -> None:
        """Whether the ownership of a room can end: this process has no members in it, and has received all its posts.

        When this process owns the room, calls `keeper.begin`.
        """

    def disown(self, path: str, name: str, fence: int) -> None:
        """Give up the ownership of a room that this process has had with this fencing number."""

    def is_closed(self, path: str, name: str) -> bool:
        """Whether the ownership of a room can end: this process has no members in it, and has received all its posts.

        Must also be called when members leave and join. If this returns false, the keeper's `go_on` is called later.
        """

    def owns(self, path: str, name: str, fence: int) -> bool:
        """Whether this process surely owns a room with this fencing number. Takes no lock."""

    def post(self, path: str, name: str, payload: bytes, timeout_s: float, settled: Settled) -> None:
        """Send a post to the owner of a room. Does not wait. `settled` is called once, in any thread.

        `settled` gets None if the post was handled, otherwise a `PostError`. It is called after `timeout_s` at the
        latest.
        """

    def answer(self, kind: str, function: Callable[[Any], Any]) -> None:
        """Answer questions of this kind from other processes with `function`.

        The function gets a JSON value, and returns a JSON value.
        """

    def ask(
        self, kind: str, argument: Any, timeout_s: float = 1.0, enough: Callable[[Any], bool] | None = None
    ) -> list[dict[str, Any]]:
        """Ask all other processes, and return their answers: dicts with ``pid``, ``host``, ``process``, ``value``.

        Waits until all have answered, or until `enough` is true for the value of one answer, but at most `timeout_s`.
        """

    def ask_all(
        self, kind: str, argument: Any, timeout_s: float, enough: Callable[[Any], bool]
    ) -> tuple[list[dict[str, Any]], bool]:
        """Like `ask`, but also returns whether all processes have answered.

        Raises `BrokerError` if the broker is unavailable.
        """

    def tell(self, kind: str, argument: Any) -> None:
        """Send a question to all other processes that needs no answer.

        Does not wait. Lost if the broker is unavailable.
        """

    def waiting(self) -> int:
        """How many broadcasts the broker has not confirmed. The number may change at any time."""

    def stop(self, timeout_s: float) -> None:
        """Send queued messages for at most `timeout_s`, sign off at the broker, and end all threads."""

    def release(self) -> None:
        """Let the threads stop soon. Takes no lock and does not wait, so a finalizer may call this."""


class Broker(Protocol):
    """The configuration of a broker, which connects the rooms of several processes. Has no connections of its own."""

    def link(self, metrics: Metrics) -> Link:
        """Returns a new link for an app. The link is not started."""
