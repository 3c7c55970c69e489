"""What the history of a room promises: in the memory of one process, and over Redis.

With Redis, members are by turns in two processes, as far as Redis can tell.
"""

import itertools
import random
import sys
import threading

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.room_worlds import World, world_of
from wsthreads import HistoryError, RoomLimitError
from wsthreads.protocol.encoding import Encoding
from wsthreads.protocol.frames import TEXT, encode_frame
from wsthreads.rooms import histories
from wsthreads.rooms.history import Limits
from wsthreads.rooms.striped import StripedDict

#: What most tests keep.
LIMITS = Limits(messages=50, seconds=300.0, bytes=2**20)

#: A broadcaster waits so long between two messages: 500 a second.
PAUSE_S = 1 / 500


@pytest.fixture(params=["local", "redis"])
def make(request):
    """Makes worlds whose rooms have a history."""
    worlds = []

    def make(**limits):
        worlds.append(world_of(request, history=LIMITS._replace(**limits)))
        return worlds[-1]

    yield make
    for world in worlds:
        world.end()


@pytest.fixture
def world(make):
    return make()


@pytest.fixture
def quick_switches():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns much more often, so that races are met
    yield
    sys.setswitchinterval(interval)


def check(world):
    for rooms in world.all_rooms:
        rooms._check()


def join(member, name="lobby", **options):
    return member.session.room(name).join(**options)


def ended(member):
    """What a member has received and not read so far."""
    member.session.send("end")
    return member.receive_until("end")[:-1]


def test_who_joins_gets_the_last_messages_first_and_then_all_that_follow(world):
    speaker = world.member("lobby")
    for n in range(10):
        speaker.session.room("lobby").broadcast(f"{n}")
    for member in (world.member(), world.member()):
        joined = join(member, history=3)
        assert joined == (True, True)
        assert (joined.joined, joined.complete) == (True, True)
        assert member.receive(3) == ["7", "8", "9"]
        assert ended(member) == []
    speaker.session.room("lobby").broadcast("10")
    assert [member.receive(1) for member in world.members[1:]] == [["10"], ["10"]]
    check(world)


def test_history_lists_text_and_bytes_oldest_first(world):
    rooms = [rooms.room("lobby") for rooms in world.all_rooms]
    assert [room.history(50) for room in rooms] == [[]] * len(rooms)
    rooms[0].broadcast("a")
    rooms[0].broadcast(b"\0\xff")
    rooms[0].broadcast("ü" * 200)
    rooms[0].broadcast("x" * 70_000)
    for room in rooms:
        assert room.history(50) == ["a", b"\0\xff", "ü" * 200, "x" * 70_000]
        assert room.history(1) == ["x" * 70_000]
        assert room.history(0) == []
    member = world.member("lobby")
    assert member.session.room("lobby").history(4)[0] == "a"


def test_a_thread_finds_in_the_history_what_it_has_just_broadcast(world):
    """Whether it is in a process with members, or not."""
    world.member("lobby", of=world.all_rooms[-1])
    for rooms in world.all_rooms:
        room = rooms.room("lobby")
        for n in range(50):
            room.broadcast(f"{n}")
            assert room.history(1) == [f"{n}"]


def test_each_room_has_its_own_history(world):
    for name in ("a", "b", "a:b", "ü\ud800", "x" * 256):
        world.rooms.room(name).broadcast(f"to {name!r}")
    for name in ("a", "b", "a:b", "ü\ud800", "x" * 256):
        assert world.rooms.room(name).history(9) == [f"to {name!r}"]
        member = world.member()
        join(member, name, history=9)
        assert member.receive(1) == [f"to {name!r}"]
    check(world)


def test_a_join_without_options_gets_nothing_old(world):
    world.rooms.room("lobby").broadcast("old")
    for options in ({}, {"history": 0}, {"history": None, "since": None}):
        member = world.member()
        assert join(member, **options) == (True, True)
        assert ended(member) == []


def test_a_broadcast_to_a_room_that_nobody_is_in_is_kept(world):
    for rooms in world.all_rooms:
        rooms.room("empty").broadcast("first")
        world.member(of=rooms).session.room("empty").broadcast_except("second")
        assert rooms.room("empty").history(2) == ["first", "second"]
    member = world.member()
    join(member, "empty", history=50)
    assert member.receive(2 * len(world.all_rooms)) == ["first", "second"] * len(world.all_rooms)


