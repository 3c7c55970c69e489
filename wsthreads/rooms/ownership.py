"""Which rooms this process owns, and the calls of the handler's functions for them.

A room is owned from its first member until its last one has left. While it is owned, the handler gets one call for it
at a time: `on_room_start` first, then posts and ticks in the order in which they came, and `on_room_end` last. Posts
that came before the last member left are handled before `on_room_end`. If a member joins before `on_room_end` is
called, the ownership goes on. Otherwise a new one follows, with a higher fencing number.

Everything is level-triggered: whoever takes the next call of a room looks at the members then. So joins and leaves at
the same time need no order. All state is guarded by one lock, under which only the rooms' stripe is taken, to see
whether a room has members. No lock is held during a call.

Over a broker, a subclass takes and gives back leases. It overrides `_want`, `_unwant`, `_release`, `_is_valid` and
`post`, and calls `begin`, `lose` and `deliver`. All of these are called without locks, in any thread, and do not block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Condition, Lock
from time import monotonic, time
from typing import Any
from weakref import finalize

from wsthreads.errors import PostError, WSThreadsError
from wsthreads.loggers import get_logger
from wsthreads.monitoring.metrics import Histogram
from wsthreads.rooms.json_text import json_text
from wsthreads.rooms.mailboxes import Mailbox, OwnedState, Phase, RoomCall
from wsthreads.rooms.owned_room import OwnedRoom
from wsthreads.rooms.posts import MAX_POSTS_WAITING, Outcome, Post, Sender, Settled
from wsthreads.rooms.roster import RETRY_S, Timers
from wsthreads.rooms.ticks import Schedule
from wsthreads.threads.blocking import may_wait_for_posts, serve_rooms, serves_rooms
from wsthreads.threads.flusher import weakly
from wsthreads.threads.pool import Pool

__all__ = ["MAX_POSTS_AT_ONCE", "OwnedRoom", "Ownership", "RoomCall"]

log = get_logger(__name__)

#: The handler gets at most so many posts of one room at once, if it takes more than one call at once.
MAX_POSTS_AT_ONCE = 100

#: At most one log line in this time about posts that were not handled, and for which nobody waits.
COMPLAIN_S = 10.0


class Ownership:
    """The owned rooms of one endpoint in this process. Any thread.

    `hooks` returns those of the handler's functions that make rooms owned, `tick_rate` how often `on_tick` is to be
    called. `run` gets the calls, at most `batch` at once, in one of so many `threads`; it calls `done` of each.
    `make_room` makes the handle for the handler, `has_members` says whether a room has members in this process, and
    `names` names those that have. `check_reach` raises an error in a process that cannot reach the members.
    """

    def __init__(
        self,
        timers: Timers,
        *,
        run: Callable[[Sequence[RoomCall]], None],
        hooks: Callable[[], frozenset[str]],
        tick_rate: Callable[[], float | None],
        make_room: Callable[[str, int], OwnedRoom],
        has_members: Callable[[str], bool],
        names: Callable[[], Iterable[str]],
        check_reach: Callable[[], None],
        count: Callable[[str, int], None],
        tick_lag: Histogram,
        threads: int,
        batch: int,
        max_post_bytes: int,
        post_timeout_s: float,
    ) -> None:
        #: Replaced by tests that move the clock.
        self.timers = timers
        self._run_calls = run
        self._read_hooks = hooks
        self._read_tick_rate = tick_rate
        self._make_room = make_room
        self._has_members = has_members
        self._names = names
        self._check_reach = check_reach
        self._count = count
        self._tick_lag = tick_lag
        self._most_posts = min(batch, MAX_POSTS_AT_ONCE)
        self._max_post_bytes = max_post_bytes
        self._post_timeout_s = post_timeout_s
        #: The handler's functions for rooms. Without one, nothing is owned.
        self.hooks: frozenset[str] = frozenset()
        self._tick_rate: float | None = None
        self._pool: Pool[Mailbox] = Pool(_work, name="wsthreads-rooms", threads=threads, batch=batch, begin=serve_rooms)
        self._fence = 0  # the last one
        self._unheard = 0  # posts without a waiting poster that were not handled
        self._complained_at = float("-inf")
        #: How many calls were taken. For tests that wait.
        self.moved = 0
        self._reset()
        finalize(self, self._pool.release).atexit = False

    def _reset(self) -> None:
        self._lock = Lock()  # guards what follows, and what is in the mailboxes; a rooms' stripe is taken under it
        self._emptied = Condition(self._lock)  # there is no mailbox any more
        self._mailboxes: dict[str, Mailbox] = {}
        self._schedule: Schedule | None = None  # while there is a room with ticks
        self._is_stopping = False

    # What the rooms tell. Without locks.

    @property
    def is_on(self) -> bool:
        """Whether rooms are owned at all."""
        return bool(self.hooks)

    def refresh(self) -> None:
        """The handler's functions or its `tick_rate` may have changed."""
        hooks, rate = self._read_hooks(), self._read_tick_rate()
        with self._lock:
            if rate != self._tick_rate or ("on_tick" in hooks) != ("on_tick" in self.hooks):
                self._schedule = None
                for mailbox in self._mailboxes.values():
                    mailbox.drop_tick()
                    mailbox.started_s, mailbox.last_tick = self.timers.now(), None
            self.hooks, self._tick_rate = hooks, rate
            known = list(self._mailboxes.values())
            unwanted = [] if hooks else self._drop_wanted_locked()
        for mailbox in unwanted:
            self._unwant(mailbox.name)
        for name in self._names() if hooks else ():
            self.look(name)
        self._go_on(known)
        self._keep_ticking()

    def restart(self) -> None:
        """The handler has lost its variables: owned rooms begin again, without `on_room_end`."""
        dropped: list[Post] = []
        with self._lock:
            known = [mailbox for mailbox in self._mailboxes.values() if mailbox.phase is not Phase.WANTED]
            for mailbox in known:
                mailbox.skips_end = True
                dropped += mailbox.drop_posts()
        error = PostError("the handler has been started again before it handled the post")
        for post in dropped:
            post.settled(error)
        self.refresh()
        self._go_on(known)

    def look(self, name: str) -> None:
        """A session has joined a room, or left it."""
        wants = is_unwanted = False
        with self._lock:
            mailbox = self._mailboxes.get(name)
            has_members = self._has_members(name)
            if mailbox is None:
                if not has_members or not self.hooks or self._is_stopping:
                    return
                self._mailboxes[name] = Mailbox(name, self)
                wants = True
            elif has_members:
                return
            elif mailbox.phase is Phase.WANTED:
                if not mailbox.is_empty:
                    return
                self._drop_locked(mailbox)
                is_unwanted = True
        if wants:
            self._want(name)
        elif is_unwanted:
            self._unwant(name)
        elif mailbox is not None:
            self._go_on([mailbox])

    # Posts

    def post_text(self, value: Any) -> str:
        """A posted value as JSON text. Raises `PostError`."""
        return json_text(
            value, what="a posted value", max_bytes=self._max_post_bytes, setting="max_post_bytes", error=PostError
        )

    def post_value(self, name: str, value: Any, sender: Sender | None, *, wait: bool) -> None:
        """Do what `Room.post` says."""
        outcome = Outcome()
        self.post(name, self.post_text(value), sender, outcome.settle)
        if wait and may_wait_for_posts():
            outcome.wait(name, self._post_timeout_s)
        else:
            outcome.leave(self._complain)

    def _complain(self, error: WSThreadsError) -> None:
        """Nobody waits for this post."""
        self._unheard += 1
        if monotonic() - self._complained_at >= COMPLAIN_S:
            self._complained_at = monotonic()
            log.warning("%s (%d posts so far for which nobody waits)", error, self._unheard)

    def post(self, name: str, value: str, sender: Sender | None, settled: Settled) -> None:
        """Have a value, which is JSON text, handled by the room's owner. Calls `settled` exactly once."""
        if name not in self._mailboxes:
            self.look(name)  # a member may have joined just now
        with self._lock:
            mailbox = self._mailboxes.get(name)
            why_not = self._why_no_post_locked(mailbox)
            if mailbox is not None and why_not is None:
                mailbox.add(Post(value, sender, settled))
        if mailbox is not None and why_not is None:
            self._go_on([mailbox])
            return
        try:
            self._check_reach()
        except WSThreadsError as error:
            settled(error)
        else:
            settled(PostError(f"no post to the room {name!r:.80}: {why_not}"))

    def _why_no_post_locked(self, mailbox: Mailbox | None) -> str | None:
        if self.hooks and "on_post" not in self.hooks:
            return "the handler has no on_post (in a script, onPost)"
        if mailbox is None or not self._has_members(mailbox.name):
            return "nobody is in it"
        if self._is_stopping:
            return "the server shuts down"
        if mailbox.posts >= MAX_POSTS_WAITING:
            return f"{mailbox.posts} posts wait already, the most that may"
        return None

    # What a subclass overrides: whether this process owns a room.

    def _want(self, name: str) -> None:
        """This process has members in a room, and does not own it. Two threads may call this and `_unwant` in the
        wrong order, so ask `is_wanted`.
        """
        self.begin(name, self._next_fence())

    def _unwant(self, name: str) -> None:
        """The last member has left before `begin` was called."""

    def _release(self, name: str, fence: int) -> None:
        """The room is not owned any more. Not called after `lose`."""

    def _is_valid(self, name: str, fence: int) -> bool:
        """Whether this process still owns the room. Asked before each call, in the thread that makes it."""
        return True

    def _may_end(self, name: str) -> bool:
        """Whether all posts are here that came before the last member left. If not, `go_on` has to follow.

        Called under the lock. Takes only locks that are leaves.
        """
        return True

    def _next_fence(self) -> int:
        """A fencing number: milliseconds since the epoch, and higher than the last."""
        with self._lock:
            self._fence = max(self._fence + 1, int(time() * 1000))
            return self._fence

    # What a subclass calls.

    def is_wanted(self, name: str) -> bool:
        """Whether this process has members in a room, and does not own it."""
        mailbox = self._mailboxes.get(name)
        return mailbox is not None and mailbox.phase is Phase.WANTED

    def begin(self, name: str, fence: int) -> None:
        """This process owns a room from now on. If it has no members any more, `_release` follows at once."""
        with self._lock:
            mailbox = self._mailboxes.get(name)
            is_owned = mailbox is not None and mailbox.phase is not Phase.WANTED
            begins = mailbox is not None and not is_owned and not self._is_stopping
            if mailbox is not None and begins and mailbox.is_empty and not self._has_members(name):
                begins = False
                self._drop_locked(mailbox)
            if mailbox is not None and begins:
                mailbox.begin(self._make_room(name, fence), fence)
        if mailbox is not None and begins:
            self._count("owner_changes", 1)
            self._go_on([mailbox])
            return
        if is_owned:
            log.error("the room %r is owned already, and cannot be owned again as number %d", name[:80], fence)
        self._release(name, fence)

    def lose(self, name: str, fence: int) -> None:
        """This process does not own a room any more. Posts that wait are dropped: the broker knows of them."""
        with self._lock:
            mailbox = self._mailboxes.get(name)
            if mailbox is None or mailbox.phase is Phase.WANTED or mailbox.fence != fence or mailbox.is_lost:
                return
            mailbox.is_lost = True
            mailbox.drop_posts()
        log.debug("the room %r is not owned by this process any more", name[:80])
        self._go_on([mailbox])

    def go_on(self, name: str) -> None:
        """Look at the room again: it may end now."""
        mailbox = self._mailboxes.get(name)
        if mailbox is not None:
            self._go_on([mailbox])

    def deliver(self, name: str, fence: int, posts: Iterable[Post]) -> bool:
        """Have posts handled that the broker had. False, and nothing happens, if that ownership is over."""
        with self._lock:
            mailbox = self._mailboxes.get(name)
            if mailbox is None or not self._is_owned_locked(mailbox, fence):
                return False
            for post in posts:
                mailbox.add(post)
        self._go_on([mailbox])
        return True

    # Asking

    def owns(self, name: str) -> int | None:
        """The fencing number with which this process owns a room, or None."""
        with self._lock:
            mailbox = self._mailboxes.get(name)
            if mailbox is None or not self._is_owned_locked(mailbox, mailbox.fence):
                return None
            fence = mailbox.fence
        return fence if self._is_valid(name, fence) else None

    def is_owner(self, name: str, fence: int) -> bool:
        """Whether this process owns a room, with this fencing number. True until `on_room_end` has returned."""
        with self._lock:
            mailbox = self._mailboxes.get(name)
            is_owned = mailbox is not None and mailbox.phase is not Phase.WANTED and not mailbox.is_lost
            if mailbox is None or not is_owned or mailbox.fence != fence:
                return False
        return self._is_valid(name, fence)

    def states(self) -> dict[str, OwnedState]:
        """The rooms that this process owns. A snapshot."""
        with self._lock:
            return {
                mailbox.name: OwnedState(mailbox.fence, mailbox.posts, mailbox.lag_s)
                for mailbox in self._mailboxes.values()
                if mailbox.phase is not Phase.WANTED and not mailbox.is_lost
            }

    def _is_owned_locked(self, mailbox: Mailbox, fence: int) -> bool:
        """Whether posts can still be handled."""
        is_over = mailbox.phase in (Phase.WANTED, Phase.ENDING) or mailbox.is_lost or mailbox.skips_end
        return not is_over and mailbox.fence == fence

    # Calls

    def _go_on(self, mailboxes: Iterable[Mailbox]) -> None:
        """Have a thread take the next calls of these rooms, if it is not to do so anyway."""
        ready = []
        with self._lock:
            for mailbox in mailboxes:
                if not mailbox.is_scheduled and mailbox.phase is not Phase.WANTED:
                    mailbox.is_scheduled = True
                    ready.append(mailbox)
        self._put(ready)

    def _put(self, mailboxes: Sequence[Mailbox]) -> None:
        if mailboxes:
            try:
                self._pool.put(mailboxes)
            except RuntimeError as error:  # no thread can be started just now
                log.error("the threads for the rooms of a handler cannot be started: %s", error)
                self.timers.call_later(RETRY_S, weakly(self._put_again))

    def _put_again(self) -> None:
        """Try again to start a thread. What is to be done waits in the pool."""
        try:
            self._pool.put(())
        except RuntimeError:
            self.timers.call_later(RETRY_S, weakly(self._put_again))

    def _take(self, mailboxes: Iterable[Mailbox]) -> list[RoomCall]:
        """The next calls of some rooms."""
        calls: list[RoomCall] = []
        over = []
        with self._lock:
            self.moved += 1
            for mailbox in mailboxes:
                taken = self._take_locked(mailbox)
                if taken is None:
                    over.append((mailbox, mailbox.fence, mailbox.is_lost))
                    self._end_locked(mailbox)
                else:
                    mailbox.calls = len(taken)
                    mailbox.is_scheduled = bool(taken)
                    calls += taken
        for mailbox, fence, was_lost in over:
            self._ended(mailbox, fence, was_lost)
        return calls

    def _take_locked(self, mailbox: Mailbox) -> list[RoomCall] | None:
        """The next calls of a room, none if it has nothing to do now; None if its ownership is over."""
        if mailbox.phase is Phase.ENDING or mailbox.skips_end:
            return None
        if mailbox.phase is Phase.NEW:
            if mailbox.is_lost:
                return None
            mailbox.phase = Phase.STARTING
            return [RoomCall(self, mailbox, "room_start")]
        posts, tick = mailbox.take(self._most_posts)
        if posts:
            return [RoomCall(self, mailbox, "post", post) for post in posts]
        if self._must_end_locked(mailbox):
            has_time = self.hooks and not mailbox.is_lost and not self._is_stopping
            if has_time and not self._may_end(mailbox.name):
                return []
            mailbox.phase = Phase.ENDING
            return [RoomCall(self, mailbox, "room_end")]
        schedule = self._schedule
        return [] if tick is None or schedule is None else [self._tick_locked(mailbox, schedule, tick)]

    def _must_end_locked(self, mailbox: Mailbox) -> bool:
        return mailbox.is_lost or self._is_stopping or not self.hooks or not self._has_members(mailbox.name)

    def _tick_locked(self, mailbox: Mailbox, schedule: Schedule, number: int) -> RoomCall:
        call = RoomCall(self, mailbox, "tick")
        call.due_s = schedule.due_s(number)
        last = mailbox.last_tick
        if last is None:
            call.dt = schedule.first_dt_s(mailbox.started_s, number)
            last = max(0, schedule.number(mailbox.started_s))
        else:
            call.dt = schedule.dt_s(last, number)
        call.skipped = max(0, number - last - 1)
        mailbox.last_tick = number
        mailbox.is_ticking = True
        return call

    def begin_call(self, call: RoomCall) -> bool:
        """See `RoomCall.begin`."""
        mailbox = call.mailbox
        if call.kind == "room_end":
            return True
        if mailbox.is_lost or mailbox.skips_end:
            return False
        if not self._is_valid(mailbox.name, mailbox.fence):
            self.lose(mailbox.name, mailbox.fence)
            return False
        if call.kind == "tick":
            mailbox.lag_s = lag_s = max(0.0, self.timers.now() - call.due_s)
            self._tick_lag.observe(lag_s)
            if call.skipped:
                self._count("ticks_skipped", call.skipped)
        return True

    def end_call(self, call: RoomCall, failure: str | None) -> None:
        """See `RoomCall.done`."""
        mailbox, post = call.mailbox, call.post
        starts_ticking = goes_on = False
        with self._lock:
            mailbox.calls -= 1
            if not mailbox.calls:
                mailbox.is_ticking = False
                if call.kind == "room_start":
                    mailbox.phase = Phase.RUNNING
                    mailbox.started_s = self.timers.now()
                    mailbox.skips_end |= not call.may_run
                    starts_ticking = True
                is_over = mailbox.phase is Phase.ENDING or mailbox.skips_end
                goes_on = is_over or not mailbox.is_empty or self._must_end_locked(mailbox)
                mailbox.is_scheduled = goes_on
        if post is not None and call.may_run:
            self._count("posts", 1)
            unknown = f"the handler did not say whether it has handled the post: {failure}"
            is_known = failure is None or failure == "failed"
            post.settled(None if is_known else PostError(unknown, is_unknown=True))
        if starts_ticking:
            self._keep_ticking()
        if goes_on:
            self._put([mailbox])

    def _end_locked(self, mailbox: Mailbox) -> None:
        """An ownership is over. The mailbox stays if the room is wanted again."""
        mailbox.forget()
        mailbox.drop_tick()
        mailbox.is_scheduled = False
        wants = self._has_members(mailbox.name) or not mailbox.is_empty
        if not wants or not self.hooks or self._is_stopping:
            self._drop_locked(mailbox)

    def _ended(self, mailbox: Mailbox, fence: int, was_lost: bool) -> None:
        if not was_lost:
            self._release(mailbox.name, fence)
        if self.is_wanted(mailbox.name):
            self._want(mailbox.name)

    def _drop_wanted_locked(self) -> list[Mailbox]:
        """Want no room any more; those that were wanted and not owned."""
        wanted = [mailbox for mailbox in self._mailboxes.values() if mailbox.phase is Phase.WANTED]
        for mailbox in wanted:
            self._drop_locked(mailbox)
        return wanted

    def _drop_locked(self, mailbox: Mailbox) -> None:
        if self._mailboxes.get(mailbox.name) is mailbox:
            del self._mailboxes[mailbox.name]
            if not self._mailboxes:
                self._emptied.notify_all()

    # Ticks

    def _keep_ticking(self) -> None:
        """Begin with the ticks when the first room is to have them."""
        with self._lock:
            rate = self._tick_rate
            if self._schedule is not None or rate is None or "on_tick" not in self.hooks:
                return
            if not any(mailbox.phase is Phase.RUNNING for mailbox in self._mailboxes.values()):
                return
            schedule = self._schedule = Schedule(self.timers.now(), rate)
        self._tick_later(schedule, 1)

    def _tick_later(self, schedule: Schedule, number: int) -> None:
        delay_s = max(0.0, schedule.due_s(number) - self.timers.now())
        self.timers.call_later(delay_s, weakly(self._tick, schedule))

    def _tick(self, schedule: Schedule) -> None:
        """A tick is due. Called by the flusher."""
        ready = []
        number = schedule.number(self.timers.now())
        with self._lock:
            if schedule is not self._schedule:
                return
            ticking = [mailbox for mailbox in self._mailboxes.values() if mailbox.phase is Phase.RUNNING]
            if not ticking:
                self._schedule = None
                return
            due_s = schedule.due_s(number)
            for mailbox in ticking:
                if mailbox.started_s < due_s:
                    mailbox.add_tick(number)
                    if not mailbox.is_scheduled:
                        mailbox.is_scheduled = True
                        ready.append(mailbox)
        self._tick_later(schedule, number + 1)
        self._put(ready)

    # The end

    def settle(self, timeout_s: float) -> bool:
        """Wait until the threads have nothing to do, at most `timeout_s`. False if they have."""
        return self._pool.wait_idle(timeout_s)

    def stop(self, timeout_s: float) -> None:
        """End all ownerships, with `on_room_end`, and the threads, for good, after at most `timeout_s`."""
        deadline = monotonic() + timeout_s
        with self._lock:
            self._is_stopping = True
            self._schedule = None
            known = list(self._mailboxes.values())
            unwanted = self._drop_wanted_locked()
        for mailbox in unwanted:
            self._unwant(mailbox.name)
        self._go_on(known)
        if not serves_rooms():  # no call waits for itself
            with self._emptied:
                while self._mailboxes and (left := deadline - monotonic()) > 0:
                    self._emptied.wait(left)
        left_over: list[Post] = []
        with self._lock:
            for mailbox in self._mailboxes.values():
                left_over += mailbox.drop_posts()
        error = PostError("the server has shut down before it handled the post")
        for post in left_over:
            post.settled(error)
        self._pool.stop(max(0.0, deadline - monotonic()))

    def give_up(self) -> None:
        """In a forked process: the rooms are owned by its parent."""
        self._reset()
        self._pool.give_up()

    def _check(self) -> None:
        """The invariants, for tests at a quiet point."""
        for name, mailbox in self._mailboxes.items():
            assert mailbox.name == name
            assert mailbox.phase in (Phase.WANTED, Phase.RUNNING), f"{name!r} stays in {mailbox.phase}"
            assert not mailbox.is_scheduled, f"{name!r} is being called"
            assert mailbox.is_empty, f"{mailbox.posts} posts wait in {name!r}"
            assert self._has_members(name), f"nobody is in {name!r}"


def _work(mailboxes: Sequence[Mailbox]) -> None:
    """Make the next calls of some rooms. The pool keeps this function, so it must not keep an `Ownership`."""
    ownership = mailboxes[0].owner
    assert isinstance(ownership, Ownership)
    calls = ownership._take(mailboxes)
    if calls:
        try:
            ownership._run_calls(calls)
        except BaseException:  # our bug: whatever was called, the rooms must go on
            log.exception("%d calls for rooms failed", len(calls))
            for call in calls:
                call.done("down")
