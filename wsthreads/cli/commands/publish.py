"""``wsthreads publish``: broadcasts to a room through Redis."""

from __future__ import annotations

import sys

import click

from wsthreads.cli.streams import complain
from wsthreads.config import REDIS_VARIABLE
from wsthreads.errors import BrokerError, UsageError

__all__ = ["publish"]


@click.command()
@click.argument("room")
@click.argument("message")
@click.option("--endpoint", required=True, metavar="PATH", help="Path of the endpoint, such as /ws/chat.")
@click.option(
    "--redis",
    envvar=REDIS_VARIABLE,
    metavar="URL",
    show_envvar=True,
    required=True,
    help="The Redis that the servers use.",
)
@click.option("--prefix", default="wsthreads", show_default=True, help="Prefix of the servers' keys in Redis.")
def publish(room: str, message: str, endpoint: str, redis: str, prefix: str) -> int:
    """Broadcast MESSAGE to a room, on all servers that use a Redis.

    If MESSAGE is -, it is read from the standard input. The status is 0 as soon as Redis has the message, whether or
    not the room has members.

    \b
      wsthreads publish lobby 'closing in 5 minutes' --endpoint /ws/chat
    """
    from wsthreads.brokers.redis import RedisBroker

    if message == "-":
        message = _standard_input()
    try:
        RedisBroker(redis, prefix=prefix).room(endpoint, room).broadcast(message)
    except BrokerError as error:
        return complain(f"not published: {error}")
    return 0


def _standard_input() -> str:
    if sys.stdin is None:
        raise UsageError("- means the standard input, which is closed")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the standard input is not UTF-8 text: {error}") from error
