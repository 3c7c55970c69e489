"""A token bucket, and who waits for it."""

import pytest

from wsthreads.protocol import rate_limit
from wsthreads.protocol.envelope import CLIENT_WINDOW_BYTES, WINDOW_MESSAGE_BYTES
from wsthreads.protocol.rate_limit import SPAN_S, Held, RateLimit


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
    bucket = RateLimit(2)
    taken(bucket)
    held = Held(bucket, "0", 1)
    held.add("1")
    held.add("2")
    assert held.take() is None
    assert held.wait_s == 0.5
    clock[0] += 1
    assert [held.take(), held.take(), held.take()] == ["0", "1", None]
    clock[0] += 1
    assert held
    assert held.take() == "2"
    assert not held


def test_the_memory_of_what_is_held_is_bounded(clock, monkeypatch):
    slept = []
    monkeypatch.setattr(rate_limit, "sleep", slept.append)
    monkeypatch.setattr(rate_limit, "MAX_HELD_BYTES", 2000)
    bucket = RateLimit(0.1)
    taken(bucket)
    held = Held(bucket, "a" * 1000, 0)
    assert held.may_read()
    held.add(b"b" * 1000)
    assert not held.may_read()
    assert slept == [rate_limit.LOOK_S]
    clock[0] += 10
    assert held.take() == "a" * 1000
    assert held.may_read()
    held.end = object
    assert not held.may_read()


def test_what_a_client_may_send_before_it_waits_is_held_in_any_case(clock):
    """It looks at its window before it writes, and Python needs four bytes for each character of the last message."""
    longest = 1024 * 1024
    held = Held(RateLimit(0.1), "", longest)
    for _ in range(CLIENT_WINDOW_BYTES // (1 + WINDOW_MESSAGE_BYTES)):
        held.add("a")
    held.add("\U0001f600" + "a" * (longest - 4))
    assert held.may_read()
