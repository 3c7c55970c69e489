"""`wsthreads.Client` against a server whose every step a test decides."""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
import threading
import time
from unittest.mock import Mock

import pytest

from tests.client.fake_server import DLE, FakeServer
from tests.ports import free_port
from tests.programs import DEADLINE_S, own_threads, wait_until
from wsthreads import (
    Client,
    CloseCodeError,
    ConfigError,
    MessageTypeError,
    RequestError,
    RequestTimeout,
    SessionClosed,
    UsageError,
)
from wsthreads.client import engine as engine_module
from wsthreads.client import inbox, liveness
from wsthreads.client.application import MAX_ASKED
from wsthreads.client.waiter import READ
from wsthreads.testing import live_server

#: Of the client's modules.
FOLDER = os.path.dirname(engine_module.__file__)

pytestmark = pytest.mark.usefixtures("threads_end")

RESUME = {"token": "s.1", "received": 0}


@pytest.fixture
def threads_end():
    """Every thread of every client has ended with its test."""
    yield
    wait_until(lambda: not own_threads("wsthreads-client"))


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """No client asks for an acknowledgement because the machine is slow."""
    monkeypatch.setattr(liveness, "ACKNOWLEDGE_S", 10 * DEADLINE_S)


def received(client, count):
    return [client.receive(timeout=DEADLINE_S) for _ in range(count)]


# A connection.


def test_messages_pass_both_ways_text_and_binary(server, connect):
    client = connect()
    peer = server.welcomed()
    assert client.send("one")
    assert client.send(b"\x00two")
    assert client.send(memoryview(b"three"))
    assert peer.take(3) == ["one", b"\x00two", b"three"]
    peer.send("four", b"five", "äöü 🎉")
    assert received(client, 3) == ["four", b"five", "äöü 🎉"]


def test_messages_that_begin_with_dle_are_escaped_on_the_way(server, connect):
    client = connect()
    peer = server.welcomed()
    client.send("\x10a5")
    client.send(b"\x10q")
    assert peer.take(2) == ["\x10\x10a5", b"\x10\x10q"]
    peer.send("\x10\x10w{}", b"\x10\x10")
    assert received(client, 2) == ["\x10w{}", b"\x10"]


def test_a_message_in_parts_is_one_message(server, connect):
    client = connect()
    server.welcomed().send_in_parts("one ", "message", " only")
    assert received(client, 1) == ["one message only"]


def test_a_lone_surrogate_becomes_a_replacement_character(server, connect):
    client = connect()
    peer = server.welcomed()
    client.send("a\ud800b \ud83c\udf89")
    assert peer.receive() == "a\ufffdb 🎉"


def test_the_handshake_has_headers_and_offers_wsthreads_1_first(server, connect):
    client = connect(headers={"X-Token": "secret"}, protocols=["v2", "v1"])
    peer = server.next()
    assert peer.header("X-Token") == "secret"
    assert peer.request.subprotocols == ["wsthreads.1", "v2", "v1"]
    peer.accept()
    assert peer.receive() == DLE + "h{}"
    peer.welcome(protocol="v2")
    wait_until(lambda: client.is_connected)
    assert client.protocol == "v2"


def test_messages_sent_before_there_is_a_connection_wait_in_order(server, connect):
    client = connect()
    for number in range(10):
        assert client.send(str(number))
    peer = server.welcomed()
    assert peer.take(10) == [str(number) for number in range(10)]


def test_nothing_but_the_hello_is_sent_before_the_welcome(server, connect):
    client = connect()
    peer = server.upgraded()
    assert peer.receive() == DLE + "h{}"
    client.send("early")
    peer.ping()
    assert peer.receive() == "pong"
    peer.welcome()
    assert peer.receive() == "early"


def test_compression_is_offered_if_asked_for(server, connect):
    client = connect(compress=True)
    peer = server.next()
    assert any(extension.startswith("permessage-deflate") for extension in peer.request.extensions)
    peer.accept(compress=True)
    peer.expect(DLE + "h")
    peer.welcome()
    peer.send("x" * 10_000)
    client.send("y" * 10_000)
    assert received(client, 1) == ["x" * 10_000]
    assert peer.receive() == "y" * 10_000


# Waiting.


def test_receive_raises_timeout_error_and_says_why_there_is_no_connection(connect):
    client = connect(f"ws://127.0.0.1:{free_port()}/")
    wait_until(lambda: client._engine._trouble)
    with pytest.raises(TimeoutError, match=r"^nothing was received in 0\.01 s; there is no connection: Connection ref"):
        client.receive(timeout=0.01)


def test_tls_is_no_explanation_for_an_address_that_has_worked(server, connect):
    client = connect()
    server.next().cut()
    wait_until(lambda: "if it speaks TLS, try wss://" in client._engine._trouble)
    peer = server.welcomed()
    wait_until(lambda: client.is_connected)
    peer.cut()
    server.next().cut()
    wait_until(lambda: "the server closed the connection without an answer" in client._engine._trouble)
    assert client._engine._trouble == "the server closed the connection without an answer"


def test_iteration_ends_when_the_server_closes_with_1000(server, connect):
    client = connect()
    peer = server.welcomed()
    peer.send("one", "two")
    peer.close(1000, "done")
    assert list(client) == ["one", "two"]
    assert client.closed == (1000, "done")


def test_iteration_raises_at_another_final_code(server, connect):
    client = connect()
    peer = server.welcomed()
    peer.send("one")
    peer.close(4001, "kicked")
    messages = []
    with pytest.raises(SessionClosed, match="4001 kicked"):
        messages.extend(client)
    assert messages == ["one"] or not client._engine.inbox


def test_iteration_in_a_thread_ends_at_close(server, connect):
    client = connect()
    peer = server.welcomed()
    peer.send("one")
    seen = []
    thread = threading.Thread(target=lambda: seen.extend(client))
    thread.start()
    wait_until(lambda: seen)
    closing = threading.Thread(target=client.close)
    closing.start()
    assert peer.receive() is None
    closing.join(DEADLINE_S)
    thread.join(DEADLINE_S)
    assert seen == ["one"]


# The end.


