"""How a connection ends, on a real server, seen from a raw client: every way to close, and who decides."""

import socket
import threading
from time import monotonic

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.wire import CLOSE, PING, TEXT, Echo, RawClient, Recorder, close_payload, endpoint, frame
from wsthreads.protocol.outbox import Outbox


@pytest.fixture
def echo():
    handler = Echo()
    with endpoint(handler, close_timeout_s=0.3) as (app, port):
        handler.app, handler.port = app, port
        yield handler


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
        assert session._channel._timer.callback is None, "it would keep the connection, and count it as late"


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


def test_a_client_that_does_not_read_its_pongs_is_too_slow():
    handler = Recorder()
    settings = {"max_outbox_bytes": 100_000, "max_control_frames_per_s": 0, "close_timeout_s": 0.2}
    with endpoint(handler, **settings) as (app, port), RawClient(port, receive_buffer=4096) as client:
        handler.session()._channel.transport._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
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
        assert "the limit is 100000" in reason
        wait_until(lambda: app.metrics.snapshot().get("slow_sessions_closed") == 1, "it is counted")


def test_a_client_that_reads_nothing_for_too_long_is_closed_with_1013():
    handler = Recorder()
    settings = {"send_timeout_s": 0.2, "max_outbox_bytes": 2**30, "close_timeout_s": 0.2}
    with endpoint(handler, **settings) as (app, port), RawClient(port, receive_buffer=4096):
        session = handler.session()
        assert session.send("x" * 8_000_000)
        assert handler.close() == (1013, "too slow: nothing was read for 0.2 s")
        assert not session.send("late")
        wait_until(lambda: app.metrics.snapshot().get("slow_sessions_closed") == 1, "it is counted")
