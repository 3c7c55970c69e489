"""How many sessions there may be at once in this process, and whether there may be any more."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network
from threading import Condition, local
from time import monotonic

from wsthreads.errors import HandshakeRefused
from wsthreads.protocol.proxies import parse_address

__all__ = ["RETRY_AFTER_S", "Admission"]

#: What a client that finds no place is told to wait before it tries again, in seconds.
RETRY_AFTER_S = 5

#: Where a server has so few threads that a session would leave none for HTTP.
NO_THREAD = "a session holds a thread, and this server has none to spare: start it with more, such as --threads 500"


class _Here(local):
    """The calling thread's."""

    has_place = False
    is_left_out = False  # see `Admission.wait_others`


class Admission:
    """Places for sessions, of which one address may take `per_address` (0 for all). Any thread.

    A place is taken and given back by the same thread, that of its connection.
    """

    def __init__(self, places: int, per_address: int = 0) -> None:
        self.places = places
        self._per_address = per_address
        self._taken = 0
        self._taken_by: dict[str, int] = {}  # network -> places; only where there is a limit
        #: Close code and reason for sessions that come in late, once `close` has been called.
        self.goodbye: tuple[int, str] | None = None
        self._left_out = 0  # of the places taken, those whose threads wait for the others, or have
        self._here = _Here()
        self._changed = Condition()  # guards _taken, _taken_by, _left_out and goodbye

    def enter(self, address: str = "") -> str:
        """Take a place. Returns whose it is, with which to give it back: `leave`.

        Raises `HandshakeRefused` with 503 if there is none, with 501 if there never is one, with 429 if the address
        has as many as it may. Who has no address, since it comes in on a Unix socket, is not held to that.
        """
        network = network_of(address) if self._per_address else ""
        with self._changed:
            if self.goodbye is not None:
                raise _refusal(503, "shutting down", "shutting_down")
            if not self.places:
                raise HandshakeRefused(501, NO_THREAD, cause="server")
            if self._taken >= self.places:
                bounds = "max_sessions, or --threads without what is kept for HTTP"
                reason = f"all {self.places} places for sessions are taken ({bounds})"
                raise _refusal(503, reason, "full")
            if network:
                taken = self._taken_by.get(network, 0)
                if taken >= self._per_address:
                    reason = f"{network} has {taken} sessions, and may have no more (max_sessions_per_address)"
                    raise _refusal(429, reason, "address_full")
                self._taken_by[network] = taken + 1
            self._taken += 1
        self._here.has_place = True
        return network

    def leave(self, network: str = "") -> None:
        """Give a place back, of which `enter` has told whose it is."""
        with self._changed:
            if network:
                self._taken_by[network] -= 1
                if not self._taken_by[network]:
                    del self._taken_by[network]
            self._taken -= 1
            if self._here.is_left_out:
                self._left_out -= 1
            self._here.has_place = self._here.is_left_out = False
            self._changed.notify_all()

    def close(self, code: int, reason: str) -> bool:
        """Let nobody in any more. False, and nothing happens, if that has been done."""
        with self._changed:
            first = self.goodbye is None
            if first:
                self.goodbye = (code, reason)
            return first

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until the last session has left, at most `timeout_s`. False if some are still there."""
        deadline = monotonic() + timeout_s
        with self._changed:
            while self._taken:
                left = deadline - monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    @property
    def has_place(self) -> bool:
        """Whether the calling thread has a place: it is in a handshake, or in a session."""
        return self._here.has_place

    def wait_others(self, timeout_s: float) -> int:
        """Wait until the other sessions have left, at most `timeout_s`. Returns how many are still there.

        Only for a thread that has a place. Several of them do not wait for each other.
        """
        deadline = monotonic() + timeout_s
        with self._changed:
            if not self._here.is_left_out:
                self._here.is_left_out = True
                self._left_out += 1
                self._changed.notify_all()
            while self._taken > self._left_out:
                left = deadline - monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return self._taken - self._left_out

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self.goodbye is not None

    @property
    def free(self) -> int:
        """Places that are left. A snapshot."""
        return self.places - self._taken

    @property
    def taken(self) -> int:
        """Sessions now, those in their handshake or their `on_close` included."""
        return self._taken


def _refusal(status: int, reason: str, cause: str) -> HandshakeRefused:
    return HandshakeRefused(status, reason, [("Retry-After", str(RETRY_AFTER_S))], cause=cause)


_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052


def network_of(address: str) -> str:
    """Whom an address belongs to: an IPv4 address is its own, an IPv6 address one of a /64 that its owner has.

    IPv4 inside of IPv6 is IPv4: a 6to4 address gives its owner 65,536 networks, NAT64 puts everybody into one.

    >>> network_of("192.0.2.1"), network_of("2001:db8::1:2:3:4"), network_of("::ffff:192.0.2.1")
    ('192.0.2.1', '2001:db8::/64', '192.0.2.1')
    """
    parsed = parse_address(address.partition("%")[0])
    if not isinstance(parsed, IPv6Address):  # or none, or a name that a proxy made up
        return address
    inside = parsed.ipv4_mapped or parsed.sixtofour
    if parsed in _NAT64:
        inside = IPv4Address(int(parsed) & 0xFFFFFFFF)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64" if inside is None else str(inside)