def test_close_is_a_close_handshake_and_ends_the_threads(server, connect):
    client = connect()
    peer = server.welcomed()
    client.send("last")
    assert peer.receive() == "last"
    done = threading.Thread(target=client.close, args=(4000, "bye"))
    done.start()
    assert peer.receive() is None
    assert peer.closed == (4000, "bye")
    done.join(DEADLINE_S)
    assert client.closed == (4000, "bye")
    assert not client.send("too late")
    with pytest.raises(SessionClosed, match="4000 bye"):
        client.receive(timeout=DEADLINE_S)


def test_what_waits_for_acknowledgements_is_written_before_the_close():
    gate, handled = threading.Event(), []

    class Slow:
        def on_message(self, session, message):
            assert gate.wait(DEADLINE_S)
            handled.append(message)

    with live_server(Slow(), "/ws", resume_s=DEADLINE_S) as running:
        client = Client(f"{running.ws_url}/ws", max_queued=10_000, max_queued_bytes=100_000_000)
        wait_until(lambda: client.is_connected)
        for number in range(3000):
            assert client.send(f"{number:>1000}")
        closing = threading.Thread(target=client.close)
        closing.start()
        wait_until(lambda: client._engine.closing is not None)
        gate.set()
        closing.join(DEADLINE_S)
        wait_until(lambda: len(handled) == 3000)
    assert client.closed == (1000, "")


def test_what_waits_for_on_open_is_written_before_the_close(server, connect):
    entered, go = threading.Event(), threading.Event()

    def on_open(client):
        entered.set()
        assert go.wait(DEADLINE_S)
        assert client.send("login")

    client = connect(on_open=on_open)
    peer = server.welcomed()
    assert entered.wait(DEADLINE_S)
    assert client.send("held")
    closing = threading.Thread(target=client.close)
    closing.start()
    wait_until(lambda: client._engine.closing is not None)
    go.set()
    assert peer.receive() == "login"
    assert peer.receive() == "held"
    assert peer.receive() is None
    closing.join(DEADLINE_S)
    assert client.closed == (1000, "")


def test_a_request_of_on_open_goes_before_what_waits_for_it_while_the_client_closes(server, connect):
    entered, go, answers = threading.Event(), threading.Event(), []

    def on_open(client):
        entered.set()
        assert go.wait(DEADLINE_S)
        answers.append(client.request("login", DEADLINE_S))

    client = connect(on_open=on_open)
    peer = server.welcomed()
    assert entered.wait(DEADLINE_S)
    assert client.send("held")
    closing = threading.Thread(target=client.close)
    closing.start()
    wait_until(lambda: client._engine.closing is not None)
    go.set()
    assert peer.receive() == DLE + "q1:login"
    peer.send(DLE + "r1:welcome")
    assert peer.receive() == "held"
    assert peer.receive() is None
    closing.join(DEADLINE_S)
    assert answers == ["welcome"]
    with pytest.raises(SessionClosed, match="the client is closed"):
        client.request("late")


def test_on_open_sends_nothing_more_behind_the_close_frame(server, connect, monkeypatch):
    monkeypatch.setattr(engine_module, "CLOSE_TIMEOUT_S", 1.0)
    begun, closed, refused = threading.Event(), threading.Event(), threading.Event()

    def on_open(client):
        begun.set()
        assert closed.wait(DEADLINE_S)
        if not client.send("late"):
            refused.set()

    client = connect(on_open=on_open)
    peer = server.welcomed()
    assert begun.wait(DEADLINE_S)
    closing = threading.Thread(target=client.close)
    closing.start()
    wait_until(lambda: client._engine.closing is not None)
    wait_until(lambda: client._engine._connection is None or not client._engine._connection.is_open)
    closed.set()
    assert refused.wait(DEADLINE_S)
    assert peer.receive() is None
    closing.join(DEADLINE_S)


def test_a_welcome_that_comes_behind_the_close_frame_has_no_on_open(server, connect):
    called = []
    client = connect(on_open=called.append)
    peer = server.upgraded()
    peer.expect(DLE + "h")
    closing = threading.Thread(target=client.close)
    closing.start()
    wait_until(lambda: not client._engine._connection.is_open)  # it has written the close frame
    peer.welcome()
    assert peer.receive() is None
    closing.join(DEADLINE_S)
    assert (called, client.closed) == ([], (1000, ""))


def test_an_on_open_that_closes_has_what_waits_written_and_sends_nothing_more(server, connect):
    entered, go, sent = threading.Event(), threading.Event(), []

    def on_open(client):
        entered.set()
        assert go.wait(DEADLINE_S)
        sent.append(client.send("login"))
        client.close()
        sent.append(client.send("too late"))

    client = connect(on_open=on_open)
    peer = server.welcomed()
    assert entered.wait(DEADLINE_S)
    assert client.send("held")
    go.set()
    assert peer.receive() == "login"
    assert peer.receive() == "held"
    assert peer.receive() is None
    wait_until(lambda: sent == [True, False])
    assert client.closed == (1000, "")


def test_the_on_open_of_a_former_session_closes_at_once_and_drops_what_waits_for_the_next_one(server, connect):
    calls, go = [], threading.Event()

    def on_open(client):
        calls.append(client)
        assert go.wait(DEADLINE_S)
        client.close()

    client = connect(on_open=on_open)
    server.welcomed().cut()
    peer = server.welcomed(token="t.1")
    wait_until(lambda: client.is_connected)
    assert client.send("behind a login")
    go.set()
    began = time.monotonic()
    assert peer.receive() is None
    assert time.monotonic() - began < engine_module.CLOSE_TIMEOUT_S / 2
    wait_until(lambda: client.closed)
    assert client.closed == (1000, "")
    assert len(calls) == 1


def test_an_on_open_may_close_a_client_that_closes_already(server, connect):
    """It releases what waits for it: else this would be dropped, after half of the time for the close."""
    entered, go = threading.Event(), threading.Event()

    def on_open(client):
        entered.set()
        assert go.wait(DEADLINE_S)
        client.close()

    client = connect(on_open=on_open)
    peer = server.welcomed()
    assert entered.wait(DEADLINE_S)
    assert client.send("held")
    closing = threading.Thread(target=client.close)
    closing.start()
    wait_until(lambda: client._engine.closing is not None)
    go.set()
    assert peer.receive() == "held"
    assert peer.receive() is None
    closing.join(DEADLINE_S)
    assert client.closed == (1000, "")


def test_close_ends_a_client_that_waits_for_its_next_attempt(connect):
    client = connect(f"ws://127.0.0.1:{free_port()}/", min_delay_s=1000, max_delay_s=1000)
    wait_until(lambda: client._engine._trouble)
    client.close()
    assert not client._engine._thread.is_alive()


