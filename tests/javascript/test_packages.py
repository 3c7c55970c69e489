"""Which files imports of packages mean, what confines them, and what their errors say; `import.meta`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.javascript_fakes import Script, running
from wsthreads.config import Config
from wsthreads.errors import ScriptError
from wsthreads.javascript import check_script
from wsthreads.javascript.packages import Packages, find_commonjs, for_production
from wsthreads.testing import play

HOOK = "export function onOpen() {}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A script's folder, inside of another one, with something outside that is not to be had."""
    (tmp_path / "secret.js").write_text("export default 'secret';")
    folder = tmp_path / "app" / "scripts"
    folder.mkdir(parents=True)
    return folder


def package(folder: Path, name: str, described: dict[str, Any] | None = None, **files: str) -> Path:
    """A package in the `node_modules` of a folder. In names of files, ``__`` is a dot and ``_in_`` a slash."""
    place = folder / "node_modules" / name
    place.mkdir(parents=True, exist_ok=True)
    if described is not None:
        (place / "package.json").write_text(json.dumps({"name": name, **described}))
    for file, text in files.items():
        path = place / file.replace("__", ".").replace("_in_", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place


def imported(folder: Path, name: str) -> Any:
    """The default export of what a script imports, by both kinds of import."""
    source = f"""import value from "{name}";
    export async function onMessage(session) {{
      session.send(JSON.stringify([value, (await import("{name}")).default]));
    }}"""
    with running(folder, source) as script:
        one, other = json.loads(script.answer(script.open()))
    assert one == other
    return one


def refused(folder: Path, source: str) -> str:
    with pytest.raises(ScriptError) as error:
        Script(folder, f"{source}\n{HOOK}").handler.start()
    return str(error.value)


def default(text: str) -> str:
    return f"export default {json.dumps(text)};"


@pytest.mark.parametrize(
    ("described", "name", "expected"),
    [
        ({"exports": "./a.js"}, "pkg", "a"),
        ({"exports": {".": "./a.js"}}, "pkg", "a"),
        ({"exports": {"node": "./no.js", "import": "./a.js", "default": "./b.js"}}, "pkg", "a"),
        ({"exports": {"default": "./b.js", "import": "./a.js"}}, "pkg", "b"),
        ({"exports": {"require": "./no.js", "browser": "./a.js", "import": "./b.js"}}, "pkg", "a"),
        ({"exports": {"worker": "./a.js", "browser": "./b.js"}}, "pkg", "a"),
        ({"exports": {".": {"types": "./no.d.ts", "import": {"deno": "./no.js", "default": "./a.js"}}}}, "pkg", "a"),
        ({"exports": {".": [{"node": "./no.js"}, "./a.js"]}}, "pkg", "a"),
        ({"exports": {"./sub": "./b.js"}}, "pkg/sub", "b"),
        ({"exports": {"./*": "./*.js"}}, "pkg/a", "a"),
        ({"exports": {"./*.js": "./*.js", "./x/*": "./deep/*.js"}}, "pkg/x/c", "deep c"),
        ({"exports": {"./*": "./no/*.js", "./deep/*": "./deep/*.js"}}, "pkg/deep/c", "deep c"),
        ({"exports": {"./deep/": "./deep/"}}, "pkg/deep/c.js", "deep c"),
        ({"exports": "./a.js", "main": "no.js", "module": "no.js"}, "pkg", "a"),
        ({"module": "a.js", "main": "b.js"}, "pkg", "a"),
        ({"main": "./b"}, "pkg", "b"),
        ({"main": "deep"}, "pkg", "deep index"),
        ({"main": "missing.js"}, "pkg", "index"),
        ({}, "pkg", "index"),
        (None, "pkg", "index"),
        ({}, "pkg/a.js", "a"),
        ({}, "pkg/a", "a"),
        ({}, "pkg/deep", "deep index"),
        ({"exports": "./data.json"}, "pkg", {"from": "json"}),
        ({"exports": "./inner.js", "imports": {"#private": "./a.js", "#x/*": "./deep/*.js"}}, "pkg", "a deep c"),
        ({"exports": {".": "./own.js", "./sub": "./b.js"}}, "pkg", "b"),
    ],
)  # fmt: skip
def test_package_json_says_which_file_is_meant(
    folder: Path, described: dict[str, Any] | None, name: str, expected: Any
) -> None:
    files = {"a__js": default("a"), "b__js": default("b"), "index__js": default("index")}
    files |= {"deep_in_c__js": default("deep c"), "deep_in_index__js": default("deep index")}
    files["inner__js"] = 'import a from "#private"; import c from "#x/c"; export default `${a} ${c}`;'
    files["own__js"] = 'export { default } from "pkg/sub";'
    package(folder, "pkg", described, data__json='{"from": "json"}', **files)
    assert imported(folder, name) == expected


def test_scoped_packages_are_found(folder: Path) -> None:
    package(folder, "@scope/pkg", {"exports": {".": "./a.js", "./b": "./b.js"}}, a__js=default("a"), b__js=default("b"))
    assert imported(folder, "@scope/pkg") == "a"
    assert imported(folder, "@scope/pkg/b") == "b"


def test_the_nearest_folder_counts_and_folders_above_are_searched(folder: Path) -> None:
    package(folder.parent, "above", {}, index__js="import near from 'near'; export default `above, ${near}`;")
    package(folder.parent, "near", {}, index__js=default("far"))
    package(folder, "near", {}, index__js=default("near"))
    assert imported(folder, "near") == "near"
    assert imported(folder, "above") == "above, far"


def test_a_package_has_packages_of_its_own(folder: Path) -> None:
    outer = package(folder, "outer", {}, index__js="import inner from 'inner'; export default `outer, ${inner}`;")
    package(folder, "inner", {}, index__js=default("another inner"))
    package(
        outer,
        "inner",
        {},
        index__js="import { x } from './x'; export default `its inner ${x}`;",
        x__js="export const x = 1",
    )
    assert imported(folder, "outer") == "outer, its inner 1"


def test_packages_of_pnpm_are_links_inside_of_node_modules(folder: Path) -> None:
    store = folder / "node_modules" / ".pnpm" / "a@1"
    package(store, "a", {}, index__js="import b from 'b'; export default `a, ${b}`;")
    package(folder / "node_modules" / ".pnpm" / "b@1", "b", {}, index__js=default("b"))
    (folder / "node_modules" / "a").symlink_to(store / "node_modules" / "a")
    (store / "node_modules" / "b").symlink_to(folder / "node_modules" / ".pnpm" / "b@1" / "node_modules" / "b")
    assert imported(folder, "a") == "a, b"


def test_node_modules_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    package(tmp_path / "elsewhere", "pkg", {}, index__js="export default 1;\n\nthrow new Error('no');")
    (folder / "node_modules").symlink_to(tmp_path / "elsewhere" / "node_modules")
    assert "Error: no" in refused(folder, "import 'pkg';")
    assert os.path.join("node_modules", "pkg", "index.js") + ":3" in refused(folder, "import 'pkg';")


# Nothing leads out.


@pytest.mark.parametrize(
    ("described", "name"),
    [
        ({"exports": "./../../../../secret.js"}, "pkg"),
        ({"exports": {"./*": "./*"}}, "pkg/../../../../secret.js"),
        ({"exports": {"./*": "./*.js"}}, "pkg/../../../../secret"),
        ({"main": "../../../../secret.js"}, "pkg"),
        ({"module": "/etc/passwd"}, "pkg"),
        ({}, "pkg/../../../../secret.js"),
        ({}, "pkg/link.js"),
        ({"exports": "./link.js"}, "pkg"),
        ({"exports": "./out.js"}, "pkg"),
        ({"exports": "./python.js"}, "pkg"),
        ({"exports": "./store.py"}, "pkg"),
        ({"exports": "./other.js"}, "pkg"),
        ({"imports": {"#x": "./../../../../secret.js"}, "exports": "./private.js"}, "pkg"),
        ({}, "linked"),
    ],
)  # fmt: skip
def test_no_package_leads_out_of_its_folder(folder: Path, tmp_path: Path, described: dict[str, Any], name: str) -> None:
    secret = tmp_path / "secret.js"
    place = package(
        folder, "pkg", described, out__js="import x from '../../../../secret.js'; export default x;",
          index__js=default("x"),
        python__js="import { x } from './store.py'; export default x;", store__py="x = 1\nopen('ran', 'w')",
        other__js="import x from '../../../other/index.js'; export default x;",
        private__js="export { default } from '#x';",
    )  # fmt: skip
    (place / "link.js").symlink_to(secret)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "index.js").write_text(default("secret"))
    (folder / "node_modules" / "linked").symlink_to(outside)
    (folder.parent / "other").mkdir()
    (folder.parent / "other" / "index.js").write_text(default("secret"))
    message = refused(folder, f"import x from '{name}'; globalThis.seen = x;")
    assert "import of" in message
    assert str(folder) in message
    assert not Path("ran").exists()
    with running(folder, f"""export async function onMessage(session) {{
      try {{ session.send(`${{(await import("{name}")).default}}`); }} catch (error) {{ session.send("refused"); }}
    }}""") as script:  # fmt: skip
        assert script.answer(script.open()) == "refused"


