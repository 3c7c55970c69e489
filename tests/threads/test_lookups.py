from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import perf_counter
from typing import Any

import pytest

from tests.programs import DEADLINE_S
from wsthreads import Request
from wsthreads.threads.lookups import look_up

NAMES = [f"name{number}" for number in range(100)]


def made_dict() -> dict[tuple[str, str], int]:
    """Each has equal keys, not the same ones."""
    return {("/ws/chat", f"name{number}"): number for number in range(100)}


def made_request() -> Request:
    query = "&".join(f"name{number}=x" for number in range(100))
    request = Request({"QUERY_STRING": query, **{f"HTTP_NAME{number}": "x" for number in range(100)}})
    assert request.parameters
    return request


@contextmanager
def made_by_another_thread(make: Callable[[], Any]) -> Iterator[Any]:
    """Objects belong to a thread as long as it runs."""
    theirs: list[Any] = []
    made, over = Event(), Event()

    def run() -> None:
        theirs.append(make())
        made.set()
        over.wait(DEADLINE_S)

    other = Thread(target=run)
    other.start()
    try:
        assert made.wait(DEADLINE_S)
        yield theirs[0]
    finally:
        over.set()
        other.join(DEADLINE_S)


def best_s(look: Callable[[str], object]) -> float:
    """How long it takes to look up all names, at best."""
    best = float("inf")
    for _ in range(50):
        began = perf_counter()
        for name in NAMES:
            look(name)
        best = min(best, perf_counter() - began)
    return best


def test_it_finds_a_value_or_else_the_default() -> None:
    values = made_dict()
    assert look_up(values, ("/ws/chat", "name7")) == 7
    assert look_up(values, ("/ws/chat", "none")) is None
    assert look_up(values, ("/ws/chat", "none"), 0) == 0


@pytest.mark.parametrize(
    ("make", "look"),
    [
        (made_dict, lambda values, name: look_up(values, ("/ws/chat", name))),
        (made_request, Request.get_parameter),
        (made_request, Request.get_header),
    ],
    ids=["look_up", "get_parameter", "get_header"],
)
def test_a_key_of_another_thread_costs_about_the_same(make: Callable[[], Any], look: Callable[[Any, str], Any]) -> None:
    """Without a GIL, `dict.get` takes a hundred times as long in CPython 3.13."""
    ours = make()
    with made_by_another_thread(make) as theirs:
        assert look(theirs, "name7") is not None
        assert best_s(lambda name: look(theirs, name)) < 10 * best_s(lambda name: look(ours, name))
