"""Every row of the JavaScript API, with right and wrong arguments."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.javascript_fakes import FakeSession, Script, running, script_log
from tests.programs import DEADLINE_S, EXAMPLES

#: Runs each message as code over the session, and answers with the result or the error.
EVALUATE = """
export function onMessage(session, message) {
  let answer;
  try {
    answer = JSON.stringify({ value: new Function("session", message)(session) });
  } catch (error) {
    answer = JSON.stringify({ error: error.constructor.name, message: error.message });
  }
  session.send(answer);
}
"""


#: Frames of a stack.
AT = "    at …"


class Console:
    """Evaluates code in a script with a session."""

    def __init__(self, script: Any, session: FakeSession) -> None:
        self.script, self.session = script, session

    def __call__(self, code: str) -> Any:
        answer = json.loads(self.script.answer(self.session, code))
        assert "error" not in answer, answer
        return answer.get("value")

    def error(self, code: str) -> tuple[str, str]:
        answer = json.loads(self.script.answer(self.session, code))
        return answer["error"], answer["message"]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running(tmp_path_factory.mktemp("api"), EVALUATE) as script:
        yield script


@pytest.fixture
def js(script: Any) -> Any:
    session = FakeSession("user=al%20ice&user=bob&empty=&__proto__=x", HTTP_X_CUSTOM="yes", HTTP_HOST="h")
    script.open(session)
    yield Console(script, session)
    script.close(session)


def test_the_chat_room_of_the_specification_runs_unchanged(tmp_path: Path) -> None:
    hub: dict[str, Any] = {}
    with running(tmp_path, (EXAMPLES / "chat.js").read_text()) as script:
        alice, bob = FakeSession("user=alice", hub), FakeSession("", hub)
        script.open(alice)
        script.open(bob)
        bob.wait_for_messages(1)
        script.message(bob, "hello \U0001f600")
        script.close(bob)
        got = [json.loads(text) for text in alice.wait_for_messages(4)]
        assert got[0] == {"type": "welcome", "id": alice.id}
        assert got[1] == {"type": "join", "user": "anonymous"}
        timestamp = got[2].pop("timestamp")
        assert isinstance(timestamp, int)
        assert got[2] == {"type": "message", "from": "anonymous", "text": "hello \U0001f600"}
        assert got[3] == {"type": "leave", "user": "anonymous"}
        assert [json.loads(text) for text in bob.sent] == [{"type": "welcome", "id": bob.id}]


def test_the_id_is_the_sessions_and_read_only(js: Console) -> None:
    assert js("return session.id") == js.session.id
    assert js.error("'use strict'; session.id = 'other'")[0] == "TypeError"
    assert js.error("'use strict'; session.send = null")[0] == "TypeError"


def test_a_session_is_the_same_object_in_every_call(js: Console) -> None:
    js("globalThis.kept = session")
    assert js("return globalThis.kept === session") is True


@pytest.mark.parametrize("text", ["", "plain", "\0", "\U0001f600", "ünï", "\ud800 alone", "x" * (1 << 20)])
def test_send_carries_text_as_it_is(js: Console, text: str) -> None:
    js.script.message(js.session, f"return session.send({json.dumps(text)})")
    assert js.session.wait_for_messages(2) == [text, '{"value":true}']


#: Any, surrogates too, around something long: it crosses in another way where there is no C module.
TEXTS = st.builds(
    "{}{}{}".format,
    st.text(st.characters(exclude_categories=())),
    st.sampled_from(["", "x" * 1020, "é" * 1020, "€" * 1020, "\U0001f600" * 510]),
    st.text(st.characters(exclude_categories=())),
)


@pytest.fixture(scope="module", params=["0", "1"], ids=["with C", "without C"])
def echo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = """
    export function onOpen(session) { session.room("r").join(); }
    export function onMessage(session, message) {
      session.send(message);
      session.room("r").broadcast(message);
      session.send(String(message.length));
    }
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSTHREADS_PURE_PYTHON", request.param)
        with running(tmp_path_factory.mktemp("echo"), source) as script:
            yield script, script.open()


