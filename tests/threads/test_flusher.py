"""The housekeeping thread."""

import gc
import logging
import os
import resource
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from time import monotonic
from weakref import ref

import pytest

from tests.programs import DEADLINE_S, PROGRAM_S, own_threads, wait_until
from tests.wire import new_files, open_files
from wsthreads.threads.flusher import MIN_SWEEP, Flusher


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def fill(sock):
    """Write until the kernel has no more room."""
    try:
        while True:
            sock.send(b"x" * 65536)
    except BlockingIOError:
        return


def settle(flusher):
    """Return when the flusher has carried out what was ordered before."""
    done = threading.Event()
    flusher.call_later(0, done.set)
    assert done.wait(DEADLINE_S)


@contextmanager
def held(flusher):
    """The flusher carries out nothing until the end of the block."""
    entered, go_on = threading.Event(), threading.Event()
    flusher.call_later(0, lambda: (entered.set(), go_on.wait(DEADLINE_S)))
    assert entered.wait(DEADLINE_S)
    yield
    go_on.set()


def test_timers_run_in_the_order_in_which_they_are_due_and_not_before(flusher):
    ran, done, delays = [], threading.Event(), (0.09, 0.03, 0.06, 0.0)
    with held(flusher):
        timers = [flusher.call_later(delay, lambda n=n: ran.append((n, monotonic()))) for n, delay in enumerate(delays)]
        flusher.call_later(0.12, done.set)
    assert done.wait(DEADLINE_S)
    wait_until(lambda: len(ran) == len(delays))
    dues = [timer.due for timer in timers]
    assert [n for n, _ in ran] == sorted(range(len(delays)), key=dues.__getitem__)
    assert all(at >= dues[n] for n, at in ran)


def test_timers_due_at_once_run_in_the_order_of_the_calls(flusher):
    ran = []
    for n in range(50):
        flusher.call_later(0, lambda n=n: ran.append(n))
    settle(flusher)
    assert ran == list(range(50))


def test_a_timer_further_away_than_a_tick_runs_though_nobody_wakes_the_thread(flusher):
    done, began = threading.Event(), monotonic()
    flusher.call_later(1.05, done.set)
    assert done.wait(DEADLINE_S)
    assert monotonic() - began >= 1.05


def test_cancelled_timers_are_not_kept_until_they_are_due_and_others_are(flusher):
    ran = []
    kept = [flusher.call_later(0.5, lambda n=n: ran.append(n)) for n in range(50)]
    for _ in range(20):
        for timer in [flusher.call_later(1000, ran.clear) for _ in range(500)]:
            timer.cancel()
        settle(flusher)
        assert len(flusher._timers) <= MIN_SWEEP + 500
    late = flusher.call_later(1000, ran.clear)
    settle(flusher)
    assert any(entry[2] is late for entry in flusher._timers)
    wait_until(lambda: len(ran) == len(kept), "all that were not cancelled")
    assert ran == list(range(50))


def test_a_cancelled_timer_never_runs(flusher):
    ran = []
    with held(flusher):
        timer = flusher.call_later(0.01, lambda: ran.append(1))
        timer.cancel()
        timer.cancel()
    done = threading.Event()
    flusher.call_later(0.05, done.set)
    assert done.wait(DEADLINE_S)
    assert not ran


def test_a_watch_runs_once_when_there_is_room(flusher, pair):
    ours, theirs = pair
    fill(ours)
    calls, called = [], threading.Event()
    flusher.watch(ours.fileno(), lambda: (calls.append(1), called.set()))
    settle(flusher)
    assert not calls, "there is no room yet"
    while not called.wait(0.01):
        assert theirs.recv(10_000_000)
    settle(flusher)
    settle(flusher)
    assert calls == [1]


def test_a_watch_also_runs_when_the_connection_has_failed(flusher, pair):
    ours, theirs = pair
    fill(ours)
    called = threading.Event()
    flusher.watch(ours.fileno(), called.set)
    theirs.close()
    assert called.wait(DEADLINE_S)


