"""One connection on a real server, seen from a raw client: early input, messages, limits, threads."""

import queue
import struct
import threading

import pytest

from tests.programs import DEADLINE_S, connect, own_threads, wait_until
from tests.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Echo,
    RawClient,
    close_payload,
    endpoint,
    frame,
    request_bytes,
)


@pytest.fixture
def echo():
    handler = Echo()
    with endpoint(handler, max_message_bytes=70000, close_timeout_s=0.3) as (app, port):
        handler.app, handler.port = app, port
        yield handler


def test_frames_in_the_same_segment_as_the_handshake_are_not_lost(echo):
    early = frame(TEXT, "one") + frame(PING, b"p") + frame(TEXT, "tw", fin=False) + frame(CONTINUATION, "o")
    with RawClient(echo.port, early=early) as client:
        assert [client.receive() for _ in range(3)] == [(TEXT, b"one"), (PONG, b"p"), (TEXT, b"two")]


def test_half_a_frame_behind_the_handshake_is_completed_by_what_follows(echo):
    whole = frame(TEXT, "hello")
    with RawClient(echo.port, early=whole[:7]) as client:
        client.sock.sendall(whole[7:])
        assert client.receive_text() == "hello"


def test_a_large_early_input_is_not_lost(echo):
    text = "x" * 30000
    with RawClient(echo.port, early=frame(TEXT, text) + frame(TEXT, "next")) as client:
        assert client.receive_text() == text
        assert client.receive_text() == "next"


def test_messages_of_every_kind_come_back_as_they_were(echo):
    with connect(f"ws://127.0.0.1:{echo.port}/ws/test") as client:
        for message in ["", "a", "é😀\0", "x" * 70000, b"", b"\0\xff", bytes(70000)]:
            client.send(message)
            assert client.recv(timeout=DEADLINE_S) == message
        client.send(["frag", "men", "ted"])
        assert client.recv(timeout=DEADLINE_S) == "fragmented"


def test_a_message_in_single_bytes_with_pings_in_between_is_one_message(echo):
    text = "aé😀z".encode()
    with RawClient(echo.port) as client:
        for n in range(len(text)):
            data = frame(CONTINUATION if n else TEXT, text[n : n + 1], fin=n == len(text) - 1)
            for byte in data:
                client.sock.sendall(bytes([byte]))
            if n < len(text) - 1:
                client.send(PING, b"%d" % n)
                assert client.receive() == (PONG, b"%d" % n)
        assert client.receive_text() == "aé😀z"


def test_a_pong_carries_the_payload_of_its_ping_and_an_unasked_pong_is_ignored(echo):
    with RawClient(echo.port) as client:
        client.send(PONG, b"unasked")
        for payload in (b"", b"\0\xff", b"x" * 125):
            client.send(PING, payload)
            assert client.receive() == (PONG, payload)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(3, b"x"), 1002),
        (frame(TEXT, b"x", masked=False), 1002),
        (frame(TEXT, b"x", rsv=4), 1002),
        (frame(CONTINUATION, b"x"), 1002),
        (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(CLOSE, b"x"), 1002),
        (frame(CLOSE, close_payload(1005)), 1002),
        (frame(CLOSE, close_payload(999)), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xe2\x82", fin=False) + frame(CONTINUATION, b"x"), 1007),
        (frame(CLOSE, close_payload(1000) + b"\xff"), 1007),
        (frame(BINARY, bytes(70001)), 1009),
    ],
)
def test_an_illegal_frame_ends_the_connection_with_its_code(echo, data, code):
    with RawClient(echo.port) as client:
        client.text("before")
        client.sock.sendall(data)
        assert client.receive_text() == "before"
        assert client.receive_close()[0] == code
        assert client.at_end()
    assert echo.close()[0] == code


def test_a_message_that_is_too_big_is_refused_by_its_header_before_its_payload(echo):
    with RawClient(echo.port) as client:
        client.sock.sendall(frame(BINARY, bytes(70001))[:14])
        assert client.receive_close() == (1009, "message of 70001 bytes or more; the limit is 70000")


def test_a_header_that_claims_the_largest_size_is_refused(echo):
    with RawClient(echo.port) as client:
        client.sock.sendall(b"\x82\xff" + struct.pack("!Q", 2**63 - 1) + b"keyk")
        assert client.receive_close()[0] == 1009


def test_the_limit_holds_over_all_fragments_of_a_message_and_begins_anew_with_the_next(echo):
    with RawClient(echo.port) as client:
        for _ in range(2):
            client.send(BINARY, bytes(35000), fin=False)
            client.send(CONTINUATION, bytes(35000))
            assert len(client.receive()[1]) == 70000
        client.send(BINARY, bytes(35000), fin=False)
        client.send(CONTINUATION, bytes(35000), fin=False)
        client.sock.sendall(frame(CONTINUATION, b"x")[:6])
        assert client.receive_close()[0] == 1009


def test_binary_messages_are_refused_with_1003_where_they_are_not_taken():
    with endpoint(Echo(), accept_binary=False) as (_, port), RawClient(port) as client:
        client.text("text")
        assert client.receive_text() == "text"
        client.send(BINARY, b"x", fin=False)
        client.send(CONTINUATION, b"x")
        assert client.receive_close() == (1003, "this endpoint does not accept binary messages")


def test_a_connection_has_its_servers_thread_and_no_other(echo):
    with RawClient(echo.port) as first:
        first.text("a")
        first.receive()
        before = len(own_threads())
        with RawClient(echo.port) as client:
            client.text("a")
            client.receive()
            assert len(own_threads()) == before + 1
        wait_until(lambda: len(own_threads()) == before, "the end of the thread")


def test_input_is_read_no_faster_than_the_handler_works():
    go_on, seen = threading.Event(), queue.Queue()

    class Slow:
        def on_message(self, session, message):
            seen.put(message)
            assert go_on.wait(DEADLINE_S)

    with endpoint(Slow()) as (_, port), RawClient(port) as client:
        client.text("first")
        seen.get(timeout=DEADLINE_S)
        client.sock.settimeout(0.3)
        sent, data = 0, frame(TEXT, "x" * 60000)
        with pytest.raises(TimeoutError):
            while sent < 100_000_000:
                client.sock.sendall(data)
                sent += len(data)
        assert sent < 50_000_000
        go_on.set()


def test_a_plain_second_request_on_the_same_connection_is_not_answered(echo):
    with RawClient(echo.port) as client:
        client.sock.sendall(request_bytes())
        assert client.receive_close()[0] == 1002
        assert client.at_end(), "an HTTP answer on a WebSocket"
