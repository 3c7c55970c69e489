"""`fetch` of scripts with long bodies, to servers that answer before they have read all of the body."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.javascript.origins import Origin, Received, response
from tests.javascript.test_fetch import Asking, asking
from tests.javascript.test_fetch_limits import no_threads_left
from tests.javascript_fakes import SHORT_S
from tests.programs import DEADLINE_S
from tests.wire import self_signed
from wsthreads.hosts import AllowedHosts
from wsthreads.javascript.fetch_requests import FetchFailed, checked_request
from wsthreads.javascript.http_connections import Connection, Connections
from wsthreads.javascript.http_uploads import EarlyAnswer, send_in_pieces

SIZE = 12_000_000  # more than the buffers of the kernel take
POST = f"fetch(base + '/x', {{ method: 'POST', body: 'x'.repeat({SIZE}) }})"
TEXT = f"const r = await {POST}; return [r.status, await r.text()]"

TOO_LARGE = response(b"too large", "Connection: close", status="413 Content Too Large")
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=["http", "https"])
def origin(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    context = None
    if request.param == "https":
        context, _ = self_signed(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    with Origin(context=context) as started:
        started.routes["/size"] = lambda received, _: response(b"%d" % len(received.body))
        yield started


@pytest.fixture
def js(origin: Origin, tmp_path: Path) -> Iterator[Asking]:
    with asking(origin, tmp_path) as script:
        yield Asking(script)
    no_threads_left()


Pair = tuple[socket.socket, socket.socket]
End = Callable[["Early", socket.socket, Any], bytes | None]


@pytest.fixture
def connected(tmp_path: Path) -> Iterator[Pair]:
    """The client's and the server's end of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel makes it a few KiB
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            yield client, server


class Early:
    """A route that sends an answer before it has read the body, and then calls `end`."""

    def __init__(self, origin: Origin, end: End, *answer: bytes) -> None:
        self.answer = answer
        self.end = end
        self.go_on = threading.Event()  # for `silence`
        self.ended = threading.Event()
        self.received = 0  # how many bytes of the body
        origin.early["/x"] = self

    def __call__(self, request: Received, connection: socket.socket, reader: Any) -> bytes | None:
        for part in self.answer:
            connection.sendall(part)
            time.sleep(0.01)
        return self.end(self, connection, reader)

    def read(self, reader: Any, piece: int = 65_536) -> None:
        """Read the body as far as it comes."""
        with suppress(OSError):
            while self.received < SIZE and (data := reader.read(min(piece, SIZE - self.received))):
                self.received += len(data)


def silence(early: Early, connection: socket.socket, reader: Any) -> None:
    assert early.go_on.wait(DEADLINE_S)
    early.read(reader)
    early.ended.set()


def close(early: Early, connection: socket.socket, reader: Any) -> None:
    pass


def reset(early: Early, connection: socket.socket, reader: Any) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()  # takes effect when the reader is closed


@pytest.mark.parametrize("end", [silence, close, reset])
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (TOO_LARGE, [413, "too large"]),
        (response(b"who?", "WWW-Authenticate: Basic", status="401 Unauthorized"), [401, "who?"]),
        (INTERIM + TOO_LARGE, [413, "too large"]),
        (response(b"done"), [200, "done"]),
        (INTERIM + CHUNKED + b"4\r\ndone\r\n0\r\n\r\n", [200, "done"]),
    ],
)
def test_an_answer_that_comes_before_the_body_was_read_is_heard(
    origin: Origin, js: Asking, answer: bytes, told: list[Any], end: End
) -> None:
    early = Early(origin, end, answer)
    assert js(TEXT) == told
    assert len(origin.requests) == 1
    assert js("return (await fetch(base + '/echo')).status") == 200
    assert origin.connections == 2, "a connection with an unfinished request is not used again"
    if end is silence:
        early.go_on.set()
        assert early.ended.wait(DEADLINE_S)
        assert early.received < SIZE


