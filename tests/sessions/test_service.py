"""A session and its connection, from the 101 to the end of on_close: the guarantees in docs/reference/handlers.rst."""

import gc
import logging
import threading
import time
import weakref
from contextlib import ExitStack, suppress
from unittest.mock import Mock

import pytest

from tests.programs import DEADLINE_S, own_threads, wait_until
from tests.wire import (
    CLOSE,
    TEXT,
    Echo,
    RawClient,
    Recorder,
    close_payload,
    endpoint,
    frame,
    new_files,
    open_files,
    self_signed,
)
from wsthreads import Refusal
from wsthreads.sessions import service


class Lobby(Recorder):
    """Is in a room, and keeps what it sees of it in on_close."""

    def __init__(self):
        super().__init__()
        self.at_close = {}
        self.fails = set()

    def on_open(self, session):
        session.room("lobby").join()
        session.attributes["name"] = session.get_parameter("name")
        super().on_open(session)
        if "open" in self.fails:
            raise ValueError("on_open is broken")

    def on_message(self, session, message):
        super().on_message(session, message)
        if message == "exit":
            raise SystemExit(3)
        if message == "die":
            raise BaseException("no Exception")
        if message == "fail":
            raise ValueError("on_message is broken")
        session.send(message)

    def on_close(self, session, code, reason):
        room = session.room("lobby")
        self.at_close[session.attributes["name"]] = (room.members(), session.is_open(), session.send("late"))
        room.broadcast_except(f"{session.attributes['name']} leaves")
        session.room("another").join()
        super().on_close(session, code, reason)
        if "close" in self.fails:
            raise ValueError("on_close is broken")


@pytest.fixture
def lobby():
    handler = Lobby()
    with endpoint(handler, close_timeout_s=0.3) as (app, port):
        handler.app, handler.port = app, port
        yield handler


def test_on_open_returns_before_the_first_message_and_messages_come_one_at_a_time_in_order():
    calls, go_on = [], threading.Event()

    class Slow(Recorder):
        def on_open(self, session):
            calls.append("open begins")
            super().on_open(session)
            assert go_on.wait(DEADLINE_S)
            calls.append("open ends")

        def on_message(self, session, message):
            calls.append(f"{message} begins")
            threading.Event().wait(0.001)  # long enough for another to begin, if it could
            calls.append(f"{message} ends")

        def on_close(self, session, code, reason):
            calls.append("close")
            super().on_close(session, code, reason)

    handler = Slow()
    early = b"".join(frame(TEXT, f"{n}") for n in range(3))
    with endpoint(handler) as (_, port), RawClient(port, early=early) as client:
        for n in range(3, 20):
            client.text(f"{n}")
        client.send(CLOSE, close_payload(1000))
        handler.session()
        assert calls == ["open begins"]
        go_on.set()
        handler.close()
    expected = [f"{n} {what}" for n in range(20) for what in ("begins", "ends")]
    assert calls == ["open begins", "open ends", *expected, "close"]


def fail_inside(client, session, app):
    """What no handler can do: our own code fails, or another thread raises something in the session's."""
    app.endpoint("/ws/test").handler.message = Mock(side_effect=BaseException)
    client.text("next")


