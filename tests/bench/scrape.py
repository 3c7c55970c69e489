"""The cost of a scrape of ``/metrics`` with many sessions: ``python -m tests.bench.scrape [SESSIONS]``.

Starts a server process with sessions in rooms of 50. Scrapes it over HTTP while it is idle and while messages are
broadcast, and prints the median and longest times. Prints the times of /healthz for comparison: these show the waits
for the processor and the GIL. For the idle server, also prints the processor time of a scrape.
"""

from __future__ import annotations

import resource
import selectors
import socket
import subprocess
import sys
import threading
from statistics import median
from time import perf_counter, sleep
from urllib.request import urlopen

from tests.wire import TEXT, RawClient, frame

SCRAPES = 20
ROOM = 50
SENDERS = 20

SERVER = """
import resource, sys, time
from wsthreads import WebSocketApp
from wsthreads.servers.serving import Server

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
app = WebSocketApp(max_sessions=100_000, serve_metrics=True, serve_health=True, cpu_affinity=True)

@app.route("/ws/test")
class Chat:
    def on_open(self, session): session.room(session.get_parameter("room")).join()
    def on_message(self, session, message): session.room(session.get_parameter("room")).broadcast(message)

with Server(app, port=0) as server:
    print(server.port, flush=True)
    for _ in sys.stdin:
        print(time.process_time(), flush=True)
"""


def main() -> None:
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        port = int(_line(server))
        clients = [RawClient(port, f"/ws/test?room={n // ROOM}") for n in range(sessions)]
        before = _processor_s(server)
        idle = _scrapes(port, sessions)
        each_ms = (_processor_s(server) - before) / SCRAPES * 1000
        print(f"{sessions} sessions, idle: {_told(idle)}; {each_ms:.1f} ms of the processor")
        over, senders = threading.Event(), clients[:: len(clients) // SENDERS]
        threads = [threading.Thread(target=_send, args=(client, over)) for client in senders]
        threads.append(threading.Thread(target=_read, args=([client.sock for client in clients], over)))
        for thread in threads:
            thread.start()
        sleep(1)
        first, began = _sent(port), perf_counter()
        busy = _scrapes(port, sessions)
        rate = (_sent(port) - first) / (perf_counter() - began)
        over.set()
        for thread in threads:
            thread.join()
        print(f"{sessions} sessions, {rate:,.0f} deliveries a second: {_told(busy)}")
    finally:
        server.kill()
        server.wait()


def _scrapes(port: int, sessions: int) -> tuple[list[float], list[float]]:
    """Milliseconds of the scrapes, and of requests for /healthz between them."""
    times, others = [], []
    for _ in range(SCRAPES):
        text = _timed(port, "/metrics", times)
        assert f'wsthreads_sessions{{endpoint="/ws/test"}} {sessions}.0' in text
        sleep(0.1)
        _timed(port, "/healthz", others)
        sleep(0.1)
    return times, others


def _timed(port: int, path: str, times: list[float]) -> str:
    began = perf_counter()
    with urlopen(f"http://127.0.0.1:{port}{path}") as answer:
        text: str = answer.read().decode()
    times.append((perf_counter() - began) * 1000)
    return text


def _told(times: tuple[list[float], list[float]]) -> str:
    scrapes, others = (f"median {median(some):.1f} ms, longest {max(some):.1f} ms" for some in times)
    return f"{scrapes} (/healthz: {others})"


def _processor_s(server: subprocess.Popen[str]) -> float:
    print(file=server.stdin)
    return float(_line(server))


def _line(server: subprocess.Popen[str]) -> str:
    assert server.stdout
    return server.stdout.readline()


def _sent(port: int) -> float:
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        line = next(line for line in answer if line.startswith(b"wsthreads_messages_sent_total{"))
    return float(line.split()[-1])


def _send(client: RawClient, over: threading.Event) -> None:
    data = frame(TEXT, "x" * 64)
    while not over.wait(0.01):
        client.sock.sendall(data)


def _read(socks: list[socket.socket], over: threading.Event) -> None:
    """Read and discard all input."""
    with selectors.DefaultSelector() as selector:
        for sock in socks:
            selector.register(sock, selectors.EVENT_READ, sock)
        while not over.is_set():
            for key, _ in selector.select(0.1):
                key.data.recv(65536)


if __name__ == "__main__":
    main()
