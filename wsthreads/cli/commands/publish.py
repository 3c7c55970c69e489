"""``wsthreads publish``: broadcasts to a room, or sends to a user, through Redis."""

from __future__ import annotations

import sys

import click

from wsthreads.cli.options import endpoint_option, prefix_option, servers_redis_option
from wsthreads.cli.streams import complain
from wsthreads.errors import BrokerError, UsageError

__all__ = ["publish"]


@click.command()
@click.argument("target", nargs=-1, metavar="[ROOM] MESSAGE")
@click.option("--user", metavar="NAME", help="Send to all sessions of a user, and not to a room.")
@click.option("--latest", metavar="KEY", help="Replace a message with this key that still waits for a slow client.")
@click.option("--no-keep", is_flag=True, help="Keep the message out of the history of the room.")
@endpoint_option
@servers_redis_option
@prefix_option
def publish(
    target: tuple[str, ...],
    user: str | None,
    latest: str | None,
    no_keep: bool,
    endpoint: str,
    redis: str,
    prefix: str,
) -> int:
    """Broadcast MESSAGE to a room, or send it to a user, on all servers that use a Redis.

    If MESSAGE is -, it is read from the standard input. The status is 0 as soon as Redis has the message, whether or
    not the room has members.

    \b
      wsthreads publish lobby 'closing in 5 minutes' --endpoint /ws/chat
      wsthreads publish --user ann 'your order is ready' --endpoint /ws/chat
    """
    from wsthreads.brokers.redis import RedisBroker

    if len(target) != (1 if user is not None else 2):
        wanted = "the message alone with --user" if user is not None else "a room and a message"
        raise click.UsageError(f"publish takes {wanted}, not {len(target)} arguments")
    if user is not None and no_keep:
        raise click.UsageError("--no-keep is for rooms: no history has messages to a user")
    message = target[-1]
    if message == "-":
        message = _standard_input()
    broker = RedisBroker(redis, prefix=prefix)
    try:
        if user is None:
            broker.room(endpoint, target[0]).broadcast(message, keep=not no_keep, latest=latest)
        else:
            broker.user(endpoint, user).send(message, latest=latest)
    except BrokerError as error:
        return complain(f"not published: {error}")
    return 0


def _standard_input() -> str:
    if sys.stdin is None:
        raise UsageError("the message - is read from the standard input, but the standard input is closed")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the standard input is not UTF-8 text: {error}") from error
