"""The JavaScript API as clients see it: a real server, real sockets, an independent client, every row of the table."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.programs import DEADLINE_S, connect, receive, wait_until
from wsthreads.app import WebSocketApp

SCRIPTS = Path(__file__).parent / "scripts"
MIB = 1024 * 1024


class Contract:
    """A server with `scripts/contract.js` at /ws/contract, and an echo in a script of its own at /ws/echo."""

    def __init__(self, serve: Callable[..., Any], tmp_path: Path, **settings: Any) -> None:
        echo = tmp_path / "echo.js"
        echo.write_text("export function onMessage(session, message) { session.send(message); }\n")
        self.app = WebSocketApp(**settings)
        self.app.add_script("/ws/contract", SCRIPTS / "contract.js")
        self.app.add_script("/ws/echo", echo)
        self.url = serve(self.app).ws_url

    @contextmanager
    def client(self, query: str = "", **options: Any) -> Iterator[ClientConnection]:
        with connect(f"{self.url}/ws/contract?{query}", **options) as client:
            yield client


@pytest.fixture
def contract(serve: Callable[..., Any], tmp_path: Path) -> Contract:
    return Contract(serve, tmp_path)


def call(client: ClientConnection, *request: Any) -> Any:
    """What the function of the script returned; None for undefined."""
    client.send(json.dumps(request))
    answer = json.loads(receive(client))
    assert "error" not in answer, answer
    return answer.get("result")


def error_of(client: ClientConnection, *request: Any) -> tuple[str, str]:
    """Class and message of the error that the function threw."""
    client.send(json.dumps(request))
    answer = json.loads(receive(client))
    return answer["error"], answer["message"]


def test_identity_and_handshake(contract: Contract) -> None:
    query = "user=J%C3%BCrgen+B&user=second&empty="
    with contract.client(query, additional_headers={"X-Token": "t0ken"}) as client:
        assert len(call(client, "id")) >= 20
        assert error_of(client, "overwriteId")[0] == "TypeError"
        assert call(client, "parameter", "user") == "Jürgen B"
        assert call(client, "parameter", "empty") == ""
        assert call(client, "parameter", "missing") is None
        assert call(client, "header", "x-TOKEN") == "t0ken"
        assert call(client, "header", "x-missing") is None
        assert call(client, "path") == "/ws/contract"
        assert call(client, "address") == "127.0.0.1"
        assert call(client, "isOpen") is True


def test_attributes_are_any_value_by_reference(contract: Contract) -> None:
    with contract.client() as client:
        assert call(client, "attributes") == [True, True, None, ["map"]]


@pytest.mark.parametrize("text", ["", "a", "\0 nul \0", "smile 😀", "ü" * 1000])
def test_text_comes_as_it_was_sent(contract: Contract, text: str) -> None:
    with contract.client() as client:
        client.send(json.dumps(["send", text]))
        assert receive(client) == text
        assert json.loads(receive(client)) == {"result": True}


def test_a_lone_surrogate_is_sent_as_the_replacement_character(contract: Contract) -> None:
    with contract.client() as client:
        client.send('["sendSurrogate"]')
        assert receive(client) == "a\ufffdb"


def test_buffers_are_sent_as_binary(contract: Contract) -> None:
    with contract.client() as client:
        client.send('["sendBytes"]')
        assert receive(client) == b"\x00\x7f\x80\xff"
        receive(client)
        client.send('["sendBuffer"]')
        assert receive(client) == b"AB"


def test_a_message_of_a_mebibyte_goes_both_ways(contract: Contract) -> None:
    with contract.client() as client, connect(f"{contract.url}/ws/echo") as echo:
        client.send(json.dumps(["sendBig", MIB]))
        assert receive(client) == "x" * MIB
        echo.send("y" * MIB)
        assert receive(echo) == "y" * MIB


@pytest.mark.parametrize("function", ["sendNothing", "sendNumber", "sendObject"])
def test_anything_else_is_a_type_error_that_says_so(contract: Contract, function: str) -> None:
    with contract.client() as client:
        kind, message = error_of(client, function)
        assert kind == "TypeError"
        assert {"sendNothing": "undefined", "sendNumber": "number", "sendObject": "bject"}[function] in message


def test_close_sends_code_and_reason_and_ends_sending(contract: Contract) -> None:
    with contract.client() as client, contract.client() as other:
        client.send('["sendAfterClose"]')
        with pytest.raises(ConnectionClosed) as caught:
            receive(client)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "enough")
        wait_until(lambda: len(call(other, "closed")) == 3, "onClose")
        assert call(other, "closed") == [False, False, [4001, False, False, []]]


@pytest.mark.parametrize(
    ("arguments", "kind", "part"),
    [
        ([999], "RangeError", "999"),
        ([1006], "RangeError", "1006"),
        ([5000], "RangeError", "5000"),
        (["1000"], "TypeError", "1000"),
        ([1000, "ü" * 62], "RangeError", "124"),
    ],
)
def test_a_close_that_may_not_be_sent_is_refused(
    contract: Contract, arguments: list[Any], kind: str, part: str
) -> None:
    with contract.client() as client:
        name, message = error_of(client, "closeBadly", *arguments)
        assert name == kind
        assert part in message
        assert call(client, "isOpen") is True


def test_rooms(contract: Contract) -> None:
    with contract.client() as one, contract.client() as two:
        assert call(one, "members", "r") == 0, "a handle does not join"
        call(one, "leave", "r")  # without a join
        call(one, "join", "r")
        call(one, "join", "r")  # twice is once
        call(two, "join", "r")
        assert call(one, "members", "r") == 2
        assert call(one, "rooms") == ["r"]
        assert call(one, "name", "r") == "r"
        one.send(json.dumps(["broadcastExcept", "r", "for the other"]))
        assert receive(one) == "{}"
        assert receive(two) == "for the other"
        one.send(json.dumps(["broadcast", "r", "for both"]))
        assert (receive(one), receive(one)) == ("for both", "{}")
        assert receive(two) == "for both"
        call(two, "leave", "r")
        assert call(one, "members", "r") == 1
        assert call(two, "joinMany", 100) == 100
    wait_until(lambda: len(contract.app.endpoint("/ws/contract").rooms) == 0, "the last room is gone")


@pytest.mark.parametrize(("name", "kind", "part"), [("", "RangeError", "256"), ("x" * 257, "RangeError", "257")])
def test_a_bad_room_name_is_refused(contract: Contract, name: str, kind: str, part: str) -> None:
    with contract.client() as client:
        error, message = error_of(client, "join", name)
        assert error == kind
        assert part in message


def test_send_and_broadcast_of_one_call_arrive_in_their_order(contract: Contract) -> None:
    with contract.client() as client:
        call(client, "join", "r")
        for _ in range(100):
            client.send(json.dumps(["mixed", "r"]))
            assert [receive(client) for _ in range(4)] == ["a", "b", "c", "{}"]


def test_an_exception_ends_its_call_and_names_its_line(contract: Contract, caplog: pytest.LogCaptureFixture) -> None:
    with contract.client() as client:
        assert error_of(client, "fail") == ("RangeError", "as asked")
        client.send('["escape"]')
        assert call(client, "isOpen") is True
    line = 1 + (SCRIPTS / "contract.js").read_text().splitlines().index(
        '  if (name === "escape") throw new Error("escaped");'
    )
    assert f"contract.js:{line}" in caplog.text
    assert contract.app.metrics.snapshot()["handler_errors"] == 1


def test_an_exception_in_on_open_closes_with_1011_and_on_close_is_called(contract: Contract) -> None:
    with contract.client("failOpen=1") as client, contract.client() as other:
        with pytest.raises(ConnectionClosed) as caught:
            receive(client)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1011
        wait_until(lambda: call(other, "closed") == [[1011, False, False, []]], "onClose")


@pytest.mark.parametrize("drop", [False, True], ids=["clean close", "dropped"])
def test_on_close_runs_in_the_rooms_and_leaves_them_even_if_it_throws(contract: Contract, drop: bool) -> None:
    with contract.client() as watcher:
        call(watcher, "join", "watchers")
        call(watcher, "join", "shared")
        with contract.client("failClose=1") as client:
            call(client, "join", "shared")
            if drop:
                client.socket.shutdown(socket.SHUT_RDWR)
        assert json.loads(receive(watcher)) == {"left": 1006 if drop else 1000, "stillIn": 2}
        wait_until(lambda: call(watcher, "members", "shared") == 1, "the membership ends")
        (entry,) = call(watcher, "closed")
        assert entry == [1006 if drop else 1000, False, False, ["shared"]]
        assert call(watcher, "opened") == 2


def test_an_endless_loop_stops_nobody_else(
    serve: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    contract = Contract(serve, tmp_path, script_timeout_s=1.5)
    with contract.client() as looping, contract.client() as patient, connect(f"{contract.url}/ws/echo") as echo:
        call(patient, "isOpen")
        looping.send('["loop"]')
        stop = threading.Event()

        def wait_for_the_end() -> None:
            with pytest.raises(ConnectionClosed) as caught:
                looping.recv(timeout=DEADLINE_S)
            assert caught.value.rcvd is not None
            codes.append(caught.value.rcvd.code)
            stop.set()

        codes: list[int] = []
        waiter = threading.Thread(target=wait_for_the_end)
        waiter.start()
        answers = 0
        while not stop.is_set():
            echo.send("still there?")
            assert receive(echo) == "still there?"
            answers += 1
        waiter.join(DEADLINE_S)
        assert codes == [1011]
        # Thousands on a quiet machine; one, and perhaps another, if an answer waited for the end of the loop.
        assert answers > 5
        assert call(patient, "isOpen") is True
    line = 1 + (SCRIPTS / "contract.js").read_text().splitlines().index('  if (name === "loop") while (true) {}')
    assert f"contract.js:{line}" in caplog.text


def test_a_script_that_can_no_longer_be_started_is_503(contract: Contract, tmp_path: Path) -> None:
    """Its isolate has died, and the file is broken by now."""
    endpoint = contract.app.endpoint("/ws/echo")
    endpoint.handler.stop(DEADLINE_S)
    (tmp_path / "echo.js").write_text("export function onMessage( {")
    with pytest.raises(InvalidStatus) as caught, connect(f"{contract.url}/ws/echo"):
        pass
    assert caught.value.response.status_code == 503
    assert caught.value.response.headers["Retry-After"]
    (tmp_path / "echo.js").write_text("export function onMessage(session, message) { session.send('again'); }")
    with connect(f"{contract.url}/ws/echo") as client:
        client.send("hello")
        assert receive(client) == "again"
