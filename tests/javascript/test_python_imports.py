"""A script calls the Python functions of a file that it imports."""

from __future__ import annotations

import itertools
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.javascript_fakes import SHORT_S, FakeSession, Script, running, script_log
from tests.programs import DEADLINE_S, Program, own_threads
from wsthreads import create_app
from wsthreads.config import Config
from wsthreads.errors import ConfigError, ScriptError
from wsthreads.javascript import check_script, python_calls, python_generators
from wsthreads.javascript.python_calls import PythonCalls
from wsthreads.javascript.python_functions import PythonFunction, PythonFunctions
from wsthreads.javascript.python_pool import MAX_ABANDONED
from wsthreads.javascript.schedule import NEVER, Schedule
from wsthreads.testing import play

#: Calls the function that the message names, with the JSON values behind the name, and sends what comes of it.
CALLER = """
import * as py from "./store.py";
const inWords = (value) => value instanceof Uint8Array ? value : JSON.stringify(value);
export async function onMessage(session, message) {
  try {
    const [name, ...values] = JSON.parse(message);
    session.send(inWords(await py[name](...values)) ?? "undefined");
  } catch (error) {
    session.send(`${error.name}: ${error.message}`);
  }
}
"""


def with_store(tmp_path: Path, python: str, script: str = CALLER, **settings: Any) -> Any:
    (tmp_path / "store.py").write_text(python)
    return running(tmp_path, script, **settings)


def ask(script: Script, session: FakeSession, *call: Any) -> str | bytes:
    return script.answer(session, json.dumps(call))


def names_in(script: Script) -> dict[str, Any]:
    """The variables of the Python file."""
    isolate = script.handler._isolate
    assert isolate is not None
    names: dict[str, Any] = isolate._loader.python[0].function.__globals__
    return names


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1, 1.5, 2**53 - 1, "", "text", "ü\0\u2028\"'\\", "\ud83d", [], {}, [1, [2, {"a": [None]}]],
     {"__proto__": 1, "constructor": 2, "": 3, "a b": "c"}],
    ids=repr,
)  # fmt: skip
def test_json_values_arrive_as_they_are(tmp_path: Path, value: Any) -> None:
    with with_store(tmp_path, "def same(value): return value\n") as script:
        answer = ask(script, script.open(), "same", value)
        assert json.loads(answer) == value


def test_bytes_arrive_as_bytes(tmp_path: Path) -> None:
    source = """
    import { turned, inside } from "./store.py";
    export async function onMessage(session, message) {
      session.send(await turned(message));
      const { data, list } = await inside({ a: new Uint8Array([1, 255]).subarray(1), b: [new DataView(message)] });
      session.send(data);
      session.send(list[1]);
    }"""
    python = """
def turned(data):
    assert type(data) is bytes
    return bytearray(reversed(data))
def inside(value):
    assert value["a"] == b"\\xff"
    return {"data": value["a"], "list": [None, memoryview(value["b"][0])]}
"""
    with with_store(tmp_path, python, source) as script:
        session = script.open()
        data = bytes(range(256))
        script.message(session, data)
        assert session.wait_for_messages(3) == [data[::-1], b"\xff", data]


def test_a_result_that_came_in_time_is_not_given_up_if_the_script_was_busy(tmp_path: Path) -> None:
    source = f"""
    import {{ quick }} from "./store.py";
    export async function onMessage(session, message) {{
      if (message === "busy") {{ const end = Date.now() + {SHORT_S * 1500}; while (Date.now() < end); return; }}
      try {{ session.send(await quick()); }} catch (error) {{ session.send(error.message); }}
    }}"""
    settings = {"script_wait_s": SHORT_S, "script_timeout_s": DEADLINE_S}
    with with_store(tmp_path, "def quick(): return 'in time'\n", source, **settings) as script:
        first, second = script.open(), script.open()
        script.message(first, "ask")
        script.message(second, "busy")
        assert first.wait_for_messages(1) == ["in time"]


def test_a_python_file_is_imported_by_its_name(tmp_path: Path) -> None:
    """One with a computed name would run in the isolate's thread, and all sessions would wait."""
    source = """
    import * as known from "./store.py";
    export async function onMessage(session, name) {
      try { session.send(Object.keys(await import(name)).join()); } catch (error) { session.send(error.message); }
    }"""
    (tmp_path / "other.py").write_text("def g(): pass\n")
    with with_store(tmp_path, "def f(): pass\n", source) as script:
        session = script.open()
        assert script.answer(session, "./store.py") == "f"
        for _ in range(2):
            assert "a Python file must be imported by a literal name" in str(script.answer(session, "./other.py"))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("NaN", "TypeError: f takes JSON values, bytes and handles, not NaN"),
        ("[1, -Infinity]", "TypeError: f takes JSON values, bytes and handles, not -Infinity"),
        ("10n", "TypeError: f takes JSON values, bytes and handles, not a bigint"),
        ("Symbol()", "TypeError: f takes JSON values, bytes and handles, not a symbol"),
        ("() => 1", "TypeError: f takes JSON values, bytes and handles, not a function"),
        ("new Map([[1, 2]])", "TypeError: f takes JSON values, bytes and handles, not a Map"),
        ("{ a: [new Set()] }", "TypeError: f takes JSON values, bytes and handles, not a Set"),
        ("Promise.resolve(1)", "TypeError: f takes JSON values, bytes and handles, not a Promise"),
        ("/x/", "TypeError: f takes JSON values, bytes and handles, not a RegExp"),
        ("[new Error('e')]", "TypeError: f takes JSON values, bytes and handles, not an Error"),
        ("new (class Own { #a = 1 })()", "TypeError: f takes JSON values, bytes and handles, not an Own"),
        ("new String('abc')", "TypeError: f takes JSON values, bytes and handles, not a String"),
        ("2 ** 60", "RangeError: 1152921504606847000 is beyond the safe integers, ±9007199254740991: pass it to f as a "
                    "string"),
        ("cycle", "RangeError: f takes values of at most 200 levels; is there a cycle?"),
        ("{ '\\0': 1 }", 'TypeError: f takes no object with the key "\\0"'),
        ("{ get a() { throw new Error('mine') } }", "Error: mine"),
        ("new Proxy({}, { ownKeys() { throw new Error('trap') } })", "Error: trap"),
        ("'x'.repeat(5e6)", "RangeError: f takes at most 4194304 characters of JSON: pass it in parts"),
        ("new Uint8Array(5e6)", "RangeError: f takes at most 4194304 bytes, not 5000000: pass them in parts"),
        ("Array(100).fill(new Uint8Array(3e5))", "RangeError: f takes at most 4194304 bytes, not 4200000: pass them in "
                                                 "parts"),
    ],
)
def test_what_is_no_json_value_is_refused(tmp_path: Path, code: str, error: str) -> None:
    source = f"""
    import {{ f }} from "./store.py";
    const cycle = []; cycle.push(cycle);
    export function onMessage(session) {{
      f({code}).catch((error) => session.send(`${{error}} ${{error instanceof (globalThis[error.name] ?? Error)}}`));
    }}"""
    with with_store(tmp_path, "def f(value): return 'was called'\n", source) as script:
        assert script.answer(script.open()) == f"{error} true"


def test_an_argument_that_is_undefined_at_the_end_takes_the_default(tmp_path: Path) -> None:
    source = """
    import { f } from "./store.py";
    export async function onMessage(session) { session.send(await f(1, undefined, undefined)); }"""
    with with_store(tmp_path, "def f(a, b=2, c=3): return repr((a, b, c))\n", source) as script:
        assert script.answer(script.open()) == "(1, 2, 3)"


