"""The interface between rooms and a broker: what each side may call of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from wsthreads.brokers.kept import Stored
    from wsthreads.brokers.messages import Close, Direct, PresenceChange
    from wsthreads.brokers.pending import PendingBroadcasts
    from wsthreads.brokers.positions import Position
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.rooms.history import Limits
    from wsthreads.rooms.posts import Post, Settled
    from wsthreads.sessions.session import Session

__all__ = ["Broker", "Keeper", "Link", "Listener", "Look", "RoomKey"]

#: A room: the path of its endpoint, and its name.
RoomKey: TypeAlias = "tuple[str, str]"

#: Gets the position in each room. Returns whether it has done its work; else it is called again after the next message.
#: It must not block, and takes no lock that is held by a thread that waits for messages.
Look: TypeAlias = "Callable[[Mapping[RoomKey, Position]], bool]"


class Listener(Protocol):
    """The rooms of one endpoint in this process, as a link sees them."""

    @property
    def keep_s(self) -> float:
        """How long the attributes of a room outlive its last member."""

    def count_here(self, name: str) -> int:
        """The number of members in this process, and of seats that were given to others. Takes only a leaf lock."""

    @property
    def history_limits(self) -> Limits | None:
        """What the histories of the rooms keep; None if that is nothing."""

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
        number of the subscription, and `position` the message's place in the log of the room.
        """

    def take_history(self, name: str, serial: int, stored: Stored) -> None:
        """The history of a room up to the last message that was delivered."""

    def lose_history(self, name: str, serial: int) -> None:
        """Messages are missing: the history is incomplete until `take_history` is called again."""

    def deliver_to_session(self, message: Direct) -> None:
        """Send a message of another process to one session, if it is here."""

    def close(self, name: str, order: Close) -> None:
        """Close the members of a room, or one session, as another process wants it."""

    def found_ban(self, name: str, code: int, reason: str, ban_s: float) -> None:
        """The user whose hidden room this is turns out to be banned."""

    def bans(self) -> Iterable[tuple[str, int, str, float]]:
        """The bans that this process knows: the hidden room, code, reason, and for how long."""

    def change_presence(self, name: str, change: PresenceChange) -> None:
        """The presence of a session has changed, as it comes back from the broker."""

    def take_presences(self, name: str, present: Iterable[PresenceChange], *, is_first: bool, is_surely: bool) -> None:
        """These are all presences in a room. `is_first`: so far this process has received none of the room.

        Unless it `is_surely` so, others may be about to be confirmed: the broker has lost its data.
        """

    def forget_presences(self, name: str) -> None:
        """This process receives nothing of a room any more. Takes only a lock that is a leaf."""

    def own_presences(self, name: str, session_ids: Iterable[str] | None) -> list[tuple[str, PresenceChange | None]]:
        """The present state of some sessions of this process in a room; None for one that has no presence there."""

    def presence_names(self) -> list[str]:
        """The rooms in which sessions of this process have a presence."""

    def watched_processes(self) -> dict[tuple[int, str], list[str]]:
        """The rooms with presences of other processes: by the shard of the rooms, and the process."""


class Keeper(Protocol):
    """Who owns the rooms of one endpoint in this process. None of these blocks."""

    def is_wanted(self, name: str) -> bool: ...

    def begin(self, name: str, fence: int) -> None: ...

    def lose(self, name: str, fence: int) -> None: ...

    def deliver(self, name: str, fence: int, posts: Iterable[Post]) -> bool: ...

    def has_members(self, name: str) -> bool: ...

    def go_on(self, name: str) -> None: ...


