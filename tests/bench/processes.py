"""A server under test: a new process for each run, which is always ended."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType

__all__ = ["RunFailed", "ServerProcess", "Usage", "last_line"]

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0

#: How long a killed process may take to end on a busy machine.
KILL_TIMEOUT_S = 60.0

#: How often to check whether a server accepts. The start time is exact to this.
ACCEPT_POLL_S = 0.002


class RunFailed(Exception):
    """A run failed. The message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources of a process and its children."""

    rss_mib: float
    threads: int
    files: int


def last_line(text: str) -> str:
    """The last line of a text, which usually has the error; empty if there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


class ServerProcess:
    """Runs `command`, in a session of its own, while the context is entered.

    It has this process's environment, changed by `env`; there, None removes a variable. With `one_core`, it runs on the
    first available core. Its output goes to `log_file`. Entering waits until it accepts connections on
    127.0.0.1:`port`. Raises `RunFailed` if it ends, or does not accept within `START_TIMEOUT_S`.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        port: int,
        log_file: Path,
        *,
        env: Mapping[str, str | None] | None = None,
        directory: Path | None = None,
        one_core: bool = False,
    ) -> None:
        self.port = port
        self.start_s = 0.0  # seconds until it accepted connections
        self._command = [os.fspath(part) for part in command]
        self._log_file = log_file
        changed = {**os.environ, **(env or {})}
        self._env = {name: value for name, value in changed.items() if value is not None}
        self._directory = directory
        self._one_core = one_core
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; gunicorn's workers are children of this process."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> ServerProcess:
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        started = monotonic()
        with self._log_file.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    self._command,
                    env=self._env,
                    cwd=self._directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=self._prepare,
                )
            except OSError as error:
                raise RunFailed(f"cannot start {self._command[0]}: {error.strerror}") from error
        try:
            while not self._accepts():
                self.check_alive()
                if monotonic() - started > START_TIMEOUT_S:
                    raise RunFailed(f"accepted no connection within {START_TIMEOUT_S:g} s")
                sleep(ACCEPT_POLL_S)
            self.start_s = monotonic() - started
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _prepare(self) -> None:
        """Called in the child process before it runs the server."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        if self._one_core:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=START_TIMEOUT_S).close()
        except OSError:
            return False
        return True

    def check_alive(self) -> None:
        """Raise `RunFailed`, with the last line of the server's log, if the server has ended."""
        assert self._process is not None
        status = self._process.poll()
        if status is not None:
            said = last_line(self._log_file.read_text(errors="replace"))
            raise RunFailed(f"the server ended with status {status}{': ' if said else ''}{said}")

    def usage(self) -> Usage:
        """The current usage of the process and all its descendants."""
        pids = _tree(self.pid)
        page_mib = resource.getpagesize() / 1024 / 1024
        rss_mib, threads, files = 0.0, 0, 0
        for pid in pids:
            with suppress(OSError):  # the process has just ended
                rss_mib += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page_mib
                threads += len(os.listdir(f"/proc/{pid}/task"))
                files += len(os.listdir(f"/proc/{pid}/fd"))
        return Usage(rss_mib, threads, files)

    def _end(self) -> None:
        """Ask the process to end, then kill its process group."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.terminate()
        with suppress(subprocess.TimeoutExpired):  # some peers wait for their clients
            self._process.wait(STOP_TIMEOUT_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(KILL_TIMEOUT_S)


def _tree(pid: int) -> list[int]:
    pids = [pid]
    with suppress(OSError):  # it has just ended
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                pids += _tree(int(child))
    return pids
