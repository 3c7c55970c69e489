"""An outbox that goes on over another connection: over real sockets, in both versions of what writes."""

import gc
import os
import random
import socket
import threading
import weakref
import zlib
from time import monotonic

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.wire import CLOSE, PING, TEXT, parse_frames, run_all
from wsthreads.errors import ProtocolError
from wsthreads.protocol import envelope, fanout, outbox
from wsthreads.protocol.backlog import Backlog
from wsthreads.protocol.deflate import Agreement
from wsthreads.protocol.encoding import encoding_for
from wsthreads.protocol.envelope import ACK_BYTES, ACK_MESSAGES, Welcome
from wsthreads.protocol.frames import MarkedFrame, close_frame, encode_frame, message_frame, parse_header
from wsthreads.protocol.outbox import Outbox
from wsthreads.protocol.transport import PlainTransport, TLSTransport
from wsthreads.protocol.unacknowledged import MIN_WINDOW_BYTES

WELCOME = message_frame(envelope.welcome(Welcome(True, "id.secret", 0, 60_000, 25_000, 20_000)))
SPOKEN = encoding_for(None, enveloped=True)
RUNS = max(1, round(float(os.environ.get("WSTHREADS_RESUME_RUNS", "3"))))


class Wire:
    """A connection: a transport, and the client's end."""

    def __init__(self, send_buffer=None):
        self.ours, self.theirs = socket.socketpair()
        if send_buffer:
            self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.theirs.settimeout(DEADLINE_S)
        self.transport = PlainTransport(self.ours)

    def close(self):
        self.ours.close()
        self.theirs.close()


class Peer:
    """A session's outbox, and a client that comes and goes, which counts as the protocol's page says."""

    def __init__(self, flusher, *, keep=10**9, max_bytes=10**9, timeout_s=DEADLINE_S, encoding=SPOKEN):
        self.stuck_away, self.stuck = [], []
        self.outbox = Outbox.apart(flusher, max_bytes=max_bytes, timeout_s=timeout_s, encoding=encoding)
        self.outbox.keep(keep, on_stuck=self.stuck_away.append)
        self.got = []  # the payloads of all counted messages
        self.buffer = b""
        self.wire = None
        self.wires = []
        self.comes = self.welcomed = 0
        self.acknowledged = 0
        self.bytes = 0

    def come(self, *, send_buffer=None, received=None):
        self.wire = Wire(send_buffer)
        self.wires.append(self.wire)
        self.comes += 1
        self.buffer = b""
        received = len(self.got) if received is None else received
        self.outbox.resume(self.wire.transport, WELCOME, received, on_stuck=self.stuck.append)
        return self.wire

    def lose(self):
        """The server notices the loss."""
        self.wire.theirs.close()
        self.outbox.suspend(self.wire.transport)
        self.wire.ours.close()

    def send(self, message, **marks):
        frame = self.outbox.encoding.frame(message_frame(message, **marks))
        return outbox.post(self.outbox, frame)

    def read(self, size=1 << 20):
        """Take what comes next. False at the end."""
        try:
            data = self.wire.theirs.recv(size)
        except ConnectionError:
            return False
        self.buffer += data
        while (header := parse_header(self.buffer)) is not None:
            end = header.header_bytes + header.payload_bytes
            if len(self.buffer) < end:
                break
            payload, self.buffer = self.buffer[header.header_bytes : end], self.buffer[end:]
            self.take(
                header.opcode, zlib.decompress(payload + b"\0\0\xff\xff\1\0\0\xff\xff", -15) if header.rsv1 else payload
            )
        return bool(data)

    def take(self, opcode, payload):
        if opcode in (PING, CLOSE):
            return
        message = payload.decode() if opcode == TEXT else payload
        parsed = envelope.parse(message)
        if isinstance(parsed, Welcome):
            self.welcomed += 1
        elif not isinstance(parsed, envelope.Ack):
            self.got.append(payload if not isinstance(parsed, str | bytes) else parsed)
            self.bytes += len(payload)
            if len(self.got) - self.acknowledged >= ACK_MESSAGES or self.bytes >= ACK_BYTES:
                self.acknowledge()

    def acknowledge(self):
        self.acknowledged, self.bytes = len(self.got), 0
        self.outbox.acknowledge(len(self.got))

    def read_until(self, count):
        while len(self.got) < count:
            assert self.read(), f"the stream ends after {len(self.got)} messages"

    def has_nothing_more(self):
        self.wire.theirs.setblocking(False)
        try:
            return not self.wire.theirs.recv(1)
        except BlockingIOError:
            return True
        finally:
            self.wire.theirs.settimeout(DEADLINE_S)


