"""The fetches of a script.

A fetch has a number. A fetch consists of several calls: one for the head of the response, and others for the body. Each
call has a ticket. The runtime keeps the promise of the call under its ticket. A thread sends the request, and then
reads the body into a buffer. While the buffer is full, the thread stops, until the script takes the bytes. A fetch may
take at most `script_wait_s`, with its redirects and its body.

The runtime follows redirects, in JavaScript. A script may have changed the runtime, so each request is also checked in
Python.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.util import find_spec
from itertools import takewhile
from time import monotonic
from typing import TYPE_CHECKING

from wsthreads.errors import ConfigError
from wsthreads.javascript.calls import Answer, Function
from wsthreads.javascript.python_calls import result_event
from wsthreads.javascript.python_pool import PythonPool
from wsthreads.javascript.python_values import Encoded
from wsthreads.javascript.schedule import NEVER, Schedule

if TYPE_CHECKING:
    from wsthreads.config import Config
    from wsthreads.hosts import AllowedHosts
    from wsthreads.javascript.engine import Engine
    from wsthreads.javascript.fetch_exchange import Exchange
    from wsthreads.javascript.http_connections import Connections
    from wsthreads.javascript.python_calls import PythonCalls

__all__ = ["Fetches", "Waits"]

#: At most this many fetches of a script may be open. A fetch is open until its body was read or cancelled, or until the
#: script has dropped the response.
MAX_OPEN = 1000


class Fetches:
    """The fetches of one isolate. The isolate's thread calls all methods but `stop`.

    Raises `ConfigError` if the configuration allows hosts, but the package that connects to them is not installed.
    """

    def __init__(self, name: str, schedule: Schedule, config: Config) -> None:
        if config.allow_net and find_spec("urllib3") is None:
            raise ConfigError("allow_net needs urllib3: pip install 'wsthreads[fetch]'")
        self.engine: Engine | None = None
        self._schedule = schedule
        self._allow_net = config.allow_net
        self._max_bytes = config.max_fetch_bytes
        self._wait_s = config.script_wait_s
        self._pool = PythonPool(f"{name}-fetch", config.script_threads, "fetches")
        # The open fetches by number, in the order in which they expire. Each single operation is atomic, with and
        # without the GIL.
        self._open: dict[int, Exchange] = {}
        #: The fetches that have not ended, by number.
        self.open: Mapping[int, Exchange] = self._open
        self._last_job = 0
        self._lock = threading.Lock()  # guards the attributes below
        self._connections: Connections | None = None
        self._has_ended = False

    def functions(self) -> dict[str, Function]:
        """The functions that the runtime calls.

        `fetch` and `read_fetched` return None, or why the call cannot be made.
        """
        return {"fetch": self._begin, "read_fetched": self._read, "take_fetched": self._take, "end_fetch": self._end}

    @cached_property
    def _allowed(self) -> AllowedHosts:
        from wsthreads.hosts import AllowedHosts

        return AllowedHosts(self._allow_net)

    @property
    def is_idle(self) -> bool:
        """Whether no call waits for its result."""
        return not any(exchange.is_awaited for exchange in self._open.values())

    @property
    def next_expiry(self) -> float:
        """When the oldest fetch expires, on the monotonic clock."""
        for exchange in self._open.values():
            return exchange.request.expires
        return NEVER

    def expire(self, now: float) -> None:
        """Give up the fetches whose time is over. The script gets a TimeoutError."""
        late = list(takewhile(lambda exchange: exchange.request.expires <= now, self._open.values()))
        for exchange in late:
            message = f"{exchange.request} has taken more than {self._wait_s:g} s"
            self._give_up(exchange, "TimeoutError", message)

    def stop(self) -> None:
        """End all fetches, and refuse new ones. Any thread."""
        self._pool.stop()
        with self._lock:
            self._has_ended = True
            connections = self._connections
        for exchange in list(self._open.values()):
            exchange.fail("Error", "the script has ended")
        if connections is not None:
            connections.close()

    # The runtime calls these methods.

    def _begin(
        self, ticket: int, number: int, method: str, url: str, headers: str, has_body: bool, data: str | None
    ) -> Answer:
        """Send a request.

        `number` is that of the fetch that was redirected. For a new fetch, it is the same as the ticket.
        """
        from wsthreads.javascript.fetch_exchange import Exchange  # only a script that fetches needs these
        from wsthreads.javascript.fetch_requests import FetchFailed, checked_request

        if len(self._open) > MAX_OPEN // 2 and len(self._open) % (MAX_OPEN // 10) == 0 and self.engine is not None:
            self.engine.collect_garbage()  # so that responses without a reference are closed soon
        previous = self._open.get(number)
        if previous is None and number != ticket:
            return f"the fetch with its redirects has taken more than {self._wait_s:g} s"
        if previous is None and len(self._open) >= MAX_OPEN:
            return f"{MAX_OPEN} fetches of this script are open: read or cancel the bodies of their responses"
        body = None
        if has_body:
            is_parcel = data is None and self.engine is not None
            body = self.engine.take_bytes() if is_parcel and self.engine else (data or "").encode("latin-1")
        try:
            request = checked_request(
                self._allowed,
                method,
                url,
                json.loads(headers),
                body,
                max_bytes=self._max_bytes,
                expires=monotonic() + self._wait_s if previous is None else previous.request.expires,
            )
        except FetchFailed as refusal:
            return str(refusal)
        if previous is not None and not self._pool.has_room:
            # the redirected fetch may use the thread that this request needs
            previous.fail("Error", "it was redirected")
        exchange = self._open[number] = Exchange(number, ticket, request, self._max_bytes, self._post, previous)
        return self._submit(exchange, lambda: exchange.run(self._ready_connections))

    def _read(self, ticket: int, number: int, wants_all: bool) -> Answer:
        """Wait for bytes of the body, or for the whole body.

        The result that is posted later tells whether there are any bytes.
        """
        exchange = self._open.get(number)
        if exchange is None:
            return f"the body was not read within {self._wait_s:g} s after the call of fetch"
        must_begin = exchange.ask(ticket, wants_all)
        if exchange.is_over:
            del self._open[number]
        return self._submit(exchange, exchange.read) if must_begin else None

    def _take(self, number: int) -> Answer:
        """Take the bytes that have arrived. Returns them as text, or true if they are in the parcel."""
        exchange = self._open.get(number)
        data = b"" if exchange is None else exchange.take()
        if exchange is not None and exchange.is_over and exchange.wants_all:
            del self._open[number]
        if self.engine is None:
            return data.decode("latin-1")
        if not self.engine.put_bytes(data):
            raise MemoryError("the script's heap has no room for the body")
        return True

    def _end(self, number: int) -> None:
        """End a fetch, because the script no longer wants the response."""
        exchange = self._open.get(number)
        if exchange is not None:
            self._give_up(exchange, "AbortError", "this was aborted")

    def _give_up(self, exchange: Exchange, name: str, message: str) -> None:
        self._open.pop(exchange.number, None)
        exchange.fail(name, message)
        self._pool.give_up(exchange.job)

    def _submit(self, exchange: Exchange, job: Callable[[], None]) -> str | None:
        self._last_job += 1
        exchange.job = self._last_job
        refusal = self._pool.submit(exchange.job, job)
        if refusal is None:
            return None
        self._open.pop(exchange.number, None)
        exchange.fail("Error", "it was not sent")
        return f"{exchange.request} is not sent: {refusal}"

    # Any thread may call these methods.

    def _ready_connections(self) -> Connections:
        with self._lock:
            if self._connections is None:
                from wsthreads.javascript.http_connections import Connections  # imports urllib3

                self._connections = Connections(self._allowed)
                if self._has_ended:
                    self._connections.close()
            return self._connections

    def _post(self, ticket: int, is_returned: bool, text: str) -> None:
        """Post the result of a call, or its error."""
        self._schedule.post(result_event(ticket, is_returned, Encoded(text)))


class Waits:
    """The things outside of JavaScript that promises of a script wait for: calls of Python functions, and fetches."""

    def __init__(self, calls: PythonCalls, fetches: Fetches) -> None:
        self._calls = calls
        self._fetches = fetches
        self.settle = calls.settle
        self.refuse = calls.refuse
        #: Each is not empty while it has something that can expire. To check this is cheaper than to call
        #: `next_expiry`.
        self.tables = (calls.waiting, fetches.open)

    @property
    def is_idle(self) -> bool:
        return self._calls.is_idle and self._fetches.is_idle

    @property
    def next_expiry(self) -> float:
        return min(self._calls.next_expiry, self._fetches.next_expiry)

    def expire(self, now: float) -> None:
        self._calls.expire(now)
        self._fetches.expire(now)