def test_a_forgotten_watch_does_not_run_and_its_number_can_be_used_again(flusher, pair):
    ours, _theirs = pair
    fill(ours)
    calls = []
    number = ours.fileno()
    flusher.watch(number, lambda: calls.append("old"))
    flusher.forget(number)
    ours.close()
    new, peer = socket.socketpair()
    try:
        new_number = new.fileno()
        assert new_number == number, "the test wants the number that has just become free"
        called = threading.Event()
        flusher.watch(new_number, lambda: (calls.append("new"), called.set()))
        assert called.wait(DEADLINE_S)
        settle(flusher)
        assert calls == ["new"]
    finally:
        new.close()
        peer.close()


def test_a_watch_of_a_socket_that_has_been_closed_meanwhile_is_no_error(flusher, pair, caplog):
    ours, _ = pair
    number = ours.fileno()
    ours.close()
    flusher.watch(number, lambda: None)
    flusher.watch(-1, lambda: None)
    settle(flusher)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_late_watch_of_a_number_that_is_the_flushers_own_by_now_is_no_error(flusher, caplog):
    """The connection was closed, and the flusher, which was started again, has got its number."""
    ran = threading.Event()
    with caplog.at_level(logging.WARNING):
        flusher.watch(flusher._wakee.fileno(), lambda: None)
        flusher.forget(flusher._wakee.fileno())
        flusher.call_later(0, ran.set)
        assert ran.wait(DEADLINE_S)
    assert not caplog.records


def test_a_callback_that_raises_is_logged_and_ends_nothing_else(flusher, pair, caplog):
    ours, _ = pair
    flusher.call_later(0, lambda: 1 / 0)
    settle(flusher)
    flusher.watch(ours.fileno(), lambda: {}["missing"])
    wait_until(lambda: "KeyError" in caplog.text, "the log")
    settle(flusher)
    assert "ZeroDivisionError" in caplog.text


def test_a_callback_may_order_more(flusher):
    done = threading.Event()
    flusher.call_later(0, lambda: flusher.call_later(0, lambda: flusher.call_later(0, done.set)))
    assert done.wait(DEADLINE_S)


def test_start_twice_is_one_thread_and_stop_ends_it_with_its_files():
    before = open_files()
    flusher = Flusher()
    flusher.start()
    flusher.start()
    assert own_threads() == ["wsthreads-flusher"]
    flusher.stop(DEADLINE_S)
    flusher.stop(DEADLINE_S)
    assert not own_threads()
    assert not new_files(before)


def test_stop_leaves_timers_that_are_not_due_and_orders_to_a_stopped_one_are_harmless():
    flusher, ran = Flusher(), []
    flusher.start()
    flusher.call_later(100 * DEADLINE_S, lambda: ran.append(1))
    flusher.stop(DEADLINE_S)
    flusher.call_later(0, lambda: ran.append(2))
    flusher.watch(0, lambda: ran.append(3))
    flusher.forget(0)
    assert not ran


def test_stop_can_be_called_from_a_callback():
    flusher = Flusher()
    flusher.start()
    flusher.call_later(0, lambda: flusher.stop(DEADLINE_S))
    wait_until(lambda: not own_threads(), "the end of the thread")


def test_a_flusher_that_was_never_started_can_be_stopped():
    Flusher().stop(0.1)


