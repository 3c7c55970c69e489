"""Going on, but not in a storm."""

from __future__ import annotations

import logging

import pytest

from wsthreads.threads.restarts import CALM_S, FIRST_PAUSE_S, MAX_PAUSE_S, Restarts, keep_running


def test_the_first_restart_comes_at_once_and_further_ones_after_longer_and_longer_pauses():
    now = 0.0
    restarts = Restarts(lambda: now)
    pauses = [restarts.next_pause_s() for _ in range(10)]
    assert pauses[:4] == [0.0, FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == MAX_PAUSE_S
    now += CALM_S + 1
    assert restarts.next_pause_s() == 0.0


@pytest.mark.parametrize("error", [ValueError, MemoryError, SystemExit, KeyboardInterrupt])
def test_work_goes_on_after_whatever_it_raises_and_each_time_is_logged_with_its_stack(caplog, error):
    left, pauses = [error("first"), error("second")], []

    def work():
        if left:
            raise left.pop(0)

    with caplog.at_level(logging.CRITICAL, "wsthreads"):
        keep_running(work, pauses.append)
    assert not left
    assert pauses == [0.0, FIRST_PAUSE_S]
    assert [str(record.exc_info[1]) for record in caplog.records] == ["first", "second"]
    assert all("MainThread has failed" in record.getMessage() for record in caplog.records)
