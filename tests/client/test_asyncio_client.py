"""A client that was written by docs/reference/protocol alone finds a server that keeps to it, through broken lines."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from random import Random, SystemRandom
from typing import Any

import pytest

from tests.client.asyncio_peer import Peer, asyncio_client
from tests.client.cut_proxy import Cut, CutProxy
from tests.pages import blocks
from tests.programs import DEADLINE_S, EXAMPLES, PROGRAM_S, wait_until
from wsthreads import RequestError
from wsthreads.testing import live_server

#: How often a connection breaks in the long test.
CUTS = 30

MESSAGES = [
    "text",
    b"binary",
    "",
    b"",
    "\x10",
    b"\x10",
    "\x10\x10",
    "\x10a5",
    "\x10q1:x",
    b"\x10q1:x",
    "€😀",
    "x" * 70_000,
]


class Echo:
    """Keeps what happens, and echoes. Asks its client, if the message says so."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.got: list[object] = []
        self.asked: Counter[object] = Counter()
        self.session = None

    def on_open(self, session):
        self.session = session
        self.calls.append("open")

    def on_message(self, session, message):
        self.got.append(message)
        if message == "ask me":
            session.send(f"it said {session.request('who?', timeout=DEADLINE_S)}")
        else:
            session.send(message)

    def on_request(self, session, message):
        self.asked[message] += 1
        if message == "fail":
            raise RequestError("no luck")
        return None if message == "nothing" else message

    def on_suspend(self, session):
        self.calls.append("suspend")

    def on_resume(self, session):
        self.calls.append("resume")

    def on_close(self, session, code, reason):
        self.calls.append(code)


async def answer(question):
    if question == "who?":
        return "ann"
    raise asyncio_client.RequestFailed("I only know my name")


@pytest.fixture
def echo():
    return Echo()


