"""TLS: the files it is made of, and peers that are many, big, slow, rude or no TLS clients at all."""

from __future__ import annotations

import json
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.programs import DEADLINE_S, EXAMPLES, Program, own_threads, run_server, wait_until, wsthreads
from tests.wire import CLOSE, TEXT, RawClient, Recorder, close_payload, frame, parse_frames, request_bytes, run_all
from wsthreads import UsageError, WebSocketApp
from wsthreads.servers.tls import server_context


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two certificates and keys, and what may be wrong with such files."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("one", "two"):
        options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        openssl(*options.split(), *names, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")
    both = (folder / "one.key").read_text() + (folder / "one.pem").read_text()
    (folder / "both.pem").write_text(both)
    openssl("pkey", "-in", folder / "one.key", "-aes128", "-passout", "pass:x", "-out", folder / "encrypted.key")
    (folder / "encrypted.pem").write_text((folder / "encrypted.key").read_text() + (folder / "one.pem").read_text())
    (folder / "empty").touch()
    (folder / "cut.pem").write_text((folder / "one.pem").read_text()[:100])
    return folder


@pytest.mark.parametrize(
    ("certificate", "key", "complaint"),
    [
        ("nowhere.pem", "one.key", r"nowhere\.pem: no such file or directory"),
        ("one.pem", "nowhere.key", r"nowhere\.key: no such file or directory"),
        (".", "one.key", "is a directory"),
        ("empty", "one.key", "empty: this file has no PEM certificate"),
        ("one.key", "one.pem", r"one\.key: this file has no PEM certificate"),
        ("one.pem", None, r"one\.pem: this file has no PEM private key"),
        ("one.pem", "one.pem", r"one\.pem: this file has no PEM private key"),
        ("one.pem", "two.key", r"two\.key: the key does not match the certificate in .*one\.pem"),
        ("one.pem", "encrypted.key", r"encrypted\.key: the key is encrypted"),
        ("encrypted.pem", None, r"encrypted\.pem: the key is encrypted"),
        ("cut.pem", "one.key", r"cut\.pem and .*one\.key: cannot be used for TLS"),
    ],
)
def test_files_that_will_not_do_are_named(files: Path, certificate: str, key: str | None, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        server_context(files / certificate, None if key is None else files / key)
    assert "\n" not in str(caught.value)


def test_certificate_and_key_are_in_one_file_or_two_and_old_versions_are_not_spoken(files: Path) -> None:
    for context in (server_context(files / "both.pem"), server_context(files / "one.pem", files / "one.key")):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_command_speaks_tls_and_says_so(files: Path) -> None:
    options = ["--cert", files / "one.pem", "--key", files / "one.key"]
    with run_server(EXAMPLES / "chat.js", *options) as server:
        server.wait_for(rf"^  wss://127\.0\.0\.1:{server.port}/ws/chat  chat\.js: ")
        server.wait_for(rf"^  https://127\.0\.0\.1:{server.port}/  ")
        trusting = ssl.create_default_context(cafile=str(files / "one.pem"))
        page = f"https://127.0.0.1:{server.port}/_wsthreads/"
        with urllib.request.urlopen(page, timeout=DEADLINE_S, context=trusting) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(page, timeout=DEADLINE_S, context=ssl.create_default_context())
        url = f"wss://localhost:{server.port}/ws/chat?user=ann"
        command = [sys.executable, "-m", "wsthreads", "connect", url]
        environment = {"SSL_CERT_FILE": str(files / "one.pem")}
        with Program(command, stdin=subprocess.PIPE, env=environment) as talk:
            message = talk.wait_for("^← (.*)")[1]
            assert json.loads(message)["type"] == "welcome"
            talk.process.stdin.close()  # type: ignore[union-attr]
            assert talk.wait() == 0, talk.log
        assert server.end() == 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--cert", "one.pem", "--key", "two.key"], "wsthreads: two.key: the key does not match the certificate"),
        (["--key", "one.key"], "wsthreads: --key is the key of a certificate: add --cert"),
    ],
)
def test_the_command_complains_in_one_line(files: Path, options: list[str], complaint: str) -> None:
    done = wsthreads("run", EXAMPLES / "chat.py", *options, cwd=files, env={"TERM": "dumb"})
    assert done.returncode == 1
    assert done.stderr.startswith(complaint)
    assert done.stderr.count("\n") == 1


# Peers


