"""A few threads for calls that may take long."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from contextvars import ContextVar
from typing import Any

import pytest

from tests.programs import DEADLINE_S, wait_until
from wsthreads.javascript.python_pool import PythonPool
from wsthreads.threads.pool import Pool


@pytest.fixture
def make() -> Any:
    pools: list[Pool[Any]] = []

    def make(work: Any, **options: Any) -> Pool[Any]:
        pool: Pool[Any] = Pool(work, name="test-pool", **{"threads": 4, **options})
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.stop(DEADLINE_S)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("test-pool")]


def test_one_that_was_never_needed_has_no_thread(make):
    pool = make(lambda items: None)
    assert pool.wait_idle(0)
    assert "test-pool-1" not in {thread.name for thread in threading.enumerate()}


def test_quick_work_needs_one_thread_and_keeps_its_order(make):
    done = []
    pool = make(lambda items: done.extend(items), threads=1)
    for number in range(1000):
        pool.put([number])
    assert pool.wait_idle(DEADLINE_S)
    assert done == list(range(1000))
    assert [thread.name for thread in threading.enumerate() if "test-pool" in thread.name] == ["test-pool"]


@pytest.mark.parametrize("kind", ["a handler's functions", "a script's calls"])
def test_context_variables_are_unset_in_the_next_call(make, kind):
    seen, user = [], ContextVar("user", default="nobody")

    def work(items: Any = ()) -> None:
        seen.append(user.get())
        user.set("ann")

    if kind == "a script's calls":
        calls = PythonPool("test", 1)
        assert [calls.submit(number, work) for number in (1, 2)] == [None, None]
        wait_until(lambda: len(seen) == 2)
        calls.stop()
    else:
        pool = make(work, threads=1)
        pool.put([1, 2])
        assert pool.wait_idle(DEADLINE_S)
    assert seen == ["nobody", "nobody"]


def test_work_that_blocks_holds_up_only_its_own_thread(make):
    go, begun, done = threading.Event(), threading.Semaphore(0), []

    def work(items):
        (item,) = items
        if item is None:
            begun.release()
            go.wait(DEADLINE_S)
        else:
            done.append(item)

    pool = make(work)
    pool.put([None, None, None, *range(100)])
    wait_until(lambda: len(done) == 100, "all that does not block is done")
    for _ in range(3):
        assert begun.acquire(timeout=DEADLINE_S)
    assert not pool.wait_idle(0.01)
    assert done == list(range(100))
    go.set()
    assert pool.wait_idle(DEADLINE_S)


def test_no_more_threads_run_than_there_may(make):
    running, most, lock = 0, 0, threading.Lock()
    barrier = threading.Barrier(3)

    def work(items):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait(DEADLINE_S)
        with lock:
            running -= 1

    pool = make(work, threads=3)
    pool.put(range(30))
    assert pool.wait_idle(DEADLINE_S)
    assert most == 3


def test_a_batch_has_as_much_as_waits_up_to_its_size(make):
    go, sizes = threading.Event(), []

    def work(items):
        go.wait(DEADLINE_S)
        sizes.append(len(items))

    pool = make(work, threads=1, batch=40)
    pool.put(range(5))
    wait_until(lambda: not pool._items, "the first batch is taken")
    pool.put(range(100))
    go.set()
    assert pool.wait_idle(DEADLINE_S)
    assert sizes == [5, 40, 40, 20]


def test_an_error_of_the_work_is_logged_and_ends_no_thread(make, caplog):
    done = []

    def work(items):
        if items == [None]:
            raise SystemExit("on purpose")
        done.extend(items)

    pool = make(work, threads=1)
    pool.put([None])
    pool.put([1])
    assert pool.wait_idle(DEADLINE_S)
    assert done == [1]
    assert "test-pool has failed and is started again" in caplog.text


def test_many_threads_put_in_and_nothing_is_lost(make):
    done, lock = [], threading.Lock()

    def work(items):
        with lock:
            done.extend(items)

    pool = make(work)

    def put(first):
        for number in range(500):
            pool.put([first + number])

    threads = [threading.Thread(target=put, args=(1000 * nth,)) for nth in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pool.wait_idle(DEADLINE_S)
    assert sorted(done) == sorted(1000 * nth + number for nth in range(8) for number in range(500))


def test_a_stop_waits_for_what_waits_and_can_be_called_by_the_work_itself(make):
    done = []

    def work(items):
        done.extend(items)
        if items == ["stop"]:
            pool.stop(DEADLINE_S)

    pool = make(work, threads=2)
    pool.put([*range(10), "stop", *range(10)])
    wait_until(lambda: len(done) == 21, "everything is done")


def test_without_any_thread_it_raises_and_the_next_call_does_what_waits(make, monkeypatch):
    done = []
    pool = make(lambda items: done.extend(items))
    start = threading.Thread.start

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        pool.put([1])
    monkeypatch.setattr(threading.Thread, "start", start)
    pool.put([])
    assert pool.wait_idle(DEADLINE_S)
    assert done == [1]


def test_a_pool_that_was_released_ends_its_threads_and_keeps_nothing(make):
    class Thing:
        def __call__(self, items):
            """Takes the items."""

    thing = Thing()
    pool = make(thing, threads=2)
    pool.put([1])
    assert pool.wait_idle(DEADLINE_S)
    pool.release()
    wait_until(lambda: not [thread for thread in threading.enumerate() if "test-pool" in thread.name], "they end")
    reference = weakref.ref(thing)
    pool._work = None
    del thing
    gc.collect()
    assert reference() is None


def test_a_forked_process_has_threads_of_its_own(make):
    done, go = [], threading.Event()

    def work(items):
        if items == ["wait"]:
            go.wait(DEADLINE_S)
        done.extend(items)

    pool = make(work, threads=1)
    pool.put(["wait", "the parent's"])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            pool.give_up()
            pool.put(["the child's"])
            if pool.wait_idle(DEADLINE_S) and done == ["the child's"]:
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go.set()
    assert pool.wait_idle(DEADLINE_S)
    assert done == ["wait", "the parent's"]
