"""One connection on a real server, seen from a raw client: limits, pings, and every way to end."""

import queue
import struct
import threading
from time import monotonic

import pytest

import wsthreads.protocol.connection
from tests.programs import DEADLINE_S, connect, wait_until
from tests.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Echo,
    RawClient,
    Recorder,
    close_payload,
    endpoint,
    frame,
    request_bytes,
    thread_names,
)
from wsthreads.protocol.outbox import Outbox


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
        assert client.receive_close() == (1009, "message of 70001 bytes or more, at most 70000 are taken")


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
        assert client.receive_close() == (1003, "binary messages are not taken here")


@pytest.mark.parametrize(
    ("payload", "answer", "reported"),
    [
        (b"", None, (1005, "")),
        (close_payload(1000), 1000, (1000, "")),
        (close_payload(1001, "tab closed"), 1001, (1001, "tab closed")),
        (close_payload(4321, "é" * 61), 4321, (4321, "é" * 61)),
    ],
)
def test_a_close_of_the_client_is_echoed_and_tcp_ended_by_the_server_first(echo, payload, answer, reported):
    with RawClient(echo.port) as client:
        client.send(CLOSE, payload)
        assert client.receive_close()[0] == answer
        assert client.at_end(), "the client has not closed TCP, so the server must have"
        assert echo.close() == reported


def test_what_comes_behind_a_close_frame_is_not_handled(echo):
    with RawClient(echo.port) as client:
        client.sock.sendall(frame(TEXT, "a") + frame(CLOSE, close_payload(1000)) + frame(TEXT, "b") + frame(PING))
        assert client.receive_text() == "a"
        assert client.receive() == (CLOSE, close_payload(1000))
        assert client.at_end()


def test_a_close_by_the_server_waits_for_the_answer_and_drops_messages_meanwhile():
    handler = Recorder()
    with endpoint(handler) as (_, port), RawClient(port) as client:
        session = handler.session()
        session.close(4000, "enough")
        assert not session.is_open()
        assert not session.send("late")
        assert client.receive_close() == (4000, "enough")
        client.text("late")
        assert handler.closed.empty()
        client.send(CLOSE, close_payload(4000))
        assert client.at_end()
        assert handler.close() == (4000, "enough")
        assert handler.messages.empty()


def test_the_first_to_close_decides_code_and_reason():
    handler = Recorder()
    with endpoint(handler) as (_, port), RawClient(port) as client:
        session = handler.session()
        session.close(4000, "first")
        session.close(4001, "second")
        client.send(CLOSE, close_payload(4002))
        assert handler.close() == (4000, "first")
        assert client.receive_close() == (4000, "first")
        assert client.at_end()


def test_a_close_that_the_end_of_the_connection_overtakes_leaves_no_timer(monkeypatch):
    handler, real = Recorder(), Outbox.close

    def close(outbox, frame, **how):
        closed = real(outbox, frame, **how)
        client.sock.close()
        assert handler.close()[0] == 1000
        return closed

    with endpoint(handler, close_timeout_s=100 * DEADLINE_S) as (_, port), RawClient(port) as client:
        session = handler.session()
        monkeypatch.setattr(Outbox, "close", close)
        session.close()
        assert session._connection._close_timer.callback is None, "it would keep the connection, and count it as late"


def test_a_client_that_never_answers_a_close_is_gone_after_the_close_timeout(echo):
    with RawClient(echo.port) as client:
        began = monotonic()
        echo.session().close(1000)
        assert client.receive_close() == (1000, "")
        assert client.at_end()
        assert monotonic() - began >= 0.29
        assert echo.close() == (1000, "")


def test_a_client_that_goes_on_sending_instead_of_answering_is_gone_too(echo):
    with RawClient(echo.port) as client:
        echo.session().close(1000)
        stop = threading.Event()

        def flood():
            try:
                while not stop.is_set():
                    client.text("x" * 1000)
            except OSError:
                pass

        thread = threading.Thread(target=flood)
        thread.start()
        assert echo.close() == (1000, "")
        stop.set()
        thread.join(DEADLINE_S)


@pytest.mark.parametrize("how", ["eof", "reset", "eof in a frame"])
def test_a_connection_that_is_lost_is_reported_as_1006(echo, how):
    with RawClient(echo.port) as client:
        client.text("a")
        assert client.receive_text() == "a"
        if how == "eof in a frame":
            client.sock.sendall(frame(TEXT, "abc")[:-1])
        if how == "reset":
            client.reset()
    assert echo.close()[0] == 1006


def test_a_silent_client_is_pinged_and_gone_if_it_stays_silent():
    handler = Recorder()
    with endpoint(handler, ping_interval_s=0.1, ping_timeout_s=0.2) as (_, port):
        began = monotonic()
        with RawClient(port) as client:
            assert client.receive() == (PING, b"")
            assert monotonic() - began >= 0.1
            assert client.at_end(), "nothing but a ping is sent"
            assert handler.close() == (1006, "no answer to a ping for 0.2 s")
            assert monotonic() - began >= 0.3


def test_pings_come_at_their_interval_though_an_answer_may_take_much_longer():
    settings = {"ping_interval_s": 0.05, "ping_timeout_s": 4 * DEADLINE_S}
    with endpoint(Recorder(), **settings) as (_, port), RawClient(port) as client:
        for _ in range(3):
            assert client.receive() == (PING, b"")
            threading.Event().wait(0.15)  # an answer that is not there yet at the next look
            client.send(PONG)


def test_a_ping_that_fails_for_want_of_memory_is_not_the_last(monkeypatch):
    real, failures = wsthreads.protocol.connection.encode_frame, [MemoryError()]

    def encode_frame(opcode, payload):
        if opcode == PING and failures:
            raise failures.pop()
        return real(opcode, payload)

    monkeypatch.setattr(wsthreads.protocol.connection, "encode_frame", encode_frame)
    with endpoint(Recorder(), ping_interval_s=0.05) as (_, port), RawClient(port) as client:
        assert client.receive() == (PING, b"")
    assert not failures


