"""Processes that handlers and views fork: they are no servers, under each of the servers."""

import os
import signal
import sys
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

from tests.programs import DEADLINE_S, ROOT, Program, connect, receive, run_server, wait_until
from tests.redis_server import free_port

HANDLER = '''
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
'''

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
        wait_until(lambda: answers(program.url))
        yield program


def answers(url):
    try:
        return page(url) == "ready"
    except OSError:
        return False


def page(url):
    with urlopen(url, timeout=DEADLINE_S) as answer:
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
