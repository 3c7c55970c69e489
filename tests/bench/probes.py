"""Measurements that need more than one load on one server."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from statistics import median
from time import monotonic, sleep
from typing import Any

from tests.bench.load import Load
from tests.bench.processes import RunFailed, ServerProcess, Usage, last_line
from tests.bench.results import Sample
from tests.bench.runs import Context, Measure, sample_of
from tests.bench.servers import Server, find_server
from tests.bench.tools import ROOT
from tests.ports import free_port

__all__ = [
    "bad_peers",
    "gain_without_gil",
    "idle_cpu",
    "idle_through_pings",
    "import_time",
    "latency_over",
    "opening",
    "p99_at_half_rate",
    "publish_rate",
    "settled",
    "soak",
    "start_time",
    "watched",
]

#: Starts and imports are so short that one run takes the median of several.
REPEATS = 5

#: The default of wsthreads; peers get the same interval.
PING_INTERVAL_S = 25.0

#: A soak has this many equal parts. Memory may not grow after the first one.
PARTS = 10
PART_TIMEOUT_S = 240.0
SETTLE_TIMEOUT_S = 15.0

#: Long enough for clients that never read to be closed and to reconnect.
BAD_PEERS_S = 20.0

#: The longest that the connections of `opening` may take.
OPENING_TIMEOUT_S = 120.0

#: How many pairs of loads, without and with a viewer. The median difference counts.
PAIRS = 5

IMPORT = """
import sys, time
started = time.perf_counter()
import {0}
print(time.perf_counter() - started, "dukpy" in sys.modules)
"""


def opening(*, connections: int, at_once: int) -> Measure:
    """Measures the seconds until so many connections are open, which stay open. `at_once` handshakes are under way.

    The latencies in the details are those of 20 others, which send 500 echoes per second meanwhile.
    """

    def measure(context: Context, server: Server) -> Sample:
        load = Load(mode="idle", connections=connections, at_once=at_once, seconds=0.1, warm_s=0)
        if context.quick:
            load = replace(load, connections=connections // 10)
        others = Load(connections=20, rate_per_s=500, seconds=OPENING_TIMEOUT_S, warm_s=0)
        with (
            context.start(server, "echo") as process,
            context.meanwhile(others, process, server, "echo") as meanwhile,
        ):
            report = context.put(load, process, server, "echo")
        sample = sample_of(report["connect_s"], report)
        latencies = {name: meanwhile[name] for name in ("p50_us", "p99_us")}
        return Sample(sample.value, {**sample.details, **latencies})

    return measure


def idle_through_pings(context: Context, server: Server) -> Sample:
    """CPU, in percent of a core, for many idle connections. Raises `RunFailed` if one is lost."""
    load = Load(mode="idle", connections=5000, warm_s=2, seconds=2 * PING_INTERVAL_S + 10)
    if context.quick:
        load = replace(load, connections=1000, seconds=3)  # only connects: too short for a ping
    report = context.run(load, server, "echo", pings=True)
    return sample_of(report["server_cpu"] * 100, report)


def p99_at_half_rate(context: Context, server: Server) -> Sample:
    """The 99th percentile of the latency in a room of 1,000, for all servers at half of wsthreads's highest rate."""
    room: dict[str, Any] = {"mode": "fan", "connections": 1000, "senders": 4}
    if "rate_per_s" not in context.shared:
        report = context.run(context.load(**room), find_server("wsthreads"), "room")
        context.shared["rate_per_s"] = report["recv_per_s"] / room["connections"] / 2
    rate_per_s = context.shared["rate_per_s"]
    report = context.run(context.load(**room, rate_per_s=rate_per_s), server, "room")
    sample = sample_of(report["p99_us"], report)
    return Sample(sample.value, {**sample.details, "messages_per_s": rate_per_s})


