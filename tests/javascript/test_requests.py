"""Sessions of scripts that survive their connections: onSuspend, onResume, onRequest, and session.request."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.javascript.test_engine import without_engine  # noqa: F401
from tests.javascript_fakes import script_log
from tests.pages import blocks
from tests.programs import wait_until
from tests.speakers import Speaker
from tests.wire import CLOSE, TEXT, RawClient, close_payload, serving
from wsthreads import UsageError, WebSocketApp, create_app
from wsthreads.protocol import envelope
from wsthreads.testing.timers import ManualTimers

TELLS = """
let told = [];
const tell = (session, text) => { told.push(text); session.send(text); };
"""


@contextmanager
def script(tmp_path: Path, source: str, **settings: Any) -> Iterator[Any]:
    """A server of the script: its app, port, path, endpoint, and a function that makes clients."""
    path = tmp_path / "script.js"
    path.write_text(source)
    app = WebSocketApp(**{"ping_interval_s": 0, "resume_s": 60.0, **settings})
    app.add_script("/ws/test", path)
    endpoint = app.endpoint("/ws/test")
    timers = endpoint.suspensions.timers = ManualTimers()
    with serving(app) as port:
        yield SimpleNamespace(
            app=app, port=port, path=path, endpoint=endpoint, timers=timers, client=lambda: Speaker(port).begin()
        )


@pytest.fixture(params=["engine", "no engine"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "engine":
        return {}
    request.getfixturevalue("without_engine")
    return {"scripts_without_deadline": True}


def wait_suspended(served: Any) -> None:
    wait_until(lambda: len(served.endpoint.suspensions) == 1, "a suspended session")


def the_session(served: Any) -> Any:
    """The only session, once the script has it."""
    wait_until(lambda: served.endpoint.sessions() and served.endpoint.handler._isolate._states)
    (session,) = served.endpoint.sessions()
    return session


# Suspending and resuming


def test_a_script_is_told_of_lost_and_new_connections_and_keeps_the_session(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    source = """
    import { room } from "wsthreads";
    let last = null;
    export function onOpen(session) { last = session; session.setAttribute("n", 1); session.room("all").join(); }
    export function onMessage(session, text) {
      session.send(`${text} ${session === last} ${session.getAttribute("n")}`);
    }
    export function onSuspend(session) {
      session.send(`suspended ${session.isOpen()} ${session.isConnected()}`);
      console.log("suspended");
    }
    export async function onResume(session) {
      await null;
      session.send(`resumed ${session.isConnected()} ${session.getParameter("n")}`);
    }
    export function onClose(session, code, reason) { console.log(`closed ${code} ${reason}`); }
    """
    with script_log() as log, script(tmp_path, source, **settings) as served, served.client() as ann:
        ann.send("a")
        assert ann.next() == "a true 1"
        ann.lose()
        wait_suspended(served)
        log.wait_for("suspended")
        served.endpoint.room("all").broadcast("missed")
        ann.path = "/ws/test?n=2"
        assert ann.come_back().resumed
        assert sorted(ann.all(2)) == ["missed", "suspended true false"]
        assert ann.next() == "resumed true 2"
        ann.send("b")
        assert ann.next() == "b true 1"
        ann.lose()
        wait_suspended(served)
        served.timers.advance(60)
        log.wait_for("closed 1006 not back within 60 s")


def test_a_script_without_these_functions_goes_on_as_well(tmp_path: Path) -> None:
    source = "export function onMessage(session, text) { session.send(text + session.getParameter('n')); }"
    with script(tmp_path, source) as served, served.client() as ann:
        ann.lose()
        wait_suspended(served)
        ann.path = "/ws/test?n=2"
        assert ann.come_back().resumed
        ann.send("a")
        assert ann.next() == "a2"


def test_the_calls_of_a_session_never_overlap_though_its_connections_do(tmp_path: Path) -> None:
    """The first connection is replaced while a call waits for a reply, which comes by the second one."""
    source = """
    const calls = [];
    export async function onMessage(session, text) {
      calls.push(`begin ${text}`);
      if (text === "ask") calls.push(await session.request("who?"));
      if (text === "tell") session.send(calls.join());
      calls.push(`end ${text}`);
    }
    export async function onSuspend() { calls.push("suspend"); await null; calls.push("suspended"); }
    export async function onResume() { calls.push("resume"); await null; calls.push("resumed"); }
    """
    with script(tmp_path, source) as served, served.client() as ann, Speaker(served.port) as again:
        ann.send("ask")
        assert ann.next() == envelope.Request(1, "who?")
        again.token, again.received = ann.token, ann.received
        assert again.come_back().resumed
        again.put(envelope.reply(1, "ann"))
        again.send("tell")
        assert again.next() == "begin ask,ann,end ask,suspend,suspended,resume,resumed,begin tell"


def test_on_resume_may_ask_its_client(tmp_path: Path) -> None:
    source = """
    export async function onResume(session) { session.send(`you are ${await session.request("who?")}`); }
    """
    with script(tmp_path, source) as served, served.client() as ann:
        ann.lose()
        wait_suspended(served)
        ann.come_back()
        assert ann.next() == envelope.Request(1, "who?")
        ann.put(envelope.reply(1, "ann"))
        assert ann.next() == "you are ann"


def test_a_reload_while_suspended_calls_the_new_functions(tmp_path: Path) -> None:
    source = """
    import { sessions } from "wsthreads";
    export function onReload() { console.log(`reloaded with ${sessions().length}`); }
    export function onResume(session) { session.send("VERSION"); }
    export function onMessage(session, text) { session.send("VERSION " + text + session.getAttribute("kept")); }
    export function onOpen(session) { session.setAttribute("kept", "!"); }
    """
    with script_log() as log, script(tmp_path, source) as served, served.client() as ann:
        ann.send("a")
        assert ann.next() == "VERSION a!"
        ann.lose()
        wait_suspended(served)
        served.path.write_text(source.replace("VERSION", "new"))
        served.endpoint.handler.reload()
        log.wait_for("reloaded with 1")
        ann.come_back()
        assert ann.next() == "new"
        ann.send("b")
        assert ann.next() == "new b!"


@pytest.mark.parametrize("body", ["for (;;);", "await new Promise(() => {});"])
def test_a_call_of_on_suspend_that_overruns_its_deadline_ends_the_session(tmp_path: Path, body: str) -> None:
    source = f"""
    export function onMessage() {{}}
    export async function onSuspend() {{ {body} }}
    export function onClose(session, code, reason) {{ console.log(`closed ${{code}} ${{reason}}`); }}
    """
    settings = {"script_timeout_s": 0.5, "script_wait_s": 0.1}
    with script_log() as log, script(tmp_path, source, **settings) as served, served.client() as ann:
        ann.heartbeat()
        ann.lose()
        log.wait_for("closed 1011 handler timed out")
        wait_until(lambda: not served.endpoint.sessions())
        assert not ann.come_back().resumed


def test_an_error_of_on_suspend_or_on_resume_ends_nothing(tmp_path: Path) -> None:
    source = """
    export function onSuspend() { throw new Error("no suspending"); }
    export async function onResume() { throw new Error("no resuming"); }
    export function onError(session, error) { session.send(`onError ${error.message}`); }
    """
    with script_log() as log, script(tmp_path, source) as served, served.client() as ann:
        ann.heartbeat()
        ann.lose()
        log.wait_for("onSuspend failed in session")
        assert ann.come_back().resumed
        assert ann.all(2) == ["onError no suspending", "onError no resuming"]


# Requests of the client


ANSWERS = """
import { RequestError } from "wsthreads";
const ANSWERS = {
  text: () => "yes",
  bytes: () => new Uint8Array([1, 2, 255]),
  buffer: () => new ArrayBuffer(2),
  nothing: () => undefined,
  null: () => null,
  later: async () => { await null; return "later"; },
  refused: () => { throw new RequestError("not you"); },
  refusedLater: async () => { await null; throw new RequestError("not you, later"); },
  named: () => { class Mine extends RequestError {} throw new Mine("mine"); },
  fails: () => { throw new Error("secret"); },
  failsLater: async () => { await null; throw new Error("secret"); },
  number: () => 5,
  forged: () => { throw { name: "RequestError", message: "forged" }; },
  generator: function* () {},
};
export function onRequest(session, data) {
  return typeof data === "string" ? ANSWERS[data]() : new Uint8Array(data).reverse();
}
export function onError(session, error) { session.send(`onError ${error.message ?? error}`); }
"""


def test_the_value_of_on_request_is_the_reply(tmp_path: Path, settings: dict[str, Any]) -> None:
    replies = {
        "text": envelope.Reply(1, "yes"),
        "bytes": envelope.Reply(2, b"\1\2\xff"),
        "buffer": envelope.Reply(3, b"\0\0"),
        "nothing": envelope.NullReply(4),
        "null": envelope.NullReply(5),
        "later": envelope.Reply(6, "later"),
        "refused": envelope.Failure(7, "not you"),
        "refusedLater": envelope.Failure(8, "not you, later"),
        "named": envelope.Failure(9, "mine"),
        b"\1\2\3": envelope.Reply(10, b"\3\2\1"),
    }
    with script(tmp_path, ANSWERS, **settings) as served, served.client() as ann:
        for number, (data, reply) in enumerate(replies.items(), 1):
            ann.ask(number, data)
            assert ann.next() == reply


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("fails", "secret"),
        ("failsLater", "secret"),
        ("number", "onRequest returns a string, an ArrayBuffer or a typed array, not a number; try JSON.stringify"),
        ("forged", "forged"),
        ("generator", None),
    ],
)
def test_a_failure_is_logged_and_tells_the_client_nothing(tmp_path: Path, data: str, error: str | None) -> None:
    with script_log() as log, script(tmp_path, ANSWERS) as served, served.client() as ann:
        ann.ask(1, data)
        found = [ann.next() for _ in range(2)]
        assert envelope.Failure(1, "failed") in found
        if error is not None:
            assert f"onError {error}" in found
        log.wait_for("onRequest failed in session")


def test_a_script_without_on_request_says_so(tmp_path: Path) -> None:
    with script(tmp_path, "export function onMessage() {}") as served, served.client() as ann:
        ann.ask(1, "a")
        assert ann.next() == envelope.Failure(1, "no handler: the server has no onRequest")


def test_a_request_that_overruns_its_deadline_ends_the_session_and_leaves_nothing(tmp_path: Path) -> None:
    source = "export function onRequest() { for (;;); }"
    with script(tmp_path, source, script_timeout_s=0.5) as served, served.client() as ann:
        ann.ask(1, "a")
        ann.ask(2, "b")
        assert ann.receive_close()[0] == 1011
        ann.leave()
        wait_until(lambda: not served.endpoint.sessions())
        assert not served.endpoint.handler._isolate._loop.requests._answers


def test_requests_and_messages_are_handled_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    source = """
    const log = [];
    export async function onMessage(session, text) { await null; log.push(text); }
    export async function onRequest(session, text) { log.push(text); await null; return log.join(); }
    """
    with script(tmp_path, source) as served, served.client() as ann:
        ann.send("a")
        ann.ask(1, "b")
        ann.send("c")
        ann.ask(2, "d")
        assert ann.all(2) == [envelope.Reply(1, "a,b"), envelope.Reply(2, "a,b,c,d")]


# Requests of the script


ASKS = """
import { RequestError, RequestTimeout, SessionClosed } from "wsthreads";
const KINDS = { RequestError, RequestTimeout, SessionClosed };
export async function onMessage(session, text) {
  const { data, options, bytes } = JSON.parse(text);
  try {
    const reply = await session.request(bytes ? new Uint8Array(bytes) : data, options);
    session.send(reply instanceof ArrayBuffer ? `bytes ${new Uint8Array(reply)}` : `${typeof reply} ${reply}`);
  } catch (error) {
    const kind = Object.keys(KINDS).find((name) => error instanceof KINDS[name]);
    session.send(`${kind} ${error instanceof Error} ${error}`);
    if (kind && !error.stack.includes("onMessage")) session.send(`no stack: ${error.stack}`);
  }
}
"""


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (envelope.reply(1, "yes"), "string yes"),
        (envelope.reply(1, "é" * 5000), "string " + "é" * 5000),
        (envelope.reply(1, b"\0\xff"), "bytes 0,255"),
        (envelope.reply(1, ""), "string "),
        (envelope.reply(1, b""), "bytes "),
        (envelope.null_reply(1), "object null"),
        (envelope.failure(1, "not now"), "RequestError true RequestError: not now"),
    ],
)
def test_a_script_gets_the_reply_of_its_client(
    tmp_path: Path, settings: dict[str, Any], reply: str | bytes, told: str
) -> None:
    with script(tmp_path, ASKS, **settings) as served, served.client() as ann:
        ann.send(json.dumps({"data": "who?"}))
        assert ann.next() == envelope.Request(1, "who?")
        ann.put(reply)
        assert ann.next() == told


def test_a_request_may_be_bytes(tmp_path: Path) -> None:
    with script(tmp_path, ASKS) as served, served.client() as ann:
        ann.send(json.dumps({"bytes": [0, 255]}))
        assert ann.next() == envelope.Request(1, b"\0\xff")


def test_a_request_without_a_reply_ends_at_its_timeout(tmp_path: Path) -> None:
    with script(tmp_path, ASKS, request_timeout_s=3600.0) as served, served.client() as ann:
        ann.send(json.dumps({"data": "who?", "options": {"timeoutMs": 15}}))
        ann.next()
        assert ann.next() == "RequestTimeout true RequestTimeout: no reply to a request within 0.015 s"


def test_a_request_of_a_session_that_ends_is_told_so(tmp_path: Path) -> None:
    source = """
    export async function onMessage(session, text) {
      await session.request("who?").catch((error) => console.log(`${error}`));
      console.log("then");
      await session.request("again?").catch((error) => console.log(`later ${error}`));
    }
    export function onClose(session) { console.log("closed"); }
    """
    with script_log() as log, script(tmp_path, source) as served, served.client() as ann:
        ann.send("a")
        ann.next()
        the_session(served).close(4000)
        log.wait_for("SessionClosed: the session is closed")
        log.wait_for("later SessionClosed: the session is closed")
        log.wait_for("closed")


ASKS_AND_GOES_ON = """
export async function onMessage(session, text) {
  const reply = await session.request("who?", { timeoutMs: 3600000 }).catch(String);
  console.log(reply);
  session.send(`${text}: ${reply}`);
}
export function onSuspend() { console.log("suspended"); }
export function onClose(session, code) { console.log(`closed ${code}`); }
"""


def test_a_client_that_closes_while_it_is_asked_is_answered_after_what_it_has_sent(tmp_path: Path) -> None:
    with script(tmp_path, ASKS_AND_GOES_ON) as served, served.client() as ann:
        ann.send("a")
        ann.send("b")
        assert ann.next() == envelope.Request(1, "who?")
        ann.wire.send(CLOSE, close_payload(1000))
        error = "SessionClosed: the session is closed"
        assert ann.all(2) == [f"a: {error}", f"b: {error}"]
        assert ann.receive_close() == (1000, "")


def test_a_client_whose_connection_is_lost_while_it_is_asked_is_away_at_once_and_replies_later(tmp_path: Path) -> None:
    with script_log() as log, script(tmp_path, ASKS_AND_GOES_ON) as served, served.client() as ann:
        ann.send("a")
        assert ann.next() == envelope.Request(1, "who?")
        ann.lose()
        wait_suspended(served)
        assert ann.come_back().resumed
        ann.put(envelope.reply(1, "ann"))
        assert ann.next() == "a: ann"
        log.wait_for("suspended")


def test_a_client_that_cannot_come_back_ends_its_session_while_it_is_asked(tmp_path: Path) -> None:
    with script_log() as log, script(tmp_path, ASKS_AND_GOES_ON, resume_s=0) as served, served.client() as ann:
        ann.send("a")
        assert ann.next() == envelope.Request(1, "who?")
        ann.wire.sock.shutdown(socket.SHUT_WR)  # it still reads
        assert ann.next() == "a: SessionClosed: the session is closed"
        log.wait_for("closed 1006")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (
            '{"data": 5}',
            "TypeError: session.request takes a string, an ArrayBuffer or a typed array, not a number; "
            "try JSON.stringify",
        ),
        (
            '{"data": "a", "options": {"timeoutMs": 0}}',
            "RangeError: timeoutMs is a number of milliseconds from above 0 to 2147483647, not 0",
        ),
        (
            '{"data": "a", "options": {"timeoutMs": "5"}}',
            'TypeError: timeoutMs is a number of milliseconds from above 0 to 2147483647, not "5"',
        ),
        (
            '{"data": "a", "options": {"timeout": 5}}',
            "TypeError: session.request takes the option timeoutMs, not timeout",
        ),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, call: str, error: str) -> None:
    with script(tmp_path, ASKS) as served, served.client() as ann:
        ann.send(call)
        assert ann.next() == f"undefined true {error}"


def test_a_client_that_does_not_know_requests_is_named(tmp_path: Path) -> None:
    with script(tmp_path, ASKS) as served, RawClient(served.port, "/ws/test") as ann:
        ann.send(TEXT, '{"data": "who?"}')
        assert ann.receive()[1].decode() == (
            "RequestError true RequestError: this client cannot take requests: it does not speak wsthreads.1"
        )


def test_a_client_that_floods_while_it_is_asked_can_still_reply(tmp_path: Path) -> None:
    """More messages than may wait for the script come before the reply: the thread that waits for a place reads it."""
    source = """
    let seen = 0;
    export async function onMessage(session, text) {
      if (text === "ask") session.send(await session.request("who?"));
      if (++seen === 301) session.send("all");
    }
    """
    with script(tmp_path, source, request_timeout_s=3600.0, script_wait_s=3600.0) as served, served.client() as ann:
        ann.send("ask")
        for number in range(300):
            ann.send(str(number))
        assert ann.next() == envelope.Request(1, "who?")
        ann.put(envelope.reply(1, "ann"))
        assert ann.all(2) == ["ann", "all"]


def test_a_timer_asks_too_and_while_no_call_runs(tmp_path: Path) -> None:
    source = """
    export function onOpen(session) {
      setTimeout(async () => session.send(`timer ${await session.request("who?")}`), 0);
    }
    """
    with script(tmp_path, source) as served, served.client() as ann:
        assert ann.next() == envelope.Request(1, "who?")
        ann.put(envelope.reply(1, "ann"))
        assert ann.next() == "timer ann"


# Another process


def test_attributes_are_exported_as_json_and_adopted(tmp_path: Path) -> None:
    source = """
    export function onOpen(session) {
      session.setAttribute("user", { name: "ann", tags: ["a", null, 1.5, true] });
      session.setAttribute("gone", undefined);
    }
    export function onMessage(session, text) { session.send(`${JSON.stringify(session.getAttributes())} ${text}`); }
    """
    with script(tmp_path, source) as served, served.client() as ann:
        session = the_session(served)
        handler = served.endpoint.handler
        text = handler.export_attributes(session, None)
        assert json.loads(text) == {"user": {"name": "ann", "tags": ["a", None, 1.5, True]}}
        handler.close(session, 1000, "")
        handler.adopt(session, {"user": {"name": "bob"}})
        ann.send("a")
        assert ann.next() == '{"user":{"name":"bob"}} a'


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("new Map()", 'the attribute "x" is not JSON: it has a Map'),
        ("{ at: [new Date()] }", 'the attribute "x" is not JSON: it has a Date'),
        ("() => {}", 'the attribute "x" is not JSON: it has a function'),
        ("NaN", 'the attribute "x" is not JSON: it has a number'),
        ("(() => { const a = {}; a.a = a; return a; })()", "has more than 200 levels; is there a cycle?"),
    ],
)
def test_an_attribute_that_is_no_json_is_named(tmp_path: Path, value: str, error: str) -> None:
    source = f'export function onOpen(session) {{ session.setAttribute("x", {value}); }}'
    with script(tmp_path, source) as served, served.client():
        session = the_session(served)
        with pytest.raises(UsageError) as raised:
            served.endpoint.handler.export_attributes(session, None)
        assert error in str(raised.value)


def test_what_on_suspend_returns_takes_the_place_of_the_attributes(tmp_path: Path) -> None:
    source = """
    export function onOpen(session) { session.setAttribute("socket", new Map()); }
    export async function onSuspend(session) { await null; console.log("suspended"); return { position: 5 }; }
    """
    with script_log() as log, script(tmp_path, source) as served, served.client() as ann:
        session = the_session(served)
        ann.lose()
        log.wait_for("suspended")
        assert served.endpoint.handler.export_attributes(session, None) == '{"position":5}'


# The page


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_the_example_of_the_page_answers_requests(tmp_path: Path, language: str) -> None:
    (source,) = (block for block in blocks("docs/reference/handlers", language) if "RequestError" in block)
    path = tmp_path / f"handler.{ {'javascript': 'js', 'python': 'py'}[language] }"
    path.write_text(source)
    app = create_app(path, path="/ws/test", ping_interval_s=0)
    with serving(app) as port, Speaker(port).begin() as ann:
        ann.ask(1, "time")
        reply = ann.next()
        assert isinstance(reply, envelope.Reply)
        assert reply.data[4] == "-"
        ann.ask(2, "name")
        assert ann.next() == envelope.Request(1, "what is your name?")
        ann.put(envelope.reply(1, "ann"))
        assert ann.next() == envelope.Reply(2, "ann")
        ann.ask(3, "else")
        assert ann.next() == envelope.Failure(3, "ask for time or name")
