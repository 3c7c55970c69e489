"""Joiners amid broadcasts, in one server and over three that share a Redis, with clients that share no code with them.

An observer is a member from the beginning to the end. What a joiner gets must be a piece of what the observer got.
"""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import count
from urllib.parse import quote

import pytest
from websockets.exceptions import WebSocketException

from tests.programs import DEADLINE_S, connect, receive, run_server, wait_until

#: All speakers together say so much in a second.
RATE = 500

#: What a room keeps, which is said in 10 s; what a joiner asks for; how many messages it reads after its position.
KEPT, HISTORY, FOLLOWING = 10 * RATE, 20, 10

#: Each of them comes back once. So many are on their way at a time.
JOINERS, AT_ONCE = 200, 4

HANDLER = f"""
from wsthreads import BrokerError


def patiently(function, **options):
    '''Where a process gets no core for a second, Redis counts as away for a moment.'''
    while True:
        try:
            return function(**options)
        except BrokerError:
            pass


def on_open(session):
    room, role = session.room("lobby"), session.get_parameter("role")
    if role == "joiner":
        joined = patiently(room.join, history={HISTORY}, since=session.get_parameter("since"))
        session.send(f"@{{patiently(room.position)}} {{joined.complete}}")
    elif role == "observer":
        room.join()
        session.send("ready")


def on_message(session, message):
    session.room("lobby").broadcast(message)
"""


class Speaker(threading.Thread):
    """Says numbered messages to one server, until it is stopped."""

    def __init__(self, server, name, pause_s, stopping):
        super().__init__(daemon=True)
        self.server, self.name, self.pause_s, self.stopping = server, name, pause_s, stopping

    def run(self):
        with connect(self.server.ws_url + "/ws/lobby?role=speaker") as client:
            due = time.monotonic()
            for number in count():
                if self.stopping.wait(max(0.0, due - time.monotonic())):
                    break
                client.send(f"{self.name}-{number}")
                due += self.pause_s


class Observer(threading.Thread):
    def __init__(self, client):
        super().__init__(daemon=True)
        self.client = client
        assert receive(self.client) == "ready"
        self.heard = []
        self.start()

    def run(self):
        with suppress(WebSocketException, OSError):
            while True:
                self.heard.append(self.client.recv())


def visit(server, since=None):
    """A joiner: what it has got before and after its position, and that, and whether nothing was missing."""
    query = "" if since is None else f"&since={quote(since)}"
    with connect(server.ws_url + f"/ws/lobby?role=joiner{query}") as client:
        before, after = [], []
        while not (text := receive(client)).startswith("@"):
            before.append(text)
        while len(after) < FOLLOWING:
            after.append(receive(client))
        client.socket.shutdown(socket.SHUT_RDWR)  # a cut, not a good-bye
    position, _, complete = text[1:].partition(" ")
    return before, after, position, complete == "True"


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 3])
def test_a_joiner_amid_broadcasts_and_one_that_comes_back_have_no_gap_and_no_double(redis_server, tmp_path, workers):
    (tmp_path / "lobby.py").write_text(HANDLER)
    shared = ("--redis", redis_server.url) if workers > 1 else ()
    stopping = threading.Event()
    with ExitStack() as stack:
        servers = [
            stack.enter_context(run_server("lobby.py", "--history-messages", KEPT, *shared, cwd=tmp_path))
            for _ in range(workers)
        ]
        observer = Observer(stack.enter_context(connect(servers[-1].ws_url + "/ws/lobby?role=observer")))
        speakers = [Speaker(server, f"{n}", len(servers) / RATE, stopping) for n, server in enumerate(servers)]
        for speaker in speakers:
            speaker.start()
        wait_until(lambda: len(observer.heard) > 3 * HISTORY, "the first messages")

        def join_and_come_back(nth):
            """A client joins one server, and comes back to the next one."""
            first = visit(servers[nth % workers])
            return [(first, None), (visit(servers[(nth + 1) % workers], first[2]), first)]

        with ThreadPoolExecutor(AT_ONCE) as pool:
            visits = [each for both in pool.map(join_and_come_back, range(JOINERS)) for each in both]
        stopping.set()
        for speaker in speakers:
            speaker.join(DEADLINE_S)
        last = {text for (_, after, _, _), _ in visits for text in after}
        wait_until(lambda: last <= set(observer.heard), "the last messages")
        observer.client.close()

    places = {text: place for place, text in enumerate(observer.heard)}
    assert len(places) == len(observer.heard), "the observer has a message twice"
    for (before, after, _, complete), former in visits:
        got = before + after
        begin = places[got[0]]
        assert got == observer.heard[begin : begin + len(got)]
        if former is None:
            assert complete
            assert len(before) >= HISTORY
        elif complete:  # else the two were so far apart that the history was too short
            ends = [places[text] for text in former[0]]
            assert ends[HISTORY - 1] + 1 <= begin <= ends[-1] + 1
        else:
            assert len(before) >= HISTORY
    comebacks = [complete for (_, _, _, complete), former in visits if former is not None]
    assert sum(comebacks) > len(comebacks) // 2
