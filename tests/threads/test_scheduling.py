"""What core modules tell of their threads, and who decides what that means."""

import socket
import ssl
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from threading import Event

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.wire import RawClient, endpoint, run_all, serving
from wsthreads import WebSocketApp
from wsthreads._native import speedups
from wsthreads.servers.httpserver import HTTPServer
from wsthreads.servers.serving import Server
from wsthreads.threads import gil
from wsthreads.threads.affinity import PinnedThread
from wsthreads.threads.gil import GILScheduling, scheduling_for
from wsthreads.threads.scheduling import NO_SCHEDULING, ScheduledThread, Scheduling


class Told(Scheduling):
    """Notes what it is told, by which thread; each of its threads has a displaced moment before every message."""

    def __init__(self):
        self.events = []

    def note(self, event):
        self.events.append((event, threading.get_ident()))

    def names(self):
        return [event for event, _ in self.events]

    def session_begins(self, flusher, occupancy):
        assert occupancy.taken >= 1
        self.note("session begins")

    def session_thread(self):
        return ToldThread(self)

    def other_request(self):
        self.note("other request")

    def joins_room(self):
        self.note("joins room")

    def stopped(self):
        self.note("stopped")


class ToldThread(ScheduledThread):
    is_displaced = True

    def __init__(self, told):
        self.note = told.note

    def __enter__(self):
        self.note("enters")
        return self

    def __exit__(self, *_):
        self.note("exits")

    def runs_handler(self):
        self.note("runs handler")

    def only_reads(self):
        self.note("only reads")
        self.is_displaced = False


class Joins:
    def __init__(self, note):
        self.note = note

    def on_handshake(self, request):
        self.note("on_handshake")

    def on_open(self, session):
        self.note("on_open")

    def on_message(self, session, message):
        self.note("on_message")
        session.room("lobby").join()
        session.send(message)

    def on_close(self, session):
        self.note("on_close")


@pytest.fixture
def told(monkeypatch):
    told = Told()
    monkeypatch.setattr("wsthreads.app.application.scheduling_for", lambda cpu_affinity: told)
    return told


def test_a_session_tells_what_happens_in_its_own_thread(told):
    with endpoint(Joins(told.note)) as (_, port), RawClient(port) as client:
        for _ in range(2):
            client.text("x")
            assert client.receive_text() == "x"
        client.leave()
    assert told.names() == [
        "session begins", "on_handshake", "enters", "on_open",
        "runs handler", "on_message", "joins room", "runs handler", "on_message", "joins room",
        "on_close", "exits", "stopped",
    ]  # fmt: skip
    assert len({thread for event, thread in told.events if event != "stopped"}) == 1


def test_a_request_that_is_no_session_is_told(told):
    assert WebSocketApp().scheduling is told
    with endpoint(Joins(told.note)) as (_, port), RawClient(port, "/elsewhere") as client:
        assert client.status == 404
    assert told.names() == ["other request", "stopped"]


def test_the_session_of_a_script_that_is_read_without_the_gil_only_reads(told, tmp_path):
    (tmp_path / "echo.js").write_text("export function onMessage(session, message) { session.send(message) }")
    app = WebSocketApp()
    app.add_script("/ws/echo", tmp_path / "echo.js")
    expected = ["runs handler"] if speedups is None else ["only reads"]
    with serving(app) as port, RawClient(port, "/ws/echo") as client:
        client.text("x")
        assert client.receive_text() == "x"
    assert [event for event in told.names() if event in ("runs handler", "only reads")] == expected


