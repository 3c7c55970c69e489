"""A session's outgoing queue, over real sockets."""

import gc
import os
import random
import socket
import sys
import threading
from contextlib import suppress
from itertools import accumulate
from time import monotonic, sleep

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.programs import DEADLINE_S, wait_until
from tests.wire import CLOSE, PING, TEXT, Line, parse_frames, run_all
from wsthreads.protocol import fanout, outbox
from wsthreads.protocol.frames import close_frame, encode_frame
from wsthreads.protocol.transport import PlainTransport
from wsthreads.threads.flusher import Timer


@pytest.fixture
def line(flusher):
    made = []

    def make(**settings):
        made.append(Line(flusher, **settings))
        return made[-1]

    yield make
    for each in made:
        each.end()


def test_what_is_appended_leaves_in_that_order(line):
    box = line()
    for n in range(100):
        assert box.send(encode_frame(TEXT, b"%d" % n))
    assert box.read_frames(100) == [(TEXT, b"%d" % n) for n in range(100)]
    assert not box.outbox.is_blocked
    assert box.outbox.bytes_waiting == 0
    box.outbox._check()


def test_nothing_leaves_before_it_is_flushed_and_then_it_does_as_one(line):
    box = line()
    box.outbox.append(encode_frame(TEXT, b"a"))
    box.outbox.append(encode_frame(TEXT, b"b"))
    box.theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        box.theirs.recv(1)
    fanout.flush_all([box.outbox])
    assert parse_frames(box.theirs.recv(100))[0] == [(TEXT, b"a"), (TEXT, b"b")]


def test_frames_of_eight_threads_leave_whole_and_each_threads_in_order(line):
    box, count = line(send_buffer=4096), 400
    sizes = random.Random(7).choices([0, 1, 125, 126, 3000, 70000], [5, 5, 3, 3, 3, 1], k=count)

    def write(thread):
        for n, size in enumerate(sizes):
            box.outbox.append(encode_frame(TEXT, b"%d %d " % (thread, n) + b"x" * size))
            if n % 3:
                box.outbox.flush()
        box.outbox.flush()

    seen = []
    run_all(*[lambda t=t: write(t) for t in range(8)], lambda: seen.extend(box.read_frames(8 * count)))
    numbers = {thread: [] for thread in range(8)}
    for _, payload in seen:
        thread, n, filler = payload.split(b" ")
        assert len(filler) == sizes[int(n)]
        numbers[int(thread)].append(int(n))
    assert all(found == list(range(count)) for found in numbers.values())
    box.outbox._check()


@pytest.fixture
def hasty():
    """Threads take turns much more often, so that races are met."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_no_frame_is_left_behind_when_threads_find_each_other_draining(line, hasty):
    """Whoever finds the lock taken leaves its frame to the holder: none may be forgotten at the end of a burst."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    box = line(send_buffer=dice.choice([2304, 100_000]))
    barrier, rounds, errors = threading.Barrier(5), 300, []
    sizes = [dice.choice([1, 1, 500, 3000]) for _ in range(rounds)]

    def burst():
        for size in sizes:
            barrier.wait(DEADLINE_S)
            for _ in range(3):
                box.send(encode_frame(TEXT, b"x" * size))

    def read():
        try:
            for _ in range(rounds):
                barrier.wait(DEADLINE_S)
                box.read_frames(12)
        except TimeoutError:
            errors.append("a frame was left behind")
            barrier.abort()

    with suppress(threading.BrokenBarrierError):
        run_all(*[burst] * 4, read)
    assert not errors
    box.outbox._check()


class LateRelease:
    """A lock which lets another thread do something just before its holder lets go."""

    def __init__(self, lock, meanwhile):
        self.lock, self.meanwhile = lock, meanwhile

    def acquire(self, blocking=True):
        return self.lock.acquire(blocking)

    def release(self):
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            run_all(meanwhile)
        self.lock.release()


def test_a_frame_that_comes_between_the_holders_last_look_and_its_letting_go_is_sent(line):
    box = line()
    box.outbox._lock = LateRelease(box.outbox._lock, lambda: box.send(encode_frame(TEXT, b"two")))
    box.send(encode_frame(TEXT, b"one"))
    box.outbox._lock = box.outbox._lock.lock
    assert box.read_frames(2) == [(TEXT, b"one"), (TEXT, b"two")]


