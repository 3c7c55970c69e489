"""Counters, histograms, and what is counted of connections, rooms and handlers: compared with what clients count."""

import threading
import zlib
from contextlib import ExitStack
from random import Random

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Echo,
    Line,
    RawClient,
    Recorder,
    close_payload,
    endpoint,
    frame,
    run_all,
    self_signed,
    serving,
)
from wsthreads import WebSocketApp
from wsthreads._native import speedups
from wsthreads.monitoring import metrics
from wsthreads.monitoring.metrics import BOUNDS_S, Distribution, Ledger, Metrics, Traffic
from wsthreads.protocol.fanout import flush_all
from wsthreads.protocol.frames import close_frame, encode_frame

SEED = 20261124


def test_a_counter_that_was_never_added_to_is_missing():
    counters = Metrics()
    counters.add("a")
    counters.add("a", 4)
    assert counters.snapshot() == {"a": 5}


def test_a_snapshot_does_not_change_any_more():
    counters = Metrics()
    before = counters.snapshot()
    counters.add("a")
    assert before == {}


def test_what_is_added_to_a_child_is_added_to_its_parent():
    parent = Metrics()
    one, two = Metrics(parent), Metrics(parent)
    one.add("a")
    two.add("a", 2)
    assert (one.snapshot(), two.snapshot(), parent.snapshot()) == ({"a": 1}, {"a": 2}, {"a": 3})


def test_no_count_of_many_threads_is_lost():
    counters = Metrics()

    def add():
        for _ in range(2000):
            counters.add("a")

    run_all(*[add] * 8)
    assert counters.snapshot() == {"a": 16000}


# Histograms.

HISTOGRAMS = [pytest.param(metrics._PYTHON[1], id="python")]
if speedups is not None:
    HISTOGRAMS.append(pytest.param(speedups.Histogram, id="c"))


def filled(histogram):
    """{upper bound of a bucket: count}, of those that have something in them."""
    counts, _ = histogram.snapshot()
    return {bound: count for bound, count in zip((*BOUNDS_S, None), counts, strict=True) if count}


@pytest.mark.parametrize("histogram", HISTOGRAMS)
def test_each_time_is_in_the_bucket_of_the_first_bound_that_is_not_below_it(histogram):
    bounds = histogram()
    for bound in BOUNDS_S:
        bounds.observe(bound)
    assert filled(bounds) == dict.fromkeys(BOUNDS_S, 1)
    between = histogram()
    for bound in BOUNDS_S:
        between.observe(bound * 1.01)
    assert filled(between) == dict.fromkeys((*BOUNDS_S[1:], None), 1)
    assert between.snapshot()[1] == pytest.approx(sum(BOUNDS_S) * 1.01)


@pytest.mark.parametrize("histogram", HISTOGRAMS)
def test_nothing_takes_less_than_no_time(histogram):
    it = histogram()
    it.observe(-1.0)
    assert filled(it) == {BOUNDS_S[0]: 1}
    assert it.snapshot()[1] == 0.0


@pytest.mark.parametrize("histogram", HISTOGRAMS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e9])
def test_what_is_no_time_is_refused(histogram, bad):
    it = histogram()
    with pytest.raises(ValueError, match="fewer than 1e9"):
        it.observe(bad)
    assert filled(it) == {}


@pytest.mark.parametrize("histogram", HISTOGRAMS)
def test_a_call_is_timed_whether_it_returns_or_raises(histogram):
    it = histogram()
    assert it.call(divmod, 7, 3) == (2, 1)
    assert it.call(dict) == {}
    with pytest.raises(ZeroDivisionError):
        it.call(divmod, 7, 0)
    gate = threading.Event()
    it.call(gate.wait, 0.02)
    assert sum(filled(it).values()) == 4
    assert 0.02 <= it.snapshot()[1] < DEADLINE_S
    with pytest.raises(TypeError):
        it.call()


@pytest.mark.parametrize("histogram", HISTOGRAMS)
def test_no_time_of_many_threads_is_lost(histogram):
    it = histogram()

    def add():
        for i in range(3000):
            it.observe(0.004) if i % 2 else it.call(int)

    run_all(*[add] * 8)
    counts, total_s = it.snapshot()
    assert sum(counts) == 24000
    assert counts[BOUNDS_S.index(0.005)] >= 12000
    assert total_s >= 12000 * 0.004


def test_quantiles_are_within_their_buckets():
    it = metrics.Histogram()
    for milliseconds in range(1, 101):
        it.observe(milliseconds / 1000)
    seen = Distribution(*it.snapshot())
    assert seen.count == 100
    assert seen.quantile(0.5) == pytest.approx(0.05, rel=0.05)
    assert 0.09 <= seen.quantile(0.99) <= 0.1
    assert seen.quantile(0) <= 0.001
    it.observe(1000.0)
    assert Distribution(*it.snapshot()).quantile(1) == BOUNDS_S[-1]
    assert Distribution(*it.snapshot()).since(seen).count == 1
    assert Distribution(*metrics.Histogram().snapshot()).quantile(0.5) is None


