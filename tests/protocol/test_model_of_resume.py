"""The protocol ``wsthreads.1`` as docs/reference/protocol.rst has it keeps its promises, in all orders of events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random, SystemRandom
from typing import Any

import pytest

from tests.protocol.model_of_resume import (
    Fault,
    Limits,
    Violation,
    World,
    explore,
    pack,
    play,
    random_actions,
    shortest,
    unpack,
)
from wsthreads.protocol import envelope

#: Small worlds, each with what is special about it.
SMALL = {
    "both sides send, and a connection breaks": Limits(sends=1, server_sends=1, connects=2, breaks=1),
    "connections overtake each other": Limits(sends=1, server_sends=1, connects=3),
    "a request of the client": Limits(asks=1, connects=2, breaks=1),
    "a request of the server": Limits(server_asks=1, connects=2, breaks=1),
    "the newest value only": Limits(latest=2, connects=2),
    "the window ends": Limits(sends=2, connects=3, ends=1),
    "the application closes": Limits(sends=1, connects=2, breaks=1, kicks=1),
    "a handshake is refused": Limits(sends=1, connects=3, refusals=1),
}


@pytest.mark.parametrize("name", SMALL)
def test_all_orders_of_a_few_events_keep_the_promises(name: str) -> None:
    assert explore(SMALL[name].copy()) > 100


@pytest.mark.parametrize("seed", [1, 2, SystemRandom().getrandbits(32)], ids=["1", "2", "fresh"])
def test_random_orders_of_many_events_keep_the_promises(seed: int) -> None:
    random = Random(seed)
    resumed = 0
    for _ in range(700):
        actions = random_actions(random, 150)
        try:
            resumed += play(actions).resumed
        except Violation:
            found, violation = shortest(actions)
            names = ", ".join(action.__name__ for action in found)
            pytest.fail(f"seed {seed}: {violation}: {names}")
    assert resumed > 700


def test_what_a_superseded_connection_has_delivered_is_not_replaced_when_an_older_hello_comes_late() -> None:
    """This order showed that "the counts have been exchanged since" is not enough to replace a message."""
    actions = [
        *(World.client_connects, World.to_server_0, World.to_client),
        World.server_sends_latest,
        *(World.client_connects, World.client_connects, World.to_server_2),  # the second hello overtakes the first
        *(World.server_writes, World.to_server_0),
        World.server_sends_latest,
    ]
    play(actions)
    with pytest.raises(Violation):
        play(actions, Fault.REPLACE_AFTER_RESUME)


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.REPLACE_AFTER_RESUME])
def test_a_mistake_in_the_rules_is_found(fault: Fault) -> None:
    random = Random(1)
    for _ in range(3000):
        actions = random_actions(random, 150)
        try:
            play(actions, fault)
        except Violation:
            found, _ = shortest(actions, fault)
            play(found)  # without the mistake, they do no harm
            return
    pytest.fail("not found")


@pytest.fixture
def no_cache() -> Iterator[None]:
    for function in (pack, unpack):
        function.cache_clear()
    yield
    for function in (pack, unpack):
        function.cache_clear()


#: Mistakes in the grammar: a function of `envelope`, and what it becomes.
SLIPS: dict[str, tuple[str, Callable[[Any], Callable[..., Any]]]] = {
    "no message is escaped": ("escaped", lambda right: lambda message: message),
    "acknowledgements are counted": ("is_counted", lambda right: lambda frame: True),
    "replies are not counted": ("is_counted", lambda right: lambda frame: right(frame) and b"\x10r" not in frame[:4]),
    "the hello's count is one too many": ("hello", lambda right: lambda token=None, count=0: right(token, count + 1)),
    "binary requests arrive as text": ("request", lambda right: lambda number, data: right(number, _text(data))),
}


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize("slip", SLIPS)
def test_a_mistake_in_the_grammar_is_found(slip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, wrong = SLIPS[slip]
    monkeypatch.setattr(envelope, name, wrong(getattr(envelope, name)))
    random = Random(1)
    with pytest.raises(Violation):
        for _ in range(1000):
            play(random_actions(random, 150))


def _text(data: str | bytes) -> str:
    return data if isinstance(data, str) else data.decode()
