"""What clients did and saw: commands with their steps, and the stream of steps that each session received.

A client sends *commands*, each of which is one call of the handler. A command is a sequence of steps, which the handler
executes in this order, and a body:

==== ====================================================================================
op   what the handler does
==== ====================================================================================
j, l joins, leaves a room
b, x broadcasts the body to a room, to all or to all but this session
e    sends the body to this session
s    sends a marker to this session; most commands end with one: it says that they are done
m    sends the number of a room's members to this session
c    closes this session with a code
k    closes another session, which is named, with the code `KICKED`
==== ====================================================================================

On the wire a command is ``<seq> <step> <step> …\\n<body>``, a step being its op and the room (or the code); what comes
of a step is ``<session> <seq> <index of the step>\\n<body>``. The steps of the command 0 run in ``on_open``, those of
the command `BYE` in ``on_close``: a farewell to each room that the session is still in, whose body is the room's name.

Behind its steps a command may have a fault, such as ``!raise``: the handler does all the steps, and then fails so.

The handler reads one clock of whole numbers before the first step and after each one. So each step has an interval,
`began` to `ended`, in the time of the server, and of two intervals that do not overlap it is certain which came first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from threading import Event, Lock
from time import monotonic
from zlib import crc32

#: Of all waits: for machines that have much else to do.
SCALE = float(os.environ.get("WSTHREADS_TEST_SCALE", "1"))

BYE = -1
FAULT = "!"
KICKED = 4001
FOREVER = float("inf")


class Wrong(Exception):
    """Something that a promise rules out. `check` names the promise."""

    def __init__(self, check: str, text: str) -> None:
        self.check, self.text = check, text
        super().__init__(f"{check}: {text}")


class Violations:
    """All that went wrong. Any thread."""

    KEPT = 50

    def __init__(self) -> None:
        self._lock = Lock()  # guards what follows
        self.count = 0
        self.first: list[str] = []
        self.happened = Event()
        self.first_at: float | None = None  # monotonic

    def add(self, check: str, text: str) -> None:
        with self._lock:
            self.count += 1
            self.first_at = self.first_at or monotonic()
            if len(self.first) < self.KEPT:
                self.first.append(f"{check}: {text}")
        self.happened.set()


class Step:
    """One step of a command; what is received is a reference to it. `count` is what an ``m`` was told."""

    __slots__ = ("began", "command", "count", "ended", "index", "op", "room")

    def __init__(self, command: Command, index: int, op: str, room: str) -> None:
        self.command, self.index, self.op, self.room = command, index, op, room
        self.began: int | None = None  # None until the handler's journal tells
        self.ended: int | None = None
        self.count: int | None = None

    @property
    def is_broadcast(self) -> bool:
        return self.op in "bx"

    def __repr__(self) -> str:
        when = "never journalled" if self.began is None else f"at {self.began}-{self.ended}"
        return f"{self.command.visit.name}/{self.command.seq}/{self.index} {self.op}{self.room} ({when})"


class Command:
    """What one call of the handler is told to do."""

    __slots__ = ("binary", "crc", "seq", "steps", "visit")

    def __init__(self, visit: Visit, seq: int, steps: list[str], body: bytes = b"", binary: bool = False) -> None:
        self.visit, self.seq, self.binary, self.crc = visit, seq, binary, crc32(body)
        self.steps = [Step(self, index, step[0], step[1:]) for index, step in enumerate(steps)]


@dataclass(frozen=True)
class End:
    """How a session ended, and what must follow from that.

    `codes` are those that ``on_close`` may have been given. `handled`: all commands must have been. `complete`: all
    that the session was sent must have arrived; otherwise only a first part of it, or if it is `torn`, any parts of
    it, in order, and all that was over before it was kicked. `opened`: it surely was.
    """

    kind: str
    codes: frozenset[int] = frozenset({1006})
    handled: bool = False
    complete: bool = False
    torn: bool = False
    opened: bool = True


class Visit:
    """One session, as its client saw it. Its client's thread writes; others read while that one waits."""

    def __init__(self, name: str, steps: list[str]) -> None:
        self.name = name
        self.session_id: str | None = None
        self.commands = {0: Command(self, 0, steps)}  # those of this round, by seq
        self.last_seq = 0
        self.stream: list[Step] = []  # what came in since the last quiet point
        self.end: End | None = None
        self._bye = Command(self, BYE, [])
        self._bye_lock = Lock()  # several members get the same farewell

    def add_command(self, steps: list[str], body: bytes, binary: bool) -> Command:
        self.last_seq += 1
        command = self.commands[self.last_seq] = Command(self, self.last_seq, steps, body, binary)
        return command

    def farewell(self, room: str) -> Step:
        """The step of the command `BYE` for a room."""
        with self._bye_lock:
            for step in self._bye.steps:
                if step.room == room:
                    return step
            step = Step(self._bye, len(self._bye.steps), "x", room)
            self._bye.steps.append(step)
            return step

    def __repr__(self) -> str:
        return f"{self.name} ({self.end.kind if self.end else 'open'})"


class Ledger:
    """All sessions that a message can still come from. `add` and `receive` in any thread."""

    def __init__(self) -> None:
        self.visits: dict[bytes, Visit] = {}  # by name; only added to, but at quiet points

    def add(self, visit: Visit) -> None:
        self.visits[visit.name.encode()] = visit

    def receive(self, receiver: Visit, payload: bytes, binary: bool) -> Step:
        """Note a message; the step that it came of.

        Raises `Wrong` for one that nobody sent (in this round), or whose bytes are not those that were sent.
        """
        head, _, body = payload.partition(b"\n")
        try:
            name, seq_text, index = head.split(b" ")
            sender, seq = self.visits[name], int(seq_text)
            step = sender.farewell(body.decode()) if seq == BYE else sender.commands[seq].steps[int(index)]
        except (KeyError, ValueError, IndexError):
            raise Wrong("damaged or late", f"{receiver.name}: nobody sent {payload[:100]!r} now") from None
        self._check_body(receiver, step, body, binary)
        receiver.stream.append(step)
        return step

    def _check_body(self, receiver: Visit, step: Step, body: bytes, binary: bool) -> None:
        """Undamaged: kind and checksum are those of the command that the message claims to come of."""
        command = step.command
        if command.seq == BYE:
            right = not binary
        elif step.op in "bxe":
            right = crc32(body) == command.crc and binary == command.binary
        elif step.op == "m":
            step.count = int(body)
            right = not binary
        else:
            right = not body and not binary
        if not right:
            raise Wrong("damaged", f"{receiver.name}: {len(body)} bytes of {step}, of another checksum or kind")
