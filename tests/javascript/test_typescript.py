"""Handlers in TypeScript: compiled by dukpy's compiler, and their errors at their own lines and columns."""

from __future__ import annotations

import os
import sys

import pytest

from tests.javascript_fakes import script_log
from tests.programs import DEADLINE_S
from wsthreads import Config, IsolateError, ScriptError
from wsthreads.javascript import check_script, typescript
from wsthreads.javascript.typescript import Compiled, Compiler
from wsthreads.testing import HandlerFailed, play

LIB = """export interface Greeting { text: string }
type Never = { a: number };

export function greet(name: string): Greeting {
  if (name === "nobody") throw new RangeError(`there is ${name}`);
  return { text: `hello ${name}` };
}
export enum Color { Red, Green }
"""

SHOUT = """import { Color } from "./lib/greet.ts";
export const shout = (text) => Color && text.toUpperCase();
"""

CHAT = """import type { Session } from "wsthreads"; import type { Nothing } from "./types.d.ts";
import { greet, Color, Greeting } from "./lib/greet.ts";
import { shout } from "./shout.js";

interface Message {
  text: string;
}

let count: number = 0;
class Pair<T> { constructor(private readonly one: T, readonly two: T) {} get both() { return [this.one, this.two] } }

export function onOpen(session: Session): void {
  const greeting: Greeting = greet(session.getParameter("user") ?? "anonymous");
  session.send(shout(`${greeting.text} ${Color.Green} ${++count} ${new Pair<number>(1, 2).both}`));
}

export async function onMessage(session: Session, message: string) {
  switch (message) {
    case "throw": { const m = { text: message } satisfies Message; throw new Error(m.text!); }
    case "later": setTimeout((() => { null!.x }) as () => void, 1); return;
    case "log": console.error("logged", new Error("shown")); return;
  }
  if (message.endsWith(".ts")) {
    try { session.send((await import(message)).late); } catch (error: any) { session.send(error.message); }
    return;
  }
  greet(message);
}
"""


#: For what is compiled while the script runs.
PATIENT = {"deadline_s": DEADLINE_S * 6, "script_timeout_s": DEADLINE_S * 6}


@pytest.fixture
def folder(tmp_path):
    """The same texts for all tests, so that they are compiled only once."""
    folder = tmp_path / "handlers"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "greet.ts").write_text(LIB)
    (folder / "shout.js").write_text(SHOUT)
    (folder / "late.ts").write_text("export const late: string = 'late';\n")
    (folder / "chat.ts").write_text(CHAT)
    (folder / "types.d.ts").write_text("export type Nothing = null;\n")
    (tmp_path / "secret.ts").write_text("export const late = 'secret';\n")
    return folder


def test_a_handler_in_typescript_runs_with_what_it_imports(folder):
    with play(folder / "chat.ts", **PATIENT) as chat:
        ann = chat.connect(user="ann")
        assert ann.take() == ["HELLO ANN 1 1 1,2"]
        ann.send("./late.ts")
        assert ann.take() == ["late"]
        ann.send("../secret.ts")
        assert "it is outside of" in ann.take()[0]


def test_errors_are_at_the_places_of_the_source(folder):
    with play(folder / "chat.ts", **PATIENT) as chat, script_log() as log:
        ann = chat.connect(user="ann")
        with pytest.raises(HandlerFailed, match=r"Error: throw\n    at onMessage \(chat\.ts:19:\d+\)\Z"):
            ann.send("throw")
        with pytest.raises(HandlerFailed) as caught:
            ann.send("nobody")
        assert str(caught.value).endswith("    at greet (lib/greet.ts:5:36)\n    at onMessage (chat.ts:27:9)")
        ann.send("log")
        assert "chat.ts:21:" in log.wait_for("logged")
        with pytest.raises(HandlerFailed):
            ann.send("later")
            log.wait_for("a callback of setTimeout failed")
            chat.settle()
        assert "chat.ts:20:" in log.texts()[-1]


def test_a_syntax_error_has_its_place_and_file(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    written = os.path.join(folder.name, "chat.ts")
    (folder / "lib" / "greet.ts").write_text(LIB + "export const x: = 3;\n")
    with pytest.raises(ScriptError) as caught:
        check_script(written, Config())
    assert str(caught.value) == f"{os.path.join(folder.name, 'lib', 'greet.ts')}:9:17: SyntaxError: Type expected."
    (folder / "lib" / "greet.ts").write_text(LIB)
    (folder / "late.ts").write_text("let late: ;\n")
    with play(folder / "chat.ts", raise_errors=False, **PATIENT) as chat:
        ann = chat.connect(user="ann")
        ann.send("./late.ts")
        assert ann.received[-1].endswith("late.ts:1:11: Type expected.")
    (folder / "chat.ts").write_bytes(b"\xff")
    with pytest.raises(ScriptError, match=r"chat\.ts cannot be read"):
        check_script(written, Config())


def test_an_error_at_the_top_has_its_place(folder):
    (folder / "chat.ts").write_text("interface A { a: number }\n\nexport function onOpen() {}\n(null as any).x;\n")
    with pytest.raises(ScriptError) as caught:
        check_script(folder / "chat.ts", Config())
    assert (caught.value.path, caught.value.line) == (str(folder / "chat.ts"), 4)


def test_a_reload_runs_the_new_source_and_names_its_places(folder):
    with play(folder / "chat.ts", **PATIENT) as chat:
        ann = chat.connect(user="ann")
        (folder / "lib" / "greet.ts").write_text("\n\n" + LIB)
        handler = chat.app.endpoints[0].handler
        handler.reload()
        assert str((folder / "lib" / "greet.ts").resolve()) in handler.files()
        with pytest.raises(HandlerFailed, match=r"at greet \(lib/greet\.ts:7:36\)"):
            ann.send("nobody")


# The compiler


def test_what_was_compiled_is_remembered(folder, monkeypatch):
    check_script(folder / "chat.ts", Config())
    monkeypatch.setattr(typescript, "_start", None)  # it would start the compiler's process
    with play(folder / "chat.ts", **PATIENT) as chat:
        assert chat.connect(user="ann").received == ["HELLO ANN 1 1 1,2"]


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("import sys; sys.exit(3)", "has ended|ended before"),
        ("input(); print('{\"failed\": \"out of memory\"}')", "the TypeScript compiler failed: out of memory"),
        ("input(); import time; time.sleep(60)", "before it had compiled a.ts"),
    ],
)
def test_a_compiler_that_fails_is_an_error_in_words(tmp_path, monkeypatch, program, complaint):
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{program.replace(chr(39), chr(34) * 3)}'\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.setattr(typescript, "COMPILE_TIMEOUT_S", 0.5 if "sleep" in program else 60)
    with Compiler() as compiler, pytest.raises(IsolateError, match=complaint):
        compiler.compile("a.ts", f"new: {program}")


def test_places_are_found_by_the_source_map():
    # line 1 of the code: columns 0 and 4 are from 2:1 and 2:9; line 2 is from nowhere; line 3, column 20, from 1:1.
    compiled = Compiled("", (), None, "AACA,IAAQ;;oBADR")
    assert compiled.original(1, 1) == (2, 1)
    assert compiled.original(1, 4) == (2, 1)
    assert compiled.original(1, 5) == (2, 9)
    assert compiled.original(1, 500) == (2, 9)
    assert compiled.original(2, 3) == (2, 3)
    assert compiled.original(3, 19) == (3, 19)
    assert compiled.original(3, 21) == (1, 1)
    assert compiled.original(99, 1) == (99, 1)
