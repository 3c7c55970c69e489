"""What a room holds: the same in the memory of one process, and over Redis, where the handles are in two.

With Redis, sessions are by turns in two processes, as far as Redis can tell.
"""

import json
import math
import os
import random
import threading
from functools import partial

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.room_worlds import RedisWorld, World, be_patient, world_of
from tests.wire import run_all
from wsthreads import BrokerError, RoomStateError
from wsthreads.rooms import attributes
from wsthreads.rooms.json_text import JSONText
from wsthreads.testing import play
from wsthreads.testing.timers import ManualTimers


@pytest.fixture(params=["local", "redis"])
def world(request):
    world = world_of(request)
    yield world
    if request.param == "local":
        world.rooms.attributes._check()
    world.end()


def rooms_of(world, name="lobby"):
    """Handles of a room without a session, one of each process."""
    return [rooms.room(name) for rooms in world.all_rooms]


def limit(world, **limits):
    for rooms in world.all_rooms:
        rooms.use_attributes(**{"timers": world.flusher, "max_bytes": 65536, "keep_s": 60.0, **limits})


def test_what_one_sets_all_get(world):
    a, b = (world.member("lobby").session.room("lobby") for _ in range(2))
    a.set_attribute("topic", "weather")
    assert b.get_attribute("topic") == "weather"
    assert b.attributes() == {"topic": "weather"}
    b.set_attribute("topic", "news")
    assert (a.get_attribute("topic"), rooms_of(world)[0].get_attribute("topic")) == ("news", "news")
    assert world.rooms.room("other").attributes() == {}
    assert b.delete_attribute("topic") is True
    assert (a.get_attribute("topic"), a.attributes(), a.delete_attribute("topic")) == (None, {}, False)
    assert a.get_attribute("topic", 7) == 7


VALUES = [None, True, 0, -1.5, 2**60, "", "ü\0\ud800😀", [], {"a": [{}, [None]]}, "x" * 60_000]


def test_a_value_is_any_json_and_comes_back_as_it_was(world):
    for n, value in enumerate(VALUES):
        a, b = rooms_of(world, f"{n}")[0], rooms_of(world, f"{n}")[-1]
        a.set_attribute("key", value)
        assert b.get_attribute("key", "missing") == value
        assert b.attributes() == {"key": value}
        assert b.update_attribute("key", lambda old, value=value: [old == value]) == [True]


def test_each_reader_has_a_copy_of_its_own(world):
    room = world.rooms.room("lobby")
    value = {"list": [1]}
    room.set_attribute("key", value)
    value["list"].append(2)
    got = room.get_attribute("key")
    got["list"].append(3)
    room.attributes()["key"]["list"].append(4)
    kept = []
    room.update_attribute("other", lambda old: kept)
    kept.append(5)
    assert (room.get_attribute("key"), room.get_attribute("other")) == ({"list": [1]}, [])


KEYS = ["x", " ", "\0", "size", '"', "a:b{}", "ü", "\ud800", "😀" * 128, "k" * 256, "__proto__"]


def test_a_key_is_any_text_of_1_to_256_characters(world):
    a, b = rooms_of(world)[0], rooms_of(world)[-1]
    for key in KEYS:
        a.set_attribute(key, 1)
        assert b.update_attribute(key, lambda value: value + 1) == 2
    assert a.attributes() == dict.fromkeys(KEYS, 2)
    for key in KEYS:
        assert b.delete_attribute(key)
    assert a.attributes() == {}


def test_two_surrogates_and_the_character_that_they_are_make_one_key(world):
    room = world.rooms.room("lobby")
    room.set_attribute("\ud83d\ude00", 1)
    assert room.get_attribute("😀") == 1
    room.set_attribute("😀", 2)
    assert room.attributes() == {"😀": 2}


def test_what_is_no_key_is_one_error_and_nothing_happens(world):
    room = world.rooms.room("lobby")
    for key, words in [
        ("", "1 to 256 characters, this one has 0"),
        ("k" * 257, "1 to 256 characters, this one has 257"),
        (None, "not NoneType"),
        (1, "not int"),
        (b"key", "not bytes"),
        (["key"], "not list"),
    ]:
        for act in (
            partial(room.set_attribute, key, 1),
            partial(room.get_attribute, key),
            partial(room.update_attribute, key, lambda value: 1),
            partial(room.delete_attribute, key),
        ):
            with pytest.raises(RoomStateError, match=words):
                act()
    assert room.attributes() == {}


