"""What happens inside of Redis, and its keys.

Rooms are spread over `SHARDS`; what belongs to one shard has one hash tag, so that in a Redis Cluster it is on one
node, and scripts may use it together:

``{<prefix>:<shard>}:log:<path>:<room>``
    A stream: the broadcasts of the room of the last `LOG_S` seconds, at most `LOG_ENTRIES`. Each has ``m``, the
    message, and ``p``, the id of the one before it. Whoever lost the connection goes on from the last one it saw.
    A channel has the same name (with the number of the database in front, unless that is 0): there, each broadcast is
    published as ``<id> <id of the one before>\\n<message>``.

``{<prefix>:<shard>}:members:<path>:<room>``
    A hash: how many members each process has.

``{<prefix>:<shard>}:processes``
    A sorted set: until when each process is alive, in milliseconds of Redis's clock. It says so every `BEAT_S` seconds,
    and its members count no longer than that.

All expire by themselves. A path stands in a key with its colons quoted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha1
from typing import Any, NamedTuple
from urllib.parse import quote
from zlib import crc32

__all__ = [
    "ANNOUNCE",
    "BEAT",
    "BEAT_S",
    "COUNT",
    "FAREWELL",
    "PUBLISH",
    "SHARDS",
    "TOUCH_S",
    "WAKE",
    "Address",
    "Keys",
    "Scripts",
]

#: Part of the layout: the same in all processes.
SHARDS = 16

#: Broadcasts are kept for so long, and no more than so many of a room: a process may be cut off for that long.
LOG_S = 60
LOG_ENTRIES = 10_000

#: Processes say that they are alive this often, and are believed for so long.
BEAT_S = 2.0
ALIVE_S = 7

#: What has to be touched to stay lives so long, and is touched every `TOUCH_S`.
KEYS_S = 60
TOUCH_S = 20.0


#: Of rooms without members here, so many addresses are remembered.
ADDRESSES = 1024


class Address(NamedTuple):
    """Where a room is. Names may have lone surrogates, which no UTF-8 has: hence bytes."""

    shard: int
    log: bytes
    members: bytes
    channel: bytes


class Keys:
    """The names of keys and channels under a prefix."""

    def __init__(self, prefix: str, database: int) -> None:
        self._prefix = prefix
        self._database = f"{database}:" if database else ""
        self.address = lru_cache(ADDRESSES)(self._address)

    def _address(self, path: str, name: str) -> Address:
        room = f"{quote(path, safe='/', errors='surrogatepass')}:{name}".encode("utf-8", "surrogatepass")
        shard = crc32(room) % SHARDS
        log = f"{{{self._prefix}:{shard}}}:log:".encode() + room
        members = f"{{{self._prefix}:{shard}}}:members:".encode() + room
        return Address(shard, log, members, self._database.encode() + log)

    def processes(self, shard: int) -> bytes:
        return f"{{{self._prefix}:{shard}}}:processes".encode()

    def wake(self, process: str) -> bytes:
        """The channel on which a process tells its own reader that there is something to do."""
        return f"{self._database}{{{self._prefix}:wake:{process}}}".encode()


_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_LAST = """
local found = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local last = found[1] and found[1][1] or ''
"""

#: KEYS: log. ARGV: channel, messages. One call may have many, which come one behind the other.
PUBLISH = f"""
{_NOW} {_LAST}
local oldest = string.format('%.0f', now - {LOG_S * 1000})
for i = 2, #ARGV do
  local id = redis.call('XADD', KEYS[1], 'MINID', '~', oldest, '*', 'p', last, 'm', ARGV[i])
  redis.call('PUBLISH', ARGV[1], id .. ' ' .. last .. '\\n' .. ARGV[i])
  last = id
end
if redis.call('XLEN', KEYS[1]) > {LOG_ENTRIES} then
  redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', {LOG_ENTRIES})
end
redis.call('PEXPIRE', KEYS[1], {LOG_S * 1000})
"""

#: KEYS: log, members, processes. ARGV: process, its members. The others' members, and the id of the last broadcast.
#: Processes that have died are left out, and removed.
ANNOUNCE = f"""
{_NOW} {_LAST}
redis.call('ZADD', KEYS[3], string.format('%.0f', now + {ALIVE_S * 1000}), ARGV[1])
redis.call('PEXPIRE', KEYS[3], {KEYS_S * 1000})
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
local others = 0
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
  if all[i] ~= ARGV[1] then
    local alive = redis.call('ZSCORE', KEYS[3], all[i])
    if alive and tonumber(alive) >= now then
      others = others + all[i + 1]
    else
      redis.call('HDEL', KEYS[2], all[i])
    end
  end
end
redis.call('PEXPIRE', KEYS[2], {KEYS_S * 1000})
return {{others, last}}
"""

#: KEYS: members, processes. ARGV: process. The others' members; changes nothing.
COUNT = f"""
{_NOW}
local others = 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local alive = all[i] ~= ARGV[1] and redis.call('ZSCORE', KEYS[2], all[i])
  if alive and tonumber(alive) >= now then
    others = others + all[i + 1]
  end
end
return others
"""

#: KEYS: processes. ARGV: process. 1 if that is alive and stays so, 0 if it has been given up: then it must announce
#: its rooms again.
BEAT = f"""
{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now))
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + {ALIVE_S * 1000}), ARGV[1])
redis.call('PEXPIRE', KEYS[1], {KEYS_S * 1000})
return 1
"""

#: KEYS: processes. ARGV: process.
FAREWELL = "redis.call('ZREM', KEYS[1], ARGV[1])"

#: KEYS: a channel, which is no key: PUBLISH by itself may not be in the pipeline of a cluster.
WAKE = "redis.call('PUBLISH', KEYS[1], '')"


class Scripts:
    """Puts calls of the scripts into the pipelines of `client`."""

    def __init__(self, client: Any, *, is_cluster: bool) -> None:
        self._client = client
        # Without sums, each call brings its script: a node of a cluster may be one that has not seen it.
        self._sums = {} if is_cluster else {
            script: sha1(script.encode()).hexdigest()
            for script in (PUBLISH, ANNOUNCE, COUNT, BEAT, FAREWELL, WAKE)
        }  # fmt: skip

    def pipeline(self) -> Any:
        return self._client.pipeline(transaction=False)

    def load(self) -> None:
        """To be called once for each Redis, as it may be another one, or have forgotten them, after each connection."""
        if self._sums:
            pipeline = self.pipeline()
            for script in self._sums:
                pipeline.script_load(script)
            pipeline.execute()

    def call(self, pipeline: Any, script: str, keys: Sequence[bytes], *arguments: object) -> None:
        if self._sums:
            pipeline.evalsha(self._sums[script], len(keys), *keys, *arguments)
        else:
            # Not eval(), which redis-py has in no pipeline of a cluster; all keys of a call of ours are on one node.
            pipeline.execute_command("EVAL", script, len(keys), *keys, *arguments)
