"""What one client may use up: each bound, somebody who tries to get past it, and what he is told."""

import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from time import monotonic

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.wire import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Echo,
    RawClient,
    Recorder,
    endpoint,
    frame,
    serving,
)
from wsthreads import WebSocketApp
from wsthreads import _native as native
from wsthreads.protocol.rate_limit import SPAN_S


def count_of(app, setting):
    """How often a client has gone past a bound."""
    return app.metrics.snapshot().get(f"past_{setting}", 0)


def counted_once(app, setting):
    """The one who was refused is counted behind the close frame; nobody is counted twice."""
    wait_until(lambda: count_of(app, setting))
    return count_of(app, setting) == 1


def send_until_closed(client, data):
    """Send over and over, whatever comes back, until the server ends the connection, or does not read any more.

    The kernel does not always tell of the end somebody who has data left that there is no room for.
    """
    client.sock.settimeout(0.5)
    with suppress(OSError):
        while True:
            client.sock.sendall(data)


# Frames


def test_a_message_may_come_in_as_many_frames_as_are_allowed():
    with endpoint(Echo(), max_fragments=5) as (_, port), RawClient(port) as client:
        for _ in range(3):
            client.send(TEXT, "a", fin=False)
            for n in range(4):
                client.send(PING)
                client.send(CONTINUATION, str(n), fin=n == 3)
            received = [client.receive() for _ in range(5)]
            assert received == [(PONG, b"")] * 4 + [(TEXT, b"a0123")]
        client.text("one frame is one frame")
        assert client.receive_text() == "one frame is one frame"


@pytest.mark.parametrize("payload", [b"", b"x"])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_one_frame_more_than_allowed_is_refused_by_its_header(opcode, payload):
    with endpoint(Recorder(), max_fragments=5) as (app, port), RawClient(port) as client:
        client.send(opcode, payload, fin=False)
        for _ in range(4):
            client.send(CONTINUATION, payload, fin=False)
        client.sock.sendall(frame(CONTINUATION, b"never comes")[:6])
        assert client.receive_close() == (1009, "message in 6 frames or more; the limit is 5")
        assert client.at_end()
        assert counted_once(app, "max_fragments")


def test_frames_without_payload_go_on_for_no_longer_than_others():
    """They count for nothing towards the size of a message, so without this they might come for ever."""
    handler = Recorder()
    with endpoint(handler) as (app, port), RawClient(port) as client:
        client.send(BINARY, b"", fin=False)
        client.sock.sendall(frame(CONTINUATION, b"", fin=False, key=b"keyk") * 16383)
        client.sock.sendall(frame(CONTINUATION, b"", fin=False))
        assert client.receive_close()[0] == 1009
        assert handler.close() == (1009, "message in 16385 frames or more; the limit is 16384")
        assert counted_once(app, "max_fragments")


def test_the_largest_message_may_come_in_fragments_of_64_bytes():
    with endpoint(Echo()) as (_, port), RawClient(port) as client:
        parts = [frame(CONTINUATION if n else BINARY, bytes(64), fin=n == 16383, key=b"keyk") for n in range(16384)]
        client.sock.sendall(b"".join(parts))
        assert client.receive() == (BINARY, bytes(2**20))


@pytest.mark.parametrize("kind", ["ping", "pong", "both", "between the fragments of a message"])
def test_a_flood_of_control_frames_ends_with_1008(kind):
    handler = Recorder()
    settings = {"max_control_frames_per_s": 20, "close_timeout_s": 0.2}
    with endpoint(handler, **settings) as (app, port), RawClient(port) as client:
        if kind == "between the fragments of a message":
            client.send(TEXT, "a", fin=False)
        data = frame(PONG, b"x" * 125) if kind == "pong" else frame(PING)
        client.sock.sendall((data + frame(PONG) if kind == "both" else data * 2) * int(10 * SPAN_S))
        send_until_closed(client, data * 100)
        code, reason = handler.close()
        assert (code, reason) == (1008, "more than 20 pings and pongs a second")
        assert counted_once(app, "max_control_frames_per_s")


def test_control_frames_within_the_bound_and_messages_of_any_number_are_taken():
    with endpoint(Echo(), max_control_frames_per_s=20) as (_, port), RawClient(port) as client:
        client.sock.sendall(frame(PING, b"p") * int(20 * SPAN_S))
        for _ in range(int(20 * SPAN_S)):
            assert client.receive() == (PONG, b"p")
        for n in range(2000):
            client.text(str(n))
            assert client.receive_text() == str(n)


# Messages


@pytest.mark.parametrize("how", ["whole", "empty", "in fragments"])
def test_more_messages_than_allowed_end_with_1008_and_those_before_are_handled(how):
    class Answers(Echo):
        def on_message(self, session, message):
            Recorder.on_message(self, session, message)
            super().on_message(session, message)

    handler, allowed = Answers(), int(10 * SPAN_S)
    data = {
        "whole": frame(TEXT, "hello"),
        "empty": frame(TEXT, ""),
        "in fragments": frame(TEXT, "hel", fin=False) + frame(CONTINUATION, "lo"),
    }[how]
    with endpoint(handler, max_messages_per_s=10, close_timeout_s=0.2) as (app, port), RawClient(port) as client:
        client.sock.sendall(data * allowed)
        for _ in range(allowed):
            client.receive_text()
        send_until_closed(client, data * 100)
        assert handler.close() == (1008, "more than 10 messages a second")
        assert counted_once(app, "max_messages_per_s")
        assert allowed <= handler.messages.qsize() <= allowed + 10 * DEADLINE_S


