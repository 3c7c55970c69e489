"""Rooms: membership, order, and the races between joining, leaving and broadcasting."""

import random
import socket
import sys
import threading
from contextlib import nullcontext

import pytest

import wsthreads.outbox
import wsthreads.rooms
from tests.programs import DEADLINE_S, wait_until
from tests.wire import RawClient, Recorder, endpoint, parse_frames, run_all, thread_names
from wsthreads import MessageTypeError, RoomLimitError, RoomNameError
from wsthreads.drainer import Drainer
from wsthreads.flusher import Flusher
from wsthreads.handshake import Request
from wsthreads.outbox import Outbox
from wsthreads.rooms import Rooms
from wsthreads.session import Session
from wsthreads.transport import PlainTransport


class Member:
    """A session over a socketpair, without a server."""

    def __init__(self, rooms, flusher):
        self.ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(DEADLINE_S)
        self.closing = self.subprotocol = None
        self.outbox = Outbox(
            PlainTransport(self.ours), flusher, max_bytes=2**30, timeout_s=DEADLINE_S, on_stuck=lambda reason: None
        )
        self.session = Session(f"member-{id(self)}", Request({}), self, rooms)
        self.data = b""

    def receive(self, count):
        found = []
        while len(found) < count:
            frames, self.data = parse_frames(self.data, count - len(found))
            found += [payload.decode() for _, payload in frames]
            if len(found) < count:
                piece = self.theirs.recv(1 << 18)
                assert piece
                self.data += piece
        return found

    def receive_until(self, last):
        found = []
        while not found or found[-1] != last:
            found += self.receive(1)
        return found


class World:
    def __init__(self):
        self.flusher, self.drainer, self.members = Flusher(), Drainer(), []
        self.flusher.start()
        self.rooms = Rooms(self.drainer, max_name_chars=256, max_per_session=1000)

    def member(self, *rooms):
        member = Member(self.rooms, self.flusher)
        self.members.append(member)
        for room in rooms:
            member.session.room(room).join()
        return member

    def end(self):
        for member in self.members:
            member.outbox.detach()
            member.ours.close()
            member.theirs.close()
        self.drainer.stop(DEADLINE_S)
        self.flusher.stop(DEADLINE_S)


@pytest.fixture
def world():
    world = World()
    yield world
    world.end()


@pytest.fixture
def seed():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns much more often, so that races are met
    yield seed
    sys.setswitchinterval(interval)


def test_a_room_is_there_from_its_first_join_to_its_last_leave(world):
    a, b = world.member(), world.member()
    room = a.session.room("lobby")
    assert room.name == "lobby"
    assert room.members() == 0
    assert len(world.rooms) == 0, "a handle makes no room"
    room.join()
    b.session.room("lobby").join()
    assert room.members() == 2
    assert world.rooms.names() == ["lobby"]
    assert set(world.rooms.sessions("lobby")) == {a.session, b.session}
    room.leave()
    assert world.rooms.count("lobby") == 1
    b.session.room("lobby").leave()
    assert len(world.rooms) == 0
    assert world.rooms.sessions("lobby") == []
    world.rooms._check()


def test_join_and_leave_are_idempotent(world):
    a = world.member("lobby", "lobby")
    assert a.session.room("lobby").members() == 1
    a.session.room("other").leave()
    a.session.room("lobby").leave()
    a.session.room("lobby").leave()
    assert a.session.rooms() == []
    a.session.room("lobby").join()
    assert a.session.rooms() == ["lobby"]
    world.rooms._check()


def test_a_broadcast_reaches_all_members_and_the_sender_only_if_it_is_one(world):
    a, b, outside = world.member("lobby"), world.member("lobby"), world.member("other")
    a.session.room("lobby").broadcast("from a")
    outside.session.room("lobby").broadcast("from outside")
    world.rooms.room("lobby").broadcast(b"from the server")
    for member in (a, b):
        assert member.receive(3) == ["from a", "from outside", "from the server"]
    outside.session.room("other").broadcast("own")
    assert outside.receive(1) == ["own"]


def test_who_joins_gets_all_that_is_broadcast_from_then_on_and_nothing_from_before(world):
    members = [world.member("lobby")]
    for n in range(5):
        members[0].session.room("lobby").broadcast(f"{n}")
        members.append(world.member("lobby"))
    members[0].session.room("lobby").broadcast("end")
    for n, member in enumerate(members):
        assert member.receive_until("end") == [*map(str, range(n, 5)), "end"]


def test_broadcast_except_leaves_out_the_sender(world):
    a, b, outside = world.member("lobby"), world.member("lobby"), world.member()
    a.session.room("lobby").broadcast_except("from a")
    outside.session.room("lobby").broadcast_except("from outside")
    a.session.room("lobby").broadcast("end")
    assert a.receive(2) == ["from outside", "end"]
    assert b.receive(3) == ["from a", "from outside", "end"]


def test_a_broadcast_to_a_room_that_nobody_is_in_does_nothing(world):
    world.rooms.room("empty").broadcast("anybody?")
    world.member().session.room("empty").broadcast_except("anybody?")
    assert len(world.rooms) == 0


