"""The owner of rooms in one process: ticks, what a broker's subclass relies on, changes of the handler, the end."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref

import pytest

from tests.owned_worlds import Owned
from tests.programs import DEADLINE_S, wait_until
from tests.room_worlds import World
from wsthreads import PostError
from wsthreads.rooms.ownership import Ownership
from wsthreads.rooms.posts import Post
from wsthreads.rooms.rooms import Rooms
from wsthreads.testing.timers import ManualTimers


@pytest.fixture
def world():
    world = World()
    yield world
    world.end()


@pytest.fixture
def make(world):
    made = []

    def make(**options):
        made.append(Owned(world, **options))
        return made[-1]

    yield make
    for owned in made:
        owned.end()


class Clocked:
    """Rooms whose clock a test moves."""

    def __init__(self, make, timers=None, **options):
        self.timers = timers or ManualTimers()
        self.them = make(timers=self.timers, **options)
        (self.game,) = self.them.games
        (self.ownership,) = self.them.ownerships
        (self.lag,) = self.them.lags

    def advance(self, seconds):
        """Move the clock; the ticks meanwhile, as (room, dt)."""
        before = len(self.game.calls)
        self.settle()
        self.timers.advance(seconds, between=self.settle)
        self.settle()
        return [(room, *values) for hook, room, *values in self.game.calls[before:] if hook == "on_tick"]

    def settle(self):
        assert self.ownership.settle(DEADLINE_S)
        self.ownership._check()

    @property
    def skipped(self):
        return self.them.counted("ticks_skipped")


@pytest.fixture
def clocked(make):
    return lambda **options: Clocked(make, **options)


def test_a_minute_at_20_hz_has_1200_ticks_that_sum_up_to_it(world, clocked):
    them = clocked()
    world.member("lobby")
    ticks = them.advance(60)
    assert ticks == [("lobby", 0.05)] * 1200
    assert them.skipped == 0
    counts, total_s = them.lag.snapshot()
    assert sum(counts) == 1200
    assert total_s < 1e-6
    world.members[0].session.room("lobby").leave()
    assert them.advance(60) == []
    assert not [timer for _, _, timer in them.timers._timers if timer.callback], "no timer runs for nobody"


@pytest.mark.parametrize(("rate", "count"), [(1, 60), (60, 3600), (7, 420), (12.5, 750)])
def test_every_rate_is_kept(world, clocked, rate, count):
    them = clocked(tick_rate=rate)
    world.member("lobby")
    ticks = them.advance(60)
    assert len(ticks) == count
    assert sum(dt for _, dt in ticks) == pytest.approx(60)


def test_all_rooms_tick_at_the_same_times_and_each_from_its_start(world, clocked):
    them = clocked()
    world.member("one")
    them.advance(0.13)
    world.member("two")
    # The rooms have threads of their own, so either may be first.
    assert sorted(them.advance(0.03)) == [("one", 0.05), ("two", 0.02)]
    assert sorted(them.advance(0.05)) == [("one", 0.05), ("two", 0.05)]


def test_a_room_that_begins_again_has_a_first_tick_again(world, clocked):
    them = clocked()
    world.member("always")
    member = world.member("lobby")
    them.advance(0.11)
    member.session.room("lobby").leave()
    them.advance(1)
    member.session.room("lobby").join()
    them.settle()
    assert [dt for room, dt in them.advance(0.1) if room == "lobby"] == [0.04, 0.05]
    assert them.skipped == 0


def test_a_tick_that_takes_600_ms_skips_those_that_it_overlaps(world, clocked):
    them, go, begun = clocked(), threading.Event(), threading.Event()
    world.member("lobby")
    them.advance(0.1)

    def block(room, dt):
        begun.set()
        assert go.wait(DEADLINE_S)

    them.game.does["on_tick"] = block
    them.timers.advance(0.05)
    assert begun.wait(DEADLINE_S)
    them.timers.advance(0.6)  # twelve more are due
    del them.game.does["on_tick"]
    go.set()
    ticks = them.advance(0.1)
    assert ticks == [("lobby", 0.25), ("lobby", 0.05)], "the time is capped, nothing piles up"
    assert them.skipped == 12
    assert len(them.game.hooks_of("lobby")) == 1 + 2 + 1 + 2


def test_a_tick_that_cannot_begin_in_time_runs_once_for_all_that_were_due(world, clocked):
    them, go, begun = clocked(threads=1), threading.Event(), threading.Event()
    world.member("lobby")
    other = world.member("other")
    them.advance(0.1)

    def block(room, value, sender):
        begun.set()
        assert go.wait(DEADLINE_S)

    them.game.does["on_post"] = block
    other.session.room("other").post(1, wait=False)
    assert begun.wait(DEADLINE_S)
    before = len(them.game.calls)
    them.timers.advance(0.17)  # three ticks are due, and no thread is free
    go.set()
    them.settle()
    assert [call for call in them.game.calls[before:] if call[1] == "lobby"] == [("on_tick", "lobby", 0.15)]
    assert them.skipped == 2 * 2
    counts, total_s = them.lag.snapshot()
    assert sum(counts) == 6
    assert total_s == pytest.approx(2 * 0.02)
    assert them.advance(0.05) == [("lobby", 0.05), ("other", 0.05)]


class LateTimers(ManualTimers):
    """Each timer comes late by this much."""

    late_s = 0.03

    def call_later(self, delay_s, callback):
        return super().call_later(delay_s + self.late_s, callback)


def test_ticks_that_come_late_do_not_drift(world, clocked):
    them = clocked(timers=LateTimers())
    world.member("lobby")
    ticks = them.advance(60.031)
    assert ticks == [("lobby", 0.05)] * 1200
    assert them.lag.snapshot()[1] == pytest.approx(1200 * 0.03)
    them.timers.late_s = 0.13
    ticks = them.advance(60)
    assert 330 <= len(ticks) <= 402, "each comes with two or three skipped"
    assert 1198 <= len(ticks) + them.skipped <= 1202
    assert sum(dt for _, dt in ticks) == pytest.approx(60, abs=0.2)


def test_an_exception_in_one_room_stops_no_other(world, clocked):
    them = clocked()

    def fail(room, dt):
        if room.name == "bad":
            raise {0: ValueError, 1: SystemExit, 2: KeyboardInterrupt}[len(them.game.calls) % 3]

    them.game.does["on_tick"] = fail
    world.member("bad")
    world.member("good")
    ticks = them.advance(1)
    assert sorted(ticks) == [("bad", 0.05)] * 20 + [("good", 0.05)] * 20
    assert them.them.counted("handler_errors") == 20


def test_a_tick_that_removes_the_last_member_is_the_last(world, clocked):
    them = clocked()
    member = world.member("lobby")
    them.game.does["on_tick"] = lambda room, dt: member.session.room("lobby").leave()
    assert len(them.advance(1)) == 1
    assert them.game.hooks_of("lobby") == ["on_room_start", "on_tick", "on_room_end"]


def test_a_tick_comes_after_the_posts_that_came_before_it(world, clocked):
    them, go, begun = clocked(), threading.Event(), threading.Event()
    member = world.member("lobby")

    def block(room, value, sender):
        begun.set()
        assert go.wait(DEADLINE_S)

    them.game.does["on_post"] = block
    room = member.session.room("lobby")
    them.settle()
    room.post(1, wait=False)
    assert begun.wait(DEADLINE_S)
    room.post(2, wait=False)
    them.timers.advance(0.05)
    room.post(3, wait=False)
    go.set()
    them.settle()
    assert [call[2] for call in them.game.calls[1:]] == [1, 2, 0.05, 3]


def test_a_thousand_rooms_tick_and_end(world, clocked):
    them = clocked()
    member = world.member(*(f"room-{nth}" for nth in range(1000)))
    ticks = them.advance(1)
    assert len(ticks) == 20_000
    assert len({room for room, _ in ticks}) == 1000
    assert {dt for _, dt in ticks} == {0.05}
    world.rooms.leave_all(member.session)
    them.settle()
    assert sum(hook == "on_room_end" for hook, *_ in them.game.calls) == 1000
    assert not them.ownership._mailboxes


def test_real_ticks_are_never_early_and_never_lost(world, make):
    times = []
    them = make()
    them.games[0].does["on_tick"] = lambda room, dt: times.append((time.monotonic(), dt))
    began = time.monotonic()
    world.member("lobby")
    wait_until(lambda: len(times) >= 40)
    member = world.members[0]
    member.session.room("lobby").leave()
    them.wait_free("lobby")
    skipped = them.counted("ticks_skipped")
    steps = [max(1, round(dt * 20)) for _, dt in times]
    if 5 not in steps:  # beyond the cap, the time is not told
        assert sum(steps) - skipped == len(times)
    number = 0
    for (at, _), step in zip(times, steps, strict=True):
        number += step
        assert at - began >= number / 20 - 1e-3, f"tick {number} is early"


# A handler that changes


def test_another_rate_applies_from_now_on(world, clocked):
    them = clocked()
    world.member("lobby")
    assert len(them.advance(1)) == 20
    them.them.handlers[0].tick_rate = 10.0
    them.ownership.refresh()
    assert them.advance(1) == [("lobby", 0.1)] * 10
    assert them.game.hooks_of("lobby").count("on_room_start") == 1


def test_functions_that_come_and_go(world, clocked):
    them = clocked()
    handler = them.them.handlers[0]
    hooks = handler.hooks
    world.member("lobby")
    them.advance(0.1)
    handler.hooks, handler.tick_rate = hooks - {"on_tick"}, None
    them.ownership.refresh()
    assert them.advance(1) == []
    handler.hooks, handler.tick_rate = hooks, 20.0
    them.ownership.refresh()
    assert them.advance(1) == [("lobby", 0.05)] * 20
    assert them.skipped == 0
    handler.hooks = frozenset()
    them.ownership.refresh()
    them.settle()
    assert not them.ownership.is_on
    assert them.game.hooks_of("lobby")[-1] == "on_room_end"
    world.member("another")
    assert not them.ownership._mailboxes
    with pytest.raises(PostError, match="the room has no members"):
        world.rooms.room("lobby").post(1)
    handler.hooks = hooks
    them.ownership.refresh()
    them.settle()
    assert set(them.ownership.states()) == {"lobby", "another"}
    assert len(them.advance(0.1)) == 4


def test_a_handler_that_has_lost_its_variables_gets_its_rooms_anew(world, clocked):
    them, go, begun = clocked(), threading.Event(), threading.Event()
    member = world.member("lobby")
    world.member("other")
    them.settle()

    def block(room, value, sender):
        begun.set()
        assert go.wait(DEADLINE_S)

    them.game.does["on_post"] = block
    errors = []
    member.session.room("lobby").post(1, wait=False)
    assert begun.wait(DEADLINE_S)
    world.rooms.ownership.post("lobby", "2", None, errors.append)
    fences = {name: state.fencing_number for name, state in them.ownership.states().items()}
    them.ownership.restart()
    them.ownership.post("lobby", "3", None, errors.append)
    go.set()
    them.settle()
    assert "started again" in str(errors[0])
    assert errors[1:] == [None], "a later post is for the new life"
    assert them.game.hooks_of("lobby") == ["on_room_start", "on_post", "on_room_start", "on_post"]
    assert them.game.hooks_of("other") == ["on_room_start"] * 2
    assert all(state.fencing_number > fences[name] for name, state in them.ownership.states().items())
    assert len(them.advance(0.1)) == 4


def test_another_clock_begins_with_the_ticks_again(world, clocked):
    them = clocked()
    world.member("lobby")
    assert len(them.advance(100)) == 2000
    them.timers = ManualTimers()
    them.ownership.use_timers(them.timers)
    assert them.advance(0.1) == [("lobby", 0.05)] * 2
    assert them.skipped == 0


def test_the_sessions_of_a_user_are_no_room_with_an_owner(world, clocked):
    them = clocked()
    world.member("lobby", user="ann")
    them.advance(1)
    assert set(them.ownership.states()) == {"lobby"}


# What a subclass for a broker relies on


class Leased(Ownership):
    """Leases that a test gives and takes."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.log = []
        self.is_good = True

    def _want(self, name):
        self.log.append(("want", name, self.is_wanted(name)))

    def _unwant(self, name):
        self.log.append(("unwant", name, self.is_wanted(name)))

    def _release(self, name, fence):
        self.log.append(("release", name, fence))

    def _is_valid(self, name, fence):
        return self.is_good