@pytest.mark.parametrize("end", [silence, close, reset])
def test_an_early_redirect_is_followed_with_the_body(origin: Origin, js: Asking, end: End) -> None:
    early = Early(origin, end, response(b"moved", "Location: /size", status="307 Temporary Redirect"))
    assert js(TEXT) == [200, str(SIZE)]
    assert [request.target for request in origin.requests] == ["/x", "/size"]
    early.go_on.set()


def test_an_early_answer_may_come_bit_by_bit(origin: Origin, js: Asking) -> None:
    early = Early(origin, silence, *(TOO_LARGE[at : at + 7] for at in range(0, len(TOO_LARGE), 7)))
    assert js(TEXT) == [413, "too large"]
    early.go_on.set()


def test_the_rest_of_an_early_answer_may_come_late(origin: Origin, js: Asking) -> None:
    def late(early: Early, connection: socket.socket, reader: Any) -> None:
        assert early.go_on.wait(DEADLINE_S)
        connection.sendall(TOO_LARGE[-5:])
        early.read(reader)

    def go_on(*_: object) -> bytes:
        early.go_on.set()
        return response()

    early = Early(origin, late, TOO_LARGE[:-5])
    origin.routes["/go"] = go_on
    told = js(f"const r = await {POST}; await fetch(base + '/go'); return [r.status, await r.text()]")
    assert told == [413, "too large"]


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_an_early_answer_on_a_kept_connection_is_heard(origin: Origin, js: Asking, method: str) -> None:
    early = Early(origin, silence, TOO_LARGE)
    js("await (await fetch(base + '/echo')).text()")
    assert js(TEXT.replace("POST", method)) == [413, "too large"]
    assert (origin.connections, len(origin.requests)) == (1, 2)
    early.go_on.set()


def test_an_early_408_on_a_kept_connection_is_no_answer_to_a_request_that_can_be_sent_again(
    origin: Origin, js: Asking
) -> None:
    timeout = response(b"", "Connection: close", status="408 Request Timeout")
    early = Early(origin, silence, timeout)
    js("await (await fetch(base + '/echo')).text()")
    early.go_on.set()
    assert js(TEXT.replace("POST", "PUT")) == [408, ""], "on the second connection, it is an answer"
    assert (origin.connections, len(origin.requests)) == (2, 3)


