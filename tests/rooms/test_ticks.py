"""The schedule of ticks: pure arithmetic."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsthreads.rooms.ticks import MAX_DT_S, Schedule, is_tick_rate


@pytest.mark.parametrize("rate", [1, 60, 20, 20.5, 1.0, 59.999])
def test_a_tick_rate_is_a_number_in_its_range(rate):
    assert is_tick_rate(rate)


@pytest.mark.parametrize("rate", [0, 61, 0.99, -1, math.nan, math.inf, -math.inf, True, "20", None, [20], 10**400])
def test_nothing_else_is_one(rate):
    assert not is_tick_rate(rate)


@given(st.floats(0, 1e7), st.floats(1, 60), st.integers(0, 10**6))
def test_a_tick_is_never_due_before_it_is_due(origin, rate, number):
    schedule = Schedule(origin, rate)
    assert schedule.number(schedule.due_s(number)) == number, "rounding makes no tick early or late"
    assert schedule.number(schedule.due_s(number) + 0.5 / rate) == number
    assert schedule.number(schedule.due_s(number) - 0.5 / rate) == number - 1


@pytest.mark.parametrize("rate", [1, 7, 20, 30, 59.94, 60])
def test_the_times_of_all_ticks_sum_up_to_the_time_that_has_passed(rate):
    schedule, started = Schedule(1234.5, rate), 1234.5 + 0.013
    first = schedule.number(started) + 1
    last = schedule.number(started + 60)
    total = schedule.first_dt_s(started, first)
    total += sum(schedule.dt_s(number - 1, number) for number in range(first + 1, last + 1))
    if rate > 4:  # beyond that, each one is capped
        assert total == pytest.approx(schedule.due_s(last) - started, abs=1e-6)
        assert 60 - 1 / rate - 1e-6 <= total <= 60 + 1e-6
    assert abs((last - first + 1) - 60 * rate) <= 1


def test_ticks_that_were_skipped_are_in_the_next_one_up_to_a_cap():
    schedule = Schedule(0.0, 20)
    assert schedule.dt_s(10, 12) == 0.1
    assert schedule.dt_s(10, 15) == MAX_DT_S
    assert schedule.dt_s(10, 100) == MAX_DT_S
    assert schedule.first_dt_s(0.3, 6) == 0.0
    assert schedule.first_dt_s(0.26, 6) == 0.04
    assert schedule.first_dt_s(-100.0, 6) == MAX_DT_S


def test_a_clock_that_runs_late_at_random_drifts_no_tick():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    schedule, now, last, called, skipped = Schedule(50.0, 20), 50.0, 0, 0, 0
    while now < 110.0:
        now = max(now, schedule.due_s(schedule.number(now) + 1)) + rng.expovariate(1 / 0.02)
        number = schedule.number(now)
        called, skipped, last = called + 1, skipped + number - last - 1, number
    assert called + skipped == last
    assert last == math.floor((now - 50.0) * 20 + 1e-6)


@pytest.mark.parametrize(("rate", "dt_s"), [(1, 1.0), (2, 0.5), (4, 0.25), (5, 0.2)])
def test_a_period_that_is_longer_than_the_cap_is_the_cap(rate, dt_s):
    schedule = Schedule(0.0, rate)
    assert schedule.dt_s(3, 4) == schedule.first_dt_s(0.0, 1) == pytest.approx(dt_s)
    assert schedule.dt_s(3, 9) == pytest.approx(max(0.25, dt_s))
