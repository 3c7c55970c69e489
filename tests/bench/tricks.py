"""The effect of each scheduling trick: ``python -m tests.bench.tricks [--only NAME] [--rounds N] [--seconds S]``.

For each trick, servers with and without it take turns, each in a fresh process, under the load that the trick is for.
The gain says how many times more messages there are with the trick, or how many times less latency or memory. Above 1,
the trick helps.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from threading import Thread
from typing import Any

from tests.bench.load import Load
from tests.bench.probes import settled
from tests.bench.processes import RunFailed, last_line
from tests.bench.report import figure, table
from tests.bench.results import Outcome, Sample, ScenarioResults, Spread
from tests.bench.runner import Part, estimate_s, run_part
from tests.bench.runs import Context, Measure, Scenario, sample_of, under_load
from tests.bench.servers import MAX_SESSIONS, Server
from tests.bench.tools import HERE, ROOT, ToolError, Tools, compile_c, environment

__all__ = ["TRICKS", "Trick", "main"]

BUILD = ROOT / "build" / "bench"
NATIVE = ROOT / "wsthreads" / "_native"

WITH, WITHOUT = "with", "without"

#: How many groups of connections come and go before memory is measured.
CROWDS = 5


@dataclass(frozen=True)
class Case:
    """A load that shows the effect of a trick, and the figure that is measured."""

    name: str
    unit: str
    measure: Measure
    better: str = "higher"
    suffix: str = ".py"  # of the handler
    run_s: float = 0.0


@dataclass(frozen=True)
class Trick:
    """One trick, and how to turn it off."""

    name: str
    title: str
    cases: tuple[Case, ...]
    without: str = "none"  # see `trick_server`
    options: tuple[str, ...] = ()  # of ``wsthreads run``
    define: str = ""  # of the C module


class OwnTools(Tools):
    """Only what these measurements need: wsload, and the Python that runs this."""

    @property
    def python(self) -> Path:
        return Path(sys.executable)


# Loads that need more than one program.


def _beside_floods(context: Context, server: Server) -> Sample:
    """p99 of 200 members of a room, beside 20 clients that flood it."""
    load = context.load(mode="fan", connections=200, senders=4, rate_per_s=50.0, payload_bytes=1024, drain_s=10)
    with context.start(server, "crowd") as process:
        floods = [sys.executable, "-m", "tests.bench.badpeers", str(process.port), server.path("crowd"), "0", "0", "20"]
        with subprocess.Popen(floods, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
            try:
                assert crowd.stdout is not None
                crowd.stdout.readline()  # all floods have begun
                report = context.put(load, process, server, "crowd")
            finally:
                crowd.communicate("")  # it ends with its input
    return sample_of(report["p99_us"], report)


def _beside_newcomers(context: Context, server: Server) -> Sample:
    """p99 of an echo at a fixed rate, while other clients connect, echo one message and leave, again and again."""
    load = context.load(connections=50, rate_per_s=1000.0, drain_s=10)
    churn = Load(mode="churn", connections=50, seconds=load.warm_s + load.seconds + 2.0, warm_s=0)
    with context.start(server, "echo") as process:
        newcomers = Thread(target=partial(_put_quietly, context, churn, process, server), daemon=True)
        newcomers.start()
        report = context.put(load, process, server, "echo")
        newcomers.join()
    return sample_of(report["p99_us"], report)


def _put_quietly(context: Context, load: Load, *where: Any) -> None:
    try:
        context.put(load, *where, "echo")
    except RunFailed as failure:
        print(f"newcomers: {failure}", file=sys.stderr)


def _memory_after_crowds(context: Context, server: Server) -> Sample:
    """MiB of the server after crowds of 1,000 connections have come and gone."""
    load = Load(mode="idle", connections=1000, seconds=0.1, warm_s=0)
    with context.start(server, "echo") as process:
        for _ in range(1 if context.quick else CROWDS):
            report = context.put(load, process, server, "echo")
            usage = settled(process)
    return Sample(usage.rss_mib, {**sample_of(usage.rss_mib, report).details, "rss_mib": usage.rss_mib})


def _echo(connections: int, suffix: str = ".py") -> Case:
    language = " in JavaScript" if suffix == ".js" else ""
    measure = under_load("recv_per_s", "echo", connections=connections)
    return Case(f"echo{language}, {connections:,} connections", "messages/s", measure, suffix=suffix)


def _room(members: int, suffix: str = ".py") -> Case:
    language = " in JavaScript" if suffix == ".js" else ""
    measure = under_load("recv_per_s", "room", mode="fan", connections=members, senders=4)
    name = f"room of {members:,}{language}, 4 senders"
    return Case(name, "deliveries/s", measure, suffix=suffix, run_s=members / 500)


FLOODS = Case("room of 200 beside 20 floods", "p99 µs", _beside_floods, better="lower", run_s=8)
NEWCOMERS = Case("echo beside clients that connect", "p99 µs", _beside_newcomers, better="lower", run_s=8)

_ALL = (
    Trick("affinity", "session threads on one core", (_echo(100), _room(100), _room(1000)),
          options=("--no-cpu-affinity",)),
    Trick("batch", "session threads outside rooms in SCHED_BATCH", (_echo(10), _echo(100), _echo(1000)),
          without="batch"),
    Trick("rooms", "session threads in rooms not in SCHED_BATCH", (_room(100), _room(1000)), without="rooms"),
    Trick("gate", "one busy thread at a time asks for the GIL", (FLOODS, NEWCOMERS), define="MAX_BUSY=30000"),
    Trick("turnstile", "16 threads at a time ask for the GIL", (_echo(100), _echo(1000), _room(1000)),
          define="MAX_WAITING=30000"),
    Trick("pace", "connections are accepted no faster than their requests are read", (NEWCOMERS,), without="pace"),
    Trick("arenas", "two arenas of malloc", (
        Case("1,000 idle connections", "KiB per connection",
             under_load("rss_kb_per_conn", "echo", mode="idle", connections=1000), better="lower"),
        Case(f"after {CROWDS} crowds of 1,000 connections", "MiB", _memory_after_crowds, better="lower", run_s=20),
        _echo(100),
    ), without="arenas"),
    Trick("inbox", "messages for a script are read without the GIL",
          (_echo(100, ".js"), _echo(1000, ".js"), _room(100, ".js")), without="inbox"),
)  # fmt: skip

TRICKS = {trick.name: trick for trick in _ALL}


# Building and running.


def build_speedups(folder: Path, define: str) -> Path:
    """The C module with a number set, compiled as Python's own modules are. Raises `ToolError`."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"_speedups{sysconfig.get_config_var('EXT_SUFFIX')}"
    sources = [file for file in sorted(NATIVE.glob("_*.c")) if file.stem not in ("_bridge", "_alarm")]  # as in setup.py
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    flags = shlex.split(sysconfig.get_config_var("CFLAGS") or "-O2")
    command = [*compiler, *flags, "-fPIC", "-shared", f"-I{sysconfig.get_path('include')}"]
    command += [f"-D{define}"] if define else []
    done = subprocess.run([*command, *sources, "-o", target], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"cannot build the C module: {last_line(done.stderr)}")
    return target


