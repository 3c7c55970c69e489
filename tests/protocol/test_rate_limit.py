"""A token bucket, and who waits for it."""

import pytest

from wsthreads.protocol import pacing, rate_limit
from wsthreads.protocol.pacing import Pace
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


def test_it_says_how_long_to_wait(clock):
    bucket = RateLimit(4)
    assert bucket.wait_s == 0
    taken(bucket)
    assert bucket.wait_s == 0.25
    clock[0] += 0.125
    assert not bucket.take()
    assert bucket.wait_s == 0.125


def test_what_is_held_goes_on_in_order_and_within_the_limit(clock):
    pace = Pace(2)
    for _ in range(2 * int(SPAN_S)):
        assert pace.admit()
    assert not pace.is_holding
    for number in range(3):
        assert not pace.admit()
        pace.hold(str(number))
    assert pace.next() is None
    clock[0] += 1
    assert not pace.admit(), "others are held"
    assert [pace.next(), pace.next(), pace.next()] == ["0", "1", None]
    pace.clear()
    clock[0] += 1
    assert pace.next() is None
    assert pace.admit()


@pytest.mark.parametrize(("most", "messages"), [("MAX_HELD", ["a"] * 3), ("MAX_HELD_BYTES", ["abc"])])
def test_what_is_held_is_bounded(clock, monkeypatch, most, messages):
    slept = []
    monkeypatch.setattr(pacing, "sleep", slept.append)
    monkeypatch.setattr(pacing, most, 3)
    pace = Pace(0.001)
    while pace.admit():
        pass
    for message in messages:
        assert not pace.pause()
        pace.hold(message)
    assert pace.pause()
    assert slept == [pacing.LOOK_S]
