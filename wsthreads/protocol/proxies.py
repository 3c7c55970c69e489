"""Reads a client's address, scheme and host from the headers of trusted proxies.

Each proxy appends its value to the header. So the last values come from the trusted proxies, and a client can forge all
values before them. The list is split only at commas, and read from its end. werkzeug's ProxyFix also parses quotation
marks, so a client's quotation mark could hide the value of a proxy from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["PROXY_KEY", "ProxyHeaders", "address_of", "parse_address"]

#: The key in the environ that marks a request from trusted proxies.
PROXY_KEY = "wsthreads.behind_proxy"

#: Matches an IPv4 address in its usual form.
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!\Z)|\Z)){4}", re.ASCII)

#: The scheme for each value of X-Forwarded-Proto. Some proxies send ws or wss.
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class ProxyHeaders:
    """WSGI middleware that trusts X-Forwarded-For, -Proto and -Host of the last `hops` proxies.

    The proxies must set all three headers, because a client can forge a header that the proxies do not set. A header
    with fewer than `hops` values is ignored. `Forwarded` (RFC 7239) is not read.
    """

    def __init__(self, app: WSGIApplication, hops: int) -> None:
        self._app = app
        self._hops = hops

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ[PROXY_KEY] = True
        if address := self._said(environ, "FOR"):
            environ["REMOTE_ADDR"] = address
        if scheme := _SCHEMES.get(self._said(environ, "PROTO").lower()):
            environ["wsgi.url_scheme"] = scheme
        if host := self._said(environ, "HOST"):
            environ["HTTP_HOST"] = environ["SERVER_NAME"] = host
            name, colon, port = host.rpartition(":")
            if colon and not host.endswith("]"):
                environ["SERVER_NAME"], environ["SERVER_PORT"] = name, port
        return self._app(environ, start_response)

    def _said(self, environ: WSGIEnvironment, name: str) -> str:
        """Returns the value that the first trusted proxy has appended. Empty if it is missing."""
        values = str(environ.get(f"HTTP_X_FORWARDED_{name}", "")).split(",")
        return values[-self._hops].strip(' \t"') if len(values) >= self._hops else ""


def address_of(text: str) -> str:
    """Returns a client's address without a port. `text` may have any form that servers and proxies use.

    Returns `text` unchanged if it has no address in it, such as ``unknown``.

    >>> address_of("203.0.113.7:50001"), address_of("[2001:DB8::1]:443"), address_of("::ffff:192.0.2.1")
    ('203.0.113.7', '2001:db8::1', '192.0.2.1')
    """
    if _IPV4.fullmatch(text):
        return text
    text = re.sub(r'\A(?:for=)?"|\Afor=|"\Z', "", text.strip(" \t"), flags=re.IGNORECASE)
    head, colon, port = text.rpartition(":")
    for candidate in (text, head):
        address = parse_address(re.sub(r"\A\[(.*)\]\Z", r"\1", candidate))
        if address is not None:
            mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
            return str(mapped or address)
    return head if colon and port.isdigit() else text


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an IP address. Returns None if the text is not an address."""
    try:
        return ip_address(text)
    except ValueError:
        return None
