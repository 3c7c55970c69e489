"""Runs the load generator, wsload.c, and checks its report."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import RunFailed, last_line

__all__ = ["Load", "check", "load_meanwhile", "parse", "run_load"]

#: Extra time for opening connections, and until a stalled server is given up.
EXTRA_S = 60.0

#: If less than this share of the messages arrives, the run fails.
MIN_DELIVERED = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What clients do in a run. See the comment at the top of wsload.c."""

    mode: str = "echo"
    connections: int = 100
    payload_bytes: int = 32
    senders: int = 1
    rate_per_s: float = 0.0  # of all messages; 0 for a closed loop
    count: int = 0  # end early after this many messages or connections; 0: do not
    seconds: float = 3.0
    warm_s: float = 1.0
    drain_s: float = 0.0  # with a rate: the longest wait at the end for missing messages
    at_once: int = 64  # handshakes under way at once

    def arguments(self) -> list[str]:
        """The arguments for wsload."""
        arguments = {
            "-m": self.mode,
            "-n": self.connections,
            "-s": self.payload_bytes,
            "-k": self.senders,
            "-r": self.rate_per_s,
            "-c": self.count,
            "-d": self.seconds,
            "-W": self.warm_s,
            "-D": self.drain_s,
            "-o": self.at_once,
        }
        return [text for option, value in arguments.items() for text in (option, str(value))]


def run_load(
    wsload: Path, load: Load, *, port: int, path: str, pid: int, dialect: Sequence[str] = ()
) -> dict[str, float]:
    """Run a load on a server, and return wsload's report. Blocks during the load.

    `dialect` is wsload's option for what is spoken on top of WebSocket.

    Raises `RunFailed` unless all connections were opened and stayed open, and all messages arrived.
    """
    command = _command(wsload, load, port, path, pid, dialect)
    timeout_s = load.seconds + load.warm_s + load.drain_s + EXTRA_S
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise RunFailed(f"the load generator did not finish within {error.timeout:g} s") from None
    report = parse(done.stdout, done.stderr)
    check(load, report)
    return report


@contextmanager
def load_meanwhile(
    wsload: Path, load: Load, *, port: int, path: str, pid: int, dialect: Sequence[str] = ()
) -> Iterator[dict[str, float]]:
    """Run a load while the context is entered, from when wsload begins to measure. Fills the report at the end.

    Raises `RunFailed` as `run_load` does.
    """
    report: dict[str, float] = {}
    command = _command(wsload, load, port, path, pid, dialect)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        try:
            first = running.stderr.readline()
            yield report
        finally:
            running.terminate()
            try:
                output, complaints = running.communicate(timeout=load.drain_s + EXTRA_S)
            except subprocess.TimeoutExpired:
                running.kill()
                raise RunFailed("the load generator did not end") from None
    report |= parse(output, first + complaints)
    check(load, report)


def _command(wsload: Path, load: Load, port: int, path: str, pid: int, dialect: Sequence[str]) -> list[str]:
    return [str(wsload), "-p", str(port), "-u", path, "-P", str(pid), *load.arguments(), *dialect]


def parse(output: str, complaints: str = "") -> dict[str, float]:
    """The figures of wsload's line of JSON. Raises `RunFailed` with wsload's error if there is none."""
    try:
        report = json.loads(output)
    except ValueError:
        raise RunFailed(last_line(complaints) or "the load generator reported nothing") from None
    return {name: float(value) for name, value in report.items() if isinstance(value, (int, float))}


def check(load: Load, report: dict[str, float]) -> None:
    """Raise `RunFailed` for a report with meaningless figures."""
    if report["ok"] < load.connections:
        raise RunFailed(f"only {report['ok']:.0f} of {load.connections} connections could be opened")
    if report["errors"]:
        raise RunFailed(f"{report['errors']:.0f} of {load.connections} connections were lost")
    if load.mode == "idle":
        return
    if not report["received"]:
        raise RunFailed("not one message came back")
    if load.mode == "churn" and not report["cycles"]:
        raise RunFailed("not one connection was closed")
    recipients = load.connections if load.mode == "fan" else 1
    due = (load.rate_per_s * report["seconds"] if load.rate_per_s else report["sent"]) * recipients
    under_way = (load.senders if load.mode == "fan" else load.connections) * recipients
    if report["received"] < due * MIN_DELIVERED and due - report["received"] > 2 * under_way:
        raise RunFailed(f"only {report['received'] / due:.0%} of the messages that were due arrived")
