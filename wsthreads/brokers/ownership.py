"""The ownership of rooms among all processes. The leases and the posts are in Redis.

If a process posts to a room that it owns itself, the post goes through Redis, too. So all posts to a room have one
order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from wsthreads.brokers.posts import post_payload
from wsthreads.errors import PostError
from wsthreads.rooms.ownership import Ownership

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Link
    from wsthreads.rooms.posts import Post, Sender, Settled

__all__ = ["SharedOwnership"]

#: Returns how many posts the owner of a room has not taken yet. KEYS: the posts of the room.
POSTS_WAITING = "return redis.call('LLEN', KEYS[1])"


class SharedOwnership(Ownership):
    """An `Ownership` that `link` shares with other processes. Any thread."""

    def __init__(self, *, path: str, link: Link, **parts: Any) -> None:
        super().__init__(**parts)
        self._path = path
        self._link = link

    def _want(self, name: str) -> None:
        self._link.own(self._path, name, self)

    def _unwant(self, name: str) -> None:
        self._link.own(self._path, name, self)

    def _release(self, name: str, fence: int) -> None:
        self._link.disown(self._path, name, fence)

    def lose(self, name: str, fence: int) -> None:
        """Like `lose` of `Ownership`.

        Also gives back the room, because Redis may still count this process as the owner.
        """
        self._link.disown(self._path, name, fence)
        super().lose(name, fence)

    def _is_valid(self, name: str, fence: int) -> bool:
        return self._link.owns(self._path, name, fence)

    def look(self, name: str) -> None:
        """Like `look` of `Ownership`.

        Also tells the link that members may have left, so that later posts of the same thread do not find the room
        owned because of them.
        """
        self._link.is_closed(self._path, name)
        super().look(name)

    def _may_end(self, name: str) -> bool:
        return self._link.is_closed(self._path, name)

    def has_members(self, name: str) -> bool:
        """Whether a room has members in this process."""
        return self._has_members(name)

    def post(self, name: str, value: str, sender: Sender | None, settled: Settled) -> None:
        """Like `post` of `Ownership`. The owner's handler may have an `on_post` even if this process's has none."""
        self._link.post(self._path, name, post_payload(sender, value), self._post_timeout_s, settled)

    def posts_elsewhere(self, name: str) -> int:
        """Like `posts_elsewhere` of `Ownership`: the posts in Redis. Raises `BrokerError`."""
        return int(self._link.call(self._path, name, POSTS_WAITING, ["posts"])) if self.is_on else 0

    def deliver(self, name: str, fence: int, posts: Iterable[Post]) -> bool:
        """Like `deliver` of `Ownership`."""
        if "on_post" in self.hooks:
            return super().deliver(name, fence, posts)
        error = PostError(
            f"the post to the room {name!r:.80} was refused: the handler has no on_post in the owner's process"
        )
        for post in posts:
            post.settled(error)
        return True
