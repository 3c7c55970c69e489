"""The module "wsthreads" of scripts, and `onReload`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.javascript.test_engine import without_engine  # noqa: F401
from tests.javascript_fakes import SHORT_S, FakeSession, Script, running, script_log
from tests.pages import blocks
from tests.programs import connect, receive, wait_until
from wsthreads import WebSocketApp
from wsthreads.errors import ScriptError
from wsthreads.testing import play

HOOK = "export function onOpen() {}\n"


@pytest.fixture(params=["script.js", "script.ts"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


def test_a_room_is_reached_without_a_session(path: Path) -> None:
    (path.parent / "lib.js").write_text(
        """import { room } from "wsthreads";
        export const speak = (text) => room("lobby").broadcast(text);
        """
    )
    path.write_text(
        """import { room } from "wsthreads";
        import { speak } from "./lib.js";
        const lobby = room("lobby");
        lobby.broadcast("to nobody yet");
        export function onOpen(session) { session.room("lobby").join(); }
        export function onMessage(session, message) {
          if (message === "timer") setTimeout(() => lobby.broadcast("by a timer"), 1);
          else if (message === "file") speak("by another file");
          else session.send(JSON.stringify([lobby.members(), lobby.getName(), typeof lobby.join]));
        }"""
    )
    with play(path) as chat:
        ann, bob = chat.connect(), chat.connect()
        ann.send("file")
        assert (ann.take(), bob.take()) == (["by another file"], ["by another file"])
        ann.send("timer")
        assert (ann.receive(), bob.receive()) == ("by a timer", "by a timer")
        ann.send("?")
        assert ann.take_json() == [[2, "lobby", "undefined"]]


def test_a_loop_goes_on_when_the_first_player_has_left(serve: Callable[..., Any], tmp_path: Path) -> None:
    script = tmp_path / "game.js"
    script.write_text(
        """import { room } from "wsthreads";
        const game = room("game");
        setInterval(() => game.broadcast(`tick for ${game.members()}`), 5);
        export function onOpen(session) { session.room("game").join(); }
        """
    )
    app = WebSocketApp()
    app.add_script("/ws/game", script)
    url = serve(app).ws_url + "/ws/game"
    with connect(url) as first:
        assert receive(first) == "tick for 1"
        with connect(url) as second:
            assert receive(second) == "tick for 2"
            first.close()
            wait_until(lambda: app.endpoint("/ws/game").room("game").members() == 1)
            while receive(second) != "tick for 1":
                pass


@pytest.mark.parametrize(
    ("arguments", "error", "part"),
    [
        ("", "TypeError", "a room name is a string, not undefined"),
        ("7", "TypeError", "a number"),
        ("''", "RangeError", "1 to 256 characters, not 0"),
        ("'x'.repeat(257)", "RangeError", "257"),
    ],
)
def test_an_invalid_room_name_is_refused(tmp_path: Path, arguments: str, error: str, part: str) -> None:
    source = f"""import {{ room }} from "wsthreads";
    export function onMessage(session) {{
      try {{ room({arguments}); }} catch (error) {{ session.send(`${{error.name}}: ${{error.message}}`); }}
    }}"""
    with running(tmp_path, source) as script:
        answer = script.answer(script.open())
        assert str(answer).startswith(error)
        assert part in str(answer)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('import { rom } from "wsthreads";', "there is no export 'rom' in wsthreads, which has room, "),
        ('import { rom } from "wsthreads";', "; did you mean room?"),
        ('import { Room as x } from "wsthreads";', "there is no export 'Room' in wsthreads"),
        ('import wsthreads from "wsthreads";', "there is no export 'default' in wsthreads"),
        ('export { rom } from "wsthreads";', "there is no export 'rom' in wsthreads"),
    ],
)
def test_an_unknown_export_is_named_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ScriptError) as caught:
        Script(tmp_path, f"{HOOK}{line}\n").handler.start()
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'script.js'}:2:")


def test_an_unknown_export_that_another_file_imports_is_named_there(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "more.js").write_text('import { session, sesions } from "wsthreads";')
    with pytest.raises(ScriptError, match=r"lib.more\.js:1:1: .*did you mean sessions"):
        Script(tmp_path, f'{HOOK}import "./lib/more.js";').handler.start()


def test_a_file_of_the_same_name_is_another_module(tmp_path: Path) -> None:
    (tmp_path / "wsthreads").write_text("export const room = 'a file';")
    source = """import { room } from "wsthreads";
    import { room as file } from "./wsthreads";
    export async function onMessage(session) {
      session.send(`${typeof room} ${file} ${room === (await import("wsthreads")).room}`);
    }"""
    with running(tmp_path, source) as script:
        assert script.answer(script.open()) == "function a file true"


def test_the_module_gives_nothing_of_the_runtime_away(tmp_path: Path) -> None:
    source = """import * as module from "wsthreads";
    export function onMessage(session) {
      const seen = new Set(["globalThis"]);
      for (const name of Object.keys(module)) {
        const handle = module[name];
        seen.add(Object.isFrozen(handle)).add(handle.prototype).add(Object.isFrozen(module.room("x")));
      }
      try { module.room.own = 1; } catch (error) { seen.add(error.name); }
      session.send([...seen].map(String).join());
    }"""
    with running(tmp_path, source) as script:
        assert script.answer(script.open()) == (
            "globalThis,true,RequestError,RequestTimeout,SessionClosed,SessionMoved,undefined,TypeError"
        )


# sessions()


SESSIONS = """import { sessions } from "wsthreads";
const ids = () => sessions().map((session) => session.id).sort();
const opened = [];
export function onHandshake(request) { request.setAttribute("in handshake", ids().length); }
export function onOpen(session) {
  opened.push(session);
  session.send(JSON.stringify([session.getAttribute("in handshake"), ids().length, sessions().includes(session)]));
}
export function onMessage(session) {
  const mine = sessions().find((one) => one.id === session.id);
  session.send(JSON.stringify([ids().length, mine === session, sessions() !== sessions(), opened.includes(mine)]));
}
export function onClose(session) { sessions().forEach((other) => other.send(`left: ${sessions().length}`)); }
"""


def test_sessions_are_those_that_handlers_get(tmp_path: Path) -> None:
    script = tmp_path / "script.js"
    script.write_text(SESSIONS)
    with play(script) as chat:
        ann = chat.connect()
        assert ann.take_json() == [[0, 1, True]]
        bob = chat.connect()
        assert bob.take_json() == [[1, 2, True]]
        bob.send("?")
        assert bob.take_json() == [[2, True, True, True]]
        ann.close()
        assert bob.take() == ["left: 1"]
        assert chat.app.endpoints[0].sessions() == [bob.session]


def test_each_endpoint_has_its_own_sessions(tmp_path: Path) -> None:
    script = tmp_path / "script.js"
    script.write_text(SESSIONS)
    app = WebSocketApp()
    app.add_script("/ws/one", script)
    app.add_script("/ws/two", script)
    with play(app, raise_errors=True) as chat:
        chat.connect(path="/ws/one")
        assert chat.connect(path="/ws/two").take_json() == [[0, 1, True]]
    app.shutdown()


# A handle that can do nothing


def test_what_a_handle_of_an_ended_session_cannot_do_is_logged_once(tmp_path: Path) -> None:
    source = """let kept;
    export function onOpen(session) { kept ??= session.room("r"); }
    export function onMessage(session, message) { kept[message](); session.send("done"); }
    export function onClose(session) { session.room("r").leave(); session.room("r").join(); }
    """
    with running(tmp_path, source) as script, script_log() as lines:
        first, second = script.open(), script.open()
        script.close(first)
        assert lines.texts() == [], "in onClose, the session is a member"
        for method in ("leave", "join", "leave"):
            assert script.answer(second, method) == "done"
        assert lines.texts() == ["room.leave() does nothing: the session of this room handle has ended"]
        assert (lines.records[0].file, lines.records[0].line) == ("script.js", 3)  # type: ignore[attr-defined]


# onReload


@pytest.fixture(params=["engine", "no engine"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "engine":
        return {}
    request.getfixturevalue("without_engine")
    return {"scripts_without_deadline": True}


RELOADED = """import { room, sessions } from "wsthreads";
const names = new Map();
const calls = [];
export function onOpen(session) { session.room("r").join(); names.set(session, session.getParameter("name")); }
export function onMessage(session) { session.send(JSON.stringify([[...names.values()], calls])); }
export function onReload(...values) {
  calls.push(values.length);
  for (const session of sessions()) names.set(session, session.getParameter("name"));
  room("r").broadcast("reloaded");
}
"""


def test_after_a_reload_a_script_can_rebuild_what_it_kept(tmp_path: Path, settings: dict[str, Any]) -> None:
    with running(tmp_path, RELOADED, **settings) as script:
        hub: dict[str, dict[str, FakeSession]] = {}
        ann, bob = FakeSession("name=ann", hub), FakeSession("name=bob", hub)
        script.open(ann)
        script.open(bob)
        assert json.loads(script.answer(ann)) == [["ann", "bob"], []], "not called for the first load"
        script.handler.reload()
        assert json.loads(script.answer(ann)) == [["ann", "bob"], [0]]
        script.handler.reload()
        assert json.loads(script.answer(bob)) == [["ann", "bob"], [0]], "once a reload, in the new version"


def test_it_runs_before_what_is_queued_for_the_new_version(tmp_path: Path, settings: dict[str, Any]) -> None:
    source = """let reloads = 0;
    export function onMessage(session, message) { session.send(`${message} ${reloads}`); }
    export function onReload() { reloads++; }
    """
    slow = "const until = Date.now() + 200; while (Date.now() < until) {}\n"
    with running(tmp_path, source, **settings) as script:
        session = script.open()
        assert script.answer(session, "before") == "before 0"
        script.path.write_text(slow + source)
        reloading = threading.Thread(target=script.handler.reload)
        reloading.start()
        sent = 0
        while reloading.is_alive():
            script.message(session, "during")
            sent += 1
        answers = session.wait_for_messages(1 + sent)[1:]
        seen = [str(answer).split()[1] for answer in answers]
        assert seen == sorted(seen), "0 by the old version, which never counts, then 1"
        script.handler.reload()
        assert script.answer(session, "after") == "after 1"


def test_a_reload_that_fails_calls_nothing(tmp_path: Path, settings: dict[str, Any]) -> None:
    source = """let reloads = 0;
    export function onMessage(session) { session.send(`${reloads}`); }
    export function onReload() { reloads++; }
    """
    with running(tmp_path, source, **settings) as script:
        session = script.open()
        script.path.write_text(source + "throw new Error('no');")
        with pytest.raises(ScriptError):
            script.handler.reload()
        assert script.answer(session) == "0"


@pytest.mark.parametrize(
    ("body", "logged"),
    [
        ("export function onReload() { throw new Error('no'); }", "onReload failed: Error: no"),
        ("export async function onReload() { await null; throw new Error('no'); }", "onReload failed: Error: no"),
        ("export function onReload() { return (function* () {})(); }", "onReload failed: TypeError: onReload returned"),
    ],
)
def test_its_errors_are_logged_and_counted(tmp_path: Path, settings: dict[str, Any], body: str, logged: str) -> None:
    source = "export function onMessage(session) { session.send('goes on'); }\n" + body
    with running(tmp_path, source, **settings) as script, script_log() as lines:
        session = script.open()
        script.handler.reload()
        assert script.answer(session) == "goes on"
        assert lines.wait_for(logged)
        assert script.count("handler_errors") == 1


@pytest.mark.parametrize("body", ["{ for (;;) {} }", "{ return new Promise(() => {}); }"])
def test_it_has_a_deadline(tmp_path: Path, body: str) -> None:
    source = f"export function onMessage(session) {{ session.send('goes on'); }}\nexport function onReload() {body}"
    with running(tmp_path, source, script_timeout_s=SHORT_S) as script, script_log() as lines:
        session = script.open()
        script.handler.reload()
        assert script.answer(session) == "goes on"
        lines.wait_for("onReload")
        assert script.count("script_timeouts") == 1
        assert session.is_open()


def test_its_timers_end_with_the_next_version(tmp_path: Path) -> None:
    source = """import { sessions } from "wsthreads";
    export function onReload() { setInterval(() => sessions().forEach((session) => session.send("tick")), 1); }
    """
    with running(tmp_path, source) as script:
        session = script.open()
        script.handler.reload()
        session.wait_for_messages(1)
        script.path.write_text("export function onMessage(session) { session.send('end'); }")
        script.handler.reload()
        script.message(session)
        session.wait_for(lambda session: session.sent[-1] == "end")
        script.message(session)
        session.wait_for(lambda session: session.sent[-2:] == ["end", "end"])


def test_a_module_of_the_new_version_gets_the_same_functions(tmp_path: Path) -> None:
    source = """import { room } from "wsthreads";
    globalThis.rooms ??= new Set();
    rooms.add(room);
    export function onMessage(session) { session.send(`${rooms.size}`); }
    """
    with running(tmp_path, source) as script:
        session = script.open()
        script.handler.reload()
        assert script.answer(session) == "1"
        assert {Path(file).name for file in script.handler.files()} == {"script.js"}


def test_the_example_of_a_reload(tmp_path: Path) -> None:
    example = next(block for block in blocks("docs/reference/scripts", "javascript") if "onReload" in block)
    asks = "export function onMessage(session) { session.send(JSON.stringify([...names.values()])); }"
    with running(tmp_path, example + asks) as script:
        ann, bob = FakeSession("name=ann"), FakeSession("name=bob")
        script.open(ann)
        script.open(bob)
        script.close(bob)
        script.handler.reload()
        assert script.answer(ann) == '["ann"]'