@pytest.fixture
def leased(world, clocked, monkeypatch):
    def use(rooms, **parts):
        rooms._ownership = Leased(**rooms._for_ownership(), **parts)
        return rooms._ownership

    monkeypatch.setattr(Rooms, "use_ownership", use)
    return clocked()


def test_a_room_is_wanted_while_it_has_members_and_begins_when_the_broker_says_so(world, leased):
    member = world.member("lobby")
    assert leased.ownership.log == [("want", "lobby", True)]
    world.member("lobby")
    assert len(leased.ownership.log) == 1
    assert leased.ownership.states() == {}
    assert leased.ownership.owns("lobby") is None
    leased.ownership.begin("lobby", 7)
    assert leased.advance(0.05) == [("lobby", 0.05)]
    assert leased.ownership.owns("lobby") == 7
    assert leased.game.fences == [("lobby", 7)]
    for each in (member, world.members[1]):
        each.session.room("lobby").leave()
    leased.settle()
    assert leased.ownership.log[1:] == [("release", "lobby", 7)]
    assert leased.game.hooks_of("lobby")[-1] == "on_room_end"


def test_a_lease_that_comes_too_late_goes_back_at_once(world, leased):
    member = world.member("lobby")
    member.session.room("lobby").leave()
    leased.ownership.begin("lobby", 7)
    leased.settle()
    assert leased.ownership.log == [("want", "lobby", True), ("unwant", "lobby", False), ("release", "lobby", 7)]
    assert leased.game.calls == []
    leased.ownership.begin("never heard of", 8)
    assert leased.ownership.log[-1] == ("release", "never heard of", 8)


