"""What the tests share: deadlines, an independent client, the command as a process of its own.

Every wait is bounded by `DEADLINE_S`, or by `PROGRAM_S` if it is for a program; WSTHREADS_TEST_SCALE stretches both for
slow machines.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import websockets.sync.client
from werkzeug.test import Client
from werkzeug.test import TestResponse as Answer

from tests import warm
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

#: Longest that a test waits for anything that is to happen at once.
DEADLINE_S = 10.0 * float(os.environ.get("WSTHREADS_TEST_SCALE", "1"))


#: Longest that a program may take to start, to print something, or to end. A start alone takes most of a second of the
#: processor's time, for which all other tests compete.
PROGRAM_S = 6 * DEADLINE_S


def connect(url: str, **options: Any) -> websockets.sync.client.ClientConnection:
    """A client by python-websockets: it shares no code with the server. Use it as a context manager."""
    options = {
        "compression": None,
        "open_timeout": PROGRAM_S,  # perhaps its worker has still to start
        "close_timeout": DEADLINE_S,
        "ping_interval": None,
        "max_size": 2**26,
        "proxy": None,
        **options,
    }
    return websockets.sync.client.connect(url, **options)


def receive(client: websockets.sync.client.ClientConnection) -> str | bytes:
    """The next message; `TimeoutError` if none comes."""
    return client.recv(timeout=DEADLINE_S)


def wait_until(condition: Callable[[], Any], what: str = "", deadline_s: float = DEADLINE_S) -> Any:
    """Poll for something that nothing announces. Returns what `condition` does, once that is true."""
    deadline = time.monotonic() + deadline_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"did not happen in {deadline_s:g} s: {what or condition}"
        time.sleep(0.01)
    return result


_earlier: set[threading.Thread] = set()


def note_threads() -> None:
    """A test begins: the threads that run now are not its own."""
    _earlier.clear()
    _earlier.update(threading.enumerate())


def own_threads(name: str = "") -> list[str]:
    """The threads of this process with `name` in theirs that have begun with the test, or after, and still run."""
    return sorted(thread.name for thread in set(threading.enumerate()) - _earlier if name in thread.name)


class Browser(Client):
    """Asks a WSGI application without a server, and reads each answer to its end."""

    def open(self, *args: Any, **options: Any) -> Answer:
        return super().open(*args, buffered=True, **options)


class Program:
    """A process of its own whose output is collected. `log` is what it has printed so far, both streams together.

    Where a wait is not over by its deadline, the process is ended in a way that has it, and those that it has started,
    print the stacks of all of their threads.
    """

    def __init__(self, command: list[str], **options: Any) -> None:
        # Else all gunicorns that run have one control socket, and remove each other's.
        self._runtime = tempfile.TemporaryDirectory(prefix="runtime-", ignore_cleanup_errors=True)
        environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": self._runtime.name,
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
            "PYTHONPATH": str(ROOT),
            **options.pop("env", {}),
        }
        self.process = warm.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            env=environment,
            **{"stdin": subprocess.DEVNULL, **options},
        )
        self.log = ""
        self._grown = threading.Condition()  # guards log
        self._reader = threading.Thread(target=self._read, name="test-output", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                with self._grown:
                    self.log += line
                    self._grown.notify_all()
        with self._grown:
            self._grown.notify_all()

    def wait_for(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait until the log has the regular expression, for the n-th time."""
        deadline = time.monotonic() + PROGRAM_S
        with self._grown:
            while True:
                found = list(re.finditer(pattern, self.log, re.MULTILINE))
                if len(found) >= times:
                    return found[times - 1]
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                assert self._reader.is_alive(), f"ended without {pattern!r} in its log\n{self.log}"
                self._grown.wait(min(left, 0.2))
        self._show_stacks()
        raise AssertionError(f"not in the log after {PROGRAM_S:g} s: {pattern!r}\n{self.log}")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; the exit status."""
        try:
            status = self.process.wait(PROGRAM_S)
        except subprocess.TimeoutExpired:
            self._show_stacks()
            raise AssertionError(f"it has not ended after {PROGRAM_S:g} s\n{self.log}") from None
        self._reader.join(DEADLINE_S)
        return status

    def _show_stacks(self) -> None:
        """End the process by a signal at which faulthandler shows all threads, and which gunicorn leaves to it."""
        for process in (*_children(self.process.pid), self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGBUS)
                _await_end(process)  # one after the other, as all write to the same pipe
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()
        self.wait()
        self._runtime.cleanup()


def _children(process: int) -> list[int]:
    """The processes that it has started, where the system tells."""
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def _await_end(process: int) -> None:
    """Wait until it is gone, or a zombie, where the system tells; for a second at most."""
    deadline = time.monotonic() + 1
    with suppress(OSError):
        while "(zombie)" not in Path(f"/proc/{process}/status").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)


class ServerProgram(Program):
    """One that serves: `port` and `ws_url` are known when it listens."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def failures(self) -> list[str]:
        """What has failed by its log, except what a Redis that got no core for a second has not answered in time."""
        failed = [line for line in self.log.splitlines() if " failed" in line]
        return [line for line in failed if not re.search(r"Error: redis://\S+ has not answered, ", line)]


@contextmanager
def run_server(*arguments: str | os.PathLike[str], port: int | None = None, **options: Any) -> Iterator[ServerProgram]:
    """``wsthreads run`` with `arguments` as a process, from when it listens to the end of the block, where it is ended.

    Another server may follow at the same port. `options` are those of `subprocess.Popen`.
    """
    port = free_port() if port is None else port
    command = [sys.executable, "-m", "wsthreads", "run", "--port", str(port), *map(str, arguments)]
    with ServerProgram(command, **options) as server:
        server.port = int(server.wait_for(r"^Listening on https?://[^ ]*:(\d+)\b")[1])
        yield server


def wsthreads(*arguments: str | os.PathLike[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """The command, run to its end. `options` are those of `tests.warm.Popen`, and `input`."""
    given = options.pop("input", None)
    with warm.Popen(
        [sys.executable, "-m", "wsthreads", *map(str, arguments)],
        stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})},
        **options,
    ) as process:
        try:
            output, errors = process.communicate(given, PROGRAM_S)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)