class Odd:
    def __repr__(self):
        raise ZeroDivisionError


LOOP: list = []
LOOP.append(LOOP)


NO_VALUES = [
    math.nan, math.inf, -math.inf, [math.nan], {1, 2}, b"bytes", object(), Odd(), LOOP, print, {("a",): 1}, 10**5000,
    json.loads("[" * 65 + "]" * 65), "x" * 65_530, (n for n in [1]), ...,
]  # fmt: skip


def test_what_is_no_json_or_too_much_is_one_error_and_changes_nothing(world):
    room = world.rooms.room("lobby")
    room.set_attribute("key", "old")
    for value in NO_VALUES:
        for act in (
            partial(room.set_attribute, "key", value),
            partial(room.update_attribute, "key", lambda old, value=value: value),
        ):
            with pytest.raises(RoomStateError, match="attribute"):
                act()
    assert room.attributes() == {"key": "old"}


def test_all_attributes_together_have_a_limit_as_json(world):
    limit(world, max_bytes=100)
    a, b = rooms_of(world)[0], rooms_of(world)[-1]
    a.set_attribute("a", "x" * 40)
    b.set_attribute("ü", "y" * 40)
    assert len(json.dumps(a.attributes(), separators=(",", ":"), ensure_ascii=False).encode()) == 96
    b.set_attribute("a", "x" * 44)
    assert len(json.dumps(a.attributes(), separators=(",", ":"), ensure_ascii=False).encode()) == 100
    for act in (
        lambda: a.set_attribute("a", "x" * 45),
        lambda: b.set_attribute("b", 1),
        lambda: b.update_attribute("ü", lambda old: old + "z"),
        lambda: b.set_attribute("a", "ü" * 23),
    ):
        with pytest.raises(RoomStateError, match=r"10[0-9] bytes as JSON; max_room_bytes allows at most 100"):
            act()
    assert a.attributes() == b.attributes() == {"a": "x" * 44, "ü": "y" * 40}
    a.delete_attribute("ü")
    b.set_attribute("b", "y" * 40)
    a.set_attribute("a", 1)
    b.delete_attribute("b")
    a.set_attribute("c", "z" * 86)
    assert b.attributes() == {"a": 1, "c": "z" * 86}


def test_an_update_gets_the_value_or_nothing_and_returns_the_new_one(world):
    a, b = rooms_of(world)[0], rooms_of(world)[-1]
    seen = []
    assert a.update_attribute("n", lambda value: seen.append(value) or 1) == 1
    assert b.update_attribute("n", lambda value: seen.append(value) or (1, 2)) == [1, 2]
    assert a.update_attribute("n", lambda value: seen.append(value)) is None
    assert b.get_attribute("n", "missing") is None
    assert seen == [None, 1, [1, 2]]
    with pytest.raises(RoomStateError, match="not 3"):
        a.update_attribute("n", 3)


def test_an_update_that_raises_changes_nothing(world):
    a, b = rooms_of(world)[0], rooms_of(world)[-1]
    a.set_attribute("n", 1)
    for error in (ValueError("no"), KeyboardInterrupt(), SystemExit(3)):

        def fail(value, error=error):
            raise error

        with pytest.raises(type(error)):
            b.update_attribute("n", fail)
    assert a.update_attribute("n", lambda value: value + 1) == 2, "the turn is free"


def test_the_function_of_an_update_must_not_set_the_same_attribute(world):
    room, other = rooms_of(world)[0], rooms_of(world, "other")[0]
    room.set_attribute("n", 1)
    for act in (
        lambda: room.set_attribute("n", 5),
        lambda: room.delete_attribute("n"),
        lambda: room.update_attribute("n", lambda value: 5),
        lambda: world.member().session.room("lobby").set_attribute("n", 5),
    ):
        with pytest.raises(RoomStateError, match="must return the new value of 'n'"):
            room.update_attribute("n", lambda value, act=act: act())
    assert room.get_attribute("n") == 1
    assert room.update_attribute("n", lambda value: value + (room.get_attribute("n") or 0)) == 2

    def change_others(value):
        room.set_attribute("m", value)
        other.update_attribute("n", lambda value: (value or 0) + 1)
        return room.update_attribute("k", lambda value: "inner") + " and outer"

    assert room.update_attribute("n", change_others) == "inner and outer"
    assert room.attributes() == {"n": "inner and outer", "m": 2, "k": "inner"}
    assert other.attributes() == {"n": 1}


