"""The rooms that this process wants to own or owns, and its leases, as `Leases` remembers them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from wsthreads.brokers.posts import Intake

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Keeper
    from wsthreads.brokers.keys import Address

__all__ = ["Claim", "Return", "RoomKey", "ShardLease", "lease_time"]

RoomKey = tuple[str, str]  # the path of an endpoint, and the name of a room

if hasattr(time, "CLOCK_BOOTTIME"):

    def lease_time() -> float:
        """The time by which leases end. It goes on while the machine is suspended: others take the rooms then."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    lease_time = time.monotonic


class Claim:
    """A room that this process wants to own, or owns."""

    __slots__ = ("address", "closing", "fence", "holder", "intake", "is_closed", "keeper", "key")

    def __init__(self, key: RoomKey, address: Address, keeper: Keeper) -> None:
        self.key = key
        self.address = address
        self.keeper = keeper
        self.fence: int | None = None  # while this process owns the room, as far as it knows
        self.holder: bytes | None = None  # the lease to which the room belongs, if it does not belong to this process
        self.intake = Intake()
        # While this process owns the room: it has no members any more. The object tells one such time from another.
        self.closing: object | None = None
        self.is_closed = False  # and it has received all posts


class Return:
    """A room that is given back, or the wish to own it."""

    __slots__ = ("address", "fence", "intake", "key", "ticket")

    def __init__(self, claim: Claim, ticket: int, fence: int | None = None) -> None:
        self.key = claim.key
        self.address = claim.address
        self.intake = claim.intake
        self.fence = claim.fence if fence is None else fence
        self.ticket = ticket  # broadcasts with lower tickets go first


class ShardLease:
    """This process's lease in one shard."""

    __slots__ = ("confirm_at", "former", "hold_until", "holders", "is_known", "keep_at", "trusted_until", "wish_at")

    def __init__(self) -> None:
        self.is_known = False  # Redis has the lease
        self.trusted_until = 0.0  # when this process counts its lease as ended; 0 if it has counted it so
        self.keep_at = 0.0  # when to extend it
        self.confirm_at = 0.0  # when to ask whether the rooms still belong to it
        self.hold_until = 0.0  # no room is taken before
        self.wish_at = 0.0  # when to try again for all rooms that are wanted
        self.former: str | None = None  # its name before the break of the connection
        self.holders: dict[bytes, float] = {}  # leases of other processes, and when they end
