"""The Lua scripts for members, presence and bans. The scripts run inside of Redis. `keys` describes the data.

The scripts that write and read the log of a room are in `log_scripts`.
"""

from __future__ import annotations

from wsthreads.brokers.keys import ALIVE_S, AWAY, KEYS_S, PRESENCE_S
from wsthreads.brokers.log_scripts import (
    APPEND,
    FETCH,
    HEAD,
    HISTORY,
    LIVE_ON,
    NOW,
    PUBLISH,
    PUBLISH_KEPT,
    SHARE_LIMITS,
    TRIM,
)
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
    "MAY_LIVE",
    "PERSONS",
    "PRESENCE",
    "PUBLISH",
    "PUBLISH_KEPT",
    "REAP",
    "SHARE_LIMITS",
    "WAKE",
]

# Defines `told` and `gone`. `told` publishes a change of the presence of one session. `gone` removes a presence, and
# publishes the removal.
_CHANGE = f"""
local function told(id, payload)
  append('{VERSION} - 0 ' .. id .. ' p\\n' .. payload)
end
local function gone(field, id, value)
  redis.call('HDEL', KEYS[3], field)
  local version = string.match(value, '^%d+ %[(%d+)')
  if version then
    told(id, '[' .. version .. ']')
  end
end
"""

_TOLD = f"""
if text then
  redis.call('HSET', KEYS[2], 'number', text, 'id', last)
  {TRIM}
end
redis.call('PEXPIRE', KEYS[3], {PRESENCE_S * 1000})
"""

#: Stores presences and publishes those that have changed. KEYS: log, head, presence, processes. ARGV: channel; a random
#: epoch; the process; the number of this call; 1 if the process has no other sessions with a presence in the room,
#: otherwise 0. Three arguments for each session follow: its id; the payload, or an empty text if it has left; for how
#: many milliseconds the session is kept, or an empty text if it has a connection.
PRESENCE = f"""
local fresh = ARGV[2]
{NOW} {LIVE_ON} {HEAD} {APPEND} {_CHANGE}
if whole(redis.call('HGET', KEYS[3], ARGV[3])) >= tonumber(ARGV[4]) then
  return
end
redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
redis.call('ZADD', KEYS[4], string.format('%.0f', now + {ALIVE_S * 1000}), ARGV[3])
live_on(KEYS[4], {KEYS_S * 1000})
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

#: Removes presences of two kinds: those whose time is over, and those without a time that belong to dead processes.
#: KEYS: log, head, presence, processes. ARGV: channel, a random epoch; then processes that may be dead. Publishes each
#: removal.
REAP = f"""
local fresh = ARGV[2]
{NOW} {HEAD} {APPEND} {_CHANGE}
local dead = {{}}
for i = 3, #ARGV do
  local alive = redis.call('ZSCORE', KEYS[4], ARGV[i])
  dead[ARGV[i]] = not alive or tonumber(alive) < now
end
local all = redis.call('HGETALL', KEYS[3])
for i = 1, #all, 2 do
  local process, id = string.match(all[i], '^(%S+) (%S+)$')
  if process then
    local kept = whole(string.match(all[i + 1], '^%d+'))
    if kept == 0 and dead[process] or kept > 0 and kept <= now then
      gone(all[i], id, all[i + 1])
    end
  end
