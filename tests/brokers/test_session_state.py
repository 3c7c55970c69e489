"""A session as bytes in Redis: what is written is read again, and nothing else is taken for a session."""

import json
import random

import pytest

from wsthreads.brokers.positions import Position
from wsthreads.brokers.session_state import (
    MAX_STATE_BYTES,
    PresenceState,
    SessionState,
    StateError,
    decode_state,
    encode_state,
)
from wsthreads.protocol.frames import message_frame


def state(**changes):
    fields = {
        "id": "abc-_XYZ",
        "secrets": ["0" * 64, "f" * 64],
        "user": "änn",
        "origin": "https://example.org",
        "encoding": "",
        "subprotocol": "chat.1",
        "attributes": '{"a": [1, "\\u00e4", null]}',
        "opened_at": 1.5,
        "expires_at": 1795937947.0,
        "received": 2**53 - 1,
        "acknowledged": 0,
        "asked": 3,
        "heard": 4,
        "unanswered": [2, 4],
        "positions": {"lobby \x00 \ud800": Position(b"epoch", 7, b"1-0"), "\x00sessions": Position(b"", 0, b"0-0")},
        "presences": {"lobby": PresenceState('{"mood":1}', 1.0, 2, 3)},
        "messages": ["text", b"\xff\x00", "", "\ud800", b""],
        "frames": [message_frame("x" * size) for size in (0, 125, 126, 65536)] + [message_frame(b"\x00")],
    }
    return SessionState(**{**fields, **changes})


def test_what_is_written_is_read_again():
    data, head = encode_state(state())
    read, read_head = decode_state(data)
    assert read == state()
    assert read_head == head
    assert data.startswith(head)


def test_two_states_of_one_session_begin_with_different_marks():
    assert encode_state(state())[1] != encode_state(state())[1]


def test_what_is_optional_may_be_missing():
    bare = state(user=None, origin=None, subprotocol=None, expires_at=None, messages=[], frames=[], positions={})
    assert decode_state(encode_state(bare)[0])[0] == bare


def test_a_state_that_is_too_large_is_refused_with_both_numbers():
    with pytest.raises(StateError, match=f"a session of [0-9]+ bytes; at most {MAX_STATE_BYTES} can move"):
        encode_state(state(frames=[b"x" * MAX_STATE_BYTES]))


def test_a_state_shows_no_message_in_its_repr():
    assert "text" not in repr(state())


ODD = [
    ("id", "a b"),
    ("id", ""),
    ("id", 1),
    ("secrets", []),
    ("secrets", ["short"]),
    ("secrets", ["0" * 64] * 17),
    ("secrets", "0" * 64),
    ("user", 1),
    ("user", "x" * 5000),
    ("encoding", None),
    ("attributes", "[]"),
    ("attributes", "{"),
    ("attributes", {}),
    ("opened_at", "1"),
    ("opened_at", -1),
    ("opened_at", 1e300),
    ("opened_at", True),
    ("expires_at", []),
    ("received", -1),
    ("received", 1.0),
    ("received", True),
    ("received", 2**53),
    ("unanswered", [True]),
    ("unanswered", 1),
    ("positions", []),
    ("positions", {"lobby": ["epoch", 1]}),
    ("positions", {"lobby": ["epo ch", 1, "1-0"]}),
    ("positions", {"lobby": ["epoch", -1, "1-0"]}),
    ("positions", {"lobby": ["epoch", 1, "1-0\n"]}),
    ("positions", {"lobby": ["epoch", 1, "$"]}),
    ("presences", {"lobby": ["{", 1.0, 2, 3]}),
    ("presences", {"lobby": ["1", "x", 2, 3]}),
    ("presences", {"lobby": None}),
    ("messages", [["t"]]),
    ("messages", [["x", 1]]),
    ("messages", [["t", 10**9]]),
    ("messages", [["t", -1]]),
    ("frames", [1]),
    ("frames", [10**9]),
    ("frames", "12"),
]


def changed(name, value):
    """The bytes of a state with another value in its JSON."""
    data, head = encode_state(state())
    size, rest = data[len(head) :].split(b"\n", 1)
    own = json.loads(rest[: int(size)])
    own[name] = value
    if value is ...:
        del own[name]
    text = json.dumps(own).encode()
    return head + b"%d\n" % len(text) + text + rest[int(size) :]


@pytest.mark.parametrize(("name", "value"), ODD)
def test_an_odd_value_is_refused(name, value):
    with pytest.raises(StateError, match=r"bytes that is malformed"):
        decode_state(changed(name, value))


@pytest.mark.parametrize("name", ["id", "secrets", "frames"])
def test_a_missing_field_and_one_too_many_are_refused(name):
    for data in (changed(name, ...), changed("another", 1)):
        with pytest.raises(StateError):
            decode_state(data)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x81",
        b"\x81\x02x",
        b"\x88\x00",
        b"\x89\x00",
        b"\x01\x00",
        b"\x81\x80\x00\x00\x00\x00",
        b"\x81\x00\x81\x00",
    ],
)
def test_what_is_no_whole_message_is_no_frame(frame):
    data, _ = encode_state(state(frames=[frame]))
    with pytest.raises(StateError):
        decode_state(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"taken x y",
        b"wsthreads session 1 abcdefghijklmnop\n",
        b"wsthreads session 2 abcdefghijklmnop\n2\n{}",
        b"wsthreads session 1 abcdefghijklmnop\n99999999999999\n{}",
        b"wsthreads session 1 abcdefghijklmnop\n-1\n{}",
        b"wsthreads session 1 abcdefghijklmnop\n200000\n" + b"[" * 200_000,
    ],
)
def test_what_is_no_state_is_refused(data):
    with pytest.raises(StateError):
        decode_state(data)


def test_bytes_that_were_changed_at_random_are_refused_or_are_a_session():
    """Nothing but `StateError` is raised, whatever was changed, cut off, or put in."""
    chance = random.Random(16)
    whole, _ = encode_state(state(frames=[message_frame("frame")], messages=["text"]))
    refused = 0
    for _ in range(5000):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(len(data))
            change = chance.randrange(4)
            if change == 0:
                data[at] = chance.randrange(256)
            elif change == 1:
                del data[at : at + chance.randrange(1, 9)]
            elif change == 2:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
            else:
                data[at] = chance.choice(b'0123456789{}[]",:-\\nutf')
        try:
            decode_state(bytes(data))
        except StateError:
            refused += 1
    assert 2000 < refused < 5000
