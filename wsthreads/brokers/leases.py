"""Which rooms this process owns, as Redis has it.

A process has one lease for each shard in which it wants to own rooms. It extends its leases every `RENEW_S`, in one
call for each shard, however many rooms it owns. A room belongs to a lease, and has a fencing number, which is another,
higher one for each ownership. `keys` describes what Redis keeps.

- A process trusts its lease for `LEASE_S - MARGIN_S` from when it sent the call that has extended it, by its own clock.
  So it has stopped before Redis gives the room to another process.
- Those who want a room know until when its holder's lease lasts. They take the room when that has ended, or when the
  holder gives it back: then Redis wakes them.
- Redis may have lost what it knew: it was flushed, or has failed over. Then somebody may still trust a lease of which
  Redis knows nothing. So after a break of the connection, and after its own lease was lost, a process takes no room for
  `LEASE_S`. It keeps those that Redis confirms.

What goes to Redis has an order: outcomes of posts, and rooms that are given back, go behind the broadcasts that were
made before. Nothing here blocks, and no lock is held when a keeper is called.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from wsthreads.brokers import lease_scripts, scripts
from wsthreads.brokers.claims import Claim, Return, ShardLease, lease_time
from wsthreads.brokers.keys import LEASE_S, MARGIN_S, RENEW_S, SHARDS, TOUCH_S, WISH_S
from wsthreads.brokers.posts import WINDOW, Intake, outcome_of, parse_entry
from wsthreads.errors import PostError, WSThreadsError
from wsthreads.loggers import get_logger
from wsthreads.rooms import posts as room_posts

if TYPE_CHECKING:
    from threading import Lock

    from wsthreads.brokers.claims import RoomKey
    from wsthreads.brokers.interface import Keeper
    from wsthreads.brokers.keys import Address, Keys
    from wsthreads.brokers.pipeline import Pipeline
    from wsthreads.brokers.posts import PostBox
    from wsthreads.brokers.queue import SendQueue

__all__ = ["Leases"]

log = get_logger(__name__)

#: Rooms in one call of a script: Redis does nothing else meanwhile.
ROOMS_AT_ONCE = 200

#: At most so many bytes of posts are taken at once.
TAKE_BYTES = 1024 * 1024

#: How long after the end of a lease others try to take its rooms.
AFTER_S = 0.01


class Leases:
    """The leases of this process over one link. `lock` is the link's; the writer's thread calls what has `pipeline`.

    `next_ticket` returns the ticket of the next broadcast, under the lock.
    """

    def __init__(
        self,
        keys: Keys,
        channel: bytes,
        *,
        lock: Lock,
        queue: SendQueue,
        next_ticket: Callable[[], int],
        posts: PostBox,
        place: str,
    ) -> None:
        self._keys = keys
        self._place = place
        self._channel = channel
        self._lock = lock
        self._queue = queue
        self._next_ticket = next_ticket
        self._posts = posts
        self._lease = ""  # the name of this process's leases
        self._shards: dict[int, ShardLease] = {}
        self._claims: dict[RoomKey, Claim] = {}
        self._by_lease: dict[bytes, Claim] = {}  # the same, by the key of the room's lease
        self._due: dict[RoomKey, Claim] = {}  # rooms to try for
        self._turns: dict[RoomKey, Claim] = {}  # rooms with posts to take, or outcomes to tell
        self._returns: list[Return] = []
        self._returning: Counter[RoomKey] = Counter()  # how many of them are of a room
        self._held: deque[RoomKey] = deque()  # rooms with outcomes that wait for broadcasts
        self._next_at = float("inf")  # when there is something to do
        self._trusts: list[tuple[ShardLease, float]] = []  # the thread's own, as the next
        self._events: list[Callable[[], object]] = []

    # Any thread

    def look(self, key: RoomKey, address: Address, keeper: Keeper) -> None:
        """Try to own a room from now on, or no longer, as `keeper` wants."""
        with self._lock:
            claim = self._claims.get(key)
            wanted = keeper.is_wanted(key[1])
            if claim is None and wanted:
                claim = self._claims[key] = self._by_lease[address.lease] = Claim(key, address, keeper)
                self._try_soon_locked(claim)
            elif claim is not None and claim.fence is None and not wanted:
                self._return_locked(claim)
            self._queue.not_empty.notify()

    def give_back(self, key: RoomKey, fence: int) -> None:
        """This process does not own a room any more: the handler is done with it, or the lease was lost."""
        with self._lock:
            claim = self._claims.get(key)
            if claim is not None and claim.fence == fence:
                self._return_locked(claim)
                self._queue.not_empty.notify()

    def _return_locked(self, claim: Claim, fence: int | None = None) -> None:
        if self._claims.get(claim.key) is claim:
            del self._claims[claim.key], self._by_lease[claim.address.lease]
            self._due.pop(claim.key, None)
            self._turns.pop(claim.key, None)
        self._returns.append(Return(claim, self._next_ticket(), fence))
        self._returning[claim.key] += 1

    def _try_soon_locked(self, claim: Claim) -> None:
        if not self._returning[claim.key]:  # else when it was given back
            self._due[claim.key] = claim

    def holds(self, key: RoomKey, fence: int) -> bool:
        """Whether this process surely owns a room. Takes no lock."""
        claim = self._claims.get(key)
        if claim is None or claim.fence != fence:
            return False
        return lease_time() < self._shards[claim.address.shard].trusted_until

    def is_closed(self, key: RoomKey) -> bool:
        """Whether an owned room can end: it has no members, and its owner has received all posts of before that. If it
        has not, that is asked for, behind the posts that this process has sent. Then the keeper's `go_on` is called.
        """
        with self._lock:
            claim = self._claims.get(key)
            if claim is None or claim.fence is None:
                return True
            is_empty = not claim.keeper.has_members(key[1])
            if is_empty != (claim.closing is not None):
                claim.closing, claim.is_closed = object() if is_empty else None, False
                call = partial(self._close, claim, claim.fence, claim.closing)
                self._posts.add_call(call, self._next_ticket())
            return is_empty and claim.is_closed

    def woken(self, lease: bytes) -> None:
        """There is a post for a room of this process, or a room that it wants was given back."""
        with self._lock:
            claim = self._by_lease.get(lease)
            if claim is not None:
                if claim.fence is not None:
                    self._turns[claim.key] = claim
                else:
                    self._try_soon_locked(claim)
                self._queue.not_empty.notify()

    def look_again(self) -> None:
        """Wakes may have been lost."""
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
        lost: list[tuple[Claim, int]] = []
        with self._lock:
            ended = {number for number, shard in self._shards.items() if 0 < shard.trusted_until <= now}
            for number in ended:
                self._shards[number].trusted_until = 0.0
            for claim in self._claims.values():
                if claim.address.shard in ended and claim.fence is not None:
                    lost.append((claim, claim.fence))
        self._lose_all(lost)

    # The writer's thread

    def begin(self, lease: str) -> None:
        """There is a new connection. `lease` is the name of the leases from now on: what was sent by the old one, and
        arrives later, must have no effect.
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
            self._turns = {key: claim for key, claim in self._claims.items() if claim.fence is not None}
            self._next_at = now

    def has_work(self, gate: float) -> bool:
        """Whether there is something to send, if Redis has the broadcasts before `gate`. Holds the lock."""
        if self._due or self._turns or lease_time() >= self._next_at:
            return True
        return any(each.ticket <= gate for each in self._returns)

    @property
    def is_done(self) -> bool:
        """Whether the process may end: Redis knows of all rooms that were given back. Holds the lock."""
        return not self._returns

    def wait_s(self) -> float:
        """How long there is nothing to do. Holds the lock."""
        return max(0.0, self._next_at - lease_time())

    def send_first(self, pipeline: Pipeline) -> None:
        """Extend leases, and try for rooms."""
        with self._lock:
            now = lease_time()
            if not self._due and now < self._next_at:
                return
            by_shard: dict[int, list[Claim]] = {}
            for claim in self._claims.values():
                by_shard.setdefault(claim.address.shard, []).append(claim)
            due, self._due = self._due, {}
            self._next_at = float("inf")
            for number, claims in by_shard.items():
                shard = self._shards.setdefault(number, ShardLease())
                self._keep(pipeline, number, shard, claims, now)
                self._confirm(pipeline, number, shard, claims, now)
                self._try(pipeline, number, shard, [claim for claim in claims if claim.key in due], claims, now)
                self._next_at = min(self._next_at, shard.keep_at, shard.wish_at, *shard.holders.values())
            for number, shard in self._shards.items():
                if number not in by_shard:
                    shard.is_known, shard.former = False, None  # it ends by itself
                    shard.holders.clear()

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
            then=partial(self._kept, shard, claims, now, others),
        )

    def _kept(self, shard: ShardLease, claims: list[Claim], sent_at: float, others: list[bytes], answer: Any) -> None:
        now = lease_time()
        if not answer[0]:  # it has ended, or Redis has lost its data
            shard.is_known, shard.trusted_until, shard.hold_until = False, 0.0, now + LEASE_S
            lost = [(claim, claim.fence) for claim in claims if claim.fence is not None]
            self._events.append(partial(self._lose_all, lost))
            shard.wish_at, self._next_at = 0.0, now
            return
        self._trusts.append((shard, sent_at + LEASE_S - MARGIN_S))
        for holder, left_ms in zip(others, answer[1:], strict=True):
            shard.holders[holder] = now + left_ms / 1000 + AFTER_S
        self._next_at = min(self._next_at, *shard.holders.values(), shard.keep_at)

    def _lose_all(self, lost: list[tuple[Claim, int]]) -> None:
        if lost:
            names = f"{lost[0][0].key[1]!r:.80}" + (f" and {len(lost) - 1} others" if len(lost) > 1 else "")
            log.warning("this process owns the room %s no more: %s has not confirmed that in time", names, self._place)
        for claim, fence in lost:
            claim.keeper.lose(claim.key[1], fence)

    def _confirm(self, pipeline: Pipeline, number: int, shard: ShardLease, claims: list[Claim], now: float) -> None:
        """Ask whether the rooms still belong to this process. That also has their keys live on."""
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
        if former is not None:  # what was sent by that name, and arrives later, has no effect
            pipeline.call(scripts.FAREWELL, [self._keys.holders(number)], former)

    def _confirmed(self, some: list[tuple[Claim, int]], answer: list[int]) -> None:
        with self._lock:
            lost = [each for each, is_owned in zip(some, answer, strict=True) if not is_owned]
            for claim, fence in lost:
                if claim.fence == fence and self._claims.get(claim.key) is claim:
                    self._return_locked(claim)  # at once: its lease is trusted again in a moment
        self._events.append(partial(self._lose_all, lost))

    def _try(
        self,
        pipeline: Pipeline,
        number: int,
        shard: ShardLease,
        due: list[Claim],
        claims: list[Claim],
        now: float,
    ) -> None:
        """Try for rooms. While none may be taken, only tell Redis that they are wanted."""
        ended = {holder for holder, ends_at in shard.holders.items() if ends_at <= now}
        for holder in ended:
            del shard.holders[holder]
        if now >= shard.wish_at:
            shard.wish_at = now + WISH_S
            due = claims
        elif ended:
            due = due + [claim for claim in claims if claim.holder in ended and claim not in due]
        may_take = now >= shard.hold_until
        if not may_take:
            shard.wish_at = min(shard.wish_at, shard.hold_until)
        wanted = [claim for claim in due if claim.fence is None and not self._returning[claim.key]]
        for some in _chunks(wanted):
            keys = [self._keys.holders(number)]
            keys += [key for claim in some for key in (claim.address.lease, claim.address.taken)]
            pipeline.call(
                lease_scripts.CLAIM,
                keys,
                self._lease,
                self._channel,
                int(may_take),
                then=partial(self._tried, shard, some),
            )

    def _tried(self, shard: ShardLease, some: list[Claim], answers: list[Any]) -> None:
        now = lease_time()
        with self._lock:
            for claim, answer in zip(some, answers, strict=False):  # no answers: the lease has ended
                if isinstance(answer, bytes):
                    fence = int(answer)
                    if self._claims.get(claim.key) is not claim:  # it is not wanted any more
                        self._return_locked(claim, fence)
                        continue
                    claim.fence, claim.holder, claim.intake = fence, None, Intake()
                    claim.closing, claim.is_closed = None, False
                    self._turns[claim.key] = claim
                    self._events.append(partial(claim.keeper.begin, claim.key[1], fence))
                else:
                    holder, left_ms = answer
                    claim.holder = holder if left_ms >= 0 else None
                    if left_ms >= 0:
                        shard.holders[holder] = now + left_ms / 1000 + AFTER_S
                        self._next_at = min(self._next_at, shard.holders[holder])

    def send_last(self, pipeline: Pipeline, gate: float) -> None:
        """Give rooms back, tell outcomes, and take posts. Redis has the broadcasts before `gate` by then."""
        with self._lock:
            for each in self._returns:
                if each.ticket <= gate:
                    keys = self._room_keys(each.address)
                    fence, intake = each.fence or "", each.intake
                    wants, then = int(each.key in self._claims), partial(self._returned, each)
                    pipeline.call(
                        lease_scripts.GIVE_BACK,
                        keys,
                        self._lease,
                        fence,
                        wants,
                        intake.first,
                        *intake.rest(),
                        then=then,
                    )
            turns, self._turns = self._turns, {}
            held, self._held = self._held, deque()
            for key in held:
                claim = self._claims.get(key)
                if claim is not None and claim.fence is not None and claim.intake.outcomes:
                    if claim.intake.outcomes[0].ticket <= gate:
                        turns[key] = claim
                    elif key not in turns:
                        self._held.append(key)
            for key, claim in turns.items():
                if claim.fence is not None:
                    outcomes = claim.intake.ready(gate)
                    if len(outcomes) < len(claim.intake.outcomes):
                        self._held.append(key)
                    limit = 0 if claim.closing is not None else max(0, WINDOW - claim.intake.open)
                    self._take_turn(pipeline, claim, claim.fence, outcomes, limit)

    def _close(self, claim: Claim, fence: int, closing: object | None, pipeline: Pipeline) -> None:
        """Tell Redis that an owned room has no members any more, or has some again."""
        with self._lock:
            if self._claims.get(claim.key) is claim and claim.fence == fence:
                limit = 0 if closing is None else room_posts.MAX_POSTS_WAITING
                self._take_turn(pipeline, claim, fence, [], limit, closing=closing, is_closing=closing is not None)

    def _take_turn(
        self,
        pipeline: Pipeline,
        claim: Claim,
        fence: int,
        outcomes: list[str],
        limit: int,
        *,
        is_closing: bool | None = None,
        closing: object | None = None,
    ) -> None:
        intake = claim.intake
        pipeline.call(
            lease_scripts.TURN,
            self._room_keys(claim.address),
            fence,
            intake.received,
            limit,
            TAKE_BYTES,
            "" if is_closing is None else int(is_closing),
            intake.first,
            *outcomes,
            then=partial(self._turned, claim, fence, len(outcomes), intake.received, closing),
        )

    def _room_keys(self, address: Address) -> list[bytes]:
        return [self._keys.holders(address.shard), address.lease, address.posts, address.taken]

    def _returned(self, each: Return, _: Any) -> None:
        with self._lock:
            self._returns.remove(each)
            self._returning[each.key] -= 1
            if not self._returning[each.key]:
                del self._returning[each.key]
                if each.key in self._claims:
                    self._due[each.key] = self._claims[each.key]

    def _turned(
        self, claim: Claim, fence: int, told: int, first: int, closing: object | None, answer: list[Any]
    ) -> None:
        if not answer[0]:
            self._events.append(partial(self._lose_all, [(claim, fence)]))
            return
        with self._lock:
            claim.intake.told(told)
        if len(answer) > 1:
            self._events.append(partial(self._deliver, claim, fence, first, answer[1::2], answer[2::2]))
        if closing is not None:
            self._events.append(partial(self._closed, claim, fence, closing, is_all=answer[0] == 2))

    def _closed(self, claim: Claim, fence: int, closing: object, *, is_all: bool) -> None:
        with self._lock:
            if claim.closing is not closing:
                return  # it has members again
            claim.is_closed = is_all
            if not is_all:
                self._posts.add_call(partial(self._close, claim, fence, closing), 0)
        if is_all:
            claim.keeper.go_on(claim.key[1])

    def _deliver(self, claim: Claim, fence: int, first: int, left_ms: list[bytes], entries: list[bytes]) -> None:
        """Have posts handled that are numbered from `first`. Of two calls that were made at once, the later one has
        also got what the first one has.
        """
        intake, posts, refused = claim.intake, [], []
        for number, (left, entry) in enumerate(zip(left_ms, entries, strict=True), first):
            if number < intake.received:
                continue
            settled = partial(self._settled, claim, intake, number)
            post = parse_entry(entry, settled)
            if post is None:
                refused.append(partial(settled, PostError("a post that is not in the format of this version")))
            elif int(left) <= 0:
                refused.append(partial(settled, PostError("the post had waited for too long when it was its turn")))
            else:
                posts.append(post)
        if posts and not claim.keeper.deliver(claim.key[1], fence, posts):
            return  # the room is about to be given back, with these posts
        with self._lock:
            intake.received = max(intake.received, first + len(entries))
        for refuse in refused:
            refuse()

    def _settled(self, claim: Claim, intake: Intake, number: int, error: WSThreadsError | None) -> None:
        """A post was handled, or was not. Any thread."""
        with self._lock:
            intake.settle(number, self._next_ticket(), outcome_of(error))
            if self._claims.get(claim.key) is claim and claim.intake is intake and intake.outcomes:
                self._turns[claim.key] = claim
                self._queue.not_empty.notify()

    def finish(self) -> None:
        """Redis has answered all calls: tell the keepers."""
        trusts, self._trusts = self._trusts, []
        events, self._events = self._events, []
        for shard, until in trusts:
            if shard.is_known:
                shard.trusted_until = until
        for event in events:
            try:
                event()
            except Exception:
                log.exception("the owner of a room was not told")

    def fail(self) -> None:
        """Redis has not answered. What was sent is sent again, after `begin`."""
        self._trusts.clear()
        self._events.clear()


def _chunks(items: list[Any]) -> Iterable[list[Any]]:
    for at in range(0, len(items), ROOMS_AT_ONCE):
        yield items[at : at + ROOMS_AT_ONCE]
