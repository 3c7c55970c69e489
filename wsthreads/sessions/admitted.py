"""A client between its handshake and its session."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from wsthreads.protocol.deflate import Agreement
    from wsthreads.protocol.handshake import Request
    from wsthreads.sessions.handshake_results import Verdict

__all__ = ["Admitted"]


class Admitted(NamedTuple):
    """A client that was accepted. It has not got the response 101 yet."""

    request: Request
    session_id: str
    verdict: Verdict
    agreement: Agreement | None  # the agreed parameters of compression
    network: str  # the client's network, which the limit of sessions per address counts
    is_beyond: bool  # whether its place is beyond the limits; the client may resume a session
