"""Imports that go wrong say what was perhaps meant; JSON is imported as data."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.javascript_fakes import Script, running
from tests.programs import Program
from wsthreads.config import Config
from wsthreads.errors import ScriptError
from wsthreads.javascript import check_script
from wsthreads.javascript.imports import meant_files, without_attributes

HOOK = "export function onMessage(session) {}\n"


def write(folder: Path, **files: str) -> None:
    """Files by their names, with ``__`` for a dot and ``_in_`` for a slash."""
    for name, source in files.items():
        path = folder / name.replace("_in_", "/").replace("__", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)


def error_of(path: Path) -> ScriptError:
    with pytest.raises(ScriptError) as caught:
        check_script(path, Config())
    return caught.value


@pytest.mark.parametrize("suffix", [".ts", ".js"])
@pytest.mark.parametrize(
    ("imported", "there"),
    [
        ("./helper", "./helper.ts"),
        ("./helper.js", "./helper.ts"),
        ("./old", "./old.js"),
        ("./old.ts", "./old.js"),
        ("./old.mjs", "./old.js"),
        ("./deep/one.js", "./deep/one.ts"),
        ("./folder", "./folder/index.ts"),
        ("./data", "./data.json"),
    ],
)
def test_a_missing_file_is_named_with_the_one_that_there_is(
    tmp_path: Path, suffix: str, imported: str, there: str
) -> None:
    write(tmp_path, helper__ts="export {};", old__js="", deep_in_one__ts="export {};", folder_in_index__ts="export {};",
          data__json="1")  # fmt: skip
    script = tmp_path / f"script{suffix}"
    script.write_text(f'// comment\n  import "{imported}";\n{HOOK}')
    error = error_of(script)
    assert f"import of {imported!r}" in error.message
    assert error.message.endswith(f"; there is {there}: imports name the file as it is, with its suffix")
    assert (error.path, error.line, error.column) == (str(script), 2, 10)


def test_nothing_is_suggested_that_is_not_there_or_lies_outside(tmp_path: Path) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (tmp_path / "secret.ts").write_text("")
    (folder / "link.ts").symlink_to(tmp_path / "secret.ts")
    for name in ("./nothing", "./nothing.js", "./link", "./link.js", "./script"):
        (folder / "main.js").write_text(f'import "{name}";\n{HOOK}')
        assert "there is ." not in error_of(folder / "main.js").message
    assert meant_files("./a", lambda name: name == "./a") is None


def test_a_place_is_that_of_the_file_that_imports(tmp_path: Path) -> None:
    write(tmp_path, script__ts=f'import "./lib.ts";\n{HOOK}', lib__ts='\nimport { x } from "./other.js";\nx;',
          other__ts="export const x = 1;")  # fmt: skip
    error = error_of(tmp_path / "script.ts")
    assert (error.path, error.line, error.column) == (str(tmp_path / "lib.ts"), 2, 19)
    assert "there is ./other.ts" in error.message


TYPES = "export interface Thing { a: number }\nexport type Other = string;\nexport const value = 1, helper = 2;"


@pytest.mark.parametrize(
    ("files", "place", "message"),
    [
        (
            {"index__ts": 'export { Thing, value } from "./types.ts";',
             "script__ts": f'import {{ Thing, value }} from "./index.ts";\n{HOOK}value as Thing;'},
            ("index.ts", 1, 1), "no export 'Thing' in types.ts: it is a type there, so write export type { Thing }",
        ),
        (
            {"index__ts": 'export { Other as Another } from "./types.ts";',
             "second__ts": '\n export { Another as Third } from "./index.ts";',
             "script__ts": f'import {{ Third }} from "./second.ts";\n{HOOK}Third;'},
            ("index.ts", 1, 1), "no export 'Other' in types.ts: it is a type there, so write export type { Other }",
        ),
        (
            {"script__ts": f'import {{ value, Thing }} from "./types.ts";\nexport {{ Thing }};\n{HOOK}'},
            ("script.ts", 1, 1), "no export 'Thing' in types.ts: it is a type there, so write import type { Thing }",
        ),
        (
            {"script__ts": f'{HOOK}\n  import {{ helpr }} from "./types.ts";\nhelpr;'},
            ("script.ts", 3, 3), "no export 'helpr' in types.ts",
        ),
        (
            {"lib__js": "export function helper() {}", "script__js": f'import {{ helpr }} from "./lib.js";\n{HOOK}'},
            ("script.js", 1, 1), "no export 'helpr' in lib.js; did you mean helper?",
        ),
        (
            {"lib__js": "const a = 1; export { a as helper };",
             "script__js": f'import {{ other, helpr as b }} from "./lib.js";\n{HOOK}'},
            ("script.js", 1, 1), "no export 'other' in lib.js",
        ),
        (
            {"store__py": "def load(): pass\ndef save(): pass\n",
             "script__js": f'{HOOK}\nimport store from "./store.py";\nstore;'},
            ("script.js", 3, 1),
            "no export 'default' in store.py: write import { load, save } from './store.py', "
            "or import * as store from './store.py'",
        ),
        (
            {"lib__js": "export function helper() {}",
             "script__js": f'import lib, {{ helper }} from "./lib.js";\n{HOOK}\nlib; helper;'},
            ("script.js", 1, 1), "no export 'default' in lib.js: write import { helper } from './lib.js'",
        ),
    ],
)  # fmt: skip
def test_a_missing_export_is_named_where_it_is_imported_and_where_it_is_not(
    tmp_path: Path, files: dict[str, str], place: tuple[str, int, int], message: str
) -> None:
    write(tmp_path, types__ts=TYPES, **files)
    error = error_of(next(tmp_path.glob("script.*")))
    assert (error.path, error.line, error.column) == (str(tmp_path / place[0]), *place[1:])
    assert message in error.message


def test_types_that_are_said_to_be_types_are_fine(tmp_path: Path) -> None:
    index = 'export type { Thing } from "./types.ts";\nexport * from "./types.ts";'
    script = f'import {{ type Thing, value }} from "./index.ts";\n{HOOK}value as unknown as Thing;'
    write(tmp_path, types__ts=TYPES, index__ts=index, script__ts=script)
    assert check_script(tmp_path / "script.ts", Config()).hooks == {"on_message"}


DATA = {"list": [1, 2.5, None, True], "ü\u2028": "await 😀", "__proto__": {"a": 1}, "constructor": 5}


@pytest.mark.parametrize("suffix", [".js", ".ts"])
@pytest.mark.parametrize(
    "attributes", ["", ' with { type: "json" }', " with {type:'json'}", ' assert { "type": "json", }']
)
def test_json_is_imported_as_data(tmp_path: Path, suffix: str, attributes: str) -> None:
    if suffix == ".ts" and "assert" in attributes:
        attributes = ""  # TypeScript has it no more
    (tmp_path / "data.json").write_text("\ufeff" + json.dumps(DATA), encoding="utf-8")
    source = f"""import data from "./data.json"{attributes};
    export function onMessage(session) {{
      session.send(JSON.stringify(data));
      throw new Error(String(Object.keys(data)));
    }}"""
    made = Script(tmp_path, source)
    script = tmp_path / f"script{suffix}"
    script.write_text(source)
    made.handler.path = str(script)
    made.handler.start()
    try:
        session = made.open()
        assert json.loads(str(made.answer(session))) == DATA
        assert str((tmp_path / "data.json").resolve()) in made.handler.files()
    finally:
        made.handler.stop(5)


def test_json_is_read_anew_at_a_reload_and_dynamically(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("1")
    source = """import data from "./data.json";
    export async function onMessage(session) {
      const later = await import("./data.json");
      session.send(`${data} ${later.default}`);
    }"""
    with running(tmp_path, source) as script:
        session = script.open()
        assert script.answer(session) == "1 1"
        (tmp_path / "data.json").write_text("2")
        script.handler.reload()
        assert script.answer(session) == "2 2"


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ('{"a": 1,\n  b: 2}', 2, 3, "Expecting property name enclosed in double quotes"),
        ('["NaN\\"",\n NaN]', 2, 2, "NaN is not JSON"),
        ("[1, -Infinity]", 1, 5, "-Infinity is not JSON"),
        ("[" * 100_000, 1, 1, "it has too many levels"),
        ("", 1, 1, "Expecting value"),
    ],
)
def test_what_is_no_json_is_an_error_with_its_place(
    tmp_path: Path, text: str, line: int, column: int, message: str
) -> None:
    write(tmp_path, data__json=text, script__js=f'\nimport data from "./data.json";\n{HOOK}')
    error = error_of(tmp_path / "script.js")
    assert (error.path, error.line, error.column) == (str(tmp_path / "data.json"), line, column)
    assert error.message == f"invalid JSON: {message}"


def test_attributes_leave_everything_else_in_its_place() -> None:
    source = 'import a from "./a.json" with { type: "json" }; const b = 1; // with { type: "json" }\n'
    changed = without_attributes(source)
    assert changed == source.replace('with { type: "json" };', " " * 21 + ";", 1)
    for other in ('import a from "./a.js" with { type: "json" };', 'const text = "with { type: \\"json\\" }";'):
        assert without_attributes(other) == other


def test_a_dynamic_import_of_json_may_have_attributes(tmp_path: Path) -> None:
    dynamic = 'await import("./a.json", { with: { type: "json" } });'
    assert without_attributes(dynamic) == dynamic.replace(', { with: { type: "json" } }', " " * 28)
    source = f"const {{ default: data }} = {dynamic}\nif (data.a !== 5) throw 1;\n{HOOK}"
    write(tmp_path, a__json='{"a": 5}', script__js=source)
    assert check_script(tmp_path / "script.js", Config()).hooks


def test_check_shows_what_a_script_prints_at_its_top_level(tmp_path: Path) -> None:
    chat = f'console.log("hello", {{ a: 1 }});\nconsole.warn("careful\\nnow");\n{HOOK}'
    other = f'console.debug("before the mistake");\nthrow new Error("no");\n{HOOK}'
    plain = "import logging\nprint('from Python')\nlogging.error('hidden')\ndef on_open(session): pass\n"
    write(tmp_path, chat__js=chat, other__js=other, plain__py=plain)
    command = [sys.executable, "-m", "wsthreads", "check", "chat.js", "other.js", "plain.py"]
    with Program(command, cwd=tmp_path) as program:
        assert program.wait() == 1
    for line in (
        r'chat\.js:1:\d+: hello \{ a: 1 \}', r"chat\.js:2:\d+: warning: careful\n  \| now",
        "chat.js  /ws/chat  onMessage",
        r"other\.js:1:\d+: debug: before the mistake", r"wsthreads: other\.js:2:\d+: Error: no", "from Python",
    ):  # fmt: skip
        assert re.search(f"^{line}$", program.log, re.MULTILINE), program.log
    assert "hidden" not in program.log