@pytest.fixture
def contexts(files: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    client = ssl.create_default_context(cafile=str(files / "one.pem"))
    return server_context(files / "both.pem"), client


class Peer:
    """A TLS client that reads and writes at once, in one thread: OpenSSL objects are not for two."""

    def __init__(self, port: int, context: ssl.SSLContext, path: str = "/ws/test") -> None:
        self.raw = RawClient(port, path, tls=context)
        self.sock = self.raw.sock
        self.sock.setblocking(False)
        self.incoming = bytearray(self.raw.buffer)
        self.outgoing = bytearray()
        self.frames: list[tuple[int, bytes]] = []

    def send(self, payload: str | bytes) -> None:
        self.outgoing += frame(TEXT, payload)

    def step(self) -> None:
        """Write and read what can be at once."""
        with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while self.outgoing:
                del self.outgoing[: self.sock.send(memoryview(bytes(self.outgoing[:65536])))]
        with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while data := self.sock.recv(65536):
                self.incoming += data
            raise EOFError
        frames, rest = parse_frames(self.incoming)
        if frames:
            self.frames += frames
            self.incoming = bytearray(rest)


def pump(peers: Iterable[Peer], until: Callable[[Peer], bool]) -> None:
    """Let all read and write until each is satisfied."""
    waiting, deadline = list(peers), time.monotonic() + 3 * DEADLINE_S
    while waiting:
        assert time.monotonic() < deadline, f"{len(waiting)} still wait"
        poller = select.poll()
        for peer in waiting:
            poller.register(peer.sock, select.POLLIN | (select.POLLOUT if peer.outgoing else 0))
        poller.poll(100)
        for peer in waiting:
            peer.step()
        waiting = [peer for peer in waiting if not until(peer)]


class Rooms(Recorder):
    """All are in one room; each message goes to all of them, and back to its sender."""

    def on_open(self, session: Any) -> None:
        session.room("all").join()
        super().on_open(session)

    def on_message(self, session: Any, message: Any) -> None:
        if message.startswith("all "):
            session.room("all").broadcast(message)
        else:
            session.send(message)


@pytest.fixture
def tls(
    serve: Callable[..., Any], contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> Iterator[Callable[..., tuple[Any, Rooms, ssl.SSLContext]]]:
    """(server, handler, a client's context) of a server with settings."""

    def start(**settings: Any) -> tuple[Any, Rooms, ssl.SSLContext]:
        app, handler = WebSocketApp(**settings), Rooms()
        app.add_handler("/ws/test", handler)
        return serve(app, ssl_context=contexts[0]), handler, contexts[1]

    return start


def test_big_messages_both_ways_at_once_stay_whole(tls: Callable[..., Any]) -> None:
    size = 3_000_000
    server, _, context = tls(max_message_bytes=2 * size, max_outbox_bytes=16 * size)
    payloads = [os.urandom(size // 2).hex() for _ in range(3)]

    def talk() -> None:
        peer = Peer(server.port, context)
        for payload in payloads:
            peer.send(payload)
        pump([peer], lambda peer: len(peer.frames) == len(payloads))
        assert [received.decode() for _, received in peer.frames] == payloads
        peer.sock.close()

    run_all(talk, talk)


def test_broadcasts_of_many_members_reach_all_of_them_whole_and_in_one_order(tls: Callable[..., Any]) -> None:
    server, handler, context = tls(max_outbox_bytes=2**26)
    peers = [Peer(server.port, context) for _ in range(25)]
    for _ in peers:
        handler.session()
    each = 20
    for number, peer in enumerate(peers):
        for count in range(each):
            peer.send(f"all {number} {count} " + "x" * (count * 997))
    pump(peers, lambda peer: len(peer.frames) == each * len(peers))
    [heard] = {tuple(peer.frames) for peer in peers}
    for number in range(len(peers)):
        own = [payload.split()[2] for _, payload in heard if payload.split()[1] == b"%d" % number]
        assert own == [b"%d" % count for count in range(each)]
    assert {len(payload.split()[-1]) for _, payload in heard} >= {997 * (each - 1)}
    for peer in peers:
        peer.sock.close()


def test_a_reader_that_stops_reading_is_closed_and_no_other_waits_for_it(tls: Callable[..., Any]) -> None:
    server, handler, context = tls(max_outbox_bytes=200_000, send_timeout_s=60, close_timeout_s=0.2)
    with RawClient(server.port, tls=context, receive_buffer=4096):  # reads nothing from here on
        slow = handler.session()
        peer = Peer(server.port, context)
        handler.session()
        sent = 0
        while slow.is_open():
            peer.send(f"all {sent} " + "x" * 50_000)
            sent += 1
            pump([peer], lambda peer, sent=sent: len(peer.frames) == sent)  # type: ignore[misc]
            assert sent < 1000, "it was never closed"
        code, reason = handler.close()
        assert (code, reason[:8]) == (1013, "too slow")
        peer.sock.close()


def fin(raw: socket.socket) -> None:
    raw.shutdown(socket.SHUT_WR)


def reset(raw: socket.socket) -> None:
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


def garbage(raw: socket.socket) -> None:
    raw.sendall(b"\x17\x03\x03\x00\x20" + os.urandom(32))


def half_a_record(raw: socket.socket) -> None:
    raw.sendall(b"\x17\x03\x03\x40\x00" + bytes(100))
    fin(raw)


@pytest.mark.parametrize("end", [fin, reset, garbage, half_a_record])
def test_a_connection_that_ends_without_tls_s_own_farewell_is_lost_and_nothing_else(
    tls: Callable[..., Any], end: Callable[[socket.socket], None], caplog: pytest.LogCaptureFixture
) -> None:
    server, handler, context = tls()
    peer = Peer(server.port, context)
    handler.session()
    rude = RawClient(server.port, tls=context)
    handler.session()
    raw = socket.socket(fileno=rude.sock.detach())  # past TLS
    try:
        end(raw)
        assert handler.close()[0] == 1006
    finally:
        raw.close()
    peer.send("still there")
    pump([peer], lambda peer: bool(peer.frames))
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    peer.sock.close()


def test_a_clean_close_is_one_under_tls_too(tls: Callable[..., Any]) -> None:
    server, handler, context = tls()
    with RawClient(server.port, tls=context) as client:
        client.send(CLOSE, close_payload(4000, "done"))
        assert client.receive_close()[0] == 4000
        assert client.at_end()
        assert handler.close() == (4000, "done")


def test_a_plain_http_client_is_let_go_and_keeps_nobody_waiting(
    tls: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    server, _, context = tls()
    for nonsense in (request_bytes(), b"\0" * 100, b"\x16\x03\x01\xff\xff"):
        with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as plain:
            plain.sendall(nonsense)
            with suppress(OSError):  # the server may have reset it already
                plain.shutdown(socket.SHUT_WR)
            answer = b""
            with suppress(ConnectionResetError):
                while data := plain.recv(4096):
                    answer += data
            assert b"HTTP/1.1 101" not in answer
    with RawClient(server.port, tls=context) as client:
        client.leave()
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_clients_that_take_their_time_do_not_slow_down_accepting(tls: Callable[..., Any]) -> None:
    server, _, context = tls(handshake_timeout_s=60)
    with ExitStack() as stack:
        greeted, idle = (
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), DEADLINE_S)) for _ in range(2)
        )
        greeted.sendall(client_hello(context))
        stack.enter_context(context.wrap_socket(idle, server_hostname="127.0.0.1"))
        wait_until(lambda: len(server._http._links) == 2 and server._http._new == 0, "nobody waits for their requests")


def begin_handshakes(port: int, context: ssl.SSLContext, stack: ExitStack) -> list[socket.socket]:
    """20 clients that have sent more or less of their first message."""
    stalled = [stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE_S)) for _ in range(20)]
    for number, sock in enumerate(stalled):
        sock.sendall(client_hello(context)[: number * 10])
    return stalled


