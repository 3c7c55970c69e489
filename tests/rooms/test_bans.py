"""Bans by a clock that the test moves."""

import math

import pytest

from wsthreads.errors import UserError
from wsthreads.rooms.bans import MAX_BAN_S, Bans, check_ban


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def bans(clock):
    return Bans(clock)


def test_a_ban_ends_with_its_time(bans, clock):
    assert bans.get("ann") is None
    bans.put("ann", 60, 4001, "bye")
    clock.now = 59.9
    assert bans.get("ann")[1:] == (4001, "bye")
    assert bans.get("bob") is None
    clock.now = 60
    assert bans.get("ann") is None
    assert not len(bans)


def test_of_two_bans_the_one_that_lasts_longer_counts(bans, clock):
    """A logout that refuses the user's old pages for a second does not end the ban of a kick."""
    bans.put("ann", 10, 4001, "first")
    bans.put("ann", 60, 4002, "kicked")
    bans.put("ann", 1, 4003, "logged out")
    clock.now = 59
    assert bans.get("ann")[1:] == (4002, "kicked")
    clock.now = 60
    assert bans.get("ann") is None


def test_bans_that_are_over_are_not_kept(bans, clock):
    for number in range(10_000):
        clock.now = number
        bans.put(f"user {number}", 50, 1000, "")
    assert len(bans) < 250


@pytest.mark.parametrize("ban_s", [0, 0.5, 60, MAX_BAN_S, 10**7])
def test_a_time_that_a_ban_can_have(ban_s):
    check_ban(ban_s)


@pytest.mark.parametrize("ban_s", [-1, -0.001, math.nan, math.inf, -math.inf, MAX_BAN_S + 1, 1e400, True, "60", None])
def test_a_time_that_no_ban_can_have_is_an_error_that_names_it_and_the_limit(ban_s):
    with pytest.raises(UserError) as caught:
        check_ban(ban_s)
    assert f"from 0 to {MAX_BAN_S}, not {ban_s!r:.40}" in str(caught.value)
