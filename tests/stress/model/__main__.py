"""``python -m tests.stress.model``: a program for each of several seeds.

The exit status is 1 if a guarantee was violated.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from random import SystemRandom
from time import monotonic

from tests.stress.model.mutations import MUTATIONS
from tests.stress.model.program import Program
from tests.stress.model.run import PATIENCE_S, Kind, Run, World


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress.model", description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=SystemRandom().randrange(10**6), help="the first seed; default: random"
    )
    parser.add_argument("--seeds", type=int, default=20, help="number of programs; 0: no limit")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no program after this time")
    parser.add_argument("--handler", choices=("python", "javascript"), default="python")
    parser.add_argument("--redis", action="store_true", help="three processes with one Redis")
    parser.add_argument("--gunicorn", action="store_true", help="the processes are workers of one gunicorn")
    parser.add_argument("--faults", action="store_true", help="inject faults of Redis")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--length", type=int, default=10, help="most commands of a client in a round")
    parser.add_argument("--mutation", choices=MUTATIONS, default="", help="break the server by this mutation")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE_S, metavar="S", help="messages that take longer count as lost"
    )
    parser.add_argument("--quiet", action="store_true", help="print no lines about rounds")
    options = parser.parse_args(arguments)
    kind = Kind(options.handler, options.redis, options.gunicorn, options.faults, options.mutation)
    began, counts = monotonic(), Counter[str]()
    say = (lambda line: None) if options.quiet else lambda line: print(line, flush=True)
    with World(kind) as world:
        for seed in (
            itertools.count(options.seed) if not options.seeds else range(options.seed, options.seed + options.seeds)
        ):
            if monotonic() - began > options.seconds:
                break
            say(f"seed {seed}")
            program = Program(
                seed, rounds=options.rounds, clients=options.clients, length=options.length, faults=options.faults
            )
            run = Run(world, program, say, options.patience)
            wrong = run.execute()
            counts.update(run.counts)
            if wrong:
                print(f"seed {seed}: {len(wrong)} violations by {kind}")
                for text in wrong[:5]:
                    print(f"VIOLATION {text}")
                print(world.log()[-3000:])
                return 1
            counts["programs"] += 1
    print(", ".join(f"{count:,} {what}" for what, count in sorted(counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
