from __future__ import annotations

import gc
import http.client
import json
import logging
import queue
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import weakref
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.ports import free_port
from tests.programs import DEADLINE_S, PROGRAM_S, Program, connect, own_threads, receive, wait_until
from tests.wire import TEXT, RawClient, frame, request_bytes
from wsthreads import UsageError, WebSocketApp
from wsthreads.servers.serving import Server, bind
from wsthreads.servers.serving import serve as serve_until_signal
from wsthreads.servers.stalled_clients import STALL_S
from wsthreads.servers.static import StaticFiles


class Echo:
    def on_message(self, session, message):
        session.send(message)


def echo_app(wsgi_app=None, **settings):
    app = WebSocketApp(wsgi_app, **settings)
    app.add_handler("/ws/echo", Echo)
    return app


def get(url, **options):
    return urllib.request.urlopen(urllib.request.Request(url, **options), timeout=DEADLINE_S)


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


# Serving


def test_http_and_websockets_on_one_port(serve):
    server = serve(echo_app(hello))
    assert get(server.url + "/").read() == b"hello"
    with connect(server.ws_url + "/ws/echo") as client:
        client.send("hi")
        assert receive(client) == "hi"


@pytest.mark.quiet  # 200 handshakes in 2 s
@pytest.mark.parametrize("hook", ["on_handshake", "on_open"])
def test_a_crowd_whose_handler_waits_comes_in_together(serve, hook):
    """Nobody queues for those who came before: where each waited for 20 ms of its predecessor, this took 4 s."""
    crowd, patience_s = int(20 * DEADLINE_S), DEADLINE_S / 5
    lock, everybody, opened, gave_up = threading.Lock(), threading.Event(), [], []

    def wait(self, one):
        with lock:
            opened.append(one)
            if len(opened) == crowd:
                everybody.set()
        if not everybody.wait(patience_s):
            gave_up.append(one)

    app = WebSocketApp(max_sessions=2 * crowd)
    app.add_handler("/ws/test", type("Waits", (Echo,), {hook: wait}))
    server = serve(app)
    with ExitStack() as stack:
        for _ in range(crowd):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), DEADLINE_S))
            sock.sendall(request_bytes())
        wait_until(lambda: everybody.is_set() or gave_up, "the crowd has come in, or not")
        assert not gave_up, f"{len(opened)} of {crowd} had come in after {patience_s:g} s"


def test_clients_that_leave_their_requests_unfinished_do_not_hold_up_the_end(serve):
    reads = threading.Semaphore(0)

    def application(environ, start_response):
        reads.release()
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
        start_response("200 OK", [])
        return (bytes(65536) for _ in range(1000))  # more than sockets buffer

    server = serve(echo_app(application, shutdown_timeout_s=10 * DEADLINE_S, handshake_timeout_s=10 * DEADLINE_S))
    with ExitStack() as stack:
        half_a_body = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf"
        for request in [b"", b"GET / HT", half_a_body, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"]:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), DEADLINE_S))
            sock.sendall(request)
        assert reads.acquire(timeout=DEADLINE_S)
        assert reads.acquire(timeout=DEADLINE_S)
        assert sock.recv(1000)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < DEADLINE_S


def test_a_request_that_has_come_is_answered_though_the_server_stops(serve):
    """And a view that works may finish, though nothing moves on its connection."""
    asked, done = threading.Event(), threading.Event()

    def application(environ, start_response):
        asked.set()
        assert done.wait(DEADLINE_S)
        return hello(environ, start_response)

    server = serve(echo_app(application, shutdown_timeout_s=10 * DEADLINE_S))
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert asked.wait(DEADLINE_S)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        assert select.select([sock], [], [], STALL_S + 1) == ([], [], [])
        done.set()
        assert sock.makefile("rb").read().endswith(b"hello")
        stopper.join(DEADLINE_S)
        assert not stopper.is_alive()


def test_a_server_is_a_context_manager():
    with Server(echo_app(hello), port=0) as server:
        assert get(server.url).read() == b"hello"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), DEADLINE_S)


def test_port_0_is_a_free_one_and_is_told():
    with Server(echo_app(), port=0) as one, Server(echo_app(), port=0) as other:
        assert one.port != other.port
        assert one.url == f"http://127.0.0.1:{one.port}"
        assert one.ws_url == f"ws://127.0.0.1:{one.port}"


@pytest.mark.parametrize("host", ["::1", "::", "localhost", "0.0.0.0"])
def test_hosts_of_all_kinds(serve, host):
    if ":" in host and not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    server = serve(echo_app(), host=host)
    with connect(server.ws_url + "/ws/echo") as client:
        client.send("hi")
        assert receive(client) == "hi"