end
{_TOLD}
"""

#: Returns those of some processes that do not count as alive. KEYS: processes. ARGV: names of processes.
ALIVE = f"""
{NOW}
local dead = {{}}
for i = 1, #ARGV do
  local alive = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if not alive or tonumber(alive) < now then
    dead[#dead + 1] = ARGV[i]
  end
end
return dead
"""

#: Returns the time in milliseconds, and the presence hash without sessions that have left. KEYS: presence, processes.
PERSONS = f"""
{NOW}
local all, found, alive = redis.call('HGETALL', KEYS[1]), {{}}, {{}}
for i = 1, #all, 2 do
  local process = string.match(all[i], '^(%S+) ')
  if process then
    local kept = whole(string.match(all[i + 1], '^%d+'))
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

#: Stores a ban, unless the stored ban lasts longer. KEYS: ban. ARGV: a JSON list of the code and the reason; for how
#: many milliseconds.
BAN = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
"""

#: Returns a ban, and how many milliseconds it still lasts. Returns an empty text if there is no ban. KEYS: ban.
BANNED = "return {redis.call('GET', KEYS[1]) or '', redis.call('PTTL', KEYS[1])}"

#: Defines `may_live`. It tells whether a process that does not count as alive may still run, because it is subscribed
#: to its wake channel. This happens if Redis's clock was set forward, or if the process is cut off. If the process has
#: a later name that counts as alive, the result is false. `channel` is the wake channel of the process ARGV[1].
MAY_LIVE = """
local function may_live(process, processes, channel)
  local name, own = string.match(process, '^[^.]+'), string.match(ARGV[1], '^[^.]+')
  local alive = name and redis.call('ZSCORE', processes, name)
  if not name or alive and tonumber(alive) >= now then
    return false
  end
  return redis.call('PUBLISH', string.sub(channel, 1, #channel - #own) .. name, '') > 0
end
"""

#: Announces a room with members in a process. KEYS: log, head, members, processes, presence, ban, attributes. ARGV: the
#: process; how many members it has; a random epoch; a name; a channel; for how many milliseconds the attributes are
#: kept after the last member has left; former names of the process.
#:
#: Returns the number of members in other processes, the head, 1 if the process did not count as alive before (otherwise
#: 0), and the result of `BANNED`. Also removes dead processes.
#:
#: Unless the name is empty, the script publishes the head and the name on the channel. Later messages to the room
#: arrive after that. Before the head, it publishes the presence hash and the ban, if there is one of them: a plus sign,
#: the name, the time in milliseconds, and the parts, each after its length.
ANNOUNCE = f"""
local fresh = ARGV[3]
{NOW} {LIVE_ON} {HEAD} {MAY_LIVE}
local alive_until = string.format('%.0f', now + {ALIVE_S * 1000})
local added = redis.call('ZADD', KEYS[4], alive_until, ARGV[1])
redis.call('ZADD', KEYS[4], alive_until, string.match(ARGV[1], '^[^.]+'))
live_on(KEYS[4], {KEYS_S * 1000})
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[3], ARGV[1])
else
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
end
for i = 7, #ARGV do
  redis.call('HDEL', KEYS[3], ARGV[i])
end
local others = 0
local all = redis.call('HGETALL', KEYS[3])
for i = 1, #all, 2 do
  if all[i] ~= ARGV[1] then
    local alive = redis.call('ZSCORE', KEYS[4], all[i])
    if alive and tonumber(alive) >= now then
      others = others + whole(all[i + 1])
    elseif not may_live(all[i], KEYS[4], ARGV[5]) then
      redis.call('HDEL', KEYS[3], all[i])
    end
  end
end
live_on(KEYS[3], {KEYS_S * 1000})
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

#: Returns the number of members in other processes, and changes nothing. KEYS: members, processes. ARGV: the names of a
#: process.
COUNT = f"""
{NOW}
local others, own = 0, {{}}
for i = 1, #ARGV do
  own[ARGV[i]] = true
end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local alive = not own[all[i]] and redis.call('ZSCORE', KEYS[2], all[i])
  if alive and tonumber(alive) >= now then
    others = others + whole(all[i + 1])
  end
end
return others
"""

#: Reports that a process is alive. KEYS: processes. ARGV: the process. Returns 1, or 0 if the process no longer counted
#: as alive. In this case it must announce its rooms again. If Redis's clock was set back, the script shortens the times
#: of other processes to that of a new one. A moving session is not a process: its time stays.
BEAT = f"""
{NOW} {LIVE_ON}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now))
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
local alive_until = string.format('%.0f', now + {ALIVE_S * 1000})
redis.call('ZADD', KEYS[1], alive_until, ARGV[1], alive_until, string.match(ARGV[1], '^[^.]+'))
for _, process in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. alive_until, '+inf')) do
  if string.sub(process, -{len(AWAY)}) ~= '{AWAY}' then
    redis.call('ZADD', KEYS[1], alive_until, process)
  end
end
live_on(KEYS[1], {KEYS_S * 1000})
return 1
"""

#: Lets processes no longer count as alive. KEYS: processes. ARGV: names of processes.
FAREWELL = "redis.call('ZREM', KEYS[1], unpack(ARGV))"

#: Publishes data on a channel, and returns how many receive it. KEYS: a key that need not exist; in a cluster, its node
#: publishes. ARGV: channel, data. This is a script because a plain PUBLISH cannot be in the pipeline of a cluster.
WAKE = "return redis.call('PUBLISH', ARGV[1], ARGV[2])"
