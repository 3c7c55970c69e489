"""What of a value of `env` a text may show: nothing, in any form, but short pieces at a cut."""

from __future__ import annotations

import json
import logging
import random
import string
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.javascript_fakes import LogLines, script_log
from wsthreads.dashboard.lists import LISTS
from wsthreads.dashboard.requests import Watch
from wsthreads.errors import HandlerError, IsolateError, ScriptError, UsageError
from wsthreads.javascript.masking import Mask
from wsthreads.testing import play

KEY = "q7Zk2Lm9Xw4Tb6RpA1s2D3f4G5"
KEY_16 = KEY[:16]


def piece_chars(value: str) -> int:
    """How long a piece of a value is that must not be shown, by the rule of the reference."""
    return len(value) if len(value) < 16 else min(32, (len(value) + 1) // 2)


def expected(values: list[str], text: str) -> str:
    """The rule, place by place, for values that look the same in all forms."""
    hidden = [False] * len(text)
    for value in values:
        size = piece_chars(value)
        pieces = {value[at : at + size] for at in range(len(value) - size + 1)} if len(value) >= 6 else set()
        for at in range(len(text)):
            if text[at : at + size] in pieces:
                hidden[at : at + size] = [True] * size
    marked = "".join("*" if is_hidden else each for each, is_hidden in zip(text, hidden, strict=True))
    return "***".join(part for part in _split_at_stars(marked))


def _split_at_stars(text: str) -> list[str]:
    parts = [""]
    for before, each in zip(" " + text, text, strict=False):
        if each != "*":
            parts[-1] += each
        elif before != "*":
            parts.append("")
    return parts


@some.composite
def values_and_text(draw: some.DrawFn) -> tuple[list[str], str]:
    letters = draw(some.sampled_from(["ab", "abc123", "abcdefghijklmnopqrstuvwxyz0123456789"]))
    values = draw(some.lists(some.text(letters, min_size=1, max_size=40), min_size=1, max_size=4))
    piece = some.sampled_from(values).flatmap(
        lambda value: some.tuples(some.integers(0, len(value)), some.integers(0, len(value))).map(
            lambda ends: value[min(ends) : max(ends)]
        )
    )
    parts = draw(some.lists(some.one_of(piece, some.sampled_from(values), some.text(letters + " -", max_size=8))))
    return values, "".join(parts)


@given(values_and_text())
def test_a_text_shows_what_the_rule_says_and_nothing_else(given_: tuple[list[str], str]) -> None:
    values, text = given_
    assert Mask(values)(text) == expected(values, text)


#: Without the characters of the mask.
ANY = some.characters(blacklist_characters="*", blacklist_categories=("Cs",))


@given(some.text(ANY, min_size=6, max_size=60), some.text(ANY), some.text(ANY), some.integers(0, 60))
def test_no_piece_of_any_form_is_shown(value: str, before: str, behind: str, cut: int) -> None:
    mask = Mask([value])
    forms = [
        value, repr(value)[1:-1], ascii(value)[1:-1], repr(value.encode())[2:-1], json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1], quote(value), quote(value, safe=""),
    ]  # fmt: skip
    for form in forms:
        size = piece_chars(form)
        for shown in (form, form[cut:], form[: len(form) - cut]):
            text = mask(f"{before}{shown}{behind}")
            assert not any(form[at : at + size] in text for at in range(len(form) - size + 1)), (form, text)


