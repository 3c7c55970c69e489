"""The server takes any sequence of messages of a client as docs/reference/protocol says it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.sessions import kind_of
from tests.programs import DEADLINE_S
from tests.speakers import Speaker
from tests.wire import CLOSE, endpoint
from wsthreads.protocol import envelope

#: What the server sends at the beginning. So many messages may be acknowledged.
GREETINGS = 3


class Handler:
    """Keeps what its last session gets, and answers requests."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.ended = threading.Event()

    def on_open(self, session):
        self.got, self.ended = session.attributes["got"], session.attributes["ended"] = [], threading.Event()
        for number in range(GREETINGS):
            session.send(f"greeting {number}")

    def on_message(self, session, message):
        session.attributes["got"].append(message)

    def on_request(self, session, message):
        session.attributes["got"].append(("request", message))
        return message

    def on_close(self, session, code):
        session.attributes["ended"].set()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Handler, int]]:
    handler = Handler()
    with endpoint(handler, resume_s=60, ping_interval_s=0, max_sessions=1000) as (_, port):
        yield handler, port


@dataclass
class Judge:
    """What the page says that a server does with the messages of one connection, one after the other."""

    got: list[Any] = field(default_factory=list)
    counted: int = 0
    acknowledged: int = 0
    asked: int = 0
    is_broken: bool = False

    def take(self, message: str | bytes) -> None:
        if self.is_broken:
            return
        kind, *parts = kind_of(message) or ("malformed",)
        if kind == "m":
            self._count(parts[0])
        elif kind == "q" and parts[0] == self.asked + 1:
            self.asked += 1
            self._count(("request", parts[1]))
        elif kind in "ap" and self.acknowledged <= parts[0] <= GREETINGS:
            self.acknowledged = parts[0]
        else:
            self.is_broken = True

    def _count(self, what: Any) -> None:
        self.counted += 1
        self.got.append(what)


NUMBERS = st.sampled_from(["0", "1", "2", "3", "77", "01", "-1", "", "9" * 17])
TAILS = st.sampled_from(["", ":", ":x"])
MARKED = st.builds("\x10{}{}{}{}".format, st.sampled_from("apqrnehw\x10z"), NUMBERS, TAILS, st.text(max_size=3))
COUNTS = st.builds("\x10{}{}".format, st.sampled_from("ap"), st.integers(0, GREETINGS))
ACKS = COUNTS | st.builds("\x10{}77".format, st.sampled_from("ap"))
REPLIES = st.builds("\x10{}{}".format, st.sampled_from(["r1:", "e1:", "n1", "r2:"]), st.just(""))
ORDINARY = st.text(max_size=9) | st.binary(max_size=9)
PLAIN = ORDINARY.map(envelope.escaped)
NEXT = st.just("next")  # the next request
MESSAGES = st.one_of(ORDINARY, PLAIN, PLAIN, ACKS, ACKS, NEXT, NEXT, REPLIES, MARKED, MARKED.map(str.encode))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MESSAGES, max_size=8))
def test_each_sequence_is_taken_as_far_as_it_keeps_to_the_page(
    server: tuple[Handler, int], messages: list[str | bytes]
) -> None:
    handler, port = server
    judge, ids = Judge(), iter(range(1, 100))
    with Speaker(port).begin() as client:
        assert [client.take() for _ in range(GREETINGS)] == [f"greeting {number}" for number in range(GREETINGS)]
        for message in messages:
            if message == "next":
                message = envelope.request(judge.asked + 1, str(next(ids)))
            judge.take(message)
            client.put(message)
            if judge.is_broken:
                break
        if judge.is_broken:
            with suppress(OSError):
                client.put(envelope.request(judge.asked + 1, "are you there?"))
            assert close_code(client, f"\x10r{judge.asked + 1}:".encode()) == 1002, messages
        else:
            client.put(envelope.heartbeat(judge.acknowledged))
            while client.take() != envelope.Ack(judge.counted):
                pass
        client.leave()
    assert handler.ended.wait(DEADLINE_S)
    assert handler.got == judge.got, messages


def close_code(client: Speaker, wrong: bytes) -> int:
    """The code of the close frame. No message comes that begins with `wrong`."""
    while True:
        opcode, payload = client.wire.receive()
        if opcode == CLOSE:
            return int.from_bytes(payload[:2], "big")
        assert not payload.startswith(wrong), "the server goes on"
