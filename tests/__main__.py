"""The whole suite, ``python -m tests [JOBS] [PYTEST'S ARGUMENTS]``: most tests in several processes, side by side.

Most of them wait most of the time. Those that need a core as soon as they ask for one, marked ``quiet``, follow in two
processes. They wait even more.
All write bytecode, also where PYTHONDONTWRITEBYTECODE is set: else each of more than a thousand processes compiles the
package, and each of these runs all tests.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: What the file of each such test has in it.
QUIET = "mark.quiet"


def main(jobs: str, *arguments: str) -> int:
    """Run pytest twice. Returns its exit code: that of the first run that failed, if any did."""
    side_by_side = ["--dist", "loadfile", "--no-loadscope-reorder", "--numprocesses"]
    few = jobs if jobs in ("0", "1") else "2"
    quiet = ["-m", "quiet", *side_by_side, few, *files_with_quiet_tests(arguments)]
    runs = [["-m", "not quiet", *side_by_side, jobs], quiet]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if not names_files(arguments):
        write_bytecode(environment)
    codes = [
        subprocess.run([sys.executable, "-m", "pytest", *run, *arguments], env=environment).returncode for run in runs
    ]
    failed = [code for code in codes if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)]
    return failed[0] if failed else min(codes)


def write_bytecode(environment: dict[str, str]) -> None:
    """Import the files with tests that have none, in a process for each of two cores.

    Where there is none, each process that runs tests would rewrite the assertions of all files: 5 s of a core for each.
    """
    files = [str(path) for path in test_files() if not has_bytecode(path)]
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "--capture=fd"]
    halves = [half for half in (files[::2], files[1::2]) if len(files) > 10 and half]
    processes = [subprocess.Popen([*collect, *half], env=environment, stdout=subprocess.DEVNULL) for half in halves]
    for process in processes:
        process.wait()


def has_bytecode(path: Path) -> bool:
    """Whether pytest has written some since the file was changed."""
    name = Path(importlib.util.cache_from_source(str(path))).stem + f"-pytest-{pytest.__version__}.pyc"
    written = path.parent / "__pycache__" / name
    return written.exists() and written.stat().st_mtime >= path.stat().st_mtime


def files_with_quiet_tests(arguments: tuple[str, ...]) -> list[str]:
    """The only files that the second run need import. None if the arguments name files: the run is about those."""
    if names_files(arguments):
        return []
    return [str(path) for path in test_files() if QUIET in path.read_text("utf-8")]


def test_files() -> list[Path]:
    return sorted(path for folder in ("tests", "examples") for path in Path(folder).rglob("test_*.py"))


def names_files(arguments: tuple[str, ...]) -> bool:
    return any(Path(argument.partition("::")[0]).exists() for argument in arguments)


sys.exit(main(*sys.argv[1:]))
