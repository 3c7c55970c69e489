"""`ScriptHandler`: the order of calls, promises, errors, waiting, reloading, starting and stopping."""

from __future__ import annotations

import json
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.javascript_fakes import SHORT_S, FakeSession, Script, running, script_log
from tests.programs import DEADLINE_S, own_threads, wait_until
from wsthreads.config import Config
from wsthreads.errors import HandlerError, HandshakeRefused, IsolateError, ScriptError
from wsthreads.javascript import ScriptHandler, check_script
from wsthreads.javascript.session_state import MAX_WAITING, Event
from wsthreads.monitoring.metrics import Metrics
from wsthreads.protocol.handshake import Request

#: Holds every message until "go" says that its session may go on. Answers with the message.
HOLDING = """
const held = new Map();
export async function onMessage(session, message) {
  if (message.startsWith("go ")) {
    held.get(message.slice(3))();
  } else {
    session.send(`begin ${message}`);
    await new Promise((resolve) => held.set(message, resolve));
    session.send(`end ${message}`);
  }
}
export async function onClose(session, code) {
  await null;
  session.room("log").broadcast(`closed ${code}`);
}
"""


def test_hooks_are_known_once_it_has_started(tmp_path: Path) -> None:
    script = Script(tmp_path, "export function onOpen() {} export async function onClose() {} export const x = 1;")
    assert script.handler.hooks == frozenset()
    script.handler.start()
    assert script.handler.hooks == {"on_open", "on_close"}
    assert script.handler.name == "script.js"
    assert script.handler.files() == {str(script.path.resolve())}
    script.handler.stop(DEADLINE_S)


def test_module_state_is_shared_by_all_sessions(tmp_path: Path) -> None:
    with running(tmp_path, "let count = 0; export function onMessage(s) { s.send(String(++count)); }") as script:
        a, b = script.open(), script.open()
        assert [script.answer(a), script.answer(b), script.answer(a)] == ["1", "2", "3"]


def test_handlers_of_one_session_never_overlap_and_others_go_on(tmp_path: Path) -> None:
    with running(tmp_path, HOLDING) as script:
        slow, other = script.open(), script.open()
        script.message(slow, "1")
        script.message(slow, "2")
        slow.wait_for_messages(1)
        assert script.answer(other, "x") == "begin x"
        assert slow.sent == ["begin 1"]
        third = script.open()
        script.message(third, "go 1")
        assert slow.wait_for_messages(3) == ["begin 1", "end 1", "begin 2"]
        script.message(third, "go 2")
        script.message(third, "go x")
        slow.wait_for_messages(4)
        for session in (slow, other, third):
            script.close(session)


def test_on_message_waits_for_the_promise_of_on_open_and_on_close_for_all(tmp_path: Path) -> None:
    source = """
    const tick = () => new Promise((resolve) => setTimeout(resolve, 5));
    let witness;
    export async function onOpen(s) { await tick(); s.send("opened"); witness ??= s; }
    export async function onMessage(s, m) { await tick(); s.send(m); }
    export async function onClose(s) { await tick(); witness.send("closed"); }
    """
    with running(tmp_path, source) as script:
        witness, session = script.open(), FakeSession()
        witness.wait_for_messages(1)
        script.open(session)
        for number in range(10):
            script.message(session, str(number))
        session.wait_for_messages(11)
        script.close(session)
        assert session.sent == ["opened", *map(str, range(10))]
        assert witness.sent == ["opened", "closed"]


def test_what_a_client_sent_before_it_closed_is_still_handled(tmp_path: Path) -> None:
    source = """let seen = [];
    export function onMessage(s, m) { seen.push(m); }
    export function onClose(s) { seen.push("closed"); s.room("r").broadcast(seen.join()); }
    export function onOpen(s) { s.room("r").join(); }"""
    with running(tmp_path, source) as script:
        witness = script.open()
        session = script.open(FakeSession(hub=witness.hub))
        session.closed = (1000, "")
        script.message(session, "a")
        script.message(session, "b")
        script.close(session)
        assert witness.sent == ["a,b,closed"]


def test_messages_after_the_scripts_own_close_are_dropped_but_on_close_comes_once(tmp_path: Path) -> None:
    source = """
    let calls = [];
    export function onMessage(s, m) {
      calls.push(m);
      for (const end = Date.now() + 50; Date.now() < end;);
      s.close();
    }
    export function onClose(s) { calls.push("closed"); console.log(calls.join()); }
    """
    with script_log() as log, running(tmp_path, source) as script:
        session = script.open()
        for message in ("go", "late", "later"):
            script.message(session, message)
        script.close(session)
        assert log.wait_for("closed") == "go,closed"