def test_an_ipv4_client_of_an_ipv6_socket_has_its_ipv4_address(serve):
    if not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    seen = []

    class Handler:
        def on_open(self, session):
            seen.append(session.remote_addr)
            session.close()

    app = WebSocketApp()
    app.add_handler("/", Handler)
    server = serve(app, host="::")
    with connect(f"ws://127.0.0.1:{server.port}/") as client, pytest.raises(ConnectionClosed):
        receive(client)
    assert seen == ["127.0.0.1"]


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_small_answers_are_not_held_back(serve):
    """Nagle's algorithm and delayed acknowledgements together would cost 40 ms for each."""
    app = echo_app()
    with connect(serve(app).ws_url + "/ws/echo") as client:
        client.send("hi")
        receive(client)
        (session,) = app.endpoint("/ws/echo").sessions()
        assert session._channel.transport._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_thousand_clients_at_once_find_a_place_to_wait():
    """In the backlog of the listening socket, while nobody accepts."""
    with bind("127.0.0.1", 0) as listener:
        clients = [socket.create_connection(listener.getsockname(), DEADLINE_S) for _ in range(400)]
        for client in clients:
            client.close()


def test_each_connection_has_a_daemon_thread_that_tells_whose_it_is(serve):
    server = serve(echo_app())
    with connect(server.ws_url + "/ws/echo") as client:
        client.send("hi")
        receive(client)
        own = f"wsthreads-connection-127.0.0.1:{client.local_address[1]}"
        [thread] = [thread for thread in threading.enumerate() if thread.name == own]
        assert thread.daemon
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        (b"GET http://[ HTTP/1.1", b"", b"400 Malformed URI"),
        (b"GET / HTTP/1.1", b"A: b\r\n" * 200, b"431 "),
        (b"\x16\x03\x01\x02\x00\x01\n\x00", b"", b"400 Malformed request line"),
        (b"GET /ws/echo HTTP/1.1", b"no header\r\nOrigin: http://evil.example\r\n", b"400 Malformed header"),
    ],
)
def test_a_malformed_request_is_refused_and_no_error_of_the_servers(serve, caplog, request_line, headers, status):
    caplog.set_level(logging.INFO, "werkzeug")
    server = serve(echo_app())
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as sock:
        sock.sendall(request_line + b"\r\n" + headers + b"\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 " + status)
    wait_until(lambda: any(record.levelno == logging.INFO for record in caplog.records), "its line in the access log")
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "head",
    [
        [],
        ["Host: a", "Host: b"],
        ["Host: a b"],
        ["Host:"],
        ["Host: a", "A: b\rOrigin: http://evil.example"],
        ["Host: a", "A: b\x00"],
        ["Host: a", "A: b", " c"],
        ["Host: a", "A : b"],
        ["Host: a", "A b: c"],
        ["Host: a", "Content-Length: 1", "Content-Length: 1"],
        ["Host: a", "Content-Length: 1", "Transfer-Encoding: chunked"],
        ["Host: a", "Content-Length: +1"],
        ["Host: a", "Content-Length: " + "9" * 5000],
        ["Host: a", "Authorization: Basic YTpi", "Authorization: Basic YzpkCg=="],
    ],
)
@pytest.mark.parametrize("path", ["/", "/ws/echo"])
def test_a_head_that_can_be_read_in_two_ways_is_refused(serve, path, head):
    server = serve(echo_app(hello))
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    fields = "".join(f"{field}\r\n" for field in head)
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\n{upgrade}{fields}{key}\r\n".encode())
        answer = sock.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"hello" not in answer


def ask(server, request):
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as sock:
        sock.sendall(request)
        return sock.makefile("rb").read()


def telling(environ, start_response):
    """An application that tells what its environ has; the answer's body is JSON."""
    body = environ["wsgi.input"].read() if environ.get("wsgi.input_terminated") else b""
    told = {name: environ.get(name) for name in ("PATH_INFO", "HTTP_HOST", "HTTP_COOKIE", "QUERY_STRING")}
    page = json.dumps({**told, "body": body.decode()}).encode()
    start_response("200 OK", [("Content-Length", str(len(page)))])
    return [page]


