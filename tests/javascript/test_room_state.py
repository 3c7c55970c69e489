"""What scripts do with rooms that remember: attributes, history, limits, latest, posts, ticks. In one process."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.javascript.test_engine import without_engine  # noqa: F401
from tests.javascript_fakes import SHORT_S, script_log
from tests.programs import DEADLINE_S, wait_until
from wsthreads.rooms.attributes import Attributes
from wsthreads.testing import Play, play

#: A message is code: the body of a function of `session` and `room`, whose value is sent back.
SOURCE = """import { room as anyRoom, session as peer, sessions, user } from "wsthreads";
const AsyncFunction = (async () => {}).constructor;
export async function onMessage(session, message) {
  let answer;
  try {
    answer = { result: await AsyncFunction("session", "room", "anyRoom", "peer", "user", message)(
      session, session.room("r"), anyRoom, peer, user) };
  } catch (error) {
    answer = { error: `${error.name}: ${error.message}` };
  }
  session.send(JSON.stringify(answer));
}
"""
POSTS = """
export async function onPost(room, value, from) {
  if (value === "throw") throw new Error("thrown");
  if (value === "wait") await null;
  room.broadcast(JSON.stringify({ value, from, fence: room.fencingNumber, isOwner: room.isOwner() }));
}
"""


def playing(tmp_path: Path, more: str = "", **settings: Any) -> Play:
    script = tmp_path / "state.js"
    script.write_text(SOURCE + more)
    return play(script, **settings)


@pytest.fixture(params=["engine", "no engine"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "engine":
        return {}
    request.getfixturevalue("without_engine")
    return {"scripts_without_deadline": True}


def ask(client: Any, code: str) -> Any:
    """The value of some code."""
    answer = _answer(client, code)
    assert "error" not in answer, answer
    return answer.get("result")


def error_of(client: Any, code: str) -> str:
    error: str = _answer(client, code)["error"]
    return error


def _answer(client: Any, code: str) -> Any:
    client.take()
    client.send(code)
    return next(json.loads(text) for text in client.take() if text.startswith(('{"result', '{"error', "{}")))


# Attributes


def test_attributes_are_json_values_that_all_handles_share(tmp_path: Path, settings: dict[str, Any]) -> None:
    with playing(tmp_path, **settings) as chat:
        ann, bob = chat.connect(), chat.connect()
        assert ask(ann, "room.join(); return [room.getAttribute('k'), room.getAttributes()]") == [None, {}]
        for value in ("{ a: [1, 2.5, null, 'ü 😀'] }", "null", "'x'", "0", "{ error: 'TypeError', message: 'm' }"):
            expected = ask(bob, f"anyRoom('r').setAttribute('k', {value}); return {value}")
            assert ask(ann, "return room.getAttribute('k')") == expected
            assert chat.room("r").get_attribute("k") == expected
        ask(ann, "room.setAttribute('__proto__', 1); room.setAttribute('\\ud83d', '\\ud83d')")
        assert ask(ann, "return Object.keys(room.getAttributes())") == ["k", "__proto__", "\ud83d"]
        assert ask(bob, "return ['k', 'k', 'k'].map((k) => room.deleteAttribute(k))") == [True, False, False]


def test_an_attribute_is_a_copy(tmp_path: Path) -> None:
    code = """
      const value = { n: 1 };
      room.setAttribute("k", value);
      value.n = 2;
      room.getAttribute("k").n = 3;
      room.getAttributes().k.n = 4;
      return room.getAttribute("k");
    """
    with playing(tmp_path) as chat:
        assert ask(chat.connect(), code) == {"n": 1}


def test_an_update_sees_the_value_and_returns_the_new_one(tmp_path: Path, settings: dict[str, Any]) -> None:
    with playing(tmp_path, **settings) as chat:
        ann = chat.connect()
        assert ask(ann, "return room.updateAttribute('n', (n) => [n === undefined])") == [True]
        assert ask(ann, "return room.updateAttribute('n', (n) => { n.push(1); return n; })") == [True, 1]
        chat.room("r").set_attribute("n", 5)
        assert ask(ann, "for (let i = 0; i < 100; i++) room.updateAttribute('n', (n) => n + 1)") is None
        assert chat.room("r").get_attribute("n") == 105


def test_an_update_is_tried_again_if_another_one_was_faster(tmp_path: Path, settings: dict[str, Any]) -> None:
    code = """
      const seen = [];
      const result = room.updateAttribute("n", (n) => {
        seen.push(n === undefined ? "none" : n);
        return (n ?? 0) + 1;
      });
      return [...seen, result, room.getAttribute("n")];
    """
    with playing(tmp_path, **settings) as chat:
        attributes: Any = chat.app.endpoints[0].attributes
        swap, others = attributes.swap, [5, 10, None]

        def overtaken(name: str, key: str, *values: Any) -> Any:
            if others:
                other = others.pop(0)
                attributes.delete(name, key) if other is None else attributes.put(name, key, f"{other}")
            return swap(name, key, *values)

        attributes.swap = overtaken
        assert ask(chat.connect(), code) == ["none", 5, 10, "none", 1, 1]


def test_the_function_of_an_update_does_not_set_the_same_attribute(tmp_path: Path) -> None:
    with playing(tmp_path, script_timeout_s=SHORT_S, raise_errors=False) as chat:
        ann = chat.connect()
        for code in ("setAttribute('n', 1)", "deleteAttribute('n')", "updateAttribute('n', () => 1)"):
            error = error_of(ann, f"room.updateAttribute('n', (n) => {{ anyRoom('r').{code}; return 2; }})")
            assert error == (
                'Error: the function of an update must return the new value of "n", and must not set it itself'
            ), code
        others = "room.setAttribute('m', 1); anyRoom('other').setAttribute('n', 1);"
        assert ask(ann, f"return room.updateAttribute('n', () => {{ {others} return 3; }})") == 3
        bob = chat.connect()
        bob.send("room.updateAttribute('n', () => { for (;;); })")
        assert bob.closed is not None, "its deadline"
        assert ask(ann, "return room.updateAttribute('n', (n) => n + 1)") == 4, "no finally has run"


def test_what_an_update_throws_reaches_its_caller_and_changes_nothing(tmp_path: Path) -> None:
    with playing(tmp_path) as chat:
        ann = chat.connect()
        chat.room("r").set_attribute("n", 7)
        assert error_of(ann, "room.updateAttribute('n', () => { throw new RangeError('mine') })") == "RangeError: mine"
        assert "must return the new value, not a promise" in error_of(ann, "room.updateAttribute('n', async () => 1)")
        assert "must be JSON, not undefined" in error_of(ann, "room.updateAttribute('n', () => {})")
        assert "takes a function, not a number" in error_of(ann, "room.updateAttribute('n', 1)")
        assert chat.room("r").get_attribute("n") == 7


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("room.setAttribute('k', NaN)", "TypeError: an attribute of a room must be JSON, not NaN"),
        ("room.setAttribute('k', [1, NaN])", "TypeError: an attribute of a room must be JSON, not NaN at [1]"),
        ("room.setAttribute('k', new Number(NaN))", "TypeError: an attribute of a room must be JSON, not NaN"),
        (
            "const o = { x: [{}, { y: null }] }; room.setAttribute('k', { o, p: o, 'a b': [o, { z: -1 / 0 }, NaN] })",
            """TypeError: an attribute of a room must be JSON, not -Infinity at ["a b"][1]["z"]""",
        ),
        (
            "room.updateAttribute('k', () => ({ get a() { return { toJSON: () => [new Number(Infinity)] } } }))",
            """TypeError: an attribute of a room must be JSON, not Infinity at ["a"][0]""",
        ),
        (
            "room.setAttribute('k', { ['x'.repeat(1e5)]: NaN })",
            f"""TypeError: an attribute of a room must be JSON, not NaN at ["{"x" * 40}"]""",
        ),
        ("room.setAttribute('k', () => 1)", "TypeError: an attribute of a room must be JSON, not [function"),
        ("room.setAttribute('k', 1n)", "TypeError: an attribute of a room must be JSON, not 1n"),
        ("room.setAttribute('k')", "TypeError: an attribute of a room must be JSON, not undefined"),
        ("const a = []; a.push(a); room.setAttribute('k', a)", "TypeError: an attribute of a room must be JSON, not"),
        ("room.setAttribute('k', { toJSON() { throw 1; } })", "TypeError: an attribute of a room must be JSON, not"),
        ("room.setAttribute('k', 'x'.repeat(65536))", "max_room_bytes"),
        ("room.updateAttribute('k', () => 'x'.repeat(65536))", "max_room_bytes"),
        ("let v = 1; for (let i = 0; i < 70; i++) v = [v]; room.setAttribute('k', v)", "inside each other, not 70"),
        ("room.setAttribute('', 1)", "RangeError: the key of an attribute has 1 to 256 characters, not 0"),
        (
            "room.setAttribute('k'.repeat(257), 1)",
            "RangeError: the key of an attribute has 1 to 256 characters, not 257",
        ),
        (
            "room.setAttribute('😀'.repeat(257), 1)",
            "RangeError: the key of an attribute has 1 to 256 characters, not 257",
        ),
        (
            "room.setAttribute('😀'.repeat(2000), 1)",
            "RangeError: the key of an attribute has 1 to 256 characters, not 2000 or more",
        ),
        (
            "room.broadcast('m', { latest: '😀'.repeat(257) })",
            "RangeError: the key of latest has 1 to 256 characters, not 257",
        ),
        ("anyRoom('😀'.repeat(257))", "RangeError: a room name has 1 to 256 characters, not 257"),
        ("user('😀'.repeat(300))", "RangeError: the name of a user has 1 to 256 characters, not 300"),
        ("room.setAttribute(7, 1)", "TypeError: the key of an attribute is a string, not a number"),
        ("room.getAttribute()", "TypeError: the key of an attribute is a string, not undefined"),
        ("room.deleteAttribute(null)", "TypeError: the key of an attribute is a string, not null"),
        ("room.updateAttribute(undefined, (x) => 1)", "TypeError: the key of an attribute is a string, not undefined"),
    ],
)
def test_a_wrong_attribute_is_one_clear_error_and_nothing_has_happened(tmp_path: Path, code: str, error: str) -> None:
    with playing(tmp_path) as chat:
        ann = chat.connect()
        message = error_of(ann, code)
        assert error in message
        assert len(message) < 300
        assert ask(ann, "return room.getAttributes()") == {}


def test_what_is_null_is_json(tmp_path: Path, settings: dict[str, Any]) -> None:
    value = "{ a: null, b: 'null', c: [null, undefined, new Date(NaN), new Number(5), -0], d: { e: 1e308 }, f: void 0 }"
    with playing(tmp_path, **settings) as chat:
        ann = chat.connect()
        found = {"a": None, "b": "null", "c": [None, None, None, 5, 0], "d": {"e": 1e308}}
        assert ask(ann, f"room.setAttribute('k', {value}); return room.getAttribute('k')") == found
        assert ask(ann, "room.setAttribute('k', null); return room.getAttributes()") == {"k": None}
        assert ask(ann, "room.setAttribute('k', 'null'); return room.getAttributes()") == {"k": "null"}


# Handles


@pytest.mark.parametrize("handle", ["room", "anyRoom('r')", "session", "user('ann')", "peer(session.id)", "owned"])
@pytest.mark.parametrize("values", ["", "5, ''", "null, '\\0user:ann'", "session.id, {}", "{ id: 5, told: {} }"])
def test_a_script_makes_no_handles_by_their_constructors(tmp_path: Path, handle: str, values: str) -> None:
    """Their names would not be checked."""
    more = "export const tickRate = 20; let owned; export function onTick(room) { globalThis.owned ??= room; }"
    with playing(tmp_path, more) as chat:
        ann = chat.connect()
        ask(ann, "room.join()")
        chat.advance(0.2)
        name = ask(ann, f"return Object.getPrototypeOf({handle}).constructor.name")
        for make in (
            f"new ({handle}).constructor({values})",
            f"new (Object.getPrototypeOf(Object.getPrototypeOf({handle})).constructor)({values}).getName()",
            f"new (class extends ({handle}).constructor {{}})({values})",
            f"Reflect.construct(({handle}).constructor, [{values}], Object)",
        ):
            assert error_of(ann, make).startswith("TypeError: "), make
        assert f"{name} has no constructor" in error_of(ann, f"new ({handle}).constructor({values})")
        assert ask(ann, f"return ({handle}) instanceof ({handle}).constructor")
        assert chat.errors == []


# History, and options of join


def test_the_history_has_text_and_bytes_in_their_order(tmp_path: Path, settings: dict[str, Any]) -> None:
    show = """.map((message) => typeof message === "string" ? message
      : [Object.prototype.toString.call(message), ...new Uint8Array(message)])"""
    with playing(tmp_path, history_messages=10, **settings) as chat:
        ann = chat.connect()
        ask(ann, "room.broadcast('one'); room.broadcast(new Uint8Array([0, 255])); room.broadcast(new ArrayBuffer(0))")
        ask(ann, "room.broadcast('not kept', { keep: false }); anyRoom('r').broadcast('ü 😀', { keep: true })")
        expected = ["one", ["[object ArrayBuffer]", 0, 255], ["[object ArrayBuffer]"], "ü 😀"]
        assert ask(ann, f"return room.history(10){show}") == expected
        assert ask(ann, f"return anyRoom('r').history(2){show}") == expected[2:]
        assert ask(ann, "return room.history(0)") == []
        assert ask(ann, "return anyRoom('other').history(10)") == []


def test_a_joiner_gets_the_history_and_what_is_said_since_a_position(tmp_path: Path) -> None:
    with playing(tmp_path, history_messages=10) as chat:
        ann, bob, eve = chat.connect(), chat.connect(), chat.connect()
        position = ask(ann, "room.broadcast('one'); room.broadcast('two'); return room.position()")
        ask(ann, "room.broadcast('three')")
        bob.send("return room.join({ history: 2 })")
        assert bob.take() == ["two", "three", '{"result":{"joined":true,"complete":true}}']
        eve.send(f"return room.join({{ since: {json.dumps(position)}, history: 10 }})")
        assert eve.take() == ["three", '{"result":{"joined":true,"complete":true}}']
        ann.send("return room.join({ since: 'of another log', history: 1 })")
        assert ann.take() == ["three", '{"result":{"joined":true,"complete":false}}']
        assert ask(ann, "return room.join({ since: null, history: null, maxMembers: null })") == {
            "joined": True, "complete": True,
        }  # fmt: skip


def test_a_full_room_is_not_joined(tmp_path: Path) -> None:
    with playing(tmp_path) as chat:
        clients = [chat.connect() for _ in range(4)]
        joined = [ask(client, "return room.join({ maxMembers: 2, presence: 1 })") for client in clients]
        assert joined == [{"joined": True, "complete": True}] * 2 + [{"joined": False, "complete": False}] * 2
        assert ask(clients[0], "return room.members()") == 2
        assert ask(clients[3], "return session.rooms()") == []
        ask(clients[0], "room.leave()")
        assert ask(clients[3], "return room.join({ maxMembers: 2 }).joined") is True


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("room.join({ history: NaN })", "RangeError: history must be a whole number from 0 to 10, not NaN"),
        ("room.join({ history: Infinity })", "not Infinity"),
        ("room.join({ history: 1.5 })", "RangeError: history must be a whole number from 0 to 10, not 1.5"),
        ("room.join({ history: -1 })", "RangeError: history must be a whole number from 0 to 10, not -1"),
        ("room.join({ history: 1e9 })", "RangeError: history must be a whole number from 0 to 10, not 1000000000"),
        ("room.join({ history: 1e300 })", "1e+300"),
        ("room.join({ history: '5' })", "TypeError: history must be a whole number from 0 to 10, not "),
        ("room.join({ history: true })", "TypeError: history must be a whole number from 0 to 10, not true"),
        ("room.join({ history: 11 })", "10"),
        ("room.join({ since: 5 })", "TypeError: since must be a string that room.position() has returned, not 5"),
        ("room.join({ maxMembers: NaN })", "RangeError: maxMembers must be a whole number from 1 to 1000000, not NaN"),
        ("room.join({ maxMembers: 0 })", "RangeError: maxMembers must be a whole number from 1 to 1000000, not 0"),
        ("room.join({ maxMembers: -4 })", "-4"),
        ("room.join({ maxMembers: 2.5 })", "RangeError: maxMembers must be a whole number from 1 to 1000000, not 2.5"),
        ("room.join({ maxMembers: 1e7 })", "10000000"),
        ("room.join({ maxMembers: {} })", "TypeError: maxMembers must be a whole number"),
        ("room.join({ max_members: 4 })", "presence, history, since and maxMembers, not max_members"),
        ("room.join({ get history() { throw new Error('getter') } })", "Error: getter"),
        ("room.join(new Proxy({}, { ownKeys() { throw new Error('trap') } }))", "Error: trap"),
        ("room.history(NaN)", "RangeError: history must be a whole number from 0 to 10, not NaN"),
        ("room.history()", "TypeError: history must be a whole number from 0 to 10, not undefined"),
        ("room.history(11)", "RangeError: history must be a whole number from 0 to 10, not 11"),
        ("room.broadcast('x', { keep: 0 })", "TypeError: keep must be true or false, not 0"),
        ("room.broadcast('x', { kept: false })", "room.broadcast takes the options keep and latest, not kept"),
        ("room.broadcast('x', 'latest')", "room.broadcast takes options such as { keep: … }, not a string"),
        ("room.broadcast('x', { latest: '' })", "RangeError: the key of latest has 1 to 256 characters, not 0"),
        ("room.broadcast('x', { latest: 'k'.repeat(300) })", "has 1 to 256 characters, not 300"),
        ("session.send('x', { latest: 7 })", "TypeError: the key of latest is a string, not a number"),
        ("session.send('x', { keep: true })", "session.send takes the option latest, not keep"),
        ("user('ann').send('x', { latest: '' })", "RangeError: the key of latest has 1 to 256 characters, not 0"),
        ("peer('1').send('x', { last: '' })", "session.send takes the option latest, not last"),
    ],
)
def test_wrong_options_are_one_clear_error_and_nothing_has_happened(tmp_path: Path, code: str, error: str) -> None:
    with playing(tmp_path, history_messages=10) as chat:
        ann = chat.connect()
        ask(chat.connect(), "room.join()")
        message = error_of(ann, code)
        assert error in message
        assert len(message) < 300
        assert ask(ann, "return [session.rooms(), room.members(), room.history(10)]") == [[], 1, []]


def test_without_a_history_its_methods_name_the_setting(tmp_path: Path) -> None:
    with playing(tmp_path) as chat:
        ann = chat.connect()
        for code in ("room.history(1)", "room.position()", "room.join({ history: 1 })", "room.join({ since: 'x' })"):
            assert "history_messages" in error_of(ann, code), code
        assert ask(ann, "return session.rooms()") == []


def test_an_option_that_answers_twice_is_asked_once(tmp_path: Path) -> None:
    code = """
      const asked = [];
      const options = new Proxy({ history: 1, maxMembers: 5, presence: null, since: null }, {
        get(target, name) {
          asked.push(name);
          return asked.indexOf(name) === asked.length - 1 ? target[name] : "changed";
        },
      });
      const { joined } = room.join(options);
      const changing = { get latest() { asked.push("latest"); return "k"; } };
      room.broadcast("x", changing);
      return [joined, ...asked];
    """
    with playing(tmp_path, history_messages=10) as chat:
        ann = chat.connect()
        assert ask(ann, code) == [True, "history", "maxMembers", "presence", "since", "latest"]


def test_options_come_from_the_object_itself_only(tmp_path: Path) -> None:
    code = """
      Object.prototype.keep = Object.prototype.latest = Object.prototype.maxMembers = "broken";
      try {
        room.broadcast("x", {});
        return room.join({}).joined;
      } finally {
        for (const name of ["keep", "latest", "maxMembers"]) delete Object.prototype[name];
      }
    """
    with playing(tmp_path) as chat:
        assert ask(chat.connect(), code) is True


def test_latest_goes_to_everybody_who_keeps_up(tmp_path: Path, settings: dict[str, Any]) -> None:
    code = """
      room.join();
      for (let i = 0; i < 3; i++) {
        room.broadcast(`room ${i}`, { latest: "k" });
        room.broadcastExcept(`others ${i}`, { latest: "k" });
        session.send(new Uint8Array([i]), { latest: "k" });
        peer(session.id).send("x".repeat(2000), { latest: "long" });
      }
    """
    with playing(tmp_path, **settings) as chat:
        ann = chat.connect()
        ann.send(code)
        expected: list[Any] = []
        for number in range(3):
            expected += [f"room {number}", bytes([number]), "x" * 2000]
        assert ann.take() == [*expected, "{}"]


# Posts


def test_a_post_reaches_the_owner_and_its_promise_settles_after_it(tmp_path: Path, settings: dict[str, Any]) -> None:
    with playing(tmp_path, POSTS, **settings) as chat:
        ann = chat.connect()
        ask(ann, "room.join()")
        ann.send("await room.post({ x: ['ü'] }); await room.post('wait'); await anyRoom('r').post(null); return 'done'")
        *told, end = ann.take_json()
        fence = told[0]["fence"]
        assert fence > 1.7e12
        me = {"id": ann.session.id, "user": None}
        assert [(post["value"], post["from"]) for post in told] == [({"x": ["ü"]}, me), ("wait", me), (None, None)]
        assert all(post["isOwner"] and post["fence"] == fence for post in told)
        assert end == {"result": "done"}


def test_a_post_that_nobody_handles_is_rejected(tmp_path: Path, settings: dict[str, Any]) -> None:
    with playing(tmp_path, POSTS, **settings) as chat:
        ann = chat.connect()
        refused = "PostError: the post to the room 'r' was refused: the room has no members"
        assert error_of(ann, "await room.post(1)") == refused
        code = "return room.post(1).catch((error) => [error instanceof Error, error.isUnknown, Object.keys(error)])"
        assert ask(ann, code) == [True, False, []]
    with playing(tmp_path, "export function onRoomStart() {}", **settings) as chat:
        ann = chat.connect()
        assert error_of(ann, "room.join(); await room.post(1)") == (
            "PostError: the post to the room 'r' was refused: the handler has no on_post (in a script, onPost)"
        )


def test_a_post_whose_fate_is_unknown_says_so(tmp_path: Path) -> None:
    more = "export function onPost(room, value) { return new Promise(() => {}); }"
    with playing(tmp_path, more, script_timeout_s=SHORT_S, script_wait_s=SHORT_S, raise_errors=False) as chat:
        code = "room.join(); room.post(1).catch((error) => session.send(`${error.isUnknown} ${error.name}`))"
        ann = chat.connect()
        ask(ann, code)
        assert ann.receive() == "true PostError"


def test_a_rejection_that_nobody_handles_is_logged_with_the_line_of_the_post(tmp_path: Path) -> None:
    script = tmp_path / "lost.js"
    script.write_text(
        """export function onPost() {}
        export function onMessage(session) {
          session.room("r").post(1);
        }"""
    )
    with play(script, raise_errors=False) as chat:
        chat.connect().send("?")
        (error,) = chat.errors
        refused = "PostError: the post to the room 'r' was refused: the room has no members"
        assert f"unhandled error in a promise: {refused}" in str(error)
        assert "at onMessage (lost.js:3:" in str(error)


def test_a_failure_of_on_post_is_the_owners_and_the_post_counts_as_handled(tmp_path: Path) -> None:
    with playing(tmp_path, POSTS, raise_errors=False) as chat:
        ann = chat.connect()
        assert ask(ann, "room.join(); await room.post('throw'); return 'handled'") == "handled"
        (error,) = chat.errors
        assert "onPost failed in room 'r': Error: thrown" in str(error)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("room.post()", "TypeError: a posted value must be JSON, not undefined"),
        ("room.post(NaN)", "TypeError: a posted value must be JSON, not NaN"),
        ("room.post({ a: [NaN] })", """TypeError: a posted value must be JSON, not NaN at ["a"][0]"""),
        ("room.post(1n)", "TypeError: a posted value must be JSON, not 1n"),
        ("await room.post('x'.repeat(65536))", "max_post_bytes"),
    ],
)
def test_a_wrong_post_is_one_clear_error(tmp_path: Path, code: str, error: str) -> None:
    with playing(tmp_path, POSTS) as chat:
        ann = chat.connect()
        assert error in error_of(ann, f"room.join(); const sent = {code}; await sent")
        assert chat.errors == []


def test_many_posts_of_many_sessions_come_in_order_and_settle(tmp_path: Path) -> None:
    more = """
    const seen = {};
    export function onPost(room, value, from) { (seen[from.id] ??= []).push(value); }
    globalThis.seen = seen;
    """
    code = """room.join();
      const all = [];
      for (let i = 0; i < 500; i++) all.push(room.post(i));
      await Promise.all(all);
      return globalThis.seen[session.id].every((value, index) => value === index) && globalThis.seen[session.id].length;
    """
    with playing(tmp_path, more) as chat:
        clients = [chat.connect() for _ in range(3)]
        assert [ask(client, code) for client in clients] == [500] * 3


# Ticks, and the life of an ownership

LIFE = """
export const tickRate = 20;
let state;
export function onRoomStart(room) {
  state = { ticks: 0, dt: 0, started: room.getAttribute("saved") };
  globalThis.kept ??= room;
}
export function onTick(room, dt) { state.ticks++; state.dt += dt; room.broadcast(`tick ${state.ticks}`); }
export function onRoomEnd(room) { room.setAttribute("saved", { ...state, members: room.members() }); }
"""


def test_ticks_follow_the_clock_that_a_test_moves(tmp_path: Path, settings: dict[str, Any]) -> None:
    with playing(tmp_path, LIFE, **settings) as chat:
        ann = chat.connect()
        ask(ann, "room.join()")
        for _ in range(60):
            chat.advance(0.05)
        assert ann.take() == [f"tick {number}" for number in range(1, 61)]
        ask(ann, "room.leave()")
        saved = chat.room("r").get_attribute("saved")
        assert saved["ticks"] == 60
        assert saved["dt"] == pytest.approx(3.0)
        assert (saved["started"], saved["members"]) == (None, 0)
        ask(ann, "room.join()")
        ask(ann, "room.leave()")
        assert chat.room("r").get_attribute("saved")["started"]["ticks"] == 60


def test_a_kept_room_of_an_ownership_that_is_over_writes_nothing(tmp_path: Path) -> None:
    with playing(tmp_path, LIFE) as chat:
        ann, bob = chat.connect(), chat.connect()
        ask(ann, "room.join()")
        assert ask(bob, "return [kept.isOwner(), kept.getName(), kept.members()]") == [True, "r", 1]
        ask(ann, "room.leave()")
        assert ask(bob, "return [kept.isOwner(), kept.getName(), kept.members()]") == [False, "r", 0]
        for code in ("setAttribute('k', 1)", "updateAttribute('k', () => 1)", "deleteAttribute('saved')"):
            assert "own" in error_of(bob, f"kept.{code}"), code
        ask(ann, "room.join()")
        assert ask(bob, "return kept.isOwner()") is False, "another ownership"
        assert "own" in error_of(bob, "kept.setAttribute('k', 1)")
        assert ask(bob, "kept.broadcast('still heard'); return kept.getAttribute('k')") is None
        assert "still heard" in ann.take()


def test_an_error_in_one_room_stops_no_other(tmp_path: Path) -> None:
    more = """
    export const tickRate = 10;
    export function onTick(room) {
      if (room.getName() === "bad") throw new Error("bad");
      room.broadcast("tick");
    }"""
    with playing(tmp_path, more, raise_errors=False) as chat:
        ann = chat.connect()
        ask(ann, "for (const name of ['a', 'bad', 'b']) session.room(name).join()")
        chat.advance(0.1)
        chat.advance(0.1)
        assert ann.take() == ["tick"] * 4
        assert len(chat.errors) == 2


def test_a_tick_that_waits_skips_its_room_only(tmp_path: Path) -> None:
    more = """
    export const tickRate = 10;
    globalThis.go = [];
    export async function onTick(room, dt) {
      room.broadcast(`${room.getName()} ${dt.toFixed(2)}`);
      if (room.getName() === "slow") await new Promise((resolve) => globalThis.go.push(resolve));
    }"""
    with playing(tmp_path, more) as chat:
        ann = chat.connect()
        ask(ann, "session.room('slow').join(); session.room('fast').join()")
        for _ in range(3):
            chat.advance(0.1)
        assert sorted(ann.take()) == ["fast 0.10"] * 3 + ["slow 0.10"]
        ask(ann, "globalThis.go.shift()()")
        chat.advance(0.1)
        told = [text for text in ann.take() if text.startswith("slow")]
        assert told in (["slow 0.20", "slow 0.10"], ["slow 0.25"]), told
        assert chat.app.endpoints[0].totals().counters["ticks_skipped"] >= 1


def test_a_script_that_is_busy_for_600_ms_leaves_out_the_ticks_of_that_time(tmp_path: Path) -> None:
    more = """
    export const tickRate = 20;
    export function onTick(room, dt) { room.broadcast(`${dt}`); }"""
    with playing(tmp_path, more) as chat:
        ann, bob, room = chat.connect(), chat.connect(), chat.room("r")
        ask(ann, "room.join()")
        for _ in range(2):
            chat.advance(0.05)
        busy = Thread(target=ask, args=(bob, "room.setAttribute('is busy', 1); while (!room.getAttribute('go'));"))
        busy.start()
        wait_until(lambda: room.get_attribute("is busy"))
        chat._timers.advance(0.6)  # nothing waits for the script
        room.set_attribute("go", 1)
        busy.join(DEADLINE_S)
        for _ in range(2):
            chat.advance(0.05)
        times = [float(text) for text in ann.take()]
        assert times[:2] == times[-2:] == [0.05] * 2
        assert 1 <= len(times[2:-2]) <= 2, "nothing piles up"
        assert max(times) <= 0.25
        assert len(times) + chat.app.endpoints[0].totals().counters["ticks_skipped"] == 2 + 12 + 2


def test_a_tick_that_is_handed_over_again_is_late_once(tmp_path: Path) -> None:
    """A batch of ticks ends after 10 ms."""
    more = """
    export const tickRate = 10;
    export function onTick() { const until = Date.now() + 15; while (Date.now() < until); }"""
    with playing(tmp_path, more) as chat:
        ask(chat.connect(), "for (let i = 0; i < 6; i++) session.room(`${i}`).join()")
        chat.advance(0.1)
        chat.advance(0.1)
        endpoint = chat.app.endpoints[0]
        assert endpoint.totals().handler_seconds["on_tick"].count == 12
        assert endpoint._metrics.distributions()["tick_lag"].count == 12


def test_ticks_go_on_through_a_reload_with_the_new_rate(tmp_path: Path) -> None:
    with playing(tmp_path, LIFE) as chat:
        ann = chat.connect()
        ask(ann, "room.join()")
        chat.advance(0.05)
        assert ann.take() == ["tick 1"]
        new = """export const tickRate = 5;
        export function onTick(room, dt) { room.broadcast(`new ${dt.toFixed(2)}`); }
        export function onRoomStart(room) { room.broadcast("never"); }
        """
        (tmp_path / "state.js").write_text(SOURCE + new)
        chat.reload()
        for _ in range(8):
            chat.advance(0.05)
        assert ann.take() == ["new 0.20"] * 2
        (tmp_path / "state.js").write_text(SOURCE)
        chat.reload()
        chat.advance(1)
        assert ann.take() == []
        (tmp_path / "state.js").write_text(SOURCE + LIFE)
        chat.reload()
        chat.advance(0.05)
        chat.advance(0.05)
        assert "tick 1" in ann.take(), "rooms with members begin when the functions come"


def test_a_reload_amid_posts_loses_none(tmp_path: Path) -> None:
    more = "export async function onPost(room, value) { await null; room.broadcast(`old ${value}`); }"
    with playing(tmp_path, more) as chat:
        ann = chat.connect()
        ask(ann, "room.join(); globalThis.all = []; for (let i = 0; i < 300; i++) all.push(room.post(i))")
        (tmp_path / "state.js").write_text(SOURCE + more.replace("old", "new"))
        ask(ann, "for (let i = 300; i < 600; i++) globalThis.all.push(room.post(i))")
        chat.reload()
        ask(ann, "for (let i = 600; i < 900; i++) globalThis.all.push(room.post(i))")
        assert ask(ann, "return (await Promise.all(globalThis.all)).length") == 900
        ann.take()


def test_posts_go_on_after_the_isolate_has_died(tmp_path: Path) -> None:
    """Its variables are lost, so the rooms begin again with a new fencing number."""
    more = "export const started = [];\n" + LIFE + POSTS
    with playing(tmp_path, more, raise_errors=False) as chat:
        ann = chat.connect()
        ask(ann, "room.join()")
        ask(ann, "await room.post(1)")
        handler: Any = chat.app.endpoints[0].handler
        handler.stop(5)
        bob = chat.connect()
        ask(bob, "room.join(); await room.post(2)")
        assert ask(bob, "return room.members()") == 1


def test_a_tick_that_never_ends_is_stopped_and_the_room_ticks_on(tmp_path: Path) -> None:
    more = """
    export const tickRate = 20;
    let count = 0;
    export function onTick(room) {
      count++;
      if (count === 1) for (;;) {}
      room.broadcast(`tick ${count}`);
    }"""
    with playing(tmp_path, more, script_timeout_s=SHORT_S, raise_errors=False) as chat:
        ann = chat.connect()
        ask(ann, "room.join()")
        chat.advance(0.05)
        chat.advance(0.05)
        assert ann.take() == ["tick 2"]
        assert f"onTick in room 'r' was stopped after {SHORT_S:g} s" in str(chat.errors[0])


def test_an_isolate_that_dies_of_a_tick_begins_its_rooms_again(tmp_path: Path) -> None:
    more = """
    export const tickRate = 20;
    globalThis.kept = [];
    export function onTick(room) {
      if (room.members() === 2) {
        try { for (;;) kept = [kept, new Uint8Array(1e6)]; } catch {}
        for (;;) kept = [kept];
      }
      room.broadcast(`tick ${room.fencingNumber}`);
    }"""
    with playing(tmp_path, more, raise_errors=False) as chat:
        ann, bob = chat.connect(), chat.connect()
        ask(ann, "room.join()")
        chat.advance(0.05)
        (first,) = ann.take()
        ask(bob, "room.join()")
        chat.advance(0.05)
        wait_until(lambda: not (ann.is_open or bob.is_open), "its variables are lost, so its sessions end")
        assert "memory" in str(chat.errors[0])
        eve = chat.connect()
        ask(eve, "room.join()")
        chat.advance(0.05)
        (again,) = eve.take()
        assert int(again.split()[1]) > int(first.split()[1])


# Errors with their place


def test_a_wrong_value_names_the_line_of_the_script(tmp_path: Path) -> None:
    script = tmp_path / "wrong.js"
    script.write_text(
        """export function onMessage(session, message) {
          const room = session.room("r");
          if (message === "history") room.join({ history: 1e9 });
          if (message === "limit") room.join({ maxMembers: NaN });
          if (message === "json") room.setAttribute("k", () => 1);
          if (message === "long") room.setAttribute("k", "x".repeat(1e5));
        }"""
    )
    with play(script, raise_errors=False, history_messages=5) as chat:
        ann = chat.connect()
        for line, message in enumerate(("history", "limit", "json", "long"), start=3):
            ann.send(message)
            ann.take()
            assert f"wrong.js:{line}:" in str(chat.errors[-1]), message


def test_without_an_endpoint_rooms_are_empty(tmp_path: Path) -> None:
    """As in `wsthreads check`, which runs the top level."""
    from wsthreads.config import Config
    from wsthreads.javascript import check_script

    script = tmp_path / "top.js"
    script.write_text(
        """import { room } from "wsthreads";
        const lobby = room("lobby");
        lobby.setAttribute("k", 1);
        lobby.deleteAttribute("k");
        lobby.broadcast("x", { keep: false, latest: "k" });
        const told = [lobby.getAttribute("k"), lobby.getAttributes(), lobby.updateAttribute("k", (n = 1) => n),
          lobby.history(1), lobby.position()];
        lobby.post(1).catch((error) => console.log(JSON.stringify(told), error.message));
        export function onOpen() {}"""
    )
    with script_log() as lines:
        assert check_script(script, Config(history_messages=1)).hooks == {"on_open"}
        assert lines.texts() == ['[null,{},1,[],""] nobody is in the room: there is no endpoint']


def test_an_update_that_others_overtake_again_and_again_claims_the_attribute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims: list[str] = []

    def swap(
        self: Attributes, name: str, key: str, before: str | None, after: str, fence: int | None = None, claim: str = ""
    ) -> tuple[bool, str | None]:
        claims.append(claim)
        return len(claims) == 6, f"{len(claims)}"

    monkeypatch.setattr(Attributes, "swap", swap)
    with playing(tmp_path) as chat:
        ann = chat.connect()
        assert ask(ann, 'room.join(); return room.updateAttribute("n", (n) => `after ${n}`)') == "after 5"
    assert claims[:3] == ["", "", ""]
    assert claims[3] == claims[4] == claims[5] != ""


@pytest.mark.parametrize("hook", ["onRoomStart", "onPost"])
def test_a_function_of_a_room_can_wait_for_its_own_post(tmp_path: Path, hook: str) -> None:
    more = f"""
    export async function onRoomStart(room) {{ if ("{hook}" === "onRoomStart") await room.post("own"); }}
    export async function onPost(room, value) {{
      if (value === "first") await room.post("own");
      room.broadcast(value);
    }}"""
    with playing(tmp_path, more) as chat:
        ann = chat.connect()
        ann.send('room.join(); if (HOOK === "onPost") await room.post("first")'.replace("HOOK", f'"{hook}"'))
        assert [ann.receive() for _ in range(3 if hook == "onPost" else 2)].count("own") == 1


def test_a_script_that_replaces_concat_does_not_reach_the_runtime(tmp_path: Path) -> None:
    """The engine makes a call of it of each template literal."""
    script = tmp_path / "state.js"
    script.write_text(
        """let calls = 0;
        try { String.prototype.concat = () => { calls++; throw new Error("mine"); }; } catch {}
        """
        + SOURCE.replace("import", "\nimport", 1)
    )
    with play(script) as chat:
        ann = chat.connect()
        code = 'room.join(); room.setAttribute("k", 1); room.broadcast("x", { latest: "k" }); return "a".concat("b")'
        assert ask(ann, code) == "ab"
