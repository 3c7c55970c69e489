"""What sessions that survive lost connections cost: ``python -m tests.bench.resume [memory|storm]``.

``memory``: 10,000 clients lose their connections. Prints the memory of a suspended session, and of 20 waiting messages
of 100 bytes for each: such as were sent to all of them through a room, and such as each of them alone is sent.

``storm``: 5,000 of them come back at once. Prints how long it takes until each has all that it missed, and the round
trips of 100 other clients before and meanwhile: they send 10 messages a second each.

The server has a process of its own, and so have the others. Fails after 5 s, or if a client gets anything but what it
missed, once and in order.
"""

from __future__ import annotations

import json
import platform
import resource
import selectors
import socket
import statistics
import subprocess
import sys
from contextlib import suppress
from time import perf_counter, sleep
from typing import Any

from tests.wire import TEXT, frame, parse_frames, request_bytes

CLIENTS, RETURNING, MESSAGES, BYTES = 10_000, 5_000, 20, 100
BATCH = 250
OTHERS, RATE, CALM_S = 100, 10, 5.0
MOST_S = 5.0
DEADLINE_S = 120.0

DLE = b"\x10"
SPEAKS = {"Sec-WebSocket-Protocol": "wsthreads.1"}

SERVER = """
import gc, json, os, resource, sys, time
from pathlib import Path
from wsthreads import WebSocketApp
from wsthreads.servers.serving import Server
from wsthreads.threads.garbage import postpone_full_collections

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
app = WebSocketApp(max_sessions=100_000, max_suspended_sessions=100_000, resume_s=3600, ping_interval_s=0)
postpone_full_collections()  # as `wsthreads run` does
app.keep_on_core(0)

@app.route("/ws/test")
class Handler:
    def on_open(self, session):
        session.room(session.get_parameter("room")).join()
    def on_message(self, session, message):
        session.send(message)

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

endpoint = app.endpoint("/ws/test")
with Server(app, port=0) as server:
    print(server.port, flush=True)
    for line in sys.stdin:
        what, count, size = json.loads(line)
        if what == "room":
            for number in range(count):
                endpoint.room("away").broadcast(f"{number:>{size}}")
        elif what == "each":
            for session in endpoint.sessions():
                if not session.is_connected():
                    for number in range(count):
                        session.send(f"{number:>{size}}")
        elif what == "collect":
            gc.collect()
        state = {"suspended": len(endpoint.suspensions), "resident": resident(), "cpu": time.process_time()}
        print(json.dumps(state), flush=True)
"""


def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1:2] == ["others"]:
        talk(int(sys.argv[2]))
        return
    print(f"Python {platform.python_version()}, {platform.platform()}")
    chosen = sys.argv[1:] or ["memory", "storm"]
    if "memory" in chosen:
        for what in ("room", "each"):
            measure_memory(what)
    if "storm" in chosen:
        measure_storm()


class ServerProcess:
    """The server. A context manager."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", SERVER]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._line())

    def ask(self, what: str = "", count: int = 0, size: int = 0) -> dict[str, float]:
        """Have it send, or collect garbage. Returns its state."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([what, count, size]) + "\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._line())
        return answer

    def await_suspended(self, count: int) -> dict[str, float]:
        deadline = perf_counter() + DEADLINE_S
        while (state := self.ask())["suspended"] != count:
            assert perf_counter() < deadline, f"{state['suspended']} sessions are suspended, not {count}"
            sleep(0.05)
        return state

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


class Client:
    """A client that never waits. `wanted`: it is done after the welcome and so many messages."""

    def __init__(self, port: int, token: str | None = None, wanted: int = 0) -> None:
        resume = {} if token is None else {"resume": {"token": token, "received": 0}}
        hello = frame(TEXT, DLE + b"h" + json.dumps(resume).encode())
        self._unsent = [request_bytes("/ws/test?room=away", SPEAKS), hello]
        self._wanted, self._data = wanted, b""
        self.welcome: dict[str, Any] | None = None
        self.messages: list[bytes] = []
        self.done_at = 0.0
        self.sock = socket.socket()
        self.sock.setblocking(False)
        with suppress(BlockingIOError):
            self.sock.connect(("127.0.0.1", port))

    def go_on(self, events: int) -> None:
        if events & selectors.EVENT_WRITE and self._unsent:
            self.sock.sendall(self._unsent.pop(0))  # the handshake; small enough to go at once
        if not events & selectors.EVENT_READ:
            return
        data = self.sock.recv(65536)
        assert data, "the server hung up"
        self._data += data
        if len(self._unsent) == 1:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self.sock.sendall(self._unsent.pop())
            self._data = rest
        frames, self._data = parse_frames(self._data)
        for _, payload in frames:
            if self.welcome is None:
                self.welcome = json.loads(payload[2:])
            else:
                self.messages.append(payload)
        if self.welcome is not None and len(self.messages) >= self._wanted:
            self.done_at = perf_counter()

    @property
    def events(self) -> int:
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if len(self._unsent) == 2 else 0)