def test_a_room_that_is_owned_is_not_begun_again(world, leased, caplog):
    world.member("lobby")
    leased.ownership.begin("lobby", 7)
    leased.ownership.begin("lobby", 8)
    leased.settle()
    assert "the room 'lobby' is owned already" in caplog.text
    assert leased.ownership.owns("lobby") == 7
    assert leased.ownership.log[-1] == ("release", "lobby", 8)


def test_what_was_lost_ends_after_its_call_without_what_waits(world, leased):
    go, begun, settled = threading.Event(), threading.Event(), []
    world.member("lobby")
    leased.ownership.begin("lobby", 7)
    leased.settle()
    owners = []

    def block(room, value, sender):
        begun.set()
        assert go.wait(DEADLINE_S)
        owners.append(room.is_owner())

    leased.game.does["on_post"] = block
    leased.game.does["on_room_end"] = lambda room: owners.append(room.is_owner())
    assert leased.ownership.deliver("lobby", 7, [Post("1", None, settled.append), Post("2", None, settled.append)])
    assert begun.wait(DEADLINE_S)
    leased.timers.advance(0.05)
    leased.ownership.lose("lobby", 6)
    assert leased.ownership.owns("lobby") == 7
    leased.ownership.lose("lobby", 7)
    assert leased.ownership.owns("lobby") is None
    assert not leased.ownership.deliver("lobby", 7, [Post("3", None, settled.append)])
    go.set()
    assert leased.ownership.settle(DEADLINE_S)
    assert leased.game.calls == [
        ("on_room_start", "lobby"),
        ("on_post", "lobby", 1, None),
        ("on_room_end", "lobby"),
    ]
    assert owners == [False, False]
    assert settled == [None], "of what waited, the broker tells"
    assert leased.ownership.log == [("want", "lobby", True), ("want", "lobby", True)], "no release, and wanted again"
    leased.ownership.begin("lobby", 9)
    leased.settle()
    assert leased.ownership.deliver("lobby", 9, [Post("4", None, settled.append)])


