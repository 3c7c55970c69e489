"""Fixtures for the tests of what is sent and received."""

from __future__ import annotations

import pytest

from wsthreads._native import speedups
from wsthreads.protocol import fanout, outbox


@pytest.fixture(params=["python"] if speedups is None else ["python", "c"])
def twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both versions of what writes to outboxes."""
    module = speedups if request.param == "c" else None
    monkeypatch.setattr(fanout, "append_all", module.append_all if module else fanout._append_all)
    monkeypatch.setattr(fanout, "lock_queued", module.lock_queued if module else fanout._lock_queued)
    monkeypatch.setattr(fanout, "unlock", module.unlock if module else fanout._unlock)
    monkeypatch.setattr(outbox, "post", module.post if module else outbox._post)
    for each in (fanout, outbox):
        monkeypatch.setattr(each, "send_queues", module.send_queues if module else outbox._send_queues)
    name: str = request.param
    return name