@cache
def _speedups(define: str) -> Path:
    return build_speedups(BUILD / "tricks" / (define or "all"), define)


def servers_of(trick: Trick, case: Case) -> list[Server]:
    """A server with the trick, and one without it. Raises `ToolError`."""
    return [
        _server(WITH, case, _speedups(""), "none", ()),
        _server(WITHOUT, case, _speedups(trick.define), trick.without, trick.options),
    ]


def _server(name: str, case: Case, speedups: Path, without: str, options: Sequence[str]) -> Server:
    def command(tools: Tools, endpoint: str, port: int) -> list[str]:
        handler = HERE / "handlers" / f"{endpoint}{case.suffix}"
        run = [sys.executable, "-m", "tests.bench.trick_server", without, str(speedups), str(handler)]
        run += ["--path", f"/{endpoint}", "--port", str(port), "--max-sessions", str(MAX_SESSIONS)]
        return [*run, "--log-level", "warning", *options]

    env: dict[str, Any] = {"MALLOC_ARENA_MAX": None, "GLIBC_TUNABLES": None}
    return Server(name=name, label=name, command=command, env=env)


def _scenario(trick: Trick, case: Case, number: int) -> Scenario:
    return Scenario(
        name=f"{trick.name}-{number}",
        title=f"{trick.title}: {case.name}",
        unit=case.unit,
        measure=case.measure,
        better=case.better,
        servers=(WITH, WITHOUT),
        subjects=(WITH,),
        run_s=case.run_s,
    )