def test_a_failing_on_open_closes_with_1011_and_leaves_only_on_close(tmp_path: Path) -> None:
    source = """
    export function onOpen() { throw new Error("no"); }
    export function onMessage(s) { console.log("message"); }
    export function onClose(s) { console.log("closed"); }
    """
    for start in (source, source.replace("function onOpen() {", "async function onOpen() { await null;")):
        with script_log() as log, running(tmp_path, start) as script:
            session = script.open()
            script.message(session)
            assert session.wait_for_close() == (1011, "onOpen failed")
            script.close(session, 1011)
            assert [text for text in log.texts() if "failed" not in text] == ["closed"]
            assert script.count("handler_errors") == 1


@pytest.mark.parametrize("kind", ["function", "async function"])
def test_an_error_is_logged_with_the_scripts_line_counted_and_given_to_on_error(tmp_path: Path, kind: str) -> None:
    source = f"""export {kind} onMessage(session, message) {{
      session.send("x");
      throw new TypeError(message);
    }}
    export function onError(session, error) {{ session.send(`${{error.constructor.name}} ${{error.message}}`); }}
    """
    with script_log() as log, running(tmp_path, source) as script:
        session = script.open()
        script.message(session, "boom")
        assert session.wait_for_messages(2) == ["x", "TypeError boom"]
        text = log.wait_for("boom")
        assert text == f"onMessage failed in session {session.id}: TypeError: boom\n    at onMessage (script.js:3:17)"
        assert script.count("handler_errors") == 1
        assert session.is_open()
        assert script.answer(session, "again") == "x"


@pytest.mark.parametrize("kind", ["function", "async function"])
def test_an_error_in_on_error_is_logged_too(tmp_path: Path, kind: str) -> None:
    source = f"""export {kind} onMessage(session, message) {{
      if (message) throw new Error("first");
      session.send("ok");
    }}
    export {kind} onError() {{ throw new Error("second"); }}"""
    with script_log() as log, running(tmp_path, source) as script:
        session = script.open()
        script.message(session, "boom")
        assert script.answer(session) == "ok"
        assert [text.partition("\n")[0] for text in log.texts()] == [
            f"onMessage failed in session {session.id}: Error: first",
            f"onError failed in session {session.id}: Error: second",
        ]
        assert script.count("handler_errors") == 2


@pytest.mark.parametrize("kind", ["function", "async function"])
@pytest.mark.parametrize("reads", [1, 2])
def test_a_then_of_what_on_error_returns_that_throws_ends_only_that_call(tmp_path: Path, kind: str, reads: int) -> None:
    source = f"""
    let seen = 0;
    export {kind} onMessage(session, message) {{
      if (message === "fail") throw new Error("first");
      session.send(message);
    }}
    export function onError() {{
      return {{ get then() {{ if (++seen === {reads}) throw new Error("read"); return (done) => done(); }} }};
    }}"""
    with script_log() as log, running(tmp_path, source) as script:
        session = script.open()
        script.message(session, "fail")
        assert script.answer(session, "still here") == "still here"
        assert session.is_open()
        assert [text.partition("\n")[0] for text in log.texts()] == [
            f"onMessage failed in session {session.id}: Error: first",
            f"onError failed in session {session.id}: Error: read",
        ]


@pytest.mark.parametrize(
    ("thrown", "logged"),
    [
        ("'x'", '"x" was thrown, which is not an Error'),
        ("null", "null was thrown"),
        ("undefined", "undefined was thrown"),
        ("{ toString() { throw 1 } }", "[function toString]"),
        ("{ get stack() { throw 1 }, get message() { throw 2 } }", "was thrown"),
        ("Object.defineProperty(new Error('m'), 'stack', { get() { throw 1 } })", "Error: m"),
        ("Object.assign(new Error('m'), { name: Symbol('n') })", "an Error that cannot be read"),
        ("new Proxy(new Error('m'), { get() { throw 1 }, getPrototypeOf() { throw 2 } })", "was thrown"),
        ("new Proxy({}, { ownKeys() { throw 1 } })", "[unreadable] was thrown"),
    ],
)
@pytest.mark.parametrize("kind", ["function", "async function"])
def test_anything_may_be_thrown(tmp_path: Path, thrown: str, logged: str, kind: str) -> None:
    source = f'export {kind} onMessage(session, message) {{ if (message) throw {thrown}; session.send("ok"); }}'
    with script_log() as log, running(tmp_path, source) as script:
        session = script.open()
        script.message(session, "boom")
        assert script.answer(session) == "ok"
        assert logged in log.wait_for(f"onMessage failed in session {session.id}: ")
        assert len(log.texts()) == 1


