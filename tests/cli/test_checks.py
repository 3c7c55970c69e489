"""What `wsthreads check` says of a handler file."""

from __future__ import annotations

import os
import re

import pytest

from wsthreads import Config, HandlerError, ScriptError, WebSocketApp
from wsthreads.cli.checks import Finding, check_target
from wsthreads.cli.targets import Target, add_target


@pytest.fixture
def target(tmp_path, monkeypatch):
    """Write a file in a folder, and name it as its user would, from outside of the folder."""
    (tmp_path / "handlers").mkdir()
    monkeypatch.chdir(tmp_path)

    def write(name, source):
        path = tmp_path / "handlers" / name
        path.write_text(source)
        return Target(f"/ws/{path.stem}", path.relative_to(tmp_path))

    return write


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("a.js", "\nexport const onMesage = () => 1;", "2:14: exports none of .*it exports onMesage; did you mean onM"),
        ("a.js", "const x = 3; export { x as onOpen };", "1:28: exports onOpen as number"),
        ("a.js", "export const x = 3;", " exports none of .*it exports x$"),
        ("a.py", "\ndef on_mesage(s, m): pass", "2:5: has none of .*, but on_mesage; did you mean on_message\\?"),
        ("a.js", "\nexport function onTick() {}", "2:17: exports onTick without tickRate, a number of ticks a second"),
        ("a.ts", "export const onTick = 1;", "1:14: exports onTick as number; it must be a function"),
        ("a.js", "export function onTick() {}\nexport const tickrate = 2;", "2:14: .* tickrate, did you mean t"),
        ("a.js", "export function onTick() {}\nexport const tickRate = 0;", "2:14: exports tickRate as 0; it must"),
        ("a.ts", "export function onTick() {}\n\nexport const tickRate: number = 61;", "3:14: exports tickRate as 61"),
        ("a.js", "export const tickRate = 'fast';\nexport const onTick = () => 1;", '1:14: exports tickRate as "fast"'),
        ("a.js", "export const tickRate = NaN;\nexport const onTick = () => 1;", "1:14: exports tickRate as NaN; it"),
        ("a.js", "export const tickRate = 20;\nexport const onOpen = () => 1;", "1:14: exports tickRate without on"),
        ("a.js", "export let tickRate = 2;\nexport let onTik, onOpen = Map;", "2:12: .* exports onTik, did you"),
        ("a.py", "\ndef on_tick(r, dt): pass", "2:5: on_tick needs tick_rate, a number of ticks a second from 1 to 60"),
        ("a.py", "def on_tick(r, dt): pass\ntickRate = 20", "2:1: on_tick needs .* has tickRate, did you mean tick_"),
        ("a.py", "def on_tick(r, dt): pass\n\ntick_rate = 0", "3:1: tick_rate must be a number .* 60, not 0$"),
        ("a.py", "def on_tick(r, dt): pass\ntick_rate = 61", "2:1: tick_rate must be a number .* 60, not 61$"),
        ("a.py", "def on_tick(r, dt): pass\ntick_rate = 'fast'", "2:1: tick_rate must be a number .* 60, not 'fast'$"),
        ("a.py", "def on_open(s): pass\ntick_rate = 20", "2:1: tick_rate is for on_tick.room, dt., which is missing$"),
        ("a.py", "def on_tik(r, dt): pass\ntick_rate = 2\ndef on_open(s): pass", "1:5: .* did you mean on_tick"),
        ("a.py", "def on_tick(room): pass\ntick_rate = 20", r"1:5: on_tick.room. cannot be called as on_tick.room, dt"),
        ("a.py", "def on_post(room, value): pass", r"1:5: on_post.room, value. cannot be called as on_post.room"),
        ("a.py", "async def on_room_start(room): pass", "1:11: on_room_start is an async function, whose body never"),
        ("a.py", "def on_message(session): pass", r"1:5: on_message\(session\) cannot be called as on_message\(se"),
        ("a.py", "def on_open(): pass", r"1:5: on_open\(\) cannot be called as on_open\(session\)"),
        ("a.py", "def on_open(session, room): pass", r"1:5: on_open\(session, room\) cannot be called as on_open\(s"),
        ("a.py", "def on_open(session, *, room): pass", "1:5: on_open.session, ., room. cannot be called as on_open"),
        ("a.py", "def on_close(s, c, r, x): pass", r"1:5: on_close\(s, c, r, x\) cannot be called as on_close\(ses"),
        ("a.py", "x = 1\nasync def on_open(session): pass", "2:11: on_open is an async function, whose body"),
        ("a.py", "def on_open(session): yield", "1:5: on_open is a generator function, whose body never runs"),
        ("a.py", "\nasync def on_open(s): yield", "2:11: on_open is an async generator function, whose body never"),
        ("a.py", "def f(s): yield\nimport functools\non_open = functools.partial(f)", "3:1: on_open is a generator"),
        ("a.js", "\nexport function* onOpen() {}", "2:18: exports onOpen as a generator function, whose body never"),
        ("a.js", "export async function *onClose() {}", "1:24: exports onClose as an async generator function, whose"),
        ("a.js", "const f = function* () {};\nexport { f as onError };", "2:15: exports onError as a generator func"),
        ("a.ts", "export const onOpen = function* (a: number) {};", "1:14: exports onOpen as a generator function"),
        ("a.py", "\nfrom json import dumps as on_open, loads as on_close\nx = on_error = 3", "3:5: on_error must be"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_column(target, name, source, complaint):
    target = target(name, source)
    for load in (check_target, lambda target: add_target(WebSocketApp(), target)):
        with pytest.raises(HandlerError) as caught:
            load(target)
        assert re.match(f"{re.escape(os.path.join('handlers', name))}:{complaint}", str(caught.value))


@pytest.mark.parametrize(
    "source",
    [
        "def on_close(session): pass",
        "def on_close(session, code): pass",
        "def on_close(session, code, reason, more=1, *rest, **named): pass",
        "def on_message(*arguments): pass",
        "def on_message(session, message, room=None): pass",
        "import functools\ndef with_room(function):\n    @functools.wraps(function)\n"
        "    def wrapper(session): return function(session, 1)\n    return wrapper\n"
        "@with_room\ndef on_open(session, room): pass",
        "on_open = print",
    ],
)
def test_every_signature_that_can_be_called_is_good(target, source):
    assert not check_target(target("a.py", source)).remarks


@pytest.mark.parametrize(
    ("name", "source", "place", "functions"),
    [
        ("a.js", "export function onOpen() {}\nexport function onResume() {}\n", "2:17", "onResume is"),
        ("a.js", "export function onSuspend() {}\nexport let onResume = eval\n", "1:17", "onSuspend and onResume are"),
        ("a.py", "def on_resume(s): pass\ndef on_suspend(s): pass\n", "2:5", "on_suspend and on_resume are"),
    ],
)
def test_functions_that_need_resume_s_are_remarked_on_without_it(target, name, source, place, functions):
    file = os.path.join("handlers", name)
    remark = f"{file}:{place}: {functions} never called: resume_s is 0; set it with --resume-s 60"
    assert check_target(target(name, source)).remarks == (remark,)
    assert check_target(target(name, source), config=Config(resume_s=60)).remarks == ()


def test_requests_need_no_resume_s(target):
    assert not check_target(target("a.py", "def on_request(session, message): pass")).remarks


def test_a_wrong_name_beside_right_ones_is_remarked_on(target):
    found = check_target(target("a.js", "export function onOpen() {}\nexport async function onMesage() {}\n"))
    remark = f"{os.path.join('handlers', 'a.js')}:2:23: onMesage is never called; did you mean onMessage?"
    assert found == Finding(("onOpen",), (remark,))
    found = check_target(target("a.py", "def on_open(session): pass\ndef on_mesage(session, message): pass\n"))
    remark = f"{os.path.join('handlers', 'a.py')}:2:5: on_mesage is never called; did you mean on_message?"
    assert found == Finding(("on_open",), (remark,))


def test_a_name_is_not_remarked_on_where_the_right_one_is_there(target):
    source = "export function onMessage() {}\nexport function onMessages() {}\n"
    assert check_target(target("a.js", source)) == Finding(("onMessage",), ())


def test_a_file_that_does_not_load_is_named_as_its_user_does(target):
    target("_beside.py", "x = 1\nx.y\n")
    places = {"def (": "a.py:1:5", "x = 1\nraise ValueError": "a.py:2", "import _beside": "_beside.py:2"}
    for source, place in places.items():
        with pytest.raises(ScriptError) as caught:
            check_target(target("a.py", source))
        assert str(caught.value).startswith(os.path.join("handlers", place) + ": ")