def test_what_is_not_to_be_kept_is_not(world):
    a, b = world.member("lobby"), world.member("lobby")
    for n in range(4):
        a.session.room("lobby").broadcast(f"{n}", keep=n % 2 == 0)
    assert a.receive(4) == b.receive(4) == ["0", "1", "2", "3"]
    b.session.room("lobby").broadcast_except("4", keep=False)
    assert a.receive(1) == ["4"]
    assert a.session.room("lobby").history(50) == ["0", "2"]
    late = world.member()
    join(late, history=50)
    assert late.receive(2) == ["0", "2"]
    check(world)


def test_what_on_presence_announces_is_not_kept(world):
    world.member("lobby")
    world.rooms.use_roster(
        timers=world.flusher, report=None, wants_reports=None, count=None, interval_s=1, grace_s=1, max_value_bytes=9
    )._reports._broadcast_here("lobby", encode_frame(TEXT, b"someone is here"))
    assert world.members[0].receive(1) == ["someone is here"]
    assert world.rooms.room("lobby").history(50) == []


def test_the_history_outlives_the_last_member(world):
    a = world.member("lobby")
    a.session.room("lobby").broadcast("kept")
    a.session.room("lobby").leave()
    assert a.receive(1) == ["kept"]
    world.rooms.room("lobby").broadcast("kept, too")
    for rooms in world.all_rooms:
        member = world.member(of=rooms)
        join(member, history=50)
        assert member.receive(2) == ["kept", "kept, too"]
    check(world)


def test_a_member_that_joins_again_gets_nothing_again(world):
    a = world.member("lobby")
    a.session.room("lobby").broadcast("old")
    assert a.receive(1) == ["old"]
    position = a.session.room("lobby").position()
    assert join(a, history=50) == (True, True)
    assert join(a, since="of another log") == (True, True)
    assert join(a, since=position, history=1) == (True, True)
    assert ended(a) == []


def test_a_session_that_has_left_gets_the_history_again(world):
    a = world.member("lobby")
    a.session.room("lobby").broadcast("old")
    a.session.room("lobby").leave()
    join(a, history=50)
    assert a.receive(2) == ["old", "old"]


def test_a_session_that_has_ended_joins_nothing_and_gets_nothing(world):
    world.rooms.room("lobby").broadcast("old")
    a = world.member()
    a.session._rooms.leave_all(a.session)
    assert join(a, history=50) == (False, False)
    assert join(a) == (False, False)
    assert a.session.rooms() == []
    assert a.channel.receive_rest() == []
    check(world)


def test_a_replay_leaves_out_what_the_session_has_sent_to_the_others(world):
    a, b = world.member("lobby"), world.member("lobby")
    room = a.session.room("lobby")
    position = room.position()
    for n in range(4):
        room.broadcast_except(f"{n} of a")
        assert b.receive(1) == [f"{n} of a"]
        b.session.room("lobby").broadcast(f"{n} of b")
        assert [a.receive(1), b.receive(1)] == [[f"{n} of b"]] * 2
    room.leave()
    assert join(a, history=3) == (True, True)
    assert a.receive(3) == [f"{n} of b" for n in range(1, 4)]
    room.leave()
    assert join(a, since=position) == (True, True)
    assert a.receive(4) == [f"{n} of b" for n in range(4)]
    assert len(room.history(50)) == 8
    late = world.member()
    join(late, history=2)
    assert late.receive(2) == ["3 of a", "3 of b"]


def test_a_full_room_sends_no_history(world):
    speaker = world.member("lobby")
    speaker.session.room("lobby").broadcast("old")
    assert speaker.receive(1) == ["old"]
    position = speaker.session.room("lobby").position()
    speaker.session.room("lobby").broadcast("new")
    assert speaker.receive(1) == ["new"]
    member = world.member()
    assert join(member, history=50, max_members=1) == (False, False)
    assert join(member, since=position, max_members=1) == (False, False)
    assert ended(member) == []
    assert join(member, since=position, max_members=2) == (True, True)
    assert ended(member) == ["new"]
    check(world)


