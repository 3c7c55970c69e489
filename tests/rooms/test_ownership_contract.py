"""What a room with an owner promises, in one process, and in those that Redis joins.

Sessions are by turns in the processes that there are. Whichever owns the room, its handler gets the calls.
"""

from __future__ import annotations

import random
import re
import threading

import pytest

from tests.owned_worlds import Owned
from tests.programs import DEADLINE_S, wait_until
from tests.room_worlds import world_of
from tests.wire import run_all
from wsthreads import PostError, Sender


@pytest.fixture(params=["local", "redis"])
def world(request):
    world = world_of(request, processes=3)
    yield world
    world.end()


@pytest.fixture
def owned(world):
    made = []

    def make(**options):
        made.append(Owned(world, **{"hooks": ("on_room_start", "on_post", "on_room_end"), **options}))
        return made[-1]

    yield make
    for owned in made:
        owned.end()


def test_a_room_is_owned_from_its_first_member_to_its_last(world, owned):
    them = owned()
    ann, bob = world.member("lobby"), world.member()
    game = them.owner("lobby")
    bob.session.room("lobby").join()
    ann.session.room("lobby").post("from ann")
    bob.session.room("lobby").post({"from": ["bob", None, 1.5]})
    world.rooms.room("lobby").post(None)
    ann.session.room("lobby").leave()
    bob.session.room("lobby").post("the last one")
    bob.session.room("lobby").leave()
    them.wait_call("on_room_end", "lobby")
    them.wait_free("lobby")
    calls = them.calls()
    assert [call for call in calls if call[0] == "on_post"] == [
        ("on_post", "lobby", "from ann", Sender(ann.session.id, None)),
        ("on_post", "lobby", {"from": ["bob", None, 1.5]}, Sender(bob.session.id, None)),
        ("on_post", "lobby", None, None),
        ("on_post", "lobby", "the last one", Sender(bob.session.id, None)),
    ]
    if len(them.games) == 1:
        assert game.hooks_of("lobby") == ["on_room_start", *["on_post"] * 4, "on_room_end"]


def test_a_sender_has_its_user(world, owned):
    them = owned()
    ann = world.member("lobby", user="ann")
    ann.session.room("lobby").post(1)
    them.wait_call("on_post", "lobby", 1, Sender(ann.session.id, "ann"))


def test_each_ownership_has_a_higher_number(world, owned):
    them = owned()
    for _ in range(5):
        member = world.member("lobby")
        them.owner("lobby")
        member.session.room("lobby").leave()
        them.wait_free("lobby")
    fences = [fence for game in them.games for _, fence in game.fences]
    assert len(set(fences)) == 5
    assert them.counted("owner_changes") == 5
    assert all(game.fences == sorted(game.fences) for game in them.games)


def test_the_handle_of_an_ownership_knows_whether_it_still_is_one(world, owned):
    them, rooms, seen = owned(), [], []
    for game in them.games:
        game.does["on_room_start"] = rooms.append
        game.does["on_room_end"] = lambda room: seen.append(room.is_owner())
    member = world.member("lobby")
    them.owner("lobby")
    wait_until(lambda: rooms)
    assert rooms[0].is_owner()
    member.session.room("lobby").leave()
    them.wait_free("lobby")
    assert seen == [True], "it is the owner until on_room_end has returned"
    assert not rooms[0].is_owner()
    world.member("lobby")
    them.owner("lobby")
    wait_until(lambda: len(rooms) == 2)
    assert rooms[1].is_owner()
    assert not rooms[0].is_owner()
    assert rooms[0].fencing_number < rooms[1].fencing_number


def test_a_post_to_nobody_is_refused(world, owned):
    owned()
    member = world.member()
    for room in (member.session.room("lobby"), world.rooms.room("lobby")):
        refused = "the post to the room 'lobby' was refused: the room has no members"
        with pytest.raises(PostError, match=refused) as caught:
            room.post(1)
        assert not caught.value.is_unknown


