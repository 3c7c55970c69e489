"""The Lua scripts for the owners of rooms, and for posts. `keys` describes the data that they read and write.

The *poster* of a post is the process that has sent it.
"""

from __future__ import annotations

from wsthreads.brokers.keys import AWAY, KEYS_S, LEASE_S, OWNED_S
from wsthreads.brokers.log_scripts import NOW

__all__ = ["CLAIM", "CONFIRM", "GIVE_BACK", "KEEP", "POST", "TURN"]

# Defines `left`. It returns how many milliseconds a lease still lasts. The result is negative if the lease has ended or
# is unknown. Needs the variable `holders`.
_LEFT = f"""
{NOW}
local known = {{}}
local function left(lease)
  if known[lease] == nil then
    local ends = redis.call('ZSCORE', holders, lease)
    known[lease] = ends and tonumber(ends) - now or -1
  end
  return known[lease]
end
"""

# Defines `has_heir`. It tells whether a process wants to own a room, other than the process with the lease `owner`.
# Needs _LEFT.
_HEIRS = """
local function has_heir(lease, owner)
  for _, field in ipairs(redis.call('HKEYS', lease)) do
    if string.sub(field, 1, 1) == '@' and string.sub(field, 2) ~= owner and left(string.sub(field, 2)) >= 0 then
      return true
    end
  end
  return false
end
"""

# Defines `is_awaited`. It tells whether members of a room are moving to other processes. One of these processes will
# then own the room. Needs NOW.
_AWAITED = f"""
local function is_awaited(members, processes)
  for _, name in ipairs(redis.call('HKEYS', members)) do
    local due = string.sub(name, -{len(AWAY)}) == '{AWAY}' and redis.call('ZSCORE', processes, name)
    if due and tonumber(due) >= now then
      return true
    end
  end
  return false
end
"""

# Defines `tell` and `publish`. `tell` notes the outcome of a post. `publish` sends the outcomes to the posters: one
# message on each poster's channel.
_TELL = """
local told, channels = {}, {}
local function tell(entry, outcome)
  local channel, id = string.match(entry, '^(%S+) (%d+) ')
  if channel then
    if not told[channel] then
      told[channel] = {}
      channels[#channels + 1] = channel
    end
    table.insert(told[channel], {id, outcome})
  end
end
local function publish()
  for _, channel in ipairs(channels) do
    redis.call('PUBLISH', channel, '=' .. cjson.encode(told[channel]))
  end
end
"""

# Defines `finish`. It removes posts that were handled, and notes their outcomes with `tell`. `first` is the number of
# the first outcome. The outcomes are the arguments from ARGV[from] on. Owners number the posts that they take, from 0
# on. So a call that is repeated, because its answer was lost, changes nothing.
_FINISH = """
local function finish(lease, taken, first, from)
  local done = whole(redis.call('HGET', lease, 'done'))
  local count = #ARGV - from + 1 - (done - first)
  if count > 0 then
    for i, entry in ipairs(redis.call('LRANGE', taken, 0, count - 1)) do
      tell(entry, ARGV[from + done - first + i - 1])
    end
    redis.call('LTRIM', taken, count, -1)
    done = done + count
    redis.call('HSET', lease, 'done', string.format('%.0f', done))
  end
  return done
end
"""

# Defines `is_older` and `give_up`. `is_older` tells whether Redis has an older state of the posts than the owner. The
# owner has sent the outcomes of `first` posts, and has received `received` posts. If Redis has fewer, it has restarted
# with a snapshot, or has failed over to a replica that lagged. Then nobody knows which of its posts were handled, so
# `give_up` ends all of them. Needs _TELL.
_OLDER = """
local function is_older(lease, taken, first, received)
  local done = whole(redis.call('HGET', lease, 'done'))
  return done < first or done + redis.call('LLEN', taken) < received
end
local function give_up(...)
  for _, list in ipairs({...}) do
    for _, entry in ipairs(redis.call('LRANGE', list, 0, -1)) do
      tell(entry, 'lost')
    end
    redis.call('DEL', list)
  end
end
"""

