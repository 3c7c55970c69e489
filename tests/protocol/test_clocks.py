"""What a connection does by the clock, on a real server, seen from a raw client: pings, and idleness."""

import sys
import threading
from time import monotonic, sleep

import pytest

import wsthreads.protocol.clocks
from tests.programs import DEADLINE_S, wait_until
from tests.wire import CLOSE, PING, PONG, TEXT, Echo, RawClient, Recorder, close_payload, come_back, endpoint, vanish


class Clock:
    """The clock of connections, which is turned by hand, and so is their heartbeat; the flusher's goes on by itself."""

    def __init__(self):
        self.now = monotonic()

    def turn(self, clocks, seconds):
        self.now += seconds
        clocks._heartbeat()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in ("connection", "clocks"):
        monkeypatch.setattr(f"wsthreads.protocol.{module}.monotonic", lambda: clock.now)
    return clock


def clocks_of(app, handler):
    """The clocks of the session that has come."""
    handler.session()
    (connection,) = app.endpoint("/ws/test").connections()
    return connection._clocks


def waiting(app, handler):
    """The same, once the connection waits for the client."""
    clocks = clocks_of(app, handler)
    wait_until(lambda: clocks.is_waiting, "the wait for a message")
    return clocks


def acknowledged(clocks):
    """Whether the client's TCP has acknowledged all that was sent to it."""
    return clocks._channel.transport.acknowledged()[0]


LONG = {"ping_interval_s": 100 * DEADLINE_S, "ping_timeout_s": 50 * DEADLINE_S}


# Pings


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
    real, failures = wsthreads.protocol.clocks.encode_frame, [MemoryError()]

    def encode_frame(opcode, payload):
        if opcode == PING and failures:
            raise failures.pop()
        return real(opcode, payload)

    monkeypatch.setattr(wsthreads.protocol.clocks, "encode_frame", encode_frame)
    with endpoint(Recorder(), ping_interval_s=0.05) as (_, port), RawClient(port) as client:
        assert client.receive() == (PING, b"")
    assert not failures


@pytest.mark.parametrize("sign", ["pong", "message"])
def test_a_client_that_answers_a_ping_by_any_sign_of_life_stays(clock, sign):
    handler = Recorder()
    with endpoint(handler, **LONG) as (app, port), RawClient(port) as client:
        clocks = waiting(app, handler)
        for _ in range(4):
            clock.turn(clocks, 100 * DEADLINE_S)
            assert client.receive() == (PING, b"")
            clock.now += 49 * DEADLINE_S
            if sign == "pong":
                client.send(PONG)
                wait_until(lambda: clocks.heard_at == clock.now, "the pong")
            else:
                client.text("busy")
                assert handler.message() == "busy"
                wait_until(lambda: clocks.is_waiting, "the end of on_message")
            clock.turn(clocks, 2 * DEADLINE_S)
            assert clocks._channel.is_open
        client.leave()


def test_a_client_that_talks_is_not_pinged(clock):
    handler = Echo()
    with endpoint(handler, **LONG) as (app, port), RawClient(port) as client:
        clocks = waiting(app, handler)
        for _ in range(4):
            clock.turn(clocks, 60 * DEADLINE_S)
            client.text("a")
            assert client.receive() == (TEXT, b"a"), "a ping would be another frame"
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
    with endpoint(handler, **LONG) as (app, port), RawClient(port) as client:
        clocks = clocks_of(app, handler)
        if hook == "on_message":
            client.text("work")
            handler.message()
        for _ in range(3):
            wait_until(lambda: acknowledged(clocks), "the acknowledgement, for which the kernel has its own clock")
            clock.turn(clocks, 200 * DEADLINE_S)
            assert clocks._channel.is_open
            assert client.receive() == (PING, b""), "it is for TCP to acknowledge"
        go_on.set()
        if hook == "on_message":
            assert client.receive() == (TEXT, b"done")
        wait_until(lambda: clocks.is_waiting, "the end of the handler")
        clock.turn(clocks, 0)
        assert clocks._channel.is_open, "the client has the whole timeout from now"
        assert client.receive() == (PING, b"")
        client.leave()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the socket filters of Linux")
