"""Processes that handlers and views fork: they are no servers, under each of the servers."""

import os
import signal
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

from tests.ports import free_port
from tests.programs import DEADLINE_S, PROGRAM_S, ROOT, Program, connect, receive, run_server, wait_until
from tests.redis_server import RedisServer
from tests.wire import CLOSE, RawClient, close_payload, endpoint, run_all, self_signed, serving
from wsthreads import BrokerError, RedisBroker
from wsthreads.brokers import publisher

pytestmark = pytest.mark.long

HANDLER = """
import multiprocessing, os, signal, sys, time

fork = multiprocessing.get_context("fork")


def loop(ready):
    ready.set()
    while True:
        time.sleep(0.1)


def started(**options):
    ready = fork.Event()
    process = fork.Process(target=loop, args=(ready,), **options)
    process.start()
    ready.wait()
    return process


def status(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Forking:
    def on_handshake(self, request):
        if request.get_parameter("fork") and os.fork() == 0:
            sys.exit(0)

    def on_message(self, session, message):
        if message == "terminate":
            process = started()
            process.terminate()
            process.join(10)
            session.send(f"ended by {process.exitcode}")
        elif message == "interrupt":
            process = started()
            os.kill(process.pid, signal.SIGINT)
            process.join(10)
            session.send(f"ended by {process.exitcode}")
        elif message == "daemon":
            session.send(f"process {started(daemon=True).pid}")
        elif message in ("exit", "fail", "return"):
            pid = os.fork()
            if pid:
                session.send(f"ended with {status(pid)}")
            elif message == "exit":
                sys.exit(3)
            elif message == "fail":
                raise ZeroDivisionError
        else:
            session.send(message)

    def on_error(self, session, error):
        session.send(f"on_error in {os.getpid()}")


def view(environ, start_response):
    pid = os.fork() if environ["PATH_INFO"] in ("/exit", "/return") else -1
    if pid == 0 and environ["PATH_INFO"] == "/exit":
        sys.exit(3)
    start_response("200 OK", [])
    return [b"ended with %d" % status(pid) if pid > 0 else b"ready"]


from wsthreads import WebSocketApp

app = WebSocketApp(view)
app.add_handler("/ws", Forking)
"""

AS_A_FILE = "\nit = Forking()\non_handshake, on_message, on_error = it.on_handshake, it.on_message, it.on_error\n"

GUNICORN = ["-m", "gunicorn", "--threads", "20", "-w", "1", "--graceful-timeout", "60", "-b", "127.0.0.1:{port}", "-k"]
SERVERS = {
    "gthread": [*GUNICORN, "gthread", "forking:app"],
    "our worker": [*GUNICORN, "wsthreads.gunicorn.ThreadWorker", "forking:app"],
    "Werkzeug": ["-c", "import forking; from wsthreads.servers.serving import serve; serve(forking.app, port={port})"],
}


@contextmanager
def served(kind, folder):
    folder.joinpath("forking.py").write_text(HANDLER + (AS_A_FILE if kind == "wsthreads run" else ""))
    if kind == "wsthreads run":
        with run_server(folder / "forking.py", "--path", "/ws", "--serve-health") as program:
            program.ready = f"{program.url}/_wsthreads/health"
            yield program
        return
    port = free_port()
    command = [sys.executable, *(part.format(port=port) for part in SERVERS[kind])]
    with Program(command, cwd=folder, env={"PYTHONPATH": f"{folder}:{ROOT}"}) as program:
        program.url, program.ws_url = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}"
        wait_until(lambda: answers(program.url), "the server to answer", PROGRAM_S)
        yield program


def answers(url):
    try:
        return page(url) == "ready"
    except OSError:
        return False


def page(url):
    with urlopen(url, timeout=PROGRAM_S) as answer:
        return answer.read().decode()


@pytest.fixture(params=["wsthreads run", *SERVERS])
def kind(request):
    return request.param


@contextmanager
def talking(program, path="/ws"):
    with connect(program.ws_url + path) as client:

        def ask(message):
            client.send(message)
            return receive(client)

        yield ask


def test_a_signal_ends_a_forked_process(kind, tmp_path):
    with served(kind, tmp_path) as program:
        with talking(program) as ask:
            assert ask("terminate") == f"ended by {-signal.SIGTERM}"
            assert ask("interrupt") == "ended by 1"  # multiprocessing's, for KeyboardInterrupt
            assert ask("still there") == "still there"
        assert program.end() == 0


