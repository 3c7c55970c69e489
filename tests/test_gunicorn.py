"""Under real gunicorn processes: plain gthread, and our worker class."""

import json
import os
import re
import select
import signal
import socket
import sys
import threading
from collections import Counter
from contextlib import ExitStack, closing
from contextvars import ContextVar
from time import monotonic, sleep
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from gunicorn.workers import gthread

from tests.ports import free_port
from tests.programs import DEADLINE_S, PROGRAM_S, ROOT, Program, connect, receive, run_server, wait_until
from tests.wire import CLOSE, PING, PONG, TEXT, RawClient, close_payload, frame, run_all, self_signed
from wsthreads.gunicorn import ThreadWorker
from wsthreads.servers.patient_pool import PatientPool
from wsthreads.servers.stalled_clients import STALL_S

pytestmark = pytest.mark.long

#: DESIGN: the worker is gone within 3 seconds of SIGTERM. Here for a busy machine.
GONE_S = 3 + DEADLINE_S / 2

PATH = "/ws/chat"


OURS = "wsthreads.gunicorn.ThreadWorker"


def command(worker, *options, threads=20):
    start = [sys.executable, "-m", "gunicorn", "-k", worker, "--threads", str(threads), "-w", "1"]
    return [*start, *map(str, options)]


class Gunicorn(Program):
    def __init__(self, worker, folder, *options, threads=20, handshake_timeout_s=10):
        self.worker = worker
        self.markers = folder / "markers"
        options = ["--bind", "127.0.0.1:0", "--access-logfile", "-", "--log-level", "debug", *options]
        options.append("tests.gunicorn_app:app")
        environment = {"MARKERS": str(self.markers), "HANDSHAKE_TIMEOUT_S": str(handshake_timeout_s)}
        super().__init__(command(worker, *options, threads=threads), env=environment)
        self.port = int(self.wait_for(r"Listening at: https?://127\.0\.0\.1:(\d+)")[1])
        self.wait_for("Booting worker with pid")
        self.url = f"ws://127.0.0.1:{self.port}{PATH}"

    def worker_pid(self):
        return int(self.page().removeprefix("process "))

    def await_workers(self, number):
        """Wait until each has answered, and return the answers. A worker that is only starting misses a SIGTERM."""
        pages = set()
        wait_until(lambda: pages.add(self.page()) or len(pages) == number, "all workers to answer", PROGRAM_S)
        return pages

    def let_go(self):
        """Have handlers that are at "work" finish."""
        self.markers.with_suffix(".go").touch()

    def page(self):
        with urlopen(f"http://127.0.0.1:{self.port}/", timeout=PROGRAM_S) as answer:
            return answer.read().decode()

    def closes(self):
        """The codes that on_close was called with; each session was in its room then, and closed once."""
        lines = self.markers.read_text().splitlines() if self.markers.exists() else []
        ids = [line.split()[0] for line in lines]
        assert len(set(ids)) == len(ids), "on_close was called twice"
        assert all(line.endswith(" True") for line in lines)
        return [int(line.split()[1]) for line in lines]

    def check_log(self):
        assert "Traceback" not in self.log, self.log
        assert "[ERROR]" not in self.log, self.log
        assert "[CRITICAL]" not in self.log, self.log


@pytest.fixture(params=["gthread", OURS])
def gunicorn(request, tmp_path):
    with ExitStack() as stack:
        yield lambda *options, **more: stack.enter_context(Gunicorn(request.param, tmp_path, *options, **more))


def status_of(port, path, **options):
    """Of the answer, or 0 where there is none."""
    try:
        with RawClient(port, path, **options) as client:
            return client.status
    except (OSError, EOFError):
        return 0


def client_with_a_place(port, path):
    """Another's session has its place until its on_close has returned."""
    deadline = monotonic() + PROGRAM_S
    while True:
        client = RawClient(port, path)
        if client.status != 503 or monotonic() > deadline:
            return client
        client.sock.close()
        sleep(0.05)


def answer_close(client, code=1001):
    assert client.receive_close()[0] == code
    client.send(CLOSE, close_payload(code))
    assert client.at_end()
    client.sock.close()


def test_a_chat_a_clean_log_and_a_prompt_end(gunicorn):
    server = gunicorn()
    with connect(server.url) as a:
        process = receive(a)
        with connect(server.url) as b:
            assert receive(b) == process
            assert receive(a) == "join"
            b.send("hello")
            assert receive(a) == "hello"
            assert receive(b) == "sent hello"
        assert server.page() == process
    with RawClient(server.port, PATH) as client:
        client.receive()
        client.reset()
    early = frame(TEXT, "early") + frame(PING, b"p") + frame(TEXT, "late")[:3]
    with RawClient(server.port, PATH, early=early) as client:
        client.receive()
        assert client.receive() == (TEXT, b"sent early")
        assert client.receive() == (PONG, b"p")
        client.sock.close()
    with RawClient(server.port, PATH, without=["Sec-WebSocket-Key"]) as client:
        assert client.status == 400
    wait_until(lambda: len(server.closes()) == 4)
    server.wait_for(r'"GET /ws/chat HTTP/1\.1" 101 ', times=4)
    began = monotonic()
    assert server.end() == 0
    assert monotonic() - began < GONE_S
    assert sorted(server.closes()) == [1000, 1000, 1006, 1006]
    assert len([line for line in server.log.splitlines() if '" 101 ' in line]) == 4
    server.check_log()