@pytest.mark.parametrize("stage", ["connect", "handshake", "welcome"])
def test_close_ends_a_client_that_waits_for_the_server(stage, connect, monkeypatch):
    monkeypatch.setattr(engine_module, "CLOSE_TIMEOUT_S", 0.2 if stage == "welcome" else DEADLINE_S)
    with FakeServer() as server:
        client = connect(server.url)
        if stage == "welcome":
            server.upgraded().expect(DLE + "h")
        elif stage == "handshake":
            server.next()
        client.close()
        assert not client._engine._thread.is_alive()


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 3000, 4000, 4999])
def test_a_final_close_code_ends_the_client(code, server, connect):
    client = connect()
    server.welcomed().close(code, "no")
    with pytest.raises(SessionClosed, match=f"{code} no"):
        client.receive(timeout=DEADLINE_S)
    assert client.closed == (code, "no")
    assert not server.has_more()


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013])
def test_after_another_code_the_client_comes_back_with_its_token(code, server, connect):
    connect()
    server.welcomed().close(code)
    assert server.welcomed(resumed=True).hello == {"resume": RESUME}


def test_a_close_without_a_code_in_place_of_the_welcome_leaves_the_session_as_it_is(server, connect):
    connect()
    server.welcomed().cut()
    peer = server.upgraded()
    peer.expect(DLE + "h")
    peer._put(b"\x88\x00")
    assert server.welcomed(resumed=True).hello == {"resume": RESUME}


def test_a_refused_handshake_is_final_and_its_text_is_told(server, connect):
    client = connect()
    server.next().refuse(403, "not you")
    with pytest.raises(SessionClosed, match="refused with 403: not you"):
        client.receive(timeout=DEADLINE_S)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_that_is_busy_is_asked_again(status, server, connect):
    client = connect()
    server.next().refuse(status)
    server.welcomed().send("there")
    assert received(client, 1) == ["there"]


def test_the_client_gives_up_after_max_attempts(server, connect):
    client = connect(max_attempts=2)
    for _ in range(3):
        server.next().cut()
    with pytest.raises(SessionClosed):
        client.receive(timeout=DEADLINE_S)
    assert not server.has_more()


# Resuming.


def test_each_message_is_sent_once_and_in_order_over_a_lost_connection(server, connect):
    client = connect()
    peer = server.welcomed()
    for number in range(5):
        client.send(str(number))
    assert peer.take(5) == list("01234")
    peer.cut()
    client.send("5")
    peer = server.welcomed(resumed=True, token="s.2", received=2)  # 2, 3 and 4 were lost on the way
    assert peer.hello == {"resume": RESUME}
    assert peer.take(4) == list("2345")
    assert client.resumed
    assert client.session_id == "s"
    peer.cut()
    assert server.welcomed(resumed=True, received=6).hello == {"resume": {"token": "s.2", "received": 0}}


def test_what_was_received_is_counted_in_the_hello(server, connect):
    client = connect()
    peer = server.welcomed()
    peer.send("one", b"two", "\x10\x10three")
    assert received(client, 3) == ["one", b"two", "\x10three"]
    peer.cut()
    peer = server.welcomed(resumed=True)
    assert peer.hello == {"resume": {"token": "s.1", "received": 3}}
    peer.send("four")
    assert received(client, 1) == ["four"]


def test_received_messages_are_acknowledged_by_number_and_by_size(server, connect):
    client = connect(max_received=2000)
    peer = server.welcomed()
    peer.send(*(str(number) for number in range(1024)))
    assert peer.receive() == DLE + "a1024"
    peer.send("x" * 65_536)
    assert peer.receive() == DLE + "a1025"
    peer.send("\N{DOOR}" * 16_384)  # 4 bytes each
    assert peer.receive() == DLE + "a1026"
    assert len(received(client, 1026)) == 1026


def test_acknowledged_messages_are_not_kept(server, connect):
    client = connect(max_queued=4, send_timeout_s=DEADLINE_S)
    peer = server.welcomed()
    for number in range(4):
        client.send(str(number))
    peer.take(4)
    peer.send(DLE + "a3")
    wait_until(lambda: client._engine.dialogue.waiting == 1)
    peer.cut()
    assert server.welcomed(resumed=True, received=3).receive() == "3"


def test_without_a_connection_send_refuses_what_is_too_much(server, connect):
    client = connect(max_queued=2)
    assert [client.send("x") for _ in range(3)] == [True, True, False]
    client = connect(max_queued_bytes=10)
    assert client.send("x" * 11)  # a single one may have any size
    assert not client.send("x")


def test_with_a_connection_send_waits_for_an_acknowledgement_and_asks_for_it(server, connect):
    client = connect(max_queued=2, send_timeout_s=DEADLINE_S)
    peer = server.welcomed()
    wait_until(lambda: client.is_connected)
    results = []
    sender = threading.Thread(target=lambda: results.extend(client.send(text) for text in "123"))
    sender.start()
    assert peer.take(3) == ["1", "2", DLE + "p0"]
    peer.send(DLE + "a2")
    assert peer.receive() == "3"
    sender.join(DEADLINE_S)
    assert results == [True] * 3


def test_a_session_that_cannot_be_resumed_begins_afresh_with_what_was_never_sent(server, connect):
    client = connect()
    peer = server.welcomed()
    client.send("perhaps handled")
    peer.receive()
    peer.cut()
    wait_until(lambda: not client.is_connected)
    client.send("never sent")
    peer = server.welcomed(token="t.1", why="unknown")
    assert peer.receive() == "never sent"
    assert (client.resumed, client.lost, client.session_id) == (False, 1, "t")
    peer.cut()
    assert server.welcomed(resumed=True, received=1).hello == {"resume": {"token": "t.1", "received": 0}}


def test_requests_and_answers_do_not_count_as_lost(server, connect):
    client = connect(on_request=lambda message: "answer")
    peer = server.welcomed()
    peer.send(DLE + "q1:a")
    assert peer.receive() == DLE + "r1:answer"

    def ask():
        with contextlib.suppress(SessionClosed):
            client.request("b", DEADLINE_S)

    asking = threading.Thread(target=ask)
    asking.start()
    assert peer.receive() == DLE + "q1:b"
    client.send("one")
    peer.receive()
    peer.cut()
    server.welcomed(token="t.1", why="unknown").cut()
    asking.join(DEADLINE_S)
    wait_until(lambda: client.lost == 1)