def test_a_session_may_have_a_bounded_number_of_messages_waiting(tmp_path: Path) -> None:
    with running(tmp_path, HOLDING) as script:
        session = script.open()
        posted: list[int] = []

        def post() -> None:
            for number in range(MAX_WAITING + 3):
                script.message(session, str(number))
                posted.append(number)

        poster = threading.Thread(target=post)
        poster.start()
        wait_until(lambda: len(posted) == MAX_WAITING)
        poster.join(0.1)
        assert len(posted) == MAX_WAITING
        other = script.open()
        for number in range(MAX_WAITING + 3):
            session.wait_for(lambda s, number=number: f"begin {number}" in s.sent)
            script.message(other, f"go {number}")
        poster.join(DEADLINE_S)
        assert not poster.is_alive()


def test_a_session_may_have_a_bounded_size_of_messages_waiting(tmp_path: Path) -> None:
    with running(tmp_path, HOLDING) as script:
        session = script.open()
        big = "x" * (2 << 20)
        script.message(session, big)  # one may be as big as it likes
        poster = threading.Thread(target=script.message, args=(session, "next"))
        poster.start()
        poster.join(0.1)
        assert poster.is_alive()
        script.message(script.open(), f"go {big}")
        poster.join(DEADLINE_S)
        assert not poster.is_alive()
        session.wait_for(lambda s: "begin next" in s.sent)
        script.message(script.open(), "go next")


def test_stop_lets_go_of_everybody_who_waits(tmp_path: Path) -> None:
    source = "export async function onMessage() { await new Promise(() => {}); } export function onClose() {}"
    script = Script(tmp_path, source, script_timeout_s=60)
    script.handler.start()
    session = script.open()
    for _ in range(MAX_WAITING):
        script.message(session)
    waiters = [
        threading.Thread(target=script.message, args=(session,)),
        threading.Thread(target=script.close, args=(session,)),
    ]
    for waiter in waiters:
        waiter.start()
    script.handler.stop(0.1)
    for waiter in waiters:
        waiter.join(DEADLINE_S)
        assert not waiter.is_alive()


def test_stop_handles_what_is_queued(tmp_path: Path) -> None:
    script = Script(tmp_path, "export function onMessage(s, m) { s.send(m); }")
    script.handler.start()
    session = script.open()
    for number in range(20):
        script.message(session, str(number))
    script.handler.stop(DEADLINE_S)
    assert session.sent == [str(number) for number in range(20)]


def test_stop_ends_even_a_script_that_does_not(tmp_path: Path) -> None:
    with script_log():
        script = Script(tmp_path, "export function onMessage(s) { s.send('in'); while (true); }", script_timeout_s=60)
        script.handler.start()
        session = script.open()
        script.message(session)
        session.wait_for_messages(1)
        script.handler.stop(0.1)
        assert session.closed
        assert not own_threads("wsthreads-script.js")


def test_after_a_stop_it_starts_afresh(tmp_path: Path) -> None:
    script = Script(tmp_path, "let n = 0; export function onMessage(s) { s.send(String(++n)); }")
    for _ in range(2):
        script.handler.start()
        script.handler.start()
        assert script.answer(script.open()) == "1"
        script.handler.stop(DEADLINE_S)
    late = script.open()
    script.message(late)
    script.close(late)
    assert late.closed == (1011, "handler failed")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_starts_an_isolate_of_its_own(tmp_path: Path) -> None:
    with running(tmp_path, "let n = 0; export function onMessage(s) { s.send(String(++n)); }") as script:
        assert script.answer(script.open()) == "1"
        child = os.fork()
        if child == 0:
            status = 1
            try:
                script.handler.start()
                status = 0 if script.answer(script.open()) == "1" else 2
                script.handler.stop(DEADLINE_S)
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert script.answer(script.open()) == "2"