ENDINGS = {
    "clean": (lambda client, session, app: client.send(CLOSE, close_payload(1000)), 1000),
    "no code": (lambda client, session, app: client.send(CLOSE), 1005),
    "reset": (lambda client, session, app: client.reset(), 1006),
    "eof": (lambda client, session, app: client.sock.close(), 1006),
    "kick": (lambda client, session, app: session.close(4000, "kicked"), 4000),
    "illegal": (lambda client, session, app: client.send(3), 1002),
    "shutdown": (lambda client, session, app: app.shutdown(2), 1001),
    "cut off": (lambda client, session, app: app.cut_off(), 1006),
    "failure": (fail_inside, 1011),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_on_close_is_called_once_and_last_as_a_member_who_is_not_open_however_it_ends(lobby, how):
    end, code = ENDINGS[how]
    with RawClient(lobby.port, "/ws/test?name=b") as other, RawClient(lobby.port, "/ws/test?name=a") as client:
        sessions = {session.attributes["name"]: session for session in (lobby.session(), lobby.session())}
        end(client, sessions["a"], lobby.app)
        if how in ("shutdown", "cut off"):
            codes = [lobby.close()[0], lobby.close()[0]]
            assert codes == [code, code]
        else:
            codes = [lobby.close()[0]]
            assert codes == [code]
            assert other.receive_text() == "a leaves"
            assert lobby.at_close == {"a": (2, False, False)}
            wait_until(lambda: lobby.app.session_count == 1, "the end of the session")
            assert lobby.app.endpoint("/ws/test").rooms.names() == ["lobby"]
            assert lobby.app.endpoint("/ws/test").sessions() == [sessions["b"]]
            other.leave()
            lobby.close()
    assert f"{codes[0]}" == str(code), "it is a plain number"
    wait_until(lambda: lobby.app.session_count == 0, "the end of all sessions")
    assert lobby.closed.empty(), "on_close was called twice"
    assert len(lobby.app.endpoint("/ws/test").rooms) == 0
    counts = lobby.app.metrics.snapshot()
    assert counts["sessions_opened"] == counts["sessions_closed"] == 2


def test_an_error_in_on_open_closes_with_1011_and_on_close_is_called(lobby):
    lobby.fails.add("open")
    with RawClient(lobby.port, early=frame(TEXT, "early")) as client:
        assert client.receive() == (CLOSE, close_payload(1011, "on_open failed"))
        client.send(CLOSE, close_payload(1011))
        assert client.at_end()
    assert lobby.close() == (1011, "on_open failed")
    assert lobby.messages.empty()
    assert lobby.app.metrics.snapshot()["handler_errors"] == 1


@pytest.mark.parametrize("message", ["fail", "exit", "die"])
def test_an_error_in_on_message_is_logged_and_ends_nothing_but_that_call(lobby, message, caplog):
    with RawClient(lobby.port) as client:
        client.text(message)
        client.text("on")
        assert client.receive_text() == "on"
        assert f"Lobby.on_message failed in session {lobby.session().id}" in caplog.text
        client.leave()
    assert lobby.close() == (1000, "")


def test_an_error_in_on_close_ends_the_memberships_all_the_same(lobby):
    lobby.fails.add("close")
    with RawClient(lobby.port) as client:
        client.leave()
    assert lobby.close() == (1000, "")
    wait_until(lambda: lobby.app.session_count == 0, "the end of the session")
    assert len(lobby.app.endpoint("/ws/test").rooms) == 0
    assert lobby.app.endpoint("/ws/test").session_count() == 0


def test_a_client_that_waits_for_the_end_of_tcp_does_not_wait_for_on_close():
    go_on = threading.Event()

    class Slow(Recorder):
        def on_close(self, session, code, reason):
            assert go_on.wait(DEADLINE_S)
            super().on_close(session, code, reason)

    handler = Slow()
    with endpoint(handler) as (app, port), RawClient(port) as client:
        client.leave()
        assert app.session_count == 1
        go_on.set()
        assert handler.close() == (1000, "")


def test_handlers_of_different_sessions_run_at_the_same_time():
    barrier = threading.Barrier(3)

    class Meets(Recorder):
        def on_message(self, session, message):
            barrier.wait(DEADLINE_S)
            session.send("met")

    with endpoint(Meets()) as (_, port), ExitStack() as stack:
        clients = [stack.enter_context(RawClient(port)) for _ in range(3)]
        for client in clients:
            client.text("meet")
        assert [client.receive_text() for client in clients] == ["met"] * 3


def test_the_access_log_says_101_and_there_is_no_500_and_no_second_response(caplog):
    caplog.set_level(logging.INFO)
    handler = Echo()
    with endpoint(handler) as (_, port):
        with RawClient(port, "/ws/test?a=1") as client:
            client.leave()
        with RawClient(port) as client:
            client.reset()
        handler.close()
        handler.close()
        wait_until(lambda: caplog.text.count("closed on /ws/test") == 2, "the log")
    lines = [record.getMessage() for record in caplog.records if record.name == "werkzeug"]
    requests = [line.partition('"')[2] for line in lines]
    assert requests == ['GET /ws/test?a=1 HTTP/1.1" 101 -', 'GET /ws/test HTTP/1.1" 101 -']
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_peers_close_reason_cannot_forge_a_line_of_the_log(caplog):
    caplog.set_level(logging.INFO)
    handler = Echo()
    with endpoint(handler, close_timeout_s=0.2) as (_, port), RawClient(port) as client:
        client.send(CLOSE, close_payload(4000, "bye\nERROR all is lost"))
        assert handler.close() == (4000, "bye\nERROR all is lost")
        wait_until(lambda: "closed on" in caplog.text, "the log")
    assert r"'bye\nERROR all is lost'" in caplog.text
    assert "bye\n" not in caplog.text


def test_over_tls_broadcasts_and_reading_go_on_at_once_and_the_end_is_clean(tmp_path, caplog):
    server, client_context = self_signed(tmp_path)
    handler = Lobby()
    with endpoint(handler, ssl_context=server) as (app, port):
        stop = threading.Event()

        def broadcast():
            n = 0
            while not stop.is_set():
                app.endpoint("/ws/test").room("lobby").broadcast(f"broadcast {n} " + "x" * 5000)
                n += 1
                stop.wait(0.0005)

        # A client of one thread: before Python 3.13 nothing guards a TLS connection that two threads use at once.
        with RawClient(port, "/ws/test?name=a", tls=client_context) as client:
            handler.session()
            thread = threading.Thread(target=broadcast)
            thread.start()
            try:
                seen = n = 0
                deadline = time.monotonic() + DEADLINE_S
                while n < 100 or seen <= 10:  # the broadcaster may wait for a core
                    assert time.monotonic() < deadline, seen
                    client.text((f"{n} " + "y" * 20_000).encode())
                    while not (message := client.receive_text()).startswith(f"{n} "):
                        assert message.startswith(f"broadcast {seen} ")
                        seen += 1
                    n += 1
            finally:
                stop.set()
                thread.join(DEADLINE_S)
            client.leave()
        assert handler.close() == (1000, "")
        with RawClient(port, "/ws/test?name=b", tls=client_context, early=frame(TEXT, "early")) as raw:
            assert raw.receive_text() == "early"
            raw.leave()
        assert handler.close() == (1000, "")
        with RawClient(port, "/ws/test?name=c", tls=client_context) as raw:
            raw.reset()
        assert handler.close()[0] == 1006
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING], caplog.text