def test_without_a_token_nothing_is_resumed_and_nothing_kept(server, connect):
    client = connect()
    peer = server.welcomed(token=None)
    client.send("one")
    peer.receive()
    assert client._engine.dialogue.waiting == 0
    assert client.session_id is None
    peer.cut()
    assert server.welcomed(token=None).hello == {}


def test_a_close_before_the_welcome_with_a_final_code_ends_the_client(server, connect):
    client = connect()
    server.welcomed().cut()
    server.upgraded().close(4001, "kicked")
    with pytest.raises(SessionClosed, match="4001 kicked"):
        client.receive(timeout=DEADLINE_S)


def test_a_close_before_the_welcome_with_1013_changes_nothing(server, connect):
    client = connect()
    server.welcomed().cut()
    server.upgraded().close(1013)
    assert server.welcomed(resumed=True).hello == {"resume": RESUME}
    assert client.closed is None


def test_on_open_is_called_for_a_fresh_session_and_what_it_sends_goes_first(server, connect):
    client = connect(on_open=lambda client: [client.send("login"), client.send("join")])
    client.send("queued")
    peer = server.welcomed()
    assert peer.take(3) == ["login", "join", "queued"]
    peer.cut()
    peer = server.welcomed(resumed=True, received=3)
    client.send("no login")
    assert peer.receive() == "no login"
    peer.cut()
    assert server.welcomed(token="t.1").take(2) == ["login", "join"]


class Steps:
    """An `on_open` whose calls send "login", wait for `go`, and send "login" once more. `sent` has what `send` says."""

    def __init__(self):
        self.begun, self.go, self.sent = threading.Semaphore(0), threading.Semaphore(0), []

    def __call__(self, client):
        number = len(self.sent)
        self.sent.append([client.send(f"login 1 of {number}")])
        self.begun.release()
        assert self.go.acquire(timeout=DEADLINE_S)
        self.sent[number].append(client.send(f"login 2 of {number}"))


def test_what_on_open_sends_when_its_session_is_over_is_refused_and_lets_nothing_pass(server, connect):
    steps = Steps()
    client = connect(on_open=steps)
    peer = server.welcomed()
    assert steps.begun.acquire(timeout=DEADLINE_S)
    peer.close(1012)
    peer = server.welcomed(token="t.1")
    wait_until(lambda: client.is_connected)
    client.send("data")
    steps.go.release()
    steps.go.release()
    assert peer.take(3) == ["login 1 of 1", "login 2 of 1", "data"]
    assert steps.sent == [[True, False], [True, True]]


def test_a_request_of_an_on_open_whose_session_is_over_raises_session_closed(server, connect):
    ends, go = [], threading.Event()

    def on_open(client):
        if not ends:
            ends.append(None)
            assert go.wait(DEADLINE_S)
            with pytest.raises(SessionClosed, match="the session for which this on_open was called is over"):
                client.request("late", DEADLINE_S)
            ends.append("closed")

    client = connect(on_open=on_open)
    peer = server.welcomed()
    wait_until(lambda: ends)
    peer.close(1012)
    peer = server.welcomed(token="t.1")
    wait_until(lambda: client.is_connected)
    go.set()
    client.send("data")
    assert peer.receive() == "data"
    assert ends == [None, "closed"]


def test_a_login_that_was_not_sent_is_not_sent_to_the_next_session(server, connect):
    calls, go = [], threading.Event()

    def on_open(client):
        calls.append(None)
        number = len(calls)
        assert number > 1 or go.wait(DEADLINE_S)
        client.send(f"login {number}")

    client = connect(on_open=on_open)
    peer = server.welcomed()
    wait_until(lambda: calls)
    peer.cut()
    peer = server.upgraded()
    peer.expect(DLE + "h")
    client.send("data")
    go.set()  # before the welcome
    wait_until(lambda: client._engine.dialogue.waiting == 2)
    peer.welcome(token="t.1")
    assert peer.take(2) == ["login 2", "data"]


def test_a_session_that_is_over_before_its_on_open_begins_has_none(server, connect):
    steps = Steps()
    client = connect(on_open=steps)
    peer = server.welcomed()
    assert steps.begun.acquire(timeout=DEADLINE_S)
    for number in range(3):
        peer.close(1012)
        peer = server.welcomed(token=f"t.{number}")
    peer.send("seen")
    assert received(client, 1) == ["seen"]
    steps.go.release()
    steps.go.release()
    assert peer.take(2) == ["login 1 of 1", "login 2 of 1"]
    assert len(steps.sent) == 2


def test_what_on_request_sends_goes_behind_the_login(server, connect):
    go, steps = threading.Event(), Steps()

    def answer(message):
        assert go.wait(DEADLINE_S)
        client.send("from on_request")

    client = connect(on_request=answer, on_open=steps)
    steps.go.release()
    peer = server.welcomed()
    assert peer.take(2) == ["login 1 of 0", "login 2 of 0"]
    assert steps.begun.acquire(timeout=DEADLINE_S)
    peer.send(DLE + "q1:?")
    wait_until(lambda: client._engine.application.asked)
    peer.cut()
    peer = server.welcomed(token="t.1")
    assert steps.begun.acquire(timeout=DEADLINE_S)
    go.set()
    wait_until(lambda: not client._engine.application.asked)
    steps.go.release()
    assert peer.take(3) == ["login 1 of 1", "login 2 of 1", "from on_request"]


def test_a_request_of_the_server_is_answered_while_on_open_waits_for_the_server(server, connect):
    client = connect(on_open=lambda client: client.request("login", DEADLINE_S), on_request=lambda message: "me")
    client.send("data")
    peer = server.welcomed()
    assert peer.receive() == DLE + "q1:login"
    peer.send(DLE + "q1:who?")
    assert peer.receive() == DLE + "r1:me"
    peer.send(DLE + "r1:welcome")
    assert peer.receive() == "data"


def test_an_on_open_that_fails_does_not_hold_messages_back(server, connect):
    client = connect(on_open=lambda client: 1 / 0)
    client.send("queued")
    assert server.welcomed().receive() == "queued"


# The address.


