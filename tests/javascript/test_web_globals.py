"""The web's globals in scripts: each behaves as its standard says."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.javascript.test_api import EVALUATE, Console
from tests.javascript.test_engine import remove_engine
from tests.javascript_fakes import running, script_log
from tests.programs import DEADLINE_S

DATA = Path(__file__).parent / "data"
BASE64 = json.loads((DATA / "wpt" / "base64.json").read_text())
ENCODINGS = json.loads((DATA / "encodings.json").read_text())

#: Calls `f`, and returns the name and the message of what it throws.
THROWN = "const thrown = (f) => { try { f(); return 'nothing'; } catch (error) { return error.name; } };"


@pytest.fixture(scope="module", params=["engine", "no engine"])
def js(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    has_no_engine = request.param == "no engine"
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            if has_no_engine:
                remove_engine(patch)
            folder = tmp_path_factory.mktemp("web")
            script = stack.enter_context(running(folder, EVALUATE, scripts_without_deadline=has_no_engine))
        yield Console(script, script.open())


def test_what_a_script_does_not_use_is_not_loaded(tmp_path: Path) -> None:
    source = """export function onMessage(session) {
      const kind = (name) => typeof Object.getOwnPropertyDescriptor(globalThis, name).get;
      const before = [kind("TextEncoder"), kind("AbortSignal")];
      new TextEncoder();
      session.send(JSON.stringify([...before, kind("TextEncoder"), kind("TextDecoder"), typeof TextEncoder]));
    }"""
    with running(tmp_path, source) as script:
        kinds = json.loads(script.answer(script.open()))
        assert kinds == ["function", "function", "undefined", "function", "function"]


def test_a_script_may_replace_a_global(js: Console) -> None:
    assert js("const before = Event; Event = 5; const now = Event; Event = before; return now") == 5
    assert js("return Object.keys(globalThis).length + Number('btoa' in globalThis)") == 1


# Texts and bytes.


@pytest.mark.parametrize("text", ["", "a", "aü€😀", "\ud800", "x\udc00y", "\udc00\ud800", "ü" * 100, "a\ud83d" * 60])
def test_texts_are_encoded_in_utf8(js: Console, text: str) -> None:
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    assert js(f"return [...new TextEncoder().encode({json.dumps(text)})]") == list(expected)
    code = f"""const into = new Uint8Array({len(expected)});
      const {{ read, written }} = new TextEncoder().encodeInto({json.dumps(text)}, into);
      return [read, written, ...into];"""
    units = len(text.encode("utf-16-le", "surrogatepass")) // 2
    assert js(code) == [units, len(expected), *expected]


def test_encode_into_writes_whole_characters(js: Console) -> None:
    code = """const results = [];
      for (let size = 0; size < 11; size++) {
        const { read, written } = new TextEncoder().encodeInto("aü€😀b", new Uint8Array(size));
        results.push([read, written]);
      }
      return results;"""
    assert js(code) == [[0, 0], [1, 1], [1, 1], [2, 3], [2, 3], [2, 3], [3, 6], [3, 6], [3, 6], [3, 6], [5, 10]]


@given(st.binary(max_size=200))
def test_bytes_are_decoded_as_python_does(shared_js: Console, data: bytes) -> None:
    code = f"return new TextDecoder('utf-8', {{ ignoreBOM: true }}).decode(new Uint8Array({list(data)}))"
    assert shared_js(code) == data.decode("utf-8", "replace")


@pytest.fixture(scope="module")
def shared_js(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with running(tmp_path_factory.mktemp("shared"), EVALUATE) as script:
        yield Console(script, script.open())


@pytest.mark.parametrize("name", ENCODINGS["labels"])
def test_all_labels_of_the_standard_are_known(js: Console, name: str) -> None:
    labels = ENCODINGS["labels"][name]
    code = f"return {json.dumps(labels)}.map((label) => new TextDecoder(`\\t ${{label.toUpperCase()}}\\n`).encoding)"
    assert js(code) == [name] * len(labels)


@pytest.mark.parametrize("name", ENCODINGS["single_byte"])
def test_single_byte_encodings_are_those_of_the_standard(js: Console, name: str) -> None:
    code = f"return new TextDecoder('{name}').decode(Uint8Array.from({{ length: 256 }}, (_, i) => i))"
    assert js(code) == "".join(map(chr, range(128))) + ENCODINGS["single_byte"][name]


@pytest.mark.parametrize(
    ("label", "codec", "text"),
    [
        ("utf-8", "utf-8", "aü€😀z"), ("utf-16", "utf-16-le", "aü€😀z"), ("utf-16be", "utf-16-be", "aü€😀z"),
        ("gbk", "gbk", "中文测试"), ("gb18030", "gb18030", "中文€𠀀"), ("big5", "big5", "繁體中文"),
        ("euc-jp", "euc_jp", "日本語テスト"), ("iso-2022-jp", "iso2022_jp", "a日本語b"), ("sjis", "cp932", "日本語ｱ"),
        ("euc-kr", "cp949", "한국어 똠"),
    ],
)  # fmt: skip
def test_a_stream_may_be_cut_anywhere(js: Console, label: str, codec: str, text: str) -> None:
    data = list(text.encode(codec))
    code = f"""const data = new Uint8Array({data});
      const decoder = new TextDecoder("{label}", {{ fatal: true }});
      const texts = [];
      for (let first = 0; first <= data.length; first++) {{
        for (let second = first; second <= data.length; second++) {{
          texts.push(decoder.decode(data.subarray(0, first), {{ stream: true }}) +
            decoder.decode(data.slice(first, second).buffer, {{
              stream: true }}) + decoder.decode(data.subarray(second)));
        }}
      }}
      return [texts.length > 1, ...new Set(texts)];"""
    assert js(code) == [True, text]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("new TextDecoder().decode(new Uint8Array([0xEF, 0xBB, 0xBF, 0x61]))", "a"),
        ("new TextDecoder('utf-8', { ignoreBOM: true }).decode(new Uint8Array([0xEF, 0xBB, 0xBF, 0x61]))", "\ufeffa"),
        ("new TextDecoder('utf-16le').decode(new Uint8Array([0xFF, 0xFE, 0x61, 0]))", "a"),
        ("new TextDecoder().decode(new Uint8Array([0xEF, 0xBB, 0xBF, 0xEF, 0xBB, 0xBF]))", "\ufeff"),
        ("(() => { const d = new TextDecoder(); const s = { stream: true }; "
         "return d.decode(new Uint8Array([0xEF]), s) + "
         "d.decode(new Uint8Array([0xBB, 0xBF, 0x61]), s) + d.decode() + d.decode(new Uint8Array([0xEF, 0xBB, "
         "0xBF])) })()",
         "a"),
        ("new TextDecoder().decode()", ""),
        ("new TextDecoder().decode(new DataView(new Uint8Array([1, 0x61, 0x62, 2]).buffer, 1, 2))", "ab"),
        ("new TextDecoder().decode(new Uint8Array([0xF0, 0x9F]), { stream: true })", ""),
        ("new TextDecoder('utf-16le').decode(new Uint8Array([0, 0xD8, 0x61, 0]))", "\ufffda"),
        ("new TextDecoder('latin1').encoding", "windows-1252"),
        ("new TextDecoder('x-sjis').encoding", "shift_jis"),
        ("thrown(() => new TextDecoder('iso-2022-kr'))", "RangeError"),
        ("thrown(() => new TextDecoder('nonsense'))", "RangeError"),
        ("thrown(() => new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array([0xFF])))", "TypeError"),
        ("thrown(() => new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array([0xC3])))", "TypeError"),
        ("thrown(() => new TextDecoder('windows-1253', { fatal: true }).decode(new Uint8Array([0xAA])))", "TypeError"),
        ("thrown(() => new TextDecoder().decode('text'))", "TypeError"),
        ("thrown(() => TextDecoder.prototype.fatal)", "TypeError"),
        ("thrown(() => TextEncoder())", "TypeError"),
        ("thrown(() => new TextEncoder().encodeInto('x', [1]))", "TypeError"),
        ("String(new TextEncoder())", "[object TextEncoder]"),
        ("Object.keys(TextEncoder.prototype).join()", "encoding,encode,encodeInto"),
    ],
)  # fmt: skip
def test_texts_and_bytes_as_their_standard_has_them(js: Console, code: str, expected: Any) -> None:
    assert js(f"{THROWN} return {code};") == expected


def test_a_decoder_is_usable_after_malformed_data(js: Console) -> None:
    code = """const decoder = new TextDecoder("utf-8", { fatal: true });
      try { decoder.decode(new Uint8Array([0xE2, 0xFF]), { stream: true }); } catch {}
      return decoder.decode(new Uint8Array([0xE2, 0x82, 0xAC]));"""
    assert js(code) == "€"


def test_a_megabyte_goes_there_and_back(js: Console) -> None:
    code = """const text = "aü€😀\\0".repeat(100000);
      return new TextDecoder().decode(new TextEncoder().encode(text)) === text;"""
    assert js(code) is True


@pytest.mark.parametrize(("text", "data"), BASE64)
def test_atob_passes_the_tests_of_the_web_platform(js: Console, text: str, data: list[int] | None) -> None:
    got = js(
        f"try {{ return [...atob({json.dumps(text)})].map((c) => c.codePointAt(0)); }} catch (e) {{ return e.name; }}"
    )
    assert got == ("InvalidCharacterError" if data is None else data)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("btoa('')", ""), ("btoa('a\\xff\\0')", "Yf8A"), ("btoa(undefined)", "dW5kZWZpbmVk"), ("btoa(12)", "MTI="),
        ("thrown(() => btoa('€'))", "InvalidCharacterError"), ("thrown(() => btoa())", "TypeError"),
        ("thrown(() => btoa('\\ud800'))", "InvalidCharacterError"), ("thrown(() => atob())", "TypeError"),
        ("atob(null)", "\x9e\xe9e"), ("thrown(() => atob('a-_b'))", "InvalidCharacterError"),
        ("thrown(() => atob('ab\\xa0cd'))", "InvalidCharacterError"), ("atob(' a\\tb\\nc\\fd\\r ')", "i\xb7\x1d"),
        ("(() => { try { atob('a'); } catch (e) { return [e.code, e instanceof DOMException, "
         "e instanceof Error]; } })()",
         [5, True, True]),
    ],
)  # fmt: skip
def test_atob_and_btoa(js: Console, code: str, expected: Any) -> None:
    assert js(f"{THROWN} return {code};") == expected


# Events.


def test_listeners_are_called_in_order_once_and_as_their_options_say(js: Console) -> None:
    code = """const log = [], target = new EventTarget(), controller = new AbortController();
      const add = (name, options) => target.addEventListener("x", () => log.push(name), options);
      add("first"); add("capture", true); add("once", { once: true }); add("signal", { signal: controller.signal });
      const object = { handleEvent(event) { log.push([this === object, event.type, event.target === target,
        event.eventPhase]); } };
      target.addEventListener("x", object);
      target.addEventListener("x", object);  // the same listener
      target.addEventListener("x", null);
      target.addEventListener("y", () => log.push("never"));
      target.dispatchEvent(new Event("x"));
      controller.abort();
      target.removeEventListener("x", object);
      log.push("again");
      target.dispatchEvent(new Event("x"));
      return log;"""
    assert js(code) == [
        "capture", "first", "once", "signal", [True, "x", True, 2], "again", "capture", "first",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("const e = new Event('x', { cancelable: true }); t.addEventListener('x', (e) => e.preventDefault());"
         "return [t.dispatchEvent(e), e.defaultPrevented, e.returnValue]", [False, True, False]),
        ("const e = new Event('x'); t.addEventListener('x', (e) => e.preventDefault()); "
         "return t.dispatchEvent(e)", True),
        ("const e = new Event('x', { cancelable: true }); t.addEventListener('x', (e) => e.preventDefault(), "
         "{ passive: true });"
         "return t.dispatchEvent(e)", True),
        ("let n = 0; t.addEventListener('x', (e) => { n++; e.stopImmediatePropagation(); }); "
         "t.addEventListener('x', () => n++);"
         "t.dispatchEvent(new Event('x')); return n", 1),
        ("let n = 0; t.addEventListener('x', (e) => { n++; e.stopPropagation(); }); t.addEventListener('x', () => n++);"
         "t.dispatchEvent(new Event('x')); return n", 2),
        ("let n = 0; const f = () => n++; t.addEventListener('x', () => t.removeEventListener('x', f)); "
         "t.addEventListener('x', f);"
         "t.dispatchEvent(new Event('x')); return n", 0),
        ("let n = 0; t.addEventListener('x', () => t.addEventListener('x', () => n++)); "
         "t.dispatchEvent(new Event('x')); return n", 0),
        ("const e = new Event('x'); t.addEventListener('x', () => t.dispatchEvent(e)); "
         "return t.dispatchEvent(e)", True),
        ("return thrown(() => t.dispatchEvent({ type: 'x' }))", "TypeError"),
        ("return thrown(() => t.addEventListener('x', 5))", "TypeError"),
        ("return thrown(() => new Event())", "TypeError"),
        ("return new CustomEvent('x', { detail: { a: 1 } }).detail", {"a": 1}),
        ("return new CustomEvent('x').detail", None),
        ("return [Event.AT_TARGET, new Event('x').BUBBLING_PHASE, new Event('x').isTrusted, String(new Event('x'))]",
         [2, 3, False, "[object Event]"]),
        ("class Mine extends EventTarget { fire() { return this.dispatchEvent(new Event('x')); } }; "
         "const m = new Mine();"
         "let n = 0; m.addEventListener('x', () => n++); m.fire(); return [n, m instanceof EventTarget]", [1, True]),
        ("const e = new Event('x'); let path; t.addEventListener('x', () => { path = e.composedPath(); }); "
         "t.dispatchEvent(e);"
         "return [path.length, path[0] === t, e.composedPath(), e.currentTarget, "
         "e.target === t]", [1, True, [], None, True]),
    ],
)  # fmt: skip
def test_events_as_their_standard_has_them(js: Console, code: str, expected: Any) -> None:
    assert js(f"{THROWN} const t = new EventTarget(); {code}") == expected


def test_an_error_of_a_listener_is_logged_and_the_others_are_called(js: Console) -> None:
    code = """let n = 0; const t = new EventTarget();
      t.addEventListener("x", () => { throw new Error("no"); }); t.addEventListener("x", () => n++);
      return [t.dispatchEvent(new Event("x")), n];"""
    with script_log() as log:
        assert js(code) == [True, 1]
        assert log.texts()[0].startswith("a listener of x failed: Error: no\n    at ")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("const c = new AbortController(); c.abort(); return [c.signal.aborted, c.signal.reason.name, "
         "c.signal.reason.code]",
         [True, "AbortError", 20]),
        ("const c = new AbortController(); c.abort('why'); c.abort('again'); return c.signal.reason", "why"),
        ("let n = 0; const c = new AbortController(); c.signal.onabort = () => n++; c.signal.onabort = () => n += 10;"
         "c.abort(); c.abort(); return n", 10),
        ("return [AbortSignal.abort(5).reason, AbortSignal.abort().reason.name]", [5, "AbortError"]),
        ("try { AbortSignal.abort(new RangeError('x')).throwIfAborted(); } catch (e) { return e.name; }", "RangeError"),
        ("return thrown(() => new AbortSignal())", "TypeError"),
        ("return thrown(() => AbortSignal.timeout(-1))", "TypeError"),
        ("return thrown(() => AbortSignal.any([5]))", "TypeError"),
        ("return AbortSignal.any([AbortSignal.abort(1), AbortSignal.abort(2)]).reason", 1),
        ("const log = [], a = new AbortController(), b = new AbortController();"
         "const inner = AbortSignal.any([a.signal, b.signal]), outer = AbortSignal.any([inner]);"
         "outer.addEventListener('abort', () => log.push('outer', outer.reason, inner.aborted));"
         "inner.addEventListener('abort', () => log.push('inner')); b.abort('b'); a.abort('a'); return log",
         ["inner", "outer", "b", True]),
        ("const c = new AbortController(); let n = 0; AbortSignal.any([c.signal]).addEventListener('abort', () => n++);"
         "for (let i = 0; i < 100; i++) AbortSignal.any([c.signal]); c.abort(); return n", 1),
        ("return AbortSignal.any([]).aborted", False),
    ],
)  # fmt: skip
def test_signals_as_their_standard_has_them(js: Console, code: str, expected: Any) -> None:
    assert js(f"{THROWN} {code}") == expected


def test_a_signal_aborts_when_its_time_is_over(tmp_path: Path) -> None:
    source = """export function onMessage(session) {
      const signal = AbortSignal.timeout(1);
      signal.onabort = () => session.send(JSON.stringify([signal.aborted, signal.reason.name, signal.reason.code]));
      session.send(String(signal.aborted));
    }"""
    with running(tmp_path, source) as script:
        session = script.open()
        script.message(session)
        assert session.wait_for_messages(2) == ["false", '[true,"TimeoutError",23]']


# Copies.


@pytest.mark.parametrize(
    "value",
    [
        "undefined",
         "null", "true", "5", "-0", "NaN", "10n", "'text'", "[1, , 3]", "{ a: { b: [] } }", "new Date(5)", "/x/gi",
        "new Map([[{ a: 1 }, new Set([1])]])", "new Uint8Array([1, 2]).subarray(1)", "new Float64Array([1.5])",
        "new DataView(new ArrayBuffer(8), 2, 3)", "new ArrayBuffer(3)", "Object(5)", "Object('x')", "Object(10n)",
        "new RangeError('no', { cause: [1] })", "Object.create(null)", "new (class Foo { x = 1 })()",
        "new DOMException('no', 'AbortError')", "Object.assign([1], { extra: 2 })",
    ],
)  # fmt: skip
def test_a_copy_looks_as_its_original_in_node(js: Console, value: str) -> None:
    seen = value.replace("new (class Foo { x = 1 })()", "{ x: 1 }").replace("Object.create(null)", "{}")
    seen = seen.replace("Object.assign([1], { extra: 2 })", "Object.assign([1], { extra: 2 })")
    with script_log() as log:
        js(f"console.dir(structuredClone({value})); console.dir({seen});")
        copy, original = log.texts()
        assert copy.split("\n    at ")[0] == original.split("\n    at ")[0]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("const a = { n: [] }; a.self = a; a.n.push(a); const b = structuredClone(a); return [b !== a, "
         "b.self === b, b.n[0] === b]",
         [True, True, True]),
        ("const shared = {}; const { a, b } = structuredClone({ a: shared, b: shared }); "
         "return a === b && a !== shared", True),
        ("const u = new Uint8Array(4); const [a, b] = structuredClone([u, u.buffer]); "
         "return a.buffer === b && b !== u.buffer", True),
        ("const b = new ArrayBuffer(4); const c = structuredClone(b, { transfer: [b] }); return [b.detached, "
         "c.byteLength]", [True, 4]),
        ("const b = new ArrayBuffer(4); thrown(() => structuredClone(() => 1, { transfer: [b] })); "
         "return b.detached", False),
        ("return ['Symbol()', '() => 1', 'new WeakMap()', 'new WeakSet()', 'Promise.resolve()', "
         "'(function* () {})()', 'session', "
         "'session.room(`x`)', '{ deep: [() => 1] }', 'class A {}'].map((text) => "
         "thrown(() => structuredClone(new Function('session', `return ${text}`)(session))))", ["DataCloneError"] * 10),
        ("return thrown(() => structuredClone({ get boom() { throw new RangeError('mine') } }))", "RangeError"),
        ("return thrown(() => structuredClone())", "TypeError"),
        ("return thrown(() => structuredClone(5, { transfer: [5] }))", "DataCloneError"),
        ("const e = structuredClone(new RangeError('x')); return [e instanceof RangeError, e.message, typeof e.stack]",
         [True, "x", "string"]),
        ("return Object.getPrototypeOf(structuredClone(new (class extends Map {})())) === Map.prototype", True),
        ("return structuredClone({ get computed() { return 5 } })", {"computed": 5}),
    ],
)  # fmt: skip
def test_copies_as_their_standard_has_them(js: Console, code: str, expected: Any) -> None:
    assert js(f"{THROWN} {code}") == expected


# The rest.


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("const e = new DOMException('text', 'NotFoundError'); return [e.name, e.message, e.code, String(e)]",
         ["NotFoundError", "text", 8, "NotFoundError: text"]),
        ("return [new DOMException().name, new DOMException('x', 'Mine').code, "
         "DOMException.DATA_CLONE_ERR]", ["Error", 0, 25]),
        ("return Math.abs(performance.timeOrigin + performance.now() - Date.now()) < 10000", True),
        ("return [Object.keys(performance.toJSON()), performance.now() <= performance.now()]", [["timeOrigin"], True]),
    ],
)  # fmt: skip
def test_exceptions_and_times(js: Console, code: str, expected: Any) -> None:
    assert js(code) == expected


def test_globals_work_after_a_script_has_broken_what_it_can(tmp_path: Path) -> None:
    """They break only themselves: the runtime goes on."""
    source = """Array.prototype.push = Array.prototype.filter = Map.prototype.get = Object.defineProperty = () =>
      { throw 1; };
    export function onMessage(session, name) {
      try { new globalThis[name]("x"); } catch {}
      session.send(name);
    }"""
    with running(tmp_path, source) as script:
        session = script.open()
        for name in random.sample(["TextEncoder", "TextDecoder", "Event", "EventTarget", "AbortController"], 5):
            assert script.answer(session, name) == name
        script.handler.settle(DEADLINE_S)
