"""What a run is: a load on a fresh server, and the figure that is taken from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.load import Load, run_load
from tests.bench.processes import ServerProcess
from tests.bench.results import Sample, Target
from tests.bench.servers import Server
from tests.bench.tools import Tools

__all__ = ["Context", "Measure", "Scenario", "sample_of", "under_load"]

#: Of a report of wsload's, what is shown beside the figure, and its name there.
DETAILS = {
    "p50_us": "p50_us",
    "p99_us": "p99_us",
    "server_cpu": "server_cpu",
    "client_cpu": "client_cpu",
    "other_cpu": "other_cpu",
    "rss_kb_per_conn": "kib_per_connection",
    "rss_mb": "rss_mib",
}

#: With fewer connections, what a process grew by is mostly other things; and they have to stay.
FEWEST_FOR_MEMORY = 1000

#: The kernel counts the time of processes in hundredths of a second.
SHORTEST_FOR_CPU_S = 0.5


@dataclass
class Context:
    """What a run is told: where the tools are, and how long it may take."""

    tools: Tools
    seconds: float
    quick: bool
    log_file: Path = Path()
    shared: dict[str, float] = field(default_factory=dict)  # what one run found for the others of its round

    def load(self, **settings: Any) -> Load:
        """A load of the usual duration, unless `settings` say otherwise."""
        return Load(**{"seconds": self.seconds, "warm_s": min(1.0, self.seconds / 2), **settings})

    def start(self, server: Server, endpoint: str, *, pings: bool = False) -> ServerProcess:
        """A fresh server, to be entered."""
        return server.start(self.tools, endpoint, self.log_file, pings=pings)

    def put(self, load: Load, process: ServerProcess, server: Server, endpoint: str) -> dict[str, float]:
        """wsload's report of a load on a server that runs. Raises `RunFailed`."""
        try:
            return run_load(
                self.tools.wsload,
                load,
                port=process.port,
                path=server.path(endpoint),
                pid=process.pid,
                socket_io=server.socket_io,
            )
        finally:
            process.check_alive()  # why it has ended says more than that its connections were lost

    def run(self, load: Load, server: Server, endpoint: str, *, pings: bool = False) -> dict[str, float]:
        """The same on a fresh server."""
        with self.start(server, endpoint, pings=pings) as process:
            return self.put(load, process, server, endpoint)


Measure = Callable[[Context, Server], Sample]  # raises RunFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One figure, measured on several servers. `subjects` are those that the others are compared with."""

    name: str
    title: str
    unit: str
    measure: Measure
    servers: tuple[str, ...]
    subjects: tuple[str, ...] = ("wsthreads", "wsthreads-pure")
    targets: tuple[Target, ...] = ()
    better: str = "higher"
    run_s: float = 0.0  # what a run takes beside the load itself, roughly
    max_rounds: int | None = None
    only_by_name: bool = False  # since it takes long


def sample_of(figure: float, report: dict[str, float]) -> Sample:
    """A figure, with what else the report says that means something."""
    details = {ours: report[theirs] for theirs, ours in DETAILS.items()}
    meaningless: set[str] = set()
    if not report["received"]:
        meaningless |= {"p50_us", "p99_us"}
    if report["cycles"] or report["conns"] < FEWEST_FOR_MEMORY:
        meaningless.add("kib_per_connection")
    if report["seconds"] < SHORTEST_FOR_CPU_S:
        meaningless |= {"server_cpu", "client_cpu", "other_cpu"}
    return Sample(figure, {name: value for name, value in details.items() if name not in meaningless})


def under_load(figure: str, endpoint: str, **settings: Any) -> Measure:
    """Measures one of the figures that wsload reports."""

    def measure(context: Context, server: Server) -> Sample:
        report = context.run(context.load(**settings), server, endpoint)
        return sample_of(report[figure], report)

    return measure
