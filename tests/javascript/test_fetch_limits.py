"""`fetch` of scripts, where something goes wrong: hostile servers, aborts, deadlines, ends of scripts."""

from __future__ import annotations

import gzip
import socket
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.javascript.origins import ASKED, Origin, Received, response
from tests.javascript.test_fetch import Asking, asking
from tests.javascript_fakes import SHORT_S, script_log
from tests.programs import DEADLINE_S, connect, own_threads, receive, run_server, wait_until, wsthreads
from wsthreads import create_app
from wsthreads.config import Config
from wsthreads.errors import ConfigError
from wsthreads.hosts import AllowedHosts
from wsthreads.javascript.fetch_requests import FetchFailed, checked_request
from wsthreads.javascript.handler import check_script
from wsthreads.javascript.http_connections import Connections
from wsthreads.javascript.name_lookups import NameLookups


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as started:
        yield started


@pytest.fixture
def js(origin: Origin, tmp_path: Path) -> Iterator[Asking]:
    with asking(origin, tmp_path) as script:
        yield Asking(script)
    no_threads_left()


def no_threads_left() -> None:
    wait_until(lambda: not own_threads("-fetch-"), "threads of fetch end")


class Gate:
    """A route that waits until the test, or the client, ends the wait."""

    def __init__(self, origin: Origin, path: str, *before: bytes) -> None:
        self.reached = threading.Event()
        self.left = threading.Event()
        self._before = before
        origin.routes[path] = self

    def __call__(self, request: Received, connection: socket.socket) -> None:
        for part in self._before:
            connection.sendall(part)
        self.reached.set()
        try:
            connection.settimeout(DEADLINE_S)
            if connection.recv(1) == b"":
                self.left.set()
        except ConnectionError:
            self.left.set()


# Bodies.

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
NO_CHUNKS = [
    *(b"5\r\nabcde\r\nxyz\r\n", b"-1\r\n\r\n", b"0x5\r\nabcde\r\n0\r\n\r\n", b"0_5\r\nabcde\r\n0\r\n\r\n"),
    *(b"5\r\nabcdeXX0\r\n\r\n", b"5\rX\nabcde", b"\r\n", b"f" * 5000 + b"\r\n"),
]
CODINGS = ["gzip, chunked", "chunked;a=b", "xchunked", "chunked, chunked", "chunked\v"]
CODINGS.append("identity\r\nTransfer-Encoding: chunked")
LENGTHS = ["1_0", "+5", "-5", "abc", "", "5, 5", "5\r\nContent-Length: 6", "\u0665", "5\v"]
NO_STATUSES = [b"nonsense", b"ICY 200 OK", b"http/1.1 200 OK", b"HTTP/2 200 OK", b"HTTP/1.1 9999", b"\r\nHTTP/1.1 200"]


