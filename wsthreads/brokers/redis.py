"""`RedisBroker`: configures rooms over Redis or Valkey, and makes handles for programs without a server."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from inspect import signature
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from wsthreads.errors import ConfigError

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
    from redis.retry import Retry
except ImportError as error:
    raise ConfigError("wsthreads needs redis-py to use Redis: pip install 'wsthreads[redis]'") from error

from wsthreads.brokers.cluster import ClusterLink
from wsthreads.brokers.keys import Keys
from wsthreads.brokers.link import RedisLink
from wsthreads.brokers.outside import Outside
from wsthreads.brokers.remote import RemotePeer, RemoteRoom, RemoteUser
from wsthreads.config import Config

if TYPE_CHECKING:
    from wsthreads.brokers import Link
    from wsthreads.monitoring.metrics import Metrics

__all__ = ["RedisBroker", "RemotePeer", "RemoteRoom", "RemoteUser"]

#: How long Redis may take to answer, or to accept a connection. The URL can have another value
#: (``?socket_timeout=10``).
TIMEOUT_S = 3.0

_ENCODE = "In a name or password, write %40 for @, %2F for /, %3A for :, %23 for #, %3F for ?, %5B for [, %5D for ]"

_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RedisBroker:
    """Connects the rooms of all processes that use the same Redis and the same `prefix`.

    `redis` is a URL (``redis://``, ``rediss://``, ``unix://``; the query takes redis-py's options) or a client of
    redis-py, such as ``RedisCluster(…)`` or ``Sentinel(…).master_for(…)``. Give such a client a `socket_timeout`:
    without one, it notices a dead network only after many minutes. The client's setting `retry` is not used, because
    wsthreads decides itself which calls may be repeated.

    Each process connects when its first session opens, or when a `RemoteRoom` is first used. While Redis is
    unavailable, each process keeps up to `max_queued_bytes` of broadcasts. Raises `ConfigError` for an invalid
    argument.
    """

    def __init__(self, redis: Any, *, prefix: str = "wsthreads", max_queued_bytes: int = 16 * 1024 * 1024) -> None:
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise ConfigError(f"the prefix for Redis must be 1 to 64 letters, digits, dots, _ or -, not {prefix!r:.80}")
        if isinstance(max_queued_bytes, bool) or not isinstance(max_queued_bytes, int) or max_queued_bytes < 1:
            raise ConfigError(f"max_queued_bytes must be a whole number above 0, not {max_queued_bytes!r}")
        self._redis = redis
        self._client, self._place = _from_url(redis) if isinstance(redis, str) else _from_client(redis)
        self._is_cluster = _is_cluster(self._client)
        self._keys = Keys(prefix, _database(self._client))
        self._max_queued_bytes = max_queued_bytes
        self._made_in = os.getpid()
        self._outsides: dict[int, Outside] = {}  # by process id

    def link(self, metrics: Metrics) -> Link:
        """A new link for an app."""
        link_class: type[ClusterLink | RedisLink] = ClusterLink if self._is_cluster else RedisLink
        return link_class(
            self._client,
            self._client_of_fork,
            self._keys,
            metrics,
            place=self._place,
            max_queued_bytes=self._max_queued_bytes,
        )

    def _client_of_fork(self) -> Any:
        """The client for a forked process. It is a new client if the broker was configured by a URL.

        The client of the parent may be unusable: if a thread held the lock of its pool during the fork, redis-py 8.1
        would wait for this lock without end.
        """
        return _from_url(self._redis)[0] if isinstance(self._redis, str) else self._client

    def room(
        self,
        endpoint: str,
        name: str,
        *,
        max_room_bytes: int = 65536,
        room_keep_s: float = 60.0,
        history_messages: int | None = None,
        history_s: float = 300.0,
        max_history_bytes: int = 2**20,
    ) -> RemoteRoom:
        """A room of an endpoint (``/ws/chat``), for programs without a server. Raises `RoomNameError`.

        `max_room_bytes` and `room_keep_s` apply when this handle sets attributes. Pass the same values as the servers.

        The endpoint's servers store the limits of the history in Redis, until `history_s` after the last server has
        ended. If no server has run for longer, pass `history_messages` and the other two settings, so that broadcasts
        are stored.
        """
        config = Config(
            max_room_bytes=max_room_bytes,
            room_keep_s=room_keep_s,
            history_messages=history_messages or 0,
            history_s=history_s,
            max_history_bytes=max_history_bytes,
        )
        return RemoteRoom(self._outside, endpoint, name, config, knows_history=history_messages is not None)

    def user(self, endpoint: str, name: str) -> RemoteUser:
        """A user of an endpoint, for programs without a server. Raises `UserError`."""
        return RemoteUser(self._outside, endpoint, name)

    def session(self, endpoint: str, session_id: str) -> RemotePeer:
        """One session of an endpoint, for programs without a server. Raises `UsageError`."""
        return RemotePeer(self._outside, endpoint, session_id)

    def close(self) -> None:
        """Close the connections that `room`, `user` and `session` made. Not needed at the end of a program."""
        self._outside().client.close()

    def _outside(self) -> Outside:
        """The connection that the handles of `room`, `user` and `session` share. A forked process gets its own."""
        pid = os.getpid()
        found = self._outsides.get(pid)
        if found is None:
            client = self._client if pid == self._made_in else self._client_of_fork()
            outside = Outside(
                client, self._keys, place=self._place, wait_s=_timeout_s(client), is_cluster=self._is_cluster
            )
            found = self._outsides.setdefault(pid, outside)
        return found

    def __repr__(self) -> str:
        return f"<RedisBroker {self._place}>"


def _from_url(url: str) -> tuple[Any, str]:
    """Make a client of Redis that is not connected. Also returns the parts of the URL that are not secret, for logs."""
    scheme = next((scheme for scheme in ("redis", "rediss", "unix") if url.startswith(f"{scheme}://")), None)
    if scheme is None:
        raise ConfigError("not a Redis URL: it must begin with redis://, rediss:// or unix://")
    problem = _problem_of(url)
    if problem:
        raise ConfigError(f"this {scheme}:// URL {problem}. {_ENCODE}")
    try:
        # redis-py must not repeat calls, because the writer must know when a connection broke.
        client = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )
        pool = client.connection_pool
        # done here only to find unknown options now; each later connection is made in the same way
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError, RedisError) as error:
        # The original error is left out, because its text may have parts of the URL.
        raise ConfigError(f"this {scheme}:// URL {_problem_with_options(url, str(error))}") from None
    options = pool.connection_kwargs
    for option in ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"):
        if options.get(option) and not os.path.exists(options[option]):
            place = options[option]
            raise ConfigError(f"the option {option} in the Redis URL is {place!r}: there is no such file or folder")
    return _from_client(client)[0], _place(scheme, options)


def _problem_of(url: str) -> str | None:
    """The error of a URL that redis-py would accept, but in another way than its author probably meant."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        account, _, place = url.partition("://")[2].rpartition("@")
        # otherwise a part of the password could be taken for the host
        if account and not re.search(r"[/?#\[\]]", account):
            return f"has an invalid host or port: {re.split('[/?#]', place)[0]!r:.80}"
        return "has an invalid host or port"
    if "#" in url:
        return "has a #: everything after it would be ignored"
    if any(part and "=" not in part for part in parts.query.split("&")):
        return "has something after its ? that is not option=value"
    if parts.scheme == "unix":
        if not parts.path:
            return "has no path of a socket, as in unix:///run/redis.sock"
        if parts.netloc and not parts.netloc.endswith("@"):
            return "needs three slashes before the path of the socket: unix:///run/redis.sock"
    elif not re.fullmatch("/?[0-9]*", parts.path):
        if "@" in f"{parts.path}?{parts.query}":  # this text may be a part of the password
            return "has something after its host that is not the number of a database, as in redis://localhost/0"
        return f"names the database {parts.path[1:]!r:.80}, which is not a number, as in redis://localhost/0"
    elif not host:
        return "has no host, as in redis://localhost"
    return None


def _problem_with_options(url: str, text: str) -> str:
    """The error of an option. `text` is the error of redis-py or Python. Only the option's name is taken from it."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", text)
    if unknown and "@" not in url.partition("?")[2]:  # otherwise the name may be a part of the password
        known = sorted(_options_of(redis.SSLConnection) | _options_of(redis.UnixDomainSocketConnection))
        meant = get_close_matches(unknown[1], known, 1)
        return f"has an option that redis-py does not know: {unknown[1]}" + (f"; {meant[0]}?" if meant else "")
    if unknown:
        return f"has an option that redis-py does not know. {_ENCODE}"
    invalid = re.search(r"Invalid value for '(\w+)'", text)
    if invalid:
        return f"has a value for {invalid[1]} that redis-py does not accept"
    return "has an option with a value that redis-py does not accept" + (
        ": protocol is 2 or 3" if text.startswith("protocol must be") else ""
    )


def _options_of(connection_class: type) -> set[str]:
    return {name for each in connection_class.__mro__ for name in signature(each.__init__).parameters}  # type: ignore[misc]


def _place(scheme: str, options: dict[str, Any]) -> str:
    if scheme == "unix":
        return f"unix://{options['path']}"
    host, database = str(options.get("host", "localhost")), options.get("db") or 0
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}:{options.get('port', 6379)}" + (f"/{database}" if database else "")


def _from_client(client: Any) -> tuple[Any, str]:
    if not hasattr(client, "pubsub") or not hasattr(client, "pipeline"):
        raise ConfigError(f"a RedisBroker needs a URL or a client of redis-py, not {type(client).__name__}")
    if client.get_encoder().decode_responses:
        raise ConfigError("a RedisBroker needs a client that does not decode responses: decode_responses=False")
    return _without_retries(client), "Redis Cluster" if _is_cluster(client) else "Redis"


def _without_retries(client: Any) -> Any:
    """Returns a client with the same settings that repeats no call. A repeated call could run twice.

    A `RedisCluster` is returned unchanged. wsthreads uses only its clients for single nodes, which repeat no call. A
    client with an unusual kind of pool is changed in place.
    """
    pool = getattr(client, "connection_pool", None)
    retry = None if pool is None else pool.connection_kwargs.get("retry")
    if pool is None or retry is None or not retry._retries:
        return client
    no_retry = Retry(NoBackoff(), 0)
    if type(pool) not in (redis.ConnectionPool, redis.BlockingConnectionPool):
        client.set_retry(no_retry)
        return client
    options = {**pool.connection_kwargs, "retry": no_retry}
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=pool.connection_class, **options))


def _is_cluster(client: Any) -> bool:
    return isinstance(client, redis.RedisCluster)


def _timeout_s(client: Any) -> float:
    """How long one call of the client may take."""
    pool = getattr(client, "connection_pool", None)  # a cluster has several pools, and no such attribute
    return float((pool and pool.connection_kwargs.get("socket_timeout")) or TIMEOUT_S)


def _database(client: Any) -> int:
    return 0 if _is_cluster(client) else int(client.connection_pool.connection_kwargs.get("db") or 0)
