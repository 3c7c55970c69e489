"""The stress test itself: it passes in small, and its checker finds what is wrong in a history."""

import os
import re
import subprocess
import sys
from collections import deque
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from tests.stress import perturb as perturbing
from tests.stress.chaos import Chaos
from tests.stress.checker import Checker
from tests.stress.client import Lost, WebSocket
from tests.stress.daredevil import LATE, LATE_EVERY, Daredevil
from tests.stress.history import BYE, End, Ledger, Violations, Visit, Wrong
from tests.stress.log import EXPECTED, Log
from tests.stress.order import common_order, find_gap, find_inversion
from tests.stress.server import SCRIPT_TIMEOUT_S
from tests.stress.visitor import PATIENCE_S
from tests.stress.world import World
from wsthreads.javascript.engine import MAX_STRETCH
from wsthreads.protocol import frames

ROOT = Path(__file__).resolve().parent.parent
SCALE = float(os.environ.get("WSTHREADS_TEST_SCALE", "1"))
CLOSED = End("closed", frozenset({1000}), handled=True, complete=True)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tests.stress", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=110 * SCALE, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("handler", ["python", "javascript"])
def test_five_seconds_break_no_promise(handler):
    result = run("--seconds", "5", "--clients", "25", "--rooms", "4", "--seed", "20", "--handler", handler)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = dict(line.rsplit(None, 1) for line in result.stdout.splitlines() if len(line.split()) > 1)
    assert rows["violations"] == "0"
    assert rows["seed"] == "20"
    assert int(rows["messages received"].replace(",", "")) > 1000
    deaths = {"  deaths of the drainer", "  deaths of the flusher"}
    assert {*deaths, *(["  deaths of the isolate"] if handler == "javascript" else [])} <= rows.keys()
    assert int(rows["  handler told to raise"]) > 0


@pytest.mark.parametrize("arguments", [("--clients", "0"), ("--seconds", "-1"), ("--rooms", "many"), ("--server", "x")])
def test_a_wrong_option_is_one_line_and_status_2(arguments):
    result = run(*arguments)
    assert result.returncode == 2
    assert arguments[0] in result.stderr.splitlines()[-1]


def test_on_a_busy_machine_too_an_endless_script_is_stopped_before_other_clients_lose_patience():
    assert SCRIPT_TIMEOUT_S * MAX_STRETCH <= PATIENCE_S / 2  # the rest is for what has waited meanwhile


# The checker.


class Scene:
    """A history in the making: sessions that are opened, handler calls with one tick of the clock for each step."""

    def __init__(self):
        self.ledger = Ledger()
        self.violations = Violations()
        self.checker = Checker(self.ledger, self.violations)
        self.now = 0
        self.journal = []

    def visit(self, name, *steps):
        visit = Visit(name, list(steps))
        self.ledger.add(visit)
        self.journal.append(["open", name, f"id of {name}"])
        self._ran(visit, visit.commands[0])
        return visit

    def call(self, visit, *steps):
        command = visit.add_command(list(steps), b"", False)
        self._ran(visit, command)
        return command.steps

    def _ran(self, visit, command):
        times = list(range(self.now, self.now + len(command.steps) + 1))
        self.now = times[-1] + 1
        self.journal.append(["ran", visit.name, command.seq, times, None])

    def close(self, visit, end=CLOSED, code=1000, rooms=()):
        visit.end = end
        times = list(range(self.now, self.now + len(rooms) + 1))
        self.now = times[-1] + 1
        self.journal.append(["ran", visit.name, BYE, times, list(rooms)])
        self.journal.append(["close", visit.name, code, "", list(rooms), [], False])

    def found(self):
        """The names of the checks that found something, after a quiet point."""
        self.checker.ingest(self.journal)
        self.journal.clear()
        self.checker.check()
        return {text.split(":")[0] for text in self.violations.first}

    def quiet(self, **changes):
        members = self.checker.members()
        alive = len(self.ledger.visits)
        state = {"rooms": members, "sessions": alive, "taken": alive, "broken": [], **changes}
        self.checker.check_quiet(state, changes.get("told", members))
        return {text.split(":")[0] for text in self.violations.first}


@pytest.fixture
def scene():
    return Scene()


@pytest.fixture
def pair(scene):
    """A and B, both in `r`; the markers have come."""
    both = [scene.visit(name, "jr", "s") for name in "ab"]
    for visit in both:
        visit.stream.append(visit.commands[0].steps[1])
    return both