def test_a_daemon_that_a_handler_has_forked_does_not_hold_up_the_end(kind, tmp_path):
    with served(kind, tmp_path) as program:
        with talking(program) as ask:
            daemon = int(ask("daemon").removeprefix("process "))
        try:
            assert program.end() == 0
            wait_until(lambda: is_gone(daemon))
        except BaseException:
            os.kill(daemon, signal.SIGKILL)
            raise


def is_gone(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(("how", "status"), [("exit", 3), ("fail", 1), ("return", 0)])
def test_a_forked_process_ends_where_the_handler_does(kind, tmp_path, how, status):
    with served(kind, tmp_path) as program:
        with talking(program) as ask:
            assert ask(how) == f"ended with {status}"
            assert ask("still there") == "still there"
        assert program.end() == 0
        assert ("ZeroDivisionError" in program.log) == (how == "fail")


def test_a_forked_process_ends_where_the_handshake_does(kind, tmp_path):
    with served(kind, tmp_path) as program:
        with talking(program, "/ws?fork=1") as ask:
            for n in range(20):
                assert ask(f"{n}") == f"{n}"
        assert program.end() == 0
        assert "failed" not in program.log, program.log


@pytest.mark.parametrize(("path", "status"), [("/exit", 3), ("/return", 0)])
@pytest.mark.parametrize("kind", list(SERVERS))
def test_a_forked_process_ends_where_the_view_does(kind, tmp_path, path, status):
    with served(kind, tmp_path) as program:
        assert page(program.url + path) == f"ended with {status}"
        assert program.end() == 0


class Forks:
    """What the child of a fork does is `work(session)`; the parent sends how the child has ended."""

    def __init__(self, work):
        self.work = work

    def on_open(self, session):
        session.room("all").join()

    def on_message(self, session, message):
        if message == "fork":
            child = os.fork()
            if child == 0:
                try:
                    self.work(session)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            session.send(f"ended with {status_of(child)}")
        else:
            session.room("all").broadcast(message)


def status_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(params=["plain", "TLS"])
def served_here(request, tmp_path):
    """(app, a client, another client) of a server in this process."""

    @contextmanager
    def serve(work):
        ours, theirs = self_signed(tmp_path) if request.param == "TLS" else (None, None)
        with (
            endpoint(Forks(work), ssl_context=ours) as (app, port),
            RawClient(port, tls=theirs) as client,
            RawClient(port, tls=theirs) as other,
        ):
            wait_until(lambda: app.endpoint("/ws/test").room("all").members() == 2)
            yield app, client, other

    return serve


def test_a_forked_process_reaches_no_client_of_its_parent(served_here):
    """Frames and TLS records of two processes would be mixed up. Each call says that nothing was sent."""

    def work(session):
        everybody = session._rooms.sessions("all")
        assert everybody == [] == app.endpoint("/ws/test").sessions()
        for one in sessions:
            assert not one.is_open()
            assert one.send("x" * 8_000_000) is False
            one.close(4000, "by the child")
            one.room("all").join()
            assert one.rooms() == []
        for room in (session.room("all"), app.endpoint("/ws/test").room("all")):
            with pytest.raises(BrokerError, match="forked from a server"):
                room.broadcast("x" * 8_000_000)

    with served_here(work) as (app, client, other):
        sessions = app.endpoint("/ws/test").sessions()
        for n in range(3):
            client.text("fork")
            assert client.receive_text() == "ended with 0"
            client.text(f"{n} and on")
            assert client.receive_text() == other.receive_text() == f"{n} and on"


def test_a_kick_in_a_forked_process_does_not_pretend(served_here, caplog):
    caplog.set_level("INFO")

    def work(session):
        endpoint = app.endpoint("/ws/test")
        caplog.clear()
        for kick in (
            lambda: endpoint.user("ann").close(4003, "kicked", ban_s=60),
            lambda: endpoint.room("all").close(),
            lambda: endpoint.session(session.id).close(),
            lambda: endpoint.session(session.id).send("hi"),
        ):
            with pytest.raises(BrokerError, match="forked from a server"):
                kick()
        assert endpoint.directory.ban_of("ann") is None
        assert caplog.records == []

    with served_here(work) as (app, client, _):
        client.text("fork")
        assert client.receive_text() == "ended with 0"


def test_a_forked_process_waits_for_no_thread_of_its_parent_to_ask_for_bans_and_persons(served_here):
    def work(session):
        endpoint = app.endpoint("/ws/test")
        assert endpoint.directory.ban_of("bob")[1:] == (4001, "bye")
        assert endpoint.room("all").presence() == []

    with served_here(work) as (app, client, _):
        endpoint = app.endpoint("/ws/test")
        endpoint.directory.ban_here("bob", 60, 4001, "bye")
        endpoint.sessions()[0].room("all").set_presence(1)
        with endpoint.directory.bans._lock, endpoint.roster._versioning:
            client.text("fork")
            assert client.receive_text() == "ended with 0"


def test_a_fork_while_others_broadcast_neither_hangs_nor_disturbs_them(served_here):
    """Threads of the parent may hold any lock at the fork."""

    def work(session):
        for one in sessions:
            assert one.send("from the child") is False
        with pytest.raises(BrokerError):
            session.room("all").broadcast("from the child")

    with served_here(work) as (app, client, other):
        sessions, done = app.endpoint("/ws/test").sessions(), threading.Event()

        def shout():
            room = app.endpoint("/ws/test").room("all")
            while not done.is_set():
                room.broadcast("from the parent " + "x" * 1000)
                time.sleep(0.0002)

        def listen():
            while other.receive_text() != "end":
                pass

        def fork():
            try:
                for _ in range(20):
                    client.text("fork")
                    while (text := client.receive_text()).startswith("from the parent"):
                        pass
                    assert text == "ended with 0"
            finally:
                done.set()

        listener = threading.Thread(target=listen)
        listener.start()
        run_all(fork, shout, shout, shout)
        client.text("end")
        listener.join(DEADLINE_S)
        assert not listener.is_alive()


def test_a_forked_process_that_ends_leaves_the_connections_of_its_parent_open(served_here):
    """Its copies of the sockets are closed without a word; so are those of one that lives on."""
    wait, go_on = os.pipe()

    def work(session):
        if os.fork() == 0:
            os.close(go_on)
            os.read(wait, 1)  # until the test ends

    try:
        with served_here(work) as (_, client, other):
            client.text("fork")
            assert client.receive_text() == "ended with 0"
            client.text("still there")
            assert client.receive_text() == other.receive_text() == "still there"
            client.send(CLOSE, close_payload(1000))
            assert client.receive_close()[0] == 1000
            assert client.at_end()  # though another process had the socket, too
    finally:
        os.close(go_on)
        os.close(wait)


def test_an_app_that_was_forked_while_it_served_can_serve_again():
    """As where tests fork a server. Its rooms are empty at first, and broadcasts reach its own members."""

    def work(session):
        with serving(app) as port, RawClient(port) as client:
            client.text("of the child")
            assert client.receive_text() == "of the child"

    with endpoint(Forks(work)) as (app, port), RawClient(port) as client:
        client.text("fork")
        assert client.receive_text() == "ended with 0"
        client.text("of the parent")
        assert client.receive_text() == "of the parent"


def test_a_forked_process_broadcasts_over_redis_before_it_ends(redis_server):
    def work(session):
        for n in range(3):
            app.endpoint("/ws/test").room("all").broadcast(f"{n} from the child")

    broker = RedisBroker(redis_server.url, prefix="forks")
    with endpoint(Forks(work), broker=broker) as (app, port), RawClient(port) as client:
        for _ in range(3):
            client.text("fork")
            heard = [client.receive_text() for _ in range(4)]
            assert heard[-1] == "ended with 0" or heard.index("ended with 0") < 3
            assert [text for text in heard if "child" in text] == [f"{n} from the child" for n in range(3)]


def test_a_forked_process_learns_that_redis_has_not_taken_its_broadcast(monkeypatch):
    monkeypatch.setattr(publisher, "FORK_WAIT_S", 0.5)

    def work(session):
        with pytest.raises(BrokerError, match=r"has not confirmed a broadcast of this forked process within 0\.5 s"):
            app.endpoint("/ws/test").room("all").broadcast("from the child")

    with RedisServer() as redis:
        broker = RedisBroker(redis.url, prefix="forks")
        try:
            with endpoint(Forks(work), broker=broker) as (app, port), RawClient(port) as client:
                client.text("ready")
                assert client.receive_text() == "ready"
                redis.freeze()
                client.text("fork")
                assert client.receive_text() == "ended with 0"
                redis.thaw()
        finally:
            redis.thaw()
