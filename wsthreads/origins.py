"""Web origins (RFC 6454): which two are the same."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["NAMELESS", "Origin", "is_among", "parse_origin"]

#: What pages without an origin of their own send: of a file, in WebViews and Electron, and "null", which any page can
#: bring about by a sandboxed frame. They are nobody's own, but they may be allowed.
NAMELESS = frozenset({"file://", "null"})

#: Scheme, host in lower case, port; None for the port of a scheme that has no default.
Origin = tuple[str, str, int | None]

_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII | re.IGNORECASE
)
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def parse_origin(text: str) -> Origin | None:
    """What a browser writes as an origin: a scheme, a host and perhaps a port, and nothing more. None for others.

    So there is no path, query, user or white space in it, a host that is not ASCII is written in Punycode, and those
    of `NAMELESS` are none. Hosts are compared as they are written: one with a
    dot at its end is another one.
    """
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, host, port = match.groups()
    return scheme.lower(), host.lower(), _DEFAULT_PORTS.get(scheme.lower()) if port is None else int(port)


def is_among(origin: str, allowed: Iterable[str]) -> bool:
    """Whether a page's origin is one of those in `allowed`; one of `NAMELESS` only where that itself is among them."""
    if origin in NAMELESS:
        return origin in allowed
    wanted = parse_origin(origin)
    return wanted is not None and wanted in map(parse_origin, allowed)
