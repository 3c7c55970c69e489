from __future__ import annotations

from threading import Event, Thread
from time import perf_counter

from tests.programs import DEADLINE_S
from wsthreads.threads.lookups import look_up

KEYS = [("/ws/chat", f"room {number}") for number in range(100)]


def made_here() -> dict[tuple[str, str], int]:
    """Has equal keys, not the same ones."""
    return {("/ws/chat", f"room {number}"): number for number in range(100)}


def best_s(rooms: dict[tuple[str, str], int]) -> float:
    """How long it takes to look up all keys, at best."""
    best = float("inf")
    for _ in range(50):
        began = perf_counter()
        for key in KEYS:
            look_up(rooms, key)
        best = min(best, perf_counter() - began)
    return best


def test_it_finds_a_value_or_else_the_default() -> None:
    rooms = made_here()
    assert look_up(rooms, ("/ws/chat", "room 7")) == 7
    assert look_up(rooms, ("/ws/chat", "no room")) is None
    assert look_up(rooms, ("/ws/chat", "no room"), 0) == 0


def test_a_key_of_another_thread_costs_about_the_same() -> None:
    """Without a GIL, `dict.get` takes a hundred times as long in CPython 3.13."""
    theirs: list[dict[tuple[str, str], int]] = []
    made, over = Event(), Event()

    def make() -> None:
        theirs.append(made_here())
        made.set()
        over.wait(DEADLINE_S)  # while it runs, the keys are its own

    other = Thread(target=make)
    other.start()
    assert made.wait(DEADLINE_S)
    try:
        assert best_s(theirs[0]) < 10 * best_s(made_here())
    finally:
        over.set()
        other.join(DEADLINE_S)