def test_a_right_history_is_right(scene, pair):
    a, b = pair
    first = scene.call(a, "br", "s")
    second = scene.call(b, "xr", "s")
    a.stream += [*first, second[0]]
    b.stream += [first[0], second[1]]
    scene.close(b, rooms=["r"])
    a.stream.append(b.farewell("r"))
    assert scene.found() == set()
    assert scene.quiet() == set()
    assert scene.checker.members() == {"r": 1}


def test_a_lost_message_is_found(scene, pair):
    a, _ = pair
    a.stream += scene.call(a, "br", "s")
    assert scene.found() == {"lost"}


def test_what_a_connected_session_still_has_to_get_is_missing(scene, pair):
    a, b = pair
    steps = scene.call(a, "br", "s")
    a.stream += steps
    scene.checker.ingest(scene.journal)
    assert scene.checker.missing() == {b: {steps[0]}}
    b.stream.append(steps[0])
    assert scene.checker.missing() == {}


def test_a_doubled_message_is_found(scene, pair):
    a, b = pair
    steps = scene.call(a, "br", "s")
    a.stream += steps
    b.stream += [steps[0], steps[0]]
    assert "doubled" in scene.found()


def test_a_message_before_joining_or_after_leaving_is_found(scene, pair):
    a, b = pair
    left = scene.call(b, "lr", "s")
    steps = scene.call(a, "br", "s")
    a.stream += steps
    b.stream += [left[1], steps[0]]
    assert scene.found() == {"not a member"}


def test_a_message_that_overlaps_with_joining_may_come_or_not(scene):
    a = scene.visit("a", "jr", "s")
    a.stream.append(a.commands[0].steps[1])
    scene.visit("b", "jr")
    joining = scene.journal[-1][3]
    a.stream += scene.call(a, "br", "s")
    scene.journal[-1][3] = [*joining, scene.now]
    assert scene.found() == set()


def test_broadcast_except_that_reaches_its_sender_is_found(scene, pair):
    a, b = pair
    steps = scene.call(a, "xr", "s")
    a.stream += steps
    b.stream.append(steps[0])
    assert scene.found() == {"not a member", "own messages"}


def test_send_and_broadcast_of_one_call_in_another_order_are_found(scene, pair):
    a, b = pair
    steps = scene.call(a, "s", "br", "s")
    a.stream += [steps[1], steps[0], steps[2]]
    b.stream.append(steps[1])
    assert scene.found() == {"own messages", "order"}


def test_another_order_of_one_sender_is_found(scene, pair):
    a, b = pair
    first, second = scene.call(a, "br", "s"), scene.call(a, "br", "s")
    a.stream += [*first, *second]
    b.stream += [second[0], first[0]]
    assert scene.found() == {"order", "order of a room"}


def test_two_orders_of_concurrent_broadcasts_are_found(scene, pair):
    a, b = pair
    first, second = scene.call(a, "br"), scene.call(b, "br")
    scene.journal[-1][3] = scene.journal[-2][3]  # at the same time
    a.stream += [*first, *second]
    b.stream += [*second, *first]
    assert scene.found() == {"order of a room"}


@pytest.mark.parametrize("end", [End("reset"), CLOSED])
def test_one_that_has_gone_needs_only_a_first_part(scene, pair, end):
    a, b = pair
    first, second, third = (scene.call(a, "br", "s") for _ in range(3))
    a.stream += [*first, *second, *third]
    b.stream += [first[0], second[0]]
    scene.close(b, end, min(end.codes), rooms=["r"])
    a.stream.append(b.farewell("r"))
    assert scene.found() == set()


def test_a_hole_in_that_first_part_is_found(scene, pair):
    a, b = pair
    first, second, third = (scene.call(a, "br", "s") for _ in range(3))
    a.stream += [*first, *second, *third]
    b.stream += [first[0], third[0]]
    scene.close(b, End("reset"), 1006, rooms=["r"])
    a.stream.append(b.farewell("r"))
    assert scene.found() == {"lost", "gap"}


def test_a_message_that_was_not_handled_is_found(scene, pair):
    a, _ = pair
    a.add_command(["s"], b"", False)
    assert scene.found() == {"messages in"}


def test_a_message_that_was_handled_twice_is_found(scene, pair):
    a, _ = pair
    a.stream += scene.call(a, "s")
    scene.journal.append(scene.journal[-1])
    assert scene.found() == {"messages in"}


def test_no_on_close_is_found(scene, pair):
    pair[0].end = CLOSED
    assert scene.found() == {"life cycle"}


