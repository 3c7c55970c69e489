"""Compression: what is agreed on, what goes out and comes in deflated, and what it may cost."""

from __future__ import annotations

import itertools
import json
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import InvalidParameterName, InvalidParameterValue, NegotiationError
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Frame, Opcode
from websockets.headers import build_extension

from tests.programs import connect, receive
from tests.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Echo,
    RawClient,
    Recorder,
    endpoint,
    frame,
    run_all,
)
from wsthreads import HandshakeRefused
from wsthreads.cli.targets import create_app
from wsthreads.errors import InvalidPayloadError, MessageTooBigError
from wsthreads.protocol import encoding
from wsthreads.protocol.deflate import (
    MAX_STREAMS,
    MIN_DEFLATED_BYTES,
    STEP_BYTES,
    WINDOW_BITS,
    Inflater,
    agree,
    deflate_frame,
    most_deflated_bytes,
)
from wsthreads.protocol.frames import message_frame, parse_header

OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate"}
TAIL = b"\x00\x00\xff\xff"


def deflated(payload: bytes | str, *, level: int = 6, bits: int = 15) -> bytes:
    """A message's payload as a client sends it."""
    payload = payload.encode() if isinstance(payload, str) else payload
    compressor = zlib.compressobj(level, wbits=-bits)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def receive_deflated(client: RawClient) -> bytes:
    """The payload of the next frame, which must be a deflated one, inflated."""
    return inflated(receive_raw(client))


def receive_raw(client: RawClient) -> bytes:
    """The next frame as it is."""
    while True:
        header = parse_header(client.buffer)
        end = 0 if header is None else header.header_bytes + header.payload_bytes
        if 0 < end <= len(client.buffer):
            raw, client.buffer = client.buffer[:end], client.buffer[end:]
            return raw
        assert client._fill()


def inflated(raw: bytes, bits: int = 15) -> bytes:
    """The payload of a deflated frame, by a reader with so small a window."""
    header = parse_header(raw)
    assert header is not None
    assert (header.fin, header.rsv1, header.opcode in (TEXT, BINARY)) == (True, True, True)
    return zlib.decompressobj(-bits).decompress(raw[header.header_bytes :] + TAIL)


# What is agreed on


@pytest.mark.parametrize(
    ("offers", "answered"),
    [
        ("permessage-deflate", ""),
        ("permessage-deflate; client_max_window_bits", ""),
        ("permessage-deflate; client_max_window_bits=8; client_no_context_takeover", ""),
        ("permessage-deflate; server_no_context_takeover", ""),
        ("PerMessage-Deflate;SERVER_max_window_bits=15", "; server_max_window_bits=12"),
        ('permessage-deflate; server_max_window_bits="10"', "; server_max_window_bits=10"),
        ("permessage-deflate; server_max_window_bits=9", "; server_max_window_bits=9"),
        ("x-webkit-deflate-frame, permessage-deflate", ""),
        ('x; a="b"; c=d, , permessage-deflate', ""),
        (" ,permessage-deflate ; server_max_window_bits = 9 , permessage-deflate", "; server_max_window_bits=9"),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", ""),
        ("permessage-deflate; what=ever, permessage-deflate; server_max_window_bits=11", "; server_max_window_bits=11"),
    ],
)
def test_the_first_offer_that_can_be_is_accepted_and_neither_side_keeps_its_window(offers: str, answered: str) -> None:
    agreement = agree(offers)
    assert agreement is not None
    assert agreement.answer == (
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover" + answered
    )
    assert agreement.window_bits == int(answered.rpartition("=")[2] or WINDOW_BITS)


@pytest.mark.parametrize(
    "offers",
    [
        None,
        "",
        "permessage-bzip2",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=09",
        "permessage-deflate; server_max_window_bits=x",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=1000000000000",
        "permessage-deflate; server_no_context_takeover=true",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; level=9",
    ],
)
def test_offers_that_cannot_be_are_declined(offers: str | None) -> None:
    assert agree(offers) is None


@pytest.mark.parametrize(
    "header",
    ["permessage-deflate;", "a b", "a; b=", "; a", "a=b", 'a; b="', "a; b=ü", "a,;", "permessage-deflate, ;"],
)
def test_a_header_that_is_none_is_a_bad_request(header: str) -> None:
    with pytest.raises(HandshakeRefused, match=r"^400 ") as caught:
        agree(header)
    assert repr(header) in str(caught.value)