def bad_peers(*, never: int, slow: int, flood: int) -> Measure:
    """Measures the 99th percentile of the latency of 500 members of a room, with misbehaving members relative to
    without.

    The room gets 50 messages of 1 KiB per second, so that unread messages pile up within the run. Raises `RunFailed` if
    a member loses a message or is closed.
    """

    def measure(context: Context, server: Server) -> Sample:
        load = context.load(mode="fan", connections=500, senders=5, rate_per_s=50.0, payload_bytes=1024, drain_s=10)
        load = replace(load, seconds=3.0 if context.quick else BAD_PEERS_S)
        alone = context.run(load, server, "crowd")
        with context.start(server, "crowd") as process:
            command = [context.tools.python, "-m", "tests.bench.badpeers", process.port, server.path("crowd")]
            with subprocess.Popen(
                [*map(str, command), str(never), str(slow), str(flood)],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            ) as crowd:  # fmt: skip
                try:
                    assert crowd.stdout is not None
                    crowd.stdout.readline()  # all are connected
                    among = context.put(load, process, server, "crowd")
                finally:
                    said, _ = crowd.communicate("")  # ends its input
        for report in (alone, among):
            lost = report["sent"] * load.connections - report["received"]
            if lost:
                raise RunFailed(f"{lost:.0f} of {report['sent'] * load.connections:.0f} messages were lost")
        sample = sample_of(among["p99_us"] / alone["p99_us"], among)
        return Sample(sample.value, {**sample.details, "p99_us_alone": alone["p99_us"], **json.loads(said)})

    return measure


