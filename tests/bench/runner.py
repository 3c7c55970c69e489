"""Runs scenarios: the servers take turns in each round, each time in a new process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from tests.bench.processes import RunFailed
from tests.bench.results import Failure, Outcome, ScenarioResults, Target
from tests.bench.runs import Context, Scenario
from tests.bench.scenarios import SCENARIOS
from tests.bench.servers import BEFORE, SERVERS, Server, find_server, in_checkout
from tests.bench.tools import Tools

__all__ = ["Part", "SelectionError", "choose", "estimate_s", "run_part"]

#: What a server must reach of what it reached before a change.
KEEPS = 0.97

#: Approximate time to start and stop a server and to open connections.
OVERHEAD_S = 0.8


class SelectionError(Exception):
    """An unknown scenario or server, or no other checkout. The message says what there is."""


@dataclass
class Part:
    """A scenario, and the servers that it is run on."""

    scenario: Scenario
    servers: list[Server]
    rounds: int


def choose(scenarios: Sequence[str], servers: Sequence[str], rounds: int, before: Path | None = None) -> list[Part]:
    """What to run. Names may be shell patterns. Without names, all scenarios run except the long ones.

    A server with its full name runs even if the scenario does not list it. With `before`, another checkout of
    wsthreads, each server of ours also runs from there. Raises `SelectionError`.
    """
    if before is not None and not any(before.glob("wsthreads/**/_speedups.*.so")):
        raise SelectionError(
            f"{before} has no wsthreads with its C modules; try python setup.py build_ext --inplace there"
        )
    chosen = [s for s in SCENARIOS.values() if not s.only_by_name] if not scenarios else _named_scenarios(scenarios)
    for name in servers:
        if not any(character in name for character in "*?["):
            try:
                find_server(name)
            except KeyError as error:
                raise SelectionError(error.args[0]) from None
    parts = []
    for scenario in chosen:
        names = list(scenario.servers)
        if servers:
            names = [name for name in names if any(fnmatchcase(name, wanted) for wanted in servers)]
            named = [name for name in servers if name.removesuffix("@1") in SERVERS]
            names += [name for name in named if name not in names]
        if names:
            of_it = min(rounds, scenario.max_rounds or rounds)
            found = [find_server(name) for name in names]
            if before is not None:
                found += [in_checkout(server, before) for server in found if server.is_ours]
            parts.append(Part(scenario, found, of_it))
    if not parts:
        raise SelectionError(f"no scenario has a server like {', '.join(servers)}; see --list")
    return parts


def _named_scenarios(names: Sequence[str]) -> list[Scenario]:
    chosen: dict[str, Scenario] = {}
    for name in names:
        found = {known: scenario for known, scenario in SCENARIOS.items() if fnmatchcase(known, name)}
        if not found:
            raise SelectionError(f"there is no scenario {name!r}; there are: {', '.join(SCENARIOS)}")
        chosen |= found
    return list(chosen.values())


def estimate_s(parts: Iterable[Part], seconds: float) -> float:
    """The approximate total time."""
    return sum(
        part.rounds * len(part.servers) * (seconds + min(1.0, seconds / 2) + part.scenario.run_s + OVERHEAD_S)
        for part in parts
    )


def run_part(part: Part, context: Context, tell: Callable[[int, Server, Outcome], None]) -> ScenarioResults:
    """Run a scenario. After each run, `tell` is called with the round's number, the server and the outcome."""
    results = new_results(part, context.tools)
    servers = [server for server in part.servers if server.name not in results.skipped]
    logs = context.tools.build / "logs"
    for number in range(part.rounds):
        context.shared.clear()
        first = number % len(servers) if servers else 0  # each round begins with another server
        for server in (*servers[first:], *servers[:first]):
            context.log_file = logs / f"{part.scenario.name}-{server.name}-{number + 1}.log"
            outcome: Outcome
            try:
                outcome = part.scenario.measure(context, server)
            except RunFailed as failure:
                outcome = Failure(str(failure))
            results.add(number, server.name, outcome)
            tell(number, server, outcome)
    return results


def new_results(part: Part, tools: Tools) -> ScenarioResults:
    """Results without runs, but with the skipped servers and the targets."""
    scenario = part.scenario
    results = ScenarioResults(scenario.name, scenario.title, scenario.unit, scenario.better)
    results.skipped = {server.name: why for server in part.servers if (why := server.why_not(tools))}
    names = dict.fromkeys(server.name for server in part.servers)
    results.subjects = tuple(s for s in scenario.subjects if s in names and s not in results.skipped)
    targets = scenario.targets
    if "speedups" in tools.missing:
        targets = tuple(replace(target, subject=target.subject.removesuffix("-pure")) for target in targets)
    sign, bound = (">=", KEEPS) if scenario.better == "higher" else ("<=", 1 / KEEPS)
    targets += tuple(Target(name, sign, bound, name + BEFORE) for name in names)
    results.targets = _without_doubles(t for t in targets if t.subject in names and (t.of is None or t.of in names))
    return results


def _without_doubles(targets: Iterable[Target]) -> tuple[Target, ...]:
    return tuple(dict.fromkeys(targets))
