"""Clients that stop to read, to answer, to exist: each is gone in time, with all that it held, and delays nobody."""

import gc
import socket
import sys
import threading
import weakref
from collections import defaultdict
from contextlib import ExitStack

import pytest

import wsthreads.protocol.clocks
from tests.programs import DEADLINE_S, own_threads, wait_until
from tests.wire import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawClient,
    close_payload,
    frame,
    open_files,
    request_bytes,
    self_signed,
    vanish,
)
from wsthreads import WebSocketApp

#: Short, but for what the good client has to keep to on a busy machine.
SETTINGS = {
    "ping_interval_s": 0.3,
    "ping_timeout_s": 3.0,
    "close_timeout_s": 0.3,
    "send_timeout_s": 0.3,
    "handshake_timeout_s": 3.0,
    "message_timeout_s": 0.3,
}


def connection_threads():
    return own_threads("wsthreads-connection")


class Crowd:
    """A room; keeps how each kind of client has ended. A client says in its URL of which kind it is."""

    def __init__(self):
        self.closed = defaultdict(list)
        self.opened = defaultdict(list)
        self.refs = []

    def on_open(self, session):
        kind = session.get_parameter("kind")
        if kind != "good":
            self.refs.append(weakref.ref(session))
        session.room("crowd").join()
        self.opened[kind].append(session.id)
        if kind == "never answers the close":
            session.close(4000, "go")

    def on_message(self, session, message):
        if message == "stream":  # more than any buffer holds, to a client that does not read
            session.send("x" * 16_000_000)

    def on_close(self, session, code, reason):
        self.closed[session.get_parameter("kind")].append((session.id, code))


def silent(client):
    """Neither reads nor answers, though its kernel does."""


def vanishes(client):
    vanish(client.sock)


def vanishes_in_a_frame(client):
    client.sock.sendall(frame(TEXT, "x" * 1000)[:500])
    vanish(client.sock)


def vanishes_with_a_full_socket(client):
    client.text("stream")
    vanish(client.sock)


def never_reads(client):
    client.text("stream")


def never_answers_the_close(client):
    """The handler closes it."""


def keeps_tcp_open_after_the_close(client):
    client.send(CLOSE, close_payload(1000))


def sends_half_a_frame(client):
    client.sock.sendall(frame(TEXT, "x" * 1000)[:500])


def resets(client):
    client.reset()


def ends_in_a_frame(client):
    client.sock.sendall(frame(TEXT, "abc")[:-1])
    client.sock.shutdown(socket.SHUT_WR)


#: What each does once it is there, and the codes with which it may be closed.
KINDS = {
    "silent": (silent, {1006}),
    "vanishes": (vanishes, {1006}),
    "vanishes in a frame": (vanishes_in_a_frame, {1006, 1008}),
    "vanishes with a full socket": (vanishes_with_a_full_socket, {1013, 1006}),
    "never reads": (never_reads, {1013}),
    "never answers the close": (never_answers_the_close, {4000}),
    "keeps TCP open after the close": (keeps_tcp_open_after_the_close, {1000}),
    "sends half a frame": (sends_half_a_frame, {1006, 1008}),
    "resets": (resets, {1006}),
    "ends in a frame": (ends_in_a_frame, {1006}),
}
VANISHING = [kind for kind in KINDS if kind.startswith("vanishes")]
EACH = 3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the socket filters of Linux")
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_dead_clients_of_every_kind_are_gone_in_time_and_delay_nobody(serve, tmp_path, tls):
    ours, theirs = self_signed(tmp_path) if tls else (None, None)
    handler, app = Crowd(), WebSocketApp(**SETTINGS)
    app.add_handler("/ws/test", handler)
    server = serve(app, ssl_context=ours)
    with RawClient(server.port, "/ws/test?kind=good", tls=theirs) as good, ExitStack() as stack:
        wait_until(lambda: handler.opened["good"])
        base_files = len(open_files())
        room, stop, sent = app.endpoint("/ws/test").room("crowd"), threading.Event(), []

        def broadcast():
            while not stop.wait(0.01):
                room.broadcast(str(len(sent)))
                sent.append(None)

        def receive():
            """The good one: gets all, in order, and answers pings."""
            while (frame := good.receive()) != (TEXT, b"end"):
                opcode, payload = frame
                if opcode == TEXT:
                    received.append(payload)
                else:
                    good.send(PONG, payload)

        received = []
        broadcaster, reader = (threading.Thread(target=target, daemon=True) for target in (broadcast, receive))
        broadcaster.start()
        reader.start()
        stack.callback(stop.set)
        clients = []
        for kind, (misbehave, _) in KINDS.items():
            for _ in range(EACH):
                path = f"/ws/test?kind={kind.replace(' ', '%20')}"
                client = stack.enter_context(RawClient(server.port, path, tls=theirs, receive_buffer=4096))
                clients.append(client)
                misbehave(client)
        for how in (b"", request_bytes()[:-2]):  # in their handshake
            for drop in (False, True):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), DEADLINE_S))
                clients.append(sock)
                sock.sendall(how)
                if drop:
                    vanish(sock)

        for kind, (_, codes) in KINDS.items():
            wait_until(lambda kind=kind: len(handler.closed[kind]) == EACH, f"the end of those that are: {kind}")
            assert {code for _, code in handler.closed[kind]} <= codes, kind
            assert sorted(id for id, _ in handler.closed[kind]) == sorted(handler.opened[kind]), "each closed once"
        wait_until(lambda: app.session_count == 1)
        wait_until(lambda: len(connection_threads()) == 1, "the end of their threads")
        held = len(clients) - EACH  # our own ends, but for those that have reset
        wait_until(lambda: len(open_files()) <= base_files + held, "the end of their sockets")
        wait_until(lambda: gc.collect() is not None and not any(ref() for ref in handler.refs), "memory to be freed")
        assert room.members() == 1
        assert len(app.endpoint("/ws/test").sessions()) == 1
        assert not handler.closed["good"]

        stop.set()
        broadcaster.join(DEADLINE_S)
        room.broadcast("end")
        reader.join(DEADLINE_S)
        assert received == [b"%d" % n for n in range(len(sent))], "lost, or not in order"


