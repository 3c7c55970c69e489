"""Messages with a key replace earlier ones that still wait for a slow client: in its outbox, over real sockets."""

import os
import random
import socket
import sys
import threading
import zlib

import pytest

from tests.programs import DEADLINE_S, PROGRAM_S, wait_until
from tests.wire import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    Line,
    RawClient,
    Recorder,
    endpoint,
    parse_frames,
    run_all,
    self_signed,
)
from wsthreads.protocol import fanout, outbox
from wsthreads.protocol.deflate import Agreement
from wsthreads.protocol.encoding import encoding_for
from wsthreads.protocol.frames import MarkedFrame, close_frame, encode_frame, message_frame, parse_header
from wsthreads.protocol.transport import TLSTransport

KEYS = 100


@pytest.fixture
def line(flusher, twin):
    made = []

    def make(**settings):
        made.append(Line(flusher, **settings))
        return made[-1]

    yield make
    for each in made:
        each.end()


def keyed(key, payload, room="r"):
    marked = message_frame(payload, latest=key)
    marked.room = room
    return marked


def waiting(box):
    """The frames with a key that wait, but for those that have begun."""
    with box.outbox._lock:
        backlog = box.outbox._backlog
        found = [] if backlog is None else list(backlog.pieces)[backlog.begun :]
        box.outbox._check()
    return [piece for piece in found if isinstance(piece, MarkedFrame)]


def read_payloads(box, last, tokens=None):
    """What the client receives, until the text `last`. Releases a token for each."""
    data, found = bytearray(), []
    while not found or found[-1] != last:
        data += box.theirs.recv(1 << 20)
        frames, rest = parse_frames(bytes(data))
        data = bytearray(rest)
        found += [payload for _, payload in frames]
        if tokens is not None and frames:
            tokens.release(len(frames))
    assert not data
    return found


def test_a_slow_reader_has_the_last_of_each_key_and_its_outbox_never_holds_more(line):
    slow, quick = line(send_buffer=4096), line()
    both, got = (slow.outbox, quick.outbox), []
    total, filler, tokens = 10_000, b"x" * 100, threading.Semaphore(100)

    def broadcast():
        for n in range(total):
            assert tokens.acquire(timeout=DEADLINE_S)
            fanout.append_all(both, keyed(f"key {n % KEYS}", b"%d %b" % (n, filler)), None)
            if n % 10 == 0:
                assert tokens.acquire(timeout=DEADLINE_S)
                fanout.append_all(both, message_frame(b"plain %d" % n), None)
            while left := fanout.flush_all(both):
                fanout.flush_all(left)
            if n % 7 == 0:
                assert len(waiting(slow)) <= KEYS
        for box in (slow, quick):
            box.send(message_frame(b"end"))

    run_all(broadcast, lambda: got.extend(read_payloads(quick, b"end", tokens)))
    plain = [b"plain %d" % n for n in range(0, total, 10)]
    numbers = [b"%d %b" % (n, filler) for n in range(total)]
    assert [payload for payload in got if payload.endswith(b"x")] == numbers, "a quick reader has received all"
    assert quick.outbox.latest_replaced == 0
    read = read_payloads(slow, b"end")
    assert [payload for payload in read if payload.startswith(b"plain")] == plain, "the others are all there, in order"
    read = [payload for payload in read if payload.endswith(b"x")]
    assert read[-KEYS:] == numbers[-KEYS:]
    assert read == sorted(read, key=lambda payload: int(payload.split()[0]))
    assert len(read) + slow.outbox.latest_replaced == total
    assert slow.outbox.latest_replaced > total / 2
    wait_until(lambda: not slow.outbox.is_blocked, "the end of the write that the client has read")
    assert slow.outbox.bytes_waiting == 0


