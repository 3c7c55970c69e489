"""Limits the sessions of this process, in total and per address. Refuses new sessions at a shutdown.

A *place* is the right of a connection to be served. A session is *suspended* while it has no connection, and waits for
its client.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network
from threading import Condition, local
from time import monotonic

from wsthreads.errors import HandshakeRefused
from wsthreads.protocol.proxies import parse_address
from wsthreads.threads.lookups import look_up

__all__ = ["RETRY_AFTER_S", "Admission"]

#: The value of the Retry-After header that a refused client gets, in seconds.
RETRY_AFTER_S = 5

#: The error if the server has so few threads that a session would leave none for HTTP.
NO_THREAD = "each session needs a thread, and all threads are reserved for HTTP: use more, such as --threads 500"


class _ThreadState(local):
    """The state of the calling thread."""

    has_place = False
    is_left_out = False  # see `Admission.wait_others`


class Admission:
    """Counts `places` for sessions. One address may have at most `per_address` of them (0: no limit). Any thread.

    The thread of a connection takes a place and returns it. A suspended session has no place. At most `max_suspended`
    sessions may be suspended. For clients that may resume a session, there are `beyond` more places.
    """

    def __init__(self, places: int, per_address: int = 0, *, max_suspended: int = 0, beyond: int = 0) -> None:
        self.places = places
        #: The number of places beyond `places`, for clients that may resume a session.
        self.beyond = beyond
        self.max_suspended = max_suspended
        self._suspended = 0
        self._waiting_by: dict[str, int] = {}  # suspended sessions by network; used only with a limit per address
        self._per_address = per_address
        self._taken = 0
        self._taken_by: dict[str, int] = {}  # places by network; used only with a limit per address
        #: After `close`: the close code and the reason for sessions that are just opening. None before.
        self.goodbye: tuple[int, str] | None = None
        #: After `close`: the end of the shutdown, by `monotonic`.
        self.ends_at = 0.0
        self._left_out = 0  # how many of the taken places belong to threads in `wait_others`
        self._thread_state = _ThreadState()
        self._changed = Condition()  # guards _taken, _taken_by, _left_out, _suspended, _waiting_by and goodbye

    def admit(self, address: str, *, may_come_back: bool) -> tuple[str, bool]:
        """Like `enter`. But a client that `may_come_back` to its session can get a place beyond the limits.

        Returns the client's network, and whether the place is beyond the limits. If it is, `shortage` later tells
        whether the client may keep the place.
        """
        try:
            return self.enter(address), False
        except HandshakeRefused:
            if not may_come_back:
                raise
        return self.enter(address, is_beyond=True), True

    def enter(self, address: str = "", *, is_beyond: bool = False) -> str:
        """Take a place. Returns the network for which it is counted. `leave` needs the network.

        Raises `HandshakeRefused` with 503 if all places are taken, with 501 if the server has no places at all, and
        with 429 if the address has too many places. Clients on a Unix socket have no address, so they have no limit per
        address. With `is_beyond`, the limit of the address is higher by 1, and the total limit is higher by `beyond`.
        """
        network = network_of(address) if self._per_address else ""
        with self._changed:
            if self.goodbye is not None:
                raise _refusal(503, "shutting down", "shutting_down")
            if not self.places:
                raise HandshakeRefused(501, NO_THREAD, cause="server")
            refusal = self._shortage_locked(network, *((self.beyond, 1) if is_beyond else (0, 0)))
            if refusal is not None:
                raise refusal
            if network:
                self._taken_by[network] = look_up(self._taken_by, network, 0) + 1
            self._taken += 1
        self._thread_state.has_place = True
        return network

    def shortage(self, network: str = "") -> HandshakeRefused | None:
        """Why a place beyond the limits must be returned. None if the place is now within the limits."""
        with self._changed:
            return self._shortage_locked(network, 1, 1)

    def _shortage_locked(self, network: str, more: int, more_of_address: int) -> HandshakeRefused | None:
        """Why there is no free place. `more` raises the total limit, and `more_of_address` the limit of the address."""
        if self._taken >= self.places + more:
            bounds = "max_sessions, or --threads minus the threads reserved for HTTP"
            return _refusal(503, f"all {self.places} places for sessions are taken ({bounds})", "full")
        if network and look_up(self._taken_by, network, 0) >= self._per_address + more_of_address:
            reason = f"{network} already has {self._per_address} sessions, the limit of max_sessions_per_address"
            return _refusal(429, reason, "address_full")
        return None

    def leave(self, network: str = "") -> None:
        """Return a place. `network` is the result of `enter`."""
        with self._changed:
            if network:
                self._taken_by[network] -= 1
                if not self._taken_by[network]:
                    del self._taken_by[network]
            self._taken -= 1
            if self._thread_state.is_left_out:
                self._left_out -= 1
            self._thread_state.has_place = self._thread_state.is_left_out = False
            self._changed.notify_all()

    def suspend(self, address: str = "", *, surely: bool = False, leaves: bool = False) -> str | None:
        """Count a session that has lost its connection and waits for its client.

        Returns the session's network, which `end_suspension` needs. Returns None if the session may not wait. For one
        address, the limit of suspended sessions is the same as the limit of connected sessions. With `surely`, no limit
        applies, because the session gets a connection at once. At a shutdown, a session may wait only if it `leaves`
        for another process.
        """
        network = network_of(address) if self._per_address else ""
        with self._changed:
            waiting = look_up(self._waiting_by, network, 0)
            if not surely:
                has_place = leaves if self.goodbye is not None else self._suspended < self.max_suspended
                if not has_place or (network and waiting >= self._per_address):
                    return None
            self._suspended += 1
            if network:
                self._waiting_by[network] = waiting + 1
        return network

    def end_suspension(self, network: str = "") -> None:
        """Stop counting a session as suspended, because it has a connection again, or `on_close` has returned."""
        with self._changed:
            if network:
                self._waiting_by[network] -= 1
                if not self._waiting_by[network]:
                    del self._waiting_by[network]
            self._suspended -= 1
            self._changed.notify_all()

    def close(self, code: int, reason: str, timeout_s: float = 0.0) -> bool:
        """Refuse new sessions from now on. A second call does nothing and returns False.

        The current sessions have `timeout_s` to end.
        """
        with self._changed:
            first = self.goodbye is None
            if first:
                self.ends_at = monotonic() + timeout_s
                self.goodbye = (code, reason)
            return first

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` until the last session has left. Returns False if some sessions remain."""
        deadline = monotonic() + timeout_s
        with self._changed:
            while self._taken or self._suspended:
                left = deadline - monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    @property
    def has_place(self) -> bool:
        """Whether the calling thread has a place, because it serves a handshake or a session."""
        return self._thread_state.has_place

    def wait_others(self, timeout_s: float) -> int:
        """Wait at most `timeout_s` until the other sessions have left. Returns how many sessions remain.

        Only for a thread that has a place. Threads that call this method do not wait for each other.
        """
        deadline = monotonic() + timeout_s
        with self._changed:
            if not self._thread_state.is_left_out:
                self._thread_state.is_left_out = True
                self._left_out += 1
                self._changed.notify_all()
            while (others := self._taken - self._left_out + self._suspended) > 0:
                left = deadline - monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return others

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self.goodbye is not None

    @property
    def free(self) -> int:
        """How many places are free. A snapshot."""
        return max(0, self.places - self._taken)

    @property
    def taken(self) -> int:
        """How many sessions have a connection. Includes those in a handshake and in `on_close`. A snapshot."""
        return self._taken

    @property
    def suspended(self) -> int:
        """How many sessions are suspended. Includes those in `on_close`. A snapshot."""
        return self._suspended


def _refusal(status: int, reason: str, cause: str) -> HandshakeRefused:
    return HandshakeRefused(status, reason, [("Retry-After", str(RETRY_AFTER_S))], cause=cause)


_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052


def network_of(address: str) -> str:
    """The network that counts as one client. It is an IPv4 address itself, or the /64 network of an IPv6 address.

    An IPv4 address that is embedded in an IPv6 address counts as IPv4. Otherwise, one owner would have 65,536 networks
    with 6to4, and with NAT64 all clients would share one network.

    >>> network_of("192.0.2.1"), network_of("2001:db8::1:2:3:4"), network_of("::ffff:192.0.2.1")
    ('192.0.2.1', '2001:db8::/64', '192.0.2.1')
    """
    parsed = parse_address(address.partition("%")[0])
    if not isinstance(parsed, IPv6Address):  # an IPv4 address, or any other text, which a proxy may send
        return address
    inside = parsed.ipv4_mapped or parsed.sixtofour
    if parsed in _NAT64:
        inside = IPv4Address(int(parsed) & 0xFFFFFFFF)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64" if inside is None else str(inside)
