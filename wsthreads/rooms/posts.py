"""Posts to a room. A post has a value for the room's owner. The caller that has posted it gets the outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import NamedTuple

from wsthreads.errors import PostError, WSThreadsError

__all__ = ["MAX_POSTS_WAITING", "Outcome", "Post", "Sender", "Settled"]

#: At most this many posts may wait in one room.
MAX_POSTS_WAITING = 10_000

#: A callback for the outcome of one post. It gets None if the post was handled, otherwise the error. It is called once,
#: in any thread, without locks. It must not block.
Settled = Callable[["WSThreadsError | None"], None]


@dataclass(frozen=True, slots=True)
class Sender:
    """The session that has posted a value to a room."""

    #: The id of the session.
    id: str
    #: The session's user, or None.
    user: str | None


class Post(NamedTuple):
    """A value on its way to `on_post`."""

    #: The value, as JSON text.
    value: str
    #: The session that has posted. None for a post from a handle without a session.
    sender: Sender | None
    settled: Settled


class Outcome:
    """The outcome of one post. The thread that has posted may `wait` for it. Any thread may call `settle`."""

    __slots__ = ("_complain", "_error", "_settled")

    def __init__(self) -> None:
        self._settled = Event()
        self._error: WSThreadsError | None = None
        self._complain: Callable[[WSThreadsError], None] | None = None

    def settle(self, error: WSThreadsError | None) -> None:
        self._error = error
        self._settled.set()
        if error is not None and self._complain is not None:
            self._complain(error)

    def leave(self, complain: Callable[[WSThreadsError], None]) -> None:
        """Do not wait for the outcome. If the post fails later, `complain` gets the error.

        Raises the error if the post has failed already.
        """
        self.check()
        self._complain = complain

    def check(self) -> None:
        """Raise the error if the post has failed already."""
        if self._settled.is_set() and self._error is not None:
            raise self._error

    def wait(self, name: str, timeout_s: float) -> None:
        """Wait until the post was handled. Raises `PostError` if the post failed, or was not handled in time."""
        if not self._settled.wait(timeout_s):
            text = f"a post to the room {name!r:.80} was not handled within {timeout_s:g} s (post_timeout_s)"
            raise PostError(f"{text}; it may still be handled", is_unknown=True)
        self.check()
