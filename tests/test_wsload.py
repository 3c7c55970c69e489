"""The load generator, and the minimal server with a thread for each connection."""

import os
import select
import shutil
import socket
import sys
from contextlib import ExitStack
from threading import Thread

import pytest

from tests.bench.load import Load, load_meanwhile, run_load
from tests.bench.processes import RunFailed, ServerProcess
from tests.bench.tools import HERE, compile_c
from tests.ports import free_port
from tests.programs import PROGRAM_S


@pytest.fixture(scope="module")
def wsload(tmp_path_factory):
    if sys.platform != "linux" or not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("the load generator needs Linux and a C compiler")
    target = tmp_path_factory.mktemp("bench") / "wsload"
    assert compile_c(HERE / "wsload.c", target) is None
    return target


@pytest.fixture
def port():
    """Of a server in this process, with the benchmark's own handlers."""
    from tests.bench.handlers import echo, requests, room
    from wsthreads import WebSocketApp
    from wsthreads.servers.serving import Server

    app = WebSocketApp(resume_s=60)
    app.add_handler("/echo", echo)
    app.add_handler("/requests", requests)
    app.add_handler("/room", room)
    with Server(app, "127.0.0.1", 0) as server:
        yield server.port


class TestLoadGenerator:
    @pytest.mark.parametrize(
        ("path", "load"),
        [
            ("/echo", Load(connections=10, seconds=1, warm_s=0.1)),
            ("/room", Load(mode="fan", connections=10, senders=2, count=500, seconds=PROGRAM_S, warm_s=0.1)),
            ("/echo", Load(connections=2, payload_bytes=70_000, count=50, seconds=PROGRAM_S, warm_s=0.1)),
            ("/echo", Load(connections=3, rate_per_s=100, seconds=0.5, warm_s=0, drain_s=10)),
        ],
        ids=["echo", "fan", "large", "rate"],
    )
    def test_measures_a_server(self, wsload, port, path, load):
        figures = run_load(wsload, load, port=port, path=path, pid=os.getpid())
        assert figures["ok"] == figures["open"] == load.connections
        assert figures["recv_per_s"] > 0
        assert 0 < figures["p50_us"] <= figures["p90_us"] <= figures["p99_us"] <= figures["max_us"]
        assert 0 <= figures["client_cpu"] <= 1.1
        assert figures["rss_mb"] > 1

    @pytest.mark.parametrize(
        ("path", "dialect", "load"),
        [
            ("/echo", "-E", Load(connections=2, count=2500, seconds=PROGRAM_S, warm_s=0.1)),
            ("/room", "-E", Load(mode="fan", connections=2, senders=2, count=2500, seconds=PROGRAM_S, warm_s=0.1)),
            ("/echo", "-E", Load(connections=2, payload_bytes=70_000, count=20, seconds=PROGRAM_S, warm_s=0.1)),
            ("/requests", "-Q", Load(connections=2, count=2500, seconds=PROGRAM_S, warm_s=0.1)),
        ],
        ids=["echo", "fan", "large", "requests"],
    )
    def test_speaks_wsthreads_1(self, wsload, port, path, dialect, load):
        """The server closes a client that counts, acknowledges or asks otherwise than the protocol says.

        Each client acknowledges after 1,024 messages, or 64 KiB.
        """
        figures = run_load(wsload, load, port=port, path=path, pid=0, dialect=[dialect])
        assert figures["ok"] == figures["open"] == load.connections
        assert figures["received"] >= load.count

    def test_measures_while_something_else_is_done(self, wsload, port):
        load = Load(connections=3, rate_per_s=200, seconds=PROGRAM_S, warm_s=0)
        with load_meanwhile(wsload, load, port=port, path="/echo", pid=0) as others:
            idle = Load(mode="idle", connections=50, seconds=0.1, warm_s=0)
            figures = run_load(wsload, idle, port=port, path="/echo", pid=0)
            assert not others
        assert figures["ok"] == 50
        assert others["ok"] == 3
        assert 0 < others["p50_us"] <= others["p99_us"]
        assert others["seconds"] < PROGRAM_S

    @pytest.mark.parametrize("at_once", [1, 3])
    def test_has_so_many_handshakes_under_way_at_once(self, wsload, at_once):
        waiting = []

        def serve(listener):
            for _ in range(2):
                connections = [stack.enter_context(listener.accept()[0]) for _ in range(at_once)]
                waiting.append(bool(select.select([listener], [], [], 0.2)[0]))
                for connection in connections:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 101 \r\n\r\n")

        with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(PROGRAM_S)
            server = Thread(target=serve, args=(listener,))
            server.start()
            load = Load(mode="idle", connections=2 * at_once, at_once=at_once, seconds=0.1, warm_s=0)
            figures = run_load(wsload, load, port=listener.getsockname()[1], path="/", pid=0)
            server.join()
        assert figures["ok"] == 2 * at_once
        assert waiting == [False, False]

    def test_a_load_meanwhile_that_cannot_run_is_a_failed_run(self, wsload):
        load = Load(connections=2)
        with (
            pytest.raises(RunFailed, match="Connection refused"),
            load_meanwhile(wsload, load, port=free_port(), path="/", pid=0),
        ):
            pass

    def test_opens_and_closes_connections(self, wsload, port):
        load = Load(mode="churn", connections=5, count=50, seconds=10, warm_s=0)
        figures = run_load(wsload, load, port=port, path="/echo", pid=0)
        assert figures["cycles"] >= 50
        assert figures["seconds"] < 10

    def test_a_refusal_is_a_failed_run(self, wsload, port):
        with pytest.raises(RunFailed, match="only 0 of 2 connections"):
            run_load(wsload, Load(connections=2, seconds=0.1, warm_s=0), port=port, path="/nowhere", pid=0)

    def test_nobody_there_is_a_failed_run(self, wsload):
        with pytest.raises(RunFailed, match="Connection refused"):
            run_load(wsload, Load(connections=2), port=free_port(), path="/", pid=0)


@pytest.mark.parametrize("env", [{}, {"ONE_LOCK": "1", "ONE_CORE": "0"}, {"OWN_LINES": "92"}], ids=str)
def test_the_limit_with_threads_echoes(wsload, tmp_path, env):
    server = tmp_path / "limit_threads"
    complaint = compile_c(HERE / "limit_threads.c", server, "-lcrypto", "-pthread")
    if complaint and "openssl" in complaint:
        pytest.skip("needs OpenSSL's headers")
    assert complaint is None
    if "ONE_CORE" in env:
        env = {**env, "ONE_CORE": str(min(os.sched_getaffinity(0)))}
    with ServerProcess([server, str(port := free_port())], port, tmp_path / "log", env=env) as process:
        for size in (32, 16384):
            load = Load(connections=20, payload_bytes=size, count=2000, seconds=PROGRAM_S, warm_s=0.1)
            assert run_load(wsload, load, port=port, path="/echo", pid=process.pid)["received"] >= 2000
