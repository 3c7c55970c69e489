"""The guarantees as code: compares what clients received with what the handler noted.

At each quiet point, the checker reads the handler's journal (`ingest`), checks every stream (`check`) and the server's
state (`check_quiet`), and forgets all of it. So memory is bounded by one round. For one thread.

Each check says what it proves. It cannot prove that a message concurrent with a join or a leave had to arrive; if it
arrives, its order is checked. For a session that its client reset, it proves only that the received messages are a
prefix of the expected ones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from tests.stress.history import BYE, FOREVER, Ledger, Step, Violations, Visit
from tests.stress.order import common_order, find_gap, find_inversion

SHOWN = 5


class Span:
    """A membership: certain between `joined[1]` and `left[0]`, impossible before `joined[0]` and after `left[1]`."""

    __slots__ = ("joined", "left", "visit")

    def __init__(self, visit: Visit, began: int, ended: int) -> None:
        self.visit = visit
        self.joined: tuple[float, float] = (began, ended)
        self.left: tuple[float, float] = (FOREVER, FOREVER)


class Account:
    """What the journal says of one session."""

    __slots__ = ("closed", "expected", "is_closing", "kicked_at", "next_seq", "opened", "spans", "unasked", "user")

    def __init__(self) -> None:
        self.opened = self.closed = False
        self.next_seq = 0
        self.is_closing = False  # the handler has closed it: nothing more is sent
        self.kicked_at = FOREVER  # when another session's handler began to close it
        self.spans: dict[str, Span] = {}  # its memberships now, by room
        self.user: Span | None = None
        self.expected: list[Step] = []  # the results of its own steps that it must receive in this round
        self.unasked: set[tuple[int, int]] = set()  # requests that had no reply, since it has ended: they may be lost


class Checker:
    """See the module. Violations go to `violations`; `done` counts the checks."""

    def __init__(self, ledger: Ledger, violations: Violations) -> None:
        self._ledger = ledger
        self._violations = violations
        self._session_ids: set[str] = set()
        self._accounts: defaultdict[Visit, Account] = defaultdict(Account)
        # By room: the memberships that reach into this round, and its broadcasts, in the order in which they began.
        self._spans: defaultdict[str, list[Span]] = defaultdict(list)
        self._sent: defaultdict[str, list[Step]] = defaultdict(list)
        self._asked: list[Step] = []
        self.done: Counter[str] = Counter()

    def _wrong(self, check: str, text: str) -> None:
        self._violations.add(check, text)

    # The journal.

    def ingest(self, entries: Iterable[list[Any]]) -> None:
        """Read a part of the handler's journal, in the order of writing.

        Proves the life cycle: `on_open` once and first, each message once and in order and none after a gap, `on_close`
        once and last and with the right code, still a member and no longer open; calls that never overlap.
        """
        take = {"open": self._opened, "ran": self._ran, "close": self._closed, "wrong": self._misbehaved}
        take["asked"] = self._was_asked
        for kind, name, *what in entries:
            visit = self._ledger.visits.get(name.encode())
            if visit is None:
                self._wrong("life cycle", f"{kind} {what!r:.100} of {name}, which ended before an earlier quiet point")
                continue
            account = self._accounts[visit]
            if account.closed:
                self._wrong("life cycle", f"{kind} {what!r:.100} of {visit} after its on_close")
            elif not account.opened and kind != "open":
                self._wrong("life cycle", f"{kind} {what!r:.100} of {visit} before its on_open")
            else:
                take[kind](visit, account, *what)
            self.done["handler calls"] += 1
        for sent in self._sent.values():
            sent.sort(key=_began)

    def _misbehaved(self, visit: Visit, account: Account, text: str) -> None:
        self._wrong("life cycle", f"{visit}: {text}")

    def _was_asked(self, visit: Visit, account: Account, seq: int, index: int, trouble: str) -> None:
        """Proves that a request of the handler has the right reply, or an error if the session ends before."""
        self.done["replies to the handler"] += not trouble
        if trouble in ("SessionClosed", "RequestTimeout") and visit.end is not None:
            account.unasked.add((seq, index))
        elif trouble:
            self._wrong("requests", f"{visit}: the request {seq}/{index} of the handler had {trouble}")

    def _opened(self, visit: Visit, account: Account, session_id: str) -> None:
        if account.opened:
            self._wrong("life cycle", f"on_open of {visit} was called twice")
        if session_id in self._session_ids:
            self._wrong("life cycle", f"the session id of {visit} was used before")
        account.opened = True
        self._session_ids.add(session_id)

    def _ran(self, visit: Visit, account: Account, seq: int, times: list[int], farewells: list[str] | None) -> None:
        if seq == BYE:
            steps = [visit.farewell(room) for room in farewells or ()]
        else:
            command = visit.commands.get(seq)
            if seq != account.next_seq or command is None:
                self._wrong(
                    "messages in", f"{visit} sent up to {visit.last_seq}; the handler got {seq}, not {account.next_seq}"
                )
                return
            account.next_seq += 1
            steps = command.steps
        if seq in (0, BYE):
            self._follow_user(visit, account, times[0], is_over=seq == BYE)
        for step, began, ended in zip(steps, times[:-1], times[1:], strict=True):
            step.began, step.ended = began, ended
            self._follow(visit, account, step)

    def _follow_user(self, visit: Visit, account: Account, time: int, *, is_over: bool) -> None:
        """The model of a user: a session is one of its sessions before its `on_open`, and until its `on_close`."""
        if not is_over:
            account.user = Span(visit, -1, time)
            self._spans[visit.user].append(account.user)
        elif account.user is not None:
            account.user.left = (time, FOREVER)

    def _follow(self, visit: Visit, account: Account, step: Step) -> None:
        """The model of one step: memberships, and what the session itself must receive."""
        op, room, spans = step.op, step.room, account.spans
        if op == "j":
            if room not in spans:
                spans[room] = Span(visit, step.began, step.ended)
                self._spans[room].append(spans[room])
        elif op == "l":
            if room in spans:
                spans.pop(room).left = (step.began, step.ended)
        elif op == "c":
            account.is_closing = True
        elif op == "k":
            self._accounts[self._ledger.visits[room.encode()]].kicked_at = step.began
        elif not account.is_closing and (op in "semq" or (op == "b" and room in spans) or room == visit.user):
            account.expected.append(step)
        if op in "bxu":
            self._sent[room].append(step)
        elif op == "m":
            self._asked.append(step)

    def _closed(
        self, visit: Visit, account: Account, code: int, reason: str, rooms: list[str], alone: list[str], is_open: bool
    ) -> None:
        account.closed = True
        if visit.end is None:
            self._wrong("life cycle", f"on_close of {visit}, which is connected, with {code} {reason}")
        elif code not in visit.end.codes:
            self._wrong("life cycle", f"on_close of {visit} was given {code}, not {sorted(visit.end.codes)}")
        if rooms != sorted(account.spans):
            self._wrong("life cycle", f"in on_close {visit} was in {rooms}, not in {sorted(account.spans)}")
        if alone:
            self._wrong("life cycle", f"in on_close of {visit}, members() did not count it in {alone}")
        if is_open:
            self._wrong("life cycle", f"{visit} was open, or could send, in on_close")
        for room, span in account.spans.items():
            last = visit.farewell(room).ended  # the clock was read before the end of the membership
            span.left = (FOREVER if last is None else last, FOREVER)
        account.spans = {}

    # Streams.

    def unheard(self) -> list[Visit]:
        """Connected sessions with messages that are not in the journal yet."""
        visits = self._ledger.visits.values()
        return [visit for visit in visits if visit.end is None and self._accounts[visit].next_seq <= visit.last_seq]

    def missing(self) -> dict[Visit, set[Step]]:
        """Messages that connected sessions must still receive."""
        lacking = {
            visit: set(account.expected)
            for visit, account in self._accounts.items()
            if visit.end is None and account.opened
        }
        for room in list(self._spans):
            for visit, spans in self._spans_in(room).items():
                if visit in lacking:
                    lacking[visit] |= self._wanted(visit, room, spans)
        for visit, steps in lacking.items():
            steps.difference_update(visit.stream)
        return {visit: steps for visit, steps in lacking.items() if steps}

    def check(self) -> None:
        """Check all messages received since the last quiet point, in every session, and forget them."""
        for visit in list(self._ledger.visits.values()):
            self._check_ended(visit)
            if self._check_known(visit):
                self._check_own(visit)
                self._check_inversion(visit)
        self._check_rooms()
        self._check_asked()
        self._forget()

    def _check_ended(self, visit: Visit) -> None:
        """Proves that `on_close` was called for all ended sessions, and that all of their messages were handled."""
        account, end = self._accounts[visit], visit.end
        if not account.opened:
            if end is None or end.opened:
                self._wrong("life cycle", f"{visit} has had no on_open")
            return
        if end is not None and not account.closed:
            self._wrong("life cycle", f"{visit} has had no on_close")
        if (end is None or end.handled) and account.next_seq <= visit.last_seq:
            self._wrong(
                "messages in", f"of {visit}, {account.next_seq} of {visit.last_seq + 1} messages were handled"
            )
        self.done["sessions"] += end is not None

    def _check_known(self, visit: Visit) -> bool:
        """Proves that each received step belongs to a handler call that has ended. The other checks rely on this."""
        unknown = [step for step in visit.stream if step.began is None]
        if unknown:
            self._wrong("messages in", f"{visit} received {unknown[:SHOWN]}, whose handler call never ended")
        return not unknown

    def _check_own(self, visit: Visit) -> None:
        """Proves that a session received exactly the results of its own commands, in the order of the calls.

        These are all `send`s, and all `broadcast`s to rooms that it was in, in one order. For a session that lost its
        connection, or that ended while its handler waited for its reply: a prefix of that.
        """
        unasked = self._accounts[visit].unasked
        expected, own = (
            [step for step in steps if step.command.visit is visit and (step.command.seq, step.index) not in unasked]
            for steps in (self._accounts[visit].expected, visit.stream)
        )
        if visit.end is not None and visit.end.torn:
            arrived, kicked_at = set(own), self._accounts[visit].kicked_at
            expected = [step for step in expected if step in arrived or step.ended <= kicked_at]
        elif visit.end is not None and (unasked or not visit.end.complete):
            expected = expected[: len(own)]
        self.done["own messages"] += len(own)
        if own != expected:
            at = next((n for n, pair in enumerate(zip(own, expected, strict=False)) if pair[0] is not pair[1]), None)
            at = min(len(own), len(expected)) if at is None else at
            self._wrong(
                "own messages",
                f"{visit} got {len(own)} of {len(expected)}; from {at} on {own[at : at + SHOWN]}, "
                f"not {expected[at : at + SHOWN]}",
            )

    def _check_inversion(self, visit: Visit) -> None:
        """Proves the order of messages from one sender, and from handler calls that did not overlap."""
        self.done["orders of streams"] += 1
        if found := find_inversion(visit.stream):
            self._wrong("order", f"{visit} received {found[0]} before {found[1]}")

    # Rooms.

    def _check_rooms(self) -> None:
        received: defaultdict[str, dict[Visit, list[Step]]] = defaultdict(dict)
        for visit in self._ledger.visits.values():
            for step in visit.stream:
                if step.is_broadcast and step.began is not None:
                    received[step.room].setdefault(visit, []).append(step)
        for room in sorted(self._spans.keys() | received.keys()):
            self._check_room(room, received[room])

    def _check_room(self, room: str, received: dict[Visit, list[Step]]) -> None:
        spans = self._spans_in(room)
        for visit in spans.keys() | received.keys():
            self._check_delivered(visit, room, spans[visit], received.get(visit, []))
        order, circle = common_order(received.values())
        self.done["orders of rooms"] += 1
        if circle:
            self._wrong("order of a room", _describe_circle(room, circle, received))
            return
        for visit, stream in received.items():
            if len(spans[visit]) == 1:  # for a session that left and rejoined, the gap may be its absence
                not_sent = {step for step in self._sent[room] if step.op == "x" and step.command.visit is visit}
                self.done["gaps"] += 1
                if gap := find_gap(stream, order, received.values(), not_sent):
                    self._wrong("gap", f"{room}: {visit} got {gap[0]} and {gap[2]}, and not {gap[1]} in between")

    def _check_delivered(self, visit: Visit, room: str, spans: list[Span], received: list[Step]) -> None:
        """Proves that no message was lost, duplicated, or sent to a session that was not a member."""
        got = set(received)
        self.done["deliveries"] += len(received)
        if len(got) < len(received):
            twice = [step for step, times in Counter(received).items() if times > 1]
            self._wrong("doubled", f"{room}: {visit} received {len(twice)} messages twice: {twice[:SHOWN]}")
        lost = self._wanted(visit, room, spans) - got
        if lost:
            first = sorted(lost, key=lambda step: step.began)[:SHOWN]
            self._wrong("lost", f"{room}: {visit} did not receive {len(lost)} of {len(got | lost)} messages: {first}")
        starts = [span.joined[0] for span in spans]
        for step in got:
            # Memberships do not overlap: only the last one that began before the step's end can match.
            last = bisect_left(starts, step.ended) - 1
            is_member = last >= 0 and step.began < spans[last].left[1]
            if not is_member or (step.op == "x" and step.command.visit is visit):
                self._wrong("not a member", f"{room}: {visit} received {step}")

    def _wanted(self, visit: Visit, room: str, spans: list[Span]) -> set[Step]:
        """The broadcasts of a room that a session must get.

        For an ended session: the broadcasts that ended before the last one that it received began. A session's messages
        are sent in the order in which they were queued.
        """
        horizon = FOREVER
        if visit.end is not None:
            horizon = max((step.began for step in visit.stream if step.began is not None), default=-1)
        sent = self._sent[room]
        wanted = set()
        for span in spans:
            end = min(span.left[0], horizon)
            start = bisect_left(sent, span.joined[1], key=_began)
            stop = bisect_left(sent, end, lo=start, key=_began)
            wanted.update(step for step in sent[start:stop] if step.ended <= end)
        return {step for step in wanted if step.op != "x" or step.command.visit is not visit}

    def _spans_in(self, room: str) -> defaultdict[Visit, list[Span]]:
        found: defaultdict[Visit, list[Span]] = defaultdict(list)
        for span in self._spans[room]:
            found[span.visit].append(span)
        return found

    def _check_asked(self) -> None:
        """Proves that `members()`, called at any time, counts all certain members and no impossible ones."""
        for step in self._asked:
            if step.count is None:
                continue  # the answer was lost with the connection
            spans = self._spans[step.room]
            low = sum(span.joined[1] <= step.began and step.ended <= span.left[0] for span in spans)
            high = sum(span.joined[0] < step.ended and step.began < span.left[1] for span in spans)
            self.done["members() at any time"] += 1
            if not low <= step.count <= high:
                self._wrong("members()", f"{step} said {step.count}: it must be {low} to {high}")

    def lose_journal(self) -> None:
        """The handler has died with its journal, and all sessions have ended. Nothing can be checked in this round."""
        self._ledger.visits.clear()
        for memory in (self._accounts, self._spans, self._sent, self._asked):
            memory.clear()

    def _forget(self) -> None:
        visits = self._ledger.visits
        for name, visit in list(visits.items()):
            if visit.end is not None:
                del visits[name]
                self._accounts.pop(visit, None)
                continue
            visit.stream.clear()
            visit.commands.clear()
            self._accounts[visit].expected.clear()
        self._sent.clear()
        self._asked.clear()
        for room, spans in list(self._spans.items()):
            left = [span for span in spans if span.left[0] == FOREVER and span.visit.end is None]
            if left:
                self._spans[room] = left
            else:
                del self._spans[room]

    # Quiet points.

    def members(self) -> dict[str, int]:
        """The required number of members of each existing room."""
        counts: Counter[str] = Counter()
        for account in self._accounts.values():
            counts.update(account.spans.keys())
        return dict(counts)

    def check_quiet(self, state: dict[str, Any], over_wire: dict[str, int]) -> None:
        """Proves that the server's state matches the model.

        `state` comes from the control endpoint, `over_wire` from a handler.

        Sessions, places of the admission, the names of the rooms, their members; and the invariants of the server's own
        data structures.
        """
        members, alive = self.members(), sum(visit.end is None for visit in self._ledger.visits.values())
        self.done["members() at quiet points"] += len(over_wire) + len(state["rooms"])
        if state["rooms"] != members:
            self._wrong("members()", f"the server has {_difference(state['rooms'], members)}")
        told = {room: count for room, count in over_wire.items() if count}
        if told != {room: members[room] for room in over_wire if room in members}:
            self._wrong("members()", f"a session was told of {_difference(over_wire, members)}")
        if (state["sessions"], state["taken"]) != (alive, alive):
            self._wrong("sessions", f"{alive} connected, {state['sessions']} known, {state['taken']} places taken")
        for text in state["broken"]:
            self._wrong("invariant", text)


def _began(step: Step) -> int:
    return step.began


def _difference(seen: dict[str, int], model: dict[str, int]) -> str:
    """The rooms in which two counts differ."""
    rooms = [room for room in sorted(seen.keys() | model.keys()) if seen.get(room, 0) != model.get(room, 0)]
    rooms = rooms or sorted(seen.keys() ^ model.keys())
    return ", ".join(f"{seen.get(room)} in {room}, not {model.get(room, 0)}" for room in rooms[:SHOWN])


def _describe_circle(room: str, circle: list[Step], received: dict[Visit, list[Step]]) -> str:
    """For each pair of the circle: a witness that received one directly before the other."""
    seen = []
    for before, after in zip(circle[:SHOWN], [*circle[1:], circle[0]], strict=False):
        witness = next(
            visit for visit, stream in received.items() if (before, after) in zip(stream, stream[1:])  # noqa: B905, RUF007
        )
        seen.append(f"{witness} saw {before} and then {after}")
    return f"{room}: {len(circle)} messages have no common order: " + "; ".join(seen)