class Clock:
    """The clock of connections, which is turned by hand, and so is their heartbeat; the flusher's goes on by itself."""

    def __init__(self):
        self.now = monotonic()

    def turn(self, connection, seconds):
        self.now += seconds
        connection._heartbeat()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("wsthreads.protocol.connection.monotonic", lambda: clock.now)
    return clock


def connection_of(handler):
    """The connection of the session that has come, once it waits for the client."""
    connection = handler.session()._connection
    wait_until(lambda: connection._waiting, "the wait for a message")
    return connection


LONG = {"ping_interval_s": 100 * DEADLINE_S, "ping_timeout_s": 50 * DEADLINE_S}


def test_a_client_that_answers_pings_stays(clock):
    handler = Recorder()
    with endpoint(handler, **LONG) as (_, port), RawClient(port) as client:
        connection = connection_of(handler)
        for _ in range(4):
            clock.turn(connection, 100 * DEADLINE_S)
            assert client.receive() == (PING, b"")
            clock.now += 49 * DEADLINE_S
            client.send(PONG)
            wait_until(lambda: connection.last_received == clock.now, "the pong")
            clock.turn(connection, 2 * DEADLINE_S)
            assert connection.is_open
        client.leave()


def test_any_sign_of_life_counts_as_an_answer_to_a_ping(clock):
    handler = Recorder()
    with endpoint(handler, **LONG) as (_, port), RawClient(port) as client:
        connection = connection_of(handler)
        for _ in range(4):
            clock.turn(connection, 100 * DEADLINE_S)
            assert client.receive() == (PING, b"")
            clock.now += 49 * DEADLINE_S
            client.text("busy")
            assert handler.message() == "busy"
            wait_until(lambda: connection._waiting, "the end of on_message")
            clock.turn(connection, 2 * DEADLINE_S)
            assert connection.is_open
        client.leave()


def test_a_client_that_talks_is_not_pinged(clock):
    handler = Echo()
    with endpoint(handler, **LONG) as (_, port), RawClient(port) as client:
        connection = connection_of(handler)
        for _ in range(4):
            clock.turn(connection, 60 * DEADLINE_S)
            client.text("a")
            assert client.receive_text() == "a", "a ping would be another frame"
        client.leave()


@pytest.mark.parametrize("hook", ["on_open", "on_message"])
def test_a_handler_that_is_busy_longer_than_the_ping_timeout_does_not_lose_its_client(clock, hook):
    go_on = threading.Event()

    class Busy(Recorder):
        def on_open(self, session):
            super().on_open(session)
            if hook == "on_open":
                assert go_on.wait(DEADLINE_S)

        def on_message(self, session, message):
            super().on_message(session, message)
            if hook == "on_message":
                assert go_on.wait(DEADLINE_S)
            session.send("done")

    handler = Busy()
    with endpoint(handler, **LONG) as (_, port), RawClient(port) as client:
        connection = handler.session()._connection
        if hook == "on_message":
            client.text("work")
            handler.message()
        for _ in range(3):
            clock.turn(connection, 200 * DEADLINE_S)
            assert connection.is_open
        go_on.set()
        if hook == "on_message":
            assert client.receive() == (TEXT, b"done"), "no ping is sent while nobody could see the answer"
        wait_until(lambda: connection._waiting, "the end of the handler")
        clock.turn(connection, 0)
        assert connection.is_open, "the client has the whole timeout from now"
        assert client.receive() == (PING, b"")
        client.leave()


def test_pings_can_be_turned_off():
    handler = Recorder()
    with endpoint(handler, ping_interval_s=0) as (_, port), RawClient(port) as client:
        handler.session()
        client.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.receive()
        client.sock.settimeout(DEADLINE_S)
        client.leave()


def test_a_client_that_does_not_read_its_pongs_is_too_slow():
    handler = Recorder()
    settings = {"max_outbox_bytes": 100_000, "max_control_frames_per_s": 0, "close_timeout_s": 0.2}
    with endpoint(handler, **settings) as (app, port), RawClient(port, receive_buffer=4096) as client:
        data = frame(PING, b"x" * 125) * 100
        stop = threading.Event()

        def flood():
            try:
                while not stop.is_set():
                    client.sock.sendall(data)
            except OSError:
                pass

        thread = threading.Thread(target=flood)
        thread.start()
        code, reason = handler.close()
        stop.set()
        thread.join(DEADLINE_S)
        assert code == 1013
        assert "at most 100000 may" in reason
        assert app.metrics.snapshot()["slow_sessions_closed"] == 1


def test_a_client_that_reads_nothing_for_too_long_is_closed_with_1013():
    handler = Recorder()
    settings = {"send_timeout_s": 0.2, "max_outbox_bytes": 2**30, "close_timeout_s": 0.2}
    with endpoint(handler, **settings) as (app, port), RawClient(port, receive_buffer=4096):
        session = handler.session()
        assert session.send("x" * 8_000_000)
        assert handler.close() == (1013, "too slow: nothing was read for 0.2 s")
        assert not session.send("late")
        assert app.metrics.snapshot()["slow_sessions_closed"] == 1


def test_a_connection_has_its_servers_thread_and_no_other(echo):
    with RawClient(echo.port) as first:
        first.text("a")
        first.receive()
        before = len(thread_names())
        with RawClient(echo.port) as client:
            client.text("a")
            client.receive()
            assert len(thread_names()) == before + 1
        wait_until(lambda: len(thread_names()) == before, "the end of the thread")


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