def test_a_lease_that_is_not_trusted_any_more_runs_nothing(world, leased):
    world.member("lobby", "other")
    leased.ownership.begin("lobby", 7)
    leased.settle()
    leased.ownership.is_good = False
    assert leased.advance(0.1) == []
    assert leased.game.hooks_of("lobby") == ["on_room_start", "on_room_end"]
    settled = []
    leased.ownership.begin("other", 8)
    leased.ownership.deliver("other", 8, [Post("1", None, settled.append)])
    leased.settle()
    assert leased.game.hooks_of("other") == [], "neither start nor end"
    assert settled == []
    assert [entry for entry in leased.ownership.log if entry[0] == "release"] == []


def test_a_post_that_was_taken_and_not_handled_is_not_said_to_be(world, leased):
    settled = []
    world.member("lobby")
    leased.ownership.begin("lobby", 7)
    leased.settle()
    leased.ownership.is_good = False
    assert leased.ownership.deliver("lobby", 7, [Post("1", None, settled.append)])
    assert leased.ownership.settle(DEADLINE_S)
    assert settled == []
    assert "on_post" not in leased.game.hooks_of("lobby")


# Handlers that take many calls at once, and are not done when they return


class Slow:
    """Keeps the calls that it gets."""

    def __init__(self, world, timers, batch=10, post_timeout_s=DEADLINE_S):
        self.lists = []
        self.ownership = world.rooms.use_ownership(
            timers=timers,
            run=self.lists.append,
            hooks=lambda: frozenset({"on_tick", "on_post"}),
            tick_rate=lambda: 20.0,
            count=world.counts[0].add,
            tick_lag=world.counts[0].histogram("tick_lag"),
            threads=1,
            batch=batch,
            max_post_bytes=1000,
            post_timeout_s=post_timeout_s,
        )
        self.ownership.refresh()

    def take(self):
        """What it has got since the last time."""
        assert self.ownership.settle(DEADLINE_S)
        lists, self.lists[:] = list(self.lists), []
        return [call for calls in lists for call in calls]


