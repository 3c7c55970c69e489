"""The state of `Leases`: the rooms that this process wants to own or owns, and its leases."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from wsthreads.brokers.posts import TakenPosts

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Keeper
    from wsthreads.brokers.keys import Address

__all__ = ["Claim", "Return", "RoomKey", "ShardLease", "lease_time"]

RoomKey = tuple[str, str]  # the path of an endpoint, and the name of a room

if hasattr(time, "CLOCK_BOOTTIME"):

    def lease_time() -> float:
        """The clock for the ends of leases.

        It also runs while the machine is suspended, because others then take the rooms.
        """
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    lease_time = time.monotonic


class Claim:
    """A room that this process wants to own, or owns."""

    __slots__ = ("address", "closing", "fence", "holder", "is_closed", "keeper", "key", "taken")

    def __init__(self, key: RoomKey, address: Address, keeper: Keeper) -> None:
        self.key = key
        self.address = address
        self.keeper = keeper
        self.fence: int | None = None  # set while this process owns the room, as far as it knows
        self.holder: bytes | None = None  # the lease of another process that owns the room, if one does
        self.taken = TakenPosts()
        # Set while this process owns the room, and the room has no members here. Each such period has its own object.
        self.closing: object | None = None
        self.is_closed = False  # whether this process has also received all posts


class Return:
    """Gives up the ownership of a room, or the wish to own a room. Waits until Redis has got it."""

    __slots__ = ("address", "fence", "key", "taken", "ticket")

    def __init__(self, claim: Claim, ticket: int, fence: int | None = None) -> None:
        self.key = claim.key
        self.address = claim.address
        self.taken = claim.taken
        self.fence = claim.fence if fence is None else fence
        self.ticket = ticket  # broadcasts with lower tickets are sent first


class ShardLease:
    """This process's lease in one shard."""

    __slots__ = ("confirm_at", "former", "hold_until", "holders", "is_known", "keep_at", "trusted_until", "wish_at")

    def __init__(self) -> None:
        self.is_known = False  # whether Redis has the lease
        self.trusted_until = 0.0  # when the lease ends for this process; 0 once it has ended
        self.keep_at = 0.0  # when to extend the lease
        self.confirm_at = 0.0  # when to ask Redis whether the rooms still belong to this lease
        self.hold_until = 0.0  # no room is taken before this time
        self.wish_at = 0.0  # when to try again for all wanted rooms
        self.former: str | None = None  # the lease's name before the connection broke
        self.holders: dict[bytes, float] = {}  # leases of other processes, and when they end
