"""The Autobahn cases that take seconds, and what is made of the suite's reports.

The cases need a Python 2.7, and are tests only where there is one: it has been out of support since 2020, and a machine
without it lacks nothing that wsthreads needs. `.ci/run` says which it is; `make conformance` says what to do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.__main__ import ALL_CASES, BUILDS, patterns_for, run
from tests.conformance.environment import BUILD, HERE, EnvironmentMissing, Fuzzer, find_python27, install
from tests.conformance.summary import EXPLAINED, GROUPS, Case, Summary, read_summary
from tests.programs import DEADLINE_S, PROGRAM_S, ROOT
from wsthreads._native import speedups

QUICK = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]

if find_python27():

    @pytest.fixture(scope="module")
    def fuzzer() -> Fuzzer:
        try:
            return install()
        except EnvironmentMissing as error:
            if os.environ.get("WSTHREADS_REQUIRE_CONFORMANCE"):
                raise
            pytest.skip(str(error))

    @pytest.mark.long
    def test_the_quick_cases_pass_as_they_must(fuzzer: Fuzzer) -> None:
        """With compression on, since what is not compressed must be as it is without.

        The suite gives up after 0.5 s in places, and calls NON-STRICT who needs a second to see bad UTF-8: a busy
        machine may need more. (`test_connection` and `test_deflate` wait for the same as long as it takes.)
        """
        build = BUILDS["python-compression" if speedups is None else "c-compression"]
        slow = {f"6.4.{n}": "the machine was busy" for n in range(1, 5)}
        summary = run(build, QUICK, fuzzer, BUILD / "test", patience=20, timeout_s=30 * DEADLINE_S, explained=slow)
        assert summary.passes, "\n".join([summary.line(), *summary.lines()])
        assert len(summary.cases) == 247


# The summary


def report(folder: Path, case_id: str, **fields: Any) -> None:
    """What the fuzzing client leaves of a case."""
    values = {
        "id": case_id, "behavior": "OK", "behaviorClose": "OK", "result": "Passed.", "resultClose": "Closed.",
        "wasNotCleanReason": None, "duration": 3,
    }
    (folder / f"wsthreads_case_{case_id.replace('.', '_')}.json").write_text(json.dumps(values | fields))


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Three reports, all as they should be."""
    (tmp_path / "cases.json").write_text('["1.1.1", "7.13.1", "12.1.1"]')
    report(tmp_path, "1.1.1")
    report(tmp_path, "7.13.1", behavior="INFORMATIONAL", behaviorClose="INFORMATIONAL")
    report(tmp_path, "12.1.1")
    return tmp_path


def test_cases_that_are_ok_or_informational_pass(reports: Path) -> None:
    summary = read_summary(reports)
    assert summary.passes
    assert summary.line() == (
        "3 of 3 cases pass: 2 OK, 1 INFORMATIONAL; closing: 2 OK, 1 INFORMATIONAL"
    )
    assert [line.split()[0] for line in summary.lines()] == ["1", "7", "12"]


@pytest.mark.parametrize("behavior", ["FAILED", "NON-STRICT", "UNIMPLEMENTED", "WRONG CODE", "whatever comes"])
def test_a_case_that_behaves_otherwise_fails(reports: Path, behavior: str) -> None:
    report(reports, "1.1.1", behavior=behavior, result="Actual events differ.\nfrom any expected.")
    summary = read_summary(reports)
    assert not summary.passes
    assert summary.line().startswith("2 of 3 cases pass: ")
    assert summary.lines()[-3:-1] == [
        f"failed: 1.1.1 is {behavior}, its closing OK", "    Actual events differ. from any expected.",
    ]


@pytest.mark.parametrize("closing", ["FAILED", "UNCLEAN", "WRONG CODE", "FAILED BY CLIENT", "NON-STRICT"])
def test_a_case_that_closes_otherwise_fails(reports: Path, closing: str) -> None:
    report(reports, "7.13.1", behaviorClose=closing, wasNotCleanReason="peer dropped TCP")
    summary = read_summary(reports)
    assert not summary.passes
    assert summary.lines()[-1] == "    Closed. peer dropped TCP"


def test_a_case_may_be_non_strict_if_that_is_explained(reports: Path) -> None:
    report(reports, "1.1.1", behavior="NON-STRICT")
    assert read_summary(reports, {"1.1.1": "because"}).passes
    assert not read_summary(reports, {"1.1.2": "because"}).passes
    report(reports, "1.1.1", behavior="NON-STRICT", behaviorClose="UNCLEAN")
    assert not read_summary(reports, {"1.1.1": "because"}).passes
    report(reports, "1.1.1", behavior="FAILED")
    assert not read_summary(reports, {"1.1.1": "because"}).passes


@pytest.mark.parametrize("content", [None, '{"id": "1.1.1", "behav'])
def test_a_case_that_has_left_no_whole_report_fails(reports: Path, content: str | None) -> None:
    path = reports / "wsthreads_case_1_1_1.json"
    path.unlink() if content is None else path.write_text(content)
    summary = read_summary(reports)
    assert not summary.passes
    assert summary.line().endswith("; 1 did not run")
    assert summary.lines()[-1] == "did not run: 1.1.1"


def test_a_run_of_nothing_fails(tmp_path: Path) -> None:
    assert not read_summary(tmp_path).passes
    assert not Summary([], []).passes
    assert Summary(["1.1.1"], [Case("1.1.1", "OK", "OK")]).passes


def test_what_is_explained_is_so_in_the_results_too() -> None:
    results = (HERE / "RESULTS.rst").read_text()
    assert all(case_id in results for case_id in EXPLAINED)
    assert all(f"\n``{name}``" in results for name in BUILDS)


# The command


def test_it_runs_every_group_and_leaves_out_compression_where_it_is_off() -> None:
    assert list(ALL_CASES) == [f"{group}.*" for group in GROUPS]
    for build in BUILDS.values():
        left_out = set(ALL_CASES) - set(patterns_for(build, list(ALL_CASES)))
        assert left_out == (set() if build.compression else {"12.*", "13.*"})


def conformance(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.conformance", *arguments],
        cwd=ROOT, env={**os.environ, **environ}, capture_output=True, encoding="utf-8", timeout=PROGRAM_S,
    )


def test_it_says_what_is_missing(tmp_path: Path) -> None:
    result = conformance("--builds", "python", PYTHON27=sys.executable)
    assert result.returncode == 2
    assert f"PYTHON27={sys.executable} is none" in result.stderr
    empty = {"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path)}
    result = conformance("--builds", "python", **empty)
    assert result.returncode == 2
    assert "there is none on the path" in result.stderr


@pytest.mark.parametrize("arguments", [["--builds", "java"], ["--builds", ""], ["--cases", " "], ["--runs", "0"]])
def test_it_does_not_take_nonsense_for_success(arguments: list[str]) -> None:
    result = conformance(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
