"""Starts the server process, queries it, prints its stacks, and ends it."""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlencode

from tests.stress.history import SCALE, Wrong
from tests.stress.log import Log

SERVERS = ("werkzeug", "gunicorn")

START_TIMEOUT_S = 60.0 * SCALE
STOP_TIMEOUT_S = 20.0 * SCALE
ASK_TIMEOUT_S = 30.0 * SCALE
POLL_S = 0.02

_ROOT = Path(__file__).resolve().parents[2]
_ADDRESS = re.compile(r"Listening at: http://([\d.]+):(\d+)")


class ServerProcess:
    """A server of the kind `server` with the handler in the language `handler`. Raises `Wrong` if it does not start.

    Log records with a text in `excuse` are permitted.
    """

    def __init__(self, server: str, handler: str, clients: int, excuse: Iterable[str] = ()) -> None:
        self._log = tempfile.NamedTemporaryFile("w+", prefix="stress-", suffix=".log")  # noqa: SIM115
        self._records = Log(self._log.name, excuse)
        environment = dict(os.environ, PYTHONFAULTHANDLER="1", PYTHONUNBUFFERED="1")
        self._process = subprocess.Popen(
            _command(server, handler, clients),
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.PIPE,  # the server ends with this process
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self.address = self._await_address()
            self.pid = self.ask()["pid"]
        except BaseException:
            self.kill()
            raise

    def _await_address(self) -> tuple[str, int]:
        deadline = monotonic() + START_TIMEOUT_S
        while not (found := _ADDRESS.search(self.log())):
            if self._process.poll() is not None or monotonic() > deadline:
                raise Wrong("server", f"it did not start:\n{self.log()}")
            sleep(POLL_S)
        return found[1], int(found[2])

    def log(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    def trouble(self) -> list[str]:
        """The log records that must not occur."""
        return self._records.trouble()

    def deaths(self) -> Counter[str]:
        """The number of logged deaths of threads, by thread."""
        return self._records.deaths()

    def starve(self, seconds: float) -> None:
        """Let the process get no file descriptor for a while. Works only on Linux."""
        if not hasattr(resource, "prlimit"):
            return
        before = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        taken = {int(name) for name in os.listdir(f"/proc/{self.pid}/fd")}
        lowest_free = next(number for number in range(len(taken) + 1) if number not in taken)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (lowest_free, before[1]))
        try:
            sleep(seconds)
        finally:
            resource.prlimit(self.pid, resource.RLIMIT_NOFILE, before)

    def ask(self, **query: object) -> dict[str, Any]:
        """Query the control endpoint. Raises `Wrong` if it does not answer."""
        connection = http.client.HTTPConnection(*self.address, timeout=ASK_TIMEOUT_S)
        try:
            connection.request("GET", f"/control?{urlencode(query)}", headers={"Connection": "close"})
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise Wrong("server", f"the control endpoint answered {response.status}")
            answer: dict[str, Any] = json.loads(body)
            return answer
        except (OSError, http.client.HTTPException) as error:
            raise Wrong("server", f"the control endpoint does not answer: {error!r}") from None
        finally:
            connection.close()

    def show_stacks(self) -> None:
        """Make the process write the stacks of all threads to its log.

        Call this last, because it may crash the process.

        faulthandler reads the stacks of running threads. In CPython 3.11, that sometimes causes a segmentation fault,
        also without wsthreads, if traced threads start and end, as with `perturb`.
        """
        with suppress(OSError):
            os.kill(self.pid, signal.SIGUSR1)
            sleep(0.5)

    def stop(self) -> None:
        """End it by SIGTERM. Raises `Wrong` unless it ends in time with status 0."""
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.show_stacks()
            raise Wrong("server", f"it did not end within {STOP_TIMEOUT_S:g} s after SIGTERM") from None
        if status != 0:
            raise Wrong("server", f"it ended with the status {status}")

    def kill(self) -> None:
        """Kill it in any state, and delete its log. Idempotent."""
        self._process.stdin.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._log.close()


def _command(server: str, handler: str, clients: int) -> list[str]:
    if server == "werkzeug":
        return [sys.executable, "-m", "tests.stress.server", "--handler", handler, "--clients", str(clients)]
    from gunicorn.config import KNOWN_SETTINGS  # an extra

    threads = 3 * clients + 100
    # All running gunicorns would share the control socket in the user's home. Older versions have none.
    no_control = [flag for setting in KNOWN_SETTINGS for flag in setting.cli or () if flag == "--no-control-socket"]
    return [
        sys.executable, "-m", "gunicorn", "-k", "wsthreads.gunicorn.ThreadWorker", "-w", "1", "-b", "127.0.0.1:0",
        "--threads", str(threads), "--worker-connections", str(2 * threads), "--log-level", "info",
        *no_control,
        f"tests.stress.server:create_app({handler!r}, {clients})",
    ]  # fmt: skip
