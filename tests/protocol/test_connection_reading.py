"""The reading path, with a socket, against wsproto alone: whatever comes in, in whatever pieces, both see the same.

Against python-websockets where messages are deflated: wsproto's extension fails at a ping amid a fragmented one.
"""

import socket
import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side
from wsproto import ConnectionType
from wsproto.connection import Connection as Wsproto
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from tests.programs import DEADLINE_S
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame, parse_frames
from wsthreads import Config
from wsthreads.protocol.connection import Connection
from wsthreads.protocol.deflate import agree as agree_to_deflate
from wsthreads.protocol.frames import _decode_message
from wsthreads.protocol.transport import PlainTransport
from wsthreads.threads.flusher import Flusher

KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
CONFIG = Config(max_message_bytes=2**31, ping_interval_s=0)
AGREEMENT = agree_to_deflate("permessage-deflate")


class Pieces(PlainTransport):
    """A real socket whose input comes in pieces of given sizes."""

    __slots__ = ("sizes",)

    def receive(self, size):
        return super().receive(min(size, self.sizes.pop() if self.sizes else size))


def ours(stream, early, sizes, config=CONFIG, agreement=None):
    """(messages, pongs, close code of the frame that was sent, close code and reason as reported)."""
    server, client = socket.socketpair()
    flusher = Flusher()  # not started: nothing here is slow, and nothing waits for a deadline
    with server, client, server.makefile("rb") as reader:
        for end in (server, client):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        client.settimeout(DEADLINE_S)
        environ = {"werkzeug.socket": server, "wsgi.input": reader, "HTTP_SEC_WEBSOCKET_KEY": KEY}
        client.sendall(early)
        connection = Connection(environ, config=config, flusher=_quiet(flusher), agreement=agreement)
        connection.channel.transport = Pieces(server)
        connection.channel.transport.sizes = list(sizes)
        client.sendall(stream[len(early) :])
        client.shutdown(socket.SHUT_WR)
        messages = list(connection.messages())
        reported = connection.finish()
        connection.hang_up()
        data = bytearray()
        while piece := client.recv(1 << 20):
            data += piece
    head, _, rest = bytes(data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    frames, rest = parse_frames(rest)
    assert not rest
    pongs = [payload for opcode, payload in frames if opcode == PONG]
    closes = [payload for opcode, payload in frames if opcode == CLOSE]
    assert len(frames) == len(pongs) + len(closes)
    assert len(closes) <= 1
    assert not closes or frames[-1][0] == CLOSE
    return messages, pongs, closes[0] if closes else None, reported[0]


def _quiet(flusher):
    flusher._waker = type("Nobody", (), {"send": lambda self, data: None})()
    return flusher


def wsproto_alone(stream):
    """The same, by wsproto in one piece."""
    judge, messages, pongs, parts = Wsproto(ConnectionType.SERVER), [], [], []
    judge.receive_data(stream)
    for event in judge.events():
        if isinstance(event, (TextMessage, BytesMessage)):
            parts.append(event.data)
            if event.message_finished:
                messages.append(("" if isinstance(event, TextMessage) else b"").join(parts))
                parts = []
        elif isinstance(event, Ping):
            pongs.append(bytes(event.payload))
        elif isinstance(event, CloseConnection):
            code = int(event.code)
            return messages, pongs, b"" if code == 1005 else struct.pack("!H", code), code, judge.state
    return messages, pongs, None, 1006, ConnectionState.OPEN


def agree(stream, early_bytes=0, sizes=()):
    # Zeroes at the end complete any header that has begun: see the last test.
    stream += bytes(32)
    messages, pongs, close, code = ours(stream, stream[:early_bytes], sizes)
    wanted_messages, wanted_pongs, wanted_close, wanted_code, _ = wsproto_alone(stream)
    assert messages == wanted_messages
    assert pongs == wanted_pongs
    if code == 1009 != wanted_code:  # a frame of more than 2 GiB: wsproto has no limit, or finds something else
        assert wanted_code in (1002, 1006, 1007)
        return
    assert code == wanted_code
    assert (close or b"")[:2] == (wanted_close or b"")
    assert (close is None) == (wanted_close is None)


SIZE = st.one_of(st.integers(0, 12), st.sampled_from([124, 125, 126, 127, 300, 65535, 65536]))
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["é" * 70, "😀" * 40, "x" * 65536]),
)


