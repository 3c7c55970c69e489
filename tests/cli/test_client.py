from __future__ import annotations

import base64
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ports import free_port
from tests.programs import DEADLINE_S, PROGRAM_S, Program, own_threads, wait_until, wsthreads
from wsthreads import UsageError, WebSocketApp
from wsthreads.cli.client import Client, ConnectFailed, describe_close
from wsthreads.cli.terminal import converse


class Talker:
    """Does what it is told."""

    def on_open(self, session):
        if session.get_parameter("greet"):
            who = session.get_parameter("greet")
            session.send(f"hello {who} {session.get_header('X-Token')} {session.get_header('Origin')}")

    def on_message(self, session, message):
        order, _, rest = message.partition(" ")
        if order == "close":
            session.close(int(rest), "as you wish")
        elif order == "bytes":
            session.send(bytes.fromhex(rest))
        elif order == "big":
            session.send("x" * int(rest))
        else:
            session.send(message)


@pytest.fixture
def url(serve):
    app = WebSocketApp(subprotocols=("v2", "v1"), max_outbox_bytes=2**24)
    app.add_handler("/ws", Talker)
    return serve(app).ws_url + "/ws"


def talk(url, lines, wait_s=0.5, **options):
    """A conversation of which everything comes through pipes; what was shown, and how it ended."""
    shown = []
    client = Client(url, **options)
    ours, theirs = os.pipe()
    try:
        with open(theirs, "w", encoding="utf-8") as pipe:
            pipe.write(lines)
        return shown, converse(client, ours, shown.append, wait_s=wait_s)
    finally:
        os.close(ours)


def test_lines_are_sent_and_answers_shown(url):
    shown, end = talk(url, "one\nzwei äöü 🎉\r\n\nthe last has no end of line")
    assert shown == ["one", "zwei äöü 🎉", "", "the last has no end of line"]
    assert end == (1000, "")


def test_many_lines_keep_their_order(url):
    lines = [str(number) for number in range(2000)]
    shown, _ = talk(url, "\n".join(lines), wait_s=1)
    assert shown == lines


def test_a_long_message_comes_whole(url):
    shown, _ = talk(url, "big 3000000\n")
    assert [len(message) for message in shown] == [3_000_000]


def test_binary_messages_are_bytes(url):
    assert talk(url, "bytes 00ff10\n")[0] == [b"\x00\xff\x10"]


def test_the_server_can_close_first(url):
    shown, end = talk(url, "close 4001\n", wait_s=DEADLINE_S)
    assert (shown, end) == ([], (4001, "as you wish"))


def test_parameters_headers_and_subprotocols_are_sent(url):
    client = Client(
        url + "?a=1",
        parameters=[("greet", "ann & bob=ü")],
        headers=[("X-Token", "t1"), ("Origin", url.replace("ws:", "http:").removesuffix("/ws"))],
        subprotocols=["v1", "v0"],
    )
    origin = url.replace("ws:", "http:").removesuffix("/ws")
    assert client.subprotocol == "v1"
    assert wait_until(client.receive) == [f"hello ann & bob=ü t1 {origin}"]
    client.abort()


@pytest.mark.parametrize("url", ["http://x/", "ws://", "ws:/x", "chat", "ws://x:99999/", "ws://x:a/", "ws://[::1/"])
def test_a_url_that_is_none(url):
    with pytest.raises(UsageError, match=r"WebSocket URL looks like|[Pp]ort|IPv6"):
        Client(url)


#: What reaches a program by its command line, and more: any text, and bytes that are no UTF-8.
odd_texts = st.text(
    st.one_of(st.sampled_from("\x00\r\n\t :;@/?#[]%,=\x7f\udcff\xfcüa1-.x"), st.characters()), max_size=80
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(["", "ws://127.0.0.1:1/", "ws://127.0.0.1:1/?", "ws://", "ws://a@", "wss://["]), odd_texts,
       st.lists(st.tuples(odd_texts, odd_texts), max_size=2), st.lists(odd_texts, max_size=2))  # fmt: skip
def test_whatever_is_asked_for_is_one_error_of_ours(start, rest, pairs, subprotocols):
    with patched_connect(), pytest.raises((UsageError, ConnectFailed)):
        Client(start + rest, parameters=pairs, headers=pairs, subprotocols=subprotocols)
    with patched_connect(), pytest.raises((UsageError, ConnectFailed)):
        Client(start + rest, parameters=pairs)


