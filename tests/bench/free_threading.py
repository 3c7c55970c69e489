"""What a handler that computes gains without a GIL: ``python3.13t -m tests.bench.free_threading``.

The same interpreter runs with ``PYTHON_GIL=1`` and with ``PYTHON_GIL=0``, in turns: the server with 20 connections, and
two threads that only compute. The figure is the server's gain, as a share of that of the two threads. ``make bench``
measures the same in its row "free-threading", each by itself with ``--only``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier, Event, Thread
from time import perf_counter, sleep

from tests.bench.load import Load, run_load
from tests.bench.tools import HERE, compile_c

TARGET = 0.9
CONNECTIONS = 20

#: What a message costs.
WORK_S = 300e-6


def work(steps: int) -> int:
    """Compute, in Python.

    The constants are small: CPython 3.13t may count references to larger ones, see docs/explanation/free-threading.rst.
    """
    result = 0
    for step in range(steps):
        result = (result * 31 + step) % 251
    return result


def steps_for(seconds: float) -> int:
    """How many steps take so long here, at best."""
    best = float("inf")
    for _ in range(20):
        began = perf_counter()
        work(2000)
        best = min(best, perf_counter() - began)
    return round(2000 * seconds / best)


def compute(steps: int, seconds: float, threads: int = 2) -> float:
    """How often a second so many threads do the work together."""
    over, begun, counts = Event(), Barrier(threads + 1), [0] * threads

    def run(nth: int) -> None:
        begun.wait()
        count = 0
        while not over.is_set():
            work(steps)
            count += 1
        counts[nth] = count

    running = [Thread(target=run, args=(nth,)) for nth in range(threads)]
    for thread in running:
        thread.start()
    begun.wait()
    began = perf_counter()
    sleep(seconds)
    over.set()
    for thread in running:
        thread.join()
    return sum(counts) / (perf_counter() - began)


def serve(steps: int) -> None:
    """Echo after the work, until the standard input ends."""
    from wsthreads import Session, WebSocketApp
    from wsthreads.servers.serving import Server

    class Computing:
        def on_message(self, session: Session, message: str | bytes) -> None:
            work(steps)
            session.send(message)

    app = WebSocketApp()
    app.add_handler("/ws/work", Computing)
    server = Server(app, port=0)
    server.start()
    print(server.port, flush=True)
    sys.stdin.read()
    server.stop()


def measure(what: str, steps: int, seconds: float, gil: str, wsload: Path) -> float:
    """The rate of ``compute`` or ``serve``, in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.free_threading", what, str(steps), str(seconds)]
    environment = {**os.environ, "PYTHON_GIL": gil}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        if what == "compute":
            return float(first)
        load = Load(connections=CONNECTIONS, seconds=seconds)
        rate = run_load(wsload, load, port=int(first), path="/ws/work", pid=process.pid)["recv_per_s"]
        process.communicate("", timeout=60)
        return rate


def main() -> int:
    """Print the rates and the ratios. Returns 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["compute", "serve"], help="one round: rates with and without a GIL")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    if not hasattr(sys, "_is_gil_enabled") or subprocess.run([sys.executable, "-X", "gil=0", "-c", ""]).returncode:
        parser.error("this Python has no free-threaded build")
    steps = steps_for(WORK_S)
    shares = []
    with TemporaryDirectory() as folder:
        wsload = Path(folder) / "wsload"
        if failure := compile_c(HERE / "wsload.c", wsload):
            parser.error(failure)
        if options.only:
            print(json.dumps([measure(options.only, steps, options.seconds, gil, wsload) for gil in "10"]))
            return 0
        for _ in range(options.rounds):
            gains = {}
            for what in ("compute", "serve"):
                one, free = (measure(what, steps, options.seconds, gil, wsload) for gil in "10")
                gains[what] = free / one
                print(
                    f"{what:8} {one:8,.0f} a second with the GIL, {free:8,.0f} without: {gains[what]:.2f} x", flush=True
                )
            shares.append(gains["serve"] / gains["compute"])
    median = statistics.median(shares)
    print(f"the server gains {median:.2f} ({min(shares):.2f} to {max(shares):.2f}) of what two threads do")
    return int(median < TARGET)


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "compute":
        print(compute(int(sys.argv[2]), float(sys.argv[3])), flush=True)
    elif len(sys.argv) == 4 and sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        sys.exit(main())
