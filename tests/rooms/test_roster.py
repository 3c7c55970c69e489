"""Who is there in the rooms of an endpoint: timers, the calls of `on_presence`, and what they cost where unused."""

import itertools
import threading

import pytest

from tests.programs import DEADLINE_S, own_threads, wait_until
from tests.room_worlds import World
from wsthreads import PresenceError, User
from wsthreads.rooms.presence import Entry
from wsthreads.sessions.session import Session
from wsthreads.testing.timers import ManualTimers

INTERVAL_S, GRACE_S = 0.2, 10.0


class Members(World):
    """Rooms with a roster, a clock that the test moves, and what `on_presence` was called with."""

    def __init__(self, *, reports=True, **options):
        super().__init__()
        self.timers = ManualTimers()
        self.calls = []
        self.counts = []
        self.answer = None
        self.roster = self.rooms.use_roster(
            timers=self.timers,
            report=self.report,
            wants_reports=lambda: reports,
            count=self.counts.append,
            **{"interval_s": INTERVAL_S, "grace_s": GRACE_S, "max_value_bytes": 1024, **options},
        )

    def report(self, name, changes):
        lists = changes.joined, changes.left, changes.changed
        self.calls.append((name, *({person.key: person.presence for person in some} for some in lists)))
        return self.answer

    def advance(self, seconds=INTERVAL_S):
        """Move the clock; the calls of `on_presence` meanwhile."""
        self.timers.advance(seconds, between=lambda: self.roster.settle(DEADLINE_S))
        assert self.roster.settle(DEADLINE_S)
        self.roster._check()
        calls, self.calls = self.calls, []
        return calls

    def person(self, user, value, room="lobby"):
        member = self.member()
        plain = member.session
        plain.request.user = user
        member.session = Session(f"{user}-{next(SERIAL)}", plain.request, member, self.rooms)
        member.session.room(room).join(presence=value)
        return member.session

    def end(self):
        self.roster.stop(DEADLINE_S)
        super().end()


SERIAL = itertools.count()


@pytest.fixture
def world():
    world = Members()
    yield world
    world.end()


def keys(room):
    return [person.key for person in room.presence()]


def test_members_are_told_once_an_interval_what_has_changed(world):
    ann = world.person("ann", 1)
    assert keys(ann.room("lobby")) == ["ann"]
    assert world.advance(INTERVAL_S / 2) == []
    bob = world.person("bob", 1)
    ann.room("lobby").set_presence(2)
    assert world.advance(INTERVAL_S / 2) == [("lobby", {"ann": 2, "bob": 1}, {}, {})]
    assert world.advance(60) == []
    bob.room("lobby").set_presence(3)
    assert world.advance() == [("lobby", {}, {}, {"bob": 3})]
    bob.room("lobby").leave()
    assert keys(ann.room("lobby")) == ["ann"]
    assert world.advance() == [("lobby", {}, {"bob": 3}, {})]


def test_the_answer_is_sent_to_the_members_in_the_rooms_order(world):
    watcher = world.member("lobby")
    world.answer = "changes"
    world.person("ann", 1).room("lobby").broadcast("before")
    assert watcher.receive(1) == ["before"]
    world.advance()
    watcher.session.room("lobby").broadcast("after")
    assert watcher.receive(2) == ["changes", "after"]


def test_rooms_have_intervals_and_calls_of_their_own(world):
    ann = world.person("ann", 1, "a")
    world.advance(INTERVAL_S / 2)
    ann.room("b").join(presence=2)
    assert world.advance() == [("a", {"ann": 1}, {}, {}), ("b", {"ann": 2}, {}, {})]


def test_a_member_without_a_presence_is_nobody(world):
    member = world.member("lobby")
    assert member.session.room("lobby").presence() == []
    assert world.advance(60) == []
    assert not world.roster.is_used
    assert world.counts == []


def test_a_room_without_members_is_told_of_nothing_and_kept_for_nothing(world):
    world.person("ann", 1).room("lobby").leave()
    assert world.advance() == []
    ann = world.person("ann", 1)
    assert world.advance() == [("lobby", {"ann": 1}, {}, {})]
    ann.room("lobby").leave()
    assert world.advance() == []
    assert world.roster.names() == []


