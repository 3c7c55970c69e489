"""Takes posts for the rooms that this process owns, reports the outcomes, and returns rooms.

A *turn* is one call of the script `TURN` for a room: it reports outcomes of posts, and takes further posts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from wsthreads.brokers import lease_scripts
from wsthreads.brokers.claims import Claim, Return
from wsthreads.brokers.posts import WINDOW, TakenPosts, outcome_of, parse_entry
from wsthreads.errors import PostError, WSThreadsError
from wsthreads.rooms import posts as room_posts
from wsthreads.threads.lookups import look_up

if TYPE_CHECKING:
    from threading import Lock

    from wsthreads.brokers.claims import RoomKey
    from wsthreads.brokers.keys import Keys
    from wsthreads.brokers.pipeline import Pipeline
    from wsthreads.brokers.posts import PostBox
    from wsthreads.brokers.queue import SendQueue

__all__ = ["Turns"]

#: At most this many bytes of posts are taken in one turn.
TAKE_BYTES = 1024 * 1024


class Turns:
    """The turns of the rooms that this process owns.

    `Leases` is derived from this class, and decides which rooms these are.

    `lock` is the link's lock. The writer's thread calls the methods that have a `pipeline`. `next_ticket` returns the
    ticket of the next broadcast, and needs the lock. `posts` are the posts that this process sends.
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
    ) -> None:
        self._keys = keys
        self._channel = channel
        self._lock = lock
        self._queue = queue
        self._next_ticket = next_ticket
        self._posts = posts
        self._lease = ""  # the name of this process's leases
        self._claims: dict[RoomKey, Claim] = {}
        self._by_lease: dict[bytes, Claim] = {}  # the claims of `_claims`, by the key `lease` of the room
        self._due: dict[RoomKey, Claim] = {}  # rooms that this process has to try to take
        self._turns: dict[RoomKey, Claim] = {}  # rooms that need a turn
        # rooms with outcomes that cannot be reported before earlier broadcasts are sent
        self._held: dict[RoomKey, Claim] = {}
        self._returns: dict[Return, None] = {}  # returns of rooms that Redis has not confirmed, in order
        self._returning: Counter[RoomKey] = Counter()  # how many of these returns there are for each room
        # calls of keepers that have to be made; used only by the writer's thread
        self._events: list[Callable[[], object]] = []

    def _lose_all(self, lost: list[tuple[Claim, int]]) -> None:
        """Tell the keepers that this process no longer owns these rooms.

        Each room has the fencing number of the lost ownership.
        """
        raise NotImplementedError

    def _return_locked(self, claim: Claim, fence: int | None = None) -> None:
        if look_up(self._claims, claim.key) is claim:
            del self._claims[claim.key], self._by_lease[claim.address.lease]
            self._due.pop(claim.key, None)
            self._turns.pop(claim.key, None)
        self._returns[Return(claim, self._next_ticket(), fence)] = None
        self._returning[claim.key] += 1

    def is_closed(self, key: RoomKey) -> bool:
        """Whether the ownership of a room can end: it has no members here, and all earlier posts were received.

        If posts are missing, they are requested, after the posts that this process has sent are in Redis. When all have
        arrived, the keeper's `go_on` is called.
        """
        with self._lock:
            claim = look_up(self._claims, key)
            if claim is None or claim.fence is None:
                return True
            is_empty = not claim.keeper.has_members(key[1])
            if is_empty != (claim.closing is not None):
                claim.closing, claim.is_closed = object() if is_empty else None, False
                self._close_locked(claim, claim.fence)
            return is_empty and claim.is_closed

    def send_last(self, pipeline: Pipeline, gate: float) -> None:
        """Return rooms, report outcomes, and take posts.

        When this runs, Redis has the broadcasts before `gate`, a ticket.
        """
        if not self._returns and not self._turns and not self._held:
            return
        with self._lock:
            for each in self._returns:
                if each.ticket > gate:
                    break
                self._give_back(pipeline, each)
            turns, self._turns = self._turns, {}
            held, self._held = self._held, {}
            for key, claim in held.items():
                if look_up(self._claims, key) is claim and claim.taken.outcomes:
                    if claim.taken.outcomes[0].ticket <= gate:
                        turns[key] = claim
                    else:
                        self._held[key] = claim
            for key, claim in turns.items():
                if claim.fence is not None:
                    outcomes = claim.taken.ready(gate)
                    if len(outcomes) < len(claim.taken.outcomes):
                        self._held[key] = claim
                    limit = 0 if claim.closing is not None else max(0, WINDOW - claim.taken.open)
                    self._take_turn(pipeline, claim, claim.fence, outcomes, limit)

    def _give_back(self, pipeline: Pipeline, each: Return) -> None:
        taken = each.taken
        pipeline.call(
            lease_scripts.GIVE_BACK,
            self._keys.post_box(each.address),
            self._lease,
            each.fence or "",
            int(each.key in self._claims),
            taken.first,
            *taken.rest(),
            then=partial(self._returned, each),
        )

    def _close_locked(self, claim: Claim, fence: int) -> None:
        """Tell Redis whether an owned room has members. The posts that this process has sent before go first."""
        self._posts.add_call(partial(self._close, claim, fence, claim.closing), self._next_ticket())

    def _close(self, claim: Claim, fence: int, closing: object | None, pipeline: Pipeline) -> None:
        """Tell Redis that an owned room no longer has members, or has some again."""
        with self._lock:
            if look_up(self._claims, claim.key) is claim and claim.fence == fence:
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
        taken = claim.taken
        pipeline.call(
            lease_scripts.TURN,
            self._keys.post_box(claim.address),
            fence,
            taken.received,
            limit,
            TAKE_BYTES,
            "" if is_closing is None else int(is_closing),
            taken.first,
            *outcomes,
            then=partial(self._turned, claim, fence, len(outcomes), taken.received, closing),
        )

    def _returned(self, each: Return, _: Any) -> None:
        with self._lock:
            del self._returns[each]
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
            claim.taken.told(told)
        if len(answer) > 1:
            self._events.append(partial(self._deliver, claim, fence, first, answer[1::2], answer[2::2]))
        if closing is not None:
            self._events.append(partial(self._closed, claim, fence, closing, is_all=answer[0] == 2))

    def _closed(self, claim: Claim, fence: int, closing: object, *, is_all: bool) -> None:
        with self._lock:
            if claim.closing is not closing:
                return  # the room has members again
            claim.is_closed = is_all
            if not is_all:
                self._close_locked(claim, fence)
        if is_all:
            claim.keeper.go_on(claim.key[1])

    def _deliver(self, claim: Claim, fence: int, first: int, left_ms: list[bytes], entries: list[bytes]) -> None:
        """Pass posts to the keeper. The numbers of the posts begin with `first`.

        If two turns were made at the same time, the answer of the later one also has the posts of the earlier one.
        """
        taken, posts, refused = claim.taken, [], []
        for number, (left, entry) in enumerate(zip(left_ms, entries, strict=True), first):
            if number < taken.received:
                continue
            settled = partial(self._settled, claim, taken, number)
            post = parse_entry(entry, settled)
            if post is None:
                why = "the owner cannot read the post: it is malformed, or another version of wsthreads wrote it"
                refused.append(partial(settled, PostError(why)))
            elif int(left) <= 0:
                refused.append(partial(settled, PostError("the post has waited too long for its turn")))
            else:
                posts.append(post)
        if posts and not claim.keeper.deliver(claim.key[1], fence, posts):
            return  # the room will be returned, together with these posts
        with self._lock:
            taken.received = max(taken.received, first + len(entries))
        for refuse in refused:
            refuse()

    def _settled(self, claim: Claim, taken: TakenPosts, number: int, error: WSThreadsError | None) -> None:
        """Store the outcome of a post, which was handled or has failed. Any thread."""
        with self._lock:
            taken.settle(number, self._next_ticket(), outcome_of(error))
            if look_up(self._claims, claim.key) is claim and claim.taken is taken and taken.outcomes:
                self._turns[claim.key] = claim
                self._queue.not_empty.notify()
