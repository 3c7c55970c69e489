"""The targets of ``make fuzz`` on their corpus and on inputs by hypothesis; that they find faults; the command."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests._native.test_speedups import BUILT
from tests.fuzz import handshakes, javascript, sessions, targets
from tests.programs import PROGRAM_S, ROOT
from wsthreads import HandshakeRefused
from wsthreads.protocol import envelope, frames, handshake

CORPUS = Path(targets.__file__).parent / "corpus"

needs_c = pytest.mark.skipif(not BUILT, reason="it is the C module that is held against Python")
quick = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_c if name in ("decode", "bridge") else ()) for name in targets.TARGETS]
)
def test_a_target_finds_nothing_in_its_corpus(name: str) -> None:
    files = sorted((CORPUS / name).iterdir())
    assert files
    with targets.TARGETS[name]() as check:
        for file in files:
            check(file.read_bytes())


# Whether they would find anything


@needs_c
def test_decoders_that_disagree_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_decode_message", lambda buffer, start, limit: None)
    with targets.decode() as check, pytest.raises(AssertionError):
        check((CORPUS / "decode" / "text").read_bytes())


def test_a_reading_path_that_loses_a_message_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    loses_the_second = lambda data, start, limit: None if start else ("", 10)  # noqa: E731
    monkeypatch.setattr("wsthreads.protocol.assembler.decode_message", loses_the_second)
    with targets.receive() as check, pytest.raises(AssertionError):
        check((CORPUS / "receive" / "text").read_bytes())


def test_a_handshake_that_must_not_pass_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsthreads.sessions.endpoint.check_origin", lambda request, allowed: None)
    request = (CORPUS / "handshake" / "origin").read_bytes()
    with targets.handshake() as check:
        check(request)
        with pytest.raises(AssertionError, match="was let in, with origin"):
            check(request.replace(b"good", b"evil"))


def test_an_error_of_the_servers_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsthreads.sessions.endpoint.check_upgrade", lambda environ: 1 / 0)
    with targets.handshake() as check, pytest.raises(AssertionError):
        check((CORPUS / "handshake" / "good").read_bytes())


def test_an_answer_that_no_author_of_a_script_could_make_sense_of_is_found(tmp_path: Path) -> None:
    with javascript.host(tmp_path) as host:
        assert host.run("return session.isOpen()") == {"value": "boolean"}
        with pytest.raises(AssertionError, match="ReferenceError"):
            host.run("return nothing")
        with pytest.raises(AssertionError, match="failed in Python"):
            host.run("throw new TypeError('send failed in Python, see the log')")


def test_a_parser_that_takes_a_malformed_number_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "_NUMBER", re.compile("[0-9]+"))
    with targets.session() as check:
        check(b"\x02a12")
        with pytest.raises(AssertionError):
            check(b"\x02a012")


def test_a_client_in_the_browser_that_takes_a_request_for_an_ordinary_message_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slip = 'decode = (data) => ({ kind: "", data });'
    monkeypatch.setattr(sessions, "READER", sessions.READER + slip)
    with targets.session() as check:
        check(b"\x00hello")
        with pytest.raises(AssertionError):
            check(b"\x02q1:time?")


# Messages of wsthreads.1


@pytest.fixture(scope="module")
def reader() -> Iterator[Callable[[str | bytes], dict[str, Any]]]:
    with sessions.browser() as read:
        yield read


NUMBERS = st.sampled_from(
    ["", "0", "1", "01", "12", "-1", "+1", "1.0", "9007199254740991", "9007199254740992", "1" * 17, "٣"]
)
PARTS = st.builds(
    "\x10{}{}{}{}".format, st.sampled_from("hwapqrenbA\x10"), NUMBERS, st.sampled_from(["", ":"]), st.text()
)


@quick
@given(PARTS | PARTS.map(str.encode) | st.binary().map(b"\x10".__add__))
def test_all_readers_take_the_same_out_of_a_message(
    reader: Callable[[str | bytes], dict[str, Any]], message: str | bytes
) -> None:
    sessions.judge(message)
    sessions.judge_browser(message, reader(message))


# Handshakes


@pytest.fixture(scope="module")
def answer_to() -> Iterator[Callable[[bytes], None]]:
    with targets.handshake() as check:
        yield check


WHITE = st.sampled_from(["", " ", "\t", "  ", "\x0b", "\xa0"])
CASED = {
    "Upgrade": ["websocket", "WebSocket", "h2c, websocket", "websocket, h2c", "websockets", "web socket", ",", "h2c"],
    "Connection": ["Upgrade", "keep-alive, Upgrade", "upgrade", "close", "Upgraded", "", "Up,grade"],
    "Sec-WebSocket-Version": ["13", "013", "12", "13, 8", "13.0", "+13", "", "8"],
    "Sec-WebSocket-Key": ["AAAAAAAAAAAAAAAAAAAAAA==", "AAAA", "", "A" * 24, "A" * 9999, "!" * 24],
    "Host": ["h", "h:80", "", "[", "[::1]:5", "h, h", "\xff", "a@b", "h:x"],
    "Origin": ["http://h", "https://good.example", "null", "", "http://evil", "http://h@evil", "http://[", "http://h:x"],
    "Sec-WebSocket-Protocol": ["a", "b, a", "c", "a b", ",", "\xe9", '"a"'],
    "Sec-WebSocket-Extensions": ["permessage-deflate", "permessage-deflate; client_max_window_bits=x", ";;", "\x80"],
    "Content-Length": ["0", "5", "-1", "x", "9" * 30],
    "Transfer-Encoding": ["chunked", "gzip", ""],
}  # fmt: skip
GOOD = ["Upgrade", "Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Key", "Host"]


def header(name: str) -> st.SearchStrategy[str]:
    text = st.text(st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\r\n"), max_size=30)
    value = st.sampled_from(CASED.get(name, [""])) | text
    cases = st.sampled_from([name, name.lower(), name.upper()])
    return st.builds("{}:{}{}{}\r\n".format, cases, WHITE, value, WHITE)


def mostly_good(name: str) -> st.SearchStrategy[str]:
    good = st.just(f"{name}: {CASED[name][0]}\r\n")
    return st.one_of(good, good, good, st.builds(str.__add__, good, header(name)), header(name), st.just(""))


REQUESTS = st.builds(
    "{}{}{}\r\n".format,
    st.sampled_from([*["GET /ws?a=1 HTTP/1.1\r\n"] * 6, "GET /ws HTTP/1.0\r\n", "PUT /ws HTTP/1.1\r\n", "GET //[\r\n"]),
    st.tuples(*map(mostly_good, GOOD)).map("".join),
    st.lists(st.sampled_from([*CASED, "X"]).flatmap(header), max_size=4).map("".join),
)  # fmt: skip


@quick
@given(REQUESTS)
def test_no_request_fails_or_is_let_in_wrongly(answer_to: Callable[[bytes], None], request: str) -> None:
    answer_to(request.encode("latin-1"))


@quick
@given(st.dictionaries(st.sampled_from(["HTTP_" + name.upper().replace("-", "_") for name in CASED]), st.text()))
def test_a_request_of_any_text_is_judged_without_an_error(headers: dict[str, str]) -> None:
    """A WSGI server may hand over what no wire can carry."""
    request = handshake.Request({"REQUEST_METHOD": "GET", "QUERY_STRING": "%ff&=&a=%", **headers})
    with suppress(HandshakeRefused):
        handshake.check_upgrade(request.environ)
    with suppress(HandshakeRefused):
        handshake.check_origin(request, ())
    assert request.subprotocols is not None
    assert request.parameters["a"] == "%"


def test_the_judge_of_handshakes_knows_good_ones_from_bad_ones() -> None:
    good = (CORPUS / "handshake" / "good").read_bytes()
    assert handshakes.flaw(good) is None
    for part in (b"GET", b"Upgrade: websocket", b"Connection:", b"Version: 13", b"AAAA=="):
        assert part in good
        assert handshakes.flaw(good.replace(part, b"x")) is not None
    assert handshakes.flaw(good.replace(b"Host", b"Origin: http://evil\r\nHost")) == "origin b'http://evil'"


# The script API


@pytest.fixture(scope="module", params=["bridge", "dukpy"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[javascript.Host]:
    """With the C module, where it is built, and without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSTHREADS_PURE_PYTHON", "1" if request.param == "dukpy" else "0")
        with javascript.host(tmp_path_factory.mktemp("script")) as host:
            yield host


