"""The model: which messages each client must have received, and which it must not.

It checks the promises of DESIGN.md, section 2, as far as the order of steps is certain.

The order of two steps is certain in two cases: one thread did both, or the first was known to be done before the second
was sent. The checker relies on nothing else, in particular not on a server's clock.

Over Redis (`shared`), a broadcast reaches the members a moment after its call. It has surely reached them at the end of
the round, and before the next step of the same thread. During a fault of Redis, even the latter is uncertain: a `send`
may overtake a broadcast, a broadcast to one room may overtake that to another, and a join may be too late. Two promises
hold always: nothing is lost or doubled, and each room has one order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from tests.stress.history import Violations
from tests.stress.model.client import Client
from tests.stress.model.program import FOREVER, ROOMS, Command, Program, Step
from tests.stress.order import common_order

SHOWN = 3

#: The results of steps that did nothing: Redis was away for too long, or the session had ended.
NOT_DONE = ("refused", "gone")

#: Commands that a session's own thread carries out, in the client's order, before it reads the next message.
OWN = ("open", "own", "await")


class Checker:
    """`take` records the journals of the servers. The other methods answer questions of the run. One thread."""

    def __init__(
        self, program: Program, clients: Mapping[str, Client], violations: Violations, *, shared: bool
    ) -> None:
        self._program, self._clients, self._violations, self._shared = program, clients, violations, shared
        self._settled_at: dict[int, float] = {}  # by round
        self._round = 0  # the current one
        self._trouble = {round.number for round in program.rounds if shared and round.fault not in (None, "slow")}
        self._flushed = {round.number for round in program.rounds if shared and "flushed" in (round.fault or "")}
        self._emptied = min(self._flushed, default=FOREVER)  # the first of these
        self._places: Counter[tuple[object, ...]] = Counter()
        self._opened: Counter[object] = Counter()
        self._closed: Counter[object] = Counter()
        self._rooms_at_close: dict[str, list[str]] = {}
        self._moves: defaultdict[tuple[str, str], list[Step]] = defaultdict(list)  # joins and leaves by name and room
        self._closes: defaultdict[str, list[Step]] = defaultdict(list)  # closes by handlers, by name
        self.excused = 0  # messages that were lost because Redis lost its data
        self.done: Counter[str] = Counter()

    # Journals of servers.

    def take(self, process: str, entries: Iterable[list[object]]) -> None:
        """Record the next part of a process's journal."""
        for kind, *what in entries:
            if kind == "did":
                thread, number, result = what
                self._did(self._program.steps[int(number)], (process, thread), result)
            elif kind == "opened":
                self._opened[what[0]] += 1
            elif kind == "closed":
                name, _, rooms = what
                self._closed[name] += 1
                self._rooms_at_close[str(name)] = list(rooms)
            else:
                self._wrong("life cycle", str(what[0]))

    def _did(self, step: Step, thread: tuple[object, ...], result: object) -> None:
        if step.thread is not None:
            self._wrong("messages in", f"{step} was done twice")
        step.thread, step.result = thread, result
        if step.command.via == "last":
            step.command.round = self._round  # its round was not known before
        step.place = self._places[thread] = self._places[thread] + 1
        self.done["steps"] += 1
        if result == "refused" and step.command.round not in self._trouble:
            self._wrong("refused", f"{step} was refused, but Redis was available in this round")
        if step.op in ("join", "leave") and result != "gone":
            self._moves[step.command.visit, step.argument].append(step)
        elif step.op == "close" and result != "gone":
            self._closes[step.argument].append(step)

    def undone(self) -> list[Command]:
        """Commands that were sent and must be carried out, but have not been."""
        return [
            command
            for command in self._program.commands
            if command.steps[-1].thread is None and self._is_to_be_done(command)
        ]

    def unclosed(self) -> list[str]:
        """Sessions that have ended without a call of `on_close`."""
        return [name for name, client in self._clients.items() if client.is_over and not self._closed[name]]

    def settle(self, number: int, now: float) -> None:
        """A round is over: all steps are done, and the clients have received all messages."""
        self._settled_at[number], self._round = now, number + 1
        for command in self._program.commands:
            if command.round == number and command.steps[-1].thread is not None:
                command.done_at = min(command.done_at, now)

    def _is_to_be_done(self, command: Command) -> bool:
        client = self._clients.get(command.visit)
        if client is None or command.sent_at == FOREVER or (command.via == "last" and not client.is_over):
            return False
        # Messages after a close frame are not read, and it is not known when a handler's close frame was sent.
        return not self._closes[client.name] and client.end not in ("FIN", "RST")

    # What is certain.

    def _precedes(self, one: Step, other: Step) -> bool:
        if one.thread == other.thread:
            return one.place < other.place
        return one.command.done_at < other.command.sent_at

    def _settles_before(self, broadcast: Step, step: Step) -> bool:
        """Whether a broadcast had surely reached all members before a step."""
        if not self._shared:
            return self._precedes(broadcast, step)
        if broadcast.thread == step.thread and broadcast.command.round not in self._trouble:
            return broadcast.place < step.place
        return self._settled_at.get(broadcast.command.round, FOREVER) < step.command.sent_at

    def _settles_before_end(self, broadcast: Step, client: Client) -> bool:
        """Whether a broadcast had surely arrived before the client, or a handler, began to end the session."""
        command, closes = broadcast.command, self._closes[client.name]
        rested_at = self._settled_at.get(command.round, FOREVER)
        if client.is_over and not client.is_clean:  # messages after the last quiet moment may be lost
            return rested_at < min([client.ended_at, *(close.command.sent_at for close in closes)])
        if not all(self._settles_before(broadcast, close) for close in closes):
            return False
        if client.end is None or (rested_at if self._shared else command.done_at) < client.ended_at:
            return True
        is_own = command.visit == client.name and command.via in OWN
        return is_own and command.round not in self._trouble

    def _admits(self, join: Step, broadcast: Step) -> bool:
        """Whether the join was done when the broadcast was made."""
        in_trouble = join.command.round in self._trouble and join.command.round == broadcast.command.round
        return self._precedes(join, broadcast) and (not in_trouble or broadcast.command.is_mark)

    def _is_member(self, client: Client, broadcast: Step) -> bool:
        """Whether a session surely was in the room, from the broadcast until it had reached all members."""
        moves = self._moves[client.name, broadcast.argument]
        joins = [move for move in moves if move.op == "join" and self._admits(move, broadcast)]
        leaves = [move for move in moves if move.op == "leave" and not self._settles_before(broadcast, move)]
        # A leave does not matter if a join followed it, before the broadcast.
        return bool(joins) and all(any(self._precedes(leave, join) for join in joins) for leave in leaves)

    def _must_see(self, client: Client, broadcast: Step) -> bool:
        if _is_left_out(client, broadcast) or broadcast.result in NOT_DONE:
            return False
        return self._is_member(client, broadcast) and self._settles_before_end(broadcast, client)

    def _may_see(self, client: Client, broadcast: Step) -> bool:
        if _is_left_out(client, broadcast) or broadcast.result in NOT_DONE:
            return False
        moves = self._moves[client.name, broadcast.argument]
        leaves = [move for move in moves if move.op == "leave"]
        return any(
            move.op == "join"
            and not self._settles_before(broadcast, move)
            and not any(self._precedes(move, leave) and self._precedes(leave, broadcast) for leave in leaves)
            for move in moves
        )

    def _was_sent(self, send: Step) -> bool:
        return send.op == "send" and send.result is True

    def _may_be_in(self, name: str, room: str) -> set[bool]:
        """Whether a session is in a room at the end: all answers that are possible after its last joins and leaves."""
        moves = self._moves[name, room]
        last = [move for move in moves if not any(self._precedes(move, other) for other in moves)]
        return {move.op == "join" for move in last} or {False}

    # Checks.

    def _wrong(self, check: str, text: str) -> None:
        self._violations.add(check, text)

    def members(self, room: str) -> tuple[int, int]:
        """The least and the largest possible number of members at the end."""
        states = [self._may_be_in(name, room) for name, client in self._clients.items() if not client.is_over]
        return sum(state == {True} for state in states), sum(True in state for state in states)

    def missing(self, *, excused: bool = False) -> dict[str, list[Step]]:
        """The messages that clients must have received, but have not. With `excused`, those that Redis has lost."""
        found: dict[str, list[Step]] = {}
        done = [step for step in self._program.steps.values() if step.thread is not None]
        sends: defaultdict[str, list[Step]] = defaultdict(list)
        for step in done:
            if self._was_sent(step):
                sends[step.argument].append(step)
        broadcasts = [step for step in done if step.is_broadcast]
        for name, client in self._clients.items():
            had = set(client.stream)
            lacking = []
            if client.is_clean or not client.is_over:
                lacking += [step for step in sends[name] if step not in had]
            lacking += [step for step in broadcasts if step not in had and self._must_see(client, step)]
            lacking = [step for step in lacking if self._is_excused(step) == excused]
            if lacking:
                found[name] = lacking
        return found

    def check(self) -> None:
        """Check everything. Call it when nothing is under way any more."""
        self._check_lost()
        for client in self._clients.values():
            self._check_stream(client)
            self._check_threads(client)
            self._check_life(client)
        self._check_answers()
        for room in ROOMS:
            streams = [
                [step for step in client.stream if step.argument == room and step.is_broadcast]
                for client in self._clients.values()
            ]
            _, circle = common_order(streams)
            self.done["orders of rooms"] += 1
            if circle:
                self._wrong("order of a room", f"{room}: each of {circle[:SHOWN]} came before the next, in a circle")

    def _is_excused(self, step: Step) -> bool:
        return step.is_broadcast and step.command.round in self._flushed and not step.command.is_mark

    def _check_lost(self) -> None:
        self.excused += sum(map(len, self.missing(excused=True).values()))
        for name, lost in self.missing().items():
            moves = [move for step in lost[:1] for move in self._moves[name, step.argument] if step.is_broadcast]
            how = f"; its joins and leaves: {moves}" if moves else ""
            self._wrong("lost", f"{self._clients[name]} did not receive {len(lost)}: {lost[:SHOWN]}{how}")

    def _check_stream(self, client: Client) -> None:
        self.done["deliveries"] += len(client.stream)
        doubled = [step for step, count in Counter(client.stream).items() if count > 1]
        if doubled:
            self._wrong("doubled", f"{client.name} received {len(doubled)} twice: {doubled[:SHOWN]}")
        for step in client.stream:
            if step.thread is None:
                self._wrong("messages in", f"{client.name} received {step}, which is in no journal")
            elif step.op == "send":
                if step.argument != client.name or step.result is not True:
                    self._wrong("not sent", f"{client.name} received {step}, which returned {step.result!r}")
            elif not self._may_see(client, step):
                moves = self._moves[client.name, step.argument]
                self._wrong("not a member", f"{client.name} received {step}; its joins and leaves: {moves}")

    def _check_threads(self, client: Client) -> None:
        """What one thread sends to one session arrives in the order of its calls."""
        latest: dict[tuple[object, ...], Step] = {}
        for step in client.stream:
            if step.thread is None:
                continue
            channel = step.argument if step.is_broadcast else "send"
            keys: list[tuple[object, ...]] = [(step.thread, channel)]
            if not self._may_go_astray(client, step):
                keys.append((step.thread,))
            for key in keys:
                before = latest.get(key)
                if before is not None and before.place > step.place:
                    moves = [
                        move
                        for one in (step, before)
                        if one.is_broadcast
                        for move in self._moves[client.name, one.argument]
                    ]
                    how = f"; its joins and leaves: {moves}" if moves else ""
                    self._wrong("order of calls", f"{client.name} received {before} before {step}{how}")
                    return
                latest[key] = step

    def _may_go_astray(self, client: Client, step: Step) -> bool:
        """Whether the message of a step and others of the same thread may arrive in any order. Only over Redis.

        They may during a fault, and if the session joins or leaves meanwhile: then it need not receive the broadcast.
        They may also after Redis has lost its data: each room notices this at another time, and reads its log again.
        """
        if not self._shared:
            return False
        if step.command.round in self._trouble or step.command.round >= self._emptied:
            return True
        return step.is_broadcast and not self._is_member(client, step)

    def _check_life(self, client: Client) -> None:
        name = client.name
        if self._opened[name] > 1 or self._closed[name] > 1:
            self._wrong(
                "life cycle", f"{name}: on_open {self._opened[name]} times, on_close {self._closed[name]} times"
            )
        if self._closed[name] and not client.is_over and client.end is None and not self._closes[name]:
            self._wrong("life cycle", f"on_close was called for {name}, which is connected")
        if name in self._rooms_at_close:
            found = self._rooms_at_close[name]
            for room in ROOMS:
                moves = self._moves[name, room]
                if all(move.command.via in OWN for move in moves) and (room in found) not in self._may_be_in(
                    name, room
                ):
                    self._wrong("rooms", f"in on_close, {name} was in {found}; its joins and leaves: {moves}")

    def _check_answers(self) -> None:
        """`send` is true until the session is closed, and false from then on."""
        for step in self._program.steps.values():
            client = self._clients.get(step.argument)
            if step.op != "send" or client is None:
                continue
            closes = self._closes[client.name]
            if step.result is False and step.command.via != "last" and client.ended_at > step.command.done_at:
                if not any(not self._precedes(step, close) for close in closes):
                    self._wrong("denied", f"{step} returned false, but {client.name} was open")
            elif step.result is True and any(
                close.thread == step.thread and close.place < step.place for close in closes
            ):
                self._wrong("sent when closed", f"{step} returned true, after a close by the same thread")


def _is_left_out(client: Client, broadcast: Step) -> bool:
    return broadcast.op == "broadcast_except" and broadcast.command.visit == client.name
