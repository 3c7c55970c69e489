"""Who has just connected is let in one by one, and holds up nobody by waiting for something."""

import socket
import threading

import pytest

import wsthreads.newcomers
from tests.programs import DEADLINE_S
from tests.wire import TEXT, Echo, RawClient, frame, request_bytes, run_all
from wsthreads import WebSocketApp
from wsthreads.newcomers import Newcomer, let_go, let_go_to_wait

#: Long enough for a thread that is not held up to do what it is watched for.
WATCHED_S = 0.2


@pytest.fixture
def patience(monkeypatch):
    """Turns last for as long as tests may wait: who is held up by somebody who should not do that fails."""
    monkeypatch.setattr(wsthreads.newcomers, "TURN_S", 2 * DEADLINE_S)


def app_with(handler, wsgi_app=None):
    app = WebSocketApp(wsgi_app, ping_interval_s=0)
    app.add_handler("/ws/test", handler)
    return app


def test_one_waits_for_the_other(patience):
    newcomer, waiting, over = Newcomer(), threading.Event(), threading.Event()

    def wait():
        waiting.set()
        newcomer.wait()
        over.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(DEADLINE_S)
    assert not over.wait(WATCHED_S)
    with newcomer:
        pass
    assert over.wait(DEADLINE_S)
    thread.join(DEADLINE_S)
    newcomer.wait()  # and again, whoever does


def test_nobody_waits_longer_than_a_turn():
    Newcomer().wait()


def test_who_is_let_go_before_its_end_is_let_go_once():
    with Newcomer() as newcomer:
        let_go()
        let_go()
        newcomer.wait()
    let_go()


def test_a_newcomer_is_let_go_when_there_is_nothing_to_read(patience):
    ours, theirs = socket.socketpair()
    with ours, theirs, Newcomer() as newcomer:
        theirs.send(b"something")
        assert not let_go_to_wait(ours)
        ours.recv(100)
        assert let_go_to_wait(ours)
        newcomer.wait()
        assert let_go_to_wait(ours)  # no newcomer, whatever there is
    with Newcomer() as newcomer:
        assert let_go_to_wait(ours)  # closed: reading it fails
        newcomer.wait()


def test_they_are_served_one_after_the_other(patience, serve):
    alone, begun, happened = threading.Event(), threading.Event(), []

    class Opens(Echo):
        def on_open(self, session):
            if not begun.is_set():
                begun.set()
                happened.append(alone.wait(WATCHED_S))
            else:
                alone.set()
            super().on_open(session)

    port = serve(app_with(Opens())).port

    def come():
        with RawClient(port) as client:
            client.text("hello")
            assert client.receive_text() == "hello"

    run_all(*[come] * 5)
    assert happened == [False]
    assert alone.is_set()


def test_the_first_messages_belong_to_it(patience, serve):
    again, begun, happened = threading.Event(), threading.Event(), []

    class Listens(Echo):
        def on_message(self, session, message):
            if not begun.is_set():
                begun.set()
                happened.append(again.wait(WATCHED_S))
            else:
                again.set()
            super().on_message(session, message)

    port = serve(app_with(Listens())).port

    def come():
        with RawClient(port, early=frame(TEXT, b"hello")) as client:
            assert client.receive_text() == "hello"

    run_all(come, come, come)
    assert happened == [False]


def test_who_waits_for_its_client_holds_nobody_up(patience, serve):
    port = serve(app_with(Echo())).port
    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)) as late:
        late.sendall(request_bytes()[:20])
        with RawClient(port) as idle, RawClient(port) as client:
            client.text("hello")
            assert client.receive_text() == "hello"
            idle.text("so am I")
            assert idle.receive_text() == "so am I"


def test_whose_first_message_came_while_it_was_opened_holds_nobody_up(patience, serve):
    sent = threading.Event()

    class Opens(Echo):
        def on_open(self, session):
            sent.wait(DEADLINE_S)

    port = serve(app_with(Opens())).port
    with RawClient(port) as first:
        first.text("hello")
        sent.set()
        assert first.receive_text() == "hello"
        with RawClient(port) as client:
            client.text("so am I")
            assert client.receive_text() == "so am I"


def test_who_is_turned_away_and_stays_holds_nobody_up(patience, serve):
    app = WebSocketApp(ping_interval_s=0, max_messages_per_s=1, close_timeout_s=2 * DEADLINE_S)
    app.add_handler("/ws/test", Echo())
    port = serve(app).port
    with RawClient(port, early=50 * frame(TEXT, b"flood")), RawClient(port) as client:
        client.text("hello")
        assert client.receive_text() == "hello"


def test_who_waits_in_code_of_the_application_holds_nobody_up(patience, serve):
    both = threading.Barrier(2)

    class Checks(Echo):
        def on_handshake(self, request):
            both.wait(DEADLINE_S)

    def view(environ, start_response):
        both.wait(DEADLINE_S)
        start_response("204 No Content", [])
        return []

    port = serve(app_with(Checks(), view)).port

    def come():
        with RawClient(port):
            pass

    def look():
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 204")

    run_all(come, come)
    run_all(look, look)


def test_who_takes_longer_than_a_turn_is_waited_for_no_more(serve):
    both = threading.Barrier(2)

    class Opens(Echo):
        def on_open(self, session):
            both.wait(DEADLINE_S)

    port = serve(app_with(Opens())).port

    def come():
        with RawClient(port) as client:
            client.text("hello")
            assert client.receive_text() == "hello"

    run_all(come, come)
