"""Headers, Request and Response by themselves: as the web platform's tests for them ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.javascript.test_api import EVALUATE, Console
from tests.javascript_fakes import running


@pytest.fixture(scope="module")
def js(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with running(tmp_path_factory.mktemp("fetch"), EVALUATE) as script:
        yield Console(script, script.open())


@pytest.mark.parametrize(
    ("code", "result"),
    [
        # wpt fetch/api/headers: basic, casing, combine, record, structure, normalize, errors, cookies, iteration
        ("[...new Headers({ b: 1, A: '2' })]", [["a", "2"], ["b", "1"]]),
        ("[...new Headers([['b', '1'], ['B', '2'], ['a', '']])]", [["a", ""], ["b", "1, 2"]]),
        ("[...new Headers(new Headers({ a: 'b' }))]", [["a", "b"]]),
        ("[...new Headers(new Map([['a', 'b']]))]", [["a", "b"]]),
        ("[...new Headers(undefined)]", []),
        ("new Headers({ a: '\\t b\\r\\n ' }).get('A')", "b"),
        ("new Headers({ a: 'é' }).get('a')", "é"),
        ("[new Headers().get('a'), new Headers().has('a')]", [None, False]),
        ("const h = new Headers({ a: '1', b: '2' }); h.append('a', 3); h.set('B', '4'); h.delete('c'); "
         "return [...h];",
         [["a", "1, 3"], ["b", "4"]]),
        ("const h = new Headers([['a', '1'], ['a', '2'], ['b', 'x']]); h.set('a', '3'); "
         "return [...h.values()];",
         ["3", "x"]),
        ("[...new Headers([['set-cookie', 'a=1'], ['x', 'y'], ['Set-Cookie', 'b=2']])]",
         [["set-cookie", "a=1"], ["set-cookie", "b=2"], ["x", "y"]]),
        ("new Headers([['set-cookie', 'a=1'], ['set-cookie', 'b=2']]).getSetCookie()", ["a=1", "b=2"]),
        ("new Headers([['set-cookie', 'a=1'], ['set-cookie', 'b=2']]).get('set-cookie')", "a=1, b=2"),
        ("const h = new Headers({ a: '1', b: '2' }), seen = []; "
         "for (const [n] of h) { seen.push(n); h.delete('b'); } return seen;",
         ["a"]),
        ("const seen = []; "
         "new Headers({ a: '1' }).forEach((v, n, h) => seen.push(v, n, h instanceof Headers)); return seen;",
         ["1", "a", True]),
        ("[...new Headers({ a: '1' }).keys()]", ["a"]),
        ("new Headers({ [Symbol.iterator]: undefined, a: '1' }).get('a')", "TypeError"),
        *((f"new Headers({bad})", "TypeError") for bad in (
            "null", "1", "'a'", "[['a']]", "[['a', 'b', 'c']]", "['a']", "{ 'a b': 'c' }", "{ '': 'c' }",
            "{ a: 'b\\0c' }", "{ a: 'b\\r\\nc' }", "{ a: 'Ā' }", "{ 'é': 'a' }")),
        *((f"new Headers().{bad}", "TypeError") for bad in (
            "append('a')", "set('a')", "get('a b')", "has('')", "delete('\\n')", "append('a', '\\n b\\nc')",
            "forEach(1)")),
        ("Object.prototype.toString.call(new Headers())", "[object Headers]"),
        ("Headers.prototype[Symbol.iterator] === Headers.prototype.entries", True),
        # fetch/api/request
        ("new Request('http://a.test').url", "http://a.test/"),
        ("[new Request('http://a.test').method, new Request('http://a.test').redirect]", ["GET", "follow"]),
        ("['get', 'Post', 'patch', 'PUT'].map((method) => new Request('http://a.test', { method }).method)",
         ["GET", "POST", "patch", "PUT"]),
        ("[...new Request('http://a.test', { headers: { Host: 'x', 'Content-Length': 5, TE: 'x', a: 'b' } }).headers]",
         [["a", "b"]]),
        ("const r = new Request('http://a.test'); r.headers.set('connection', 'x'); return [...r.headers];",
         []),
        ("new Request('http://a.test', { method: 'POST', body: '' }).headers.get('content-type')",
         "text/plain;charset=UTF-8"),
        ("new Request(new Request('http://a.test', { headers: { a: 'b' } }), { method: 'PUT' }).headers.get('a')", "b"),
        ("new Request('http://a.test').signal.aborted", False),
        ("new Request('http://a.test').body", None),
        *((f"new Request({bad})", "TypeError") for bad in (
            "", "'/relative'", "'http://'", "'http://u:p@a.test'", "'http://a.test', { method: 'CONNECT' }",
            "'http://a.test', { method: 'trace' }", "'http://a.test', { method: 'a b' }",
            "'http://a.test', { body: 'x' }",
            "'http://a.test', { method: 'HEAD', body: 'x' }", "'http://a.test', { redirect: 'x' }",
            "'http://a.test', { signal: 1 }", "'http://a.test', { method: 'POST', body: {} }",
            "'http://a.test', { method: 'POST', body: new Map() }")),
        # fetch/api/response
        ("const r = new Response(); "
         "return [r.status, r.ok, r.statusText, r.type, r.url, r.redirected, r.body, r.bodyUsed];",
         [200, True, "", "default", "", False, None, False]),
        ("new Response('a').headers.get('content-type')", "text/plain;charset=UTF-8"),
        ("new Response('a', { headers: { 'content-type': 'x' } }).headers.get('content-type')", "x"),
        ("new Response(new Uint8Array(1)).headers.get('content-type')", None),
        ("new Response(null, { status: 204 }).status", 204),
        ("[new Response('', { status: 299 }).ok, new Response('', { status: 300 }).ok]", [True, False]),
        ("const r = Response.error(); return [r.type, r.status, r.ok, r.body];",
         ["error", 0, False, None]),
        ("Response.error().headers.set('a', 'b')", "TypeError"),
        ("const r = Response.redirect('http://a.test/b', 307); "
         "return [r.status, r.headers.get('location')];",
         [307, "http://a.test/b"]),
        ("Response.redirect('http://a.test', 200)", "RangeError"),
        ("Response.redirect('/b')", "TypeError"),
        ("const r = Response.json({ a: 1 }, { status: 201 }); "
         "return [r.status, r.headers.get('content-type')];",
         [201, "application/json"]),
        ("Response.json(undefined)", "TypeError"),
        ("Response.json(Symbol())", "TypeError"),
        *((f"new Response({bad})", error) for bad, error in (
            ("'', { status: 199 }", "RangeError"), ("'', { status: 600 }", "RangeError"),
            ("'', { status: 'x' }", "RangeError"),
            ("'', { status: 204 }", "TypeError"), ("'', { status: 304 }", "TypeError"),
            ("'', { statusText: '\\n' }", "TypeError"),
            ("'', { statusText: 'Ā' }", "TypeError"), ("{}", "TypeError"), ("[]", "TypeError"))),
        ("Object.prototype.toString.call(new Response())", "[object Response]"),
        ("fetch.length", 1),
    ],
)  # fmt: skip
def test_values(js: Console, code: str, result: Any) -> None:
    run = code if "return" in code else f"return {code}"
    told = js(f"try {{ {run} }} catch (error) {{ return error.name; }}")
    assert (None if told == "undefined" else told) == result


def test_what_a_script_does_not_use_is_not_loaded(tmp_path: Path) -> None:
    source = """export function onMessage(session) {
      const kinds = () => ["fetch", "Headers", "Request", "Response"].map(
        (name) => typeof Object.getOwnPropertyDescriptor(globalThis, name).get);
      const before = kinds();
      new Headers();
      session.send(JSON.stringify([before, kinds()]));
    }"""
    with running(tmp_path, source) as script:
        before, after = json.loads(script.answer(script.open()))
        assert before == ["function"] * 4
        assert after == ["function", "undefined", "function", "function"]