def test_undefined_is_none_and_a_date_is_text(tmp_path: Path) -> None:
    source = """
    import { f } from "./store.py";
    export async function onMessage(session) {
      session.send(await f(undefined, [undefined], { a: undefined, b: () => 1, c: new Date(0) }));
    }"""
    with with_store(tmp_path, "def f(*values): return repr(values)\n", source) as script:
        assert script.answer(script.open()) == "(None, [None], {'c': '1970-01-01T00:00:00.000Z'})"


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("{1, 2}", "TypeError: f (store.py) returned what JavaScript cannot have: set is not a JSON value"),
        ("[object()]", "TypeError: f (store.py) returned what JavaScript cannot have: object is not a JSON value"),
        ("2**53", f"RangeError: f (store.py) returned what JavaScript cannot have: {2**53} is beyond JavaScript's safe "
                  f"integers, ±{2**53 - 1}: return it as text"),
        ("{'a': [-2**80]}", "RangeError: f (store.py) returned what JavaScript cannot have: -1208925819614629174706176 "
                            f"is beyond JavaScript's safe integers, ±{2**53 - 1}: return it as text"),
        ("'x' * (16 * 1024 * 1024)", "RangeError: f (store.py) returned what JavaScript cannot have: the result has "
                                     "16777218 bytes, more than 16777216: return it in parts"),
        ("(n for n in [1])", "TypeError: f (store.py) returned what JavaScript cannot have: generator is not a JSON "
                             "value: return a list, or use yield in the function that the script imports"),
    ],
)  # fmt: skip
def test_a_result_that_is_no_json_value_is_an_error(tmp_path: Path, value: str, error: str) -> None:
    with with_store(tmp_path, f"def f(): return {value}\n") as script:
        assert ask(script, script.open(), "f") == error


@pytest.mark.parametrize("value", ["float('nan')", "[float('inf')]", "loop"])
def test_so_is_one_that_no_json_text_can_have(tmp_path: Path, value: str) -> None:
    with with_store(tmp_path, f"loop = []\nloop.append(loop)\ndef f(): return {value}\n") as script:
        answer = ask(script, script.open(), "f")
        assert str(answer).startswith("RangeError: f (store.py) returned what JavaScript cannot have: ")


def test_digits_in_a_text_are_no_number(tmp_path: Path) -> None:
    with with_store(tmp_path, "def f(): return ['12345678901234567890', 0.1234567890123456789]\n") as script:
        assert ask(script, script.open(), "f") == '["12345678901234567890",0.12345678901234568]'