@pytest.mark.parametrize(
    "entry",
    [
        ["open", "a", "another id"],
        ["open", "c", "id of a"],
        ["close", "a", 1000, "", ["r"], [], False],
        ["wrong", "a", "on_message during another call"],
        ["ran", "nobody", 1, [1, 2], None],
    ],
    ids=["open twice", "an id twice", "close of somebody connected", "overlap", "unknown"],
)
def test_a_wrong_life_cycle_is_found(scene, pair, entry):
    scene.ledger.add(Visit("c", []))
    scene.journal.append(["open", "c", "id of c"] if entry[1] != "c" else entry)
    scene.journal.append(["ran", "c", 0, [scene.now], None])
    if entry[1] != "c":
        scene.journal.append(entry)
    assert "life cycle" in scene.found()


@pytest.mark.parametrize(
    "close",
    [{"code": 1006}, {"rooms": ["r", "s"]}, {"rooms": []}],
    ids=["another code", "in a room too many", "in a room too few"],
)
def test_a_wrong_on_close_is_found(scene, pair, close):
    _, b = pair
    scene.close(b, **{"rooms": ["r"], **close})
    assert "life cycle" in scene.found()


def test_on_close_twice_is_found(scene, pair):
    a, b = pair
    scene.close(b, rooms=["r"])
    a.stream.append(b.farewell("r"))
    scene.journal.append(scene.journal[-1])
    assert scene.found() == {"life cycle"}


@pytest.mark.parametrize(("count", "right"), [(1, False), (2, True), (3, False)])
def test_members_is_held_to_what_it_can_be(scene, pair, count, right):
    a, _ = pair
    steps = scene.call(a, "mr", "s")
    steps[0].count = count
    a.stream += steps
    assert scene.found() == (set() if right else {"members()"})


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"rooms": {"r": 3}}, "members()"),
        ({"rooms": {"r": 2, "empty": 0}}, "members()"),
        ({"told": {"r": 1}}, "members()"),
        ({"sessions": 3}, "sessions"),
        ({"taken": 1}, "sessions"),
        ({"broken": ["Rooms._check: room 'x' is empty"]}, "invariant"),
    ],
)
def test_a_wrong_state_at_a_quiet_point_is_found(scene, pair, changes, check):
    assert scene.found() == set()
    assert scene.quiet(**changes) == {check}


def test_what_was_checked_is_forgotten(scene, pair):
    a, b = pair
    steps = scene.call(a, "br", "s")
    a.stream += steps
    b.stream.append(steps[0])
    assert scene.found() == set()
    assert not a.stream
    with pytest.raises(Wrong, match="late"):
        scene.ledger.receive(b, b"a 1 0\n", False)


# Messages and bytes.


@pytest.mark.parametrize(
    ("payload", "binary"),
    [
        (b"a 0 0\nbodx", False),
        (b"a 0 0\nbody", True),
        (b"a 0 1\nbody", False),
        (b"a 0 2\n", False),
        (b"a 1 0\nbody", False),
        (b"b 0 0\nbody", False),
        (b"", False),
        (b"\xff\xfe", True),
    ],
)
def test_a_message_that_nobody_sent_like_that_is_found(payload, binary):
    ledger, visit = Ledger(), Visit("a", [])
    ledger.add(visit)
    visit.add_command(["e", "s"], b"body", False)
    visit.commands[0] = visit.commands.pop(1)
    assert ledger.receive(visit, b"a 0 0\nbody", False) is visit.commands[0].steps[0]
    with pytest.raises(Wrong):
        ledger.receive(visit, payload, binary)


class Stream(WebSocket):
    """A client that has read these bytes."""

    def __init__(self, data):
        self._input = bytearray(data)
        self._pings = deque([b"asked"])
        self.pings_received = 0
        self.close_code = None
        self.close_sent = True

    def read(self):
        return self._parse()


def test_right_frames_are_read():
    stream = Stream(b"\x81\x01a\x82\x7e\x00\x7e" + b"b" * 126 + b"\x89\x00\x88\x02\x03\xe8")
    assert stream.read() == [(b"a", False), (b"b" * 126, True)]
    assert stream.close_code == 1000


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x81abcda", b"\x01\x01a", b"\xc1\x01a", b"\x83\x00", b"\x80\x00", b"\x81\x7e\x00\x7da",
        b"\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff", b"\x81\x7f\xff\x00\x00\x00\x00\x00\x00\x00", b"\x89\x7e\x00\x7e",
        b"\x81\x01\xff", b"\x8a\x01x", b"\x88\x01\x03", b"\x88\x02\x03\xed", b"\x88\x02\x00\x00",
        b"\x88\x03\x03\xe8\xff", b"\x88\x00\x81\x01a", b"HTTP/1.1 200 OK\r\n",
    ],
)  # fmt: skip
def test_a_frame_that_must_not_come_is_found(data):
    with pytest.raises(Wrong):
        Stream(data).read()