def random_cuts(random: Random) -> list[Cut]:
    """Of one connection after the other. Some come before its welcome, and some leave the server's side open."""
    return [
        Cut(
            random.choice(["up", "down"]),
            random.randint(1, 1500),
            leaves_half=random.random() < 0.5,
            resets=number % 2 > 0,
        )
        for number in range(CUTS)
    ]


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits less before it tries again."""
    monkeypatch.setattr(asyncio_client.random, "uniform", lambda low, high: 0.01)


@pytest.mark.parametrize("compression", [False, True], ids=["plain", "compressed"])
def test_messages_of_all_kinds_arrive_as_they_were_sent(echo: Echo, compression: bool) -> None:
    with live_server(echo, "/ws", resume_s=60, compression=compression) as server:
        with Peer(f"{server.ws_url}/ws") as peer:
            for message in MESSAGES:
                peer.send(message)
            assert [peer.receive() for _ in MESSAGES] == MESSAGES
            assert echo.got == MESSAGES
            assert peer.opened == [0]
        wait_until(lambda: echo.calls == ["open", 1000])


def test_requests_are_answered_in_both_directions(echo: Echo) -> None:
    with live_server(echo, "/ws", resume_s=60) as server, Peer(f"{server.ws_url}/ws", None, answer) as peer:
        for message in ("text", b"\x10\x00binary", "", "a:b", "\x10x"):
            assert peer.request(message) == message
        assert peer.request("nothing") is None
        with pytest.raises(asyncio_client.RequestFailed, match=r"^no luck$"):
            peer.request("fail")
        peer.send("ask me")
        assert peer.receive() == "it said ann"
        with pytest.raises(RequestError, match="I only know my name"):
            echo.session.request("age?", timeout=DEADLINE_S)


@pytest.mark.parametrize("compression", [False, True], ids=["plain", "compressed"])
def test_each_message_and_each_request_comes_once_through_a_line_that_breaks_all_the_time(
    echo: Echo, compression: bool, no_delay: None
) -> None:
    seed = SystemRandom().getrandbits(32)
    random = Random(seed)
    sent: list[object] = []
    got: list[object] = []
    with live_server(echo, "/ws", resume_s=3600, compression=compression, ping_interval_s=0) as server:
        proxy = CutProxy(server.port)
        with Peer(f"ws://127.0.0.1:{proxy.port}/ws", None, answer) as peer:
            assert peer.request("begin") == "begin"  # a first welcome that is lost would leave a session behind
            proxy.arm(*random_cuts(random))
            while proxy.cuts_left:
                assert len(sent) < 20_000, f"no cut? seed {seed}"
                for number in range(len(sent), len(sent) + 20):
                    text = str(number)
                    message = random.choice([text, text.encode(), f"\x10{text}", b"\x10" + text.encode() * 50])
                    sent.append(message)
                    peer.send(message)
                assert peer.request(f"question {number}") == f"question {number}", f"seed {seed}"
                got += [peer.receive() for _ in range(20)]
            peer.send("ask me")
            assert peer.receive() == "it said ann"
            assert got == sent, f"seed {seed}"
            assert echo.got == [*sent, "ask me"], f"seed {seed}"
            assert set(echo.asked.values()) == {1}, f"seed {seed}"
            assert peer.opened == [0]
        wait_until(lambda: echo.calls[-1] == 1000)
        proxy.close()
    assert [call for call in echo.calls if call not in ("suspend", "resume")] == ["open", 1000]
    assert echo.calls.count("suspend") == echo.calls.count("resume") > 3


def test_what_was_acknowledged_is_kept_no_longer_on_either_side(echo: Echo) -> None:
    with live_server(echo, "/ws", resume_s=60) as server, Peer(f"{server.ws_url}/ws") as peer:
        for number in range(2000):
            peer.send(f"{number}")
        assert [peer.receive() for _ in range(2000)] == [f"{number}" for number in range(2000)]
        wait_until(lambda: peer.kept <= 1024)
        wait_until(lambda: echo.session._channel.outbox.unacknowledged_bytes <= 1024 * 10)


def test_it_writes_no_more_than_a_server_holds_that_slows_it_down_until_that_acknowledges() -> None:
    async def run() -> list[int]:
        client, written, counts = asyncio_client.Client("ws://nowhere"), list[Any](), list[int]()
        client._token = "token"

        class Socket:
            async def send(self, message: Any) -> None:
                written.append(message)

        for _ in range(10):
            client.send("x" * 100_000)
        writing = asyncio.create_task(client._write(Socket()))
        for count in (0, 1, 9):
            client._forget(count)
            for _ in range(100):
                await asyncio.sleep(0)
            counts.append(len(written))
        await asyncio_client.end(writing)
        return counts

    assert asyncio.run(run()) == [8, 9, 10], "786,432 bytes, where a message counts for 100 more"


def test_an_idle_connection_is_kept_alive_by_heartbeats_and_its_messages_are_acknowledged(echo: Echo) -> None:
    with live_server(echo, "/ws", resume_s=60, ping_interval_s=0.2) as server, Peer(f"{server.ws_url}/ws") as peer:
        peer.send("one")
        assert peer.receive() == "one"
        wait_until(lambda: peer.kept == 0)
        wait_until(lambda: echo.session._channel.outbox.unacknowledged_bytes == 0)
        assert echo.calls == ["open"]


def test_a_few_messages_are_acknowledged_soon_though_there_are_no_heartbeats(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio_client, "CONFIRM_S", 0.05)
    with live_server(echo, "/ws", resume_s=60, ping_interval_s=0) as server, Peer(f"{server.ws_url}/ws") as peer:
        peer.send("one")
        assert peer.receive() == "one"
        wait_until(lambda: peer.kept == 0)
        wait_until(lambda: echo.session._channel.outbox.unacknowledged_bytes == 0)


@pytest.fixture
def proxy(echo: Echo) -> Iterator[CutProxy]:
    with live_server(echo, "/ws", resume_s=60, ping_interval_s=0) as server:
        proxy = CutProxy(server.port)
        yield proxy
        proxy.close()


def test_a_close_while_the_client_is_away_reaches_it_when_it_comes_back(
    echo: Echo, proxy: CutProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = threading.Event()
    address = f"ws://127.0.0.1:{proxy.port}/ws"
    addresses = iter([address])

    def next_address() -> str:
        found = next(addresses, None)
        if found is not None:
            return found
        return address if ready.is_set() else "ws://127.0.0.1:9/nobody"

    monkeypatch.setattr(asyncio_client.random, "uniform", lambda low, high: 0.01)
    with Peer(next_address) as peer:
        peer.send("one")
        assert peer.receive() == "one"
        proxy.arm()  # which ends the connection
        wait_until(lambda: echo.calls == ["open", "suspend"])
        echo.session.close(4000, "enough")
        wait_until(lambda: echo.calls == ["open", "suspend", 4000])
        ready.set()
        with pytest.raises(asyncio_client.Closed) as closed:
            peer.receive()
        assert (closed.value.code, closed.value.reason) == (4000, "enough")
        assert peer.opened == [0]


def test_without_resume_s_a_new_session_begins_and_nothing_is_kept(echo: Echo, no_delay: None) -> None:
    with live_server(echo, "/ws") as server:
        proxy = CutProxy(server.port)
        with Peer(f"ws://127.0.0.1:{proxy.port}/ws") as peer:
            assert peer.request("one") == "one"
            assert (peer.welcome["token"], peer.welcome["resumeMs"]) == (None, 0)
            wait_until(lambda: peer.kept == 0)
            proxy.arm()
            wait_until(lambda: Counter(echo.calls) == {"open": 2, 1006: 1})  # of two sessions, so in any order
            wait_until(lambda: len(peer.opened) == 2)
            assert peer.request("two") == "two"
        proxy.close()


def test_the_applications_subprotocol_is_negotiated_beside_it(echo: Echo) -> None:
    app = live_server(echo, "/ws", resume_s=60, subprotocols=["chat.v2"])
    with app as server, Peer(f"{server.ws_url}/ws", ["chat.v1", "chat.v2"]) as peer:
        assert peer.request("one") == "one"
        assert peer.welcome["protocol"] == echo.session.subprotocol == "chat.v2"


class Friend:
    """Answers the client of the page, and asks it."""

    def on_message(self, session, message):
        name = session.request("name?", timeout=DEADLINE_S)
        session.send(f"{message} {name}")

    def on_request(self, session, message):
        return f"no {message}"


def test_the_program_of_the_page_works() -> None:
    (program,) = blocks("docs/how-to/asyncio-client", "python")
    with live_server(Friend(), "/ws/chat", resume_s=60) as server:
        url = "ws://127.0.0.1:5000"
        assert url in program
        command = [sys.executable, "-c", program.replace(url, server.ws_url)]
        done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, timeout=PROGRAM_S)
    assert (done.stdout, done.stderr) == ("hello ann\nno time?\n", "")
