"""The chaos mode: which faults a round has, by the seed, and what must come of them.

Client threads that misbehave are `daredevil`'s, and what happens inside of the server is done by `faults`. What hits
nobody in particular (the flusher, the drainer, a lack of descriptors) may break no promise to anybody; of the others it
is known whom they hit, and what that one must be told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random

from tests.stress.daredevil import Daredevil
from tests.stress.history import Wrong
from tests.stress.process import ServerProcess
from tests.stress.world import World

#: What may befall the server while everybody roams.
KILLS = ("flusher", "flusher in select", "drainer", "drainer in a step")
BLOWS = (*KILLS, "descriptors")
STARVED_S = 1.0

#: Of so many rounds, one has a script that does not end, and after one its isolate dies.
OVERRUN_EVERY, FALL_EVERY = 3, 4

Orders = dict[Daredevil, Callable[[], None]]


class Chaos:
    """The faults of one run, for the thread that runs it."""

    def __init__(self, seed: int, handler: str, server: ServerProcess, world: World) -> None:
        self._seed = seed
        self._is_script = handler == "javascript"
        self._server = server
        self._world = world
        self._rng = Random(f"{seed}/kills")
        self.counts: Counter[str] = Counter()

    def plan(self, round_number: int, roamers: list[Daredevil]) -> Orders:
        """What some do first in a round: one in eight is closed by another's handler, one has its handler loop.

        Those who have just gone are left out.
        """
        rng = Random(f"{self._seed}/plan/{round_number}")
        looping, *chosen = rng.sample(roamers, 1 + (len(roamers) - 1) // 8 * 2)
        orders: Orders = {}
        for kicker, victim in zip(chosen[::2], chosen[1::2], strict=True):
            if kicker.visit is not None and victim.visit is not None:
                orders[victim] = victim.be_kicked
                orders[kicker] = partial(kicker.kick, victim.visit.name)
        if self._is_script and looping.visit is not None and round_number % OVERRUN_EVERY == 1:
            orders[looping] = looping.overrun
        self._blows = iter(rng.sample(BLOWS, len(BLOWS)))
        return orders

    def falls(self, round_number: int) -> bool:
        """Whether the isolate dies after this round."""
        return self._is_script and round_number % FALL_EVERY == 0

    def strike(self) -> None:
        """The next blow of the round, if it has another one."""
        blow = next(self._blows, None)
        if blow == "descriptors":
            self.counts["without descriptors"] += 1
            with self._world.excused():
                self._server.starve(STARVED_S)
        elif blow is not None:
            self._kill(blow)

    def kill_a_thread(self) -> None:
        self._kill(self._rng.choice(KILLS))

    def _kill(self, what: str) -> None:
        self.counts[f"killed: {what}"] += 1
        self._server.ask(kill=what)

    def fell(self) -> None:
        """Kill the isolate."""
        self._kill("isolate")

    def check(self) -> None:
        """Proves that each thread that was killed said so, once. Raises `Wrong`."""
        died, logged = Counter(self._server.ask()["deaths"]), self._server.deaths()
        if died != logged:
            raise Wrong("deaths", f"there were {dict(died)}, and the log has {dict(logged)}")
        self.counts.update({f"deaths of the {name}": count for name, count in died.items()})