#: Extends a lease. KEYS: holders. ARGV: the lease; 1 if the lease is new, otherwise 0; then leases of other processes.
#: Returns a list. Its first item is 1, or 0 if the lease has ended or is unknown. An item for each other lease follows:
#: how many milliseconds that lease still lasts, negative if it has ended. If Redis's clock was set back, a lease may
#: last too long. Such a lease is shortened to the length of a new one.
KEEP = f"""
local holders = KEYS[1]
{_LEFT}
local kept = ARGV[2] == '1' or left(ARGV[1]) >= 0
local latest = string.format('%.0f', now + {LEASE_S * 1000:.0f})
if kept then
  redis.call('ZADD', holders, latest, ARGV[1])
end
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', holders, '(' .. latest, '+inf')) do
  redis.call('ZADD', holders, latest, lease)
end
redis.call('ZREMRANGEBYSCORE', holders, '-inf', string.format('(%.0f', now - {KEYS_S * 1000}))
redis.call('PEXPIRE', holders, {KEYS_S * 1000})
local answer = {{kept and 1 or 0}}
for i = 3, #ARGV do
  answer[#answer + 1] = left(ARGV[i])
end
return answer
"""

#: Confirms the ownership of rooms. KEYS: for each room, the lease, the posts and the taken posts. ARGV: a lease; the
#: wake channel of its process; the process's lease before the last break of the connection, or an empty text; then the
#: fencing number of each room. Returns 1 for each room that is still owned with this number, otherwise 0. An owned room
#: belongs to the first lease from then on.
CONFIRM = f"""
local answer = {{}}
for i = 1, #KEYS, 3 do
  local room = #answer + 1
  answer[room] = 0
  if redis.call('HGET', KEYS[i], 'fence') == ARGV[room + 3] then
    answer[room] = 1
    redis.call('HDEL', KEYS[i], '@' .. ARGV[3])
    redis.call('HSET', KEYS[i], 'holder', ARGV[1], '@' .. ARGV[1], ARGV[2])
    for k = i, i + 2 do
      redis.call('PEXPIRE', KEYS[k], {OWNED_S * 1000})
    end
  end
end
return answer
"""

#: Notes that a process wants to own rooms, and takes those that are free. KEYS: holders; then for each room, the lease,
#: the taken posts and the posts. ARGV: a lease; the wake channel of its process; 1 to take rooms, or 0 only to note the
#: wish; for how many milliseconds the process has received all outcomes, or -1 if it has never missed any.
#:
#: Returns an empty list if the lease has ended. Otherwise it returns an item for each room. If the room was taken, the
#: item is its fencing number as text. If not, the item has the holder, and how many milliseconds the holder's lease
#: still lasts (negative if the room is free). Posts that a dead owner had taken are lost: their posters are told.
#:
#: Posts that are older than the last missed outcome are given up. Redis may have come back with an older state, so
#: these posts may have been handled already. In this case their posters have missed outcomes, too, and no longer wait.
CLAIM = f"""
local holders = KEYS[1]
{_LEFT} {_TELL}
if left(ARGV[1]) < 0 then
  return {{}}
end
local answer, since = {{}}, ARGV[4] ~= '-1' and now - tonumber(ARGV[4])
for i = 2, #KEYS, 3 do
  local room = redis.call('HMGET', KEYS[i], 'holder', 'last')
  redis.call('HSET', KEYS[i], '@' .. ARGV[1], ARGV[2])
  redis.call('PEXPIRE', KEYS[i], {OWNED_S * 1000})
  local rest = room[1] and room[1] ~= ARGV[1] and left(room[1]) or -1
  if rest >= 0 or ARGV[3] == '0' then
    answer[#answer + 1] = {{room[1] or '', rest}}
  else
    local fence = string.format('%.0f', math.max(whole(room[2]) + 1, now))
    redis.call('HSET', KEYS[i], 'holder', ARGV[1], 'fence', fence, 'last', fence, 'channel', ARGV[2], 'done', '0')
    redis.call('HDEL', KEYS[i], 'closing')
    for _, field in ipairs(redis.call('HKEYS', KEYS[i])) do
      if string.sub(field, 1, 1) == '@' and left(string.sub(field, 2)) < 0 then
        redis.call('HDEL', KEYS[i], field)
      end
    end
    for _, entry in ipairs(redis.call('LRANGE', KEYS[i + 1], 0, -1)) do
      tell(entry, 'lost')
    end
    redis.call('DEL', KEYS[i + 1])
    local first = since and redis.call('LINDEX', KEYS[i + 2], 0)
    while first and whole(string.match(first, '^%S+ %d+ %d+ (%d+)')) < since do
      tell(first, 'lost')
      redis.call('LPOP', KEYS[i + 2])
      first = redis.call('LINDEX', KEYS[i + 2], 0)
    end
    answer[#answer + 1] = fence
  end
end
publish()
return answer
"""