def test_one_room_too_many_sends_no_history(world):
    world.rooms._max_per_session = 1
    member = world.member("only", of=world.rooms)
    world.rooms.room("lobby").broadcast("old")
    with pytest.raises(RoomLimitError):
        join(member, history=50)
    assert ended(member) == []
    check(world)


# Positions


def test_who_comes_back_with_a_position_gets_exactly_what_came_after_it(world):
    room = world.member("lobby").session.room("lobby")
    positions = [room.position()]
    for n in range(20):
        room.broadcast(f"{n}")
        positions.append(room.position())
    assert len(set(positions)) == 21
    for rooms, (n, position) in zip(itertools.cycle(world.all_rooms), enumerate(positions), strict=False):
        member = world.member(of=rooms)
        assert join(member, since=position, history=random.choice([None, 0, 1, 50])) == (True, True)
        assert ended(member) == [f"{m}" for m in range(n, 20)]
    check(world)


def test_a_position_is_text_for_any_url(world):
    world.rooms.room("lobby").broadcast("x")
    for rooms in world.all_rooms:
        position = rooms.room("lobby").position()
        assert isinstance(position, str)
        assert position == rooms.room("lobby").position()
        assert set(position) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
        assert len(position) < 80
    member = world.member("lobby")
    assert member.session.room("lobby").position() == position


def test_what_is_not_kept_moves_no_position(world):
    room = world.member("lobby").session.room("lobby")
    room.broadcast("kept")
    position = room.position()
    room.broadcast("not kept", keep=False)
    assert room.position() == position
    member = world.member()
    assert join(member, since=position) == (True, True)
    assert ended(member) == []


def test_a_position_of_a_room_that_nobody_has_used_is_its_beginning(world):
    position = world.rooms.room("new").position()
    world.rooms.room("new").broadcast("first")
    member = world.member()
    assert join(member, "new", since=position) == (True, True)
    assert member.receive(1) == ["first"]


def forgeries(position):
    epoch, number, *tag = position.split(".")
    yield from ("", ".", "..", "...", "x", epoch, f"{epoch}.", f"{epoch}.{number}x", f"{epoch}.-1", f"{epoch}.٣")
    yield from (f"{epoch}.{int(number) + 1}" + "".join(f".{each}" for each in tag), position + ".", position + "0")
    yield from (f"x{epoch}.{number}", f"{epoch}.{number}.0-1", "x" * 100_000, "\ud800", "\0", f"{epoch}.{'9' * 5000}")
    yield f"{epoch}.{'0' * 17}{number}"


def test_what_is_no_position_of_this_log_counts_as_incomplete(world):
    """Clients supply it. Then `history` applies, if it is given."""
    room = world.member("lobby").session.room("lobby")
    for n in range(5):
        room.broadcast(f"{n}")
    position, other = room.position(), world.rooms.room("other").position()
    for since in [*forgeries(position), other]:
        member = world.member()
        assert join(member, since=since) == (True, False), since[:99]
        assert ended(member) == []
        member = world.member()
        assert join(member, since=since, history=2) == (True, False)
        assert ended(member) == ["3", "4"]


def test_a_position_before_the_oldest_message_is_incomplete(make):
    world = make(messages=5)
    room = world.member("lobby").session.room("lobby")
    positions = [room.position()]
    for n in range(12):
        room.broadcast(f"{n}")
        positions.append(room.position())
    for rooms in world.all_rooms:
        for n, position in enumerate(positions):
            member = world.member(of=rooms)
            is_complete = n >= 7
            assert join(member, since=position, history=3) == (True, is_complete)
            first = n if is_complete else 9
            assert ended(member) == [f"{m}" for m in range(first, 12)]
    check(world)


# Bounds


def test_at_most_so_many_messages_are_kept(make):
    world = make(messages=3)
    room = world.member("lobby").session.room("lobby")
    for n in range(10):
        room.broadcast(f"{n}")
        assert room.history(3) == [f"{m}" for m in range(max(0, n - 2), n + 1)]
    for rooms in world.all_rooms:
        assert rooms.room("lobby").history(3) == ["7", "8", "9"]
    check(world)


