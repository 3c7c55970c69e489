"""Writing to many outboxes at once, over real sockets. `tests/_native/test_speedups.py` holds both twins to more."""

import pytest

from tests.wire import CLOSE, TEXT, open_lines, run_all
from wsthreads.protocol import fanout
from wsthreads.protocol.frames import encode_frame


@pytest.fixture
def lines(flusher):
    with open_lines(flusher, 3) as lines:
        yield lines


def outboxes(lines):
    return tuple(line.outbox for line in lines)


def test_a_frame_is_counted_for_each_outbox_that_takes_it(lines):
    one, two, closed = lines
    closed.outbox.close(encode_frame(CLOSE, b""))
    frame = encode_frame(TEXT, b"hello")
    assert fanout.append_all(outboxes(lines), frame, None) == 2
    assert fanout.append_all(outboxes(lines), frame, one.outbox) == 1
    assert fanout.flush_all(outboxes(lines)) == []
    assert one.read_frames(1) == [(TEXT, b"hello")]
    assert two.read_frames(2) == [(TEXT, b"hello")] * 2
    assert closed.read_frames(1) == [(CLOSE, b"")]


def test_what_another_thread_writes_to_is_left_to_that_thread(lines):
    one, busy, three = lines
    frame = encode_frame(TEXT, b"hello")
    fanout.append_all(outboxes(lines), frame, None)
    with busy.outbox._lock:
        run_all(lambda: fanout.flush_all(outboxes(lines)))
        assert busy.outbox.is_queued
    for line in (one, three):
        assert line.read_frames(1) == [(TEXT, b"hello")]
    busy.outbox.flush()  # as its holder does
    assert busy.read_frames(1) == [(TEXT, b"hello")]


def test_a_slow_member_keeps_nobody_waiting_and_misses_nothing(lines):
    slow, *quick = lines
    written = slow.fill()
    frame = encode_frame(TEXT, b"hello")
    fanout.append_all(outboxes(lines), frame, None)
    fanout.flush_all(outboxes(lines))
    for line in quick:
        assert line.read_frames(1) == [(TEXT, b"hello")]
    assert slow.read_frames(written + 1)[-1] == (TEXT, b"hello")