def test_200_idle_connections_are_200_threads_and_nothing_is_left_of_them():
    handler = Recorder()
    before, files = len(own_threads()), open_files()
    with endpoint(handler) as (app, port):
        with RawClient(port) as client:
            handler.session()
            client.leave()
        wait_until(lambda: not own_threads("request"), "the end of the first one's thread")
        idle, open_idle = len(own_threads()), open_files()
        with ExitStack() as stack:
            for _ in range(200):
                stack.enter_context(RawClient(port))
            for _ in range(200):
                handler.session()
            assert len(own_threads()) == idle + 200
            assert app.session_count == app.endpoint("/ws/test").session_count() == 200
        wait_until(lambda: len(own_threads()) == idle, "the end of the threads")
        wait_until(lambda: not new_files(open_idle), "the end of the sockets")
    assert len(own_threads()) == before
    wait_until(lambda: gc.collect() >= 0 and not new_files(files), "the end of all files")


def test_a_session_that_has_ended_is_not_kept_in_memory():
    class Forgets:
        def __init__(self):
            self.references, self.ended = [], threading.Event()

        def on_open(self, session):
            self.references.append(weakref.ref(session))
            session.room("lobby").join()

        def on_close(self, session):
            self.ended.set()

    handler = Forgets()
    with endpoint(handler) as (app, port):
        with RawClient(port) as client:
            client.leave()
        assert handler.ended.wait(DEADLINE_S)
        wait_until(lambda: app.session_count == 0, "the end")
        wait_until(lambda: gc.collect() is not None and handler.references[0]() is None, "the session to be forgotten")


#: What is called while a client is served. Each of it may fail, by a fault of ours or by an exception that another
#: thread raises there.
BOTH = ("log_context", "choose_subprotocol", "Connection", "log_upgrade", "Connection.finish", "Connection.hang_up",
        "Connection.messages")  # fmt: skip
STEPS = {
    "session": (*BOTH, "foreign_protocol", "in_context", "_session_class", "scheduling.session_thread",
                "_ledger.begin", "_ledger.end", "served.put", "served.remove", "Life", "Life.open", "Life.close",
                "Life.record_end", "_hint_at_protocol", "_warn_once"),
    "refusal": (*BOTH, "printable", "_metrics.add", "_ledger.refuse", "without_session.put", "without_session.pop"),
    "user": ("_rooms.directory.enter", "without_session.put", "without_session.pop", "served.put", "Life.close"),
    "banned": ("_metrics.add", "_ledger.refuse", "without_session.put", "without_session.pop", "Life.close", "_end",
               "Connection.messages"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "step"), [(kind, step) for kind in STEPS for step in STEPS[kind]])
def test_a_client_gives_its_place_back_whatever_fails(monkeypatch, kind, step):
    failed = threading.Event()

    def fail(*_, **__):
        failed.set()
        raise RuntimeError("on purpose")

    class Choosy(Echo):
        def on_handshake(self, request):
            request.user = "ann" if kind in ("user", "banned") else None
            return Refusal(4003, "no") if kind == "refusal" else None

    with endpoint(Choosy()) as (app, port):
        if kind == "banned":  # between the handshake and the first step
            monkeypatch.setattr(app.endpoints[0].directory, "ban_of", lambda user: None)
            app.endpoints[0].user("ann").close(4003, "no", ban_s=60)
        owner, (*path, name) = app.endpoints[0]._service, step.split(".")
        if not hasattr(owner, step.partition(".")[0]):
            owner = service
        with monkeypatch.context() as broken:
            for part in path:
                inner = getattr(owner, part)
                if not isinstance(inner, type):
                    inner = Mock(wraps=inner)
                    broken.setattr(owner, part, inner)
                owner = inner
            broken.setattr(owner, name, fail)
            offers = {"Sec-WebSocket-Protocol": "a"}
            with suppress(EOFError, ConnectionError), RawClient(port, headers=offers) as client:
                client.text("hello")
            assert failed.wait(DEADLINE_S)
            wait_until(lambda: not app.session_count, "the place to be given back")
        if name not in ("pop", "remove"):
            assert not app.endpoints[0].connections()
        if step not in ("Life.close", "_session_class"):
            assert not app.endpoints[0].user_count()