@st.composite
def message(draw):
    """One whole message, in one frame or in several, with control frames between them."""
    text = draw(st.booleans())
    payload = draw(TEXTS).encode() if text else b"\xff" * draw(SIZE)
    opcode, parts = (TEXT if text else BINARY), []
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
    for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True):
        parts.append(frame(opcode, payload[start:end], fin=False, key=draw(KEYS)))
        opcode = CONTINUATION
        if draw(st.booleans()):
            parts.append(frame(draw(st.sampled_from([PING, PONG])), b"p" * draw(st.integers(0, 125)), key=draw(KEYS)))
    last = max(n for n, part in enumerate(parts) if part[0] in (TEXT, BINARY, CONTINUATION))
    parts[last] = bytes([parts[last][0] | 0x80]) + parts[last][1:]
    return b"".join(parts)


KEYS = st.binary(min_size=4, max_size=4)
CONTROL = st.one_of(
    st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=126), key=KEYS),
    st.builds(
        frame,
        st.just(CLOSE),
        st.one_of(st.binary(max_size=126), st.builds(close_payload, st.integers(0, 5000), st.text(max_size=40))),
        key=KEYS,
    ),
)
ANY_FRAME = st.builds(
    frame,
    st.one_of(st.sampled_from([CONTINUATION, TEXT, BINARY]), st.integers(0, 15)),
    st.one_of(st.binary(max_size=20), SIZE.map(lambda size: b"x" * size)),
    fin=st.booleans(),
    masked=st.integers(0, 9).map(bool),
    rsv=st.sampled_from([0, 0, 0, 0, 1, 2, 4]),
    key=KEYS,
)
BEGUN = st.builds(frame, st.sampled_from([TEXT, BINARY]), st.just(b"a"), fin=st.just(False), key=KEYS)
PIECES = st.lists(st.one_of(st.integers(1, 8), st.integers(1, 20000)), max_size=30)
thorough = settings(max_examples=150, suppress_health_check=list(HealthCheck))


@thorough
@given(st.lists(message(), max_size=5), st.booleans(), st.integers(0, 300), PIECES)
def test_valid_messages_are_the_same(messages, closes, early_bytes, sizes):
    stream = b"".join(messages) + (frame(CLOSE, close_payload(1000, "bye")) if closes else b"")
    agree(stream, early_bytes, sizes)


@thorough
@given(st.lists(st.one_of(message(), CONTROL, ANY_FRAME, BEGUN), max_size=6), st.integers(0, 300), PIECES)
def test_illegal_frames_among_legal_ones_are_the_same(frames, early_bytes, sizes):
    agree(b"".join(frames), early_bytes, sizes)


@thorough
@given(
    st.lists(st.one_of(message(), CONTROL), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3),
    st.integers(0, 100),
    PIECES,
)
def test_damaged_frames_are_the_same(frames, damages, early_bytes, sizes):
    stream = bytearray(b"".join(frames))
    for at, value in damages:
        stream[at % len(stream)] ^= value
    agree(bytes(stream), early_bytes, sizes)


@thorough
@given(st.binary(max_size=60), st.integers(0, 20), PIECES)
def test_random_bytes_are_the_same(stream, early_bytes, sizes):
    agree(stream, early_bytes, sizes)