def test_the_function_of_an_update_may_broadcast_join_and_leave(world):
    a, b = world.member("lobby"), world.member("lobby")
    room, other = a.session.room("lobby"), a.session.room("other")

    def change(value):
        assert other.join(max_members=1)
        room.broadcast("from an update")
        room.leave()
        room.join()
        other.leave()
        return room.members() and "done"

    assert room.update_attribute("n", change) == "done"
    assert b.receive(1) == ["from an update"]
    assert b.session.room("lobby").get_attribute("n") == "done"


def test_an_update_sees_what_another_sets_while_its_function_runs(world):
    a, b = rooms_of(world)[0], rooms_of(world)[-1]
    seen = []

    def overtaken(value):
        seen.append(value)
        if len(seen) < 4:
            run_all(lambda: b.set_attribute("n", len(seen) * 10))
        return (value or 0) + 1

    assert a.update_attribute("n", overtaken) == 31
    assert seen == [None, 10, 20, 30]
    seen.clear()
    a.delete_attribute("n")

    def deleted(value):
        seen.append(value)
        if len(seen) == 1:
            run_all(lambda: b.set_attribute("n", 1), lambda: None)
        elif len(seen) == 2:
            run_all(lambda: b.delete_attribute("n"))
        return "new"

    assert a.update_attribute("n", deleted) == "new"
    assert seen == [None, 1, None]


def test_an_update_that_others_overtake_for_too_long_is_an_error_and_changes_nothing(world, monkeypatch):
    monkeypatch.setattr(attributes, "UPDATE_S", 0.05)
    a, b = rooms_of(world)[0], rooms_of(world)[-1]
    count = 0

    def overtaken(value):
        nonlocal count
        count += 1
        run_all(lambda: b.set_attribute("n", count))
        return "mine"

    with pytest.raises(RoomStateError, match=r"other updates came first \d+ times.*changed nothing"):
        a.update_attribute("n", overtaken)
    assert b.get_attribute("n") == count


def test_a_slow_update_holds_up_others_for_a_moment_only(world, monkeypatch):
    monkeypatch.setattr(attributes, "TURN_S", 0.05)
    room = world.rooms.room("lobby")
    begun, go_on, results = threading.Event(), threading.Event(), []

    def slow(value):
        begun.set()
        assert go_on.wait(DEADLINE_S)
        return (value or 0) + 1

    def other():
        assert begun.wait(DEADLINE_S)
        results.append(room.update_attribute("n", lambda value: (value or 0) + 10))
        results.append(room.update_attribute("m", lambda value: 1))
        go_on.set()

    run_all(lambda: results.append(room.update_attribute("n", slow)), other)
    assert results == [10, 1, 11]
    assert not len(world.rooms.attributes._turns), "no turn stays"


def test_updates_of_two_keys_in_each_others_functions_wait_in_no_circle(world):
    room = world.rooms.room("lobby")
    both = threading.Barrier(2, timeout=DEADLINE_S)

    def run(one, other):
        met = []

        def outer(value):
            if not met:
                met.append(both.wait())
            room.update_attribute(other, lambda value: (value or 0) + 1)
            return (value or 0) + 100

        room.update_attribute(one, outer)

    run_all(lambda: run("a", "b"), lambda: run("b", "a"))
    found = room.attributes()
    assert found["a"] >= 101
    assert found["b"] >= 101


def test_no_update_is_lost_among_threads_and_processes(world, seed):
    threads, times = 8, 30
    handles = [world.member("lobby").session.room("lobby") for _ in range(threads)]

    def work(n):
        for _ in range(times):
            handles[n].update_attribute("sum", lambda value: (value or 0) + 1)
            handles[n].update_attribute(f"own {n}", lambda value: (value or 0) + 1)

    run_all(*(lambda n=n: work(n) for n in range(threads)))
    assert handles[0].attributes() == {"sum": threads * times, **{f"own {n}": times for n in range(threads)}}