def test_broadcast_and_send_of_one_thread_arrive_in_the_order_of_the_calls(world):
    a = world.member("lobby")
    for n in range(200):
        a.session.room("lobby").broadcast(f"{n} a")
        a.session.send(f"{n} b")
    assert a.receive(400) == [f"{n} {which}" for n in range(200) for which in "ab"]


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
    names = ["x" * 256, "😀", "a b\n\0", "__proto__", "\ud800"]
    a = world.member(*names)
    assert a.session.rooms() == sorted(names)


def test_one_room_too_many_is_refused_with_the_limit_and_the_name(world):
    rooms = Rooms(world.drainer, max_name_chars=256, max_per_session=2)
    world.rooms = rooms
    a = world.member("a", "b")
    a.session.room("a").join()
    with pytest.raises(RoomLimitError, match="in 2 rooms, 'c' would be one more"):
        a.session.room("c").join()
    assert rooms.names() == ["a", "b"]
    a.session.room("a").leave()
    a.session.room("c").join()
    rooms._check()


def test_a_message_of_the_wrong_type_is_refused_even_where_nobody_hears_it(world):
    for send in (world.rooms.room("x").broadcast, world.member().session.room("x").broadcast_except):
        with pytest.raises(MessageTypeError, match="not dict"):
            send({"a": 1})


def test_leave_all_ends_every_membership_for_good(world):
    a, b = world.member("one", "two"), world.member("two")
    world.rooms.leave_all(a.session)
    world.rooms.leave_all(a.session)
    a.session.room("one").join()
    assert a.session.rooms() == []
    assert world.rooms.names() == ["two"]
    assert b.session.room("two").members() == 1
    world.rooms._check()


def test_leave_waits_for_a_broadcast_that_is_being_queued(world):
    a, b = world.member("lobby"), world.member("lobby")
    members = world.rooms._members.get("lobby")
    with members.order:  # as broadcast holds it
        leaver = threading.Thread(target=a.session.room("lobby").leave)
        leaver.start()
        leaver.join(0.05)
        assert leaver.is_alive()
        assert a.session.rooms() == ["lobby"]
    leaver.join(DEADLINE_S)
    assert not leaver.is_alive()
    b.session.room("lobby").broadcast("after")
    a.session.send("end")
    assert a.receive(1) == ["end"], "a message of the room came after leave had returned"
    assert b.receive(1) == ["after"]


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
                    other.receive(1)

    def come_and_go():
        room = member.session.room("lobby")
        for n in range(300):
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
        for k in range(400):
            room = member.session.room(f"room {dice.randrange(2)}")
            room.join()
            assert member.session in world.rooms.sessions(room.name)
            assert room.members() >= 1
            if k % 20 == 0:
                room.broadcast(f"{n} {k}")
                member.receive_until(f"{n} {k}")
            room.leave()
            assert member.session not in world.rooms.sessions(room.name)

    for member in members:
        member.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    run_all(*[lambda n=n: come_and_go(n) for n in range(len(members))])
    world.rooms._check()
    assert len(world.rooms) == 0


def test_a_session_that_ends_while_it_joins_leaves_no_ghost(world, seed):
    for n in range(200):
        member, barrier = world.member(), threading.Barrier(3)
        names = [f"{n} {k}" for k in range(5)]

        def join(member=member, barrier=barrier, names=names):
            barrier.wait(DEADLINE_S)
            for name in names:
                member.session.room(name).join()

        def end(member=member, barrier=barrier):
            barrier.wait(DEADLINE_S)
            world.rooms.leave_all(member.session)

        run_all(join, join, end)
        assert len(world.rooms) == 0
        assert member.session.rooms() == []
        member.outbox.detach()
        member.ours.close()
        member.theirs.close()
    world.rooms._check()


def test_a_broadcast_does_not_wait_for_a_member_that_does_not_read(world):
    slow, quick = world.member("lobby"), world.member("lobby")
    for n in range(200):
        world.rooms.room("lobby").broadcast("x" * 10_000)
        assert len(quick.receive(1)[0]) == 10_000, n
    assert slow.outbox.is_blocked


def test_rooms_of_different_endpoints_have_nothing_to_do_with_each_other():
    class Joins(Recorder):
        def on_open(self, session):
            session.room("lobby").join()
            super().on_open(session)

    one, two = Joins(), Joins()
    with endpoint(one) as (app, port):
        app.add_handler("/ws/two", two)
        with RawClient(port) as a, RawClient(port, "/ws/two") as b:
            one.session()
            two.session()
            app.endpoint("/ws/test").room("lobby").broadcast("one")
            app.endpoint("/ws/two").room("lobby").broadcast("two")
            assert a.receive_text() == "one"
            assert b.receive_text() == "two"