def test_a_lost_connection_is_a_leave_after_the_grace(world):
    watcher = world.member("lobby")
    ann = world.person("ann", 1)
    world.advance()
    world.rooms.leave_all(ann, is_lost=True)
    assert [(person.key, person.sessions) for person in watcher.session.room("lobby").presence()] == [("ann", 0)]
    assert world.advance(GRACE_S - 0.01) == []
    assert keys(watcher.session.room("lobby")) == ["ann"]
    assert world.advance(INTERVAL_S + 0.02) == [("lobby", {}, {"ann": 1}, {})]
    assert world.roster.names() == []


def test_a_reload_is_nothing(world):
    watcher, ann = world.member("lobby"), world.person("ann", 1)
    since = watcher.session.room("lobby").presence()[0].since
    world.advance()
    world.rooms.leave_all(ann, is_lost=True)
    world.advance(GRACE_S / 2)
    world.person("ann", 1)
    assert world.advance(2 * GRACE_S) == []
    (person,) = watcher.session.room("lobby").presence()
    assert (person.key, person.sessions, person.since) == ("ann", 1, since)


def test_a_reload_of_the_only_member_is_nothing_either(world):
    ann = world.person("ann", 1)
    world.advance()
    world.rooms.leave_all(ann, is_lost=True)
    world.advance(GRACE_S / 2)
    world.person("ann", 1)
    assert world.advance(2 * GRACE_S) == []


def test_the_end_of_a_session_is_a_leave_at_once(world):
    watcher, ann = world.member("lobby"), world.person("ann", 1)
    world.advance()
    world.rooms.leave_all(ann)
    assert watcher.session.room("lobby").presence() == []
    assert world.advance() == [("lobby", {}, {"ann": 1}, {})]


def test_without_a_grace_a_lost_connection_is_a_leave_at_once():
    world = Members(grace_s=0.0)
    try:
        watcher, ann = world.member("lobby"), world.person("ann", 1)
        world.advance()
        world.rooms.leave_all(ann, is_lost=True)
        assert watcher.session.room("lobby").presence() == []
        assert world.advance() == [("lobby", {}, {"ann": 1}, {})]
    finally:
        world.end()


def test_sessions_lost_at_different_times_leave_at_different_times(world):
    world.member("lobby")
    ann, bob = world.person("ann", 1), world.person("bob", 1)
    world.advance()
    world.rooms.leave_all(ann, is_lost=True)
    world.advance(5)
    world.rooms.leave_all(bob, is_lost=True)
    assert world.advance(GRACE_S - 4) == [("lobby", {}, {"ann": 1}, {})]
    assert world.advance(5) == [("lobby", {}, {"bob": 1}, {})]


def test_without_the_hook_there_are_no_timers_and_nothing_is_kept_for_reports():
    world = Members(reports=False)
    try:
        ann = world.person("ann", 1)
        assert keys(ann.room("lobby")) == ["ann"]
        assert world.timers._timers == []
        ann.room("lobby").leave()
        assert world.roster.names() == []
    finally:
        world.end()


@pytest.mark.parametrize("value", [{1}, float("inf"), "x" * 1023])
def test_a_value_that_will_not_do_is_an_error_and_the_session_does_not_join(world, value):
    member = world.member()
    with pytest.raises(PresenceError):
        member.session.room("lobby").join(presence=value)
    assert member.session.rooms() == []
    member.session.room("lobby").join(presence="x" * 1022)
    with pytest.raises(PresenceError):
        member.session.room("lobby").set_presence(value)
    assert member.session.room("lobby").presence()[0].presence == "x" * 1022


def test_only_a_member_sets_its_presence_and_one_that_has_ended_does_nothing(world):
    member = world.member()
    with pytest.raises(PresenceError, match="join 'lobby' first"):
        member.session.room("lobby").set_presence(1)
    world.rooms.leave_all(member.session)
    member.session.room("lobby").set_presence(1)
    member.session.room("lobby").join(presence=1)
    assert world.roster.names() == []


