"""The parts of the brokers that need no Redis: the format of messages, what waits for its turn, what waits to go."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as some

from wsthreads import BrokerError
from wsthreads.brokers import messages, orders, turns
from wsthreads.brokers.reader import SharedRoom
from wsthreads.brokers.scripts import Keys
from wsthreads.frames import message_frame

KEYS = Keys("app", 0)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1_000_000])
@pytest.mark.parametrize("kind", ["text", "binary"])
@pytest.mark.parametrize("exclude_id", [None, "Session_-1"])
def test_a_broadcast_comes_back_as_it_was(size, kind, exclude_id):
    frame = message_frame("ä" * (size // 2) + "x" * (size % 2) if kind == "text" else b"\xff" * size)
    broadcast = messages.decode(messages.encode("Sender_-1", 12345678901, exclude_id, frame))
    assert broadcast == (b"Sender_-1", 12345678901, exclude_id, frame)


@given(some.binary(max_size=300) | some.binary(max_size=100).map(lambda tail: b"1 me 7 . t" + tail))
def test_whatever_comes_is_a_broadcast_or_refused(data):
    try:
        broadcast = messages.decode(data)
    except BrokerError:
        return
    assert data.startswith(b"1 ")
    assert messages.encode(broadcast.sender.decode(), broadcast.ticket, broadcast.exclude_id, broadcast.frame)


def test_the_format_is_the_one_that_other_versions_know():
    assert messages.encode("me", 7, None, message_frame("hi")) == b"1 me 7 . t\nhi"
    assert messages.encode("me", 8, "you", message_frame(b"\0")) == b"1 me 8 you b\n\0"


class Outbox:
    def __init__(self):
        self.frames = []
        self.is_flushed = True

    def append(self, frame):
        self.frames.append(frame)
        self.is_flushed = False

    def flush(self):
        self.is_flushed = True


class Someone:
    def __init__(self, id):
        self.id = id


def test_what_is_held_follows_when_all_before_it_are_back():
    line, outbox, someone = turns.Turns(), Outbox(), Someone("a")
    assert line.behind(someone) == -1
    line.begin(1, None)
    line.begin(2, None)
    assert line.behind(someone) == 2
    line.hold(2, outbox, b"held")
    line.end(2)
    assert outbox.frames == [], "the first is not back"
    line.end(1)
    assert outbox.frames == [b"held"]
    assert outbox.is_flushed
    assert line.behind(someone) == -1
    line.hold(2, outbox, b"too late to be held")
    assert outbox.frames[1:] == [b"too late to be held"]
    assert outbox.is_flushed


def test_only_who_may_get_the_broadcast_has_to_wait_for_it():
    line, sender, other = turns.Turns(), Someone("a"), Someone("b")
    line.begin(1, "a")
    assert line.behind(sender) == -1
    assert line.behind(other) == 1
    line.begin(2, "b")
    assert line.behind(sender) == line.behind(other) == 2
    line.end_all()
    line.begin(3, "a")
    assert line.behind(sender) == -1, "the others are over"


def test_a_broadcast_that_does_not_come_back_is_overtaken(monkeypatch):
    line, outbox = turns.Turns(), Outbox()
    line.begin(1, None)
    line.hold(1, outbox, b"held")
    assert not line.end_overdue()
    monkeypatch.setattr(turns, "monotonic", lambda: float("inf"))
    assert line.end_overdue()
    assert outbox.frames == [b"held"]
    assert not line.end_overdue()


def room(name, known=False):
    made = SharedRoom(None, name, KEYS.address("/x", name))
    made.known = known
    return made


def take(waiting):
    """What goes in the next round trip: rooms, then tickets."""
    rooms, batch = waiting.take_rooms(), waiting.batch()
    waiting.done(len(batch))
    return [r.name for r in rooms], [order.ticket for order in batch]


def test_a_room_is_announced_between_what_came_before_its_members_and_what_came_after():
    waiting = orders.Orders(10_000)
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
    waiting = orders.Orders(10_000)
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
    waiting = orders.Orders(1000)
    address = KEYS.address("/x", "y")
    assert waiting.has_space(10**6)
    waiting.add(address, b"x" * 500)
    assert waiting.has_space(50)
    assert not waiting.has_space(400)


def test_nothing_is_left_out_or_comes_twice_however_it_is_mixed():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice, waiting, address = random.Random(seed), orders.Orders(10**9), KEYS.address("/x", "y")
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