def test_the_address_function_is_called_for_each_connection(server, connect):
    tokens = iter(range(100))
    connect(lambda: f"{server.url}?token={next(tokens)}")
    peer = server.welcomed()
    assert peer.request.target == "/ws?token=0"
    peer.cut()
    assert server.welcomed(resumed=True).request.target == "/ws?token=1"


def test_an_address_function_that_fails_is_called_again(server, connect):
    answers = iter([OSError("no network"), None, server.url])

    def address():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = connect(address)
    server.welcomed().send("there")
    assert received(client, 1) == ["there"]


def test_after_3000_and_401_the_address_function_is_asked_once_more(server, connect):
    client = connect(lambda: server.url)
    server.welcomed().close(3000)
    server.next().refuse(401)
    with pytest.raises(SessionClosed, match="401"):
        client.receive(timeout=DEADLINE_S)


@pytest.mark.parametrize("url", ["http://localhost/", "ws://", "ws://[/", "localhost:5000"])
def test_an_address_that_is_none_is_an_error_at_once(url):
    with pytest.raises(UsageError):
        Client(url)


def test_an_address_function_with_a_wrong_address_ends_the_client(connect):
    client = connect(lambda: "http://localhost/")
    with pytest.raises(SessionClosed, match="a WebSocket URL looks like"):
        client.receive(timeout=DEADLINE_S)


