"""What all rooms promise: those of one process, and those that Redis joins. Membership, order, and the races.

With Redis, members are by turns in two processes, as far as Redis can tell.
"""

import random
import socket
import threading

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.room_worlds import world_of
from tests.wire import run_all
from wsthreads import MessageTypeError, RoomLimitError, RoomNameError


@pytest.fixture(params=["local", "redis"])
def world(request):
    world = world_of(request)
    yield world
    world.end()


def assert_count(room, count):
    """Those in another process may take a moment to be counted."""
    wait_until(lambda: room.members() == count, f"{count} members, and not {room.members()}")


def here(world):
    """The names of the rooms that have members in a process."""
    return sorted({name for rooms in world.all_rooms for name in rooms.names()})


def check(world):
    for rooms in world.all_rooms:
        rooms._check()


def test_a_room_is_there_from_its_first_join_to_its_last_leave(world):
    a, b = world.member(), world.member()
    room = a.session.room("lobby")
    assert room.name == "lobby"
    assert room.members() == 0
    assert here(world) == [], "a handle makes no room"
    room.join()
    assert room.members() == 1
    assert b.session.room("lobby").members() == 1
    b.session.room("lobby").join()
    assert b.session.room("lobby").members() == 2
    assert_count(room, 2)
    assert here(world) == ["lobby"]
    assert {session for rooms in world.all_rooms for session in rooms.sessions("lobby")} == {a.session, b.session}
    room.leave()
    assert_count(room, 1)
    assert_count(b.session.room("lobby"), 1)
    b.session.room("lobby").leave()
    assert here(world) == []
    assert_count(room, 0)
    check(world)


def test_join_and_leave_are_idempotent(world):
    a = world.member("lobby", "lobby")
    room = a.session.room("lobby")
    assert room.members() == 1
    a.session.room("other").leave()
    room.leave()
    room.leave()
    assert a.session.rooms() == []
    assert_count(room, 0)
    room.join()
    assert room.members() == 1
    room.broadcast("once")
    room.broadcast("end")
    assert a.receive_until("end") == ["once", "end"]
    check(world)


def test_a_broadcast_reaches_all_members_and_the_sender_only_if_it_is_one(world):
    a, b, outside = world.member("lobby"), world.member("lobby"), world.member("other")
    for say, text in [
        (a.session.room("lobby").broadcast, "from a"),
        (outside.session.room("lobby").broadcast, "from outside"),
        (world.rooms.room("lobby").broadcast, "from the server"),
    ]:
        say(text)
        assert [a.receive(1), b.receive(1)] == [[text], [text]]
    world.rooms.room("lobby").broadcast(b"bytes")
    assert [a.receive(1), b.receive(1)] == [["bytes"], ["bytes"]]
    outside.session.room("other").broadcast("own")
    assert outside.receive(1) == ["own"]


def test_who_joins_gets_all_that_is_broadcast_from_then_on_and_nothing_from_before(world):
    members = [world.member("lobby")]
    for n in range(6):
        members[0].session.room("lobby").broadcast(f"{n}")
        assert [member.receive(1) for member in members] == [[f"{n}"]] * len(members)
        members.append(world.member("lobby"))
    members[0].session.room("lobby").broadcast("end")
    assert [member.receive(1) for member in members] == [["end"]] * len(members)


def test_broadcast_except_leaves_out_the_sender(world):
    a, b, outside = world.member("lobby"), world.member("lobby"), world.member()
    a.session.room("lobby").broadcast_except("from a")
    assert b.receive(1) == ["from a"]
    outside.session.room("lobby").broadcast_except("from outside")
    assert [a.receive(1), b.receive(1)] == [["from outside"], ["from outside"]]
    a.session.room("lobby").broadcast("end")
    assert [a.receive(1), b.receive(1)] == [["end"], ["end"]]


def test_a_broadcast_to_a_room_that_nobody_is_in_does_nothing(world):
    world.rooms.room("empty").broadcast("anybody?")
    late = world.member()
    late.session.room("empty").broadcast_except("anybody?")
    late.session.room("empty").broadcast("anybody?")
    assert here(world) == []
    late.session.room("empty").join()
    late.session.send("end")
    assert late.receive(1) == ["end"], "what the same thread broadcast before the join"


