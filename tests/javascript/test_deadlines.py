"""No call outlives its deadline, and no other thread waits for it; memory and stack are bounded too."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.javascript_fakes import SHORT_S, Script, elapsed_s, running, script_log
from tests.programs import DEADLINE_S, own_threads, wait_until
from wsthreads.config import Config
from wsthreads.errors import HandshakeRefused, ScriptError
from wsthreads.javascript.fetches import Fetches, Waits
from wsthreads.javascript.loop import Loop
from wsthreads.javascript.python_calls import PythonCalls
from wsthreads.javascript.python_functions import PythonFunctions
from wsthreads.javascript.reports import Reports
from wsthreads.javascript.requests import ScriptRequests
from wsthreads.javascript.schedule import Schedule
from wsthreads.javascript.session_state import Event, SessionState
from wsthreads.javascript.stacks import Failure
from wsthreads.monitoring.metrics import Metrics
from wsthreads.protocol.handshake import Request

#: Answers every message, but "go", which runs the code in question.
SCRIPT = """
let state = 0;
export %s onMessage(session, message) {
  if (message !== "go") {
    session.send(`${message} ${++state}`);
    return;
  }
  session.send("in");
  %s
}
export function onClose(session) { console.log(`closed ${session.id}`); }
"""

ENDLESS = [
    "while (true);",
    "while (true) { try { while (true); } catch {} finally { while (true); } }",
    "const f = () => { try { f(); } catch {} f(); }; f();",
    "/^(a+)+$/.test('a'.repeat(60) + 'b');",
    "for (const x of (function* () { for (;;) yield 1; })()) ;",
    "for (;;) JSON.parse('[' + '1,'.repeat(30000) + '1]');",
    "[...Array(100).keys()].sort(() => { while (true); });",
    "new Promise(() => { while (true); }); while (true);",
    "({ get x() { while (true); } }).x;",
    "throw { get message() { while (true); }, get stack() { while (true); }, toJSON() { while (true); } };",
]


@pytest.mark.parametrize("code", ENDLESS)
def test_a_call_is_stopped_at_its_deadline_and_everything_else_goes_on(tmp_path: Path, code: str) -> None:
    with script_log() as log, running(tmp_path, SCRIPT % ("function", code), script_timeout_s=SHORT_S) as script:
        offender, other = script.open(), script.open()
        assert script.answer(other, "before") == "before 1"
        script.message(offender, "go")
        script.message(other, "after")
        assert other.wait_for_messages(2)[1] == "after 2"
        assert offender.wait_for_close() == (1011, "handler timed out")
        text = log.wait_for("was stopped after")
        assert text.startswith(f"onMessage in session {offender.id} was stopped after 0.5 s (script_timeout_s)\n")
        assert "(script.js:" in text
        assert "<dukpy>" not in text
        script.close(offender, 1011)
        assert f"closed {offender.id}" in log.texts()
        assert script.count("script_timeouts") == (2 if "Promise" in code else 1)  # a call and a rejection


@pytest.mark.parametrize("code", ["await null; while (true);", "await null; for (;;) try { while (true); } catch {}"])
def test_a_promise_job_is_stopped_at_its_deadline(tmp_path: Path, code: str) -> None:
    with script_log() as log, running(tmp_path, SCRIPT % ("async function", code), script_timeout_s=SHORT_S) as script:
        offender, other = script.open(), script.open()
        script.message(offender, "go")
        assert script.answer(other, "after") == "after 1"
        assert offender.wait_for_close() == (1011, "handler timed out")
        assert "(script.js:" in log.wait_for("a promise job was stopped")


def test_a_chain_of_promise_jobs_without_end_is_broken(tmp_path: Path) -> None:
    code = "const f = () => Promise.resolve().then(f); f();"
    with script_log(), running(tmp_path, SCRIPT % ("function", code), script_timeout_s=SHORT_S) as script:
        session = script.open()
        script.message(session, "go")
        assert script.answer(script.open(), "after") == "after 1"
        assert session.is_open()


@pytest.mark.parametrize(
    "code",
    [
        "for (let i = 0; i < 100; i++) { const f = () => Promise.resolve().then(f); f(); }",
        "for (let i = 0; i < 100; i++) (async () => { for (;;) await null; })();",
        "const r = new FinalizationRegistry(() => r.register({}, 1)); for (let i = 0; i < 100; i++) r.register({}, i);",
    ],
)
def test_many_endless_chains_of_promise_jobs_hold_up_nobody(tmp_path: Path, code: str) -> None:
    with script_log() as log, running(tmp_path, SCRIPT % ("function", code), script_timeout_s=SHORT_S) as script:
        session, other = script.open(), script.open()
        script.message(session, "go")
        for number in range(1, 11):
            assert script.answer(other, "after") == f"after {number}"
        assert len([text for text in log.texts() if "was stopped" in text]) < 10


def test_a_promise_that_never_settles_counts_as_a_call_past_its_deadline(tmp_path: Path) -> None:
    source = SCRIPT % ("async function", "await new Promise(() => {});")
    with script_log() as log, running(tmp_path, source, script_timeout_s=SHORT_S) as script:
        session = script.open()
        script.message(session, "go")
        script.message(session, "never handled")
        assert session.wait_for_close() == (1011, "handler timed out")
        assert f"onMessage in session {session.id} returned a promise that has not settled" in log.texts()[0]
        script.close(session, 1011)
        assert log.texts()[1:] == [f"closed {session.id}"]
        assert script.count("script_timeouts") == 1


def test_close_returns_although_on_close_never_does(tmp_path: Path) -> None:
    for kind, code in (("function", "while (true);"), ("async function", "await new Promise(() => {});")):
        source = f"export {kind} onClose() {{ {code} }}"
        with script_log(), running(tmp_path, source, script_timeout_s=SHORT_S) as script:
            session = script.open()
            assert elapsed_s(lambda session=session: script.close(session)) < DEADLINE_S  # type: ignore[misc]
            assert script.count("script_timeouts") == 1


def test_a_timers_callback_is_stopped_and_an_interval_then_ends(tmp_path: Path) -> None:
    source = """
    let runs = 0;
    export function onOpen() { setInterval(() => { runs++; while (true); }, 1); }
    export function onMessage(session) { session.send(String(runs)); }"""
    with script_log() as log, running(tmp_path, source, script_timeout_s=SHORT_S) as script:
        session = script.open()
        assert "(script.js:3:" in log.wait_for("a timer's callback was stopped")
        assert script.answer(session) == "1"
        assert script.count("script_timeouts") == 1


def test_loading_is_stopped_at_the_deadline(tmp_path: Path) -> None:
    for code, line in (("const f = () => { while (true); };\nf();", 2), ("await new Promise(() => {});", None)):
        script = Script(tmp_path, f"export function onOpen() {{}}\n{code}", script_timeout_s=SHORT_S)
        with pytest.raises(ScriptError, match=r"its top level .* after (2.5|1) s") as error:
            script.handler.start()
        assert error.value.line == line
    assert not own_threads("wsthreads-script.js")


def test_a_handshake_is_stopped_at_the_deadline(tmp_path: Path) -> None:
    source = "export function onHandshake() { while (true); }"
    with script_log(), running(tmp_path, source, script_timeout_s=SHORT_S) as script:
        with pytest.raises(HandshakeRefused) as refused:
            script.handler.handshake(Request({}), "id")
        assert refused.value.status == 503


@pytest.mark.parametrize("kind", ["function", "async function"])
def test_a_call_that_is_stopped_is_not_held_against_those_whose_promises_waited_for_it(
    tmp_path: Path, kind: str
) -> None:
    """While it ran, their timers could not."""
    source = """const pause = () => new Promise((resolve) => setTimeout(resolve, 1));
    export async function onOpen(session) { session.setAttribute("n", 0); }
    export %s onMessage(session, message) {
      if (message === "go") { for (;;); }
      if (message === "jobs") return pause().then(() => { for (;;); });
      return pause().then(pause).then(pause).then(() => session.send(message));
    }"""
    with script_log(), running(tmp_path, source % kind, script_timeout_s=SHORT_S) as script:
        patient, offenders = script.open(), [script.open(), script.open()]
        for offender, message in zip(offenders, ("go", "jobs"), strict=True):
            script.message(patient, message + "?")
            script.message(offender, message)
            assert offender.wait_for_close() == (1011, "handler timed out")
            assert patient.wait_for_messages(1)[-1] == message + "?"
            patient.sent.clear()
        assert patient.is_open()


def test_two_scripts_run_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with (
        script_log(),
        running(tmp_path / "a", SCRIPT % ("function", "while (true);"), script_timeout_s=2 * DEADLINE_S) as stuck,
        running(tmp_path, SCRIPT % ("function", "")) as script,
    ):
        offender = stuck.open()
        stuck.message(offender, "go")
        offender.wait_for_messages(1)
        assert script.answer(script.open(), "x") == "x 1"
        assert offender.is_open()
        stuck.handler.stop(0.1)
        assert offender.closed


@pytest.mark.parametrize("code", ["while (true);", ENDLESS[3], ENDLESS[5]])
def test_other_threads_run_meanwhile(tmp_path: Path, code: str) -> None:
    """The longest gap is 5 ms on a quiet machine, 200 for the built-in function in a loop. See `interrupts`."""
    with script_log(), running(tmp_path, SCRIPT % ("function", code), script_timeout_s=1.0) as script:
        session = script.open()
        script.message(session, "go")
        turns, began = 0, time.monotonic()
        while session.is_open() and time.monotonic() < began + DEADLINE_S:
            time.sleep(0.001)
            turns += 1
        assert turns > 4, "one, and perhaps another, if this thread waited for the end of the script"


@pytest.mark.parametrize(
    "code",
    [
        "const a = []; for (;;) a.push(new Array(1000).fill(1));",
        "let s = 'x'; for (;;) s += s + s;",
        "const a = []; for (;;) a.push({});",
    ],
)
def test_out_of_memory_is_an_error_like_others(tmp_path: Path, code: str) -> None:
    with script_log() as log, running(tmp_path, SCRIPT % ("function", code), script_timeout_s=DEADLINE_S) as script:
        session = script.open()
        for _ in range(2):
            script.message(session, "go")
        assert session.wait_for_messages(2) == ["in", "in"]
        script.message(session, "after")
        assert session.wait_for_messages(3)[2] == "after 1"
        assert "memory" in log.wait_for("onMessage failed")


def test_garbage_in_cycles_does_not_fill_the_heap(tmp_path: Path) -> None:
    source = """export function onMessage(session) {
      for (let i = 0; i < 100; i++) { const a = new Array(20000).fill(i); a.push(a); }
      session.send("ok");
    }"""
    with running(tmp_path, source, script_timeout_s=DEADLINE_S) as script:
        session = script.open()
        for _ in range(30):
            assert script.answer(session) == "ok"


def test_recursion_without_end_is_an_error_like_others(tmp_path: Path) -> None:
    with script_log() as log, running(tmp_path, SCRIPT % ("function", "const f = () => f() + 1; f();")) as script:
        session = script.open()
        script.message(session, "go")
        assert "(script.js:" in log.wait_for("Maximum call stack size exceeded")
        session.wait_for_messages(1)
        script.message(session, "after")
        assert session.wait_for_messages(2) == ["in", "after 1"]


def test_a_script_that_keeps_all_memory_ends_its_isolate_and_the_next_start_makes_another(tmp_path: Path) -> None:
    source = """const kept = [];
    export function onMessage(session, message) { if (message) for (;;) kept.push({}); session.send("ok"); }
    export function onClose() {}"""
    with script_log():
        script = Script(tmp_path, source, script_timeout_s=DEADLINE_S)
        script.handler.start()
        sessions = [script.open() for _ in range(3)]
        for session in sessions:
            script.message(session, "go")
        for session in sessions:
            assert session.wait_for_close()[0] == 1011
            script.close(session, 1011)
        isolate = script.handler._isolate
        assert isolate is not None
        wait_until(lambda: not isolate.is_alive)
        script.handler.start()
        assert script.answer(script.open()) == "ok"
        script.handler.stop(DEADLINE_S)


def test_what_the_runtime_does_by_itself_is_no_error_of_the_script_when_it_is_shut_down() -> None:
    metrics = Metrics()
    with script_log() as log:
        reports = Reports(logging.getLogger("wsthreads.script.x"), metrics, 5.0, 5.0, ())  # type: ignore[arg-type]
        failure = Failure.of("InternalError: interrupted")
        reports.stopped(Event("refuse", None, (1,)), failure, to_end=True)
        reports.stopped(Event("message", None, ("x",)), failure, to_end=True)
        assert [text.split(",")[0] for text in log.texts()] == ["onMessage was stopped"]


def test_a_handshake_that_is_stopped_right_after_its_answer_ends_nothing_else() -> None:
    """The deadline may strike between the answer and the next event: the answer stands, and the loop goes on."""
    reports, schedule = Reports(logging.getLogger("x"), Metrics(), 5.0, 5.0, ()), Schedule()  # type: ignore[arg-type]
    calls = PythonCalls("x", PythonFunctions(), schedule, print, str, threads=1, wait_s=5)
    waits = Waits(calls, Fetches("x", schedule, Config()))
    requests = ScriptRequests(schedule)
    loop = Loop("x", schedule, {}, Config(), reports, None, Metrics(), waits, requests)  # type: ignore[arg-type]
    event = Event("handshake", SessionState("id", None), ({},), reply=Future())
    loop._schedule.post(event)
    loop._pull(0, 0, -1)
    loop._replies.functions()["answer"]("id", True, "as the handler said")
    loop.stumbled(Failure.of("InternalError: interrupted"))
    assert event.reply is not None
    assert event.reply.result(0) == "as the handler said"