@pytest.mark.parametrize(("size", "kept"), [(1, 50), (20, 50), (33, 30), (500, 2), (501, 1), (1000, 1), (1001, 0)])
def test_at_most_so_many_bytes_of_messages_are_kept(make, size, kept):
    world = make(bytes=1000)
    room = world.rooms.room("lobby")
    before = room.position()
    messages = [f"{n:<{size}}"[-size:] for n in range(60)]
    for message in messages:
        room.broadcast(message)
    for rooms in world.all_rooms:
        assert rooms.room("lobby").history(50) == (messages[-kept:] if kept else [])
        member = world.member(of=rooms)
        assert join(member, since=before) == (True, False)
        after = world.member(of=rooms)
        assert join(after, since=rooms.room("lobby").position()) == (True, True)
    check(world)


def test_a_message_of_another_size_pushes_out_as_many_as_it_must(make):
    world = make(bytes=100)
    room = world.rooms.room("lobby")
    for size in (40, 40, 20, 1, 99, 2, 100, 101, 3):
        room.broadcast("x" * size)
        lengths = [[len(message) for message in rooms.room("lobby").history(50)] for rooms in world.all_rooms]
        assert lengths[0] == {
            40: lengths[0], 20: [40, 40, 20], 1: [40, 20, 1], 99: [1, 99], 2: [2], 100: [100], 101: [], 3: [3],
        }[size]  # fmt: skip
        assert lengths == [lengths[0]] * len(lengths)


def test_messages_are_forgotten_after_their_time(make):
    world = make(seconds=0.5)
    room = world.member("lobby").session.room("lobby")
    before = room.position()
    room.broadcast("short-lived")
    for rooms in world.all_rooms:
        wait_until(lambda rooms=rooms: rooms.room("lobby").history(50) == [], "the message is gone")
        member = world.member(of=rooms)
        assert join(member, since=before, history=50) == (True, False)
        assert ended(member) == []

    def joins_in_time():
        room.broadcast("new")
        member = world.member()
        join(member, history=50)
        return ended(member)

    assert set(wait_until(joins_in_time, "a join while the message is kept")) == {"new"}


def test_a_position_stays_good_while_the_messages_after_it_are_there(make):
    world = make(messages=2)
    room = world.rooms.room("lobby")
    room.broadcast("0")
    position = room.position()
    for n in (1, 2):
        room.broadcast(f"{n}")
    member = world.member()
    assert join(member, since=position) == (True, True)
    assert member.receive(2) == ["1", "2"]
    room.broadcast("3")
    assert join(world.member(), since=position) == (True, False)


# Wrong calls


@pytest.mark.parametrize(
    "count", [-1, 51, 10**9, pytest.param(10**5000, id="huge"), 1.0, 2.5, float("nan"), "3", True, b"", [1]]
)
def test_a_wrong_number_of_messages_is_refused_with_the_limit(world, count):
    member = world.member()
    for call in (lambda: join(member, history=count), lambda: member.session.room("lobby").history(count)):
        with pytest.raises(HistoryError, match=r"a whole number from 0 to 50 \(history_messages\), not "):
            call()
    assert member.session.rooms() == []
    with pytest.raises(HistoryError):
        member.session.room("lobby").history(None)


@pytest.mark.parametrize("since", [3, b"x", 1.5, [], True])
def test_a_position_that_is_no_text_is_refused_with_its_type(world, since):
    member = world.member()
    with pytest.raises(HistoryError, match=f"since must be a position, which is text, not {type(since).__name__}"):
        join(member, since=since)
    assert member.session.rooms() == []


def test_without_history_its_calls_name_the_setting(make):
    world = make(messages=0)
    member = world.member()
    room = member.session.room("lobby")
    for call in (
        lambda: room.join(history=1),
        lambda: room.join(since="x"),
        lambda: room.history(1),
        room.position,
        world.rooms.room("lobby").position,
    ):
        with pytest.raises(HistoryError, match="history is off: set history_messages"):
            call()
    assert member.session.rooms() == []
    assert room.join(history=0) == (True, True)
    room.broadcast("works", keep=False)
    assert member.receive(1) == ["works"]


# Races


