"""Several threads that write to one room, over real sockets. Here a room of two is a large one."""

import gc
import os
import random
import threading
import weakref
from functools import partial

import pytest

from tests.programs import DEADLINE_S, own_threads, wait_until
from tests.room_worlds import LIMITS, World
from tests.wire import CLOSE, TEXT, Line, RawClient, Recorder, endpoint, open_lines, run_all
from wsthreads import WebSocketApp
from wsthreads.protocol import writer_threads
from wsthreads.protocol.fanout import append_all, flush_all
from wsthreads.protocol.frames import encode_frame
from wsthreads.protocol.writer_threads import WriterThreads, writers_here
from wsthreads.rooms.rooms import Rooms
from wsthreads.threads.flusher import Flusher

WRITERS = 3


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch):
    """Rooms of two are large, parts have one member, and also the Python twin is written by several threads."""
    monkeypatch.setattr(writer_threads, "LEAST_MEMBERS", 2)
    monkeypatch.setattr(writer_threads, "LEAST_PART", 1)
    monkeypatch.setattr(writer_threads, "are_parallel", lambda outboxes: True)


@pytest.fixture
def writers():
    writers = WriterThreads(WRITERS)
    yield writers
    writers.stop(DEADLINE_S)


@pytest.fixture
def lines(flusher):
    with open_lines(flusher, 12) as lines:
        yield lines


class LargeRooms(World):
    """A room that several threads write to."""

    def make_rooms(self):
        self.writers = WriterThreads(WRITERS)
        return [Rooms(self.drainer, writers=self.writers, **LIMITS)]

    def end(self):
        super().end()
        self.writers.stop(DEADLINE_S)


@pytest.fixture
def world():
    world = LargeRooms()
    yield world
    world.end()


def text(payload):
    return encode_frame(TEXT, payload.encode())


def append(lines, payload):
    """Append a message to the outbox of each line. Returns the outboxes."""
    outboxes = tuple(line.outbox for line in lines)
    append_all(outboxes, text(payload), None)
    return outboxes


def helper_names():
    return own_threads("wsthreads-writer")


def await_event(event):
    assert event.wait(DEADLINE_S)


class Fault(BaseException):
    """What no `except Exception` catches."""


class Watched:
    """`flush_all`, which calls a function before, in helpers or in other threads."""

    def __init__(self, monkeypatch, *, helpers=lambda: None, others=lambda: None):
        self._helpers, self._others = helpers, others
        #: The name of the thread that wrote to each outbox.
        self.threads = {}
        monkeypatch.setattr(writer_threads, "flush_all", self)

    def __call__(self, outboxes):
        name = threading.current_thread().name
        if outboxes:
            (self._helpers if name.startswith("wsthreads-writer") else self._others)()
        for outbox in outboxes:
            self.threads[outbox] = name
        return flush_all(outboxes)


# Who writes.


def test_all_threads_write_at_the_same_time(writers, lines, monkeypatch):
    together = threading.Barrier(WRITERS)
    once = threading.local()

    def meet():
        if not hasattr(once, "met"):
            once.met = True
            together.wait(DEADLINE_S)

    watched = Watched(monkeypatch, helpers=meet, others=meet)
    assert writers.flush(append(lines, "hello")) == []
    for line in lines:
        assert line.read_frames(1) == [(TEXT, b"hello")]
    names = {"wsthreads-writer-1", "wsthreads-writer-2", threading.current_thread().name}
    assert set(watched.threads.values()) == names


def test_a_small_room_starts_no_thread(writers, lines, monkeypatch):
    monkeypatch.setattr(writer_threads, "LEAST_MEMBERS", len(lines) + 1)
    assert writers.flush(append(lines, "hello")) == []
    assert lines[0].read_frames(1) == [(TEXT, b"hello")]
    assert helper_names() == []
    assert writers.wait_idle(0)


def test_each_member_is_in_one_part(lines):
    outboxes = tuple(range(5003))
    parts = list(writer_threads._parts(outboxes, 2))
    assert tuple(number for part in parts for number in part) == outboxes
    sizes = [len(part) for part in parts]
    assert sizes == sorted(sizes, reverse=True), "the last part is the smallest"
    assert sizes[0] <= writer_threads.BATCH


def test_there_is_a_writer_for_each_core_up_to_a_limit(monkeypatch):
    for cores, writers in [(1, 1), (2, 2), (64, writer_threads.MOST_WRITERS)]:
        monkeypatch.setattr(writer_threads, "usable_cores", lambda cores=cores: set(range(cores)))
        assert writers_here() == writers


