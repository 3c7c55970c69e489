"""`env` of scripts: exactly the names that were given, and nowhere else."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.javascript_fakes import script_log
from tests.pages import blocks
from tests.programs import Program, connect, receive, run_server
from wsthreads import WebSocketApp, create_app
from wsthreads.errors import ConfigError, UsageError
from wsthreads.javascript.environment import Environment, read_env_file
from wsthreads.testing import play

SECRET = "s3cr3t-value"

SOURCE = """import { env } from "wsthreads";
export function onMessage(session, code) {
  let answer;
  try { answer = new Function("env", code)(env); } catch (error) { answer = error.name; }
  session.send(JSON.stringify(answer ?? null));
}
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.js"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("return env", {"KEY": SECRET, "OTHER_2": "ü\n\"'", "__proto__": "x"}),
        ("return Object.keys(env)", ["KEY", "OTHER_2", "__proto__"]),
        ("return [env.PATH, env.toString, env.constructor]", [None, None, None]),
        ("'use strict'; env.KEY = 'changed'", "TypeError"),
        ("'use strict'; env.NEW = 'added'", "TypeError"),
        ("return Object.getPrototypeOf(env)", None),
        ("return [typeof process, Object.isFrozen(env)]", ["undefined", True]),
    ],
)
def test_a_script_has_exactly_what_was_given(script: Path, code: str, answer: Any) -> None:
    with play(script, env={"KEY": SECRET, "OTHER_2": "ü\n\"'", "__proto__": "x"}) as game:
        client = game.connect()
        client.send(code)
        assert client.take_json() == [answer]


def test_without_env_there_is_an_empty_object(script: Path) -> None:
    with play(script) as game:
        client = game.connect()
        client.send("return [Object.keys(env).length, Object.isFrozen(env)]")
        assert client.take_json() == [[0, True]]


def test_the_values_are_in_no_log_and_no_text(tmp_path: Path) -> None:
    (tmp_path / "script.js").write_text(
        """import { env } from "wsthreads";
        export function onMessage(session) {
          console.log(env, { env }, [env]); console.log("%o %j %s", env, env, env);
          console.dir(env); console.table([env]); console.table(env);
          console.log(env.KEY, { key: env.KEY }, "%s", [env.KEY]);
          session.setAttribute("env", env);
          try { session.close(env); } catch (error) { console.log(error.message); }
          try { null[env.KEY]; } catch (error) { session.send(error.message); }
          throw env;
        }"""
    )
    with script_log() as log, play(tmp_path / "script.js", env={"KEY": SECRET}, raise_errors=False) as game:
        client = game.connect()
        client.send("x")
        attributes = game.app.endpoints[0].handler.attributes(client.session)
        texts = "\n".join(log.texts())
        assert texts.count("[env, whose values are secret]") >= 4
        assert SECRET not in texts + json.dumps(attributes)
        assert SECRET in "".join(client.take())  # the script has the value itself
    environment = Environment({"KEY": SECRET})
    assert SECRET not in f"{environment!r} {environment}"


def test_lines_of_a_value_in_a_group_of_the_console_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "script.js").write_text(
        """import { env } from "wsthreads";
        export function onMessage() {
          console.group("g");
          console.group();
          console.log(env.KEY);
          console.log("a\\nb");
        }"""
    )
    with script_log() as log, play(tmp_path / "script.js", env={"KEY": "user=ann\npw=hunter22x\n\ttab=1"}) as game:
        game.connect().send("x")
        assert log.texts() == ["g", "    ***", "    a\n  |     b"]


def test_lines_of_a_value_in_an_object_of_the_console_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "script.js").write_text(
        """import { env } from "wsthreads";
        export function onMessage(session) {
          console.log({ db: { key: env.KEY } });
          console.log({ text: "line 1 of 2, and more\\nline 2 of 2, and more of that, which is split as in Node" });
        }"""
    )
    value = "user=ann\nit's=hunter22x\nhost=db1\nport=5432\nname=shop\nmode=strict\ntz=utc\nssl=on\nx=1"
    with script_log() as log, play(tmp_path / "script.js", env={"KEY": value}) as game:
        game.connect().send("x")
        hidden, split = log.texts()
        assert hidden == "{\n  |   db: {\n  |     key: '***'\n  |   }\n  | }"
        assert "' +\n" in split


@pytest.mark.parametrize(
    "code",
    ["new URL(env.KEY)", "null[env.KEY]", "throw env.KEY", "throw new Error('a', { cause: new Error(env.KEY) })"],
)
def test_the_text_of_an_error_shows_no_value(tmp_path: Path, code: str) -> None:
    path = tmp_path / "script.js"
    path.write_text(
        f"""import {{ env }} from "wsthreads";
        export function onMessage() {{
          try {{ {code}; }} catch (error) {{ console.log("caught", error); throw error; }}
        }}"""
    )
    with script_log() as log, play(path, env={"KEY": SECRET, "ON": "1"}, raise_errors=False) as game:
        game.connect().send("x")
        texts = "\n".join(log.texts())
        assert texts.count("***") >= 2
        assert SECRET not in texts


PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nAASCBKcwggSjAgEAAoIBAQC7\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize("value", ["pa\"ss\\word-123", "it's \"über\" & soon", PEM], ids=["escapes", "quoted", "lines"])
def test_no_form_of_a_value_is_in_the_text_of_an_error(tmp_path: Path, value: str) -> None:
    (tmp_path / "store.py").write_text(
        """def in_repr(key): raise ValueError(f"bad key {key!r}")
def in_longer_repr(key): raise KeyError(f"\'{key}\'" + '"')
def in_ascii(key): raise ValueError(ascii(key))
def in_bytes(key): raise ValueError(key.encode())
def in_url(key): from urllib.parse import quote; raise ValueError(f"no answer from /?key={quote(key)}&a")
def in_query(key): from urllib.parse import urlencode; raise ValueError(f"no answer from /?{urlencode({'key': key})}&a")
def in_lines(key): raise ValueError(key.splitlines()[-1] if len(key) < 100 else key.splitlines()[1])
def in_note(key):
    error = ValueError("***")
    error.__notes__ = [f"with {key}"]
    raise error
def in_cause(key): raise ValueError("a") from KeyError(key)
def in_part(key): raise ValueError(f"bad key {key[:len(key) * 5 // 6]!r}")
"""
    )
    ways = ["repr", "longer_repr", "ascii", "bytes", "url", "query", "lines", "note", "cause", "part"]
    codes = [
        *(f"await store.in_{way}(env.KEY)" for way in ways),
        "throw 'text ' + env.KEY", "throw { key: env.KEY }", "throw new Error(encodeURIComponent(env.KEY) + '?')",
        "throw new Error(JSON.stringify({ key: env.KEY }))", "throw new Error('a', { cause: env.KEY })",
        "throw new AggregateError([env.KEY, { key: env.KEY }], 'a')", "session.room(env.KEY.repeat(40)).join()",
    ]  # fmt: skip
    cases = "\n".join(f"async (session) => {{ {code}; }}," for code in codes)
    (tmp_path / "script.js").write_text(
        f"""import {{ env }} from "wsthreads"; import * as store from "./store.py";
        const cases = [{cases}];
        export async function onMessage(session, number) {{ await cases[number](session); }}"""
    )
    pieces = set(re.findall(r"\w{4,}", value)) - {"BEGIN", "PRIVATE"}
    with script_log() as log, play(tmp_path / "script.js", env={"KEY": value}, raise_errors=False) as game:
        for number, code in enumerate(codes):
            game.connect().send(str(number))
            game.settle()
            text = log.texts()[-1]
            shown = {piece for piece in pieces if piece in text}
            assert not shown, f"{code}: {text}"
            assert "***" in text, f"{code}: {text}"


@pytest.mark.parametrize(
    "shown", ["'sk_live_abcdef' is too long", "bad key 'sk_live_abc...'", "`sk_live_abcdef`", "sk_live_a…"]
)
def test_a_value_that_is_cut_off_within_the_text_of_an_error_is_not_shown(tmp_path: Path, shown: str) -> None:
    (tmp_path / "script.js").write_text(f"export function onMessage() {{ throw new Error({json.dumps(shown)}); }}")
    env = {"KEY": "sk_live_abcdefghij"}
    with script_log() as log, play(tmp_path / "script.js", env=env, raise_errors=False) as game:
        game.connect().send("x")
        assert "***" in log.texts()[-1]
        assert "sk_live" not in log.texts()[-1]


