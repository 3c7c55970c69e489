"""The C functions and their Python twins: one contract for both, and the same answers to the same questions.

Where there is a C compiler there must be a C module; WSTHREADS_PURE_PYTHON only keeps it from being used.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.programs import DEADLINE_S, PROGRAM_S, wait_until
from tests.wire import run_all
from wsthreads.protocol import envelope, fanout, frames, outbox, transport
from wsthreads.protocol.outbox import Outbox
from wsthreads.protocol.transport import PlainTransport
from wsthreads.rooms.rooms import Rooms
from wsthreads.threads.drainer import Drainer
from wsthreads.threads.flusher import Flusher

BUILT = importlib.util.find_spec("wsthreads._native._speedups") is not None

pytestmark = pytest.mark.skipif(
    not BUILT and shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler here"
)


def c_module() -> Any:
    return importlib.import_module("wsthreads._native._speedups")


def test_the_c_module_is_built_where_there_is_a_compiler() -> None:
    assert BUILT, "wsthreads._native._speedups was not built: install with a C compiler and Python's headers"


@pytest.mark.parametrize(("value", "expected"), [("1", "None"), ("0", "<module"), ("", "<module")])
def test_the_environment_switches_it_off(value: str, expected: str) -> None:
    code = "from wsthreads._native import speedups; print(speedups)"
    environment = {**os.environ, "WSTHREADS_PURE_PYTHON": value}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert output.stdout.startswith(expected), output


# decode_message


def masked(payload: bytes, first: int = 0x81, key: bytes = b"\x12\x34\x56\x78", length: int | None = None) -> bytes:
    """A client's frame; `length` is 0, 2 or 8 bytes of extended length, by default what the size wants."""
    size = len(payload)
    if length is None:
        length = 0 if size < 126 else 2 if size < 65536 else 8
    code = {0: size, 2: 126, 8: 127}[length]
    extended = size.to_bytes(length, "big") if length else b""
    body = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    return bytes((first, 0x80 | code)) + extended + key + body


DECODERS = [
    pytest.param(lambda: frames._decode_message, id="python"),
    pytest.param(lambda: c_module().decode_message, id="c"),
]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 125, 126, 127, 65535, 65536, 70001])
@pytest.mark.parametrize("start", [0, 3])
def test_a_whole_frame_is_decoded(decoder: Callable[[], Any], size: int, start: int) -> None:
    decode = decoder()
    text = "".join(random.Random(size).choices("aé€😀", k=size))[:size]
    payload = text.encode()
    buffer = b"x" * start + masked(payload) + b"rest"
    assert decode(buffer, start, len(payload)) == (text, len(buffer) - 4)
    binary = masked(payload, 0x82)
    assert decode(binary, 0, len(payload)) == (payload, len(binary))
    assert decode(buffer, start, len(payload) - 1) is None, "over the limit"
    for cut in range(1, min(len(binary), 20)):
        assert decode(binary[:-cut], 0, 2**31) is None, "incomplete"


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"\x81\x03abc", id="unmasked"),
        pytest.param(masked(b"abc", 0x01), id="fragment"),
        pytest.param(masked(b"abc", 0x80), id="continuation"),
        pytest.param(masked(b"abc", 0xC1), id="reserved bit"),
        pytest.param(masked(b"abc", 0x89), id="ping"),
        pytest.param(masked(b"abc", length=2), id="2 bytes where 1 is enough"),
        pytest.param(masked(b"a" * 300, length=8), id="8 bytes where 2 are enough"),
        pytest.param(masked(b"\xff"), id="not UTF-8"),
        pytest.param(b"\x82\xff" + b"\xff" * 8 + b"keys", id="2**64 bytes"),
    ],
)
def test_everything_else_is_left_to_wsproto(decoder: Callable[[], Any], frame: bytes) -> None:
    assert decoder()(frame, 0, 2**62) is None


@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            masked,
            st.binary(max_size=300),
            st.sampled_from([0x81, 0x82, 0x01, 0x88, 0xC1]),
            st.binary(min_size=4, max_size=4),
        ),
    ),
    st.integers(0, 5),
    st.integers(0, 400),
)
def test_both_decoders_give_the_same(buffer: bytes, start: int, limit: int) -> None:
    assert c_module().decode_message(buffer, start, limit) == frames._decode_message(buffer, start, limit)