def test_a_member_need_not_be_the_poster(world, owned):
    them = owned()
    world.member("lobby")
    outsider = world.member()
    outsider.session.room("lobby").post("from outside")
    assert them.owner("lobby").values_of("lobby") == ["from outside"]


def test_a_handler_without_on_post_refuses_posts(world, owned):
    owned(hooks=("on_room_start",))
    member = world.member("lobby")
    with pytest.raises(PostError, match="the handler has no on_post"):
        member.session.room("lobby").post(1)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({1, 2}, "a posted value must be JSON, not {1, 2}"),
        (float("nan"), "a posted value must be JSON, not nan"),
        ("x" * 65536, r"a posted value has 65538 bytes as JSON; max_post_bytes allows at most 65536"),
        (eval("[" * 70 + "]" * 70), "64 arrays and objects inside each other, not 70"),
    ],
)
def test_a_value_that_cannot_be_posted_is_refused_and_nothing_happens(world, owned, value, error):
    them = owned()
    member = world.member("lobby")
    with pytest.raises(PostError, match=error):
        member.session.room("lobby").post(value)
    member.session.room("lobby").post("x" * 65534)
    assert len(them.owner("lobby").posted()) == 1


def test_each_post_of_many_threads_is_handled_once_in_its_posters_order(world, owned, seed):
    them = owned()
    members = [world.member("lobby", "other") for _ in range(6)]
    rng = random.Random(seed)
    waits = [rng.random() < 0.3 for _ in range(600)]

    def poster(nth):
        def post():
            for number in range(100):
                name = ("lobby", "other")[number % 2]
                members[nth].session.room(name).post([nth, number], wait=waits[nth * 100 + number])

        return post

    run_all(*(poster(nth) for nth in range(6)))
    wait_until(lambda: sum(call[0] == "on_post" for call in them.calls()) == 600)
    for name, parity in (("lobby", 0), ("other", 1)):
        values = [value for game in them.games for value in game.values_of(name)]
        assert len(values) == 300
        for nth in range(6):
            assert [number for who, number in values if who == nth] == list(range(parity, 100, 2))
    assert them.counted("posts") == 600


def test_a_post_returns_when_it_was_handled(world, owned):
    them, go = owned(), threading.Event()
    for game in them.games:
        game.does["on_post"] = lambda room, value, sender: go.wait(DEADLINE_S)
    member = world.member("lobby")
    done = threading.Event()

    def post():
        member.session.room("lobby").post(1)
        done.set()

    thread = threading.Thread(target=post)
    thread.start()
    them.wait_call("on_post", "lobby", 1)
    assert not done.wait(0.05)
    go.set()
    assert done.wait(DEADLINE_S)
    thread.join()


def test_an_exception_ends_only_its_call_and_the_post_was_handled(world, owned, caplog):
    them = owned()

    def fail(room, value, sender):
        raise {"error": ValueError, "exit": SystemExit, "interrupt": KeyboardInterrupt}.get(value, Ellipsis)(value)

    for game in them.games:
        game.does["on_post"] = lambda *call: None if call[1] == "good" else fail(*call)
    room = world.member("lobby").session.room("lobby")
    for value in ("error", "good", "exit", "good", "interrupt", "good"):
        room.post(value)
    assert them.owner("lobby").values_of("lobby") == ["error", "good", "exit", "good", "interrupt", "good"]
    assert them.counted("handler_errors") == 3
    assert "Game.on_post failed in room 'lobby'" in caplog.text


def test_a_failed_start_is_followed_by_posts_and_the_end(world, owned, caplog):
    them = owned()

    def fail(room):
        raise RuntimeError("on purpose")

    for game in them.games:
        game.does["on_room_start"] = game.does["on_room_end"] = fail
    member = world.member("lobby")
    member.session.room("lobby").post(1)
    member.session.room("lobby").leave()
    them.wait_free("lobby")
    assert [call[0] for call in them.calls()] == ["on_room_start", "on_post", "on_room_end"]
    assert them.counted("handler_errors") == 2


