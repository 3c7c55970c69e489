"""Posts to rooms whose owner may be another process. Some are sent by this process, others are handled by it.

The *poster* of a post is the process that sends it. The owner tells the poster the *outcome*.

A post is sent once, so no post is handled twice. If the connection to Redis breaks before the outcome is known, the
poster is told that the outcome is unknown.

An owner numbers the posts of a room from 0, in the order in which it takes them. The posts stay in the room's list of
taken posts until Redis has their outcomes. So the next owner knows which posts are lost.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from wsthreads.brokers import lease_scripts
from wsthreads.errors import PostError, WSThreadsError
from wsthreads.rooms import posts as room_posts
from wsthreads.rooms.json_text import is_json_text
from wsthreads.rooms.posts import Post, Sender

if TYPE_CHECKING:
    from threading import Lock

    from wsthreads.brokers.keys import Address, Keys
    from wsthreads.brokers.pipeline import Pipeline
    from wsthreads.brokers.queue import SendQueue
    from wsthreads.rooms.posts import Settled

__all__ = [
    "PART",
    "WINDOW",
    "PostBox",
    "SentPost",
    "TakenPosts",
    "error_of",
    "outcome_of",
    "parse_entry",
    "parse_outcomes",
    "post_payload",
]

#: At most this many posts of a room are in the owner's process.
WINDOW = 200

#: At most this many posts, and bytes, are sent in one batch.
BATCH_POSTS = 256
BATCH_BYTES = 1024 * 1024

#: At most this many posts wait in a process to be sent.
MAX_UNSENT = 10_000

#: A post may be handled within this part of `post_timeout_s`. An owner that takes a post later does not handle it. The
#: rest of the time is for the outcome on its way back.
PART = 0.9

#: The first character of an outcome. `_UNKNOWN`: the post was perhaps handled. `_REFUSED`: it was surely not handled.
#: An outcome is empty text if the post was handled.
_UNKNOWN, _REFUSED = "?", "!"

_NUMBER = re.compile("[0-9]{1,18}")


class SentPost:
    """A post of this process, until its outcome is known."""

    __slots__ = ("address", "give_up_at", "is_sent", "name", "payload", "settled", "timeout_s")

    def __init__(self, name: str, address: Address, payload: bytes, settled: Settled, timeout_s: float) -> None:
        self.name = name
        self.address = address
        self.payload = payload
        self.settled = settled
        self.timeout_s = timeout_s
        self.give_up_at = float("inf")
        self.is_sent = False

    def error(self, why: str, *, is_unknown: bool = False) -> PostError:
        what = "it is not known whether the post was handled" if is_unknown else "the post was not handled"
        return PostError(f"a post to the room {self.name!r:.80}: {why}; {what}", is_unknown=is_unknown)


class PostBox:
    """The posts that this process sends over one link. The link's lock guards them. `clock` returns the time."""

    def __init__(self, keys: Keys, channel: bytes, *, lock: Lock, queue: SendQueue, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._channel = channel
        self._lock = lock
        self._queue = queue
        self._clock = clock
        self._hears = False  # whether this process receives outcomes now
        self._has_missed = False  # whether this process may have missed outcomes since it first received them
        self._heard_since = 0.0
        self._next = 0
        #: Posts and calls to send, in order. Each has a ticket, a number, and the post or the call. Broadcasts with
        #: lower tickets are sent first.
        self._unsent: deque[tuple[int, int, SentPost | Callable[[Pipeline], None]]] = deque()
        self._open: dict[int, SentPost] = {}  # posts without an outcome, by number, the oldest first

    def add(self, post: SentPost, ticket: int) -> bool:
        """Queue a post. Broadcasts before `ticket` are sent first. Returns false if too many posts wait.

        The caller holds the lock.
        """
        if len(self._unsent) >= MAX_UNSENT:
            return False
        post.give_up_at = self._clock() + post.timeout_s
        self._open[self._next] = post
        self.add_call(post, ticket)
        return True

    def add_call(self, call: SentPost | Callable[[Pipeline], None], ticket: int) -> None:
        """Queue a call, in one order with the posts. The call gets the pipeline. The caller holds the lock."""
        self._unsent.append((ticket, self._next, call))
        self._next += 1
        self._queue.not_empty.notify()

    def has_work(self, gate: float) -> bool:
        """Whether a post can be sent once Redis has the broadcasts before `gate`, a ticket.

        The caller holds the lock.
        """
        return self._hears and bool(self._unsent) and self._unsent[0][0] <= gate

    def hear(self) -> None:
        """From now on, this process receives outcomes. Outcomes of earlier posts may have been missed."""
        self.deafen()
        with self._lock:
            self._hears, self._heard_since = True, self._clock()
            self._queue.not_empty.notify()

    def deafen(self) -> None:
        """From now on, this process receives no outcomes. So it sends no posts."""
        with self._lock:
            self._has_missed = self._has_missed or self._hears
            self._hears = False
        self.lose_sent("the connection broke before the outcome arrived")

    def hearing_ms(self) -> int:
        """For how many milliseconds no outcome was missed. -1 if none was ever missed."""
        if not self._has_missed:
            return -1
        return int((self._clock() - self._heard_since) * 1000) if self._hears else 0

    def send(self, pipeline: Pipeline, gate: float) -> None:
        """Add calls to the pipeline that send the waiting posts. Only the writer's thread calls this."""
        if not self._unsent:
            return
        by_room: dict[Address, list[tuple[int, SentPost]]] = {}
        calls: list[Callable[[Pipeline], None]] = []
        with self._lock:
            count = size = 0
            while self.has_work(gate) and count < BATCH_POSTS and size < BATCH_BYTES:
                if by_room and not isinstance(self._unsent[0][2], SentPost):
                    calls.append(partial(self._send_posts, by_room))
                    by_room = {}
                _, number, what = self._unsent.popleft()
                if not isinstance(what, SentPost):
                    calls.append(what)
                elif number in self._open:  # otherwise the post was given up
                    what.is_sent = True
                    by_room.setdefault(what.address, []).append((number, what))
                    count, size = count + 1, size + len(what.payload)
        calls.append(partial(self._send_posts, by_room))
        for call in calls:
            call(pipeline)

    def _send_posts(self, by_room: dict[Address, list[tuple[int, SentPost]]], pipeline: Pipeline) -> None:
        now = self._clock()
        for address, posts in by_room.items():
            keys = self._keys.post_box(address)
            left_s = min(post.give_up_at - (1 - PART) * post.timeout_s for _, post in posts) - now
            arguments: list[object] = []
            for number, post in posts:
                arguments += (number, post.payload)
            pipeline.call(
                lease_scripts.POST,
                keys,
                self._channel,
                int(left_s * 1000),
                room_posts.MAX_POSTS_WAITING,
                *arguments,
                then=partial(self._queued, posts),
            )

    def _queued(self, posts: Sequence[tuple[int, SentPost]], answer: int) -> None:
        for number, _ in posts[max(0, answer) :]:
            self._settle(number, "nobody" if answer < 0 else "full")

    def take_outcomes(self, data: bytes) -> None:
        """Settle posts with these outcomes. Only the reader's thread calls this.

        Raises ValueError for malformed data.
        """
        for number, outcome in parse_outcomes(data):
            self._settle(number, outcome)

    def _settle(self, number: int, outcome: str) -> None:
        with self._lock:
            post = self._open.pop(number, None)
        if post is not None:
            post.settled(error_of(post, outcome))

    def lose_sent(self, why: str) -> None:
        """Settle all sent posts as unknown, because a connection has broken.

        These posts may have been handled, or may be handled later.
        """
        self._give_up(lambda post: post.is_sent, why, is_unknown=True)

    def refuse_unsent(self, why: str) -> None:
        self._give_up(lambda post: not post.is_sent, why, is_unknown=False)

    def end_late(self) -> None:
        """Give up posts whose time is over without an outcome. Called several times a second."""
        now = self._clock()
        with self._lock:
            first = next(iter(self._open.values()), None)
        if first is not None and first.give_up_at <= now:
            late = f"no answer has come within {first.timeout_s:g} s (post_timeout_s)"
            self._give_up(lambda post: post.is_sent and post.give_up_at <= now, late, is_unknown=True)
            self._give_up(lambda post: not post.is_sent and post.give_up_at <= now, late, is_unknown=False)

    def _give_up(self, which: Callable[[SentPost], bool], why: str, *, is_unknown: bool) -> None:
        with self._lock:
            given_up = [(number, post) for number, post in self._open.items() if which(post)]
            for number, _ in given_up:
                del self._open[number]
        for _, post in given_up:
            post.settled(post.error(why, is_unknown=is_unknown))


class Outcome(NamedTuple):
    ticket: int  # broadcasts with lower tickets are sent first
    text: str


class TakenPosts:
    """The posts to one room that the room's owner has taken.

    The link's lock guards them. Only the writer's thread changes `received` and `first`.
    """

    __slots__ = ("_ahead", "first", "outcomes", "received")

    def __init__(self) -> None:
        self.received = 0  # how many posts were passed on to be handled
        self.first = 0  # the number of the first post whose outcome Redis does not have
        self.outcomes: deque[Outcome] = deque()  # the outcomes of the post `first` and the following posts
        self._ahead: dict[int, Outcome] = {}  # the outcomes of later posts, by number

    @property
    def open(self) -> int:
        """How many posts are being handled or wait to be handled."""
        return self.received - self.first - len(self.outcomes) - len(self._ahead)

    def settle(self, number: int, ticket: int, text: str) -> None:
        """Store the outcome of a post."""
        self._ahead[number] = Outcome(ticket, text)
        while (outcome := self._ahead.pop(self.first + len(self.outcomes), None)) is not None:
            self.outcomes.append(outcome)

    def ready(self, gate: float) -> list[str]:
        """The outcomes that can be sent once Redis has the broadcasts before `gate`, a ticket."""
        ready = []
        for outcome in self.outcomes:
            if outcome.ticket > gate:
                break
            ready.append(outcome.text)
        return ready

    def rest(self) -> list[str]:
        """The outcomes of all taken posts, for an owner that handles no more of them."""
        ready = [outcome.text for outcome in self.outcomes]
        numbers = range(self.first + len(ready), self.received)
        return ready + [self._ahead[n].text if n in self._ahead else "lost" for n in numbers]

    def told(self, count: int) -> None:
        """Forget the first `count` outcomes, because Redis has them."""
        for _ in range(count):
            self.outcomes.popleft()
        self.first += count


def post_payload(sender: Sender | None, value: str) -> bytes:
    """Encode a post: the sender in the first line, and the value in the second line, both as JSON."""
    head = None if sender is None else [sender.id, sender.user]
    return f"{json.dumps(head)}\n{value}".encode()


def parse_entry(entry: bytes, settled: Settled) -> Post | None:
    """Parse a post from the room's list. Returns None if it is malformed."""
    _, _, payload = entry.partition(b"\n")
    head, newline, value = payload.partition(b"\n")
    try:
        fields, text = json.loads(head), value.decode()
    except (ValueError, RecursionError):
        return None
    if not is_json_text(text):
        return None
    if fields is None:
        return Post(text, None, settled) if newline else None
    if (
        isinstance(fields, list)
        and len(fields) == 2
        and isinstance(fields[0], str)
        and isinstance(fields[1], (str, type(None)))
    ):
        return Post(text, Sender(fields[0], fields[1]), settled)
    return None


def outcome_of(error: WSThreadsError | None) -> str:
    """The outcome as text, for the process that has posted."""
    if error is None:
        return ""
    return (_UNKNOWN if getattr(error, "is_unknown", False) else _REFUSED) + str(error)[:1000]


def parse_outcomes(data: bytes) -> list[tuple[int, str]]:
    """Parse outcomes. Each has the poster's number of the post, and the text. Raises ValueError for malformed data."""
    try:
        outcomes = json.loads(data)
    except RecursionError:
        outcomes = None
    if not isinstance(outcomes, list) or not all(_is_outcome(each) for each in outcomes):
        raise ValueError("no outcomes of posts")
    return [(int(number), outcome) for number, outcome in outcomes]


def error_of(post: SentPost, outcome: str) -> PostError | None:
    """The error for the caller of `post`. None if the post was handled."""
    if not outcome:
        return None
    if outcome == "nobody":
        return PostError(f"the post to the room {post.name!r:.80} was refused: the room has no members")
    if outcome == "full":
        most = room_posts.MAX_POSTS_WAITING
        return PostError(
            f"the post to the room {post.name!r:.80} was refused: {most} posts wait already, which is the limit"
        )
    if outcome == "lost":
        why = "the process that owned the room has ended or has lost the room, after it had taken the post"
        return post.error(why, is_unknown=True)
    return PostError(outcome[1:], is_unknown=not outcome.startswith(_REFUSED))


def _is_outcome(each: Any) -> bool:
    return (
        isinstance(each, list)
        and len(each) == 2
        and all(isinstance(part, str) for part in each)
        and _NUMBER.fullmatch(each[0]) is not None
    )
