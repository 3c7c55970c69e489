"""The parts of the brokers that need no Redis: the format of messages, what waits for its turn, what waits to go."""

import random
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.programs import DEADLINE_S
from tests.wire import run_all
from wsthreads import BrokerError
from wsthreads.brokers import arrivals, held_frames, messages, pending
from wsthreads.brokers.keys import Keys
from wsthreads.brokers.process import Endpoints
from wsthreads.brokers.queue import PresenceKey, Question, SendQueue
from wsthreads.brokers.subscription import Subscription
from wsthreads.protocol.frames import message_frame

KEYS = Keys("app", 0)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1_000_000])
@pytest.mark.parametrize("kind", ["text", "binary"])
@pytest.mark.parametrize("exclude_id", [None, "Session_-1"])
def test_a_broadcast_comes_back_as_it_was(size, kind, exclude_id):
    frame = message_frame("ä" * (size // 2) + "x" * (size % 2) if kind == "text" else b"\xff" * size)
    broadcast = messages.decode(messages.encode_broadcast("Sender_-1", 12345678901, exclude_id, frame))
    assert broadcast == (b"Sender_-1", 12345678901, exclude_id, frame)


@pytest.mark.parametrize("latest", [None, "k", "\n\0 =-", "ä" * 256, "\U0001f600" * 256, "\ud800"])
@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("message", ["hé", "", b"\xff\n"])
def test_the_marks_of_a_message_come_back_with_it(latest, is_kept, message):
    marked = message_frame(message, latest=latest, keep=is_kept)
    broadcast = messages.decode(messages.encode_broadcast("me", 7, "you", marked))
    assert broadcast == messages.Broadcast(b"me", 7, "you", message_frame(message))
    assert getattr(broadcast.frame, "latest", None) == latest
    assert getattr(broadcast.frame, "is_kept", True) is is_kept
    direct = messages.decode(messages.encode_direct("me", 7, "you", message_frame(message, latest=latest)))
    assert direct == messages.Direct(b"me", 7, "you", message, latest)


PRESENCE = messages.PresenceChange("you", 17, '{"a": "ä\\n"}', "process", "Jörg\0\ud800", 1.5, 16, 9.25)


@pytest.mark.parametrize("message", ["hé", "", b"\xff\0", b""])
def test_a_message_for_one_session_comes_back_as_it_was(message):
    direct = messages.decode(messages.encode_direct("me", 7, "you", message_frame(message)))
    assert direct == messages.Direct(b"me", 7, "you", message)


@pytest.mark.parametrize("session_id", [None, "you"])
@pytest.mark.parametrize("reason", ["", "über\n\0"])
@pytest.mark.parametrize("ban_s", [0, 60.5, 31536000])
def test_a_close_comes_back_as_it_was(session_id, reason, ban_s):
    close = messages.decode(messages.encode_close("me", 7, session_id, 4000, reason, ban_s))
    assert close == messages.Close(b"me", 7, session_id, 4000, reason, ban_s)


@pytest.mark.parametrize(
    "change",
    [
        PRESENCE,
        PRESENCE._replace(user=None, lost_s=None),
        messages.PresenceChange("you", 18, None),
    ],
)
def test_a_presence_comes_back_as_it_was(change):
    payload = messages.presence_payload(change)
    assert messages.decode(b"4 - 0 you p\n" + payload) == change
    kept = b"0" if change.lost_s is None else b"10250"
    if change.value is not None:
        assert messages.parse_stored(b"process", b"you", b"%b %b" % (kept, payload), 1000) == change


@pytest.mark.parametrize(
    "data",
    [
        b"4 me 7 . t=\nhi",
        b"4 me 7 . t=0\nhi",
        b"4 me 7 . t=3\nhi",
        b"4 me 7 . t=1\n\xff",
        b"4 me 7 . t=257\n" + b"k" * 257,
        b"4 me 7 . t=10000\nhi",
        b"4 me 7 . t=1-\nhi",
        b"4 me 7 you T-\nhi",
        b'4 me 7 . c-\n[1000, "", 0]',
        b'4 me 7 . c=1\nk[1000, "", 0]',
        b"4 - 0 you p-\n[1]",
        b"4 me 7 . T\nhi",
        b"4 me 7 you T\n\xff",
        b"4 me 7 . c\n",
        b"4 me 7 . c\n[]",
        b"4 me 7 . c\n{}",
        b'4 me 7 . c\n[1005, "", 0]',
        b'4 me 7 . c\n[1000, "", -1]',
        b'4 me 7 . c\n[1000, "", NaN]',
        b'4 me 7 . c\n[true, "", 0]',
        b'4 me 7 . c\n["1000", "", 0]',
        b"4 me 7 . c\n[1000, null, 0]",
        b'4 me 7 . c\n[1000, "%b", 0]' % (b"x" * 124),
        b"4 me 7 . c\n" + b"[" * 100_000,
        b"4 - 0 . p\n[1]",
        b"4 - 0 you p\n",
        b"4 - 0 you p\n[-1]",
        b"4 - 0 you p\n[true]",
        b"4 - 0 you p\n[1]\n1",
        b'4 - 0 you p\n[2,2,1.5,"process",null,null]',
        b'4 - 0 you p\n[2,2,1.5,"process",null,null]\n{',
        b'4 - 0 you p\n[2,2,1.5,"process",7,null]\n1',
        b'4 - 0 you p\n[2,2,Infinity,"process",null,null]\n1',
        b'4 - 0 you p\n[2,2,1.5,"process",null,-1]\n1',
        b"4 - 0 you p\n[2,2,1.5,null,null,null]\n1",
    ],
)
def test_what_is_malformed_is_refused(data):
    with pytest.raises(BrokerError) as caught:
        messages.decode(data)
    assert len(str(caught.value)) < 200


def test_every_kind_of_message_has_a_handler():
    payloads = {b"c": b'[1000, "", 0]', b"p": b"[1]"}
    kinds = {type(messages.decode(b"4 me 7 you %s\n%b" % (letter, payloads.get(letter, b"hi"))))
             for letter in messages._DECODERS}  # fmt: skip
    assert arrivals.HANDLERS.keys() == kinds


@given(
    some.binary(max_size=300)
    | some.tuples(
        some.sampled_from("tbTBcp"), some.sampled_from(["", "-", "=1", "-=3", "=1024"]), some.binary(max_size=100)
    ).map(lambda found: b"4 me 7 you %b%b\n%b" % (found[0].encode(), found[1].encode(), found[2]))
)
def test_whatever_comes_is_a_message_or_refused(data):
    try:
        message = messages.decode(data)
    except BrokerError:
        return
    assert data.startswith(b"4 ")
    assert isinstance(message, tuple(arrivals.HANDLERS))


def test_the_format_is_the_one_that_other_versions_know():
    assert messages.encode_broadcast("me", 7, None, message_frame("hi")) == b"4 me 7 . t\nhi"
    assert messages.encode_broadcast("me", 8, "you", message_frame(b"\0")) == b"4 me 8 you b\n\0"
    assert messages.encode_broadcast("me", 8, None, message_frame("hi", keep=False)) == b"4 me 8 . t-\nhi"
    assert messages.encode_broadcast("me", 8, None, message_frame("hi", latest="ä")) == b"4 me 8 . t=2\n\xc3\xa4hi"
    both = message_frame(b"\0", latest="\n", keep=False)
    assert messages.encode_broadcast("me", 8, None, both) == b"4 me 8 . b-=1\n\n\0"
    assert messages.encode_direct("me", 9, "you", message_frame("hi")) == b"4 me 9 you T\nhi"
    assert messages.encode_close("me", 10, None, 1000, "bye", 60) == b'4 me 10 . c\n[1000, "bye", 60]'
    assert messages.presence_payload(PRESENCE._replace(user="Ann")) == (
        b'[17,16,1.5,"process","Ann",9.25]\n{"a": "\xc3\xa4\\n"}'
    )


class Outbox:
    max_bytes = 100
    is_blocked = is_queued = False

    def __init__(self):
        self.frames = []
        self.is_flushed = True

    def append(self, frame):
        self.frames.append(frame)
        self.is_flushed = False

    append_close = append

    def flush(self):
        self.is_flushed = True

    def excuse(self, size):
        pass

    flusher = SimpleNamespace(call_later=lambda delay_s, callback: None)


class Someone:
    """A session in some rooms."""

    def __init__(self, under_way, *names, id="a"):
        self.id = id
        self._rooms = ROOMS
        self._joined = frozenset(names)
        self.pending = under_way
        self.outbox = Outbox()
        self._held_frames = held_frames.HeldFrames(self.outbox)

    def send(self, frame):
        self.pending.hold(self, frame, self.pending.before_message(self))

    def close(self):
        self.pending.hold(self, b"close", self.pending.before_close(self), closes=True)

    def sent(self):
        assert self.outbox.is_flushed
        frames, self.outbox.frames = self.outbox.frames, []
        return frames


ROOMS = SimpleNamespace(path="/x")
ONE, TWO = ("/x", "one"), ("/x", "two")


@pytest.fixture
def under_way():
    return pending.PendingBroadcasts()


def in_another_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_what_is_sent_behind_a_broadcast_follows_when_it_is_back(under_way):
    someone = Someone(under_way, "one")
    under_way.begin(1, ONE, None)
    someone.send(b"a")
    under_way.begin(2, ONE, None)
    someone.send(b"b")
    assert someone.sent() == []
    under_way.end(1)
    assert someone.sent() == [b"a"]
    someone.send(b"c")
    under_way.end(2)
    assert someone.sent() == [b"b", b"c"]
    assert under_way.before_message(someone) == []


def test_what_is_held_for_one_thread_s_broadcast_does_not_wait_for_another_thread_s(under_way):
    mine, other = Someone(under_way, "one"), Someone(under_way, "two")
    under_way.begin(1, ONE, None)
    in_another_thread(lambda: (under_way.begin(2, TWO, None), other.send(b"b")))
    mine.send(b"a")
    under_way.end(1)
    assert (mine.sent(), other.sent()) == ([b"a"], [])
    mine.send(b"c")
    assert mine.sent() == [b"c"]
    under_way.end(2)
    assert other.sent() == [b"b"]


def test_whatever_is_sent_to_a_session_goes_behind_what_is_held_for_it(under_way):
    someone = Someone(under_way, "one")
    under_way.begin(1, ONE, None)
    someone.send(b"a")
    in_another_thread(lambda: someone.send(b"b"))
    assert someone.sent() == []
    under_way.end(1)
    assert someone.sent() == [b"a", b"b"]


def test_only_who_may_get_the_broadcast_has_to_wait_for_it(under_way):
    sender, other = Someone(under_way, "one", id="a"), Someone(under_way, "one", id="b")
    outside = Someone(under_way, "two", id="c")
    under_way.begin(1, ONE, "a")
    assert [len(under_way.before_message(someone)) for someone in (sender, other, outside)] == [0, 1, 0]
    under_way.begin(2, ONE, "b")
    assert [broadcast.ticket for broadcast in under_way.before_message(sender)] == [2]
    assert [broadcast.ticket for broadcast in under_way.before_message(other)] == [1]
    under_way.end_all()
    under_way.begin(3, ONE, "a")
    assert under_way.before_message(sender) == [], "the others are over"


def test_a_close_frame_comes_behind_what_anybody_has_broadcast_to_the_session_s_rooms(under_way):
    someone = Someone(under_way, "one")
    in_another_thread(lambda: (under_way.begin(1, ONE, None), under_way.begin(2, TWO, None)))
    assert under_way.before_message(someone) == []
    someone.close()
    assert someone.sent() == []
    under_way.end(1)
    assert someone.sent() == [b"close"]


def test_a_broadcast_that_does_not_come_back_is_overtaken(under_way, monkeypatch):
    someone = Someone(under_way, "one")
    under_way.begin(1, ONE, None)
    someone.send(b"held")
    assert not under_way.end_overdue()
    assert someone.sent() == []
    monkeypatch.setattr(pending, "monotonic", lambda: float("inf"))
    assert under_way.end_overdue()
    assert someone.sent() == [b"held"]
    assert not under_way.end_overdue()


def test_a_broadcast_is_overtaken_by_a_later_one_that_the_session_gets_first_and_what_was_sent_before(under_way):
    """As in a cluster: nodes answer in any order."""
    both, only_one, only_two = (Someone(under_way, *names) for names in (["one", "two"], ["one"], ["two"]))
    everybody = (both, only_one, only_two)
    under_way.begin(1, ONE, None)
    for someone in everybody:
        someone.send(b"a")
    under_way.begin(2, TWO, None)
    for someone in everybody:
        someone.send(b"b")
    under_way.coming(2, ROOMS, "two", None)
    assert [someone.sent() for someone in everybody] == [[b"a"], [], [b"a"]]
    under_way.end(2)
    assert [someone.sent() for someone in everybody] == [[], [], [b"b"]]
    under_way.coming(1, ROOMS, "one", None)
    under_way.end(1)
    assert [someone.sent() for someone in everybody] == [[b"b"], [b"a", b"b"], []]


def test_a_thread_s_frame_behind_another_thread_s_late_broadcast_goes_before_its_own_next_one(under_way):
    someone = Someone(under_way, "one", "two")
    under_way.begin(1, ONE, None)
    in_another_thread(lambda: (under_way.begin(2, TWO, None), someone.send(b"b")))
    someone.send(b"a")
    under_way.begin(3, ONE, None)
    under_way.coming(1, ROOMS, "one", None)
    under_way.end(1)
    assert someone.sent() == []
    under_way.coming(3, ROOMS, "one", None)
    assert someone.sent() == [b"a"]
    under_way.end(3)
    assert someone.sent() == []
    under_way.coming(2, ROOMS, "two", None)
    under_way.end(2)
    assert someone.sent() == [b"b"]


def test_what_is_held_for_one_session_is_bounded(under_way, monkeypatch):
    monkeypatch.setattr(held_frames, "MAX_HELD_BYTES", 5)
    someone = Someone(under_way, "one")
    under_way.begin(1, ONE, None)
    for frame in (b"12", b"34"):
        someone.send(frame)
    assert (someone.sent(), someone._held_frames.held_bytes) == ([], 4)
    someone.send(b"56")
    assert (someone.sent(), someone._held_frames.held_bytes) == ([b"12", b"34", b"56"], 0)


def test_who_waits_for_room_goes_on_when_what_is_held_is_gone(under_way):
    someone = Someone(under_way, "one")
    under_way.begin(1, ONE, None)
    someone.send(b"x" * 90)
    assert not someone._held_frames.wait_empty(0)
    someone._held_frames.wait_for_room(5, DEADLINE_S)  # there is
    someone._held_frames.wait_for_room(20, 0.01)
    assert someone.sent() == []
    ender = threading.Timer(0.05, under_way.end, (1,))
    ender.start()
    someone._held_frames.wait_for_room(20, DEADLINE_S)
    assert someone._held_frames.wait_empty(DEADLINE_S)
    ender.join()
    assert someone.sent() == [b"x" * 90]


def room(name, known=False):
    made = Subscription(None, name, KEYS.address("/x", name))
    made.known = known
    return made


def queue(max_bytes):
    lock = threading.Lock()
    lock.acquire()
    return SendQueue(lock, max_bytes)


def take(waiting):
    """What goes in the next round trip: rooms, then tickets."""
    rooms, batch = waiting.take_rooms(), waiting.batch()
    waiting.done(len(batch))
    return [r.name for r in rooms], [queued.ticket for queued in batch]


def test_a_room_is_announced_between_what_came_before_its_members_and_what_came_after():
    waiting = queue(10_000)
    address = KEYS.address("/x", "y")
    waiting.announce(room("first"))
    waiting.add(address, b"0")
    waiting.add(address, b"1")
    changed = room("second")
    waiting.announce(changed)
    waiting.add(address, b"2")
    waiting.announce(changed)  # keeps its place
    assert len(waiting) == 3
    assert take(waiting) == (["first"], [0, 1])
    assert take(waiting) == (["second"], [2])
    assert not waiting
    assert waiting.waiting_bytes == 0


def test_after_a_break_known_rooms_come_first_and_new_ones_keep_their_places():
    waiting = queue(10_000)
    address = KEYS.address("/x", "y")
    known, new = room("known", known=True), room("new")
    waiting.add(address, b"0")
    waiting.announce(known)
    waiting.announce(new)
    waiting.add(address, b"1")
    waiting.announce_all([known, new, room("popped before it was known")])
    assert take(waiting) == (["known", "popped before it was known"], [0])
    assert take(waiting) == (["new"], [1])


def test_the_bound_is_in_bytes_and_lets_one_in_whatever_its_size():
    waiting = queue(1000)
    address = KEYS.address("/x", "y")
    assert waiting.fits(10**6)
    waiting.add(address, b"x" * 500)
    assert waiting.fits(50)
    assert not waiting.fits(400)


def test_a_queue_with_a_question_alone_has_work_and_no_broadcasts():
    waiting = queue(1000)
    question = Question("return 1", [b"key"])
    waiting.ask(question)
    assert waiting
    assert len(waiting) == 0
    assert waiting.take_questions() == [question]
    assert not waiting


def test_of_a_presence_the_queue_keeps_which_sessions_have_changed():
    waiting = queue(1000)
    key, other = PresenceKey(None, "/x", "y"), PresenceKey(None, "/x", "z")
    for session_id in ["a", "b", "a"]:
        waiting.change_presence(key, session_id)
    waiting.change_presence(other, None)
    waiting.change_presence(other, "c")
    assert waiting
    assert waiting.has_work()
    taken = waiting.take_presences()
    assert [(key, changed and list(changed)) for key, changed in taken] == [(key, ["a", "b"]), (other, None)]
    assert not waiting
    waiting.change_presence(key, "d")
    waiting.give_back(taken)
    assert [(key, changed and list(changed)) for key, changed in waiting.take_presences()] == [
        (key, ["d", "a", "b"]),
        (other, None),
    ]


def test_many_changed_presences_of_a_room_go_in_parts_and_very_many_are_compared():
    waiting = queue(1000)
    key = PresenceKey(None, "/x", "y")
    for number in range(1200):
        waiting.change_presence(key, f"{number}")
    taken = []
    while waiting:
        taken += [list(changed) for _, changed in waiting.take_presences()]
    assert [len(some) for some in taken] == [500, 500, 200]
    assert [each for some in taken for each in some] == [f"{number}" for number in range(1200)]
    for number in range(10_001):
        waiting.change_presence(key, f"{number}")
    assert waiting.take_presences() == [(key, None)]


def test_nothing_is_left_out_or_comes_twice_however_it_is_mixed():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice, waiting, address = random.Random(seed), queue(10**9), KEYS.address("/x", "y")
    placed, sent, announced = {}, [], {}
    for step in range(3000):
        choice = dice.random()
        if choice < 0.5:
            waiting.add(address, b"x" * dice.choice([1, 1000, 300_000]))
        elif choice < 0.8:
            placed[f"{step}"] = waiting.next_ticket
            waiting.announce(room(f"{step}"))
        else:
            names, tickets = take(waiting)
            announced.update(dict.fromkeys(names, len(sent)))
            sent += tickets
    while waiting:
        names, tickets = take(waiting)
        announced.update(dict.fromkeys(names, len(sent)))
        sent += tickets
    assert sent == list(range(waiting.next_ticket))
    assert announced == placed


def test_a_link_lists_the_endpoints_while_others_come_and_go():
    class Listener:
        pass

    endpoints, first, rounds = Endpoints(), Listener(), 300
    endpoints.register("/ws/first", first)

    def change():
        for _ in range(rounds):
            others = [Listener() for _ in range(100)]
            for n, other in enumerate(others):
                endpoints.register(f"/ws/{n}", other)
            del others, other

    def look():
        for _ in range(10 * rounds):
            assert ("/ws/first", first) in endpoints.listeners()

    run_all(change, look)
