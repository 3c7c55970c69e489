"""wsthreads.js: how it is served, and what it does in Chromium, with a server that comes and goes and with none at all.

Delays are judged with a clock and sockets of the test's own.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import socket
import sys
import tempfile
from base64 import b64encode
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

import wsthreads.client
from tests.browsing import expect
from tests.client.minify import MINIFIED, minified
from tests.programs import DEADLINE_S, PROGRAM_S, Browser, Program, run_server
from wsthreads import WebSocketApp

FOLDER = Path(wsthreads.client.__file__).parent

ECHO = """
export function onOpen(session) { session.room("all").join() }
export function onMessage(session, message) {
  const [command, code] = message.split(" ");
  if (command === "close") session.close(Number(code), "as you wish");
  else session.send(`echo ${message}`);
}
"""

PAGE = """<!doctype html><link rel="icon" href="data:,"><ol id="log"></ol><script type="module">
import { ReconnectingWebSocket } from "/wsthreads.js";
const socket = globalThis.socket = new ReconnectingWebSocket("/ws/echo", [], { minDelay: 50, maxDelay: 100 });
const note = (text) => document.getElementById("log").append(
  Object.assign(document.createElement("li"), { textContent: text }));
socket.onopen = () => note("open");
socket.onmessage = ({ data }) => note(data);
socket.onreconnecting = ({ detail }) => { if (detail.attempt === 1) note(`lost ${detail.code}`); };
socket.onclose = ({ code, reason, wasClean }) => note(`closed ${code} ${reason} ${wasClean}`);
</script>"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "index.html").write_text(PAGE)
    (tmp_path / "echo.js").write_text(ECHO)
    return [tmp_path / "echo.js", "--static", tmp_path / "public", "--serve-client"]


def log_of(page):
    return page.locator("#log li")


def send(page, *messages):
    return page.evaluate("(messages) => messages.map((message) => socket.send(message))", list(messages))


# With a real server


def test_a_client_that_is_refused_with_a_close_code_learns_it_and_does_not_come_back(window, site):
    """Also one that offers a token as a subprotocol: a browser gives up where none of these is spoken."""
    script = site[0]
    refuse = "export function onHandshake(request) { return { close: 4003, reason: 'banned' }; }"
    script.write_text(script.read_text() + refuse)
    page_file = script.parent / "public" / "index.html"
    page_file.write_text(PAGE.replace('"/ws/echo", []', '"/ws/echo", ["token.abc"]'))
    with run_server(*site) as server:
        page = window(server.url)
        expect(log_of(page)).to_have_text(["closed 4003 banned true"])
        server.wait_for(r"refused: connection opened \(101\) and closed with 4003 banned")


def test_it_comes_back_and_sends_what_was_queued_in_order(window, site):
    with run_server(*site) as server:
        page = window(server.url)
        expect(log_of(page)).to_have_text(["open"])
        assert send(page, "one") == [True]
        expect(log_of(page)).to_have_text(["open", "echo one"])
        server.process.kill()
        expect(log_of(page)).to_have_text(["open", "echo one", "lost 1006"])
        assert send(page, *(f"queued {number}" for number in range(20))) == [True] * 20
        queued_bytes = 10 * len("queued 0") + 10 * len("queued 10")
        assert page.evaluate("[socket.readyState, socket.bufferedAmount]") == [0, queued_bytes]
    with run_server(*site, port=server.port) as server:
        echoes = [f"echo queued {number}" for number in range(20)]
        expect(log_of(page)).to_have_text(["open", "echo one", "lost 1006", "open", *echoes])
        assert page.evaluate("[socket.readyState, socket.bufferedAmount]") == [1, 0]
        page.evaluate("socket.close(4000, 'enough')")
        expect(log_of(page).last).to_have_text("closed 4000  true")
        assert send(page, "too late") == [False]


def test_a_final_code_ends_it_and_another_does_not(window, site):
    with run_server(*site) as server:
        page = window()
        for code in (1000, 1008, 4002):
            page.goto(server.url)
            expect(log_of(page)).to_have_text(["open"])
            send(page, f"close {code}")
            expect(log_of(page)).to_have_text(["open", f"closed {code} as you wish true"])
            assert page.evaluate("socket.readyState") == 3
        page.goto(server.url)
        expect(log_of(page)).to_have_text(["open"])
        send(page, "close 1012")
        expect(log_of(page)).to_have_text(["open", "lost 1012", "open"])
        send(page, "x")
        expect(log_of(page).last).to_have_text("echo x")


def answer_upgrade(connection):
    """Take a browser's handshake, without extensions."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)[1]
    accept = b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def receive_short(connection):
    """The next message of a browser, of less than 126 bytes."""
    head = connection.recv(6, socket.MSG_WAITALL)
    data = connection.recv(head[1] & 127, socket.MSG_WAITALL)
    return bytes(byte ^ head[2 + index % 4] for index, byte in enumerate(data))


def test_no_message_is_lost_while_a_slow_connection_closes(window, blank_page):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_S)
        page = window(blank_page)
        page.evaluate(
            """async (url) => {
          const { ReconnectingWebSocket } = await import("/wsthreads.js");
          const Noted = class extends WebSocket { constructor(...a) { super(...a); globalThis.native = this; } };
          globalThis.socket = new ReconnectingWebSocket(url, [], { minDelay: 10, plain: true, WebSocket: Noted });
        }""",
            f"ws://127.0.0.1:{listener.getsockname()[1]}/",
        )
        first, _ = listener.accept()
        with first:
            first.settimeout(DEADLINE_S)
            answer_upgrade(first)
            page.wait_for_function("socket.readyState === 1")
            first.sendall(b"\x88\x02\x03\xf4")  # 1012; the TCP connection stays for the time being
            page.wait_for_function("native.readyState === 2")
            assert page.evaluate("['one', 'two'].map((text) => socket.send(text))") == [True, True]
        second, _ = listener.accept()
        with second:
            second.settimeout(DEADLINE_S)
            answer_upgrade(second)
            assert [receive_short(second), receive_short(second)] == [b"one", b"two"]


def test_a_connection_from_before_the_network_was_away_is_replaced(window, site):
    with run_server(*site) as server:
        page = window(server.url)
        expect(log_of(page)).to_have_text(["open"])
        page.context.set_offline(True)  # it stays open, as far as Chromium is concerned
        page.context.set_offline(False)
        expect(log_of(page)).to_have_text(["open", "lost 1006", "open"])
        send(page, "x")
        expect(log_of(page).last).to_have_text("echo x")


GUARD = """
import json, time

