"""Imports are confined to the script's folder; errors in a script name its file and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.javascript_fakes import Script, running
from wsthreads.config import Config
from wsthreads.errors import ScriptError
from wsthreads.javascript import check_script
from wsthreads.javascript.loader import ENTRY, ModuleLoader

HOOK = "export function onOpen() {}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A script's folder, with something outside of it that is not to be had."""
    (tmp_path / "secret.js").write_text("export const secret = 1;")
    folder = tmp_path / "scripts"
    (folder / "lib").mkdir(parents=True)
    return folder


def test_relative_imports_work_statically_and_dynamically(folder: Path) -> None:
    (folder / "lib" / "util.mjs").write_text("import { two } from '../two.js'; export const one = two - 1;")
    (folder / "two.js").write_text("export const two = 2;")
    (folder / "later.js").write_text("\ufeffexport default 'ü';")
    source = """import { one } from "./lib/util.mjs";
    export async function onMessage(session) {
      const later = await import("./later.js");
      session.send(`${one} ${later.default} ${(await import("./lib/../two.js")).two}`);
    }"""
    with running(folder, source) as script:
        assert script.answer(script.open()) == "1 ü 2"
        names = {os.path.relpath(file, folder.resolve()) for file in script.handler.files()}
        assert names == {"script.js", "two.js", "later.js", os.path.join("lib", "util.mjs")}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../secret.js", "outside"),
        ("./lib/../../secret.js", "outside"),
        ("./link.js", "outside"),
        ("./linked/secret.js", "outside"),
        ("./.", "no such file"),
        ("./lib", "no such file"),
        ("./missing.js", "no such file"),
        ("./.env", "begins with a dot"),
        ("./.git/config.js", "begins with a dot"),
        ("./two", "no such file"),
        ("fs", "fs is a module of Node"),
        ("less", "npm install less in"),
        ("/etc/passwd", "relative"),
        ("two.js", "there is ./two.js"),
        ("file:///etc/passwd", "relative"),
        ("", "relative"),
        (".\\\\two.js", "relative"),
        (".\\\\..\\\\secret.js", "relative"),
        ("./..\\\\secret.js", "relative"),
        ("..", "relative"),
        ("../", "outside"),
        ("../scripts2/sibling.js", "outside"),
        ("./../secret.js", "outside"),
        (".//../secret.js", "outside"),
        ("./lib/.././../secret.js", "outside"),
        ("./lib/deep/../../../secret.js", "outside"),
        ("./absolute.js", "outside"),
        ("./%2e%2e/secret.js", "no such file"),
        ("./..%2fsecret.js", "begins with a dot"),
        ("./TWO.js", "no such file"),
        ("./two.js?2", "no such file"),
        ("./two.js#x", "no such file"),
        ("./etc", "outside"),
        ("//etc/passwd", "relative"),
        ("std", "npm install std in"),
        ("os", "os is a module of Node"),
        ("qjs:os", "relative"),
        ("node:fs", "fs is a module of Node"),
        ("data:text/javascript,export default 1", "relative"),
        ("https://evil.example/x.js", "relative"),
        ("wsthreads:other", "relative"),
        ("wsthreads/other", "relative"),
        ("pkg/%2e%2e/x", "relative"),
        ("<dukpy>", "relative"),
    ],
)
def test_every_other_import_is_refused_by_name_and_folder(folder: Path, name: str, why: str) -> None:
    (folder / "two.js").write_text("export const two = 2;")
    (folder / "link.js").symlink_to(folder.parent / "secret.js")
    (folder / "linked").symlink_to(folder.parent)
    (folder / "absolute.js").symlink_to("/etc/passwd")
    (folder / "etc").symlink_to("/etc")
    (folder.parent / "scripts2").mkdir()
    (folder.parent / "scripts2" / "sibling.js").write_text("")
    with pytest.raises(ScriptError) as error:
        Script(folder, f'import "{name}";\n{HOOK}').handler.start()
    for part in (repr(name.replace("\\\\", "\\")), "script.js", why, str(folder.resolve())):
        assert part in str(error.value)
    source = f"""export async function onMessage(session) {{
      try {{ await import("{name}"); session.send("imported"); }} catch (error) {{ session.send(error.message); }}
    }}"""
    with running(folder, source) as script:
        answer = script.answer(script.open())
        assert why in answer or len(answer) > 250  # the engine cuts its messages
        assert "cannot find module: import of" in answer