#: websockets takes 8 bits, with which zlib cannot deflate, up to 16.
BITS = ("9", "12", "15") if int(version("websockets").split(".")[0]) < 17 else ("8", "9", "12", "15")


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([
                "server_no_context_takeover", "client_no_context_takeover",
                "server_max_window_bits", "client_max_window_bits", "other",
            ]),
            st.sampled_from([None, None, *BITS, "16", "012", "x"]),
        ),
        max_size=4,
    )
)
def test_it_judges_offers_as_websockets_does(parameters: list[tuple[str, str | None]]) -> None:
    factory = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
    try:
        factory.process_request_params(parameters, [])  # type: ignore[arg-type]
        wanted = True
    except (NegotiationError, InvalidParameterName, InvalidParameterValue):
        wanted = False
    assert (agree(build_extension([("permessage-deflate", parameters)])) is not None) == wanted  # type: ignore[list-item]


def test_it_is_off_unless_asked_for_and_then_up_to_the_client() -> None:
    with endpoint(Echo()) as (_, port), RawClient(port, headers=OFFER) as client:
        assert "sec-websocket-extensions" not in client.headers
        client.send(TEXT, deflated("hello"), rsv=4)
        assert client.receive_close()[0] == 1002
    with endpoint(Echo(), compression=True) as (_, port):
        with RawClient(port) as client:
            assert "sec-websocket-extensions" not in client.headers
            client.text("x" * 1000)
            assert client.receive_text() == "x" * 1000
            client.send(TEXT, deflated("hello"), rsv=4)
            assert client.receive_close()[0] == 1002
        with RawClient(port, headers={"Sec-WebSocket-Extensions": "a b"}) as client:
            assert client.status == 400


# What goes out


@settings(deadline=None)
@given(st.one_of(st.text(), st.binary()), st.integers(0, 300), st.integers(9, WINDOW_BITS))
@example(b"\x00" * 2000, 40, 9)
@example("é" * 70000, 1, 12)
def test_websockets_inflates_what_we_deflate(unit: str | bytes, times: int, bits: int) -> None:
    message = unit * times
    plain = message_frame(message)
    sent = deflate_frame(plain, bits)
    assert len(sent) <= len(plain)
    if sent is plain:
        return
    header = parse_header(sent)
    assert header is not None
    assert (header.fin, header.rsv1, len(sent)) == (True, True, header.header_bytes + header.payload_bytes)
    reader = PerMessageDeflate(True, True, bits, 15)
    found = reader.decode(Frame(Opcode(header.opcode), sent[header.header_bytes :], rsv1=True))
    assert found.opcode == (TEXT if isinstance(message, str) else BINARY)
    assert bytes(found.data) == (message.encode() if isinstance(message, str) else message)


def test_small_messages_and_those_that_would_grow_go_as_they_are() -> None:
    small = message_frame("x" * (MIN_DEFLATED_BYTES - 1))
    assert deflate_frame(small, 12) is small
    large = message_frame("x" * MIN_DEFLATED_BYTES)
    assert len(deflate_frame(large, 12)) < len(large)
    noise = message_frame(random.Random(1).randbytes(1000))
    assert deflate_frame(noise, 12) is noise


def test_an_answer_is_deflated_for_the_window_that_was_agreed_on() -> None:
    unit = json.dumps({"from": "alice", "numbers": list(range(300))})  # repeats itself past 512 bytes
    with endpoint(Echo(), compression=True) as (_, port):
        offer = {"Sec-WebSocket-Extensions": "permessage-deflate; server_max_window_bits=9"}
        with RawClient(port, headers=offer) as client:
            client.text(unit * 3)
            assert inflated(receive_raw(client), bits=9).decode() == unit * 3


# What comes in


@pytest.fixture
def echo() -> Iterator[int]:
    with endpoint(Echo(), compression=True) as (_, port):
        yield port


