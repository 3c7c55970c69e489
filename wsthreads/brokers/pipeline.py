"""Calls scripts in Redis, many in one round trip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from hashlib import sha1
from typing import Any

from redis.exceptions import AskError, ConnectionError, MovedError, NoScriptError, TimeoutError

__all__ = ["Pipeline", "Scripts"]


class Scripts:
    """Makes pipelines for a client of redis-py."""

    def __init__(self, client: Any, *, is_cluster: bool) -> None:
        self._client = client
        self._is_cluster = is_cluster

    def pipeline(self, *, transaction: bool = True) -> Pipeline:
        """Returns a new pipeline. A `transaction` is atomic, except in a cluster."""
        return Pipeline(self._client, is_cluster=self._is_cluster, transaction=transaction and not self._is_cluster)


class Pipeline:
    """Calls scripts in one round trip, even if Redis does not have the scripts in its cache.

    Messages must not be published twice or in another order. So it must not happen that one call of several fails
    because Redis does not have its script. In a transaction, no SCRIPT FLUSH can come between the calls, and calls of
    different scripts carry their scripts. In a cluster, each call carries its script, because the calls go to several
    nodes.
    """

    def __init__(self, client: Any, *, is_cluster: bool, transaction: bool) -> None:
        self._client = client
        self._is_cluster = is_cluster
        self._transaction = transaction
        self._calls: list[tuple[str, Sequence[bytes], tuple[object, ...]]] = []
        self._takers: list[Callable[[Any], None] | None] = []

    def call(
        self, script: str, keys: Sequence[bytes], *arguments: object, then: Callable[[Any], None] | None = None
    ) -> None:
        """Add a call. `then` gets the answer, unless a call has failed."""
        self._calls.append((script, keys, arguments))
        self._takers.append(then)

    def execute(self) -> list[Any]:
        """Make the calls.

        Returns the answers, and passes each to the `then` of its call. Raises the first `RedisError` among them.
        """
        scripts = {script for script, _, _ in self._calls}
        answers = self._execute(known=scripts if len(scripts) == 1 and not self._is_cluster else set())
        # Redis did nothing, or the same calls again change nothing
        if any(isinstance(answer, NoScriptError) for answer in answers):
            answers = self._execute(known=set())
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        for take, answer in zip(self._takers, answers, strict=True):
            if take is not None:
                take(answer)
        return answers

    def _execute(self, known: set[str]) -> list[Any]:
        if not self._is_cluster:
            return self._send(self._client, range(len(self._calls)), known)
        # redis-py's own pipeline for clusters would ask another node for the keys of each EVAL.
        by_node: dict[str, tuple[Any, list[int]]] = {}
        for n, (_, keys, _) in enumerate(self._calls):
            node = self._client.get_node_from_key(keys[0])
            by_node.setdefault(node.name, (node, []))[1].append(n)
        answers: list[Any] = [None] * len(self._calls)
        try:
            for node, numbers in by_node.values():
                connection = self._client.get_redis_connection(node)
                for n, answer in zip(numbers, self._send(connection, numbers, set()), strict=True):
                    answers[n] = answer
        except (ConnectionError, TimeoutError):
            self._client.nodes_manager.initialize()  # another node may have taken over
            raise
        if any(isinstance(answer, (MovedError, AskError)) for answer in answers):
            self._client.nodes_manager.initialize()
        return answers

    def _send(self, client: Any, numbers: Iterable[int], known: set[str]) -> list[Any]:
        calls = [self._calls[n] for n in numbers]
        pipeline = client.pipeline(transaction=self._transaction and len(calls) > 1)
        known = set(known)
        for script, keys, arguments in calls:
            how = ("EVALSHA", _sum(script)) if script in known else ("EVAL", script)
            pipeline.execute_command(*how, len(keys), *keys, *arguments)
            if not self._is_cluster:
                known.add(script)
        # With raise_on_error, redis-py would put the arguments, and so the message, into the text of an exception.
        answers: list[Any] = pipeline.execute(raise_on_error=False)
        return answers


@cache
def _sum(script: str) -> str:
    return sha1(script.encode()).hexdigest()
