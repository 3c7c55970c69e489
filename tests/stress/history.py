"""What clients did and received: commands with their steps, and the stream of steps of each session.

A client sends *commands*, each of which is one call of the handler. A command is a sequence of steps, which the handler
executes in this order, and a body:

==== ====================================================================================
op   what the handler does
==== ====================================================================================
j, l joins, leaves a room
b, x broadcasts the body to a room, to all or to all but this session
u    sends the body to all sessions of a user, which is checked as a room that a session cannot leave
e    sends the body to this session
s    sends a marker to this session; most commands end with one, to show that they are done
m    sends the number of a room's members to this session
q    asks the client, by a request with the body, and checks the reply: the request itself, ``qn`` nothing, ``qe`` an
     error
c    closes this session with a code
k    closes another session, which is named, with the code `KICKED`
==== ====================================================================================

On the wire, a command is ``<seq> <step> <step> …\\n<body>``, a step being its op and the room (or the code); the result
of a step is ``<session> <seq> <index of the step>\\n<body>``. The steps of the command 0 run in ``on_open``, those of
the command `BYE` in ``on_close``: a farewell to each room that the session is still in, whose body is the room's name.

After its steps, a command may have a fault, such as ``!raise``: the handler does all steps and then fails in that way.
A command may be a request. Then its last word is ``?r``, ``?n`` or ``?e``: the handler replies by what it was asked, by
nothing, or by an error.

The handler reads one integer clock before the first step and after each one. So each step has an interval in server
time, from `began` to `ended`. Two intervals that do not overlap have a certain order.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from threading import Event, Lock
from time import monotonic
from zlib import crc32

#: The deadline of all waits, long enough for busy machines.
SCALE = float(os.environ.get("WSTHREADS_TEST_SCALE", "1"))

BYE = -1
FAULT, ASKED = "!", "?"
KICKED = 4001
USERS = 8
FOREVER = float("inf")


class Wrong(Exception):
    """A violation of a guarantee. `check` names the guarantee."""

    def __init__(self, check: str, text: str) -> None:
        self.check, self.text = check, text
        super().__init__(f"{check}: {text}")


class Violations:
    """All violations. Any thread."""

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
    """One step of a command. A received message refers to its step. `count` is the result of an ``m``."""

    __slots__ = ("began", "command", "count", "ended", "index", "op", "room")

    def __init__(self, command: Command, index: int, op: str, room: str) -> None:
        self.command, self.index, self.op, self.room = command, index, op, room
        self.began: int | None = None  # None until the journal has been read
        self.ended: int | None = None
        self.count: int | None = None

    @property
    def is_broadcast(self) -> bool:
        return self.op in "bxu"

    def __repr__(self) -> str:
        when = "never journalled" if self.began is None else f"at {self.began}-{self.ended}"
        return f"{self.command.visit.name}/{self.command.seq}/{self.index} {self.op}{self.room} ({when})"


class Command:
    """What one call of the handler must do."""

    __slots__ = ("binary", "crc", "seq", "steps", "visit")

    def __init__(self, visit: Visit, seq: int, steps: list[str], body: bytes = b"", binary: bool = False) -> None:
        self.visit, self.seq, self.binary, self.crc = visit, seq, binary, crc32(body)
        self.steps = [Step(self, index, step[0], step[1:]) for index, step in enumerate(steps)]


@dataclass(frozen=True)
class End:
    """How a session ended, and the required consequences.

    `codes` are the permitted codes of ``on_close``. `handled`: all commands must have been handled. `complete`: all
    messages to the session must have arrived. Otherwise a prefix of them must have arrived; if `torn`, any of them in
    order, with all that were sent before a kick. `opened`: the session was certainly opened.
    """

    kind: str
    codes: frozenset[int] = frozenset({1006})
    handled: bool = False
    complete: bool = False
    torn: bool = False
    opened: bool = True


def user_of(name: str) -> str:
    """The user of a session with this name. Sessions of other clients have the same one, but for the control's."""
    number = name.split(".")[0]
    return f"user{int(number) % USERS}" if number.isdigit() else number


class Visit:
    """One session as its client saw it. The client's thread writes; others read while that thread waits."""

    def __init__(self, name: str, steps: list[str]) -> None:
        self.name, self.user = name, user_of(name)
        self.session_id: str | None = None
        self.commands = {0: Command(self, 0, steps)}  # commands of this round, by seq
        self.last_seq = 0
        self.stream: list[Step] = []  # messages received since the last quiet point
        self.end: End | None = None
        self._bye = Command(self, BYE, [])
        self._bye_lock = Lock()  # several members receive the same farewell

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
    """All sessions that can still be the sender of a message. `add` and `receive` in any thread."""

    def __init__(self) -> None:
        self.visits: dict[bytes, Visit] = {}  # by name; entries are removed only at quiet points

    def add(self, visit: Visit) -> None:
        self.visits[visit.name.encode()] = visit

    def receive(self, receiver: Visit, payload: bytes, binary: bool) -> Step:
        """Record a received message. Returns its step.

        Raises `Wrong` if no client sent it in this round, or if its bytes differ from the sent ones.
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
        """Check that kind and checksum match the command that the message names."""
        command = step.command
        if command.seq == BYE:
            right = not binary
        elif step.op in "bxueq":
            right = crc32(body) == command.crc and binary == command.binary
        elif step.op == "m":
            step.count = int(body)
            right = not binary
        else:
            right = not body and not binary
        if not right:
            raise Wrong("damaged", f"{receiver.name}: {len(body)} bytes of {step}, of another checksum or kind")