FORKED = """
import os, threading
from wsthreads.threads.flusher import Flusher
parent, forked, ran = os.getpid(), threading.Event(), threading.Event()
flusher = Flusher()
flusher.start()
flusher.call_later(0, forked.wait)  # it runs no timer before the fork
flusher.call_later(0.3, lambda: print("the parent's timer in", "child" if os.getpid() != parent else "parent"))
flusher.call_later(0.3, ran.set)
child = os.fork()
if child == 0:
    flusher.start()
    done = threading.Event()
    flusher.call_later(0.6, done.set)
    ok = done.wait(20) and threading.active_count() == 2
    flusher.stop(20)
    print("child", ok, flush=True)
    os._exit(0)
forked.set()
os.waitpid(child, 0)
ran.wait(20)
flusher.stop(20)
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_gets_a_thread_of_its_own_and_none_of_the_parents_timers():
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=PROGRAM_S
    )
    assert result.stderr == ""
    assert sorted(result.stdout.splitlines()) == ["child True", "the parent's timer in parent"]


# Faults.


class Fault(BaseException):
    """What no `except Exception` catches."""


def fail():
    raise Fault


def test_timers_and_watches_survive_the_death_of_the_thread(flusher, pair, caplog):
    ours, theirs = pair
    fill(ours)
    writable, due = threading.Event(), threading.Event()
    flusher.watch(ours.fileno(), writable.set)
    settle(flusher)
    before = len(open_files())
    with held(flusher):
        flusher.call_later(0, fail)
        flusher.call_later(0, due.set)
    assert due.wait(DEADLINE_S)
    assert not writable.is_set()
    while not writable.wait(0.01):
        assert theirs.recv(10_000_000)
    assert len(open_files()) <= before
    (record,) = (record for record in caplog.records if "has failed" in record.getMessage())
    assert "wsthreads-flusher" in record.getMessage()
    assert record.exc_info[0] is Fault


def test_it_goes_on_when_what_it_waits_with_is_broken(flusher, pair, caplog):
    ours, theirs = pair
    fill(ours)
    writable = threading.Event()
    flusher.watch(ours.fileno(), writable.set)
    settle(flusher)
    flusher._selector.close()
    settle(flusher)
    while not writable.wait(0.01):
        assert theirs.recv(10_000_000)
    assert 1 <= sum("has failed" in record.getMessage() for record in caplog.records) <= 3


def test_a_watch_whose_socket_was_closed_does_not_keep_it_from_going_on(flusher, pair):
    ours, _ = pair
    fill(ours)
    flusher.watch(ours.fileno(), lambda: None)
    settle(flusher)
    ours.close()
    flusher.call_later(0, fail)
    settle(flusher)
    settle(flusher)
    assert not flusher._watched


def test_after_a_failure_a_watch_that_has_ended_keeps_nothing_in_memory(flusher, pair):
    ours, _ = pair
    fill(ours)

    class Watcher:
        def call(self):
            raise AssertionError

    watcher = Watcher()
    flusher.watch(ours.fileno(), watcher.call)
    settle(flusher)
    flusher.call_later(0, fail)
    settle(flusher)
    flusher.forget(ours.fileno())
    settle(flusher)
    remembered = ref(watcher)
    del watcher
    wait_until(lambda: gc.collect() is not None and remembered() is None, "the watcher to be forgotten")


def test_what_was_closed_while_the_thread_was_down_is_not_watched_again_under_its_number(flusher, caplog):
    """The flusher's own new sockets get it."""
    calls, gate, pairs = [], threading.Event(), [socket.socketpair() for _ in range(4)]
    for ours, _ in pairs:
        ours.setblocking(False)
        fill(ours)
        flusher.watch(ours.fileno(), lambda: calls.append(1))
    settle(flusher)
    flusher.call_later(0, lambda: gate.wait(DEADLINE_S) and fail())
    for ours, theirs in pairs:
        flusher.forget(ours.fileno())
        ours.close()
        theirs.close()
    gate.set()
    settle(flusher)
    settle(flusher)
    assert sum("has failed" in record.getMessage() for record in caplog.records) == 1
    assert not calls
    assert not flusher._watched


def test_an_order_for_which_there_was_no_memory_is_carried_out_later(flusher, caplog):
    failures, due = [MemoryError(), MemoryError()], threading.Event()

    def order():
        if failures:
            raise failures.pop()
        due.set()

    flusher._orders.append(order)
    flusher._wake()
    assert due.wait(DEADLINE_S)
    assert sum("has failed" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.parametrize("missing", ["descriptors", "a thread"])
def test_a_start_for_want_of_something_raises_leaves_nothing_and_can_be_tried_again(monkeypatch, missing):
    flusher, before = Flusher(), open_files()
    with monkeypatch.context() as patch:
        if missing == "descriptors":
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            number = os.open("/dev/null", os.O_RDONLY)  # the lowest that is free
            os.close(number)
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            resource.setrlimit(resource.RLIMIT_NOFILE, (number + 2, hard))
            try:
                with pytest.raises(OSError, match="Too many open files"):
                    flusher.start()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        else:
            patch.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(RuntimeError, match="can't start"):
                flusher.start()
    assert not new_files(before)
    flusher.start()
    settle(flusher)
    flusher.stop(DEADLINE_S)
    assert not new_files(before)


def no_thread(thread):
    raise RuntimeError("can't start new thread")
