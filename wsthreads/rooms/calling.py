"""Calls a handler's functions for owned rooms: `on_room_start`, `on_post`, `on_tick` and `on_room_end`.

`mailboxes` explains what waits for a call.

A room that has calls to make is in the queue of a thread pool, but only once. A thread of the pool takes the room's
next call, makes it, and looks for a further call. So calls for one room never overlap, and no lock is held during a
call. `Ownership` decides which rooms this process owns.
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

#: A handler gets at most this many posts of one room together. Only a script takes more than one post in a call.
MAX_POSTS_AT_ONCE = 100


class Calling:
    """The base of `Ownership`, which calls the handler. Any thread.

    `run` makes the calls. It gets at most `batch` calls together, in one of `threads` threads, and calls `done` of each
    call. `has_members` tells whether a room has members in this process.
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
        #: The clock, and the timers of ticks. Tests replace it by `use_timers`.
        self.timers = timers
        self._run_calls = run
        self._has_members = has_members
        self._count = count
        self._tick_lag = tick_lag
        self._most_posts = min(batch, MAX_POSTS_AT_ONCE)
        #: The names of the handler's functions for rooms. Without such functions, no room is owned.
        self.hooks: frozenset[str] = frozenset()
        self._tick_rate: float | None = None
        self._pool: Pool[Mailbox] = Pool(_work, name="wsthreads-rooms", threads=threads, batch=batch, begin=serve_rooms)
        self._reset()
        finalize(self, self._pool.release).atexit = False

    def _reset(self) -> None:
        # guards the attributes below; a thread that holds it takes only one other lock, that of a room's members
        self._lock = Lock()
        self._emptied = Condition(self._lock)  # notified when the last mailbox was removed
        self._mailboxes: dict[str, Mailbox] = {}
        self._schedule: Schedule | None = None  # None while no room has ticks
        self._is_stopping = False

    def lose(self, name: str, fence: int) -> None:
        """Called when this process has lost the ownership of a room."""
        raise NotImplementedError

    def _want(self, name: str) -> None:
        """Called when this process has members in a room that it does not own.

        Two threads may call `_want` and `_unwant` in the wrong order. So an override must check `is_wanted`.
        """
        raise NotImplementedError

    def _release(self, name: str, fence: int) -> None:
        """Called when the ownership of a room has ended. Not called after `lose`."""

    def _is_valid(self, name: str, fence: int) -> bool:
        """Whether this process still owns the room. Called before each call of the handler, in the same thread."""
        return True

    def _may_end(self, name: str) -> bool:
        """Whether all posts have arrived that were sent before the last member left.

        If this returns False, the subclass must call `go_on` later. This is called with the lock held, and may take
        only leaf locks (under which no other lock is taken).
        """
        return True

    def is_wanted(self, name: str) -> bool:
        """Whether this process has members in a room, but does not own the room."""
        mailbox = look_up(self._mailboxes, name)
        return mailbox is not None and mailbox.phase is Phase.WANTED

    def _go_on(self, mailboxes: Iterable[Mailbox]) -> None:
        """Let a thread of the pool take the next calls of these rooms.

        Does nothing for a room that is already in the queue.
        """
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
                what = "cannot start a thread for calls such as on_post; these calls wait for the next attempt: %s"
                log.error(what, error)
                self.timers.call_later(RETRY_S, weakly(self._put_again))

    def _put_again(self) -> None:
        """Try again to start a thread. The rooms wait in the pool's queue."""
        try:
            self._pool.put(())
        except RuntimeError:
            self.timers.call_later(RETRY_S, weakly(self._put_again))

    def _take(self, mailboxes: Iterable[Mailbox]) -> list[RoomCall]:
        """Take the next calls of some rooms."""
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
        """The next calls of a room. Empty if there is none now. None if the ownership of the room has ended."""
        if mailbox.phase is Phase.ENDING or mailbox.skips_end:
            return None
        if mailbox.phase is Phase.NEW:
            if mailbox.is_lost:
                return None
            mailbox.phase = Phase.STARTING
            return [RoomCall(self, mailbox, "room_start")]
        must_end = self._must_end_locked(mailbox)
        if must_end:
            mailbox.drop_tick()  # so that the posts behind the tick also come before on_room_end
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
        """Called by `RoomCall.check`."""
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
        """Called by `RoomCall.begun`."""
        if call.kind == "tick":
            call.mailbox.lag_s = call.lag_s
            self._tick_lag.observe(call.lag_s)
            if call.skipped:
                self._count("ticks_skipped", call.skipped)

    def end_call(self, call: RoomCall, failure: str | None) -> None:
        """Called by `RoomCall.done`."""
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
        """Report the outcome of a post.

        If this process has lost the room before, the broker reports the outcome instead.
        """
        if call.may_run is False:
            if not call.mailbox.is_lost:
                post.settled(PostError("the handler has been started again before it handled the post"))
        elif failure is None or failure == "failed":
            self._count("posts", 1)
            post.settled(None)
        elif call.may_run is None:
            post.settled(PostError(f"the handler has not begun to handle the post: {failure}"))
        else:
            unknown = f"it is unknown whether the handler has handled the post: {failure}"
            post.settled(PostError(unknown, is_unknown=True))

    def _end_locked(self, mailbox: Mailbox) -> list[Post]:
        """End an ownership.

        If the room is wanted again, its mailbox stays. If not, removes the mailbox and returns its posts.
        """
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
        """Use another clock. For tests that move the clock."""
        with self._lock:
            self.timers = timers
            self._forget_ticks_locked()
        self._keep_ticking()

    def _forget_ticks_locked(self) -> None:
        """Begin the ticks of each room again, because the clock or the rate has changed."""
        self._schedule = None
        for mailbox in self._mailboxes.values():
            mailbox.drop_tick()
            mailbox.started_s, mailbox.last_tick = self.timers.now(), None

    def _keep_ticking(self) -> None:
        """Begin the ticks when the first room needs them."""
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
        """Queue a tick for each room that has ticks. The flusher calls this when a tick is due."""
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
        """A number that grows with each call that is queued or made. Tests wait for it."""
        return self._pool.moved

    def settle(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` until the threads have nothing to do.

        Returns False if they still have something to do.
        """
        return self._pool.wait_idle(timeout_s)


def _work(mailboxes: Sequence[Mailbox]) -> None:
    """Make the next calls of some rooms.

    The pool keeps this function, so it must not have a reference to a `Calling`.
    """
    ownership = mailboxes[0].owner
    assert isinstance(ownership, Calling)
    calls = ownership._take(mailboxes)
    if calls:
        try:
            ownership._run_calls(calls)
        except BaseException:  # this is a bug of wsthreads; the other rooms must continue
            log.exception("%s for rooms failed", counted(len(calls), "call"))
            for call in calls:
                call.done("down")
