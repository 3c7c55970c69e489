"""Names in sources, and what was perhaps meant by them."""

from __future__ import annotations

import pytest

from wsthreads.sessions.hooks import HOOKS
from wsthreads.sessions.source_names import did_you_mean, names_in

SCRIPT_HOOKS = ("onHandshake", "onOpen", "onMessage", "onClose", "onError")


@pytest.mark.parametrize(
    ("name", "among", "meant"),
    [
        ("onMesage", SCRIPT_HOOKS, "onMessage"),
        ("onmessage", SCRIPT_HOOKS, "onMessage"),
        ("on_message", SCRIPT_HOOKS, "onMessage"),
        ("onMessages", SCRIPT_HOOKS, "onMessage"),
        ("onDisconnect", SCRIPT_HOOKS, "onClose"),
        ("onConnection", SCRIPT_HOOKS, "onOpen"),
        ("on_mesage", HOOKS, "on_message"),
        ("onClose", HOOKS, "on_close"),
        ("on_connect", HOOKS, "on_open"),
        ("message", SCRIPT_HOOKS, None),
        ("once", SCRIPT_HOOKS, None),
        ("online", SCRIPT_HOOKS, None),
        ("openDatabase", SCRIPT_HOOKS, None),
        ("json", HOOKS, None),
        ("onMesage", ("onOpen",), None),
    ],
)
def test_a_name_is_compared_with_those_that_are_missing(name, among, meant):
    assert did_you_mean(name, among) == meant


def test_exports_have_their_places():
    source = (
        "// export function onNothing() {}\n"
        "/* export const onNever = 1;\n*/ import x from './x.js';\n"
        "export   async function onOpen() {} export const a = 1;\n"
        "const b = 'http://example.org', c = 2;\n"
        "export {\n  b, c as onMesage,\n  d\n};\n"
        "export class Ünit {}\n"
        "export declare function typed(): void;\n"
    )
    assert names_in(source, in_script=True) == {
        "onOpen": (4, 25),
        "a": (4, 50),
        "b": (7, 3),
        "onMesage": (7, 11),
        "d": (8, 3),
        "Ünit": (10, 14),
        "typed": (11, 25),
    }


def test_python_names_have_their_places():
    source = (
        "import json, os as system\n"
        "def on_open(session): local = 1\n"
        "on_close = on_error = None\n"
        "async def on_message(): pass\n"
        "if json:\n    class Late: pass\n    late = 1\n"
    )
    assert names_in(source, in_script=False) == {
        "json": (1, 8),
        "system": (1, 14),
        "on_open": (2, 5),
        "on_close": (3, 1),
        "on_error": (3, 12),
        "on_message": (4, 11),
        "late": (5, 5),
    }
    assert names_in("def (", in_script=False) == {}