class Broadcaster(threading.Thread):
    """Broadcasts numbers to a room, until it is told to stop; `sent` of them so far."""

    def __init__(self, room, pause_s=PAUSE_S):
        super().__init__(daemon=True)
        self.room, self.pause_s, self.sent = room, pause_s, 0
        self.stopping = threading.Event()
        #: The position after so many messages.
        self.positions = {}

    def run(self):
        while not self.stopping.wait(self.pause_s):
            self.room.broadcast(f"{self.sent}")
            self.sent += 1
            if self.positions is not None and self.sent % 10 == 0:
                self.positions[self.sent] = self.room.position()

    def __enter__(self):
        self.start()
        wait_until(lambda: self.sent > 60)
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join(DEADLINE_S)
        assert not self.is_alive()


def assert_consecutive(received):
    numbers = [int(text) for text in received]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers
    return numbers[0]


@pytest.mark.parametrize("pause_s", [PAUSE_S, 0.0])
def test_a_joiner_amid_broadcasts_gets_the_last_ones_and_all_that_follow(world, quick_switches, pause_s):
    for rooms in world.all_rooms:
        world.member("lobby", of=rooms)
    with Broadcaster(world.rooms.room("lobby"), pause_s) as broadcaster:
        for _ in range(100 if pause_s else 40):
            member = world.member()
            before = broadcaster.sent
            assert join(member, history=20) == (True, True)
            after = broadcaster.sent
            first = assert_consecutive(member.receive(25))
            assert before - 20 - len(world.all_rooms) * 300 <= first <= after + 1 - 20
            member.session.room("lobby").leave()
    check(world)


def test_a_joiner_amid_broadcasts_into_an_empty_room_gets_the_last_ones_and_all_that_follow(world, quick_switches):
    """Each joiner is the first member and the last one: of the room, or of the process."""
    with Broadcaster(world.rooms.room("lobby")) as broadcaster:
        for _ in range(100):
            member = world.member()
            kept = int(world.rooms.room("lobby").position().split(".")[1])  # so many messages are in the history
            assert join(member, history=20) == (True, True)
            first = assert_consecutive(member.receive(23))
            assert first <= broadcaster.sent + 1 - 20
            assert first + 20 >= kept
            member.session.room("lobby").leave()
    check(world)


def test_who_comes_back_amid_broadcasts_has_no_gap_and_no_double(make, quick_switches):
    world = make(messages=2000)  # more than are sent before a slow thread has joined
    with Broadcaster(world.member("lobby").session.room("lobby")) as broadcaster:
        for _ in range(100):
            sent, position = list(broadcaster.positions.copy().items())[-1]
            member = world.member()
            assert join(member, since=position) == (True, True)
            assert assert_consecutive(member.receive(15)) == sent
            member.session.room("lobby").leave()
    check(world)