@pytest.mark.parametrize(
    ("raises", "error"),
    [
        ("{}['k']", "KeyError: 'k'"),
        ("raise ValueError('is wrong')", "ValueError: is wrong"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt: "),
        ("raise GeneratorExit", "GeneratorExit: "),
        ("raise StopIteration(1)", "StopIteration: 1"),
        ("raise Odd", "Odd: (no text: its __str__ failed)"),
        ("raise ValueError('x' * 5000)", f"ValueError: {'x' * 1000}… (4000 more characters)"),
        ("f()", "RecursionError: maximum recursion depth exceeded"),
    ],
)
def test_an_exception_becomes_an_error_of_its_name(tmp_path: Path, raises: str, error: str) -> None:
    python = f"""
class Odd(BaseException):
    def __str__(self): raise SystemExit
def f():
    {raises}
def g(): return 1
"""
    with with_store(tmp_path, python) as script:
        session = script.open()
        assert str(ask(script, session, "f")).startswith(error)
        assert ask(script, session, "g") == "1"


def test_the_stack_of_an_error_shows_the_frames_of_both_languages(tmp_path: Path) -> None:
    python = "import json\ndef outer(text):\n    return inner(text)\ndef inner(text):\n    return json.loads(text)\n"
    source = """
    import { outer } from "./store.py";
    async function parse(text) { return await outer(text); }
    export async function onMessage(session, message) { await parse(message); }"""
    with with_store(tmp_path, python, source) as script, script_log() as lines:
        script.message(script.open(), "{")
        text = lines.wait_for("JSONDecodeError")
    assert text.startswith("onMessage failed in session")
    places = re.findall(r"^ *at (\S+) .*?([^/(]+?:\d+)(?::\d+)?\)$", text, re.MULTILINE)
    assert places[-4:] == [
        ("inner", "store.py:5"), ("outer", "store.py:3"), ("parse", "script.js:3"), ("onMessage", "script.js:4"),
    ]  # fmt: skip
    (record,) = [record for record in lines.records if "JSONDecodeError" in record.getMessage()]
    assert (record.file, record.line) == ("store.py", 5)  # type: ignore[attr-defined]


def test_an_error_has_its_causes_and_notes(tmp_path: Path) -> None:
    python = """
class StoreError(Exception): pass
def f():
    try:
        try: {}["key"]
        except KeyError: 1 / 0
    except ZeroDivisionError as error:
        error_of = StoreError("cannot load")
        raise error_of from error
def noted():
    error = ValueError("text")
    error.__notes__ = ["in row 5\\n    at forged (script.js:1)", 7]
    raise error
def plain():
    try: 1 / 0
    except ZeroDivisionError: raise ValueError("text") from None
def loop():
    error = ValueError("a"); other = ValueError("b"); error.__cause__ = other; other.__cause__ = error
    raise error
def chain():
    error = None
    for number in range(100):
        following = ValueError(f"number {number}"); following.__cause__ = error; error = following
    raise error
class Odd(Exception):
    __notes__ = property(lambda self: 1 / 0)
    __cause__ = property(lambda self: 1 / 0)
def odd(): raise Odd("text") from KeyError("its cause")
"""
    source = """
    import * as store from "./store.py";
    export async function onMessage(session, name) {
      const chain = [];
      try { await store[name](); }
      catch (first) {
        for (let error = first; error; error = error.cause) chain.push(`${error}`);
        const own = JSON.stringify(Object.keys(first));
        session.send(`${chain.join("|")} ${own} ${first.cause?.stack?.trim()}`);
        throw first;
      }
    }"""
    with with_store(tmp_path, python, source) as script, script_log() as lines:
        session = script.open()
        assert script.answer(session, "f") == (
            "StoreError: cannot load|ZeroDivisionError: division by zero|KeyError: 'key' [] at f (store.py:6)"
        )
        text = lines.wait_for("StoreError")
        assert "caused by ZeroDivisionError: division by zero\n    at f (store.py:6)" in text
        assert "caused by KeyError: 'key'\n    at f (store.py:5)" in text
        assert script.answer(session, "noted") == "ValueError: text [] undefined"
        text = lines.wait_for("in row 5")
        assert "    note: in row 5\n    note:     at forged (script.js:1)\n    at noted (store.py:13)" in text
        assert script.answer(session, "plain") == "ValueError: text [] undefined"
        assert script.answer(session, "loop") == "ValueError: a|ValueError: b [] "  # without a place
        assert str(script.answer(session, "chain")).count("|") == 6
        assert script.answer(session, "odd") == "Odd: text|KeyError: 'its cause' [] "


def test_an_error_has_the_members_of_a_group(tmp_path: Path) -> None:
    python = """
try: ExceptionGroup
except NameError:  # as Python 3.10
    class ExceptionGroup(Exception):
        def __init__(self, text, exceptions):
            super().__init__(f"{text} ({len(exceptions)} sub-exception{'s' * (len(exceptions) > 1)})")
            self.exceptions = tuple(exceptions)
def f(): raise ExceptionGroup("many", [ValueError("a"), ExceptionGroup("inner", [KeyError("b")])])
def large(): raise ExceptionGroup("many", [ValueError("a")] * 2 + [ValueError(str(n)) for n in range(1000)])
"""
    source = """
    import * as store from "./store.py";
    const shown = (error) => error.errors ? `${error.name}(${error.errors.map(shown)})` : `${error}`;
    export async function onMessage(session, name) {
      try { await store[name](); }
      catch (error) {
        session.send(name === "f" ? shown(error) : `${error.errors.length}`);
        throw error;
      }
    }"""
    with with_store(tmp_path, python, source) as script, script_log() as lines:
        session = script.open()
        assert script.answer(session, "f") == "ExceptionGroup(ValueError: a,ExceptionGroup(KeyError: 'b'))"
        text = lines.wait_for("ExceptionGroup: many (2 sub-exceptions)")
        assert "error 2 of 2: ExceptionGroup: inner (1 sub-exception)\nerror 1 of 1: KeyError: 'b'" in text
        assert script.answer(session, "large") == "19"


def test_an_error_that_nobody_handles_is_logged_with_its_place(tmp_path: Path) -> None:
    source = 'import { f } from "./store.py"; export function onMessage(session) { f(); }'
    with with_store(tmp_path, "def f():\n    raise OSError('no disk')\n", source) as script, script_log() as lines:
        script.message(script.open())
        assert "OSError: no disk" in lines.wait_for("unhandled")


def test_a_script_waits_while_others_of_its_sessions_are_served(tmp_path: Path) -> None:
    python = """
import threading
gate = threading.Event()
def wait(): return gate.wait(30)
def open(): gate.set()
"""
    with with_store(tmp_path, python) as script:
        first, second = script.open(), script.open()
        script.message(first, '["wait"]')
        script.message(first, '["open"]')  # comes behind the one that waits
        assert ask(script, second, "open") == "null"
        assert first.wait_for_messages(2) == ["true", "null"]


def test_functions_run_side_by_side_in_as_many_threads_as_are_set(tmp_path: Path) -> None:
    python = """
import threading
barrier = threading.Barrier(3)
def meet(): barrier.wait(30)
def thread(): return threading.current_thread().name
"""
    with with_store(tmp_path, python, script_threads=3) as script:
        sessions = [script.open() for _ in range(3)]
        for session in sessions:
            script.message(session, '["meet"]')
        for session in sessions:
            assert session.wait_for_messages(1) == ["null"]
        assert ask(script, sessions[0], "thread") == '"wsthreads-script.js-python"'
        assert len(own_threads("wsthreads-script.js-python")) == 3
    eventually(lambda: not own_threads("wsthreads-script.js-python"))


def test_a_function_that_does_not_return_is_given_up(tmp_path: Path) -> None:
    python = """
import threading
gate, is_over = threading.Event(), False
def spin():
    while not is_over: pass
def wait(): gate.wait()
def quick(): return 1
"""
    with with_store(tmp_path, python, script_wait_s=SHORT_S, script_threads=1) as script:
        session = script.open()
        assert ask(script, session, "spin") == f"TimeoutError: spin (store.py) has not returned in {SHORT_S:g} s"
        eventually(lambda: ask(script, session, "quick") == "1")  # beside one that spins, it may get no core in time
        given_up = f"TimeoutError: wait (store.py) has not returned in {SHORT_S:g} s"
        eventually(lambda: ask(script, session, "wait") == given_up)
        eventually(lambda: ask(script, session, "quick") == "1")
        names = names_in(script)
        names["gate"].set()
        names["is_over"] = True
    eventually(lambda: not own_threads())


def test_calls_that_have_no_thread_in_time_are_given_up() -> None:
    gate, began = threading.Event(), []

    def wait(number: int) -> None:
        began.append(number)
        gate.wait(DEADLINE_S)

    store = ModuleType("store")
    store.wait, store.__all__ = wait, ["wait"]  # type: ignore[attr-defined]
    functions, schedule = PythonFunctions({"store": store}), Schedule()
    functions.embedded_source("store", "runtime")
    calls = PythonCalls("x", functions, schedule, print, str, threads=1, wait_s=5)
    for ticket in (1, 2):
        assert calls.functions()["call_function"](ticket, 0, f"[{ticket}]") is None
    eventually(lambda: began == [1])
    assert calls.next_expiry <= time.monotonic() + 5
    calls.expire(time.monotonic() + 6)
    told = [schedule.take(0).encoded(None) for _ in range(2)]  # type: ignore[union-attr]
    assert [json.loads(event)[2:5] for event in told] == [
        [1, False, ["TimeoutError", "wait (store) has not returned in 5 s", ""]],
        [2, False, ["TimeoutError", "wait (store) got no thread in 5 s", ""]],
    ]
    assert calls.is_idle
    gate.set()
    calls.stop()
    assert began == [1]


def calls_of(rows: Callable[[], Iterator[int]], wait: Callable[..., None], *, threads: int) -> PythonCalls:
    """The calls of a script that has begun to iterate `rows()`, by the tickets 1 and 2."""
    store = ModuleType("store")
    vars(store).update(rows=rows, wait=wait, __all__=["rows", "wait"])
    functions, schedule = PythonFunctions({"store": store}), Schedule()
    functions.embedded_source("store", "runtime")
    calls = PythonCalls("x", functions, schedule, print, str, threads=threads, wait_s=5)
    for ticket, name, *arguments in ((1, "call_function", 0, "[]"), (2, "next_of", 1)):
        assert calls.functions()[name](ticket, *arguments) is None
        assert schedule.take(DEADLINE_S) is not None
        calls.settle(ticket)
    return calls


def test_a_generator_whose_end_got_no_thread_is_ended_later() -> None:
    gate, steps = threading.Event(), []

    def rows() -> Iterator[int]:
        try:
            yield 1
        finally:
            steps.append("ended")

    def wait() -> None:
        steps.append("waits")
        gate.wait(DEADLINE_S)

    calls = calls_of(rows, wait, threads=1)
    call = calls.functions()
    assert call["call_function"](3, 1, "[]") is None
    eventually(lambda: steps == ["waits"])
    assert call["end_of"](4, 1) is None
    calls.expire(time.monotonic() + 6)
    eventually(lambda: steps == ["waits", "ended"])
    gate.set()
    calls.stop()


def test_a_generator_is_ended_by_one_thread_only() -> None:
    """If two jobs had its number, the pool would count a thread that has ended."""
    gate, steps = threading.Event(), []

    def rows() -> Iterator[int]:
        try:
            yield 1
        finally:
            steps.append("ends")
            gate.wait(10 * DEADLINE_S)

    def wait(n: int) -> None:
        steps.append(n)
        if n:
            gate.wait(10 * DEADLINE_S)

    calls = calls_of(rows, wait, threads=2)
    call = calls.functions()
    for ticket in (3, 4):
        assert call["call_function"](ticket, 1, f"[{ticket}]") is None
    eventually(lambda: sorted(steps) == [3, 4])
    assert call["end_of"](5, 1) is None
    calls.expire(time.monotonic() + 6)  # 5 got no thread, but gets one now
    eventually(lambda: steps[2:] == ["ends"])
    assert call["drop_generator"](1) is None  # the script has lost it with the call
    assert call["call_function"](6, 1, "[0]") is None  # after what the line above may have begun
    eventually(lambda: steps[3:] == [0])
    gate.set()
    eventually(lambda: calls._pool.abandoned == 0 and not calls._pool._running)
    gate.clear()
    for ticket in (7, 8):
        assert call["call_function"](ticket, 1, f"[{ticket}]") is None
    eventually(lambda: sorted(steps[4:]) == [7, 8])
    gate.set()
    calls.stop()


def test_when_too_many_are_given_up_calls_fail_at_once(tmp_path: Path) -> None:
    python = "import threading\ngate = threading.Event()\ndef wait(): gate.wait()\n"
    source = """
    import { wait } from "./store.py";
    export async function onMessage(session, count) {
      const calls = [];
      for (let n = 0; n < count; n++) calls.push(wait().catch((error) => error.message));
      session.send(`${(await Promise.all(calls)).at(-1)}`);
    }"""
    settings = {"script_wait_s": SHORT_S, "script_threads": MAX_ABANDONED}
    with with_store(tmp_path, python, source, **settings) as script:
        session = script.open()
        text = f"wait (store.py) cannot be called: {MAX_ABANDONED} calls of Python functions have taken too long, and "

        def fails_at_once() -> Any:
            script.answer(session, f"{MAX_ABANDONED}")
            return script.answer(session, "1") == text + "still run"

        eventually(fails_at_once)  # only those count whose threads got a core in that time
        names_in(script)["gate"].set()
        eventually(lambda: script.answer(session, "1") == "null")


def test_calls_whose_results_are_on_their_way_are_looked_at_once() -> None:
    """Else each event looks at all of them again: after 20,000 calls at once, nobody was served for minutes."""
    store = ModuleType("store")
    store.quick, store.__all__ = lambda: 1, ["quick"]  # type: ignore[attr-defined]
    functions, schedule = PythonFunctions({"store": store}), Schedule()
    functions.embedded_source("store", "runtime")
    calls = PythonCalls("x", functions, schedule, print, str, threads=1, wait_s=0)
    tickets = [1, 2, 3]
    for ticket in tickets:
        assert calls.functions()["call_function"](ticket, 0, "[]") is None
    results = [schedule.take(DEADLINE_S) for _ in tickets]
    eventually(lambda: not calls._pool._running)
    calls.expire(time.monotonic())
    assert (calls.next_expiry, calls.is_idle) == (NEVER, False)
    assert [result is not None and calls.settle(result.arguments[0]) for result in results] == [True, True, True]
    assert (calls.is_idle, calls.settle(1)) == (True, False)
    calls.stop()


def test_more_calls_at_once_than_may_wait_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsthreads.javascript.python_pool.MAX_WAITING", 100)
    source = """
    import { f } from "./store.py";
    export async function onMessage(session) {
      let refused = 0;
      const calls = [];
      for (let n = 0; n < 200; n++) calls.push(f().catch((error) => { refused++; return error.message; }));
      await null;
      session.send(await calls.at(-1));
      await Promise.all(calls);
      session.send(`${refused}`);
    }"""
    python = "import threading\ngate = threading.Event()\ndef f(): gate.wait(30)\n"
    with with_store(tmp_path, python, source) as script:
        session = script.open()
        text = "f (store.py) cannot be called: 100 calls of Python functions wait for a thread"
        assert script.answer(session) == text
        names_in(script)["gate"].set()
        assert 92 <= int(session.wait_for_messages(2)[1]) <= 100


def test_a_session_that_ends_while_its_call_runs_harms_nobody(tmp_path: Path) -> None:
    python = """
import threading
began, gate = threading.Event(), threading.Event()
def f():
    began.set()
    return gate.wait(30)
"""
    with with_store(tmp_path, python) as script:
        first, second = script.open(), script.open()
        script.message(first, '["f"]')
        assert names_in(script)["began"].wait(DEADLINE_S)
        closing = threading.Thread(target=script.close, args=(first,))
        closing.start()
        names_in(script)["gate"].set()
        closing.join(DEADLINE_S)
        assert not closing.is_alive()
        assert ask(script, second, "f") == "true"


def test_generators_are_async_iterators(tmp_path: Path) -> None:
    python = """
ended = []
def numbers(n):
    try:
        yield from range(n)
        return "end"
    finally:
        ended.append(n)
def failing():
    yield 1
    raise ValueError("at 2")
def ends(): return ended
"""
    source = """
    import { ends, numbers, failing } from "./store.py";
    export async function onMessage(session) {
      const found = [];
      for await (const n of numbers(3)) found.push(n);
      const left = numbers(9);
      for await (const n of left) {
        if (n === 2) { await left.return(); found.push(...await ends()); break; }
        found.push(n);
      }
      const all = numbers(2);
      found.push(...await Promise.all([all.next(), all.next(), all.next(), all.next()]).then((each) => each.map(
        ({ value, done }) => `${value} ${done}`)));
      try { for await (const n of failing()) found.push(n); } catch (error) { found.push(error.message); }
      const unused = numbers(7);
      found.push(JSON.stringify(await unused.return("r")), JSON.stringify(await unused.next()));
      session.send(found.join("|"));
    }"""
    with with_store(tmp_path, python, source) as script:
        told = '0|1|2|0|1|3|9|0 false|1 false|end true|undefined true|1|at 2|{"value":"r","done":true}|{"done":true}'
        assert script.answer(script.open()) == told
        assert names_in(script)["ended"] == [3, 9, 2]


def test_a_generator_keeps_its_context_variables(tmp_path: Path) -> None:
    """Each step may run in another thread, but a token is only good in its context: `with app.app_context(): yield`."""
    python = """
from contextvars import ContextVar
user = ContextVar("user", default="nobody")
def rows(name):
    token = user.set(name)
    try:
        while True:
            yield user.get()
    finally:
        user.reset(token)
def now(): return user.get()
"""
    source = """
    import { now, rows } from "./store.py";
    export async function onMessage(session) {
      const ann = rows("ann"), bob = rows("bob"), found = [];
      for (const each of [ann, bob, ann, bob]) found.push((await each.next()).value, await now());
      found.push((await ann.return("end")).value, await now());
      session.send(found.join(" "));
    }"""
    with with_store(tmp_path, python, source) as script:
        assert script.answer(script.open()) == "ann nobody bob nobody ann nobody bob nobody end nobody"


ENDLESS = "ended = []\ndef g():\n    try:\n        while True: yield 1\n    finally:\n        ended.append(1)\n"


def test_a_generator_that_nobody_can_go_on_with_ends(tmp_path: Path) -> None:
    source = """
    import { g } from "./store.py";
    export async function onMessage(session, message) {
      const rows = g();
      const steps = [rows.next(), rows.next(), rows.next()];
      if (message === "waits") await steps[2];
      else for (const step of steps) step.then(({ value }) => session.send(`${value}`));
      session.send("done");
    }"""
    with with_store(tmp_path, ENDLESS, source, script_wait_s=DEADLINE_S) as script:
        ended = names_in(script)["ended"]
        session = script.open()
        script.message(session, "waits")
        script.message(session, "waits")
        eventually(lambda: len(ended) == 2)
        script.message(session, "does not wait")
        assert session.wait_for_messages(6) == ["done", "done", "done", "1", "1", "1"]  # calls that were made go on
        eventually(lambda: len(ended) == 3)


def test_the_methods_of_an_iterator_keep_its_generator_open(tmp_path: Path) -> None:
    source = """
    import { numbers } from "./store.py";
    const wrapped = ({ next, return: end }) => ({ next, return: end, [Symbol.asyncIterator]() { return this; } });
    export async function onMessage(session, message) {
      const found = [];
      if (message === "next") {
        const { next } = numbers(3);
        for (let step = await next(); !step.done; step = await next()) found.push(step.value);
      } else {
        for await (const number of message === "spread" ? { ...numbers(3) } : wrapped(numbers(3))) found.push(number);
      }
      const end = numbers(3).return;
      session.send(`${found} ${JSON.stringify(await end(5))}`);
    }"""
    with with_store(tmp_path, "def numbers(n): yield from range(n)\n", source) as script:
        for how in ("next", "spread", "wrapped"):
            assert script.answer(script.open(), how) == '0,1,2 {"value":5,"done":true}'


def test_a_generator_that_is_idle_for_long_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    now, ended = [100.0], []

    def rows(name: str) -> Iterator[int]:
        try:
            yield from range(9)
        finally:
            ended.append(name)

    monkeypatch.setattr(python_calls, "MAX_GENERATORS", 2)
    for module in (python_calls, python_generators):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    store = ModuleType("store")
    store.rows, store.__all__ = rows, ["rows"]  # type: ignore[attr-defined]
    functions, schedule = PythonFunctions({"store": store}), Schedule()
    functions.embedded_source("store", "runtime")
    calls = PythonCalls("x", functions, schedule, print, str, threads=1, wait_s=5)
    tickets = itertools.count(1)

    def ask(kind: str, *arguments: Any) -> Any:
        ticket = next(tickets)
        refusal = calls.functions()[kind](ticket, *arguments)
        if refusal is not None:
            return refusal
        event = schedule.take(DEADLINE_S)
        assert event is not None
        assert calls.settle(event.arguments[0])
        _, _, settled, is_returned, told, *_ = json.loads(event.encoded(None))
        assert settled == ticket
        return told if is_returned else told[1]

    assert [ask("call_function", 0, f'["{name}"]') for name in "ab"] == [1, 2]
    now[0] += 4
    assert ask("next_of", 1) == {"done": False, "value": 0}
    full = "rows (store): 2 generators of this script are open; end one of them first"
    assert ask("call_function", 0, '["c"]') == full
    now[0] += 4
    assert ask("call_function", 0, '["c"]') == 3  # in place of b, which no step was asked of
    assert ask("next_of", 1) == {"done": False, "value": 1}
    assert ask("next_of", 2) == "the generator was idle for 5 s, and has ended: 2 others were open"
    assert ended == []  # b had not begun
    now[0] += 6
    assert ask("call_function", 0, '["d"]') == 4
    assert ask("next_of", 4) == {"done": False, "value": 0}
    calls.stop()


def test_generators_count_from_their_call_on_and_end_with_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    called, gate, ended = threading.Semaphore(0), threading.Event(), threading.Event()

    class Rows:
        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            return 1

        def close(self) -> None:
            ended.set()

    def rows() -> Rows:
        called.release()
        gate.wait(DEADLINE_S)
        return Rows()

    monkeypatch.setattr(python_calls, "MAX_GENERATORS", 2)
    schedule = Schedule()
    functions: Any = [PythonFunction("rows", "store", rows, is_generator=True)]
    calls = PythonCalls("x", functions, schedule, print, str, threads=1, wait_s=DEADLINE_S)
    for ticket in (1, 2, 3, 4):
        assert calls.functions()["call_function"](ticket, 0, "[]") is None
    assert called.acquire(timeout=DEADLINE_S)
    refusals = [schedule.take(0), schedule.take(0)]
    assert [event is not None and calls.settle(event.arguments[0]) for event in refusals] == [True, True]
    assert schedule.take(0) is None
    calls.stop()  # while the first is being made
    gate.set()
    assert ended.wait(DEADLINE_S)


def test_a_step_that_was_given_up_ends_its_generator(tmp_path: Path) -> None:
    python = """
import threading
gate, ended = threading.Event(), []
def g():
    try:
        yield 1
        gate.wait()
        while True: yield 2
    finally:
        ended.append(1)
"""
    source = """
    import { g } from "./store.py";
    export async function onMessage(session) {
      try { for await (const row of g()) session.send(`${row}`); } catch (error) { session.send(error.name); }
    }"""
    with with_store(tmp_path, python, source, script_wait_s=SHORT_S) as script:
        session = script.open()
        script.message(session)
        assert session.wait_for_messages(2) == ["1", "TimeoutError"]
        names_in(script)["gate"].set()
        eventually(lambda: names_in(script)["ended"] == [1])


def test_generators_left_open_are_bounded_and_end_with_the_script(tmp_path: Path) -> None:
    source = """
    import { g } from "./store.py";
    const kept = [];
    export async function onMessage(session) {
      let open = 0;
      try {
        for (; open < 2000; open++) {
          kept.push(g());
          await kept[open].next();
        }
      } catch (error) { session.send(`${open}: ${error.message}`); }
    }"""
    with with_store(tmp_path, ENDLESS, source, script_wait_s=DEADLINE_S) as script:
        answer = script.answer(script.open())
        assert answer == "1000: g (store.py): 1000 generators of this script are open; end one of them first"
        ended = names_in(script)["ended"]
    eventually(lambda: len(ended) == 1000)


def test_generators_in_cycles_of_objects_end_once_a_script_cannot_reach_them(tmp_path: Path) -> None:
    source = """
    import { g } from "./store.py";
    export async function onMessage(session) {
      for (let count = 0; count < 2000; count++) {
        const rows = g();
        const cycle = { rows };
        cycle.cycle = cycle;
        cycle.first = await rows.next();
      }
      session.send("done");
    }"""
    with with_store(tmp_path, ENDLESS, source, script_wait_s=DEADLINE_S) as script:
        session = script.open()
        script.message(session)
        assert session.wait_for_messages(1) == ["done"]


def test_at_the_limit_no_call_fails_because_of_generators_that_a_script_cannot_reach(tmp_path: Path) -> None:
    source = """
    import { g } from "./store.py";
    export async function onMessage(session, message) {
      await Promise.allSettled(Array.from({ length: Number(message) }, () => {
        const rows = g();
        const cycle = { rows };
        cycle.cycle = cycle;
        return rows.next().then((first) => { cycle.first = first; });
      }));
      let failed = 0;
      for (; failed < 400; failed++) {
        try { await g().next(); break; } catch {}
      }
      session.send(`${failed}`);
    }"""
    with with_store(tmp_path, ENDLESS, source, script_wait_s=DEADLINE_S) as script:
        session = script.open()
        bursts = (1000, 1001, 999, 1050, 1003, 1099, 1537)
        assert [script.answer(session, str(length)) for length in bursts] == ["0"] * len(bursts)


def test_handles_arrive_as_the_objects_of_python(tmp_path: Path) -> None:
    (tmp_path / "store.py").write_text(
        """
import wsthreads
def greet(session, room, handle, user, peer):
    assert isinstance(session, wsthreads.Session) and isinstance(room, wsthreads.SessionRoom)
    assert type(handle) is wsthreads.Room and isinstance(user, wsthreads.User) and isinstance(peer, wsthreads.Peer)
    room.broadcast("to the room")
    handle.broadcast("by a handle")
    user.send("to the user")
    peer.send("to the peer")
    session.send("to the session")
    return [session.id == peer.id, room.name, handle.name, user.name]
"""
    )
    (tmp_path / "chat.js").write_text(
        """
import { room, session as peer, user } from "wsthreads";
import { greet } from "./store.py";
export function onHandshake(request) { request.setUser("ann"); }
export async function onMessage(session) {
  const mine = session.room("r");
  mine.join();
  const told = await greet(session, mine, room("r"), user("ann"), peer(session.id));
  session.send(JSON.stringify(told));
}
"""
    )
    with play(tmp_path / "chat.js") as chat:
        ann = chat.connect()
        ann.send("")
        assert [ann.receive() for _ in range(6)] == [
            "to the room", "by a handle", "to the user", "to the peer", "to the session", '[true,"r","r","ann"]',
        ]  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        "{ ...session }",
        "Object.assign(Object.create(null), session)",
        "{ id: session.id, user: session.user, constructor: session.constructor }",
    ],
)
def test_only_a_real_handle_is_one(tmp_path: Path, code: str) -> None:
    source = f"""
    import {{ f }} from "./store.py";
    export async function onMessage(session) {{ session.send(await f({code})); }}"""
    with with_store(tmp_path, "def f(value): return type(value).__name__\n", source) as script:
        assert script.answer(script.open()) == "dict"


