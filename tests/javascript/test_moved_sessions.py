"""Sessions of scripts that go on in another process, over Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.javascript_fakes import script_log
from tests.programs import wait_until
from tests.redis_server import RedisServer
from tests.speakers import Speaker
from tests.wire import serving
from wsthreads import WebSocketApp
from wsthreads.brokers.redis import RedisBroker

SOURCE = """
import { sessions } from "wsthreads";
const seen = [];
export function onOpen(session) { session.room("all").join(); session.setAttribute("seen", { words: [] }); }
export async function onMessage(session, text) {
  await null;
  const { words } = session.getAttribute("seen");
  words.push(text);
  session.setAttribute("seen", { words });
  if (text === "map") session.setAttribute("map", new Map());
  session.send(`${words} ${session.user} ${sessions().length} ${session.rooms()}`);
}
export async function onSuspend(session) { await null; console.log("suspended"); RETURNS }
export function onResume(session) { session.send(`resumed ${JSON.stringify(session.getAttributes())}`); }
export function onHandshake(request) { request.setUser("ann"); }
export function onClose(session, code) { console.log(`closed ${code}`); }
"""

_prefixes = count(1)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@contextmanager
def process(redis: RedisServer, prefix: str, path: Path) -> Iterator[Any]:
    """The endpoint and the port of an app that has nothing in common with others but Redis."""
    app = WebSocketApp(broker=RedisBroker(redis.url, prefix=prefix), resume_s=60, ping_interval_s=0)
    app.add_script("/ws/test", path)
    with serving(app) as port:
        yield app.endpoint("/ws/test"), port


@contextmanager
def processes(redis: RedisServer, folder: Path, returns: str = "") -> Iterator[tuple[Any, Any]]:
    path, prefix = folder / "script.js", f"moved-{next(_prefixes)}"
    path.write_text(SOURCE.replace("RETURNS", returns))
    with process(redis, prefix, path) as first, process(redis, prefix, path) as second:
        yield first, second


def go_to(ann: Speaker, port: int) -> bool:
    return bool(ann.go_to(port).greet().resumed)


def test_a_script_s_session_goes_on_in_another_process_with_its_attributes(redis: RedisServer, tmp_path: Path) -> None:
    with script_log() as log, processes(redis, tmp_path) as (first, second), Speaker(first[1]).begin() as ann:
        ann.send("a")
        assert ann.next() == "a ann 1 all"
        ann.lose()
        log.wait_for("suspended")
        assert go_to(ann, second[1])
        assert ann.next() == 'resumed {"seen":{"words":["a"]}}'
        ann.send("b")
        assert ann.next() == "a,b ann 1 all"
        wait_until(lambda: not first[0].sessions())
        assert not first[0].handler._isolate._states
        second[0].room("all").broadcast("hello")
        assert ann.next() == "hello"
        ann.lose()
        assert go_to(ann, first[1])
        assert ann.next() == 'resumed {"seen":{"words":["a","b"]}}'
        assert not [text for text in log.texts() if text.startswith("closed")]
        ann.leave()
        log.wait_for("closed 1000")


def test_it_takes_along_what_on_suspend_returns(redis: RedisServer, tmp_path: Path) -> None:
    returns = "return { seen: { words: ['taken'] } };"
    with processes(redis, tmp_path, returns) as (first, second), Speaker(first[1]).begin() as ann:
        ann.send("map")
        ann.next()
        ann.lose()
        assert go_to(ann, second[1])
        assert ann.next() == 'resumed {"seen":{"words":["taken"]}}'


def test_a_session_whose_attributes_are_no_json_does_not_move(redis: RedisServer, tmp_path: Path) -> None:
    with script_log() as log, processes(redis, tmp_path) as (first, second), Speaker(first[1]).begin() as ann:
        ann.send("map")
        ann.next()
        ann.lose()
        assert not go_to(ann, second[1])
        assert ann.welcome.why == "elsewhere"
        log.wait_for("closed 1006")