@pytest.fixture
def slow(world):
    made = []

    def make(**options):
        made.append(Slow(world, ManualTimers(), **options))
        return made[-1]

    yield make
    for slow in made:
        for call in slow.take():
            call.done()
        slow.ownership.stop(0.1)


def kinds(calls):
    return [(call.kind, call.room.name) for call in calls]


def test_a_call_that_is_not_done_holds_up_only_its_room(world, slow):
    handler = slow()
    world.member("one", "two", "three")
    starts = handler.take()
    assert sorted(kinds(starts)) == [("room_start", "one"), ("room_start", "three"), ("room_start", "two")]
    held = next(call for call in starts if call.room.name == "one")
    for call in starts:
        assert call.begin()
        if call is not held:
            call.done()
    handler.ownership.post("one", '"early"', None, lambda error: None)
    for _ in range(3):
        handler.ownership.timers.advance(0.05)
        ticks = handler.take()
        assert sorted(kinds(ticks)) == [("tick", "three"), ("tick", "two")]
        for call in ticks:
            assert call.begin()
            call.done()
            call.done("down")  # only the first one counts
    held.done()
    (post,) = handler.take()
    assert (post.kind, post.value, post.sender, post.hook) == ("post", '"early"', None, "on_post")
    assert "early" not in repr(post)
    post.done()
    handler.ownership.timers.advance(0.05)
    assert len(handler.take()) == 3


def test_posts_of_one_room_come_together_and_in_order(world, slow):
    handler = slow(batch=10)
    world.member("one")
    (start,) = handler.take()
    settled = []
    for number in range(25):
        handler.ownership.post("one", str(number), None, lambda error, number=number: settled.append((number, error)))
    start.done()
    seen = []
    for size in (10, 10, 5):
        calls = handler.take()
        assert len(calls) == size
        seen += [call.value for call in calls]
        for call in calls[:-1]:
            call.begin()
            call.done()
        assert handler.take() == []
        calls[-1].begin()
        calls[-1].done("failed" if size == 10 else "timeout")
    assert seen == [str(number) for number in range(25)]
    assert [number for number, _ in settled] == list(range(25))
    assert [error for _, error in settled[:-1]] == [None] * 24
    assert settled[-1][1].is_unknown
    assert "unknown whether the handler has handled the post: timeout" in str(settled[-1][1])


def test_a_tick_keeps_its_place_among_posts_that_come_together(world, slow):
    handler = slow()
    world.member("one")
    (start,) = handler.take()
    start.done()
    handler.take()

    def post(*values):
        for value in values:
            handler.ownership.post("one", str(value), None, lambda error: None)

    post(0)
    (held,) = handler.take()
    post(1, 2, 3)
    handler.ownership.timers.advance(0.05)
    post(4)
    handler.ownership.timers.advance(0.05)  # in place of the one that waits
    post(5)
    lists = []
    calls = [held]
    while calls:
        for call in calls:
            call.begin()
            call.done()
        calls = handler.take()
        lists.append([call.value if call.kind == "post" else call.dt for call in calls])
    assert lists == [["1", "2", "3"], [0.1], ["4", "5"], []]