@pytest.mark.parametrize(
    ("value", "text", "shown"),
    [
        (KEY, f"({KEY})", "(***)"),
        (KEY, KEY[3:], "***"),
        (KEY, KEY[:-5] + "...", "***..."),
        (KEY, f"'{KEY[:13]}...{KEY[-13:]}'", "'***...***'"),
        (KEY, f"'{KEY[:12]}...{KEY[-12:]}'", f"'{KEY[:12]}...{KEY[-12:]}'"),  # shorter than half of it
        (KEY, (KEY * 3)[1:-1], "***"),
        (KEY_16, KEY_16[:15], "***"),
        (KEY_16, f"not 480: \"{KEY_16 * 2}{KEY_16[:8]}\"", 'not 480: "***"'),
        (KEY_16, KEY_16[2:9], KEY_16[2:9]),
        (KEY[:15], KEY[:14], KEY[:14]),  # of less than 16 characters: only the whole
        (KEY[:15], f"{KEY[:15]}.", "***."),
        ("abcdef", "abcdefabcdef abcdeabcdef", "*** abcde***"),
        ("short", "short", "short"),
        ("x" * 100, "x" * 31 + " " + "x" * 32, "x" * 31 + " ***"),
        ("http://localhost:8080", "http://localhost:5000/, http://localhost:8080/x", "http://localhost:5000/, ***/x"),
        ("https://a.test/services/T0/B0/XXXX", "https://a.test/other services/T0/B0/", "https://a.test/other ***"),
        ("https://a.test/services/T0/B0/XXXX", "POST https://a.test/services/T0/B0/XXXX?", "POST ***?"),
        ("postgres://ann:hunter2@db.test/shop", "//ann:hunter2@db.test/", "***"),
        *((f"redis://:{'hunter2' * 3}{sign}x@db", f"no port: '{'hunter2' * 3}'", "no port: '***'") for sign in "/?#"),
        ("p*ssw0rd!~", "http://x/?key=p*ssw0rd%21%7E&a", "http://x/?key=***&a"),  # URLSearchParams
        ("pa ss|w0rd^", "http://x/?k=pa%20ss|w0rd^#pa%20ss|w0rd^", "http://x/?k=***#***"),  # URL
        ("pa ss|w0rd^", "http://x/pa%20ss|w0rd%5E/", "http://x/***/"),
        ("pass`w0rd'é", "http://x/?a=pass`w0rd%27%C3%A9#pass%60w0rd'%C3%A9", "http://x/?a=***#***"),
        ("a:b@c/d|e", "http://ann:a%3Ab%40c%2Fd%7Ce@x/", "http://ann:***@x/"),
        ("a$b+c,d/e?", "a$b+c,d/e? a%24b%2Bc%2Cd%2Fe%3F a$b+c,d%2Fe%3F", "*** *** ***"),
        ("a\x1bb\x7fc\fd", "{ k: 'a\\x1Bb\\x7Fc\\fd' }", "{ k: '***' }"),  # the console
        ("a\x1b'\"`d\\", "['a\\x1B\\'\"`d\\\\']", "['***']"),
        ("/usr/local/share", "/usr/local/lib and /usr/local/share", "/usr/local/lib and ***"),
        ("one\ntwo\nthree", "a one\n  | two\n  | three", "a ***"),  # as a log shows it
        ("begin 0123456789\nend", "0: begin 0123456789", "0: ***"),
        ("begin 0123456789\nend", "the end", "the end"),
        ("abc123\n", "abc123", "***"),
    ],
)  # fmt: skip
def test_examples_of_the_rule(value: str, text: str, shown: str) -> None:
    assert Mask([value])(text) == shown


def test_the_longest_of_several_values_is_hidden() -> None:
    mask = Mask([KEY[:6], KEY[:14], KEY[6:20], KEY[10:12]])
    assert mask(f"{KEY[:14]} {KEY[:13]} {KEY[:20]}.") == f"*** ***{KEY[6:13]} ***."


def test_without_values_nothing_is_hidden() -> None:
    mask = Mask()
    text = "any text of any length"
    assert mask(text) is text
    assert type(mask.logger("x")) is not type(Mask([KEY]).logger("x"))


class Counted(str):
    """Counts the slices that are taken of it."""

    slices = 0

    def __getitem__(self, place: object) -> str:
        self.slices += 1
        return super().__getitem__(place)  # type: ignore[index]


URLS = [f"https://api.example.com/v1/{number:03}/{'k' * 10}" for number in range(20)]
PEM = "\n".join("=" * 60 + f"{number:04}" for number in range(50))