# Order.


@pytest.fixture
def steps(scene):
    visit = scene.visit("a", *"sssss")
    scene.checker.ingest(scene.journal)
    return visit.commands[0].steps


def test_an_inversion_is_found_however_far_apart(steps):
    assert find_inversion(steps) is None
    assert find_inversion([*steps[1:], steps[0]])[1] is steps[0]


def test_a_common_order_is_found_where_there_is_one(steps):
    a, b, c, d, _ = steps
    order, circle = common_order([[a, c], [b, c], [c, d]])
    assert not circle
    assert order.index(c) == 2
    assert order[3] is d


def test_a_circle_is_found_though_no_two_disagree(steps):
    a, b, c, *_ = steps
    _, circle = common_order([[a, b], [b, c], [c, a]])
    assert {*circle} == {a, b, c}
    order = [*circle, *circle]
    assert order.index(b) == order.index(a) + 1 or order[order.index(a) + 1] is b


def test_a_gap_needs_a_witness(steps):
    a, b, c, d, e = steps
    order = [a, b, c, d, e]
    assert find_gap([a, b, c], order, [order], set()) is None
    assert find_gap([b, d], order, [[a, b, c, d]], set()) == (b, c, d)
    assert find_gap([b, d], order, [[a, b, c, d]], {c}) is None
    assert find_gap([b, d], order, [[b, d], [a, c, e]], set()) is None


# The same seed.


class Line:
    """In place of a connection: takes what is sent, answers `pace` commands at a time, and as the protocol wants it."""

    def __init__(self, rehearsal):
        self.rehearsal, self.close_code, self.is_half_closed, self.pings_open = rehearsal, None, False, 0

    def send(self, payload, binary):
        self.rehearsal.note(payload.partition(b" ")[2])  # without its number, of which bursts take as many as they can
        told = re.search(rb" c(\d+) ", payload)
        self.close_code = int(told[1]) if told else None

    def send_close(self, code, reason=b""):
        self.close_code = code

    def half_close(self):
        self.is_half_closed = True

    def receive(self, timeout_s, size=0):
        if self.is_half_closed:
            raise Lost("at its end")
        self.rehearsal.under_way = max(0, self.rehearsal.under_way - self.rehearsal.pace)
        return []

    def __getattr__(self, name):
        return lambda *arguments: None


class Rehearsal(Daredevil):
    """Keeps what it does, and the first that it sends each time. `pace` is how fast the server is."""

    def __init__(self, seed, pace):
        self.actions, self.pace = [], pace
        super().__init__(7, World(("127.0.0.1", 0), seed, rooms=5))

    def _repertoire(self):
        return [(partial(self.act, action), weight) for action, weight in super()._repertoire()]

    def act(self, action):
        self.actions.append([action.__name__])
        action()

    def note(self, payload):
        if self.actions and len(self.actions[-1]) == 1:
            self.actions[-1].append(payload)

    def connect(self):
        steps, self.rooms = self._first_steps()
        self.actions.append(["connect", steps])
        self._open(steps)

    def _open(self, steps):
        self._visits += 1
        self.visit, self._socket = Visit(f"7.{self._visits}", steps), Line(self)


def rehearse(monkeypatch, seed, number=3, pace=8):
    clock = count()
    for module in ("roamer", "visitor", "daredevil"):
        monkeypatch.setattr(f"tests.stress.{module}.sleep", lambda seconds: None, raising=False)
        monkeypatch.setattr(f"tests.stress.{module}.monotonic", lambda: next(clock) / (100 * pace), raising=False)
    roamer = Rehearsal(seed, pace)
    roamer.roam(number, 8)
    return roamer.actions


def test_the_same_seed_gives_the_same_actions_however_fast_the_server_is(monkeypatch):
    fast, slow = (rehearse(monkeypatch, seed=5, pace=pace) for pace in (8, 1))
    common = min(len(fast), len(slow))
    assert common > 100
    assert fast[:common] == slow[:common]
    assert len({action[0] for action in fast}) > 12


def test_another_seed_and_another_round_give_other_actions(monkeypatch):
    first, *others = (rehearse(monkeypatch, seed, number)[:50] for seed, number in ((5, 3), (6, 3), (5, 4)))
    assert all(other != first for other in others)