def test_paths_have_parameters_and_sessions_expire(gunicorn):
    server = gunicorn()
    with RawClient(server.port, "/ws/where/7/caf%C3%A9%20%3Cx%3E?left=0.5") as client:
        assert client.receive_text() == "{'table': 7, 'name': 'café <x>'}"
        assert client.receive_close() == (3000, "expired")
        client.send(CLOSE, close_payload(3000))
        assert client.at_end()
    with RawClient(server.port, "/ws/where/7/x?left=-1") as client:
        assert client.status == 401
        assert re.fullmatch(r"expired \d+ s ago\n", client.body())
    for path in ("/ws/where/7/a%2Fb", "/ws/where/7/x/", "/ws/where/x/x"):
        with RawClient(server.port, f"{path}?left=9") as client:
            assert client.status == 200  # from the application inside
    server.check_log()


def test_a_handler_refuses_with_a_close_code_and_with_abort(gunicorn):
    server = gunicorn()
    with RawClient(server.port, f"{PATH}?refuse=code") as client:
        assert client.status == 101
        answer_close(client, 4003)
    with RawClient(server.port, f"{PATH}?refuse=abort") as client:
        assert client.status == 401
        assert "who are you?" in client.body()
    assert server.closes() == []
    server.end()
    server.check_log()


def test_cookies_of_several_lines_are_joined_by_semicolons(tmp_path):
    """A proxy may pass on HTTP/2's, which has a line for each (RFC 9113, 8.2.3). gthread itself takes commas."""
    with Gunicorn(OURS, tmp_path) as server:
        cookies = "a=1\r\nA: b\r\nCookie:\r\ncookie: b=2,3"
        with RawClient(server.port, f"{PATH}?tell=Cookie", {"Cookie": cookies}) as client:
            assert client.receive_text().startswith("process ")
            assert client.receive_text() == "a=1; b=2,3"
            client.sock.close()
        with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as sock:  # a page
            head = b"GET /cookies HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nCookie: b=2\r\nConnection: close\r\n\r\n"
            sock.sendall(head)
            assert b"\r\na=1; b=2\r\n" in sock.makefile("rb").read()
        server.end()
        server.check_log()


def test_a_uri_in_raw_utf_8_is_refused_and_not_misread(gunicorn):
    """By gunicorn from 27 on, by us before."""
    server = gunicorn()
    with RawClient(server.port, f"{PATH}?user=j\xc3\xbcrgen") as client:
        assert client.status == 400
    server.end()
    server.check_log()


def test_a_handshake_without_a_good_host_or_with_a_body_is_refused(gunicorn):
    server = gunicorn()
    for bad in (
        {"without": ["Host"]},
        {"headers": {"Host": ""}},
        {"headers": {"Host": "a, b"}},
        {"headers": {"Host": "localhost\r\nHost: localhost"}},
        {"headers": {"Host": "a b"}},
        {"headers": {"Content-Length": "7"}, "early": frame(TEXT, "a")},
        {"headers": {"Transfer-Encoding": "chunked"}, "early": b"0\r\n\r\n"},
    ):
        with RawClient(server.port, PATH, **bad) as client:
            assert client.status == 400, bad
    with RawClient(server.port, PATH, {"Content-Length": "0", "Sec-WebSocket-Version": "13 \t"}) as client:
        assert client.status == 101


def test_term_closes_100_idle_sessions_with_1001_and_each_on_close_runs(gunicorn):
    server = gunicorn(threads=110)
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port, PATH)) for _ in range(100)]
        for client in clients:
            assert client.receive_text().startswith("process")
        began = monotonic()
        server.process.send_signal(signal.SIGTERM)
        for client in clients:
            answer_close(client)
        assert server.wait() == 0
        assert monotonic() - began < GONE_S
    assert server.closes() == [1001] * 100
    server.check_log()


@pytest.mark.quiet  # while a worker gets no core for 50 ms, a full one accepts and refuses
@pytest.mark.parametrize("gunicorn", [OURS], indirect=True)
def test_a_full_worker_leaves_clients_to_the_others_and_http_is_answered_when_all_are_full(gunicorn):
    server = gunicorn("--workers", "2", threads=7)
    pages = server.await_workers(2)
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port, PATH)) for _ in range(10)]  # 5 places in each
        assert [client.status for client in clients] == [101] * 10
        workers = Counter(client.receive_text() for client in clients)
        assert sorted(workers.values()) == [5, 5]
        for _ in range(5):
            with RawClient(server.port, PATH) as client:
                assert client.status == 503
            assert server.page() in pages
    server.end()


def test_clients_that_do_not_answer_hold_the_end_up_for_two_seconds_at_most(gunicorn):
    server = gunicorn()
    with RawClient(server.port, PATH) as a, RawClient(server.port, PATH) as b:
        a.receive()
        b.receive()
        began = monotonic()
        assert server.end() == 0
        assert monotonic() - began < 2 + GONE_S
    assert server.closes() == [1001, 1001]
    server.check_log()


def test_sessions_leave_two_threads_for_http(gunicorn):
    server = gunicorn(threads=6)
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port, PATH)) for _ in range(4)]
        assert [client.status for client in clients] == [101] * 4
        for _ in range(3):
            with RawClient(server.port, PATH) as client:
                assert client.status == 503
                assert client.headers["retry-after"]
                assert "all 4 places" in client.body()
            assert server.page().startswith("process")
    with client_with_a_place(server.port, PATH) as client:
        assert client.status == 101
    server.end()
    server.check_log()


