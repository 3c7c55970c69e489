"""The course of a run: a server, clients, rounds that end at quiet points, and the end, when nothing may remain."""

from __future__ import annotations

import faulthandler
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from time import monotonic, sleep
from typing import Any

from tests.stress.chaos import Chaos
from tests.stress.checker import SHOWN, Checker
from tests.stress.crew import Crew
from tests.stress.daredevil import Daredevil, ToughControl
from tests.stress.history import SCALE, Wrong
from tests.stress.leftovers import await_state, check_left_over
from tests.stress.log import EXPECTED
from tests.stress.process import ServerProcess
from tests.stress.roamer import LATE_S, Control, Roamer
from tests.stress.visitor import PATIENCE_S
from tests.stress.world import World

#: Rounds are short, because most checks happen at quiet points. They are not shorter, because all threads need some
#: time to begin.
MAX_ROUND_S = 3.0
MIN_ROUNDS = 5
VOLLEYS = 30

#: Once in this many volleys, chaos first kills a thread that the volley may need.
KILL_EVERY = 10

POLL_S = 0.02

#: Pings are frequent, so that they come between all other frames. At quiet points they are rare: a ping could push out
#: a message that the server forgot to send, and so hide the error.
PING_INTERVAL_S = 0.5
QUIET_PING_INTERVAL_S = LATE_S + 2 * SCALE

#: Shorter runs do not wait for pings at their end. That takes `QUIET_PING_INTERVAL_S`.
MIN_PING_CHECK_S = 10.0

#: In every other round, threads switch at Python's default interval; in the others, as often as possible. Each finds
#: other errors.
SWITCH_INTERVALS_S = (0.005, 1e-6)

#: The marker in the stacks of both processes.
HANGS = ("messages in", "progress", "stuck", "server:", "left over", "close handshake")

@dataclass(frozen=True)
class Options:
    """The options of a run. `switch_interval_s` None: alternate `SWITCH_INTERVALS_S`."""

    seconds: float = 30.0
    clients: int = 100
    rooms: int = 10
    seed: int = 0
    server: str = "werkzeug"
    handler: str = "python"
    switch_interval_s: float | None = None
    chaos: bool = True


@dataclass
class Outcome:
    """The result of a run. `trouble` has log records that must not occur."""

    counts: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    violation_count: int = 0
    violations: list[str] = field(default_factory=list)
    first_violation_s: float | None = None
    wall_s: float = 0.0
    log: str = ""


class _Broken(Exception):
    """There is a violation, so the run ends."""