def test_reload_swaps_the_functions_and_keeps_sessions(tmp_path: Path) -> None:
    (tmp_path / "lib.js").write_text("export const word = 'old';")
    source = """import { word } from "./lib.js";
    export function onOpen(s) { s.setAttribute("map", new Map([["k", "kept"]])); }
    export function onMessage(s) { s.send(word + s.getAttribute("map").get("k")); }"""
    with running(tmp_path, source) as script:
        session = script.open()
        assert script.answer(session) == "oldkept"
        (tmp_path / "lib.js").write_text("export const word = 'new';")
        script.path.write_text(source + "export function onClose(s) {}")
        script.handler.reload()
        assert script.handler.hooks == {"on_open", "on_message", "on_close"}
        assert script.answer(session) == "newkept"
        assert {Path(file).name for file in script.handler.files()} == {"script.js", "lib.js"}


@pytest.mark.parametrize(
    ("broken", "error"),
    [("let x = ;", ScriptError), ("throw new Error('top')", ScriptError), ("export let onOpn;", HandlerError)],
)
def test_a_reload_that_fails_leaves_the_old_code_in_place(tmp_path: Path, broken: str, error: type[Exception]) -> None:
    source = "export function onMessage(s) { s.send('old'); }"
    with running(tmp_path, source) as script:
        session = script.open()
        script.path.write_text("export function onOpen() {}\n" * (error is ScriptError) + broken)
        for _ in range(2):
            with pytest.raises(error):
                script.handler.reload()
        assert script.answer(session) == "old"
        assert script.handler.hooks == {"on_message"}
        script.path.write_text(source.replace("old", "new"))
        script.handler.reload()
        assert script.answer(session) == "new"


def test_stacks_after_a_reload_name_the_file_as_before(tmp_path: Path) -> None:
    source = "export function onMessage() { throw new Error('x'); }"
    with script_log() as log, running(tmp_path, source) as script:
        script.handler.reload()
        script.message(script.open())
        assert "(script.js:1:" in log.wait_for("Error: x")


def test_what_is_no_json_is_said_of_the_line_that_parses_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = "export function onMessage(session, message) {\n  JSON.parse(message);\n}"
    with script_log() as log, running(tmp_path, source) as script:
        script.message(script.open(), "{a")
        log.wait_for("SyntaxError")
    failed: Any = next(record for record in caplog.records if "SyntaxError" in record.getMessage())
    assert (failed.file, failed.line) == ("script.js", 2)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", None),
        ("true", None),
        ("'chat'", "chat"),
        ("false", 403),
        ("401", 401),
        ("'other'", 500),
        ("200.5", 500),
        ("NaN", 500),
        ("{}", 500),
        ("() => 1", 500),
        ("Promise.reject(new Error('x'))", 500),
        ("(() => { throw new Error('x') })()", 500),
        ("new Promise(() => {})", 503),
    ],
)
@pytest.mark.parametrize("kind", ["function", "async function"])
def test_on_handshake_lets_in_or_refuses(tmp_path: Path, answer: str, expected: Any, kind: str) -> None:
    source = f"export {kind} onHandshake(request) {{ return {answer}; }}"
    request = Request({"HTTP_SEC_WEBSOCKET_PROTOCOL": "chat, x"})
    timeout_s = SHORT_S if expected == 503 else DEADLINE_S
    with running(tmp_path, source, handshake_timeout_s=timeout_s) as script:
        if isinstance(expected, int):
            with pytest.raises(HandshakeRefused) as refused:
                script.handler.handshake(request, "id")
            assert refused.value.status == expected
        else:
            verdict = script.handler.handshake(request, "id")
            assert verdict.subprotocol == expected


def test_on_handshake_sees_the_request_and_its_attributes_become_the_sessions(tmp_path: Path) -> None:
    source = """export function onHandshake(request) {
      const seen = [request.getParameter("user"), request.getHeader("HOST"), request.getRequestPath(),
        request.getRemoteAddr(), request.getSubprotocols(), request.getAttribute("x")];
      request.setAttribute("seen", new Map([["seen", seen]]));
    }
    export function onOpen(session) { session.send(JSON.stringify(session.getAttribute("seen")?.get("seen") ?? null)); }
    """
    with running(tmp_path, source) as script:
        session = FakeSession("user=a", HTTP_HOST="h", HTTP_SEC_WEBSOCKET_PROTOCOL="a, b")
        script.handler.handshake(session.request, session.id)
        script.open(session)
        (seen,) = session.wait_for_messages(1)
        assert json.loads(seen) == ["a", "h", "/ws/test", "192.0.2.7", ["a", "b"], None]
        abandoned = FakeSession()
        script.handler.handshake(abandoned.request, abandoned.id)
        script.handler.abandon(abandoned.id)
        script.open(abandoned)
        assert abandoned.wait_for_messages(1) == ["null"]