@settings(max_examples=60)
@given(st.lists(message(), min_size=1, max_size=3), st.integers(0, 10**6), PIECES)
def test_a_stream_that_ends_anywhere_has_given_the_messages_that_were_complete(messages, cut, sizes):
    stream = b"".join(messages)
    stream = stream[: cut % (len(stream) + 1)]
    messages, pongs, close, code = ours(stream, b"", sizes)
    wanted_messages, wanted_pongs, _, _, _ = wsproto_alone(stream)
    assert (messages, pongs, close, code) == (wanted_messages, wanted_pongs, None, 1006)


@pytest.mark.parametrize("decoder", ["python", "c"])
def test_a_stream_cut_at_any_place_is_the_same(monkeypatch, decoder):
    module = pytest.importorskip("wsthreads._native._speedups") if decoder == "c" else None
    decode = module.decode_message if module else _decode_message
    monkeypatch.setattr("wsthreads.protocol.assembler.decode_message", decode)
    key = b"abcd"
    stream = b"".join([
        frame(TEXT, "é€😀", key=key),
        frame(TEXT, b"\xf0\x9f", fin=False, key=key),
        frame(PING, "p", key=key),
        frame(CONTINUATION, b"\x98\x80", fin=False, key=key),
        frame(PONG, key=key),
        frame(CONTINUATION, "", key=key),
        frame(BINARY, bytes(130), key=key),
        frame(BINARY, b"1", fin=False, key=key),
        frame(CONTINUATION, b"2", key=key),
        frame(CLOSE, close_payload(4000, "bye"), key=key),
    ])
    for cut in range(1, len(stream)):
        agree(stream, 0, [cut])
        agree(stream, cut)
    agree(stream, 0, [1] * len(stream))


def test_a_header_is_judged_when_all_of_it_is_there():
    """wsproto knows from two bytes that this is illegal; to wait for the masking key makes no difference to anybody."""
    assert ours(b"\x83\x80", b"", [])[3] == 1006
    assert ours(b"\x83\x80keyk", b"", [])[3] == 1002


def test_empty_fragments_are_not_kept():
    """They count for nothing towards the limit, so there may be any number of them."""
    server, client = socket.socketpair()
    with server, client, server.makefile("rb") as reader:
        environ = {"werkzeug.socket": server, "wsgi.input": reader, "HTTP_SEC_WEBSOCKET_KEY": KEY}
        connection = Connection(environ, config=CONFIG, flusher=_quiet(Flusher()))
        empty = frame(CONTINUATION, "", fin=False) * 5000
        client.sendall(frame(TEXT, "a", fin=False) + empty + frame(CONTINUATION, "b"))
        client.sendall(frame(TEXT, "c", fin=False) + empty)
        client.shutdown(socket.SHUT_WR)
        assert list(connection.messages()) == ["ab"]
        assert len(connection._assembler._parts) <= 1


def test_a_connection_is_small():
    """Python has the dicts of instances share their keys for up to 30 attributes. The base class has 20."""
    server, client = socket.socketpair()
    with server, client, server.makefile("rb") as reader:
        environ = {"werkzeug.socket": server, "wsgi.input": reader, "HTTP_SEC_WEBSOCKET_KEY": KEY}
        connection = Connection(environ, config=CONFIG, flusher=_quiet(Flusher()))
        client.sendall(frame(TEXT, "a") + frame(PING) + frame(CLOSE))
        assert list(connection.messages()) == ["a"]
        connection.finish()
        connection.hang_up()
        assert not {"_config", "_messages_in", "channel"} & vars(connection).keys()
        assert len(vars(connection)) <= 25


# Deflated


def websockets_alone(stream):
    """(messages, pongs, how it ended) by python-websockets, which leaves text to be decoded by somebody else."""
    judge = Protocol(Side.SERVER, max_size=None)
    judge.extensions = [PerMessageDeflate(True, True, 15, 15)]
    judge.receive_data(stream)
    messages, pongs, parts, opcode = [], [], [], None
    for event in judge.events_received():
        if event.opcode is Opcode.PING:
            pongs.append(bytes(event.data))
        elif event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            opcode = opcode if event.opcode is Opcode.CONT else event.opcode
            parts.append(bytes(event.data))
            if event.fin:
                messages.append(b"".join(parts).decode() if opcode is Opcode.TEXT else b"".join(parts))
                parts = []
    code = 1006 if judge.close_sent is None else int(judge.close_sent.code)
    return messages, pongs, code