@pytest.mark.parametrize(
    "code",
    [
        "Object.create(session)",
        "{ __proto__: Object.getPrototypeOf(session), id: session.id }",
        "new Proxy(session, {})",
    ],
)
def test_what_only_looks_like_a_handle_is_refused(tmp_path: Path, code: str) -> None:
    source = f"""
    import {{ f }} from "./store.py";
    export async function onMessage(session) {{
      try {{ session.send(await f({code})); }} catch (error) {{ session.send(error.message); }}
    }}"""
    with with_store(tmp_path, "def f(value): return type(value).__name__\n", source) as script:
        assert str(script.answer(script.open())).startswith("f takes JSON values, bytes and handles, not a")


def test_the_application_provides_modules(tmp_path: Path) -> None:
    store = ModuleType("the_store")
    exec("numbers = {}\ndef add(n):\n    numbers[n] = n\n    return len(numbers)\n", store.__dict__)
    (tmp_path / "chat.js").write_text(
        'import { add } from "store"; export async function onMessage(session, m) { session.send(`${await add(m)}`); }'
    )
    with play(tmp_path / "chat.js", modules={"store": store}) as chat:
        ann = chat.connect()
        ann.send("x")
        assert ann.receive() == "1"
    assert store.numbers == {"x": "x"}  # type: ignore[attr-defined]