@pytest.mark.parametrize(
    ("values", "hostile"),
    [
        (URLS, "https://api.exam"),
        (URLS, "https://api.example.com/v1/01"),
        (["a" * 4000], "a" * 3999 + "b"),
        (["a" * 64], "a" * 31 + "b"),
        (["produc" + "x" * 3, "production"], "produc"),
        ([PEM], "=" * 60 + " "),
        (["=" * length for length in range(6, 40)], "="),
        (["ab" * length + "c" for length in range(3, 20)], "ab"),
    ],
)
def test_a_text_takes_steps_in_proportion_to_its_length(values: list[str], hostile: str) -> None:
    mask = Mask(values)
    counts = []
    for length in (10_000, 80_000):
        text = Counted((hostile * length)[:length])
        mask(text)
        counts.append(text.slices)
    assert counts[1] <= 8.5 * counts[0]
    assert counts[0] <= 14 * 10_000  # each place, each length of a piece, and what is shown


def test_a_long_value_takes_little_more_memory_than_its_pieces() -> None:
    value = "".join(random.Random(1).choices(string.ascii_letters, k=20_000))
    tracemalloc.start()
    try:
        mask = Mask([value])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes / len(value) < 300  # a piece has 81 bytes, its places in a set and a dict the rest
    assert mask(value[7:100]) == "***"


