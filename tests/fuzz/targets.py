"""What can be fuzzed: context managers of a function that takes any bytes, and raises where they find a fault.

``decode``     the frame decoders and encoders, C against Python, and what receives a message from a socket
``receive``    the whole reading path of a connection, in pieces, against wsproto alone
``handshake``  a live server, which must answer any request, and upgrade none that it must not
``script``     one call of the script API with any arguments (`tests.fuzz.javascript`)
``bridge``     values on their way from JavaScript to Python and back, by the C module and by dukpy
``session``    a message of ``wsthreads.1``, read by Python, by wsthreads.js, and by a judge (`tests.fuzz.sessions`)
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from math import isfinite
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.fuzz import handshakes, javascript, sessions
from tests.javascript.test_bridge import Crossing
from tests.protocol.test_connection_reading import agree
from tests.wire import Recorder
from wsthreads import WebSocketApp
from wsthreads.protocol import frames
from wsthreads.servers.serving import Server

__all__ = ["TARGETS"]

#: What a target gives: it raises for bytes that find a fault.
Check = Callable[[bytes], None]


class Choices:
    """Numbers made of bytes; zeroes when they have run out."""

    def __init__(self, data: bytes) -> None:
        self._bytes = iter(data)

    def __call__(self, limit: int) -> int:
        return next(self._bytes, 0) % limit


@contextmanager
def decode() -> Iterator[Check]:
    """The first byte says where to begin, the second how much a message may have; behind them is the buffer."""
    c = importlib.import_module("wsthreads._native._speedups")

    def check(data: bytes) -> None:
        choose, buffer = Choices(data[:2]), data[2:]
        start, limit = choose(8), (0, 5, 125, 126, 300, 65535, 65536, 2**62)[choose(8)]
        decoded = frames._decode_message(buffer, start, limit)
        ours = c.decode_message(buffer, start, limit)
        assert ours == decoded and type(ours) is type(decoded), (buffer, start, limit, ours, decoded)  # noqa: PT018
        _receive_one(c, buffer, limit)
        for text in (buffer.decode("latin-1"), buffer.decode("utf-8", "surrogateescape")):
            assert c.encode_text(text) == frames._encode_text(text), text

    yield check


def _receive_one(c: Any, buffer: bytes, limit: int) -> None:
    """Have the C module receive what begins a stream, which then ends."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = buffer[:100_000]  # as much as a socket holds
        theirs.sendall(stream)
        theirs.shutdown(socket.SHUT_WR)
        limit = min(limit, 1 << 20)  # so much is asked for at once
        received = c.receive_message(ours.fileno(), limit, True)
    if isinstance(received, bytes):
        assert stream.startswith(received), (stream, received)
        assert received or not stream, stream
        decoded = frames._decode_message(received, 0, limit)
        assert decoded is None or decoded[1] < len(received), (received, decoded)
    else:
        assert received == frames._decode_message(stream[: received[1]], 0, limit), (stream, received)


@contextmanager
def receive() -> Iterator[Check]:
    """The first byte says how many of the next ones are the sizes of pieces; then comes the stream."""

    def check(data: bytes) -> None:
        choose = Choices(data)
        early, count = choose(64), choose(16)
        sizes = [1 + choose(255) for _ in range(count)]
        agree(data[2 + count : 2 + count + 70_000], early, sizes)

    yield check


class _Errors(logging.Handler):
    """Whatever the server has logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


@contextmanager
def handshake() -> Iterator[Check]:
    """A request as it is on the wire."""
    app = WebSocketApp(allowed_origins=[handshakes.ALLOWED_ORIGIN], subprotocols=["a", "b"], ping_interval_s=0)
    app.add_handler("/ws", Recorder())
    errors = _Errors()
    loggers = [logging.getLogger(name) for name in ("wsthreads", "werkzeug")]
    for logger in loggers:
        logger.addHandler(errors)
    werkzeug, level = loggers[1], loggers[1].level
    werkzeug.setLevel(logging.CRITICAL)  # it takes the client's mistakes for errors of its own

    def check(data: bytes) -> None:
        errors.texts.clear()
        handshakes.judge(data, *handshakes.exchange(server.port, data))
        assert not errors.texts, (data, errors.texts)

    try:
        with Server(app, port=0) as server:
            yield check
    finally:
        werkzeug.setLevel(level)
        for logger in loggers:
            logger.removeHandler(errors)


@contextmanager
def script() -> Iterator[Check]:
    """Each byte is a choice: of a call, of the number of its arguments, of each argument."""
    with tempfile.TemporaryDirectory() as folder, javascript.host(Path(folder)) as host:
        yield lambda data: host.run(javascript.program(Choices(data))) and None


@contextmanager
def bridge() -> Iterator[Check]:
    """The first byte is the choice of a value, the rest is JSON or else text."""
    with tempfile.TemporaryDirectory() as folder:
        with patch.dict(os.environ, {"WSTHREADS_PURE_PYTHON": "0"}):
            crossing = Crossing(Path(folder) / "none.js")

        def check(data: bytes) -> None:
            value = javascript.VALUES[Choices(data)(len(javascript.VALUES))]
            both = [_crossed(crossing, way, value) for way in ("native", "call_python")]
            assert both[0] == both[1], (value, both)
            crossing.answer = _answer(data[1:])
            code = "{ const answer = %s('give'); native('seen', typeof answer, JSON.stringify(answer)); }"
            native, dukpys = crossing.run(code % "native" + code % "call_python")
            assert native == dukpys, (crossing.answer, native, dukpys)

        try:
            yield check
        finally:
            crossing.close()


@contextmanager
def session() -> Iterator[Check]:
    """The first byte says whether the message is binary, and whether DLE is in front. The rest is the message."""
    with sessions.browser() as browser:

        def check(data: bytes) -> None:
            choice, payload = Choices(data)(4), data[1:]
            if choice >= 2:
                payload = b"\x10" + payload
            message = payload if choice % 2 else payload.decode("utf-8", "ignore")
            sessions.judge(message)
            sessions.judge_browser(message, browser(message))

        yield check


def _crossed(crossing: Crossing, way: str, value: str) -> Any:
    """What arrives of a value, or the name of the error that it made."""
    code = f"class Thrown extends Error {{}} const session = {{}}; {way}('seen', {value}, 1)"
    return crossing.run(f"try {{ (() => {{ {code} }})() }} catch (error) {{ native('seen', error.name) }}")


def _answer(data: bytes) -> Any:
    """What a function of ours could answer: text, a number, or a list of these as a tuple."""
    text = data.decode("utf-8", "replace" if data[:1] == b"\xff" else "surrogateescape")
    try:
        value = json.loads(text, parse_constant=lambda name: None)
    except ValueError:
        return text
    except RecursionError:
        return None
    if isinstance(value, list):
        return tuple(item if _is_plain(item) else str(item)[:100] for item in value)
    return value if _is_plain(value) else json.dumps(str(value)).encode()


def _is_plain(value: Any) -> bool:
    """Whether it has JSON: 1e999 is infinity to Python, which has none."""
    return isfinite(value) if isinstance(value, float) else isinstance(value, (bool, int, str, type(None)))


TARGETS: dict[str, Callable[[], AbstractContextManager[Check]]] = {
    target.__name__: target for target in (decode, receive, handshake, script, bridge, session)
}
