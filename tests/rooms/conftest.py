"""Fixtures for the tests of rooms."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture
def seed() -> Iterator[int]:
    """A seed, which the report of a failure shows. Threads take turns much more often, so that races are met."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield seed
    sys.setswitchinterval(interval)
