"""Counters."""


from tests.wire import run_all
from wsthreads.metrics import Metrics


def test_a_counter_that_was_never_added_to_is_missing():
    metrics = Metrics()
    metrics.add("a")
    metrics.add("a", 4)
    assert metrics.snapshot() == {"a": 5}


def test_a_snapshot_does_not_change_any_more():
    metrics = Metrics()
    before = metrics.snapshot()
    metrics.add("a")
    assert before == {}


def test_no_count_of_many_threads_is_lost():
    metrics = Metrics()

    def add():
        for _ in range(2000):
            metrics.add("a")

    run_all(*[add] * 8)
    assert metrics.snapshot() == {"a": 16000}