def test_a_room_that_blocks_holds_up_no_other(world, owned):
    them, go = owned(), threading.Event()
    for game in them.games:
        game.does["on_post"] = lambda room, value, sender: value != "block" or go.wait(DEADLINE_S)
    members = [world.member(f"room-{nth}") for nth in range(6)]
    for nth in range(3):
        members[nth].session.room(f"room-{nth}").post("block", wait=False)
    for nth in range(3, 6):
        for number in range(10):
            members[nth].session.room(f"room-{nth}").post(number)
    assert not any(("on_post", f"room-{nth}", 0) in [call[:3] for call in them.calls()] for nth in range(3))
    go.set()


def test_posts_that_wait_when_the_last_member_leaves_are_handled_before_the_end(world, owned):
    them, go = owned(), threading.Event()
    for game in them.games:
        game.does["on_post"] = lambda room, value, sender: value or go.wait(DEADLINE_S)
    member = world.member("lobby")
    room = member.session.room("lobby")
    for number in range(50):
        room.post(number, wait=False)
    them.wait_call("on_post", "lobby", 0)
    room.leave()
    with pytest.raises(PostError, match="the room has no members"):
        room.post("too late")
    go.set()
    them.wait_free("lobby")
    assert [value for game in them.games for value in game.values_of("lobby")] == list(range(50))
    assert them.calls()[-1] == ("on_room_end", "lobby")


def test_a_member_that_comes_during_on_room_end_begins_anew(world, owned):
    them, ending, go = owned(), threading.Event(), threading.Event()

    def end(room):
        if not ending.is_set():
            ending.set()
            assert go.wait(DEADLINE_S)

    for game in them.games:
        game.does["on_room_end"] = end
    first = world.member("lobby")
    first.session.room("lobby").post("one")
    first.session.room("lobby").leave()
    assert ending.wait(DEADLINE_S)
    second = world.member("lobby")
    second.session.room("lobby").post("two", wait=False)
    go.set()
    second.session.room("lobby").post("three")
    second.session.room("lobby").leave()
    them.wait_free("lobby")
    assert sorted(call[:3] for call in them.calls()) == sorted(
        [
            ("on_room_start", "lobby"),
            ("on_post", "lobby", "one"),
            ("on_room_end", "lobby"),
            ("on_room_start", "lobby"),
            ("on_post", "lobby", "two"),
            ("on_post", "lobby", "three"),
            ("on_room_end", "lobby"),
        ]
    )
    (_, one), (_, two) = sorted((fence for game in them.games for fence in game.fences), key=lambda fence: fence[1])
    assert one < two


def test_a_hook_that_posts_does_not_wait(world, owned):
    them = owned(threads=1)

    def post(room, value, sender):
        if value == "to itself":
            room.post("from itself")
            world.rooms.room("other").post("to another")

    for game in them.games:
        game.does["on_post"] = post
        game.does["on_room_start"] = lambda room: room.post("begun")
    world.member("other")
    room = world.member("lobby").session.room("lobby")
    them.wait_call("on_post", "lobby", "begun", None)
    room.post("to itself")
    them.wait_call("on_post", "lobby", "from itself", None)
    them.wait_call("on_post", "other", "to another", None)
    assert them.owner("lobby").values_of("lobby") == ["begun", "to itself", "from itself"]


def test_a_hook_that_posts_where_nobody_is_gets_the_error(world, owned, caplog):
    them = owned()
    for game in them.games:
        game.does["on_post"] = lambda room, value, sender: world.rooms.room("nowhere").post(1)
    world.member("lobby").session.room("lobby").post(1)
    wait_until(lambda: "the post to the room 'nowhere' was refused: the room has no members" in caplog.text)
    if len(them.games) == 1:  # else it is known only later, and is no exception
        wait_until(lambda: them.counted("handler_errors") == 1, "the count of what is in the log")


