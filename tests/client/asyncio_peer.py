"""The asyncio client of the docs, for tests that block: it runs in an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from tests.programs import DEADLINE_S, EXAMPLES

sys.path.insert(0, str(EXAMPLES))
import asyncio_client

sys.path.remove(str(EXAMPLES))

__all__ = ["Peer", "asyncio_client"]

Result = TypeVar("Result")
Message = str | bytes


class Peer:
    """A client that was written by docs/reference/protocol alone. A context manager.

    `opened` has, for each new session, how many messages may be lost.
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        subprotocols: list[str] | None = None,
        on_request: Callable[[Message], Awaitable[Message | None]] | None = None,
    ) -> None:
        self.opened: list[int] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="asyncio-peer", daemon=True)
        self._thread.start()
        self._client = self._run(self._made(url, subprotocols, on_request))

    async def _made(self, *arguments: Any) -> asyncio_client.Client:
        return await asyncio_client.Client(*arguments, self.opened.append).__aenter__()

    def _run(self, coroutine: Coroutine[Any, Any, Result], timeout_s: float = DEADLINE_S) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    @property
    def welcome(self) -> dict[str, Any]:
        return self._client.welcome

    @property
    def kept(self) -> int:
        return len(self._client._kept)

    def send(self, message: Message) -> None:
        self._loop.call_soon_threadsafe(self._client.send, message)

    def receive(self) -> Message:
        return self._run(self._client.receive())

    def request(self, message: Message) -> Message | None:
        return self._run(self._client.request(message, DEADLINE_S), 2 * DEADLINE_S)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *error: object) -> None:
        self._run(self._client.__aexit__(None, None, None), 2 * DEADLINE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()