def test_to_join_again_sets_the_presence_and_without_one_keeps_it(world):
    ann = world.person("ann", 1)
    ann.room("lobby").join()
    assert ann.room("lobby").presence()[0].presence == 1
    ann.room("lobby").join(presence=None)
    assert ann.room("lobby").presence()[0].presence is None


def test_entries_of_other_processes_are_told_like_those_of_this_one(world):
    watcher = world.member("lobby")
    world.roster.apply_set("lobby", Entry("s1", "ann", 1.0, "1", 5, 5, process="other"))
    assert keys(watcher.session.room("lobby")) == ["ann"]
    assert world.advance() == [("lobby", {"ann": 1}, {}, {})]
    assert world.counts == []
    world.roster.apply_gone("lobby", "s1", 6)
    assert world.advance() == [("lobby", {}, {"ann": 1}, {})]
    assert world.roster.names() == []


def test_own_changes_reach_a_subclass_in_order_and_are_counted(world):
    seen = []
    world.roster._own_change = lambda name, change: seen.append((name, change))
    ann = world.person("ann", 1)
    ann.room("lobby").set_presence(2)
    world.rooms.leave_all(ann, is_lost=True)
    world.advance(60)
    (_, first), (_, second), (_, third), (_, gone) = seen
    assert (first.value, second.value, third.value) == ("1", "2", "2")
    assert third.lost_until == GRACE_S
    assert (first.lost_until, third.set_at) == (None, second.set_at)
    assert first.version < second.version < third.version < gone[1]
    assert world.counts == ["presence_changes"] * 4


def test_a_member_that_comes_while_nobody_was_there_to_be_told_is_told(world):
    """The hooks' thread looks for members, and takes the changes, in two steps."""
    ann = world.person("ann", 1)
    ann.room("lobby").leave()
    looked = []

    def has_members(name):
        looked.append(name)
        if len(looked) == 1:
            world.person("bob", 1)
            return False
        return True

    world.roster._reports._has_members = has_members
    assert world.advance() == []
    assert world.advance() == [("lobby", {"bob": 1}, {}, {})]


def test_the_thread_for_the_hook_starts_when_it_is_needed_and_ends(world):
    def names():
        return own_threads("wsthreads-presence")

    assert names() == []
    world.person("ann", 1)
    assert names() == []
    world.advance()
    assert names() == ["wsthreads-presence"]
    world.roster.stop(DEADLINE_S)
    wait_until(lambda: names() == [])


def test_where_no_thread_can_be_started_the_call_comes_later(world, monkeypatch):
    world.person("ann", 1)
    thread = world.roster._reports._thread
    real = thread.go_on
    monkeypatch.setattr(thread, "go_on", lambda step: (_ for _ in ()).throw(RuntimeError("no thread")))
    assert world.advance() == []
    monkeypatch.setattr(thread, "go_on", real)
    assert world.advance(1) == [("lobby", {"ann": 1}, {}, {})]


