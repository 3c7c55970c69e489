"""Presence in scripts: `room.join({ presence })`, `setPresence`, `presence()` and `onPresence`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.javascript.test_engine import without_engine  # noqa: F401
from tests.javascript_fakes import SHORT_S, script_log
from wsthreads import WebSocketApp
from wsthreads.testing import HandlerFailed, Play, play

SOURCE = """import { room } from "wsthreads";
const uses = {
  join: (session, value) => session.room("lobby").join({ presence: value }),
  plain: (session) => session.room("lobby").join(),
  set: (session, value) => session.room("lobby").setPresence(value),
  leave: (session) => session.room("lobby").leave(),
  close: (session, code) => session.close(code),
  who: () => room("lobby").presence(),
  here: (session) => session.room("lobby").presence(),
  rooms: (session) => session.rooms(),
  run: (session, code) => (0, eval)(code)(session.room("lobby")),
};
export function onMessage(session, message) {
  const [use, value] = JSON.parse(message);
  let answer;
  try {
    answer = { result: uses[use](session, value) };
  } catch (error) {
    answer = { error: `${error.name}: ${error.message}` };
  }
  if (session.isOpen()) session.send(JSON.stringify(answer));
}
export function onPresence(room, changes) {
  const names = (persons) => persons.map((person) => person.presence);
  return JSON.stringify({
    room: room.getName(), members: room.members(), joined: names(changes.joined), left: names(changes.left),
    changed: names(changes.changed),
  });
}
"""


@pytest.fixture(params=["script.js", "script.ts"])
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    path.write_text(SOURCE if path.suffix == ".js" else f"type Unused = any;\n{SOURCE}")
    return path


@pytest.fixture(params=["engine", "no engine"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "engine":
        return {}
    request.getfixturevalue("without_engine")
    return {"scripts_without_deadline": True}


def ask(client: Any, *request: Any) -> Any:
    client.take()
    client.send(json.dumps(request))
    return client.take_json()[-1].get("result")


def error_of(client: Any, *request: Any) -> str:
    client.take()
    client.send(json.dumps(request))
    error: str = client.take_json()[-1]["error"]
    return error


def told(changes: dict[str, Any], members: int = 1) -> dict[str, Any]:
    return {"room": "lobby", "members": members, "joined": [], "left": [], "changed": [], **changes}


def test_members_are_told_what_on_presence_returns(script: Path, settings: dict[str, Any]) -> None:
    with play(script, **settings) as chat:
        ann, bob = chat.connect(), chat.connect()
        ask(ann, "join", {"name": "ann"})
        assert ann.take() == [], "not before the interval is over"
        chat.advance(0.2)
        assert ann.take_json() == [told({"joined": [{"name": "ann"}]})]
        ask(bob, "join", None)
        ask(ann, "set", ["new"])
        chat.advance(0.2)
        expected = [told({"joined": [None], "changed": [["new"]]}, 2)]
        assert (ann.take_json(), bob.take_json()) == (expected, expected)
        chat.advance(10)
        assert ann.take() == [], "nothing to tell"
        ask(bob, "leave")
        chat.advance(0.2)
        assert (ann.take_json(), bob.take()) == ([told({"left": [None]})], [])


def test_a_lost_connection_has_its_time_to_come_back(script: Path) -> None:
    with play(script) as chat:
        ann, bob = chat.connect(), chat.connect()
        ask(ann, "join", "ann")
        ask(bob, "join", "bob")
        chat.advance(0.2)
        bob.lose()
        ann.take()
        chat.advance(9.9)
        assert ann.take() == []
        assert [person["sessions"] for person in ask(ann, "who")] == [1, 0]
        chat.advance(0.4)
        assert ann.take_json() == [told({"left": ["bob"]})]


def test_the_persons_in_a_room(script: Path, settings: dict[str, Any]) -> None:
    with play(script, **settings) as chat:
        ann, bob = chat.connect(), chat.connect()
        assert ask(ann, "who") == []
        ask(ann, "plain")
        assert ask(ann, "who") == [], "only those with a value"
        ask(ann, "join", "ü 😀 \ud800")
        ask(bob, "join", {"a": [1, 2.5, True, None]})
        first, second = ask(bob, "who")
        assert ask(bob, "here") == [first, second]
        assert first == {
            "key": ann.session.id, "user": None, "presence": "ü 😀 \ud800", "since": first["since"], "sessions": 1,
        }  # fmt: skip
        assert second["presence"] == {"a": [1, 2.5, True, None]}
        assert abs(first["since"] - ann.session.opened_at * 1000) < 60_000, "milliseconds, as Date.now()"
        assert first["since"] == int(first["since"]) <= second["since"]
        (person, _) = chat.room("lobby").presence()
        assert round(person.since * 1000) == first["since"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("room.join({ presence: () => 1 })", "TypeError: a presence value must be JSON, not [function presence]"),
        ("room.join({ presence: 1n })", "TypeError: a presence value must be JSON, not 1n"),
        ("room.join({ presence: NaN })", "TypeError: a presence value must be JSON, not NaN"),
        ("{ const a = []; a.push(a); room.join({ presence: a }); }", "TypeError: a presence value must be JSON, not "),
        (
            "room.join({ presence: { toJSON() { throw 1; } } })",
            "TypeError: a presence value must be JSON, not [unreadable]",
        ),
        ("room.join({ presence: 'ü'.repeat(512) })", "RangeError: a presence value has 1026 bytes as JSON; max_pr"),
        ("room.join({ presence: 'x'.repeat(5e6) })", "5000002 bytes as JSON; max_presence_bytes allows at most"),
        ("room.join({ presense: 1 })", "TypeError: room.join takes the options presence, history, since and max"),
        ("room.join('ann')", "TypeError: room.join takes options such as { presence: … }, not a string"),
        ("room.join(null)", "TypeError: room.join takes options such as { presence: … }, not null"),
        ("room.setPresence(1)", "RangeError: only a member can set its presence in a room: join 'lobby' first"),
        ("room.setPresence()", "TypeError: a presence value must be JSON, not undefined"),
        (
            "room.join({ presence: { at: [0 / 0] } })",
            """TypeError: a presence value must be JSON, not NaN at ["at"][0]""",
        ),
        ("room.setPresence({ x: 1 / 0 })", """TypeError: a presence value must be JSON, not Infinity at ["x"]"""),
        ("room.setPresence(Symbol('s'))", "TypeError: a presence value must be JSON, not Symbol(s)"),
    ],
)
def test_an_invalid_presence_is_refused_and_nothing_has_happened(tmp_path: Path, code: str, error: str) -> None:
    script = tmp_path / "script.js"
    script.write_text(SOURCE)
    with play(script) as chat:
        ann = chat.connect()
        assert error in error_of(ann, "run", f"(room) => {{ {code} }}")
        assert ask(ann, "rooms") == []
        assert ask(ann, "who") == []


@pytest.mark.parametrize("options", ["", "undefined", "{}", "{ presence: undefined }"])
def test_without_a_value_there_is_no_presence(tmp_path: Path, options: str) -> None:
    script = tmp_path / "script.js"
    script.write_text(SOURCE)
    with play(script) as chat:
        ann = chat.connect()
        ask(ann, "run", f"(room) => room.join({options})")
        assert (ask(ann, "rooms"), ask(ann, "who")) == (["lobby"], [])


def test_a_handle_of_an_ended_session_sets_nothing(tmp_path: Path) -> None:
    script = tmp_path / "script.js"
    script.write_text(
        """let kept;
        export function onOpen(session) { kept ??= session.room("lobby"); }
        export function onMessage(session) {
          kept.setPresence(1);
          kept.join({ presence: 1 });
          session.send(JSON.stringify(kept.presence()));
        }"""
    )
    with play(script) as chat, script_log() as lines:
        ann, bob = chat.connect(), chat.connect()
        ann.close()
        bob.send("?")
        assert bob.take() == ["[]"]
        assert lines.texts() == ["room.setPresence() does nothing: the session of this room handle has ended"]


# What onPresence returns


def playing(tmp_path: Path, on_presence: str, **settings: Any) -> Play:
    script = tmp_path / "returns.js"
    script.write_text(
        f"""export function onOpen(session) {{ session.room("r").join({{ presence: 1 }}); }}
        {on_presence}"""
    )
    return play(script, **settings)


@pytest.mark.parametrize(
    ("answer", "received"),
    [
        ("'text'", ["text"]),
        ("'x'.repeat(5000)", ["x" * 5000]),
        ("''", [""]),
        ("new Uint8Array([0, 255])", [b"\0\xff"]),
        ("new ArrayBuffer(2)", [b"\0\0"]),
        ("undefined", []),
        ("null", []),
        ("Promise.resolve('later')", ["later"]),
        ("new Promise((done) => setTimeout(done, 5, new Uint8Array(3)))", [b"\0\0\0"]),
        ("Promise.resolve()", []),
    ],
)
def test_what_it_returns_is_broadcast(
    tmp_path: Path, settings: dict[str, Any], answer: str, received: list[str | bytes]
) -> None:
    with playing(tmp_path, f"export function onPresence() {{ return {answer}; }}", **settings) as chat:
        ann = chat.connect()
        chat.advance(0.2)
        assert ann.take() == received
        assert chat.connect().take() == []


@pytest.mark.parametrize(
    ("body", "logged"),
    [
        ("function onPresence() { return 7; }", "onPresence returns a string, an ArrayBuffer or a typed array, not a"),
        ("async function onPresence() { return {}; }", "not an Object; try JSON.stringify"),
        ("function onPresence() { throw new Error('no'); }", "onPresence failed: Error: no"),
        ("async function onPresence() { await null; throw new Error('no'); }", "onPresence failed: Error: no"),
        ("function onPresence() { return (function* () {})(); }", "onPresence returned a generator, whose body never"),
    ],
)
def test_an_error_is_logged_and_counted_and_goes_to_no_session(
    tmp_path: Path, settings: dict[str, Any], body: str, logged: str
) -> None:
    on_error = "export function onError(session) { session.send('never'); }"
    with playing(tmp_path, f"{on_error}\nexport {body}", raise_errors=False, **settings) as chat:
        ann = chat.connect()
        chat.advance(0.2)
        assert ann.take() == []
        (error,) = chat.errors
        assert isinstance(error, HandlerFailed)
        assert logged in str(error)
        assert chat.app.endpoints[0].totals().errors == 1
        chat.connect()
        chat.advance(0.2)
        assert len(chat.errors) == 2 or "generator" in logged, "the next change is told"


@pytest.mark.parametrize("body", ["{ for (;;) {} }", "{ return new Promise(() => {}); }"])
def test_it_has_a_deadline(tmp_path: Path, body: str) -> None:
    source = f"""export function onMessage(session) {{ session.send("goes on"); }}
    export function onPresence() {body}"""
    with playing(tmp_path, source, script_timeout_s=SHORT_S, script_wait_s=SHORT_S, raise_errors=False) as chat:
        ann = chat.connect()
        chat.advance(0.2)
        (error,) = chat.errors
        assert re.search(f"({SHORT_S:g}|{2 * SHORT_S:g}) s", str(error))
        assert "onPresence" in str(error)
        ann.send("?")
        assert ann.take() == ["goes on"]


def test_its_time_is_measured(tmp_path: Path) -> None:
    with playing(tmp_path, "export async function onPresence() {}") as chat:
        chat.connect()
        chat.advance(0.2)
        assert chat.app.endpoints[0].totals().handler_seconds["on_presence"].count == 1


def test_its_message_has_its_place_among_the_broadcasts_of_the_room(tmp_path: Path) -> None:
    source = """export function onMessage(session, message) { session.room("r").broadcast(message); }
    export function onPresence(room) { room.broadcast("from inside"); return "returned"; }"""
    with playing(tmp_path, source) as chat:
        ann = chat.connect()
        ann.send("before")
        chat.advance(0.2)
        ann.send("after")
        assert ann.take() == ["before", "from inside", "returned", "after"]


def test_a_reload_can_bring_it_and_take_it_away(tmp_path: Path) -> None:
    script = tmp_path / "script.js"
    plain = 'export function onMessage(session) { session.room("r").join({ presence: 1 }); }\n'
    script.write_text(plain)
    app = WebSocketApp()
    app.add_script("/ws/p", script)
    with play(app) as chat:
        handler: Any = app.endpoints[0].handler
        ann, bob = chat.connect(), chat.connect()
        ann.send("join")
        script.write_text(plain + "export function onPresence(room, { joined }) { return `${joined.length}`; }")
        handler.reload()
        chat.advance(0.2)
        bob.send("join")
        chat.advance(0.2)
        assert bob.take() == ["1"]
        script.write_text(plain)
        handler.reload()
        chat.connect().send("join")
        chat.advance(0.2)
        assert bob.take() == []
    app.shutdown(5)
