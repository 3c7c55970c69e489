"""Compares web origins (RFC 6454)."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["NAMELESS", "Origin", "is_among", "parse_origin"]

#: Origins that name no site. Local files, WebViews and Electron send "file://". Any page can send "null" from a frame
#: with the attribute sandbox. None of these counts as the server's own origin, but `allowed_origins` may list them.
NAMELESS = frozenset({"file://", "null"})

#: The scheme, the host in lower case, and the port. The port is None if it is missing and the scheme has no default.
Origin = tuple[str, str, int | None]

_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII | re.IGNORECASE
)
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def parse_origin(text: str) -> Origin | None:
    """Parse an origin in the form in which browsers send it: scheme, host and an optional port.

    Returns None for any other text, for example with a path, a query, a user or white space, and for a value in
    `NAMELESS`. A host with other than ASCII characters must be in Punycode. Hosts are compared as text: "example.org."
    with its final dot differs from "example.org".
    """
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, host, port = match.groups()
    return scheme.lower(), host.lower(), _DEFAULT_PORTS.get(scheme.lower()) if port is None else int(port)


def is_among(origin: str, allowed: Iterable[str]) -> bool:
    """Whether `allowed` contains this origin. A value in `NAMELESS` is allowed only if it is in the list itself."""
    if origin in NAMELESS:
        return origin in allowed
    wanted = parse_origin(origin)
    return wanted is not None and wanted in map(parse_origin, allowed)