def test_members_join_and_leave_within_the_hooks(world, owned):
    them = owned()
    member, other = world.member(), world.member("lobby")

    def post(room, value, sender):
        getattr(member.session.room(value[0]), value[1])()

    for game in them.games:
        game.does["on_post"] = post
        game.does["on_room_end"] = lambda room: room.name == "lobby" or world.rooms.room("lobby").post(["x", "leave"])
    room = other.session.room("lobby")
    for value in (["side", "join"], ["lobby", "join"], ["side", "leave"], ["lobby", "leave"]):
        room.post(value)
    them.wait_call("on_room_start", "side")
    them.wait_call("on_room_end", "side")
    them.wait_call("on_post", "lobby", ["x", "leave"])
    room.leave()
    them.wait_free("lobby")
    them.wait_free("side")


def test_the_last_member_may_be_removed_by_a_hook(world, owned):
    them = owned()
    member = world.member("lobby")
    for game in them.games:
        game.does["on_post"] = lambda room, value, sender: member.session.room("lobby").leave()
    member.session.room("lobby").post(1)
    them.wait_call("on_room_end", "lobby")
    them.wait_free("lobby")


def test_no_more_posts_wait_in_a_room_than_there_may(world, owned, monkeypatch):
    monkeypatch.setattr("wsthreads.rooms.ownership.MAX_POSTS_WAITING", 20)
    monkeypatch.setattr("wsthreads.rooms.posts.MAX_POSTS_WAITING", 20)
    them, go = owned(), threading.Event()
    for game in them.games:
        game.does["on_post"] = lambda room, value, sender: go.wait(DEADLINE_S)
    room = world.member("lobby").session.room("lobby")
    room.post("first", wait=False)
    them.wait_call("on_post", "lobby", "first")
    for number in range(20):
        room.post(number, wait=False)
    with pytest.raises(PostError, match="20 posts wait already, which is the limit"):
        room.post("one more")
    (owner,) = [each for each in them.ownerships if "lobby" in each.states()]
    for each in them.ownerships:  # some may still be on their way to the owner
        wait_until(lambda each=each: owner.states()["lobby"].posts_waiting + each.posts_elsewhere("lobby") == 20)
    go.set()
    wait_until(lambda: len(them.owner("lobby").values_of("lobby")) == 21)
    room.post("room again")


def test_joins_and_leaves_at_random_never_mix_up_the_calls(world, owned, seed):
    them = owned()
    members = [world.member() for _ in range(6)]
    lost = []

    def run(nth):
        rng = random.Random(seed + nth)

        def act():
            for number in range(60):
                room = members[nth].session.room(f"room-{rng.randrange(3)}")
                action = rng.randrange(4)
                if action == 0:
                    room.join()
                elif action == 1:
                    room.leave()
                else:
                    try:
                        room.post([nth, number], wait=action == 2)
                    except PostError:  # nobody is in it
                        lost.append([nth, number])
            for name in members[nth].session.rooms():
                members[nth].session.room(name).leave()

        return act

    run_all(*(run(nth) for nth in range(6)))
    for nth in range(3):
        them.wait_free(f"room-{nth}")
    for game in them.games:
        for nth in range(3):
            life = "".join(
                {"on_room_start": "(", "on_post": ".", "on_room_end": ")"}[hook]
                for hook in game.hooks_of(f"room-{nth}")
            )
            assert re.fullmatch(r"(\(\.*\))*", life), "each life has its start, its posts, its end"
    handled = [value for game in them.games for value in game.posted()]
    assert len({tuple(value) for value in handled}) == len(handled), "none twice"
    assert not [value for value in handled if value in lost], "one that was refused was not handled"


def test_at_the_end_all_rooms_have_their_on_room_end(world, owned):
    them = owned()
    for nth in range(30):
        world.member(f"room-{nth}")
    for nth in range(30):
        them.owner(f"room-{nth}")
    for ownership in them.ownerships:
        ownership.stop(DEADLINE_S)
    calls = them.calls()
    for nth in range(30):
        assert ("on_room_end", f"room-{nth}") in calls
        with pytest.raises(PostError):
            world.rooms.room(f"room-{nth}").post(1)
    before = len(calls)
    world.member("a new room")
    assert len(them.calls()) == before