def test_frames_that_are_written_as_one_are_replaced_one_by_one(line):
    """A burst is joined to one write. When the kernel takes a part of it, the rest is still single frames."""
    box = line(send_buffer=4096)
    frames = [keyed(f"key {n % 3}", b"%03d" % n + b"x" * 1000) for n in range(300)]
    for frame in frames:
        box.outbox.append(frame)
    fanout.flush_all([box.outbox])
    assert box.outbox.is_blocked
    assert waiting(box) == frames[-3:]
    begun = box.outbox.bytes_waiting - sum(map(len, frames[-3:]))
    assert 0 <= begun < len(frames[0])
    box.send(keyed("key 0", b"new"))
    assert waiting(box) == [*frames[-2:], message_frame(b"new")]
    box.send(message_frame(b"end"))
    read = read_payloads(box, b"end")
    assert read[-4:] == [b"298" + b"x" * 1000, b"299" + b"x" * 1000, b"new", b"end"]
    assert read[:-4] == [b"%03d" % n + b"x" * 1000 for n in range(len(read) - 4)]
    assert len(read) + box.outbox.latest_replaced == 302
    assert box.outbox.messages_out == 302


@pytest.mark.parametrize("is_blocked", [False, True])
def test_frames_with_keys_are_freed(line, is_blocked):
    boxes = [line(send_buffer=4096) for _ in range(3)]
    frames = [keyed(f"key {n % 5}", b"%03d" % n + b"x" * (1000 if is_blocked else 1)) for n in range(100)]
    before = [sys.getrefcount(frame) for frame in frames]
    for _ in range(3):
        for frame in frames:
            fanout.append_all(tuple(box.outbox for box in boxes), frame, None)
        fanout.flush_all([box.outbox for box in boxes])
        assert all(box.outbox.is_blocked is is_blocked for box in boxes)
        for box in boxes:
            box.send(message_frame(b"end"))
            read_payloads(box, b"end")
            assert box.outbox.wait_sent(DEADLINE_S)
    del frame
    assert [sys.getrefcount(frame) for frame in frames] == before


@pytest.mark.parametrize("how", ["post", "flush", "flush_all"])
def test_a_frame_that_was_written_in_part_is_never_touched(line, how):
    box = line(send_buffer=4096)
    large = keyed("a", b"x" * 500_000)

    def send(frame):
        if how == "post":
            outbox.post(box.outbox, frame)
        elif how == "flush":
            box.send(frame)
        else:
            box.outbox.append(frame)
            fanout.flush_all([box.outbox])

    send(large)
    assert box.outbox.is_blocked
    for n in range(100):
        send(keyed("a", b"%d" % n))
    assert waiting(box) == [message_frame(b"99")]
    assert read_payloads(box, b"99") == [b"x" * 500_000, b"99"]
    assert box.outbox.latest_replaced == 99


def test_a_frame_that_the_kernel_has_not_begun_is_replaced(line):
    box = line(send_buffer=4096)
    box.fill()
    box.send(keyed("a", b"old"))
    box.send(keyed("a", b"new"))
    assert waiting(box) == [message_frame(b"new")]


def test_a_client_that_keeps_up_receives_all_even_of_one_burst(line):
    box = line()
    for n in range(50):
        box.outbox.append(keyed("a", b"%d" % n))
    box.outbox.flush()
    assert [payload for _, payload in box.read_frames(50)] == [b"%d" % n for n in range(50)]
    assert box.outbox.latest_replaced == 0


def test_pings_and_the_close_frame_keep_their_places(line):
    box = line(send_buffer=4096)
    filled = box.fill()
    box.send(keyed("a", b"1"))
    box.send(encode_frame(PING, b"p"))
    box.send(keyed("b", b"2"))
    box.send(message_frame(b"\0"))
    box.send(keyed("a", b"3"))
    assert box.outbox.close(close_frame(1000))
    assert not box.send(keyed("b", b"too late"))
    frames = []
    run_all(lambda: frames.extend(box.read_frames(filled + 5)))
    texts = [(BINARY, b"2"), (BINARY, b"\0"), (BINARY, b"3")]
    assert frames[filled:] == [(PING, b"p"), *texts, (CLOSE, b"\x03\xe8")]


def test_a_close_that_discards_drops_them_but_for_the_one_that_has_begun(line):
    box = line(send_buffer=4096)
    box.send(keyed("a", b"x" * 500_000))
    for n in range(10):
        box.send(keyed("a", b"%d" % n))
    box.outbox.close(close_frame(1013), discard=True)
    box.outbox._check()
    assert [len(payload) for _, payload in box.read_frames(2)] == [500_000, 2]