def test_eight_mebibytes_pass_a_tiny_buffer_with_pings_in_between(line):
    """simple-websocket truncates and interleaves here (DESIGN, lesson 1)."""
    box = line(send_buffer=16384)
    message = os.urandom(8 << 20)
    stop, pings = threading.Event(), [0]

    def ping():  # not without end, which a slow machine might never be done with
        while not stop.is_set() and pings[0] < 500:
            box.send(encode_frame(PING, b"%d" % pings[0]))
            pings[0] += 1
            stop.wait(0.001)

    def big():
        box.send(encode_frame(TEXT, b"first"))
        box.send(encode_frame(TEXT, message))
        box.send(encode_frame(TEXT, b"last"))
        wait_until(lambda: pings[0] > 3, "some pings")
        assert box.outbox.wait_sent(DEADLINE_S)
        stop.set()

    received = bytearray()

    def read():
        while not (stop.is_set() and received.endswith(encode_frame(TEXT, b"end"))):
            received.extend(box.theirs.recv(50000))

    def finish():
        big()
        pinger.join(DEADLINE_S)
        box.send(encode_frame(TEXT, b"end"))

    pinger = threading.Thread(target=ping)
    pinger.start()
    run_all(finish, read)
    frames, rest = parse_frames(received)
    assert not rest
    texts = [payload for opcode, payload in frames if opcode == TEXT]
    assert texts == [b"first", message, b"last", b"end"]
    assert [int(payload) for opcode, payload in frames if opcode == PING] == list(range(pings[0]))
    assert pings[0] > 3


def test_nothing_leaves_behind_the_close_frame(line):
    box, barrier = line(), threading.Barrier(5)

    def write():
        barrier.wait(DEADLINE_S)
        deadline = monotonic() + DEADLINE_S
        while box.send(encode_frame(TEXT, b"early")):  # until it is refused, so the close comes in the midst of it
            assert monotonic() < deadline

    def close():
        barrier.wait(DEADLINE_S)
        sleep(0.01)
        assert box.outbox.close(close_frame(1000))

    seen = bytearray()

    def read():
        while not seen.endswith(close_frame(1000)):
            seen.extend(box.theirs.recv(100_000))

    run_all(write, write, write, write, close, read)
    assert not box.send(encode_frame(TEXT, b"late"))
    assert not box.outbox.close(close_frame(1001)), "a second close frame"
    box.ours.shutdown(socket.SHUT_WR)
    frames, rest = parse_frames(seen + box.read_to_end())
    assert not rest
    assert [opcode for opcode, _ in frames].index(CLOSE) == len(frames) - 1
    assert not box.outbox._queue
    box.outbox._check()


def test_who_closes_does_not_wait_for_who_writes(line):
    box, closed = line(), threading.Event()

    def close():
        assert box.outbox.close(close_frame(1000))
        closed.set()

    def write():
        with box.outbox._lock:
            assert closed.wait(DEADLINE_S)
        box.outbox.flush()

    run_all(write, close)
    assert [opcode for opcode, _ in box.read_frames(1)] == [CLOSE]


@pytest.mark.parametrize("blocked", [False, True])
def test_what_was_about_to_be_appended_when_the_close_frame_came_is_dropped(line, blocked):
    box = line(send_buffer=4096)
    if blocked:
        box.send(encode_frame(TEXT, b"x" * 100_000))
    assert box.outbox.close(close_frame(1000))
    box.outbox._queue.append(encode_frame(TEXT, b"late"))  # a thread that had looked just before
    box.outbox.flush()
    frames = box.read_frames(1 + blocked)
    assert frames[-1][0] == CLOSE
    assert not box.outbox._queue
    box.theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        box.theirs.recv(1)


def test_too_many_bytes_are_reported_once_however_many_threads_go_on(line):
    box = line(max_bytes=100_000, send_buffer=4096)
    box.fill(b"x" * 1000)

    def write():
        for _ in range(200):
            box.send(encode_frame(TEXT, b"x" * 1000))

    run_all(*[write] * 4)
    assert len(box.stuck) == 1
    waiting = int(box.stuck[0].split()[0])
    assert 100_000 < waiting < 900_000  # more than one frame over, if its holder was kept from running
    assert "the limit is 100000" in box.stuck[0]