def test_without_on_handshake_everybody_is_let_in_at_once(tmp_path: Path) -> None:
    handler = ScriptHandler(tmp_path / "none.js", Config(), Metrics())
    assert handler.handshake(Request({}), "id").subprotocol is None


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("", ["script.js", "onHandshake, onOpen, onMessage, onRequest, onSuspend", "exports nothing"]),
        ("export const a = 1, b = 2;", ["exports a, b"]),
        ("export function onMesage() {}", ["did you mean onMessage?"]),
        ("export function on_open() {}", ["did you mean onOpen?"]),
        ("export const onOpen = 5;", ["exports onOpen as number"]),
        ("export default { onOpen() {} };", ["exports default"]),
    ],
)
def test_a_script_without_a_handler_function_is_an_error_that_helps(
    tmp_path: Path, source: str, parts: list[str]
) -> None:
    script = Script(tmp_path, source)
    with pytest.raises(HandlerError) as error:
        script.handler.start()
    for part in parts:
        assert part in str(error.value)
    assert not own_threads("wsthreads-script.js")


def test_check_script_lists_exports_and_hooks(tmp_path: Path) -> None:
    path = tmp_path / "script.js"
    path.write_text("export const VERSION = 1; export function onOpen() {} setInterval(() => {}, 1);")
    info = check_script(path, Config())
    assert set(info.exports) == {"VERSION", "onOpen"}
    assert info.hooks == {"on_open"}
    with pytest.raises(ScriptError, match="no such file"):
        check_script(tmp_path / "missing.js", Config())


def test_sessions_come_and_go_without_a_trace(tmp_path: Path) -> None:
    source = """
    export async function onOpen(s) { s.setAttribute("a", [s, new Array(1000)]); s.room("r"); await null; }
    export function onMessage(s) { s.send(s.getAttribute("a").length + ""); }
    export async function onClose(s) { await null; }
    """
    with running(tmp_path, source) as script:
        isolate: Any = script.handler._isolate

        def visit_many(count: int) -> None:
            for _ in range(count):
                session = script.open()
                script.message(session)
                script.close(session)

        visit_many(500)
        before = _resident_bytes()
        visit_many(3000)
        assert isolate._states == {}
        assert isolate._schedule.is_idle
        if before:
            assert _resident_bytes() - before < 8 << 20  # 3,000 arrays of a thousand are 24 MB


class Fault(BaseException):
    """What no `except Exception` catches."""


def kill(script: Script, error: BaseException) -> None:
    """Have the isolate's thread die of `error`."""
    isolate = script.handler._isolate
    assert isolate is not None

    def fail(*_: object) -> None:
        raise error

    isolate._loop.stumbled = fail  # type: ignore[method-assign]
    isolate._schedule.take = fail  # type: ignore[method-assign]
    isolate._schedule.post(Event("again"))
    wait_until(lambda: not isolate.is_alive)


