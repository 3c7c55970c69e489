"""How wsthreads.js speaks wsthreads.1: in Chromium, with sockets and a clock of the test's own.

`simulation.js` has a second server, and a network that cuts.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

#: How many random runs, and from which seed. 100,000 runs take minutes.
RUNS = int(os.environ.get("WSTHREADS_CLIENT_RUNS", "400"))
SEED = int(os.environ.get("WSTHREADS_CLIENT_SEED", "0"))

DLE = "\x10"


# Exactly once


@pytest.fixture
def simulate(window, blank_page):
    page = window(blank_page)
    page.add_script_tag(path=Path(__file__).with_name("simulation.js"), type="module")
    page.wait_for_function("globalThis.cutAtRandom !== undefined")

    def run(steps, argument=None):
        begin = "const { ReconnectingWebSocket } = await import('/wsthreads.js');"
        return page.evaluate(f"async (argument) => {{ {begin} {steps} }}", argument)

    return run


def test_every_message_arrives_once_and_in_order_wherever_the_connection_is_cut(simulate):
    """After each delivery of an exchange, and after each two; noticed by both sides, one, or none of them."""
    assert simulate("return cutEverywhere(ReconnectingWebSocket, 20);") == 4 * (21 + 21 * 20)


@pytest.mark.parametrize("forgets", [False, True], ids=["", "the server forgets"])
def test_every_message_arrives_once_and_in_order_whatever_happens(simulate, forgets):
    """Random deliveries, cuts, wake-ups of the page, renewed tokens. Where the server forgets, the page learns it."""
    links = simulate(
        """let links = 0;
      for (let seed = argument.first; seed < argument.last; seed++) {
        try { links += (await cutAtRandom(ReconnectingWebSocket, seed, argument))[0]; }
        catch (error) { throw new Error(`seed ${seed}: ${error.stack}`); }
      }
      return links;""",
        {"forgets": forgets, "first": SEED, "last": SEED + RUNS // 2},
    )
    assert links > 2 * RUNS


# Hello and welcome


def test_it_offers_the_subprotocol_before_those_of_the_page_and_sends_its_hello_first(run):
    result = run("""
      const [socket, told] = talk();
      socket.send("early");
      await settled();
      const offer = sockets[0].protocols;
      sockets[0].open("wsthreads.1");
      const before = [socket.readyState, sockets[0].sent.splice(0), [...told]];
      await sockets[0].greet({ protocol: "chat.v2" });
      return [offer, before, sockets[0].sent.slice(1), told, socket.readyState, socket.protocol, socket.resumed];
    """)
    assert result == [["wsthreads.1"], [0, [f"{DLE}h{{}}"], []], ["early"], ["open 0"], 1, "chat.v2", False]


def test_it_shows_its_token_and_count_and_sends_again_what_was_not_taken(run):
    result = run("""
      const [socket, told] = talk();
      await settled(); await sockets[0].greet();
      for (const text of ["a", "b", "c", "d"]) socket.send(text);
      sockets[0].receive("one"); sockets[0].receive(`${D}a1`); sockets[0].receive("two");
      sockets[0].end(1006);
      socket.send("e");
      await tick(1000); await sockets[1].greet({ resumed: true, token: "t2", received: 2 });
      socket.send("f");
      sockets[1].end(1006); await tick(1000); await sockets[2].greet({ resumed: true, token: "t3", received: 6 });
      return [told, sockets[1].sent, sockets[2].sent, socket.resumed];
    """)
    told, second, third, resumed = result
    assert told == ["open 0", "one", "two", "lost 1006", "resumed", "lost 1006", "resumed"]
    assert second == [f'{DLE}h{{"resume":{{"token":"t","received":2}}}}', *"cdef"]
    assert third == [f'{DLE}h{{"resume":{{"token":"t2","received":2}}}}']
    assert resumed is True


def test_what_was_sent_in_a_session_that_is_gone_is_counted_and_what_waited_is_sent(run):
    result = run("""
      const [socket, told] = talk();
      await settled(); await sockets[0].greet();
      for (const text of ["a", "b", "c"]) socket.send(text);
      const asked = outcome(socket.request("never answered"));
      sockets[0].receive(`${D}a1`);
      sockets[0].end(1006);
      socket.send("waits");
      const late = outcome(socket.request("waits, too"));
      await tick(1000); await sockets[1].greet({ token: "t2", why: "unknown" });
      sockets[1].receive(`${D}r1:in the new session`);
      return [told, sockets[1].sent.slice(1), await asked, await late, socket.resumed];
    """)
    assert result == [
        ["open 0", "lost 1006", "open 2"], ["waits", f"{DLE}q1:waits, too"],
        "SessionClosed: the session is over", "in the new session", False,
    ]  # fmt: skip


@pytest.mark.parametrize("code", [1001, 1005, 1006, 1011, 1012, 1013])
def test_a_close_in_place_of_a_welcome_that_says_later_leaves_the_token(run, code):
    result = run(f"""
      const [socket, told] = talk();
      await settled(); await sockets[0].greet(); sockets[0].end(1006);
      await tick(1000); sockets[1].open("wsthreads.1"); sockets[1].end({code});
      await tick(5000); sockets[2].open("wsthreads.1");
      return [sockets[2].sent, told.slice(1)];
    """)
    assert result == [[f'{DLE}h{{"resume":{{"token":"t","received":0}}}}'], ["lost 1006", f"lost {code}"]]


def test_a_close_in_place_of_a_welcome_that_ends_the_session_is_the_end_of_its_token(run):
    result = run("""
      const [socket, told] = talk({ isFinal: ({ code }) => code === 4003 });
      const asked = (socket.send("x"), outcome(socket.request("x")));
      await settled(); await sockets[0].greet(); sockets[0].end(1006);
      await tick(1000); sockets[1].open("wsthreads.1"); sockets[1].end(4000);
      await tick(5000); await sockets[2].greet();
      sockets[2].end(1006); await tick(5000); sockets[3].open("wsthreads.1"); sockets[3].end(4003);
      return [sockets[2].sent, told, await asked];
    """)
    assert result == [
        [f"{DLE}h{{}}"], ["open 0", "lost 1006", "lost 4000", "open 1", "lost 1006", "closed 4003"],
        "SessionClosed: the session is over",
    ]  # fmt: skip


def test_an_expired_token_is_followed_by_a_fresh_one_and_a_fresh_session(run):
    result = run("""
      let calls = 0;
      const [socket, told] = talk({}, () => `/ws/x?${++calls}`);
      await settled(); await sockets[0].greet(); sockets[0].end(1006);
      await tick(1000); sockets[1].open("wsthreads.1"); sockets[1].end(3000);
      await tick(5000); await sockets[2].greet();
      return [calls, sockets[2].sent, told];
    """)
    assert result == [3, [f"{DLE}h{{}}"], ["open 0", "lost 1006", "lost 3000", "open 0"]]


WELCOME = '\x10w{"resumed":%s,"token":%s,"received":%s,"resumeMs":0,"heartbeatMs":0,"timeoutMs":0,"protocol":%s}'

WELCOMES = [
    *("hello", "\x10a0", "\x10w", "\x10wnull", "\x10w[]", "\x10w{}", "\x10W{}"),
    *(WELCOME % values for values in [
        ("1", '"t"', "0", "null"), ("false", "5", "0", "null"), ("false", '""', "0", "null"),
        ("false", '"a b"', "0", "null"), ("false", f'"{"x" * 257}"', "0", "null"), ("false", '"t"', "1", "null"),
        ("false", '"t"', "-1", "null"), ("false", '"t"', '"0"', "null"), ("false", '"t"', "0", "7"),
        ("true", "null", "1", "null"), ("true", '"t"', "0.5", "null"), ("true", '"t"', "3", "null"),
        ("true", '"t"', "0", "null"),
    ]),
]  # fmt: skip


def test_a_welcome_that_cannot_be_true_ends_the_session(run):
    """Two messages were written, and one was acknowledged: only 1 and 2 are possible counts."""
    results = run(f"""
      const results = [];
      for (const welcome of {json.dumps(WELCOMES)}) {{
        const [socket, told] = talk();
        const latest = async (wait) => {{ await tick(wait); return sockets.at(-1); }};
        const first = await latest(0);
        await first.greet();
        socket.send("a"); socket.send("b"); first.receive(`${{D}}a1`); first.end(1006);
        const second = await latest(1000);
        second.open("wsthreads.1"); second.receive(welcome);
        const third = await latest(1000);
        await third.greet();
        socket.close(); third.end(1000);
        results.push([second.closedWith?.[0], third.sent, told.join()]);
      }}
      return results;
    """)
    right = [4002, [f"{DLE}h{{}}"], "open 0,lost 1006,lost 1002,open 1,closed 1000"]
    assert [(welcome, found) for welcome, found in zip(WELCOMES, results, strict=True) if found != right] == []


# Messages


def test_only_messages_that_begin_with_the_mark_get_another_one(run):
    result = run("""
      const [socket, told] = talk();
      socket.binaryType = "arraybuffer";
      await settled(); await sockets[0].greet();
      const bytes = (...values) => new Uint8Array(values);
      for (const data of ["plain", `${D}q1:x`, "", bytes(16, 7), bytes(7, 16), bytes()]) socket.send(data);
      const buffer = (...values) => bytes(...values).buffer;
      for (const data of [`${D}${D}q1:x`, buffer(16, 16, 7), buffer(7), buffer()]) sockets[0].receive(data);
      const shown = (values) => values.map((data) => typeof data === "string" ? data : [...new Uint8Array(data)]);
      socket.binaryType = "blob";
      sockets[0].receive(buffer(16, 16, 9));
      const blob = await told.pop().bytes();
      return [shown(sockets[0].sent.slice(1)), shown(told.slice(1)), [...blob]];
    """)
    assert result == [
        ["plain", f"{DLE}{DLE}q1:x", "", [16, 16, 7], [7, 16], []], [f"{DLE}q1:x", [16, 7], [7], []], [16, 9],
    ]  # fmt: skip


def test_what_is_sent_after_a_blob_waits_for_its_bytes(run):
    result = run("""
      const [socket] = talk();
      socket.send("first");
      await settled(); await sockets[0].greet();
      const bytes = new Uint8Array([16, 1]);
      socket.send(new Blob([bytes])); socket.send("behind"); socket.send(bytes);
      bytes.fill(9);
      while (sockets[0].sent.length < 5) await settled();
      const sent = sockets[0].sent.slice(1);
      sockets[0].end(1006); await tick(1000); await sockets[1].greet({ resumed: true, received: 1 });
      return [sent, sockets[1].sent.slice(1)].map((all) => all.map((data) => data.at ? data.at(0) : data[0]));
    """)
    assert result == [["f", 16, "b", 16], [16, "b", 16]]


def test_it_acknowledges_after_1024_messages_or_64_kib_and_with_each_heartbeat(run):
    result = run("""
      const [socket] = talk();
      await settled(); await sockets[0].greet();
      for (let n = 0; n < 1023; n++) sockets[0].receive("x");
      const after1023 = sockets[0].sent.length;
      sockets[0].receive("x"); sockets[0].receive("y".repeat(65_535)); sockets[0].receive(`${D}a0`);
      const before = sockets[0].sent.length;
      sockets[0].receive(new Uint8Array(1).buffer);
      await tick(25_000);
      return [after1023, before, sockets[0].sent];
    """)
    assert result == [1, 2, [f"{DLE}h{{}}", f"{DLE}a1024", f"{DLE}a1026", f"{DLE}p1026"]]


def test_where_nothing_can_be_resumed_nothing_is_acknowledged_and_requests_work(run):
    result = run("""
      const [socket, told] = talk();
      await settled(); await sockets[0].greet({ token: null });
      for (let n = 0; n < 200; n++) sockets[0].receive("x");
      const asked = outcome(socket.request("a")), other = outcome(socket.request("b"));
      socket.send("c");
      sockets[0].receive(`${D}r1:answer`);
      sockets[0].end(1006); await tick(1000); await sockets[1].greet({ token: null });
      return [sockets[0].sent, sockets[1].sent, await asked, await other, told.filter((text) => text !== "x")];
    """)
    assert result == [
        [f"{DLE}h{{}}", f"{DLE}q1:a", f"{DLE}q2:b", "c"], [f"{DLE}h{{}}"], "answer",
        "SessionClosed: the session is over", ["open 0", "lost 1006", "open null"],
    ]  # fmt: skip


BREAKS = [
    *(f"{DLE}{text}" for text in [
        *("", "x", "1", "h{}", "w{}", "p0", "a", "a-1", "a01", "a1 ", "a1\n", "a\u0661", "a9007199254740992", "a3"),
        *("a0", "q", "q1", "q0:x", "q2:x", "q01:x", "q:x", "r0:x", "r2:x", "n", "n2", "n1:", "e2:x", f"a{'9' * 22}"),
    ]),
    *([*data] for data in (b"\x10", b"\x10a1", b"\x10n1", b"\x10e1:x", b"\x10x", b"\x10q2:x", b"\x10\xff")),
]  # fmt: skip


def test_a_server_that_breaks_the_protocol_loses_the_session(run):
    """Two messages were written, the second a request. One is acknowledged."""
    results = run(f"""
      const results = [];
      for (const message of {json.dumps(BREAKS)}) {{
        const [socket, told] = talk();
        await settled();
        const first = sockets.at(-1);
        await first.greet();
        socket.send("a"); const asked = outcome(socket.request("b"));
        first.receive(`${{D}}a1`);
        first.receive(typeof message === "string" ? message : new Uint8Array(message).buffer);
        await tick(1000);
        sockets.at(-1).open("wsthreads.1");
        socket.close();
        results.push([first.closedWith?.[0], told[1], sockets.at(-1).sent, await asked]);
      }}
      return results;
    """)
    right = [4002, "lost 1002", [f"{DLE}h{{}}"], "SessionClosed: the session is over"]
    assert [(message, found) for message, found in zip(BREAKS, results, strict=True) if found != right] == []


# Requests


def test_a_request_is_answered_by_text_bytes_nothing_or_a_failure_in_any_order(run):
    result = run("""
      const [socket] = talk();
      socket.binaryType = "arraybuffer";
      const early = outcome(socket.request("early"));
      await settled(); await sockets[0].greet();
      const asked = [new Uint8Array([7]), "c", "d", new Blob(["e"])].map((data) => outcome(socket.request(data)));
      while (sockets[0].sent.length < 6) await settled();
      for (const reply of ["n4", "e3:busy: try: later", "r1:", "r1:again"]) sockets[0].receive(D + reply);
      sockets[0].receive(new TextEncoder().encode(`${D}r2:ab`).buffer);
      sockets[0].receive(`${D}r5:text: for 5`);
      const answers = await Promise.all([early, ...asked]);
      answers[1] = [...new Uint8Array(answers[1])];
      return [sockets[0].sent.slice(1).map((data) => typeof data === "string" ? data : [...data]), answers];
    """)
    sent, answers = result
    assert sent == [f"{DLE}q1:early", [*b"\x10q2:\x07"], f"{DLE}q3:c", f"{DLE}q4:d", [*b"\x10q5:e"]]
    assert answers == ["", [97, 98], "RequestError: busy: try: later", None, "text: for 5"]


@pytest.mark.parametrize("name", ["RequestError", "RequestTimeout", "SessionClosed"])
def test_an_error_has_the_name_of_its_class(name, run):
    result = run(f"""
      const {{ {name} }} = await import("/wsthreads.js");
      const error = new {name}("why");
      return [error.name, error.constructor.name, `${{error}}`, error instanceof Error];
    """)
    assert result == [name, name, f"{name}: why", True]


def test_a_request_that_is_not_answered_in_time_fails_and_a_later_reply_is_ignored(run):
    result = run("""
      const [socket, told] = talk();
      const waits = outcome(socket.request("waits", { timeoutMs: 100 }));
      await tick(100);
      const queued = socket.bufferedAmount;
      await settled(); await sockets[0].greet();
      const asked = outcome(socket.request("asked")), next = outcome(socket.request("next", { timeoutMs: 60_000 }));
      await tick(9999); sockets[0].receive("alive"); await tick(1);
      sockets[0].receive(`${D}r1:late`); sockets[0].receive(`${D}r2:in time`);
      return [sockets[0].sent.slice(1), queued, await waits, await asked, await next, told, sockets.length];
    """)
    assert result == [
        [f"{DLE}q1:asked", f"{DLE}q2:next", f"{DLE}p0", f"{DLE}p1"], 0, "RequestTimeout: no answer within 100 ms",
        "RequestTimeout: no answer within 10000 ms", "in time", ["open 0", "alive"], 1,
    ]  # fmt: skip


def test_a_request_survives_a_lost_connection_and_ends_with_the_socket(run):
    result = run("""
      const [socket] = talk();
      await settled(); await sockets[0].greet();
      const first = outcome(socket.request("first")), second = outcome(socket.request("second"));
      sockets[0].end(1006); await tick(1000); await sockets[1].greet({ resumed: true, received: 1 });
      sockets[1].receive(`${D}r1:answer`);
      socket.close(); sockets[1].end(1000);
      return [sockets[1].sent.slice(1), await first, await second, await outcome(socket.request("late")), timers.size];
    """)
    closed = "SessionClosed: the socket is closed"
    assert result == [[f"{DLE}q2:second"], "answer", closed, closed, 0]


def test_a_request_that_cannot_be_sent_fails_at_once(run):
    result = run("""
      const [socket] = talk({ maxQueued: 1 });
      socket.send("full");
      const full = await outcome(socket.request("x"));
      const wrong = await outcome(socket.request("x", { timeoutMs: 0 }));
      const [foreign] = make();
      await settled(); sockets[1].open();
      return [full, wrong, await outcome(foreign.request("x")), sockets[1].sent];
    """)
    assert result == [
        "RequestError: the queue is full", "TypeError: timeoutMs is above 0, not 0",
        "RequestError: requests need wsthreads.1, which this connection does not use", [],
    ]  # fmt: skip


def test_the_page_answers_by_what_onrequest_returns_or_throws(run):
    result = run("""
      const reported = [];
      globalThis.reportError = (error) => reported.push(error.message);
      const [socket] = talk();
      await settled(); await sockets[0].greet();
      const ask = (id, text) => sockets[0].receive(`${D}q${id}:${text}`);
      ask(1, "nobody");
      const answers = {
        value: () => 5, later: async () => "soon", nothing: () => {}, none: () => null,
        bytes: () => new Uint8Array([3]),
        told: () => { throw new RequestError("no: never"); }, boom: async () => { throw new Error("secret"); },
        symbol: () => Symbol("s"),
      };
      socket.onrequest = ({ data }) => answers[data]();
      Object.keys(answers).forEach((name, index) => ask(index + 2, name));
      while (sockets[0].sent.length < 10) await settled();
      socket.onrequest = null;
      socket.addEventListener("request", (event) => { event.respondWith("listener"); event.respondWith("second"); });
      ask(10, "x");
      await settled();
      const text = (data) => typeof data === "string" ? data : String.fromCharCode(...data);
      return [sockets[0].sent.map((data) => text(data).slice(1)).sort(), reported.sort()];
    """)
    assert result == [
        ["e1:no handler: the client has no onrequest",
        "e7:no: never", "e8:failed", "e9:failed", "h{}", "n4", "n5", "r10:listener", "r2:5",
         "r3:soon", "r6:\x03"],
        ["Cannot convert a Symbol value to a string", "secret"],
    ]  # fmt: skip


def test_a_late_answer_goes_to_the_session_that_asked_or_nowhere(run):
    result = run("""
      const [socket] = talk();
      const waiting = [];
      socket.onrequest = () => new Promise((resolve) => waiting.push(resolve));
      await settled(); await sockets[0].greet();
      sockets[0].receive(`${D}q1:a`); sockets[0].receive(`${D}q2:b`);
      sockets[0].end(1006);
      waiting[0]("while away");
      await tick(1000); await sockets[1].greet({ resumed: true });
      sockets[1].end(1006); await tick(1000); await sockets[2].greet();
      waiting[1]("too late");
      await settled();
      return sockets.map(({ sent }) => sent.slice(1));
    """)
    assert result == [[], [f"{DLE}r1:while away"], []]


# Heartbeat, and pages that come and go


def test_a_silent_connection_is_asked_for_a_sign_of_life_and_then_replaced(run):
    result = run("""
      const [socket, told] = talk();
      await settled(); await sockets[0].greet();
      await tick(24_999); sockets[0].receive("alive");
      await tick(24_999);
      const before = sockets[0].sent.length;
      await tick(1);
      const asked = sockets[0].sent.at(-1);
      await tick(19_999); sockets[0].receive(`${D}a0`);
      await tick(25_000); await tick(19_999);
      const alive = [...told];
      await tick(1);
      return [before, asked, alive, told.at(-1), sockets[0].closedWith[0], sockets.length];
    """)
    assert result == [1, f"{DLE}p1", ["open 0", "alive"], "lost 1006", 4901, 2]


def test_a_clock_that_is_set_back_delays_no_heartbeat(run):
    result = run("""
      let back = 0;
      const [socket, told] = talk({ now: () => clock() - back });
      await settled(); await sockets[0].greet();
      back = 3_600_000;
      await tick(2 * 25_000 + 20_000);
      return [told.at(-1), sockets.length];
    """)
    assert result == ["lost 1006", 2]


def test_a_long_message_that_is_still_being_sent_is_a_sign_of_life(run):
    result = run("""
      const [socket, told] = talk();
      await settled(); await sockets[0].greet();
      sockets[0].bufferedAmount = 1000;
      await tick(25_000);
      for (let n = 0; n < 5; n++) { sockets[0].bufferedAmount -= 10; await tick(20_000); }
      const alive = [...told];
      await tick(20_000);
      return [alive, told.at(-1), sockets.length];
    """)
    assert result == [["open 0"], "lost 1006", 2]


def test_patience_doubles_with_each_connection_on_which_nothing_came(run):
    result = run("""
      const [socket, told] = talk();
      await settled(); await sockets[0].greet();
      const waits = [];
      for (let n = 0; n < 4; n++) {
        let waited = 0;
        for (const count = sockets.length; sockets.length === count; waited += 5000) await tick(5000);
        waits.push(waited - 25_000);
        await sockets.at(-1).greet({ resumed: true });
        if (n === 2) sockets.at(-1).receive("after all");
      }
      return waits;
    """)
    assert result == [20_000, 40_000, 80_000, 20_000]


def test_the_server_is_asked_to_acknowledge_what_it_has_had_for_seconds(run):
    result = run("""
      const [socket, told] = talk();
      await settled(); await sockets[0].greet();
      await tick(10_000); const idle = sockets[0].sent.length;
      socket.send("a"); await tick(4999); const soon = sockets[0].sent.length;
      await tick(1); const asked = sockets[0].sent.at(-1);
      sockets[0].receive(`${D}a1`); await tick(20_000); const after = sockets[0].sent.length;
      sockets[0].end(1006); await tick(1000); await sockets[1].greet();
      return [idle, soon, asked, after, told.at(-1)];
    """)
    assert result == [1, 2, f"{DLE}p0", 3, "open 0"]


def test_it_writes_no_more_than_a_server_holds_that_slows_it_down_until_that_acknowledges(run):
    result = run("""
      const [socket, told] = talk();
      await settled(); await sockets[0].greet();
      const large = "x".repeat(100_000);
      for (let n = 0; n < 10; n++) socket.send(large);
      const counts = [sockets[0].sent.length - 1, socket.bufferedAmount];
      sockets[0].receive(`${D}a1`); counts.push(sockets[0].sent.length - 1);
      sockets[0].end(1006); await tick(1000); await sockets[1].greet({ resumed: true, received: 9 });
      counts.push(sockets[1].sent.length - 1, socket.bufferedAmount);
      for (let n = 0; n < 10_000; n++) socket.send("x");
      counts.push(sockets[1].sent.length);
      sockets[1].end(1006); await tick(1000); await sockets[2].greet();
      return [counts, told.at(-1), sockets[2].sent.length];
    """)
    assert result[0] == [8, 200_000, 9, 1, 0, 6798], "786,432 bytes, where a message counts for 100 more"
    assert result[1:] == ["open 6797", 1 + 10_001 - 6797]


def test_what_waits_for_acknowledgements_is_written_before_a_close(run):
    result = run("""
      const [socket] = talk();
      await settled(); await sockets[0].greet();
      for (let n = 0; n < 10; n++) socket.send("x".repeat(100_000));
      socket.close(4000);
      return [sockets[0].sent.length - 1, sockets[0].closedWith[0]];
    """)
    assert result == [10, 4000]


@pytest.mark.parametrize("waits", [True, False])
def test_blobs_that_wait_are_written_before_a_close(run, waits):
    result = run(f"""
      const [socket] = talk();
      await settled(); await sockets[0].greet();
      for (let n = 0; n < {10 if waits else 0}; n++) socket.send("x".repeat(100_000));
      socket.send(new Blob(["blob"])); socket.send("last");
      socket.close(4000, "bye");
      const atOnce = sockets[0].closedWith;
      while (!sockets[0].closedWith) await settled();
      return [atOnce, sockets[0].sent.length - 1, sockets[0].closedWith[0], sockets[0].sent.at(-1)];
    """)
    assert result == [None, 12 if waits else 2, 4000, "last"]


def test_without_a_heartbeat_a_silent_connection_stays(run):
    result = run("""
      const [socket, told] = talk();
      await settled(); await sockets[0].greet({ heartbeatMs: 0 });
      await tick(600_000);
      return [sockets[0].sent.length, told, sockets.length];
    """)
    assert result == [1, ["open 0"], 1]


def test_a_page_that_is_shown_asks_for_a_sign_of_life_and_does_not_wait_for_it_long(run):
    result = run("""
      const [socket, told] = talk();
      await settled(); await sockets[0].greet();
      document.dispatchEvent(new Event("visibilitychange"));
      const asked = sockets[0].sent.at(-1);
      sockets[0].receive(`${D}a0`);
      await tick(2000);
      const kept = sockets.length;
      document.dispatchEvent(new Event("visibilitychange"));
      await tick(1999);
      const patient = sockets.length;
      await tick(1);
      return [asked, kept, patient, sockets.length, told, sockets[0].closedWith[0]];
    """)
    assert result == [f"{DLE}p0", 1, 1, 2, ["open 0", "lost 1006"], 4901]


def test_a_page_that_goes_into_the_cache_lets_its_connection_go_and_comes_back_with_its_session(run):
    result = run("""
      const [socket, told] = talk();
      await settled(); await sockets[0].greet();
      socket.send("a");
      dispatchEvent(new PageTransitionEvent("pagehide", { persisted: false }));
      const stays = sockets[0].closedWith;
      dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true }));
      socket.send("b");
      dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
      await settled(); await sockets[1].greet({ resumed: true, received: 0 });
      const sent = sockets[1].sent.slice(1);
      await tick(20_000);
      return [stays, sockets[0].closedWith[0], told, sent, sockets.length];
    """)
    assert result == [None, 4901, ["open 0", "lost 1001", "resumed"], ["a", "b"], 2]


def test_its_own_close_ends_the_session_and_nothing_else_does(run):
    result = run("""
      const begin = async () => {
        const [socket] = talk({ connectTimeout: 500 });
        await settled();
        const own = sockets.at(-1);
        await own.greet();
        return [socket, own];
      };
      const [first, own] = await begin();
      first.close();
      const [second, lost] = await begin();
      lost.end(1006); await tick(600); sockets.at(-1).open("wsthreads.1"); second.close(4000, "mine");
      const closing = sockets.at(-1);
      const [third, gone] = await begin();
      gone.end(1006); await tick(600); sockets.at(-1).open("wsthreads.1");
      const slow = sockets.at(-1);
      await tick(500);
      return [own, closing, slow].map(({ closedWith }) => closedWith[0] ?? null);
    """)
    assert result == [1000, 4000, 4901]


def test_a_renewed_connection_takes_the_session_over_and_the_old_one_is_not_heard_from_then_on(run):
    result = run("""
      const [socket, told] = talk({}, () => ({ url: "/ws/x", expiresAt: clock() + 70_000 }));
      await settled(); await sockets[0].greet({ heartbeatMs: 0 });
      sockets[0].receive("a");
      await tick(40_000);
      sockets[0].receive("b"); socket.send("x");
      sockets[1].open("wsthreads.1");
      sockets[0].receive("c, which comes again"); socket.send("y");
      const hello = sockets[1].sent[0];
      await sockets[1].greet({ resumed: true, token: "t2", received: 0 });
      return [told, hello, sockets[0].sent.slice(1), sockets[0].closedWith[0], sockets[1].sent.slice(2)];
    """)
    assert result == [
        ["open 0", "a", "b", "resumed"], f'{DLE}h{{"resume":{{"token":"t","received":2}}}}', ["x"], 4901, ["x", "y"],
    ]  # fmt: skip


def test_a_renewed_session_that_cannot_be_resumed_overlaps_as_those_of_other_servers_do(run):
    result = run("""
      const [socket, told] = talk({}, () => ({ url: "/ws/x", expiresAt: clock() + 70_000 }));
      await settled(); await sockets[0].greet({ token: null, heartbeatMs: 0 });
      const asked = outcome(socket.request("x")), other = outcome(socket.request("y"));
      await tick(5000); const kept = outcome(socket.request("z", { timeoutMs: 1e6 }));
      await tick(4000); sockets[0].receive(`${D}r1:answer`);
      await tick(31_000); await sockets[1].greet({ token: null });
      sockets[0].receive("from the old one"); sockets[1].receive("from the new one"); sockets[0].receive("too late");
      return [told, sockets[0].closedWith, await asked, await other, await kept];
    """)
    assert result == [
        ["open 0", "open null", "from the old one", "from the new one"], [1000, "renewed"], "answer",
        "RequestTimeout: no answer within 10000 ms", "SessionClosed: the session is over",
    ]  # fmt: skip


# Other servers


def test_a_browser_that_gave_up_the_offer_connects_without_it_at_once_and_offers_it_again_later(run):
    result = run("""
      const [socket, told] = talk();
      const offers = () => sockets.map(({ protocols }) => protocols.length);
      await settled(); sockets[0].end(1006); await settled();
      sockets[1].open(); socket.send(`${D}as it is`);
      sockets[1].receive(`${D}as it is`); sockets[1].end(1006);
      await tick(1000); sockets[2].end(1006); await settled(); sockets[3].open(); sockets[3].end(1006);
      await tick(2000); sockets[4].open();
      return [offers(), told, sockets[1].sent, timers.size];
    """)
    assert result == [
        [1, 0, 1, 0, 0],
        ["open 0", f"{DLE}as it is", "lost 1006", "open null", "lost 1006", "open null"],
        [f"{DLE}as it is"], 2,
    ]  # fmt: skip


def test_a_server_that_echoes_the_offer_or_says_nothing_gets_a_plain_client(run):
    result = run("""
      const [echoed, told] = talk();
      await settled(); sockets[0].open("wsthreads.1"); sockets[0].receive(sockets[0].sent[0]); await settled();
      sockets[1].open();
      const [silent, heard] = talk({ connectTimeout: 1000 });
      await settled(); sockets[2].open("wsthreads.1"); await tick(1000);
      sockets[3].open();
      return [sockets.map(({ protocols, closedWith }) => [protocols.length, closedWith?.[0] ?? null]), told, heard];
    """)
    assert result == [[[1, 4002], [0, None], [1, None], [0, None]], ["open 0"], ["open 0"]]


def test_a_server_that_knew_the_subprotocol_is_asked_for_it_until_it_cannot_have_the_session_any_more(run):
    result = run("""
      const [socket] = talk();
      await settled(); await sockets[0].greet(); sockets[0].end(1006);
      for (let n = 0; n < 7; n++) { await tick(30_000); sockets.at(-1).end(1006); await settled(); }
      return sockets.map(({ protocols }) => protocols.length);
    """)
    assert result[:6] == [1] * 6
    assert 0 in result[6:]


def test_a_session_that_may_wait_is_not_given_up_for_handshakes_that_are_refused(run):
    result = run("""
      const [socket, told] = talk({ minDelay: 10, maxDelay: 10 });
      await settled(); await sockets[0].greet({ resumeMs: 60_000 }); sockets[0].end(1006);
      for (let n = 0; n < 20; n++) { await tick(100); sockets.at(-1).end(1006); await settled(); }
      const offers = new Set(sockets.map(({ protocols }) => protocols.length));
      await tick(100); await sockets.at(-1).greet({ resumed: true });
      return [[...offers], told.at(-1)];
    """)
    assert result == [[1], "resumed"]


def test_a_server_that_has_spoken_once_is_asked_for_the_subprotocol_whenever_the_page_reconnects(run):
    result = run("""
      const [socket] = talk({ minDelay: 10, maxDelay: 10 });
      await settled(); await sockets[0].greet({ resumeMs: 1000 });
      const first = [];
      for (let n = 0; n < 4; n++) {
        sockets.at(-1).end(1006);
        for (let m = 0; m < 7; m++) { await tick(1000); if (m === 0) first.push(sockets.at(-1).protocols.length);
          if (sockets.at(-1).protocols.length) { sockets.at(-1).end(1006); await settled(); } }
        sockets.at(-1).open(); await tick(10_000);
      }
      return first;
    """)
    assert result == [1, 1, 1, 1]


def test_what_is_sent_again_after_a_resume_is_buffered_while_the_page_is_away(run):
    result = run("""
      const [socket] = talk();
      await settled(); await sockets[0].greet();
      socket.send("12345"); const open = socket.bufferedAmount;
      sockets[0].end(1006); socket.send("678");
      return [open, socket.bufferedAmount];
    """)
    assert result == [0, 8]


def test_close_codes_before_the_welcome_are_told(run):
    result = run("""
      const [socket, told] = talk();
      await settled(); sockets[0].open("wsthreads.1"); sockets[0].end(4003);
      await tick(60_000);
      return [told, sockets.length];
    """)
    assert result == [["closed 4003"], 1]
