"""``python -m tests.stress.cluster``: rooms over Redis on several machines, with many faults.

Four workers on two machines (network namespaces, so root is needed), Redis on a third, clients on this one. The faults
follow each other: workers are killed and restarted; Redis, and a machine with its workers, are cut off for 5 and for 30
s; Redis is killed and restarts empty. Then the messages of all clients are compared with the guarantees in
docs/how-to/redis.rst. Permitted losses are counted. Any other loss, a duplicate, two orders in one room, or a count
that is wrong 10 s after a kill is a violation. Then the exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from random import Random, SystemRandom
from time import monotonic, sleep

from websockets.exceptions import WebSocketException

from tests.programs import ROOT, connect
from tests.redis_server import find_redis_server
from tests.stress.machines import Machine, Network

PORT = 7000
REDIS_PORT = 6379
WORKERS_PER_MACHINE = 2

#: A count must be correct this long after the last change. A busy machine needs longer.
COUNT_S = 10.0
PATIENCE_S = 30.0

#: Between what a client says.
PAUSE_S = (0.01, 0.2)


class Visit:
    """One connection of a client: its sent and received messages, in order."""

    def __init__(self, name: str, room: str, worker: str) -> None:
        self.name, self.room, self.worker = name, room, worker
        self.seen: list[str] = []
        self.taken: set[str] = set()
        self.refused = 0
        self.counts: list[int] = []
        self.lost = False


class Client(threading.Thread):
    """Stays in one room, sends messages, and reconnects to any worker after a loss."""

    def __init__(self, number: int, room: str, seed: int, workers: list[str], quiet: threading.Event) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.number, self.room, self.workers, self.quiet = number, room, workers, quiet
        self.dice = Random(f"{seed} {number}")
        self.visits: list[Visit] = []
        self.joined = threading.Event()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            worker = self.dice.choice(self.workers)
            visit = Visit(f"{self.number}.{len(self.visits)}", self.room, worker)
            with suppress(OSError, WebSocketException, TimeoutError, EOFError):
                self._visit(visit)
            if visit.seen or visit.taken:
                visit.lost = not self.over.is_set()
            self.joined.clear()
            self.over.wait(0.3)

    def _visit(self, visit: Visit) -> None:
        with connect(f"ws://{visit.worker}/ws/stress?room={visit.room}", open_timeout=3, close_timeout=1,
                     ping_interval=1, ping_timeout=60) as connection:  # fmt: skip
            if connection.recv(timeout=PATIENCE_S) != "joined":
                raise EOFError
            self.visits.append(visit)
            self.joined.set()
            count, speak_at = 0, monotonic()
            while not self.over.is_set():
                if monotonic() >= speak_at and not self.quiet.is_set():
                    connection.send(f"{visit.name}:{count}")
                    count += 1
                    speak_at = monotonic() + self.dice.uniform(*PAUSE_S)
                elif self.quiet.is_set() and monotonic() >= speak_at:
                    connection.send("members")
                    speak_at = monotonic() + 0.5
                with suppress(TimeoutError):
                    self._note(visit, connection.recv(timeout=0.05))

    def _note(self, visit: Visit, message: str | bytes) -> None:
        kind, _, what = str(message).partition(" ")
        if kind == "said":
            visit.seen.append(what)
        elif kind == "taken":
            visit.taken.add(what)
        elif kind == "refused":
            visit.refused += 1
        else:
            visit.counts.append(int(what))


class Cluster:
    """The machines and their processes."""

    def __init__(self, stack: ExitStack) -> None:
        network = stack.enter_context(Network())
        self.redis_machine, *self.machines = [network.machine() for _ in range(3)]
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wsthreads-cluster-")))
        self.log = stack.enter_context((self.folder / "log").open("w"))
        self._processes: dict[str, subprocess.Popen[str]] = {}
        stack.callback(self.end)
        self.start_redis()
        self.workers: dict[str, Machine] = {
            f"{machine.address}:{PORT + number}": machine
            for machine in self.machines
            for number in range(WORKERS_PER_MACHINE)
        }
        for worker in self.workers:
            self.start_worker(worker)

    def start_redis(self) -> None:
        options = ["--port", str(REDIS_PORT), "--bind", self.redis_machine.address, "--protected-mode", "no"]
        self._start("redis", self.redis_machine, find_redis_server(), *options, "--save", "")

    def start_worker(self, worker: str) -> None:
        machine = self.workers[worker]
        handler = str(Path(__file__).with_name("cluster_handler.py"))
        self._start(
            worker, machine, sys.executable, "-m", "wsthreads", "run", handler, "--path", "/ws/stress",
            "--host", machine.address, "--port", worker.rpartition(":")[2], "--log-level", "warning",
            "--redis", f"redis://{self.redis_machine.address}:{REDIS_PORT}", "--max-outbox-bytes", str(2**30),
            "--ping-timeout-s", "60", "--send-timeout-s", "60",
        )  # fmt: skip

    def _start(self, name: str, machine: Machine, *command: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._processes[name] = machine.start(
            *command, stdout=self.log, stderr=self.log, cwd=self.folder, env=environment
        )

    def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait(10)

    def end(self) -> None:
        for name in list(self._processes):
            self.kill(name)


def trouble(cluster: Cluster, dice: Random, scale: float, *, keep_redis: bool) -> None:
    """Run all faults one after the other. The last one kills a worker."""
    began = monotonic()

    def say(what: str) -> None:
        print(f"{monotonic() - began:6.1f} s  {what}", flush=True)

    sleep(5 * scale)
    for _ in range(2):
        worker = dice.choice(list(cluster.workers))
        say(f"worker {worker} is killed, and started again")
        cluster.kill(worker)
        sleep(2)
        cluster.start_worker(worker)
        sleep(5 * scale)
    for machine, name in [(cluster.redis_machine, "Redis"), (dice.choice(cluster.machines), "a machine")]:
        for seconds in (5 * scale, 30 * scale):
            say(f"{name} is cut off for {seconds:g} s")
            machine.unplug()
            sleep(seconds)
            machine.plug_in()
            sleep(5 * scale)
    if not keep_redis:
        say("Redis is killed, and comes back empty")
        cluster.kill("redis")
        sleep(2)
        cluster.start_redis()
        sleep(5 * scale)
    say("a worker is killed")
    cluster.kill(dice.choice(list(cluster.workers)))


def check(visits: Iterable[Visit], redis_died: bool) -> tuple[Counter[str], list[str]]:
    """Count events, and find violations."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    by_room: dict[str, list[Visit]] = defaultdict(list)
    for visit in visits:
        by_room[visit.room].append(visit)
        counts["visits"] += 1
        counts["visits that were lost"] += visit.lost
        counts["broadcasts refused"] += visit.refused
        counts["broadcasts taken"] += len(visit.taken)
        counts["deliveries"] += len(visit.seen)
    for room, of_room in by_room.items():
        for visit in of_room:
            doubled = [what for what, times in Counter(visit.seen).items() if times > 1]
            if doubled:
                wrong.append(f"{visit.name} saw {len(doubled)} messages twice, such as {doubled[0]}")
        graph: dict[str, set[str]] = defaultdict(set)
        for visit in of_room:
            for before, after in zip(visit.seen, visit.seen[1:], strict=False):
                graph[after].add(before)
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            wrong.append(f"{room} has two orders: {error.args[1][:5]}")
        for visit in of_room:
            counts["deliveries lost while connected"] += len(_missed(visit, of_room))
        seen = {what for visit in of_room for what in visit.seen}
        for visit in of_room:
            what = "taken and never heard, of killed workers" if visit.lost else "taken and never heard"
            counts[what] += len(visit.taken - seen)
    for what in ("deliveries lost while connected", "taken and never heard"):
        if counts[what] and not redis_died:
            wrong.append(f"{what}: {counts[what]}, and Redis lost nothing")
    return counts, wrong