@pytest.fixture
def peer(flusher, twin):
    made = []

    def make(**settings):
        made.append(Peer(flusher, **settings))
        return made[-1]

    yield make
    for each in made:
        each.outbox._check()
        each.outbox.detach()
        for wire in each.wires:
            wire.close()


# What the client gets


def cut(peer, dice):
    """Lose the connection, in one of the ways in which that happens."""
    how = dice.choice(["noticed", "half-open", "late", "write error"])
    if how == "noticed":
        peer.lose()
    elif how == "late":  # what was written arrives, though the server has given up the connection
        transport = peer.wire.transport
        peer.outbox.suspend(transport)
        transport.end_writing()
        while dice.random() < 0.9 and peer.read(dice.choice([10, 1000, 100_000])):
            pass
    elif how == "write error":
        peer.wire.theirs.close()


def come_and_go(peer, total, dice):
    """Until the client has `total` messages, and at least four times: all may be there when it comes first."""
    deadline = monotonic() + 3 * DEADLINE_S
    while len(peer.got) < total or peer.comes < 4:
        assert monotonic() < deadline, f"{len(peer.got)} of {total} messages"
        wire = peer.come(send_buffer=dice.choice([None, 2304, 8192]))
        wire.theirs.settimeout(0.02)
        for _ in range(dice.choice([0, 1, 3, 10, 30])):
            try:
                if not peer.read(dice.choice([1, 7, 100, 3000, 30_000])):
                    break
            except TimeoutError:
                break
        peer.outbox._check()
        cut(peer, dice)
        if len(peer.wires) > 20:
            peer.wires.pop(0).close()


@pytest.mark.parametrize("run", range(RUNS))
@pytest.mark.parametrize("deflates", [False, True])
def test_what_four_threads_send_arrives_once_and_in_order_however_often_the_connection_is_cut(peer, run, deflates):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    agreement = Agreement(15, "") if deflates else None
    p = peer(encoding=encoding_for(agreement, enveloped=True))
    each, senders = 150, 4
    sizes = [dice.choice([0, 1, 110, 3000, 70_000]) for _ in range(each)]

    def write(sender):
        mine = random.Random(seed + sender)
        for n in range(each):
            text = f"{sender} {n} " + "x" * sizes[n]
            text = mine.choice(["", envelope.DLE, envelope.DLE + "a"]) + text
            message = text if mine.random() < 0.5 else text.encode()
            frame = p.outbox.encoding.frame(message_frame(message))
            if mine.random() < 0.5:
                assert outbox.post(p.outbox, frame)
            else:
                assert fanout.append_all((p.outbox,), frame, None) == 1
                while fanout.flush_all([p.outbox]):
                    pass
            if mine.random() < 0.1:
                p.outbox.append(encode_frame(PING, b"ping"))
                p.outbox.append(message_frame(envelope.ack(n)))
            if mine.random() < 0.2:
                mine_event.wait(0.002)

    mine_event = threading.Event()
    run_all(*[lambda s=s: write(s) for s in range(senders)], lambda: come_and_go(p, each * senders, dice))
    numbers = {sender: [] for sender in range(senders)}
    for message in p.got:
        text = message if isinstance(message, str) else message.decode()
        sender, n, filler = text.removeprefix(envelope.DLE).removeprefix("a").split(" ")
        assert len(filler) == sizes[int(n)]
        numbers[int(sender)].append(int(n))
    assert all(found == list(range(each)) for found in numbers.values())
    assert not p.stuck
    assert not p.stuck_away
    p.come()
    p.acknowledge()
    assert p.outbox.unacknowledged_bytes == 0
    assert p.outbox.acknowledged == p.outbox.written == each * senders
    assert p.outbox.messages_out == each * senders, "a message that is written again does not count again"


