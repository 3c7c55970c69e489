"""A client thread's doings: comes, talks, joins and leaves rooms, reads slowly, goes in many ways, comes again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from random import Random
from time import monotonic, sleep

from tests.stress.client import NO_CODE, Lost
from tests.stress.history import SCALE, End, Step, Wrong
from tests.stress.visitor import PATIENCE_S, Visitor
from tests.stress.world import World

#: At a quiet point, what is still to come has so long to come by itself.
LATE_S = 5.0 * SCALE

#: Commands that a client has under way. More than one, so that the server is never waited for; few enough that what
#: waits for a client that does not read stays far below the server's bound.
WINDOW = 8

#: Joins and leaves of one client in a stampede.
STAMPEDE = 30

#: Rooms that one client is in at most, so that rooms do not just fill.
MOST_ROOMS = 4


class Roamer(Visitor):
    """One client. All methods in its own thread; after `Wrong` has been noted it does nothing any more.

    What it does in a round follows from the seed, its number and the round; how much of that, from the time it has.
    """

    def __init__(self, number: int, world: World) -> None:
        super().__init__(number, world)
        self._actions, self._weights = zip(*self._repertoire(), strict=True)

    def _repertoire(self) -> list[tuple[Callable[[], None], float]]:
        """What `roam` chooses from, and how often."""
        return [
            (self.join, 12), (self.leave, 9), (self.broadcast, 30), (self.broadcast_except, 10), (self.echo, 6),
            (self.mix, 10), (self.pass_through, 8), (self.ask_members, 4), (self.burst, 3), (self.ping, 3),
            (self.doze, 1), (self.read_slowly, 1),
            (self.close, 0.7), (self.close_from_there, 0.6), (self.reset, 0.5), (self.vanish, 0.3),
            (self.break_off, 0.3), (self.give_up_handshake, 0.2),
        ]  # fmt: skip

    # Tasks, given by the crew.

    def roam(self, number: int, until: float, orders: Iterable[Callable[[], None]] = ()) -> None:
        """In this round, follow the orders, do one thing after another until then, and wait for the last to be done."""
        seed = f"{self._world.seed}/{self.number}/{number}"
        self._rng = Random(f"{seed}/orders")
        for order in orders:
            order()
        self._rng = Random(seed)
        while monotonic() < until and not self._world.violations.happened.is_set():
            if self.visit is None:
                self.connect()
            self._rng.choices(self._actions, self._weights)[0]()
            if self.visit is not None:
                pause = self._rng.choice((0.0, 0.0, 0.01, 0.05))
                self._read_until(lambda: self.under_way < WINDOW, "an answer", at_least_s=pause)
        self.settle()

    def settle(self) -> None:
        """Wait for all commands to be done."""
        if self.visit is not None:
            self._read_until(lambda: not self.under_way, "the end of all commands")

    def await_steps(self, steps: set[Step], patience_s: float) -> None:
        """Read, and send nothing, until all of these have come. If they do not, the checker says so."""
        visit = self.visit
        deadline = monotonic() + patience_s
        while not steps.issubset(visit.stream) and monotonic() < deadline:
            self._read(self._look())

    def walk_out(self) -> None:
        """Broadcast to a room, and leave it, at the same moment as all others; wait for nothing."""
        if self.rooms:
            room = self._own_room()
            self.issue([f"b{room}", f"l{room}"], b"so long")

    def volley(self, room: str | None, expected: int) -> None:
        """Broadcast once, or not, and have some markers sent, at the same moment as all others; then only read.

        Proves that nothing stays behind in the server when nothing comes behind it that would push it out: often the
        last to be sent is a broadcast, by another thread, while the session's own is busy with a marker.
        """
        visit = self.visit
        start = len(visit.stream)
        steps = ["s"] * self._rng.randint(1, 3)
        self.issue(steps if room is None else [f"b{room}", *steps], b"now")
        self._read_until(lambda: not self.under_way, "the end of a volley's command")
        self._read_until(
            lambda: sum(step.is_broadcast for step in visit.stream[start:]) >= expected,
            f"{expected} of a volley",
            patience_s=LATE_S,
        )

    def stampede(self, room: str) -> None:
        """Join and leave a room as quickly as can be, all at once: it is made and deleted under everybody's feet."""
        self.issue([f"j{room}", f"l{room}"] * STAMPEDE + [f"j{room}", f"b{room}", f"l{room}", "s"], b"still here?")
        self.settle()

    def sync(self) -> None:
        """Once this returns, all that was queued for this session earlier has arrived."""
        if self.visit is not None:
            self.issue(["s"])
            self.settle()

    def depart(self) -> None:
        """The last close, and a clean one."""
        if self.visit is not None:
            self.close()

    def ask(self, rooms: list[str]) -> dict[str, int]:
        """The number of members of each room, over the wire."""
        command = self.issue([f"m{room}" for room in rooms] + ["s"])
        self.settle()
        return {step.room: step.count for step in command.steps[:-1]}

    def give_up_handshake(self) -> None:
        """Send a handshake, or a part of it, and reset, having read nothing: the session may or may not have been."""
        self.close()
        share = self._rng.choice((0.3, 0.9, 1.0, 1.0))
        self._open(self._first_steps()[0])
        with suppress(Lost):
            self._socket.send_request(share)
        sleep(self._rng.choice((0.0, 0.001, 0.02)))
        self._socket.reset()
        self._gone(End("handshake given up", opened=False))

    # Talking.

    def join(self) -> None:
        if len(self.rooms) >= MOST_ROOMS:
            self.leave()
            return
        room = self._rng.choice(self._world.rooms)
        self.issue(["s", f"j{room}", "s"])

    def leave(self) -> None:
        room = self._own_room() if self._rng.random() < 0.9 else self._rng.choice(self._world.rooms)
        # Without a marker behind it nothing would push out what is left of the room.
        self.issue(["s", f"l{room}"] + ["s"] * (self._rng.random() < 0.7))

    def broadcast(self) -> None:
        # Now and then to a room that it is not in, which is allowed.
        room = self._own_room() if self._rng.random() < 0.9 else self._rng.choice(self._world.rooms)
        self.issue([f"b{room}", "s"], *self._world.bodies.choose(self._rng))

    def broadcast_except(self) -> None:
        self.issue([f"x{self._own_room()}", "s"], *self._world.bodies.choose(self._rng))

    def echo(self) -> None:
        self.issue(["e", "s"], *self._world.bodies.choose(self._rng))

    def mix(self) -> None:
        """`send` and `broadcast` in one call."""
        rooms = [self._own_room(), self._own_room()]
        steps = [self._rng.choice(("s", "e", "b", "x")) for _ in range(self._rng.randint(3, 8))]
        self.issue(
            [step + self._rng.choice(rooms) if step in "bx" else step for step in steps] + ["s"],
            *self._world.bodies.choose(self._rng),
        )

    def pass_through(self) -> None:
        """Join and leave in one call, several times, where others do the same: rooms come and go."""
        room = self._rng.choice(self._world.passages)
        steps = [step for _ in range(self._rng.randint(1, 8)) for step in (f"j{room}", f"b{room}", f"l{room}")]
        self.issue([*steps, "s"], b"passing through")

    def ask_members(self) -> None:
        self.issue([f"m{self._own_room()}", "s"])

    def burst(self) -> None:
        """As many broadcasts as may be under way, written one behind the other."""
        room, rng = self._own_room(), Random(self._rng.random())
        while self.under_way < WINDOW:
            self.issue([f"b{room}", "s"], *self._world.bodies.choose(rng))

    def ping(self) -> None:
        if self._socket.pings_open < WINDOW:
            with suppress(Lost):  # whoever reads next will see it
                self._socket.ping()

    # Reading.

    def doze(self) -> None:
        """Read nothing for a while."""
        self.counts["slow spells"] += 1
        sleep(self._rng.uniform(0.05, 0.5))

    def read_slowly(self) -> None:
        self.counts["slow spells"] += 1
        until = monotonic() + self._rng.uniform(0.1, 1.0)
        while monotonic() < until and self.visit is not None:
            self._read(0.02, size=512)
            sleep(0.005)

    # Going.

    def close(self) -> None:
        """A close handshake, often with commands still under way."""
        code = self._rng.choice((1000, 1000, 1001, 3000, 4999, NO_CODE))
        try:
            self._socket.send_close(code, b"" if code == NO_CODE else "bye \N{WAVING HAND SIGN}".encode())
            self._read_to_close()
        except Lost as error:
            raise Wrong("close handshake", f"{self.visit.name} had no answer: {error}") from None
        self._check_code(code)
        self._socket.finish(PATIENCE_S)
        self._gone(End("closed", frozenset({code}), handled=True, complete=True))

    def close_from_there(self) -> None:
        """The handler closes the session, and then sends and broadcasts: that arrives at others, not here."""
        code = self._rng.choice((1000, 1008, 4000))
        room = self._own_room()
        self.issue(["e", f"c{code}", "s", f"b{room}", "e"], *self._world.bodies.choose(self._rng))
        try:
            self._read_to_close()
            self._check_code(code)
            end = End("closed by handler", frozenset({code}), complete=True)
            # Until the answer the room goes on; nothing of it may come.
            until = monotonic() + self._rng.choice((0.0, 0.01, 0.1))
            while monotonic() < until:
                self._socket.receive(until - monotonic())
            if self._rng.random() < 0.2:
                self._socket.drop()
                self._gone(End("closed by handler, no answer", end.codes, complete=True))
                return
            self._socket.send_close(code)
        except Lost as error:
            raise Wrong("close handshake", f"{self.visit.name}, closed by the handler: {error}") from None
        self._socket.finish(PATIENCE_S)
        self._gone(end)

    def reset(self) -> None:
        """RST, with whatever is under way."""
        self._socket.reset()
        self._gone(End("reset"))

    def vanish(self) -> None:
        """FIN without a close frame. All that was sent before it must be handled."""
        self._half_close("vanished")

    def break_off(self) -> None:
        """End in the middle of a frame, with FIN or RST."""
        with suppress(Lost):
            self._socket.send_part_of_frame()
        if self._rng.random() < 0.5:
            self._socket.reset()
            self._gone(End("reset within a frame"))
        else:
            self._half_close("vanished within a frame")

class Control(Roamer):
    """The session that asks for the journal; it is in no room and does nothing by itself."""

    def _first_steps(self) -> tuple[list[str], set[str]]:
        return ["s"], set()

    def fetch_journal(self) -> list[list[object]]:
        """What the handler noted since the last time."""
        self._socket.send(b"journal", False)
        entries: list[list[object]] = []
        deadline = monotonic() + PATIENCE_S
        while True:
            for payload, _ in self._socket.receive(deadline - monotonic()):
                chunk = json.loads(payload)
                if not chunk:
                    return entries
                entries += chunk
            if monotonic() > deadline:
                raise Wrong("progress", f"no journal within {PATIENCE_S:g} s")