# Traffic.


class Counter(RawClient):
    """Counts the frames that go both ways by itself."""

    def __init__(self, *arguments, **options):
        self.out, self.got = [], []
        super().__init__(*arguments, **options)

    def send(self, opcode, payload=b"", **how):
        data = frame(opcode, payload, **how)
        self.out.append((opcode, len(data)))
        self.sock.sendall(data)

    def receive(self):
        opcode, payload = super().receive()
        self.got.append((opcode, len(encode_frame(opcode, payload))))
        return opcode, payload

    def expected(self):
        """(messages in, bytes in, messages out, bytes out), as the server should see it."""
        sent = [opcode for opcode, _ in self.out if opcode in (TEXT, BINARY)]
        got = [opcode for opcode, _ in self.got if opcode in (TEXT, BINARY)]
        return len(sent), sum(size for _, size in self.out), len(got), sum(size for _, size in self.got)


def all_kinds(client):
    """Messages of all kinds, with pings between, each answered."""
    big = "ü" * 100_000
    for message in ("a", "", "b" * 200, big):
        client.send(TEXT, message)
        assert client.receive() == (TEXT, message.encode())
    client.send(BINARY, b"\x00" * 70_000)
    client.send(PING, b"hello")
    client.send(TEXT, "frag", fin=False)
    client.send(PING, b"within")
    client.send(CONTINUATION, "ments")
    answers = sorted(client.receive() for _ in range(4))  # pongs do not wait for a script
    assert answers == [(TEXT, b"fragments"), (BINARY, b"\x00" * 70_000), (PONG, b"hello"), (PONG, b"within")]
    client.send(PONG, b"nobody asked")
    client.sock.sendall(b"".join(frame(TEXT, str(i)) for i in range(100)))
    client.out += [(TEXT, len(frame(TEXT, str(i)))) for i in range(100)]
    assert [client.receive() for _ in range(100)] == [(TEXT, b"%d" % i) for i in range(100)]


def four(traffic):
    return traffic.messages_in, traffic.bytes_in, traffic.messages_out, traffic.bytes_out


def of_totals(endpoint):
    return four(endpoint.totals())


