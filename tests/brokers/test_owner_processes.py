"""A room's owner in servers that are processes of their own: they are killed, stopped, cut off, and restarted.

The handler writes each of its calls into one file, when it is made, with its fencing number.
"""

import json
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.exceptions import WebSocketException

from tests.ports import free_port
from tests.programs import DEADLINE_S, ROOT, Program, connect, receive, run_server, wait_until
from tests.redis_proxy import Proxy

#: A room has another owner after this time, which is the promise.
TAKEN_S = 3.0

#: In a restart that is told beforehand.
MOVED_S = 1.0

#: Longer than any lease, and than any wait for Redis.
AWAY_S = 10.0

HANDLER = '''
import json
import os
import time

from wsthreads import BrokerError, PostError, RoomStateError

calls = os.open(os.environ["CALLS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
tick_rate = 20


def note(room, what):
    os.write(calls, f"{time.monotonic_ns()} {os.getpid()} {room.fencing_number} {what}\\n".encode())


def on_open(session):
    session.room("game").join()
    session.send(str(os.getpid()))


def on_message(session, message):
    """Post so many values, one after the other; tell what has become of each."""
    name, count = json.loads(message)
    room = session.room("game")
    told = []
    for number in range(count):
        try:
            room.post([name, number])
        except PostError as error:
            told.append("unknown" if error.is_unknown else "refused")
        else:
            told.append("handled")
    session.send(json.dumps(told))


def on_room_start(room):
    note(room, "start")


def on_room_end(room):
    try:
        room.set_attribute("saved by", room.fencing_number)
    except (RoomStateError, BrokerError):
        note(room, "end refused")
    else:
        note(room, "end")


def on_tick(room, dt):
    note(room, "tick")


def on_post(room, value, sender):
    note(room, f"post {value[0]} {value[1]}")
'''


class Call(NamedTuple):
    at: float
    pid: int
    fence: int
    what: str