def test_fragments_of_a_deflated_message_have_pings_between_them(echo: int) -> None:
    text = "".join(chr(0x20AC + n % 50) for n in range(5000))
    payload = deflated(text)
    with RawClient(echo, headers=OFFER) as client:
        client.send(TEXT, payload[:1], fin=False, rsv=4)
        client.send(PING, b"one")
        client.send(CONTINUATION, payload[1:500], fin=False)
        client.send(PONG, b"nobody asked")
        client.send(CONTINUATION, b"", fin=False)
        client.send(PING, b"two")
        client.send(CONTINUATION, payload[500:])
        assert client.receive() == (PONG, b"one")
        assert client.receive() == (PONG, b"two")
        assert receive_deflated(client).decode() == text
        client.text("plain")  # each message says for itself
        assert client.receive_text() == "plain"
        client.send(TEXT, deflated(text), rsv=4)  # none of the window is taken over
        assert receive_deflated(client).decode() == text


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([frame(PING, "hi", rsv=4)], 1002),
        ([frame(CLOSE, b"", rsv=4)], 1002),
        ([frame(TEXT, deflated("a")[:1], fin=False, rsv=4), frame(CONTINUATION, deflated("a")[1:], rsv=4)], 1002),
        ([frame(TEXT, "a", fin=False), frame(CONTINUATION, deflated("a"), rsv=4)], 1002),
        ([frame(CONTINUATION, deflated("a"), rsv=4)], 1002),
        ([frame(TEXT, deflated("a"), rsv=2)], 1002),
        ([frame(TEXT, deflated("a"), rsv=6)], 1002),
        ([frame(TEXT, deflated("a"), rsv=4, masked=False)], 1002),
        ([frame(TEXT, deflated("a"), fin=False, rsv=4), frame(TEXT, deflated("b"), rsv=4)], 1002),
        ([frame(TEXT, deflated("a"), fin=False, rsv=4), frame(BINARY, "b")], 1002),
        ([frame(TEXT, "a", fin=False), frame(TEXT, deflated("b"), rsv=4)], 1002),
        ([frame(3, deflated("a"), rsv=4)], 1002),
        ([frame(BINARY, b"\xff" * 20, rsv=4)], 1007),
        ([frame(TEXT, b"\xff" * 20, fin=False, rsv=4)], 1007),
        ([frame(TEXT, deflated(b"\xc3("), rsv=4)], 1007),
        ([frame(TEXT, deflated(b"abc\xc3"), rsv=4)], 1007),
        # Before the message is at its end:
        ([frame(TEXT, deflated(b"\xf4\x90" + b"a" * 100), fin=False, rsv=4)], 1007),
        ([frame(BINARY, deflated(b"ok") + b"\x03\x00" * MAX_STREAMS, rsv=4)], 1007),
    ],
)
def test_what_is_illegal_is_told_apart(echo: int, frames: list[bytes], code: int) -> None:
    with RawClient(echo, headers=OFFER) as client:
        client.sock.sendall(b"".join(frames))
        assert client.receive_close()[0] == code
        assert client.at_end()


@pytest.mark.parametrize("cut", [None, 3])
def test_a_block_may_be_marked_as_the_last(echo: int, cut: int | None) -> None:
    """RFC 7692, 7.2.3.4; where the message goes on behind it, that is a stream of its own."""
    hello = b"\xf3\x48\xcd\xc9\xc9\x07\x00"  # the RFC's
    with RawClient(echo, headers=OFFER) as client:
        for payload, text in ((hello + b"\x00", "Hello"), (hello, "Hello"), (hello + deflated("you"), "Helloyou")):
            if cut is None:
                client.send(TEXT, payload, rsv=4)
            else:
                client.send(TEXT, payload[:cut], fin=False, rsv=4)
                client.send(CONTINUATION, payload[cut:])
            assert client.receive_text() == text


@pytest.mark.parametrize("payload", [b"\0" * 100_000, bytes(zlib.crc32(b"%d" % n) & 255 for n in range(100_000))])
@pytest.mark.parametrize("level", [0, 9])
def test_a_message_may_be_as_large_as_the_limit_however_it_is_deflated(payload: bytes, level: int) -> None:
    handler = Recorder()
    sent = deflated(payload, level=level)
    assert len(sent) <= most_deflated_bytes(len(payload))
    with endpoint(handler, compression=True, max_message_bytes=len(payload)) as (_, port):
        with RawClient(port, headers=OFFER) as client:
            client.send(BINARY, sent, rsv=4)
            assert handler.message() == payload
            client.send(BINARY, sent[:10], fin=False, rsv=4)
            client.send(CONTINUATION, sent[10:])
            assert handler.message() == payload
            client.send(BINARY, deflated(payload + b"\0", level=level), rsv=4)
            assert client.receive_close()[0] == 1009
        with RawClient(port, headers=OFFER) as client:  # by the header, before the payload is there
            client.sock.sendall(frame(BINARY, bytes(most_deflated_bytes(len(payload)) + 1), rsv=4)[:14])
            assert client.receive_close()[0] == 1009


LIMIT = 1_000_000


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """64 MB in 64 kB."""
    return deflated(bytes(64_000_000), level=9)