# What the errors say.


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("import 'missing';",
         ["script.js:1:8: import of 'missing': there is no such package, nor a Python module of this name",
          ": npm install missing in {folder}"]),
        ("import '@a/b/c';", ["npm install @a/b in {folder}"]),
        ("import 'wsthread';", ["import of 'wsthread': there is no such package; did you mean 'wsthreads'?"]),
        ("\nimport fs from 'fs';", [":2:", "fs is a module of Node, which scripts do not have"]),
        ("import 'node:fs/promises';", ["fs/promises is a module of Node"]),
        ("import 'needs-node';", ["needs-node/index.js:2", "the package needs-node needs Node's module crypto"]),
        ("import 'needs-other';",
         ["needs-other needs the package, and there is no such package: npm install other in {folder}"]),
        ("import 'old';", ["the package is CommonJS", "bundle it with esbuild"]),
        ("import 'older';", ["the package is CommonJS"]),
        ("import 'strict/hidden.js';",
         ["the package.json of strict exports no ./hidden.js for ES modules; it exports ./open"]),
        ("import 'binary';", ["import of './lib.wasm'", "scripts have no WebAssembly and no Node"]),
        ("const key = process.env.KEY;", [":1:", "for process.env.NAME there are --env-file and"]),
        ("import 'strict';", ["exports no . for ES modules"]),
        ("import 'types-only';", ["the package types-only in ", " has no main file, only types"]),
        ("import 'broken';", ["package.json cannot be read"]),
        ("import 'gone';", ["has no file ./gone.js"]),
        ("import 'script.js';", ["there is no such package; there is ./script.js: relative paths begin with ./"]),
        ("import 'script';", ["npm install script"]),  # and not this file
        ("import './lib';", ["there is ./lib.js: imports name the file as it is"]),
        ("import '#private';", ["this file belongs to no package, so no package.json with \"imports\" applies to it"]),
        ("import { nope } from 'fine';",
         [":1:", "there is no export 'nope' in node_modules/fine/index.js; did you mean nape?"]),
        ("import 'throws';", ["throws/index.js:2:", "Error: at the top"]),
    ],
)  # fmt: skip
def test_an_error_says_what_to_do(folder: Path, source: str, parts: list[str]) -> None:
    (folder / "lib.js").write_text("")
    package(folder, "needs-node", {}, index__js="\nimport { randomBytes } from 'crypto';")
    package(folder, "needs-other", {}, index__js="import 'other';")
    package(folder, "old", {"main": "index.js"}, index__js="'use strict';\nmodule.exports = require('./lib');")
    package(folder, "older", {"exports": {"import": "./index.cjs"}}, index__cjs="exports.a = 1;")
    package(folder, "strict", {"exports": {"./open": "./open.js"}}, hidden__js="")
    package(folder, "binary", {}, index__js="import './lib.wasm';", lib__wasm="")
    package(folder, "types-only", {"types": "index.d.ts"}, index__d__ts="")
    (package(folder, "broken") / "package.json").write_text("{")
    package(folder, "gone", {"exports": "./gone.js"})
    package(folder, "fine", {}, index__js="export const nape = 1;")
    package(folder, "throws", {}, index__js="\nthrow new Error('at the top');")
    message = refused(folder, source)
    for part in parts:
        assert part.format(folder=folder.resolve()) in message


