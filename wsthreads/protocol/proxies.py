"""What the proxies in front say of a client: its address, whether it came by TLS, the host that it asked for.

Each proxy appends to a header what it knows, so the last values of a list are those of the proxies that are trusted,
and everything before them is the client's to forge. So a list is read from its end, by its commas alone: werkzeug's
ProxyFix lets a quotation mark that a client sends swallow what the proxy appends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["PROXY_KEY", "ProxyHeaders", "address_of", "parse_address"]

#: In the environ of each request that comes through trusted proxies.
PROXY_KEY = "wsthreads.behind_proxy"

#: Some proxies write what a WebSocket's URL has.
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class ProxyHeaders:
    """A WSGI application that believes what the `hops` last proxies say in X-Forwarded-For, -Proto and -Host.

    Those are the headers that every guide to a proxy has it set; one that it does not set is the client's to forge.
    A header with fewer values than `hops` says nothing. `Forwarded` (RFC 7239) is not read.
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
        """What the first of the trusted proxies has appended; empty if there is nothing."""
        values = str(environ.get(f"HTTP_X_FORWARDED_{name}", "")).split(",")
        return values[-self._hops].strip(' \t"') if len(values) >= self._hops else ""


def address_of(text: str) -> str:
    """A client's address as text, without a port, from any form in which a server or a proxy writes it.

    What is none, such as ``unknown``, stays as it is.

    >>> address_of("203.0.113.7:50001"), address_of("[2001:DB8::1]:443"), address_of("::ffff:192.0.2.1")
    ('203.0.113.7', '2001:db8::1', '192.0.2.1')
    """
    text = re.sub(r'\A(?:for=)?"|\Afor=|"\Z', "", text.strip(" \t"), flags=re.IGNORECASE)
    head, colon, port = text.rpartition(":")
    for candidate in (text, head):
        address = parse_address(re.sub(r"\A\[(.*)\]\Z", r"\1", candidate))
        if address is not None:
            mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
            return str(mapped or address)
    return head if colon and port.isdigit() else text


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address, or None for what is none."""
    try:
        return ip_address(text)
    except ValueError:
        return None