def run(clients: list[Client]) -> None:
    """Until all are done."""
    deadline = perf_counter() + DEADLINE_S
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.sock, client.events, client)
        left = len(clients)
        while left:
            assert perf_counter() < deadline, f"{left} clients are not done after {DEADLINE_S:g} s"
            for key, events in selector.select(1):
                client: Client = key.data
                before = client.events
                client.go_on(events)
                if client.done_at:
                    selector.unregister(client.sock)
                    left -= 1
                elif client.events != before:
                    selector.modify(client.sock, client.events, client)


def suspend(server: ServerProcess, count: int, before: int = 0) -> list[str]:
    """The tokens of so many more suspended sessions. They come in batches, so that the server needs few threads."""
    tokens: list[str] = []
    while len(tokens) < count:
        clients = [Client(server.port) for _ in range(min(BATCH, count - len(tokens)))]
        run(clients)
        for client in clients:
            assert client.welcome is not None
            tokens.append(client.welcome["token"])
            client.sock.close()
        server.await_suspended(before + len(tokens))
    return tokens


def measure_memory(what: str) -> None:
    with ServerProcess() as server:
        suspend(server, BATCH)  # what the server needs once
        first = server.ask("collect")
        suspend(server, CLIENTS, before=BATCH)
        empty = server.ask("collect")
        server.ask(what, MESSAGES, BYTES)
        full = server.ask("collect")
        each = (empty["resident"] - first["resident"]) / CLIENTS
        waiting = (full["resident"] - empty["resident"]) / (BATCH + CLIENTS)
        way = "the same for all" if what == "room" else "others for each"
        print(
            f"{CLIENTS:,} suspended sessions: {each:,.0f} bytes each; and {waiting:,.0f} bytes each "
            f"with {MESSAGES} messages of {BYTES} bytes, {way}; {full['resident'] / 1e6:.0f} MB in all"
        )


def measure_storm() -> None:
    with ServerProcess() as server:
        tokens = suspend(server, CLIENTS)
        command = [sys.executable, "-m", "tests.bench.resume", "others", str(server.port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as others:
            assert others.stdin
            assert others.stdout
            assert others.stdout.readline() == "ready\n"
            server.ask("room", MESSAGES, BYTES)
            sleep(CALM_S)
            cpu = server.ask()["cpu"]
            began = perf_counter()
            clients = [Client(server.port, token, wanted=MESSAGES) for token in tokens[:RETURNING]]
            run(clients)
            ended = perf_counter()
            cpu = server.ask()["cpu"] - cpu
            others.stdin.write("end\n")
            others.stdin.flush()
            trips = [tuple(pair) for pair in json.loads(others.stdout.readline())]
        expected = [f"{number:>{BYTES}}".encode() for number in range(MESSAGES)]
        for client in clients:
            assert client.welcome is not None
            assert client.welcome["resumed"], client.welcome["why"]
            assert client.messages == expected
            client.sock.close()
        times = sorted(client.done_at - began for client in clients)
        print(
            f"{RETURNING:,} of {CLIENTS:,} came back within {times[-1]:.2f} s, half of them within "
            f"{statistics.median(times):.2f} s; {1000 * cpu / RETURNING:.2f} ms of CPU each, with the others"
        )
        calm = [trip for at, trip in trips if began - CALM_S / 2 <= at < began]
        busy = [trip for at, trip in trips if began <= at < ended]
        before, meanwhile = (1000 * percentile(some, 0.99) for some in (calm, busy))
        print(f"p99 of {OTHERS} others: {before:.2f} ms before, {meanwhile:.2f} ms meanwhile: {meanwhile / before:.2f}")
        assert times[-1] <= MOST_S, "is the machine busy?"


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def talk(port: int) -> None:
    """The others, in a process of their own: prints when they sent, and how long the answer took."""
    socks = []
    for _ in range(OTHERS):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(request_bytes("/ws/test?room=here"))
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += sock.recv(65536)
        socks.append(sock)
    print("ready", flush=True)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    for number, sock in enumerate(socks):
        selector.register(sock, selectors.EVENT_READ, number)
    pause, message = 1 / (OTHERS * RATE), frame(TEXT, "x" * BYTES)
    sent_at: list[float] = [0.0] * OTHERS  # 0: no answer is waited for
    trips, turn, due = [], 0, perf_counter()
    while True:
        for key, _ in selector.select(max(0.0, due - perf_counter())):
            if key.data is None:
                print(json.dumps(trips), flush=True)
                return
            socks[key.data].recv(65536)
            now = perf_counter()
            trips.append((sent_at[key.data], now - sent_at[key.data]))
            sent_at[key.data] = 0.0
        now = perf_counter()
        while due <= now:
            if not sent_at[turn]:
                sent_at[turn] = due  # not `now`: what waits for a busy server waits from then on
                socks[turn].sendall(message)
            turn, due = (turn + 1) % OTHERS, due + pause


if __name__ == "__main__":
    main()