def test_sets_deletes_and_updates_in_many_threads_keep_the_size_right(world, seed):
    limit(world, max_bytes=400)
    handles, errors = rooms_of(world), []

    def work(n):
        dice = random.Random(seed + n)
        for _ in range(60):
            room, key = dice.choice(handles), dice.choice("abc")
            value = dice.choice("xü") * dice.randrange(200)
            act = dice.randrange(3)
            try:
                if act == 0:
                    room.set_attribute(key, value)
                elif act == 1:
                    room.update_attribute(key, lambda old, value=value: value)
                else:
                    room.delete_attribute(key)
            except RoomStateError as error:
                errors.append(str(error))

    run_all(*(lambda n=n: work(n) for n in range(6)))
    assert all("max_room_bytes" in error for error in errors), errors
    room = handles[0]
    size = len(json.dumps(room.attributes(), separators=(",", ":"), ensure_ascii=False).encode())
    assert size <= 400
    for key in "abc":
        room.delete_attribute(key)
    room.set_attribute("k", "x" * (400 - 8))
    with pytest.raises(RoomStateError, match="would have 401"):
        room.set_attribute("k", "x" * (401 - 8))


def test_a_write_of_an_ownership_that_is_over_is_refused(world):
    owned = rooms_of(world)
    attributes_of = [rooms.attributes for rooms in world.all_rooms]
    if isinstance(world, RedisWorld):
        lease = world.broker._keys.address(world.path, "lobby").lease
        world.broker._client.hset(lease, "fence", 12)
    else:
        attributes_of[0].is_owner = lambda name, fence: fence == 12
    attributes_of[0].put("lobby", "n", "1", fence=12)
    assert attributes_of[0].update("lobby", "n", lambda text: f"{text}1", fence=12) == "11"
    for act in (
        lambda each: each.put("lobby", "n", "2", fence=11),
        lambda each: each.delete("lobby", "n", fence=13),
        lambda each: each.swap("lobby", "n", "11", "2", fence=11),
        lambda each: each.update("lobby", "n", lambda text: "2", fence=11),
    ):
        for each in attributes_of:
            with pytest.raises(
                RoomStateError, match=r"the ownership of the room .lobby. with the fencing number 1[13] is over"
            ):
                act(each)
    assert owned[-1].attributes() == {"n": 11}


def test_scripts_swap_json_texts(world):
    room = world.rooms.room("lobby")
    assert room._attribute_text("n") is None
    assert room._swap_attribute("n", None, JSONText("[1]")) == (True, "[1]")
    assert room._swap_attribute("n", None, JSONText("2")) == (False, "[1]")
    assert room._swap_attribute("n", "[1]", JSONText("2")) == (True, "2")
    assert room._swap_attribute("m", "1", JSONText("2")) == (False, None)
    assert (room._attribute_text("n"), room.attributes()) == ("2", {"n": 2})


# How long they live


def test_attributes_live_while_the_room_has_members_and_for_a_time_after_the_last(world):
    limit(world, keep_s=0.3)
    here = rooms_of(world)
    a, b = world.member("lobby"), world.member("lobby")
    here[0].set_attribute("n", 1)
    outside = rooms_of(world, "empty")[-1]
    outside.set_attribute("n", 2)
    wait_until(lambda: not outside.attributes(), "the end of what an empty room has")
    assert [room.attributes() for room in here] == [{"n": 1}] * len(here)
    a.session.room("lobby").leave()
    wait_until(lambda: b.session.room("lobby").members() == 1)
    assert here[-1].attributes() == {"n": 1}
    b.session.room("lobby").leave()
    wait_until(lambda: not here[0].attributes(), "the end of the attributes")


def test_who_comes_in_time_keeps_the_attributes(world):
    limit(world, keep_s=DEADLINE_S)
    room = world.member("lobby").session.room("lobby")
    room.set_attribute("n", 1)
    for _ in range(20):
        room.leave()
        room.join()
        assert room.attributes() == {"n": 1}


class Clocked:
    """Rooms in memory, with a clock that only the test moves."""

    def __init__(self, keep_s=60.0):
        self.timers = ManualTimers()
        self.world = World()
        self.world.rooms.use_attributes(timers=self.timers, max_bytes=65536, keep_s=keep_s)
        self.room = self.world.rooms.room("lobby")
        self.store = self.world.rooms.attributes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.store._check()
        self.world.end()


def test_in_memory_the_time_is_exact_and_nothing_stays():
    with Clocked() as clocked:
        room, timers, store = clocked.room, clocked.timers, clocked.store
        room.set_attribute("n", 1)
        timers.advance(59)
        room.set_attribute("m", 1)
        timers.advance(59)
        assert room.attributes() == {"n": 1, "m": 1}, "each change keeps them for the whole time"
        member = clocked.world.member("lobby")
        timers.advance(1000)
        assert room.attributes() == {"n": 1, "m": 1}
        member.session.room("lobby").leave()
        timers.advance(59.9)
        assert room.attributes() == {"n": 1, "m": 1}
        clocked.world.member("lobby").session.room("lobby").leave()
        timers.advance(59.9)
        assert len(store) == 1
        timers.advance(0.2)
        assert len(store) == 0, "without a call"
        assert room.attributes() == {}
        assert not timers._timers


