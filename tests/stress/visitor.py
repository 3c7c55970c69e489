"""A client and its sessions, one after another: it connects, sends commands, reads, and disconnects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from time import monotonic
from urllib.parse import quote

from tests.stress.client import Lost, WebSocket
from tests.stress.history import ASKED, FAULT, SCALE, Command, End, Visit, Wrong, user_of
from tests.stress.survivor import REQUESTS, SUBPROTOCOL, Reply, Survivor
from tests.stress.world import Over, World

#: If a server must send something and sends nothing for this long, it hangs.
PATIENCE_S = 10.0 * SCALE

#: How often a waiting client checks whether the run has failed elsewhere.
LOOK_S = 0.5

#: Small buffers, so that the server's writes are often partial. (With a smaller receive buffer, the kernel would probe
#: a closed window at doubling intervals.)
SEND_BUFFER = 8192
RECEIVE_BUFFER = 32768

#: The share of sessions that survive lost connections.
SURVIVORS = 0.5


class Visitor:
    """The base of `Roamer`. All methods run in the client's own thread."""

    def __init__(self, number: int, world: World) -> None:
        self.number = number
        self._world = world
        self._rng = Random(f"{world.seed}/{number}")
        self._visits = 0
        self.visit: Visit | None = None
        self.rooms: set[str] = set()  # the rooms it will be in when its commands are done
        self.under_way = 0
        self.counts: Counter[str] = Counter()
        self._socket: WebSocket | Survivor | None = None

    # Coming.

    def connect(self) -> None:
        """Begin a session. Some sessions join rooms and broadcast in `on_open`."""
        steps, rooms = self._first_steps()
        self._open(steps)
        self.visit.end = None
        self._socket.send_request()
        self._socket.read_response()
        self.rooms = rooms
        self.under_way = 1
        self.counts["sessions"] += 1

    def _first_steps(self) -> tuple[list[str], set[str]]:
        steps, rooms = [], set()
        for room in self._rng.sample(self._world.rooms, min(len(self._world.rooms), self._rng.randint(0, 2))):
            steps.append(f"j{room}")
            rooms.add(room)
            if self._rng.random() < 0.3:
                steps.append(f"b{room}")
        return [*steps, "s"], rooms

    def _open(self, steps: list[str]) -> None:
        self._visits += 1
        name = f"{self.number}.{self._visits}"
        tight = self._rng.random() < 0.2
        target = f"/stress?name={name}&user={user_of(name)}&steps={quote(' '.join(steps))}"
        if tight:
            target += f"&buffer={SEND_BUFFER}"
        if self._rng.random() < 0.2:
            target += f"&pauses={name}"
        self.visit = Visit(name, steps)
        self._world.ledger.add(self.visit)
        # Its own generator: it also answers pings, whose times are not reproducible.
        rng = Random(f"{self._world.seed}/{name}")
        buffer = RECEIVE_BUFFER if tight else None
        if not self._survives():
            self._socket = WebSocket(self._world.address, target, rng, receive_buffer=buffer)
            return

        def make() -> WebSocket:
            return WebSocket(self._world.address, target, rng, receive_buffer=buffer, subprotocol=SUBPROTOCOL)

        self._socket = Survivor(make, rng, self._world.is_excused)
        self._socket.answer = partial(_answer, self.visit)

    def _survives(self) -> bool:
        """Whether the next session is one that survives lost connections."""
        return self._rng.random() < SURVIVORS

    # Commands.

    def issue(
        self, steps: list[str], body: bytes = b"", binary: bool = False, fault: str = "", how: str = ""
    ) -> Command:
        """Send a command; as a request if it says `how` to reply.

        It is unanswered until its last step, a marker, arrives. A command without a marker is not awaited.
        """
        visit = self.visit
        command = visit.add_command(steps, body, binary)
        self.under_way += steps[-1] == "s"
        self.counts["commands"] += 1
        for step in command.steps:
            if step.op == "j":
                self.rooms.add(step.room)
            elif step.op == "l":
                self.rooms.discard(step.room)
            self.counts[step.op] += 1
        last = FAULT + fault if fault else ASKED + how if how else ""
        message = f"{' '.join(filter(None, [str(command.seq), *steps, last]))}\n".encode() + body
        try:
            if how:
                self._socket.ask(message, binary, _reply(command.seq, message, binary, how, fault))
            else:
                self._socket.send(message, binary)
        except Lost as error:
            raise Wrong("connection", f"{visit.name} lost its connection: {error}") from None
        return command

    def _own_room(self) -> str:
        return self._rng.choice(sorted(self.rooms) or self._world.rooms)

    # Reading.

    def _read_until(
        self, done: Callable[[], bool], what: str, *, at_least_s: float = 0.0, patience_s: float = PATIENCE_S
    ) -> None:
        start = alive = monotonic()
        while not (done() and monotonic() - start >= at_least_s):
            if monotonic() - alive > patience_s:
                raise Wrong("progress", f"{self.visit.name} waits for {what}, and for {patience_s:g} s nothing came")
            if self._read(start + at_least_s - monotonic() if done() else self._look()):
                alive = monotonic()

    def _look(self) -> float:
        """The longest time to read before the next check. Raises `Over` if the run has failed meanwhile."""
        if self._world.violations.happened.is_set():
            raise Over
        return LOOK_S

    def _read(self, timeout_s: float, size: int = 65536) -> int:
        """Read once. Returns the number of messages. Raises `Wrong` if the server ends the session without a reason."""
        try:
            came = self._take(self._socket.receive(timeout_s, size))
        except Lost as error:
            raise Wrong("connection", f"{self.visit.name} lost its connection: {error}") from None
        if self._socket.close_code is not None:
            raise Wrong("connection", f"{self.visit.name} was closed by the server with {self._socket.close_code}")
        return came

    def _take(self, messages: list[tuple[bytes, bool]]) -> int:
        visit, ledger = self.visit, self._world.ledger
        for payload, binary in messages:
            step = ledger.receive(visit, payload, binary)
            command = step.command
            if command.visit is visit and step.op == "s" and step.index == len(command.steps) - 1:
                self.under_way -= 1
        self.counts["received"] += len(messages)
        return len(messages)

    @property
    def _is_asking(self) -> bool:
        """Whether a reply of the handler is still to come."""
        return isinstance(self._socket, Survivor) and bool(self._socket.unanswered)

    # The end.

    def _read_to_close(self) -> None:
        alive = monotonic()
        while self._socket.close_code is None:
            if monotonic() - alive > PATIENCE_S:
                raise Wrong("close handshake", f"{self.visit.name}: nothing for {PATIENCE_S:g} s, and no close frame")
            if self._take(self._socket.receive(self._look())):
                alive = monotonic()

    def _check_code(self, code: int) -> None:
        if self._socket.close_code != code:
            raise Wrong("close handshake", f"{self.visit.name}: closed with {self._socket.close_code}, not with {code}")

    def _half_close(self, kind: str) -> None:
        alive = monotonic()
        try:
            self._socket.half_close()
            while True:
                if monotonic() - alive > PATIENCE_S:
                    raise Wrong("progress", f"{self.visit.name} {kind}, and was not let go in {PATIENCE_S:g} s")
                if self._take(self._socket.receive(self._look())):
                    alive = monotonic()
                if self._socket.close_code is not None:
                    raise Wrong("close handshake", f"{self.visit.name} {kind}, and was sent a close frame")
        except Lost:
            self._socket.drop()
        self._gone(End(kind, handled=True))

    def _gone(self, end: End) -> None:
        self.counts[end.kind] += 1
        self.visit.end = end
        self.visit = self._socket = None
        self.rooms = set()
        self.under_way = 0

    def abandon(self) -> None:
        """Close the descriptor in any state."""
        if self._socket is not None:
            self._socket.drop()


def _reply(seq: int, message: bytes, binary: bool, how: str, fault: str) -> Reply:
    """The reply of the handler to a command."""
    if fault or how == "e":
        return "e", b"failed" if fault else f"no {seq}".encode(), False
    return ("n", b"", False) if how == "n" else ("r", message, binary)


def _answer(visit: Visit, payload: bytes, binary: bool) -> Reply:
    """The reply to a request of the handler, which is a step of a command of this session."""
    name, _, rest = payload.partition(b"\n")[0].partition(b" ")
    try:
        seq, index = map(int, rest.split(b" "))
        step = visit.commands[seq].steps[index]
    except (KeyError, ValueError, IndexError):
        raise Wrong(REQUESTS, f"{visit.name}: nobody wanted to be asked {payload[:100]!r} now") from None
    if name.decode() != visit.name or step.op != "q":
        raise Wrong(REQUESTS, f"{visit.name} was asked {payload[:100]!r}")
    if step.room == "e":
        return "e", f"no {seq}".encode(), False
    return ("n", b"", False) if step.room == "n" else ("r", payload, binary)
