"""The texts about ``fetch``, calls of Python and ``env`` that docs/how-to/troubleshooting.rst quotes are provoked.

tests/test_troubleshooting.py has the rest, and the test that none is left out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.javascript.origins import ASKED, Origin, response
from tests.ports import free_port
from tests.programs import DEADLINE_S
from tests.test_troubleshooting import complaint, says
from wsthreads.testing import play

CALLS = f'import * as store from "store"; globalThis.store = store; {ASKED}'

#: The module ``store`` of an application.
STORE = """
import threading
from datetime import datetime

may_return = threading.Event()

def slow(): may_return.wait(30)
def now(): return datetime.now()
def big(): return 2**60
def save(value): pass
__all__ = ["big", "now", "save", "slow"]
"""

HANDLER = "\nexport function onMessage(session, message) {}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


def answer(script: Path, code: str, **settings: Any) -> str:
    """What a script answers that evaluates this."""
    with play(script, **settings) as chat:
        client = chat.connect()
        client.send(code)
        text = client.receive()
    assert isinstance(text, str)
    return text


def test_what_fetch_may_not_reach(folder: Path, origin: Origin) -> None:
    script = folder / "asked.js"
    script.write_text(ASKED)
    origin.routes["/away"] = response(b"", "Location: http://localhost:1/", status="302 Found")
    away = f"return (await fetch('http://{origin.host}/away')).status"
    says("fetch may not reach", answer(script, away))
    says("fetch may not reach", answer(script, away, allow_net=[origin.host]))
    says("is a private address", answer(script, "await fetch('http://localhost/')", allow_net=["localhost"]))
    port = free_port()
    closed = answer(script, f"await fetch('http://127.0.0.1:{port}/')", allow_net=[f"127.0.0.1:{port}"])
    says("cannot connect to", closed)
    unknown = answer(script, "await fetch('http://nobody.invalid/')", allow_net=["nobody.invalid"])
    says("is not found: …", unknown)


def test_answers_that_fetch_cannot_use(folder: Path, origin: Origin) -> None:
    script = folder / "asked.js"
    script.write_text(ASKED)
    origin.routes["/page"] = response(b"<html>" * 100)
    origin.routes["/loop"] = response(b"", "Location: /loop", status="302 Found")

    def asked(code: str, **settings: Any) -> str:
        return answer(script, code.replace("URL", f"http://{origin.host}"), allow_net=[origin.host], **settings)

    says("is not JSON", asked("return (await fetch('URL/page')).json()"))
    says("the body was read already", asked("const page = await fetch('URL/page'); for (;;) await page.text()"))
    too_long = asked("await (await fetch('URL/page')).text()", max_fetch_bytes=500)
    says("bytes (max_fetch_bytes)", too_long)
    says("more than 20 redirects", asked("await fetch('URL/loop')"))
    says("fetch takes a whole URL", asked("await fetch('/page')"))


def test_a_fetch_that_takes_too_long(folder: Path, origin: Origin) -> None:
    script = folder / "asked.js"
    script.write_text(ASKED)
    may_answer = threading.Event()

    def wait(*_: Any) -> None:
        may_answer.wait(DEADLINE_S)

    origin.routes["/slow"] = wait
    fetched = f"await fetch('http://{origin.host}/slow'"
    try:
        says("has taken more than", answer(script, f"{fetched})", allow_net=[origin.host], script_wait_s=0.1))
        aborted = answer(script, f"{fetched}, {{ signal: AbortSignal.timeout(10) }})", allow_net=[origin.host])
        says("ms of AbortSignal.timeout are over", aborted)
    finally:
        may_answer.set()


def test_calls_of_python_that_fail(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    script = folder / "calls.js"
    script.write_text(CALLS)
    store = ModuleType("store")
    exec(STORE, vars(store))
    modules = {"store": store}
    says("returned what JavaScript cannot have", answer(script, "return store.now()", modules=modules))
    says("returned what JavaScript cannot have", answer(script, "return store.big()", modules=modules))
    says("takes JSON values, bytes and handles", answer(script, "return store.save(new Map())", modules=modules))
    # A call whose thread gets no core in so short a time fails otherwise.
    calls = """for (;;) {
      const calls = Array.from({ length: 8 }, () => store.slow());
      for (const { reason } of await Promise.allSettled(calls)) if (reason.message.includes("AWAITED")) throw reason;
    }"""
    limits = {"script_wait_s": 0.1, "script_timeout_s": 10}
    try:
        code = calls.replace("AWAITED", "has not returned")
        says("has not returned in", answer(script, code, modules=modules, **limits))
        says("the script waits no longer, but the function's thread continues", caplog.text)
        code = calls.replace("AWAITED", "cannot be called")
        says("and still run", answer(script, code, modules=modules, **limits))
    finally:
        store.may_return.set()


@pytest.mark.parametrize(
    ("imported", "source", "part"),
    [
        ('{ load } from "./stores.py"', "def load(): pass", "there is no such file in"),
        ('{ laod } from "./store.py"', "def load(): pass", "there is no export"),
        ('{ load } from "./store.py"', "async def load(): pass", "scripts call plain functions"),
        ('{ load } from "../store.py"', "def load(): pass", "it is outside of"),
        ('{ load } from "./store.py"', "import no_such_module\ndef load(): pass", "No module named"),
    ],
)
def test_python_files_that_cannot_be_imported(folder: Path, imported: str, source: str, part: str) -> None:
    (folder / "store.py").write_text(source)
    (folder / "a.js").write_text(f"import {imported};{HANDLER}")
    says(part, complaint("check", "a.js"))


def test_names_that_env_does_not_have(folder: Path) -> None:
    (folder / "a.js").write_text("import { env } from 'wsthreads'; env.API_KEY.trim();" + HANDLER)
    says("of undefined", complaint("check", "a.js"))
    (folder / "b.js").write_text("process.env.API_KEY;" + HANDLER)
    says("process is not defined", complaint("check", "b.js"))
    (folder / ".env").write_text("API KEY=1")
    says("this line is not NAME=value", complaint("check", "a.js", "--env-file", ".env"))