def test_too_many_bytes_are_reported_by_the_frame_that_is_too_much(line):
    box = line(max_bytes=100_000, send_buffer=4096)
    box.fill(b"x" * 1000)
    while not box.stuck:
        before = box.outbox.bytes_waiting
        box.send(encode_frame(TEXT, b"x" * 1000))
    assert before <= 100_000 < int(box.stuck[0].split()[0]) == before + 1004


def test_what_is_within_the_bound_is_not_reported(line):
    box = line(max_bytes=100_000, send_buffer=4096)
    box.fill(b"x" * 1000)
    while box.outbox.bytes_waiting < 98_000:
        box.send(encode_frame(TEXT, b"x" * 500))
    assert not box.stuck


def test_time_without_progress_is_reported_once(line):
    box = line(timeout_s=0.1, send_buffer=4096)
    began = monotonic()
    box.fill(b"x" * 100)
    box.send(encode_frame(TEXT, b"y" * 100))
    wait_until(lambda: box.stuck, "the report")
    assert monotonic() - began >= 0.1
    box.send(encode_frame(TEXT, b"z" * 100))
    assert box.stuck == ["nothing was read for 0.1 s"]


def test_the_watch_over_progress_ends_when_all_has_been_read(line):
    box = line(timeout_s=DEADLINE_S, send_buffer=4608)
    box.send(encode_frame(TEXT, b"x" * 60_000))
    assert box.outbox._stall_timer is not None
    box.read_frames(1)
    wait_until(lambda: box.outbox._stall_timer is None, "the end of the watch over progress")


def test_one_message_larger_than_the_bound_is_let_in_where_nothing_waits(line):
    box = line(max_bytes=1000, send_buffer=4096)
    big = os.urandom(500_000)
    box.send(encode_frame(TEXT, big))
    assert not box.stuck
    assert box.read_frames(1) == [(TEXT, big)]


def test_a_second_one_behind_it_is_too_much(line):
    box = line(max_bytes=1000, send_buffer=4096)
    box.send(encode_frame(TEXT, b"x" * 500_000))
    assert box.outbox.is_blocked
    box.send(encode_frame(TEXT, b"x"))
    assert len(box.stuck) == 1


def test_a_close_that_discards_keeps_the_frame_that_has_begun_whole(line):
    box = line(send_buffer=4096)
    message = os.urandom(300_000)
    box.send(encode_frame(TEXT, message))
    for n in range(20):
        box.send(encode_frame(TEXT, b"waits %d" % n))
    assert box.outbox.close(close_frame(1013, "too slow"), discard=True)
    box.outbox._check()
    frames = box.read_frames(2)
    assert frames[0] == (TEXT, message)
    assert frames[1][0] == CLOSE


def test_a_close_that_does_not_discard_comes_behind_everything(line):
    box = line(send_buffer=4096)
    box.fill()
    for n in range(20):
        box.send(encode_frame(TEXT, b"waits %d" % n))
    box.outbox.close(close_frame(1000))
    assert not box.send(encode_frame(TEXT, b"late"))
    frames = [box.theirs.recv(1) and None][1:]
    data = bytearray(b"\x81")
    while not data.endswith(close_frame(1000)):
        data += box.theirs.recv(100_000)
    frames, rest = parse_frames(data)
    assert not rest
    assert [payload for _, payload in frames[-21:-1]] == [b"waits %d" % n for n in range(20)]


def test_waiting_for_room_ends_when_the_reader_has_made_some(line):
    box = line(max_bytes=50_000, send_buffer=4096)
    box.send(encode_frame(TEXT, b"x" * 49_000))
    box.send(encode_frame(TEXT, b"x" * 49_000))
    assert not box.outbox.wait_for_room(1000, 0.01), "there is no room yet"
    result = []
    waiter = threading.Thread(target=lambda: result.append(box.outbox.wait_for_room(1000, DEADLINE_S)))
    waiter.start()
    data = bytearray()
    while waiter.is_alive() and len(data) < 98_000:
        data += box.theirs.recv(5000)
    waiter.join(DEADLINE_S)
    assert result == [True]
    assert box.outbox.bytes_waiting + 1000 <= 50_000


