"""What presence costs: ``python -m tests.bench.presence [memory|storm]``.

``memory``: what 100,000 presences in 1,000 rooms take in the process, by tracemalloc and by its resident memory, each
in a process of its own.

``storm``: 1,000 clients ask to join a room within a second, over sockets, and leave it at once. Prints how many
presence messages the members got a second. Fails if that is more than one an interval, or if a member knows another
list in the end.
"""

from __future__ import annotations

import gc
import json
import platform
import resource
import selectors
import socket
import subprocess
import sys
import tracemalloc
from threading import Thread
from time import perf_counter, sleep
from typing import Any

from tests.wire import CLOSE, TEXT, close_payload, frame, parse_frames, request_bytes
from wsthreads.rooms.roster import Roster
from wsthreads.testing.timers import ManualTimers

ROOMS, PERSONS = 1000, 100
CLIENTS = 1000
MOST_MESSAGES = 5
QUIET_S = 3.0
WELCOME_S = 120.0

SERVER = """
import json, resource, sys
from wsthreads import WebSocketApp
from wsthreads.servers.serving import Server

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
app = WebSocketApp(max_sessions=100_000)

@app.route("/ws/test")
class Lobby:
    def on_open(self, session):
        room = session.room("lobby")
        room.join(presence=int(session.get_parameter("number")))
        session.send(json.dumps({"there": [person.presence for person in room.presence()]}))
    def on_presence(self, room, changes):
        joined, left = ([person.presence for person in some] for some in (changes.joined, changes.left))
        return json.dumps({"joined": joined, "left": left})

with Server(app, port=0) as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""


def main() -> None:
    print(f"Python {platform.python_version()}, {platform.platform()}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    chosen = sys.argv[1:]
    if chosen and chosen[0].startswith("fill-"):
        print(fill(by_tracemalloc=chosen[0] == "fill-tracemalloc"))
        return
    if not chosen or "memory" in chosen:
        for way in ("tracemalloc", "resident"):
            command = [sys.executable, "-m", "tests.bench.presence", f"fill-{way}"]
            answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            each = float(answer.splitlines()[-1])
            print(f"{ROOMS * PERSONS:,} presences in {ROOMS:,} rooms: {each:,.0f} bytes each ({way})")
    if not chosen or "storm" in chosen:
        storm()


def fill(*, by_tracemalloc: bool) -> float:
    """Bytes of memory for each person in a room, after all have been reported."""
    roster = Roster(
        ManualTimers(),
        report=lambda name, changes: None,
        wants_reports=lambda: True,
        broadcast_here=lambda name, frame: None,
        has_members=lambda name: True,
        count=lambda counter: None,
        interval_s=0.2,
        grace_s=10,
        max_value_bytes=1024,
    )
    if by_tracemalloc:
        tracemalloc.start()
    before = _bytes_now(by_tracemalloc)
    for room in range(ROOMS):
        for person in range(PERSONS):
            number = room * PERSONS + person
            value = roster.text_of({"name": f"user {number}", "status": "here", "color": "#aabbcc"})
            roster.set(f"room-{room}", f"session-of-22-chars-{number:06}", f"user-{number}", value)
        roster._report(f"room-{room}")
    gc.collect()
    return (_bytes_now(by_tracemalloc) - before) / (ROOMS * PERSONS)


def _bytes_now(by_tracemalloc: bool) -> int:
    if by_tracemalloc:
        return tracemalloc.get_traced_memory()[0]
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Members:
    """Clients that one thread reads. It only stores each message with its time, so that it does not slow the server."""

    def __init__(self) -> None:
        self.clients: list[socket.socket] = []
        self._received: list[list[tuple[float, bytes]]] = []
        self._last = perf_counter()
        self._selector = selectors.DefaultSelector()
        self._is_over = False
        self._thread = Thread(target=self._read)
        self._thread.start()

    def connect(self, port: int) -> None:
        """Connect one more client. Its request is not sent yet."""
        client = socket.create_connection(("127.0.0.1", port))
        self.clients.append(client)
        self._received.append([])
        self._selector.register(client, selectors.EVENT_READ, len(self.clients) - 1)

    def wait_quiet(self) -> None:
        """Wait until no message has come for a while."""
        while perf_counter() - self._last < QUIET_S:
            sleep(0.1)

    def wait_welcomed(self) -> None:
        """Wait until each client has received the list of persons, which comes first."""
        deadline = perf_counter() + WELCOME_S
        for number in range(len(self.clients)):
            while not any("there" in told for _, told in self.messages(number)):
                assert perf_counter() < deadline, f"client {number} has got no list in {WELCOME_S:g} s"
                sleep(0.1)

    def end(self) -> None:
        self._is_over = True
        self._thread.join()

    def messages(self, number: int) -> list[tuple[float, Any]]:
        """The messages of a client, with their times."""
        found, data = [], b""
        for time, piece in self._received[number]:
            data += piece
            if b"\r\n\r\n" in data:
                data = data.partition(b"\r\n\r\n")[2]
            frames, data = parse_frames(data)
            found += [(time, json.loads(payload)) for opcode, payload in frames if opcode == TEXT]
        return found

    def there(self, number: int) -> set[int]:
        """The persons that are in the room, according to a client's messages."""
        persons: set[int] = set()
        for _, told in self.messages(number):
            persons |= {*told.get("there", ()), *told.get("joined", ())}
            persons -= {*told.get("left", ())}
        return persons

    def _read(self) -> None:
        while not self._is_over:
            for key, _ in self._selector.select(0.1):
                data = key.fileobj.recv(262144)  # type: ignore[union-attr]
                self._last = perf_counter()
                if data:
                    self._received[key.data].append((self._last, data))
                else:
                    self._selector.unregister(key.fileobj)


