"""A script's reader in C, with clients that speak wsthreads.1: what it takes is counted, once and in order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.speakers import Speaker
from tests.wire import serving
from wsthreads import WebSocketApp
from wsthreads.javascript import ScriptHandler
from wsthreads.javascript.session_state import SessionState
from wsthreads.protocol import envelope

COLLECTS = """
let seen = [];
export function onMessage(session, message) {
  if (message === "tell") session.send(seen.join());
  else seen.push(message instanceof ArrayBuffer ? `binary ${message.byteLength}` : message);
}
"""


@contextmanager
def collecting(tmp_path: Path, **settings: Any) -> Iterator[Any]:
    """A server of COLLECTS: its app and port."""
    (tmp_path / "script.js").write_text(COLLECTS)
    app = WebSocketApp(ping_interval_s=0, resume_s=60, **settings)
    app.add_script("/ws/test", tmp_path / "script.js")
    with serving(app) as port:
        yield app, port


def test_all_kinds_of_messages_of_such_a_client_are_counted_and_keep_their_order(tmp_path: Path) -> None:
    with collecting(tmp_path) as (_, port), Speaker(port).begin() as ann:
        written = []
        for number in range(510):
            message = {0: b"\0" * 5, 1: "\x10escaped", 2: "x" * 5000, 3: ""}.get(number % 7, str(number))
            written.append("binary 5" if isinstance(message, bytes) else message)
            ann.send(message)
            if number % 50 == 0:
                ann.put(envelope.ack(0))
        assert ann.heartbeat() == 510
        ann.send("tell")
        assert ann.next() == ",".join(written)


def test_such_a_client_gets_an_acknowledgement_after_64_messages_or_64_kib(tmp_path: Path) -> None:
    with collecting(tmp_path) as (_, port), Speaker(port).begin() as ann:
        for number in range(1 + 64):  # the first one confirms the welcome
            ann.send(str(number))
        assert ann.take() == envelope.Ack(65)
        for _ in range(33):
            ann.send("x" * 2000)
        assert ann.take() == envelope.Ack(98)


def test_texts_of_such_a_client_need_no_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_python = []
    message = ScriptHandler.message
    monkeypatch.setattr(ScriptHandler, "message", lambda *given: by_python.append(given) or message(*given))
    with collecting(tmp_path) as (app, port), Speaker(port).begin() as ann:
        for number in range(310):
            ann.send(str(number))
            if number % 10 == 0:  # no more than may wait for the script
                ann.send("tell")
                ann.next()
        assert ann.heartbeat() == 341
        endpoint = app.endpoint("/ws/test")
        assert endpoint._service.served.get(endpoint.sessions()[0].id).traffic().messages_in == 341
    assert len(by_python) < 20 if hasattr(SessionState, "pump") else len(by_python) == 341


@pytest.mark.parametrize("seed", range(3))
def test_what_is_taken_of_a_replaced_connection_is_what_its_client_is_told(tmp_path: Path, seed: int) -> None:
    """The client comes back again and again, in the midst of its messages, and leaves the old connection half open."""
    chance, count = random.Random(seed), 3000
    with collecting(tmp_path, max_sessions=100) as (_, port), ExitStack() as stack:
        ann = stack.enter_context(Speaker(port).begin())
        ann.heartbeat()
        taken = 0
        while taken < count:
            for number in range(taken, min(count, taken + chance.randrange(1, 400))):
                ann.send(str(number))
            again = stack.enter_context(Speaker(port))
            again.token, again.received = ann.token, ann.received
            assert again.come_back().resumed
            taken = again.sent = again.welcome.received
            ann = again
        ann.send("tell")
        assert ann.next() == ",".join(map(str, range(count)))


def test_messages_wait_behind_a_call_for_the_connection_before(tmp_path: Path) -> None:
    """What comes over a new connection is handled after what waits of the old one."""
    (tmp_path / "script.js").write_text(
        """let seen = [];
        export async function onMessage(session, text) {
          if (text === "ask") seen.push(await session.request("go on?"));
          else if (text === "tell") session.send(seen.join());
          else seen.push(text);
        }"""
    )
    app = WebSocketApp(ping_interval_s=0, resume_s=60)
    app.add_script("/ws/test", tmp_path / "script.js")
    with serving(app) as port, Speaker(port).begin() as ann, Speaker(port) as again:
        ann.send("ask")
        for number in range(100):  # more than may wait for the script
            ann.send(str(number))
        assert ann.next() == envelope.Request(1, "go on?")
        again.token, again.received = ann.token, ann.received
        again.come_back()
        for number in range(again.welcome.received - 1, 200):
            again.send(str(number))
        again.put(envelope.reply(1, "yes"))
        again.send("tell")
        assert again.next() == ",".join(["yes", *map(str, range(200))])