def test_a_worker_with_one_thread_keeps_it_for_http_and_says_why(gunicorn):
    server = gunicorn(threads=1)
    for _ in range(2):
        with RawClient(server.port, PATH) as client:
            assert client.status == 501
            assert "more, such as --threads 500" in client.body()
        assert server.page().startswith("process")
    assert server.end() == 0
    warnings = re.findall(r"\[WARNING\].* handshake on /ws/chat .* refused: 501 each session needs", server.log)
    assert len(warnings) == 1, server.log  # once, and not for each client


def test_a_worker_that_has_no_threads_ends_without_an_error(tmp_path):
    with Gunicorn("sync", tmp_path, threads=1) as server:
        with RawClient(server.port, PATH) as client:
            assert client.status == 501
        assert server.end() == 0
        server.check_log()
        assert "Exception during worker exit" not in server.log, server.log


def test_of_two_threads_one_is_for_http(gunicorn):
    server = gunicorn(threads=2)
    with RawClient(server.port, PATH) as client:
        assert client.receive_text() == server.page()
        with RawClient(server.port, PATH) as another:
            assert another.status == 503
        client.leave()
    assert server.end() == 0


def test_hup_closes_the_sessions_and_a_new_worker_serves(gunicorn):
    server = gunicorn()
    code = 1012 if server.worker == OURS else 1001  # gthread does not know of the new worker
    with RawClient(server.port, PATH) as client:
        old = client.receive_text()
        server.process.send_signal(signal.SIGHUP)
        answer_close(client, code)
    server.wait_for(r"Worker exiting")
    with RawClient(server.port, PATH) as client:
        new = client.receive_text()
        assert new != old
        client.leave()
    assert server.end() == 0
    assert server.closes() == [code, 1000]
    server.check_log()


def test_a_hup_to_master_and_workers_is_one_to_the_master(tmp_path):
    """As from a terminal that closes, and from pkill."""
    with Gunicorn(OURS, tmp_path) as server:
        with RawClient(server.port, PATH) as client:
            old = client.receive_text()
            os.kill(int(old.removeprefix("process ")), signal.SIGHUP)
            client.text("still there")
            assert client.receive_text() == "sent still there"
            server.process.send_signal(signal.SIGHUP)
            answer_close(client, 1012)
        wait_until(lambda: server.page() != old, "the new worker", PROGRAM_S)
        server.end()
        assert server.closes() == [1012]


