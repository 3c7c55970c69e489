"""Places for sessions."""

import threading

import pytest

from tests.programs import DEADLINE_S
from tests.wire import run_all
from wsthreads import HandshakeRefused
from wsthreads.sessions.admission import Admission


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


@pytest.mark.parametrize("beyond", [0, 1])
def test_many_threads_never_take_more_places_than_there_are(beyond):
    admission, most, lock = Admission(3, beyond=beyond), [0], threading.Lock()

    def visit():
        for _ in range(500):
            try:
                admission.enter(is_beyond=bool(beyond))
            except HandshakeRefused:
                continue
            with lock:
                most[0] = max(most[0], admission.taken)
            admission.leave()

    run_all(*[visit] * 8)
    assert 0 < most[0] <= 3 + beyond
    assert admission.taken == 0


def test_one_address_may_have_so_many_and_no_more_and_others_are_not_held_to_it():
    admission = Admission(100, per_address=2)
    places = [admission.enter("192.0.2.1"), admission.enter("192.0.2.1")]
    with pytest.raises(HandshakeRefused, match=r"192\.0\.2\.1 already has 2 sessions") as caught:
        admission.enter("192.0.2.1")
    assert caught.value.status == 429
    assert ("Retry-After", "5") in caught.value.headers
    admission.enter("192.0.2.2")
    admission.leave(places.pop())
    places.append(admission.enter("192.0.2.1"))
    with pytest.raises(HandshakeRefused):
        admission.enter("192.0.2.1")
    assert admission.taken == 3


def test_all_of_an_ipv6_network_is_one_address_and_a_mapped_address_is_that_of_ipv4():
    admission = Admission(100, per_address=1)
    admission.enter("2001:db8::1")
    for again in ("2001:db8::2", "2001:DB8:0:0:ffff::", "2001:db8::1%eth0"):
        with pytest.raises(HandshakeRefused, match="2001:db8::/64 already has 1"):
            admission.enter(again)
    admission.enter("2001:db8:0:1::1")
    admission.enter("192.0.2.1")
    with pytest.raises(HandshakeRefused):
        admission.enter("::ffff:192.0.2.1")


def test_who_has_no_address_is_not_limited_and_one_that_a_proxy_made_up_is():
    admission = Admission(100, per_address=1)
    for _ in range(5):
        admission.leave(admission.enter(""))
        admission.enter("")
    admission.enter("unknown")
    with pytest.raises(HandshakeRefused, match="unknown already has 1"):
        admission.enter("unknown")


def test_addresses_that_have_left_are_forgotten():
    admission = Admission(100, per_address=3)
    for n in range(1000):
        admission.leave(admission.enter(f"192.0.{n // 250}.{n % 250}"))
    assert not admission._taken_by
    unlimited = Admission(100)
    unlimited.enter("192.0.2.1")
    assert not unlimited._taken_by


def test_many_threads_of_one_address_never_have_more_than_it_may():
    admission, most, lock = Admission(100, per_address=3), [0], threading.Lock()

    def visit():
        for _ in range(300):
            try:
                place = admission.enter("192.0.2.1")
            except HandshakeRefused:
                continue
            with lock:
                most[0] = max(most[0], admission.taken)
            admission.leave(place)

    run_all(*[visit] * 8)
    assert 0 < most[0] <= 3
    assert not admission._taken_by


def test_beyond_the_limits_there_is_one_place_more_until_somebody_has_left():
    admission = Admission(2, per_address=1, beyond=1)
    first = admission.enter("192.0.2.1")
    with pytest.raises(HandshakeRefused, match=r"192\.0\.2\.1 already has 1 sessions") as caught:
        admission.enter("192.0.2.1")
    assert caught.value.status == 429
    again = admission.enter("192.0.2.1", is_beyond=True)
    assert admission.shortage(again).status == 429
    with pytest.raises(HandshakeRefused, match=r"192\.0\.2\.1 already has 1 sessions"):
        admission.enter("192.0.2.1", is_beyond=True)
    third = admission.enter("192.0.2.2", is_beyond=True)
    assert admission.shortage(third).status == 503
    with pytest.raises(HandshakeRefused, match="all 2 places"):
        admission.enter("192.0.2.3", is_beyond=True)
    assert admission.free == 0
    admission.leave(first)
    assert admission.shortage(again) is None
    assert admission.shortage(third) is None
    for network in (again, third):
        admission.leave(network)
    assert (admission.taken, admission._taken_by) == (0, {})