def watched(**settings: Any) -> Measure:
    """Measures the extra CPU of a server, in percent of a core, while its dashboard is open.

    Runs the same load on the same server several times, with a viewer every second time. Raises `RunFailed` if the
    viewer gets less than one sample every two seconds.
    """

    def measure(context: Context, server: Server) -> Sample:
        load = context.load(mode="echo", **settings)
        seen: list[float] = []
        pairs: list[tuple[float, float]] = []
        with context.start(server, "echo") as process:
            command = [context.tools.python, "-m", "tests.bench.viewer", process.port]
            for _ in range(1 if context.quick else PAIRS):
                alone = context.put(load, process, server, "echo")
                settled(process)
                with subprocess.Popen(
                    [*map(str, command)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                ) as viewer:
                    try:
                        assert viewer.stdout is not None
                        viewer.stdout.readline()  # the viewer is connected
                        among = context.put(load, process, server, "echo")
                    finally:
                        said, _ = viewer.communicate("")  # ends its input
                samples = json.loads(said or "{}").get("sample", 0)
                if samples < load.seconds / 2:
                    raise RunFailed(f"the viewer got {samples} samples in {load.seconds:g} s")
                seen.append(samples)
                pairs.append((alone["server_cpu"], among["server_cpu"]))
                settled(process)
        sample = sample_of(100 * median(with_viewer - without for without, with_viewer in pairs), among)
        details = {"server_cpu_alone": median(without for without, _ in pairs), "samples": median(seen)}
        return Sample(sample.value, {**sample.details, **details})

    return measure


def start_time(context: Context, server: Server) -> Sample:
    """Seconds from the start of the process until it accepts connections."""
    times = []
    for _ in range(REPEATS):
        with context.start(server, "room") as process:
            times.append(process.start_s)
    return Sample(median(times))


def import_time(module: str) -> Measure:
    """Measures the import time of a compiled module in seconds, without Python's own start."""

    def measure(context: Context, server: Server) -> Sample:
        times = []
        for _ in range(REPEATS + 1):
            done = subprocess.run(
                [context.tools.python, "-c", IMPORT.format(module)],
                cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            if done.returncode:
                raise RunFailed(last_line(done.stderr))
            seconds, has_dukpy = done.stdout.split()
            if has_dukpy == "True":
                raise RunFailed(f"import {module} imports dukpy, without a script")
            times.append(float(seconds))
        return Sample(median(times[1:]))  # the first may have compiled

    return measure


def latency_over(base: str, **settings: Any) -> Measure:
    """Measures the median latency, in µs, above that of another server in the same round."""

    def measure(context: Context, server: Server) -> Sample:
        load = context.load(**settings)
        if base not in context.shared:
            context.shared[base] = context.run(load, find_server(base), "room")["p50_us"]
        report = context.run(load, server, "room")
        sample = sample_of(report["p50_us"] - context.shared[base], report)
        return Sample(sample.value, {**sample.details, "base_p50_us": context.shared[base]})

    return measure


def idle_cpu(endpoint: str, **settings: Any) -> Measure:
    """Measures the CPU, in percent of a core, of a server and its Redis with idle connections."""

    def measure(context: Context, server: Server) -> Sample:
        report = context.run(context.load(mode="idle", **settings), server, endpoint)
        return sample_of(report["server_cpu"] * 100, report)

    return measure


def publish_rate(context: Context, server: Server) -> Sample:
    """Broadcasts per second that one thread can publish to Redis."""
    port = free_port()
    redis = [context.tools.redis_server, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with ServerProcess(redis, port, context.log_file):
        done = subprocess.run(
            [*server.command(context.tools, "publish", 0), f"redis://127.0.0.1:{port}", str(context.seconds)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **server.env}, capture_output=True, text=True,
            timeout=context.seconds + 60, check=False,
        )  # fmt: skip
    if done.returncode:
        raise RunFailed(last_line(done.stderr))
    return Sample(float(done.stdout))


def gain_without_gil(context: Context, server: Server) -> Sample:
    """The rate of a program without a GIL, as a multiple of its rate with a GIL. See `free_threading`."""
    done = subprocess.run(
        [*server.command(context.tools, "work", 0), "--seconds", str(context.seconds)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **server.env}, capture_output=True, text=True,
        timeout=2 * context.seconds + 120, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RunFailed(last_line(done.stderr))
    with_gil, without_gil = json.loads(done.stdout)
    return Sample(without_gil / with_gil, {"with_gil_per_s": with_gil, "without_gil_per_s": without_gil})


def soak(load: Load, total: int, quick_total: int) -> Measure:
    """Measures the growth of memory, in MiB, over `total` messages or connections, after the first tenth.

    Raises `RunFailed` if threads or file descriptors remain, or if a tenth takes too long. Measures while the server
    has no connections.
    """

    def measure(context: Context, server: Server) -> Sample:
        part = replace(load, count=(quick_total if context.quick else total) // PARTS, warm_s=0, seconds=PART_TIMEOUT_S)
        endpoint = "room" if load.mode == "fan" else "echo"
        with context.start(server, endpoint) as process:
            before = settled(process)
            usages = [_after(context, part, process, server, endpoint) for _ in range(PARTS)]
        first, last = usages[0], usages[-1]
        for name, then, now in (("threads", first.threads, last.threads), ("files", first.files, last.files)):
            if now > then:
                raise RunFailed(f"{name}: {then} after the first tenth, {now} at the end")
        details = {"rss_mib": last.rss_mib, "rss_mib_at_start": before.rss_mib, "rss_mib_at_tenth": first.rss_mib}
        return Sample(last.rss_mib - first.rss_mib, {**details, "threads": last.threads, "files": last.files})

    return measure


def _after(context: Context, part: Load, process: ServerProcess, server: Server, endpoint: str) -> Usage:
    report = context.put(part, process, server, endpoint)
    done = report["cycles" if part.mode == "churn" else "received"]
    if done < part.count:
        raise RunFailed(f"only {done:,.0f} of {part.count:,} done within {part.seconds:g} s")
    return settled(process)


def settled(process: ServerProcess) -> Usage:
    """The server's memory after its connections have ended, once it has not changed for a while."""
    deadline = monotonic() + SETTLE_TIMEOUT_S
    usage, same = process.usage(), 0
    while same < 5 and monotonic() < deadline:
        sleep(0.2)
        now = process.usage()
        same = same + 1 if (now.threads, now.files) == (usage.threads, usage.files) else 0
        usage = now
    return usage