@pytest.mark.parametrize("size", [10, SIZE])
def test_a_kept_connection_that_the_server_closes_while_a_request_begins_is_replaced(
    origin: Origin, js: Asking, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    closing, closed = threading.Event(), threading.Event()

    def close_late(_: Received, connection: socket.socket) -> None:
        connection.sendall(response(b"first"))
        assert closing.wait(DEADLINE_S)
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    origin.routes["/x"] = close_late
    js("await (await fetch(base + '/x')).text()")
    send = Connection.send

    def send_late(self: Connection, request: Any) -> Any:  # after the look at the connection
        closing.set()
        assert closed.wait(DEADLINE_S)
        return send(self, request)

    monkeypatch.setattr(Connection, "send", send_late)
    put = f"fetch(base + '/size', {{ method: 'PUT', body: 'x'.repeat({size}) }})"
    assert js(f"return (await {put}).text()") == str(size)
    assert origin.connections == 2


# Answers that are cut.


@pytest.mark.parametrize("end", [close, reset])
@pytest.mark.parametrize("status", [b"413 Content Too Large", b"200 OK"])
def test_an_early_answer_that_is_cut(
    origin: Origin, js: Asking, status: bytes, end: End
) -> None:
    Early(origin, end, b"HTTP/1.1 %b\r\nContent-Length: 100\r\n\r\nabc" % status)
    told = js(f"const r = await {POST}; return [r.status, await r.text().catch((error) => error.message)]")
    assert told[0] == int(status[:3])
    assert "the connection " in told[1], "was closed before the end of the body, or failed: it was reset"
    Early(origin, end, b"HTTP/1.1 %b\r\nContent-Le" % status)
    assert js(TEXT).startswith(f"TypeError: POST {origin.url}: the connection failed: ")


@pytest.mark.parametrize("status", [b"413 Content Too Large", b"200 OK"])
def test_an_early_answer_without_a_length_is_not_whole_without_the_end_of_tls(
    origin: Origin, js: Asking, status: bytes
) -> None:
    Early(origin, close, b"HTTP/1.1 %b\r\n\r\nabc" % status)
    told = js(f"const r = await {POST}; return [r.status, await r.text().catch((error) => error.message)]")
    assert told[0] == int(status[:3])
    if origin.url.startswith("https"):
        assert told[1].endswith("closed without the end of TLS, so a part of the body may be missing")


def test_a_server_that_closes_its_half_without_an_answer_is_not_waited_for(origin: Origin, js: Asking) -> None:
    def close_half(early: Early, connection: socket.socket, reader: Any) -> None:
        connection.shutdown(socket.SHUT_WR)
        silence(early, connection, reader)

    early = Early(origin, close_half)
    assert js(TEXT).startswith(f"TypeError: POST {origin.url}: the connection failed: ")
    early.go_on.set()


def test_what_came_before_a_reset_is_read_with_the_response_and_then_the_error(connected: Pair) -> None:
    client, server = connected
    server.sendall(b"HTTP/1.1 200 OK\r\n\r\nabc")
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    early = bytearray()
    assert send_in_pieces(client, bytes(SIZE), early, monotonic() + DEADLINE_S, SIZE) is False
    client.settimeout(DEADLINE_S)
    with pytest.raises(ConnectionResetError):  # and no end, which would be the end of a body without a length
        while early := early + client.recv(1000):
            assert b"HTTP/1.1 200 OK\r\n\r\nabc".startswith(early)


def test_a_violation_in_an_early_answer_is_an_error(origin: Origin, js: Asking) -> None:
    early = Early(origin, silence, b"HTTP/1.1 413 Too Large\r\nContent-Length: +5\r\n\r\nabcde")
    assert "the content-length is not one number" in js(TEXT)
    early.go_on.set()
    early = Early(origin, silence, b"HTTP/1.1 103 Early\r\nno header\r\n\r\n" + TOO_LARGE)
    assert "a line of the response's head is not a header" in js(TEXT)
    early.go_on.set()


# Bodies that are sent whole.


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((), b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"),
        ((INTERIM,), b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"),
        ((INTERIM * 2000,), b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"),
        ((b"HTTP/1.1 200 OK\r\n",), b"Content-Length: 4\r\n\r\ndone"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndo",), b"ne"),
        ((CHUNKED + b"1\r\nd\r\n3\r\no",), b"ne\r\n0\r\n\r\n"),
        ((CHUNKED + b"4\r\ndone\r\n0\r\n",), b"\r\n"),
    ],
)
@pytest.mark.parametrize("piece", [4096, 65_536])
def test_a_server_that_reads_slowly_gets_the_whole_body(
    origin: Origin, js: Asking, before: tuple[bytes, ...], after: bytes, piece: int
) -> None:
    def read(early: Early, connection: socket.socket, reader: Any) -> bytes:
        for _ in range(10):
            early.received += len(reader.read(piece))
            time.sleep(0.01)
        early.read(reader, piece)
        return after

    early = Early(origin, read, *before)
    assert js(TEXT) == [200, "done"]
    assert early.received == SIZE
    assert js("return (await fetch(base + '/echo')).status") == 200
    assert origin.connections == 1


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_server_may_send_the_body_back_while_it_reads_it(origin: Origin, js: Asking, is_chunked: bool) -> None:
    def send_back(early: Early, connection: socket.socket, reader: Any) -> bytes:
        while early.received < SIZE:
            data = reader.read(min(8192, SIZE - early.received))
            early.received += len(data)
            connection.sendall(b"%x\r\n%b\r\n" % (len(data), data) if is_chunked else data)
        return b"0\r\n\r\n" if is_chunked else b""

    Early(origin, send_back, CHUNKED if is_chunked else b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
    told = js(f"const r = await {POST}; const text = await r.text(); return [text.length, text === 'x'.repeat({SIZE})]")
    assert told == [SIZE, True]
    assert js("return (await fetch(base + '/echo')).status") == 200
    assert origin.connections == 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "changes to another protocol"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
    ],
)
def test_input_that_is_no_answer_ends_the_upload(origin: Origin, js: Asking, answer: bytes, told: str) -> None:
    early = Early(origin, silence, answer)
    assert told in js(TEXT)
    early.go_on.set()


def test_no_more_is_sent_to_a_server_that_has_sent_more_than_the_longest_response(connected: Pair) -> None:
    client, server = connected
    client.settimeout(DEADLINE_S)
    thread = threading.Thread(target=server.sendall, args=(CHUNKED + b"fffff\r\n" + bytes(80_000),))
    thread.start()
    early = bytearray()
    assert send_in_pieces(client, bytes(SIZE), early, monotonic() + DEADLINE_S, 1000) is False
    assert len(early) > 66_000
    thread.join(DEADLINE_S)


@pytest.mark.parametrize("is_tls", [False, True])
def test_pieces_that_are_sent_in_part_make_up_the_body(connected: Pair, tmp_path: Path, is_tls: bool) -> None:
    client, server = connected
    body, contexts = random.Random(0).randbytes(2_000_000), self_signed(tmp_path) if is_tls else None
    received = bytearray()

    def receive() -> None:
        with contexts[0].wrap_socket(server, server_side=True) if contexts else server as reading:
            while len(received) < len(body) and (data := reading.recv(len(body))):
                received.extend(data)

    thread = threading.Thread(target=receive)
    thread.start()
    with contexts[1].wrap_socket(client) if contexts else client as sending:
        early = bytearray()
        assert send_in_pieces(sending, body, early, monotonic() + DEADLINE_S, SIZE) is True
        thread.join(DEADLINE_S)
    assert (received, early) == (body, b"")


def test_a_body_that_is_not_read_ends_at_the_deadline(origin: Origin, tmp_path: Path) -> None:
    early = Early(origin, silence)
    with asking(origin, tmp_path, script_wait_s=SHORT_S, script_timeout_s=DEADLINE_S, script_threads=1) as script:
        told = Asking(script)(TEXT)
        assert told == f"TimeoutError: POST {origin.url} has taken more than {SHORT_S:g} s"
        assert Asking(script)("return (await fetch(base + '/echo')).status") == 200
    no_threads_left()
    early.go_on.set()


def test_a_body_that_is_not_read_ends_without_the_isolate_too(origin: Origin) -> None:
    class Nobody:
        def control(self, end_wait: Callable[[], None]) -> None:
            pass

    early, allowed = Early(origin, silence), AllowedHosts([origin.host])
    request = checked_request(
        allowed, "POST", f"{origin.url}/x", {}, bytes(SIZE), max_bytes=SIZE, expires=monotonic() - DEADLINE_S
    )
    with pytest.raises(FetchFailed, match="the server did not answer in time"):
        Connections(allowed).send(request, Nobody())
    early.go_on.set()


@pytest.mark.parametrize(
    ("early", "is_one"),
    [
        (b"", False),
        (b"HTTP/1.1 413 Too Large\r\n", False),
        (b"HTTP/1.1 413 Too Large\r\n\r\n", True),
        (b"HTTP/1.0 500 \n\n", True),
        (INTERIM, False),
        (INTERIM + b"HTTP/1.1 307 Moved\r\nLocation: /\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", True),
        (b"HTTP/1.1 200 OK\r\nX-Content-Length: 2\r\n\r\nab", False),
        (b"HTTP/1.1 200 OK\r\n\r\n0\r\n\r\n", False),
        (CHUNKED, False),
        (CHUNKED + b"0\r\n\r\n", True),
        (CHUNKED + b"0\r\nA: b\r\n", False),
        (CHUNKED + b"0\r\nA: b\r\n\r\n", True),
        (CHUNKED + b"5\r\n0\r\n\r\n", False),
        (CHUNKED + b"A;x=y\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", True),
        (b"nonsense", False),
        (b"nonsense\r\n\r\n...", True),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 60_000, False),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, True),
    ],
)
def test_what_counts_as_an_early_answer(early: bytes, is_one: bool) -> None:
    assert EarlyAnswer(bytearray(early)).has_come() is is_one
    growing = bytearray()
    answer = EarlyAnswer(growing)
    for byte in early:
        growing.append(byte)
        has_come = answer.has_come()
    assert early == b"" or has_come is is_one