def test_a_message_that_was_written_in_part_is_written_again_whole(peer):
    p = peer()
    p.come(send_buffer=4096)
    message = "x" * 300_000
    p.send("first")
    p.send(message)
    p.send("last")
    assert p.read(100)
    assert p.outbox._backlog.offset > 0
    p.lose()
    assert p.outbox.is_suspended
    p.come()
    p.read_until(3)
    assert p.got == ["first", message, "last"]


def test_what_was_acknowledged_is_not_sent_again_and_what_was_not_is(peer):
    p = peer()
    p.come()
    for n in range(10):
        p.send(f"{n}")
    p.read_until(10)
    p.outbox.acknowledge(4)
    assert p.outbox.unacknowledged_bytes == 6 * 3
    p.lose()
    p.send("10")
    p.come(received=6)
    p.read_until(15)
    assert p.got == [str(n) for n in [*range(10), 6, 7, 8, 9, 10]]
    assert p.outbox.acknowledged == 6
    p.outbox.acknowledge(11)
    assert p.outbox.unacknowledged_bytes == 0


def test_what_is_no_counted_message_is_not_sent_again(peer):
    p = peer()
    p.come()
    for frame in (encode_frame(PING, b"1"), message_frame(envelope.ack(1)), message_frame("a")):
        outbox.post(p.outbox, frame)
    p.lose()
    for frame in (encode_frame(PING, b"2"), message_frame(envelope.ack(2)), message_frame("b")):
        outbox.post(p.outbox, frame)
    p.outbox.append(encode_frame(PING, b"3"))  # and its thread is about to flush
    p.come()
    data = b""
    expected = WELCOME + message_frame("a") + message_frame("b")
    while len(data) < len(expected):
        data += p.wire.theirs.recv(1000)
    assert data == expected
    assert p.has_nothing_more()
    assert p.outbox.written == 2


def test_the_welcome_comes_first_and_once_for_each_connection(peer):
    p = peer()
    p.send("waits")
    for _ in range(3):
        p.come(received=0)
        assert parse_frames(p.wire.theirs.recv(1000))[0] == parse_frames(WELCOME + message_frame("waits"))[0]
        p.lose()


def test_a_client_that_had_a_message_and_says_so_only_later_does_not_get_it_twice(peer):
    """Its first hello is delayed, and overtakes a later one of which the client has got the messages already."""
    p = peer()
    p.come()
    p.send("one")
    p.read_until(1)
    p.come(received=0, send_buffer=2304)  # the delayed hello: the client takes nothing from this connection
    p.send("x" * 100_000)
    p.lose()
    p.come(received=0, send_buffer=2304)
    p.wire.ours.close()  # nothing of it is written
    p.outbox.check_received(1)
    p.come()
    p.read_until(2)
    assert p.got == ["one", "x" * 100_000]


def test_a_new_connection_takes_the_place_of_one_that_is_still_there(peer):
    p = peer()
    old = p.come()
    p.send("a")
    p.read_until(1)
    new = p.come()
    p.send("b")
    p.read_until(2)
    assert not p.outbox.suspend(old.transport, close_frame(1001)), "the old connection does no harm"
    p.send("c")
    p.read_until(3)
    assert p.wire is new
    assert p.got == ["a", "b", "c"]
    old.theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        old.theirs.recv(1)


def test_a_write_error_ends_no_session(peer):
    p = peer()
    p.come()
    p.send("a")
    p.wire.theirs.close()
    p.send("b")
    p.send("c")
    assert p.outbox.is_suspended
    assert not p.outbox.is_over
    assert p.send("d")
    p.come()
    p.read_until(4)
    assert p.got == ["a", "b", "c", "d"]
    assert p.outbox.messages_out == 4


