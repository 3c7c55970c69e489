"""Programs that start warm: what they find is what a real start gives them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.programs import PROGRAM_S, wait_until
from tests.warm import ROOT, Popen

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="programs start warm on Linux only")

#: A handler that prints what a program may know about its start.
TELL = """
    import json, locale, os, resource, signal, sys, threading
    on_message = print
    def kind(number):
        place = os.readlink(f"/proc/self/fd/{number}")
        return place if place.startswith("/") else place.partition(":")[0]
    def stream(name):
        one = getattr(sys, name)
        told = one.encoding, one.errors, one.line_buffering, one.write_through, one.newlines, one.name, one.mode
        return *told, type(one.buffer).__name__, one.fileno(), one is getattr(sys, f"__{name}__")
    print(json.dumps({
        "arguments": sys.argv[1:], "command": sys.orig_argv, "program": os.path.basename(sys.argv[0]),
        "paths": [path for path in sys.path if "editable" not in path], "flags": list(sys.flags),
        "folder": os.getcwd(), "environment": dict(os.environ), "parent": os.getppid(), "mask": os.umask(0o22),
        "files": {n: kind(n) for n in range(500) if os.path.exists(f"/proc/self/fd/{n}")},
        "is alone in its session": os.getsid(0) == os.getpid(), "group": os.getpgid(0) == os.getpgid(os.getppid()),
        "limits": [resource.getrlimit(number) for number in range(16)],
        "cores": sorted(os.sched_getaffinity(0)), "scheduler": os.sched_getscheduler(0), "nice": os.nice(0),
        "signals": {n: str(signal.getsignal(n)).partition(" at ")[0] for n in signal.valid_signals()},
        "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "locale": locale.setlocale(locale.LC_CTYPE),
        "streams": [stream(name) for name in ("stdin", "stdout", "stderr")], "threads": threading.active_count(),
        "main": sys.modules["__main__"].__spec__.name, "tests": [n for n in sys.modules if n.startswith("tests")],
    }))
"""


def start(*arguments: str | os.PathLike[str], **options: Any) -> Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8", **options}
    return Popen([sys.executable, "-m", "wsthreads", *map(str, arguments)], env=environment, **given)


def told(*arguments: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    with start(*arguments, **options) as process:
        output, _ = process.communicate(timeout=PROGRAM_S)
    assert process.returncode == 0
    return json.loads(output.splitlines()[0])  # type: ignore[no-any-return]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A handler that tells what it knows; a second start of the command is a warm one."""
    file = tmp_path / "tells.py"
    file.write_text(textwrap.dedent(TELL))
    told("check", file)
    return file


def test_it_finds_what_a_real_start_gives_it(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    cores, (soft, hard) = os.sched_getaffinity(0), resource.getrlimit(resource.RLIMIT_NOFILE)
    other = program.parent / "other"
    other.mkdir()
    monkeypatch.setenv("WSTHREADS_TEST_ODD", "å\udcff\n")
    options: list[dict[str, Any]] = [
        {},
        {"cwd": other, "env": {"PYTHONPATH": f"{other}:{ROOT}", "NEW": "1"}},
        {"start_new_session": True, "stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT},
        {"pass_fds": [reading, writing], "stderr": subprocess.PIPE},
        {"env": {"PYTHONUNBUFFERED": "1"}},
    ]
    try:
        os.sched_setaffinity(0, {min(cores)})
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
        for option in options:
            told("check", program, **option)  # the first of its kind
            cold, warm = told("check", program, cold=True, **option), told("check", program, **option)
            assert warm == cold
            assert (warm["cores"], warm["limits"][resource.RLIMIT_NOFILE]) == ([min(cores)], [soft - 1, hard])
            assert warm["parent"] == os.getpid()
    finally:
        os.sched_setaffinity(0, cores)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(reading)
        os.close(writing)


def test_gunicorn_finds_the_same(tmp_path: Path) -> None:
    """Some of its defaults are what it finds at its start."""
    command = [sys.executable, "-m", "gunicorn", "-k", "wsthreads.gunicorn.ThreadWorker", "--print-config", "wsgi:app"]
    (tmp_path / "wsgi.py").write_text("app = print\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WEB_CONCURRENCY": "7", "PORT": "81"}

    def config(*, cold: bool) -> str:
        options: dict[str, Any] = {"cwd": tmp_path, "env": environment, "stdout": subprocess.PIPE, "encoding": "utf-8"}
        with Popen(command, cold=cold, **options) as asked:
            warm.append(asked.is_warm)
            return asked.communicate(timeout=PROGRAM_S)[0]

    warm: list[bool] = []
    config(cold=False)  # the first of its kind
    assert str(tmp_path) in config(cold=False) == config(cold=True)
    assert warm[1:] == [True, False]


def test_its_end_is_seen_here(program: Path) -> None:
    with start("check", "nowhere.py", stderr=subprocess.PIPE) as process:
        assert "nowhere.py" in process.communicate(timeout=PROGRAM_S)[1]
    assert process.returncode == 1
    with start("run", program, "--port", "0", stderr=subprocess.DEVNULL) as process:
        assert process.is_warm
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: not os.path.exists(f"/proc/{process.pid}"), "the process is gone")


@pytest.mark.parametrize(
    "options",
    [
        {"cold": True},
        {"env": {"WSTHREADS_TEST_COLD": "1"}},
        {"env": {"TSAN_OPTIONS": "detect_deadlocks=0"}},
        {"umask": 0o77},
        {"preexec_fn": os.getpid},
    ],
    ids=str,
)
def test_what_only_a_real_start_can_do_has_one(
    program: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in options.get("env", {}).items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        with start("run", program, "--port", "0", stderr=subprocess.DEVNULL, **options) as process:
            assert not process.is_warm
            process.kill()


def test_the_first_of_a_kind_is_a_real_start(program: Path) -> None:
    for value in ("1", "2"):  # malloc reads it once
        for expected in (False, True):
            environment = {"MALLOC_ARENA_MAX": value, "MALLOC_ARENA_TEST": str(os.getpid())}
            with start("run", program, "--port", "0", stderr=subprocess.DEVNULL, env=environment) as process:
                assert process.is_warm == expected
                process.kill()


def test_a_module_of_the_program_hides_an_installed_one(program: Path) -> None:
    for name in ("click.py", "email"):
        with start("check", program, cwd=program.parent) as process:
            assert process.is_warm
        (program.parent / name).mkdir()
        with start("check", program, cwd=program.parent) as process:
            assert not process.is_warm
        (program.parent / name).rmdir()