@given(TEXTS)
@example("x" * 1023)
@example("x" * 1024)
@example("\0\u2028\u2029\"\\\ufeff\U0001f600\udc00\ud800" * 200)
def test_any_text_crosses_as_it_is(echo: tuple[Script, FakeSession], text: str) -> None:
    script, session = echo
    units = text.encode("utf-16-le", "surrogatepass")
    session.sent.clear()
    script.message(session, text)
    text = units.decode("utf-16-le", "surrogatepass")  # in JavaScript, two surrogates may be one character
    assert session.wait_for_messages(3) == [text, text, str(len(units) // 2)]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("new Uint8Array([0, 127, 128, 255])", b"\x00\x7f\x80\xff"),
        ("new Uint8Array([1, 2, 3, 4]).subarray(1, 3)", b"\x02\x03"),
        ("new Uint8Array([9, 8]).buffer", b"\x09\x08"),
        ("new Uint16Array([258])", b"\x02\x01"),
        ("new DataView(new Uint8Array([7, 6, 5]).buffer, 1)", b"\x06\x05"),
        ("new Uint8Array(300000).fill(200)", b"\xc8" * 300000),
        ("new ArrayBuffer(0)", b""),
    ],
)
def test_send_carries_buffers_as_binary(js: Console, code: str, expected: bytes) -> None:
    js.script.message(js.session, f"return session.send({code})")
    assert js.session.wait_for_messages(2)[0] == expected


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("", "undefined"),
        ("null", "null"),
        ("5", "a number"),
        ("{}", "an Object"),
        ("[1]", "an Array"),
        ("Symbol()", "a symbol"),
        ("Object.create(null)", "an object"),
        ("new (class Ünit {})()", "a Ünit"),
        ("new Proxy({}, { get() { throw 1 } })", "an object"),
    ],
)
def test_send_of_anything_else_is_a_type_error_that_names_it(js: Console, code: str, kind: str) -> None:
    for call in ("session.send", "session.room('r').broadcast", "session.room('r').broadcastExcept"):
        error, message = js.error(f"{call}({code})")
        assert error == "TypeError"
        assert f"not {kind};" in message


def test_a_binary_message_arrives_as_an_array_buffer(tmp_path: Path) -> None:
    source = """export function onMessage(session, message) {
      session.send(`${message instanceof ArrayBuffer} ${message.byteLength}`);
      session.send(message);
    }"""
    data = bytes(range(256)) * 5
    with running(tmp_path, source) as script:
        session = script.open()
        script.message(session, data)
        assert session.wait_for_messages(2) == ["true 1280", data]


def test_close_has_a_default_code_and_reason(js: Console) -> None:
    js.script.message(js.session, "session.close(); globalThis.open = session.isOpen(); globalThis.kept = session")
    assert js.session.wait_for_close() == (1000, "")
    other = FakeSession()
    js.script.open(other)
    assert json.loads(js.script.answer(other, "return [globalThis.open, globalThis.kept.send('x')]")) == {
        "value": [False, False]
    }
    js.script.close(other)


def test_close_takes_a_code_and_a_reason(js: Console) -> None:
    assert js("return session.isOpen()") is True
    js.script.message(js.session, "session.close(4001, 'gründlich')")
    assert js.session.wait_for_close() == (4001, "gründlich")


@pytest.mark.parametrize(
    ("arguments", "error", "part"),
    [
        ("1005", "RangeError", "1005"),
        ("999", "RangeError", "999"),
        ("5000", "RangeError", "4999"),
        ("1000.5", "TypeError", "1000.5"),
        ("NaN", "TypeError", "NaN"),
        ("'1000'", "TypeError", '"1000"'),
        ("null", "TypeError", "null"),
        ("1000, 5", "TypeError", "a number"),
        ("1000, 'ü'.repeat(62)", "RangeError", "123"),
    ],
)
def test_close_refuses_what_may_not_be_sent(js: Console, arguments: str, error: str, part: str) -> None:
    kind, message = js.error(f"session.close({arguments})")
    assert kind == error
    assert part in message
    assert js.session.is_open()


