"""What the reports of the fuzzing client amount to: which cases pass, which do not and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["EXPLAINED", "GROUPS", "Case", "Summary", "read_summary"]

GROUPS = {
    1: "framing",
    2: "pings and pongs",
    3: "reserved bits",
    4: "opcodes",
    5: "fragmentation",
    6: "UTF-8",
    7: "closing",
    9: "limits and performance",
    10: "miscellaneous",
    12: "compression: payloads",
    13: "compression: parameters",
}

#: Cases that may be NON-STRICT, and why. None is; whoever adds one explains it in RESULTS.rst, too.
EXPLAINED: Mapping[str, str] = {}


@dataclass(frozen=True)
class Case:
    """One report, as far as it matters."""

    id: str
    behavior: str
    closing: str
    result: str = ""
    closing_result: str = ""
    duration_ms: int = 0

    @property
    def group(self) -> int:
        return int(self.id.split(".")[0])

    def passes(self, explained: Mapping[str, str]) -> bool:
        """OK in what the server did and in how the connection ended; INFORMATIONAL where the suite does not judge."""
        fine = {"OK", "INFORMATIONAL"}
        behaves = self.behavior in fine or (self.behavior == "NON-STRICT" and self.id in explained)
        return behaves and self.closing in fine


class Summary:
    """The cases that were to run, and the reports that there are."""

    def __init__(self, wanted: Iterable[str], cases: Iterable[Case], explained: Mapping[str, str] = EXPLAINED) -> None:
        self.cases = sorted(cases, key=lambda case: _numbers(case.id))
        self.missing = sorted(set(wanted) - {case.id for case in self.cases}, key=_numbers)
        self.failed = [case for case in self.cases if not case.passes(explained)]

    @property
    def passes(self) -> bool:
        """Whether something has run, all of it, and every case has passed."""
        return bool(self.cases) and not self.missing and not self.failed

    def line(self) -> str:
        """Such as "301 of 301 cases pass: 298 OK, 3 INFORMATIONAL; closing: 301 OK"."""
        total = len(self.cases) + len(self.missing)
        text = f"{len(self.cases) - len(self.failed)} of {total} cases pass: "
        text += f"{_counts(case.behavior for case in self.cases)}; closing: {_counts(c.closing for c in self.cases)}"
        return text + (f"; {len(self.missing)} did not run" if self.missing else "")

    def lines(self) -> list[str]:
        """A line for each group, and one for each case that has failed or is missing."""
        lines = []
        for group in sorted({case.group for case in self.cases}):
            cases = [case for case in self.cases if case.group == group]
            behavior, closing = _counts(c.behavior for c in cases), _counts(c.closing for c in cases)
            lines.append(f"{group:4} {GROUPS.get(group, ''):24} {behavior}; closing: {closing}")
        for case in self.failed:
            lines.append(f"failed: {case.id} is {case.behavior}, its closing {case.closing}")
            lines += [f"    {text}" for text in (case.result, case.closing_result) if text]
        if self.missing:
            lines.append(f"did not run: {' '.join(self.missing)}")
        return lines


def read_summary(folder: Path, explained: Mapping[str, str] = EXPLAINED) -> Summary:
    """From what `fuzzer.py` has written. A report that is cut off counts as none."""
    listed = folder / "cases.json"
    wanted = json.loads(listed.read_text()) if listed.exists() else []
    cases = []
    for path in folder.glob("*_case_*.json"):
        try:
            report = json.loads(path.read_text(errors="replace"))
        except ValueError:
            continue
        cases.append(Case(
            report["id"],
            report["behavior"],
            report["behaviorClose"],
            _short(report["result"]),
            _short(f"{report['resultClose']} {report.get('wasNotCleanReason') or ''}"),
            report["duration"],
        ))
    return Summary(wanted, cases, explained)


def _numbers(case_id: str) -> tuple[int, ...]:
    return tuple(map(int, case_id.split(".")))


def _counts(verdicts: Iterable[str]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in Counter(verdicts).most_common()) or "none"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:300] + "…"
