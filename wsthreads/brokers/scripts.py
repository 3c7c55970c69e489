"""The Lua scripts that run inside of Redis, and the keys that they use.

Rooms are spread over `SHARDS`. All keys of one shard have the same hash tag. So in a Redis Cluster they are on one
node, and a script may use them together:

``{<prefix>:<shard>}:log:<path>:<room>``
    A stream, the room's *log*: the messages of the last `LOG_S` seconds, at most `LOG_ENTRIES`. Each entry has ``n``,
    its number; ``p``, the id of the entry before it; and ``m``, the message. Numbers begin with 1 and have no gaps. The
    first entry has ``0-0`` for ``p``.

    A channel has the same name (after the number of the database, unless that is 0). Each message is published there as
    ``<epoch> <number> <id> <id of the entry before it>\\n<message>``.

``{<prefix>:<shard>}:head:<path>:<room>``
    A hash, the log's *head*. ``epoch`` is a random name that was made with the log; ``number`` and ``id`` are those of
    the last message. The head lives for `HEAD_S` seconds after the room's last use, longer than the entries. All
    entries of a log have one epoch: a log without a head gets a new head, and entries of an older log are deleted.

    ``@<sender>``, for each of the last senders, has the ticket of the sender's last message, and that message's number.
    A sender that received no answer publishes again; Redis skips tickets that it already has. ``senders`` counts these
    fields. If there are more than `MAX_SENDERS`, those that have been silent for longest are removed, half of all. If
    such a sender publishes again, the log has the message twice, and readers recognise its ticket.

``{<prefix>:<shard>}:members:<path>:<room>``
    A hash: how many members each process has.

``{<prefix>:<shard>}:processes``
    A sorted set: until when each process counts as alive, in milliseconds of Redis's clock. A process extends this
    every `BEAT_S` seconds. Members of a process that does not are not counted. A process is there twice: under its
    name, and under ``<name>.<number>``, which is another one after each break of its connection. Members are counted
    under the latter. So counts of before the break are gone at once, and presences stay.

``{<prefix>:<shard>}:presence:<path>:<room>``
    A hash: the presence of each session in the room that has set one. The field is ``<process> <session id>``. The
    value is until when the session stays, since its connection was lost, in milliseconds of Redis's clock, or 0; a
    space; and what `messages.presence_payload` makes. Only the session's process writes it. Each change is published
    in the room's log by the same script. Any process removes it (`REAP`) when that time is over, or when its process
    counts as alive no longer.

    The field ``<process>`` has the number of the process's last call that wrote here. So a call that Redis gets late,
    after a break, changes nothing.

``{<prefix>:<shard>}:ban:<path>:<room>``
    In the hidden room of a user: that the user is banned. The value is a JSON list of the close code and the reason;
    the key expires with the ban.

``{<prefix>:<shard>}:wake:<process>``
    A channel only: on it a process's writer wakes the process's own reader. Announcements of rooms and answers to
    questions arrive there, too.

``{<prefix>:0}:ask``
    A channel only: questions to all processes (see `questions`).

Epoch and number are a process's position in a log. After a break, the process compares its position with the head. So
it knows how many messages it has missed, even when their entries have expired. Another epoch, or a lower number, means
that Redis has lost its data, or has failed over to a replica that lagged. Then the process counts a possible loss, and
continues with the log as it is. Ids find entries, and distinguish two histories with the same numbers. They are never
compared by size, since Redis's clock may be set back.

All keys expire. Colons in a path are quoted in its key.

Processes with another version of the format (see `messages`) use the same names. They do not understand each other:
each drops and counts what it does not know. A process with version 1 makes log entries without a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from hashlib import sha1
from typing import Any, NamedTuple
from urllib.parse import quote
from zlib import crc32

from redis.exceptions import AskError, ConnectionError, MovedError, NoScriptError, TimeoutError

from wsthreads.brokers.messages import VERSION

__all__ = [
    "ALIVE",
    "ANNOUNCE",
    "BAN",
    "BANNED",
    "BEAT",
    "BEAT_S",
    "COUNT",
    "FAREWELL",
    "FETCH",
    "PERSONS",
    "PRESENCE",
    "PUBLISH",
    "REAP",
    "SHARDS",
    "TOUCH_S",
    "WAKE",
    "Address",
    "Keys",
    "Scripts",
]

#: The number of shards. All processes must have the same.
SHARDS = 16

#: How long a log keeps messages, and how many. A process that is cut off for longer loses messages.
LOG_S = 60
LOG_ENTRIES = 10_000

#: How long a head lives after the room's last use. A process that is cut off for longer cannot tell whether it has
#: missed messages.
HEAD_S = 600

#: The number of senders whose last ticket a head has.
MAX_SENDERS = 256

#: How often a process reports that it is alive, and how long each report is valid.
BEAT_S = 2.0
ALIVE_S = 7

#: How long other keys live after their last use. A process uses the keys of its rooms every `TOUCH_S`.
KEYS_S = 60
TOUCH_S = 20.0


#: How long presences live after the last use of their room.
PRESENCE_S = 600

#: The shard whose node publishes questions.
ASK_SHARD = 0

#: How many addresses of rooms without members in this process are cached.
ADDRESSES = 1024


class Address(NamedTuple):
    """The keys of a room, as bytes: names may have lone surrogates, which UTF-8 cannot encode."""

    shard: int
    log: bytes
    head: bytes
    members: bytes
    channel: bytes
    presence: bytes
    ban: bytes


class Keys:
    """The names of keys and channels under a prefix."""

    def __init__(self, prefix: str, database: int) -> None:
        self._prefix = prefix
        self._database = f"{database}:" if database else ""
        self.address = lru_cache(ADDRESSES)(self._address)

    def _address(self, path: str, name: str) -> Address:
        room = f"{quote(path, safe='/', errors='surrogatepass')}:{name}".encode("utf-8", "surrogatepass")
        shard = crc32(room) % SHARDS
        log, head, members, presence, ban = (
            f"{{{self._prefix}:{shard}}}:{kind}:".encode() + room
            for kind in ("log", "head", "members", "presence", "ban")
        )
        return Address(shard, log, head, members, self._database.encode() + log, presence, ban)

    def processes(self, shard: int) -> bytes:
        return f"{{{self._prefix}:{shard}}}:processes".encode()

    def wake(self, process: str, shard: int = 0) -> tuple[bytes, bytes]:
        """A key, and the channel on which a process's writer wakes the process's own reader."""
        key = f"{{{self._prefix}:{shard}}}:wake:{process}".encode()
        return key, self._database.encode() + key

    def ask(self) -> tuple[bytes, bytes]:
        """The same for the channel of questions to all processes. It is in `ASK_SHARD`."""
        key = f"{{{self._prefix}:{ASK_SHARD}}}:ask".encode()
        return key, self._database.encode() + key


_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: log, head. `fresh` is the epoch of a new head, if there is none.
_HEAD = f"""
local head = redis.call('HMGET', KEYS[2], 'epoch', 'number', 'id')
if not head[1] then
  head = {{fresh, '0', '0-0'}}
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[2], 'epoch', fresh, 'number', '0', 'id', '0-0')
end
redis.call('PEXPIRE', KEYS[2], {HEAD_S * 1000})
"""

# KEYS: log, head. ARGV[1]: the channel. Needs _NOW and _HEAD. `append` adds a message to the log, and publishes it.
_APPEND = f"""
local oldest = string.format('%.0f', now - {LOG_S * 1000})
local number, last, text = tonumber(head[2]), head[3], nil
local function append(message)
  number = number + 1
  text = string.format('%.0f', number)
  local id = redis.call('XADD', KEYS[1], 'MINID', '~', oldest, '*', 'n', text, 'p', last, 'm', message)
  redis.call('PUBLISH', ARGV[1], head[1] .. ' ' .. text .. ' ' .. id .. ' ' .. last .. '\\n' .. message)
  last = id
