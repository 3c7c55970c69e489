"""What ticks of rooms cost: ``python -m tests.bench.ticks [python|javascript]``.

One client is in 1,000 rooms with an empty `on_tick`, at 20 Hz. Prints the server's share of one core, how many ticks
came, how many were skipped, and how late they were. Fails at 40 percent of a core.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.wire import RawClient

ROOMS, RATE, SECONDS = 1000, 20, 10
MOST_PERCENT = 40.0

HANDLERS = {
    "python": (
        "game.py",
        f"tick_rate = {RATE}\n"
        "def on_open(session):\n"
        f"    for nth in range({ROOMS}): session.room(f'room-{{nth}}').join()\n"
        "    session.send('in')\n"
        "def on_tick(room, dt): pass\n",
    ),
    "javascript": (
        "game.js",
        f"export const tickRate = {RATE};\n"
        "export function onOpen(session) {\n"
        f"  for (let nth = 0; nth < {ROOMS}; nth++) session.room(`room-${{nth}}`).join();\n"
        '  session.send("in");\n'
        "}\n"
        "export function onTick(room, dt) {}\n",
    ),
}

SERVER = """
import json, sys, time
from wsthreads import create_app
from wsthreads.servers.serving import Server

app = create_app(sys.argv[1], path="/ws/game", redis=False)
(endpoint,) = app.endpoints

def read():
    totals = endpoint.totals()
    ticks = totals.handler_seconds.get("on_tick")
    return (time.process_time(), time.monotonic(), 0 if ticks is None else ticks.count,
            totals.counters.get("ticks_skipped", 0), totals.tick_lags)

with Server(app, port=0) as server:
    print(server.port, flush=True)
    sys.stdin.readline()
    time.sleep(1)
    before = read()
    time.sleep(float(sys.argv[2]))
    after = read()
    cpu, passed, ticks, skipped = (late - early for late, early in zip(after[:4], before[:4]))
    late = [after[4].since(before[4]).quantile(part) for part in (0.5, 0.99)]
    print(json.dumps([100 * cpu / passed, ticks / passed, skipped, *late]), flush=True)
    sys.stdin.read()
"""


def main() -> None:
    print(f"Python {platform.python_version()}, {platform.platform()}")
    for language in sys.argv[1:] or HANDLERS:
        name, source = HANDLERS[language]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_text(source)
            percent, ticks, skipped, median_s, slow_s = measure(file)
        print(
            f"{language}: {ROOMS} rooms at {RATE} Hz take {percent:.1f} % of a core; {ticks:,.0f} ticks a second, "
            f"{skipped:.0f} skipped; {1000 * median_s:.1f} ms late in the median, {1000 * slow_s:.1f} ms at 99 of 100"
        )
        assert percent < MOST_PERCENT, f"more than {MOST_PERCENT:g} %"
        assert ticks > 0.9 * ROOMS * RATE, "too many ticks are missing: is the machine busy?"


def measure(file: Path) -> list[float]:
    command = [sys.executable, "-c", SERVER, str(file), str(SECONDS)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdin
        assert server.stdout
        with RawClient(int(server.stdout.readline()), "/ws/game") as client:
            assert client.receive()[1] == b"in"
            server.stdin.write("\n")
            server.stdin.flush()
            found: list[float] = json.loads(server.stdout.readline())
        return found
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
