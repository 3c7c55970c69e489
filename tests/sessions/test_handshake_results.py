"""What an on_handshake may decide, in both languages: by status, by a close code, by an exception of werkzeug's."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from flask import abort
from werkzeug.exceptions import HTTPException, ImATeapot, TooManyRequests, Unauthorized
from werkzeug.utils import redirect
from werkzeug.wrappers import Response

from tests.programs import wait_until
from tests.wire import TEXT, RawClient, Recorder, endpoint
from wsthreads import CloseCodeError, ConfigError, HandshakeRefused, Refusal, Request, WebSocketApp
from wsthreads.sessions.handshake_results import BadVerdict, Verdict, verdict_of
from wsthreads.testing import HandlerFailed, play


def request(subprotocols: str = "") -> Request:
    return Request({"HTTP_SEC_WEBSOCKET_PROTOCOL": subprotocols} if subprotocols else {})


def judge(answer: Any, asked: Request | None = None, **how: Any) -> Verdict:
    return verdict_of(answer, asked or request("a, b"), "chat.on_handshake", refusal="Refusal(code, reason)", **how)


@pytest.mark.parametrize("answer", [None, True])
def test_nothing_and_true_let_a_client_in_with_the_requests_attributes(answer: Any) -> None:
    asked = request()
    asked.attributes["user"] = "ann"
    assert judge(answer, asked) == Verdict(None, {"user": "ann"})


@pytest.mark.parametrize(("answer", "status"), [(False, 403), (400, 400), (401, 401), (599, 599)])
def test_false_and_a_status_refuse(answer: Any, status: int) -> None:
    with pytest.raises(HandshakeRefused) as caught:
        judge(answer)
    assert caught.value.status == status


def test_a_text_is_the_subprotocol_to_speak_where_the_client_offered_it() -> None:
    assert judge("b").subprotocol == "b"


@pytest.mark.parametrize("answer", ["c", "", 200, 0, 399, 600, -403, 401.0, {}, [], b"a", {"close": 4000}, (4000,)])
def test_any_other_answer_is_named_with_what_is_allowed(answer: Any) -> None:
    with pytest.raises(BadVerdict) as caught:
        judge(answer)
    text = str(caught.value)
    assert text.startswith(f"chat.on_handshake returned {answer!r}")
    assert text.endswith(
        "; it may return nothing, true, false, a status from 400 to 599, Refusal(code, reason), "
        "or a subprotocol that the client offered (2)"
    )


def test_that_redirects_are_not_followed_is_said_where_one_is_meant() -> None:
    for status in (301, 302, 307):
        with pytest.raises(BadVerdict, match=f"returned {status} .browsers do not follow a redirect of a WebSocket.; "):
            judge(status, request())
        with pytest.raises(ConfigError, match=f"from 400 to 599, not {status}"):
            HandshakeRefused(status)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, -1, True, 4000.0, "4000", None])
def test_the_code_of_a_refusal_is_one_that_may_be_sent(code: Any) -> None:
    with pytest.raises(CloseCodeError):
        Refusal(code)


@pytest.mark.parametrize("code", [1000, 1003, 1008, 1013, 3000, 3003, 4000, 4999])
def test_each_code_of_session_close_is_one(code: int) -> None:
    assert judge(Refusal(code, "x" * 123)).refusal == Refusal(code, "x" * 123)
    for reason in ("x" * 124, "\u00fc" * 62, b"x", None, 5):
        with pytest.raises(CloseCodeError, match="reason"):
            Refusal(code, reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "headers", [[("A", "b\nC: d")], [("A", "b\rc")], [("A\r", "b")], [("A", 5)], [("A", "\u20ac")], [("A",)], [5]]
)
def test_a_header_of_a_refusal_that_cannot_be_sent_is_named(headers: Any) -> None:
    with pytest.raises(ConfigError, match="a header of a refusal must be two texts of one line each"):
        HandshakeRefused(401, "no", headers)


# With real connections


class Doorman(Recorder):
    """Does what the client asks for."""

    def on_handshake(self, request: Request) -> Any:
        wish = request.get_parameter("wish")
        if wish == "code":
            return Refusal(4003, "banned: \u20ac")
        if wish == "abort":
            abort(401, "no such user")
        if wish == "raise":
            raise TooManyRequests(retry_after=7)
        if wish == "basic":
            raise Unauthorized("log in", www_authenticate=None)
        if wish == "teapot":
            raise ImATeapot(response=Response("short and stout", 418, {"X-Pot": "tea"}))
        if wish == "response":
            abort(Response("mine", 409))
        if wish == "redirect":
            abort(redirect("/login"))
        if wish == "ok":
            raise HTTPException(response=Response("fine", 200))
        return wish


@pytest.mark.parametrize(
    ("wish", "status", "part", "headers"),
    [
        ("abort", 401, "no such user", {"content-type": "text/html; charset=utf-8"}),
        ("raise", 429, "Too Many Requests", {"retry-after": "7"}),
        ("basic", 401, "log in", {}),
        ("teapot", 418, "short and stout", {"x-pot": "tea"}),
        ("response", 409, "mine", {}),
        ("redirect", 500, "the handler failed", {}),
        ("ok", 500, "the handler failed", {}),
    ],
)
def test_an_exception_of_werkzeug_s_answers_with_its_response(
    wish: str, status: int, part: str, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    handler = Doorman()
    with endpoint(handler) as (app, port), RawClient(port, f"/ws/test?wish={wish}") as client:
        assert client.status == status
        assert part in client.body()
        assert headers.items() <= client.headers.items()
        assert app.session_count == 0
        assert app.metrics.snapshot().get(f"handshakes_refused_{status}") == 1
        assert handler.opened.empty()
    assert "on_handshake failed" not in caplog.text
    if status == 500:
        assert "Doorman.on_handshake raised <" in caplog.text
        assert ("browsers do not follow a redirect" in caplog.text) is (wish == "redirect")
        assert "Traceback" not in caplog.text
        assert app.metrics.snapshot()["handler_errors"] == 1


SCRIPT = """
export function onHandshake(request) {
  switch (request.getParameter("wish")) {
    case "code": return { close: 4003, reason: "banned: \u20ac" };
    case "async": return Promise.resolve({ close: 4003, reason: "banned: \u20ac" });
  }
}
export function onOpen(session) { session.send("open"); }
export function onClose(session) { console.error("onClose was called"); }
"""


@pytest.mark.parametrize(("kind", "wish"), [("py", "code"), ("js", "code"), ("js", "async")])
@pytest.mark.parametrize("offered", ["", "token.x, chat", "chat"])
@pytest.mark.parametrize("compression", [False, True])
def test_a_refusal_with_a_code_is_a_101_and_a_close_frame(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, wish: str, offered: str, compression: bool
) -> None:
    caplog.set_level(logging.INFO, "wsthreads")
    handler = Doorman()
    (tmp_path / "door.js").write_text(SCRIPT)
    headers = {"Sec-WebSocket-Protocol": offered} if offered else {}
    headers |= {"Sec-WebSocket-Extensions": "permessage-deflate"}
    with endpoint(handler, "/py", compression=compression, subprotocols=["chat"]) as (app, port):
        app.add_script("/js", tmp_path / "door.js")
        with RawClient(port, f"/{kind}?wish={wish}", headers) as client:
            assert client.status == 101
            assert client.headers.get("sec-websocket-protocol") == ("chat" if offered else None)
            client.send(TEXT, "early")  # nobody hears it
            assert client.receive_close() == (4003, "banned: \u20ac")
            client.send(8, b"\x0f\xa3")
            assert client.at_end()
        wait_until(lambda: app.session_count == 0, "its place")
        totals = app.endpoint(f"/{kind}").totals()
        assert totals.refused == {(101, "handler"): 1}
        assert (totals.sessions, totals.opened) == (0, 0)
        assert app.metrics.snapshot() == {"handshakes_refused_101": 1}
    ours = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert ours == [
        f"handshake on /{kind} from 127.0.0.1 refused: connection opened (101) and closed with 4003 banned: \u20ac"
    ]
    assert handler.opened.empty()
    assert handler.messages.empty()
    assert handler.closed.empty()
    assert "onClose was called" not in caplog.text


def test_a_subprotocol_that_a_client_offers_is_spoken_so_that_a_browser_takes_the_code() -> None:
    headers = {"Sec-WebSocket-Protocol": "token.x, chat"}
    with endpoint(Doorman()) as (_, port), RawClient(port, "/ws/test?wish=code", headers) as client:
        assert client.headers["sec-websocket-protocol"] == "token.x"
        assert client.receive_close()[0] == 4003


def test_a_refused_client_that_does_not_answer_gives_its_place_back() -> None:
    with endpoint(Doorman(), close_timeout_s=0.2, max_sessions=1) as (app, port):
        with RawClient(port, "/ws/test?wish=code") as client:
            assert client.receive_close()[0] == 4003
            wait_until(lambda: app.session_count == 0, "its place")
        with RawClient(port, "/ws/test?wish=code") as client:
            client.reset()
        wait_until(lambda: app.session_count == 0, "its place")


def test_a_refused_client_that_does_not_answer_does_not_hold_up_the_end() -> None:
    with (
        endpoint(Doorman(), close_timeout_s=60) as (app, port),
        RawClient(port, "/ws/test?wish=code") as client,
    ):
        assert client.receive_close()[0] == 4003
        app.shutdown(0.2)
        assert client.at_end()
        wait_until(lambda: app.session_count == 0, "its place")


# In tests of handlers


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("302", "door.js: onHandshake returned 302 (browsers do not follow a redirect of a WebSocket); it may return "
         "nothing, true, false, a status from 400 to 599, { close: code, reason }, or a subprotocol that the client "
         "offered (none)"),
        ("'chat'", 'door.js: onHandshake returned "chat"; it may'),
        ("200", "door.js: onHandshake returned 200; it may"),
        ("401.5", "door.js: onHandshake returned 401.5; it may"),
        ("NaN", "door.js: onHandshake returned NaN; it may"),
        ("({ status: 401 })", 'door.js: onHandshake returned {"status":401}; it may'),
        ("[4000]", "door.js: onHandshake returned [4000]; it may"),
        ("(() => 1)", "door.js: onHandshake returned "),
        ("({ close: 99 })", 'door.js: onHandshake returned {"close":99}: close code 99 must not be sent'),
        ("({ close: '4003' })", "a close code must be a whole number, not '4003'"),
        ("({ close: 4003.5 })", "a close code must be a whole number, not 4003.5"),
        ("({ close: null })", "a close code must be a whole number, not None"),
        ("({ close: undefined })", "a close code must be a whole number, not None"),
        ("({ close: true })", "a close code must be a whole number, not True"),
        ("({ close: NaN })", "a close code must be a whole number, not 'NaN'"),
        ("({ close: 4003, reason: 5 })", "a close reason must be text, not int"),
        ("({ close: 4003, reason: 'x'.repeat(124) })", "may have at most 123 bytes in UTF-8, this one has 124"),
        ("({ close: 4003, reson: 'x' })", "which has more than close and reason: reson"),
        ("({ get close() { throw new Error('no') } })", "no"),
        ("Promise.resolve({ close: 99 })", "close code 99 must not be sent"),
        ("Promise.resolve({ get close() { throw new Error('no') } })", "no"),
    ],
)  # fmt: skip
def test_what_a_script_must_not_return_is_named_in_its_own_terms(
    tmp_path: Path, answer: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "door.js").write_text(f"export function onHandshake(request) {{ return {answer}; }}")
    with play(tmp_path / "door.js") as door:
        with pytest.raises(HandlerFailed) as caught:
            door.connect()
        assert text in str(caught.value)
        assert text in caplog.text
        assert "on_handshake" not in caplog.text
        assert door.app.metrics.snapshot() == {"handler_errors": 1, "handshakes_refused_500": 1}


def test_what_a_python_handler_must_not_return_is_raised_in_its_test() -> None:
    class Door:
        def on_handshake(self, request: Request) -> int:
            return 302

    with play(Door) as door:
        with pytest.raises(BadVerdict, match=r"Door\.on_handshake returned 302 .browsers"):
            door.connect()
        assert door.app.metrics.snapshot() == {"handler_errors": 1, "handshakes_refused_500": 1}


def test_a_client_of_a_test_sees_the_code_and_has_no_session(tmp_path: Path) -> None:
    (tmp_path / "door.js").write_text(SCRIPT)
    app = WebSocketApp()
    app.add_handler("/ws/py", Doorman())
    app.add_script("/ws/js", tmp_path / "door.js")
    with play(app) as door:
        for path in ("/ws/py", "/ws/js"):
            ann = door.connect(path=path, wish="code")
            assert ann.closed == (4003, "banned: \u20ac")
            assert ann.received == []
            with pytest.raises(ConnectionError, match=r"no session: it was closed at once, \(4003"):
                _ = ann.session
    app.shutdown(2)