def test_who_is_refused_hears_the_answers_to_what_came_before_and_then_why():
    with endpoint(Echo(), max_messages_per_s=1) as (_, port), RawClient(port) as client:
        client.sock.sendall(b"".join(frame(TEXT, str(n)) for n in range(int(SPAN_S) + 20)))
        received = [client.receive() for _ in range(int(SPAN_S))]
        assert received == [(TEXT, b"%d" % n) for n in range(int(SPAN_S))]
        assert client.receive_close() == (1008, "more than 1 message a second")
        assert client.at_end()


def test_a_scripts_messages_are_counted_like_others(tmp_path):
    (tmp_path / "echo.js").write_text("export function onMessage(s, m) { s.send(m); }")
    app = WebSocketApp(max_messages_per_s=1)
    app.add_script("/ws/test", tmp_path / "echo.js")
    with serving(app) as port, RawClient(port) as client:
        client.sock.sendall(b"".join(frame(TEXT, str(n)) for n in range(int(SPAN_S) + 20)))
        assert [client.receive_text() for _ in range(int(SPAN_S))] == [str(n) for n in range(int(SPAN_S))]
        assert client.receive_close() == (1008, "more than 1 message a second")


def test_a_scripts_client_that_is_silent_is_idle(tmp_path):
    (tmp_path / "echo.js").write_text("export function onMessage(s, m) { s.send(m); }")
    app = WebSocketApp(idle_timeout_s=0.3)
    app.add_script("/ws/test", tmp_path / "echo.js")
    with serving(app) as port, RawClient(port) as client:
        assert client.receive_close()[0] == 1001


def test_one_client_uses_up_nothing_of_anothers():
    settings = {"max_messages_per_s": 1, "close_timeout_s": 0.2}
    with endpoint(Echo(), **settings) as (_, port), RawClient(port) as bad, RawClient(port) as good:
        send_until_closed(bad, frame(TEXT, "x") * 100)
        for n in range(int(SPAN_S)):
            good.text(str(n))
            assert good.receive_text() == str(n)


def test_a_message_that_trickles_in_is_given_up_however_many_pings_are_answered():
    handler = Recorder()
    settings = {"message_timeout_s": 0.4, "ping_interval_s": 0.05, "ping_timeout_s": 5.0, "close_timeout_s": 0.2}
    with endpoint(handler, **settings) as (app, port), RawClient(port) as client:
        began, data = monotonic(), frame(TEXT, "x" * 100_000)
        client.sock.sendall(data[:14])
        with suppress(OSError):
            for byte in data[14:]:
                client.sock.sendall(bytes([byte]))
                if not handler.closed.empty():
                    break
                client.sock.settimeout(0.02)
                with suppress(TimeoutError):
                    client.sock.recv(100)
        assert monotonic() - began >= 0.39
        assert handler.close() == (1008, "a message was not complete after 0.4 s")
        assert counted_once(app, "message_timeout_s")


def test_the_fragments_of_a_message_have_no_longer_than_one_frame():
    handler = Recorder()
    with endpoint(handler, message_timeout_s=0.3) as (app, port), RawClient(port) as client:
        client.send(TEXT, "a", fin=False)
        stop = threading.Event()

        def trickle():
            with suppress(OSError):
                while not stop.wait(0.02):
                    client.send(CONTINUATION, "b", fin=False)

        thread = threading.Thread(target=trickle)
        thread.start()
        assert client.receive_close() == (1008, "a message was not complete after 0.3 s")
        stop.set()
        thread.join(DEADLINE_S)
        assert counted_once(app, "message_timeout_s")