def test_the_log_names_the_scripts_line_for_an_error_inside_a_package(folder: Path) -> None:
    package(folder, "pkg", {}, index__js="export function fail() {\n  throw new Error('inside');\n}")
    source = 'import { fail } from "pkg";\nexport function onMessage() {\n  fail();\n}'
    (folder / "script.js").write_text(source)
    with play(folder / "script.js", raise_errors=False) as game:
        game.connect().send("x")
        (error,) = game.errors
    assert "at fail (node_modules/pkg/index.js:2:" in str(error)
    assert "at onMessage (script.js:3:" in str(error)


@pytest.mark.parametrize(
    ("source", "is_old"),
    [
        ("module.exports = 1",
         True), ("exports.a = 1; var b = require('b')", True), ("export default 1; // module.exports", False),
        ("var a=1;export{a as b};function require(){}", False), ("import a from 'a'; const c = require('c')", False),
        ("(()=>{})();import'./x.js';exports.a", False), ("", False), ("console.log(1)", False),
        ('"use strict";Object.defineProperty(exports,"__esModule",{value:!0})', True),
        ("/* export nothing */ module.exports = {}", True), ("!function(){var e={};module.exports=e}()", True),
    ],
)  # fmt: skip
def test_commonjs_is_told_by_its_text(source: str, is_old: bool) -> None:
    assert find_commonjs(source) == is_old


