"""`Popen`, which starts some programs warm: forked from a process that has already imported what they need.

A start of ``python -m wsthreads run`` takes 0.4 s of a core, nearly all of it for imports, and the tests start a
thousand programs. A warm start takes a fifth. `tests.nursery` forks it, and gives it the arguments, environment,
folder, files, cores and limits of a start. The program's parent is this process, as if it were started here.

A start is cold, which is what `subprocess.Popen` does, if

- it is the first of its kind in this process, so each kind is also tried for real;
- the caller asks for a cold one, or WSTHREADS_TEST_COLD is set;
- the command is none of `_modules_for`, or an option asks for more than a nursery can do;
- a folder that the program imports from has a module of the same name as an installed one;
- the system is not Linux, or a sanitizer watches, under which a fork may hang.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import inspect
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.nursery import MESSAGE_BYTES, MESSAGE_FILES

__all__ = ["Popen"]

ROOT = Path(__file__).resolve().parent.parent

#: What ``wsthreads run`` and ``wsthreads check`` import, for handlers in either language, and with Redis.
COMMANDS = [
    "wsthreads.cli.commands",
    "wsthreads.cli.announcement",
    "wsthreads.cli.checks",
    "wsthreads.javascript",
    "wsthreads.brokers.redis",
    "wsthreads.servers.tls",
]

#: What gunicorn imports for each class of worker; for its own, the master imports the package, too. gunicorn.config is
#: not among it, because at its import it takes note of the folder and of variables.
WORKERS = {
    "gthread": ["gunicorn.workers.gthread", "wsthreads.app", "wsthreads.dashboard"],
    "wsthreads.gunicorn.ThreadWorker": ["wsthreads.gunicorn"],
}

#: How the names of variables begin that are read at the start of Python, or by an import.
STARTUP = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC", "GLIBC_", "OPENSSL_", "SSL_", "WSTHREADS_PURE_PYTHON")

LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_CORE, resource.RLIMIT_FSIZE)

#: Options of `subprocess.Popen` that a nursery cannot do, and the values that ask for nothing.
ONLY_COLD = {
    "executable": None,
    "preexec_fn": None,
    "close_fds": True,
    "shell": False,
    "restore_signals": True,
    "gid": None,
    "gids": None,
    "uid": None,
    "umask": -1,
    "process_group": -1,
}

#: Variables of sanitizers.
SANITIZERS = {"ASAN_OPTIONS", "LD_PRELOAD", "TSAN_OPTIONS"}

#: From linux/prctl.h.
PR_SET_CHILD_SUBREAPER = 36


class Popen(subprocess.Popen[str]):
    """The same as `subprocess.Popen`; the start is a real one if it is to be `cold`. Any thread may call it."""

    def __init__(self, command: list[str], *, cold: bool = False, **options: Any) -> None:
        self._cold = cold
        super().__init__(command, **options)

    def _execute_child(self, *arguments: Any, **named: Any) -> None:
        asked = inspect.signature(super()._execute_child).bind(*arguments, **named).arguments
        asked["env"] = dict(os.environ if asked["env"] is None else asked["env"])
        asked["args"] = [os.fspath(part) for part in asked["args"]]
        asked["cwd"] = os.path.abspath(asked["cwd"] or "")
        nursery = None if self._cold else _nursery_for(asked)
        self.is_warm = nursery is not None
        if nursery is None:
            super()._execute_child(*arguments, **named)
            return
        given = {0: asked["p2cread"], 1: asked["c2pwrite"], 2: asked["errwrite"]}
        files = {number: number if file == -1 else file for number, file in given.items()}
        files |= {file: file for file in asked["pass_fds"]}
        try:
            self.pid = nursery.start(asked, files)
            self._child_created = True
        finally:
            pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
            self._close_pipe_fds(*(asked[pipe] for pipe in pipes))


class _Nursery:
    """A process of `tests.nursery`, with these modules. It ends with this process."""

    def __init__(self, modules: list[str], environment: dict[str, str]) -> None:
        self._lock = threading.Lock()  # one start after the other
        self._channel, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, ROOT / "tests" / "nursery.py", str(theirs.fileno()), *modules],
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**environment, "PYTHONPATH": ""},
                pass_fds=[theirs.fileno()],
            )

    def start(self, asked: dict[str, Any], files: dict[int, int]) -> int:
        """Start a program, with these files by the numbers that they have there. Returns its process's number."""
        message = {
            "command": asked["args"],
            "environment": asked["env"],
            "folder": asked["cwd"],
            "new_session": asked["start_new_session"],
            "numbers": list(files),
            "cores": list(os.sched_getaffinity(0)),
            "limits": [(kind, resource.getrlimit(kind)) for kind in LIMITS],
        }
        with self._lock:
            _adopt_orphans(True)
            try:
                socket.send_fds(self._channel, [json.dumps(message).encode()], list(files.values()))
                program = int(self._channel.recv(64))
                self._channel.recv(64)  # the program's parent is this process now
            finally:
                _adopt_orphans(False)
        os.waitid(os.P_PID, program, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # raises an error if it is not our child
        return program

    def end(self) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()


#: By kind: the modules, and the variables that are read once. None after the first start.
_nurseries: dict[str, _Nursery | None] = {}
_lock = threading.Lock()  # guards _nurseries
_owner = os.getpid()  # a forked process has none of its own


def _nursery_for(asked: dict[str, Any]) -> _Nursery | None:
    """The one that can do this start, or None if it is to be cold."""
    if not sys.platform.startswith("linux") or "WSTHREADS_TEST_COLD" in os.environ or os.getpid() != _owner:
        return None
    modules = _modules_for(asked["args"], asked["env"])
    if modules is None or SANITIZERS & asked["env"].keys() or len(asked["pass_fds"]) > MESSAGE_FILES - 3:
        return None
    if any(asked.get(name, nothing) != nothing for name, nothing in ONLY_COLD.items()):
        return None
    paths = [path for path in asked["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
    folders = {Path(asked["cwd"], path).resolve() for path in ("", *paths)}
    if ROOT not in folders or any(_has_module_like_an_installed_one(folder) for folder in folders - {ROOT}):
        return None
    read_once = {name: value for name, value in asked["env"].items() if name.startswith(STARTUP)}
    read_once.pop("PYTHONPATH", None)
    kind = json.dumps([modules, sorted(read_once.items())])
    with _lock:
        if kind not in _nurseries:
            _nurseries[kind] = None
            return None
        nursery = _nurseries[kind] = _nurseries[kind] or _Nursery(modules, asked["env"])
        return nursery


def _modules_for(command: list[str], environment: dict[str, str]) -> list[str] | None:
    """What the program begins with. None if it is no program for a nursery."""
    if command[:3] in [[sys.executable, "-m", program] for program in ("wsthreads", "tests.stress.model.server")]:
        return COMMANDS
    if command[:3] == [sys.executable, "-m", "gunicorn"] and "-k" in command and "GUNICORN_CMD_ARGS" not in environment:
        return WORKERS.get(command[command.index("-k") + 1])
    return None


def _has_module_like_an_installed_one(folder: Path) -> bool:
    with suppress(OSError):
        return any(name.partition(".")[0] in _installed() for name in os.listdir(folder))
    return False


@functools.cache
def _installed() -> frozenset[str]:
    """The first names of all modules of Python and of those that are installed."""
    folders = [Path(folder) for folder in sys.path if Path(folder).name == "site-packages"]
    files = {file.name.partition(".")[0] for folder in folders for file in folder.iterdir()}
    return frozenset((files - {"__pycache__"}) | sys.stdlib_module_names | {"wsthreads"})


def _adopt_orphans(adopt: bool) -> None:
    """Whether this process becomes the parent of programs below it that lose theirs."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)


@atexit.register
def _end_nurseries() -> None:
    if os.getpid() == _owner:
        for nursery in filter(None, _nurseries.values()):
            nursery.end()
