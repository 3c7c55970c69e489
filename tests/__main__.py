"""The whole suite, ``python -m tests [JOBS] [PYTEST'S ARGUMENTS]``: most tests in several processes, side by side.

Most of them wait most of the time. Those that need a core as soon as they ask for one, marked ``quiet``, follow in two
processes. They wait even more.
All write bytecode, also where PYTHONDONTWRITEBYTECODE is set: else each of more than a thousand processes compiles the
package, and each of these runs all tests.
"""

from __future__ import annotations

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
    codes = [
        subprocess.run([sys.executable, "-m", "pytest", *run, *arguments], env=environment).returncode for run in runs
    ]
    failed = [code for code in codes if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)]
    return failed[0] if failed else min(codes)


def files_with_quiet_tests(arguments: tuple[str, ...]) -> list[str]:
    """The only files that the second run need import. None if the arguments name files: the run is about those."""
    if any(Path(argument.partition("::")[0]).exists() for argument in arguments):
        return []
    return sorted(str(path) for path in Path("tests").rglob("test_*.py") if QUIET in path.read_text("utf-8"))


sys.exit(main(*sys.argv[1:]))