class Link(Protocol):
    """An app's connection to the other processes. Any thread.

    It starts at its first use in a process, also in a forked one. It never raises because the broker is away.
    """

    #: The broadcasts of this process that are not back yet.
    pending: PendingBroadcasts
    #: The name of this process. It is another one after a fork.
    process: str

    def start(self) -> None:
        """Connect now instead of at the first use. Does not wait for the connection."""

    def publish(
        self, path: str, name: str, frame: bytes, exclude: Session | None, kept: tuple[str, int] | None = None
    ) -> None:
        """Queue a broadcast; `kept` is as in `Queued`. Raises `BrokerError` if the queue is full or the link has ended.

        In a process that was forked from one that served, waits until the broker has it, or raises `BrokerError`.
        """

    def patience_s(self, path: str, name: str) -> float:
        """How long a call may wait for what the broker has of a room: at most a second; 0 while it is away."""

    def wait_published(self, path: str, name: str) -> None:
        """Wait until the broker has what this process has broadcast to a room so far, at most a second."""

    def update(self, path: str, name: str, listener: Listener) -> int:
        """A session of this process has joined or left: count the room's members again.

        Returns the serial number of the subscription, or 0 if the room has no members here.

        When this returns for the first member, later broadcasts reach it, unless the broker is away.
        """

    def members_elsewhere(self, path: str, name: str) -> int:
        """The number of members in other processes. Waits at most a second, then returns the last known number."""

    def call(self, path: str, name: str, script: str, keys: Sequence[str], *arguments: object) -> Any:
        """Run a script once, with some keys of a room: names of the fields of `Address`, or "processes".

        It must return something. It may run before broadcasts that were queued earlier, if these are many. Waits at
        most a second, and not while the broker is away. Raises `BrokerError`, whose `is_unknown` tells whether the
        script may have run.
        """

    def call_all(self, path: str, calls: Sequence[tuple[str, str, Sequence[str], Sequence[object]]]) -> list[Any]:
        """Several calls as by `call`: the room, the script, its keys and arguments."""

    def call_for_session(self, path: str, session_id: str, script: str, *arguments: object) -> Any:
        """As `call`, with the keys of sessions on their way to another process: this one's, and the endpoint's."""

    def call_for_sessions(self, path: str, session_ids: Sequence[str], script: str, *arguments: object) -> Any:
        """As `call`, with the keys of several sessions of an endpoint."""

    def refresh(self, rooms: Sequence[RoomKey]) -> None:
        """Before the next checkpoint, compare this process's positions in these rooms with Redis's.

        Redis may have lost its data, which a process notices in a room only when something is sent there. Raises
        `BrokerError`.
        """

    def checkpoint(self, rooms: Sequence[RoomKey], look: Look, timeout_s: float) -> bool:
        """Call `look` at a moment when nothing is being delivered to these rooms. See `checkpoints`.

        The reader's thread calls it. False if that has not come, or `look` has not done its work, within `timeout_s`.
        """

    def register(self, path: str, listener: Listener) -> None:
        """Know the rooms of an endpoint. Does not keep them alive."""

    def close(self, path: str, name: str, code: int, reason: str, ban_s: float, session_id: str | None = None) -> None:
        """Queue that other processes close the members of a room, or one session. Raises as `publish` does."""

    def send_to_session(self, path: str, session_id: str, frame: bytes) -> None:
        """Queue a message for a session of another process. Raises as `publish` does."""

    def ban_of(self, path: str, name: str) -> tuple[int, str, float] | None:
        """The ban of the user whose hidden room this is: code, reason, for how long. Waits at most a second."""

    def take_seat(self, path: str, name: str, listener: Listener, max_members: int, take: Callable[[], None]) -> bool:
        """Ask for a place in a room for one more member. False if the room is full.

        `take` is called if there is one, before members are counted again. It takes only a lock that is a leaf. Waits
        at most a second, and not while the broker is away; then it raises `BrokerError`.
        """

    def give_seat_back(self, path: str, name: str, listener: Listener) -> None:
        """A seat that was given is not used: count the members again."""

    def serial(self, path: str, name: str) -> int:
        """The serial number of the subscription by which this process receives what is sent to a room; 0 if none."""

    def has_room(self, path: str, name: str) -> bool:
        """Whether this process receives what is sent to a room."""

    def is_subscribed(self, path: str, name: str) -> bool:
        """Whether there is a subscription to a room, also one that does not receive yet. Takes no lock."""

    def change_presence(self, path: str, name: str, listener: Listener, session_id: str) -> None:
        """The presence of a session of this process has changed."""

    def reap(self, path: str, name: str, listener: Listener) -> None:
        """The time of a session of another process is over: have it removed, unless its process has done so."""

    def presences(self, path: str, name: str) -> list[PresenceChange] | None:
        """All presences in a room, for a process that does not receive them. None if the broker is away."""

    def shard(self, path: str, name: str) -> int:
        """A number for the place where a room is kept. Rooms with the same number are kept together."""

    def own(self, path: str, name: str, keeper: Keeper) -> None:
        """Try to own a room from now on, or no longer, as `keeper` wants. The keeper is told when that has come."""

    def disown(self, path: str, name: str, fence: int) -> None:
        """Give a room back that this process owned with this fencing number."""

    def is_closed(self, path: str, name: str) -> bool:
        """Whether a room that this process owns can end: its keeper has no members, and all posts to it.

        To be asked also when members leave and join. While it is false, the keeper's `go_on` follows.
        """

    def owns(self, path: str, name: str, fence: int) -> bool:
        """Whether this process surely owns a room with this fencing number. Takes no lock."""

    def post(self, path: str, name: str, payload: bytes, timeout_s: float, settled: Settled) -> None:
        """Send a post to the owner of a room. Does not wait. `settled` is called once, in any thread.

        It gets None, or a `PostError`: the latest after `timeout_s`.
        """

    def answer(self, kind: str, function: Callable[[Any], Any]) -> None:
        """Answer the questions of other processes of this kind: the function gets and returns JSON."""

    def ask(
        self, kind: str, argument: Any, timeout_s: float = 1.0, enough: Callable[[Any], bool] | None = None
    ) -> list[dict[str, Any]]:
        """Ask all other processes, and return what they have answered: ``pid``, ``host``, ``process``, ``value``.

        Waits for all of them, for the first whose value is `enough`, or for `timeout_s`.
        """

    def ask_all(
        self, kind: str, argument: Any, timeout_s: float, enough: Callable[[Any], bool]
    ) -> tuple[list[dict[str, Any]], bool]:
        """As `ask`, and whether all have answered. Raises `BrokerError` if the broker is away."""

    def tell(self, kind: str, argument: Any) -> None:
        """`ask` all other processes, without answers. Does not wait; while the broker is away, nobody is told."""

    def waiting(self) -> int:
        """How many broadcasts the broker has not acknowledged. A snapshot."""

    def stop(self, timeout_s: float) -> None:
        """Send what waits, for at most `timeout_s`, sign off at the broker, and end all threads."""

    def release(self) -> None:
        """Stop soon. Takes no lock and does not wait, so a finalizer may call it."""


class Broker(Protocol):
    """Describes how rooms are shared between processes. Has no connections of its own."""

    def link(self, metrics: Metrics) -> Link:
        """A new link for an app. It is not started."""