# What is imported, and what is not.


def test_private_names_classes_and_other_modules_names_are_not_exported(tmp_path: Path) -> None:
    python = """
import os
from json import dumps
from functools import lru_cache, partial
def public(): pass
def _private(): pass
class Class: pass
constant = 1
@lru_cache
def cached(): pass
"""
    source = """
    import * as store from "./store.py";
    export function onMessage(session) { session.send(Object.keys(store).join()); }"""
    with with_store(tmp_path, python, source) as script:
        assert script.answer(script.open()) == "cached,public"


def test_dunder_all_decides(tmp_path: Path) -> None:
    python = "from json import dumps\n__all__ = ['dumps', '_private']\ndef public(): pass\ndef _private(): pass\n"
    source = """
    import * as store from "./store.py";
    export function onMessage(session) { session.send(Object.keys(store).join()); }"""
    with with_store(tmp_path, python, source) as script:
        assert script.answer(script.open()) == "_private,dumps"


@pytest.mark.parametrize(
    ("python", "line", "message"),
    [
        ("def f(:\n", 1, "SyntaxError"),
        ("\n\n1 / 0\n", 3, "ZeroDivisionError: division by zero"),
        ("import nothing_like_this\n", 1, "ModuleNotFoundError: No module named 'nothing_like_this'"),
        ("raise SystemExit(1)", 1, "SystemExit: 1"),
        ("constant = 1\n", None, "it has no public functions that a script could import"),
        ("\n\nasync def f(): pass\n", 3, "f is async; scripts call plain functions, each in a thread of its own"),
        ("__all__ = ['f']\n", None, "f in __all__ does not exist; a script can only import functions"),
        ("__all__ = ['f']\nf = 1\n", None, "f in __all__ is a int; a script can only import functions"),
        ("def f(): pass\n__all__ = [f]\n", None, "__all__ must be a list of names, such as ['load', 'save']"),
        ("__all__ = 5\n", None, "__all__ must be a list of names"),
        ("__all__ = ['f']\ndef __getattr__(name): 1 / 0\n", None, "its functions cannot be found: ZeroDivisionError"),
        ("import sys\nsys.path.pop(0)\n1 / 0\n", 3, "ZeroDivisionError"),
        ("import sys\ndel sys.modules[__name__]\n1 / 0\n", 3, "ZeroDivisionError"),
    ],
)
def test_a_python_file_that_does_not_load_is_an_error_with_its_place(
    tmp_path: Path, python: str, line: int | None, message: str
) -> None:
    (tmp_path / "store.py").write_text(python)
    script = tmp_path / "chat.js"
    script.write_text('import * as store from "./store.py"; export function onMessage() {}')
    with pytest.raises(ScriptError) as caught:
        check_script(script, Config())
    assert caught.value.message.startswith(message)
    assert (caught.value.path, caught.value.line) == (str(tmp_path / "store.py"), line)