@pytest.mark.parametrize(
    "name",
    [
        r"./two.js\\0.txt", r"./\ud800.js", "./" + "a" * 5000 + ".js", r"\\0../secret.js", r"pkg/\u0000", r"pkg/\ud800",
        r"\ud800", "pkg/" + "a" * 5000, "pkg/" * 2000 + "x", "@a/" + "b" * 300, "#x", "node:",
    ],
)  # fmt: skip
def test_names_that_no_file_can_have_are_refused_too(folder: Path, name: str) -> None:
    source = """export async function onMessage(session, name) {
      try { await import(JSON.parse(name)); session.send("imported"); } catch (error) { session.send("refused"); }
    }"""
    with running(folder, source) as script:
        assert script.answer(script.open(), '"' + name.replace("\\\\", "\\") + '"') == "refused"


def test_code_made_from_text_is_confined_as_well(folder: Path) -> None:
    source = """export async function onMessage(session, code) {
      try { await (0, eval)(code); session.send("imported"); } catch (error) { session.send(error.message); }
    }"""
    with running(folder, source) as script:
        session = script.open()
        assert "cannot find module" in script.answer(session, "import('../secret.js')")
        assert "cannot find module" in script.answer(session, "new Function('return import(\"../secret.js\")')()")
        (folder / "two.js").write_text("")
        assert script.answer(session, "import('./two.js')") == "imported"


def test_a_script_may_be_a_symlink_and_imports_from_where_it_really_is(folder: Path) -> None:
    (folder / "two.js").write_text("export const two = 2;")
    (folder / "real.js").write_text("import './two.js';\n" + HOOK)
    link = folder.parent / "current.js"
    link.symlink_to(folder / "real.js")
    assert check_script(link, Config()).hooks == {"on_open"}


def test_the_loader_gives_files_of_a_reload_new_ids(folder: Path) -> None:
    path = folder / "script.js"
    path.write_text(HOOK)
    (folder / "two.js").write_text("")
    loader = ModuleLoader(str(path))
    assert loader.normalize("<dukpy>", ENTRY) == "script.js"
    assert loader.normalize("script.js", "./two.js") == "two.js"
    loader.renew()
    assert loader.normalize("<dukpy>", ENTRY) == "script.js?2"
    assert loader.normalize("script.js?2", "./two.js") == "two.js?2"
    assert loader.normalize("script.js", "./two.js") == "two.js"  # an old timer's import
    assert loader.load("two.js?2") == ("two.js?2", "", "module")


@pytest.mark.parametrize(
    ("source", "line", "part"),
    [
        (HOOK + "\nlet x = ;", 3, "unexpected token"),
        (HOOK + "null.x;", 2, "null"),
        (HOOK + "throw new RangeError('top level');", 2, "RangeError: top level"),
        (HOOK + "throw 'text';", None, '"text" was thrown'),
        (HOOK + "await Promise.reject(new Error('late'));", 2, "late"),
        ("import { nothing } from './two.js';\n" + HOOK, 1, "nothing"),
    ],
)
def test_a_script_that_does_not_load_is_an_error_with_its_place(
    folder: Path, source: str, line: int | None, part: str
) -> None:
    (folder / "two.js").write_text("export const two = 2;")
    script = Script(folder, source)
    with pytest.raises(ScriptError) as error:
        script.handler.start()
    assert error.value.path == str(script.path)
    assert error.value.line == line
    assert part in error.value.message
    assert "    at" not in str(error.value)


def test_an_error_in_an_imported_file_names_that_file_as_the_user_would(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "lib" / "util.js").write_text("export const a = 1;\nexport const b = ;\n")
    (folder / "script.js").write_text("import './lib/util.js';\n" + HOOK)
    monkeypatch.chdir(folder.parent)
    with pytest.raises(ScriptError) as error:
        check_script(os.path.join("scripts", "script.js"), Config())
    assert error.value.path == os.path.join("scripts", "lib", "util.js")
    assert error.value.line == 2
    assert str(error.value).startswith(os.path.join("scripts", "lib", "util.js") + ":2:")


def test_a_file_that_is_not_utf8_is_an_error(folder: Path) -> None:
    script = Script(folder, HOOK)
    script.path.write_bytes(b"export const x = '\xff';")
    with pytest.raises(ScriptError, match="cannot be read"):
        script.handler.start()


def test_a_shebang_and_an_empty_import_are_fine(folder: Path) -> None:
    (folder / "empty.js").write_text("")
    script = Script(folder, "#!/usr/bin/env wsthreads\nimport './empty.js';\n" + HOOK)
    assert check_script(script.path, Config()).hooks == {"on_open"}
