"""The timer of probes: it runs while there are sessions of a handler with a queue."""

import gc
import os
import traceback

from tests.programs import wait_until
from tests.wire import RawClient, Recorder, endpoint, serving
from wsthreads import WebSocketApp
from wsthreads.sessions import probe_timer
from wsthreads.sessions.probe_timer import ProbeTimer
from wsthreads.testing import play
from wsthreads.testing.timers import ManualTimers

SCRIPT = "export function onMessage(session, message) { session.send(message); }"


class Queued:
    has_queue = True
    probes = 0

    def probe(self):
        self.probes += 1


class World:
    def __init__(self, sessions=None):
        self.handler, self.timers = Queued(), ManualTimers()
        self.sessions = [] if sessions is None else sessions
        self.timer = ProbeTimer(self.handler, self.sessions, self.timers)

    def begin(self):
        self.sessions.append("session")
        self.timer.session_begins()

    def probes_in(self, seconds):
        before = self.handler.probes
        self.timers.advance(seconds, between=lambda: None)
        return self.handler.probes - before


def test_it_runs_from_the_first_session_to_the_last():
    world = World()
    assert world.probes_in(5) == 0
    world.begin()
    world.begin()
    assert world.probes_in(5) == 5, "one a second, however many sessions there are"
    world.sessions.pop()
    assert world.probes_in(5) == 5
    world.sessions.pop()
    assert world.probes_in(5) == 0
    world.begin()
    assert world.probes_in(5) == 5


def test_a_session_that_begins_as_the_timer_ends_is_not_forgotten():
    world = World()

    class Late(list):
        """Empty at the first look, and at the next a session has come that met the running timer."""

        def __len__(self):
            if not self.looks:
                self.looks = 1
                world.timer.session_begins()
                return 0
            return 1

    late = Late()
    late.looks = 1
    world.timer = ProbeTimer(world.handler, late, world.timers)
    world.timer.session_begins()
    late.looks = 0
    assert world.probes_in(1) == 0
    assert world.probes_in(3) == 3


def test_it_begins_again_in_a_forked_process_and_keeps_nothing_alive():
    world = World()
    world.begin()
    world.timers = world.timer._flusher = ManualTimers()  # the child's has none of the parent's timers
    world.timer.renew()
    world.timer.session_begins()
    assert world.probes_in(2) == 2
    world.timer = None
    gc.collect()
    assert world.probes_in(2) == 0


def test_handlers_in_python_have_none():
    with endpoint(Recorder()) as (app, port), RawClient(port):
        it = app.endpoint("/ws/test")
        wait_until(it.session_count)
        assert not it._service.probe_timer._running.locked()
        assert it.totals().script_waits is None
        assert it.totals().script_wait_max_s is None


def test_a_script_is_probed_while_it_has_sessions(tmp_path, monkeypatch):
    monkeypatch.setattr(probe_timer, "INTERVAL_S", 0.02)
    file = tmp_path / "chat.js"
    file.write_text(SCRIPT)
    app = WebSocketApp(ping_interval_s=0)
    it = app.add_script("/ws/test", file)
    with serving(app) as port:
        running = it._service.probe_timer._running
        assert not running.locked()
        assert it.totals().script_waits is None
        with RawClient(port):
            wait_until(lambda: it.totals().script_waits)
            assert 0 < it.totals().script_wait_p50_s <= it.totals().script_wait_max_s
            assert "script_wait" not in it.totals().handler_seconds
            child = os.fork()
            if child == 0:
                try:
                    assert not it._service.probe_timer._running.locked()
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert running.locked()
        wait_until(lambda: not running.locked())


def test_the_clock_of_a_test_moves_no_probes(tmp_path):
    file = tmp_path / "chat.js"
    file.write_text(SCRIPT)
    with play(file) as game:
        game.connect()
        game.advance(1_000_000)
        waits = game.app.endpoints[0].totals().script_waits
        assert waits is None or waits.count < 1000