@pytest.mark.parametrize("cuts", [1, 100])
def test_a_zip_bomb_costs_no_more_than_the_limit(cuts: int, bomb: bytes) -> None:
    """In one frame or in many."""
    inflater, pieces, at = Inflater(LIMIT), [], 0
    step = len(bomb) // cuts + 1
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooBigError, match=f" more than {LIMIT} bytes"):
            for at in range(0, len(bomb), step):
                pieces += inflater.feed(bomb[at : at + step])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert LIMIT - STEP_BYTES <= sum(map(len, pieces)) <= LIMIT
    # zlib's own memory is some 50 kB; a piece is made of blocks, so it is there twice for a moment.
    assert peak < LIMIT + step * 2 + STEP_BYTES * 3
    assert cuts == 1 or at < len(bomb) // 20, "what comes behind the limit is not inflated"


@pytest.mark.parametrize("cuts", [1, 50])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_zip_bomb_is_closed_with_1009_and_costs_the_server_no_more_than_the_limit(
    opcode: int, cuts: int, bomb: bytes
) -> None:
    handler = Echo()
    step = len(bomb) // cuts + 1
    frames = [
        frame(opcode if at == 0 else CONTINUATION, bomb[at : at + step], fin=at + step >= len(bomb), rsv=4 * (at == 0))
        for at in range(0, len(bomb), step)
    ]
    with endpoint(handler, compression=True, max_message_bytes=LIMIT) as (_, port):
        with RawClient(port, headers=OFFER) as client:
            client.text("warm")
            client.receive_text()
            tracemalloc.start()
            try:
                for part in frames:
                    client.sock.sendall(part)
                assert client.receive_close() == (1009, f"message inflates to more than {LIMIT} bytes")
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert handler.close()[0] == 1009
    assert peak < LIMIT + len(bomb) * 4 + STEP_BYTES * 4
    assert handler.messages.empty()


def test_what_inflates_to_nothing_is_bounded_too() -> None:
    with pytest.raises(InvalidPayloadError, match=f"more than {MAX_STREAMS} deflate streams"):
        list(Inflater(100).feed(b"\x03\x00" * 10_000))
    inflater = Inflater(100)
    assert list(inflater.feed(b"\x00\x00\x00\xff\xff" * 100)) == []  # empty blocks: the frames' limit is theirs


@given(st.binary(max_size=200), st.integers(1, 2000), st.lists(st.integers(0, 3000), max_size=6), st.integers(0, 9))
def test_an_inflater_gives_the_same_in_whatever_pieces(
    unit: bytes, times: int, cuts: list[int], level: int
) -> None:
    payload = unit * times
    sent = deflated(payload, level=level)
    inflater = Inflater(len(payload))
    places = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    pieces = [piece for a, b in itertools.pairwise(places) for piece in inflater.feed(sent[a:b])]
    assert b"".join([*pieces, *inflater.end()]) == payload


# Rooms


class Talk(Recorder):
    """Broadcasts what comes in to room "r"; everybody is in it."""

    def on_open(self, session: Any) -> None:
        session.room("r").join()
        super().on_open(session)

    def on_message(self, session: Any, message: str) -> None:
        session.room("r").broadcast(message)


OFFERS = [
    None,
    [ClientPerMessageDeflateFactory()],
    [ClientPerMessageDeflateFactory(server_max_window_bits=9)],
    [ClientPerMessageDeflateFactory(server_max_window_bits=12, client_max_window_bits=12)],
]


def test_all_members_of_a_mixed_room_get_the_same_messages_in_the_same_order() -> None:
    count, filler = 30, json.dumps(list(range(100)))
    handler = Talk()
    with endpoint(handler, compression=True) as (_, port), ExitStack() as stack:
        url = f"ws://127.0.0.1:{port}/ws/test"
        clients = [stack.enter_context(connect(url, extensions=OFFERS[n % 4])) for n in range(12)]
        assert [bool(client.protocol.extensions) for client in clients] == [n % 4 > 0 for n in range(12)]
        for _ in clients:
            handler.session()
        everything: list[list[Any]] = [[] for _ in clients]

        def send(n: int) -> None:
            for i in range(count):
                clients[n].send(f"{n} {i} " + filler * (i % 3))

        def read(n: int) -> None:
            everything[n] = [receive(clients[n]) for _ in range(4 * count)]

        run_all(*(partial(send, n) for n in range(4)), *(partial(read, n) for n in range(12)))
    assert all(found == everything[0] for found in everything)
    for n in range(4):
        mine = [message for message in everything[0] if message.startswith(f"{n} ")]
        assert mine == [f"{n} {i} " + filler * (i % 3) for i in range(count)]