@pytest.mark.parametrize(
    "python",
    [
        "# -*- coding: latin-1 -*-\ndef f(): return 'gr\xfc\xdfe'\n",
        "import sys\nsys.path = list(sys.path)\nsys.path.pop(0)\ndef f(): return 'gr\\xfc\\xdfe'\n",
        "class Odd:\n    def __getattr__(self, name): 1 / 0\n    def __call__(self): pass\n"
        "odd = Odd()\ndef f(): return 'gr\\xfc\\xdfe'\n",
        "import asyncio\nfrom functools import wraps\ndef sync(f):\n    @wraps(f)\n"
        "    def run(): return asyncio.run(f())\n    return run\n@sync\nasync def f(): return 'gr\\xfc\\xdfe'\n",
    ],
    ids=["latin-1", "sys.path", "an odd object", "an async function that is run"],
)
def test_python_files_of_many_kinds_load(tmp_path: Path, python: str) -> None:
    (tmp_path / "store.py").write_bytes(python.encode("latin-1"))
    with running(tmp_path, CALLER) as script:
        assert ask(script, script.open(), "f") == '"gr\xfc\xdfe"'


def test_the_end_of_a_script_waits_for_no_generator(tmp_path: Path) -> None:
    python = """
import threading
gate = threading.Event()
def rows():
    try:
        while True: yield 1
    finally:
        gate.wait(30)
"""
    source = """
    import { rows } from "./store.py";
    export async function onMessage(session) { await rows().next(); session.send("open"); }"""
    with with_store(tmp_path, python, source) as script:
        assert script.answer(script.open()) == "open"
        gate = names_in(script)["gate"]
        script.handler.stop(DEADLINE_S)
        assert not gate.is_set()
        gate.set()


def test_the_end_of_a_script_waits_a_moment_for_its_generators(tmp_path: Path) -> None:
    python = """
import threading, time
gate, ended = threading.Event(), []
def rows(n):
    try:
        while True: yield n
    finally:
        if not n: gate.wait(600)
        time.sleep(0.02)
        ended.append(n)
"""
    source = """
    import { rows } from "./store.py";
    const open = [];
    export async function onMessage(session) {
      for (let n = 0; n < 10; n++) { open.push(rows(n)); await open[n].next(); }
      session.send("open");
    }"""
    with with_store(tmp_path, python, source) as script:
        assert script.answer(script.open()) == "open"
        names = names_in(script)
        script.handler.stop(DEADLINE_S)
        assert sorted(names["ended"]) == list(range(1, 10))
        names["gate"].set()


def test_python_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.py").write_text("def f(): pass\n")
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "link.py").symlink_to(tmp_path / "store.py")
    for name in ("../store.py", "./link.py", "./missing.py"):
        (folder / "chat.js").write_text(f'import {{ f }} from "{name}"; export function onMessage() {{}}')
        with pytest.raises(ScriptError, match=f"chat.js:1:19: import of '{re.escape(name)}': "):
            check_script(folder / "chat.js", Config())


def test_a_script_reaches_nothing_but_the_functions(tmp_path: Path) -> None:
    python = "secret = 'hidden'\ndef f(value=None): return repr(value)\n"
    source = """
    import { f } from "./store.py";
    export async function onMessage(session) {
      const found = [];
      found.push(Object.getOwnPropertyNames(f).sort().join(), Object.isFrozen(f));
      found.push(await f({ constructor: 1, __class__: 2, __globals__: 3 }));
      try { await f.constructor("return secret")(); } catch (error) { found.push(error.name); }
      try { await f.call(null, ...Array(3)); } catch (error) { found.push(error.name); }
      Object.defineProperty(Array.prototype, "0", { set() { found.push("seen"); }, configurable: true });
      Object.prototype.toJSON = function () { found.push("asked"); return "changed"; };
      found.push(await f("x"));
      delete Object.prototype.toJSON; delete Array.prototype[0];
      session.send(found.join("|"));
    }"""
    with with_store(tmp_path, python, source) as script:
        told = str(script.answer(script.open()))
    assert told.split("|")[:3] == ["length,name", "true", "{'constructor': 1, '__class__': 2, '__globals__': 3}"]
    assert told.endswith("'x'")
    assert "hidden" not in told


# Reloads, and the command line.


def test_a_reload_runs_the_file_again_and_running_calls_go_on(tmp_path: Path) -> None:
    (tmp_path / "store.py").write_text(
        "import threading\ngate = threading.Event()\ndef f(): return gate.wait(30) and 1\n"
    )
    with running(tmp_path, CALLER) as script:
        first, second = script.open(), script.open()
        script.message(first, '["f"]')
        script.handler.settle(DEADLINE_S)
        old = names_in(script)
        (tmp_path / "store.py").write_text("def f(): return 2\ndef g(): return 3\n")
        assert str(tmp_path / "store.py") in script.handler.files()
        script.handler.reload()
        assert ask(script, second, "f") == "2"
        assert ask(script, second, "g") == "3"
        old["gate"].set()
        assert first.wait_for_messages(1) == ["1"]
        (tmp_path / "store.py").write_text("def f(: return 2\n")
        with pytest.raises(ScriptError, match="SyntaxError"):
            script.handler.reload()
        assert ask(script, second, "g") == "3"


def test_an_import_without_its_ending_is_told_of_the_python_file(tmp_path: Path) -> None:
    (tmp_path / "store.py").write_text("def load(): pass\n")
    (tmp_path / "chat.js").write_text('import { load } from "./store"; export function onMessage() {}')
    with pytest.raises(ScriptError, match=r"there is \./store\.py: imports name the file as it is, with its suffix"):
        check_script(tmp_path / "chat.js", Config())


