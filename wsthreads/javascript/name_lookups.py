"""Looks up the names of hosts for `fetch`, in threads of their own, because a look-up cannot be ended.

An aborted fetch does not wait for its look-up. So if a name server does not answer, it blocks no thread of the fetches.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from ipaddress import ip_address
from typing import Any

from wsthreads.javascript.fetch_requests import FetchFailed

__all__ = ["Addresses", "NameLookups"]

#: At most this many look-ups run at a time. Fetches of the same host and port share one look-up.
MAX_RUNNING = 32

#: Addresses, as `socket.getaddrinfo` returns them.
Addresses = list[tuple[Any, ...]]


class NameLookups:
    """Finds the addresses of hosts. Any thread."""

    def __init__(self) -> None:
        # Guards the attributes below. A thread that holds this lock does not block, except when it starts a thread.
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], Future[Addresses]] = {}

    def find(self, host: str, port: int, timeout_s: float, on_wait: Callable[[Callable[[], None]], None]) -> Addresses:
        """Wait for the addresses of a host. `on_wait` gets a function that ends the wait.

        Raises `FetchFailed` if there is no address, or if the wait ends before the addresses are known.
        """
        if _is_address(host):
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        has_ended = threading.Event()
        found = self._begin((host, port))
        on_wait(has_ended.set)
        found.add_done_callback(lambda _: has_ended.set())
        has_ended.wait(timeout_s)
        if not found.done():
            raise FetchFailed(f"the host {host} was not found in time")
        try:
            return found.result()
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise FetchFailed(f"the host {host} is not found: {reason}") from error

    def _begin(self, place: tuple[str, int]) -> Future[Addresses]:
        with self._lock:
            found = self._running.get(place)
            if found is not None:
                return found
            if len(self._running) >= MAX_RUNNING:
                why = f"{MAX_RUNNING} look-ups have no answer yet"
                raise FetchFailed(f"the host {place[0]} is not looked up, because {why}")
            found = Future()
            thread = threading.Thread(
                target=self._look_up, args=(place, found), name=f"wsthreads-fetch-{place[0]:.40}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                raise FetchFailed(f"the host {place[0]} is not looked up: {error}") from error
            self._running[place] = found
            return found

    def _look_up(self, place: tuple[str, int], found: Future[Addresses]) -> None:
        try:
            addresses, failure = socket.getaddrinfo(*place, type=socket.SOCK_STREAM), None
        except BaseException as error:
            addresses, failure = [], error
        with self._lock:
            del self._running[place]
        if failure is None:
            found.set_result(addresses)
        else:
            found.set_exception(failure)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
