"""``make conformance``: the Autobahn cases against an echo endpoint in up to four builds, one after another.

Exits with 0 if every case has passed, with 1 if one has not, with 2 if there is nothing to run them with.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.environment import BUILD, HERE, EnvironmentMissing, Fuzzer, install
from tests.conformance.summary import EXPLAINED, Summary, read_summary
from tests.programs import run_server
from wsthreads._native import speedups

__all__ = ["ALL_CASES", "BUILDS", "Build", "run"]

#: The groups that the suite has (8 and 11 are empty), and those of them that are about compression.
ALL_CASES = tuple(f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 13))
COMPRESSION_CASES = ("12.", "13.")

#: The suite sends up to 16 MiB.
MAX_MESSAGE_BYTES = 32 * 1024 * 1024

#: 9.3.1 and 9.4.1 send 4 MiB in pieces of 64 bytes, and one more.
MAX_FRAGMENTS = 65536 + 1

#: Longest that one build may take; what has not run by then has failed.
RUN_TIMEOUT_S = 3600


@dataclass(frozen=True)
class Build:
    """How the server is run: with the C modules or without, with compression or without."""

    name: str
    pure_python: bool
    compression: bool


BUILDS = {
    build.name: build
    for build in (
        Build("c", pure_python=False, compression=False),
        Build("c-compression", pure_python=False, compression=True),
        Build("python", pure_python=True, compression=False),
        Build("python-compression", pure_python=True, compression=True),
    )
}


def run(
    build: Build, patterns: list[str], fuzzer: Fuzzer, folder: Path, *,
    patience: float = 1.0, timeout_s: float = RUN_TIMEOUT_S, explained: Mapping[str, str] = EXPLAINED,
) -> Summary:
    """Serve the endpoint, run the cases against it, leave reports and logs in `folder`.

    The suite's own time limits, some of 0.5 s, are multiplied by `patience`; `explained` is that of `Summary`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    options = ["--compression" if build.compression else "--no-compression"]
    options += ["--max-message-bytes", MAX_MESSAGE_BYTES, "--max-fragments", MAX_FRAGMENTS]
    environ = {"WSTHREADS_PURE_PYTHON": "1" if build.pure_python else "0"}
    with run_server(HERE / "echo.py", *map(str, options), env=environ) as server:
        command = fuzzer.command(server.ws_url + "/ws/echo", folder, patience, patterns)
        streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
        with (folder / "fuzzer.log").open("w") as log, suppress(subprocess.TimeoutExpired):  # the rest is missing
            subprocess.run(command, env=fuzzer.environ(), stdout=log, timeout=timeout_s, **streams)
    (folder / "server.log").write_text(server.log)
    summary = read_summary(folder, explained)
    if not summary.cases:
        print((folder / "fuzzer.log").read_text(errors="replace")[-2000:], file=sys.stderr)
    return summary


def patterns_for(build: Build, patterns: list[str]) -> list[str]:
    """Without compression its cases are UNIMPLEMENTED by definition, so they are left out."""
    return [p for p in patterns if build.compression or not p.startswith(COMPRESSION_CASES)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--cases", default=" ".join(ALL_CASES), help="patterns, such as '1.* 7.1.6'; all by default")
    parser.add_argument("--builds", default=" ".join(BUILDS), help=f"some of: {', '.join(BUILDS)}")
    parser.add_argument("--runs", type=int, default=1, help="how often each build is run")
    parser.add_argument("--patience", type=float, default=1.0, help="multiplies the suite's time limits")
    options = parser.parse_args()
    patterns, names = options.cases.split(), options.builds.split()
    unknown = [name for name in names if name not in BUILDS]
    if unknown:
        parser.error(f"no such build: {' '.join(unknown)}; there are {', '.join(BUILDS)}")
    if options.runs < 1 or options.patience < 1 or not patterns or not names:
        parser.error("there is nothing to run")
    if speedups is None and not all(BUILDS[name].pure_python for name in names):
        parser.error("the C modules are not built (or WSTHREADS_PURE_PYTHON is set): choose python builds")
    try:
        fuzzer = install()
    except EnvironmentMissing as error:
        print(error, file=sys.stderr)
        return 2
    lines, passed = [], True
    for number in range(1, options.runs + 1):
        for name in names:
            build = BUILDS[name]
            wanted = patterns_for(build, patterns)
            title = name + (f", run {number} of {options.runs}" if options.runs > 1 else "")
            if not wanted:
                lines.append(f"{title}: nothing to run, these cases need compression")
                passed = False
                continue
            began = time.monotonic()
            summary = run(build, wanted, fuzzer, BUILD / name / str(number), patience=options.patience)
            left_out = "" if len(wanted) == len(patterns) else "; 12.* and 13.* left out, they are about compression"
            lines.append(f"{title}: {summary.line()}; {time.monotonic() - began:.0f} s{left_out}")
            print("\n".join([lines[-1], *summary.lines()]), flush=True)
            passed = passed and summary.passes
    if options.patience > 1:
        lines.append(f"with {options.patience:g} times the time limits of the suite")
    print("\nSummary", *lines, f"reports and logs: {os.path.relpath(BUILD)}", sep="\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