def test_a_write_error_in_the_midst_of_a_fan_out_leaves_the_other_members_alone(peer):
    members = [peer() for _ in range(5)]
    for each in members:
        each.come()
    members[2].wire.theirs.close()
    for text in ("a", "b"):
        fanout.append_all(tuple(each.outbox for each in members), message_frame(text), None)
        fanout.flush_all([each.outbox for each in members])
    members[2].come()
    for each in members:
        each.read_until(2)
        assert each.got == ["a", "b"]


def test_an_outbox_that_does_not_keep_is_over_after_a_write_error_or_a_loss(peer, flusher):
    for ends in (lambda box, wire: box.suspend(wire.transport), lambda box, wire: wire.theirs.close()):
        wire = Wire()
        box = Outbox(wire.transport, flusher, max_bytes=1000, timeout_s=DEADLINE_S, on_stuck=print)
        ends(box, wire)
        outbox.post(box, message_frame("a"))
        assert box.is_over
        assert not box.is_suspended
        assert not box.is_keeping
        wire.close()


# Latest


def keyed(key, text):
    frame = message_frame(text, latest=key)
    frame.room = "r"
    return frame


def test_without_a_connection_only_the_last_message_with_a_key_waits(peer):
    p = peer()
    for n in range(300):
        outbox.post(p.outbox, keyed("pos", f"pos {n}"))
        if n % 100 == 0:
            p.send(f"plain {n}")
    p.come()
    p.read_until(4)
    assert p.got == ["plain 0", "plain 100", "plain 200", "pos 299"]
    assert p.outbox.latest_replaced == 299
    assert p.outbox.written == 4, "what was replaced is not counted"


def test_what_waits_when_the_connection_is_lost_is_replaced_by_what_comes_then(peer):
    p = peer()
    p.come(send_buffer=2304)
    p.send("x" * 50_000)
    outbox.post(p.outbox, keyed("pos", "1"))
    assert p.outbox.is_blocked
    p.lose()
    outbox.post(p.outbox, keyed("pos", "2"))
    p.come()
    p.read_until(2)
    assert p.got == ["x" * 50_000, "2"]


def test_what_was_written_once_is_never_replaced(peer):
    """The client may have it, whatever it has said last."""
    p = peer()
    p.come()
    outbox.post(p.outbox, keyed("pos", "1"))
    p.read_until(1)
    p.come(received=0, send_buffer=2304)
    p.lose()
    for n in (2, 3):
        outbox.post(p.outbox, keyed("pos", f"{n}"))
    p.come()
    p.read_until(2)
    assert p.got == ["1", "3"]


def test_what_was_written_is_not_replaced_while_it_waits_to_be_written_again(peer):
    p = peer()
    p.come()
    outbox.post(p.outbox, message_frame("x" * 50_000))
    outbox.post(p.outbox, keyed("pos", "1"))
    p.read_until(2)
    p.come(received=0, send_buffer=2304)
    assert p.outbox.is_blocked
    for n in (2, 3):
        outbox.post(p.outbox, keyed("pos", f"{n}"))
    p.outbox._check()
    p.lose()
    p.come(received=0)
    p.read_until(5)
    assert p.got[2:] == ["x" * 50_000, "1", "3"]


@pytest.mark.parametrize("run", range(RUNS))
def test_with_keys_and_cuts_nothing_comes_twice_and_the_last_of_each_key_comes(peer, run):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    p, total = peer(), 600

    def write():
        for n in range(total):
            frame = keyed(f"key {n % 7}", f"{n} " + "x" * sizes[n])
            outbox.post(p.outbox, frame if n % 3 else MarkedFrame(frame))
            if n % 50 == 0:
                threading.Event().wait(0.002)
        p.send("end")

    sizes = [dice.choice([1, 1000, 40_000]) for _ in range(total)]

    def read():
        deadline = monotonic() + 3 * DEADLINE_S
        while not (p.got and p.got[-1] == "end"):
            assert monotonic() < deadline
            come_and_go(p, len(p.got) + 1, dice)

    run_all(write, read)
    numbers = [int(text.split()[0]) for text in p.got[:-1]]
    assert numbers == sorted(set(numbers))
    assert set(range(total - 7, total)) <= set(numbers)
    assert set(range(0, total, 3)) <= set(numbers), "those without a key"
    assert len(numbers) + p.outbox.latest_replaced == total


