"""Places for sessions."""

import threading

import pytest

from tests.programs import DEADLINE_S
from tests.wire import run_all
from wsthreads import HandshakeRefused
from wsthreads.admission import Admission


def test_the_last_place_can_be_taken_and_no_more_and_be_given_back():
    admission = Admission(2)
    admission.enter()
    admission.enter()
    with pytest.raises(HandshakeRefused, match="all 2 places") as caught:
        admission.enter()
    assert caught.value.status == 503
    assert ("Retry-After", "5") in caught.value.headers
    admission.leave()
    admission.enter()
    assert admission.taken == 2


def test_nobody_gets_in_once_it_is_closed():
    admission = Admission(2)
    assert not admission.closed
    assert admission.goodbye is None
    assert admission.close(1012, "back soon")
    assert not admission.close(1001, "bye")
    assert admission.closed
    assert admission.goodbye == (1012, "back soon")
    with pytest.raises(HandshakeRefused, match="shutting down") as caught:
        admission.enter()
    assert caught.value.status == 503
    assert dict(caught.value.headers)["Retry-After"]


def test_waiting_for_the_last_to_leave_ends_when_it_has():
    admission = Admission(8)
    for _ in range(3):
        admission.enter()
    started, results = threading.Event(), []

    def wait():
        started.set()
        results.append(admission.wait_empty(DEADLINE_S))

    thread = threading.Thread(target=wait)
    thread.start()
    assert started.wait(DEADLINE_S)
    for _ in range(2):
        admission.leave()
    assert not results
    admission.leave()
    thread.join(DEADLINE_S)
    assert results == [True]


def test_waiting_ends_at_its_deadline_where_somebody_stays():
    admission = Admission(1)
    assert admission.wait_empty(0)
    admission.enter()
    assert not admission.wait_empty(0.01)


def test_many_threads_never_take_more_places_than_there_are():
    admission, most, lock = Admission(3), [0], threading.Lock()

    def visit():
        for _ in range(500):
            try:
                admission.enter()
            except HandshakeRefused:
                continue
            with lock:
                most[0] = max(most[0], admission.taken)
            admission.leave()

    run_all(*[visit] * 8)
    assert 0 < most[0] <= 3
    assert admission.taken == 0
