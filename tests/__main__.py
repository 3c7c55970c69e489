"""The whole suite, ``python -m tests [JOBS] [PYTEST'S ARGUMENTS]``: most tests in several processes, side by side.

Most of them wait most of the time. Those that need the machine for themselves, marked ``quiet``, follow one by one.
All write bytecode, also where PYTHONDONTWRITEBYTECODE is set: else each of more than a thousand processes compiles the
package, and each of these runs all tests.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def main(jobs: str, *arguments: str) -> int:
    """Run pytest twice. Returns its exit code: that of the first run that failed, if any did."""
    side_by_side = ["-m", "not quiet", "--numprocesses", jobs, "--dist", "loadfile", "--no-loadscope-reorder"]
    runs = [side_by_side, ["-m", "quiet"]]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    codes = [
        subprocess.run([sys.executable, "-m", "pytest", *run, *arguments], env=environment).returncode for run in runs
    ]
    failed = [code for code in codes if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)]
    return failed[0] if failed else min(codes)


sys.exit(main(*sys.argv[1:]))
