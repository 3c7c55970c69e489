"""What sessions leave for the isolate: the inbox and its lines in both languages, and the reader that there is in C."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import random
import shutil
import socket
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.programs import DEADLINE_S, wait_until
from tests.wire import BINARY, CONTINUATION, PING, PONG, TEXT, RawClient, frame, run_all, serving
from wsthreads import WebSocketApp
from wsthreads.javascript import inbox as in_python
from wsthreads.protocol import frames

BUILT = importlib.util.find_spec("wsthreads._native._speedups") is not None
COMPILER = shutil.which(os.environ.get("CC", "cc")) is not None
needs_c = pytest.mark.skipif(not BUILT and not COMPILER, reason="there is no C compiler here")


def c_module() -> Any:
    return importlib.import_module("wsthreads._native._speedups")


@pytest.fixture(params=["Python", pytest.param("C", marks=needs_c)])
def kinds(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """(Inbox, Intake) in one of the languages."""
    if request.param == "C":
        return c_module().Inbox, c_module().Intake
    return in_python._Inbox, in_python._Intake


# The inbox.


def test_things_come_out_in_the_order_in_which_they_went_in(kinds: tuple[Any, Any]) -> None:
    inbox = kinds[0]()
    things = [None, "text", (1, 2), object()]
    for thing in things[1:]:
        inbox.put(thing)
    assert not inbox.empty()
    assert [inbox.get(0), inbox.get(DEADLINE_S), inbox.get(None)] == things[1:]
    assert inbox.empty()
    assert inbox.get(0) is None
    assert inbox.get(0.01) is None


def test_each_threads_things_keep_their_order_and_none_is_lost(kinds: tuple[Any, Any]) -> None:
    inbox, taken = kinds[0](), []

    def put(thread: int) -> None:
        for n in range(2000):
            inbox.put((thread, n))

    def get() -> None:
        while len(taken) < 8000:
            thing = inbox.get(DEADLINE_S)
            assert thing is not None
            taken.append(thing)

    run_all(get, *[lambda thread=thread: put(thread) for thread in range(4)])
    for thread in range(4):
        assert [n for each, n in taken if each == thread] == list(range(2000))


def test_who_waits_is_woken_however_long_it_would_wait(kinds: tuple[Any, Any]) -> None:
    inbox, turns = kinds[0](), [kinds[0](), kinds[0]()]

    def answer() -> None:
        for n in range(500):
            assert turns[0].get(None) == n
            turns[1].put(n)
        assert inbox.get(None) == "end"

    def ask() -> None:
        for n in range(500):
            turns[0].put(n)
            assert turns[1].get(None) == n
        inbox.put("end")

    run_all(answer, ask)


def test_what_is_left_in_an_inbox_goes_with_it(kinds: tuple[Any, Any]) -> None:
    class Thing:
        pass

    inbox, thing = kinds[0](), Thing()
    left = weakref.ref(thing)
    inbox.put(thing)
    del thing
    assert left() is not None
    del inbox
    gc.collect()
    assert left() is None


def test_what_comes_to_a_closed_inbox_is_dropped(kinds: tuple[Any, Any]) -> None:
    class Thing:
        pass

    inbox, thing = kinds[0](), Thing()
    inbox.put("before")
    inbox.close()
    assert inbox.get(0) == "before"
    left = weakref.ref(thing)
    inbox.put(thing)
    del thing
    gc.collect()
    assert left() is None
    assert inbox.empty()
    assert inbox.get(0) is None


@needs_c
@pytest.mark.parametrize("timeout", ["soon", float("nan"), 1e300])
def test_a_time_that_is_none_is_refused(timeout: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        c_module().Inbox().get(timeout)


# Intakes.


def test_a_line_lets_in_so_many_and_so_much(kinds: tuple[Any, Any]) -> None:
    line = kinds[1](3, 100)
    assert [line.enter(50), line.enter(51), line.enter(50), line.enter(0), line.enter(0)] == [
        True, False, True, True, False,
    ]  # fmt: skip
    assert line.count == 3
    line.leave(50)
    line.leave(0)
    assert [line.enter(50), line.enter(1)] == [True, False]


def test_one_may_always_enter_however_large(kinds: tuple[Any, Any]) -> None:
    line = kinds[1](3, 100)
    assert [line.enter(1000), line.enter(0)] == [True, False]
    line.leave(1000)
    assert line.count == 0
    assert line.enter(1)


# The reader.


class Pump:
    """A line in C that reads what `write` sends it, in a thread of its own."""

    def __init__(self, max_count: int = 1_000_000, max_bytes: int = 1_000_000) -> None:
        self.line = type("Intake", (c_module().Intake,), {})(max_count, 1_000_000_000)
        self.inbox = c_module().Inbox()
        self.max_bytes = max_bytes
        self.ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(DEADLINE_S)

    def pump(self) -> bytes:
        result: bytes = self.line.pump(self.inbox, self.ours.fileno(), self.max_bytes, self.line.turn)
        return result

    def send(self, *pieces: bytes) -> bytes:
        """Send that, and no more: what it gives back, with all that it has not read."""
        left = bytearray()

        def write() -> None:
            for piece in pieces:
                self.theirs.sendall(piece)
            self.theirs.shutdown(socket.SHUT_WR)

        def read() -> None:
            left.extend(self.pump())
            while data := self.ours.recv(100_000):
                left.extend(data)

        run_all(write, read)
        return bytes(left)

    def texts(self) -> list[str]:
        found = []
        while (entry := self.inbox.get(0)) is not None:
            line, text, size = entry
            assert line is self.line
            assert size == len(text.encode())
            found.append(text)
        return found

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def pump() -> Iterator[Pump]:
    made = Pump()
    yield made
    made.close()


TEXTS = st.one_of(st.text(max_size=30), st.sampled_from(["x" * 125, "x" * 126, "é" * 900, "x" * 2034, "x" * 5000]))
OTHERS = st.one_of(
    st.builds(frame, st.sampled_from([BINARY, PING, PONG, CONTINUATION]), st.binary(max_size=20)),
    st.builds(frame, st.just(TEXT), st.binary(max_size=20), fin=st.booleans(), rsv=st.sampled_from([0, 4])),
    st.builds(frame, st.just(TEXT), st.just(b"open"), masked=st.just(False)),
    st.just(b"\x81\xfe\x00\x05\0\0\0\0hello"),  # not the shortest form of its length
    st.just(b"\x81\xff" + b"\xff" * 8 + b"\0\0\0\0hello"),
    st.binary(max_size=20),
)


@needs_c
@given(
    st.lists(st.builds(frame, st.just(TEXT), TEXTS.map(str.encode)), max_size=8),
    OTHERS,
    st.binary(max_size=10),
    st.sampled_from([0, 5, 200, 100_000]),
    st.integers(1, 4000),
)
def test_it_keeps_the_texts_up_to_anything_else_and_loses_nothing(
    texts: list[bytes], other: bytes, rest: bytes, max_bytes: int, piece: int
) -> None:
    stream = b"".join(texts) + other + rest
    pump = Pump(max_bytes=max_bytes)

    left = pump.send(*[stream[start : start + piece] for start in range(0, len(stream), piece)])
    at = 0
    for text in pump.texts():
        message, at = frames._decode_message(stream, at, max_bytes) or (None, at)
        assert text == message
    assert stream[at:] == left
    if piece >= len(stream) and len(stream) <= 2048:  # it came in one piece: nothing that it could keep is left
        decoded = frames._decode_message(stream, at, max_bytes)
        assert decoded is None or not isinstance(decoded[0], str)
    pump.close()


@needs_c
@pytest.mark.parametrize(
    "text",
    [b"\x80", b"\xc0\x80", b"\xc1\xbf", b"\xc2", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xef\xbf", b"\xf0\x8f\xbf\xbf",
     b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff", b"12345678\xe2\x82", b"\xe2\x28\xa1", b"\xf0\x9f\x98"],
)  # fmt: skip
def test_text_that_is_not_utf_8_is_given_back(pump: Pump, text: bytes) -> None:
    good, bad = frame(TEXT, "aé€😀".encode()), frame(TEXT, text)
    pump.theirs.sendall(good + bad)
    assert pump.pump() == bad
    assert pump.texts() == ["aé€😀"]


@needs_c
@given(st.binary(max_size=12), st.integers(0, 9))
def test_it_knows_utf_8_as_python_does(data: bytes, offset: int) -> None:
    pump = Pump()
    data = b"x" * offset + data
    pump.theirs.sendall(frame(TEXT, data))
    pump.theirs.shutdown(socket.SHUT_WR)
    is_text = pump.pump() == b""
    try:
        assert pump.texts() == ([data.decode()] if is_text else [])
    except UnicodeDecodeError:
        assert not is_text
    pump.close()


@needs_c
@pytest.mark.parametrize("size", [2043, 16_384, 1_000_000])
def test_a_text_longer_than_the_buffer_is_kept_where_its_rest_comes_soon(pump: Pump, size: int) -> None:
    texts = ["aé" * 500, "x" * (size - 2) + "é", "b", "y" * size]
    ping = frame(PING)
    assert pump.send(*[frame(TEXT, text) for text in texts], ping) == ping
    assert pump.texts() == texts


@needs_c
def test_a_text_whose_rest_does_not_come_soon_is_given_back_as_far_as_it_has(pump: Pump) -> None:
    long = frame(TEXT, "x" * 16_384)
    for size in (8, 100, 5000, len(long) - 1):
        pump.theirs.sendall(frame(TEXT, "a") + long[:size])
        assert pump.pump() == long[:size]
        assert pump.texts() == ["a"]


@needs_c
@pytest.mark.parametrize(
    ("payload", "max_bytes", "max_count"),
    [(b"x" * 9999 + b"\xff", 10_000, 9), (b"x" * 9999, 9998, 9), (b"x" * 9999, 9999, 1)],
)
def test_a_long_text_that_it_must_not_keep_is_given_back(payload: bytes, max_bytes: int, max_count: int) -> None:
    pump, long = Pump(max_count, max_bytes), frame(TEXT, payload)
    assert pump.send(frame(TEXT, "a"), long) == long
    assert pump.texts() == ["a"]
    pump.close()


@needs_c
def test_it_gives_back_where_the_line_is_full_and_goes_on_where_it_is_not() -> None:
    pump = Pump(max_count=3)
    stream = [frame(TEXT, b"%d" % n) for n in range(8)]
    pump.theirs.sendall(b"".join(stream))
    assert pump.pump() == b"".join(stream[3:])
    assert pump.texts() == ["0", "1", "2"]
    assert pump.line.count == 3, "taken is not released"
    pump.theirs.sendall(stream[3])
    assert pump.pump() == stream[3]
    for _ in range(3):
        pump.line.leave(1)
    ping = frame(PING)
    pump.theirs.sendall(stream[4] + ping)
    assert pump.pump() == ping
    assert pump.texts() == ["4"]
    pump.close()


@needs_c
def test_once_stopped_it_keeps_nothing(pump: Pump) -> None:
    back: list[bytes] = []
    thread = threading.Thread(target=lambda: back.append(pump.pump()))
    thread.start()
    pump.theirs.sendall(frame(TEXT, b"a"))
    wait_until(lambda: not pump.inbox.empty())
    pump.line.shut(pump.inbox, 0)
    late = frame(TEXT, b"b")
    pump.theirs.sendall(late)
    thread.join(DEADLINE_S)
    assert back == [late]
    assert pump.texts() == ["a"]


@needs_c
def test_when_a_turn_has_ended_its_count_is_final_and_another_turn_goes_on(pump: Pump) -> None:
    assert pump.send(frame(TEXT, b"a"), frame(TEXT, b"b")) == b""
    assert pump.line.shut(pump.inbox, 0) == (2, 2 * len(frame(TEXT, b"a")))
    assert pump.line.shut(pump.inbox, 0) is None, "it was over"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        late = frame(TEXT, b"c")
        theirs.sendall(late)
        assert pump.line.pump(pump.inbox, ours.fileno(), 1000, 0) == late, "of the old turn"
        theirs.sendall(late)
        theirs.shutdown(socket.SHUT_WR)
        assert pump.line.pump(pump.inbox, ours.fileno(), 1000, pump.line.turn) == b""
    assert (pump.texts(), pump.line.texts) == (["a", "b", "c"], 3)


@needs_c
@pytest.mark.parametrize("seed", range(5))
def test_what_a_turn_has_kept_is_what_its_end_says_while_texts_come(seed: int) -> None:
    """A client that comes back over another connection is told the count, and sends the rest again."""
    count, pump = 3000, Pump()
    end_at = random.Random(seed).randrange(count)
    written = [frame(TEXT, b"%d" % n) for n in range(count)]
    back = bytearray()

    def write() -> None:
        for text in written:
            pump.theirs.sendall(text)
        pump.theirs.shutdown(socket.SHUT_WR)

    def read() -> None:
        while data := pump.line.pump(pump.inbox, pump.ours.fileno(), 1000, 0):
            back.extend(data)

    def end() -> None:
        wait_until(lambda: pump.line.texts >= end_at)
        kept, _ = pump.line.shut(pump.inbox, 0)
        assert pump.texts() == [str(n) for n in range(kept)]

    run_all(write, read, end)
    assert pump.texts() == []
    assert bytes(back) == b"".join(written[pump.line.texts :])
    pump.close()


@needs_c
def test_for_a_client_with_an_envelope_it_gives_back_what_begins_with_dle(pump: Pump) -> None:
    due = (1000, 1_000_000)
    for begin in (b"\x10a5", b"\x10", b"\x10\x10text", b"\x10" + b"x" * 3000):
        control = frame(TEXT, begin)
        pump.theirs.sendall(frame(TEXT, b"a\x10") + frame(TEXT, b"") + control)
        assert pump.line.pump(pump.inbox, pump.ours.fileno(), 10_000, 0, *due) == control
        assert pump.texts() == ["a\x10", ""]
        ping = frame(PING)
        pump.theirs.sendall(control + ping)
        assert pump.pump() == ping, "for a plain client it is a text"
        assert pump.texts() == [begin.decode()]


@needs_c
def test_it_tells_when_an_acknowledgement_is_due(pump: Pump) -> None:
    def read(*due: int) -> bytes | None:
        found: bytes | None = pump.line.pump(pump.inbox, pump.ours.fileno(), 10_000, 0, *due)
        return found

    text = frame(TEXT, b"x" * 10)
    pump.theirs.sendall(text * 5)
    assert read(5, 1000) is None
    pump.theirs.sendall(text * 3)
    assert read(100, 3 * len(text)) is None
    ping = frame(PING)
    pump.theirs.sendall(text * 5 + ping)
    assert read(6, 6 * len(text)) == ping, "one is missing"
    pump.theirs.sendall(text * 7 + ping)
    assert read(6, 1000) == ping, "what cannot be kept comes first"
    pump.theirs.sendall(text * 70)
    assert read(1, 1) is None, "all that has come is kept"
    assert len(pump.texts()) == 5 + 3 + 5 + 7 + 70


@needs_c
def test_for_a_closed_inbox_it_keeps_nothing(pump: Pump) -> None:
    pump.inbox.close()
    data = frame(TEXT, b"a")
    pump.theirs.sendall(data)
    assert pump.pump() == data
    assert pump.line.count == 0
    assert pump.inbox.empty()


@needs_c
def test_it_tells_when_it_has_heard_something(pump: Pump) -> None:
    assert pump.line.heard_at == 0
    pump.theirs.sendall(frame(PING))
    pump.pump()
    assert pump.line.heard_at == 0, "what it gives back is another's to tell"
    before = monotonic()
    pump.theirs.sendall(frame(TEXT, b"a") + frame(PING))
    pump.pump()
    assert before <= pump.line.heard_at <= monotonic()


@needs_c
def test_the_end_of_the_stream_is_nothing_and_a_lost_connection_an_error(pump: Pump) -> None:
    pump.theirs.shutdown(socket.SHUT_WR)
    assert pump.pump() == b""
    with pytest.raises(OSError, match="Bad file descriptor"):
        pump.line.pump(pump.inbox, -1, 10, 0)


@needs_c
@pytest.mark.parametrize(
    "arguments", [(), (1, 2, 3, 0), ("inbox", "one", 3, 0), ("inbox", 1, None, 0), ("inbox", 1, 2, "turn")]
)
def test_wrong_arguments_are_refused(pump: Pump, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        pump.line.pump(*[pump.inbox if argument == "inbox" else argument for argument in arguments])


@needs_c
def test_a_line_lives_for_as_long_as_texts_of_it_wait() -> None:
    pump = Pump()
    line = weakref.ref(pump.line)
    inbox = pump.inbox
    for _ in range(2):  # twice: it is kept once for all of them
        pump.theirs.sendall(frame(TEXT, b"a") * 3 + frame(PING))
        pump.pump()
    pump.close()
    del pump
    gc.collect()
    assert line() is not None
    for _ in range(5):
        inbox.get(0)
    assert line() is not None
    assert inbox.get(0)[:2] == (line(), "a")
    gc.collect()
    assert line() is None


@needs_c
def test_a_line_goes_with_the_inbox_that_has_texts_of_it() -> None:
    pump = Pump()
    line = weakref.ref(pump.line)
    pump.theirs.sendall(frame(TEXT, b"a") * 3 + frame(PING))
    pump.pump()
    pump.close()
    del pump
    gc.collect()
    assert line() is None


@needs_c
def test_many_lines_at_once_keep_their_order_and_their_references() -> None:
    count, inbox = 2000, c_module().Inbox()
    pumps = [Pump(max_count=32) for _ in range(5)]
    taken: dict[Any, list[str]] = {pump.line: [] for pump in pumps}
    references = [sys.getrefcount(pump.line) for pump in pumps]

    def write(pump: Pump) -> None:
        for n in range(count):
            pump.theirs.sendall(frame(TEXT, b"%d" % n) + frame(PING) * (n % 50 == 0))
        pump.theirs.shutdown(socket.SHUT_WR)

    def read(pump: Pump) -> None:
        """As a connection does: what is given back is read to the end of its last frame, and put in by hand."""
        while data := pump.line.pump(inbox, pump.ours.fileno(), 1000, 0):
            while data:
                if (found := frames._decode_message(data, 0, 1000)) is not None:
                    text, end = found
                    while not pump.line.enter(len(text)):
                        room.acquire(timeout=0.01)
                    inbox.put((pump.line, text, len(text)))
                elif data.startswith(b"\x89") and len(data) >= 6:
                    end = 6
                else:
                    end = 0
                    data += pump.ours.recv(10)
                data = data[end:]

    def take() -> None:
        while sum(map(len, taken.values())) < count * len(pumps):
            line, text, size = inbox.get(DEADLINE_S)
            taken[line].append(text)
            line.leave(size)
            room.release()

    room = threading.Semaphore(0)
    run_all(take, *[lambda pump=pump: write(pump) for pump in pumps], *[lambda pump=pump: read(pump) for pump in pumps])
    for pump in pumps:
        assert taken[pump.line] == [str(n) for n in range(count)]
        assert pump.line.count == 0
        pump.close()
    assert [sys.getrefcount(pump.line) for pump in pumps] == references


# In a server.


def test_a_scripts_messages_of_every_kind_are_handled_in_the_order_in_which_they_were_sent(tmp_path: Path) -> None:
    path = tmp_path / "echo.js"
    path.write_text("export function onMessage(s, m) { s.send(typeof m === 'string' ? m : 'bytes ' + m.byteLength); }")
    app = WebSocketApp()
    app.add_script("/ws/test", path)
    random_, stream, expected = random.Random(5), [], []
    for n in range(600):
        kind = random_.choice(["text", "text", "text", "long", "parts", "bytes", "ping"])
        text = f"{n} é€😀" + "x" * (3000 if kind == "long" else 0)
        data = text.encode()
        if kind == "bytes":
            stream.append(frame(BINARY, data))
            text = f"bytes {len(data)}"
        elif kind == "parts":
            stream.append(frame(TEXT, data[:3], fin=False) + frame(PING) + frame(CONTINUATION, data[3:]))
        else:
            stream.append(frame(PING if kind == "ping" else TEXT, data[:125] if kind == "ping" else data))
        if kind != "ping":
            expected.append(text)
    whole, seen = b"".join(stream), []
    with serving(app) as port, RawClient(port) as client:

        def write() -> None:
            at = 0
            while at < len(whole):
                piece = random_.choice([1, 10, 100, 5000])
                client.sock.sendall(whole[at : at + piece])
                at += piece

        def read() -> None:
            while len(seen) < len(expected):
                opcode, payload = client.receive()
                if opcode == TEXT:
                    seen.append(payload.decode())

        run_all(write, read)
    assert seen == expected


def test_messages_to_a_script_that_does_not_keep_up_wait_in_the_socket(tmp_path: Path) -> None:
    code = """let count = 0;
    export function onMessage(s, m) {
      if (m === "work") { for (const end = Date.now() + 300; Date.now() < end;); }
      count++;
      if (m === "end") { s.send(String(count)); }
    }"""
    path = tmp_path / "slow.js"
    path.write_text(code)
    app = WebSocketApp()
    app.add_script("/ws/test", path)
    with serving(app) as port, RawClient(port) as client:
        client.sock.sendall(frame(TEXT, b"work") + frame(TEXT, b"x" * 100) * 500 + frame(TEXT, b"end"))
        assert client.receive_text() == "502"
