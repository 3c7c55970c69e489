"""Nothing that a client sends can forge a line of the log, or steer the terminal that shows it."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.programs import Program, run_server
from tests.wire import CLOSE, RawClient, close_payload
from wsthreads.logs import block, printable

FORGED = "12:00:00 ERROR forged: all is lost"
NASTY = f"x\n{FORGED}\r{FORGED}\x1b[31mred\x9b0m\x07\x00\x7f\u202e"

SCRIPT = """
export function onMessage(session, message) {
  console.log(message);
  console.log({ message });
  throw new Error(message);
}
"""

HANDLER = """
import wsthreads
def on_handshake(request):
    if request.get_parameter("refuse"):
        raise wsthreads.HandshakeRefused(401, "not you, " + request.get_parameter("refuse"))
    if request.get_parameter("status"):
        return request.get_parameter("status")
def on_message(session, message):
    raise ValueError(message)
"""


@pytest.mark.parametrize("text", ["plain", "grüße 🎉", ""])
def test_what_can_be_printed_stays_as_it_is(text: str) -> None:
    assert printable(text) == block(text) == text


def test_what_cannot_is_escaped() -> None:
    assert printable("a\nb") == r"'a\nb'"
    assert block("\x1b[31m\ta\r\x7f\x85\x9b\x00") == r"\x1b[31m" + "\ta" + r"\x0d\x7f\x85\x9b\x00"


def test_only_the_first_line_of_a_block_begins_at_the_left() -> None:
    assert block("a\nb\n  c\n\n") == "a\n  b\n  c\n  \n  "


def nasty_clients(port: int, forward: bool) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in NASTY.encode())
    raw = NASTY.replace("\n", "").replace("\r", "").replace("\x00", "").replace("\u202e", "")
    forwarded = {"X-Forwarded-For": raw} if forward else {}
    for path, headers in (
        (f"/ws/script?user={quoted}", {"Origin": raw}),
        (f"/ws/script?user={quoted}", {"Sec-WebSocket-Version": raw}),
        (f"/ws/python?refuse={quoted}", forwarded),
        (f"/ws/python?status={quoted}", forwarded),
        (f"/{quoted}", {}),
        ("/\x1b[31m", {}),
    ):
        with suppress(EOFError, ConnectionError), RawClient(port, path, headers) as client:
            assert client.status in (400, 401, 403, 404, 426, 500)
            assert not set(client.headers) & {"x", FORGED.partition(":")[0].lower()}
    with suppress(EOFError, ConnectionError), RawClient(port, "/ws/script", method="\x1b[31mPOST"):
        pass
    for path in ("/ws/script", "/ws/python"):
        with RawClient(port, path, forwarded) as client:
            assert client.status == 101
            client.text(NASTY)
            client.send(CLOSE, close_payload(4000, f"x\n{FORGED}\x1b[31m"))
            client.receive_close()
            assert client.at_end()


def check(log: str) -> None:
    """That it was tried, and led to nothing."""
    assert log.count("forged") >= 8, log
    for line in log.splitlines():
        assert not line.startswith(FORGED), log
        assert not any((ord(c) < 32 and c != "\t") or 127 <= ord(c) < 160 for c in line), repr(line)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "script.js").write_text(SCRIPT)
    (tmp_path / "python.py").write_text(HANDLER)
    return tmp_path


def test_under_wsthreads_run(folder: Path) -> None:
    with run_server("script.js", "python.py", "--trusted-proxies", "1", cwd=folder) as server:
        nasty_clients(server.port, forward=True)
        server.wait_for("closed on", times=2)
        assert server.end() == 0
        check(server.log)


def test_under_gunicorn(folder: Path) -> None:
    target = 'wsthreads:create_app("script.js", "python.py", trusted_proxies=1)'
    command = [sys.executable, "-m", "gunicorn", "-k", "wsthreads.gunicorn.ThreadWorker", "--threads", "10"]
    command += ["--bind", "127.0.0.1:0", "--log-level", "debug", target]
    with Program(command, cwd=folder) as server:
        port = int(server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        nasty_clients(port, forward=False)  # gunicorn itself refuses such headers
        server.wait_for("closed on", times=2)
        assert server.end(signal.SIGTERM) == 0
        check(server.log)


def test_a_library_s_log_is_left_to_its_application() -> None:
    for name in ("wsthreads", "wsthreads.script"):
        assert not logging.getLogger(name).handlers
        assert logging.getLogger(name).level == logging.NOTSET
