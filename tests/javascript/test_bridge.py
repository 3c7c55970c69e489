"""The C module by which scripts call Python, held to what dukpy's own way does with the same values."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsthreads.errors import RoomNameError
from wsthreads.javascript.engine import Engine, JavaScriptError
from wsthreads.javascript.interpreter import make_interpreter
from wsthreads.javascript.loader import ModuleLoader

BUILT = importlib.util.find_spec("wsthreads._native._bridge") is not None

pytestmark = pytest.mark.skipif(
    not BUILT and shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler here"
)


class Crossing:
    """An interpreter with the functions `seen`, `give` and `fail`, by the name `call_python` and by `native`."""

    def __init__(self, path: Path) -> None:
        self.seen: list[Any] = []
        self.answer: Any = None
        self.error: BaseException = ValueError()
        functions = {"seen": lambda *values: self.seen.append(values), "give": lambda: self.answer, "fail": self._fail}
        self.interpreter, library = make_interpreter(functions, ModuleLoader(os.fspath(path)))
        self.engine = Engine(self.interpreter.capsule, library, lambda what, text: None)
        describe = "(error) => JSON.stringify([String(error), String()])"
        runtime = f"{{ describe: {describe}, parcel: {{}}, connect(python) {{ globalThis.native = python; }} }}"
        self.interpreter.evaluate(f"const runtime = {runtime};")
        self.engine.use_runtime("runtime")
        self.engine.connect("runtime", functions)

    def _fail(self) -> None:
        raise self.error

    def run(self, code: str) -> list[Any]:
        """What the calls of `seen` in the code were given."""
        self.seen.clear()
        self.engine.disarm()  # putting an error of the last code into words had a deadline
        self.engine.run(code)
        return list(self.seen)

    def close(self) -> None:
        self.engine.close()
        self.interpreter.free()


@pytest.fixture(scope="module")
def crossing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crossing]:
    patch = pytest.MonkeyPatch()
    patch.delenv("WSTHREADS_PURE_PYTHON", raising=False)
    crossing = Crossing(tmp_path_factory.mktemp("bridge") / "none.js")
    patch.undo()
    yield crossing
    crossing.close()


def test_it_is_built_where_there_is_a_compiler(crossing: Crossing) -> None:
    assert BUILT, "wsthreads._native._bridge was not built: install with a C compiler and Python's headers"
    assert crossing.engine.is_connected


def test_the_environment_switches_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSTHREADS_PURE_PYTHON", "1")
    crossing = Crossing(tmp_path / "none.js")
    assert not crossing.engine.is_connected
    crossing.close()


@pytest.mark.parametrize(
    "value",
    [
        "undefined", "null", "true", "false", "0", "-0", "1", "-1", "2**31 - 1", "2**31", "-(2**31)", "2**53", "2**70",
        "1e21", "1000.0", "0.1", "5e-324", "NaN", "Infinity", "''", "'a'", "'é€😀'", "'a\\0b'", "'\\ud800'",
        "'\\udc00\\ud800'", "'x'.repeat(100000)", "'x'.repeat(9000) + '€'.repeat(9000)", "[]", "[1, [2, null], 'x']",
        "({})", "({a: {b: [undefined, () => 1]}})", "(() => 1)", "Symbol()", "new Date(0)", "new Uint8Array([1, 2])",
        "new String('x')", "[NaN, '\\ud800']",
    ],
)  # fmt: skip
def test_a_value_arrives_as_it_does_by_way_of_json(crossing: Crossing, value: str) -> None:
    native, dukpys = crossing.run(f"native('seen', {value}, 1); call_python('seen', {value}, 1)")
    assert native == dukpys
    assert [type(part) for part in native] == [type(part) for part in dukpys]


#: Beyond 2**53, JSON has the shortest decimals that mean the number, and not the number.
NUMBERS = st.integers(-(2**53), 2**53) | st.floats().filter(lambda number: not 2**53 < abs(number) < 1e21)


@settings(max_examples=300)
@given(st.recursive(st.none() | st.booleans() | NUMBERS | st.text(), st.lists, max_leaves=5))
def test_any_value_arrives_as_it_does_by_way_of_json(crossing: Crossing, value: Any) -> None:
    code = json.dumps(value)
    native, dukpys = crossing.run(f"native('seen', {code}); call_python('seen', {code})")
    assert native == dukpys


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, -1, 2**31 - 1, 2**31, -(2**31), 2**53, 0.5, 1e300, "", "a", "é€😀", "a\0b", "x" * 100_000,
        "\ud800", "a\udc00😀\ud83d", ("\udfff",),
        (), ("message", "id", "text"), (1, (None, 0.5), "€"), b'{"error": "TypeError", "message": "no"}', b"[1, 2]",
    ],
)  # fmt: skip
def test_an_answer_arrives_as_it_does_by_way_of_json(crossing: Crossing, value: Any) -> None:
    crossing.answer = value
    native, dukpys = crossing.run(
        "for (const python of [native, call_python]) {"
        "const answer = python('give'); native('seen', typeof answer, JSON.stringify(answer)); }"
    )
    assert native == dukpys


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (RoomNameError("too long"), "RangeError", "too long"),
        (KeyError("x"), "Error", "fail failed in Python, see the log"),
        (SystemExit(1), "Error", "fail failed in Python, see the log"),
    ],
)
def test_an_exception_becomes_a_refusal_and_is_logged_if_it_is_ours(
    crossing: Crossing, caplog: pytest.LogCaptureFixture, error: BaseException, kind: str, message: str
) -> None:
    crossing.error = error
    with caplog.at_level(logging.ERROR):
        assert crossing.run("native('seen', native('fail'))") == [({"error": kind, "message": message},)]
    assert len(caplog.records) == (kind == "Error")


def test_a_function_that_there_is_not_is_refused(crossing: Crossing) -> None:
    ((answer,),) = crossing.run("native('seen', native('nothing', 1))")
    assert answer["error"] == "Error"


@pytest.mark.parametrize("value", ["10n", "(() => { const a = []; a.push(a); return a; })()", "[10n]"])
def test_what_has_no_json_is_an_error_in_javascript(crossing: Crossing, value: str) -> None:
    ((error,),) = crossing.run(f"try {{ native('seen', {value}) }} catch (error) {{ native('seen', error.name) }}")
    assert error == "TypeError"
    with pytest.raises(JavaScriptError, match="TypeError"):
        crossing.run(f"native('seen', {value})")


def test_an_answer_that_the_heap_has_no_room_for_is_an_error_in_javascript(crossing: Crossing) -> None:
    crossing.answer = "x" * 200_000_000
    assert crossing.run("try { native('give') } catch (error) { native('seen', 'caught') }") == [("caught",)]
    crossing.answer = ("x" * 70_000_000, "x" * 70_000_000)
    assert crossing.run("try { native('give') } catch (error) { native('seen', 'caught') }") == [("caught",)]
    crossing.answer = "fine"
    assert crossing.run("native('seen', native('give'))") == [("fine",)]


def test_a_pending_promise_job_is_noticed(crossing: Crossing) -> None:
    assert not crossing.engine.has_jobs()
    crossing.run("Promise.resolve().then(() => native('seen', 1))")
    assert crossing.engine.has_jobs()
    assert crossing.engine.run_jobs(5)
    assert crossing.seen == [(1,)]
    assert not crossing.engine.has_jobs()
