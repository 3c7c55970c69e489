"""How long calls of a script wait for others: probes in the queue of its isolate."""

from __future__ import annotations

from pathlib import Path
from threading import Event

from tests.javascript_fakes import FakeSession, Script, running
from tests.programs import DEADLINE_S, wait_until
from tests.wire import run_all
from wsthreads.javascript import probes
from wsthreads.javascript.schedule import Schedule
from wsthreads.javascript.session_state import Event as PostedEvent
from wsthreads.monitoring.metrics import Metrics

#: The first `send` is where the test posts probes: in the isolate's thread, in the midst of a call.
BUSY = """
export function onMessage(session, message) {
  session.send("now");
  const end = Date.now() + Number(message);
  while (Date.now() < end);
}
"""


class Probing(FakeSession):
    """Posts probes whenever the script sends."""

    def __init__(self, script: Script, times: int = 1) -> None:
        super().__init__()
        self._script, self._times = script, times

    def send(self, message: str | bytes) -> bool:
        for _ in range(self._times):
            self._script.handler.probe()
        return bool(super().send(message))


def waits_of(script: Script) -> int:
    script.handler.settle(DEADLINE_S)
    found = script.metrics.distributions().get("script_wait")
    return 0 if found is None else found.count


def test_a_probe_waits_for_the_call_before_it(tmp_path: Path) -> None:
    with running(tmp_path, BUSY) as script:
        assert script.handler.recent_waits() is None
        session = script.open(Probing(script))
        script.answer(session, "300")
        assert waits_of(script) == 1
        assert script.metrics.distributions()["script_wait"].total_s > 0.25
        for _ in range(2):
            script.handler.probe()
            script.handler.settle(DEADLINE_S)
        median_s, longest_s = script.handler.recent_waits() or (0.0, 0.0)
        assert longest_s > 0.25
        assert 0 < median_s < longest_s


def test_a_probe_does_not_wait_for_promises(tmp_path: Path) -> None:
    source = "export async function onMessage(s) { s.send('held'); await new Promise(() => {}); }"
    with running(tmp_path, source, script_timeout_s=DEADLINE_S) as script:
        session = script.open()
        script.answer(session)
        script.handler.probe()
        wait_until(script.handler.recent_waits)
        script.handler.stop(0)


def test_waits_are_recent_for_a_minute(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    with running(tmp_path, BUSY) as script:
        script.handler.probe()
        assert waits_of(script) == 1
        assert script.handler.recent_waits() is not None
        monkeypatch.setattr(probes, "RECENT_S", 0.0)
        assert script.handler.recent_waits() is None
        assert waits_of(script) == 1


def test_few_probes_wait_at_once(tmp_path: Path) -> None:
    with running(tmp_path, BUSY) as script:
        session = script.open(Probing(script, times=2 * probes.MAX_WAITING))
        script.answer(session, "0")
        assert waits_of(script) == probes.MAX_WAITING
        script.handler.probe()
        assert waits_of(script) == probes.MAX_WAITING + 1


def test_probes_outlive_reloads_and_restarts(tmp_path: Path) -> None:
    script = Script(tmp_path, BUSY)
    script.handler.probe()  # not started yet
    assert script.handler.recent_waits() is None
    script.handler.start()
    try:
        script.handler.probe()
        script.handler.reload()
        script.handler.probe()
        assert waits_of(script) == 2
        script.handler.stop(DEADLINE_S)
        script.handler.probe()  # it has ended
        script.handler.start()
        script.handler.probe()
        assert waits_of(script) == 3
    finally:
        script.handler.stop(DEADLINE_S)


def test_any_thread_may_ask_for_recent_waits_while_probes_are_taken() -> None:
    """Without a GIL, a deque cannot be copied while another thread appends to it."""
    made, over = probes.Probes(Schedule(), Metrics()), Event()
    probe = PostedEvent("measure", None, (0.0,))

    def take() -> None:
        while not over.is_set():
            made.take(probe)

    def ask() -> None:
        try:
            for _ in range(500):
                made.recent()
        finally:
            over.set()

    run_all(take, ask)
    assert made.recent() is not None