def test_the_handshake_can_be_looked_up(js: Console) -> None:
    assert js("return [session.getParameter('user'), session.getParameter('empty')]") == ["al ice", ""]
    assert js("return session.getParameter('missing')") is None
    assert js("return session.getParameter('toString')") is None
    assert js("return session.getParameter('__proto__')") == "x"
    assert js("return [session.getHeader('X-Custom'), session.getHeader('x-cUSTOM')]") == ["yes", "yes"]
    assert js("return session.getHeader('constructor')") is None
    assert js("return session.getRequestPath()") == "/ws/test"
    assert js("return session.getRemoteAddr()") == "192.0.2.7"


def test_attributes_hold_any_value_by_reference(js: Console) -> None:
    js("globalThis.map = new Map([[1, 2]]); session.setAttribute('map', map); map.set(3, 4)")
    assert js("return session.getAttribute('map') === map && session.getAttribute('map').size") == 2
    assert js("return session.getAttribute('missing')") is None
    assert js("session.setAttribute('undefined', undefined); return session.getAttribute('undefined')") is None


def test_get_attributes_is_a_plain_copy(js: Console) -> None:
    assert js("return [session.getAttribute('a'), Object.entries(session.getAttributes())]") == [None, []]
    js("session.setAttribute('a', 1); session.setAttribute('__proto__', 2); session.setAttribute('toString', 3)")
    assert js("return Object.entries(session.getAttributes())") == [["a", 1], ["__proto__", 2], ["toString", 3]]
    assert js("return Object.getPrototypeOf(session.getAttributes()) === Object.prototype") is True
    js("session.getAttributes().a = 5")
    assert js("return session.getAttribute('a')") == 1


def test_rooms_are_joined_and_left(js: Console) -> None:
    assert js("return [session.room('a').getName(), session.rooms()]") == ["a", []]
    assert js("const a = session.room('a'); a.join(); a.join(); return [a.members(), session.rooms()]") == [1, ["a"]]
    assert js("session.room('b').join(); return session.rooms()") == ["a", "b"]
    assert js("session.room('a').leave(); session.room('a').leave(); return session.rooms()") == ["b"]


def test_broadcasts_reach_members_and_except_spares_the_sender(js: Console) -> None:
    other = FakeSession(hub=js.session.hub)
    js.script.open(other)
    js.script.answer(other, "session.room('r').join()")
    js("session.room('r').join()")
    js.script.message(js.session, "session.room('r').broadcast('all'); session.room('r').broadcastExcept('others')")
    js.script.message(js.session, "session.room('r').broadcast(new Uint8Array([255]))")
    assert js.session.wait_for_messages(5)[1:] == ["all", "{}", b"\xff", "{}"]
    assert other.sent[1:] == ["all", "others", b"\xff"]
    js.script.close(other)


@pytest.mark.parametrize(
    ("name", "error", "part"),
    [
        ("''", "RangeError", "256"),
        ("'x'.repeat(257)", "RangeError", "not 257"),
        ("5", "TypeError", "a number"),
        ("undefined", "TypeError", "undefined"),
        ("['a']", "TypeError", "an Array"),
    ],
)
def test_a_bad_room_name_is_refused_by_value_and_limit(js: Console, name: str, error: str, part: str) -> None:
    kind, message = js.error(f"session.room({name})")
    assert kind == error
    assert part in message


def test_room_names_are_measured_in_characters(js: Console) -> None:
    assert js("return session.room('\U0001f600'.repeat(256)).getName().length") == 512


def test_an_error_in_python_is_an_ordinary_error_in_javascript(js: Console) -> None:
    js("for (const name of 'abc') session.room(name).join()")
    assert js.error("session.room('d').join()") == ("RangeError", "a session may be in 3 rooms")


