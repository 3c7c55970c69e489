"""What a script changes in the standard library is its own affair: the runtime works on, and gives nothing away.

And what a client sends never passes for a place in the script, wherever the script puts it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.javascript_fakes import FakeSession, LogLines, Script, running, script_log
from tests.programs import wait_until
from wsthreads import IsolateError
from wsthreads._native import bridge

#: Replaces every method and getter of the standard library by one that keeps its receiver, its arguments and its
#: answer, and then does what the old one did.
SPY = """
const { apply, construct, defineProperty, getOwnPropertyDescriptor, getPrototypeOf, ownKeys } = Reflect;
const seen = [];
let count = 0;
let spying = true;
function keep(...values) {
  if (!spying) return;
  for (let i = 0; i < values.length; i++) defineProperty(seen, count++, { value: values[i], configurable: true });
}
function spyOn(target, path) {
  const names = ownKeys(target);
  for (let i = 0; i < names.length; i++) {
    const name = names[i];
    const property = getOwnPropertyDescriptor(target, name);
    if (!property.configurable || name === "constructor" || name === "keep") continue;
    for (const part of ["value", "get", "set"]) {
      const old = property[part];
      if (typeof old !== "function" || old.prototype !== undefined) continue;
      property[part] = function () {
        const answer = apply(old, this, arguments);
        keep(this, answer);
        for (let n = 0; n < arguments.length; n++) keep(arguments[n]);
        return answer;
      };
    }
    try { defineProperty(target, name, property); } catch {}
  }
}
"""

#: The prototypes and constructors that it spies on.
TARGETS = """[
  Object, Object.prototype, Function.prototype, Array, Array.prototype, Map.prototype, Set.prototype, WeakMap.prototype,
  String, String.prototype, Number, Number.prototype, Symbol.prototype, Promise, Promise.prototype, RegExp.prototype,
  Math, JSON, Reflect, ArrayBuffer, ArrayBuffer.prototype, Uint8Array, Uint8Array.prototype, DataView.prototype,
  getPrototypeOf(Uint8Array), getPrototypeOf(Uint8Array.prototype), Error, Error.prototype, TypeError.prototype,
  getPrototypeOf([][Symbol.iterator]()), getPrototypeOf(new Map().entries()), getPrototypeOf(""[Symbol.iterator]()),
  Date, Date.prototype, performance, console,
]"""

#: Uses all that the runtime has, then tells what was seen that is not the script's own.
USE = """
export function onHandshake(request) {
  request.setAttribute("subprotocols", request.getSubprotocols().length);
  return [request.getParameter("x"), request.getHeader("Host")].length === 2;
}
export async function onOpen(session) {
  const room = session.room("r");
  room.join();
  room.broadcast("one");
  room.broadcastExcept(new Uint8Array([1, 2]));
  room.members(); room.getName(); session.rooms();
  session.setAttribute("key", { value: 1 });
  session.getAttribute("key"); session.getAttributes();
  console.log("%s and %d", "text", 5, { a: [1, new Map([[1, 2]]), new Set([3])] }, new Error("shown"), 10n, Symbol());
  console.table([{ a: 1 }]); console.group(); console.count(); console.groupEnd(); console.trace("x");
  useTheWeb();
  const interval = setInterval(() => { clearInterval(interval); }, 1);
  setTimeout((value) => { throw new Error(value); }, 1, "in a timer");
  await new Promise((resolve) => setTimeout(resolve, 5));
  try { session.send({}); } catch {}
  try { session.room(5); } catch {}
  try { session.close("x"); } catch {}
  try { session.room("😀".repeat(200)); session.room("x".repeat(257)); } catch {}
  Promise.reject(new Error("nobody's"));
}
function useTheWeb() {
  const text = new TextDecoder().decode(new TextEncoder().encode("ü".repeat(100)));
  const url = new URL("https://bücher.example/?a=b");
  const target = new EventTarget(), controller = new AbortController();
  target.addEventListener(atob(btoa("x")), () => { throw new Error(text); }, { signal: controller.signal });
  target.dispatchEvent(new Event("x"));
  AbortSignal.any([controller.signal, AbortSignal.timeout(1)]).onabort = () => {};
  controller.abort();
  crypto.subtle.digest("SHA-256", crypto.getRandomValues(new Uint8Array(8)));
  structuredClone(new Map([[{ url: url.href }, new Date(0)]]));
}
export function onMessage(session, message) {
  if (message === "fail") throw new AggregateError([new Error("one")], "many", { cause: new TypeError("why") });
  if (message === "report") {
    session.send("report " + JSON.stringify(found()));
  } else {
    session.send(message);
  }
}
export async function onError(session, error) { await null; }
"""

FOUND = """
// The runtime's own objects and functions that were seen, or can be reached from what was: by their names and texts.
function found() {
  spying = false;
  const known = new Set(), bad = [], waiting = [];
  for (let i = 0; i < count; i++) waiting.push([`seen ${i}`, seen[i]]);
  while (waiting.length) {
    const [path, value] = waiting.pop();
    if (value === null || (typeof value !== "object" && typeof value !== "function") || known.has(value)) continue;
    if (value === seen || value === globalThis) continue;
    known.add(value);
    if (typeof value === "function") {
      const text = apply(functionText, value, []);
      if (/\\btools\\b|python\\(|states\\.|callHandler|parcel|byId/.test(text)) bad.push(`${path}: ${text}`);
    }
    for (const key of ownKeys(value)) {
      if (/^(told|handshake|callback|period|due|budget)$/.test(String(key))) bad.push(`${path}.${String(key)}`);
      waiting.push([`${path}.${String(key)}`, getOwnPropertyDescriptor(value, key).value]);
    }
  }
  return bad;
}
"""


def hostile(body: str) -> str:
    return f"const functionText = Function.prototype.toString;\n{SPY}\n{FOUND}\n{body}\n{USE}"


@pytest.fixture(params=["0", "1"], ids=["with C", "without C"])
def pure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("WSTHREADS_PURE_PYTHON", request.param)
    return str(request.param)


def use_all(script: Script, session: FakeSession) -> None:
    script.handler.handshake(session.request, session.id)
    script.open(session)
    for message in ("fail", "x" * 2000, b"bytes"):
        script.message(session, message)
    wait_until(lambda: has_looked(script, session))


def has_looked(script: Script, session: FakeSession) -> bool:
    """Have the script show its attributes. False if it was too busy."""
    try:
        script.handler.attributes(session)  # type: ignore[arg-type]
    except IsolateError:
        return False
    return True


@pytest.mark.usefixtures("pure")
def test_the_runtime_gives_nothing_away_to_a_changed_standard_library(tmp_path: Path) -> None:
    targets = hostile(f"const targets = {TARGETS};\nfor (let i = 0; i < targets.length; i++) spyOn(targets[i]);")
    with script_log() as log, running(tmp_path, targets) as script:
        session = FakeSession("x=1", HTTP_HOST="h", HTTP_SEC_WEBSOCKET_PROTOCOL="a, b")
        use_all(script, session)
        log.wait_for("in a timer")
        log.wait_for("nobody's")
        log.wait_for("AggregateError: many")
        script.message(session, "report")
        session.wait_for(lambda session: str(session.sent[-1]).startswith("report "))
        assert json.loads(str(session.sent[-1]).removeprefix("report ")) == []


#: What polyfills and mistakes have done to the standard library. Each is run at the top of a script.
BROKEN = [
    "String.prototype.toJSON = Map.prototype.toJSON = () => 'broken';",
    "Array.prototype[Symbol.iterator] = Map.prototype[Symbol.iterator] = function* () { throw new Error('broken'); };",
    "String.prototype[Symbol.iterator] = function* () { throw new Error('broken'); };",
    "for (const m of ['get', 'set', 'has', 'delete', 'forEach', 'entries']) "
    "Map.prototype[m] = () => { throw new Error('broken'); };",
    "for (const m of ['push', 'splice', 'indexOf', 'includes', 'slice', 'map', 'pop']) "
    "Array.prototype[m] = () => { throw new Error('broken'); };",
    "for (const m of ['replace', 'slice', 'charCodeAt', 'toLowerCase']) "
    "String.prototype[m] = () => { throw new Error('broken'); };",
    "for (const m of ['call', 'apply', 'bind']) Function.prototype[m] = () => { throw new Error('broken'); };",
    "for (const m of ['keys', 'entries', 'hasOwn', 'freeze', 'fromEntries', 'defineProperty']) "
    "Object[m] = () => { throw new Error('broken'); };",
    "Promise.resolve = Promise.prototype.then = () => { throw new Error('broken'); };",
    "Uint8Array.prototype.slice = Uint8Array.prototype.set = Uint8Array.prototype.subarray = () => { throw 1; };",
    "for (const of of [Uint8Array, ArrayBuffer, Array, Map, Error]) "
    "Object.defineProperty(of, Symbol.hasInstance, { value() { throw new Error('broken'); } });",
    "RegExp.prototype.exec = RegExp.prototype.test = () => { throw new Error('broken'); };",
    "Reflect.apply = Reflect.defineProperty = JSON.stringify = JSON.parse = () => { throw new Error('broken'); };",
    "Number.isInteger = Number.isFinite = Math.max = Math.trunc = () => { throw new Error('broken'); };",
    "globalThis.Map = globalThis.Array = globalThis.Error = globalThis.TypeError = globalThis.Promise = "
    "globalThis.Uint8Array = globalThis.ArrayBuffer = globalThis.String = globalThis.Symbol = undefined;",
    "Error.prepareStackTrace = () => { throw new Error('broken'); }; Error.stackTraceLimit = 50;",
    "Object.prototype.error = 'TypeError'; Object.prototype.message = 'm'; Object.prototype.get = 5;",
]

#: Without the C module each call goes through dukpy, which makes JSON of an array: these end the isolate there.
BROKEN_FOR_DUKPY = [
    "Array.prototype.toJSON = () => 'broken';",
    "for (const i of [0, 1, 2, 3]) "
    "Object.defineProperty(Array.prototype, i, { set() { throw new Error('broken'); } });",
]

#: With these the engine itself cannot load a module; but a script may do it later.
BROKEN_LATER = [
    "Promise.prototype.constructor = { [Symbol.species]: function () { throw new Error('broken'); } };",
    "Object.defineProperty(Promise, Symbol.species, { get() { throw new Error('broken'); } });",
]

#: What must work however broken the standard library is. It uses nothing of that itself.
SURVIVES = """
export async function onOpen(session) {
  const room = session.room("r");
  room.join();
  setTimeout((text) => { room.broadcast(text); }, 1, "timer");
}
export function onMessage(session, message) {
  if (message === "fail") throw new E("failed");
  if (message === "log") { console.log("%s", "logged", { a: 1 }, [2]); return; }
  if (message === "bytes") { session.send(new B(3)); return; }
  session.setAttribute("k", message);
  session.send(session.getAttribute("k") + session.getAttributes().k + session.getHeader("HOST") + session.rooms()[0]);
}
export async function onClose(session) { session.room("r").broadcast("closed"); }
"""


@pytest.mark.parametrize("broken", [*BROKEN, *BROKEN_LATER, *(BROKEN_FOR_DUKPY if bridge() is not None else [])])
def test_a_broken_standard_library_breaks_only_who_uses_it(tmp_path: Path, broken: str) -> None:
    source = f"const E = Error, B = Uint8Array;\n{broken}\n{SURVIVES}"
    if broken in BROKEN_LATER:
        late = SURVIVES.replace("onOpen(session) {", f"onOpen(session) {{ {broken}")
        source = f"const E = Error, B = Uint8Array;\n{late.replace('async ', '')}"
    with script_log() as log, running(tmp_path, source) as script:
        hub: dict[str, Any] = {}
        session = script.open(FakeSession(hub=hub, HTTP_HOST="h"))
        assert session.wait_for_messages(1) == ["timer"]
        assert script.answer(session, "x") == "xxhr"
        assert script.answer(session, "y" * 2000) == "y" * 4000 + "hr"
        assert script.answer(session, "bytes") == b"\0\0\0"
        script.message(session, "log")
        assert log.wait_for("logged") == "logged { a: 1 } [ 2 ]"
        script.message(session, "fail")
        assert "Error: failed" in log.wait_for("failed in session")
        other = script.open(FakeSession(hub=hub))
        script.close(session)
        other.wait_for(lambda other: "closed" in other.sent)
        assert not [text for text in log.texts() if "broken" in text]


def test_a_stack_frame_gives_no_function_away(tmp_path: Path) -> None:
    source = """
    let sites = "none";
    Error.prepareStackTrace = (error, frames) => { sites = frames.map((frame) => typeof frame.getFunction()).join(); };
    export function onMessage(session) {
      const { stack } = new Error("x");
      const holder = {};
      Error.captureStackTrace(holder);
      session.send(`${sites} ${typeof stack} ${typeof holder.stack}`);
    }"""
    with running(tmp_path, source) as script:
        assert script.answer(script.open()) == "none string string"


def test_no_buffer_gives_access_to_memory_beyond_it(tmp_path: Path) -> None:
    source = """export async function onMessage(session) {
      const results = [];
      const attempt = (change) => {
        try { results.push(typeof change()); } catch (error) { results.push(error.name); }
      };
      attempt(() => new SharedArrayBuffer(8, { maxByteLength: 1 << 20 }).grow(1 << 20));
      attempt(() => structuredClone(new SharedArrayBuffer(8, { maxByteLength: 1 << 20 })).grow(1 << 20));
      attempt(() => structuredClone(new ArrayBuffer(1 << 20, { maxByteLength: 1 << 20 })).resize(8));
      const buffer = new ArrayBuffer(1 << 20, { maxByteLength: 1 << 20 });
      attempt(() => new Uint8Array(buffer).sort((one, other) => { buffer.resize(8); return one - other; }));
      attempt(() => new Uint8Array(buffer).sort((one, other) => { buffer.transfer(8); return one - other; }));
      session.send(results.join());
    }"""
    with running(tmp_path, source) as script:
        told = script.answer(script.open()).split(",")
    assert set(told[:4]) <= {"TypeError", "DataCloneError"}
    assert len(told) == 5


def test_what_a_script_is_given_cannot_be_changed(tmp_path: Path) -> None:
    source = """export function onMessage(session) {
      const refused = [];
      const given = { session, room: session.room("r") };
      for (const [name, thing] of Object.entries(given)) {
        const prototype = Object.getPrototypeOf(thing);
        for (const target of [thing, prototype, thing.constructor, Object.getPrototypeOf(prototype).constructor]) {
          if (target === Object) continue;
          try {
            Object.defineProperty(target, Symbol.hasInstance, { value: () => true });
          } catch (error) {
            refused.push(`${name} ${error.constructor.name}`);
          }
        }
      }
      session.send(refused.join());
    }"""
    with running(tmp_path, source) as script:
        assert script.answer(script.open()) == ",".join(["session TypeError"] * 4 + ["room TypeError"] * 4)


@pytest.mark.parametrize("code", [
    "arguments.callee.caller", "(function f() { return f.caller })()", "(function f() { return f.arguments })()",
    "onMessage.caller", "onMessage.arguments", "(0, eval)('(function f() { return f.caller })()')",
    "new Function('return arguments.callee.caller')()",
])
def test_a_function_cannot_look_at_its_caller(tmp_path: Path, code: str) -> None:
    source = f"""export function onMessage(session) {{
      let seen;
      try {{ seen = typeof ({code}); }} catch (error) {{ seen = "refused"; }}
      session.send(seen);
    }}"""
    if code.startswith("arguments"):  # of a module's function there is none
        source = source.replace(code, f"(() => {{ {code} }})()")
    with running(tmp_path, source) as script:
        assert script.answer(script.open()) in ("refused", "undefined", "object")


#: Texts of a client that look like places, or like the runtime's own frames.
FORGERIES = [
    "no\n    at login (/srv/app/secret.js:99:7)",
    "no\n    at login (other.js:99:7)",
    "    at login (other.js:99:7)",
    "\n    at q (<wsthreads>)",
    "no\n    at q (<wsthreads>:1:1)\n    at r (native)",
    "no\r\n    at login (other.js:99:7)\u2028    at login (other.js:98:7)\u2029    at login (other.js:97:7)",
    "no\n    at onMessage (script.js:99:7)",
    'x","    at login (other.js:99:7)',
]

THROWERS = {
    "message": "throw new Error(text);",
    "name": "const error = new Error('x'); error.name = text; throw error;",
    "cause": "throw new Error('x', { cause: new Error(text) });",
    "text cause": "throw new Error('x', { cause: text });",
    "errors": "throw new AggregateError([new Error(text), text], text);",
    "thrown text": "throw text;",
    "stack getter": "throw Object.defineProperty(new Error('x'), 'stack', { get: () => text });",
    "stack set": "const error = new Error('x'); error.stack = text; throw error;",
    "function name": "({ [text]() { throw new Error('x'); } })[text]();",
    "class": "throw new (class extends Error { get message() { return text } get name() { return text } })();",
    "key": "throw { [text]: text };",
}


def failure_of(tmp_path: Path, log: LogLines, code: str, text: str) -> Any:
    source = f"export function onMessage(session, text) {{\n  {code}\n}}"
    (tmp_path / "other.js").write_text("export const other = 1;")
    with running(tmp_path, source) as script:
        script.message(script.open(), text)
        log.wait_for("failed in session")
    (record,) = [record for record in log.records if "failed in session" in record.getMessage()]
    return record


@pytest.mark.parametrize("text", FORGERIES)
@pytest.mark.parametrize("thrower", THROWERS)
def test_no_text_of_a_client_is_taken_for_a_place(tmp_path: Path, thrower: str, text: str) -> None:
    with script_log() as log:
        record = failure_of(tmp_path, log, THROWERS[thrower], text)
    without_place = thrower in ("thrown text", "key", "stack getter") or (thrower == "stack set")
    if thrower == "stack set" and "(script.js:99:7)" in text:
        return  # the script says so itself, of a file of its own
    place = getattr(record, "file", None), getattr(record, "line", None)
    assert place in ([(None, None)] if without_place else [("script.js", 2)])
    lines = record.getMessage().split("\n")
    assert not [line for line in lines if line.startswith("  ") and line.strip().startswith("at ") and ":9" in line
                and thrower not in ("stack set", "function name")]
    assert "login" not in record.stack or thrower in ("cause", "text cause", "errors", "stack set", "function name")


def test_what_looks_like_a_frame_is_kept_and_marked(tmp_path: Path) -> None:
    with script_log() as log:
        record = failure_of(tmp_path, log, "throw new Error(text);", "no\n    at q (<wsthreads>)\nend")
    session = record.getMessage().split()[4]
    assert record.getMessage() == (
        f"onMessage failed in session {session} Error: no\n  |     at q (<wsthreads>)\n  | end\n"
        "    at onMessage (script.js:2:13)"
    )
    assert record.stack == "    at onMessage (script.js:2:13)"


def test_a_console_line_of_a_clients_text_is_marked_too(tmp_path: Path) -> None:
    source = "export function onMessage(session, text) {\n  console.error('got', text);\n}"
    with script_log() as log, running(tmp_path, source) as script:
        script.message(script.open(), "no\n    at login (script.js:99:7)")
        assert log.wait_for("got") == "got no\n  |     at login (script.js:99:7)"
        (record,) = log.records
        assert (record.file, record.line) == ("script.js", 2)  # type: ignore[attr-defined]


def test_an_endless_recursion_has_its_place(tmp_path: Path) -> None:
    with script_log() as log:
        record = failure_of(tmp_path, log, "(function f() { f(); })();", "")
    assert (record.file, record.line) == ("script.js", 2)
    assert "Maximum call stack size exceeded" in record.getMessage()