@pytest.fixture
def deflations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The window bits of each `deflate_frame`."""
    seen: list[int] = []

    def counting(frame: bytes, bits: int) -> bytes:
        seen.append(bits)
        return deflate_frame(frame, bits)

    monkeypatch.setattr(encoding, "deflate_frame", counting)
    return seen


def test_a_broadcast_is_deflated_once_for_all_who_take_it_and_not_at_all_for_others(deflations: list[int]) -> None:
    handler, text = Talk(), "hello " * 100
    with endpoint(handler, compression=True) as (app, port):
        room = app.endpoint("/ws/test").room("r")
        plain = [RawClient(port) for _ in range(3)]
        for _ in plain:
            handler.session()
        room.broadcast(text)
        assert [client.receive_text() for client in plain] == [text] * 3
        assert deflations == []
        takers = [RawClient(port, headers=OFFER) for _ in range(5)]
        for _ in takers:
            handler.session()
        room.broadcast(text)
        assert [client.receive_text() for client in plain] == [text] * 3
        (raw,) = {receive_raw(client) for client in takers}
        assert inflated(raw).decode() == text
        assert len(raw) < 50
        assert deflations == [WINDOW_BITS]
        for client in [*plain, *takers]:
            client.sock.close()


def test_who_joins_while_a_broadcast_is_deflated_gets_it_in_his_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    handler, text = Recorder(), "hello " * 100
    with endpoint(handler, compression=True) as (app, port):
        nine = {"Sec-WebSocket-Extensions": "permessage-deflate; server_max_window_bits=9"}
        with RawClient(port, headers=OFFER) as early, RawClient(port, headers=nine) as late, RawClient(port) as plain:
            sessions = [handler.session() for _ in range(3)]
            by_name = {session._outbox.encoding.name: session.room("r") for session in sessions}
            deflated_12, deflated_9, undeflated = (by_name[name] for name in ("deflate 12", "deflate 9", ""))
            deflated_12.join()
            seen = []

            def joining(frame: bytes, bits: int) -> bytes:
                seen.append(bits)
                deflated_9.join()
                undeflated.join()
                return deflate_frame(frame, bits)

            monkeypatch.setattr(encoding, "deflate_frame", joining)
            deflated_12.broadcast(text)
            assert seen == [12, 9]
            assert receive_deflated(early).decode() == receive_deflated(late).decode() == plain.receive_text() == text
            deflated_12.broadcast_except(text + "again")
            assert receive_deflated(late).decode() == plain.receive_text() == text + "again"
            early.send(PING)
            assert early.receive() == (PONG, b"")
            app.endpoint("/ws/test").rooms._check()


def test_scripts_deflate_as_well(serve: Callable[..., Any], tmp_path: Path) -> None:
    script = tmp_path / "talk.js"
    script.write_text("""
        export function onOpen(session) { session.room("r").join(); }
        export function onMessage(session, message) {
            session.send(message);
            session.room("r").broadcastExcept(message);
        }
    """)
    server, text = serve(create_app(script, compression=True)), "hello " * 100
    with RawClient(server.port, "/ws/talk", OFFER) as one, RawClient(server.port, "/ws/talk") as other:
        for client in (one, other):
            client.send(PING)
            assert client.receive() == (PONG, b"")
        one.send(TEXT, deflated(text), rsv=4)
        assert receive_deflated(one).decode() == other.receive_text() == text
        other.text(text + "!")
        assert receive_deflated(one).decode() == other.receive_text() == text + "!"


def test_an_idle_connection_holds_nothing_for_it() -> None:
    handler = Recorder()
    with endpoint(handler, compression=True) as (app, port), RawClient(port, headers=OFFER) as client:
        handler.session()
        (connection,) = app.endpoint("/ws/test").connections()
        client.send(TEXT, deflated("x" * 1000), rsv=4)
        half = deflated("y" * 1000)
        client.send(TEXT, half[:5], fin=False, rsv=4)
        client.send(CONTINUATION, half[5:])
        assert (handler.message(), handler.message()) == ("x" * 1000, "y" * 1000)
        client.send(PING)
        assert client.receive() == (PONG, b"")
        (inflation,) = connection._assembler._protocol._proto.extensions
        assert inflation._inflater is inflation._decoder is None
        assert inflation._parts == []
