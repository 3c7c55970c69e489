"""Bytes to messages, without a socket: joined frames, bounds, control frames, in whatever pieces, by both decoders."""

import zlib

import pytest

from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame
from wsthreads import Config
from wsthreads.errors import (
    InvalidPayloadError,
    MessageTooBigError,
    PolicyError,
    ProtocolError,
    TooManyFragmentsError,
    UnsupportedDataError,
)
from wsthreads.protocol.assembler import Assembler, Close, Ping, Pong
from wsthreads.protocol.deflate import agree
from wsthreads.protocol.frames import _decode_message

SEVERAL = [
    (frame(TEXT, "one"), ["one"]),
    (frame(BINARY, b"\xff" * 200), [b"\xff" * 200]),
    (frame(TEXT, "tw", fin=False), []),
    (frame(PING, "p"), [Ping(b"p")]),
    (frame(CONTINUATION, b"\xc3", fin=False), []),
    (frame(CONTINUATION, b"\xb6"), ["twö"]),
    (frame(PONG, "q"), [Pong(b"q")]),
    (frame(BINARY, b"1", fin=False), []),
    (frame(CONTINUATION, b""), [b"1"]),
    (frame(TEXT, ""), [""]),
    (frame(CLOSE, close_payload(4000, "bye")), [Close(4000, "bye")]),
]


@pytest.fixture(autouse=True, params=["python", "c"])
def decoder(request, monkeypatch):
    module = pytest.importorskip("wsthreads._native._speedups") if request.param == "c" else None
    decode = module.decode_message if module else _decode_message
    monkeypatch.setattr("wsthreads.protocol.assembler.decode_message", decode)
    monkeypatch.setattr("wsthreads.protocol.deflate.decode_message", decode)


def assembler(*, deflates=False, early=b"", **settings):
    return Assembler(Config(**settings), agree("permessage-deflate") if deflates else None, early=early)


def fed(it, *pieces):
    """Messages and control frames, in their order."""
    items = []
    for piece in pieces:
        for message in it.feed(piece, items.append):
            items.append(message)
    return items


def test_frames_become_messages_and_control_frames_in_order():
    it = assembler()
    for data, wanted in SEVERAL:
        assert fed(it, data) == wanted
    assert it.is_between


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10**6])
def test_the_pieces_in_which_they_come_do_not_matter(size):
    stream = b"".join(data for data, _ in SEVERAL)
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert fed(assembler(), *pieces) == [item for _, items in SEVERAL for item in items]


def test_what_came_with_the_handshake_is_first():
    whole = frame(TEXT, "hello")
    it = assembler(early=whole[:4])
    assert not it.is_between
    assert fed(it, b"") == []
    assert fed(it, whole[4:]) == ["hello"]


def test_what_follows_a_message_is_judged_when_that_message_has_been_handled():
    pings = []
    stream = frame(PING) + frame(TEXT, "good") + frame(PING) + frame(BINARY, b"bad")
    items = assembler(accept_binary=False).feed(stream, pings.append)
    assert (next(items), len(pings)) == ("good", 1)
    with pytest.raises(UnsupportedDataError):
        next(items)
    assert len(pings) == 2


def test_nothing_behind_a_close_frame_is_read():
    it = assembler()
    assert fed(it, frame(TEXT, "a") + frame(CLOSE) + frame(TEXT, "late")) == ["a", Close(1005, "")]
    assert it.is_over


def test_a_message_is_incomplete_from_its_first_header_to_its_last_byte():
    it, whole = assembler(), frame(TEXT, "ab", fin=False)
    fed(it, whole[:5])
    assert not it.incomplete_since, "the header is not complete"
    assert not it.is_between
    fed(it, whole[5:7])
    began = it.incomplete_since
    assert began
    fed(it, whole[7:], frame(PING), frame(CONTINUATION, "c", fin=False))
    assert it.incomplete_since == began
    assert not it.is_between
    assert fed(it, frame(CONTINUATION)) == ["abc"]
    assert not it.incomplete_since
    assert it.is_between


def test_a_message_that_begins_where_another_ends_has_its_own_time(monkeypatch):
    now = [1.0]
    monkeypatch.setattr("wsthreads.protocol.assembler.monotonic", lambda: now[0])
    it = assembler()
    fed(it, frame(TEXT, "a", fin=False))
    assert it.incomplete_since == 1.0
    now[0] = 2.0
    assert fed(it, frame(CONTINUATION, "b") + frame(TEXT, "c", fin=False)) == ["ab"]
    assert it.incomplete_since == 2.0


@pytest.mark.parametrize(
    ("settings", "frames", "error"),
    [
        ({"max_message_bytes": 10}, [frame(TEXT, "x" * 11)[:8]], MessageTooBigError),
        ({"max_message_bytes": 2}, [frame(TEXT, "xy", fin=False), frame(CONTINUATION, "z")], MessageTooBigError),
        ({"max_fragments": 2}, [frame(TEXT, fin=False)] + 2 * [frame(CONTINUATION, fin=False)], TooManyFragmentsError),
        ({"max_control_frames_per_s": 1}, 11 * [frame(PING)], PolicyError),
        ({"accept_binary": False}, [frame(BINARY, b"x")], UnsupportedDataError),
        ({"accept_binary": False}, [frame(BINARY, fin=False), frame(CONTINUATION)], UnsupportedDataError),
        ({}, [frame(TEXT, b"\xff")], InvalidPayloadError),
        ({}, [frame(TEXT, "x", masked=False)], ProtocolError),
        ({}, [frame(CONTINUATION, "x")], ProtocolError),
        ({}, [frame(TEXT, "x", rsv=4)], ProtocolError),
    ],
)
def test_past_a_bound_or_against_the_protocol_it_raises(settings, frames, error):
    it = assembler(**settings)
    assert not [item for item in fed(it, *frames[:-1]) if not isinstance(item, Ping)]
    with pytest.raises(error) as raised:
        fed(it, frames[-1])
    assert type(raised.value) is error


def test_deflated_messages_are_inflated_within_the_bound():
    compressor = zlib.compressobj(wbits=-15)
    deflated = (compressor.compress(b"x" * 1000) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    whole = frame(TEXT, deflated, rsv=4)
    parts = frame(TEXT, deflated[:3], fin=False, rsv=4) + frame(CONTINUATION, deflated[3:])
    it = assembler(deflates=True, max_message_bytes=1000)
    assert fed(it, whole, parts) == ["x" * 1000] * 2
    with pytest.raises(MessageTooBigError):
        fed(assembler(deflates=True, max_message_bytes=999), whole)


def test_it_is_small_until_wsproto_is_asked():
    it = assembler()
    assert fed(it, frame(TEXT, "a")) == ["a"]
    assert it._protocol is it._parts is None
    fed(it, frame(TEXT, "a", fin=False), *1000 * [frame(CONTINUATION, fin=False)])
    assert it._parts == ["a"], "empty fragments are not kept"