def test_joins_ends_and_changes_from_many_threads_leave_nobody_behind(world):
    def run(number):
        for turn in range(50):
            member = world.person(f"user-{number % 3}", turn)
            room = member.room("lobby")
            ender = threading.Thread(target=world.rooms.leave_all, args=(member,), kwargs={"is_lost": turn % 2 == 0})
            ender.start()
            try:
                for value in range(5):
                    room.set_presence(value)
                room.leave()
                room.join(presence="again")
            except PresenceError:
                pytest.fail("a session that has ended does nothing")
            ender.join(DEADLINE_S)

    failures = []

    def guarded(number):
        try:
            run(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        world.timers.advance(INTERVAL_S)
    for thread in threads:
        thread.join(DEADLINE_S)
    assert failures == []
    world.advance(GRACE_S + 1)
    world.advance(1)
    assert world.roster.names() == []


def test_a_session_that_sets_a_value_after_all_is_not_lost(world):
    watcher, ann = world.member("lobby"), world.person("ann", 1)
    world.advance()
    world.roster.lose("lobby", ann.id)
    world.roster.tell("lobby")
    assert watcher.session.room("lobby").presence()[0].sessions == 0
    ann.room("lobby").set_presence(1)
    assert watcher.session.room("lobby").presence()[0].sessions == 1
    assert world.advance(2 * GRACE_S) == []


def lose(world, *sessions):
    for session in sessions:
        world.rooms.leave_all(session, is_lost=True)


def test_somebody_who_is_back_is_there_by_the_new_session_alone(world):
    """So the lost one keeps nobody there who closes the page after a reload."""
    watcher, ann = world.member("lobby"), world.person("ann", 1)
    world.advance()
    lose(world, ann)
    again = world.person("ann", 1)
    assert world.roster.entries("lobby")[0].session_id == again.id
    assert world.advance() == []
    world.rooms.leave_all(again)
    assert watcher.session.room("lobby").presence() == []
    assert world.advance() == [("lobby", {}, {"ann": 1}, {})]


def test_somebody_who_is_back_in_another_process_is_there_by_that_session_alone(world):
    world.member("lobby")
    lose(world, world.person("ann", 1))
    world.advance()
    seen = []
    world.roster._own_change = lambda name, change: seen.append(change)
    version = world.roster._next_version()
    world.roster.apply_set("lobby", Entry("s1", "ann", 1.0, "1", version, version, process="other"))
    assert [entry.session_id for entry in world.roster.entries("lobby")] == ["s1"]
    assert len(seen) == 1, "the other processes are told"
    assert world.advance() == []
    world.roster.apply_gone("lobby", "s1", version + 1)
    assert world.advance() == [("lobby", {}, {"ann": 1}, {})]


def test_a_session_lost_in_another_process_replaces_nothing(world):
    world.member("lobby")
    ann = world.person("ann", 1)
    lose(world, ann)
    version = world.roster._next_version()
    entry = Entry("s1", "ann", 1.0, "1", version, version, lost_until=1.0, process="other")
    world.roster.apply_set("lobby", entry)
    assert {entry.session_id for entry in world.roster.entries("lobby")} == {"s1", ann.id}


def test_a_clean_end_is_that_of_a_lost_tab_too_but_not_while_another_is_there(world):
    world.member("lobby")
    lost, one, two = (world.person("ann", 1) for _ in range(3))
    bob = world.person("bob", 1)
    world.advance()
    lose(world, lost, bob)
    world.rooms.leave_all(one)
    assert {entry.session_id for entry in world.roster.entries("lobby")} == {lost.id, two.id, bob.id}
    two.room("lobby").leave()
    assert world.advance() == [("lobby", {}, {"ann": 1}, {})]
    assert world.advance(2 * GRACE_S) == [("lobby", {}, {"bob": 1}, {})]


def test_tabs_that_were_lost_one_after_the_other_have_their_grace_each(world):
    world.member("lobby")
    one, two = world.person("ann", 1), world.person("ann", 1)
    world.advance()
    lose(world, one)
    world.advance(GRACE_S / 2)
    lose(world, two)
    assert world.advance(GRACE_S - 1) == []
    assert world.advance(2) == [("lobby", {}, {"ann": 1}, {})]


def test_who_is_kicked_after_a_lost_connection_leaves_all_rooms_at_once(world):
    world.rooms.use_directory(path="/ws/test", count=lambda name, by: None)
    world.member("lobby")
    world.member("hall")
    ann, bob = world.person("ann", 1), world.person("bob", 1)
    ann.room("hall").join(presence=2)
    world.advance()
    lose(world, ann, bob)
    User("ann", world.rooms.directory).close(4003, "kicked", ban_s=60)
    assert world.roster.entries("hall") == []
    assert [entry.session_id for entry in world.roster.entries("lobby")] == [bob.id]
    assert sorted(world.advance()) == [("hall", {}, {"ann": 2}, {}), ("lobby", {}, {"ann": 1}, {})]
    world.rooms.directory.close_here("\0ubob", 4003, "kicked")  # as another process wants it
    assert world.advance() == [("lobby", {}, {"bob": 1}, {})]
    assert world.roster.names() == []


def test_a_user_named_like_somebodys_session_is_not_that_person(world):
    guest = world.member("lobby").session
    guest.room("lobby").set_presence(1)
    mallory = world.person(guest.id, 2)
    there = mallory.room("lobby").presence()
    assert [(person.user, person.presence, person.sessions) for person in there] == [(None, 1, 1), (guest.id, 2, 1)]
