"""The program of a run, made from its seed: rounds of commands to the handler, and what clients do besides.

A *command* is a list of steps, which one thread of a server does one after the other. `via` says which thread:

- ``own``: the session's own, in ``on_message``; ``await``: the same after a pause, in a script after a promise.
- ``open``: in ``on_open``; ``last``: in ``on_close``.
- ``plain``: a thread that has only handles, in a script a timer.
- ``finalizer``: any thread in which the garbage collector calls a ``__del__``.

A *step* that sends or broadcasts has one message, whose first word is the number of the step. The other steps are
``join``, ``leave``, ``close``, ``members`` and ``nap``. The last step of most commands sends to the session that
the command came from: its client then knows that all of the command is done.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

FOREVER = float("inf")

PROCESSES = 3
ROOMS = ("red", "green", "blue")
#: The room of the control sessions, one in each process.
BACKSTAGE = "backstage"
PLAIN_THREADS = 2

#: Sizes of messages: the share of each range, and its limits in bytes.
SIZES = ((0.72, 10, 300), (0.18, 300, 8_000), (0.08, 8_000, 65_536), (0.02, 65_536, 200_000))
#: The most bytes of large messages in a round, so that no client that reads is too slow.
ROUND_BYTES = 1_500_000

#: More than an outbox holds, so that the sending thread has to wait for the client several times.
BURST, BURST_BYTES, MAX_OUTBOX_BYTES = 100, 65_536, 4 * 1024 * 1024

#: How a client ends its session: with a close frame, with one in the same write as a command, with one and then a FIN,
#: with a FIN alone, with a RST.
CLEAN_ENDS = ("close", "close behind", "close and FIN")
ENDS = (*CLEAN_ENDS, "FIN", "RST")

#: What happens to Redis in a round. If it is "slow", all promises hold. For the others, see `checker`.
FAULTS = ("slow", "frozen", "cut", "unanswered", "flushed", "flushed, clock back")


@dataclass(slots=True, eq=False)
class Step:
    """`argument` is a room or the name of a session. The last three are known when the step was done."""

    number: int
    op: str
    argument: str = ""
    size: int = 0
    command: Command = field(repr=False, default=None)  # type: ignore[assignment]
    thread: tuple[object, ...] | None = None  # that did it; None: it was not done
    place: int = -1  # its number among the steps of this thread
    result: Any = None

    @property
    def is_broadcast(self) -> bool:
        return self.op in ("broadcast", "broadcast_except")

    def __repr__(self) -> str:
        where = "not done" if self.thread is None else "/".join(map(str, self.thread))
        command = self.command
        return (
            f"<{self.number} {self.op} {self.argument} {self.size or ''} of {command.visit} in round {command.round}, "
            f"{command.via}, {where}, {command.sent_at:.3f} to {command.done_at:.3f} s>"
        )


@dataclass(slots=True, eq=False)
class Command:
    """`visit` is the name of the session that it goes to."""

    visit: str
    via: str
    round: int
    steps: list[Step]
    acknowledged: bool = True  # by its last step
    is_mark: bool = False  # sent when all else of the round was done
    sent_at: float = FOREVER  # or later; by the clock of this process
    done_at: float = FOREVER  # or earlier

    def __post_init__(self) -> None:
        for step in self.steps:
            step.command = self


@dataclass(frozen=True, slots=True)
class Action:
    """What a client does: ``do`` a command, ``await`` its last step, ``sleep`` without reading, or one of `ENDS`."""

    kind: str
    command: Command | None = None
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Guest:
    """A session to come: where it connects, and the commands of its `on_open` and `on_close`."""

    name: str
    process: int
    seed: int
    opening: Command
    last: Command
    small_buffer: bool


@dataclass(slots=True)
class Round:
    """`arrivals` connect in it; `actions` are what each client does, by name."""

    number: int
    fault: str | None
    arrivals: list[Guest]
    actions: dict[str, list[Action]]


class Program:
    """The program of a run. The same arguments make the same program."""

    def __init__(
        self, seed: int, *, rounds: int = 4, clients: int = 10, length: int = 10, faults: bool = False
    ) -> None:
        self.seed = seed
        self._dice = Random(f"program {seed}")
        self._numbers = itertools.count(1)
        self._names = itertools.count(1)
        self._clients = clients
        self._length = length
        self._bytes = 0
        self._present: dict[str, Guest] = {}
        self.commands: list[Command] = []
        self.steps: dict[int, Step] = {}
        self.rounds = [self._round(number, faults) for number in range(rounds)]

    def command(self, visit: str, via: str, number: int, *steps: tuple[Any, ...], **options: Any) -> Command:
        """One more command of `steps`, which are (op, argument, size)."""
        made = [Step(next(self._numbers), *step) for step in steps]
        self.steps.update((step.number, step) for step in made)
        command = Command(visit, via, number, made, **options)
        self.commands.append(command)
        return command

    def _round(self, number: int, faults: bool) -> Round:
        dice, self._bytes = self._dice, 0
        fault = dice.choice(FAULTS) if faults and dice.random() < 0.7 else None
        arrivals = [self._arrive(number) for _ in range(self._clients - len(self._present))]
        if number % 4 == 2 and not fault:
            return Round(number, None, arrivals, dict(self._burst(number)))
        actions = {name: list(self._actions(name, number)) for name in list(self._present)}
        return Round(number, fault, arrivals, actions)

    def _arrive(self, number: int) -> Guest:
        dice, name = self._dice, f"{self.seed}.{next(self._names)}"
        joins = [("join", room) for room in ROOMS if dice.random() < 0.6]
        opening = self.command(name, "open", number, *joins, ("send", name, 20))
        last = [(dice.choice(("broadcast", "broadcast_except")), dice.choice(ROOMS), 30) for _ in range(2)]
        guest = Guest(
            name, dice.randrange(PROCESSES), dice.randrange(2**32), opening,
            self.command(name, "last", number, *last, acknowledged=False), dice.random() < 0.2,
        )  # fmt: skip
        self._present[name] = guest
        return guest

    def _actions(self, name: str, number: int) -> Iterator[Action]:
        dice, ending = self._dice, None
        if dice.random() < 0.3:
            ending = dice.choice(ENDS)
            self._present.pop(name, None)
        yield Action("await", self._guest_opening(name))
        for _ in range(dice.randint(self._length // 2, self._length)):
            command = self._any_command(name, number)
            yield Action("do", command)
            chance = dice.random()
            if chance < 0.3 and command.via != "finalizer":
                yield Action("await", command)
            elif chance < 0.35:
                yield Action("sleep", seconds=dice.choice((0.02, 0.1, 0.3)))
        if ending is not None:
            yield Action(ending, self._any_command(name, number) if ending == "close behind" else None)

    def _guest_opening(self, name: str) -> Command:
        return next(command for command in self.commands if command.visit == name and command.via == "open")

    def _burst(self, number: int) -> Iterator[tuple[str, list[Action]]]:
        """After a broadcast, one client is sent more than an outbox holds, and nothing else at that time."""
        name = self._dice.choice(list(self._present))
        steps = [("broadcast", self._dice.choice(ROOMS), 100), *[("send", name, BURST_BYTES)] * BURST]
        command = self.command(name, "own", number, *steps, ("send", name, 20))
        for other in self._present:
            yield other, [Action("await", self._guest_opening(other))]
        yield name, [Action("await", self._guest_opening(name)), Action("do", command), Action("await", command)]

    def _any_command(self, name: str, number: int) -> Command:
        dice = self._dice
        via = dice.choices(("own", "await", "plain", "finalizer"), (60, 10, 20, 10))[0]
        if via == "finalizer":  # finalizers must not use rooms
            steps = [self._send(name) for _ in range(dice.randint(1, 3))]
        else:
            kind = dice.choices(("mixed", "stream", "membership", "close"), (60, 12, 25, 3))[0]
            steps = list(getattr(self, f"_{kind}")(name))
        return self.command(name, via, number, *steps, ("send", name, 20))

    def _mixed(self, name: str) -> Iterator[tuple[Any, ...]]:
        for _ in range(self._dice.randint(1, 6)):
            yield self._send(name) if self._dice.random() < 0.5 else self._broadcast()

    def _stream(self, name: str) -> Iterator[tuple[Any, ...]]:
        """A broadcast, and at once many messages."""
        for _ in range(self._dice.randint(1, 2)):
            yield self._broadcast()
        pause = self._dice.choice((0, 50, 200))
        for number in range(self._dice.randint(10, 40)):
            yield "send", name, 20 + number
            if pause:
                yield "nap", "", pause

    def _membership(self, name: str) -> Iterator[tuple[Any, ...]]:
        room = self._dice.choice(ROOMS)
        for _ in range(self._dice.randint(2, 6)):
            yield self._dice.choice((("join", room), ("leave", room), ("broadcast", room, 40), ("send", name, 40)))

    def _close(self, name: str) -> Iterator[tuple[Any, ...]]:
        """The handler closes a session, with a broadcast and messages before and after it."""
        target = name if self._dice.random() < 0.6 else self._dice.choice(list(self._present) or [name])
        yield self._broadcast()
        yield "send", target, 50
        yield "close", target
        self._present.pop(target, None)
        yield "send", target, 50
        yield self._broadcast()

    def _send(self, name: str) -> tuple[Any, ...]:
        target = name if self._dice.random() < 0.6 else self._dice.choice(list(self._present) or [name])
        return "send", target, self._size()

    def _broadcast(self) -> tuple[Any, ...]:
        op = "broadcast" if self._dice.random() < 0.7 else "broadcast_except"
        return op, self._dice.choice(ROOMS), self._size()

    def _size(self) -> int:
        _, low, high = self._dice.choices(SIZES, [share for share, _, _ in SIZES])[0]
        size = self._dice.randint(low, high)
        if self._bytes + size > ROUND_BYTES:
            size = 10
        self._bytes += size
        return size


def message(number: int, size: int) -> str | bytes:
    """The message of a step. `handler.js` makes the same."""
    word = f"{number} " if number % 4 < 2 else f"{number} ä€"
    text = (word * (size // len(word) + 1))[: max(size, len(word))]
    return text.encode() if number % 4 == 0 else text
