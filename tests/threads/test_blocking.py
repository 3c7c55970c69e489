"""Which threads may wait for a queue."""

from importlib.util import find_spec

import pytest

from wsthreads.threads.blocking import LOCKING


@pytest.mark.parametrize("module", LOCKING)
def test_the_modules_that_a_finalizer_may_interrupt_are_there(module):
    """They are known by their names: whoever moves one finds out here."""
    assert find_spec(module) is not None