def on_handshake(request):
    request.set_expiry(float(request.get_parameter("exp")))
    request.user = "ann"

def on_open(session):
    session.room("all").join(presence="here")
    session.send("hello")

def on_message(session, message):
    session.send(f"{message} by {session.get_parameter('n')}")

def on_close(session, code, reason):
    print("ended", code, reason, flush=True)

def on_presence(room, changes):
    print("presence", len(changes.joined), len(changes.left), flush=True)
"""


def test_a_page_renews_its_token_in_time_and_its_user_never_leaves(window, site):
    script, *options = site
    guard = script.with_name("guard.py")
    guard.write_text(GUARD)
    page_file = script.parent / "public" / "index.html"
    page_file.write_text(
        PAGE.replace(
            '"/ws/echo"',
            """(() => {
      let n = 0;
      return async () => {
        const time = Date.now() + 4000;
        return { url: `/ws/guard?exp=${time / 1000}&n=${++n}`, expiresAt: time };
      };
    })()""",
        )
    )
    with run_server(guard, *options) as server:
        page = window(server.url)
        expect(log_of(page).nth(5)).to_have_text("hello")
        assert log_of(page).all_inner_texts()[:6] == ["open", "hello"] * 3
        send(page, "x")
        expect(log_of(page).filter(has_text="x by ")).to_have_count(1)
        server.wait_for("ended 1000 renewed", times=2)
        assert "ended 3000" not in server.log
        assert re.findall("presence (.*)", server.log) == ["1 0"]


# With sockets and a clock of our own


def test_waiting_grows_with_jitter_and_starts_anew_after_a_stable_time(run):
    result = run("""
      const [socket, events] = make();
      const delays = async (value, count) => {
        setRandom(value);
        for (let n = 0; n < count; n++) {
          await settled();
          sockets.at(-1).end(1006);
          await tick(60_000);
        }
        return events.splice(0).filter((event) => event.delay !== undefined).map((event) => event.delay);
      };
      const found = [await delays(0, 8)];
      sockets.at(-1).open(); await tick(5000);
      found.push(await delays(0.999999, 3));
      sockets.at(-1).open(); await tick(4999);
      found.push(await delays(0, 1));
      return found.map((delays) => delays.map(Math.round));
    """)
    assert result == [[500, 1000, 2000, 4000, 8000, 15000, 15000, 15000], [1000, 2000, 4000], [4000]]


def test_an_attempt_that_takes_too_long_is_given_up(run):
    result = run("""
      const [socket, events] = make("/ws/x", { connectTimeout: 10_000 });
      await tick(9999);
      const before = [sockets.length, socket.readyState];
      await tick(1);
      sockets[0].open();  // too late: nobody listens
      return [before, sockets[0].closedWith !== undefined, events, socket.readyState];
    """)
    assert result == [[1, 0], True, [{"code": 1006, "reason": "timeout", "attempt": 1, "delay": 500}], 0]


def test_it_gives_up_after_as_many_attempts_as_it_may(run):
    result = run("""
      const [socket, events] = make("/ws/x", { maxAttempts: 2 });
      for (let n = 0; n < 3; n++) { await settled(); sockets.at(-1).end(1006); await tick(60_000); }
      return [sockets.length, events.at(-1), socket.readyState, socket.send("x"), timers.size];
    """)
    assert result == [3, ["close", 1006], 3, False, 0]


def test_which_codes_are_final(run):
    codes = [*range(1000, 1004), *range(1005, 1016), 3000, 3001, 4000, 4999]
    final = run(f"return {codes}.filter(isFinal)")
    assert final == [1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 4000, 4999]
    result = run("""
      const [socket, events] = make("/ws/x", { isFinal: ({ code }) => code === 1011 });
      await settled(); sockets[0].open(); sockets[0].end(4000); await tick(1000);
      sockets[1].open(); sockets[1].end(1011);
      return [sockets.length, socket.readyState, events.at(-1)];
    """)
    assert result == [2, 3, ["close", 1011]]


def test_the_queue_is_bounded_and_says_so(run):
    result = run("""
      const [few] = make("/ws/x", { maxQueued: 2 });
      const [small] = make("/ws/x", { maxQueuedBytes: 6 });
      const answers = [
        ["a", "b", "c"].map((text) => few.send(text)),
        ["é☃", new Uint8Array(1), "x", ""].map((data) => small.send(data)),
      ];
      await settled();
      for (const socket of sockets) socket.open();
      return [...answers, sockets[1].sent.length, small.bufferedAmount, few.send("d"), sockets[0].sent];
    """)
    assert result == [[True, True, False], [True, True, False, True], 3, 0, True, ["a", "b", "d"]]


def test_what_is_sent_while_the_other_side_closes_waits_for_the_next_connection(run):
    result = run("""
      const [socket, events] = make();
      await settled(); sockets[0].open(); socket.send("before");
      sockets[0].readyState = 2;
      const answers = [socket.readyState, socket.send("while"), socket.send(new Uint8Array([1]))];
      answers.push(socket.bufferedAmount);
      sockets[0].end(1012); await tick(1000);
      sockets[1].open(); socket.send("after");
      const [other] = make(); await settled();
      sockets[2].open(); sockets[2].readyState = 3; other.send("x"); sockets[2].end(4000);
      return [answers, sockets[0].sent, sockets[1].sent.map(String), socket.readyState, other.readyState,
        other.send("y"), other.bufferedAmount];
    """)
    assert result == [[0, True, True, 6], ["before"], ["while", "1", "after"], 1, 3, False, 0]


def test_bytes_that_wait_are_copied(run):
    result = run("""
      const [socket] = make();
      const bytes = new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]);
      const kinds = [bytes, bytes.buffer, bytes.subarray(2, 4), new Uint16Array(bytes.buffer, 2, 1),
        new DataView(bytes.buffer, 6)];
      const waiting = kinds.map((kind) => socket.send(kind));
      const size = socket.bufferedAmount;
      bytes.fill(99);
      await settled(); sockets[0].open();
      const copied = sockets[0].sent.map((data) => [...new Uint8Array(data.buffer ?? data)]);
      sockets[0].sent.length = 0;
      kinds.forEach((kind) => socket.send(kind));
      const direct = sockets[0].sent.map((data) => data.byteLength);
      const blob = new Blob(["blob"]);
      const [other] = make(); await settled();
      other.send(blob); sockets[1].open();
      return [waiting, size, copied, direct, sockets[1].sent[0] === blob];
    """)
    whole = [1, 2, 3, 4, 5, 6, 7, 8]
    assert result == [[True] * 5, 22, [whole, whole, [3, 4], [3, 4], [7, 8]], [8, 8, 2, 2, 2], True]


def test_anything_else_is_a_text_whether_it_waits_or_not(run):
    result = run("""
      const values = [undefined, null, 5, {}, [1, 2], true, 10n, new Date(NaN), { toString: () => "own" }];
      const bad = [() => socket.send(), () => socket.send(Symbol("s")), () => socket.send({ toString() { throw 1; } })];
      const outcome = (call) => { try { return call(); } catch (error) { return error?.name ?? error; } };
      const [socket] = make();
      const waiting = [...values.map((value) => socket.send(value)), ...bad.map(outcome)];
      await settled(); sockets[0].open();
      const queued = sockets[0].sent.splice(0);
      const open = [...values.map((value) => socket.send(value)), ...bad.map(outcome)];
      return [waiting, open, queued, sockets[0].sent];
    """)
    texts = ["undefined", "null", "5", "[object Object]", "1,2", "true", "10", "Invalid Date", "own"]
    answers = [True] * 9 + ["TypeError", "TypeError", 1]
    assert result == [answers, answers, texts, texts]


def test_an_open_connection_is_replaced_when_the_page_has_stood_still(run):
    result = run("""
      const [socket, events] = make();
      await settled(); sockets[0].open();
      await tick(600_000);  // an ordinary time
      const counts = [sockets.length];
      sleep(60_000); await tick(60_000);  // as a hidden page may
      counts.push(sockets.length);
      sleep(3_600_000); await tick(10_099);
      counts.push(sockets.length);
      await tick(1);
      counts.push(sockets.length);
      const state = socket.readyState;
      socket.send("x"); sockets[1].open();
      const [never] = make("/ws/x", { maxPause: Infinity });
      await settled(); sockets[2].open(); sleep(1e12); await tick(20_000);
      return [counts, sockets[0].closedWith !== undefined, state, sockets[1].sent, events.at(2), never.readyState];
    """)
    lost = {"code": 1006, "reason": "the page was away", "attempt": 1, "delay": 0}
    assert result[:5] == [[1, 1, 1, 2], True, 0, ["x"], "open"]
    assert result[5] == 1
    assert (
        run("""
      const [socket, events] = make();
      await settled(); sockets[0].open(); sleep(100_000); await tick(10_100);
      return events[1];
    """)
        == lost
    )


@pytest.mark.parametrize(
    ("event", "replaced"),
    [
        ("window.dispatchEvent(new Event('online'))", True),
        ("window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))", True),
        ("window.dispatchEvent(new PageTransitionEvent('pageshow'))", False),
        ("document.dispatchEvent(new Event('visibilitychange'))", False),
        ("sleep(91_000); document.dispatchEvent(new Event('visibilitychange'))", True),
    ],
)
def test_an_open_connection_is_replaced_when_the_page_comes_back(run, event, replaced):
    result = run(f"""
      const [socket, events] = make();
      await settled(); sockets[0].open(); await tick(5000);
      {event};
      await tick(100);
      sockets.at(-1).open();
      socket.send("x");
      socket.close(); sockets.at(-1).end(1000);
      window.dispatchEvent(new Event("online")); await tick(100_000);
      return [sockets.length, sockets.at(-1).sent, timers.size];
    """)
    assert result == [2 if replaced else 1, ["x"], 0]


def test_options_in_the_place_of_subprotocols_are_an_error(run):
    told = run("""
      const [socket] = make(), Socket = socket.constructor;
      new Socket("/", "one").close(); new Socket("/", ["one"]).close();
      try { new Socket("/", { maxPause: 5 }); } catch (error) { return `${error}`; }
    """)
    assert told == "TypeError: options are the third argument"


def test_when_the_page_comes_back_what_the_browser_has_received_comes_first(run):
    """The page was busy or frozen, and its user was kicked meanwhile."""
    result = run("""
      const [socket, events] = make();
      const heard = [];
      socket.onmessage = ({ data }) => heard.push(data);
      socket.onclose = ({ code }) => heard.push(code);
      await settled(); sockets[0].open();
      window.dispatchEvent(new Event("online"));
      await tick(99); sockets[0].onmessage({ data: "you were kicked" }); await tick(99);
      sockets[0].end(4003); await tick(60_000);
      return [heard, sockets.length, socket.readyState, timers.size];
    """)
    assert result == [["you were kicked", 4003], 1, 3, 0]


def test_a_connection_is_replaced_also_if_messages_come_all_the_time(run):
    result = run("""
      make();
      await settled(); sockets[0].open();
      window.dispatchEvent(new Event("online"));
      for (let count = 0; count < 39; count++) {
        await tick(50); sockets[0].onmessage?.({ data: "more" });
      }
      const before = sockets.length;
      await tick(100);
      return [before, sockets.length];
    """)
    assert result == [1, 2]


@pytest.mark.parametrize("after", [50, 150, 1500])
def test_a_close_that_the_browser_has_begun_is_heard_when_the_page_comes_back(run, after):
    result = run(f"""
      const [socket] = make();
      const heard = [];
      socket.onclose = ({{ code }}) => heard.push(code);
      await settled(); sockets[0].open();
      sockets[0].readyState = 2;
      window.dispatchEvent(new Event("online"));
      await tick({after}); sockets[0].end(4003); await tick(60_000);
      return [heard, sockets.length, timers.size];
    """)
    assert result == [[4003], 1, 0]


def test_what_a_page_sends_when_it_comes_back_is_not_written_into_the_old_connection(run):
    """The old connection may be dead, and a session that cannot be resumed has no copy of the message."""
    result = run("""
      const [socket] = make();
      await settled(); sockets[0].open();
      window.dispatchEvent(new Event("online"));
      const isTaken = socket.send("I am back");
      await tick(60); window.dispatchEvent(new Event("online")); await tick(40);
      sockets[1].open(); await settled();
      socket.send("and well");
      return [isTaken, sockets.map(({ sent }) => sent)];
    """)
    assert result == [True, [[], ["I am back", "and well"]]]


def test_a_close_when_the_page_comes_back_still_sends_what_waits(run):
    result = run("""
      const [socket] = make();
      await settled(); sockets[0].open();
      window.dispatchEvent(new Event("online"));
      socket.send("last"); socket.close();
      sockets[0].end(1000); await tick(5000);
      return [sockets.length, sockets[0].sent, socket.readyState];
    """)
    assert result == [1, ["last"], 3]


def test_it_wakes_up_when_the_page_does(run):
    result = run("""
      const [socket] = make();
      await settled(); sockets[0].end(1006);
      window.dispatchEvent(new Event("online")); await settled();
      const count = [sockets.length];
      sockets[1].end(1006);
      document.dispatchEvent(new Event("visibilitychange")); await settled();
      count.push(sockets.length);
      window.dispatchEvent(new Event("online")); await settled();  // an attempt is under way
      count.push(sockets.length);
      sockets[2].open(); socket.reconnect(); await settled();
      count.push(sockets.length);
      socket.close(); sockets[2].end(1000);
      window.dispatchEvent(new Event("online")); await tick(60_000);
      return [...count, sockets.length, timers.size];
    """)
    assert result == [2, 3, 3, 3, 3, 0]


def test_close_is_for_good_at_any_time(run):
    result = run("""
      const [waiting, first] = make();
      await settled(); sockets[0].end(1006); waiting.send("x");
      waiting.close(4001, "bye"); await tick(60_000);
      const [connecting, second] = make();
      await settled(); connecting.close(); connecting.close(); await tick(60_000);
      const [open, third] = make();
      await settled(); sockets[2].open(); open.close(3500, "so long"); const state = open.readyState;
      sockets[2].end(3500); await tick(60_000);
      const refused = [[1001], [1000, "x".repeat(124)]].map((parts) => {
        try { make()[0].close(...parts); return "no"; } catch (error) { return error.name; }
      });
      return [first.at(-1), second, sockets[1].closedWith !== undefined, sockets[2].closedWith, state, third, refused];
    """)
    assert result == [
        ["close", 4001], [["close", 1000]], True, [3500, "so long"], 2, ["open", ["close", 3500]],
        ["InvalidAccessError", "SyntaxError"],
    ]  # fmt: skip


def test_the_address_is_asked_for_each_time(run):
    result = run("""
      let calls = 0;
      const [socket, events] = make(async () => {
        if (++calls === 2) throw new Error("no token");
        return `https://example.org/ws?token=${calls}`;
      });
      await settled(); sockets[0].end(1006); await tick(60_000);
      make("live?x=1"); await settled();
      return [calls, sockets.map((socket) => socket.url.replace(location.host, "HOST"))];
    """)
    assert result == [3, ["wss://example.org/ws?token=1", "wss://example.org/ws?token=3", "ws://HOST/live?x=1"]]


TOKENS = """
  let calls = 0;
  const tokens = (left) => async () => ({ url: `/ws/x?token=${++calls}`, expiresAt: clock() + left });
  const addresses = () => sockets.map((socket) => socket.url.replace(/.*=/, ""));