def test_a_session_can_be_used_after_its_end(js: Console) -> None:
    ended = FakeSession()
    js.script.open(ended)
    js.script.answer(ended, "globalThis.ended = session; session.setAttribute('k', 'v'); session.room('r').join()")
    js.script.close(ended)
    code = """
      const room = ended.room("r");
      room.join(); room.leave(); room.broadcast("x"); room.broadcastExcept("x"); ended.close();
      return [ended.send("x"), ended.isOpen(), room.members(), ended.rooms(), ended.getAttribute("k"), ended.id];
    """
    assert js(code) == [False, False, 0, [], "v", ended.id]


def test_effects_are_immediate(tmp_path: Path) -> None:
    source = """export function onMessage(session) {
      session.send("before");
      while (session.room("test").members() === 0);
      session.send("after");
    }"""
    with running(tmp_path, source, script_timeout_s=DEADLINE_S) as script:
        session = script.open()
        script.message(session)
        assert session.wait_for_messages(1) == ["before"]
        session.room("test").join()
        assert session.wait_for_messages(2) == ["before", "after"]


def test_on_close_gets_code_and_reason_of_a_session_that_is_still_in_its_rooms(tmp_path: Path) -> None:
    source = """
    export function onOpen(session) { session.room("r").join(); }
    export function onClose(session, code, reason) {
      session.room("r").broadcastExcept(JSON.stringify([code, reason, session.isOpen(), session.rooms()]));
      session.send("too late");
    }"""
    with running(tmp_path, source) as script:
        witness = script.open()
        leaver = script.open(FakeSession(hub=witness.hub))
        script.close(leaver, 4000, "bye")
        assert witness.sent == ['[4000,"bye",false,["r"]]']
        assert leaver.sent == []


def test_nothing_of_the_host_is_visible_to_scripts(js: Console) -> None:
    names = js("return Reflect.ownKeys(globalThis).map(String)")
    for name in ("process", "require", "dukpy", "call_python", "module", "exports"):
        assert name not in names
        assert js(f"return typeof {name}") == "undefined"
    assert not [name for name in names if "dukpy" in name or "wsthreads" in name]


#: All that can be reached from the global object, a session, a room, an error and a module, by name, prototype, getter.
WALK = """
const seen = new Map(), texts = new Set(), waiting = [
  ["globalThis", globalThis], ["session", session], ["room", session.room("r")], ["error", new Error("x")],
  ["this", (function () { return this })()], ["sloppy", new Function("return this")()],
  ["generator", (function* () {})()], ["promise", (async () => {})()],
  ["arguments", (function () { return arguments })()],
];
while (waiting.length) {
  const [path, value] = waiting.pop();
  if (typeof value === "string") { texts.add(value); continue; }
  if (value === null || (typeof value !== "object" && typeof value !== "function") || seen.has(value)) continue;
  seen.set(value, path);
  if (typeof value === "function") texts.add(Function.prototype.toString.call(value));
  waiting.push([path + ".__proto__", Reflect.getPrototypeOf(value)]);
  for (const key of Reflect.ownKeys(value)) {
    const own = Reflect.getOwnPropertyDescriptor(value, key);
    for (const part of ["value", "get", "set"]) waiting.push([path + "." + String(key), own[part]]);
  }
}
return [[...seen.values()], [...texts]];
"""

#: What is global beside the standard's own objects, whose names begin with a capital letter.
GLOBALS = {
    "Infinity", "NaN", "atob", "btoa", "clearInterval", "clearTimeout", "console", "crypto", "decodeURI",
    "decodeURIComponent", "encodeURI", "encodeURIComponent", "escape", "eval", "globalThis", "isFinite", "isNaN",
    "parseFloat", "parseInt", "performance", "queueMicrotask", "setInterval", "setTimeout", "structuredClone",
    "undefined", "unescape",
}  # fmt: skip