@pytest.mark.parametrize("options", [{"min_delay_s": 0}, {"max_queued": -1}, {"connect_timeout_s": float("nan")}])
def test_a_wrong_option_is_an_error_at_once(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Client("ws://localhost/", **options)


def test_wrong_messages_and_close_codes_are_errors(connect):
    client = connect()
    with pytest.raises(MessageTypeError, match="dict"):
        client.send({})
    with pytest.raises(CloseCodeError):
        client.close(999)


def test_no_repr_and_no_log_has_the_token(server, connect, caplog):
    caplog.set_level("DEBUG", "wsthreads")
    client = connect()
    server.welcomed(token="s.secret").cut()
    server.welcomed(token="s.secret", resumed=True)
    wait_until(lambda: client.is_connected)
    assert "secret" not in repr(client) + caplog.text
    assert "the session is resumed" in caplog.text


# Requests.


def test_a_request_returns_the_answer(server, connect):
    client = connect()
    peer = server.welcomed()
    answers = []
    ask = threading.Thread(target=lambda: answers.extend(client.request(what, DEADLINE_S) for what in ("a", b"b", "c")))
    ask.start()
    assert peer.receive() == DLE + "q1:a"
    peer.send(DLE + "r1:A:1")
    assert peer.receive() == b"\x10q2:b"
    peer.send(b"\x10r2:\x00B")
    assert peer.receive() == DLE + "q3:c"
    peer.send(DLE + "n3")
    ask.join(DEADLINE_S)
    assert answers == ["A:1", b"\x00B", None]


def test_a_request_that_fails_raises_the_text(server, connect):
    client = connect()
    peer = server.welcomed()
    client_thread = threading.Thread(target=lambda: peer.receive() and peer.send(DLE + "e1:no such room"))
    client_thread.start()
    with pytest.raises(RequestError, match="no such room"):
        client.request("join", DEADLINE_S)
    client_thread.join(DEADLINE_S)


def test_a_request_without_an_answer_times_out_and_its_late_reply_is_ignored(server, connect):
    client = connect()
    peer = server.welcomed()
    wait_until(lambda: client.is_connected)  # else the request may never be sent
    with pytest.raises(RequestTimeout, match=r"no answer came in 0\.01 s"):
        client.request("a", 0.01)
    assert issubclass(RequestTimeout, TimeoutError)
    peer.receive()
    peer.send(DLE + "r1:late", "next")
    assert received(client, 1) == ["next"]
    assert not client._engine.dialogue._pending


@pytest.fixture
def deadline_comes_first(monkeypatch):
    """A function that has a wait of a client's call end at its deadline, although what it waits for is in the socket.

    That is what a process does which stood still: its waiting thread is faster than the one that reads. The latter is
    held until the wait is over.
    """

    def arrange(engine, news):
        is_reading, has_come, deadline_is_over = threading.Event(), threading.Event(), threading.Event()
        wait, wait_for = engine._waiter.wait, news.wait_for

        def hold(*arguments):
            is_reading.set()
            ready = wait(*arguments)
            if ready & READ:
                has_come.set()
                assert deadline_is_over.wait(DEADLINE_S)
            return ready

        def time_out(is_there, timeout):
            monkeypatch.setattr(news, "wait_for", wait_for)
            wait_until(lambda: wait_for(has_come.is_set, 0.01))  # without the lock, which the other thread needs
            assert not is_there()
            deadline_is_over.set()
            return False

        monkeypatch.setattr(engine._waiter, "wait", hold)
        monkeypatch.setattr(news, "wait_for", time_out)
        engine.wake()
        assert is_reading.wait(DEADLINE_S)

    return arrange


def test_an_answer_that_has_arrived_at_the_deadline_is_read(server, connect, deadline_comes_first):
    client = connect()
    peer = server.welcomed()
    wait_until(lambda: client.is_connected)
    deadline_comes_first(client._engine, client._engine.moved)

    def reply():
        assert peer.receive() == DLE + "q1:a"
        peer.send(DLE + "r1:A")

    answer = threading.Thread(target=reply)
    answer.start()
    assert client.request("a", 60) == "A"
    answer.join(DEADLINE_S)


def test_a_message_that_has_arrived_at_the_deadline_is_received(server, connect, deadline_comes_first):
    client = connect()
    peer = server.welcomed()
    wait_until(lambda: client.is_connected)
    deadline_comes_first(client._engine, client._engine.arrived)
    peer.send("x")
    assert client.receive(60) == "x"
    with pytest.raises(TimeoutError, match=r"nothing was received in 0 s$"):
        client.receive(0)
    peer.send("y")
    assert received(client, 1) == ["y"]


def test_a_look_at_the_deadline_does_not_wait_for_a_server_that_never_stops(server, connect, monkeypatch):
    client = connect()
    peer = server.welcomed()
    wait_until(lambda: client.is_connected)
    monkeypatch.setattr(client._engine._waiter, "wait", lambda *arguments: time.sleep(0.001) or READ)
    monkeypatch.setattr(client._engine, "_read", lambda connection: None)  # so there is always more, and no answer
    with pytest.raises(RequestTimeout, match=r"no answer came in 0\.01 s"):
        client.request("a", 0.01)
    assert peer.receive() == DLE + "q1:a"
    monkeypatch.undo()


def test_a_request_survives_a_lost_connection(server, connect):
    client = connect()
    peer = server.welcomed()
    answers = []
    ask = threading.Thread(target=lambda: answers.append(client.request("a", DEADLINE_S)))
    ask.start()
    assert peer.receive() == DLE + "q1:a"
    peer.cut()
    peer = server.welcomed(resumed=True, received=0)
    assert peer.receive() == DLE + "q1:a"
    peer.cut()
    server.welcomed(resumed=True, received=1).send(DLE + "r1:A")
    ask.join(DEADLINE_S)
    assert answers == ["A"]


def test_a_request_of_a_session_that_is_over_raises_session_closed(server, connect):
    client = connect()
    peer = server.welcomed()
    errors = []

    def ask():
        try:
            client.request("a", DEADLINE_S)
        except SessionClosed as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    peer.receive()
    peer.cut()
    server.welcomed(token="t.1", why="unknown")
    thread.join(DEADLINE_S)
    assert len(errors) == 1


def test_requests_of_the_server_are_answered_one_at_a_time(server, connect):
    running, most = [], []

    def answer(message):
        running.append(message)
        most.append(len(running))
        time.sleep(0.001)
        running.remove(message)
        if message == "fail":
            raise RequestError("told so")
        if message == "bug":
            raise ValueError("a secret")
        if message == "wrong":
            return 7
        return None if message == "null" else message

    client = connect(on_request=answer)
    peer = server.welcomed()
    for id, what in enumerate(["a", "null", "fail", "bug", "wrong"], 1):
        peer.send(f"{DLE}q{id}:{what}")
    peer.send(b"\x10q6:\x00")
    assert peer.take(6) == [
        DLE + "r1:a", DLE + "n2", DLE + "e3:told so", DLE + "e4:failed", DLE + "e5:failed", b"\x10r6:\x00"
    ]  # fmt: skip
    assert max(most) == 1
    assert client.closed is None


def test_without_on_request_requests_of_the_server_are_refused(server, connect):
    connect()
    peer = server.welcomed()
    peer.send(DLE + "q1:a")
    assert peer.receive() == DLE + "e1:no handler: the client has no on_request"


def test_too_many_requests_of_the_server_are_refused_at_once(server, connect):
    go = threading.Event()
    connect(on_request=lambda message: str(go.wait(DEADLINE_S)))
    peer = server.welcomed()
    for id in range(1, MAX_ASKED + 2):
        peer.send(f"{DLE}q{id}:a")
    assert peer.expect(DLE) == f"e{MAX_ASKED + 1}:too many requests"
    go.set()


def test_an_answer_for_a_session_that_is_over_is_dropped(server, connect):
    go = threading.Event()
    client = connect(on_request=lambda message: str(go.wait(DEADLINE_S)))
    peer = server.welcomed()
    peer.send(DLE + "q1:a")
    wait_until(lambda: client._engine.application.asked)
    peer.cut()
    peer = server.welcomed(token="t.1")
    wait_until(lambda: client.is_connected)
    go.set()
    wait_until(lambda: not client._engine.application.asked)
    client.send("first")
    assert peer.receive() == "first"


def test_on_request_may_itself_ask_the_server(server, connect):
    client = connect(on_request=lambda message: client.request(message + "?", DEADLINE_S))
    peer = server.welcomed()
    peer.send(DLE + "q1:a")
    assert peer.receive() == DLE + "q1:a?"
    peer.send(DLE + "r1:b")
    assert peer.receive() == DLE + "r1:b"


def test_on_request_may_close_the_client(server, connect):
    client = connect(on_request=lambda message: client.close(4000, "enough"))
    peer = server.welcomed()
    peer.send(DLE + "q1:a")
    assert peer.receive() is None
    assert peer.closed == (4000, "enough")


# Signal handlers and finalizers.


def test_what_a_finalizer_sends_arrives_wherever_it_interrupts_the_client(server, connect):
    sent, seen = [], set()

    def trace(frame, event, argument):
        place = frame.f_code, frame.f_lineno
        if FOLDER in frame.f_code.co_filename and place not in seen:
            seen.add(place)
            sent.append(f"late {len(sent)}")
            assert client is None or client.send(sent[-1])
        return trace

    def call():
        sys.settrace(trace)
        client.send("one")
        client.request("two")
        client.receive()
        repr(client)
        sys.settrace(None)

    client = None
    client = connect()
    threading.settrace(trace)
    try:
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
    finally:
        threading.settrace(None)
    peer = server.welcomed()
    got = []
    while DLE + "q1:two" not in got:
        got.append(peer.receive())
    peer.send("three", DLE + "r1:four")
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    while len(got) < len(sent) + 2:
        got.append(peer.receive())
    assert sorted(got) == sorted(["one", DLE + "q1:two", *sent])
    assert len(sent) > 50


def test_a_signal_handler_that_interrupts_the_client_closes_it(server, connect):
    client = connect()
    peer = server.welcomed()
    wait_until(lambda: client.is_connected)
    with client._engine.lock:
        assert client.send("late")
        for wait in (client.receive, lambda: client.request("?")):
            with pytest.raises(RuntimeError, match="cannot wait in a signal handler"):
                wait()
        client.close(4000, "a signal")
        assert not client.send("later still")
    assert peer.take(2) == ["late", None]
    assert peer.closed == (4000, "a signal")
    wait_until(lambda: client.closed)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_function_of_the_application_that_raises_any_exception_ends_no_thread(server, connect, error):
    def fail(*arguments):
        raise error

    client = connect(on_request=fail, on_open=fail)
    peer = server.welcomed()
    for number in (1, 2):
        peer.send(f"{DLE}q{number}:?")
        assert peer.receive() == f"{DLE}e{number}:failed"
    peer.cut()
    peer = server.welcomed()
    client.send("still here")
    assert peer.receive() == "still here"


# Liveness.


def test_a_quiet_server_is_asked_for_a_sign_of_life(server, connect):
    client = connect()
    peer = server.welcomed(heartbeatMs=20, timeoutMs=60_000)
    assert peer.receive() == DLE + "p0"
    peer.send(DLE + "a0")
    assert peer.receive() == DLE + "p0"
    peer.send("x")
    assert peer.receive() == DLE + "p1"
    assert client.is_connected


def test_the_server_is_asked_to_acknowledge_what_it_leaves_unacknowledged(server, connect, monkeypatch):
    monkeypatch.setattr(liveness, "ACKNOWLEDGE_S", 0.02)
    client = connect()
    peer = server.welcomed()
    client.send("one")
    assert peer.take(3) == ["one", DLE + "p0", DLE + "p0"]
    peer.send(DLE + "a1", "done")
    assert received(client, 1) == ["done"]
    time.sleep(0.2)  # nothing is unacknowledged
    client.send("two")
    message = peer.receive()
    while message == DLE + "p0":  # asked before the acknowledgement had come
        message = peer.receive()
    assert message == "two"
    assert peer.receive() == DLE + "p1"
    peer.send(DLE + "a2")
    wait_until(lambda: not client._engine.dialogue.waiting)


def test_the_server_is_asked_again_only_after_a_while(server, connect, clock):
    client = connect()
    peer = server.welcomed()
    client.send("one")
    for number in range(5):
        client.send(f"{number}")  # the thread looks at the time whenever a message comes or goes
        peer.send(f"{number}")
        assert received(client, 1) == [f"{number}"]
    clock[0] += 20 * DEADLINE_S
    client._engine.wake()
    assert peer.take(7) == ["one", "0", "1", "2", "3", "4", DLE + "p5"]
    client._engine.wake()
    client.send("two")
    assert peer.receive() == "two"


def test_a_server_that_resumes_nothing_is_not_asked_to_acknowledge(server, connect, monkeypatch):
    monkeypatch.setattr(liveness, "ACKNOWLEDGE_S", 0.02)
    client = connect()
    peer = server.welcomed(token=None)
    client.send("one")
    time.sleep(0.2)
    client.send("two")
    assert peer.take(2) == ["one", "two"]


def test_a_client_whose_application_pauses_stays_connected_and_acknowledges_later(server, connect):
    client = connect(max_received=10)
    peer = server.welcomed(heartbeatMs=20, timeoutMs=60_000_000)
    messages = [str(number) for number in range(2000)]
    peer.send(*messages)
    wait_until(lambda: len(client._engine.inbox) == 2000)
    peer.ping()
    beats = []
    while (message := peer.receive()) != "pong":
        beats.append(message)
    while len(beats) < 2 or beats[-1] != DLE + "p0":
        beats.append(peer.receive())
        peer.send(DLE + "a0")
    assert set(beats) == {DLE + "p0"}, "something was acknowledged"
    assert received(client, 2000) == messages
    while (message := peer.receive()) == DLE + "p0":
        peer.send(DLE + "a0")
    assert message == DLE + "a2000"


def test_a_client_whose_application_pauses_notices_the_end_and_comes_back(server, connect):
    client = connect(max_received=10)
    peer = server.welcomed()
    messages = [str(number) for number in range(100)]
    peer.send(*messages)
    wait_until(lambda: len(client._engine.inbox) == 100)
    peer.cut()
    peer = server.welcomed(resumed=True)
    assert peer.hello == {"resume": {"token": "s.1", "received": 100}}
    peer.send("more")
    assert received(client, 101) == [*messages, "more"]


def test_threads_that_wait_for_room_do_not_ask_for_it_whenever_a_message_comes(server, connect, monkeypatch):
    monkeypatch.setattr(engine_module, "ASK_INTERVAL_S", 1000.0)
    client = connect(max_queued=1, send_timeout_s=DEADLINE_S)
    peer = server.welcomed(heartbeatMs=0)
    wait_until(lambda: client.is_connected)
    assert client.send("one")
    for _ in range(3):
        threading.Thread(target=client.send, args=("another",), daemon=True).start()
    assert peer.take(2) == ["one", DLE + "p0"]
    wait_until(lambda: client._engine._waiting == 3)
    for number in range(50):
        peer.send(f"{number}")
        assert received(client, 1) == [f"{number}"]
    peer.send(DLE + "a1")
    assert peer.receive() == "another"


def test_a_silent_connection_is_dropped_and_replaced(server, connect):
    client = connect()
    peer = server.welcomed(heartbeatMs=20, timeoutMs=20)
    again = server.welcomed(resumed=True)
    assert again.hello == {"resume": RESUME}
    again.send("there")
    assert received(client, 1) == ["there"]
    assert peer.receive() == DLE + "p0"


def test_patience_doubles_with_each_connection_on_which_nothing_came(server, connect):
    """A message may take longer than that, and the system may have taken all of it."""
    client = connect()
    server.welcomed(heartbeatMs=20, timeoutMs=20)
    for patience in (2, 4, 8):
        peer = server.upgraded()
        peer.expect(DLE + "h")
        assert client._engine._liveness._patience == patience
        peer.welcome(resumed=True, heartbeatMs=20, timeoutMs=20 if patience < 8 else 60_000)
    peer.expect(DLE + "p")
    peer.send(DLE + "a0")
    wait_until(lambda: client._engine._liveness._patience == 1)


def test_a_message_that_is_still_being_sent_is_a_sign_of_life(server, connect, clock):
    client = connect()
    server.welcomed(heartbeatMs=1000, timeoutMs=1000)
    wait_until(lambda: client.is_connected)
    engine, slow = client._engine, Mock(unsent_bytes=5)

    def look():
        clock[0] += 1000
        engine._time_left(slow, 0.0)
        return slow.abort.called

    with engine.lock:  # its thread sleeps
        engine._liveness.begin(engine_module.monotonic())
        assert not look()  # the server is asked
        for unsent in (4, 3, 2, 1):
            slow.unsent_bytes = unsent
            assert not look()
        assert not look()  # the last look at what has come
        assert look()


def test_a_server_may_ask_for_a_sign_of_life_once_in_an_age(server, connect):
    connect()
    peer = server.welcomed(heartbeatMs=2**53 - 1, timeoutMs=2**53 - 1)
    peer.send("x")
    peer.ping()
    assert not server.has_more()


@pytest.fixture
def clock(monkeypatch):
    """The clients' clock is ahead by its first item."""
    ahead = [0.0]
    monkeypatch.setattr(engine_module, "monotonic", lambda: time.monotonic() + ahead[0])
    return ahead


def test_a_server_that_never_welcomes_is_dropped(server, connect, clock):
    client = connect()
    server.upgraded().expect(DLE + "h")
    clock[0] = 1000
    client._engine.wake()
    server.welcomed()


def test_a_client_that_has_slept_looks_for_input_before_it_drops_a_connection(server, connect, clock):
    client = connect(max_received=1)
    peer = server.welcomed(heartbeatMs=10, timeoutMs=100_000)
    assert peer.receive() == DLE + "p0"
    with client._engine.lock:  # its thread sleeps
        peer.send("it came while you slept")
        clock[0] = 1000
        client._engine.wake()
    assert received(client, 1) == ["it came while you slept"]
    assert peer.receive() == DLE + "p1"
    assert client.is_connected


def test_a_client_that_does_not_read_takes_no_connection_for_dead(server, connect, clock, monkeypatch):
    monkeypatch.setattr(inbox, "READ_AHEAD_BYTES", 0)
    client = connect(max_received=1)
    peer = server.upgraded()
    peer.expect(DLE + "h")
    with peer.together():
        peer.welcome(heartbeatMs=1000, timeoutMs=1000)
        peer.send("one")
    wait_until(lambda: client._engine.inbox)
    for _ in range(3):
        clock[0] += 1000
        client._engine.wake()
    client.send("still there")
    assert peer.receive() == "still there"
    assert client.is_connected


def test_a_client_whose_application_takes_nothing_stops_reading_if_the_server_does_not_stop(
    server, connect, monkeypatch
):
    monkeypatch.setattr(inbox, "READ_AHEAD_BYTES", 500_000)
    client = connect(max_received=10)
    peer = server.welcomed()
    sent = threading.Thread(target=lambda: peer.send(*(f"{number}".rjust(100_000) for number in range(200))))
    sent.start()
    wait_until(lambda: len(client._engine.inbox) >= 10)
    time.sleep(0.05)
    assert len(client._engine.inbox) < 20
    assert client.is_connected
    assert [int(text) for text in received(client, 200)] == list(range(200))
    sent.join(DEADLINE_S)


def test_an_answer_is_read_even_if_the_application_takes_nothing(server, connect):
    client = connect(max_received=2)
    peer = server.welcomed()
    peer.send(*(str(number) for number in range(100)))
    wait_until(lambda: client._engine.inbox)

    def ask():
        while (message := peer.receive()) != DLE + "q1:a":
            assert message.startswith(DLE + "a")
        peer.send(DLE + "r1:A")

    answer = threading.Thread(target=ask)
    answer.start()
    assert client.request("a", DEADLINE_S) == "A"
    answer.join(DEADLINE_S)


# Other servers.


def test_a_server_without_wsthreads_1_gets_plain_messages_and_the_client_reconnects(server, connect):
    client = connect(protocols=["v1"])
    peer = server.upgraded("v1")
    client.send("\x10plain")
    assert peer.receive() == "\x10plain"
    peer.send("\x10w{}")
    assert received(client, 1) == ["\x10w{}"]
    assert (client.protocol, client.session_id) == ("v1", None)
    peer.cut()
    wait_until(lambda: not client.is_connected)
    client.send("waits")
    assert server.upgraded("v1").receive() == "waits"


def test_a_server_without_wsthreads_1_answers_no_requests(server, connect):
    client = connect()
    server.upgraded(None)
    wait_until(lambda: client.is_connected)
    with pytest.raises(RequestError, match=r"does not speak wsthreads\.1"):
        client.request("a")


def test_a_request_that_waits_for_a_connection_fails_if_the_server_is_another(server, connect):
    client = connect()
    errors = []

    def ask():
        with pytest.raises(RequestError) as found:
            client.request("a", DEADLINE_S)
        errors.append(found)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: client._engine.requesting)
    server.upgraded(None)
    thread.join(DEADLINE_S)
    assert errors


