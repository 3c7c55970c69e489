"""Clients that stop to read, to answer, to exist: each is gone in time, with all that it held, and delays nobody."""

import ctypes
import gc
import socket
import struct
import sys
import threading
import weakref
from collections import defaultdict
from contextlib import ExitStack

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.wire import (
    CLOSE,
    PONG,
    TEXT,
    RawClient,
    close_payload,
    frame,
    open_files,
    request_bytes,
    self_signed,
    thread_names,
)
from wsthreads import WebSocketApp

SO_ATTACH_FILTER = 26  # linux/socket.h; Python does not have it

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
    return [name for name in thread_names() if name.startswith("wsthreads-connection")]


def vanish(sock):
    """Have the kernel drop all that comes in for a socket: nothing is acknowledged any more, nor answered by a reset.

    For the other end, that is a machine that has lost its power or its network. Needs no privileges.
    """
    program = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K: keep 0 bytes
    code = ctypes.create_string_buffer(program)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(code)))


class Crowd:
    """A room; keeps how each kind of client has ended. A client says in its URL of which kind it is."""

    def __init__(self):
        self.closed = defaultdict(list)
        self.opened = defaultdict(list)
        self.refs = []

    def on_open(self, session):
        kind = session.get_parameter("kind")
        self.opened[kind].append(session.id)
        if kind != "good":
            self.refs.append(weakref.ref(session))
        session.room("crowd").join()
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
