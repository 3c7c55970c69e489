"""Decides which rooms this process owns, and when the handler's functions are called for them.

A room is owned from its first member until its last one has left. While the room is owned, the handler gets one call
for it at a time. The first is `on_room_start`, and the last is `on_room_end`. Between them are posts and ticks, in the
order in which they came. Posts that came before the last member left are handled before `on_room_end`. If a member
joins before `on_room_end` is called, the ownership continues. Otherwise a new ownership follows, with a higher fencing
number.

When a thread takes the next call of a room, it checks whether the room has members. So the order of joins and leaves at
the same time does not matter. One lock guards all state. A thread that holds this lock takes only one other lock: the
lock that guards the members of the room. No lock is held during a call.

Over a broker, processes own rooms by leases. A subclass takes and returns them. The subclass overrides `_want`,
`_unwant`, `_release`, `_is_valid`, `_may_end` and `post`, and calls `begin`, `lose`, `deliver` and `go_on`. All of
these but `_may_end` are called without locks, in any thread, and do not block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic, time
from typing import Any

from wsthreads.errors import PostError, WSThreadsError
from wsthreads.loggers import get_logger
from wsthreads.rooms.calling import Calling
from wsthreads.rooms.json_text import json_text
from wsthreads.rooms.mailboxes import Mailbox, OwnedState, Phase
from wsthreads.rooms.owned_room import OwnedRoom
from wsthreads.rooms.posts import MAX_POSTS_WAITING, Outcome, Post, Sender, Settled
from wsthreads.threads.blocking import may_wait_for_posts, serves_rooms
from wsthreads.threads.flusher import Timers
from wsthreads.threads.lookups import look_up

__all__ = ["Ownership"]

log = get_logger(__name__)

#: The shortest time between two log lines about failed posts for which no caller has waited.
COMPLAIN_S = 10.0


class Ownership(Calling):
    """The owned rooms of one endpoint in this process. Any thread.

    `hooks` returns the names of the handler's functions for owned rooms. `tick_rate` returns how many times in a second
    `on_tick` is called. `make_room` makes the handle that the handler gets. `names` returns the rooms with members in
    this process. `check_reach` raises an error in a process that cannot reach the members. `parts` are the other
    arguments of `Calling`.
    """

    def __init__(
        self,
        timers: Timers,
        *,
        hooks: Callable[[], frozenset[str]],
        tick_rate: Callable[[], float | None],
        make_room: Callable[[str, int], OwnedRoom],
        names: Callable[[], Iterable[str]],
        check_reach: Callable[[], None],
        max_post_bytes: int,
        post_timeout_s: float,
        **parts: Any,
    ) -> None:
        super().__init__(timers, **parts)
        self._read_hooks = hooks
        self._read_tick_rate = tick_rate
        self._make_room = make_room
        self._names = names
        self._check_reach = check_reach
        self._max_post_bytes = max_post_bytes
        self._post_timeout_s = post_timeout_s
        self._fence = 0  # the last fencing number
        self._unheard = 0  # how many posts have failed for which no caller has waited
        self._complained_at = float("-inf")

    # The rooms and the endpoint call these methods, without locks

    @property
    def is_on(self) -> bool:
        """Whether the handler has functions for owned rooms. If it has none, no room is owned."""
        return bool(self.hooks)

    def refresh(self) -> None:
        """Check all rooms again, because the handler's functions or its `tick_rate` may have changed."""
        hooks, rate = self._read_hooks(), self._read_tick_rate()
        with self._lock:
            if rate != self._tick_rate or ("on_tick" in hooks) != ("on_tick" in self.hooks):
                self._forget_ticks_locked()
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
        """Begin each owned room again, without `on_room_end`.

        Called when a script has ended or died and was started again, because its variables are lost. A reload of the
        script does not call this.
        """
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
        """Check a room after a session has joined or left it."""
        wants = is_unwanted = False
        with self._lock:
            mailbox = look_up(self._mailboxes, name)
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
        """Encode a posted value as JSON text. Raises `PostError`."""
        return json_text(
            value, what="a posted value", max_bytes=self._max_post_bytes, setting="max_post_bytes", error=PostError
        )

    def post_value(
        self, name: str, value: Any, sender: Sender | None, *, wait: bool, timeout_s: float | None = None
    ) -> None:
        """Post a value, as `Room.post` describes. Waits at most `timeout_s`, if that is less than `post_timeout_s`."""
        outcome = Outcome()
        self.post(name, self.post_text(value), sender, outcome.settle)
        if wait and may_wait_for_posts():
            outcome.wait(name, self._post_timeout_s if timeout_s is None else min(timeout_s, self._post_timeout_s))
        else:
            outcome.leave(self._complain)

    def _complain(self, error: WSThreadsError) -> None:
        """Log the error of a post for which no thread has waited."""
        self._unheard += 1
        if monotonic() - self._complained_at >= COMPLAIN_S:
            self._complained_at = monotonic()
            log.warning("%s (failed posts that no caller waited for: %d)", error, self._unheard)

    def post(self, name: str, value: str, sender: Sender | None, settled: Settled) -> None:
        """Let the room's owner handle a value, which is JSON text. Calls `settled` exactly once."""
        if name not in self._mailboxes:
            self.look(name)  # a member may have joined just now
        with self._lock:
            mailbox = look_up(self._mailboxes, name)
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
            settled(PostError(f"the post to the room {name!r:.80} was refused: {why_not}"))

    def _why_no_post_locked(self, mailbox: Mailbox | None) -> str | None:
        if self.hooks and "on_post" not in self.hooks:
            return "the handler has no on_post (in a script, onPost)"
        if mailbox is None or not self._has_members(mailbox.name):
            return "the room has no members"
        if self._is_stopping:
            return "the server is shutting down"
        if mailbox.posts >= MAX_POSTS_WAITING:
            return f"{mailbox.posts} posts wait already, which is the limit"
        return None

    # A subclass overrides these methods, and some methods of `Calling`, to decide which rooms this process owns.

    def _want(self, name: str) -> None:
        self.begin(name, self._next_fence())

    def _unwant(self, name: str) -> None:
        """Called when the last member has left before `begin` was called."""

    def _next_fence(self) -> int:
        """Make a new fencing number: the milliseconds since the epoch, but more than the last number."""
        with self._lock:
            self._fence = max(self._fence + 1, int(time() * 1000))
            return self._fence

    # A subclass calls these methods.

    def begin(self, name: str, fence: int) -> None:
        """Begin to own a room. If the room has no members any longer, `_release` is called at once."""
        with self._lock:
            mailbox = look_up(self._mailboxes, name)
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
            log.error("the room %r is owned already: the new ownership, number %d, is given up", name[:80], fence)
        self._release(name, fence)

    def lose(self, name: str, fence: int) -> None:
        """Stop owning a room that was lost. Drops the posts that wait, because the broker still has them."""
        with self._lock:
            mailbox = look_up(self._mailboxes, name)
            if mailbox is None or mailbox.phase is Phase.WANTED or mailbox.fence != fence or mailbox.is_lost:
                return
            mailbox.is_lost = True
            mailbox.drop_posts()
        log.debug("this process has lost the ownership of the room %r", name[:80])
        self._go_on([mailbox])

    def go_on(self, name: str) -> None:
        """Check a room again, because its ownership may be able to end now."""
        mailbox = look_up(self._mailboxes, name)
        if mailbox is not None:
            self._go_on([mailbox])

    def deliver(self, name: str, fence: int, posts: Iterable[Post]) -> bool:
        """Handle posts from the broker.

        Returns False, and does nothing, if the ownership with this number has ended.
        """
        with self._lock:
            mailbox = look_up(self._mailboxes, name)
            if mailbox is None or not self._is_owned_locked(mailbox, fence):
                return False
            for post in posts:
                mailbox.add(post)
        self._go_on([mailbox])
        return True

    # Queries

    def owns(self, name: str) -> int | None:
        """The fencing number with which this process owns a room. None if it does not own the room."""
        with self._lock:
            mailbox = look_up(self._mailboxes, name)
            if mailbox is None or not self._is_owned_locked(mailbox, mailbox.fence):
                return None
            fence = mailbox.fence
        return fence if self._is_valid(name, fence) else None

    def is_owner(self, name: str, fence: int) -> bool:
        """Whether this process owns a room, with this fencing number. True until `on_room_end` has returned."""
        with self._lock:
            mailbox = look_up(self._mailboxes, name)
            is_owned = mailbox is not None and mailbox.phase is not Phase.WANTED and not mailbox.is_lost
            if mailbox is None or not is_owned or mailbox.fence != fence:
                return False
        return self._is_valid(name, fence)

    def posts_elsewhere(self, name: str) -> int:
        """How many posts to a room wait outside of the owner's process. Over a broker, this may wait for the broker."""
        return 0

    def states(self) -> dict[str, OwnedState]:
        """The states of the rooms that this process owns. A snapshot."""
        with self._lock:
            return {
                mailbox.name: OwnedState(mailbox.fence, mailbox.posts, mailbox.lag_s)
                for mailbox in self._mailboxes.values()
                if mailbox.phase is not Phase.WANTED and not mailbox.is_lost
            }

    def _is_owned_locked(self, mailbox: Mailbox, fence: int) -> bool:
        """Whether this ownership can still handle posts."""
        is_over = mailbox.phase in (Phase.WANTED, Phase.ENDING) or mailbox.is_lost or mailbox.skips_end
        return not is_over and mailbox.fence == fence

    # These methods end ownerships

    def _drop_wanted_locked(self) -> list[Mailbox]:
        """Remove and return the mailboxes of the rooms that are wanted but not owned."""
        wanted = [mailbox for mailbox in self._mailboxes.values() if mailbox.phase is Phase.WANTED]
        for mailbox in wanted:
            self._drop_locked(mailbox)
        return wanted

    def stop(self, timeout_s: float) -> None:
        """End all ownerships with `on_room_end`, and then end the threads. Waits at most `timeout_s`."""
        deadline = monotonic() + timeout_s
        with self._lock:
            self._is_stopping = True
            self._schedule = None
            known = list(self._mailboxes.values())
            unwanted = self._drop_wanted_locked()
        for mailbox in unwanted:
            self._unwant(mailbox.name)
        self._go_on(known)
        if not serves_rooms():  # a call for a room must not wait for its own end
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
        """Forget all ownerships in a forked process, because the parent owns the rooms."""
        self._reset()
        self._pool.give_up()

    def _check(self) -> None:
        """Check the invariants, for tests at a quiet point."""
        for name, mailbox in self._mailboxes.items():
            assert mailbox.name == name
            assert mailbox.phase in (Phase.WANTED, Phase.RUNNING), f"{name!r} stays in {mailbox.phase}"
            assert not mailbox.is_scheduled, f"{name!r} is being called"
            assert mailbox.is_empty, f"{mailbox.posts} posts wait in {name!r}"
            assert self._has_members(name), f"nobody is in {name!r}"
