"""The chaos mode: chooses the faults of each round by the seed, and knows their required effects.

`daredevil` has the misbehaving client threads, and `faults` the faults inside the server. Faults of common parts (the
flusher, the drainer, a lack of descriptors) may violate no guarantee. For all others it is known which client is
affected, and what it must receive.
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

#: Faults of the server during the actions of all clients.
KILLS = ("flusher", "flusher in select", "drainer", "drainer in a step", "writer in a step")
BLOWS = (*KILLS, "descriptors")
STARVED_S = 1.0

#: One in this many rounds has a script that does not end, and after one the isolate is killed.
OVERRUN_EVERY, FALL_EVERY = 3, 4

Orders = dict[Daredevil, Callable[[], None]]


class Chaos:
    """The faults of one run. For the thread of the run."""

    def __init__(self, seed: int, handler: str, server: ServerProcess, world: World) -> None:
        self._seed = seed
        self._is_script = handler == "javascript"
        self._server = server
        self._world = world
        self._rng = Random(f"{seed}/kills")
        self.counts: Counter[str] = Counter()

    def plan(self, round_number: int, roamers: list[Daredevil]) -> Orders:
        """The first actions of some clients in a round.

        Another client's handler closes one client in eight. One client makes its handler loop. Clients that have just
        disconnected are left out.
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
        """Inject the next fault of the round, if there is one."""
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
        """Check that the death of each killed thread was logged once. Raises `Wrong`."""
        died, logged = Counter(self._server.ask()["deaths"]), self._server.deaths()
        if died != logged:
            raise Wrong("deaths", f"there were {dict(died)}, and the log has {dict(logged)}")
        self.counts.update({f"deaths of the {name}": count for name, count in died.items()})