def test_messages_that_follow_each_other_have_their_time_each():
    """Each ends in a piece in which the next one begins, so there is always one that is not complete."""
    size = 60_000
    with endpoint(Echo(), message_timeout_s=1.0) as (_, port), RawClient(port) as client:
        stream = frame(BINARY, bytes(size), key=b"keyk") * 60
        began, sent, answers = monotonic(), 0, 0
        while sent < len(stream):
            client.sock.sendall(stream[sent : sent + size // 2])
            sent += size // 2
            if sent % size == 0 and answers < sent // size - 1:
                assert client.receive() == (BINARY, bytes(size))
                answers += 1
            threading.Event().wait(0.015)
        while answers < 60:
            assert client.receive() == (BINARY, bytes(size))
            answers += 1
        assert monotonic() - began > 1.0


def test_the_time_that_a_handler_takes_is_not_the_messages():
    go_on = threading.Event()

    class Slow(Recorder):
        def on_message(self, session, message):
            super().on_message(session, message)
            assert go_on.wait(DEADLINE_S)
            session.send("done")

    handler = Slow()
    with endpoint(handler, message_timeout_s=0.2) as (app, port), RawClient(port) as client:
        message = frame(TEXT, "a", fin=False) + frame(CONTINUATION, "b")
        client.sock.sendall(message + frame(TEXT, "the next one begins")[:8])
        assert handler.message() == "ab"
        threading.Event().wait(0.5)
        assert handler.closed.empty()
        go_on.set()
        assert client.receive_text() == "done"
        assert client.receive_close()[0] == 1008
        assert counted_once(app, "message_timeout_s")


@pytest.mark.quiet  # the flood and the server take a core each
@pytest.mark.skipif(native.speedups is None, reason="in pure Python a flood keeps others waiting: see docs/")
def test_a_flood_of_a_hundred_clients_keeps_nobody_else_out(serve):
    """Without the gate in `receive`, nobody gets in for as long as it lasts."""
    app = WebSocketApp(max_sessions=200)
    app.add_handler("/ws/test", Echo())
    port = serve(app).port
    command = [sys.executable, "-m", "tests.bench.badpeers", str(port), "/ws/test", "0", "0", "100"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as flood:
        try:
            assert flood.stdout.readline() == b"\n", "all have come"
            with RawClient(port) as client:
                for n in range(20):
                    client.text(str(n))
                    assert client.receive_text() == str(n)
        finally:
            flood.kill()


# What is counted, where another test is about what the client is told


def test_a_message_that_is_too_big_is_counted():
    with endpoint(Recorder(), max_message_bytes=10) as (app, port):
        for count in (1, 2):
            with RawClient(port) as client:
                client.send(TEXT, "x" * 11)
                assert client.receive_close()[0] == 1009
            wait_until(lambda count=count: count_of(app, "max_message_bytes") == count)


def test_a_client_that_answers_no_ping_is_counted():
    handler = Recorder()
    with endpoint(handler, ping_interval_s=0.05, ping_timeout_s=0.05) as (app, port), RawClient(port):
        assert handler.close()[0] == 1006
        assert counted_once(app, "ping_timeout_s")


def test_a_client_that_does_not_answer_the_close_is_counted():
    handler = Recorder()
    with endpoint(handler, close_timeout_s=0.05) as (app, port), RawClient(port):
        handler.session().close(4000)
        assert handler.close()[0] == 4000
        assert counted_once(app, "close_timeout_s")


# Sessions


def test_one_address_may_have_so_many_sessions_and_gets_429_for_more():
    handler = Recorder()
    with endpoint(handler, max_sessions_per_address=3) as (app, port), ExitStack() as stack:
        clients = [stack.enter_context(RawClient(port)) for _ in range(3)]
        for _ in range(20):
            with RawClient(port) as another:
                assert another.status == 429
                assert another.headers["retry-after"]
                assert another.body() == "127.0.0.1 already has 3 sessions, the limit of max_sessions_per_address\n"
        assert app.metrics.snapshot()["handshakes_refused_429"] == 20
        for _ in clients:
            handler.session()
        clients.pop().leave()
        wait_until(lambda: app.session_count == 2)
        assert stack.enter_context(RawClient(port)).status == 101


def test_when_all_places_are_taken_those_who_come_get_503_and_are_counted():
    with endpoint(Recorder(), max_sessions=2) as (app, port), RawClient(port), RawClient(port):
        for count in (1, 2):
            with RawClient(port) as another:
                assert another.status == 503
                assert another.headers["retry-after"]
            assert app.metrics.snapshot()["handshakes_refused_503"] == count


def test_a_place_is_given_back_however_a_handshake_or_a_session_ends():
    class Fickle(Recorder):
        def on_handshake(self, request):
            request.environ["REMOTE_ADDR"] = "192.0.2.99"  # nor does it matter what a handler makes of it
            return request.get_parameter("in") != "no"

        def on_open(self, session):
            super().on_open(session)
            raise ValueError("on purpose")

    with endpoint(Fickle(), max_sessions_per_address=1) as (app, port):
        for _ in range(3):
            with RawClient(port, "/ws/test?in=no") as client:
                assert client.status == 403
            with RawClient(port) as client:
                assert client.status == 101
                assert client.receive_close()[0] == 1011
                client.reset()
            wait_until(lambda: not app.session_count)
        assert not app._admission._taken_by


def test_an_address_is_the_one_that_a_trusted_proxy_names_and_nobody_elses_word():
    def status(port, forwarded):
        client = stack.enter_context(RawClient(port, headers={"X-Forwarded-For": forwarded}))
        return client.status

    with ExitStack() as stack:
        _, trusting = stack.enter_context(endpoint(Recorder(), max_sessions_per_address=1, trusted_proxies=1))
        assert status(trusting, "192.0.2.1") == 101
        assert status(trusting, "192.0.2.2") == 101
        assert status(trusting, "192.0.2.1") == 429
        assert status(trusting, "192.0.2.77, 192.0.2.1") == 429, "only the last is the proxy's word"
        _, direct = stack.enter_context(endpoint(Recorder(), max_sessions_per_address=1))
        assert status(direct, "192.0.2.1") == 101
        assert status(direct, "192.0.2.2") == 429
