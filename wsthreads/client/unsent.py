"""The queue of messages that a client has accepted, but not sent yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from wsthreads.client.events import Pending

__all__ = ["Outgoing", "Unsent", "size_of"]

Message = str | bytes


class Outgoing:
    """A counted message that was not sent yet. It is a request if `pending` is not None.

    A reply belongs to one session. A message with the number of a `session` belongs to this session, too.
    """

    __slots__ = ("is_reply", "message", "pending", "session", "size")

    def __init__(
        self, message: Message, pending: Pending | None = None, session: int | None = None, is_reply: bool = False
    ) -> None:
        self.message, self.pending, self.session, self.is_reply = message, pending, session, is_reply
        self.size = size_of(message)


class Unsent:
    """A queue of `Outgoing` messages. Not thread-safe.

    Messages that belong to one session may overtake the others: see `hold`.
    """

    def __init__(self) -> None:
        self._first: deque[Outgoing] = deque()
        self._queue: deque[Outgoing] = deque()
        self._is_held = False
        #: The bytes of all messages in the queue.
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._first) + len(self._queue)

    def __iter__(self) -> Iterator[Outgoing]:
        yield from self._first
        yield from self._queue

    def put(self, outgoing: Outgoing) -> None:
        """Add a message at the end."""
        (self._queue if outgoing.session is None or not self._is_held else self._first).append(outgoing)
        self.bytes += outgoing.size

    def hold(self) -> None:
        """Until `release`, `take` returns only messages that belong to a session."""
        self._is_held = True

    def release(self) -> None:
        """End `hold`. The other messages keep their order."""
        self._is_held = False
        self._queue.extendleft(reversed(self._first))
        self._first.clear()

    @property
    def can_take(self) -> bool:
        """Whether `take` can return a message."""
        return bool(self._first or (self._queue and not self._is_held))

    def take(self) -> Outgoing:
        """Remove and return the next message. `can_take` must be true."""
        outgoing = (self._first or self._queue).popleft()
        self.bytes -= outgoing.size
        return outgoing

    def remove(self, is_unwanted: Callable[[Outgoing], bool]) -> list[Outgoing]:
        """Remove and return the messages for which `is_unwanted` returns True."""
        removed = [outgoing for outgoing in self if is_unwanted(outgoing)]
        for outgoing in removed:
            self.bytes -= outgoing.size
        for queue in (self._first, self._queue):
            kept = [outgoing for outgoing in queue if not is_unwanted(outgoing)]
            queue.clear()
            queue.extend(kept)
        return removed


def size_of(message: Message) -> int:
    """Returns how many bytes a message has."""
    return len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())
