"""What the tests of scripts share: a session without a connection, and a handler made from source text."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.programs import DEADLINE_S
from wsthreads.config import Config
from wsthreads.errors import MessageTypeError, RoomLimitError, RoomNameError
from wsthreads.javascript import ScriptHandler
from wsthreads.monitoring.metrics import Metrics
from wsthreads.protocol.frames import check_close
from wsthreads.protocol.handshake import Request, check_expiry
from wsthreads.rooms.joined import JOINED, Joined

#: The script's deadline where a test runs into it: long enough for what ends by itself, on a busy machine too.
SHORT_S = 0.5

_numbers = itertools.count(1)


class FakeSession:
    """Keeps what is sent to it. `hub` maps a room's name to its members, for sessions that share rooms."""

    def __init__(self, query: str = "", hub: dict[str, dict[str, FakeSession]] | None = None, **environ: Any) -> None:
        self.id = f"session-{next(_numbers)}"
        self.hub: dict[str, dict[str, FakeSession]] = {} if hub is None else hub
        self.request = Request(
            {"PATH_INFO": "/ws/test", "QUERY_STRING": query, "REMOTE_ADDR": "192.0.2.7", **environ}
        )
        self.sent: list[str | bytes] = []
        self.closed: tuple[int, str] | None = None
        self.user: str | None = None
        self._channel = SimpleNamespace(ending=None, requests=None)
        self._changed = threading.Condition()

    def send(self, message: str | bytes, *, latest: str | None = None) -> bool:
        if not isinstance(message, (str, bytes)):
            raise MessageTypeError(f"{message!r}")
        with self._changed:
            if self.closed is not None:
                return False
            self.sent.append(message)
            self._changed.notify_all()
            return True

    def close(self, code: int = 1000, reason: str = "") -> None:
        check_close(code, reason)
        with self._changed:
            self.closed = self.closed or (int(code), reason)
            self._changed.notify_all()

    def set_expiry(self, unix_s: float) -> None:
        check_expiry(unix_s)

    def is_open(self) -> bool:
        return self.closed is None

    def room(self, name: str) -> FakeRoom:
        if not name:
            raise RoomNameError("a room name must not be empty")
        return FakeRoom(self, name)

    def rooms(self) -> list[str]:
        return sorted(name for name, members in self.hub.items() if self.id in members)

    def wait_for(self, condition: Callable[[FakeSession], Any], timeout_s: float = DEADLINE_S) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), timeout_s), f"{self.sent!r:.2000}, {self.closed}"

    def wait_for_messages(self, count: int) -> list[str | bytes]:
        self.wait_for(lambda session: len(session.sent) >= count)
        return self.sent

    def wait_for_close(self) -> tuple[int, str]:
        self.wait_for(lambda session: session.closed)
        assert self.closed is not None
        return self.closed


class FakeRoom:
    """A handle on a room of `session.hub`. A session may be in three."""

    def __init__(self, session: FakeSession, name: str) -> None:
        self.session, self.name = session, name

    def join(self, *, presence: Any = None, **options: Any) -> Joined:
        if len({*self.session.rooms(), self.name}) > 3:
            raise RoomLimitError("a session may be in 3 rooms")
        self.session.hub.setdefault(self.name, {})[self.session.id] = self.session
        return JOINED

    def leave(self) -> None:
        self.session.hub.get(self.name, {}).pop(self.session.id, None)

    def broadcast(self, message: str | bytes, *, hand_over: bool = False, **options: Any) -> None:
        for member in list(self.session.hub.get(self.name, {}).values()):
            member.send(message)

    def broadcast_except(self, message: str | bytes, *, hand_over: bool = False, **options: Any) -> None:
        for member in list(self.session.hub.get(self.name, {}).values()):
            if member is not self.session:
                member.send(message)

    def set_presence(self, value: Any) -> None:
        pass

    def presence(self) -> list[Any]:
        return []

    def close(self, code: int = 1000, reason: str = "") -> None:
        check_close(code, reason)
        for member in list(self.session.hub.get(self.name, {}).values()):
            member.close(code, reason)

    def members(self) -> int:
        return len(self.session.hub.get(self.name, {}))


class Script:
    """A `ScriptHandler` for source text, with its metrics and the sessions opened through it.

    A test that makes the time to run short makes the time to wait short, too.
    """

    def __init__(self, folder: Path, source: str, **settings: Any) -> None:
        if "script_timeout_s" in settings:
            settings.setdefault("script_wait_s", settings["script_timeout_s"])
        self.path = folder / "script.js"
        self.path.write_text(source, encoding="utf-8")
        self.metrics = Metrics()
        self.handler = ScriptHandler(self.path, Config(**settings), self.metrics)

    def open(self, session: FakeSession | None = None) -> FakeSession:
        session = session or FakeSession()
        self.handler.open(session)  # type: ignore[arg-type]
        return session

    def message(self, session: FakeSession, message: str | bytes = "") -> None:
        self.handler.message(session, message)  # type: ignore[arg-type]

    def close(self, session: FakeSession, code: int = 1000, reason: str = "") -> None:
        session.closed = session.closed or (code, reason)
        self.handler.close(session, code, reason)  # type: ignore[arg-type]

    def answer(self, session: FakeSession, message: str | bytes = "") -> str | bytes:
        """What is sent to `session` next after `message`."""
        before = len(session.sent)
        self.message(session, message)
        return session.wait_for_messages(before + 1)[before]

    def count(self, name: str) -> int:
        return self.metrics.snapshot().get(name, 0)


@contextmanager
def running(folder: Path, source: str, **settings: Any) -> Iterator[Script]:
    """A started script, stopped in the end; its thread must then be gone."""
    script = Script(folder, source, **settings)
    before = set(threading.enumerate())
    script.handler.start()
    (thread,) = set(threading.enumerate()) - before
    try:
        yield script
    finally:
        script.handler.stop(DEADLINE_S)
    thread.join(DEADLINE_S)  # one that has been stopped in an endless script may get no core for a while
    assert not thread.is_alive()


class LogLines(logging.Handler):
    """The messages of the script loggers, for waiting on."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.records.append(record)
            self._changed.notify_all()

    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    def wait_for(self, part: str) -> str:
        """The first message that contains `part`."""

        def found() -> str | None:
            return next((text for text in self.texts() if part in text), None)

        with self._changed:
            text = self._changed.wait_for(found, DEADLINE_S)
        assert text is not None, self.texts()
        return text


@contextmanager
def script_log() -> Iterator[LogLines]:
    """Everything that scripts log meanwhile, at any level."""
    lines, logger = LogLines(), logging.getLogger("wsthreads.script")
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        logger.setLevel(level)
        logger.removeHandler(lines)


def elapsed_s(function: Callable[[], Any]) -> float:
    began = time.monotonic()
    function()
    return time.monotonic() - began