@pytest.mark.parametrize("commands", range(LATE_EVERY))
def test_no_loop_is_behind_an_await_which_would_keep_the_session_open(commands):
    assert f"seq % {LATE_EVERY} === {LATE}" in (ROOT / "tests" / "stress" / "handler.js").read_text()
    roamer = Rehearsal(seed=5, pace=8)
    roamer.connect()
    for _ in range(commands):
        roamer.issue(["s"])
    roamer._end_as_told = lambda end: None
    roamer.overrun()
    assert roamer.visit.last_seq % LATE_EVERY != LATE


def test_a_perturbed_thread_pauses_where_its_seed_says_and_stops_when_it_is_told(monkeypatch):
    def pauses_of(seed):
        found = []
        monkeypatch.setattr(perturbing, "sleep", found.append)
        perturbing.perturb(seed)
        try:
            for _ in range(200):
                frames.parse_header(b"\x81\xfe\x00\xff1234", 0)
        finally:
            perturbing.perturb(None)
        frames.parse_header(b"\x81\xfe\x00\xff1234", 0)
        return found

    assert pauses_of("a") == pauses_of("a") != pauses_of("b")
    assert len(pauses_of("a")) > 5


def test_the_same_seed_gives_the_same_faults():
    def faults(seed):
        chaos = Chaos(seed, "javascript", None, None)
        roamers = [Daredevil(number, World(("127.0.0.1", 0), 0, 5)) for number in range(40)]
        for roamer in roamers:
            roamer.visit = Visit(f"{roamer.number}.1", [])
        told = [
            {roamer.number: getattr(order, "func", order).__name__ for roamer, order in chaos.plan(n, roamers).items()}
            for n in range(8)
        ]
        return told, [chaos.falls(n) for n in range(8)]

    assert faults(1) == faults(1)
    assert faults(1) != faults(2)
    orders = [order for told in faults(1)[0] for order in told.values()]
    assert {*orders} == {"kick", "be_kicked", "overrun"}
    assert any(faults(1)[1])


# Faults and the log.


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log"
    path.touch()

    def write(text):
        with path.open("a") as file:
            file.write(text)

    return Log(path, EXPECTED), write


def test_what_a_fault_leaves_in_the_log_is_no_trouble_and_all_else_is(log):
    log, write = log
    write("Listening at: http://127.0.0.1:5000 (1)\n")
    write("2026-11-23 12:00:00,000 ERROR wsthreads x failed\nTraceback (most recent call last):\nInjected: injected\n")
    assert log.trouble() == []
    write("2026-11-23 12:00:01,000 ERROR wsthreads x failed\nTraceback (most recent call last):\nKeyErr")
    write("or: 1\n[2026-11-23 12:00:02 +0000] [7] [CRITICAL] WORKER TIMEOUT\n")
    (first, second) = log.trouble()
    assert first.endswith("KeyError: 1")
    assert "WORKER TIMEOUT" in second


def test_each_death_in_the_log_is_counted_once(log):
    log, write = log
    death = "2026-11-23 12:00:00,000 CRITICAL wsthreads-flusher has failed and is started again\nKilled: injected\n"
    write(death)
    assert log.deaths() == {"flusher": 1}
    assert log.deaths() == {"flusher": 1}
    write(death)
    assert log.deaths() == {"flusher": 2}
    assert log.trouble() == []


def test_a_kicked_session_must_have_got_what_was_over_before(scene, pair):
    a, b = pair
    first, second = scene.call(b, "s"), scene.call(b, "s")
    a.stream += scene.call(a, "kb", "s")[1:]
    scene.call(b, "s")  # at its end it was open no longer
    b.stream += first
    scene.close(b, End("kicked", frozenset({4001}), torn=True), 4001, rooms=["r"])
    a.stream.append(b.farewell("r"))
    assert scene.found() == {"own messages"}
    assert second[0] not in b.stream


def test_of_what_was_sent_to_a_kicked_session_at_that_moment_anything_may_be_missing(scene, pair):
    a, b = pair
    first = scene.call(b, "s")
    a.stream += scene.call(a, "kb", "s")[1:]
    late = scene.call(b, "s", "br")
    b.stream += [*first, late[1]]
    a.stream.append(late[1])
    scene.close(b, End("kicked", frozenset({4001}), torn=True), 4001, rooms=["r"])
    a.stream.append(b.farewell("r"))
    assert scene.found() == set()
