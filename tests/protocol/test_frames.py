"""Frames as bytes. The differential test of the whole reading path is in test_connection_reading."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType
from wsproto.connection import Connection as Wsproto
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from tests.wire import BINARY, CLOSE, PING, PONG, TEXT, frame, parse_frames
from wsthreads import MessageTypeError, UsageError
from wsthreads.protocol import frames
from wsthreads.protocol.frames import (
    MarkedFrame,
    close_frame,
    decode_message,
    encode_frame,
    message_frame,
    parse_header,
)

SIZES = [0, 1, 124, 125, 126, 127, 65535, 65536, 70000]
LIMIT = 2**31

decoders = pytest.mark.parametrize("decode", list(dict.fromkeys([frames._decode_message, decode_message])))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_frame_of_any_size_is_what_an_independent_parser_reads(opcode, size):
    payload = b"x" * size
    data = encode_frame(opcode, payload)
    assert parse_frames(data) == ([(opcode, payload)], b"")
    client = Wsproto(ConnectionType.CLIENT)
    client.receive_data(data)
    (event,) = client.events()
    assert isinstance(event, TextMessage if opcode == TEXT else BytesMessage)
    assert (event.data if opcode == BINARY else event.data.encode()) == payload
    assert event.message_finished


@decoders
@pytest.mark.parametrize("size", SIZES)
def test_the_fast_decoder_gives_the_message_and_where_the_next_frame_begins(decode, size):
    text = "x" * size
    data = b"??" + frame(TEXT, text) + frame(BINARY, b"next")
    message, end = decode(data, 2, LIMIT)
    assert message == text
    assert decode(data, end, LIMIT) == (b"next", len(data))


@decoders
@pytest.mark.parametrize("size", SIZES)
def test_the_fast_decoder_never_takes_part_of_a_frame(decode, size):
    data = frame(BINARY, b"x" * size)
    for cut in {*range(min(20, len(data))), len(data) - 1}:
        assert decode(data[:cut], 0, LIMIT) is None
    assert decode(data, 0, LIMIT) == (b"x" * size, len(data))


@decoders
@pytest.mark.parametrize(
    "data",
    [
        frame(PING, b"a"),
        frame(PONG, b"a"),
        frame(CLOSE, b"\x03\xe8"),
        frame(TEXT, "a", fin=False),
        frame(0, "a"),
        frame(3, "a"),
        frame(TEXT, "a", rsv=1),
        frame(TEXT, "a", rsv=4),
        frame(TEXT, "a", masked=False),
        frame(TEXT, b"\xff"),
        frame(TEXT, b"\xed\xa0\x80"),
        frame(TEXT, "é".encode()[:1]),
        b"\x81\xfe\x00\x01" + b"keyk" + b"a",
        b"\x81\xff" + bytes(6) + b"\xff\xff" + b"keyk" + b"a" * 65535,
        b"\x81\xff\x80" + bytes(7) + b"keyk" + b"a",
    ],
)
def test_the_fast_decoder_leaves_what_is_not_certainly_legal(decode, data):
    assert decode(data + bytes(20), 0, LIMIT) is None


@decoders
def test_the_fast_decoder_leaves_what_is_too_big(decode):
    data = frame(TEXT, "x" * 100)
    assert decode(data, 0, 99) is None
    assert decode(data, 0, 100) == ("x" * 100, len(data))


@decoders
@given(payload=st.binary(max_size=300), key=st.binary(min_size=4, max_size=4))
def test_every_payload_survives_every_masking_key(decode, payload, key):
    assert decode(frame(BINARY, payload, key=key), 0, LIMIT)[0] == payload


@decoders
@given(st.text(max_size=200))
def test_every_text_survives(decode, text):
    assert decode(frame(TEXT, text), 0, LIMIT)[0] == text


@given(
    st.sampled_from([TEXT, BINARY, CLOSE, PING, PONG, 0, 3, 15]),
    st.sampled_from(SIZES),
    st.booleans(),
    st.booleans(),
    st.integers(0, 7),
)
def test_a_header_says_what_the_frame_is_and_is_none_while_some_of_it_is_missing(opcode, size, fin, masked, rsv):
    data = frame(opcode, b"x" * size, fin=fin, masked=masked, rsv=rsv)
    header = parse_header(b"?" + data, 1)
    assert (header.fin, header.rsv1, header.opcode, header.payload_bytes) == (fin, rsv >= 4, opcode, size)
    assert header.header_bytes + size == len(data)
    for cut in range(header.header_bytes):
        assert parse_header(data[:cut]) is None


@pytest.mark.parametrize(
    ("message", "opcode", "payload"),
    [
        ("", TEXT, b""),
        ("a\0b", TEXT, b"a\0b"),
        ("😀", TEXT, "😀".encode()),
        ("a\ud800b", TEXT, "a\ufffdb".encode()),
        ("\udfff\ud83d", TEXT, "\ufffd\ufffd".encode()),
        (b"", BINARY, b""),
        (bytearray(b"ab"), BINARY, b"ab"),
        (memoryview(b"abcd")[::2], BINARY, b"ac"),
    ],
)
def test_a_message_becomes_one_frame(message, opcode, payload):
    assert parse_frames(message_frame(message)) == ([(opcode, payload)], b"")


@pytest.mark.parametrize("message", [None, 3, ["a"], {"a": 1}, object()])
def test_anything_but_text_and_bytes_is_a_type_error_that_names_the_type(message):
    with pytest.raises(MessageTypeError, match=f"str or bytes, not {type(message).__name__}; try json.dumps"):
        message_frame(message)


def test_a_frame_is_a_copy_of_a_mutable_buffer():
    buffer = bytearray(os.urandom(20))
    before, data = bytes(buffer), message_frame(buffer)
    buffer[:] = bytes(20)
    assert parse_frames(data)[0] == [(BINARY, before)]


@pytest.mark.parametrize("message", ["hi", b"\0", "x" * 70_000])
def test_a_marked_frame_is_the_frame_and_its_marks(message):
    marked = message_frame(message, latest="a", keep=False)
    assert isinstance(marked, MarkedFrame)
    assert marked == message_frame(message)
    assert (marked.latest, marked.is_kept, marked.room) == ("a", False, "")
    marked.room = "lobby"
    other = marked.like(b"other")
    assert (other, other.latest, other.is_kept, other.room) == (b"other", "a", False, "lobby")


def test_a_frame_without_marks_is_plain():
    assert type(message_frame("hi")) is bytes
    assert type(message_frame("hi", latest=None, keep=True)) is bytes
    assert message_frame("hi", keep=False).latest is None
    assert message_frame("hi", latest="a").is_kept is True


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"latest": ""}, "latest must have 1 to 256 characters, this key has 0"),
        ({"latest": "k" * 257}, "latest must have 1 to 256 characters, this key has 257"),
        ({"latest": 7}, "latest must be text of 1 to 256 characters, not 7"),
        ({"latest": b"k"}, "latest must be text of 1 to 256 characters, not b'k'"),
        ({"latest": True}, "latest must be text of 1 to 256 characters, not True"),
        ({"latest": float("nan")}, "latest must be text of 1 to 256 characters, not nan"),
        ({"keep": None}, "keep must be True or False, not None"),
        ({"keep": 0}, "keep must be True or False, not 0"),
    ],
)
def test_a_wrong_option_of_a_message_is_an_error(options, problem):
    with pytest.raises(UsageError) as caught:
        message_frame("hi", **options)
    assert str(caught.value) == problem


@given(st.sampled_from([1000, 1001, 1011, 3000, 4999]), st.text(max_size=200))
def test_a_close_frame_is_legal_whatever_the_reason_and_keeps_as_much_of_it_as_fits(code, reason):
    data = close_frame(code, reason)
    client = Wsproto(ConnectionType.CLIENT)
    client.receive_data(data)
    (event,) = client.events()
    assert isinstance(event, CloseConnection)
    assert event.code == code
    assert reason.startswith(event.reason)
    if len(event.reason) < len(reason):
        assert len(event.reason.encode()) + len(reason[len(event.reason)].encode()) > 123
    assert len(data) <= 127


def test_a_close_reason_is_cut_between_two_characters():
    ((_, payload),) = parse_frames(close_frame(1000, "é" * 100))[0]
    assert payload[2:].decode() == "é" * 61


def test_a_lone_surrogate_in_a_close_reason_is_replaced():
    ((_, payload),) = parse_frames(close_frame(1000, "a\ud800"))[0]
    assert payload[2:].decode() == "a\ufffd"


def test_a_close_frame_without_a_code_is_empty():
    assert parse_frames(close_frame(None)) == ([(CLOSE, b"")], b"")
