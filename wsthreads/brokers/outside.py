"""Publishes messages, asks questions and sends posts over Redis, for a process without an app."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from wsthreads.brokers import scripts
from wsthreads.brokers.keys import ASK_SHARD
from wsthreads.brokers.lease_scripts import POST
from wsthreads.brokers.pipeline import Scripts
from wsthreads.brokers.positions import new_epoch
from wsthreads.brokers.posts import PART, SentPost, error_of, parse_outcomes
from wsthreads.brokers.questions import parse_answer
from wsthreads.brokers.redis_errors import explain
from wsthreads.errors import BrokerError, WSThreadsError
from wsthreads.rooms import posts as room_posts

if TYPE_CHECKING:
    from wsthreads.brokers.keys import Address, Keys

__all__ = ["ASK_S", "MAX_POST_S", "Outside"]

#: How long to wait for answers to a question, in seconds.
ASK_S = 1.0

#: How long Redis keeps posts, in seconds.
MAX_POST_S = 300


class Outside:
    """A connection to Redis for a process without an app. Any thread.

    A forked process needs a new object. A thread of the parent may have held the lock during the fork, and the tickets
    belong to the parent.
    """

    def __init__(self, client: Any, keys: Keys, *, place: str, wait_s: float, is_cluster: bool) -> None:
        self.client = client
        self.keys = keys
        self._place = place
        self._wait_s = wait_s
        self._is_cluster = is_cluster
        self._scripts = Scripts(client, is_cluster=is_cluster)  # unlike the client of a cluster, this repeats no call
        self._sending = Lock()  # held until Redis has a message, so that Redis gets the tickets in order
        self.sender = secrets.token_urlsafe(12)
        self._tickets = count()

    def publish(
        self, address: Address, encode: Callable[[str, int], bytes], kept: tuple[str, int] | None = None
    ) -> None:
        """Publish a message.

        `encode` makes the message from the sender and the ticket. `kept` is as in `Queued`. Raises `BrokerError`.
        """
        if not self._sending.acquire(timeout=self._wait_s):
            raise BrokerError(f"{self._place} has not answered another thread's broadcast for {self._wait_s:g} s")
        try:
            ticket = next(self._tickets)
            message = encode(self.sender, ticket)
            keys, arguments = [address.log, address.head], (address.channel, new_epoch(), self.sender)
            if kept is None:
                self.call(scripts.PUBLISH, keys, *arguments, ticket, message)
            else:
                keys += (address.history, address.settings)
                self.call(scripts.PUBLISH_KEPT, keys, *arguments, kept[0], f"{ticket}+{kept[1]}", message)
        finally:
            self._sending.release()

    def call(self, script: str, keys: list[bytes], *arguments: object) -> Any:
        """Run a script. Raises `BrokerError`."""
        try:
            pipeline = self._scripts.pipeline()
            pipeline.call(script, keys, *arguments)
            return pipeline.execute()[0]
        except (RedisError, OSError) as error:
            failure = BrokerError(f"{self._place}: {explain(error)}")
            failure.is_unknown = True
            raise failure from error

    def members(self, address: Address) -> int:
        return int(self.call(scripts.COUNT, [address.members, self.keys.processes(address.shard)], ""))

    def ask(self, kind: str, argument: Any, *, is_one_enough: bool = False) -> list[dict[str, Any]]:
        """Ask all processes with an app, and wait at most `ASK_S` for their answers. Raises `BrokerError`."""
        process, question = secrets.token_urlsafe(12), secrets.token_urlsafe(9)
        asked = {"question": question, "process": process, "kind": kind, "argument": argument}
        key, channel = self.keys.ask()
        answers: list[dict[str, Any]] = []
        with self._listening(*self.keys.wake(process, ASK_SHARD)) as receive:
            expected = int(self.call(scripts.WAKE, [key], channel, json.dumps(asked)))
            deadline = monotonic() + ASK_S
            while len(answers) < expected and monotonic() < deadline:
                data = receive(deadline)
                answer = None if data is None else parse_answer(data)
                if answer is not None:
                    answers.append(answer)
                    if is_one_enough and answer["value"]:
                        break
        return answers

    def post(self, address: Address, name: str, payload: bytes, timeout_s: float) -> None:
        """Post to a room, and wait for the outcome. Raises `BrokerError` and `PostError`."""
        results: list[WSThreadsError | None] = []
        post = SentPost(name, address, payload, results.append, timeout_s)
        wake_key, channel = self.keys.wake(secrets.token_urlsafe(12), address.shard)
        deadline = monotonic() + timeout_s
        with self._listening(wake_key, channel) as receive:
            keys = self.keys.post_box(address)
            left_ms = int(timeout_s * PART * 1000)
            queued = int(self.call(POST, keys, channel, left_ms, room_posts.MAX_POSTS_WAITING, 0, payload))
            outcome = {-1: "nobody", 0: "full"}.get(queued)
            try:
                while outcome is None and monotonic() < deadline:
                    outcome = _outcome_in(receive(deadline))
            except (RedisError, OSError) as failure:
                why = f"the connection to {self._place} broke before the outcome arrived ({explain(failure)})"
                raise post.error(why, is_unknown=True) from failure
        late = f"no answer has come within {timeout_s:g} s"
        error = post.error(late, is_unknown=True) if outcome is None else error_of(post, outcome)
        if error is not None:
            raise error

    @contextmanager
    def _listening(self, wake_key: bytes, channel: bytes) -> Iterator[Callable[[float], bytes | None]]:
        """A context that receives from a channel. Gives a function that returns the next message, or None.

        Raises `BrokerError`.
        """
        node = {"node": self.client.get_node_from_key(wake_key)} if self._is_cluster else {}
        try:
            with self.client.pubsub(**node) as pubsub:
                pubsub.subscribe(channel)
                deadline = monotonic() + self._wait_s
                # until Redis has confirmed the subscription
                while pubsub.get_message(timeout=max(0.0, deadline - monotonic())) is None:
                    if monotonic() >= deadline:
                        raise BrokerError(f"{self._place} has not answered for {self._wait_s:g} s")

                def receive(deadline: float) -> bytes | None:
                    message = pubsub.get_message(timeout=max(0.0, deadline - monotonic()))
                    return message["data"] if message and message["type"] == "message" else None

                yield receive
        except (RedisError, OSError) as error:
            raise BrokerError(f"{self._place}: {explain(error)}") from error


def _outcome_in(data: bytes | None) -> str | None:
    """The outcome of the only post of this connection. None if `data` has no outcome."""
    if data is None or not data.startswith(b"="):
        return None
    with suppress(ValueError):
        return dict(parse_outcomes(data[1:])).get(0)
    return None