def test_the_drainer_goes_on_with_a_step_until_it_is_done_and_ends_when_it_is_told_to():
    drainer, calls, done = Drainer(), [], threading.Event()

    def step():
        calls.append(1)
        if len(calls) == 3:
            done.set()
        return len(calls) < 3

    assert "wsthreads-drainer" not in thread_names()
    drainer.go_on(lambda: 1 / 0)
    drainer.go_on(step)
    assert done.wait(DEADLINE_S)
    drainer.stop(DEADLINE_S)
    drainer.stop(DEADLINE_S)
    assert calls == [1, 1, 1]
    wait_until(lambda: "wsthreads-drainer" not in thread_names(), "the end of the thread")


class Held:
    """A drainer that does its steps when the test says so."""

    def __init__(self):
        self.steps = []

    def go_on(self, step):
        self.steps.append(step)

    def run(self):
        steps, self.steps = self.steps, []
        for step in steps:
            if step():
                self.go_on(step)


def test_a_broadcast_is_sent_by_its_thread_unless_it_is_handed_over(world):
    world.rooms._drainer = drainer = Held()
    member = world.member("r")
    member.session.room("r").broadcast("1")
    assert member.receive(1) == ["1"]
    assert drainer.steps == []
    member.session.room("r").broadcast("2", hand_over=True)
    member.session.room("r").broadcast_except("not this", hand_over=True)
    assert len(drainer.steps) == 1
    assert list(member.outbox._queue) != []
    drainer.run()
    assert member.receive(1) == ["2"]


def test_while_broadcasts_meet_the_next_ones_are_the_drainers_and_then_no_longer(world):
    world.rooms._drainer = drainer = Held()
    member = world.member("r")
    room = member.session.room("r")
    room.broadcast("0", hand_over=True)
    for number in (1, 2):
        room.broadcast(str(number))
    drainer.run()
    assert member.receive(3) == ["0", "1", "2"]
    for number in (3, 4):  # each meets nobody, which is forgotten one by one
        room.broadcast(str(number))
        assert len(drainer.steps) == 1
        drainer.run()
    room.broadcast("5")
    assert drainer.steps == []
    assert member.receive(3) == ["3", "4", "5"]
    world.rooms._check()


# Faults.


class Fault(BaseException):
    """What no `except Exception` catches."""


def failing(*errors):
    """A function that raises each of these, and then does nothing."""
    left = list(errors)

    def fail(*_):
        if left:
            raise left.pop(0)

    return fail


def test_the_drainer_survives_what_a_step_raises_and_calls_it_again(caplog):
    drainer, calls, done = Drainer(), [], threading.Event()
    fail = failing(Fault("first"), MemoryError("second"))

    def step():
        calls.append(threading.current_thread())
        fail()
        done.set()
        return False

    drainer.go_on(step)
    assert done.wait(DEADLINE_S)
    drainer.stop(DEADLINE_S)
    assert len(calls) == 3
    assert len(set(calls)) == 1
    assert [str(record.exc_info[1]) for record in caplog.records] == ["first", "second"]
    assert all("wsthreads-drainer has failed" in record.getMessage() for record in caplog.records)


def test_a_drainer_with_a_step_that_always_fails_serves_the_others_and_ends(caplog):
    drainer, done = Drainer(), threading.Event()
    drainer.go_on(lambda: 1 / 0)
    drainer.go_on(lambda: done.set() or False)
    assert done.wait(DEADLINE_S)
    drainer.stop(DEADLINE_S)
    wait_until(lambda: "wsthreads-drainer" not in thread_names(), "the end of the thread")


@pytest.mark.parametrize("hand_over", [False, True])
def test_a_broadcast_whose_sending_fails_arrives_once_and_without_another_one(world, monkeypatch, hand_over, caplog):
    member = world.member("r")
    fail, real = failing(MemoryError("injected")), wsthreads.rooms.flush_all

    def flush_all(outboxes):
        fail()
        return real(outboxes)

    monkeypatch.setattr(wsthreads.rooms, "flush_all", flush_all)
    with nullcontext() if hand_over else pytest.raises(MemoryError, match="injected"):
        member.session.room("r").broadcast("1", hand_over=hand_over)
    assert member.receive(1) == ["1"]
    member.session.room("r").broadcast("2")
    assert member.receive(1) == ["2"]
    world.rooms._check()


def test_where_sending_to_one_member_fails_it_is_cut_off_and_the_others_get_everything(world, monkeypatch):
    members = [world.member("r") for _ in range(3)]
    unlucky = members[1]
    monkeypatch.setattr(wsthreads.outbox, "send_queues", wsthreads.outbox._send_queues)
    unlucky.outbox._transport = Unwritable(unlucky.outbox._transport)
    with pytest.raises(MemoryError):
        members[0].session.room("r").broadcast("1")
    for member in (members[0], members[2]):
        assert member.receive(1) == ["1"]
    assert unlucky.theirs.recv(1) == b""
    members[0].session.room("r").broadcast("2")
    assert members[2].receive(1) == ["2"]


class Unwritable:
    """A transport that has no memory for writing."""

    def __init__(self, transport):
        self.fileno, self.abort, self.plain_fd = transport.fileno, transport.abort, transport.plain_fd

    def send(self, data):
        raise MemoryError
