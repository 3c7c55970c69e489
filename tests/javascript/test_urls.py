"""URL and URLSearchParams in scripts: the web platform's tests, and what whatwg-url's own tests cannot know."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import wsthreads.javascript
from tests.javascript.test_api import EVALUATE, Console
from tests.javascript.test_engine import remove_engine
from tests.javascript_fakes import running, script_log
from wsthreads.javascript.domains import domain_to_ascii

DATA = Path(__file__).parent / "data"
CASES = [case for case in json.loads((DATA / "wpt" / "urltestdata.json").read_text()) if isinstance(case, dict)]
SETTERS = json.loads((DATA / "wpt" / "setters_tests.json").read_text())
DOMAINS = json.loads((DATA / "domains.json").read_text())["names"]

#: Inputs whose result the standard has changed since 2022, when the tests were written: ^ is encoded in paths.
CHANGED = ["foo://host/ !\"$%&'()*+,-./:;<=>@[\\]^_`{|}~", "wss://host/ !\"$%&'()*+,-./:;<=>@[\\]^_`{|}~"]

#: The same for values that are set: a hostname may have no port, ^ is encoded, and file URLs keep empty segments.
CHANGED_SETTERS = [
    ("hostname", "example.com:8080"), ("hostname", "example.com:"), ("pathname", "\\\\"), ("pathname", "//\\/"),
    ("pathname", "//monkey/..//"),
    ("pathname", "\x00\x01\t\n\r\x1f !\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~\x7f\x80\x81Éé"),
]  # fmt: skip

PARSE = """const parts = ["href", "origin", "protocol", "username", "password", "host", "hostname", "port",
  "pathname", "search",
  "hash"];