@contextmanager
def patched_connect():
    """No name is looked up, and nobody is met; the address has to be one that could be."""

    def refuse(address, timeout_s):
        host, port = address
        host.encode("idna")
        assert 0 <= port <= 65535
        raise ConnectionRefusedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "create_connection", refuse)
        yield


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"headers": [("Bad Name", "x")]}, "a header's name has .*, not 'Bad Name'"),
        ({"headers": [("", "x")]}, "a header's name has .*, not ''"),
        ({"headers": [("Origin", "https://a\nX: 1")]}, "the value of the header Origin may have no line ends"),
        ({"headers": [("Host", "x" * 70)]}, "'x{70}' is not the name of a host"),
        ({"subprotocols": ["a b"]}, "a subprotocol has letters, .*, not 'a b'"),
    ],
)
def test_what_would_be_no_http_is_not_sent(options, message):
    with pytest.raises(UsageError, match=message):
        Client("ws://127.0.0.1:1/", **options)


def test_header_values_are_sent_as_they_were_typed():
    """Bytes that are no UTF-8 reach a program as surrogates, and are bytes again on the wire."""
    with answering(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n") as (url, received), pytest.raises(ConnectFailed):
        Client(url + "a\udcff", headers=[("X-Odd", " \udcffü ")], parameters=[("p", "\udcff")])
    assert received[0].startswith(b"GET /a%FF?p=%FF HTTP/1.1\r\n")
    assert b"\r\nX-Odd: \xff\xc3\xbc\r\n" in received[0]


@pytest.mark.parametrize(
    ("credentials", "sent"),
    [("ann:pa55", "ann:pa55"), ("ann", "ann:"), (":t%6Fken", ":token"), ("a%40b:p%3Aw%20%C3%BC", "a@b:p:w ü"),
     ("ann:p@55", "ann:p@55")],
)  # fmt: skip
def test_a_user_and_a_password_are_sent_and_never_shown(credentials, sent):
    refusal = b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"
    with answering(refusal) as (url, received), pytest.raises(ConnectFailed, match="401"):
        Client(url.replace("ws://", f"ws://{credentials}@"))
    host = url.removeprefix("ws://").rstrip("/")
    assert f"\r\nHost: {host}\r\n".encode() in received[0]
    (line,) = re.findall(rb"\r\nAuthorization: Basic (\S+)\r\n", received[0])
    assert base64.b64decode(line).decode() == sent


def test_a_header_of_one_s_own_comes_before_the_url_s_user():
    with answering(b"HTTP/1.1 401 No\r\n\r\n") as (url, received), pytest.raises(ConnectFailed):
        Client(url.replace("ws://", "ws://ann:pa55@"), headers=[("authorization", "Bearer x")])
    assert re.findall(rb"(?i)\r\nauthorization: (.*)\r\n", received[0]) == [b"Bearer x"]


@pytest.mark.parametrize(
    "url",
    [
        "ws://ann:pa55@127.0.0.1:1/", "ws://ann:pa55@127.0.0.1:1/?token=pa55", "ws://ann:pa55@[1/", "ann:pa55@host/",
        "ws://ann:/pa55@host/", "ws://ann:x/pa55@127.0.0.1:1/", "http://ann:pa55@127.0.0.1:1/", "ws://ann:pa55@/",
        "ws://ann:pa55@host:99999/", "ws://ann:p?pa55@host:x/", "ws://ann:pa55@" + "x" * 70 + "/", "//ann:pa55@h/",
    ],
)  # fmt: skip
def test_no_error_shows_a_password(url):
    done = wsthreads("connect", url)
    assert done.returncode != 0
    assert re.fullmatch(r"wsthreads: .*\n", done.stderr)
    assert "pa55" not in done.stderr


def test_a_redirect_says_where_to():
    answer = b"HTTP/1.1 301 Moved\r\nLocation: wss://a:b@example.org/ws?token=1\r\nContent-Length: 0\r\n\r\n"
    with answering(answer) as (url, _):
        message = r"refused with 301, a redirect to wss://\*\*\*@example\.org/ws\?token=\*\*\*$"
        with pytest.raises(ConnectFailed, match=message):
            Client(url)


def test_a_wait_without_end_ends_with_the_server(url):
    done = wsthreads("connect", url, "--wait", "inf", input="close 1000\n")
    assert done.stderr.endswith("closed: 1000 normal: as you wish\n")
    assert "must be 0 or more, not nan" in wsthreads("connect", url, "--wait", "nan").stderr


def test_a_refusal_is_told_in_the_servers_words(url):
    with pytest.raises(ConnectFailed, match="refused with 404"):
        Client(url + "/no")
    with pytest.raises(ConnectFailed, match=r"refused with 403: origin 'https://evil\.example' is not allowed here"):
        Client(url, headers=[("Origin", "https://evil.example")])


def test_nobody_there():
    with pytest.raises(ConnectFailed, match="Connection refused"):
        Client(f"ws://127.0.0.1:{free_port()}/")
    with pytest.raises(ConnectFailed, match=r"there is no host no\.such\.host\.invalid"):
        Client("ws://no.such.host.invalid/")


@contextmanager
def answering(data, hang_up=True):
    """A server that is none: it reads once, says `data`, and perhaps hangs up. Its URL, and a list of what it read."""
    over, received = threading.Event(), []

    def answer():
        connection, _ = listener.accept()
        with connection:
            received.append(connection.recv(65536))
            connection.sendall(data)
            if not hang_up:
                over.wait(DEADLINE_S)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/", received
        over.set()
        thread.join(DEADLINE_S)


WRONG_ACCEPT = b"HTTP/1.1 101 Y\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: eA==\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not speak WebSocket"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>\n", "with 200, as to .*: check the path"),
        (b"HTTP/1.1 503 No\r\nContent-Type: text/plain\r\n\r\nall full\n", "refused with 503: all full"),
        (WRONG_ACCEPT, "does not speak WebSocket"),
    ],
)
def test_what_is_no_websocket_server(data, message):
    with answering(data) as (url, _), pytest.raises(ConnectFailed, match=message):
        Client(url)


