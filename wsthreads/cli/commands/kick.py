"""``wsthreads kick``: closes all sessions of a user, through Redis."""

from __future__ import annotations

import click

from wsthreads.cli.options import endpoint_option, prefix_option, servers_redis_option
from wsthreads.cli.streams import complain
from wsthreads.errors import BrokerError

__all__ = ["kick"]


@click.command()
@click.argument("user")
@endpoint_option
@click.option("--code", default=1000, show_default=True, help="Close code: 1000 to 1003, 1007 to 1014, 3000 to 4999.")
@click.option("--reason", default="", metavar="TEXT", help="Reason for the client, at most 123 bytes in UTF-8.")
@click.option("--ban", default=0.0, metavar="SECONDS", help="Also refuse the user's handshakes for this long.")
@servers_redis_option
@prefix_option
def kick(user: str, endpoint: str, code: int, reason: str, ban: float, redis: str, prefix: str) -> int:
    """Close all sessions of USER, on all servers that use a Redis.

    The status is 0 as soon as Redis has the order, whether or not the user has sessions.

    \b
      wsthreads kick ann --endpoint /ws/chat --code 4001 --reason 'signed out' --ban 60
    """
    from wsthreads.brokers.redis import RedisBroker

    try:
        RedisBroker(redis, prefix=prefix).user(endpoint, user).close(code, reason, ban_s=ban)
    except BrokerError as error:
        return complain(f"not kicked: {error}")
    return 0