def test_check_writes_types(tmp_path: Path) -> None:
    (tmp_path / "store.py").write_text(
        '''
from collections.abc import Iterator
from enum import Enum
from typing import Literal, NamedTuple, Optional, TypedDict
from wsthreads import Room, Session
class Row(TypedDict, total=False):
    id: int
    other: "Row | None"
def save(session: Session, rows: list[Row], mode: Literal["a", "b"] = "a", *more: int) -> bool:
    """Saves rows."""
def load(room: Room, default, data: bytes, pair: tuple[int, str], table: Optional[dict[str, list[int | None]]] = None):
    """Loads.

    It says */ more."""
def walk() -> Iterator[Row]: yield {}
def unknown(value: "NoSuchName") -> "NoSuchName": return value
class Place(NamedTuple):
    x: float
    picture: bytes
def cross(marks: list[bytes], unique: set[str]) -> Place: pass
def strangers() -> Iterator[Session]: yield
def unique() -> set[int] | None: pass
def delete(key: str) -> None: pass
class Color(Enum): RED = 1
def paint(color: Literal[Color.RED], mark: Literal[b"x", 1, True, None], true=1): pass
'''
    )
    (tmp_path / "chat.js").write_text('import * as store from "./store.py"; export function onMessage() {}')
    with Program([sys.executable, "-m", "wsthreads", "check", "--types", "chat.js"], cwd=tmp_path) as check:
        assert check.wait() == 0
    types = resources.files("wsthreads.javascript") / "types" / "wsthreads.d.ts"
    assert (tmp_path / "wsthreads.d.ts").read_text() == types.read_text()
    assert json.loads((tmp_path / "jsconfig.json").read_text())["include"] == ["*.js", "*.mjs", "wsthreads.d.ts"]
    assert (tmp_path / "store.py.d.ts").read_text() == (
        """// Written by `wsthreads check --types` from store.py. Changes here are lost.

import type { Room, Session } from "wsthreads";

export interface Row {
  id?: number;
  other?: Row | null;
}

/** Saves rows. */
export function save(session: Session, rows: Row[], mode?: "a" | "b", ...more: number[]): Promise<boolean>;

/**
 * Loads.
 *
 * It says * / more.
 */
export function load(room: Room, default$: any, data: ArrayBuffer | ArrayBufferView, pair: [number, string], """
        """table?: Record<string, (number | null)[]> | null): Promise<any>;

export function walk(): AsyncIterableIterator<Row>;

export function unknown(value: any): Promise<any>;

export function cross(marks: (ArrayBuffer | ArrayBufferView)[], unique: string[]): Promise<[number, Uint8Array]>;

export function strangers(): AsyncIterableIterator<never>;

export function unique(): Promise<never | null>;

declare function delete$(key: string): Promise<null>;
export { delete$ as delete };

export function paint(color: any, mark: ArrayBuffer | ArrayBufferView | 1 | true | null, true$?: any): Promise<any>;
"""
    )


def test_types_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "rows.py").write_text("from typing import TypedDict\nclass Row(TypedDict): name: str\n")
    (tmp_path / "store.py").write_text(
        """
from typing import Literal, TypedDict
import wsthreads, rows
class Row(TypedDict): id: int
class Session(TypedDict): id: int
def mine() -> Row: pass
def other() -> list[rows.Row]: pass
def session(session: wsthreads.Session) -> Session: pass
def blank() -> TypedDict("1 row", {"id": int}): pass
def word() -> TypedDict("delete", {"id": int}): pass
def keyword() -> TypedDict("class", {"id": int}): pass
def square() -> TypedDict("m²", {"id": int}): pass
def digits() -> TypedDict("٣x", {"id": int}): pass
def empty() -> TypedDict("", {"id": int}): pass
def named() -> TypedDict("Größe", {"id": int}): pass
class string(TypedDict): id: int
def text() -> string: pass
def none() -> Literal[()]: pass
def delete(): pass
def delete_(new, new_): pass
"""
    )
    (tmp_path / "chat.js").write_text('import * as store from "./store.py"; export function onMessage() {}')
    with Program([sys.executable, "-m", "wsthreads", "check", "--types", "chat.js"], cwd=tmp_path) as check:
        assert check.wait() == 0
    lines = (tmp_path / "store.py.d.ts").read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith(("export", "declare"))] == [
        "export interface Row {",
        "export interface Row$ {",
        "export interface Session$ {",
        "export interface _1_row {",
        "export interface delete$ {",
        "export interface class$ {",
        "export interface m_ {",
        "export interface _٣x {",
        "export interface _ {",
        "export interface Größe {",
        "export interface string$ {",
        "export function mine(): Promise<Row>;",
        "export function other(): Promise<Row$[]>;",
        "export function session(session: Session): Promise<Session$>;",
        "export function blank(): Promise<_1_row>;",
        "export function word(): Promise<delete$>;",
        "export function keyword(): Promise<class$>;",
        "export function square(): Promise<m_>;",
        "export function digits(): Promise<_٣x>;",
        "export function empty(): Promise<_>;",
        "export function named(): Promise<Größe>;",
        "export function text(): Promise<string$>;",
        "export function none(): Promise<never>;",
        "declare function delete$(): Promise<any>;",
        "export { delete$ as delete };",
        "export function delete_(new$: any, new_: any): Promise<any>;",
    ]


def test_annotations_that_cannot_be_looked_at_are_any(tmp_path: Path) -> None:
    (tmp_path / "store.py").write_text(
        """
import typing
from typing import Dict, List, NamedTuple, Sequence, Tuple, TypedDict
def bare(a: List, b: Sequence, c: Dict, d: "dict[str]") -> Tuple: pass
def empty() -> tuple[()]: pass
class Node(NamedTuple):
    name: str
    next: "Node | None"
def nodes() -> Node: pass
class Pair(NamedTuple): first: "NoSuchName"; second: int
def pair() -> Pair: pass
class Row(TypedDict): first: "NoSuchName"
def row() -> Row: pass
class Unhashable(type):
    def __hash__(self, other=None): raise ValueError
    __eq__ = __subclasscheck__ = __hash__
class Evil(metaclass=Unhashable): pass
def evil(value: Evil) -> Evil: pass
class Fails:
    def __call__(self): pass
    def __getattr__(self, name): raise ValueError
def fails(value: Fails()) -> Fails(): pass
"""
    )
    (tmp_path / "chat.js").write_text('import * as store from "./store.py"; export function onMessage() {}')
    with Program([sys.executable, "-m", "wsthreads", "check", "--types", "chat.js"], cwd=tmp_path) as check:
        assert check.wait() == 0
    lines = (tmp_path / "store.py.d.ts").read_text().splitlines()
    assert [line for line in lines[1:] if line] == [
        "export interface Row {",
        "  first: any;",
        "}",
        "export function bare(a: any[], b: any[], c: Record<string, any>, d: Record<string, any>): Promise<any[]>;",
        "export function empty(): Promise<[]>;",
        "export function nodes(): Promise<[string, any[] | null]>;",
        "export function pair(): Promise<[any, any]>;",
        "export function row(): Promise<Row>;",
        "export function evil(value: any): Promise<any>;",
        "export function fails(value: any): Promise<any>;",
    ]


