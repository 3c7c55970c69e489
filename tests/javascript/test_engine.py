"""The engine below dukpy: what is proved before it is touched, and how scripts run without it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import dukpy
import pytest

from tests.javascript_fakes import SHORT_S, FakeSession, Script, script_log
from tests.programs import DEADLINE_S, PROGRAM_S, ROOT
from wsthreads.config import Config
from wsthreads.errors import IsolateError
from wsthreads.javascript import handler as handler_module
from wsthreads.javascript.engine import Engine, JavaScriptError
from wsthreads.javascript.isolate import Isolate
from wsthreads.javascript.quickjs import EngineUnsupported
from wsthreads.javascript.stacks import Failure


def unsupported(*_: Any) -> Engine:
    raise EngineUnsupported("the test says so")


def remove_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scripts run without an engine below dukpy, and so without deadlines."""

    class Bare(Isolate):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, make_engine=unsupported, **options)

    monkeypatch.setattr(handler_module, "Isolate", Bare)


@pytest.fixture
def without_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    remove_engine(monkeypatch)


@pytest.fixture
def engine() -> Any:
    interpreter = dukpy.JSInterpreter()
    errors: list[tuple[str, Failure]] = []
    engine: Any = Engine(interpreter._ctx, dukpy.evaljs.__globals__["_dukpy"].__file__, lambda *e: errors.append(e))
    engine.errors = errors
    yield engine
    engine.close()


def test_the_engines_counter_is_found(engine: Any) -> None:
    assert engine._counter is not None


def test_a_call_is_interrupted_and_the_engine_goes_on(engine: Any) -> None:
    engine.arm(0.05)
    with pytest.raises(JavaScriptError, match=r"^InternalError: interrupted"):
        engine.run("try { while (true); } catch {}")
    engine.arm(DEADLINE_S)
    engine.run("globalThis.x = 1")
    with pytest.raises(JavaScriptError, match=r"^Error: 1$"):
        engine.run("throw new Error(x)")


def test_jobs_run_after_one_that_was_stopped(engine: Any) -> None:
    engine.run("queueMicrotask(() => { while (true); }); queueMicrotask(() => { globalThis.ran = true; })")
    assert engine.run_jobs(0.05)
    assert not engine.run_jobs(0.05)
    engine.run("if (!ran) throw new Error('dropped')")
    ((what, failure),) = engine.errors
    assert what == "a promise job"
    assert failure.was_interrupted


def test_once_an_endless_chain_has_ended_jobs_have_their_whole_time_again(engine: Any) -> None:
    engine.run("const chain = () => queueMicrotask(chain); chain(); globalThis.done = 0;")
    engine.run("const busy = (ms) => { const end = performance.now() + ms; while (performance.now() < end); };")
    while engine.has_jobs():
        engine.run_jobs(0.2)
    assert len(engine.errors) == 1
    for _ in range(10):
        engine.run("queueMicrotask(() => { busy(50); done++; })")
        assert engine.run_jobs(0.2)
    engine.run("if (done !== 10) throw new Error(done)")
    assert len(engine.errors) == 1


@pytest.mark.parametrize("words", [(0, 0), (8, 4096), (4097, 8192)])
def test_a_context_laid_out_otherwise_is_not_touched(words: tuple[int, int]) -> None:
    struct = (ctypes.c_uint64 * 2)(*words)
    new = ctypes.pythonapi["PyCapsule_New"]  # indexing makes a function of its own
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    name = ctypes.create_string_buffer(b"DUKPY_CONTEXT_CAPSULE")
    library = dukpy.evaljs.__globals__["_dukpy"].__file__
    with pytest.raises(EngineUnsupported):
        Engine(new(ctypes.addressof(struct), name, None), library, print)
    with pytest.raises(EngineUnsupported):
        Engine(new(ctypes.addressof(struct), ctypes.create_string_buffer(b"other"), None), library, print)
    with pytest.raises(EngineUnsupported):
        Engine(object(), library, print)
    with pytest.raises(EngineUnsupported):
        Engine(object(), ctypes.__file__, print)


@pytest.mark.usefixtures("without_engine")
def test_without_an_engine_scripts_are_refused_unless_the_user_accepts_it(tmp_path: Path) -> None:
    source = "export function onOpen() {}"
    with pytest.raises(IsolateError, match=r"the test says so.*scripts_without_deadline"):
        Script(tmp_path, source).handler.start()
    script = Script(tmp_path, source, scripts_without_deadline=True)
    script.handler.start()
    script.handler.stop(DEADLINE_S)


@pytest.mark.usefixtures("without_engine")
def test_without_an_engine_everything_but_the_deadline_works(tmp_path: Path) -> None:
    source = """
    const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    export async function onMessage(session, message) {
      await null;
      if (message === "throw") throw new Error("thrown");
      if (message === "lose") Promise.reject(new Error("lost"));
      if (message === "hang") await new Promise(() => {});
      await pause(5);
      session.send(message);
      if (typeof message !== "string") session.room("r").broadcast(new Uint8Array(message).subarray(1));
    }
    export async function onClose(session) { await pause(5); session.room("r").broadcast("closed"); }
    export function onOpen(session) { session.room("r").join(); }
    """
    script = Script(tmp_path, source, scripts_without_deadline=True, script_timeout_s=2 * SHORT_S)
    with script_log() as log:
        script.handler.start()
        witness = script.open()
        session = script.open(FakeSession(hub=witness.hub))
        for message in ("a", "throw", "lose", "hang"):
            script.message(session, message)
        assert script.answer(witness, "b") == "b"
        assert session.wait_for_close() == (1011, "handler timed out")
        assert session.sent == ["a", "lose"]
        log.wait_for("onMessage failed in session")
        log.wait_for("unhandled error in a promise: Error: lost")
        script.handler.reload()
        assert script.answer(witness, bytes(range(256))) == bytes(range(256))
        assert witness.wait_for_messages(3)[2] == bytes(range(1, 256))
        script.close(session, 1011)
        assert witness.wait_for_messages(4)[3] == "closed"
        script.handler.stop(DEADLINE_S)


def test_an_interpreter_with_a_suspended_module_can_be_stopped(tmp_path: Path) -> None:
    """QuickJS 0.11 corrupts the heap if it frees one."""
    (tmp_path / "held.js").write_text("await new Promise((resolve) => { globalThis.resolve = resolve; });")
    source = "export function onMessage(session) { import('./held.js'); session.send('ok'); }"
    for _ in range(5):
        script = Script(tmp_path, source)
        script.handler.start()
        assert script.answer(script.open()) == "ok"
        script.handler.stop(DEADLINE_S)


def test_without_dukpy_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dukpy", None)
    with pytest.raises(IsolateError, match="pip install dukpy"):
        Script(tmp_path, "export function onOpen() {}").handler.start()


def test_dukpy_is_imported_only_for_a_script() -> None:
    code = "import sys, wsthreads, wsthreads.javascript; sys.exit('dukpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=PROGRAM_S).returncode == 0


def test_a_handler_is_made_without_a_thread_or_an_interpreter(tmp_path: Path) -> None:
    handler = handler_module.ScriptHandler(tmp_path / "missing.js", Config(), Script(tmp_path, "").metrics)
    assert handler.hooks == frozenset()
    assert handler.files() == frozenset()
    handler.stop(0)
