"""The Lua scripts that run inside of Redis. `keys` describes what they read and write."""

from __future__ import annotations

from wsthreads.brokers.keys import ALIVE_S, HEAD_S, KEYS_S, LOG_ENTRIES, LOG_S, MAX_SENDERS, PRESENCE_S
from wsthreads.brokers.messages import VERSION

__all__ = [
    "ALIVE",
    "ANNOUNCE",
    "BAN",
    "BANNED",
    "BEAT",
    "COUNT",
    "FAREWELL",
    "FETCH",
    "HISTORY",
    "PERSONS",
    "PRESENCE",
    "PUBLISH",
    "PUBLISH_KEPT",
    "REAP",
    "SHARE_LIMITS",
    "WAKE",
]

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: log, head. `fresh` is the epoch of a new head, if there is none.
_HEAD = f"""
local head = redis.call('HMGET', KEYS[2], 'epoch', 'number', 'id', 'keep_ms')
if not head[1] then
  head = {{fresh, '0', '0-0'}}
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[2], 'epoch', fresh, 'number', '0', 'id', '0-0')
end
redis.call('PEXPIRE', KEYS[2], string.format('%.0f', math.max({HEAD_S * 1000}, tonumber(head[4] or '0'))))
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


def _publish(first: int, ticket: str, *, before: str = "", stored: str = "", after: str = "") -> str:
    """A script that publishes the messages from argument `first` on. `ticket` and `stored` are done for each."""
    return f"""
{before}
local fresh, field = ARGV[2], '@' .. ARGV[3]
{_NOW} {_HEAD} {_APPEND}
local known = redis.call('HMGET', KEYS[2], field, 'senders')
local ticket = known[1] and tonumber(string.match(known[1], '^%d+')) or -1
for i = {first}, #ARGV, 2 do
  {ticket}
  if tonumber(given) > ticket then
    ticket = tonumber(given)
    append(ARGV[i + 1])
    {stored}
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
{after} {_TRIM}
"""


#: KEYS: log, head. ARGV: channel, a random epoch, the sender; then the ticket and the bytes of each message, in order.
#: Skips messages that it has already published.
PUBLISH = _publish(4, "local given = ARGV[i]")

#: The same, and stores messages in the room's history. KEYS: log, head, history, settings. ARGV: the same, but before
#: the first ticket the limits, or a question mark if they are in `settings`. A ticket of a message that is stored is
#: followed by a plus and the bytes of its payload.
PUBLISH_KEPT = _publish(
    5,
    "local given, size = string.match(ARGV[i], '^(%d+)%+?(%d*)')",
    before="""
local limits = ARGV[4] ~= '?' and ARGV[4] or redis.call('GET', KEYS[4]) or ''
local most, keep_ms, most_bytes = string.match(limits, '^(%d+) (%d+) (%d+)')
local kept, kept_bytes, kept_from, count
""",
    stored="""if most and size ~= '' then
      if not kept then
        local found = redis.call('HMGET', KEYS[2], 'kept', 'kept_bytes', 'kept_from')
        if not found[1] then
          redis.call('DEL', KEYS[3])
        end
        kept, kept_bytes, kept_from = found[1] or '0 0-0', tonumber(found[2] or '0'), tonumber(found[3] or '0')
      end
      local entry = {text, last, kept, size, ARGV[i + 1]}
      count = redis.call('RPUSH', KEYS[3], table.concat(entry, ' '))
      kept, kept_bytes = text .. ' ' .. last, kept_bytes + tonumber(size)
      if count == 1 then
        kept_bytes, kept_from = tonumber(size), now
      end
    end""",
    after=f"""
