"""Calls a handler's functions for owned rooms: `on_room_start`, `on_post`, `on_tick` and `on_room_end`.

A room with calls to make waits in the queue of a thread pool, at most once. A thread takes the room's next call, makes
it, and looks again. So calls for one room never overlap, and no lock is held during a call. `Ownership` decides which
rooms are owned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Condition, Lock
from weakref import finalize

from wsthreads.errors import PostError, counted
from wsthreads.loggers import get_logger
from wsthreads.monitoring.metrics import Histogram
from wsthreads.rooms.mailboxes import Mailbox, Phase, RoomCall
from wsthreads.rooms.posts import Post
from wsthreads.rooms.ticks import Schedule
from wsthreads.threads.blocking import serve_rooms
from wsthreads.threads.drainer import RETRY_S
from wsthreads.threads.flusher import Timers, weakly
from wsthreads.threads.lookups import look_up
from wsthreads.threads.pool import Pool

__all__ = ["MAX_POSTS_AT_ONCE", "Calling"]

log = get_logger(__name__)

#: The most posts of one room that the handler gets at once, if it takes several calls at once.
MAX_POSTS_AT_ONCE = 100


class Calling:
    """The part of `Ownership` that calls the handler. Any thread.

    `run` gets the calls, at most `batch` at once, in one of `threads` threads; it calls `done` of each. `has_members`
    says whether a room has members in this process.
    """

    def __init__(
        self,
        timers: Timers,
        *,
        run: Callable[[Sequence[RoomCall]], None],
        has_members: Callable[[str], bool],
        count: Callable[[str, int], None],
        tick_lag: Histogram,
        threads: int,
        batch: int,
    ) -> None:
        #: See `use_timers`.
        self.timers = timers
        self._run_calls = run
        self._has_members = has_members
        self._count = count
        self._tick_lag = tick_lag
        self._most_posts = min(batch, MAX_POSTS_AT_ONCE)
        #: The handler's functions for rooms. Without any, no room is owned.
        self.hooks: frozenset[str] = frozenset()
        self._tick_rate: float | None = None
        self._pool: Pool[Mailbox] = Pool(_work, name="wsthreads-rooms", threads=threads, batch=batch, begin=serve_rooms)
        self._reset()
        finalize(self, self._pool.release).atexit = False

    def _reset(self) -> None:
        self._lock = Lock()  # guards the following and the mailboxes; only a stripe of the rooms is taken under it
        self._emptied = Condition(self._lock)  # notified when there is no mailbox any more
        self._mailboxes: dict[str, Mailbox] = {}
        self._schedule: Schedule | None = None  # while there is a room with ticks
        self._is_stopping = False

    def lose(self, name: str, fence: int) -> None:
        """This process has lost the ownership of a room."""
        raise NotImplementedError

    def _want(self, name: str) -> None:
        """This process has members in a room, and does not own it.

        Two threads may call this and `_unwant` in the wrong order, so ask `is_wanted`.
        """
        raise NotImplementedError

    def _release(self, name: str, fence: int) -> None:
        """The ownership of a room has ended. Not called after `lose`."""

    def _is_valid(self, name: str, fence: int) -> bool:
        """Whether this process still owns the room. Asked before each call, in the thread that makes it."""
        return True

    def _may_end(self, name: str) -> bool:
        """Whether all posts from before the last member's leave have arrived. If not, `go_on` must be called later.

        Called under the lock. May take only locks that are leaves.
        """
        return True

    def is_wanted(self, name: str) -> bool:
        """Whether this process has members in a room, and does not own it."""
        mailbox = look_up(self._mailboxes, name)
        return mailbox is not None and mailbox.phase is Phase.WANTED

    def _go_on(self, mailboxes: Iterable[Mailbox]) -> None:
        """Let a thread take the next calls of these rooms, unless one is about to do so."""
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
            except RuntimeError as error:  # no thread can be started now
                log.error("the threads for the rooms of a handler cannot be started: %s", error)
                self.timers.call_later(RETRY_S, weakly(self._put_again))

    def _put_again(self) -> None:
        """Try again to start a thread. The rooms wait in the pool."""
        try:
            self._pool.put(())
        except RuntimeError:
            self.timers.call_later(RETRY_S, weakly(self._put_again))

    def _take(self, mailboxes: Iterable[Mailbox]) -> list[RoomCall]:
        """The next calls of some rooms."""
        calls: list[RoomCall] = []
        dropped: list[Post] = []
        over = []
        with self._lock:
            for mailbox in mailboxes:
                taken = self._take_locked(mailbox)
                if taken is None:
                    over.append((mailbox, mailbox.fence, mailbox.is_lost))
                    dropped += self._end_locked(mailbox)
                else:
                    mailbox.calls = len(taken)
                    mailbox.is_scheduled = bool(taken)
                    calls += taken
        for post in dropped:
            post.settled(PostError("the room has ended before the post was handled"))
        for mailbox, fence, was_lost in over:
            self._ended(mailbox, fence, was_lost)
        return calls

    def _take_locked(self, mailbox: Mailbox) -> list[RoomCall] | None:
        """The next calls of a room; empty if there is nothing to do now, None if its ownership is over."""
        if mailbox.phase is Phase.ENDING or mailbox.skips_end:
            return None
        if mailbox.phase is Phase.NEW:
            if mailbox.is_lost:
                return None
            mailbox.phase = Phase.STARTING
            return [RoomCall(self, mailbox, "room_start")]
        must_end = self._must_end_locked(mailbox)
        if must_end:
            mailbox.drop_tick()  # all posts come before on_room_end, even those behind the tick
        posts, tick = mailbox.take(self._most_posts)
        if posts:
            return [RoomCall(self, mailbox, "post", post) for post in posts]
        if must_end:
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

    def check_call(self, call: RoomCall) -> bool:
        """See `RoomCall.check`."""
        mailbox = call.mailbox
        if call.kind == "room_end":
            return True
        if mailbox.is_lost or mailbox.skips_end:
            return False
        if not self._is_valid(mailbox.name, mailbox.fence):
            self.lose(mailbox.name, mailbox.fence)
            return False
        if call.kind == "tick":
            call.lag_s = max(0.0, self.timers.now() - call.due_s)
        return True

    def begin_call(self, call: RoomCall) -> None:
        """See `RoomCall.begun`."""
        if call.kind == "tick":
            call.mailbox.lag_s = call.lag_s
            self._tick_lag.observe(call.lag_s)
            if call.skipped:
                self._count("ticks_skipped", call.skipped)

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
                    mailbox.skips_end |= call.may_run is False
                    starts_ticking = True
                is_over = mailbox.phase is Phase.ENDING or mailbox.skips_end
                goes_on = is_over or not mailbox.is_empty or self._must_end_locked(mailbox)
                mailbox.is_scheduled = goes_on
        if post is not None:
            self._settle(call, post, failure)
        if starts_ticking:
            self._keep_ticking()
        if goes_on:
            self._put([mailbox])

    def _settle(self, call: RoomCall, post: Post, failure: str | None) -> None:
        """Report the outcome of a post. If the room was lost before, the broker reports it."""
        if call.may_run is False:
            if not call.mailbox.is_lost:
                post.settled(PostError("the handler has been started again before it handled the post"))
        elif failure is None or failure == "failed":
            self._count("posts", 1)
            post.settled(None)
        elif call.may_run is None:
            post.settled(PostError(f"the handler has not begun to handle the post: {failure}"))
        else:
            unknown = f"the handler did not say whether it has handled the post: {failure}"
            post.settled(PostError(unknown, is_unknown=True))

    def _end_locked(self, mailbox: Mailbox) -> list[Post]:
        """An ownership is over. The mailbox stays if the room is wanted again. Returns the posts in it."""
        mailbox.forget()
        mailbox.drop_tick()
        mailbox.is_scheduled = False
        wants = self._has_members(mailbox.name) or not mailbox.is_empty
        if wants and self.hooks and not self._is_stopping:
            return []
        self._drop_locked(mailbox)
        return mailbox.drop_posts()

    def _ended(self, mailbox: Mailbox, fence: int, was_lost: bool) -> None:
        if not was_lost:
            self._release(mailbox.name, fence)
        if self.is_wanted(mailbox.name):
            self._want(mailbox.name)

    def _drop_locked(self, mailbox: Mailbox) -> None:
        if look_up(self._mailboxes, mailbox.name) is mailbox:
            del self._mailboxes[mailbox.name]
            if not self._mailboxes:
                self._emptied.notify_all()

    # Ticks

    def use_timers(self, timers: Timers) -> None:
        """Use another clock, for tests that move it."""
        with self._lock:
            self.timers = timers
            self._forget_ticks_locked()
        self._keep_ticking()

    def _forget_ticks_locked(self) -> None:
        """The clock or the rate has changed: start the ticks of each room again."""
        self._schedule = None
        for mailbox in self._mailboxes.values():
            mailbox.drop_tick()
            mailbox.started_s, mailbox.last_tick = self.timers.now(), None

    def _keep_ticking(self) -> None:
        """Start the ticks when the first room needs them."""
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

    @property
    def moved(self) -> int:
        """A number that grows when calls were made or queued. For tests that wait."""
        return self._pool.moved

    def settle(self, timeout_s: float) -> bool:
        """Wait until the threads have nothing to do, at most `timeout_s`. False if they still have."""
        return self._pool.wait_idle(timeout_s)


def _work(mailboxes: Sequence[Mailbox]) -> None:
    """Make the next calls of some rooms. The pool keeps this function, so it must not keep a `Calling`."""
    ownership = mailboxes[0].owner
    assert isinstance(ownership, Calling)
    calls = ownership._take(mailboxes)
    if calls:
        try:
            ownership._run_calls(calls)
        except BaseException:  # a bug of wsthreads: the other rooms must continue
            log.exception("%s for rooms failed", counted(len(calls), "call"))
            for call in calls:
                call.done("down")