def test_joins_and_last_leaves_amid_broadcasts_lose_nothing(make, quick_switches):
    """Four threads join and leave an empty room over and over, each with its last position."""
    world = make(messages=100)  # as many as all threads send
    failures = []
    room = world.rooms.room("lobby")
    lock = threading.Lock()
    sent = itertools.count()

    def visit(member):
        try:
            for _ in range(25):
                with lock:  # one order for what is sent and for the positions
                    position = room.position()
                    expected = next(sent)
                    room.broadcast(f"{expected}")
                assert join(member, since=position) == (True, True)
                texts = member.receive(1)
                assert int(texts[0]) == expected, (texts, expected)
                member.session.room("lobby").leave()
                member.session.send("left")
                rest = member.receive_until("left")[:-1]
                assert_consecutive(texts + rest)
        except BaseException as error:
            failures.append(error)
            raise

    members = [world.member() for _ in range(4)]
    threads = [threading.Thread(target=visit, args=(member,), daemon=True) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(6 * DEADLINE_S)
    assert not failures
    check(world)


def test_who_is_the_next_first_member_gets_what_was_begun_for_the_last_one(monkeypatch):
    """A broadcast has looked up the room when the last member leaves, and another session joins with the history."""
    world = World(LIMITS)
    try:
        a, b = world.member("lobby"), world.member()
        real, todo = StripedDict.get, [lambda: join(b, history=50), a.session.room("lobby").leave]

        def get(striped, key, default=None):
            found = real(striped, key, default)
            if striped is world.rooms._members and len(todo) == 2:
                while todo:
                    todo.pop()()
            return found

        monkeypatch.setattr(StripedDict, "get", get)
        world.rooms.room("lobby").broadcast("for the next one")
        assert not todo
        assert ended(b) == ["for the next one"]
        assert world.rooms.room("lobby").history(50) == ["for the next one"]
        check(world)
    finally:
        world.end()


def test_what_a_call_sends_and_broadcasts_before_a_join_comes_before_the_replay(world):
    room = world.member("other").session.room("lobby")
    room.broadcast("old")
    for n in range(30):
        other = f"other {n}"
        member = world.member(other)
        member.session.room(other).broadcast(f"{n} a")
        member.session.send(f"{n} b")
        assert join(member, history=50) == (True, True)
        member.session.send(f"{n} c")
        assert member.receive(4) == [f"{n} a", f"{n} b", "old", f"{n} c"]
        member.session.room(other).leave()


# Frames of other encodings, slow clients


class Tilde(Encoding):
    """Puts a tilde before each text."""

    def __init__(self):
        super().__init__("tilde")
        self.calls = 0

    def frame(self, plain):
        self.calls += 1
        return encode_frame(TEXT, b"~" + plain[2:])


def test_a_replay_is_encoded_for_the_joiner_and_only_once_for_many(world, quick_switches):
    encoding = Tilde()
    rooms = world.rooms
    for n in range(10):
        rooms.room("lobby").broadcast(f"{n}")
    world.member("lobby", of=rooms)
    for _ in range(5):
        member = world.member(of=rooms, encoding=encoding)
        join(member, history=10)
        assert member.receive(10) == [f"~{n}" for n in range(10)]
        plain = world.member(of=rooms)
        join(plain, history=10)
        assert plain.receive(10) == [f"{n}" for n in range(10)]
    assert encoding.calls == 10
    check(world)


@pytest.mark.parametrize("attempts", [0, 10])
def test_an_encoded_joiner_amid_broadcasts_has_no_gap_and_no_double(world, quick_switches, monkeypatch, attempts):
    monkeypatch.setattr(histories, "ENCODING_ATTEMPTS", attempts)
    encoding = Tilde()
    with Broadcaster(world.member("lobby").session.room("lobby"), 0.0):
        for _ in range(30):
            member = world.member(encoding=encoding)
            join(member, history=40)
            texts = member.receive(45)
            assert all(text[0] == "~" for text in texts)
            assert_consecutive([text[1:] for text in texts])
            member.session.room("lobby").leave()
    check(world)


def test_a_large_replay_is_not_what_makes_a_client_too_slow(make):
    """The client reads nothing until it has joined two rooms, with more than its outbox holds."""
    world = make(bytes=8 * 2**20, messages=100)
    for name in ("one", "two"):
        for _ in range(60):
            world.rooms.room(name).broadcast(name * 20_000)
    member = world.member()
    member.outbox.max_bytes = 2**20
    stuck = []
    member.outbox._on_stuck = stuck.append
    for name in ("one", "two"):
        assert join(member, name, history=100) == (True, True)
    assert member.receive(120) == ["one" * 20_000] * 60 + ["two" * 20_000] * 60
    assert stuck == []


def test_a_finalizer_may_send_amid_a_replay(world, monkeypatch):
    """It may run at any point, also while the room is locked: here, for each message of the replay."""
    for n in range(5):
        world.rooms.room("lobby").broadcast(f"{n}")
    others = [world.member("lobby"), world.member("lobby", "other")]
    member = world.member("other")
    append, busy = type(member.outbox).append, []

    def append_and_finalize(outbox, frame):
        done = append(outbox, frame)
        if outbox is member.outbox and not busy:
            busy.append(True)
            for each in (*others, member):
                each.session.send("finalizer")
                each.session.attributes["gone"] = each.session.rooms()
            busy.clear()
        return done

    monkeypatch.setattr(type(member.outbox), "append", append_and_finalize)
    monkeypatch.setattr("wsthreads.sessions.session.post", post_plainly)
    member.session.room("other").broadcast_except("pending")
    assert join(member, history=5) == (True, True)
    monkeypatch.undo()
    assert sorted(set(ended(member)) - {"finalizer"}) == [f"{n}" for n in range(5)]
    assert ended(others[0]).count("finalizer") >= 5
    check(world)


def post_plainly(outbox, frame):
    """As the C module does it: not by the `append` that the test replaces."""
    outbox._queue.append(frame)
    outbox.flush()
    return True