if count then
  local function drop()
    count = count - 1
    kept_bytes = kept_bytes - tonumber(string.match(redis.call('LPOP', KEYS[3]), '^%S+ %S+ %S+ %S+ (%d+)'))
  end
  while count > tonumber(most) or count > 0 and kept_bytes > tonumber(most_bytes) do
    drop()
  end
  local oldest = now - tonumber(keep_ms)
  while count > 0 and kept_from <= oldest do
    kept_from = tonumber(string.match(redis.call('LINDEX', KEYS[3], 0), '^%S+ (%d+)'))
    if kept_from <= oldest then
      drop()
    end
  end
  redis.call('PEXPIRE', KEYS[3], keep_ms)
  redis.call('PEXPIRE', KEYS[2], string.format('%.0f', math.max({HEAD_S * 1000}, tonumber(keep_ms))))
  redis.call('HSET', KEYS[2], 'kept', kept, 'kept_bytes', string.format('%.0f', kept_bytes), 'kept_from',
    string.format('%.0f', kept_from), 'keep_ms', keep_ms)
end
""",
)

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

#: KEYS: log, head, presence, history. ARGV: an epoch, a number and an id, which are a process's position; the largest
#: number of entries; a random epoch if the history is wanted, or nothing. Returns the head, and the entries after the
#: position; all entries, if it is in another log. The head of a log that does not exist has no epoch. Then the time in
#: milliseconds, and the presence hash. If the history is wanted, it makes a log that does not exist, and also returns
#: the mark of the last message in the history, and all entries of that.
FETCH = f"""
{_NOW}
if ARGV[5] ~= '' and redis.call('HSETNX', KEYS[2], 'epoch', ARGV[5]) == 1 then
  redis.call('HSET', KEYS[2], 'number', '0', 'id', '0-0')
  redis.call('DEL', KEYS[1])
  redis.call('PEXPIRE', KEYS[2], {HEAD_S * 1000})
end
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
local answer = {{head[1], head[2], head[3], entries, string.format('%.0f', now), redis.call('HGETALL', KEYS[3])}}
if ARGV[5] ~= '' then
  answer[7] = redis.call('HGET', KEYS[2], 'kept') or ''
  answer[8] = answer[7] ~= '' and redis.call('LRANGE', KEYS[4], 0, -1) or {{}}
end
return answer
"""

#: KEYS: log, head, history, settings. ARGV: a random epoch, the limits or a question mark as for `PUBLISH_KEPT`, and
#: how many messages. Returns the limits, the epoch, the mark of the last entry, the time in milliseconds, and the
#: entries. If there are no limits, only them.
HISTORY = f"""
local fresh = ARGV[1]
local limits = ARGV[2] ~= '?' and ARGV[2] or redis.call('GET', KEYS[4]) or ''
if limits == '' then
  return {{''}}
end
{_NOW} {_HEAD}
local kept = redis.call('HGET', KEYS[2], 'kept') or ''
local entries = kept ~= '' and ARGV[3] ~= '0' and redis.call('LRANGE', KEYS[3], '-' .. ARGV[3], -1) or {{}}
return {{limits, head[1], kept, string.format('%.0f', now), entries}}
"""

#: KEYS: settings. ARGV: the limits of histories, for how many milliseconds.
SHARE_LIMITS = "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])"

#: KEYS: log, head, members, processes, presence, ban, attributes. ARGV: process, its members, a random epoch, a name
#: and a channel; for how many milliseconds the attributes outlive the last member.
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
local keep = tonumber(ARGV[6])
if others > 0 or ARGV[2] ~= '0' then
  keep = keep + {KEYS_S * 1000}
end
redis.call('PEXPIRE', KEYS[7], string.format('%.0f', keep))
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

#: KEYS: processes. ARGV: names of a process that ends. Removes them. Returns 1 if the first counted as alive.
FAREWELL = f"""
{_NOW}
local alive = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[1], unpack(ARGV))
return alive and tonumber(alive) >= now and 1 or 0
"""

#: KEYS: a key that need not exist; in a cluster, its node publishes. ARGV: channel, data. Returns how many receive it.
#: It is a script, because a plain PUBLISH cannot be in the pipeline of a cluster.
WAKE = "return redis.call('PUBLISH', ARGV[1], ARGV[2])"
