"""A token bucket."""

import pytest

from wsthreads.protocol import rate_limit
from wsthreads.protocol.rate_limit import SPAN_S, RateLimit


@pytest.fixture
def clock(monkeypatch):
    """The time, which stands still unless `clock[0]` is set."""
    now = [1000.0]
    monkeypatch.setattr(rate_limit, "monotonic", lambda: now[0])
    return now


def taken(bucket):
    """How much can be taken at once."""
    count = 0
    while bucket.take():
        count += 1
    return count


def test_at_first_there_is_all_that_may_be_used_in_its_span(clock):
    assert taken(RateLimit(5)) == 5 * SPAN_S


def test_what_is_used_up_comes_back_with_time_and_never_more_than_that(clock):
    bucket = RateLimit(5)
    taken(bucket)
    clock[0] += 1
    assert taken(bucket) == 5
    clock[0] += 1000
    assert taken(bucket) == 5 * SPAN_S


def test_who_keeps_to_the_rate_is_never_refused_and_who_does_not_is_in_the_end(clock):
    steady, faster = RateLimit(4), RateLimit(4)
    for _ in range(4000):
        clock[0] += 0.25
        assert steady.take()
    used = 0
    while faster.take():
        used += 1
        clock[0] += 0.125
    assert used == pytest.approx(2 * 4 * SPAN_S, abs=2)


def test_it_need_not_be_whole_seconds_between_looks(clock):
    bucket = RateLimit(1)
    taken(bucket)
    for _ in range(1000):
        clock[0] += 1 / 1024
        assert not bucket.take()
    clock[0] += 25 / 1024
    assert taken(bucket) == 1
