"""The delays between a client's attempts to connect."""

from __future__ import annotations

import math

import pytest
from wsproto.events import RejectConnection

from tests.client.fake_server import FakeServer
from tests.programs import wait_until
from wsthreads.client.failures import retry_after_of
from wsthreads.client.retries import Retries


def retries(max_attempts: int | None = None, *, has_source: bool = False) -> Retries:
    return Retries(1.0, 30.0, max_attempts, has_source, random=lambda: 0.5)


def test_delays_double_up_to_the_longest_and_are_random_in_their_upper_half() -> None:
    made = retries()
    assert [made.after_close(1006) for _ in range(7)] == [0.75, 1.5, 3.0, 6.0, 12.0, 22.5, 22.5]
    made.stable()
    assert made.after_close(1006) == 0.75


@pytest.mark.parametrize(("asked", "delay"), [(0, 0.75), (5, 5.75), (1000, 30.75)])
def test_the_wait_that_a_server_asks_for_is_added_up_to_the_longest_delay(asked: float, delay: float) -> None:
    """So that not all refused clients come back at the same moment."""
    assert retries().after_refusal(503, asked) == delay


@pytest.mark.parametrize(("left", "delay"), [(60, 5.75), (6, 3.75), (0, 5.75)])
def test_the_wait_ends_before_the_session(left: float, delay: float) -> None:
    assert retries().after_refusal(503, 5, left) == delay


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_wait_does_not_make_a_mistake_temporary(status: int) -> None:
    assert retries().after_refusal(status, 5) is None
    assert retries(has_source=True).after_refusal(status, 5) == 5.75


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"7", 7), (b"0", 0), (b"", 0), (b"-1", 0), (b"1.5", 0), (b"Wed, 21 Oct 2026 07:28:00 GMT", 0), (b"9" * 400, 0)],
)
def test_retry_after_is_a_number_of_seconds(value: bytes, seconds: float) -> None:
    assert retry_after_of(RejectConnection(503, [(b"retry-after", value)])) == seconds
    assert retry_after_of(RejectConnection(503, [])) == 0


def test_a_client_heeds_retry_after(server: FakeServer, connect, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []
    after = Retries.after_refusal

    def note(self: Retries, status: int, retry_after_s: float, left_s: float) -> float | None:
        asked.append((retry_after_s, left_s))
        return after(self, status, retry_after_s, left_s)

    monkeypatch.setattr(Retries, "after_refusal", note)
    client = connect(max_delay_s=0.02)
    server.next().refuse(503, "full", retry_after="7")
    peer = server.welcomed()
    assert asked == [(7.0, math.inf)]
    wait_until(lambda: client.session_id, "the welcome to arrive")
    peer.cut()
    server.next().refuse(503, "full", retry_after="7")
    server.welcomed()
    assert asked[1][0] == 7
    assert 0 < asked[1][1] <= 60, "the session is kept for a minute"
