"""The thread that goes on with sending."""

from __future__ import annotations

import threading
import weakref

from tests.programs import DEADLINE_S, own_threads, wait_until
from wsthreads.threads.drainer import Drainer


def test_one_that_was_never_needed_is_idle():
    assert Drainer().wait_idle(0)
    assert not own_threads()


def test_idle_means_that_every_step_is_done():
    drainer, left, go = Drainer(), [3, 2], threading.Event()

    def step(which):
        go.wait(DEADLINE_S)
        left[which] -= 1
        return left[which] > 0

    drainer.go_on(lambda: step(0))
    drainer.go_on(lambda: step(1))
    assert not drainer.wait_idle(0.01)
    go.set()
    assert drainer.wait_idle(DEADLINE_S)
    assert left == [0, 0]
    drainer.stop(DEADLINE_S)
    assert drainer.wait_idle(0)


def test_a_step_that_is_done_is_not_kept_until_the_next_one():
    """It may hold what is sent to the members of a room, and they with it."""

    class Step:
        def __init__(self):
            self.is_done = threading.Event()

        def __call__(self):
            self.is_done.set()
            return False

    drainer, step = Drainer(), Step()
    is_done, kept = step.is_done, weakref.ref(step)
    drainer.go_on(step)
    del step
    assert is_done.wait(DEADLINE_S)
    wait_until(lambda: kept() is None, "nobody keeps the step")
    drainer.stop(DEADLINE_S)
