"""Rooms of one process, where they differ from what `test_rooms_contract` holds all rooms to: locks, and who sends."""

import threading
from contextlib import nullcontext

import pytest

import wsthreads.protocol.fanout
import wsthreads.protocol.outbox
import wsthreads.protocol.writer_threads
import wsthreads.rooms.sending
from tests.programs import DEADLINE_S
from tests.room_worlds import World
from tests.wire import RawClient, Recorder, endpoint
from wsthreads.protocol.fanout import flush_all
from wsthreads.protocol.frames import message_frame
from wsthreads.threads.drainer import Drainer


@pytest.fixture
def world():
    world = World()
    yield world
    world.end()


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

    assert drainer._thread is None, "it starts with the first step"
    drainer.go_on(lambda: 1 / 0)
    thread = drainer._thread
    drainer.go_on(step)
    assert done.wait(DEADLINE_S)
    drainer.stop(DEADLINE_S)
    drainer.stop(DEADLINE_S)
    assert calls == [1, 1, 1]
    assert not thread.is_alive()


def test_a_step_that_pauses_holds_no_other_step_up():
    drainer, done = Drainer(), threading.Event()
    drainer.go_on(lambda: drainer.go_on(done.set) or drainer.pause(10 * DEADLINE_S))
    assert done.wait(DEADLINE_S)
    drainer.stop(DEADLINE_S)


class Held:
    """A drainer that does its steps when the test says so. During a pause, it calls `meanwhile`."""

    def __init__(self, meanwhile=None):
        self.steps = []
        self.meanwhile = meanwhile

    def go_on(self, step):
        self.steps.append(step)

    def pause(self, seconds):
        self.meanwhile()

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


@pytest.mark.parametrize("meeting", [1, 2])
def test_a_broadcaster_sends_what_others_broadcast_meanwhile_but_not_for_ever(world, monkeypatch, meeting):
    world.rooms._drainer = drainer = Held()
    member = world.member("r")
    others = [str(number) for number in range(1, meeting + 1)]
    waiting = list(others)

    def meet(outboxes):
        if outboxes and waiting:
            world.rooms.broadcast("r", message_frame(waiting.pop(0)))
        return flush_all(outboxes)

    monkeypatch.setattr("wsthreads.protocol.writer_threads.flush_all", meet)
    world.rooms.broadcast("r", message_frame("0"))
    assert len(drainer.steps) == meeting - 1
    drainer.run()
    assert member.receive(1 + meeting) == ["0", *others]
    world.rooms._check()


def test_if_fewer_broadcasts_wait_than_last_time_the_drainer_gives_the_others_time(world, monkeypatch):
    monkeypatch.setattr(wsthreads.rooms.sending, "LEAST_MEMBERS", 1)
    waiting, sendings = ["3"], []
    member = world.member("r")
    room = member.session.room("r")
    world.rooms._drainer = drainer = Held(lambda: room.broadcast(waiting.pop()))

    def count(outboxes):
        sendings.append([len(outbox._queue) for outbox in outboxes])
        return flush_all(outboxes)

    monkeypatch.setattr("wsthreads.protocol.writer_threads.flush_all", count)
    for number in (0, 1):
        room.broadcast(str(number), hand_over=True)
    drainer.run()
    room.broadcast("2")
    drainer.run()
    assert drainer.steps == []
    assert [sending for sending in sendings if sending] == [[2], [2]]
    assert member.receive(4) == ["0", "1", "2", "3"]
    room.broadcast("4", hand_over=True)
    monkeypatch.setattr(wsthreads.rooms.sending, "LEAST_MEMBERS", 2)
    drainer.run()
    assert member.receive(1) == ["4"], "it does not pause in a small room"
    world.rooms._check()


def test_what_was_left_to_the_sending_thread_is_sent_although_its_session_leaves_the_room(world, monkeypatch):
    world.rooms._drainer = drainer = Held()
    member, other = world.member("r"), world.member("r")
    late = ["1", "2"]

    def meet(outboxes):
        """While this sends, the session sends in another thread, which finds the lock of the outbox taken."""
        left = flush_all(outboxes)
        if member.outbox not in outboxes or not late:
            return left
        member.session.room("r").leave()
        member.outbox.append(message_frame(late.pop(0)))
        return [*left, member.outbox]

    monkeypatch.setattr("wsthreads.protocol.writer_threads.flush_all", meet)
    other.session.room("r").broadcast("0", hand_over=True)
    while drainer.steps:
        drainer.run()
    assert member.receive(3) == ["0", "1", "2"]
    assert other.receive(1) == ["0"]
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
    thread = drainer._thread
    drainer.stop(DEADLINE_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("hand_over", [False, True])
def test_a_broadcast_whose_sending_fails_arrives_once_and_without_another_one(world, monkeypatch, hand_over, caplog):
    member = world.member("r")
    fail, real = failing(MemoryError("injected")), wsthreads.protocol.writer_threads.flush_all

    def flush_all(outboxes):
        fail()
        return real(outboxes)

    monkeypatch.setattr(wsthreads.protocol.writer_threads, "flush_all", flush_all)
    with nullcontext() if hand_over else pytest.raises(MemoryError, match="injected"):
        member.session.room("r").broadcast("1", hand_over=hand_over)
    assert member.receive(1) == ["1"]
    member.session.room("r").broadcast("2")
    assert member.receive(1) == ["2"]
    world.rooms._check()


def test_where_sending_to_one_member_fails_it_is_cut_off_and_the_others_get_everything(world, monkeypatch):
    members = [world.member("r") for _ in range(3)]
    unlucky = members[1]
    for module in (wsthreads.protocol.outbox, wsthreads.protocol.fanout):
        monkeypatch.setattr(module, "send_queues", wsthreads.protocol.outbox._send_queues)
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
