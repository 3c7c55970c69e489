"""Under real gunicorn processes: plain gthread, and our worker class."""

import signal
import sys
from contextlib import ExitStack
from time import monotonic
from urllib.request import urlopen

import pytest

from tests.programs import DEADLINE_S, Program, connect, receive, wait_until
from tests.wire import CLOSE, PING, PONG, TEXT, RawClient, close_payload, frame, run_all

#: DESIGN: the worker is gone within 3 seconds of SIGTERM. Here for a busy machine.
GONE_S = 3 + DEADLINE_S / 2

PATH = "/ws/chat"


class Gunicorn(Program):
    def __init__(self, worker, folder, *options, threads=20, close_s=5):
        self.markers = folder / "markers"
        command = [sys.executable, "-m", "gunicorn", "-k", worker, "--threads", str(threads), "-w", "1"]
        command += ["-b", "127.0.0.1:0", "--access-logfile", "-", "--log-level", "debug", *options]
        super().__init__([*command, "tests.gunicorn_app:app"], env={"MARKERS": str(self.markers)})
        self.port = int(self.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        self.wait_for("Booting worker with pid")
        self.url = f"ws://127.0.0.1:{self.port}{PATH}"

    def page(self):
        with urlopen(f"http://127.0.0.1:{self.port}/", timeout=DEADLINE_S) as answer:
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


@pytest.fixture(params=["gthread", "wsthreads.gunicorn.ThreadWorker"])
def gunicorn(request, tmp_path):
    with ExitStack() as stack:
        yield lambda *options, **more: stack.enter_context(Gunicorn(request.param, tmp_path, *options, **more))


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
    wait_until(lambda: len(server.closes()) == 4)
    with RawClient(server.port, PATH) as client:
        assert client.status == 101
    server.end()
    server.check_log()


def test_hup_closes_the_sessions_and_a_new_worker_serves(gunicorn):
    server = gunicorn()
    with RawClient(server.port, PATH) as client:
        old = client.receive_text()
        server.process.send_signal(signal.SIGHUP)
        answer_close(client)
    server.wait_for(r"Worker exiting")
    with RawClient(server.port, PATH) as client:
        new = client.receive_text()
        assert new != old
        client.leave()
    assert server.end() == 0
    assert server.closes() == [1001, 1000]
    server.check_log()


def test_a_preloaded_app_works_in_its_forked_workers(gunicorn):
    server = gunicorn("--preload")
    with connect(server.url) as a, connect(server.url) as b:
        assert receive(a) == receive(b)
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
    server = gunicorn("--max-requests", "3")
    with RawClient(server.port, PATH) as client:
        old = client.receive_text()
        for _ in range(2):
            assert server.page() == old
        answer_close(client)
    server.wait_for("Booting worker with pid", times=2)
    with RawClient(server.port, PATH) as client:
        assert client.receive_text() != old
    server.end()
    server.check_log()


def test_a_handler_that_calls_exit_ends_neither_its_worker_nor_anybodys_session(gunicorn):
    server = gunicorn()
    with RawClient(server.port, PATH) as a, RawClient(server.port, PATH) as b:
        process = a.receive_text()
        b.receive()
        assert a.receive_text() == "join"
        b.text("exit")
        server.wait_for("Chat.on_message failed in session")
        b.text("still there")
        assert a.receive_text() == "still there"
        assert server.page() == process


def test_interrupt_ends_it_without_waiting_for_the_sessions(gunicorn):
    server = gunicorn()
    with RawClient(server.port, PATH) as client:
        client.receive()
        began = monotonic()
        server.end(signal.SIGINT)
        assert monotonic() - began < 2 + GONE_S
        assert client.at_end() or client.receive()[0] == CLOSE


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
