"""wsthreads.d.ts: the real compiler takes it, and it says what the runtime has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import dukpy
import pytest
from dukpy import tsc

import wsthreads.javascript
from tests.programs import ROOT
from wsthreads.javascript.exports import HOOKS
from wsthreads.testing import play

DECLARATIONS = (Path(wsthreads.javascript.__file__).parent / "types" / "wsthreads.d.ts").read_text()

#: Compile files that are given as texts, and say what is wrong, as "file:line message".
CHECK = """
(function (files) {
  var host = {
    getSourceFile: function (name, options) {
      return files[name] === undefined ? undefined : ts.createSourceFile(name, files[name], options, true);
    },
    getDefaultLibFileName: function () { return "lib.d.ts"; },
    getCurrentDirectory: function () { return ""; },
    getCanonicalFileName: function (name) { return name; },
    useCaseSensitiveFileNames: function () { return true; },
    getNewLine: function () { return "\\n"; },
    fileExists: function (name) { return files[name] !== undefined; },
    readFile: function (name) { return files[name]; },
    writeFile: function () {}
  };
  var program = ts.createProgram(Object.keys(files), {
    strict: true, noEmit: true, noLib: true, allowJs: true, checkJs: true, types: [],
    target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext
  }, host);
  return ts.getPreEmitDiagnostics(program).map(function (problem) {
    var file = problem.file;
    var place = file ? file.fileName + ":" + (ts.getLineAndCharacterOfPosition(file, problem.start).line + 1) : "";
    return place + " " + ts.flattenDiagnosticMessageText(problem.messageText, " ");
  });
})(dukpy.files)
"""


@pytest.fixture(scope="module")
def compiler():
    interpreter = dukpy.JSInterpreter()
    interpreter.evaljs(Path(tsc.TS_COMPILER).read_text("utf-8") + "\n;0")
    return interpreter


def test_the_compiler_takes_what_is_right_and_nothing_else(compiler):
    files = {path.name: path.read_text() for path in (ROOT / "tests" / "javascript" / "types").glob("*.[jt]s")}
    files["wsthreads.d.ts"] = DECLARATIONS
    templates = Path(wsthreads.__file__).parent / "cli" / "templates"  # what `wsthreads new` writes
    files |= {f"new_{kind}.{kind}": (templates / f"chat.{kind}").read_text() for kind in ("js", "ts")}
    assert compiler.evaljs(CHECK, files=files) == []
    files["more.ts"] = 'import type { Session } from "wsthreads";\nexport const f = (s: Session) => s.sned("x");\n'
    (problem,) = compiler.evaljs(CHECK, files=files)
    assert problem.startswith("more.ts:2 Property 'sned' does not exist on type 'Session'")


def members_of(interface):
    """The names in an interface's declaration, and in those that it extends."""
    pattern = rf"^ *(?:export )?interface {interface}(?:<[^>]*>)?(?: extends (\w+))? \{{\n(.*?)^ *\}}"
    match = re.search(pattern, DECLARATIONS, re.MULTILINE | re.DOTALL)
    own = set(re.findall(r"^ +(?:readonly )?(\w+)[(:<]", match[2], re.M))
    return own | (members_of(match[1]) if match[1] else set())


def test_its_names_are_those_of_the_runtime(tmp_path):
    script = tmp_path / "names.js"
    script.write_text(
        f"const WEB = '{json.dumps(WEB)}';"
        """
        function names(object) {
          const found = Object.keys(object);
          for (let at = object; at !== Object.prototype; at = Object.getPrototypeOf(at)) {
            found.push(...Object.getOwnPropertyNames(at));
          }
          return found.filter((name) => name !== "constructor");
        }
        import * as module from "wsthreads";
        let request, owned;
        export function onRoomStart(room) { owned = names(room); }
        export function onPost(room, value, from) { session(from.id).send(told(sessions()[0])); }
        import { session, sessions } from "wsthreads";
        export function onHandshake(asked) { request = names(asked); }
        export function onOpen(session) {
          session.room("x").join();
          session.room("x").post(null);
        }
        function told(session) {
          return JSON.stringify({
            Request: request, Session: names(session), SessionRoom: names(session.room("x")), Console: names(console),
            Room: names(module.room("x")), OwnedRoom: owned,
            User: names(module.user("x")), Peer: names(module.session("x")), module: Object.keys(module),
            web: Object.fromEntries(JSON.parse(WEB).map((name) => [name, names(globalThis[name].prototype)])),
            globals: Object.getOwnPropertyNames(globalThis),
          });
        }
        """
    )
    with play(script) as names:
        (found,) = names.connect().take_json()
    for interface in ("Request", "Session", "Room", "SessionRoom", "OwnedRoom", "User", "Peer", "Console"):
        assert members_of(interface) == set(found[interface])
    for interface in found["web"]:
        assert members_of(interface) == set(found["web"][interface]), interface
    declared = set(re.findall(r"^declare (?:var|function) (\w+)", DECLARATIONS, re.M))
    assert declared == set(found["globals"]) - set(json.loads(ECMASCRIPT))
    assert set(re.findall(r"^  export (?:function|const|class) (\w+)", DECLARATIONS, re.M)) == set(found["module"])
    types = set(re.findall(r"^  export type (On\w+) =", DECLARATIONS, re.M))
    assert types == {name[0].upper() + name[1:] for name in HOOKS}


#: The web's classes, of which all members are declared.
WEB = [
    "TextEncoder", "TextDecoder", "Event", "CustomEvent", "EventTarget", "AbortSignal", "AbortController", "CryptoKey",
    "SubtleCrypto", "Crypto", "URL", "URLSearchParams",
]  # fmt: skip

#: What QuickJS has by itself, which is in TypeScript's own library or nowhere.
ECMASCRIPT = """["Object","Function","Error","EvalError","RangeError","ReferenceError","SyntaxError","TypeError",
"URIError","InternalError","AggregateError","Iterator","Array","parseInt","parseFloat","isNaN","isFinite","decodeURI",
"decodeURIComponent","encodeURI","encodeURIComponent","escape","unescape","Infinity","NaN","undefined","Number",
"Boolean","String","Math","Reflect","Symbol","eval","globalThis","Date","RegExp","JSON","Proxy","Map","Set","WeakMap",
"WeakSet","ArrayBuffer","SharedArrayBuffer","Uint8ClampedArray","Int8Array","Uint8Array","Int16Array","Uint16Array",
"Int32Array","Uint32Array","BigInt64Array","BigUint64Array","Float16Array","Float32Array","Float64Array","DataView",
"Atomics","Promise","BigInt","WeakRef","FinalizationRegistry"]"""