#: Gives back a room, and the posts that were taken but not begun. KEYS: holders, and the lease, the posts, the taken
#: posts, the members and the processes of the room. ARGV: a lease; the fencing number, or an empty text if the process
#: does not own the room; 1 if the process wants to own the room again, otherwise 0; then the number of the first
#: outcome and the outcomes, as for `TURN`.
#:
#: Wakes the processes that want to own the room. If there is none, and no member is moving to another process, the
#: posters are told that no process owns the room.
GIVE_BACK = f"""
local holders = KEYS[1]
{_LEFT} {_AWAITED} {_TELL} {_FINISH} {_OLDER}
if ARGV[3] == '0' then
  redis.call('HDEL', KEYS[2], '@' .. ARGV[1])
end
if ARGV[2] ~= '' and redis.call('HGET', KEYS[2], 'fence') == ARGV[2] then
  if is_older(KEYS[2], KEYS[4], tonumber(ARGV[4]), tonumber(ARGV[4]) + #ARGV - 4) then
    give_up(KEYS[4], KEYS[3])
  else
    finish(KEYS[2], KEYS[4], tonumber(ARGV[4]), 5)
  end
  redis.call('HDEL', KEYS[2], 'holder', 'fence', 'channel', 'done', 'closing')
  while redis.call('LMOVE', KEYS[4], KEYS[3], 'RIGHT', 'LEFT') do
  end
end
if not redis.call('HGET', KEYS[2], 'holder') then
  local wishes, has_heir = redis.call('HGETALL', KEYS[2]), false
  for i = 1, #wishes, 2 do
    if string.sub(wishes[i], 1, 1) == '@' and left(string.sub(wishes[i], 2)) >= 0 then
      has_heir = true
      if ARGV[2] ~= '' then
        redis.call('PUBLISH', wishes[i + 1], '!' .. KEYS[2])
      end
    end
  end
  if not has_heir and not is_awaited(KEYS[5], KEYS[6]) then
    for _, entry in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
      tell(entry, 'nobody')
    end
    redis.call('DEL', KEYS[3])
  end
end
publish()
"""