def test_a_client_to_which_something_is_under_way_is_not_gone_however_long_it_was_silent_before(clock):
    """A round trip takes time, and the look of a busy handler's session may come in the midst of it."""
    go_on = threading.Event()

    class Busy(Recorder):
        def on_message(self, session, message):
            super().on_message(session, message)
            assert go_on.wait(DEADLINE_S)

    def look():
        clock.turn(clocks, timeout_s)
        clocks._heartbeat_timer.cancel()  # the flusher's clock goes on by itself

    handler, timeout_s = Busy(), 0.75  # a sum of powers of two: the clock adds it without an error
    settings = {"ping_interval_s": 100 * DEADLINE_S, "ping_timeout_s": timeout_s}
    with endpoint(handler, **settings) as (app, port), RawClient(port) as client:
        clocks = waiting(app, handler)
        (session,) = app.endpoint("/ws/test").sessions()
        client.text("work")
        handler.message()
        try:
            for _ in range(2):
                sleep(2 * timeout_s)  # the kernel's clock counts, too
                wait_until(lambda: acknowledged(clocks), "the acknowledgement of what came before")
                vanish(client.sock)
                session.send("tick")
                wait_until(lambda: not acknowledged(clocks), "the tick on its way")
                look()
                assert session.is_open(), "it has been under way for an instant"
                come_back(client.sock)
                wait_until(lambda: acknowledged(clocks), "the acknowledgement of the tick")
                look()
                assert session.is_open()
                wait_until(lambda: acknowledged(clocks), "the acknowledgement of a ping")
            vanish(client.sock)
            session.send("tick")
            wait_until(lambda: not acknowledged(clocks), "the tick on its way")
            look()
            assert session.is_open()
            look()
            assert not session.is_open(), "nothing was acknowledged for the whole timeout"
        finally:
            go_on.set()


def test_pings_can_be_turned_off():
    handler = Recorder()
    with endpoint(handler, ping_interval_s=0) as (_, port), RawClient(port) as client:
        handler.session()
        client.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.receive()
        client.sock.settimeout(DEADLINE_S)
        client.leave()


# Silence


def test_a_client_that_sends_no_message_is_idle_even_if_it_answers_pings():
    handler = Recorder()
    settings = {"idle_timeout_s": 0.5, "ping_interval_s": 0.05, "ping_timeout_s": 5.0}
    with endpoint(handler, **settings) as (app, port), RawClient(port) as client:
        began, pings = monotonic(), 0
        while (received := client.receive()) == (PING, b""):
            client.send(PONG)
            pings += 1
        assert received == (CLOSE, close_payload(1001, "idle: no message for 0.5 s"))
        client.send(*received)
        assert monotonic() - began >= 0.49
        assert pings
        assert handler.close() == (1001, "idle: no message for 0.5 s")
        wait_until(lambda: app.metrics.snapshot().get("past_idle_timeout_s") == 1, "the counter")


IDLE_S = 10 * DEADLINE_S  # longer than a test


def test_a_client_that_sends_messages_is_not_idle(clock):
    handler = Recorder()
    with endpoint(handler, idle_timeout_s=IDLE_S) as (app, port), RawClient(port) as client:
        clocks = clocks_of(app, handler)
        for _ in range(3):
            clock.now += 0.9 * IDLE_S
            client.text("x")
            wait_until(lambda: clocks.message_ended_at == clock.now, "the end of the message")
            clocks._on_idle_timer()
            assert clocks._channel.is_open
        wait_until(lambda: clocks.is_waiting)
        clock.now += 1.1 * IDLE_S
        clocks._on_idle_timer()
        assert client.receive_close()[0] == 1001
        wait_until(lambda: app.metrics.snapshot().get("past_idle_timeout_s") == 1, "the counter")


def test_a_client_whose_message_takes_long_to_handle_is_not_idle(clock):
    go_on = threading.Event()

    class Slow(Echo):
        def on_message(self, session, message):
            self.messages.put(message)
            assert go_on.wait(DEADLINE_S)
            super().on_message(session, message)

    handler = Slow()
    with endpoint(handler, idle_timeout_s=IDLE_S) as (app, port), RawClient(port) as client:
        clocks = clocks_of(app, handler)
        client.text("a")
        handler.message()
        clock.now += 2 * IDLE_S
        clocks._on_idle_timer()
        assert clocks._channel.is_open
        go_on.set()
        assert client.receive_text() == "a"
        wait_until(lambda: clocks.message_ended_at == clock.now, "the end of the message")
        clocks._on_idle_timer()
        assert clocks._channel.is_open, "its time begins when it can be read again"
