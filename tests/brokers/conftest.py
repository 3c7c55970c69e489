"""Fixtures for the tests of rooms over Redis. `redis_server` is one for all tests, which none of them may break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.redis_proxy import Proxy
from tests.redis_server import RedisServer
from tests.room_worlds import RedisWorld, be_patient


@pytest.fixture
def impatient() -> None:
    """After a second without an answer, Redis counts as away, as it does for users: for tests in which it hangs."""


@pytest.fixture(autouse=True)
def patient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all tests but those which use `impatient`: see `be_patient`."""
    if "impatient" not in request.fixturenames:
        be_patient(monkeypatch)


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
