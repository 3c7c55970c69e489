"""Checks the requests of `fetch`. The runtime checks them, too, but a script may have changed the runtime."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from wsthreads.hosts import AllowedHosts, netloc

__all__ = ["FetchFailed", "Request", "checked_request"]

_URL = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(\d{1,5}))?(/[!-\"$-~]*)")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")

#: Headers that only the connection itself may set.
_OWN_HEADERS = frozenset(
    {"accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te"}
    | {"trailer", "transfer-encoding", "upgrade"}
)

_DEFAULT_PORTS = {"http": 80, "https": 443}


class FetchFailed(Exception):
    """A fetch was refused or has failed. The text is for the script."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    scheme: str
    host: str  # without brackets if it is an IPv6 address
    port: int
    target: str
    headers: Mapping[str, str]
    body: bytes | None
    expires: float  # on the monotonic clock
    max_bytes: int  # the longest body of the response

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        return f"{self.method} {self.scheme}://{netloc(self.host, self.port)}"  # the path may contain secrets


def checked_request(
    allowed: AllowedHosts,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    *,
    max_bytes: int,
    expires: float,
) -> Request:
    """Check a request, and add the headers that every request has. Raises `FetchFailed` if the request is refused."""
    found = _URL.fullmatch(url)
    if found is None:
        raise FetchFailed(f"fetch takes http and https URLs with a plain host, not {url:.100}")
    scheme, host = found[1], found[2].strip("[]")
    port = int(found[3] or _DEFAULT_PORTS[scheme])
    if not 0 < port < 65536:
        raise FetchFailed(f"there is no port {port}")
    if not allowed.names(host, port):
        name = netloc(host, port) if found[3] else host
        raise FetchFailed(f'fetch may not reach {name}: allow it with --allow-net {name} or allow_net=["{name}"]')
    if not _TOKEN.fullmatch(method) or method.upper() in ("CONNECT", "TRACE", "TRACK"):
        raise FetchFailed(f"fetch refuses the method {method!r:.40}")
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value) or name.lower() in _OWN_HEADERS:
            raise FetchFailed(f"fetch refuses the header {name!r:.40} with this value")
    if body is not None and len(body) > max_bytes:
        raise FetchFailed(f"the request's body has {len(body)} bytes; max_fetch_bytes allows at most {max_bytes}")
    sent = {"accept": "*/*", "user-agent": "wsthreads"}
    sent.update((name.lower(), value) for name, value in headers.items())
    sent["accept-encoding"] = "gzip, deflate"
    return Request(method, scheme, host, port, found[4], sent, body, expires, max_bytes)