@pytest.mark.parametrize(
    "error", [ScriptError(f"Error: {KEY}", "/chat.js", 2, 5), HandlerError(f"{KEY} is no", "x"), IsolateError(KEY)]
)
def test_errors_about_a_script_show_no_value(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, Mask([KEY]).in_errors():
        raise error
    assert caught.value is error
    assert KEY not in f"{error} {error!r} {error.__dict__}"
    assert "***" in str(error)


def test_a_masked_logger_shows_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    log = Mask([KEY]).logger("wsthreads.script.masked")
    with script_log() as lines:
        log.info("%s of %d%%", KEY, 5)
        log.info(f"50% of {KEY}")
        log.error("%s", f"failed\n    at {KEY} (x.js:1)", extra={"stack": f"    at {KEY} (x.js:1)", "line": 1})
        try:
            raise ValueError(f"no {KEY}")
        except ValueError:
            log.exception("failed")
    first, second, third, fourth = (record for record in lines.records if record.name.endswith("masked"))
    assert first.getMessage() == "*** of 5%"
    assert second.getMessage() == "50% of ***"
    assert (third.getMessage(), third.stack) == ("failed\n    at *** (x.js:1)", "    at *** (x.js:1)")
    assert fourth.exc_info is None
    assert fourth.getMessage() == f"failed\n{fourth.stack}"
    assert fourth.stack.endswith("ValueError: no ***")

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError

    handler = Broken()
    logging.getLogger("wsthreads.script.masked").addHandler(handler)
    try:
        log.warning("%s", KEY)
    finally:
        logging.getLogger("wsthreads.script.masked").removeHandler(handler)
    assert "***" in (complaint := capsys.readouterr().err)
    assert KEY not in complaint


@contextmanager
def all_logs() -> Iterator[LogLines]:
    lines, logger = LogLines(), logging.getLogger("wsthreads")
    logger.addHandler(lines)
    try:
        with script_log():
            yield lines
    finally:
        logger.removeHandler(lines)


FROM_THE_SCRIPT = [
    "export const tickRate = env.KEY; export function onTick() {}",
    "throw new Error(env.KEY)",
    "await null; throw new Error(env.KEY)",
    "await import('./x' + env.KEY)",
    "export function onHandshake() { return env.KEY }",
    "export function onHandshake() { return { close: env.KEY } }",
    "export function onHandshake() { return { key: env.KEY } }",
    "export function onHandshake() { return { close: 4000, [env.KEY]: 1 } }",
    "export function onHandshake() { return [Symbol(env.KEY)] }",
    "export function onHandshake() { return Symbol(env.KEY) }",
    "export function onOpen() { setTimeout(() => {}, env.KEY) }",
    "export function onOpen() { console.log(env.KEY) }",
    "export function onOpen() { console.log('%s', env.KEY.slice(2), { key: [env.KEY] }) }",
    "export function onOpen() { console.table([env.KEY]); console.count(env.KEY) }",
    "export function onOpen(session) { session.room(env.KEY.repeat(40)) }",
    "export function onOpen(session) { session.send('x', { latest: env.KEY.repeat(100) }) }",
    "export function onOpen() { const error = new Error('x'); error.stack = env.KEY; throw error }",
    "export function onOpen() { JSON.parse(env.KEY.slice(3)) }",
    "export function onOpen() { throw new Error(('x'.repeat(3) + env.KEY).repeat(2500)) }",
    "export const onOpen = { [env.KEY]() { null.x } }[env.KEY]",
    "export const onOpen = { [env.KEY]() { for (;;); } }[env.KEY]",
    "export function onOpen() { Promise.reject(new Error(env.KEY)) }",
    "export function onOpen(session) { session.room(env.KEY).join() }\n"
    "export const tickRate = 20; export function onTick(room) { throw new Error('t') }",
    "export function onOpen(session) { session.setAttribute('a', env.KEY); session.setAttribute(env.KEY, [env.KEY]) }",
    "export function onOpen() { rows(env.KEY).next() }",
]


@pytest.mark.parametrize("source", FROM_THE_SCRIPT)
def test_no_value_leaves_a_script(tmp_path: Path, source: str) -> None:
    (tmp_path / "store.py").write_text(
        "def rows(url):\n    try:\n        yield 1\n        yield 2\n    finally:\n"
        "        raise ConnectionError(f'cannot close {url}')\n"
    )
    imports = 'import { env } from "wsthreads"; import { rows } from "./store.py";\n'
    (tmp_path / "script.js").write_text(imports + source)
    told: list[str] = []
    with all_logs() as log:
        try:
            with play(tmp_path / "script.js", env={"KEY": KEY}, raise_errors=False, script_timeout_s=0.5) as game:
                handler = game.app.endpoints[0].handler
                handler.on_failure = told.append
                client = game.connect()
                game.settle()
                if "onTick" in source:
                    game.advance(1)
                attributes = handler.attributes(client.session) if "setAttribute" in source else {}
                told += [handler.shown(f"{name}: {value}") for name, value in attributes.items()]
        except Exception as error:
            told.append(f"{error} {error!r}")
        if "rows" in source:  # at the latest when the script has ended, in a thread of its own
            log.wait_for("raised an error when it was ended")
    texts = "\n".join((*log.texts(), *(getattr(record, "stack", None) or "" for record in log.records), *told))
    assert "***" in texts, texts
    assert not any(KEY[at : at + 13] in texts for at in range(len(KEY) - 12)), texts


def test_the_page_shows_no_value(tmp_path: Path) -> None:
    (tmp_path / "script.js").write_text(
        """import { env } from "wsthreads";
        export function onOpen(session) {
          session.setAttribute("url", `see ${env.KEY}`);
          session.setAttribute(`${env.KEY}`, { list: [env.KEY], password: "hidden" });
          const room = session.room("a");
          room.join({ presence: { url: env.KEY } });
          room.setAttribute("url", `see ${env.KEY}`);
          session.send(env.KEY);
        }"""
    )
    with play(tmp_path / "script.js", env={"KEY": KEY}) as game:
        client = game.connect()
        game.settle()
        (endpoint,) = game.app.endpoints
        watch = Watch(1, "session", endpoint=endpoint.path, room="a", session_id=client.session.id)
        shown = {name: LISTS[name]([endpoint], watch) for name in ("session", "room", "room_state")}
        assert client.take() == [KEY]
    attributes = shown["session"]["attributes"]
    assert attributes.pop("url") == "see ***"
    assert attributes == {"***": "{'list': ['***'], 'password': hidden (6 characters)}"}
    assert shown["room"]["rows"][0]["presence"] == '{"url": "***"}'
    assert shown["room_state"]["attributes"]["rows"] == [{"key": "url", "value": '"see ***"'}]


def test_an_error_of_attributes_that_cannot_move_shows_no_value(tmp_path: Path) -> None:
    (tmp_path / "script.js").write_text(
        """import { env } from "wsthreads";
        export function onOpen(session) {
          session.setAttribute(env.KEY, () => 1);
        }"""
    )
    with play(tmp_path / "script.js", env={"KEY": KEY}, raise_errors=False) as game:
        client = game.connect()
        game.settle()
        with pytest.raises(UsageError, match=r"\*\*\*") as error:
            game.app.endpoints[0].handler.export_attributes(client.session, None)
    assert KEY not in f"{error.value} {error.value!r}"
