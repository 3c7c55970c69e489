"""A connection that is cut after each single byte, in either direction: each message comes once, and in order."""

from __future__ import annotations

import itertools
import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest

from tests.client.cut_proxy import Cut, CutProxy
from tests.programs import DEADLINE_S
from wsthreads import Client
from wsthreads.testing import live_server

#: So many clients are cut at the same time.
PARALLEL = 16

#: So many of the cuts are tried, unless all are asked for.
CUTS = 60

JS = """
export function onOpen(session) {
  session.setAttribute("journal", ["open"]);
  session.room(session.getParameter("key")).join();
  session.send(`welcome ${session.id}`);
}
export async function onMessage(session, message) {
  const journal = session.getAttribute("journal");
  const text = typeof message === "string" ? message : `${message.byteLength} bytes`;
  if (text === "journal") return session.send(JSON.stringify(journal));
  session.setAttribute("journal", [...journal, text]);
  if (text === "ask me") session.send(`it said ${await session.request("who?")}`);
  else if (text === "all") session.room(session.getParameter("key")).broadcast("to all");
  else session.send(message);
}
export function onRequest(session, message) {
  session.setAttribute("journal", [...session.getAttribute("journal"), `? ${message}`]);
  return `answer to ${message}`;
}
"""


class Handler:
    """The same in Python."""

    def on_open(self, session):
        session.attributes["journal"] = ["open"]
        session.room(session.get_parameter("key")).join()
        session.send(f"welcome {session.id}")

    def on_message(self, session, message):
        journal = session.attributes["journal"]
        text = message if isinstance(message, str) else f"{len(message)} bytes"
        if text == "journal":
            session.send(json.dumps(journal))
            return
        journal.append(text)
        if text == "ask me":
            session.send(f"it said {session.request('who?', timeout=DEADLINE_S)}")
        elif text == "all":
            session.room(session.get_parameter("key")).broadcast("to all")
        else:
            session.send(message)

    def on_request(self, session, message):
        session.attributes["journal"].append(f"? {message}")
        return f"answer to {message}"


JOURNAL = ["open", "one", "3 bytes", "? ask", "ask me", "all", "\x10last"]


def exchange(client):
    """The script: messages both ways, text and binary, requests both ways, a broadcast, an acknowledgement."""
    receive = partial(client.receive, timeout=DEADLINE_S)
    welcome, _, session_id = receive().partition(" ")
    assert welcome == "welcome"
    client.send("one")
    client.send(b"\x10\x002")
    assert [receive(), receive()] == ["one", b"\x10\x002"]
    assert client.request("ask", DEADLINE_S) == "answer to ask"
    client.send("ask me")
    assert receive() == "it said I am who?"
    client.send("all")
    with client._engine.lock:
        client._engine.beat()
    assert receive() == "to all"
    client.send("\x10last")
    client.send("journal")
    assert [receive(), json.loads(receive())] == ["\x10last", JOURNAL]
    assert (client.session_id, client.lost) == (session_id, 0)
    return len(client._engine.inbox)


def run(proxy, key, cuts, compress):
    """One exchange over connections that are cut. Returns what has passed over them, and whether it was resumed."""
    proxy.arm(*cuts)
    url = f"ws://127.0.0.1:{proxy.port}/ws?key={key:05}"
    options = {"min_delay_s": 0.001, "max_delay_s": 0.01, "compress": compress}
    with Client(url, on_request=lambda message: f"I am {message}", **options) as client:
        try:
            assert not exchange(client)
        except BaseException as error:
            raise AssertionError(f"{cuts}: {error!r}") from error
        return [dict(passed) for passed in proxy.passed], client.resumed, proxy.cuts_left


def cuts_of(passed):
    """Every place at which a connection can be cut."""
    for direction, length in passed.items():
        for at in range(1, length + 1):
            for leaves_half in (False, True):
                yield Cut(direction, at, leaves_half, resets=bool(at % 2))


def chosen(plans):
    """All with WSTHREADS_TEST_CUTS=all, and otherwise some, others each time."""
    if os.environ.get("WSTHREADS_TEST_CUTS") == "all":
        return plans
    return plans[random.randrange(len(plans) // CUTS) :: len(plans) // CUTS]


@pytest.mark.long
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("language", ["python", "javascript"])
def test_each_message_comes_once_and_in_order_wherever_the_connection_is_cut(language, compress, tmp_path):
    """The first connection is cut after each byte; and the second one, too, after the first was cut in the middle."""
    script = tmp_path / "handler.js"
    script.write_text(JS)
    settings = {"resume_s": 3600, "max_suspended_sessions": 100_000, "max_sessions": 10_000, "ping_interval_s": 0}
    target = script if language == "javascript" else Handler
    with live_server(target, "/ws", compression=compress, **settings) as server, ExitStack() as stack:
        free = []
        for _ in range(PARALLEL):
            free.append(CutProxy(server.port))
            stack.callback(free[-1].close)
        keys = itertools.count()

        def play(cuts):
            proxy = free.pop()  # atomic; there are as many as threads
            try:
                return run(proxy, next(keys), cuts, compress)
            finally:
                free.append(proxy)

        ((passed,), _, _) = play(())
        middle = Cut("down", passed["down"] * 7 // 8, leaves_half=True)
        (_, passed_again), resumed, _ = play((middle,))
        assert resumed, (passed, passed_again)
        plans = [(cut,) for cut in cuts_of(passed)] + [(middle, cut) for cut in cuts_of(passed_again)]
        plans = chosen(plans)
        with ThreadPoolExecutor(PARALLEL) as pool:
            results = list(pool.map(play, plans))
    assert sum(resumed for _, resumed, _ in results) > len(plans) / 3
    # When another connection has other acknowledgements or compresses better, its last bytes do not exist.
    assert sum(left > 0 for _, _, left in results) < len(plans) / 10