def _missed(visit: Visit, of_room: list[Visit]) -> set[str]:
    """Messages that the visit missed: others received them between two messages that the visit received."""
    had, missed = set(visit.seen), set[str]()
    for other in of_room:
        common = [place for place, what in enumerate(other.seen) if what in had]
        if common:
            missed.update(what for what in other.seen[common[0] : common[-1]] if what not in had)
    return missed


def check_counts(clients: list[Client]) -> list[str]:
    """After all changes: check that all members see the same, correct count."""
    people = Counter(client.room for client in clients)
    for client in clients:
        client.visits[-1].counts.clear()
    sleep(PATIENCE_S / 10)
    said = {(client.room, count) for client in clients for count in client.visits[-1].counts[-1:]}
    return [f"{room} has {people[room]} members, and somebody is told {count}" for room, count in said
            if count != people[room]]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress.cluster", description=__doc__)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--rooms", type=int, default=3)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--scale", type=float, default=1.0, help="of all breaks and pauses")
    parser.add_argument("--keep-redis", action="store_true", help="never kill Redis: then nothing may be lost")
    options = parser.parse_args()
    print(f"cluster: {options}", flush=True)
    with ExitStack() as stack:
        cluster = Cluster(stack)
        quiet = threading.Event()
        clients = [
            Client(number, f"room-{number % options.rooms}", options.seed, list(cluster.workers), quiet)
            for number in range(options.clients)
        ]
        for client in clients:
            client.start()
        wrong = _await_all(clients)
        if not wrong:
            trouble(cluster, Random(options.seed), options.scale, keep_redis=options.keep_redis)
            quiet.set()
            sleep(COUNT_S)
            wrong = _await_all(clients)
        if not wrong:
            sleep(PATIENCE_S / 3)  # let late messages arrive
            wrong = check_counts(clients)
        for client in clients:
            client.over.set()
        for client in clients:
            client.join(PATIENCE_S)
        lines = (cluster.folder / "log").read_text().splitlines()
        wrong += [f"in the log: {line}" for line in lines if "Traceback" in line or " ERROR " in line]
    visits = [visit for client in clients for visit in client.visits]
    counts, found = check(visits, redis_died=not options.keep_redis)
    for what, count in counts.items():
        print(f"{what:<45} {count:,}")
    for what in (*wrong, *found):
        print(f"VIOLATION {what}")
    if wrong or found:
        print("\n".join(lines[-40:]))
    return 1 if wrong or found else 0


def _await_all(clients: list[Client]) -> list[str]:
    until = monotonic() + PATIENCE_S
    return [
        f"client {client.number} is not connected after {PATIENCE_S:g} s"
        for client in clients
        if not client.joined.wait(max(0.0, until - monotonic()))
    ]


if __name__ == "__main__":
    sys.exit(main())
