"""A thread that holds up the end of a process is named: under the command, and under gunicorn."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.programs import Program, connect, receive, run_server

HANDLER = """
import os, threading, time
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(1)

def poll():
    while not os.path.exists(os.environ["GO"]):
        time.sleep(0.01)

def on_message(session, message):
    threading.Thread(target=poll, name=message, daemon=message == "a daemon").start()
    session.send(str(pool.submit(int, 7).result()))
"""

LINE = r"the process waits for threads that are not daemons: %s \(\S+handler\.py:(\d+)\); end them in on_close"


@contextmanager
def serving(kind: str, folder: Path) -> Iterator[tuple[Program, str]]:
    """A server, and the URL of its endpoint."""
    (folder / "handler.py").write_text(HANDLER)
    environment = {"GO": str(folder / "go")}
    if kind == "wsthreads run":
        with run_server("handler.py", cwd=folder, env=environment) as server:
            yield server, f"{server.ws_url}/ws/handler"
        return
    options = ["-k", kind, "--threads", "5", "-b", "127.0.0.1:0", "wsthreads:create_app('handler.py')"]
    with Program([sys.executable, "-m", "gunicorn", *options], cwd=folder, env=environment) as server:
        port = server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1]
        yield server, f"ws://127.0.0.1:{port}/ws/handler"


@pytest.mark.parametrize("kind", ["wsthreads run", "gthread", "wsthreads.gunicorn.ThreadWorker"])
def test_a_thread_that_holds_up_the_end_is_named_with_its_place(kind: str, tmp_path: Path) -> None:
    with serving(kind, tmp_path) as (server, url):
        with connect(url) as client:
            for name in ("a poller", "a daemon"):
                client.send(name)
                assert receive(client) == "7"
        os.kill(server.process.pid, signal.SIGTERM)
        line = server.wait_for(LINE % "a poller")
        assert HANDLER.splitlines()[int(line[1]) - 1].strip() in ("while not os.path.exists(os.environ[\"GO\"]):",
                                                                 "time.sleep(0.01)")
        (tmp_path / "go").touch()
        assert server.wait() == 0
        assert server.log.count("the process waits for") == 1


@pytest.mark.parametrize("kind", ["wsthreads run", "gthread", "wsthreads.gunicorn.ThreadWorker"])
def test_a_process_that_nobody_holds_up_says_nothing(kind: str, tmp_path: Path) -> None:
    with serving(kind, tmp_path) as (server, url):
        with connect(url) as client:
            client.send("a daemon")
            assert receive(client) == "7"
        assert server.end() == 0
        assert "the process waits for" not in server.log
