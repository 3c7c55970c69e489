"""Fixtures for the tests of rooms over Redis. `redis_server` is one for all tests, which none of them may break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.redis_proxy import Proxy
from tests.redis_server import RedisServer
from tests.room_worlds import RedisWorld, be_patient


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For all tests, also those of a broken Redis until they break it: see `be_patient`."""
    be_patient(monkeypatch)


@pytest.fixture
def impatient(patient: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """From its call on, Redis counts as away after a second without an answer, as it does for users, or `wait_s`."""
    return partial(be_patient, monkeypatch, wait_s=1.0)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis of the test's own, which it may break."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """A proxy in front of the Redis of all tests."""
    with Proxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def worlds() -> Iterator[Callable[..., RedisWorld]]:
    """Makes worlds of one process, and ends them."""
    made: list[RedisWorld] = []

    def make(url: str, **options: Any) -> RedisWorld:
        made.append(RedisWorld(url, **{"processes": 1, **options}))
        return made[-1]

    yield make
    for world in made:
        world.end()