#: Gives an owner its posts, and stores the outcomes of earlier posts. KEYS: as for `GIVE_BACK`. ARGV: the fencing
#: number; how many posts the owner has received; how many more posts it takes at most, and how many bytes; 1 if the
#: owner no longer has members, 0 if it has some again, or an empty text; then the number of the first post whose
#: outcome follows, and the outcomes in the order of the posts.
#:
#: Returns 0 if the process no longer owns the room. Otherwise it returns 1, and two items for each post that the owner
#: receives now: how many milliseconds the post may wait until it is handled, and the entry.
#:
#: If Redis has an older state than the owner, all posts are given up, and the room becomes free.
#:
#: If the owner has no members, and no other process wants to own the room, the room gets no further posts. The script
#: then returns 2 instead of 1 when the owner has received all posts. It also returns 2 if the owner has no members and
#: another process wants to own the room.
TURN = f"""
local holders = KEYS[1]
{_LEFT} {_HEIRS} {_AWAITED} {_TELL} {_FINISH} {_OLDER}
local room = redis.call('HMGET', KEYS[2], 'fence', 'holder')
if room[1] ~= ARGV[1] then
  return {{0}}
end
if is_older(KEYS[2], KEYS[4], tonumber(ARGV[6]), tonumber(ARGV[2])) then
  give_up(KEYS[4], KEYS[3])
  redis.call('HDEL', KEYS[2], 'holder', 'fence', 'channel', 'done', 'closing')
  publish()
  return {{0}}
end
local done = finish(KEYS[2], KEYS[4], tonumber(ARGV[6]), 7)
publish()
if left(room[2]) < 0 then
  return {{0}}
end
local answer, size, limit = {{1}}, 0, tonumber(ARGV[3])
if ARGV[5] == '0' then
  redis.call('HDEL', KEYS[2], 'closing')
elseif ARGV[5] == '1' then
  if has_heir(KEYS[2], room[2]) or is_awaited(KEYS[5], KEYS[6]) then
    answer[1], limit = 2, 0
  else
    redis.call('HSET', KEYS[2], 'closing', '1')
  end
end
local function add(entry)
  answer[#answer + 1] = string.format('%.0f', whole(string.match(entry, '^%S+ %d+ (%d+)')) - now)
  answer[#answer + 1] = entry
  size = size + #entry
end
for _, entry in ipairs(redis.call('LRANGE', KEYS[4], tonumber(ARGV[2]) - done, -1)) do
  add(entry)
end
while #answer < 2 * limit and size < tonumber(ARGV[4]) do
  local entry = redis.call('LMOVE', KEYS[3], KEYS[4], 'LEFT', 'RIGHT')
  if not entry then
    break
  end
  add(entry)
end
if ARGV[5] == '1' and redis.call('EXISTS', KEYS[3]) == 0 then
  answer[1] = 2
end
if #answer > 1 then
  redis.call('PEXPIRE', KEYS[4], {OWNED_S * 1000})
end
return answer
"""

#: Queues posts, and wakes the owner. KEYS: as for `GIVE_BACK`. ARGV: the poster's wake channel; for how many
#: milliseconds the posts may be handled; how many posts may wait; then for each post, the poster's number and the post.
#: Returns how many posts were queued. The others were not, because the queue was full.
#:
#: Returns -1 if no process owns the room or wants to own it, and no member is moving to another process.
POST = f"""
local holders = KEYS[1]
{_LEFT} {_HEIRS} {_AWAITED}
local room = redis.call('HMGET', KEYS[2], 'holder', 'channel', 'closing')
local is_owned = room[1] and left(room[1]) >= 0 and not room[3]
if not is_owned and not has_heir(KEYS[2], room[3] and room[1] or '') and not is_awaited(KEYS[5], KEYS[6]) then
  return -1
end
local length, queued = redis.call('LLEN', KEYS[3]), 0
local times = string.format(' %.0f %.0f\\n', now + tonumber(ARGV[2]), now)
for i = 4, #ARGV, 2 do
  if length + queued >= tonumber(ARGV[3]) then
    break
  end
  redis.call('RPUSH', KEYS[3], ARGV[1] .. ' ' .. ARGV[i] .. times .. ARGV[i + 1])
  queued = queued + 1
end
redis.call('PEXPIRE', KEYS[3], {OWNED_S * 1000})
if is_owned and room[2] and redis.call('EXISTS', KEYS[4]) == 0 then
  redis.call('PUBLISH', room[2], '!' .. KEYS[2])
end
return queued
"""
