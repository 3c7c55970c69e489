"""A finalizer runs wherever the garbage collector does: in any thread, under any lock of ours."""

import os
import subprocess
import sys
import textwrap
import threading

import pytest

from tests.programs import PROGRAM_S, ROOT
from tests.room_worlds import World
from tests.wire import run_all
from wsthreads.rooms import sending

#: At each line of ours, for the first times that it is run, what a finalizer may do is done.
PROGRAM = """
import os, sys, threading, time
from collections import Counter
from pathlib import Path
import wsthreads
from tests.programs import DEADLINE_S
from tests.wire import RawClient, Recorder, endpoint, run_all, self_signed
from wsthreads import RedisBroker

FOLDER = str(Path(wsthreads.__file__).parent)
visits, here, finalized = Counter(), threading.local(), []
sessions, victims = [], []

def finalize():
    for session in (*sessions, *victims):
        session.send("gone")
        session.rooms()
        session.is_open()
        session.attributes["gone"] = session.request_path, session.user
        session.endpoint.session_count
        session.room("here")
    for session in victims:
        session.close(4001)
    app.metrics.add("finalized")
    finalized.append(True)

def trace(frame, event, argument):
    code = frame.f_code
    if not code.co_filename.startswith(FOLDER):
        return None
    if event == "line" and not getattr(here, "is_busy", False):
        place = (code.co_filename, frame.f_lineno)
        visits[place] += 1
        if visits[place] <= 5:
            here.is_busy = True
            finalize()
            here.is_busy = False
    return trace

class Handler(Recorder):
    def on_message(self, session, message):
        room = session.room("here")
        for n in range(int(message)):
            room.join()
            room.broadcast(f"{n}")
            session.send(f"{n}")
            room.members()
            room.leave()
        session.send("end")

broker = RedisBroker(sys.argv[2]) if sys.argv[1] == "redis" else None
ours, theirs = self_signed(Path(sys.argv[2])) if sys.argv[1] == "tls" else (None, None)
handler = Handler()
threading.settrace(trace)
with endpoint(handler, ssl_context=ours, broker=broker) as (app, port):
    def talk(client):
        client.text("20")
        while client.receive_text() != "end":
            pass

    def come_and_go():
        for n in range(10):
            with RawClient(port, tls=theirs) as client:
                victims[:] = [handler.session()]
                victims[0].room("here").join()
                victims[0].send("so")
                victims[0].close(4000)
                client.receive_close()
                client.send(8)
                handler.close()

    clients = [RawClient(port, tls=theirs) for _ in range(3)]
    sessions[:] = [handler.session() for _ in clients]
    run_all(*[lambda client=client: talk(client) for client in clients], come_and_go)
    deadline = time.monotonic() + DEADLINE_S
    while (counted := app.metrics.snapshot()["finalized"]) != len(finalized):  # a thread may be between the two
        assert time.monotonic() < deadline, (counted, len(finalized))
        time.sleep(0.01)
    threading.settrace(None)
print("end", len(finalized), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("over", ["memory", "redis", "tls"])
@pytest.mark.parametrize("pure", ["", "1"])
def test_finalizers_send_ask_and_close_at_any_allocation(request, over, pure, tmp_path):
    where = request.getfixturevalue("redis_server").url if over == "redis" else tmp_path
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), over, where]
    environ = {**os.environ, "WSTHREADS_PURE_PYTHON": pure}
    result = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=PROGRAM_S)
    assert result.stdout.startswith("end "), result.stderr


class Farewell:
    def __init__(self, session):
        self.session = session

    def __del__(self):
        self.session.send("gone")


def test_a_finalizer_amid_a_broadcast_does_not_wait_for_the_client_of_its_thread_s_session(monkeypatch):
    world = World()
    member, other = world.member(), world.member("lobby")
    while not member.outbox.is_blocked:
        member.session.send("x" * 65536)
    member.outbox.max_bytes = 1
    victims = [Farewell(member.session)]

    def append_all(*arguments, append_all=sending.append_all):
        victims.clear()
        return append_all(*arguments)

    def broadcast():
        member.session._thread = threading.get_ident()
        member.session._wait_s = 1000.0
        monkeypatch.setattr(sending, "append_all", append_all)
        world.rooms.room("lobby").broadcast("on")

    run_all(broadcast)
    assert other.receive(1) == ["on"]
    world.end()