def coded(value: str, body: bytes) -> bytes:
    """A response with a transfer-encoding, or with a content-length."""
    name = "Content-Length" if value in LENGTHS else "Transfer-Encoding"
    return f"HTTP/1.1 200 OK\r\n{name}: {value}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (response(b"abc", length=10), "the connection was closed before the end of the body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "the connection was closed before the end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0", "before the end of the body"),
        *((CHUNKED + body, "a chunk of the body is malformed: it begins or ends with") for body in NO_CHUNKS),
        *((coded(line, b"5\r\nabcde\r\n0\r\n\r\n"), "a transfer-encoding other than chunked") for line in CODINGS),
        *((coded(line, b"abcde"), "the content-length is not one number") for line in LENGTHS),
        (response(gzip.compress(b"ab") + gzip.compress(b"cd" * 99)[:-9], "Content-Encoding: gzip"), "ends too early"),
        (response(gzip.compress(b"ab") + gzip.compress(b"cd" * 99)[:11], "Content-Encoding: gzip"), "ends too early"),
        (response(b"no gzip", "Content-Encoding: gzip"), "the body is not in the encoding that content-encoding names"),
        (response(gzip.compress(b"ab" * 100)[:-12], "Content-Encoding: gzip"), "the encoded body ends too early"),
        (response(zlib.compress(b"ab" * 100)[:-6], "Content-Encoding: deflate"), "the encoded body ends too early"),
        (response(b"x" * 1001), "the body has more than 1000 bytes (max_fetch_bytes)"),
        (response(gzip.compress(b"x" * 1001), "Content-Encoding: gzip"), "the body has more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000, "the body has more than 1000 bytes (max_fetch_bytes)"),
        (b"", "the connection failed: "),
        *((line + b"\r\n\r\n", "does not begin with a status of HTTP/1.1, but with '") for line in NO_STATUSES),
        (b"HTTP/1.1 200", "the connection failed: the server closed it within the headers of the response"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "the connection failed: the server closed it within the headers"),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n\r", "the connection failed: the server closed it within the headers"),
        (b"HTTP/1.1 200 OK\r\nX: y\rZ: z\r\n\r\n", "is not a header, or has a NUL or a CR in it"),
        (b"HTTP/1.1 200 OK\r\n\r\r\nContent-Length: 0\r\n\r\n", "of the response's head is not a header"),
        (b"HTTP/1.1 200 OK\r\nno header\r\nContent-Length: 0\r\n\r\n", "of the response's head is not a header"),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", "of the response's head is not a header"),
        (b"HTTP/1.1 200 OK\r\n: y\r\nContent-Length: 0\r\n\r\n", "of the response's head is not a header"),
        (b"HTTP/1.1 200 OK\r\nX\xe9: y\r\nContent-Length: 2\r\n\r\nok", "of the response's head is not a header"),
        (b"HTTP/1.1 200 OK\r\nX\x01: y\r\nContent-Length: 2\r\n\r\nok", "of the response's head is not a header"),
        (b"HTTP/1.1 200 OK\r\n Content-Length: 0\r\n\r\n", "of the response's head is not a header"),
        (b"HTTP/1.1 200 OK\r\nX: y\0\r\n\r\n", "of the response's head is not a header"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 11_000 + b"\r\n", "the response has more than 65536 bytes of headers"),
        (b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000 + b"\r\n\r\n", "the response has more than 65536 bytes of headers"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "the server changes to another protocol: status 101"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", "the connection failed: "),
    ],
)  # fmt: skip
def test_servers_that_lie(origin: Origin, tmp_path: Path, answer: bytes, message: str) -> None:
    def lie(_: Received, connection: socket.socket) -> None:
        connection.sendall(answer)

    origin.routes["/x"] = lie
    with asking(origin, tmp_path, max_fetch_bytes=1000) as script:
        js = Asking(script)
        told = js("return (await fetch(base + '/x')).text()")
        assert told.startswith(f"TypeError: GET {origin.url}: ")
        assert message in told
        assert js("return (await fetch(base + '/echo')).status") == 200


def test_a_length_that_is_too_short_does_not_reach_the_next_response(origin: Origin, js: Asking) -> None:
    origin.routes["/x"] = response(b"abcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", length=3)
    for _ in range(3):
        assert js("return (await fetch(base + '/x')).text()") == "abc"
        assert js("return (await (await fetch(base + '/echo')).json()).target") == "/echo"


def test_a_bomb_is_not_unpacked(origin: Origin, js: Asking) -> None:
    bomb = gzip.compress(bytes(200_000_000), 9)
    for layers in ("gzip", "gzip, gzip"):
        origin.routes["/x"] = response(bomb if layers == "gzip" else gzip.compress(bomb), f"Content-Encoding: {layers}")
        before = peak_kib()
        told = js("return (await fetch(base + '/x')).text()")
        assert told.endswith("the body has more than 16777216 bytes (max_fetch_bytes)")
        assert peak_kib() - before < 100_000