@pytest.mark.parametrize("language", ["python", "javascript"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_connection_counts_what_its_client_counts(language, tls, tmp_path):
    server, client_tls = self_signed(tmp_path) if tls else (None, None)
    app = WebSocketApp(ping_interval_s=0)
    if language == "python":
        it = app.add_handler("/ws/test", Echo())
    else:
        file = tmp_path / "echo.js"
        file.write_text("export function onMessage(session, message) { session.send(message); }")
        it = app.add_script("/ws/test", file)
    with serving(app, ssl_context=server) as port:
        with Counter(port, tls=client_tls) as client:
            all_kinds(client)
            (connection,) = it.live().values()
            wait_until(lambda: four(connection.traffic()) == client.expected(), "the same count on both sides")
            wait_until(lambda: connection.traffic().bytes_waiting == 0, "the end of the last write")
            assert connection.traffic().round_trip_s is None
            wait_until(lambda: of_totals(it) == client.expected())
            client.send(CLOSE, close_payload(4001))
            client.receive_close()
        wait_until(lambda: it.totals().sessions == 0)
        totals = it.totals()
        assert four(totals) == client.expected() == four(connection.traffic())
        assert (totals.opened, totals.closed, totals.bytes_waiting) == (1, {4001: 1}, 0)


def test_what_came_with_the_handshake_counts():
    with endpoint(Echo()) as (app, port):
        early = frame(TEXT, "early")
        with Counter(port, early=early) as client:
            client.out.append((TEXT, len(early)))
            assert client.receive() == (TEXT, b"early")
            wait_until(lambda: of_totals(app.endpoint("/ws/test")) == client.expected())


def test_deflated_messages_count_as_they_are_on_the_wire():
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    with endpoint(Echo(), compression=True) as (app, port), RawClient(port, headers=offer) as client:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = (deflate.compress(b"x" * 10_000) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        client.send(TEXT, packed, rsv=4)
        while not client.buffer:
            client._fill()
        it = app.endpoint("/ws/test")
        wait_until(lambda: of_totals(it) == (1, len(frame(TEXT, packed)), 1, len(client.buffer)))
        assert len(client.buffer) < 200


def test_bytes_are_out_when_the_kernel_has_them_and_wait_until_then(flusher):
    line = Line(flusher, send_buffer=4096)
    line.fill()
    for _ in range(10):
        line.send(encode_frame(TEXT, b"y" * 1000))
    box = line.outbox
    accepted = box.bytes_out + box.bytes_waiting
    assert box.bytes_waiting > 10_000
    messages = box.messages_out
    assert line.outbox.close(close_frame(1000))
    received = bytearray()
    while len(received) < accepted + 4:
        received += line.theirs.recv(1 << 20)
    wait_until(lambda: (box.bytes_out, box.bytes_waiting) == (len(received), 0))
    assert box.messages_out == messages, "the close frame is none"
    line.end()


def test_what_a_slow_client_never_got_is_not_out(flusher):
    line = Line(flusher, send_buffer=4096)
    line.fill()
    for _ in range(10):
        line.send(encode_frame(TEXT, b"y" * 1000))
    line.outbox.close(close_frame(1013), discard=True)
    received = bytearray()
    while not received.endswith(close_frame(1013)):
        received += line.theirs.recv(1 << 20)
    wait_until(lambda: line.outbox.bytes_out == len(received))
    line.end()


def test_no_message_of_many_threads_is_lost(flusher):
    lines = [Line(flusher) for _ in range(3)]
    boxes = [line.outbox for line in lines]
    message, ping = encode_frame(TEXT, b"hello"), encode_frame(PING, b"")

    def send():
        for i in range(1000):
            for box in boxes:
                box.append(message)
            if i % 10 == 0:
                boxes[0].append(ping)
            if i % 2:
                flush_all(boxes)
            else:
                for box in boxes:
                    box.flush()

    def read(line, pings):
        frames = line.read_frames(6000 + pings)
        assert sorted(frames) == [(TEXT, b"hello")] * 6000 + [(PING, b"")] * pings

    run_all(*[send] * 6, *(lambda i=i: read(lines[i], 0 if i else 600) for i in range(3)))
    wait_until(lambda: [box.messages_out for box in boxes] == [6000] * 3, "what has been read is counted")
    assert [box.bytes_out for box in boxes] == [6000 * len(message) + (0 if i else 600 * len(ping)) for i in range(3)]
    for line in lines:
        line.end()


# Round trips.


def test_a_round_trip_is_from_our_ping_to_its_pong():
    handler = Recorder()
    with endpoint(handler, ping_interval_s=3600) as (app, port), RawClient(port) as client:
        handler.session()
        it = app.endpoint("/ws/test")
        (connection,) = it.live().values()
        client.send(PONG, b"nobody asked")
        client.text("a")
        handler.message()
        assert connection.traffic().round_trip_s is None
        connection.measure(0.0)
        assert client.receive() == (PING, b"")
        client.send(PONG, b"")
        wait_until(lambda: it.totals().round_trips is not None)
        assert it.totals().round_trips.count == 1
        assert 0 < connection.traffic().round_trip_s < DEADLINE_S
        assert connection.traffic().messages_out == 0


# Endpoints.


def test_functions_are_timed_by_their_names_and_failures_counted():
    class Fails(Recorder):
        def on_message(self, session, message):
            super().on_message(session, message)
            raise ValueError("no")

        def on_error(self, session, error):
            raise ValueError("neither")

    handler = Fails()
    with endpoint(handler) as (app, port):
        with RawClient(port) as client:
            client.text("a")
            client.text("b")
            handler.message()
            handler.message()
            client.leave()
        handler.close()
        it = app.endpoint("/ws/test")
        wait_until(lambda: it.totals().sessions == 0)
        seconds = it.totals().handler_seconds
        assert {name: each.count for name, each in seconds.items()} == {
            "on_open": 1,
            "on_message": 2,
            "on_error": 2,
            "on_close": 1,
        }
        assert it.totals().errors == 4
        assert app.metrics.snapshot()["handler_errors"] == 4


def test_functions_of_a_script_are_timed_until_their_promises_settle(tmp_path):
    file = tmp_path / "slow.js"
    file.write_text(
        """
        export function onHandshake(request) {}
        export async function onMessage(session, message) {
            if (message === "throw") throw new Error("no");
            await new Promise((done) => setTimeout(done, 60));
            session.send(message);
        }
        """
    )
    app = WebSocketApp(ping_interval_s=0)
    app.add_script("/ws/test", file)
    it = app.endpoint("/ws/test")
    with serving(app) as port:
        with RawClient(port) as client:
            client.text("a")
            client.text("throw")
            client.text("b")
            assert client.receive_text() == "a"
            assert client.receive_text() == "b"
            client.leave()
        wait_until(lambda: it.totals().sessions == 0)
        seconds = it.totals().handler_seconds
        assert {name: each.count for name, each in seconds.items()} == {"on_handshake": 1, "on_message": 3}
        assert seconds["on_message"].total_s >= 0.11
        assert it.totals().errors == 1


def test_broadcasts_and_deliveries_count_with_rooms_that_are_gone():
    class Joins(Recorder):
        def on_open(self, session):
            session.room(session.get_parameter("room")).join()
            super().on_open(session)

    handler = Joins()
    with endpoint(handler) as (app, port):
        it = app.endpoint("/ws/test")
        it.room("lobby").broadcast("nobody is there")
        assert (it.totals().broadcasts, it.totals().deliveries) == (0, 0)
        with ExitStack() as stack:
            clients = [stack.enter_context(RawClient(port, "/ws/test?room=lobby")) for _ in range(3)]
            clients.append(stack.enter_context(RawClient(port, "/ws/test?room=other")))
            sessions = [handler.session() for _ in clients]
            assert (it.totals().rooms, it.totals().members) == (2, 4)
            it.room("lobby").broadcast("a")
            it.room("other").broadcast("b")
            member = next(session for session in sessions if session.rooms() == ["lobby"])
            member.room("lobby").broadcast_except("c")
            assert (it.totals().broadcasts, it.totals().deliveries) == (3, 6)
            for client in clients:
                client.leave()
        wait_until(lambda: it.totals().sessions == 0)
        totals = it.totals()
        assert (totals.rooms, totals.members, totals.broadcasts, totals.deliveries) == (0, 0, 3, 6)
        assert totals.messages_out == 6


class Talker:
    """A session, as the `Ledger` sees it."""

    def __init__(self, *counts):
        self.end_number = 0
        self._traffic = Traffic(*counts, bytes_waiting=5, round_trip_s=None)

    def traffic(self):
        return self._traffic


def test_a_session_that_ends_while_sums_are_read_is_counted_exactly_once():
    ledger = Ledger()
    first, second, third = sessions = [Talker(1, 10, 2, 20), Talker(100, 1000, 200, 2000), Talker(0, 0, 0, 0)]
    for _ in sessions:
        ledger.begin()
    everything = (101, 1010, 202, 2020)

    def read(living):
        totals = ledger.sum(living, lambda: (0, 0, 0, 0))
        assert four(totals) == everything
        return totals.sessions, sum(totals.closed.values()), totals.bytes_waiting

    def meanwhile():
        yield third
        ledger.end(1000, second)  # after the sums of ended sessions were read
        yield second

    assert read(sessions) == (3, 0, 15)
    ledger.end(1000, first)
    assert read(sessions) == (2, 1, 10)  # the list was read before
    assert read(meanwhile()) == (2, 1, 10)
    ledger.end(1000, second)  # by another thread
    assert read([third]) == (1, 2, 5)


def test_sums_do_not_fall_back_while_a_room_ends():
    ledger = Ledger()
    ledger.sum([], lambda: (1, 1, 3, 4))
    totals = ledger.sum([], lambda: (0, 0, 0, 5))
    assert (totals.rooms, totals.members, totals.broadcasts, totals.deliveries) == (0, 0, 3, 5)


GROWING = ("opened", "messages_in", "bytes_in", "messages_out", "bytes_out", "broadcasts", "deliveries")


def test_sums_are_right_and_only_grow_while_many_come_talk_and_go():
    class Talks:
        def on_open(self, session):
            session.room(session.get_parameter("room")).join()

        def on_message(self, session, message):
            session.room(session.get_parameter("room")).broadcast(message)

    print("seed", SEED)
    over = threading.Event()
    with endpoint(Talks()) as (app, port):
        it = app.endpoint("/ws/test")
        counted, lock = [], threading.Lock()

        def visit(number):
            random = Random(SEED + number)
            for _ in range(4):
                with Counter(port, f"/ws/test?room={random.randrange(3)}") as client:
                    client.sock.settimeout(DEADLINE_S)
                    for _ in range(random.randrange(1, 30)):
                        client.send(TEXT, "x" * random.randrange(1, 300))
                    client.send(CLOSE, close_payload(1000))
                    client.receive_close()
                    assert client.at_end()
                    with lock:
                        counted.append(client.expected())

        def watch():
            before = it.totals()
            while not over.is_set():
                now = it.totals()
                for name in GROWING:
                    assert getattr(now, name) >= getattr(before, name), name
                before = now

        def all_visit():
            try:
                run_all(*(lambda number=number: visit(number) for number in range(12)))
            finally:
                over.set()

        run_all(all_visit, watch)
        wait_until(lambda: it.totals().sessions == 0)
        totals = it.totals()
        sums = tuple(map(sum, zip(*counted, strict=True)))
        assert four(totals)[:2] == sums[:2]
        assert totals.broadcasts == sums[0]
        # What was broadcast to somebody after the close frame of his was taken is dropped.
        assert totals.deliveries >= totals.messages_out == sums[2]
        assert totals.bytes_out == sums[3]
        assert (totals.opened, totals.closed) == (48, {1000: 48})