@pytest.mark.parametrize(
    "line",
    [
        'GET http://a,b"<>/x', "GET http://u:p@a.example/x", "GET http://[::1]x/", "GET http://a:b/", "GET ws/echo",
        "GET javascript:alert(1)", "CONNECT a.example:443", "GET *", "GET /\u0447\u0430\u0442", "GET /?u=j\xfcrgen",
    ],
)  # fmt: skip
def test_a_target_of_no_lawful_form_or_host_does_not_reach_the_application(serve, line):
    """RFC 9112, 3.2. Raw UTF-8 is refused as gunicorn refuses it; it was encoded twice."""
    answer = ask(serve(echo_app(telling)), f"{line} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 Malformed URI"), answer


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("GET http://b.example:80/x?y", {"PATH_INFO": "/x", "HTTP_HOST": "b.example:80", "QUERY_STRING": "y"}),
        ("GET /j%C3%BCrgen?%C3%BC", {"PATH_INFO": "/j\xc3\xbcrgen", "QUERY_STRING": "%C3%BC"}),
        ("OPTIONS *", {"PATH_INFO": "", "HTTP_HOST": "a.example"}),
    ],
)
def test_a_target_of_each_lawful_form_reaches_the_application(serve, line, told):
    answer = ask(serve(echo_app(telling)), f"{line} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2]).items() >= told.items()


def test_cookies_of_several_lines_are_joined_by_semicolons(serve):
    request = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nAccept: x\r\nCookie: b=2\r\n\r\n"
    assert b'"HTTP_COOKIE": "a=1; b=2"' in ask(serve(echo_app(telling)), request)


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "chunks",
    [
        b"0x3\r\nabc\r\n0\r\n\r\n", b"+3\r\nabc\r\n0\r\n\r\n", b"0_3\r\nabc\r\n0\r\n\r\n", b"-3\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\n0\n\n", b"3\r\nabc\n0\r\n\r\n", b"3\r\nabcd\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\nno field\r\n\r\n",
        b"3;" + b"a" * 5000 + b"\r\nabc\r\n0\r\n\r\n", b"0\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    ],
)  # fmt: skip
def test_a_malformed_chunk_is_a_400(serve, caplog, chunks):
    answer = ask(serve(echo_app(telling)), CHUNKED + chunks)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"Malformed" in answer
    assert "Traceback" not in caplog.text


def test_a_body_that_ends_in_the_middle_of_a_chunk_is_a_400(serve):
    server = serve(echo_app(telling))
    for cut in (b"", b"5", b"5\r\n", b"5\r\nab", b"2\r\nab\r\n", b"2\r\nab\r\n0\r\n", b"0\r\nA: b\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as sock:
            sock.sendall(CHUNKED + cut)
            sock.shutdown(socket.SHUT_WR)
            assert sock.makefile("rb").read().startswith(b"HTTP/1.1 400 "), cut


def test_chunks_with_extensions_and_trailers_are_read(serve):
    chunks = b'3;a=b\r\nabc\r\n00A ;c="d"\r\n' + b"0123456789\r\n0;x\r\nA: b\r\nC: d\r\n\r\n"
    assert b'"body": "abc0123456789"' in ask(serve(echo_app(telling)), CHUNKED + chunks)


def test_a_body_whose_chunk_was_malformed_is_not_read_on(serve):
    """An application that catches the error does not get what comes behind it for the body."""

    def insistent(environ, start_response):
        got = []
        for _ in range(3):
            try:
                got.append(environ["wsgi.input"].read(3))
            except OSError as error:
                got.append(type(error).__name__.encode())
        start_response("200 OK", [("Content-Length", str(len(b",".join(got))))])
        return [b",".join(got)]

    answer = ask(serve(echo_app(insistent)), CHUNKED + b"3\r\nabc\r\nno\r\n3\r\ndef\r\n0\r\n\r\n")
    assert answer.endswith(b"abc,BadBody,BadBody")


@pytest.mark.parametrize("empty", [b"\r\n", b"\n", b"\r\n\r\n\n"])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_empty_lines_before_a_request_are_passed_over(serve, empty, end):
    """RFC 9112, 2.2."""
    server = serve(echo_app(hello))
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as sock:
        sock.sendall(empty + b"GET / HTTP/1.1" + end + b"Host: x" + end + end)
        assert sock.makefile("rb").read().endswith(b"hello")


def test_empty_lines_without_end_are_no_request(serve):
    server = serve(app := echo_app(hello, max_handshake_bytes=4096))
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as sock:
        sock.sendall(b"\r\n" * 2500)
        assert sock.makefile("rb").read().startswith(b"HTTP/1.1 431 ")
    assert app.metrics.snapshot() == {"past_max_handshake_bytes": 1}


def test_half_a_head_is_no_request(serve):
    server = serve(echo_app(hello))
    for half in (b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as sock:
            sock.sendall(half)
            sock.shutdown(socket.SHUT_WR)
            assert b"hello" not in sock.makefile("rb").read()


def test_the_access_log_has_one_line_for_each_request(serve, caplog):
    caplog.set_level(logging.INFO, "werkzeug")
    server = serve(echo_app(hello))
    get(server.url + "/page?a=b").read()
    with connect(server.ws_url + "/ws/echo?user=alice") as client:
        client.send("hi")
        receive(client)
    server.stop()
    lines = [record.getMessage().strip() for record in caplog.records if record.name == "werkzeug"]
    date = r"\[\d\d/\w{3}/\d{4} \d\d:\d\d:\d\d\]"
    assert len(lines) == 2
    assert re.fullmatch(rf'127\.0\.0\.1 - - {date} "GET /page\?a=b HTTP/1\.1" 200 -', lines[0])
    assert re.fullmatch(rf'127\.0\.0\.1 - - {date} "GET /ws/echo\?user=alice HTTP/1\.1" 101 -', lines[1])


def test_a_failing_application_is_a_500_and_is_logged(serve, caplog):
    def fail(environ, start_response):
        raise ZeroDivisionError("of the application")

    server = serve(echo_app(fail))
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(server.url)
    with caught.value as answer:
        assert answer.code == 500
    wait_until(lambda: "of the application" in caplog.text)


def answers(environ, start_response):
    """Answers in the way that the path names."""
    headers = [("Content-Length", "5"), ("X-Way", environ["PATH_INFO"])]
    if environ["PATH_INFO"] == "/written":
        write = start_response("200 OK", headers)
        write(b"hel")
        return [b"lo"]
    if environ["PATH_INFO"] == "/late":

        def later():
            start_response("200 OK", headers)
            yield b"hello"

        return later()
    start_response("200 OK", [])
    try:
        raise ZeroDivisionError("of the application")
    except ZeroDivisionError:
        if environ["PATH_INFO"] == "/raised":
            raise
        start_response("200 OK", headers, sys.exc_info())
    return [b"hello"]


@pytest.mark.parametrize("way", ["/written", "/late", "/replaced", "/raised"])
def test_an_application_answers_a_client_that_asks_for_a_websocket_as_any_other(serve, way):
    server = serve(echo_app(answers))
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    first, second = (
        ask(server, f"GET {way} HTTP/1.1\r\nHost: a.example\r\n{more}\r\n".encode()) for more in ("", upgrade)
    )
    undated = [re.sub(rb"Date: [^\r]*", b"", answer) for answer in (first, second)]
    assert undated[0] == undated[1]
    status, _, body = first.partition(b"\r\n\r\n")
    assert (status.startswith(b"HTTP/1.1 500") if way == "/raised" else body == b"hello"), first


def test_what_a_session_had_is_freed_when_it_ends_and_waits_for_no_garbage_collector(serve):
    had = []

    class Value:
        """What the handler keeps."""

    class Keeps(Echo):
        def on_open(self, session):
            session.attributes["value"] = value = Value()
            had.append(weakref.ref(value))

    app = WebSocketApp()
    app.add_handler("/ws/test", Keeps())
    server = serve(app)
    gc.collect()
    gc.disable()
    try:
        with RawClient(server.port) as client:
            client.send(TEXT, "x")
            assert client.receive() == (TEXT, b"x")
        wait_until(lambda: had[0]() is None, "it is freed")
    finally:
        gc.enable()


def test_tls(serve, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = serve(echo_app(hello), ssl_context=context)
    trusting = ssl.create_default_context(cafile=certificate)
    assert server.url.startswith("https://")
    assert urllib.request.urlopen(server.url, timeout=DEADLINE_S, context=trusting).read() == b"hello"
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as silent:  # keeps nobody else waiting
        # Of one thread: before Python 3.13 nothing guards a TLS connection that two threads use at once.
        with RawClient(server.port, "/ws/echo", tls=trusting) as client:
            client.text(b"hi")
            assert client.receive_text() == "hi"
            client.leave()
        silent.sendall(b"this is no TLS\r\n\r\n")


@pytest.fixture
def certificate(tmp_path):
    path = tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(tmp_path / "only")]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no openssl command to make a certificate with")
    path.write_text(path.read_text() + (tmp_path / "only").read_text())
    return path


# Errors at the start


@pytest.mark.parametrize("port", [-1, 65536, 70000, "80", True])
def test_a_port_out_of_range(port):
    with pytest.raises(UsageError, match=r"port .* is out of range: use one from 1 to 65535, or 0"):
        Server(echo_app(), port=port)


def test_a_port_in_use_is_named_with_its_host():
    with Server(echo_app(), port=0) as server, pytest.raises(UsageError) as caught:
        Server(echo_app(), port=server.port)
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert "in use" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_port_can_be_used_again_at_once():
    port = free_port()
    with Server(echo_app(), port=port) as server, connect(server.ws_url + "/ws/echo"):
        pass
    with Server(echo_app(), port=port):
        pass


@pytest.mark.parametrize("host", ["no.such.host.invalid", "127.0.0.1.5", "a" * 300, "ex ample"])
def test_a_host_that_does_not_exist(host):
    with pytest.raises(UsageError, match="there is no host"):
        Server(echo_app(), host=host, port=0)


def test_an_address_of_another_machine():
    with pytest.raises(UsageError, match=r"192\.0\.2\.1:0: this machine has no such address"):
        Server(echo_app(), host="192.0.2.1", port=0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux which ports are privileged")
def test_a_port_that_needs_privileges():
    limit = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    if int(limit) <= 80:
        pytest.skip(f"this machine lets anybody have ports from {limit.strip()} up")
    program = "import os, encodings.idna; from wsthreads.servers.serving import bind; "
    program += "os.geteuid() or os.seteuid(65534); bind('127.0.0.1', 80)"
    failed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PROGRAM_S)
    assert "127.0.0.1:80: this user has no right to use this port" in failed.stderr


# Slow and silent peers


def test_a_request_has_to_be_complete_within_the_handshake_timeout(serve):
    """However steadily its bytes drip in."""
    server = serve(echo_app(hello, handshake_timeout_s=0.5))
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as drip:
        drip.settimeout(0.05)
        began = time.monotonic()
        with suppress(ConnectionError):  # reset, or broken pipe, as it happens
            ended = None
            while ended != b"" and time.monotonic() - began < DEADLINE_S:
                drip.sendall(b"G")
                with suppress(TimeoutError):
                    ended = drip.recv(1)
        assert time.monotonic() - began < 0.5 + DEADLINE_S / 2


def test_requests_that_drip_in_are_counted_and_keep_nobody_waiting(serve):
    server = serve(app := echo_app(hello, handshake_timeout_s=0.5))
    with ExitStack() as stack:
        for begun in (b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 9000) * 5:
            drip = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), DEADLINE_S))
            drip.sendall(begun)
        assert get(server.url).read() == b"hello"
        with connect(server.ws_url + "/ws/echo") as client:
            client.send("hi")
            assert receive(client) == "hi"
        wait_until(lambda: app.metrics.snapshot().get("past_handshake_timeout_s") == 20)
    wait_until(lambda: not own_threads("wsthreads-connection"))


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 8192,
        b"GET / HTTP/1.1\r\nCookie: " + b"x" * 8192,
        b"GET / HTTP/1.1\r\n" + (b"X: " + b"y" * 80 + b"\r\n") * 90,
    ],
    ids=["one long line", "one long header", "many headers"],
)
def test_a_head_that_is_too_long_is_refused_with_431_before_its_end_has_come(serve, head):
    server = serve(app := echo_app(hello, max_handshake_bytes=4096))
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as client:
        client.sendall(head[:6144])  # what is not read would have the kernel send a reset, and perhaps no answer
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"a head of more than 4096 bytes" in answer
    assert app.metrics.snapshot() == {"past_max_handshake_bytes": 1}