def test_broadcast_and_send_of_one_thread_arrive_in_the_order_of_the_calls(world):
    a = world.member("lobby")
    for n in range(200):
        a.session.room("lobby").broadcast(f"{n} a")
        assert a.session.send(f"{n} b")
    assert a.receive(400) == [f"{n} {which}" for n in range(200) for which in "ab"]


def test_a_send_to_another_member_of_the_process_does_not_overtake_a_broadcast(world):
    a, b = (world.member("lobby", of=world.rooms) for _ in range(2))
    for n in range(200):
        a.session.room("lobby").broadcast_except(f"{n} a")
        b.session.send(f"{n} b")
    assert b.receive(400) == [f"{n} {which}" for n in range(200) for which in "ab"]


def test_broadcasts_of_one_thread_to_several_rooms_arrive_in_the_order_of_the_calls(world):
    a = world.member("one", "two")
    for n in range(200):
        a.session.room(("one", "two")[n % 2]).broadcast(f"{n}")
    assert a.receive(200) == [f"{n}" for n in range(200)]


def test_who_broadcasts_and_leaves_or_closes_has_its_own_broadcast(world):
    a, b = world.member("lobby"), world.member("lobby")
    a.session.room("lobby").broadcast("bye")
    a.session.room("lobby").leave()
    a.session.send("left")
    assert a.receive(2) == ["bye", "left"]
    b.session.room("lobby").broadcast("closing")
    b.session.close()
    assert b.receive_until("closing") == ["bye", "closing"]


def test_a_send_does_not_wait_for_a_broadcast_that_nobody_here_is_to_get_any_more(world):
    """As a script's thread does it: onClose broadcasts, and the connection's own thread ends the membership."""
    a, b = world.member("lobby", of=world.rooms), world.member(of=world.rooms)
    for n in range(50):
        a.session.room("lobby").broadcast(f"{n}")
        leaver = threading.Thread(target=a.session.room("lobby").leave)
        leaver.start()
        b.session.send(f"{n}")
        assert b.receive(1) == [f"{n}"]
        leaver.join(DEADLINE_S)
        a.session.room("lobby").join()


@pytest.mark.parametrize("others", [0, 1, 2])
def test_who_leaves_broadcasts_and_joins_again_does_not_get_it(world, others):
    a = world.member("lobby", of=world.rooms)
    for rooms in world.all_rooms[::-1][:others]:
        world.member("lobby", of=rooms)
    room = a.session.room("lobby")
    for n in range(50):
        room.leave()
        room.broadcast(f"{n} left")
        room.join()
        room.broadcast(f"{n} joined")
        assert a.receive_until(f"{n} joined") == [f"{n} joined"]


@pytest.mark.parametrize(("name", "text"), [("", "this one has 0"), ("x" * 257, "this one has 257")])
def test_a_room_name_that_is_too_short_or_too_long_is_refused_with_the_limit(world, name, text):
    a = world.member()
    for make in (a.session.room, world.rooms.room):
        with pytest.raises(RoomNameError, match=f"1 to 256 characters, {text}"):
            make(name)


@pytest.mark.parametrize("name", [None, 3, b"lobby"])
def test_a_room_name_that_is_no_text_is_refused_with_its_type(world, name):
    with pytest.raises(RoomNameError, match=f"text of 1 to 256 characters, not {type(name).__name__}"):
        world.rooms.room(name)


def test_any_text_of_legal_length_names_a_room(world):
    names = ["x" * 256, "😀", "a b\n\0", "__proto__", "a:b", "{a}", "\ud800"]
    a, b = world.member(*names), world.member(*names)
    assert a.session.rooms() == sorted(names)
    for name in names:
        a.session.room(name).broadcast(f"to {name!r}")
        assert b.receive(1) == [f"to {name!r}"]
        assert b.session.room(name).members() == 2


