"""setTimeout, setInterval and queueMicrotask, and what happens to errors that nobody handles."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.javascript_fakes import running, script_log


def test_timers_fire_in_order_of_time_and_then_of_setting(tmp_path: Path) -> None:
    source = """export function onOpen(s) {
      for (const [name, delay] of [["d", 30], ["b", 10], ["c", 10], ["a", 0], ["e", 31]]) {
        setTimeout((...args) => s.send(args.join("")), delay, name, "!");
      }
      queueMicrotask(() => s.send("first"));
    }"""
    with running(tmp_path, source) as script:
        assert script.open().wait_for_messages(6) == ["first", "a!", "b!", "c!", "d!", "e!"]


def test_delays_are_milliseconds(tmp_path: Path) -> None:
    source = "export function onMessage(s) { setTimeout(() => s.send('x'), 200); }"
    with running(tmp_path, source) as script:
        session, began = script.open(), time.monotonic()
        script.answer(session)
        assert time.monotonic() - began >= 0.2


def test_an_interval_repeats_until_it_is_cleared_also_in_its_own_callback(tmp_path: Path) -> None:
    source = """export function onOpen(s) {
      let count = 0;
      const end = () => s.send("end");
      const id = setInterval(() => {
        s.send(String(++count));
        if (count === 3) { clearInterval(id); setTimeout(end, 50); }
      }, 1);
      const cleared = setTimeout(() => s.send("cleared"), 5);
      clearTimeout(cleared);
      clearTimeout(cleared); clearTimeout(undefined); clearInterval({}); clearTimeout(-1);
    }"""
    with running(tmp_path, source) as script:
        assert script.open().wait_for_messages(4) == ["1", "2", "3", "end"]


@pytest.mark.parametrize("delay", ["undefined", "-5", "NaN", "'x'", "Infinity", "2 ** 40", "null"])
def test_a_delay_that_is_none_is_the_shortest(tmp_path: Path, delay: str) -> None:
    with running(tmp_path, f"export function onOpen(s) {{ setTimeout(() => s.send('x'), {delay}); }}") as script:
        script.open().wait_for_messages(1)


@pytest.mark.parametrize(
    ("delay", "why"),
    [
        ("2 ** 31", "the delay 2147483648 is longer than 2147483647 ms, about 24.8 days"),
        ("Infinity", "the delay Infinity is longer than 2147483647 ms, about 24.8 days"),
        ("-1", "the delay -1 is negative"),
        ("NaN", "the delay NaN is not a number"),
        ("'soon'", 'the delay "soon" is not a number'),
    ],
)
@pytest.mark.parametrize("kind", ["setTimeout", "setInterval"])
def test_a_delay_that_is_not_meant_is_told_of_once(tmp_path: Path, kind: str, delay: str, why: str) -> None:
    source = f"""export function onMessage(session) {{
      const timer = {kind}(() => {{ clearInterval(timer); session.send("x"); }}, {delay});
    }}"""
    with script_log() as log, running(tmp_path, source) as script:
        session = script.open()
        for _ in range(3):
            assert script.answer(session) == "x"
        (record,) = log.records
        assert (record.levelname, record.getMessage()) == ("WARNING", f"{kind} waits for 1 ms: {why}")
        assert (record.file, record.line) == ("script.js", 2)  # type: ignore[attr-defined]


@pytest.mark.parametrize("delay", ["", "undefined", "0", "null", "0.5", "2 ** 31 - 1", "'5'"])
def test_an_ordinary_delay_is_not_told_of(tmp_path: Path, delay: str) -> None:
    source = f"export function onMessage(s) {{ clearTimeout(setTimeout(() => {{}}, {delay})); s.send('ok'); }}"
    with script_log() as log, running(tmp_path, source) as script:
        assert script.answer(script.open()) == "ok"
        assert log.texts() == []


def test_a_callback_must_be_a_function(tmp_path: Path) -> None:
    source = """export function onOpen(s) {
      for (const start of [setTimeout, setInterval]) {
        try { start("code()", 1); } catch (error) { s.send(`${error.constructor.name}: ${error.message}`); }
      }
    }"""
    with running(tmp_path, source) as script:
        assert script.open().wait_for_messages(2) == [
            "TypeError: setTimeout takes a function, not a string",
            "TypeError: setInterval takes a function, not a string",
        ]


def test_a_callback_that_throws_is_logged_and_counted_and_its_interval_goes_on(tmp_path: Path) -> None:
    source = """let runs = 0;
    setInterval(() => { runs++; throw new Error("tick"); }, 1);
    export function onMessage(s) { s.send(String(runs)); }"""
    with script_log() as log, running(tmp_path, source) as script:
        text = log.wait_for("tick")
        assert text.startswith("a callback of setInterval failed: Error: tick\n    at <anonymous> (script.js:2:")
        session = script.open()
        while int(script.answer(session)) < 5:
            pass
        assert script.count("handler_errors") >= 4


def test_intervals_do_not_starve_events_nor_events_intervals(tmp_path: Path) -> None:
    source = """let ticks = 0;
    for (let i = 0; i < 10; i++) {
      setInterval(() => { ticks++; for (const end = Date.now() + 3; Date.now() < end;); }, 1);
    }
    export function onMessage(s) { s.send(String(ticks)); }"""
    with running(tmp_path, source) as script:
        session = script.open()
        while script.answer(session) == "0":  # the first of them is due a millisecond after the start
            pass
        for _ in range(100):
            script.message(session)
        seen = [int(text) for text in session.wait_for_messages(100)]
        assert seen[-1] - seen[0] >= 50


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("Promise.reject(new Error('lost'))", "unhandled error in a promise: Error: lost\n    at onMessage"),
        ("Promise.reject(null)", "unhandled error in a promise: null"),
        ("(async () => { await null; throw new Error('lost'); })()", "Error: lost\n    at <anonymous> (script.js:1:"),
        ("setTimeout(async () => { throw new Error('lost'); }, 1)", "Error: lost"),
        ("queueMicrotask(() => { throw new Error('lost'); })", "unhandled error in a promise job: Error:"),
    ],
)  # fmt: skip
def test_an_error_that_nobody_handles_is_logged_and_counted(tmp_path: Path, code: str, expected: str) -> None:
    with script_log() as log, running(tmp_path, f"export function onMessage(s) {{ {code}; s.send('ok'); }}") as script:
        session = script.open()
        assert script.answer(session) == "ok"
        assert expected in log.wait_for("unhandled error in")
        assert "<dukpy>" not in log.texts()[0]
        assert script.answer(session) == "ok"
        assert script.count("handler_errors") == 0


def test_a_rejection_that_is_handled_in_time_is_none(tmp_path: Path) -> None:
    source = """export function onMessage(s) {
      Promise.reject(1).catch(() => {});
      const late = Promise.reject(2);
      queueMicrotask(() => late.catch(() => s.send("caught")));
    }"""
    with script_log() as log, running(tmp_path, source) as script:
        session = script.open()
        for _ in range(2):
            assert script.answer(session) == "caught"
        assert log.texts() == []


def test_rejections_leave_nothing_behind(tmp_path: Path) -> None:
    source = """export function onMessage(s, m) {
      for (let i = 0; i < 2000; i++) {
        const promise = Promise.reject(new Array(100));
        if (m === "handled") promise.catch(() => {});
      }
      s.send("ok");
    }"""
    with script_log() as log, running(tmp_path, source) as script:
        session = script.open()
        isolate: Any = script.handler._isolate
        for _ in range(5):
            script.answer(session, "handled")
        assert log.texts() == []
        for _ in range(3):
            script.answer(session, "lost")
        script.answer(session, "handled")
        assert script.count("unhandled_rejections") == 6000
        log.records.clear()
        script.close(session)
        assert isolate._loop.engine._rejected == {}