def test_what_was_replaced_counts_no_more_so_nobody_is_closed_as_too_slow(line):
    box = line(send_buffer=4096, max_bytes=1_000_000)
    box.fill()
    before = box.outbox.bytes_waiting
    for n in range(1_000):
        box.send(keyed("a", b"%d" % n + b"x" * 100_000))
    assert box.outbox.bytes_waiting < before + 100_100
    assert not box.stuck
    for n in range(12):
        box.send(keyed(f"key {n}", b"x" * 100_000))
    assert box.stuck
    assert "the limit is 1000000" in box.stuck[0]


def test_a_reader_that_reads_nothing_is_stuck_however_often_it_is_sent_something_new(line):
    box = line(send_buffer=4096, timeout_s=DEADLINE_S * 0.01)
    box.fill()
    done = threading.Event()

    def send():
        while not done.wait(0.001):
            box.send(keyed("a", b"again"))

    run_all(send, lambda: (wait_until(lambda: box.stuck, "a report"), done.set()))
    assert "nothing was read" in box.stuck[0]


def test_many_threads_and_a_reader_that_stops_and_goes(line):
    """Seeded: whatever the kernel takes and when, the last of each key arrives, and of plain frames all, in order."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    box, count, threads = line(send_buffer=dice.choice([2304, 16_384])), 1_500, 4
    sizes = dice.choices([1, 130, 3_000], [5, 5, 1], k=count)

    def write(thread):
        for n, size in enumerate(sizes):
            payload = b"%d %d %b" % (thread, n, b"x" * size)
            box.send(message_frame(payload) if n % 7 == 0 else keyed(f"{thread} {n % 5}", payload))

    def write_all():
        run_all(*[lambda t=t: write(t) for t in range(threads)])
        box.send(message_frame(b"end"))

    read, pause = [], threading.Event()

    def reader():
        data = bytearray()
        while not read or read[-1] != b"end":
            if dice.random() < 0.1:
                pause.wait(0.005)
            data += box.theirs.recv(dice.choice([100, 5_000, 100_000]))
            frames, rest = parse_frames(bytes(data))
            data = bytearray(rest)
            read.extend(payload for _, payload in frames)

    run_all(write_all, reader)
    box.outbox._check()
    found = [tuple(map(int, payload.split()[:2])) for payload in read[:-1]]
    for thread in range(threads):
        numbers = [n for who, n in found if who == thread]
        assert numbers == sorted(set(numbers))
        assert [n for n in numbers if n % 7 == 0] == list(range(0, count, 7))
        for key in range(5):
            last = max(n for n in range(count) if n % 5 == key and n % 7)
            assert last in numbers, "the last of a key is missing"
    assert len(read) + box.outbox.latest_replaced == threads * count + 1


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    return self_signed(tmp_path_factory.mktemp("tls"))


def test_over_tls_too_and_the_record_that_openssl_has_begun_stays(flusher, contexts):
    ours, theirs = socket.socketpair()
    result = []
    run_all(
        lambda: result.append(contexts[0].wrap_socket(ours, server_side=True)),
        lambda: result.append(contexts[1].wrap_socket(theirs)),
    )
    server, client = sorted(result, key=lambda sock: not sock.server_side)
    client.settimeout(DEADLINE_S)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    box = outbox.Outbox(TLSTransport(server), flusher, max_bytes=2**30, timeout_s=DEADLINE_S, on_stuck=lambda _: None)
    total = 3_000
    for n in range(total):
        box.append(keyed(f"key {n % KEYS}", b"%d %b" % (n, b"x" * 500)))
        if n % 3 == 0:
            box.flush()
        with box._lock:
            box._check()
            if box.is_blocked:
                assert len(list(filter(None, box._backlog.pieces))) <= KEYS + 16384 // 500 + 2
    box.append(message_frame(b"end"))
    box.flush()
    data, read = bytearray(), []
    while not read or read[-1] != b"end":
        data += client.recv(1 << 16)
        frames, rest = parse_frames(bytes(data))
        data = bytearray(rest)
        read += [payload for _, payload in frames]
    numbers = [int(payload.split()[0]) for payload in read[:-1]]
    assert numbers[-KEYS:] == list(range(total - KEYS, total))
    assert numbers == sorted(set(numbers))
    assert len(numbers) + box.latest_replaced == total
    box.detach()
    server.close()
    client.close()


def test_a_deflated_frame_has_the_key_of_its_message(line):
    deflated = encoding_for(Agreement(15, ""))
    marked = keyed("a", "hello " * 100)
    frame = deflated.frame(marked)
    assert len(frame) < len(marked)
    assert (frame.latest, frame.room, frame.is_kept) == ("a", "r", True)
    assert deflated.frame(keyed("a", "short")).latest == "a"
    assert type(deflated.frame(message_frame("hello " * 100))) is bytes
    box = line(send_buffer=4096)
    box.fill()
    for n in range(10):
        box.send(deflated.frame(keyed("a", f"{n} hello " * 100)))
    assert len(waiting(box)) == 1


def receive_text(client):
    """The next message, inflated if it was deflated."""
    while (header := parse_header(client.buffer)) is None or len(client.buffer) < sum(header[3:]):
        assert client._fill()
    end = sum(header[3:])
    payload, client.buffer = client.buffer[header.header_bytes : end], client.buffer[end:]
    return (zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff") if header.rsv1 else payload).decode()


@pytest.mark.parametrize("extension", ["", "permessage-deflate"])
def test_a_slow_client_of_a_server_and_a_fast_one(extension):
    """10,000 broadcasts of 100 keys to a room, some of them to all but one, amid others, as real clients see them."""

    class Joins(Recorder):
        def on_open(self, session):
            session.room("lobby").join()
            super().on_open(session)

    handler, total = Joins(), 10_000
    headers = {"Sec-WebSocket-Extensions": extension} if extension else {}
    with (
        endpoint(handler, max_outbox_bytes=2**20, compression=True, send_timeout_s=PROGRAM_S) as (app, port),
        RawClient(port, headers=headers, receive_buffer=4096) as slow,
        RawClient(port, headers=headers) as fast,
    ):
        assert slow.headers.get("sec-websocket-extensions", "").startswith(extension)
        for _ in range(2):
            handler.session()
        room = app.endpoint("/ws/test").room("lobby")
        noise = os.urandom(40_000).hex()
        tokens, got = threading.Semaphore(100), []

        def broadcast():
            for n in range(total):
                assert tokens.acquire(timeout=DEADLINE_S), f"a pause after {n}"
                at = n * 7 % 60_000
                room.broadcast(f"{n:05}{noise[at : at + 2_000]}", latest=f"key {n % KEYS}")
            room.broadcast("end")

        def read():
            while not got or got[-1] != "end":
                got.append(receive_text(fast))
                tokens.release()

        run_all(broadcast, read)
        assert [int(text[:5]) for text in got[:-1]] == list(range(total))
        found = []
        while not found or found[-1] != "end":
            found.append(receive_text(slow))
        numbers = [int(text[:5]) for text in found[:-1]]
        assert numbers == sorted(set(numbers))
        assert numbers[-KEYS:] == list(range(total - KEYS, total))
        totals = app.endpoint("/ws/test").totals()
        assert totals.latest_replaced == total - len(numbers) > 0
        assert totals.messages_out == 2 * (total + 1) - totals.latest_replaced
        assert "slow_sessions_closed" not in app.metrics.snapshot()


@pytest.mark.parametrize("in_room", [True, False])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_what_the_kernel_holds_for_a_slow_client_is_not_old(in_room, scheme, tmp_path):
    """Otherwise it would take megabytes, and the client would read positions of long ago."""
    rounds, size, sent = 20_000, 100, threading.Event()

    class Positions(Recorder):
        def on_message(self, session, message):
            session.room("lobby").join()
            send = session.room("lobby").broadcast if in_room else session.send
            for number in range(rounds):
                send(f"{number:0{size}}", latest="position")
            sent.set()

    server, tls = self_signed(tmp_path) if scheme == "wss" else (None, None)
    with (
        endpoint(Positions(), ssl_context=server, max_outbox_bytes=2**16) as (_, port),
        RawClient(port, receive_buffer=4096, tls=tls) as client,
    ):
        client.send(TEXT, b"go")
        assert sent.wait(DEADLINE_S)
        received = [int(receive_text(client))]
        while received[-1] != rounds - 1:
            received.append(int(receive_text(client)))
    assert received == sorted(received)
    assert len(received) < rounds / 4, "2 MB were sent"