class Run:
    """One run. `tell` is called with lines of progress."""

    def __init__(self, options: Options, tell: Callable[[str], None]) -> None:
        self._options = options
        self._tell = tell
        self._began = monotonic()
        self.outcome = Outcome()

    def execute(self) -> Outcome:
        """Run. The outcome has all errors; nothing is raised. Every wait has a deadline; a hang prints stacks."""
        outcome, server = self.outcome, None
        try:
            options = self._options
            excuse = EXPECTED if options.chaos else ()
            server = ServerProcess(options.server, options.handler, options.clients, excuse)
            self._with_server(server)
        except Wrong as wrong:
            self._add(wrong)
        except _Broken:
            pass  # the violation has been recorded
        finally:
            if server is not None and any(text.startswith(HANGS) for text in outcome.violations):
                faulthandler.dump_traceback(sys.__stderr__)
                server.show_stacks()
            if server is not None:
                outcome.log = server.log()
                server.kill()
            outcome.wall_s = monotonic() - self._began
        return outcome

    def _add(self, wrong: Wrong) -> None:
        if self.outcome.first_violation_s is None:
            self.outcome.first_violation_s = monotonic() - self._began
        self.outcome.violation_count += 1
        self.outcome.violations.append(f"{wrong.check}: {wrong.text}")

    def _with_server(self, server: ServerProcess) -> None:
        options = self._options
        self._server = server
        # A script's messages wait in a queue, and the client's close frame is answered before they are handled. To be
        # strict here, have the connection wait for the queue first.
        self._world = World(server.address, options.seed, options.rooms)
        self._checker = Checker(self._world.ledger, self._world.violations)
        self._rng = Random(options.seed)
        before = self._warm_up()
        self._control = (ToughControl if options.chaos else Control)("control", self._world)
        self._control.connect()
        self._control.settle()
        self._chaos = Chaos(options.seed, options.handler, server, self._world) if options.chaos else None
        kind = Daredevil if options.chaos else Roamer
        self._crew = Crew((kind(number, self._world) for number in range(options.clients)), self._world.violations)
        try:
            self._rounds()
            self._control.depart()
            check_left_over(server, before)
            self._checker.done["left over"] += 1
            if self._chaos is not None:
                self._chaos.check()
            server.stop()
        finally:
            self._collect()
            self._crew.end()
            self._control.abandon()
            if not self.outcome.violation_count:
                for line in server.trouble():
                    self._add(Wrong("server's log", line))

    def _collect(self) -> None:
        violations = self._world.violations
        if violations.count:
            with suppress(Wrong):
                self._tell(f"The server has not sent: {self._server.ask()['unsent']}")
        self.outcome.counts = self._crew.counts()
        self.outcome.checks = self._checker.done
        if self._chaos is not None:
            self.outcome.faults = self._chaos.counts
        self.outcome.violation_count += violations.count
        self.outcome.violations += violations.first
        if violations.first_at is not None:
            self.outcome.first_violation_s = violations.first_at - self._began

    def _warm_up(self) -> dict[str, Any]:
        """Open and close one session, so that the server creates what it needs once. Returns the state after that."""
        visitor = Control("warm-up", self._world)
        visitor.connect()
        visitor.settle()
        visitor.depart()
        return await_state(self._server, "the end of the first session", lambda state: not state["taken"], memory="")

    # Rounds.

    def _rounds(self) -> None:
        options = self._options
        end = monotonic() + options.seconds
        while monotonic() < end:
            if options.switch_interval_s is not None:
                interval_s = options.switch_interval_s
            else:
                interval_s = SWITCH_INTERVALS_S[self.outcome.rounds % len(SWITCH_INTERVALS_S)]
            self._server.ask(switch_interval=interval_s, ping_interval=PING_INTERVAL_S)
            round_s = min(MAX_ROUND_S, options.seconds / MIN_ROUNDS)
            self._roam(round_s)
            self._quiet_point()
            if self._chaos is not None and self._chaos.falls(self.outcome.rounds):
                self._fall(self._chaos)
            self.outcome.rounds += 1
        if options.chaos and options.seconds >= MIN_PING_CHECK_S:
            self._do("a ping for each", {roamer: roamer.await_ping for roamer in self._crew.connected})
        self._do("the last close", {roamer: roamer.depart for roamer in self._crew.connected})
        self._quiet_point()

    def _roam(self, seconds: float) -> None:
        """A round: all clients act at random, and chaos injects faults."""
        chaos, number, until = self._chaos, self.outcome.rounds, monotonic() + seconds
        orders = {} if chaos is None else chaos.plan(number, self._crew.all)
        tasks = {
            roamer: partial(roamer.roam, number, until, [orders[roamer]] if roamer in orders else [])
            for roamer in self._crew.all
        }
        self._do("a round", tasks, seconds, chaos.strike if chaos is not None else None)

    def _fall(self, chaos: Chaos) -> None:
        """Kill the isolate, and its journal with it.

        All sessions must be closed; then a new isolate serves the clients.
        """
        blows = iter([chaos.fell])
        outlive = {roamer: roamer.outlive_handler for roamer in self._crew.connected}
        if not outlive:
            return  # with few clients, all may be disconnected at the moment
        self._do("the end of the isolate", outlive, every_second=lambda: next(blows, _nothing)())
        self._control.outlive_handler()
        await_state(self._server, "the end of all sessions", lambda state: not state["sessions"] and not state["rooms"])
        self._checker.lose_journal()
        with self._world.excused():  # after repeated deaths, the script's next start may be delayed
            self._control.connect()
        self._control.settle()

    def _do(
        self,
        what: str,
        tasks: dict[Roamer, Callable[[], None]],
        seconds: float = 0.0,
        every_second: Callable[[], None] | None = None,
    ) -> None:
        def often() -> None:
            self._every_second()
            if every_second is not None:
                every_second()

        self._crew.do(what, tasks, seconds + 6 * PATIENCE_S, often)
        self._stop_if_broken()

    def _stop_if_broken(self) -> None:
        if self._world.violations.count:
            raise _Broken

    def _quiet_point(self) -> None:
        """All clients wait until all messages have arrived; then check everything.

        First, all messages must arrive by themselves, without a later message that pushes them out. A message that
        stays in the server is a violation, even if it would arrive with the next one. Then each client sends one more
        message, so that unexpected messages (a duplicate, one from a left room) are noticed.
        """
        crew = self._crew
        alive = self._alive()
        await_state(
            self._server, f"{alive} sessions", lambda state: state["sessions"] == state["taken"] == alive, lapse=""
        )
        self._server.ask(ping_interval=QUIET_PING_INTERVAL_S)
        self._await_journal()
        self._await_missing()
        self._do("walking out", {roamer: roamer.walk_out for roamer in crew.connected})
        self._await_journal()
        self._await_missing()
        self._stampede()
        for number in range(VOLLEYS):
            if self._chaos is not None and number % KILL_EVERY == 0:
                self._chaos.kill_a_thread()
            self._volley()
        self._do("a last message of all", {roamer: roamer.sync for roamer in crew.connected})
        over_wire = self._control.ask(self._world.rooms + self._world.passages)
        self._await_journal()
        self._checker.check_quiet(self._server.ask(quiet=""), over_wire)
        self._checker.check()
        self._stop_if_broken()

    def _alive(self) -> int:
        return sum(visit.end is None for visit in self._world.ledger.visits.values())

    def _await_journal(self) -> None:
        """Wait until all messages of connected clients have been handled. If this fails, a check reports it."""
        deadline = monotonic() + LATE_S
        while monotonic() < deadline:
            self._checker.ingest(self._control.fetch_journal())
            if not self._checker.unheard():
                return
            sleep(POLL_S)

    def _await_missing(self) -> None:
        by_visit = {roamer.visit: roamer for roamer in [*self._crew.connected, self._control]}
        missing = self._checker.missing()
        self._do(
            "late messages",
            {by_visit[visit]: partial(by_visit[visit].await_steps, steps, LATE_S) for visit, steps in missing.items()},
        )
        for visit, steps in self._checker.missing().items():
            some = sorted(steps, key=lambda step: step.began)[:SHOWN]
            self._world.violations.add("stuck", f"{visit}: {len(steps)} messages did not come by themselves: {some}")

    def _stampede(self) -> None:
        room = self._rng.choice(self._world.passages)
        self._do("a stampede", {roamer: partial(roamer.stampede, room) for roamer in self._crew.connected})

    def _volley(self) -> None:
        """One member of each room broadcasts, once."""
        roamers = self._crew.connected
        targets: dict[Roamer, str] = {}
        for room in self._world.rooms:
            members = [roamer for roamer in roamers if room in roamer.rooms and roamer not in targets]
            if members:
                targets[self._rng.choice(members)] = room
        sent = set(targets.values())
        self._do(
            "a volley",
            {roamer: partial(roamer.volley, targets.get(roamer), len(roamer.rooms & sent)) for roamer in roamers},
        )

    # The server.

    def _every_second(self) -> None:
        for line in self._server.trouble():
            self._world.violations.add("server's log", line)
        counts = self._crew.counts()
        self._tell(
            f"{monotonic() - self._began:5.0f} s  round {self.outcome.rounds + 1}: "
            f"{len(self._crew.connected)} connected, {counts['sessions']:,} sessions, {counts['commands']:,} sent, "
            f"{counts['received']:,} received, {self._world.violations.count} violations"
        )


def _nothing() -> None:
    pass
