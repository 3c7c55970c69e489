"""Each function of a handler is called, in both languages, and has its row in the reference.

These tests fail for a new one that is missing somewhere: see docs/contributing.rst.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

from tests.pages import text_of
from wsthreads.javascript.exports import CALLS, HOOKS, ROOM_CALLS
from wsthreads.sessions.hooks import ARGUMENTS, SCRIPT_HOOKS
from wsthreads.sessions.hooks import HOOKS as PYTHON_HOOKS
from wsthreads.testing import Play, play

#: Those of sessions that survive: see test_resume, and javascript/test_requests.
OF_SURVIVORS = {"on_request", "on_suspend", "on_resume"}

#: What a function does beside noting that it was called, so that all others are called, too.
JAVASCRIPT = {
    "onOpen": 'const room = session.room("r"); room.join({ presence: 1 }); room.post("a value").catch(() => {});',
    "onMessage": 'if (message === "fail") throw new Error("on purpose"); session.send(JSON.stringify([...called]));',
}


def use(chat: Play) -> Any:
    """Everything that can happen to a handler. Returns a client that is still open."""
    bob = chat.connect()
    chat.advance(1)
    bob.close()
    ann = chat.connect()
    ann.send("fail")
    ann.take()
    return ann


def test_a_script_s_functions_are_all_called(tmp_path: Path) -> None:
    script = tmp_path / "all.js"
    arguments = {"onReload": ""} | {name: ", ".join(ARGUMENTS.get(hook, ())) for name, hook in HOOKS.items()}
    script.write_text(
        "const called = globalThis.called ??= new Set();\nexport const tickRate = 20;\n"
        + "\n".join(
            f'export function {name}({arguments[name]}) {{ called.add("{name}"); {JAVASCRIPT.get(name, "")} }}'
            for name in HOOKS
        )
    )
    with play(script, raise_errors=False) as chat:
        ann = use(chat)
        chat.reload()
        ann.send("what was called?")
        assert set(ann.take_json()[-1]) == {name for name, hook in HOOKS.items() if hook not in OF_SURVIVORS}
        seconds = chat.app.endpoints[0].totals().handler_seconds
        assert {hook for hook, histogram in seconds.items() if histogram.count} == {
            HOOKS[name] for name in (*CALLS.values(), *ROOM_CALLS.values())
        } - OF_SURVIVORS


def test_a_python_handler_s_functions_are_all_called() -> None:
    called = set()

    def noting(hook: str) -> Any:
        def function(*values: Any) -> None:
            called.add(hook)
            assert len(values) == len(ARGUMENTS[hook])
            if hook == "on_open":
                values[0].room("r").join(presence=1)
                values[0].room("r").post("a value")
            elif hook == "on_message":
                raise ValueError("on purpose")

        return function

    handler = types.SimpleNamespace(tick_rate=20, **{hook: noting(hook) for hook in PYTHON_HOOKS})
    with play(handler, raise_errors=False) as chat:
        use(chat)
    assert called == set(PYTHON_HOOKS) - OF_SURVIVORS


def test_both_languages_have_the_same_functions() -> None:
    assert tuple(HOOKS.values()) == SCRIPT_HOOKS
    assert set(HOOKS) - set(CALLS.values()) - set(ROOM_CALLS.values()) == {"onError"}


def test_each_function_has_its_row_in_the_reference() -> None:
    section = (
        text_of("docs/reference/handlers").partition("Functions of a handler\n")[2].partition("\nIn JavaScript\n")[0]
    )
    rows = [line for line in section.splitlines() if line.startswith(("``", "\\"))]
    for name, hook in HOOKS.items():
        arguments = ", ".join(ARGUMENTS.get(hook, ()))
        python = f"``{hook}({arguments})``" if hook in PYTHON_HOOKS else "\\"
        script = f"``{name}({arguments.replace('sender', 'from')})`` "  # `from` is a keyword in Python
        assert any(row.startswith(script) and f" {python} " in row for row in rows), f"no row of {name} and {hook}"
    assert len(rows) == len(HOOKS)
