"""Limits the sessions of this process, in total and per address, and refuses new ones at a shutdown."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network
from threading import Condition, local
from time import monotonic

from wsthreads.errors import HandshakeRefused
from wsthreads.protocol.proxies import parse_address
from wsthreads.threads.lookups import look_up

__all__ = ["RETRY_AFTER_S", "Admission"]

#: The value of the Retry-After header for a refused client, in seconds.
RETRY_AFTER_S = 5

#: The error if the server has so few threads that a session would leave none for HTTP.
NO_THREAD = "each session needs a thread, and all threads are reserved for HTTP: use more, such as --threads 500"


class _ThreadState(local):
    """State of the calling thread."""

    has_place = False
    is_left_out = False  # see `Admission.wait_others`


class Admission:
    """Counts `places` for sessions: at most `per_address` of them for one address (0: no limit). Any thread.

    The thread of a connection takes a place and returns it. Sessions without a connection have no place. At most
    `max_suspended` such sessions may wait for their clients. `beyond` more places are for clients that may resume a
    session.
    """

    def __init__(self, places: int, per_address: int = 0, *, max_suspended: int = 0, beyond: int = 0) -> None:
        self.places = places
        #: The number of places beyond `places`, for clients that may resume a session.
        self.beyond = beyond
        self.max_suspended = max_suspended
        self._suspended = 0
        self._waiting_by: dict[str, int] = {}  # network -> sessions without a connection; only with a limit
        self._per_address = per_address
        self._taken = 0
        self._taken_by: dict[str, int] = {}  # network -> places; only with a limit
        #: After `close`: the close code and reason for sessions that are just opening.
        self.goodbye: tuple[int, str] | None = None
        #: After `close`: the end of the shutdown, by `monotonic`.
        self.ends_at = 0.0
        self._left_out = 0  # how many of the taken places belong to threads that have called `wait_others`
        self._thread_state = _ThreadState()
        self._changed = Condition()  # guards _taken, _taken_by, _left_out, _suspended, _waiting_by and goodbye

    def admit(self, address: str, *, may_come_back: bool) -> tuple[str, bool]:
        """Like `enter`, but a client that `may_come_back` to its session can get a place beyond the limits.

        Returns the client's network, and whether the place is beyond the limits. For such a place, `shortage` later
        tells whether the client may keep it.
        """
        try:
            return self.enter(address), False
        except HandshakeRefused:
            if not may_come_back:
                raise
        return self.enter(address, is_beyond=True), True

    def enter(self, address: str = "", *, is_beyond: bool = False) -> str:
        """Take a place. Returns its network, which `leave` needs.

        Raises `HandshakeRefused`: with 503 if all places are taken, with 501 if the server has no places at all, and
        with 429 if the address has too many places. Clients on a Unix socket have no address, and so no limit per
        address. With `is_beyond`, the limit of the address is one higher, and the total limit is `beyond` higher.
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
        """Why a place beyond the limits must be returned. Returns None if the place is within the limits by now."""
        with self._changed:
            return self._shortage_locked(network, 1, 1)

    def _shortage_locked(self, network: str, more: int, more_of_address: int) -> HandshakeRefused | None:
        """Why there is no place. `more` raises the limit in total, `more_of_address` the limit of the address."""
        if self._taken >= self.places + more:
            bounds = "max_sessions, or --threads minus the threads reserved for HTTP"
            return _refusal(503, f"all {self.places} places for sessions are taken ({bounds})", "full")
        if network and look_up(self._taken_by, network, 0) >= self._per_address + more_of_address:
            reason = f"{network} already has {self._per_address} sessions, the limit of max_sessions_per_address"
            return _refusal(429, reason, "address_full")
        return None

    def leave(self, network: str = "") -> None:
        """Return a place; `network` is what `enter` returned."""
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

        Returns the session's network, which `end_suspension` needs, or None if the session may not wait. The limit of
        waiting sessions of one address is the same as its limit of connected sessions. With `surely`, no limit applies,
        because the session gets a connection at once. At a shutdown, a session may wait only if it `leaves` for another
        process.
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
        """Count a session that no longer waits: it has a connection again, or `on_close` has returned."""
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
        """Wait at most `timeout_s` until the last session has left. Returns False if some remain."""
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
        """Whether the calling thread has a place, because it runs a handshake or a session."""
        return self._thread_state.has_place

    def wait_others(self, timeout_s: float) -> int:
        """Wait at most `timeout_s` until the other sessions have left. Returns how many remain.

        Only for a thread that has a place. Threads in this method do not wait for each other.
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
        """Free places. A snapshot."""
        return max(0, self.places - self._taken)

    @property
    def taken(self) -> int:
        """Current sessions with a connection, including those in a handshake or in `on_close`."""
        return self._taken

    @property
    def suspended(self) -> int:
        """Current sessions that wait for their clients, including those in `on_close`."""
        return self._suspended


def _refusal(status: int, reason: str, cause: str) -> HandshakeRefused:
    return HandshakeRefused(status, reason, [("Retry-After", str(RETRY_AFTER_S))], cause=cause)


_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052


def network_of(address: str) -> str:
    """The network that counts as one client: an IPv4 address itself, or the /64 of an IPv6 address.

    IPv4 embedded in IPv6 counts as IPv4. With 6to4, one owner has 65,536 networks. With NAT64, all clients share one.

    >>> network_of("192.0.2.1"), network_of("2001:db8::1:2:3:4"), network_of("::ffff:192.0.2.1")
    ('192.0.2.1', '2001:db8::/64', '192.0.2.1')
    """
    parsed = parse_address(address.partition("%")[0])
    if not isinstance(parsed, IPv6Address):  # an IPv4 address, or no address: a proxy may send any text
        return address
    inside = parsed.ipv4_mapped or parsed.sixtofour
    if parsed in _NAT64:
        inside = IPv4Address(int(parsed) & 0xFFFFFFFF)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64" if inside is None else str(inside)
