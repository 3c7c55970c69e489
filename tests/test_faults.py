"""What the machine may run short of, in real server processes: descriptors, threads, memory. The server lives on."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event

import pytest

from tests.programs import DEADLINE_S, Program, connect, receive
from tests.test_gunicorn import PATH, Gunicorn
from tests.wire import TEXT, RawClient, frame, request_bytes

pytestmark = pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="only Linux limits another process while it runs"
)

SERVER = """if True:
    import logging, sys
    from wsthreads import WebSocketApp
    from wsthreads.servers.serving import Server

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    app = WebSocketApp(max_message_bytes=2**31, max_outbox_bytes=2**31)

    @app.route("/ws/room")
    class Room:
        def on_open(self, session):
            session.room("r").join()
            session.send("in")
        def on_message(self, session, message):
            if message == "greedy":
                bytearray(2**34)
            elif message == "deep":
                self.on_message(session, message)
            elif message != "large" * (len(message) // 5):
                session.room("r").broadcast(message)
        def on_close(self, session, code, reason): print("closed", code, flush=True)

    server = Server(app, port=0)
    server.start()
    print("port", server.port, flush=True)
    sys.stdin.read()
    server.stop()
"""


#: Enough for everything but another thread, of whose stack Linux reserves 8 MiB.
LESS_THAN_A_STACK = 2**22


class Server(Program):
    """`SERVER`, as a process that ends with its standard input."""

    def __init__(self) -> None:
        super().__init__([sys.executable, "-c", SERVER], stdin=subprocess.PIPE)
        self.port = int(self.wait_for(r"^port (\d+)$")[1])
        self.url = f"ws://127.0.0.1:{self.port}/ws/room"

    def check_alive(self) -> None:
        """It serves somebody new, and ends in order."""
        with connect(self.url) as client:
            assert receive(client) == "in"
            client.send("hello")
            assert receive(client) == "hello"
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.wait() == 0


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def cpu_s(process: int) -> float:
    with open(f"/proc/{process}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@contextmanager
def limited(process: int, what: int, limit: int) -> Iterator[None]:
    """Lower a limit of another process for a while."""
    before = resource.prlimit(process, what)
    resource.prlimit(process, what, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, what, before)


def no_descriptors(process: int) -> AbstractContextManager[None]:
    """None is left, since limits are about numbers, of which the lowest that is free is given out."""
    taken = {int(name) for name in os.listdir(f"/proc/{process}/fd")}
    lowest_free = next(number for number in range(len(taken) + 1) if number not in taken)
    return limited(process, resource.RLIMIT_NOFILE, lowest_free)


def little_memory(process: int, more_bytes: int) -> AbstractContextManager[None]:
    """The process may take no more than this from now on. (Freed memory that it has kept is there as well.)"""
    with open(f"/proc/{process}/statm", encoding="ascii") as sizes:
        now = int(sizes.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return limited(process, resource.RLIMIT_AS, now + more_bytes)


def member(port: int, path: str = "/ws/room") -> RawClient:
    """A client that is in the room by now."""
    client = RawClient(port, path)
    client.receive_text()
    return client


def talk(a: RawClient, b: RawClient, text: str) -> None:
    """What one says both hear, and nothing else."""
    a.text(text)
    for client in (a, b):
        assert client.receive_text() == text


@pytest.mark.parametrize("kind", ["wsthreads run", "gunicorn"])
def test_without_descriptors_sessions_go_on_and_those_who_come_wait(kind: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        if kind == "gunicorn":
            program: Program = stack.enter_context(Gunicorn("wsthreads.gunicorn.ThreadWorker", tmp_path))
            port, path = program.port, PATH
            process = int(program.wait_for(r"Booting worker with pid: (\d+)")[1])
        else:
            program = server = stack.enter_context(Server())
            port, path, process = server.port, "/ws/room", program.process.pid
        a, b = (stack.enter_context(member(port, path)) for _ in range(2))
        with no_descriptors(process):
            late = [stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE_S)) for _ in range(3)]
            for sock in late:
                sock.sendall(request_bytes(path))
            program.wait_for("cannot accept connections: Too many open files")
            before = cpu_s(process)
            program.wait_for("cannot accept connections", times=3)  # at most one a second
            assert cpu_s(process) - before < 1
            a.text("still here?")
            while b.receive_text() != "still here?":
                pass
        for sock in late:
            assert sock.recv(12) == b"HTTP/1.1 101"
        assert program.log.count("cannot accept connections") < 3 + DEADLINE_S
        assert "Traceback" not in program.log


def test_a_client_for_whom_there_is_no_thread_is_told_to_come_back(server: Server) -> None:
    with member(server.port) as a, member(server.port) as b:
        talk(a, b, "before")
        with little_memory(server.process.pid, LESS_THAN_A_STACK), ExitStack() as stack:
            refused = None
            while refused is None:  # stacks of threads that have ended are used again
                client = stack.enter_context(RawClient(server.port, "/ws/room"))
                refused = client if client.status != 101 else None
            assert refused.status == 503
            assert int(refused.headers["retry-after"]) > 0
            server.wait_for("cannot serve a connection: can't start new thread")
            a.text("meanwhile")
            assert b.receive_text() == "meanwhile"
        assert "Traceback" not in server.log
    server.check_alive()


def test_gunicorns_worker_lives_without_threads_and_starts_them_when_it_can(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(Gunicorn("wsthreads.gunicorn.ThreadWorker", tmp_path))
        process = int(server.wait_for(r"Booting worker with pid: (\d+)")[1])
        first = [stack.enter_context(member(server.port, PATH)) for _ in range(3)]
        with little_memory(process, LESS_THAN_A_STACK):
            late = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(12)]
            for sock in late:
                sock.sendall(request_bytes(PATH))
            first[0].text("meanwhile")
            for client in first[1:]:
                while client.receive_text() != "meanwhile":
                    pass
            server.wait_for("a client has to wait for a thread: can't start new thread")
            before = cpu_s(process)
            Event().wait(2)  # in which the worker's loop could spin
            assert cpu_s(process) - before < 1
        assert server.log.count("a client has to wait") == 1
        for sock in late:
            sock.settimeout(DEADLINE_S)
            assert sock.recv(12) == b"HTTP/1.1 101"
        assert server.log.count("Booting worker") == 1
        assert "Traceback" not in server.log


def test_a_message_for_which_there_is_no_memory_ends_its_session_with_1011_and_no_other(server: Server) -> None:
    with member(server.port) as a, member(server.port) as b:
        with member(server.port) as greedy, little_memory(server.process.pid, 2**25):
            talk(a, b, "before")
            with suppress(OSError):  # it is closed in the midst of it
                greedy.sock.sendall(frame(TEXT, b"large" * (2**27 // 5)))
            assert greedy.receive_close()[0] == 1011
            talk(a, b, "after")
        server.wait_for("^closed 1011$")
        server.wait_for("MemoryError")
        assert server.log.count("closed ") == 1
    server.check_alive()


@pytest.mark.parametrize(("message", "error"), [("greedy", "MemoryError"), ("deep", "RecursionError")])
def test_a_handler_that_is_out_of_memory_or_stack_ends_that_call_only(server: Server, message: str, error: str) -> None:
    with member(server.port) as a, member(server.port) as b:
        with little_memory(server.process.pid, 2**28):
            a.text(message)
            talk(a, b, "after")
            server.wait_for(rf"^{error}")
        assert "closed" not in server.log
    server.check_alive()