def peak_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def test_an_endless_body_can_be_read_in_part(origin: Origin, js: Asking) -> None:
    def endless(_: Received, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    origin.routes["/x"] = endless
    told = js("""let size = 0;
      for await (const chunk of (await fetch(base + "/x")).body) {
        size += chunk.length;
        if (size > 1e6) break;
      }
      return size > 1e6;""")
    assert told is True
    assert origin.closed.wait(DEADLINE_S)
    assert js("return (await fetch(base + '/x')).text()").endswith("more than 16777216 bytes (max_fetch_bytes)")


def test_a_response_that_nobody_can_read_is_closed(origin: Origin, js: Asking) -> None:
    gate = Gate(origin, "/x", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    assert js("return (await fetch(base + '/x')).status") == 200
    assert gate.left.wait(DEADLINE_S)


# Aborts and deadlines.


HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"


@pytest.mark.parametrize("before", [(), (HALF,)], ids=["head", "body"])
@pytest.mark.parametrize(("reason", "error"), [("", "AbortError: "), ("new RangeError('mine')", "RangeError: mine")])
def test_a_signal_ends_a_fetch(origin: Origin, js: Asking, before: tuple[bytes, ...], reason: str, error: str) -> None:
    gate = Gate(origin, "/x", *before)
    session = js.script.open()
    js.script.message(
        session,
        """globalThis.a = new AbortController();
        const signal = AbortSignal.any([a.signal, new AbortController().signal]);
        return (await fetch(base + "/x", { signal })).text();""",
    )
    assert gate.reached.wait(DEADLINE_S)
    js(f"a.abort({reason})")
    assert str(session.wait_for_messages(1)[0]).startswith(error)
    assert gate.left.wait(DEADLINE_S)
    assert js("return (await fetch(base + '/echo')).status") == 200


@pytest.mark.parametrize("before", [(), (HALF,)], ids=["head", "body"])
def test_a_timeout_ends_a_fetch(origin: Origin, js: Asking, before: tuple[bytes, ...]) -> None:
    gate = Gate(origin, "/x", *before)
    told = js("return (await fetch(base + '/x', { signal: AbortSignal.timeout(100) })).text()")
    assert told == "TimeoutError: the 100 ms of AbortSignal.timeout are over"
    assert not gate.reached.is_set() or gate.left.wait(DEADLINE_S)


def test_an_aborted_signal_sends_nothing(origin: Origin, js: Asking) -> None:
    assert js("await fetch(base, { signal: AbortSignal.abort(new SyntaxError('x')) })") == "SyntaxError: x"
    assert origin.connections == 0
    assert js("await fetch(base, { signal: {} })") == "TypeError: signal is an AbortSignal, not an Object"


def test_a_signal_that_aborts_later_changes_nothing(origin: Origin, js: Asking) -> None:
    told = js("""const a = new AbortController();
      const r = await fetch(base + "/echo", { signal: a.signal });
      const text = await r.text();
      a.abort();
      return [text.length > 0, (await fetch(base + "/echo")).status];""")
    assert told == [True, 200]
    assert origin.connections == 1


def test_responses_that_nobody_reads_leave_no_listeners_on_their_signal(origin: Origin, js: Asking) -> None:
    told = js("""const { signal } = new AbortController();
      let heard = 0;
      for (const [name, step] of [["addEventListener", 1], ["removeEventListener", -1]]) {
        const original = signal[name];
        signal[name] = (...all) => (heard += step, Reflect.apply(original, signal, all));
      }
      for (let count = 0; count < 10; count++) {
        await fetch(base + "/echo", { signal });
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
      return heard;""")
    assert told == 0


def test_a_response_is_dropped_although_a_listener_of_its_signal_refers_to_it(
    origin: Origin, js: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsthreads.javascript.fetches.MAX_OPEN", 50)
    told = js("""for (let count = 0; count < 60; count++) {
        const { signal } = new AbortController();
        const answer = await fetch(base + "/echo", { signal });
        signal.addEventListener("abort", () => answer.body.cancel());
      }""")
    assert told == "undefined"


@pytest.mark.parametrize("before", [(), (HALF,)], ids=["head", "body"])
def test_a_fetch_ends_at_its_deadline_and_holds_up_nobody(
    origin: Origin, tmp_path: Path, before: tuple[bytes, ...]
) -> None:
    gate = Gate(origin, "/x", *before)
    with asking(origin, tmp_path, script_wait_s=SHORT_S, script_timeout_s=DEADLINE_S, script_threads=1) as script:
        waiting = script.open()
        script.message(waiting, "return (await fetch(base + '/x')).text()")
        assert gate.reached.wait(DEADLINE_S)
        assert Asking(script)("return 'others go on'") == "others go on"
        told = waiting.wait_for_messages(1)[0]
        assert told == f"TimeoutError: GET {origin.url} has taken more than {SHORT_S:g} s"
        assert gate.left.wait(DEADLINE_S)
        assert Asking(script)("return (await fetch(base + '/echo')).status") == 200
    no_threads_left()


@pytest.mark.parametrize("status", [b"100 Continue", b"103 Early Hints"])
def test_drops_of_a_head_do_not_extend_the_deadline(origin: Origin, tmp_path: Path, status: bytes) -> None:
    def drip(_: Received, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"a: b\r\n" if len(origin.requests) > 1 else b"HTTP/1.1 %b\r\n\r\n" % status)

    origin.routes["/x"] = drip
    with asking(origin, tmp_path, script_wait_s=SHORT_S, script_timeout_s=DEADLINE_S) as script:
        told = Asking(script)("return (await fetch(base + '/x')).text()")
        assert told.startswith(("TimeoutError", "TypeError"))
    no_threads_left()


def test_each_request_on_a_kept_connection_has_its_own_time(origin: Origin) -> None:
    class Nobody:
        def control(self, end_wait: Callable[[], None]) -> None:
            pass

    connections, last = Connections(AllowedHosts([origin.host])), {}
    for left_s in (1, 1000):
        expires = monotonic() + left_s
        url = f"{origin.url}/echo"
        request = checked_request(AllowedHosts([origin.host]), "GET", url, {}, None, max_bytes=1, expires=expires)
        connection, answer = connections.send(request, Nobody())
        assert connection.http.sock is not None
        last[left_s] = connection.http.sock.gettimeout()
        assert answer.read() != b""
        connections.keep(connection)
    connections.close()
    assert origin.connections == 1
    assert last[1000] > 500 > last[1]


def test_a_resolver_that_hangs_holds_up_no_other_fetch(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, original = threading.Event(), socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "slow.test":
            go_on.wait(DEADLINE_S)
        return original("127.0.0.1" if host == "slow.test" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    hosts = [origin.host, f"slow.test:{origin.port}"]
    with asking(origin, tmp_path, allow_net=hosts, script_threads=1) as script:
        told = Asking(script)(f"await fetch('http://slow.test:{origin.port}/', {{ signal: AbortSignal.timeout(20) }})")
        assert told.startswith("TimeoutError")
        assert Asking(script)("return (await fetch(base + '/echo')).status") == 200
        go_on.set()
    no_threads_left()
    assert [request.target for request in origin.requests] == ["/echo"]


def test_a_resolver_that_hangs_holds_up_none_of_many_fetches(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, original, asked = threading.Event(), socket.getaddrinfo, []

    def resolve(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "slow.test":
            asked.append(host)
            go_on.wait(DEADLINE_S)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return original(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with asking(origin, tmp_path, allow_net=[origin.host, "slow.test:80"]) as script:
        waiting = script.open()
        code = """const { signal } = globalThis.a = new AbortController();
          const one = () => fetch("http://slow.test/", { signal });
          const all = await Promise.all(Array.from({ length: 100 }, () => one().catch((error) => error.name)));
          return [...new Set(all)];"""
        script.message(waiting, code)
        wait_until(lambda: asked, "the name is looked up")
        Asking(script)("a.abort()")
        assert waiting.wait_for_messages(1) == ['["AbortError"]']
        assert Asking(script)("return (await fetch(base + '/echo')).status") == 200
        assert asked == ["slow.test"]
        session = script.open()
        script.message(session, "globalThis.last = fetch('http://slow.test/').catch((error) => error.message)")
        go_on.set()
        told = Asking(script)("return await last")
        assert told == "GET http://slow.test:80: the host slow.test is not found: no answer"
    no_threads_left()


def test_names_beyond_those_that_may_be_looked_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsthreads.javascript.name_lookups.MAX_RUNNING", 1)
    begun, go_on = threading.Event(), threading.Event()

    def resolve(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "a.test":
            begun.set()
            go_on.wait(DEADLINE_S)
        return [host]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    names, found = NameLookups(), []
    waiting = threading.Thread(target=lambda: found.append(names.find("a.test", 1, DEADLINE_S, lambda end: None)))
    waiting.start()
    assert begun.wait(DEADLINE_S)
    with pytest.raises(FetchFailed, match=r"b\.test is not looked up, because 1 look-ups have no answer yet"):
        names.find("b.test", 1, DEADLINE_S, lambda end: None)
    assert names.find("127.0.0.1", 1, DEADLINE_S, print) == ["127.0.0.1"]
    with pytest.raises(FetchFailed, match=r"a\.test was not found in time"):
        names.find("a.test", 1, DEADLINE_S, lambda end: end())
    go_on.set()
    waiting.join(DEADLINE_S)
    assert found == [["a.test"]]
    assert names.find("b.test", 1, DEADLINE_S, lambda end: None) == ["b.test"]


def test_more_fetches_at_once_than_may_be_open_are_refused(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsthreads.javascript.fetches.MAX_OPEN", 20)
    with asking(origin, tmp_path) as script:
        told = Asking(script)("""let refused = "";
          const failed = (error) => { refused = error.message; return 0; };
          const one = () => fetch(base + "/echo").then((r) => r.text()).then(() => 1, failed);
          const all = await Promise.all(Array.from({ length: 60 }, one));
          return [all.reduce((sum, each) => sum + each), refused, await one()];""")
    assert told[0] >= 20
    assert told[1:] == ["20 fetches of this script are open: read or cancel the bodies of their responses", 1]
    assert origin.connections <= 8


def test_responses_to_which_nothing_refers_take_no_place(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsthreads.javascript.fetches.MAX_OPEN", 50)
    origin.routes["/x"] = response(b"x" * 100_000)
    with asking(origin, tmp_path) as script:
        told = Asking(script)("""for (let i = 0; i < 60; i++) {
            const response = await fetch(base + "/x");
            response.own = () => response;  // only a garbage collection frees it
          }
          return "all";""")
    assert told == "all"


# Ends.


def test_the_end_of_a_script_ends_its_fetches(origin: Origin, tmp_path: Path) -> None:
    gates = [Gate(origin, "/x"), Gate(origin, "/y", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")]
    with asking(origin, tmp_path) as script:
        Asking(script)("await fetch(base + '/echo')")
        session = script.open()
        for path in ("/x", "/y"):
            script.message(session, f"globalThis['{path}'] = fetch(base + '{path}').catch(() => {{}})")
        for gate in gates:
            assert gate.reached.wait(DEADLINE_S)
        script.handler.stop(0)
        for gate in gates:
            assert gate.left.wait(DEADLINE_S)
    no_threads_left()


def test_a_session_may_end_during_its_fetch(origin: Origin, js: Asking) -> None:
    gate = Gate(origin, "/x")
    session = js.script.open()
    js.script.message(session, "await fetch(base + '/x', globalThis.a = new AbortController())")
    assert gate.reached.wait(DEADLINE_S)
    closing = threading.Thread(target=js.script.close, args=(session,))  # it waits for onMessage
    closing.start()
    wait_until(lambda: session.closed)
    js("a.abort()")
    closing.join(DEADLINE_S)
    assert not closing.is_alive()
    assert gate.left.wait(DEADLINE_S)
    assert js("return 1") == 1


def test_a_reload_leaves_a_fetch_alone(origin: Origin, tmp_path: Path) -> None:
    go_on = threading.Event()
    reached = threading.Event()

    def wait(_: Received, connection: socket.socket) -> bytes:
        reached.set()
        go_on.wait(DEADLINE_S)
        return response(b"late")

    origin.routes["/x"] = wait
    with asking(origin, tmp_path) as script:
        session = script.open()
        script.message(session, "return (await fetch(base + '/x')).text()")
        assert reached.wait(DEADLINE_S)
        script.handler.reload()
        go_on.set()
        assert session.wait_for_messages(1) == ['"late"']


def test_a_top_level_may_fetch(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "fetching.js").write_text(
        f"console.log(await (await fetch('{origin.url}/x')).text());\nexport function onMessage() {{}}"
    )
    origin.routes["/x"] = response(b"fetched")
    refused = wsthreads("check", "fetching.js", cwd=tmp_path)
    assert refused.returncode == 1
    told = refused.stdout + refused.stderr
    assert f"fetch may not reach {origin.host}: allow it with --allow-net {origin.host}" in told
    assert origin.connections == 0
    allowed = wsthreads("check", "fetching.js", "--allow-net", origin.host, cwd=tmp_path)
    assert allowed.returncode == 0, allowed.stderr
    assert "fetched" in allowed.stdout + allowed.stderr


def test_wsthreads_run_allows_hosts(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "asked.js").write_text(ASKED)
    options = ["--allow-net", "example.com", "--allow-net", origin.host]
    with run_server("asked.js", *options, cwd=tmp_path) as server, connect(f"{server.ws_url}/ws/asked") as client:
        client.send(f"return (await fetch('{origin.url}/echo')).status")
        assert receive(client) == "200"


# What Python's half refuses, whatever a script has done to the JavaScript half.


def test_a_script_gets_no_function_of_the_runtime_by_a_built_in_that_it_replaces(origin: Origin, js: Asking) -> None:
    told = js("""const seen = [];
      const watched = (target) => new Proxy(target, {
        construct(made, args) { seen.push(...args); return Reflect.construct(made, args); },
        apply(called, self, args) { seen.push(...args); return Reflect.apply(called, self, args); },
      });
      const { register } = FinalizationRegistry.prototype;
      FinalizationRegistry.prototype.register = watched(register);
      globalThis.FinalizationRegistry = watched(FinalizationRegistry);
      await (await fetch(base + "/echo")).text();
      return seen.map(String);""")
    assert told == []


def test_a_script_cannot_change_what_fetch_checks(origin: Origin, tmp_path: Path) -> None:
    with asking(origin, tmp_path, allow_net=["shop.test"]) as script, script_log():
        told = Asking(script)(f"""
          Object.defineProperty(URL.prototype, "href", {{ get: () => "{origin.url}/echo" }});
          try {{ await fetch("http://shop.test/"); }} catch (error) {{ return error.message; }}""")
        assert told.startswith(f"fetch may not reach {origin.host}")
    with asking(origin, tmp_path) as script:
        told = Asking(script)("""
          const requests = [1, 2, 3, 4].map(() => new Request("http://a.test/"));
          RegExp.prototype.test = () => true;
          Array.prototype.includes = (text) => text === "follow";
          const errors = [];
          for (const [name, value] of [["a b", "c"], ["a", "b\\r\\nc: d"], ["host", "x"], ["Content-Length", "5"]]) {
            const request = requests.pop();
            request.headers.set(name, value);
            try { await fetch(request); } catch (error) { errors.push(error.message); }
          }
          return errors;""".replace("http://a.test", origin.url))
        assert [each.partition(" '")[0] for each in told] == ["fetch refuses the header"] * 4
    assert origin.requests == []


@pytest.mark.parametrize(
    ("method", "url", "headers"),
    [
        ("GET /x HTTP/1.1\r\n", "http://a.test/", {}), ("CONNECT", "http://a.test/", {}), ("", "http://a.test/", {}),
        ("GET", "http://a.test/ x", {}), ("GET", "http://a.test/\r\nx", {}), ("GET", "http://a.test", {}),
        ("GET", "http://u@a.test/", {}), ("GET", "http://a.test/#x", {}), ("GET", "http://a.test:0/", {}),
        ("GET", "http://a.test:99999/", {}), ("GET", "HTTP://a.test/", {}), ("GET", "ftp://a.test/", {}),
        ("GET", "http://A.test/", {}), ("GET", "http://a.test\\@b.test/", {}), ("GET", "http://[::1/", {}),
        ("GET", "http://a.test/é", {}), ("GET", "http://b.test/", {}),
        *(("GET", "http://a.test/", {name: "x"}) for name in
          ("Host", "CONTENT-LENGTH", "transfer-encoding", "Connection", "te", "upgrade", "expect", "a:b", "", "é")),
        *(("GET", "http://a.test/", {"a": value}) for value in ("\r", "a\nb", "\0", "Ā")),
    ],
)  # fmt: skip
def test_requests_that_are_refused(method: str, url: str, headers: dict[str, str]) -> None:
    with pytest.raises(FetchFailed):
        checked_request(AllowedHosts(["a.test"]), method, url, headers, None, max_bytes=1, expires=0)


def test_a_body_that_is_too_long_is_not_sent(origin: Origin, tmp_path: Path) -> None:
    with asking(origin, tmp_path, max_fetch_bytes=10) as script:
        told = Asking(script)("await fetch(base, { method: 'POST', body: 'x'.repeat(11) })")
    assert told == "TypeError: the request's body has 11 bytes; max_fetch_bytes allows at most 10"


def test_without_urllib3_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "urllib3", None)
    (tmp_path / "chat.js").write_text("export function onOpen() {}")
    with pytest.raises(ConfigError, match=r"^allow_net needs urllib3: pip install 'wsthreads\[fetch\]'"):
        create_app(tmp_path / "chat.js", allow_net=["api.example.com"])
    with pytest.raises(ConfigError, match="allow_net needs urllib3"):
        check_script(tmp_path / "chat.js", Config(allow_net=("api.example.com",)))
    create_app(tmp_path / "chat.js")  # needs none