def test_packages_are_in_production(folder: Path) -> None:
    text = 'if (process.env.NODE_ENV !== "production") throw 1; export default [process.env.NODE_ENV, typeof process];'
    package(folder, "pkg", {}, index__js=text)
    assert imported(folder, "pkg") == ["production", "undefined"]
    assert len(for_production(text)) == len(text)


# Reloads.


def test_a_reload_keeps_packages_and_their_variables_unless_they_have_changed(folder: Path) -> None:
    place = package(
        folder,
        "pkg",
        {},
        index__js="import './part.js'; export const made = {}; export const version = 1;",
        part__js="",
    )
    source = """import { made, version } from "pkg";
    export function onMessage(session) {
      globalThis.first ??= made;
      session.send(JSON.stringify([globalThis.first === made, version]));
    }"""
    with running(folder, source) as script:
        session = script.open()
        assert script.answer(session) == "[true,1]"
        script.handler.reload()
        assert script.answer(session) == "[true,1]"
        (place / "index.js").write_text("import './part.js'; export const made = {}; export const version = 2.5;")
        script.handler.reload()
        assert script.answer(session) == "[false,2.5]"
        script.handler.reload()
        assert script.answer(session) == "[false,2.5]"
        assert not any("node_modules" in file for file in script.handler.files())


def test_a_reload_notices_when_a_missing_package_is_there(folder: Path) -> None:
    with running(folder, HOOK) as script:
        script.path.write_text(f"import 'pkg';\n{HOOK}")
        with pytest.raises(ScriptError, match="npm install pkg"):
            script.handler.reload()
        assert str(folder.resolve() / "node_modules" / "pkg" / "package.json") in script.handler.files()
        package(folder, "pkg", {}, index__js="")
        script.handler.reload()


# import.meta


