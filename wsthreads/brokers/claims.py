"""The state of `Leases`: the rooms that this process owns or wants to own (claims), and its leases.

A process has one lease in each shard, which it has to extend in time. The process owns its rooms in the shard only
until the lease ends.
"""

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
        """The clock that tells when leases end.

        This clock also runs while the machine is suspended, because other processes take the rooms meanwhile.
        """
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    lease_time = time.monotonic


class Claim:
    """A room that this process owns or wants to own."""

    __slots__ = ("address", "closing", "fence", "holder", "is_closed", "keeper", "key", "taken")

    def __init__(self, key: RoomKey, address: Address, keeper: Keeper) -> None:
        self.key = key
        self.address = address
        self.keeper = keeper
        self.fence: int | None = None  # set while this process owns the room, as far as it knows
        self.holder: bytes | None = None  # the lease of another process that owns the room, if one does
        self.taken = TakenPosts()
        # An object while this process owns the room, but the room has no members here. None otherwise. Each such period
        # has an object of its own.
        self.closing: object | None = None
        self.is_closed = False  # whether this process has also received all posts to the room


class Return:
    """Tells Redis that this process no longer owns a room, or no longer wants to own it.

    A Return is queued until Redis has confirmed it.
    """

    __slots__ = ("address", "fence", "key", "taken", "ticket")

    def __init__(self, claim: Claim, ticket: int, fence: int | None = None) -> None:
        self.key = claim.key
        self.address = claim.address
        self.taken = claim.taken
        self.fence = claim.fence if fence is None else fence
        self.ticket = ticket  # broadcasts with lower tickets are sent first


class ShardLease:
    """The lease of this process in one shard."""

    __slots__ = ("confirm_at", "former", "hold_until", "holders", "is_known", "keep_at", "trusted_until", "wish_at")

    def __init__(self) -> None:
        self.is_known = False  # whether Redis has the lease
        self.trusted_until = 0.0  # until when this process relies on the lease; 0 once the lease has ended
        self.keep_at = 0.0  # when to extend the lease
        self.confirm_at = 0.0  # when to ask Redis whether the rooms still belong to this lease
        self.hold_until = 0.0  # no room of the shard is taken before this time
        self.wish_at = 0.0  # when to ask again for all rooms that this process wants to own
        self.former: str | None = None  # the lease's name before the connection broke
        self.holders: dict[bytes, float] = {}  # leases of other processes, and when they end