@pytest.mark.parametrize("arguments", [(), (b"", 0), ("", 0, 0), (bytearray(b"abcdefg"), 0, 9), (b"abcdef", "0", 0)])
def test_wrong_arguments_of_the_c_decoder_are_a_type_error(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        c_module().decode_message(*arguments)


# encode_text


ENCODERS = [
    pytest.param(lambda: frames._encode_text, id="python"),
    pytest.param(lambda: c_module().encode_text, id="c"),
]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("character", ["a", "é", "€", "😀"])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 70001])
def test_text_is_a_frame_with_the_shortest_length_field(encoder: Callable[[], Any], size: int, character: str) -> None:
    payload = character.encode() * (size // len(character.encode())) + b"x" * (size % len(character.encode()))
    length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big") if size < 65536 else None
    header = length if length is not None else b"\x7f" + size.to_bytes(8, "big")
    assert encoder()(payload.decode()) == b"\x81" + header + payload


@pytest.mark.parametrize("encoder", ENCODERS)
def test_text_without_utf8_is_left_to_the_caller(encoder: Callable[[], Any]) -> None:
    assert encoder()("a\ud800") is None
    assert frames.message_frame("a\ud800") == b"\x81\x04a\xef\xbf\xbd"


@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_both_encoders_give_the_same(text: str) -> None:
    assert c_module().encode_text(text) == frames._encode_text(text)


# escaped_frame


ESCAPERS = [
    pytest.param(lambda: envelope._PYTHON, id="python"),
    pytest.param(lambda: c_module().escaped_frame, id="c"),
]


@pytest.mark.parametrize("escape", ESCAPERS)
@pytest.mark.parametrize("size", [1, 2, 124, 125, 126, 127, 65534, 65535, 65536])
@pytest.mark.parametrize("kind", [str, bytes])
def test_a_message_that_begins_with_dle_gets_one_more(escape: Callable[[], Any], kind: type[Any], size: int) -> None:
    text = "\x10" + (size - 1) * "x"
    message: str | bytes = text if kind is str else text.encode()
    frame = frames.message_frame(message)
    assert escape()(frame) == frames.message_frame(envelope.escaped(message))
    marked = escape()(frames.MarkedFrame(frame, "key", False, "room"))
    assert (marked, marked.latest, marked.is_kept, marked.room) == (escape()(frame), "key", False, "room")


@pytest.mark.parametrize("escape", ESCAPERS)
@pytest.mark.parametrize("message", ["", b"", "x", "x\x10", 16 * "x", 126 * "x", 16 * "\n", b"\x11", 4112 * "x"])
def test_all_other_frames_stay_as_they_are(escape: Callable[[], Any], message: str | bytes) -> None:
    for frame in (frames.message_frame(message), frames.MarkedFrame(frames.message_frame(message), "key")):
        assert escape()(frame) is frame


@pytest.mark.parametrize("frame", ["", b"", b"\x81", bytearray(b"\x81\x01x"), None])
def test_wrong_arguments_of_the_c_escaper_are_a_type_error(frame: Any) -> None:
    with pytest.raises(TypeError):
        c_module().escaped_frame(frame)


@given(st.binary(max_size=300) | st.text(max_size=300) | st.text("\x10a", max_size=3))
def test_both_escapers_give_the_same(message: str | bytes) -> None:
    frame = frames.message_frame(message)
    assert c_module().escaped_frame(frame) == envelope._PYTHON(frame)


# receive


@pytest.mark.parametrize("size", [1, 2047, 2048, 2049, 65536])
def test_as_much_is_received_as_there_is_and_was_asked_for(size: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"x" * size + b"y")
        assert c_module().receive(ours.fileno(), size) == b"x" * size
        assert c_module().receive(ours.fileno(), size) == b"y"
        theirs.close()
        assert c_module().receive(ours.fileno(), size) == b""


def test_more_threads_than_may_ask_for_the_gil_receive_at_once() -> None:
    with ExitStack() as stack:
        pairs = [tuple(map(stack.enter_context, socket.socketpair())) for _ in range(100)]
        received: list[bytes] = []
        threads = [
            threading.Thread(
                target=lambda ours=ours: received.append(c_module().receive(ours.fileno(), 10)), daemon=True
            )
            for ours, _ in pairs
        ]
        for thread in threads:
            thread.start()
        for _, theirs in pairs:
            theirs.sendall(b"now")
        for thread in threads:
            thread.join(DEADLINE_S)
        assert received == [b"now"] * len(pairs)


def test_linger_needs_an_open_socket() -> None:
    c_module().linger(-1, 1e9, 0.01, 0.16)
    with pytest.raises(TypeError):
        c_module().linger("socket", 1, 1, 1)


def test_a_forked_process_receives_though_its_parent_was_in_the_midst_of_it() -> None:
    code = """
import os, socket, threading
from wsthreads._native._speedups import receive
pairs = [socket.socketpair() for _ in range(20)]
def echo(ours):
    while data := receive(ours.fileno(), 10):
        ours.send(data)
def ask(theirs):
    while True:
        theirs.send(b"x"); theirs.recv(1)
for ours, theirs in pairs:
    threading.Thread(target=echo, args=(ours,), daemon=True).start()
    threading.Thread(target=ask, args=(theirs,), daemon=True).start()
for _ in range(30):
    child = os.fork()
    if not child:
        ours, theirs = socket.socketpair()
        theirs.send(b"x")
        os._exit(receive(ours.fileno(), 10) != b"x")
    assert os.waitpid(child, 0)[1] == 0
print("fine")
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PROGRAM_S)
    assert output.stdout == "fine\n", output


def test_what_cannot_be_received_from_is_an_os_error() -> None:
    with pytest.raises(OSError):
        c_module().receive(-1, 10)
    for arguments in ((), (0,), ("0", 10), (0, "10"), (0, -1)):
        with pytest.raises((TypeError, ValueError)):
            c_module().receive(*arguments)


def test_a_signal_handler_may_end_the_wait() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def interrupt(number: int, frame: object) -> None:
            raise InterruptedError

        previous = signal.signal(signal.SIGUSR1, interrupt)
        interrupter = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
        interrupter.start()
        try:
            with pytest.raises(InterruptedError):
                c_module().receive(ours.fileno(), 10)
        finally:
            interrupter.join()
            signal.signal(signal.SIGUSR1, previous)


# receive_message


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def receive_in_python(sock: socket.socket, max_bytes: int, takes_binary: bool) -> Any:
    return transport._receive_message(PlainTransport(sock), max_bytes, takes_binary)


def receive_in_c(sock: socket.socket, max_bytes: int, takes_binary: bool) -> Any:
    return c_module().receive_message(sock.fileno(), max_bytes, takes_binary)


RECEIVERS = [pytest.param(receive_in_python, id="python"), pytest.param(receive_in_c, id="c")]
Pair = tuple[socket.socket, socket.socket]


@pytest.mark.parametrize("receive", RECEIVERS)
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(masked("né".encode()), "né", id="text"),
        pytest.param(masked(b""), "", id="empty"),
        pytest.param(masked(b"\xff", 0x82), b"\xff", id="binary"),
        pytest.param(masked(b"x" * 300), "x" * 300, id="as long as it may be"),
        pytest.param(masked(b"x" * 301), None, id="longer"),
        pytest.param(masked(b"a") + masked(b"b"), None, id="two"),
        pytest.param(masked(b"a") + b"\x81", None, id="one and a bit"),
        pytest.param(b"\x81", None, id="less than a header"),
        pytest.param(masked(b"\xff"), None, id="no UTF-8"),
        pytest.param(masked(b"", 0x89), None, id="ping"),
        pytest.param(masked(b"a", 0x01), None, id="fragment"),
    ],
)
def test_a_message_that_comes_alone_is_received_as_such(
    pair: Pair, receive: Callable[..., Any], data: bytes, expected: str | bytes | None
) -> None:
    pair[1].sendall(data)
    assert receive(pair[0], 300, True) == (data if expected is None else (expected, len(data)))


@pytest.mark.parametrize("receive", RECEIVERS)
def test_binary_is_no_message_where_it_is_not_taken(pair: Pair, receive: Callable[..., Any]) -> None:
    binary, text = masked(b"a", 0x82), masked(b"a")
    pair[1].sendall(binary)
    assert receive(pair[0], 300, False) == binary
    pair[1].sendall(text)
    assert receive(pair[0], 300, False) == ("a", len(text))


@pytest.mark.parametrize("receive", RECEIVERS)
def test_the_end_and_a_loss_are_told_as_for_receive(pair: Pair, receive: Callable[..., Any]) -> None:
    pair[1].close()
    assert receive(pair[0], 300, True) == b""
    pair[0].close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        receive(pair[0], 300, True)


@given(st.one_of(st.binary(max_size=200), st.builds(masked, st.binary(max_size=300))), st.integers(0, 400))
def test_both_receive_the_same(data: bytes, max_bytes: int) -> None:
    found = []
    for receive in (receive_in_python, receive_in_c):
        left, right = socket.socketpair()
        with left, right:
            right.sendall(data)
            right.shutdown(socket.SHUT_WR)  # nobody waits for the rest
            found.append(receive(left, max_bytes, len(data) % 2 == 0))
    assert found[0] == found[1]


@pytest.mark.quiet  # the rest is waited for 50 ms
@pytest.mark.parametrize("first", [0x81, 0x82])
def test_the_rest_of_a_long_message_is_waited_for(pair: Pair, first: int) -> None:
    payload = random.Random(1).randbytes(1 << 20).hex().encode()
    data = masked(payload, first)
    sender = threading.Thread(target=pair[1].sendall, args=[data + masked(b"next")])
    sender.start()
    found = receive_in_c(pair[0], len(payload), True)
    sender.join(20)
    assert found == (payload.decode() if first == 0x81 else payload, len(data))
    assert receive_in_c(pair[0], 300, True) == ("next", 10)


def test_what_does_not_come_at_once_is_not_waited_for(pair: Pair) -> None:
    data = masked(b"x" * 3000)
    pair[1].sendall(data[:2500])
    assert receive_in_c(pair[0], 3000, True) == data[:2500]
    pair[1].sendall(data[2500:])
    assert receive_in_c(pair[0], 3000, True) == data[2500:]


@pytest.mark.parametrize("arguments", [(), (0, 1), ("0", 1, True), (0, "1", True), (0, 1, True, 2)])
def test_wrong_arguments_of_receive_message_are_a_type_error(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        c_module().receive_message(*arguments)


# append_all, lock_queued, unlock, send_queues and post


class Line:
    """An outbox, and the other end of its socket."""

    def __init__(self, flusher: Flusher, *, send_buffer: int | None = None) -> None:
        self.sock, self.peer = socket.socketpair()
        if send_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.peer.settimeout(20)
        self.stuck: list[str] = []
        transport = PlainTransport(self.sock)
        self.outbox = Outbox(transport, flusher, max_bytes=2**30, timeout_s=60, on_stuck=self.stuck.append)

    def read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self.peer.recv(size - len(data))
            if not piece:
                break
            data += piece
        return bytes(data)


@pytest.fixture(params=["python", "c"])
def lines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Line]]:
    """Makes lines, with `fanout.append_all`, `flush_all` and `outbox.post` being the Python or the C ones."""
    c = request.param == "c"
    for module, names in ((fanout, ("append_all", "lock_queued", "unlock")), (outbox, ("send_queues", "post"))):
        for name in names:
            monkeypatch.setattr(module, name, getattr(c_module() if c else module, name if c else f"_{name}"))
    monkeypatch.setattr(fanout, "send_queues", outbox.send_queues)
    flusher = Flusher()
    flusher.start()
    made: list[Line] = []

    def make(**options: Any) -> Line:
        made.append(Line(flusher, **options))
        return made[-1]

    yield make
    for line in made:
        line.outbox._check()
        line.outbox.detach()
        line.sock.close()
        line.peer.close()
    flusher.stop(20)


def test_members_in_step_and_out_of_step_get_what_is_theirs_in_order(lines: Callable[..., Line]) -> None:
    members = [lines() for _ in range(300)]  # more than one batch
    everybody = tuple(member.outbox for member in members)
    fanout.append_all(everybody, b"one.", None)
    for i, member in enumerate(members):
        if i % 3 == 0:
            member.outbox.append(b"own%d." % i)
    fanout.append_all(everybody, b"two.", members[5].outbox)
    assert fanout.flush_all(everybody) == []
    for i, member in enumerate(members):
        expected = b"one." + (b"own%d." % i if i % 3 == 0 else b"") + (b"" if i == 5 else b"two.")
        assert member.read(len(expected)) == expected
    assert fanout.flush_all(everybody) == [], "nothing is sent twice"
    for member in members:
        member.sock.shutdown(socket.SHUT_WR)
        assert member.peer.recv(1) == b""


def free_locks(*outboxes: Outbox) -> list[bool]:
    """Whether another thread could lock them."""
    found = []

    def look() -> None:
        for each in outboxes:
            found.append(each._lock.acquire(False))
            if found[-1]:
                each._lock.release()

    run_all(look)
    return found


def test_only_what_has_something_queued_and_is_free_is_locked(lines: Callable[..., Line]) -> None:
    idle, queued, blocked, held, draining, late = [lines().outbox for _ in range(6)]
    everybody = (idle, queued, blocked, held, draining, late)
    for each in everybody[1:]:
        each.append(b"x")
    blocked.is_blocked = draining._draining = True
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with held._lock:
            holding.set()
            done.wait(DEADLINE_S)

    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(DEADLINE_S)
    assert fanout.lock_queued(everybody, 0, 5) == ([queued], [blocked])
    assert fanout.lock_queued(list(everybody), 5, 1) == ([late], [])
    assert fanout.lock_queued(everybody, 6, 9) == ([], [])
    assert free_locks(queued, late) == [False, False]
    queued._queue.clear()
    assert fanout.unlock([queued, late]) == [late]
    assert free_locks(*everybody) == [True, True, True, False, True, True]
    done.set()
    holder.join()
    blocked.is_blocked = draining._draining = False


def test_a_lock_that_fails_leaves_none_locked() -> None:
    flusher = Flusher()
    lines = [Line(flusher) for _ in range(2)]
    for line in lines:
        line.outbox.append(b"x")
    broken = SimpleNamespace(_queue=[b"x"], _draining=False, is_blocked=False, _lock=None)
    for broken._lock in (None, SimpleNamespace(acquire=lambda block: 1 / 0)):
        with pytest.raises((AttributeError, ZeroDivisionError)):
            c_module().lock_queued([lines[0].outbox, broken, lines[1].outbox], 0, 9)
        assert free_locks(lines[0].outbox) == [True]
    for wrong in ((), ((), 0), ("", 0, 0), ((), "0", 0), ((), -1, 0)):
        with pytest.raises(TypeError):
            c_module().lock_queued(*wrong)
    with pytest.raises(TypeError):
        c_module().unlock(())
    with pytest.raises(RuntimeError):
        c_module().unlock([lines[0].outbox, lines[1].outbox])
    for line in lines:
        line.outbox.detach()
        line.sock.close()
        line.peer.close()


def test_what_the_kernel_does_not_take_follows_whole(lines: Callable[..., Line]) -> None:
    slow, quick = lines(send_buffer=4096), lines()
    frame = bytes(range(256)) * 4096  # 1 MiB
    for i in range(3):
        fanout.append_all((slow.outbox, quick.outbox), b"%d" % i + frame, None)
        fanout.flush_all((slow.outbox, quick.outbox))
        slow.outbox.append(b"small")
        slow.outbox.flush()
    assert slow.outbox.is_blocked
    for i in range(3):
        assert slow.read(len(frame) + 6) == b"%d" % i + frame + b"small"
        assert quick.read(len(frame) + 1) == b"%d" % i + frame
    wait_until(lambda: not slow.outbox.is_blocked, "the outbox is empty")


def test_a_lost_connection_harms_nobody_else(lines: Callable[..., Line]) -> None:
    members = [lines() for _ in range(3)]
    members[1].peer.close()
    everybody = tuple(member.outbox for member in members)
    for _ in range(2):
        fanout.append_all(everybody, b"hello", None)
        assert fanout.flush_all(everybody) == []
    assert members[0].read(10) == members[2].read(10) == b"hellohello"
    assert not members[1].outbox.append(b"more"), "it is over"


def test_nothing_is_written_after_the_close_frame(lines: Callable[..., Line]) -> None:
    line, other = lines(), lines()
    both = (line.outbox, other.outbox)
    fanout.append_all(both, b"a", None)
    line.outbox.close(b"close")
    line.outbox._queue.append(b"late")  # an append that was overtaken by the close
    fanout.append_all(both, b"b", None)
    assert fanout.flush_all(both) == []
    line.sock.shutdown(socket.SHUT_WR)
    assert line.read(100) == b"aclose"
    assert other.read(2) == b"ab"


def test_a_descriptor_that_belongs_to_somebody_else_now_is_not_written_to(lines: Callable[..., Line]) -> None:
    line, stranger = lines(), lines()
    number = line.sock.fileno()
    line.outbox.detach()
    line.sock.close()
    os.dup2(stranger.sock.fileno(), number)
    try:
        line.outbox._queue.append(b"late")  # an append that was overtaken by the end
        assert fanout.flush_all((line.outbox,)) == []
        assert not line.outbox._queue
        stranger.outbox.append(b"mine")
        stranger.outbox.flush()
        assert stranger.read(4) == b"mine"
    finally:
        os.close(number)


def test_an_outbox_whose_lock_is_taken_is_left_to_its_holder(lines: Callable[..., Line]) -> None:
    line = lines()
    holding, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with line.outbox._lock:
            holding.set()
            let_go.wait(20)
        line.outbox.flush()

    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(20)
    line.outbox.append(b"x")
    assert fanout.flush_all((line.outbox,)) == []
    assert line.outbox._queue == [b"x"]
    let_go.set()
    holder.join(20)
    assert line.read(1) == b"x"


def test_tls_is_left_to_python(lines: Callable[..., Line]) -> None:
    line = lines()
    line.outbox._fd = -1
    line.outbox.append(b"x")
    assert fanout.flush_all((line.outbox,)) == []
    assert line.read(1) == b"x"


def test_what_is_not_bytes_is_an_error_and_loses_no_other() -> None:
    left, right = socket.socketpair()
    with left, right:
        right.settimeout(20)
        good = SimpleNamespace(_fd=left.fileno(), _queue=[b"a", b"b"], _close_frame=None, is_blocked=False, _kept=None)
        bad = SimpleNamespace(_fd=left.fileno(), _queue=["text"], _close_frame=None, is_blocked=False, _kept=None)
        assert c_module().send_queues([good, bad]) == []
        assert right.recv(10) == b"ab"
        assert bad._queue == ["text"], "it is still there, for the next call"
        with pytest.raises(TypeError):
            c_module().send_queues([bad, good])
        with pytest.raises(AttributeError):
            c_module().send_queues([SimpleNamespace()])
    with pytest.raises(TypeError):
        c_module().send_queues(())
    with pytest.raises(TypeError):
        c_module().append_all([], b"", None)


def test_a_finalizer_that_sends_while_incomplete_writes_are_told_of_loses_nothing(lines: Callable[..., Line]) -> None:
    """It runs when the garbage collector does: at any allocation between the writes and their accounting."""
    frame = b"x" * 300_000
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()  # what earlier tests have left would take most of the time of the collections below
    for threshold in range(3, 33):
        first, second = lines(send_buffer=4096), lines(send_buffer=4096)
        sent: list[bool] = []

        class Cyclic:
            def __init__(self, line: Line, sent: list[bool]) -> None:
                self.me, self.line, self.sent = self, line, sent

            def __del__(self) -> None:
                self.sent.append(self.line.outbox.append(b"late."))
                self.line.outbox.flush()

        both = (first.outbox, second.outbox)
        fanout.append_all(both, frame, None)
        gc.collect()
        gc.set_threshold(threshold)
        try:
            Cyclic(second, sent)
            fanout.flush_all(both)
        finally:
            gc.set_threshold(*thresholds)
        gc.collect()
        assert sent == [True]
        assert len(second.read(len(frame) + 5)) == len(frame) + 5
        first.outbox._check()
        second.outbox._check()


# post, where it is not as in the tests above


def test_a_message_to_one_goes_out_at_once_with_what_was_queued(lines: Callable[..., Line]) -> None:
    line = lines()
    line.outbox.append(b"\x81one")
    assert outbox.post(line.outbox, b"\x82two") is True
    assert line.read(8) == b"\x81one\x82two"
    # With WSTHREADS_PURE_PYTHON, outboxes have a Tally in Python, and the C functions count for the C Tally only.
    if outbox.post is outbox._post or isinstance(line.outbox, c_module().Tally):
        assert (line.outbox.messages_out, line.outbox.bytes_out) == (2, 8)
    line.outbox.close(b"\x88\x00")
    assert outbox.post(line.outbox, b"late") is False
    assert not line.outbox._queue
    line.outbox.detach()
    assert outbox.post(line.outbox, b"later") is False


def test_a_message_to_one_whose_lock_is_taken_is_left_to_the_holder(lines: Callable[..., Line]) -> None:
    line = lines()
    with line.outbox._lock:
        posted: list[bool] = []
        other = threading.Thread(target=lambda: posted.append(outbox.post(line.outbox, b"one")))
        other.start()
        other.join(20)
        assert posted == [True]
        assert line.outbox._queue == [b"one"]
    assert free_locks(line.outbox) == [True]
    line.outbox.flush()
    assert line.read(3) == b"one"
    line.outbox._draining = True  # its thread looks again afterwards
    assert outbox.post(line.outbox, b"two")
    assert line.outbox._queue == [b"two"]
    line.outbox._draining = False
    line.outbox.flush()
    assert line.read(3) == b"two"


@pytest.mark.parametrize("size", [10, 100_000])  # sent with the GIL, and without
def test_what_the_kernel_does_not_take_of_messages_to_one_follows_whole(
    lines: Callable[..., Line], size: int
) -> None:
    line, expected = lines(send_buffer=4096), bytearray()
    while not line.outbox.is_blocked:
        expected += (message := b"%10d" % len(expected) * (size // 10))
        assert outbox.post(line.outbox, message)
    assert free_locks(line.outbox) == [True]
    assert outbox.post(line.outbox, b"last")
    assert line.read(len(expected) + 4) == expected + b"last"


def test_a_message_to_one_who_is_gone_ends_its_outbox(lines: Callable[..., Line]) -> None:
    line = lines()
    line.peer.close()
    outbox.post(line.outbox, b"one")
    assert free_locks(line.outbox) == [True]
    assert outbox.post(line.outbox, b"two") is False


def test_messages_to_one_under_tls_are_left_to_python(lines: Callable[..., Line]) -> None:
    line = lines()
    line.outbox._fd = -1
    assert outbox.post(line.outbox, b"x")
    assert line.read(1) == b"x"


def test_an_error_after_an_incomplete_write_is_told_and_lets_go_of_the_lock(lines: Callable[..., Line]) -> None:
    line = lines(send_buffer=4096)

    def fail(*_: object) -> None:
        raise MemoryError("in the flusher")

    line.outbox.flusher = SimpleNamespace(watch=fail, forget=lambda descriptor: None)  # type: ignore[assignment]
    with pytest.raises(MemoryError, match="in the flusher"):
        outbox.post(line.outbox, b"x" * 1_000_000)
    assert free_locks(line.outbox) == [True]
    assert outbox.post(line.outbox, b"more") is False, "nobody knows what is on the wire"


def test_many_who_send_to_one_lose_and_mix_nothing(lines: Callable[..., Line]) -> None:
    line, count = lines(), 2000

    def send(sender: bytes) -> Callable[[], None]:
        return lambda: [outbox.post(line.outbox, b"%s%05d" % (sender, i)) for i in range(count)] and None

    read: list[bytes] = []
    run_all(*map(send, [b"a", b"b", b"c"]), lambda: read.append(line.read(3 * count * 6)))
    messages = [read[0][i : i + 6] for i in range(0, len(read[0]), 6)]
    for sender in (b"a", b"b", b"c"):
        assert [m for m in messages if m.startswith(sender)] == [b"%s%05d" % (sender, i) for i in range(count)]


def test_posting_what_is_not_bytes_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        c_module().post(SimpleNamespace(), "text")
    with pytest.raises(AttributeError):
        c_module().post(SimpleNamespace(), b"")


class Member:
    """What a room knows of a session."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox, self._membership, self._ended = outbox, threading.Lock(), False
        self._joined: set[str] = set()


def test_who_has_left_a_room_while_others_send_to_it_is_not_forgotten() -> None:
    """Frames left in the queue of a former member, whose lock a sender of the room held, are the sender's to send."""
    drainer, flusher = Drainer(), Flusher()
    flusher.start()
    rooms = Rooms(drainer, max_name_chars=9, max_per_session=9)
    line = Line(flusher)
    member = Member(line.outbox)
    rooms.join("r", member)  # type: ignore[arg-type]
    members = rooms._members.get("r")
    assert members is not None
    rooms.leave("r", member)  # type: ignore[arg-type]
    with line.outbox._lock:  # a sender that took the members before has its lock
        asked = threading.Thread(target=lambda: (line.outbox.append(b"two"), line.outbox.flush()))
        asked.start()
        asked.join(20)
    assert line.outbox._queue == [b"two"]
    members.left = [line.outbox]  # as that sender's flush_all tells
    assert not rooms._send("r", members), "and nothing is left now"
    assert line.read(3) == b"two"
    line.outbox.detach()
    line.sock.close()
    line.peer.close()
    flusher.stop(20)
    drainer.stop(20)