def test_one_room_too_many_is_refused_with_the_limit_and_the_name(world):
    world.rooms._max_per_session = 2
    a = world.member("a", "b", of=world.rooms)
    a.session.room("a").join()
    with pytest.raises(RoomLimitError, match="in at most 2 rooms; 'c' is one more"):
        a.session.room("c").join()
    assert here(world) == ["a", "b"]
    assert a.session.room("c").members() == 0
    a.session.room("a").leave()
    a.session.room("c").join()
    check(world)


def test_a_message_of_the_wrong_type_is_refused_even_where_nobody_hears_it(world):
    for send in (world.rooms.room("x").broadcast, world.member().session.room("x").broadcast_except):
        with pytest.raises(MessageTypeError, match="not dict"):
            send({"a": 1})


def test_leave_all_ends_every_membership_for_good(world):
    a, b = world.member("one", "two"), world.member("two")
    a.session._rooms.leave_all(a.session)
    a.session._rooms.leave_all(a.session)
    a.session.room("one").join()
    assert a.session.rooms() == []
    assert here(world) == ["two"]
    assert_count(b.session.room("two"), 1)
    assert_count(b.session.room("one"), 0)
    check(world)


def test_nothing_of_a_room_follows_once_leave_has_returned(world, seed):
    member, stop = world.member(), threading.Event()
    others = [world.member("lobby") for _ in range(2)]

    def broadcast():
        n = 0
        while not stop.is_set():
            world.rooms.room("lobby").broadcast(f"room {n}")
            n += 1
            if n % 100 == 0:
                for other in others:
                    other.receive(100)

    def come_and_go():
        room = member.session.room("lobby")
        for n in range(100):
            room.join()
            room.leave()
            member.session.send(f"left {n}")
            joined = member.receive_until(f"left {n}")
            member.session.send(f"out {n}")
            assert member.receive(1) == [f"out {n}"], joined
        stop.set()

    for other in others:
        other.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    try:
        run_all(broadcast, come_and_go)
    finally:
        stop.set()


def test_every_member_sees_the_broadcasts_of_four_threads_in_one_order(world, seed):
    members = [world.member("lobby") for _ in range(12)]
    each = 250

    def broadcast(n):
        for k in range(each):
            members[n].session.room("lobby").broadcast(f"{n} {k}")

    seen = [None] * len(members)

    def read(n):
        seen[n] = members[n].receive(4 * each)

    run_all(*[lambda n=n: broadcast(n) for n in range(4)], *[lambda n=n: read(n) for n in range(len(members))])
    assert all(order == seen[0] for order in seen)
    for n in range(4):
        assert [line for line in seen[0] if line.startswith(f"{n} ")] == [f"{n} {k}" for k in range(each)]


def test_no_broadcast_is_forgotten_at_the_end_of_a_burst(world, seed):
    """Who finds somebody sending only queues: whoever sends must look again before it stops."""
    members = [world.member("lobby") for _ in range(3)]
    for n in range(150):
        barrier = threading.Barrier(3)

        def burst(k, n=n, barrier=barrier):
            barrier.wait(DEADLINE_S)
            members[k].session.room("lobby").broadcast(f"{n} {k}")

        run_all(*[lambda k=k, burst=burst: burst(k) for k in range(3)])
        orders = [member.receive(3) for member in members]
        assert orders[0] == orders[1] == orders[2]
        assert sorted(orders[0]) == [f"{n} {k}" for k in range(3)]


def test_who_joins_while_the_last_member_leaves_is_in_the_room_that_others_reach(world, seed):
    members = [world.member() for _ in range(6)]

    def come_and_go(n):
        dice, member = random.Random(seed + n), members[n]
        for k in range(200):
            room = member.session.room(f"room {dice.randrange(2)}")
            room.join()
            assert member.session in member.session._rooms.sessions(room.name)
            if k % 20 == 0:
                assert room.members() >= 1
                room.broadcast(f"{n} {k}")
                member.receive_until(f"{n} {k}")
            room.leave()
            assert member.session not in member.session._rooms.sessions(room.name)

    for member in members:
        member.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    run_all(*[lambda n=n: come_and_go(n) for n in range(len(members))])
    check(world)
    assert here(world) == []
    for name in ("room 0", "room 1"):
        assert_count(world.rooms.room(name), 0)


