"""Build the sdist and the wheel, and try each command from the wheel in an empty environment: ``make dist``.

The wheel is installed outside the checkout, so that nothing of the checkout is imported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.programs import PROGRAM_S, ROOT, ServerProgram, connect, receive
from tests.redis_server import RedisServer
from wsthreads import __version__

DIST = ROOT / "dist"

#: What the repository has for itself only.
NOT_DISTRIBUTED = (".ci/", ".gitignore")

#: The handlers that `new` writes here, each into a folder of its name, and the options that ask for it.
HANDLERS = {"chat.js": [], "typed.ts": ["--typescript"], "snake.py": ["--python"]}

#: Longest that pip may take to build or to install.
PIP_S = 10 * PROGRAM_S


def main() -> None:
    """Raises, and so ends with a status other than 0, at the first thing that is wrong."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST, ROOT, timeout=PIP_S)
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    if (ROOT / ".git").exists():
        compare_with_repository(sdist)
    with tempfile.TemporaryDirectory(prefix="wsthreads-dist-") as folder:
        Installed(wheel, Path(folder)).try_all()
    print(f"{sdist.relative_to(ROOT)}\n{wheel.relative_to(ROOT)}")


def run(*command: str | Path, timeout: float = PROGRAM_S, **options: Any) -> str:
    """The output of a command, both streams together. If its status is not 0, prints the output and exits."""
    result = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=timeout,
        **options,
    )
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stdout}\nstatus {result.returncode}")
    return result.stdout


def compare_with_repository(sdist: Path) -> None:
    """The sdist has the files of the repository, and only these."""
    tracked = run("git", "ls-files", cwd=ROOT).splitlines()
    wanted = {name for name in tracked if not name.startswith(NOT_DISTRIBUTED)}
    with tarfile.open(sdist) as archive:
        names = [member.name.partition("/")[2] for member in archive if member.isfile()]
    written = {name for name in names if name != "PKG-INFO" and ".egg-info/" not in name}
    if written != wanted:
        sys.exit(f"the sdist lacks {sorted(wanted - written)}, and has besides {sorted(written - wanted)}")


class Installed:
    """The wheel in an environment of its own, with what it depends on."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        self._folder = folder
        self._wheel = wheel
        self._bin = folder / "venv" / "bin"
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "WSTHREADS_"))}
        venv.create(folder / "venv", with_pip=True)
        self.install(str(wheel))

    def install(self, *packages: str) -> None:
        pip = (self._bin / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install", *packages)
        run(*pip, timeout=PIP_S, cwd=self._folder)

    def wsthreads(self, *arguments: str, input: str = "") -> str:
        return run(self._bin / "wsthreads", *arguments, cwd=self._folder, env=self._environment, input=input)

    def python(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        return run(self._bin / "python", *arguments, cwd=cwd or self._folder, env=self._environment)

    def try_all(self) -> None:
        self.python("-c", "import wsthreads._native._speedups, wsthreads._native._bridge")
        assert f"wsthreads {__version__}" in self.python("-m", "wsthreads", "--version")
        for handler, options in HANDLERS.items():
            self.try_new(handler, options)
        self.wsthreads("check", "chat/chat.js", "--types")
        self.wsthreads("new", "deployed", "--python", "--deploy")
        self.install(f"{self._wheel}[redis]", "pytest")
        for handler in HANDLERS:
            self.python("-m", "pytest", "-q", cwd=self._folder / Path(handler).stem)  # the test that `new` has written
        with RedisServer() as redis:
            self.try_redis(redis.url)

    @contextmanager
    def serve(self, *arguments: str) -> Iterator[ServerProgram]:
        """As `tests.programs.run_server`, but from the wheel."""
        command = [str(self._bin / "wsthreads"), "run", "--port", str(free_port()), *arguments]
        with ServerProgram(command, cwd=self._folder, env={"PYTHONPATH": ""}) as server:
            server.port = int(server.wait_for(r"^Listening on http://127.0.0.1:(\d+)")[1])
            yield server

    def try_new(self, handler: str, options: list[str]) -> None:
        """`new`, `check`, `run` and `connect`, with the pages and the client for browsers."""
        name = Path(handler).stem
        self.wsthreads("new", name, *options)
        self.wsthreads("check", f"{name}/{handler}")
        with self.serve(f"{name}/{handler}", "--static", f"{name}/public", "--serve-client") as server:
            for path in ("/", "/wsthreads.js", "/_wsthreads/", "/healthz"):
                with urllib.request.urlopen(server.url + path, timeout=PROGRAM_S) as answer:
                    assert answer.read(), path
            output = self.wsthreads("connect", f"{server.ws_url}/ws/{name}", input="hello\n")
            assert '"hello"' in output, output

    def try_redis(self, url: str) -> None:
        """`publish` reaches a member of a room, and `kick` reaches Redis."""
        with self.serve("chat/chat.js", "--redis", url) as server, connect(f"{server.ws_url}/ws/chat") as member:
            receive(member)  # that it has joined
            self.wsthreads("publish", "chat", "by a job", "--endpoint", "/ws/chat", "--redis", url)
            assert receive(member) == "by a job"
            self.wsthreads("kick", "ann", "--endpoint", "/ws/chat", "--redis", url)


if __name__ == "__main__":
    main()
