"""Explains errors of Redis to the operator, and gives advice. The texts have no part of a message or of a password."""

from __future__ import annotations

from redis.exceptions import AuthenticationError, NoPermissionError

__all__ = ["explain"]

#: redis-py puts the failed command, with its arguments, before this text.
_OF_PIPELINE = " of pipeline caused error: "

#: The texts of Redis's errors for a client without a password: in the handshake, for a short call, and for a long call.
_UNAUTHENTICATED = ("HELLO must be called", "Authentication required", "unauthenticated")

_CLUSTER = ("MOVED ", "ASK ", "CROSSSLOT")


def explain(error: BaseException) -> str:
    """Returns the text of an error of redis-py, without the failed command. Adds an explanation where one is needed."""
    text = str(error).rpartition(_OF_PIPELINE)[2] or type(error).__name__
    name = type(error).__name__
    if name in ("MovedError", "AskError", "ClusterCrossSlotError") or text.startswith(_CLUSTER):
        return (
            "it is a node of a Redis Cluster, which a URL cannot name: "
            "use RedisBroker(redis.RedisCluster(host=…, port=…, socket_timeout=3))"
        )
    if isinstance(error, NoPermissionError) or text.startswith("NOPERM"):
        return f"the Redis user lacks rights (ACL); docs/how-to/redis.rst lists the rights that wsthreads needs: {text}"
    if text.startswith("NOAUTH") or any(part in text for part in _UNAUTHENTICATED):
        return "it requires a password: redis://:PASSWORD@HOST, or redis://USER:PASSWORD@HOST"
    if isinstance(error, AuthenticationError) or text.startswith("WRONGPASS"):
        return "it rejects the user name or the password"
    return text
