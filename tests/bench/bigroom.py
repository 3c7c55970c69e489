"""How long a broadcast takes to reach a large room: ``python -m tests.bench.bigroom``.

The members do not read, and their receive buffers hold everything. So the clients take no CPU during a broadcast. The
kernel notes when a message arrived at each socket (SO_TIMESTAMPNS, Linux). Afterwards the clients read the messages and
the times. The figure is the time from the call of ``broadcast`` until the last member has the message.

One writing thread and several take turns, in one server. A C program that does nothing but write to as many sockets
shows how much faster two threads can be on this machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import socket
import statistics
import struct
import subprocess
import sys
from time import sleep

from tests.bench.tools import HERE, ROOT, compile_c
from tests.wire import TEXT, frame, parse_frames, request_bytes

#: Linux: the kernel adds the time of arrival to what is received, as seconds and nanoseconds.
SO_TIMESTAMPNS = getattr(socket, "SO_TIMESTAMPNS", 35)
TIME = struct.Struct("@ll")
ANCILLARY_BYTES = socket.CMSG_SPACE(TIME.size)

TARGET = 1.6
DEADLINE_S = 60.0

#: Between two broadcasts, so that the kernel has nothing left to do for the first.
PAUSE_S = 0.05

SERVER = """
import json, resource, sys, time
from wsthreads import WebSocketApp
from wsthreads.protocol.writer_threads import WriterThreads
from wsthreads.servers.serving import Server

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
app = WebSocketApp(max_sessions=100_000, ping_interval_s=0)
app.scheduling.owns_process(0)  # as `wsthreads run` does: session threads share a core
most = int(sys.argv[1])
ways = {1: WriterThreads(1), most: WriterThreads(most)}

@app.route("/ws/test")
class Crowd:
    def on_open(self, session):
        if session.get_parameter("speaks") is None:
            session.room("crowd").join()
    def on_message(self, session, message):
        order = json.loads(message)
        endpoint.rooms._writers = ways[order["writers"]]
        room, text = session.room("crowd"), order["text"]
        spent, began = time.process_time(), time.time_ns()
        room.broadcast(text)
        ended = time.time_ns()
        ways[most].wait_idle(60)
        session.send(json.dumps([began, ended, time.process_time() - spent]))

endpoint = app.endpoint("/ws/test")
with Server(app, port=0) as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bigroom")
    parser.add_argument("--members", type=int, default=5000)
    parser.add_argument("--bytes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--writers", type=int, default=2)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"Python {platform.python_version()}, {platform.platform()}")
    print(run_limit(options.members, options.bytes, options.rounds))
    times = measure(options.members, options.bytes, options.rounds, options.writers)
    for writers, rows in times.items():
        arrived, returned, spent = (statistics.median(column) * 1000 for column in zip(*rows, strict=True))
        title = f"{writers} writing thread{'s' if writers > 1 else ''}: "
        print(f"{title}the last of {options.members:,} has it after {arrived:.1f} ms, {spent:.1f} ms of CPU; ", end="")
        print(f"broadcast returned after {returned:.1f} ms")
    ratios = [one[0] / more[0] for one, more in zip(times[1], times[options.writers], strict=True)]
    low, ratio, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"{ratio:.2f} times as fast ({low:.2f} to {high:.2f}); the target is {TARGET}")
    return int(ratio < TARGET)


def run_limit(members: int, size: int, rounds: int) -> str:
    """What the C program says."""
    program = ROOT / "build" / "bench" / "limit_writers"
    program.parent.mkdir(parents=True, exist_ok=True)
    complaint = compile_c(HERE / "limit_writers.c", program, "-pthread")
    if complaint is not None:
        return f"no figure of a C program: {complaint}"
    command = [str(program), str(members), str(size), str(rounds)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.rstrip()


def measure(members: int, size: int, rounds: int, writers: int) -> dict[int, list[tuple[float, ...]]]:
    """For each number of writers: seconds until the last member had it, until `broadcast` returned, and of CPU."""
    command = [sys.executable, "-c", SERVER, str(writers)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    clients: list[socket.socket] = []
    times: dict[int, list[tuple[float, ...]]] = {1: [], writers: []}
    try:
        assert server.stdout
        port = int(server.stdout.readline())
        for _ in range(members):
            clients.append(connect(port, "/ws/test"))
        speaker = connect(port, "/ws/test?speaks=1")
        clients.append(speaker)
        for number in range(rounds + 1):
            for ways in (1, writers) if number % 2 else (writers, 1):
                sleep(PAUSE_S)
                text = f"{number}-{ways}".ljust(size, ".")
                speaker.sendall(frame(TEXT, json.dumps({"writers": ways, "text": text})))
                began, ended, spent = json.loads(read_message(speaker)[0])
                arrivals = [arrival(client, text) for client in clients[:members]]
                if number:  # the first round starts the threads
                    times[ways].append(((max(arrivals) - began) / 1e9, (ended - began) / 1e9, spent))
    finally:
        server.kill()
        server.wait()
        for client in clients:
            client.close()
    return times


def connect(port: int, path: str) -> socket.socket:
    """A client whose handshake is over."""
    client = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
    client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    client.sendall(request_bytes(path))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += client.recv(1)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    return client


def read_message(client: socket.socket) -> tuple[bytes, int]:
    """The next message, which the client gets in one piece, and when it arrived, in nanoseconds since the epoch."""
    data, ancillary, *_ = client.recvmsg(65536, ANCILLARY_BYTES)
    frames, rest = parse_frames(data)
    assert len(frames) == 1, f"not one message, but {data!r:.100}"
    assert not rest, f"more than one message: {data!r:.100}"
    seconds, nanoseconds = TIME.unpack(ancillary[0][2])
    return frames[0][1], seconds * 1_000_000_000 + nanoseconds


def arrival(client: socket.socket, text: str) -> int:
    message, arrived = read_message(client)
    assert message == text.encode(), f"{message!r:.100} arrived, not {text!r:.100}"
    return arrived


if __name__ == "__main__":
    sys.exit(main())