def test_nothing_that_scripts_can_reach_leads_to_the_host(js: Console) -> None:
    paths, texts = js(WALK)
    assert len(paths) > 500
    names = {path.split(".")[1] for path in paths if path.startswith("globalThis.")}
    assert {name for name in names if not name[0].isupper()} <= GLOBALS | {"__proto__"}
    for path in paths:
        assert not any(word in path.lower() for word in ("python", "dukpy", "process", "environ", "wsthreads")), path
    for secret in (os.environ["PATH"], os.getcwd()):
        assert not any(secret in text for text in texts)


def test_the_console_writes_to_the_scripts_logger(js: Console) -> None:
    with script_log() as log:
        js("console.debug('d'); console.log('l'); console.info('i'); console.warn('w'); console.error('e')")
        assert [(record.levelname, record.getMessage()) for record in log.records] == [
            ("DEBUG", "d"), ("INFO", "l"), ("INFO", "i"), ("WARNING", "w"), ("ERROR", "e"),
        ]  # fmt: skip
        assert {record.name for record in log.records} == {"wsthreads.script.script.js"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", ""),
        ("'text', 'as it is'", "text as it is"),
        ("'100%', 5", "100% 5"),
        ("{ a: [1, 'x', null], b: undefined }", "{ a: [ 1, 'x', null ], b: undefined }"),
        ("10n, Symbol('s'), undefined, NaN, -0", "10n Symbol(s) undefined NaN -0"),
        ("new Map([['k', { a: 1 }]]), new Set([1])", "Map(1) { 'k' => { a: 1 } } Set(1) { 1 }"),
        ("function named() {}, () => 1", "[Function: named] [Function (anonymous)]"),
        ("[1, 2].map(String), new Uint8Array([1, 2])", "[ '1', '2' ] Uint8Array(2) [ 1, 2 ]"),
        ("new ArrayBuffer(3)", "ArrayBuffer { byteLength: 3 }"),
        ("/x/g, new Date(0), Promise.resolve()", "/x/g 1970-01-01T00:00:00.000Z Promise {}"),
        ("Object.create(null), class A {}", "[Object: null prototype] {} [class A]"),
        ("{ get boom() { throw 1 } }", "{ boom: [Getter] }"),
        ("{ toJSON() { throw 1 } }", "{ toJSON: [Function: toJSON] }"),
        ("[new Proxy({}, { ownKeys() { throw 1 }, getPrototypeOf() { throw 1 } })]", "[ [unreadable] ]"),
        ("(() => { const a = { n: 1 }; a.self = a; return a })()", "<ref *1> { n: 1, self: [Circular *1] }"),
        ("'%s is %d, %i, %j and %%', 'x', '4.5', 4.7, [1], 'rest'", "x is 4.5, 4, [1] and % rest"),
        ("'%s %s', 1", "1 %s"),
    ],
)  # fmt: skip
def test_the_console_shows_any_value(js: Console, code: str, expected: str) -> None:
    with script_log() as log:
        js(f"console.log({code})")
        assert log.texts() == [expected]


def test_the_console_shows_errors_with_their_stack(tmp_path: Path) -> None:
    source = """export function onOpen() {
      console.error("oops", new TypeError("bad", { cause: new Error("why") }));
    }"""
    with script_log() as log, running(tmp_path, source) as script:
        script.open()
        text = log.wait_for("oops")
        assert text.startswith("oops TypeError: bad\n    at onOpen (script.js:2:")
        assert "caused by Error: why\n    at onOpen (script.js:2:" in text