def test_room_in_the_kernel_is_no_room_in_the_outbox_before_what_waits_is_written(line):
    """A thread that waits for room would else not wait while the flusher writes, and so queue without a limit."""
    entered, go_on = threading.Event(), threading.Event()

    class Halting(PlainTransport):
        def send(self, data):
            if "flusher" in threading.current_thread().name and not go_on.is_set():
                entered.set()
                assert go_on.wait(DEADLINE_S)
            return super().send(data)

    box = line(send_buffer=4096, transport=Halting)
    frame, data = encode_frame(TEXT, b"x" * 500_000), bytearray()
    box.send(frame)
    box.theirs.setblocking(False)
    while not entered.wait(0.01):
        with suppress(BlockingIOError):
            data += box.theirs.recv(5000)
    try:
        assert box.outbox.is_blocked
        assert box.outbox.bytes_waiting > 300_000
    finally:
        go_on.set()
    box.theirs.settimeout(DEADLINE_S)
    while len(data) < len(frame):
        data += box.theirs.recv(1 << 18)
    assert data == frame
    wait_until(lambda: not box.outbox.is_blocked, "the outbox is empty")
    box.outbox._check()


def test_waiting_for_room_or_for_the_end_is_over_when_the_connection_is(line):
    box = line(max_bytes=1000, send_buffer=4096)
    box.fill()
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(box.outbox.wait_for_room(10**6, DEADLINE_S))),
        threading.Thread(target=lambda: results.append(box.outbox.wait_sent(DEADLINE_S))),
    ]
    for thread in threads:
        thread.start()
    began = monotonic()
    box.theirs.close()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert results == [True, True]
    assert monotonic() - began < DEADLINE_S / 2
    assert not box.outbox.append(b"\x81\0")


def test_waiting_where_there_is_room_is_over_at_once(line):
    box = line()
    assert box.outbox.wait_for_room(10, 0)
    assert box.outbox.wait_sent(0)


def test_a_detached_outbox_writes_nothing_even_where_its_number_is_another_sockets(line, flusher):
    box = line(send_buffer=4096)
    box.fill()
    number = box.ours.fileno()
    box.outbox.detach()
    box.ours.close()
    others = socket.socketpair()
    try:
        assert number in (others[0].fileno(), others[1].fileno()), "the test wants the number that has become free"
        reused, peer = others if others[0].fileno() == number else others[::-1]
        assert not box.send(encode_frame(TEXT, b"stray"))
        assert not box.outbox.close(close_frame(1000))
        box.outbox._on_room()
        box.outbox.flush()
        done = threading.Event()
        flusher.call_later(0, done.set)
        assert done.wait(DEADLINE_S)
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(1)
        assert reused.fileno() == number
    finally:
        for each in others:
            each.close()


def test_a_lost_connection_frees_what_waited(line):
    box = line(send_buffer=4096)
    box.fill()
    box.send(encode_frame(TEXT, b"x" * 10**6))
    box.theirs.close()
    assert box.outbox.wait_sent(DEADLINE_S), "the end"
    assert not box.outbox._backlog
    assert not box.outbox._queue
    assert box.outbox.bytes_waiting == 0
    assert not box.stuck
    box.outbox._check()


class Finalizes(PlainTransport):
    """A finalizer runs wherever the interpreter likes, in the middle of a drain too: here, just before or after a
    write."""

    __slots__ = ("victims",)
    plain_fd = -1  # written to by send() below, and not by the C module

    def send(self, data):
        victims = getattr(self, "victims", None)
        if victims:
            victims.pop()  # the last reference
        sent = super().send(data)
        if victims:
            victims.pop()
        return sent


class Farewell:
    def __init__(self, line, text):
        self.line, self.text = line, text

    def __del__(self):
        self.line.send(encode_frame(TEXT, self.text))


