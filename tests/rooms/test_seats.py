"""Rooms with `max_members`: the same in the memory of one process, and over Redis, where members are in two.

With Redis, sessions are by turns in two processes, as far as Redis can tell.
"""

import math
import random
import threading
from functools import partial

import pytest

from tests.programs import wait_until
from tests.room_worlds import World, world_of
from tests.wire import run_all
from wsthreads import RoomLimitError, RoomStateError
from wsthreads.errors import brief
from wsthreads.rooms.history import Limits


@pytest.fixture(params=["local", "redis"])
def world(request):
    world = world_of(request)
    yield world
    for rooms in world.all_rooms:
        rooms._check()
        assert not getattr(rooms, "_seats", {}), "no seat is kept for anybody"
    world.end()


def repr_of(value):
    return brief(value, 10)


def join(member, max_members=4, room="lobby"):
    return member.session.room(room).join(max_members=max_members).joined


def race(members, max_members, room):
    """What each of them gets, who all join at once."""
    got = []
    run_all(*(lambda member=member: got.append(join(member, max_members, room)) for member in members))
    return got


def assert_count(world, count, room="lobby"):
    """Those of another process may take a moment to be counted."""
    for rooms in world.all_rooms:
        found = rooms.room(room)
        wait_until(lambda found=found: found.members() == count, f"{count} members")


def test_a_room_that_is_full_lets_nobody_in(world):
    members = [world.member() for _ in range(6)]
    assert [join(member) for member in members] == [True] * 4 + [False] * 2
    assert_count(world, 4)
    members[5].session.room("lobby").broadcast("to members")
    assert [member.receive(1) for member in members[:4]] == [["to members"]] * 4
    assert members[5].session.rooms() == []
    answer = members[4].session.room("lobby").join(max_members=4)
    assert (answer.joined, answer.complete, bool(answer)) == (False, False, False)
    assert members[0].session.room("lobby").join(max_members=4)
    assert join(members[4], 5)


def test_who_is_a_member_joins_again_in_a_full_room(world):
    a, b = world.member(), world.member()
    assert join(a, 1)
    assert not join(b, 1)
    assert join(a, 1)
    assert a.session.room("lobby").join().joined
    assert b.session.room("lobby").join().joined, "a join without max_members is not limited"
    assert join(b, 1)
    assert_count(world, 2)


def test_who_leaves_makes_room(world):
    a, b = world.member(), world.member()
    for _ in range(5):
        assert join(a, 1)
        a.session.room("lobby").leave()
        wait_until(lambda: join(b, 1))
        assert not join(a, 1)
        b.session.room("lobby").leave()
        wait_until(lambda: world.rooms.room("lobby").members() == 0)
        world.all_rooms[-1].room("lobby").members()


def test_in_one_process_a_place_is_free_as_soon_as_leave_returns(world):
    a, b = (world.member(of=world.rooms) for _ in range(2))
    for n in range(50):
        assert join(a, 1)
        a.session.room("lobby").broadcast(f"{n}")
        a.session.room("lobby").leave()
        assert join(b, 1)
        b.session.room("lobby").leave()


def test_a_full_room_sets_no_presence(world):
    for rooms in world.all_rooms:
        rooms.use_roster(
            timers=world.flusher, report=None, wants_reports=lambda: False, count=lambda name: None,
            interval_s=1, grace_s=1, max_value_bytes=100,
        )  # fmt: skip
    a, b = world.member(), world.member()
    assert a.session.room("lobby").join(presence="a", max_members=1).joined
    assert not b.session.room("lobby").join(presence="b", max_members=1).joined
    assert [person.presence for person in a.session.room("lobby").presence()] == ["a"]


@pytest.mark.parametrize(
    "number", [0, -1, 1_000_001, 10**5000, 4.0, 2.5, math.nan, math.inf, "4", True, [4]], ids=repr_of
)
def test_what_is_no_number_of_members_is_one_error(number):
    world = World()
    member = world.member()
    with pytest.raises(RoomStateError, match="max_members must be a whole number from 1 to 1000000, not "):
        member.session.room("lobby").join(max_members=number)
    assert member.session.rooms() == []
    world.end()


def test_who_does_not_get_in_gets_nothing_of_the_history():
    world = World(history=Limits(10, 60.0, 10_000))
    a, b = world.member(), world.member()
    room = world.rooms.room("lobby")
    room.broadcast("old")
    assert a.session.room("lobby").join(history=5, max_members=1).joined
    assert tuple(b.session.room("lobby").join(history=5, since=room.position(), max_members=1)) == (False, False)
    assert a.receive(1) == ["old"]
    assert b.channel.receive_rest() == []
    world.end()


def test_a_session_that_has_ended_takes_no_seat(world):
    a, b = world.member(), world.member()
    world.rooms.leave_all(a.session)
    assert not join(a, 1)
    assert join(b, 1)


def test_a_session_in_too_many_rooms_takes_no_seat(world):
    for rooms in world.all_rooms:
        rooms._max_per_session = 2
    a, b = world.member("one", "two"), world.member()
    with pytest.raises(RoomLimitError):
        join(a, 1)
    wait_until(lambda: join(b, 1))


def test_of_those_who_race_for_seats_always_as_many_get_one(world, seed):
    for n in range(10):
        members = [world.member() for _ in range(24)]
        assert sum(race(members, 4, f"room {n}")) == 4
        assert sum(f"room {n}" in member.session.rooms() for member in members) == 4
        assert_count(world, 4, f"room {n}")


def test_one_session_in_two_threads_takes_one_seat(world, seed):
    for n in range(20):
        a, b, c = (world.member() for _ in range(3))
        assert race([a, a, a], 2, f"{n}") == [True] * 3
        wait_until(partial(join, b, 2, f"{n}"))
        assert not join(c, 2, f"{n}")
        assert_count(world, 2, f"{n}")


def test_there_are_never_too_many_while_members_come_and_go(world, seed):
    members = [world.member() for _ in range(8)]
    lock = threading.Lock()
    inside, most, joined = 0, 0, 0

    def work(member, dice):
        nonlocal inside, most, joined
        for _ in range(40):
            if join(member, 3):
                with lock:
                    inside += 1
                    joined += 1
                    most = max(most, inside)
                if dice.random() < 0.3:
                    member.session.room("lobby").join(max_members=3)
                with lock:
                    inside -= 1
                member.session.room("lobby").leave()

    run_all(*(lambda member=each, n=n: work(member, random.Random(seed + n)) for n, each in enumerate(members)))
    assert most <= 3
    assert joined
    assert_count(world, 0)
    wait_until(lambda: sum(join(member, 3) for member in members) == 3)
    assert_count(world, 3)


def test_sessions_that_end_while_they_join_leave_no_seat_behind(world, seed):
    for n in range(15):
        members = [world.member() for _ in range(4)]
        run_all(
            *(partial(join, member, 2, f"{n}") for member in members),
            *(partial(member.session._rooms.leave_all, member.session) for member in members),
        )
        late = [world.member() for _ in range(3)]
        assert_count(world, 0, f"{n}")
        wait_until(lambda late=late, n=n: sum(join(member, 2, f"{n}") for member in late) == 2)


def test_a_session_that_ends_before_its_join_is_announced_is_not_counted_for_good(world):
    member = world.member()
    rooms = member.session._rooms
    update = getattr(rooms, "_update", None)
    if update is not None:

        def end_and_update(name):
            rooms._update = update
            rooms.leave_all(member.session)
            update(name)

        rooms._update = end_and_update
    join(member, 1)
    rooms.leave_all(member.session)
    assert_count(world, 0)
    assert join(world.member(), 1)