@st.composite
def deflated_message(draw):
    """As `message`, of the same kinds of payload, but deflated, perhaps."""
    text = draw(st.booleans())
    payload = draw(TEXTS).encode() if text else draw(st.one_of(SIZE.map(bytes), st.binary(max_size=50)))
    rsv = 4 * draw(st.booleans())
    if rsv:
        compressor = zlib.compressobj(draw(st.integers(0, 9)), wbits=-draw(st.integers(9, 15)))
        payload = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    opcode, stream = (TEXT if text else BINARY), b""
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
    for n, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(payload)], strict=True)):
        if draw(st.booleans()):
            stream += frame(draw(st.sampled_from([PING, PONG])), b"p" * draw(st.integers(0, 125)), key=draw(KEYS))
        stream += frame(opcode, payload[start:end], fin=n == len(cuts), rsv=rsv, key=draw(KEYS))
        opcode, rsv = CONTINUATION, 0
    return stream


#: No close frames: some that are illegal are told apart differently.
FAULTY = st.builds(
    frame,
    st.sampled_from([CONTINUATION, TEXT, BINARY, PING, PONG, 3, 11]),
    st.binary(max_size=20),
    fin=st.booleans(),
    masked=st.integers(0, 9).map(bool),
    rsv=st.sampled_from([0, 0, 4, 4, 2]),
    key=KEYS,
)


@thorough
@given(st.lists(deflated_message(), max_size=5), st.booleans(), st.integers(0, 300), PIECES)
def test_valid_deflated_messages_are_the_same(messages, closes, early_bytes, sizes):
    stream = b"".join(messages) + (frame(CLOSE, close_payload(1000, "bye")) if closes else b"")
    messages, pongs, _, code = ours(stream, stream[:early_bytes], sizes, agreement=AGREEMENT)
    assert (messages, pongs, code) == websockets_alone(stream)


@thorough
@given(st.lists(st.one_of(deflated_message(), FAULTY, BEGUN), max_size=6), st.integers(0, 300), PIECES)
def test_illegal_frames_among_deflated_ones_are_the_same(frames, early_bytes, sizes):
    stream = b"".join(frames) + bytes(32)
    messages, pongs, _, code = ours(stream, stream[:early_bytes], sizes, agreement=AGREEMENT)
    try:
        wanted_messages, wanted_pongs, wanted_code = websockets_alone(stream)
    except UnicodeDecodeError:
        assert code == 1007
        return
    if code == 1007:  # text that is not UTF-8, before its message is complete; or data that is not deflated
        assert messages == wanted_messages[: len(messages)]
        assert pongs == wanted_pongs[: len(pongs)]
        return
    assert (messages, pongs, code) == (wanted_messages, wanted_pongs, wanted_code)


@thorough
@given(
    st.lists(deflated_message(), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=3),
    PIECES,
)
def test_damaged_deflated_frames_are_the_same_in_whatever_pieces(frames, damages, sizes):
    """Whole frames are decoded at once, what comes in pieces is judged by wsproto."""
    stream = bytearray(b"".join(frames))
    for at, value in damages:
        stream[at % len(stream)] ^= value
    stream += bytes(32)
    config = Config(max_message_bytes=100_000, ping_interval_s=0)
    whole = ours(bytes(stream), b"", [], config, AGREEMENT)
    pieces = ours(bytes(stream), b"", sizes, config, AGREEMENT)
    assert (whole[0], whole[1], whole[3]) == (pieces[0], pieces[1], pieces[3])
    assert (whole[2] or b"")[:2] == (pieces[2] or b"")[:2]  # the reason may name another place in the text