@pytest.mark.parametrize("method", ["debug", "log", "info", "warn", "error"])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("E('a'), 'behind'", ["Error: a behind", AT]),
        ("'before', E('a'), 'behind', { b: 1 }", ["before Error: a behind { b: 1 }", AT]),
        ("'%s, %s and %o', E('a'), 5, E('b'), 'rest'", ["Error: a, 5 and [Error: b] rest", AT, "Error: b", AT]),
        ("E('a'), E('b')", ["Error: a Error: b", AT, "Error: b", AT]),
        ("E('a', 'why'), 'behind'", ["Error: a behind", AT, 'caused by "why"']),
        ("E('a', E('why')), 'behind'", ["Error: a behind", AT, "caused by Error: why", AT]),
        ("{ e: E('a') }, [E('b')], 'behind'",
         ["{ e: [Error: a] } [ [Error: b] ] behind", "Error: a", AT, "Error: b", AT]),
        (
            "new AggregateError([E('a'), 'b'], 'many'), 'behind'",
            ["AggregateError: many behind", AT, "error 1 of 2: Error: a", AT, 'error 2 of 2: "b"'],
        ),
        ("Object.defineProperty(E('a'), 'cause', { get() { throw 1 } }), 'behind'", ["Error: a behind", AT]),
        ("Object.defineProperty(E('a'), 'message', { get() { throw 1 } }), 'behind'",
         ["an Error that cannot be read behind", AT]),
        ("(() => { const a = E('a'); a.cause = a; return a })(), 'behind'",
         ["Error: a behind", AT, "caused by [circular]"]),
        ("new Proxy(E('a'), {}), 'behind'", ["Error: a behind", AT]),
        ("new Proxy(E('a'), { get() { throw 1 }, getPrototypeOf() { throw 1 }, ownKeys() { throw 1 } }), 'behind'",
         ["[unreadable] behind"]),
        ("Object.defineProperty(E('a'), 'stack', { get() { throw 1 } }), 'behind'", ["Error: a behind"]),
        ("Object.setPrototypeOf({ name: 'Old', message: 'style' }, Error.prototype), 1", ["Old: style 1"]),
        ("E(''), 'behind'", ["Error behind", AT]),
    ],
)  # fmt: skip
def test_the_console_loses_nothing_around_errors(
    tmp_path: Path, method: str, arguments: str, expected: list[str]
) -> None:
    source = f"""const E = (message, cause) => new Error(message, cause === undefined ? {{}} : {{ cause }});
    export function onMessage() {{ console.{method}({arguments}); }}"""
    with script_log() as log, running(tmp_path, source) as script:
        script.message(script.open())
        script.handler.settle(DEADLINE_S)
        (text,) = log.texts()
    lines = [AT if line.startswith("    at ") else line for line in text.split("\n")]
    assert [line for line, before in zip(lines, ["", *lines], strict=False) if (line, before) != (AT, AT)] == expected


@pytest.mark.parametrize(
    "value",
    [
        "'x'.repeat(1 << 24)", "new Error('x'.repeat(1 << 24))", "2n ** 500000n", "Symbol('x'.repeat(1 << 24))",
        "{ ['k'.repeat(1 << 24)]: 1 }", "new Map(Array.from({ length: 2e4 }, (_, i) => [i, 'x'.repeat(1000)]))",
        "new Float64Array(1e6)", "new Set(Array.from({ length: 1e5 }, (_, i) => i))",
        "Array.from({ length: 7 }).reduce((inner) => new Array(100).fill(inner), 'leaf')",
        "Object.defineProperty(function () {}, 'name', { value: 'x'.repeat(1 << 24) })",
        "Object.assign(new Error('many'), { errors: new Array(1e6).fill(new Error('x'.repeat(30000))) })",
        "Array.from({ length: 1000 }).reduce((cause) => new Error('x', { cause }), undefined)",
        "...new Array(1e4).fill('text '.repeat(1000))", "/x/, ...new Array(1000).fill(new Error('y'.repeat(5000)))",
    ],
)  # fmt: skip
def test_no_value_makes_a_long_line(tmp_path: Path, value: str) -> None:
    source = f"export function onMessage(session) {{ console.log('before', {value}); session.send('ok'); }}"
    with script_log() as log, running(tmp_path, source, script_timeout_s=DEADLINE_S) as script:
        assert script.answer(script.open()) == "ok"
        (text,) = log.texts()
    assert text.startswith("before ")
    assert len(text) < 300_000


def test_the_console_bounds_what_it_shows(js: Console) -> None:
    with script_log() as log:
        js("console.log(new Array(1e6).fill('x'.repeat(1000)))")
        assert len(log.texts()[0]) < 25000
