"""The console: values look as in Node, and all methods of the Console Standard are there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.javascript.test_api import EVALUATE, Console
from tests.javascript.test_engine import without_engine  # noqa: F401, this is a fixture
from tests.javascript_fakes import SHORT_S, running, script_log

#: What Node writes for some calls: each is [call, text].
NODE = json.loads((Path(__file__).parent / "data" / "console.json").read_text())


@pytest.fixture(scope="module")
def js(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with running(tmp_path_factory.mktemp("console"), EVALUATE) as script:
        yield Console(script, script.open())


@pytest.mark.usefixtures("without_engine")
def test_without_an_engine_the_console_is_the_same(tmp_path: Path) -> None:
    with running(tmp_path, EVALUATE, scripts_without_deadline=True) as script:
        js = Console(script, script.open())
        assert written(js, "log(new Map([[1, { a: 2 }]]))") == [("INFO", "Map(1) { 1 => { a: 2 } }")]
        assert "│ 0       │ 1      │" in written(js, "table([1])")[0][1]


def test_a_part_of_the_runtime_that_does_not_load_in_time_is_loaded_later(tmp_path: Path) -> None:
    source = """export function onMessage(session, message) {
      const until = performance.now() + 490;
      if (message === "late") while (performance.now() < until);
      console.log({ a: 1 });
      if (message === "late") while (true);
    }"""
    with script_log() as log, running(tmp_path, source, script_timeout_s=SHORT_S) as script:
        script.message(script.open(), "late")
        log.wait_for("was stopped")
        script.message(script.open(), "again")
        assert log.wait_for("{ a").endswith("{ a: 1 }")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Console]:
    """A console whose counts, times and groups are its own."""
    with running(tmp_path, EVALUATE) as script:
        yield Console(script, script.open())


def written(js: Console, call: str) -> list[tuple[str, str]]:
    """The level and the text of each line, without the bars that the log puts before a line's further lines."""
    with script_log() as log:
        js(f"console.{call}")
        return [(record.levelname, record.getMessage().replace("\n  | ", "\n")) for record in log.records]


@pytest.mark.parametrize(("call", "text"), NODE["outputs"])
def test_values_look_as_in_node(js: Console, call: str, text: str) -> None:
    lines = [line for _, line in written(js, call)]
    if call.startswith("table") and lines[0].startswith("\n"):
        lines[0] = lines[0][1:]  # a table begins on a line of its own, behind what the log writes first
    assert "\n".join(lines) == text


@pytest.mark.parametrize(
    ("call", "lines"),
    [
        ("assert(0, { a: 1 })", [("ERROR", "Assertion failed { a: 1 }")]),
        ("assert(1)", []),
        ("log(session.room('lobby'), [session].length)", [("INFO", "SessionRoom { name: 'lobby' } 1")]),
        ("log({ get own() { throw 1 }, b: 1 })", [("INFO", "{ own: [Getter], b: 1 }")]),
        ("log(Object.assign(new Error('x'), { code: 5 }).code)", [("INFO", "5")]),
        ("log([Object.assign(new Error('x'), { code: 5, stack: '' })])",
         [("INFO", "[ [Error: x] { code: 5 } ]\nError: x")]),
        ("timeEnd('no')", [("WARNING", "No such label 'no' for console.timeEnd()")]),
        ("timeLog()", [("WARNING", "No such label 'default' for console.timeLog()")]),
        ("countReset('no')", [("WARNING", "Count for 'no' does not exist")]),
        ("dir({ a: 1 }, 'no options')", [("INFO", "{ a: 1 }")]),
    ],
)  # fmt: skip
def test_what_is_not_as_in_node_is_chosen(js: Console, call: str, lines: list[tuple[str, str]]) -> None:
    assert [(level, text.rstrip()) for level, text in written(js, call)] == lines


def test_times_are_measured_by_label(fresh: Console) -> None:
    with script_log() as log:
        fresh("console.time(); console.time('two'); console.time('two'); console.timeLog('two', 'so far', { a: 1 });")
        fresh("console.timeEnd('two'); console.timeEnd(); console.timeEnd()")
    assert [re.sub(r"[\d.]+(?=ms)", "…", text) for text in log.texts()] == [
        "Label 'two' already exists for console.time()", "two: …ms so far { a: 1 }", "two: …ms", "default: …ms",
        "No such label 'default' for console.timeEnd()",
    ]  # fmt: skip


def test_a_trace_has_the_stack_of_its_call(tmp_path: Path) -> None:
    source = """function inner() { console.trace("here: %d", 5); }
    export function onOpen() { inner(); console.trace(); console.trace(new Error("seen")); }"""
    with script_log() as log, running(tmp_path, source) as script:
        script.open()
        log.wait_for("seen")
    first, second, third = log.texts()
    assert re.fullmatch(r"Trace: here: 5\n    at inner \(script.js:1:\d+\)\n    at onOpen \(script.js:2:\d+\)", first)
    assert re.fullmatch(r"Trace\n    at onOpen \(script.js:2:\d+\)", second)
    assert third.count("    at onOpen (script.js:2:") == 2


def test_labels_and_groups_are_bounded(fresh: Console) -> None:
    with script_log() as log:
        fresh("for (let i = 0; i < 1002; i++) { console.time(`t${i}`); console.count(`c${i}`); console.group(); }")
        fresh("console.log('deep')")
    texts = log.texts()
    assert sum("1000 labels are in use" in text for text in texts) == 4
    assert texts[-1] == " " * 80 + "deep"


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        ("new Map(Array.from({ length: 5000 }, (_, i) => [i, 'x']))", 1000),
        ("new Uint8Array(1000000)", 1000),
        ("Array.from({ length: 1000 }, (_, i) => (i ? '' : 'x'.repeat(9000)))", 9),  # all are as wide as the widest
        ("[new Array(100000).fill('')]", 1),
        ("{ ['k'.repeat(1000000)]: { ['c'.repeat(1000000)]: 1 } }", 1),
        ("Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [i + 'k'.repeat(2000), 1]))", 463),
    ],
)
def test_a_table_is_bounded(fresh: Console, data: str, rows: int) -> None:
    """In rows, in columns and in characters. The script has no time for more."""
    with script_log() as log:
        fresh(f"console.table({data})")
        (text,) = log.texts()
    assert len(text) < 200_000
    assert text.count("│\n") - 1 == rows, "all but the head"
