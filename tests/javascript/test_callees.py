"""The error "not a function" names what was called, wherever its place tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.javascript_fakes import Script, running, script_log
from tests.programs import DEADLINE_S
from wsthreads.errors import ScriptError

CALLS = {
    "obj.a.b()": "obj.a.b",
    "obj.nothing('x')": "obj.nothing",
    "obj.a['b'](3)": "obj.a['b']",
    "(() => { const x = 5; return x(); })()": "x",
    "session.sned('x')": "session.sned",
    "new obj.a.b()": "obj.a.b",
    "obj.a?.b(1)": "obj.a?.b",
    "obj.a.b`text`": "obj.a.b",
    "(obj.a.b)(5)": None,
    "obj\n  .a\n  .b\n  (5)": "obj.a.b",
    "obj.f().g()": "(…).g",
    "obj.list[0].x()": "(…).x",
    "obj.list[0]()": "obj.list[0]",
    "[1].map(5)": "an argument of map",
    "new Promise(1)": "an argument of Promise",
    "Reflect.apply(1)": None,
    "(0, eval)('obj2 = {}; obj2.x()')": None,
}


@pytest.mark.parametrize(("code", "name"), CALLS.items())
def test_not_a_function_names_what_is_none(tmp_path: Path, code: str, name: str | None) -> None:
    source = f"""const obj = {{ a: {{ b: 1 }}, list: [5], f() {{ return {{}}; }} }};
    export function onMessage(session) {{ {code}; }}"""
    with script_log() as log, running(tmp_path, source) as script:
        script.message(script.open())
        script.handler.settle(DEADLINE_S)
        line = log.texts()[0].split("\n")[0]
    expected = "not a function" if name is None else f"{name} is not a function"
    assert line.partition(" in session ")[2].partition(" ")[2] == f"TypeError: {expected}"


def test_a_clients_text_is_not_taken_for_the_engines_error(tmp_path: Path) -> None:
    source = 'export function onMessage(session, text) { throw new Error(text + " TypeError: not a function"); }'
    with script_log() as log, running(tmp_path, source) as script:
        script.message(script.open(), "client's")
        assert log.wait_for("client's").split("\n")[0].endswith("Error: client's TypeError: not a function")


def test_check_names_it_too_also_in_typescript(tmp_path: Path) -> None:
    script = Script(tmp_path, "")
    path = tmp_path / "script.ts"
    script.handler.path = str(path)
    path.write_text("export function onOpen() {}\nconst all: any = {};\n\nall.nothing(1);\n")
    with pytest.raises(ScriptError, match=r"script.ts:4:\d+: TypeError: all.nothing is not a function"):
        script.handler.start()


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ('console.error("failed:", error)', "failed: TypeError: obj.nothing is not a function"),
        ('console.error(error, "again")', "TypeError: obj.nothing is not a function again"),
        (
            'console.error("%s of %s", error, text)',
            "TypeError: obj.nothing is not a function of TypeError: not a function",
        ),
        ("console.error(text, error)", "TypeError: not a function TypeError: obj.nothing is not a function"),
        ('console.error(text, new RangeError("other"))', "TypeError: not a function RangeError: other"),
        (
            'console.group(); console.error("a\\nb:", error)',
            "  a\n  |   b: TypeError: obj.nothing is not a function",
        ),
        ('console.assert(false, "wrong:", error)', "Assertion failed: wrong: TypeError: obj.nothing is not a function"),
        ('console.trace("here:", error)', "Trace: here: TypeError: obj.nothing is not a function"),
    ],
)
def test_the_console_names_it_behind_a_text_and_no_text_of_a_client(tmp_path: Path, call: str, line: str) -> None:
    source = f"""const obj = {{}};
    export function onMessage(session, text) {{ try {{ obj.nothing(1); }} catch (error) {{ {call}; }} }}"""
    with script_log() as log, running(tmp_path, source) as script:
        script.message(script.open(), "TypeError: not a function")
        script.handler.settle(DEADLINE_S)
        assert log.texts()[0].startswith(line + "\n")