def test_a_head_of_the_permitted_length_is_taken_with_frames_behind_it(serve):
    server = serve(echo_app(max_handshake_bytes=4096))
    early = frame(TEXT, "x" * 30_000)
    with RawClient(server.port, "/ws/echo", {"Cookie": "x" * 3800}, early=early) as client:
        assert client.receive_text() == "x" * 30_000


def test_the_timeout_of_the_applications_own_sockets_is_not_that_of_clients(serve):
    server = serve(echo_app(hello))
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.1)
    try:
        with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as sock:
            time.sleep(0.3)  # longer than that timeout
            sock.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 200")
    finally:
        socket.setdefaulttimeout(before)


def test_an_upgrade_of_another_kind_has_the_whole_timeout_for_its_body(serve):
    def read(environ, start_response):
        body = environ["wsgi.input"].read(4)
        start_response("200 OK", [("Content-Length", "4")])
        return [body]

    server = serve(echo_app(read, handshake_timeout_s=2))
    head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nContent-Length: 4\r\n"
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as sock:
        sock.sendall(head)
        time.sleep(1.2)  # what is left of the timeout of the head is not enough for the body
        sock.sendall(b"X-Part: 2\r\n")
        time.sleep(0.2)
        sock.sendall(b"\r\n")
        time.sleep(1.2)
        sock.sendall(b"body")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")


