"""The lock of an outbox: one contract for threading's and for the one in C."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.programs import DEADLINE_S
from tests.wire import run_all
from wsthreads._native import speedups

KINDS = [
    pytest.param(threading.RLock, id="python"),
    pytest.param(speedups and speedups.RLock, id="c", marks=pytest.mark.skipif(speedups is None, reason="pure Python")),
]


@pytest.fixture(params=KINDS)
def lock(request: pytest.FixtureRequest) -> Any:
    return request.param()


def is_free(lock: Any) -> bool:
    """Whether another thread could take it."""
    taken: list[bool] = []

    def attempt() -> None:
        taken.append(lock.acquire(False))
        if taken[0]:
            lock.release()

    run_all(attempt)
    return taken[0]


def test_it_is_free_again_when_its_owner_has_let_go_as_often_as_it_took_it(lock: Any) -> None:
    assert lock.acquire()
    assert lock.acquire(False)
    with lock:
        assert not is_free(lock)
    lock.release()
    assert not is_free(lock)
    lock.release()
    assert is_free(lock)


def test_only_its_owner_may_let_go(lock: Any) -> None:
    with pytest.raises(RuntimeError, match="un-acquired"):
        lock.release()
    with lock, pytest.raises(RuntimeError, match="un-acquired"):
        run_all(lock.release)
    assert is_free(lock)


def test_an_error_within_it_lets_go_and_is_passed_on(lock: Any) -> None:
    with pytest.raises(ValueError, match="mine"), lock:
        raise ValueError("mine")
    assert is_free(lock)


def test_one_thread_at_a_time_has_it(lock: Any) -> None:
    count, rounds = 0, 2000

    def work() -> None:
        nonlocal count
        for _ in range(rounds):
            with lock:
                before = count
                with lock:
                    is_owned = lock._is_owned()
                assert is_owned
                count = before + 1

    run_all(*[work] * 4)
    assert count == 4 * rounds


def test_a_condition_lets_go_of_it_as_often_as_it_was_taken_and_takes_it_again(lock: Any) -> None:
    condition, waiting = threading.Condition(lock), threading.Event()
    said: list[str] = []

    def wait() -> None:
        with lock, condition:
            waiting.set()
            assert condition.wait_for(lambda: bool(said), DEADLINE_S)
            assert not is_free(lock)
        assert is_free(lock)

    def say() -> None:
        assert waiting.wait(DEADLINE_S)
        with condition:
            said.append("now")
            condition.notify_all()

    run_all(wait, say)


def test_who_waits_for_it_holds_up_nobody_else(lock: Any) -> None:
    """Without the GIL, that is."""
    began, over = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        with lock:
            over.set()

    with lock:
        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        assert began.wait(DEADLINE_S)
        assert not is_free(lock)
        assert not over.is_set()
    assert over.wait(DEADLINE_S)
    waiter.join(DEADLINE_S)
    assert is_free(lock)


def test_it_takes_no_arguments_that_it_does_not_know(lock: Any) -> None:
    with pytest.raises(TypeError):
        lock.acquire(False, 1, 2)