def test_where_each_write_needs_the_gil_one_thread_writes(writers, lines, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(writer_threads, "LEAST_MEMBERS", 2)
    monkeypatch.setattr(writer_threads, "has_gil", lambda: True)
    for line in lines:
        line.outbox._fd = -1  # as with TLS
    assert writers.flush(append(lines, "hello")) == []
    assert helper_names() == []
    assert lines[-1].read_frames(1) == [(TEXT, b"hello")]
    monkeypatch.setattr(writer_threads, "has_gil", lambda: False)
    writers.flush(append(lines, "hello"))
    assert len(helper_names()) == WRITERS - 1


def test_where_no_thread_can_be_started_the_sender_writes_to_all(writers, lines, monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert writers.flush(append(lines, "one")) == []
    for line in lines:
        assert line.read_frames(1) == [(TEXT, b"one")]
    writers.flush(append(lines, "two"))
    assert len(helper_names()) == WRITERS - 1, "it tries again"


# Order, and what happens in the midst of a broadcast.


def test_a_broadcast_does_not_wait_for_a_helper_that_is_late_and_the_order_stays(world, monkeypatch):
    members = [world.member("r") for _ in range(9)]
    begun, go_on = threading.Event(), threading.Event()

    def wait():
        begun.set()
        assert go_on.wait(DEADLINE_S)

    Watched(monkeypatch, helpers=wait, others=partial(await_event, begun))
    numbers = [str(number) for number in range(5)]
    try:
        for number in numbers:
            members[0].session.room("r").broadcast(number)  # each returns although two helpers wait
        assert begun.is_set()
    finally:
        go_on.set()
    for member in members:
        assert member.receive(len(numbers)) == numbers
    world.rooms._check()


def test_all_members_get_the_messages_of_several_threads_in_one_order(world):
    members = [world.member("r") for _ in range(40)]
    count, rounds = 4, 100

    def speak(which):
        for number in range(rounds):
            members[which].session.room("r").broadcast(f"{which}:{number}")

    run_all(*(partial(speak, which) for which in range(count)))
    streams = [member.receive(count * rounds) for member in members]
    assert all(stream == streams[0] for stream in streams)
    for which in range(count):
        own = [message for message in streams[0] if message.startswith(f"{which}:")]
        assert own == [f"{which}:{number}" for number in range(rounds)]
    world.rooms._check()


def test_broadcasts_and_messages_of_one_thread_keep_their_order(world):
    members = [world.member("r") for _ in range(10)]
    expected = []
    for number in range(200):
        members[0].session.room("r").broadcast(f"all {number}")
        members[-1].session.send(f"one {number}")
        expected += [f"all {number}", f"one {number}"]
    assert members[-1].receive(len(expected)) == expected


@pytest.mark.parametrize("seed", range(3))
def test_members_that_leave_or_close_get_everything_until_then_and_the_others_all(world, seed):
    chance = random.Random(seed)
    members = [world.member("r") for _ in range(30)]
    room, rounds = members[0].session.room("r"), 150
    goers = {member: chance.randrange(rounds) for member in members[10:]}
    lasts = {member: chance.choice(["left", ""]) for member in goers}  # the close frame has no payload
    reached = [0]

    def speak():
        for number in range(rounds):
            reached[0] = number
            room.broadcast(str(number))

    def go():
        for member in sorted(goers, key=goers.__getitem__):
            wait_until(lambda member=member: reached[0] >= goers[member])
            if lasts[member]:
                member.session.room("r").leave()
                member.session.send("left")
            else:
                member.outbox.close(encode_frame(CLOSE, b""))

    run_all(speak, go)
    numbers = [str(number) for number in range(rounds)]
    for member in members[:10]:
        assert member.receive(rounds) == numbers
    for member, when in goers.items():
        *got, _ = member.receive_until(lasts[member])
        assert got == numbers[: len(got)]
        assert len(got) >= when, "a member misses messages that were broadcast before it left"
    world.rooms._check()


def test_a_helper_also_writes_what_comes_for_its_members_meanwhile(writers, lines, monkeypatch):
    begun, late = threading.Event(), []

    def flush(outboxes):
        if threading.current_thread().name.startswith("wsthreads-writer"):
            begun.set()
            if not late:
                late.extend(outboxes)
                return list(outboxes)  # as if all frames had come during the write
        else:
            assert begun.wait(DEADLINE_S)
        return flush_all(outboxes)

    monkeypatch.setattr(writer_threads, "flush_all", flush)
    assert writers.flush(append(lines, "hello")) == []
    for line in lines:
        assert line.read_frames(1) == [(TEXT, b"hello")]
    assert late


def test_a_slow_member_keeps_nobody_waiting_and_misses_nothing(writers, lines):
    slow, *quick = lines
    written = slow.fill()
    for number in range(3):
        writers.flush(append(lines, str(number)))
    expected = [(TEXT, str(number).encode()) for number in range(3)]
    for line in quick:
        assert line.read_frames(3) == expected
    assert slow.outbox.is_blocked
    assert slow.read_frames(written + 3)[-3:] == expected


def test_a_member_that_does_not_read_is_found_stuck_once(writers):
    flusher = Flusher()
    flusher.start()
    lines = [Line(flusher, send_buffer=4096, max_bytes=100_000) for _ in range(4)]
    stuck, *quick = lines
    stuck.fill()
    for _ in range(6):
        writers.flush(append(lines, "x" * 30_000))
        for line in quick:
            line.read_frames(1)
    assert writers.wait_idle(DEADLINE_S)
    assert len(stuck.stuck) == 1
    assert not any(line.stuck for line in quick)
    for line in lines:
        line.end()
    flusher.stop(DEADLINE_S)


# Faults, and the end.


def test_a_helper_that_fails_writes_its_part_again(writers, lines, monkeypatch, caplog):
    faults = [Fault("first"), MemoryError("second")]
    begun = threading.Event()

    def fail():
        begun.set()
        if faults:
            raise faults.pop(0)

    Watched(monkeypatch, helpers=fail, others=partial(await_event, begun))
    assert writers.flush(append(lines, "hello")) == []
    for line in lines:
        assert line.read_frames(1) == [(TEXT, b"hello")]
    assert writers.wait_idle(DEADLINE_S)
    assert sorted(str(record.exc_info[1]) for record in caplog.records) == ["first", "second"]
    assert all("wsthreads-writer-" in record.getMessage() for record in caplog.records)


def test_when_the_sender_is_interrupted_all_get_the_message_and_once(world, monkeypatch):
    members = [world.member("r") for _ in range(9)]
    sender, faults, begun = threading.current_thread(), [Fault()], threading.Event()

    def fail():
        begun.set()
        if threading.current_thread() is sender and faults:
            raise faults.pop()

    with monkeypatch.context() as patch:
        Watched(patch, helpers=partial(await_event, begun), others=fail)
        with pytest.raises(Fault):
            members[0].session.room("r").broadcast("1")
        for member in members:
            assert member.receive(1) == ["1"]
    members[0].session.room("r").broadcast("2")
    for member in members:
        assert member.receive(1) == ["2"]
    world.rooms._check()


def test_where_writing_to_one_member_fails_it_alone_is_cut_off(writers, lines):
    lost = lines[3]
    lost.theirs.close()
    for number in range(2):
        writers.flush(append(lines, str(number)))
    assert writers.wait_idle(DEADLINE_S)
    assert lost.outbox.is_over
    for line in lines:
        if line is not lost:
            assert line.read_frames(2) == [(TEXT, b"0"), (TEXT, b"1")]


def test_helpers_write_what_is_left_before_they_end(writers, lines, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def wait():
        begun.set()
        assert go_on.wait(DEADLINE_S)

    Watched(monkeypatch, helpers=wait, others=partial(await_event, begun))
    writers.flush(append(lines, "hello"))
    assert not writers.wait_idle(0.01)
    stopping = threading.Thread(target=writers.stop, args=(DEADLINE_S,))
    stopping.start()
    go_on.set()
    stopping.join(DEADLINE_S)
    assert helper_names() == []
    for line in lines:
        assert line.read_frames(1) == [(TEXT, b"hello")]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of os.fork, from Python 3.12 on
def test_a_forked_process_has_helpers_of_its_own(writers, lines):
    writers.flush(append(lines, "parent"))
    assert writers.wait_idle(DEADLINE_S)
    assert len(helper_names()) == WRITERS - 1
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert helper_names() == []
            writers.flush(append(lines, "child"))
            assert writers.wait_idle(DEADLINE_S)
            assert len(helper_names()) == WRITERS - 1
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for line in lines:
        assert line.read_frames(2) == [(TEXT, b"parent"), (TEXT, b"child")]


class Joins(Recorder):
    def on_open(self, session):
        session.room("lobby").join()
        super().on_open(session)

    def on_message(self, session, message):
        session.room("lobby").broadcast(message)


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr("wsthreads.app.application.writers_here", lambda: 2)


@pytest.mark.usefixtures("two_cores")
def test_an_app_has_helpers_when_it_needs_them_and_until_its_shutdown():
    handler = Joins()
    with endpoint(handler, cpu_affinity=True) as (app, port), RawClient(port) as one:
        handler.session()
        one.text("small")
        assert one.receive_text() == "small"
        assert helper_names() == []
        with RawClient(port) as two:
            handler.session()
            one.text("large")
            assert one.receive_text() == two.receive_text() == "large"
            assert helper_names() == ["wsthreads-writer-1"]
            app.endpoint("/ws/test").room("lobby").broadcast("from a view")
            assert one.receive_text() == two.receive_text() == "from a view"
    assert helper_names() == []


@pytest.mark.usefixtures("two_cores")
def test_the_helpers_of_an_app_that_nobody_shuts_down_end_with_it():
    app = WebSocketApp()
    flusher = Flusher()
    flusher.start()
    lines = [Line(flusher) for _ in range(2)]
    app._writers.flush(append(lines, "hello"))
    assert helper_names() == ["wsthreads-writer-1"]
    reference = weakref.ref(app)
    del app
    gc.collect()
    assert reference() is None
    wait_until(lambda: helper_names() == [])
    for line in lines:
        line.end()
    flusher.stop(DEADLINE_S)