def test_the_handshake_timeout_ends_with_the_handshake(serve):
    server = serve(echo_app(handshake_timeout_s=1))
    with connect(server.ws_url + "/ws/echo") as client:
        with pytest.raises(TimeoutError):
            client.recv(timeout=1.1)
        client.send("hi")
        assert receive(client) == "hi"


def test_a_body_that_nobody_reads_and_that_never_ends_holds_no_thread(serve):
    server = serve(echo_app(hello, handshake_timeout_s=1))
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        client.sendall(b"only a part")
        answer = client.makefile("rb").read()
    assert answer.endswith(b"hello")


@pytest.mark.parametrize(
    "claim", [b"", b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\nUpgrade: WebSocket, h2c\r\n"]
)
def test_an_answer_that_nobody_reads_holds_no_thread_whatever_the_request_claims_to_become(serve, tmp_path, claim):
    with (tmp_path / "big.bin").open("wb") as big:
        big.truncate(64 << 20)  # more than the buffers of any socket
    app = echo_app(StaticFiles(tmp_path), handshake_timeout_s=0.5)
    server = serve(app)
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as client:
        client.sendall(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n" + claim + b"\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: not own_threads("wsthreads-connection"))


def test_what_an_application_writes_for_a_request_with_an_upgrade_is_bounded(serve):
    """PEP 3333's `write`, for an answer that the server keeps until the application has returned."""
    written = []

    def write_much(environ, start_response):
        write = start_response("200 OK", [("Content-Length", "10000000")])
        while len(written) < 100:
            write(b"x" * 100_000)
            written.append(environ["PATH_INFO"])
        return []

    server = serve(echo_app(write_much))
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as client:
        client.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        client.makefile("rb").read()
    assert not written


@pytest.mark.parametrize("claim", [b"", b"Upgrade: websocket\r\n"])
def test_what_an_application_writes_is_sent_before_what_it_returns_and_before_its_error(serve, claim):
    def write_and_return(environ, start_response):
        write = start_response("201 Created", [("Content-Length", "13")])
        write(b"one ")
        if environ["PATH_INFO"] == "/fails":
            raise ValueError("mine")
        write(b"two ")
        return [b"three"]

    server = serve(echo_app(write_and_return))
    for path, body in (("/", b"one two three"), ("/fails", b"one ")):
        with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as client:
            client.sendall(b"GET %s HTTP/1.0\r\nHost: x\r\n%s\r\n" % (path.encode(), claim))
            answer = client.makefile("rb").read()
        assert b" 201 " in answer.splitlines()[0], path
        assert answer.endswith(body), path


def test_a_body_that_never_comes_holds_no_thread_whatever_the_request_claims_to_become(serve):
    def read(environ, start_response):
        environ["wsgi.input"].read(100)
        return hello(environ, start_response)

    server = serve(echo_app(read, handshake_timeout_s=0.5))
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nContent-Length: 100\r\n\r\n")
        wait_until(lambda: not own_threads("wsthreads-connection"))


def test_running_out_of_file_descriptors_is_survived():
    """The server waits until there are some again, without spinning."""
    program = """if True:
        import resource, sys, time, threading
        from wsthreads import WebSocketApp
        from wsthreads.servers.serving import Server
        class Echo:
            def on_message(self, session, message): session.send(message)
        app = WebSocketApp(); app.add_handler("/ws/echo", Echo)
        server = Server(app, port=0)
        server.start()
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        began = time.process_time()
        print("port", server.port, flush=True)
        sys.stdin.readline()
        print("cpu %.2f" % (time.process_time() - began), flush=True)
        sys.stdin.readline()
        server.stop()
    """
    with Program([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        port = int(process.wait_for(r"port (\d+)")[1])
        clients = [socket.create_connection(("127.0.0.1", port), DEADLINE_S) for _ in range(60)]
        process.wait_for("cannot accept connections")
        time.sleep(1)  # in which it could spin
        process.process.stdin.write("\n")
        process.process.stdin.flush()
        assert float(process.wait_for(r"cpu ([\d.]+)")[1]) < 1
        for client in clients:
            client.close()
        with connect(f"ws://127.0.0.1:{port}/ws/echo") as client:
            client.send("hi")
            assert receive(client) == "hi"
        process.process.stdin.close()
        assert process.wait() == 0


@pytest.mark.parametrize("error", [MemoryError, SystemExit])
def test_accepting_goes_on_after_whatever_a_connection_has_raised(serve, monkeypatch, caplog, error):
    server = serve(echo_app(hello))
    real, errors = server._http.process_request, [error("injected")]

    def process_request(request, address):
        if errors:
            request.close()
            raise errors.pop()
        real(request, address)

    monkeypatch.setattr(server._http, "process_request", process_request)
    monkeypatch.setattr(server._http, "handle_error", lambda *_: 1 / 0)  # as where the log has no memory either
    with suppress(OSError, http.client.HTTPException):
        get(server.url)
    assert get(server.url).read() == b"hello"
    (record,) = (record for record in caplog.records if "has failed" in record.getMessage())
    assert "wsthreads-accept" in record.getMessage()


# Endings


def test_stopping_closes_every_session_with_1001(serve):
    server = serve(echo_app())
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server.ws_url + "/ws/echo")) for _ in range(20)]
        assert server.stop() == 0
        for client in clients:
            with pytest.raises(ConnectionClosed) as caught:
                receive(client)
            assert caught.value.rcvd.code == 1001
            assert caught.value.rcvd.reason == "server shutting down"
    assert not own_threads("wsthreads-connection")


