"""What lines of the log carry and look like; and that no client can forge one, or steer the terminal that shows it."""

from __future__ import annotations

import io
import json
import logging
import re
import signal
import socket
import sys
import time
import timeit
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.programs import DEADLINE_S, Program, connect, receive, run_server, wait_until
from tests.wire import CLOSE, RawClient, close_payload
from wsthreads.app import WebSocketApp
from wsthreads.cli.client import describe_close
from wsthreads.monitoring.formats import AccessFormatter, takes_colours
from wsthreads.monitoring.logs import (
    SESSION_KEY,
    AddContext,
    JSONFormatter,
    TextFormatter,
    block,
    hide_secrets,
    in_context,
    log_context,
    printable,
    quoted,
)

FORGED = "12:00:00 ERROR forged: all is lost"
NASTY = f"x\n{FORGED}\r{FORGED}\x1b[31mred\x9b0m\x07\x00\x7f\u202e\u2028{FORGED}\u2029\u200b\u2066"

SCRIPT = """
export function onMessage(session, message) {
  console.log(message);
  console.log({ message });
  throw new Error(message);
}
"""

HANDLER = """
import wsthreads
def on_handshake(request):
    if request.get_parameter("refuse"):
        raise wsthreads.HandshakeRefused(401, "not you, " + request.get_parameter("refuse"))
    if request.get_parameter("status"):
        return request.get_parameter("status")
def on_message(session, message):
    raise ValueError(message)
"""


@pytest.mark.parametrize("text", ["plain", "grüße 🎉", ""])
def test_what_can_be_printed_stays_as_it_is(text: str) -> None:
    assert printable(text) == block(text) == text


def test_what_cannot_is_escaped() -> None:
    assert printable("a\nb") == r"'a\nb'"
    assert block("\x1b[31m\ta\r\x7f\x85\x9b\x00") == r"\x1b[31m" + "\ta" + r"\x0d\x7f\x85\x9b\x00"


#: What cannot be seen, or changes the direction of what is seen; and a lone surrogate, which no stream takes.
INVISIBLE = [*range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2065), *range(0x2066, 0x206A),
             0x61C, 0xAD, 0xFEFF, 0xE0041, 0xD800, 0x85, 0x9B]  # fmt: skip


@pytest.mark.parametrize("code", INVISIBLE, ids=hex)
def test_what_cannot_be_seen_is_escaped(code: int) -> None:
    nasty = f"a{chr(code)}b"
    for text in (
        block(nasty), quoted(nasty), printable(nasty), AccessFormatter().format(record_of(f"GET /{nasty}")),
        AccessFormatter(colours=True).format(record_of(f"\x1b[1mGET /{nasty}\x1b[0m")),
        TextFormatter().format(record_of("%s", nasty, address=nasty)), describe_close(4000, nasty),
    ):  # fmt: skip
        assert chr(code) not in text
        assert f"{code:x}b" in text.lower()


def test_spaces_and_letters_of_all_languages_are_not() -> None:
    text = "\xa0\u3000ünï 日本語 🎉 ✔️"
    assert block(text) == quoted(text) == text


def test_what_somebody_else_says_has_a_bar_before_each_further_line() -> None:
    assert quoted("a\nb\n    at c\n") == "a\n  | b\n  |     at c\n  | "


def test_only_the_first_line_of_a_block_begins_at_the_left() -> None:
    assert block("a\nb\n  c\n\n") == "a\n  b\n  c\n  \n  "


def nasty_clients(port: int, forward: bool) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in NASTY.encode())
    raw = NASTY.replace("\n", "").replace("\r", "").replace("\x00", "")
    raw = raw.encode("latin-1", "ignore").decode("latin-1")
    # Servers refuse other control characters in headers, these they do not.
    forwarded = {"X-Forwarded-For": "".join(c for c in raw if c >= " " and c != "\x7f")} if forward else {}
    for path, headers in (
        (f"/ws/script?user={quoted}", {"Origin": raw}),
        (f"/ws/script?user={quoted}", {"Sec-WebSocket-Version": raw}),
        (f"/ws/python?refuse={quoted}", forwarded),
        (f"/ws/python?status={quoted}", forwarded),
        (f"/{quoted}", {}),
        ("/\x1b[31m", {}),
    ):
        with suppress(EOFError, ConnectionError), RawClient(port, path, headers) as client:
            assert client.status in (400, 401, 403, 404, 500)
            assert not set(client.headers) & {"x", FORGED.partition(":")[0].lower()}
    with suppress(EOFError, ConnectionError), RawClient(port, "/ws/script", method="\x1b[31mPOST"):
        pass
    for path in ("/ws/script", "/ws/python"):
        with RawClient(port, path, forwarded) as client:
            assert client.status == 101
            client.text(NASTY)
            client.send(CLOSE, close_payload(4000, f"x\n{FORGED}\x1b[31m"))
            client.receive_close()
            assert client.at_end()


