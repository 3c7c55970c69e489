"""A run: a load on a new server, and the resulting figure."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.load import Load, load_meanwhile, run_load
from tests.bench.processes import ServerProcess
from tests.bench.results import Sample, Target
from tests.bench.servers import Server
from tests.bench.tools import Tools

__all__ = ["Context", "Measure", "Scenario", "sample_of", "under_load"]

#: wsload's name of a detail -> its name in results.
DETAILS = {
    "p50_us": "p50_us",
    "p99_us": "p99_us",
    "server_cpu": "server_cpu",
    "client_cpu": "client_cpu",
    "other_cpu": "other_cpu",
    "rss_kb_per_conn": "kib_per_connection",
    "rss_mb": "rss_mib",
}

#: With fewer connections, most of a process's growth has other causes. The connections must also stay open.
FEWEST_FOR_MEMORY = 1000

#: Shorter runs have no exact CPU time: the kernel counts it in hundredths of a second.
SHORTEST_FOR_CPU_S = 0.5


@dataclass
class Context:
    """The parameters of runs: the tools and the duration."""

    tools: Tools
    seconds: float
    quick: bool
    log_file: Path = Path()
    shared: dict[str, float] = field(default_factory=dict)  # results that runs of one round share

    def load(self, **settings: Any) -> Load:
        """A load of the usual duration; `settings` override it."""
        return Load(**{"seconds": self.seconds, "warm_s": min(1.0, self.seconds / 2), **settings})

    def start(self, server: Server, endpoint: str, *, pings: bool = False) -> ServerProcess:
        """A new server, as a context manager."""
        return server.start(self.tools, endpoint, self.log_file, pings=pings)

    def put(self, load: Load, process: ServerProcess, server: Server, endpoint: str) -> dict[str, float]:
        """Run a load on a running server. Returns wsload's report. Raises `RunFailed`."""
        try:
            return run_load(
                self.tools.wsload,
                load,
                port=process.port,
                path=server.path(endpoint),
                pid=process.pid,
                dialect=server.dialect,
            )
        finally:
            process.check_alive()  # the reason of its end is more useful than "connections were lost"

    def meanwhile(
        self, load: Load, process: ServerProcess, server: Server, endpoint: str
    ) -> AbstractContextManager[dict[str, float]]:
        """A load on a running server while the context is entered. wsload's report is complete after its end."""
        return load_meanwhile(
            self.tools.wsload,
            load,
            port=process.port,
            path=server.path(endpoint),
            pid=process.pid,
            dialect=server.dialect,
        )

    def run(self, load: Load, server: Server, endpoint: str, *, pings: bool = False) -> dict[str, float]:
        """Run a load on a new server."""
        with self.start(server, endpoint, pings=pings) as process:
            return self.put(load, process, server, endpoint)


Measure = Callable[[Context, Server], Sample]  # raises RunFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One figure, measured on several servers. The others are compared with the `subjects`."""

    name: str
    title: str
    unit: str
    measure: Measure
    servers: tuple[str, ...]
    subjects: tuple[str, ...] = ("wsthreads", "wsthreads-pure")
    targets: tuple[Target, ...] = ()
    better: str = "higher"
    run_s: float = 0.0  # approximate time of a run in addition to that of a load
    max_rounds: int | None = None
    only_by_name: bool = False  # for long scenarios


def sample_of(figure: float, report: dict[str, float]) -> Sample:
    """A figure with the meaningful details of the report."""
    details = {ours: report[theirs] for theirs, ours in DETAILS.items()}
    meaningless: set[str] = set()
    if report["received"]:
        details["server_us"] = 1e6 * report["server_cpu"] * report["seconds"] / report["received"]
    else:
        meaningless |= {"p50_us", "p99_us"}
    if report["cycles"] or report["conns"] < FEWEST_FOR_MEMORY:
        meaningless.add("kib_per_connection")
    if report["seconds"] < SHORTEST_FOR_CPU_S:
        meaningless |= {"server_cpu", "server_us", "client_cpu", "other_cpu"}
    return Sample(figure, {name: value for name, value in details.items() if name not in meaningless})


def under_load(figure: str, endpoint: str, **settings: Any) -> Measure:
    """Measures one of the figures that wsload reports."""

    def measure(context: Context, server: Server) -> Sample:
        report = context.run(context.load(**settings), server, endpoint)
        return sample_of(report[figure], report)

    return measure