def test_programs_that_the_application_starts_do_not_ignore_hup(tmp_path):
    (tmp_path / "own.py").write_text(
        "import subprocess, sys\n"
        "from wsthreads import WebSocketApp\n"
        "class Own:\n"
        "    def on_open(self, session):\n"
        "        code = 'import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)'\n"
        "        session.send(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout)\n"
        "app = WebSocketApp()\n"
        "app.add_handler('/ws/own', Own())\n"
    )
    with Program([*command(OURS, threads=3), "--bind", "127.0.0.1:0", "--chdir", tmp_path, "own:app"]) as server:
        port = int(server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        with RawClient(port, "/ws/own") as client:
            assert client.receive_text() == "True\n"
            client.leave()
        assert server.end() == 0


def test_without_free_descriptors_new_clients_wait(tmp_path):
    limit = ["bash", "-c", 'ulimit -n 60; exec "$@"', "bash"]
    (tmp_path / "own.py").write_text(CONTEXT)
    start = [*limit, *command(OURS, "--bind", "127.0.0.1:0", "--chdir", tmp_path, "own:app", threads=200)]
    with Program(start) as server, ExitStack() as stack:
        port = int(server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        clients = [stack.enter_context(closing(_begin(port))) for _ in range(100)]
        server.wait_for("cannot accept connections")
        while clients:  # those that are served make room for others
            served = select.select(clients, [], [], DEADLINE_S)[0]
            assert served, len(clients)
            for sock in served:
                assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
                sock.close()
                clients.remove(sock)
        server.end()
        assert "Traceback" not in server.log


def _begin(port):
    """A client that has sent a whole handshake."""
    sock = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    upgrade = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    sock.sendall(f"GET /ws/own HTTP/1.1\r\n{upgrade}Sec-WebSocket-Key: {'A' * 22}==\r\n\r\n".encode())
    return sock


def test_after_a_hup_term_is_told_from_it(tmp_path):
    with Gunicorn(OURS, tmp_path) as server:
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("Worker exiting")
        with RawClient(server.port, PATH) as client:
            client.receive()
            server.process.send_signal(signal.SIGTERM)
            answer_close(client, 1001)
        assert server.wait() == 0


def test_a_preloaded_app_works_in_its_forked_workers(gunicorn):
    server = gunicorn("--preload")
    with connect(server.url) as a:
        process = receive(a)  # it has joined the room by then
        with connect(server.url) as b:
            assert receive(b) == process
            assert receive(a) == "join"
            b.send("x" * 1_000_000)
            assert len(receive(a)) == 1_000_000
    with RawClient(server.port, PATH) as client:
        client.receive()
        server.process.send_signal(signal.SIGTERM)
        answer_close(client)
    assert server.wait() == 0
    assert sorted(server.closes()) == [1000, 1000, 1001]
    server.check_log()


def test_a_worker_that_has_served_its_max_requests_closes_its_sessions_and_is_replaced(gunicorn):
    server = gunicorn("--max-requests", "10", "--max-requests-jitter", "2")
    with RawClient(server.port, PATH) as client:
        old = client.receive_text()
        for _ in range(9 + 2):  # the last two may find the new worker, which serves more than that
            server.page()
        answer_close(client, 1012)
    server.wait_for("Booting worker with pid", times=2)
    with RawClient(server.port, PATH) as client:
        assert client.receive_text() != old
    server.end()
    server.check_log()


def test_a_handler_that_calls_exit_ends_neither_its_worker_nor_anybodys_session(gunicorn):
    server = gunicorn()
    with RawClient(server.port, PATH) as a:
        process = a.receive_text()
        with RawClient(server.port, PATH) as b:
            b.receive()
            assert a.receive_text() == "join"
            b.text("exit")
            server.wait_for("Chat.on_message failed in session")
            b.text("still there")
            assert a.receive_text() == "still there"
            assert server.page() == process


def await_loop(server):
    """Wait until gthread's loop has started the threads that it is to start.

    gunicorn's own handler of INT and QUIT waits for itself for ever if they come while it does: `_Pool` does not.
    """
    with ask(server, b"GET / HTTP/1.1\r\nConnection: close", b"0123456789") as sock:
        assert sock.makefile("rb").read().startswith(b"HTTP/1.1 200 ")  # to its end, which is the loop's


def test_a_pool_of_threads_can_be_shut_down_while_it_starts_one(monkeypatch):
    pool, start, done = PatientPool(2), threading.Thread.start, threading.Event()

    def interrupted_start(thread):
        start(thread)
        if thread in workers:
            return
        workers.append(thread)
        pool.shutdown(wait=False)  # as gunicorn does at INT and QUIT, in a signal's handler
        raise SystemExit(0)

    def submit():
        with pytest.raises(SystemExit):
            pool.submit(int)
        done.set()

    workers = [threading.Thread(target=submit, daemon=True)]
    monkeypatch.setattr(threading.Thread, "start", interrupted_start)
    workers[0].start()
    assert done.wait(DEADLINE_S)
    workers[1].join(DEADLINE_S)
    assert not workers[1].is_alive()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_interrupt_and_quit_end_it_without_waiting_for_the_sessions(gunicorn, number):
    server = gunicorn()
    with RawClient(server.port, PATH) as client:
        client.receive()
        if server.worker == "gthread":
            await_loop(server)
        began = monotonic()
        server.process.send_signal(number)
        answer_close(client, 1001)
        assert server.wait() == 0
        assert monotonic() - began < GONE_S
    assert server.closes() == [1001]


def test_term_lets_a_handler_finish_what_it_is_at(gunicorn):
    server = gunicorn()
    with RawClient(server.port, PATH) as client:
        client.receive()
        client.text("work")
        server.wait_for("^at work")
        server.process.send_signal(signal.SIGTERM)
        assert client.receive_close()[0] == 1001
        client.send(CLOSE, close_payload(1001))
        server.let_go()
        assert client.at_end()
        client.sock.close()
        assert server.wait() == 0
    assert "work is done" in server.log
    assert server.closes() == [1001]
    server.check_log()


def test_a_second_signal_does_not_wait_for_a_handler_that_does_not_finish(tmp_path):
    options = ["--graceful-timeout", int(10 * GONE_S)]
    with Gunicorn(OURS, tmp_path, *options) as server, RawClient(server.port, PATH) as client:
        client.receive()
        client.text("work")
        server.wait_for("^at work")
        server.process.send_signal(signal.SIGTERM)
        assert client.receive_close()[0] == 1001
        began = monotonic()
        server.end(signal.SIGINT)
        assert monotonic() - began < 2 + GONE_S


def test_a_worker_that_is_killed_takes_its_sessions_along_and_is_replaced(gunicorn):
    server = gunicorn()
    with RawClient(server.port, PATH) as client:
        client.receive()
        os.kill(server.worker_pid(), signal.SIGKILL)
        assert client.at_end()
    server.wait_for("Booting worker with pid", times=2)
    with RawClient(server.port, PATH) as client:
        assert client.receive_text() == server.page()
        client.leave()
    assert server.end() == 0
    assert server.closes() == [1000]


def test_a_worker_that_hangs_is_killed_by_the_master_and_replaced(tmp_path):
    with Gunicorn(OURS, tmp_path, "--timeout", "3") as server, RawClient(server.port, PATH) as client:
        client.receive()
        os.kill(server.worker_pid(), signal.SIGSTOP)
        assert client.at_end()
        server.wait_for("WORKER TIMEOUT")
        server.wait_for("Booting worker with pid", times=2)
        with RawClient(server.port, PATH) as another:
            assert another.receive_text() == server.page()
            another.leave()
        assert server.end() == 0


def test_a_worker_whose_master_is_killed_closes_its_sessions_and_ends(gunicorn):
    server = gunicorn()
    worker = server.worker_pid()
    try:
        with RawClient(server.port, PATH) as client:
            client.receive()
            server.process.kill()
            answer_close(client, 1001)
        server.wait_for("Worker exiting")
        assert server.closes() == [1001]
    except BaseException:
        os.kill(worker, signal.SIGKILL)
        raise


def test_sessions_that_open_while_the_worker_ends_do_not_hold_it_up(gunicorn):
    server, refused = gunicorn(threads=60), []

    def come():
        for _ in range(20):
            try:
                with RawClient(server.port, PATH) as client:
                    if client.status != 101:
                        refused.append(client.status)
                        continue
                    client.receive_close()
                    client.send(CLOSE, close_payload(1001))
            except (OSError, EOFError):
                return

    def end():
        with RawClient(server.port, PATH) as client:
            client.receive()
            server.process.send_signal(signal.SIGTERM)
            answer_close(client)

    run_all(*[come] * 6, end)
    began = monotonic()
    assert server.wait() == 0
    assert monotonic() - began < GONE_S
    assert set(refused) <= {503}
    assert set(server.closes()) <= {1001, 1006}


def test_requests_that_drip_in_do_not_keep_the_threads_for_ever(tmp_path):
    """As many as there are threads, so that nobody else is served until they are given up."""
    with Gunicorn("wsthreads.gunicorn.ThreadWorker", tmp_path, threads=4, handshake_timeout_s=0.5) as server:
        assert server.page().startswith("process")  # from here on the worker knows the app, and its timeout
        with RawClient(server.port, PATH) as client, ExitStack() as stack:
            client.receive()
            for n in range(12):
                drip = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), DEADLINE_S))
                drip.sendall(b"GET / HTTP/1.1\r\nX-Begun: %d" % n)
            assert server.page().startswith("process")
            client.text("still there")
            assert client.receive_text() == "sent still there"
            client.leave()
        assert server.end() == 0
        server.check_log()


