"""Which session is closed when."""

import pytest

from wsthreads.servers.close_batches import AT_ONCE, BATCH_INTERVAL_S, CLOSES_PER_S, in_batches


@pytest.mark.parametrize("count", [0, 1, AT_ONCE])
def test_a_few_hundred_are_closed_at_once(count):
    assert list(in_batches(range(count), 10)) == [(0.0, list(range(count)))]


@pytest.mark.parametrize(
    ("count", "timeout_s", "spread_s"),
    [(AT_ONCE + 1, 10, 0.5), (1000, 10, 1), (3000, 10, 3), (10_000, 10, 5), (10_000, 60, 10), (10_000, 0.2, 0.1)],
)
def test_more_are_spread_evenly_over_no_more_than_half_of_the_time(count, timeout_s, spread_s):
    batches = list(in_batches(range(count), timeout_s))
    delays = [delay for delay, _ in batches]
    assert delays[0] == 0
    assert delays == sorted(delays)
    assert delays[-1] < spread_s + 0.001 <= timeout_s / 2 + 0.001
    assert sorted(thing for _, batch in batches for thing in batch) == list(range(count)), "each once"
    sizes = [len(batch) for _, batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert delays[1] <= BATCH_INTERVAL_S
    if spread_s < timeout_s / 2:
        assert max(sizes) <= CLOSES_PER_S * BATCH_INTERVAL_S + 1


def test_they_are_drawn_by_lot():
    first = next(in_batches(range(5000), 10))[1]
    assert first != sorted(first)


def test_without_time_all_are_closed_at_once():
    [(delay, batch)] = in_batches(range(5000), 0)
    assert delay == 0
    assert len(batch) == 5000
