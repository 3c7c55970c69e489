"""The secrets with which the client of one session may come back. Only their digests are kept.

Each welcome brings a new one. The client may never get it, so an earlier one stays valid until the client has shown
that it has a later one: by coming back with it, or by a message on the connection whose welcome brought it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256
from secrets import token_urlsafe

__all__ = ["Secrets", "digest"]

#: The most secrets that are valid at once: the last one that the client has shown, and the last ones that it was sent.
MOST = 16


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return sha256(secret.encode()).hexdigest()


class Secrets:
    """The valid ones, in the order in which they were made. The caller holds a lock."""

    __slots__ = ("_digests",)

    def __init__(self, digests: Iterable[str] = ()) -> None:
        self._digests = list(digests)

    def make(self) -> str:
        """Make another one: 128 random bits as text."""
        secret = token_urlsafe(16)
        self._digests.append(digest(secret))
        if len(self._digests) > MOST:
            del self._digests[1]
        return secret

    def confirm(self) -> None:
        """The client has the last one: the others are not valid any more."""
        del self._digests[:-1]

    def show(self, wanted: str) -> bool:
        """The client has come back with a secret, of which this is the digest: those before it are not valid any more.

        False, and nothing happens, if it is not valid itself.
        """
        place = self._place(wanted)
        del self._digests[: max(0, place)]
        return place >= 0

    def has(self, wanted: str) -> bool:
        """Whether a secret is valid, by its digest."""
        return self._place(wanted) >= 0

    def _place(self, wanted: str) -> int:
        place = -1
        for number, known in enumerate(self._digests):  # all of them, so that the time tells nothing
            if hmac.compare_digest(known, wanted):
                place = number
        return place

    def export(self) -> list[str]:
        """The digests, for `Secrets` in another process."""
        return list(self._digests)

    def __len__(self) -> int:
        return len(self._digests)

    def __repr__(self) -> str:
        return f"<Secrets {len(self)}>"