# Bounds


def test_too_much_for_a_client_that_is_away_is_told_once_to_who_cares_for_it_then(peer):
    p = peer(keep=10_000)
    p.come()
    p.lose()
    for _ in range(9):
        p.send("x" * 1000)
    assert not p.stuck_away
    for _ in range(5):
        p.send("x" * 1000)
    assert len(p.stuck_away) == 1
    assert "the limit is 10000" in p.stuck_away[0]
    assert not p.stuck


def test_what_waited_for_a_client_does_not_count_as_too_much_when_it_comes_back(peer):
    p = peer(keep=400_000, max_bytes=10_000)
    for _ in range(300):
        p.send("x" * 1000)
    p.come(send_buffer=2304)
    assert p.outbox.is_blocked
    p.send("last")
    assert not p.stuck
    p.read_until(301)


def test_a_client_that_acknowledges_nothing_gets_no_more_than_the_window(peer):
    p = peer(keep=1000, max_bytes=10**9)
    p.come()
    p.acknowledge = lambda: None
    message = "x" * 9996
    for _ in range(50):
        p.send(message)
        if p.outbox._is_full:
            break
        p.read(9996)
    assert p.outbox._is_full
    p.wire.theirs.settimeout(0.1)
    with pytest.raises(TimeoutError):
        while p.read():
            pass
    assert MIN_WINDOW_BYTES < p.outbox.kept_bytes <= MIN_WINDOW_BYTES + 10_000
    before = len(p.got)
    for _ in range(5):
        p.send(message)
    p.outbox._check()
    p.outbox.acknowledge(before)
    p.wire.theirs.settimeout(DEADLINE_S)
    p.read_until(before + 5)
    assert not p.outbox._is_full
    assert not p.stuck


def test_a_message_larger_than_the_window_goes_out_where_nothing_is_unacknowledged(peer):
    p = peer(keep=1000)
    p.come()
    for text in ("a" * 1_000_000, "b" * 1_000_000):
        p.send(text)
    p.read_until(2)
    assert [len(text) for text in p.got] == [1_000_000] * 2


def fill_window(p):
    p.acknowledge = lambda: None
    while not p.outbox._is_full:
        p.send("x" * 1000)
        if not p.outbox._is_full:
            p.read()
    while p.outbox.bytes_waiting < p.outbox.max_bytes - 2000:
        p.send("x" * 1000)


def test_a_client_that_acknowledges_nothing_is_too_slow_in_the_end(peer):
    p = peer(keep=1000, max_bytes=50_000)
    p.come()
    fill_window(p)
    for _ in range(5):
        p.send("x" * 1000)
    assert len(p.stuck) == 1
    assert "the limit is 50000" in p.stuck[0]


def test_a_client_that_acknowledges_nothing_is_reported_when_nothing_happens_for_the_timeout(peer):
    p = peer(keep=1000, max_bytes=50_000, timeout_s=0.1)
    p.come()
    fill_window(p)
    wait_until(lambda: p.stuck, "the report")
    assert p.stuck == ["nothing was read for 0.1 s"]


def test_who_waits_for_room_reads_acknowledgements_while_only_the_window_is_full(peer):
    p = peer(keep=1000, max_bytes=50_000)
    p.come()
    fill_window(p)
    asked = []

    def pump(left_s):
        asked.append(left_s)
        if len(asked) == 3:
            p.outbox.acknowledge(len(p.got))
        return True

    p.outbox.pump = pump
    assert p.outbox.wait_for_room(10_000, DEADLINE_S)
    assert len(asked) == 3
    assert DEADLINE_S >= asked[0] >= asked[2] > 0


