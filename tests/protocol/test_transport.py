"""Sockets under several threads, plain and TLS."""

import hashlib
import os
import select
import socket
import ssl
import struct
import threading
from contextlib import suppress
from time import monotonic

import pytest

import wsthreads.protocol.transport
from tests.programs import DEADLINE_S, wait_until
from tests.wire import CLOSE, TEXT, close_payload, frame, parse_frames, run_all, self_signed
from wsthreads.protocol.frames import close_frame, encode_frame
from wsthreads.protocol.outbox import Outbox
from wsthreads.protocol.transport import PlainTransport, TLSTransport, transport_for

MEBIBYTES = 4


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["plain", "tls"])
def ends(request, contexts):
    """(server's socket, client's socket), connected over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), DEADLINE_S)
        server, _ = listener.accept()
    if request.param == "tls":
        result = []
        thread = threading.Thread(target=lambda: result.append(contexts[0].wrap_socket(server, server_side=True)))
        thread.start()
        client = contexts[1].wrap_socket(client)
        thread.join(DEADLINE_S)
        server = result[0]
    client.settimeout(DEADLINE_S)
    yield server, client
    server.close()
    client.close()


def read_exactly(sock, size):
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(min(1 << 18, size - len(data)))
        assert piece, f"the stream ends after {len(data)} of {size} bytes"
        data += piece
    return bytes(data)


def test_each_kind_of_socket_gets_its_transport_with_nagle_off(ends):
    server, _ = ends
    transport = transport_for(server)
    assert isinstance(transport, TLSTransport) == hasattr(server, "cipher")
    assert transport.fileno() == server.fileno()
    assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_socket_that_is_no_tcp_will_do(flusher):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert PlainTransport(ours).send(b"hello") == 5
        assert theirs.recv(10) == b"hello"


def test_a_socket_that_had_a_timeout_still_never_waits_in_send(ends):
    server, _ = ends
    server.settimeout(DEADLINE_S)
    transport, began = transport_for(server), monotonic()
    while transport.send(b"x" * 100_000):
        assert monotonic() - began < DEADLINE_S / 2
    assert monotonic() - began < DEADLINE_S / 2


def test_receive_blocks_until_there_is_something_and_ends_empty(ends):
    server, client = ends
    transport, got = transport_for(server), []
    thread = threading.Thread(target=lambda: got.extend(iter(lambda: transport.receive(100), b"")))
    thread.start()
    client.sendall(b"hello")
    wait_until(lambda: got, "the input")
    assert thread.is_alive()
    socket.socket.shutdown(client, socket.SHUT_WR)
    thread.join(DEADLINE_S)
    assert got == [b"hello"]


def test_abort_wakes_a_reader_that_waits_and_the_peer_sees_the_end(ends):
    server, client = ends
    transport, ended, began = transport_for(server), [], threading.Event()

    def read():
        began.set()
        try:
            ended.append(transport.receive(100))
        except OSError:
            ended.append(b"")

    thread = threading.Thread(target=read)
    thread.start()
    assert began.wait(DEADLINE_S)
    thread.join(0.02)
    transport.abort()
    thread.join(DEADLINE_S)
    assert ended == [b""]
    transport.abort()
    with suppress(ssl.SSLEOFError):  # TLS without a farewell
        assert client.recv(1) == b""


def test_abort_after_the_server_has_closed_the_socket_is_harmless(ends):
    server, _ = ends
    transport = transport_for(server)
    server.close()
    transport.abort()
    transport.end_writing()
    assert transport.fileno() == -1
    with pytest.raises(OSError, match="file descriptor"):
        transport.send(b"x")


@pytest.mark.usefixtures("lingering")
def test_linger_reads_until_the_peer_ends_and_no_longer_than_it_may(ends):
    server, client = ends
    transport = transport_for(server)
    began = monotonic()
    transport.linger(0.05)
    assert 0.04 < monotonic() - began < DEADLINE_S / 2
    client.sendall(b"x" * 100_000)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (transport.linger(DEADLINE_S), done.set()))
    thread.start()
    client.sendall(b"x" * 1_000_000)
    assert not done.is_set()
    client.close()
    assert done.wait(DEADLINE_S / 2)
    thread.join(DEADLINE_S)


@pytest.fixture(params=["as it is", "pure Python"])
def lingering(request, monkeypatch):
    """Lingers in C where that is built, and then in Python."""
    if request.param == "pure Python":
        monkeypatch.setattr(wsthreads.protocol.transport, "speedups", None)


def flooding(client):
    """A thread that sends as much as is taken; its `sent` has how much that was."""

    def flood():
        with suppress(OSError):
            while True:
                thread.sent += client.send(b"x" * 65536)

    thread = threading.Thread(target=flood)
    thread.sent = 0
    client.settimeout(0.5)
    thread.start()
    return thread


@pytest.mark.usefixtures("lingering")
def test_a_client_that_goes_on_sending_is_discarded_a_little_at_a_time(ends):
    server, client = ends
    thread = flooding(client)
    wait_until(lambda: thread.sent and not client_can_send(client), "the buffers to be full")
    before = thread.sent
    transport_for(server).linger(0.2)
    assert thread.sent - before < 4_000_000  # 0.3 MB were discarded; buffers may grow
    socket.socket.shutdown(client, socket.SHUT_RDWR)
    thread.join(DEADLINE_S)


def client_can_send(client):
    return bool(select.select([], [client], [], 0)[1])


@pytest.mark.usefixtures("lingering")
def test_who_sends_a_large_message_can_end_it_within_the_time(ends):
    (server, client), sent = ends, threading.Event()
    client.settimeout(DEADLINE_S)
    thread = threading.Thread(target=lambda: (client.sendall(bytes(12_000_000)), sent.set(), client.close()))
    thread.start()
    transport_for(server).linger(DEADLINE_S)
    assert sent.is_set()
    thread.join(DEADLINE_S)


@pytest.mark.parametrize("ends", ["plain"], indirect=True)
@pytest.mark.usefixtures("lingering")
def test_linger_leaves_nothing_to_read_of_a_client_that_has_gone(ends):
    """Werkzeug would read it, into memory, and the kernel have a reset overtake what we sent last."""
    server, client = ends
    client.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            client.send(b"x" * 65536)
    client.shutdown(socket.SHUT_WR)
    transport, began = transport_for(server), monotonic()
    transport.linger(DEADLINE_S)
    assert monotonic() - began < DEADLINE_S / 2
    assert server.recv(1) == b""


@pytest.mark.parametrize("ends", ["plain"], indirect=True)  # that a TLS client sees the end is in test_service
def test_the_peer_sees_our_end_while_it_can_still_be_read(ends):
    server, client = ends
    transport = transport_for(server)
    transport.send(b"last")
    transport.end_writing()
    assert read_exactly(client, 4) == b"last"
    assert client.recv(1) == b""
    client.sendall(b"answer")
    assert transport.receive(100) == b"answer"


def test_both_directions_at_once_carry_every_byte(ends, flusher):
    """Four broadcasters write while the reader reads: OpenSSL's object must not be used by two threads at once."""
    server, client = ends
    transport = transport_for(server)
    outbox = Outbox(transport, flusher, max_bytes=2**30, timeout_s=DEADLINE_S, on_stuck=lambda reason: None)
    piece = os.urandom(32_768)
    each = MEBIBYTES * 2**20 // 4 // len(piece)
    incoming, outgoing = hashlib.sha256(), hashlib.sha256()
    total_in = MEBIBYTES * 2**20

    def broadcast(n):
        for k in range(each):
            outbox.append(encode_frame(TEXT, struct.pack("!HI", n, k) + piece))
            outbox.flush()

    def server_reads():
        left = total_in
        while left:
            data = transport.receive(16384)
            assert data, "the stream has ended"
            incoming.update(data)
            left -= len(data)

    def client_writes():
        for _ in range(total_in // 65536):
            data = os.urandom(65536)
            outgoing.update(data)
            client_lock_free.sendall(data)

    got = bytearray()

    def client_reads():
        size = len(encode_frame(TEXT, b"123456" + piece)) * each * 4
        while len(got) < size:
            data = client_lock_free.recv(1 << 18)
            assert data
            got.extend(data)

    client_lock_free = _Client(client)
    writers = [lambda n=n: broadcast(n) for n in range(4)]
    run_all(*writers, server_reads, client_writes, client_reads)
    assert incoming.digest() == outgoing.digest()
    frames, rest = parse_frames(got)
    assert not rest
    order = {n: [] for n in range(4)}
    for _, payload in frames:
        n, k = struct.unpack_from("!HI", payload)
        assert payload[6:] == piece
        order[n].append(k)
    assert all(numbers == list(range(each)) for numbers in order.values())
    outbox.detach()


class _Watched:
    """A TLS socket whose methods notice when two threads are in them at once, and take a while, so that they would."""

    def __init__(self, sock):
        self._sock = sock
        self._inside = threading.Lock()
        self.overlaps = 0

    def __getattr__(self, name):
        return getattr(self._sock, name)

    def _alone(self, method, argument):
        if not self._inside.acquire(blocking=False):
            self.overlaps += 1
            return method(argument)
        try:
            threading.Event().wait(0.001)
            return method(argument)
        finally:
            self._inside.release()

    def recv(self, size):
        return self._alone(self._sock.recv, size)

    def send(self, data):
        return self._alone(self._sock.send, data)


@pytest.mark.parametrize("ends", ["tls"], indirect=True)
def test_no_two_threads_are_in_openssl_at_once_for_one_connection(ends):
    """Before Python 3.13.4 nothing else keeps them apart, and OpenSSL's object breaks, but seldom enough to hide."""
    server, client = ends
    transport = TLSTransport(server)
    watched = transport._sock = _Watched(server)
    sender = threading.Thread(target=lambda: client.sendall(b"x" * 50 * 100))

    def read():
        left = 50 * 100
        while left:
            left -= len(transport.receive(100))

    def write():
        for _ in range(50):
            assert transport.send(b"y" * 100) == 100

    sender.start()
    run_all(read, write, write)
    sender.join(DEADLINE_S)
    assert len(read_exactly(client, 100 * 100)) == 100 * 100
    assert watched.overlaps == 0


class _Client:
    """The test's own end, which is in use by two threads as well: our transport takes care of TLS here too."""

    def __init__(self, sock):
        self.transport = transport_for(sock)
        self.recv = self.transport.receive

    def sendall(self, data):
        pause, view = threading.Event(), memoryview(data)
        while view:
            sent = self.transport.send(view)
            view = view[sent:]
            if not sent:
                pause.wait(0.001)


def test_a_client_that_is_too_slow_gets_whole_frames_and_then_the_close_frame(ends, flusher):
    """TLS: OpenSSL insists on the bytes that it could not send, so the first of what waits cannot be dropped."""
    server, client = ends
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    outbox = Outbox(transport_for(server), flusher, max_bytes=2**30, timeout_s=DEADLINE_S, on_stuck=lambda _: None)
    count = 0
    while not outbox.is_blocked or outbox.bytes_waiting < 300_000:
        outbox.append(encode_frame(TEXT, b"%06d" % count * 200))
        outbox.flush()
        count += 1
    assert outbox.close(close_frame(1013, "too slow"), discard=True)
    outbox._check()
    data = bytearray()
    while not data.endswith(close_frame(1013, "too slow")):
        piece = client.recv(1 << 18)
        assert piece, "no close frame"
        data += piece
    frames, rest = parse_frames(data)
    assert not rest
    assert frames[-1] == (CLOSE, close_payload(1013, "too slow"))
    texts = [payload for _, payload in frames[:-1]]
    assert texts == [b"%06d" % n * 200 for n in range(len(texts))]
    assert len(texts) < count, "nothing was dropped"
    outbox.detach()


@pytest.mark.quiet  # a reader that gets no core for 0.8 s looks like one that reads no more
def test_a_reader_that_is_slow_but_goes_on_has_made_progress(ends, flusher):
    """A write is all or nothing to OpenSSL: only record by record can anybody see that the client reads."""
    server, client = ends
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    stuck, timeout_s = [], DEADLINE_S * 0.08
    outbox = Outbox(transport_for(server), flusher, max_bytes=2**30, timeout_s=timeout_s, on_stuck=stuck.append)
    outbox.append(encode_frame(TEXT, bytes(20_000_000)))
    outbox.flush()
    pause, longest = threading.Event(), 0.0
    began = last = monotonic()
    while last - began < DEADLINE_S * 0.15:
        assert client.recv(16384)
        pause.wait(0.01)
        longest, last = max(longest, monotonic() - last), monotonic()
    assert outbox.is_blocked
    assert not stuck or longest > timeout_s / 2, "unless this thread stood still itself"
    outbox.detach()


def test_a_large_message_to_a_reader_that_keeps_up_is_not_sent_in_ticks(ends, flusher):
    server, client = ends
    outbox = Outbox(transport_for(server), flusher, max_bytes=2**30, timeout_s=DEADLINE_S, on_stuck=lambda _: None)
    message = encode_frame(TEXT, b"x" * 60_000)
    outbox.append(message)
    outbox.flush()
    assert not outbox.is_blocked, "the kernel has room for all of it"
    assert read_exactly(client, len(message)) == message
    outbox.detach()


def test_frames_of_a_client_can_be_read_as_they_come(ends):
    server, client = ends
    transport = transport_for(server)
    data = frame(TEXT, "hello")
    client.sendall(data)
    assert transport.receive(100) == data
