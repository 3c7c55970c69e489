"""``python -m tests.stress``: options, progress, summary. The exit status is 1 if a guarantee was violated."""

from __future__ import annotations

import argparse
import faulthandler
import os
import platform
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

from tests.stress.process import SERVERS
from tests.stress.run import Options, Outcome, Run
from tests.stress.server import HANDLERS

DROPS = (
    "reset", "reset within a frame", "reset within a message", "vanished", "vanished within a frame",
    "handshake given up", "handshake refused",
)  # fmt: skip
CLOSES = ("closed", "closed by handler", "closed by handler, no answer", "kicked", "timed out", "handler died")

LOG_LINES = 60

#: A run that takes this much longer than planned hangs: print the stacks and end it.
LAST_RESORT_S = 600.0


def parse(arguments: list[str] | None = None) -> Options:
    """The options, with defaults from the environment (SECONDS, CLIENTS, ROOMS, SEED, CHAOS)."""

    def number(name: str, kind: type, default: float) -> dict[str, object]:
        return {"type": kind, "default": kind(os.environ.get(name) or default), "metavar": name}

    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--seconds", **number("SECONDS", float, 30))
    parser.add_argument("--clients", **number("CLIENTS", int, 100))
    parser.add_argument("--rooms", **number("ROOMS", int, 10))
    parser.add_argument("--seed", **number("SEED", int, SystemRandom().randrange(10**6)), help="random by default")
    parser.add_argument("--server", choices=SERVERS, default="werkzeug")
    parser.add_argument("--handler", choices=HANDLERS, default="python")
    parser.add_argument(
        "--switch-interval", type=float, metavar="S", help="the server's sys.setswitchinterval; default: varies"
    )
    parser.add_argument(
        "--chaos",
        action=argparse.BooleanOptionalAction,
        default=os.environ.get("CHAOS") != "0",
        help="inject faults (default); CHAOS=0 is --no-chaos",
    )
    options = parser.parse_args(arguments)
    for name in ("seconds", "clients", "rooms"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} must be above 0, not {getattr(options, name)}")
    return Options(
        options.seconds, options.clients, options.rooms, options.seed,
        options.server, options.handler, options.switch_interval, options.chaos,
    )  # fmt: skip


def summary(options: Options, outcome: Outcome) -> str:
    """The table at the end."""
    counts, checks, first = outcome.counts, outcome.checks, outcome.first_violation_s
    rows = [
        ("server, handler", f"{options.server}, {options.handler}; Python {platform.python_version()}"),
        ("clients, rooms", f"{options.clients}, {options.rooms}"),
        ("sessions", f"{counts['sessions']:,}"),
        *((f"  {kind}", f"{counts[kind]:,}") for kind in (*CLOSES, *DROPS)),
        *((f"  {name}", f"{done:,}") for name, done in sorted(counts.items()) if name.startswith("resumed after")),
        ("messages sent", f"{counts['commands']:,}"),
        ("  broadcasts", f"{counts['b'] + counts['x']:,}"),
        ("  joins", f"{counts['j']:,}"),
        ("  leaves", f"{counts['l']:,}"),
        ("  requests", f"{counts['requests to the handler']:,}"),
        ("requests of handlers", f"{counts['requests to clients']:,}"),
        ("messages received", f"{counts['received']:,}"),
        ("  of broadcasts", f"{checks['deliveries']:,}"),
        ("slow spells", f"{counts['slow spells']:,}"),
        ("faults", "" if options.chaos else "none"),
        *((f"  {name}", f"{done:,}") for name, done in sorted(counts.items()) if name.startswith("handler told")),
        *((f"  {name}", f"{done:,}") for name, done in sorted(outcome.faults.items())),
        ("quiet points", f"{outcome.rounds:,}"),
        ("checks of", ""),
        *((f"  {name}", f"{done:,}") for name, done in sorted(checks.items())),
        ("first violation", "none" if first is None else f"after {first:.1f} s"),
        ("wall time", f"{outcome.wall_s:.1f} s"),
        ("seed", str(options.seed)),
        ("violations", f"{outcome.violation_count:,}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows)


def main(arguments: list[str] | None = None) -> int:
    """Run and report; the exit status."""
    options = parse(arguments)
    faulthandler.dump_traceback_later(options.seconds + LAST_RESORT_S, exit=True)
    print(f"stress: {options}", flush=True)
    outcome = Run(options, lambda line: print(line, flush=True)).execute()
    faulthandler.cancel_dump_traceback_later()
    if outcome.violation_count:
        print("\nthe end of the server's log:\n" + "\n".join(outcome.log.splitlines()[-LOG_LINES:]), file=sys.stderr)
        path = Path(tempfile.gettempdir(), f"stress-{options.seed}-{os.getpid()}.log")
        path.write_text(outcome.log)
        print(f"\nthe complete log is in {path}", file=sys.stderr)
    print("\n" + summary(options, outcome))
    for text in outcome.violations:
        print(f"\nVIOLATION {text}")
    return 1 if outcome.violation_count else 0


if __name__ == "__main__":
    sys.exit(main())