def test_in_memory_attributes_end_in_time_even_if_no_timer_runs():
    with Clocked() as clocked:
        room, timers, store = clocked.room, clocked.timers, clocked.store
        room.set_attribute("n", 1)
        timers._timers.clear()
        timers.advance(61)
        clocked.world.member("lobby")
        assert room.attributes() == {}, "the first member finds nothing of before"
        for n in range(1000):
            clocked.world.rooms.room(f"{n}").set_attribute("n", n)
            timers._timers.clear()
            timers.advance(1)
        assert len(store) < 250, "those that are over are removed"


def test_in_memory_one_timer_watches_a_room():
    with Clocked() as clocked:
        for _ in range(100):
            member = clocked.world.member("lobby")
            clocked.room.set_attribute("n", 1)
            member.session.room("lobby").leave()
        assert len(clocked.timers._timers) == 1


def test_attributes_of_no_time_end_with_the_last_member():
    with Clocked(keep_s=0.0) as clocked:
        clocked.room.set_attribute("n", 1)
        assert clocked.room.attributes() == {}
        member = clocked.world.member("lobby")
        clocked.room.set_attribute("n", 1)
        assert clocked.room.attributes() == {"n": 1}
        member.session.room("lobby").leave()
        assert clocked.room.attributes() == {}
        clocked.timers.advance(1)
        assert len(clocked.store) == 0


def test_a_session_that_ends_keeps_them_for_the_whole_time():
    with Clocked() as clocked:
        member = clocked.world.member("lobby")
        clocked.room.set_attribute("n", 1)
        clocked.timers.advance(100)
        clocked.world.rooms.leave_all(member.session)
        clocked.timers.advance(59)
        assert clocked.room.attributes() == {"n": 1}
        clocked.timers.advance(2)
        assert len(clocked.store) == 0


# Forked processes


def in_fork(act):
    """What `act` returns in a forked process, as JSON."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with os.fdopen(writing, "w") as pipe:
                json.dump(act(), pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def test_a_forked_process_without_redis_says_that_it_reaches_nothing():
    with Clocked() as clocked:
        clocked.world.member("lobby")
        clocked.room.set_attribute("n", 1)
        rooms = clocked.world.rooms

        def act():
            rooms.give_up(has_members=True)
            said = []
            for call in (lambda: clocked.room.set_attribute("n", 2), clocked.room.attributes):
                try:
                    call()
                except BrokerError as error:
                    said.append(str(error))
            return said

        assert all("forked from a server" in text for text in in_fork(act))
        assert clocked.room.attributes() == {"n": 1}


def test_over_redis_a_forked_process_sets_what_its_parent_gets(redis_server, monkeypatch):
    be_patient(monkeypatch)
    world = RedisWorld(redis_server.url, prefix="attributes-fork")
    try:
        world.member("lobby")
        room = world.rooms.room("lobby")
        room.set_attribute("n", 1)
        rooms = world.rooms
        holds, go_on = threading.Event(), threading.Event()

        def hold(value):
            holds.set()
            assert go_on.wait(DEADLINE_S)
            return value

        thread = threading.Thread(target=room.update_attribute, args=("n", hold))
        thread.start()
        assert holds.wait(DEADLINE_S)

        def act():
            rooms.give_up(has_members=True)
            return [room.update_attribute("n", lambda value: value + 1), room.attributes()]

        assert in_fork(act) == [2, {"n": 2}]
        go_on.set()
        thread.join(DEADLINE_S)
        assert room.attributes() == {"n": 2}
    finally:
        world.end()


# In a test of a handler


class Poll:
    def on_message(self, session, message):
        room = session.room("poll")
        if message == "join":
            room.join()
        session.send(json.dumps(room.update_attribute("votes", lambda votes: (votes or 0) + 1)))


def test_play_moves_the_clock_of_attributes():
    with play(Poll(), room_keep_s=30) as game:
        a = game.connect()
        for message, votes in (("join", "1"), ("vote", "2")):
            a.send(message)
            assert a.receive() == votes
        game.advance(1000)
        a.close()
        game.advance(29)
        b = game.connect()
        b.send("vote")
        assert b.receive() == "3"
        game.advance(31)
        b.send("vote")
        assert b.receive() == "1"
