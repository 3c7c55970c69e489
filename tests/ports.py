"""Ports for servers that must be told one, or that come back at the one they had.

A port that the system chooses is free only for now. Until a server listens there, or while it restarts, the system may
give the same port to another process of the tests, to any client as its own end of a connection, and even to a client
that tries to reach the server there, which then talks to itself.
"""

from __future__ import annotations

import secrets
import socket

__all__ = ["free_port"]

#: Below the ports that systems choose by themselves. Where 10,000 is added, as a Redis Cluster does, it is still below.
FIRST, END = 10_000, 20_000

#: Browsers open no connections to this port. It is the only one in the range in the Fetch standard's list of bad ports.
BAD = 10_080


def free_port() -> int:
    """A port of 127.0.0.1 that is free, and that neither the system nor another process of the tests uses from now on.

    Browsers connect to it. Until this process ends, its UDP twin is bound: whoever looks for a port here finds that it
    is taken.
    """
    for _ in range(END - FIRST):
        port = FIRST + secrets.randbelow(END - FIRST)
        if port == BAD:
            continue
        with socket.socket(type=socket.SOCK_DGRAM) as twin, socket.socket() as probe:
            try:
                twin.bind(("127.0.0.1", port))
                probe.bind(("", port))
            except OSError:
                continue
            twin.detach()  # it stays open
            return port
    raise OSError(f"no port from {FIRST} to {END} is free")
