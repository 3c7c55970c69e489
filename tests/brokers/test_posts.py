"""Posts between processes, without Redis: how they are written, what is queued, and what their posters are told."""

from threading import Lock

import pytest

from wsthreads import PostError, Sender
from wsthreads.brokers.keys import Keys
from wsthreads.brokers.posts import (
    MAX_UNSENT,
    PostBox,
    SentPost,
    TakenPosts,
    error_of,
    outcome_of,
    parse_entry,
    post_payload,
)
from wsthreads.brokers.queue import SendQueue

KEYS = Keys("test", 0)


class Calls:
    """A pipeline that only remembers."""

    def __init__(self):
        self.calls = []

    def call(self, script, keys, *arguments, then):
        self.calls.append((keys[1].rpartition(b":")[2].decode(), arguments[3:], then))


class Box:
    def __init__(self, *, hears=True):
        self.now = 100.0
        self.lock = Lock()
        self.box = PostBox(
            KEYS, b"wake:me", lock=self.lock, queue=SendQueue(self.lock, 1 << 20), clock=lambda: self.now
        )
        self.told = []
        if hears:
            self.box.hear()

    def post(self, value, room="game", ticket=0, timeout_s=10.0):
        settled = lambda error: self.told.append((value, error and (str(error), error.is_unknown)))  # noqa: E731
        post = SentPost(room, KEYS.address("/ws", room), value.encode(), settled, timeout_s)
        with self.lock:
            return self.box.add(post, ticket)

    def send(self, gate=float("inf")):
        pipeline = Calls()
        self.box.send(pipeline, gate)
        return pipeline.calls


@pytest.mark.parametrize("sender", [None, Sender("some-id", None), Sender("some-id", "ann \u2028 \ud800")])
@pytest.mark.parametrize("value", ['{"a": [1, null]}', '"two\\nlines"', '"\u00e9"', "0"])
def test_a_post_is_read_as_it_was_written(sender, value):
    settled = print
    entry = b"wake:me 7 1234567890123\n" + post_payload(sender, value)
    assert parse_entry(entry, settled) == (value, sender, settled)


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"wake:me 7 12",
        b"wake:me 7 12\nnull",
        b"wake:me 7 12\nno json\n1",
        b"wake:me 7 12\n[1, 2]\n1",
        b'wake:me 7 12\n["id", null, 3]\n1',
        b'wake:me 7 12\n{"id": "x"}\n1',
        b"wake:me 7 12\nnull\n\xff",
        b"wake:me 7 12\n" + b"[" * 100_000 + b"\n1",
    ],
)
def test_what_is_no_post_is_refused(entry):
    assert parse_entry(entry, print) is None


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{}", b"[1]", b'[["1"]]', b'[["x", ""]]', b'[["1", 2]]', b'[[1, ""]]', b'[["\xc2\xb2", ""]]', b"\xff"),
        *(b'[["%s", ""]]' % (b"9" * 5000), b"[" * 100_000, b'[["0", ""], ["1"]]'),
    ],
)
def test_what_are_no_outcomes_settles_nothing(data):
    box = Box()
    box.post("one")
    box.send()
    with pytest.raises(ValueError):
        box.box.take_outcomes(data)
    assert box.told == []


def test_each_outcome_is_an_error_or_none():
    post = SentPost("game", KEYS.address("/ws", "game"), b"", print, 1.0)
    for error in (None, PostError("was not handled"), PostError("was perhaps handled", is_unknown=True)):
        found = error_of(post, outcome_of(error))
        assert (str(found), getattr(found, "is_unknown", None)) == (str(error), getattr(error, "is_unknown", None))
    assert len(outcome_of(PostError("x" * 100_000))) < 2000
    assert error_of(post, "lost").is_unknown
    assert not error_of(post, "nobody").is_unknown
    assert not error_of(post, "full").is_unknown


def test_posts_are_sent_by_room_in_order_and_settled_once():
    box = Box()
    for n in range(4):
        box.post(f"{n}", room="ab"[n % 2])
    (room_a, posts_a, then_a), (room_b, posts_b, then_b) = box.send()
    assert (room_a, posts_a, room_b, posts_b) == ("a", (0, b"0", 2, b"2"), "b", (1, b"1", 3, b"3"))
    assert box.send() == []
    then_a(2)
    then_b(1)
    refused = "the post to the room 'b' was refused: 10000 posts wait already, which is the limit"
    assert box.told == [("3", (refused, False))]
    box.box.take_outcomes(b'[["2", ""], ["2", "lost"], ["3", ""], ["99", ""]]')
    assert box.told[1:] == [("2", None)]
    box.box.take_outcomes(b'[["0", "?perhaps"], ["1", "!surely not"]]')
    assert box.told[2:] == [("0", ("perhaps", True)), ("1", ("surely not", False))]


def test_posts_wait_for_broadcasts_that_were_before_them():
    box = Box()
    box.post("0", ticket=5)
    box.post("1", ticket=9)
    assert not box.box.has_work(4)
    assert box.send(gate=4) == []
    assert len(box.send(gate=8)) == 1
    assert not box.box.has_work(8)
    assert box.box.has_work(float("inf"))


def test_calls_have_their_place_among_the_posts():
    box, made = Box(), []
    box.post("0")
    with box.lock:
        box.box.add_call(lambda pipeline: made.append(len(pipeline.calls)), 0)
    box.post("1")
    assert len(box.send()) == 2
    assert made == [1]


def test_nothing_is_sent_while_no_outcome_would_arrive():
    box = Box(hears=False)
    box.post("0")
    assert box.send() == []
    box.box.hear()
    assert len(box.send()) == 1
    box.post("1")
    box.box.deafen()
    why = "the connection broke before the outcome arrived; it is not known whether the post was handled"
    assert box.told == [("0", (f"a post to the room 'game': {why}", True))]
    box.box.refuse_unsent("it is away")
    assert box.told[1:] == [("1", ("a post to the room 'game': it is away; the post was not handled", False))]
    assert box.send() == []


def test_a_post_without_an_outcome_is_given_up_in_time():
    box = Box()
    box.post("0", timeout_s=2.0)
    box.send()
    box.post("1", timeout_s=2.0)
    box.now += 1.9
    box.box.end_late()
    assert box.told == []
    box.now += 0.2
    box.box.end_late()
    assert [(value, is_unknown) for value, (_, is_unknown) in box.told] == [("0", True), ("1", False)]


def test_only_so_many_posts_wait_to_be_sent():
    box = Box(hears=False)
    assert all(box.post("x") for _ in range(MAX_UNSENT))
    assert not box.post("x")


def test_outcomes_are_told_in_the_order_of_the_posts():
    taken = TakenPosts()
    taken.received = 4
    taken.settle(1, 0, "one")
    taken.settle(2, 7, "two")
    assert taken.ready(9) == []
    assert taken.open == 2
    taken.settle(0, 0, "zero")
    assert taken.ready(5) == ["zero", "one"]
    assert taken.ready(7) == ["zero", "one", "two"]
    taken.told(2)
    assert (taken.first, taken.ready(7)) == (2, ["two"])
    assert taken.rest() == ["two", "lost"], "the last one may be running"
