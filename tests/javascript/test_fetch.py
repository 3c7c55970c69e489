"""`fetch` of scripts, against real servers that behave well and badly."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.javascript.origins import ASKED, Origin, Received, response
from tests.javascript_fakes import Script, running, script_log
from tests.ports import free_port
from tests.programs import DEADLINE_S
from tests.wire import self_signed
from wsthreads.javascript.http_connections import Connection, Connections


class Asking:
    """A script that runs code, and what comes of it."""

    def __init__(self, script: Script) -> None:
        self.script = script

    def __call__(self, code: str) -> Any:
        answer = self.script.answer(self.script.open(), code)
        try:
            return json.loads(answer)
        except ValueError:
            return answer


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as started:
        yield started


@pytest.fixture
def js(origin: Origin, tmp_path: Path) -> Iterator[Asking]:
    with asking(origin, tmp_path) as script:
        yield Asking(script)


def asking(origin: Origin, tmp_path: Path, **settings: Any) -> Any:
    settings = {"allow_net": [origin.host], "script_timeout_s": DEADLINE_S, **settings}
    return running(tmp_path, f"globalThis.base = {origin.url!r};\n{ASKED}", **settings)


class Resolver:
    """In place of the system's: for some names, the addresses of the first call, of the second …"""

    def __init__(self, original: Callable[..., Any]) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.calls: list[str] = []
        self._original = original

    def __call__(self, host: str, port: int, *arguments: Any, **options: Any) -> Any:
        if host not in self.answers:
            return self._original(host, port, *arguments, **options)
        self.calls.append(host)
        answers = self.answers[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [found for address in addresses for found in self._original(address, port, *arguments, **options)]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    made = Resolver(socket.getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made


# What a script sends, and what it gets.


def test_a_response_has_all_that_the_server_says(origin: Origin, js: Asking) -> None:
    headers = ["X-A: 1", "X-A: \xe9", "Set-Cookie: a", "Set-Cookie: b"]
    origin.routes["/x"] = response(b'{"a":"\xc3\xbc"}', *headers, status="201 M")
    told = js("""const r = await fetch(base + "/x?q#f");
      return [r instanceof Response, r.status, r.statusText, r.ok, r.redirected, r.type, r.url, r.headers.get("x-a"),
        r.headers.getSetCookie(), r.bodyUsed, await r.json(), r.bodyUsed];""")
    url = f"{origin.url}/x?q"
    assert told == [True, 201, "M", True, False, "basic", url, "1, é", ["a", "b"], False, {"a": "ü"}, True]
    assert origin.requests[0].target == "/x?q"
    assert origin.requests[0].headers == {
        "host": origin.host, "accept": "*/*", "user-agent": "wsthreads", "accept-encoding": "gzip, deflate"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("init", "method", "body", "type"),
    [
        ("{ method: 'post', body: 'ü' }", "POST", "ü".encode(), "text/plain;charset=UTF-8"),
        ("{ method: 'PUT', body: new Uint8Array([0, 1, 255]).subarray(1) }", "PUT", b"\x01\xff", None),
        ("{ method: 'patch', body: new Uint8Array([7]).buffer }", "patch", b"\x07", None),
        ("{ method: 'POST', body: new URLSearchParams({ a: 'b c' }) }", "POST", b"a=b+c",
         "application/x-www-form-urlencoded;charset=UTF-8"),
        ("{ method: 'POST', body: '{}', headers: { 'Content-Type': 'a/json' } }", "POST", b"{}", "a/json"),
        ("{ method: 'POST', body: (await fetch(base + '/x')).body }", "POST", b"abc", None),
        ("{ method: 'POST' }", "POST", b"", None),
        ("{ method: 'DELETE' }", "DELETE", b"", None),
    ],
)  # fmt: skip
def test_methods_and_bodies_are_sent(
    origin: Origin, js: Asking, init: str, method: str, body: bytes, type: str | None
) -> None:
    origin.routes["/x"] = response(b"abc")
    told = js(f"return (await fetch(base + '/echo', {init})).json()")
    assert (told["method"], told["body"].encode("latin-1"), told["headers"].get("content-type")) == (method, body, type)


def test_a_request_may_be_made_before(origin: Origin, js: Asking) -> None:
    told = js("""const request = new Request(base + "/echo", { method: "POST", body: "b", headers: { "x-a": "1" } });
      const copy = request.clone();
      const first = await (await fetch(request)).json();
      let again;
      try { await fetch(request); } catch (error) { again = error.name; }
      const second = await (await fetch(copy, { headers: { "x-a": "2" } })).json();
      return [first.body, request.bodyUsed, again, second.headers["x-a"]];""")
    assert told == ["b", True, "TypeError", "2"]


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("[...new Uint8Array(await r.arrayBuffer())]", [239, 187, 191, 97, 255]),
        ("[...await r.bytes()]", [239, 187, 191, 97, 255]),
        ("await r.text()", "a\ufffd"),
        ("await r.json()", "SyntaxError: the body from "),
        ("await r.blob()", "TypeError: blob() is not available in scripts: use bytes() or text()"),
        ("(await r.text(), await r.text())", "TypeError: the body was read already"),
        ("(r.body.getReader(), await r.text())", "TypeError: the body is read through body.getReader()"),
        ("(await r.text(), r.clone())", "TypeError: a body that was read cannot be cloned"),
        ("await Promise.all([r.clone().text(), r.clone().text(), r.text()])", ["a\ufffd"] * 3),
        ("r.headers.set('a', 'b')", "TypeError: the headers of a fetched response cannot be changed"),
        ("(r.clone().headers.append('a', 'b'))", "TypeError: the headers of a fetched response cannot be changed"),
    ],
)
def test_bodies_can_be_read_in_each_way(origin: Origin, js: Asking, code: str, result: Any) -> None:
    origin.routes["/x"] = response(b"\xef\xbb\xbfa\xff")
    told = js(f"const r = await fetch(base + '/x'); return {code}")
    assert told == result or (isinstance(result, str) and str(told).startswith(result))