class _Choices:
    def __init__(self, data: Any) -> None:
        self._data = data

    def __call__(self, limit: int) -> int:
        number: int = self._data.draw(st.integers(0, limit - 1))
        return number


@quick
@given(st.data())
def test_no_arguments_harm_the_script_api(host: javascript.Host, data: Any) -> None:
    host.run(javascript.program(_Choices(data)))


@pytest.mark.parametrize("call", javascript.CALLS)
def test_each_value_alone_does_no_harm(host: javascript.Host, call: str) -> None:
    for value in javascript.VALUES:
        host.run(call.replace("@", value))


@pytest.mark.parametrize("size", ["2 ** 20", "2 ** 25"])
def test_a_huge_name_of_a_room_is_refused_without_taking_it_apart(host: javascript.Host, size: str) -> None:
    """Its characters in an array would fill the heap."""
    answer = host.run(f"session.room('x'.repeat({size}))")
    assert answer["error"] == "RangeError"
    assert answer["message"].startswith("a room name has 1 to 256 characters, not ")


# The command


@pytest.mark.parametrize("arguments", [[], ["nonsense"]])
def test_the_command_says_what_is_missing(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PROGRAM_S)
    assert done.returncode == 1
    assert "fuzzing needs atheris: pip install atheris" in done.stderr or "there are: decode, receive" in done.stderr
    assert "Traceback" not in done.stderr