class Streamer:
    """Works for a client for as long as it is there, as people write it who are used to loops over a socket."""

    def __init__(self, *, hook, sends):
        self.hook, self.sends = hook, sends
        self.began, self.left, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.messages = []
        self.given_up = threading.Event()  # by the test
        self.code = None

    def work(self, session):
        self.began.set()
        while session.is_open() and not self.given_up.is_set():
            if self.sends:
                session.send("tick")
            self.given_up.wait(0.02)
        self.sent_after = session.send("late")
        self.left.set()

    def on_open(self, session):
        if self.hook == "on_open":
            self.work(session)

    def on_message(self, session, message):
        self.messages.append(message)
        if message == "go" and self.hook == "on_message":
            self.work(session)

    def on_close(self, session, code, reason):
        assert self.left.is_set(), "on_close amid another call"
        self.code = code
        self.closed.set()


def closes_tcp(client):
    client.sock.close()


def leaves_the_page(client):
    client.send(CLOSE, close_payload(1001))
    client.sock.close()


#: How a client goes, and the codes with which its session may end then.
DEPARTURES = {
    "resets": (resets, {1006}),
    "closes TCP": (closes_tcp, {1006}),
    "leaves the page": (leaves_the_page, {1001, 1006}),
    "vanishes": (vanishes, {1006, 1013}),
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the socket filters of Linux")
@pytest.mark.parametrize("sends", [False, True], ids=["silently", "sending"])
@pytest.mark.parametrize("how", DEPARTURES)
@pytest.mark.parametrize(
    ("hook", "tls"), [("on_open", False), ("on_message", False), ("on_message", True)], ids=["open", "message", "tls"]
)
def test_a_handler_that_works_while_its_session_is_open_learns_that_its_client_is_gone(
    serve, tmp_path, hook, how, sends, tls
):
    ours, theirs = self_signed(tmp_path) if tls else (None, None)
    handler, app = Streamer(hook=hook, sends=sends), WebSocketApp(ping_interval_s=0.3, ping_timeout_s=1.0)
    app.add_handler("/ws/test", handler)
    server = serve(app, ssl_context=ours)
    leave, codes = DEPARTURES[how]
    with ExitStack() as stack:
        stack.callback(handler.given_up.set)
        client = stack.enter_context(RawClient(server.port, "/ws/test", tls=theirs))
        if hook == "on_message":
            client.text("go")
        assert handler.began.wait(DEADLINE_S)
        leave(client)
        assert handler.left.wait(DEADLINE_S), "is_open() is true for a client that is gone"
        assert not handler.given_up.is_set()
        assert handler.sent_after is False
        assert handler.closed.wait(DEADLINE_S)
        assert handler.code in codes
        wait_until(lambda: app.session_count == 0)


def test_a_handler_learns_of_it_without_pings_too(serve, monkeypatch):
    monkeypatch.setattr(wsthreads.protocol.clocks, "LOOK_S", 0.1)
    handler, app = Streamer(hook="on_message", sends=False), WebSocketApp(ping_interval_s=0, ping_timeout_s=0.3)
    app.add_handler("/ws/test", handler)
    with RawClient(serve(app).port, "/ws/test") as client:
        client.text("go")
        assert handler.began.wait(DEADLINE_S)
        client.reset()
        assert handler.left.wait(DEADLINE_S)
        handler.given_up.set()
        assert handler.closed.wait(DEADLINE_S)


def test_what_a_client_has_sent_before_it_went_is_handed_over_though_the_session_is_not_open(serve):
    handler, app = Streamer(hook="on_message", sends=True), WebSocketApp(ping_interval_s=0.3, ping_timeout_s=1.0)
    app.add_handler("/ws/test", handler)
    with RawClient(serve(app).port, "/ws/test") as client:
        client.text("go")
        assert handler.began.wait(DEADLINE_S)
        client.text("save this")
        client.send(CLOSE, close_payload(4001))
        client.sock.shutdown(socket.SHUT_WR)  # it is still there, and reads
        assert handler.left.wait(DEADLINE_S)
        handler.given_up.set()
        assert handler.closed.wait(DEADLINE_S)
        assert handler.messages == ["go", "save this"]
        assert handler.code == 4001


def test_a_client_that_is_there_and_silent_is_open_for_a_busy_handler(serve):
    handler, app = Streamer(hook="on_message", sends=False), WebSocketApp(ping_interval_s=0.05, ping_timeout_s=0.05)
    app.add_handler("/ws/test", handler)
    with RawClient(serve(app).port, "/ws/test") as client:
        client.text("go")
        assert handler.began.wait(DEADLINE_S)
        assert not handler.left.wait(1.0)  # many times the time-out
        handler.given_up.set()
        assert next(frame for frame in iter(client.receive, None) if frame[0] != PING) == (TEXT, b"late")