def test_handshakes_that_stall_keep_nobody_waiting(tls: Callable[..., Any]) -> None:
    server, _, context = tls(handshake_timeout_s=60)
    with ExitStack() as stack:
        begin_handshakes(server.port, context, stack)
        with RawClient(server.port, tls=context) as client:  # at once, and not after them
            assert client.status == 101
            assert len(connections()) == 21
            client.leave()


def test_handshakes_that_stall_are_given_up(tls: Callable[..., Any]) -> None:
    server, _, context = tls(handshake_timeout_s=1)
    with ExitStack() as stack:
        began = time.monotonic()
        stalled = begin_handshakes(server.port, context, stack)
        drip = stalled[0]
        drip.settimeout(0.05)
        with suppress(ConnectionError):
            for byte in client_hello(context):  # however steadily it comes in
                drip.sendall(bytes([byte]))
                with suppress(TimeoutError):
                    if not drip.recv(1):
                        break
        assert time.monotonic() - began < 1 + DEADLINE_S / 2
        for sock in stalled[1:]:
            with suppress(ConnectionResetError):
                assert sock.recv(100) == b""
    wait_until(lambda: not connections())


def test_stopping_does_not_wait_for_handshakes_that_stall(tls: Callable[..., Any]) -> None:
    server, _, _ = tls(handshake_timeout_s=60, shutdown_timeout_s=60)
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S):
        wait_until(connections)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < DEADLINE_S
    assert not connections()


def test_stopping_finds_a_handshake_that_begins_meanwhile(tls: Callable[..., Any], monkeypatch: Any) -> None:
    """Its socket is another one from there on."""
    server, _, _ = tls(handshake_timeout_s=10 * DEADLINE_S, shutdown_timeout_s=10 * DEADLINE_S)
    begun, dropped, http = threading.Event(), threading.Event(), server._http
    context, drop_idle = http.ssl_context, http.drop_idle

    class Context:
        def wrap_socket(self, *arguments: Any, **options: Any) -> Any:
            wrapped = context.wrap_socket(*arguments, **options)
            begun.set()
            assert dropped.wait(DEADLINE_S)
            return wrapped

    monkeypatch.setattr("wsthreads.servers.stalled_clients.STALL_S", 20 * DEADLINE_S)
    monkeypatch.setattr(http, "ssl_context", Context())
    monkeypatch.setattr(http, "drop_idle", lambda: (drop_idle(), dropped.set()))
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S):
        assert begun.wait(DEADLINE_S)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < DEADLINE_S
    assert not connections()


def connections() -> list[str]:
    return own_threads("wsthreads-connection")


def client_hello(context: ssl.SSLContext) -> bytes:
    """What a client sends first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    assert len(hello) > 200
    return hello
