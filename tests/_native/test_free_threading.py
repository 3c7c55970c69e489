"""Threads that run at once, in a Python without a GIL: what the C modules and the outbox promise for any threads.

With a GIL these tests pass easily. ``make test-freethreaded`` runs them without one.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.wire import TEXT, frame, run_all
from wsthreads.javascript.inbox import Inbox, Intake
from wsthreads.protocol import outbox
from wsthreads.protocol.fanout import append_all, flush_all
from wsthreads.protocol.outbox import Outbox
from wsthreads.protocol.transport import PlainTransport
from wsthreads.threads.flusher import Flusher

HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")


@pytest.mark.parametrize(
    "module",
    ["wsthreads.app", "wsthreads._native._bridge", "wsthreads.gunicorn", "wsthreads.cli", "wsthreads.brokers.redis"],
)
def test_the_package_does_not_bring_the_gil_back(module: str) -> None:
    """Nothing that it imports at first does, either. Python warns where a C module does."""
    code = f"import sys, {module}; print(getattr(sys, '_is_gil_enabled', lambda: True)())"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    command = [sys.executable, "-W", "error", "-c", code]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert output.stdout == f"{HAS_GIL}\n", output.stderr


class Ends:
    """Outboxes on socket pairs."""

    def __init__(self) -> None:
        self.flusher = Flusher()
        self.flusher.start()
        self.made: list[tuple[Outbox, socket.socket, socket.socket]] = []

    def make(self, kind: type[Outbox] = Outbox) -> tuple[Outbox, socket.socket]:
        near, far = socket.socketpair()
        far.settimeout(DEADLINE_S)
        made = kind(PlainTransport(near), self.flusher, max_bytes=2**30, timeout_s=DEADLINE_S, on_stuck=print)
        self.made.append((made, near, far))
        return made, far

    def close(self) -> None:
        for made, near, far in self.made:
            made._check()
            made.detach()
            near.close()
            far.close()
        self.flusher.stop(DEADLINE_S)


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


def read_until(far: socket.socket, is_whole: Callable[[bytearray], bool]) -> bytes:
    data = bytearray()
    while not is_whole(data):
        piece = far.recv(1 << 20)
        assert piece, data[-50:]
        data += piece
    return bytes(data)


def line_of(thread: int, number: int) -> bytes:
    return b"\x81\x0c%2d.%7d.\n" % (thread, number)


SIZE = len(line_of(0, 0))


def test_what_threads_post_at_once_leaves_whole_and_in_the_order_of_each_thread(ends: Ends) -> None:
    made, far = ends.make()
    threads, rounds = 4, 3000
    data: list[bytes] = []

    def post(thread: int) -> None:
        for number in range(rounds):
            if number % 3:
                assert outbox.post(made, line_of(thread, number))
            elif number % 2:
                append_all((made,), line_of(thread, number), None)
                flush_all((made,))
            else:
                made.append(line_of(thread, number))
                made.flush()

    whole = threads * rounds * SIZE
    read = lambda: data.append(read_until(far, lambda got: len(got) >= whole))  # noqa: E731
    run_all(read, *[lambda thread=thread: post(thread) for thread in range(threads)])
    lines = [data[0][at : at + SIZE] for at in range(0, whole, SIZE)]
    for thread in range(threads):
        mine = [line for line in lines if line[2:4] == b"%2d" % thread]
        assert mine == [line_of(thread, number) for number in range(rounds)]
    assert made.messages_out == threads * rounds
    wait_until(lambda: made.bytes_out == whole)  # counted after the kernel has them, so that they can be read before
    assert not made.is_queued


@pytest.mark.parametrize("attempt", range(100))
def test_nothing_leaves_behind_a_close_frame_that_is_posted_at_the_same_time(ends: Ends, attempt: int) -> None:
    made, far = ends.make()
    begun = threading.Barrier(3)
    closing = b"\x88\x02\x03\xe8"

    def post(thread: int) -> None:
        begun.wait(DEADLINE_S)
        while outbox.post(made, line_of(thread, attempt)):
            pass

    def close() -> None:
        begun.wait(DEADLINE_S)
        assert made.close(closing)

    data: list[bytes] = []
    read = lambda: data.append(read_until(far, lambda got: got.endswith(closing)))  # noqa: E731
    run_all(lambda: post(0), lambda: post(1), close, read)
    assert made.wait_sent(DEADLINE_S)
    made.detach()
    far.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.recv(1)
    assert (len(data[0]) - len(closing)) % SIZE == 0


def test_outboxes_of_several_classes_are_used_at_once(ends: Ends) -> None:
    class Second(Outbox):
        __slots__ = ("more",)

    class Third(Second):
        __slots__ = ()

    rounds = 2000

    def work(kind: type[Outbox]) -> None:
        made, far = ends.make(kind)
        for number in range(rounds):
            assert outbox.post(made, line_of(0, number))
            assert far.recv(SIZE) == line_of(0, number)

    run_all(*[lambda kind=kind: work(kind) for kind in (Outbox, Second, Third)])


def test_outboxes_of_the_c_type_and_others_are_used_at_once(ends: Ends) -> None:
    """With WSTHREADS_PURE_PYTHON, and in tests, the C functions ask Python for the attributes."""
    other: Any = SimpleNamespace(_queue=[], _close_frame=None, _detached=False)
    other.append = lambda frame, *_: other._queue.append(frame) is None  # for the Python twin
    made, _ = ends.make()
    begun = threading.Barrier(2)

    def append(to: Any) -> None:
        begun.wait(DEADLINE_S)
        for _ in range(500_000):
            assert append_all((to,), b"x", None) == 1

    run_all(lambda: append(made), lambda: append(other))
    assert len(other._queue) == len(made._queue) == 500_000
    made._queue.clear()


def test_an_intake_lives_as_long_as_its_texts_wait_and_no_longer() -> None:
    if not hasattr(Intake, "pump"):
        pytest.skip("pure Python")
    rounds, gone = 300, []

    class Counted(Intake):  # type: ignore[misc]
        def __del__(self) -> None:
            gone.append(None)

    inbox: Any = Inbox()
    texts = [b"%d" % number for number in range(20)]

    def pump() -> None:
        for _ in range(rounds):
            near, far = socket.socketpair()
            with near, far:
                for text in texts:
                    far.sendall(frame(TEXT, text))
                far.shutdown(socket.SHUT_WR)
                intake = Counted(1000, 1 << 20)
                assert intake.pump(inbox, near.fileno(), 1000, 0) == b""
                del intake

    def take() -> None:
        for _ in range(rounds):
            for text in texts:
                intake, got, size = inbox.get(DEADLINE_S)
                assert (got.encode(), size) == (text, len(text))
                intake.leave(size)
            del intake

    run_all(pump, take)
    wait_until(lambda: len(gone) == rounds, "the end of all intakes")


def test_the_lock_of_an_outbox_is_nobody_else_s(ends: Ends) -> None:
    made, _ = ends.make()
    lock, state, rounds = made._lock, [0, 0], 20_000

    def work() -> None:
        done = 0
        while done < rounds:
            if not lock.acquire(done % 2 == 0):
                continue
            with lock:
                assert state[0] == state[1]
                state[0] += 1
                state[1] += 1
            lock.release()
            done += 1

    run_all(*[work] * 3)
    assert state == [3 * rounds] * 2
