"""What histories of rooms cost: ``python -m tests.bench.history``.

Prints the deliveries of a room with a history, as a part of those of a room without: in one process, and over Redis
between two apps. They take turns, each in a fresh process, and the figure is the CPU time of the process; the part is
the median of all pairs. Then the CPU time of a join with the last 50 messages, and the memory of 10,000 rooms with 100
messages of 100 bytes.

Fails below 0.9, and at a millisecond a join.
"""

from __future__ import annotations

import os
import platform
import select
import signal
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.redis_server import RedisServer
from tests.room_worlds import LIMITS as NAME_LIMITS
from tests.room_worlds import RedisWorld, World
from wsthreads.rooms.history import Limits
from wsthreads.rooms.rooms import Rooms
from wsthreads.threads.drainer import Drainer
from wsthreads.threads.flusher import Flusher

MEMBERS, BROADCASTS, ROUNDS = 100, 10_000, 7
LIMITS = Limits(messages=100, seconds=3000.0, bytes=2**20)
TEXT = "x" * 100
LEAST, MOST_JOIN_S = 0.9, 0.001


def main() -> None:
    if len(sys.argv) > 1:
        print(measure(sys.argv[1], *sys.argv[2:]), flush=True)
        os._exit(0)
    print(f"Python {platform.python_version()}, {platform.platform()}")
    with RedisServer() as redis:
        for where, url in (("in one process", ""), ("over Redis", redis.url)):
            pairs = [{mode: run(mode, url) for mode in (("off", "on"), ("on", "off"))[n % 2]} for n in range(ROUNDS)]
            off, on = (statistics.median(pair[mode] for pair in pairs) for mode in ("off", "on"))
            part = statistics.median(pair["off"] / pair["on"] for pair in pairs)
            print(f"{where}: {1e6 * off:.2f} µs a delivery without a history, {1e6 * on:.2f} µs with: {part:.3f}")
            assert part > LEAST, "is the machine busy?"
    join_s = run("join", "")
    print(f"a join with the last 50 of 100 messages takes {1e6 * join_s:.0f} µs")
    assert join_s < MOST_JOIN_S
    print(f"10,000 rooms with 100 messages of 100 bytes take {run('memory', '') / 1e6:.0f} MB")


def run(mode: str, url: str) -> float:
    command = [sys.executable, "-m", "tests.bench.history", mode, *([url] if url else [])]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure(mode: str, url: str = "") -> float:
    if mode == "memory":
        return memory_of_rooms()
    limits = None if mode == "off" else LIMITS
    world = RedisWorld(url, prefix=f"bench-{os.getpid()}", history=limits) if url else World(limits)
    return time_of_join(world) if mode == "join" else time_of_delivery(world)


def time_of_delivery(world: Any) -> float:
    """The CPU time of this process for one member's message."""
    members = [world.member("room") for _ in range(MEMBERS)]
    with ExitStack() as stack:
        reader = os.fork()
        if reader == 0:
            read_all(members)
        stack.callback(os.kill, reader, signal.SIGKILL)
        room = world.rooms.room("room")
        began = time.process_time()
        for _ in range(BROADCASTS):
            room.broadcast(TEXT)
        while sum(rooms.totals()[3] for rooms in world.all_rooms) < BROADCASTS * MEMBERS:
            time.sleep(0.001)
        return (time.process_time() - began) / BROADCASTS / MEMBERS


def read_all(members: list[Any]) -> None:
    """The clients, in a process of their own."""
    poller, sockets = select.epoll(), {member.theirs.fileno(): member.theirs for member in members}
    for descriptor in sockets:
        poller.register(descriptor, select.EPOLLIN)
    while True:
        for descriptor, _ in poller.poll():
            sockets[descriptor].recv(2**18)


def time_of_join(world: Any) -> float:
    for _ in range(LIMITS.messages):
        world.rooms.room("room").broadcast(TEXT)
    rooms = [world.member().session.room("room") for _ in range(300)]
    began = time.thread_time()
    for room in rooms:
        room.join(history=50)
    return (time.thread_time() - began) / len(rooms)


def memory_of_rooms() -> float:
    rooms: Rooms[Any] = Rooms(Drainer(), **NAME_LIMITS)
    rooms.use_history(Flusher(), LIMITS)
    before = resident_bytes()
    for _ in range(100):
        for nth in range(10_000):
            rooms.room(f"room {nth}").broadcast(f"{nth:>100}")
    return resident_bytes() - before


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
