"""The actions of a client thread: connects, sends, joins and leaves rooms, reads slowly, disconnects in many ways."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from random import Random
from time import monotonic, sleep

from tests.stress.client import NO_CODE, Lost
from tests.stress.history import SCALE, USERS, End, Step, Wrong
from tests.stress.survivor import Survivor
from tests.stress.visitor import PATIENCE_S, Visitor
from tests.stress.world import World

#: At a quiet point, how long outstanding messages may take to arrive.
LATE_S = 5.0 * SCALE

#: The most unanswered commands of a client. More than one, so that the client does not wait for the server. Few, so
#: that the queue of a client that does not read stays far below the server's limit.
WINDOW = 8

#: How many times a client joins and leaves in a stampede.
STAMPEDE = 30

#: The most rooms of one client, so that rooms do not only fill up.
MOST_ROOMS = 4


class Roamer(Visitor):
    """One client. All methods run in its own thread. After a violation, it does nothing.

    Its actions in a round depend on the seed, its number and the round; their number depends on the time.
    """

    def __init__(self, number: int, world: World) -> None:
        super().__init__(number, world)
        self._actions, self._weights = zip(*self._repertoire(), strict=True)

    def _repertoire(self) -> list[tuple[Callable[[], None], float]]:
        """The actions of `roam`, with their weights."""
        return [
            (self.join, 12), (self.leave, 9), (self.broadcast, 30), (self.broadcast_except, 10), (self.echo, 6),
            (self.mix, 10), (self.pass_through, 8), (self.ask_members, 4), (self.burst, 3), (self.ping, 3),
            (self.doze, 1), (self.read_slowly, 1),
            (self.close, 0.7), (self.close_from_there, 0.6), (self.reset, 0.5), (self.vanish, 0.3),
            (self.break_off, 0.3), (self.give_up_handshake, 0.2),
            (self.tell_user, 6), (self.lose_connection, 1.5), (self.ask_handler, 6), (self.be_asked, 6),
        ]  # fmt: skip

    # Tasks, given by the crew.

    def roam(self, number: int, until: float, orders: Iterable[Callable[[], None]] = ()) -> None:
        """In this round, follow the orders, then do random actions until the given time. Wait for the last one."""
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
            self._read_until(lambda: not self.under_way and not self._is_asking, "the end of all commands")

    def await_steps(self, steps: set[Step], patience_s: float) -> None:
        """Read, and send nothing, until all of these steps have arrived. The checker reports missing ones."""
        visit = self.visit
        deadline = monotonic() + patience_s
        while not steps.issubset(visit.stream) and monotonic() < deadline:
            self._read(self._look())

    def walk_out(self) -> None:
        """Broadcast to a room and leave it, at the same moment as all others. Do not wait."""
        if self.rooms:
            room = self._own_room()
            self.issue([f"b{room}", f"l{room}"], b"so long")

    def volley(self, room: str | None, expected: int) -> None:
        """Broadcast at most once, and request some markers, at the same moment as all others; then only read.

        Proves that no message stays in the server if no later message pushes it out. Often the last message is a
        broadcast of another thread, while the session's own thread sends a marker.
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
        """All clients join and leave a room as fast as possible, so that it is created and deleted all the time."""
        self.issue([f"j{room}", f"l{room}"] * STAMPEDE + [f"j{room}", f"b{room}", f"l{room}", "s"], b"still here?")
        self.settle()

    def sync(self) -> None:
        """Wait until all messages queued earlier for this session have arrived."""
        if self.visit is not None:
            self.issue(["s"])
            self.settle()

    def depart(self) -> None:
        """The last close, which is clean."""
        if self.visit is not None:
            self.close()

    def ask(self, rooms: list[str]) -> dict[str, int]:
        """The number of members of each room, over the wire."""
        command = self.issue([f"m{room}" for room in rooms] + ["s"])
        self.settle()
        return {step.room: step.count for step in command.steps[:-1]}

    def give_up_handshake(self) -> None:
        """Send a handshake or its beginning, and reset without reading. The session may or may not have existed."""
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
        # Without a marker at the end, nothing would push out the room's remaining messages.
        self.issue(["s", f"l{room}"] + ["s"] * (self._rng.random() < 0.7))

    def broadcast(self) -> None:
        # Sometimes to a room that it is not in, which is permitted.
        room = self._own_room() if self._rng.random() < 0.9 else self._rng.choice(self._world.rooms)
        self.issue([f"b{room}", "s"], *self._world.bodies.choose(self._rng))

    def broadcast_except(self) -> None:
        self.issue([f"x{self._own_room()}", "s"], *self._world.bodies.choose(self._rng))

    def echo(self) -> None:
        self.issue(["e", "s"], *self._world.bodies.choose(self._rng))

    def tell_user(self) -> None:
        user = f"user{self._rng.randrange(USERS)}"
        self.issue([f"u{user}", "s"], *self._world.bodies.choose(self._rng))

    def ask_handler(self) -> None:
        """A request, which the handler executes as any command."""
        if not isinstance(self._socket, Survivor):
            return
        how = self._rng.choice("rrne")
        self.counts["requests to the handler"] += 1
        self.issue([f"b{self._own_room()}", "e", "s"], *self._world.bodies.choose(self._rng), how=how)

    def be_asked(self) -> None:
        """A command, or a request, whose handler waits for the reply of this client, and sends before and after it."""
        if not isinstance(self._socket, Survivor):
            return
        steps = ["e", f"q{self._rng.choice(('', '', 'n', 'e'))}", f"b{self._own_room()}", "s"]
        how = self._rng.choice(("", "", "r"))
        self.counts["requests to the handler"] += bool(how)
        self.counts["requests to clients"] += 1
        self.issue(steps, *self._world.bodies.choose(self._rng), how=how)

    def mix(self) -> None:
        """`send` and `broadcast` in one call."""
        rooms = [self._own_room(), self._own_room()]
        steps = [self._rng.choice(("s", "e", "b", "x")) for _ in range(self._rng.randint(3, 8))]
        self.issue(
            [step + self._rng.choice(rooms) if step in "bx" else step for step in steps] + ["s"],
            *self._world.bodies.choose(self._rng),
        )

    def pass_through(self) -> None:
        """Join and leave in one call, several times, together with others: rooms are created and deleted."""
        room = self._rng.choice(self._world.passages)
        steps = [step for _ in range(self._rng.randint(1, 8)) for step in (f"j{room}", f"b{room}", f"l{room}")]
        self.issue([*steps, "s"], b"passing through")

    def ask_members(self) -> None:
        self.issue([f"m{self._own_room()}", "s"])

    def burst(self) -> None:
        """As many broadcasts as permitted, in a row."""
        room, rng = self._own_room(), Random(self._rng.random())
        while self.under_way < WINDOW:
            self.issue([f"b{room}", "s"], *self._world.bodies.choose(rng))

    def ping(self) -> None:
        if self._socket.pings_open < WINDOW:
            with suppress(Lost):  # the next read will notice
                self._socket.ping()

    # Reading.

    def doze(self) -> None:
        """Do not read for a while."""
        self.counts["slow spells"] += 1
        sleep(self._rng.uniform(0.05, 0.5))

    def read_slowly(self) -> None:
        self.counts["slow spells"] += 1
        until = monotonic() + self._rng.uniform(0.1, 1.0)
        while monotonic() < until and self.visit is not None:
            self._read(0.02, size=512)
            sleep(0.005)

    # Coming back.

    def lose_connection(self) -> None:
        """Lose the connection, with unanswered commands, and come back to the session, if it is one that survives."""
        sock = self._socket
        if not isinstance(sock, Survivor):
            return
        kind, away_s = self._rng.choice(Survivor.KINDS), self._rng.choice((0.0, 0.0, 0.002, 0.02, 0.3))
        self.counts[f"resumed after: {kind}"] += 1
        sock.lose(kind, away_s)

    # Going.

    def close(self) -> None:
        """A close handshake, often with unanswered commands."""
        away = () if isinstance(self._socket, Survivor) else (1001,)  # else it could come back
        code = self._rng.choice((1000, 1000, *away, 3000, 4999, NO_CODE))
        try:
            self._socket.send_close(code, b"" if code == NO_CODE else "bye \N{WAVING HAND SIGN}".encode())
            self._read_to_close()
        except Lost as error:
            raise Wrong("close handshake", f"{self.visit.name} had no answer: {error}") from None
        self._check_code(code)
        self._socket.finish(PATIENCE_S)
        self._gone(End("closed", frozenset({code}), handled=True, complete=True))

    def close_from_there(self) -> None:
        """The handler closes the session, and then sends and broadcasts.

        Others must receive this; this session must not.
        """
        code = self._rng.choice((1000, 1008, 4000))
        room = self._own_room()
        self.issue(["e", f"c{code}", "s", f"b{room}", "e"], *self._world.bodies.choose(self._rng))
        try:
            self._read_to_close()
            self._check_code(code)
            end = End("closed by handler", frozenset({code}), complete=True)
            # Until the answer, the room goes on, but none of its messages may arrive.
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
        """RST, with unanswered commands."""
        self._socket.reset()
        self._gone(End("reset"))

    def vanish(self) -> None:
        """FIN without a close frame. All earlier messages must be handled."""
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
    """The session that requests the journal. It is in no room and does nothing else."""

    def _first_steps(self) -> tuple[list[str], set[str]]:
        return ["s"], set()

    def _survives(self) -> bool:
        return False

    def fetch_journal(self) -> list[list[object]]:
        """Fetch the handler's new journal entries."""
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

