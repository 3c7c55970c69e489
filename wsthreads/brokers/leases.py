"""Decides, by leases in Redis, which rooms this process owns.

A process has one lease for each shard in which it wants to own rooms. The process extends its leases every `RENEW_S`,
in one call for each shard, however many rooms it owns. An owned room has a holder, which is the lease of its owner, and
a fencing number. The number is higher for each later ownership. `keys` describes the data in Redis.

- A process relies on its lease for `LEASE_S - MARGIN_S`, by its own clock, from the time when it sent the call that
  extended the lease. So the process stops to be the owner before Redis gives the room to another process.
- Processes that want to own a room know when the holder's lease ends. These processes take the room after that. If the
  holder returns the room earlier, Redis wakes them, and they take it at once.
- Redis may lose its data by a flush or a failover. Then a process may still rely on a lease that Redis no longer has.
  So a process takes no room for `LEASE_S` after a break of the connection, or after its own lease was lost. The process
  keeps the rooms that Redis confirms.
- Redis may have come back with an older state, in which posts wait that were already handled. So a process that takes a
  room gives up the posts from before its own last break.

Outcomes of posts, and returns of rooms, are sent to Redis after all earlier broadcasts. Nothing in this module blocks.
No lock is held when a method of a `Keeper` is called.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from wsthreads.brokers import lease_scripts, scripts
from wsthreads.brokers.claims import Claim, ShardLease, lease_time
from wsthreads.brokers.keys import LEASE_S, MARGIN_S, RENEW_S, SHARDS, TOUCH_S
from wsthreads.brokers.posts import TakenPosts
from wsthreads.brokers.turns import Turns
from wsthreads.loggers import get_logger
from wsthreads.threads.lookups import look_up

if TYPE_CHECKING:
    from wsthreads.brokers.claims import RoomKey
    from wsthreads.brokers.interface import Keeper
    from wsthreads.brokers.keys import Address
    from wsthreads.brokers.pipeline import Pipeline

__all__ = ["Leases"]

log = get_logger(__name__)

#: At most this many rooms are in one call of a script, because Redis does nothing else during the call.
ROOMS_AT_ONCE = 200

#: This long after the end of a lease, other processes try to take its rooms.
AFTER_S = 0.01


class Leases(Turns):
    """The leases of this process over one link, and the rooms that it owns or wants to own.

    `place` is the name of Redis in logs.
    """

    def __init__(self, *parts: Any, place: str, **more: Any) -> None:
        super().__init__(*parts, **more)
        self._place = place
        self._shards: dict[int, ShardLease] = {}
        self._next_at = float("inf")  # when something has to be sent
        self._trusts: list[tuple[ShardLease, float]] = []  # used only by the writer's thread

    # These methods are for any thread

    def look(self, key: RoomKey, address: Address, keeper: Keeper) -> None:
        """Begin to try to own a room, or stop trying, depending on `keeper.is_wanted`."""
        with self._lock:
            claim = look_up(self._claims, key)
            wanted = keeper.is_wanted(key[1])
            if claim is None and wanted:
                claim = self._claims[key] = self._by_lease[address.lease] = Claim(key, address, keeper)
                self._try_soon_locked(claim)
            elif claim is not None and claim.fence is None and not wanted:
                self._return_locked(claim)
            self._queue.not_empty.notify()

    def give_back(self, key: RoomKey, fence: int) -> None:
        """Give back a room, because the handler has finished with it, or because the lease was lost."""
        with self._lock:
            claim = look_up(self._claims, key)
            if claim is not None and claim.fence == fence:
                self._return_locked(claim)
                self._queue.not_empty.notify()

    def _try_soon_locked(self, claim: Claim) -> None:
        if not self._returning[claim.key]:  # otherwise, the claim is due when Redis has the room back
            self._due[claim.key] = claim

    def holds(self, key: RoomKey, fence: int) -> bool:
        """Whether this process surely owns a room. Takes no lock."""
        claim = look_up(self._claims, key)
        if claim is None or claim.fence != fence:
            return False
        return lease_time() < self._shards[claim.address.shard].trusted_until

    def woken(self, lease: bytes) -> None:
        """Called when Redis wakes this process: there is a post for an owned room, or a wanted room is free."""
        with self._lock:
            claim = look_up(self._by_lease, lease)
            if claim is not None:
                if claim.fence is not None:
                    self._turns[claim.key] = claim
                else:
                    self._try_soon_locked(claim)
                self._queue.not_empty.notify()

    def look_again(self) -> None:
        """Check all rooms again, because messages that wake this process may have been lost."""
        with self._lock:
            for key, claim in self._claims.items():
                if claim.fence is not None:
                    self._turns[key] = claim
                else:
                    self._try_soon_locked(claim)
            self._queue.not_empty.notify()

    def end_late(self) -> None:
        """Give up the rooms of leases that have ended. Called several times a second."""
        now = lease_time()
        if not any(0 < shard.trusted_until <= now for shard in list(self._shards.values())):
            return
        with self._lock:
            ended = {number for number, shard in self._shards.items() if 0 < shard.trusted_until <= now}
            for number in ended:
                self._shards[number].trusted_until = 0.0
            lost = self._owned_locked(ended)
        self._lose_all(lost)

    def _owned_locked(self, shards: Container[int]) -> list[tuple[Claim, int]]:
        """The rooms that this process owns in some shards, with their fencing numbers."""
        claims = [claim for claim in self._claims.values() if claim.address.shard in shards]
        return [(claim, claim.fence) for claim in claims if claim.fence is not None]

    # These methods are for the writer's thread

    def begin(self, lease: str) -> None:
        """Prepare for a new connection to Redis.

        `lease` is the name of the leases from now on. Calls with the old name that arrive late have no effect.
        """
        with self._lock:
            now = lease_time()
            former, self._lease = self._lease, lease
            for shard in self._shards.values():
                if shard.is_known:
                    shard.former = former
                shard.is_known, shard.keep_at, shard.confirm_at, shard.wish_at = False, 0.0, 0.0, 0.0
                shard.holders.clear()
            if former:
                for number in range(SHARDS):
                    self._shards.setdefault(number, ShardLease()).hold_until = now + LEASE_S
            for key, claim in self._claims.items():
                if claim.fence is not None:
                    self._turns[key] = claim
                    if claim.closing is not None and not claim.is_closed:
                        self._close_locked(claim, claim.fence)
            self._next_at = now

    def has_work(self, gate: float) -> bool:
        """Whether there is something to send.

        `gate` is a ticket: broadcasts with lower tickets are already in Redis. The caller holds the lock.
        """
        if self._due or self._turns or lease_time() >= self._next_at:
            return True
        first = next(iter(self._returns), None)
        return first is not None and first.ticket <= gate

    @property
    def is_done(self) -> bool:
        """Whether the process may end: Redis has got all returned rooms. The caller holds the lock."""
        return not self._returns

    def wait_s(self) -> float:
        """The seconds until something has to be sent. The caller holds the lock."""
        return max(0.0, self._next_at - lease_time())

    def send_first(self, pipeline: Pipeline) -> None:
        """Extend leases, and try to take rooms."""
        if not self._due and lease_time() < self._next_at:
            return
        with self._lock:
            now = lease_time()
            due, self._due = self._due, {}
            is_time = now >= self._next_at  # otherwise only the rooms in `due` need something
            by_shard: dict[int, list[Claim]] = {}
            for claim in (self._claims if is_time else due).values():
                by_shard.setdefault(claim.address.shard, []).append(claim)
            if is_time:
                self._next_at = float("inf")
                for number, shard in self._shards.items():
                    if number not in by_shard:
                        # without claims, the lease is not extended, and will end
                        shard.is_known, shard.former = False, None
                        shard.holders.clear()
            for number, claims in by_shard.items():
                shard = self._shards.setdefault(number, ShardLease())
                if is_time or not shard.is_known:
                    self._keep(pipeline, number, shard, claims, now)
                    self._confirm(pipeline, number, shard, claims, now)
                self._try(pipeline, number, shard, claims, due, now)
                self._next_at = min(self._next_at, shard.keep_at, shard.wish_at, *shard.holders.values())

    def _keep(self, pipeline: Pipeline, number: int, shard: ShardLease, claims: list[Claim], now: float) -> None:
        if now < shard.keep_at and shard.is_known:
            return
        others = list({claim.holder for claim in claims if claim.holder is not None})
        is_new = not shard.is_known
        shard.is_known, shard.keep_at = True, now + RENEW_S
        pipeline.call(
            lease_scripts.KEEP,
            [self._keys.holders(number)],
            self._lease,
            int(is_new),
            *others,
            then=partial(self._kept, number, shard, now, others),
        )

    def _kept(self, number: int, shard: ShardLease, sent_at: float, others: list[bytes], answer: list[int]) -> None:
        now = lease_time()
        if not answer[0]:  # the lease has ended, or Redis has lost its data
            shard.is_known, shard.trusted_until, shard.hold_until = False, 0.0, now + LEASE_S
            with self._lock:
                lost = self._owned_locked({number})
            self._events.append(partial(self._lose_all, lost))
            self._events.append(partial(self._posts.lose_sent, f"{self._place} may have lost the post with its data"))
            shard.wish_at, self._next_at = 0.0, now
            return
        self._trusts.append((shard, sent_at + LEASE_S - MARGIN_S))
        for holder, left_ms in zip(others, answer[1:], strict=True):
            shard.holders[holder] = now + left_ms / 1000 + AFTER_S
        self._next_at = min(self._next_at, *shard.holders.values(), shard.keep_at)

    def _lose_all(self, lost: list[tuple[Claim, int]]) -> None:
        if lost:
            names = f"{lost[0][0].key[1]!r:.80}" + (f" and {len(lost) - 1} other rooms" if len(lost) > 1 else "")
            why = f"{self._place} has not confirmed the lease in time"
            log.warning("this process no longer owns the room %s: %s", names, why)
        for claim, fence in lost:
            claim.keeper.lose(claim.key[1], fence)

    def _confirm(self, pipeline: Pipeline, number: int, shard: ShardLease, claims: list[Claim], now: float) -> None:
        """Ask Redis whether the rooms still belong to this process.

        The call also extends the life of the rooms' keys.
        """
        if now < shard.confirm_at:
            return
        shard.confirm_at = now + TOUCH_S
        owned = [(claim, claim.fence) for claim in claims if claim.fence is not None]
        former, shard.former = shard.former, None
        for some in _chunks(owned):
            keys = [key for claim, _ in some for key in (claim.address.lease, claim.address.posts, claim.address.taken)]
            fences = [fence for _, fence in some]
            pipeline.call(
                lease_scripts.CONFIRM,
                keys,
                self._lease,
                self._channel,
                former or "",
                *fences,
                then=partial(self._confirmed, some),
            )
        if former is not None:  # calls with the former name that arrive late have no effect then
            pipeline.call(scripts.FAREWELL, [self._keys.holders(number)], former)

    def _confirmed(self, some: list[tuple[Claim, int]], answer: list[int]) -> None:
        with self._lock:
            lost = [each for each, is_owned in zip(some, answer, strict=True) if not is_owned]
            for claim, fence in lost:
                if claim.fence == fence and look_up(self._claims, claim.key) is claim:
                    self._return_locked(claim)  # now, because this process will soon rely on its lease again
        self._events.append(partial(self._lose_all, lost))

    def _try(
        self,
        pipeline: Pipeline,
        number: int,
        shard: ShardLease,
        claims: list[Claim],
        due: Container[RoomKey],
        now: float,
    ) -> None:
        """Try to take rooms. While this process may not take rooms, only tell Redis that it wants them."""
        ended = {holder for holder, ends_at in shard.holders.items() if ends_at <= now}
        for holder in ended:
            del shard.holders[holder]
        if now >= shard.wish_at:
            shard.wish_at = now + TOUCH_S
        else:
            claims = [claim for claim in claims if claim.key in due or claim.holder in ended]
        may_take = now >= shard.hold_until
        if not may_take:
            shard.wish_at = min(shard.wish_at, shard.hold_until)
        wanted = [claim for claim in claims if claim.fence is None and not self._returning[claim.key]]
        for some in _chunks(wanted):
            keys = [self._keys.holders(number)]
            keys += [key for claim in some for key in (claim.address.lease, claim.address.taken, claim.address.posts)]
            pipeline.call(
                lease_scripts.CLAIM,
                keys,
                self._lease,
                self._channel,
                int(may_take),
                self._posts.hearing_ms(),
                then=partial(self._tried, shard, some),
            )

    def _tried(self, shard: ShardLease, some: list[Claim], answers: list[Any]) -> None:
        now = lease_time()
        with self._lock:
            for claim, answer in zip(some, answers, strict=False):  # no answers: the lease has ended
                if isinstance(answer, bytes):
                    fence = int(answer)
                    if look_up(self._claims, claim.key) is not claim:  # this process no longer wants to own the room
                        self._return_locked(claim, fence)
                        continue
                    claim.fence, claim.holder, claim.taken = fence, None, TakenPosts()
                    claim.closing, claim.is_closed = None, False
                    self._turns[claim.key] = claim
                    self._events.append(partial(claim.keeper.begin, claim.key[1], fence))
                else:
                    holder, left_ms = answer
                    claim.holder = holder if left_ms >= 0 else None
                    if left_ms >= 0:
                        shard.holders[holder] = now + left_ms / 1000 + AFTER_S
                        self._next_at = min(self._next_at, shard.holders[holder])

    def finish(self) -> None:
        """Tell the keepers what has changed. Called when Redis has answered all calls."""
        trusts, self._trusts = self._trusts, []
        events, self._events = self._events, []
        for shard, until in trusts:
            if shard.is_known:
                shard.trusted_until = until
        for event in events:
            try:
                event()
            except Exception:
                log.exception("a change of a room's owner was not handled")

    def fail(self) -> None:
        """Called when Redis has not answered. The same calls are sent again after `begin`."""
        self._trusts.clear()
        self.finish()


def _chunks(items: list[Any]) -> Iterable[list[Any]]:
    for at in range(0, len(items), ROOMS_AT_ONCE):
        yield items[at : at + ROOMS_AT_ONCE]