@pytest.mark.parametrize("blocked", [False, True])
def test_a_finalizer_that_sends_during_a_drain_neither_hangs_nor_doubles_nor_loses(line, blocked):
    box = line(transport=Finalizes, send_buffer=4096)
    first = b"a" * 200_000 if blocked else b"a"
    box.transport.victims = [Farewell(box, b"two"), Farewell(box, b"one")]
    sender = threading.Thread(target=box.send, args=(encode_frame(TEXT, first),), daemon=True)
    sender.start()
    seen = box.read_frames(3)
    sender.join(DEADLINE_S)
    assert not sender.is_alive(), "the drain never ends"
    assert sorted(payload for _, payload in seen) == sorted([first, b"one", b"two"])
    gc.collect()
    box.outbox._check()


# Any calls, against a model


class Orders:
    """In place of the flusher: `room` does what that would do when the kernel has room again."""

    def __init__(self):
        self.watched = {}

    def watch(self, descriptor, callback):
        self.watched[descriptor] = callback

    def forget(self, descriptor):
        self.watched.pop(descriptor, None)

    def call_later(self, delay_s, callback):
        return Timer(monotonic() + delay_s, callback)

    def room(self):
        watched, self.watched = self.watched, {}
        for callback in watched.values():
            callback()


SIZES = st.sampled_from([0, 1, 130, 5000, 70_000])
WHO = st.sampled_from([0, 1])
CALLS = st.one_of(
    st.tuples(st.just("append"), WHO, SIZES),
    st.tuples(st.just("append_all"), st.sampled_from([0, 1, None]), SIZES),
    st.tuples(st.sampled_from(["flush", "room", "flush_all"]), WHO, st.none()),
    st.tuples(st.just("read"), WHO, st.integers(1, 100_000)),
    st.tuples(st.just("close"), WHO, st.booleans()),
)


@pytest.mark.parametrize("twin", ["python", "c"])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CALLS, max_size=40))
def test_whatever_is_called_each_reader_gets_what_was_taken_for_it(monkeypatch, twin, calls):
    module = pytest.importorskip("wsthreads._native._speedups") if twin == "c" else None
    monkeypatch.setattr(fanout, "append_all", module.append_all if module else fanout._append_all)
    for each in (fanout, outbox):
        monkeypatch.setattr(each, "send_queues", module.send_queues if module else outbox._send_queues)
    orders = Orders()
    lines = [Line(orders, send_buffer=4096) for _ in range(2)]
    for line in lines:
        line.theirs.setblocking(False)
    both = tuple(line.outbox for line in lines)
    taken, read, closed = [[], []], [bytearray(), bytearray()], [None, None]
    for number, (call, who, how) in enumerate(calls):
        if call in ("append", "append_all"):
            data = encode_frame(TEXT, b"%d " % number + b"x" * how)
            if call == "append_all":
                fanout.append_all(both, data, None if who is None else both[who])
            for n in range(2):
                if call == "append" and n == who:
                    assert both[n].append(data) == (closed[n] is None)
                if closed[n] is None and (n == who) == (call == "append"):
                    taken[n].append(data)
        elif call == "flush":
            both[who].flush()
        elif call == "flush_all":
            assert fanout.flush_all(both) == []
        elif call == "room":
            orders.room()
        elif call == "read":
            with suppress(BlockingIOError):
                read[who] += lines[who].theirs.recv(how)
        elif both[who].close(encode_frame(CLOSE, b""), discard=how):
            closed[who] = how
            taken[who].append(encode_frame(CLOSE, b""))
        for each in both:
            each._check()
    for n, line in enumerate(lines):
        line.outbox.flush()
        while line.outbox.is_blocked:
            with suppress(BlockingIOError):
                read[n] += line.theirs.recv(1 << 20)
            orders.room()
        line.ours.shutdown(socket.SHUT_WR)
        line.theirs.settimeout(DEADLINE_S)
        read[n] += line.read_to_end()
        if closed[n]:  # with discard: some of what waited was dropped, in whole frames, and nothing before them
            assert read[n].endswith(taken[n].pop())
            assert bytes(read[n][:-2]) in accumulate(taken[n], initial=b"")
        else:
            assert read[n] == b"".join(taken[n])
        line.end()
