"""Which timers end when a script is loaded again: those of the top level, of the old version or of the refused one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.javascript.test_engine import without_engine  # noqa: F401
from tests.javascript_fakes import SHORT_S, Script, running
from wsthreads.errors import WSThreadsError

#: By the name of the version, how often `tick` was called. `globalThis` outlives a reload.
COUNTS = """globalThis.ticks ??= {{}};
ticks.{name} = 0;
const tick = () => {{ ticks.{name}++; }};
"""

ANSWER = """
export function onMessage(session) { session.send(JSON.stringify(ticks)); }
"""

#: What a top level does so that `tick` is called again and again.
STARTS = {
    "an interval": "setInterval(tick, 1);",
    "a chain of timeouts": "(function again() { tick(); setTimeout(again, 1); })();",
    "an async loop": "(async () => { for (;;) { await new Promise((done) => setTimeout(done, 1)); tick(); } })();",
    "a timer of a timer": "setTimeout(() => setInterval(tick, 1), 1);",
    "a timer of a microtask": "queueMicrotask(() => setInterval(tick, 1));",
    "behind an await": "await new Promise((done) => setTimeout(done, 1)); setInterval(tick, 1);",
}

starts = pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())


@pytest.fixture(params=["engine", "no engine"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "engine":
        return {}
    request.getfixturevalue("without_engine")
    return {"scripts_without_deadline": True}


def version(name: str, start: str, end: str = ANSWER) -> str:
    return COUNTS.format(name=name) + start + end


def ticks(script: Script, session: Any) -> dict[str, int]:
    counts: dict[str, int] = json.loads(script.answer(session))
    return counts


def wait_for_ticks(script: Script, session: Any, name: str, count: int = 10) -> None:
    goal = ticks(script, session)[name] + count
    while ticks(script, session)[name] < goal:
        pass


@starts
def test_timers_of_the_top_level_end_when_another_version_takes_over(
    tmp_path: Path, settings: dict[str, Any], start: str
) -> None:
    with running(tmp_path, version("old", start), **settings) as script:
        session = script.open()
        wait_for_ticks(script, session, "old")
        script.path.write_text(version("new", "setInterval(tick, 1);"))
        script.handler.reload()
        before = ticks(script, session)["old"]
        wait_for_ticks(script, session, "new")
        assert ticks(script, session)["old"] == before


def test_timers_of_an_imported_file_end_as_well(tmp_path: Path, settings: dict[str, Any]) -> None:
    (tmp_path / "lib.js").write_text(version("old", "setInterval(tick, 1);", ""))
    with running(tmp_path, 'import "./lib.js";' + ANSWER, **settings) as script:
        session = script.open()
        wait_for_ticks(script, session, "old")
        (tmp_path / "lib.js").write_text(version("new", "setInterval(tick, 1);", ""))
        script.handler.reload()
        before = ticks(script, session)["old"]
        wait_for_ticks(script, session, "new")
        assert ticks(script, session)["old"] == before


@pytest.mark.parametrize("end", ["throw new Error('no');", "export let onOpn;", "await new Promise(() => {});"])
@starts
def test_timers_of_a_version_that_does_not_load_end_and_those_before_it_run_on(
    tmp_path: Path, settings: dict[str, Any], start: str, end: str
) -> None:
    old = version("old", "setInterval(tick, 1);")
    with running(tmp_path, old, script_timeout_s=SHORT_S, **settings) as script:
        session = script.open()
        for name in ("bad", "worse"):
            script.path.write_text(version(name, start, end))
            with pytest.raises(WSThreadsError):
                script.handler.reload()
        before = ticks(script, session)
        wait_for_ticks(script, session, "old")
        after = ticks(script, session)
        assert (after["bad"], after["worse"]) == (before["bad"], before["worse"])


def test_timers_of_a_version_that_was_stopped_at_its_deadline_end(tmp_path: Path) -> None:
    with running(tmp_path, version("old", "setInterval(tick, 1);"), script_timeout_s=SHORT_S) as script:
        session = script.open()
        script.path.write_text(version("bad", "setInterval(tick, 1); for (;;);"))
        with pytest.raises(WSThreadsError):
            script.handler.reload()
        before = ticks(script, session)["bad"]
        wait_for_ticks(script, session, "old")
        assert ticks(script, session)["bad"] == before


def test_timers_that_were_set_in_a_sessions_call_run_on(tmp_path: Path, settings: dict[str, Any]) -> None:
    """A session stays, and so does what it waits for: without its timer, the promise of a call would never settle."""
    source = """let reloaded;
    globalThis.goOn = () => { reloaded = true; };
    export function onOpen(session) { setInterval(() => session.send("tick"), 1); }
    export async function onMessage(session) {
      session.send("begun");
      while (!reloaded) await new Promise((done) => setTimeout(done, 1));
      session.send("ended");
    }"""
    with running(tmp_path, source, **settings) as script:
        session = script.open()
        script.message(session)
        session.wait_for(lambda session: "begun" in session.sent)
        script.path.write_text("goOn(); export function onClose() {}")
        script.handler.reload()
        session.wait_for(lambda session: "ended" in session.sent)
        session.wait_for_messages(len(session.sent) + 10)
        assert session.closed is None


#: Top-level code that calls what `tick()` waits for, again and again.
PACEMAKERS = {
    "an interval": "setInterval(wake, 1);",
    "a chain of timeouts": "(function again() { wake(); setTimeout(again, 1); })();",
    "an async loop": "(async () => { for (;;) { await sleep(1); wake(); } })();",
}


@pytest.mark.parametrize("pacemaker", PACEMAKERS.values(), ids=PACEMAKERS.keys())
@pytest.mark.parametrize("hook", ["onMessage", "onError"])
def test_a_call_that_waited_for_a_timer_of_the_top_level_ends_after_a_reload(
    tmp_path: Path, settings: dict[str, Any], pacemaker: str, hook: str
) -> None:
    """The timers that it sets afterwards are the session's. Those of the old version end with the call."""
    source = f"""let waiting = [], count = 0;
    globalThis.goOn = () => {{ waiting = null; }};
    globalThis.beats = 0;
    const wake = () => {{ beats++; const now = waiting ?? []; waiting &&= []; for (const go of now) go(); }};
    const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
    {pacemaker}
    export async function {hook}(session) {{
      await new Promise((go) => waiting.push(go));
      session.send("begun");
      while (waiting !== null) await sleep(1);
      for (let n = 0; n < 10; n++) await sleep(1);
      session.send("ended");
    }}"""
    if hook == "onError":
        source += 'export function onMessage() { throw new Error("for onError"); }'
    with running(tmp_path, source, **settings) as script:
        session = script.open()
        script.message(session)
        session.wait_for(lambda session: "begun" in session.sent)
        script.path.write_text(
            "goOn(); export function onMessage(session) { session.send(JSON.stringify({ beats })); }"
        )
        script.handler.reload()
        session.wait_for(lambda session: "ended" in session.sent)
        before = json.loads(script.answer(session))
        for _ in range(10):
            assert json.loads(script.answer(session)) == before
        assert session.closed is None
