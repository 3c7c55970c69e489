"""Fixtures for wsthreads.js in Chromium, with sockets and a clock of the test's own, and for `wsthreads.Client`."""

from __future__ import annotations

import pytest

from tests.client.fake_server import FakeServer
from tests.wire import serving
from wsthreads import Client, WebSocketApp
from wsthreads.servers.static import StaticFiles

BENCH = """async (steps) => {
  const { ReconnectingWebSocket, isFinal, RequestError } = await import("/wsthreads.js");
  const sockets = [];
  class Fake {
    constructor(url, protocols) { Object.assign(this, { url, protocols, readyState: 0, sent: [], bufferedAmount: 0 });
      sockets.push(this); }
    send(data) { this.sent.push(data); }
    close(code, reason) { this.closedWith = [code, reason]; this.readyState = 2; }
    open(protocol = "") { this.protocol = protocol; this.readyState = 1; this.onopen(); }
    receive(data) { this.onmessage({ data, origin: "" }); }
    // Open as a server that speaks wsthreads.1. Its first message is a welcome with these values.
    async greet(welcome = {}) {
      this.open("wsthreads.1");
      await settled();
      this.receive("\x10w" + JSON.stringify({ resumed: false, token: "t", received: 0, resumeMs: 60000,
        heartbeatMs: 25000, timeoutMs: 20000, protocol: null, ...welcome }));
      await settled();
    }
    end(code) { this.readyState = 3; this.onclose({ code, reason: "", wasClean: code !== 1006 }); }
  }
  const timers = new Map();
  let now = 1.8e12, last = 0, random = 0;
  const tick = async (ms) => {
    await settled();
    for (const until = now + ms; ;) {
      const [id, timer] = [...timers].sort((one, other) => one[1].due - other[1].due)[0] ?? [];
      if (id === undefined || timer.due > until) { now = until; break; }
      timers.delete(id); now = timer.due; timer.callback();
      await settled();
    }
  };
  const settled = () => new Promise((resolve) => { const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => { port1.close(); resolve(); }; port2.postMessage(0); });
  const make = (url = "/ws/x", options = {}) => {
    const socket = new ReconnectingWebSocket(url, [], {
      plain: true, WebSocket: Fake, random: () => random,
      setTimeout: (callback, delay) => { timers.set(++last, { callback, due: now + delay }); return last; },
      clearTimeout: (id) => timers.delete(id), now: () => now, connectTimeout: 1e9,
      ...options,
    });
    const events = [];
    for (const type of ["open", "resumed", "message", "error", "close", "reconnecting"]) {
      socket.addEventListener(type, (event) => events.push(event.detail ?? (event.type === "close"
        ? ["close", event.code] : event.type)));
    }
    return [socket, events];
  };
  // A client that speaks wsthreads.1, and what it tells of: session and so on.
  const talk = (options = {}, url = "/ws/x") => {
    const [socket] = make(url, { plain: false, ...options });
    const told = [];
    socket.onopen = ({ lost }) => told.push(`open ${lost}`);
    socket.onresumed = () => told.push("resumed");
    socket.onmessage = ({ data }) => told.push(data);
    socket.onreconnecting = ({ detail }) => told.push(`lost ${detail.code}`);
    socket.onclose = ({ code }) => told.push(`closed ${code}`);
    return [socket, told];
  };
  const outcome = (promise) => promise.catch((error) => `${error.name}: ${error.message}`);
  const sleep = (ms) => { now += ms; for (const timer of timers.values()) timer.due += ms; };
  const setRandom = (value) => { random = value; };
  const clock = () => now;
  const bench = { Fake, sockets, timers, tick, sleep, make, talk, outcome, settled, isFinal, RequestError,
    setRandom, clock, D: "\x10" };
  return await (new Function("bench", `return (async () => { with (bench) { ${steps} } })()`))(bench);
}"""


@pytest.fixture(scope="module")
def blank_page(tmp_path_factory):
    """The address of a page that shares its origin with wsthreads.js."""
    folder = tmp_path_factory.mktemp("blank")
    (folder / "index.html").write_text('<!doctype html><link rel="icon" href="data:,">')
    with serving(WebSocketApp(StaticFiles(folder), serve_client=True)) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def run(window, blank_page):
    """Run steps in the page, with `make`, `sockets`, `tick` and so on."""
    page = window(blank_page)
    return lambda steps: page.evaluate(BENCH, steps)


@pytest.fixture
def server():
    """A server whose every step the test decides."""
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def connect(server):
    """Makes clients, and closes them at the end. The server is dead then, so that they need not wait for it."""
    made = []

    def make(url=None, **options):
        client = Client(url or server.url, **{"min_delay_s": 0.01, "max_delay_s": 0.02, **options})
        made.append(client)
        return client

    yield make
    server.end()
    for client in made:
        client.close()