@pytest.mark.parametrize("has_gil", [True, False])
def test_sessions_are_kept_on_a_core_while_there_is_a_gil(monkeypatch, has_gil):
    """A C module that is loaded later, such as a script's engine, can bring the GIL back."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    scheduling = scheduling_for(True)
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: has_gil)
    assert isinstance(scheduling.accepting_thread(), PinnedThread) is has_gil
    assert isinstance(scheduling.session_thread(), PinnedThread) is has_gil
    assert (scheduling.opening() is not NO_SCHEDULING.opening()) is has_gil
    assert (scheduling.most_unread() is not None) is has_gil
    begun = []
    monkeypatch.setattr(scheduling.affinity, "start", lambda *arguments: begun.append(arguments))
    scheduling.session_begins(None, None)
    assert len(begun) == has_gil


def test_without_scheduling_our_server_serves_sessions(monkeypatch):
    monkeypatch.setattr("wsthreads.app.application.scheduling_for", lambda cpu_affinity: NO_SCHEDULING)
    notes = []
    app = WebSocketApp(cpu_affinity=True)
    app.add_handler("/ws/test", Joins(notes.append))
    with Server(app, port=0) as server, RawClient(server.port) as client:
        client.text("x")
        assert client.receive_text() == "x"
        client.leave()
    assert notes == ["on_handshake", "on_open", "on_message", "on_close"]


@contextmanager
def held(monkeypatch, **options):
    """A server whose connections' threads wait before they read: the server, its app's scheduling, an event that lets
    them go on, and a function that connects.
    """
    go_on, scheduling = Event(), Scheduling()
    serve = HTTPServer.process_request_thread
    monkeypatch.setattr("wsthreads.app.application.scheduling_for", lambda cpu_affinity: scheduling)
    monkeypatch.setattr("wsthreads.servers.httpserver.UNREAD_TIMEOUT_S", DEADLINE_S)
    monkeypatch.setattr(
        HTTPServer, "process_request_thread", lambda self, *client: go_on.wait(DEADLINE_S) and serve(self, *client)
    )
    app = WebSocketApp()
    app.add_handler("/ws/test", Joins(lambda event: None))
    with Server(app, port=0, **options) as server, ExitStack() as stack:

        def come():
            return stack.enter_context(socket.create_connection(("127.0.0.1", server.port), DEADLINE_S))

        yield server._http, scheduling, go_on, come
    wait_until(lambda: server._http._new == 0, "all are forgotten")


def test_a_crowd_is_accepted_no_faster_than_its_requests_are_read(monkeypatch):
    with held(monkeypatch) as (server, scheduling, go_on, come):
        scheduling.most_unread = lambda: 2
        clients = [come() for _ in range(10)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        wait_until(lambda: server._new == 3, "the accepting thread waits")
        assert len(server._links) == 3
        go_on.set()
        for client in clients:
            assert client.recv(4096).startswith(b"HTTP/1.1 404")


def test_a_thread_that_does_not_begin_keeps_nobody_out_for_long(monkeypatch):
    with held(monkeypatch) as (server, scheduling, go_on, come):
        monkeypatch.setattr("wsthreads.servers.httpserver.UNREAD_TIMEOUT_S", 0.05)
        scheduling.most_unread = lambda: 0
        come(), come(), come()
        wait_until(lambda: len(server._links) == 3, "all are accepted")
        assert server._new == 3
        go_on.set()


@pytest.mark.parametrize(
    ("ssl_context", "sent"),
    [(None, b""), (None, b"GET / HT"), (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), b"")],
    ids=["nothing", "a part", "tls"],
)
@pytest.mark.parametrize("flag", [None, 0], ids=["", "without MSG_DONTWAIT"])
def test_clients_that_take_their_time_are_not_counted(monkeypatch, ssl_context, sent, flag):
    if flag is not None:
        monkeypatch.setattr("wsthreads.servers.requests._DONT_WAIT", flag)
    with held(monkeypatch, ssl_context=ssl_context) as (server, _, go_on, come):
        clients = []
        for number in range(1, 6):
            clients.append(come())
            clients[-1].sendall(sent)
            wait_until(lambda number=number: server._new == number, f"connection {number} is accepted")
        go_on.set()
        wait_until(lambda: server._new == 0, "their threads have looked")
        assert len(server._links) == 5
        if ssl_context is None:
            request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            clients.append(come())  # this request is there when its thread looks
            for client in clients:
                client.sendall(request.removeprefix(sent if client is not clients[-1] else b""))
                assert client.recv(4096).startswith(b"HTTP/1.1 404")


def test_connections_are_opened_one_at_a_time():
    """While thousands connect, a message waits for one of them, not for all."""
    scheduling, inside, most = GILScheduling(), [], []

    def open_one():
        with scheduling.opening():
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.001)  # others get the GIL
            inside.pop()

    run_all(*[open_one] * 20)
    assert max(most) == 1
    assert len(most) == 20


def test_a_turn_that_does_not_end_keeps_no_connection_out(monkeypatch):
    monkeypatch.setattr(gil, "TURN_TIMEOUT_S", 0.05)
    scheduling = GILScheduling()
    with scheduling.opening():
        run_all(*[lambda: scheduling.opening().__enter__()] * 3)
    with scheduling.opening():
        pass
