"""``wsthreads run`` whose output is a pipe that nobody reads: it ends all the same."""

import os
import select
import signal
import sys
from contextlib import ExitStack, contextmanager

import pytest

from tests.programs import Program
from tests.wire import CLOSE, RawClient, close_payload

HANDLER = """import sys
def on_message(session, message):
    if message == "print":
        sys.stderr.write("x" * 1_000_000)
    session.send(message)
"""

PATIENT = ["--shutdown-timeout-s", "600"]


@contextmanager
def serving(folder, *options):
    """The server, with its port, and the pipe that is its standard error: how it is written to, and read."""
    folder.joinpath("chat.py").write_text(HANDLER)
    reading, writing = os.pipe()
    run = [sys.executable, "-m", "wsthreads", "run", "--port", "0", str(folder / "chat.py"), *options]
    command = ["sh", "-c", f'exec "$@" 2>/dev/fd/{writing}', "sh", *run]
    try:
        with Program(command, pass_fds=[writing]) as server:
            server.port = int(server.wait_for(r"^Listening on http://127\.0\.0\.1:(\d+)")[1])
            yield server, writing
    finally:
        os.close(reading)
        os.close(writing)


def fill(pipe):
    waiting = select.poll()
    waiting.register(pipe, select.POLLOUT)
    while waiting.poll(0):
        os.write(pipe, b"x" * select.PIPE_BUF)  # there is place for that


def answer_close(client):
    assert client.receive_close()[0] == 1001
    client.send(CLOSE, close_payload(1001))
    assert client.at_end()
    client.sock.close()


@pytest.mark.parametrize("level", ["info", "error"])
@pytest.mark.parametrize("reload", [False, True])
def test_it_ends_at_term_and_closes_the_sessions(tmp_path, level, reload):
    options = ["--shutdown-timeout-s", "1", "--log-level", level, *["--reload"] * reload]
    with serving(tmp_path, *options) as (server, pipe), ExitStack() as stack:
        client = stack.enter_context(RawClient(server.port, "/ws/chat"))
        client.text("hello")
        assert client.receive_text() == "hello"
        fill(pipe)
        for _ in range(3):  # their threads want to log that they have come
            stack.enter_context(RawClient(server.port, "/ws/chat"))
        client.text("still there")
        assert client.receive_text() == "still there"
        server.process.send_signal(signal.SIGTERM)
        answer_close(client)
        assert server.wait() == 0


def test_it_ends_though_a_handler_prints_into_the_pipe(tmp_path):
    with serving(tmp_path, "--shutdown-timeout-s", "1") as (server, pipe), RawClient(server.port, "/ws/chat") as client:
        client.text("print")
        waiting = select.poll()
        waiting.register(pipe, select.POLLOUT)
        while waiting.poll(0):
            pass
        assert server.end() == 0


def test_a_second_signal_cuts_them_off(tmp_path):
    with serving(tmp_path, *PATIENT) as (server, pipe), RawClient(server.port, "/ws/chat") as client:
        client.text("hello")
        assert client.receive_text() == "hello"
        fill(pipe)
        server.process.send_signal(signal.SIGTERM)
        assert client.receive_close()[0] == 1001  # it has obeyed the first one
        assert server.end(signal.SIGINT) == 128 + signal.SIGINT
