"""A session and its handles on rooms that a handler keeps, after the session has ended: in both languages."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.programs import connect, receive, wait_until
from wsthreads import RedisBroker, WebSocketApp

JAVASCRIPT = """
let kept;
const uses = {
  broadcast: () => kept.room.broadcast("to all"),
  bytes: () => kept.room.broadcast(new Uint8Array(2000).fill(7)),
  long: () => kept.room.broadcast("x".repeat(2000)),
  except: () => kept.room.broadcastExcept("to all but it"),
  fresh: () => kept.session.room("r").broadcast("by a fresh handle"),
  members: () => kept.room.members(),
  name: () => kept.room.getName(),
  join: () => kept.room.join(),
  leave: () => kept.room.leave(),
  state: () => [kept.session.isOpen(), kept.session.send("x"), kept.session.rooms(), kept.session.getParameter("keep")],
};
export function onOpen(session) {
  const room = session.room("r");
  if (session.getParameter("keep")) kept = { session, room };
  room.join();
}
export function onMessage(session, message) {
  session.send(JSON.stringify({ answer: uses[message]() ?? null }));
}
"""

PYTHON = """
import json
kept = []
uses = {
    "broadcast": lambda session, room: room.broadcast("to all"),
    "bytes": lambda session, room: room.broadcast(bytes([7]) * 2000),
    "long": lambda session, room: room.broadcast("x" * 2000),
    "except": lambda session, room: room.broadcast_except("to all but it"),
    "fresh": lambda session, room: session.room("r").broadcast("by a fresh handle"),
    "members": lambda session, room: room.members(),
    "name": lambda session, room: room.name,
    "join": lambda session, room: room.join(),
    "leave": lambda session, room: room.leave(),
    "state": lambda session, room: [session.is_open(), session.send("x"), session.rooms(),
                                    session.get_parameter("keep")],
}
def on_open(session):
    room = session.room("r")
    if session.get_parameter("keep"):
        kept[:] = [session, room]
    room.join()
def on_message(session, message):
    session.send(json.dumps({"answer": uses[message](*kept)}))
"""


@pytest.fixture(params=["script.js", "handler.py"])
def handler(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    path.write_text(JAVASCRIPT if path.suffix == ".js" else PYTHON)
    return path


@pytest.fixture(params=["memory", "redis"])
def app(request: pytest.FixtureRequest, handler: Path) -> Any:
    settings = {}
    if request.param == "redis":
        url = request.getfixturevalue("redis_server").url
        settings["broker"] = RedisBroker(url, prefix=f"kept-{random.randrange(2**32)}")
    app = WebSocketApp(**settings)
    if handler.suffix == ".js":
        app.add_script("/ws/kept", handler)
    else:
        functions: dict[str, Any] = {}
        exec(handler.read_text(), functions)
        kept = type("Kept", (), {name: staticmethod(functions[name]) for name in ("on_open", "on_message")})
        app.route("/ws/kept")(kept)
    return app


def ask(client: Any, use: str) -> tuple[Any, list[Any]]:
    """What the use of the kept handle answered, and the broadcasts that came before that."""
    client.send(use)
    heard: list[Any] = []
    while not (isinstance(message := receive(client), str) and message.startswith('{"answer"')):
        heard.append(message)
    return json.loads(message)["answer"], heard


def test_a_handle_reaches_its_room_after_its_session_has_ended(serve: Callable[..., Any], app: WebSocketApp) -> None:
    url = serve(app).ws_url + "/ws/kept"
    with connect(url) as member, connect(url) as other:
        with connect(f"{url}?keep=1"):
            wait_until(lambda: app.endpoint("/ws/kept").room("r").members() == 3)
        wait_until(lambda: app.endpoint("/ws/kept").session_count() == 2)
        wait_until(lambda: ask(member, "members")[0] == 2)
        assert ask(member, "name")[0] == "r"
        expected = {
            "broadcast": "to all",
            "except": "to all but it",
            "bytes": bytes([7]) * 2000,
            "long": "x" * 2000,
            "fresh": "by a fresh handle",
        }
        for use, message in expected.items():
            heard = ask(member, use)[1]
            if not heard:  # over Redis, another thread sends it
                heard = [receive(member)]
            assert heard == [message]
            assert receive(other) == message


def test_what_is_about_the_session_itself_does_nothing(serve: Callable[..., Any], app: WebSocketApp) -> None:
    url = serve(app).ws_url + "/ws/kept"
    with connect(url) as member:
        with connect(f"{url}?keep=1"):
            wait_until(lambda: app.endpoint("/ws/kept").room("r").members() == 2)
        wait_until(lambda: app.endpoint("/ws/kept").session_count() == 1)
        answer, heard = ask(member, "join")
        assert answer in ({"joined": False, "complete": False}, [False, False])
        assert heard == []
        assert ask(member, "leave") == (None, [])
        wait_until(lambda: ask(member, "members")[0] == 1)
        assert ask(member, "state")[0] == [False, False, [], "1"]


def test_a_timer_of_an_ended_session_and_of_an_older_version_speaks_in_its_room(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    script = tmp_path / "script.js"
    script.write_text(
        """export function onOpen(session) {
          const room = session.room("r");
          if (session.getParameter("keep")) setInterval(() => room.broadcast(`still ${room.members()}`), 10);
          else room.join();
        }"""
    )
    app = WebSocketApp()
    app.add_script("/ws/kept", script)
    url = serve(app).ws_url + "/ws/kept"
    with connect(url) as member:
        with connect(f"{url}?keep=1"):
            assert receive(member) == "still 1"
        wait_until(lambda: app.endpoint("/ws/kept").session_count() == 1)
        script.write_text("export function onMessage(session, message) { session.send(message); }")
        app.endpoint("/ws/kept").handler.reload()  # type: ignore[attr-defined]
        member.send("reloaded")
        while receive(member) != "reloaded":
            pass
        assert receive(member) == "still 1"