def test_a_server_that_does_not_answer_is_not_waited_for_for_long():
    with (
        answering(b"HTTP/1.1 ", hang_up=False) as (url, _),
        pytest.raises(ConnectFailed, match=r"no answer within 0\.3 s"),
    ):
        Client(url, timeout_s=0.3)


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (1000, "", "1000 normal"),
        (1001, "bye", "1001 going away: bye"),
        (1006, "", "1006 connection lost"),
        (1013, "", "1013 try again later"),
        (4321, "", "4321 a code of the application"),
        (2999, "", "2999 unknown"),
    ],
)
def test_close_codes_in_words(code, reason, words):
    assert describe_close(code, reason) == words


# The command


def test_the_command_prints_an_arrow_before_each_message_and_how_it_ended(url):
    options = ["-p", "greet=alice", "-H", "X-Token: t", "--wait", str(PROGRAM_S)]
    done = wsthreads("connect", url, *options, input="hi\nbytes 0102\nclose 1000\n")
    assert done.stdout == "← hello alice t None\n← hi\n← (2 bytes) 01 02\n"
    assert done.stderr == "connected\nclosed: 1000 normal: as you wish\n"
    assert done.returncode == 0


def test_the_command_fails_if_the_end_was_no_good_one(url):
    done = wsthreads("connect", url, "--wait", str(PROGRAM_S), input="close 1011\n")
    assert done.stderr.endswith("closed: 1011 the server failed: as you wish\n")
    assert done.returncode == 1


def test_an_output_that_knows_no_arrows(url):
    environment = {"PYTHONIOENCODING": "ascii"}
    done = wsthreads("connect", url, "--wait", str(PROGRAM_S), input="é\nclose 1000\n", env=environment)
    assert done.stdout == "< \\xe9\n"


def test_the_command_closes_at_ctrl_c(url):
    command = [sys.executable, "-m", "wsthreads", "connect", url, "--subprotocol", "v1"]
    with Program(command, stdin=subprocess.PIPE) as process:
        process.wait_for("connected, speaking v1")
        assert process.end(signal.SIGINT) == 0
        assert process.log == "connected, speaking v1\nclosed: 1000 normal\n"


def test_the_command_ends_when_the_server_does_even_while_nobody_types(serve):
    app = WebSocketApp()
    app.add_handler("/ws", Talker)
    server = serve(app)
    command = [sys.executable, "-m", "wsthreads", "connect", server.ws_url + "/ws"]
    with Program(command, stdin=subprocess.PIPE) as process:
        process.wait_for("connected")
        server.stop()
        assert process.wait() == 0
        assert process.log == "connected\nclosed: 1001 going away: server shutting down\n"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
def test_on_a_terminal_ctrl_d_closes_and_escape_sequences_are_harmless(url):
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "wsthreads", "connect", url]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    output = b""

    def read_until(text):
        nonlocal output
        deadline = time.monotonic() + PROGRAM_S
        while text not in output and time.monotonic() < deadline:
            output += os.read(ours, 65536)

    try:
        read_until(b"(Ctrl-D closes)")
        os.write(ours, b"a\x1b[31mb\n")
        read_until("← a\\x1b[31mb".encode())
        os.write(ours, b"\x04")
        read_until(b"closed: 1000 normal")
        assert process.wait(PROGRAM_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert "← a\\x1b[31mb".encode() in output


def test_no_thread_is_left_after_a_conversation(url):
    talk(url, "hi\n")
    wait_until(lambda: not own_threads("wsthreads-lines"))