def test_handshakes_of_tls_that_drip_in_do_not_keep_the_threads_for_ever(tmp_path):
    """Whatever gunicorn's `do_handshake_on_connect` says: then, it would make the handshake where no limit holds."""
    _, trusting = self_signed(tmp_path)
    options = ["--certfile", tmp_path / "certificate.pem", "--keyfile", tmp_path / "key.pem"]
    options.append("--do-handshake-on-connect")
    with Gunicorn(OURS, tmp_path, *options, threads=4, handshake_timeout_s=0.5) as server:
        for is_reloaded in (False, True):
            if is_reloaded:  # gunicorn reads its settings again
                server.process.send_signal(signal.SIGHUP)
                server.wait_for("Booting worker", times=2)
                server.wait_for("Worker exiting")
            with RawClient(server.port, PATH, tls=trusting) as client, ExitStack() as stack:
                client.receive()  # from here on the worker knows the app, and its timeout
                for _ in range(12):
                    drip = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), DEADLINE_S))
                    drip.sendall(b"\x16\x03\x01")
                # Who gets no core for 0.5 s is given up as well.
                wait_until(lambda: status_of(server.port, "/", tls=trusting) == 200, "a page", PROGRAM_S)
                client.leave()
        assert server.end() == 0
        server.check_log()