def test_check_names_what_cannot_cross(tmp_path: Path) -> None:
    (tmp_path / "store.py").write_text(
        """from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntEnum
from numbers import Number
from typing import Any, Hashable, Iterator, NamedTuple, Protocol, Reversible, SupportsInt, TypedDict
@dataclass
class Row: id: int
class Named(Protocol): name: str
class Kind(IntEnum): A = 1
class Color(Enum): RED = 1
class Pair(NamedTuple): a: int
class Table(TypedDict):
    rows: list[Row]
    inner: "Table"
def needs(room, *, limit): pass
def may(room, *, limit=5) -> dict[str, Kind | Pair | None]: pass
def row() -> list[Row] | None: pass
def when() -> dict[str, datetime]: pass
def color() -> Color: pass
def table() -> Table: pass
def unique() -> set[str]: pass
def walk() -> Iterator[datetime]: yield
def lazy() -> Iterator[int]: return iter([])
def plain(when: datetime) -> Any: pass
def steps() -> Iterator[tuple[int, ...]]: yield
def unknown() -> "NoSuchName": pass
def number() -> Number | SupportsInt | Hashable | Reversible: pass
def told(value: int) -> Named: pass
"""
    )
    (tmp_path / "chat.js").write_text('import * as store from "./store.py"; export function onMessage() {}')
    found = check_script(tmp_path / "chat.js", Config())
    told = [remark.removeprefix(f"{tmp_path}/store.py:") for remark in found.remarks]
    ending = ", which a script cannot have: use JSON values or bytes"
    assert told == [
        "15: needs cannot be called by a script: its parameter limit is keyword-only",
        "16: a script cannot pass limit to may: it is keyword-only",
        f"17: row returns Row{ending}",
        f"18: when returns datetime{ending}",
        f"19: color returns Color{ending}",
        f"20: table returns Row{ending}",
        f"21: unique returns set{ending}",
        f"22: walk yields datetime{ending}",
        f"23: lazy returns Iterator{ending}",
    ]
    with Program([sys.executable, "-m", "wsthreads", "check", "chat.js"], cwd=tmp_path) as check:
        assert check.wait() == 0
        check.wait_for("store.py:15: needs cannot be called by a script")


def test_a_key_of_a_client_s_value_names_no_bytes(tmp_path: Path) -> None:
    python = """
import json
def entry(text): return {"avatar": b"secret", "value": json.loads(text)}
"""
    source = """
    import { entry } from "./store.py";
    export async function onMessage(session, text) { session.send(JSON.stringify((await entry(text)).value)); }"""
    with with_store(tmp_path, python, source) as script:
        session = script.open()
        for text in ('{"\\u0000":0}', '{"\\u0000":7}', '{"":0}'):
            assert script.answer(session, text) == text


def test_large_results_arrive_and_those_that_cannot_are_errors(tmp_path: Path) -> None:
    python = """
def data(count): return [bytes(count), b"end"]
def deep(levels):
    value = b"x"
    for _ in range(levels): value = [value]
    return value
"""
    source = """
    import { data, deep } from "./store.py";
    export async function onMessage(session, message) {
      const [many, end] = await data(7e6);
      session.send(`${many.length} ${end}`);
      try { await deep(950); session.send("deep"); } catch (error) { session.send("not taken"); }
    }"""
    with with_store(tmp_path, python, source, script_timeout_s=DEADLINE_S) as script:
        session = script.open()
        script.message(session)
        assert session.wait_for_messages(2)[0] == "7000000 101,110,100"
        assert session.sent[1] in ("deep", "not taken")
        assert session.is_open()


@pytest.mark.parametrize(
    "large",
    ["'x' * 20_000_000", "[[0] * 1000] * 20_000", "{'a': ({'key': ['x' * 1_000_000] * 20},)}", "bytes(20_000_000)"],
)
def test_a_result_that_is_much_too_large_is_refused_before_it_is_encoded(tmp_path: Path, large: str) -> None:
    """No other thread runs while json encodes a value: two seconds for 100 MB."""
    python = f"def f(): return [{large}, object()]\n"  # json would complain about the object
    with with_store(tmp_path, python) as script:
        assert ask(script, script.open(), "f") == (
            "RangeError: f (store.py) returned what JavaScript cannot have: the result has more than 16777216 bytes: "
            "return it in parts"
        )


def test_a_generator_whose_value_cannot_cross_is_ended(tmp_path: Path) -> None:
    python = """
ended = []
def rows():
    try:
        yield object()
    finally:
        ended.append(1)
"""
    source = """
    import { rows } from "./store.py";
    export async function onMessage(session) {
      try { for await (const row of rows()) session.send("a row"); } catch (error) { session.send(error.name); }
    }"""
    with with_store(tmp_path, python, source) as script:
        assert script.answer(script.open()) == "TypeError"
        eventually(lambda: names_in(script)["ended"] == [1])


def test_an_error_of_opening_a_generator_that_is_caught_is_not_logged(tmp_path: Path) -> None:
    source = """
    import { rows } from "./store.py";
    export async function onMessage(session) {
      try { for await (const row of rows()) session.send("a row"); } catch (error) { session.send(error.name); }
    }"""
    with with_store(tmp_path, "def rows(n): yield n\n", source) as script, script_log() as lines:
        assert script.answer(script.open()) == "TypeError"
        script.handler.settle(DEADLINE_S)
        assert lines.texts() == []


def test_an_exception_of_a_class_that_cannot_be_asked_harms_nobody(tmp_path: Path) -> None:
    python = """
class Meta(type):
    __name__ = property(lambda self: 1 / 0)
class Odd(Exception, metaclass=Meta):
    def __str__(self): raise SystemExit
def f(): raise Odd
def g(): return 1
"""
    with with_store(tmp_path, python, script_threads=1) as script:
        session = script.open()
        assert ask(script, session, "f") == "Odd: (no text: its __str__ failed)"
        assert ask(script, session, "g") == "1"


def test_the_command_line_provides_modules(tmp_path: Path) -> None:
    (tmp_path / "store.py").write_text("def f(): return 1\n")
    source = 'import { f } from "store"; console.log(await f()); export function onMessage() {}'
    (tmp_path / "chat.js").write_text(source)
    command = [sys.executable, "-m", "wsthreads", "check", "chat.js"]
    with Program(command, cwd=tmp_path) as check:
        check.wait_for("there is no such package; there is ./store.py: imports name the file as it is")
        assert check.wait() == 1
    texts = {"store=store.py": "onMessage", "store": "--module takes a name", "x=y.py": "No such file"}
    for option, text in texts.items():
        with Program([*command, "--module", option], cwd=tmp_path) as check:
            check.wait_for(re.escape(text))
            assert (check.wait() == 0) == (text == "onMessage")


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_large_array_is_refused_before_all_of_it_was_looked_at(tmp_path: Path) -> None:
    source = """import { f } from "./store.py";
    const row = "x".repeat(100);
    export async function onMessage(session) {
      let looked = 0;
      const rows = Array.from({ length: 1e5 }, () => ({ toJSON() { looked++; return row; } }));
      try { await f(rows); } catch (error) { session.send(`${error} ${looked < 42000}`); }
    }"""
    with with_store(tmp_path, "def f(value): return 1\n", source, script_timeout_s=10.0) as script:
        answer = ask(script, script.open(), "x")
        assert answer == "RangeError: f takes at most 4194304 characters of JSON: pass it in parts true"


def test_an_array_of_20000_texts_crosses_in_time_in_proportion_to_its_size(tmp_path: Path) -> None:
    source = """import { f } from "./store.py";
    export async function onMessage(session) {
      const rows = Array.from({ length: 20000 }, (_, index) => "x".repeat(90) + index);
      session.send(await f(rows, new Uint8Array([1, 2]), ["y"]));
    }"""
    python = "def f(*values): return f'{len(values[0])} {values[0][-1][90:]} {values[1]} {values[2]}'\n"
    with with_store(tmp_path, python, source, script_timeout_s=10.0) as script:  # copies of the whole text take 16 s
        assert ask(script, script.open(), "x") == "20000 19999 b'\\x01\\x02' ['y']"


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([ModuleType("store")], 'modules must be a dict such as {"store": store}, not a list'),
        ({"store": "store"}, "modules['store'] must be an imported Python module, not a str"),
        ({5: ModuleType("store")}, "modules has a name that is not text: 5"),
    ],
)
def test_modules_of_another_kind_are_named(tmp_path: Path, modules: Any, message: str) -> None:
    (tmp_path / "script.js").write_text("export function onOpen() {}")
    with pytest.raises(ConfigError, match=re.escape(message)):
        create_app(tmp_path / "script.js", modules=modules)