@pytest.mark.parametrize("error", [RuntimeError("injected"), MemoryError("injected"), Fault("injected")])
def test_a_dead_isolate_is_logged_once_ends_its_sessions_and_is_replaced_at_the_next_handshake(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    source = """let n = 0;
    export async function onMessage(s, m) { if (m === "wait") await new Promise(() => {}); s.send(String(++n)); }
    export function onClose(s) { console.error("never"); }"""
    with running(tmp_path, source) as script:
        sessions = [script.open() for _ in range(3)]
        assert script.answer(sessions[0]) == "1"
        script.message(sessions[1], "wait")
        kill(script, error)
        for session in sessions:
            assert session.wait_for_close() == (1011, "handler failed")
            script.message(session)
            script.close(session, 1011)
        logged = [record for record in caplog.records if "has died" in record.getMessage()]
        assert [record.exc_info and record.exc_info[1] for record in logged] == [error]
        script.handler.start()
        assert script.answer(script.open()) == "1", "the new interpreter starts afresh"
    assert "never" not in caplog.text


def test_an_isolate_that_keeps_dying_is_started_less_and_less_often(tmp_path: Path) -> None:
    script = Script(tmp_path, "export function onMessage(s) { s.send('ok'); }")
    script.handler.start()
    kill(script, RuntimeError("injected"))
    script.handler.start()  # the first time at once
    kill(script, RuntimeError("injected"))
    with pytest.raises(IsolateError, match=r"has died several times; it can start again in 0\.0"):
        script.handler.start()
    wait_until(lambda: starts(script))
    assert script.answer(script.open()) == "ok"
    script.handler.stop(DEADLINE_S)


def starts(script: Script) -> bool:
    with suppress(IsolateError):
        script.handler.start()
        return True
    return False


def test_where_no_thread_can_be_started_the_next_start_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(tmp_path, "export function onMessage(s) { s.send('ok'); }")

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(IsolateError, match=r"cannot start a thread for script\.js: can't start new thread"):
            script.handler.start()
    script.handler.start()
    assert script.answer(script.open()) == "ok"
    script.handler.stop(DEADLINE_S)


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0


def test_a_session_that_is_over_needs_no_garbage_collection(tmp_path: Path) -> None:
    source = """
    const known = [];
    export function onOpen(session) { known.push(new WeakRef(session)); }
    export function onMessage(session) { session.send(String(known.filter((ref) => ref.deref()).length)); }
    """
    with running(tmp_path, source) as script:
        for _ in range(10):
            script.close(script.open())
        assert script.answer(script.open()) == "1"


#: Hides what a function is, as a decorator or another function around it does.
HIDDEN = "const hidden = (f) => (...some) => f(...some);\n"


@pytest.mark.parametrize("function", ["function* () {}", "async function* () {}", "async () => (function* () {})()"])
@pytest.mark.parametrize("hook", ["onOpen", "onMessage", "onClose", "onError"])
def test_a_generator_that_a_function_returns_is_its_error_logged_once(
    hook: str, function: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = f"{HIDDEN}export const {hook} = hidden({function});\n"
    if hook != "onError":
        source += "export const onError = (s, e) => s.send(e.message);\n"
    if hook != "onMessage":
        source += "export const onMessage = () => { throw new Error('x'); };\n"
    with running(tmp_path, source) as script:
        failures: list[object] = []
        script.handler.on_failure = failures.append
        sessions = [script.open(), script.open()]
        for session in sessions:
            if hook in ("onMessage", "onError"):
                script.message(session, "m")
            script.handler.settle(DEADLINE_S)
            script.close(session)
        lines = [line for line in caplog.messages if f"{hook} failed" in line]
        assert len(lines) == 1
        assert "TypeError: " + hook + " returned a generator, whose body never runs: drop the *" in lines[0]
        assert "at " + hook + " (script.js:" in lines[0]
        assert sum(f"{hook} returned a generator" in str(failure) for failure in failures) == 2
        assert script.metrics.snapshot()["handler_errors"] == len(failures)
        if hook in ("onOpen", "onMessage"):
            assert [session.sent for session in sessions] == [[lines[0].split("TypeError: ")[1].splitlines()[0]]] * 2
        if hook == "onOpen":
            assert [session.closed for session in sessions] == [(1011, "onOpen failed")] * 2


@pytest.mark.parametrize("function", ["function* () {}", "async function* () {}", "async () => (function* () {})()"])
def test_a_generator_that_on_handshake_returns_refuses_with_500(
    function: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path, f"{HIDDEN}export const onHandshake = hidden({function});\n") as script:
        for number in range(2):
            with pytest.raises(HandshakeRefused, match="500"):
                script.handler.handshake(Request({}), f"id {number}")
        assert len([line for line in caplog.messages if "onHandshake failed" in line]) == 1
        assert script.metrics.snapshot() == {"handler_errors": 2}


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_fails_where_a_script_calls_python_ends_no_isolate(error: type[BaseException], tmp_path: Path) -> None:
    """Handlers of logging are the application's code, and run in the isolate's thread."""

    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise error

    script_log, failing = logging.getLogger("wsthreads.script.script.js"), Failing()
    script_log.addHandler(failing)
    try:
        with running(tmp_path, "export function onMessage(s, m) { console.error(m); s.send(m); }") as script:
            session = script.open()
            assert [script.answer(session, "a"), script.answer(session, "b")] == ["a", "b"]
            script.close(session)
    finally:
        script_log.removeHandler(failing)
