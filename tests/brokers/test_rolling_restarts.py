"""Workers of gunicorn restart again and again while clients send and receive: nobody loses anything.

By default this takes some seconds. WSTHREADS_ROLLING_S and WSTHREADS_ROLLING_CLIENTS make it as long, and as large, as
it is to be.
"""

import itertools
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.programs import DEADLINE_S, PROGRAM_S, Program, wait_until
from tests.redis_proxy import Proxy
from tests.redis_server import RedisServer
from wsthreads import Client, RedisBroker
from wsthreads.errors import SessionClosed

SECONDS = float(os.environ.get("WSTHREADS_ROLLING_S", "6"))
CLIENTS = int(os.environ.get("WSTHREADS_ROLLING_CLIENTS", "12"))

#: Seconds between two restarts, and between two messages of a client.
PAUSE_S = 3.0
TALK_S = max(0.1, CLIENTS / 200)

#: How long an old worker may take to end.
GRACE_S = 30

#: Clients in a room.
ROOM = 6


class Workers(Program):
    """gunicorn with some workers, and what its handler has noted."""

    def __init__(self, redis, folder, workers, *options, worker="wsthreads.gunicorn.ThreadWorker"):
        self.calls_file = folder / "calls"
        self.calls_file.touch()
        self.log_file = folder / "calls.log"
        self.log_file.touch()
        options = ["-k", worker, "--threads", str(CLIENTS + 50), "-w", str(workers), *options]
        options += ["--bind", "127.0.0.1:0", "--graceful-timeout", str(GRACE_S), "tests.rolling_app:app"]
        environment = {"CALLS": str(self.calls_file), "REDIS_URL": redis.url if redis else ""}
        super().__init__([sys.executable, "-m", "gunicorn", *options], env=environment)
        self.port = int(self.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        self.workers, self.restarts = workers, 0
        self.wait_for("Booting worker with pid", times=workers)

    def restart(self):
        self.restarts += 1
        self.process.send_signal(signal.SIGHUP)
        self.wait_for("Hang up: Master", times=self.restarts)  # two signals at once would be one

    def check_log(self):
        for log in (self.log, self.log_file.read_text()):
            assert "Traceback" not in log, log

    def is_calm(self):
        """Whether the last old worker has ended: no client will have to come back any more."""
        begun, ended = self.log.count("Booting worker"), self.log.count("Worker exiting")
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return begun >= self.workers * (self.restarts + 1) and begun - ended == len(children) == self.workers

    def wait_calm(self):
        deadline = time.monotonic() + GRACE_S + DEADLINE_S
        while not self.is_calm():
            assert time.monotonic() < deadline, "an old worker does not end"
            time.sleep(0.1)

    def lines(self, *words):
        """Of the workers' log, the lines with one of these words."""
        return "\n".join(line for line in self.log_file.read_text().splitlines() if any(word in line for word in words))

    def calls(self):
        """By session: what the handler's functions were called for, in order."""
        found = {}
        for line in self.calls_file.read_text().splitlines():
            what, session, _, *more = line.split(maxsplit=4)
            found.setdefault(session, []).append(" ".join([what, *more]))
        return found


class Talker:
    """A client that counts aloud, and keeps what it hears."""

    def __init__(self, port, number, stopping):
        self.name, room = f"c{number}", f"room-{number // ROOM}"
        self.client = Client(
            f"ws://127.0.0.1:{port}/ws?name={self.name}&room={room}", min_delay_s=0.05, max_delay_s=1.0
        )
        self.stopping, self.sent, self.heard, self.opened = stopping, 0, [], 0
        self.threads = [threading.Thread(target=each, daemon=True) for each in (self.talk, self.listen)]
        for thread in self.threads:
            thread.start()

    def talk(self):
        for number in itertools.count():
            if self.stopping.wait(TALK_S):
                break
            if self.client.send(f"{number}"):
                self.sent = number + 1
            else:
                break  # `check` finds out

    def listen(self):
        try:
            while True:
                self.heard.append(self.client.receive())
        except SessionClosed:
            pass

    def has_echoes(self):
        return f"echo {self.sent - 1}" in self.heard[-1000:]

    def check(self, mates):
        echoes = [text for text in self.heard if text.startswith("echo ")]
        assert echoes == [f"echo {n}" for n in range(self.sent)]
        for mate in mates:
            numbers = [int(text.split()[1]) for text in self.heard if text.startswith(f"{mate.name} ")]
            assert numbers == list(range(numbers[0], mate.sent)), f"{self.name} of {mate.name}"


def run(port, workers, restart, seconds, *, is_calm_in_the_end=True):
    """Clients talk while workers restart."""
    stopping = threading.Event()
    talkers = [Talker(port, number, stopping) for number in range(CLIENTS)]
    rooms = {}
    for number, talker in enumerate(talkers):
        rooms.setdefault(number // ROOM, []).append(talker)
    # Workers that have handled enough requests give way to new ones, which have still to start.
    wait_until(lambda: all(talker.has_echoes() for talker in talkers), "the first echoes", PROGRAM_S)
    restarts = max(1, int(seconds / PAUSE_S))
    for _ in range(restarts):
        restart()
        time.sleep(PAUSE_S)
    if is_calm_in_the_end:
        workers.wait_calm()
    stopping.set()
    for talker in talkers:
        talker.threads[0].join(DEADLINE_S)
        wait_until(talker.has_echoes, "the last echo", PROGRAM_S)
    for mates in rooms.values():
        for talker in mates:
            for mate in mates:
                last = f"{mate.name} {mate.sent - 1}"
                wait_until(lambda talker=talker, last=last: last in talker.heard[-2000:], "the last broadcast")
    calls = workers.calls()
    for talker in talkers:
        talker.client.close()
        talker.threads[1].join(DEADLINE_S)
    for mates in rooms.values():
        for talker in mates:
            talker.check(mates)
            assert talker.client.lost == 0
    assert len(calls) == CLIENTS, workers.lines("is not resumed", "is lost", " ends: ", "cannot move")
    for session, what in calls.items():
        assert Counter(what)["open"] == 1
        assert not [each for each in what if each.startswith("close")], workers.lines(session)
        assert what == ["open", *["suspend", "resume"] * len(what)][: len(what)]
    if is_calm_in_the_end:
        wait_until(
            lambda: all(what[-1].startswith("close 1000") for what in workers.calls().values()), "on_close at the end"
        )
    moves = sum(len(what) // 2 for what in calls.values())
    messages = sum(len(talker.heard) for talker in talkers)
    print(f"{CLIENTS} clients, {restarts} restarts, {moves} times resumed, {messages} messages received")
    assert moves >= CLIENTS


@pytest.mark.long
@pytest.mark.parametrize("workers", [2, 4])
def test_while_workers_restart_again_and_again_nobody_loses_anything(tmp_path, workers):
    with RedisServer() as redis, Workers(redis, tmp_path, workers) as server:
        run(server.port, server, server.restart, SECONDS)
        server.check_log()


@pytest.mark.long
@pytest.mark.quiet  # each client that comes back is a request, so workers that begin slowly end at once
def test_with_gunicorns_own_worker_and_max_requests_nobody_loses_anything(tmp_path):
    options = ["--max-requests", str(CLIENTS // 2)]
    with RedisServer() as redis, Workers(redis, tmp_path, 2, *options, worker="gthread") as server:
        run(server.port, server, lambda: None, SECONDS, is_calm_in_the_end=False)
        server.check_log()


@pytest.mark.long
def test_the_sessions_of_a_worker_that_is_killed_begin_anew_and_their_clients_are_told(tmp_path):
    with RedisServer() as redis, Workers(redis, tmp_path, 2) as server, ExitStack() as stack:
        opened = []
        clients = [
            stack.enter_context(
                Client(f"ws://127.0.0.1:{server.port}/ws?name=c{n}&room=lobby", min_delay_s=0.05, on_open=opened.append)
            )
            for n in range(6)
        ]
        for client in clients:
            client.send("hello")
            while client.receive(DEADLINE_S) != "echo hello":
                pass
        begun = {line.split()[1]: int(line.split()[2]) for line in server.calls_file.read_text().splitlines()}
        victim = max(begun.values(), key=list(begun.values()).count)
        os.kill(victim, signal.SIGKILL)
        lost = [session for session, process in begun.items() if process == victim]
        wait_until(lambda: len(server.calls()) == len(clients) + len(lost), "fresh sessions in place of the lost ones")
        wait_until(lambda: len(opened) == len(clients) + len(lost), "each client's own on_open")
        assert sum(client.resumed for client in clients) == 0
        calls = server.calls()
        assert all(calls[session] == ["open"] for session in lost)
        assert all("close" not in " ".join(what) for what in calls.values())
        for client in clients:
            client.send("again")
            while client.receive(DEADLINE_S) != "echo again":
                pass


@contextmanager
def away(server):
    """A client of the only session, which is suspended, and the network in between."""
    with (
        Proxy(server.port) as network,
        Client(f"ws://127.0.0.1:{network.port}/ws?name=ann&room=lobby", min_delay_s=0.05, max_delay_s=0.5) as client,
    ):
        client.send("hello")
        assert client.receive(DEADLINE_S) == "echo hello"
        network.cut()
        wait_until(lambda: list(server.calls().values()) == [["open", "suspend"]], "on_suspend")
        yield client, network


@pytest.mark.parametrize("worker", ["wsthreads.gunicorn.ThreadWorker", "gthread"])
def test_the_session_of_a_client_that_is_away_survives_the_end_of_a_worker_without_connections(tmp_path, worker):
    with (
        RedisServer() as redis,
        Workers(redis, tmp_path, 1, worker=worker) as server,
        away(server) as (client, network),
    ):
        server.restart()
        server.wait_calm()
        client.send("again")
        network.heal()
        while client.receive(DEADLINE_S) != "echo again":
            pass
        assert client.lost == 0
        assert list(server.calls().values()) == [["open", "suspend", "resume"]]
        server.check_log()


@pytest.mark.parametrize("worker", ["wsthreads.gunicorn.ThreadWorker", "gthread"])
def test_the_client_of_a_session_that_was_closed_is_told_by_the_next_worker(tmp_path, worker):
    with (
        RedisServer() as redis,
        Workers(redis, tmp_path, 1, worker=worker) as server,
        away(server) as (client, network),
    ):
        (session,) = server.calls()
        broker = RedisBroker(redis.url)
        broker.session("/ws", session).close(4001, "go")
        broker.close()
        wait_until(lambda: list(server.calls().values()) == [["open", "suspend", "close 4001 go"]], "on_close")
        server.restart()
        server.wait_calm()
        network.heal()
        wait_until(lambda: client.closed is not None, "the close of the session")
        assert client.closed == (4001, "go")
        assert len(server.calls()) == 1
        server.check_log()


@pytest.mark.parametrize("worker", ["wsthreads.gunicorn.ThreadWorker", "gthread"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_without_redis_such_a_session_is_closed(tmp_path, worker, number):
    with Workers(None, tmp_path, 1, worker=worker) as server, away(server):
        assert server.end(number) == 0
        assert list(server.calls().values()) == [["open", "suspend", "close 1001 server shutting down"]]
        server.check_log()


@contextmanager
def nginx_in_front(folder, upstream):
    """(port, what reloads it). It cuts off the connections of its old processes after a second."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("there is no nginx")
    port = free_port()
    paths = "".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    lines = (
        "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; "
        "proxy_set_header Host $http_host; proxy_read_timeout 60s;"
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; worker_shutdown_timeout 1s; events {{}} http {{ access_log off; {paths}"
        f" server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{upstream}; {lines} }} }} }}"
    )
    with Program([program, "-c", str(folder / "nginx.conf"), "-e", "stderr"]) as server:
        wait_until(lambda: answers(port), "nginx", PROGRAM_S)
        yield port, lambda: server.process.send_signal(signal.SIGHUP)
        server.end()


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.long
def test_while_nginx_in_front_reloads_and_workers_restart_nobody_loses_anything(tmp_path):
    with (
        RedisServer() as redis,
        Workers(redis, tmp_path, 2) as server,
        nginx_in_front(tmp_path, server.port) as (port, reload),
    ):
        orders = itertools.cycle((reload, server.restart))
        run(port, server, lambda: next(orders)(), SECONDS)
        server.check_log()