def test_a_quiet_server_without_wsthreads_1_gets_pings(server, connect, monkeypatch):
    monkeypatch.setattr(engine_module, "PING_INTERVAL_S", 0.02)
    client = connect()
    peer = server.upgraded(None)
    client_messages = threading.Thread(target=peer.receive)
    client_messages.start()
    wait_until(lambda: peer.pings >= 2)
    assert client.is_connected
    client.send("x")
    client_messages.join(DEADLINE_S)


def test_a_server_that_only_echoes_the_offer_is_taken_for_another_one(server, connect):
    client = connect()
    peer = server.upgraded("wsthreads.1")
    peer.expect(DLE + "h")
    peer.send("welcome to my chat")
    peer = server.next()
    assert peer.request.subprotocols == []
    peer.accept(None)
    peer.send("welcome again")
    assert received(client, 1) == ["welcome again"]


@pytest.mark.parametrize(
    "wrong",
    [DLE + "a1", DLE + "q2:x", DLE + "r1:x", DLE + "z", DLE + "h{}", DLE + "p0", DLE + "w{}", DLE + "a-1", b"\x10a"],
)
def test_a_server_that_breaks_the_protocol_is_closed_with_1002_and_not_resumed(wrong, server, connect):
    client = connect()
    peer = server.welcomed()
    peer.send("before", wrong, "after")
    assert peer.receive() is None
    assert peer.closed is None or peer.closed[0] == 1002
    peer = server.welcomed(token="t.1")
    assert peer.hello == {}
    peer.send("afresh")
    assert received(client, 2) == ["before", "afresh"]


@pytest.mark.parametrize("count", [3, 4])
def test_a_welcome_with_a_count_that_cannot_be_is_not_believed(count, server, connect):
    client = connect()
    peer = server.welcomed()
    client.send("one")
    client.send("two")
    peer.take(2)
    peer.cut()
    server.welcomed(resumed=True, received=count)
    assert server.welcomed(token="t.1").hello == {}
    wait_until(lambda: client.lost == 2)


def test_a_message_that_is_too_big_ends_the_client(server, connect):
    client = connect(max_message_bytes=1000)
    peer = server.welcomed()
    peer.send("x" * 1001)
    with pytest.raises(SessionClosed, match="1009"):
        client.receive(timeout=DEADLINE_S)


def test_a_server_that_does_not_speak_tls_is_told_in_words(server, connect):
    client = connect(server.url.replace("ws:", "wss:"), connect_timeout_s=0.2, ssl_context=ssl.create_default_context())
    with pytest.raises(TimeoutError, match="there is no connection"):
        client.receive(timeout=0.01)
