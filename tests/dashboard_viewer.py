"""What the tests of the dashboard share: a viewer, which talks to it as its page does."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Any

from tests.programs import DEADLINE_S, connect

__all__ = ["Viewer", "subprotocols_with"]


def subprotocols_with(token: str) -> list[str]:
    encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    return ["wsthreads.live", *([f"token.{encoded}"] if token else [])]


class Viewer:
    """The page's socket, as a context manager. `hello` is the first message; what it skips, it forgets."""

    def __init__(self, ws_url: str, *, token: str = "", **options: Any) -> None:
        options = {"subprotocols": subprotocols_with(token), **options}
        self.socket = connect(f"{ws_url}/_wsthreads/live", **options)
        self._requests = count(1)
        self.hello: dict[str, Any] = {}

    def next(self, kind: str, wanted: Callable[[dict[str, Any]], Any] = lambda message: True) -> dict[str, Any]:
        """The next message of a kind, for which `wanted` is true."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            message: dict[str, Any] = json.loads(self.socket.recv(timeout=deadline - time.monotonic()))
            if message["type"] == kind and wanted(message):
                return message

    def event(self, wanted: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The next event for which `wanted` is true; those that came in the same message are forgotten."""
        found: list[dict[str, Any]] = []

        def look(message: dict[str, Any]) -> bool:
            found.extend(event for event in message["events"] if wanted(event))
            return bool(found)

        self.next("events", look)
        return found[0]

    def send(self, **request: Any) -> int:
        """Send a request with the next number, which is returned."""
        number = next(self._requests)
        self.socket.send(json.dumps({"request": number, **request}))
        return number

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request."""
        number = self.send(**request)
        return self.next("answer", lambda answer: answer["request"] == number)

    def watch(self, name: str, **request: Any) -> dict[str, Any]:
        """The first list that comes for a watch."""
        number = self.send(type="watch", list=name, **request)
        return self.next(name, lambda message: message["request"] == number)

    def __enter__(self) -> Viewer:
        self.socket.__enter__()
        self.hello = json.loads(self.socket.recv(timeout=DEADLINE_S))
        assert self.hello["type"] == "hello"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.__exit__(kind, error, trace)
