"""Samples and failures, and their medians, spreads and paired ratios.

A failed run has no value. It does not count as zero, and no median or ratio includes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

__all__ = ["Failure", "Outcome", "Sample", "ScenarioResults", "Spread", "Target", "Verdict"]


@dataclass(frozen=True, slots=True)
class Sample:
    """The result of one run: the scenario's figure, and details."""

    value: float
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed run, with the reason."""

    reason: str


Outcome = Sample | Failure


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and extremes of at least one figure."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread | None:
        """None if there are no figures."""
        figures = list(figures)
        return cls(median(figures), min(figures), max(figures)) if figures else None


@dataclass(frozen=True, slots=True)
class Target:
    """What `subject` must reach: a figure, or a multiple of the figure of server `of`."""

    subject: str
    sign: str  # one of SIGNS
    bound: float
    of: str | None = None

    SIGNS = (">=", "<=", ">", "<")

    def __post_init__(self) -> None:
        if self.sign not in self.SIGNS:
            raise ValueError(f"a target's sign is one of {', '.join(self.SIGNS)}, not {self.sign!r}")

    def __str__(self) -> str:
        if self.of and self.bound == 1 and self.sign in "<>":
            return f"{self.subject} ahead of {self.of}"
        sign = {">=": "≥", "<=": "≤"}.get(self.sign, self.sign)
        return f"{self.subject} {sign} {self.bound:g}" + (f" × {self.of}" if self.of else "")

    def is_met_by(self, figure: float) -> bool:
        """Whether a figure or a ratio meets the target."""
        return {
            ">=": figure >= self.bound,
            "<=": figure <= self.bound,
            ">": figure > self.bound,
            "<": figure < self.bound,
        }[self.sign]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for a target; `spread` is None if nothing was measured."""

    target: Target
    spread: Spread | None

    @property
    def is_met(self) -> bool | None:
        """Whether the median meets the target; None if nothing was measured."""
        return None if self.spread is None else self.target.is_met_by(self.spread.median)


class ScenarioResults:
    """The outcomes of one scenario: one per server and round."""

    def __init__(self, name: str, title: str, unit: str, better: str) -> None:
        self.name, self.title, self.unit, self.better = name, title, unit, better
        self.rounds: list[dict[str, Outcome]] = []
        self.skipped: dict[str, str] = {}  # server → why it was not run at all
        self.subjects: tuple[str, ...] = ()
        self.targets: Sequence[Target] = ()

    def add(self, round_number: int, server: str, outcome: Outcome) -> None:
        """Add the outcome of a run. Rounds count from 0."""
        while len(self.rounds) <= round_number:
            self.rounds.append({})
        self.rounds[round_number][server] = outcome

    @property
    def servers(self) -> list[str]:
        """All servers, in order of their first run."""
        return list(dict.fromkeys(server for outcomes in self.rounds for server in outcomes))

    def samples(self, server: str) -> list[Sample]:
        """The successful runs of a server."""
        return [outcome for r in self.rounds if isinstance(outcome := r.get(server), Sample)]

    def failures(self, server: str) -> list[Failure]:
        """The failed runs of a server."""
        return [outcome for r in self.rounds if isinstance(outcome := r.get(server), Failure)]

    def spread(self, server: str) -> Spread | None:
        """The spread of the scenario's figure."""
        return Spread.of(sample.value for sample in self.samples(server))

    def detail(self, server: str, name: str) -> Spread | None:
        """The spread of a detail."""
        return Spread.of(sample.details[name] for sample in self.samples(server) if name in sample.details)

    def ratio(self, server: str, other: str) -> Spread | None:
        """`server` as a multiple of `other`: computed within each round, because the machine's speed drifts."""
        pairs = [(r.get(server), r.get(other)) for r in self.rounds]
        return Spread.of(
            one.value / two.value
            for one, two in pairs
            if isinstance(one, Sample) and isinstance(two, Sample) and two.value
        )

    def verdicts(self) -> list[Verdict]:
        """The result for each target."""
        return [
            Verdict(target, self.ratio(target.subject, target.of) if target.of else self.spread(target.subject))
            for target in self.targets
        ]

    def as_json(self) -> dict[str, Any]:
        """All results, with each single run."""
        return {
            "title": self.title,
            "unit": self.unit,
            "better": self.better,
            "skipped": self.skipped,
            "servers": {
                server: {
                    "value": _spread_as_json(self.spread(server)),
                    "runs": [_outcome_as_json(r[server]) for r in self.rounds if server in r],
                    "ratio_of": {
                        subject: _spread_as_json(self.ratio(subject, server))
                        for subject in self.subjects
                        if subject != server
                    },
                }
                for server in self.servers
            },
            "targets": [
                {"target": str(v.target), "measured": _spread_as_json(v.spread), "met": v.is_met}
                for v in self.verdicts()
            ],
        }


def _spread_as_json(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else {"median": spread.median, "low": spread.low, "high": spread.high}


def _outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Failure):
        return {"failure": outcome.reason}
    return {"value": outcome.value, **outcome.details}