def test_context_variables_end_with_the_session_or_request_that_sets_them(tmp_path):
    (tmp_path / "own.py").write_text(CONTEXT)
    with Program([*command(OURS, threads=3), "--bind", "127.0.0.1:0", "--chdir", tmp_path, "own:app"]) as server:
        port = int(server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        for user in ("ann", "bob", "cid", "dan"):  # more than there are threads
            with client_with_a_place(port, f"/ws/own?user={user}") as client:
                assert client.receive_text() == "nobody"
                client.text("")
                assert client.receive_text() == user
                client.leave()
            with urlopen(f"http://127.0.0.1:{port}/?user={user}", timeout=PROGRAM_S) as answer:
                assert answer.read() == b"nobody"
        server.end()


def test_context_variables_end_with_a_request_over_http_2(monkeypatch):
    """A proxy sends the requests of several clients over one connection."""
    user = ContextVar("user", default="nobody")
    found = []

    def handle(self, *arguments):
        found.append((user.get(), *arguments))
        user.set("ann")

    monkeypatch.setattr(gthread.ThreadWorker, "handle_http2_request", handle, raising=False)
    worker = object.__new__(ThreadWorker)
    for request in (1, 2):
        worker.handle_http2_request(request, "conn", "h2")
    assert found == [("nobody", 1, "conn", "h2"), ("nobody", 2, "conn", "h2")]


CONTEXT = """
from contextvars import ContextVar
from wsthreads import WebSocketApp

user = ContextVar("user", default="nobody")


def page(environ, start_response):
    start_response("200 OK", [])
    before = user.get()
    user.set("a view")
    return [before.encode()]


app = WebSocketApp(page)


@app.route("/ws/own")
class Own:
    def on_handshake(self, request):
        self.before = user.get()
        user.set(request.get_parameter("user"))

    def on_open(self, session):
        session.send(self.before)

    def on_message(self, session, message):
        session.send(user.get())
"""


def test_with_reuse_port_a_full_worker_answers_at_once_and_a_line_says_what_that_means(tmp_path):
    """The kernel decides which worker gets a client, so a full worker cannot leave the client to another one."""
    (tmp_path / "own.py").write_text(CONTEXT)
    port = free_port()
    options = ["--reuse-port", "--workers", "2", "--bind", f"127.0.0.1:{port}", "--chdir", tmp_path, "own:app"]
    with Program([*command(OURS, threads=3), *map(str, options)]) as server:
        server.wait_for("with --reuse-port, a full worker refuses clients although other workers have room")
        with ExitStack() as stack:
            wait_until(lambda: not _refuses(port), "a worker that listens", PROGRAM_S)
            statuses = [stack.enter_context(RawClient(port, "/ws/own")).status for _ in range(3)]
        assert statuses.count(503) >= 1  # each worker has one place
        server.end()


def _refuses(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def ask(server, head, body=b""):
    sock = socket.create_connection(("127.0.0.1", server.port), DEADLINE_S)
    sock.sendall(b"\r\n".join([head, b"Host: localhost", b"Content-Length: 10", b"", b""]) + body if head else body)
    return sock


def begin_nothing(server):
    return ask(server, b"")


def begin_a_head(server):
    return ask(server, b"", b"GET / HTTP/1.1\r\nHos")


def begin_a_body(server):
    read = server.log.count("a body is wanted")
    sock = ask(server, b"POST /upload HTTP/1.1", b"half")
    server.wait_for("^a body is wanted", times=read + 1)
    return sock


def read_half_an_answer(server):
    sock = ask(server, b"GET /big HTTP/1.1", b"0123456789")
    assert sock.recv(1000)
    return sock


def stay_after_an_answer(server):
    sock = ask(server, b"GET / HTTP/1.1", b"0123456789")
    assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    return sock


UNFINISHED = [begin_nothing, begin_a_head, begin_a_body, read_half_an_answer, stay_after_an_answer]


@pytest.mark.parametrize("options", [[], ["--workers", 2, "--preload"]])
@pytest.mark.parametrize("begin", UNFINISHED)
def test_clients_that_leave_their_requests_unfinished_do_not_hold_up_the_end(tmp_path, begin, options):
    patience = ["--graceful-timeout", int(10 * GONE_S), "--keep-alive", int(10 * GONE_S)]
    with Gunicorn(OURS, tmp_path, *patience, *options) as server, RawClient(server.port, PATH) as client:
        client.receive()
        server.await_workers(2 if options else 1)
        with ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(begin(server))
            began = monotonic()
            server.process.send_signal(signal.SIGTERM)
            answer_close(client)
            assert server.wait() == 0
            assert monotonic() - began < GONE_S
        assert server.closes() == [1001]
        server.check_log()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_nor_do_they_at_an_interrupt(tmp_path, number):
    with Gunicorn(OURS, tmp_path, "--graceful-timeout", int(10 * GONE_S)) as server:
        with RawClient(server.port, PATH) as client, ExitStack() as stack:
            client.receive()
            for begin in UNFINISHED:
                stack.enter_context(begin(server))
            began = monotonic()
            server.process.send_signal(number)
            answer_close(client)
            assert server.wait() == 0
            assert monotonic() - began < GONE_S
        assert server.closes() == [1001]


def test_term_lets_a_client_send_the_rest_and_a_view_finish(tmp_path):
    with Gunicorn(OURS, tmp_path, "--graceful-timeout", int(10 * GONE_S)) as server:
        with begin_a_body(server) as upload, ask(server, b"GET /work HTTP/1.1", b"0123456789") as view:
            server.wait_for("^at work")
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("Handling signal: term")
            for part in [b"a ", b"by", b"te"]:  # it takes longer than is waited for one that does not move
                assert select.select([upload], [], [], STALL_S / 2) == ([], [], [])
                upload.sendall(part)
            assert b"got 10" in upload.makefile("rb").read()
            server.let_go()
            assert view.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
        assert server.wait() == 0
        server.check_log()


def test_clients_that_do_not_close_keep_nobody_else_out(tmp_path):
    """gunicorn waits for each of them for two seconds, and in the loop that lets in everybody."""
    with Gunicorn(OURS, tmp_path) as server, ExitStack() as stack:
        began = monotonic()
        for _ in range(10):
            rude = stack.enter_context(ask(server, b"GET / HTTP/1.1\r\nConnection: close", b"0123456789"))
            assert rude.recv(1000).startswith(b"HTTP/1.1 200 ")
            assert server.page().startswith("process")
        assert monotonic() - began < GONE_S


# What is said


SCRIPT = """console.log("loaded");
export function onMessage(session, message) { console.log(`heard ${message}`); console.debug("no more"); fail(); }
"""

APPLICATION = """import logging
%s
from wsthreads import create_app
app = create_app("chat.js")
"""


def said(folder, worker, target, *options, until, env=None):
    """The lines that gunicorn prints of a script that logs, and of its failure; without those of gunicorn's own."""
    (folder / "chat.js").write_text(SCRIPT)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = [*options, "--bind", f"fd://{listener.fileno()}", "--chdir", folder, target]
        with Program(command(worker, *options), pass_fds=[listener.fileno()], env=env or {}) as server:
            with connect(f"ws://127.0.0.1:{listener.getsockname()[1]}{PATH}") as client:
                client.send("hello")
                server.wait_for(until)
            assert server.end() == 0
        return [line for line in server.log.splitlines() if "script" in line or "wsthreads" in line]


@pytest.mark.parametrize("worker", ["gthread", OURS])
def test_what_scripts_log_and_what_fails_is_in_the_error_log_as_gunicorn_writes_it(tmp_path, worker):
    lines = said(tmp_path, worker, 'wsthreads:create_app("chat.js")', until="onMessage failed")
    lines = [line for line in lines if "Using worker" not in line]
    head = r"\[\d{4}-\d\d-\d\d [\d:]{8} [+-]\d{4}\] \[\d+\] "
    assert re.fullmatch(head + r"\[INFO\] wsthreads\.script\.chat\.js: loaded", lines[0])
    assert re.fullmatch(head + r"\[INFO\] wsthreads\.script\.chat\.js: heard hello \[\S{8} /ws/chat \S+\]", lines[1])
    assert re.fullmatch(head + r"\[ERROR\] wsthreads\.script\.chat\.js: onMessage failed.*", lines[2])
    assert len(lines) == 3, lines  # no console.debug, and no line for each session


EMBEDDED = """import logging
from flask import Flask
from wsthreads import WebSocketApp
app = Flask(__name__)
app.wsgi_app = websockets = WebSocketApp(app.wsgi_app)
websockets.add_script("/ws/chat", "chat.js")
@app.get("/boom")
def boom():
    raise SystemExit("no")
%s
"""

#: gunicorn started by a program that has made its application before, and so before gunicorn's log was there.
STARTED_BY_A_PROGRAM = """
def main():
    from gunicorn.app.base import BaseApplication
    class Started(BaseApplication):
        def load_config(self):
            for option in %r.items():
                self.cfg.set(*option)
        def load(self):
            return app
    Started().run()
"""


@pytest.mark.parametrize("options", [[], ["--preload"]])
@pytest.mark.parametrize("worker", ["gthread", OURS])
def test_what_an_app_of_one_s_own_logs_is_in_the_error_log_too(tmp_path, worker, options):
    (tmp_path / "embedded.py").write_text(EMBEDDED % "")
    lines = said(tmp_path, worker, "embedded:app", *options, until="onMessage failed")
    lines = [line for line in lines if "Using worker" not in line]
    head = r"\[\d{4}-\d\d-\d\d [\d:]{8} [+-]\d{4}\] \[\d+\] "
    assert re.fullmatch(head + r"\[INFO\] wsthreads\.script\.chat\.js: loaded", lines[0])
    assert re.fullmatch(head + r"\[ERROR\] wsthreads\.script\.chat\.js: onMessage failed.*", lines[-1])
    heard = [line for line in lines if "heard hello" in line]
    assert re.fullmatch(head + r"\[INFO\] wsthreads\.script\.chat\.js: heard hello \[\S{8} /ws/chat \S+\]", heard[0])
    assert len(heard) == 1


def test_what_it_logs_is_json_with_the_json_logger(tmp_path):
    (tmp_path / "embedded.py").write_text(EMBEDDED % "")
    options = ["--logger-class", "wsthreads.gunicorn.JSONLogger"]
    lines = said(tmp_path, "gthread", "embedded:app", *options, until="onMessage failed")
    heard = [json.loads(line) for line in lines if "heard hello" in line]
    assert [line["endpoint"] for line in heard] == [PATH]


@pytest.mark.parametrize("worker", ["gthread", OURS])
@pytest.mark.parametrize("options", [[], ["--preload"]])
def test_with_a_dashboard_it_logs_the_same(tmp_path, worker, options):
    environment = {"WSTHREADS_DASHBOARD_TOKEN": "a-token-of-the-tests"}
    (tmp_path / "embedded.py").write_text(EMBEDDED % "")
    lines = said(tmp_path, worker, "embedded:app", *options, until="onMessage failed", env=environment)
    head = r"\[\d{4}-\d\d-\d\d [\d:]{8} [+-]\d{4}\] \[\d+\] "
    for said_once in ("heard hello", "onMessage failed"):
        (line,) = [line for line in lines if said_once in line]
        assert re.match(head + r"\[[A-Z]+\] wsthreads\.script\.chat\.js: ", line)


def test_with_a_dashboard_it_logs_json_too(tmp_path):
    environment = {"WSTHREADS_DASHBOARD_TOKEN": "a-token-of-the-tests"}
    options = ["--logger-class", "wsthreads.gunicorn.JSONLogger"]
    lines = said(tmp_path, OURS, 'wsthreads:create_app("chat.js")', *options, until="onMessage failed", env=environment)
    events = [json.loads(line) for line in lines]
    assert sum("onMessage failed" in event["message"] and "session" in event for event in events) == 1


@pytest.mark.parametrize("dashboard", [{}, {"WSTHREADS_DASHBOARD_TOKEN": "a-token-of-the-tests"}])
@pytest.mark.parametrize("configure", ["logging.getLogger()", "logging.getLogger('wsthreads')"])
def test_an_app_of_one_s_own_that_configures_logging_later_is_left_alone(tmp_path, configure, dashboard):
    handler = "handler = logging.StreamHandler()\n"
    handler += "handler.setFormatter(logging.Formatter('MINE %(name)s %(message)s'))\n"
    (tmp_path / "embedded.py").write_text(EMBEDDED % f"{handler}{configure}.addHandler(handler)")
    lines = said(tmp_path, "gthread", "embedded:app", until="onMessage failed", env=dashboard)
    failed = [line for line in lines if "onMessage failed" in line]
    assert len(failed) == 1, lines
    assert failed[0].startswith("MINE wsthreads.script.chat.js onMessage failed")


@pytest.mark.parametrize("start", ["command", "preload", "program"])
def test_secrets_of_urls_are_in_none_of_gunicorn_s_logs_under_plain_gthread(tmp_path, start):
    port = free_port()
    (tmp_path / "chat.js").write_text(SCRIPT)
    options = {"bind": f"127.0.0.1:{port}", "worker_class": "gthread", "threads": 9, "accesslog": "-"}
    (tmp_path / "embedded.py").write_text(EMBEDDED % (STARTED_BY_A_PROGRAM % options))
    arguments = ["--bind", options["bind"], "--access-logfile", "-", "--chdir", tmp_path, "embedded:app"]
    program = [sys.executable, "-c", "import embedded; embedded.main()"]
    if start != "program":
        program = command("gthread", *arguments, *(["--preload"] if start == "preload" else []))
    with Program(program, cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as server:
        server.wait_for("Booting worker with pid")
        for path in ("/missing?token=SECRET", "/boom?token=SECRET"):
            wait_until(lambda path=path: status(port, path) in (404, 500))
        with connect(f"ws://127.0.0.1:{port}{PATH}?token=SECRET", additional_headers={"Referer": "http://a/?key=SECRET"}):
            pass
        server.wait_for(r'"GET /ws/chat\?token=\*\*\* HTTP/1\.1" 101 ')
        server.wait_for(r"Error handling request (GET )?/boom\?token=\*\*\*")
        assert server.end() == 0
        assert "SECRET" not in server.log, server.log


def status(port, path):
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=PROGRAM_S) as answer:
            return answer.status
    except HTTPError as error:
        return error.code
    except OSError:
        return 0


KICKS = """
def on_handshake(request):
    request.user = request.get_parameter("user")

def on_open(session):
    session.send("hello")

def on_message(session, message):
    if message == "kick":
        session.endpoint.user("ann").close(4001, "bye", ban_s=60)
    while session.is_open():
        session.send("x" * 100_000)
"""


def check_kicks(server, port):
    """One line each says who is kicked, who is banned, and who is closed since it did not read."""
    with RawClient(port, "/ws/kicks?user=ann") as ann, RawClient(port, "/ws/kicks?user=bob") as slow:
        assert ann.receive_text() == slow.receive_text() == "hello"
        ann.text("kick")
        server.wait_for(r"user ann banned on /ws/kicks for 60 s: 4001 bye")
        server.wait_for(r"user ann kicked on /ws/kicks: 4001 bye \(sessions closed in this process: 1\)")
        slow.text("flood")
        server.wait_for(r"session \S+ closed on /ws/kicks after \S+ s: 1013 too slow: ")


@pytest.mark.parametrize("worker", ["gthread", OURS])
def test_kicks_bans_and_clients_that_are_too_slow_are_lines_of_its_log(tmp_path, worker):
    (tmp_path / "kicks.py").write_text(KICKS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = 'wsthreads:create_app("kicks.py", send_timeout_s=0.3, close_timeout_s=0.3)'
        options = ["--bind", f"fd://{listener.fileno()}", "--chdir", tmp_path, target]
        with Program(command(worker, *options), pass_fds=[listener.fileno()]) as server:
            check_kicks(server, listener.getsockname()[1])
            server.end()
        assert " opened on /ws/kicks" not in server.log


def test_they_are_lines_of_the_log_of_wsthreads_run(tmp_path):
    (tmp_path / "kicks.py").write_text(KICKS)
    with run_server(tmp_path / "kicks.py", "--send-timeout-s", "0.3", "--close-timeout-s", "0.3") as server:
        check_kicks(server, server.port)


@pytest.mark.parametrize("level", ["warning", "debug"])
def test_gunicorn_s_level_holds_for_them(tmp_path, level):
    options = ["--log-level", level, 'wsthreads:create_app("chat.js")']
    lines = said(tmp_path, OURS, options.pop(), *options, until="onMessage failed")
    text = "\n".join(lines)
    assert ("heard hello" in text) == ("no more" in text) == (level == "debug")
    assert ("opened on /ws/chat" in text) == (level == "debug")


@pytest.mark.parametrize("worker", ["gthread", OURS])
def test_an_application_that_configures_logging_is_left_alone(tmp_path, worker):
    configure = "logging.basicConfig(level=logging.WARNING, format='MINE %(name)s %(message)s')"
    (tmp_path / "application.py").write_text(APPLICATION % configure)
    lines = said(tmp_path, worker, "application:app", until="onMessage failed")
    lines = [line for line in lines if "Using worker" not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("MINE wsthreads.script.chat.js onMessage failed")


def test_a_logging_configuration_of_gunicorn_is_left_alone(tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text(
        "logconfig_dict = {'version': 1, 'formatters': {'mine': {'format': 'MINE %(name)s %(message)s'}}, "
        "'handlers': {'mine': {'class': 'logging.StreamHandler', 'formatter': 'mine'}}, "
        "'root': {'handlers': ['mine']}, 'loggers': {}}"
    )
    config = ["-c", tmp_path / "gunicorn.conf.py"]
    lines = said(tmp_path, OURS, 'wsthreads:create_app("chat.js")', *config, until="onMessage failed")
    lines = [line for line in lines if "wsthreads.script" in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("MINE wsthreads.script.chat.js onMessage failed")


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ('wsthreads:create_app("bad.js")', r"bad\.js:1: SyntaxError: .*"),
        ('wsthreads:create_app("missing.js")', r"missing\.js: no such file or directory"),
        ('wsthreads:create_app("ok.js", max_sessions=0)', r"max_sessions must be at least 1, not 0"),
        ("application:app", r"missing\.js: no such file or directory"),
    ],
)
def test_an_application_that_cannot_be_served_is_one_line_and_gunicorn_s_status_for_it(tmp_path, target, text):
    (tmp_path / "bad.js").write_text("export function onOpen(session {\n")
    (tmp_path / "ok.js").write_text("export function onOpen(session) {}\n")
    (tmp_path / "application.py").write_text("from wsthreads import create_app\napp = create_app('missing.js')\n")
    with Program(command(OURS, "--bind", "127.0.0.1:0", "--chdir", tmp_path, target)) as server:
        assert server.wait() == 4
        # gunicorn prints the line and its end in two writes, and the master may log between them.
        assert re.search(rf"^{text}(\[|$)", server.log, re.MULTILINE), server.log
        assert "Traceback" not in server.log
        assert "App failed to load" in server.log


def test_an_error_that_is_not_ours_keeps_its_traceback(tmp_path):
    (tmp_path / "application.py").write_text("raise ZeroDivisionError('of the application')\n")
    with Program(command(OURS, "--bind", "127.0.0.1:0", "--chdir", tmp_path, "application:app")) as server:
        assert server.wait() == 3
        assert "Traceback" in server.log