def test_stopping_can_say_something_else(serve):
    server = serve(echo_app())
    with connect(server.ws_url + "/ws/echo") as client:
        server.stop(code=1012, reason="back soon")
        with pytest.raises(ConnectionClosed) as caught:
            receive(client)
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1012, "back soon")


def test_stopping_does_not_wait_for_connections_that_ask_for_nothing(serve):
    """A browser opens some in advance."""
    server = serve(echo_app(shutdown_timeout_s=10 * DEADLINE_S))
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S):
        wait_until(lambda: own_threads("wsthreads-connection"))
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < DEADLINE_S


def test_a_request_that_is_being_answered_is_finished(serve):
    begun, go_on = threading.Event(), threading.Event()

    def slow(environ, start_response):
        begun.set()
        go_on.wait(DEADLINE_S)
        return hello(environ, start_response)

    server = serve(echo_app(slow))
    answers = []
    client = threading.Thread(target=lambda: answers.append(get(server.url).read()))
    client.start()
    begun.wait(DEADLINE_S)
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    wait_until(lambda: refuses(server.port))
    go_on.set()
    client.join(DEADLINE_S)
    stopper.join(DEADLINE_S)
    assert answers == [b"hello"]


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), DEADLINE_S).close()
    except ConnectionError:
        return True
    return False