class Calls:
    """The file of all calls."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self):
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        fields = [line.split(" ", 3) for line in lines]
        return sorted(Call(int(at) / 1e9, int(pid), int(fence), what) for at, pid, fence, what in fields)

    def ticks(self, since=0.0):
        return [call for call in self.read() if call.what == "tick" and call.at > since]

    def wait_owner(self, *but):
        """The process that ticks now, and is none of these, and its first tick."""
        began = time.monotonic()
        tick = wait_until(lambda: next((tick for tick in self.ticks(began) if tick.pid not in but), None), "ticks")
        return tick.pid

    def check_one_owner(self):
        """Numbers only grow, and each is of one process: nobody does anything that is not the owner then."""
        # What is lost may end while another one begins.
        calls = [call for call in self.read() if not call.what.startswith("end")]
        fences = [call.fence for call in calls]
        assert fences == sorted(fences)
        assert len({(call.fence, call.pid) for call in calls}) == len(set(fences))
        for fence in set(fences):
            assert [call.what for call in calls if call.fence == fence].count("start") == 1


@pytest.fixture
def calls(tmp_path, monkeypatch):
    (tmp_path / "game.py").write_text(HANDLER)
    calls = Calls(tmp_path / "calls")
    monkeypatch.setenv("CALLS", str(calls.path))
    return calls


@pytest.fixture
def start(tmp_path, calls):
    """Start a server with one member in the room."""
    with ExitStack() as stack:

        def start(url):
            server = stack.enter_context(run_server("game.py", "--redis", url, cwd=tmp_path))
            server.member = stack.enter_context(connect(server.ws_url + "/ws/game"))
            server.pid = int(receive(server.member))
            return server

        yield start


@pytest.mark.quiet  # the lease lasts for 2.6 s of the 3 s
def test_an_owner_that_is_stopped_cut_off_or_killed_is_followed_in_time_and_ticks_no_more(redis, calls, start):
    with ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(redis.port)) for _ in range(3)]
        servers = {server.pid: server for server in (start(proxy.url) for proxy in proxies)}
        proxy_of = dict(zip(servers, proxies, strict=True))
        first = calls.wait_owner()

        os.kill(first, signal.SIGSTOP)
        stopped_at = time.monotonic()
        second = calls.wait_owner(first)
        assert calls.ticks(stopped_at)[0].at - stopped_at < TAKEN_S

        proxy_of[second].swallow()
        cut_at = time.monotonic()
        third = calls.wait_owner(first, second)
        taken = [tick for tick in calls.ticks(cut_at) if tick.pid == third]
        assert taken[0].at - cut_at < TAKEN_S

        time.sleep(max(0.0, cut_at + AWAY_S - time.monotonic()))
        os.kill(first, signal.SIGCONT)
        proxy_of[second].heal()
        back_at = time.monotonic()
        wait_until(lambda: len(calls.ticks(back_at)) > 40)
        assert {tick.pid for tick in calls.ticks(back_at)} == {third}

        servers[third].process.kill()
        killed_at = time.monotonic()
        wait_until(lambda: calls.ticks(killed_at + 0.1), "ticks")
        assert calls.ticks(killed_at + 0.1)[0].at - killed_at < TAKEN_S
        calls.check_one_owner()
        ended = {(call.pid, call.what) for call in calls.read() if call.what.startswith("end")}
        assert ended == {(first, "end refused"), (second, "end refused")}, "it is too late to save anything"


@pytest.mark.long
def test_no_post_of_many_is_handled_twice_and_each_that_is_lost_is_known(redis, calls, start):
    """Four processes post 10,000 values; a fifth one, which posts, too, is the owner and is killed."""
    others, posters, count, in_order = 4, 4, 625, {}
    servers = {server.pid: server for server in (start(redis.url) for _ in range(1 + others))}
    owner = calls.wait_owner()
    told, threads = {}, []

    def post(server, name):
        with suppress(WebSocketException, OSError), connect(server.ws_url + "/ws/game") as client:
            receive(client)
            client.send(json.dumps([name, count]))
            told[name] = json.loads(client.recv(timeout=12 * DEADLINE_S))

    for pid, server in servers.items():
        for n in range(posters):
            threads.append(threading.Thread(target=post, args=(server, f"{pid}-{n}")))
            threads[-1].start()

    def posted():
        return [call.what.split()[1:] for call in calls.read() if call.what.startswith("post")]

    wait_until(lambda: len(posted()) > count)
    servers[owner].process.kill()
    for thread in threads:
        thread.join(12 * DEADLINE_S)
    handled = defaultdict(list)
    for name, number in posted():
        handled[name].append(int(number))
    assert len(told) == others * posters, "those of the servers that live"
    for name, numbers in handled.items():
        assert len(set(numbers)) == len(numbers), "none twice"
        assert numbers == sorted(numbers), "in its poster's order"
        in_order[name] = numbers
    unknown = 0
    for name, outcomes in told.items():
        for number, outcome in enumerate(outcomes):
            if outcome != "unknown":
                assert (number in in_order[name]) == (outcome == "handled")
            unknown += outcome == "unknown"
    assert unknown <= others * posters, "only what the dead owner had"
    assert sum(len(outcomes) for outcomes in told.values()) == others * posters * count == 10_000
    calls.check_one_owner()
    print(f"{unknown} unknown, {sum(map(len, handled.values()))} handled")


@pytest.mark.quiet  # the pause is told from the lease, which lasts for 2.6 s
def test_a_server_that_ends_hands_its_rooms_over(redis, calls, start):
    servers = {server.pid: server for server in (start(redis.url) for _ in range(2))}
    first = calls.wait_owner()
    servers[first].process.send_signal(signal.SIGTERM)
    second = calls.wait_owner(first)
    last = [tick for tick in calls.ticks() if tick.pid == first][-1]
    began = next(tick for tick in calls.ticks() if tick.pid == second)
    assert began.at - last.at < MOVED_S
    kinds = [(call.pid, call.what) for call in calls.read() if call.what != "tick"]
    assert kinds == [(first, "start"), (first, "end"), (second, "start")]
    calls.check_one_owner()


@pytest.mark.quiet  # the pause is told from the lease, which lasts for 2.6 s
def test_a_restart_of_all_workers_is_a_short_pause(redis, calls, tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-k", "wsthreads.gunicorn.ThreadWorker", "--threads", "20", "-w", "2"]
    command += ["-b", f"127.0.0.1:{port}", f'wsthreads:create_app("game.py", redis="{redis.url}")']
    with Program(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}) as server:
        server.wait_for("Booting worker", times=2)
        is_over, joined = threading.Event(), []

        def stay(n):
            while not is_over.is_set():
                with suppress(WebSocketException, OSError), connect(f"ws://127.0.0.1:{port}/ws/game") as client:
                    joined.append((time.monotonic(), n, int(receive(client))))
                    while not is_over.is_set():
                        with suppress(TimeoutError):
                            client.recv(timeout=0.1)

        threads = [threading.Thread(target=stay, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: len({n for _, n, _ in joined}) == 4)
            old = {pid for _, _, pid in joined}
            calls.wait_owner()
            server.process.send_signal(signal.SIGHUP)
            new = calls.wait_owner(*old)
            server.wait_for("Worker exiting", times=2)
            began = time.monotonic()
            wait_until(lambda: len(calls.ticks(began)) > 10)
            assert new not in old
            ended = max(call.at for call in calls.read() if call.what == "end")
            back = min(at for at, _, pid in joined if pid not in old)  # the workers boot before that
            began = min(tick.at for tick in calls.ticks() if tick.pid not in old)
            assert began - max(ended, back) < MOVED_S
            calls.check_one_owner()
        finally:
            is_over.set()
            for thread in threads:
                thread.join(DEADLINE_S)