def test_a_session_that_ends_while_it_joins_leaves_no_ghost(world, seed):
    for n in range(40):
        member, barrier = world.member(), threading.Barrier(3)
        names = [f"{n} {k}" for k in range(5)]

        def join(member=member, barrier=barrier, names=names):
            barrier.wait(DEADLINE_S)
            for name in names:
                member.session.room(name).join()

        def end(member=member, barrier=barrier):
            barrier.wait(DEADLINE_S)
            member.session._rooms.leave_all(member.session)

        run_all(join, join, end)
        assert here(world) == []
        assert member.session.rooms() == []
        member.end()
    check(world)


def test_a_broadcast_does_not_wait_for_a_member_that_does_not_read(world):
    slow, quick = world.member("lobby"), world.member("lobby")
    for n in range(200):
        world.rooms.room("lobby").broadcast("x" * 10_000)
        assert len(quick.receive(1)[0]) == 10_000, n
    wait_until(lambda: slow.outbox.is_blocked, "the kernel's being full")


# A session that gets another connection


def test_rooms_and_sends_reach_a_session_over_each_of_its_connections(world):
    a, b = world.member("r", "s", of=world.rooms), world.member("r", of=world.rooms)
    a.channel.keep()
    b.session.room("r").broadcast("before")
    assert a.receive(1) == b.receive(1) == ["before"]
    a.leave()
    a.come_back(1)
    b.session.room("r").broadcast("after")
    b.session.room("s").broadcast("to the other room")
    a.session.send("sent")
    assert sorted(a.receive(3)) == ["after", "sent", "to the other room"]
    assert b.receive(1) == ["after"]
    assert a.session.rooms() == ["r", "s"]
    assert a.session.is_open()


def test_what_is_sent_to_a_session_without_a_connection_waits_for_the_next(world):
    a, b = world.member("r", of=world.rooms), world.member("r", of=world.rooms)
    a.channel.keep()
    b.session.room("r").broadcast("seen")
    assert a.receive(1) == b.receive(1) == ["seen"]
    b.session.room("r").broadcast("not seen")
    assert b.receive(1) == ["not seen"]
    a.leave()
    b.session.room("r").broadcast_except("from b")
    a.session.room("r").broadcast_except("to others")
    assert a.session.room("new").join().joined
    a.session.room("new").broadcast("joined")
    assert b.receive(1) == ["to others"]
    wait_until(lambda: a.outbox.bytes_waiting >= sum(map(len, ("from b", "joined"))), "both wait")
    a.come_back(1)
    assert a.receive(3) == ["not seen", "from b", "joined"]
    world.rooms.leave_all(a.session)
    b.session.room("r").broadcast("last")
    assert b.receive(1) == ["last"]
    world.rooms._check()


def test_each_broadcast_comes_once_and_in_order_over_however_many_connections(world, seed):
    """While another thread broadcasts, a member loses its connection over and over."""
    dice = random.Random(seed)
    a, b = world.member("r", of=world.rooms), world.member("r", of=world.rooms)
    a.channel.keep()
    wanted = [str(number) for number in range(1000)] + ["end"]
    halfway = threading.Event()

    def broadcast():
        for number, text in enumerate(wanted):
            b.session.room("r").broadcast(text)
            if number == 100:
                halfway.set()

    broadcaster = threading.Thread(target=broadcast)
    broadcaster.start()
    assert halfway.wait(DEADLINE_S)
    received = []
    for _ in range(20):
        received += a.receive(dice.randrange(30))
        a.leave()
        threading.Event().wait(dice.random() / 500)
        a.come_back(len(received))
    broadcaster.join(DEADLINE_S)
    assert b.receive(len(wanted)) == wanted
    assert received + a.receive(len(wanted) - len(received)) == wanted
    assert a.channel.receive_rest() == []
    world.rooms._check()