def check(log: str) -> None:
    """That it was tried, and led to nothing."""
    assert log.count("forged") >= 8, log
    for line in log.splitlines():
        assert not line.startswith(FORGED), log
        assert not any(c != "\t" and not c.isprintable() for c in line), repr(line)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "script.js").write_text(SCRIPT)
    (tmp_path / "python.py").write_text(HANDLER)
    return tmp_path


def test_under_wsthreads_run(folder: Path) -> None:
    with run_server("script.js", "python.py", "--trusted-proxies", "1", cwd=folder) as server:
        nasty_clients(server.port, forward=True)
        server.wait_for("closed on", times=2)
        assert server.end() == 0
        check(server.log)


def test_under_gunicorn(folder: Path) -> None:
    target = 'wsthreads:create_app("script.js", "python.py", trusted_proxies=1)'
    command = [sys.executable, "-m", "gunicorn", "-k", "wsthreads.gunicorn.ThreadWorker", "--threads", "10"]
    command += ["--bind", "127.0.0.1:0", "--log-level", "debug", target]
    with Program(command, cwd=folder) as server:
        port = int(server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        nasty_clients(port, forward=False)
        server.wait_for("closed on", times=2)
        assert server.end(signal.SIGTERM) == 0
        # Before gunicorn 27, this line of its own has the path as it came.
        check("\n".join(line for line in server.log.splitlines() if "[DEBUG] GET /" not in line))


def test_a_library_s_log_is_left_to_its_application() -> None:
    for name in ("wsthreads", "wsthreads.script"):
        assert not logging.getLogger(name).handlers
        assert logging.getLogger(name).level == logging.NOTSET


CONTEXT = log_context({"PATH_INFO": "/ws/chat", "REMOTE_ADDR": "192.0.2.1", SESSION_KEY: "0123456789abcdef"})


def record_of(message: str, *arguments: object, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    return logging.getLogger("some.logger").makeRecord(
        "some.logger", level, "file.py", 1, message, arguments, None, extra=extra
    )


@pytest.mark.parametrize(("url", "shown"), [
    ("/ws?token=abc&user=ann", "/ws?token=***&user=ann"),
    ('"GET /ws?a=1&API_KEY=a%20b HTTP/1.1" 101 -', '"GET /ws?a=1&API_KEY=*** HTTP/1.1" 101 -'),
    ("/ws?%74oken=abc&password=&x=token", "/ws?%74oken=***&password=&x=token"),
    ("https://host/page?session_id=1#top", "https://host/page?session_id=***"),
    ("https://host/page?x=1#top", "https://host/page?x=1#top"),
    ("/ws?author=ann&room=a", "/ws?author=ann&room=a"),
    ("token=abc&x=1", "token=***&x=1"),
    ("/ws?pass=a&passphrase=b&sid=c", "/ws?pass=***&passphrase=***&sid=***"),
    ("/ws?PHPSESSID=a&ticket=b", "/ws?PHPSESSID=***&ticket=***"),
    ("/ws?side=a&passenger=b&assessment=c", "/ws?side=a&passenger=b&assessment=c"),
    ("/ws?authorization=abc&Authorisation=d", "/ws?authorization=***&Authorisation=***"),
    ("/ws?authority=abc&authors=d&co_author=e", "/ws?authority=abc&authors=d&co_author=e"),
    ("/cb?code=abc&passcode=d&codec=e", "/cb?code=***&passcode=***&codec=e"),
    ("/ws?hmac=a&SAMLResponse=b&client_assertion=c", "/ws?hmac=***&SAMLResponse=***&client_assertion=***"),
    ("/ws?ticket=7&auth_ticket=8&ticketToken=9", "/ws?ticket=***&auth_ticket=***&ticketToken=***"),
    ("/ws?ticket_id=7&ticketNumber=8&tickets=9", "/ws?ticket_id=7&ticketNumber=8&tickets=9"),
    ("/ws?keyword=a&keyboard=b&keys=c", "/ws?keyword=a&keyboard=b&keys=***"),
    ("/ws?token=ab'cd", "/ws?token=***"),
    ('"GET /ws?token=ab"c\'d HTTP/1.1" 101', '"GET /ws?token=*** HTTP/1.1" 101'),
    ("('/ws?token=ab')", "('/ws?token=***')"),
    ('"http://h/?token=abc" "Mozilla"', '"http://h/?token=***" "Mozilla"'),
    ("/ws?token=a;b&x=1", "/ws?token=***&x=1"),
    ("/ws?x=1;token=abc&y=2", "/ws?x=1;token=***&y=2"),
    ("/ws;jsessionid=abc?x=1", "/ws;jsessionid=***"),
    ("/ws?token=abc&x=1&token=def", "/ws?token=***&x=1&token=***"),
    ("/page?x=1#access_token=abc&y=2", "/page?x=1#access_token=***&y=2"),
    ("/page#access_token=abc", "/page#access_token=***"),
    ("/ws?user[password]=abc&user%5Bpassword%5D=d", "/ws?user[password]=***&user%5Bpassword%5D=***"),
    ("/ws?api+key=abc&%61%75th=d", "/ws?api+key=***&%61%75th=***"),
    ("/ws?token=a=b=c&x=1", "/ws?token=***&x=1"),
    ("/login?next=/ws?token=abc&x=1", "/login?next=/ws?token=***&x=1"),
    ("/login?next=%2Fws%3Fx%3D1%26token%3Dabc&x=1", "/login?next=***&x=1"),
    ("/login?next=%252Fws%253Ftoken%253Dabc&x=%20", "/login?next=***&x=%20"),
    ("/login?next=%2Fws%3Froom%3Dabc", "/login?next=%2Fws%3Froom%3Dabc"),
    ("/ws?token=abc, /ws?token=def", "/ws?token=***, /ws?token=***"),
    ("/ws?pw=a&pin=b&my_psk=c&sess=d&connect.sid=e", "/ws?pw=***&pin=***&my_psk=***&sess=***&connect.sid=***"),
    ("/ws?pwa=a&spin=b&basid=c&less=d", "/ws?pwa=a&spin=b&basid=c&less=d"),
    ('/ws?json={"token":"abc"}&x=1', "/ws?json=***&x=1"),
    ("/ws?json=%7B%22a%22%3A1%2C%22token%22%20%3A%22abc%22%7D&x=1", "/ws?json=***&x=1"),
    ('/ws?json={"room":"abc"}&x=1', '/ws?json={"room":"abc"}&x=1'),
    ('"GET http://ann:abc@host/x HTTP/1.1" 400 -', '"GET http://***@host/x HTTP/1.1" 400 -'),
    ("redis://:a@b@host/0?x=a@b", "redis://***@host/0?x=a@b"),
    ("/ws?next=https%3A%2F%2Fann%3Aabc%40host%2F&x=1", "/ws?next=***&x=1"),
    ("see http://host/a@b, ann@host, http://host ann@host", "see http://host/a@b, ann@host, http://host ann@host"),
])
def test_secrets_of_a_query_are_hidden(url: str, shown: str) -> None:
    assert hide_secrets(url) == shown


@pytest.mark.parametrize("unit", ["a=", "a=%", "a;", "=", "token=", "a=%3D&", ";a=%", "%25", "?", "%a=", "'",
                                  "://", "://a", "://@", '"a"', '"', '?a="b":', '"a":%'])
def test_secrets_of_a_long_url_are_hidden_without_much_work(unit: str) -> None:
    shorter, longer = unit * 1_000, unit * 10_000

    def work(text: str) -> float:
        return min(timeit.repeat(lambda: hide_secrets(text), timer=time.thread_time, number=1, repeat=5))

    assert work(longer) < 50 * work(shorter) + 0.01, "it grows with the square of the length"


@pytest.mark.parametrize(("environment", "terminal", "colours"), [
    ({"TERM": "xterm"}, True, True),
    ({"TERM": "xterm"}, False, False),
    ({"TERM": "dumb"}, True, False),
    ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
    ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
    ({"FORCE_COLOR": "1"}, False, True),
    ({"TERM": "dumb", "FORCE_COLOR": "1"}, False, True),
    ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
])
def test_colours_are_for_terminals_unless_the_environment_says_otherwise(
    environment: dict[str, str], terminal: bool, colours: bool
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    assert takes_colours(Stream(), environment) is colours


def test_text_has_the_context_that_the_message_does_not_tell() -> None:
    line = TextFormatter().format(record_of("from %s:\nmore", "192.0.2.1", **CONTEXT))
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO some\.logger: from 192\.0\.2\.1: \[01234567 /ws/chat\]\n  more", line)
    assert TextFormatter().format(record_of("hello")).endswith("INFO some.logger: hello")


def test_colours_change_nothing_but_colours() -> None:
    record = record_of("lost\x1b[31m", level=logging.ERROR, **CONTEXT)
    plain, coloured = TextFormatter().format(record), TextFormatter(colours=True).format(record)
    assert "\x1b[31mERROR\x1b[0m" in coloured
    assert re.sub(r"\x1b\[\d*m", "", coloured) == plain
    access = record_of("\x1b[1mGET /\x1b[0m\n")
    assert AccessFormatter(colours=True).format(access) == "\x1b[1mGET /\x1b[0m"
    assert AccessFormatter().format(access) == "GET /"


def test_json_is_one_object_a_line() -> None:
    others = {"number": 1, "ratio": float("nan"), "thing": object(), "stack": ()}
    line = JSONFormatter().format(record_of(f"grüße\n{NASTY}", **CONTEXT, **others))
    assert line.isascii()
    assert line.isprintable()
    fields = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("time"))
    assert fields.pop("pid") > 0
    assert fields == {
        "level": "info", "logger": "some.logger", "message": f"grüße\n{NASTY}", "number": 1, "ratio": "nan",
        "session": "0123456789abcdef", "endpoint": "/ws/chat", "address": "192.0.2.1",
    }  # fmt: skip


def test_json_has_the_stack_of_an_exception_as_text() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        record = logging.getLogger("x").makeRecord("x", logging.ERROR, "f", 1, "failed", (), sys.exc_info())
    fields = json.loads(JSONFormatter().format(record))
    assert fields["message"] == "failed"
    assert fields["exception"].startswith("Traceback")
    assert fields["exception"].endswith("ValueError: no")


def test_the_lines_of_a_block_in_context_get_it() -> None:
    record, own = record_of("hello"), record_of("mine", address="198.51.100.1")
    AddContext().filter(outside := record_of("outside"))
    with in_context(CONTEXT):
        AddContext().filter(record)
        AddContext().filter(own)
    assert not hasattr(outside, "session")
    assert {name: getattr(record, name) for name in CONTEXT} == CONTEXT
    assert own.address == "198.51.100.1"  # type: ignore[attr-defined]


def chat(client_url: str, *messages: str) -> None:
    with connect(client_url) as client:
        for message in messages:
            client.send(message)
            assert receive(client) == message


def test_every_line_about_a_session_says_whose_it_is(
    serve: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In any set-up of logging: here it is pytest's."""
    caplog.set_level(logging.DEBUG)
    script = tmp_path / "chat.js"
    script.write_text(
        """import { refuse } from "./lib.js";
        export function onHandshake(request) { if (request.getParameter("refuse")) refuse(); }
        export function onOpen(session) { console.log("hello"); }
        export function onMessage(session, message) { session.send(message); throw new Error("no"); }"""
    )
    (tmp_path / "lib.js").write_text("export function refuse() {\n  throw new Error('not you');\n}")
    app = WebSocketApp(max_message_bytes=100)
    app.add_script("/ws/script", script)

    @app.route("/ws/python")
    class Handler:
        def on_handshake(self, request: Any) -> None:
            if request.get_parameter("refuse"):
                raise ValueError("not you")

        def on_message(self, session: Any, message: str) -> None:
            session.send(message)
            raise ValueError("no")

        def on_error(self, session: Any, error: BaseException) -> None:
            logging.getLogger("mine").info("an error")

    server = serve(app)
    for path in ("/ws/script", "/ws/python"):
        chat(server.ws_url + path, "hi")
        with connect(server.ws_url + path) as client:
            client.send("x" * 101)
            with pytest.raises(Exception, match="1009"):
                receive(client)
        with pytest.raises(Exception, match="500"):
            connect(server.ws_url + path + "?refuse=1")
    wait_until(lambda: sum(" closed on " in record.getMessage() for record in caplog.records) == 4)
    ids: dict[str, set[str]] = {"/ws/script": set(), "/ws/python": set()}
    told = []
    for record in caplog.records:
        about: Any = record
        if "wsthreads." in record.name and hasattr(record, "endpoint"):
            assert about.address == "127.0.0.1"
            text = record.getMessage()
            if hasattr(record, "session"):
                ids[about.endpoint].add(about.session)
            else:
                assert "andshake" in text, text
            told.append(text.partition("\n")[0])
        elif record.name == "mine":
            assert not hasattr(record, "session")  # pytest's handlers have no AddContext
    assert [len(known) for known in ids.values()] == [2, 2]
    for word, count in (("opened", 4), ("closed", 4), ("closing: ", 2), ("failed in session", 2), ("refused", 2),
                        ("andshake failed", 2), ("hello", 2)):  # fmt: skip
        assert sum(word in text for text in told) == count, (word, told)
    placed: list[Any] = [record for record in caplog.records if hasattr(record, "file")]
    places = [(about.file, about.line, getattr(about, "column", None)) for about in placed]
    assert ("lib.js", 2, 13) in places
    assert ("chat.js", 3, 51) in places


def lines_of(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines()]


def test_json_under_wsthreads_run(folder: Path) -> None:
    log = "logging.getLogger('mine').info('got %s', message)"
    logging_too = HANDLER.replace("    raise ValueError", f"    {log}\n    raise ValueError")
    (folder / "python.py").write_text(f"import logging\n{logging_too}")
    command = [sys.executable, "-m", "wsthreads", "run", "--port", "0", "script.js", "python.py",
               "--trusted-proxies", "1"]  # fmt: skip
    with Program(command, cwd=folder, env={"WSTHREADS_LOG_FORMAT": "json"}) as server:
        port = int(server.wait_for(r"Listening on http://127\.0\.0\.1:(\d+)")[1])
        nasty_clients(port, forward=True)
        with RawClient(port, "/ws/python?token=hidden") as client:
            assert client.status == 101
        server.wait_for("closed on", times=3)
        assert server.end() == 0
    lines = lines_of(server.log)
    mine = next(line for line in lines if line["logger"] == "mine")
    failed = next(
        line for line in lines if line["logger"] == "wsthreads.sessions.handlers" and "on_message" in line["message"]
    )
    assert mine["session"] == failed["session"]
    assert (mine["endpoint"], mine["address"]) == ("/ws/python", failed["address"])
    assert failed["exception"].startswith("Traceback")
    assert (Path(failed["file"]).name, failed["line"]) == ("python.py", 11)
    thrown = next(line for line in lines if "onMessage failed" in line["message"])
    assert thrown["exception"] == "    at onMessage (script.js:5:13)"
    assert (thrown["file"], thrown["line"], thrown["column"], thrown["endpoint"]) == ("script.js", 5, 13, "/ws/script")
    access = [line for line in lines if line["logger"] == "werkzeug" and line["path"] == "/ws/python?token=***"]
    assert [(line["method"], line["status"], line["address"]) for line in access] == [("GET", 101, "127.0.0.1")]
    assert "hidden" not in server.log


def test_json_under_gunicorn(folder: Path) -> None:
    command = [sys.executable, "-m", "gunicorn", "-k", "wsthreads.gunicorn.ThreadWorker", "--threads", "10",
               "--logger-class", "wsthreads.gunicorn.JSONLogger", "--access-logfile", "-", "--bind", "127.0.0.1:0",
               "--log-level", "debug", 'wsthreads:create_app("script.js", "python.py")']  # fmt: skip
    with Program(command, cwd=folder) as server:
        port = int(server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        nasty_clients(port, forward=False)
        server.wait_for("closed on", times=2)
        with RawClient(port, "/ws/python?refuse=1&token=hidden") as client:
            assert client.status == 401
        server.wait_for('"status": 401', times=2)
        assert server.end(signal.SIGTERM) == 0
    lines = lines_of(server.log)
    assert any("Listening at" in line["message"] for line in lines if line["logger"] == "gunicorn.error")
    thrown = next(line for line in lines if "onMessage failed" in line["message"])
    assert (thrown["logger"], thrown["endpoint"], thrown["line"]) == ("wsthreads.script.script.js", "/ws/script", 5)
    access = [line for line in lines if line["logger"] == "gunicorn.access"]
    session = next(line for line in access if line["status"] == 101 and line["path"] == "/ws/script")
    assert session["session"] == thrown["session"]
    assert session["duration_s"] > 0
    assert session["message"].startswith('"GET /ws/script HTTP/1.1" 101')
    (refused,) = (line for line in access if line["path"] == "/ws/python?refuse=1&token=***")
    assert refused["status"] == 401
    assert "session" not in refused
    assert "hidden" not in server.log


def test_secrets_are_hidden_in_the_access_logs_of_gunicorn_and_wsthreads_run(folder: Path) -> None:
    command = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", "10", "--access-logfile", "-",
               "--bind", "127.0.0.1:0", 'wsthreads:create_app("script.js", "python.py")']  # fmt: skip
    with Program(command, cwd=folder) as program:
        port = int(program.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        referer = {"Referer": "http://127.0.0.1/?token='hidden&authorization=hidden"}
        with RawClient(port, "/ws/python?refuse=1&token=hidden", referer) as client:
            assert client.status == 401
        program.wait_for(r'refuse=1&token=\*\*\* HTTP/1.1" 401 .*/\?token=\*\*\*&authorization=\*\*\*')
        requests = b"GET /?token=hidden hidden HTTP/1.1 x", b"G@T /?token=hidden HTTP/1.1", b"GET / HTTP/1.1\r\nhidden"
        for request in requests:
            with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as sock:
                sock.sendall(request + b"\r\n\r\n")
                assert sock.recv(65536).startswith(b"HTTP/1.1 400")
        assert program.end(signal.SIGTERM) == 0
        assert "hidden" not in program.log
    with run_server("python.py", "--log-level", "debug", cwd=folder) as server:
        for query in ("refuse=1&token=hidden", "token=hidden"):
            with RawClient(server.port, f"/ws/python?{query}") as client:
                assert client.status in (101, 401)
        server.wait_for(r'token=\*\*\* HTTP/1\.1" \d+ -', times=2)
        with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as sock:
            sock.sendall(b"GET /ws?token=hidden hidden HTTP/1.1 x\r\n\r\n")
            assert b"400" in sock.recv(65536)
        server.wait_for("a bad request from .*")
        assert "hidden" not in server.log


def test_secrets_are_hidden_whatever_logging_the_application_has_set_up(serve, caplog) -> None:
    caplog.set_level("DEBUG")
    app = WebSocketApp()
    app.add_handler("/ws", type("Handler", (), {"on_open": lambda self, session: session.send("in")})())
    server = serve(app)
    for path, status in (("/ws", 101), ("/other", 404)):
        with RawClient(server.port, f"{path}?authorization=hidden") as client:
            assert client.status == status
    wait_until(lambda: caplog.text.count("authorization=***") == 2, lambda: caplog.text)
    assert "hidden" not in caplog.text
    assert all("hidden" not in str(record.__dict__) for record in caplog.records)


def test_the_set_up_of_an_application_can_use_the_filter_and_the_formatter() -> None:
    configured = """
import logging.config, sys
from wsthreads.monitoring.logs import in_context
logging.config.dictConfig({
    "version": 1,
    "filters": {"session": {"()": "wsthreads.monitoring.logs.AddContext"}},
    "formatters": {"json": {"()": "wsthreads.monitoring.logs.JSONFormatter"}},
    "handlers": {"all": {"class": "logging.StreamHandler", "filters": ["session"], "formatter": "json"}},
    "root": {"handlers": ["all"], "level": "INFO"},
})
with in_context({"session": "abc", "endpoint": "/ws", "address": "192.0.2.1"}):
    logging.getLogger("mine").info("hello")
"""
    with Program([sys.executable, "-c", configured]) as program:
        assert program.wait() == 0
    (line,) = lines_of(program.log)
    assert (line["logger"], line["message"], line["session"]) == ("mine", "hello", "abc")