def test_who_waits_for_room_and_cannot_read_waits_for_another_thread(peer):
    p = peer(keep=1000, max_bytes=50_000)
    p.come()
    fill_window(p)
    p.outbox.pump = lambda left_s: False
    assert not p.outbox.wait_for_room(10_000, 0.01)
    result = []
    run_all(
        lambda: result.append(p.outbox.wait_for_room(10_000, DEADLINE_S)),
        lambda: p.outbox.acknowledge(len(p.got)),
    )
    assert result == [True]


def test_who_waits_until_all_is_sent_does_not_wait_for_a_client_that_is_away(peer):
    p = peer()
    p.come(send_buffer=2304)
    p.send("x" * 100_000)
    result = []
    run_all(lambda: result.append(p.outbox.wait_sent(DEADLINE_S)), lambda: p.outbox.suspend(p.wire.transport))
    assert result == [True]


# Wrong counts


def test_wrong_counts_are_protocol_errors_and_change_nothing(peer):
    p = peer()
    p.come()
    for n in range(5):
        p.send(f"{n}")
    p.outbox.acknowledge(3)
    for wrong in (2, 0, 6, 2**53 - 1):
        with pytest.raises(ProtocolError, match=f"{wrong} messages acknowledged, 3 to 5 are possible"):
            p.outbox.acknowledge(wrong)
        with pytest.raises(ProtocolError, match=f"{wrong} messages received, 3 to 5 are possible"):
            p.outbox.check_received(wrong)
        before, p.wire = p.wire, None
        with pytest.raises(ProtocolError, match="messages received"):
            p.come(received=wrong)
        p.wire = before
    p.outbox._check()
    p.send("5")
    p.buffer = b""
    p.read_until(6)
    assert p.got == ["0", "1", "2", "3", "4", "5"]


def test_an_acknowledgement_of_a_session_that_is_over_or_that_keeps_nothing_is_ignored(peer, flusher):
    p = peer()
    p.come()
    p.outbox.detach()
    p.outbox.acknowledge(7)
    wire = Wire()
    plain = Outbox(wire.transport, flusher, max_bytes=1000, timeout_s=1, on_stuck=print)
    plain.acknowledge(7)
    plain.check_received(7)
    plain.detach()
    wire.close()


# Endings


def test_a_close_frame_goes_out_behind_everything_if_there_is_room(peer):
    p = peer()
    p.come()
    p.send("a")
    assert p.outbox.suspend(p.wire.transport, close_frame(1012))
    assert p.outbox.is_suspended
    p.send("b")
    data = b""
    while not data.endswith(close_frame(1012)):
        data += p.wire.theirs.recv(1000)
    p.come(received=0)
    p.read_until(2)
    assert p.got == ["a", "b"]


def test_a_close_frame_is_left_out_where_a_message_was_written_in_part(peer):
    p = peer()
    p.come(send_buffer=2304)
    p.send("x" * 100_000)
    assert not p.outbox.suspend(p.wire.transport, close_frame(1012))
    p.wire.ours.close()
    data = b""
    while piece := p.wire.theirs.recv(100_000):
        data += piece
    assert close_frame(1012) not in data
    p.come()
    p.read_until(1)


def test_a_close_while_the_window_is_full_writes_what_waits(peer):
    p = peer(keep=1000, max_bytes=50_000)
    p.come()
    fill_window(p)
    written = p.outbox.messages_out
    p.outbox.close(close_frame(1000))
    p.read_until(written)


def test_detaching_ends_it_with_and_without_a_connection(peer):
    for is_away in (False, True):
        p = peer()
        p.come()
        p.send("a")
        if is_away:
            p.lose()
        p.outbox.detach()
        assert p.outbox.is_over
        assert not p.outbox.is_suspended
        assert not p.send("b")
        assert p.outbox.unacknowledged_bytes == 0
        before = p.outbox._queue, p.outbox._kept
        p.come(received=0)
        assert p.has_nothing_more()
        assert not any(before)