def gain(results: ScenarioResults) -> Spread | None:
    """How many times better the figure is with the trick, in each round. None if nothing was measured."""
    pair = (WITH, WITHOUT) if results.better == "higher" else (WITHOUT, WITH)
    return results.ratio(*pair)


def _row(results: ScenarioResults) -> str:
    spread = gain(results)
    figures = [results.spread(name) for name in (WITH, WITHOUT)]
    with_, without = (figure(spread.median) if spread else "–" for spread in figures)
    of_it = f"{spread.median:.2f} ({spread.low:.2f}..{spread.high:.2f})" if spread else "failed"
    return f"{results.name:14}{results.title:92}{with_:>10}{without:>10}  {results.unit:20}{of_it}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Status: 0; 1 if a run failed or nothing could be built; 2 for a mistake; 130 after Ctrl-C."""
    options = _parse(arguments)
    tools = OwnTools(BUILD)
    tools.build.mkdir(parents=True, exist_ok=True)
    complaint = compile_c(HERE / "wsload.c", tools.wsload)
    if complaint:
        return _complain(f"cannot build the load generator: {complaint}")
    context = Context(tools, options.seconds, options.quick)
    try:
        parts = [
            Part(_scenario(trick, case, number), servers_of(trick, case), options.rounds)
            for trick in map(TRICKS.__getitem__, options.only or TRICKS)
            for number, case in enumerate(trick.cases, 1)
        ]
    except ToolError as lack:
        return _complain(str(lack))
    _tell(f"load average {os.getloadavg()[0]:.2f}; about {estimate_s(parts, context.seconds) / 60:.0f} minutes")
    done: list[ScenarioResults] = []
    status = 0
    try:
        for part in parts:
            done.append(run_part(part, context, partial(_tell_outcome, part)))
            print(f"\n{table(done[-1])}", flush=True)
    except KeyboardInterrupt:
        status = 130
    print(f"\nGain: above 1, the trick helps. Median (lowest..highest), rounds: {options.rounds}")
    print("\n".join(map(_row, done)))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    document = {"environment": environment(tools), "tricks": {results.name: results.as_json() for results in done}}
    options.json.write_text(json.dumps(document, indent=1) + "\n")
    failed = any(results.failures(name) for results in done for name in results.servers)
    return status or int(failed)


def _tell_outcome(part: Part, number: int, server: Server, outcome: Outcome) -> None:
    what = figure(outcome.value) if isinstance(outcome, Sample) else f"failed: {outcome.reason}"
    _tell(f"{part.scenario.name} {number + 1}/{part.rounds} {server.name}: {what} {part.scenario.unit}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.tricks",
        description="Measure what each scheduling trick brings.",
        epilog="tricks: " + "; ".join(f"{trick.name}: {trick.title}" for trick in _ALL),
    )
    add = parser.add_argument
    add("--only", action="append", metavar="NAME", choices=TRICKS, help="a trick; may be repeated (default: all)")
    add("--rounds", type=int, metavar="N", default=5, help="with and without, in turns (5)")
    add("--seconds", type=float, metavar="S", default=3.0, help="of each load (3)")
    add("--quick", action="store_true", help="one round of a second: does it work?")
    add("--json", type=Path, default=BUILD / "tricks.json", help="where the results go (build/bench/tricks.json)")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be more than 0")
    return options


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _complain(complaint: str) -> int:
    _tell(f"tricks: {complaint}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