"""


def test_a_token_is_renewed_before_it_expires_while_the_old_connection_goes_on(run):
    result = run(f"""{TOKENS}
      const [socket, events] = make(tokens(600_000)), heard = [];
      socket.onmessage = ({{ data }}) => heard.push(data);
      const hear = (n, data) => sockets[n].onmessage({{ data, origin: "" }});
      await settled(); sockets[0].open();
      await tick(569_999);
      const before = addresses();
      await tick(1);
      socket.send("to the old one"); hear(0, "from the old one");
      const meanwhile = [addresses(), socket.readyState, sockets[0].closedWith ?? null];
      sockets[1].open();
      socket.send("to the new one"); hear(1, "from the new one"); hear(0, "too late");
      sockets[0].end(1000);
      await tick(570_000);
      sockets[2].open(); hear(2, "from the newest one");
      const others = events.filter((event) => event !== "message");
      return [before, meanwhile, sockets.map(({{ sent }}) => sent), heard, others,
        sockets.map(({{ closedWith }}) => closedWith ?? null), socket.readyState, addresses()];
    """)
    assert result == [
        ["1"], [["1", "2"], 1, None], [["to the old one"], ["to the new one"], []],
        ["from the old one", "from the new one", "from the newest one"], ["open", "open", "open"],
        [[1000, "renewed"], [1000, "renewed"], None], 1, ["1", "2", "3"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("left", "renewed"),
    [(61_000, 31_000), (60_000, 30_000), (40_000, 20_000), (2, 1), (60 * 86_400_000, 60 * 86_400_000 - 30_000)],
)
def test_a_short_token_is_renewed_in_the_middle_of_its_time_and_a_long_one_not_at_once(run, left, renewed):
    result = run(f"""{TOKENS}
      make(tokens({left}));
      await settled(); sockets[0].open();
      await tick({renewed} - 1);
      const before = sockets.length;
      await tick(1);
      return [before, sockets.length];
    """)
    assert result == [1, 2]


def test_no_timer_is_longer_than_browsers_can_wait(run):
    assert run(f"""{TOKENS}
      make(tokens(60 * 86_400_000));
      await settled(); sockets[0].open();
      return Math.max(...[...timers.values()].map(({{ due }}) => due - clock())) <= 2 ** 31 - 1;
    """)


def test_a_renewal_that_fails_is_tried_again_until_the_old_connection_ends(run):
    result = run(f"""{TOKENS}
      let broken = false;
      const fresh = tokens(600_000);
      const [socket, events] = make(() => {{ if (broken) throw new Error("no token"); return fresh(); }});
      await settled(); sockets[0].open();
      await tick(570_000); sockets[1].end(1006);            // refused
      await tick(500); broken = true; sockets[2].end(1006);
      await tick(1000); broken = false;                     // the function failed
      const before = [sockets.length, socket.readyState, events.length];
      await tick(2000);
      const late = sockets[3];
      sockets[0].end(3000);                                 // expired
      late.open();                                          // nobody listens
      await tick(500); sockets[4].open();
      return [before, late.closedWith !== undefined, socket.readyState, sockets.length,
        events.map((event) => event.code ?? event)];
    """)
    assert result == [[3, 1, 1], True, 1, 5, ["open", 3000, "open"]]


RENEWED = f"""{TOKENS}
  const [socket, events] = make(tokens(600_000)), heard = [];
  socket.onmessage = ({{ data }}) => heard.push(data);
  const hear = (n, data) => sockets[n].onmessage({{ data, origin: "" }});
  await settled(); sockets[0].open(); await tick(570_000); sockets[1].open();