def test_a_body_that_is_not_json_names_the_script_and_the_address(origin: Origin, tmp_path: Path) -> None:
    origin.routes["/page"] = response(b"<html>")
    code = f"export async function onMessage() {{\n  (await fetch('{origin.url}/page?key=a')).json();\n}}"
    with script_log() as log, running(tmp_path, code, allow_net=[origin.host]) as script:
        script.message(script.open(), "x")
        text = log.wait_for("is not JSON")
    assert f"SyntaxError: the body from {origin.url} is not JSON: unexpected token" in text
    assert "at onMessage (script.js:2:" in text


def test_responses_without_a_body_free_the_connection_at_once(
    origin: Origin, js: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Connections.keep

    def keep_late(connections: Connections, connection: Connection) -> None:
        time.sleep(0.05)
        keep(connections, connection)

    monkeypatch.setattr(Connections, "keep", keep_late)
    origin.routes["/none"] = b"HTTP/1.1 204 No Content\r\n\r\n"
    origin.routes["/head"] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    origin.routes["/empty"] = response(b"")
    origin.routes["/chunked"] = b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"
    origin.routes["/same"] = b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"
    for path in ("/none", "/head", "/empty", "/chunked", "/same", "/none"):
        method = "HEAD" if path == "/head" else "GET"
        told = js(f"const r = await fetch(base + '{path}', {{ method: '{method}' }}); return await r.text()")
        assert told == ""
    assert js("return (await fetch(base + '/head', { method: 'HEAD' })).body") is None
    assert js("return (await fetch(base + '/none')).body") is None
    assert origin.connections == 2, "one is not kept, after the 204 that names a body"


@pytest.mark.parametrize("is_at_once", [True, False])
def test_interim_responses_are_skipped(origin: Origin, js: Asking, is_at_once: bool) -> None:
    interim = b"".join(
        b"HTTP/1.1 %d Interim\r\nContent-Length: 5\r\nLink: </a.css>\r\nConnection: close\r\n\r\n" % status
        for status in (100, 102, 103, 199, 103)
    )

    def answer(_: Received, connection: socket.socket) -> bytes:
        if is_at_once:
            return interim + response(b"mine", "X-A: 1")
        connection.sendall(interim)
        return response(b"mine", "X-A: 1")

    origin.routes["/x"] = answer
    for init in ("{}", "{ method: 'POST', body: 'b' }", "{ method: 'PUT' }"):
        told = js(f"""const r = await fetch(base + "/x", {init});
          return [r.status, await r.text(), r.headers.get("link"), r.headers.get("x-a"),
            (await (await fetch(base + "/echo")).json()).target];""")
        assert told == [200, "mine", None, "1", "/echo"]
    assert origin.connections == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
def test_bodies_are_decompressed(origin: Origin, js: Asking, encoding: str) -> None:
    text = b"text " * 50_000
    packer = zlib.compressobj(wbits=-15)
    raw = packer.compress(text) + packer.flush()
    packed = {"gzip": gzip.compress(text), "deflate": zlib.compress(text), "raw deflate": raw}
    origin.routes["/x"] = response(packed[encoding], f"Content-Encoding: {encoding.split()[-1]}")
    assert js("return (await (await fetch(base + '/x')).text()).length") == len(text)


def test_the_chunks_of_a_body_arrive_one_by_one(origin: Origin, js: Asking) -> None:
    go_on = threading.Semaphore(0)

    def drip(_: Received, connection: socket.socket) -> bytes:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        assert go_on.acquire(timeout=DEADLINE_S)
        return b"2\r\nbc\r\n0\r\n\r\n"

    origin.routes["/drip"] = drip

    def release(request: Received, _: socket.socket) -> bytes:
        go_on.release()
        return response()

    origin.routes["/go"] = release
    told = js("""const chunks = [];
      for await (const chunk of (await fetch(base + "/drip")).body) {
        chunks.push(new TextDecoder().decode(chunk));
        if (chunks.length === 1) await fetch(base + "/go");
      }
      return chunks;""")
    assert told == ["a", "bc"]
    told = js("""const reader = (await fetch(base + "/drip")).body.getReader();
      const first = await reader.read();
      await fetch(base + "/go");
      const [second, third, fourth] = [await reader.read(), await reader.read(), await reader.read()];
      return [first.value.length, second.value.length, third.done, fourth.done];""")
    assert told == [1, 2, True, True]


# Connections.


def test_connections_are_kept(origin: Origin, js: Asking) -> None:
    js("for (let n = 0; n < 20; n++) await (await fetch(base + '/echo')).text()")
    assert (origin.connections, len(origin.requests)) == (1, 20)
    js("await Promise.all([1, 2, 3].map(() => fetch(base + '/echo').then((r) => r.text())))")
    assert origin.connections <= 3


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_kept_connection_that_the_server_closes_is_replaced(origin: Origin, js: Asking, method: str) -> None:
    def once(_: Received, connection: socket.socket) -> bytes | None:
        return response(b"ok") if origin.connections == 2 else None

    origin.routes["/once"] = once
    js("await (await fetch(base + '/echo')).text()")
    assert js(f"return (await fetch(base + '/once', {{ method: '{method}' }})).text()") == "ok"
    assert [request.target for request in origin.requests] == ["/echo", "/once", "/once"]


def test_a_request_that_may_have_had_an_effect_is_not_sent_again(origin: Origin, js: Asking) -> None:
    origin.routes["/once"] = lambda *_: None
    js("await (await fetch(base + '/echo')).text()")
    told = js("return (await fetch(base + '/once', { method: 'POST' })).text()")
    assert told.startswith(f"TypeError: POST http://{origin.host}: the connection failed: ")
    assert [request.target for request in origin.requests] == ["/echo", "/once"]


def test_no_proxy_of_the_environment_is_used(origin: Origin, js: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert js("return (await fetch(base + '/echo')).status") == 200


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    server, _ = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    with Origin(context=server) as started:
        yield started


def test_https_has_verified_certificates(certified: Origin, tmp_path: Path) -> None:
    port = certified.port
    with asking(certified, tmp_path, allow_net=[f"localhost:{port}", "127.0.0.1"]) as script:
        js = Asking(script)
        told = js(f"return (await (await fetch('https://localhost:{port}/echo')).json()).headers.host")
        assert told == f"localhost:{port}"
        assert certified.names == ["localhost"]
        js(f"await (await fetch('https://localhost:{port}/echo')).text()")
        assert certified.connections == 1
        assert js(f"return (await fetch('https://127.0.0.1:{port}/echo')).status") == 200


def test_a_body_without_a_length_ends_with_the_end_of_tls(certified: Origin, tmp_path: Path) -> None:
    def whole(request: Received, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\npay 1000")
        connection.unwrap()  # type: ignore[attr-defined]  # sends close_notify

    def cut(request: Received, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\npay 1000")  # the origin then shuts down TCP

    certified.routes |= {"/whole": whole, "/cut": cut, "/sized": response(b"whole", "Connection: close")}
    with asking(certified, tmp_path, allow_net=[f"localhost:{certified.port}"]) as script:
        js = Asking(script)
        whole_, cut_, sized = (
            js(f"return (await fetch('https://localhost:{certified.port}/{path}')).text()")
            for path in ("whole", "cut", "sized")
        )
    assert (whole_, sized) == ("pay 1000", "whole")
    assert cut_.endswith("the connection was closed without the end of TLS, so a part of the body may be missing")


def test_a_server_that_is_gone_while_the_request_is_written_has_sent_no_body_that_could_be_incomplete(
    origin: Origin, js: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(*_: object) -> None:
        raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")  # as a write over TLS does

    monkeypatch.setattr(Connection, "send", send)
    told = js("await fetch(base + '/echo', { method: 'POST' })")
    assert told == f"TypeError: POST {origin.url}: the connection failed: it was closed without the end of TLS"


def test_other_certificates_are_refused(
    certified: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolver: Resolver
) -> None:
    port = certified.port
    resolver.answers["other.test"] = [["127.0.0.1"]]
    with asking(certified, tmp_path, allow_net=[f"other.test:{port}"]) as script:
        told = Asking(script)(f"await fetch('https://other.test:{port}/echo')")
        assert f"GET https://other.test:{port}: the certificate is not accepted: Hostname mismatch" in told
    monkeypatch.delenv("SSL_CERT_FILE")
    with asking(certified, tmp_path, allow_net=[f"localhost:{port}"]) as script:
        told = Asking(script)(f"await fetch('https://localhost:{port}/echo')")
        assert "the certificate is not accepted: self" in told
    assert certified.requests == []


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", b"HTTP/1.1 302 Found\r\nLocation: /echo\r\nContent-Length: 0\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("padding", [0, 8192])
def test_bytes_behind_a_response_do_not_begin_the_next_one(
    certified: Origin, tmp_path: Path, padding: int, method: str, head: bytes
) -> None:
    """They come in one record of TLS. The padding fills the buffer of the reader, and the rest stays in OpenSSL."""
    evil = b"HTTP/1.1 200 EVIL\r\nContent-Length: 4\r\n\r\nevil"
    certified.routes["/a"] = head + b"x" * max(0, padding - len(head)) + evil
    url = f"https://localhost:{certified.port}"
    with asking(certified, tmp_path, allow_net=[f"localhost:{certified.port}"]) as script:
        js = Asking(script)
        assert "evil" not in str(js(f"return (await fetch('{url}/a', {{ method: '{method}' }})).text()"))
        assert js(f"return (await (await fetch('{url}/echo', {{ method: 'POST' }})).json()).target") == "/echo"


@pytest.mark.parametrize("behind", [b"", b"\0", bytes(8), b"\r\n", b"anything", gzip.compress(b"cd") + bytes(3)])
def test_what_is_behind_the_end_of_a_gzip_body_does_not_count(origin: Origin, js: Asking, behind: bytes) -> None:
    origin.routes["/x"] = response(gzip.compress(b"ab") + behind, "Content-Encoding: gzip")
    assert js("return (await fetch(base + '/x')).text()") == ("abcd" if len(behind) > 10 else "ab")


@pytest.mark.parametrize("head", ["X: y\r\n z", "X: y\n z", "X: y  z\r\nContent-Length: 5"])
def test_odd_heads_that_are_clear_are_read(origin: Origin, js: Asking, head: str) -> None:
    origin.routes["/x"] = f"HTTP/1.1 200 OK\r\n{head}\r\nContent-Length: 5\r\n\r\nhello".encode()
    assert js("const r = await fetch(base + '/x'); return [r.headers.get('x').split(/ +/), await r.text()]") == [
        ["y", "z"],
        "hello",
    ]


@pytest.mark.parametrize("body", [b"5;a\r\nhello\r\n0\r\n\r\n", b"05\nhello\n0;\nX: y\n\n", b"5 \r\nhello\r\n0\n\n"])
def test_odd_chunks_that_are_clear_are_read(origin: Origin, js: Asking, body: bytes) -> None:
    origin.routes["/x"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n" + body
    for _ in range(2):
        assert js("return (await fetch(base + '/x')).text()") == "hello"
    assert origin.connections == 1


@pytest.mark.parametrize(
    "value", ["chunked \r\n", "chunked\t\n", "\r\n chunked\r\n", " \r\n\tchunked \r\nContent-Length: 7\r\n"]
)
def test_blanks_around_a_value_are_no_part_of_it(origin: Origin, js: Asking, value: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding:\r\n gzip \r\nTransfer-Encoding:{value}\r\n"
    body = gzip.compress(b"hello")
    origin.routes["/x"] = head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert js("return (await fetch(base + '/x')).text()") == "hello"
    assert js("return (await fetch(base + '/echo')).status") == 200


def test_a_request_is_sent_again_if_a_kept_connection_has_no_response(origin: Origin, js: Asking) -> None:
    def first_good(_: Received, connection: socket.socket) -> bytes:
        answered.append(connection)
        return response(b"hello") if answered.count(connection) == 1 else b"nonsense\r\n\r\n"

    answered: list[socket.socket] = []
    origin.routes["/x"] = first_good
    for _ in range(2):
        assert js("return (await fetch(base + '/x')).text()") == "hello"
    assert origin.connections == 2


def test_an_answer_that_comes_before_the_body_was_read_is_heard(origin: Origin, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(response(b"too large", "Connection: close", status="413 Content Too Large"))

        thread = threading.Thread(target=refuse)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with asking(origin, tmp_path, allow_net=[address]) as script:
            post = f"fetch('http://{address}', {{ method: 'POST', body: 'x'.repeat(8e6) }})"
            assert Asking(script)(f"const r = await {post}; return [r.status, await r.text()]") == [413, "too large"]
        thread.join(DEADLINE_S)


def test_a_late_408_on_a_kept_connection_is_no_answer_to_the_next_request(
    origin: Origin, js: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing, closed = threading.Event(), threading.Event()

    def answer(_: Received, connection: socket.socket) -> bytes | None:
        if origin.connections == 2:
            return response(b"second")
        connection.sendall(response(b"first"))
        closing.wait(DEADLINE_S)
        connection.sendall(response(b"", "Connection: close", status="408 Request Timeout"))
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()
        return None

    origin.routes["/x"] = answer
    assert js("return (await fetch(base + '/x', { method: 'PUT' })).text()") == "first"
    send = Connection.send

    def send_late(self: Connection, request: Any) -> Any:  # after the look at the connection
        closing.set()
        assert closed.wait(DEADLINE_S)
        return send(self, request)

    monkeypatch.setattr(Connection, "send", send_late)
    assert js("return (await fetch(base + '/x', { method: 'PUT', body: 'x'.repeat(2e6) })).text()") == "second"


def test_a_request_is_sent_twice_at_most(origin: Origin, js: Asking) -> None:
    together, is_closing = threading.Barrier(3), threading.Event()

    def answer(_: Received, connection: socket.socket) -> bytes | None:
        if is_closing.is_set():
            return None
        together.wait(DEADLINE_S)  # so that there are three connections
        return response(b"hello")

    origin.routes["/x"] = answer
    texts = js("return Promise.all([1, 2, 3].map(() => fetch(base + '/x').then((r) => r.text())))")
    assert texts == ["hello"] * 3
    is_closing.set()
    before = len(origin.requests)
    assert str(js("return (await fetch(base + '/x', { method: 'PUT' })).text()")).startswith("TypeError: PUT ")
    assert len(origin.requests) == before + 2


def test_a_connection_after_a_204_that_names_a_body_is_not_kept(origin: Origin, js: Asking) -> None:
    origin.routes["/a"] = b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n"
    for _ in range(2):
        assert js("return (await fetch(base + '/a')).status") == 204
    assert origin.connections == 2


# Redirects.


def moved(to: str, status: int = 302) -> bytes:
    return response(b"moved", f"Location: {to}", status=f"{status} Moved")


def test_redirects_are_followed(origin: Origin, js: Asking) -> None:
    origin.routes |= {"/a": moved("b?x#part"), "/b": moved(f"{origin.url}/echo?y", 308)}
    told = js("const r = await fetch(base + '/a'); return [r.redirected, r.url, r.status, (await r.json()).target]")
    assert told == [True, f"{origin.url}/echo?y", 200, "/echo?y"]
    assert [request.target for request in origin.requests] == ["/a", "/b?x", "/echo?y"]
    assert origin.connections == 1


@pytest.mark.parametrize(
    ("head", "body", "stays_open"),
    [
        ("Content-Length: 100", b"", True),
        ("Content-Length: 100", b"abc", False),
        ("Content-Encoding: gzip\r\nContent-Length: 3", b"abc", True),
        ("Transfer-Encoding: chunked", b"5\r\nab", True),
        ("Connection: close", b"", True),
        ("Connection: close", b"abc", False),
    ],
)
@pytest.mark.parametrize("threads", [1, 8])
def test_the_body_of_a_redirect_does_not_count(
    origin: Origin, tmp_path: Path, threads: int, head: str, body: bytes, stays_open: bool
) -> None:
    def redirect(_: Received, connection: socket.socket) -> bytes | None:
        data = f"HTTP/1.1 302 Found\r\nLocation: /echo\r\n{head}\r\n\r\n".encode() + body
        if stays_open:
            return data
        connection.sendall(data)
        return None

    origin.routes["/a"] = redirect
    with asking(origin, tmp_path, script_threads=threads) as script:
        for _ in range(3):
            assert Asking(script)("return (await (await fetch(base + '/a')).json()).target") == "/echo"


def test_many_redirects_at_once_whose_bodies_are_late(origin: Origin, tmp_path: Path) -> None:
    def redirect(request: Received, connection: socket.socket) -> bytes:
        left = int(request.target.removeprefix("/r")) - 1
        connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: /r{left}\r\nContent-Length: 3\r\n\r\n".encode())
        time.sleep(0.02)
        return b"abc"

    origin.routes |= {"/r0": response(b"end"), **{f"/r{number}": redirect for number in (1, 2, 3)}}
    with asking(origin, tmp_path) as script:
        code = "const all = Array.from({ length: 100 }, async () => (await fetch(base + '/r3')).text()); "
        assert Asking(script)(f"{code} return [...new Set(await Promise.all(all))]") == ["end"]


def test_thousands_of_headers_are_read_within_a_call(origin: Origin, js: Asking) -> None:
    lines = [f"X-{number}: a" for number in range(2000)] + [f"Set-Cookie: c{number}=1" for number in range(2000)]
    origin.routes["/x"] = response(b"body", *lines)
    code = """const r = await fetch(base + "/x"); const { headers } = r.clone();
      return [[...headers].length, [...new Headers(headers)].length, r.headers.getSetCookie().length]"""
    assert js(code) == [4001, 4001, 2000]


def test_an_address_of_a_redirect_may_be_utf_8(origin: Origin, js: Asking) -> None:
    location = "Location: /ä?€".encode().decode("latin-1")
    origin.routes["/a"] = response(b"", location, status="302 Found")
    js("return (await fetch(base + '/a')).status")
    assert origin.requests[-1].target == "/%c3%a4?%e2%82%ac"


def test_a_response_with_hundreds_of_headers(origin: Origin, js: Asking) -> None:
    origin.routes["/x"] = response(b"body", *(f"X-{number}: a" for number in range(500)))
    for _ in range(2):
        told = js("const r = await fetch(base + '/x'); return [r.headers.get('x-499'), await r.text()]")
        assert told == ["a", "body"]
    assert origin.connections == 1


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [(301, "POST", "GET", ""), (302, "POST", "GET", ""), (303, "POST", "GET", ""), (303, "PUT", "GET", ""),
     (301, "PUT", "PUT", "b"), (307, "POST", "POST", "b"), (308, "POST", "POST", "b"), (303, "HEAD", "HEAD", "")],
)  # fmt: skip
def test_the_method_of_a_redirected_request(
    origin: Origin, js: Asking, status: int, method: str, then: str, body: str
) -> None:
    origin.routes["/a"] = response(b"", "Location: /echo", status=f"{status} x")
    told = js(f"await fetch(base + '/a', {{ method: '{method}'{', body: `b`' if method != 'HEAD' else ''} }})")
    assert told == "undefined"
    last = origin.requests[-1]
    assert (last.method, last.body.decode(), "content-type" in last.headers) == (then, body, body != "")


def test_keys_are_not_sent_to_another_origin(origin: Origin, tmp_path: Path) -> None:
    with Origin() as other, asking(origin, tmp_path, allow_net=[origin.host, other.host]) as script:
        origin.routes |= {"/a": moved(f"{other.url}/echo"), "/b": moved("/echo")}
        headers = "{ headers: { Authorization: 'k', Cookie: 'c', 'x-other': 'o' } }"
        told = Asking(script)(f"return (await (await fetch(base + '/a', {headers})).json()).headers")
        assert {"authorization", "cookie"}.isdisjoint(told)
        assert told["x-other"] == "o"
        told = Asking(script)(f"return (await (await fetch(base + '/b', {headers})).json()).headers")
        assert (told["authorization"], told["cookie"]) == ("k", "c")


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("/loop", "more than 20 redirects"),
        ("http://other.test/", "fetch may not reach other.test: allow it with --allow-net other.test"),
        ("http://127.0.0.1:1/", "fetch may not reach 127.0.0.1:1"),
        ("http://[::ffff:127.0.0.1]:1/", "fetch may not reach [::ffff:7f00:1]:1"),
        ("http://2130706433:1/", "fetch may not reach 127.0.0.1:1"),
        ("http://0x7f.1:1/", "fetch may not reach 127.0.0.1:1"),
        ("http://169.254.169.254/latest", "fetch may not reach 169.254.169.254"),
        ("file:///etc/passwd", "fetch takes http and https URLs"),
        ("data:text/plain,x", "fetch takes http and https URLs"),
        ("http://me:secret@127.0.0.1/", "fetch takes no URL with a user or a password"),
        ("http://", "is not"),
    ],
)
def test_redirects_that_are_not_followed(origin: Origin, js: Asking, to: str, message: str) -> None:
    origin.routes["/loop"] = moved(to)
    told = js("await fetch(base + '/loop')")
    assert told.startswith("TypeError: ")
    assert message in told or to == "http://"
    assert len(origin.requests) == (21 if to == "/loop" else 1)


def test_a_script_may_look_at_redirects_itself(origin: Origin, js: Asking) -> None:
    origin.routes["/a"] = moved("/echo")
    told = js("""const r = await fetch(base + '/a', { redirect: 'manual' });
      return [r.status, r.headers.get('location'), r.redirected];""")
    assert told == [302, "/echo", False]
    told = js("await fetch(base + '/a', { redirect: 'error' })")
    assert told == f'TypeError: GET {origin.url}: the server redirects, and redirect is "error"'
    origin.routes["/b"] = response(b"x", status="302 Moved")
    assert js("return (await fetch(base + '/b')).text()") == "x"


# Hosts.


def test_without_allow_net_there_is_no_fetch(origin: Origin, tmp_path: Path) -> None:
    with asking(origin, tmp_path, allow_net=[]) as script:
        told = Asking(script)("await fetch(base + '/echo')")
    host = origin.host
    assert told == f'TypeError: fetch may not reach {host}: allow it with --allow-net {host} or allow_net=["{host}"]'
    assert origin.connections == 0


@pytest.mark.parametrize(
    "host",
    ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
     "localhost", "LOCALHOST", "localhost.", "０.0.0.0", "0", "[::]", "shop.test@127.0.0.1", "127.0.0.1#shop.test",
     "127.0.0.1\\\\@shop.test", "shop.test%00", "shop.test:80@localhost"],
)  # fmt: skip
def test_no_way_to_write_an_address_gets_around_the_list(origin: Origin, tmp_path: Path, host: str) -> None:
    with asking(origin, tmp_path, allow_net=["shop.test", "*.shop.test"]) as script:
        told = Asking(script)(f'await fetch("http://{host}:{origin.port}/echo")')
    assert told.startswith("TypeError: ")
    assert origin.connections == 0


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "fe80::1"]
)
def test_a_name_that_resolves_to_no_public_address_is_refused(
    origin: Origin, tmp_path: Path, resolver: Resolver, address: str
) -> None:
    resolver.answers = {"shop.test": [[address]], "two.shop.test": [["8.8.8.8", address]]}
    with asking(origin, tmp_path, allow_net=["shop.test", "*.shop.test"]) as script:
        for name in ("shop.test", "two.shop.test"):
            told = Asking(script)(f"await fetch('http://{name}:{origin.port}/')")
            assert told.startswith(f"TypeError: GET http://{name}:{origin.port}: {name} is refused: ")
    assert origin.connections == 0


def test_a_name_is_resolved_once_and_that_address_is_connected_to(
    origin: Origin, tmp_path: Path, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver.answers["shop.test"] = [["93.184.215.14"], ["127.0.0.1"]]
    reached, original = [], socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if address[1] != origin.port:  # a thread of an earlier test
            original(self, address)
            return
        reached.append(address[0])
        raise ConnectionRefusedError(111, "refused")

    with asking(origin, tmp_path, allow_net=["shop.test"]) as script:
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "connect", connect)
            told = Asking(script)(f"await fetch('http://shop.test:{origin.port}/')")
        assert told.endswith(f"cannot connect to shop.test:{origin.port}: refused")
        assert (resolver.calls, reached) == (["shop.test"], ["93.184.215.14"])
        assert "is a private address" in Asking(script)(f"await fetch('http://shop.test:{origin.port}/')")
    assert origin.connections == 0


def test_the_next_address_is_tried(origin: Origin, tmp_path: Path, resolver: Resolver) -> None:
    resolver.answers["shop.test"] = [["127.0.0.2", "::1", "127.0.0.1"]]
    with asking(origin, tmp_path, allow_net=[f"shop.test:{origin.port}"]) as script:
        told = Asking(script)(f"return (await (await fetch('http://shop.test:{origin.port}/echo')).json()).headers.host")
    assert told == f"shop.test:{origin.port}"


def test_hosts_that_are_not_there(origin: Origin, tmp_path: Path, resolver: Resolver) -> None:
    port = free_port()
    with asking(origin, tmp_path, allow_net=[f"127.0.0.1:{port}", "nowhere.invalid"]) as script:
        told = Asking(script)(f"await fetch('http://127.0.0.1:{port}/')")
        assert told == f"TypeError: GET http://127.0.0.1:{port}: cannot connect to 127.0.0.1:{port}: Connection refused"
        assert "the host nowhere.invalid is not found" in Asking(script)("await fetch('http://nowhere.invalid/')")


def test_ipv6(tmp_path: Path) -> None:
    with Origin("::1") as origin, asking(origin, tmp_path) as script:
        assert Asking(script)("return (await (await fetch(base + '/echo')).json()).headers.host") == origin.host
