"""A run: starts servers and a Redis, plays the rounds of the program, disturbs Redis meanwhile, and ends."""

from __future__ import annotations

import itertools
import json
import re
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from random import Random
from time import monotonic, sleep
from typing import Any

from tests.programs import ServerProgram
from tests.redis_proxy import Proxy
from tests.redis_server import RedisServer
from tests.stress.history import SCALE, Violations
from tests.stress.model.checker import Checker
from tests.stress.model.client import Action, Client
from tests.stress.model.program import BACKSTAGE, PLAIN_THREADS, PROCESSES, ROOMS, Command, Guest, Program, Round

#: The longest wait for anything, on a busy machine. If it takes longer, it counts as lost.
PATIENCE_S = 20.0 * SCALE
POLL_S = 0.02

PATH = "/model"
THREADS = 100

_TROUBLE = re.compile(r"\b(ERROR|CRITICAL)\b|Traceback|Exception ignored|Fatal Python")


@dataclass(frozen=True)
class Kind:
    """The handler, and how it is served. `shared`: by several processes, over Redis."""

    handler: str = "python"
    shared: bool = False
    gunicorn: bool = False
    faults: bool = False
    mutation: str = ""


class World:
    """Servers that run from here to the end of the block."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._stack = ExitStack()
        self.redis: RedisServer | None = None
        self.proxies: list[Proxy] = []
        self.servers: list[ServerProgram] = []
        self.processes = PROCESSES if kind.shared else 1
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise

    def _start(self) -> None:
        environment = {"MODEL_HANDLER": self.kind.handler, "MODEL_MUTATION": self.kind.mutation}
        if self.kind.mutation:
            environment["WSTHREADS_PURE_PYTHON"] = "1"
        if not self.kind.faults:
            environment["MODEL_STRICT"] = "1"
        urls = [""]
        if self.kind.shared:
            self.redis = self._stack.enter_context(RedisServer())
            # One process is on the same machine as Redis; the others have a network between.
            self.proxies = [self._stack.enter_context(Proxy(self.redis.port)) for _ in range(PROCESSES - 1)]
            urls = [self.redis.url, *(proxy.url for proxy in self.proxies)]
        if self.kind.gunicorn:
            urls = urls[:1]
        command = [sys.executable, "-m", "tests.stress.model.server"]
        if self.kind.gunicorn:
            command = [
                sys.executable, "-m", "gunicorn", "-k", "wsthreads.gunicorn.ThreadWorker", "-w", str(self.processes),
                "--threads", str(THREADS), "-b", "127.0.0.1:0", "--preload", "tests.stress.model.server:create_app()",
            ]  # fmt: skip
        for url in urls:
            env = {**environment, "MODEL_REDIS": url}
            stdin = {} if self.kind.gunicorn else {"stdin": -1}  # the server ends with this process
            self.servers.append(self._stack.enter_context(ServerProgram(command, env=env, **stdin)))
        for server in self.servers:
            server.port = int(server.wait_for(r"Listening at: http://[\d.]+:(\d+)")[1])

    def address(self, process: int) -> tuple[str, int]:
        return "127.0.0.1", self.servers[process % len(self.servers)].port

    def states(self, query: str = "") -> dict[int, dict[str, Any]]:
        """The state of each process, by pid. Under gunicorn, any worker answers: ask until all have."""
        found: dict[int, dict[str, Any]] = {}
        deadline = monotonic() + PATIENCE_S
        while len(found) < self.processes:
            assert monotonic() < deadline, f"only {len(found)} of {self.processes} processes have answered"
            for server in self.servers:
                with urllib.request.urlopen(f"{server.url}/control?{query}", timeout=PATIENCE_S) as answer:
                    state = json.loads(answer.read())
                found[state["pid"]] = state
        return found

    def log(self) -> str:
        return "\n".join(server.log for server in self.servers)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class Run:
    """One run of a program in a world. Earlier runs may have used the same world."""

    def __init__(
        self,
        world: World,
        program: Program,
        say: Callable[[str], None] = lambda line: None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._world, self._program, self._say, self._patience_s = world, program, say, patience_s
        self._violations = Violations()
        self._clients: dict[str, Client] = {}
        self._checker = Checker(program, self._clients, self._violations, shared=world.kind.shared)
        self._controls: dict[str, Client] = {}  # a session in each process that is in no room, by process
        self._gaps = self._count_gaps()

    def execute(self) -> list[str]:
        """Play all rounds. Returns the violations, each in a few lines."""
        began = monotonic()
        try:
            self._take_control()
            for round in self._program.rounds:
                self._play(round)
                if self._violations.count:
                    break
                self._say(f"{monotonic() - began:6.1f} s  round {round.number} ({round.fault or 'no fault'})")
            if not self._violations.count:
                self._part()
        finally:
            for client in (*self._clients.values(), *self._controls.values()):
                client.leave()
            for client in (*self._clients.values(), *self._controls.values()):
                client.join(1.0)
        return self._violations.first

    @property
    def counts(self) -> Counter[str]:
        return self._checker.done

    # Rounds.

    def _play(self, round: Round) -> None:
        arrived = [self._connect(guest) for guest in round.arrivals]
        self._clients.update((client.name, client) for client in arrived)
        for name, actions in round.actions.items():
            self._clients[name].do(actions)
        with self._trouble(round.fault):
            self._await_clients([*arrived, *self._present()])
        if not self._violations.count:
            self._come_to_rest(round)

    def _connect(self, guest: Guest) -> Client:
        client = Client(
            guest, self._world.address(guest.process), PATH, self._program, self._violations, self._patience_s
        )
        client.do([Action("await", guest.opening)])
        client.start()
        return client

    def _present(self) -> list[Client]:
        return [client for client in self._clients.values() if not client.is_over]

    def _await_clients(self, clients: list[Client]) -> None:
        deadline = monotonic() + self._patience_s
        for client in clients:
            while not client.await_done(0.2):
                if self._violations.count:
                    return
                if monotonic() > deadline:
                    self._violations.add("progress", f"{client.name} did not finish within {self._patience_s:g} s")
                    return

    def _come_to_rest(self, round: Round) -> None:
        """Wait until all steps are done and all messages received. Then check them against the model."""
        if not self._poll(lambda: (self._listen(), not self._checker.undone() and not self._checker.unclosed())[1]):
            undone, unclosed = self._checker.undone(), self._checker.unclosed()
            what = [step for command in undone[:2] for step in command.steps[-1:]]
            self._violations.add("messages in", f"not handled: {what}; without an on_close: {unclosed}")
            return
        for control in self._controls.values():
            for _ in range(PLAIN_THREADS):  # what sessions that are over have left to these threads is done before
                self._tell(control, "nap", round.number, via="plain", rooms=ROOMS[:2])
        self._meet(round)
        for control in self._controls.values():
            self._tell(control, "broadcast", round.number, 50)
        self._await_clients(list(self._controls.values()))
        self._poll(lambda: (self._listen(), not self._checker.missing())[1])
        self._checker.settle(round.number, monotonic())
        self._checker.check()
        if self._checker.excused and self._count_gaps() == self._gaps:
            self._violations.add("lost", f"Redis lost {self._checker.excused} broadcasts, but broker_gaps is unchanged")
        if not self._violations.count:
            self._check_members(round)

    def _meet(self, round: Round) -> None:
        """Wait until all processes receive each other's broadcasts, and Redis knows the rooms of all."""
        controls = list(self._controls.values())
        steps = [self._tell(control, "broadcast", round.number, 50, rooms=[BACKSTAGE]).steps[0] for control in controls]
        if not self._poll(lambda: all(step in control.stream for step in steps for control in controls)):
            self._violations.add("progress", f"processes do not receive each other's broadcasts: {steps}")

    def _check_members(self, round: Round) -> None:
        wrong: list[str] = []

        def look() -> bool:
            wrong.clear()
            for control in self._controls.values():
                command = self._tell(control, "members", round.number)
                self._await_clients([control])
                self._listen()
                for step in command.steps[:-1]:
                    low, high = self._checker.members(step.argument)
                    if step.result is None or not low <= step.result <= high:
                        wrong.append(f"{step.argument} has {low} to {high} members, {control.name} says {step.result}")
            return not wrong

        if not self._poll(look):
            self._violations.add("members", "; ".join(wrong))

    def _poll(self, is_done: Callable[[], bool]) -> bool:
        deadline = monotonic() + self._patience_s
        while not is_done():
            if self._violations.count or monotonic() > deadline:
                return False
            sleep(POLL_S)
        return True

    # Control sessions.

    def _take_control(self) -> None:
        """Open a session in each process. Under gunicorn, connect until each worker has one."""
        numbers = itertools.count()
        deadline = monotonic() + self._patience_s
        while len(self._controls) < self._world.processes and not self._violations.count:
            assert monotonic() < deadline, f"{len(self._controls)} of {self._world.processes} processes have a session"
            name = f"control {self._program.seed}.{next(numbers)}"
            ack = ("send", name, 20)
            opening = self._program.command(name, "open", -1, ("join", BACKSTAGE), ack)
            last = self._program.command(name, "last", -1, ack)
            guest = Guest(name, len(self._controls), 0, opening, last, False)
            client = self._connect(guest)
            self._await_clients([client])
            if client.process in self._controls:
                client.do([Action("close")])
                self._await_clients([client])
            else:
                self._controls[client.process] = client
        self._listen(lambda process, entries: None)  # drop the entries of earlier runs

    def _tell(
        self, control: Client, op: str, number: int, size: int = 0, via: str = "own", rooms: Sequence[str] = ROOMS
    ) -> Command:
        """Let a control session do a step with each room, and wait for it."""
        steps = [(op, room, size) for room in rooms]
        command = self._program.command(control.name, via, number, *steps, ("send", control.name, 20), is_mark=True)
        control.do([Action("do", command), Action("await", command)])
        return command

    def _listen(self, take: Callable[[str, list[Any]], None] | None = None) -> None:
        """Read the new entries of the servers' journals."""
        take = take or self._checker.take
        for control in self._controls.values():
            control.do([Action("journal")])
        deadline = monotonic() + self._patience_s
        for process, control in self._controls.items():
            while not self._violations.count:
                while not control.journal:
                    if control.is_over or self._violations.count:
                        return
                    if monotonic() > deadline:
                        self._violations.add("progress", f"process {process} did not send its journal")
                    sleep(0.001)
                entries = control.journal.popleft()
                if not entries:
                    break
                take(process, entries)

    # Redis.

    def _count_gaps(self) -> int:
        if not self._world.kind.faults:
            return 0
        return sum(state["metrics"].get("broker_gaps", 0) for state in self._world.states().values())

    @contextmanager
    def _trouble(self, fault: str | None) -> Iterator[None]:
        """A context in which a fault happens to Redis."""
        if fault is None or self._world.redis is None:
            yield
            return
        thread = threading.Thread(target=self._happen, args=(fault, Random(f"{self._program.seed} {fault}")))
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def _happen(self, fault: str, dice: Random) -> None:
        redis, proxy = self._world.redis, dice.choice(self._world.proxies)
        sleep(dice.uniform(0, 0.2))
        if fault == "slow":
            proxy.pause_s = dice.choice((0.002, 0.01))
            sleep(1.0)
            proxy.pause_s = 0.0
        elif fault == "frozen":
            redis.freeze()
            sleep(dice.choice((0.3, 1.5)))
            redis.thaw()
        elif fault in ("cut", "unanswered"):
            proxy.cut() if fault == "cut" else proxy.swallow("answers")
            sleep(dice.choice((0.1, 0.6)))
            proxy.heal()
        else:
            redis.client.flushall()

    # The end.

    def _part(self) -> None:
        """All sessions end, and nothing may be left of them."""
        everybody = [*self._present(), *self._controls.values()]
        for client in self._present():
            client.do([Action("close")])
        self._await_clients(self._present())
        self._poll(lambda: (self._listen(), not self._checker.unclosed())[1])
        self._checker.settle(self._program.rounds[-1].number, monotonic())
        for control in self._controls.values():
            control.do([Action("close")])
        self._await_clients(everybody)
        left: dict[int, Any] = {}

        def look() -> bool:
            left.clear()
            for pid, state in self._world.states("memory&quiet").items():
                found = {key: state[key] for key in ("sessions", "taken", "rooms", "broken", "in memory") if state[key]}
                if found:
                    left[pid] = found
            return not left

        if not self._poll(look):
            self._violations.add("left over", f"all have gone, and still there is {left}")
        if trouble := [line for line in self._world.log().splitlines() if _TROUBLE.search(line)]:
            self._violations.add("log", f"{len(trouble)} lines such as {trouble[0]}")