def storm() -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    members = Members()
    try:
        assert server.stdout
        port = int(server.stdout.readline())
        for _ in range(CLIENTS + 1):
            members.connect(port)
        watcher = members.clients[0]
        watcher.sendall(request_bytes("/ws/test?number=0"))
        members.wait_quiet()
        began = perf_counter()
        for number, client in enumerate(members.clients[1:], 1):
            client.sendall(request_bytes(f"/ws/test?number={number}"))
        asked_s = perf_counter() - began
        members.wait_welcomed()
        members.wait_quiet()
        expected = set(range(CLIENTS + 1))
        wrong = [number for number in expected if members.there(number) != expected]
        assert not wrong, f"{len(wrong)} members know another list, such as {wrong[0]}"
        print(f"{CLIENTS} clients asked in {asked_s:.2f} s; {_told(members, began)}")
        began = perf_counter()
        for client in members.clients[1:]:
            client.sendall(frame(CLOSE, close_payload(1000)))
        left_s = perf_counter() - began
        members.wait_quiet()
        assert members.there(0) == {0}, "a person has not left"
        print(f"{CLIENTS} clients left in {left_s:.2f} s; {_told(members, began)}")
    finally:
        members.end()
        server.kill()
        server.wait()


def _told(members: Members, began: float) -> str:
    """Print how many presence messages came since `began`: the most in a second to one member, and the most in all."""
    busiest = most = 0
    last = began
    for number in range(len(members.clients)):
        times = [time for time, told in members.messages(number) if "joined" in told and time >= began]
        most = max(most, len(times))
        last = max([last, *times[-1:]])
        busiest = max([busiest, *(sum(first <= time < first + 1 for time in times) for first in times)])
    text = f"all messages came within {last - began:.1f} s; the busiest member got {busiest} in a second, {most} in all"
    # A second that begins with a message has one more than five intervals, and the network may bunch two together.
    assert busiest <= MOST_MESSAGES + 1, text
    return text


if __name__ == "__main__":
    main()