"""


def test_a_replaced_connection_still_receives_until_the_first_message_of_the_new_one(run):
    result = run(f"""{RENEWED}
      socket.binaryType = "arraybuffer";
      hear(0, "one"); hear(0, "two");
      const meanwhile = [sockets[0].closedWith ?? null, socket.send("x"), sockets[0].sent, sockets[1].sent];
      let closedAtFirst = null;
      socket.onmessage = ({{ data }}) => {{ heard.push(data); closedAtFirst ??= sockets[0].closedWith; }};
      hear(1, "three"); hear(0, "three"); hear(1, "four");
      sockets[0].end(1000); await tick(60_000);
      return [meanwhile, heard, closedAtFirst, sockets[0].binaryType, events.filter((event) => event !== "message")];
    """)
    assert result == [
        [None, True, [], ["x"]], ["one", "two", "three", "four"], [1000, "renewed"], "arraybuffer", ["open", "open"],
    ]  # fmt: skip


def test_a_replaced_connection_is_closed_after_two_seconds_if_the_new_one_gets_no_message(run):
    result = run(f"""{RENEWED}
      await tick(1999); hear(0, "one");
      const before = sockets[0].closedWith ?? null;
      await tick(1); hear(0, "too late");
      return [before, sockets[0].closedWith, sockets[1].closedWith ?? null, heard];
    """)
    assert result == [None, [1000, "renewed"], None, ["one"]]


@pytest.mark.parametrize(
    ("event", "state", "told"),
    [("sockets[0].end(3000)", 1, []), ("sockets[1].end(1006)", 0, [1006]), ("socket.close()", 2, []),
     ("window.dispatchEvent(new Event('online')); await tick(100)", 0, [1006])],
)  # fmt: skip
def test_a_replaced_connection_ends_with_itself_the_new_one_and_the_client(run, event, state, told):
    result = run(f"""{RENEWED}
      hear(0, "one");
      {event};
      hear(0, "too late");
      return [heard, sockets[0].readyState >= 2, socket.readyState, events.slice(3).map(({{ code }}) => code)];
    """)
    assert result == [["one"], True, state, told]


def test_a_second_renewal_closes_the_connection_before_the_last(run):
    result = run(f"""{TOKENS}
      make(tokens(1000));
      await settled(); sockets[0].open(); await tick(500); sockets[1].open(); await tick(500);
      const before = sockets[0].closedWith ?? null;
      sockets[2].open();
      return [before, sockets[0].closedWith, sockets[1].closedWith ?? null];
    """)
    assert result == [None, [1000, "renewed"], None]


@pytest.mark.parametrize("later", [0, -1])
def test_an_address_that_expires_no_later_is_asked_for_again_and_makes_no_connection(run, later):
    """Such as one that the page takes from a cache as long as it is good."""
    result = run(f"""{TOKENS}
      const end = clock() + 600_000, asked = [];
      let expiresAt = end;
      const [socket, events] = make(() => {{
        asked.push(clock() - end);
        return {{ url: `/ws/x?token=${{++calls}}`, expiresAt }};
      }});
      await settled(); sockets[0].open();
      expiresAt = end + {later};
      await tick(578_000);
      const before = [sockets.length, asked.slice(1)];
      expiresAt = end + 1;
      await tick(8000);
      sockets[1].open();
      return [before, addresses(), socket.readyState, events];
    """)
    asked = [-30_000, -29_500, -28_500, -26_500, -22_500]
    assert result == [[1, asked], ["1", "7"], 1, ["open", "open"]]


def test_a_close_ends_a_renewal_too(run):
    result = run(f"""{TOKENS}
      const [socket, events] = make(tokens(600_000));
      await settled(); sockets[0].open(); await tick(570_000);
      socket.close(); sockets[1].open(); sockets[0].end(1000);
      await tick(3_600_000);
      const [other] = make(tokens(600_000));
      await settled(); sockets[2].open(); other.close(); sockets[2].end(1000);
      await tick(3_600_000);
      return [sockets[1].closedWith !== undefined, events, sockets.length, timers.size];
    """)
    assert result == [True, ["open", ["close", 1000]], 3, 0]


def test_no_renewal_begins_during_the_close_handshake(run):
    result = run(f"""{TOKENS}
      const [socket, events] = make(tokens(600_000));
      await settled(); sockets[0].open(); await tick(569_999);
      socket.close(3001, "bye"); await tick(3_600_000);
      const state = socket.readyState;
      sockets[0].end(3001); await tick(3_600_000);
      return [state, events, sockets.length, timers.size];
    """)
    assert result == [2, ["open", ["close", 3001]], 1, 0]


def test_after_an_expiry_the_address_is_asked_for_once_more(run):
    result = run("""
      let calls = 0;
      const [socket, events] = make(() => `/ws/x?${++calls}`);
      await settled(); sockets[0].open(); await tick(5000); sockets[0].end(3000);
      await tick(1000); sockets[1].open(); await tick(4999); sockets[1].end(3000);
      await tick(60_000);
      const [stable, second] = make(() => "/ws/x");
      for (let n = 2; n < 5; n++) { await tick(1000); sockets[n].open(); await tick(5000); sockets[n].end(3000); }
      const [plain, third] = make("/ws/x");
      await settled(); sockets.at(-1).open(); sockets.at(-1).end(3000);
      const [own, fourth] = make(() => "/ws/x", { isFinal: () => true });
      await settled(); sockets.at(-1).open(); sockets.at(-1).end(3000);
      return [calls, events.map((event) => event.code ?? event), socket.readyState, stable.readyState, third, fourth];
    """)
    assert result == [
        2, ["open", 3000, "open", ["close", 3000]], 3, 0, ["open", ["close", 3000]], ["open", ["close", 3000]],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"),
    [("clock() / 1000", "1800000000"), ("NaN", "NaN"), ("Infinity", "Infinity"), ("'2030-01-01'", "2030-01-01"),
     ("new Date('x')", "Invalid Date"), ("{}", "[object Object]")],
)  # fmt: skip
def test_a_time_that_is_none_is_final_and_named(run, value, shown):
    result = run(f"""
      const [socket] = make(() => ({{ url: "/ws/x", expiresAt: {value} }}));
      let reason = null;
      socket.onclose = (event) => {{ reason = event.reason; }};
      await tick(60_000);
      return [sockets.length, reason];
    """)
    assert result == [0, f"expiresAt is in milliseconds since the epoch, as Date.now() is, not {shown}"]


def test_an_address_may_say_no_time_a_date_and_one_that_is_over(run):
    result = run("""
      for (const expiresAt of ["undefined", "null", "clock() - 1", "new Date(clock() + 60_000)"]) {
        make(() => ({ url: new URL("/ws/x", location.href), expiresAt: eval(expiresAt) }));
        await settled(); sockets.at(-1).open();
      }
      await tick(30_000);
      return sockets.length;
    """)
    assert result == 5


def test_what_can_never_succeed_is_not_tried_again(run):
    assert run("try { make('http://['); } catch (error) { return error.name; }") == "TypeError"
    result = run("""
      class Never { constructor() { throw new DOMException("no such subprotocol", "SyntaxError"); } }
      const [socket, events] = make("/ws/x", { WebSocket: Never });
      await tick(60_000);
      return [events, socket.readyState, timers.size];
    """)
    assert result == [[["close", 1006]], 3, 0]
    assert run("try { make('ftp://x/'); } catch (error) { return error.name; }") == "SyntaxError"


@pytest.mark.parametrize("failure", [
    "(await new Response('<html>502 Bad Gateway</html>', { status: 502 }).json())",
    "(() => { throw new SyntaxError('mine'); })()",
    "(() => { throw new DOMException('mine', 'SyntaxError'); })()",
    "(() => { throw { get name() { throw 1; }, get message() { throw 2; } }; })()",
    "(() => { throw null; })()",
    "'http://['",
    "Symbol('no address')",
    "({ toString() { return JSON.parse('<html>'); } })",
])  # fmt: skip
def test_whatever_the_function_for_the_address_fails_with_it_is_asked_again(run, failure):
    result = run(f"""
      let calls = 0;
      const [socket, events] = make(async () => ++calls < 3 ? {failure} : "/ws/x");
      await tick(60_000);
      sockets[0].open();
      return [calls, socket.readyState, events.map((event) => event.attempt ?? event)];
    """)
    assert result == [3, 1, [1, 2, "open"]]


def test_why_the_function_for_the_address_failed_is_told(run):
    result = run("""
      const [socket, events] = make(async () => { throw new TypeError("Failed to fetch"); });
      await settled();
      return [events[0].code, events[0].reason];
    """)
    assert result == [1006, "Failed to fetch"]


@pytest.mark.parametrize(("url", "options", "expected"), [
    ("() => { throw new Error('no token'); }", "{}", [0, [1]]),
    ("() => { throw new Error('no token'); }", "{ maxAttempts: 0 }", [3, [["close", 1006]]]),
    ("'/ws/x'", "{ WebSocket: class { constructor() { throw new DOMException('no', 'SecurityError'); } } }", [0, [1]]),
    ("'/ws/x'", "{ WebSocket: class { constructor() { throw new DOMException('no', 'SyntaxError'); } } }",
     [3, [["close", 1006]]]),
])  # fmt: skip
def test_what_fails_while_it_is_constructed_is_heard_by_listeners(run, url, options, expected):
    result = run(f"""
      const [socket, events] = make({url}, {options});
      const before = [socket.readyState, events.length, socket.send("x")];
      await settled();
      const after = [socket.readyState, events.map((event) => event.attempt ?? event)];
      const [closed, heard] = make({url}, {options});
      closed.close(4005);
      await tick(60_000);
      return [before, after, heard];
    """)
    assert result == [[0, 0, True], expected, [["close", 4005]]]


@pytest.mark.parametrize("begin", ["sockets[0].open(); sockets[0].end(1006)", "sockets[0].end(1006)"])
def test_is_final_may_look_at_the_socket_and_send(run, begin):
    result = run(f"""
      const seen = [];
      const [socket, events] = make("/ws/x", {{ isFinal: () => {{
        socket.reconnect();
        seen.push(socket.readyState, socket.url, socket.bufferedAmount, socket.send("x"));
        return false;
      }} }});
      await settled(); {begin}; await tick(1000);
      sockets[1].open();
      return [seen, sockets.length, sockets[1].sent, socket.readyState];
    """)
    assert result == [[0, "", 0, True], 2, ["x"], 1]


@pytest.mark.parametrize("answer", ["true", "false"])
@pytest.mark.parametrize("begin", ["sockets[0].open(); sockets[0].end(1006)", "sockets[0].end(1006)"])
def test_is_final_may_close_it(run, begin, answer):
    result = run(f"""
      const [socket, events] = make("/ws/x", {{ isFinal: () => {{ socket.close(4000, "mine"); return {answer}; }} }});
      await settled(); {begin}; await tick(60_000);
      return [sockets.length, socket.readyState, events.filter((event) => event !== "open"), timers.size];
    """)
    assert result == [1, 3, [["close", 4000]], 0]


@pytest.mark.parametrize("bad", ["() => { throw new Error('boom'); }", "null", "true"])
def test_a_failing_is_final_is_reported_and_the_default_decides(run, bad):
    result = run(f"""
      const reported = [];
      globalThis.reportError = (error) => reported.push(error.name);
      const [socket, events] = make("/ws/x", {{ isFinal: {bad} }});
      await settled(); sockets[0].open(); sockets[0].end(1006);
      const after = [socket.readyState, socket.send("a")];
      await tick(1000); sockets[1].open(); sockets[1].end(4000);
      return [reported.length, after, sockets[1].sent, socket.readyState, events.at(-1)];
    """)
    assert result == [2, [0, True], ["a"], 3, ["close", 4000]]


def test_an_option_that_is_undefined_has_its_default(run):
    result = run("""
      const names = ["minDelay", "maxDelay", "stableAfter", "maxAttempts", "maxQueued", "maxQueuedBytes", "maxPause",
        "isFinal"];
      const [socket, events] = make("/ws/x", Object.fromEntries(names.map((name) => [name, undefined])));
      const sent = socket.send("x");
      await settled(); sockets[0].open(); sockets[0].end(1006);
      return [sent, sockets[0].sent, events.at(-1).delay];
    """)
    assert result == [True, ["x"], 500]


def test_the_queue_follows_what_the_listeners_of_open_send(run):
    result = run("""
      const [socket, events] = make();
      socket.onopen = async () => { socket.send("login"); await null; socket.send("behind an await"); };
      socket.addEventListener("open", () => socket.send("join"));
      socket.send("early");
      await settled(); sockets[0].open(); await settled();
      sockets[0].end(1006);
      socket.send("meanwhile 1"); socket.send("meanwhile 2");
      await tick(1000); sockets[1].open(); await settled();
      return sockets.map((each) => each.sent);
    """)
    order = ["login", "join", "early", "behind an await"]
    assert result == [order, ["login", "join", "meanwhile 1", "meanwhile 2", "behind an await"]]


def test_listeners_that_throw_close_or_lose_the_connection_keep_the_queue_right(run):
    result = run("""
      const reported = [];
      addEventListener("error", (event) => { event.preventDefault(); reported.push(event.error); });
      const [throwing] = make();
      throwing.onopen = () => { throw "boom"; };
      throwing.send("x"); await settled(); sockets[0].open(); throwing.send("y");
      const [closing, events] = make();
      closing.onopen = () => closing.close(4000);
      closing.send("x"); await settled(); sockets[1].open(); sockets[1].end(4000);
      const [losing] = make();
      losing.onopen = () => { if (sockets.length === 3) sockets[2].end(1006); };
      losing.send("x"); await settled(); sockets[2].open(); await tick(1000); sockets[3].open();
      return [reported, sockets.map((each) => each.sent), events, closing.bufferedAmount];
    """)
    assert result == [["boom"], [["x", "y"], ["x"], [], ["x"]], ["open", ["close", 4000]], 0]


@pytest.mark.parametrize("arguments", ["1000, Symbol('s')", "3500n", "Symbol('s')", "1000, { toString() { throw 1 } }"])
def test_arguments_that_close_cannot_take_leave_it_as_it_is(run, arguments):
    result = run(f"""
      Fake.prototype.close = function (code, reason) {{
        this.readyState = 2; `${{reason}}`; if (code !== +code) throw 1;
      }};
      const [socket, events] = make();
      await settled(); sockets[0].open();
      try {{ socket.close({arguments}); sockets[0].end(3500); }} catch {{ socket.send("x"); }}
      return [socket.readyState, sockets[0].sent, events.at(-1)];
    """)
    assert result in ([1, ["x"], "open"], [3, [], ["close", 3500]])


def test_its_types_have_the_names_that_it_has(run):
    types = (FOLDER / "wsthreads.d.ts").read_text()
    body = re.search(r"export class ReconnectingWebSocket .*?\{\n(.*?)^\}", types, re.MULTILINE | re.DOTALL)[1]
    names = set(re.findall(r"^  (?!static|constructor|addEventListener)(?:readonly )?(\w+)[(:]", body, re.MULTILINE))
    found = run("""
      const [socket] = make();
      return Object.getOwnPropertyNames(Object.getPrototypeOf(socket)).filter((name) => name !== "constructor");
    """)
    assert names == set(found)
    options = re.search(r"interface ReconnectingOptions \{\n(.*?)^\}", types, re.MULTILINE | re.DOTALL)[1]
    error = run("try { make('/x', { nonsense: 1 }); } catch (error) { return error.message; }")
    assert set(re.findall(r"^  (\w+)\?:", options, re.MULTILINE)) == set(error.partition("there are: ")[2].split(", "))


# How it is served


def test_its_package_has_the_version_of_wsthreads():
    package = json.loads((FOLDER / "package.json").read_text())
    assert package["version"] == wsthreads.__version__.replace(".dev", "-dev.")


def test_what_is_served_is_made_of_the_source_and_small():
    assert MINIFIED.read_bytes() == minified(), "make client was not run after a change"
    assert len(gzip.compress(MINIFIED.read_bytes())) < 6000


def test_it_is_served_where_the_setting_says_so():
    client = Browser(WebSocketApp(serve_client=True))
    answer = client.get("/wsthreads.js")
    assert (answer.status_code, answer.mimetype) == (200, "text/javascript")
    assert answer.get_data() == (FOLDER / "wsthreads.min.js").read_bytes()
    assert client.get("/wsthreads.js", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    assert client.post("/wsthreads.js").status_code == 404
    assert Browser(WebSocketApp()).get("/wsthreads.js").status_code == 404
    types = client.get("/wsthreads.d.ts")
    assert (types.status_code, types.mimetype) == (200, "application/typescript")
    assert types.get_data() == (FOLDER / "wsthreads.d.ts").read_bytes()
    assert Browser(WebSocketApp()).get("/wsthreads.d.ts").status_code == 404


@contextmanager
def served_by(server, *origins):
    """The port of a server with the client, for pages of these origins."""
    settings = f"serve_client=True, allowed_origins={list(origins)!r}"
    if server == "run":
        program = [sys.executable, "-m", "wsthreads", "run", "--port", "0", "--serve-client", "handler.js"]
        for origin in origins:
            program += ["--origin", origin]
    else:
        program = [sys.executable, "-m", "gunicorn", "-k", server, "--threads", "10", "--bind", "127.0.0.1:0"]
        program += [f'wsthreads:create_app("handler.js", {settings})']
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "handler.js").write_text("export function onMessage(session, message) {}")
        with Program(program, cwd=folder) as process:
            yield int(process.wait_for(r"Listening (?:on|at:) http://127\.0\.0\.1:(\d+)")[1])


def headers_of(port, path, **headers):
    # perhaps its worker has still to start
    with closing(HTTPConnection("127.0.0.1", port, timeout=PROGRAM_S)) as connection:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers


@pytest.mark.parametrize("server", ["run", "gthread", "wsthreads.gunicorn.ThreadWorker"])
def test_pages_of_allowed_origins_may_import_it(server):
    with served_by(server, "https://a.example", "https://b.example:8443") as port:
        for path in ("/wsthreads.js", "/wsthreads.d.ts"):
            for origin in ("https://a.example", "https://B.example:8443"):
                status, headers = headers_of(port, path, Origin=origin)
                assert (status, headers["Access-Control-Allow-Origin"], headers["Vary"]) == (200, origin, "Origin")
                again, headers = headers_of(port, path, Origin=origin, **{"If-None-Match": headers["ETag"]})
                assert (again, headers["Access-Control-Allow-Origin"], headers["Vary"]) == (304, origin, "Origin")
            for others in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {}):
                status, headers = headers_of(port, path, **others)
                assert (status, headers["Access-Control-Allow-Origin"], headers["Vary"]) == (200, None, "Origin")


def test_any_page_may_import_it_where_any_may_connect():
    client = Browser(WebSocketApp(serve_client=True, allowed_origins=["*"]))
    answer = client.get("/wsthreads.js", headers={"Origin": "https://a.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    answer = Browser(WebSocketApp(serve_client=True)).get("/wsthreads.js", headers={"Origin": "https://a.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_page_elsewhere_imports_it_and_talks_to_its_server(window, blank_page, tmp_path):
    origin = blank_page.rstrip("/")
    (tmp_path / "echo.js").write_text(ECHO)
    with run_server(tmp_path / "echo.js", "--serve-client", "--origin", origin) as server:
        page = window(blank_page)
        answer = page.evaluate(
            """async (url) => {
          const { ReconnectingWebSocket } = await import(`${url}/wsthreads.js`);
          const socket = new ReconnectingWebSocket(`${url}/ws/echo`);
          socket.send("from elsewhere");
          return new Promise((resolve) => { socket.onmessage = ({ data }) => { socket.close(); resolve(data); }; });
        }""",
            server.url,
        )
    assert answer == "echo from elsewhere"
