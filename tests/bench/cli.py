"""The command: ``python -m tests.bench``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tests.bench import chart, growth, report
from tests.bench.page import page
from tests.bench.results import Outcome, ScenarioResults
from tests.bench.runner import Part, SelectionError, choose, estimate_s, run_part
from tests.bench.runs import Context
from tests.bench.scenarios import SCENARIOS
from tests.bench.servers import SERVERS, Server
from tests.bench.tools import HERE, ROOT, ToolError, environment, prepare

__all__ = ["main"]

BUILD = ROOT / "build" / "bench"
PUBLISHED = HERE / "results"

#: Above this, other programs use the machine.
BUSY_LOAD = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 if a run of wsthreads failed or nothing ran; 2 for a wrong option; 130 after Ctrl-C."""
    options = _parse(arguments)
    if options.list:
        print(_catalogue())
        return 0
    if options.chart_from:
        _draw(json.loads(options.chart_from.read_text()), options.chart)
        return 0
    if options.publish and (options.scenario or options.server or options.before):
        return _complain(SelectionError("only a run of all rows and servers is published"), 2)
    try:
        parts = choose(options.scenario, options.server, options.rounds, options.before)
        tools = prepare(BUILD, _tell)
    except SelectionError as mistake:
        return _complain(mistake, 2)
    except ToolError as lack:
        return _complain(lack, 1)
    return _measure(parts, Context(tools, options.seconds, options.quick), options)


def _measure(parts: list[Part], context: Context, options: argparse.Namespace) -> int:
    machine = environment(context.tools)
    print(report.describe_environment(machine), flush=True)
    if os.getloadavg()[0] > BUSY_LOAD:
        _tell("warning: other programs use the machine; the figures will not be reliable")
    _tell(f"about {estimate_s(parts, context.seconds) / 60:.0f} minutes")
    all_results: list[ScenarioResults] = []
    interrupted = False
    try:
        for part in parts:
            all_results.append(_run_and_tell(part, context))
            print(f"\n{report.table(all_results[-1])}", flush=True)
    except KeyboardInterrupt:
        interrupted = True
        _tell("interrupted: these are the results so far")
    print(f"\n{report.summary(all_results)}")
    document = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": machine,
        "options": {"rounds": options.rounds, "seconds": options.seconds, "quick": options.quick},
        "scenarios": {results.name: results.as_json() for results in all_results},
    }
    _write(document, options.json, options.chart)
    if options.publish and not interrupted:
        _write(document, PUBLISHED / "latest.json", PUBLISHED / "chart.svg")
    failed = any(results.failures(name) for results in all_results for name in results.servers if _is_ours(name))
    return 130 if interrupted else 1 if failed or not any(r.rounds for r in all_results) else 0


def _run_and_tell(part: Part, context: Context) -> ScenarioResults:
    def tell(number: int, server: Server, outcome: Outcome) -> None:
        what = report.describe_outcome(outcome, part.scenario.unit)
        _tell(f"{part.scenario.name} {number + 1}/{part.rounds} {server.name}: {what}")

    return run_part(part, context, tell)


def _is_ours(server: str) -> bool:
    return server.startswith("wsthreads")


def _write(document: dict[str, Any], results_file: Path, chart_file: Path) -> None:
    results_file.parent.mkdir(parents=True, exist_ok=True)
    results_file.write_text(json.dumps(document, indent=1) + "\n")
    _tell(f"written: {os.path.relpath(results_file)}")
    _draw(document, chart_file)


def _draw(document: dict[str, Any], chart_file: Path) -> None:
    """Write the chart, and into its folder what the documentation shows beside it."""
    texts = {chart_file: chart.draw(document), chart_file.with_name("table.rst"): page(document)}
    if growth.can_draw(document):
        texts[chart_file.with_name("growth.svg")] = growth.draw(document)
    chart_file.parent.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
        _tell(f"written: {os.path.relpath(file)}")


def _catalogue() -> str:
    lines = ["scenarios:"]
    for scenario in SCENARIOS.values():
        lines.append(f"  {scenario.name:18}{scenario.title}{' (only if named)' if scenario.only_by_name else ''}")
        lines += [f"  {'':20}{target}" for target in scenario.targets]
    lines += ["", "servers (NAME@1: the server on one core):"]
    lines += [f"  {server.name:20}{server.label}" for server in SERVERS.values()]
    return "\n".join(lines)


def _names(text: str) -> list[str]:
    return [name for name in text.replace(",", " ").split() if name]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Compare wsthreads with other servers, in interleaved rounds, with a new server for each run.",
        epilog="With make, set options by the variables in capitals: make bench ONLY=echo-100 "
        "SERVERS='wsthreads bun' ROUNDS=5 SECONDS=3 QUICK=1 PUBLISH=1.",
    )
    env = os.environ
    add = parser.add_argument
    add("--scenario", "-s", action="append", metavar="ONLY", help="names or patterns of scenarios; see --list")
    add("--server", action="append", metavar="SERVERS", help="names or patterns of servers; NAME@1 for one core")
    add("--rounds", type=int, metavar="ROUNDS", default=env.get("ROUNDS") or None, help="rounds of each scenario (3)")
    add("--seconds", type=float, metavar="SECONDS", default=env.get("SECONDS") or None, help="seconds of each run (3)")
    add(
        "--before",
        type=Path,
        metavar="BEFORE",
        default=env.get("BEFORE") or None,
        help="another checkout, with its C modules built: servers of ours also run from there, as NAME-before",
    )
    add("--quick", action="store_true", default=bool(env.get("QUICK")), help="one round of one second, as a check")
    add("--list", action="store_true", help="list scenarios, targets and servers")
    add("--json", type=Path, default=BUILD / "latest.json", help="file for the results (build/bench/latest.json)")
    add(
        "--chart",
        type=Path,
        default=BUILD / "chart.svg",
        help="file for the chart (build/bench/chart.svg); growth.svg and table.rst are beside it",
    )
    add("--publish", action="store_true", default=bool(env.get("PUBLISH")), help="write all to tests/bench/results")
    add("--chart-from", type=Path, metavar="JSON", help="only draw the charts and the table of these results")
    options = parser.parse_args(arguments)
    options.before = options.before and Path(options.before).resolve()
    options.scenario = _names(" ".join(options.scenario or [env.get("ONLY", "")]))
    options.server = _names(" ".join(options.server or [env.get("SERVERS", "")]))
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (1.0 if options.quick else 3.0)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be above 0")
    return options


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _complain(complaint: Exception, status: int) -> int:
    _tell(f"bench: {complaint}")
    return status