return %s.map(({ input, base }) => {
  try {
    const url = new URL(input, base ?? undefined);
    return Object.fromEntries(parts.map((part) => [part, url[part]]));
  } catch (error) {
    return error.name;
  }
});"""

SET = """return %s.map(([part, { href, new_value, expected }]) => {
  const url = new URL(href);
  url[part] = new_value;
  return Object.fromEntries(Object.keys(expected).map((name) => [name, url[name]]));
});"""


@pytest.fixture(scope="module")
def js(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with running(tmp_path_factory.mktemp("urls"), EVALUATE) as script:
        yield Console(script, script.open())


def in_parts(cases: list[Any]) -> Iterator[list[Any]]:
    """Parts that are small enough for one call of a script."""
    for start in range(0, len(cases), 50):
        yield cases[start : start + 50]


def test_urls_pass_the_tests_of_the_web_platform(js: Console) -> None:
    different = []
    for part in in_parts(CASES):
        for case, got in zip(part, js(PARSE % json.dumps(part)), strict=True):
            expected = {name: case[name] for name in got if name in case} if isinstance(got, dict) else "TypeError"
            if case.get("failure"):
                expected = "TypeError"
            if isinstance(got, dict) and isinstance(expected, dict):
                got = {name: got[name] for name in expected}
            if got != expected:
                different.append(case["input"])
    assert len(CASES) == 687
    assert different == CHANGED


def test_setters_pass_the_tests_of_the_web_platform(js: Console) -> None:
    cases = [(part, case) for part, cases in SETTERS.items() if part != "comment" for case in cases]
    different = []
    for some in in_parts(cases):
        for (part, case), got in zip(some, js(SET % json.dumps(some)), strict=True):
            if got != case["expected"]:
                different.append((part, case["new_value"]))
    assert len(cases) == 198
    assert sorted(different) == sorted(CHANGED_SETTERS)


def test_domains_pass_the_tests_of_unicode() -> None:
    assert [(name, domain_to_ascii(name)) for name, _ in DOMAINS] == [tuple(pair) for pair in DOMAINS]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("münchen.de", "xn--mnchen-3ya.de"), ("faß.de", "xn--fa-hia.de"), ("☕.example", "xn--53h.example"),
        ("Bücher.ÄÖ",
         "xn--bcher-kva.xn--4ca0b"), ("日本。jp", "xn--wgv71a.jp"), ("a\u00adb.c", "ab.c"), ("xn--mnchen-3ya.de",) * 2,
        ("xn--a", None), ("xn--", None), ("xn--ascii-.x", None), ("xn--mnchen-3yb.de", "xn--mnchen-3yb.de"),
        ("\u0301a.x",
         None), ("a\u200db.x", None), ("א1a.x", None), ("ü" * 5001, None), ("\ud800.x", None), ("ab--c.x", "ab--c.x"),
    ],
)  # fmt: skip
def test_domains_are_mapped_and_checked(domain: str, expected: str | None) -> None:
    assert domain_to_ascii(domain) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("return new URL('../b?q=ü#é', "
         "'https://ann:pw@Example.org:443/a/').href", "https://ann:pw@example.org/b?q=%C3%BC#%C3%A9"),
        ("return [URL.canParse('x'), URL.canParse('x', 'a://b/'), URL.parse('x'), "
         "URL.parse('a:b').href]", [False, True, None, "a:b"]),
        ("const u = new URL('http://a/?x=1'); u.searchParams.append('y', 'ü &'); u.searchParams.delete('x'); "
         "return u.href",
         "http://a/?y=%C3%BC+%26"),
        ("const u = new URL('http://a/?x=1'); u.search = '?z=2'; return [...u.searchParams]", [["z", "2"]]),
        ("return [...new URLSearchParams('?a=1&b=2&a=3').getAll('a')]", ["1", "3"]),
        ("return new URLSearchParams({ b: '1', a: 'x y' }).toString()", "b=1&a=x+y"),
        ("const p = new URLSearchParams([['b', '1'], ['a', '2'], ['b', '0']]); p.sort(); return [`${p}`, "
         "p.size, p.has('b', '0')]",
         ["a=2&b=1&b=0", 3, True]),
        ("const p = new URLSearchParams('a=1&b=2&a=3&a=4'); p.set('a', '5'); p.set('c', '6'); return `${p}`",
         "a=5&b=2&c=6"),
        ("const p = new URLSearchParams('a=1&b=2&a=3&a=1'); p.delete('a', '1'); const q = `${p}`; p.delete('a'); "
         "p.delete('x'); return [q, `${p}`, p.size]", ["b=2&a=3", "b=2", 1]),
        ("return [String(new URL('a:b')), JSON.stringify({ u: new URL('a:b') }), "
         "Object.prototype.toString.call(new URL('a:b'))]",
         ["a:b", '{"u":"a:b"}', "[object URL]"]),
        ("try { new URL('nonsense'); } catch (error) { return [error.name, error.message] "
         "}", ["TypeError", "Invalid URL: nonsense"]),
        ("try { structuredClone(new URL('a:b')); } catch (error) { return error.name }", "DataCloneError"),
        ("return new URL('http://\\ud800/?\\ud800#\\ud800', 'x:y') && 'no error'", "TypeError"),
        ("return new URL('a:?\\ud800').href", "a:?%EF%BF%BD"),
        ("return new URL('http://0x7f.1/').hostname", "127.0.0.1"),
    ],
)  # fmt: skip
def test_urls_as_their_standard_has_them(js: Console, code: str, expected: Any) -> None:
    assert js(f"try {{ return (() => {{ {code} }})(); }} catch (error) {{ return error.name; }}") == expected


def test_many_parameters_are_iterated_within_a_call(js: Console) -> None:
    code = """return (() => {
      const params = new URLSearchParams("a=b&".repeat(8000));
      let count = [...params].length + [...params.keys()].length;
      params.forEach(() => count++);
      return count;
    })()"""
    assert js(code) == 24_000


def test_the_console_shows_urls_as_node_does(js: Console) -> None:
    with script_log() as log:
        js("console.log(new URL('https://ann@example.org:8443/a?b=c#d')); console.log(new URLSearchParams('a=1&b=2'));")
        url, parameters = (text.replace("\n  | ", "\n") for text in log.texts())
    assert (
        url
        == """URL {
  href: 'https://ann@example.org:8443/a?b=c#d',
  origin: 'https://example.org:8443',
  protocol: 'https:',
  username: 'ann',
  password: '',
  host: 'example.org:8443',
  hostname: 'example.org',
  port: '8443',
  pathname: '/a',
  search: '?b=c',
  searchParams: URLSearchParams { 'b' => 'c' },
  hash: '#d'
}"""
    )
    assert parameters == "URLSearchParams { 'a' => '1', 'b' => '2' }"


def test_without_an_engine_urls_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove_engine(monkeypatch)
    with running(tmp_path, EVALUATE, scripts_without_deadline=True) as script:
        js = Console(script, script.open())
        assert js("return new URL('http://bücher.de/ü?ü').href") == "http://xn--bcher-kva.de/%C3%BC?%C3%BC"


def test_pairs_are_removed_in_linear_time(js: Any) -> None:
    (isolate,) = (thread for thread in threading.enumerate() if thread.name == "wsthreads-script.js")
    clock = time.pthread_getcpuclockid(isolate.ident or 0)

    def took(pairs: int, change: str) -> float:
        """In time of the processor: a busy machine adds little."""
        js(f"globalThis.params = new URLSearchParams(Array({pairs}).fill(['a', 'b']))")
        begin = time.clock_gettime(clock)
        js(f"params.{change}")
        return time.clock_gettime(clock) - begin

    for change in ("delete('a')", "delete('a', 'b')", "set('a', 'c')"):
        few, many = (min(took(pairs, change) for _ in range(10)) for pairs in (4000, 16_000))
        assert many < 10 * few  # 16 times if it were the square


def test_the_part_names_the_versions_that_it_was_made_of() -> None:
    made = (Path(wsthreads.javascript.__file__).parent / "runtime" / "lazy" / "url.js").read_text()
    wanted = json.loads((Path(__file__).parent / "vendor" / "package.json").read_text())["devDependencies"]
    for package in ("whatwg-url", "webidl-conversions"):
        assert re.search(rf"{package} {re.escape(wanted[package])}\b", made[:500]), package