end
"""

_TRIM = f"""
if redis.call('XLEN', KEYS[1]) > {LOG_ENTRIES} then
  redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', {LOG_ENTRIES})
end
redis.call('PEXPIRE', KEYS[1], {LOG_S * 1000})
"""

#: KEYS: log, head. ARGV: channel, a random epoch, the sender; then the ticket and the bytes of each message, in order.
#: Skips messages that it has already published.
PUBLISH = f"""
local fresh, field = ARGV[2], '@' .. ARGV[3]
{_NOW} {_HEAD} {_APPEND}
local known = redis.call('HMGET', KEYS[2], field, 'senders')
local ticket = known[1] and tonumber(string.match(known[1], '^%d+')) or -1
for i = 4, #ARGV, 2 do
  if tonumber(ARGV[i]) > ticket then
    ticket = tonumber(ARGV[i])
    append(ARGV[i + 1])
  end
end
if not text then
  return
end
local spoken = string.format('%.0f', ticket) .. ' ' .. text
if redis.call('HSET', KEYS[2], 'number', text, 'id', last, field, spoken) > 0 then
  local senders = tonumber(known[2] or '0') + 1
  if senders > {MAX_SENDERS} then
    local all, found = redis.call('HGETALL', KEYS[2]), {{}}
    for i = 1, #all, 2 do
      if string.sub(all[i], 1, 1) == '@' then
        found[#found + 1] = {{all[i], tonumber(string.match(all[i + 1], '%d+$'))}}
      end
    end
    table.sort(found, function(one, other) return one[2] < other[2] end)
    senders = #found
    while senders > {MAX_SENDERS // 2} do
      redis.call('HDEL', KEYS[2], found[#found - senders + 1][1])
      senders = senders - 1
    end
  end
  redis.call('HSET', KEYS[2], 'senders', senders)
end
{_TRIM}
"""

# `set` and `gone` change the presence of one session, and publish that.
_CHANGE = f"""
local function told(id, payload)
  append('{VERSION} - 0 ' .. id .. ' p\\n' .. payload)
end
local function gone(field, id, value)
  redis.call('HDEL', KEYS[3], field)
  told(id, '[' .. string.match(value, '^%d+ %[(%d+)') .. ']')
end
"""

_TOLD = f"""
if text then
  redis.call('HSET', KEYS[2], 'number', text, 'id', last)
  {_TRIM}
end
redis.call('PEXPIRE', KEYS[3], {PRESENCE_S * 1000})
"""

#: KEYS: log, head, presence, processes. ARGV: channel, a random epoch, the process, the number of this call, 1 if the
#: process has no other sessions with a presence in the room; then for each session its id, the payload or nothing if it
#: is gone, and for how many milliseconds it is kept or nothing. Stores and publishes what differs from what is stored.
PRESENCE = f"""
local fresh = ARGV[2]
{_NOW} {_HEAD} {_APPEND} {_CHANGE}
if tonumber(redis.call('HGET', KEYS[3], ARGV[3]) or '0') >= tonumber(ARGV[4]) then
  return
end
redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
redis.call('ZADD', KEYS[4], string.format('%.0f', now + {ALIVE_S * 1000}), ARGV[3])
redis.call('PEXPIRE', KEYS[4], {KEYS_S * 1000})
local listed, prefix = {{}}, ARGV[3] .. ' '
for i = 6, #ARGV, 3 do
  local id, payload, field = ARGV[i], ARGV[i + 1], prefix .. ARGV[i]
  local old = redis.call('HGET', KEYS[3], field)
  listed[field] = true
  if payload == '' then
    if old then
      gone(field, id, old)
    end
  elseif not old or string.match(old, '^%d+ %[(%d+)') ~= string.match(payload, '^%[(%d+)') then
    local kept = ARGV[i + 2] ~= '' and string.format('%.0f', now + tonumber(ARGV[i + 2])) or '0'
    redis.call('HSET', KEYS[3], field, kept .. ' ' .. payload)
    told(id, payload)
  end
end
if ARGV[5] == '1' then
  local all = redis.call('HGETALL', KEYS[3])
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, #prefix) == prefix and not listed[all[i]] then
      gone(all[i], string.sub(all[i], #prefix + 1), all[i + 1])
    end
  end
end
{_TOLD}
"""

#: KEYS: log, head, presence, processes. ARGV: channel, a random epoch; then processes that were found dead. Removes the
#: sessions whose time is over, and those of the processes that are dead indeed and have no time left, and publishes it.
REAP = f"""
local fresh = ARGV[2]
{_NOW} {_HEAD} {_APPEND} {_CHANGE}
local dead = {{}}
for i = 3, #ARGV do
  local alive = redis.call('ZSCORE', KEYS[4], ARGV[i])
  dead[ARGV[i]] = not alive or tonumber(alive) < now
end
local all = redis.call('HGETALL', KEYS[3])
for i = 1, #all, 2 do
  local process, id = string.match(all[i], '^(%S+) (%S+)$')
  if process then
    local kept = tonumber(string.match(all[i + 1], '^%d+'))
    if kept == 0 and dead[process] or kept > 0 and kept <= now then
      gone(all[i], id, all[i + 1])
    end
  end
end
{_TOLD}
"""

#: KEYS: processes. ARGV: names of processes. Returns those that do not count as alive.
ALIVE = f"""
{_NOW}
local dead = {{}}
for i = 1, #ARGV do
  local alive = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if not alive or tonumber(alive) < now then
    dead[#dead + 1] = ARGV[i]
  end
end
return dead
"""

#: KEYS: presence, processes. Returns the time in milliseconds, and the presence hash without those who have left.
PERSONS = f"""
{_NOW}
local all, found, alive = redis.call('HGETALL', KEYS[1]), {{}}, {{}}
for i = 1, #all, 2 do
  local process = string.match(all[i], '^(%S+) ')
  if process then
    local kept = tonumber(string.match(all[i + 1], '^%d+'))
    if alive[process] == nil then
      local score = redis.call('ZSCORE', KEYS[2], process)
      alive[process] = score and tonumber(score) >= now or false
    end
    if kept > now or kept == 0 and alive[process] then
      found[#found + 1] = all[i]
      found[#found + 1] = all[i + 1]
    end
  end
end
return {{string.format('%.0f', now), found}}
"""

#: KEYS: ban. ARGV: a JSON list of the code and the reason, for how many milliseconds. Of two bans the longer counts.
BAN = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
"""

#: KEYS: ban. Returns the value and how many milliseconds are left; an empty value if there is no ban.
BANNED = "return {redis.call('GET', KEYS[1]) or '', redis.call('PTTL', KEYS[1])}"

#: KEYS: log, head, presence. ARGV: an epoch, a number and an id, which are a process's position; the largest number of
#: entries. Returns the head, and the entries after the position; all entries, if it is in another log. The head of a
#: log that does not exist has no epoch. Then the time in milliseconds, and the presence hash.
FETCH = f"""
{_NOW}
local head = redis.call('HMGET', KEYS[2], 'epoch', 'number', 'id')
local entries = {{}}
if not head[1] then
  head = {{'', '0', '0-0'}}
elseif head[1] ~= ARGV[1] then
  entries = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[4])
elseif head[3] ~= ARGV[3] then
  entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[3], '+', 'COUNT', ARGV[4])
  if #entries == 0 and tonumber(head[2]) > tonumber(ARGV[2]) then  -- the clock was set back while the log was empty
    entries = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[4])
  end
end
return {{head[1], head[2], head[3], entries, string.format('%.0f', now), redis.call('HGETALL', KEYS[3])}}
"""

#: KEYS: log, head, members, processes, presence, ban. ARGV: process, its members, a random epoch, a name and a channel.
#: Returns the number of members of other processes, the head, 1 if the process did not count as alive before, and what
#: `BANNED` does. Removes dead processes. Unless the name is empty, publishes the head and the name on the channel:
#: there, whatever is published to the room later comes later. Before that, it publishes the presence hash, if there is
#: any, and the ban: a plus, the name, the time in milliseconds, and the parts, each with its length before it.
ANNOUNCE = f"""
local fresh = ARGV[3]
{_NOW} {_HEAD}
local alive_until = string.format('%.0f', now + {ALIVE_S * 1000})
local added = redis.call('ZADD', KEYS[4], alive_until, ARGV[1])
redis.call('ZADD', KEYS[4], alive_until, string.match(ARGV[1], '^[^.]+'))
redis.call('PEXPIRE', KEYS[4], {KEYS_S * 1000})
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[3], ARGV[1])
else
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
end
local others = 0
local all = redis.call('HGETALL', KEYS[3])
for i = 1, #all, 2 do
  if all[i] ~= ARGV[1] then
    local alive = redis.call('ZSCORE', KEYS[4], all[i])
    if alive and tonumber(alive) >= now then
      others = others + all[i + 1]
    else
      redis.call('HDEL', KEYS[3], all[i])
    end
  end
end
redis.call('PEXPIRE', KEYS[3], {KEYS_S * 1000})
redis.call('PEXPIRE', KEYS[5], {PRESENCE_S * 1000})
local ban, ban_left = redis.call('GET', KEYS[6]) or '', redis.call('PTTL', KEYS[6])
if ARGV[4] ~= '' then
  local parts = redis.call('HGETALL', KEYS[5])
  if #parts > 0 or ban ~= '' then
    parts[#parts + 1], parts[#parts + 2] = ban, ban_left
    for i = 1, #parts do
      parts[i] = #tostring(parts[i]) .. ':' .. parts[i]
    end
    local what = #ARGV[4] .. ':' .. ARGV[4] .. string.format('%.0f', now) .. ':'
    redis.call('PUBLISH', ARGV[5], '+' .. what .. table.concat(parts))
  end
  redis.call('PUBLISH', ARGV[5], head[1] .. ' ' .. head[2] .. ' ' .. head[3] .. ' ' .. ARGV[4])
end
return {{others, head[1], head[2], head[3], added, ban, ban_left}}
"""

#: KEYS: members, processes. ARGV: process. Returns the number of members of other processes; changes nothing.
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

#: KEYS: processes. ARGV: process. Extends a process's life and returns 1. Returns 0 if it no longer counts as alive: it
#: must announce its rooms again.
BEAT = f"""
{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now))
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
local alive_until = string.format('%.0f', now + {ALIVE_S * 1000})
redis.call('ZADD', KEYS[1], alive_until, ARGV[1], alive_until, string.match(ARGV[1], '^[^.]+'))
redis.call('PEXPIRE', KEYS[1], {KEYS_S * 1000})
return 1
"""

#: KEYS: processes. ARGV: names of a process that ends. Removes them.
FAREWELL = "redis.call('ZREM', KEYS[1], unpack(ARGV))"

#: KEYS: a key that need not exist; in a cluster, its node publishes. ARGV: channel, data. Returns how many receive it.
#: It is a script, because a plain PUBLISH cannot be in the pipeline of a cluster.
WAKE = "return redis.call('PUBLISH', ARGV[1], ARGV[2])"


class Scripts:
    """Makes pipelines for a client of redis-py."""

    def __init__(self, client: Any, *, is_cluster: bool) -> None:
        self._client = client
        self._is_cluster = is_cluster

    def pipeline(self, *, transaction: bool = True) -> Pipeline:
        """A new pipeline. A `transaction` is atomic, except in a cluster."""
        return Pipeline(self._client, is_cluster=self._is_cluster, transaction=transaction and not self._is_cluster)


class Pipeline:
    """Calls of scripts, in one round trip. It works whether or not Redis has the scripts cached.

    Messages must not be published twice or in another order. So a single call must not fail because Redis does not have
    its script. In a transaction no SCRIPT FLUSH can come between the calls, and calls of different scripts carry the
    scripts. In a cluster each call carries its script, since the calls go to several nodes.
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
        """Add a call. `then` gets the answer, if no call has failed."""
        self._calls.append((script, keys, arguments))
        self._takers.append(then)

    def execute(self) -> list[Any]:
        """Returns the answers, and gives them to those who wait for them. Raises the first `RedisError` among them."""
        scripts = {script for script, _, _ in self._calls}
        answers = self._execute(known=scripts if len(scripts) == 1 and not self._is_cluster else set())
        if any(isinstance(answer, NoScriptError) for answer in answers):  # nothing was done, or nothing changes
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
        # redis-py must not raise here: it adds the arguments, and so the message, to the text of an exception.
        answers: list[Any] = pipeline.execute(raise_on_error=False)
        return answers


@cache
def _sum(script: str) -> str:
    return sha1(script.encode()).hexdigest()