def test_a_request_that_does_not_end_is_cut_off_at_the_timeout(serve):
    begun, go_on = threading.Event(), threading.Event()

    def endless(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        begun.set()
        while not go_on.is_set():
            write(b"x" * 65536)
        return []

    server = serve(echo_app(endless))
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        begun.wait(DEADLINE_S)
        began = time.monotonic()
        server.stop(timeout_s=0.3)
        assert time.monotonic() - began < DEADLINE_S
    go_on.set()


def test_stop_may_be_called_again_and_by_several_threads(serve):
    server = serve(echo_app())
    with connect(server.ws_url + "/ws/echo"):
        stoppers = [threading.Thread(target=server.stop) for _ in range(5)]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join(DEADLINE_S)
        assert not any(stopper.is_alive() for stopper in stoppers)
    assert server.stop() == 0
    with pytest.raises(RuntimeError, match="create a new one"):
        server.start()


def test_stop_in_a_handler_and_in_a_view_does_not_wait_for_itself(serve):
    results, closed = queue.Queue(), threading.Event()

    def stop(where):
        began = time.monotonic()
        results.put((where, server.stop(), time.monotonic() - began < DEADLINE_S))

    class Switch:
        def on_message(self, session, message):
            stop("handler")

        def on_close(self, session, code):
            closed.set()

    def view(environ, start_response):
        stop("view")
        return hello(environ, start_response)

    for where in ("handler", "view"):
        closed.clear()
        app = WebSocketApp(view, shutdown_timeout_s=10 * DEADLINE_S)
        app.add_handler("/ws", Switch())
        server = serve(app)
        with connect(server.ws_url + "/ws") as client:
            if where == "handler":
                client.send("stop")
            else:
                assert get(server.url).read() == b"hello"
            with pytest.raises(ConnectionClosed) as caught:
                receive(client)
            assert caught.value.rcvd.code == 1001
        assert results.get(timeout=DEADLINE_S) == (where, 0, True)
        assert server.stop() == 0, "it waits for what the first call has begun"
        assert closed.is_set()
        assert refuses(server.port)
        assert not own_threads("wsthreads-connection")


def test_a_server_that_never_started_gives_its_port_back():
    server = Server(echo_app(), port=0)
    server.stop()
    assert refuses(server.port)


def test_run_outside_of_the_main_thread_ends_when_it_is_asked_to():
    server = Server(echo_app(), port=0)
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(server.run()))
    thread.start()
    with connect(server.ws_url + "/ws/echo") as client:
        server.request_stop(1012, "new code")
        with pytest.raises(ConnectionClosed) as caught:
            receive(client)
        assert caught.value.rcvd.code == 1012
    thread.join(DEADLINE_S)
    assert statuses == [0]


# Signals, in a process of its own


SERVER = """if True:
    import os, sys, threading, time
    from wsthreads import WebSocketApp
    from wsthreads.servers.serving import Server
    class Handler:
        def on_open(self, session): say("opened")
        def on_message(self, session, message):
            say("at work")
            if message.isdigit():
                time.sleep(int(message))
            else:  # a file that tells it to go on
                if "stop" in message: server.request_stop(1012, "restart")
                while not os.path.exists(message): time.sleep(0.01)
        def on_close(self, session, code): say(f"closed {code}")
    def say(text):  # in one write, so that threads do not get into each other's lines
        sys.stdout.write(text + "\\n")
        sys.stdout.flush()
    app = WebSocketApp(shutdown_timeout_s=%s)
    app.add_handler("/ws", Handler)
    server = Server(app, port=0)
    status = server.run(lambda: print("port", server.port, flush=True))
    print("threads", [t.name for t in threading.enumerate()], flush=True)
    sys.exit(status)
"""


@pytest.fixture
def program(request):
    timeout_s = getattr(request, "param", 10 * DEADLINE_S)  # so what waits for it fails
    with Program([sys.executable, "-c", SERVER % timeout_s]) as process:
        process.url = f"ws://127.0.0.1:{process.wait_for(r'port ([0-9]+)')[1]}/ws"
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_ends_everything_in_order_and_soon(program, number):
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(program.url)) for _ in range(100)]
        program.wait_for("opened", times=100)
        assert program.end(number) == 0
        for client in clients:
            with pytest.raises(ConnectionClosed) as caught:
                receive(client)
            assert caught.value.rcvd.code == 1001
    assert program.log.count("closed 1001") == 100
    assert "threads ['MainThread']" in program.log
    assert "Traceback" not in program.log