def test_a_post_that_takes_too_long_may_have_been_handled(world, slow):
    handler = slow(post_timeout_s=0.05)
    room = world.member("one").session.room("one")
    unknown = r"not handled within 0\.05 s \(post_timeout_s\); it may still be handled"
    with pytest.raises(PostError, match=unknown) as caught:
        room.post(1)
    assert caught.value.is_unknown
    for call in handler.take():
        call.done()


def test_a_post_that_never_began_was_surely_not_handled(world, slow):
    handler, settled = slow(), []
    world.member("one")
    for call in handler.take():
        call.done()
    for value in "123":
        handler.ownership.post("one", value, None, settled.append)
    first, second, third = handler.take()
    assert first.begin()
    first.done("down")
    handler.ownership.restart()
    assert not second.begin()
    second.done()
    third.done("down")
    assert [error.is_unknown for error in settled] == [True, False, False]
    assert kinds(handler.take()) == [("room_start", "one")]


def test_a_run_that_fails_leaves_no_room_stuck(world, slow, caplog, monkeypatch):
    handler = slow()
    monkeypatch.setattr(handler.ownership, "_run_calls", lambda calls: 1 / 0)
    with pytest.raises(PostError, match="down"):
        world.member("one").session.room("one").post(1)
    assert "1 call for rooms failed" in caplog.text
    monkeypatch.undo()
    handler.ownership.post("one", "2", None, lambda error: None)
    assert kinds(handler.take()) == [("post", "one")]


# The end


def test_a_stop_does_not_wait_for_ever_and_tells_those_who_wait(world, slow):
    handler, settled = slow(), []
    world.member("one")
    handler.ownership.post("one", "1", None, settled.append)
    handler.take()
    handler.ownership.stop(0.01)
    assert [str(error) for error in settled] == ["the server has shut down before it handled the post"]


def test_a_room_thread_that_stops_does_not_wait_for_itself(world, make):
    them = make(hooks=("on_room_start", "on_post", "on_room_end"))
    them.games[0].does["on_post"] = lambda room, value, sender: them.ownerships[0].stop(DEADLINE_S)
    world.member("lobby").session.room("lobby").post(1)
    them.wait_call("on_room_end", "lobby")


def test_threads_that_cannot_be_started_are_tried_again(world, clocked, monkeypatch, caplog):
    them = clocked()
    start = threading.Thread.start

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    world.member("lobby")
    assert "these calls wait for the next attempt: can't start new thread" in caplog.text
    them.timers.advance(1.0)
    monkeypatch.setattr(threading.Thread, "start", start)
    them.timers.advance(1.0)
    them.settle()
    assert them.game.hooks_of("lobby") == ["on_room_start"]
    assert len(them.advance(0.5)) == 10


def test_a_forked_process_owns_what_its_own_members_are_in(world, clocked):
    them = clocked()
    world.member("lobby")
    them.advance(0.1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            world.rooms.give_up(has_members=True)
            assert them.ownership.states() == {}
            before = len(them.game.calls)
            them.timers.advance(1.0)
            assert len(them.game.calls) == before
            world.member("another")
            them.settle()
            assert set(them.ownership.states()) == {"another"}
            assert len(them.advance(0.1)) == 2
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(them.advance(0.1)) == 2


def test_an_ownership_that_is_dropped_leaves_no_thread():
    before = set(threading.enumerate())
    world = World()
    them = Owned(world)
    world.member("lobby")
    them.settle()
    assert any(thread.name.startswith("wsthreads-rooms") for thread in set(threading.enumerate()) - before)
    reference = weakref.ref(them.ownerships[0])
    world.end()
    del them, world
    wait_until(lambda: gc.collect() >= 0 and reference() is None, "only threads that end keep it")
    wait_until(lambda: not [thread for thread in set(threading.enumerate()) - before if "rooms" in thread.name])