def test_a_session_that_is_away_holds_no_connection_and_is_freed_when_it_ends(peer, flusher):
    class Somebody:
        def told(self, reason):
            pass

    wire, somebody = Wire(2304), Somebody()
    box = Outbox(wire.transport, flusher, max_bytes=10**6, timeout_s=DEADLINE_S, on_stuck=somebody.told)
    box.keep(1000, on_stuck=print)
    box.resume(wire.transport, WELCOME, 0, on_stuck=somebody.told)
    outbox.post(box, message_frame("x" * 100_000))
    assert box.is_blocked
    ours, told = weakref.ref(wire.ours), weakref.ref(somebody)
    box.suspend(wire.transport)
    wire.close()
    del wire, somebody
    gc.collect()
    assert ours() is None
    assert told() is None
    assert box._stall_timer is None
    box.detach()


# To another process


def test_an_export_has_all_that_the_client_has_not_acknowledged_and_goes_on_elsewhere(peer):
    p = peer()
    p.come(send_buffer=2304)
    for n in range(3):
        p.send(f"{n}")
    p.send("x" * 100_000)
    outbox.post(p.outbox, keyed("pos", "pos"))
    outbox.post(p.outbox, message_frame(envelope.ack(1)))
    p.outbox.acknowledge(2)
    copy = p.outbox.export(ends=False)
    assert p.send("more")
    acknowledged, frames = p.outbox.export()
    assert copy == (acknowledged, frames[:-1])
    assert acknowledged == 2
    assert frames == [*map(message_frame, ("2", "x" * 100_000, "pos", "more"))]
    assert isinstance(frames[2], MarkedFrame)
    assert p.outbox.is_over
    assert not p.send("late")

    other = peer()
    other.acknowledge = lambda: None
    other.outbox = Outbox.apart(p.outbox.flusher, max_bytes=10**6, timeout_s=DEADLINE_S, encoding=SPOKEN)
    other.send("came meanwhile")
    assert other.outbox.is_suspended
    other.outbox.keep(10**6, on_stuck=print, acknowledged=acknowledged, frames=frames)
    assert other.outbox.written == 6
    other.come(received=3)
    other.read_until(4)
    assert other.got == ["x" * 100_000, "pos", "more", "came meanwhile"]
    other.outbox.acknowledge(7)


# TLS


class Broken:
    """In place of a socket: it takes two records, and then the connection is lost."""

    def __init__(self):
        self.sent = []

    def send(self, data):
        if len(self.sent) == 2:
            raise ConnectionResetError
        self.sent.append(bytes(data))
        return len(data)

    def gettimeout(self):
        return None

    def setblocking(self, flag):
        pass

    def setsockopt(self, *_):
        pass


def test_records_that_went_out_before_a_loss_count_as_written():
    """The client may have them, and say so when it comes back."""
    sock = Broken()
    transport = TLSTransport(sock)
    data = os.urandom(50_000)
    assert transport.send(data) == 2 * 16384
    assert b"".join(sock.sent) == data[: 2 * 16384]
    with pytest.raises(ConnectionResetError):
        transport.send(data[2 * 16384 :])


# Backlog


def test_what_another_connection_is_to_get_first_stands_before_what_waits():
    backlog = Backlog(keeps=True)
    for frame in (encode_frame(PING, b""), *map(message_frame, "abc"), message_frame(envelope.ack(1))):
        backlog.add(frame)
    backlog.hold(0)
    backlog.advance(2 + 3 + 1)
    backlog.hold(0)
    assert backlog.written == [message_frame("b")], "one byte of it was written"
    written = backlog.written
    backlog.restart()
    backlog._check()
    assert list(backlog.pieces) == [message_frame("c")]
    backlog.put_before(WELCOME, written)
    backlog._check()
    assert list(backlog.pieces) == [WELCOME, *map(message_frame, "bc")]
    assert backlog.written == [message_frame("b")]
