"""The client of `wsthreads.Client` keeps the promises of ``wsthreads.1`` against the model's server, in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random, SystemRandom
from typing import Any

import pytest

from tests.protocol.model_of_client import ClientWorld, acknowledging_as_often
from tests.protocol.model_of_resume import Violation, play, random_actions, shortest
from wsthreads.client.dialogue import Dialogue


@pytest.fixture(autouse=True)
def _acknowledging_as_often() -> Iterator[None]:
    with acknowledging_as_often():
        yield


@pytest.mark.parametrize("seed", [1, SystemRandom().getrandbits(32)], ids=["1", "fresh"])
def test_random_orders_of_many_events_keep_the_promises(seed: int) -> None:
    random = Random(seed)
    resumed = 0
    for _ in range(500):
        actions = random_actions(random, 150)
        try:
            resumed += play(actions, kind=ClientWorld).resumed
        except Violation:
            found, violation = shortest(actions, kind=ClientWorld)
            names = ", ".join(action.__name__ for action in found)
            pytest.fail(f"seed {seed}: {violation}: {names}")
    assert resumed > 500


def _also(method: Callable[..., Any], extra: Callable[[Dialogue], object]) -> Callable[..., Any]:
    """The method, and something that it must not do."""

    def wrong(self: Dialogue, *arguments: Any) -> Any:
        answer = method(self, *arguments)
        extra(self)
        return answer

    return wrong


def _count(self: Dialogue) -> None:
    self.received += 1


def _forget_one(self: Dialogue) -> None:
    if self._kept:
        self._kept.popleft()


def _drop_unsent(self: Dialogue) -> None:
    self._unsent.remove(lambda _: True)


#: Mistakes in the client: a method, and what is in its place.
SLIPS: dict[str, tuple[str, Callable[[Any], Callable[..., Any]]]] = {
    "acknowledgements are counted": ("_acknowledge", lambda right: _also(right, _count)),
    "what was acknowledged is kept": ("_acknowledge", lambda right: lambda self, count: None),
    "what was lost is not sent again": ("_welcomed", lambda right: _also(right, lambda self: self._again.clear())),
    "what was acknowledged is not forgotten in order": ("heartbeat", lambda right: _also(right, _forget_one)),
    "what waits is dropped with the session": ("_begin", lambda right: _also(right, _drop_unsent)),
    "a reply goes into another session": (
        "_reply",
        lambda right: (
            lambda self, asked, message: right(self, type(asked)(asked.id, asked.data, self.session), message)
        ),
    ),
    "the next session's count goes on": ("_begin", lambda right: _also(right, _count)),
    "no acknowledgement": ("_count", lambda right: lambda self, message: _count(self)),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_mistake_in_the_client_is_found(slip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, wrong = SLIPS[slip]
    monkeypatch.setattr(Dialogue, name, wrong(getattr(Dialogue, name)))
    random = Random(1)
    with pytest.raises(Violation):
        for _ in range(2000):
            play(random_actions(random, 150), kind=ClientWorld)