def test_a_second_signal_does_not_wait(program):
    with connect(program.url) as client:
        client.send("60")  # a handler that takes its time
        program.wait_for("at work")
        program.process.send_signal(signal.SIGINT)
        with pytest.raises(ConnectionClosed):
            receive(client)  # so the first has arrived
        assert program.end(signal.SIGINT) == 128 + signal.SIGINT


@pytest.mark.parametrize("then", [signal.SIGHUP, signal.SIGTERM])
def test_a_terminal_that_closes_may_say_so_twice(program, tmp_path, then):
    """A shell sends SIGHUP to its jobs, and the kernel sends it again; systemd sends SIGTERM with it."""
    with connect(program.url) as client:
        client.send(str(tmp_path / "go on"))
        program.wait_for("at work")
        program.process.send_signal(signal.SIGHUP)
        with pytest.raises(ConnectionClosed) as caught:
            receive(client)  # so the first has arrived
        assert caught.value.rcvd.code == 1001
        program.process.send_signal(then)
        (tmp_path / "go on").touch()
        assert program.wait() == 0
    assert "closed 1001" in program.log


def test_a_terminal_that_closes_during_a_stop_changes_the_status_only(program, tmp_path):
    """So that the end of the server does not become a restart."""
    with connect(program.url) as client:
        client.send(str(tmp_path / "go on after stop"))
        with pytest.raises(ConnectionClosed) as caught:
            receive(client)
        assert caught.value.rcvd.code == 1012
        program.process.send_signal(signal.SIGHUP)
        (tmp_path / "go on after stop").touch()
        assert program.wait() == 128 + signal.SIGHUP
    assert "closed 1012" in program.log


def test_a_second_signal_after_a_closed_terminal_does_not_wait(program):
    with connect(program.url) as client:
        client.send("60")
        program.wait_for("at work")
        program.process.send_signal(signal.SIGHUP)
        with pytest.raises(ConnectionClosed):
            receive(client)
        program.process.send_signal(signal.SIGTERM)
        ended = program.end(signal.SIGINT)  # Python may handle it before the other
        assert ended in (128 + signal.SIGTERM, 128 + signal.SIGINT)


@pytest.mark.parametrize("program", [0.5], indirect=True)
def test_a_handler_that_does_not_return_is_not_waited_for_beyond_the_timeout(program):
    with connect(program.url) as client:
        client.send("60")
        program.wait_for("at work")
        began = time.monotonic()
        assert program.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < DEADLINE_S  # the timeout, and 3 s for threads that are cut off


def test_an_ignored_sigint_stays_ignored():
    """As for what a shell script starts in the background."""
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + SERVER % 10
    with Program([sys.executable, "-c", ignoring]) as process:
        url = f"ws://127.0.0.1:{process.wait_for(r'port ([0-9]+)')[1]}/ws"
        process.process.send_signal(signal.SIGINT)
        with connect(url):
            process.wait_for("opened")
        assert process.end(signal.SIGTERM) == 0


def test_a_function_for_sighup_stays():
    """It may open log files again, as logrotate asks for."""
    own = "import signal; signal.signal(signal.SIGHUP, lambda number, frame: print('again', flush=True))\n"
    with Program([sys.executable, "-c", own + SERVER % 10]) as process:
        url = f"ws://127.0.0.1:{process.wait_for(r'port ([0-9]+)')[1]}/ws"
        process.process.send_signal(signal.SIGHUP)
        process.wait_for("again")
        with connect(url):
            process.wait_for("opened")
        assert process.end(signal.SIGTERM) == 0


def test_serve_reports_a_port_in_use_before_it_serves():
    with Server(echo_app(), port=0) as server, pytest.raises(UsageError, match="in use"):
        serve_until_signal(echo_app(), port=server.port)


def test_a_signal_that_another_thread_gets_ends_the_server():
    """Nothing wakes the main thread then."""
    code = """if True:
        import signal, sys, threading
        from wsthreads import WebSocketApp
        from wsthreads.servers.serving import Server

        server = Server(WebSocketApp(), port=0)

        def end():
            waiting.wait()
            threading.Event().wait(0.2)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

        waiting = threading.Event()
        threading.Thread(target=end).start()
        server.start()
        waiting.set()
        sys.exit(server.run())"""
    with Program([sys.executable, "-c", code]) as program:
        assert program.wait() == 0


def test_a_signal_that_has_come_counts_also_at_the_deadline():
    server = Server(WebSocketApp(), port=0)
    server._events.put(signal.SIGTERM)
    assert server._next_event(time.monotonic() - 1) == signal.SIGTERM
    assert server._next_event(time.monotonic() - 1) is None
    server.stop()
