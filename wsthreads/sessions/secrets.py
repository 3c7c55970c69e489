"""The secrets with which the client of one session may come back. The server keeps only their digests.

Each welcome has a new secret. The client may not receive this welcome. So an earlier secret stays valid until the
client has shown that it has a later one. The client shows this when it comes back with the later secret, or when it
sends a message on the connection whose welcome had that secret.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256
from secrets import token_urlsafe

__all__ = ["Secrets", "digest"]

#: At most this many secrets are valid: the last one that the client has shown, and the latest ones that were sent to
#: it.
MOST = 16


def digest(secret: str) -> str:
    """The digest of a secret, as the server keeps it."""
    return sha256(secret.encode()).hexdigest()


class Secrets:
    """The digests of the valid secrets, the oldest first. The caller holds a lock."""

    __slots__ = ("_digests",)

    def __init__(self, digests: Iterable[str] = ()) -> None:
        self._digests = list(digests)

    def make(self) -> str:
        """Make a new secret: 128 random bits as text."""
        secret = token_urlsafe(16)
        self._digests.append(digest(secret))
        if len(self._digests) > MOST:
            del self._digests[1]
        return secret

    def confirm(self) -> None:
        """Make all secrets but the last one invalid, because the client has the last one."""
        del self._digests[:-1]

    def show(self, wanted: str) -> bool:
        """Handle that the client has come back with the secret whose digest is `wanted`. Makes older secrets invalid.

        Returns False, and changes nothing, if this secret is not valid.
        """
        place = self._place(wanted)
        del self._digests[: max(0, place)]
        return place >= 0

    def has(self, wanted: str) -> bool:
        """Whether the secret with this digest is valid."""
        return self._place(wanted) >= 0

    def _place(self, wanted: str) -> int:
        place = -1
        for number, known in enumerate(self._digests):  # all digests are compared, so that the time reveals nothing
            if hmac.compare_digest(known, wanted):
                place = number
        return place

    def export(self) -> list[str]:
        """The digests, with which another process can make `Secrets`."""
        return list(self._digests)

    def __len__(self) -> int:
        return len(self._digests)

    def __repr__(self) -> str:
        return f"<Secrets {len(self)}>"