def test_a_text_that_begins_like_a_value_is_shown(tmp_path: Path) -> None:
    env = {"MODE": "development", "URL": "https://user:pw@example.com", "SHORT": "error", "TO": "production"}
    text = "the developer of https://example.net has an error: no such product, develop a product"
    (tmp_path / "script.js").write_text(f"export function onMessage() {{ throw new Error({text!r}); }}")
    with script_log() as log, play(tmp_path / "script.js", env=env, raise_errors=False) as game:
        game.connect().send("x")
        assert f"Error: {text}" in log.texts()[-1]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"a-b": "x"}, "env has a name that is not made of letters, digits and _: 'a-b'"),
        ({5: SECRET}, "env has a name that is not made of letters, digits and _: 5"),
        ({"": SECRET}, "not made of letters"),
        ({"KEY": 5}, "env['KEY'] must be text, not int"),
        ({"KEY": None}, "env['KEY'] must be text, not NoneType"),
        ([("KEY", SECRET)], "env must be a dict of names and texts, not list"),
    ],
)
def test_what_is_no_environment_is_refused_without_its_values(script: Path, env: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        create_app(script, env=env)
    assert SECRET not in str(error.value)


def test_add_script_reads_a_file_as_create_app_does(script: Path) -> None:
    script.with_name(".env").write_text("KEY=from the file\nOTHER=too\n")
    app = WebSocketApp()
    app.add_script("/ws/game", script, env={"KEY": "from env"}, env_file=script.with_name(".env"))
    try:
        assert dict(app.endpoints[0].handler._env) == {"KEY": "from env", "OTHER": "too"}
    finally:
        app.shutdown(0)


FILE = """\ufeff# a comment
PLAIN=one two   # a comment
  export EXPORTED = exported
EMPTY=
HASH=a#b
SINGLE='as # it \\n is' # a comment
DOUBLE="line\\none\\t\\"two\\" \\\\ $PLAIN \\x"
LONG="first
# second
third"
EQUALS=a=b==
TWICE=1
TWICE=2
BACK=`it's "so"`
"""


def test_a_file_has_names_and_values(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(FILE)
    assert read_env_file(tmp_path / ".env") == {
        "PLAIN": "one two", "EXPORTED": "exported", "EMPTY": "", "HASH": "a#b", "SINGLE": "as # it \\n is",
        "DOUBLE": 'line\none\t"two" \\ $PLAIN \\x', "LONG": "first\n# second\nthird", "EQUALS": "a=b==", "TWICE": "2",
        "BACK": "it's \"so\"",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"A=1\n{SECRET}\n", ":2: this line is not NAME=value, with a name of letters, digits and _"),
        (f"a b={SECRET}", ":1: this line is not NAME=value"),
        (f"1A={SECRET}", ":1: this line is not NAME=value"),
        (f'\nA="{SECRET}\nB=5', ':2: the value has no closing "'),
        (f"A='{SECRET}' more", ":1: there is text after the closing '"),
        (f"={SECRET}", ":1: this line is not NAME=value"),
    ],
)
def test_a_file_that_is_wrong_is_an_error_with_its_line_and_without_values(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / ".env"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(f"{path}{message}")) as error:
        read_env_file(path)
    assert SECRET not in str(error.value)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing: No such file or directory"):
        read_env_file(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"A=\xff")
    with pytest.raises(UsageError, match=r"binary: it is not UTF-8"):
        read_env_file(tmp_path / "binary")


def test_the_example_of_the_reference_works(tmp_path: Path) -> None:
    page = "docs/reference/scripts"
    (tmp_path / "chat.js").write_text(next(block for block in blocks(page, "javascript") if "GREETING" in block))
    (tmp_path / ".env").write_text(next(block for block in blocks(page, "ini") if "GREETING" in block))
    env = read_env_file(tmp_path / ".env")
    assert env["API_KEY"] == "abc123"
    with play(tmp_path / "chat.js", env=env) as game:
        client = game.connect()
        client.send("x")
        assert client.take() == ["Good morning,\neverybody"]


def test_run_and_check_take_a_file(script: Path) -> None:
    (script.parent / ".env").write_text(f"KEY={SECRET}\n")
    check = [sys.executable, "-m", "wsthreads", "check", "script.js", "--env-file", ".env"]
    (script.parent / "top.js").write_text(f'import {{ env }} from "wsthreads";\nif (!env.KEY) throw 1;\n{SOURCE}')
    with Program([*check[:-2], "--env-file", ".env"], cwd=script.parent) as program:
        assert program.wait() == 0
    tells = 'import { env } from "wsthreads"; console.log(env.KEY); throw new Error(`no answer with ${env.KEY}`);'
    (script.parent / "tells.js").write_text(tells)
    with Program([*check[:4], "tells.js", *check[5:]], cwd=script.parent) as program:
        assert program.wait() == 1
        assert program.log.count("***") == 2
        assert SECRET not in program.log
    environment = {**os.environ, "NEVER": "seen"}
    with run_server(script, "--env-file", str(script.parent / ".env"), env=environment) as server:
        with connect(server.ws_url + "/ws/script") as client:
            client.send("return env")
            assert json.loads(receive(client)) == {"KEY": SECRET}
        assert SECRET not in server.log
    with Program([*check[:-1], "nowhere"], cwd=script.parent) as program:
        assert program.wait() == 1
        assert "nowhere: No such file or directory" in program.log


def test_a_reload_and_a_restart_keep_what_was_given(tmp_path: Path) -> None:
    """The top level needs the value, also in the process that checks a change before a restart."""
    needs = 'import { env } from "wsthreads";\nif (!env.KEY) throw new Error("no KEY");\n'
    echo = "export function onMessage(session) { session.send(`%s ${env.KEY.length}`); }\n"
    (tmp_path / ".env").write_text(f"KEY={SECRET}\n")
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "one.js").write_text(needs + echo % "one")
    with run_server("handlers", "--reload", "--env-file", ".env", cwd=tmp_path) as server:
        (tmp_path / "handlers" / "one.js").write_text(needs + echo % "first")
        server.wait_for(r"one\.js reloaded")
        with connect(server.ws_url + "/ws/one") as client:
            client.send("x")
            assert receive(client) == f"first {len(SECRET)}"
        (tmp_path / "handlers" / "two.js").write_text(needs + echo % "two")
        server.wait_for(rf"^Listening on {server.url} ", times=2)
        with connect(server.ws_url + "/ws/two") as client:
            client.send("x")
            assert receive(client) == f"two {len(SECRET)}"
        assert SECRET not in server.log
