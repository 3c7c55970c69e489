"""The grammar of wsthreads.1."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsthreads.errors import ProtocolError
from wsthreads.protocol import envelope
from wsthreads.protocol.envelope import (
    MAX_HELLO_CHARS,
    MAX_NUMBER,
    Ack,
    Failure,
    Heartbeat,
    Hello,
    NullReply,
    Reply,
    Request,
    Welcome,
    escaped,
    escaped_frame,
    is_counted,
    parse,
    usual_request,
)
from wsthreads.protocol.frames import MarkedFrame, close_frame, encode_frame, message_frame, parse_header

MESSAGES = st.one_of(
    st.text(), st.binary(), st.text("\x10aqr:1"), st.builds(bytes, st.lists(st.sampled_from(b"\x10aqr:1")))
)
NUMBERS = st.integers(0, MAX_NUMBER)
IDS = st.integers(1, MAX_NUMBER)
TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=256)
WELCOME = Welcome(True, "id.secret", 7, 60_000, 25_000, 20_000, "chat", None)


@given(MESSAGES)
def test_an_ordinary_message_comes_back_as_it_was(message):
    assert parse(escaped(message)) == message


@given(MESSAGES.filter(lambda message: message[:1] not in ("\x10", b"\x10")))
def test_a_message_that_does_not_begin_with_dle_is_the_same_object_both_ways(message):
    assert escaped(message) is message
    assert parse(message) is message


def test_a_message_that_begins_with_dle_gets_one_more():
    assert escaped("\x10a1") == "\x10\x10a1"
    assert escaped(b"\x10") == b"\x10\x10"


@given(NUMBERS, IDS, MESSAGES, st.text(), TOKENS)
def test_what_is_written_is_read_as_that(number, request, data, text, token):
    assert parse(envelope.hello()) == Hello(None, 0)
    assert parse(envelope.hello(token, number)) == Hello(token, number)
    assert parse(envelope.ack(number)) == Ack(number)
    assert parse(envelope.heartbeat(number)) == Heartbeat(number)
    assert parse(envelope.request(request, data)) == Request(request, data)
    assert parse(envelope.reply(request, data)) == Reply(request, data)
    assert parse(envelope.null_reply(request)) == NullReply(request)
    assert parse(envelope.failure(request, text)) == Failure(request, text)


@given(
    st.builds(
        Welcome, st.booleans(), st.none() | TOKENS, NUMBERS, NUMBERS, NUMBERS, NUMBERS,
        st.none() | st.text(max_size=99), st.none() | st.text(max_size=99),
    )
)  # fmt: skip
def test_a_welcome_is_read_as_it_was_written(welcome):
    assert parse(envelope.welcome(welcome)) == welcome


def test_the_letters_are_those_of_the_protocols_page():
    assert envelope.hello() == "\x10h{}"
    assert envelope.hello("t", 3) == '\x10h{"resume":{"token":"t","received":3}}'
    assert envelope.ack(0) == "\x10a0"
    assert envelope.heartbeat(64) == "\x10p64"
    assert envelope.request(1, "a:b") == "\x10q1:a:b"
    assert envelope.request(1, b"a") == b"\x10q1:a"
    assert envelope.reply(12, "") == "\x10r12:"
    assert envelope.reply(12, b"") == b"\x10r12:"
    assert envelope.null_reply(12) == "\x10n12"
    assert envelope.failure(12, "no") == "\x10e12:no"
    assert envelope.welcome(WELCOME) == (
        '\x10w{"resumed":true,"token":"id.secret","received":7,"resumeMs":60000,"heartbeatMs":25000,"timeoutMs":20000,'
        '"protocol":"chat"}'
    )


def test_unknown_keys_of_a_hello_and_a_welcome_are_ignored():
    assert parse('\x10h{"later": 1}') == Hello()
    assert parse('\x10h{"resume": {"token": "t", "received": 1, "later": [{}]}, "more": null}') == Hello("t", 1)
    more = envelope.welcome(WELCOME)[:-1] + ',"later":true}'
    assert parse(more) == WELCOME


WRONG_NUMBERS = [
    "",
    "-1",
    "+1",
    "01",
    "00",
    "1.0",
    "1e3",
    " 1",
    "1 ",
    "1\n",
    "0x1",
    "１",
    "x",
    f"{MAX_NUMBER + 1}",
    "9" * 17,
]
WRONG_IDS = [*WRONG_NUMBERS, "0"]


@pytest.mark.parametrize("number", WRONG_NUMBERS)
@pytest.mark.parametrize("letter", ["a", "p"])
def test_a_wrong_count_is_a_protocol_error(letter, number):
    with pytest.raises(ProtocolError):
        parse(f"\x10{letter}{number}")


@pytest.mark.parametrize("number", WRONG_IDS)
@pytest.mark.parametrize("form", ["\x10q{}:x", "\x10r{}:x", "\x10e{}:x", "\x10n{}"])
def test_a_wrong_id_is_a_protocol_error(form, number):
    message = form.format(number)
    with pytest.raises(ProtocolError):
        parse(message)
    if form[1] in "qr":
        with pytest.raises(ProtocolError):
            parse(message.encode())


@pytest.mark.parametrize(
    "message", ["\x10q", "\x10q1", "\x10r1", "\x10e1", b"\x10q1", b"\x10r1", "\x10q" + "1" * 10**6]
)
def test_an_id_without_a_colon_is_a_protocol_error(message):
    with pytest.raises(ProtocolError, match="colon"):
        parse(message)


@given(st.one_of(MESSAGES, st.from_regex(r"\x10q[0-9]{0,20}:?.?", fullmatch=True)))
def test_a_usual_request_is_what_a_parser_reads(message):
    for whole in (message, message.encode("utf-8", "replace") if isinstance(message, str) else message):
        found = usual_request(whole)
        if found is not None:
            assert Request(*found) == parse(whole)


@given(st.integers(1, 10**15 - 1), st.one_of(st.text(), st.binary()))
def test_requests_are_usual_ones_but_for_large_ids(number, data):
    assert usual_request(envelope.request(number, data)) == (number, data)
    assert usual_request(envelope.request(number + 10**15 - 1, data)) is None


def test_the_largest_number_is_the_largest_that_javascript_has_exactly():
    assert parse("\x10a9007199254740991") == Ack(9007199254740991)
    with pytest.raises(ProtocolError, match="9007199254740991"):
        parse("\x10a9007199254740992")


@pytest.mark.parametrize(
    "letter", ["", *(chr(c) for c in range(256) if chr(c) not in "\x10hwapqrne"), "é", "\U0001f600"]
)
def test_any_other_letter_is_a_protocol_error(letter):
    for rest in ("", "1", "1:x", "{}"):
        with pytest.raises(ProtocolError):
            parse(f"\x10{letter}{rest}")


@pytest.mark.parametrize("mark", [b"", *(bytes([c]) for c in range(256) if c not in b"\x10qr")])
def test_a_binary_message_has_only_requests_and_replies(mark):
    with pytest.raises(ProtocolError):
        parse(b"\x10" + mark + b"1:x")


@pytest.mark.parametrize("kind", ["h", "w"])
@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "{", "[]", "null", "1", '"x"', '{"a": NaN}', "{}x", '{"resume": ' + "9" * 4200 + "}"),
        *("[" * 4000, '{"a":' * 800, '{"a": "' + "x" * MAX_HELLO_CHARS + '"}'),
    ],
)  # fmt: skip
def test_a_hello_or_welcome_that_is_no_json_object_or_too_long_is_a_protocol_error(kind, text):
    with pytest.raises(ProtocolError):
        parse(f"\x10{kind}{text}")


def test_a_hello_may_have_so_many_characters_and_no_more():
    text = '{"a":"' + "x" * (MAX_HELLO_CHARS - 8) + '"}'
    assert parse("\x10h" + text) == Hello()
    with pytest.raises(ProtocolError, match=f"{MAX_HELLO_CHARS + 1} characters, at most {MAX_HELLO_CHARS}"):
        parse("\x10h " + text)


WRONG_COUNTS = [None, True, 1.0, "1", -1, MAX_NUMBER + 1, 10**400, [], {}]
WRONG_TOKENS = [True, 1, ["secret"], {"secret": 1}, "", "secret secret", "secret\n", "secr\xe9t", "\ud800", "s" * 257]


@pytest.mark.parametrize(
    "resume",
    [
        *(None, True, 1, "x", [], {}, {"received": 1}, {"token": "t"}, {"token": None, "received": 1}),
        *({"token": "secret", "received": count} for count in WRONG_COUNTS),
        *({"token": token, "received": 1} for token in WRONG_TOKENS),
    ],
)
def test_a_wrong_resume_is_a_protocol_error_that_does_not_show_the_token(resume):
    with pytest.raises(ProtocolError) as raised:
        parse("\x10h" + json.dumps({"resume": resume}))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("key", ["received", "resumeMs", "heartbeatMs", "timeoutMs"])
@pytest.mark.parametrize("count", WRONG_COUNTS)
def test_a_wrong_number_in_a_welcome_is_a_protocol_error(key, count):
    value = json.loads(envelope.welcome(WELCOME)[2:]) | {key: count}
    with pytest.raises(ProtocolError, match=key):
        parse("\x10w" + json.dumps(value))


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        *(("resumed", each) for each in (None, 1, "true")),
        *(("token", each) for each in WRONG_TOKENS),
        *((key, each) for key in ("protocol", "why") for each in (True, 1, [], {})),
    ],
)
def test_a_wrong_field_in_a_welcome_is_a_protocol_error(key, wrong):
    value = json.loads(envelope.welcome(WELCOME)[2:]) | {key: wrong}
    with pytest.raises(ProtocolError):
        parse("\x10w" + json.dumps(value))


def test_no_token_is_in_a_repr_or_an_error():
    assert "secret" not in repr(Hello("id.secret", 1))
    assert "secret" not in repr(WELCOME)
    with pytest.raises(ProtocolError) as raised:
        parse('\x10h{"resume": {"token": "id.secret", "received": 1}')
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("form", ["\x10a{}", "\x10p{}", "\x10n{}", "\x10q{}", "\x10r{}", "\x10q{}:x", "\x10e{}:x"])
def test_a_token_in_the_place_of_a_number_is_not_shown(form):
    with pytest.raises(ProtocolError) as raised:
        parse(form.format("secret.other"))
    assert "secret" not in str(raised.value)


# Frames


SIZES = [0, 1, 2, 124, 125, 126, 65534, 65535, 65536]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [str, bytes])
def test_the_frame_of_an_ordinary_message_is_that_of_the_escaped_message(kind, size):
    for first in ("x", "\x10"):
        message = (first + "x" * size)[:size]
        message = message if kind is str else message.encode()
        plain = message_frame(message)
        assert escaped_frame(plain) == message_frame(escaped(message))
        assert (escaped_frame(plain) is plain) == (escaped(message) is message)


def test_an_escaped_frame_keeps_its_marks():
    frame = escaped_frame(MarkedFrame(message_frame("\x10x"), "key", False, "room"))
    assert isinstance(frame, MarkedFrame)
    assert (frame, frame.latest, frame.is_kept, frame.room) == (message_frame("\x10\x10x"), "key", False, "room")


@pytest.mark.parametrize("size", SIZES)
def test_ordinary_messages_requests_and_replies_are_counted(size):
    for data in ("x" * size, b"x" * size, "\x10" * size, b"\x10" * size, ("\x10a1" + "x" * size)[:size]):
        assert is_counted(message_frame(escaped(data)))
        assert is_counted(message_frame(envelope.request(1, data)))
        assert is_counted(message_frame(envelope.reply(2, data)))
    assert is_counted(message_frame(envelope.null_reply(3)))
    assert is_counted(message_frame(envelope.failure(3, "x" * size)))


def test_deflated_messages_are_counted():
    for first in (0xC1, 0xC2):
        assert is_counted(bytes([first]) + message_frame("\x10a1")[1:])


def test_hellos_welcomes_acknowledgements_and_what_is_no_message_are_not_counted():
    long = Welcome(False, "t" * 256, 0, 0, 0, 0, "p" * 200)
    for message in (
        envelope.hello(),
        envelope.hello("t" * 200, 1),
        envelope.welcome(WELCOME),
        envelope.welcome(long),
        envelope.ack(1),
        envelope.heartbeat(1),
    ):
        assert not is_counted(message_frame(message))
    for frame in (
        close_frame(1000),
        close_frame(None),
        encode_frame(0x9, b""),
        encode_frame(0xA, b"\x10"),
        b"HTTP/1.1 101",
    ):
        assert not is_counted(frame)


@given(st.text(), st.binary())
def test_a_frame_is_counted_unless_its_message_is_read_as_an_uncounted_one(text, data):
    """What this module counts and what the other side counts, which sees messages only."""
    for message in (escaped(text), escaped(data), "\x10a1", "\x10q1:" + text, b"\x10r1:" + data):
        frame = message_frame(message)
        assert parse_header(frame) is not None
        assert is_counted(frame) == (not isinstance(parse(message), Ack))
