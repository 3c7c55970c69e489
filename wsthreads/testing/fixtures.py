"""pytest fixtures: put ``pytest_plugins = ["wsthreads.testing.fixtures"]`` into conftest.py.

The fixtures are not loaded automatically. So the installation of wsthreads does not change other tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from wsthreads import testing
from wsthreads.servers.serving import Server
from wsthreads.testing import Play

__all__ = ["live_server", "play"]


@pytest.fixture
def play() -> Iterator[Callable[..., Play]]:
    """``chat = play("chat.js")``: `wsthreads.testing.play`, ended with the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(testing.play(*arguments, **options))


@pytest.fixture
def live_server() -> Iterator[Callable[..., Server]]:
    """``server = live_server("chat.js")``: `wsthreads.testing.live_server`, stopped with the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(testing.live_server(*arguments, **options))