def test_import_meta_says_where_a_module_is(folder: Path) -> None:
    (folder / "lib ü").mkdir()
    (folder / "lib ü" / "a.js").write_text("export const meta = { ...import.meta };")
    place = package(folder, "pkg", {}, index__js="#!/usr/bin/env node\nexport default import.meta.url;")
    source = """import { meta } from "./lib ü/a.js"; import url from "pkg";
    export function onMessage(session) {
      session.send(JSON.stringify([import.meta, meta, url, new URL("./data.json", import.meta.url).href]));
    }"""
    with running(folder, source) as script:
        session = script.open()
        expected = None
        for _ in range(2):
            own, other, url, joined = json.loads(script.answer(session))
            expected = expected or [own, other, url, joined]
            assert [own, other, url, joined] == expected  # also after a reload
            script.handler.reload()
    real = folder.resolve()
    assert {**own, "main": False} == {
        "main": False,
        "url": (real / "script.js").as_uri(),
        "filename": str(real / "script.js"),
        "dirname": str(real),
    }
    assert other["filename"] == str(real / "lib ü" / "a.js")
    assert other["url"] == (real / "lib ü" / "a.js").as_uri()
    assert url == (place.resolve() / "index.js").as_uri()
    assert joined == (real / "data.json").as_uri()


@pytest.mark.parametrize("suffix", ["js", "ts"])
def test_import_meta_moves_no_place(folder: Path, suffix: str) -> None:
    source = "const here = import.meta.url; null.x;\n" + HOOK
    path = folder / f"script.{suffix}"
    path.write_text(source)
    with pytest.raises(ScriptError) as error:
        check_script(path, Config())
    path.write_text(source.replace("import.meta.url", "'thirteen_char'"))  # of the same length
    with pytest.raises(ScriptError) as same:
        check_script(path, Config())
    assert (error.value.line, error.value.column) == (1, same.value.column)
    path.write_text(source.replace("null.x", "here.call(5)"))
    with pytest.raises(ScriptError, match=r":1:\d+: TypeError: here.call is not a function"):
        check_script(path, Config())


def test_packages_find_what_owns_a_file() -> None:
    packages = Packages("/app")
    assert packages.owner("/app/chat.js") is None
    assert packages.owner("/app/node_modules/a/lib/x.js") == "/app/node_modules/a"
    assert packages.owner("/app/node_modules/@s/a/x.js") == "/app/node_modules/@s/a"
    assert packages.owner("/app/node_modules/a/node_modules/b/x.js") == "/app/node_modules/a/node_modules/b"


@pytest.mark.parametrize("target", ["../x.js", "/etc/x.js", "https://x.test/x.js", "#b"])
def test_an_odd_target_of_a_private_import_is_one_clear_error(tmp_path: Path, target: str) -> None:
    inner = tmp_path / "node_modules" / "inner"
    inner.mkdir(parents=True)
    manifest = {"name": "inner", "type": "module", "exports": "./index.js", "imports": {"#a": target, "#b": "#a"}}
    (inner / "package.json").write_text(json.dumps(manifest))
    (inner / "index.js").write_text('export * from "#a";')
    (tmp_path / "chat.js").write_text('import * as inner from "inner"; export function onMessage() {}')
    with pytest.raises(ScriptError, match=r"index\.js:1:15: import of '#a': "):
        check_script(tmp_path / "chat.js", Config())


def test_a_package_does_not_import_the_script_s_python(tmp_path: Path) -> None:
    inner = tmp_path / "node_modules" / "inner"
    inner.mkdir(parents=True)
    (inner / "package.json").write_text('{"name": "inner", "type": "module", "exports": "./index.js"}')
    (inner / "index.js").write_text('export * from "../../store.py";')
    (tmp_path / "store.py").write_text("def f(): pass\n")
    (tmp_path / "chat.js").write_text('import * as inner from "inner"; export function onMessage() {}')
    with pytest.raises(ScriptError, match="a package cannot import a Python file"):
        check_script(tmp_path / "chat.js", Config())
